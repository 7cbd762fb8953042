#include <random>

#include "scsi/logical_unit_testing.h"
#include "scsi/nexus.h"

namespace ankole::scsi {
namespace {

const Cdb kReady = MakeCdb({0x00});
const Cdb kRead = Cdb10(0x28, 0, 1);
const Cdb kWrite = Cdb10(0x2a, 0, 1);

bool Attention(Bench& bench, Nexus* nexus, SenseCode code) {
  return bench.Run(nexus, kReady).Is(SenseKey::kUnitAttention, code);
}

// --- order (SAM-5, 8.5) --------------------------------------------------------------------------

TEST(scsi_tasks, an_ordered_task_waits_for_all_before_and_holds_all_behind) {
  Bench bench;
  bench.device.held = true;
  Flight& first = bench.Begin(bench.a, kRead);
  Flight& second = bench.Begin(bench.b, kRead);
  EXPECT_EQ(bench.device.pending(), 2u);
  Flight& ordered = bench.Begin(bench.a, kRead, {.attribute = TaskAttribute::kOrdered});
  Flight& behind = bench.Begin(bench.b, kRead);
  Flight& quick = bench.Begin(bench.b, kReady);
  EXPECT_EQ(bench.device.pending(), 2u);
  Flight& head = bench.Begin(bench.a, kRead, {.attribute = TaskAttribute::kHeadOfQueue});
  EXPECT_EQ(bench.device.pending(), 3u);
  EXPECT_EQ(bench.unit->tasks(), 6u);
  bench.reactor.Turn();
  EXPECT(!quick.ended);

  bench.device.fault = [&](const BlockRequest& request) {
    if (&request == &ordered.task.requests[0]) {
      EXPECT(first.ended && second.ended && !behind.ended);
    }
    if (&request == &behind.task.requests[0]) EXPECT(ordered.ended);
    return ErrorCode::kOk;
  };
  bench.device.LetGo();
  bench.reactor.Turn();
  for (const Flight* flight : {&first, &second, &ordered, &behind, &quick, &head}) {
    EXPECT_GOOD(*flight);
  }
  EXPECT_EQ(bench.unit->tasks(), 0u);
}

TEST(scsi_tasks, many_ordered_ones_go_one_after_the_other) {
  Bench bench;
  std::vector<Flight*> flights;
  for (int i = 0; i < 20; ++i) {
    flights.push_back(&bench.Begin(i % 2 == 0 ? bench.a : bench.b, i % 3 == 0 ? kReady : kRead,
                                   {.attribute = TaskAttribute::kOrdered}));
  }
  bench.reactor.Turn();
  EXPECT_EQ(bench.device.pending_max, 1u);
  for (const Flight* flight : flights) EXPECT_GOOD(*flight);
}

TEST(scsi_tasks, there_is_no_auto_contingent_allegiance) {
  Bench bench;
  EXPECT(bench.Run(bench.a, kReady, {.attribute = TaskAttribute::kAca})
             .Illegal(SenseCode::kInvalidFieldInInformationUnit));
}

// --- abort ---------------------------------------------------------------------------------------

TEST(scsi_tasks, an_aborted_task_begins_no_further_step) {
  Cdb caw = Cdb16(0x89, 0, 0);
  caw[13] = 1;
  Bytes unmap(8 + 20 * 16);
  StoreBig16(&unmap[2], 20 * 16);
  for (size_t i = 0; i < 20; ++i) {
    StoreBig64(&unmap[8 + i * 16], i * 8);
    StoreBig32(&unmap[8 + i * 16 + 8], 8);
  }
  Cdb unmap_cdb = MakeCdb({0x42});
  StoreBig16(&unmap_cdb[7], static_cast<uint16_t>(unmap.size()));
  struct Row {
    Cdb cdb;
    Bytes out;
    uint64_t begun;  // requests of the first step
  };
  const Row rows[] = {
      {caw, Filled(1024, 0), 1},
      {unmap_cdb, unmap, kSegmentsMax},
      {Cdb16(0x93, 0, 20'000), Filled(512, 7), kSegmentsMax},
      {Cdb16(0x8f, 0, 20'000), {}, 1},
      {Cdb16(0x8e, 0, 4096), Filled(2 * kMiB, 7), 1},
      {Cdb16(0x8b, 0, 4096), Filled(2 * kMiB, 7), 1},
      {Cdb10(0x28, 0, 1, 0x08), {}, 1},
  };
  for (const Row& row : rows) {
    Bench bench;
    const uint64_t before = bench.device.submitted;
    bench.device.held = true;
    Flight& flight = bench.Begin(bench.a, row.cdb, {.out = row.out});
    EXPECT_EQ(bench.device.submitted - before, row.begun);
    bench.unit->Abort(&flight.task);
    bench.reactor.Turn();
    // Its memory is the device's as long as that has it.
    EXPECT(!flight.ended);
    bench.device.LetGo();
    bench.reactor.Turn();
    EXPECT(flight.ended && flight.task.aborted);
    EXPECT_EQ(bench.device.submitted - before, row.begun);
    EXPECT_EQ(bench.device.holds(), 0u);
    EXPECT_EQ(bench.unit->tasks(), 0u);
  }
}

TEST(scsi_tasks, an_aborted_task_that_has_not_begun_ends_at_once) {
  Bench bench;
  bench.device.held = true;
  Flight& first = bench.Begin(bench.a, kRead);
  Flight& ordered =
      bench.Begin(bench.a, kWrite, {.out = Filled(512, 9), .attribute = TaskAttribute::kOrdered});
  Flight& behind = bench.Begin(bench.a, kRead);
  bench.unit->Abort(&ordered.task);
  EXPECT(!ordered.ended);
  // What it held up goes on.
  EXPECT_EQ(bench.device.pending(), 2u);
  bench.reactor.Turn();
  EXPECT(ordered.ended && ordered.task.aborted);
  bench.device.LetGo();
  bench.reactor.Turn();
  EXPECT_GOOD(first);
  EXPECT_GOOD(behind);
  EXPECT(bench.Medium(0, 1) == Filled(512, 0));
}

TEST(scsi_tasks, an_answer_that_is_on_its_way_can_be_aborted) {
  Bench bench;
  Flight& ready = bench.Begin(bench.a, kReady);
  bench.unit->Abort(&ready.task);
  bench.reactor.Turn();
  EXPECT(ready.ended && ready.task.aborted);
}

// --- task management (SAM-5, 7) ------------------------------------------------------------------

TEST(scsi_tasks, abort_task_set_is_for_the_own_tasks) {
  Bench bench;
  bench.device.held = true;
  Flight& own = bench.Begin(bench.a, kRead);
  Flight& other = bench.Begin(bench.b, kRead);
  bench.unit->Manage(TaskManagement::kAbortTaskSet, bench.a);
  bench.device.LetGo();
  bench.reactor.Turn();
  EXPECT(own.task.aborted && !other.task.aborted);
  EXPECT_GOOD(bench.Run(bench.a, kReady));
  EXPECT_GOOD(bench.Run(bench.b, kReady));
}

TEST(scsi_tasks, clear_task_set_is_for_all_and_tells_the_others) {
  Bench bench;
  Nexus* c = bench.Join("iqn.c,i,0x000000000003");
  bench.device.held = true;
  Flight& own = bench.Begin(bench.a, kRead);
  Flight& other = bench.Begin(bench.b, kRead);
  bench.unit->Manage(TaskManagement::kClearTaskSet, bench.a);
  bench.device.LetGo();
  bench.reactor.Turn();
  EXPECT(own.task.aborted && other.task.aborted);
  EXPECT_GOOD(bench.Run(bench.a, kReady));
  EXPECT(Attention(bench, bench.b, SenseCode::kCommandsCleared));
  EXPECT_GOOD(bench.Run(c, kReady));
}

// What is aborted next does not begin in place of what was aborted first.
TEST(scsi_tasks, of_many_that_are_aborted_none_begins) {
  for (const TaskManagement function :
       {TaskManagement::kClearTaskSet, TaskManagement::kLogicalUnitReset}) {
    Bench bench;
    const uint64_t before = bench.device.submitted;
    bench.device.held = true;
    bench.Begin(bench.a, kRead);
    bench.Begin(bench.a, kRead, {.attribute = TaskAttribute::kOrdered});
    bench.Begin(bench.a, kWrite, {.out = Filled(512, 1)});
    Flight& other = bench.Begin(bench.b, kWrite, {.out = Filled(512, 2)});
    bench.unit->Manage(function, bench.a);
    bench.device.LetGo();
    bench.reactor.Turn();
    EXPECT(other.ended && other.task.aborted);
    EXPECT_EQ(bench.device.submitted - before, 1u);
    EXPECT_EQ(bench.unit->tasks(), 0u);
  }
}

TEST(scsi_tasks, a_reset_undoes_what_is_not_persistent_and_tells_all) {
  for (const TaskManagement function :
       {TaskManagement::kLogicalUnitReset, TaskManagement::kTargetReset}) {
    Bench bench;
    EXPECT_GOOD(bench.Run(MakeCdb({0x1b, 0, 0, 0, 0})));
    bench.device.held = true;
    Flight& own = bench.Begin(bench.a, Cdb10(0x41, 0, 1), {.out = Filled(512, 0)});
    EXPECT(!own.ended);
    bench.unit->Manage(function, bench.a);
    bench.device.LetGo();
    bench.reactor.Turn();
    EXPECT(own.ended);
    EXPECT(Attention(bench, bench.a, SenseCode::kBusDeviceReset));
    EXPECT(Attention(bench, bench.b, SenseCode::kBusDeviceReset));
    EXPECT_GOOD(bench.Run(bench.a, kRead));
  }
}

// --- unit attentions (SAM-5, 5.14) ---------------------------------------------------------------

TEST(scsi_tasks, a_new_nexus_is_told_of_the_power_on_once) {
  Bench bench;
  Nexus* c = bench.unit->AddNexus("iqn.c,i,0x000000000003");
  EXPECT_GOOD(bench.Run(c, MakeCdb({0x12, 0, 0, 0, 96})));
  EXPECT_GOOD(bench.Run(c, MakeCdb({0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16})));
  // Before a command that cannot be, too.
  EXPECT(bench.Run(c, MakeCdb({0xff})).Is(SenseKey::kUnitAttention, SenseCode::kPowerOn));
  EXPECT(bench.Run(c, MakeCdb({0xff})).Illegal(SenseCode::kInvalidOperationCode));
  EXPECT_GOOD(bench.Run(c, kReady));
  bench.Leave(c);
}

TEST(scsi_tasks, request_sense_tells_an_attention_as_data) {
  Bench bench;
  Nexus* c = bench.unit->AddNexus("iqn.c,i,0x000000000003");
  Flight& sense = bench.Run(c, MakeCdb({0x03, 0, 0, 0, 18}));
  EXPECT_GOOD(sense);
  EXPECT_EQ(At(sense.data, 0), 0x70);
  EXPECT_EQ(At(sense.data, 2), 0x06);
  EXPECT_EQ(LoadBig16(&sense.data[12]), 0x2900);
  Flight& descriptor = bench.Run(c, MakeCdb({0x03, 1, 0, 0, 252}));
  EXPECT_EQ(At(descriptor.data, 0), 0x72);
  EXPECT_EQ(At(descriptor.data, 1), 0x00);
  EXPECT_EQ(descriptor.data.size(), 8u);
  bench.Leave(c);
}

TEST(scsi_tasks, attentions_are_told_in_their_order_and_each_once) {
  UnitAttentions attentions;
  for (int i = 0; i < 3; ++i) {
    for (const SenseCode code :
         {SenseCode::kModeParametersChanged, SenseCode::kReservationsPreempted,
          SenseCode::kReservationsReleased, SenseCode::kRegistrationsPreempted,
          SenseCode::kCommandsCleared, SenseCode::kCapacityDataHasChanged}) {
      attentions.Raise(code);
    }
  }
  EXPECT(attentions.Take().code == SenseCode::kModeParametersChanged);
  EXPECT(attentions.Take().code == SenseCode::kReservationsPreempted);
  // A reset says all of it.
  attentions.Raise(SenseCode::kBusDeviceReset);
  EXPECT(attentions.Take().code == SenseCode::kBusDeviceReset);
  EXPECT(attentions.empty());
}

TEST(scsi_tasks, a_device_that_became_larger_is_told_to_each_nexus_once) {
  Bench bench;
  constexpr uint64_t kMore = 3 * Bench::kBlocks;
  const Cdb beyond = Cdb10(0x2a, Bench::kBlocks, 1);
  EXPECT(bench.Run(beyond, {.out = Bytes(512, std::byte{1})})
             .Illegal(SenseCode::kBlockAddressOutOfRange));
  // Of the device as it was, and not carried out yet.
  bench.device.held = true;
  Flight& before = bench.Begin(bench.a, Cdb10(0x28, Bench::kBlocks - 1, 1));
  bench.device.Grow(kMore * kLogicalBlockBytes);
  EXPECT(bench.Run(beyond, {.out = Bytes(512, std::byte{1})})
             .Illegal(SenseCode::kBlockAddressOutOfRange));
  bench.unit->CapacityChanged();
  bench.unit->CapacityChanged();  // nothing has
  bench.device.LetGo();
  bench.reactor.Turn();
  EXPECT_GOOD(before);
  // A nexus of later has seen no other size.
  Nexus* c = bench.Join("iqn.c,i,0x000000000003");
  for (Nexus* nexus : {bench.a, bench.b}) {
    EXPECT(Attention(bench, nexus, SenseCode::kCapacityDataHasChanged));
    EXPECT_GOOD(bench.Run(nexus, kReady));
  }
  EXPECT_GOOD(bench.Run(c, kReady));
  EXPECT_EQ(LoadBig32(bench.Run(MakeCdb({0x25})).data.data()), kMore - 1);
  EXPECT_EQ(LoadBig64(bench.Run(Cdb16(0x9e, 0, 255, 0x10)).data.data()), kMore - 1);
  EXPECT_GOOD(bench.Run(beyond, {.out = Bytes(512, std::byte{1})}));
  const Flight& status = bench.Run(Cdb16(0x9e, kMore - 8, 24, 0x12));
  EXPECT_GOOD(status);
  EXPECT(bench.Run(Cdb10(0x28, kMore, 1)).Illegal(SenseCode::kBlockAddressOutOfRange));
  bench.Leave(c);
}

// --- everything at once --------------------------------------------------------------------------

// Random commands of two nexuses with aborts and resets in between: every task ends, once, and
// nothing is held for good.
TEST(scsi_tasks, random_commands_and_aborts_all_end) {
  std::mt19937 random(static_cast<unsigned>(test::Seed()));
  const auto below = [&](unsigned n) { return random() % n; };
  for (int round = 0; round < 30; ++round) {
    Bench bench(2 * kMiB);
    bench.device.shuffled = true;
    bench.device.fault = [&](const BlockRequest&) {
      return below(10) == 0 ? ErrorCode::kUnavailable : ErrorCode::kOk;
    };
    std::vector<Flight*> flights;
    for (int i = 0; i < 40; ++i) {
      Cdb caw = Cdb16(0x89, below(16), 0);
      caw[13] = static_cast<uint8_t>(below(3));
      const Cdb cdbs[] = {Cdb10(0x28, below(64), 8),
                          Cdb10(0x2a, below(64), 8),
                          caw,
                          Cdb16(0x8b, below(64), 9),
                          Cdb16(0x8e, below(64), 9, 2),
                          Cdb16(0x93, below(64), 2000),
                          Cdb10(0x35, 0, 0),
                          MakeCdb({0x5f, 6, 1, 0, 0, 0, 0, 0, 24}),
                          kReady};
      Nexus* nexus = below(2) == 0 ? bench.a : bench.b;
      const TaskAttribute attributes[] = {TaskAttribute::kSimple, TaskAttribute::kSimple,
                                          TaskAttribute::kOrdered, TaskAttribute::kHeadOfQueue};
      flights.push_back(&bench.Begin(
          nexus, cdbs[below(std::size(cdbs))],
          {.out = Filled(8192, static_cast<int>(below(256))), .attribute = attributes[below(4)]}));
      if (below(4) == 0) bench.device.held = true;
      if (below(3) == 0) bench.device.LetGo();
      if (below(3) == 0) bench.reactor.Turn();
      if (below(6) == 0) {
        Flight* victim = flights[below(static_cast<unsigned>(flights.size()))];
        if (!victim->ended) bench.unit->Abort(&victim->task);
      }
      if (below(20) == 0) {
        bench.unit->Manage(static_cast<TaskManagement>(below(4)),
                           below(2) == 0 ? bench.a : bench.b);
      }
    }
    bench.device.LetGo();
    bench.reactor.Turn();
    for (const Flight* flight : flights) EXPECT(flight->ended);
    EXPECT_EQ(bench.unit->tasks(), 0u);
    EXPECT_EQ(bench.device.holds(), 0u);
    EXPECT_EQ(bench.device.pending(), 0u);
  }
}

}  // namespace
}  // namespace ankole::scsi
