#include "engine/engine_testing.h"

// Making replicas equal: rules 5 and 7 on the real engine.
namespace ankole::engine::testing {
namespace {

using What = Verdict::What;

constexpr uint64_t kSize = Bench::kSizeBytes;
constexpr uint32_t kMiB32 = static_cast<uint32_t>(kMiB);

template <size_t kCount>
struct Scripted {
  Scripted() {
    bench.options.late_ns = 300 * kNsPerMs;
    for (ScriptedReplica*& replica : replicas) replica = &bench.AddScripted();
  }
  ScriptedReplica& operator[](size_t i) { return *replicas[i]; }
  size_t Members() { return bench.Complete().members.count; }
  bool WaitForMembers(size_t count, int limit_ms = 10'000) {
    return bench.Until([&] { return bench.engine->Report().record.members.count == count; },
                       limit_ms);
  }
  void Leave(size_t i) {
    bench.On([&] { replicas[i]->Unlisten(); });
    if (!WaitForMembers(kCount - 1)) test::Fail(__FILE__, __LINE__, "it does not leave");
  }
  void Return(size_t i) {
    bench.On([&] {
      replicas[i]->written_bytes = replicas[i]->summed_bytes = 0;
      replicas[i]->Listen();
    });
  }
  bool Same() {
    bool same = true;
    bench.On([&] {
      for (ScriptedReplica* replica : replicas) same &= replica->data == replicas[0]->data;
    });
    return same;
  }
  Bench bench;
  std::array<ScriptedReplica*, kCount> replicas;
};
using Two = Scripted<2>;
using Three = Scripted<3>;

TEST(engine_resync, AReplicaThatWasAwayGetsWhatChanged) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    ASSERT(three.bench.Write(at, kMiB32, 1) == ErrorCode::kOk);
  }
  three.bench.options.idle_ns = 0;
  three.Leave(2);
  ASSERT(three.bench.Write(kRegionBytes + 8192, 4096, 2) == ErrorCode::kOk);
  ASSERT(three.bench.Write(2 * kRegionBytes, 12288, 3) == ErrorCode::kOk);
  ASSERT(three.bench.Do(BlockOperation::kUnmap, 3 * kRegionBytes, 8192) == ErrorCode::kOk);
  EXPECT(!three.Same());
  three.Return(2);
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
  three.bench.On([&] {
    EXPECT_EQ(three[2].written_bytes, 4U * 4096);
    EXPECT(!three[2].written.contains(3 * kRegionBytes / kBlockBytes));
    EXPECT(three[0].missing.empty() && three[1].missing.empty());
    EXPECT(three[2].state.records == three[0].state.records ||
           three[2].state.records.current == three[0].state.records.current);
  });
  // It is a member like all others.
  ASSERT(three.bench.Write(0, 4096, 9) == ErrorCode::kOk);
  EXPECT(three.Same());
}

TEST(engine_resync, WhatIsCopiedIsSyncedInPortions) {
  Three three;
  three.bench.options.copied_sync_bytes = kRegionBytes;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    ASSERT(three.bench.Write(at, kMiB32, 1) == ErrorCode::kOk);
  }
  // While a sync is not answered no more than another portion is copied.
  size_t flushes = 0;
  bool holds = true;
  three[2].verdict = [&](const wire::Header& header) {
    if (header.opcode != wire::Opcode::kFlush) return Verdict{What::kServe, ErrorCode::kOk};
    ++flushes;
    return Verdict{holds ? What::kHold : What::kServe, ErrorCode::kOk};
  };
  three.Return(2);
  ASSERT(three.bench.Until([&] { return flushes == 1; }));
  EXPECT(!three.bench.Until([&] { return three[2].written_bytes > 3 * kRegionBytes; }, 700));
  three.bench.On([&] {
    EXPECT_EQ(flushes, 1U);
    holds = false;
    three[2].Release();
  });
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
  three.bench.On([&] { EXPECT(flushes >= kSize / kRegionBytes); });
}

TEST(engine_resync, ASyncOfWhatWasCopiedThatFailsLetsTheJoinerGo) {
  Three three;
  three.bench.options.copied_sync_bytes = kRegionBytes;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    ASSERT(three.bench.Write(at, kMiB32, 1) == ErrorCode::kOk);
  }
  size_t flushes = 0;
  three[2].verdict = [&](const wire::Header& header) {
    const bool fails = header.opcode == wire::Opcode::kFlush && ++flushes == 1;
    return Verdict{fails ? What::kFail : What::kServe, ErrorCode::kIoError};
  };
  three.Return(2);
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
  three.bench.On([&] { EXPECT(flushes > kSize / kRegionBytes); });
}

