#include "io/file_system.h"

#include <algorithm>

namespace ankole::io {
namespace {

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

Result<FileRange> FileSystem::NextData(File file, uint64_t offset_bytes, uint64_t end_bytes) {
  std::vector<FileExtent> extents;
  const Status found = Extents(file, offset_bytes, end_bytes - offset_bytes, 1, &extents);
  if (!found.ok()) return found;
  if (extents.empty()) return FileRange{end_bytes, end_bytes};
  const FileExtent& first = extents.front();
  return FileRange{std::clamp(first.offset_bytes, offset_bytes, end_bytes),
                   std::min(end_bytes, first.offset_bytes + first.length_bytes)};
}

Result<std::string> ReadWholeFile(FileSystem& files, const std::string& path, size_t bytes_max) {
  Result<File> opened = files.Open(path, {});
  if (!opened.ok()) return opened.status();
  const File file = opened.value();
  // Grown step by step: the size that stat gives is not known to be true by the time of the read.
  std::string content;
  Status status;
  for (;;) {
    constexpr size_t kStepBytes = 16 * 1024;
    const size_t before = content.size();
    const size_t step = std::min(kStepBytes, bytes_max + 1 - before);
    content.resize(before + step);
    Result<size_t> read = files.ReadAt(file, before, content.data() + before, step);
    if (!read.ok()) {
      status = read.status();
      break;
    }
    content.resize(before + read.value());
    if (content.size() > bytes_max) {
      status = {ErrorCode::kCorrupt, path + ": larger than the " + std::to_string(bytes_max) +
                                         " bytes that it may have"};
      break;
    }
    if (read.value() < step) break;
  }
  files.Close(file);
  if (!status.ok()) return status;
  return content;
}

Status RenameIfThere(FileSystem& files, const std::string& from, const std::string& to) {
  const Status status = files.Rename(from, to);
  return status.code() == ErrorCode::kNotFound ? Status::Ok() : status;
}

Status ReplaceFile(FileSystem& files, const std::string& path, const std::string& content) {
  const std::string aside = path + ".tmp";
  Result<File> opened = files.Open(aside, {.write = true, .create = true, .truncate = true});
  if (!opened.ok()) return opened.status();
  Status status = files.WriteAt(opened.value(), 0, content.data(), content.size());
  if (status.ok()) status = files.Sync(opened.value());
  files.Close(opened.value());
  if (status.ok()) status = files.Rename(aside, path);
  if (!status.ok()) {
    const Status removed = files.Remove(aside);
    (void)removed;  // the first failure is the one to report
    return status;
  }
  return files.SyncDirectory(DirectoryOf(path));
}

namespace {

Status Extend(FileSystem& files, File file, uint64_t from_bytes, uint64_t to_bytes, NewPart part,
              bool* sync_failed) {
  const Result<FileInfo> info = files.Info(file);
  if (!info.ok()) return info.status();
  const uint64_t size_bytes = info.value().size_bytes;
  if (size_bytes < from_bytes) {
    return {ErrorCode::kCorrupt, "is of " + std::to_string(size_bytes) + " bytes and should have " +
                                     std::to_string(from_bytes)};
  }
  if (size_bytes > from_bytes) RETURN_IF_ERROR(files.Truncate(file, from_bytes));
  if (part == NewPart::kHole) {
    RETURN_IF_ERROR(files.Truncate(file, to_bytes));
  } else {
    RETURN_IF_ERROR(files.Allocate(file, from_bytes, to_bytes - from_bytes));
  }
  if (part == NewPart::kWritten) {
    constexpr uint64_t kStepBytes = 128 * 1024;
    const std::string zeros(std::min(kStepBytes, to_bytes - from_bytes), '\0');
    for (uint64_t at = from_bytes; at < to_bytes; at += zeros.size()) {
      RETURN_IF_ERROR(
          files.WriteAt(file, at, zeros.data(), std::min<uint64_t>(zeros.size(), to_bytes - at)));
    }
  }
  const Status synced = files.Sync(file);
  *sync_failed |= !synced.ok();
  return synced;
}

}  // namespace

Status ExtendFile(FileSystem& files, const std::string& path, uint64_t from_bytes,
                  uint64_t to_bytes, NewPart part, bool* sync_failed) {
  if (from_bytes >= to_bytes) return {};
  Result<File> opened = files.Open(path, {.write = true});
  if (!opened.ok()) return opened.status();
  const File file = opened.value();
  const Status status = Extend(files, file, from_bytes, to_bytes, part, sync_failed);
  if (!status.ok() && status.code() != ErrorCode::kCorrupt) {
    (void)files.Truncate(file, from_bytes).ok();  // the first failure is the one to report
  }
  files.Close(file);
  return status.Within(path);
}

}  // namespace ankole::io
