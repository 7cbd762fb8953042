#include "replica/clone.h"

#include "replica/adopt.h"
#include "replica/export.h"
#include "replica/longhorn_testing.h"
#include "replica/snapshots_testing.h"

// Linked clones: what they hold, that neither side ever changes the other's, and what a cut leaves.
namespace ankole::replica::testing {
namespace {

constexpr wire::ReplicaId kCloneId = 0xb2;

std::string ParentOf(const std::string& directory) {
  return directory.substr(0, directory.rfind('/'));
}

CloneTarget TargetOf(const Place& place, const std::string& name = "copy",
                     uint64_t size_bytes = Place::kSize) {
  Identity identity = TestIdentity();
  identity.volume = name;
  identity.id = kCloneId;
  wire::Members members;
  members.Add(kCloneId);
  return {.directory = ParentOf(place.directory) + "/" + name,
          .identity = identity,
          .size_bytes = size_bytes,
          .record = FirstRecordOfClone(members),
          .chain = {}};
}

ErrorCode Clone(Driver& driver, const std::string& layer, CloneTarget* target) {
  ReplicaOperation& operation = driver.Add(OperationKind::kClone);
  operation.layer = layer;
  operation.clone = target;
  return driver.Run();
}

uint64_t LinksOf(Place& place, const std::string& directory, const std::string& layer) {
  const Result<io::FileInfo> info = place.files.Info(directory + "/volume-snap-" + layer + ".img");
  return info.ok() ? info.value().links : 0;
}

std::unique_ptr<Driver> Opened(Place& place, io::Reactor& reactor, const std::string& directory) {
  auto driver = std::make_unique<Driver>(place.files, reactor, directory);
  EXPECT(driver->status().ok());
  return driver;
}

TEST(replica_clone, holds_what_the_snapshot_does_and_shares_its_files) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    auto source = Opened(place, reactor, place.directory);
    const History history = MakeHistory(*source);
    CloneTarget target = TargetOf(place);
    ASSERT(Clone(*source, "two", &target) == ErrorCode::kOk);
    ASSERT(Clone(*source, "two", &target) == ErrorCode::kOk);  // it is there
    EXPECT_EQ(LinksOf(place, target.directory, "one"), 2U);
    EXPECT_EQ(LinksOf(place, target.directory, "two"), 2U);
    EXPECT_EQ(LinksOf(place, target.directory, "three"), 0U);
    auto clone = Opened(place, reactor, target.directory);
    const Replica& replica = clone->replica();
    EXPECT(!replica.unclean() && !replica.suspect() && !replica.fresh() && !replica.unsealed());
    EXPECT(replica.record().current == target.record && replica.record().complete == target.record);
    EXPECT_EQ(replica.regions().dirty_regions(), 0U);
    EXPECT(clone->Holds(history.snapshots.at("two")));
    // Nobody's snapshots, so that nobody can delete them or revert to them.
    for (const wire::LayerEntry& layer : LayersOf(*clone)) {
      EXPECT(layer.name.empty() || (layer.removed && !layer.user_created));
    }
    EXPECT_EQ(OpenView(*clone, "two", "", ErrorCode::kNotFound), 0U);

    // Both go their ways.
    WriteRecord(*clone);
    Write(*clone, 0, Text(kMiB, 'c'));
    ASSERT(clone->Do(OperationKind::kUnmap, 5 * kMiB, kMiB) == ErrorCode::kOk);
    const std::string of_clone = clone->ReadAll();
    ExpectSame(*source, history);
    Write(*source, kMiB, Text(kMiB, 's'));
    EXPECT(clone->Holds(of_clone));
    EXPECT_EQ(clone->replica().sum_counters().errors, 0U);
    ASSERT(Snapshot(*clone, "own") == ErrorCode::kOk);
    Write(*clone, 4096, Text(4096, 'd'));
    EXPECT(SnapshotHolds(*clone, "own", of_clone));
    ASSERT_OK(clone->Close(true));
    clone = Opened(place, reactor, target.directory);
    EXPECT(SnapshotHolds(*clone, "own", of_clone));
    EXPECT(SnapshotHolds(*source, "two", history.snapshots.at("two")));
  });
}

