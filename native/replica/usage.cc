#include "replica/usage.h"

#include <algorithm>

#include "replica/disk_host.h"
#include "replica/replica.h"

namespace ankole::replica {

Json ReplicaUsage::ToJson() const {
  Json list = Json::Array();
  for (const Layer& layer : layers) {
    list.Append(
        Json::Object().Set("name", layer.name).Set("allocatedBytes", layer.allocated_bytes));
  }
  return Json::Object().Set("layers", std::move(list)).Set("metadataBytes", metadata_bytes);
}

Result<ReplicaUsage> UsageOf(io::FileSystem& files, const std::string& directory) {
  const Result<std::string> text =
      io::ReadWholeFile(files, Join(directory, kVolumeMetaName), kMetadataBytesMax);
  if (!text.ok()) return text.status();
  const Result<VolumeMeta> volume = VolumeMeta::Parse(text.value());
  if (!volume.ok()) return volume.status();
  Result<std::vector<std::string>> names = files.List(directory);
  if (!names.ok()) return names.status();
  std::sort(names.value().begin(), names.value().end());
  const Result<io::FileInfo> own = files.Info(directory);
  ReplicaUsage usage;
  if (own.ok()) usage.metadata_bytes = own.value().allocated_bytes;
  for (const std::string& name : names.value()) {
    const Result<io::FileInfo> info = files.Info(Join(directory, name));
    if (!info.ok()) continue;  // it went meanwhile
    const uint64_t bytes = info.value().allocated_bytes;
    if (name == volume.value().head) {
      usage.layers.push_back({"", bytes});
    } else if (IsSnapshotName(name)) {
      usage.layers.push_back({SnapshotNameOf(name), bytes});
    } else {
      usage.metadata_bytes += bytes;
    }
  }
  return usage;
}

// What the file system has, and what of that the replicas take up.
void DiskHost::AnswerUsage(int64_t request) {
  struct Row {
    Key key;
    std::string directory;
    Result<ReplicaUsage> usage = ReplicaUsage{};
  };
  struct Usage {
    Result<io::SpaceInfo> space = io::SpaceInfo{};
    std::vector<Row> rows;
  };
  auto found = std::make_shared<Usage>();
  for (const auto& [key, served] : replicas_) found->rows.push_back({key, served->directory()});
  RunJob(
      [this, found] {
        found->space = reactor_.files().Space(config_.directory);
        for (Row& row : found->rows) row.usage = UsageOf(reactor_.files(), row.directory);
      },
      [this, found, request] {
        if (!found->space.ok()) {
          events_.Emit(ReplyTo(request, found->space.status()));
          return;
        }
        Json rows = Json::Array();
        for (const Row& row : found->rows) {
          if (!row.usage.ok()) continue;  // removed meanwhile, or its state says what is wrong
          Json one = row.usage.value().ToJson();
          one.Set("volume", row.key.first).Set("id", wire::ReplicaIdText(row.key.second));
          rows.Append(std::move(one));
        }
        events_.Emit(ReplyTo(request, Json::Object()
                                          .Set("disk", config_.disk)
                                          .Set("totalBytes", found->space.value().total_bytes)
                                          .Set("freeBytes", found->space.value().free_bytes)
                                          .Set("replicas", std::move(rows))));
      });
}

}  // namespace ankole::replica