TEST(engine_resync, OnlyTheRegionsThatMayDifferAreCompared) {
  Three three;
  three.bench.options.idle_ns = 100 * kNsPerMs;
  ASSERT(three.bench.StartAndWait());
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    ASSERT(three.bench.Write(at, kMiB32, 1) == ErrorCode::kOk);
  }
  // Idle: flushed and cleaned.
  ASSERT(three.bench.Until([&] { return three[0].dirty.empty() && three[2].dirty.empty(); }));
  three.Leave(2);
  ASSERT(three.bench.Write(kRegionBytes, 4096, 2) == ErrorCode::kOk);
  three.Return(2);
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
  three.bench.On([&] { EXPECT_EQ(three[2].summed_bytes, kRegionBytes); });
}

TEST(engine_resync, OneThatDescendsFromNoKnownRecordIsComparedWhole) {
  Three three;
  three.bench.options.idle_ns = 100 * kNsPerMs;
  ASSERT(three.bench.StartAndWait());
  ASSERT(three.bench.Write(2 * kRegionBytes, 4096, 1) == ErrorCode::kOk);
  ASSERT(three.bench.Until([&] { return three[2].dirty.empty(); }));
  three.Leave(2);
  three.bench.On([&] {
    three[2].state.records.current.generation = 77;
    three[2].state.records.current.epoch.attachment = 0;
    three[2].state.records.complete = three[2].state.records.current;
    std::memset(three[2].data.data() + 2 * kRegionBytes, 5, 4096);
  });
  three.Return(2);
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
  three.bench.On([&] {
    EXPECT_EQ(three[2].summed_bytes, kSize);
    EXPECT_EQ(three[2].written_bytes, 4096U);
  });
  // Members were cleaned without it, and so it is in the end.
  EXPECT(three.bench.Until([&] { return three[2].dirty.empty(); }));
}

TEST(engine_resync, AReplicaThatIsLostInTheMiddleIsResumed) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    ASSERT(three.bench.Write(at, kMiB32, 1) == ErrorCode::kOk);
  }
  int writes = 0;
  three[2].verdict = [&](const wire::Header& header) {
    const bool breaks = header.opcode == wire::Opcode::kWrite && ++writes == 6;
    return Verdict{breaks ? What::kHalfAndBreak : What::kServe, ErrorCode::kOk};
  };
  three.Return(2);
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
  // What it had received was compared, and not sent again: the one that broke may have been.
  three.bench.On([&] { EXPECT(three[2].written_bytes <= kSize + 4 * kMiB); });
}

TEST(engine_resync, ASourceThatIsLostInTheMiddleIsReplacedByAnother) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    ASSERT(three.bench.Write(at, kMiB32, 1) == ErrorCode::kOk);
  }
  int reads = 0;
  three[0].verdict = [&](const wire::Header& header) {
    return Verdict{header.opcode == wire::Opcode::kRead && ++reads > 2 ? What::kFail : What::kServe,
                   ErrorCode::kIoError};
  };
  three.Return(2);
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
}

// Simulator, seed 501761: it was tried for ever without letting go of the thread.
TEST(engine_resync, ASourceThatIsDownIsWaitedForWhereTheOtherCannotBeRead) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  ASSERT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  int failed = 0;
  three[0].verdict = [&](const wire::Header& header) {
    if (header.opcode != wire::Opcode::kSum) return Verdict{};
    if (++failed == 1) three[1].Unlisten();
    return Verdict{What::kFail, ErrorCode::kIoError};
  };
  three.Return(2);
  ASSERT(three.WaitForMembers(1));
  EXPECT(failed > 0);
  three[0].verdict = nullptr;
  three.Return(1);
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
}

