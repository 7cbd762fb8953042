#include <map>
#include <random>
#include <set>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "io/reactor_testing.h"
#include "replica/replica_testing.h"

// Rule 5 at one replica: dirty before data, and what a replica that is away misses.
namespace ankole::replica {
namespace {

// Four sectors of the maps' file, the last one short.
constexpr uint64_t kSize = 6 * kGiB + 20 * kMiB + 512;
constexpr uint32_t kRegions = 1542;
constexpr wire::ReplicaId kMe = 0xa1;  // TestIdentity's

using enum OperationKind;

wire::Record ARecord(uint64_t generation, std::initializer_list<wire::ReplicaId> members) {
  wire::Record record;
  record.epoch = {1, 1};
  record.generation = generation;
  for (const wire::ReplicaId id : members) record.members.Add(id);
  return record;
}

uint64_t At(uint32_t region) { return region * kRegionBytes; }

class Maps : public Driver {
 public:
  using Driver::Driver;

  ErrorCode Write(uint32_t region, char fill = 'w') {
    std::fill(data_.begin(), data_.end(), fill);
    return Do(kWrite, At(region) + 8192, 4096, data_.data());
  }
  bool Has(uint32_t region, char fill = 'w') {
    std::string got(4096, '?');
    EXPECT_EQ(Do(kRead, At(region) + 8192, 4096, got.data()), ErrorCode::kOk);
    return got == std::string(4096, fill);
  }
  ErrorCode Clean(uint32_t region, const wire::Record& record,
                  std::initializer_list<wire::ReplicaId> ids = {}, uint32_t count = 1) {
    ReplicaOperation& operation = Add(kClean, At(region), count * kRegionBytes);
    operation.clean.epoch = record.epoch;
    operation.clean.generation = record.generation;
    for (const wire::ReplicaId id : ids) operation.clean.ids.Add(id);
    return Run();
  }
  ErrorCode Propose(const wire::Record& current, const wire::Record& complete,
                    bool resynced = false) {
    ReplicaOperation& operation = Add(kRecord);
    operation.record = {current, complete};
    operation.welcomed = current.epoch;
    operation.resynced = resynced;
    return Run();
  }
  ErrorCode Mark(const std::vector<wire::RegionRun>& runs, OperationKind kind = kMark,
                 const wire::MissingRequest& missing = {}) {
    std::byte bytes[kControlPayloadBytesMax];
    const size_t size = wire::EncodeRegionRuns(runs, bytes);
    ReplicaOperation& operation = Add(kind);
    operation.runs = wire::RegionRuns::Decode({bytes, size}).Take();
    operation.missing = missing;
    return Run();
  }
  ErrorCode SetMissing(wire::ReplicaId id, const wire::Record& record,
                       const std::vector<wire::RegionRun>& runs) {
    return Mark(runs, kMissing, {id, wire::MissingRequest::What::kSet, record});
  }
  ErrorCode FreeMissing(wire::ReplicaId id) {
    return Mark({}, kMissing, {id, wire::MissingRequest::What::kFree, {}});
  }

  std::set<uint32_t> Dirty() { return Collect(kDirtyBit); }
  // Of a replica that is away; it has a map.
  std::set<uint32_t> Missing(wire::ReplicaId id) {
    const int slot = replica().regions().FindSlot(id);
    EXPECT(slot >= 0);
    return slot < 0 ? std::set<uint32_t>{} : Collect(MissingBit(slot));
  }
  bool HasMap(wire::ReplicaId id) { return replica().regions().FindSlot(id) >= 0; }
  wire::Record NameOf(wire::ReplicaId id) {
    const int slot = replica().regions().FindSlot(id);
    return slot < 0 ? wire::Record{} : replica().regions().slots()[slot].record;
  }

