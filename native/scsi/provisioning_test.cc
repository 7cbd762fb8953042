#include "scsi/logical_unit_testing.h"

namespace ankole::scsi {
namespace {

struct Range {
  uint64_t lba;
  uint32_t blocks;
};
Bytes UnmapList(std::initializer_list<Range> ranges) {
  Bytes list(8 + ranges.size() * 16);
  StoreBig16(&list[0], static_cast<uint16_t>(list.size() - 2));
  StoreBig16(&list[2], static_cast<uint16_t>(list.size() - 8));
  size_t at = 8;
  for (const Range& range : ranges) {
    StoreBig64(&list[at], range.lba);
    StoreBig32(&list[at + 8], range.blocks);
    at += 16;
  }
  return list;
}
Cdb Unmap(size_t bytes) {
  Cdb cdb = MakeCdb({0x42});
  StoreBig16(&cdb[7], static_cast<uint16_t>(bytes));
  return cdb;
}
Flight& RunUnmap(Bench& bench, std::initializer_list<Range> ranges) {
  const Bytes list = UnmapList(ranges);
  return bench.Run(Unmap(list.size()), list);
}

struct Status {
  uint64_t lba;
  uint32_t blocks;
  int status;
  bool operator==(const Status&) const = default;
};
std::vector<Status> LbaStatus(Bench& bench, uint64_t lba, uint32_t allocation_bytes = 4096) {
  Flight& flight = bench.Run(Cdb16(0x9e, lba, allocation_bytes, 0x12));
  EXPECT_GOOD(flight);
  std::vector<Status> list;
  for (size_t at = 8; at + 16 <= flight.data.size(); at += 16) {
    list.push_back(
        {LoadBig64(&flight.data[at]), LoadBig32(&flight.data[at + 8]), At(flight.data, at + 12)});
  }
  return list;
}

TEST(scsi_provisioning, unmap_does_what_it_says_below_a_physical_block) {
  Bench bench;
  bench.Fill(0, 64, 0x77);
  EXPECT_GOOD(RunUnmap(bench, {{3, 2}, {20, 20}, {21, 1}, {50, 0}}));
  for (uint64_t lba = 0; lba < 64; ++lba) {
    const bool zero = (lba >= 3 && lba < 5) || (lba >= 20 && lba < 40);
    if (bench.Medium(lba, 1) != Filled(512, zero ? 0 : 0x77)) {
      test::Fail(__FILE__, __LINE__, "block " + std::to_string(lba));
    }
  }
}

TEST(scsi_provisioning, an_unmap_that_is_refused_unmaps_nothing) {
  Bench bench;
  bench.Fill(0, 64, 0x77);
  const auto untouched = [&] { return bench.Medium(0, 64) == Filled(64 * 512, 0x77); };
  EXPECT(RunUnmap(bench, {{0, 8}, {Bench::kBlocks - 1, 2}})
             .Illegal(SenseCode::kBlockAddressOutOfRange));
  EXPECT(RunUnmap(bench, {{0, 8}, {UINT64_MAX, 2}}).Illegal(SenseCode::kBlockAddressOutOfRange));
  EXPECT(untouched());
  // Lists that are shorter than they say.
  const Bytes list = UnmapList({{0, 8}, {8, 8}});
  EXPECT(bench.Run(Unmap(24), Bytes(list.begin(), list.begin() + 24))
             .Illegal(SenseCode::kParameterListLengthError));
  EXPECT(bench.Run(Unmap(list.size()), Bytes(list.begin(), list.begin() + 30))
             .Illegal(SenseCode::kParameterListLengthError));
  EXPECT(bench.Run(Unmap(4), Filled(4, 0)).Illegal(SenseCode::kParameterListLengthError));
  EXPECT(untouched());
  Bytes many(8 + 257 * 16);
  StoreBig16(&many[2], 257 * 16);
  EXPECT(bench.Run(Unmap(many.size()), many).Illegal(SenseCode::kInvalidFieldInParameterList));
  EXPECT_GOOD(bench.Run(Unmap(0)));
  EXPECT_GOOD(RunUnmap(bench, {{Bench::kBlocks, 0}}));
  EXPECT(untouched());
}

TEST(scsi_provisioning, the_most_descriptors) {
  Bench bench;
  bench.Fill(0, 1024, 0x77);
  Bytes list(8 + 256 * 16);
  StoreBig16(&list[2], 256 * 16);
  for (size_t i = 0; i < 256; ++i) {
    StoreBig64(&list[8 + i * 16], i * 2);
    StoreBig32(&list[8 + i * 16 + 8], 1);
  }
  EXPECT_GOOD(bench.Run(Unmap(list.size()), list));
  EXPECT(bench.device.pending_max <= kSegmentsMax);
  for (uint64_t lba = 0; lba < 512; ++lba) {
    EXPECT(bench.Medium(lba, 1) == Filled(512, lba % 2 == 0 ? 0 : 0x77));
  }
}

TEST(scsi_provisioning, lba_status_tells_extents) {
  Bench bench;
  // The device tells one extent a block, and is asked for so many at a time.
  constexpr uint32_t kAtATime = kStatusDescriptorsMax * 8;
  EXPECT(LbaStatus(bench, 0) == (std::vector<Status>{{0, kAtATime, 1}}));
  EXPECT_GOOD(bench.Run(Cdb10(0x2a, 16, 16), Filled(16 * 512, 1)));
  EXPECT(LbaStatus(bench, 0) ==
         (std::vector<Status>{{0, 16, 1}, {16, 16, 0}, {32, kAtATime - 32, 1}}));
  EXPECT(LbaStatus(bench, 19, 24) == (std::vector<Status>{{19, 13, 0}}));
  EXPECT(LbaStatus(bench, Bench::kBlocks - 1) == (std::vector<Status>{{Bench::kBlocks - 1, 1, 1}}));
  EXPECT_GOOD(RunUnmap(bench, {{16, 8}}));
  EXPECT(LbaStatus(bench, 16)[0] == (Status{16, 8, 1}));
  // Counted whole, where the allocation length cuts.
  Flight& cut = bench.Run(Cdb16(0x9e, 0, 8, 0x12));
  EXPECT_GOOD(cut);
  EXPECT_EQ(LoadBig32(cut.data.data()), 4u + 3 * 16);
}

TEST(scsi_provisioning, write_same_with_a_pattern_goes_in_pieces) {
  Bench bench;
  Bytes pattern = Filled(512, 0x5a);
  pattern[511] = std::byte{1};
  constexpr uint32_t kBlocks = 5 * 1024 * 1024 / 512 + 3;
  EXPECT_GOOD(bench.Run(Cdb16(0x93, 7, kBlocks), pattern));
  for (uint64_t lba = 7; lba < 7 + kBlocks; ++lba) {
    if (bench.Medium(lba, 1) != pattern) {
      return test::Fail(__FILE__, __LINE__, "block " + std::to_string(lba));
    }
  }
  EXPECT(bench.Medium(6, 1) == Filled(512, 0));
  EXPECT(bench.Medium(7 + kBlocks, 1) == Filled(512, 0));
}

TEST(scsi_provisioning, write_same_of_zeros_and_unmap) {
  struct Row {
    Cdb cdb;
    Bytes out;
    BlockOperation operation;
    bool zeros;
  };
  const Row rows[] = {
      {Cdb10(0x41, 8, 8), Filled(512, 0), BlockOperation::kZero, true},
      {Cdb10(0x41, 8, 8, 0x08), Filled(512, 0), BlockOperation::kUnmap, true},
      {Cdb16(0x93, 8, 8, 0x08), Filled(512, 0), BlockOperation::kUnmap, true},
      {Cdb16(0x93, 8, 8, 0x01), {}, BlockOperation::kZero, true},
      {Cdb16(0x93, 8, 8, 0x09), {}, BlockOperation::kUnmap, true},
      // What would not read as what was written is written, UNMAP or not.
      {Cdb16(0x93, 8, 8, 0x08), Filled(512, 7), BlockOperation::kWrite, false},
  };
  for (const Row& row : rows) {
    Bench bench;
    bench.Fill(0, 32, 0x77);
    std::vector<BlockOperation> seen;
    bench.device.fault = [&](const BlockRequest& request) {
      seen.push_back(request.operation);
      return ErrorCode::kOk;
    };
    EXPECT_GOOD(bench.Run(row.cdb, row.out));
    EXPECT(seen == std::vector<BlockOperation>{row.operation});
    EXPECT(bench.Medium(8, 8) == Filled(8 * 512, row.zeros ? 0 : 7));
    EXPECT(bench.Medium(7, 1) == Filled(512, 0x77));
    EXPECT(bench.Medium(16, 1) == Filled(512, 0x77));
  }
  Bench bench;
  EXPECT(bench.Run(Cdb10(0x41, 0, 1), Filled(256, 0))
             .Illegal(SenseCode::kInvalidFieldInInformationUnit));
  EXPECT(bench.Run(bench.a, Cdb10(0x41, 0, 1), {.out = Filled(1024, 0), .announced = 1024})
             .Illegal(SenseCode::kInvalidFieldInInformationUnit));
}

TEST(scsi_provisioning, a_synchronize_cache_is_one_flush) {
  Bench bench;
  std::vector<BlockOperation> seen;
  bench.device.fault = [&](const BlockRequest& request) {
    seen.push_back(request.operation);
    return ErrorCode::kOk;
  };
  EXPECT_GOOD(bench.Run(Cdb10(0x35, 5, 10)));
  EXPECT_GOOD(bench.Run(Cdb16(0x91, 0, 0, 0x02)));
  EXPECT(seen == std::vector<BlockOperation>(2, BlockOperation::kFlush));
}

TEST(scsi_provisioning, what_is_stopped_is_not_ready_until_it_is_started) {
  Bench bench;
  EXPECT_GOOD(bench.Run(MakeCdb({0x1b, 0, 0, 0, 0x00})));
  const auto not_ready = [&](const Cdb& cdb, Bytes out = {}) {
    return bench.Run(cdb, std::move(out))
        .Is(SenseKey::kNotReady, SenseCode::kInitializingCommandRequired);
  };
  EXPECT(not_ready(MakeCdb({0x00})));
  EXPECT(not_ready(Cdb10(0x28, 0, 1)));
  EXPECT(not_ready(Cdb10(0x2a, 0, 1), Filled(512, 1)));
  EXPECT_GOOD(bench.Run(MakeCdb({0x12, 0, 0, 0, 96})));
  Flight& sense = bench.Run(MakeCdb({0x03, 0, 0, 0, 18}));
  EXPECT_EQ(At(sense.data, 2), 0x02);
  EXPECT_GOOD(bench.Run(MakeCdb({0x1b, 0, 0, 0, 0x01})));
  EXPECT_GOOD(bench.Run(Cdb10(0x28, 0, 1)));
}

}  // namespace
}  // namespace ankole::scsi
