#include "wire/frame.h"

#include <cstring>
#include <random>
#include <vector>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/test.h"

namespace ankole::wire {
namespace {

Header AWrite(uint64_t offset, uint32_t length) {
  Header header;
  header.opcode = Opcode::kWrite;
  header.flags = kFlagForceUnitAccess;
  header.tag = 0x1122334455667788;
  header.slot = 17;
  header.offset_bytes = offset;
  header.length_bytes = length;
  header.complete_tag = 9;
  header.payload_bytes = header.table_bytes() + length;
  header.payload_crc32c = 0xaabbccdd;
  return header;
}

Result<Header> Decode(const EncodedHeader& bytes) {
  return DecodeHeader(std::span<const std::byte, kHeaderBytes>(bytes));
}

// The header with one field changed and its checksum put right.
template <typename T>
Result<Header> DecodeWith(const Header& header, size_t at, T value) {
  EncodedHeader bytes;
  EncodeHeader(header, bytes);
  StoreLittle(bytes + at, value);
  StoreLittle(bytes + kHeaderCrcAt, Crc32c(bytes, kHeaderCrcAt));
  return Decode(bytes);
}

TEST(wire_frame, HeaderRoundTrips) {
  const Header header = AWrite(512, 8192);
  EncodedHeader bytes;
  EncodeHeader(header, bytes);
  const Result<Header> again = Decode(bytes);
  ASSERT_OK(again);
  EXPECT(again.value().opcode == Opcode::kWrite && !again.value().reply);
  EXPECT_EQ(again.value().flags, header.flags);
  EXPECT_EQ(again.value().tag, header.tag);
  EXPECT_EQ(again.value().slot, header.slot);
  EXPECT_EQ(again.value().offset_bytes, header.offset_bytes);
  EXPECT_EQ(again.value().length_bytes, header.length_bytes);
  EXPECT_EQ(again.value().complete_tag, header.complete_tag);
  EXPECT_EQ(again.value().payload_bytes, header.payload_bytes);
  EXPECT_EQ(again.value().payload_crc32c, header.payload_crc32c);
  EXPECT_EQ(again.value().table_bytes(), 12U);  // 8 KiB from 512 on touches three blocks
}

// The bytes of docs/internals/wire-protocol.md, «Example».
TEST(wire_frame, HeaderHasTheDocumentedBytes) {
  EncodedHeader bytes;
  EncodeHeader(AWrite(512, 8192), bytes);
  static constexpr uint8_t kExpected[60] = {
      0x31, 0x41, 0x4e, 0x4b, 1,    7,    1,    0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22,
      0x11, 0,    2,    0,    0,    0,    0,    0, 0,    0,    0x20, 0,    0,    0,    0,
      0,    0,    9,    0,    0,    0,    0,    0, 0,    0,    17,   0,    0,    0,    0x0c,
      0x20, 0,    0,    0xdd, 0xcc, 0xbb, 0xaa, 0, 0,    0,    0,    0,    0,    0,    0};
  EXPECT_EQ(std::memcmp(bytes, kExpected, sizeof(kExpected)), 0);
  EXPECT_EQ(LoadLittle<uint32_t>(bytes + kHeaderCrcAt), Crc32c(kExpected, sizeof(kExpected)));
}

TEST(wire_frame, EveryFlippedBitIsSeen) {
  EncodedHeader bytes;
  EncodeHeader(AWrite(0, 4096), bytes);
  for (size_t bit = 0; bit < kHeaderBytes * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT(!Decode(bytes).ok());
    bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
  }
  EXPECT(Decode(bytes).ok());
}

TEST(wire_frame, RefusesWhatItsRulesForbid) {
  const Header write = AWrite(0, 4096);
  EXPECT(DecodeWith(write, kTagAt, uint64_t{5}).ok());
  EXPECT(!DecodeWith(write, kMagicAt, kMagic + 1).ok());
  EXPECT(!DecodeWith(write, kVersionAt, uint8_t{2}).ok());
  for (const int opcode : {0, 14, 0x7f, 0x80, 0x8e, 0xff}) {
    EXPECT(!DecodeWith(write, kOpcodeAt, static_cast<uint8_t>(opcode)).ok());
  }
  EXPECT(!DecodeWith(write, kFlagsAt, kFlagKeepAllocated).ok());
  EXPECT(!DecodeWith(write, kFlagsAt, uint16_t{0x8000}).ok());
  EXPECT(!DecodeWith(write, kStatusAt, uint16_t{6}).ok());    // a request with a status
  EXPECT(!DecodeWith(write, kStatusAt, uint16_t{999}).ok());  // one that is none
  EXPECT(!DecodeWith(write, kViewAt, uint16_t{1}).ok());
  EXPECT(!DecodeWith(write, kSharedOffsetAt, uint64_t{1}).ok());
  EXPECT(!DecodeWith(write, kOffsetAt, uint64_t{100}).ok());
  EXPECT(!DecodeWith(write, kOffsetAt, kVolumeBytesMax + 512).ok());
  EXPECT(!DecodeWith(write, kLengthAt, uint32_t{0}).ok());
  EXPECT(!DecodeWith(write, kLengthAt, uint32_t{4000}).ok());
  EXPECT(!DecodeWith(write, kLengthAt, kDataBytesMax + 512).ok());
  EXPECT(!DecodeWith(write, kPayloadBytesAt, write.payload_bytes + 1).ok());
  EXPECT(!DecodeWith(write, kPayloadBytesAt, UINT32_MAX).ok());

  Header unmap;
  unmap.opcode = Opcode::kUnmap;
  unmap.length_bytes = 0xfffffe00;  // 4 GiB less a sector
  EncodedHeader bytes;
  EncodeHeader(unmap, bytes);
  EXPECT(Decode(bytes).ok());
  EXPECT(!DecodeWith(unmap, kPayloadBytesAt, uint32_t{1}).ok());

  Header flush;
  flush.opcode = Opcode::kFlush;
  EXPECT(!DecodeWith(flush, kLengthAt, uint32_t{512}).ok());
  EXPECT(!DecodeWith(flush, kFlagsAt, kFlagForceUnitAccess).ok());

  Header store;
  store.opcode = Opcode::kStoreState;
  store.length_bytes = kTargetStateBytes;
  store.payload_bytes = store.table_bytes() + kTargetStateBytes;
  EXPECT(DecodeWith(store, kTagAt, uint64_t{5}).ok());
  EXPECT(!DecodeWith(store, kOffsetAt, uint64_t{512}).ok());
  EXPECT(!DecodeWith(store, kLengthAt, uint32_t{512}).ok());
  EXPECT(!DecodeWith(store, kFlagsAt, kFlagForceUnitAccess).ok());
  Header load;
  load.opcode = Opcode::kLoadState;
  load.length_bytes = kTargetStateBytes;
  EXPECT(DecodeWith(load, kTagAt, uint64_t{5}).ok());
  EXPECT(!DecodeWith(load, kLengthAt, kTargetStateBytes + 512).ok());
  EXPECT(!DecodeWith(load, kPayloadBytesAt, uint32_t{4}).ok());

  Header clean;
  clean.opcode = Opcode::kClean;
  clean.offset_bytes = kVolumeBytesMax - kRegionBytes;
  clean.length_bytes = 0xffc00000;  // 4 GiB less a region; may reach beyond the volume
  EXPECT(DecodeWith(clean, kPayloadBytesAt, uint32_t{24}).ok());
  EXPECT(!DecodeWith(clean, kOffsetAt, kRegionBytes / 2).ok());
  EXPECT(!DecodeWith(clean, kLengthAt, static_cast<uint32_t>(kRegionBytes) + 4096).ok());
  Header bad;
  bad.opcode = Opcode::kBad;
  bad.length_bytes = 8192;
  EXPECT(DecodeWith(bad, kOffsetAt, uint64_t{4096}).ok());
  EXPECT(!DecodeWith(bad, kOffsetAt, uint64_t{512}).ok());
  EXPECT(!DecodeWith(bad, kLengthAt, kDataBytesMax + 4096).ok());
  Header expand;
  expand.opcode = Opcode::kExpand;
  EXPECT(DecodeWith(expand, kPayloadBytesAt, uint32_t{8}).ok());
  EXPECT(!DecodeWith(expand, kOffsetAt, uint64_t{4096}).ok());
  EXPECT(!DecodeWith(expand, kPayloadBytesAt, kControlPayloadBytesMax + 1).ok());
  EXPECT(!DecodeWith(expand, kFlagsAt, kFlagForceUnitAccess).ok());
  Header sum;
  sum.opcode = Opcode::kSum;
  sum.length_bytes = kDataBytesMax;
  EXPECT(DecodeWith(sum, kOffsetAt, uint64_t{4096}).ok());
  EXPECT(!DecodeWith(sum, kOffsetAt, uint64_t{512}).ok());
  EXPECT(DecodeWith(sum, kLengthAt, uint32_t{512}).ok());
  EXPECT(!DecodeWith(sum, kLengthAt, kDataBytesMax + 512).ok());
  EXPECT(!DecodeWith(sum, kPayloadBytesAt, uint32_t{1}).ok());
  for (const Opcode opcode : {Opcode::kMark, Opcode::kMap, Opcode::kMissing}) {
    Header about;
    about.opcode = opcode;
    EXPECT(DecodeWith(about, kPayloadBytesAt, kControlPayloadBytesMax).ok());
    EXPECT(!DecodeWith(about, kLengthAt, uint32_t{512}).ok());
    EXPECT(!DecodeWith(about, kFlagsAt, kFlagResynced).ok());
  }

  Header read;
  read.opcode = Opcode::kRead;
  read.length_bytes = 4096;
  for (const Header& moves : {read, write, sum}) {
    EXPECT(DecodeWith(moves, kFlagsAt, kFlagDisablePageOut).ok());
  }
  EXPECT(!DecodeWith(unmap, kFlagsAt, kFlagDisablePageOut).ok());
  EXPECT(!DecodeWith(flush, kFlagsAt, kFlagDisablePageOut).ok());

  // The payloads about layers have bounds of their own.
  const struct {
    Opcode opcode;
    uint32_t bytes;
  } about_layers[] = {{Opcode::kLayers, 8},    {Opcode::kPrepare, 80 + 4096}, {Opcode::kSwitch, 64},
                      {Opcode::kSeal, 64},     {Opcode::kDelete, 64},         {Opcode::kView, 128},
                      {Opcode::kCloseView, 8}, {Opcode::kChanged, 136}};
  for (const auto& [opcode, payload] : about_layers) {
    Header about;
    about.opcode = opcode;
    EXPECT(DecodeWith(about, kPayloadBytesAt, payload).ok());
    EXPECT(!DecodeWith(about, kPayloadBytesAt, payload + 1).ok());
    EXPECT(!DecodeWith(about, kLengthAt, uint32_t{512}).ok());
    EXPECT(!DecodeWith(about, kFlagsAt, kFlagForceUnitAccess).ok());
    EXPECT(!DecodeWith(about, kViewAt, uint16_t{1}).ok());
  }

  Header record;
  record.opcode = Opcode::kRecord;
  EXPECT(DecodeWith(record, kFlagsAt, kFlagResynced).ok());
  EXPECT(!DecodeWith(write, kFlagsAt, kFlagResynced).ok());
  EXPECT(DecodeWith(record, kPayloadBytesAt, kControlPayloadBytesMax).ok());
  EXPECT(!DecodeWith(record, kPayloadBytesAt, kControlPayloadBytesMax + 1).ok());
}

TEST(wire_frame, RepliesCarryDataOrAnErrorsText) {
  Header reply;
  reply.opcode = Opcode::kRead;
  reply.reply = true;
  reply.length_bytes = 4096;
  reply.payload_bytes = 4100;
  EncodedHeader bytes;
  EncodeHeader(reply, bytes);
  const Result<Header> decoded = Decode(bytes);
  ASSERT_OK(decoded);
  EXPECT(decoded.value().reply && decoded.value().carries_data());
  EXPECT(!DecodeWith(reply, kFlagsAt, kFlagForceUnitAccess).ok());
  // With a status it is a text, bounded as control payloads are.
  EXPECT(DecodeWith(reply, kStatusAt, uint16_t{6}).ok());
  reply.status = ErrorCode::kIoError;
  EXPECT_EQ(reply.table_bytes(), 0U);
  EXPECT(!DecodeWith(reply, kPayloadBytesAt, kControlPayloadBytesMax + 1).ok());
}

TEST(wire_frame, ReadsSumsAndStatusMayBeOfAView) {
  for (const Opcode opcode : {Opcode::kRead, Opcode::kSum, Opcode::kStatus}) {
    Header header;
    header.opcode = opcode;
    header.length_bytes = 4096;
    header.view = 0x1234;
    EncodedHeader bytes;
    EncodeHeader(header, bytes);
    EXPECT_EQ(LoadLittle<uint16_t>(bytes + 30), 0x1234U);
    const Result<Header> again = Decode(bytes);
    ASSERT_OK(again);
    EXPECT_EQ(again.value().view, 0x1234U);
    header.view = 0;
    header.reply = true;
    header.status = ErrorCode::kIoError;
    EXPECT(DecodeWith(header, kTagAt, uint64_t{5}).ok());
    EXPECT(!DecodeWith(header, kViewAt, uint16_t{1}).ok());
  }
  Header flush;
  flush.opcode = Opcode::kFlush;
  EXPECT(!DecodeWith(flush, kViewAt, uint16_t{1}).ok());
  // Through shared memory a read is the same.
  Header read;
  read.opcode = Opcode::kRead;
  read.length_bytes = 4096;
  read.view = 7;
  read.shared = true;
  EncodedHeader entry;
  EncodeHeader(read, entry);
  const Result<Header> decoded =
      DecodeSharedHeader(std::span<const std::byte, kHeaderBytes>(entry));
  ASSERT_OK(decoded);
  EXPECT_EQ(decoded.value().view, 7U);
}

TEST(wire_frame, AnyAcceptedHeaderRoundTrips) {
  std::mt19937_64 random(test::Seed());
  size_t accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    EncodedHeader bytes;
    EncodeHeader(AWrite(0, 4096), bytes);
    for (int changes = 0; changes < 2; ++changes) {
      bytes[4 + random() % 48] = static_cast<std::byte>(random());
    }
    StoreLittle(bytes + kHeaderCrcAt, Crc32c(bytes, kHeaderCrcAt));
    const Result<Header> header = Decode(bytes);
    if (!header.ok()) continue;
    ++accepted;
    EncodedHeader again;
    EncodeHeader(header.value(), again);
    EXPECT_EQ(std::memcmp(bytes, again, kHeaderBytes), 0);
  }
  EXPECT(accepted > 100);
}

TEST(wire_frame, DataMatchesItsTableOnly) {
  std::vector<std::byte> data(10'240);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 31);
  Header header = AWrite(512 * 3, 10'240);
  std::vector<std::byte> table(1 + header.table_bytes());  // not aligned
  std::vector<uint32_t> checksums(header.table_bytes() / 4);
  Crc32cBlocks(data.data(), header.offset_bytes, header.length_bytes, checksums.data());
  std::memcpy(table.data() + 1, checksums.data(), header.table_bytes());
  header.payload_crc32c = Crc32c(table.data() + 1, header.table_bytes());
  EXPECT(PayloadMatches(header, table.data() + 1));
  EXPECT(DataMatches(header, table.data() + 1, data.data()));
  for (const size_t at : {size_t{0}, size_t{2559}, size_t{2560}, data.size() - 1}) {
    data[at] ^= std::byte{0x10};
    EXPECT(!DataMatches(header, table.data() + 1, data.data()));
    data[at] ^= std::byte{0x10};
  }
  table[3] ^= std::byte{1};
  EXPECT(!PayloadMatches(header, table.data() + 1));
}

}  // namespace
}  // namespace ankole::wire
