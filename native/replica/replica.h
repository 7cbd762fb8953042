#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/buffer_pool.h"
#include "base/intrusive_list.h"
#include "base/result.h"
#include "io/file_system.h"
#include "io/reactor.h"
#include "replica/block_map.h"
#include "replica/block_sums.h"
#include "replica/chain.h"
#include "replica/mask_file.h"
#include "replica/metadata.h"
#include "replica/operation.h"
#include "replica/record_file.h"
#include "replica/region_map.h"
#include "replica/view.h"
#include "wire/record.h"

// A replica on disk: a directory as docs/internals/replica-format.md describes it.
namespace ankole::replica {

// What can be told of a replica without opening it.
struct ReplicaDescription {
  Identity identity;
  uint64_t size_bytes = 0;
  uint64_t allocated_bytes = 0;  // what the directory's files take up
  bool unclean = false;          // the last stop was, or it is open now
  bool sync_failed = false;      // marked by rule 1
  bool adopted = false;          // from Longhorn, and not confirmed: no layer of it changes
  uint64_t dirty_regions = 0;    // as the file shows them: no fewer than there are
  wire::RecordPair record;
  wire::Epoch welcomed;
};

// An open replica. Opened, closed, created and destroyed by blocking functions that are run in an
// io::Job; in between owned by the reactor's thread. It does no range locking: operations that are
// in flight at the same time touch different 4 KiB blocks (those of no range and kStatus aside),
// which the engine sees to (rule 4).
class Replica {
 public:
  // --- blocking
  // ------------------------------------------------------------------------------------

  // Makes the replica at `directory`, whole or not at all: it is built beside and renamed.
  // kAlreadyExists; kUnsupported where the file system has no FIEMAP or no 4 KiB blocks.
  static Status Create(io::FileSystem& files, const std::string& directory,
                       const Identity& identity, uint64_t size_bytes);
  // kBusy while another process (or this one) has it open. Writes nothing to the directory but what
  // is missing: the lock, or the maps of a replica that was made without. `sync_failed`: a sync
  // failed in this process while it was open before, whether that could be marked or not. A replica
  // that is suspect takes writes and flushes, for a resync: it is suspect all the same.
  static Result<std::unique_ptr<Replica>> Open(io::FileSystem& files, io::Reactor& reactor,
                                               const std::string& directory,
                                               bool sync_failed = false);
  // Ends its life; in_flight() is 0. With `clean` everything is flushed and the replica is marked
  // as stopped clean; that is the engine's word that it is equal to the other members. The lock is
  // let go in any case. On failure the replica counts as stopped unclean.
  static Status Close(std::unique_ptr<Replica> replica, bool clean);
  // Renames it aside, then deletes it. kBusy while it is open. kOk when there is none.
  static Status Destroy(io::FileSystem& files, const std::string& directory);
  static Result<ReplicaDescription> Describe(io::FileSystem& files, const std::string& directory);
  // Deletes what a Create or Destroy that was cut short left in the directory of replicas. To be
  // called before replicas are opened there.
  static Status RemoveLeftovers(io::FileSystem& files, const std::string& replicas_directory);

  // --- on the reactor's thread
  // -----------------------------------------------------------------------

  ~Replica();  // without Close: as after a crash, but the lock goes last
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  // Takes the operation; `done` will run exactly once, later. What the submitter got wrong (range,
  // alignment) is answered with kInvalidArgument or kOutOfRange.
  //
  // kIoError: the medium failed. kNoSpace: the disk is full, nothing else is wrong. kSuspect: an
  // earlier flush failed (rule 1); so it is answered to writes and flushes, and to kRead and kSum
  // without `anyway`, until kRecord with `resynced`, or until the replica was opened anew.
  void Submit(ReplicaOperation* operation);
  // Gives back memory that was only taken to be fast. For when nothing was done for a while.
  void Trim() { sums_.Trim(); }
  // Closes the views that `holder` opened; what it reads of them must be done.
  void CloseViews(const void* holder);
  // Submitted and not done.
  size_t in_flight() const { return in_flight_; }

