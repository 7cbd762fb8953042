#include "engine/several_testing.h"

// A member whose disk is full, and which stays as its leaving needs the store: what it still
// serves.
namespace ankole::engine::testing {
namespace {

constexpr uint64_t kRefusedAt = 2 * kMiB;
constexpr uint64_t kRepairedAt = kRegionBytes;

Verdict FailsAt(const wire::Header& header, wire::Opcode opcode, uint64_t offset_bytes,
                ErrorCode why) {
  return FailWith(header.opcode == opcode && header.offset_bytes == offset_bytes, why);
}

// Both hold 1 at the beginning of the volume, where the first cannot read any more.
struct FullAndUnreadable {
  explicit FullAndUnreadable(std::set<uint32_t> dirty = {}) {
    for (ScriptedReplica* replica : two.replicas) {
      replica->state.unclean = !dirty.empty();
      replica->dirty = dirty;
    }
    two[1].verdict = [](const wire::Header& header) {
      return Hold(header.opcode == wire::Opcode::kSum);
    };
    CHECK(two.bench.StartAndWait());
    CHECK(two.bench.Write(0, 4096, 1) == ErrorCode::kOk);
    two[0].verdict = [](const wire::Header& header) {
      return FailsAt(header, wire::Opcode::kRead, 0, ErrorCode::kIoError);
    };
  }
  ~FullAndUnreadable() {
    two.bench.On([&] { two.bench.store_mode = StoreMode::kAnswers; });
    if (refused == nullptr) return;
    EXPECT(two.bench.Wait(refused));
    EXPECT(refused->status == ErrorCode::kOk);
  }
  // The second refuses a write, and the store cannot be reached.
  void Refuse(ErrorCode why) {
    two.bench.On([&] { two.bench.store_mode = StoreMode::kRefuses; });
    two[1].verdict = [why](const wire::Header& header) {
      if (header.opcode == wire::Opcode::kWrite && header.offset_bytes == kRepairedAt) {
        return FailWith(true, ErrorCode::kIoError);
      }
      return FailsAt(header, wire::Opcode::kWrite, kRefusedAt, why);
    };
    refused = two.bench.Submit(BlockOperation::kWrite, kRefusedAt, 4096, 2);
    CHECK(two.bench.Until([&] { return two.bench.At("store probed") != SIZE_MAX; }));
  }
  // The second is back.
  void Reconnect(bool lost) {
    const size_t from = two.bench.events.size();
    two.bench.On([&] {
      two[1].state.suspect = two[1].state.lost = lost;
      two[1].Break();
    });
    CHECK(two.bench.Until([&] { return two.bench.At("welcome 11", from) != SIZE_MAX; }));
    // What the engine sends on the new connection comes after it has judged the replica.
    CHECK(two.bench.Write(8192, 4096, 3) == ErrorCode::kOk);
  }
  // The second cannot be reached, and the engine knows it.
  void GoesDown() {
    const size_t from = two.bench.events.size();
    two.bench.On([&] { two[1].Unlisten(); });
    CHECK(two.bench.Until([&] { return two.bench.At("replica 11 connecting", from) != SIZE_MAX; }));
  }
  ErrorCode Read() { return two.bench.Do(BlockOperation::kRead, 0, 4096); }
  Two two;
  Request* refused = nullptr;
};

TEST(engine_whole, AMemberThatLeavesForWantOfSpaceIsReadWhereTheOthersFail) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kNoSpace);
  EXPECT(pair.two.bench.Reads(0, 4096, 1));
  // What it refused nobody reads yet.
  Request* read = pair.two.bench.Submit(BlockOperation::kRead, kRefusedAt, 4096);
  EXPECT(pair.two.bench.Never([&] { return read->finished || pair.refused->finished; }, 200));
  // What it takes from now on it has as well.
  EXPECT(pair.two.bench.Write(0, 4096, 4) == ErrorCode::kOk);
  EXPECT(pair.two.bench.Reads(0, 4096, 4));
  EXPECT_EQ(pair.two.Members(), 2U);
  pair.two.bench.On([&] { pair.two.bench.store_mode = StoreMode::kAnswers; });
  ASSERT(pair.two.bench.Wait(read));
  EXPECT(Bench::Holds(read, 2));
}

TEST(engine_whole, AMemberThatFailedAWriteIsReadAsWell) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kIoError);
  EXPECT(pair.two.bench.Reads(0, 4096, 1));
}

