#include <random>

#include "replica/snapshots_testing.h"

// Snapshots of one replica (rule 8): what they hold, through crashes at every I/O, and what is
// known of their blocks.
namespace ankole::replica::testing {
namespace {

using Regions = std::vector<wire::RegionRun>;

TEST(replica_snapshots, a_snapshot_holds_what_was_there_and_the_head_goes_on) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    std::string before;
    {
      Driver driver(place.files, reactor, place.directory);
      ASSERT_OK(driver.status());
      Write(driver, 0, Text(65536, 'a'));
      before = driver.ReadAll();
      ASSERT(Snapshot(driver, "one") == ErrorCode::kOk);
      Write(driver, 4096, Text(8192, 'b'));
      Write(driver, 5 * kMiB + 512, Text(1024, 'c'));
      EXPECT(SnapshotHolds(driver, "one", before));
      EXPECT(Read(driver, 0, 4096) == before.substr(0, 4096));
      EXPECT(Read(driver, 4096, 8192) == Text(8192, 'b'));
      EXPECT(Read(driver, 5 * kMiB, 2048) ==
             std::string(512, '\0') + Text(1024, 'c') + std::string(512, '\0'));
      driver.Drop();
    }
    Driver driver(place.files, reactor, place.directory);
    ASSERT_OK(driver.status());
    EXPECT(SnapshotHolds(driver, "one", before));
    EXPECT(Read(driver, 4096, 8192) == Text(8192, 'b'));
  });
}

// A directory that Longhorn can open: the files' names, parents and volume.meta.
TEST(replica_snapshots, files_have_the_names_of_a_longhorn_replica) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    Write(driver, 0, Text(4096, 'a'));
    ASSERT(Prepare(driver, "one", R"({"by":"hand"})") == ErrorCode::kOk);
    ASSERT(Switch(driver, "one") == ErrorCode::kOk);
    ASSERT(AboutLayer(driver, OperationKind::kSeal, "one") == ErrorCode::kOk);
    Write(driver, 0, Text(4096, 'b'));
    ASSERT(Snapshot(driver, "two") == ErrorCode::kOk);
    const auto text = [&](const std::string& name) {
      return io::ReadWholeFile(place.files, place.directory + "/" + name, kMetadataBytesMax).Take();
    };
    const Result<VolumeMeta> volume = VolumeMeta::Parse(text("volume.meta"));
    ASSERT_OK(volume);
    EXPECT_EQ(volume.value().head, "volume-head-002.img");
    EXPECT_EQ(volume.value().parent, "volume-snap-two.img");
    const std::string two = "volume-snap-two.img.meta";
    EXPECT_EQ(LayerMeta::Parse(two, text(two)).value().parent, "volume-snap-one.img");
    const std::string one = "volume-snap-one.img.meta";
    const Result<LayerMeta> meta = LayerMeta::Parse(one, text(one));
    EXPECT_EQ(meta.value().parent, "");
    EXPECT(meta.value().user_created);
    EXPECT_EQ(meta.value().created, "2023-11-14T22:15:00Z");
    EXPECT_EQ(meta.value().other.Find("Labels")->Write(), R"({"by":"hand"})");
    for (const char* gone : {"volume-head-000.img", "volume-head-000.img.meta",
                             "volume-head-000.img.crc", "volume-head-001.img"}) {
      EXPECT(!place.files.Info(place.directory + "/" + gone).ok());
    }
    EXPECT(place.files.Info(place.directory + "/volume-snap-one.img.crc").ok());
  });
}

// Write A, snapshot, write B, trim: zeros, whatever happens. (Longhorn 1.12 gives A after a
// restart.)
TEST(replica_snapshots, write_a_snapshot_write_b_trim_reads_zeros_for_good) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      Write(driver, 0, Text(kMiB, 'A'));
      ASSERT(Snapshot(driver, "one") == ErrorCode::kOk);
      Write(driver, 0, Text(kMiB, 'B'));
      ASSERT(driver.Do(OperationKind::kUnmap, 0, kMiB) == ErrorCode::kOk);
      EXPECT(Read(driver, 0, kMiB) == std::string(kMiB, '\0'));
      driver.Drop();
    }
    Driver driver(place.files, reactor, place.directory);
    EXPECT(Read(driver, 0, kMiB) == std::string(kMiB, '\0'));
    EXPECT(ReadSnapshot(driver, "one").substr(0, kMiB) == Text(kMiB, 'A'));
    const std::vector<wire::LayerEntry> layers = LayersOf(driver);
    ASSERT(layers.size() == 2);
    EXPECT_EQ(layers[1].allocated_bytes, uint64_t{0});
    // A snapshot of the zeros has them as well.
    ASSERT(Snapshot(driver, "two") == ErrorCode::kOk);
    EXPECT(ReadSnapshot(driver, "two").substr(0, kMiB) == std::string(kMiB, '\0'));
  });
}

