#include "engine/engine_service.h"

#include <algorithm>

#include "base/limits.h"
#include "engine/engine_config.h"
#include "iscsi/server.h"
#include "nbd/server.h"
#include "scsi/logical_unit.h"

namespace ankole::engine {

namespace {

constexpr uint64_t kRetryNs = kNsPerSecond;
// Front ends have this long to answer what they took; then their connections are closed.
constexpr uint64_t kFrontEndStopNs = kNsPerSecond;
Json EventOf(const char* name) { return Json::Object().Set("event", name); }

const char* ExpansionStateName(ExpansionState state) {
  switch (state) {
    case ExpansionState::kNone:
      return "none";
    case ExpansionState::kRunning:
      return "running";
    case ExpansionState::kDone:
      return "done";
    case ExpansionState::kFailed:
      return "failed";
  }
  return "";
}

}  // namespace

EngineService::EngineService(io::Reactor& reactor, EventSink& events)
    : reactor_(reactor), events_(events) {
  retry_.owner = stop_limit_.owner = this;
  retry_.done = [](io::Operation* operation) {
    static_cast<EngineService*>(operation->owner)->Listen();
  };
  stop_limit_.done = [](io::Operation* operation) {
    auto* self = static_cast<EngineService*>(operation->owner);
    self->nbd_->Abort();
    if (self->iscsi_ != nullptr) self->iscsi_->Abort();
    // Requests that wait keep their connections: the engine ends those.
    self->StopEngine();
  };
}

EngineService::~EngineService() = default;

Result<std::unique_ptr<Service>> EngineService::Make(io::Reactor& reactor, const Json& config,
                                                     EventSink& events) {
  Result<EngineOptions> options = ParseOptions(config);
  if (!options.ok()) return options.status();
  const Json* nbd = config.Find("nbd");
  if (nbd == nullptr) return Status(ErrorCode::kInvalidArgument, "nbd is missing");
  Result<io::Address> nbd_address = ListenAddress(*nbd);
  if (!nbd_address.ok()) return nbd_address.status().Within("nbd");
  Result<std::unique_ptr<IscsiOptions>> iscsi = ParseIscsi(config);
  if (!iscsi.ok()) return iscsi.status();
  // What all connections may hold at the most, plus one chunk each to receive into. Memory is taken
  // by first use, so that room for both front ends costs an idle engine nothing.
  const bool with_iscsi = iscsi.value() != nullptr;
  const size_t chunks_of_a_session =
      (iscsi::kReserveBytesMax + iscsi::kCommandsMax * BufferPool::kSmallBytes) /
      BufferPool::kSmallBytes;
  const size_t small = kConnectionsMax * (kConnectionOperationsMax + 4);
  const size_t medium = kConnectionsMax * (kConnectionBufferBytesMax / BufferPool::kMediumBytes);
  const size_t large = kConnectionsMax * (kConnectionBufferBytesMax / BufferPool::kLargeBytes);
  const size_t small_of_iscsi =
      with_iscsi ? kConnectionsMax * chunks_of_a_session + iscsi::kLoginsMax : 0;
  // Chunks that are copied between replicas, or trimmed, have a reserve of their own.
  Result<std::unique_ptr<BufferPool>> buffers =
      BufferPool::Create("ankole-buffers", small + small_of_iscsi, (with_iscsi ? 2 : 1) * medium,
                         (with_iscsi ? 2 : 1) * large + kCopiesMax + kTrimLanesMax);
  if (!buffers.ok()) return buffers.status();
  std::unique_ptr<EngineService> service(new EngineService(reactor, events));
  service->nbd_address_ = nbd_address.Take();
  service->engine_ = std::make_unique<Engine>(reactor, static_cast<Engine::Observer&>(*service),
                                              events, options.Take(), buffers.Take());
  service->nbd_ = std::make_unique<nbd::Server>(reactor, *service->engine_, events,
                                                &service->engine_->readable());
  if (with_iscsi) service->MakeIscsi(iscsi.Take());
  return std::unique_ptr<Service>(std::move(service));
}

void EngineService::MakeIscsi(std::unique_ptr<IscsiOptions> options) {
  iscsi_options_ = std::move(options);
  unit_ = std::make_unique<scsi::LogicalUnit>(
      reactor_, *engine_, events_,
      scsi::Identity{iscsi_options_->server.target, iscsi_options_->serial,
                     iscsi_options_->physical_block_bytes});
  iscsi_ =
      std::make_unique<iscsi::Server>(reactor_, *engine_, *unit_, events_, iscsi_options_->server);
}

void EngineService::Start() {
  const io::BackendChoice& choice = reactor_.backend();
  events_.Emit(EventOf("io-backend")
                   .Set("backend", io::BackendName(choice.backend))
                   .Set("reason", choice.reason));
  engine_->Start();
}

void EngineService::OnMessage(const Json& message) {
  Result<int64_t> answer = message.Integer("answer", 0, kIntegerMax, -1);
  if (answer.ok() && answer.value() >= 0) {
    OnAnswer(answer.value(), message);
    return;
  }
  Result<int64_t> request = message.Integer("request", 0, kIntegerMax);
  Result<std::string> name = message.String("op");
  if (!request.ok() || !name.ok()) {
    events_.Log(LogLevel::kWarn, "a control message is neither a request nor an answer");
    return;
  }
  OnRequest(request.value(), name.value(), message);
}

void EngineService::OnAnswer(int64_t question, const Json& message) {
  Result<bool> ok = message.Bool("ok", false);
  Result<std::string> text = message.String("message", "the store gave no reason");
  Result<std::string> code = message.String("code", "unavailable");
  if (!ok.ok() || !text.ok() || !code.ok()) {
    events_.Log(LogLevel::kWarn, "the answer to a question is malformed");
    return;
  }
  const ErrorCode error = code.value() == ErrorCodeName(ErrorCode::kFenced)
                              ? ErrorCode::kFenced
                              : ErrorCode::kUnavailable;
  engine_->AnswerStore(static_cast<uint64_t>(question),
                       ok.value() ? Status::Ok() : Status(error, text.value()));
}

void EngineService::StartScrub(int64_t request, const Json& message) {
  const Result<std::string> id = message.String("id", "");
  Status status = id.status();
  const auto number = [&](const char* name) {
    const Result<int64_t> got = message.Integer(name, 0, kIntegerMax, 0);
    if (!got.ok()) status = got.status();
    return got.ok() ? static_cast<uint64_t>(got.value()) : 0;
  };
  const Result<int64_t> rate = message.Integer("bytesPerSecond", 0, kIntegerMax);
  ScrubProgress before;
  before.regions_done = number("regionsDone");
  before.regions_failed = number("regionsFailed");
  before.repaired_blocks = number("repairedBlocks");
  before.corrupt_blocks = number("corruptBlocks");
  before.differing_blocks = number("differingBlocks");
  if (!rate.ok()) status = rate.status();
  if (!status.ok()) {
    events_.Emit(ReplyTo(request, status));
    return;
  }
  engine_->ScrubAll(id.value(), static_cast<uint64_t>(rate.value()), before);
  events_.Emit(ReplyTo(request, engine_->ScrubJson()));
}

void EngineService::StartTrim(int64_t request, const Json& message) {
  const Result<std::string> id = message.String("id", "");
  Status status = id.status();
  const auto number = [&](const char* name, const Result<int64_t>& got) {
    if (!got.ok()) status = got.status().Within(name);
    return got.ok() ? static_cast<uint64_t>(got.value()) : 0;
  };
  const auto before = [&](const char* name) {
    return number(name, message.Integer(name, 0, kIntegerMax, 0));
  };
  const TrimProgress progress = {before("bytesDone"), before("unmappedBytes"),
                                 before("failedBytes")};
  const uint64_t rate = number("bytesPerSecond", message.Integer("bytesPerSecond", 0, kIntegerMax));
  if (status.ok()) status = engine_->Trim(id.value(), rate, progress);
  events_.Emit(status.ok() ? ReplyTo(request, engine_->TrimJson()) : ReplyTo(request, status));
}

// Of the fullest disk that a replica lies on: initiators are told of it.
Status EngineService::SetSpace(const Json& space) {
  if (!space.is_object()) return {ErrorCode::kInvalidArgument, "it is not an object"};
  const Result<int64_t> total = space.Integer("totalBytes", 1, kIntegerMax);
  const Result<int64_t> free = space.Integer("freeBytes", 0, kIntegerMax);
  const Result<int64_t> soft = space.Integer("softBytes", 0, kIntegerMax);
  const Result<bool> low = space.Bool("low", false);
  if (!total.ok()) return total.status();
  if (!free.ok()) return free.status();
  if (!soft.ok()) return soft.status();
  if (!low.ok()) return low.status();
  if (free.value() > total.value()) {
    return {ErrorCode::kInvalidArgument, "freeBytes is more than totalBytes"};
  }
  if (unit_ != nullptr) {
    unit_->SetResources({static_cast<uint64_t>(total.value()), static_cast<uint64_t>(free.value()),
                         static_cast<uint64_t>(soft.value()), low.value()});
  }
  return Status::Ok();
}

// What may change while it runs; what is not named stays.
void EngineService::OnSet(int64_t request, const Json& message) {
  const Result<int64_t> bandwidth = message.Integer("resyncBandwidth", 0, kIntegerMax, -1);
  if (!bandwidth.ok()) {
    events_.Emit(ReplyTo(request, bandwidth.status()));
    return;
  }
  if (const Json* space = message.Find("space"); space != nullptr) {
    if (const Status status = SetSpace(*space); !status.ok()) {
      events_.Emit(ReplyTo(request, status.Within("space")));
      return;
    }
  }
  if (bandwidth.value() >= 0) {
    engine_->SetResyncBandwidth(static_cast<uint64_t>(bandwidth.value()));
  }
  events_.Emit(ReplyTo(request, Json::Object()));
}

// Answered at once; the event «size» says what becomes of it.
void EngineService::Expand(int64_t request, const Json& message) {
  const Result<std::string> id = message.String("id");
  const Result<int64_t> size = message.Integer("sizeBytes", 0, kIntegerMax);
  Status status = id.ok() ? size.status() : id.status();
  if (status.ok()) {
    status = engine_->Expand(id.value(), static_cast<uint64_t>(size.value()));
  }
  events_.Emit(status.ok() ? ReplyTo(request, Json::Object()) : ReplyTo(request, status));
}

void EngineService::OnRequest(int64_t request, const std::string& name, const Json& message) {
  if (name == "counters") {
    Json counters = engine_->CountersJson();
    counters.Set("connections", static_cast<uint64_t>(nbd_->connections()));
    counters.Set("iscsiSessions",
                 static_cast<uint64_t>(iscsi_ != nullptr ? iscsi_->sessions() : 0));
    events_.Emit(ReplyTo(request, std::move(counters)));
  } else if (name == "status") {
    const EngineReport report = engine_->Report();
    events_.Emit(ReplyTo(request, Json::Object()
                                      .Set("state", report.state)
                                      .Set("message", report.message)
                                      .Set("record", RecordToJson(report.record))));
  } else if (name == "scrub") {
    StartScrub(request, message);
  } else if (name == "trim") {
    StartTrim(request, message);
  } else if (name == "stop-trim") {
    engine_->StopTrim();
    events_.Emit(ReplyTo(request, engine_->TrimJson()));
  } else if (name == "expand") {
    Expand(request, message);
  } else if (name == "set") {
    OnSet(request, message);
  } else if (name == "take-snapshot" || name == "delete-snapshot" || name == "list-layers" ||
             name == "revert") {
    AskForSnapshot(request, name, message);
  } else if (name == "snapshot-changes") {
    AskForChanges(request, message);
  } else if (name == "read-snapshot") {
    AskForReading(request, message);
  } else if (name == "check-unread") {
    CheckUnread(request, message);
  } else if (name == "stop-scrub") {
    engine_->StopScrub();
    events_.Emit(ReplyTo(request, engine_->ScrubJson()));
  } else if (name == "stop") {
    if (stopping_) {
      events_.Emit(ReplyTo(request, Status(ErrorCode::kBusy, "it is stopping already")));
      return;
    }
    stop_request_ = request;
    BeginStop();
  } else {
    events_.Emit(ReplyTo(
        request, Status(ErrorCode::kUnsupported, "an engine has no request '" + name + "'")));
  }
}

void EngineService::OnReport(const EngineReport& report) {
  Json members = Json::Array();
  for (const wire::ReplicaId id : report.record.members.all()) {
    members.Append(wire::ReplicaIdText(id));
  }
  events_.Emit(EventOf("state")
                   .Set("state", report.state)
                   .Set("message", report.message)
                   .Set("waitsFor", WaitsForCode(report.waits_for))
                   .Set("members", std::move(members))
                   .Set("generation", report.record.generation));
}

void EngineService::OnReplica(wire::ReplicaId replica, const char* state, Fault fault,
                              const std::string& reason) {
  events_.Emit(EventOf("replica")
                   .Set("id", wire::ReplicaIdText(replica))
                   .Set("state", state)
                   .Set("fault", FaultCode(fault))
                   .Set("reason", reason));
}

void EngineService::OnCannotStart(const StartDecision& decision, const std::vector<Heard>& heard) {
  Json replicas = Json::Array();
  for (const Heard& replica : heard) {
    Json one = Json::Object()
                   .Set("id", wire::ReplicaIdText(replica.replica))
                   .Set("answered", replica.answered);
    if (replica.answered) {
      one.Set("record", RecordToJson(replica.state.records.current))
          .Set("welcomed", EpochToJson(replica.state.welcomed))
          .Set("suspect", replica.state.suspect)
          .Set("unclean", replica.state.unclean);
    } else {
      one.Set("reason", replica.why_not);
    }
    replicas.Append(std::move(one));
  }
  events_.Emit(EventOf("cannot-start")
                   .Set("newest", RecordToJson(decision.newest))
                   .Set("lacking", decision.lacking)
                   .Set("replicas", std::move(replicas)));
}

void EngineService::OnPropose(const wire::Record& record) {
  events_.Emit(EventOf("proposal").Set("record", RecordToJson(record)));
}

void EngineService::OnComplete(const wire::Record& record) {
  events_.Emit(EventOf("complete").Set("record", RecordToJson(record)));
}

void EngineService::OnProbeStore(uint64_t question) {
  events_.Emit(EventOf("probe").Set("question", question));
}

void EngineService::OnAskStore(uint64_t question, const wire::Record& record) {
  events_.Emit(EventOf("record").Set("question", question).Set("record", RecordToJson(record)));
}

void EngineService::OnScrub(const Json& progress) {
  events_.Emit(EventOf("scrub").Set("progress", progress));
}

void EngineService::OnTrim(const Json& progress) {
  events_.Emit(EventOf("trim").Set("progress", progress));
}

void EngineService::OnSize(uint64_t size_bytes, const Expansion& expansion) {
  // Before the order counts as carried out.
  if (unit_ != nullptr) unit_->CapacityChanged();
  Json event = EventOf("size").Set("sizeBytes", size_bytes);
  if (expansion.state != ExpansionState::kNone) {
    const bool failed = expansion.state == ExpansionState::kFailed;
    event.Set("expansion", Json::Object()
                               .Set("id", expansion.id)
                               .Set("sizeBytes", expansion.to_bytes)
                               .Set("state", ExpansionStateName(expansion.state))
                               .Set("code", failed ? ErrorCodeName(expansion.status.code()) : "")
                               .Set("message", expansion.status.message()));
  }
  events_.Emit(event);
}

void EngineService::OnReady() {
  ready_ = true;
  if (!stopping_) Listen();
}

// The engine serves, but a front end cannot: said clearly, and tried until it can.
void EngineService::Wait(const std::string& cause) {
  EngineReport report = engine_->Report();
  report.state = "waiting";
  report.message = cause + "; tried again every second";
  OnReport(report);
  reactor_.Arm(&retry_, reactor_.NowNs() + kRetryNs);
}

void EngineService::StartUnit() {
  unit_starting_ = true;
  unit_->Start([this](const Status& status) {
    unit_starting_ = false;
    unit_started_ = status.ok();
    if (stopping_) return;
    if (!status.ok()) return Wait("iSCSI cannot start: " + status.message());
    Listen();
  });
}

// The ports are the volume's own; somebody else may have one all the same.
void EngineService::Listen() {
  if (!nbd_listening_) {
    const Status listening = nbd_->Listen(nbd_address_, &nbd_bound_);
    if (!listening.ok()) {
      return Wait("NBD cannot listen on " + nbd_address_.ToString() + ": " + listening.message());
    }
    nbd_listening_ = true;
  }
  if (unit_ != nullptr && !unit_started_) {
    if (!unit_starting_) StartUnit();
    return;
  }
  if (iscsi_ != nullptr && !iscsi_listening_) {
    const io::Address& address = iscsi_options_->address;
    const Status listening = iscsi_->Listen(address, &iscsi_bound_);
    if (!listening.ok()) {
      return Wait("iSCSI cannot listen on " + address.ToString() + ": " + listening.message());
    }
    iscsi_listening_ = true;
  }
  OnReport(engine_->Report());
  const auto place = [](const io::Address& address) {
    return Json::Object().Set("host", address.host).Set("port", int64_t{address.port});
  };
  Json serving = EventOf("serving").Set("nbd", place(nbd_bound_));
  if (iscsi_ != nullptr) serving.Set("iscsi", place(iscsi_bound_));
  events_.Emit(serving);
}

void EngineService::BeginStop() {
  stopping_ = true;
  reactor_.Cancel(&retry_);
  front_ends_stopping_ = (nbd_listening_ ? 1 : 0) + (iscsi_listening_ ? 1 : 0);
  if (front_ends_stopping_ == 0) {
    StopEngine();
    return;
  }
  reactor_.Arm(&stop_limit_, reactor_.NowNs() + kFrontEndStopNs);
  if (nbd_listening_) nbd_->Shutdown([this] { FrontEndStopped(); });
  if (iscsi_listening_) iscsi_->Shutdown([this] { FrontEndStopped(); });
}

void EngineService::FrontEndStopped() {
  if (--front_ends_stopping_ > 0) return;
  reactor_.Cancel(&stop_limit_);
  StopEngine();
}

void EngineService::StopEngine() { engine_->Stop(); }

void EngineService::OnStopped(bool clean) {
  if (stop_request_ >= 0) {
    events_.Emit(ReplyTo(stop_request_, Json::Object().Set("clean", clean)));
  }
  events_.Emit(EventOf("stopped").Set("clean", clean));
  reactor_.Stop();
}

}  // namespace ankole::engine
