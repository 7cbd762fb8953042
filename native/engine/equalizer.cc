#include "engine/equalizer.h"

#include <algorithm>
#include <utility>

#include "base/mutant.h"

namespace ankole::engine {
namespace {

// Regions that are dirty from before and equal are flushed and cleaned so many at a time.
constexpr size_t kOpenOldMax = 512;

uint64_t PrepareEnd(const Operation& operation) {
  return operation.offset_bytes + operation.length_bytes;
}

}  // namespace

Equalizer::Equalizer(ResyncHost& host, Copier& copier, RegionTable& table)
    : host_(host),
      copier_(copier),
      table_(table),
      walker_(host, copier, *this, CopyKind::kEqual),
      unequal_(table.regions()),
      taken_(table.regions()),
      state_copier_(host),
      dirty_(table.regions()),
      recent_(table.regions()),
      returned_reader_(host),
      returned_dirty_(table.regions()) {}

void Equalizer::Grow() {
  for (RegionSet* set : {&unequal_, &taken_, &dirty_, &recent_, &returned_dirty_}) {
    set->Grow(table_.regions());
  }
}

// --- learning
// --------------------------------------------------------------------------------------------

void Equalizer::Learn(std::vector<Member> members, RegionRun also,
                      void (*done)(void* owner, const Status& status), void* owner) {
  CHECK(!learning());
  members_ = std::move(members);
  learned_done_ = done;
  learned_owner_ = owner;
  learned_ = Status::Ok();
  dirty_.Clear();
  recent_.Clear();
  dirty_.Add(also);
  recent_.Add(also);
  marking_ = false;
  known_.fill(false);
  all_known_ = true;
  for (const Member& member : members_) {
    all_known_ &= member.state.recent_known && !member.state.suspect;
  }
  while (readers_.size() < members_.size()) {
    readers_.push_back(std::make_unique<MapReader>(host_));
    readers_.back()->owner = this;
    readers_.back()->index = static_cast<uint32_t>(readers_.size() - 1);
  }
  learning_ = members_.size();
  for (size_t i = 0; i < members_.size(); ++i) AskNext(i);
}

void Equalizer::AskNext(size_t index) {
  MapReader& reader = *readers_[index];
  Link* link = members_[index].link;
  if (!link->up()) {
    OnMap(index, ErrorCode::kConnectionLost);
    return;
  }
  const auto read_map = [](MapReader* self, ErrorCode status) {
    static_cast<Equalizer*>(self->owner)->OnMap(self->index, status);
  };
  if (!all_known_) {
    reader.ReadMap(link, 0, &dirty_, read_map);
    return;
  }
  reader.ReadRecent(link, &recent_, &known_[index], [](MapReader* self, ErrorCode status) {
    auto* of = static_cast<Equalizer*>(self->owner);
    Link* at = of->members_[self->index].link;
    if (status != ErrorCode::kOk || !at->up()) {
      of->OnMap(self->index, status != ErrorCode::kOk ? status : ErrorCode::kConnectionLost);
      return;
    }
    self->ReadMap(at, 0, &of->dirty_, [](MapReader* again, ErrorCode outcome) {
      static_cast<Equalizer*>(again->owner)->OnMap(again->index, outcome);
    });
  });
}

void Equalizer::OnMap(size_t index, ErrorCode status) {
  if (status != ErrorCode::kOk && learned_.ok()) {
    learned_ = {status, "replica " + wire::ReplicaIdText(members_[index].link->replica()) +
                            " did not tell its dirty regions: " + ErrorCodeName(status)};
  }
  if (--learning_ > 0) return;
  if (!marking_ && learned_.ok() && members_.size() > 1 && !dirty_.empty()) {
    MarkAll();
  } else if (learned_.ok() && members_.size() > 1) {
    CopyState();
  } else {
    EndLearning();
  }
}

// The target state is beside the regions: a store of it that was under way may have come to some.
void Equalizer::CopyState() {
  std::vector<Link*> others;
  for (size_t i = 1; i < members_.size(); ++i) others.push_back(members_[i].link);
  state_copier_.Start(
      members_[0].link, std::move(others),
      [](void* owner, ErrorCode status) {
        auto* self = static_cast<Equalizer*>(owner);
        if (status != ErrorCode::kOk) {
          self->learned_ = {status, std::string("the target state cannot be made equal: ") +
                                        ErrorCodeName(status)};
        }
        self->EndLearning();
      },
      this);
}

// What is dirty at one of them becomes dirty at all: so it is also in the maps of those that are
// away, whichever of the members is lost next.
void Equalizer::MarkAll() {
  marking_ = true;
  learning_ = members_.size();
  for (size_t i = 0; i < members_.size(); ++i) {
    if (!members_[i].link->up()) {
      OnMap(i, ErrorCode::kConnectionLost);
      continue;
    }
    readers_[i]->Mark(members_[i].link, &dirty_, [](MapReader* self, ErrorCode status) {
      static_cast<Equalizer*>(self->owner)->OnMap(self->index, status);
    });
  }
}

void Equalizer::EndLearning() {
  if (learned_.ok()) {
    unequal_.Clear();
    const bool known = all_known_ && std::all_of(known_.begin(), known_.begin() + members_.size(),
                                                 [](bool one) { return one; });
    for (uint64_t region = dirty_.Next(0); region != RegionSet::kNone;
         region = dirty_.Next(region + 1)) {
      const RegionRun run = {static_cast<uint32_t>(region), 1};
      table_.AddOld(run);
      if (members_.size() > 1 && (!known || recent_.Contains(region))) unequal_.Add(run);
    }
  }
  dirty_.Clear();
  recent_.Clear();
  learned_done_(learned_owner_, learned_);
}

// --- in the background
// --------------------------------------------------------------------------------------------

void Equalizer::Pump() {
  if (stopped_) return;
  if (host_.members().count == 1 && !unequal_.empty() && host_.Settled()) {
    unequal_.Clear();  // with whom? A replica that is back compares what is dirty
  }
  PumpPrepare();
  PumpRepairs();
  if (!host_.Settled()) return;
  PumpReturned();
  walker_.Pump();
  OpenOld();
}

void Equalizer::Returned(const Link& link) {
  returned_[link.index()] = true;
  PumpReturned();
}

void Equalizer::PumpReturned() {
  if (stopped_ || returned_reader_.busy() || !host_.Settled()) return;
  for (const std::unique_ptr<Link>& link : host_.links()) {
    // Whoever is down comes back once more, or leaves.
    if (!std::exchange(returned_[link->index()], false)) continue;
    if (!link->up() || !host_.IsMember(link->index())) continue;
    returned_dirty_.Clear();
    asked_ = link->index();
    returned_reader_.owner = this;
    returned_reader_.ReadMap(link.get(), 0, &returned_dirty_, [](MapReader* reader, ErrorCode) {
      // What was told before the connection broke counts: more is dirty than need be.
      auto* self = static_cast<Equalizer*>(reader->owner);
      for (uint64_t region = self->returned_dirty_.Next(0); region != RegionSet::kNone;
           region = self->returned_dirty_.Next(region + 1)) {
        self->table_.AddOld({static_cast<uint32_t>(region), 1});
      }
      self->PumpReturned();
    });
    return;
  }
}

bool Equalizer::NextRegion(Walker::Region* region) {
  if (stopped_ || !host_.Settled()) return false;
  uint64_t next = RegionSet::kNone;
  if (wanted_ != RegionSet::kNone && unequal_.Contains(wanted_) && !taken_.Contains(wanted_)) {
    next = wanted_;
  }
  wanted_ = RegionSet::kNone;
  if (next == RegionSet::kNone) {
    next = unequal_.Next(0);
    while (next != RegionSet::kNone && taken_.Contains(next)) next = unequal_.Next(next + 1);
  }
  if (next == RegionSet::kNone) return false;
  const RegionRun run = {static_cast<uint32_t>(next), 1};
  if (!table_.Pin(run, host_.reactor().NowNs(), kBackgroundOpenMax)) return false;
  taken_.Add(run);
  region->number = run.first;
  return true;
}

void Equalizer::RegionDone(const Walker::Region& region, ErrorCode status,
                           const Walker::Totals& totals) {
  taken_.Remove(region.number);
  table_.Unpin({region.number, 1}, host_.reactor().NowNs());
  copied_bytes_ += totals.copied_bytes;
  repaired_blocks_ += totals.repaired_blocks;
  if (status == ErrorCode::kOk) unequal_.Remove(region.number);
}

// What is dirty from before and equal goes the way of all others: open, flushed, cleaned.
void Equalizer::OpenOld() {
  const RegionSet& old = table_.old();
  uint64_t region = old.Next(0);
  while (region != RegionSet::kNone && table_.open() < kOpenOldMax) {
    const RegionRun run = {static_cast<uint32_t>(region), 1};
    if (!unequal_.Contains(region) && table_.Pin(run, 0)) table_.Unpin(run, 0);
    region = old.Next(region + 1);
  }
}

// --- at once
// --------------------------------------------------------------------------------------------

bool Equalizer::Concerns(const Operation& operation) const {
  if (operation.repair) return true;
  if (unequal_.empty() || operation.length_bytes == 0 || IsState(operation.kind)) return false;
  switch (operation.kind) {
    case BlockOperation::kRead:
      if (Mutant("read-before-equal")) return false;
      break;
    case BlockOperation::kHold:
      break;
    case BlockOperation::kWrite:
    case BlockOperation::kZero:
    case BlockOperation::kUnmap:
      if (operation.offset_bytes % kBlockBytes == 0 && PrepareEnd(operation) % kBlockBytes == 0) {
        return false;
      }
      break;
    default:
      return false;
  }
  return unequal_.ContainsAny(RegionsOf(operation.offset_bytes, operation.length_bytes));
}

void Equalizer::Prepare(Operation* operation, void (*ready)(Operation*)) {
  ++preparing_;
  operation->ready = ready;
  operation->prepare_status = ErrorCode::kOk;
  operation->prepared_bytes = RoundDown(operation->offset_bytes, kBlockBytes);
  if (!operation->repair) wanted_ = operation->offset_bytes / kRegionBytes;
  PrepareNext(operation);
}

// The next part of its range; or it is ready.
void Equalizer::PrepareNext(Operation* operation) {
  const uint64_t size = host_.size_bytes();
  const uint64_t end = std::min(RoundUp(PrepareEnd(*operation), kBlockBytes), size);
  uint64_t& at = operation->prepared_bytes;
  // A write needs but the blocks that it does not fill.
  const bool edges = operation->is_write();
  const bool first = at == RoundDown(operation->offset_bytes, kBlockBytes);
  if (edges && first && operation->offset_bytes % kBlockBytes == 0) at = end - kBlockBytes;
  if (edges && !first) at = at >= end ? end : std::max(at, RoundDown(end - 1, kBlockBytes));
  if (at >= end || stopped_ || operation->prepare_status != ErrorCode::kOk) {
    --preparing_;
    operation->ready(operation);
    return;
  }
  Copy* copy = copier_.Acquire();
  if (copy == nullptr) {
    waiting_.PushBack(operation);
    return;
  }
  copy->kind = operation->repair ? CopyKind::kRepair : CopyKind::kEqual;
  copy->offset_bytes = at;
  copy->length_bytes =
      static_cast<uint32_t>(std::min<uint64_t>(end - at, edges ? kBlockBytes : kDataBytesMax));
  // What is repaired is written, in a region that is clean as a rule; what is made equal counts as
  // dirty already.
  if (operation->repair &&
      !table_.Pin(RegionsOf(at, copy->length_bytes), host_.reactor().NowNs())) {
    copier_.Release(copy);
    waiting_.PushBack(operation);
    return;
  }
  copy->owner_locks = true;
  copy->owner = operation;
  operation->preparer = this;
  at += copy->length_bytes;
  copy->done = [](Copy* done) {
    auto* of = static_cast<Operation*>(done->owner);
    auto* self = static_cast<Equalizer*>(of->preparer);
    self->copied_bytes_ += done->copied_bytes;
    self->repaired_blocks_ += done->repaired_blocks;
    if (done->kind == CopyKind::kRepair) {
      self->table_.Unpin(RegionsOf(done->offset_bytes, done->length_bytes),
                         self->host_.reactor().NowNs());
    }
    // What cannot be repaired is found again by the read itself.
    if (!of->repair) of->prepare_status = done->status;
    self->copier_.Release(done);
    self->PrepareNext(of);
    self->PumpPrepare();
  };
  copier_.Start(copy);
}

void Equalizer::PumpPrepare() {
  for (size_t left = waiting_.size(); left > 0; --left) PrepareNext(waiting_.PopFront());
}

void Equalizer::Repair(uint64_t offset_bytes, uint64_t length_bytes) {
  // What does not fit is found again, by the next read or by scrubbing.
  if (repairs_count_ == kRepairs || stopped_) return;
  const uint64_t begin = RoundDown(offset_bytes, kBlockBytes);
  const uint64_t end =
      std::min(RoundUp(offset_bytes + length_bytes, kBlockBytes), host_.size_bytes());
  repairs_[repairs_count_++] = {begin, end - begin};
  PumpRepairs();
}

void Equalizer::PumpRepairs() {
  while (repairs_count_ > 0 && repairing_ == 0 && host_.Settled()) {
    Range& range = repairs_[repairs_count_ - 1];
    const uint64_t now_ns = host_.reactor().NowNs();
    const auto length =
        static_cast<uint32_t>(std::min<uint64_t>(range.length_bytes, kDataBytesMax));
    if (!table_.Pin(RegionsOf(range.offset_bytes, length), now_ns, kBackgroundOpenMax)) return;
    Copy* copy = copier_.Acquire();
    if (copy == nullptr) {
      table_.Unpin(RegionsOf(range.offset_bytes, length), now_ns);
      return;
    }
    copy->kind = CopyKind::kRepair;
    copy->offset_bytes = range.offset_bytes;
    copy->length_bytes = length;
    range.offset_bytes += length;
    range.length_bytes -= length;
    if (range.length_bytes == 0) --repairs_count_;
    ++repairing_;
    copy->owner = this;
    copy->done = [](Copy* done) {
      auto* self = static_cast<Equalizer*>(done->owner);
      --self->repairing_;
      self->repaired_blocks_ += done->repaired_blocks;
      self->table_.Unpin(RegionsOf(done->offset_bytes, done->length_bytes),
                         self->host_.reactor().NowNs());
      self->copier_.Release(done);
      self->PumpRepairs();
    };
    copier_.Start(copy);
  }
}

void Equalizer::Stop() {
  stopped_ = true;
  repairs_count_ = 0;
  walker_.Cancel();
  PumpPrepare();
}

}  // namespace ankole::engine
