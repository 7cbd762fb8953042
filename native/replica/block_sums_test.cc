#include <cstring>
#include <memory>

#include "base/crc32c.h"
#include "replica/sums_testing.h"

// Checksums at rest, through a replica (rule 9). Bad blocks: bad_blocks_test.cc.
namespace ankole::replica {
namespace {

using namespace testing;

TEST(block_sums, a_flipped_bit_is_noticed_after_a_clean_stop) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      Write(driver, 0, Text(16384, 'a'));
      Write(driver, 4 * kMiB + 8192, Text(4096, 'b'));
      Write(driver, 8 * kMiB, Text(512, 'c'));
      ASSERT_OK(driver.Close(true));
    }
    FlipBit(place.files, place.head(), 4096 + 77);
    FlipBit(place.files, place.head(), 8 * kMiB + 3);
    Driver driver(place.files, reactor, place.directory);
    EXPECT(driver.replica().has_checksums());
    EXPECT(Read(driver, 0, 4096) == Text(16384, 'a').substr(0, 4096));
    Read(driver, 4096, 4096, ErrorCode::kCorrupt);
    Read(driver, 4096 + 512, 512, ErrorCode::kCorrupt);  // not the damaged part: the block counts
    Read(driver, 0, 16384, ErrorCode::kCorrupt);
    EXPECT(Read(driver, 8192, 8192) == Text(16384, 'a').substr(8192));
    EXPECT(Read(driver, 4 * kMiB + 8192, 4096) == Text(4096, 'b'));
    Read(driver, 8 * kMiB, 512, ErrorCode::kCorrupt);
    EXPECT_EQ(driver.replica().sum_counters().errors, 4U);
    // Written anew it is good.
    Write(driver, 4096, Text(4096, 'd'));
    EXPECT(Read(driver, 4096, 4096) == Text(4096, 'd'));
    ASSERT_OK(driver.Close(true));
    Driver again(place.files, reactor, place.directory);
    EXPECT(Read(again, 4096, 4096) == Text(4096, 'd'));
  });
}

TEST(block_sums, a_bit_that_flips_while_the_region_is_written_is_noticed) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    Write(driver, 0, Text(8192, 'a'));
    FlipBit(place.files, place.head(), 4096 + 77);
    EXPECT(Read(driver, 0, 4096) == Text(8192, 'a').substr(0, 4096));
    Read(driver, 4096, 4096, ErrorCode::kCorrupt);
  });
}

// The table that comes with a write is what is kept: what is damaged on its way to the file is
// noticed.
TEST(block_sums, the_table_of_a_write_is_kept_for_whole_blocks) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    std::string data = Text(12288, 'a');
    uint32_t table[4] = {};
    Crc32cBlocks(data.data(), 512, 12288, table);
    driver.Add(OperationKind::kWrite, 512, 12288, data.data()).checksums = table;
    EXPECT_EQ(driver.Run(), ErrorCode::kOk);
    EXPECT(Read(driver, 512, 12288) == data);
    data[5000] ^= 1;  // after the table was made
    driver.Add(OperationKind::kWrite, 512, 12288, data.data()).checksums = table;
    EXPECT_EQ(driver.Run(), ErrorCode::kOk);
    Read(driver, 4096, 4096, ErrorCode::kCorrupt);
    EXPECT(Read(driver, 512, 3584) == data.substr(0, 3584));
  });
}

TEST(block_sums, a_read_tells_the_checksums_that_it_computed) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    Write(driver, 0, Text(16384, 'a'));
    for (const uint64_t at : {0, 512, 4096, 7680}) {
      std::string data(8192, '?');
      uint32_t table[3] = {};
      uint32_t expected[3] = {};
      driver.Add(OperationKind::kRead, at, 8192, data.data()).checksums = table;
      EXPECT_EQ(driver.Run(), ErrorCode::kOk);
      Crc32cBlocks(data.data(), at, 8192, expected);
      EXPECT(std::memcmp(table, expected, sizeof(table)) == 0);
      EXPECT(data == Text(16384, 'a').substr(at, 8192));
    }
  });
}