TEST(replica_snapshots, layers_are_listed_with_their_parents_first) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    Write(driver, 0, Text(8192, 'a'));
    // By name the second one comes first.
    ASSERT(Snapshot(driver, "zz") == ErrorCode::kOk);
    ASSERT(Prepare(driver, "aa") == ErrorCode::kOk);
    ASSERT(Switch(driver, "aa") == ErrorCode::kOk);
    EXPECT(driver.replica().unsealed());
    std::vector<wire::LayerEntry> layers = LayersOf(driver);
    ASSERT(layers.size() == 3);
    EXPECT_EQ(layers[0].name, "zz");
    EXPECT_EQ(layers[0].parent, "");
    EXPECT(layers[0].sealed && layers[0].user_created);
    EXPECT_EQ(layers[0].created_seconds, uint64_t{1'700'000'100});
    EXPECT_EQ(layers[0].allocated_bytes, uint64_t{8192});
    EXPECT_EQ(layers[1].name, "aa");
    EXPECT_EQ(layers[1].parent, "zz");
    EXPECT(!layers[1].sealed);
    EXPECT_EQ(layers[2].name, "");
    EXPECT_EQ(layers[2].parent, "aa");
    EXPECT(!layers[2].sealed);
    ASSERT(AboutLayer(driver, OperationKind::kSeal, "aa") == ErrorCode::kOk);
    EXPECT(!driver.replica().unsealed());
    EXPECT(LayersOf(driver)[1].sealed);
  });
}

TEST(replica_snapshots, more_layers_than_fit_one_answer_are_listed_in_several) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    const size_t count = wire::kLayerEntriesMax + 3;
    for (size_t i = 0; i < count; ++i) {
      ASSERT(Snapshot(driver, "s" + std::to_string(i)) == ErrorCode::kOk);
    }
    const std::vector<wire::LayerEntry> layers = LayersOf(driver);
    ASSERT(layers.size() == count + 1);
    for (size_t i = 0; i < count; ++i) EXPECT_EQ(layers[i].name, "s" + std::to_string(i));
  });
}

// --- what is refused

TEST(replica_snapshots, what_cannot_be_is_refused_and_changes_nothing) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    ASSERT(Snapshot(driver, "one") == ErrorCode::kOk);
    EXPECT_EQ(Prepare(driver, "one"), ErrorCode::kAlreadyExists);
    EXPECT_EQ(Prepare(driver, "a/b"), ErrorCode::kInvalidArgument);
    EXPECT_EQ(Prepare(driver, ""), ErrorCode::kInvalidArgument);
    EXPECT_EQ(Prepare(driver, "two", "[1]"), ErrorCode::kInvalidArgument);
    // A record that names what was never prepared.
    EXPECT_EQ(Switch(driver, "two"), ErrorCode::kInvalidArgument);
    EXPECT_EQ(driver.replica().record().current.newest_snapshot, "one");
    EXPECT_EQ(AboutLayer(driver, OperationKind::kSeal, "two"), ErrorCode::kNotFound);
    EXPECT_EQ(AboutLayer(driver, OperationKind::kSwitch, "two"), ErrorCode::kInvalidArgument);
    EXPECT_EQ(AboutLayer(driver, OperationKind::kDelete, "two"), ErrorCode::kOk);
    (void)OpenView(driver, "two", "", ErrorCode::kNotFound);
    ASSERT(Prepare(driver, "two") == ErrorCode::kOk);
    ASSERT(Switch(driver, "two") == ErrorCode::kOk);
    // Not before it is sealed.
    EXPECT_EQ(Prepare(driver, "three"), ErrorCode::kBusy);
    (void)OpenView(driver, "two", "", ErrorCode::kBusy);
    // Or deleted.
    EXPECT_EQ(AboutLayer(driver, OperationKind::kDelete, "two"), ErrorCode::kOk);
    EXPECT_EQ(Prepare(driver, "three"), ErrorCode::kOk);
    EXPECT_EQ(LayersOf(driver).size(), size_t{3});
  });
}

