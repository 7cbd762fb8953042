#include <memory>
#include <span>

#include "replica/sums_testing.h"

// Blocks that are marked bad, which the file of checksums keeps (rule 9).
namespace ankole::replica {
namespace {

using namespace testing;

TEST(block_sums, bad_blocks_stay_bad_until_they_are_written_anew) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const OperationKind kind :
         {OperationKind::kWrite, OperationKind::kUnmap, OperationKind::kZero}) {
      Place place(reactor);
      auto driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      const auto crash = [&] {
        driver->Drop();
        driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      };
      Write(*driver, 0, Text(32768, 'a'));
      EXPECT_EQ(driver->Do(OperationKind::kBad, 4096, 8192), ErrorCode::kOk);
      for (int i = 0; i < 2; ++i) {
        Read(*driver, 4096, 4096, ErrorCode::kCorrupt);
        Read(*driver, 8192, 4096, ErrorCode::kCorrupt);
        EXPECT(Read(*driver, 0, 4096) == Text(32768, 'a').substr(0, 4096));
        crash();
      }
      ASSERT_OK(SettleAll(reactor, driver->replica()));
      Read(*driver, 4096, 4096, ErrorCode::kCorrupt);
      // In part: not anew.
      Write(*driver, 4096, Text(512, 'x'));
      Read(*driver, 4096, 4096, ErrorCode::kCorrupt);
      std::string data = Text(4096, 'b');
      EXPECT_EQ(driver->Do(kind, 4096, 4096, data.data()), ErrorCode::kOk);
      for (int i = 0; i < 2; ++i) {
        EXPECT(Read(*driver, 4096, 4096) ==
               (kind == OperationKind::kWrite ? data : std::string(4096, '\0')));
        Read(*driver, 8192, 4096, ErrorCode::kCorrupt);
        crash();
      }
      EXPECT_EQ(driver->Do(kind, 0, 32768, Text(32768, 'c').data()), ErrorCode::kOk);
      Read(*driver, 0, 32768);
      ASSERT_OK(driver->Close(true));
      driver = std::make_unique<Driver>(place.files, reactor, place.directory);
      Read(*driver, 0, 32768);
      EXPECT_EQ(driver->replica().sum_counters().errors, 0U);
    }
  });
}

// Simulator, seed 6010857: a SUM that came while the first block of the region was marked called
// all of them bad, and a write of a part of one would have made that so for good.
TEST(block_sums, the_first_mark_of_a_region_makes_no_other_block_bad) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    WriteAndCrash(place, reactor);
    Driver driver(place.files, reactor, place.directory);
    std::string summed(65536 + kSumScratchBytes, '?');
    ReplicaOperation& sum = driver.Add(OperationKind::kSum, 0, 65536, summed.data());
    sum.sums = reinterpret_cast<std::byte*>(summed.data()) + 65536;
    std::string part = Text(512, 'x');
    driver.Add(OperationKind::kWrite, 8192, 512, part.data());
    std::string read(4096, '?');
    driver.Add(OperationKind::kRead, 12288, 4096, read.data());
    driver.Add(OperationKind::kBad, 4096, 4096);
    EXPECT_EQ(driver.Run(), ErrorCode::kOk);
    const Result<wire::Sums> sums = wire::Sums::Decode(
        std::as_bytes(std::span(summed)).subspan(65536, wire::SumsBytes(16)), 65536);
    ASSERT_OK(sums);
    for (uint32_t block = 0; block < 16; ++block) EXPECT(block == 1 || !sums.value().bad(block));
    EXPECT_EQ(BadOf(driver, 0, 65536), ".x" + std::string(14, '.'));
    EXPECT(Read(driver, 8192, 512) == part);
  });
}

// Simulator: a replica that was filled from this one, holes left out, read as zeros there.
TEST(block_sums, a_bad_block_is_no_hole_for_who_asks_what_there_is) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    Driver driver(place.files, reactor, place.directory);
    const auto status = [&](uint64_t offset) {
      BlockExtent extents[4];
      ReplicaOperation& operation = driver.Add(OperationKind::kStatus, offset, 65536);
      operation.extents = extents;
      operation.extents_max = 4;
      bool data = false;
      driver.on_done = [&](ReplicaOperation* done) {
        data = done->extents_count > 0 && !extents[0].hole && !extents[0].zero;
      };
      EXPECT_EQ(driver.Run(), ErrorCode::kOk);
      driver.on_done = nullptr;
      return data;
    };
    EXPECT(!status(0));
    EXPECT_EQ(driver.Do(OperationKind::kBad, 0, 4096), ErrorCode::kOk);
    EXPECT(status(0));
    EXPECT(!status(4 * kMiB));
    EXPECT_EQ(driver.Do(OperationKind::kUnmap, 0, 4096), ErrorCode::kOk);
    EXPECT(!status(0));
  });
}