  const Identity& identity() const { return identity_; }
  const std::string& directory() const { return directory_; }
  uint64_t size_bytes() const { return chain_.size_bytes(); }
  // What is durable: changes when an operation of kRecord is done.
  const wire::RecordPair& record() const { return record_state_.record; }
  const wire::Epoch& welcomed() const { return record_state_.welcomed; }
  // The stop before this opening was not clean: what was not flushed may be lost, and members may
  // differ.
  bool unclean() const { return unclean_ || regions_.dirty_regions() > 0; }
  // It was not, and the machine booted or the file system was mounted since: acknowledged writes
  // may be lost.
  bool rebooted() const { return rebooted_; }
  // A flush or durable write failed since it was opened: no write and no flush is taken (rule 1).
  bool sync_failed() const { return sync_failed_; }
  // Verified against checksums at rest (rule 9).
  bool has_checksums() const { return sums_.on(); }
  const SumCounters& sum_counters() const { return sums_.counters(); }
  BlockSums& sums() { return sums_; }
  // What was out of order when it was opened and does not keep it from working; or empty.
  const std::string& notes() const { return notes_; }
  // What it holds may not be what was acknowledged (rule 7). Lasts until kRecord with `resynced`.
  bool suspect() const { return rebooted_ || failed_marker_ || sync_failed_; }
  // It is, for something that happened since its record was written: by that record the engine took
  // it as it was then. A failed sync counts always.
  bool lost() const {
    return (rebooted_ && record_state_.recorded_in != IncarnationOf(boot_id_, mount_id_)) ||
           failed_marker_ || sync_failed_;
  }
  // The layer under the head is not known to be durable at all members (rule 8).
  bool unsealed() const { return record_state_.unsealed; }
  // It has no record and nothing was ever written.
  bool fresh() const { return fresh_; }
  // The dirty and missing maps (rule 5).
  const RegionMap& regions() const { return regions_; }
  // What was wrong with the maps when it was opened, for logs; empty: nothing.
  const std::string& region_damage() const { return region_damage_; }
  // When it was opened: some may go by kMerge.
  bool has_removed_layers() const {
    return (has_removed_layers_ || !discarded_heads_.empty()) && !read_only_;
  }
  // It was reverted to a snapshot: it must be opened anew, and nothing but Close be asked of it.
  bool reverted() const { return reverted_; }
  // Why the last kMerge failed, for logs.
  const Status& merge_failure() const { return merge_failure_; }
  // How many removed layers stay for now as another replica has the same files (clone.h): as the
  // last kMerge found.
  size_t layers_shared() const { return layers_shared_; }
  // Why the last kClone failed, for logs; kOk where that is all in its status.
  const Status& clone_failure() const { return clone_failure_; }
  // Why, for logs: the marker's text or the error.
  const std::string& sync_failure() const { return sync_failure_; }

 private:
  using List = IntrusiveList<ReplicaOperation, &ReplicaOperation::node>;
  enum class DirtyState { kClean, kMarking, kDirty };

  Replica(io::FileSystem& files, io::Reactor& reactor, std::string directory);

  enum class RegionTask { kNone, kBegin, kTidy };

  // lifecycle.cc
  Status Load();
  Status LoadRegions(bool foreign);
  bool NeverWritten();
  Status OpenMasks();
  Status MarkClean();
  Status TidyRegions(bool all_clean);
  Status WriteFailedMarker(const std::string& reason);

