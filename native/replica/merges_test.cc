#include <random>

#include "replica/snapshots_testing.h"

// Layers of deleted snapshots go, and nothing that is left changes by it: step by step, cut at each
// I/O, and beside writes.
namespace ankole::replica::testing {
namespace {

uint64_t AllocatedIn(Place& place, const std::string& name) {
  const Result<io::FileInfo> info = place.files.Info(place.directory + "/" + name);
  return info.ok() ? info.value().allocated_bytes : 0;
}

TEST(replica_merges, each_snapshot_can_be_deleted_and_the_others_stay) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const std::string gone : {"one", "two"}) {
      Place place(reactor);
      auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      History history = MakeHistory(*driver);
      ASSERT(AboutLayer(*driver, OperationKind::kDelete, gone) == ErrorCode::kOk);
      history.snapshots.erase(gone);
      ASSERT(MergeAll(*driver) > 3);
      EXPECT_EQ(LayersOf(*driver).size(), size_t{3});
      ExpectSame(*driver, history);
      EXPECT_EQ(AllocatedIn(place, "volume-snap-" + gone + ".img"), uint64_t{0});
      for (const std::string& name : place.files.List(place.directory).Take()) {
        EXPECT(name.find("snap-" + gone) == std::string::npos && name != "merge");
      }
      // Written to and frozen over the merged layer.
      Write(*driver, 0, Text(65536, 'q'));
      history.head = driver->ReadAll();
      ExpectSame(*driver, history);
      driver = nullptr;
      driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      ASSERT_OK(driver->status());
      ExpectSame(*driver, history);
      ASSERT(Snapshot(*driver, "four") == ErrorCode::kOk);
      history.snapshots["four"] = history.head;
      ExpectSame(*driver, history);
      // What rots in the merged layer is seen.
      ASSERT(AboutLayer(*driver, OperationKind::kDelete, "four") == ErrorCode::kOk);
    }
  });
}

// As a joiner's is: between any two steps of the merge another layer gets the name of the one that
// goes.
TEST(replica_merges, a_name_that_became_free_is_not_taken_for_the_layer_that_had_it) {
  OnEpoll([](io::Reactor& reactor) {
    int taken = 0;
    for (int steps = 0; steps < 12; ++steps) {
      Place place(reactor);
      auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      History history = MakeHistory(*driver);
      ASSERT(AboutLayer(*driver, OperationKind::kDelete, "one") == ErrorCode::kOk);
      history.snapshots.erase("one");
      for (int i = 0; i < steps; ++i) {
        ASSERT(driver->Do(OperationKind::kMerge) == ErrorCode::kOk);
      }
      const ErrorCode again = Snapshot(*driver, "one");
      ASSERT(again == ErrorCode::kOk || again == ErrorCode::kAlreadyExists);
      if (again == ErrorCode::kOk) {
        ++taken;
        history.snapshots["one"] = history.head;
      }
      ASSERT(MergeAll(*driver) > 0);
      ExpectSame(*driver, history);
      driver = nullptr;
      driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      ASSERT_OK(driver->status());
      ExpectSame(*driver, history);
    }
    EXPECT(taken > 1 && taken < 11);
  });
}

// Under the head nothing is copied: what the head has anew comes back, the rest at the next
// snapshot.
TEST(replica_merges, the_layer_under_the_head_gives_back_what_the_head_has_anew) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    WriteRecord(driver);
    Write(driver, 0, Text(kMiB, 'a'));
    ASSERT(Snapshot(driver, "one") == ErrorCode::kOk);
    Write(driver, 0, Text(65536, 'b'));
    ASSERT(driver.Do(OperationKind::kUnmap, 131072, 65536) == ErrorCode::kOk);
    const std::string head = driver.ReadAll();
    ASSERT(AboutLayer(driver, OperationKind::kDelete, "one") == ErrorCode::kOk);
    ASSERT(MergeAll(driver) > 1);
    EXPECT_EQ(AllocatedIn(place, "volume-snap-one.img"), kMiB - 131072);
    EXPECT(driver.Holds(head));
    EXPECT_EQ(MergeAll(driver), 1);
    ASSERT(Snapshot(driver, "two") == ErrorCode::kOk);
    ASSERT(MergeAll(driver) > 3);
    EXPECT_EQ(LayersOf(driver).size(), size_t{2});
    EXPECT_EQ(AllocatedIn(place, "volume-snap-two.img"), kMiB - 65536);
    EXPECT(driver.Holds(head));
    EXPECT(SnapshotHolds(driver, "two", head));
    driver.Drop();
    Driver again(place.files, reactor, place.directory);
    EXPECT(again.Holds(head));
  });
}

