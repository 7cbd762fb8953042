#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>

#include "base/buffer_pool.h"
#include "base/intrusive_list.h"
#include "engine/errand.h"
#include "engine/range_lock.h"
#include "engine/resync_host.h"
#include "engine/view_set.h"
#include "wire/regions.h"

namespace ankole::engine {

enum class CopyKind : uint8_t {
  kEqual,   // all members get what one of them has (rule 7)
  kFill,    // a joiner gets what the members have
  kRepair,  // members whose block is corrupt get it from one where it is not (rule 9)
  kScrub,   // the same, and members that differ are counted
};

// One range of whole blocks, at most kDataBytesMax, that is made the same at several replicas:
//
//   locking ─▶ summing ─▶ reading ─▶ (held ─▶) writing ─▶ done
//                any ─a member is away▶ parked ─▶ summing
//
// Checksums are compared first, and only the blocks that differ are read and written. The range is
// locked from before the first question to after the last answer, also while it is parked: a write
// whose answer was lost may still be under way.
struct Copy {
  static constexpr size_t kErrands = 8;
  static constexpr uint8_t kNobody = 0xff;
  enum class State : uint8_t { kFree, kLocking, kSumming, kReading, kHeld, kWriting, kParked };

  // --- set by who starts it ---
  CopyKind kind = CopyKind::kEqual;
  uint64_t offset_bytes = 0;  // multiple of kBlockBytes
  uint32_t length_bytes = 0;  // likewise, but at the volume's end
  bool owner_locks = false;   // the range is locked by the owner, exclusively
  bool virgin = false;        // kFill: the joiner has nothing there yet but holes
  Link* joiner = nullptr;     // kFill
  // kFill: of a snapshot, from the members where it is open. Nobody writes to it, nor to the
  // joiner: the range needs no lock.
  const ViewIds* views = nullptr;
  void (*done)(Copy*) = nullptr;
  void* owner = nullptr;

  // --- the outcome ---
  ErrorCode status = ErrorCode::kOk;
  uint32_t copied_bytes = 0;      // written, at all targets together
  uint32_t repaired_blocks = 0;   // corrupt ones that were written anew
  uint32_t corrupt_blocks = 0;    // good nowhere
  uint32_t differing_blocks = 0;  // kScrub: not corrupt, and not the same at all members

  // --- the copier's ---
  struct SumsOf {
    bool known = false;
    std::array<uint32_t, wire::kSumBlocksMax> crc32c;
    std::bitset<wire::kSumBlocksMax> hole;
    std::bitset<wire::kSumBlocksMax> bad;
  };
  void* copier = nullptr;
  State state = State::kFree;
  bool cancelled = false;
  uint64_t tag = 0;  // none of its errands has a lower one
  LockRequest lock;
  BufferPool::Chunk* chunk = nullptr;
  uint8_t preferred = 0;  // the source, unless its block is corrupt
  uint8_t excluded = 0;   // links that cannot be read from, for `read_fault`
  ErrorCode read_fault = ErrorCode::kIoError;
  uint32_t cursor = 0;               // the next block to be read or written
  uint8_t targets_left = 0;          // of the run at the cursor
  uint32_t outstanding = 0;          // errands
  ErrorCode fault = ErrorCode::kOk;  // the first one of this step
  uint8_t fault_link = 0;
  std::array<SumsOf, kReplicasMax> sums;
  std::array<uint8_t, wire::kSumBlocksMax> source;   // link, or kNobody: good nowhere
  std::array<uint8_t, wire::kSumBlocksMax> targets;  // bits of links that need the block
  std::bitset<wire::kSumBlocksMax> zero;             // a hole at the source
  std::array<uint32_t, wire::kSumBlocksMax> table;
  std::array<Errand, kErrands> errand;
  ListNode node;  // free, active or parked

  uint32_t blocks() const { return static_cast<uint32_t>(DivideUp(length_bytes, kBlockBytes)); }
};

// Copies ranges between replicas: what makes members equal, fills joiners, repairs and scrubs.
class Copier {
 public:
  Copier(ResyncHost& host, size_t copies);
  ~Copier();
  Copier(const Copier&) = delete;
  Copier& operator=(const Copier&) = delete;

  // Null: all are out.
  Copy* Acquire();
  // `done` follows, never from within Start; after it the copy goes back by Release.
  void Start(Copy* copy);
  void Release(Copy* copy);

  // The members, or which of them can be reached, may have changed.
  void Kick();
  // Nothing of what was read for a joiner begins to be written to it until it is called with false.
  void HoldFills(bool hold);
  // How many copies are being written to a joiner.
  size_t fills_writing() const { return fills_writing_; }
  // Copies to this joiner end with kCancelled, as soon as nothing of them is in flight.
  void CancelFills(const Link& joiner) { Cancel(&joiner, true); }
  // Likewise, but not those that are being written.
  void CancelUnwritten(const Link& joiner) { Cancel(&joiner, false); }
  // All end.
  void CancelAll() { Cancel(nullptr, true); }

  // The lowest tag that one under way may have used; UINT64_MAX: none is.
  uint64_t OldestTag() const { return active_.empty() ? UINT64_MAX : active_.front()->tag; }
  // Nothing of it is under way.
  bool idle() const { return locking_.empty() && active_.empty() && finished_.empty(); }
  uint64_t copied_bytes() const { return copied_bytes_; }

 private:
  void Granted(Copy* copy);
  void Sum(Copy* copy);
  bool SumOthers(Copy* copy);
  bool AwaitsSource(const Copy& copy) const;
  void Plan(Copy* copy);
  uint8_t SourceOf(const Copy& copy, uint32_t block) const;
  uint8_t TargetsOf(Copy* copy, uint32_t block) const;
  bool ReadNext(Copy* copy);
  bool WriteNext(Copy* copy);
  void Pump(Copy* copy);
  bool Send(Copy* copy, size_t index, wire::Opcode opcode, uint32_t first, uint32_t blocks);
  void OnErrand(Errand* errand);
  void Advance(Copy* copy);
  void Write(Copy* copy);
  void Fault(Copy* copy);
  void Cancel(const Link* joiner, bool written);
  void Finish(Copy* copy, ErrorCode status);
  bool IsSource(const Copy& copy, size_t index) const;
  bool Ready(const Copy& copy) const;
  bool PickSource(Copy* copy) const;
  static Status TakeSums(Errand* errand, std::span<const std::byte> payload);
  static Status TakeExtents(Errand* errand, std::span<const std::byte> payload);
  static Status TakeTable(Errand* errand, std::span<const std::byte> payload);

  ResyncHost& host_;
  const size_t copies_;
  Copy* memory_;
  size_t made_ = 0;
  uint64_t copied_bytes_ = 0;
  bool fills_held_ = false;
  size_t fills_writing_ = 0;
  IntrusiveList<Copy, &Copy::node> free_;
  IntrusiveList<Copy, &Copy::node> locking_;
  IntrusiveList<Copy, &Copy::node> active_;  // they have the lock; in the order of their tags
  IntrusiveList<Copy, &Copy::node> finished_;
  io::Task finish_task_;
};

}  // namespace ankole::engine
