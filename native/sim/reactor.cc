#include "sim/reactor.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/check.h"
#include "io/file_work.h"

namespace ankole::sim {
namespace {

constexpr size_t kPoolThreads = 4;
constexpr int kTurnBudget = 256;
constexpr uint64_t kDeviceNsMin = 20 * kNsPerUs;
constexpr uint64_t kDeviceNsMax = 2 * kNsPerMs;

}  // namespace

SimReactor::SimReactor(Machine& machine, std::string name)
    : machine_(machine),
      name_(machine.name() + "/" + std::move(name)),
      random_(machine.world.random.Next()),
      files_(machine, *this) {
  machine_.Add(this);
}

SimReactor::~SimReactor() {
  if (!dead_) machine_.Remove(this);
}

// --- the World's side
// -----------------------------------------------------------------------------

void SimReactor::Inside(std::function<void()> what) {
  if (dead_) return;
  inside_.push_back(std::move(what));
  Wake(random_.Skewed(kNsPerUs, 20 * kNsPerUs));
}

void SimReactor::Kill(std::function<void()> reaped) {
  if (dead_) return;
  dead_ = true;
  if (world().tracing()) world().Trace(name_, "is killed");
  uint64_t exit_ns = world().now_ns();
  for (const auto& call : calls_) {
    if (call->landed) continue;
    // One that has reached the device cannot be called back; one that has not is not made.
    call->dropped = random_.Chance(1, 2);
    if (!call->dropped) exit_ns = std::max(exit_ns, call->lands_ns);
  }
  const uint64_t boots = machine_.boots();
  world().At(exit_ns, [this, boots, reaped = std::move(reaped)] {
    if (machine_.boots() != boots || !machine_.up()) return;
    Reap();
    if (reaped) reaped();
  });
}

// The kernel closes what the process had open.
void SimReactor::Reap() {
  machine_.CloseAllOf(this);
  for (auto& [fd, socket] : sockets_) {
    if (socket.listener) machine_.network.StopListening(machine_.name(), socket.port);
    for (const auto& endpoint : socket.backlog) endpoint->Close();
    if (socket.endpoint != nullptr) socket.endpoint->Close();
  }
  sockets_.clear();
  for (const auto& [operation, number] : connects_) machine_.network.Cancel(number);
  connects_.clear();
  machine_.Remove(this);
}

void SimReactor::LosePower() {
  dead_ = true;
  for (const auto& call : calls_) call->dropped = true;
}

void SimReactor::FreezeUntil(uint64_t world_ns) {
  frozen_until_ns_ = std::max(frozen_until_ns_, world_ns);
}

void SimReactor::Wake(uint64_t delay_ns) { WakeAt(world().now_ns() + delay_ns); }

void SimReactor::WakeAt(uint64_t world_ns) {
  if (world_ns >= turn_ns_) return;
  turn_ns_ = world_ns;
  world().At(world_ns, [this, world_ns] {
    if (!dead_ && turn_ns_ == world_ns) Turn();
  });
}

void SimReactor::Turn() {
  turn_ns_ = UINT64_MAX;
  const uint64_t now_ns = world().now_ns();
  if (ended_) return;
  if (const uint64_t not_before_ns = std::max(frozen_until_ns_, busy_until_ns_);
      now_ns < not_before_ns) {
    WakeAt(not_before_ns);
    return;
  }
  std::deque<std::function<void()>> inside;
  inside.swap(inside_);
  for (const auto& what : inside) what();
  FireTimers();
  int budget = kTurnBudget;
  while (budget > 0 && !(ready_.empty() && tasks_.empty())) {
    while (budget > 0) {
      io::Operation* const operation = ready_.Pop();
      if (operation == nullptr) break;
      --budget;
      if (operation->kind == kCloseKind) {
        const int fd = static_cast<io::CloseOperation*>(operation)->socket.fd;
        SimSocket& socket = sockets_.at(fd);
        if (socket.listener) machine_.network.StopListening(machine_.name(), socket.port);
        for (const auto& endpoint : socket.backlog) endpoint->Close();
        if (socket.endpoint != nullptr) socket.endpoint->Close();
        sockets_.erase(fd);
      }
      operation->in_flight = false;
      --in_flight_;
      operation->done(operation);
    }
    io::OperationQueue tasks;
    std::swap(tasks, tasks_);
    while (io::Operation* operation = tasks.Pop()) {
      static_cast<io::Task*>(operation)->scheduled = false;
      --budget;
      operation->done(operation);
    }
  }
  if (dead_) return;
  busy_until_ns_ = now_ns + random_.Skewed(500, 20 * kNsPerUs);
  const bool busy = !ready_.empty() || !tasks_.empty() || !inside_.empty();
  if (stop_ && !busy && in_flight_ == 0) {
    ended_ = true;
    if (on_ended) on_ended();
    return;
  }
  if (busy) {
    WakeAt(busy_until_ns_);
  } else if (!timers_.empty()) {
    WakeAt(machine_.WorldNs(timers_.top()->deadline_ns));
  }
}

void SimReactor::FireTimers() {
  const uint64_t now_ns = NowNs();
  for (size_t left = timers_.size(); left > 0 && !timers_.empty(); --left) {
    io::Timer* const timer = timers_.top();
    if (timer->deadline_ns > now_ns) break;
    timers_.Remove(timer);
    timer->done(timer);
  }
}

// --- operations
// -----------------------------------------------------------------------------------

void SimReactor::Begin(io::Operation* operation) {
  CHECK(!operation->in_flight && operation->done != nullptr);
  operation->in_flight = true;
  operation->kind = kOther;
  operation->result = 0;
  ++in_flight_;
}

void SimReactor::Complete(io::Operation* operation, int64_t result) {
  operation->result = result;
  ready_.Push(operation);
  Wake(random_.Skewed(200, 20 * kNsPerUs));
}

void SimReactor::Arm(io::Timer* timer, uint64_t deadline_ns) {
  CHECK(timer->done != nullptr);
  timers_.Arm(timer, deadline_ns);
  WakeAt(machine_.WorldNs(timers_.top()->deadline_ns));
}

void SimReactor::Cancel(io::Timer* timer) {
  if (timer->armed()) timers_.Remove(timer);
}

void SimReactor::Defer(io::Task* task) {
  if (task->scheduled) return;
  CHECK(task->done != nullptr);
  task->scheduled = true;
  tasks_.Push(task);
  Wake(0);
}

void SimReactor::Post(io::Message* message) {
  Begin(message);
  Complete(message, 0);
}

void SimReactor::Loop() { CHECK(false); }  // the World runs it

void SimReactor::Stop() {
  stop_ = true;
  Wake(0);
}

// --- jobs
// -----------------------------------------------------------------------------------------

void SimReactor::Run(io::Job* job) {
  CHECK(job->work != nullptr);
  Begin(job);
  jobs_.push_back(job);
  StartJobs();
}

void SimReactor::StartJobs() {
  while (runs_.size() < kPoolThreads && !jobs_.empty()) {
    io::Job* const job = jobs_.front();
    jobs_.pop_front();
    runs_.push_back({std::make_unique<Fiber>([job] { job->work(job); }), job});
    JobRun* const run = &runs_.back();
    world().After(random_.Skewed(kNsPerUs, 100 * kNsPerUs), [this, run] { GoOn(run); });
  }
}

void SimReactor::GoOn(JobRun* run) {
  if (dead_) return;
  if (world().now_ns() < frozen_until_ns_) {
    world().At(frozen_until_ns_, [this, run] { GoOn(run); });
    return;
  }
  running_ = run;
  run->fiber->Resume();
  running_ = nullptr;
  if (!run->fiber->ended()) return;
  io::Job* const job = run->job;
  runs_.remove_if([&](const JobRun& each) { return &each == run; });
  Complete(job, 0);
  StartJobs();
}

void SimReactor::Land(uint64_t delay_ns, std::function<void()> effect) {
  calls_.remove_if([](const auto& call) { return call->landed; });
  auto call = std::make_shared<Call>();
  call->lands_ns = world().now_ns() + delay_ns;
  calls_.push_back(call);
  world().At(call->lands_ns, [call, effect = std::move(effect)] {
    call->landed = true;
    if (!call->dropped) effect();
  });
}

void SimReactor::Blocking(uint64_t before_ns, uint64_t after_ns,
                          const std::function<void()>& effect) {
  if (Fiber::Current() == nullptr) {
    effect();
    return;
  }
  CHECK(running_ != nullptr && running_->fiber.get() == Fiber::Current());
  // Refers to the fiber's stack, which stays.
  Land(before_ns, [&effect] { effect(); });
  world().After(before_ns + after_ns, [this, run = running_] { GoOn(run); });
  Fiber::Yield();
}

// --- files
// ----------------------------------------------------------------------------------------

int64_t SimReactor::ReadNow(io::FileOperation* operation) {
  Machine::OpenFile* file = machine_.Find(operation->file.fd);
  CHECK(file != nullptr);
  if (machine_.faults.read_errors > 0) {
    --machine_.faults.read_errors;
    if (world().tracing()) world().Trace(name_, file->path + ": read fails");
    return -EIO;
  }
  int64_t total = 0;
  for (int i = 0; i < operation->vectors_count; ++i) {
    const iovec& vector = operation->vectors[i];
    const int64_t got =
        machine_.disk.Read(*file->inode, operation->offset_bytes + static_cast<uint64_t>(total),
                           vector.iov_base, vector.iov_len);
    if (got < 0) return got;
    total += got;
    if (static_cast<size_t>(got) < vector.iov_len) break;
  }
  return total;
}

int64_t SimReactor::WriteNow(io::FileOperation* operation) {
  Machine::OpenFile* file = machine_.Find(operation->file.fd);
  CHECK(file != nullptr);
  if (machine_.faults.write_errors > 0) {
    --machine_.faults.write_errors;
    if (world().tracing()) world().Trace(name_, file->path + ": write fails");
    return -EIO;
  }
  int64_t total = 0;
  for (int i = 0; i < operation->vectors_count; ++i) {
    const iovec& vector = operation->vectors[i];
    const int error = machine_.disk.Write(file->inode.get(),
                                          operation->offset_bytes + static_cast<uint64_t>(total),
                                          vector.iov_base, vector.iov_len);
    if (error < 0) return error;
    total += static_cast<int64_t>(vector.iov_len);
  }
  return total;
}

// A read that is not in the page cache, or a write that is not in line: it must be durable, goes
// past the cache, or does not stay there.
void SimReactor::FileLater(io::FileOperation* operation, bool write) {
  const uint64_t delay_ns = random_.Skewed(kDeviceNsMin, kDeviceNsMax) + machine_.SlowNs(random_);
  const uint64_t sync_ns = operation->durable ? random_.Skewed(kDeviceNsMin, kDeviceNsMax) : 0;
  auto result = std::make_shared<int64_t>(-EIO);
  Land(delay_ns, [this, operation, write, result] {
    *result = write ? WriteNow(operation) : ReadNow(operation);
  });
  if (operation->durable) {
    Land(delay_ns + sync_ns, [this, operation, result] {
      if (*result < 0) return;
      Inode* const inode = machine_.Find(operation->file.fd)->inode.get();
      if (machine_.faults.sync_errors > 0) {
        machine_.SyncFails(inode);
        *result = -EIO;
        return;
      }
      machine_.disk.SyncRange(inode, operation->offset_bytes, static_cast<uint64_t>(*result));
    });
  }
  world().After(delay_ns + sync_ns, [this, operation, result] {
    if (!dead_) Complete(operation, *result);
  });
}

void SimReactor::Read(io::FileOperation* operation) {
  Begin(operation);
  const bool cached = !operation->direct && random_.Chance(3, 4);
  if (cached && machine_.faults.read_errors == 0) {
    Complete(operation, ReadNow(operation));
  } else {
    FileLater(operation, false);
  }
}

void SimReactor::Write(io::FileOperation* operation) {
  Begin(operation);
  if (operation->direct || operation->durable || operation->once) {
    FileLater(operation, true);
    return;
  }
  Complete(operation, WriteNow(operation));
  // Who writes faster than the device takes it is held up in that call.
  if (machine_.faults.slow_until_ns > world().now_ns() && random_.Chance(1, 4)) {
    FreezeUntil(machine_.faults.slow_until_ns);
  }
}

// --- sockets
// --------------------------------------------------------------------------------------

SimReactor::SimSocket* SimReactor::SocketOf(io::Socket socket) {
  const auto found = sockets_.find(socket.fd);
  CHECK(found != sockets_.end());
  return &found->second;
}

io::Socket SimReactor::AddSocket(const std::shared_ptr<Endpoint>& endpoint) {
  const int fd = next_socket_++;
  sockets_[fd].endpoint = endpoint;
  endpoint->wake = [this, fd] {
    if (dead_) return;
    SimSocket* const socket = &sockets_.at(fd);
    if (socket->receive != nullptr) TryReceive(socket);
    if (socket->send != nullptr) TrySend(socket);
  };
  return {fd};
}

Result<io::Socket> SimReactor::Listen(const io::Address& address, io::Address* bound) {
  CHECK(!address.unix_path);
  *bound = address;
  if (bound->port == 0) bound->port = machine_.next_port++;
  const int fd = next_socket_++;
  const bool free =
      machine_.network.Listen(machine_.name(), bound->port, [this, fd](auto endpoint) {
        SimSocket& socket = sockets_.at(fd);
        socket.backlog.push_back(std::move(endpoint));
        if (!dead_) TryAccept(&socket);
      });
  if (!free) return Status(ErrorCode::kAddressInUse, bound->ToString() + ": listen");
  SimSocket& socket = sockets_[fd];
  socket.listener = true;
  socket.port = bound->port;
  return io::Socket{fd};
}

void SimReactor::Accept(io::AcceptOperation* operation) {
  Begin(operation);
  SimSocket* const socket = SocketOf(operation->listener);
  CHECK(socket->accept == nullptr && !socket->closing);
  socket->accept = operation;
  TryAccept(socket);
}

void SimReactor::TryAccept(SimSocket* socket) {
  if (socket->accept == nullptr || socket->backlog.empty()) return;
  io::AcceptOperation* const operation = std::exchange(socket->accept, nullptr);
  const std::shared_ptr<Endpoint> endpoint = socket->backlog.front();
  socket->backlog.pop_front();
  operation->accepted = AddSocket(endpoint);
  operation->peer = endpoint->peer_machine();
  Complete(operation, 0);
}

void SimReactor::Connect(io::ConnectOperation* operation) {
  Begin(operation);
  operation->socket = {};
  const uint64_t number = machine_.network.Connect(
      machine_.name(), operation->address.host, operation->address.port,
      [this, operation](int result, const std::shared_ptr<Endpoint>& endpoint) {
        connects_.erase(operation);
        if (dead_) {
          if (endpoint != nullptr) endpoint->Close();
          return;
        }
        if (result == 0) operation->socket = AddSocket(endpoint);
        Complete(operation, result);
      });
  connects_[operation] = number;
}

void SimReactor::CancelConnect(io::ConnectOperation* operation) {
  const auto found = connects_.find(operation);
  if (found == connects_.end()) return;
  machine_.network.Cancel(found->second);
  connects_.erase(found);
  Complete(operation, -ECANCELED);
}

void SimReactor::Receive(io::ReceiveOperation* operation) {
  Begin(operation);
  SimSocket* const socket = SocketOf(operation->socket);
  CHECK(socket->receive == nullptr && !socket->closing && operation->vectors_count > 0);
  socket->receive = operation;
  TryReceive(socket);
}

void SimReactor::TryReceive(SimSocket* socket) {
  io::ReceiveOperation* const operation = socket->receive;
  int64_t total = 0;
  bool ended = false;
  for (int i = 0; i < operation->vectors_count; ++i) {
    const iovec& vector = operation->vectors[i];
    const int64_t got = socket->endpoint->Receive(vector.iov_base, vector.iov_len, &ended);
    if (got < 0 && total == 0) {
      socket->receive = nullptr;
      return Complete(operation, got);
    }
    if (got <= 0) break;
    total += got;
    if (static_cast<size_t>(got) < vector.iov_len) break;
  }
  if (total == 0 && !ended) return;
  socket->receive = nullptr;
  Complete(operation, total);
}

void SimReactor::Send(io::SendOperation* operation) {
  Begin(operation);
  SimSocket* const socket = SocketOf(operation->socket);
  CHECK(socket->send == nullptr && !socket->closing && operation->descriptor < 0);
  socket->send = operation;
  socket->sent_bytes = 0;
  TrySend(socket);
}

void SimReactor::TrySend(SimSocket* socket) {
  io::SendOperation* const operation = socket->send;
  size_t skip = socket->sent_bytes;
  for (int i = 0; i < operation->vectors_count; ++i) {
    const iovec& vector = operation->vectors[i];
    while (skip < vector.iov_len) {
      const int64_t put = socket->endpoint->Send(
          static_cast<const std::byte*>(vector.iov_base) + skip, vector.iov_len - skip);
      if (put == 0) return;
      if (put < 0) {
        socket->send = nullptr;
        return Complete(operation, put);
      }
      skip += static_cast<size_t>(put);
      socket->sent_bytes += static_cast<size_t>(put);
    }
    skip -= vector.iov_len;
  }
  socket->send = nullptr;
  Complete(operation, static_cast<int64_t>(socket->sent_bytes));
}

void SimReactor::Close(io::CloseOperation* operation) {
  Begin(operation);
  operation->kind = kCloseKind;
  SimSocket* const socket = SocketOf(operation->socket);
  CHECK(!socket->closing);
  socket->closing = true;
  if (socket->accept != nullptr) Complete(std::exchange(socket->accept, nullptr), -ECANCELED);
  if (socket->receive != nullptr) Complete(std::exchange(socket->receive, nullptr), -ECANCELED);
  if (socket->send != nullptr) Complete(std::exchange(socket->send, nullptr), -ECANCELED);
  Complete(operation, 0);
}

Result<io::Socket> SimReactor::MakeDoorbell() {
  return Status(ErrorCode::kUnsupported, "the simulator has no shared memory");
}
void SimReactor::Ring(io::Socket) { CHECK(false); }
void SimReactor::Await(io::AwaitOperation*) { CHECK(false); }

}  // namespace ankole::sim
