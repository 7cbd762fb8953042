#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/limits.h"
#include "base/mutant.h"
#include "base/units.h"
#include "replica/layers.h"

// Removed layers go (docs/internals/snapshots.md, «Merges»), step by step. What a step copies is
// bounded; what changes names or the tree is the record queue's.
namespace ankole::replica {
namespace {

constexpr uint64_t kStepBytes = 8 * kMiB;
constexpr uint64_t kStepRegions = 256;
constexpr size_t kCopyBytes = 1 * kMiB;
constexpr size_t kMergeExtentsAtATime = 256;
// How much is copied again after a crash, at most.
constexpr uint64_t kSavedEveryBytes = 256 * kMiB;
constexpr std::string_view kJournalName = "merge";
constexpr std::string_view kMergedSuffix = ".merged";

// The file `merge`: which two layers, and how far. With `names` all is copied, and the files are
// being renamed.
struct Journal {
  std::string lower;
  std::string upper;
  std::string parent;  // of the lower layer
  uint64_t at_bytes = 0;
  bool copying = false;  // the masks are done
  bool names = false;
};

Status WriteJournal(io::FileSystem& files, const std::string& directory, const Journal& journal) {
  Json json = Json::Object();
  json.Set("lower", journal.lower);
  json.Set("upper", journal.upper);
  json.Set("parent", journal.parent);
  json.Set("at", journal.at_bytes);
  json.Set("copying", journal.copying);
  json.Set("names", journal.names);
  return io::ReplaceFile(files, Join(directory, kJournalName), json.Write() + "\n");
}

Result<Journal> ReadJournal(io::FileSystem& files, const std::string& directory) {
  const Result<std::string> text =
      io::ReadWholeFile(files, Join(directory, kJournalName), kMetadataBytesMax);
  if (!text.ok()) return text.status();
  const Result<Json> json = Json::Parse(text.value());
  if (!json.ok()) return Status(ErrorCode::kCorrupt, json.status().message());
  const Result<std::string> lower = json.value().String("lower");
  const Result<std::string> upper = json.value().String("upper");
  const Result<std::string> parent = json.value().String("parent");
  const Result<int64_t> at = json.value().Integer("at", 0, INT64_MAX);
  const Result<bool> copying = json.value().Bool("copying", false);
  const Result<bool> names = json.value().Bool("names", false);
  for (const Status& status : {lower.status(), upper.status(), parent.status(), at.status(),
                               copying.status(), names.status()}) {
    if (!status.ok()) return Status(ErrorCode::kCorrupt, status.message());
  }
  if (!IsSnapshotName(lower.value()) || !IsSnapshotName(upper.value()) ||
      (!parent.value().empty() && !IsSnapshotName(parent.value()))) {
    return Status(ErrorCode::kCorrupt, "a name is no layer's");
  }
  return Journal{lower.value(),   upper.value(), parent.value(), static_cast<uint64_t>(at.value()),
                 copying.value(), names.value()};
}

Status RemoveIfThere(io::FileSystem& files, const std::string& path) {
  const Status status = files.Remove(path);
  return status.code() == ErrorCode::kNotFound ? Status::Ok() : status;
}

std::string MergedSumsOf(const std::string& layer) {
  return layer + std::string(kSumSuffix) + std::string(kMergedSuffix);
}

// The lower layer's file takes the upper one's name. Does each step again where it was cut short.
Status GiveMergedNames(io::FileSystem& files, const std::string& directory,
                       const Journal& journal) {
  const std::string lower = Join(directory, journal.lower);
  const std::string upper = Join(directory, journal.upper);
  RETURN_IF_ERROR(io::RenameIfThere(files, MergedSumsOf(upper), upper + std::string(kSumSuffix)));
  RETURN_IF_ERROR(
      io::RenameIfThere(files, lower + std::string(kMaskSuffix), upper + std::string(kMaskSuffix)));
  RETURN_IF_ERROR(io::RenameIfThere(files, lower, upper));
  const std::string meta_name = journal.upper + std::string(kMetaSuffix);
  const std::string meta_path = Join(directory, meta_name);
  const Result<std::string> text = io::ReadWholeFile(files, meta_path, kMetadataBytesMax);
  if (!text.ok()) return text.status();
  Result<LayerMeta> meta = LayerMeta::Parse(meta_name, text.value());
  if (!meta.ok()) return meta.status().Within(meta_path);
  meta.value().parent = journal.parent;
  RETURN_IF_ERROR(io::ReplaceFile(files, meta_path, meta.value().Write()));
  RETURN_IF_ERROR(RemoveIfThere(files, lower + std::string(kSumSuffix)));
  RETURN_IF_ERROR(RemoveIfThere(files, lower + std::string(kMetaSuffix)));
  RETURN_IF_ERROR(files.SyncDirectory(directory));
  RETURN_IF_ERROR(RemoveIfThere(files, Join(directory, kJournalName)));
  return files.SyncDirectory(directory);
}

}  // namespace

// --- opening -------------------------------------------------------------------------------------

// Before any layer is looked at.
Status Replica::FinishMerge() {
  const Result<Journal> journal = ReadJournal(files_, directory_);
  if (!journal.ok()) {
    return journal.status().code() == ErrorCode::kNotFound
               ? Status::Ok()
               : journal.status().Within(Join(directory_, kJournalName));
  }
  if (journal.value().names) return GiveMergedNames(files_, directory_, journal.value());
  // Checksums are merged from the beginning.
  return RemoveIfThere(files_, MergedSumsOf(Join(directory_, journal.value().upper)));
}

// One that was given up, and whose layers may have other names from now on.
Status Replica::ForgetMerge() {
  const Result<Journal> journal = ReadJournal(files_, directory_);
  if (journal.status().code() == ErrorCode::kNotFound) return Status::Ok();
  if (!journal.ok()) return journal.status().Within(Join(directory_, kJournalName));
  RETURN_IF_ERROR(RemoveIfThere(files_, MergedSumsOf(Join(directory_, journal.value().upper))));
  return RemoveIfThere(files_, Join(directory_, kJournalName));
}

void Replica::DropMerge() {
  if (merge_ == nullptr) return;
  for (const io::File file : {merge_->from, merge_->to, merge_->merged}) {
    if (file.valid()) files_.Close(file);
  }
  merge_->sums.Close(files_);
  merge_->merged_sums.Close(files_);
  merge_.reset();
}

// --- which one
// ------------------------------------------------------------------------------------

// In the record queue. Removed layers that nobody stands on are deleted at once; of the others one
// is taken, if one can go.
Status Replica::PlanMerge(bool* more) {
  *more = false;
  layers_shared_ = 0;
  if (names_due_) return Status::Ok();
  if (!discarded_heads_.empty()) {
    // Its name goes with its data: until then all of it is found again.
    for (const std::string_view suffix :
         {kMaskSuffix, kSumSuffix, kMetaSuffix, std::string_view()}) {
      RETURN_IF_ERROR(
          RemoveIfThere(files_, Join(directory_, discarded_heads_.back()) + std::string(suffix)));
    }
    discarded_heads_.pop_back();
    *more = true;
    return files_.SyncDirectory(directory_);
  }
  const std::string& under_head = chain_.head().meta.parent;
  for (const auto& [name, meta] : snapshots_) {
    if (!meta.removed) continue;
    const LayerMeta* child = nullptr;
    size_t children = name == under_head ? 1 : 0;
    for (const auto& [other, above] : snapshots_) {
      if (above.parent != name) continue;
      ++children;
      child = &above;
    }
    if (children > 1) continue;
    *more = true;
    if (children == 0) return DeleteLeaf(name);
    // What would be written into its file, or punched out of it, the other replica would read. The
    // layer above is only read, and shares no file where this one does not.
    if (IsShared(name)) {
      ++layers_shared_;
      *more = false;
      continue;
    }
    if (child == nullptr) {
      if (punched_under_ == name) {
        *more = false;
        continue;
      }
      return BeginPunch(name);
    }
    // What is not sealed may be younger than what is durable of it.
    if (record_state_.unsealed && child->name == under_head) {
      *more = false;
      continue;
    }
    return BeginMerge(name, child->name);
  }
  return Status::Ok();
}

Status Replica::DeleteLeaf(const std::string& name) {
  // The description last: without it the rest would be nobody's.
  for (const std::string_view suffix : {std::string_view(), kMaskSuffix, kSumSuffix, kMetaSuffix}) {
    if (suffix == kMetaSuffix) {
      RETURN_IF_ERROR(RemoveIfThere(files_, MergedSumsOf(Join(directory_, name))));
    }
    RETURN_IF_ERROR(RemoveIfThere(files_, Join(directory_, name) + std::string(suffix)));
  }
  RETURN_IF_ERROR(files_.SyncDirectory(directory_));
  snapshots_.erase(name);
  return Status::Ok();
}

Status Replica::OpenMerge(const std::string& lower, const std::string& upper) {
  merge_ = std::make_unique<Merge>();
  merge_->lower = lower;
  merge_->upper = upper;
  Result<io::File> from = files_.Open(Join(directory_, upper), {});
  if (!from.ok()) return from.status();
  merge_->from = from.value();
  Result<io::File> to = files_.Open(Join(directory_, lower), {.write = true});
  if (!to.ok()) return to.status();
  merge_->to = to.value();
  const Result<io::FileInfo> info = files_.Info(from.value());
  if (!info.ok()) return info.status();
  merge_->size_bytes = std::min(info.value().size_bytes, size_bytes());
  const Result<io::FileInfo> lower_info = files_.Info(to.value());
  if (!lower_info.ok()) return lower_info.status();
  merge_->lower_bytes = lower_info.value().size_bytes;
  return Status::Ok();
}

Status Replica::BeginPunch(const std::string& name) {
  RETURN_IF_ERROR(OpenMerge(name, chain_.head().meta.name));
  merge_->phase = Merge::Phase::kPunch;
  return Status::Ok();
}

Status Replica::BeginMerge(const std::string& lower, const std::string& upper) {
  RETURN_IF_ERROR(OpenMerge(lower, upper));
  merge_->parent = snapshots_.at(lower).parent;
  const Result<Journal> before = ReadJournal(files_, directory_);
  const bool same = before.ok() && before.value().lower == lower && before.value().upper == upper;
  const bool goes_on = same && before.value().copying;
  // One that failed, and whose layers have others to be merged with first.
  if (before.ok() && !same) {
    RETURN_IF_ERROR(RemoveIfThere(files_, MergedSumsOf(Join(directory_, before.value().upper))));
  }
  if (merge_->lower_bytes < merge_->size_bytes) {
    merge_->phase = Merge::Phase::kGrow;
  } else if (goes_on) {
    merge_->phase = Merge::Phase::kCopy;
    merge_->at_bytes = before.value().at_bytes;
  }
  return Status::Ok();
}

// --- steps
// ----------------------------------------------------------------------------------------

// Copies, on a pool thread and beside all else: of the lower layer nobody reads what the upper one
// has.
void Replica::StartMergeStep(ReplicaOperation* operation) {
  if (merge_step_ || sync_failed_) {
    return FinishLater(operation, sync_failed_ ? ErrorCode::kSuspect : ErrorCode::kBusy);
  }
  operation->more = clones_ > 0;
  if (clones_ > 0) return FinishLater(operation, ErrorCode::kOk);
  const bool queued = merge_ == nullptr || merge_->phase == Merge::Phase::kNames ||
                      merge_->phase == Merge::Phase::kSwap;
  merge_step_ = true;
  if (queued) {
    record_waiters_.PushBack(operation);
    return StartRecord();
  }
  operation->job.owner = operation;
  operation->job.work = [](io::Job* job) {
    auto* step = static_cast<ReplicaOperation*>(job->owner);
    Replica* self = step->replica;
    const Status status = self->MergeStep();
    if (!status.ok()) self->merge_failure_ = status;
    step->status = OutcomeOfLayer(status);
  };
  operation->job.done = [](io::Operation* job) {
    auto* step = static_cast<ReplicaOperation*>(job->owner);
    Replica* self = step->replica;
    self->merge_step_ = false;
    step->more = step->status == ErrorCode::kOk;
    const bool sync_failed = self->merge_ != nullptr && self->merge_->sync_failed;
    // Tried again from what is durable.
    if (step->status != ErrorCode::kOk) self->DropMerge();
    self->ReleaseClones();
    if (sync_failed) return self->FinishSyncFailed(step, -EIO);
    self->Finish(step, step->status);
  };
  reactor_.Run(&operation->job);
}

Status Replica::MergeStep() {
  if (MergesIntoShared()) {
    DropMerge();
    return Status::Ok();
  }
  switch (merge_->phase) {
    case Merge::Phase::kGrow:
      return GrowLower();
    case Merge::Phase::kMasks:
      return MergeMasks();
    case Merge::Phase::kCopy:
      return MergeData();
    case Merge::Phase::kSums:
      return MergeSums();
    case Merge::Phase::kClose:
      DropMerge();
      return Status::Ok();
    default:
      return PunchUnderHead();
  }
}

// The volume grew between the two. First what serves both sizes, then the data, by whose size the
// rest is read. Nobody reads what is new of it: all of the chain below is as short, or shorter.
Status Replica::GrowLower() {
  const std::string path = Join(directory_, merge_->lower);
  const uint64_t bytes = merge_->size_bytes;
  if (sums_.on()) {
    Result<SumFile> sums = SumFile::Open(files_, path + std::string(kSumSuffix),
                                         DivideUp(merge_->lower_bytes, kRegionBytes));
    const ErrorCode code = sums.status().code();
    Status status = sums.status();
    if (sums.ok()) {
      const uint64_t end = merge_->lower_bytes / kBlockBytes;
      if (end % kRegionBlocks != 0) status = sums.value().ForgetFrom(files_, end);
      if (status.ok()) status = sums.value().Grow(files_, DivideUp(bytes, kRegionBytes));
      sums.value().Close(files_);
    }
    // One that is not there, or cannot be believed, stays so.
    if (code != ErrorCode::kNotFound && code != ErrorCode::kCorrupt) RETURN_IF_ERROR(status);
  }
  Result<MaskFile> masks = MaskFile::Open(files_, path + std::string(kMaskSuffix),
                                          DivideUp(merge_->lower_bytes, kBlockBytes));
  if (masks.ok()) {
    Status status = masks.value().Grow(files_, DivideUp(bytes, kBlockBytes));
    if (status.ok()) status = masks.value().Sync(files_);
    masks.value().Close(files_);
    RETURN_IF_ERROR(status);
  } else if (masks.status().code() != ErrorCode::kNotFound) {
    return masks.status();
  }
  bool sync_failed = false;  // all that it had was durable before
  RETURN_IF_ERROR(ExtendLayerFile(files_, path, merge_->lower_bytes, bytes, &sync_failed));
  merge_->lower_bytes = bytes;
  merge_->phase = Merge::Phase::kMasks;
  return Status::Ok();
}

// What the upper layer masks the lower one must not show; the data that follows stands above it.
Status Replica::MergeMasks() {
  const std::string& parent = merge_->parent;
  const uint64_t blocks = DivideUp(merge_->size_bytes, kBlockBytes);
  Result<MaskFile> masks =
      MaskFile::Open(files_, Join(directory_, merge_->upper + std::string(kMaskSuffix)), blocks);
  if (!masks.ok() && masks.status().code() != ErrorCode::kNotFound) return masks.status();
  Status status;
  if (masks.ok()) {
    std::vector<std::pair<uint64_t, uint64_t>> runs;
    masks.value().ForEachRun(
        [&](uint64_t block, uint64_t count) { runs.emplace_back(block, count); });
    masks.value().Close(files_);
    if (Mutant("merge-without-masks")) runs.clear();
    if (!runs.empty() && !parent.empty()) status = MaskLower(runs);
    for (const auto& [block, count] : runs) {
      if (!status.ok()) break;
      const uint64_t begin = block * kBlockBytes;
      const uint64_t end = std::min(merge_->size_bytes, (block + count) * kBlockBytes);
      if (begin < end) status = files_.PunchHole(merge_->to, begin, end - begin);
    }
  }
  RETURN_IF_ERROR(status);
  RETURN_IF_ERROR(SyncLower());
  RETURN_IF_ERROR(
      WriteJournal(files_, directory_, {merge_->lower, merge_->upper, parent, 0, true, false}));
  merge_->phase = Merge::Phase::kCopy;
  return Status::Ok();
}

// After a sync that failed what could not be written counts as clean: done again it would be done
// to what is in memory alone. What the lower layer itself holds is on the disk.
Status Replica::SyncLower() {
  const Status synced = files_.SyncData(merge_->to);
  if (!synced.ok()) RETURN_IF_ERROR(files_.DropCache(merge_->to));
  return synced;
}

Status Replica::MaskLower(const std::vector<std::pair<uint64_t, uint64_t>>& runs) {
  const std::string name = merge_->lower + std::string(kMaskSuffix);
  const uint64_t blocks = DivideUp(merge_->lower_bytes, kBlockBytes);
  Result<MaskFile> lower = MaskFile::Open(files_, Join(directory_, name), blocks);
  if (!lower.ok() && lower.status().code() == ErrorCode::kNotFound) {
    lower = MaskFile::Create(files_, directory_, name, blocks);
  }
  if (!lower.ok()) return lower.status();
  Status status;
  for (const auto& [block, count] : runs) {
    if (status.ok()) status = lower.value().Set(files_, block, count);
  }
  if (status.ok()) status = lower.value().Sync(files_);
  lower.value().Close(files_);
  return status;
}

Status Replica::MergeData() {
  std::vector<std::byte> buffer(kCopyBytes);
  std::vector<io::FileExtent> extents;
  uint64_t& at = merge_->at_bytes;
  const uint64_t until = at + kStepBytes;
  RETURN_IF_ERROR(
      files_.Extents(merge_->from, at, merge_->size_bytes - at, kMergeExtentsAtATime, &extents));
  for (const io::FileExtent& extent : extents) {
    uint64_t begin = std::max(at, extent.offset_bytes);
    const uint64_t end = std::min(merge_->size_bytes, extent.offset_bytes + extent.length_bytes);
    // The upper layer does not have it.
    if (extent.unwritten) begin = end;
    while (begin < end && begin < until) {
      const uint64_t bytes = std::min<uint64_t>(end - begin, kCopyBytes);
      if (Mutant("merge-drops-block") && begin / kBlockBytes % 64 == 0) {
        begin += std::min<uint64_t>(bytes, kBlockBytes);
        continue;
      }
      const Result<size_t> got = files_.ReadOnce(merge_->from, begin, buffer.data(), bytes);
      if (!got.ok()) return got.status();
      std::memset(buffer.data() + got.value(), 0, bytes - got.value());
      RETURN_IF_ERROR(files_.WriteAt(merge_->to, begin, buffer.data(), bytes));
      begin += bytes;
      merge_->unsaved_bytes += bytes;
    }
    at = begin;
    if (at >= until) break;
  }
  const bool all = at < until && extents.size() < kMergeExtentsAtATime;
  if (!all && merge_->unsaved_bytes < kSavedEveryBytes) return Status::Ok();
  merge_->unsaved_bytes = 0;
  RETURN_IF_ERROR(SyncLower());
  if (!all) {
    return WriteJournal(files_, directory_,
                        {merge_->lower, merge_->upper, merge_->parent, at, true, false});
  }
  merge_->at_bytes = 0;
  merge_->phase = sums_.on() ? Merge::Phase::kSums : Merge::Phase::kNames;
  return Status::Ok();
}

// Of a block that lies in the upper layer its checksum there, of the others the lower one's. To a
// new file: a page that is torn by a power loss would be lost for both.
Status Replica::MergeSums() {
  // Of the merged layer: the lower one is as large by now, or was larger.
  const uint64_t regions = DivideUp(merge_->lower_bytes, kRegionBytes);
  const std::string upper_name = merge_->upper + std::string(kSumSuffix);
  if (!merge_->sums.open()) {
    Result<SumFile> made =
        SumFile::Create(files_, directory_, MergedSumsOf(merge_->upper), regions);
    if (!made.ok()) return made.status();
    merge_->sums = made.Take();
  }
  Result<SumFile> upper = SumFile::Open(files_, Join(directory_, upper_name),
                                        DivideUp(merge_->size_bytes, kRegionBytes));
  Result<SumFile> lower =
      SumFile::Open(files_, Join(directory_, merge_->lower + std::string(kSumSuffix)), regions);
  Result<MaskFile> masks =
      MaskFile::Open(files_, Join(directory_, merge_->upper + std::string(kMaskSuffix)),
                     DivideUp(merge_->lower_bytes, kBlockBytes));
  uint64_t region = merge_->at_bytes / kRegionBytes;
  const uint64_t end = std::min(regions, region + kStepRegions);
  Status status;
  for (; region < end && status.ok(); ++region) {
    status = MergePage(upper.ok() ? &upper.value() : nullptr, lower.ok() ? &lower.value() : nullptr,
                       masks.ok() ? &masks.value() : nullptr, region);
  }
  if (masks.ok()) masks.value().Close(files_);
  if (upper.ok()) upper.value().Close(files_);
  if (lower.ok()) lower.value().Close(files_);
  RETURN_IF_ERROR(status);
  merge_->at_bytes = region * kRegionBytes;
  if (region < regions) return Status::Ok();
  RETURN_IF_ERROR(merge_->sums.Sync(files_));
  merge_->sums.Close(files_);
  merge_->sums = SumFile();
  merge_->phase = Merge::Phase::kNames;
  return Status::Ok();
}

Status Replica::MergePage(const SumFile* upper, const SumFile* lower, const MaskFile* masks,
                          uint64_t region) {
  SumPage above;
  SumPage below;
  const auto read = [&](const SumFile* file, SumPage* page) {
    SumPageState state = SumPageState::kEmpty;
    if (file != nullptr && !file->ReadPage(files_, region, page, &state).ok()) {
      state = SumPageState::kDamaged;
    }
    if (state == SumPageState::kWhole) return true;
    const bool bad = state == SumPageState::kDamaged && file != nullptr && file->MayHoldBad(region);
    std::fill_n(page->sums, kRegionBlocks, bad ? kSumBad : kSumNone);
    return bad;
  };
  const bool any_above = read(upper, &above);
  const bool any_below = read(lower, &below);
  if (!any_above && !any_below) return Status::Ok();
  const uint64_t begin = region * kRegionBytes;
  const uint64_t end = std::min(begin + kRegionBytes, merge_->size_bytes);
  std::vector<io::FileExtent> extents;
  if (begin < end) {
    RETURN_IF_ERROR(files_.Extents(merge_->from, begin, end - begin, kRegionBlocks, &extents));
  }
  // Punched out of the lower layer by now, unless the upper one has it above its mask.
  const uint64_t blocks =
      std::min(kRegionBlocks, DivideUp(merge_->lower_bytes, kBlockBytes) - region * kRegionBlocks);
  for (size_t at = 0; masks != nullptr && at < blocks; ++at) {
    if (masks->Get(region * kRegionBlocks + at)) below.sums[at] = kSumNone;
  }
  for (const io::FileExtent& extent : extents) {
    if (extent.unwritten) continue;
    const uint64_t first = (std::max(begin, extent.offset_bytes) - begin) / kBlockBytes;
    const uint64_t last =
        DivideUp(std::min(end, extent.offset_bytes + extent.length_bytes) - begin, kBlockBytes);
    for (uint64_t at = first; at < last; ++at) below.sums[at] = above.sums[at];
  }
  // A block is marked as bad in the layer that was the head then.
  for (size_t at = 0; at < kRegionBlocks; ++at) {
    if (above.sums[at] == kSumBad) below.sums[at] = kSumBad;
  }
  const bool bad =
      std::find(below.sums, below.sums + kRegionBlocks, kSumBad) != below.sums + kRegionBlocks;
  if (bad) RETURN_IF_ERROR(merge_->sums.NoteBad(files_, region, true));
  return merge_->sums.WritePage(files_, region, &below);
}

// What the head has must not get lost any more. Its failure is that of any other sync of it.
Status Replica::SyncHeadsFile(io::File file) {
  const Status synced = files_.SyncData(file);
  merge_->sync_failed |= !synced.ok();
  return synced;
}

// Of the layer under the head what the head has, durably, takes up no space any more.
Status Replica::PunchUnderHead() {
  std::vector<io::FileExtent> extents;
  uint64_t& at = merge_->at_bytes;
  RETURN_IF_ERROR(
      files_.Extents(merge_->from, at, merge_->size_bytes - at, kMergeExtentsAtATime, &extents));
  if (!extents.empty() && !Mutant("punch-before-sync")) {
    RETURN_IF_ERROR(SyncHeadsFile(merge_->from));
  }
  for (const io::FileExtent& extent : extents) {
    const uint64_t begin = std::max(at, extent.offset_bytes);
    const uint64_t end = std::min(merge_->size_bytes, extent.offset_bytes + extent.length_bytes);
    if (begin < end && !extent.unwritten) {
      RETURN_IF_ERROR(files_.PunchHole(merge_->to, begin, end - begin));
    }
    at = end;
  }
  if (extents.size() == kMergeExtentsAtATime) return Status::Ok();
  // What the head masks, likewise: bits are durable before blocks are punched, and synced here once
  // more, as this reads them from the page cache.
  Result<io::File> mask_file =
      files_.Open(Join(directory_, merge_->upper + std::string(kMaskSuffix)), {.write = true});
  if (mask_file.ok()) {
    Result<MaskFile> masks =
        MaskFile::Open(files_, Join(directory_, merge_->upper + std::string(kMaskSuffix)),
                       DivideUp(merge_->size_bytes, kBlockBytes));
    Status status = masks.status();
    if (status.ok()) status = SyncHeadsFile(mask_file.value());
    if (masks.ok()) {
      masks.value().ForEachRun([&](uint64_t block, uint64_t count) {
        const uint64_t begin = block * kBlockBytes;
        const uint64_t end = std::min(merge_->size_bytes, (block + count) * kBlockBytes);
        if (status.ok() && begin < end) status = files_.PunchHole(merge_->to, begin, end - begin);
      });
      masks.value().Close(files_);
    }
    files_.Close(mask_file.value());
    RETURN_IF_ERROR(status);
  }
  punched_under_ = merge_->lower;
  merge_->phase = Merge::Phase::kClose;
  return Status::Ok();
}

// --- in the record queue
// --------------------------------------------------------------------------

Status Replica::RunMerge(ReplicaOperation* operation) {
  if (merge_ == nullptr) {
    const Status status = PlanMerge(&operation->more);
    if (!status.ok()) merge_failure_ = status;
    return status;
  }
  operation->more = true;
  if (merge_->phase != Merge::Phase::kNames) return Status::Ok();
  if (MergesIntoShared()) {
    DropMerge();
    return Status::Ok();
  }
  const Journal journal = {merge_->lower, merge_->upper, merge_->parent, 0, true, true};
  RETURN_IF_ERROR(WriteJournal(files_, directory_, journal));
  RETURN_IF_ERROR(GiveMergedNames(files_, directory_, journal));
  snapshots_.at(merge_->upper).parent = merge_->parent;
  snapshots_.erase(merge_->lower);
  const bool in_chain =
      std::any_of(chain_.layers().begin(), chain_.layers().end(),
                  [&](const Layer& layer) { return layer.meta.name == merge_->upper; });
  if (in_chain) {
    const std::string path = Join(directory_, merge_->upper);
    Result<io::File> merged = files_.Open(path, {.direct = direct_, .random = true});
    if (!merged.ok()) return merged.status();
    merge_->merged = merged.value();
    if (sums_.on()) {
      Result<SumFile> sums = SumFile::Open(files_, path + std::string(kSumSuffix),
                                           DivideUp(merge_->lower_bytes, kRegionBytes));
      if (!sums.ok()) return sums.status();
      merge_->merged_sums = sums.Take();
    }
  }
  merge_->phase = in_chain ? Merge::Phase::kSwap : Merge::Phase::kClose;
  return Status::Ok();
}

// The step was the record queue's.
void Replica::EndMergeStep(ReplicaOperation* operation) {
  merge_step_ = false;
  // Tried again: names from where they are, all else from what is durable.
  const bool names = merge_ != nullptr && merge_->phase == Merge::Phase::kNames;
  if (operation->status != ErrorCode::kOk && !names) DropMerge();
  operation->more = operation->more && operation->status == ErrorCode::kOk;
  EndRecord(operation->status);
  ReleaseClones();
}

// Nothing is under way that reads the chain: both layers are the merged file from now on.
void Replica::SwapMerged() {
  Layer* upper = nullptr;
  Layer* lower = nullptr;
  for (Layer& layer : chain_.layers()) {
    if (layer.meta.name == merge_->upper) upper = &layer;
    // Its name is free since its files have the other one's: a layer above may be called so by now.
    if (layer.meta.name == merge_->lower && upper == nullptr) lower = &layer;
  }
  CHECK(upper != nullptr && lower != nullptr);
  // Of the upper file `from` is left: closing the last of one that has no name may take long.
  const int before[] = {upper->file.fd, lower->file.fd};
  files_.Close(upper->file);
  files_.Close(lower->file);
  const io::File merged = std::exchange(merge_->merged, {});
  // With those that were merged into either of them before.
  for (Layer& layer : chain_.layers()) {
    if (layer.file.fd == before[0] || layer.file.fd == before[1]) layer.file = merged;
  }
  upper->meta.parent = merge_->parent;
  upper->size_bytes = merge_->lower_bytes;
  upper->unsynced |= std::exchange(lower->unsynced, false);
  lower->alias = true;
  lower->meta.name.clear();
  if (!sums_.on()) return;
  Layer* bottom = chain_.layers().data();
  sums_.MergeLayers(static_cast<uint32_t>(lower - bottom), static_cast<uint32_t>(upper - bottom),
                    std::exchange(merge_->merged_sums, SumFile()));
}

}  // namespace ankole::replica
