#include <set>

#include "replica/regions_testing.h"
#include "replica/snapshots_testing.h"

// Reverts of one replica (rule 8): another head on a layer that is there, through crashes at every
// I/O.
namespace ankole::replica::testing {
namespace {

// Regions: 0 is in both snapshots, 1 in the head alone.
void WriteHistory(Driver& driver) {
  Write(driver, 0, Text(65536, 'a'));
  ASSERT(Snapshot(driver, "one") == ErrorCode::kOk);
  Write(driver, 4096, Text(8192, 'b'));
  ASSERT(driver.Do(OperationKind::kUnmap, 32768, 8192) == ErrorCode::kOk);
  ASSERT(Snapshot(driver, "two") == ErrorCode::kOk);
  Write(driver, 5 * kMiB, Text(4096, 'c'));
}

std::vector<std::string> HeadsOf(Place& place) {
  std::vector<std::string> heads;
  for (const std::string& name : place.files.List(place.directory).Take()) {
    if (IsHeadName(name)) heads.push_back(name);
  }
  return heads;
}

TEST(replica_reverts, the_volume_is_what_the_snapshot_holds_and_others_stay) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    std::string one;
    std::string two;
    {
      Driver driver(place.files, reactor, place.directory);
      WriteRecord(driver);
      WriteHistory(driver);
      one = ReadSnapshot(driver, "one");
      two = ReadSnapshot(driver, "two");
      ASSERT(PrepareRevert(driver, "back", "one") == ErrorCode::kOk);
      EXPECT(!driver.replica().reverted());
      // Until the record all goes on with the head that there is.
      Write(driver, 0, Text(4096, 'd'));
      ASSERT(Switch(driver, "back") == ErrorCode::kOk);
      EXPECT(driver.replica().reverted());
      EXPECT(driver.Do(OperationKind::kFlush) == ErrorCode::kCancelled);
      driver.Drop();
    }
    Driver driver(place.files, reactor, place.directory);
    ASSERT_OK(driver.status());
    EXPECT(!driver.replica().reverted() && !driver.replica().unsealed());
    EXPECT(driver.Holds(one));
    EXPECT(SnapshotHolds(driver, "two", two));
    std::vector<wire::LayerEntry> layers = LayersOf(driver);
    ASSERT(layers.size() == 3);
    EXPECT_EQ(layers[1].name, "two");
    EXPECT_EQ(layers[2].parent, "one");
    // What was the head goes by merging.
    EXPECT_EQ(HeadsOf(place).size(), 2U);
    EXPECT(driver.replica().has_removed_layers());
    ASSERT(MergeAll(driver) > 0);
    EXPECT(HeadsOf(place) == std::vector<std::string>{"volume-head-003.img"});
    // A branch: another snapshot beside the second one, and back to that.
    Write(driver, 0, Text(4096, 'e'));
    ASSERT(Snapshot(driver, "three") == ErrorCode::kOk);
    const std::string three = driver.ReadAll();
    layers = LayersOf(driver);
    ASSERT(layers.size() == 4);
    EXPECT_EQ(layers[1].name, "three");
    EXPECT_EQ(layers[1].parent, "one");
    EXPECT_EQ(layers[2].parent, "one");
    ASSERT(PrepareRevert(driver, "forth", "two") == ErrorCode::kOk);
    ASSERT(Switch(driver, "forth") == ErrorCode::kOk);
    driver.Drop();
    Driver again(place.files, reactor, place.directory);
    EXPECT(again.Holds(two));
    EXPECT(SnapshotHolds(again, "three", three));
    // With its branch gone nothing is left of the third.
    ASSERT(AboutLayer(again, OperationKind::kDelete, "three") == ErrorCode::kOk);
    ASSERT(MergeAll(again) > 0);
    EXPECT_EQ(LayersOf(again).size(), 3U);
    EXPECT(again.Holds(two));
    EXPECT(SnapshotHolds(again, "one", one));
  });
}

TEST(replica_reverts, what_is_wrong_with_one_is_told) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    WriteRecord(driver);
    WriteHistory(driver);
    EXPECT_EQ(PrepareRevert(driver, "back", "nowhere"), ErrorCode::kNotFound);
    EXPECT_EQ(PrepareRevert(driver, "two", "one"), ErrorCode::kAlreadyExists);
    EXPECT_EQ(PrepareRevert(driver, "back", "../one"), ErrorCode::kInvalidArgument);
    ASSERT(AboutLayer(driver, OperationKind::kDelete, "one") == ErrorCode::kOk);
    EXPECT_EQ(PrepareRevert(driver, "back", "one"), ErrorCode::kNotFound);
    // One that is prepared ends with its snapshot, or with the next that is prepared.
    ASSERT(PrepareRevert(driver, "back", "two") == ErrorCode::kOk);
    ASSERT(AboutLayer(driver, OperationKind::kDelete, "two") == ErrorCode::kOk);
    EXPECT_EQ(Switch(driver, "back"), ErrorCode::kInvalidArgument);
    ASSERT(Prepare(driver, "three") == ErrorCode::kOk);
    ASSERT(Switch(driver, "three") == ErrorCode::kOk);
    // What is not finished may be none.
    EXPECT_EQ(PrepareRevert(driver, "back", "three"), ErrorCode::kBusy);
  });
}

