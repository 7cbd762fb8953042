#include <random>

#include "iscsi/server_testing.h"

// Data both ways, in every manner that can be negotiated.
namespace ankole::iscsi {
namespace {

std::vector<std::string> Keys(const std::string& initial_r2t, const std::string& immediate,
                              const std::string& digest = "None",
                              const std::string& segment = "262144",
                              const std::string& burst = "262144",
                              const std::string& outstanding = "1") {
  return {
      "InitialR2T=" + initial_r2t, "ImmediateData=" + immediate,          "HeaderDigest=" + digest,
      "DataDigest=" + digest,      "MaxRecvDataSegmentLength=" + segment, "MaxBurstLength=" + burst,
      "FirstBurstLength=65536",    "MaxOutstandingR2T=" + outstanding};
}

// Writes and reads back lengths around every border there is.
void MoveAllSizes(Initiator& initiator, bool long_ones) {
  uint64_t seed = 1;
  std::vector<uint32_t> sizes = {512,    1024,    4096,    8192,    16384,      32256,  32768,
                                 33280,  65024,   65536,   66048,   131072,     262144, 262656,
                                 524288, 1048576, 1049088, 1500160, 3 * 1048576};
  if (long_ones) sizes.push_back(8 * kMiB);
  for (const uint32_t bytes : sizes) {
    const Bytes data = RandomBytes(bytes, ++seed);
    const uint64_t offset = (seed % 8) * 512;
    const Outcome written = initiator.WriteAt(offset, data);
    const Outcome read = initiator.ReadAt(offset, bytes);
    if (!written.good() || !read.good() || read.data != data || read.residual != 0) {
      test::Fail(__FILE__, __LINE__, "with " + std::to_string(bytes) + " bytes");
    }
  }
}

TEST(iscsi_data, every_manner_of_sending) {
  OnEachBench([](Bench& bench) {
    for (const char* initial_r2t : {"Yes", "No"}) {
      for (const char* immediate : {"Yes", "No"}) {
        for (const char* digest : {"None", "CRC32C"}) {
          Initiator initiator(bench);
          LoginOptions options;
          options.keys = Keys(initial_r2t, immediate, digest);
          ASSERT(initiator.Login(options) == 0);
          EXPECT_EQ(initiator.digests.data, std::string(digest) == "CRC32C");
          MoveAllSizes(initiator, false);
        }
      }
    }
    EXPECT_EQ(bench.log.Count("digest"), 0u);
  });
}

TEST(iscsi_data, small_segments_and_bursts) {
  OnEachBench([](Bench& bench) {
    for (const char* outstanding : {"1", "4"}) {
      Initiator initiator(bench);
      LoginOptions options;
      options.keys = Keys("No", "Yes", "CRC32C", "4096", "65536", outstanding);
      ASSERT(initiator.Login(options) == 0);
      initiator.segment_bytes_max = 12'288;
      MoveAllSizes(initiator, true);
      // Data-In is cut by our declaration, and marked at the end of each burst.
      EXPECT_EQ(initiator.ReadAt(0, kMiB).data_pdus, 256);
      const Outcome outcome = initiator.WriteAt(0, RandomBytes(kMiB, 3));
      EXPECT_EQ(outcome.r2ts, 15);
    }
  });
}

TEST(iscsi_data, odd_segments) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    LoginOptions options;
    options.keys = Keys("No", "Yes", "CRC32C", "1025", "1111");
    ASSERT(initiator.Login(options) == 0);
    initiator.segment_bytes_max = 777;
    MoveAllSizes(initiator, false);
  });
}

