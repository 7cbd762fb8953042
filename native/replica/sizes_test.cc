#include <random>

#include "base/crc32c.h"
#include "replica/snapshots_testing.h"

// Snapshots of a volume that became larger: layers keep the size that they were frozen with, and a
// merge gives the lower one that of the upper one.
namespace ankole::replica::testing {
namespace {

// Ends within a block, within a region, and at the end of one, where the checksums of the next
// region come to lie on the copy that the file has behind its last page.
constexpr uint64_t kSizes[] = {8 * kMiB + 512, 6 * kMiB, 8 * kMiB};
constexpr uint64_t kLarger = 14 * kMiB;

std::string LayerPath(const Place& place, const std::string& name) {
  return place.directory + "/volume-snap-" + name + ".img";
}

uint64_t BytesOf(Place& place, const std::string& path) {
  const Result<io::FileInfo> info = place.files.Info(path);
  return info.ok() ? info.value().size_bytes : 0;
}

uint64_t SumBytes(uint64_t size_bytes) {
  return SumCopyOffset(DivideUp(size_bytes, kRegionBytes)) + kSumPageBytes;
}

// Holds up writes as it is told.
class HoldingReactor final : public FaultyReactor {
 public:
  explicit HoldingReactor(io::Reactor& under) : FaultyReactor(under) {
    timer_.owner = this;
    timer_.done = [](io::Operation* timer) { static_cast<HoldingReactor*>(timer->owner)->Stop(); };
  }
  void Write(io::FileOperation* operation) override {
    if (!hold) return FaultyReactor::Write(operation);
    held_.push_back(operation);
  }
  void Release() {
    hold = false;
    for (io::FileOperation* operation : std::exchange(held_, {})) Write(operation);
  }
  void LoopFor(uint64_t ms) {
    Arm(&timer_, NowNs() + ms * kNsPerMs);
    Loop();
  }
  bool hold = false;

 private:
  std::vector<io::FileOperation*> held_;
  io::Timer timer_;
};

// Of a volume: what it holds, and what each snapshot held.
struct Model {
  std::string head;
  std::map<std::string, std::string> snapshots;

