#include "engine/resync_testing.h"

// A volume that becomes larger: members first, then the engine, then whoever was away.
namespace ankole::engine::testing {
namespace {

using What = Verdict::What;
using Two = Scripted<2>;
using Three = Scripted<3>;

constexpr uint64_t kSize = Bench::kSizeBytes;
constexpr uint64_t kLarger = 2 * kSize + 8192;
constexpr uint32_t kEnd = 8192;  // behind the last whole region

const std::string kGrown = "size " + std::to_string(kLarger) + " done";

Status Expand(Bench& bench, uint64_t size_bytes, const std::string& id = "one") {
  Status status;
  bench.On([&] { status = bench.engine->Expand(id, size_bytes); });
  return status;
}

bool WaitFor(Bench& bench, ExpansionState state) {
  return bench.Until([&] { return bench.expansion.state == state; });
}

uint64_t SizeOf(Bench& bench) {
  uint64_t size_bytes = 0;
  bench.On([&] { size_bytes = bench.engine->size_bytes(); });
  return size_bytes;
}

// Answers EXPAND as it is told, all else as a good replica.
Judge::Function AtExpand(Verdict verdict) {
  return [verdict](const wire::Header& header) {
    return header.opcode == wire::Opcode::kExpand ? verdict : Verdict{};
  };
}

TEST(engine_expand, AllMembersGrowFirstAndNothingWaits) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  ASSERT(two.bench.Write(kSize - 8192, 8192, 1) == ErrorCode::kOk);
  two[1].verdict = AtExpand({What::kHold, ErrorCode::kOk});
  ASSERT_OK(Expand(two.bench, kLarger));
  ASSERT(two.bench.Until([&] {
    return two[0].state.size_bytes == kLarger && two[1].asked(wire::Opcode::kExpand) == 1;
  }));
  // One has not said that it is.
  ASSERT(two.bench.Write(kSize - 4096, 4096, 2) == ErrorCode::kOk);
  ASSERT(two.bench.Flush() == ErrorCode::kOk);
  EXPECT_EQ(SizeOf(two.bench), kSize);
  two.bench.On([&] { two[1].Release(); });
  ASSERT(WaitFor(two.bench, ExpansionState::kDone));
  EXPECT_EQ(SizeOf(two.bench), kLarger);
  EXPECT(two.bench.Reads(kSize, kMiB32, 0) && two.bench.Reads(kLarger - kEnd, kEnd, 0));
  EXPECT(two.bench.Reads(kSize - 4096, 4096, 2));
  ASSERT(two.bench.Write(kLarger - kEnd, kEnd, 3) == ErrorCode::kOk);
  ASSERT(two.bench.Write(kSize - 4096, 12288, 4) == ErrorCode::kOk);
  EXPECT(two.Same());
  // The new regions are accounted for.
  two.bench.On([&] { EXPECT(two[0].ever_dirty.contains(8) && two[1].ever_dirty.contains(8)); });
  EXPECT(two.bench.Stop());
}

TEST(engine_expand, AMemberWithoutSpaceRefusesAndNothingChanges) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  two[1].verdict = AtExpand({What::kFail, ErrorCode::kNoSpace});
  ASSERT_OK(Expand(two.bench, kLarger));
  ASSERT(WaitFor(two.bench, ExpansionState::kFailed));
  EXPECT(two.bench.expansion.status.code() == ErrorCode::kNoSpace);
  EXPECT(two.bench.expansion.status.message().find("11") != std::string::npos);
  EXPECT_EQ(SizeOf(two.bench), kSize);
  EXPECT_EQ(two.Members(), 2U);
  ASSERT(two.bench.Write(kSize - 4096, 4096, 2) == ErrorCode::kOk);
  // The other one may stay larger than the volume, through a new start, too.
  two.bench.options.expand_to_bytes = 0;
  ASSERT(two.bench.TakeOver());
  EXPECT_EQ(SizeOf(two.bench), kSize);
  EXPECT_EQ(two.Members(), 2U);
  two[1].verdict = nullptr;
  ASSERT_OK(Expand(two.bench, kLarger, "two"));
  ASSERT(WaitFor(two.bench, ExpansionState::kDone));
  EXPECT(two.bench.expansion.id == "two");
  EXPECT_EQ(SizeOf(two.bench), kLarger);
  EXPECT(two.Same());
}