// What a register of each block must hold, with many commands in flight.
TEST(iscsi_data, pipelined_commands_against_a_model) {
  OnEachBench([](Bench& bench) {
    bench.On([&] { bench.device.shuffled = true; });
    std::mt19937 random(static_cast<uint32_t>(test::Seed()));
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    constexpr uint64_t kArea = 512 * kKiB;  // of a slot, which has one command in flight
    constexpr size_t kSlots = 64;
    std::vector<Bytes> model(kSlots, Bytes(kArea));
    struct Flight {
      uint32_t tag;
      bool write;
      uint32_t at;
      Bytes data;
    };
    std::vector<std::optional<Flight>> flights(kSlots);
    for (int i = 0; i < 1500; ++i) {
      const size_t slot = random() % kSlots;
      if (flights[slot]) {
        const Outcome outcome = initiator.Await(flights[slot]->tag);
        ASSERT(outcome.good());
        Flight& flight = *flights[slot];
        const auto begin = model[slot].begin() + flight.at;
        if (flight.write) {
          std::copy(flight.data.begin(), flight.data.end(), begin);
        } else if (!std::equal(outcome.data.begin(), outcome.data.end(), begin)) {
          test::Fail(__FILE__, __LINE__, "read back something else");
        }
      }
      const bool large = random() % 4 == 0;
      const uint32_t blocks = 1 + static_cast<uint32_t>(random() % (large ? 512 : 16));
      const auto at = static_cast<uint32_t>(random() % (kArea / 512 - blocks)) * 512;
      Flight flight = {0, random() % 2 == 0, at, {}};
      const uint64_t offset = slot * kArea + at;
      if (flight.write) {
        flight.data = RandomBytes(blocks * 512, random());
        flight.tag = initiator.AskWrite(offset, flight.data);
      } else {
        flight.tag = initiator.AskRead(offset, blocks * 512);
      }
      flights[slot] = std::move(flight);
    }
    for (auto& flight : flights) {
      if (flight) EXPECT(initiator.Await(flight->tag).good());
    }
    EXPECT(initiator.ReadAt(0, 4 * kMiB).good());
  });
}

TEST(iscsi_data, many_answers_leave_together_and_the_window_stays_open) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    EXPECT_EQ(initiator.max_command - initiator.expected_command + 1, kCommandsMax);
    bench.Hold();
    std::vector<uint32_t> tags;
    for (uint32_t i = 0; i < kCommandsMax; ++i) tags.push_back(initiator.AskRead(i * 4096, 4096));
    EXPECT(Eventually([&] { return bench.Pending() == kCommandsMax; }));
    // The window is closed: one more is ignored.
    initiator.AskRead(0, 512);
    --initiator.command_number;
    EXPECT_EQ(bench.Pending(), size_t{kCommandsMax});
    bench.LetGo();
    for (const uint32_t tag : tags) EXPECT(initiator.Await(tag).good());
    EXPECT_EQ(initiator.max_command - initiator.expected_command + 1, kCommandsMax);
    EXPECT(initiator.ReadAt(0, 512).good());
  });
}

TEST(iscsi_data, residuals) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    // More expected than there is.
    Outcome outcome = initiator.Run(ReadOrWrite16(kRead16, 0, 1), 1024, kFlagRead);
    EXPECT(outcome.good() && outcome.data.size() == 512);
    EXPECT_EQ(int{outcome.flags}, int{kFlagUnderflow});
    EXPECT_EQ(outcome.residual, 512u);
    // Less.
    outcome = initiator.Run(ReadOrWrite16(kRead16, 0, 2), 512, kFlagRead);
    EXPECT(outcome.good() && outcome.data.size() == 512);
    EXPECT_EQ(int{outcome.flags}, int{kFlagOverflow});
    EXPECT_EQ(outcome.residual, 512u);
    // No room announced at all.
    outcome = initiator.Run(ReadOrWrite16(kRead16, 0, 1), 0, 0);
    EXPECT(outcome.data.empty());
    // INQUIRY with more room than it needs.
    Cdb inquiry = {0x12, 0, 0, 0, 255, 0};
    outcome = initiator.Run(inquiry, 255, kFlagRead);
    EXPECT(outcome.good() && outcome.data.size() < 255);
    EXPECT_EQ(outcome.residual, 255 - static_cast<uint32_t>(outcome.data.size()));
    // A write that announces more than the CDB takes: the rest is thrown away.
    const Bytes data = RandomBytes(2048, 5);
    outcome = initiator.Run(ReadOrWrite16(kWrite16, 0, 2), 2048, kFlagWrite, data);
    EXPECT(outcome.good());
    EXPECT_EQ(outcome.residual, 1024u);
    EXPECT(initiator.ReadAt(0, 1024).data == Bytes(data.begin(), data.begin() + 1024));
    // The same with what is asked for by R2T.
    const Bytes large = RandomBytes(kMiB, 6);
    outcome = initiator.Run(ReadOrWrite16(kWrite16, 0, 512), kMiB, kFlagWrite, large);
    EXPECT(outcome.good());
    EXPECT_EQ(outcome.residual, static_cast<uint32_t>(kMiB) - 512 * 512);
    EXPECT(initiator.ReadAt(0, 512 * 512).data == Bytes(large.begin(), large.begin() + 512 * 512));
  });
}