TEST(replica_snapshots, a_second_preparation_replaces_the_first) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      ASSERT(Prepare(driver, "one") == ErrorCode::kOk);
      ASSERT(Prepare(driver, "two") == ErrorCode::kOk);
      EXPECT_EQ(Switch(driver, "one"), ErrorCode::kOk);  // the first record of all names anything
      EXPECT(!driver.replica().unsealed());
      EXPECT_EQ(Switch(driver, "two"), ErrorCode::kOk);
      EXPECT(driver.replica().unsealed());
      ASSERT(AboutLayer(driver, OperationKind::kSeal, "two") == ErrorCode::kOk);
      ASSERT(Prepare(driver, "three") == ErrorCode::kOk);
      driver.Drop();
    }
    Driver driver(place.files, reactor, place.directory);
    ASSERT_OK(driver.status());
    EXPECT_EQ(LayersOf(driver).size(), size_t{2});
    const std::vector<std::string> names = place.files.List(place.directory).Take();
    for (const std::string& name : names) EXPECT(name.find("three") == std::string::npos);
    EXPECT(!place.files.Info(place.directory + "/volume-head-002.img").ok());
  });
}

// It was being given the snapshot, which was deleted then.
TEST(replica_snapshots, the_record_of_one_that_was_made_equal_switches_nothing) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    ASSERT(Snapshot(driver, "one") == ErrorCode::kOk);
    ASSERT(Prepare(driver, "two") == ErrorCode::kOk);
    ReplicaOperation& record = driver.Add(OperationKind::kRecord);
    record.record = NextRecord(driver, "two");
    record.welcomed = record.record.current.epoch;
    record.resynced = true;
    ASSERT(driver.Run() == ErrorCode::kOk);
    EXPECT_EQ(LayersOf(driver).size(), size_t{2});
    ASSERT(Snapshot(driver, "three") == ErrorCode::kOk);
    EXPECT_EQ(LayersOf(driver).size(), size_t{3});
  });
}

TEST(replica_snapshots, a_snapshot_that_is_read_is_not_deleted) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    ASSERT(Snapshot(driver, "one") == ErrorCode::kOk);
    const uint16_t view = OpenView(driver, "one");
    EXPECT_EQ(AboutLayer(driver, OperationKind::kDelete, "one"), ErrorCode::kBusy);
    ReplicaOperation& close = driver.Add(OperationKind::kCloseView);
    close.view = view;
    close.holder = &driver;
    EXPECT_EQ(driver.Run(), ErrorCode::kOk);
    EXPECT_EQ(AboutLayer(driver, OperationKind::kDelete, "one"), ErrorCode::kOk);
    (void)OpenView(driver, "one", "", ErrorCode::kNotFound);
    driver.Drop();
    Driver again(place.files, reactor, place.directory);
    EXPECT(LayersOf(again)[0].removed);
  });
}

// --- crashes

