#include <string>
#include <vector>

#include "engine/snapshot_testing.h"

// Snapshots while members, or the engine, fail (rule 8).
namespace ankole::engine {
namespace {

using testing::Asked;
using testing::Bench;
using testing::FailWith;
using testing::Good;
using testing::Hold;
using testing::Judge;
using testing::ScriptedReplica;
using testing::Snapshots;
using testing::StoreMode;
using testing::Verdict;
using wire::Opcode;

// The steps of the text, and which of the requests of that kind is the one.
struct Step {
  Opcode opcode;
  int nth;
};
constexpr Step kSteps[] = {{Opcode::kPrepare, 1},
                           {Opcode::kFlush, 1},
                           {Opcode::kRecord, 1},
                           {Opcode::kFlush, 2},
                           {Opcode::kSeal, 1}};

// Holds that request.
Judge::Function HoldAt(Step step) {
  return [step, seen = 0](const wire::Header& header) mutable {
    return Hold(header.opcode == step.opcode && ++seen == step.nth);
  };
}

TEST(snapshot, SucceedsWithTheRestWhenAMemberDiesAtAnyStep) {
  for (const Step& step : kSteps) {
    Snapshots<3> volume(300);
    ASSERT(volume.bench.StartAndWait());
    EXPECT(volume.bench.Write(0, 4096, 3) == ErrorCode::kOk);
    volume[2].verdict = HoldAt(step);
    Asked* monday = volume.Begin("monday");
    EXPECT(volume.bench.Until([&] { return volume[2].held() == 1; }));
    volume.bench.On([&] {
      EXPECT(!monday->finished);
      volume[2].Unlisten();
    });
    ASSERT(volume.Wait(monday));
    EXPECT(Good(monday->status));
    EXPECT_EQ(monday->members, 2U);
    const wire::Record record = volume.bench.Complete();
    EXPECT_EQ(record.members.count, 2);
    EXPECT_EQ(record.newest_snapshot, "monday");
    for (size_t i = 0; i < 2; ++i) EXPECT_EQ(volume.Layers(i), "monday");
    EXPECT(volume.SameViews("monday"));
    EXPECT(volume.bench.Write(0, 4096, 4) == ErrorCode::kOk);
    EXPECT(volume.bench.Reads(0, 4096, 4));
  }
}

// It hangs, so that nobody knows whether it has switched: the record after names it as well, and
// I/O goes on when the others have that.
TEST(snapshot, AMemberThatIsLateIsDroppedByTheNextRecord) {
  Snapshots<3> volume(300);
  ASSERT(volume.bench.StartAndWait());
  const uint64_t before = volume.bench.Complete().generation;
  volume[2].verdict = HoldAt({Opcode::kRecord, 1});
  Asked* monday = volume.Begin("monday");
  EXPECT(volume.bench.Until([&] { return volume[2].held() == 1; }));
  // Until then nothing is written.
  testing::Request* write = volume.bench.Submit(BlockOperation::kWrite, 0, 4096, 9);
  EXPECT(volume.bench.Never([&] { return write->finished || volume[0].written_bytes > 0; }, 100));
  ASSERT(volume.Wait(monday));
  EXPECT(volume.bench.Wait(write));
  EXPECT(write->status == ErrorCode::kOk);
  EXPECT(Good(monday->status));
  EXPECT(monday->pause_ns >= 250 * kNsPerMs);
  const wire::Record record = volume.bench.Complete();
  EXPECT_EQ(record.generation, before + 2);
  EXPECT_EQ(record.members.count, 2);
  EXPECT_EQ(record.newest_snapshot, "monday");
  // What was written meanwhile is in no view.
  volume.bench.On([&] {
    for (size_t i = 0; i < 2; ++i) {
      ASSERT(volume[i].layers.size() == 1);
      EXPECT(volume[i].layers[0].view[0] == std::byte{0} && volume[i].data[0] == std::byte{9});
    }
  });
}

// One that cannot seal it after all had flushed it has lost it. It is given it anew.
TEST(snapshot, AMemberThatCannotSealLeaves) {
  Snapshots<3> volume;
  ASSERT(volume.bench.StartAndWait());
  volume[1].verdict = [](const wire::Header& header) {
    return FailWith(header.opcode == Opcode::kSeal, ErrorCode::kIoError);
  };
  Asked* monday = volume.Begin("monday");
  EXPECT(volume.Wait(monday));
  EXPECT(Good(monday->status));
  EXPECT_EQ(monday->members, 2U);
  EXPECT(volume.bench.At("replica 11 left a snapshot cannot be sealed") != SIZE_MAX);
  EXPECT(volume.bench.Until([&] { return volume.bench.engine->Report().record.members.count == 3; },
                            20'000));
  EXPECT(volume.bench.At("delete monday at 11") < volume.bench.At("switch to monday at 11"));
  EXPECT(volume.Layers(1).ends_with("monday"));
}

TEST(snapshot, OneThatTheLastMemberCannotSealIsNone) {
  Snapshots<1> volume;
  ASSERT(volume.bench.StartAndWait());
  volume[0].verdict = [](const wire::Header& header) {
    return FailWith(header.opcode == Opcode::kSeal, ErrorCode::kIoError);
  };
  EXPECT(volume.Take("monday").code() == ErrorCode::kIoError);
  // Nobody was told of it: it goes, and the next one can be taken.
  EXPECT(volume.WaitForLayers(0, "monday (removed)"));
  volume[0].verdict = Judge::Function();
  EXPECT(Good(volume.Take("tuesday")));
}

// It can be sealed, but may lack what was acknowledged before it.
TEST(snapshot, OneOfALastMemberThatMayHaveLostWritesIsNone) {
  for (const Step& step : {Step{Opcode::kFlush, 2}, Step{Opcode::kSeal, 1}}) {
    Snapshots<1> volume;
    ASSERT(volume.bench.StartAndWait());
    volume[0].verdict = HoldAt(step);
    Asked* monday = volume.Begin("monday");
    EXPECT(volume.bench.Until([&] { return volume[0].held() == 1; }));
    volume.bench.On([&] {
      volume[0].state.suspect = volume[0].state.lost = true;
      volume[0].Break();
    });
    ASSERT(volume.Wait(monday));
    EXPECT(monday->status.code() == ErrorCode::kIoError);
    EXPECT_EQ(volume.Layers(0), "monday (removed)");
  }
}

// The process at the other end was started anew, and has forgotten what it had prepared: the record
// could never be written there.
TEST(snapshot, AMemberThatForgotWhatItPreparedPreparesAgain) {
  for (const size_t members : {1, 2}) {
    Snapshots<2> volume;
    if (members == 1) volume.bench.options.replicas.pop_back();
    ASSERT(volume.bench.StartAndWait());
    volume[0].verdict = HoldAt({Opcode::kRecord, 1});
    Asked* monday = volume.Begin("monday");
    EXPECT(volume.bench.Until([&] { return volume[0].held() == 1; }));
    volume.bench.On([&] {
      volume[0].Break();
      volume[0].prepared.reset();
    });
    ASSERT(volume.Wait(monday));
    EXPECT(Good(monday->status));
    EXPECT_EQ(monday->members, members);
    EXPECT_EQ(volume.Layers(0), "monday");
    EXPECT(volume.bench.At("not prepared at") == SIZE_MAX);
  }
}

TEST(snapshot, TheLastMemberPreparesAgainUntilItCan) {
  Snapshots<1> volume;
  ASSERT(volume.bench.StartAndWait());
  volume[0].verdict = HoldAt({Opcode::kRecord, 1});
  Asked* monday = volume.Begin("monday");
  EXPECT(volume.bench.Until([&] { return volume[0].held() == 1; }));
  volume.bench.On([&] {
    volume[0].Break();
    volume[0].prepared.reset();
    volume[0].verdict = [refused = 0](const wire::Header& header) mutable {
      const bool refuses = header.opcode == Opcode::kPrepare && ++refused <= 3;
      return FailWith(refuses, ErrorCode::kNoSpace);
    };
  });
  EXPECT(volume.bench.Until([&] {
    return volume.bench.engine->Report().message.find("cannot be prepared: no-space") !=
           std::string::npos;
  }));
  ASSERT(volume.Wait(monday));
  EXPECT(Good(monday->status));
  EXPECT_EQ(volume.Layers(0), "monday");
}

// Away while nothing had happened yet.
TEST(snapshot, AMemberThatWasAwayBeforeTheRecordPreparesAgain) {
  Snapshots<2> volume;
  ASSERT(volume.bench.StartAndWait());
  volume[0].verdict = HoldAt({Opcode::kFlush, 1});
  Asked* monday = volume.Begin("monday");
  EXPECT(volume.bench.Until([&] { return volume[0].held() == 1; }));
  volume.bench.On([&] {
    volume[0].Break();
    volume[0].prepared.reset();
  });
  ASSERT(volume.Wait(monday));
  EXPECT(Good(monday->status));
  EXPECT_EQ(volume.Layers(0), "monday");
  EXPECT_EQ(volume.bench.Complete().members.count, 2);
}

// --- the engine stops
// --------------------------------------------------------------------------------------------

// Nobody is told of a success that may not be one. What is left is finished or undone by the next
// start, and then another one can be taken.
TEST(snapshot, AnEngineThatStopsAtAnyStepLeavesNothingHalfDone) {
  for (const Step& step : kSteps) {
    Snapshots<2> volume(300);
    ASSERT(volume.bench.StartAndWait());
    volume[1].verdict = HoldAt(step);
    Asked* monday = volume.Begin("monday");
    EXPECT(volume.bench.Until([&] { return volume[1].held() == 1; }));
    // The other one has come as far as it gets.
    volume.bench.Pass(50);
    volume.bench.Stop();
    EXPECT(monday->finished && monday->status.code() == ErrorCode::kUnavailable);
    volume.bench.On([&] {
      for (size_t i = 0; i < 2; ++i) volume[i].prepared.reset();
      volume[1].verdict = Judge::Function();
    });
    ASSERT(volume.bench.StartAndWait());
    const bool sealed = step.opcode == Opcode::kSeal;
    const bool switched = step.opcode == Opcode::kFlush && step.nth == 2;
    const bool half = step.opcode == Opcode::kRecord;
    const std::string expected = sealed ? "monday" : switched || half ? "monday (removed)" : "";
    EXPECT(volume.WaitForLayers(0, expected));
    // Where only one of them has switched it is the only one that holds that record.
    if (!half) EXPECT(volume.WaitForLayers(1, expected));
    EXPECT(volume.bench.Until(
        [&] { return volume.bench.engine->Report().record.members.count == 2; }));
    EXPECT(Good(volume.Take("tuesday")));
    EXPECT(volume.SameViews("tuesday"));
  }
}

TEST(snapshot, AnEngineThatIsFencedOffTellsOfNoSuccess) {
  Snapshots<2> volume;
  ASSERT(volume.bench.StartAndWait());
  volume[1].verdict = HoldAt({Opcode::kSeal, 1});
  Asked* monday = volume.Begin("monday");
  EXPECT(volume.bench.Until([&] { return volume[1].held() == 1; }));
  EXPECT(volume.bench.TakeOver());
  EXPECT(monday->finished && monday->status.code() == ErrorCode::kFenced);
  // One member has sealed it, so all had flushed it.
  EXPECT(volume.WaitForLayers(1, "monday"));
  EXPECT_EQ(volume.Layers(0), "monday");
}

// --- what a start finds
// --------------------------------------------------------------------------------------------

TEST(snapshot, AStartDeletesWhatNobodyHasSealed) {
  Snapshots<2> volume;
  for (size_t i = 0; i < 2; ++i) {
    volume.Give(i, "sunday", true);
    volume.Give(i, "monday", false);
  }
  volume.HoldRecord("monday");
  ASSERT(volume.bench.StartAndWait());
  for (size_t i = 0; i < 2; ++i) EXPECT(volume.WaitForLayers(i, "sunday, monday (removed)"));
  EXPECT_EQ(volume[0].asked(Opcode::kSeal), 0);
  EXPECT_EQ(volume.bench.Complete().newest_snapshot, "monday");
  EXPECT(Good(volume.Take("tuesday")));
}

TEST(snapshot, AStartSealsWhatOneMemberHasSealedAfterAFlush) {
  Snapshots<3> volume;
  for (size_t i = 0; i < 3; ++i) volume.Give(i, "monday", i == 1);
  volume.HoldRecord("monday");
  std::vector<std::string> frames;
  volume[0].verdict = testing::Tell(&frames);
  ASSERT(volume.bench.StartAndWait());
  for (size_t i = 0; i < 3; ++i) EXPECT(volume.WaitForLayers(i, "monday"));
  EXPECT(frames == (std::vector<std::string>{"RECORD", "LAYERS", "FLUSH", "SEAL"}));
  EXPECT_EQ(volume[1].asked(Opcode::kSeal), 0);
}

TEST(snapshot, AStartDeletesWhatAMemberHasDeletedOrLacks) {
  Snapshots<2> volume;
  for (const char* name : {"a", "b", "c"}) {
    for (size_t i = 0; i < 2; ++i) {
      const bool lacks = i == 0 && name == std::string("b");
      if (!lacks) volume.Give(i, name, true, i == 1 && name == std::string("a"));
    }
  }
  volume.HoldRecord("c");
  ASSERT(volume.bench.StartAndWait());
  EXPECT(volume.WaitForLayers(0, "a (removed), c"));
  EXPECT(volume.WaitForLayers(1, "a (removed), b (removed), c"));
}

// Salvage's record is held by nobody, and may name another one than the replicas have: they would
// refuse to go back.
TEST(snapshot, AStartNamesWhatTheMembersHave) {
  Snapshots<2> volume;
  for (size_t i = 0; i < 2; ++i) volume.Give(i, "monday", true);
  volume.HoldRecord("monday");
  volume.bench.stored.epoch = {2, 0};
  volume.bench.stored.generation = 9;
  volume.bench.stored.newest_snapshot.clear();
  ASSERT(volume.bench.StartAndWait());
  EXPECT_EQ(volume.bench.Complete().newest_snapshot, "monday");
  EXPECT_EQ(volume.bench.Complete().members.count, 2);
  EXPECT(volume.bench.At("not prepared at") == SIZE_MAX);
}

// An answer that comes while a record is proposed waits for that: another engine may start on
// members that do not have the snapshot (rule 2).
TEST(snapshot, IsAnsweredWhenTheMembersAreSettled) {
  Snapshots<2> volume(200);
  ASSERT(volume.bench.StartAndWait());
  volume.bench.On([&] { volume.bench.store_mode = StoreMode::kProbes; });
  volume[1].verdict = HoldAt({Opcode::kSeal, 1});
  Asked* monday = volume.Begin("monday");
  EXPECT(volume.bench.Until([&] { return volume[1].held() == 1; }));
  volume.bench.On([&] { volume[1].Unlisten(); });
  EXPECT(volume.bench.Until([&] {
    return !volume.bench.questions.empty() &&
           volume.bench.questions.back().second.members.count == 1;
  }));
  EXPECT_EQ(volume.Layers(0), "monday");
  EXPECT(volume.bench.Never([&] { return monday->finished; }, 400));
  volume.bench.On([&] { volume.bench.store_mode = StoreMode::kAnswers; });
  volume.bench.AnswerStore(Status::Ok());
  ASSERT(volume.Wait(monday));
  EXPECT(Good(monday->status));
  EXPECT_EQ(monday->members, 1U);
}

TEST(snapshot, IsRefusedWhereNoEngineServes) {
  Snapshots<1> volume;
  volume.bench.options.start_wait_ns = 60 * kNsPerSecond;
  volume.bench.On([&] { volume[0].Unlisten(); });
  volume.bench.Start();
  const Status status = volume.Take("monday");
  EXPECT(status.code() == ErrorCode::kBusy);
  EXPECT(status.message() == "snapshot monday: the volume does not serve yet");
}

// Without a snapshot nobody is asked for any.
TEST(snapshot, AStartWithoutSnapshotsAsksForNone) {
  Snapshots<2> volume;
  ASSERT(volume.bench.StartAndWait());
  volume.bench.Pass(300);
  EXPECT_EQ(volume[0].asked(Opcode::kLayers) + volume[1].asked(Opcode::kLayers), 0);
}

// --- not now
// --------------------------------------------------------------------------------------------

TEST(snapshot, WaitsForARecordThatIsOutstanding) {
  Snapshots<2> volume(200);
  ASSERT(volume.bench.StartAndWait());
  EXPECT(Good(volume.Take("sunday")));
  volume.bench.On([&] {
    volume.bench.store_mode = StoreMode::kProbes;
    volume[1].Unlisten();
  });
  // One of two is no majority: the store must record it, and does not yet.
  EXPECT(volume.bench.Until([&] {
    return !volume.bench.questions.empty() &&
           volume.bench.questions.back().second.members.count == 1;
  }));
  Asked* monday = volume.Begin("monday");
  EXPECT(volume.bench.Never([&] { return monday->finished; }, 500));
  volume.bench.On([&] { volume.bench.store_mode = StoreMode::kAnswers; });
  volume.bench.AnswerStore(Status::Ok());
  ASSERT(volume.Wait(monday));
  EXPECT(Good(monday->status));
  EXPECT_EQ(volume.Layers(0), "sunday, monday");
}

TEST(snapshot, IsRefusedWhenTheMembersDoNotSettle) {
  Snapshots<2> volume(200);
  ASSERT(volume.bench.StartAndWait());
  EXPECT(Good(volume.Take("sunday")));
  volume.bench.On([&] {
    volume.bench.store_mode = StoreMode::kProbes;
    volume[1].Unlisten();
  });
  EXPECT(volume.bench.Until([&] {
    return !volume.bench.questions.empty() &&
           volume.bench.questions.back().second.members.count == 1;
  }));
  const Status status = volume.Take("monday");
  EXPECT(status.code() == ErrorCode::kBusy);
  EXPECT(status.message() == "snapshot monday: the members change");
  EXPECT_EQ(volume.Layers(0), "sunday");
  volume.bench.On([&] { volume.bench.store_mode = StoreMode::kAnswers; });
  volume.bench.AnswerStore(Status::Ok());
}

TEST(snapshot, AJoinerIsLetGoBeforeTheMembersSwitch) {
  Snapshots<2> volume(300);
  ASSERT(volume.bench.StartAndWait());
  EXPECT(volume.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  volume.bench.On([&] { volume[1].Unlisten(); });
  EXPECT(
      volume.bench.Until([&] { return volume.bench.engine->Report().record.members.count == 1; }));
  EXPECT(volume.bench.Write(0, 4096, 2) == ErrorCode::kOk);
  volume[1].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == Opcode::kWrite);
  };
  volume.bench.On([&] { volume[1].Listen(); });
  EXPECT(volume.bench.Until([&] { return volume[1].held() == 1; }));
  EXPECT(Good(volume.Take("monday")));
  EXPECT(volume.bench.At("replica 11 left a snapshot is taken") != SIZE_MAX);
  EXPECT_EQ(volume.Layers(0), "monday");
  EXPECT_EQ(volume.Layers(1), "");
  volume[1].verdict = Judge::Function();
  EXPECT(volume.bench.Until([&] { return volume.bench.engine->Report().record.members.count == 2; },
                            20'000));
  EXPECT_EQ(volume.Layers(1), "monday");
}

}  // namespace
}  // namespace ankole::engine
