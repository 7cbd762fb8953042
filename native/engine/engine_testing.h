#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/service.h"
#include "base/test.h"
#include "engine/engine.h"
#include "engine/scripted_replica_testing.h"

// For tests only: the real Engine on a reactor and a thread of its own, with real disk hosts and
// scripted replicas on the same reactor, a store that does as it is told, and a log of what
// happened in which order. The test's thread looks in by On and Until.
namespace ankole::replica {
class DiskHost;
}

namespace ankole::engine::testing {

// What a disk host (or the engine) sees of the reactor: all of it, but its Stop is only its own,
// its connections can be broken, and its receiving can be held up as if the process hung.
class HostReactor final : public io::Reactor {
 public:
  explicit HostReactor(io::Reactor& real);
  ~HostReactor() override;

  void BreakConnections();
  void Hang() { hung_ = true; }
  void Wake();
  // Looks into shared memory before it looks at its sockets.
  void WakeDoorbells();
  size_t connections() const { return sockets_.size(); }

  const io::BackendChoice& backend() const override { return real_.backend(); }
  io::FileSystem& files() override { return real_.files(); }
  uint64_t NowNs() override { return real_.NowNs(); }
  uint64_t WallClockSeconds() override { return real_.WallClockSeconds(); }
  void Random(void* to, size_t bytes) override { real_.Random(to, bytes); }
  void Arm(io::Timer* timer, uint64_t deadline_ns) override;
  void Cancel(io::Timer* timer) override { real_.Cancel(timer); }
  void Defer(io::Task* task) override { real_.Defer(task); }
  void Run(io::Job* job) override { real_.Run(job); }
  void Read(io::FileOperation* operation) override { real_.Read(operation); }
  void Write(io::FileOperation* operation) override { real_.Write(operation); }
  Result<io::Socket> Listen(const io::Address& address, io::Address* bound) override;
  void Accept(io::AcceptOperation* operation) override { real_.Accept(operation); }
  void Connect(io::ConnectOperation* operation) override { real_.Connect(operation); }
  void Receive(io::ReceiveOperation* operation) override;
  void Send(io::SendOperation* operation) override;
  void Close(io::CloseOperation* operation) override;
  void CancelConnect(io::ConnectOperation* operation) override { real_.CancelConnect(operation); }
  Result<io::Socket> MakeDoorbell() override { return real_.MakeDoorbell(); }
  void Ring(io::Socket doorbell) override { real_.Ring(doorbell); }
  void Await(io::AwaitOperation* operation) override;
  void Post(io::Message* message) override { real_.Post(message); }
  void Loop() override { CHECK(false); }
  void Stop() override {}

  int arms = 0;   // timers
  int sends = 0;  // system calls

 private:
  io::Reactor& real_;
  bool hung_ = false;
  std::set<int> sockets_;
  std::vector<io::ReceiveOperation*> withheld_;
  std::vector<io::AwaitOperation*> withheld_awaits_;
};

// A disk host with one replica of the volume.
class RealReplica final : public EventSink {
 public:
  RealReplica(io::Reactor& real, wire::ReplicaId id, uint64_t size_bytes);
  ~RealReplica() override;

  void Start();
  void Stop();
  void Destroy();
  std::string address() const { return "unix:" + root_ + "/socket"; }
  std::string directory() const { return directory_; }
  std::string head() const { return directory_ + "/volume-head-000.img"; }

  HostReactor reactor;
  bool ready = false;    // the replica can be asked for
  bool stopped = false;  // Destroy may be called

 private:
  void Emit(const Json& event) override;

  const wire::ReplicaId id_;
  const uint64_t size_bytes_;
  const std::string root_;
  std::string directory_;
  std::unique_ptr<replica::DiskHost> host_;
};

// One request with memory of its own.
struct Request : BlockRequest {
  BufferPool::Chunk* chunk = nullptr;
  std::vector<BlockExtent> room;
  bool finished = false;
  int runs = 0;
  std::function<void(Request*)> then;
};

// kProbes: it says that it works, and answers no record. kRefusesRecords: nor takes one.
enum class StoreMode { kAnswers, kSilent, kRefuses, kFenced, kProbes, kRefusesRecords };

class Bench final : public Engine::Observer, public LogSink {
 public:
  static constexpr uint64_t kSizeBytes = 16 * kMiB;

  explicit Bench(io::Backend backend = io::Backend::kAuto);
  ~Bench();