TEST(engine_whole, AMemberThatCannotWriteTheRecordIsReadAsWell) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  three.bench.On([&] { three.bench.store_mode = StoreMode::kRefuses; });
  three[0].verdict = [](const wire::Header& header) {
    return FailsAt(header, wire::Opcode::kRead, 0, ErrorCode::kIoError);
  };
  three[1].verdict = [](const wire::Header& header) {
    return FailWith(header.opcode == wire::Opcode::kRecord, ErrorCode::kIoError);
  };
  // The third leaves for this.
  three[2].verdict = [](const wire::Header& header) {
    return FailsAt(header, wire::Opcode::kWrite, kRefusedAt, ErrorCode::kIoError);
  };
  Request* write = three.bench.Submit(BlockOperation::kWrite, kRefusedAt, 4096, 2);
  ASSERT(three.bench.Until([&] { return three.bench.At("store probed") != SIZE_MAX; }));
  EXPECT(three.bench.Reads(0, 4096, 1));
  EXPECT(!write->finished);
  three.bench.On([&] { three.bench.store_mode = StoreMode::kAnswers; });
  ASSERT(three.bench.Wait(write));
  EXPECT(write->status == ErrorCode::kOk);
  EXPECT_EQ(three.Members(), 1U);
}

TEST(engine_whole, AMemberThatLeavesForWhatItMayHaveLostIsNotRead) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kSuspect);
  EXPECT(pair.Read() == ErrorCode::kIoError);
}

// Simulator, seed 7710125: the client was told, and what they hold there differs.
TEST(engine_whole, AMemberIsNotReadAfterTheOthersFailedAWriteThatItDid) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kIoError);
  pair.two[0].verdict = [](const wire::Header& header) {
    const bool fails =
        header.opcode == wire::Opcode::kWrite || header.opcode == wire::Opcode::kRead;
    return FailWith(fails && header.offset_bytes == 0, ErrorCode::kIoError);
  };
  EXPECT(pair.two.bench.Write(0, 4096, 9) == ErrorCode::kIoError);
  EXPECT(pair.Read() == ErrorCode::kIoError);
}

TEST(engine_whole, AMemberThatFailsAFlushAsWellIsNotRead) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kIoError);
  pair.two[1].verdict = [](const wire::Header& header) {
    return FailWith(header.opcode == wire::Opcode::kFlush, ErrorCode::kIoError);
  };
  Request* flush = pair.two.bench.Submit(BlockOperation::kFlush, 0, 0);
  EXPECT(pair.two.bench.Never([&] { return flush->finished; }, 200));
  EXPECT(pair.Read() == ErrorCode::kIoError);
  pair.two.bench.On([&] { pair.two.bench.store_mode = StoreMode::kAnswers; });
  ASSERT(pair.two.bench.Wait(flush));
}

// What it has, the other may have lost.
TEST(engine_whole, AMemberThatFailedAWriteStaysInsteadOfOneThatLostSomething) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kIoError);
  pair.two.bench.On([&] {
    pair.two[0].verdict = nullptr;
    std::fill_n(pair.two[0].data.begin(), 4096, std::byte{9});
    pair.two[0].state.suspect = pair.two[0].state.lost = true;
    pair.two[0].Break();
  });
  EXPECT(pair.two.bench.Reads(0, 4096, 1));
  pair.two.bench.On([&] { pair.two.bench.store_mode = StoreMode::kAnswers; });
  ASSERT(pair.two.bench.Until(
      [&] { return pair.two.bench.At("replica 10 fault suspect") != SIZE_MAX; }));
  EXPECT(pair.two.bench.Reads(0, 4096, 1));
  // The write that failed there fails, or is done where there is one again that can.
  ASSERT(pair.two.bench.Wait(pair.refused));
  EXPECT(pair.refused->status == ErrorCode::kIoError);
  pair.refused = nullptr;
}

TEST(engine_whole, AFullMemberIsReadOnAfterItsConnectionBroke) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kNoSpace);
  pair.Reconnect(false);
  EXPECT(pair.two.bench.Reads(0, 4096, 1));
}

// Simulator, seed 904825.
TEST(engine_whole, AReadWaitsForAFullMemberThatIsDown) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kNoSpace);
  pair.GoesDown();
  Request* read = pair.two.bench.Submit(BlockOperation::kRead, 0, 4096);
  EXPECT(pair.two.bench.Never([&] { return read->finished; }, 100));
  pair.two.bench.On([&] { pair.two[1].Listen(); });
  ASSERT(pair.two.bench.Wait(read));
  EXPECT(Bench::Holds(read, 1));
}

