#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/test.h"
#include "engine/engine.h"
#include "engine/scripted_replica.h"
#include "replica/disk_host.h"

// For tests only: the real Engine on a reactor and a thread of its own, with real disk hosts and
// scripted replicas on the same reactor, a store that does as it is told, and a log of what
// happened in which order. The test's thread looks in by On and Until.
namespace ankole::engine::testing {

// What a disk host (or the engine) sees of the reactor: all of it, but its Stop is only its own,
// its connections can be broken, and its receiving can be held up as if the process hung.
class HostReactor final : public io::Reactor {
 public:
  explicit HostReactor(io::Reactor& real) : real_(real) {}

  void BreakConnections() {
    for (const int fd : sockets_) shutdown(fd, SHUT_RDWR);
  }
  void Hang() { hung_ = true; }
  void Wake() {
    hung_ = false;
    WakeDoorbells();
    for (io::ReceiveOperation* operation : std::exchange(withheld_, {})) {
      operation->in_flight = false;
      real_.Receive(operation);
    }
  }
  // Looks into shared memory before it looks at its sockets.
  void WakeDoorbells() {
    for (io::AwaitOperation* operation : std::exchange(withheld_awaits_, {})) {
      operation->in_flight = false;
      real_.Await(operation);
    }
  }
  size_t connections() const { return sockets_.size(); }

  const io::BackendChoice& backend() const override { return real_.backend(); }
  io::FileSystem& files() override { return real_.files(); }
  uint64_t NowNs() override { return real_.NowNs(); }
  uint64_t WallClockSeconds() override { return real_.WallClockSeconds(); }
  void Random(void* to, size_t bytes) override { real_.Random(to, bytes); }
  void Arm(io::Timer* timer, uint64_t deadline_ns) override {
    ++arms;
    real_.Arm(timer, deadline_ns);
  }
  void Cancel(io::Timer* timer) override { real_.Cancel(timer); }
  void Defer(io::Task* task) override { real_.Defer(task); }
  void Run(io::Job* job) override { real_.Run(job); }
  void Read(io::FileOperation* operation) override { real_.Read(operation); }
  void Write(io::FileOperation* operation) override { real_.Write(operation); }
  Result<io::Socket> Listen(const io::Address& address, io::Address* bound) override {
    return real_.Listen(address, bound);
  }
  void Accept(io::AcceptOperation* operation) override { real_.Accept(operation); }
  void Connect(io::ConnectOperation* operation) override { real_.Connect(operation); }
  void Receive(io::ReceiveOperation* operation) override {
    sockets_.insert(operation->socket.fd);
    if (hung_) {
      operation->in_flight = true;
      withheld_.push_back(operation);
    } else {
      real_.Receive(operation);
    }
  }
  void Send(io::SendOperation* operation) override {
    ++sends;
    real_.Send(operation);
  }
  void Close(io::CloseOperation* operation) override {
    sockets_.erase(operation->socket.fd);
    std::erase_if(withheld_, [&](io::ReceiveOperation* receive) {
      if (receive->socket.fd != operation->socket.fd) return false;
      receive->in_flight = false;
      real_.Receive(receive);
      return true;
    });
    std::erase_if(withheld_awaits_, [&](io::AwaitOperation* await) {
      if (await->doorbell.fd != operation->socket.fd) return false;
      await->in_flight = false;
      real_.Await(await);
      return true;
    });
    real_.Close(operation);
  }
  void CancelConnect(io::ConnectOperation* operation) override { real_.CancelConnect(operation); }
  Result<io::Socket> MakeDoorbell() override { return real_.MakeDoorbell(); }
  void Ring(io::Socket doorbell) override { real_.Ring(doorbell); }
  void Await(io::AwaitOperation* operation) override {
    if (hung_) {
      operation->in_flight = true;
      withheld_awaits_.push_back(operation);
    } else {
      real_.Await(operation);
    }
  }
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
  RealReplica(io::Reactor& real, wire::ReplicaId id, uint64_t size_bytes)
      : reactor(real), id_(id), size_bytes_(size_bytes), root_(test::TemporaryDirectory()) {}