// Rule 5: what a revert changes is missing at whoever is away, and nothing takes that back before
// it took place.
TEST(replica_reverts, what_it_changes_is_missing_at_those_that_are_away) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    constexpr wire::ReplicaId kAway = 0xb;
    {
      Maps driver(place.files, reactor, place.directory);
      WriteRecord(driver);
      WriteHistory(driver);
      ASSERT(driver.Do(OperationKind::kFlush) == ErrorCode::kOk);
      ASSERT(CleanNow(driver, 0, Place::kRegions) == ErrorCode::kOk);
      ASSERT(driver.SetMissing(kAway, driver.replica().record().current, {}) == ErrorCode::kOk);
      EXPECT(driver.Missing(kAway).empty());
      ASSERT(PrepareRevert(driver, "back", "one") == ErrorCode::kOk);
      EXPECT(driver.Missing(kAway) == (std::set<uint32_t>{0, 1}));
      ReplicaOperation& clean = driver.Add(OperationKind::kClean, 0, 2 * kRegionBytes);
      clean.clean.epoch = driver.replica().record().current.epoch;
      clean.clean.generation = driver.replica().record().current.generation;
      clean.clean.ids.Add(kAway);
      ASSERT(driver.Run() == ErrorCode::kOk);
      EXPECT(driver.Missing(kAway) == (std::set<uint32_t>{0, 1}));
      ASSERT(Switch(driver, "back") == ErrorCode::kOk);
      driver.Drop();
    }
    Maps driver(place.files, reactor, place.directory);
    const std::set<uint32_t> missing = driver.Missing(kAway);
    EXPECT(missing.contains(0) && missing.contains(1));
  });
}

// Whoever is dropped by the next record did not revert: nobody knows any more what that changed.
TEST(replica_reverts, who_is_left_behind_by_it_misses_everything) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const bool at_once : {false, true}) {
      Place place(reactor);
      constexpr wire::ReplicaId kLeft = 0xb;
      wire::RecordPair pair;
      {
        Maps driver(place.files, reactor, place.directory);
        WriteRecord(driver);
        WriteHistory(driver);
        pair = NextRecord(driver, "two");
        pair.current.members.Add(kLeft);
        ASSERT(driver.WriteRecord(pair, pair.current.epoch) == ErrorCode::kOk);
        ASSERT(CleanNow(driver, 0, Place::kRegions) == ErrorCode::kOk);
        ASSERT(PrepareRevert(driver, "back", "one") == ErrorCode::kOk);
        pair.complete = pair.current;
        pair.current.newest_snapshot = "back";
        ++pair.current.generation;
        if (at_once) pair.current.members.Remove(kLeft);
        ASSERT(driver.WriteRecord(pair, pair.current.epoch) == ErrorCode::kOk);
        EXPECT(driver.replica().reverted());
        driver.Drop();
      }
      Maps driver(place.files, reactor, place.directory);
      if (!at_once) {
        ++pair.current.generation;
        pair.current.members.Remove(kLeft);
        ASSERT(driver.WriteRecord(pair, pair.current.epoch) == ErrorCode::kOk);
      }
      EXPECT(driver.Missing(kLeft) == (std::set<uint32_t>{0, 1, 2}));
      // Who wrote it and leaves later misses what is dirty.
      ++pair.current.generation;
      pair.current.members.Add(0xc);
      ASSERT(driver.WriteRecord(pair, pair.current.epoch) == ErrorCode::kOk);
      pair.complete = pair.current;
      ++pair.current.generation;
      pair.current.members.Remove(0xc);
      ASSERT(driver.WriteRecord(pair, pair.current.epoch) == ErrorCode::kOk);
      EXPECT(driver.Missing(0xc) == driver.Dirty());
    }
  });
}

// Of two that are no ancestors of one another: what either has over what is under both.
// An answer holds fifty; a branch that cannot be read is none.
TEST(replica_reverts, many_layers_are_listed_parents_first_and_lost_branches_are_not) {
  OnEpoll([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      WriteRecord(driver);
      for (int i = 100; i > 0; --i) {
        ASSERT(Snapshot(driver, "s" + std::to_string(i)) == ErrorCode::kOk);
      }
      ASSERT(PrepareRevert(driver, "back", "s50") == ErrorCode::kOk);
      ASSERT(Switch(driver, "back") == ErrorCode::kOk);
      driver.Drop();
    }
    const auto listed = [&] {
      Driver driver(place.files, reactor, place.directory);
      EXPECT(driver.status().ok() && MergeAll(driver) > 0);
      std::set<std::string> before = {""};
      for (const wire::LayerEntry& layer : LayersOf(driver)) {
        EXPECT(before.contains(layer.parent));
        before.insert(layer.name);
      }
      driver.Drop();
      return before.size();
    };
    EXPECT_EQ(listed(), size_t{101});
    for (const char* suffix : {"", ".meta"}) {
      ASSERT_OK(place.files.Remove(place.directory + "/volume-snap-s20.img" + suffix));
    }
    EXPECT_EQ(listed(), size_t{101 - 20});
  });
}

