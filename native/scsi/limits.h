#pragma once

#include <cstddef>
#include <cstdint>

#include "base/limits.h"

// Every bound on what an initiator may ask of the logical unit, each with its reason. VPD page B0h
// tells those that the initiator has to keep to.
namespace ankole::scsi {

inline constexpr uint32_t kLogicalBlockBytes = kSectorBytes;
// What a checksum covers, in logical blocks. Less costs a read of the rest of it, whatever a
// physical block is said to be: so it is the granularity of transfers and of UNMAP that is hinted
// at always.
inline constexpr uint32_t kChecksumBlocks = kBlockBytes / kLogicalBlockBytes;
static_assert(kBlockBytes % kLogicalBlockBytes == 0);
// What a volume may say that a physical block has: the truth, or that it has no blocks but the
// logical ones, for initiators that take no other disk.
constexpr bool IsPhysicalBlock(uint64_t bytes) {
  return bytes == kLogicalBlockBytes || bytes == kBlockBytes;
}

// The longest transfer of one command. It bounds what one command pins.
inline constexpr uint32_t kTransferBytesMax = 8 * kMiB;
inline constexpr size_t kSegmentsMax = kTransferBytesMax / kDataBytesMax;
inline constexpr uint32_t kTransferBlocksMax = kTransferBytesMax / kLogicalBlockBytes;

// COMPARE AND WRITE has one byte for it, and twice its data fits into a segment.
inline constexpr uint32_t kCompareBlocksMax = 255;
static_assert(2 * kCompareBlocksMax * kLogicalBlockBytes <= kDataBytesMax);

// UNMAP: a page of descriptors. Blocks are not limited (SBC-3, 6.5.3): they go to the device in
// requests of kRangeBytesMax, and the command can be aborted between them.
inline constexpr uint32_t kUnmapDescriptorsMax = 256;
inline constexpr uint32_t kUnmapBlocksUnlimited = UINT32_MAX;
// WRITE SAME: what its shorter form can say, down to whole physical blocks. 32 MiB of a pattern are
// written within a moment; and each command of a long run is answered.
inline constexpr uint32_t kWriteSameBlocksMax = 0xfff8;
// EXTENDED COPY: source and destination, and what one command may copy: 256 MiB are within what an
// initiator waits for, and between two pieces of kScratchBytesMax the command can be aborted.
inline constexpr uint32_t kCopyTargetsMax = 2;
inline constexpr uint32_t kCopySegmentsMax = 16;
inline constexpr uint32_t kCopySegmentBytesMax = 16 * kMiB;
inline constexpr uint32_t kCopyHeaderBytes = 16;
inline constexpr uint32_t kCopyTargetBytes = 32;
inline constexpr uint32_t kCopySegmentDescriptorBytes = 28;
inline constexpr uint32_t kCopyDescriptorBytesMax =
    kCopyTargetsMax * kCopyTargetBytes + kCopySegmentsMax * kCopySegmentDescriptorBytes;
inline constexpr uint32_t kCopyListBytesMax = kCopyHeaderBytes + kCopyDescriptorBytesMax;
static_assert(kCopyListBytesMax <= kDataBytesMax, "the list lies in one segment");
static_assert(uint64_t{kCopySegmentsMax} * kCopySegmentBytesMax <= UINT32_MAX,
              "what was copied can be told in bytes");
// Copies of one nexus that are known by their list identifier, in progress or ended.
inline constexpr uint32_t kCopiesMax = 16;

// One request of the device at most, when blocks are zeroed, unmapped or asked for: others that
// overlap wait for it.
inline constexpr uint64_t kRangeBytesMax = 1 * kGiB;

// Pieces in which a pattern is written, and in which data is read that does not go to the
// initiator.
inline constexpr uint32_t kPatternBytes = 256 * kKiB;
inline constexpr uint32_t kScratchBytesMax = kDataBytesMax;

// The one target port (SPC-4, 3.1.120): every portal of the engine is of portal group 1.
inline constexpr uint16_t kRelativeTargetPort = 1;

// Descriptors of one GET LBA STATUS. The initiator asks again for the rest.
inline constexpr uint32_t kStatusDescriptorsMax = 256;

// Persistent reservations: all of a large cluster's paths; bounded by kTargetStateBytes.
inline constexpr size_t kRegistrationsMax = 64;
// «iqn…,i,0x123456789abc»: 223 bytes of name (RFC 7143, 4.2.7.1), 5 and 12 digits; and room for the
// zero and the padding of a TransportID.
inline constexpr size_t kPortNameBytesMax = 240;
// What a response other than data of the medium may have: READ FULL STATUS of all registrations.
inline constexpr uint32_t kResponseBytesMax = 24 * kKiB;
static_assert(8 + kRegistrationsMax * (24 + 4 + kPortNameBytesMax + 4) <= kResponseBytesMax);
// MODE SELECT: header, one block descriptor and all pages are 52 bytes.
inline constexpr uint32_t kModeListBytesMax = 256;

}  // namespace ankole::scsi
