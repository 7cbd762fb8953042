#include "engine/resync_testing.h"

// Members that differ: after an unclean stop, by dirty regions, by corrupt blocks. Rules 5, 7
// and 9.
namespace ankole::engine::testing {
namespace {

using What = Verdict::What;
using Two = Scripted<2>;
using Three = Scripted<3>;

constexpr uint64_t kSize = Bench::kSizeBytes;

// --- after an unclean stop ---

// Both have the same but for one block in a dirty region, as when the engine died in the middle of
// a write.
struct Unequal : Two {
  Unequal() {
    ok = bench.StartAndWait();
    ok &= bench.Write(0, kMiB32, 1) == ErrorCode::kOk;
    ok &= bench.Stop();
    bench.On([&] {
      for (ScriptedReplica* replica : replicas) {
        replica->state.unclean = true;
        replica->dirty = {0, 2};
        replica->summed_bytes = 0;
      }
      std::memset(replicas[1]->data.data() + 8192, 2, 4096);
      replicas[1]->dirty = {0, 3};
    });
  }
  bool ok = false;
};

TEST(engine_resync, WhatMayDifferIsMadeEqualAfterAnUncleanStop) {
  Unequal two;
  ASSERT(two.ok);
  ASSERT(two.bench.StartAndWait());
  two.bench.On([&] {
    // The union is dirty on both.
    EXPECT(two[0].dirty == (std::set<uint32_t>{0, 2, 3}));
    EXPECT(two[1].dirty == (std::set<uint32_t>{0, 2, 3}));
  });
  ASSERT(two.bench.Until([&] { return two[0].data == two[1].data; }));
  two.bench.On([&] { EXPECT(two[0].written_bytes + two[1].written_bytes >= 4096); });
  EXPECT(two.bench.Reads(8192, 4096, 1));
  EXPECT(two.bench.Stop());
}

// Simulator, seed 40050: it was filled from one member, which was then made equal to the other.
TEST(engine_resync, NobodyJoinsBeforeTheMembersAreEqual) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  ASSERT(three.bench.Write(0, kMiB32, 1) == ErrorCode::kOk);
  three.Leave(2);
  ASSERT(three.bench.Stop());
  bool early = false;
  three.bench.On([&] {
    for (ScriptedReplica* replica : three.replicas) {
      replica->state.unclean = true;
      replica->dirty = {0};
    }
    std::memset(three[1].data.data() + 8192, 2, 4096);
    three[1].verdict = [](const wire::Header& header) {
      return Verdict{header.opcode == wire::Opcode::kSum ? What::kHold : What::kServe,
                     ErrorCode::kOk};
    };
    three[2].verdict = [&](const wire::Header& header) {
      const bool fills =
          header.opcode == wire::Opcode::kSum || header.opcode == wire::Opcode::kWrite;
      early |= fills && three[0].data != three[1].data;
      return Verdict{What::kServe, ErrorCode::kOk};
    };
  });
  three.Return(2);
  ASSERT(three.bench.StartAndWait());
  ASSERT(three.bench.Until([&] { return three[1].held() > 0; }));
  three.bench.Pass(300);
  three.bench.On([&] {
    three[1].verdict = nullptr;
    three[1].Release();
  });
  ASSERT(three.WaitForMembers(3));
  three.bench.On([&] { EXPECT(!early); });
  EXPECT(three.Same());
}

TEST(engine_resync, AReadMakesItsRangeEqualFirst) {
  Unequal two;
  ASSERT(two.ok);
  // Nothing is compared but what the read needs: the background's questions are held.
  std::atomic<bool> background = false;
  const auto verdict = [&](const wire::Header& header) {
    const bool whole = header.opcode == wire::Opcode::kSum && header.length_bytes == kDataBytesMax;
    return Verdict{whole && header.offset_bytes > 0 && !background ? What::kHold : What::kServe,
                   ErrorCode::kOk};
  };
  two[0].verdict = verdict;
  two[1].verdict = verdict;
  ASSERT(two.bench.StartAndWait());
  for (int i = 0; i < 8; ++i) {
    Request* request = two.bench.Submit(BlockOperation::kRead, 8192 + 512, 1024);
    ASSERT(two.bench.Wait(request));
    EXPECT(request->status == ErrorCode::kOk);
    bool equal = false;
    two.bench.On([&] {
      equal = std::memcmp(two[0].data.data() + 8192, two[1].data.data() + 8192, 4096) == 0;
    });
    EXPECT(equal);
  }
  background = true;
  two.bench.On([&] {
    two[0].Release();
    two[1].Release();
  });
  ASSERT(two.bench.Until([&] { return two[0].data == two[1].data; }));
}

TEST(engine_resync, WhereAllKeptRunningOnlyTheRecentIsCompared) {
  Unequal two;
  ASSERT(two.ok);
  two.bench.On([&] {
    for (ScriptedReplica* replica : two.replicas) {
      replica->state.recent_known = true;
      replica->recent = std::set<uint32_t>{0};
      replica->dirty = {0, 1, 2, 3};
    }
  });
  two.bench.options.idle_ns = 100 * kNsPerMs;
  ASSERT(two.bench.StartAndWait());
  ASSERT(two.bench.Until([&] { return two[0].data == two[1].data; }));
  ASSERT(two.bench.Until([&] { return two[0].dirty.empty() && two[1].dirty.empty(); }));
  two.bench.On([&] { EXPECT_EQ(two[0].summed_bytes, kRegionBytes); });
}

TEST(engine_resync, SuspectMembersAreGoodAgainWhenTheyAreEqual) {
  Unequal two;
  ASSERT(two.ok);
  two.bench.On([&] {
    for (ScriptedReplica* replica : two.replicas) {
      replica->state.suspect = replica->state.lost = true;
    }
  });
  ASSERT(two.bench.StartAndWait());
  ASSERT(two.bench.Until([&] { return !two[0].state.suspect && !two[1].state.suspect; }));
  EXPECT(two.Same());
}

// --- dirty regions ---

TEST(engine_resync, RegionsAreCleanedWhenTheVolumeIsIdle) {
  Two two;
  two.bench.options.idle_ns = 100 * kNsPerMs;
  ASSERT(two.bench.StartAndWait());
  ASSERT(two.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  ASSERT(two.bench.Write(2 * kRegionBytes, 4096, 1) == ErrorCode::kOk);
  ASSERT(two.bench.Until([&] { return two[0].dirty.empty() && two[1].dirty.empty(); }));
  EXPECT(two[0].asked(wire::Opcode::kFlush) > 0);
}

// A process that was started anew goes by what its disk says, which is more than was written.
TEST(engine_resync, WhatIsDirtyAtAMemberThatIsBackIsCleanedAsWell) {
  Two two;
  two.bench.options.idle_ns = 100 * kNsPerMs;
  ASSERT(two.bench.StartAndWait());
  ASSERT(two.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  two.bench.On([&] {
    two[1].dirty.insert({1, 3});
    two[1].Break();
  });
  ASSERT(two.bench.Until([&] { return two[0].dirty.empty() && two[1].dirty.empty(); }));
  EXPECT_EQ(two.Members(), 2U);
}

// Its process had answered the CLEAN and ended before its disk knew.
TEST(engine_resync, WhatIsDirtyAtAMemberThatIsBackBeforeACleanIsDoneIsCleanedAgain) {
  Two two;
  two.bench.options.idle_ns = 100 * kNsPerMs;
  two.bench.options.late_ns = 20 * kNsPerSecond;
  ASSERT(two.bench.StartAndWait());
  two[1].verdict = [](const wire::Header& header) {
    return Verdict{header.opcode == wire::Opcode::kClean ? What::kHold : What::kServe,
                   ErrorCode::kOk};
  };
  ASSERT(two.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  ASSERT(two.bench.Until([&] { return two[0].dirty.empty() && two[1].held() > 0; }));
  const int asked = two[0].asked(wire::Opcode::kMap);
  two.bench.On([&] {
    two[0].dirty.insert(0);
    two[0].Break();
  });
  ASSERT(two.bench.Until([&] {
    return two[0].asked(wire::Opcode::kMap) > asked &&
           two.bench.engine->UnderWay().find("errands") == std::string::npos;
  }));
  two[1].verdict = nullptr;
  two.bench.On([&] { two[1].Release(); });
  ASSERT(two.bench.Until([&] { return two[0].dirty.empty() && two[1].dirty.empty(); }));
  EXPECT_EQ(two.Members(), 2U);
}

// At a member checksums must be computed first: as long as that takes, no more than one region is
// locked.
TEST(engine_resync, RegionsAreCleanedOneByOneWhereAMemberMustComputeTheirChecksums) {
  Two two;
  two.bench.options.idle_ns = 100 * kNsPerMs;
  ASSERT(two.bench.StartAndWait());
  std::vector<uint64_t> lengths;
  two.bench.On([&] {
    two[0].verdict = [&](const wire::Header& header) {
      if (header.opcode != wire::Opcode::kClean) return Verdict{What::kServe, ErrorCode::kOk};
      lengths.push_back(header.length_bytes);
      if (header.length_bytes > kRegionBytes) return Verdict{What::kFail, ErrorCode::kBusy};
      return Verdict{What::kServe, ErrorCode::kOk};
    };
  });
  for (uint64_t region = 0; region < 4; ++region) {
    ASSERT(two.bench.Write(region * kRegionBytes, 4096, 1) == ErrorCode::kOk);
  }
  ASSERT(two.bench.Until([&] { return two[0].dirty.empty() && two[1].dirty.empty(); }));
  two.bench.On([&] {
    EXPECT(lengths.front() > kRegionBytes);
    EXPECT_EQ(std::count(lengths.begin(), lengths.end(), kRegionBytes), 4);
    EXPECT_EQ(two.bench.engine->Report().record.members.count, 2U);  // it is no fault
  });
  two.bench.On([&] { two[0].verdict = nullptr; });
}

TEST(engine_resync, NothingIsCleanedWhileARecordIsProposed) {
  Three three;
  three.bench.options.idle_ns = 100 * kNsPerMs;
  ASSERT(three.bench.StartAndWait());
  ASSERT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  for (ScriptedReplica* replica : three.replicas) {
    replica->verdict = [&](const wire::Header& header) {
      return Verdict{header.opcode == wire::Opcode::kRecord ? What::kHold : What::kServe,
                     ErrorCode::kOk};
    };
  }
  three.bench.options.late_ns = 20 * kNsPerSecond;
  three.bench.On([&] { three[2].Unlisten(); });
  ASSERT(three.bench.Until([&] { return three[0].held() > 0 && three[1].held() > 0; }));
  const int cleans = three[0].asked(wire::Opcode::kClean);
  EXPECT(three.bench.Never(
      [&] {
        return three[0].asked(wire::Opcode::kClean) > cleans ||
               three.bench.engine->Report().record.members.count == 2;
      },
      600));
  for (ScriptedReplica* replica : three.replicas) replica->verdict = nullptr;
  three.bench.On([&] {
    three[0].Release();
    three[1].Release();
  });
  ASSERT(three.bench.Until([&] { return three[0].dirty.empty() && three[1].dirty.empty(); }));
  // What the one that left has not heard of is clean as well, and it misses nothing.
  three.bench.On([&] { EXPECT(three[0].missing.contains(three[2].id())); });
}

// Simulator, seed 702467: the flushes since made the region one that a CLEAN may close, but not
// this one.
TEST(engine_resync, WhatARestartedMemberHasDirtyIsNotClosedByACleanFromBefore) {
  Two two;
  two.bench.options.late_ns = 20 * kNsPerSecond;
  two.bench.options.idle_ns = 100 * kNsPerMs;
  ASSERT(two.bench.StartAndWait());
  two[0].verdict = [](const wire::Header& header) {
    return Verdict{header.opcode == wire::Opcode::kClean ? What::kHold : What::kServe,
                   ErrorCode::kOk};
  };
  ASSERT(two.bench.Write(kRegionBytes, 4096, 1) == ErrorCode::kOk);
  ASSERT(two.bench.Until([&] { return two[0].held() > 0 && two[1].dirty.empty(); }));
  EXPECT(two.bench.Flush() == ErrorCode::kOk);  // its answer comes after that to the CLEAN
  int asked = 0;
  two.bench.On([&] {
    asked = two[1].asked(wire::Opcode::kMap);
    two[1].dirty = {1};
    two[1].Break();
  });
  ASSERT(two.bench.Until([&] { return two[1].asked(wire::Opcode::kMap) > asked; }));
  // What it has dirty is known once more than its map was asked for, and flushed after that.
  for (int i = 0; i < 4; ++i) EXPECT(two.bench.Flush() == ErrorCode::kOk);
  two.bench.On([&] {
    EXPECT(two[1].dirty.size() == 1 && two[0].held() == 1);
    two[0].verdict = nullptr;
    two[0].Release();
  });
  EXPECT(two.bench.Until([&] { return two[0].dirty.empty() && two[1].dirty.empty(); }));
}

TEST(engine_resync, AWriteToOneRegionTooManyWaitsUntilAnotherIsClean) {
  Two two;
  two.bench.options.dirty_regions_max = 2;
  ASSERT(two.bench.StartAndWait());
  ASSERT(two.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  ASSERT(two.bench.Write(kRegionBytes, 4096, 1) == ErrorCode::kOk);
  int flushes = 0;
  two.bench.On([&] { flushes = two[0].asked(wire::Opcode::kFlush); });
  for (uint64_t region : {2, 3, 0, 1}) {
    ASSERT(two.bench.Write(region * kRegionBytes, 4096, 2) == ErrorCode::kOk);
    two.bench.On([&] { EXPECT(two[0].dirty.size() <= 2 && two[1].dirty.size() <= 2); });
  }
  two.bench.On([&] { EXPECT(two[0].asked(wire::Opcode::kFlush) > flushes); });
}

// --- corruption ---

TEST(engine_resync, ScrubbingRepairsWhatIsCorruptAndCountsWhatDiffers) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    ASSERT(two.bench.Write(at, kMiB32, 1) == ErrorCode::kOk);
  }
  two.bench.On([&] {
    two[1].bad = {7, 1500};
    std::memset(two[1].data.data() + 7 * kBlockBytes, 0x77, 4096);
    std::memset(two[1].data.data() + 1500 * kBlockBytes, 0x77, 4096);
    std::memset(two[0].data.data() + 3000 * kBlockBytes, 0x77, 4096);  // and nobody knows which
    for (ScriptedReplica* replica : two.replicas) {
      replica->verdict = [](const wire::Header& header) {
        // What is read for this is not to stay in the page cache.
        const bool sum = header.opcode == wire::Opcode::kSum;
        if (sum) EXPECT_EQ(header.flags, wire::kFlagDisablePageOut);
        return Verdict{What::kServe, ErrorCode::kOk};
      };
    }
    two.bench.engine->Scrub(0, kSize, 0);
  });
  Json scrub;
  ASSERT(two.bench.Until([&] {
    scrub = *two.bench.engine->CountersJson().Find("scrub");
    return !scrub.Bool("running", true).Take();
  }));
  EXPECT_EQ(scrub.Integer("repairedBlocks", 0, 100).Take(), 2);
  EXPECT_EQ(scrub.Integer("differingBlocks", 0, 100).Take(), 1);
  EXPECT_EQ(scrub.Integer("corruptBlocks", 0, 100).Take(), 0);
  two.bench.On([&] { EXPECT(two[1].bad.empty()); });
  EXPECT(two.bench.Reads(7 * kBlockBytes, 4096, 1));
}

TEST(engine_resync, AScrubThatWasBrokenOffGoesOnBehindWhatIsDoneAndCountsOn) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  ASSERT(two.bench.Write(0, kMiB32, 1) == ErrorCode::kOk);
  ASSERT(two.bench.Write(2 * kRegionBytes, kMiB32, 1) == ErrorCode::kOk);
  constexpr uint64_t kFirst = 2 * kRegionBytes / kBlockBytes;
  two.bench.On([&] {
    two[1].bad = {7, kFirst + 3};
    std::memset(two[1].data.data() + 7 * kBlockBytes, 0x77, 4096);
    std::memset(two[1].data.data() + (kFirst + 3) * kBlockBytes, 0x77, 4096);
    ScrubProgress before;
    before.regions_done = 2;
    before.repaired_blocks = 5;
    two.bench.engine->ScrubAll("one", 0, before);
  });
  const auto scrub = [&] { return *two.bench.engine->CountersJson().Find("scrub"); };
  ASSERT(two.bench.Until([&] { return scrub().Bool("finished", false).Take(); }));
  two.bench.On([&] {
    EXPECT_EQ(scrub().String("id", "").Take(), "one");
    EXPECT_EQ(scrub().Integer("repairedBlocks", 0, 100).Take(), 6);
    EXPECT_EQ(scrub().Integer("regionsDone", 0, 100).Take(), int64_t{kSize / kRegionBytes});
    EXPECT_EQ(two[1].bad.size(), size_t{1});  // in what was done before
    // Its counter is of what this process did.
    EXPECT_EQ(two.bench.engine->CountersJson().Integer("repairedBlocks", 0, 100).Take(), 1);
  });
  ASSERT(two.bench.Until([&] { return !two.bench.scrubs.empty(); }));
  two.bench.On([&] { EXPECT(two.bench.scrubs.back().Bool("finished", false).Take()); });
}

TEST(engine_resync, TheRateOfAScrubChangesWhileItRunsAndStoppingEndsIt) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  const auto scrub = [&] { return *two.bench.engine->CountersJson().Find("scrub"); };
  two.bench.On([&] {
    two.bench.engine->ScrubAll("one", 1000, {});  // a chunk in 17 minutes
    EXPECT(scrub().Bool("running", false).Take());
  });
  ASSERT(two.bench.Until([&] { return two[0].asked(wire::Opcode::kSum) > 0; }));
  two.bench.On([&] {
    two.bench.engine->StopScrub();
    EXPECT(!scrub().Bool("running", true).Take());
    EXPECT(!scrub().Bool("finished", true).Take());
    two.bench.engine->ScrubAll("two", 1000, {});
    EXPECT(scrub().Bool("running", false).Take());
    two.bench.engine->ScrubAll("two", 0, {});
  });
  ASSERT(two.bench.Until([&] { return scrub().Bool("finished", false).Take(); }));
  two.bench.On([&] { EXPECT_EQ(scrub().String("id", "").Take(), "two"); });
}

// All had the same when the last one left.
template <size_t kCount>
bool LastMissesAWrite(Scripted<kCount>& members) {
  if (!members.bench.StartAndWait()) return false;
  if (members.bench.Write(0, 65536, 1) != ErrorCode::kOk) return false;
  members.Leave(kCount - 1);
  return members.bench.Write(0, 65536, 2) == ErrorCode::kOk;
}

// What is good nowhere is good at no joiner either: neither what it had there nor a hole.
TEST(engine_resync, ABlockThatIsGoodNowhereIsMarkedAtAJoiner) {
  Three three;
  ASSERT(LastMissesAWrite(three));
  three.bench.On([&] {
    three[0].bad = {3, 4, 9};
    three[1].bad = {3, 4, 11};
  });
  three.Return(2);
  ASSERT(three.WaitForMembers(3));
  three.bench.On([&] {
    EXPECT(three[2].bad == (std::set<uint64_t>{3, 4}));
    EXPECT(std::memcmp(three[2].data.data() + 9 * kBlockBytes,
                       three[0].data.data() + 10 * kBlockBytes, kBlockBytes) == 0);
  });
}

// Simulator, seed 6010857: a joiner that called a block bad for a moment was left alone, and was
// taken for the one that had it whole later.
TEST(engine_resync, ABlockThatIsGoodNowhereIsMarkedWhereTheJoinerCallsItBadAsWell) {
  Two two;
  ASSERT(LastMissesAWrite(two));
  two.bench.On([&] { two[0].bad = two[1].bad = {3}; });
  two[1].verdict = [&](const wire::Header& header) {
    // By then it can tell: of what it had, nothing was bad.
    if (header.opcode == wire::Opcode::kBad) two[1].bad.clear();
    return Verdict{};
  };
  two.Return(1);
  ASSERT(two.WaitForMembers(2));
  two.bench.On([&] {
    EXPECT_EQ(two[1].asked(wire::Opcode::kBad), 1);
    EXPECT(two[1].bad == (std::set<uint64_t>{3}));
  });
}

// A read of a block that is bad is answered with that.
void ReadsFailWhereBad(Two& two) {
  for (ScriptedReplica* replica : two.replicas) {
    replica->verdict = [replica](const wire::Header& header) {
      bool corrupt = false;
      for (const uint64_t block : replica->bad) {
        corrupt |= header.opcode == wire::Opcode::kRead &&
                   block * kBlockBytes < header.offset_bytes + header.length_bytes &&
                   (block + 1) * kBlockBytes > header.offset_bytes;
      }
      return Verdict{corrupt ? What::kFail : What::kServe, ErrorCode::kCorrupt};
    };
  }
}

TEST(engine_resync, ACorruptBlockIsReadElsewhereAndRepaired) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  ASSERT(two.bench.Write(0, 65536, 1) == ErrorCode::kOk);
  two.bench.On([&] {
    for (size_t i = 0; i < 2; ++i) {
      // Another one at each: no member has all of the range.
      two[i].bad.insert(3 + i);
      std::memset(two[i].data.data() + (3 + i) * kBlockBytes, 0x77, 100);
    }
  });
  ReadsFailWhereBad(two);
  EXPECT(two.bench.Reads(0, 65536, 1));
  ASSERT(two.bench.Until([&] { return two[0].bad.empty() && two[1].bad.empty(); }));
  EXPECT(two.Same());
  two.bench.On([&] {
    EXPECT_EQ(two.bench.engine->CountersJson().Integer("repairedBlocks", 0, 100).Take(), 2);
    // One that only one of them has.
    two[0].bad.insert(3);
  });
  EXPECT(two.bench.Reads(3 * kBlockBytes, 4096, 1));
  EXPECT(two.bench.Until([&] { return two[0].bad.empty(); }));
}

// Clients only read there; the repair of a read that found something bad everywhere writes.
TEST(engine_resync, WhatARepairWritesCountsAsDirty) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  constexpr uint64_t kFirst = kRegionBytes / kBlockBytes;
  two.bench.On([&] {
    for (size_t i = 0; i < 2; ++i) {
      two[i].bad.insert(kFirst + i);
      std::memset(two[i].data.data() + (kFirst + i) * kBlockBytes, 0x77, 100);
    }
    EXPECT_EQ(two.bench.engine->dirty_regions(), 0U);
  });
  ReadsFailWhereBad(two);
  EXPECT(two.bench.Reads(kRegionBytes, 65536, 0));
  two.bench.On([&] { EXPECT_EQ(two.bench.engine->dirty_regions(), 1U); });
}

}  // namespace
}  // namespace ankole::engine::testing
