#include "replica/layer.h"

#include <algorithm>
#include <vector>

#include "base/mutant.h"
#include "base/units.h"

namespace ankole::replica {
namespace {

// Extents asked for at a time; 24 bytes each.
constexpr size_t kExtentsAtATime = 1024;
constexpr uint64_t kProbeOffsetBytes = 1 * kMiB;

}  // namespace

Status CreateLayerFile(io::FileSystem& files, const std::string& path, uint64_t size_bytes) {
  Result<io::File> opened = files.Open(path, {.write = true, .create = true, .exclusive = true});
  if (!opened.ok()) return opened.status();
  Status status = files.Truncate(opened.value(), size_bytes);
  if (status.ok()) status = files.Sync(opened.value());
  files.Close(opened.value());
  return status.Within(path);
}

Status ExtendLayerFile(io::FileSystem& files, const std::string& path, uint64_t size_bytes_before,
                       uint64_t size_bytes, bool* sync_failed) {
  return io::ExtendFile(files, path, size_bytes_before, size_bytes, io::NewPart::kHole,
                        sync_failed);
}

Status ForEachExtent(io::FileSystem& files, const std::string& path, io::File file,
                     const io::FileRange& range,
                     const std::function<void(uint64_t, uint64_t)>& each) {
  std::vector<io::FileExtent> extents;
  uint64_t at = range.begin_bytes;
  while (at < range.end_bytes) {
    RETURN_IF_ERROR(
        files.Extents(file, at, range.end_bytes - at, kExtentsAtATime, &extents).Within(path));
    for (const io::FileExtent& extent : extents) {
      const uint64_t end = std::min(range.end_bytes, extent.offset_bytes + extent.length_bytes);
      const uint64_t begin = std::max(at, extent.offset_bytes);
      if (begin >= end) continue;
      if (extent.unwritten && !Mutant("unwritten-hides")) {
        at = end;
        continue;
      }
      if (begin % kBlockBytes != 0 || (end % kBlockBytes != 0 && end != range.end_bytes)) {
        return Status(ErrorCode::kUnsupported,
                      path + ": the file system does not allocate whole blocks of 4 KiB");
      }
      each(begin, end - begin);
      at = end;
    }
    if (extents.size() < kExtentsAtATime) break;
  }
  return Status::Ok();
}

Status ForEachUnwritten(io::FileSystem& files, const std::string& path, io::File file,
                        uint64_t size_bytes, const std::function<void(uint64_t, uint64_t)>& each) {
  std::vector<io::FileExtent> extents;
  for (uint64_t at = 0; at < size_bytes;) {
    RETURN_IF_ERROR(
        files.Extents(file, at, size_bytes - at, kExtentsAtATime, &extents).Within(path));
    for (const io::FileExtent& extent : extents) {
      const uint64_t end = std::min(size_bytes, extent.offset_bytes + extent.length_bytes);
      const uint64_t begin = std::max(at, extent.offset_bytes);
      if (begin >= end) continue;
      if (extent.unwritten) each(begin, end - begin);
      at = end;
    }
    if (extents.size() < kExtentsAtATime) break;
  }
  return Status::Ok();
}

Status ProbeFileSystem(io::FileSystem& files, const std::string& directory) {
  const std::string path = directory + "/probe";
  Result<io::File> opened = files.Open(path, {.write = true, .create = true, .truncate = true});
  if (!opened.ok()) return opened.status();
  const char byte = 1;
  std::vector<io::FileExtent> extents;
  Status status = files.WriteAt(opened.value(), kProbeOffsetBytes, &byte, sizeof(byte));
  if (status.ok()) {
    status = files.Extents(opened.value(), 0, 2 * kProbeOffsetBytes, 2, &extents);
    if (!status.ok() && status.code() == ErrorCode::kUnsupported) {
      status = Status(ErrorCode::kUnsupported,
                      directory +
                          ": the file system has no FIEMAP, which is needed to tell where data "
                          "lies; ext4 and XFS have it");
    }
  }
  if (status.ok() && (extents.size() != 1 || extents[0].offset_bytes != kProbeOffsetBytes ||
                      extents[0].length_bytes != kBlockBytes)) {
    status = Status(ErrorCode::kUnsupported,
                    directory + ": the file system's blocks are not of 4 KiB (" +
                        (extents.empty() ? std::string("no extent shown")
                                         : std::to_string(extents[0].length_bytes) + " bytes") +
                        ")");
  }
  files.Close(opened.value());
  const Status removed = files.Remove(path);
  return status.ok() ? removed : status;
}

}  // namespace ankole::replica
