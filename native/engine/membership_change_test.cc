#include "engine/several_testing.h"

// Starting and losing members: rules 2, 3, 4 and 6 on the real engine.
namespace ankole::engine::testing {
namespace {

TEST(engine, ANewVolumeStartsOnAllReplicas) {
  Three three;
  three.bench.On([&] { three[2].Unlisten(); });
  three.bench.Start();
  EXPECT(three.bench.Never([&] { return three.bench.ready; }, 1500));
  EXPECT(three.bench.State().find("does not answer") != std::string::npos);
  three.bench.On([&] { three[2].Listen(); });
  ASSERT(three.bench.Until([&] { return three.bench.ready; }));
  EXPECT_EQ(three.Members(), 3U);
  for (ScriptedReplica* replica : three.replicas) {
    EXPECT_EQ(replica->state.records.current.generation, 1U);
    EXPECT(replica->state.records.current == three.bench.stored);
  }
  // The record stands on the replicas, then in the store, and only then is anything served.
  const size_t asked = three.bench.At("store asked 1");
  EXPECT(three.bench.At("record 1 at 10") < asked && three.bench.At("record 1 at 11") < asked &&
         three.bench.At("record 1 at 12") < asked && asked < three.bench.At("ready"));
}

TEST(engine, ARestartIsANewGenerationOnWhatWasThere) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  EXPECT(three.bench.Write(0, 4096, 7) == ErrorCode::kOk);
  EXPECT(three.bench.Stop());
  ASSERT(three.bench.StartAndWait());
  EXPECT_EQ(three.bench.Complete().generation, 2U);
  EXPECT_EQ(three.bench.Complete().epoch.run, 2U);
  EXPECT(three.bench.Reads(0, 4096, 7));
}

TEST(engine, RefusesToStartOnLessThanHalf) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  EXPECT(three.bench.Stop());
  three.bench.On([&] {
    three[0].Unlisten();
    three[1].Unlisten();
  });
  three.bench.options.start_wait_ns = 200 * kNsPerMs;
  three.bench.Start();
  EXPECT(three.bench.Never([&] { return three.bench.ready; }, 1500));
  EXPECT(three.bench.State().find("at least half") != std::string::npos);
  // Nobody was fenced by the mere question.
  EXPECT(three[2].state.welcomed == (wire::Epoch{1, 1}));
  three.bench.On([&] { three[0].Listen(); });
  ASSERT(three.bench.Until([&] { return three.bench.ready; }));
  EXPECT_EQ(three.Members(), 2U);
}

TEST(engine, AReplicaThatHangsInTheWelcomeDoesNotHoldUpTheStartForEver) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  EXPECT(three.bench.Stop());
  bool asked_once = false;
  three[1].verdict = [&](const wire::Header& header) {
    if (header.opcode == wire::Opcode::kInquire && !std::exchange(asked_once, true))
      return Hold(false);
    return Hold(header.opcode == wire::Opcode::kWelcome || header.opcode == wire::Opcode::kInquire);
  };
  three.bench.options.start_wait_ns = 300 * kNsPerMs;
  three.bench.Start();
  ASSERT(three.bench.Until([&] { return three.bench.ready; }, 15'000));
  EXPECT_EQ(three.Members(), 2U);
}

// Simulator: it came while the other was taken over, which is then lost.
TEST(engine, AReplicaThatComesWhileOthersAreTakenOverIsAskedWhenTheStartBeginsAnew) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  EXPECT(two.bench.Stop());
  two.bench.On([&] { two[0].Unlisten(); });
  two[1].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kWelcome);
  };
  two.bench.options.start_wait_ns = 300 * kNsPerMs;
  two.bench.Start();
  ASSERT(two.bench.Until([&] { return two[1].held() == 1; }));
  two.bench.On([&] { two[0].Listen(); });
  ASSERT(two.bench.Until([&] { return two[0].asked(wire::Opcode::kAuth) == 2; }));
  EXPECT(two.bench.Never([&] { return two.bench.ready; }, 200));
  two.bench.On([&] { two[1].Unlisten(); });
  ASSERT(two.bench.Until([&] { return two.bench.ready; }));
  EXPECT_EQ(two.Members(), 1U);
}

