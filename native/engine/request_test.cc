#include <algorithm>
#include <fstream>

#include "engine/engine_testing.h"

// The way of a request through the engine while replicas are slow, broken or wrong: rules 1 and 4.
namespace ankole::engine::testing {
namespace {

using What = Verdict::What;

Verdict When(bool when, What what, ErrorCode error = ErrorCode::kIoError) {
  return {when ? what : What::kServe, error};
}

struct Three {
  explicit Three(uint64_t late_ms = 20'000) {
    bench.options.late_ns = late_ms * kNsPerMs;
    for (ScriptedReplica*& replica : replicas) replica = &bench.AddScripted();
  }
  ScriptedReplica& operator[](size_t i) { return *replicas[i]; }
  size_t Members() { return bench.Complete().members.count; }
  int Asked(wire::Opcode opcode) {
    int asked = 0;
    for (ScriptedReplica* replica : replicas) asked += replica->asked(opcode);
    return asked;
  }
  // Gives all of them space at once. Not one after the other: those that have none while another
  // one has some must leave. Where all have been asked the same writes, each write that is under
  // way is judged alike by all.
  bool GiveSpace() {
    return bench.Until([this] {
      const int asked = replicas[0]->asked(wire::Opcode::kWrite);
      for (ScriptedReplica* replica : replicas) {
        if (replica->asked(wire::Opcode::kWrite) != asked) return false;
      }
      for (ScriptedReplica* replica : replicas) replica->verdict = nullptr;
      return true;
    });
  }
  // Of lines of the log with this in it.
  ptrdiff_t Logged(const std::string& what) {
    const std::vector<std::string> log = bench.Logged();
    return std::count_if(log.begin(), log.end(), [&](const std::string& line) {
      return line.find(what) != std::string::npos;
    });
  }
  // The replica that serves the read of this place when nothing else is going on.
  size_t ReaderOf(uint64_t offset) { return offset / kRegionBytes % 3; }
  Bench bench;
  std::array<ScriptedReplica*, 3> replicas;
};

TEST(engine_request, AWriteIsOnAllMembersBeforeItIsAcknowledged) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three[2].verdict = [](const wire::Header& header) {
    return When(header.opcode == wire::Opcode::kWrite, What::kHold);
  };
  Request* request = three.bench.Submit(BlockOperation::kWrite, 512, 1536, 9);
  ASSERT(three.bench.Until([&] { return three[2].held() == 1; }));
  EXPECT(three.bench.Never([&] { return request->finished; }, 200));
  // A read of it waits, too: it may not see what is not acknowledged and might be lost.
  Request* read = three.bench.Submit(BlockOperation::kRead, 0, 4096);
  EXPECT(three.bench.Never([&] { return read->finished; }, 100));
  three.bench.On([&] { three[2].Release(); });
  ASSERT(three.bench.Wait(request) && three.bench.Wait(read));
  EXPECT(request->status == ErrorCode::kOk);
  for (ScriptedReplica* replica : three.replicas) {
    EXPECT(replica->data[512] == std::byte{9} && replica->data[2047] == std::byte{9});
  }
}

TEST(engine_request, EveryKindOfRequestIsAnswered) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  EXPECT(three.bench.Write(0, kDataBytesMax, 3) == ErrorCode::kOk);
  EXPECT(three.bench.Reads(0, kDataBytesMax, 3));
  EXPECT(three.bench.Reads(512, 33 * 1024, 3));
  EXPECT(three.bench.Do(BlockOperation::kZero, 0, 8192) == ErrorCode::kOk);
  EXPECT(three.bench.Reads(0, 8192, 0));
  EXPECT(three.bench.Do(BlockOperation::kUnmap, 8192, 8192) == ErrorCode::kOk);
  EXPECT(three.bench.Reads(8192, 8192, 0));
  EXPECT(three.bench.Reads(16384, 512, 3));
  EXPECT(three.bench.Flush() == ErrorCode::kOk);
  Request* status = three.bench.Submit(BlockOperation::kStatus, 0, 65536);
  ASSERT(three.bench.Wait(status));
  EXPECT_EQ(status->extents_count, 1U);
  EXPECT_EQ(status->room[0].length_bytes, 65536U);
}