  // replica.cc: the way of an operation.
  static bool NeedsChain(OperationKind kind);
  void Start(ReplicaOperation* operation);
  ErrorCode Check(const ReplicaOperation& operation) const;
  bool Spoiled(const ReplicaOperation& operation) const;
  void Finish(ReplicaOperation* operation, ErrorCode status);
  void FinishFailed(ReplicaOperation* operation, ErrorCode code);
  void FinishLater(ReplicaOperation* operation, ErrorCode status);
  void FinishDeferred();
  // Runs `proceed` now, or when the replica is marked dirty.
  void WhenDirty(ReplicaOperation* operation, void (*proceed)(ReplicaOperation*));
  // Runs `proceed` now, or when a chunk of that size is free; it is operation->scratch then.
  void WithScratch(ReplicaOperation* operation, size_t bytes, void (*proceed)(ReplicaOperation*));
  void ReleaseScratch(ReplicaOperation* operation);
  // Marks the failure durably (rule 1), then finishes with kIoError.
  void FinishSyncFailed(ReplicaOperation* operation, int64_t result);
  void Latch(const std::string& reason);
  void StartBad(ReplicaOperation* operation);
  void StartClean();
  void EndSettle();
  static ErrorCode OutcomeOf(const Status& status);

  // regions.cc: the way of a mark.
  template <typename Each>
  static bool EachRange(const ReplicaOperation& operation, Each each);
  // Runs `proceed` now, or when the regions are durably marked.
  void WhenMarked(ReplicaOperation* operation, void (*proceed)(ReplicaOperation*));
  void Mark(const ReplicaOperation& operation);
  RegionSector* BatchSector(uint32_t index);
  bool MarkInBatch(uint32_t region);
  bool MarkInBatch(const ReplicaOperation& operation);
  void StartRegionTask(RegionTask task, uint8_t begun, uint8_t set);
  void TaskContent(uint32_t index, RegionSector* sector);
  void AddTask();
  void StartRegions();
  static void RegionWork(io::Job* job);
  static void RegionDone(io::Operation* job);

  // layers.cc: the tree of layers, and what the record queue does to it.
  struct Prepared;
  Status LoadLayers();
  Status ForgetChecksumsOfUnsealed();
  Result<std::vector<LayerMeta>> Path(const std::string& upper, const std::string& base) const;
  ErrorCode CheckLayer(const ReplicaOperation& operation) const;
  void StartLayer();
  void CloseView(ReplicaOperation* operation);
  static void SettleLayer(BlockSums::FreezeRequest* request);
  bool IsRemoved(const std::string& file_name) const;
  std::string LayerUnderHead();
  void BeginLayer(ReplicaOperation* operation);
  Status RunLayer(ReplicaOperation* operation);
  Status Prepare(const ReplicaOperation& operation);
  Status PrepareFreeze(const ReplicaOperation& operation);
  Status PrepareRevert(const ReplicaOperation& operation);
  Status PrepareHead();
  bool HoldsForRevert();
  void MarkReverted();
  void EndMarkReverted();
  void DropPrepared();
  Status RemovePrepared();
  Status SealLayer();
  Status DeleteLayer(const std::string& file_name);
  std::vector<const LayerMeta*> ParentsFirst() const;
  Status ListLayers(ReplicaOperation* operation);
  Status ListChanged(ReplicaOperation* operation);
  Result<std::vector<LayerMeta>> Between(const std::string& one, const std::string& other) const;
  Result<std::vector<bool>> Changed(const std::string& layer, const std::string& base,
                                    uint32_t first);
  Status OpenView(ReplicaOperation* operation);
  ErrorCode BeginPrepare(const ReplicaOperation& operation);
  // Whether RunLayer is to do it, in the record queue.
  static bool NeedsTree(const ReplicaOperation& operation);
  void EndLayer(const Status& outcome);
  static ErrorCode OutcomeOfLayer(const Status& outcome);
  Status MakeScratch();
  Status SyncMetadata();

  // merges.cc: layers that go.
  struct Merge;
  Status FinishMerge();
  Status ForgetMerge();
  void DropMerge();
  Status PlanMerge(bool* more);
  Status DeleteLeaf(const std::string& name);
  Status OpenMerge(const std::string& lower, const std::string& upper);
  Status BeginPunch(const std::string& name);
  Status BeginMerge(const std::string& lower, const std::string& upper);
  void StartMergeStep(ReplicaOperation* operation);
  Status MergeStep();
  Status GrowLower();
  Status MergeMasks();
  Status MaskLower(const std::vector<std::pair<uint64_t, uint64_t>>& runs);
  Status MergeData();
  Status MergeSums();
  Status MergePage(const SumFile* upper, const SumFile* lower, const MaskFile* masks,
                   uint64_t region);
  Status SyncLower();
  Status SyncHeadsFile(io::File file);
  Status PunchUnderHead();
  Status RunMerge(ReplicaOperation* operation);
  void SwapMerged();
  void EndMergeStep(ReplicaOperation* operation);

