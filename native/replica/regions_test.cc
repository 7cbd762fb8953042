#include <map>
#include <random>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "replica/regions_testing.h"

// Rule 5 at one replica: dirty before data.
namespace ankole::replica {
namespace {

using namespace testing;
using enum OperationKind;

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
      EXPECT_EQ(files.syncs.load(), 1);  // of the checksums
      files.syncs = 0;
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