TEST(block_sums, partial_writes_zeroes_and_unmaps_keep_them_right) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const bool reopen : {false, true}) {
      Place place(reactor);
      auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      std::string model(Place::kSize, '\0');
      const auto write = [&](uint64_t at, uint64_t length, char seed) {
        Write(*driver, at, Text(length, seed));
        model.replace(at, length, Text(length, seed));
      };
      const auto zero = [&](OperationKind kind, uint64_t at, uint64_t length, bool keep) {
        driver->Add(kind, at, length).keep_allocated = keep;
        EXPECT_EQ(driver->Run(), ErrorCode::kOk);
        model.replace(at, length, std::string(length, '\0'));
      };
      write(0, 256 * 1024, 'a');
      write(512, 512, 'b');
      write(4096 - 512, 1024, 'c');
      write(8192 + 512, 16384, 'd');
      write(8 * kMiB - 1024, 1536, 'e');
      zero(OperationKind::kUnmap, 32768, 8192, false);
      zero(OperationKind::kUnmap, 65536 + 512, 8192, false);
      zero(OperationKind::kUnmap, 90112 + 512, 512, false);
      zero(OperationKind::kZero, 131072 + 1024, 12288, false);
      zero(OperationKind::kZero, 163840 + 1024, 12288, true);
      zero(OperationKind::kZero, 8 * kMiB - 512, 512, true);
      zero(OperationKind::kZero, 8 * kMiB - 512, 1024, true);
      write(3 * kMiB, kMiB, 'f');
      zero(OperationKind::kUnmap, 3 * kMiB + 512, 2 * kMiB, false);
      if (reopen) {
        ASSERT_OK(driver->Close(true));
        driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      }
      EXPECT(driver->Holds(model));
      EXPECT_EQ(driver->replica().sum_counters().errors, 0U);
      if (!reopen) continue;
      // And they are there: every block that is not a hole is verified.
      ASSERT_OK(driver->Close(true));
      for (const uint64_t at : {100UL, 600UL, 4095UL, 8192UL, 25000UL, 65600UL, 74000UL, 90700UL,
                                131100UL, 144000UL, 163900UL, 170000UL, 3 * kMiB + 100}) {
        FlipBit(place.files, place.head(), at);
        driver = std::make_unique<Driver>(place.files, reactor, place.directory);
        Read(*driver, at / 4096 * 4096, 4096, ErrorCode::kCorrupt);
        driver->Drop();
        FlipBit(place.files, place.head(), at);
      }
    }
  });
}

// What is damaged is not given a good checksum by being changed in part.
TEST(block_sums, a_damaged_block_that_is_changed_in_part_stays_damaged) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const OperationKind kind : {OperationKind::kWrite, OperationKind::kUnmap}) {
      for (const bool crash : {false, true}) {
        Place place(reactor);
        {
          Driver driver(place.files, reactor, place.directory);
          Write(driver, 0, Text(32768, 'a'));
          ASSERT_OK(driver.Close(true));
        }
        FlipBit(place.files, place.head(), 4096 + 77);
        {
          Driver driver(place.files, reactor, place.directory);
          std::string data = Text(8192, 'b');
          EXPECT_EQ(driver.Do(kind, 4096 + 512, 8192, data.data()), ErrorCode::kOk);
          Read(driver, 4096, 4096, ErrorCode::kCorrupt);
          Read(driver, 8192, 4096);
          if (crash) {
            driver.Drop();
          } else {
            ASSERT_OK(driver.Close(true));
          }
        }
        Driver driver(place.files, reactor, place.directory);
        Read(driver, 4096, 4096, ErrorCode::kCorrupt);
        Read(driver, 8192, 4096);
        Write(driver, 4096, Text(4096, 'c'));
        EXPECT(Read(driver, 4096, 4096) == Text(4096, 'c'));
      }
    }
  });
}

// A process that dies loses what the table knew, and nothing of what was written looks damaged.
TEST(block_sums, a_crash_makes_nothing_look_damaged) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      Write(driver, 0, Text(65536, 'a'));
      Write(driver, 4 * kMiB, Text(65536, 'b'));
      ASSERT_OK(driver.Close(true));
    }
    {
      Driver driver(place.files, reactor, place.directory);
      Write(driver, 4096, Text(8192, 'c'));
      EXPECT_EQ(driver.Do(OperationKind::kUnmap, 32768, 8192), ErrorCode::kOk);
      driver.Drop();
    }
    Driver driver(place.files, reactor, place.directory);
    std::string model = Text(65536, 'a');
    model.replace(4096, 8192, Text(8192, 'c'));
    model.replace(32768, 8192, std::string(8192, '\0'));
    EXPECT(Read(driver, 0, 65536) == model);
    Write(driver, 20480, Text(4096, 'd'));
    model.replace(20480, 4096, Text(4096, 'd'));
    EXPECT(Read(driver, 0, 65536) == model);
    // Computed anew before the region is clean.
    ASSERT_OK(SettleAll(reactor, driver.replica()));
    EXPECT(driver.replica().sums().settled(0) && driver.replica().sums().settled(1));
    EXPECT(Read(driver, 0, 65536) == model);
    FlipBit(place.files, place.head(), 4096 + 3);
    Read(driver, 4096, 4096, ErrorCode::kCorrupt);
    Read(driver, 8192, 4096);
    EXPECT_EQ(driver.replica().sum_counters().errors, 1U);
  });
}

