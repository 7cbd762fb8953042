#include "replica/regions_testing.h"

// What a replica that is away misses (rule 5), and what is suspect (rule 7).
namespace ankole::replica {
namespace {

using namespace testing;
using enum OperationKind;

// --- missing maps

TEST(replica_regions, a_missing_map_begins_before_the_record_that_drops_its_replica) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    const wire::Record three = ARecord(1, {kMe, 0xb, 0xc});
    const wire::Record two = ARecord(2, {kMe, 0xc});
    for (const size_t torn_bytes : {0, 700}) {
      files.torn_bytes = torn_bytes;
      bool done = false;
      int cut = 1;
      for (; !done; ++cut) {
        (void)Replica::Destroy(files, directory).ok();
        ASSERT_OK(Replica::Create(files, directory, TestIdentity(), kSize));
        Maps driver(files, reactor, directory);
        EXPECT_EQ(driver.Propose(three, three), ErrorCode::kOk);
        EXPECT_EQ(driver.Write(1), ErrorCode::kOk);
        EXPECT_EQ(driver.Write(600), ErrorCode::kOk);
        EXPECT_EQ(driver.Write(601), ErrorCode::kOk);
        EXPECT_EQ(driver.Clean(600, three), ErrorCode::kOk);
        files.Reset(cut);
        done = driver.Propose(two, three) == ErrorCode::kOk;
        // Where only a sync of the record failed it stands on one leg; else it must go on as
        // before.
        files.Reset(0);
        const bool wrote = driver.Write(1200) == ErrorCode::kOk;
        driver.Drop();
        Maps again(files, reactor, directory);
        ASSERT_OK(again.status());
        const bool dropped = again.replica().record().current == two;
        EXPECT(dropped || (!done && again.replica().record().current == three));
        EXPECT(!dropped || again.HasMap(0xb));
        EXPECT(!again.HasMap(0xc) && !again.HasMap(kMe));
        if (!again.HasMap(0xb)) continue;
        // Begun, it has all that was dirty then and was written since, and names the record.
        EXPECT(again.NameOf(0xb) == three);
        EXPECT(Covers(again.Missing(0xb), {1, 601}));
        EXPECT(Covers(again.Missing(0xb), again.Dirty()));
        if (wrote) EXPECT(again.Missing(0xb).contains(1200));
      }
      EXPECT(cut > 5);
    }
  });
}

TEST(replica_regions, a_missing_map_loses_only_what_its_replica_has_flushed) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    const wire::Record three = ARecord(1, {kMe, 0xb, 0xc});
    const wire::Record one = ARecord(2, {kMe});
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Propose(three, three), ErrorCode::kOk);
      EXPECT_EQ(driver.Propose(one, three), ErrorCode::kOk);
      for (const uint32_t region : {10U, 20U, 30U}) {
        EXPECT_EQ(driver.Write(region), ErrorCode::kOk);
      }
      EXPECT_EQ(driver.Clean(10, one), ErrorCode::kOk);
      EXPECT_EQ(driver.Clean(20, one, {0xb, 0xddd}), ErrorCode::kOk);
      EXPECT(driver.Dirty() == (std::set<uint32_t>{30}));
      EXPECT(driver.Missing(0xb) == (std::set<uint32_t>{10, 30}));
      EXPECT(driver.Missing(0xc) == (std::set<uint32_t>{10, 20, 30}));
      // Written again it is missing again; its bits are on the disk still.
      EXPECT_EQ(driver.Write(20), ErrorCode::kOk);
      EXPECT(driver.Missing(0xb) == (std::set<uint32_t>{10, 20, 30}));
      EXPECT_EQ(driver.Clean(20, one, {0xb}), ErrorCode::kOk);
      EXPECT_EQ(driver.Do(kTidy), ErrorCode::kOk);
    }
    Maps driver(files, reactor, directory);
    EXPECT(driver.Dirty() == (std::set<uint32_t>{30}));
    EXPECT(driver.Missing(0xb) == (std::set<uint32_t>{10, 30}));
    EXPECT(driver.Missing(0xc) == (std::set<uint32_t>{10, 20, 30}));
    EXPECT(driver.NameOf(0xb) == three && driver.NameOf(0xc) == three);
  });
}

