#include "io/reactor_common.h"

#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "base/units.h"
#include "io/file_work.h"

namespace ankole::io {
namespace {

constexpr uint64_t kConnectRetryNs = 10 * kNsPerMs;

}  // namespace

CommonReactor::CommonReactor(BackendChoice choice, int pool_threads)
    : choice_(std::move(choice)),
      files_(MakePosixFileSystem()),
      pool_(
          pool_threads,
          [](Operation* operation) {
            switch (operation->kind) {
              case kRead:
                operation->result = ReadBlocking(static_cast<FileOperation*>(operation));
                break;
              case kWrite:
                operation->result = WriteBlocking(static_cast<FileOperation*>(operation));
                break;
              default:
                static_cast<Job*>(operation)->work(static_cast<Job*>(operation));
                break;
            }
          },
          &mailbox_) {}

CommonReactor::~CommonReactor() {
  CHECK(!running_);
  for (const auto& connecting : connects_) {
    if (connecting->fd >= 0) close(connecting->fd);
  }
}

uint64_t CommonReactor::NowNs() {
  timespec now;
  // Goes on while the machine sleeps, as the lease of an engine must (rule 4).
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t CommonReactor::WallClockSeconds() { return static_cast<uint64_t>(time(nullptr)); }

void CommonReactor::Random(void* to, size_t bytes) {
  auto* out = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = getrandom(out, bytes, 0);
    if (got < 0 && errno == EINTR) continue;
    CHECK(got > 0);
    out += got;
    bytes -= static_cast<size_t>(got);
  }
}

// --- operations
// --------------------------------------------------------------------------------------

void CommonReactor::Begin(Operation* operation, Kind kind) {
  CHECK(!operation->in_flight);
  CHECK(operation->done != nullptr);
  operation->in_flight = true;
  operation->kind = kind;
  operation->result = 0;
  ++in_flight_;
}

void CommonReactor::Complete(Operation* operation, int64_t result) {
  operation->result = result;
  ready_.Push(operation);
}

void CommonReactor::ToPool(Operation* operation) {
  if (!pool_.Submit(operation)) unplaced_.Push(operation);
}

void CommonReactor::Run(Job* job) {
  CHECK(job->work != nullptr);
  Begin(job, kJob);
  ToPool(job);
}

void CommonReactor::Read(FileOperation* operation) {
  Begin(operation, kRead);
  operation->finished_bytes = 0;
  if (!operation->direct) {
    if (const auto result = TryReadCached(operation)) return Complete(operation, *result);
  }
  StartBlockingFile(operation);
}

void CommonReactor::Write(FileOperation* operation) {
  Begin(operation, kWrite);
  operation->finished_bytes = 0;
  if (operation->direct || operation->durable || operation->once) {
    return StartBlockingFile(operation);
  }
  Complete(operation, WriteBlocking(operation));
}

Result<Socket> CommonReactor::MakeDoorbell() {
  // Not blocking: whoever has the descriptor can fill the counter, and nobody must wait for that.
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) return Status::FromErrno(errno, "eventfd");
  return Socket{fd};
}

void CommonReactor::Ring(Socket doorbell) {
  const uint64_t one = 1;
  // A counter that is full has been rung.
  (void)!write(doorbell.fd, &one, sizeof(one));
}

void CommonReactor::Post(Message* message) {
  CHECK(!message->in_flight);
  message->in_flight = true;
  message->kind = kMessage;
  message->result = 0;
  mailbox_.Push(message);
}

void CommonReactor::Arm(Timer* timer, uint64_t deadline_ns) {
  CHECK(timer->done != nullptr);
  timers_.Arm(timer, deadline_ns);
}

void CommonReactor::Cancel(Timer* timer) {
  if (timer->armed()) timers_.Remove(timer);
}

void CommonReactor::Defer(Task* task) {
  if (task->scheduled) return;
  CHECK(task->done != nullptr);
  task->scheduled = true;
  tasks_.Push(task);
}

// --- the loop
// ----------------------------------------------------------------------------------------

void CommonReactor::Loop() {
  CHECK(!running_);
  running_ = true;
  LoopBegins();
  for (;;) {
    Turn();
    const bool busy = !ready_.empty() || !tasks_.empty() || !unplaced_.empty();
    if (stop_ && !busy && in_flight_ == 0 && mailbox_.empty()) break;
    int64_t timeout_ns = busy ? 0 : WaitNs();
    if (timeout_ns != 0 && !mailbox_.PrepareSleep()) timeout_ns = 0;
    ++waits_;
    Poll(timeout_ns);
    mailbox_.Awake();
  }
  LoopEnds();
  stop_ = false;
  running_ = false;
}

void CommonReactor::Turn() {
  OperationQueue mail;
  mailbox_.TakeAll(&mail);
  while (Operation* operation = mail.Pop()) {
    if (operation->kind == kMessage) ++in_flight_;
    ready_.Push(operation);
  }
  FireTimers();
  if (Operation* operation = unplaced_.Pop()) {
    // Threads may be had by now.
    if (!pool_.Submit(operation)) {
      pool_.RunHere(operation);
      ready_.Push(operation);
    }
  }
  int budget = kTurnBudget;
  while (budget > 0 && !(ready_.empty() && tasks_.empty())) {
    RunReady(&budget);
    // Those that are scheduled from here on run in the next round.
    OperationQueue tasks;
    std::swap(tasks, tasks_);
    while (Operation* operation = tasks.Pop()) {
      static_cast<Task*>(operation)->scheduled = false;
      --budget;
      operation->done(operation);
    }
  }
}

