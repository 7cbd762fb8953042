#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/block_device.h"
#include "base/buffer_pool.h"
#include "base/intrusive_list.h"
#include "base/result.h"
#include "io/file_system.h"
#include "io/reactor.h"
#include "wire/record.h"
#include "wire/regions.h"

namespace ankole::replica {

class Replica;
class View;
struct CloneTarget;

// What kSum needs beside its data: the answer, and the layer of each block.
inline constexpr size_t kSumScratchBytes = 2 * kKiB;
static_assert(wire::SumsBytes(wire::kSumBlocksMax) + wire::kSumBlocksMax * 2 <= kSumScratchBytes);

enum class OperationKind : uint8_t {
  kRead,
  kWrite,
  kZero,
  kUnmap,
  kFlush,
  kStatus,
  kRecord,
  kLoadState,
  kStoreState,
  kMark,     // regions dirty, and missing in all maps that there are
  kClean,    // regions equal on all members
  kMissing,  // begins or frees a missing map
  kTidy,     // brings the maps' file to what holds; nothing depends on it
  kSum,      // checksums of blocks
  kBad,      // marks blocks that are good nowhere
  // Layers: docs/internals/snapshots.md.
  kPrepare,   // the head that the next kRecord or kSwitch may switch to
  kSwitch,    // switches to it without a record, and seals
  kSeal,      // what is under the head is durable, at all members
  kDelete,    // a snapshot goes
  kLayers,    // which layers there are
  kOpenView,  // a snapshot can be read
  kCloseView,
  kChanged,  // regions that may differ between two layers
  kMerge,    // a step towards having no layers that are removed
  kExpand,   // the volume becomes larger
  kClone,    // a replica of another volume, of what a snapshot holds
};

// One request to a replica. The submitter owns it and keeps it, and the memory that it points to,
// alive and unchanged until `done` runs. From a fixed pool of the submitter: nothing is allocated
// for an I/O.
struct ReplicaOperation {
  // --- set by the submitter ---
  OperationKind kind = OperationKind::kRead;
  bool durable = false;         // kWrite, kZero, kUnmap: on stable storage before `done` (FUA)
  bool keep_allocated = false;  // kZero: the space stays taken
  bool anyway = false;          // kRead, kSum: although a sync failed
  bool once = false;            // kRead, kWrite, kSum: not to be kept in the page cache
  uint64_t offset_bytes = 0;    // multiple of kSectorBytes; not for kFlush and kRecord
  uint64_t length_bytes =
      0;  // multiple of kSectorBytes, > 0; kRead, kWrite, kSum: <= kDataBytesMax
  std::byte* data = nullptr;  // kRead: destination; kWrite: source; of any alignment. Of kLoadState
                              // and kStoreState likewise, kTargetStateBytes. kSum: room for the
                              // range, of 4 KiB alignment
  BlockExtent* extents = nullptr;  // kStatus: filled in order from offset_bytes
  uint32_t extents_max = 0;        // kStatus: room in `extents`, > 0
  // CRC32C of each 4 KiB block that the range touches, over the part within it. kWrite: those of
  // `data`, or null where nobody computed them. kRead: where they go, or null.
  uint32_t* checksums = nullptr;
  wire::RecordPair record;       // kRecord
  wire::Epoch welcomed;          // kRecord
  bool resynced = false;         // kRecord: the replica was made equal (rule 7)
  bool still_lost = false;       // kRecord: what it lost before counts still (rule 7)
  wire::RegionRuns runs;         // kMark, kMissing; in the submitter's memory
  wire::CleanRequest clean;      // kClean, with the range
  wire::MissingRequest missing;  // kMissing
  std::byte* sums = nullptr;     // kSum: kSumScratchBytes; begins with the answer (wire::Sums)
  // kPrepare: `layer` is what the head is called once it is frozen; or with `base`, the layer that
  // the new head is to stand on instead (a revert), what the record that switches to it names.
  // kSwitch, kSeal, kDelete, kOpenView, kClone: which layer. kChanged: the upper
  // one, empty: the head. Names without prefix and suffix; in the submitter's memory.
  std::string_view layer;
  // kPrepare: of a revert. kOpenView: the lower layer. kChanged: what the other one is compared
  // with. Empty: none.
  std::string_view base;
  std::string_view labels;       // kPrepare: a JSON object, or empty
  bool user_created = false;     // kPrepare: a person asked for it, or a schedule
  uint64_t created_seconds = 0;  // kPrepare: since 1970
  // kRead, kSum, kStatus: 0 is the head, others were opened by kOpenView. kCloseView: which. Of
  // kOpenView the outcome.
  uint16_t view = 0;
  const void* holder = nullptr;  // kOpenView: who has it, for CloseViews
  uint32_t first = 0;            // kLayers: the first one wanted; kChanged: the first region
  bool more = false;             // kMerge, in `done`: there is more to do
  // kLayers, kChanged: `data` has room for kControlPayloadBytesMax, and this is what was filled
  // with wire::EncodeLayer or wire::EncodeRegionRuns. kOpenView: `data` may be null; else it gets
  // the layer's labels, so many bytes from wire::kViewIdBytes on.
  uint32_t answer_bytes = 0;
  CloneTarget* clone = nullptr;        // kClone: what is made
  std::vector<io::FileRange> written;  // the replica's: where a change that failed is in the head
  uint64_t size_bytes = 0;             // kExpand: of the volume, at least
  uint64_t tag = 0;                    // of the request; not the replica's affair
  // On the reactor's thread, exactly once, never from within Submit. May free the operation.
  void (*done)(ReplicaOperation*) = nullptr;
  void* owner = nullptr;  // the submitter's, untouched