// Simulator, seed 913507: it counted as one that had answered, was asked anew when the other was
// lost, and when it had answered that nobody took it.
TEST(engine, AReplicaThatAnswersWhileOthersAreTakenOverIsTakenAsWell) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  EXPECT(two.bench.Stop());
  two[0].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kInquire);
  };
  two[1].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kWelcome);
  };
  two.bench.options.start_wait_ns = 300 * kNsPerMs;
  two.bench.Start();
  ASSERT(two.bench.Until([&] { return two[0].held() == 1 && two[1].held() == 1; }));
  two.bench.On([&] { two[0].Release(); });
  EXPECT(two.bench.Until([&] { return two[0].asked(wire::Opcode::kWelcome) == 2; }));
  two.bench.On([&] { two[1].Unlisten(); });
  ASSERT(two.bench.Until([&] { return two[0].held() == 1; }));
  EXPECT(two.bench.Never([&] { return two.bench.ready; }, 200));
  two.bench.On([&] {
    two[0].verdict = nullptr;
    two[0].Release();
  });
  ASSERT(two.bench.Until([&] { return two.bench.ready; }));
  EXPECT_EQ(two.Members(), 1U);
}

// Its connection stays open, as after a power loss that nobody tells of.
TEST(engine, AReplicaThatIsGoneWhileItsMapsAreAskedForDoesNotHoldUpTheStartForEver) {
  Two two(300);
  two.bench.On([&] {
    for (ScriptedReplica* replica : two.replicas) replica->state.unclean = true;
  });
  two[1].verdict = [&](const wire::Header& header) {
    const bool first = two[1].asked(wire::Opcode::kHello) == 1;
    return Hold(first &&
                (header.opcode == wire::Opcode::kMap || header.opcode == wire::Opcode::kRecent ||
                 header.opcode == wire::Opcode::kPing));
  };
  two.bench.Start();
  ASSERT(two.bench.Until([&] { return two.bench.ready; }, 15'000));
  EXPECT(two[1].asked(wire::Opcode::kHello) > 1);
  EXPECT_EQ(two.Members(), 2U);
}

TEST(engine, AFencedEngineRefusesAndItsRequestsFail) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three[1].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kWrite);
  };
  // Two that overlap: the second has only its place in the queue of the lock.
  Request* first = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  Request* second = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 2);
  Request* read = three.bench.Submit(BlockOperation::kRead, 0, 4096);
  three.bench.On([&] {
    three[1].state.welcomed = {2, 1};
    three[1].Break();
  });
  ASSERT(three.bench.Until([&] { return three.bench.At("state refused") != SIZE_MAX; }));
  for (Request* request : {first, second, read}) {
    ASSERT(three.bench.Wait(request));
    EXPECT_EQ(request->status, ErrorCode::kFenced);
  }
  EXPECT(three.bench.Write(8192, 4096, 3) == ErrorCode::kUnavailable);
  EXPECT(!three.bench.Stop());
}

TEST(engine, AnAnswerOfFencedToAnOperationRefuses) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three[1].verdict = [](const wire::Header& header) {
    return FailWith(header.opcode == wire::Opcode::kWrite, ErrorCode::kFenced);
  };
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kFenced);
  EXPECT(three.bench.State().starts_with("refused"));
  EXPECT_EQ(three.Members(), 3U);
}

