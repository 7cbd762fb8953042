#include "replica/clone.h"

#include <utility>

#include "base/check.h"
#include "base/mutant.h"
#include "replica/layers.h"
#include "replica/longhorn.h"
#include "replica/making.h"
#include "wire/hello.h"

namespace ankole::replica {
namespace {

// A copy: pages of checksums and sectors of masks are written in place.
Status CopyIfThere(io::FileSystem& files, const std::string& from, const std::string& to) {
  if (const Result<io::FileInfo> info = files.Info(from); !info.ok()) {
    return info.status().code() == ErrorCode::kNotFound ? Status::Ok() : info.status();
  }
  return CopySparseFile(files, from, to, [](uint64_t) { return true; });
}

// It is durable since it was sealed; what a merge wrote into it since may not be.
Status SyncLayer(io::FileSystem& files, const std::string& path) {
  const Result<io::File> file = files.Open(path, {});
  if (!file.ok()) return file.status();
  const Status status = files.Sync(file.value());
  files.Close(file.value());
  return status.Within(path);
}

Status TakeLayer(io::FileSystem& files, const std::string& directory, const LayerMeta& layer,
                 const CloneTarget& target, const std::string& aside) {
  const std::string from = Join(directory, layer.name);
  const std::string to = Join(aside, layer.name);
  const Result<io::FileInfo> info = files.Info(from);
  if (!info.ok()) return info.status();
  if (info.value().size_bytes > target.size_bytes) {
    return {ErrorCode::kInvalidArgument, from + ": is of " +
                                             std::to_string(info.value().size_bytes) +
                                             " bytes, which a volume of " +
                                             std::to_string(target.size_bytes) + " does not hold"};
  }
  RETURN_IF_ERROR(files.Link(from, to));
  RETURN_IF_ERROR(SyncLayer(files, to));
  if (!Mutant("clone-without-masks")) {
    RETURN_IF_ERROR(
        CopyIfThere(files, from + std::string(kMaskSuffix), to + std::string(kMaskSuffix)));
  }
  if (target.identity.checksums) {
    RETURN_IF_ERROR(
        CopyIfThere(files, from + std::string(kSumSuffix), to + std::string(kSumSuffix)));
  }
  LayerMeta meta = layer;
  meta.removed = true;
  meta.user_created = false;
  (void)meta.other.Remove("Labels");
  return io::ReplaceFile(files, to + std::string(kMetaSuffix), meta.Write());
}

}  // namespace

wire::Record FirstRecordOfClone(const wire::Members& members) {
  return {.epoch = {.attachment = 0, .run = 1},
          .generation = 1,
          .members = members,
          .newest_snapshot = ""};
}

Status MakeClone(io::FileSystem& files, const std::string& directory, const CloneTarget& target) {
  CHECK(!target.chain.empty());
  RETURN_IF_ERROR(CheckIdentity(target.identity, target.size_bytes));
  RecordState record;
  record.record = {.current = target.record, .complete = target.record};
  const Status made =
      MakeDirectoryWhole(files, target.directory, [&](const std::string& aside) -> Status {
        for (const LayerMeta& layer : target.chain) {
          RETURN_IF_ERROR(TakeLayer(files, directory, layer, target, aside));
        }
        return FillReplica(files, aside, target.identity, target.size_bytes, record,
                           target.chain.front().name);
      });
  return made.code() == ErrorCode::kAlreadyExists ? Status::Ok() : made;
}

// --- of an open replica
// ---------------------------------------------------------------------------

// No step of a merge is under way, and none begins as long as there is a clone to be made. A merge
// that was begun is given up at its next step where its file is shared then: until its end, what it
// wrote is hidden by the layer above, in the clone as well.
void Replica::ReleaseClones() {
  if (merge_step_ || clone_waiters_.empty()) return;
  while (ReplicaOperation* operation = clone_waiters_.PopFront()) {
    record_waiters_.PushBack(operation);
  }
  StartRecord();
}

ErrorCode Replica::BeginClone(const std::string& name) {
  // What could not be written may count as clean in the page cache.
  if (sync_failed_ || failed_marker_) return ErrorCode::kSuspect;
  const auto found = snapshots_.find(name);
  if (found == snapshots_.end() || found->second.removed) return ErrorCode::kNotFound;
  if (record_state_.unsealed && chain_.head().meta.parent == name) return ErrorCode::kBusy;
  // Its files may have names of before and of after it.
  const bool names = merge_ != nullptr && merge_->phase == Merge::Phase::kNames;
  return names ? ErrorCode::kBusy : ErrorCode::kOk;
}

void Replica::RunClone(ReplicaOperation* operation) {
  operation->job.owner = operation;
  operation->job.work = [](io::Job* job) {
    auto* self = static_cast<ReplicaOperation*>(job->owner);
    Replica* replica = self->replica;
    replica->clone_failure_ = MakeClone(replica->files_, replica->directory_, *self->clone);
    self->status = replica->clone_failure_.code();
  };
  operation->job.done = [](io::Operation* job) {
    auto* self = static_cast<ReplicaOperation*>(job->owner);
    self->replica->Finish(self, self->status);
  };
  reactor_.Run(&operation->job);
}

// Where that cannot be told it counts as shared. One that is not there has its other name: a merge
// that gives names goes on, and no clone was made since it began with that.
bool Replica::IsShared(const std::string& name) {
  if (Mutant("clone-merged-in-place")) return false;
  const Result<io::FileInfo> info = files_.Info(Join(directory_, name));
  if (info.ok()) return info.value().links > 1;
  return info.status().code() != ErrorCode::kNotFound;
}

// A removed layer that a clone keeps stays for as long as that lives, and a snapshot of its name
// may be asked for meanwhile: by a member that gives this replica what it lacks, of a history that
// it was not part of, or by who uses a clone. Then the layer gets another name, which nobody can
// know.
Status Replica::FreeName(const std::string& name) {
  const auto found = snapshots_.find(name);
  if (found == snapshots_.end()) return Status::Ok();
  LayerMeta* above = nullptr;
  size_t children = chain_.head().meta.parent == name ? 1 : 0;
  for (auto& [other, meta] : snapshots_) {
    if (meta.parent != name) continue;
    ++children;
    above = &meta;
  }
  if (!found->second.removed || children != 1 || above == nullptr || !IsShared(name)) {
    return {ErrorCode::kAlreadyExists, Join(directory_, name) + ": exists already"};
  }
  uint64_t number = 0;
  reactor_.Random(&number, sizeof(number));
  LayerMeta meta = found->second;
  meta.name = SnapshotFileName("shared-" + wire::ReplicaIdText(number));
  RETURN_IF_ERROR(ForgetMerge());
  // The description first: without data it goes when the replica is opened. With it both are whole,
  // and the one that nothing stands on goes as any removed layer does.
  RETURN_IF_ERROR(io::ReplaceFile(files_, Join(directory_, meta.name + std::string(kMetaSuffix)),
                                  meta.Write()));
  for (const std::string_view suffix : {kMaskSuffix, kSumSuffix, std::string_view()}) {
    const Status linked = files_.Link(Join(directory_, name) + std::string(suffix),
                                      Join(directory_, meta.name) + std::string(suffix));
    if (!linked.ok() && (suffix.empty() || linked.code() != ErrorCode::kNotFound)) return linked;
  }
  RETURN_IF_ERROR(files_.SyncDirectory(directory_));
  LayerMeta moved = *above;
  moved.parent = meta.name;
  // Where that fails nobody knows which of them the layer above names: neither goes before the
  // replica is opened anew, as their file has two names here.
  RETURN_IF_ERROR(io::ReplaceFile(files_, Join(directory_, moved.name + std::string(kMetaSuffix)),
                                  moved.Write()));
  *above = moved;
  snapshots_[meta.name] = meta;
  renamed_ = {name, meta.name};
  return DeleteLeaf(name);
}

// Whatever became of it after that: by its files the layer above stands on the new name.
void Replica::EndFreeName() {
  const auto [before, after] = std::exchange(renamed_, {});
  if (before.empty()) return;
  for (Layer& layer : chain_.layers()) {
    if (layer.meta.name == before) layer.meta.name = after;
    if (layer.meta.parent == before) layer.meta.parent = after;
  }
}

bool Replica::MergesIntoShared() {
  const bool writes = merge_->phase != Merge::Phase::kSwap && merge_->phase != Merge::Phase::kClose;
  return writes && IsShared(merge_->lower);
}

}  // namespace ankole::replica
