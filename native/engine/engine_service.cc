#include "engine/engine_service.h"

#include <algorithm>

#include "base/limits.h"
#include "iscsi/server.h"
#include "nbd/server.h"
#include "scsi/logical_unit.h"

namespace ankole::engine {

struct EngineService::Asked : SnapshotRequest {
  EngineService* service = nullptr;
  int64_t number = 0;  // of the control message
};

struct EngineService::AskedChanges : ChangesRequest {
  EngineService* service = nullptr;
  int64_t number = 0;
};

struct EngineService::AskedReading : ReadSnapshotRequest {
  EngineService* service = nullptr;
  int64_t number = 0;
};

struct IscsiOptions {
  io::Address address;
  iscsi::ServerOptions server;
  std::string serial;
  uint32_t physical_block_bytes = kBlockBytes;
};

namespace {

constexpr int64_t kIntegerMax = (1LL << 53) - 1;  // what JSON's readers keep exact
constexpr uint64_t kRetryNs = kNsPerSecond;
// A UUID has 36; VPD page 80h takes more.
constexpr size_t kSerialBytesMax = 64;
// Front ends have this long to answer what they took; then their connections are closed.
constexpr uint64_t kFrontEndStopNs = kNsPerSecond;
// Of requests about snapshots at once: they are served one after the other.
constexpr size_t kSnapshotRequestsMax = 64;

Status TooMany() { return {ErrorCode::kBusy, "too many requests about snapshots wait already"}; }

Json EventOf(const char* name) { return Json::Object().Set("event", name); }

Result<wire::Epoch> EpochFromJson(const Json& json) {
  Result<int64_t> attachment = json.Integer("attachment", 0, kIntegerMax);
  if (!attachment.ok()) return attachment.status().Within("epoch");
  Result<int64_t> run = json.Integer("run", 0, kIntegerMax);
  if (!run.ok()) return run.status().Within("epoch");
  return wire::Epoch{static_cast<uint64_t>(attachment.value()), static_cast<uint64_t>(run.value())};
}

Result<io::Address> ListenAddress(const Json& json) {
  io::Address address;
  Result<std::string> host = json.String("host");
  if (!host.ok()) return host.status();
  Result<int64_t> port = json.Integer("port", 0, 65'535);
  if (!port.ok()) return port.status();
  address.host = host.Take();
  address.port = static_cast<uint16_t>(port.value());
  return address;
}

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

Json EpochToJson(const wire::Epoch& epoch) {
  return Json::Object().Set("attachment", epoch.attachment).Set("run", epoch.run);
}

Json LayerToJson(const wire::LayerEntry& layer) {
  return Json::Object()
      .Set("name", layer.name)
      .Set("parent", layer.parent)
      .Set("createdSeconds", layer.created_seconds)
      .Set("allocatedBytes", layer.allocated_bytes)
      .Set("sizeBytes", layer.size_bytes)
      .Set("removed", layer.removed)
      .Set("userCreated", layer.user_created)
      .Set("sealed", layer.sealed);
}

Json ChangesToJson(const ChangesRequest& changes) {
  Json extents = Json::Array();
  for (const ChangedExtent& extent : changes.extents) {
    extents.Append(Json::Object()
                       .Set("offset", extent.offset_bytes)
                       .Set("length", extent.length_bytes)
                       .Set("zero", extent.zero));
  }
  return Json::Object()
      .Set("sizeBytes", changes.size_bytes)
      .Set("fromSizeBytes", changes.from_size_bytes)
      .Set("nextOffset", changes.next_bytes)
      .Set("extents", std::move(extents));
}

// Takes it out of those that are waited for.
template <typename T>
std::unique_ptr<T> TakeFrom(std::vector<std::unique_ptr<T>>* all, const T* one) {
  const auto found =
      std::find_if(all->begin(), all->end(), [&](const auto& other) { return other.get() == one; });
  CHECK(found != all->end());
  std::unique_ptr<T> taken = std::move(*found);
  all->erase(found);
  return taken;
}

// What is wrong with the message; else `request` is as it says.
Status ParseChanges(const Json& message, ChangesRequest* request) {
  Result<std::string> to = message.String("layer");
  if (!to.ok()) return to.status();
  Result<std::string> from = message.String("from", "");
  if (!from.ok()) return from.status();
  const Result<int64_t> offset = message.Integer("offset", 0, kIntegerMax, 0);
  if (!offset.ok()) return offset.status();
  constexpr auto kExtentsMax = static_cast<int64_t>(kChangedExtentsMax);
  const Result<int64_t> limit = message.Integer("limit", 1, kExtentsMax, kExtentsMax);
  if (!limit.ok()) return limit.status();
  request->to = to.Take();
  request->from = from.Take();
  request->offset_bytes = static_cast<uint64_t>(offset.value());
  request->extents_max = static_cast<size_t>(limit.value());
  return Status::Ok();
}

// What is wrong with the message; else `request` is as it says.
Status ParseTake(const Json& message, SnapshotRequest* request) {
  const Json* labels = message.Find("labels");
  if (labels != nullptr && !labels->is_null()) {
    if (!labels->is_object()) return {ErrorCode::kInvalidArgument, "labels must be an object"};
    if (!labels->members().empty()) request->labels = labels->Write();
  }
  const Result<bool> user_created = message.Bool("userCreated", false);
  if (!user_created.ok()) return user_created.status();
  request->user_created = user_created.value();
  const Result<int64_t> created = message.Integer("createdSeconds", 0, kIntegerMax, 0);
  if (!created.ok()) return created.status();
  request->created_seconds = static_cast<uint64_t>(created.value());
  return Status::Ok();
}

}  // namespace

// A file system that is mounted does not survive that other content appears under it.
Status EngineService::ParseRevert(const Json& message, Asked* asked) {
  Result<std::string> base = message.String("base");
  if (!base.ok()) return base.status();
  asked->base = base.Take();
  Result<std::string> after = message.String("after");
  if (!after.ok()) return after.status();
  asked->after = after.Take();
  const Result<bool> force = message.Bool("force", false);
  if (!force.ok()) return force.status();
  if (force.value()) return Status::Ok();
  asked->why_not = [](const SnapshotRequest* request) {
    const EngineService& self = *static_cast<const Asked*>(request)->service;
    const size_t sessions = self.iscsi_ != nullptr ? self.iscsi_->sessions() : 0;
    const size_t connections = self.nbd_->connections();
    if (sessions + connections == 0) return std::string();
    return "the volume is in use: " + std::to_string(sessions) + " iSCSI sessions and " +
           std::to_string(connections) + " NBD connections; unmount it and log out first";
  };
  return Status::Ok();
}

Json RecordToJson(const wire::Record& record) {
  Json members = Json::Array();
  for (const wire::ReplicaId id : record.members.all()) members.Append(wire::ReplicaIdText(id));
  return Json::Object()
      .Set("epoch", EpochToJson(record.epoch))
      .Set("generation", record.generation)
      .Set("members", std::move(members))
      .Set("snapshot", record.newest_snapshot);
}

Result<wire::Record> RecordFromJson(const Json& json) {
  wire::Record record;
  const Json* epoch = json.Find("epoch");
  if (epoch == nullptr) return Status(ErrorCode::kInvalidArgument, "record: epoch is missing");
  Result<wire::Epoch> parsed = EpochFromJson(*epoch);
  if (!parsed.ok()) return parsed.status().Within("record");
  record.epoch = parsed.value();
  Result<int64_t> generation = json.Integer("generation", 0, kIntegerMax);
  if (!generation.ok()) return generation.status().Within("record");
  record.generation = static_cast<uint64_t>(generation.value());
  const Json* members = json.Find("members");
  if (members == nullptr || !members->is_array() || members->items().size() > kReplicasMax) {
    return Status(ErrorCode::kInvalidArgument, "record: members must be a list of at most " +
                                                   std::to_string(kReplicasMax) + " replica ids");
  }
  for (const Json& item : members->items()) {
    Result<std::string> text = item.AsString("record: a member");
    if (!text.ok()) return text.status();
    Result<wire::ReplicaId> id = wire::ParseReplicaId(text.value());
    if (!id.ok()) return id.status().Within("record: members");
    record.members.Add(id.value());
  }
  Result<std::string> snapshot = json.String("snapshot", "");
  if (!snapshot.ok()) return snapshot.status().Within("record");
  if (snapshot.value().size() > wire::kSnapshotNameBytesMax) {
    return Status(ErrorCode::kInvalidArgument, "record: snapshot is too long");
  }
  record.newest_snapshot = snapshot.Take();
  return record;
}

namespace {

// What a start goes on from beside the store's record: all of it may be left out.
Status ParseBasis(const Json& config, EngineOptions* options) {
  for (const auto& [name, to] : {std::pair{"alone", &options->alone},
                                 {"storeRestored", &options->store_restored},
                                 {"clientsAnew", &options->clients_anew}}) {
    Result<bool> value = config.Bool(name, false);
    if (!value.ok()) return value.status();
    *to = value.value();
  }
  const Json* kept = config.Find("kept");
  if (kept == nullptr || kept->is_null()) return Status::Ok();
  const Json* complete = kept->Find("complete");
  const Json* proposals = kept->Find("proposals");
  if (complete == nullptr || proposals == nullptr || !proposals->is_array()) {
    return {ErrorCode::kInvalidArgument, "kept must have complete and a list of proposals"};
  }
  Result<wire::Record> record = RecordFromJson(*complete);
  if (!record.ok()) return record.status().Within("kept");
  if (Newer(record.value(), options->record)) options->record = record.Take();
  for (const Json& item : proposals->items()) {
    Result<wire::Record> proposal = RecordFromJson(item);
    if (!proposal.ok()) return proposal.status().Within("kept: proposals");
    options->proposals.push_back(proposal.Take());
  }
  options->kept = true;
  return Status::Ok();
}

}  // namespace

namespace {

// An order to become larger that is not known to have been carried out.
Status ParseExpansion(const Json& config, EngineOptions* options) {
  const Json* json = config.Find("expansion");
  if (json == nullptr || json->is_null()) return Status::Ok();
  Result<std::string> id = json->String("id");
  if (!id.ok()) return id.status().Within("expansion");
  Result<int64_t> size = json->Integer("sizeBytes", static_cast<int64_t>(options->size_bytes),
                                       static_cast<int64_t>(kVolumeBytesMax));
  if (!size.ok()) return size.status().Within("expansion");
  if (size.value() % static_cast<int64_t>(kBlockBytes) != 0) {
    return {ErrorCode::kInvalidArgument, "expansion: sizeBytes must be a multiple of 4096"};
  }
  options->expansion_id = id.Take();
  options->expand_to_bytes = static_cast<uint64_t>(size.value());
  return Status::Ok();
}

}  // namespace

Result<EngineOptions> EngineService::ParseOptions(const Json& config) {
  if (!config.is_object()) return Status(ErrorCode::kInvalidArgument, "config must be an object");
  EngineOptions options;
  Result<std::string> volume = config.String("volume");
  if (!volume.ok()) return volume.status();
  options.volume = volume.Take();
  if (!wire::IsVolumeName(options.volume)) {
    return Status(ErrorCode::kInvalidArgument,
                  "volume must be a DNS label of at most 63 characters");
  }
  Result<int64_t> size = config.Integer("sizeBytes", static_cast<int64_t>(kVolumeBytesMin),
                                        static_cast<int64_t>(kVolumeBytesMax));
  if (!size.ok()) return size.status();
  options.size_bytes = static_cast<uint64_t>(size.value());
  if (options.size_bytes % kBlockBytes != 0) {
    return Status(ErrorCode::kInvalidArgument, "sizeBytes must be a multiple of 4096");
  }
  const Status expansion = ParseExpansion(config, &options);
  if (!expansion.ok()) return expansion;
  Result<std::string> hex = config.String("secret");
  if (!hex.ok()) return hex.status();
  Result<Secret> secret = ParseSecret(hex.value());
  if (!secret.ok()) return secret.status().Within("secret");
  options.secret = secret.value();
  const Json* epoch = config.Find("epoch");
  if (epoch == nullptr) return Status(ErrorCode::kInvalidArgument, "epoch is missing");
  Result<wire::Epoch> parsed_epoch = EpochFromJson(*epoch);
  if (!parsed_epoch.ok()) return parsed_epoch.status();
  options.epoch = parsed_epoch.value();
  const Json* record = config.Find("record");
  if (record == nullptr) return Status(ErrorCode::kInvalidArgument, "record is missing");
  Result<wire::Record> parsed_record = RecordFromJson(*record);
  if (!parsed_record.ok()) return parsed_record.status();
  options.record = parsed_record.Take();
  const Status basis = ParseBasis(config, &options);
  if (!basis.ok()) return basis;
  Result<bool> read_only = config.Bool("readOnly", false);
  if (!read_only.ok()) return read_only.status();
  options.read_only = read_only.value();
  const Json* replicas = config.Find("replicas");
  if (replicas == nullptr || !replicas->is_array() || replicas->items().empty() ||
      replicas->items().size() > kReplicasMax) {
    return Status(ErrorCode::kInvalidArgument,
                  "replicas must be a list of 1 to " + std::to_string(kReplicasMax));
  }
  for (const Json& item : replicas->items()) {
    Result<std::string> id_text = item.String("id");
    if (!id_text.ok()) return id_text.status().Within("replicas");
    Result<wire::ReplicaId> id = wire::ParseReplicaId(id_text.value());
    if (!id.ok()) return id.status().Within("replicas");
    Result<std::string> address_text = item.String("address");
    if (!address_text.ok()) return address_text.status().Within("replicas");
    Result<io::Address> address = io::Address::Parse(address_text.value());
    if (!address.ok()) return address.status().Within("replicas");
    for (const EngineOptions::Replica& other : options.replicas) {
      if (other.id == id.value()) {
        return Status(ErrorCode::kInvalidArgument,
                      "replicas: " + id_text.value() + " stands twice");
      }
    }
    options.replicas.push_back({id.value(), address.Take()});
  }
  Result<int64_t> late_ms = config.Integer("lateMs", 50, 3'600'000, 1000);
  if (!late_ms.ok()) return late_ms.status();
  options.late_ns = static_cast<uint64_t>(late_ms.value()) * kNsPerMs;
  Result<int64_t> wait_ms = config.Integer("startWaitMs", 0, 3'600'000, 5'000);
  if (!wait_ms.ok()) return wait_ms.status();
  options.start_wait_ns = static_cast<uint64_t>(wait_ms.value()) * kNsPerMs;
  Result<int64_t> bandwidth = config.Integer("resyncBandwidth", 0, kIntegerMax, 0);
  if (!bandwidth.ok()) return bandwidth.status();
  options.resync_bandwidth = static_cast<uint64_t>(bandwidth.value());
  Result<bool> shared_memory = config.Bool("sharedMemory", true);
  if (!shared_memory.ok()) return shared_memory.status();
  options.shared_memory = shared_memory.value();
  return options;
}

Result<std::unique_ptr<IscsiOptions>> EngineService::ParseIscsi(const Json& config) {
  std::unique_ptr<IscsiOptions> options;
  const Json* json = config.Find("iscsi");
  if (json == nullptr || json->is_null()) return options;
  options = std::make_unique<IscsiOptions>();
  Result<io::Address> address = ListenAddress(*json);
  if (!address.ok()) return address.status().Within("iscsi");
  options->address = address.Take();
  Result<std::string> target = json->String("target");
  if (!target.ok()) return target.status().Within("iscsi");
  const std::optional<std::string> name = iscsi::ParseName(target.value());
  if (!name) {
    return Status(ErrorCode::kInvalidArgument,
                  "iscsi: target is no iSCSI name: " + iscsi::Printable(target.value()));
  }
  options->server.target = *name;
  Result<std::string> serial = json->String("serial");
  if (!serial.ok()) return serial.status().Within("iscsi");
  options->serial = serial.Take();
  const bool printable = std::all_of(options->serial.begin(), options->serial.end(),
                                     [](char c) { return c > 0x20 && c < 0x7f; });
  if (options->serial.empty() || options->serial.size() > kSerialBytesMax || !printable) {
    return Status(ErrorCode::kInvalidArgument, "iscsi: serial must have 1 to " +
                                                   std::to_string(kSerialBytesMax) +
                                                   " printable characters of ASCII");
  }
  Result<int64_t> physical =
      json->Integer("physicalBlockBytes", kSectorBytes, kBlockBytes, kBlockBytes);
  if (!physical.ok()) return physical.status().Within("iscsi");
  options->physical_block_bytes = static_cast<uint32_t>(physical.value());
  if (!scsi::IsPhysicalBlock(options->physical_block_bytes)) {
    return Status(ErrorCode::kInvalidArgument, "iscsi: physicalBlockBytes must be 512 or 4096");
  }
  const Json* chap = json->Find("chap");
  if (chap != nullptr && !chap->is_null()) {
    Result<iscsi::ChapSecrets> secrets = iscsi::ChapSecrets::Parse(*chap);
    if (!secrets.ok()) return secrets.status().Within("iscsi");
    options->server.chap = secrets.Take();
  }
  return options;
}

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
  // Chunks that are copied between replicas have a reserve of their own.
  Result<std::unique_ptr<BufferPool>> buffers =
      BufferPool::Create("ankole-buffers", small + small_of_iscsi, (with_iscsi ? 2 : 1) * medium,
                         (with_iscsi ? 2 : 1) * large + kCopiesMax);
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

// What may change while it runs; what is not named stays.
void EngineService::OnSet(int64_t request, const Json& message) {
  const Result<int64_t> bandwidth = message.Integer("resyncBandwidth", 0, kIntegerMax, -1);
  if (!bandwidth.ok()) {
    events_.Emit(ReplyTo(request, bandwidth.status()));
    return;
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

// Answered when the engine has an outcome, which may take as long as members take to flush.
void EngineService::AskForSnapshot(int64_t request, const std::string& name, const Json& message) {
  auto asked = std::make_unique<Asked>();
  asked->service = this;
  asked->number = request;
  asked->done = [](SnapshotRequest* done) {
    auto* self = static_cast<Asked*>(done);
    self->service->Answer(self);
  };
  Status status;
  if (name != "list-layers") {
    Result<std::string> layer = message.String("layer");
    status = layer.status();
    if (layer.ok()) asked->name = layer.Take();
  }
  if (status.ok() && name == "revert") status = ParseRevert(message, asked.get());
  if (status.ok() && name == "take-snapshot") status = ParseTake(message, asked.get());
  if (status.ok() && this->asked() >= kSnapshotRequestsMax) status = TooMany();
  if (!status.ok()) {
    events_.Emit(ReplyTo(request, status));
    return;
  }
  Asked* of_engine = asked.get();
  asked_.push_back(std::move(asked));
  if (name == "take-snapshot") {
    engine_->TakeSnapshot(of_engine);
  } else if (name == "revert") {
    engine_->RevertTo(of_engine);
  } else if (name == "delete-snapshot") {
    engine_->DeleteSnapshot(of_engine);
  } else {
    engine_->ListLayers(of_engine);
  }
}

// Answered with a part of it where there is much.
void EngineService::AskForChanges(int64_t request, const Json& message) {
  auto asked = std::make_unique<AskedChanges>();
  asked->service = this;
  asked->number = request;
  Status status = ParseChanges(message, asked.get());
  if (status.ok() && this->asked() >= kSnapshotRequestsMax) status = TooMany();
  if (!status.ok()) {
    events_.Emit(ReplyTo(request, status));
    return;
  }
  asked->done = [](ChangesRequest* done) {
    auto* one = static_cast<AskedChanges*>(done);
    EngineService& self = *one->service;
    const std::unique_ptr<AskedChanges> owned = TakeFrom(&self.changes_, one);
    self.events_.Emit(owned->status.ok() ? ReplyTo(owned->number, ChangesToJson(*owned))
                                         : ReplyTo(owned->number, owned->status));
  };
  changes_.push_back(std::move(asked));
  engine_->ListChanges(changes_.back().get());
}

// Answered when NBD clients can read it, as VOLUME@SNAPSHOT.
void EngineService::AskForReading(int64_t request, const Json& message) {
  auto asked = std::make_unique<AskedReading>();
  asked->service = this;
  asked->number = request;
  Result<std::string> layer = message.String("layer");
  Result<std::string> snapshot = message.String("snapshot");
  Status status = layer.ok() ? snapshot.status() : layer.status();
  if (status.ok() && this->asked() >= kSnapshotRequestsMax) status = TooMany();
  if (!status.ok()) {
    events_.Emit(ReplyTo(request, status));
    return;
  }
  asked->layer = layer.Take();
  asked->name = engine_->name() + "@" + snapshot.value();
  asked->done = [](ReadSnapshotRequest* done) {
    auto* one = static_cast<AskedReading*>(done);
    EngineService& self = *one->service;
    const std::unique_ptr<AskedReading> owned = TakeFrom(&self.readings_, one);
    self.events_.Emit(
        owned->status.ok()
            ? ReplyTo(owned->number,
                      Json::Object().Set("export", owned->name).Set("sizeBytes", owned->size_bytes))
            : ReplyTo(owned->number, owned->status));
  };
  readings_.push_back(std::move(asked));
  engine_->ReadSnapshot(readings_.back().get());
}

// Asked before a snapshot is to be deleted.
void EngineService::CheckUnread(int64_t request, const Json& message) {
  const Result<std::string> layer = message.String("layer");
  Status status = layer.status();
  if (layer.ok() && engine_->IsRead(layer.value())) {
    status = {ErrorCode::kBusy,
              "snapshot " + layer.value() + " is being read by a client, as for an export"};
  }
  events_.Emit(status.ok() ? ReplyTo(request, Json::Object()) : ReplyTo(request, status));
}

void EngineService::Answer(Asked* asked) {
  const std::unique_ptr<Asked> owned = TakeFrom(&asked_, asked);
  if (!owned->status.ok()) {
    events_.Emit(ReplyTo(owned->number, owned->status));
    return;
  }
  Json result = Json::Object().Set("members", static_cast<uint64_t>(owned->members));
  const bool paused =
      owned->what == SnapshotRequest::What::kTake || owned->what == SnapshotRequest::What::kRevert;
  if (paused) result.Set("pauseNs", owned->pause_ns);
  if (owned->what == SnapshotRequest::What::kList) {
    Json layers = Json::Array();
    for (const wire::LayerEntry& layer : owned->layers) layers.Append(LayerToJson(layer));
    result.Set("layers", std::move(layers));
  }
  events_.Emit(ReplyTo(owned->number, std::move(result)));
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