// The founding promise of rule 2, with many writes in flight: the order of what happened, strictly.
// More than half of the members stay, so the store is not asked, and may be away.
void LosesAMemberMidWrite(bool break_it) {
  Three three(1500);
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] { three.bench.store_mode = StoreMode::kSilent; });
  int writes = 0;
  three[1].verdict = [&](const wire::Header& header) -> Verdict {
    if (header.opcode != wire::Opcode::kWrite || ++writes < 20) return {};
    return break_it ? Verdict{What::kHalfAndBreak, ErrorCode::kOk}
                    : FailWith(true, ErrorCode::kIoError);
  };
  three[2].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kRecord);
  };
  size_t acknowledged = 0;
  size_t at_break = 0;
  three.bench.On([&] {
    for (uint64_t i = 0; i < 64; ++i) {
      three.bench.SubmitHere(BlockOperation::kWrite, i * 8192, 4096, 5)->then = [&](Request*) {
        ++acknowledged;
        three.bench.Note("acknowledged");
      };
    }
  });
  if (break_it) three.bench.On([&] { three[1].Unlisten(); });
  ASSERT(three.bench.Until([&] { return three[2].held() == 1; }));
  three.bench.On([&] { at_break = acknowledged; });
  EXPECT(three.bench.Never([&] { return acknowledged != at_break; }, 300));
  EXPECT(at_break < 64);
  // Reads go on meanwhile.
  EXPECT(three.bench.Do(BlockOperation::kRead, 4096 * 1000, 4096) == ErrorCode::kOk);
  three.bench.On([&] { three[2].Release(); });
  ASSERT(three.bench.Until([&] { return acknowledged == 64; }));
  // From the failure on nothing was acknowledged before both had the record.
  std::vector<std::string> events;
  three.bench.On([&] { events = three.bench.events; });
  const size_t proposed = three.bench.At("proposed 2");
  const size_t complete = three.bench.At("complete 2");
  ASSERT(proposed != SIZE_MAX && complete != SIZE_MAX);
  for (size_t i = proposed; i < complete; ++i) EXPECT(events[i] != "acknowledged");
  EXPECT(proposed < three.bench.At("record 2 at 10"));
  EXPECT(three.bench.At("record 2 at 10") < complete &&
         three.bench.At("record 2 at 12") < complete);
  EXPECT(three.bench.At(break_it ? "replica 11 fault connection-lost"
                                 : "replica 11 fault io-error") != SIZE_MAX);
  EXPECT_EQ(three.bench.At("store asked 2"), SIZE_MAX);
  EXPECT_EQ(three.bench.At("store probed"), SIZE_MAX);
  EXPECT_EQ(three[1].state.records.current.generation, 1U);
  EXPECT_EQ(three.Members(), 2U);
  EXPECT(three.bench.State().starts_with("degraded"));
  EXPECT(three[0].data == three[2].data);
}
TEST(engine, AMemberThatFailsMidWriteLeavesBeforeAnythingIsAcknowledged) {
  LosesAMemberMidWrite(false);
}
TEST(engine, AMemberThatBreaksMidWriteLeavesBeforeAnythingIsAcknowledged) {
  LosesAMemberMidWrite(true);
}

TEST(engine, WhereTheStoreIsNeededItHasTheRecordBeforeAnythingIsAcknowledged) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  two.bench.On([&] { two.bench.store_mode = StoreMode::kProbes; });
  two[1].verdict = [](const wire::Header& header) { return FailWrites(header); };
  Request* request = two.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  ASSERT(two.bench.Until([&] { return two.bench.At("store asked 2") != SIZE_MAX; }));
  EXPECT(two.bench.Never([&] { return request->finished; }, 300));
  EXPECT(two.bench.At("store probed") < two.bench.At("proposed 2"));
  EXPECT(two.bench.At("record 2 at 10") < two.bench.At("store asked 2"));
  two.bench.AnswerStore(Status::Ok());
  ASSERT(two.bench.Wait(request));
  EXPECT(request->status == ErrorCode::kOk);
  EXPECT(two.bench.At("store answered 2") < two.bench.At("complete 2"));
  EXPECT_EQ(two.Members(), 1U);
}

TEST(engine, WaitsForASilentStoreAndGoesOnWhenItAnswers) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  two.bench.On([&] { two.bench.store_mode = StoreMode::kRefusesRecords; });
  two[1].verdict = [](const wire::Header& header) { return FailWrites(header); };
  Request* request = two.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  // Asked again after a second, with a new question.
  ASSERT(two.bench.Until([&] { return two.bench.questions.size() >= 3; }));
  EXPECT(!request->finished);
  EXPECT(two.bench.State().starts_with("waiting: I/O waits for the store"));
  // A slow store answers the first question when the engine has asked again: it counts.
  two.bench.On([&] {
    two.bench.store_mode = StoreMode::kProbes;
    two.bench.stored = two.bench.questions[1].second;
    two.bench.engine->AnswerStore(two.bench.questions[1].first, Status::Ok());
  });
  ASSERT(two.bench.Wait(request));
  EXPECT(request->status == ErrorCode::kOk);
  EXPECT(two.bench.State().starts_with("degraded"));
}