// What a power loss left allocated and unwritten in a layer is not there, for a merge either.
TEST(replica_merges, an_unwritten_extent_takes_nothing_from_the_layer_below) {
  OnEpoll([](io::Reactor& reactor) {
    Place place(reactor);
    auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
    WriteRecord(*driver);
    Write(*driver, 0, Text(65536, 'a'));
    ASSERT(Snapshot(*driver, "one") == ErrorCode::kOk);
    Write(*driver, 16384, Text(4096, 'b'));
    const std::string all = driver->ReadAll();
    ASSERT(Snapshot(*driver, "two") == ErrorCode::kOk);
    ASSERT(Snapshot(*driver, "three") == ErrorCode::kOk);
    driver = nullptr;
    // In the layer that is merged down, and in the head over the one that is punched.
    for (const std::string layer : {"volume-snap-two.img", "volume-head-003.img"}) {
      const io::File file = place.files.Open(place.directory + "/" + layer, {.write = true}).Take();
      ASSERT_OK(place.files.Allocate(file, 0, 8192));
      place.files.Close(file);
    }
    driver = std::make_unique<Driver>(place.files, reactor, place.directory);
    for (const std::string gone : {"one", "three"}) {
      ASSERT(AboutLayer(*driver, OperationKind::kDelete, gone) == ErrorCode::kOk);
    }
    ASSERT(MergeAll(*driver) > 3);
    EXPECT(driver->Holds(all));
    EXPECT(SnapshotHolds(*driver, "two", all));
    EXPECT_EQ(driver->replica().sum_counters().errors, uint64_t{0});
  });
}

// A loss of power may take from the head what is not synced: then the block is what lies below.
TEST(replica_merges, nothing_is_punched_under_the_head_before_the_head_is_synced) {
  OnEpoll([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    WriteRecord(driver);
    Write(driver, 0, Text(65536, 'a'));
    ASSERT(Snapshot(driver, "one") == ErrorCode::kOk);
    Write(driver, 0, Text(16384, 'b'));
    ASSERT(AboutLayer(driver, OperationKind::kDelete, "one") == ErrorCode::kOk);
    place.files.fail_sync = true;
    EXPECT_EQ(MergeAll(driver), 0);
    EXPECT_EQ(AllocatedIn(place, "volume-snap-one.img"), uint64_t{65536});
    // It is the failure of a sync of the head, whoever asked for it.
    EXPECT(driver.replica().sync_failed());
    EXPECT(place.files.Info(place.directory + "/failed").ok());
  });
}

// A merge that is cut at any of its I/Os changes nothing that is left, and goes on after it.
// What could not be written counts as clean: a second sync would say nothing of it.
TEST(replica_merges, after_a_sync_that_failed_a_merge_begins_with_what_is_on_the_disk) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    History history = MakeHistory(driver);
    ASSERT(AboutLayer(driver, OperationKind::kDelete, "one") == ErrorCode::kOk);
    history.snapshots.erase("one");
    const int before = place.files.dropped_caches;
    place.files.fail_sync = true;
    ErrorCode outcome = ErrorCode::kOk;
    for (int step = 0; step < 5 && outcome == ErrorCode::kOk; ++step) {
      driver.Add(OperationKind::kMerge);
      outcome = driver.Run();
    }
    EXPECT_EQ(outcome, ErrorCode::kIoError);
    EXPECT_EQ(place.files.dropped_caches.load(), before + 1);
    EXPECT(!driver.replica().sync_failed());
    place.files.fail_sync = false;
    ASSERT(MergeAll(driver) > 3);
    ExpectSame(driver, history);
    EXPECT_EQ(place.files.dropped_caches.load(), before + 1);
  });
}