  // clone.cc: replicas of other volumes that have layers of this one.
  ErrorCode BeginClone(const std::string& name);
  void ReleaseClones();
  void RunClone(ReplicaOperation* operation);
  bool IsShared(const std::string& name);
  Status FreeName(const std::string& name);
  void EndFreeName();
  bool MergesIntoShared();

  // switch.cc: another head.
  bool Switches(const ReplicaOperation& operation) const;
  void OnQuiet();
  void BeginOperation(ReplicaOperation* operation);
  void ApplySwitch();
  void EndSwitch();
  static Status GiveNames(io::FileSystem& files, const std::string& directory, VolumeMeta* volume,
                          const std::string& head);

  // view_reads.cc
  void StartView(ReplicaOperation* operation);
  static void ViewWork(io::Job* job);
  static void ViewDone(io::Operation* job);

  // records.cc: the record queue.
  void StartRecord();
  void BeginRecord(ReplicaOperation* operation);
  void BeginClean(ReplicaOperation* operation);
  void Clean(const ReplicaOperation& operation);
  void BeginMissing(ReplicaOperation* operation);
  void AbandonMaps(uint8_t begun);
  void FinishRegionTask(ErrorCode status);
  void RunRecordTask();
  void RunRecordJob(bool record, const MissingSlots& slots_after);
  Status DropFailedMarker();
  Status WriteRecord();
  static void RecordWork(io::Job* job);
  static void RecordDone(io::Operation* job);
  void ApplyRecord(const ReplicaOperation& operation);
  void EndRecord(ErrorCode status);

  // sum.cc
  void StartSum(ReplicaOperation* operation);
  Status Sum(ReplicaOperation* operation);
  void FindBad(ReplicaOperation* operation);
  static void SumWork(io::Job* job);
  static void SumDone(io::Operation* job);

  // read_write.cc
  void StartRead(ReplicaOperation* operation);
  static void ReadNow(ReplicaOperation* operation);
  bool IssueReads(ReplicaOperation* operation);
  ErrorCode EndRead(ReplicaOperation* operation);
  void ReadLane(ReplicaOperation* operation, int lane, uint16_t layer, uint64_t offset_bytes,
                uint64_t length_bytes);
  static void ReadLaneDone(io::Operation* lane);
  bool NeedsMerge(uint64_t block, bool partial) const;
  void StartWrite(ReplicaOperation* operation);
  void StartMerge(ReplicaOperation* operation);
  void EndMerge(ReplicaOperation* operation);
  void IssueWrite(ReplicaOperation* operation, bool durable);
  static void MergeLaneDone(io::Operation* lane);
  static void WriteLaneDone(io::Operation* lane);
  static void FinishNoted(ReplicaOperation* operation);

  // zero.cc
  struct ZeroPlan;
  struct ZeroEdge {
    uint64_t block = 0;
    uint64_t from_bytes = 0;
    uint64_t to_bytes = 0;
  };
  ZeroPlan Plan(const ReplicaOperation& operation) const;
  void StartZero(ReplicaOperation* operation);
  void StartZeroing(ReplicaOperation* operation);
  void TakeSpace(ReplicaOperation* operation);
  void WaitForMasks(ReplicaOperation* operation);
  void StartMasks();
  Status ZeroOverLayers(ReplicaOperation* operation);
  Status ZeroHeadAlone(ReplicaOperation* operation);
  void ZeroInBlock(ReplicaOperation* operation, const ZeroEdge& edge, std::byte* block) const;
  static void ZeroWork(io::Job* job);
  static void ZeroDone(io::Operation* job);
  static void MaskWork(io::Job* job);
  static void MaskDone(io::Operation* job);

