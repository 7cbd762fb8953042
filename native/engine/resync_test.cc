#include "engine/resync_testing.h"

// Replicas that come back or are new: rules 5 and 7 on the real engine.
namespace ankole::engine::testing {
namespace {

using What = Verdict::What;
using Two = Scripted<2>;
using Three = Scripted<3>;

constexpr uint64_t kSize = Bench::kSizeBytes;

// The last one is away while all of the volume is written; what it gets is synced region by region.
bool OneMissesAll(Three& three) {
  three.bench.options.copied_sync_bytes = kRegionBytes;
  if (!three.bench.StartAndWait()) return false;
  three.Leave(2);
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    if (three.bench.Write(at, kMiB32, 1) != ErrorCode::kOk) return false;
  }
  return true;
}

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

// A resync does not drive what clients are at work with out of the page caches of two nodes.
TEST(engine_resync, WhatFillsAJoinerIsNotKeptInPageCaches) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    ASSERT(three.bench.Write(at, kMiB32, 1) == ErrorCode::kOk);
  }
  size_t kept = 0;
  size_t moved = 0;
  for (ScriptedReplica* replica : three.replicas) {
    replica->verdict = [&](const wire::Header& header) {
      const bool moves =
          header.opcode == wire::Opcode::kRead || header.opcode == wire::Opcode::kWrite;
      if (moves) ++((header.flags & wire::kFlagDisablePageOut) != 0 ? moved : kept);
      // The joiner's is read once more where it differs.
      if (header.opcode == wire::Opcode::kSum) EXPECT_EQ(header.flags, 0U);
      return Verdict{What::kServe, ErrorCode::kOk};
    };
  }
  three.Return(2);
  ASSERT(three.WaitForMembers(3));
  three.bench.On([&] {
    EXPECT_EQ(kept, 0U);
    EXPECT(moved >= 2 * kSize / kMiB);
  });
  ASSERT(three.bench.Write(0, 4096, 2) == ErrorCode::kOk);
  three.bench.On([&] { EXPECT_EQ(kept, 3U); });
  EXPECT(three.Same());
}

TEST(engine_resync, WhatIsCopiedIsSyncedInPortions) {
  Three three;
  ASSERT(OneMissesAll(three));
  // While a sync is not answered nothing is written: a disk that does both lets others wait.
  size_t flushes = 0;
  bool holds = true;
  three[2].verdict = [&](const wire::Header& header) {
    if (header.opcode != wire::Opcode::kFlush) return Verdict{What::kServe, ErrorCode::kOk};
    ++flushes;
    return Verdict{holds ? What::kHold : What::kServe, ErrorCode::kOk};
  };
  three.Return(2);
  ASSERT(three.bench.Until([&] { return flushes == 1; }));
  uint64_t written_bytes = 0;
  three.bench.On([&] { written_bytes = three[2].written_bytes; });
  EXPECT(written_bytes >= kRegionBytes && written_bytes < 2 * kRegionBytes);
  EXPECT(!three.bench.Until([&] { return three[2].written_bytes > written_bytes; }, 700));
  three.bench.On([&] {
    EXPECT_EQ(flushes, 1U);
    holds = false;
    three[2].Release();
  });
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
  three.bench.On([&] { EXPECT(flushes >= kSize / kRegionBytes); });
}

// Random writes would have all of the volume compared once more.
TEST(engine_resync, WhatIsWrittenMeanwhileIsComparedInPartsOfRegions) {
  Three three;
  ASSERT(OneMissesAll(three));
  size_t flushes = 0;
  bool holds = true;
  three[2].verdict = [&](const wire::Header& header) {
    if (header.opcode != wire::Opcode::kFlush) return Verdict{What::kServe, ErrorCode::kOk};
    ++flushes;
    return Verdict{holds ? What::kHold : What::kServe, ErrorCode::kOk};
  };
  three.Return(2);
  // The first region was copied, and the last one is not until the sync is answered.
  ASSERT(three.bench.Until([&] { return flushes == 1; }));
  ASSERT(three.bench.Write(kMiB, 4096, 2) == ErrorCode::kOk);
  ASSERT(three.bench.Write(3 * kMiB - 512, 1024, 3) == ErrorCode::kOk);
  ASSERT(three.bench.Write(kSize - 4096, 4096, 4) == ErrorCode::kOk);
  three.bench.On([&] {
    holds = false;
    three[2].Release();
  });
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
  // What was read ahead may have been given back, and that region is compared once more.
  three.bench.On([&] {
    const uint64_t again_bytes = three[2].summed_bytes - kSize - 3 * LackSet::kPartBytes;
    EXPECT(again_bytes == 0 || again_bytes == kRegionBytes);
  });
}