  explicit Model(uint64_t size_bytes) : head(size_bytes, '\0') {}
  void Put(Driver& driver, uint64_t at, const std::string& data) {
    head.replace(at, data.size(), data);
    Write(driver, at, data);
  }
  void Free(Driver& driver, uint64_t at, uint64_t bytes) {
    head.replace(at, bytes, bytes, '\0');
    EXPECT_EQ(driver.Do(OperationKind::kUnmap, at, bytes), ErrorCode::kOk);
  }
  void Take(Driver& driver, const std::string& name) {
    EXPECT_EQ(Snapshot(driver, name), ErrorCode::kOk);
    snapshots[name] = head;
  }
  void Grow(Driver& driver, uint64_t size_bytes) {
    EXPECT_EQ(Expand(driver, size_bytes), ErrorCode::kOk);
    head.resize(size_bytes);
  }
  void ExpectIn(Driver& driver) const {
    EXPECT_EQ(driver.replica().size_bytes(), head.size());
    EXPECT(driver.Holds(head));
    for (const auto& [name, content] : snapshots) {
      EXPECT(SnapshotHolds(driver, name, content));
    }
    EXPECT_EQ(driver.replica().sum_counters().errors, uint64_t{0});
    EXPECT_EQ(driver.replica().sum_counters().pages_damaged, uint64_t{0});
  }
};

// A snapshot of either size, with data, zeros and masks on both sides of the old end.
Model MakeTwoSizes(Driver& driver, uint64_t size) {
  WriteRecord(driver);
  Model model(size);
  model.Put(driver, 0, Text(65536, 'a'));
  model.Put(driver, size - 40960, Text(40960, 'b'));
  model.Take(driver, "zero");
  model.Put(driver, 8192, Text(8192, 'c'));
  model.Put(driver, size - 1024, Text(1024, 'd'));
  model.Free(driver, size - 32768 - size % kBlockBytes, 8192);
  model.Take(driver, "one");
  model.Grow(driver, kLarger);
  model.Put(driver, size - 20480, Text(65536, 'e'));
  model.Put(driver, size + 5 * kMiB, Text(65536, 'f'));
  model.Free(driver, size + 5 * kMiB + 8192 - size % kBlockBytes, 8192);
  model.Free(driver, 4096, 8192);
  model.Take(driver, "two");
  model.Put(driver, kLarger - 4096, Text(4096, 'g'));
  return model;
}

TEST(replica_sizes, layers_keep_the_size_they_were_frozen_with) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const uint64_t size : kSizes) {
      Place place(reactor, CacheMode::kBuffered, size);
      auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      Model model = MakeTwoSizes(*driver, size);
      for (int round = 0; round < 2; ++round) {
        model.ExpectIn(*driver);
        EXPECT_EQ(BytesOf(place, LayerPath(place, "one")), size);
        EXPECT_EQ(BytesOf(place, LayerPath(place, "one") + ".crc"), SumBytes(size));
        EXPECT_EQ(BytesOf(place, LayerPath(place, "two")), kLarger);
        EXPECT_EQ(BytesOf(place, LayerPath(place, "two") + ".crc"), SumBytes(kLarger));
        const std::vector<wire::LayerEntry> layers = LayersOf(*driver);
        ASSERT(layers.size() == 4);
        EXPECT_EQ(layers[1].size_bytes, size);
        EXPECT_EQ(layers[3].size_bytes, kLarger);
        driver = nullptr;
        driver = std::make_unique<Driver>(place.files, reactor, place.directory);
        ASSERT_OK(driver->status());
      }
      // What rots is seen on both sides of the old end, by who reads the head and the snapshots.
      driver->Drop();
      FlipBit(place.files, LayerPath(place, "zero"), 16384);
      FlipBit(place.files, LayerPath(place, "two"), size + 5 * kMiB);
      Driver again(place.files, reactor, place.directory);
      ASSERT_OK(again.status());
      EXPECT_EQ(CleanNow(again, 0, DivideUp(kLarger, kRegionBytes)), ErrorCode::kOk);
      Read(again, 16384, 4096, ErrorCode::kCorrupt);
      Read(again, size + 5 * kMiB, 512, ErrorCode::kCorrupt);
      const uint16_t view = OpenView(again, "one");
      ReadView(again, view, 16384, 4096, ErrorCode::kCorrupt);
      ReadView(again, view, size + 5 * kMiB, 4096);
      again.replica().CloseViews(&again);
    }
  });
}

