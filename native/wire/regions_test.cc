#include "wire/regions.h"

#include <array>
#include <vector>

#include "base/test.h"

namespace ankole::wire {
namespace {

using Payload = std::array<std::byte, kControlPayloadBytesMax>;

Record ARecord() {
  Record record;
  record.epoch = {7, 3};
  record.generation = 5;
  record.members.Add(0xa1);
  record.members.Add(0xa2);
  record.newest_snapshot = "monday";
  return record;
}

ErrorCode CodeOfRuns(const std::vector<uint32_t>& words) {
  return RegionRuns::Decode(std::as_bytes(std::span(words))).status().code();
}

TEST(wire_regions, RunsRoundTrip) {
  const std::vector<RegionRun> runs = {{0, 1}, {1, 3}, {9, 1}, {kRegionsMax - 1, 1}};
  Payload bytes;
  const size_t size = EncodeRegionRuns(runs, bytes.data());
  EXPECT_EQ(size, 32U);
  const Result<RegionRuns> again = RegionRuns::Decode({bytes.data(), size});
  ASSERT_OK(again);
  EXPECT(again.value().ToVector() == runs);
  EXPECT_EQ(again.value().end(), kRegionsMax);
  const Result<RegionRuns> none = RegionRuns::Decode({});
  ASSERT_OK(none);
  EXPECT(none.value().empty() && none.value().end() == 0);
}

TEST(wire_regions, RunsAreInOrderAndBounded) {
  EXPECT_EQ(CodeOfRuns({4, 2, 6, 1}), ErrorCode::kOk);
  EXPECT_EQ(CodeOfRuns({4, 2, 5, 1}), ErrorCode::kProtocolError);  // overlaps
  EXPECT_EQ(CodeOfRuns({4, 2, 1, 1}), ErrorCode::kProtocolError);
  EXPECT_EQ(CodeOfRuns({4, 0}), ErrorCode::kProtocolError);
  EXPECT_EQ(CodeOfRuns({4}), ErrorCode::kProtocolError);
  EXPECT_EQ(CodeOfRuns({kRegionsMax, 1}), ErrorCode::kProtocolError);
  EXPECT_EQ(CodeOfRuns({0, kRegionsMax}), ErrorCode::kOk);
  EXPECT_EQ(CodeOfRuns({1, kRegionsMax}), ErrorCode::kProtocolError);
  EXPECT_EQ(CodeOfRuns({2, UINT32_MAX}), ErrorCode::kProtocolError);  // the sum would wrap
  std::vector<uint32_t> many;
  for (uint32_t i = 0; i <= kRegionRunsMax; ++i) many.insert(many.end(), {2 * i, 1});
  EXPECT_EQ(CodeOfRuns(many), ErrorCode::kProtocolError);
  many.resize(2 * kRegionRunsMax);
  EXPECT_EQ(CodeOfRuns(many), ErrorCode::kOk);
}

TEST(wire_regions, MapsRoundTripAndAreBounded) {
  RegionMaps maps;
  maps.dirty_regions = 4096;
  maps.count = kMissingSlotsMax;
  for (uint32_t i = 0; i < maps.count; ++i) maps.slots[i] = {0xb0 + i, ARecord()};
  Payload bytes;
  const size_t size = EncodeRegionMaps(maps, bytes.data());
  EXPECT_EQ(size, kRegionMapsBytesMax);
  const Result<RegionMaps> again = DecodeRegionMaps({bytes.data(), size});
  ASSERT_OK(again);
  EXPECT_EQ(again.value().dirty_regions, 4096U);
  EXPECT(again.value().slots == maps.slots && again.value().count == maps.count);

  EXPECT(!DecodeRegionMaps({bytes.data(), size - 1}).ok());
  EXPECT(!DecodeRegionMaps({bytes.data(), 15}).ok());
  bytes[0] = std::byte{8};
  EXPECT(!DecodeRegionMaps({bytes.data(), size + kMissingSlotBytes}).ok());
  bytes[0] = std::byte{7};
  bytes[kRegionMapsHeadBytes] = std::byte{0xb1};  // as the second one
  EXPECT(!DecodeRegionMaps({bytes.data(), size}).ok());
  bytes[kRegionMapsHeadBytes] = std::byte{0};
  EXPECT(!DecodeRegionMaps({bytes.data(), size}).ok());
  bytes[kRegionMapsHeadBytes] = std::byte{0xb0};
  bytes[kRegionMapsHeadBytes + 8 + 24] = std::byte{99};  // that many members
  EXPECT_EQ(DecodeRegionMaps({bytes.data(), size}).status().code(), ErrorCode::kProtocolError);
}

TEST(wire_regions, AMapIsAskedForFromARegionOn) {
  const MapRequest request = {0xabc, 77};
  const auto bytes = EncodeMapRequest(request);
  EXPECT(DecodeMapRequest(bytes).value() == request);
  EXPECT(!DecodeMapRequest({bytes.data(), 15}).ok());
  EXPECT(!DecodeMapRequest(EncodeMapRequest({0, kRegionsMax + 1})).ok());
}

TEST(wire_regions, MissingRoundTripsAndIsChecked) {
  MissingRequest request;
  request.id = 0xb7;
  request.record = ARecord();
  std::vector<RegionRun> runs;
  for (uint32_t i = 0; i < kRegionRunsMax; ++i) runs.push_back({3 * i, 2});
  Payload bytes;
  const size_t size = EncodeMissing(request, runs, bytes.data());
  EXPECT_EQ(size, kMissingBytesMax);
  const Result<DecodedMissing> again = DecodeMissing({bytes.data(), size});
  ASSERT_OK(again);
  EXPECT_EQ(again.value().request.id, 0xb7U);
  EXPECT(again.value().request.what == MissingRequest::What::kSet);
  EXPECT(again.value().request.record == ARecord());
  EXPECT(again.value().runs.ToVector() == runs);

  const auto with = [&](size_t at, uint8_t value) {
    Payload other = bytes;
    other[at] = std::byte{value};
    return DecodeMissing({other.data(), size}).ok();
  };
  EXPECT(with(8, 1));
  EXPECT(!with(8, 2));
  EXPECT(!with(0, 0));
  EXPECT(!with(16 + 24, 99));               // that many members
  EXPECT(!with(kMissingHeadBytes + 4, 0));  // an empty run
  EXPECT(!DecodeMissing({bytes.data(), kMissingHeadBytes - 1}).ok());
  EXPECT(DecodeMissing({bytes.data(), kMissingHeadBytes}).ok());
}

TEST(wire_regions, CleanNamesItsRecordAndReplicasInOrder) {
  CleanRequest request;
  request.epoch = {7, 3};
  request.generation = 9;
  Payload bytes;
  EXPECT(DecodeClean({bytes.data(), EncodeClean(request, bytes.data())}).value() == request);
  for (uint64_t id = 1; id <= kMissingSlotsMax; ++id) request.ids.Add(id * 16);
  const size_t size = EncodeClean(request, bytes.data());
  EXPECT_EQ(size, kCleanBytesMax);
  EXPECT(DecodeClean({bytes.data(), size}).value() == request);
  EXPECT(!DecodeClean({bytes.data(), size + 8}).ok());
  EXPECT(!DecodeClean({bytes.data(), size - 1}).ok());
  EXPECT(!DecodeClean({bytes.data(), 16}).ok());
  bytes[kCleanHeadBytes] = std::byte{0};
  EXPECT(!DecodeClean({bytes.data(), size}).ok());
  bytes[kCleanHeadBytes] = std::byte{32};  // twice
  EXPECT(!DecodeClean({bytes.data(), size}).ok());
}

TEST(wire_regions, RecentHasRunsOnlyWhereItIsKnown) {
  const std::vector<RegionRun> runs = {{2, 1}, {5, 4}};
  Payload bytes;
  const size_t size = EncodeRecent(true, runs, bytes.data());
  const Result<Recent> known = DecodeRecent({bytes.data(), size});
  ASSERT_OK(known);
  EXPECT(known.value().known && known.value().runs.ToVector() == runs);
  bytes[0] = std::byte{0};
  EXPECT(!DecodeRecent({bytes.data(), size}).ok());
  bytes[0] = std::byte{2};
  EXPECT(!DecodeRecent({bytes.data(), size}).ok());
  EXPECT(!DecodeRecent({bytes.data(), 7}).ok());
  const Result<Recent> unknown =
      DecodeRecent({bytes.data(), EncodeRecent(false, {}, bytes.data())});
  ASSERT_OK(unknown);
  EXPECT(!unknown.value().known && unknown.value().runs.empty());
}

TEST(wire_regions, SumsSayWhatEachBlockIs) {
  Payload bytes;
  for (const uint32_t length : {512U, 4096U, 4096U * 9 + 512, kDataBytesMax}) {
    const auto blocks = static_cast<uint32_t>(DivideUp(length, kBlockBytes));
    SumsEncoder encoder(bytes.data(), blocks);
    for (uint32_t i = 0; i < blocks; ++i) encoder.Set(i, i * 77, i % 3 == 1, i % 5 == 2);
    const Result<Sums> sums = Sums::Decode({bytes.data(), SumsBytes(blocks)}, length);
    ASSERT_OK(sums);
    EXPECT_EQ(sums.value().blocks(), blocks);
    for (uint32_t i = 0; i < blocks; ++i) {
      EXPECT_EQ(sums.value().crc32c(i), i * 77);
      EXPECT_EQ(sums.value().hole(i), i % 3 == 1);
      EXPECT_EQ(sums.value().bad(i), i % 5 == 2);
    }
    EXPECT(!Sums::Decode({bytes.data(), SumsBytes(blocks) - 1}, length).ok());
    EXPECT(!Sums::Decode({bytes.data(), SumsBytes(blocks)}, length + 4096).ok());
  }
  EXPECT(!Sums::Decode({}, 0).ok());
}

}  // namespace
}  // namespace ankole::wire