// Simulator, seed 12639: while the store is away it stays a member, and has lost what it had.
TEST(engine_resync, NothingIsCopiedFromAMemberThatMustLeave) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  ASSERT(three.bench.Write(0, kMiB32, 1) == ErrorCode::kOk);
  three[2].verdict = [](const wire::Header& header) {
    return Verdict{header.opcode == wire::Opcode::kSum ? What::kHold : What::kServe,
                   ErrorCode::kOk};
  };
  three.Return(2);
  ASSERT(three.bench.Until([&] { return three[2].held() > 0; }));
  size_t before = 0;
  three.bench.On([&] {
    before = three.bench.events.size();
    three.bench.store_mode = StoreMode::kSilent;
    std::fill(three[0].data.begin(), three[0].data.end(), std::byte{});
    three[0].state.suspect = true;
    three[0].state.lost = true;
    three[0].Break();
  });
  ASSERT(three.bench.Until([&] { return three.bench.At("store probed", before) != SIZE_MAX; }));
  three.bench.On([&] {
    three[2].verdict = nullptr;
    three[2].Release();
  });
  ASSERT(three.bench.Until([&] { return three[2].written_bytes >= kMiB; }));
  three.bench.On([&] {
    three.bench.store_mode = StoreMode::kAnswers;
    three.bench.OnProbeStore(three.bench.last_probe);
  });
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
  EXPECT(three.bench.Reads(0, kMiB32, 1));
}

// Simulator: what the joiner has of it, the last member itself may have lost.
TEST(engine_resync, AJoinerIsComparedAnewWhenTheLastMemberMayHaveLostWrites) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  two.Leave(1);
  ASSERT(two.bench.Write(0, kMiB32, 1) == ErrorCode::kOk);
  ASSERT(two.bench.Write(kRegionBytes, kMiB32, 2) == ErrorCode::kOk);
  two[1].verdict = [](const wire::Header& header) {
    const bool holds = header.opcode == wire::Opcode::kSum && header.offset_bytes >= kRegionBytes;
    return Verdict{holds ? What::kHold : What::kServe, ErrorCode::kOk};
  };
  two.Return(1);
  ASSERT(two.bench.Until([&] { return two[1].held() > 0 && two[1].written_bytes >= kMiB; }));
  two.bench.On([&] {
    std::fill(two[0].data.begin(), two[0].data.begin() + kRegionBytes, std::byte{});
    two[0].state.suspect = two[0].state.lost = true;
    two[0].Break();
    two[1].verdict = nullptr;
    two[1].Release();
  });
  ASSERT(two.WaitForMembers(2));
  EXPECT(two.Same());
}

TEST(engine_resync, AnotherEngineGoesOnWithIt) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    ASSERT(three.bench.Write(at, kMiB32, 1) == ErrorCode::kOk);
  }
  int writes = 0;
  three[2].verdict = [&](const wire::Header& header) {
    return Verdict{
        header.opcode == wire::Opcode::kWrite && ++writes > 5 ? What::kHold : What::kServe,
        ErrorCode::kOk};
  };
  three.Return(2);
  ASSERT(three.bench.Until([&] { return writes > 5; }));
  three[2].verdict = nullptr;
  ASSERT(three.bench.TakeOver());
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
}

TEST(engine_resync, WritesGoOnMeanwhile) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    ASSERT(three.bench.Write(at, kMiB32, 1) == ErrorCode::kOk);
  }
  three.Return(2);
  uint8_t fill = 2;
  for (int i = 0; three.Members() < 3 && i < 3000; ++i) {
    fill = static_cast<uint8_t>(fill % 250 + 1);
    const uint64_t at = static_cast<uint64_t>(i) * 7919 % (kSize / 4096 - 4) * 4096;
    ASSERT(three.bench.Write(at, 8192 + i % 2 * 512, fill) == ErrorCode::kOk);
    ASSERT(three.bench.Reads(at, 8192, fill));
    if (i % 16 == 0) ASSERT(three.bench.Flush() == ErrorCode::kOk);
  }
  EXPECT_EQ(three.Members(), 3U);
  EXPECT(three.Same());
}

TEST(engine_resync, AJoinerThatHangsHoldsNobodyUp) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  ASSERT(three.bench.Write(0, kMiB32, 1) == ErrorCode::kOk);
  std::atomic<bool> holds = true;
  // All that is copied is served; what clients write is not answered.
  three[2].verdict = [&](const wire::Header& header) {
    const bool client = header.opcode == wire::Opcode::kWrite && header.length_bytes == 512;
    return Verdict{client && holds ? What::kHold : What::kServe, ErrorCode::kOk};
  };
  three.Return(2);
  std::vector<Request*> requests;
  three.bench.Until([&] {
    requests.push_back(three.bench.SubmitHere(BlockOperation::kWrite, 0, 512, 3));
    return three[2].held() > 0 || requests.size() > 5000;
  });
  for (Request* request : requests) {
    ASSERT(three.bench.Wait(request));
    EXPECT(request->status == ErrorCode::kOk);
  }
  holds = false;
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
}