TEST(replica_sizes, a_view_of_before_has_zeros_behind_its_end) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const uint64_t size : kSizes) {
      Place place(reactor, CacheMode::kBuffered, size);
      Driver driver(place.files, reactor, place.directory);
      WriteRecord(driver);
      Model model(size);
      model.Put(driver, size - 8192, Text(8192, 'a'));
      model.Take(driver, "one");
      // Opened while the volume had that size.
      const uint16_t view = OpenView(driver, "one");
      model.Grow(driver, kLarger);
      model.Put(driver, size - 1024, Text(8192, 'b'));
      EXPECT(driver.Holds(model.snapshots["one"], view));
      const uint64_t at = RoundDown(size, kBlockBytes);
      std::string data(8192, '?');
      std::vector<uint32_t> crcs(2, 0);
      ReplicaOperation& read = driver.Add(OperationKind::kRead, at, 8192, data.data());
      read.view = view;
      read.checksums = crcs.data();
      ASSERT(driver.Run() == ErrorCode::kOk);
      EXPECT_EQ(crcs[0], Crc32c(data.data(), 4096));
      EXPECT_EQ(crcs[1], Crc32c(data.data() + 4096, 4096));
      std::string sums_of(kMiB + kSumScratchBytes, '?');
      ReplicaOperation& sum = driver.Add(OperationKind::kSum, at, 8192, sums_of.data());
      sum.view = view;
      sum.sums = reinterpret_cast<std::byte*>(sums_of.data()) + kMiB;
      ASSERT(driver.Run() == ErrorCode::kOk);
      Result<wire::Sums> sums = wire::Sums::Decode(
          std::as_bytes(std::span(sums_of)).subspan(kMiB, wire::SumsBytes(2)), 8192);
      ASSERT(sums.ok());
      EXPECT(!sums.value().bad(0) && !sums.value().bad(1));
      EXPECT_EQ(sums.value().crc32c(0), crcs[0]);
      EXPECT_EQ(sums.value().crc32c(1), crcs[1]);
      BlockExtent extents[8];
      ReplicaOperation& status =
          driver.Add(OperationKind::kStatus, size - 512, kLarger - size + 512);
      status.view = view;
      status.extents = extents;
      status.extents_max = 8;
      uint32_t count = 0;
      driver.on_done = [&count](ReplicaOperation* self) { count = self->extents_count; };
      ASSERT(driver.Run() == ErrorCode::kOk);
      ASSERT(count == 2);
      EXPECT(!extents[0].hole && extents[1].hole && extents[1].zero);
      EXPECT_EQ(extents[0].length_bytes, RoundUp(size, kBlockBytes) - size + 512);
      EXPECT_EQ(extents[0].length_bytes + extents[1].length_bytes, kLarger - size + 512);
      driver.replica().CloseViews(&driver);
    }
  });
}

TEST(replica_sizes, changed_names_what_is_behind_the_old_end_where_there_is_data) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor, CacheMode::kBuffered, 8 * kMiB);
    Driver driver(place.files, reactor, place.directory);
    WriteRecord(driver);
    Model model(8 * kMiB);
    model.Put(driver, 0, Text(4096, 'a'));
    model.Take(driver, "one");
    model.Grow(driver, 24 * kMiB);
    model.Take(driver, "two");
    model.Put(driver, 13 * kMiB, Text(4096, 'b'));
    model.Take(driver, "three");
    using Runs = std::vector<wire::RegionRun>;
    EXPECT(ChangedOf(driver, "two", "one").empty());
    EXPECT(ChangedOf(driver, "three", "one") == (Runs{{3, 1}}));
    EXPECT(ChangedOf(driver, "three", "two") == (Runs{{3, 1}}));
    EXPECT(ChangedOf(driver, "one", "") == (Runs{{0, 1}}));
    EXPECT(ChangedOf(driver, "", "one") == (Runs{{3, 1}}));
  });
}