// Cut at each I/O from the preparation to the seal: the record tells whether it took place, and
// what was written before and after is where it belongs.
TEST(replica_snapshots, one_that_is_cut_short_took_place_or_did_not) {
  OnEpoll([](io::Reactor& reactor) {
    bool done = false;
    int cut = 1;
    int switched_cuts = 0;
    for (; !done; cut += test::kStride) {
      Place place(reactor);
      std::string before;
      std::string after;
      {
        Driver driver(place.files, reactor, place.directory);
        WriteRecord(driver);
        Write(driver, 0, Text(65536, 'a'));
        ASSERT(Snapshot(driver, "zero") == ErrorCode::kOk);
        Write(driver, 4096, Text(8192, 'b'));
        ASSERT(driver.Do(OperationKind::kUnmap, 16384, 8192) == ErrorCode::kOk);
        before = driver.ReadAll();
        place.files.Reset(cut);
        done = Snapshot(driver, "one") == ErrorCode::kOk;
        EXPECT(done != place.files.reached());
        if (done) {
          place.files.Reset(0);
          Write(driver, 0, Text(4096, 'c'));
          ASSERT(driver.Do(OperationKind::kUnmap, 4096, 4096) == ErrorCode::kOk);
        }
        after = driver.ReadAll();
        driver.Drop();
        place.files.Reset(0);
      }
      Driver driver(place.files, reactor, place.directory);
      ASSERT_OK(driver.status());
      EXPECT(driver.Holds(after));
      const std::vector<wire::LayerEntry> layers = LayersOf(driver);
      const bool switched = driver.replica().record().current.newest_snapshot == "one";
      ASSERT(layers.size() == (switched ? size_t{3} : size_t{2}));
      if (switched && driver.replica().unsealed()) {
        ++switched_cuts;
        EXPECT_EQ(AboutLayer(driver, OperationKind::kSeal, "one"), ErrorCode::kOk);
      }
      if (switched) EXPECT(SnapshotHolds(driver, "one", before));
      // And the next one works.
      ASSERT(Snapshot(driver, "two") == ErrorCode::kOk);
      EXPECT(SnapshotHolds(driver, "two", after));
      EXPECT_EQ(LayersOf(driver).size(), layers.size() + 1);
    }
    EXPECT(cut > 25);
    EXPECT(switched_cuts > 5 || test::kStride > 1);
  });
}

// A process that is killed after it wrote and before it synced leaves what the next one reads, and
// answers for: a loss of power must not take that back.
TEST(replica_snapshots, what_is_read_as_deleted_or_sealed_is_durable) {
  OnEpoll([](io::Reactor& reactor) {
    for (const OperationKind kind : {OperationKind::kDelete, OperationKind::kSeal}) {
      bool done = false;
      int unsynced = 0;
      for (int cut = 1; !done; ++cut) {
        Place place(reactor);
        {
          Driver driver(place.files, reactor, place.directory);
          WriteRecord(driver);
          Write(driver, 0, Text(65536, 'a'));
          ASSERT(Prepare(driver, "one") == ErrorCode::kOk);
          ASSERT(Switch(driver, "one") == ErrorCode::kOk);
          if (kind == OperationKind::kDelete) {
            ASSERT(AboutLayer(driver, OperationKind::kSeal, "one") == ErrorCode::kOk);
          }
          place.files.Reset(cut);
          done = AboutLayer(driver, kind, "one") == ErrorCode::kOk;
          driver.Drop();
        }
        place.files.Reset(0);
        place.files.syncs = place.files.directory_syncs = 0;
        Driver driver(place.files, reactor, place.directory);
        ASSERT_OK(driver.status());
        const bool synced = kind == OperationKind::kDelete ? place.files.directory_syncs > 0
                                                           : place.files.syncs > 0;
        const wire::LayerEntry layer = LayersOf(driver).front();
        const bool is = kind == OperationKind::kDelete ? layer.removed : layer.sealed;
        EXPECT(synced || !is);
        if (is && !done) ++unsynced;
      }
      EXPECT(unsynced > 0);
    }
  });
}

// A disk that cannot sync what was read: nothing of it is answered for.
TEST(replica_snapshots, what_was_read_and_cannot_be_synced_is_not_served) {
  OnEpoll([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      WriteRecord(driver);
      driver.Drop();
    }
    place.files.fail_sync = true;
    {
      Driver driver(place.files, reactor, place.directory);
      EXPECT_EQ(driver.status().code(), ErrorCode::kIoError);
    }
    place.files.fail_sync = false;
    Driver driver(place.files, reactor, place.directory);
    ASSERT_OK(driver.status());
    EXPECT(driver.replica().suspect());
  });
}