 private:
  static constexpr size_t kData = 4096;
  std::set<uint32_t> Collect(uint8_t bit) {
    std::vector<wire::RegionRun> runs(kRegions);
    runs.resize(replica().regions().Collect(bit, 0, runs.data(), runs.size()));
    std::set<uint32_t> regions;
    for (const wire::RegionRun& run : runs) {
      for (uint32_t i = 0; i < run.count; ++i) regions.insert(run.first + i);
    }
    EXPECT_EQ(regions.size(), replica().regions().Count(bit));
    return regions;
  }
  std::string data_ = std::string(kData, '\0');
};

void OnFreshReplica(const std::function<void(CutFiles&, io::Reactor&, const std::string&)>& body) {
  io::OnEachBackend([&](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    const std::string directory = test::TemporaryDirectory() + "/demo-00000000000000a1";
    ASSERT_OK(Replica::Create(files, directory, TestIdentity(), kSize));
    body(files, reactor, directory);
  });
}

bool Covers(const std::set<uint32_t>& all, const std::set<uint32_t>& some) {
  return std::includes(all.begin(), all.end(), some.begin(), some.end());
}

// --- marks

TEST(replica_regions, data_is_written_after_its_mark_is_durable) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    FaultyReactor watching(reactor);
    Maps driver(files, watching, directory);
    ASSERT_OK(driver.status());
    EXPECT_EQ(driver.Write(0), ErrorCode::kOk);
    files.syncs = 0;
    files.hold_sync = true;
    bool written = false;
    watching.on_write = [&](const io::FileOperation&) {
      EXPECT(!files.hold_sync && files.syncs >= 1);
      written = true;
    };
    io::Timer release;
    release.owner = &files;
    release.done = [](io::Operation* timer) {
      static_cast<CutFiles*>(timer->owner)->hold_sync = false;
    };
    reactor.Arm(&release, reactor.NowNs() + 20 * kNsPerMs);
    EXPECT_EQ(driver.Write(900), ErrorCode::kOk);
    EXPECT(written);
    // And once it is marked, without any sync.
    files.syncs = 0;
    watching.on_write = nullptr;
    EXPECT_EQ(driver.Write(900), ErrorCode::kOk);
    EXPECT_EQ(files.syncs.load(), 0);
    EXPECT(driver.Dirty() == (std::set<uint32_t>{0, 900}));
  });
}

TEST(replica_regions, a_crash_at_any_point_leaves_all_that_was_written_dirty) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    for (const size_t torn_bytes : {0, 200}) {
      files.torn_bytes = torn_bytes;
      bool done = false;
      for (int cut = 1; !done; ++cut) {
        (void)files.Remove(directory + "/failed").ok();
        const char fill = static_cast<char>('A' + cut % 26);
        std::set<uint32_t> answered;
        {
          Maps driver(files, reactor, directory);
          ASSERT_OK(driver.status());
          files.Reset(cut);
          std::string data(8192, fill);
          // Across a border, in other sectors, and the volume's last region.
          driver.Add(kWrite, At(496) - 4096, 8192, data.data());
          driver.Add(kWrite, At(700), 4096, data.data());
          driver.Add(kZero, At(1000), 3 * kRegionBytes).keep_allocated = true;
          driver.Add(kWrite, kSize - 512, 512, data.data());
          done = driver.Run() == ErrorCode::kOk;
          driver.Drop();
        }
        files.Reset(0);
        Maps again(files, reactor, directory);
        ASSERT_OK(again.status());
        const std::set<uint32_t> dirty = again.Dirty();
        const auto written = [&](uint64_t at) {
          std::string got(512, '?');
          EXPECT_EQ(again.Do(kRead, at, 512, got.data()), ErrorCode::kOk);
          return got == std::string(512, fill);
        };
        if (written(At(496) - 4096)) EXPECT(dirty.contains(495));
        if (written(At(496))) EXPECT(dirty.contains(496));
        if (written(At(700))) EXPECT(dirty.contains(700));
        if (written(kSize - 512)) EXPECT(dirty.contains(kRegions - 1));
        if (done) EXPECT(Covers(dirty, {495, 496, 700, 1000, 1001, 1002, kRegions - 1}));
        EXPECT(again.replica().unclean() || dirty.empty());
        // From nothing dirty again.
        if (!done) ASSERT_OK(again.Close(!again.replica().suspect()));
      }
    }
  });
}

TEST(replica_regions, all_that_wait_are_marked_by_one_sync) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    Maps driver(files, reactor, directory);
    std::string data(4096, 'x');
    EXPECT_EQ(driver.Write(0), ErrorCode::kOk);
    files.syncs = 0;
    for (uint32_t i = 0; i < 200; ++i) driver.Add(kWrite, At(7 * i + 2), 4096, data.data());
    EXPECT_EQ(driver.Run(), ErrorCode::kOk);
    // The first has one of its own, the others share the next.
    EXPECT(files.syncs <= 2);
    EXPECT_EQ(driver.Dirty().size(), 201U);
  });
}

