#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/intrusive_list.h"
#include "base/result.h"
#include "io/file_system.h"
#include "io/reactor.h"
#include "replica/block_map.h"
#include "replica/chain.h"
#include "replica/operation.h"
#include "replica/sum_file.h"
#include "replica/sum_table.h"

namespace ankole::replica {

// What was found wrong since the replica was opened.
struct SumCounters {
  uint64_t errors = 0;         // reads of blocks that do not match, or are known to be bad
  uint64_t pages_damaged = 0;  // pages of checksums that are not whole: their blocks have none now
  uint64_t pages_dropped = 0;  // pages that found no space on the disk, likewise
  SumCounters& operator+=(const SumCounters& other) {
    errors += other.errors;
    pages_damaged += other.pages_damaged;
    pages_dropped += other.pages_dropped;
    return *this;
  }
};

// The checksums at rest of a replica (rule 9): where they are kept, verified and made durable. Each
// layer has a file of its own; of a block the one counts that it lies in. The table is about what
// the head shows, in whatever layer that lies.
//
// On the reactor's thread, but for what is said to block. Writes of a region change the table only;
// the head's file follows by Settle, before the region counts as clean, or by Fix where a block is
// or was bad. What it lacks when the head is frozen is kept until a job has written that, too.
class BlockSums {
 public:
  BlockSums(io::FileSystem& files, io::Reactor& reactor);
  ~BlockSums();
  BlockSums(const BlockSums&) = delete;
  BlockSums& operator=(const BlockSums&) = delete;

  // Blocking. Opens the layers' files, and makes that of the head; one whose header is not whole is
  // replaced, and `notes` says so. Where it finds no space the replica does without until it is
  // opened again. `sync_failed`: an earlier process had a sync that failed; what is read must come
  // from the disk.
  Status Open(const std::string& directory, Chain* chain, const BlockMap* map, bool sync_failed,
              std::string* notes);
  // Blocking. What the table knows is durable when it returns; nothing is computed anew: what is
  // not known is none from then on. `sync_failed`: the failure is rule 1's.
  Status Persist(bool* sync_failed);
  void Close();
  // Blocking: whether the head has no block of the region, and its file says nothing of it.
  bool HeadLacks(uint64_t region);
  // Blocking: of these regions no block of the layer has a checksum from now on, durably.
  Status Forget(uint16_t layer, const std::vector<uint64_t>& regions);
  bool on() const { return on_; }

  // The chain has a new head, whose file this is; it has no checksums yet. No operation is under
  // way.
  void SwitchHead(SumFile file);
  // Both layers' blocks have their checksums there from now on. No operation is under way.
  void MergeLayers(uint32_t lower, uint32_t upper, SumFile merged);
  // Makes durable what the frozen head's file lacks. `done` runs later, unless nothing is lacking:
  // then false, and it does not. One at a time.
  struct FreezeRequest {
    void (*done)(FreezeRequest*) = nullptr;
    void* owner = nullptr;
    Status status;
    bool sync_failed = false;  // rule 1
  };
  bool WhenFrozen(FreezeRequest* request);

  // --- a volume that becomes larger (expand.cc)
  // Memory for so many regions.
  Status MakeRoom(uint64_t regions) { return on() ? table_.Reserve(regions) : Status::Ok(); }
  // Runs `held` now or later: no job writes the file from then on, until Release.
  void Hold(void (*held)(void* owner), void* owner);
  void Release();
  // Blocking, while held. The head's file fits so many regions, durably, and the volume as it is as
  // well. Of what the new part begins in no file says anything any more, but that it is bad.
  Status GrowFiles(uint64_t regions, bool* sync_failed);
  // While held: the volume is of that size, or as large as it was.
  void Grow(uint64_t size_bytes);
  // What it holds as a whole is known to be this.
  void Set(uint64_t block, uint32_t sum) { table_.Set(block, sum); }