TEST(engine_resync, ASyncOfWhatWasCopiedThatFailsLetsTheJoinerGo) {
  Three three;
  ASSERT(OneMissesAll(three));
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

// What is read ahead meanwhile has its range locked.
TEST(engine_resync, ASyncThatIsSlowHoldsNobodyUp) {
  Three three;
  ASSERT(OneMissesAll(three));
  size_t flushes = 0;
  three[2].verdict = [&](const wire::Header& header) {
    const bool holds = header.opcode == wire::Opcode::kFlush && ++flushes == 1;
    return Verdict{holds ? What::kHold : What::kServe, ErrorCode::kOk};
  };
  three.Return(2);
  ASSERT(three.bench.Until([&] { return flushes == 1; }));
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    ASSERT(three.bench.Write(at, 4096, 2) == ErrorCode::kOk);
  }
  three.bench.On([&] {
    EXPECT_EQ(flushes, 1U);
    three[2].Release();
  });
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
}

TEST(engine_resync, AJoinerThatIsLostWhileItSyncsComesBack) {
  Three three;
  ASSERT(OneMissesAll(three));
  uint64_t read_bytes = 0;
  const auto reads = [&](const wire::Header& header) {
    if (header.opcode == wire::Opcode::kRead) read_bytes += header.length_bytes;
    return Verdict{};
  };
  three[0].verdict = reads;
  three[1].verdict = reads;
  size_t flushes = 0;
  three[2].verdict = [&](const wire::Header& header) {
    const bool holds = header.opcode == wire::Opcode::kFlush && ++flushes == 1;
    return Verdict{holds ? What::kHold : What::kServe, ErrorCode::kOk};
  };
  three.Return(2);
  // What comes next was read, and waits for the sync.
  ASSERT(three.bench.Until(
      [&] { return flushes == 1 && read_bytes > three[2].written_bytes + 2 * kMiB; }));
  three.bench.On([&] { three[2].Break(); });
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
  ASSERT(three.bench.Write(0, 4096, 2) == ErrorCode::kOk);
  EXPECT(three.Same());
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

// Simulator, seed 807241: it was marked as good nowhere, and the mark then copied over the good
// one.
TEST(engine_resync, AMemberThatIsDownIsWaitedForWhereABlockIsBadAtTheOther) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  ASSERT(three.bench.Write(0, 8192, 1) == ErrorCode::kOk);
  std::atomic<int> sums = 0;
  three.bench.On([&] {
    three[0].bad = {1};
    three[0].verdict = [&](const wire::Header& header) {
      if (header.opcode == wire::Opcode::kSum && ++sums == 1) three[1].Unlisten();
      return Verdict{};
    };
  });
  three.Return(2);
  ASSERT(three.bench.Until([&] { return sums > 0; }));
  three.Return(1);
  ASSERT(three.WaitForMembers(3));
  three.bench.On([&] { EXPECT(three[2].bad.empty() && three[2].data == three[1].data); });
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

// Simulator, seed 819710: the one that lost something must write the record before it can leave.
TEST(engine_resync, AJoinerThatWasProposedStaysAloneWhenTheLastMemberLosesSomething) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  two.Leave(1);
  ASSERT(two.bench.Write(0, kMiB32, 1) == ErrorCode::kOk);
  two[0].verdict = [](const wire::Header& header) {
    return Verdict{header.opcode == wire::Opcode::kRecord ? What::kHold : What::kServe,
                   ErrorCode::kOk};
  };
  const size_t from = two.bench.events.size();
  two.Return(1);
  ASSERT(two.bench.Until([&] { return two[0].held() > 0; }));
  two.bench.On([&] {
    std::fill(two[0].data.begin(), two[0].data.begin() + kRegionBytes, std::byte{});
    two[0].verdict = nullptr;
    two[0].state.suspect = two[0].state.lost = true;
    two[0].Break();
  });
  ASSERT(
      two.bench.Until([&] { return two.bench.At("replica 10 fault suspect", from) != SIZE_MAX; }));
  EXPECT(two.bench.Reads(0, kMiB32, 1));
  ASSERT(two.bench.Write(0, 4096, 2) == ErrorCode::kOk);
  EXPECT(two.bench.Flush() == ErrorCode::kOk);
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

// Simulator, seed 705944: the joiner has what the only member failed, and reads would give this or
// that.
TEST(engine_resync, AJoinerIsComparedAnewWhereTheMembersFailedAWrite) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  two.Leave(1);
  ASSERT(two.bench.Write(0, kMiB32, 1) == ErrorCode::kOk);
  int flushes = 0;
  two[1].verdict = [&](const wire::Header& header) {
    const bool last = header.opcode == wire::Opcode::kFlush && ++flushes == 3;
    return Verdict{last ? What::kHold : What::kServe, ErrorCode::kOk};
  };
  two.Return(1);
  ASSERT(two.bench.Until([&] { return two[1].held() == 1; }));
  two[0].verdict = [](const wire::Header& header) {
    return Verdict{header.opcode == wire::Opcode::kWrite ? What::kFail : What::kServe,
                   ErrorCode::kIoError};
  };
  EXPECT(two.bench.Write(4096, 512, 3) == ErrorCode::kIoError);
  two.bench.On([&] {
    two[0].verdict = two[1].verdict = nullptr;
    two[1].Release();
  });
  ASSERT(two.WaitForMembers(2));
  EXPECT(two.Same());
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

// Nor is the record written to it before it has left: by that it would get only what it missed
// since (simulator, seed 1007405).
TEST(engine_resync, OneThatComesBackEmptyIsNoMemberByAProposal) {
  Three three;
  three.bench.options.late_ns = kNsPerSecond;  // nor are those late that hold a PING
  three.bench.options.idle_ns = 100 * kNsPerMs;
  ASSERT(three.bench.StartAndWait());
  // What it missed is not all that it lacks.
  ASSERT(three.bench.Write(kRegionBytes, kMiB32, 7) == ErrorCode::kOk);
  ASSERT(three.bench.Until(
      [&] { return three[0].dirty.empty() && three[1].dirty.empty() && three[2].dirty.empty(); }));
  three.Leave(2);
  ASSERT(three.bench.Write(0, kMiB32, 1) == ErrorCode::kOk);
  three[2].verdict = [](const wire::Header& header) {
    return Verdict{header.opcode == wire::Opcode::kRecord ? What::kHold : What::kServe,
                   ErrorCode::kOk};
  };
  three.Return(2);
  ASSERT(three.bench.Until([&] { return three[2].held() > 0; }));
  // It cannot leave before one of the others has answered a PING.
  for (const size_t i : {0, 1}) {
    three[i].verdict = [](const wire::Header& header) {
      return Verdict{header.opcode == wire::Opcode::kPing ? What::kHold : What::kServe,
                     ErrorCode::kOk};
    };
  }
  const size_t from = three.bench.events.size();
  three.bench.On([&] {
    three[2].verdict = nullptr;
    three[2].state.records = {};
    std::fill(three[2].data.begin(), three[2].data.end(), std::byte{});
    three[2].Break();
  });
  ASSERT(three.bench.Until([&] { return three.bench.At("welcome 12", from) != SIZE_MAX; }));
  EXPECT(!three.WaitForMembers(3, 200));
  three.bench.On([&] {
    for (const size_t i : {0, 1}) {
      three[i].verdict = nullptr;
      three[i].Release();
    }
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

}  // namespace
}  // namespace ankole::engine::testing