TEST(engine_request, AVolumeThatIsReadOnlyTakesNothingThatChangesIt) {
  Three three;
  three.bench.options.read_only = true;
  ASSERT(three.bench.StartAndWait());
  for (const auto operation :
       {BlockOperation::kWrite, BlockOperation::kZero, BlockOperation::kUnmap}) {
    EXPECT_EQ(three.bench.Do(operation, 0, 4096), ErrorCode::kReadOnly);
  }
  EXPECT_EQ(three.bench.Do(BlockOperation::kRead, 0, 4096), ErrorCode::kOk);
  EXPECT_EQ(three.bench.Flush(), ErrorCode::kOk);
  EXPECT_EQ(three.Asked(wire::Opcode::kWrite), 0);
  EXPECT_EQ(three.Members(), 3u);
}

TEST(engine_request, ABrokenConnectionWithinTheGraceLosesNothingAndNobody) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three[1].verdict = [](const wire::Header& header) {
    return When(header.opcode == wire::Opcode::kWrite, What::kHold);
  };
  std::vector<Request*> requests;
  three.bench.On([&] {
    for (uint64_t i = 0; i < 64; ++i) {
      const uint32_t length = i % 8 == 0 ? 512 * 1024 : 4096;
      requests.push_back(
          three.bench.SubmitHere(BlockOperation::kWrite, (i % 16) * kMiB + (i / 16) * 8192,
                                 i < 16 ? length : 4096, static_cast<uint8_t>(i + 1)));
    }
  });
  ASSERT(three.bench.Until([&] { return three[1].held() > 10; }));
  three.bench.On([&] {
    three[1].verdict = nullptr;
    three[1].Break();
  });
  for (Request* request : requests) {
    ASSERT(three.bench.Wait(request));
    EXPECT(request->status == ErrorCode::kOk);
  }
  EXPECT_EQ(three.bench.Complete().generation, 1U);
  EXPECT(three[1].data == three[0].data && three[2].data == three[0].data);
}

TEST(engine_request, AConnectionThatIsNotBackInTimeLeaves) {
  Three three(400);
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] { three[1].Unlisten(); });
  Request* request = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  EXPECT(three.bench.Never([&] { return request->finished; }, 200));
  ASSERT(three.bench.Wait(request, 3000));
  EXPECT(request->status == ErrorCode::kOk);
  EXPECT_EQ(three.Members(), 2U);
}

TEST(engine_request, AHungMemberLeavesAndReadsAreAskedElsewhere) {
  Three three(400);
  ASSERT(three.bench.StartAndWait());
  const uint64_t offset = 4 * kMiB;
  ASSERT(three.bench.Write(offset, kDataBytesMax, 6) == ErrorCode::kOk);
  const size_t hung = three.ReaderOf(offset);
  three.bench.On([&] { three[hung].Hang(); });
  Request* read = three.bench.Submit(BlockOperation::kRead, offset, kDataBytesMax);
  Request* write = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  ASSERT(three.bench.Wait(read, 3000) && three.bench.Wait(write, 3000));
  EXPECT(Bench::Holds(read, 6));
  EXPECT(write->status == ErrorCode::kOk);
  EXPECT_EQ(three.Members(), 2U);
  three.bench.On([&] { three[hung].Wake(); });
}

TEST(engine_request, AFlushThatTakesItsTimeIsWaitedForWhileTheReplicaAnswersPings) {
  Three three(200);
  ASSERT(three.bench.StartAndWait());
  three[1].verdict = [](const wire::Header& header) {
    return When(header.opcode == wire::Opcode::kFlush, What::kHold);
  };
  Request* flush = three.bench.Submit(BlockOperation::kFlush, 0, 0);
  EXPECT(three.bench.Never([&] { return flush->finished; }, 2000));
  EXPECT_EQ(three.Members(), 3U);
  EXPECT(three[1].asked(wire::Opcode::kPing) > 0);
  three.bench.On([&] { three[1].Release(); });
  ASSERT(three.bench.Wait(flush));
  EXPECT(flush->status == ErrorCode::kOk);
}