TEST(replica_clone, blocks_of_it_are_verified_and_bad_ones_stay_bad) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    auto source = Opened(place, reactor, place.directory);
    WriteRecord(*source);
    Write(*source, 0, Text(65536, 'a'));
    ASSERT(source->Do(OperationKind::kBad, 8192, 4096) == ErrorCode::kOk);
    ASSERT(Snapshot(*source, "one") == ErrorCode::kOk);
    Write(*source, 0, Text(65536, 'b'));  // good again, and nothing of that is the snapshot's
    CloneTarget target = TargetOf(place);
    ASSERT(Clone(*source, "one", &target) == ErrorCode::kOk);
    FlipBit(place.files, target.directory + "/volume-snap-one.img", 16384);
    auto clone = Opened(place, reactor, target.directory);
    Read(*clone, 0, 8192);
    Read(*clone, 8192, 4096, ErrorCode::kCorrupt);
    Read(*clone, 12288, 4096);
    Read(*clone, 16384, 4096, ErrorCode::kCorrupt);
    WriteRecord(*clone);
    Write(*clone, 0, Text(65536, 'c'));
    EXPECT(Read(*clone, 0, 65536) == Text(65536, 'c'));
    // The file is one: what rotted is seen on both sides.
    const uint16_t view = OpenView(*source, "one");
    ReadView(*source, view, 16384, 4096, ErrorCode::kCorrupt);
    ReadView(*source, view, 12288, 4096);
    source->replica().CloseViews(source.get());
  });
}

// Either side: a layer that goes under a frozen one, and one that goes under the head.
TEST(replica_clone, merges_wait_as_long_as_the_layer_is_shared) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    auto source = Opened(place, reactor, place.directory);
    History history = MakeHistory(*source);
    CloneTarget target = TargetOf(place);
    ASSERT(Clone(*source, "three", &target) == ErrorCode::kOk);
    for (const std::string gone : {"two", "three"}) {
      ASSERT(AboutLayer(*source, OperationKind::kDelete, gone) == ErrorCode::kOk);
      history.snapshots.erase(gone);
    }
    const auto shared = ContentOf(place.files, target.directory);
    auto clone = Opened(place, reactor, target.directory);
    EXPECT(clone->replica().has_removed_layers());
    EXPECT_EQ(MergeAll(*source), 1);
    EXPECT_EQ(source->replica().layers_shared(), 2U);
    WriteRecord(*clone);
    Write(*clone, 0, Text(kMiB, 'c'));
    EXPECT_EQ(MergeAll(*clone), 1);
    EXPECT_EQ(clone->replica().layers_shared(), 3U);
    ASSERT(Snapshot(*clone, "own") == ErrorCode::kOk);
    const std::string own = clone->ReadAll();
    EXPECT_EQ(MergeAll(*clone), 1);
    for (const auto& [name, content] : ContentOf(place.files, target.directory)) {
      const bool layer = name.starts_with("volume-snap-") && name.find("own") == std::string::npos;
      EXPECT(!layer || shared.at(name) == content);
    }
    ExpectSame(*source, history);
  });
}

