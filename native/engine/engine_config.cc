#include "engine/engine_config.h"

#include <algorithm>

#include "engine/engine_service.h"
#include "scsi/logical_unit.h"

namespace ankole::engine {
namespace {

// A UUID has 36; VPD page 80h takes more.
constexpr size_t kSerialBytesMax = 64;

Result<wire::Epoch> EpochFromJson(const Json& json) {
  Result<int64_t> attachment = json.Integer("attachment", 0, kIntegerMax);
  if (!attachment.ok()) return attachment.status().Within("epoch");
  Result<int64_t> run = json.Integer("run", 0, kIntegerMax);
  if (!run.ok()) return run.status().Within("epoch");
  return wire::Epoch{static_cast<uint64_t>(attachment.value()), static_cast<uint64_t>(run.value())};
}

}  // namespace

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

Json EpochToJson(const wire::Epoch& epoch) {
  return Json::Object().Set("attachment", epoch.attachment).Set("run", epoch.run);
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

}  // namespace ankole::engine
