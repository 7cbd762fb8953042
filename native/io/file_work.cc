#include "io/file_work.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "base/units.h"

namespace ankole::io {
namespace {

// The page cache takes what one call writes in folios as large as it can, and a later small write
// to a large folio costs by its size: on ext4 12.8 µs for 4 KiB after writes of 1 MiB, 4 µs after
// pieces of 128 KiB. The pieces themselves cost next to nothing.
constexpr uint64_t kPieceBytes = 128 * kKiB;

struct Rest {
  iovec vectors[4];
  int count;
  off_t offset_bytes;
  // No more than up to the end of the piece.
  void Limit() {
    uint64_t room = kPieceBytes - static_cast<uint64_t>(offset_bytes) % kPieceBytes;
    for (int i = 0; i < count; ++i) {
      if (vectors[i].iov_len >= room) {
        vectors[i].iov_len = room;
        count = i + 1;
        return;
      }
      room -= vectors[i].iov_len;
    }
  }
  explicit Rest(const FileOperation* operation)
      : count(SkipBytes(operation->vectors, operation->vectors_count, operation->finished_bytes,
                        vectors)),
        offset_bytes(static_cast<off_t>(operation->offset_bytes + operation->finished_bytes)) {}
};

}  // namespace

uint64_t TotalBytes(const iovec* vectors, int vectors_count) {
  uint64_t total = 0;
  for (int i = 0; i < vectors_count; ++i) total += vectors[i].iov_len;
  return total;
}

int SkipBytes(const iovec* vectors, int vectors_count, uint64_t skip_bytes, iovec* rest) {
  int count = 0;
  for (int i = 0; i < vectors_count; ++i) {
    if (skip_bytes >= vectors[i].iov_len) {
      skip_bytes -= vectors[i].iov_len;
      continue;
    }
    rest[count].iov_base = static_cast<std::byte*>(vectors[i].iov_base) + skip_bytes;
    rest[count].iov_len = vectors[i].iov_len - skip_bytes;
    skip_bytes = 0;
    ++count;
  }
  return count;
}

ssize_t ReadVectors(int fd, const iovec* vectors, int vectors_count, off_t offset_bytes,
                    int flags) {
  return flags != 0 ? preadv2(fd, vectors, vectors_count, offset_bytes, flags)
                    : preadv(fd, vectors, vectors_count, offset_bytes);
}

std::optional<int64_t> TryReadCached(FileOperation* operation) {
  // Also a read that may not wait has the kernel begin to read what is not cached.
  const int flags = RWF_NOWAIT | (operation->once ? kDontCache : 0);
  const uint64_t total = TotalBytes(operation->vectors, operation->vectors_count);
  while (operation->finished_bytes < total) {
    const Rest rest(operation);
    const ssize_t got =
        preadv2(operation->file.fd, rest.vectors, rest.count, rest.offset_bytes, flags);
    if (got == 0) break;
    if (got > 0) {
      operation->finished_bytes += static_cast<size_t>(got);
      continue;
    }
    if (errno == EINTR) continue;
    // EAGAIN: not cached. EOPNOTSUPP: the file system does not know the flags. Anything else is
    // for the blocking read to find again, and to report.
    return std::nullopt;
  }
  return static_cast<int64_t>(operation->finished_bytes);
}

int64_t ReadBlocking(FileOperation* operation) {
  bool once = operation->once && !operation->direct;
  const uint64_t total = TotalBytes(operation->vectors, operation->vectors_count);
  while (operation->finished_bytes < total) {
    const Rest rest(operation);
    const ssize_t got = ReadVectors(operation->file.fd, rest.vectors, rest.count, rest.offset_bytes,
                                    once ? kDontCache : 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EOPNOTSUPP && once) {
      once = false;
      continue;
    }
    if (got < 0) return -errno;
    operation->finished_bytes += static_cast<size_t>(got);
    // An O_DIRECT read that ends unaligned met the end of the file; going on there is EINVAL.
    if (got == 0 || (operation->direct && got % kSectorBytes != 0)) break;
  }
  return static_cast<int64_t>(operation->finished_bytes);
}

int64_t WriteBlocking(FileOperation* operation) {
  const uint64_t total = TotalBytes(operation->vectors, operation->vectors_count);
  bool once = operation->once && !operation->direct;
  // One sync for all pieces.
  bool sync_after = operation->durable && !operation->direct && total > kPieceBytes;
  while (operation->finished_bytes < total) {
    Rest rest(operation);
    if (!operation->direct) rest.Limit();
    const int fd = operation->file.fd;
    const bool synced = operation->durable && !sync_after;
    const int flags = (synced ? RWF_DSYNC : 0) | (once ? kDontCache : 0);
    const ssize_t put = flags != 0
                            ? pwritev2(fd, rest.vectors, rest.count, rest.offset_bytes, flags)
                            : pwritev(fd, rest.vectors, rest.count, rest.offset_bytes);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EOPNOTSUPP && once) {
      once = false;
      continue;
    }
    if (put < 0 && errno == EOPNOTSUPP && synced) {
      sync_after = true;
      continue;
    }
    if (put < 0) return -errno;
    if (put == 0) return -EIO;
    operation->finished_bytes += static_cast<size_t>(put);
  }
  while (sync_after && fdatasync(operation->file.fd) < 0) {
    if (errno != EINTR) return -errno;
  }
  return static_cast<int64_t>(operation->finished_bytes);
}

}  // namespace ankole::io
