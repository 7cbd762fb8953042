#include <fstream>

#include "base/crc32c.h"
#include "replica/session.h"
#include "replica/session_testing.h"
#include "wire/regions.h"

// What is said about regions over a connection (rules 5 and 7).
namespace ankole::replica {
namespace {

using testing::ARecord;
using testing::Client;
using testing::kEpoch;
using testing::kId;
using testing::Opcode;
using testing::Pattern;
using testing::ReceivedFrame;
using testing::RunningHost;

std::vector<wire::RegionRun> RunsOf(const ReceivedFrame& answer) {
  EXPECT(answer.status() == ErrorCode::kOk);
  const Result<wire::RegionRuns> runs = wire::RegionRuns::Decode(answer.payload);
  EXPECT(runs.ok());
  return runs.ok() ? runs.value().ToVector() : std::vector<wire::RegionRun>{};
}

ErrorCode MarkRegions(Client& engine, const std::vector<wire::RegionRun>& runs) {
  std::byte bytes[kControlPayloadBytesMax];
  const size_t size = wire::EncodeRegionRuns(runs, bytes);
  return engine.Call(Client::Of(Opcode::kMark), bytes, size).status();
}

ReceivedFrame MapOf(Client& engine, wire::ReplicaId id, uint32_t first = 0) {
  const auto request = wire::EncodeMapRequest({id, first});
  return engine.Call(Client::Of(Opcode::kMap), request.data(), request.size());
}

ErrorCode SendRecord(Client& engine, const wire::RecordPair& pair, uint16_t flags = 0) {
  std::array<std::byte, wire::kEncodedRecordPairBytes> bytes;
  wire::EncodeRecordPair(pair, bytes);
  return engine.Call(Client::Of(Opcode::kRecord, 0, 0, flags), bytes.data(), bytes.size()).status();
}

ErrorCode CleanRegions(Client& engine, uint32_t first, const wire::Record& under,
                       uint32_t length = kRegionBytes) {
  std::byte bytes[wire::kCleanBytesMax];
  wire::CleanRequest request;
  request.epoch = under.epoch;
  request.generation = under.generation;
  const size_t size = wire::EncodeClean(request, bytes);
  return engine.Call(Client::Of(Opcode::kClean, first * kRegionBytes, length), bytes, size)
      .status();
}

// Negative: not known.
int RecentOf(Client& engine, std::vector<wire::RegionRun>* runs) {
  const ReceivedFrame answer = engine.Call(Client::Of(Opcode::kRecent));
  EXPECT(answer.status() == ErrorCode::kOk);
  const Result<wire::Recent> recent = wire::DecodeRecent(answer.payload);
  EXPECT(recent.ok());
  if (!recent.ok() || !recent.value().known) return -1;
  *runs = recent.value().runs.ToVector();
  return static_cast<int>(runs->size());
}

ErrorCode WriteTagged(Client& engine, uint32_t region, uint64_t complete_tag) {
  const std::vector<std::byte> data = Pattern(4096, region);
  wire::Header header = Client::Of(Opcode::kWrite, region * kRegionBytes, 4096);
  header.complete_tag = complete_tag;
  return engine.Call(header, data.data(), data.size()).status();
}

TEST(session, MapsAreMarkedAskedForAndCleaned) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  EXPECT(engine.Inquire().value().fresh);
  wire::RecordPair pair = ARecord(kEpoch, 1);
  pair.current.members.Add(0x2222);
  pair.complete = pair.current;
  EXPECT(SendRecord(engine, pair) == ErrorCode::kOk);
  EXPECT(engine.Write(2 * kRegionBytes - 4096, Pattern(8192, 1)) == ErrorCode::kOk);
  EXPECT(MarkRegions(engine, {{5, 2}, {15, 1}}) == ErrorCode::kOk);
  EXPECT(MarkRegions(engine, {{15, 2}}) == ErrorCode::kOutOfRange);
  using Runs = std::vector<wire::RegionRun>;
  EXPECT(RunsOf(MapOf(engine, 0)) == (Runs{{1, 2}, {5, 2}, {15, 1}}));
  EXPECT(RunsOf(MapOf(engine, 0, 6)) == (Runs{{6, 1}, {15, 1}}));
  EXPECT(MapOf(engine, 0x2222).status() == ErrorCode::kNotFound);
  EXPECT(engine.Inquire().value().unclean && !engine.Inquire().value().fresh);

  wire::RecordPair alone = ARecord(kEpoch, 2);
  alone.complete = pair.current;
  EXPECT(SendRecord(engine, alone) == ErrorCode::kOk);
  EXPECT(RunsOf(MapOf(engine, 0x2222)) == (Runs{{1, 2}, {5, 2}, {15, 1}}));
  EXPECT(CleanRegions(engine, 5, pair.current) == ErrorCode::kInvalidArgument);
  EXPECT(CleanRegions(engine, 5, alone.current, 0xffc00000) == ErrorCode::kOk);  // beyond the end
  EXPECT(RunsOf(MapOf(engine, 0)) == (Runs{{1, 2}}));
  EXPECT(RunsOf(MapOf(engine, 0x2222)) == (Runs{{1, 2}, {5, 2}, {15, 1}}));
  EXPECT(engine.Inquire().value().records.complete == alone.current);

