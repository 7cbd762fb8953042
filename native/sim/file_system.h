#pragma once

#include <functional>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "sim/disk.h"

namespace ankole::sim {

class Machine;
class SimReactor;

// The files of a simulated machine as one of its processes sees them: Disk, with time and faults.
// Each call of a job is a moment at which the world goes on, and at which a crash can hit.
class SimFileSystem final : public io::FileSystem {
 public:
  SimFileSystem(Machine& machine, SimReactor& process) : machine_(machine), process_(process) {}

  Result<io::File> Open(const std::string& path, const io::OpenOptions& options) override;
  void Close(io::File file) override;
  Result<size_t> ReadAt(io::File file, uint64_t offset_bytes, void* to, size_t bytes) override;
  Status WriteAt(io::File file, uint64_t offset_bytes, const void* from, size_t bytes) override;
  Status Sync(io::File file) override;
  Status SyncData(io::File file) override { return Sync(file); }
  Status SyncDirectory(const std::string& path) override;
  Status Truncate(io::File file, uint64_t size_bytes) override;
  Status Allocate(io::File file, uint64_t offset_bytes, uint64_t length_bytes) override;
  Status PunchHole(io::File file, uint64_t offset_bytes, uint64_t length_bytes) override;
  Status ZeroRange(io::File file, uint64_t offset_bytes, uint64_t length_bytes) override;
  Status Extents(io::File file, uint64_t offset_bytes, uint64_t length_bytes, size_t extents_max,
                 std::vector<io::FileExtent>* extents) override;
  Result<io::FileRange> NextData(io::File file, uint64_t offset_bytes, uint64_t end_bytes) override;
  Status DropCache(io::File file) override;
  Status TryLock(io::File file) override;
  Result<io::FileInfo> Info(const std::string& path) override;
  Result<io::FileInfo> Info(io::File file) override;
  Status Rename(const std::string& from, const std::string& to) override;
  Status Link(const std::string& from, const std::string& to) override;
  Status Remove(const std::string& path) override;
  Status RemoveDirectory(const std::string& path) override;
  Status MakeDirectory(const std::string& path) override;
  Result<std::vector<std::string>> List(const std::string& path) override;
  Result<io::SpaceInfo> Space(const std::string& path) override;
  Result<std::string> BootId() override;
  Result<std::string> MountId(const std::string& path) override;

 private:
  // A call that the page cache answers, and one that waits for the device.
  Status Quick(const std::string& what, const std::function<int()>& effect);
  Status Slow(const std::string& what, const std::function<int()>& effect);
  std::string Name(io::File file);
  Inode* InodeOf(io::File file);

  Machine& machine_;
  SimReactor& process_;
};

}  // namespace ankole::sim