TEST(iscsi_data, what_the_unit_refuses_brings_sense_data) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    const Bytes data = RandomBytes(200'000, 1);
    EXPECT(initiator.Run(Cdb{0xff}, 0, 0).Sense(5, 0x2000));
    EXPECT(initiator.Run(Cdb{0xff}, 512, kFlagRead).Sense(5, 0x2000));
    // Data comes along, and must be taken off the stream.
    EXPECT(initiator.Run(Cdb{0xff}, 200'000, kFlagWrite, data).Sense(5, 0x2000));
    EXPECT(initiator.AskRead(Bench::kSizeBytes, 512) > 0);
    EXPECT(initiator.Await(initiator.next_tag - 1).Sense(5, 0x2100));
    bench.On([&] { bench.device.fault = [](const BlockRequest&) { return ErrorCode::kIoError; }; });
    EXPECT_EQ(int{initiator.ReadAt(0, 4096).status}, 2);
    EXPECT_EQ(int{initiator.WriteAt(0, data.size() > 0 ? RandomBytes(4096, 1) : data).status}, 2);
    bench.On([&] { bench.device.fault = nullptr; });
    EXPECT(initiator.ReadAt(0, 4096).good());
  });
}

// --- breaches of the rules
// -------------------------------------------------------------------------

DataOut Out(uint32_t tag, uint32_t transfer_tag, uint32_t number, uint32_t offset, bool final) {
  DataOut header;
  header.opcode = static_cast<uint8_t>(Opcode::kDataOut);
  if (final) header.flags = kFlagFinal;
  header.task_tag = tag;
  header.transfer_tag = transfer_tag;
  header.data_number = number;
  header.offset_bytes = offset;
  return header;
}

ScsiCommand Command(Initiator& initiator, uint32_t blocks, uint8_t flags) {
  ScsiCommand command;
  command.opcode = static_cast<uint8_t>(Opcode::kScsiCommand);
  command.flags = flags;
  command.task_tag = initiator.next_tag++;
  command.expected_bytes = blocks * 512;
  command.command_number = initiator.command_number++;
  command.cdb = ReadOrWrite16(kWrite16, 0, blocks);
  return command;
}

TEST(iscsi_data, data_out_of_order_fails_its_command_only) {
  OnEachBench([](Bench& bench) {
    LoginOptions options;
    options.keys = Keys("No", "No");
    Initiator initiator(bench);
    ASSERT(initiator.Login(options) == 0);
    struct Case {
      uint32_t number;
      uint32_t offset;
      uint32_t bytes;
      int code;
    };
    for (const Case& bad : {Case{1, 0, 4096, 0x0c0d}, Case{0, 512, 4096, 0x0c0d},
                            Case{0, 0, 8192, 0x0c0c}, Case{0, 0xfffffe00, 4096, 0x0c0d}}) {
      const ScsiCommand command = Command(initiator, 8, kFlagWrite);
      initiator.Send(command);
      initiator.Send(Out(command.task_tag, kNoTag, bad.number, bad.offset, true), Bytes(bad.bytes));
      EXPECT(initiator.Await(command.task_tag).Sense(0xb, bad.code));
    }
    // More unsolicited data than a first burst.
    const ScsiCommand command = Command(initiator, 1024, kFlagWrite);
    initiator.Send(command);
    initiator.Send(Out(command.task_tag, kNoTag, 0, 0, true), Bytes(65536 + 512));
    EXPECT(initiator.Await(command.task_tag).Sense(0xb, 0x0c0c));
    EXPECT(initiator.WriteAt(0, RandomBytes(4096, 1)).good());
  });
}