  void Start() {
    ready = stopped = false;
    const Json config = Json::Object()
                            .Set("disk", "disk")
                            .Set("directory", root_)
                            .Set("listen", Json::Array().Append(address()));
    host_ = std::make_unique<replica::DiskHost>(reactor, *this,
                                                replica::DiskHostConfig::Parse(config).Take());
    host_->Start();
  }
  void Stop() { host_->OnMessage(Json::Object().Set("op", "stop").Set("request", 2)); }
  void Destroy() { host_.reset(); }
  std::string address() const { return "unix:" + root_ + "/socket"; }
  std::string directory() const { return directory_; }
  std::string head() const { return directory_ + "/volume-head-000.img"; }

  HostReactor reactor;
  bool ready = false;    // the replica can be asked for
  bool stopped = false;  // Destroy may be called

 private:
  void Emit(const Json& event) override {
    if (event.Find("event") != nullptr) {
      const std::string name = event.String("event").Take();
      if (name == "listening") {
        host_->OnMessage(Json::Object()
                             .Set("op", "create-replica")
                             .Set("request", 1)
                             .Set("volume", kVolume)
                             .Set("id", wire::ReplicaIdText(id_))
                             .Set("sizeBytes", size_bytes_)
                             .Set("secret", kSecretText)
                             .Set("cache", "buffered"));
      }
      if (name == "stopped") stopped = true;
      if (name == "failed") test::Fail(__FILE__, __LINE__, event.Write());
    }
    if (event.Find("reply") != nullptr && event.Find("result") != nullptr) {
      const Json* result = event.Find("result");
      if (result->Find("directory") != nullptr) {
        directory_ = result->String("directory").Take();
        ready = true;
      }
    }
    if (event.Find("error") != nullptr) test::Fail(__FILE__, __LINE__, event.Write());
  }

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

  explicit Bench(io::Backend backend = io::Backend::kAuto) {
    auto made = io::MakeReactor({.backend = backend, .probe_directory = directory_});
    CHECK(made.ok());
    reactor_ = made.Take();
    engine_reactor = std::make_unique<HostReactor>(*reactor_);
    until_.owner = this;
    until_.done = [](io::Operation* operation) { static_cast<Bench*>(operation->owner)->Look(); };
    options.epoch.attachment = 1;
    options.alone = true;
    // No member is late on a loaded machine unless a test wants it.
    options.late_ns = 20 * kNsPerSecond;
    thread_ = std::thread([this] { reactor_->Loop(); });
  }
  ~Bench() { Finish(); }