// Without an engine that cleans the regions nothing is computed: a clean stop takes no time.
TEST(block_sums, a_clean_stop_after_a_crash_leaves_what_is_not_known_unverified) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    WriteAndCrash(place, reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      Write(driver, 4096, Text(4096, 'b'));
      ASSERT_OK(driver.Close(true));
    }
    FlipBit(place.files, place.head(), 3);
    FlipBit(place.files, place.head(), 4099);
    Driver driver(place.files, reactor, place.directory);
    Read(driver, 0, 4096);
    Read(driver, 4096, 4096, ErrorCode::kCorrupt);
  });
}

// The engine holds the lock of all regions that it asks for.
TEST(block_sums, a_clean_computes_one_region_and_says_that_there_is_more) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      WriteRecord(driver);
      Write(driver, 0, Text(65536, 'a'));
      Write(driver, 4 * kMiB, Text(65536, 'b'));
      driver.Drop();
    }
    Driver driver(place.files, reactor, place.directory);
    const RegionMap& map = driver.replica().regions();
    EXPECT(map.dirty(0) && map.dirty(1));
    EXPECT_EQ(CleanOnce(driver, 0, 2), ErrorCode::kBusy);
    EXPECT(map.dirty(0) && map.dirty(1));
    EXPECT(driver.replica().sums().settled(0) && !driver.replica().sums().settled(1));
    EXPECT_EQ(CleanOnce(driver, 0, 2), ErrorCode::kOk);
    EXPECT(!map.dirty(0) && !map.dirty(1));
    FlipBit(place.files, place.head(), 4 * kMiB + 3);
    Read(driver, 4 * kMiB, 4096, ErrorCode::kCorrupt);
  });
}

// What a resync compares it also reads: that is not read again.
TEST(block_sums, what_sum_computed_after_a_crash_is_kept) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      WriteRecord(driver);
      Write(driver, 0, Text(65536, 'a'));
      Write(driver, 4 * kMiB, Text(65536, 'b'));
      Write(driver, 8 * kMiB, Text(512, 'c'));
      driver.Drop();
    }
    Driver driver(place.files, reactor, place.directory);
    for (uint64_t at = 0; at < 8 * kMiB; at += kMiB) {
      EXPECT_EQ(BadOf(driver, at, kMiB), std::string(256, '.'));
    }
    EXPECT_EQ(BadOf(driver, 8 * kMiB, 512), ".");
    // It is verified at once, and CLEAN need not read.
    FlipBit(place.files, place.head(), 4096 + 3);
    Read(driver, 4096, 4096, ErrorCode::kCorrupt);
    FlipBit(place.files, place.head(), 8 * kMiB + 3);
    Read(driver, 8 * kMiB, 512, ErrorCode::kCorrupt);
    EXPECT_EQ(CleanOnce(driver, 0, 3), ErrorCode::kOk);
    FlipBit(place.files, place.head(), 4 * kMiB + 3);
    ASSERT_OK(driver.Close(true));
    Driver again(place.files, reactor, place.directory);
    EXPECT_EQ(BadOf(again, 4 * kMiB, 8192), "x.");
    Read(again, 4096, 4096, ErrorCode::kCorrupt);
    Read(again, 65536, 4096);
  });
}