TEST(replica_reverts, what_changed_between_branches_is_told) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      WriteRecord(driver);
      WriteHistory(driver);
      ASSERT(Snapshot(driver, "three") == ErrorCode::kOk);
      ASSERT(PrepareRevert(driver, "back", "two") == ErrorCode::kOk);
      ASSERT(Switch(driver, "back") == ErrorCode::kOk);
      driver.Drop();
    }
    Driver driver(place.files, reactor, place.directory);
    Write(driver, 8 * kMiB, Text(512, 'e'));
    const auto regions = [](const std::vector<wire::RegionRun>& runs) {
      std::string text;
      for (const wire::RegionRun& run : runs) {
        for (uint32_t i = 0; i < run.count; ++i) text += std::to_string(run.first + i) + " ";
      }
      return text;
    };
    EXPECT_EQ(regions(ChangedOf(driver, "", "three")), "1 2 ");
    EXPECT_EQ(regions(ChangedOf(driver, "three", "two")), "1 ");
    EXPECT_EQ(regions(ChangedOf(driver, "two", "three")), "1 ");
    EXPECT_EQ(regions(ChangedOf(driver, "", "two")), "2 ");
    EXPECT_EQ(regions(ChangedOf(driver, "three", "one")), "0 1 ");
    EXPECT_EQ(regions(ChangedOf(driver, "one", "one")), "");
  });
}

// Opened anew the replica believes what is known of frozen layers, also where regions are dirty.
TEST(replica_reverts, what_rotted_in_the_snapshot_is_not_passed_up) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const bool flushed : {false, true}) {
      Place place(reactor);
      {
        Driver driver(place.files, reactor, place.directory);
        WriteRecord(driver);
        WriteHistory(driver);
        FlipBit(place.files, place.directory + "/volume-snap-one.img", 5 * 4096 + 7);
        Write(driver, 5 * 4096, Text(4096, 'r'));
        if (flushed) ASSERT(driver.Do(OperationKind::kFlush) == ErrorCode::kOk);
        ASSERT(PrepareRevert(driver, "back", "one") == ErrorCode::kOk);
        ASSERT(Switch(driver, "back") == ErrorCode::kOk);
        driver.Drop();
      }
      Driver driver(place.files, reactor, place.directory);
      (void)Read(driver, 5 * 4096, 4096, ErrorCode::kCorrupt);
      EXPECT(Read(driver, 6 * 4096, 4096) == Text(65536, 'a').substr(6 * 4096, 4096));
    }
  });
}

// Cut at each I/O from the preparation to what is left of the head before: the record tells whether
// it took place.
TEST(replica_reverts, one_that_is_cut_short_took_place_or_did_not) {
  OnEpoll([](io::Reactor& reactor) {
    bool done = false;
    int cut = 1;
    int reverted_cuts = 0;
    for (; !done; cut += test::kStride) {
      Place place(reactor);
      std::string before;
      std::string one;
      {
        Driver driver(place.files, reactor, place.directory);
        WriteRecord(driver);
        WriteHistory(driver);
        before = driver.ReadAll();
        one = ReadSnapshot(driver, "one");
        place.files.Reset(cut);
        (void)(PrepareRevert(driver, "back", "one") == ErrorCode::kOk &&
               Switch(driver, "back") == ErrorCode::kOk);
        driver.Drop();
      }
      {
        // Opening it anew is part of it.
        Driver driver(place.files, reactor, place.directory);
        done = driver.status().ok() && MergeAll(driver) > 0 && !place.files.reached();
        if (driver.status().ok()) driver.Drop();
        place.files.Reset(0);
      }
      Driver driver(place.files, reactor, place.directory);
      ASSERT_OK(driver.status());
      const bool reverted = driver.replica().record().current.newest_snapshot == "back";
      EXPECT(!done || reverted);
      EXPECT(driver.Holds(reverted ? one : before));
      if (reverted && !done) ++reverted_cuts;
      EXPECT(SnapshotHolds(driver, "one", one));
      const std::vector<wire::LayerEntry> layers = LayersOf(driver);
      ASSERT(layers.size() == 3);
      EXPECT_EQ(layers[2].parent, reverted ? "one" : "two");
      // And what comes next works, whatever was left.
      Write(driver, 0, Text(4096, 'f'));
      const std::string after = driver.ReadAll();
      ASSERT(Snapshot(driver, "three") == ErrorCode::kOk);
      (void)MergeAll(driver);
      EXPECT_EQ(HeadsOf(place).size(), 1U);
      driver.Drop();
      Driver again(place.files, reactor, place.directory);
      EXPECT(again.Holds(after));
      EXPECT(SnapshotHolds(again, "three", after));
      EXPECT(SnapshotHolds(again, "one", one));
    }
    EXPECT(cut > 20);
    EXPECT(reverted_cuts > 5 || test::kStride > 1);
  });
}

}  // namespace
}  // namespace ankole::replica::testing
