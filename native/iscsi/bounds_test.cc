#include "iscsi/scripted_testing.h"

// What initiators can do to the target and to each other.
namespace ankole::iscsi {
namespace {

void ExpectServed(Bench& bench) {
  LoginOptions options;
  options.isid[5] = 123;
  Initiator other(bench);
  ASSERT(other.Login(options) == 0);
  const Bytes data = RandomBytes(2 * kMiB, 9);
  EXPECT(other.WriteAt(32 * kMiB, data).good());
  EXPECT(other.ReadAt(32 * kMiB, 2 * kMiB).data == data);
  other.Logout();
}

TEST(iscsi_bounds, an_initiator_that_reads_no_answers_pins_its_quota_only) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    for (uint32_t i = 0; i < kCommandsMax; ++i) {
      initiator.AskRead(i * 512, i % 3 == 0 ? 4096 : i % 3 == 1 ? 128 * 1024 : 3 * 1024 * 1024);
    }
    EXPECT(Eventually([&] { return bench.Held() > kConnectionBufferBytesMax / 2; }));
    for (int i = 0; i < 20; ++i) EXPECT(bench.Held() <= kSessionBufferBytesMax);
    ExpectServed(bench);
    initiator.Close();
    EXPECT(Eventually([&] { return bench.Connections() == 0 && bench.Held() == 0; }));
  });
}

TEST(iscsi_bounds, half_a_pdu_pins_little) {
  OnEachBench([](Bench& bench) {
    std::vector<std::unique_ptr<Initiator>> initiators;
    LoginOptions options;
    for (const size_t bytes : {10, 1000, 40'000}) {
      options.isid[5] = static_cast<uint8_t>(initiators.size());
      auto initiator = std::make_unique<Initiator>(bench);
      ASSERT(initiator->Login(options) == 0);
      ScsiCommand command;
      command.opcode = static_cast<uint8_t>(Opcode::kScsiCommand);
      command.flags = kFlagFinal | kFlagWrite;
      command.task_tag = 5;
      command.expected_bytes = 65536;
      command.command_number = initiator->command_number;
      command.cdb = ReadOrWrite16(kWrite16, 0, 128);
      const Bytes whole = initiator->Encode(command, Bytes(65536));
      initiator->SendBytes(whole.data(), bytes);
      initiators.push_back(std::move(initiator));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT(bench.Held() <= 5 * BufferPool::kSmallBytes);
    ExpectServed(bench);
    for (auto& initiator : initiators) initiator->Close();
    EXPECT(Eventually([&] { return bench.Connections() == 0 && bench.Held() == 0; }));
    EXPECT_EQ(bench.log.Count("in the middle of a PDU"), 3u);
    EXPECT_EQ(bench.log.size(), 3u);
  });
}

// Large writes that find no memory wait in line; data that comes unasked always has a place.
TEST(iscsi_bounds, more_large_writes_than_memory) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    constexpr uint32_t kBytes = 3 * kMiB;
    std::vector<Bytes> data;
    std::vector<uint32_t> tags;
    for (uint32_t i = 0; i < 20; ++i) {
      data.push_back(RandomBytes(kBytes, i));
      tags.push_back(initiator.AskWrite(uint64_t{i} * kBytes, data.back()));
    }
    for (int i = 0; i < 20; ++i) EXPECT(bench.Held() <= kSessionBufferBytesMax);
    for (const uint32_t tag : tags) EXPECT(initiator.Await(tag).good());
    for (uint32_t i = 0; i < 20; ++i) {
      EXPECT(initiator.ReadAt(uint64_t{i} * kBytes, kBytes).data == data[i]);
    }
  });
}

TEST(iscsi_bounds, an_empty_pool_is_waited_for) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    std::vector<BufferPool::Chunk*> taken;
    bench.On([&] {
      while (BufferPool::Chunk* chunk = bench.device.buffers().Acquire(1)) taken.push_back(chunk);
    });
    const uint32_t read = initiator.AskRead(0, 4096);
    const uint32_t large = initiator.AskWrite(0, RandomBytes(200'000 / 512 * 512, 1));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(bench.Pending(), 0u);
    bench.On([&] {
      for (BufferPool::Chunk* chunk : taken) BufferPool::Release(chunk);
    });
    EXPECT(initiator.Await(read).good());
    EXPECT(initiator.Await(large).good());
  });
}

