#include "engine/copier.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "base/mutant.h"
#include "wire/hello.h"

namespace ankole::engine {
namespace {

// Blocks that are equal are read along when they lie between two that differ: a request more costs
// as much as reading this many.
constexpr uint32_t kGapBlocksMax = 16;

uint8_t Bit(size_t link) { return static_cast<uint8_t>(1U << link); }

Copy* CopyOf(Errand* errand) { return static_cast<Copy*>(errand->owner); }

// Now. A snapshot is asked for where it is open.
bool CanAsk(const Copy& copy, const Link& link) {
  return link.up() && (copy.views == nullptr || (*copy.views)[link.index()] != 0);
}

uint32_t FirstBlock(const Errand& errand, const Copy& copy) {
  return static_cast<uint32_t>((errand.offset_bytes - copy.offset_bytes) / kBlockBytes);
}

}  // namespace

Copier::Copier(ResyncHost& host, size_t copies) : host_(host), copies_(copies) {
  void* memory = mmap(nullptr, copies * sizeof(Copy), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED);
  memory_ = static_cast<Copy*>(memory);
  finish_task_.owner = this;
  finish_task_.done = [](io::Operation* operation) {
    auto* self = static_cast<Copier*>(operation->owner);
    while (Copy* copy = self->finished_.PopFront()) copy->done(copy);
  };
}

Copier::~Copier() {
  CHECK(idle() && !finish_task_.scheduled);
  munmap(memory_, copies_ * sizeof(Copy));
}

Copy* Copier::Acquire() {
  if (free_.empty()) {
    if (made_ == copies_) return nullptr;
    free_.PushBack(new (&memory_[made_++]) Copy());
  }
  Copy* copy = free_.PopFront();
  copy->copier = this;
  copy->owner_locks = copy->virgin = copy->cancelled = false;
  copy->joiner = nullptr;
  copy->views = nullptr;
  copy->status = ErrorCode::kOk;
  copy->copied_bytes = copy->repaired_blocks = copy->corrupt_blocks = copy->differing_blocks = 0;
  copy->excluded = 0;
  return copy;
}

void Copier::Release(Copy* copy) {
  CHECK(copy->state == Copy::State::kFree && !copy->node.linked());
  free_.PushBack(copy);
}

void Copier::Start(Copy* copy) {
  CHECK(copy->offset_bytes % kBlockBytes == 0 && copy->length_bytes > 0 &&
        copy->length_bytes <= kDataBytesMax);
  copy->state = Copy::State::kLocking;
  copy->owner_locks |= copy->views != nullptr || Mutant("repair-without-lock");
  if (copy->owner_locks) {
    Granted(copy);
    return;
  }
  locking_.PushBack(copy);
  LockRequest& lock = copy->lock;
  lock.begin_block = copy->offset_bytes / kBlockBytes;
  lock.end_block = lock.begin_block + copy->blocks();
  lock.exclusive = true;
  lock.owner = copy;
  lock.granted = [](LockRequest* granted) {
    auto* waiter = static_cast<Copy*>(granted->owner);
    auto* self = static_cast<Copier*>(waiter->copier);
    self->locking_.Remove(waiter);
    self->Granted(waiter);
  };
  if (!host_.locks().Acquire(&lock)) return;
  locking_.Remove(copy);
  Granted(copy);
}

void Copier::Granted(Copy* copy) {
  copy->tag = host_.NewTag();
  active_.PushBack(copy);
  Sum(copy);
}

// A member that can be asked, now or when it is back.
bool Copier::IsSource(const Copy& copy, size_t index) const {
  return host_.IsStaying(index) && (copy.excluded & Bit(index)) == 0;
}

// Whether all that it must ask can be asked now.
bool Copier::Ready(const Copy& copy) const {
  const auto links = host_.links();
  if (copy.kind == CopyKind::kFill) {
    if (!copy.joiner->up()) return false;
    // One that could not be read is not asked again: the others are waited for. With none left it
    // is over.
    bool any = false;
    for (const auto& link : links) {
      if (!IsSource(copy, link->index())) continue;
      if (CanAsk(copy, *link)) return true;
      any = true;
    }
    return !any;
  }
  for (const auto& link : links) {
    if (host_.IsMember(link->index()) && !link->up()) return false;
  }
  return true;
}

// The member that a joiner is filled from: one that can be reached, with the least to do. False:
// there is none left.
bool Copier::PickSource(Copy* copy) const {
  const Link* best = nullptr;
  for (const auto& link : host_.links()) {
    if (!IsSource(*copy, link->index())) continue;
    const bool can = CanAsk(*copy, *link);
    const bool best_can = best != nullptr && CanAsk(*copy, *best);
    const bool better = best == nullptr || (can && !best_can) ||
                        (can == best_can && link->outstanding < best->outstanding);
    if (better) best = link.get();
  }
  if (best == nullptr) return false;
  copy->preferred = static_cast<uint8_t>(best->index());
  return true;
}

void Copier::Sum(Copy* copy) {
  copy->fault = ErrorCode::kOk;
  for (Copy::SumsOf& sums : copy->sums) sums.known = false;
  if (copy->cancelled) {
    Finish(copy, ErrorCode::kCancelled);
    return;
  }
  if (copy->kind == CopyKind::kEqual && host_.members().count == 1) {
    Finish(copy, ErrorCode::kOk);  // with whom
    return;
  }
  copy->state = Copy::State::kParked;
  if (!Ready(*copy)) return;
  if (!PickSource(copy)) {
    Finish(copy, copy->read_fault);
    return;
  }
  copy->state = Copy::State::kSumming;
  if (copy->kind == CopyKind::kFill) {
    const wire::Opcode opcode = copy->virgin ? wire::Opcode::kStatus : wire::Opcode::kSum;
    Send(copy, copy->preferred, opcode, 0, copy->blocks());
    if (!copy->virgin) {
      Send(copy, copy->joiner->index(), wire::Opcode::kSum, 0, copy->blocks());
    }
  } else {
    for (const auto& link : host_.links()) {
      if (!host_.IsMember(link->index())) continue;
      Send(copy, link->index(), wire::Opcode::kSum, 0, copy->blocks());
    }
  }
  if (copy->outstanding == 0) Advance(copy);
}

// A joiner's block that is corrupt at the source: the other members are asked as well. True: they
// are.
bool Copier::SumOthers(Copy* copy) {
  const Copy::SumsOf& of_source = copy->sums[copy->preferred];
  if (copy->kind != CopyKind::kFill || !of_source.known || of_source.bad.none()) return false;
  bool asked = false;
  for (const auto& link : host_.links()) {
    if (!host_.IsStaying(link->index()) || copy->sums[link->index()].known ||
        !CanAsk(*copy, *link)) {
      continue;
    }
    Send(copy, link->index(), wire::Opcode::kSum, 0, copy->blocks());
    asked = true;
  }
  return asked;
}

// Whether a joiner's block is good at none of the members that told, and one that is down may have
// it: before that is back, or has left, the block must not count as good nowhere.
bool Copier::AwaitsSource(const Copy& copy) const {
  if (copy.kind != CopyKind::kFill || copy.virgin) return false;
  const auto links = host_.links();
  const bool down = std::any_of(links.begin(), links.end(), [&](const auto& link) {
    const size_t i = link->index();
    return IsSource(copy, i) && !copy.sums[i].known;
  });
  if (!down) return false;
  for (uint32_t block = 0; block < copy.blocks(); ++block) {
    if (SourceOf(copy, block) == Copy::kNobody) return true;
  }
  return false;
}

uint8_t Copier::SourceOf(const Copy& copy, uint32_t block) const {
  const Copy::SumsOf& preferred = copy.sums[copy.preferred];
  if (copy.virgin || (preferred.known && !preferred.bad[block])) return copy.preferred;
  for (const auto& link : host_.links()) {
    const size_t i = link->index();
    const Copy::SumsOf& sums = copy.sums[i];
    if (!IsSource(copy, i)) continue;
    if (sums.known && !sums.bad[block]) return static_cast<uint8_t>(i);
  }
  return Copy::kNobody;
}

// Which replicas do not have what the block's source has.
uint8_t Copier::TargetsOf(Copy* copy, uint32_t block) const {
  const uint8_t source = copy->source[block];
  const bool nobody = source == Copy::kNobody;
  if (copy->virgin) return copy->zero[block] ? 0 : Bit(copy->joiner->index());
  uint8_t targets = 0;
  bool differs = false;
  for (size_t i = 0; i < copy->sums.size(); ++i) {
    const Copy::SumsOf& sums = copy->sums[i];
    if (!sums.known || i == source) continue;
    if (nobody) {
      // What a joiner has there was never compared with anything good: it is marked (rule 9), also
      // where it calls it bad by itself, which may be for as long as it cannot tell.
      const bool joiner = copy->kind == CopyKind::kFill && i == copy->joiner->index();
      if (joiner) targets |= Bit(i);
      continue;
    }
    const Copy::SumsOf& good = copy->sums[source];
    const bool other = !sums.bad[block] && sums.crc32c[block] != good.crc32c[block];
    bool wants = sums.bad[block];
    if (copy->kind == CopyKind::kEqual) wants |= other;
    if (copy->kind == CopyKind::kFill) {
      wants |= other || (good.hole[block] && !sums.hole[block]);
      wants &= i == copy->joiner->index();
    }
    differs |= other;
    if (wants) targets |= Bit(i);
    if (sums.bad[block] && copy->kind != CopyKind::kFill) ++copy->repaired_blocks;
  }
  if (copy->kind == CopyKind::kScrub && differs) ++copy->differing_blocks;
  return targets;
}

void Copier::Plan(Copy* copy) {
  copy->repaired_blocks = copy->corrupt_blocks = copy->differing_blocks = 0;
  for (uint32_t block = 0; block < copy->blocks(); ++block) {
    const uint8_t source = copy->source[block] = SourceOf(*copy, block);
    if (source == Copy::kNobody) {
      ++copy->corrupt_blocks;
      copy->zero[block] = false;
    } else if (!copy->virgin) {
      copy->zero[block] = copy->sums[source].hole[block];
    }
    copy->targets[block] = TargetsOf(copy, block);
  }
}

// The next piece that is to be read, within one source. False: there is none.
bool Copier::ReadNext(Copy* copy) {
  const auto wanted = [copy](uint32_t block) {
    return copy->targets[block] != 0 && !copy->zero[block] && copy->source[block] != Copy::kNobody;
  };
  uint32_t& cursor = copy->cursor;
  while (cursor < copy->blocks() && !wanted(cursor)) ++cursor;
  if (cursor == copy->blocks()) return false;
  const uint32_t first = cursor;
  const uint8_t source = copy->source[first];
  uint32_t end = first + 1;
  for (uint32_t block = end; block < copy->blocks() && block - end < kGapBlocksMax; ++block) {
    if (copy->source[block] != source) break;
    if (copy->virgin && !wanted(block)) break;
    if (wanted(block)) end = block + 1;
  }
  cursor = end;
  return Send(copy, source, wire::Opcode::kRead, first, end - first);
}

// The next run of blocks that is to be written, at the next of its targets. False: there is none.
bool Copier::WriteNext(Copy* copy) {
  uint32_t& cursor = copy->cursor;
  while (cursor < copy->blocks() && copy->targets[cursor] == 0) ++cursor;
  if (cursor == copy->blocks()) return false;
  const auto kind = [copy](uint32_t block) {
    if (copy->source[block] == Copy::kNobody) return wire::Opcode::kBad;
    return copy->zero[block] ? wire::Opcode::kUnmap : wire::Opcode::kWrite;
  };
  uint32_t end = cursor + 1;
  while (end < copy->blocks() && copy->targets[end] == copy->targets[cursor] &&
         kind(end) == kind(cursor)) {
    ++end;
  }
  uint8_t& left = copy->targets_left;
  if (left == 0) left = copy->targets[cursor];
  size_t target = 0;
  while ((left & Bit(target)) == 0) ++target;
  left &= static_cast<uint8_t>(~Bit(target));
  const uint32_t first = cursor;
  if (left == 0) cursor = end;
  return Send(copy, target, kind(first), first, end - first);
}

void Copier::Pump(Copy* copy) {
  while (copy->outstanding < Copy::kErrands && copy->fault == ErrorCode::kOk) {
    if (!(copy->state == Copy::State::kReading ? ReadNext(copy) : WriteNext(copy))) break;
  }
  if (copy->outstanding == 0) Advance(copy);
}

// True also when the link is down: that is a fault of this step.
bool Copier::Send(Copy* copy, size_t index, wire::Opcode opcode, uint32_t first, uint32_t blocks) {
  Link* link = host_.links()[index].get();
  const bool of_view = copy->views != nullptr && index != copy->joiner->index();
  // A source may have lost what it told the sums of: another one is taken.
  if (!link->up() || (of_view && !CanAsk(*copy, *link)) ||
      (opcode == wire::Opcode::kRead && !host_.IsStaying(index))) {
    copy->fault = ErrorCode::kConnectionLost;
    copy->fault_link = static_cast<uint8_t>(index);
    return true;
  }
  Errand* errand = copy->errand.data();
  while (errand->in_flight()) ++errand;
  errand->link = link;
  errand->opcode = opcode;
  errand->view = of_view ? (*copy->views)[index] : uint16_t{0};
  errand->offset_bytes = copy->offset_bytes + uint64_t{first} * kBlockBytes;
  errand->length_bytes = static_cast<uint32_t>(
      std::min<uint64_t>(uint64_t{blocks} * kBlockBytes,
                         copy->offset_bytes + copy->length_bytes - errand->offset_bytes));
  // From the last member also where its sync failed: there is nobody else.
  const bool reads = opcode == wire::Opcode::kRead || opcode == wire::Opcode::kSum;
  errand->flags = reads && host_.members().count == 1 ? wire::kFlagAnyway : uint16_t{0};
  // What fills a joiner, or is scrubbed, is not what clients are at work with. What a joiner's SUM
  // read may be read once more.
  const bool moves = opcode == wire::Opcode::kRead || opcode == wire::Opcode::kWrite;
  if ((copy->kind == CopyKind::kFill && moves) ||
      (copy->kind == CopyKind::kScrub && opcode == wire::Opcode::kSum)) {
    errand->flags |= wire::kFlagDisablePageOut;
  }
  errand->payload = nullptr;
  errand->payload_bytes = 0;
  errand->data =
      copy->chunk != nullptr ? copy->chunk->data + uint64_t{first} * kBlockBytes : nullptr;
  errand->take = nullptr;
  if (opcode == wire::Opcode::kSum) errand->take = TakeSums;
  if (opcode == wire::Opcode::kStatus) errand->take = TakeExtents;
  if (opcode == wire::Opcode::kRead) errand->take = TakeTable;
  if (opcode == wire::Opcode::kWrite) {
    errand->payload = reinterpret_cast<const std::byte*>(&copy->table[first]);
    errand->payload_bytes = blocks * 4;
  }
  errand->owner = copy;
  errand->index = static_cast<uint32_t>(index);
  errand->done = [](Errand* done) { static_cast<Copier*>(CopyOf(done)->copier)->OnErrand(done); };
  ++copy->outstanding;
  host_.SendErrand(errand);
  return true;
}

Status Copier::TakeSums(Errand* errand, std::span<const std::byte> payload) {
  Copy* copy = CopyOf(errand);
  Result<wire::Sums> decoded = wire::Sums::Decode(payload, errand->length_bytes);
  if (!decoded.ok()) return decoded.status();
  Copy::SumsOf& sums = copy->sums[errand->index];
  for (uint32_t block = 0; block < copy->blocks(); ++block) {
    sums.crc32c[block] = decoded.value().crc32c(block);
    sums.hole[block] = decoded.value().hole(block);
    sums.bad[block] = decoded.value().bad(block);
  }
  sums.known = true;
  return Status::Ok();
}

// Which blocks of the source are holes; what the answer does not cover counts as data.
Status Copier::TakeExtents(Errand* errand, std::span<const std::byte> payload) {
  Copy* copy = CopyOf(errand);
  std::array<BlockExtent, wire::kStatusExtentsMax> extents;
  Result<uint32_t> count =
      wire::DecodeExtents(payload, errand->length_bytes, extents.data(), extents.size());
  if (!count.ok()) return count.status();
  copy->zero.reset();
  uint64_t at = 0;
  for (uint32_t i = 0; i < count.value(); ++i) {
    const uint64_t end = at + extents[i].length_bytes;
    if (extents[i].hole && extents[i].zero) {
      const uint64_t end_block = end == copy->length_bytes ? copy->blocks() : end / kBlockBytes;
      for (uint64_t block = DivideUp(at, kBlockBytes); block < end_block; ++block) {
        copy->zero[block] = true;
      }
    }
    at = end;
  }
  return Status::Ok();
}

Status Copier::TakeTable(Errand* errand, std::span<const std::byte> payload) {
  Copy* copy = CopyOf(errand);
  std::memcpy(&copy->table[FirstBlock(*errand, *copy)], payload.data(), payload.size());
  return Status::Ok();
}

void Copier::OnErrand(Errand* errand) {
  Copy* copy = CopyOf(errand);
  --copy->outstanding;
  if (errand->status != ErrorCode::kOk && copy->fault == ErrorCode::kOk) {
    copy->fault = errand->status;
    copy->fault_link = static_cast<uint8_t>(errand->index);
  }
  if (errand->status == ErrorCode::kOk && errand->opcode == wire::Opcode::kWrite) {
    copy->copied_bytes += errand->length_bytes;
    copied_bytes_ += errand->length_bytes;
  }
  const bool moving = copy->state == Copy::State::kReading || copy->state == Copy::State::kWriting;
  if (moving && copy->fault == ErrorCode::kOk && !copy->cancelled) {
    Pump(copy);
  } else if (copy->outstanding == 0) {
    Advance(copy);
  }
}

// A step is done: nothing of it is in flight.
void Copier::Advance(Copy* copy) {
  if (copy->state == Copy::State::kWriting && copy->kind == CopyKind::kFill) --fills_writing_;
  if (copy->cancelled) {
    Finish(copy, ErrorCode::kCancelled);
    return;
  }
  if (copy->fault != ErrorCode::kOk) {
    Fault(copy);
    return;
  }
  switch (copy->state) {
    case Copy::State::kSumming: {
      if (SumOthers(copy)) {
        if (copy->outstanding == 0) Advance(copy);
        return;
      }
      if (AwaitsSource(*copy)) {
        copy->state = Copy::State::kParked;  // summed again by Kick
        return;
      }
      Plan(copy);
      const bool reads = std::any_of(copy->targets.begin(), copy->targets.begin() + copy->blocks(),
                                     [](uint8_t targets) { return targets != 0; });
      if (!reads) {
        Finish(copy, ErrorCode::kOk);
        return;
      }
      if (copy->chunk == nullptr) copy->chunk = host_.buffers().Acquire(copy->length_bytes);
      if (copy->chunk == nullptr) {
        copy->state = Copy::State::kParked;  // the front ends have all; asked again by Kick
        return;
      }
      copy->cursor = 0;
      copy->state = Copy::State::kReading;
      Pump(copy);
      return;
    }
    case Copy::State::kReading:
      copy->state = Copy::State::kHeld;
      if (copy->kind != CopyKind::kFill || !fills_held_) Write(copy);
      return;
    case Copy::State::kWriting:
      Finish(copy, ErrorCode::kOk);
      return;
    case Copy::State::kFree:
    case Copy::State::kHeld:
    case Copy::State::kLocking:
    case Copy::State::kParked:
      CHECK(false);
  }
}

void Copier::Write(Copy* copy) {
  copy->cursor = 0;
  copy->targets_left = 0;
  copy->state = Copy::State::kWriting;
  if (copy->kind == CopyKind::kFill) ++fills_writing_;
  Pump(copy);
}

void Copier::HoldFills(bool hold) {
  fills_held_ = hold;
  if (hold) return;
  Copy* next = nullptr;
  for (Copy* copy = active_.front(); copy != nullptr; copy = next) {
    next = active_.Next(copy);
    if (copy->state == Copy::State::kHeld) Write(copy);
  }
}

// Something of this step failed, and nothing of it is in flight any more. What was written may be
// written again: the range is still locked.
void Copier::Fault(Copy* copy) {
  const ErrorCode fault = copy->fault;
  Link& link = *host_.links()[copy->fault_link];
  if (copy->kind == CopyKind::kFill && &link == copy->joiner) {
    Finish(copy, fault);
    return;
  }
  const bool read = copy->state == Copy::State::kReading || copy->virgin;
  copy->state = Copy::State::kParked;
  if (fault == ErrorCode::kConnectionLost) {
    // It is back soon, or leaves.
    if (Ready(*copy)) Sum(copy);
    return;
  }
  if (fault == ErrorCode::kCorrupt && copy->virgin) {
    copy->virgin = false;  // which blocks are bad, their sums tell
    Sum(copy);
    return;
  }
  if (read || copy->kind == CopyKind::kFill) {
    // Another member may be able to tell.
    copy->excluded |= Bit(link.index());
    copy->read_fault = fault;
    Sum(copy);
    return;
  }
  host_.MemberFailed(link, {fault, std::string("making it equal failed: ") + ErrorCodeName(fault)});
}

void Copier::Finish(Copy* copy, ErrorCode status) {
  CHECK(copy->outstanding == 0);
  copy->status = status;
  copy->state = Copy::State::kFree;
  active_.Remove(copy);
  finished_.PushBack(copy);
  host_.reactor().Defer(&finish_task_);
  if (copy->chunk != nullptr) BufferPool::Release(std::exchange(copy->chunk, nullptr));
  if (!copy->owner_locks) host_.locks().Release(&copy->lock);
}

void Copier::Kick() {
  Copy* next = nullptr;
  for (Copy* copy = active_.front(); copy != nullptr; copy = next) {
    next = active_.Next(copy);
    if (copy->state == Copy::State::kParked) Sum(copy);
    if (copy->state == Copy::State::kHeld && copy->cancelled) Finish(copy, ErrorCode::kCancelled);
  }
}

// `joiner`: null: copies of any kind.
void Copier::Cancel(const Link* joiner, bool written) {
  const auto cancel = [&](Copy* copy) {
    if (joiner != nullptr && copy->joiner != joiner) return;
    copy->cancelled |= written || copy->state != Copy::State::kWriting;
  };
  for (Copy* copy = locking_.front(); copy != nullptr; copy = locking_.Next(copy)) cancel(copy);
  for (Copy* copy = active_.front(); copy != nullptr; copy = active_.Next(copy)) cancel(copy);
  Kick();
}

}  // namespace ankole::engine
