#include "engine/engine_testing.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "replica/disk_host.h"

namespace ankole::engine::testing {

HostReactor::HostReactor(io::Reactor& real) : real_(real) {}

HostReactor::~HostReactor() = default;

void HostReactor::BreakConnections() {
  for (const int fd : sockets_) shutdown(fd, SHUT_RDWR);
}

void HostReactor::Wake() {
  hung_ = false;
  WakeDoorbells();
  for (io::ReceiveOperation* operation : std::exchange(withheld_, {})) {
    operation->in_flight = false;
    real_.Receive(operation);
  }
}

void HostReactor::WakeDoorbells() {
  for (io::AwaitOperation* operation : std::exchange(withheld_awaits_, {})) {
    operation->in_flight = false;
    real_.Await(operation);
  }
}

void HostReactor::Arm(io::Timer* timer, uint64_t deadline_ns) {
  ++arms;
  real_.Arm(timer, deadline_ns);
}

Result<io::Socket> HostReactor::Listen(const io::Address& address, io::Address* bound) {
  return real_.Listen(address, bound);
}

void HostReactor::Receive(io::ReceiveOperation* operation) {
  sockets_.insert(operation->socket.fd);
  if (hung_) {
    operation->in_flight = true;
    withheld_.push_back(operation);
  } else {
    real_.Receive(operation);
  }
}

void HostReactor::Send(io::SendOperation* operation) {
  ++sends;
  real_.Send(operation);
}

void HostReactor::Close(io::CloseOperation* operation) {
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

void HostReactor::Await(io::AwaitOperation* operation) {
  if (hung_) {
    operation->in_flight = true;
    withheld_awaits_.push_back(operation);
  } else {
    real_.Await(operation);
  }
}

RealReplica::RealReplica(io::Reactor& real, wire::ReplicaId id, uint64_t size_bytes)
    : reactor(real), id_(id), size_bytes_(size_bytes), root_(test::TemporaryDirectory()) {}

RealReplica::~RealReplica() = default;

void RealReplica::Start() {
  ready = stopped = false;
  const Json config = Json::Object()
                          .Set("disk", "disk")
                          .Set("directory", root_)
                          .Set("listen", Json::Array().Append(address()));
  host_ = std::make_unique<replica::DiskHost>(reactor, *this,
                                              replica::DiskHostConfig::Parse(config).Take());
  host_->Start();
}

void RealReplica::Stop() { host_->OnMessage(Json::Object().Set("op", "stop").Set("request", 2)); }

void RealReplica::Destroy() { host_.reset(); }

void RealReplica::Emit(const Json& event) {
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

Bench::Bench(io::Backend backend) {
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

Bench::~Bench() { Finish(); }

ScriptedReplica& Bench::AddScripted() {
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

RealReplica& Bench::AddReal() {
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

void Bench::Start() {
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

bool Bench::StartAndWait() {
  Start();
  const bool serves = Until([this] { return ready; });
  if (!serves) test::Fail(__FILE__, __LINE__, "the engine does not serve: " + State());
  return serves;
}

bool Bench::Stop() {
  On([this] { engine->Stop(); });
  const bool in_time = Until([this] { return stopped; }, 4000);
  if (!in_time) test::Fail(__FILE__, __LINE__, "the engine did not stop");
  DestroyEngine();
  return in_time && clean;
}

bool Bench::TakeOver(const std::function<void()>& then) {
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

void Bench::StopHost(RealReplica& replica) {
  On([&] { replica.Stop(); });
  if (!Until([&] { return replica.stopped; })) test::Fail(__FILE__, __LINE__, "no stop");
  On([&] { replica.Destroy(); });
}

void Bench::StartHost(RealReplica& replica) {
  On([&] { replica.Start(); });
  Until([&] { return replica.ready; });
}

void Bench::On(const std::function<void()>& what) {
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

bool Bench::Until(const std::function<bool()>& condition, int limit_ms) {
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

bool Bench::Never(const std::function<bool()>& condition, int ms) { return !Until(condition, ms); }

void Bench::Pass(int ms) {
  Until([] { return false; }, ms);
}

Request* Bench::Submit(BlockOperation operation, uint64_t offset, uint32_t length, uint8_t fill) {
  Request* request = nullptr;
  On([&] { request = SubmitHere(operation, offset, length, fill); });
  return request;
}

Request* Bench::SubmitHere(BlockOperation operation, uint64_t offset, uint32_t length, uint8_t fill,
                           const std::function<void(Request*)>& prepare) {
  requests_.push_back(std::make_unique<Request>());
  Request* request = requests_.back().get();
  request->operation = operation;
  request->offset_bytes = offset;
  request->length_bytes = length;
  const bool out = operation == BlockOperation::kWrite || operation == BlockOperation::kStoreState;
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

bool Bench::Wait(Request* request, int limit_ms) {
  return Until([request] { return request->finished; }, limit_ms);
}

ErrorCode Bench::Do(BlockOperation operation, uint64_t offset, uint32_t length, uint8_t fill) {
  Request* request = Submit(operation, offset, length, fill);
  if (!Wait(request)) {
    test::Fail(__FILE__, __LINE__, "no answer");
    return ErrorCode::kTimedOut;
  }
  return request->status;
}

ErrorCode Bench::Write(uint64_t offset, uint32_t length, uint8_t fill) {
  return Do(BlockOperation::kWrite, offset, length, fill);
}

ErrorCode Bench::Flush() { return Do(BlockOperation::kFlush, 0, 0); }

bool Bench::Reads(uint64_t offset, uint32_t length, uint8_t fill) {
  Request* request = Submit(BlockOperation::kRead, offset, length);
  return Wait(request) && Holds(request, fill);
}

bool Bench::Holds(const Request* request, uint8_t fill) {
  if (request->status != ErrorCode::kOk) return false;
  for (uint64_t i = 0; i < request->length_bytes; ++i) {
    if (request->data[i] != static_cast<std::byte>(fill)) return false;
  }
  return true;
}

std::string Bench::State() {
  std::string text;
  On([&] {
    if (engine != nullptr) text = engine->Report().state + (": " + engine->Report().message);
  });
  return text;
}

wire::Record Bench::Complete() {
  wire::Record record;
  On([&] { record = engine->Report().record; });
  return record;
}

size_t Bench::At(std::string_view event, size_t from) const {
  const std::lock_guard<std::mutex> lock(events_mutex_);
  for (size_t i = from; i < events.size(); ++i) {
    if (events[i].starts_with(event)) return i;
  }
  return SIZE_MAX;
}

void Bench::AnswerStore(const Status& outcome) {
  On([&] { AnswerStoreHere(outcome); });
}

void Bench::AnswerStoreHere(const Status& outcome) {
  const std::pair<uint64_t, wire::Record> question = questions.back();
  if (outcome.ok()) stored = question.second;
  Note("store answered " + std::to_string(question.second.generation));
  engine->AnswerStore(question.first, outcome);
}

void Bench::Note(const std::string& event) {
  const std::lock_guard<std::mutex> lock(events_mutex_);
  events.push_back(event);
}

std::vector<std::string> Bench::Logged() {
  std::vector<std::string> lines;
  On([&] { lines = log; });
  return lines;
}

void Bench::Finish() {
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

wire::ReplicaId Bench::NextId() const { return 0x10 + options.replicas.size(); }

void Bench::DestroyEngine() { Release(&engine, &requests_); }

void Bench::Release(std::unique_ptr<Engine>* of, std::vector<std::unique_ptr<Request>>* requests) {
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

void Bench::Look() {
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

void Bench::OnReport(const EngineReport& report) { Note(std::string("state ") + report.state); }

void Bench::OnReplica(wire::ReplicaId replica, const char* state, Fault fault,
                      const std::string& reason) {
  const std::string name = "replica " + wire::ReplicaIdText(replica).substr(14);
  Note(name + " " + state + " " + reason);
  if (fault != Fault::kNone) Note(name + " fault " + FaultCode(fault));
}

void Bench::OnCannotStart(const StartDecision& decision, const std::vector<Heard>&) {
  Note("cannot start: " + decision.lacking);
}

void Bench::OnPropose(const wire::Record& record) {
  Note("proposed " + std::to_string(record.generation));
  proposals.push_back(record);
}

void Bench::OnComplete(const wire::Record& record) {
  Note("complete " + std::to_string(record.generation));
  proposals.clear();
  completed = record;
  if (store_mode == StoreMode::kAnswers) stored = record;
}

void Bench::OnScrub(const Json& progress) { scrubs.push_back(progress); }

void Bench::OnTrim(const Json& progress) { trims.push_back(progress); }

void Bench::OnSize(uint64_t size_bytes, const Expansion& of) {
  expansion = of;
  static constexpr const char* kNames[] = {"none", "running", "done", "failed"};
  Note("size " + std::to_string(size_bytes) + " " + kNames[static_cast<size_t>(of.state)]);
}

void Bench::OnProbeStore(uint64_t question) {
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

void Bench::OnAskStore(uint64_t question, const wire::Record& record) {
  Note("store asked " + std::to_string(record.generation));
  questions.emplace_back(question, record);
  if (store_mode == StoreMode::kAnswers) AnswerStoreHere(Status::Ok());
  if (store_mode == StoreMode::kRefuses || store_mode == StoreMode::kRefusesRecords) {
    AnswerStoreHere({ErrorCode::kUnavailable, "the store is read-only today"});
  }
  if (store_mode == StoreMode::kFenced) AnswerStoreHere({ErrorCode::kFenced, "attachment 7"});
}

void Bench::OnReady() {
  ready = true;
  Note("ready");
}

void Bench::OnStopped(bool was_clean) {
  stopped = true;
  clean = was_clean;
}

void Bench::Log(LogLevel, const std::string& message) { log.push_back(message); }

}  // namespace ankole::engine::testing