  // target_state.cc
  void StartState();
  static void StateWork(io::Job* job);
  static void StateDone(io::Operation* job);

  // expand.cc: a volume that becomes larger.
  void StartExpand();
  Status MakeRoom(uint64_t size_bytes);
  Status ExtendFiles();
  static void ExpandWork(io::Job* job);
  static void ExpandDone(io::Operation* job);
  void QueueExpand();
  void BeginExpand(ReplicaOperation* operation);
  void EndDrop(const Status& outcome);
  void Extend();
  void BeginSize(ReplicaOperation* operation);
  void NoteOddBlock(ReplicaOperation* operation);
  void HoldSums();
  Status CommitSize();
  Status CutHead();
  void EndSize(const Status& outcome);
  void FinishSize(ErrorCode status);
  void RefuseExpand(ErrorCode status);

  // maintenance.cc: flush, status.
  void StartFlush();
  static void FlushWork(io::Job* job);
  static void FlushDone(io::Operation* job);
  void StartStatus();
  void RunStatus(ReplicaOperation* operation);
  Status CollectExtents(ReplicaOperation* operation);
  Result<bool> CollectFile(ReplicaOperation* operation, io::File file, uint64_t at, uint64_t end);
  Status ExtentsOf(io::File file, const io::FileRange& range, bool settled);
  bool AddExtents(ReplicaOperation* operation, const io::FileRange& range);
  static void StatusWork(io::Job* job);
  static void StatusDone(io::Operation* job);

  io::FileSystem& files_;
  io::Reactor& reactor_;
  const std::string directory_;
  io::File lock_;
  Identity identity_;
  VolumeMeta volume_meta_;
  Chain chain_;
  BlockMap map_;
  BlockSums sums_;
  std::string notes_;
  // One kClean at a time waits for its checksums, then goes into the record queue.
  List clean_waiters_;
  ReplicaOperation* clean_running_ = nullptr;
  BlockSums::SettleRequest settle_;
  MaskFile masks_;                       // of the head; not there while the head is alone
  std::unique_ptr<BufferPool> scratch_;  // with layers under the head, direct I/O or checksums
  bool direct_ = false;
  std::string boot_id_;
  std::string mount_id_;
  bool unclean_ = false;
  bool rebooted_ = false;
  bool failed_marker_ = false;  // an earlier process had a sync that failed
  bool sync_failed_ = false;    // this one had
  bool fresh_ = false;
  std::string sync_failure_;

  size_t in_flight_ = 0;
  size_t data_in_flight_ = 0;  // of these, those that need the chain as it is
  DirtyState dirty_ = DirtyState::kClean;
  List dirty_waiters_;
  List scratch_waiters_;
  List finished_;  // to be answered at the end of this turn
  io::Task finish_task_;

  // One flush runs, all that are asked for meanwhile share the next (rule 1).
  List flush_running_;
  List flush_waiters_;
  io::Job flush_job_;
  Status flush_outcome_;

  // Marks of regions are written by one job at a time, for all that wait.
  RegionMap regions_;
  RegionFile region_file_;
  std::string region_damage_;
  List mark_running_;
  List mark_waiters_;
  uint32_t mark_next_ = 0;  // the region after those marked last: where a sequential writer comes
  std::unique_ptr<RegionBatch> region_batch_;  // the job's while it runs
  io::Job region_job_;
  bool region_busy_ = false;
  bool region_sync_ = false;
  Status region_outcome_;
  bool region_sync_failed_ = false;
  // What the operation at the head of the record queue wants of the sectors; it shares the rounds.
  RegionTask region_task_ = RegionTask::kNone;
  uint32_t task_sector_ = 0;  // the next to be looked at
  size_t task_run_ = 0;       // likewise of the operation's runs
  uint8_t task_begun_ = 0;    // bits of the maps that are begun
  uint8_t task_set_ = 0;      // the bits that the runs' regions get
  bool task_all_ = false;     // maps that are begun have every region