// Where the file of checksums has its copy the larger volume has a page: of a layer with a bad
// block neither is taken for the other.
TEST(replica_sizes, a_bad_block_of_a_shorter_layer_stays_bad) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor, CacheMode::kBuffered, 8 * kMiB);
    auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
    WriteRecord(*driver);
    Model model(8 * kMiB);
    model.Put(*driver, 0, Text(65536, 'a'));
    ASSERT(driver->Do(OperationKind::kBad, 8192, 4096) == ErrorCode::kOk);
    ASSERT(Snapshot(*driver, "one") == ErrorCode::kOk);
    model.Grow(*driver, 24 * kMiB);
    ASSERT(Snapshot(*driver, "two") == ErrorCode::kOk);
    const auto check = [&] {
      EXPECT(Read(*driver, 8 * kMiB, kMiB) == std::string(kMiB, '\0'));
      Read(*driver, 8192, 4096, ErrorCode::kCorrupt);
      for (const char* name : {"one", "two"}) {
        const uint16_t view = OpenView(*driver, name);
        if (view == 0) continue;
        ReadView(*driver, view, 8192, 4096, ErrorCode::kCorrupt);
        EXPECT(ReadView(*driver, view, 8 * kMiB, 65536) == std::string(65536, '\0'));
      }
      driver->replica().CloseViews(driver.get());
      EXPECT_EQ(driver->replica().sum_counters().pages_damaged, uint64_t{0});
      // A mark beside data behind the old end is made of what all files say.
      std::string data = Text(4096, 'x');
      ASSERT(driver->Do(OperationKind::kWrite, 9 * kMiB, 4096, data.data()) == ErrorCode::kOk);
      ASSERT(driver->Do(OperationKind::kBad, 8 * kMiB + 4096, 4096) == ErrorCode::kOk);
      Read(*driver, 8 * kMiB + 4096, 4096, ErrorCode::kCorrupt);
      EXPECT(Read(*driver, 8 * kMiB, 4096) == std::string(4096, '\0'));
      Write(*driver, 8 * kMiB + 4096, std::string(4096, '\0'));
      EXPECT(Read(*driver, 9 * kMiB, 4096) == data);
    };
    check();
    driver = nullptr;
    driver = std::make_unique<Driver>(place.files, reactor, place.directory);
    ASSERT_OK(driver->status());
    check();
    // Merged into one of the larger size, too.
    ASSERT(AboutLayer(*driver, OperationKind::kDelete, "one") == ErrorCode::kOk);
    ASSERT(MergeAll(*driver) > 3);
    EXPECT_EQ(BytesOf(place, LayerPath(place, "two") + ".crc"), SumBytes(24 * kMiB));
    Read(*driver, 8192, 4096, ErrorCode::kCorrupt);
    driver = nullptr;
    driver = std::make_unique<Driver>(place.files, reactor, place.directory);
    Read(*driver, 8192, 4096, ErrorCode::kCorrupt);
    EXPECT(Read(*driver, 12288, 4096) == Text(65536, 'a').substr(12288, 4096));
  });
}

// --- what was prepared
// ----------------------------------------------------------------------------

TEST(replica_sizes, what_was_prepared_is_of_no_use_when_the_volume_has_grown) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const uint64_t size : kSizes) {
      Place place(reactor, CacheMode::kBuffered, size);
      auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      WriteRecord(*driver);
      Model model(size);
      model.Put(*driver, size - 4096, Text(4096, 'a'));
      ASSERT(Prepare(*driver, "one") == ErrorCode::kOk);
      model.Grow(*driver, kLarger);
      for (const std::string& name : place.files.List(place.directory).Take()) {
        EXPECT(name.find("snap-one") == std::string::npos);
        EXPECT(name.find("head-001") == std::string::npos);
      }
      EXPECT_EQ(Switch(*driver, "one"), ErrorCode::kInvalidArgument);
      model.Put(*driver, size - 1024, Text(4096, 'b'));
      model.Take(*driver, "one");
      model.Put(*driver, kLarger - 4096, Text(4096, 'c'));
      model.ExpectIn(*driver);
      EXPECT_EQ(BytesOf(place, LayerPath(place, "one")), kLarger);
      driver = nullptr;
      driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      ASSERT_OK(driver->status());
      model.ExpectIn(*driver);
    }
  });
}

