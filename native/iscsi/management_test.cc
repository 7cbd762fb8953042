#include "iscsi/scripted_testing.h"

// Task management, and requests that are not supported.
namespace ankole::iscsi {
namespace {

constexpr int kComplete = 0;
constexpr int kNoTask = 1;
constexpr int kNoLun = 2;

// Whether the command was answered before `until` came, which must be what comes next but for it.
bool AnsweredBefore(Initiator& initiator, uint32_t tag) {
  return std::find(initiator.finished.begin(), initiator.finished.end(), tag) !=
         initiator.finished.end();
}

TEST(iscsi_management, an_aborted_command_is_never_answered) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    bench.Hold();
    const uint32_t read = initiator.AskRead(0, 4096);
    const uint32_t write = initiator.AskWrite(0, RandomBytes(4096, 1));
    const uint32_t kept = initiator.AskRead(4096, 4096);
    EXPECT(Eventually([&] { return bench.Pending() == 3; }));
    EXPECT_EQ(initiator.Function(TaskFunction::kAbortTask, read), kComplete);
    // In its turn, and at once.
    EXPECT_EQ(initiator.Function(TaskFunction::kAbortTask, write, false), kComplete);
    EXPECT_EQ(initiator.Function(TaskFunction::kAbortTask, read), kNoTask);
    EXPECT_EQ(initiator.Function(TaskFunction::kAbortTask, 0x4444), kNoTask);
    // The tag may be used again while the device still has the old command.
    initiator.next_tag = read;
    const uint32_t again = initiator.AskRead(8192, 512);
    EXPECT_EQ(again, read);
    initiator.next_tag = 100;
    bench.LetGo();
    EXPECT(initiator.Await(kept).good());
    EXPECT_EQ(initiator.Await(again).data.size(), 512u);
    EXPECT(initiator.Ping({}).Is(Opcode::kNopIn));
    EXPECT(!AnsweredBefore(initiator, write));
    EXPECT_EQ(initiator.max_command - initiator.expected_command + 1, kCommandsMax);
  });
}

// What the target has sent: headers, none with data.
std::vector<BasicHeader> Headers(const std::string& bytes) {
  CHECK(bytes.size() % kHeaderBytes == 0);
  std::vector<BasicHeader> headers;
  std::array<char, kHeaderBytes> raw;
  for (size_t at = 0; at < bytes.size(); at += kHeaderBytes) {
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(at), kHeaderBytes, raw.begin());
    headers.push_back(As<BasicHeader>(raw));
  }
  return headers;
}

// A command whose answer waits to be sent has ended. «Complete» would say that it is not answered
// any more.
TEST(iscsi_management, what_is_done_and_not_answered_yet_is_no_task_any_more) {
  ScriptedBench bench;
  bench.LogIn();
  ScsiCommand command;  // REPORT LUNS, into no room: good, whatever the unit has to tell
  command.opcode = static_cast<uint8_t>(Opcode::kScsiCommand);
  command.flags = kFlagFinal;
  command.cdb[0] = 0xa0;
  command.cdb[9] = 16;
  // While the first answer is not read, the second one waits behind it.
  for (command.task_tag = 1; command.task_tag <= 2; command.task_tag = command.task_tag + 1) {
    bench.Give(command);
    command.command_number = command.command_number + 1;
  }
  TaskManagementRequest abort;
  abort.opcode = static_cast<uint8_t>(Opcode::kTaskManagementRequest) | kFlagImmediate;
  abort.flags = kFlagFinal | static_cast<uint8_t>(TaskFunction::kAbortTask);
  abort.task_tag = 3;
  abort.referenced_tag = 2;
  bench.Give(abort);
  EXPECT_EQ(Headers(bench.Taken()).size(), 1u);
  const std::vector<BasicHeader> sent = Headers(bench.Taken());
  ASSERT(sent.size() == 2);
  EXPECT_EQ(uint32_t{sent[0].task_tag}, 2u);
  EXPECT_EQ(int{sent[0].opcode}, static_cast<int>(Opcode::kScsiResponse));
  EXPECT_EQ(int{As<ScsiResponse>(sent[0]).status}, 0);
  EXPECT_EQ(uint32_t{sent[1].task_tag}, 3u);
  EXPECT_EQ(int{sent[1].opcode}, static_cast<int>(Opcode::kTaskManagementResponse));
  EXPECT_EQ(int{As<TaskManagementResponse>(sent[1]).response}, kNoTask);
}

TEST(iscsi_management, a_command_that_waits_for_its_data_is_aborted) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    LoginOptions options;
    options.keys = {"InitialR2T=Yes", "ImmediateData=No"};
    ASSERT(initiator.Login(options) == 0);
    ScsiCommand command;
    command.opcode = static_cast<uint8_t>(Opcode::kScsiCommand);
    command.flags = kFlagFinal | kFlagWrite;
    command.task_tag = 0x1234;
    command.expected_bytes = 4096;
    command.command_number = initiator.command_number++;
    command.cdb = ReadOrWrite16(kWrite16, 0, 8);
    initiator.Send(command);
    const Pdu r2t = initiator.Read();
    ASSERT(r2t.Is(Opcode::kReadyToTransfer));
    EXPECT_EQ(initiator.Function(TaskFunction::kAbortTask, 0x1234), kComplete);
    // Its data comes all the same, and goes nowhere.
    DataOut data;
    data.opcode = static_cast<uint8_t>(Opcode::kDataOut);
    data.flags = kFlagFinal;
    data.task_tag = 0x1234;
    data.transfer_tag = r2t.As<ReadyToTransfer>().transfer_tag;
    initiator.Send(data, RandomBytes(4096, 7));
    EXPECT(initiator.ReadAt(0, 4096).data == Bytes(4096));
    EXPECT_EQ(bench.Held() <= 2 * BufferPool::kSmallBytes, true);
  });
}