TEST(engine_request, WhenAllHangRequestsWaitAndGoOnWhenTheyWakeAndNobodyLeaves) {
  Three three(400);
  ASSERT(three.bench.StartAndWait());
  three.bench.On([&] {
    for (ScriptedReplica* replica : three.replicas) replica->Hang();
  });
  Request* write = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  Request* read = three.bench.Submit(BlockOperation::kRead, kMiB, 4096);
  EXPECT(three.bench.Never([&] { return write->finished || read->finished; }, 2500));
  EXPECT(three.bench.State().starts_with("waiting: I/O waits: no member can be reached"));
  // One is back a little before the others, which is no reason to go on without them.
  three.bench.On([&] { three[1].Wake(); });
  three.bench.Pass(100);
  three.bench.On([&] {
    three[0].Wake();
    three[2].Wake();
  });
  ASSERT(three.bench.Wait(write) && three.bench.Wait(read));
  EXPECT(write->status == ErrorCode::kOk && read->status == ErrorCode::kOk);
  EXPECT_EQ(three.Members(), 3U);
  EXPECT(three.bench.State().starts_with("serving"));
}

TEST(engine_request, AReadErrorIsAskedElsewhereAndNeverPassedUp) {
  for (const uint32_t length : {uint32_t{4096}, static_cast<uint32_t>(kDataBytesMax)}) {
    Three three;
    ASSERT(three.bench.StartAndWait());
    ASSERT(three.bench.Write(0, length, 8) == ErrorCode::kOk);
    for (size_t i : {0, 1}) {
      three[i].verdict = [](const wire::Header& header) {
        return When(header.opcode == wire::Opcode::kRead, What::kFail);
      };
    }
    EXPECT(three.bench.Reads(0, length, 8));
    EXPECT_EQ(three.Members(), 3U);
    three[2].verdict = three[0].verdict;
    EXPECT(three.bench.Do(BlockOperation::kRead, 0, length) == ErrorCode::kIoError);
  }
}

TEST(engine_request, DamagedReadDataIsReadAgain) {
  for (const uint32_t length : {uint32_t{4096}, uint32_t{256 * 1024}}) {
    for (const bool alone : {false, true}) {
      Bench bench;
      std::vector<ScriptedReplica*> replicas;
      for (int i = 0; i < (alone ? 1 : 3); ++i) replicas.push_back(&bench.AddScripted());
      ASSERT(bench.StartAndWait());
      ASSERT(bench.Write(0, length, 4) == ErrorCode::kOk);
      int damaged = 0;
      for (ScriptedReplica* replica : replicas) {
        replica->verdict = [&](const wire::Header& header) {
          const bool damage = header.opcode == wire::Opcode::kRead && damaged < (alone ? 2 : 1);
          damaged += damage ? 1 : 0;
          return When(damage, What::kDamage);
        };
      }
      EXPECT(bench.Reads(0, length, 4));
      bench.On([&] { EXPECT_EQ(damaged, alone ? 2 : 1); });
      EXPECT_EQ(static_cast<int>(bench.Complete().generation), 1);
    }
  }
}

TEST(engine_request, WhatWasNotAskedEndsTheConnectionAndHarmsNobody) {
  for (const What what : {What::kTwice, What::kWrongTag}) {
    Three three;
    ASSERT(three.bench.StartAndWait());
    bool told = false;
    three[1].verdict = [&](const wire::Header& header) {
      const bool now = header.opcode == wire::Opcode::kWrite && !std::exchange(told, true);
      return When(now, what);
    };
    EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
    ASSERT(three.bench.Until([&] { return three[1].asked(wire::Opcode::kWelcome) == 2; }));
    EXPECT(three.bench.Write(0, 4096, 2) == ErrorCode::kOk);
    EXPECT(three[1].data[0] == std::byte{2});
    EXPECT_EQ(three.bench.Complete().generation, 1U);
  }
}