// All in one turn: what was asked first comes first.
TEST(replica_sizes, nothing_is_prepared_while_the_volume_grows) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const uint64_t size : kSizes) {
      Place place(reactor, CacheMode::kBuffered, size);
      Driver driver(place.files, reactor, place.directory);
      WriteRecord(driver);
      Model model(size);
      model.Put(driver, size - 8192, Text(8192, 'a'));
      ASSERT(Prepare(driver, "one") == ErrorCode::kOk);
      std::map<OperationKind, ErrorCode> outcomes;
      ReplicaOperation& record = driver.Add(OperationKind::kRecord);
      record.record = NextRecord(driver, "one");
      record.welcomed = record.record.current.epoch;
      driver.Add(OperationKind::kExpand).size_bytes = kLarger;
      ReplicaOperation& prepare = driver.Add(OperationKind::kPrepare);
      prepare.layer = "two";
      std::string data = Text(4096, 'b');
      driver.Add(OperationKind::kWrite, 0, 4096, data.data());
      driver.on_done = [&](ReplicaOperation* self) { outcomes[self->kind] = self->status; };
      driver.Run();
      EXPECT_EQ(outcomes[OperationKind::kRecord], ErrorCode::kOk);
      EXPECT_EQ(outcomes[OperationKind::kPrepare], ErrorCode::kBusy);
      EXPECT_EQ(outcomes[OperationKind::kWrite], ErrorCode::kOk);
      // An end within a block waits for the seal.
      const bool odd = size % kBlockBytes != 0;
      EXPECT_EQ(outcomes[OperationKind::kExpand], odd ? ErrorCode::kBusy : ErrorCode::kOk);
      ASSERT(AboutLayer(driver, OperationKind::kSeal, "one") == ErrorCode::kOk);
      if (odd) EXPECT_EQ(Expand(driver, kLarger), ErrorCode::kOk);
      EXPECT_EQ(driver.replica().size_bytes(), kLarger);
      EXPECT_EQ(BytesOf(place, LayerPath(place, "one")), size);
      EXPECT(Read(driver, 0, 4096) == data);
      EXPECT(SnapshotHolds(driver, "one", model.head));
      ASSERT(Snapshot(driver, "two") == ErrorCode::kOk);
    }
  });
}

// What was made room for and found none on the disk is more than what follows needs.
TEST(replica_sizes, a_smaller_expansion_follows_one_that_failed) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const uint64_t size : kSizes) {
      Place place(reactor, CacheMode::kBuffered, size);
      Driver driver(place.files, reactor, place.directory);
      WriteRecord(driver);
      Model model(size);
      model.Put(driver, size - 8192, Text(8192, 'a'));
      model.Take(driver, "one");
      place.files.full = true;
      EXPECT_EQ(Expand(driver, 16 * kGiB), ErrorCode::kNoSpace);
      place.files.full = false;
      model.ExpectIn(driver);
      model.Grow(driver, kLarger);
      model.Put(driver, kLarger - 4096, Text(4096, 'b'));
      model.Take(driver, "two");
      model.ExpectIn(driver);
      ASSERT_OK(driver.Close(true));
      Driver again(place.files, reactor, place.directory);
      ASSERT_OK(again.status());
      model.ExpectIn(again);
    }
  });
}

// --- crashes

// Cut at each I/O of an expansion of a replica with layers and something prepared: it is of the one
// size or the other, and the next snapshot's layer is exactly as large as the volume.
TEST(replica_sizes, an_expansion_that_is_cut_short_leaves_layers_of_a_size) {
  OnEpoll([](io::Reactor& reactor) {
    for (const uint64_t size : kSizes) {
      bool done = false;
      int cut = 1;
      for (; !done; cut += test::kStride) {
        Place place(reactor, CacheMode::kBuffered, size);
        auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
        WriteRecord(*driver);
        Model model(size);
        model.Put(*driver, size - 40960, Text(40960, 'a'));
        model.Take(*driver, "zero");
        model.Put(*driver, size - 1024, Text(1024, 'b'));
        model.Free(*driver, size - 32768 - size % kBlockBytes, 8192);
        ASSERT(Prepare(*driver, "one") == ErrorCode::kOk);
        place.files.Reset(cut);
        done = Expand(*driver, kLarger) == ErrorCode::kOk;
        EXPECT(done != place.files.reached());
        place.files.Reset(0);
        // The same process goes on, or another.
        if (cut % 2 == 0 || driver->replica().sync_failed()) {
          driver = nullptr;
          driver = std::make_unique<Driver>(place.files, reactor, place.directory);
          ASSERT_OK(driver->status());
        }
        const uint64_t found = driver->replica().size_bytes();
        EXPECT(found == kLarger || (found == size && !done));
        model.head.resize(found);
        model.ExpectIn(*driver);
        model.Take(*driver, "one");
        EXPECT_EQ(BytesOf(place, LayerPath(place, "one")), found);
        EXPECT_EQ(BytesOf(place, LayerPath(place, "zero")), size);
        model.Grow(*driver, kLarger + kMiB);
        model.Put(*driver, size - 2048, Text(8192, 'c'));
        model.Take(*driver, "two");
        model.ExpectIn(*driver);
        driver = nullptr;
        driver = std::make_unique<Driver>(place.files, reactor, place.directory);
        ASSERT_OK(driver->status());
        model.ExpectIn(*driver);
      }
      EXPECT(cut > 15);
    }
  });
}