// The layer that another one was to be merged into is deleted as well, and goes before that.
TEST(replica_merges, what_a_merge_that_failed_has_made_goes_with_its_layers) {
  OnEpoll([](io::Reactor& reactor) {
    // From its end back: names, and the checksums before.
    int calls = 0;
    int left = 0;
    for (int back = 0; back < 30; back += back == 0 ? 16 : 2) {
      Place place(reactor);
      Driver driver(place.files, reactor, place.directory);
      History history = MakeHistory(driver);
      ASSERT(Snapshot(driver, "four") == ErrorCode::kOk);
      history.snapshots["four"] = history.head;
      ASSERT(AboutLayer(driver, OperationKind::kDelete, "two") == ErrorCode::kOk);
      history.snapshots.erase("two");
      place.files.Reset(back == 0 ? 0 : calls - back);
      EXPECT((MergeAll(driver) > 0) == (back == 0));
      if (back == 0) calls = place.files.calls;
      place.files.Reset(0);
      const std::string merged = place.directory + "/volume-snap-three.img.crc.merged";
      if (place.files.Info(merged).ok()) ++left;
      ASSERT(AboutLayer(driver, OperationKind::kDelete, "three") == ErrorCode::kOk);
      history.snapshots.erase("three");
      ASSERT(MergeAll(driver) > 0);
      ExpectSame(driver, history);
      EXPECT_EQ(place.files.Info(merged).status().code(), ErrorCode::kNotFound);
    }
    EXPECT(left > 0);
  });
}

TEST(replica_merges, a_merge_that_is_cut_short_goes_on) {
  OnEpoll([](io::Reactor& reactor) {
    for (const std::string gone : {"one", "two", "three"}) {
      bool done = false;
      // Of the two that are merged alike each cut is one's.
      int cut = gone == "two" ? 2 : 1;
      for (; !done; cut += (gone == "three" ? 1 : 2) * test::kStride) {
        Place place(reactor);
        auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
        History history = MakeHistory(*driver);
        const size_t layers = LayersOf(*driver).size();
        ASSERT(AboutLayer(*driver, OperationKind::kDelete, gone) == ErrorCode::kOk);
        history.snapshots.erase(gone);
        place.files.torn_bytes = 700;
        place.files.Reset(cut);
        done = MergeAll(*driver) > 0;
        EXPECT(done != place.files.reached());
        place.files.Reset(0);
        EXPECT(driver->Holds(history.head));
        // Without a crash it goes on as well, unless it was a sync of the head that failed.
        EXPECT(!driver->replica().sync_failed() || gone == "three");
        if (cut / 2 % 2 == 0 && !driver->replica().sync_failed()) {
          ASSERT(MergeAll(*driver) > 0);
          ExpectSame(*driver, history);
        }
        driver = nullptr;
        driver = std::make_unique<Driver>(place.files, reactor, place.directory);
        ASSERT_OK(driver->status());
        ExpectSame(*driver, history);
        ASSERT(MergeAll(*driver) > 0);
        ExpectSame(*driver, history);
        EXPECT_EQ(LayersOf(*driver).size(), gone == "three" ? layers : layers - 1);
      }
      EXPECT(cut > (gone == "three" ? 3 : 15));
    }
  });
}

// After it too the checksums of both layers count.
TEST(replica_merges, what_rots_in_a_merged_layer_is_seen) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    WriteRecord(driver);
    Write(driver, 0, Text(65536, 'a'));
    ASSERT(Snapshot(driver, "one") == ErrorCode::kOk);
    Write(driver, 0, Text(8192, 'b'));
    ASSERT(Snapshot(driver, "two") == ErrorCode::kOk);
    ASSERT(AboutLayer(driver, OperationKind::kDelete, "one") == ErrorCode::kOk);
    ASSERT(MergeAll(driver) > 3);
    const std::string merged = place.directory + "/volume-snap-two.img";
    FlipBit(place.files, merged, 4096);   // of the upper one
    FlipBit(place.files, merged, 16384);  // of the lower one
    EXPECT(Read(driver, 0, 4096) == Text(8192, 'b').substr(0, 4096));
    Read(driver, 4096, 4096, ErrorCode::kCorrupt);
    EXPECT(Read(driver, 8192, 8192) == Text(65536, 'a').substr(8192, 8192));
    Read(driver, 16384, 4096, ErrorCode::kCorrupt);
    driver.Drop();
    Driver again(place.files, reactor, place.directory);
    EXPECT_EQ(CleanNow(again, 0, 2), ErrorCode::kOk);
    Read(again, 4096, 4096, ErrorCode::kCorrupt);
    Read(again, 16384, 4096, ErrorCode::kCorrupt);
    const uint16_t view = OpenView(again, "two");
    ReadView(again, view, 16384, 4096, ErrorCode::kCorrupt);
    again.replica().CloseViews(&again);
  });
}