TEST(replica_clone, merges_go_on_when_the_other_one_is_gone) {
  OnEpoll([](io::Reactor& reactor) {
    for (const bool source_goes : {false, true}) {
      Place place(reactor);
      auto source = Opened(place, reactor, place.directory);
      History history = MakeHistory(*source);
      CloneTarget target = TargetOf(place);
      ASSERT(Clone(*source, "three", &target) == ErrorCode::kOk);
      ASSERT(AboutLayer(*source, OperationKind::kDelete, "two") == ErrorCode::kOk);
      history.snapshots.erase("two");
      auto clone = Opened(place, reactor, target.directory);
      WriteRecord(*clone);
      Write(*clone, 4096, Text(kMiB, 'c'));
      ASSERT(Snapshot(*clone, "own") == ErrorCode::kOk);
      const std::string own = clone->ReadAll();
      std::unique_ptr<Driver>& goes = source_goes ? source : clone;
      const std::string directory = source_goes ? place.directory : target.directory;
      ASSERT_OK(goes->Close(true));
      goes = nullptr;
      ASSERT_OK(Replica::Destroy(place.files, directory));
      if (source_goes) {
        EXPECT(clone->Holds(own));
        EXPECT(MergeAll(*clone) > 3);
        EXPECT_EQ(LayersOf(*clone).size(), size_t{2});
        EXPECT(clone->Holds(own) && SnapshotHolds(*clone, "own", own));
        EXPECT_EQ(clone->replica().sum_counters().errors, 0U);
        EXPECT_EQ(LinksOf(place, target.directory, "own"), 1U);
      } else {
        EXPECT(MergeAll(*source) > 2);
        EXPECT_EQ(LayersOf(*source).size(), size_t{3});
        ExpectSame(*source, history);
      }
    }
  });
}

// Between any two steps of it: what it wrote so far is hidden in the clone as well, and it ends
// when it may.
TEST(replica_clone, can_be_made_in_the_middle_of_a_merge) {
  OnEpoll([](io::Reactor& reactor) {
    for (const std::string gone : {"one", "two"}) {
      bool merged = false;
      int interrupted = 0;
      for (int steps = 0; !merged; ++steps) {
        Place place(reactor);
        auto source = Opened(place, reactor, place.directory);
        History history = MakeHistory(*source);
        ASSERT(AboutLayer(*source, OperationKind::kDelete, gone) == ErrorCode::kOk);
        history.snapshots.erase(gone);
        for (int i = 0; i < steps; ++i) ASSERT(source->Do(OperationKind::kMerge) == ErrorCode::kOk);
        merged = LayersOf(*source).size() == 3;
        CloneTarget target = TargetOf(place);
        const ErrorCode made = Clone(*source, "three", &target);
        if (made == ErrorCode::kBusy) {
          // Right before files get other names.
          ASSERT(source->Do(OperationKind::kMerge) == ErrorCode::kOk);
          ASSERT(Clone(*source, "three", &target) == ErrorCode::kOk);
        } else {
          ASSERT(made == ErrorCode::kOk);
          ++interrupted;
        }
        ASSERT(MergeAll(*source) > 0);
        ExpectSame(*source, history);
        auto clone = Opened(place, reactor, target.directory);
        EXPECT(clone->Holds(history.snapshots.at("three")));
        EXPECT_EQ(clone->replica().sum_counters().errors, 0U);
        source = nullptr;
        source = Opened(place, reactor, place.directory);
        ExpectSame(*source, history);
        ASSERT_OK(source->Close(true));
        source = nullptr;
        ASSERT_OK(Replica::Destroy(place.files, place.directory));
        ASSERT(MergeAll(*clone) > 0);
        EXPECT(clone->Holds(history.snapshots.at("three")));
        EXPECT_EQ(clone->replica().sum_counters().errors, 0U);
      }
      EXPECT(interrupted > 3);
    }
  });
}