TEST(engine_expand, WhatCannotBeIsRefusedAtOnce) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  EXPECT(Expand(two.bench, kSize - 4096).code() == ErrorCode::kInvalidArgument);
  EXPECT(Expand(two.bench, kSize + 512).code() == ErrorCode::kInvalidArgument);
  EXPECT(Expand(two.bench, kVolumeBytesMax + 4096).code() == ErrorCode::kInvalidArgument);
  ASSERT_OK(Expand(two.bench, kSize));  // it has that
  ASSERT(WaitFor(two.bench, ExpansionState::kDone));
  two[1].verdict = AtExpand({What::kHold, ErrorCode::kOk});
  ASSERT_OK(Expand(two.bench, kLarger, "two"));
  EXPECT(Expand(two.bench, kLarger + 4096, "three").code() == ErrorCode::kBusy);
  ASSERT_OK(Expand(two.bench, kLarger, "two"));
  two.bench.On([&] {
    EXPECT_EQ(two[1].asked(wire::Opcode::kExpand), 1);
    two[1].verdict = nullptr;
    two[1].Release();
  });
  ASSERT(WaitFor(two.bench, ExpansionState::kDone));
}

TEST(engine_expand, AReplicaThatWasAwayGrowsBeforeItIsFilled) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  ASSERT(three.bench.Write(kSize - 4096, 4096, 1) == ErrorCode::kOk);
  three.Leave(2);
  ASSERT_OK(Expand(three.bench, kLarger));
  ASSERT(WaitFor(three.bench, ExpansionState::kDone));
  ASSERT(three.bench.Write(kSize - 4096, 8192, 2) == ErrorCode::kOk);
  ASSERT(three.bench.Write(kLarger - kEnd, kEnd, 3) == ErrorCode::kOk);
  // It has no space for that at first.
  three[2].verdict = AtExpand({What::kFail, ErrorCode::kNoSpace});
  three.Return(2);
  ASSERT(three.bench.Until([&] { return three[2].asked(wire::Opcode::kExpand) > 0; }));
  EXPECT(
      three.bench.Until([&] { return three.bench.At("replica 12 fault no-space") != SIZE_MAX; }));
  EXPECT_EQ(three.Members(), 2U);
  three[2].verdict = nullptr;
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
  three.bench.On([&] { EXPECT_EQ(three[2].state.size_bytes, kLarger); });
  EXPECT(three.bench.At("expand " + std::to_string(kLarger) + " at 12") <
         three.bench.At("write", three.bench.At("expand " + std::to_string(kLarger) + " at 12")));
}

TEST(engine_expand, OneThatIsBeingFilledGrowsWithTheMembers) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.Leave(2);
  ASSERT(three.bench.Write(0, kMiB32, 1) == ErrorCode::kOk);
  three[2].verdict = [](const wire::Header& header) {
    return Verdict{header.opcode == wire::Opcode::kWrite ? What::kHold : What::kServe,
                   ErrorCode::kOk};
  };
  three.Return(2);
  ASSERT(three.bench.Until([&] { return three[2].asked(wire::Opcode::kWrite) > 0; }));
  ASSERT_OK(Expand(three.bench, kLarger));
  ASSERT(WaitFor(three.bench, ExpansionState::kDone));
  three.bench.On([&] { EXPECT_EQ(three[2].state.size_bytes, kLarger); });
  ASSERT(three.bench.Write(kLarger - kEnd, kEnd, 2) == ErrorCode::kOk);
  three.bench.On([&] {
    three[2].verdict = nullptr;
    three[2].Release();
  });
  ASSERT(three.WaitForMembers(3));
  EXPECT(three.Same());
}

// Else a start could find the replica that was dropped, with the size of before.
TEST(engine_expand, AChangeOfMembersIsWaitedFor) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three[0].verdict = [](const wire::Header& header) {
    return Verdict{header.opcode == wire::Opcode::kRecord ? What::kHold : What::kServe,
                   ErrorCode::kOk};
  };
  three.bench.On([&] { three[2].Unlisten(); });
  ASSERT(three.bench.Until([&] { return three.bench.engine->mode() == Mode::kChanging; }));
  ASSERT_OK(Expand(three.bench, kLarger));
  ASSERT(three.bench.Until([&] { return three[1].state.size_bytes == kLarger; }));
  EXPECT(three.bench.Never([&] { return three.bench.engine->size_bytes() != kSize; }, 700));
  three.bench.On([&] {
    three[0].verdict = nullptr;
    three[0].Release();
  });
  ASSERT(WaitFor(three.bench, ExpansionState::kDone));
  EXPECT_EQ(three.Members(), 2U);
}