  // --- the outcome, valid in `done` ---
  ErrorCode status = ErrorCode::kOk;
  uint32_t extents_count = 0;     // kStatus: how many were filled; they may cover less than asked
  bool checksums_filled = false;  // kRead

  // --- the replica's while submitted ---
  static constexpr int kLanes = 4;   // parts of one read that are in flight at a time
  struct Lane : io::FileOperation {  // owner: the operation, null while the lane is free
    std::byte* memory = nullptr;
    uint64_t expected_bytes = 0;
  };
  Replica* replica = nullptr;
  ListNode node;                                 // on one of the replica's lists
  void (*proceed)(ReplicaOperation*) = nullptr;  // what follows the wait that it is in
  Lane lanes[kLanes];
  int lanes_busy = 0;
  uint64_t next_bytes = 0;           // kRead: where the next part starts
  std::byte* buffer = nullptr;       // what the file I/O uses: `data`, or memory of `scratch`
  uint64_t buffer_offset_bytes = 0;  // where in the volume `buffer` starts
  uint64_t buffer_length_bytes = 0;
  BufferPool::Chunk* scratch = nullptr;
  size_t scratch_bytes = 0;  // what it waits for
  bool merge_first = false;  // kWrite: the first and the last block are read and merged
  bool merge_last = false;
  bool sync_failed = false;  // kZero, kUnmap: what failed was the sync
  // Checksums at rest (block_sums.h).
  uint64_t sums_next = 0;     // the region to be looked at next
  bool spoils_first = false;  // the first or last block did not match before it was changed in part
  bool spoils_last = false;
  // kZero, kUnmap: of the blocks at the ends that are covered in part, what is known before, and
  // what it is after.
  uint32_t edge_sums[2] = {};
  void (*finish)(ReplicaOperation*) = nullptr;
  const View* reads = nullptr;  // with `view`
  bool needs_chain = false;     // counted by the replica: the head is not switched under it
  bool switched = false;        // kSwitch: the head is another, what is left is to seal
  bool extended = false;        // kExpand: the files are longer, what is left is to say so
  io::Job job;
};

}  // namespace ankole::replica