// Its flush ends with its connection, and so does its part of the write: neither makes it a member.
TEST(engine_resync, AJoinerThatIsLostInItsLastFlushIsNoMember) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  ASSERT(three.bench.Write(0, kMiB32, 1) == ErrorCode::kOk);
  int flushes = 0;
  three[2].verdict = [&](const wire::Header& header) {
    const bool last = header.opcode == wire::Opcode::kFlush && ++flushes == 3;
    const bool client = header.opcode == wire::Opcode::kWrite && header.length_bytes == 512;
    return Verdict{last || client ? What::kHold : What::kServe, ErrorCode::kOk};
  };
  three.Return(2);
  ASSERT(three.bench.Until([&] { return three[2].held() == 1; }));
  Request* write = three.bench.Submit(BlockOperation::kWrite, 0, 512, 3);
  ASSERT(three.bench.Until([&] { return three[2].held() == 2; }));
  three.bench.On([&] {
    three[2].verdict = nullptr;
    three[2].Break();
  });
  ASSERT(three.bench.Wait(write) && write->status == ErrorCode::kOk);
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
}

TEST(engine_resync, OneThatComesBackEmptyIsNoMemberByAProposal) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  ASSERT(three.bench.Write(0, kMiB32, 1) == ErrorCode::kOk);
  three[2].verdict = [](const wire::Header& header) {
    return Verdict{header.opcode == wire::Opcode::kRecord ? What::kHold : What::kServe,
                   ErrorCode::kOk};
  };
  three.Return(2);
  ASSERT(three.bench.Until([&] { return three[2].held() > 0; }));
  three.bench.On([&] {
    three[2].verdict = nullptr;
    three[2].state.records = {};
    std::fill(three[2].data.begin(), three[2].data.end(), std::byte{});
    three[2].Break();
  });
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
}

TEST(engine_resync, MissingMapsOfOthersAreCopiedBeforeItJoins) {
  Three three;
  three.bench.options.idle_ns = 100 * kNsPerMs;
  ASSERT(three.bench.StartAndWait());
  ASSERT(three.bench.Until([&] { return three[0].dirty.empty(); }));
  three.Leave(2);
  ASSERT(three.bench.Write(kRegionBytes, 4096, 1) == ErrorCode::kOk);
  ASSERT(three.bench.Until([&] { return three[0].dirty.empty() && three[1].dirty.empty(); }));
  three.bench.On([&] { three[1].Unlisten(); });
  ASSERT(three.WaitForMembers(1));
  ASSERT(three.bench.Write(2 * kRegionBytes, 4096, 2) == ErrorCode::kOk);
  three.bench.On([&] { three[1].missing.clear(); });  // as if it had never known
  three.Return(1);
  ASSERT(three.WaitForMembers(2));
  three.bench.On([&] {
    ASSERT(three[1].missing.contains(three[2].id()));
    EXPECT(three[1].missing[three[2].id()].regions.contains(1));
    EXPECT(three[1].missing[three[2].id()].regions.contains(2));
    EXPECT(three[1].missing[three[2].id()].record == three[0].missing[three[2].id()].record);
  });
  three.Return(2);
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
}

TEST(engine_resync, OneThatIsFullIsBackSoonAfterThereIsRoom) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  ASSERT(three.bench.Write(0, kMiB32, 1) == ErrorCode::kOk);
  std::atomic<bool> full = true;
  std::atomic<int> tries = 0;
  three[2].verdict = [&](const wire::Header& header) {
    const bool fails = full && header.opcode == wire::Opcode::kWrite;
    tries += fails ? 1 : 0;
    return Verdict{fails ? What::kFail : What::kServe, ErrorCode::kNoSpace};
  };
  three.Return(2);
  ASSERT(three.bench.Until([&] { return tries >= 3; }, 30'000));
  full = false;
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
}

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
  EXPECT(!early);
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

// What is good nowhere is good at no joiner either: neither what it had there nor a hole.
TEST(engine_resync, ABlockThatIsGoodNowhereIsMarkedAtAJoiner) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  ASSERT(three.bench.Write(0, 65536, 1) == ErrorCode::kOk);
  three.Leave(2);
  ASSERT(three.bench.Write(0, 65536, 2) == ErrorCode::kOk);
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
