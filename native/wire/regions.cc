#include "wire/regions.h"

#include <cstring>

namespace ankole::wire {
// --- runs
// --------------------------------------------------------------------------------------------

Result<RegionRuns> RegionRuns::Decode(std::span<const std::byte> from) {
  if (from.size() % kRegionRunBytes != 0) return Malformed("region runs have the wrong length");
  if (from.size() / kRegionRunBytes > kRegionRunsMax) return Malformed("too many region runs");
  RegionRuns runs;
  runs.bytes_ = from;
  uint32_t end = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    const RegionRun run = runs[i];
    if (run.count == 0) return Malformed("an empty region run");
    if (run.first < end) return Malformed("region runs are not in order");
    if (run.first >= kRegionsMax || run.count > kRegionsMax - run.first) {
      return Malformed("a region run goes beyond the largest volume");
    }
    end = run.first + run.count;
  }
  return runs;
}

uint32_t RegionRuns::end() const {
  if (empty()) return 0;
  const RegionRun last = (*this)[size() - 1];
  return last.first + last.count;
}

std::vector<RegionRun> RegionRuns::ToVector() const {
  std::vector<RegionRun> runs;
  runs.reserve(size());
  for (size_t i = 0; i < size(); ++i) runs.push_back((*this)[i]);
  return runs;
}

size_t EncodeRegionRuns(std::span<const RegionRun> runs, std::byte* to) {
  CHECK(runs.size() <= kRegionRunsMax);
  for (const RegionRun& run : runs) {
    CHECK(run.count > 0 && run.first < kRegionsMax && run.count <= kRegionsMax - run.first);
    StoreLittle(to, run.first);
    StoreLittle(to + 4, run.count);
    to += kRegionRunBytes;
  }
  return runs.size() * kRegionRunBytes;
}

// --- maps
// --------------------------------------------------------------------------------------------

size_t EncodeRegionMaps(const RegionMaps& maps, std::byte* to) {
  CHECK(maps.count <= kMissingSlotsMax);
  StoreLittle(to, maps.count);
  StoreLittle(to + 4, uint32_t{0});
  StoreLittle(to + 8, maps.dirty_regions);
  std::byte* at = to + kRegionMapsHeadBytes;
  for (const MissingSlot& slot : maps.used()) {
    StoreLittle(at, slot.id);
    EncodeRecord(slot.record,
                 std::span<std::byte, kEncodedRecordBytes>(at + 8, kEncodedRecordBytes));
    at += kMissingSlotBytes;
  }
  return static_cast<size_t>(at - to);
}

Result<RegionMaps> DecodeRegionMaps(std::span<const std::byte> from) {
  if (from.size() < kRegionMapsHeadBytes) return Malformed("the region maps are cut short");
  RegionMaps maps;
  maps.count = LoadLittle<uint32_t>(from.data());
  maps.dirty_regions = LoadLittle<uint64_t>(from.data() + 8);
  if (maps.count > kMissingSlotsMax) return Malformed("too many missing maps");
  if (from.size() != kRegionMapsHeadBytes + maps.count * kMissingSlotBytes) {
    return Malformed("the region maps have the wrong length");
  }
  if (maps.dirty_regions > kRegionsMax) return Malformed("more dirty regions than a volume has");
  for (uint32_t i = 0; i < maps.count; ++i) {
    const auto slot = from.subspan(kRegionMapsHeadBytes + i * kMissingSlotBytes, kMissingSlotBytes);
    maps.slots[i].id = LoadLittle<uint64_t>(slot.data());
    Result<Record> record = DecodeRecord(slot.subspan<8, kEncodedRecordBytes>());
    if (!record.ok()) return Malformed("the record of a missing map is none");
    maps.slots[i].record = record.Take();
    for (uint32_t j = 0; j < i; ++j) {
      if (maps.slots[j].id == maps.slots[i].id) return Malformed("two missing maps of one replica");
    }
    if (maps.slots[i].id == 0) return Malformed("a missing map of no replica");
  }
  return maps;
}

std::array<std::byte, kMapRequestBytes> EncodeMapRequest(const MapRequest& request) {
  std::array<std::byte, kMapRequestBytes> bytes = {};
  StoreLittle(bytes.data(), request.id);
  StoreLittle(bytes.data() + 8, request.first);
  return bytes;
}

Result<MapRequest> DecodeMapRequest(std::span<const std::byte> from) {
  if (from.size() != kMapRequestBytes) return Malformed("MAP has the wrong length");
  MapRequest request;
  request.id = LoadLittle<uint64_t>(from.data());
  request.first = LoadLittle<uint32_t>(from.data() + 8);
  if (request.first > kRegionsMax) return Malformed("MAP: the region is out of bounds");
  return request;
}

// --- MISSING
// -----------------------------------------------------------------------------------------

size_t EncodeMissing(const MissingRequest& request, std::span<const RegionRun> runs,
                     std::byte* to) {
  CHECK(request.id != 0);
  StoreLittle(to, request.id);
  StoreLittle(to + 8, static_cast<uint32_t>(request.what));
  StoreLittle(to + 12, uint32_t{0});
  EncodeRecord(request.record,
               std::span<std::byte, kEncodedRecordBytes>(to + 16, kEncodedRecordBytes));
  return kMissingHeadBytes + EncodeRegionRuns(runs, to + kMissingHeadBytes);
}

