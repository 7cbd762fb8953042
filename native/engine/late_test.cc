#include "engine/several_testing.h"

// Who is late or comes back with a fault leaves, the last one never: section 4, rules 1 and 7.
namespace ankole::engine::testing {
namespace {

TEST(engine, AnUnmapWhileOneHangsDropsNobodyElse) {
  Three three(400);
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] { three[1].Hang(); });
  // 12 is at work on it for longer than any drop takes, and says that it works.
  three[2].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kUnmap);
  };
  Request* request = three.bench.Submit(BlockOperation::kUnmap, 0, kMiB);
  ASSERT(three.bench.Until([&] { return three.bench.At("complete 2") != SIZE_MAX; }));
  EXPECT(three.bench.Never([&] { return request->finished; }, 1500));
  three.bench.On([&] { three[2].Release(); });
  ASSERT(three.bench.Wait(request));
  EXPECT(request->status == ErrorCode::kOk);
  EXPECT_EQ(three.Members(), 2U);
  EXPECT(three.bench.Complete().members.Contains(three[2].id()));
  EXPECT(three.bench.At("replica 11 fault no-answer") != SIZE_MAX);
}

TEST(engine, TheOnlyReplicaMayHangForAsLongAsItWants) {
  Bench bench;
  bench.options.late_ns = 200 * kNsPerMs;
  ScriptedReplica& only = bench.AddScripted();
  ASSERT(bench.StartAndWait());
  bench.On([&] { only.Hang(); });
  Request* write = bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  Request* read = bench.Submit(BlockOperation::kRead, 8192, 4096);
  EXPECT(bench.Never([&] { return write->finished || read->finished; }, 2500));
  EXPECT(bench.State().starts_with("waiting"));
  bench.On([&] { only.Wake(); });
  ASSERT(bench.Wait(write) && bench.Wait(read));
  EXPECT(write->status == ErrorCode::kOk && read->status == ErrorCode::kOk);
  ASSERT(bench.Until([&] { return bench.engine->Report().waits_for == WaitsFor::kNothing; }));
  EXPECT(bench.State().starts_with("serving"));
}

TEST(engine, ASecondMemberIsLostWhileTheFirstDepartureIsRecorded) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] { three.bench.store_mode = StoreMode::kProbes; });
  int failing = 2;
  for (size_t i : {1, 2}) {
    three[i].verdict = [&failing, i](const wire::Header& header) -> Verdict {
      if (header.opcode == wire::Opcode::kRecord) return Hold(true);
      return FailWith(header.opcode == wire::Opcode::kWrite && static_cast<int>(i) >= failing,
                      ErrorCode::kIoError);
    };
  }
  Request* first = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  ASSERT(three.bench.Until([&] { return three[1].held() == 1; }));
  EXPECT(three.bench.At("proposed 2") != SIZE_MAX);
  three.bench.On([&] { failing = 1; });
  Request* second = three.bench.Submit(BlockOperation::kWrite, 4096, 4096, 2);
  // Who is left is no majority of anything, and the store has no answer to it yet.
  ASSERT(three.bench.Until([&] { return three.bench.At("store asked 3") != SIZE_MAX; }));
  EXPECT_EQ(three.bench.At("complete 2"), SIZE_MAX);
  EXPECT(three.bench.Never([&] { return first->finished || second->finished; }, 200));
  three.bench.AnswerStore(Status::Ok());
  ASSERT(three.bench.Wait(first) && three.bench.Wait(second));
  EXPECT(first->status == ErrorCode::kOk && second->status == ErrorCode::kOk);
  EXPECT_EQ(three.Members(), 1U);
}

TEST(engine, TheOneThatAnsweredLeavesWhileTheOthersFail) {
  // A has answered a write and then leaves; B and C fail it. One of them must stay.
  Three three(400);
  ASSERT(three.bench.StartAndWait());
  for (size_t i : {1, 2}) {
    three[i].verdict = [](const wire::Header& header) {
      return Hold(header.opcode == wire::Opcode::kWrite);
    };
  }
  three[0].verdict = [](const wire::Header& header) {
    return FailWith(header.offset_bytes == 65536, ErrorCode::kIoError);
  };
  Request* request = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  ASSERT(three.bench.Until([&] { return three[1].held() == 1 && three[2].held() == 1; }));
  for (size_t i : {1, 2}) {
    three[i].verdict = [](const wire::Header& header) {
      return FailWith(header.opcode == wire::Opcode::kFlush, ErrorCode::kIoError);
    };
  }
  // B and C serve this one, so that A leaves.
  Request* other = three.bench.Submit(BlockOperation::kWrite, 65536, 4096, 1);
  ASSERT(three.bench.Wait(other));
  three.bench.On([&] {
    three[1].Release();
    three[2].Release();
  });
  ASSERT(three.bench.Wait(request));
  EXPECT(three.bench.Flush() == ErrorCode::kIoError);
  // The error promises nothing, so it does not wait for the record.
  EXPECT(three.bench.Until([&] { return three.bench.engine->Report().record.members.count == 1; }));
  EXPECT_EQ(three.Members(), 1U);
}