TEST(iscsi_management, sets_and_resets) {
  OnEachBench([](Bench& bench) {
    for (const auto function : {TaskFunction::kAbortTaskSet, TaskFunction::kClearTaskSet,
                                TaskFunction::kLogicalUnitReset, TaskFunction::kTargetWarmReset}) {
      Initiator initiator(bench);
      ASSERT(initiator.Login() == 0);
      LoginOptions options;
      options.isid[5] = 77;
      Initiator beside(bench);
      ASSERT(beside.Login(options) == 0);
      bench.Hold();
      std::vector<uint32_t> tags;
      for (int i = 0; i < 10; ++i) {
        tags.push_back(initiator.AskWrite(static_cast<uint64_t>(i) * 4096, RandomBytes(4096, 1)));
      }
      const uint32_t other = beside.AskRead(kMiB, 4096);
      EXPECT(Eventually([&] { return bench.Pending() == 11; }));
      EXPECT_EQ(initiator.Function(function), kComplete);
      bench.LetGo();
      if (function == TaskFunction::kAbortTaskSet) {
        EXPECT(beside.Await(other).good());
      } else {
        EXPECT(beside.Ping({}).Is(Opcode::kNopIn));
        EXPECT(!AnsweredBefore(beside, other));
        // It learns of it by a unit attention.
        EXPECT_EQ(int{beside.Run(Cdb{}, 0, 0).status}, 2);
      }
      EXPECT(initiator.Ping({}).Is(Opcode::kNopIn));
      for (const uint32_t tag : tags) EXPECT(!AnsweredBefore(initiator, tag));
      (void)initiator.Run(Cdb{}, 0, 0);
      EXPECT(initiator.WriteAt(0, RandomBytes(4096, 2)).good());
      EXPECT(Eventually([&] { return bench.Pending() == 0; }));
    }
  });
}

TEST(iscsi_management, a_cold_reset_ends_all_sessions) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    LoginOptions options;
    options.isid[5] = 77;
    Initiator beside(bench);
    ASSERT(beside.Login(options) == 0);
    bench.Hold();
    initiator.AskRead(0, 4096);
    EXPECT(Eventually([&] { return bench.Pending() == 1; }));
    bench.On([] {});
    EXPECT_EQ(initiator.Function(TaskFunction::kTargetColdReset), kComplete);
    bench.LetGo();
    EXPECT(initiator.Ended());
    EXPECT(beside.Ended());
    EXPECT(Eventually([&] { return bench.Connections() == 0; }));
    Initiator again(bench);
    EXPECT_EQ(again.Login(), 0u);
  });
}

TEST(iscsi_management, what_is_not_supported_is_said) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    EXPECT_EQ(initiator.Function(TaskFunction::kClearAca), 5);
    EXPECT_EQ(initiator.Function(TaskFunction::kTaskReassign), 4);
    EXPECT_EQ(initiator.Function(static_cast<TaskFunction>(99)), 5);
    EXPECT_EQ(initiator.Function(TaskFunction::kAbortTask, 1, true, {0, 1}), kNoLun);
    EXPECT_EQ(initiator.Function(TaskFunction::kLogicalUnitReset, kNoTag, true, {0, 5}), kNoLun);
    struct Case {
      uint8_t opcode;
      RejectReason reason;
    };
    for (const Case& each :
         {Case{0x10, RejectReason::kSnack}, Case{0x1c, RejectReason::kNotSupported},
          Case{0x43, RejectReason::kProtocolError}, Case{0x25, RejectReason::kNotSupported}}) {
      BasicHeader header;
      header.opcode = each.opcode;
      header.flags = kFlagFinal;
      header.task_tag = 0x99;
      initiator.Send(header, RandomBytes(40, 1));
      const Pdu pdu = initiator.Read();
      EXPECT(pdu.Is(Opcode::kReject));
      EXPECT_EQ(int{pdu.As<TaskManagementResponse>().response}, static_cast<int>(each.reason));
      EXPECT_EQ(static_cast<int>(pdu.data.at(0)), int{each.opcode});
    }
    EXPECT(initiator.ReadAt(0, 512).good());
  });
}

TEST(iscsi_management, immediate_commands_beyond_the_bound_are_rejected) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    bench.Hold();
    ScsiCommand command;
    command.opcode = static_cast<uint8_t>(Opcode::kScsiCommand) | kFlagImmediate;
    command.flags = kFlagFinal | kFlagRead;
    command.expected_bytes = 512;
    command.command_number = initiator.command_number;
    command.cdb = ReadOrWrite16(kRead16, 0, 1);
    for (uint32_t i = 0; i <= kImmediateMax; ++i) {
      command.task_tag = 1000 + i;
      initiator.Send(command);
    }
    const Pdu pdu = initiator.Read();
    EXPECT(pdu.Is(Opcode::kReject));
    EXPECT_EQ(int{pdu.As<TaskManagementResponse>().response},
              static_cast<int>(RejectReason::kImmediate));
    EXPECT_EQ(uint32_t{As<BasicHeader>([&] {
                         std::array<std::byte, kHeaderBytes> raw;
                         std::copy(pdu.data.begin(), pdu.data.end(), raw.begin());
                         return raw;
                       }())
                           .task_tag},
              1000 + kImmediateMax);
    bench.LetGo();
    for (uint32_t i = 0; i < kImmediateMax; ++i) EXPECT(initiator.Await(1000 + i).good());
  });
}

}  // namespace
}  // namespace ankole::iscsi
