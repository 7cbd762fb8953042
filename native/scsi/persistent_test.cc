#include "scsi/logical_unit_testing.h"

namespace ankole::scsi {
namespace {

constexpr uint8_t kRegister = 0;
constexpr uint8_t kReserve = 1;
constexpr uint8_t kRelease = 2;
constexpr uint8_t kClear = 3;
constexpr uint8_t kPreempt = 4;
constexpr uint8_t kPreemptAndAbort = 5;
constexpr uint8_t kWriteExclusive = 1;
constexpr uint8_t kExclusiveAccess = 3;

struct OutCommand {
  Cdb cdb;
  Bytes list;
};
OutCommand Out(uint8_t action, uint64_t key, uint64_t action_key, uint8_t type = 0) {
  OutCommand command;
  command.cdb = MakeCdb({0x5f, action, type, 0, 0, 0, 0, 0, 24});
  command.list.resize(24);
  StoreBig64(&command.list[0], key);
  StoreBig64(&command.list[8], action_key);
  return command;
}
Flight& BeginOut(Bench& bench, Nexus* nexus, const OutCommand& command) {
  return bench.Begin(nexus, command.cdb, {.out = command.list});
}
Flight& Run(Bench& bench, Nexus* nexus, const OutCommand& command) {
  return bench.Run(nexus, command.cdb, {.out = command.list});
}
std::vector<uint64_t> Keys(Bench& bench) {
  Flight& flight = bench.Run(MakeCdb({0x5e, 0, 0, 0, 0, 0, 0, 0x10, 0}));
  EXPECT_GOOD(flight);
  std::vector<uint64_t> keys;
  for (size_t at = 8; at < flight.data.size(); at += 8) keys.push_back(LoadBig64(&flight.data[at]));
  return keys;
}
bool Attention(Bench& bench, Nexus* nexus, SenseCode code) {
  return bench.Run(nexus, MakeCdb({0x00})).Is(SenseKey::kUnitAttention, code);
}
bool Conflicts(Bench& bench, Nexus* nexus, const Cdb& cdb, Bytes out = {}) {
  Flight& flight = bench.Run(nexus, cdb, {.out = std::move(out)});
  EXPECT(flight.ended);
  return flight.status() == ScsiStatus::kReservationConflict;
}
const Cdb kRead = Cdb10(0x28, 0, 1);
const Cdb kWrite = Cdb10(0x2a, 0, 1);

// Every command that is supported, sent by somebody who is not registered (SPC-4, table 66; SBC-3,
// table 13).
TEST(scsi_persistent, what_a_reservation_of_somebody_else_leaves) {
  struct Row {
    Cdb cdb;
    bool passes_write_exclusive;
    bool passes_exclusive_access;
  };
  Cdb caw = Cdb16(0x89, 0, 0);
  caw[13] = 1;
  const Row rows[] = {
      {MakeCdb({0x00}), true, true},
      {MakeCdb({0x03, 0, 0, 0, 18}), true, true},
      {MakeCdb({0x12, 0, 0, 0, 96}), true, true},
      {MakeCdb({0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16}), true, true},
      {MakeCdb({0x25}), true, true},
      {Cdb16(0x9e, 0, 32, 0x10), true, true},
      {MakeCdb({0x1b, 0, 0, 0, 1}), true, true},
      {MakeCdb({0x1e, 0, 0, 0, 0}), true, true},
      {MakeCdb({0x5e, 0, 0, 0, 0, 0, 0, 0, 8}), true, true},
      {MakeCdb({0x1a, 0, 0x3f, 0, 255}), true, false},
      {MakeCdb({0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 255}), true, false},
      {MakeCdb({0x4d, 0, 0x40, 0, 0, 0, 0, 0, 255}), true, false},
      {MakeCdb({0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 1, 0}), true, false},
      {MakeCdb({0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4}), true, false},
      {MakeCdb({0x37, 0, 0, 0, 0, 0, 0, 0, 4}), true, false},
      {MakeCdb({0xb7, 0, 0, 0, 0, 0, 0, 0, 0, 8}), true, false},
      {Cdb16(0x9e, 0, 24, 0x12), true, false},
      {MakeCdb({0x08, 0, 0, 0, 1}), true, false},
      {kRead, true, false},
      {MakeCdb({0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 1}), true, false},
      {Cdb16(0x88, 0, 1), true, false},
      {Cdb10(0x2f, 0, 1), true, false},
      {MakeCdb({0xaf, 0, 0, 0, 0, 0, 0, 0, 0, 1}), true, false},
      {Cdb16(0x8f, 0, 1), true, false},
      {Cdb10(0x34, 0, 1), true, false},
      {Cdb16(0x90, 0, 1), true, false},
      {MakeCdb({0x0a, 0, 0, 0, 1}), false, false},
      {kWrite, false, false},
      {MakeCdb({0xaa, 0, 0, 0, 0, 0, 0, 0, 0, 1}), false, false},
      {Cdb16(0x8a, 0, 1), false, false},
      {Cdb10(0x2e, 0, 1), false, false},
      {MakeCdb({0xae, 0, 0, 0, 0, 0, 0, 0, 0, 1}), false, false},
      {Cdb16(0x8e, 0, 1), false, false},
      {Cdb16(0x8b, 0, 1), false, false},
      {caw, false, false},
      {Cdb10(0x35, 0, 0), false, false},
      {Cdb16(0x91, 0, 0), false, false},
      {Cdb10(0x41, 0, 1), false, false},
      {Cdb16(0x93, 0, 1), false, false},
      {MakeCdb({0x42, 0, 0, 0, 0, 0, 0, 0, 24}), false, false},
      {MakeCdb({0x83}), false, false},
      {Cdb16(0x84, 0, 12, 0x00), false, false},
      {Cdb16(0x84, 0, 46, 0x03), false, false},
      {MakeCdb({0x15, 0x10, 0, 0, 24}), false, false},
      {MakeCdb({0x55, 0x10, 0, 0, 0, 0, 0, 0, 28}), false, false},
      {MakeCdb({0x1b, 0, 0, 0, 0}), false, false},
      {MakeCdb({0x1e, 0, 0, 0, 1}), false, false},
      {MakeCdb({0x16}), false, false},
      {MakeCdb({0x56}), false, false},
      {MakeCdb({0x17}), false, false},
      {MakeCdb({0x57}), false, false},
  };
  // All but the service actions of PERSISTENT RESERVE OUT, and all but one of those of IN. Two
  // commands are there twice, as a field of theirs decides.
  EXPECT_EQ(std::size(rows) - 2, SupportedCommands().size() - 7 - 3);
  for (const uint8_t type : {1, 3, 5, 6, 7, 8}) {
    Bench bench;
    EXPECT_GOOD(Run(bench, bench.a, Out(kRegister, 0, 1)));
    EXPECT_GOOD(Run(bench, bench.a, Out(kReserve, 1, 0, type)));
    const bool exclusive_access = type == 3 || type == 6 || type == 8;
    for (const Row& row : rows) {
      const bool passes =
          exclusive_access ? row.passes_exclusive_access : row.passes_write_exclusive;
      if (Conflicts(bench, bench.b, row.cdb, Filled(2048, 0)) == passes) {
        test::Fail(__FILE__, __LINE__,
                   "operation " + std::to_string(row.cdb[0]) + ", type " + std::to_string(type));
      }
      // And nothing conflicts for who holds it.
      EXPECT(!Conflicts(bench, bench.a, row.cdb, Filled(2048, 0)));
      bench.Run(MakeCdb({0x1b, 0, 0, 0, 1}));
    }
  }
}

TEST(scsi_persistent, registrations_come_back_with_another_engine) {
  Bench bench;
  EXPECT_GOOD(Run(bench, bench.a, Out(kRegister, 0, 0x11)));
  EXPECT_GOOD(Run(bench, bench.b, Out(kRegister, 0, 0x22)));
  EXPECT_GOOD(Run(bench, bench.a, Out(kReserve, 0x11, 0, kWriteExclusive)));
  EXPECT(Conflicts(bench, bench.b, kWrite, Filled(512, 1)));
  bench.Restart();
  ASSERT_OK(bench.started);
  EXPECT(Keys(bench) == (std::vector<uint64_t>{0x11, 0x22}));
  EXPECT(Conflicts(bench, bench.b, kWrite, Filled(512, 1)));
  EXPECT_GOOD(bench.Run(kWrite, Filled(512, 1)));
  Flight& reservation = bench.Run(MakeCdb({0x5e, 1, 0, 0, 0, 0, 0, 1, 0}));
  ASSERT(reservation.data.size() == 24);
  EXPECT_EQ(LoadBig64(&reservation.data[8]), 0x11u);
  EXPECT_EQ(At(reservation.data, 21), kWriteExclusive);
}

TEST(scsi_persistent, full_status_names_the_initiators) {
  Bench bench;
  EXPECT_GOOD(Run(bench, bench.a, Out(kRegister, 0, 0x11)));
  EXPECT_GOOD(Run(bench, bench.b, Out(kRegister, 0, 0x22)));
  EXPECT_GOOD(Run(bench, bench.b, Out(kReserve, 0x22, 0, kExclusiveAccess)));
  Flight& status = bench.Run(MakeCdb({0x5e, 3, 0, 0, 0, 0, 0, 0x10, 0}));
  EXPECT_GOOD(status);
  // Two descriptors of 24 bytes, with «iqn.a,i,0x000000000001», a zero and padding.
  const size_t name_bytes = 24;
  ASSERT(status.data.size() == 8 + 2 * (24 + 4 + name_bytes));
  EXPECT_EQ(LoadBig32(&status.data[4]), status.data.size() - 8);
  const std::byte* second = &status.data[8 + 24 + 4 + name_bytes];
  EXPECT_EQ(LoadBig64(second), 0x22u);
  EXPECT_EQ(static_cast<int>(second[12]), 3);
  EXPECT_EQ(static_cast<int>(second[13]), kExclusiveAccess);
  EXPECT_EQ(LoadBig16(second + 18), kRelativeTargetPort);
  EXPECT_EQ(static_cast<int>(second[24]), 0x45);
  EXPECT_EQ(LoadBig16(second + 26), name_bytes);
  EXPECT(std::string(reinterpret_cast<const char*>(second + 28)) == "iqn.b,i,0x000000000002");
}

TEST(scsi_persistent, the_state_is_stored_before_it_is_answered) {
  Bench bench;
  const auto before = bench.device.state();
  bench.device.held = true;
  Flight& registered = BeginOut(bench, bench.a, Out(kRegister, 0, 0x11));
  bench.reactor.Turn();
  EXPECT(!registered.ended && bench.device.state() == before);
  // Not in force either: nobody hears of it, and who comes next waits.
  EXPECT(Keys(bench).empty());
  Flight& second = BeginOut(bench, bench.b, Out(kRegister, 0, 0x22));
  Flight& third = BeginOut(bench, bench.b, Out(kReserve, 0x22, 0, kWriteExclusive));
  EXPECT_EQ(bench.device.pending(), 1u);
  bench.device.LetGo();
  bench.reactor.Turn();
  EXPECT_GOOD(registered);
  EXPECT_GOOD(second);
  EXPECT_GOOD(third);
  EXPECT(bench.device.state() != before);
  EXPECT(Keys(bench) == (std::vector<uint64_t>{0x11, 0x22}));
}

// The initiator does not learn of it, but what is stored is what holds.
TEST(scsi_persistent, an_aborted_command_that_is_being_stored_takes_effect) {
  Bench bench;
  bench.device.held = true;
  Flight& registered = BeginOut(bench, bench.a, Out(kRegister, 0, 0x11));
  Flight& waiting = BeginOut(bench, bench.b, Out(kRegister, 0, 0x22));
  bench.unit->Abort(&registered.task);
  bench.unit->Abort(&waiting.task);
  bench.reactor.Turn();
  EXPECT(!registered.ended && waiting.ended);
  bench.device.LetGo();
  bench.reactor.Turn();
  EXPECT(registered.ended && registered.task.aborted);
  EXPECT(Keys(bench) == std::vector<uint64_t>{0x11});
}

TEST(scsi_persistent, a_failed_store_leaves_the_state_as_it_was) {
  Bench bench;
  EXPECT_GOOD(Run(bench, bench.a, Out(kRegister, 0, 0x11)));
  EXPECT_GOOD(Run(bench, bench.a, Out(kReserve, 0x11, 0, kWriteExclusive)));
  const auto before = bench.device.state();
  // It fails on some members, and is on others: the old state is brought back.
  int stores = 0;
  bench.device.fault = [&](const BlockRequest& request) {
    if (request.operation != BlockOperation::kStoreState || ++stores > 1) return ErrorCode::kOk;
    std::memcpy(bench.device.state().data(), request.data, kTargetStateBytes);
    return ErrorCode::kIoError;
  };
  EXPECT(Run(bench, bench.a, Out(kRelease, 0x11, 0, kWriteExclusive))
             .Is(SenseKey::kMediumError, SenseCode::kWriteError));
  EXPECT_EQ(stores, 2);
  EXPECT(bench.device.state() == before);
  EXPECT(Conflicts(bench, bench.b, kWrite, Filled(512, 1)));
}

TEST(scsi_persistent, after_a_store_that_could_not_be_undone_the_next_one_settles_it) {
  Bench bench;
  EXPECT_GOOD(Run(bench, bench.a, Out(kRegister, 0, 0x11)));
  const auto before = bench.device.state();
  bench.device.fault = [&](const BlockRequest& request) {
    std::memcpy(bench.device.state().data(), request.data, kTargetStateBytes);
    bench.device.state()[8] = std::byte{0x77};
    return ErrorCode::kUnavailable;
  };
  EXPECT(Run(bench, bench.a, Out(kClear, 0x11, 0)).status() == ScsiStatus::kBusy);
  EXPECT_EQ(bench.log.lines.size(), 1u);
  bench.device.fault = nullptr;
  EXPECT(bench.device.state() != before);
  // Something that changes nothing is stored then all the same.
  EXPECT_GOOD(Run(bench, bench.a, Out(kRelease, 0x11, 0, kWriteExclusive)));
  EXPECT(bench.device.state() == before);
}

TEST(scsi_persistent, an_engine_does_not_start_on_a_state_it_cannot_read) {
  Bench bench;
  EXPECT_GOOD(Run(bench, bench.a, Out(kRegister, 0, 0x11)));
  const auto good = bench.device.state();
  bench.device.state()[30] ^= std::byte{1};
  bench.Restart();
  EXPECT(bench.started.code() == ErrorCode::kCorrupt);
  EXPECT(bench.started.message().find("wrong checksum") != std::string::npos);
  bench.device.state() = good;
  // The same where the replicas themselves say so.
  bench.device.fault = [](const BlockRequest&) { return ErrorCode::kCorrupt; };
  bench.Restart();
  EXPECT(bench.started.code() == ErrorCode::kCorrupt);
  EXPECT(bench.started.message().find("fenced off") != std::string::npos);
  bench.device.fault = [](const BlockRequest& request) {
    return request.operation == BlockOperation::kStoreState ? ErrorCode::kUnavailable
                                                            : ErrorCode::kOk;
  };
  bench.Restart();
  EXPECT(bench.started.code() == ErrorCode::kUnavailable);
  bench.device.fault = nullptr;
  // Once more, with the same unit.
  bench.unit->Start([&](const Status& status) { bench.started = status; });
  bench.reactor.Turn();
  EXPECT(bench.started.ok());
}

TEST(scsi_persistent, a_start_stores_what_it_has_loaded) {
  Bench bench;
  std::vector<BlockOperation> seen;
  bench.device.fault = [&](const BlockRequest& request) {
    seen.push_back(request.operation);
    return ErrorCode::kOk;
  };
  bench.Restart();
  EXPECT(bench.started.ok());
  EXPECT(seen ==
         (std::vector<BlockOperation>{BlockOperation::kLoadState, BlockOperation::kStoreState}));
}

TEST(scsi_persistent, those_concerned_are_told_and_the_preempted_lose_their_tasks) {
  Bench bench;
  Nexus* c = bench.Join("iqn.c,i,0x000000000003");
  EXPECT_GOOD(Run(bench, bench.a, Out(kRegister, 0, 1)));
  EXPECT_GOOD(Run(bench, bench.b, Out(kRegister, 0, 2)));
  EXPECT_GOOD(Run(bench, c, Out(kRegister, 0, 3)));
  EXPECT_GOOD(Run(bench, bench.a, Out(kReserve, 1, 0, 5)));
  // Two tasks of a's: one at the device, one that waits for it.
  bench.device.held = true;
  Flight& write = bench.Begin(bench.a, kWrite, {.out = Filled(512, 1)});
  Flight& waiting = bench.Begin(bench.a, kRead, {.attribute = TaskAttribute::kOrdered});
  Flight& preempt = bench.Begin(bench.b, Out(kPreemptAndAbort, 2, 1, kExclusiveAccess).cdb,
                                {.out = Out(kPreemptAndAbort, 2, 1, kExclusiveAccess).list,
                                 .attribute = TaskAttribute::kHeadOfQueue});
  bench.device.LetGo();
  bench.reactor.Turn();
  EXPECT_GOOD(preempt);
  EXPECT(write.ended);
  EXPECT(waiting.ended && waiting.task.aborted);
  EXPECT(Attention(bench, bench.a, SenseCode::kRegistrationsPreempted));
  EXPECT(Attention(bench, c, SenseCode::kReservationsReleased));
  EXPECT_GOOD(bench.Run(bench.b, MakeCdb({0x00})));
  EXPECT(Conflicts(bench, bench.a, kRead));
  EXPECT(Conflicts(bench, c, kRead));
  EXPECT_GOOD(Run(bench, bench.b, Out(kClear, 2, 0)));
  EXPECT(Attention(bench, c, SenseCode::kReservationsPreempted));
  EXPECT_GOOD(bench.Run(kRead));
}

// One that is preempted makes no room for a task of another one that is preempted with it.
TEST(scsi_persistent, nothing_of_the_preempted_begins_any_more) {
  Bench bench;
  Nexus* c = bench.Join("iqn.c,i,0x000000000003");
  EXPECT_GOOD(Run(bench, bench.a, Out(kRegister, 0, 1)));
  EXPECT_GOOD(Run(bench, bench.b, Out(kRegister, 0, 2)));
  EXPECT_GOOD(Run(bench, c, Out(kRegister, 0, 1)));
  EXPECT_GOOD(Run(bench, bench.a, Out(kReserve, 1, 0, 5)));
  bench.device.held = true;
  Flight& preempt = BeginOut(bench, bench.b, Out(kPreemptAndAbort, 2, 1, 5));
  bench.Begin(bench.a, kRead);
  Flight& ordered = bench.Begin(bench.a, kRead, {.attribute = TaskAttribute::kOrdered});
  Flight& write = bench.Begin(c, kWrite, {.out = Filled(512, 7)});
  bench.device.LetGo();
  bench.reactor.Turn();
  EXPECT_GOOD(preempt);
  EXPECT(ordered.task.aborted && write.task.aborted);
  EXPECT(bench.Medium(0, 1) == Filled(512, 0));
}

TEST(scsi_persistent, a_registration_outlives_its_session) {
  Bench bench;
  Nexus* c = bench.Join("iqn.c,i,0x000000000003");
  EXPECT_GOOD(Run(bench, c, Out(kRegister, 0, 3)));
  EXPECT_GOOD(Run(bench, c, Out(kReserve, 3, 0, kWriteExclusive)));
  bench.Leave(c);
  EXPECT(Conflicts(bench, bench.a, kWrite, Filled(512, 1)));
  // The same port comes again, and another one of the same initiator does not get in by its name.
  c = bench.Join("iqn.c,i,0x000000000003");
  Nexus* other = bench.Join("iqn.c,i,0x000000000004");
  EXPECT_GOOD(bench.Run(c, kWrite, {.out = Filled(512, 1)}));
  EXPECT(Conflicts(bench, other, kWrite, Filled(512, 1)));
}

TEST(scsi_persistent, parameters_that_are_refused) {
  Bench bench;
  OutCommand command = Out(kRegister, 0, 1);
  command.list[20] = std::byte{0x08};  // SPEC_I_PT
  EXPECT(Run(bench, bench.a, command).Illegal(SenseCode::kInvalidFieldInParameterList));
  command.list[20] = std::byte{0x05};  // ALL_TG_PT, APTPL
  EXPECT_GOOD(Run(bench, bench.a, command));
  command.list.resize(20);
  EXPECT(Run(bench, bench.a, command).Illegal(SenseCode::kParameterListLengthError));
  EXPECT(Run(bench, bench.a, Out(kReserve, 1, 0, 2)).Illegal(SenseCode::kInvalidFieldInCdb));
  EXPECT(Run(bench, bench.a, Out(kReserve, 1, 0, 0x11)).Illegal(SenseCode::kInvalidFieldInCdb));
  EXPECT(
      Run(bench, bench.a, Out(kPreempt, 1, 0, 1)).Illegal(SenseCode::kInvalidFieldInParameterList));
}

TEST(scsi_persistent, reserve_and_release_of_the_older_kind) {
  Bench bench;
  EXPECT_GOOD(bench.Run(MakeCdb({0x16})));
  EXPECT_GOOD(bench.Run(MakeCdb({0x56})));
  EXPECT_GOOD(bench.Run(kRead));
  EXPECT(Conflicts(bench, bench.b, MakeCdb({0x00})));
  EXPECT(Conflicts(bench, bench.b, kRead));
  EXPECT(Conflicts(bench, bench.b, MakeCdb({0x16})));
  EXPECT(!Conflicts(bench, bench.b, MakeCdb({0x12, 0, 0, 0, 96})));
  // The kinds do not mix.
  EXPECT(Conflicts(bench, bench.a, MakeCdb({0x5e, 0, 0, 0, 0, 0, 0, 0, 8})));
  EXPECT(Run(bench, bench.a, Out(kRegister, 0, 1)).status() == ScsiStatus::kReservationConflict);
  // Who has not reserved it releases nothing.
  EXPECT_GOOD(bench.Run(bench.b, MakeCdb({0x17})));
  EXPECT(Conflicts(bench, bench.b, kRead));
  EXPECT_GOOD(bench.Run(MakeCdb({0x57})));
  EXPECT_GOOD(bench.Run(bench.b, kRead));
  // It ends with a reset, and with its nexus.
  EXPECT_GOOD(bench.Run(MakeCdb({0x16})));
  bench.unit->Manage(TaskManagement::kLogicalUnitReset, bench.b);
  EXPECT(Attention(bench, bench.b, SenseCode::kBusDeviceReset));
  EXPECT_GOOD(bench.Run(bench.b, kRead));
  Nexus* c = bench.Join("iqn.c,i,0x000000000003");
  EXPECT_GOOD(bench.Run(c, MakeCdb({0x16})));
  bench.Leave(c);
  EXPECT_GOOD(bench.Run(bench.b, kRead));
}

TEST(scsi_persistent, reserve_where_there_are_registrations) {
  Bench bench;
  EXPECT_GOOD(Run(bench, bench.a, Out(kRegister, 0, 1)));
  EXPECT(Conflicts(bench, bench.a, MakeCdb({0x16})));
  EXPECT(Conflicts(bench, bench.b, MakeCdb({0x16})));
  EXPECT_GOOD(Run(bench, bench.a, Out(kReserve, 1, 0, 5)));
  // Nothing is done for who has access, and it conflicts for others.
  EXPECT_GOOD(bench.Run(MakeCdb({0x16})));
  EXPECT(Conflicts(bench, bench.b, MakeCdb({0x17})));
  EXPECT_GOOD(bench.Run(bench.b, kRead));
}

}  // namespace
}  // namespace ankole::scsi
