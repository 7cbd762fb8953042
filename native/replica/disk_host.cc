#include "replica/disk_host.h"

#include <algorithm>

#include "base/limits.h"
#include "base/mutant.h"
#include "replica/control_job.h"

namespace ankole::replica {
namespace {

constexpr size_t kListenersMax = 8;
// A stop waits as long for engines to take their answers; what is at the storage is waited for
// anyway.
constexpr uint64_t kStopLimitNs = 2 * kNsPerSecond;
constexpr uint64_t kAcceptRetryNs = 100 * kNsPerMs;
constexpr uint64_t kRefusedLogIntervalNs = 10 * kNsPerSecond;

Status Bad(const std::string& field, const std::string& why) {
  return {ErrorCode::kInvalidArgument, "\"" + field + "\": " + why};
}

}  // namespace

Result<DiskHostConfig> DiskHostConfig::Parse(const Json& json) {
  if (!json.is_object()) {
    return Status(ErrorCode::kInvalidArgument, "the disk host's configuration is not an object");
  }
  DiskHostConfig config;
  Result<std::string> disk = json.String("disk");
  if (!disk.ok()) return disk.status();
  if (disk.value().empty()) return Bad("disk", "is empty");
  config.disk = disk.Take();
  Result<std::string> directory = json.String("directory");
  if (!directory.ok()) return directory.status();
  config.directory = directory.Take();
  while (config.directory.size() > 1 && config.directory.ends_with('/')) {
    config.directory.pop_back();
  }
  if (!config.directory.starts_with('/')) return Bad("directory", "is not an absolute path");
  const Json* listen = json.Find("listen");
  if (listen == nullptr || !listen->is_array() || listen->items().empty() ||
      listen->items().size() > kListenersMax) {
    return Bad("listen", "is not an array of 1 to " + std::to_string(kListenersMax) + " addresses");
  }
  for (const Json& item : listen->items()) {
    Result<std::string> text = item.AsString("listen");
    if (!text.ok()) return text.status();
    Result<io::Address> address = io::Address::Parse(text.value());
    if (!address.ok()) return address.status().Within("\"listen\"");
    config.listen.push_back(address.Take());
  }
  Result<std::string> backend = json.String("ioBackend", "auto");
  if (!backend.ok()) return backend.status();
  Result<io::Backend> parsed = io::ParseBackend(backend.value());
  if (!parsed.ok()) return parsed.status().Within("\"ioBackend\"");
  config.io_backend = parsed.value();
  return config;
}

DiskHost::DiskHost(io::Reactor& reactor, EventSink& events, DiskHostConfig config)
    : reactor_(reactor), events_(events), config_(std::move(config)) {
  stop_limit_.owner = this;
  stop_limit_.done = [](io::Operation* timer) {
    auto* self = static_cast<DiskHost*>(timer->owner);
    for (Session* session = self->sessions_.front(); session != nullptr;
         session = self->sessions_.Next(session)) {
      session->Close({ErrorCode::kUnavailable, "the disk host stops"});
    }
  };
}

DiskHost::~DiskHost() {
  // The loop has ended: nothing is in flight, but connections may be open where it ended hard.
  if (disk_lock_.valid()) reactor_.files().Close(disk_lock_);
}

// --- start
// -----------------------------------------------------------------------------------------

void DiskHost::Start() {
  const io::BackendChoice& backend = reactor_.backend();
  events_.Emit(Json::Object()
                   .Set("event", "io-backend")
                   .Set("backend", io::BackendName(backend.backend))
                   .Set("reason", backend.reason));
  struct Outcome {
    Status status;
    io::File lock;
    std::vector<FoundReplica> found;
    std::vector<std::string> strangers;
  };
  auto outcome = std::make_shared<Outcome>();
  RunJob(
      [this, outcome] {
        Result<io::File> lock = TakeDisk(reactor_.files(), config_.directory);
        if (!lock.ok()) {
          outcome->status = lock.status();
          return;
        }
        outcome->lock = lock.value();
        Result<std::vector<FoundReplica>> found =
            FindReplicas(reactor_.files(), config_.directory, &outcome->strangers);
        if (found.ok()) {
          outcome->found = found.Take();
        } else {
          outcome->status = found.status();
        }
      },
      [this, outcome] {
        disk_lock_ = outcome->lock;
        if (outcome->status.ok()) {
          OnDiskTaken(outcome->found, outcome->strangers);
        } else {
          OnDiskTaken(outcome->status, {});
        }
      });
}

void DiskHost::OnDiskTaken(const Result<std::vector<FoundReplica>>& found,
                           const std::vector<std::string>& strangers) {
  if (mode_ != Mode::kStarting) return;  // stopped meanwhile
  if (!found.ok()) {
    Fail(found.status());
    return;
  }
  for (const std::string& name : strangers) {
    events_.Log(LogLevel::kWarn, config_.directory + "/" + std::string(kReplicasName) + "/" + name +
                                     " is no replica (<volume>-<16 hex digits>) and is left alone");
  }
  for (const FoundReplica& replica : found.value()) {
    auto served = std::make_unique<ServedReplica>(reactor_, events_, replica.volume, replica.id,
                                                  replica.directory);
    if (replica.failure.ok()) {
      served->SetIdentity(replica.identity);
    } else {
      served->SetFailure(replica.failure);
    }
    replicas_[{replica.volume, replica.id}] = std::move(served);
  }
  if (const Status listening = Listen(); !listening.ok()) {
    Fail(listening);
    return;
  }
  mode_ = Mode::kServing;
  Json addresses = Json::Array();
  for (const auto& listener : listeners_) {
    addresses.Append(listener->bound.ToString());
    Accept(listener.get());
  }
  events_.Emit(Json::Object().Set("event", "listening").Set("addresses", std::move(addresses)));
}

void DiskHost::Fail(const Status& why) {
  events_.Emit(Json::Object()
                   .Set("event", "failed")
                   .Set("code", ErrorCodeName(why.code()))
                   .Set("message", why.message()));
  Stop();
}

Status DiskHost::Listen() {
  for (const io::Address& address : config_.listen) {
    auto listener = std::make_unique<Listener>();
    Result<io::Socket> socket = reactor_.Listen(address, &listener->bound);
    if (!socket.ok()) {
      return socket.status().Within("disk host of " + config_.directory + " cannot listen on " +
                                    address.ToString());
    }
    listener->host = this;
    listener->accept.listener = listener->close.socket = socket.value();
    listener->accept.owner = listener->close.owner = listener->retry.owner = listener.get();
    listener->accept.done = [](io::Operation* operation) {
      auto* self = static_cast<Listener*>(operation->owner);
      self->host->OnAccepted(self);
    };
    listener->close.done = [](io::Operation* operation) {
      auto* self = static_cast<Listener*>(operation->owner);
      self->closed = true;
      self->host->StopWhenDone();
    };
    listener->retry.done = [](io::Operation* operation) {
      auto* self = static_cast<Listener*>(operation->owner);
      self->host->Accept(self);
    };
    listeners_.push_back(std::move(listener));
  }
  return Status::Ok();
}

void DiskHost::Accept(Listener* listener) {
  if (mode_ == Mode::kServing) reactor_.Accept(&listener->accept);
}

void DiskHost::OnAccepted(Listener* listener) {
  const int64_t result = listener->accept.result;
  if (result < 0) {
    if (mode_ != Mode::kServing) return;
    // Out of descriptors, most likely: those that are open go on.
    events_.Log(LogLevel::kError,
                Status::FromErrno(static_cast<int>(-result),
                                  "cannot accept on " + listener->bound.ToString())
                    .message());
    reactor_.Arm(&listener->retry, reactor_.NowNs() + kAcceptRetryNs);
    return;
  }
  const io::Socket socket = listener->accept.accepted;
  const uint64_t now_ns = reactor_.NowNs();
  const bool full = sessions_.size() >= kDiskHostSessionsMax;
  if (full && (refused_logged_ns_ == 0 || now_ns - refused_logged_ns_ > kRefusedLogIntervalNs)) {
    refused_logged_ns_ = now_ns;
    events_.Log(LogLevel::kError, "connection from " + listener->accept.peer + " refused: " +
                                      std::to_string(kDiskHostSessionsMax) + " are open");
  }
  if (full || mode_ != Mode::kServing) {
    auto* close = new io::CloseOperation();
    close->socket = socket;
    close->done = [](io::Operation* operation) {
      delete static_cast<io::CloseOperation*>(operation);
    };
    reactor_.Close(close);
  } else {
    auto* session = new Session(reactor_, *this, listener->accept.peer);
    sessions_.PushBack(session);
    session->Start(socket);
  }
  Accept(listener);
}

Result<ServedReplica*> DiskHost::FindReplica(const std::string& volume, wire::ReplicaId id) {
  const auto found = replicas_.find({volume, id});
  if (found == replicas_.end()) {
    return Status(ErrorCode::kNotFound, "disk " + config_.disk + " has no replica " +
                                            wire::ReplicaIdText(id) + " of volume " + volume);
  }
  ServedReplica* replica = found->second.get();
  if (!replica->has_identity()) {
    LookAgain(replica);
    return Status(replica->failure().code(),
                  replica->Name() + " cannot be read; the disk host's log says why");
  }
  if (replica->ending()) {
    return Status(ErrorCode::kUnavailable, replica->Name() + " is being closed");
  }
  return replica;
}

// Its files could not be read: the disk may have recovered since. What is asked for is tried again,
// ever more seldom.
void DiskHost::LookAgain(ServedReplica* served) {
  if (mode_ != Mode::kServing || served->ending() || !served->MayLookAgain()) return;
  auto found = std::make_shared<FoundReplica>();
  found->volume = served->volume();
  found->id = served->id();
  found->directory = served->directory();
  RunJob([this, found] { ReadFound(reactor_.files(), found.get()); },
         [this, found] {
           const auto at = replicas_.find({found->volume, found->id});
           if (at == replicas_.end() || at->second->has_identity()) return;  // made anew meanwhile
           at->second->LookedAgain();
           if (!found->failure.ok()) {
             at->second->SetFailure(found->failure);
             return;
           }
           at->second->SetIdentity(found->identity);
           events_.Log(LogLevel::kInfo, at->second->Name() + " can be read again");
         });
}

void DiskHost::OnSessionGone(Session* session) {
  sessions_.Remove(session);
  delete session;
  StopWhenDone();
}

// --- requests
// --------------------------------------------------------------------------------------

void DiskHost::OnMessage(const Json& message) {
  Result<int64_t> request = message.is_object()
                                ? message.Integer("request", 0, INT64_MAX)
                                : Status(ErrorCode::kInvalidArgument, "it is not an object");
  if (!request.ok()) {
    events_.Log(LogLevel::kError, "control message: " + request.status().message());
    return;
  }
  Result<std::string> op = message.String("op");
  const Status status = op.ok() ? OnRequest(request.value(), op.value(), message) : op.status();
  if (!status.ok()) events_.Emit(ReplyTo(request.value(), status));
}

Status DiskHost::OnRequest(int64_t request, const std::string& op, const Json& message) {
  if (op == "stop") {
    stop_requests_.push_back(request);
    Stop();
    return Status::Ok();
  }
  if (mode_ != Mode::kServing) {
    return {ErrorCode::kUnavailable,
            mode_ == Mode::kStarting ? "the disk host is starting" : "the disk host stops"};
  }
  if (op == "create-replica" || op == "remove-replica") {
    Result<Change> change = ParseChange(request, op == "create-replica", message);
    if (!change.ok()) return change.status();
    changes_.push_back(change.Take());
    NextChange();
    return Status::Ok();
  }
  if (op == "list-replicas") {
    ListReplicas(request);
    return Status::Ok();
  }
  if (op == "space") {
    AnswerSpace(request);
    return Status::Ok();
  }
  if (op == "usage") {
    AnswerUsage(request);
    return Status::Ok();
  }
  if (op == "counters") {
    events_.Emit(ReplyTo(request, CountersJson()));
    return Status::Ok();
  }
  return Bad("op", "\"" + op.substr(0, 64) + "\" is not known to a disk host");
}

Result<DiskHost::Change> DiskHost::ParseChange(int64_t request, bool create,
                                               const Json& message) const {
  Change change;
  change.request = request;
  change.create = create;
  Result<std::string> volume = message.String("volume");
  if (!volume.ok()) return volume.status();
  if (const Status status = CheckVolumeName(volume.value()); !status.ok()) {
    return status.Within("\"volume\"");
  }
  change.identity.volume = volume.Take();
  Result<std::string> id_text = message.String("id");
  if (!id_text.ok()) return id_text.status();
  Result<wire::ReplicaId> id = wire::ParseReplicaId(id_text.value());
  if (!id.ok()) return id.status().Within("\"id\"");
  change.identity.id = id.value();
  if (!create) return change;
  Result<int64_t> size = message.Integer("sizeBytes", static_cast<int64_t>(kVolumeBytesMin),
                                         static_cast<int64_t>(kVolumeBytesMax));
  if (!size.ok()) return size.status();
  change.size_bytes = static_cast<uint64_t>(size.value());
  if (const Status status = CheckVolumeSize(change.size_bytes); !status.ok()) {
    return status.Within("\"sizeBytes\"");
  }
  Result<std::string> secret_text = message.String("secret");
  if (!secret_text.ok()) return secret_text.status();
  Result<Secret> secret = ParseSecret(secret_text.value());
  if (!secret.ok()) return secret.status().Within("\"secret\"");
  change.identity.secret = secret.value();
  Result<std::string> cache_text = message.String("cache", "buffered");
  if (!cache_text.ok()) return cache_text.status();
  Result<CacheMode> cache = ParseCacheMode(cache_text.value());
  if (!cache.ok()) return cache.status().Within("\"cache\"");
  change.identity.cache = cache.value();
  Result<bool> checksums = message.Bool("checksums", true);
  if (!checksums.ok()) return checksums.status();
  change.identity.checksums = checksums.value();
  if (const Json* adopt = message.Find("adopt"); adopt != nullptr && !adopt->is_null()) {
    RETURN_IF_ERROR(ParseAdopt(*adopt, &change).Within("\"adopt\""));
  }
  if (const Json* clone = message.Find("clone"); clone != nullptr && !clone->is_null()) {
    RETURN_IF_ERROR(ParseClone(*clone, &change).Within("\"clone\""));
    if (!change.adopt_from.empty()) return Bad("clone", "what is adopted is no clone");
  }
  return change;
}

Status DiskHost::ParseAdopt(const Json& json, Change* change) {
  if (!json.is_object()) return {ErrorCode::kInvalidArgument, "is not an object"};
  Result<std::string> from = json.String("directory");
  if (!from.ok()) return from.status();
  change->adopt_from = from.Take();
  while (change->adopt_from.size() > 1 && change->adopt_from.ends_with('/')) {
    change->adopt_from.pop_back();
  }
  if (!change->adopt_from.starts_with('/')) return Bad("directory", "is not an absolute path");
  const Json* accept = json.Find("accept");
  if (accept != nullptr && !accept->is_array()) return Bad("accept", "is not an array");
  for (const Json& item : accept == nullptr ? std::vector<Json>() : accept->items()) {
    const Result<std::string> what = item.AsString("accept");
    if (!what.ok()) return what.status();
    RETURN_IF_ERROR(change->adopt.accept.Add(what.value()));
  }
  Result<bool> copied = json.Bool("copied", false);
  if (!copied.ok()) return copied.status();
  change->adopt.longhorn.copied = copied.value();
  Result<bool> read_only = json.Bool("readOnly", true);
  if (!read_only.ok()) return read_only.status();
  change->read_only = read_only.value();
  return Status::Ok();
}

Status DiskHost::ParseClone(const Json& json, Change* change) {
  if (!json.is_object()) return {ErrorCode::kInvalidArgument, "is not an object"};
  Result<std::string> volume = json.String("volume");
  if (!volume.ok()) return volume.status();
  RETURN_IF_ERROR(CheckVolumeName(volume.value()).Within("\"volume\""));
  Result<std::string> replica = json.String("replica");
  if (!replica.ok()) return replica.status();
  const Result<wire::ReplicaId> id = wire::ParseReplicaId(replica.value());
  if (!id.ok()) return id.status().Within("\"replica\"");
  change->clone_source = {volume.Take(), id.value()};
  Result<std::string> layer = json.String("layer");
  if (!layer.ok()) return layer.status();
  if (!IsSnapshotName(SnapshotFileName(layer.value()))) return Bad("layer", "is no layer's name");
  change->clone_layer = layer.Take();
  const Json* members = json.Find("members");
  if (members == nullptr || !members->is_array() || members->items().size() > kReplicasMax) {
    return Bad("members", "is not an array of at most " + std::to_string(kReplicasMax) + " ids");
  }
  for (const Json& item : members->items()) {
    const Result<std::string> text = item.AsString("members");
    if (!text.ok()) return text.status();
    const Result<wire::ReplicaId> member = wire::ParseReplicaId(text.value());
    if (!member.ok()) return member.status().Within("\"members\"");
    change->clone_members.Add(member.value());
  }
  if (change->clone_members.Contains(change->identity.id)) return Status::Ok();
  return Bad("members", "the replica is none of them");
}

void DiskHost::NextChange() {
  if (changing_ || changes_.empty() || mode_ != Mode::kServing) return;
  changing_ = true;
  const Change change = std::move(changes_.front());
  changes_.pop_front();
  if (change.create && !change.clone_layer.empty()) {
    Clone(change);
  } else if (change.create) {
    Create(change);
  } else {
    Remove(change);
  }
}

void DiskHost::FinishChange(int64_t request, const Status& status, Json result) {
  events_.Emit(status.ok() ? ReplyTo(request, std::move(result)) : ReplyTo(request, status));
  changing_ = false;
  NextChange();
  StopWhenDone();
}

// Idempotent: the same replica again is no error, one of the same id that differs is. One that was
// away while its volume grew is smaller, and its engine makes it larger.
void DiskHost::Create(const Change& change) {
  auto wanted = std::make_shared<Change>(change);
  wanted->identity.created_seconds = reactor_.WallClockSeconds();
  auto outcome = std::make_shared<Result<ReplicaDescription>>(ReplicaDescription{});
  const std::string directory =
      ReplicaDirectory(config_.directory, change.identity.volume, change.identity.id);
  RunJob(
      [this, wanted, outcome, directory] {
        const Status created =
            wanted->adopt_from.empty()
                ? Replica::Create(reactor_.files(), directory, wanted->identity, wanted->size_bytes)
                : AdoptReplica(reactor_.files(), wanted->adopt_from, directory, wanted->identity,
                               wanted->size_bytes, wanted->adopt);
        if (!created.ok() && created.code() != ErrorCode::kAlreadyExists) {
          *outcome = created;
          return;
        }
        *outcome = Replica::Describe(reactor_.files(), directory);
      },
      [this, wanted, outcome] { FinishCreate(*wanted, *outcome); });
}

// What is there already is taken as by Create: the snapshot may be gone by then. It may be there by
// an attempt whose end nobody saw: its name must be durable before it counts.
void DiskHost::Clone(const Change& change) {
  auto wanted = std::make_shared<Change>(change);
  wanted->identity.created_seconds = reactor_.WallClockSeconds();
  auto there = std::make_shared<Result<bool>>(false);
  const std::string directory =
      ReplicaDirectory(config_.directory, change.identity.volume, change.identity.id);
  auto describe = [this, wanted, directory] {
    auto outcome = std::make_shared<Result<ReplicaDescription>>(ReplicaDescription{});
    RunJob(
        [this, outcome, directory] { *outcome = Replica::Describe(reactor_.files(), directory); },
        [this, wanted, outcome] { FinishCreate(*wanted, *outcome); });
  };
  RunJob(
      [this, there, directory] {
        if (!reactor_.files().Info(directory).ok()) return;
        *there = true;
        if (Mutant("clone-found-not-synced")) return;
        const Status status =
            reactor_.files().SyncDirectory(Join(config_.directory, kReplicasName));
        if (!status.ok()) *there = status;
      },
      [this, wanted, there, directory, describe] {
        if (!there->ok()) return FinishCreate(*wanted, there->status());
        if (there->value()) return describe();
        Result<ServedReplica*> source =
            mode_ == Mode::kServing
                ? FindReplica(wanted->clone_source.first, wanted->clone_source.second)
                : Status(ErrorCode::kUnavailable, "the disk host stops");
        if (!source.ok()) return FinishCreate(*wanted, source.status());
        CloneTarget target = {.directory = directory,
                              .identity = wanted->identity,
                              .size_bytes = wanted->size_bytes,
                              .record = FirstRecordOfClone(wanted->clone_members),
                              .chain = {}};
        source.value()->Clone(wanted->clone_layer, std::move(target),
                              [this, wanted, describe](const Status& status) {
                                if (status.ok()) return describe();
                                FinishCreate(*wanted, status);
                              });
      });
}

void DiskHost::FinishCreate(const Change& change, const Result<ReplicaDescription>& outcome) {
  const std::string& volume = change.identity.volume;
  const std::string directory = ReplicaDirectory(config_.directory, volume, change.identity.id);
  const std::string name =
      "replica " + wire::ReplicaIdText(change.identity.id) + " of volume " + volume;
  if (!outcome.ok()) {
    FinishChange(change.request, outcome.status().Within("cannot create " + name), {});
    return;
  }
  const ReplicaDescription& description = outcome.value();
  if (description.identity.secret != change.identity.secret ||
      description.identity.cache != change.identity.cache) {
    FinishChange(
        change.request,
        {ErrorCode::kAlreadyExists,
         name + " exists with another " +
             (description.identity.cache == change.identity.cache ? "secret" : "cache mode")},
        {});
    return;
  }
  if (description.adopted && !change.adopt_from.empty() && !change.read_only) {
    return Confirm(change);
  }
  std::unique_ptr<ServedReplica>& served = replicas_[{volume, change.identity.id}];
  if (served == nullptr) {
    served =
        std::make_unique<ServedReplica>(reactor_, events_, volume, change.identity.id, directory);
  }
  if (!served->has_identity()) served->SetIdentity(description.identity);
  FinishChange(change.request, Status::Ok(),
               Json::Object().Set("directory", directory).Set("readOnly", description.adopted));
}

// The replica may be written to from now on. It is opened anew: an engine that has it open was told
// that it may not.
void DiskHost::Confirm(const Change& change) {
  const Key key = {change.identity.volume, change.identity.id};
  auto confirm = [this, change, key] {
    replicas_.erase(key);
    auto wanted = std::make_shared<Change>(change);
    auto confirmed = std::make_shared<Status>();
    auto outcome = std::make_shared<Result<ReplicaDescription>>(ReplicaDescription{});
    const std::string directory = ReplicaDirectory(config_.directory, key.first, key.second);
    RunJob(
        [this, confirmed, outcome, directory] {
          *confirmed = ConfirmAdopted(reactor_.files(), directory);
          *outcome = Replica::Describe(reactor_.files(), directory);
        },
        [this, wanted, confirmed, outcome] {
          // Where that failed it goes on as it was, and is confirmed when that is asked for again.
          wanted->read_only = !confirmed->ok();
          FinishCreate(*wanted, *outcome);
        });
  };
  const auto found = replicas_.find(key);
  if (found == replicas_.end()) return confirm();
  ServedReplica* served = found->second.get();
  ++replicas_ending_;
  served->CloseSessions({ErrorCode::kUnavailable, served->Name() + " is made writable"});
  served->End([this, confirm](const Status&) {
    --replicas_ending_;
    confirm();
  });
}

void DiskHost::Remove(const Change& change) {
  const Key key = {change.identity.volume, change.identity.id};
  const std::string directory = ReplicaDirectory(config_.directory, key.first, key.second);
  const int64_t request = change.request;
  auto destroy = [this, key, directory, request] {
    replicas_.erase(key);
    auto status = std::make_shared<Status>();
    RunJob([this, status, directory] { *status = Replica::Destroy(reactor_.files(), directory); },
           [this, status, key, directory, request] {
             if (!status->ok()) {
               // It is still there: served again, so that it can be removed again.
               auto served = std::make_unique<ServedReplica>(reactor_, events_, key.first,
                                                             key.second, directory);
               served->SetFailure(*status);
               replicas_[key] = std::move(served);
             }
             FinishChange(request, *status, Json::Object());
           });
  };
  const auto found = replicas_.find(key);
  if (found == replicas_.end()) {
    destroy();
    return;
  }
  ServedReplica* served = found->second.get();
  ++replicas_ending_;
  served->CloseSessions({ErrorCode::kNotFound, served->Name() + " is removed"});
  served->End([this, destroy](const Status&) {
    --replicas_ending_;
    destroy();
  });
}

void DiskHost::ListReplicas(int64_t request) {
  struct Row {
    Key key;
    std::string directory;
    uint64_t size_bytes = 0;
    uint64_t allocated_bytes = 0;
    uint64_t dirty_regions = 0;
    bool read_only = false;
    Status failure;
  };
  auto rows = std::make_shared<std::vector<Row>>();
  for (const auto& [key, served] : replicas_)
    rows->push_back({key, served->directory(), 0, 0, 0, false, {}});
  RunJob(
      [this, rows] {
        for (Row& row : *rows) {
          Result<ReplicaDescription> description =
              Replica::Describe(reactor_.files(), row.directory);
          if (!description.ok()) {
            row.failure = description.status();
            continue;
          }
          row.size_bytes = description.value().size_bytes;
          row.allocated_bytes = description.value().allocated_bytes;
          row.dirty_regions = description.value().dirty_regions;
          row.read_only = description.value().adopted;
        }
      },
      [this, rows, request] {
        Json replicas = Json::Array();
        for (const Row& row : *rows) {
          const auto found = replicas_.find(row.key);
          if (found == replicas_.end()) continue;  // removed meanwhile
          const ServedReplica& served = *found->second;
          const Status& failure = served.failure().ok() ? row.failure : served.failure();
          replicas.Append(Json::Object()
                              .Set("volume", row.key.first)
                              .Set("id", wire::ReplicaIdText(row.key.second))
                              .Set("directory", row.directory)
                              .Set("sizeBytes", row.size_bytes)
                              .Set("allocatedBytes", row.allocated_bytes)
                              .Set("readOnly", row.read_only)
                              .Set("dirtyRegions", served.is_open()
                                                       ? served.regions().dirty_regions()
                                                       : row.dirty_regions)
                              .Set("state", served.is_open() ? "open"
                                            : failure.ok()   ? "closed"
                                                             : "failed")
                              .Set("error", served.is_open() ? "" : failure.message()));
        }
        events_.Emit(ReplyTo(request, Json::Object().Set("replicas", std::move(replicas))));
      });
}

void DiskHost::AnswerSpace(int64_t request) {
  auto space = std::make_shared<Result<io::SpaceInfo>>(io::SpaceInfo{});
  RunJob([this, space] { *space = reactor_.files().Space(config_.directory); },
         [this, space, request] {
           events_.Emit(space->ok()
                            ? ReplyTo(request, Json::Object()
                                                   .Set("totalBytes", space->value().total_bytes)
                                                   .Set("freeBytes", space->value().free_bytes))
                            : ReplyTo(request, space->status()));
         });
}

// How much is dirty, and how much each replica that is away misses (rule 5).
static Json RegionsJson(const RegionMap& regions) {
  Json missing = Json::Array();
  for (size_t slot = 0; slot < regions.slots().size(); ++slot) {
    const wire::ReplicaId id = regions.slots()[slot].id;
    if (id == 0) continue;
    missing.Append(Json::Object()
                       .Set("replica", wire::ReplicaIdText(id))
                       .Set("regions", regions.Count(MissingBit(slot))));
  }
  return Json::Object().Set("dirty", regions.dirty_regions()).Set("missing", std::move(missing));
}

Json DiskHost::CountersJson() const {
  Json replicas = Json::Array();
  for (const auto& [key, served] : replicas_) {
    const SumCounters sums = served->sum_counters();
    Json replica = Json::Object()
                       .Set("volume", key.first)
                       .Set("id", wire::ReplicaIdText(key.second))
                       .Set("operations", served->counters().ToJson())
                       .Set("checksums", Json::Object()
                                             .Set("errors", sums.errors)
                                             .Set("pagesDamaged", sums.pages_damaged)
                                             .Set("pagesDropped", sums.pages_dropped));
    if (served->is_open()) replica.Set("regions", RegionsJson(served->regions()));
    replicas.Append(std::move(replica));
  }
  return Json::Object()
      .Set("disk", config_.disk)
      .Set("ioBackend", io::BackendName(reactor_.backend().backend))
      .Set("bucketBoundsSeconds", LatencyHistogram::BoundsSeconds())
      .Set("replicas", std::move(replicas));
}

void DiskHost::RunJob(std::function<void()> work, std::function<void()> then) {
  ++jobs_;
  RunControlJob(reactor_, std::move(work), [this, then = std::move(then)] {
    then();
    --jobs_;
    StopWhenDone();
  });
}

// --- stop
// ------------------------------------------------------------------------------------------

void DiskHost::Stop() {
  if (mode_ == Mode::kStopping || mode_ == Mode::kStopped) return;
  mode_ = Mode::kStopping;
  for (const Change& change : std::exchange(changes_, {})) {
    events_.Emit(ReplyTo(change.request, {ErrorCode::kUnavailable, "the disk host stops"}));
  }
  for (const auto& listener : listeners_) {
    reactor_.Cancel(&listener->retry);
    reactor_.Close(&listener->close);
  }
  for (Session* session = sessions_.front(); session != nullptr;
       session = sessions_.Next(session)) {
    session->Drain();
  }
  ++replicas_ending_;  // nothing is done before all were told
  for (const auto& [key, served] : replicas_) {
    if (served->ending()) continue;  // it is being removed
    ++replicas_ending_;
    served->End([this](const Status& status) {
      --replicas_ending_;
      if (!status.ok()) clean_ = false;
      StopWhenDone();
    });
  }
  --replicas_ending_;
  reactor_.Arm(&stop_limit_, reactor_.NowNs() + kStopLimitNs);
  StopWhenDone();
}

void DiskHost::StopWhenDone() {
  if (mode_ != Mode::kStopping) return;
  const bool listening = std::any_of(listeners_.begin(), listeners_.end(),
                                     [](const auto& listener) { return !listener->closed; });
  if (listening || !sessions_.empty() || replicas_ending_ > 0 || jobs_ > 0 || changing_) return;
  mode_ = Mode::kStopped;
  reactor_.Cancel(&stop_limit_);
  if (disk_lock_.valid()) reactor_.files().Close(std::exchange(disk_lock_, {}));
  for (const int64_t request : stop_requests_) events_.Emit(ReplyTo(request, Json::Object()));
  events_.Emit(Json::Object().Set("event", "stopped").Set("clean", clean_));
  reactor_.Stop();
}

}  // namespace ankole::replica