  // --- before the engine starts ---
  ScriptedReplica& AddScripted();
  RealReplica& AddReal();
  // Each start is a new run; the store's record is what it was told.
  void Start();
  bool StartAndWait();
  // False when it was not clean, or not in time.
  bool Stop();
  // As after a crash, or worse: an engine of the next run takes the replicas over while this one
  // still works. What it had in flight fails.
  bool TakeOver(const std::function<void()>& then = nullptr);
  void StopHost(RealReplica& replica);
  void StartHost(RealReplica& replica);

  // --- from the test's thread ---
  // Runs on the reactor's thread, now.
  void On(const std::function<void()>& what);
  // Looks (on the reactor's thread, each millisecond) until it is true.
  bool Until(const std::function<bool()>& condition, int limit_ms = 10'000);
  // Lets `ms` pass; true when the condition never held meanwhile.
  bool Never(const std::function<bool()>& condition, int ms);
  void Pass(int ms);

  // A request, submitted; owned by the bench.
  Request* Submit(BlockOperation operation, uint64_t offset, uint32_t length, uint8_t fill = 0);
  // On the reactor's thread.
  Request* SubmitHere(BlockOperation operation, uint64_t offset, uint32_t length, uint8_t fill = 0,
                      const std::function<void(Request*)>& prepare = nullptr);
  bool Wait(Request* request, int limit_ms = 10'000);
  ErrorCode Do(BlockOperation operation, uint64_t offset, uint32_t length, uint8_t fill = 0);
  ErrorCode Write(uint64_t offset, uint32_t length, uint8_t fill);
  ErrorCode Flush();
  // Whether all of the range reads as `fill`.
  bool Reads(uint64_t offset, uint32_t length, uint8_t fill);
  static bool Holds(const Request* request, uint8_t fill);
  std::string State();
  wire::Record Complete();
  // Where in the log of events this stands; SIZE_MAX: nowhere. On any thread.
  size_t At(std::string_view event, size_t from = 0) const;
  void AnswerStore(const Status& outcome);
  void AnswerStoreHere(const Status& outcome);
  void Note(const std::string& event);
  // What was logged until now.
  std::vector<std::string> Logged();
  io::Reactor& reactor() { return *reactor_; }

  // Ends everything; the destructor does it too.
  void Finish();

  // All of the reactor's thread:
  EngineOptions options;
  std::unique_ptr<HostReactor> engine_reactor;
  std::unique_ptr<Engine> engine;
  StoreMode store_mode = StoreMode::kAnswers;
  wire::Record stored;
  std::vector<std::pair<uint64_t, wire::Record>> questions;
  uint64_t last_probe = 0;
  // What a supervisor keeps.
  wire::Record completed;
  std::vector<wire::Record> proposals;
  std::vector<std::string> events;
  std::vector<Json> scrubs;
  std::vector<Json> trims;
  Expansion expansion;
  std::vector<std::string> log;
  bool ready = false;
  bool stopped = false;
  bool clean = false;

 private:
  wire::ReplicaId NextId() const;
  void DestroyEngine();
  void Release(std::unique_ptr<Engine>* of, std::vector<std::unique_ptr<Request>>* requests);
  void Look();
  void OnReport(const EngineReport& report) override;
  void OnReplica(wire::ReplicaId replica, const char* state, Fault fault,
                 const std::string& reason) override;
  void OnCannotStart(const StartDecision& decision, const std::vector<Heard>&) override;
  void OnPropose(const wire::Record& record) override;
  void OnComplete(const wire::Record& record) override;

 public:
  void OnScrub(const Json& progress) override;
  void OnTrim(const Json& progress) override;
  void OnSize(uint64_t size_bytes, const Expansion& of) override;
  void OnProbeStore(uint64_t question) override;

 private:
  void OnAskStore(uint64_t question, const wire::Record& record) override;
  void OnReady() override;
  void OnStopped(bool was_clean) override;
  void Log(LogLevel, const std::string& message) override;

  const std::string directory_ = test::TemporaryDirectory();
  std::unique_ptr<io::Reactor> reactor_;
  std::vector<std::unique_ptr<ScriptedReplica>> scripted_;
  std::vector<std::unique_ptr<RealReplica>> real_;
  std::vector<std::unique_ptr<Request>> requests_;
  std::thread thread_;
  std::mutex mutex_;
  mutable std::mutex events_mutex_;  // of `events`, which the test's thread reads as well
  std::condition_variable changed_;
  bool waits_ = false;
  bool met_ = false;
  io::Timer until_;
  const std::function<bool()>* condition_ = nullptr;
  uint64_t deadline_ns_ = 0;
};

}  // namespace ankole::engine::testing
