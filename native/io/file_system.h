#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

// The seam to files. Everything blocks: it is called on a pool thread (Reactor::Run), or where
// nothing else is being served yet. Data of I/O goes through Reactor::Read and Write instead.
namespace ankole::io {

// An open file. A plain number, so that the simulator can hand out its own.
struct File {
  int fd = -1;
  bool valid() const { return fd >= 0; }
};

struct FileExtent {
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
  bool unwritten = false;  // allocated, reads as zero
};

struct FileRange {
  uint64_t begin_bytes = 0;
  uint64_t end_bytes = 0;
  bool empty() const { return begin_bytes == end_bytes; }
};

struct FileInfo {
  uint64_t size_bytes = 0;
  uint64_t allocated_bytes = 0;
  bool directory = false;
  uint64_t links = 1;  // names of the file
};

struct SpaceInfo {
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;  // to an unprivileged user
};

struct OpenOptions {
  bool write = false;
  bool create = false;     // mode 0600
  bool exclusive = false;  // with create: fail if it exists
  bool truncate = false;
  bool direct = false;  // O_DIRECT
  bool random = false;  // POSIX_FADV_RANDOM: no read-ahead, small folios
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  virtual Result<File> Open(const std::string& path, const OpenOptions& options) = 0;
  virtual void Close(File file) = 0;
  // Reads up to `bytes`; fewer only at the end of the file.
  virtual Result<size_t> ReadAt(File file, uint64_t offset_bytes, void* to, size_t bytes) = 0;
  // The same for what nobody asks for again soon: it is not left in the page cache, where the
  // kernel can do that.
  virtual Result<size_t> ReadOnce(File file, uint64_t offset_bytes, void* to, size_t bytes) {
    return ReadAt(file, offset_bytes, to, bytes);
  }
  // Writes all or fails.
  virtual Status WriteAt(File file, uint64_t offset_bytes, const void* from, size_t bytes) = 0;
  virtual Status Sync(File file) = 0;      // fsync
  virtual Status SyncData(File file) = 0;  // fdatasync
  virtual Status SyncDirectory(const std::string& path) = 0;
  virtual Status Truncate(File file, uint64_t size_bytes) = 0;
  // Takes up the space of the range now (fallocate, mode 0).
  virtual Status Allocate(File file, uint64_t offset_bytes, uint64_t length_bytes) = 0;
  // The range then takes up no space and reads as zeros; the size stays.
  virtual Status PunchHole(File file, uint64_t offset_bytes, uint64_t length_bytes) = 0;
  // The range then reads as zeros and stays allocated (FALLOC_FL_ZERO_RANGE, or zeros written).
  virtual Status ZeroRange(File file, uint64_t offset_bytes, uint64_t length_bytes) = 0;
  // The allocated extents within the range in order, at most `extents_max`; FIEMAP with
  // FIEMAP_FLAG_SYNC. kUnsupported where the file system has no FIEMAP.
  virtual Status Extents(File file, uint64_t offset_bytes, uint64_t length_bytes,
                         size_t extents_max, std::vector<FileExtent>* extents) = 0;
  // The same without FIEMAP_FLAG_SYNC, which writes back first whatever is dirty in the file: what
  // is dirty may be missing, or count as unwritten.
  virtual Status ExtentsWritten(File file, uint64_t offset_bytes, uint64_t length_bytes,
                                size_t extents_max, std::vector<FileExtent>* extents) {
    return Extents(file, offset_bytes, length_bytes, extents_max, extents);
  }
  // The first part of [offset, end) that holds data, dirty or written; what is before it and behind
  // it reads as zeros. Empty where there is none. Costs no writeback, other than Extents.
  virtual Result<FileRange> NextData(File file, uint64_t offset_bytes, uint64_t end_bytes);
  // Drops the clean pages of the file, so that what is read next comes from the disk. After a sync
  // that failed the kernel may keep pages as clean that never got there.
  virtual Status DropCache(File file) {
    (void)file;
    return Status::Ok();
  }
  // An exclusive lock on the open file description, kept until it is closed. kBusy when held.
  virtual Status TryLock(File file) = 0;

  virtual Result<FileInfo> Info(const std::string& path) = 0;
  virtual Result<FileInfo> Info(File file) = 0;
  virtual Status Rename(const std::string& from, const std::string& to) = 0;
  // Another name of the same file (link). kAlreadyExists.
  virtual Status Link(const std::string& from, const std::string& to) {
    (void)from;
    return {ErrorCode::kUnsupported, to + ": files have one name only here"};
  }
  virtual Status Remove(const std::string& path) = 0;           // a file
  virtual Status RemoveDirectory(const std::string& path) = 0;  // an empty one
  virtual Status MakeDirectory(const std::string& path) = 0;    // mode 0700; kAlreadyExists
  virtual Result<std::vector<std::string>> List(const std::string& path) = 0;  // names, sorted
  virtual Result<SpaceInfo> Space(const std::string& path) = 0;
  // Changes at each boot of the machine (/proc/sys/kernel/random/boot_id).
  virtual Result<std::string> BootId() = 0;
  // Changes when the file system that `path` lies on is mounted anew; at most 36 characters.
  // Kernels older than 6.8 use the numbers of mounts again, so that there a mount may go unnoticed.
  virtual Result<std::string> MountId(const std::string& path) = 0;
};

// Reads a whole file of at most `bytes_max`; kCorrupt when it is larger.
Result<std::string> ReadWholeFile(FileSystem& files, const std::string& path, size_t bytes_max);
// Replaces a file as a whole and durably: writes `path`.tmp, fsyncs it, renames, fsyncs the
// directory. On failure the old one stands.
Status ReplaceFile(FileSystem& files, const std::string& path, const std::string& content);

// kOk where there is nothing to rename.
Status RenameIfThere(FileSystem& files, const std::string& from, const std::string& to);

// What becomes of the new part of a file: it reads as zeros, and
enum class NewPart {
  kHole,       // takes up no space
  kAllocated,  // has its space
  kWritten     // was written as well: who overwrites it later changes data alone
};
// Makes a file of `from_bytes` longer, durably. What an earlier attempt left behind that goes
// first; kCorrupt where the file is shorter. Opened anew by its name, so that others who have it
// open are told of failed syncs of their own all the same. On failure it is as long as before,
// unless that fails, too; where `sync_failed` is set, what others wrote may be lost as well.
Status ExtendFile(FileSystem& files, const std::string& path, uint64_t from_bytes,
                  uint64_t to_bytes, NewPart part, bool* sync_failed);

// The machine's own.
std::unique_ptr<FileSystem> MakePosixFileSystem();

}  // namespace ankole::io
