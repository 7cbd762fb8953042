#include "engine/several_testing.h"

// Stopping, in whatever mode.
namespace ankole::engine::testing {
namespace {

TEST(engine, StopsCleanWhenAllMembersAreClosed) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  EXPECT(three.bench.Stop());
  for (ScriptedReplica* replica : three.replicas) EXPECT(!replica->state.unclean);
}

TEST(engine, IsNotCleanWhenAMemberBreaksAfterAnotherWasClosed) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three[2].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kClose);
  };
  three.bench.On([&] { three.bench.engine->Stop(); });
  ASSERT(three.bench.Until([&] {
    return three.bench.At("close 10") != SIZE_MAX && three.bench.At("close 11") != SIZE_MAX;
  }));
  // Those that are closed drop their connections; the third has still to answer.
  three.bench.Pass(50);
  three.bench.On([&] {
    three[0].Break();
    three[1].Break();
  });
  EXPECT(three.bench.Never([&] { return three.bench.stopped; }, 300));
  three.bench.On([&] { three[2].Release(); });
  ASSERT(three.bench.Until([&] { return three.bench.stopped; }));
  EXPECT(three.bench.clean);
}

TEST(engine, StopsInTimeInEveryMode) {
  enum class When {
    kStarting,
    kNobody,
    kServing,
    kInFlight,
    kHung,
    kChanging,
    kWantsStore,
    kRefused
  };
  struct Stopping : Three {
    explicit Stopping(When when_is) : when(when_is) {}
    const When when;
    std::vector<Request*> requests;
  };
  std::vector<std::unique_ptr<Stopping>> all;
  for (const When when : {When::kStarting, When::kNobody, When::kServing, When::kInFlight,
                          When::kHung, When::kChanging, When::kWantsStore, When::kRefused}) {
    all.push_back(std::make_unique<Stopping>(when));
    Stopping& three = *all.back();
    Bench& bench = three.bench;
    if (when == When::kStarting) bench.On([&] { three[1].Hang(); });
    if (when == When::kNobody) {
      bench.On([&] {
        for (ScriptedReplica* replica : three.replicas) replica->Unlisten();
      });
    }
    bench.Start();
    if (when == When::kStarting || when == When::kNobody) {
      bench.Pass(100);
      continue;
    }
    ASSERT(bench.Until([&] { return bench.ready; }));
    if (when == When::kInFlight) {
      three[1].verdict = [](const wire::Header& header) {
        return Hold(header.opcode == wire::Opcode::kWrite);
      };
    }
    if (when == When::kHung) bench.On([&] { three[1].Hang(); });
    const bool leaving = when == When::kChanging || when == When::kWantsStore;
    if (leaving) {
      const bool changing = when == When::kChanging;
      bench.On([&] { bench.store_mode = changing ? StoreMode::kProbes : StoreMode::kSilent; });
      for (const size_t i : {1, 2}) {
        three[i].verdict = [](const wire::Header& header) { return FailWrites(header); };
      }
    }
    if (when == When::kRefused) {
      bench.On([&] {
        three[0].state.welcomed = {5, 5};
        three[0].Break();
      });
      ASSERT(bench.Until([&] { return bench.At("state refused") != SIZE_MAX; }));
    }
    if (when == When::kInFlight || when == When::kHung || leaving) {
      // The second waits for the lock of the first.
      for (int i = 0; i < 2; ++i) {
        three.requests.push_back(bench.Submit(BlockOperation::kWrite, 0, 4096, 1));
      }
      bench.Pass(50);
    }
  }
  for (const auto& three : all) three->bench.On([&] { three->bench.engine->Stop(); });
  for (const auto& three : all) {
    EXPECT(three->bench.Until([&] { return three->bench.stopped; }, 3400));
    EXPECT_EQ(three->bench.clean, three->when == When::kServing);
    for (Request* request : three->requests) {
      // Not acknowledged, as not all members have it or the record was never complete.
      ASSERT(three->bench.Wait(request));
      EXPECT(request->status == ErrorCode::kUnavailable);
    }
  }
}

TEST(engine, AMemberThatIsJustReconnectingIsClosedCleanToo) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  // With nothing in flight CLOSE would be on its way already when the connection breaks.
  three.bench.On([&] {
    three[1].verdict = [](const wire::Header& header) {
      return Hold(header.opcode == wire::Opcode::kWrite);
    };
  });
  Request* request = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  ASSERT(three.bench.Until([&] { return three[1].held() == 1; }));
  three.bench.On([&] {
    three[1].verdict = nullptr;
    three[1].Break();
    three.bench.engine->Stop();
  });
  ASSERT(three.bench.Until([&] { return three.bench.stopped; }));
  EXPECT(three.bench.clean);
  EXPECT(request->status == ErrorCode::kOk);
}

TEST(engine, WhatIsInFlightAtTheStopStillEnds) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three[1].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kWrite);
  };
  Request* request = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  ASSERT(three.bench.Until([&] { return three[1].held() == 1; }));
  three.bench.On([&] { three.bench.engine->Stop(); });
  three.bench.Pass(100);
  three.bench.On([&] { three[1].Release(); });
  ASSERT(three.bench.Until([&] { return three.bench.stopped; }));
  EXPECT(request->status == ErrorCode::kOk);
  EXPECT(three.bench.clean);
}

TEST(engine, NothingIsAcknowledgedAtAStopWhileARecordIsOutstanding) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] { three.bench.store_mode = StoreMode::kProbes; });
  three[0].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kWrite && header.offset_bytes > 0);
  };
  for (const size_t i : {1, 2}) {
    three[i].verdict = [](const wire::Header& header) { return FailWrites(header); };
  }
  Request* first = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  ASSERT(three.bench.Until([&] { return three.bench.At("store asked 2") != SIZE_MAX; }));
  Request* second = three.bench.Submit(BlockOperation::kWrite, 4096, 4096, 1);
  ASSERT(three.bench.Until([&] { return three[0].held() == 1; }));
  three.bench.On([&] {
    three.bench.engine->Stop();
    three[0].Release();
  });
  EXPECT(three.bench.Never([&] { return first->finished || second->finished; }, 300));
  three.bench.AnswerStore(Status::Ok());
  ASSERT(three.bench.Wait(first) && three.bench.Wait(second));
  EXPECT(first->status == ErrorCode::kOk && second->status == ErrorCode::kOk);
  ASSERT(three.bench.Until([&] { return three.bench.stopped; }));
  EXPECT(three.bench.clean);
}

TEST(engine, AStopThatIsFencedMeanwhileStillEnds) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] { three.bench.store_mode = StoreMode::kProbes; });
  for (const size_t i : {1, 2}) {
    three[i].verdict = [](const wire::Header& header) { return FailWrites(header); };
  }
  Request* request = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  ASSERT(three.bench.Until([&] { return three.bench.At("store asked 2") != SIZE_MAX; }));
  three.bench.On([&] { three.bench.engine->Stop(); });
  three.bench.AnswerStore({ErrorCode::kFenced, "attachment 9"});
  ASSERT(three.bench.Until([&] { return three.bench.stopped; }, 1000));
  EXPECT(!three.bench.clean);
  ASSERT(three.bench.Wait(request));
  EXPECT(request->status != ErrorCode::kOk);
}

}  // namespace
}  // namespace ankole::engine::testing