// Who was asked three times and each time was lost does not know the request, or fails at it.
TEST(engine_expand, AConnectionThatBreaksAtItEndsIt) {
  Two two;
  two.bench.options.late_ns = 20 * kNsPerSecond;
  ASSERT(two.bench.StartAndWait());
  two[1].verdict = [&](const wire::Header& header) {
    if (header.opcode != wire::Opcode::kExpand) return Verdict{};
    two.bench.engine_reactor->BreakConnections();
    return Verdict{What::kFail, ErrorCode::kIoError};
  };
  ASSERT_OK(Expand(two.bench, kLarger));
  ASSERT(WaitFor(two.bench, ExpansionState::kFailed));
  two.bench.On([&] { EXPECT(two[1].asked(wire::Opcode::kExpand) >= 1); });
  EXPECT(two.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  EXPECT_EQ(SizeOf(two.bench), kSize);
}

// An engine that ended before it could say what clients had seen: its next run has the same order.
TEST(engine_expand, TheNextRunKnowsWhatTheOneBeforeServed) {
  Two two;
  two.bench.options.expansion_id = "one";
  two.bench.options.expand_to_bytes = kLarger;
  ASSERT(two.bench.StartAndWait());
  EXPECT(two.bench.At(kGrown) < two.bench.At("ready"));
  EXPECT_EQ(SizeOf(two.bench), kLarger);
  ASSERT(two.bench.Write(kLarger - kEnd, kEnd, 3) == ErrorCode::kOk);
  // What was under way when it ended is on one member only.
  two.bench.On([&] { two[1].data[kLarger - 1] = std::byte{9}; });
  ASSERT(two.bench.TakeOver());
  EXPECT_EQ(SizeOf(two.bench), kLarger);
  two.bench.On([&] {
    EXPECT_EQ(two[0].asked(wire::Opcode::kExpand), 1);
    EXPECT(two.bench.expansion.state == ExpansionState::kDone);
  });
  ASSERT(two.bench.Until([&] { return two[0].data == two[1].data; }));
}

TEST(engine_expand, AStartWithoutSpaceServesTheVolumeAsItWas) {
  Two two;
  two.bench.options.expansion_id = "one";
  two.bench.options.expand_to_bytes = kLarger;
  two[1].verdict = AtExpand({What::kFail, ErrorCode::kNoSpace});
  ASSERT(two.bench.StartAndWait());
  EXPECT(two.bench.expansion.state == ExpansionState::kFailed);
  EXPECT_EQ(SizeOf(two.bench), kSize);
  EXPECT(two.bench.Write(kSize - 4096, 4096, 1) == ErrorCode::kOk);
}

// As after salvage: the owner chose a replica of before.
TEST(engine_expand, AStartMakesItsReplicasAsLargeAsTheVolume) {
  Two two;
  two.bench.options.size_bytes = kLarger;
  ASSERT(two.bench.StartAndWait());
  EXPECT(two.bench.At("expand " + std::to_string(kLarger) + " at 10") < two.bench.At("record"));
  EXPECT(two.bench.At("expand " + std::to_string(kLarger) + " at 11") < two.bench.At("record"));
  EXPECT_EQ(two.Members(), 2U);
  EXPECT(two.bench.Reads(kLarger - kEnd, kEnd, 0));
  ASSERT(two.bench.Write(kLarger - kEnd, kEnd, 1) == ErrorCode::kOk);
  EXPECT(two.Same());
}

TEST(engine_expand, RealReplicasGrowUnderLoad) {
  Bench bench;
  bench.AddReal();
  bench.AddReal();
  ASSERT(bench.StartAndWait());
  std::vector<Request*> writes;
  for (int i = 0; i < 64; ++i) {
    writes.push_back(bench.Submit(BlockOperation::kWrite, kSize - 65536 * (1 + i % 8), 65536, 7));
    if (i == 20) ASSERT_OK(Expand(bench, kLarger));
  }
  for (Request* write : writes) {
    ASSERT(bench.Wait(write));
    EXPECT(write->status == ErrorCode::kOk);
  }
  ASSERT(WaitFor(bench, ExpansionState::kDone));
  EXPECT(bench.Reads(kSize - 65536, 65536, 7) && bench.Reads(kSize, kMiB32, 0));
  ASSERT(bench.Write(kLarger - kEnd, kEnd, 8) == ErrorCode::kOk);
  EXPECT(bench.Stop());
  bench.options.size_bytes = kLarger;
  ASSERT(bench.StartAndWait());
  EXPECT(bench.Reads(kLarger - kEnd, kEnd, 8) && bench.Reads(kSize - 65536, 65536, 7));
  EXPECT(bench.Stop());
}

}  // namespace
}  // namespace ankole::engine::testing