  // --- before the engine starts ---
  ScriptedReplica& AddScripted() {
    const wire::ReplicaId id = NextId();
    ScriptedReplica* replica = nullptr;
    On([&] {
      scripted_.push_back(std::make_unique<ScriptedReplica>(
          *reactor_, id, directory_ + "/" + std::to_string(id), kSizeBytes,
          [this](const std::string& event) { Note(event); }));
      replica = scripted_.back().get();
      replica->Listen();
    });
    options.replicas.push_back({id, io::Address::Parse(replica->address()).Take()});
    return *replica;
  }
  RealReplica& AddReal() {
    const wire::ReplicaId id = NextId();
    RealReplica* replica = nullptr;
    On([&] {
      real_.push_back(std::make_unique<RealReplica>(*reactor_, id, kSizeBytes));
      replica = real_.back().get();
      replica->Start();
    });
    if (!Until([&] { return replica->ready; })) test::Fail(__FILE__, __LINE__, "no disk host");
    options.replicas.push_back({id, io::Address::Parse(replica->address()).Take()});
    return *replica;
  }
  // Each start is a new run; the store's record is what it was told.
  void Start() {
    On([this] {
      options.volume = kVolume;
      options.size_bytes = std::max(options.size_bytes, kSizeBytes);
      options.secret = ParseSecret(kSecretText).Take();
      ++options.epoch.run;
      options.record = stored;
      ready = stopped = false;
      auto buffers = BufferPool::Create("engine-test", 1024, 256, 256);
      CHECK(buffers.ok());
      engine = std::make_unique<Engine>(*engine_reactor, *this, *this, options, buffers.Take());
      engine->Start();
    });
  }
  bool StartAndWait() {
    Start();
    const bool serves = Until([this] { return ready; });
    if (!serves) test::Fail(__FILE__, __LINE__, "the engine does not serve: " + State());
    return serves;
  }
  // False when it was not clean, or not in time.
  bool Stop() {
    On([this] { engine->Stop(); });
    const bool in_time = Until([this] { return stopped; }, 4000);
    if (!in_time) test::Fail(__FILE__, __LINE__, "the engine did not stop");
    DestroyEngine();
    return in_time && clean;
  }
  // As after a crash, or worse: an engine of the next run takes the replicas over while this one
  // still works. What it had in flight fails.
  bool TakeOver(const std::function<void()>& then = nullptr) {
    std::unique_ptr<Engine> old;
    std::vector<std::unique_ptr<Request>> requests;
    On([&] {
      old = std::move(engine);
      requests.swap(requests_);
    });
    const bool serves = StartAndWait();
    const bool refused =
        Until([&] { return old->mode() == Mode::kRefused && old->in_flight() == 0; });
    if (!refused) test::Fail(__FILE__, __LINE__, "the old engine goes on");
    On([&] {
      if (then) then();
      old->Stop();
    });
    Until([this] { return stopped; }, 4000);
    Release(&old, &requests);
    return serves && refused;
  }
  void StopHost(RealReplica& replica) {
    On([&] { replica.Stop(); });
    if (!Until([&] { return replica.stopped; })) test::Fail(__FILE__, __LINE__, "no stop");
    On([&] { replica.Destroy(); });
  }
  void StartHost(RealReplica& replica) {
    On([&] { replica.Start(); });
    Until([&] { return replica.ready; });
  }

  // --- from the test's thread ---
  // Runs on the reactor's thread, now.
  void On(const std::function<void()>& what) {
    struct Posted : io::Message {
      const std::function<void()>* what = nullptr;
      std::mutex mutex;
      std::condition_variable changed;
      bool ran = false;
    } posted;
    posted.what = &what;
    posted.done = [](io::Operation* operation) {
      auto* self = static_cast<Posted*>(operation);
      (*self->what)();
      const std::lock_guard<std::mutex> lock(self->mutex);
      self->ran = true;
      self->changed.notify_one();
    };
    reactor_->Post(&posted);
    std::unique_lock<std::mutex> lock(posted.mutex);
    posted.changed.wait(lock, [&] { return posted.ran; });
  }
  // Looks (on the reactor's thread, each millisecond) until it is true.
  bool Until(const std::function<bool()>& condition, int limit_ms = 10'000) {
    std::unique_lock<std::mutex> lock(mutex_);
    waits_ = true;
    lock.unlock();
    On([&] {
      condition_ = &condition;
      deadline_ns_ = reactor_->NowNs() + static_cast<uint64_t>(limit_ms) * kNsPerMs;
      Look();
    });
    lock.lock();
    changed_.wait(lock, [this] { return !waits_; });
    return met_;
  }
  // Lets `ms` pass; true when the condition never held meanwhile.
  bool Never(const std::function<bool()>& condition, int ms) { return !Until(condition, ms); }
  void Pass(int ms) {
    Until([] { return false; }, ms);
  }