  // Records, the dirty mark and the maps' names are written one after the other.
  RecordFile record_file_;
  RecordState record_state_;                      // what is durable
  RecordState record_next_;                       // what the job writes
  ReplicaOperation* record_operation_ = nullptr;  // null while the job marks the replica dirty
  List record_waiters_;
  io::Job record_job_;
  bool record_busy_ = false;
  bool record_write_ = false;  // the job writes the record, not the slots alone
  MissingSlots slots_before_;  // durable before the record
  MissingSlots slots_after_;   // and after it
  bool slots_changed_ = false;
  Status record_outcome_;
  bool record_sync_failed_ = false;

  // All frozen layers, in the head's chain or not, by file name. The record queue's.
  std::map<std::string, LayerMeta> snapshots_;
  std::unique_ptr<Prepared> prepared_;
  // A revert that is prepared changes these.
  std::vector<wire::RegionRun> revert_marks_;
  bool reverted_ = false;                     // the directory has another head than this object
  std::vector<std::string> discarded_heads_;  // by reverts: their files go by kMerge
  // An operation that switches the head (or is the end of an expansion, where the volume ends
  // within a block so far) waits until nothing is under way that needs the chain as it is, and what
  // comes meanwhile waits for it.
  ReplicaOperation* switch_operation_ = nullptr;
  bool switching_ = false;
  List switch_waiters_;
  io::Task quiet_task_;
  std::unique_ptr<Merge> merge_;  // the job's while it runs
  bool merge_step_ = false;       // kMerge is under way
  std::string punched_under_;     // the layer under the head of which no more is to be had for now
  Status merge_failure_;
  size_t layers_shared_ = 0;
  // While there is one no merge goes on: it would change what is being linked and copied.
  size_t clones_ = 0;
  List clone_waiters_;                           // for the end of a step of a merge
  std::pair<std::string, std::string> renamed_;  // a layer whose name was needed: before, after
  Status clone_failure_;
  bool has_removed_layers_ = false;
  bool read_only_ = false;  // adopted, and not confirmed: no layer changes
  bool names_due_ = false;  // files have the names of before the switch
  // kSeal and kDelete wait for checksums, one at a time.
  List seal_waiters_;
  ReplicaOperation* seal_running_ = nullptr;
  BlockSums::FreezeRequest freeze_;
  struct OpenedView {
    std::unique_ptr<View> view;
    std::string layer;
    const void* holder = nullptr;
    size_t readers = 0;
    bool closing = false;
  };
  static constexpr size_t kViewsMax = 64;
  std::map<uint16_t, OpenedView> views_;
  uint16_t next_view_ = 1;
  std::unique_ptr<View> view_opened_;  // the job's

  // Bits of masks are set and synced by one job at a time, for all that wait.
  List mask_running_;
  List mask_waiters_;
  io::Job mask_job_;
  Status mask_outcome_;
  bool mask_sync_failed_ = false;
  bool unshown_ = false;  // the head's files may be ahead of what is shown

  // One at a time, as extents need memory.
  ReplicaOperation* status_operation_ = nullptr;
  List status_waiters_;
  io::Job status_job_;
  size_t status_runs_ = 0;
  std::vector<io::FileExtent> status_extents_;
  Status status_outcome_;

  // One at a time. As long as there is one nothing is prepared, so that no head is frozen.
  ReplicaOperation* expand_operation_ = nullptr;
  List expand_waiters_;
  io::Job expand_job_;
  Status expand_outcome_;
  bool expand_sync_failed_ = false;
  // The last block, where the size so far ends within it, and what is known of its checksum.
  uint64_t odd_block_ = UINT64_MAX;
  uint32_t odd_sum_ = kSumNone;

  ReplicaOperation* state_operation_ = nullptr;
  List state_waiters_;
  io::Job state_job_;
  Status state_outcome_;
  bool state_sync_failed_ = false;
};

}  // namespace ankole::replica
