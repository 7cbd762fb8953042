#pragma once

#include <map>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "sim/disk.h"

namespace ankole::sim {

// A machine's files as they are at this moment, for who only looks: nothing takes time or chances,
// nothing fails, nothing can be changed. So checkers may use the replica's own code on them.
class StillFiles final : public io::FileSystem {
 public:
  explicit StillFiles(Disk& disk) : disk_(disk) {}

  Result<io::File> Open(const std::string& path, const io::OpenOptions& options) override;
  void Close(io::File file) override { open_.erase(file.fd); }
  Result<size_t> ReadAt(io::File file, uint64_t offset_bytes, void* to, size_t bytes) override;
  Status Extents(io::File file, uint64_t offset_bytes, uint64_t length_bytes, size_t extents_max,
                 std::vector<io::FileExtent>* extents) override;
  Result<io::FileInfo> Info(const std::string& path) override;
  Result<io::FileInfo> Info(io::File file) override;
  Result<std::vector<std::string>> List(const std::string& path) override;

  Status WriteAt(io::File, uint64_t, const void*, size_t) override { return Refused(); }
  Status Sync(io::File) override { return Refused(); }
  Status SyncData(io::File) override { return Refused(); }
  Status SyncDirectory(const std::string&) override { return Refused(); }
  Status Truncate(io::File, uint64_t) override { return Refused(); }
  Status Allocate(io::File, uint64_t, uint64_t) override { return Refused(); }
  Status PunchHole(io::File, uint64_t, uint64_t) override { return Refused(); }
  Status ZeroRange(io::File, uint64_t, uint64_t) override { return Refused(); }
  Status TryLock(io::File) override { return Refused(); }
  Status Rename(const std::string&, const std::string&) override { return Refused(); }
  Status Remove(const std::string&) override { return Refused(); }
  Status RemoveDirectory(const std::string&) override { return Refused(); }
  Status MakeDirectory(const std::string&) override { return Refused(); }
  Result<io::SpaceInfo> Space(const std::string&) override { return Refused(); }
  Result<std::string> BootId() override { return Refused(); }
  Result<std::string> MountId(const std::string&) override { return Refused(); }

 private:
  static Status Refused() { return {ErrorCode::kUnsupported, "these files are only looked at"}; }

  Disk& disk_;
  std::map<int, InodePtr> open_;
  int next_fd_ = 1;
};

}  // namespace ankole::sim