  // A request, submitted; owned by the bench.
  Request* Submit(BlockOperation operation, uint64_t offset, uint32_t length, uint8_t fill = 0) {
    Request* request = nullptr;
    On([&] { request = SubmitHere(operation, offset, length, fill); });
    return request;
  }
  // On the reactor's thread.
  Request* SubmitHere(BlockOperation operation, uint64_t offset, uint32_t length, uint8_t fill = 0,
                      const std::function<void(Request*)>& prepare = nullptr) {
    requests_.push_back(std::make_unique<Request>());
    Request* request = requests_.back().get();
    request->operation = operation;
    request->offset_bytes = offset;
    request->length_bytes = length;
    const bool out =
        operation == BlockOperation::kWrite || operation == BlockOperation::kStoreState;
    if (out || operation == BlockOperation::kRead || operation == BlockOperation::kLoadState) {
      request->chunk = engine->buffers().Acquire(length);
      CHECK(request->chunk != nullptr);
      request->data = request->chunk->data;
      std::memset(request->data, out ? fill : 0xee, length);
    }
    if (operation == BlockOperation::kStatus) {
      request->room.resize(64);
      request->extents = request->room.data();
      request->extents_max = 64;
    }
    request->done = [](BlockRequest* done) {
      auto* self = static_cast<Request*>(done);
      self->finished = true;
      ++self->runs;
      if (self->then) self->then(self);
    };
    if (prepare) prepare(request);
    engine->Submit(request);
    return request;
  }
  bool Wait(Request* request, int limit_ms = 10'000) {
    return Until([request] { return request->finished; }, limit_ms);
  }
  ErrorCode Do(BlockOperation operation, uint64_t offset, uint32_t length, uint8_t fill = 0) {
    Request* request = Submit(operation, offset, length, fill);
    if (!Wait(request)) {
      test::Fail(__FILE__, __LINE__, "no answer");
      return ErrorCode::kTimedOut;
    }
    return request->status;
  }
  ErrorCode Write(uint64_t offset, uint32_t length, uint8_t fill) {
    return Do(BlockOperation::kWrite, offset, length, fill);
  }
  ErrorCode Flush() { return Do(BlockOperation::kFlush, 0, 0); }
  // Whether all of the range reads as `fill`.
  bool Reads(uint64_t offset, uint32_t length, uint8_t fill) {
    Request* request = Submit(BlockOperation::kRead, offset, length);
    return Wait(request) && Holds(request, fill);
  }
  static bool Holds(const Request* request, uint8_t fill) {
    if (request->status != ErrorCode::kOk) return false;
    for (uint64_t i = 0; i < request->length_bytes; ++i) {
      if (request->data[i] != static_cast<std::byte>(fill)) return false;
    }
    return true;
  }
  std::string State() {
    std::string text;
    On([&] {
      if (engine != nullptr) text = engine->Report().state + (": " + engine->Report().message);
    });
    return text;
  }
  wire::Record Complete() {
    wire::Record record;
    On([&] { record = engine->Report().record; });
    return record;
  }
  // Where in the log of events this stands; SIZE_MAX: nowhere. On any thread.
  size_t At(const std::string& event, size_t from = 0) const {
    const std::lock_guard<std::mutex> lock(events_mutex_);
    for (size_t i = from; i < events.size(); ++i) {
      if (events[i].starts_with(event)) return i;
    }
    return SIZE_MAX;
  }
  void AnswerStore(const Status& outcome) {
    On([&] { AnswerStoreHere(outcome); });
  }
  void AnswerStoreHere(const Status& outcome) {
    const std::pair<uint64_t, wire::Record> question = questions.back();
    if (outcome.ok()) stored = question.second;
    Note("store answered " + std::to_string(question.second.generation));
    engine->AnswerStore(question.first, outcome);
  }
  void Note(const std::string& event) {
    const std::lock_guard<std::mutex> lock(events_mutex_);
    events.push_back(event);
  }
  // What was logged until now.
  std::vector<std::string> Logged() {
    std::vector<std::string> lines;
    On([&] { lines = log; });
    return lines;
  }
  io::Reactor& reactor() { return *reactor_; }

  // Ends everything; the destructor does it too.
  void Finish() {
    if (!thread_.joinable()) return;
    if (engine != nullptr) Stop();
    On([this] {
      for (const auto& replica : real_) {
        replica->reactor.Wake();
        if (!replica->stopped) replica->Stop();
      }
      for (const auto& replica : scripted_) replica->End();
    });
    const bool ended = Until([this] {
      for (const auto& replica : real_) {
        if (!replica->stopped) return false;
      }
      for (const auto& replica : scripted_) {
        if (!replica->ended()) return false;
      }
      return true;
    });
    CHECK(ended);
    On([this] {
      for (const auto& replica : real_) replica->Destroy();
      reactor_->Stop();
    });
    thread_.join();
  }

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
  Expansion expansion;
  std::vector<std::string> log;
  bool ready = false;
  bool stopped = false;
  bool clean = false;