Result<DecodedMissing> DecodeMissing(std::span<const std::byte> from) {
  if (from.size() < kMissingHeadBytes) return Malformed("MISSING is cut short");
  DecodedMissing decoded;
  decoded.request.id = LoadLittle<uint64_t>(from.data());
  if (decoded.request.id == 0) return Malformed("MISSING for no replica");
  const auto what = LoadLittle<uint32_t>(from.data() + 8);
  if (what > static_cast<uint32_t>(MissingRequest::What::kFree)) {
    return Malformed("MISSING wants what is not known");
  }
  decoded.request.what = static_cast<MissingRequest::What>(what);
  Result<Record> record = DecodeRecord(from.subspan<16, kEncodedRecordBytes>());
  if (!record.ok()) return Malformed("MISSING: its record is none");
  decoded.request.record = record.Take();
  Result<RegionRuns> runs = RegionRuns::Decode(from.subspan(kMissingHeadBytes));
  if (!runs.ok()) return runs.status().Within("MISSING");
  decoded.runs = runs.value();
  return decoded;
}

// --- CLEAN
// -------------------------------------------------------------------------------------------

size_t EncodeClean(const CleanRequest& request, std::byte* to) {
  CHECK(request.ids.count <= kMissingSlotsMax);
  StoreLittle(to, request.epoch.attachment);
  StoreLittle(to + 8, request.epoch.run);
  StoreLittle(to + 16, request.generation);
  for (size_t i = 0; i < request.ids.count; ++i) {
    StoreLittle(to + kCleanHeadBytes + 8 * i, request.ids.ids[i]);
  }
  return kCleanHeadBytes + size_t{8} * request.ids.count;
}

Result<CleanRequest> DecodeClean(std::span<const std::byte> from) {
  if (from.size() < kCleanHeadBytes || from.size() > kCleanBytesMax || from.size() % 8 != 0) {
    return Malformed("CLEAN has the wrong length");
  }
  CleanRequest request;
  request.epoch.attachment = LoadLittle<uint64_t>(from.data());
  request.epoch.run = LoadLittle<uint64_t>(from.data() + 8);
  request.generation = LoadLittle<uint64_t>(from.data() + 16);
  ReplicaId previous = 0;
  for (size_t at = kCleanHeadBytes; at < from.size(); at += 8) {
    const auto id = LoadLittle<uint64_t>(from.data() + at);
    if (id <= previous) return Malformed("CLEAN: the replicas are not in order");
    request.ids.Add(id);
    previous = id;
  }
  return request;
}

// --- RECENT
// ------------------------------------------------------------------------------------------

size_t EncodeRecent(bool known, std::span<const RegionRun> runs, std::byte* to) {
  CHECK(known || runs.empty());
  StoreLittle(to, known ? uint32_t{1} : uint32_t{0});
  StoreLittle(to + 4, uint32_t{0});
  return kRecentHeadBytes + EncodeRegionRuns(runs, to + kRecentHeadBytes);
}

Result<Recent> DecodeRecent(std::span<const std::byte> from) {
  if (from.size() < kRecentHeadBytes) return Malformed("the recent regions are cut short");
  const auto known = LoadLittle<uint32_t>(from.data());
  if (known > 1) return Malformed("recent regions that are neither known nor not");
  Result<RegionRuns> runs = RegionRuns::Decode(from.subspan(kRecentHeadBytes));
  if (!runs.ok()) return runs.status().Within("recent regions");
  if (known == 0 && !runs.value().empty()) return Malformed("recent regions that are not known");
  return Recent{known == 1, runs.value()};
}

// --- SUM
// ---------------------------------------------------------------------------------------------

Result<Sums> Sums::Decode(std::span<const std::byte> from, uint32_t length_bytes) {
  const auto blocks = static_cast<uint32_t>(DivideUp(length_bytes, kBlockBytes));
  if (blocks == 0 || blocks > kSumBlocksMax || from.size() != SumsBytes(blocks)) {
    return Malformed("the sums have the wrong length");
  }
  Sums sums;
  sums.bytes_ = from.data();
  sums.blocks_ = blocks;
  return sums;
}

SumsEncoder::SumsEncoder(std::byte* to, uint32_t blocks) : to_(to), blocks_(blocks) {
  CHECK(blocks > 0 && blocks <= kSumBlocksMax);
  std::memset(to, 0, SumsBytes(blocks));
}

void SumsEncoder::Set(uint32_t block, uint32_t crc32c, bool hole, bool bad) {
  CHECK(block < blocks_);
  StoreLittle(to_ + size_t{4} * block, crc32c);
  const auto bit = static_cast<std::byte>(1 << block % 8);
  std::byte* holes = to_ + size_t{4} * blocks_;
  if (hole) holes[block / 8] |= bit;
  if (bad) holes[(blocks_ + 7) / 8 + block / 8] |= bit;
}

void MarkBad(std::byte* sums, uint32_t blocks, uint32_t block) {
  CHECK(block < blocks);
  sums[size_t{4} * blocks + (blocks + 7) / 8 + block / 8] |= static_cast<std::byte>(1 << block % 8);
}

}  // namespace ankole::wire