TEST(engine, TheLastMemberNeverLeavesAndItsErrorReachesTheClient) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  for (ScriptedReplica* replica : three.replicas) {
    replica->verdict = [](const wire::Header& header) { return FailWrites(header); };
  }
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kIoError);
  ASSERT(three.bench.Until([&] { return three.bench.engine->Report().record.members.count == 1; }));
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kIoError);
  EXPECT_EQ(three.Members(), 1U);
  EXPECT(three.bench.Do(BlockOperation::kRead, 0, 4096) == ErrorCode::kOk);
  for (ScriptedReplica* replica : three.replicas) replica->verdict = nullptr;
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
}

// As a replica at which a sync failed (rule 1).
Verdict Spoiled(const wire::Header& header) {
  const bool reads = header.opcode == wire::Opcode::kRead;
  return FailWith(reads && (header.flags & wire::kFlagAnyway) == 0, ErrorCode::kSuspect);
}

TEST(engine, AMemberWhereASyncFailedIsNotReadAndLeaves) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  for (const size_t i : {0, 1}) {
    three[i].verdict = [](const wire::Header& header) { return Spoiled(header); };
  }
  for (int time = 0; time < 3; ++time) {
    Request* read = three.bench.Submit(BlockOperation::kRead, 0, 4096);
    ASSERT(three.bench.Wait(read));
    EXPECT(read->status == ErrorCode::kOk && Bench::Holds(read, 1));
  }
  ASSERT(three.bench.Until([&] { return three.bench.At("complete 2") != SIZE_MAX; }));
  ASSERT(three.bench.Until([&] {
    const std::string fault = std::string(" fault ") + FaultCode(Fault::kFlushFailed);
    const auto left = [&](size_t i) {
      return three.bench.At("replica " + wire::ReplicaIdText(three[i].id()).substr(14) + fault);
    };
    return left(0) != SIZE_MAX && left(1) != SIZE_MAX && left(2) == SIZE_MAX;
  }));
}

TEST(engine, WhereASyncFailedAtAllMembersTheyAreReadAnyway) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  EXPECT(two.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  for (ScriptedReplica* replica : two.replicas) {
    replica->verdict = [](const wire::Header& header) { return Spoiled(header); };
  }
  Request* read = two.bench.Submit(BlockOperation::kRead, 0, 4096);
  ASSERT(two.bench.Wait(read));
  EXPECT(read->status == ErrorCode::kOk && Bench::Holds(read, 1));
  EXPECT_EQ(two.Members(), 2U);
}

TEST(engine, TheLastMemberIsReadAlsoWhereASyncFailed) {
  Bench bench;
  ScriptedReplica& only = bench.AddScripted();
  ASSERT(bench.StartAndWait());
  only.verdict = [](const wire::Header& header) { return Spoiled(header); };
  EXPECT(bench.Do(BlockOperation::kRead, 0, 4096) == ErrorCode::kOk);
  EXPECT_EQ(only.asked(wire::Opcode::kRead), 1);
}

// Simulator, seed 102448: what the flush covers is gone at one of the members that answered it.
TEST(engine, AFlushWaitsForAMemberToLeaveThatLostWhatItCovers) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  EXPECT(two.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  EXPECT(two.bench.Flush() == ErrorCode::kOk);
  two.bench.On([&] {
    two.bench.store_mode = StoreMode::kSilent;
    two[1].state.suspect = two[1].state.lost = true;
    two[1].Break();
  });
  ASSERT(two.bench.Until([&] { return two.bench.At("store probed") != SIZE_MAX; }));
  Request* flush = two.bench.Submit(BlockOperation::kFlush, 0, 0);
  ASSERT(two.bench.Until([&] { return two[1].asked(wire::Opcode::kFlush) == 2; }));
  EXPECT(two.bench.Never([&] { return flush->finished; }, 300));
  EXPECT_EQ(two.Members(), 2U);
  // A write covers only itself.
  EXPECT(two.bench.Write(4096, 4096, 2) == ErrorCode::kOk);
  two.bench.On([&] { two.bench.store_mode = StoreMode::kAnswers; });
  ASSERT(two.bench.Wait(flush));
  EXPECT(flush->status == ErrorCode::kOk);
  EXPECT(two.bench.At("complete 2") != SIZE_MAX);
}

