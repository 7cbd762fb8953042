#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include "base/bytes.h"
#include "base/units.h"
#include "io/file_system.h"
#include "io/file_work.h"

namespace ankole::io {
namespace {

// Extents asked for at a time: 14 KiB of buffer, and a bounded time in the kernel.
constexpr uint32_t kFiemapBatch = 256;
constexpr size_t kZeroBytes = 64 * kKiB;
alignas(4096) constexpr std::byte kZeros[kZeroBytes] = {};

// Of linux/stat.h, for headers that are older than the kernel (5.8 and 6.8).
constexpr unsigned kStatxMountId = 0x1000;
constexpr unsigned kStatxUnique = 0x4000;
constexpr size_t kStatxMountIdAt = 0x90;
static_assert(sizeof(struct statx) >= kStatxMountIdAt + sizeof(uint64_t));

// Repeats a system call while a signal interrupts it.
template <typename Call>
auto Retry(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

// The path of an open file, for messages.
std::string Name(File file) {
  char target[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(file.fd);
  const ssize_t bytes = readlink(link.c_str(), target, sizeof(target));
  return bytes < 0 ? "descriptor " + std::to_string(file.fd) : std::string(target, bytes);
}

Status Failed(int error_number, const std::string& path, const char* operation) {
  return Status::FromErrno(error_number, path + ": " + operation);
}
Status Failed(int error_number, File file, const char* operation) {
  return Failed(error_number, Name(file), operation);
}

FileInfo ToInfo(const struct stat& from) {
  return {.size_bytes = static_cast<uint64_t>(from.st_size),
          .allocated_bytes = static_cast<uint64_t>(from.st_blocks) * 512,
          .directory = S_ISDIR(from.st_mode),
          .links = static_cast<uint64_t>(from.st_nlink)};
}

class PosixFileSystem final : public FileSystem {
 public:
  Result<File> Open(const std::string& path, const OpenOptions& options) override {
    int flags = O_CLOEXEC | O_NOCTTY | (options.write ? O_RDWR : O_RDONLY);
    if (options.create) flags |= O_CREAT;
    if (options.exclusive) flags |= O_EXCL;
    if (options.truncate) flags |= O_TRUNC;
    if (options.direct) flags |= O_DIRECT;
    const int fd = Retry([&] { return open(path.c_str(), flags, 0600); });
    if (fd < 0) {
      if (errno == EINVAL && options.direct) {
        return Status(ErrorCode::kUnsupported,
                      path + ": open: the file system does not support O_DIRECT");
      }
      return Failed(errno, path, "open");
    }
    // Advice: where it is not taken, reads are merely slower.
    if (options.random) (void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    return File{fd};
  }

  // Not repeated on EINTR: Linux has freed the descriptor by then.
  void Close(File file) override { (void)close(file.fd); }

  Result<size_t> ReadAt(File file, uint64_t offset_bytes, void* to, size_t bytes) override {
    return Read(file, offset_bytes, to, bytes, 0);
  }
  Result<size_t> ReadOnce(File file, uint64_t offset_bytes, void* to, size_t bytes) override {
    return Read(file, offset_bytes, to, bytes, kDontCache);
  }
  Status WriteAt(File file, uint64_t offset_bytes, const void* from, size_t bytes) override {
    for (size_t done = 0; done < bytes;) {
      const ssize_t put = Retry([&] {
        return pwrite(file.fd, static_cast<const char*>(from) + done, bytes - done,
                      static_cast<off_t>(offset_bytes + done));
      });
      if (put < 0) return Failed(errno, file, "write");
      if (put == 0) return Failed(EIO, file, "write");
      done += static_cast<size_t>(put);
    }
    return {};
  }

  Status Sync(File file) override {
    if (Retry([&] { return fsync(file.fd); }) < 0) return Failed(errno, file, "fsync");
    return {};
  }
  Status SyncData(File file) override {
    if (Retry([&] { return fdatasync(file.fd); }) < 0) return Failed(errno, file, "fdatasync");
    return {};
  }
  Status SyncDirectory(const std::string& path) override {
    const int fd = Retry([&] { return open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    if (fd < 0) return Failed(errno, path, "open directory");
    Status status;
    if (Retry([&] { return fsync(fd); }) < 0) status = Failed(errno, path, "fsync directory");
    (void)close(fd);
    return status;
  }

  Status Truncate(File file, uint64_t size_bytes) override {
    if (Retry([&] { return ftruncate(file.fd, static_cast<off_t>(size_bytes)); }) < 0) {
      return Failed(errno, file, "truncate");
    }
    return {};
  }

  Status Allocate(File file, uint64_t offset_bytes, uint64_t length_bytes) override {
    return Fallocate(file, 0, offset_bytes, length_bytes, "allocate space");
  }
  Status PunchHole(File file, uint64_t offset_bytes, uint64_t length_bytes) override {
    return Fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_bytes, length_bytes,
                     "punch a hole");
  }
  Status ZeroRange(File file, uint64_t offset_bytes, uint64_t length_bytes) override {
    const Status status =
        Fallocate(file, FALLOC_FL_ZERO_RANGE, offset_bytes, length_bytes, "zero a range");
    if (status.code() != ErrorCode::kUnsupported) return status;
    for (uint64_t done = 0; done < length_bytes;) {
      const size_t step = std::min<uint64_t>(kZeroBytes, length_bytes - done);
      RETURN_IF_ERROR(WriteAt(file, offset_bytes + done, kZeros, step));
      done += step;
    }
    return {};
  }

  Status Extents(File file, uint64_t offset_bytes, uint64_t length_bytes, size_t extents_max,
                 std::vector<FileExtent>* extents) override {
    return Fiemap(file, offset_bytes, length_bytes, FIEMAP_FLAG_SYNC, extents_max, extents);
  }
  Status ExtentsWritten(File file, uint64_t offset_bytes, uint64_t length_bytes, size_t extents_max,
                        std::vector<FileExtent>* extents) override {
    return Fiemap(file, offset_bytes, length_bytes, 0, extents_max, extents);
  }

  Result<FileRange> NextData(File file, uint64_t offset_bytes, uint64_t end_bytes) override {
    const off_t begin = lseek(file.fd, static_cast<off_t>(offset_bytes), SEEK_DATA);
    if (begin < 0) {
      if (errno == ENXIO) return FileRange{end_bytes, end_bytes};  // none up to the file's end
      return Failed(errno, file, "find data");
    }
    if (static_cast<uint64_t>(begin) >= end_bytes) return FileRange{end_bytes, end_bytes};
    const off_t end = lseek(file.fd, begin, SEEK_HOLE);
    if (end < 0) return Failed(errno, file, "find a hole");
    return FileRange{static_cast<uint64_t>(begin), std::min(end_bytes, static_cast<uint64_t>(end))};
  }

  Status DropCache(File file) override {
    const int error_number = posix_fadvise(file.fd, 0, 0, POSIX_FADV_DONTNEED);
    return error_number == 0 ? Status::Ok() : Failed(error_number, file, "drop the cache");
  }

  // flock, not POSIX locks: those belong to the process, and closing any descriptor drops them.
  Status TryLock(File file) override {
    if (Retry([&] { return flock(file.fd, LOCK_EX | LOCK_NB); }) == 0) return {};
    if (errno == EWOULDBLOCK) return {ErrorCode::kBusy, Name(file) + ": locked by another"};
    return Failed(errno, file, "lock");
  }

  Result<FileInfo> Info(const std::string& path) override {
    struct stat found;
    if (Retry([&] { return stat(path.c_str(), &found); }) < 0) return Failed(errno, path, "stat");
    return ToInfo(found);
  }
  Result<FileInfo> Info(File file) override {
    struct stat found;
    if (Retry([&] { return fstat(file.fd, &found); }) < 0) return Failed(errno, file, "stat");
    return ToInfo(found);
  }

  Status Rename(const std::string& from, const std::string& to) override {
    if (rename(from.c_str(), to.c_str()) < 0) {
      return Failed(errno, from, ("rename to " + to).c_str());
    }
    return {};
  }
  Status Link(const std::string& from, const std::string& to) override {
    if (link(from.c_str(), to.c_str()) < 0) return Failed(errno, to, "link");
    return {};
  }
  Status Remove(const std::string& path) override {
    if (unlink(path.c_str()) < 0) return Failed(errno, path, "remove");
    return {};
  }
  Status RemoveDirectory(const std::string& path) override {
    if (rmdir(path.c_str()) < 0) return Failed(errno, path, "remove directory");
    return {};
  }
  Status MakeDirectory(const std::string& path) override {
    if (mkdir(path.c_str(), 0700) < 0) return Failed(errno, path, "make directory");
    return {};
  }

  Result<std::vector<std::string>> List(const std::string& path) override {
    DIR* directory = opendir(path.c_str());
    if (directory == nullptr) return Failed(errno, path, "open directory");
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(directory)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
      errno = 0;
    }
    const int error_number = errno;
    closedir(directory);
    if (error_number != 0) return Failed(error_number, path, "read directory");
    std::sort(names.begin(), names.end());
    return names;
  }

  Result<SpaceInfo> Space(const std::string& path) override {
    struct statvfs found;
    if (Retry([&] { return statvfs(path.c_str(), &found); }) < 0) {
      return Failed(errno, path, "statvfs");
    }
    return SpaceInfo{.total_bytes = static_cast<uint64_t>(found.f_blocks) * found.f_frsize,
                     .free_bytes = static_cast<uint64_t>(found.f_bavail) * found.f_frsize};
  }

  Result<std::string> BootId() override {
    Result<std::string> text = ReadWholeFile(*this, "/proc/sys/kernel/random/boot_id", 256);
    if (!text.ok()) return text;
    std::string id = text.Take();
    while (!id.empty() && id.back() == '\n') id.pop_back();
    return id;
  }

  Result<std::string> MountId(const std::string& path) override {
    struct statx found = {};
    if (Retry([&] {
          return statx(AT_FDCWD, path.c_str(), 0, STATX_BASIC_STATS | kStatxMountId | kStatxUnique,
                       &found);
        }) < 0) {
      return Failed(errno, path, "statx");
    }
    // stx_mnt_id, which older headers do not name.
    const auto mount =
        LoadLittle<uint64_t>(reinterpret_cast<const std::byte*>(&found) + kStatxMountIdAt);
    char text[64];
    if ((found.stx_mask & kStatxUnique) != 0) {
      std::snprintf(text, sizeof(text), "u%016llx", static_cast<unsigned long long>(mount));
    } else {
      std::snprintf(text, sizeof(text), "m%016llx-%08x:%08x",
                    static_cast<unsigned long long>(mount), found.stx_dev_major,
                    found.stx_dev_minor);
    }
    return std::string(text);
  }

 private:
  static Status Fiemap(File file, uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags,
                       size_t extents_max, std::vector<FileExtent>* extents) {
    extents->clear();
    const uint64_t end_bytes =
        length_bytes > UINT64_MAX - offset_bytes ? UINT64_MAX : offset_bytes + length_bytes;
    // The structure ends in an array of what is found: taken as bytes, read field by field.
    std::vector<std::byte> buffer(sizeof(struct fiemap) +
                                  kFiemapBatch * sizeof(struct fiemap_extent));
    uint64_t at_bytes = offset_bytes;
    while (at_bytes < end_bytes && extents->size() < extents_max) {
      struct fiemap request = {};
      request.fm_start = at_bytes;
      request.fm_length = end_bytes - at_bytes;
      request.fm_flags = flags;
      request.fm_extent_count = kFiemapBatch;
      std::memcpy(buffer.data(), &request, sizeof(request));
      if (Retry([&] { return ioctl(file.fd, FS_IOC_FIEMAP, buffer.data()); }) < 0) {
        if (errno == EOPNOTSUPP || errno == ENOTTY || errno == EBADR || errno == ENOSYS) {
          return {ErrorCode::kUnsupported, Name(file) + ": the file system has no FIEMAP"};
        }
        return Failed(errno, file, "FIEMAP");
      }
      std::memcpy(&request, buffer.data(), sizeof(request));
      if (request.fm_mapped_extents == 0) break;
      bool last = false;
      const uint64_t before_bytes = at_bytes;
      for (uint32_t i = 0; i < request.fm_mapped_extents; ++i) {
        const auto found = LoadLittle<struct fiemap_extent>(buffer.data() + sizeof(request) +
                                                            i * sizeof(struct fiemap_extent));
        const uint64_t start = std::max<uint64_t>(found.fe_logical, at_bytes);
        const uint64_t end = std::min<uint64_t>(found.fe_logical + found.fe_length, end_bytes);
        last = (found.fe_flags & FIEMAP_EXTENT_LAST) != 0 || end == end_bytes;
        if (start >= end) continue;
        if (!AddExtent({start, end - start, (found.fe_flags & FIEMAP_EXTENT_UNWRITTEN) != 0},
                       extents_max, extents)) {
          return {};
        }
        at_bytes = end;
      }
      if (last || at_bytes == before_bytes) break;
    }
    return {};
  }

  static Result<size_t> Read(File file, uint64_t offset_bytes, void* to, size_t bytes, int flags) {
    size_t done = 0;
    while (done < bytes) {
      const iovec rest = {static_cast<char*>(to) + done, bytes - done};
      const ssize_t got = Retry([&] {
        return ReadVectors(file.fd, &rest, 1, static_cast<off_t>(offset_bytes + done), flags);
      });
      if (got < 0 && errno == EOPNOTSUPP && flags != 0) {
        flags = 0;
        continue;
      }
      if (got < 0) return Failed(errno, file, "read");
      done += static_cast<size_t>(got);
      // An O_DIRECT read that ends unaligned met the end of the file; going on there is EINVAL.
      if (got == 0 || got % kSectorBytes != 0) {
        if (got == 0 || AtEnd(file, offset_bytes + done)) break;
      }
    }
    return done;
  }

  static bool AtEnd(File file, uint64_t offset_bytes) {
    struct stat found;
    return fstat(file.fd, &found) == 0 && S_ISREG(found.st_mode) &&
           offset_bytes >= static_cast<uint64_t>(found.st_size);
  }

  static Status Fallocate(File file, int mode, uint64_t offset_bytes, uint64_t length_bytes,
                          const char* operation) {
    if (length_bytes == 0) return {};
    if (Retry([&] {
          return fallocate(file.fd, mode, static_cast<off_t>(offset_bytes),
                           static_cast<off_t>(length_bytes));
        }) < 0) {
      return Failed(errno, file, operation);
    }
    return {};
  }

  // Extents of one kind that follow each other are one, wherever they lie on the device. False when
  // there is no room for another.
  static bool AddExtent(const FileExtent& extent, size_t extents_max,
                        std::vector<FileExtent>* extents) {
    if (!extents->empty()) {
      FileExtent& last = extents->back();
      if (last.unwritten == extent.unwritten &&
          last.offset_bytes + last.length_bytes == extent.offset_bytes) {
        last.length_bytes += extent.length_bytes;
        return true;
      }
    }
    if (extents->size() == extents_max) return false;
    extents->push_back(extent);
    return true;
  }
};

}  // namespace

std::unique_ptr<FileSystem> MakePosixFileSystem() { return std::make_unique<PosixFileSystem>(); }

}  // namespace ankole::io