TEST(engine, IsRefusedWhenTheStoreSaysFenced) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  two.bench.On([&] { two.bench.store_mode = StoreMode::kFenced; });
  two[1].verdict = [](const wire::Header& header) { return FailWrites(header); };
  EXPECT(two.bench.Write(0, 4096, 1) == ErrorCode::kFenced);
  EXPECT(two.bench.State().starts_with("refused"));
  EXPECT_EQ(two.bench.At("proposed 2"), SIZE_MAX);
}

TEST(engine, CutOffFromTwoOfThreeAndTheStoreItWaitsAndGoesOnWhenOneIsBack) {
  Three three(300);
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] {
    three.bench.store_mode = StoreMode::kSilent;
    three[1].Unlisten();
    three[2].Unlisten();
  });
  Request* request = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  ASSERT(three.bench.Until([&] { return three.bench.At("store probed") != SIZE_MAX; }));
  ASSERT(three.bench.Until([&] { return three.bench.At("state waiting") != SIZE_MAX; }));
  EXPECT(three.bench.engine->Report().waits_for == WaitsFor::kStore);
  EXPECT(three.bench.Never([&] { return request->finished; }, 1000));
  // Nothing was proposed that would keep a member from helping.
  EXPECT_EQ(three.bench.At("proposed 2"), SIZE_MAX);
  three.bench.On([&] { three[2].Listen(); });
  ASSERT(three.bench.Wait(request));
  EXPECT(request->status == ErrorCode::kOk);
  ASSERT(three.bench.Until([&] { return three.bench.At("complete 2") != SIZE_MAX; }));
  EXPECT(three.bench.State().starts_with("degraded"));
  EXPECT_EQ(three.bench.At("store asked 2"), SIZE_MAX);
  EXPECT_EQ(three.Members(), 2U);
}

TEST(engine, CutOffFromTwoOfThreeItGoesOnWithTheStore) {
  Three three(300);
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] {
    three[1].Unlisten();
    three[2].Unlisten();
  });
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  EXPECT_EQ(three.Members(), 1U);
  EXPECT(three.bench.At("store probed") < three.bench.At("proposed 2"));
  EXPECT(three.bench.stored == three.bench.Complete());
}

// Every record since the start is a majority of the one before, so the store may be away for good.
TEST(engine, MembersLeaveOneAfterTheOtherWithoutTheStore) {
  Several<5> five;
  ASSERT(five.bench.StartAndWait());
  five.bench.On([&] { five.bench.store_mode = StoreMode::kSilent; });
  for (const size_t i : {4, 3, 2}) {
    five[i].verdict = [](const wire::Header& header) { return FailWrites(header); };
    EXPECT(five.bench.Write(0, 4096, 1) == ErrorCode::kOk);
    EXPECT_EQ(five.Members(), i);
  }
  // The last two are more than half of three; one is not more than half of two.
  five[1].verdict = five[4].verdict;
  Request* request = five.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  EXPECT(five.bench.Never([&] { return request->finished; }, 500));
  five.bench.On([&] { five.bench.store_mode = StoreMode::kAnswers; });
  five.bench.On([&] { five.bench.OnProbeStore(five.bench.last_probe); });
  ASSERT(five.bench.Wait(request));
  EXPECT_EQ(five.Members(), 1U);
}

TEST(engine, AMemberThatMustLeaveIsNeitherReadNorClosedClean) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  two.bench.On([&] { two.bench.store_mode = StoreMode::kSilent; });
  for (ScriptedReplica* replica : two.replicas) {
    replica->verdict = [](const wire::Header& header) { return FailWrites(header); };
  }
  // What they hold of it may differ from now on.
  EXPECT(two.bench.Write(0, 4096, 1) == ErrorCode::kIoError);
  const int before = two[1].asked(wire::Opcode::kRead);
  for (uint64_t i = 0; i < 8; ++i) {
    EXPECT(two.bench.Do(BlockOperation::kRead, i * kMiB, 4096) == ErrorCode::kOk);
  }
  EXPECT_EQ(two[1].asked(wire::Opcode::kRead), before);
  two.bench.On([&] { two[1].state.unclean = true; });
  EXPECT(!two.bench.Stop());
  EXPECT(two[1].state.unclean);
}