// Where a merge was cut short as it gave names, files have those of before and of after it.
TEST(replica_clone, waits_for_a_merge_that_gives_names) {
  OnEpoll([](io::Reactor& reactor) {
    bool done = false;
    int cut = 1;
    for (; !done; cut += test::kStride) {
      Place place(reactor);
      auto source = Opened(place, reactor, place.directory);
      History history = MakeHistory(*source);
      ASSERT(AboutLayer(*source, OperationKind::kDelete, "one") == ErrorCode::kOk);
      history.snapshots.erase("one");
      // Masks, data, checksums; the names are next.
      const std::string journal = place.directory + "/merge";
      const std::string merged = place.directory + "/volume-snap-two.img.crc.merged";
      while (!place.files.Info(merged).ok()) {
        ASSERT(source->Do(OperationKind::kMerge) == ErrorCode::kOk);
      }
      place.files.Reset(cut);
      done = source->Do(OperationKind::kMerge) == ErrorCode::kOk;
      place.files.Reset(0);
      CloneTarget target = TargetOf(place);
      EXPECT_EQ(Clone(*source, "three", &target), done ? ErrorCode::kOk : ErrorCode::kBusy);
      ASSERT(MergeAll(*source) > 0);
      ASSERT(Clone(*source, "three", &target) == ErrorCode::kOk);
      EXPECT(!place.files.Info(journal).ok());
      auto clone = Opened(place, reactor, target.directory);
      EXPECT(clone->Holds(history.snapshots.at("three")));
      EXPECT_EQ(clone->replica().sum_counters().errors, 0U);
      ExpectSame(*source, history);
    }
    EXPECT(cut > 8);
  });
}

// While layers are linked and copied no merge goes on beside.
TEST(replica_clone, a_merge_waits_for_a_clone_that_is_being_made) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    auto source = Opened(place, reactor, place.directory);
    History history = MakeHistory(*source);
    ASSERT(AboutLayer(*source, OperationKind::kDelete, "one") == ErrorCode::kOk);
    history.snapshots.erase("one");
    ASSERT(source->Do(OperationKind::kMerge) == ErrorCode::kOk);  // begins it
    CloneTarget target = TargetOf(place);
    bool more = false;
    ReplicaOperation& operation = source->Add(OperationKind::kClone);
    operation.layer = "two";
    operation.clone = &target;
    source->Add(OperationKind::kMerge);
    source->on_done = [&more](ReplicaOperation* self) {
      if (self->kind == OperationKind::kMerge) more = self->more;
    };
    EXPECT_EQ(source->Run(), ErrorCode::kOk);
    source->on_done = nullptr;
    EXPECT(more);
    EXPECT(!place.files.Info(place.directory + "/merge").ok());
    ASSERT(MergeAll(*source) > 0);
    EXPECT_EQ(source->replica().layers_shared(), 1U);
    ExpectSame(*source, history);
    auto clone = Opened(place, reactor, target.directory);
    EXPECT(clone->Holds(history.snapshots.at("two")));
  });
}

TEST(replica_clone, a_cut_leaves_the_source_as_it_was_and_nothing_half) {
  OnEpoll([](io::Reactor& reactor) {
    constexpr uint64_t kSmall = kMiB;
    Place place(reactor, CacheMode::kBuffered, kSmall);
    auto source = Opened(place, reactor, place.directory);
    History history;
    WriteRecord(*source);
    for (const std::string name : {"one", "two"}) {
      Write(*source, name == "one" ? 0 : 4096, Text(65536, name[0]));
      ASSERT(source->Do(OperationKind::kUnmap, 32768, 8192) == ErrorCode::kOk);
      ASSERT(Snapshot(*source, name) == ErrorCode::kOk);
      history.snapshots[name] = history.head = source->ReadAll();
    }
    bool done = false;
    int cut = 1;
    for (; !done; cut += test::kStride) {
      CloneTarget target = TargetOf(place, "copy", kSmall);
      const auto before = ContentOf(place.files, place.directory);
      place.files.Reset(cut);
      done = Clone(*source, "two", &target) == ErrorCode::kOk;
      EXPECT(done != place.files.reached());
      place.files.Reset(0);
      EXPECT(ContentOf(place.files, place.directory) == before);
      ASSERT_OK(Replica::RemoveLeftovers(place.files, ParentOf(place.directory)));
      const bool there = place.files.Info(target.directory).ok();
      EXPECT(there || !done);
      EXPECT_EQ(LinksOf(place, place.directory, "two"), there ? 2U : 1U);
      if (!there) ASSERT(Clone(*source, "two", &target) == ErrorCode::kOk);
      auto clone = Opened(place, reactor, target.directory);
      EXPECT(clone->Holds(history.snapshots.at("two")));
      ASSERT_OK(clone->Close(true));
      clone = nullptr;
      ASSERT_OK(Replica::Destroy(place.files, target.directory));
    }
    EXPECT(cut > 30);
    ExpectSame(*source, history);
  });
}