  std::byte bytes[wire::kMissingBytesMax];
  wire::MissingRequest missing;
  missing.id = 0x3333;
  missing.record = pair.current;
  const size_t size = wire::EncodeMissing(missing, Runs{{9, 1}}, bytes);
  EXPECT(engine.Call(Client::Of(Opcode::kMissing), bytes, size).status() == ErrorCode::kOk);
  const ReceivedFrame answer = engine.Call(Client::Of(Opcode::kMaps));
  const Result<wire::RegionMaps> maps = wire::DecodeRegionMaps(answer.payload);
  ASSERT_OK(maps);
  EXPECT_EQ(maps.value().dirty_regions, 2U);
  ASSERT(maps.value().count == 2);
  EXPECT(maps.value().slots[0] == (wire::MissingSlot{0x2222, pair.current}));
  EXPECT(maps.value().slots[1] == (wire::MissingSlot{0x3333, pair.current}));
  EXPECT(RunsOf(MapOf(engine, 0x3333)) == (Runs{{1, 2}, {9, 1}}));

  // In the counters too.
  const Json counters = host.Request(Json::Object().Set("op", "counters"));
  const Json* replicas = counters.Find("result")->Find("replicas");
  ASSERT(replicas != nullptr && replicas->items().size() == 1);
  const Json* regions = replicas->items()[0].Find("regions");
  ASSERT(regions != nullptr);
  EXPECT_EQ(regions->Find("dirty")->Write(), "2");
  EXPECT_EQ(regions->Find("missing")->Write(),
            "[{\"replica\":\"0000000000002222\",\"regions\":5},"
            "{\"replica\":\"0000000000003333\",\"regions\":3}]");
}

TEST(session, WhatWasNotCompleteIsToldToTheNextEngine) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  std::vector<wire::RegionRun> runs;
  using Runs = std::vector<wire::RegionRun>;
  {
    Client engine(host.socket_path());
    EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
    EXPECT(engine.Inquire().value().recent_known);
    EXPECT_EQ(RecentOf(engine, &runs), 0);
    EXPECT(SendRecord(engine, ARecord(kEpoch, 1)) == ErrorCode::kOk);
    EXPECT(WriteTagged(engine, 1, 0) == ErrorCode::kOk);
    EXPECT(WriteTagged(engine, 2, 0) == ErrorCode::kOk);
    EXPECT_EQ(RecentOf(engine, &runs), 1);
    // Tags are counted up by each request: all before this write are complete.
    wire::Header last = Client::Of(Opcode::kWrite, 7 * kRegionBytes, 4096);
    const std::vector<std::byte> data = Pattern(4096, 7);
    const uint64_t tag = engine.Send(Client::Of(Opcode::kPing));
    EXPECT(engine.Receive().has_value());
    last.complete_tag = tag;
    EXPECT(engine.Call(last, data.data(), data.size()).status() == ErrorCode::kOk);
    engine.Disconnect();
  }
  {
    Client engine(host.socket_path());
    EXPECT(engine.Join(kId, {3, 2}) == ErrorCode::kOk);
    EXPECT_EQ(RecentOf(engine, &runs), 1);
    EXPECT(runs == (Runs{{7, 1}}));
    // It ends before it made that equal.
    EXPECT(WriteTagged(engine, 4, 0) == ErrorCode::kOk);
    engine.Disconnect();
  }
  {
    Client engine(host.socket_path());
    EXPECT(engine.Join(kId, {3, 3}) == ErrorCode::kOk);
    EXPECT_EQ(RecentOf(engine, &runs), 2);
    EXPECT(runs == (Runs{{4, 1}, {7, 1}}));
    const wire::RecordPair record = ARecord({3, 3}, 2);
    EXPECT(SendRecord(engine, record) == ErrorCode::kOk);
    EXPECT(CleanRegions(engine, 7, record.current) == ErrorCode::kOk);
    EXPECT_EQ(RecentOf(engine, &runs), 1);
    EXPECT(runs == (Runs{{4, 1}}));
    // A second connection of the same engine goes on.
    Client again(host.socket_path());
    EXPECT(again.Join(kId, {3, 3}) == ErrorCode::kOk);
    EXPECT_EQ(RecentOf(again, &runs), 1);
    EXPECT(again.Call(Client::Of(Opcode::kClose)).status() == ErrorCode::kOk);
    EXPECT(again.Call(Client::Of(Opcode::kWelcome)).status() == ErrorCode::kOk);
    EXPECT_EQ(RecentOf(again, &runs), 0);
  }
}