// The lower layer gets the upper one's size, cut at each I/O.
TEST(replica_sizes, a_merge_of_two_sizes_that_is_cut_short_goes_on) {
  OnEpoll([](io::Reactor& reactor) {
    for (const std::string gone : {"one", "zero"}) {
      // Of the sizes that are merged alike each cut is one's.
      int first = 1;
      for (const uint64_t size : kSizes) {
        bool done = false;
        int cut = first++;
        for (; !done; cut += 3 * test::kStride) {
          Place place(reactor, CacheMode::kBuffered, size);
          auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
          Model model = MakeTwoSizes(*driver, size);
          if (gone == "zero") {
            // With what it is merged into at once, it is the bottom.
            ASSERT(AboutLayer(*driver, OperationKind::kDelete, "one") == ErrorCode::kOk);
            model.snapshots.erase("one");
            ASSERT(MergeAll(*driver) > 3);
            EXPECT_EQ(BytesOf(place, LayerPath(place, "two")), kLarger);
          }
          ASSERT(AboutLayer(*driver, OperationKind::kDelete, gone) == ErrorCode::kOk);
          model.snapshots.erase(gone);
          place.files.torn_bytes = 700;
          place.files.Reset(cut);
          done = MergeAll(*driver) > 0;
          EXPECT(done != place.files.reached());
          place.files.Reset(0);
          EXPECT(driver->Holds(model.head));
          if (cut / 3 % 2 == 0) ASSERT(MergeAll(*driver) > 0);
          driver = nullptr;
          driver = std::make_unique<Driver>(place.files, reactor, place.directory);
          ASSERT_OK(driver->status());
          model.ExpectIn(*driver);
          ASSERT(MergeAll(*driver) > 0);
          EXPECT_EQ(BytesOf(place, LayerPath(place, "two")), kLarger);
          EXPECT_EQ(BytesOf(place, LayerPath(place, "two") + ".crc"), SumBytes(kLarger));
          driver = nullptr;
          driver = std::make_unique<Driver>(place.files, reactor, place.directory);
          ASSERT_OK(driver->status());
          model.ExpectIn(*driver);
        }
        EXPECT(cut > 20);
      }
    }
  });
}

// The copy behind the last page of checksums lies where the larger layer has a page: neither is
// taken for the other, wherever the merge is cut.
TEST(replica_sizes, a_merge_of_two_sizes_keeps_what_is_bad) {
  OnEpoll([](io::Reactor& reactor) {
    bool done = false;
    int cut = 1;
    for (; !done; cut += test::kStride) {
      Place place(reactor, CacheMode::kBuffered, 8 * kMiB);
      auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      WriteRecord(*driver);
      Write(*driver, 0, Text(65536, 'a'));
      ASSERT(driver->Do(OperationKind::kBad, 8192, 4096) == ErrorCode::kOk);
      ASSERT(Snapshot(*driver, "zero") == ErrorCode::kOk);
      ASSERT(Expand(*driver, kLarger) == ErrorCode::kOk);
      Write(*driver, 4096, Text(4096, 'b'));
      ASSERT(Snapshot(*driver, "one") == ErrorCode::kOk);
      ASSERT(AboutLayer(*driver, OperationKind::kDelete, "zero") == ErrorCode::kOk);
      place.files.Reset(cut);
      done = MergeAll(*driver) > 0;
      place.files.Reset(0);
      for (int round = 0; round < 2; ++round) {
        driver = nullptr;
        driver = std::make_unique<Driver>(place.files, reactor, place.directory);
        ASSERT_OK(driver->status());
        Read(*driver, 8192, 4096, ErrorCode::kCorrupt);
        EXPECT(Read(*driver, 4096, 4096) == Text(4096, 'b'));
        EXPECT(Read(*driver, 12288, 4096) == Text(65536, 'a').substr(12288, 4096));
        EXPECT(Read(*driver, 8 * kMiB, kMiB) == std::string(kMiB, '\0'));
        const uint16_t view = OpenView(*driver, "one");
        ReadView(*driver, view, 8192, 4096, ErrorCode::kCorrupt);
        EXPECT(ReadView(*driver, view, 4096, 4096) == Text(4096, 'b'));
        driver->replica().CloseViews(driver.get());
        EXPECT_EQ(driver->replica().sum_counters().pages_damaged, uint64_t{0});
        ASSERT(MergeAll(*driver) > 0);
      }
    }
    EXPECT(cut > 20);
  });
}