// Writes that are under way when the record comes are within the snapshot or after it, whole.
TEST(replica_snapshots, what_is_under_way_is_not_lost) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    WriteRecord(driver);
    ASSERT(Prepare(driver, "one") == ErrorCode::kOk);
    std::vector<std::string> data;
    for (char c = 'a'; c < 'q'; ++c) data.push_back(Text(8192, c));
    std::string read(4096, '?');
    for (size_t i = 0; i < data.size(); ++i) {
      driver.Add(OperationKind::kWrite, i * 16384 + 2048, 8192, data[i].data());
      if (i == 3) driver.Add(OperationKind::kRead, 6 * kMiB, 4096, read.data());
      if (i != data.size() / 2) continue;
      ReplicaOperation& record = driver.Add(OperationKind::kRecord);
      record.record = NextRecord(driver, "one");
      record.welcomed = record.record.current.epoch;
    }
    ASSERT(driver.Run() == ErrorCode::kOk);
    ASSERT(AboutLayer(driver, OperationKind::kSeal, "one") == ErrorCode::kOk);
    const std::string snapshot = ReadSnapshot(driver, "one");
    for (size_t i = 0; i < data.size(); ++i) {
      EXPECT(Read(driver, i * 16384 + 2048, 8192) == data[i]);
      const std::string held = snapshot.substr(i * 16384 + 2048, 8192);
      EXPECT(held == data[i] || held == std::string(8192, '\0'));
    }
    EXPECT(snapshot.substr(2048, 8192) == data[0]);
  });
}

TEST(replica_snapshots, a_switch_without_a_record_seals) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    WriteRecord(driver);
    Write(driver, 0, Text(65536, 'a'));
    ASSERT(Prepare(driver, "one") == ErrorCode::kOk);
    ASSERT(AboutLayer(driver, OperationKind::kSwitch, "one") == ErrorCode::kOk);
    EXPECT(!driver.replica().unsealed());
    EXPECT_EQ(driver.replica().record().current.newest_snapshot, "");
    EXPECT(ReadSnapshot(driver, "one").substr(0, 65536) == Text(65536, 'a'));
    driver.Drop();
    Driver again(place.files, reactor, place.directory);
    ASSERT_OK(again.status());
    EXPECT_EQ(LayersOf(again).size(), size_t{2});
  });
}

// --- changed blocks

TEST(replica_snapshots, changed_regions_and_blocks_between_two) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    Write(driver, 0, Text(8192, 'a'));
    ASSERT(Snapshot(driver, "one") == ErrorCode::kOk);
    Write(driver, 4 * kMiB + 8192, Text(4096, 'b'));
    ASSERT(driver.Do(OperationKind::kUnmap, 4096, 4096) == ErrorCode::kOk);
    ASSERT(Snapshot(driver, "two") == ErrorCode::kOk);
    ASSERT(Snapshot(driver, "three") == ErrorCode::kOk);
    Write(driver, 8 * kMiB, Text(512, 'c'));
    EXPECT(ChangedOf(driver, "two", "one") == (Regions{{0, 2}}));
    EXPECT(ChangedOf(driver, "three", "two").empty());
    EXPECT(ChangedOf(driver, "three", "one") == (Regions{{0, 2}}));
    EXPECT(ChangedOf(driver, "one", "") == (Regions{{0, 1}}));
    EXPECT(ChangedOf(driver, "", "three") == (Regions{{2, 1}}));
    EXPECT(ChangedOf(driver, "", "one") == (Regions{{0, 3}}));
    // By blocks.
    const uint16_t view = OpenView(driver, "two", "one");
    std::vector<BlockExtent> extents(16);
    ReplicaOperation& status = driver.Add(OperationKind::kStatus, 0, Place::kSize);
    status.view = view;
    status.extents = extents.data();
    status.extents_max = 16;
    uint32_t count = 0;
    driver.on_done = [&count](ReplicaOperation* self) { count = self->extents_count; };
    ASSERT(driver.Run() == ErrorCode::kOk);
    std::string text;
    for (uint32_t i = 0; i < count; ++i) {
      text += std::to_string(extents[i].length_bytes) + (!extents[i].hole  ? " data, "
                                                         : extents[i].zero ? " zero, "
                                                                           : " same, ");
    }
    EXPECT_EQ(text, "4096 same, 4096 zero, 4194304 same, 4096 data, 4182528 same, ");
    // It has no content.
    ReadView(driver, view, 0, 4096, ErrorCode::kInvalidArgument);
    (void)OpenView(driver, "one", "two", ErrorCode::kInvalidArgument);
    driver.replica().CloseViews(&driver);
  });
}

// --- checksums