  // The file may lack what was written to the region: found dirty when the replica was opened.
  void SetStale(uint64_t region) {
    if (on()) table_.SetStale(region);
  }
  // Nothing is known of the region that is not durable in the file.
  bool settled(uint64_t region) const {
    return !on() || (table_.settled(region) && FrozenOf(region) == nullptr);
  }
  const SumCounters& counters() const { return counters_; }
  void Trim();

  // --- on the way of an operation
  // ------------------------------------------------------------------

  // Runs `proceed` now, or when what the file knows of the operation's blocks is in memory, as far
  // as it is needed and there is room.
  void With(ReplicaOperation* operation, void (*proceed)(ReplicaOperation*));
  // Whether a region of the range may hold blocks that are bad.
  bool MayHoldBad(uint64_t offset_bytes, uint64_t length_bytes) const;
  // Whether what is known of that block does not tell, though it may be bad: its page cannot be
  // read. Nobody reads it then, and who would change a part of it must fail.
  bool Blind(uint64_t block) const;
  // Whether the whole block, as it was read, is not what was written. Counts it.
  bool Mismatches(uint64_t block, const std::byte* data);
  bool Mismatches(uint64_t block, uint32_t crc32c);
  // Checks what a kRead has in its buffer, and fills operation->checksums where they are asked for.
  // False: a block does not match.
  bool Verify(ReplicaOperation* operation);
  // A write, zero or unmap is done at the files: takes in the checksums, then runs `finish`, now or
  // when what must be durable before the answer is.
  void Note(ReplicaOperation* operation, void (*finish)(ReplicaOperation*));
  // It failed: what its blocks hold is not known.
  void NoteFailed(const ReplicaOperation& operation);
  // kBad: the blocks are marked, durably, then `finish` runs.
  void MarkBad(ReplicaOperation* operation, void (*finish)(ReplicaOperation*));
  // What was computed from the data of a block that nobody writes: kept where the file is behind.
  void Keep(uint64_t block, uint32_t crc32c);
  // For zero.cc: what is known of a block that is changed in part, on a pool thread.
  uint32_t SumOf(uint64_t block) const;

  // --- before regions become clean
  // -----------------------------------------------------------------

  // Makes durable what is known of the regions, and computes anew what is not. At most one region
  // is computed at a time.
  struct SettleRequest {
    uint64_t first = 0;
    uint64_t end = 0;
    // Those behind one region too many that must be computed are left: `more`.
    uint64_t computed_max = UINT64_MAX;
    // Whether the region is to be settled; null: all.
    bool (*wanted)(void* owner, uint64_t region) = nullptr;
    void (*done)(SettleRequest*) = nullptr;
    void* owner = nullptr;
    // The outcome. kOk does not say that all are settled: some may have been written meanwhile.
    Status status;
    bool more = false;
    bool sync_failed = false;  // rule 1
    ListNode node;
    uint64_t next = 0;
    uint64_t computed = 0;
  };
  void Settle(SettleRequest* request);

 private:
  using List = IntrusiveList<ReplicaOperation, &ReplicaOperation::node>;
  struct Load : io::FileOperation {
    uint64_t region = 0;
    uint32_t layer = 0;        // whose page is read
    bool blind = false;        // that of the head does not tell what is bad
    uint64_t page_writes = 0;  // when it began
    bool busy = false;
    List waiters;
    SumPage page;
    uint32_t sums[kRegionBlocks];  // of the pages read until now
  };
  static constexpr size_t kLoads = 8;
  // What a job writes at a time.
  struct Batch {
    SumTable::Copy copies[SumTable::kCopiesMax];
    // Where the blocks lie, as the job must not look at the map, which is this thread's. Not set
    // where the head is alone or everything is known.
    uint16_t layers[SumTable::kCopiesMax][kRegionBlocks];
    bool has_layers[SumTable::kCopiesMax];
    bool holds_bad[SumTable::kCopiesMax];  // the job's
    bool listed_by_it[SumTable::kCopiesMax];
    size_t count;
    const SumTable::Frozen* frozen[SumTable::kCopiesMax];
    SumPage page;
    alignas(4096) std::byte data[128 * kKiB];
  };