TEST(engine_whole, AReadThatWaitsForAFullMemberEndsWhenThatHasLostSomething) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kNoSpace);
  pair.GoesDown();
  Request* read = pair.two.bench.Submit(BlockOperation::kRead, 0, 4096);
  pair.two.bench.On([&] {
    pair.two[1].state.suspect = pair.two[1].state.lost = true;
    pair.two[1].Listen();
  });
  ASSERT(pair.two.bench.Wait(read));
  EXPECT(read->status == ErrorCode::kIoError);
}

TEST(engine_whole, AFullMemberIsNotReadAfterItLostSomething) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kNoSpace);
  pair.Reconnect(true);
  EXPECT(pair.Read() == ErrorCode::kIoError);
}

// Otherwise the client would be told of an error that its volume does not have.
TEST(engine_whole, AFullMemberStaysInsteadOfOneThatFailsAWrite) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kNoSpace);
  pair.two[0].verdict = [](const wire::Header& header) {
    return FailWith(header.opcode == wire::Opcode::kWrite, ErrorCode::kIoError);
  };
  Request* write = pair.two.bench.Submit(BlockOperation::kWrite, 0, 4096, 5);
  EXPECT(pair.two.bench.Never([&] { return write->finished; }, 200));
  EXPECT(pair.two.bench.Reads(8192, 4096, 0));
  pair.two.bench.On([&] { pair.two.bench.store_mode = StoreMode::kAnswers; });
  ASSERT(pair.two.bench.Wait(write));
  EXPECT(write->status == ErrorCode::kOk);
  EXPECT(pair.two.bench.At("replica 10 fault io-error") != SIZE_MAX);
  EXPECT_EQ(pair.two.bench.At("replica 11 fault"), SIZE_MAX);
  EXPECT(pair.two.bench.Reads(0, 4096, 5));
  // What it has no space for waits.
  EXPECT(!pair.refused->finished);
  pair.two[1].verdict = nullptr;
}

TEST(engine_whole, AFullMemberStaysInsteadOfOneThatFailsWhatItRefuses) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kNoSpace);
  pair.two[0].verdict = [](const wire::Header& header) {
    return FailWith(header.opcode == wire::Opcode::kWrite, ErrorCode::kIoError);
  };
  pair.two[1].verdict = [](const wire::Header& header) {
    return FailWith(header.opcode == wire::Opcode::kWrite, ErrorCode::kNoSpace);
  };
  Request* write = pair.two.bench.Submit(BlockOperation::kWrite, 0, 4096, 5);
  pair.two.bench.On([&] { pair.two.bench.store_mode = StoreMode::kAnswers; });
  ASSERT(pair.two.bench.Until(
      [&] { return pair.two.bench.At("replica 10 fault io-error") != SIZE_MAX; }));
  EXPECT(pair.two.bench.Never([&] { return write->finished; }, 200));
  pair.two[1].verdict = nullptr;
  ASSERT(pair.two.bench.Wait(write));
  EXPECT(write->status == ErrorCode::kOk);
}

TEST(engine_whole, AFullMemberStaysInsteadOfOneThatLostSomething) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kNoSpace);
  const size_t from = pair.two.bench.events.size();
  pair.two.bench.On([&] {
    std::fill_n(pair.two[0].data.begin(), 4096, std::byte{9});
    pair.two[0].state.suspect = pair.two[0].state.lost = true;
    pair.two[0].verdict = nullptr;
    pair.two[0].Break();
  });
  ASSERT(pair.two.bench.Until([&] { return pair.two.bench.At("welcome 10", from) != SIZE_MAX; }));
  EXPECT(pair.two.bench.Reads(0, 4096, 1));
  pair.two[1].verdict = nullptr;
  pair.two.bench.On([&] { pair.two.bench.store_mode = StoreMode::kAnswers; });
  ASSERT(pair.two.bench.Wait(pair.refused));
  EXPECT(pair.two.bench.At("replica 10 fault suspect") != SIZE_MAX);
  EXPECT_EQ(pair.two.bench.At("replica 11 fault"), SIZE_MAX);
  EXPECT(pair.two.bench.Flush() == ErrorCode::kOk);
}