// Simulator, seed 206089: 10 has lost power with what it answered, and nobody knows yet; 11 is only
// slow.
TEST(engine, NobodyLeavesForBeingLateWhileThoseWhoWouldStayAreSilent) {
  Two two(400);
  ASSERT(two.bench.StartAndWait());
  EXPECT(two.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  two[1].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kWrite);
  };
  Request* write = two.bench.Submit(BlockOperation::kWrite, 4096, 4096, 2);
  ASSERT(two.bench.Until([&] { return two.bench.At("write 4096 at 10") != SIZE_MAX; }));
  two.bench.On([&] { two[0].Hang(); });
  ASSERT(two.bench.Until([&] { return two.bench.At("proposed 2") != SIZE_MAX; }));
  EXPECT(two.bench.At("replica 10 fault no-answer") != SIZE_MAX);
  EXPECT_EQ(two.bench.At("replica 11 fault"), SIZE_MAX);
  two.bench.On([&] {
    two[1].verdict = nullptr;
    two[1].Release();
  });
  ASSERT(two.bench.Wait(write));
  EXPECT(write->status == ErrorCode::kOk);
  EXPECT(two.bench.Reads(0, 4096, 1));
  two.bench.On([&] { two[0].Wake(); });
}

// Simulator, seed 601901: 10 has answered, and has lost power since with what it answered; 11
// failed.
TEST(engine, NobodyLeavesForItsDiskWhileThoseWhoWouldStayAreSilent) {
  Two two(400);
  ASSERT(two.bench.StartAndWait());
  EXPECT(two.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  two[0].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kPing);
  };
  two[1].verdict = [](const wire::Header& header) {
    return FailWith(header.opcode == wire::Opcode::kWrite, ErrorCode::kIoError);
  };
  Request* write = two.bench.Submit(BlockOperation::kWrite, 4096, 4096, 2);
  ASSERT(two.bench.Until([&] { return two.bench.At("write 4096 at 10") != SIZE_MAX; }));
  EXPECT(two.bench.Never([&] { return two.bench.At("proposed 2") != SIZE_MAX; }, 100));
  two.bench.On([&] {
    two[0].verdict = two[1].verdict = nullptr;
    two[0].state.suspect = two[0].state.lost = true;
    two[0].Break();
  });
  ASSERT(two.bench.Until([&] { return two.bench.At("complete 2") != SIZE_MAX; }));
  EXPECT(two.bench.At("replica 10 fault suspect") != SIZE_MAX);
  EXPECT_EQ(two.bench.At("replica 11 fault"), SIZE_MAX);
  ASSERT(two.bench.Wait(write));
  EXPECT(two.bench.Reads(0, 4096, 1));
}

TEST(engine, AMemberThatComesBackSuspectLeaves) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] {
    three[1].state.suspect = three[1].state.lost = true;
    three[1].Break();
  });
  ASSERT(three.bench.Until([&] { return three.bench.engine->Report().record.members.count == 2; }));
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
}

// One that lost something and cannot leave yet must not get the record by which it would be taken
// as it is.
TEST(engine, AMemberThatComesBackSuspectGetsNoRecordWhileItsLeavingNeedsTheStore) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] {
    three.bench.store_mode = StoreMode::kSilent;
    three[1].Unlisten();
  });
  const std::string gone =
      "replica " + wire::ReplicaIdText(three[1].id()).substr(14) + " connecting";
  ASSERT(three.bench.Until([&] { return three.bench.At(gone) != SIZE_MAX; }));
  three.bench.On([&] {
    three[2].state.suspect = three[2].state.lost = true;
    three[2].Break();
  });
  const auto names_two = [](ScriptedReplica& replica) {
    return replica.state.records.current.members.count == 2;
  };
  ASSERT(three.bench.Until([&] { return names_two(three[0]); }));
  three.bench.On([&] {
    three[1].state.suspect = three[1].state.lost = true;
    three[1].Listen();
  });
  ASSERT(three.bench.Until([&] { return three.bench.At("store probed") != SIZE_MAX; }));
  EXPECT(three.bench.Never([&] { return names_two(three[1]); }, 800));
  EXPECT_EQ(three.bench.At("complete 2"), SIZE_MAX);
  three.bench.On([&] { three.bench.store_mode = StoreMode::kAnswers; });
  ASSERT(three.bench.Until([&] { return three.bench.At("complete 3") != SIZE_MAX; }));
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
}