// Settle cut at each of its I/Os: what is found afterwards is never a checksum of a settled region
// that does not match what was acknowledged.
TEST(block_sums, a_settle_that_is_cut_never_lies) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const size_t torn : {0, 512, 4000}) {
      bool done = false;
      int cut = 1;
      for (; !done; ++cut) {
        Place place(reactor);
        std::string model = Text(65536, 'a');
        {
          Driver driver(place.files, reactor, place.directory);
          Write(driver, 0, model);
          ASSERT_OK(driver.Close(true));
        }
        Driver driver(place.files, reactor, place.directory);
        Write(driver, 4096, Text(4096, 'b'));
        model.replace(4096, 4096, Text(4096, 'b'));
        Write(driver, 4 * kMiB, Text(4096, 'c'));
        place.files.torn_bytes = torn;
        place.files.Reset(cut);
        done = SettleAll(reactor, driver.replica()).ok();
        EXPECT_EQ(done, driver.replica().sums().settled(0) && driver.replica().sums().settled(1));
        EXPECT(Read(driver, 0, 65536) == model);
        driver.Drop();
        place.files.Reset(0);
        // As the region map has it: what was settled may be clean, the rest is dirty.
        Driver again(place.files, reactor, place.directory);
        EXPECT(Read(again, 0, 65536) == model);
        EXPECT(Read(again, 4 * kMiB, 4096) == Text(4096, 'c'));
        EXPECT_EQ(again.replica().sum_counters().errors, 0U);
        EXPECT_EQ(again.replica().sum_counters().pages_damaged, 0U);
        ASSERT_OK(SettleAll(reactor, again.replica()));
        EXPECT(Read(again, 0, 65536) == model);
        ASSERT_OK(again.Close(true));
        Driver last(place.files, reactor, place.directory);
        EXPECT(Read(last, 0, 65536) == model);
        FlipBit(place.files, place.head(), 4096);
        Read(last, 4096, 4096, ErrorCode::kCorrupt);
      }
      EXPECT(cut > 4);
    }
  });
}

TEST(block_sums, sum_tells_what_does_not_match) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      Write(driver, 0, Text(32768, 'a'));
      Write(driver, 8 * kMiB, Text(512, 'b'));
      EXPECT_EQ(driver.Do(OperationKind::kBad, 16384, 4096), ErrorCode::kOk);
      EXPECT_EQ(driver.Do(OperationKind::kBad, 49152, 4096), ErrorCode::kOk);  // a hole
      ASSERT_OK(driver.Close(true));
    }
    FlipBit(place.files, place.head(), 4096 + 77);
    FlipBit(place.files, place.head(), 8 * kMiB + 77);
    FlipBit(place.files, place.head(), 61440 + 1);  // was a hole: it has no checksum
    Driver driver(place.files, reactor, place.directory);
    EXPECT(BadOf(driver, 0, 65536) == ".x..x.......x...");
    EXPECT(BadOf(driver, 8 * kMiB - 4096, 4608) == ".x");
    EXPECT_EQ(driver.replica().sum_counters().errors, 4U);
  });
}

// CLEAN cut at each of its I/Os: a region that is clean has checksums that match, and verifies.
TEST(block_sums, a_clean_that_is_cut_never_lies) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const size_t torn : {0, 512, 4000}) {
      bool done = false;
      int cut = 1;
      for (; !done; ++cut) {
        Place place(reactor);
        std::string model = Text(65536, 'a');
        {
          Driver driver(place.files, reactor, place.directory);
          WriteRecord(driver);
          Write(driver, 0, model);
          EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kOk);
          EXPECT_EQ(Clean(driver, 0, 3), ErrorCode::kOk);
          EXPECT(!driver.replica().regions().dirty(0));
          Write(driver, 4096, Text(4096, 'b'));
          model.replace(4096, 4096, Text(4096, 'b'));
          Write(driver, 4 * kMiB, Text(4096, 'c'));
          EXPECT_EQ(driver.Do(OperationKind::kUnmap, 8192, 4096), ErrorCode::kOk);
          model.replace(8192, 4096, std::string(4096, '\0'));
          EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kOk);
          place.files.torn_bytes = torn;
          place.files.Reset(cut);
          done = Clean(driver, 0, 3) == ErrorCode::kOk &&
                 driver.Do(OperationKind::kTidy) == ErrorCode::kOk;
          driver.Drop();
          place.files.Reset(0);
          (void)place.files.Remove(place.directory + "/failed").ok();
        }
        Driver driver(place.files, reactor, place.directory);
        const bool clean = !driver.replica().regions().dirty(0);
        EXPECT(!done || clean);
        EXPECT(Read(driver, 0, 65536) == model);
        EXPECT(Read(driver, 4 * kMiB, 4096) == Text(4096, 'c'));
        EXPECT_EQ(driver.replica().sum_counters().errors, 0U);
        EXPECT_EQ(driver.replica().sum_counters().pages_damaged, 0U);
        if (!clean) EXPECT_EQ(Clean(driver, 0, 3), ErrorCode::kOk);
        EXPECT(Read(driver, 0, 65536) == model);
        FlipBit(place.files, place.head(), 4096);
        Read(driver, 4096, 4096, ErrorCode::kCorrupt);
        EXPECT(Read(driver, 0, 4096) == model.substr(0, 4096));
      }
      EXPECT(cut > 4);
    }
  });
}