// What rots in a frozen layer is seen by who reads the head through it, and by who reads the
// snapshot.
TEST(replica_snapshots, what_rots_in_a_frozen_layer_is_seen) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      WriteRecord(driver);
      Write(driver, 0, Text(65536, 'a'));
      // Of one region the file has the checksums already, of the other one the table alone.
      EXPECT_EQ(Clean(driver, 0), ErrorCode::kOk);
      Write(driver, 4 * kMiB, Text(65536, 'b'));
      ASSERT(Snapshot(driver, "one") == ErrorCode::kOk);
      Write(driver, 0, Text(4096, 'c'));
      driver.Drop();
    }
    const std::string frozen = place.directory + "/volume-snap-one.img";
    FlipBit(place.files, frozen, 8192);
    FlipBit(place.files, frozen, 4 * kMiB + 4096);
    Driver driver(place.files, reactor, place.directory);
    ASSERT_OK(driver.status());
    // Of what the head shows nothing is believed in a dirty region.
    EXPECT_EQ(CleanNow(driver, 0, 2), ErrorCode::kOk);
    Read(driver, 8192, 4096, ErrorCode::kCorrupt);
    Read(driver, 4 * kMiB + 4096, 4096, ErrorCode::kCorrupt);
    Read(driver, 4 * kMiB + 8192, 4096);
    const uint16_t view = OpenView(driver, "one");
    ReadView(driver, view, 8192, 4096, ErrorCode::kCorrupt);
    ReadView(driver, view, 8192 + 512, 512, ErrorCode::kCorrupt);
    ReadView(driver, view, 4 * kMiB + 4096, 4096, ErrorCode::kCorrupt);
    EXPECT(ReadView(driver, view, 0, 8192) == Text(65536, 'a').substr(0, 8192));
    driver.replica().CloseViews(&driver);
    // A write of a whole block mends what the head shows.
    Write(driver, 4 * kMiB + 4096, Text(4096, 'd'));
    EXPECT(Read(driver, 4 * kMiB + 4096, 4096) == Text(4096, 'd'));
  });
}

// While the frozen layer's checksums are in memory alone, the head is read through them.
TEST(replica_snapshots, checksums_count_before_the_layer_is_sealed) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    WriteRecord(driver);
    Write(driver, 0, Text(65536, 'a'));
    ASSERT(Prepare(driver, "one") == ErrorCode::kOk);
    ASSERT(Switch(driver, "one") == ErrorCode::kOk);
    driver.replica().Trim();
    EXPECT_EQ(Clean(driver, 0), ErrorCode::kBusy);
    ASSERT(AboutLayer(driver, OperationKind::kSeal, "one") == ErrorCode::kOk);
    FlipBit(place.files, place.directory + "/volume-snap-one.img", 4096);
    Read(driver, 0, 4096);
    Read(driver, 4096, 4096, ErrorCode::kCorrupt);
    // Written in part it is not given a good checksum.
    Write(driver, 4096, Text(512, 'x'));
    Read(driver, 4096, 4096, ErrorCode::kCorrupt);
    Write(driver, 4096, Text(4096, 'y'));
    EXPECT(Read(driver, 4096, 4096) == Text(4096, 'y'));
  });
}

// A block that is good nowhere stays so in the snapshot, and is good in the head once it is
// written.
TEST(replica_snapshots, a_bad_block_is_bad_in_the_snapshot_for_good) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    WriteRecord(driver);
    Write(driver, 0, Text(65536, 'a'));
    ASSERT(Snapshot(driver, "zero") == ErrorCode::kOk);
    // Marked while it lies in the layer below.
    ASSERT(driver.Do(OperationKind::kBad, 8192, 4096) == ErrorCode::kOk);
    Read(driver, 8192, 4096, ErrorCode::kCorrupt);
    // And one that lies nowhere.
    ASSERT(driver.Do(OperationKind::kBad, kMiB, 4096) == ErrorCode::kOk);
    ASSERT(Snapshot(driver, "one") == ErrorCode::kOk);
    Read(driver, 8192, 4096, ErrorCode::kCorrupt);
    Read(driver, kMiB, 4096, ErrorCode::kCorrupt);
    Write(driver, 8192, Text(4096, 'b'));
    EXPECT(Read(driver, 8192, 4096) == Text(4096, 'b'));
    driver.Drop();
    Driver again(place.files, reactor, place.directory);
    ASSERT_OK(again.status());
    EXPECT(Read(again, 8192, 4096) == Text(4096, 'b'));
    EXPECT(Read(again, 12288, 4096) == Text(65536, 'a').substr(12288, 4096));
    uint16_t view = OpenView(again, "one");
    ReadView(again, view, 8192, 4096, ErrorCode::kCorrupt);
    ReadView(again, view, kMiB, 4096, ErrorCode::kCorrupt);
    EXPECT(ReadView(again, view, 4096, 4096) == Text(65536, 'a').substr(4096, 4096));
    view = OpenView(again, "zero");
    EXPECT(ReadView(again, view, 8192, 4096) == Text(65536, 'a').substr(8192, 4096));
    again.replica().CloseViews(&again);
  });
}

