#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>

#include "io/operation_queue.h"
#include "io/reactor.h"
#include "io/timer_heap.h"
#include "sim/fiber.h"
#include "sim/file_system.h"
#include "sim/machine.h"

namespace ankole::sim {

// A simulated process: the reactor of the real code, with turns, tasks and a pool of four as the
// real back ends have them, driven by the World. What a killed process had in memory is left where
// it is, as nothing of it runs any more.
//
// There is no shared memory: sockets carry no descriptors and there are no doorbells.
class SimReactor final : public io::Reactor {
 public:
  SimReactor(Machine& machine, std::string name);
  ~SimReactor() override;

  // --- the World's side
  // ---------------------------------------------------------------------------

  const std::string& process_name() const { return name_; }
  Machine& machine() { return machine_; }
  World& world() { return machine_.world; }
  bool alive() const { return !dead_; }
  // Runs it in a turn to come, as if it had come over a socket.
  void Inside(std::function<void()> what);
  // kill -9. File calls that are on their way may still land, and the descriptors, their locks and
  // the sockets are closed after the last that does; then `reaped` runs.
  void Kill(std::function<void()> reaped);
  // Power is gone. No call lands.
  void LosePower();
  // SIGSTOP: nothing of it runs before that time; what the kernel does for it goes on.
  void FreezeUntil(uint64_t world_ns);
  bool frozen() const { return machine_.world.now_ns() < frozen_until_ns_; }
  // The loop has ended: Stop was called and nothing is in flight.
  std::function<void()> on_ended;

  // --- for SimFileSystem: within a job
  // ------------------------------------------------------------

  // Lets `before_ns` pass, takes effect, lets `after_ns` pass. At once where no job runs. A kill in
  // between may or may not let the effect happen.
  void Blocking(uint64_t before_ns, uint64_t after_ns, const std::function<void()>& effect);

  // --- io::Reactor
  // --------------------------------------------------------------------------------

  const io::BackendChoice& backend() const override { return choice_; }
  io::FileSystem& files() override { return files_; }
  uint64_t NowNs() override { return machine_.ClockNs(); }
  uint64_t WallClockSeconds() override { return 1'700'000'000 + world().now_ns() / kNsPerSecond; }
  void Random(void* to, size_t bytes) override { random_.Fill(to, bytes); }
  void Arm(io::Timer* timer, uint64_t deadline_ns) override;
  void Cancel(io::Timer* timer) override;
  void Defer(io::Task* task) override;
  void Run(io::Job* job) override;
  void Read(io::FileOperation* operation) override;
  void Write(io::FileOperation* operation) override;
  Result<io::Socket> Listen(const io::Address& address, io::Address* bound) override;
  void Accept(io::AcceptOperation* operation) override;
  void Connect(io::ConnectOperation* operation) override;
  void Receive(io::ReceiveOperation* operation) override;
  void Send(io::SendOperation* operation) override;
  Result<io::Socket> MakeDoorbell() override;
  void Ring(io::Socket doorbell) override;
  void Await(io::AwaitOperation* operation) override;
  void Close(io::CloseOperation* operation) override;
  void CancelConnect(io::ConnectOperation* operation) override;
  void Post(io::Message* message) override;
  void Loop() override;
  void Stop() override;

 private:
  enum Kind : uint8_t { kOther, kCloseKind };
  struct SimSocket {
    std::shared_ptr<Endpoint> endpoint;
    // A listener's.
    bool listener = false;
    uint16_t port = 0;
    std::deque<std::shared_ptr<Endpoint>> backlog;
    bool closing = false;
    io::AcceptOperation* accept = nullptr;
    io::ReceiveOperation* receive = nullptr;
    io::SendOperation* send = nullptr;
    size_t sent_bytes = 0;  // of `send`
  };
  // A job that has begun. Kept for good when the process is killed: a call that lands late reads
  // from its stack.
  struct JobRun {
    std::unique_ptr<Fiber> fiber;
    io::Job* job = nullptr;
  };
  // A file call on its way.
  struct Call {
    uint64_t lands_ns = 0;
    bool dropped = false;
    bool landed = false;
  };

  void Begin(io::Operation* operation);
  void Complete(io::Operation* operation, int64_t result);
  void Wake(uint64_t delay_ns);
  void WakeAt(uint64_t world_ns);
  void Turn();
  void FireTimers();
  void StartJobs();
  void GoOn(JobRun* run);
  // `effect` at that delay, unless the power goes or a kill drops it.
  void Land(uint64_t delay_ns, std::function<void()> effect);
  void FileLater(io::FileOperation* operation, bool write);
  int64_t ReadNow(io::FileOperation* operation);
  int64_t WriteNow(io::FileOperation* operation);
  SimSocket* SocketOf(io::Socket socket);
  io::Socket AddSocket(const std::shared_ptr<Endpoint>& endpoint);
  void TryAccept(SimSocket* socket);
  void TryReceive(SimSocket* socket);
  void TrySend(SimSocket* socket);
  void Reap();

  Machine& machine_;
  const std::string name_;
  const io::BackendChoice choice_ = {io::Backend::kEpoll, "simulated"};
  sim::Random random_;
  SimFileSystem files_;
  bool dead_ = false;
  bool stop_ = false;
  bool ended_ = false;
  uint64_t frozen_until_ns_ = 0;
  uint64_t busy_until_ns_ = 0;
  uint64_t turn_ns_ = UINT64_MAX;  // when the next turn is due
  uint64_t in_flight_ = 0;
  io::OperationQueue ready_;
  io::OperationQueue tasks_;
  io::TimerHeap timers_;
  std::deque<std::function<void()>> inside_;
  std::deque<io::Job*> jobs_;
  std::list<JobRun> runs_;
  JobRun* running_ = nullptr;
  std::list<std::shared_ptr<Call>> calls_;
  std::map<int, SimSocket> sockets_;
  int next_socket_ = 1'000'000;
  std::map<io::ConnectOperation*, uint64_t> connects_;
};

}  // namespace ankole::sim
