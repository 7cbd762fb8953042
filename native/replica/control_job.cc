#include "replica/control_job.h"

#include <memory>
#include <utility>

namespace ankole::replica {
namespace {

struct ControlJob : io::Job {
  std::function<void()> call;
  std::function<void()> then;
};

}  // namespace

void RunControlJob(io::Reactor& reactor, std::function<void()> work, std::function<void()> then) {
  auto* job = new ControlJob();
  job->call = std::move(work);
  job->then = std::move(then);
  job->work = [](io::Job* self) { static_cast<ControlJob*>(self)->call(); };
  job->done = [](io::Operation* self) {
    const std::unique_ptr<ControlJob> owned(static_cast<ControlJob*>(self));
    owned->then();
  };
  reactor.Run(job);
}

}  // namespace ankole::replica