// --- the supervisor's membership (rule 6)
// ----------------------------------------------------------------------------------

TEST(engine, TheNextRunGoesOnFromWhatTheSupervisorKeptWithoutTheStore) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  EXPECT(three.bench.Stop());
  three.bench.On([&] { three.bench.store_mode = StoreMode::kSilent; });
  three.bench.options.start_wait_ns = 300 * kNsPerMs;
  three.bench.On([&] { three[2].Unlisten(); });
  // Without it the store must have the first record of a run.
  three.bench.Start();
  ASSERT(three.bench.Until([&] { return three.bench.At("store asked 2") != SIZE_MAX; }));
  EXPECT(three.bench.Never([&] { return three.bench.ready; }, 300));
  EXPECT(!three.bench.Stop());
  three.bench.stored = three.bench.completed;
  three.bench.options.kept = true;
  three.bench.options.proposals = three.bench.proposals;
  EXPECT_EQ(three.bench.options.proposals.size(), 1U);
  ASSERT(three.bench.StartAndWait());
  EXPECT_EQ(three.bench.questions.size(), 2U);
  EXPECT_EQ(three.Members(), 2U);
}

TEST(engine, AKeptProposalCountsAgainstTheNextRun) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  EXPECT(three.bench.Stop());
  // The engine proposed to go on with 10 alone, and ended.
  three.bench.options.kept = true;
  wire::Record proposal = three.bench.completed;
  ++proposal.generation;
  proposal.members = {};
  proposal.members.Add(three[0].id());
  three.bench.options.proposals = {proposal};
  three.bench.options.start_wait_ns = 0;
  three.bench.On([&] {
    three.bench.store_mode = StoreMode::kSilent;
    three[0].Unlisten();
  });
  three.bench.Start();
  // 11 and 12 are a majority of the complete record, but not of the proposal: the store might have
  // it.
  ASSERT(three.bench.Until([&] { return three.bench.At("store asked 2") != SIZE_MAX; }));
  EXPECT(three.bench.Never([&] { return three.bench.ready; }, 300));
  three.bench.AnswerStore(Status::Ok());
  ASSERT(three.bench.Until([&] { return three.bench.ready; }));
}

// --- reads while another engine may be there (rule 4)
// ----------------------------------------------------------------------------------

TEST(engine, AReadIsAnsweredOnlyWhileMajoritiesAnswer) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  three.bench.On([&] {
    three[1].Hang();
    three[2].Hang();
  });
  three.bench.Pass(2300);
  Request* read = three.bench.Submit(BlockOperation::kRead, 0, 4096);
  ASSERT(three.bench.Until([&] { return three.bench.At("read 0 at 10") != SIZE_MAX; }));
  EXPECT(three.bench.Never([&] { return read->finished; }, 1500));
  EXPECT(three.bench.engine->Report().waits_for == WaitsFor::kMajority);
  three.bench.On([&] { three[2].Wake(); });
  ASSERT(three.bench.Wait(read));
  EXPECT(Bench::Holds(read, 1));
  EXPECT(three.bench.engine->Report().waits_for == WaitsFor::kNothing);
  three.bench.On([&] { three[1].Wake(); });
}

TEST(engine, AHeldReadIsAnsweredWhenTheMembersChange) {
  Three three(4000);
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] {
    three[1].Hang();
    three[2].Hang();
  });
  three.bench.Pass(2300);
  Request* read = three.bench.Submit(BlockOperation::kRead, 0, 4096);
  EXPECT(three.bench.Never([&] { return read->finished; }, 300));
  // Both leave, and who is left is all there is.
  ASSERT(three.bench.Wait(read, 20'000));
  EXPECT(read->status == ErrorCode::kOk);
  EXPECT_EQ(three.Members(), 1U);
}

TEST(engine, AReadThatIsHeldAtTheStopFails) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] {
    three[1].Hang();
    three[2].Hang();
  });
  three.bench.Pass(2300);
  Request* read = three.bench.Submit(BlockOperation::kRead, 0, 4096);
  EXPECT(three.bench.Never([&] { return read->finished; }, 300));
  EXPECT(!three.bench.Stop());
}