TEST(engine_request, HalfALargeAnswerIsReadElsewhere) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  ASSERT(three.bench.Write(0, kDataBytesMax, 4) == ErrorCode::kOk);
  bool told = false;
  for (ScriptedReplica* replica : three.replicas) {
    replica->verdict = [&](const wire::Header& header) {
      const bool now = header.opcode == wire::Opcode::kRead && !std::exchange(told, true);
      return When(now, What::kHalfAndBreak);
    };
  }
  EXPECT(three.bench.Reads(0, kDataBytesMax, 4));
  EXPECT(told);
  EXPECT_EQ(three.bench.Complete().generation, 1U);
}

TEST(engine_request, ALateAnswerNeverTouchesABufferThatWasGivenBack) {
  for (const uint32_t length : {uint32_t{4096}, static_cast<uint32_t>(kDataBytesMax)}) {
    Three three(300);
    ASSERT(three.bench.StartAndWait());
    ASSERT(three.bench.Write(0, length, 4) == ErrorCode::kOk);
    three[0].verdict = [](const wire::Header& header) {
      return When(header.opcode == wire::Opcode::kRead, What::kHold);
    };
    Request* read = three.bench.Submit(BlockOperation::kRead, 0, length);
    ASSERT(three.bench.Wait(read, 3000));
    ASSERT(Bench::Holds(read, 4));
    three.bench.On([&] {
      std::memset(read->data, 0x5a, length);
      three[0].Release();
    });
    // Its answer has come when what was asked after it is answered.
    three[0].verdict = nullptr;
    ASSERT(three.bench.Write(2 * kMiB, 4096, 1) == ErrorCode::kOk);
    EXPECT(Bench::Holds(read, 0x5a));
    EXPECT_EQ(three[0].asked(wire::Opcode::kWelcome), 1);
    EXPECT_EQ(three.Members(), 3U);
    ASSERT(three.bench.Until([&] { return three.bench.engine->in_flight() == 0; }));
  }
}

TEST(engine_request, AnAnswerThatComesInWhileAnotherIsReceivedIsNotLostWithThatOne) {
  // Two are asked for the same read. The first sends half and breaks for good; the second's whole
  // answer had come meanwhile and was not wanted. It must be asked again.
  Three three(300);
  ASSERT(three.bench.StartAndWait());
  ASSERT(three.bench.Write(0, kDataBytesMax, 4) == ErrorCode::kOk);
  for (ScriptedReplica* replica : three.replicas) {
    replica->verdict = [](const wire::Header& header) {
      return When(header.opcode == wire::Opcode::kRead, What::kHold);
    };
  }
  Request* read = three.bench.Submit(BlockOperation::kRead, 0, kDataBytesMax);
  ASSERT(three.bench.Until([&] { return three.Asked(wire::Opcode::kRead) >= 2; }));
  for (ScriptedReplica* replica : three.replicas) {
    replica->verdict = [](const wire::Header& header) {
      return When(header.opcode == wire::Opcode::kRead, What::kHalfAndBreak);
    };
  }
  three.bench.On([&] {
    for (ScriptedReplica* replica : three.replicas) replica->Release();
  });
  three.bench.Pass(20);
  for (ScriptedReplica* replica : three.replicas) replica->verdict = nullptr;
  ASSERT(three.bench.Wait(read));
  EXPECT(Bench::Holds(read, 4));
}