// Bits that go lazily: a region that was clean and is written again before its bit left the file.
TEST(block_sums, a_region_that_is_written_again_is_not_believed_after_a_crash) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const bool tidy : {false, true}) {
      Place place(reactor);
      {
        Driver driver(place.files, reactor, place.directory);
        WriteRecord(driver);
        Write(driver, 0, Text(8192, 'a'));
        EXPECT_EQ(Clean(driver, 0), ErrorCode::kOk);
        if (tidy) EXPECT_EQ(driver.Do(OperationKind::kTidy), ErrorCode::kOk);
        Write(driver, 0, Text(4096, 'b'));
        driver.Drop();
      }
      Driver driver(place.files, reactor, place.directory);
      EXPECT(Read(driver, 0, 4096) == Text(4096, 'b'));
      EXPECT_EQ(driver.replica().sum_counters().errors, 0U);
    }
  });
}

TEST(block_sums, a_page_that_rots_is_no_corruption_of_the_data) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      Write(driver, 0, Text(65536, 'a'));
      ASSERT_OK(driver.Close(true));
    }
    FlipBit(place.files, place.sums(), SumPageOffset(0) + 5);
    Driver driver(place.files, reactor, place.directory);
    EXPECT(Read(driver, 0, 65536) == Text(65536, 'a'));
    EXPECT_EQ(driver.replica().sum_counters().errors, 0U);
    EXPECT_EQ(driver.replica().sum_counters().pages_damaged, 1U);
    Write(driver, 0, Text(4096, 'b'));
    ASSERT_OK(SettleAll(reactor, driver.replica()));
    ASSERT_OK(driver.Close(true));
    FlipBit(place.files, place.head(), 9);
    Driver again(place.files, reactor, place.directory);
    Read(again, 0, 4096, ErrorCode::kCorrupt);
    EXPECT_EQ(again.replica().sum_counters().pages_damaged, 0U);
  });
}

TEST(block_sums, a_header_that_rots_costs_the_checksums_and_says_so) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      Write(driver, 0, Text(65536, 'a'));
      ASSERT_OK(driver.Close(true));
    }
    FlipBit(place.files, place.sums(), 9);
    Driver driver(place.files, reactor, place.directory);
    ASSERT_OK(driver.status());
    EXPECT(driver.replica().notes().find("header") != std::string::npos);
    EXPECT(driver.replica().has_checksums());
    EXPECT(Read(driver, 0, 65536) == Text(65536, 'a'));
  });
}

TEST(block_sums, without_them_nothing_is_kept) {
  io::OnEachBackend([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    const std::string directory = test::TemporaryDirectory() + "/r";
    Identity identity = TestIdentity();
    identity.checksums = false;
    ASSERT_OK(Replica::Create(files, directory, identity, Place::kSize));
    {
      Driver driver(files, reactor, directory);
      EXPECT(!driver.replica().has_checksums());
      Write(driver, 512, Text(32768, 'a'));
      EXPECT_EQ(driver.Do(OperationKind::kBad, 4096, 4096), ErrorCode::kUnsupported);
      ASSERT_OK(driver.Close(true));
    }
    EXPECT(!files.Info(directory + kSumsName).ok());
    FlipBit(files, directory + kHead, 5000);
    Driver driver(files, reactor, directory);
    Read(driver, 4096, 4096);
  });
}

TEST(block_sums, direct_io_has_them_too) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor, CacheMode::kDirect, 8 * kMiB);
    {
      Driver driver(place.files, reactor, place.directory);
      if (!driver.status().ok()) return;  // no O_DIRECT here
      Write(driver, 0, Text(65536, 'a'));
      Write(driver, 512, Text(8192, 'b'));
      ASSERT_OK(SettleAll(reactor, driver.replica()));
      driver.Drop();
    }
    Driver driver(place.files, reactor, place.directory);
    std::string model = Text(65536, 'a');
    model.replace(512, 8192, Text(8192, 'b'));
    EXPECT(Read(driver, 0, 65536) == model);
    ASSERT_OK(SettleAll(reactor, driver.replica()));
    ASSERT_OK(driver.Close(true));
    FlipBit(place.files, place.head(), 70);
    Driver again(place.files, reactor, place.directory);
    Read(again, 512, 512, ErrorCode::kCorrupt);
    EXPECT(Read(again, 4096, 4096) == model.substr(4096, 4096));
  });
}

}  // namespace
}  // namespace ankole::replica