// --- an end within a block
// ------------------------------------------------------------------------

// The checksum of that block is of another length afterwards: nobody reads or writes it meanwhile.
TEST(replica_sizes, an_end_within_a_block_waits_for_what_is_under_way) {
  OnEpoll([](io::Reactor& real) {
    constexpr uint64_t kOdd = 8 * kMiB + 512;
    Place place(real, CacheMode::kBuffered, kOdd);
    HoldingReactor reactor(real);
    Driver driver(place.files, reactor, place.directory);
    WriteRecord(driver);
    Write(driver, kOdd - 512, Text(512, 'a'));
    const auto done = [](ReplicaOperation* self) { *static_cast<bool*>(self->owner) = true; };
    std::string data = Text(512, 'b');
    bool written = false;
    ReplicaOperation write;
    write.kind = OperationKind::kWrite;
    write.offset_bytes = kOdd - 512;
    write.length_bytes = 512;
    write.data = reinterpret_cast<std::byte*>(data.data());
    write.owner = &written;
    write.done = done;
    bool expanded = false;
    ReplicaOperation expand;
    expand.kind = OperationKind::kExpand;
    expand.size_bytes = kLarger;
    expand.owner = &expanded;
    expand.done = done;
    reactor.hold = true;
    driver.replica().Submit(&write);
    driver.replica().Submit(&expand);
    reactor.LoopFor(300);
    EXPECT(!written && !expanded);
    EXPECT_EQ(driver.replica().size_bytes(), kOdd);
    reactor.Release();
    for (int i = 0; i < 100 && !expanded; ++i) reactor.LoopFor(50);
    ASSERT(written && expanded);
    EXPECT_EQ(write.status, ErrorCode::kOk);
    EXPECT_EQ(expand.status, ErrorCode::kOk);
    EXPECT(Read(driver, kOdd - 512, 4096) == data + std::string(3584, '\0'));
    EXPECT_EQ(driver.replica().sum_counters().errors, uint64_t{0});
  });
}

TEST(replica_sizes, an_end_within_a_block_waits_for_a_merge) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const uint64_t size : kSizes) {
      Place place(reactor, CacheMode::kBuffered, size);
      Driver driver(place.files, reactor, place.directory);
      WriteRecord(driver);
      Model model(size);
      model.Put(driver, size - 8192, Text(8192, 'a'));
      ASSERT(Snapshot(driver, "zero") == ErrorCode::kOk);
      model.Take(driver, "one");
      ASSERT(AboutLayer(driver, OperationKind::kDelete, "zero") == ErrorCode::kOk);
      ASSERT(driver.Do(OperationKind::kMerge) == ErrorCode::kOk);  // begins it
      const bool odd = size % kBlockBytes != 0;
      EXPECT_EQ(Expand(driver, kLarger), odd ? ErrorCode::kBusy : ErrorCode::kOk);
      ASSERT(MergeAll(driver) > 3);
      model.Grow(driver, kLarger);
      model.ExpectIn(driver);
    }
  });
}