  // block_sums.cc
  bool NeedsLoad(const ReplicaOperation& operation, uint64_t region) const;
  void StartLoad(Load* load, uint64_t region);
  bool HoldsBlocks(uint32_t layer, uint64_t region) const;
  bool LoadNext(Load* load);
  void ReadLoad(Load* load);
  void TakePage(Load* load, SumPageState state);
  void EndLoad(Load* load);
  const SumTable::Frozen* FrozenOf(uint64_t region) const;
  void DropBadRegion(uint64_t region);
  static void LoadDone(io::Operation* operation);
  bool MayHoldBadRegion(uint64_t region) const;
  bool IsBeingListed(uint64_t region) const;
  bool ClearsBad(const ReplicaOperation& operation) const;
  uint32_t NewSum(const ReplicaOperation& operation, uint64_t block) const;
  void Apply(const ReplicaOperation& operation);

  // frozen_sums.cc: what a frozen head's file lacked.
  void FillForFrozen();
  Status WriteFrozen();
  Status CompleteFrozen(const SumTable::Frozen& frozen);
  void ComputeFrozen(const SumTable::Frozen& frozen);
  void EndFrozen();

  // sum_jobs.cc: jobs that write the file, one at a time.
  void AimAtHead();
  void StartJob();
  void FillForSettle();
  void FillForFix();
  void AddCopy(uint64_t region);
  void DropCopies(bool written);
  static void JobWork(io::Job* job);
  static void JobDone(io::Operation* job);
  void EndSettle();
  void EndFix();
  Status WriteBatch(bool compute);
  Status CompleteCopy(size_t index, bool compute);
  void CompleteFromLower(size_t index);
  void Compute(size_t index);
  size_t ReadBlocks(io::File file, uint64_t block, uint64_t blocks);
  Status Sync();

  io::FileSystem& files_;
  io::Reactor& reactor_;
  Chain* chain_ = nullptr;
  const BlockMap* map_ = nullptr;
  uint64_t size_bytes_ = 0;
  bool on_ = false;
  // By index in the chain, the head's last; null where a layer has none. A job uses them, too.
  std::vector<std::shared_ptr<SumFile>> files_of_;
  SumTable table_;
  SumCounters counters_;
  // Regions that the header lists, or will when the job is done.
  std::vector<uint64_t> bad_regions_;

  std::unique_ptr<Load[]> loads_;
  size_t loads_busy_ = 0;
  List load_waiters_;

  io::Job job_;
  Batch* batch_ = nullptr;  // in reserved memory that is taken by first use
  bool job_running_ = false;
  bool held_ = false;
  void (*held_done_)(void* owner) = nullptr;  // until the job that runs has ended
  void* held_owner_ = nullptr;
  // Of the job that runs:
  SumFile* job_file_ = nullptr;
  uint16_t head_layer_ = 0;
  io::File head_data_;
  bool job_last_ = false;  // nothing is left of what it is for: all is synced
  Status job_status_;
  bool job_sync_failed_ = false;
  SumCounters job_counters_;
  uint64_t page_writes_ = 0;  // grows when a job begins and when it ends
  IntrusiveList<SettleRequest, &SettleRequest::node> settles_;
  SettleRequest* settle_running_ = nullptr;
  List fixes_;
  ReplicaOperation* fix_running_ = nullptr;
  // What the file of the layer under the head lacks, and how far a job has written it.
  std::vector<std::unique_ptr<SumTable::Frozen>> frozen_;
  uint32_t frozen_layer_ = 0;
  size_t frozen_next_ = 0;
  bool frozen_running_ = false;
  FreezeRequest* freeze_request_ = nullptr;
};

}  // namespace ankole::replica