// The clone may stay for years, and whoever fills this replica, or uses the clone, may need a
// snapshot of that name meanwhile.
TEST(replica_clone, a_deleted_layer_that_is_shared_keeps_no_name_from_a_snapshot) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    auto source = Opened(place, reactor, place.directory);
    History history = MakeHistory(*source);
    CloneTarget target = TargetOf(place);
    ASSERT(Clone(*source, "three", &target) == ErrorCode::kOk);
    EXPECT(Prepare(*source, "two") == ErrorCode::kAlreadyExists);  // it is a snapshot
    ASSERT(AboutLayer(*source, OperationKind::kDelete, "two") == ErrorCode::kOk);
    EXPECT_EQ(MergeAll(*source), 1);
    ASSERT(Snapshot(*source, "two") == ErrorCode::kOk);
    history.snapshots["two"] = history.head;
    ExpectSame(*source, history);
    EXPECT_EQ(LayersOf(*source).size(), size_t{5});
    EXPECT_EQ(LinksOf(place, place.directory, "two"), 1U);
    auto clone = Opened(place, reactor, target.directory);
    EXPECT(clone->Holds(history.snapshots.at("three")));
    WriteRecord(*clone);
    EXPECT_EQ(MergeAll(*clone), 1);
    ASSERT(Snapshot(*clone, "two") == ErrorCode::kOk);
    EXPECT(SnapshotHolds(*clone, "two", history.snapshots.at("three")));
    ASSERT_OK(clone->Close(true));
    clone = Opened(place, reactor, target.directory);
    EXPECT(SnapshotHolds(*clone, "two", history.snapshots.at("three")));

    // It goes as others do when the clone is gone.
    ASSERT_OK(clone->Close(true));
    clone = nullptr;
    ASSERT_OK(Replica::Destroy(place.files, target.directory));
    for (const bool opened_anew : {false, true}) {
      if (opened_anew) {
        ASSERT_OK(source->Close(true));
        source = Opened(place, reactor, place.directory);
      }
      EXPECT(MergeAll(*source) > 0);
      ExpectSame(*source, history);
      EXPECT_EQ(LayersOf(*source).size(), size_t{4});
    }
  });
}

TEST(replica_clone, a_cut_while_a_name_is_freed_leaves_all_snapshots) {
  OnEpoll([](io::Reactor& reactor) {
    bool done = false;
    int cut = 1;
    for (; !done; cut += test::kStride) {
      Place place(reactor, CacheMode::kBuffered, kMiB);
      auto source = Opened(place, reactor, place.directory);
      History history;
      WriteRecord(*source);
      for (const std::string name : {"one", "two", "three"}) {
        Write(*source, name.size() * 4096, Text(65536, name[0]));
        ASSERT(source->Do(OperationKind::kUnmap, 32768, 8192) == ErrorCode::kOk);
        ASSERT(Snapshot(*source, name) == ErrorCode::kOk);
        history.snapshots[name] = history.head = source->ReadAll();
      }
      CloneTarget target = TargetOf(place, "copy", kMiB);
      ASSERT(Clone(*source, "three", &target) == ErrorCode::kOk);
      ASSERT(AboutLayer(*source, OperationKind::kDelete, "two") == ErrorCode::kOk);
      history.snapshots.erase("two");
      EXPECT_EQ(MergeAll(*source), 1);
      place.files.Reset(cut);
      done = Prepare(*source, "two") == ErrorCode::kOk;
      EXPECT(done != place.files.reached());
      place.files.Reset(0);
      // As a crash leaves it, and where the process goes on.
      for (const bool crashed : {false, true}) {
        if (crashed) {
          source->Drop();
          source = nullptr;
          source = Opened(place, reactor, place.directory);
          ASSERT_OK(source->status());
        }
        ExpectSame(*source, history);
        EXPECT(MergeAll(*source) > 0);
        ExpectSame(*source, history);
      }
      ASSERT(Snapshot(*source, "two") == ErrorCode::kOk);
      history.snapshots["two"] = history.head;
      ExpectSame(*source, history);
      EXPECT_EQ(LayersOf(*source).size(), size_t{5});
      auto clone = Opened(place, reactor, target.directory);
      EXPECT(clone->Holds(history.snapshots.at("three")));
    }
    EXPECT(cut > 10);
  });
}