TEST(engine_request, WhenAllAreOutOfSpaceWritesWaitAndReadsGoOn) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  ASSERT(three.bench.Write(0, 4096, 4) == ErrorCode::kOk);
  for (ScriptedReplica* replica : three.replicas) {
    replica->verdict = [](const wire::Header& header) {
      return When(header.opcode == wire::Opcode::kWrite, What::kFail, ErrorCode::kNoSpace);
    };
  }
  std::vector<Request*> writes;
  for (uint64_t i = 1; i < 9; ++i) {
    writes.push_back(three.bench.Submit(BlockOperation::kWrite, i * 4096, 4096, 5));
  }
  EXPECT(three.bench.Never([&] { return writes[0]->finished; }, 1800));
  EXPECT(three.bench.State().starts_with("waiting: all members are out of space"));
  EXPECT(three.bench.Reads(0, 4096, 4));
  EXPECT(three.bench.Do(BlockOperation::kUnmap, kMiB, kMiB) == ErrorCode::kOk);
  EXPECT(three.bench.Flush() == ErrorCode::kOk);
  // Said once, not at each attempt.
  EXPECT_EQ(three.Logged("out of space"), 1);
  ASSERT(three.GiveSpace());
  for (Request* write : writes) {
    ASSERT(three.bench.Wait(write));
    EXPECT(write->status == ErrorCode::kOk);
  }
  EXPECT_EQ(three.bench.Complete().generation, 1U);
  EXPECT(three.bench.Until(
      [&] { return std::string(three.bench.engine->Report().state) == "serving"; }, 4000));
}

TEST(engine_request, WritesWaitForSpaceUntilAnAttemptHasSucceeded) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  for (ScriptedReplica* replica : three.replicas) {
    replica->verdict = [tried = 0](const wire::Header& header) mutable {
      if (header.opcode != wire::Opcode::kWrite) return Verdict{};
      return Verdict{tried++ == 0 ? What::kFail : What::kHold, ErrorCode::kNoSpace};
    };
  }
  Request* write = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 5);
  const auto held = [&] {
    return std::all_of(three.replicas.begin(), three.replicas.end(),
                       [](const ScriptedReplica* replica) { return replica->held() == 1; });
  };
  ASSERT(three.bench.Until(held));
  // The disks take their time to say whether they have some.
  EXPECT(three.bench.Never(
      [&] { return three.bench.engine->Report().waits_for != WaitsFor::kSpace; }, 2200));
  EXPECT_EQ(three.Logged("out of space"), 1);
  three.bench.On([&] {
    for (ScriptedReplica* replica : three.replicas) replica->Release();
  });
  ASSERT(three.bench.Wait(write));
  EXPECT(write->status == ErrorCode::kOk);
  EXPECT(three.bench.Until(
      [&] { return three.bench.engine->Report().waits_for == WaitsFor::kNothing; }));
}

TEST(engine_request, AChangeOfMembersDoesNotHideThatWritesWaitForSpace) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  for (size_t i = 0; i < 3; ++i) {
    three[i].verdict = [i](const wire::Header& header) {
      return When(header.opcode == wire::Opcode::kWrite, What::kFail,
                  i == 2 ? ErrorCode::kIoError : ErrorCode::kNoSpace);
    };
  }
  Request* write = three.bench.Submit(BlockOperation::kWrite, 0, 4096, 5);
  ASSERT(three.bench.Until([&] { return three.bench.At("complete 2") != SIZE_MAX; }));
  EXPECT(three.bench.Never([&] { return write->finished; }, 300));
  EXPECT(three.bench.State().starts_with("waiting: all members are out of space"));
  EXPECT(three.bench.engine->Report().waits_for == WaitsFor::kSpace);
  for (size_t i = 0; i < 3; ++i) three[i].verdict = nullptr;
  ASSERT(three.bench.Wait(write));
  EXPECT(write->status == ErrorCode::kOk);
}

TEST(engine_request, OneThatIsFullLeaves) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three[1].verdict = [](const wire::Header& header) {
    return When(header.opcode == wire::Opcode::kWrite, What::kFail, ErrorCode::kNoSpace);
  };
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  EXPECT_EQ(three.Members(), 2U);
}