// Two good blocks and a hole between them that is bad, after a clean stop.
Status HaveOneBad(Place& place, io::Reactor& reactor) {
  Driver driver(place.files, reactor, place.directory);
  Write(driver, 0, Text(4096, 'a'));
  Write(driver, 16384, Text(4096, 'b'));
  EXPECT_EQ(driver.Do(OperationKind::kBad, 8192, 4096), ErrorCode::kOk);
  return driver.Close(true);
}

// Simulator, seed 700187: a hole that is bad read as zeros where the page did not tell.
TEST(block_sums, a_page_that_rots_makes_no_bad_block_good) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    ASSERT_OK(HaveOneBad(place, reactor));
    FlipBit(place.files, place.sums(), SumPageOffset(0) + 5);
    {
      // The copy of the page is whole.
      Driver driver(place.files, reactor, place.directory);
      Read(driver, 8192, 4096, ErrorCode::kCorrupt);
      EXPECT(Read(driver, 0, 4096) == Text(4096, 'a'));
      ASSERT_OK(driver.Close(true));
    }
    FlipBit(place.files, place.sums(), SumPageOffset(0) + 5);
    FlipBit(place.files, place.sums(), SumCopyOffset(Place::kRegions) + 5);
    Driver driver(place.files, reactor, place.directory);
    Read(driver, 8192, 4096, ErrorCode::kCorrupt);
    Read(driver, 0, 4096, ErrorCode::kCorrupt);
    // Of what is changed in part the rest is not known either.
    std::string part = Text(512, 'x');
    EXPECT_EQ(driver.Do(OperationKind::kWrite, 8192, 512, part.data()), ErrorCode::kIoError);
    EXPECT_EQ(driver.Do(OperationKind::kUnmap, 8192, 512), ErrorCode::kIoError);
    // What is written as a whole is good, and the others stay as they are.
    Write(driver, 0, Text(4096, 'c'));
    EXPECT(Read(driver, 0, 4096) == Text(4096, 'c'));
    Read(driver, 8192, 4096, ErrorCode::kCorrupt);
    Read(driver, 16384, 4096, ErrorCode::kCorrupt);
    EXPECT_EQ(driver.Do(OperationKind::kUnmap, 4096, kRegionBytes - 4096), ErrorCode::kOk);
    EXPECT(Read(driver, 8192, 4096) == std::string(4096, '\0'));
    EXPECT(Read(driver, 0, 4096) == Text(4096, 'c'));
  });
}

// Else it goes on with a file of checksums that takes nothing, and never joins again (seed
// 4029620).
TEST(block_sums, a_mark_of_a_bad_block_that_cannot_be_synced_makes_the_replica_suspect) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    {
      Driver driver(place.files, reactor, place.directory);
      place.files.fail_sync = true;
      EXPECT_EQ(driver.Do(OperationKind::kBad, 8192, 4096), ErrorCode::kIoError);
      EXPECT(driver.replica().sync_failed());
      place.files.fail_sync = false;
      EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kSuspect);
    }
    Driver driver(place.files, reactor, place.directory);
    EXPECT_EQ(driver.Do(OperationKind::kBad, 8192, 4096), ErrorCode::kOk);
  });
}

// The medium may give it again.
TEST(block_sums, nothing_is_made_of_a_page_that_cannot_be_read) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Place place(reactor);
    ASSERT_OK(HaveOneBad(place, reactor));
    // So that it is not known already.
    FlipBit(place.files, place.sums(), SumPageOffset(0) + 5);
    FlipBit(place.files, place.sums(), SumCopyOffset(Place::kRegions) + 5);
    Driver driver(place.files, reactor, place.directory);
    place.files.fail_reads = 1;
    Write(driver, 0, Text(4096, 'c'), ErrorCode::kIoError);
    EXPECT(place.files.fail_reads == 0);
    FlipBit(place.files, place.sums(), SumPageOffset(0) + 5);
    EXPECT(Read(driver, 16384, 4096) == Text(4096, 'b'));
    Read(driver, 8192, 4096, ErrorCode::kCorrupt);
    Write(driver, 0, Text(4096, 'd'));
    EXPECT(Read(driver, 0, 4096) == Text(4096, 'd'));
  });
}

// The mark cut at each I/O: it is there, or it was not answered.
TEST(block_sums, a_bad_mark_that_is_cut_is_there_or_was_not_answered) {
  io::OnEachBackend([](io::Reactor& reactor) {
    bool done = false;
    int cut = 1;
    for (; !done; ++cut) {
      Place place(reactor);
      {
        Driver driver(place.files, reactor, place.directory);
        Write(driver, 0, Text(32768, 'a'));
        place.files.torn_bytes = 700;
        place.files.Reset(cut);
        done = driver.Do(OperationKind::kBad, 4096, 4096) == ErrorCode::kOk;
        driver.Drop();
        place.files.Reset(0);
        (void)place.files.Remove(place.directory + "/failed").ok();
      }
      Driver driver(place.files, reactor, place.directory);
      if (done) Read(driver, 4096, 4096, ErrorCode::kCorrupt);
      Read(driver, 0, 4096);
      Read(driver, 8192, 4096);
    }
    EXPECT(cut > 3);
  });
}

}  // namespace
}  // namespace ankole::replica