void CommonReactor::RunReady(int* budget) {
  while (*budget > 0) {
    Operation* const operation = ready_.Pop();
    if (operation == nullptr) break;
    --*budget;
    if (operation->kind == kClose) FinishClose(static_cast<CloseOperation*>(operation));
    operation->in_flight = false;
    --in_flight_;
    operation->done(operation);
  }
}

void CommonReactor::FireTimers() {
  if (timers_.empty()) return;
  const uint64_t now_ns = NowNs();
  // Bounded, as a callback may arm a timer for the past.
  for (size_t left = timers_.size(); left > 0 && !timers_.empty(); --left) {
    Timer* const timer = timers_.top();
    if (timer->deadline_ns > now_ns) break;
    timers_.Remove(timer);
    timer->done(timer);
  }
}

int64_t CommonReactor::WaitNs() {
  if (timers_.empty()) return -1;
  const uint64_t now_ns = NowNs();
  const uint64_t deadline_ns = timers_.top()->deadline_ns;
  if (deadline_ns <= now_ns) return 0;
  // A deadline of «never» must not overflow what the kernel takes.
  return static_cast<int64_t>(std::min(deadline_ns - now_ns, 3600 * 24 * kNsPerSecond));
}

// --- connecting
// --------------------------------------------------------------------------------------

void CommonReactor::Connect(ConnectOperation* operation) {
  Begin(operation, kConnect);
  operation->socket = {};
  connects_.push_back(std::make_unique<Connecting>());
  Connecting* const connecting = connects_.back().get();
  connecting->operation = operation;
  connecting->retry.owner = this;
  connecting->resolve.owner = this;
  connecting->resolve.connecting = connecting;
  connecting->retry.done = [](Operation* timer) {
    auto* const reactor = static_cast<CommonReactor*>(timer->owner);
    for (const auto& each : reactor->connects_) {
      if (&each->retry == timer) return reactor->TryAddress(each.get());
    }
  };
  SocketAddress numeric;
  if (NumericAddress(operation->address, &numeric)) {
    connecting->resolve.addresses.push_back(numeric);
    TryAddress(connecting);
    return;
  }
  connecting->resolve.address = operation->address;
  connecting->resolve.work = [](Job* job) {
    auto* const resolve = static_cast<Connecting::Resolve*>(job);
    resolve->error = ResolveAddress(resolve->address, &resolve->addresses);
  };
  connecting->resolve.done = [](Operation* done) {
    auto* const resolve = static_cast<Connecting::Resolve*>(done);
    auto* const reactor = static_cast<CommonReactor*>(resolve->owner);
    if (resolve->connecting->operation == nullptr || resolve->error != 0) {
      return reactor->EndConnect(resolve->connecting, resolve->error);
    }
    reactor->TryAddress(resolve->connecting);
  };
  Run(&connecting->resolve);
}

void CommonReactor::TryAddress(Connecting* connecting) {
  if (connecting->next_address == connecting->resolve.addresses.size()) {
    return EndConnect(connecting, connecting->last_error);
  }
  if (connecting->fd < 0) {
    connecting->fd = socket(connecting->address().storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connecting->fd < 0) return ConnectFinished(connecting, -errno);
  }
  StartConnect(connecting);
}

void CommonReactor::ConnectFinished(Connecting* connecting, int error) {
  if (connecting->operation == nullptr) return EndConnect(connecting, -ECANCELED);
  if (error == 0) {
    SetStreamOptions(connecting->fd, connecting->address().storage.ss_family);
    connecting->operation->socket.fd = connecting->fd;
    connecting->fd = -1;
    return EndConnect(connecting, 0);
  }
  if (error == -EAGAIN && connecting->address().storage.ss_family == AF_UNIX) {
    Arm(&connecting->retry, NowNs() + kConnectRetryNs);
    return;
  }
  if (connecting->fd >= 0) close(connecting->fd);
  connecting->fd = -1;
  connecting->last_error = error;
  ++connecting->next_address;
  TryAddress(connecting);
}

void CommonReactor::EndConnect(Connecting* connecting, int64_t result) {
  Cancel(&connecting->retry);
  if (connecting->fd >= 0) close(connecting->fd);
  if (connecting->operation != nullptr) Complete(connecting->operation, result);
  connects_.remove_if([&](const auto& each) { return each.get() == connecting; });
}

void CommonReactor::CancelConnect(ConnectOperation* operation) {
  const auto found = std::find_if(connects_.begin(), connects_.end(),
                                  [&](const auto& each) { return each->operation == operation; });
  if (found == connects_.end()) return;
  Connecting* const connecting = found->get();
  connecting->operation = nullptr;
  Complete(operation, -ECANCELED);
  // While the resolver runs there is nothing to stop: its `done` ends it.
  if (connecting->resolve.in_flight) return;
  if (connecting->retry.armed() || connecting->fd < 0) return EndConnect(connecting, -ECANCELED);
  StopConnect(connecting);
}

}  // namespace ankole::io