TEST(iscsi_bounds, initiators_that_go_with_commands_in_flight) {
  OnEachBench([](Bench& bench) {
    for (int round = 0; round < 3; ++round) {
      bench.Hold();
      Initiator initiator(bench);
      bench.LetGo();
      ASSERT(initiator.Login() == 0);
      bench.Hold();
      for (uint64_t i = 0; i < 30; ++i) {
        initiator.AskWrite(i * 4096, RandomBytes(4096, i));
        initiator.AskRead(i * kMiB / 2, 200 * 1024);
      }
      initiator.AskWrite(0, RandomBytes(kMiB, 1));  // waits for its R2T to be answered
      EXPECT(Eventually([&] { return bench.Pending() >= 50; }));
      initiator.Close();
      bench.LetGo();
      EXPECT(Eventually([&] { return bench.Connections() == 0 && bench.Held() == 0; }));
    }
  });
}

TEST(iscsi_bounds, malformed_pdus_close_that_connection) {
  OnEachBench([](Bench& bench) {
    Initiator witness(bench);
    ASSERT(witness.Login() == 0);
    size_t lines = 0;
    const auto closes = [&](const std::string& cause, const std::string& digest,
                            const std::function<void(Initiator&)>& act) {
      Initiator initiator(bench);
      LoginOptions options;
      options.isid[5] = 200;
      options.keys.push_back("HeaderDigest=" + digest);
      options.keys.push_back("DataDigest=" + digest);
      ASSERT(initiator.Login(options) == 0);
      act(initiator);
      EXPECT(initiator.Ended());
      EXPECT(Eventually([&] { return bench.log.Count(cause) == 1; }));
      EXPECT_EQ(bench.log.size(), ++lines);
      EXPECT_EQ(bench.log.Count("iscsi initiator tcp:127.0.0.1:"), lines);
    };
    NopOut ping;
    ping.opcode = static_cast<uint8_t>(Opcode::kNopOut) | kFlagImmediate;
    ping.flags = kFlagFinal;
    ping.task_tag = 7;
    ping.transfer_tag = kNoTag;
    closes("more data than was agreed on", "None",
           [&](Initiator& initiator) { initiator.Send(ping, Bytes(kReceiveSegmentBytesMax + 4)); });
    closes("header with a wrong digest", "CRC32C", [&](Initiator& initiator) {
      Bytes bytes = initiator.Encode(ping, {});
      bytes[20] ^= std::byte{1};
      initiator.SendBytes(bytes.data(), bytes.size());
    });
    closes("data with a wrong digest", "CRC32C", [&](Initiator& initiator) {
      Bytes bytes = initiator.Encode(ping, RandomBytes(100, 1));
      bytes[80] ^= std::byte{1};
      initiator.SendBytes(bytes.data(), bytes.size());
    });
    closes("additional header segments", "None", [&](Initiator& initiator) {
      NopOut header = ping;
      header.ahs_words = 1;
      initiator.Send(header);
      initiator.SendBytes("\0\1\1\0", 4);
    });
    closes("a task tag that is in use", "None", [&](Initiator& initiator) {
      bench.Hold();
      initiator.AskRead(0, 512);
      --initiator.next_tag;
      initiator.AskRead(0, 512);
      EXPECT(Eventually([&] { return bench.log.Count("a task tag that is in use") == 1; }));
      bench.LetGo();
    });
    Initiator stranger(bench);
    const std::string request = "GET / HTTP/1.1\r\nHost: somewhere.example\r\nAccept: */*\r\n\r\n";
    stranger.SendBytes(request.data(), request.size());
    EXPECT(stranger.Ended());
    EXPECT(Eventually([&] { return bench.log.Count("not an iSCSI login") == 1; }));
    EXPECT(witness.ReadAt(0, 4096).good());
  });
}

