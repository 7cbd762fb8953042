#include "wire/record.h"

#include <random>
#include <utility>

#include "base/bytes.h"
#include "base/test.h"

namespace ankole::wire {
namespace {

Record ARecord() {
  Record record;
  record.epoch = {3, 2};
  record.generation = 9;
  for (const ReplicaId id : {7ULL, 5ULL, 6ULL}) record.members.Add(id);
  record.newest_snapshot = "daily-1";
  return record;
}

// A loop over what all() gives of a temporary would outlive it: that does not compile.
template <typename T>
concept LendsWhatItHas = requires(T members) {
  members.all();
};
template <typename T>
concept LendsAsATemporary = requires(T members) {
  std::move(members).all();
};
static_assert(LendsWhatItHas<Members> && LendsWhatItHas<const Members>);
static_assert(!LendsAsATemporary<Members> && !LendsAsATemporary<const Members>);

TEST(record, RoundTrips) {
  const RecordPair pair = {ARecord(), Record{}};
  std::array<std::byte, kEncodedRecordPairBytes> bytes;
  EncodeRecordPair(pair, bytes);
  const Result<RecordPair> again = DecodeRecordPair(bytes);
  ASSERT_OK(again);
  EXPECT(again.value() == pair);
  EXPECT_EQ(Describe(pair.current),
            "epoch 3.2 generation 9 members [0000000000000005, 0000000000000006, "
            "0000000000000007]");
}

TEST(record, IsOrderedByEpochThenGeneration) {
  Record a = ARecord();
  Record b = ARecord();
  EXPECT(!Newer(a, b) && !Newer(b, a));
  b.generation = 10;
  EXPECT(Newer(b, a));
  a.epoch.run = 3;
  EXPECT(Newer(a, b));
  b.epoch = {4, 1};
  EXPECT(Newer(b, a));
}

TEST(record, RefusesBytesThatAreNone) {
  std::array<std::byte, kEncodedRecordBytes> good;
  EncodeRecord(ARecord(), good);
  const auto refuses = [&](size_t at, uint8_t value) {
    auto bytes = good;
    bytes[at] = std::byte{value};
    return !DecodeRecord(bytes).ok();
  };
  EXPECT(refuses(24, kReplicasMax + 1));
  EXPECT(refuses(25, kSnapshotNameBytesMax + 1));
  EXPECT(refuses(32, 6));    // twice the same member
  EXPECT(refuses(40, 4));    // not ascending
  EXPECT(refuses(96, '/'));  // a path
  EXPECT(refuses(97, 0));
}

TEST(record, AnyBytesDecodeToTheSameBytesOrNotAtAll) {
  std::mt19937_64 random(test::Seed());
  for (int i = 0; i < 2000; ++i) {
    std::array<std::byte, kEncodedRecordBytes> bytes;
    EncodeRecord(ARecord(), bytes);
    for (int flips = 0; flips < 3; ++flips) {
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    }
    const Result<Record> record = DecodeRecord(bytes);
    if (!record.ok()) continue;
    std::array<std::byte, kEncodedRecordBytes> again;
    EncodeRecord(record.value(), again);
    EXPECT(DecodeRecord(again).value() == record.value());
  }
}

TEST(record, ReplicaIdsAreSixteenHexDigits) {
  EXPECT_EQ(ParseReplicaId("00000000000000ff").Take(), 255U);
  EXPECT_EQ(ReplicaIdText(255), "00000000000000ff");
  for (const char* text : {"", "ff", "00000000000000FF", "0000000000000000", "00000000000000ff0"}) {
    EXPECT(!ParseReplicaId(text).ok());
  }
}

}  // namespace
}  // namespace ankole::wire
