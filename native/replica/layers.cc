#include "replica/layers.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <unordered_map>
#include <utility>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/mutant.h"
#include "base/units.h"
#include "replica/clone.h"
#include "wire/layers.h"

// The tree of layers, and what is done to it: one after the other, in the record queue. How a
// snapshot is taken: docs/internals/snapshots.md.
namespace ankole::replica {
namespace {

// For so long what is prepared for a revert is kept for it (replica.h, HoldsForRevert): the engine
// gives up sooner.
constexpr uint64_t kRevertHeldNs = 60 * kNsPerSecond;

// What belongs to a layer, its data last.
constexpr std::string_view kLayerSuffixes[] = {kMaskSuffix, kSumSuffix, kMetaSuffix, ""};

Status RemoveLayerFiles(io::FileSystem& files, const std::string& directory,
                        const std::string& name) {
  for (const std::string_view suffix : kLayerSuffixes) {
    const Status status = files.Remove(Join(directory, name + std::string(suffix)));
    if (!status.ok() && status.code() != ErrorCode::kNotFound) return status;
  }
  return Status::Ok();
}

}  // namespace

// --- opening -------------------------------------------------------------------------------------

// All frozen layers. What a switch that did not come left behind is removed, in a directory whose
// record knows its head; in others nothing is touched.
Status Replica::LoadLayers() {
  const Result<std::vector<std::string>> names = files_.List(directory_);
  if (!names.ok()) return names.status();
  const std::set<std::string> there(names.value().begin(), names.value().end());
  const bool ours = record_state_.head != 0;
  for (const std::string& file_name : names.value()) {
    // A head that is frozen has another name before the next one is the head: a revert left this.
    if (ours && IsHeadName(file_name) && HeadNumber(file_name) < HeadNumber(volume_meta_.head)) {
      discarded_heads_.push_back(file_name);
    }
    // Of a layer's files that were not replaced after all: nobody may use its name again.
    if (ours && file_name.starts_with("volume-") && file_name.ends_with(".tmp")) {
      RETURN_IF_ERROR(files_.Remove(Join(directory_, file_name)));
    }
    if (!file_name.ends_with(kMetaSuffix)) continue;
    const std::string layer = file_name.substr(0, file_name.size() - kMetaSuffix.size());
    if (IsHeadName(layer)) {
      // Prepared, or the last that a loss of power left of a head that has another name.
      const bool leftover =
          layer != volume_meta_.head &&
          (HeadNumber(layer) > HeadNumber(volume_meta_.head) || !there.contains(layer));
      if (ours && leftover) RETURN_IF_ERROR(RemoveLayerFiles(files_, directory_, layer));
      continue;
    }
    if (!IsSnapshotName(layer)) continue;
    if (!there.contains(layer)) {
      if (ours) RETURN_IF_ERROR(RemoveLayerFiles(files_, directory_, layer));
      continue;
    }
    const std::string path = Join(directory_, file_name);
    const Result<std::string> text = io::ReadWholeFile(files_, path, kMetadataBytesMax);
    if (!text.ok()) return text.status();
    Result<LayerMeta> meta = LayerMeta::Parse(file_name, text.value());
    if (!meta.ok()) {
      // Where the head needs it, that is said when its chain is read.
      notes_ = meta.status().Within(path).message() + "; the layer counts for nothing";
      continue;
    }
    has_removed_layers_ |= meta.value().removed;
    snapshots_[layer] = meta.Take();
  }
  return Status::Ok();
}

// What was written to a layer that no seal followed may be without its checksums, or with older
// ones: in regions that are dirty they are forgotten.
Status Replica::ForgetChecksumsOfUnsealed() {
  if (!record_state_.unsealed || !unclean_ || chain_.head_alone()) return Status::Ok();
  const auto index = static_cast<uint16_t>(chain_.head_index() - 1);
  std::vector<uint64_t> regions;
  for (uint32_t region = 0; region < regions_.regions(); ++region) {
    if (regions_.dirty(region)) regions.push_back(region);
  }
  return sums_.Forget(index, regions);
}

// --- the tree
// -------------------------------------------------------------------------------------

bool Replica::NeedsTree(const ReplicaOperation& operation) {
  switch (operation.kind) {
    case OperationKind::kSwitch:
      return operation.switched;
    case OperationKind::kExpand:
      return !operation.extended;
    case OperationKind::kPrepare:
    case OperationKind::kSeal:
    case OperationKind::kDelete:
    case OperationKind::kLayers:
    case OperationKind::kOpenView:
    case OperationKind::kChanged:
    case OperationKind::kMerge:
    case OperationKind::kClone:
      return true;
    default:
      return false;
  }
}

ErrorCode Replica::CheckLayer(const ReplicaOperation& operation) const {
  const auto good = [](std::string_view name) { return IsSnapshotName(SnapshotFileName(name)); };
  switch (operation.kind) {
    case OperationKind::kLayers:
      return operation.data != nullptr ? ErrorCode::kOk : ErrorCode::kInvalidArgument;
    case OperationKind::kCloseView:
      return views_.contains(operation.view) ? ErrorCode::kOk : ErrorCode::kNotFound;
    case OperationKind::kChanged:
      if (operation.data == nullptr || operation.first > regions_.regions() ||
          (!operation.layer.empty() && !good(operation.layer))) {
        return ErrorCode::kInvalidArgument;
      }
      return operation.base.empty() || good(operation.base) ? ErrorCode::kOk
                                                            : ErrorCode::kInvalidArgument;
    case OperationKind::kPrepare:
      if (operation.labels.size() > wire::kLabelsBytesMax ||
          (!operation.base.empty() && !good(operation.base))) {
        return ErrorCode::kInvalidArgument;
      }
      break;
    case OperationKind::kOpenView:
      if (!operation.base.empty() && !good(operation.base)) return ErrorCode::kInvalidArgument;
      break;
    case OperationKind::kClone:
      if (operation.clone == nullptr) return ErrorCode::kInvalidArgument;
      break;
    default:
      break;
  }
  return good(operation.layer) ? ErrorCode::kOk : ErrorCode::kInvalidArgument;
}

std::string Replica::LayerUnderHead() {
  return chain_.head_alone()
             ? std::string()
             : chain_.layer(static_cast<uint16_t>(chain_.head_index() - 1)).meta.name;
}

bool Replica::IsRemoved(const std::string& file_name) const {
  const auto found = snapshots_.find(file_name);
  return found == snapshots_.end() || found->second.removed;
}

// From `upper` (empty: the head) down to the bottom, or to the one above `base`; file names.
Result<std::vector<LayerMeta>> Replica::Path(const std::string& upper,
                                             const std::string& base) const {
  std::vector<LayerMeta> path;
  std::string name = upper;
  if (upper.empty()) {
    path.push_back(chain_.layers().back().meta);
    name = path.back().parent;
  }
  while (!name.empty() && name != base) {
    const auto found = snapshots_.find(name);
    if (found == snapshots_.end() || path.size() > kLayersMax) {
      return Status(ErrorCode::kNotFound, directory_ + ": there is no layer " + name);
    }
    path.push_back(found->second);
    name = found->second.parent;
  }
  if (name == base) return path;
  return Status(ErrorCode::kInvalidArgument,
                directory_ + ": " + base + " is not under " + (upper.empty() ? "the head" : upper));
}

// Those of the two (empty: the head) that are not under both; file names.
Result<std::vector<LayerMeta>> Replica::Between(const std::string& one,
                                                const std::string& other) const {
  Result<std::vector<LayerMeta>> ones = Path(one, "");
  if (!ones.ok()) return ones;
  const Result<std::vector<LayerMeta>> others = Path(other, "");
  if (!others.ok()) return others;
  std::vector<LayerMeta> layers = ones.Take();
  size_t in_both = 0;
  while (in_both < layers.size() && in_both < others.value().size() &&
         layers[layers.size() - 1 - in_both].name ==
             others.value()[others.value().size() - 1 - in_both].name) {
    ++in_both;
  }
  layers.resize(layers.size() - in_both);
  layers.insert(layers.end(), others.value().begin(),
                others.value().end() - static_cast<ptrdiff_t>(in_both));
  return layers;
}

// --- seals wait for checksums
// ---------------------------------------------------------------------

void Replica::StartLayer() {
  if (seal_running_ != nullptr || seal_waiters_.empty()) return;
  ReplicaOperation* operation = seal_waiters_.PopFront();
  seal_running_ = operation;
  const bool unsealed =
      record_state_.unsealed && LayerUnderHead() == SnapshotFileName(operation->layer);
  freeze_.owner = this;
  freeze_.done = SettleLayer;
  freeze_.status = Status::Ok();
  freeze_.sync_failed = false;
  if (unsealed && sums_.on() && sums_.WhenFrozen(&freeze_)) return;
  SettleLayer(&freeze_);
}

void Replica::SettleLayer(BlockSums::FreezeRequest* request) {
  auto* self = static_cast<Replica*>(request->owner);
  ReplicaOperation* operation = std::exchange(self->seal_running_, nullptr);
  if (request->sync_failed) {
    self->FinishSyncFailed(operation, -EIO);
  } else if (!request->status.ok()) {
    self->FinishLater(operation, OutcomeOf(request->status));
  } else {
    self->record_waiters_.PushBack(operation);
    self->StartRecord();
  }
  self->StartLayer();
}

// --- in the record queue
// --------------------------------------------------------------------------

void Replica::BeginLayer(ReplicaOperation* operation) {
  ErrorCode wrong = ErrorCode::kOk;
  const std::string name = SnapshotFileName(operation->layer);
  const auto found = snapshots_.find(name);
  const bool there = found != snapshots_.end();
  switch (operation->kind) {
    case OperationKind::kPrepare:
      wrong = BeginPrepare(*operation);
      break;
    case OperationKind::kSwitch:
    case OperationKind::kSeal:
      if (sync_failed_) wrong = ErrorCode::kSuspect;
      if (!there) wrong = ErrorCode::kNotFound;
      break;
    case OperationKind::kDelete: {
      const bool viewed = std::any_of(views_.begin(), views_.end(), [&](const auto& entry) {
        return entry.second.layer == name;
      });
      if (viewed) wrong = ErrorCode::kBusy;
      if (!there) return EndRecord(ErrorCode::kOk);
      break;
    }
    case OperationKind::kOpenView:
      if (!there || found->second.removed) {
        wrong = ErrorCode::kNotFound;
      } else if ((record_state_.unsealed && LayerUnderHead() == name) ||
                 views_.size() >= kViewsMax) {
        wrong = ErrorCode::kBusy;
      }
      break;
    case OperationKind::kClone:
      wrong = BeginClone(name);
      break;
    default:
      break;
  }
  if (wrong != ErrorCode::kOk) return EndRecord(wrong);
  record_busy_ = true;
  reactor_.Run(&record_job_);
}

ErrorCode Replica::BeginPrepare(const ReplicaOperation& operation) {
  if (sync_failed_) return ErrorCode::kSuspect;
  if (unshown_) return ErrorCode::kIoError;
  // It would be of the size before.
  if (expand_operation_ != nullptr) return ErrorCode::kBusy;
  // Where layers stay for clones its name may be had all the same: FreeName. Not while a merge or
  // the making of a clone goes by it.
  const auto there = snapshots_.find(SnapshotFileName(operation.layer));
  const bool free = layers_shared_ > 0 && merge_ == nullptr && !merge_step_ && clones_ == 0;
  if (there != snapshots_.end() && (!there->second.removed || !free)) {
    return ErrorCode::kAlreadyExists;
  }
  const bool revert = !operation.base.empty();
  if (revert && IsRemoved(SnapshotFileName(operation.base))) return ErrorCode::kNotFound;
  if (record_state_.unsealed && (revert || !IsRemoved(LayerUnderHead()))) return ErrorCode::kBusy;
  if (chain_.layers().size() >= kLayersMax) return ErrorCode::kUnsupported;
  // So that a switch allocates nothing of size.
  if (!map_.reserved() && !map_.Reserve(chain_.blocks()).ok()) return ErrorCode::kIoError;
  return MakeScratch().ok() ? ErrorCode::kOk : ErrorCode::kIoError;
}

Status Replica::RunLayer(ReplicaOperation* operation) {
  if (names_due_) {
    RETURN_IF_ERROR(GiveNames(files_, directory_, &volume_meta_, chain_.head().meta.name));
    names_due_ = false;
  }
  const std::string name = SnapshotFileName(operation->layer);
  switch (operation->kind) {
    case OperationKind::kPrepare: {
      RETURN_IF_ERROR(FreeName(name));
      const Status status = Prepare(*operation);
      if (!status.ok()) DropPrepared();
      return status;
    }
    case OperationKind::kSwitch:
    case OperationKind::kSeal:
      return LayerUnderHead() == name ? SealLayer() : Status::Ok();
    case OperationKind::kDelete:
      if (prepared_ != nullptr && prepared_->revert && prepared_->head.meta.parent == name) {
        RETURN_IF_ERROR(RemovePrepared());
      }
      if (LayerUnderHead() == name) RETURN_IF_ERROR(SealLayer());
      return DeleteLayer(name);
    case OperationKind::kLayers:
      return ListLayers(operation);
    case OperationKind::kMerge:
      return RunMerge(operation);
    case OperationKind::kExpand:
      return RemovePrepared();
    case OperationKind::kOpenView:
      return OpenView(operation);
    case OperationKind::kClone: {
      Result<std::vector<LayerMeta>> chain = Path(name, "");
      if (chain.ok()) operation->clone->chain = chain.Take();
      return chain.status();
    }
    default:
      return ListChanged(operation);
  }
}

// --- preparing
// ------------------------------------------------------------------------------------

void Replica::DropPrepared() {
  if (prepared_ == nullptr) return;
  if (prepared_->head.file.valid()) files_.Close(prepared_->head.file);
  prepared_->masks.Close(files_);
  prepared_->sums.Close(files_);
  prepared_.reset();
}

// With its files.
Status Replica::RemovePrepared() {
  if (prepared_ == nullptr) return Status::Ok();
  const std::string snapshot = prepared_->snapshot;
  const std::string head = prepared_->head.meta.name;
  DropPrepared();
  RETURN_IF_ERROR(RemoveLayerFiles(files_, directory_, snapshot));
  return RemoveLayerFiles(files_, directory_, head);
}

// A head beside the one that is written to.
Status Replica::Prepare(const ReplicaOperation& operation) {
  RETURN_IF_ERROR(RemovePrepared());
  const uint32_t number = HeadNumber(chain_.head().meta.name) + 1;
  RETURN_IF_ERROR(RemoveLayerFiles(files_, directory_, HeadName(number)));
  prepared_ = std::make_unique<Prepared>();
  prepared_->number = number;
  prepared_->snapshot = SnapshotFileName(operation.layer);
  prepared_->made_ns = reactor_.NowNs();
  prepared_->head.meta.name = HeadName(number);
  prepared_->head.meta.created = TimeText(operation.created_seconds);
  prepared_->head.size_bytes = size_bytes();
  return operation.base.empty() ? PrepareFreeze(operation) : PrepareRevert(operation);
}

// And what the one that is written to will be called.
Status Replica::PrepareFreeze(const ReplicaOperation& operation) {
  Prepared& next = *prepared_;
  // A layer is as large as its file.
  RETURN_IF_ERROR(CutHead());
  next.frozen = chain_.head().meta;
  next.frozen.name = next.snapshot;
  next.frozen.removed = false;
  next.frozen.user_created = operation.user_created;
  next.frozen.created = next.head.meta.created;
  (void)next.frozen.other.Remove(kDiscards);
  if (!operation.labels.empty()) {
    Result<Json> labels = Json::Parse(operation.labels);
    if (!labels.ok() || !labels.value().is_object()) {
      return Status(ErrorCode::kInvalidArgument, "labels are no JSON object");
    }
    next.frozen.other.Set("Labels", labels.Take());
  }
  next.head.meta.parent = next.snapshot;
  RETURN_IF_ERROR(PrepareHead());
  // Last: from here on the two together are what a switch needs.
  return io::ReplaceFile(files_, Join(directory_, next.snapshot + std::string(kMetaSuffix)),
                         next.frozen.Write());
}

// It stands on another layer, and says what it discards.
Status Replica::PrepareRevert(const ReplicaOperation& operation) {
  Prepared& next = *prepared_;
  next.revert = true;
  next.head.meta.parent = SnapshotFileName(operation.base);
  next.head.meta.other.Set(std::string(kDiscards), chain_.head().meta.name);
  const Result<std::vector<bool>> changed = Changed("", next.head.meta.parent, 0);
  if (!changed.ok()) return changed.status();
  revert_marks_.clear();
  for (uint32_t region = 0; region < changed.value().size(); ++region) {
    if (!changed.value()[region]) continue;
    if (revert_marks_.empty() ||
        revert_marks_.back().first + revert_marks_.back().count != region) {
      revert_marks_.push_back({region, 0});
    }
    ++revert_marks_.back().count;
  }
  return PrepareHead();
}

// Its files.
Status Replica::PrepareHead() {
  Prepared& next = *prepared_;
  const std::string& name = next.head.meta.name;
  const std::string path = Join(directory_, name);
  RETURN_IF_ERROR(CreateLayerFile(files_, path, size_bytes()));
  Result<io::File> file = files_.Open(path, {.write = true, .direct = direct_, .random = true});
  if (!file.ok()) return file.status();
  next.head.file = file.value();
  Result<MaskFile> masks =
      MaskFile::Create(files_, directory_, name + std::string(kMaskSuffix), chain_.blocks());
  if (!masks.ok()) return masks.status();
  next.masks = masks.Take();
  if (sums_.on()) {
    Result<SumFile> sums = SumFile::Create(files_, directory_, name + std::string(kSumSuffix),
                                           DivideUp(size_bytes(), kRegionBytes));
    if (!sums.ok()) return sums.status();
    next.sums = sums.Take();
  }
  return io::ReplaceFile(files_, path + std::string(kMetaSuffix), next.head.meta.Write());
}

// What a revert changes, whoever is away misses (rule 5): that is noted before it is prepared, and
// must stay so until the revert is durable. One that did not come about holds nothing up for long.
bool Replica::HoldsForRevert() {
  return prepared_ != nullptr && prepared_->revert &&
         reactor_.NowNs() - prepared_->made_ns < kRevertHeldNs;
}

// Still the head of the record queue.
void Replica::MarkReverted() {
  uint8_t used = 0;
  for (int slot = 0; slot < static_cast<int>(wire::kMissingSlotsMax); ++slot) {
    if (regions_.slots()[slot].id != 0) used |= MissingBit(slot);
  }
  if (Mutant("revert-not-missed")) used = 0;
  if (used == 0) return EndRecord(ErrorCode::kOk);
  StartRegionTask(RegionTask::kBegin, 0, used);
}

void Replica::EndMarkReverted() {
  for (const wire::RegionRun run : revert_marks_) {
    regions_.Add({run.first, run.first + run.count}, task_set_);
  }
  EndRecord(ErrorCode::kOk);
}

// --- sealing, deleting
// ----------------------------------------------------------------------------

// The layer under the head. Its checksums are durable already.
Status Replica::SealLayer() {
  if (!record_state_.unsealed) return Status::Ok();
  const Layer& layer = chain_.layer(static_cast<uint16_t>(chain_.head_index() - 1));
  if (!Mutant("seal-without-flush")) {
    const Status synced = files_.SyncData(layer.file);
    record_sync_failed_ = !synced.ok();
    RETURN_IF_ERROR(synced);
  }
  record_next_.unsealed = false;
  return record_file_.Write(files_, record_next_, &record_sync_failed_);
}

Status Replica::DeleteLayer(const std::string& file_name) {
  LayerMeta& meta = snapshots_.at(file_name);
  if (meta.removed) return Status::Ok();
  meta.removed = true;
  if (Mutant("delete-not-durable")) return Status::Ok();
  const Status status =
      io::ReplaceFile(files_, Join(directory_, file_name + std::string(kMetaSuffix)), meta.Write());
  if (!status.ok()) meta.removed = false;
  return status;
}

// --- asking
// ---------------------------------------------------------------------------------------

// By their distance from the bottom. A branch of which a layer is missing cannot be read, and
// counts for nothing.
std::vector<const LayerMeta*> Replica::ParentsFirst() const {
  std::unordered_map<std::string_view, std::vector<const LayerMeta*>> on;
  for (const auto& [name, meta] : snapshots_) on[meta.parent].push_back(&meta);
  std::vector<const LayerMeta*> order = std::move(on[""]);
  for (size_t i = 0; i < order.size(); ++i) {
    const auto above = on.find(order[i]->name);
    if (above != on.end()) order.insert(order.end(), above->second.begin(), above->second.end());
  }
  return order;
}

Status Replica::ListLayers(ReplicaOperation* operation) {
  std::vector<const LayerMeta*> order = ParentsFirst();
  const LayerMeta& head = chain_.head().meta;
  order.push_back(&head);
  const std::string unsealed = record_state_.unsealed ? LayerUnderHead() : std::string();
  size_t count = 0;
  for (size_t i = operation->first; i < order.size() && count < wire::kLayerEntriesMax; ++i) {
    const LayerMeta& meta = *order[i];
    wire::LayerEntry entry;
    entry.name = SnapshotNameOf(meta.name);
    entry.parent = SnapshotNameOf(meta.parent);
    entry.created_seconds = TimeSeconds(meta.created);
    entry.removed = meta.removed;
    entry.user_created = meta.user_created;
    entry.sealed = &meta != &head && meta.name != unsealed;
    const Result<io::FileInfo> info = files_.Info(Join(directory_, meta.name));
    if (!info.ok()) return info.status();
    entry.allocated_bytes = info.value().allocated_bytes;
    entry.size_bytes = std::min(info.value().size_bytes, size_bytes());
    wire::EncodeLayer(entry, operation->data + count * wire::kLayerEntryBytes);
    ++count;
  }
  operation->answer_bytes = static_cast<uint32_t>(count * wire::kLayerEntryBytes);
  return Status::Ok();
}

// Regions of which a layer that only one of the two stands on holds a block, or hides one; from
// `first` on. What is dirty in the page cache counts. File names; an empty layer is the head, an
// empty base holds nothing.
Result<std::vector<bool>> Replica::Changed(const std::string& layer, const std::string& base,
                                           uint32_t first) {
  const Result<std::vector<LayerMeta>> path = base.empty() ? Path(layer, "") : Between(layer, base);
  if (!path.ok()) return path.status();
  std::vector<bool> changed(regions_.regions());
  const auto note = [&](uint64_t offset, uint64_t length) {
    const RegionRange range = RegionsOf(offset, length);
    for (uint32_t region = range.first; region < std::min(range.end, regions_.regions());
         ++region) {
      changed[region] = true;
    }
  };
  const uint64_t from = uint64_t{first} * kRegionBytes;
  for (const LayerMeta& meta : path.value()) {
    const std::string file_name = Join(directory_, meta.name);
    Result<MaskFile> masks =
        MaskFile::Open(files_, file_name + std::string(kMaskSuffix), chain_.blocks());
    if (masks.ok()) {
      masks.value().ForEachRun([&](uint64_t block, uint64_t blocks) {
        note(block * kBlockBytes, blocks * kBlockBytes);
      });
      masks.value().Close(files_);
    } else if (masks.status().code() != ErrorCode::kNotFound) {
      return masks.status();
    }
    Result<io::File> file = files_.Open(file_name, {});
    if (!file.ok()) return file.status();
    uint64_t at = from;
    std::vector<io::FileExtent> extents;
    Status status;
    while (at < size_bytes() && status.ok()) {
      constexpr size_t kAtATime = 512;
      extents.clear();
      status = files_.ExtentsWritten(file.value(), at, size_bytes() - at, kAtATime, &extents);
      for (const io::FileExtent& extent : extents) note(extent.offset_bytes, extent.length_bytes);
      if (extents.size() < kAtATime) break;
      at = extents.back().offset_bytes + extents.back().length_bytes;
    }
    // What is only in the page cache may have no extent yet.
    for (at = from; at < size_bytes() && status.ok();) {
      const Result<io::FileRange> data = files_.NextData(file.value(), at, size_bytes());
      status = data.status();
      if (!data.ok() || data.value().empty()) break;
      note(data.value().begin_bytes, data.value().end_bytes - data.value().begin_bytes);
      at = data.value().end_bytes;
    }
    files_.Close(file.value());
    RETURN_IF_ERROR(status);
  }
  return changed;
}

Status Replica::ListChanged(ReplicaOperation* operation) {
  const Result<std::vector<bool>> changed =
      Changed(operation->layer.empty() ? "" : SnapshotFileName(operation->layer),
              operation->base.empty() ? "" : SnapshotFileName(operation->base), operation->first);
  if (!changed.ok()) return changed.status();
  std::vector<wire::RegionRun> runs;
  for (uint32_t region = operation->first; region < changed.value().size(); ++region) {
    if (!changed.value()[region]) continue;
    if (!runs.empty() && runs.back().first + runs.back().count == region) {
      ++runs.back().count;
    } else if (runs.size() == wire::kRegionRunsMax) {
      break;
    } else {
      runs.push_back({region, 1});
    }
  }
  operation->answer_bytes = static_cast<uint32_t>(wire::EncodeRegionRuns(runs, operation->data));
  return Status::Ok();
}

Status Replica::OpenView(ReplicaOperation* operation) {
  const bool difference = !operation->base.empty();
  const Result<std::vector<LayerMeta>> path =
      Path(SnapshotFileName(operation->layer),
           difference ? SnapshotFileName(operation->base) : std::string());
  if (!path.ok()) return path.status();
  Result<std::unique_ptr<View>> view =
      View::Open(files_, directory_, path.value(), size_bytes(), sums_.on(), difference);
  if (!view.ok()) return view.status();
  view_opened_ = view.Take();
  operation->answer_bytes = 0;
  const Json* labels = path.value().front().other.Find("Labels");
  if (operation->data == nullptr || labels == nullptr || !labels->is_object()) return Status::Ok();
  // Longhorn's may be longer than any that were asked for here: they stay behind.
  const std::string text = labels->Write();
  if (text.size() > wire::kLabelsBytesMax) return Status::Ok();
  std::memcpy(operation->data + wire::kViewIdBytes, text.data(), text.size());
  operation->answer_bytes = static_cast<uint32_t>(text.size());
  return Status::Ok();
}

// --- done
// -----------------------------------------------------------------------------------------

void Replica::EndLayer(const Status& outcome) {
  ReplicaOperation* operation = record_operation_;
  EndFreeName();
  if (outcome.ok() && operation->kind == OperationKind::kOpenView) {
    while (next_view_ == 0 || views_.contains(next_view_)) ++next_view_;
    operation->view = next_view_;
    views_[next_view_++] = {std::move(view_opened_), SnapshotFileName(operation->layer),
                            operation->holder, 0, false};
  }
  if (operation->kind == OperationKind::kExpand) return EndDrop(outcome);
  if (operation->kind == OperationKind::kClone && outcome.ok()) {
    // The rest is long, and nothing that waits in the queue changes a frozen layer.
    record_operation_ = nullptr;
    record_busy_ = false;
    RunClone(operation);
    return StartRecord();
  }
  if (operation->kind == OperationKind::kPrepare && outcome.ok() && prepared_->revert) {
    return MarkReverted();
  }
  if (operation->kind == OperationKind::kMerge) {
    operation->status = OutcomeOfLayer(outcome);
    return EndMergeStep(operation);
  }
  EndRecord(OutcomeOfLayer(outcome));
}

// What is wrong with a request is told as such; the rest is the disk's.
ErrorCode Replica::OutcomeOfLayer(const Status& outcome) {
  switch (outcome.code()) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kNotFound:
    case ErrorCode::kAlreadyExists:
    case ErrorCode::kCorrupt:
      return outcome.code();
    default:
      return OutcomeOf(outcome);
  }
}

}  // namespace ankole::replica
