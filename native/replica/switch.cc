#include <utility>

#include "replica/layers.h"

// Another head (rule 8), and what else must not happen beside what needs the chain: by the record
// that names the snapshot, or without one at a replica that is no member. In the slot of `record`
// is the number of the head that holds; the files get their names after it.
namespace ankole::replica {
bool Replica::Switches(const ReplicaOperation& operation) const {
  if (operation.kind == OperationKind::kMerge) {
    return merge_ != nullptr && merge_->phase == Merge::Phase::kSwap;
  }
  if (operation.kind == OperationKind::kExpand) {
    return operation.extended && size_bytes() % kBlockBytes != 0;
  }
  if (prepared_ == nullptr || prepared_->stale) return false;
  if (operation.kind == OperationKind::kSwitch) {
    return prepared_->snapshot == SnapshotFileName(operation.layer);
  }
  const wire::Record& next = operation.record.current;
  const std::string& newest = record_state_.record.current.newest_snapshot;
  // One that was made equal has the snapshot already, or it was deleted: what is prepared is left
  // of giving it.
  return operation.kind == OperationKind::kRecord && !operation.resynced &&
         next.newest_snapshot != newest &&
         prepared_->snapshot == SnapshotFileName(next.newest_snapshot);
}

// Nothing is under way that needs the head as it is.
void Replica::OnQuiet() {
  if (switch_operation_ == nullptr || data_in_flight_ > 0) return;
  record_busy_ = false;
  BeginOperation(std::exchange(switch_operation_, nullptr));
  if (!record_busy_) StartRecord();
}

// The slot is durable: what was the head is frozen, or discarded.
void Replica::ApplySwitch() {
  if (prepared_->revert) {
    // Of what is open here nothing counts any more.
    reverted_ = true;
    return DropPrepared();
  }
  const std::unique_ptr<Prepared> next = std::move(prepared_);
  chain_.head().meta = next->frozen;
  snapshots_[next->snapshot] = next->frozen;
  chain_.Push(std::move(next->head));
  // The map knows its bits.
  masks_.Close(files_);
  masks_ = std::move(next->masks);
  if (sums_.on()) sums_.SwitchHead(std::move(next->sums));
  names_due_ = true;
}

// What came meanwhile goes on, to whichever head holds.
void Replica::EndSwitch() {
  if (!std::exchange(switching_, false)) return;
  List waiters;
  while (ReplicaOperation* waiter = switch_waiters_.PopFront()) waiters.PushBack(waiter);
  while (ReplicaOperation* waiter = waiters.PopFront()) {
    if (reverted_) {
      FinishLater(waiter, ErrorCode::kCancelled);
      continue;
    }
    waiter->needs_chain = true;
    ++data_in_flight_;
    Start(waiter);
  }
}

// Gives the files the names that belong to `head` as the head; does nothing where they have them.
// After a crash it goes on where it was: the data file is renamed last of the frozen layer's, and
// volume.meta follows it.
Status Replica::GiveNames(io::FileSystem& files, const std::string& directory, VolumeMeta* volume,
                          const std::string& head) {
  if (volume->head == head) return Status::Ok();
  const std::string meta_name = head + std::string(kMetaSuffix);
  const Result<std::string> text =
      io::ReadWholeFile(files, Join(directory, meta_name), kMetadataBytesMax);
  if (!text.ok()) return text.status();
  const Result<LayerMeta> meta = LayerMeta::Parse(meta_name, text.value());
  if (!meta.ok()) return meta.status().Within(Join(directory, meta_name));
  const std::string from = Join(directory, volume->head);
  const std::string to = Join(directory, meta.value().parent);
  // By a revert the head before keeps its name, and goes by kMerge.
  const bool discards = DiscardedBy(meta.value()) == volume->head;
  for (const std::string_view suffix : {kMaskSuffix, kSumSuffix, std::string_view()}) {
    if (discards) break;
    RETURN_IF_ERROR(io::RenameIfThere(files, from + std::string(suffix), to + std::string(suffix)));
  }
  // Durable before volume.meta says so, which syncs the directory itself only after.
  RETURN_IF_ERROR(files.SyncDirectory(directory));
  VolumeMeta next = *volume;
  next.head = head;
  next.parent = meta.value().parent;
  RETURN_IF_ERROR(io::ReplaceFile(files, Join(directory, kVolumeMetaName), next.Write()));
  *volume = std::move(next);
  if (discards) return Status::Ok();
  const Status removed = files.Remove(from + std::string(kMetaSuffix));
  return removed.code() == ErrorCode::kNotFound ? Status::Ok() : removed;
}

}  // namespace ankole::replica
