#include <array>
#include <cstring>

#include "engine/engine_testing.h"

// Holds, which make several requests one step, and the target state.
namespace ankole::engine::testing {
namespace {

using What = Verdict::What;

Request* Hold(Bench& bench, uint64_t offset, uint32_t length) {
  Request* hold = bench.Submit(BlockOperation::kHold, offset, length);
  if (!bench.Wait(hold)) test::Fail(__FILE__, __LINE__, "the range is not held");
  return hold;
}

void Release(Bench& bench, Request* hold) {
  bench.On([&] { bench.engine->Release(hold); });
}

Request* Within(Bench& bench, Request* hold, BlockOperation operation, uint64_t offset,
                uint32_t length, uint8_t fill = 0) {
  Request* request = nullptr;
  bench.On([&] {
    request = bench.SubmitHere(operation, offset, length, fill,
                               [&](Request* prepared) { prepared->hold = hold; });
  });
  return request;
}

TEST(engine_hold, OthersWaitAndWhatNamesItGoesOn) {
  Bench bench;
  for (int i = 0; i < 3; ++i) bench.AddScripted();
  ASSERT(bench.StartAndWait());
  ASSERT(bench.Write(0, 16384, 1) == ErrorCode::kOk);
  Request* hold = Hold(bench, 4096, 4096);
  Request* write = bench.Submit(BlockOperation::kWrite, 0, 16384, 2);
  Request* read = bench.Submit(BlockOperation::kRead, 4096, 512);
  Request* aside = bench.Submit(BlockOperation::kWrite, 32768, 4096, 3);
  ASSERT(bench.Wait(aside));
  Request* inner_read = Within(bench, hold, BlockOperation::kRead, 4096, 4096);
  ASSERT(bench.Wait(inner_read));
  EXPECT(Bench::Holds(inner_read, 1));
  Request* inner_write = Within(bench, hold, BlockOperation::kWrite, 4608, 512, 9);
  ASSERT(bench.Wait(inner_write));
  EXPECT(!write->finished && !read->finished);
  Release(bench, hold);
  ASSERT(bench.Wait(write) && bench.Wait(read));
  EXPECT(bench.Reads(4096, 4096, 2));
}

TEST(engine_hold, WaitsForWhatCameBefore) {
  Bench bench;
  std::array<ScriptedReplica*, 3> replicas;
  for (ScriptedReplica*& replica : replicas) replica = &bench.AddScripted();
  ASSERT(bench.StartAndWait());
  bench.On([&] {
    replicas[1]->verdict = [](const wire::Header& header) {
      return Verdict{header.opcode == wire::Opcode::kWrite ? What::kHold : What::kServe, {}};
    };
  });
  Request* write = bench.Submit(BlockOperation::kWrite, 0, 4096, 5);
  Request* hold = bench.Submit(BlockOperation::kHold, 0, 8192);
  ASSERT(bench.Until([&] { return replicas[1]->held() == 1; }));
  EXPECT(bench.Never([&] { return hold->finished; }, 100));
  bench.On([&] {
    replicas[1]->verdict = nullptr;
    replicas[1]->Release();
  });
  ASSERT(bench.Wait(write) && bench.Wait(hold));
  Request* read = Within(bench, hold, BlockOperation::kRead, 0, 4096);
  ASSERT(bench.Wait(read));
  EXPECT(Bench::Holds(read, 5));
  Release(bench, hold);
}

// Every slot that others can have waits for the hold; what goes on within it still finds one.
TEST(engine_hold, DoesNotWaitForThoseWhoWaitForIt) {
  Bench bench;
  for (int i = 0; i < 3; ++i) bench.AddScripted();
  ASSERT(bench.StartAndWait());
  Request* hold = Hold(bench, 0, 4096);
  std::vector<Request*> waiting;
  bench.On([&] {
    for (size_t i = 0; i < kEngineOperationsMax + 100; ++i) {
      waiting.push_back(bench.SubmitHere(BlockOperation::kZero, 0, 4096));
    }
  });
  std::vector<Request*> inner;
  bench.On([&] {
    for (size_t i = 0; i < kEngineNestedSlots + 10; ++i) {
      inner.push_back(bench.SubmitHere(BlockOperation::kWrite, 0, 512, 7,
                                       [&](Request* request) { request->hold = hold; }));
    }
  });
  for (Request* request : inner) {
    ASSERT(bench.Wait(request));
    EXPECT(request->status == ErrorCode::kOk);
  }
  EXPECT(!waiting.front()->finished);
  Release(bench, hold);
  ASSERT(bench.Wait(waiting.back()));
}

// Many clients that add one to a number by hold, read, write, release, while members come and go.
TEST(engine_hold, NoStepIsLostAmongMany) {
  Bench bench;
  std::array<RealReplica*, 3> replicas;
  for (RealReplica*& replica : replicas) replica = &bench.AddReal();
  ASSERT(bench.StartAndWait());
  ASSERT(bench.Write(0, 4096, 0) == ErrorCode::kOk);
  constexpr int kClients = 12;
  constexpr int kSteps = 25;
  struct Adder {
    Request* hold = nullptr;
    int done = 0;
  };
  std::array<Adder, kClients> adders;
  int failures = 0;
  std::function<void(Adder*)> step = [&](Adder* adder) {
    if (adder->done == kSteps) return;
    adder->hold = bench.SubmitHere(BlockOperation::kHold, 0, 512);
    adder->hold->then = [&, adder](Request* hold) {
      Request* read = bench.SubmitHere(BlockOperation::kRead, 0, 512, 0,
                                       [&](Request* request) { request->hold = hold; });
      read->then = [&, adder, hold](Request* got) {
        uint64_t number;
        std::memcpy(&number, got->data, sizeof(number));
        ++number;
        Request* write = bench.SubmitHere(BlockOperation::kWrite, 0, 512, 0, [&](Request* put) {
          std::memcpy(put->data, &number, sizeof(number));
          put->hold = hold;
        });
        write->then = [&, adder, hold](Request* put) {
          failures += put->status == ErrorCode::kOk ? 0 : 1;
          ++adder->done;
          bench.engine->Release(hold);
          step(adder);
        };
      };
    };
  };
  bench.On([&] {
    for (Adder& adder : adders) step(&adder);
  });
  for (int i = 0; i < 5; ++i) {
    bench.Pass(5);
    bench.On([&] { replicas[static_cast<size_t>(i) % 3]->reactor.BreakConnections(); });
  }
  ASSERT(bench.Until([&] {
    return std::all_of(adders.begin(), adders.end(),
                       [](const Adder& adder) { return adder.done == kSteps; });
  }));
  EXPECT_EQ(failures, 0);
  Request* read = bench.Submit(BlockOperation::kRead, 0, 512);
  ASSERT(bench.Wait(read));
  uint64_t number = 0;
  std::memcpy(&number, read->data, sizeof(number));
  EXPECT_EQ(number, uint64_t{kClients * kSteps});
}

TEST(engine_hold, EndsCleanWhenTheEngineIsFenced) {
  Bench bench;
  for (int i = 0; i < 3; ++i) bench.AddScripted();
  ASSERT(bench.StartAndWait());
  Request* hold = Hold(bench, 0, 4096);
  Request* waiting = bench.Submit(BlockOperation::kHold, 0, 4096);
  Engine* old = bench.engine.get();
  // What a front end does: it goes on within the hold, is told that it cannot, and lets go.
  bench.On([&] {
    waiting->then = [old](Request* granted) {
      if (granted->status == ErrorCode::kOk) old->Release(granted);
    };
    Request* inner =
        bench.SubmitHere(BlockOperation::kWrite, 0, 512, 1, [&](Request* r) { r->hold = hold; });
    inner->then = [old, hold](Request*) { old->Release(hold); };
  });
  EXPECT(bench.TakeOver());
}

TEST(engine_state, IsKeptByAllMembersAndByTheNextEngine) {
  Bench bench;
  std::array<RealReplica*, 3> replicas;
  for (RealReplica*& replica : replicas) replica = &bench.AddReal();
  ASSERT(bench.StartAndWait());
  Request* empty = bench.Submit(BlockOperation::kLoadState, 0, kTargetStateBytes);
  ASSERT(bench.Wait(empty));
  EXPECT(Bench::Holds(empty, 0));
  EXPECT_EQ(bench.Do(BlockOperation::kStoreState, 0, kTargetStateBytes, 1), ErrorCode::kOk);
  EXPECT_EQ(bench.Do(BlockOperation::kStoreState, 0, kTargetStateBytes, 2), ErrorCode::kOk);
  // It is no part of the volume.
  EXPECT(bench.Reads(0, kTargetStateBytes, 0));
  ASSERT(bench.Stop());
  ASSERT(bench.StartAndWait());
  Request* load = bench.Submit(BlockOperation::kLoadState, 0, kTargetStateBytes);
  ASSERT(bench.Wait(load));
  EXPECT(Bench::Holds(load, 2));
}

TEST(engine_state, AMemberThatCannotKeepItLeavesFirst) {
  Bench bench;
  std::array<ScriptedReplica*, 3> replicas;
  for (ScriptedReplica*& replica : replicas) replica = &bench.AddScripted();
  ASSERT(bench.StartAndWait());
  bench.On([&] {
    replicas[2]->verdict = [](const wire::Header& header) {
      return Verdict{header.opcode == wire::Opcode::kStoreState ? What::kFail : What::kServe,
                     ErrorCode::kIoError};
    };
  });
  EXPECT_EQ(bench.Do(BlockOperation::kStoreState, 0, kTargetStateBytes, 6), ErrorCode::kOk);
  EXPECT_EQ(bench.Complete().members.count, 2U);
  for (int i = 0; i < 2; ++i) {
    EXPECT(replicas[static_cast<size_t>(i)]->target_state.back() == std::byte{6});
  }
}

TEST(engine_state, IsLoadedFromAnotherMemberWhereOneCannotReadIt) {
  Bench bench;
  std::array<ScriptedReplica*, 3> replicas;
  for (ScriptedReplica*& replica : replicas) replica = &bench.AddScripted();
  ASSERT(bench.StartAndWait());
  EXPECT_EQ(bench.Do(BlockOperation::kStoreState, 0, kTargetStateBytes, 4), ErrorCode::kOk);
  bench.On([&] {
    for (size_t i = 0; i < 2; ++i) {
      replicas[i]->verdict = [](const wire::Header& header) {
        return Verdict{header.opcode == wire::Opcode::kLoadState ? What::kFail : What::kServe,
                       ErrorCode::kCorrupt};
      };
    }
  });
  Request* load = bench.Submit(BlockOperation::kLoadState, 0, kTargetStateBytes);
  ASSERT(bench.Wait(load));
  EXPECT(Bench::Holds(load, 4));
}

}  // namespace
}  // namespace ankole::engine::testing