TEST(iscsi_bounds, data_with_a_wrong_digest_is_not_written) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    LoginOptions options;
    options.keys.push_back("DataDigest=CRC32C");
    ASSERT(initiator.Login(options) == 0);
    ScsiCommand command;
    command.opcode = static_cast<uint8_t>(Opcode::kScsiCommand);
    command.flags = kFlagFinal | kFlagWrite;
    command.task_tag = 5;
    command.expected_bytes = 65536;
    command.command_number = initiator.command_number;
    command.cdb = ReadOrWrite16(kWrite16, 0, 128);
    Bytes whole = initiator.Encode(command, RandomBytes(65536, 1));
    whole[50'000] ^= std::byte{1};
    initiator.SendBytes(whole.data(), whole.size());
    EXPECT(initiator.Ended());
    Initiator again(bench);
    ASSERT(again.Login() == 0);
    EXPECT(again.ReadAt(0, 65536).data == Bytes(65536));
  });
}

// --- time, on a clock that stands still until it is moved
// -----------------------------------------

TEST(iscsi_time, a_login_has_ten_seconds) {
  ScriptedBench bench;
  const uint8_t half[] = {0x43, 0x87, 0};
  bench.reactor.Give(half, sizeof(half));
  bench.reactor.MoveTime(kHandshakeTimeoutNs - 1);
  EXPECT_EQ(bench.server.connections(), 1u);
  bench.reactor.MoveTime(1);
  EXPECT_EQ(bench.server.connections(), 0u);
  EXPECT_EQ(bench.log.lines.size(), 1u);
  EXPECT_EQ(bench.pool->held_bytes(), size_t{BufferPool::kSmallBytes});  // the unit's own
}

TEST(iscsi_time, a_silent_initiator_is_pinged_and_stays_if_it_answers) {
  ScriptedBench bench;
  bench.LogIn();
  bench.reactor.MoveTime(kPingNs);  // it has just been heard
  EXPECT_EQ(bench.Taken(), "");
  for (int i = 0; i < 5; ++i) {
    bench.reactor.MoveTime(kPingNs);
    const std::string ping = bench.Taken();
    ASSERT(ping.size() == kHeaderBytes);
    std::array<char, kHeaderBytes> raw;
    std::copy(ping.begin(), ping.end(), raw.begin());
    const auto header = As<NopIn>(raw);
    EXPECT_EQ(int{header.opcode}, 0x20);
    EXPECT_EQ(uint32_t{header.task_tag}, kNoTag);
    EXPECT(header.transfer_tag != kNoTag);
    NopOut answer;
    answer.opcode = static_cast<uint8_t>(Opcode::kNopOut) | kFlagImmediate;
    answer.flags = kFlagFinal;
    answer.task_tag = kNoTag;
    answer.transfer_tag = header.transfer_tag;
    bench.Give(answer);
    bench.reactor.MoveTime(kPingNs);
    EXPECT_EQ(bench.server.connections(), 1u);
  }
  bench.reactor.MoveTime(kPingNs);
  EXPECT_EQ(bench.Taken().size(), size_t{kHeaderBytes});
  bench.reactor.MoveTime(kPingNs);
  EXPECT_EQ(bench.server.connections(), 0u);
  EXPECT_EQ(bench.log.lines.size(), 1u);
}

TEST(iscsi_time, half_a_pdu_is_not_waited_for_for_ever) {
  ScriptedBench bench;
  bench.LogIn();
  const uint8_t byte = 0x40;
  // One byte now and then: alive, and yet stuck.
  int ticks = 0;
  for (; bench.server.connections() > 0 && ticks < 40; ++ticks) {
    if (ticks < 40) bench.reactor.Give(&byte, 1);
    bench.reactor.MoveTime(kPingNs);
  }
  EXPECT(ticks <= 4);
  EXPECT_EQ(bench.log.lines.size(), 1u);
}

TEST(iscsi_time, answers_that_are_not_read_are_not_kept_for_ever) {
  ScriptedBench bench;
  bench.LogIn();
  int ticks = 0;
  for (; bench.server.connections() > 0 && ticks < 40; ++ticks) {
    NopOut ping;
    ping.opcode = static_cast<uint8_t>(Opcode::kNopOut) | kFlagImmediate;
    ping.flags = kFlagFinal;
    ping.task_tag = static_cast<uint32_t>(ticks);
    ping.transfer_tag = kNoTag;
    bench.Give(ping);
    bench.reactor.MoveTime(kPingNs);
  }
  EXPECT(ticks <= 4);
  EXPECT_EQ(bench.log.lines.size(), 1u);
}

}  // namespace
}  // namespace ankole::iscsi