TEST(replica_regions, a_sequential_writer_is_marked_ahead) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Write(450), ErrorCode::kOk);
      files.syncs = 0;
      for (uint32_t region = 451; region < 515; ++region) {
        EXPECT_EQ(driver.Write(region), ErrorCode::kOk);
      }
      EXPECT(files.syncs <= 8);
      // Those it never came to are no dirty ones.
      EXPECT_EQ(driver.Dirty().size(), 65U);
    }
    Maps driver(files, reactor, directory);
    EXPECT(driver.Dirty().size() >= 65 && driver.Dirty().size() <= 65 + 8);
    EXPECT_EQ(*driver.Dirty().begin(), 450U);
  });
}

TEST(replica_regions, marks_of_the_engine_are_durable_and_of_any_size) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    std::vector<wire::RegionRun> runs;
    for (uint32_t region = 1; region + 1 < kRegions; region += 3) runs.push_back({region, 2});
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Mark(runs), ErrorCode::kOk);
      EXPECT_EQ(driver.Dirty().size(), 2 * runs.size());
      EXPECT_EQ(driver.Mark({{kRegions - 1, 2}}), ErrorCode::kOutOfRange);
      EXPECT_EQ(driver.Mark({}), ErrorCode::kOk);
    }
    Maps driver(files, reactor, directory);
    EXPECT_EQ(driver.Dirty().size(), 2 * runs.size());
    EXPECT(driver.replica().unclean() && !driver.replica().fresh());
  });
}

TEST(replica_regions, a_mark_that_fails_lets_nothing_in) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    Maps driver(files, reactor, directory);
    EXPECT_EQ(driver.Write(3), ErrorCode::kOk);
    files.Reset(1);
    EXPECT_EQ(driver.Write(4), ErrorCode::kIoError);
    files.Reset(0);
    EXPECT(!driver.Has(4));
    EXPECT(!driver.replica().sync_failed());
    EXPECT_EQ(driver.Write(4), ErrorCode::kOk);
    EXPECT(driver.Has(4));
    // A failed sync is latched as any.
    files.fail_sync = true;
    EXPECT_EQ(driver.Write(5), ErrorCode::kIoError);
    files.fail_sync = false;
    EXPECT(driver.replica().sync_failed() && files.Info(directory + "/failed").ok());
    EXPECT_EQ(driver.Write(3), ErrorCode::kSuspect);
  });
}

// --- cleaning

TEST(replica_regions, what_was_cleaned_leaves_the_disk_later) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    const wire::Record record = ARecord(1, {kMe});
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Propose(record, record), ErrorCode::kOk);
      for (const uint32_t region : {1U, 2U, 800U}) {
        EXPECT_EQ(driver.Write(region), ErrorCode::kOk);
      }
      files.syncs = 0;
      EXPECT_EQ(driver.Clean(0, record, {}, 2), ErrorCode::kOk);
      EXPECT(driver.Dirty() == (std::set<uint32_t>{2, 800}));
      // It comes back without I/O.
      EXPECT_EQ(driver.Write(1), ErrorCode::kOk);
      EXPECT_EQ(files.syncs.load(), 0);
      EXPECT(driver.Dirty() == (std::set<uint32_t>{1, 2, 800}));
      EXPECT_EQ(driver.Clean(0, record, {}, kRegions + 100), ErrorCode::kOk);
      EXPECT(driver.Dirty().empty());
    }
    {
      Maps driver(files, reactor, directory);  // a bit too many
      EXPECT(Covers(driver.Dirty(), {1, 2, 800}));
      EXPECT_EQ(driver.Clean(1, record), ErrorCode::kOk);
      EXPECT_EQ(driver.Do(kTidy), ErrorCode::kOk);
      files.syncs = 0;
      EXPECT_EQ(driver.Write(1), ErrorCode::kOk);
      EXPECT(files.syncs > 0);
      EXPECT_EQ(driver.Clean(1, record), ErrorCode::kOk);
      EXPECT_EQ(driver.Do(kTidy), ErrorCode::kOk);
    }
    Maps driver(files, reactor, directory);
    EXPECT(!driver.Dirty().contains(1) && Covers(driver.Dirty(), {2, 800}));
  });
}

