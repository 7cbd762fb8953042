#pragma once

#include <cstdint>
#include <optional>

#include "io/reactor.h"

// The system calls of file operations, the same for both back ends.
namespace ankole::io {

// RWF_DONTCACHE of preadv2(2), which older headers lack. Kernels and file systems that do not know
// it answer EOPNOTSUPP.
inline constexpr int kDontCache = 0x80;

uint64_t TotalBytes(const iovec* vectors, int vectors_count);
// The part of `vectors` after `skip_bytes`, in `rest` (room for vectors_count). How many.
int SkipBytes(const iovec* vectors, int vectors_count, uint64_t skip_bytes, iovec* rest);

// preadv2, or preadv where no flag is set: preadv2 may be missing, or be forbidden.
ssize_t ReadVectors(int fd, const iovec* vectors, int vectors_count, off_t offset_bytes, int flags);

// Reads as far as the page cache has the data. The result, or nothing when the rest
// (finished_bytes on) has to be read where it may block.
std::optional<int64_t> TryReadCached(FileOperation* operation);
// Reads or writes the rest, blocking. The result.
int64_t ReadBlocking(FileOperation* operation);
int64_t WriteBlocking(FileOperation* operation);

}  // namespace ankole::io