TEST(engine_request, MoreRequestsThanSlotsQueue) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  three[1].verdict = [](const wire::Header& header) {
    return When(header.opcode == wire::Opcode::kFlush, What::kHold);
  };
  size_t finished = 0;
  std::vector<Request*> requests;
  const size_t slots = kEngineOperationsMax - kEngineNestedSlots - kEngineOwnSlots;
  const size_t count = slots + 300;
  three.bench.On([&] {
    for (size_t i = 0; i < count; ++i) {
      requests.push_back(three.bench.SubmitHere(BlockOperation::kFlush, 0, 0));
      requests.back()->then = [&](Request*) { ++finished; };
    }
  });
  ASSERT(three.bench.Until([&] { return three[1].held() == slots; }));
  EXPECT_EQ(three.bench.engine->in_flight(), slots);
  three[1].verdict = nullptr;
  three.bench.On([&] { three[1].Release(); });
  ASSERT(three.bench.Until([&] { return finished == count; }));
  for (Request* request : requests) EXPECT(request->status == ErrorCode::kOk);
}

TEST(engine_request, ALargeBatchIsAnsweredWhileItIsStillBeingSent) {
  // The first answers come before the last frame of the same system call has left.
  Three three;
  ASSERT(three.bench.StartAndWait());
  std::vector<Request*> requests;
  three.bench.On([&] {
    for (uint64_t i = 0; i < 12; ++i) {
      requests.push_back(
          three.bench.SubmitHere(BlockOperation::kWrite, i * kMiB, kDataBytesMax, 3));
    }
  });
  for (Request* request : requests) {
    ASSERT(three.bench.Wait(request));
    EXPECT(request->status == ErrorCode::kOk);
  }
  for (ScriptedReplica* replica : three.replicas) {
    EXPECT_EQ(replica->asked(wire::Opcode::kWelcome), 1);
  }
}

// The disk host takes the data of a write from the engine's own buffers, whenever it gets to it.
TEST(engine_request, ADiskHostThatWakesLateWritesWhatItWasGivenOrNothing) {
  Bench bench;
  std::vector<RealReplica*> hosts;
  for (int i = 0; i < 3; ++i) hosts.push_back(&bench.AddReal());
  ASSERT(bench.StartAndWait());
  ASSERT(bench.Write(0, 64 * 1024, 3) == ErrorCode::kOk);
  bench.On([&] { hosts[0]->reactor.Hang(); });
  // What it waits for already still comes in: something over the socket (a status does not go
  // through memory), something by the doorbell.
  EXPECT(bench.Do(BlockOperation::kStatus, 0, 4096) == ErrorCode::kOk);
  bench.Submit(BlockOperation::kWrite, kMiB, 4096, 4);
  bench.Pass(50);
  Request* late = bench.Submit(BlockOperation::kWrite, 0, 64 * 1024, 7);
  late->then = [](Request* request) {
    // The front end has other uses for it.
    std::memset(request->data, 0x5a, request->length_bytes);
  };
  bench.Pass(50);
  EXPECT(!late->finished);
  bench.options.start_wait_ns = 200 * kNsPerMs;
  std::string wrong;
  ASSERT(bench.TakeOver([&] { hosts[0]->reactor.WakeDoorbells(); }));
  bench.On([&] { hosts[0]->reactor.Wake(); });
  bench.Pass(50);
  std::ifstream file(hosts[0]->head(), std::ios::binary);
  for (uint64_t i = 0; i < 64 * 1024; ++i) {
    const int byte = file.get();
    if (byte != 3 && byte != 7) wrong = "byte " + std::to_string(i) + " is " + std::to_string(byte);
  }
  if (!wrong.empty()) test::Fail(__FILE__, __LINE__, wrong);
}

TEST(engine_request, AnIdleEngineHardlyWakesUp) {
  Three three;
  ASSERT(three.bench.StartAndWait());
  EXPECT(three.bench.Write(0, 4096, 1) == ErrorCode::kOk);
  three.bench.Pass(700);
  int arms = 0;
  int sends = 0;
  three.bench.On([&] {
    arms = three.bench.engine_reactor->arms;
    sends = three.bench.engine_reactor->sends;
  });
  three.bench.Pass(2500);
  // One tick in 5 s, and a keep-alive a member.
  EXPECT(three.bench.engine_reactor->arms - arms <= 2);
  EXPECT(three.bench.engine_reactor->sends - sends <= 6);
}

}  // namespace
}  // namespace ankole::engine::testing