TEST(replica_clone, of_a_clone_that_is_expanded_and_reverted) {
  OnEpoll([](io::Reactor& reactor) {
    constexpr uint64_t kSize = 8 * kMiB;
    constexpr uint64_t kLarger = 16 * kMiB;
    Place place(reactor, CacheMode::kBuffered, kSize);
    auto source = Opened(place, reactor, place.directory);
    WriteRecord(*source);
    Write(*source, 0, Text(kMiB, 'a'));
    ASSERT(Snapshot(*source, "one") == ErrorCode::kOk);
    Write(*source, 4096, Text(kMiB, 'b'));
    ASSERT(Snapshot(*source, "two") == ErrorCode::kOk);
    const std::string two = source->ReadAll();
    CloneTarget small = TargetOf(place, "small", kSize - 4096);
    EXPECT_EQ(Clone(*source, "two", &small), ErrorCode::kInvalidArgument);
    const std::string why = source->replica().clone_failure().message();
    EXPECT(why.find("does not hold") != std::string::npos);
    EXPECT(!place.files.Info(small.directory).ok());
    // Larger from the beginning, and again later.
    CloneTarget target = TargetOf(place, "copy", 12 * kMiB);
    ASSERT(Clone(*source, "two", &target) == ErrorCode::kOk);
    auto clone = Opened(place, reactor, target.directory);
    EXPECT(clone->Holds(Padded(two, 12 * kMiB)));
    WriteRecord(*clone);
    ASSERT(Expand(*clone, kLarger) == ErrorCode::kOk);
    EXPECT(clone->Holds(Padded(two, kLarger)));
    Write(*clone, 10 * kMiB, Text(kMiB, 'c'));
    ASSERT(Snapshot(*clone, "own") == ErrorCode::kOk);
    const std::string own = clone->ReadAll();
    // A clone of it has the files of all three.
    CloneTarget second = TargetOf(place, "second", kLarger);
    ASSERT(Clone(*clone, "own", &second) == ErrorCode::kOk);
    EXPECT_EQ(LinksOf(place, second.directory, "one"), 3U);
    EXPECT_EQ(LinksOf(place, second.directory, "own"), 2U);
    Write(*clone, 512 * kKiB, Text(kMiB, 'd'));
    ASSERT(PrepareRevert(*clone, "back", "own") == ErrorCode::kOk);
    ASSERT(Switch(*clone, "back") == ErrorCode::kOk);
    clone = nullptr;
    clone = Opened(place, reactor, target.directory);
    EXPECT(clone->Holds(own));
    ASSERT(MergeAll(*clone) > 0);
    EXPECT(clone->Holds(own));
    // The two before it go, in either order.
    ASSERT_OK(clone->Close(true));
    clone = nullptr;
    ASSERT_OK(Replica::Destroy(place.files, target.directory));
    auto last = Opened(place, reactor, second.directory);
    EXPECT(MergeAll(*last) > 1);  // «own» is its own by now
    EXPECT_EQ(last->replica().layers_shared(), 2U);
    ASSERT_OK(source->Close(true));
    source = nullptr;
    ASSERT_OK(Replica::Destroy(place.files, place.directory));
    EXPECT(MergeAll(*last) > 1);
    EXPECT_EQ(last->replica().layers_shared(), 0U);
    EXPECT(last->Holds(own));
    EXPECT_EQ(last->replica().sum_counters().errors, 0U);
  });
}

