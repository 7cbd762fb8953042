#include "sim/processes.h"

#include <utility>
#include <vector>

namespace ankole::sim {
namespace {

// Virtual memory only: pages are taken by first use.
constexpr size_t kSmallChunks = 256;
constexpr size_t kMediumChunks = 64;
constexpr size_t kLargeChunks = 64;
constexpr uint64_t kCreateAgainNs = 500 * kNsPerMs;
// Numbers of requests to a disk host.
constexpr int kCreateRequest = 1;
constexpr int kCountersRequest = 2;
constexpr int kRemoveRequest = 3;
constexpr int kOtherRequests = 10;  // and more: of Ask

Status StatusOf(const Json* error) {
  if (error == nullptr) return Status::Ok();
  const std::string code = error->String("code").Take();
#define ANKOLE_CODE(name, number, text) \
  if (code == (text)) return {ErrorCode::name, error->String("message").Take()};
  ANKOLE_ERROR_CODES(ANKOLE_CODE)
#undef ANKOLE_CODE
  return {ErrorCode::kInternal, "an error without a name: " + code};
}

}  // namespace

void Keep(std::shared_ptr<void> what) {
  static auto* const kept = new std::vector<std::shared_ptr<void>>();
  kept->push_back(std::move(what));
}

// --- disk host
// ------------------------------------------------------------------------------------

DiskHostProcess::DiskHostProcess(Machine& machine, wire::ReplicaId replica)
    : reactor(machine, "disk-host"), replica_(replica) {}

void DiskHostProcess::Start() {
  started_ns = reactor.world().now_ns();
  const Json config = Json::Object()
                          .Set("disk", reactor.machine().name())
                          .Set("directory", "/disk")
                          .Set("listen", Json::Array().Append("tcp:" + reactor.machine().name() +
                                                              ":" + std::to_string(kDiskHostPort)));
  host_ = std::make_unique<replica::DiskHost>(reactor, static_cast<EventSink&>(*this),
                                              replica::DiskHostConfig::Parse(config).Take());
  reactor.on_ended = [this] {
    ended_ = true;
    if (on_ended) on_ended();
  };
  reactor.Inside([this] { host_->Start(); });
}

void DiskHostProcess::Create() {
  host_->OnMessage(Json::Object()
                       .Set("op", "create-replica")
                       .Set("request", kCreateRequest)
                       .Set("volume", kVolumeName)
                       .Set("id", wire::ReplicaIdText(replica_))
                       .Set("sizeBytes", size_bytes)
                       .Set("secret", SecretText(secret))
                       .Set("cache", direct ? "direct" : "buffered"));
}

void DiskHostProcess::Remove() {
  host_->OnMessage(Json::Object()
                       .Set("op", "remove-replica")
                       .Set("request", kRemoveRequest)
                       .Set("volume", kVolumeName)
                       .Set("id", wire::ReplicaIdText(replica_)));
}

void DiskHostProcess::Ask(Json message, std::function<void(const Status&)> done) {
  const int64_t request = kOtherRequests + requests_++;
  message.Set("request", request);
  asked_[request] = std::move(done);
  reactor.Inside([this, message = std::move(message)] { host_->OnMessage(message); });
}

void DiskHostProcess::Answered(int64_t request, const Json* error) {
  if (request >= kOtherRequests) {
    const auto asked = asked_.extract(request);
    CHECK(!asked.empty());
    asked.mapped()(StatusOf(error));
    return;
  }
  if (error != nullptr) {
    // Its disk is full, or fails: the manager asks again.
    reactor.world().After(kCreateAgainNs, [this, request] {
      reactor.Inside([this, request] { request == kRemoveRequest ? Remove() : Create(); });
    });
    return;
  }
  if (request == kRemoveRequest) return Create();
  ready_ = true;
  if (on_made) on_made();
}

Json DiskHostProcess::Counters() {
  host_->OnMessage(Json::Object().Set("op", "counters").Set("request", kCountersRequest));
  return std::exchange(counters_, {});
}

void DiskHostProcess::Emit(const Json& event) {
  if (const Json* reply = event.Find("reply");
      reply != nullptr && reply->AsInteger("reply", 0, INT64_MAX).Take() == kCountersRequest) {
    if (const Json* result = event.Find("result"); result != nullptr) counters_ = *result;
    return;
  }
  if (reactor.world().tracing()) reactor.world().Trace(reactor.process_name(), event.Write());
  const Json* name = event.Find("event");
  if (name != nullptr && name->AsString("event").Take() == "listening") {
    if (!create) {
      ready_ = true;
      return;
    }
    remove ? Remove() : Create();
  }
  if (const Json* reply = event.Find("reply"); reply != nullptr) {
    Answered(reply->AsInteger("reply", 0, INT64_MAX).Take(), event.Find("error"));
  }
}

// --- engine
// ---------------------------------------------------------------------------------------

EngineProcess::EngineProcess(Machine& machine, engine::EngineOptions options)
    : reactor(machine, "engine-" + std::to_string(options.epoch.attachment) + "." +
                           std::to_string(options.epoch.run)),
      options_(std::move(options)) {}

void EngineProcess::Start() {
  started_ns = reactor.world().now_ns();
  auto buffers = BufferPool::Create("simulated", kSmallChunks, kMediumChunks, kLargeChunks);
  CHECK(buffers.ok());
  engine_ =
      std::make_unique<engine::Engine>(reactor, static_cast<engine::Engine::Observer&>(*this),
                                       static_cast<LogSink&>(*this), options_, buffers.Take());
  reactor.Inside([this] { engine_->Start(); });
}

void EngineProcess::OnReport(const engine::EngineReport& report) {
  if (reactor.world().tracing()) {
    reactor.world().Trace(reactor.process_name(), std::string("state ") + report.state + ": " +
                                                      report.message + " (" +
                                                      wire::Describe(report.record) + ")");
  }
}

void EngineProcess::OnCannotStart(const engine::StartDecision&, const std::vector<engine::Heard>&) {
}

void EngineProcess::OnPropose(const wire::Record& record) {
  if (reactor.world().tracing()) {
    reactor.world().Trace(reactor.process_name(), "proposes " + wire::Describe(record));
  }
  if (on_propose) on_propose(record);
}

void EngineProcess::OnComplete(const wire::Record& record) {
  if (reactor.world().tracing()) {
    reactor.world().Trace(reactor.process_name(), "complete: " + wire::Describe(record));
  }
  if (on_complete) on_complete(record);
}

void EngineProcess::OnProbeStore(uint64_t question) {
  if (on_probe_store) on_probe_store(question);
}

void EngineProcess::OnReplica(wire::ReplicaId replica, const char* state, engine::Fault fault,
                              const std::string& reason) {
  lack_snapshots_.Remove(replica);
  if (fault == engine::Fault::kOlderRecord && reason.find("snapshots") != std::string::npos) {
    lack_snapshots_.Add(replica);
  }
  only_clients_ &= std::string_view(state) != "resyncing";
  if (!reactor.world().tracing()) return;
  reactor.world().Trace(reactor.process_name(),
                        "replica " + wire::ReplicaIdText(replica) + " " + state + " " + reason);
}

void EngineProcess::OnAskStore(uint64_t question, const wire::Record& record) {
  if (on_ask_store) on_ask_store(question, record);
}

void EngineProcess::OnSize(uint64_t size_bytes, const engine::Expansion& expansion) {
  if (reactor.world().tracing()) {
    reactor.world().Trace(
        reactor.process_name(),
        "the volume has " + std::to_string(size_bytes) + " bytes" +
            (expansion.status.message().empty() ? "" : "; " + expansion.status.message()));
  }
  if (on_size) on_size(size_bytes, expansion);
}

void EngineProcess::OnReady() {
  ready_ = true;
  only_clients_ &= engine_->dirty_regions() == 0;
  ready_tick = reactor.world().Tick();
  if (on_ready) on_ready();
}

void EngineProcess::OnStopped(bool clean) {
  stopped_ = true;
  clean_ = clean;
}

void EngineProcess::Log(LogLevel, const std::string& message) {
  if (reactor.world().tracing()) reactor.world().Trace(reactor.process_name(), message);
}

}  // namespace ankole::sim
