#include <string>
#include <utility>

#include "engine/joiner.h"

// A joiner gets the snapshots that it lacks (rule 8). docs/internals/snapshots.md tells how.
namespace ankole::engine {
namespace {

const char* StepText(wire::Opcode opcode) {
  switch (opcode) {
    case wire::Opcode::kPrepare:
      return " cannot be prepared there: ";
    case wire::Opcode::kSwitch:
      return " cannot be made there: ";
    case wire::Opcode::kDelete:
      return " cannot be deleted there: ";
    default:
      return " cannot be synced there: ";
  }
}

// What its members' snapshots do is no fault of the joiner.
ErrorCode OfMember(ErrorCode status) {
  const bool soon = status == ErrorCode::kNotFound || status == ErrorCode::kBusy ||
                    status == ErrorCode::kConnectionLost || status == ErrorCode::kInvalidArgument;
  return soon ? ErrorCode::kCancelled : status;
}

}  // namespace

// --- which it lacks
// --------------------------------------------------------------------------------------------

void Joiner::AskLayers() {
  phase_ = Phase::kLayers;
  Link* member = StayingMember();
  if (member == nullptr) {
    LetGo({ErrorCode::kCancelled, "no member can be asked for its snapshots"});
    return;
  }
  ReadLayers(member);
}

void Joiner::ReadLayers(Link* link) {
  layer_reader_.Read(link, [](LayerReader* self, ErrorCode status) {
    static_cast<Joiner*>(self->owner)->OnLayers(status);
  });
}

// A member has every snapshot that others have. One that differs must not become a member, whatever
// its head is made equal to.
void Joiner::OnLayers(ErrorCode status) {
  if (phase_ != Phase::kLayers) return Next();
  const bool own = layer_reader_.link() == link_;
  if (status != ErrorCode::kOk) {
    LetGo({own ? status : ErrorCode::kCancelled,
           std::string(own ? "it does not tell its snapshots: "
                           : "a member does not tell its snapshots: ") +
               ErrorCodeName(status)});
    return;
  }
  if (!own) {
    member_layers_ = layer_reader_.layers();
    ReadLayers(link_);
    return;
  }
  Result<LayerPlan> plan =
      PlanLayers(member_layers_, layer_reader_.layers(), state_.records.current.newest_snapshot);
  member_layers_.clear();
  if (!plan.ok()) {
    const bool soon = plan.status().code() == ErrorCode::kBusy;
    LetGo({soon ? ErrorCode::kCancelled : plan.status().code(), plan.status().message()});
    return;
  }
  plan_ = plan.Take();
  view_next_ = 0;
  if (plan_.nothing()) {
    AskMaps(Phase::kMaps);
  } else {
    MakeRoom();
  }
}

// --- what is done to its layers
// --------------------------------------------------------------------------------------------

// What must go goes first. A layer right under the head, of a name that is needed, is merged with
// another one that is put on it for that alone.
void Joiner::MakeRoom() {
  phase_ = Phase::kRoom;
  steps_.clear();
  if (plan_.blocked) {
    LayerStep step;
    const wire::Epoch epoch = host_.complete().epoch;
    step.layer.name = "resync-" + std::to_string(epoch.attachment) + "-" +
                      std::to_string(epoch.run) + "-" + std::to_string(host_.NewTag());
    step.layer.created_seconds = host_.reactor().WallClockSeconds();
    for (const wire::Opcode opcode :
         {wire::Opcode::kDelete, wire::Opcode::kSwitch, wire::Opcode::kPrepare}) {
      step.opcode = opcode;
      steps_.push_back(step);
    }
  }
  for (size_t i = plan_.deletes.size(); i-- > 0;) {
    LayerStep step;
    step.layer.name = plan_.deletes[i];
    steps_.push_back(step);
  }
  host_.log().Log(LogLevel::kInfo, "replica " + wire::ReplicaIdText(link_->replica()) + " lacks " +
                                       std::to_string(plan_.missing.size()) + " snapshots" +
                                       (plan_.base.empty() ? "" : " after " + plan_.base) +
                                       ", and has " + std::to_string(plan_.deletes.size()) +
                                       " that are deleted");
  NextStep();
}

void Joiner::OnDeleted(const std::string& name) {
  if (phase_ >= Phase::kLayers && phase_ < Phase::kProposed) deleted_.push_back(name);
}

// As a member it would bring them back.
void Joiner::DeleteThere() {
  phase_ = Phase::kDeletes;
  steps_.clear();
  for (std::string& name : deleted_) {
    LayerStep step;
    step.layer.name = std::move(name);
    steps_.push_back(std::move(step));
  }
  deleted_.clear();
  NextStep();
}

void Joiner::NextStep() {
  if (steps_.empty()) {
    StepsDone();
  } else {
    SendStep();
  }
}

void Joiner::SendStep() {
  const LayerStep& step = steps_.back();
  step_due_ = false;
  if (step.opcode == wire::Opcode::kPrepare) {
    wire::PrepareRequest prepare;
    prepare.name = step.layer.name;
    prepare.labels = step.labels;
    prepare.user_created = step.layer.user_created;
    prepare.created_seconds = step.layer.created_seconds;
    step_payload_.resize(wire::kPrepareBytesMax);
    step_payload_.resize(wire::EncodePrepare(prepare, step_payload_.data()));
  } else if (step.opcode == wire::Opcode::kFlush) {
    step_payload_.clear();
  } else {
    step_payload_.resize(wire::kLayerNameBytes);
    wire::EncodeLayerName(step.layer.name, step_payload_.data());
  }
  step_.link = link_;
  step_.opcode = step.opcode;
  step_.payload = step_payload_.data();
  step_.payload_bytes = static_cast<uint32_t>(step_payload_.size());
  host_.SendErrand(&step_);
}

void Joiner::OnStep() {
  const bool waited =
      step_.link == link_ && !steps_.empty() &&
      (phase_ == Phase::kRoom || phase_ == Phase::kViewFreeze || phase_ == Phase::kDeletes);
  if (!waited) return Next();
  const LayerStep& step = steps_.back();
  switch (step_.status) {
    case ErrorCode::kOk:
      steps_.pop_back();
      NextStep();
      return;
    case ErrorCode::kConnectionLost:
      return;  // it is let go by OnLost
    case ErrorCode::kAlreadyExists:
      if (step.opcode == wire::Opcode::kPrepare && phase_ == Phase::kViewFreeze) {
        step_due_ = true;  // once more by Look: one of that name is being merged
        return;
      }
      [[fallthrough]];
    default:
      LetGo({step_.status,
             "snapshot " + step.layer.name + StepText(step.opcode) + ErrorCodeName(step_.status)});
  }
}

void Joiner::StepsDone() {
  if (phase_ == Phase::kRoom) {
    AfterView();
    return;
  }
  if (phase_ == Phase::kDeletes) {
    phase_ = Phase::kReady;
    Propose();
    return;
  }
  host_.log().Log(LogLevel::kInfo, "replica " + wire::ReplicaIdText(link_->replica()) +
                                       " has snapshot " + view().name);
  phase_ = Phase::kViewClose;
  ++view_next_;
  views_.Close();
  if (views_.idle()) AfterView();
}

// --- one snapshot after the other
// --------------------------------------------------------------------------------------------

void Joiner::AfterView() {
  if (view_next_ < plan_.missing.size()) {
    BeginView();
  } else if (view_next_ == 0) {
    AskMaps(Phase::kMaps);  // it only had too many
  } else {
    ReadHeadChanges();
  }
}

// Where its head may differ from the snapshot: for the first one that is what it misses, as that
// takes in all that was written since it was a member; from there on what changed from one to the
// next.
void Joiner::BeginView() {
  if (view_next_ == 0) {
    AskMaps(Phase::kViewMaps);
    return;
  }
  phase_ = Phase::kViewMaps;
  Link* member = StayingMember();
  if (member == nullptr) {
    LetGo({ErrorCode::kCancelled, "no member can be asked what changed between snapshots"});
    return;
  }
  map_.Clear();
  reader_.ReadChanged(
      member, plan_.missing[view_next_ - 1].name, view().name, &map_,
      [](MapReader* self, ErrorCode status) {
        auto* of = static_cast<Joiner*>(self->owner);
        if (of->phase_ != Phase::kViewMaps) return of->Next();
        if (status != ErrorCode::kOk) {
          return of->LetGo({OfMember(status), std::string("what changed up to snapshot ") +
                                                  of->view().name +
                                                  " cannot be told: " + ErrorCodeName(status)});
        }
        of->TakeMap();
        of->CopyView();
      });
}

// What clients wrote while maps were asked for is of no account here.
void Joiner::CopyView() {
  phase_ = Phase::kViewCopy;
  total_ = lacks_.count();
  host_.log().Log(LogLevel::kInfo,
                  "replica " + wire::ReplicaIdText(link_->replica()) + " is given snapshot " +
                      view().name + ": " + std::to_string(total_) + " of " +
                      std::to_string(table_.regions()) + " regions are to be compared");
  Tell(host_.reactor().NowNs());
  views_.Open(view().name);
}

// It is open at one more, cannot be opened, or is closed.
void Joiner::OnViews() {
  if (phase_ == Phase::kViewClose) {
    if (views_.idle()) AfterView();
    return;
  }
  if (phase_ == Phase::kViewCopy && views_.failure() != ErrorCode::kOk) {
    LetGo({OfMember(views_.failure()), "snapshot " + view().name + " cannot be read at replica " +
                                           wire::ReplicaIdText(views_.failed()) + ": " +
                                           ErrorCodeName(views_.failure())});
    return;
  }
  if (phase_ != Phase::kViewCopy) return Next();
  copier_.Kick();
  walker_.Pump();
  if (copying_ == 0) AfterRegions();
}

// Its head is what the snapshot is.
void Joiner::FreezeView() {
  phase_ = Phase::kViewFreeze;
  LayerStep step;
  step.layer = view();
  step.labels = views_.labels();
  steps_.clear();
  for (const wire::Opcode opcode :
       {wire::Opcode::kSwitch, wire::Opcode::kPrepare, wire::Opcode::kFlush}) {
    step.opcode = opcode;
    steps_.push_back(step);
  }
  unsynced_bytes_ = 0;
  NextStep();
}

// Its head is empty and stands on the newest snapshot: from there on what members' heads have, what
// is on its way to them, and (by Takes) what will be.
void Joiner::ReadHeadChanges() {
  phase_ = Phase::kMaps;
  lacks_.Clear();
  map_.Clear();
  table_.AddPinned(&map_);
  TakeMap();
  Link* member = StayingMember();
  if (member == nullptr) {
    LetGo({ErrorCode::kCancelled, "no member can be asked what changed since the last snapshot"});
    return;
  }
  reader_.ReadChanged(
      member, plan_.missing.back().name, "", &map_, [](MapReader* self, ErrorCode status) {
        auto* of = static_cast<Joiner*>(self->owner);
        if (of->phase_ != Phase::kMaps) return of->Next();
        if (status != ErrorCode::kOk) {
          return of->LetGo({OfMember(status),
                            std::string("what changed since the last snapshot cannot be told: ") +
                                ErrorCodeName(status)});
        }
        of->TakeMap();
        of->BeginBulk();
      });
}

}  // namespace ankole::engine