TEST(replica_regions, a_region_is_cleaned_under_the_complete_record_only) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    const wire::Record first = ARecord(1, {kMe, 0xb});
    const wire::Record second = ARecord(2, {kMe, 0xb, 0xc});
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Clean(1, {}), ErrorCode::kInvalidArgument);  // no record at all
      EXPECT_EQ(driver.Propose(first, first), ErrorCode::kOk);
      EXPECT_EQ(driver.Propose(second, first), ErrorCode::kOk);
      EXPECT_EQ(driver.Write(1), ErrorCode::kOk);
      EXPECT_EQ(driver.Clean(1, first), ErrorCode::kInvalidArgument);
      wire::Record later = second;
      later.epoch.run = 2;
      EXPECT_EQ(driver.Clean(1, later), ErrorCode::kInvalidArgument);
      EXPECT(driver.Dirty().contains(1));
      // It cannot note that the record is complete: nothing goes.
      files.Reset(1);
      EXPECT_EQ(driver.Clean(1, second), ErrorCode::kIoError);
      files.Reset(0);
      EXPECT(driver.Dirty().contains(1));
      EXPECT(driver.replica().record().complete == first);
      EXPECT_EQ(driver.Clean(1, second), ErrorCode::kOk);
      EXPECT(driver.Dirty().empty());
    }
    Maps driver(files, reactor, directory);
    EXPECT(driver.replica().record().complete == second);
    EXPECT(driver.replica().record().current == second);
  });
}

TEST(replica_regions, a_clean_stop_leaves_nothing_dirty_and_what_others_miss) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    bool done = false;
    for (int cut = 1; !done; ++cut) {
      (void)Replica::Destroy(files, directory).ok();
      ASSERT_OK(Replica::Create(files, directory, TestIdentity(), kSize));
      const wire::Record both = ARecord(1, {kMe, 0xb});
      const wire::Record alone = ARecord(2, {kMe});
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Propose(both, both), ErrorCode::kOk);
      EXPECT_EQ(driver.Propose(alone, both), ErrorCode::kOk);
      EXPECT_EQ(driver.Write(5), ErrorCode::kOk);
      EXPECT_EQ(driver.Write(1500), ErrorCode::kOk);
      files.Reset(cut);
      done = driver.Close(true).ok();
      files.Reset(0);
      Maps again(files, reactor, directory);
      ASSERT_OK(again.status());
      EXPECT(Covers(again.Missing(0xb), {5, 1500}));
      if (!done) continue;
      EXPECT(again.Dirty().empty() && !again.replica().unclean());
      EXPECT(again.Missing(0xb) == (std::set<uint32_t>{5, 1500}));
      EXPECT_EQ(Replica::Describe(files, directory).value().dirty_regions, 0U);
    }
  });
}

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
  });
}

// --- damage, and replicas without maps

TEST(replica_regions, without_a_map_all_is_dirty_and_nothing_is_lost) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    {
      Maps driver(files, reactor, directory);
      EXPECT(driver.replica().fresh() && driver.replica().region_damage().empty());
      EXPECT_EQ(driver.Write(9), ErrorCode::kOk);
      EXPECT(!driver.replica().fresh());
      ASSERT_OK(driver.Close(true));
    }
    ASSERT_OK(files.Remove(directory + "/regions"));
    {
      Maps driver(files, reactor, directory);
      ASSERT_OK(driver.status());
      EXPECT(driver.replica().region_damage().find("no map") != std::string::npos);
      EXPECT_EQ(driver.Dirty().size(), kRegions);
      EXPECT(driver.replica().unclean() && driver.Has(9));
      ASSERT_OK(driver.Close(true));
    }
    {
      Maps driver(files, reactor, directory);
      EXPECT(driver.Dirty().empty() && driver.replica().region_damage().empty());
    }
    WriteText(files, directory + "/regions", std::string(3 * 4096, 'x'));
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Dirty().size(), kRegions);
      EXPECT(!driver.replica().region_damage().empty());
      ASSERT_OK(driver.Close(true));
    }
    // Longhorn wrote to the layers and to no map.
    std::string meta =
        io::ReadWholeFile(files, directory + "/volume.meta", kMetadataBytesMax).Take();
    meta.replace(meta.find("\"Dirty\":false"), 13, "\"Dirty\":true");
    WriteText(files, directory + "/volume.meta", meta);
    Maps driver(files, reactor, directory);
    EXPECT_EQ(driver.Dirty().size(), kRegions);
  });
}

