#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/result.h"
#include "wire/record.h"

// Payloads about regions (rule 5) and sums of blocks (rule 7): docs/internals/wire-protocol.md,
// «Region runs» and after it. Decoders answer kProtocolError, and take no memory but where they
// return a vector.
namespace ankole::wire {

// Regions [first, first + count) of a volume.
struct RegionRun {
  uint32_t first = 0;
  uint32_t count = 0;
  bool operator==(const RegionRun&) const = default;
};
inline constexpr size_t kRegionRunBytes = 8;
// In one frame; with the longest head before them they fit into a control payload.
inline constexpr size_t kRegionRunsMax = 1000;

// Runs in a payload that were checked: not empty, ascending, not overlapping, below kRegionsMax.
// Reads from the payload, which must stay. Copied freely.
class RegionRuns {
 public:
  RegionRuns() = default;
  static Result<RegionRuns> Decode(std::span<const std::byte> from);

  size_t size() const { return bytes_.size() / kRegionRunBytes; }
  bool empty() const { return bytes_.empty(); }
  RegionRun operator[](size_t index) const {
    const std::byte* at = bytes_.data() + index * kRegionRunBytes;
    return {LoadLittle<uint32_t>(at), LoadLittle<uint32_t>(at + 4)};
  }
  // The region after the last one; 0: there are none.
  uint32_t end() const;
  std::vector<RegionRun> ToVector() const;

 private:
  std::span<const std::byte> bytes_;
};
// CHECKs the rules of Decode but the order. Returns the bytes that it wrote.
size_t EncodeRegionRuns(std::span<const RegionRun> runs, std::byte* to);

// MAPS' answer: the replicas whose missing maps the replica keeps, and the last record that each
// was left at. One slot for each other replica that a volume can have.
inline constexpr size_t kMissingSlotsMax = kReplicasMax - 1;
struct MissingSlot {
  ReplicaId id = 0;
  Record record;
  bool operator==(const MissingSlot&) const = default;
};
struct RegionMaps {
  uint64_t dirty_regions = 0;
  uint32_t count = 0;  // of slots
  std::array<MissingSlot, kMissingSlotsMax> slots;
  std::span<const MissingSlot> used() const { return {slots.data(), count}; }
};
inline constexpr size_t kRegionMapsHeadBytes = 16;
inline constexpr size_t kMissingSlotBytes = 8 + kEncodedRecordBytes;
inline constexpr size_t kRegionMapsBytesMax =
    kRegionMapsHeadBytes + kMissingSlotsMax * kMissingSlotBytes;
// `to` has kRegionMapsBytesMax. Returns the bytes that it wrote.
size_t EncodeRegionMaps(const RegionMaps& maps, std::byte* to);
Result<RegionMaps> DecodeRegionMaps(std::span<const std::byte> from);

// MAP's request: which map, from where on. The answer is runs; fewer than kRegionRunsMax: that was
// all.
struct MapRequest {
  ReplicaId id = 0;  // 0: the dirty map
  uint32_t first = 0;
  bool operator==(const MapRequest&) const = default;
};
inline constexpr size_t kMapRequestBytes = 16;
std::array<std::byte, kMapRequestBytes> EncodeMapRequest(const MapRequest& request);
Result<MapRequest> DecodeMapRequest(std::span<const std::byte> from);

// MISSING's request without its runs.
struct MissingRequest {
  enum class What : uint32_t {
    kSet = 0,   // begins the map, or renames it, and sets the runs' bits
    kFree = 1,  // the map goes
  };
  ReplicaId id = 0;
  What what = What::kSet;
  Record record;
};
inline constexpr size_t kMissingHeadBytes = 16 + kEncodedRecordBytes;
inline constexpr size_t kMissingBytesMax = kMissingHeadBytes + kRegionRunsMax * kRegionRunBytes;
static_assert(kMissingBytesMax <= kControlPayloadBytesMax);
// `to` has kMissingBytesMax. Returns the bytes that it wrote.
size_t EncodeMissing(const MissingRequest& request, std::span<const RegionRun> runs, std::byte* to);
struct DecodedMissing {
  MissingRequest request;
  RegionRuns runs;
};
Result<DecodedMissing> DecodeMissing(std::span<const std::byte> from);

// CLEAN's request without its range: the complete record that the engine cleans under, and the
// replicas that have flushed the regions beside this one.
struct CleanRequest {
  Epoch epoch;
  uint64_t generation = 0;
  Members ids;  // at most kMissingSlotsMax
  bool operator==(const CleanRequest&) const = default;
};
inline constexpr size_t kCleanHeadBytes = 24;
inline constexpr size_t kCleanBytesMax = kCleanHeadBytes + kMissingSlotsMax * 8;
// `to` has kCleanBytesMax. Returns the bytes that it wrote.
size_t EncodeClean(const CleanRequest& request, std::byte* to);
Result<CleanRequest> DecodeClean(std::span<const std::byte> from);

// RECENT's answer.
inline constexpr size_t kRecentHeadBytes = 8;
inline constexpr size_t kRecentBytesMax = kRecentHeadBytes + kRegionRunsMax * kRegionRunBytes;
static_assert(kRecentBytesMax <= kControlPayloadBytesMax);
struct Recent {
  bool known = false;
  RegionRuns runs;  // none where it is not known
};
// `to` has kRecentBytesMax. Returns the bytes that it wrote.
size_t EncodeRecent(bool known, std::span<const RegionRun> runs, std::byte* to);
Result<Recent> DecodeRecent(std::span<const std::byte> from);

// SUM's answer: for each 4 KiB block of the range its CRC32C (of what of it lies in the volume),
// whether it takes up no space and reads as zeros, and whether it does not match its checksum at
// rest.
constexpr size_t SumsBytes(uint32_t blocks) { return blocks * 4 + 2 * ((blocks + 7) / 8); }
inline constexpr uint32_t kSumBlocksMax = kDataBytesMax / kBlockBytes;
static_assert(SumsBytes(kSumBlocksMax) <= kControlPayloadBytesMax);

// Reads from the payload, which must stay.
class Sums {
 public:
  Sums() = default;
  // Of a range of `length_bytes` that begins at a block.
  static Result<Sums> Decode(std::span<const std::byte> from, uint32_t length_bytes);

  uint32_t blocks() const { return blocks_; }
  uint32_t crc32c(uint32_t block) const { return LoadLittle<uint32_t>(bytes_ + 4 * block); }
  bool hole(uint32_t block) const { return Bit(4 * blocks_, block); }
  bool bad(uint32_t block) const { return Bit(4 * blocks_ + (blocks_ + 7) / 8, block); }

 private:
  bool Bit(size_t at, uint32_t block) const {
    return (static_cast<uint8_t>(bytes_[at + block / 8]) >> block % 8 & 1) != 0;
  }

  const std::byte* bytes_ = nullptr;
  uint32_t blocks_ = 0;
};

// Writes an answer of `blocks` blocks to `to`, block by block; all of them are to be set.
class SumsEncoder {
 public:
  // `to` has SumsBytes(blocks).
  SumsEncoder(std::byte* to, uint32_t blocks);
  void Set(uint32_t block, uint32_t crc32c, bool hole, bool bad);

 private:
  std::byte* const to_;
  const uint32_t blocks_;
};

}  // namespace ankole::wire
