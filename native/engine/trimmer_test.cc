#include <sys/stat.h>

#include <cstring>

#include "engine/resync_testing.h"
#include "engine/snapshot_testing.h"

// Trimming: zeros that take up space are given back, and nothing else changes.
namespace ankole::engine::testing {
namespace {

constexpr uint64_t kSize = Bench::kSizeBytes;

Json Trim(Bench& bench) {
  Json trim;
  bench.On([&] { trim = bench.engine->TrimJson(); });
  return trim;
}

int64_t Number(const Json& trim, const char* name) {
  return trim.Integer(name, 0, INT64_MAX, -1).Take();
}

void Begin(Bench& bench, const std::string& id, uint64_t bytes_per_second = 0,
           const TrimProgress& before = {}) {
  bench.On([&] { EXPECT(bench.engine->Trim(id, bytes_per_second, before).ok()); });
}

bool WaitForEnd(Bench& bench) {
  return bench.Until([&] { return bench.engine->TrimJson().Bool("finished", false).Take(); });
}

bool WriteZeros(Bench& bench, uint32_t mebibytes) {
  for (uint64_t at = 0; at < mebibytes * kMiB; at += kMiB) {
    if (bench.Write(at, kMiB32, 0) != ErrorCode::kOk) return false;
  }
  return true;
}

// Members that tell which blocks take up space, and ask a verdict of the reads of the trim alone.
template <size_t kCount>
struct Thin : Scripted<kCount> {
  Thin() {
    for (ScriptedReplica* replica : this->replicas) replica->tells_holes = true;
    started = this->bench.StartAndWait();
  }
  bool Has(uint64_t block) {
    bool has = false;
    this->bench.On([&] {
      for (ScriptedReplica* replica : this->replicas) has |= replica->written.contains(block);
    });
    return has;
  }
  void HoldEach(wire::Opcode opcode) {
    this->bench.On([&] {
      for (ScriptedReplica* replica : this->replicas) {
        replica->verdict = [opcode](const wire::Header& header) {
          const bool reads =
              opcode != wire::Opcode::kRead || (header.flags & wire::kFlagDisablePageOut) != 0;
          return testing::Hold(header.opcode == opcode && reads);
        };
      }
    });
  }
  bool Holds() {
    return this->bench.Until([&] {
      size_t held = 0;
      for (ScriptedReplica* replica : this->replicas) held += replica->held();
      return held > 0;
    });
  }
  void LetGo() {
    this->bench.On([&] {
      for (ScriptedReplica* replica : this->replicas) {
        replica->verdict = nullptr;
        replica->Release();
      }
    });
  }
  bool started = false;
};

TEST(engine_trim, ZerosAreGivenBackAndWhatElseThereIsStays) {
  Thin<3> three;
  ASSERT(three.started);
  Bench& bench = three.bench;
  ASSERT(bench.Write(0, kMiB32, 7) == ErrorCode::kOk);
  ASSERT(bench.Write(8192, 12288, 0) == ErrorCode::kOk);
  ASSERT(bench.Write(kMiB - 4096, 8192, 0) == ErrorCode::kOk);
  ASSERT(bench.Write(kSize - 65536, 65536, 0) == ErrorCode::kOk);
  // All but its last byte.
  ASSERT(bench.Write(8 * kMiB, 512, 9) == ErrorCode::kOk);
  ASSERT(bench.Write(8 * kMiB + 4096, 4096, 0) == ErrorCode::kOk);
  Begin(bench, "one");
  ASSERT(WaitForEnd(bench));
  const Json trim = Trim(bench);
  EXPECT_EQ(Number(trim, "unmappedBytes"), int64_t{12288 + 8192 + 65536 + 4096});
  EXPECT_EQ(Number(trim, "bytesDone"), int64_t{kSize});
  EXPECT_EQ(Number(trim, "failedBytes"), 0);
  for (const uint64_t block : {2, 3, 4, 255, 256, 2049}) EXPECT(!three.Has(block));
  for (const uint64_t block : {0, 1, 5, 254, 2048}) EXPECT(three.Has(block));
  EXPECT(!three.Has(kSize / kBlockBytes - 1));
  EXPECT(bench.Reads(0, 8192, 7) && bench.Reads(8192, 12288, 0));
  EXPECT(bench.Reads(20480, 4096, 7) && bench.Reads(8 * kMiB, 512, 9));
  EXPECT(three.Same());
  ASSERT(bench.Until([&] { return !bench.trims.empty(); }));
  bench.On([&] { EXPECT(bench.trims.back().Bool("finished", false).Take()); });
  // No client asked for that.
  bench.On([&] {
    const Json counters = bench.engine->CountersJson();
    EXPECT_EQ(counters.Find("operations")->Find("unmap")->Integer("count", 0, 100).Take(), 0);
    EXPECT_EQ(counters.Integer("trimmedBytes", 0, kSize).Take(), Number(trim, "unmappedBytes"));
  });
  EXPECT(bench.Stop());
}

TEST(engine_trim, HolesAreLeftAndWhatAnyMemberHasIsLookedAt) {
  Thin<3> three;
  ASSERT(three.started);
  ASSERT(three.bench.Write(0, 65536, 3) == ErrorCode::kOk);
  // As one has it that was filled from another.
  three.bench.On([&] { three[2].written.insert({3000, 3001}); });
  Begin(three.bench, "one");
  ASSERT(WaitForEnd(three.bench));
  EXPECT_EQ(Number(Trim(three.bench), "unmappedBytes"), int64_t{8192});
  three.bench.On([&] { EXPECT(!three[2].written.contains(3000)); });
  int unmaps = 0;
  three.bench.On([&] { unmaps = three[0].asked(wire::Opcode::kUnmap); });
  Begin(three.bench, "two");
  ASSERT(WaitForEnd(three.bench));
  EXPECT_EQ(Number(Trim(three.bench), "unmappedBytes"), 0);
  three.bench.On([&] { EXPECT_EQ(three[0].asked(wire::Opcode::kUnmap), unmaps); });
}

TEST(engine_trim, WhatIsWrittenAfterItWasReadIsKept) {
  Thin<2> two;
  ASSERT(two.started);
  ASSERT(two.bench.Write(0, 65536, 0) == ErrorCode::kOk);
  two.HoldEach(wire::Opcode::kRead);
  Begin(two.bench, "one");
  ASSERT(two.Holds());
  // It waits for the read, and goes before the hold.
  Request* write = two.bench.Submit(BlockOperation::kWrite, 8192, 4096, 5);
  two.LetGo();
  ASSERT(two.bench.Wait(write));
  ASSERT(WaitForEnd(two.bench));
  EXPECT(two.bench.Reads(8192, 4096, 5));
  EXPECT(two.Has(2));
  EXPECT_EQ(Number(Trim(two.bench), "unmappedBytes"), int64_t{65536 - 4096});
}

TEST(engine_trim, WhatIsWrittenWhileItIsUnmappedComesAfterIt) {
  Thin<2> two;
  ASSERT(two.started);
  ASSERT(two.bench.Write(0, 65536, 0) == ErrorCode::kOk);
  two.HoldEach(wire::Opcode::kUnmap);
  Begin(two.bench, "one");
  ASSERT(two.Holds());
  Request* write = two.bench.Submit(BlockOperation::kWrite, 8192, 4096, 5);
  Request* aside = two.bench.Submit(BlockOperation::kWrite, 4 * kMiB, 4096, 6);
  ASSERT(two.bench.Wait(aside));
  two.bench.On([&] { EXPECT(!write->finished); });
  two.LetGo();
  ASSERT(two.bench.Wait(write));
  ASSERT(WaitForEnd(two.bench));
  EXPECT(two.bench.Reads(8192, 4096, 5) && two.bench.Reads(0, 8192, 0));
}

TEST(engine_trim, AMemberThatIsAwayGetsItWhenItIsBack) {
  Thin<3> three;
  ASSERT(three.started);
  ASSERT(three.bench.Write(0, 65536, 4) == ErrorCode::kOk);
  ASSERT(three.bench.Write(16384, 16384, 0) == ErrorCode::kOk);
  ASSERT(three.bench.Flush() == ErrorCode::kOk);
  three.Leave(2);
  Begin(three.bench, "one");
  ASSERT(WaitForEnd(three.bench));
  EXPECT_EQ(Number(Trim(three.bench), "unmappedBytes"), int64_t{16384});
  three.bench.On([&] {
    EXPECT(three[0].missing.contains(three[2].id()));
    EXPECT(three[0].missing[three[2].id()].regions.contains(0));
  });
  three.Return(2);
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
}

TEST(engine_trim, WhatCannotBeReadOrUnmappedIsLeftAndCounted) {
  Thin<1> one;
  ASSERT(one.started);
  ASSERT(WriteZeros(one.bench, 4));
  one.bench.On([&] {
    one[0].verdict = [](const wire::Header& header) {
      const bool reads = header.opcode == wire::Opcode::kRead && header.offset_bytes < kMiB;
      const bool unmaps = header.opcode == wire::Opcode::kUnmap && header.offset_bytes >= kMiB &&
                          header.offset_bytes < 2 * kMiB;
      return FailWith(reads || unmaps, ErrorCode::kIoError);
    };
  });
  Begin(one.bench, "one");
  ASSERT(WaitForEnd(one.bench));
  EXPECT_EQ(Number(Trim(one.bench), "failedBytes"), int64_t{2 * kMiB});
  EXPECT_EQ(Number(Trim(one.bench), "unmappedBytes"), int64_t{2 * kMiB});
  EXPECT(one.Has(0) && one.Has(300) && !one.Has(600));
}

TEST(engine_trim, OneThatWasBrokenOffGoesOnBehindWhatIsDoneAndCountsOn) {
  Thin<2> two;
  ASSERT(two.started);
  ASSERT(two.bench.Write(0, 4096, 0) == ErrorCode::kOk);
  ASSERT(two.bench.Write(8 * kMiB, 4096, 0) == ErrorCode::kOk);
  Begin(two.bench, "one", 0, {2 * kMiB + 4096, 40960, 4096});
  ASSERT(WaitForEnd(two.bench));
  EXPECT_EQ(Number(Trim(two.bench), "unmappedBytes"), int64_t{40960 + 4096});
  EXPECT_EQ(Number(Trim(two.bench), "failedBytes"), int64_t{4096});
  EXPECT(two.Has(0) && !two.Has(8 * kMiB / kBlockBytes));
  two.bench.On([&] {
    EXPECT_EQ(two.bench.engine->CountersJson().Integer("trimmedBytes", 0, kSize).Take(), 4096);
  });
}

TEST(engine_trim, ItsRateChangesWhileItRunsAndStoppingEndsIt) {
  Thin<2> two;
  ASSERT(two.started);
  ASSERT(WriteZeros(two.bench, 3));
  Begin(two.bench, "one", 1000);  // a chunk in 17 minutes
  ASSERT(two.bench.Until([&] {
    return two.bench.engine->CountersJson().Integer("trimmedBytes", 0, kSize).Take() == kMiB;
  }));
  EXPECT(Trim(two.bench).Bool("running", false).Take());
  EXPECT_EQ(Number(Trim(two.bench), "bytesDone"), int64_t{kMiB});
  two.bench.On([&] { two.bench.engine->StopTrim(); });
  EXPECT(!Trim(two.bench).Bool("running", true).Take());
  EXPECT(!Trim(two.bench).Bool("finished", true).Take());
  Begin(two.bench, "two", 1000);
  Begin(two.bench, "two", 0);
  ASSERT(WaitForEnd(two.bench));
  EXPECT_EQ(Number(Trim(two.bench), "unmappedBytes"), int64_t{2 * kMiB});
}

// It holds a range, and what it waits for comes after the stop.
TEST(engine_trim, TheEngineStopsCleanInTheMiddleOfOne) {
  Thin<2> two;
  ASSERT(two.started);
  ASSERT(WriteZeros(two.bench, 3));
  two.HoldEach(wire::Opcode::kUnmap);
  Begin(two.bench, "one");
  ASSERT(two.Holds());
  two.bench.On([&] { two.bench.engine->Stop(); });
  two.LetGo();
  EXPECT(two.bench.Stop());
  ASSERT(two.bench.StartAndWait());
  EXPECT(two.bench.Reads(0, kMiB32, 0));
  EXPECT(two.Same());
}

TEST(engine_trim, ItEndsWithAnEngineThatIsFenced) {
  Thin<3> three;
  ASSERT(three.started);
  ASSERT(WriteZeros(three.bench, 3));
  three.HoldEach(wire::Opcode::kUnmap);
  Begin(three.bench, "one");
  ASSERT(three.Holds());
  EXPECT(three.bench.TakeOver());
}

TEST(engine_trim, ItIsRefusedWhereNothingMayChange) {
  Bench bench;
  bench.AddScripted();
  bench.On([&] { bench.options.read_only = true; });
  ASSERT(bench.StartAndWait());
  bench.On([&] {
    EXPECT_EQ(bench.engine->Trim("one", 0, {}).code(), ErrorCode::kReadOnly);
    EXPECT(!bench.engine->TrimJson().Bool("running", true).Take());
  });
}

// --- real replicas ---

uint64_t Allocated(const RealReplica& replica, const std::string& file) {
  struct stat info = {};
  if (stat((replica.directory() + "/" + file).c_str(), &info) != 0) return UINT64_MAX;
  return static_cast<uint64_t>(info.st_blocks) * 512;
}

TEST(engine_trim, SpaceComesBackAndOverASnapshotNoneIsTaken) {
  Snapshots<0> snapshots;
  Bench& bench = snapshots.bench;
  std::vector<RealReplica*> members;
  for (int i = 0; i < 2; ++i) members.push_back(&bench.AddReal());
  ASSERT(bench.StartAndWait());
  for (uint64_t at = 0; at < 4 * kMiB; at += kMiB) {
    ASSERT(bench.Write(at, kMiB32, at < 2 * kMiB ? 0 : 6) == ErrorCode::kOk);
  }
  ASSERT(Good(snapshots.Take("one")));
  // In the head: zeros over zeros, zeros over data, and data.
  ASSERT(bench.Write(kMiB, 2 * 65536, 0) == ErrorCode::kOk);
  ASSERT(bench.Write(3 * kMiB, 65536, 0) == ErrorCode::kOk);
  ASSERT(bench.Write(5 * kMiB, 65536, 8) == ErrorCode::kOk);
  ASSERT(bench.Flush() == ErrorCode::kOk);
  const std::string head = "volume-head-001.img";
  for (const RealReplica* member : members) EXPECT(Allocated(*member, head) >= 4 * 65536);
  Begin(bench, "one");
  ASSERT(WaitForEnd(bench));
  // What lies in the snapshot is masked: 2 MiB, over half of which the head has 128 KiB.
  EXPECT_EQ(Number(Trim(bench), "unmappedBytes"), int64_t{2 * kMiB + 65536});
  for (const RealReplica* member : members) {
    EXPECT_EQ(Allocated(*member, head), uint64_t{65536});
    EXPECT_EQ(Allocated(*member, "volume-snap-one.img"), 4 * kMiB);
  }
  EXPECT(bench.Reads(0, kMiB32, 0) && bench.Reads(kMiB, kMiB32, 0));
  EXPECT(bench.Reads(2 * kMiB, kMiB32, 6) && bench.Reads(3 * kMiB, 65536, 0));
  EXPECT(bench.Reads(3 * kMiB + 65536, 65536, 6) && bench.Reads(5 * kMiB, 65536, 8));
  // A mask is left.
  Begin(bench, "two");
  ASSERT(WaitForEnd(bench));
  EXPECT_EQ(Number(Trim(bench), "unmappedBytes"), 0);
  ASSERT(bench.Stop());
  ASSERT(bench.StartAndWait());
  EXPECT(bench.Reads(0, kMiB32, 0) && bench.Reads(3 * kMiB + 65536, 65536, 6));
}

// Half of what is written are zeros; what a client was told is what it reads, whatever is trimmed.
TEST(engine_trim, NothingThatIsWrittenMeanwhileIsLost) {
  Bench bench;
  for (int i = 0; i < 2; ++i) bench.AddReal();
  ASSERT(bench.StartAndWait());
  constexpr uint32_t kBlocks = 512;
  std::array<uint8_t, kBlocks> holds = {};
  std::array<Request*, 8> writes = {};
  uint64_t random = 11;
  int trims = 0;
  for (int round = 0; round < 120; ++round) {
    bench.On([&] {
      if (!bench.engine->TrimJson().Bool("running", false).Take()) {
        EXPECT(bench.engine->Trim(std::to_string(++trims), 0, {}).ok());
      }
      for (size_t i = 0; i < writes.size(); ++i) {
        random = random * 6364136223846793005 + 1442695040888963407;
        const uint32_t block = static_cast<uint32_t>((random >> 33) % (kBlocks / 8) * 8 + i);
        holds[block] = (random >> 62) % 2 == 0 ? 0 : static_cast<uint8_t>(1 + (random >> 50) % 255);
        writes[i] =
            bench.SubmitHere(BlockOperation::kWrite, uint64_t{block} * 4096, 4096, holds[block]);
      }
    });
    for (Request* write : writes) {
      ASSERT(bench.Wait(write));
      EXPECT(write->status == ErrorCode::kOk);
    }
  }
  EXPECT(trims > 1);
  ASSERT(WaitForEnd(bench));
  for (uint32_t first = 0; first < kBlocks; first += 256) {
    Request* read = bench.Submit(BlockOperation::kRead, uint64_t{first} * 4096, kMiB32);
    ASSERT(bench.Wait(read));
    for (uint32_t block = 0; block < 256; ++block) {
      const std::byte* data = read->data + block * 4096;
      EXPECT(data[0] == std::byte{holds[first + block]} && std::memcmp(data, data + 1, 4095) == 0);
    }
  }
}

}  // namespace
}  // namespace ankole::engine::testing