// --- at random
// ------------------------------------------------------------------------------------

// Everything at random: writes, snapshots, deletions, merges and expansions, the last two cut
// anywhere, and processes that die in between.
TEST(replica_sizes, a_random_history_agrees_with_plain_arrays) {
  OnEpoll([](io::Reactor& reactor) {
    std::mt19937_64 random(test::Seed() + 4);
    int expansions = 0;
    for (const uint64_t unit : {uint64_t{kBlockBytes}, uint64_t{kSectorBytes}}) {
      Place place(reactor, CacheMode::kBuffered, 5 * kMiB + unit);
      Model model(5 * kMiB + unit);
      auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      WriteRecord(*driver);
      const auto reopen = [&] {
        place.files.Reset(0);
        driver = nullptr;
        driver = std::make_unique<Driver>(place.files, reactor, place.directory);
        ASSERT_OK(driver->status());
      };
      for (int step = 0; step < 90 / test::kShare; ++step) {
        for (int i = 0; i < 4; ++i) {
          const uint64_t sectors = model.head.size() / kSectorBytes;
          // Around the end, or anywhere.
          const uint64_t from = random() % 3 == 0 ? sectors - std::min<uint64_t>(sectors, 64) : 0;
          const uint64_t sector = from + random() % (sectors - from);
          const uint64_t bytes =
              kSectorBytes * std::min<uint64_t>(sectors - sector, 1 + random() % 200);
          if (random() % 3 == 0) {
            model.Free(*driver, sector * kSectorBytes, bytes);
          } else {
            std::string data(bytes, '\0');
            for (char& c : data) c = static_cast<char>('a' + random() % 26);
            model.Put(*driver, sector * kSectorBytes, data);
          }
        }
        const uint64_t what = random() % 12;
        if (what < 4) {
          model.Take(*driver, "s" + std::to_string(step));
        } else if (what < 6 && !model.snapshots.empty()) {
          auto one = model.snapshots.begin();
          std::advance(one, static_cast<ptrdiff_t>(random() % model.snapshots.size()));
          ASSERT(AboutLayer(*driver, OperationKind::kDelete, one->first) == ErrorCode::kOk);
          model.snapshots.erase(one);
        } else if (what < 9) {
          const uint64_t before = model.head.size();
          const uint64_t wanted = before + unit * (1 + random() % (3 * kMiB / unit));
          if (random() % 3 == 0) EXPECT_EQ(Prepare(*driver, "never"), ErrorCode::kOk);
          const bool cut = random() % 2 == 0;
          if (cut) place.files.Reset(1 + static_cast<int>(random() % 30));
          const ErrorCode outcome = Expand(*driver, wanted);
          if (cut) reopen();
          const uint64_t found = driver->replica().size_bytes();
          const bool busy = outcome == ErrorCode::kBusy && before % kBlockBytes != 0;
          ASSERT(found == wanted || (found == before && (cut || busy)));
          expansions += found == wanted ? 1 : 0;
          model.head.resize(found);
        } else if (what == 9) {
          reopen();
        }
        if (random() % 4 == 0) {
          place.files.Reset(1 + static_cast<int>(random() % 60));
          (void)MergeAll(*driver);
          reopen();
        } else if (random() % 2 == 0) {
          ASSERT(driver->Do(OperationKind::kMerge) == ErrorCode::kOk);
        }
        if (step % 8 == 0) {
          model.ExpectIn(*driver);
        } else {
          ASSERT(driver->Holds(model.head));
        }
      }
      ASSERT(MergeAll(*driver) > 0);
      model.ExpectIn(*driver);
      ASSERT_OK(driver->Close(true));
      driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      ASSERT_OK(driver->status());
      model.ExpectIn(*driver);
    }
  });
}

}  // namespace
}  // namespace ankole::replica::testing
