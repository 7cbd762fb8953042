#include <algorithm>
#include <set>

#include "engine/snapshotter.h"

// What is not the taking of a snapshot: deleting, listing, and seeing to it that members have the
// same.
namespace ankole::engine {
namespace {

constexpr uint64_t kAgainNs = 5 * kNsPerSecond;
// Where a member was away, or left.
constexpr uint64_t kSoonNs = kNsPerSecond / 2;

// As its snapshot shows it; null: it has none of that name.
const wire::LayerEntry* Find(const std::vector<wire::LayerEntry>& layers, const std::string& name) {
  for (const wire::LayerEntry& layer : layers) {
    if (layer.name == name && !layer.removed) return &layer;
  }
  return nullptr;
}

}  // namespace

// --- deleting, listing
// --------------------------------------------------------------------------------------------

void Snapshotter::Deleted() {
  const Status outcome = RoundOutcome().Within("snapshot " + request_->name);
  // As long as a record is proposed another engine may start on members that have it still.
  if (outcome.ok() && !host_.Settled()) return;  // again by OnMembers
  if (!outcome.ok()) {
    // Some may have deleted it.
    matched_ = false;
    match_again_ns_ = host_.reactor().NowNs() + kAgainNs;
  } else {
    request_->members = host_.members().count;
    host_.log().Log(LogLevel::kInfo, "snapshot " + request_->name + " was deleted");
  }
  Finish(outcome);
}

// False: none can be asked now.
bool Snapshotter::ListAtOne() {
  for (const auto& link : host_.links()) {
    if (!host_.IsStaying(link->index()) || !link->up()) continue;
    reader_.Read(link.get(), [](LayerReader* self, ErrorCode status) {
      static_cast<Snapshotter*>(self->owner)->OnListed(status);
    });
    return true;
  }
  return false;
}

void Snapshotter::OnListed(ErrorCode status) {
  if (phase_ != Phase::kListing) return Next();
  if (status == ErrorCode::kConnectionLost) return;  // another one is asked by Look
  if (status == ErrorCode::kOk) {
    request_->layers = reader_.layers();
    request_->members = host_.members().count;
    return Finish(Status::Ok());
  }
  Finish({status, "replica " + wire::ReplicaIdText(reader_.link()->replica()) +
                      " does not tell its layers: " + ErrorCodeName(status)});
}

// --- members have the same
// --------------------------------------------------------------------------------------------

void Snapshotter::Compare() {
  phase_ = Phase::kComparing;
  found_.clear();
  compared_ = 0;
  CompareNext();
}

void Snapshotter::CompareNext() {
  const auto links = host_.links();
  while (compared_ < links.size() && !host_.IsMember(compared_)) ++compared_;
  if (compared_ == links.size()) {
    Plan();
    return;
  }
  reader_.Read(links[compared_].get(), [](LayerReader* self, ErrorCode status) {
    static_cast<Snapshotter*>(self->owner)->OnCompared(status);
  });
}

void Snapshotter::OnCompared(ErrorCode status) {
  if (phase_ != Phase::kComparing) return Next();
  const wire::ReplicaId id = reader_.link()->replica();
  if (status != ErrorCode::kOk) {
    EndMatching({status, "replica " + wire::ReplicaIdText(id) +
                             " does not tell its layers: " + ErrorCodeName(status)});
    return;
  }
  found_[id] = reader_.layers();
  ++compared_;
  CompareNext();
}

// Rule 8. What has a name that counts is sealed at all members. A snapshot that some have deleted
// goes at the others; so does one that nobody has sealed, as nobody was told of it. Where one
// member has sealed it, all had flushed it.
void Snapshotter::Plan() {
  const wire::Members& members = host_.members();
  steps_.clear();
  flush_first_ = false;
  std::set<std::string> names;
  for (const wire::ReplicaId id : members.all()) {
    const auto found = found_.find(id);
    if (found == found_.end()) {
      EndMatching({ErrorCode::kCancelled, "the members changed"});
      return;
    }
    // One that knows of no layers has no snapshots to be matched, and none can be taken.
    if (found->second.empty()) return Match();
    for (const wire::LayerEntry& layer : found->second) {
      if (!layer.name.empty()) names.insert(layer.name);
    }
  }
  for (const std::string& name : names) {
    wire::Members have;
    wire::Members unsealed;
    for (const wire::ReplicaId id : members.all()) {
      const wire::LayerEntry* layer = Find(found_[id], name);
      if (layer == nullptr) continue;
      have.Add(id);
      if (!layer->sealed) unsealed.Add(id);
    }
    if (have.count == 0) continue;  // it waits to be merged
    if (have.count < members.count || unsealed.count == members.count) {
      host_.log().Log(LogLevel::kWarn,
                      "snapshot " + name + " is deleted: " +
                          (have.count < members.count ? "some members do not have it any more"
                                                      : "it was never finished"));
      steps_.push_back({wire::Opcode::kDelete, name, have});
    } else if (unsealed.count > 0) {
      host_.log().Log(LogLevel::kInfo, "snapshot " + name + " is finished at all members");
      steps_.push_back({wire::Opcode::kSeal, name, unsealed});
      flush_first_ = true;
    }
  }
  Match();
}

void Snapshotter::Match() {
  phase_ = Phase::kMatching;
  if (flush_first_) {
    Flush();
  } else if (steps_.empty()) {
    EndMatching(Status::Ok());
  } else {
    const Step& step = steps_.back();
    // One that nobody reads any more is closed; else the members say that it is being read.
    bool soon = false;
    if (step.opcode == wire::Opcode::kDelete) engine_.ReleaseView(step.name, &soon);
    BeginRound(step.opcode, step.name, step.at);
  }
}

void Snapshotter::EndMatching(const Status& status) {
  phase_ = Phase::kIdle;
  due_ = flush_due_ = false;
  matched_ = status.ok();
  steps_.clear();
  found_.clear();
  if (!matched_) {
    const bool soon =
        status.code() == ErrorCode::kConnectionLost || status.code() == ErrorCode::kCancelled;
    match_again_ns_ = host_.reactor().NowNs() + (soon ? kSoonNs : kAgainNs);
    host_.log().Log(LogLevel::kWarn,
                    "members cannot be given the same snapshots yet: " + status.message());
  }
  Next();
}

}  // namespace ankole::engine