TEST(iscsi_data, unasked_data_that_was_not_agreed_on) {
  OnEachBench([](Bench& bench) {
    LoginOptions options;
    options.keys = Keys("Yes", "No");
    Initiator initiator(bench);
    ASSERT(initiator.Login(options) == 0);
    ScsiCommand immediate = Command(initiator, 1, kFlagWrite | kFlagFinal);
    initiator.Send(immediate, Bytes(512));
    EXPECT(initiator.Await(immediate.task_tag).Sense(0xb, 0x0c0c));
    ScsiCommand unsolicited = Command(initiator, 8, kFlagWrite);
    initiator.Send(unsolicited);
    initiator.Send(Out(unsolicited.task_tag, kNoTag, 0, 0, true), Bytes(4096));
    EXPECT(initiator.Await(unsolicited.task_tag).Sense(0xb, 0x0c0c));
    // Data for nothing that is known is thrown away.
    initiator.Send(Out(0x7777, kNoTag, 0, 0, true), Bytes(4096));
    initiator.Send(Out(0x7777, 3, 0, 0, true), Bytes(100'000));
    initiator.Send(Out(0x7777, 0x12345678, 0, 0, true), Bytes(100));
    ScsiCommand both = Command(initiator, 1, kFlagWrite | kFlagRead | kFlagFinal);
    initiator.Send(both);
    EXPECT(initiator.Await(both.task_tag).Sense(5, 0x0e03));
    EXPECT(initiator.WriteAt(0, RandomBytes(4096, 1)).good());
  });
}

TEST(iscsi_data, too_little_data_for_an_r2t) {
  OnEachBench([](Bench& bench) {
    LoginOptions options;
    options.keys = Keys("Yes", "No");
    Initiator initiator(bench);
    ASSERT(initiator.Login(options) == 0);
    const ScsiCommand command = Command(initiator, 16, kFlagWrite | kFlagFinal);
    initiator.Send(command);
    const Pdu pdu = initiator.Read();
    ASSERT(pdu.Is(Opcode::kReadyToTransfer));
    const auto r2t = pdu.As<ReadyToTransfer>();
    EXPECT_EQ(uint32_t{r2t.desired_bytes}, 8192u);
    initiator.Send(Out(command.task_tag, r2t.transfer_tag, 0, 0, true), Bytes(4096));
    EXPECT(initiator.Await(command.task_tag).Sense(0xb, 0x0c0d));
    EXPECT(initiator.WriteAt(0, RandomBytes(4096, 1)).good());
  });
}

TEST(iscsi_data, commands_out_of_order_wait_for_their_turn) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    const uint32_t first = initiator.command_number;
    const Bytes older = RandomBytes(4096, 1);
    const Bytes newer = RandomBytes(4096, 2);
    // 2 and 1 before 0; 1 is a ping.
    initiator.command_number = first + 2;
    const uint32_t third = initiator.AskWrite(0, newer);
    NopOut ping;
    ping.opcode = static_cast<uint8_t>(Opcode::kNopOut);
    ping.flags = kFlagFinal;
    ping.task_tag = 0x5555;
    ping.transfer_tag = kNoTag;
    ping.command_number = first + 1;
    initiator.Send(ping, RandomBytes(64, 9));
    // A number twice, one that is over, one beyond the window: ignored.
    initiator.command_number = first + 2;
    initiator.AskWrite(4096, older);
    initiator.command_number = first - 1;
    initiator.AskWrite(4096, older);
    initiator.command_number = first + kCommandsMax;
    initiator.AskWrite(4096, older);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT(initiator.Quiet());
    initiator.command_number = first;
    const uint32_t earliest = initiator.AskWrite(0, older);
    EXPECT(initiator.Answer(0x5555).data == RandomBytes(64, 9));
    EXPECT(initiator.Await(earliest).good());
    EXPECT(initiator.Await(third).good());
    EXPECT_EQ(initiator.expected_command, first + 3);
    EXPECT_EQ(initiator.max_command - initiator.expected_command + 1, kCommandsMax);
    initiator.command_number = first + 3;
    EXPECT(initiator.ReadAt(0, 4096).data == newer);
    EXPECT(initiator.ReadAt(4096, 4096).data == Bytes(4096));
  });
}

}  // namespace
}  // namespace ankole::iscsi