// Snapshots come and go at random, beside writes, merges and crashes.
TEST(replica_merges, a_random_history_of_deletions) {
  io::OnEachBackend([](io::Reactor& reactor) {
    std::mt19937_64 random(test::Seed() + 3);
    Place place(reactor);
    std::string model(Place::kSize, '\0');
    std::map<std::string, std::string> snapshots;
    auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
    WriteRecord(*driver);
    for (int step = 0; step < 100 / test::kShare; ++step) {
      for (int i = 0; i < 3; ++i) {
        const uint64_t sectors = model.size() / kSectorBytes;
        const uint64_t sector = random() % sectors;
        const uint64_t length =
            kSectorBytes * std::min<uint64_t>(sectors - sector, 1 + random() % 200);
        const uint64_t offset = sector * kSectorBytes;
        if (random() % 3 == 0) {
          ASSERT(driver->Do(random() % 2 == 0 ? OperationKind::kUnmap : OperationKind::kZero,
                            offset, length) == ErrorCode::kOk);
          model.replace(offset, length, length, '\0');
        } else {
          std::string data(length, '\0');
          for (char& c : data) c = static_cast<char>('a' + random() % 26);
          model.replace(offset, length, data);
          Write(*driver, offset, data);
        }
      }
      const uint64_t what = random() % 12;
      if (what < 4) {
        const std::string name = "s" + std::to_string(step);
        ASSERT(Snapshot(*driver, name) == ErrorCode::kOk);
        snapshots[name] = model;
      } else if (what >= 10) {
        model.resize(model.size() + kSectorBytes * (1 + random() % 2000));
        ErrorCode outcome = Expand(*driver, model.size());
        if (outcome == ErrorCode::kBusy) {
          // Where the volume ends within a block a merge has to end first.
          ASSERT(driver->replica().size_bytes() % kBlockBytes != 0);
          ASSERT(MergeAll(*driver) > 0);
          outcome = Expand(*driver, model.size());
        }
        ASSERT(outcome == ErrorCode::kOk);
      } else if (what < 7 && !snapshots.empty()) {
        auto one = snapshots.begin();
        std::advance(one, static_cast<ptrdiff_t>(random() % snapshots.size()));
        ASSERT(AboutLayer(*driver, OperationKind::kDelete, one->first) == ErrorCode::kOk);
        snapshots.erase(one);
      } else if (what == 7) {
        driver = nullptr;
        driver = std::make_unique<Driver>(place.files, reactor, place.directory);
        ASSERT_OK(driver->status());
      }
      for (uint64_t steps = random() % 6; steps > 0; --steps) {
        ASSERT(driver->Do(OperationKind::kMerge) == ErrorCode::kOk);
      }
      ASSERT(driver->Holds(model));
      if (snapshots.empty()) continue;
      auto one = snapshots.begin();
      std::advance(one, static_cast<ptrdiff_t>(random() % snapshots.size()));
      ASSERT(SnapshotHolds(*driver, one->first, one->second));
    }
    ASSERT(MergeAll(*driver) > 0);
    for (const auto& [name, content] : snapshots) {
      ASSERT(SnapshotHolds(*driver, name, content));
    }
    // At most one that was deleted is left, under the head.
    EXPECT(LayersOf(*driver).size() <= snapshots.size() + 2);
    EXPECT_EQ(driver->replica().sum_counters().errors, uint64_t{0});
  });
}

}  // namespace
}  // namespace ankole::replica::testing
