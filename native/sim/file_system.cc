#include "sim/file_system.h"

#include <cerrno>
#include <utility>

#include "sim/machine.h"
#include "sim/reactor.h"

namespace ankole::sim {
namespace {

constexpr uint64_t kCallNsMin = 500;
constexpr uint64_t kCallNsMax = 20 * kNsPerUs;
// A flash disk at its best.
constexpr uint64_t kSyncNsMin = 50 * kNsPerUs;

}  // namespace

Inode* SimFileSystem::InodeOf(io::File file) {
  Machine::OpenFile* open = machine_.Find(file.fd);
  CHECK(open != nullptr && open->owner == &process_);
  return open->inode.get();
}

std::string SimFileSystem::Name(io::File file) {
  const Machine::OpenFile* open = machine_.Find(file.fd);
  return open == nullptr ? "descriptor " + std::to_string(file.fd) : open->path;
}

Status SimFileSystem::Quick(const std::string& what, const std::function<int()>& effect) {
  int result = -EIO;
  Random& random = machine_.world.random;
  process_.Blocking(random.Skewed(kCallNsMin, kCallNsMax), random.Below(kCallNsMin),
                    [&] { result = effect(); });
  return result < 0 ? Status::FromErrno(-result, what) : Status::Ok();
}

Status SimFileSystem::Slow(const std::string& what, const std::function<int()>& effect) {
  int result = -EIO;
  Random& random = machine_.world.random;
  const uint64_t before_ns = random.Skewed(kCallNsMin, kSyncNsMin) + machine_.SlowNs(random);
  process_.Blocking(before_ns, random.Below(kCallNsMin), [&] { result = effect(); });
  return result < 0 ? Status::FromErrno(-result, what) : Status::Ok();
}

Result<io::File> SimFileSystem::Open(const std::string& path, const io::OpenOptions& options) {
  io::File file;
  const Status status = Quick(path + ": open", [&] {
    InodePtr inode;
    const int found = options.create ? machine_.disk.Create(path, options.exclusive, &inode)
                                     : machine_.disk.Lookup(path, &inode);
    if (found < 0) return found;
    if (inode->directory) return -EISDIR;
    if (options.truncate) (void)machine_.disk.Truncate(inode.get(), 0);
    file.fd = machine_.Open({inode, &process_, options.write, path});
    return 0;
  });
  if (!status.ok()) return status;
  return file;
}

void SimFileSystem::Close(io::File file) {
  process_.Blocking(machine_.world.random.Below(kCallNsMax), 0, [&] { machine_.Close(file.fd); });
}

Result<size_t> SimFileSystem::ReadAt(io::File file, uint64_t offset_bytes, void* to, size_t bytes) {
  int64_t got = 0;
  const Status status = Quick(Name(file) + ": read", [&] {
    got = machine_.disk.Read(*InodeOf(file), offset_bytes, to, bytes);
    return got < 0 ? static_cast<int>(got) : 0;
  });
  if (!status.ok()) return status;
  return static_cast<size_t>(got);
}

Status SimFileSystem::WriteAt(io::File file, uint64_t offset_bytes, const void* from,
                              size_t bytes) {
  return Quick(Name(file) + ": write",
               [&] { return machine_.disk.Write(InodeOf(file), offset_bytes, from, bytes); });
}

// In two steps: what a crash between them leaves is a sync that did not finish.
Status SimFileSystem::Sync(io::File file) {
  const std::string what = Name(file) + ": fsync";
  std::vector<uint64_t> pages;
  bool needed = false;
  RETURN_IF_ERROR(Quick(what, [&] {
    Inode* const inode = InodeOf(file);
    needed = Disk::NeedsSync(*inode);
    if (needed && machine_.faults.sync_errors == 0) pages = machine_.disk.SyncBegins(inode);
    return 0;
  }));
  // An engine's flush that finds nothing to do is not to be waited for.
  if (!needed && machine_.world.random.Chance(1, 2)) return Status::Ok();
  return Slow(what, [&] {
    Inode* const inode = InodeOf(file);
    if (needed && machine_.faults.sync_errors > 0) {
      machine_.SyncFails(inode);
      if (machine_.world.tracing()) machine_.world.Trace(machine_.name(), what + " fails");
      return -EIO;
    }
    machine_.disk.SyncEnds(inode, pages);
    return 0;
  });
}

Status SimFileSystem::SyncDirectory(const std::string& path) {
  return Slow(path + ": fsync directory", [&] {
    InodePtr inode;
    if (const int found = machine_.disk.Lookup(path, &inode); found < 0) return found;
    if (!inode->directory) return -ENOTDIR;
    machine_.disk.SyncDirectory(inode.get());
    return 0;
  });
}

Status SimFileSystem::Truncate(io::File file, uint64_t size_bytes) {
  return Quick(Name(file) + ": truncate",
               [&] { return machine_.disk.Truncate(InodeOf(file), size_bytes); });
}

Status SimFileSystem::Allocate(io::File file, uint64_t offset_bytes, uint64_t length_bytes) {
  return Slow(Name(file) + ": allocate space",
              [&] { return machine_.disk.Allocate(InodeOf(file), offset_bytes, length_bytes); });
}

Status SimFileSystem::PunchHole(io::File file, uint64_t offset_bytes, uint64_t length_bytes) {
  return Slow(Name(file) + ": punch a hole", [&] {
    machine_.disk.PunchHole(InodeOf(file), offset_bytes, length_bytes);
    return 0;
  });
}

Status SimFileSystem::ZeroRange(io::File file, uint64_t offset_bytes, uint64_t length_bytes) {
  return Slow(Name(file) + ": zero a range",
              [&] { return machine_.disk.ZeroRange(InodeOf(file), offset_bytes, length_bytes); });
}

Status SimFileSystem::Extents(io::File file, uint64_t offset_bytes, uint64_t length_bytes,
                              size_t extents_max, std::vector<io::FileExtent>* extents) {
  return Slow(Name(file) + ": FIEMAP", [&] {
    machine_.disk.Extents(*InodeOf(file), offset_bytes, length_bytes, extents_max, extents);
    return 0;
  });
}

Result<io::FileRange> SimFileSystem::NextData(io::File file, uint64_t offset_bytes,
                                              uint64_t end_bytes) {
  io::FileRange range;
  RETURN_IF_ERROR(Quick(Name(file) + ": SEEK_DATA", [&] {
    range = machine_.disk.NextData(*InodeOf(file), offset_bytes, end_bytes);
    return 0;
  }));
  return range;
}

Status SimFileSystem::DropCache(io::File file) {
  return Quick(Name(file) + ": drop the cache", [&] {
    machine_.disk.DropCache(InodeOf(file));
    return 0;
  });
}

Status SimFileSystem::TryLock(io::File file) {
  const Status status = Quick(Name(file) + ": lock", [&] {
    Inode* const inode = InodeOf(file);
    const auto mine = static_cast<uint64_t>(file.fd);
    if (inode->locked_by != 0 && inode->locked_by != mine) return -EBUSY;
    inode->locked_by = mine;
    return 0;
  });
  if (status.ok()) return status;
  return {ErrorCode::kBusy, Name(file) + ": locked by another"};
}

Result<io::FileInfo> SimFileSystem::Info(const std::string& path) {
  io::FileInfo info;
  const Status status = Quick(path + ": stat", [&] {
    InodePtr inode;
    if (const int found = machine_.disk.Lookup(path, &inode); found < 0) return found;
    info = {inode->size_bytes, machine_.disk.allocated_bytes(*inode), inode->directory,
            inode->links};
    return 0;
  });
  if (!status.ok()) return status;
  return info;
}

Result<io::FileInfo> SimFileSystem::Info(io::File file) {
  io::FileInfo info;
  RETURN_IF_ERROR(Quick("stat", [&] {
    const Inode& inode = *InodeOf(file);
    info = {inode.size_bytes, machine_.disk.allocated_bytes(inode), inode.directory, inode.links};
    return 0;
  }));
  return info;
}

Status SimFileSystem::Rename(const std::string& from, const std::string& to) {
  return Quick(from + ": rename to " + to, [&] { return machine_.disk.Rename(from, to); });
}
Status SimFileSystem::Link(const std::string& from, const std::string& to) {
  return Quick(from + ": link as " + to, [&] { return machine_.disk.Link(from, to); });
}
Status SimFileSystem::Remove(const std::string& path) {
  return Quick(path + ": remove", [&] { return machine_.disk.Remove(path, false); });
}
Status SimFileSystem::RemoveDirectory(const std::string& path) {
  return Quick(path + ": remove directory", [&] { return machine_.disk.Remove(path, true); });
}
Status SimFileSystem::MakeDirectory(const std::string& path) {
  return Quick(path + ": make directory", [&] { return machine_.disk.MakeDirectory(path); });
}

Result<std::vector<std::string>> SimFileSystem::List(const std::string& path) {
  std::vector<std::string> names;
  const Status status = Quick(path + ": open directory", [&] {
    InodePtr inode;
    if (const int found = machine_.disk.Lookup(path, &inode); found < 0) return found;
    if (!inode->directory) return -ENOTDIR;
    for (const auto& [name, entry] : inode->entries) names.push_back(name);
    return 0;
  });
  if (!status.ok()) return status;
  return names;
}

Result<io::SpaceInfo> SimFileSystem::Space(const std::string&) {
  const uint64_t total = machine_.disk.capacity_pages;
  const uint64_t used = std::min(total, machine_.disk.used_pages());
  return io::SpaceInfo{total * kBlockBytes, (total - used) * kBlockBytes};
}

Result<std::string> SimFileSystem::BootId() { return machine_.boot_id(); }

// Mounted at each boot, and only then.
Result<std::string> SimFileSystem::MountId(const std::string&) {
  return "mount-" + std::to_string(machine_.boots());
}

}  // namespace ankole::sim
