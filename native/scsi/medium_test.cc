#include "scsi/logical_unit_testing.h"

namespace ankole::scsi {
namespace {

Bytes Counting(size_t count) {
  Bytes bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = std::byte(i * 7 + i / 509);
  return bytes;
}
Bytes Joined(const Bytes& a, const Bytes& b) {
  Bytes joined = a;
  joined.insert(joined.end(), b.begin(), b.end());
  return joined;
}
Cdb CompareAndWrite(uint64_t lba, uint8_t blocks, int flags = 0) {
  Cdb cdb = Cdb16(0x89, lba, 0, flags);
  cdb[13] = blocks;
  return cdb;
}

TEST(scsi_medium, all_sizes_of_cdb_move_the_same_blocks) {
  Bench bench;
  const Bytes data = Counting(2 * 512);
  const Cdb writes[] = {MakeCdb({0x0a, 0, 0, 9, 2}), Cdb10(0x2a, 9, 2),
                        MakeCdb({0xaa, 0, 0, 0, 0, 9, 0, 0, 0, 2}), Cdb16(0x8a, 9, 2)};
  const Cdb reads[] = {MakeCdb({0x08, 0, 0, 9, 2}), Cdb10(0x28, 9, 2),
                       MakeCdb({0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 2}), Cdb16(0x88, 9, 2)};
  for (size_t i = 0; i < std::size(writes); ++i) {
    bench.Fill(8, 4, 0x11);
    EXPECT_GOOD(bench.Run(writes[i], data));
    EXPECT(bench.Medium(9, 2) == data);
    EXPECT(bench.Medium(8, 1) == Filled(512, 0x11));
    EXPECT(bench.Medium(11, 1) == Filled(512, 0x11));
    Flight& read = bench.Run(reads[i]);
    EXPECT_GOOD(read);
    EXPECT(read.data == data);
    EXPECT_EQ(read.task.wanted_bytes, 1024u);
  }
}

TEST(scsi_medium, the_longest_transfer_goes_in_segments_at_once) {
  Bench bench;
  const Bytes data = Counting(kTransferBytesMax);
  bench.device.shuffled = true;
  bench.device.held = true;
  Flight& write = bench.Begin(bench.a, Cdb16(0x8a, 3, kTransferBlocksMax), {.out = data});
  EXPECT_EQ(bench.device.pending(), kSegmentsMax);
  bench.device.LetGo();
  bench.reactor.Turn();
  EXPECT_GOOD(write);
  EXPECT(bench.Medium(3, kTransferBlocksMax) == data);
  Flight& read = bench.Run(Cdb16(0x88, 3, kTransferBlocksMax));
  EXPECT_GOOD(read);
  EXPECT(read.data == data);
}

TEST(scsi_medium, fua_writes_are_durable_and_fua_reads_flush_first) {
  Bench bench;
  EXPECT_GOOD(bench.Run(Cdb10(0x2a, 0, 1), Filled(512, 1)));
  EXPECT_EQ(bench.device.durable, 0u);
  EXPECT_GOOD(bench.Run(Cdb10(0x2a, 0, 1, 0x08), Filled(512, 1)));
  EXPECT_EQ(bench.device.durable, 1u);
  const uint64_t before = bench.device.submitted;
  EXPECT_GOOD(bench.Run(Cdb10(0x28, 0, 1, 0x10)));  // DPO
  EXPECT_EQ(bench.device.submitted - before, 1u);
  EXPECT_GOOD(bench.Run(Cdb10(0x28, 0, 1, 0x08)));
  EXPECT_EQ(bench.device.submitted - before, 3u);
}

TEST(scsi_medium, what_the_initiator_has_no_room_for_is_not_moved) {
  Bench bench;
  const Bytes data = Counting(1024);
  EXPECT_GOOD(bench.Run(Cdb10(0x2a, 5, 2), data));
  for (const size_t room : {0, 200, 512, 700}) {
    Flight& read = bench.Run(bench.a, Cdb10(0x28, 5, 2), {.in_room_bytes = room});
    EXPECT_GOOD(read);
    EXPECT(read.data == Bytes(data.begin(), data.begin() + static_cast<ptrdiff_t>(room)));
    EXPECT_EQ(read.task.wanted_bytes, 1024u);
  }
}

TEST(scsi_medium, of_a_short_write_whole_blocks_are_written) {
  Bench bench;
  bench.Fill(0, 4, 0x55);
  Flight& write = bench.Run(Cdb10(0x2a, 0, 3), Filled(1500, 0x66));
  EXPECT_GOOD(write);
  EXPECT_EQ(write.task.wanted_bytes, 1536u);
  EXPECT(bench.Medium(0, 2) == Filled(1024, 0x66));
  EXPECT(bench.Medium(2, 2) == Filled(1024, 0x55));
  EXPECT_GOOD(bench.Run(Cdb10(0x2a, 0, 1), Filled(100, 0x77)));
  EXPECT(bench.Medium(0, 1) == Filled(512, 0x66));
}

TEST(scsi_medium, verify_tells_the_offset_of_the_first_difference) {
  Bench bench;
  const Bytes data = Counting(3 * kMiB);
  EXPECT_GOOD(bench.Run(Cdb16(0x8a, 0, 6144), data));
  EXPECT_GOOD(bench.Run(Cdb16(0x8f, 0, 6144)));
  EXPECT_GOOD(bench.Run(Cdb16(0x8f, 0, 6144, 0x02), data));
  Bytes other = data;
  other[2 * kMiB + 77] ^= std::byte{1};
  other[2 * kMiB + 78] ^= std::byte{1};
  Flight& verify = bench.Run(Cdb16(0x8f, 0, 6144, 0x02), other);
  EXPECT(verify.Is(SenseKey::kMiscompare, SenseCode::kMiscompareDuringVerify));
  EXPECT(verify.task.sense.information == 2 * kMiB + 77);
  EXPECT_GOOD(bench.Run(Cdb10(0x2f, 0, 0, 0x02)));
}

TEST(scsi_medium, verify_of_one_block_against_many) {
  Bench bench;
  bench.Fill(10, 5000, 0x21);
  EXPECT_GOOD(bench.Run(Cdb10(0x2f, 10, 5000, 0x06), Filled(512, 0x21)));
  Flight& verify = bench.Run(Cdb10(0x2f, 10, 5001, 0x06), Filled(512, 0x21));
  EXPECT(verify.Is(SenseKey::kMiscompare, SenseCode::kMiscompareDuringVerify));
  EXPECT(verify.task.sense.information == 5000u * 512);
  EXPECT(bench.Run(Cdb10(0x2f, 10, 1, 0x06), Filled(100, 0x21))
             .Illegal(SenseCode::kInvalidFieldInInformationUnit));
}

TEST(scsi_medium, write_and_verify_is_durable_and_compares) {
  Bench bench;
  const Bytes data = Counting(2 * kMiB + 512);
  EXPECT_GOOD(bench.Run(Cdb16(0x8e, 1, 4097, 0x02), data));
  EXPECT(bench.Medium(1, 4097) == data);
  EXPECT_EQ(bench.device.durable, 3u);
  EXPECT_EQ(bench.device.holds(), 0u);
  // A medium that does not keep what was written.
  bench.device.fault = [&](const BlockRequest& request) {
    if (request.operation == BlockOperation::kRead) bench.Fill(1, 1, 0xff);
    return ErrorCode::kOk;
  };
  EXPECT(bench.Run(Cdb16(0x8e, 1, 2, 0x02), Filled(1024, 1))
             .Is(SenseKey::kMiscompare, SenseCode::kMiscompareDuringVerify));
  EXPECT_EQ(bench.device.holds(), 0u);
}

TEST(scsi_medium, compare_and_write_writes_only_what_compares) {
  Bench bench;
  bench.Fill(4, 2, 0x33);
  const Bytes old = Filled(1024, 0x33);
  const Bytes fresh = Filled(1024, 0x44);
  EXPECT_GOOD(bench.Run(CompareAndWrite(4, 2), Joined(old, fresh)));
  EXPECT(bench.Medium(4, 2) == fresh);
  Bytes wrong = fresh;
  wrong[700] = std::byte{0};
  Flight& miss = bench.Run(CompareAndWrite(4, 2), Joined(wrong, old));
  EXPECT(miss.Is(SenseKey::kMiscompare, SenseCode::kMiscompareDuringVerify));
  EXPECT(miss.task.sense.information == 700u);
  EXPECT(bench.Medium(4, 2) == fresh);
  EXPECT_EQ(bench.device.holds(), 0u);
  EXPECT_GOOD(bench.Run(CompareAndWrite(4, 0)));
  // Neither half of the data, nor more than all of it.
  EXPECT(bench.Run(CompareAndWrite(4, 2), Filled(1024, 0x44))
             .Illegal(SenseCode::kInvalidFieldInInformationUnit));
  for (const uint8_t blocks : {0, 1}) {
    EXPECT(
        bench.Run(bench.a, CompareAndWrite(4, blocks), {.out = Filled(2048, 3), .announced = 2048})
            .Illegal(SenseCode::kInvalidFieldInCdb));
  }
  const Bytes most = Filled(kCompareBlocksMax * 512, 0);
  EXPECT_GOOD(bench.Run(CompareAndWrite(100, 255), Joined(most, most)));
}

TEST(scsi_medium, a_write_between_compare_and_write_waits) {
  Bench bench;
  bench.Fill(0, 1, 1);
  bool begun = false;
  Flight* other = nullptr;
  bench.device.fault = [&](const BlockRequest& request) {
    if (request.operation == BlockOperation::kRead && !begun) {
      begun = true;
      other = &bench.Begin(bench.b, Cdb10(0x2a, 0, 1), {.out = Filled(512, 3)});
    }
    return ErrorCode::kOk;
  };
  Flight& first = bench.Run(CompareAndWrite(0, 1), Joined(Filled(512, 1), Filled(512, 2)));
  EXPECT_GOOD(first);
  ASSERT(other != nullptr);
  EXPECT_GOOD(*other);
  EXPECT(bench.Medium(0, 1) == Filled(512, 3));
}

// Of many that want to swap the same value one does.
TEST(scsi_medium, of_concurrent_compare_and_writes_one_wins) {
  Bench bench;
  bench.device.shuffled = true;
  std::vector<Flight*> flights;
  for (int i = 0; i < 10; ++i) {
    flights.push_back(&bench.Begin(i % 2 == 0 ? bench.a : bench.b, CompareAndWrite(0, 1),
                                   {.out = Joined(Filled(512, 0), Filled(512, i + 1))}));
  }
  bench.reactor.Turn();
  int won = 0;
  for (int i = 0; i < 10; ++i) {
    if (flights[static_cast<size_t>(i)]->good()) {
      ++won;
      EXPECT(bench.Medium(0, 1) == Filled(512, i + 1));
    }
  }
  EXPECT_EQ(won, 1);
  EXPECT_EQ(bench.device.holds(), 0u);
}

TEST(scsi_medium, orwrite_sets_bits) {
  Bench bench;
  bench.Fill(0, 4097, 0x0f);
  EXPECT_GOOD(bench.Run(Cdb16(0x8b, 1, 4096), Filled(2 * kMiB, 0x30)));
  EXPECT(bench.Medium(0, 1) == Filled(512, 0x0f));
  EXPECT(bench.Medium(1, 4096) == Filled(2 * kMiB, 0x3f));
  EXPECT_EQ(bench.device.holds(), 0u);
}

TEST(scsi_medium, errors_of_the_device) {
  struct Row {
    ErrorCode error;
    ScsiStatus status;
    SenseKey key;
    unsigned read_code;
    unsigned write_code;
  };
  const auto check = ScsiStatus::kCheckCondition;
  const Row rows[] = {
      {ErrorCode::kIoError, check, SenseKey::kMediumError, 0x1100, 0x0c00},
      {ErrorCode::kCorrupt, check, SenseKey::kMediumError, 0x1100, 0x0c00},
      {ErrorCode::kNoSpace, check, SenseKey::kDataProtect, 0x2707, 0x2707},
      {ErrorCode::kReadOnly, check, SenseKey::kDataProtect, 0x2700, 0x2700},
      {ErrorCode::kUnavailable, ScsiStatus::kBusy, SenseKey::kNoSense, 0, 0},
      {ErrorCode::kFenced, ScsiStatus::kBusy, SenseKey::kNoSense, 0, 0},
      {ErrorCode::kInternal, check, SenseKey::kHardwareError, 0x4400, 0x4400},
  };
  for (const Row& row : rows) {
    Bench bench;
    bench.device.fault = [&](const BlockRequest&) { return row.error; };
    Flight& read = bench.Run(Cdb10(0x28, 0, 1));
    EXPECT(read.ended && read.status() == row.status && read.task.sense.key == row.key);
    EXPECT_EQ(static_cast<unsigned>(read.task.sense.code), row.read_code);
    EXPECT_EQ(read.task.in_bytes, 0u);
    Flight& write = bench.Run(Cdb10(0x2a, 0, 1), Filled(512, 1));
    EXPECT(write.ended && write.status() == row.status && write.task.sense.key == row.key);
    EXPECT_EQ(static_cast<unsigned>(write.task.sense.code), row.write_code);
    Flight& flush = bench.Run(Cdb10(0x35, 0, 0));
    EXPECT_EQ(static_cast<unsigned>(flush.task.sense.code), row.write_code);
  }
}

// Once more it would compare with what it has perhaps written itself.
TEST(scsi_medium, a_compare_and_write_of_unknown_outcome_is_not_busy) {
  Bench bench;
  bench.device.fault = [](const BlockRequest& request) {
    return request.operation == BlockOperation::kWrite ? ErrorCode::kUnavailable : ErrorCode::kOk;
  };
  EXPECT(bench.Run(CompareAndWrite(0, 1), Filled(1024, 0))
             .Is(SenseKey::kHardwareError, SenseCode::kInternalTargetFailure));
  EXPECT_EQ(bench.device.holds(), 0u);
  bench.device.fault = [](const BlockRequest& request) {
    return request.operation == BlockOperation::kRead ? ErrorCode::kUnavailable : ErrorCode::kOk;
  };
  EXPECT(bench.Run(CompareAndWrite(0, 1), Filled(1024, 0)).status() == ScsiStatus::kBusy);
}

TEST(scsi_medium, one_failed_segment_fails_the_command_after_all_have_ended) {
  Bench bench;
  bench.device.shuffled = true;
  bench.device.fault = [](const BlockRequest& request) {
    return request.offset_bytes == 2 * kMiB ? ErrorCode::kIoError : ErrorCode::kOk;
  };
  EXPECT(bench.Run(Cdb16(0x88, 0, kTransferBlocksMax))
             .Is(SenseKey::kMediumError, SenseCode::kUnrecoveredReadError));
}

}  // namespace
}  // namespace ankole::scsi