TEST(replica_regions, a_map_goes_when_its_replica_is_a_member_and_its_slot_is_used_again_clean) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    const wire::Record all = ARecord(1, {kMe, 0xb, 0xc});
    const wire::Record without_b = ARecord(2, {kMe, 0xc});
    const wire::Record all_again = ARecord(3, {kMe, 0xb, 0xc});
    const wire::Record without_c = ARecord(4, {kMe, 0xb});
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Propose(all, all), ErrorCode::kOk);
      EXPECT_EQ(driver.Propose(without_b, all), ErrorCode::kOk);
      for (const uint32_t region : {10U, 500U, 1100U}) {
        EXPECT_EQ(driver.Write(region), ErrorCode::kOk);
      }
      EXPECT_EQ(driver.Propose(all_again, without_b), ErrorCode::kOk);
      EXPECT(!driver.HasMap(0xb));
      EXPECT_EQ(driver.Clean(10, all_again), ErrorCode::kOk);
      EXPECT_EQ(driver.Clean(500, all_again), ErrorCode::kOk);
      EXPECT_EQ(driver.Do(kTidy), ErrorCode::kOk);
    }
    {
      Maps driver(files, reactor, directory);
      EXPECT(!driver.HasMap(0xb));
      EXPECT(driver.Dirty() == (std::set<uint32_t>{1100}));
      EXPECT_EQ(driver.Propose(without_c, all_again), ErrorCode::kOk);
      EXPECT(driver.Missing(0xc) == (std::set<uint32_t>{1100}));
      EXPECT(driver.NameOf(0xc) == all_again);
      // The same record again, as after a reconnect, changes nothing.
      EXPECT_EQ(driver.Write(2), ErrorCode::kOk);
      EXPECT_EQ(driver.Propose(without_c, all_again), ErrorCode::kOk);
      EXPECT(driver.Missing(0xc) == (std::set<uint32_t>{2, 1100}));
    }
    Maps driver(files, reactor, directory);
    EXPECT(driver.Missing(0xc) == (std::set<uint32_t>{2, 1100}));
    EXPECT(!driver.HasMap(0xb));
  });
}

TEST(replica_regions, a_joiner_is_given_the_maps_of_others) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    const wire::Record left_at = ARecord(5, {0xb, 0xc});
    const wire::Record later = ARecord(6, {0xb, 0xc});
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Write(3), ErrorCode::kOk);
      EXPECT_EQ(driver.SetMissing(0xb, left_at, {{7, 2}, {900, 1}, {kRegions - 1, 1}}),
                ErrorCode::kOk);
      const std::set<uint32_t> expected = {3, 7, 8, 900, kRegions - 1};
      EXPECT(driver.Missing(0xb) == expected);
      EXPECT(driver.Dirty() == (std::set<uint32_t>{3}));
      // More of it, under another name.
      EXPECT_EQ(driver.SetMissing(0xb, later, {{9, 1}}), ErrorCode::kOk);
      EXPECT(driver.NameOf(0xb) == later);
      EXPECT(driver.Missing(0xb).contains(9) && Covers(driver.Missing(0xb), expected));
      // The record that makes it a member keeps it.
      EXPECT_EQ(driver.Propose(ARecord(7, {kMe, 0xc}), later), ErrorCode::kOk);
      EXPECT(driver.NameOf(0xb) == later && driver.Missing(0xb).contains(9));
      EXPECT_EQ(driver.SetMissing(kMe, left_at, {}), ErrorCode::kInvalidArgument);
      EXPECT_EQ(driver.SetMissing(0xb, left_at, {{kRegions, 1}}), ErrorCode::kOutOfRange);
    }
    {
      Maps driver(files, reactor, directory);
      EXPECT(driver.NameOf(0xb) == later);
      EXPECT(driver.Missing(0xb) == (std::set<uint32_t>{3, 7, 8, 9, 900, kRegions - 1}));
      EXPECT_EQ(driver.FreeMissing(0xb), ErrorCode::kOk);
      EXPECT_EQ(driver.FreeMissing(0xb), ErrorCode::kOk);
      EXPECT(!driver.HasMap(0xb));
    }
    Maps driver(files, reactor, directory);
    EXPECT(!driver.HasMap(0xb));
  });
}

TEST(replica_regions, seven_maps_are_all_there_are) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    Maps driver(files, reactor, directory);
    EXPECT_EQ(driver.Write(1), ErrorCode::kOk);
    for (wire::ReplicaId id = 1; id <= wire::kMissingSlotsMax; ++id) {
      EXPECT_EQ(driver.SetMissing(id, ARecord(1, {id}), {{static_cast<uint32_t>(id) + 10, 1}}),
                ErrorCode::kOk);
    }
    EXPECT_EQ(driver.SetMissing(0xf, ARecord(1, {0xf}), {}), ErrorCode::kNoSpace);
    // A record that drops one more is not written at all.
    const wire::Record with = ARecord(1, {kMe, 0xe});
    EXPECT_EQ(driver.Propose(with, with), ErrorCode::kOk);
    EXPECT_EQ(driver.Propose(ARecord(2, {kMe}), with), ErrorCode::kNoSpace);
    EXPECT(driver.replica().record().current == with);
    for (wire::ReplicaId id = 1; id <= wire::kMissingSlotsMax; ++id) {
      EXPECT(driver.Missing(id) == (std::set<uint32_t>{1, static_cast<uint32_t>(id) + 10}));
    }
    EXPECT_EQ(driver.FreeMissing(3), ErrorCode::kOk);
    EXPECT_EQ(driver.Propose(ARecord(2, {kMe}), with), ErrorCode::kOk);
    EXPECT(driver.Missing(0xe) == (std::set<uint32_t>{1}));
    // What the slot had for the one before is gone from the disk too.
    driver.Drop();
    Maps again(files, reactor, directory);
    EXPECT(again.Missing(0xe) == (std::set<uint32_t>{1}));
    EXPECT(again.Missing(4) == (std::set<uint32_t>{1, 14}));
  });
}

