#include "replica/sum_table.h"

#include <memory>
#include <vector>

#include "base/test.h"

namespace ankole::replica {
namespace {

using Knowledge = SumTable::Knowledge;
constexpr uint64_t kMany = SumTable::kFrames + 50;

std::vector<uint32_t> Stored(uint32_t first) {
  std::vector<uint32_t> sums(kRegionBlocks);
  for (size_t i = 0; i < sums.size(); ++i) sums[i] = first + static_cast<uint32_t>(i);
  return sums;
}

// As the job does that writes the page.
void Complete(SumTable::Copy* copy, uint32_t sum) {
  for (size_t i = 0; i < kRegionBlocks; ++i) {
    if ((copy->known[i / 64] >> (i % 64) & 1) == 0) copy->sums[i] = sum;
  }
  for (uint64_t& word : copy->known) word = ~uint64_t{0};
}

TEST(sum_table, what_was_written_stands_above_what_the_file_holds) {
  SumTable table;
  ASSERT_OK(table.Reserve(4));
  EXPECT(table.Get(5).knowledge == Knowledge::kAbsent);
  EXPECT(!table.Available(0, false));
  table.Set(5, 77);
  EXPECT(table.Get(5).knowledge == Knowledge::kKnown);
  EXPECT(table.Get(6).knowledge == Knowledge::kAbsent);
  EXPECT(table.dirty(0) && !table.settled(0));
  table.Merge(0, Stored(1000).data());
  EXPECT_EQ(table.Get(5).sum, 77U);
  EXPECT_EQ(table.Get(6).sum, 1006U);
  EXPECT_EQ(table.Get(1023).sum, 2023U);
  EXPECT(table.Available(0, true));
  table.Merge(1, nullptr);
  EXPECT(table.Get(1024).knowledge == Knowledge::kKnown && table.Get(1024).sum == kSumNone);
  EXPECT(!table.dirty(1));
}

TEST(sum_table, a_run_reaches_over_regions) {
  SumTable table;
  ASSERT_OK(table.Reserve(4));
  table.SetRun(1000, 1100, 5);
  EXPECT(table.Get(999).knowledge == Knowledge::kAbsent);
  for (uint64_t block = 1000; block < 2100; ++block) EXPECT_EQ(table.Get(block).sum, 5U);
  EXPECT(table.Get(2100).knowledge == Knowledge::kAbsent);
  EXPECT(table.dirty(0) && table.dirty(1) && table.dirty(2) && !table.dirty(3));
}

TEST(sum_table, of_a_stale_region_the_file_is_believed_for_bad_blocks_only) {
  SumTable table;
  ASSERT_OK(table.Reserve(2));
  table.SetStale(0);
  EXPECT(table.Get(9).knowledge == Knowledge::kUnknown);
  EXPECT(table.Available(0, false));
  EXPECT(!table.Available(0, true));
  table.Set(8, 4);
  std::vector<uint32_t> stored = Stored(1000);
  stored[7] = kSumBad;
  stored[8] = kSumBad;
  table.Merge(0, stored.data());
  EXPECT(table.Get(7).knowledge == Knowledge::kKnown && table.Get(7).sum == kSumBad);
  EXPECT_EQ(table.Get(8).sum, 4U);
  EXPECT(table.Get(9).knowledge == Knowledge::kUnknown);
  EXPECT(table.Available(0, true));
}

TEST(sum_table, forgotten_blocks_are_unknown_and_make_the_region_stale) {
  SumTable table;
  ASSERT_OK(table.Reserve(2));
  table.Merge(0, Stored(1000).data());
  table.Forget(10, 2);
  EXPECT(table.Get(9).knowledge == Knowledge::kKnown);
  EXPECT(table.Get(10).knowledge == Knowledge::kUnknown);
  EXPECT(table.Get(11).knowledge == Knowledge::kUnknown);
  EXPECT(table.Get(12).knowledge == Knowledge::kKnown);
  EXPECT(table.stale(0) && !table.settled(0));
}

TEST(sum_table, settles_unless_written_meanwhile) {
  SumTable table;
  ASSERT_OK(table.Reserve(2));
  auto copy = std::make_unique<SumTable::Copy>();
  table.Set(5, 77);
  table.CopyOut(0, copy.get());
  EXPECT_EQ(copy->sums[5], 77U);
  Complete(copy.get(), 1);
  table.Set(6, 78);
  EXPECT(!table.Settle(copy.get()));
  EXPECT(table.dirty(0));
  table.CopyOut(0, copy.get());
  Complete(copy.get(), 3);
  EXPECT(table.Settle(copy.get()));
  EXPECT(table.settled(0));
  EXPECT_EQ(table.Get(6).sum, 78U);
  EXPECT_EQ(table.Get(7).sum, 3U);

  // Stale, and without a frame.
  table.SetStale(1);
  table.CopyOut(1, copy.get());
  EXPECT(copy->stale);
  Complete(copy.get(), 3);
  table.Set(1024 + 9, 4);
  EXPECT(!table.Settle(copy.get()));
  EXPECT(table.stale(1));
  table.CopyOut(1, copy.get());
  Complete(copy.get(), 3);
  table.Forget(1024 + 9, 1);
  EXPECT(!table.Settle(copy.get()));
  table.CopyOut(1, copy.get());
  table.Abandon(copy.get());
  table.CopyOut(1, copy.get());
  Complete(copy.get(), 3);
  table.Merge(1, nullptr);  // a read came by: nothing was written
  EXPECT(table.Settle(copy.get()));
  EXPECT(table.settled(1));
  EXPECT_EQ(table.Get(1024 + 8).sum, 3U);
}

TEST(sum_table, dirty_frames_stay_and_clean_ones_make_room) {
  SumTable table;
  ASSERT_OK(table.Reserve(kMany));
  for (uint64_t region = 0; region < SumTable::kFrames; ++region) {
    table.Merge(region, nullptr);
  }
  table.Merge(SumTable::kFrames, nullptr);
  EXPECT_EQ(table.frames_in_use(), SumTable::kFrames);
  EXPECT(table.Available(SumTable::kFrames, true));
  for (uint64_t region = 0; region < SumTable::kFrames; ++region) {
    table.Set(region * kRegionBlocks, 9);
  }
  for (uint64_t region = 0; region < SumTable::kFrames; ++region) {
    EXPECT_EQ(table.Get(region * kRegionBlocks).sum, 9U);
  }
  // None is free: what is written is not known, and that is known.
  const uint64_t more = SumTable::kFrames + 3;
  table.Set(more * kRegionBlocks, 9);
  EXPECT(table.stale(more));
  EXPECT(table.Get(more * kRegionBlocks).knowledge == Knowledge::kUnknown);
  table.Merge(more + 1, nullptr);
  EXPECT(!table.Available(more + 1, false));
  // One that settles makes room again.
  auto copy = std::make_unique<SumTable::Copy>();
  table.CopyOut(17, copy.get());
  Complete(copy.get(), 3);
  EXPECT(table.Settle(copy.get()));
  table.Set((more + 2) * kRegionBlocks, 9);
  EXPECT_EQ(table.Get((more + 2) * kRegionBlocks).sum, 9U);
  EXPECT(table.Get(17 * kRegionBlocks).knowledge == Knowledge::kAbsent);
}

TEST(sum_table, gives_back_what_is_clean) {
  SumTable table;
  ASSERT_OK(table.Reserve(10));
  table.Merge(1, nullptr);
  table.Set(2 * kRegionBlocks, 9);
  table.Trim();
  EXPECT_EQ(table.frames_in_use(), 1U);
  EXPECT_EQ(table.Get(2 * kRegionBlocks).sum, 9U);
  auto copy = std::make_unique<SumTable::Copy>();
  table.CopyOut(2, copy.get());
  Complete(copy.get(), 3);
  EXPECT(table.Settle(copy.get()));
  table.Trim();
  EXPECT_EQ(table.frames_in_use(), 0U);
  EXPECT(table.Get(2 * kRegionBlocks).knowledge == Knowledge::kAbsent);
  table.Set(3 * kRegionBlocks, 9);
  EXPECT_EQ(table.Get(3 * kRegionBlocks).sum, 9U);
}

}  // namespace
}  // namespace ankole::replica