TEST(engine, ANewAttachmentWaitsWhereAnEngineBeforeItMayStillReadFromAReplica) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  EXPECT(three.bench.Stop());
  three.bench.options.start_wait_ns = 300 * kNsPerMs;
  three.bench.options.alone = false;
  three.bench.On([&] { three[2].Unlisten(); });
  three.bench.Start();
  ASSERT(three.bench.Until([&] { return three.bench.At("complete 2") != SIZE_MAX; }));
  EXPECT(three.bench.State().starts_with("starting: waiting 2 s until"));
  ASSERT(three.bench.Until([&] { return three.bench.ready; }));
  EXPECT(three.bench.Stop());
  // Nobody is left to read from when all are taken.
  three.bench.On([&] { three[2].Listen(); });
  three.bench.On([&] { three.bench.log.clear(); });
  ASSERT(three.bench.StartAndWait());
  for (const std::string& line : three.bench.Logged()) EXPECT(!line.starts_with("waiting 2 s"));
}

// 11 was joining 10, the only member, and holds the record that says so. 10 does not: it lost
// power.
TEST(engine, ALastMemberThatLostPowerBeforeItWroteTheRecordWritesTheNextOneAndLeaves) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  EXPECT(two.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  two[1].verdict = [](const wire::Header& header) { return FailWrites(header); };
  EXPECT(two.bench.Write(0, 4096, 2) == ErrorCode::kOk);
  EXPECT(two.bench.Stop());
  const wire::RecordPair held = two[0].state.records;
  ASSERT(held.current.members.count == 1);
  two.bench.On([&] {
    two[1].verdict = nullptr;
    std::memcpy(two[1].data.data(), two[0].data.data(), two[0].data.size());
    two[1].state.records.complete = held.current;
    two[1].state.records.current = held.current;
    ++two[1].state.records.current.generation;
    two[1].state.records.current.members.Add(two[1].id());
    two[0].state.suspect = two[0].state.lost = true;
    std::memset(two[0].data.data(), 0, 4096);
    two.bench.events.clear();
    two.bench.store_mode = StoreMode::kSilent;
  });
  two.bench.options.alone = false;  // 11 is waited for
  two.bench.Start();
  ASSERT(two.bench.Until([&] { return two.bench.At("store asked") != SIZE_MAX; }));
  // Nobody else may know a newer record than 11.
  EXPECT(two.bench.At("record 4 at 11") < two.bench.At("record 4 at 10"));
  EXPECT(two[0].state.lost);
  two.bench.On([&] { two.bench.store_mode = StoreMode::kAnswers; });
  two.bench.AnswerStore(Status::Ok());
  ASSERT(two.bench.Until([&] { return two.bench.ready; }));
  EXPECT(two.bench.Reads(0, 4096, 2));
  // It is back by way of joining.
  ASSERT(two.bench.Until(
      [&] { return two.bench.engine->Report().record.members.count == 2 && !two[0].state.lost; }));
  EXPECT(two.bench.At("record 5 at 11") < two.bench.At("record 6 at 10"));
  EXPECT(two.bench.At("record 5 at 10") == SIZE_MAX);
  EXPECT(two.bench.At("replica 10 fault suspect") != SIZE_MAX);
  EXPECT(two.bench.Stop());
}

TEST(engine, AStartTakesAlsoThoseThatItDoesNotStartOn) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three[2].verdict = [](const wire::Header& header) { return FailWrites(header); };
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  EXPECT(three.bench.Stop());
  three.bench.options.alone = false;
  three.bench.On([&] { three.bench.events.clear(); });
  ASSERT(three.bench.StartAndWait());
  EXPECT_EQ(three.Members(), 2U);
  // An engine before it could still have a majority with 12 otherwise.
  ASSERT(three.bench.At("welcome 12") != SIZE_MAX);
  EXPECT(three.bench.At("welcome 12") < three.bench.At("proposed"));
  EXPECT(three.bench.At("replica 12 fault older-record") != SIZE_MAX);
}

}  // namespace
}  // namespace ankole::engine::testing