TEST(session, ASuspectReplicaTakesWritesAndIsGoodWhenItWasMadeEqual) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  const std::string replica = host.directory() + "/replicas/demo-0000000000001111";
  std::ofstream(replica + "/failed") << "a sync failed";
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  EXPECT(engine.Inquire().value().suspect && !engine.Inquire().value().fresh);
  EXPECT(engine.Write(0, Pattern(4096, 1)) == ErrorCode::kOk);
  EXPECT(engine.Call(Client::Of(Opcode::kFlush)).status() == ErrorCode::kOk);
  EXPECT(SendRecord(engine, ARecord(kEpoch, 1)) == ErrorCode::kOk);
  EXPECT(engine.Inquire().value().suspect);
  EXPECT(SendRecord(engine, ARecord(kEpoch, 2), wire::kFlagResynced) == ErrorCode::kOk);
  EXPECT(!engine.Inquire().value().suspect);
  EXPECT(!std::ifstream(replica + "/failed").good());
  EXPECT(engine.Call(Client::Of(Opcode::kClose)).status() == ErrorCode::kOk);
}

TEST(session, SumsAreThoseOfTheBlocks) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  const std::vector<std::byte> data = Pattern(8192, 5);
  EXPECT(engine.Write(kRegionBytes + 4096, data) == ErrorCode::kOk);
  for (const uint32_t length : {uint32_t{16'384}, kDataBytesMax}) {
    const ReceivedFrame answer = engine.Call(Client::Of(Opcode::kSum, kRegionBytes, length));
    EXPECT(answer.status() == ErrorCode::kOk);
    const Result<wire::Sums> sums = wire::Sums::Decode(answer.payload, length);
    ASSERT_OK(sums);
    EXPECT(sums.value().hole(0) && !sums.value().hole(1) && !sums.value().hole(2));
    EXPECT(sums.value().hole(3) && sums.value().hole(sums.value().blocks() - 1));
    EXPECT_EQ(sums.value().crc32c(1), Crc32c(data.data(), 4096));
    EXPECT_EQ(sums.value().crc32c(2), Crc32c(data.data() + 4096, 4096));
    EXPECT_EQ(sums.value().crc32c(0), sums.value().crc32c(3));
  }
  EXPECT(engine.Call(Client::Of(Opcode::kSum, 64 * kMiB, 4096)).status() == ErrorCode::kOutOfRange);
}

TEST(session, TheVolumeBecomesLarger) {
  const std::string directory = test::TemporaryDirectory();
  const auto expand = [](Client& engine, uint64_t size_bytes) {
    const wire::ExpandBytes bytes = wire::EncodeExpand(size_bytes);
    return engine.Call(Client::Of(Opcode::kExpand), bytes.data(), bytes.size());
  };
  {
    RunningHost host(directory);
    host.WaitForEvent("listening");
    host.CreateReplica(kId);
    Client engine(host.socket_path());
    EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
    EXPECT(engine.Write(64 * kMiB, Pattern(4096, 1)) == ErrorCode::kOutOfRange);
    EXPECT(expand(engine, 128 * kMiB).status() == ErrorCode::kOk);
    EXPECT_EQ(engine.Inquire().value().size_bytes, 128 * kMiB);
    EXPECT(engine.Write(64 * kMiB - 4096, Pattern(8192, 1)) == ErrorCode::kOk);
    EXPECT(MarkRegions(engine, {{31, 1}}) == ErrorCode::kOk);
    EXPECT(MarkRegions(engine, {{32, 1}}) == ErrorCode::kOutOfRange);
    // What it has already, and what no volume can have.
    EXPECT(expand(engine, 64 * kMiB).status() == ErrorCode::kOk);
    for (const uint64_t wrong : {uint64_t{0}, 128 * kMiB + 1, kVolumeBytesMax + 512}) {
      const ReceivedFrame answer = expand(engine, wrong);
      EXPECT(answer.status() == ErrorCode::kInvalidArgument);
      EXPECT(answer.text().find("multiple of 512") != std::string::npos);
    }
    EXPECT_EQ(engine.Inquire().value().size_bytes, 128 * kMiB);
    engine.Send(Client::Of(Opcode::kExpand), "abc", 3);
    EXPECT(engine.WaitForEnd());
    Client asking(host.socket_path());
    EXPECT(asking.Authenticate(kId, kEpoch) == ErrorCode::kOk);
    const wire::ExpandBytes bytes = wire::EncodeExpand(256 * kMiB);
    asking.Send(Client::Of(Opcode::kExpand), bytes.data(), bytes.size());
    EXPECT(asking.WaitForEnd());  // nobody has welcomed it
  }
  RunningHost host(directory);
  host.WaitForEvent("listening");
  host.CreateReplica(kId);  // of the size before: it is there
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  EXPECT_EQ(engine.Inquire().value().size_bytes, 128 * kMiB);
}

TEST(session, RequestsAboutRegionsThatAreNoneEndTheConnection) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  for (const Opcode opcode : {Opcode::kMark, Opcode::kMap, Opcode::kMissing, Opcode::kClean}) {
    for (const size_t bytes : {size_t{0}, size_t{3}}) {
      if (opcode == Opcode::kMark && bytes == 0) continue;  // of no region: nothing to do
      Client engine(host.socket_path());
      EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
      engine.Send(Client::Of(opcode, 0, opcode == Opcode::kClean ? kRegionBytes : 0), "abc", bytes);
      EXPECT(engine.WaitForEnd());
    }
  }
}

}  // namespace
}  // namespace ankole::replica