TEST(engine, AMemberThatComesBackWithAnotherRecordLeaves) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] {
    three[1].state.records = {};
    three[1].Break();
  });
  ASSERT(three.bench.Until([&] { return three.bench.engine->Report().record.members.count == 2; }));
}

TEST(engine, TheLastMemberIsNotReplacedByAnotherUnderItsName) {
  Bench bench;
  ScriptedReplica& only = bench.AddScripted();
  ASSERT(bench.StartAndWait());
  EXPECT(bench.Write(0, 4096, 1) == ErrorCode::kOk);
  wire::RecordPair records;
  bench.On([&] {
    records = std::exchange(only.state.records, {});
    only.Break();
  });
  Request* read = bench.Submit(BlockOperation::kRead, 0, 4096);
  EXPECT(bench.Never([&] { return read->finished; }, 800));
  EXPECT(bench.State().starts_with("waiting"));
  bench.On([&] { only.state.records = records; });
  ASSERT(bench.Wait(read));
  EXPECT(Bench::Holds(read, 1));
  EXPECT(bench.State().starts_with("serving"));
}

TEST(engine, FlushesFailOnceTheLastMemberMayHaveLostWrites) {
  Bench bench;
  ScriptedReplica& only = bench.AddScripted();
  ASSERT(bench.StartAndWait());
  EXPECT(bench.Write(0, 4096, 1) == ErrorCode::kOk);
  EXPECT(bench.Flush() == ErrorCode::kOk);
  bench.On([&] {
    only.state.suspect = only.state.lost = true;
    only.Break();
  });
  EXPECT(bench.Write(0, 4096, 2) == ErrorCode::kOk);
  EXPECT(bench.Flush() == ErrorCode::kIoError);
}

// Simulator, seed 800838: both lost something, and the next engine took the other one.
TEST(engine, TheLastMemberIsNotReadBeforeAnotherThatLostSomethingHasLeft) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  EXPECT(two.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  two.bench.On([&] {
    two.bench.store_mode = StoreMode::kSilent;
    two[1].state.suspect = two[1].state.lost = true;
    two[1].Break();
  });
  ASSERT(two.bench.Until([&] { return two.bench.At("store probed") != SIZE_MAX; }));
  // All that was acknowledged is here.
  EXPECT(two.bench.Reads(0, 4096, 1));
  const size_t from = two.bench.events.size();
  two.bench.On([&] {
    two[0].state.suspect = two[0].state.lost = true;
    two[0].Break();
  });
  ASSERT(two.bench.Until([&] { return two.bench.At("welcome 10", from) != SIZE_MAX; }));
  ASSERT(two.bench.Write(4096, 4096, 2) == ErrorCode::kOk);
  Request* read = two.bench.Submit(BlockOperation::kRead, 0, 4096);
  EXPECT(two.bench.Never([&] { return read->finished; }, 200));
  two.bench.On([&] { two.bench.store_mode = StoreMode::kAnswers; });
  ASSERT(two.bench.Wait(read));
  EXPECT(Bench::Holds(read, 1));
  EXPECT(two.bench.At("complete 2") != SIZE_MAX);
}

// The engine's own promise nothing to a client: by them others join.
TEST(engine, OthersJoinWhereFlushesFailForWhatTheLastMemberLost) {
  Two two;
  ASSERT(two.bench.StartAndWait());
  // It leaves, and cannot join: nobody tells what it misses.
  for (ScriptedReplica* replica : two.replicas) {
    replica->verdict = [](const wire::Header& header) {
      return FailWith(header.opcode == wire::Opcode::kMap || header.opcode == wire::Opcode::kMaps,
                      ErrorCode::kIoError);
    };
  }
  two.bench.On([&] {
    two[1].state.suspect = two[1].state.lost = true;
    two[1].Break();
  });
  ASSERT(two.bench.Until([&] { return two.bench.At("complete 2") != SIZE_MAX; }));
  two.bench.On([&] {
    two[0].state.suspect = two[0].state.lost = true;
    two[0].Break();
  });
  ErrorCode flushed = ErrorCode::kOk;
  for (int time = 0; time < 100 && flushed == ErrorCode::kOk; ++time) {
    EXPECT(two.bench.Write(0, 4096, 2) == ErrorCode::kOk);
    flushed = two.bench.Flush();
  }
  EXPECT(flushed == ErrorCode::kIoError);
  for (ScriptedReplica* replica : two.replicas) replica->verdict = nullptr;
  ASSERT(two.bench.Until([&] { return two.bench.engine->Report().record.members.count == 2; }));
  EXPECT(two.bench.Flush() == ErrorCode::kIoError);
}

}  // namespace
}  // namespace ankole::engine::testing
