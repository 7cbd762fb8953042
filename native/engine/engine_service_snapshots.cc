#include <algorithm>
#include <utility>

#include "engine/engine_config.h"
#include "engine/engine_service.h"
#include "nbd/server.h"

// What is asked of an engine about snapshots.
namespace ankole::engine {
namespace {

// Of requests about snapshots at once: they are served one after the other.
constexpr size_t kSnapshotRequestsMax = 64;

Status TooMany() { return {ErrorCode::kBusy, "too many requests about snapshots wait already"}; }

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

}  // namespace ankole::engine
