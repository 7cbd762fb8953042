#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "io/file_system.h"
#include "replica/metadata.h"

namespace ankole::replica {

// One open layer file.
struct Layer {
  LayerMeta meta;
  io::File file;
  uint64_t size_bytes = 0;  // at most the volume's; what is above reads as zeros
  bool unsynced = false;    // may hold data that no sync has covered
  bool syncing = false;     // part of the flush that runs
  bool alias = false;       // merged with one above it, whose file this is
};

// Makes a sparse file of that size, synced but for its name in the directory.
Status CreateLayerFile(io::FileSystem& files, const std::string& path, uint64_t size_bytes);

// Makes it longer, durably; as io::ExtendFile.
Status ExtendLayerFile(io::FileSystem& files, const std::string& path, uint64_t size_bytes_before,
                       uint64_t size_bytes, bool* sync_failed);

// Calls `each` for all written extents of the file in the range, whole blocks but for the file's
// end, in order and cut to it. Unwritten ones count for nothing: a power loss leaves them where a
// write was on its way, and what is under them was not overwritten. kUnsupported where the file
// system has no FIEMAP, or its extents are not made of whole 4 KiB blocks.
Status ForEachExtent(io::FileSystem& files, const std::string& path, io::File file,
                     const io::FileRange& range,
                     const std::function<void(uint64_t offset_bytes, uint64_t length_bytes)>& each);

// Calls `each` for the others, which have their space and were never written, likewise.
Status ForEachUnwritten(
    io::FileSystem& files, const std::string& path, io::File file, uint64_t size_bytes,
    const std::function<void(uint64_t offset_bytes, uint64_t length_bytes)>& each);

// Tries out, with a file that it makes and removes in the directory, that the file system has
// FIEMAP and blocks of 4 KiB: one of larger blocks would hide up to 15 blocks of a lower layer
// behind a write, one of smaller ones could tear a block when the disk is full.
Status ProbeFileSystem(io::FileSystem& files, const std::string& directory);

}  // namespace ankole::replica