// The way out: a directory that has nothing in common with any other.
TEST(replica_clone, can_be_exported_and_what_is_exported_adopted) {
  OnEpoll([](io::Reactor& reactor) {
    constexpr uint64_t kSize = 4 * kMiB;
    Place place(reactor, CacheMode::kBuffered, kSize);
    auto source = Opened(place, reactor, place.directory);
    WriteRecord(*source);
    Write(*source, 0, Text(kMiB, 'a'));
    ASSERT(Snapshot(*source, "one") == ErrorCode::kOk);
    Write(*source, 4096, Text(65536, 'b'));
    ASSERT(Snapshot(*source, "two") == ErrorCode::kOk);
    CloneTarget target = TargetOf(place, "copy", kSize);
    ASSERT(Clone(*source, "two", &target) == ErrorCode::kOk);
    std::string content;
    {
      auto clone = Opened(place, reactor, target.directory);
      WriteRecord(*clone);
      Write(*clone, 8192, Text(4096, 'c'));
      ASSERT(clone->Do(OperationKind::kUnmap, 65536, 65536) == ErrorCode::kOk);
      content = clone->ReadAll();
      ASSERT_OK(clone->Close(true));
    }
    const std::string out = ParentOf(place.directory) + "/out";
    const auto all = [](uint64_t) { return true; };
    ASSERT_OK(ExportLonghorn(reactor, target.directory, out, {}, all));
    EXPECT(ComposeLonghorn(place.files, out) == content);
    for (const std::string& name : place.files.List(out).Take()) {
      EXPECT_EQ(place.files.Info(out + "/" + name).value().links, 1U);
    }
    const std::string adopted = ParentOf(place.directory) + "/adopted";
    ASSERT_OK(AdoptReplica(place.files, out, adopted, TestIdentity(), kSize, {}));
    auto driver = Opened(place, reactor, adopted);
    EXPECT(driver->Holds(content));
    // Its files may have to be given back.
    CloneTarget second = TargetOf(place, "second", kSize);
    EXPECT_EQ(Clone(*driver, "one", &second), ErrorCode::kReadOnly);
  });
}

TEST(replica_clone, is_refused_of_what_is_no_snapshot) {
  OnEpoll([](io::Reactor& reactor) {
    Place place(reactor);
    auto source = Opened(place, reactor, place.directory);
    MakeHistory(*source);
    CloneTarget target = TargetOf(place);
    EXPECT_EQ(Clone(*source, "four", &target), ErrorCode::kNotFound);
    EXPECT_EQ(Clone(*source, "..", &target), ErrorCode::kInvalidArgument);
    EXPECT_EQ(Clone(*source, "one", nullptr), ErrorCode::kInvalidArgument);
    ASSERT(AboutLayer(*source, OperationKind::kDelete, "one") == ErrorCode::kOk);
    EXPECT_EQ(Clone(*source, "one", &target), ErrorCode::kNotFound);
    ASSERT(Prepare(*source, "four") == ErrorCode::kOk);
    ASSERT(Switch(*source, "four") == ErrorCode::kOk);
    EXPECT_EQ(Clone(*source, "four", &target), ErrorCode::kBusy);
    ASSERT(AboutLayer(*source, OperationKind::kSeal, "four") == ErrorCode::kOk);
    // A sync that failed may have lost what a layer holds.
    Write(*source, 0, Text(4096, 'x'));
    place.files.fail_sync = true;
    EXPECT_EQ(source->Do(OperationKind::kFlush), ErrorCode::kIoError);
    place.files.fail_sync = false;
    EXPECT_EQ(Clone(*source, "four", &target), ErrorCode::kSuspect);
    EXPECT(!place.files.Info(target.directory).ok());
  });
}

}  // namespace
}  // namespace ankole::replica::testing