// --- at random

// Operations at random, snapshots and crashes between them: the head and every snapshot are what
// plain arrays say.
void RandomHistory(io::Reactor& reactor, CacheMode cache, uint64_t size, int steps) {
  std::mt19937_64 random(test::Seed() + 2);
  Place place(reactor, cache, size);
  std::string model(size, '\0');
  std::map<std::string, std::string> snapshots;
  auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
  WriteRecord(*driver);
  for (int step = 0; step < steps / test::kShare; ++step) {
    for (int i = 0; i < 6; ++i) {
      const uint64_t sectors_max = model.size() / kSectorBytes;
      const uint64_t sector = random() % sectors_max;
      const uint64_t length =
          kSectorBytes * std::min<uint64_t>({sectors_max - sector, 1 + random() % 300,
                                             kDataBytesMax / kSectorBytes});
      const uint64_t offset = sector * kSectorBytes;
      if (random() % 3 == 0) {
        ReplicaOperation& zero = driver->Add(
            random() % 2 == 0 ? OperationKind::kUnmap : OperationKind::kZero, offset, length);
        zero.keep_allocated = random() % 3 == 0;
        model.replace(offset, length, length, '\0');
        ASSERT(driver->Run() == ErrorCode::kOk);
      } else {
        std::string data(length, '\0');
        for (char& c : data) c = static_cast<char>('a' + random() % 26);
        model.replace(offset, length, data);
        Write(*driver, offset, data);
      }
    }
    if (random() % 3 == 0) {
      const std::string name = "s" + std::to_string(step);
      ASSERT(Snapshot(*driver, name) == ErrorCode::kOk);
      snapshots[name] = model;
    }
    if (random() % 12 == 0) {
      const uint64_t step_bytes = size % kBlockBytes == 0 ? kBlockBytes : kSectorBytes;
      model.resize(model.size() + step_bytes * (1 + random() % 300));
      ASSERT(Expand(*driver, model.size()) == ErrorCode::kOk);
    }
    if (random() % 8 == 0) {
      if (random() % 2 == 0) {
        ASSERT_OK(driver->Close(true));
      }
      driver = nullptr;
      driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      ASSERT_OK(driver->status());
    }
    ASSERT(driver->Holds(model));
    if (snapshots.empty()) continue;
    auto one = snapshots.begin();
    std::advance(one, static_cast<ptrdiff_t>(random() % snapshots.size()));
    ASSERT(SnapshotHolds(*driver, one->first, one->second));
  }
  for (const auto& [name, content] : snapshots) {
    ASSERT(SnapshotHolds(*driver, name, content));
  }
  EXPECT_EQ(LayersOf(*driver).size(), snapshots.size() + 1);
  EXPECT_EQ(driver->replica().sum_counters().errors, uint64_t{0});
  EXPECT_EQ(driver->replica().sum_counters().pages_damaged, uint64_t{0});
}

TEST(replica_snapshots, a_random_history_agrees_with_plain_arrays) {
  io::OnEachBackend(
      [](io::Reactor& reactor) { RandomHistory(reactor, CacheMode::kBuffered, 6 * kMiB, 60); });
}

TEST(replica_snapshots, a_random_history_with_direct_io) {
  io::OnEachBackend(
      [](io::Reactor& reactor) { RandomHistory(reactor, CacheMode::kDirect, 5 * kMiB, 40); });
}

TEST(replica_snapshots, a_random_history_on_a_size_of_odd_sectors) {
  io::OnEachBackend([](io::Reactor& reactor) {
    RandomHistory(reactor, CacheMode::kBuffered, 5 * kMiB + 3 * kSectorBytes, 40);
  });
}

}  // namespace
}  // namespace ankole::replica::testing