TEST(replica_regions, a_bad_sector_is_dirty_and_missing_and_heals) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    const wire::Record both = ARecord(1, {kMe, 0xb});
    const wire::Record alone = ARecord(2, {kMe});
    {
      Maps driver(files, reactor, directory);
      EXPECT_EQ(driver.Propose(both, both), ErrorCode::kOk);
      EXPECT_EQ(driver.Propose(alone, both), ErrorCode::kOk);
      EXPECT_EQ(driver.Write(600), ErrorCode::kOk);
    }
    const auto file = files.Open(directory + "/regions", {.write = true});
    ASSERT_OK(file);
    const std::string damage = "damage";
    ASSERT_OK(files.WriteAt(file.value(), 2 * kRegionHeaderBytes + kRegionSectorBytes + 20,
                            damage.data(), damage.size()));
    files.Close(file.value());
    for (int time = 0; time < 2; ++time) {
      Maps driver(files, reactor, directory);
      EXPECT(driver.replica().region_damage().find("1 sectors") != std::string::npos);
      EXPECT_EQ(driver.Dirty().size(), kRegionSectorRegions);
      EXPECT(driver.Missing(0xb) == driver.Dirty());
      if (time == 0) continue;
      EXPECT_EQ(driver.Write(500), ErrorCode::kOk);
      EXPECT_EQ(driver.Clean(0, alone, {}, 1000), ErrorCode::kOk);
      EXPECT_EQ(driver.Do(kTidy), ErrorCode::kOk);
    }
    Maps driver(files, reactor, directory);
    EXPECT(driver.replica().region_damage().empty());
    EXPECT(driver.Dirty().empty());
    EXPECT_EQ(driver.Missing(0xb).size(), kRegionSectorRegions);
  });
}

// --- rule 7

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

// --- sums

