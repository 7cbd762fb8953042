#include <set>

#include "scsi/logical_unit_testing.h"

namespace ankole::scsi {
namespace {

constexpr uint64_t kCapacity = 1000;

// What Decode says of a CDB: 0 if it can be carried out, else the sense code.
unsigned Verdict(const Cdb& cdb, uint64_t capacity = kCapacity) {
  Command command;
  const std::optional<Sense> refused = Decode(cdb, capacity, &command);
  if (!refused) return 0;
  EXPECT(refused->key == SenseKey::kIllegalRequest);
  return static_cast<unsigned>(refused->code);
}
constexpr unsigned kRange = 0x2100;
constexpr unsigned kField = 0x2400;
constexpr unsigned kUnknown = 0x2000;

TEST(scsi_command, verdicts_on_cdbs) {
  struct Row {
    const char* what;
    Cdb cdb;
    unsigned verdict;
  };
  const Row rows[] = {
      {"unknown", MakeCdb({0xff}), kUnknown},
      {"extended copy of nothing", MakeCdb({0x83}), 0},
      {"extended copy, the longest list",
       MakeCdb({0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x10}), 0},
      {"extended copy, too long", MakeCdb({0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x11}),
       0x1a00},
      {"extended copy with a long list identifier", MakeCdb({0x83, 0x01}), kField},
      {"receive copy results, copy status", MakeCdb({0x84, 0x00}), 0},
      {"receive copy results, receive data", MakeCdb({0x84, 0x01}), kField},
      {"receive copy results, operating parameters", MakeCdb({0x84, 0x03}), 0},
      {"receive copy results, failed segment details", MakeCdb({0x84, 0x04}), kField},
      {"unknown service action", MakeCdb({0x9e, 0x13}), kField},
      {"persistent reserve in, service action 4", MakeCdb({0x5e, 0x04}), kField},
      {"register and move", MakeCdb({0x5f, 0x07, 0, 0, 0, 0, 0, 0, 24}), kField},
      {"NACA", MakeCdb({0x00, 0, 0, 0, 0, 0x04}), kField},
      {"test unit ready", MakeCdb({0x00}), 0},
      {"read 6 at the end", MakeCdb({0x08, 0, 0x03, 0xe7, 1}), 0},
      {"read 6 beyond it", MakeCdb({0x08, 0, 0x03, 0xe7, 2}), kRange},
      {"read 6 of 256 blocks", MakeCdb({0x08, 0, 0, 0, 0}), 0},
      {"read 6 of 256 blocks beyond", MakeCdb({0x08, 0, 0x03, 0, 0}), kRange},
      {"read 6, all of its address", MakeCdb({0x08, 0x1f, 0xff, 0xff, 1}), kRange},
      {"read 10 at the end", Cdb10(0x28, 998, 2), 0},
      {"read 10 beyond it", Cdb10(0x28, 999, 2), kRange},
      {"read 10 of nothing", Cdb10(0x28, 0, 0), 0},
      {"read 10 of nothing beyond", Cdb10(0x28, 1000, 0), kRange},
      {"read 10 far beyond", Cdb10(0x28, 0xffffffff, 1), kRange},
      {"read 10 with protection", Cdb10(0x28, 0, 1, 0x20), kField},
      {"read 10 with all protection", Cdb10(0x28, 0, 1, 0xe0), kField},
      {"read 10, DPO and FUA", Cdb10(0x28, 0, 1, 0x18), 0},
      {"read 10, too long", Cdb10(0x28, 0, 16385), kField},
      {"write 10 with protection", Cdb10(0x2a, 0, 1, 0x20), kField},
      {"read 12 beyond", MakeCdb({0xa8, 0, 0, 0, 0x03, 0xe8, 0, 0, 0, 1}), kRange},
      {"read 12, too long", MakeCdb({0xa8, 0, 0, 0, 0, 0, 1, 0, 0, 0}), kField},
      {"read 16 that would wrap around", Cdb16(0x88, UINT64_MAX, 2), kRange},
      {"write 16 at the end", Cdb16(0x8a, 999, 1), 0},
      {"verify, BYTCHK 2", Cdb10(0x2f, 0, 1, 0x04), kField},
      {"verify, BYTCHK 3", Cdb10(0x2f, 0, 1, 0x06), 0},
      {"write and verify, BYTCHK 3", Cdb10(0x2e, 0, 1, 0x06), kField},
      {"write same of nothing", Cdb10(0x41, 0, 0), kField},
      {"write same of nothing beyond", Cdb10(0x41, 1001, 0), kRange},
      {"write same, ANCHOR", Cdb10(0x41, 0, 1, 0x10), kField},
      {"write same, UNMAP", Cdb10(0x41, 0, 1, 0x08), 0},
      {"write same, LBDATA", Cdb10(0x41, 0, 1, 0x02), kField},
      {"write same 16, NDOB", Cdb16(0x93, 0, 1, 0x01), 0},
      {"compare and write beyond", MakeCdb({0x89, 0, 0, 0, 0, 0, 0, 0, 0x03, 0xe7, 0, 0, 0, 2}),
       kRange},
      {"synchronize cache, all", Cdb10(0x35, 0, 0), 0},
      {"synchronize cache beyond", Cdb10(0x35, 1001, 0), kRange},
      {"pre-fetch beyond", Cdb10(0x34, 1000, 1), kRange},
      {"unmap, ANCHOR", MakeCdb({0x42, 0x01}), kField},
      {"get LBA status", Cdb16(0x9e, 999, 24, 0x12), 0},
      {"get LBA status beyond", Cdb16(0x9e, 1000, 24, 0x12), kRange},
      {"inquiry of a page without EVPD", MakeCdb({0x12, 0, 0x80, 0, 96}), kField},
      {"inquiry with CMDDT", MakeCdb({0x12, 0x02, 0, 0, 96}), kField},
      {"mode select without PF", MakeCdb({0x15, 0, 0, 0, 12}), kField},
      {"mode select, saving", MakeCdb({0x15, 0x11, 0, 0, 12}), kField},
      {"mode select, too long", MakeCdb({0x55, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff}), 0x1a00},
      {"stop", MakeCdb({0x1b, 0, 0, 0, 0}), 0},
      {"eject", MakeCdb({0x1b, 0, 0, 0, 2}), kField},
      {"a power condition", MakeCdb({0x1b, 0, 0, 0, 0x20}), kField},
      {"reserve for a third party", MakeCdb({0x16, 0x10}), kField},
      {"reserve an extent", MakeCdb({0x56, 0x01}), kField},
      {"report LUNs, select report 3", MakeCdb({0xa0, 0, 3, 0, 0, 0, 0, 0, 0, 16}), kField},
      {"report operation codes, option 4", MakeCdb({0xa3, 0x0c, 0x04, 0, 0, 0, 0, 0, 1, 0}),
       kField},
      {"persistent reserve out, short", MakeCdb({0x5f, 0, 0, 0, 0, 0, 0, 0, 23}), 0x1a00},
  };
  for (const Row& row : rows) {
    const unsigned verdict = Verdict(row.cdb);
    if (verdict != row.verdict) {
      test::Fail(__FILE__, __LINE__, std::string(row.what) + ": " + std::to_string(verdict));
    }
  }
}

TEST(scsi_command, a_refused_field_is_pointed_at) {
  Command command;
  const std::optional<Sense> refused = Decode(Cdb10(0x28, 0, 1, 0x20), kCapacity, &command);
  ASSERT(refused && refused->field);
  EXPECT(refused->field->in_cdb);
  EXPECT_EQ(refused->field->byte, 1);
  EXPECT_EQ(refused->field->bit, 7);
}

// Every bit of the usage data is looked at: set all of them, and the command is refused or its
// Command has changed. And no bit beside them does anything.
TEST(scsi_command, usage_data_is_what_decode_looks_at) {
  constexpr uint64_t kLarge = UINT64_MAX / 4;
  for (const Supported& supported : SupportedCommands()) {
    Cdb plain = {};
    plain[0] = supported.operation;
    plain[1] = supported.service_action;
    if (supported.kind == Kind::kWriteSame) plain[supported.cdb_bytes == 10 ? 8 : 13] = 1;
    if (supported.kind == Kind::kModeSelect) plain[1] = 0x10;
    if (supported.kind == Kind::kLogSense) plain[2] = 0x40;
    if (supported.kind == Kind::kPersistentOut) plain[8] = 24;
    Command before;
    ASSERT(!Decode(plain, kLarge, &before));
    for (size_t byte = 1; byte < supported.cdb_bytes; ++byte) {
      for (uint8_t bit = 0; bit < 8; ++bit) {
        if (byte == 1 && supported.has_service_action && bit < 5) continue;
        Cdb cdb = plain;
        cdb[byte] ^= static_cast<uint8_t>(1u << bit);
        Command after;
        const bool refused = Decode(cdb, kLarge, &after).has_value();
        const bool changed = refused || std::memcmp(&after, &before, sizeof(after)) != 0;
        const bool used = (supported.usage[byte] >> bit & 1) != 0;
        if (changed && !used) {
          test::Fail(__FILE__, __LINE__,
                     "operation " + std::to_string(supported.operation) + " looks at bit " +
                         std::to_string(bit) + " of byte " + std::to_string(byte));
        }
      }
    }
  }
}

TEST(scsi_command, needs_stay_within_their_bounds) {
  Command command;
  ASSERT(!Decode(Cdb16(0x88, 0, kTransferBlocksMax), 1'000'000, &command));
  EXPECT_EQ(NeedsOf(command).in_bytes, kTransferBytesMax);
  ASSERT(!Decode(Cdb16(0x8f, 0, 1'000'000), 1'000'000, &command));
  EXPECT_EQ(NeedsOf(command).out_bytes, 0u);
  EXPECT_EQ(NeedsOf(command).scratch_bytes, kScratchBytesMax);
  ASSERT(!Decode(MakeCdb({0xa3, 0x0c, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}), 1000, &command));
  EXPECT_EQ(NeedsOf(command).in_bytes, kResponseBytesMax);
}

TEST(scsi_sense, fixed_format) {
  Sense sense = InvalidFieldInCdb(1, 7);
  std::byte bytes[kSenseBytesMax];
  ASSERT(EncodeSense(sense, bytes) == 18);
  const uint8_t expected[18] = {0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcf, 0, 1};
  EXPECT(std::memcmp(bytes, expected, sizeof(expected)) == 0);
  sense = {SenseKey::kMiscompare, SenseCode::kMiscompareDuringVerify, {}, {}, 0x12345};
  ASSERT(EncodeSense(sense, bytes) == 18);
  const uint8_t miscompare[18] = {0xf0, 0, 0x0e, 0, 1, 0x23, 0x45, 10, 0, 0, 0, 0, 0x1d};
  EXPECT(std::memcmp(bytes, miscompare, sizeof(miscompare)) == 0);
}

TEST(scsi_sense, descriptor_format) {
  Sense sense = InvalidFieldInParameterList(300, 2);
  sense.descriptor = true;
  sense.information = 0x1122334455667788;
  std::byte bytes[kSenseBytesMax];
  ASSERT(EncodeSense(sense, bytes) == 28);
  const uint8_t expected[28] = {0x72, 5, 0x26, 0,    0,    0,    0,    20,   0,    0x0a,
                                0x80, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
                                2,    6, 0,    0,    0x8a, 1,    0x2c, 0};
  EXPECT(std::memcmp(bytes, expected, sizeof(expected)) == 0);
}

}  // namespace
}  // namespace ankole::scsi
