#pragma once

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "io/job_pool.h"
#include "io/mailbox.h"
#include "io/operation_queue.h"
#include "io/reactor.h"
#include "io/sockets.h"
#include "io/timer_heap.h"

namespace ankole::io {

// What both back ends share: the loop with timers, tasks, messages and the pool; names of hosts;
// and file I/O up to the point where it would block.
//
// A turn: wait for the kernel, take the mail, fire timers, run what is ready and then the tasks,
// until neither is left or kTurnBudget callbacks ran. The budget is what keeps one busy socket from
// starving timers and the other sockets.
class CommonReactor : public Reactor {
 public:
  ~CommonReactor() override;

  const BackendChoice& backend() const override { return choice_; }
  FileSystem& files() override { return *files_; }
  uint64_t NowNs() override;
  uint64_t WallClockSeconds() override;
  void Random(void* to, size_t bytes) override;

  void Arm(Timer* timer, uint64_t deadline_ns) override;
  void Cancel(Timer* timer) override;
  void Defer(Task* task) override;
  void Run(Job* job) override;
  void Read(FileOperation* operation) override;
  void Write(FileOperation* operation) override;
  void Connect(ConnectOperation* operation) override;
  void CancelConnect(ConnectOperation* operation) override;
  Result<Socket> MakeDoorbell() override;
  void Ring(Socket doorbell) override;
  void Post(Message* message) override;
  void Loop() override;
  void Stop() override { stop_ = true; }

  // How often the loop waited in the kernel: an idle reactor's does not grow.
  uint64_t waits() const { return waits_; }

  // A Connect under way: it goes through the addresses of the host until one answers.
  struct Connecting {
    ConnectOperation* operation = nullptr;  // null: was cancelled, ends when the resolver is back
    struct Resolve : Job {
      Connecting* connecting = nullptr;
      Address address;
      std::vector<SocketAddress> addresses;
      int error = 0;
    } resolve;
    // A Unix socket whose backlog is full says EAGAIN and never that there is room again.
    Timer retry;
    size_t next_address = 0;
    int last_error = -EHOSTUNREACH;
    int fd = -1;
    const SocketAddress& address() const { return resolve.addresses[next_address]; }
  };

 protected:
  // Operation::kind while in flight.
  enum Kind : uint8_t {
    kNone,
    kJob,
    kRead,
    kWrite,
    kAccept,
    kConnect,
    kReceive,
    kSend,
    kClose,
    kAwait,
    kMessage
  };

  CommonReactor(BackendChoice choice, int pool_threads);

  void Begin(Operation* operation, Kind kind);
  // Queues `done`.
  void Complete(Operation* operation, int64_t result);
  // The rest of a file operation, or a job, on the pool.
  void ToPool(Operation* operation);

  // The back end's:
  // Waits up to `timeout_ns` (0: not at all, < 0: for ever) and starts to complete what came.
  virtual void Poll(int64_t timeout_ns) = 0;
  // Just before a close operation's `done`: closes the descriptor.
  virtual void FinishClose(CloseOperation* operation) = 0;
  // A read that is not cached, a write that is durable or written once, or either on an O_DIRECT
  // file.
  virtual void StartBlockingFile(FileOperation* operation) = 0;
  // Begins to connect connecting->fd to connecting->address(); ConnectFinished follows.
  virtual void StartConnect(Connecting* connecting) = 0;
  // Stops that. ConnectFinished follows in this call or later.
  virtual void StopConnect(Connecting* connecting) = 0;
  // On the loop's thread before its first turn and after its last one.
  virtual void LoopBegins() {}
  virtual void LoopEnds() {}

  // 0 or a negative errno.
  void ConnectFinished(Connecting* connecting, int error);

  Mailbox mailbox_;

 private:
  static constexpr int kTurnBudget = 256;

  void Turn();
  void FireTimers();
  void RunReady(int* budget);
  int64_t WaitNs();
  void TryAddress(Connecting* connecting);
  void EndConnect(Connecting* connecting, int64_t result);

  const BackendChoice choice_;
  std::unique_ptr<FileSystem> files_;
  TimerHeap timers_;
  OperationQueue ready_;
  OperationQueue tasks_;
  OperationQueue unplaced_;  // for the pool, which has no thread: run by the loop, one a turn
  std::list<std::unique_ptr<Connecting>> connects_;
  uint64_t in_flight_ = 0;
  uint64_t waits_ = 0;
  bool stop_ = false;
  bool running_ = false;
  JobPool pool_;  // ends first: its threads use the mailbox
};

}  // namespace ankole::io