 private:
  wire::ReplicaId NextId() const { return 0x10 + options.replicas.size(); }
  void DestroyEngine() { Release(&engine, &requests_); }
  void Release(std::unique_ptr<Engine>* of, std::vector<std::unique_ptr<Request>>* requests) {
    // What its connections still had in flight ends first.
    if (!Until([&] { return (*of)->Ended(); })) test::Fail(__FILE__, __LINE__, "it does not end");
    On([&] {
      for (const auto& request : *requests) {
        if (request->runs != 1) test::Fail(__FILE__, __LINE__, "a request was not answered once");
        if (request->chunk != nullptr) BufferPool::Release(request->chunk);
      }
      requests->clear();
      of->reset();
    });
  }
  void Look() {
    const bool met = (*condition_)();
    if (!met && reactor_->NowNs() < deadline_ns_) {
      reactor_->Arm(&until_, reactor_->NowNs() + kNsPerMs);
      return;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    met_ = met;
    waits_ = false;
    changed_.notify_one();
  }
  void OnReport(const EngineReport& report) override { Note(std::string("state ") + report.state); }
  void OnReplica(wire::ReplicaId replica, const char* state, Fault fault,
                 const std::string& reason) override {
    const std::string name = "replica " + wire::ReplicaIdText(replica).substr(14);
    Note(name + " " + state + " " + reason);
    if (fault != Fault::kNone) Note(name + " fault " + FaultCode(fault));
  }
  void OnCannotStart(const StartDecision& decision, const std::vector<Heard>&) override {
    Note("cannot start: " + decision.lacking);
  }
  void OnPropose(const wire::Record& record) override {
    Note("proposed " + std::to_string(record.generation));
    proposals.push_back(record);
  }
  void OnComplete(const wire::Record& record) override {
    Note("complete " + std::to_string(record.generation));
    proposals.clear();
    completed = record;
    if (store_mode == StoreMode::kAnswers) stored = record;
  }

 public:
  void OnScrub(const Json& progress) override { scrubs.push_back(progress); }
  void OnSize(uint64_t size_bytes, const Expansion& of) override {
    expansion = of;
    static constexpr const char* kNames[] = {"none", "running", "done", "failed"};
    Note("size " + std::to_string(size_bytes) + " " + kNames[static_cast<size_t>(of.state)]);
  }
  void OnProbeStore(uint64_t question) override {
    Note("store probed");
    last_probe = question;
    const Status away(ErrorCode::kUnavailable, "the store is away");
    if (store_mode == StoreMode::kAnswers || store_mode == StoreMode::kProbes ||
        store_mode == StoreMode::kRefusesRecords) {
      engine->AnswerStore(question, Status::Ok());
    } else if (store_mode == StoreMode::kRefuses) {
      engine->AnswerStore(question, away);
    } else if (store_mode == StoreMode::kFenced) {
      engine->AnswerStore(question, {ErrorCode::kFenced, "attachment 7"});
    }
  }

 private:
  void OnAskStore(uint64_t question, const wire::Record& record) override {
    Note("store asked " + std::to_string(record.generation));
    questions.emplace_back(question, record);
    if (store_mode == StoreMode::kAnswers) AnswerStoreHere(Status::Ok());
    if (store_mode == StoreMode::kRefuses || store_mode == StoreMode::kRefusesRecords) {
      AnswerStoreHere({ErrorCode::kUnavailable, "the store is read-only today"});
    }
    if (store_mode == StoreMode::kFenced) AnswerStoreHere({ErrorCode::kFenced, "attachment 7"});
  }
  void OnReady() override {
    ready = true;
    Note("ready");
  }
  void OnStopped(bool was_clean) override {
    stopped = true;
    clean = was_clean;
  }
  void Log(LogLevel, const std::string& message) override { log.push_back(message); }

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