TEST(engine_whole, AFullMemberGetsAgainWhatWasUnderWayWhenItsConnectionBroke) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kNoSpace);
  pair.two[1].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kWrite && header.offset_bytes == 0);
  };
  Request* under_way = pair.two.bench.Submit(BlockOperation::kWrite, 0, 4096, 5);
  ASSERT(pair.two.bench.Until([&] { return pair.two[1].held() == 1; }));
  pair.two[1].verdict = nullptr;
  pair.Reconnect(false);
  ASSERT(pair.two.bench.Wait(under_way));
  EXPECT(under_way->status == ErrorCode::kOk);
  EXPECT(pair.two.bench.Reads(0, 4096, 5));
}

TEST(engine_whole, AFullMemberThatStaysIsAskedForItsDirtyRegions) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kNoSpace);
  pair.Reconnect(false);
  const int asked = pair.two[1].asked(wire::Opcode::kMap);
  pair.two[1].verdict = nullptr;
  // Who leaves must not be back: the one that stays would be asked what that misses.
  pair.two.bench.On(
      [&] { pair.two[0].hello_refusal = Status(ErrorCode::kNotFound, "no such replica"); });
  pair.two[0].verdict = [](const wire::Header& header) {
    return FailsAt(header, wire::Opcode::kWrite, 4096, ErrorCode::kIoError);
  };
  Request* failing = pair.two.bench.Submit(BlockOperation::kWrite, 4096, 4096, 6);
  pair.two.bench.On([&] { pair.two.bench.store_mode = StoreMode::kAnswers; });
  ASSERT(pair.two.bench.Wait(failing));
  EXPECT(failing->status == ErrorCode::kOk);
  EXPECT_EQ(pair.two.bench.At("replica 11 fault"), SIZE_MAX);
  EXPECT(pair.two.bench.Until([&] { return pair.two[1].asked(wire::Opcode::kMap) > asked; }));
}

TEST(engine_whole, AFullMemberIsNotReadBeforeAllAreEqual) {
  FullAndUnreadable pair({1});
  pair.Refuse(ErrorCode::kNoSpace);
  EXPECT(pair.Read() == ErrorCode::kIoError);
}

TEST(engine_whole, AFullMemberIsNotReadAfterARepairOfItFailed) {
  FullAndUnreadable pair;
  pair.two.bench.On([&] {
    for (ScriptedReplica* replica : pair.two.replicas) {
      replica->written.insert(kRepairedAt / kBlockBytes);
    }
    pair.two[1].bad = {kRepairedAt / kBlockBytes};
    pair.two.bench.engine->Scrub(kRepairedAt, 4096, 0);
  });
  ASSERT(pair.two.bench.Until([&] { return pair.two[1].held() > 0; }));
  pair.Refuse(ErrorCode::kNoSpace);
  EXPECT(pair.two.bench.Reads(0, 4096, 1));
  const int writes = pair.two[1].asked(wire::Opcode::kWrite);
  pair.two.bench.On([&] { pair.two[1].Release(); });
  ASSERT(pair.two.bench.Until([&] { return pair.two[1].asked(wire::Opcode::kWrite) > writes; }));
  // Its answer comes after that of the repair.
  EXPECT(pair.two.bench.Write(8192, 4096, 3) == ErrorCode::kOk);
  EXPECT(pair.Read() == ErrorCode::kIoError);
}

// A sync failed at the one that stays: what it still has may be old. The other's is sure.
TEST(engine_whole, AFullMemberIsReadBeforeWhatASyncMayHaveLost) {
  FullAndUnreadable pair;
  pair.Refuse(ErrorCode::kNoSpace);
  const auto spoiled = [](const wire::Header& header) {
    const bool sure = (header.flags & wire::kFlagAnyway) == 0;
    return FailWith(header.opcode == wire::Opcode::kRead && sure, ErrorCode::kSuspect);
  };
  pair.two[0].verdict = spoiled;
  pair.two.bench.On([&] { std::fill_n(pair.two[0].data.begin(), 4096, std::byte{9}); });
  EXPECT(pair.two.bench.Reads(0, 4096, 1));
  // It has lost something as well, and is not asked for that.
  pair.two[1].verdict = spoiled;
  EXPECT(pair.two.bench.Reads(0, 4096, 9));
}

}  // namespace
}  // namespace ankole::engine::testing