TEST(replica_regions, sums_are_those_of_what_is_read_and_tell_holes) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    Maps driver(files, reactor, directory);
    std::string data(12'288, '\0');
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 600);
    EXPECT_EQ(driver.Do(kWrite, At(2) + 512, 1024, data.data()), ErrorCode::kOk);
    EXPECT_EQ(driver.Do(kWrite, At(2) + 40'960, 12'288, data.data()), ErrorCode::kOk);
    EXPECT_EQ(driver.Do(kUnmap, At(2) + 45'056, 4096), ErrorCode::kOk);
    std::string zeros(4096, '\0');
    EXPECT_EQ(driver.Do(kWrite, At(2) + 131'072, 4096, zeros.data()), ErrorCode::kOk);
    EXPECT_EQ(driver.Do(kWrite, kSize - 512, 512, data.data()), ErrorCode::kOk);
    std::vector<std::byte> room(kDataBytesMax + kSumScratchBytes);
    const auto sum = [&](uint64_t offset, uint32_t length, std::set<uint32_t> no_holes) {
      ReplicaOperation& operation = driver.Add(kSum, offset, length, room.data());
      operation.sums = room.data() + kDataBytesMax;
      EXPECT_EQ(driver.Run(), ErrorCode::kOk);
      const auto blocks = static_cast<uint32_t>(DivideUp(length, kBlockBytes));
      const Result<wire::Sums> sums =
          wire::Sums::Decode({room.data() + kDataBytesMax, wire::SumsBytes(blocks)}, length);
      ASSERT_OK(sums);
      std::string all(length, '?');
      EXPECT_EQ(driver.Do(kRead, offset, length, all.data()), ErrorCode::kOk);
      for (uint32_t block = 0; block < blocks; ++block) {
        const std::string part = all.substr(size_t{block} * kBlockBytes, kBlockBytes);
        EXPECT_EQ(sums.value().crc32c(block), Crc32c(part.data(), part.size()));
        EXPECT_EQ(sums.value().hole(block), !no_holes.contains(block));
        EXPECT(!sums.value().bad(block));
      }
    };
    sum(At(2), kDataBytesMax, {0, 10, 12, 32});
    sum(At(2) + 49'152, 512, {0});
    sum(At(3), kDataBytesMax, {});
    sum(RoundDown(kSize, kBlockBytes), 512, {0});
    EXPECT_EQ(driver.Do(kUnmap, kSize - 512, 512), ErrorCode::kOk);
    EXPECT_EQ(driver.Do(kSum, 512, 4096, room.data()), ErrorCode::kInvalidArgument);
  });
}

// --- all of it at random

// Writes, cleans, drops and returns of others, and crashes at any I/O: dirty is all that was
// written since it was last clean, missing all that was written since its replica was dropped.
TEST(replica_regions, agree_with_a_model_through_crashes) {
  std::mt19937_64 random(test::Seed());
  OnFreshReplica([&](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    std::set<uint32_t> dirty;                            // at least
    std::map<wire::ReplicaId, std::set<uint32_t>> away;  // whose, and what it misses at least
    wire::Record current = ARecord(1, {kMe, 0xb, 0xc});
    auto driver = std::make_unique<Maps>(files, reactor, directory);
    ASSERT_OK(driver->status());
    ASSERT(driver->Propose(current, current) == ErrorCode::kOk);
    const auto written = [&](uint32_t region) {
      dirty.insert(region);
      for (auto& [id, missing] : away) missing.insert(region);
    };
    for (int step = 0; step < 400; ++step) {
      if (random() % 4 == 0) files.Reset(1 + static_cast<int>(random() % 12));
      const auto region = static_cast<uint32_t>(random() % 24 * 67);
      switch (random() % 8) {
        case 0: {
          const bool all = away.empty() || random() % 2 == 0;
          std::initializer_list<wire::ReplicaId> none = {};
          const auto code = all ? driver->Clean(region, current, {0xb, 0xc})
                                : driver->Clean(region, current, none);
          if (code != ErrorCode::kOk) break;
          dirty.erase(region);
          for (auto& [id, missing] : away) {
            if (all) missing.erase(region);
          }
          break;
        }
        case 1: {
          wire::Record next = current;
          ++next.generation;
          const wire::ReplicaId id = random() % 2 == 0 ? 0xb : 0xc;
          const bool leaves = next.members.Contains(id);
          if (leaves) {
            next.members.Remove(id);
          } else {
            next.members.Add(id);
          }
          if (driver->Propose(next, current) != ErrorCode::kOk) break;
          current = next;
          // A member has no map once a record that has it was answered.
          for (const wire::ReplicaId member : next.members.all()) ASSERT(!driver->HasMap(member));
          if (leaves) {
            away[id] = dirty;
          } else {
            away.erase(id);
          }
          break;
        }
        case 2:
          (void)driver->Do(kTidy);
          break;
        default:
          // An unanswered one may have been written too.
          if (driver->Write(region) == ErrorCode::kOk) written(region);
      }
      const bool crash = files.reached() || random() % 20 == 0;
      if (crash) {
        driver.reset();
        files.Reset(0);
        (void)files.Remove(directory + "/failed").ok();
        driver = std::make_unique<Maps>(files, reactor, directory);
        ASSERT_OK(driver->status());
        // The record that was cut may stand: then its maps must.
        const wire::Record found = driver->replica().record().current;
        for (const wire::ReplicaId id : {wire::ReplicaId{0xb}, wire::ReplicaId{0xc}}) {
          const bool was = current.members.Contains(id);
          const bool is = found.members.Contains(id);
          if (was && !is) away[id] = dirty;
          if (!was && is) away.erase(id);
        }
        current = found;
      }
      files.Reset(0);
      ASSERT(Covers(driver->Dirty(), dirty));
      for (const auto& [id, missing] : away) {
        ASSERT(driver->HasMap(id));
        ASSERT(Covers(driver->Missing(id), missing));
        ASSERT(Covers(driver->Missing(id), driver->Dirty()));
      }
    }
    // No more than what is so, once it is tidied.
    for (uint32_t i = 0; i < 24; ++i) {
      ASSERT(driver->Clean(i * 67, current, {0xb, 0xc}, 24) == ErrorCode::kOk);
    }
    (void)driver->Do(kTidy);
    driver.reset();
    Maps last(files, reactor, directory);
    EXPECT(last.Dirty().empty());
  });
}

}  // namespace
}  // namespace ankole::replica