// --- rule 7

// By a record the engine takes a replica as it is; what it loses after that is new.
TEST(replica_regions, tells_whether_it_lost_something_since_its_record) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    const wire::Record first = ARecord(1, {kMe});
    const wire::Record second = ARecord(2, {kMe});
    const wire::Record third = ARecord(3, {kMe});
    files.boot_id = "boot-1";
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Propose(first, first), ErrorCode::kOk);
      EXPECT_EQ(driver.Write(1), ErrorCode::kOk);
    }
    files.boot_id = "boot-2";
    for (int time = 0; time < 2; ++time) {
      Maps driver(files, reactor, directory);
      EXPECT(driver.replica().suspect() && driver.replica().lost());
      // A welcome writes the same record.
      EXPECT_EQ(driver.Propose(first, first), ErrorCode::kOk);
      EXPECT(driver.replica().lost());
    }
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Propose(second, first, false, true), ErrorCode::kOk);
      EXPECT(driver.replica().suspect() && driver.replica().lost());
    }
    {
      Maps driver(files, reactor, directory);
      EXPECT(driver.replica().suspect() && driver.replica().lost());
      EXPECT_EQ(driver.Propose(third, second), ErrorCode::kOk);
      EXPECT(driver.replica().suspect() && !driver.replica().lost());
    }
    {
      Maps driver(files, reactor, directory);
      EXPECT(driver.replica().suspect() && !driver.replica().lost());
      files.boot_id = "boot-3";
    }
    Maps driver(files, reactor, directory);
    EXPECT(driver.replica().suspect() && driver.replica().lost());
    EXPECT_EQ(driver.Propose(third, third, true), ErrorCode::kOk);
    EXPECT(!driver.replica().suspect() && !driver.replica().lost());
  });
}

TEST(replica_regions, suspect_lasts_until_it_was_made_equal) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    const wire::Record record = ARecord(1, {kMe});
    files.boot_id = "boot-1";
    files.mount_id = "mount-1";
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Propose(record, record), ErrorCode::kOk);
      EXPECT_EQ(driver.Write(1), ErrorCode::kOk);
    }
    {
      Maps driver(files, reactor, directory);
      EXPECT(!driver.replica().suspect());
    }
    for (const char* what : {"boot", "mount", "sync"}) {
      if (what[0] == 'b') files.boot_id = "boot-2";
      if (what[0] == 'm') files.mount_id = "mount-2";
      for (int time = 0; time < 2; ++time) {
        Maps driver(files, reactor, directory);
        if (what[0] == 's' && time == 0) {
          EXPECT_EQ(driver.Write(1), ErrorCode::kOk);
          files.fail_sync = true;
          EXPECT_EQ(driver.Do(kFlush), ErrorCode::kIoError);
          files.fail_sync = false;
          continue;
        }
        EXPECT(driver.replica().suspect());
        EXPECT_EQ(driver.Write(2), ErrorCode::kOk);
        EXPECT_EQ(driver.Propose(record, record), ErrorCode::kOk);  // says nothing of it
        EXPECT(driver.replica().suspect());
      }
      {
        Maps driver(files, reactor, directory);
        files.syncs = 0;
        EXPECT_EQ(driver.Propose(record, record, true), ErrorCode::kOk);
        EXPECT(files.syncs >= 2);  // the head, the record
        EXPECT(!driver.replica().suspect());
      }
      Maps driver(files, reactor, directory);
      EXPECT(!driver.replica().suspect() && driver.replica().unclean());
      EXPECT(!files.Info(directory + "/failed").ok());
    }
    // A latch of this process goes too, and one that cannot sync stays suspect.
    Maps driver(files, reactor, directory);
    EXPECT_EQ(driver.Write(1), ErrorCode::kOk);
    files.fail_sync = true;
    EXPECT_EQ(driver.Do(kFlush), ErrorCode::kIoError);
    EXPECT_EQ(driver.Propose(record, record, true), ErrorCode::kIoError);
    files.fail_sync = false;
    EXPECT(driver.replica().suspect());
    EXPECT_EQ(driver.Propose(record, record, true), ErrorCode::kOk);
    EXPECT_EQ(driver.Write(1), ErrorCode::kOk);
    EXPECT_EQ(driver.Do(kFlush), ErrorCode::kOk);
    ASSERT_OK(driver.Close(true));
  });
}

TEST(replica_regions, a_clean_stop_in_another_mount_is_not_suspect) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    files.mount_id = "mount-1";
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Write(1), ErrorCode::kOk);
      ASSERT_OK(driver.Close(true));
    }
    files.mount_id = "mount-2";
    Maps driver(files, reactor, directory);
    EXPECT(!driver.replica().suspect() && !driver.replica().fresh());
  });
}

}  // namespace
}  // namespace ankole::replica
