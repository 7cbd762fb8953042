#include "scsi/inquiry.h"
#include "scsi/logical_unit_testing.h"

namespace ankole::scsi {
namespace {

constexpr uint64_t kBlocks = Bench::kBlocks;

struct Copy {
  uint64_t from;
  uint64_t to;
  uint16_t blocks;
  uint16_t source = 0;
  uint16_t destination = 0;
};

// The designator that the unit itself tells of (VPD page 83h), from the code set on.
Bytes Designator(Bench& bench) {
  const Bytes page = bench.Run(MakeCdb({0x12, 1, 0x83, 0, 252})).data;
  return {page.begin() + 4, page.begin() + 4 + 12};
}

// A parameter list as initiators send it.
struct List {
  explicit List(Bench& bench, std::vector<Copy> copies, uint8_t identifier = 1, uint8_t usage = 0,
                size_t targets = 1) {
    const Bytes name = Designator(bench);
    bytes.resize(16);
    bytes[0] = std::byte(identifier);
    bytes[1] = std::byte(usage << 3);
    StoreBig16(&bytes[2], static_cast<uint16_t>(targets * 32));
    StoreBig32(&bytes[8], static_cast<uint32_t>(copies.size() * 28));
    for (size_t i = 0; i < targets; ++i) {
      Bytes target(32);
      target[0] = std::byte{0xe4};
      std::copy(name.begin(), name.end(), target.begin() + 4);
      StoreBig16(&target[30], 512);
      bytes.insert(bytes.end(), target.begin(), target.end());
    }
    for (const Copy& copy : copies) {
      Bytes segment(28);
      segment[0] = std::byte{0x02};
      StoreBig16(&segment[2], 24);
      StoreBig16(&segment[4], copy.source);
      StoreBig16(&segment[6], copy.destination);
      StoreBig16(&segment[10], copy.blocks);
      StoreBig64(&segment[12], copy.from);
      StoreBig64(&segment[20], copy.to);
      bytes.insert(bytes.end(), segment.begin(), segment.end());
    }
  }
  List& Set(size_t at, int value) {
    bytes.at(at) = std::byte(value);
    return *this;
  }
  Cdb cdb() const {
    Cdb cdb = MakeCdb({0x83});
    StoreBig32(&cdb[10], static_cast<uint32_t>(bytes.size()));
    return cdb;
  }
  Bytes bytes;
};

Flight& Run(Bench& bench, const List& list) { return bench.Run(list.cdb(), list.bytes); }
Cdb CopyStatus(uint8_t identifier) {
  Cdb cdb = MakeCdb({0x84, 0x00, identifier});
  cdb[13] = 255;
  return cdb;
}

// Each block of its own.
void Number(Bench& bench) {
  for (uint64_t lba = 0; lba < kBlocks; ++lba) {
    StoreBig64(&bench.device.bytes()[lba * 512], lba + 1);
  }
}
uint64_t NumberAt(Bench& bench, uint64_t lba) {
  return LoadBig64(&bench.device.bytes()[lba * 512]);
}
// Whether blocks `to` on are what `from` on were, and all around is as it was.
bool Copied(Bench& bench, const Copy& copy) {
  for (uint64_t lba = 0; lba < kBlocks; ++lba) {
    const bool inside = lba >= copy.to && lba < copy.to + copy.blocks;
    if (NumberAt(bench, lba) != (inside ? lba - copy.to + copy.from : lba) + 1) return false;
  }
  return true;
}

TEST(scsi_extended_copy, blocks_are_copied_as_they_were_before) {
  constexpr uint16_t kLong = 7000;
  const Copy rows[] = {
      {0, kBlocks - 2048, 2048}, {kBlocks - 3, 1, 3}, {100, 20000, kLong}, {100, 101, kLong},
      {100, 1100, kLong},        {100, 3100, kLong},  {101, 100, kLong},   {1100, 100, kLong},
      {3100, 100, kLong},        {5, 5, 4096},        {9, 10, 0},          {0, 2048, 2048},
  };
  for (const Copy& copy : rows) {
    for (const int dc : {0, 2}) {
      Bench bench;
      Number(bench);
      EXPECT_GOOD(Run(bench, List(bench, {copy}).Set(16 + 32 + 1, dc)));
      if (!Copied(bench, copy)) {
        test::Fail(__FILE__, __LINE__,
                   std::to_string(copy.from) + " to " + std::to_string(copy.to));
      }
      EXPECT(bench.device.pending_max <= 1);
    }
  }
}

TEST(scsi_extended_copy, segments_follow_each_other) {
  Bench bench;
  Number(bench);
  EXPECT_GOOD(Run(bench, List(bench, {{0, 100, 10}, {100, 200, 10, 1, 0}, {5, 0, 1}}, 1, 0, 2)));
  EXPECT_EQ(NumberAt(bench, 200), 1u);
  EXPECT_EQ(NumberAt(bench, 209), 10u);
  EXPECT_EQ(NumberAt(bench, 0), 6u);
  EXPECT_GOOD(Run(bench, List(bench, {})));
  EXPECT_GOOD(Run(bench, List(bench, {}, 1, 0, 0)));
  EXPECT_GOOD(bench.Run(MakeCdb({0x83})));
  // LU ID TYPE and NUL are not looked at.
  EXPECT_GOOD(Run(bench, List(bench, {{0, 400, 1}}).Set(16 + 1, 0xe0)));
  EXPECT_EQ(NumberAt(bench, 400), 6u);
  EXPECT_GOOD(Run(bench, List(bench, std::vector<Copy>(kCopySegmentsMax, {0, 300, 1}))));
}

TEST(scsi_extended_copy, what_cannot_be_done_is_refused_with_its_reason) {
  Bench bench;
  Number(bench);
  const Copy copy = {0, 100, 8};
  const auto illegal = [&](const List& list, SenseCode code) {
    Flight& flight = Run(bench, list);
    return flight.Illegal(code);
  };
  const auto aborted = [&](const List& list, SenseCode code) {
    return Run(bench, list).Is(SenseKey::kCopyAborted, code);
  };
  const auto plain = [&](size_t targets = 1) { return List(bench, {copy}, 1, 0, targets); };
  constexpr size_t kTarget = 16;
  constexpr size_t kSegment = 16 + 32;

  for (const size_t bytes : {1u, 15u, 16u, 47u, 75u}) {
    List list = plain();
    list.bytes.resize(bytes);
    EXPECT(illegal(list, SenseCode::kParameterListLengthError));
  }
  List longer = plain();
  EXPECT(bench.Run(longer.cdb(), Bytes(longer.bytes.begin(), longer.bytes.end() - 1))
             .Illegal(SenseCode::kParameterListLengthError));
  EXPECT(illegal(plain().Set(8, 0xff), SenseCode::kParameterListLengthError));
  EXPECT(illegal(plain().Set(15, 1), SenseCode::kInlineDataLengthExceeded));
  EXPECT(illegal(plain().Set(1, 0x08), SenseCode::kInvalidFieldInParameterList));
  EXPECT(illegal(plain().Set(1, 0x18), SenseCode::kInvalidFieldInParameterList));
  EXPECT(illegal(plain(3), SenseCode::kTooManyTargetDescriptors));
  EXPECT(illegal(List(bench, std::vector<Copy>(kCopySegmentsMax + 1, copy)),
                 SenseCode::kTooManySegmentDescriptors));
  EXPECT(illegal(plain().Set(3, 31), SenseCode::kInvalidFieldInParameterList));
  EXPECT(illegal(plain().Set(11, 27), SenseCode::kInvalidFieldInParameterList));
  for (const int type : {0x00, 0xe0, 0xe5, 0xea, 0xff}) {
    EXPECT(illegal(plain().Set(kTarget, type), SenseCode::kUnsupportedTargetDescriptor));
  }
  for (const int type : {0x00, 0x01, 0x03, 0x0b, 0xbe}) {
    EXPECT(illegal(plain().Set(kSegment, type), SenseCode::kUnsupportedSegmentDescriptor));
  }
  EXPECT(illegal(plain().Set(kSegment + 3, 20), SenseCode::kInvalidFieldInParameterList));
  EXPECT(illegal(plain().Set(kSegment + 10, 0x81), SenseCode::kInvalidFieldInParameterList));

  EXPECT(aborted(plain().Set(kTarget + 1, 0x01), SenseCode::kIncorrectCopyTargetType));
  EXPECT(aborted(plain().Set(kTarget + 30, 0x10), SenseCode::kNone));
  EXPECT(aborted(plain().Set(kSegment + 5, 1), SenseCode::kUnreachableCopyTarget));
  EXPECT(aborted(plain().Set(kSegment + 7, 1), SenseCode::kUnreachableCopyTarget));
  // Code set, association, type, length and each byte of the designator.
  for (const size_t at : {4, 5, 7, 8, 11, 15}) {
    List list = plain();
    list.bytes[kTarget + at] ^= std::byte{1};
    EXPECT(aborted(list, SenseCode::kCopyTargetNotReachable));
  }
  EXPECT(aborted(List(bench, {{0, kBlocks - 7, 8}}), SenseCode::kNone));
  EXPECT(aborted(List(bench, {{kBlocks - 7, 0, 8}}), SenseCode::kNone));
  EXPECT(aborted(List(bench, {{UINT64_MAX, 0, 8}}), SenseCode::kNone));
  // The first is not done if the second cannot be.
  Flight& second = Run(bench, List(bench, {copy, {0, kBlocks, 1}}));
  EXPECT(second.Is(SenseKey::kCopyAborted, SenseCode::kNone));
  ASSERT(second.task.sense.field.has_value());
  EXPECT_EQ(second.task.sense.field->byte, kSegment + 28 + 20);
  EXPECT(Copied(bench, {0, 0, 0}));
}

TEST(scsi_extended_copy, only_the_designators_of_the_unit_are_its_names) {
  const Identity identity = {"iqn.2024-01.test:volume", "serial-1"};
  std::byte room[1000];
  Answer page(room);
  ASSERT(!BuildVitalData(kPageIdentification, true, identity, &page));
  size_t named = 0;
  for (size_t at = 4; at < page.bytes(); at += 4 + static_cast<size_t>(room[at + 3])) {
    std::byte field[kDesignatorFieldBytes] = {};
    std::memcpy(field, &room[at], std::min(sizeof(field), page.bytes() - at));
    const bool of_unit = (room[at + 1] & std::byte{0x30}) == std::byte{0};
    EXPECT(NamesUnit(identity, field) == of_unit);
    EXPECT(!NamesUnit({identity.target, "serial-2"}, field));
    named += of_unit ? 1 : 0;
  }
  EXPECT_EQ(named, 2u);
  // One that does not fit into the field is none.
  EXPECT(!NamesUnit({identity.target, std::string(300, 'a')},
                    std::array<std::byte, kDesignatorFieldBytes>{}));
}

TEST(scsi_extended_copy, its_status_can_be_asked_for) {
  Bench bench;
  EXPECT(bench.Run(CopyStatus(1)).Illegal(SenseCode::kInvalidFieldInCdb));
  EXPECT_GOOD(Run(bench, List(bench, {{0, 100, 8}, {0, 200, 2}}, 1)));
  const Bytes done = bench.Run(CopyStatus(1)).data;
  ASSERT(done.size() == 12);
  EXPECT_EQ(LoadBig32(&done[0]), 8u);
  EXPECT_EQ(At(done, 4), 0x01);
  EXPECT_EQ(LoadBig16(&done[5]), 2);
  EXPECT_EQ(LoadBig32(&done[8]), 10u * 512);
  // The identifiers of another nexus are its own.
  EXPECT(bench.Run(bench.b, CopyStatus(1)).Illegal(SenseCode::kInvalidFieldInCdb));

  EXPECT(
      Run(bench, List(bench, {{0, kBlocks, 8}}, 1)).Is(SenseKey::kCopyAborted, SenseCode::kNone));
  EXPECT_EQ(At(bench.Run(CopyStatus(1)).data, 4), 0x02);
  // What was malformed was none.
  EXPECT(Run(bench, List(bench, {}, 2).Set(15, 1)).Illegal(SenseCode::kInlineDataLengthExceeded));
  EXPECT(bench.Run(CopyStatus(2)).Illegal(SenseCode::kInvalidFieldInCdb));
  EXPECT_GOOD(Run(bench, List(bench, {{0, 100, 8}}, 0, 3)));
  EXPECT(bench.Run(CopyStatus(0)).Illegal(SenseCode::kInvalidFieldInCdb));

  bench.unit->Manage(TaskManagement::kLogicalUnitReset, bench.a);
  bench.Run(MakeCdb({0x00}));
  EXPECT(bench.Run(CopyStatus(1)).Illegal(SenseCode::kInvalidFieldInCdb));
}

TEST(scsi_extended_copy, a_list_identifier_is_of_one_copy_at_a_time) {
  Bench bench;
  const auto begin = [&](uint8_t identifier, uint8_t usage = 0) -> Flight& {
    const List list(bench, {{0, 100, 8}}, identifier, usage);
    bench.device.held = true;
    return bench.Begin(bench.a, list.cdb(), {.out = list.bytes});
  };
  Flight& first = begin(1);
  EXPECT(Run(bench, List(bench, {}, 1)).Illegal(SenseCode::kOperationInProgress));
  EXPECT_EQ(At(bench.Run(CopyStatus(1)).data, 4), 0x00);
  for (uint32_t i = 1; i < kCopiesMax; ++i) begin(static_cast<uint8_t>(i + 1));
  EXPECT(Run(bench, List(bench, {}, 99)).status() == ScsiStatus::kTaskSetFull);
  Flight& unnamed = begin(0, 3);
  bench.device.LetGo();
  bench.reactor.Turn();
  EXPECT_GOOD(first);
  EXPECT_GOOD(unnamed);
  EXPECT_EQ(At(bench.Run(CopyStatus(1)).data, 4), 0x01);
  // The oldest makes room.
  EXPECT_GOOD(Run(bench, List(bench, {}, 99)));
  EXPECT(bench.Run(CopyStatus(1)).Illegal(SenseCode::kInvalidFieldInCdb));
  EXPECT_GOOD(bench.Run(CopyStatus(2)));
}

TEST(scsi_extended_copy, an_aborted_copy_begins_no_further_piece) {
  Bench bench;
  const List list(bench, {{0, 10000, 8192}});
  Flight& flight = bench.Begin(bench.a, list.cdb(), {.out = list.bytes});
  const uint64_t before = bench.device.submitted;
  bench.unit->Abort(&flight.task);
  bench.reactor.Turn();
  EXPECT(flight.ended && flight.task.aborted);
  EXPECT_EQ(bench.device.submitted, before);
  EXPECT_EQ(At(bench.Run(CopyStatus(1)).data, 4), 0x02);
}

TEST(scsi_extended_copy, is_tried_again_only_while_nothing_was_written) {
  for (const bool at_write : {false, true}) {
    for (const int good_pieces : {0, 1}) {
      Bench bench;
      int pieces = 0;
      bench.device.fault = [&](const BlockRequest& request) {
        const bool write = request.operation == BlockOperation::kWrite;
        if (write == at_write && pieces++ == good_pieces) return ErrorCode::kUnavailable;
        return ErrorCode::kOk;
      };
      Flight& flight = Run(bench, List(bench, {{0, 4096, 2 * kScratchBytesMax / 512}}));
      if (!at_write && good_pieces == 0) {
        EXPECT(flight.ended && flight.status() == ScsiStatus::kBusy);
      } else {
        EXPECT(flight.Is(SenseKey::kCopyAborted, SenseCode::kThirdPartyDeviceFailure));
      }
      const Bytes status = bench.Run(CopyStatus(1)).data;
      EXPECT_EQ(At(status, 4), 0x02);
      EXPECT_EQ(LoadBig32(&status[8]), static_cast<uint32_t>(good_pieces) * kScratchBytesMax);
    }
  }
}

TEST(scsi_extended_copy, operating_parameters_are_what_is_kept_to) {
  Bench bench;
  Cdb cdb = MakeCdb({0x84, 0x03});
  cdb[13] = 255;
  const Bytes data = bench.Run(cdb).data;
  ASSERT(data.size() == 46);
  EXPECT_EQ(LoadBig32(&data[0]), 42u);
  EXPECT_EQ(LoadBig16(&data[8]), kCopyTargetsMax);
  EXPECT_EQ(LoadBig16(&data[10]), kCopySegmentsMax);
  EXPECT_EQ(LoadBig32(&data[12]), kCopyDescriptorBytesMax);
  EXPECT_EQ(LoadBig32(&data[16]), kCopySegmentBytesMax);
  EXPECT_EQ(LoadBig32(&data[20]), 0u);
  EXPECT_EQ(LoadBig16(&data[34]), kCopiesMax);
  EXPECT_EQ(At(data, 36), kCopiesMax);
  EXPECT_EQ(At(data, 37), 9);
  EXPECT_EQ(At(data, 43), 2);
  EXPECT_EQ(At(data, 44), 0x02);
  EXPECT_EQ(At(data, 45), 0xe4);
  cdb[13] = 4;
  EXPECT_EQ(bench.Run(cdb).data.size(), 4u);
}

}  // namespace
}  // namespace ankole::scsi
