#include "engine/joiner.h"

#include <algorithm>

#include "base/mutant.h"

namespace ankole::engine {
namespace {

// One that was lost within this time of the last loss flaps, and is held off for longer each time.
constexpr uint64_t kFlapNs = 60 * kNsPerSecond;
constexpr uint64_t kHoldOffMaxNs = 60 * kNsPerSecond;
// One that is full does not flap: as soon as there is room it is to come back.
constexpr uint64_t kFullHoldOffNs = 2 * kNsPerSecond;
constexpr uint64_t kTellNs = kNsPerSecond;
// What is read ahead has its range locked, so that clients wait for it. Where it has to wait for
// longer it is given back, and nothing is read ahead any more.
constexpr uint64_t kHeldMaxNs = 100 * kNsPerMs;

}  // namespace

Joiner::Joiner(ResyncHost& host, Copier& copier, RegionTable& table, Cleaner& cleaner,
               uint64_t sync_bytes)
    : host_(host),
      table_(table),
      cleaner_(cleaner),
      copier_(copier),
      walker_(host, copier, *this, CopyKind::kFill),
      lacks_(table.regions()),
      virgin_(table.regions()),
      sync_bytes_(sync_bytes),
      layer_reader_(host),
      views_(host),
      reader_(host),
      map_(table.regions()),
      state_copier_(host) {
  reader_.owner = layer_reader_.owner = views_.owner = step_.owner = this;
  views_.changed = [](ViewSet* set) { static_cast<Joiner*>(set->owner)->OnViews(); };
  step_.done = [](Errand* errand) { static_cast<Joiner*>(errand->owner)->OnStep(); };
  sync_.owner = this;
  sync_.opcode = wire::Opcode::kFlush;
  sync_.done = [](Errand* errand) { static_cast<Joiner*>(errand->owner)->OnCopiedSynced(); };
  expand_.owner = this;
  expand_.opcode = wire::Opcode::kExpand;
  expand_.done = [](Errand* errand) { static_cast<Joiner*>(errand->owner)->OnEnlarged(); };
  state_lock_.begin_block = kStateBlock;
  state_lock_.end_block = kStateBlock + 1;
  state_lock_.exclusive = true;
  state_lock_.owner = this;
  state_lock_.granted = [](LockRequest* granted) {
    static_cast<Joiner*>(granted->owner)->CopyState();
  };
}

bool Joiner::idle() const {
  return walker_.idle() && !reader_.busy() && !state_copier_.busy() && !state_locked_ &&
         !sync_.in_flight() && !expand_.in_flight() && !layer_reader_.busy() &&
         !step_.in_flight() && views_.idle();
}

void Joiner::Grow() {
  lacks_.Grow(table_.regions());
  virgin_.Grow(table_.regions());
  map_.Grow(table_.regions());
}

// --- which one
// --------------------------------------------------------------------------------------------

void Joiner::OnLost(Link& link) {
  // Once a record has it, it is for its members to leave by another one.
  if (&link == link_ && phase_ != Phase::kProposed) {
    LetGo({ErrorCode::kConnectionLost, link.why_down()});
  }
}

std::string Joiner::OnLeft(const Link& link) { return HoldOff(link); }

std::string Joiner::HoldOff(const Link& link) {
  Standing& standing = standing_[link.index()];
  const uint64_t now_ns = host_.reactor().NowNs();
  const bool again = standing.lost_ns != 0 && now_ns - standing.lost_ns < kFlapNs;
  standing.losses = again ? standing.losses + 1 : 0;
  standing.lost_ns = now_ns;
  const uint64_t hold_ns =
      standing.losses == 0
          ? 0
          : std::min(kHoldOffMaxNs, kNsPerSecond << std::min(standing.losses - 1, 6U));
  standing.hold_until_ns = now_ns + hold_ns;
  if (hold_ns == 0) return {};
  return "; it comes and goes, and is held off for " + std::to_string(hold_ns / kNsPerSecond) +
         " s";
}

// The next that can be brought in. It is filled from one member, and what is made equal from
// another one goes to the members only: so that comes first.
void Joiner::Next() {
  if (stopped_ || phase_ != Phase::kNone || !host_.Settled() || !idle()) return;
  if (!host_.AllEqual() || !host_.MayJoin()) return;
  const uint64_t now_ns = host_.reactor().NowNs();
  for (const auto& link : host_.links()) {
    const Standing& standing = standing_[link->index()];
    if (host_.IsMember(link->index()) || standing.hold_until_ns > now_ns) continue;
    if (link->up()) {
      // It was welcomed at the start, when all were.
      link_ = link.get();
      phase_ = Phase::kWelcoming;
      if (Admits(host_.StateOf(*link))) OnState(*link, true, host_.StateOf(*link));
      return;
    }
    if (link->mode() != LinkMode::kAuthentic) continue;
    link_ = link.get();
    phase_ = Phase::kAsking;
    link_->Ask();
    return;
  }
}

void Joiner::Reset() {
  link_ = nullptr;
  phase_ = Phase::kNone;
  lacks_.Clear();
  virgin_.Clear();
  map_.Clear();
  descends_ = map_found_ = flush_due_ = step_due_ = false;
  flush_stale_ = flushing_;
  plan_ = {};
  view_next_ = 0;
  steps_.clear();
  deleted_.clear();
  views_.Close();
  reads_ahead_ = true;
  was_bytes_ = 0;
  copied_regions_ = unsynced_bytes_ = total_ = copied_bytes_ = told_bytes_ = rate_ = told_ns_ = 0;
}

void Joiner::LetGo(const Status& why) {
  if (link_ == nullptr) return;
  Link& link = *link_;
  const bool told = phase_ > Phase::kWelcoming;
  // One that the engine lets go for a reason of its own has done nothing.
  std::string held = why.code() == ErrorCode::kCancelled ? "" : HoldOff(link);
  if (why.code() == ErrorCode::kNoSpace) {
    Standing& standing = standing_[link.index()];
    standing.hold_until_ns =
        std::min(standing.hold_until_ns, host_.reactor().NowNs() + kFullHoldOffNs);
    standing.losses = 0;
    held.clear();
  }
  Reset();
  copier_.CancelFills(link);
  HoldWrites(false);
  walker_.Cancel();
  if (told) {
    host_.log().Log(LogLevel::kWarn, "replica " + wire::ReplicaIdText(link.replica()) +
                                         " does not join for now: " + why.message() + held);
    host_.TellReplica(link, "left", {why.code(), why.message() + held});
  }
  host_.JoinerFailed(link, why);
}

void Joiner::Stop() {
  stopped_ = true;
  LetGo({ErrorCode::kCancelled, "the engine stops"});
  walker_.Cancel();
}

// Whether it may become a member at all; lets it go if not.
bool Joiner::Admits(const wire::ReplicaState& state) {
  if (Newer(state.records.current, host_.complete())) {
    LetGo({ErrorCode::kFenced, "it holds a newer record: " + Describe(state.records.current)});
    return false;
  }
  return true;
}

void Joiner::OnState(Link& link, bool welcomed, const wire::ReplicaState& state) {
  if (&link != link_) return;
  state_ = state;
  if (!welcomed) {
    if (phase_ != Phase::kAsking || !Admits(state)) return;
    phase_ = Phase::kWelcoming;
    link_->Fence();
    return;
  }
  if (phase_ != Phase::kWelcoming) return;
  Enlarge();
}

// One that was away while the volume grew. From here on it grows as the members do.
void Joiner::Enlarge() {
  if (state_.size_bytes >= host_.size_bytes()) return AskLayers();
  phase_ = Phase::kExpanding;
  if (was_bytes_ == 0) was_bytes_ = state_.size_bytes;
  expand_to_bytes_ = host_.size_bytes();
  expand_payload_ = wire::EncodeExpand(expand_to_bytes_);
  expand_.link = link_;
  expand_.payload = expand_payload_.data();
  expand_.payload_bytes = wire::kExpandBytes;
  host_.TellReplica(*link_, "resyncing", {ErrorCode::kOk, "making it as large as the volume"});
  host_.SendErrand(&expand_);
}

void Joiner::OnEnlarged() {
  if (expand_.link != link_ || phase_ != Phase::kExpanding) return Next();
  if (expand_.status == ErrorCode::kConnectionLost) return;  // OnLost lets it go
  if (expand_.status != ErrorCode::kOk) {
    return LetGo({expand_.status, std::string("it cannot be made as large as the volume: ") +
                                      ErrorCodeName(expand_.status)});
  }
  host_.NoteSize(*link_, expand_to_bytes_);
  state_.size_bytes = std::max(state_.size_bytes, expand_to_bytes_);
  Enlarge();
}

void Joiner::OnRefused(Link& link, const Status& why) {
  if (&link == link_) LetGo(why);
}

// --- what it lacks
// --------------------------------------------------------------------------------------------

Link* Joiner::StayingMember() const {
  Link* member = nullptr;
  for (const auto& link : host_.links()) {
    if (host_.IsStaying(link->index()) && link->up()) member = link.get();
  }
  return member;
}

// kMaps: from now on what is written is noted here, by Takes; what is on its way was not. All else
// is in the maps.
void Joiner::AskMaps(Phase phase) {
  phase_ = phase;
  lacks_.Clear();
  map_.Clear();
  table_.AddPinned(&map_);
  TakeMap();
  descends_ = map_found_ = false;
  map_link_ = 0;
  told_ns_ = host_.reactor().NowNs();
  host_.TellReplica(*link_, "resyncing", {ErrorCode::kOk, "asking what it lacks"});
  NextMap();
}

// Its own dirty regions first, then what each member says that it misses. Any of the members' maps
// has it all; more than one costs little.
void Joiner::NextMap() {
  const auto own = [](MapReader* self, ErrorCode status) {
    auto* of = static_cast<Joiner*>(self->owner);
    if (!of->asks_maps()) return of->Next();
    if (status != ErrorCode::kOk) {
      return of->LetGo({status, "it did not tell its dirty regions"});
    }
    of->MapsDone();
  };
  const auto links = host_.links();
  while (map_link_ < links.size() && (!host_.IsMember(map_link_) || !links[map_link_]->up())) {
    ++map_link_;
  }
  if (map_link_ == links.size()) {
    reader_.ReadMap(link_, 0, &map_, own);
    return;
  }
  reader_.ReadMaps(links[map_link_].get(), &maps_, [](MapReader* self, ErrorCode status) {
    auto* of = static_cast<Joiner*>(self->owner);
    if (!of->asks_maps()) return of->Next();
    const wire::RecordPair& holds = of->state_.records;
    if (status == ErrorCode::kOk) {
      for (const wire::MissingSlot& slot : of->maps_.used()) {
        if (slot.id != of->link_->replica()) continue;
        // It may have switched to another head since, by a record that never counted: a revert
        // gives it another content.
        const bool switched = holds.current.newest_snapshot != holds.complete.newest_snapshot &&
                              !Mutant("revert-of-its-own");
        const bool descends =
            holds.current.exists() &&
            (holds.current == slot.record || (holds.complete == slot.record && !switched));
        of->map_found_ |= descends || Mutant("descent-not-checked");
        of->descends_ |= holds.current.exists() && holds.current == slot.record;
        Link* member = of->host_.links()[of->map_link_].get();
        if (!member->up()) break;
        self->ReadMap(member, slot.id, &of->map_, [](MapReader* again, ErrorCode outcome) {
          static_cast<Joiner*>(again->owner)->OnMap(outcome);
        });
        return;
      }
    }
    of->OnMap(ErrorCode::kOk);
  });
}

void Joiner::OnMap(ErrorCode status) {
  if (!asks_maps()) return Next();
  if (status != ErrorCode::kOk) map_found_ = descends_ = false;  // half of it is none
  ++map_link_;
  NextMap();
}

// All regions that the map has are lacking.
void Joiner::TakeMap() {
  for (uint64_t region = map_.Next(0); region != RegionSet::kNone; region = map_.Next(region + 1)) {
    lacks_.Add({static_cast<uint32_t>(region), 1});
  }
  map_.Clear();
}

// What its head lacks is known, but for a snapshot of late: that follows from what changed since.
void Joiner::MapsDone() {
  if (!map_found_ || (phase_ == Phase::kViewMaps && plan_.older)) lacks_.AddAll();
  TakeMap();
  // What was written behind its old end is in the maps as all else is. The region that this end
  // lies in is compared in any case, as it costs nothing.
  if (was_bytes_ % kRegionBytes != 0) lacks_.Add(RegionsOf(was_bytes_, 1));
  if (state_.fresh) virgin_.AddAll();
  if (phase_ == Phase::kViewMaps) {
    CopyView();
  } else {
    BeginBulk();
  }
}

void Joiner::BeginBulk() {
  total_ = lacks_.count();
  bulk_next_ = 0;
  phase_ = Phase::kBulk;
  host_.log().Log(
      LogLevel::kInfo,
      "replica " + wire::ReplicaIdText(link_->replica()) +
          " is brought up to date: " + std::to_string(total_) + " of " +
          std::to_string(table_.regions()) + " regions are to be compared" +
          (map_found_ || view_next_ > 0 ? ""
                                        : ", as it descends from no record that is known here"));
  Tell(host_.reactor().NowNs());
  walker_.Pump();
  if (copying_ == 0) AfterRegions();
}

// --- what it gets
// --------------------------------------------------------------------------------------------

bool Joiner::Takes(const Operation& operation) {
  if (phase_ < Phase::kMaps || phase_ == Phase::kProposed) return false;
  if (operation.kind == BlockOperation::kFlush) {
    return (operation.own ? attached() : flushes()) && !Mutant("joiner-not-flushed");
  }
  if (operation.kind == BlockOperation::kStoreState) return phase_ >= Phase::kState;
  if (!operation.dirties()) return false;
  if (live()) return !lacks_.ContainsRange(operation.offset_bytes, operation.length_bytes);
  const uint64_t before = lacks_.count();
  lacks_.AddRange(operation.offset_bytes, operation.length_bytes);
  total_ += lacks_.count() - before;
  return false;
}

void Joiner::HoldWrites(bool hold) {
  if (hold == (held_since_ns_ != 0)) return;
  held_since_ns_ = hold ? host_.reactor().NowNs() : 0;
  copier_.HoldFills(hold);
}

// A disk that is written to while it syncs lets whoever shares its device wait, and for long: what
// is to be written next is read meanwhile, but not written.
void Joiner::ChunkDone(uint64_t copied_bytes) {
  // What was begun for one that was let go counts for none.
  if (!copies()) return;
  unsynced_bytes_ += copied_bytes;
  if (unsynced_bytes_ < sync_bytes_) return;
  HoldWrites(true);
  if (copier_.fills_writing() == 0 && !sync_.in_flight()) SyncCopied();
}

bool Joiner::NextRegion(Walker::Region* region) {
  const bool bulk = phase_ == Phase::kBulk;
  const bool of_view = phase_ == Phase::kViewCopy;
  if (!copies() || (of_view && !views_.open())) return false;
  const uint64_t next = lacks_.regions().Next(bulk ? bulk_next_ : 0);
  if (next == RegionSet::kNone) return false;
  const RegionRun run = {static_cast<uint32_t>(next), 1};
  // Of a snapshot nothing changes at members, and nothing is cleaned before it is one itself.
  if (!of_view &&
      !table_.Pin(run, Cleaner::CopiedAt(host_.reactor().NowNs()), kBackgroundOpenMax)) {
    return false;
  }
  bulk_next_ = next + 1;
  region->number = run.first;
  region->parts = lacks_.Take(next);
  region->virgin = virgin_.Contains(next);
  region->joiner = link_;
  region->views = of_view ? &views_.ids() : nullptr;
  virgin_.Remove(next);
  ++copying_;
  return true;
}

void Joiner::RegionDone(const Walker::Region& region, ErrorCode status,
                        const Walker::Totals& totals) {
  --copying_;
  const bool of_view = region.views != nullptr;
  if (!of_view) table_.Unpin({region.number, 1}, Cleaner::CopiedAt(host_.reactor().NowNs()));
  if (region.joiner != link_) {
    Next();
    return;
  }
  copied_bytes_ += totals.copied_bytes;
  if (status != ErrorCode::kOk) lacks_.Add({region.number, 1});
  if (status != ErrorCode::kOk && status != ErrorCode::kCancelled) {
    LetGo({status, "region " + std::to_string(region.number) +
                       " cannot be copied: " + ErrorCodeName(status)});
    return;
  }
  if (status == ErrorCode::kOk && !of_view) ++copied_regions_;
  walker_.Pump();
  if (copying_ == 0) AfterRegions();
}

// This promises nothing, and cleans nothing: it only keeps small what a flush that does will find.
void Joiner::SyncCopied() {
  unsynced_bytes_ = 0;
  sync_.link = link_;
  host_.SendErrand(&sync_);
}

void Joiner::OnCopiedSynced() {
  HoldWrites(false);
  if (sync_.link != link_ || !copies()) {
    Next();
    return;
  }
  // Without its connection it is let go by OnLost.
  if (sync_.status != ErrorCode::kOk && sync_.status != ErrorCode::kConnectionLost) {
    LetGo({sync_.status,
           std::string("what was copied cannot be synced: ") + ErrorCodeName(sync_.status)});
    return;
  }
  walker_.Pump();
  if (copying_ == 0) AfterRegions();
}

// Nothing is being copied.
void Joiner::AfterRegions() {
  if (phase_ == Phase::kBulk && lacks_.regions().Next(bulk_next_) == RegionSet::kNone) {
    Flush(Phase::kSettling);
  } else if (phase_ == Phase::kLive && lacks_.empty()) {
    Flush(Phase::kFlushing);
  } else if (phase_ == Phase::kViewCopy && lacks_.empty() && views_.open() && !sync_.in_flight()) {
    FreezeView();
  }
}

void Joiner::Flush(Phase phase) {
  phase_ = phase;
  flushing_ = flushing_ ||
              cleaner_.Flush(
                  [](void* owner, bool ok) { static_cast<Joiner*>(owner)->OnFlushed(ok); }, this);
  flush_due_ = !flushing_ || flush_stale_;
}

void Joiner::OnFlushed(bool ok) {
  flushing_ = false;
  if (flush_stale_) {
    // It may have begun before what is to be flushed was written.
    flush_stale_ = false;
    if (flush_due_) Flush(phase_);
    return;
  }
  if (!ok) {
    flush_due_ = link_ != nullptr;
    return;
  }
  copied_regions_ = 0;
  switch (phase_) {
    case Phase::kSettling:
      phase_ = Phase::kLive;
      walker_.Pump();
      if (copying_ == 0) AfterRegions();
      return;
    case Phase::kFlushing:
      BeginFinal();
      return;
    case Phase::kLastFlush:
      phase_ = Phase::kReady;
      Propose();
      return;
    default:
      return;
  }
}

// --- a snapshot meanwhile
// --------------------------------------------------------------------------------------------

void Joiner::Pause() {
  const bool waits = phase_ == Phase::kReady || phase_ == Phase::kLastFlush;
  const bool of_head = (phase_ >= Phase::kBulk && phase_ <= Phase::kFinal) || waits;
  if (!of_head && phase_ != Phase::kViewCopy) {
    LetGo({ErrorCode::kCancelled, "a snapshot is taken; it is compared again after that"});
    return;
  }
  phase_ = of_head ? Phase::kPaused : Phase::kViewPaused;
  flush_due_ = false;
  flush_stale_ = flushing_;
  walker_.Cancel();
  copier_.CancelFills(*link_);
  HoldWrites(false);
}

// Its head differs from the snapshot in no more than what was not copied when that was taken, or
// was written since it was paused.
void Joiner::OnSnapshot(const wire::LayerEntry& snapshot) {
  if (!paused() || Mutant("joiner-misses-snapshot")) return GoOn();
  const bool of_head = phase_ == Phase::kPaused;
  if (of_head && (copying_ > 0 || !views_.idle())) {
    LetGo({ErrorCode::kCancelled, "a snapshot was taken; it is compared again"});
    return;
  }
  plan_.missing.push_back(snapshot);
  if (of_head) {
    CopyView();
  } else {
    ResumeView();
  }
}

void Joiner::GoOn() {
  if (phase_ == Phase::kViewPaused) ResumeView();
  if (phase_ == Phase::kPaused) ResumeBulk();
}

void Joiner::ResumeView() {
  phase_ = Phase::kViewCopy;
  views_.Pump();
  OnViews();
}

void Joiner::ResumeBulk() {
  phase_ = Phase::kBulk;
  bulk_next_ = 0;
  walker_.Pump();
  if (copying_ == 0) AfterRegions();
}

// --- the last steps
// --------------------------------------------------------------------------------------------

void Joiner::BeginFinal() {
  phase_ = Phase::kFinal;
  barrier_tag_ = host_.NewTag();
  OnQuiet(host_.CompleteTag());
}

void Joiner::OnQuiet(uint64_t complete_tag) {
  if (phase_ != Phase::kFinal || complete_tag < barrier_tag_) return;
  phase_ = Phase::kState;
  LockState();
}

void Joiner::LockState() {
  state_locked_ = true;
  if (host_.locks().Acquire(&state_lock_)) CopyState();
}

void Joiner::CopyState() {
  Link* source = nullptr;
  for (const auto& link : host_.links()) {
    if (host_.IsStaying(link->index()) && link->up()) source = link.get();
  }
  if (phase_ != Phase::kState || source == nullptr) {
    OnStateCopied(ErrorCode::kConnectionLost);
    return;
  }
  state_copier_.Start(
      source, {link_},
      [](void* owner, ErrorCode status) { static_cast<Joiner*>(owner)->OnStateCopied(status); },
      this);
}

void Joiner::OnStateCopied(ErrorCode status) {
  state_locked_ = false;
  host_.locks().Release(&state_lock_);
  if (phase_ != Phase::kState) return Next();
  if (status != ErrorCode::kOk) {
    LetGo({status, std::string("its target state cannot be copied: ") + ErrorCodeName(status)});
    return;
  }
  phase_ = Phase::kMissing;
  missing_step_ = MissingStep::kList;
  NextMissing();
}

// For each replica that is away: its map is begun at the joiner, which from then on takes in what
// is written, and then gets all that a member's map has.
void Joiner::NextMissing() {
  const auto done = [](MapReader* self, ErrorCode status) {
    static_cast<Joiner*>(self->owner)->OnMissing(status);
  };
  Link* member = nullptr;
  for (const auto& link : host_.links()) {
    if (host_.IsMember(link->index()) && link->up()) member = link.get();
  }
  if (member == nullptr || !link_->up()) {
    LetGo({ErrorCode::kConnectionLost, "no member can be asked for the missing maps"});
    return;
  }
  if (missing_step_ == MissingStep::kList) {
    generation_ = host_.complete().generation;
    other_ = 0;
    reader_.ReadMaps(member, &other_maps_, done);
    return;
  }
  while (other_ < other_maps_.count) {
    const wire::ReplicaId id = other_maps_.slots[other_].id;
    if (id != link_->replica() && !host_.members().Contains(id)) break;
    ++other_;
  }
  if (other_ == other_maps_.count) {
    map_.Clear();
    Flush(Phase::kLastFlush);
    return;
  }
  const wire::MissingSlot& slot = other_maps_.slots[other_];
  switch (missing_step_) {
    case MissingStep::kBegin:
      map_.Clear();
      [[fallthrough]];
    case MissingStep::kSend:
      reader_.BeginMissing(link_, {slot.id, wire::MissingRequest::What::kSet, slot.record}, &map_,
                           done);
      return;
    case MissingStep::kRead:
      reader_.ReadMap(member, slot.id, &map_, done);
      return;
    case MissingStep::kList:
      return;
  }
}

void Joiner::OnMissing(ErrorCode status) {
  if (phase_ != Phase::kMissing) return Next();
  const bool gone = missing_step_ == MissingStep::kRead && status == ErrorCode::kNotFound;
  if (status != ErrorCode::kOk && !gone) {
    LetGo({status,
           std::string("the missing maps of others cannot be copied: ") + ErrorCodeName(status)});
    return;
  }
  switch (missing_step_) {
    case MissingStep::kList:
      missing_step_ = MissingStep::kBegin;
      break;
    case MissingStep::kBegin:
      missing_step_ = MissingStep::kRead;
      break;
    case MissingStep::kRead:
      missing_step_ = MissingStep::kSend;
      break;
    case MissingStep::kSend:
      missing_step_ = MissingStep::kBegin;
      ++other_;
      break;
  }
  NextMissing();
}

void Joiner::Propose() {
  // Again by OnMembers, or Look.
  if (phase_ != Phase::kReady || !host_.Settled() || !host_.MayJoin()) return;
  if (generation_ != host_.complete().generation) {
    // Others left meanwhile: their maps are to be had as well.
    phase_ = Phase::kMissing;
    missing_step_ = MissingStep::kList;
    if (!reader_.busy()) NextMissing();
    return;
  }
  if (!deleted_.empty()) {
    DeleteThere();
    return;
  }
  phase_ = Phase::kProposed;
  host_.ProposeWith(*link_);
}

void Joiner::OnMembers() {
  if (phase_ == Phase::kProposed) {
    if (!host_.members().Contains(link_->replica())) {
      Reset();  // it left again, by a record
    } else if (host_.Settled()) {
      host_.log().Log(LogLevel::kInfo, "replica " + wire::ReplicaIdText(link_->replica()) +
                                           " is a member again: " + std::to_string(copied_bytes_) +
                                           " bytes were copied");
      host_.TellReplica(*link_, "member", Status::Ok());
      Reset();
    }
  } else {
    Propose();
  }
  Next();
}

// --- time
// --------------------------------------------------------------------------------------------

void Joiner::Look(uint64_t now_ns) {
  if (link_ == nullptr) {
    Next();
    return;
  }
  if (paused()) return;
  if (flush_due_) Flush(phase_);
  if (step_due_) SendStep();
  views_.Pump();
  Propose();
  if (held_since_ns_ != 0 && reads_ahead_ && now_ns - held_since_ns_ >= kHeldMaxNs) {
    reads_ahead_ = false;
    copier_.CancelUnwritten(*link_);
  }
  if (copies()) {
    walker_.Pump();
    if (copying_ == 0) AfterRegions();
  }
  if ((copies() || phase_ >= Phase::kBulk) && now_ns - told_ns_ >= kTellNs) Tell(now_ns);
}

void Joiner::Tell(uint64_t now_ns) {
  const uint64_t took_ns = now_ns - told_ns_;
  if (took_ns > 0) {
    rate_ = static_cast<uint64_t>(static_cast<double>(copied_bytes_ - told_bytes_) * kNsPerSecond /
                                  static_cast<double>(took_ns));
  }
  told_ns_ = now_ns;
  told_bytes_ = copied_bytes_;
  const size_t snapshots = plan_.missing.size() - view_next_;
  host_.TellReplica(*link_, "resyncing",
                    {ErrorCode::kOk, std::to_string(lacks_.count() + copying_) + " of " +
                                         std::to_string(total_) + " regions to go" +
                                         (snapshots == 0 ? "" : " of snapshot " + view().name)});
}

uint64_t Joiner::HeldOffNs(uint64_t now_ns) const {
  uint64_t longest_ns = 0;
  for (const auto& link : host_.links()) {
    if (host_.IsMember(link->index())) continue;
    const uint64_t until_ns = standing_[link->index()].hold_until_ns;
    longest_ns = std::max(longest_ns, until_ns > now_ns ? until_ns - now_ns : 0);
  }
  return longest_ns;
}

JoinProgress Joiner::Progress(const Link& link) const {
  JoinProgress progress;
  if (&link != link_ || phase_ <= Phase::kLayers) {
    const Standing& standing = standing_[link.index()];
    if (standing.hold_until_ns > host_.reactor().NowNs()) progress.state = "held-off";
    return progress;
  }
  progress.state = paused() ? "paused" : phase_ <= Phase::kLive ? "copying" : "joining";
  progress.regions_total = total_;
  progress.regions_to_go = lacks_.count() + copying_;
  progress.copied_bytes = copied_bytes_;
  progress.bytes_per_second = rate_;
  progress.snapshots_to_go = plan_.missing.size() - view_next_;
  return progress;
}

}  // namespace ankole::engine
