#include "engine/region_table.h"

#include <map>
#include <random>
#include <set>
#include <vector>

#include "base/test.h"

namespace ankole::engine {
namespace {

constexpr uint64_t kLast = UINT64_MAX;

std::vector<uint32_t> Cleanable(const RegionTable& table, uint64_t before_ns = kLast,
                                size_t room = kDirtyRegionsMax) {
  std::vector<uint32_t> regions(room);
  regions.resize(table.CollectCleanable(before_ns, regions));
  return regions;
}

void Flush(RegionTable* table) { table->FlushEnds(table->FlushBegins()); }

void Write(RegionTable* table, RegionRun run, uint64_t now_ns = 1) {
  ASSERT(table->Pin(run, now_ns));
  table->Unpin(run, now_ns);
}

TEST(engine_region_set, FindsWhatWasAdded) {
  RegionSet set(200);
  EXPECT_EQ(set.Next(0), RegionSet::kNone);
  set.Add({63, 2});
  set.Add({64, 2});
  set.Add({199, 5});  // beyond the end
  EXPECT_EQ(set.count(), 4U);
  EXPECT_EQ(set.Next(0), 63U);
  EXPECT_EQ(set.Next(66), 199U);
  EXPECT_EQ(set.Next(200), RegionSet::kNone);
  EXPECT(set.ContainsAll({63, 3}) && !set.ContainsAll({62, 2}));
  EXPECT(set.ContainsAny({60, 4}) && !set.ContainsAny({60, 3}) && !set.ContainsAny({66, 133}));
  set.Remove(64);
  set.Remove(64);
  EXPECT_EQ(set.count(), 3U);
  EXPECT_EQ(set.Next(64), 65U);
  set.Clear();
  EXPECT(set.empty() && set.Next(0) == RegionSet::kNone);
  set.AddAll();
  EXPECT_EQ(set.count(), 200U);
}

TEST(engine_region_set, KnowsTheRegionsOfARange) {
  EXPECT(RegionsOf(0, 512) == (RegionRun{0, 1}));
  EXPECT(RegionsOf(kRegionBytes - 512, 1024) == (RegionRun{0, 2}));
  EXPECT(RegionsOf(kRegionBytes, kRegionBytes) == (RegionRun{1, 1}));
  EXPECT(RegionsOf(512, kRegionBytes) == (RegionRun{0, 2}));
  EXPECT(RegionsOf(kVolumeBytesMax - 512, 512) == (RegionRun{kRegionsMax - 1, 1}));
}

TEST(engine_region_table, ARegionIsCleanedOnlyWhenItWasNotWrittenFromTheFlushOn) {
  RegionTable table(kGiB);
  Write(&table, {5, 2});
  EXPECT(Cleanable(table).empty());
  const uint64_t first = table.FlushBegins();
  EXPECT(Cleanable(table).empty());
  Write(&table, {6, 1});  // while the flush is on its way
  table.FlushEnds(first);
  EXPECT(Cleanable(table) == std::vector<uint32_t>{5});
  EXPECT(table.Cleanable({5, 1}) && !table.Cleanable({5, 2}) && !table.Cleanable({4, 2}));
  Write(&table, {5, 1});  // after it
  EXPECT(Cleanable(table).empty());
  Flush(&table);
  EXPECT_EQ(Cleanable(table).size(), 2U);
  table.Cleaned({5, 2}, table.CleanBegins());
  EXPECT_EQ(table.open(), 0U);
  EXPECT(!table.IsDirty(5));
}

TEST(engine_region_table, AWriteThatIsOnItsWayAtTheFlushIsNotCovered) {
  RegionTable table(kGiB);
  ASSERT(table.Pin({7, 1}, 1));
  const uint64_t ticket = table.FlushBegins();
  table.Unpin({7, 1}, 2);  // its data may have come after the flush
  table.FlushEnds(ticket);
  EXPECT(Cleanable(table).empty());
  ASSERT(table.Pin({8, 1}, 3));
  Flush(&table);
  EXPECT(Cleanable(table) == std::vector<uint32_t>{7});
  table.Unpin({8, 1}, 4);
  EXPECT(Cleanable(table) == std::vector<uint32_t>{7});
}

TEST(engine_region_table, AFlushThatEndsLateTakesNothingBack) {
  RegionTable table(kGiB);
  Write(&table, {1, 1});
  const uint64_t first = table.FlushBegins();
  const uint64_t second = table.FlushBegins();
  table.FlushEnds(second);
  table.FlushEnds(first);
  EXPECT(Cleanable(table) == std::vector<uint32_t>{1});
}

TEST(engine_region_table, WhatIsPinnedWhileItIsCleanedStays) {
  RegionTable table(kGiB);
  Write(&table, {1, 3});
  Flush(&table);
  ASSERT(table.Pin({2, 1}, 5));  // waits for the range lock that the cleaning holds
  table.Cleaned({1, 3}, table.CleanBegins());
  EXPECT(!table.IsDirty(1) && table.IsDirty(2) && !table.IsDirty(3));
  table.Unpin({2, 1}, 6);
  EXPECT(table.IsDirty(2));
}

TEST(engine_region_table, TheRegionBeyondTheBoundWaits) {
  RegionTable table(kVolumeBytesMax);
  for (uint32_t i = 0; i < kDirtyRegionsMax; ++i) ASSERT(table.Pin({3 * i, 1}, i));
  EXPECT(!table.Pin({1, 1}, 1));
  EXPECT(!table.Pin({0, 2}, 1));  // one of them is open; nothing happens to it
  EXPECT(table.Pin({0, 1}, 1));
  table.Unpin({0, 1}, 1);
  for (uint32_t i = 0; i < kDirtyRegionsMax; ++i) table.Unpin({3 * i, 1}, i);
  Flush(&table);
  table.Cleaned({0, 1}, table.CleanBegins());
  EXPECT(table.Pin({1, 1}, 1));
  EXPECT(!table.Pin({2, 1}, 1));
  EXPECT_EQ(table.open(), kDirtyRegionsMax);
}

TEST(engine_region_table, TheLongestUntouchedAreCleanedFirst) {
  RegionTable table(kGiB);
  for (uint32_t i = 0; i < 20; ++i) Write(&table, {i, 1}, 100 - i);
  EXPECT(!table.WantsFlush(81) && table.WantsFlush(82));
  Flush(&table);
  EXPECT(!table.WantsFlush(kLast));
  EXPECT(Cleanable(table, kLast, 3) == (std::vector<uint32_t>{17, 18, 19}));
  EXPECT(Cleanable(table, 83) == (std::vector<uint32_t>{18, 19}));
}

TEST(engine_region_table, WhatWasDirtyBeforeIsOpenedByAWrite) {
  RegionTable table(kGiB);
  table.AddOld({10, 5});
  table.AddOld({250, 50});  // beyond the end
  EXPECT_EQ(table.old().count(), 11U);
  EXPECT_EQ(table.dirty(), 11U);
  EXPECT(table.IsDirty(12) && table.open() == 0);
  Write(&table, {12, 1});
  EXPECT(table.IsDirty(12) && !table.old().Contains(12));
  EXPECT_EQ(table.dirty(), 11U);
  table.AddOld({12, 1});
  EXPECT_EQ(table.dirty(), 11U);
}

TEST(engine_region_table, WhatIsFoundDirtyWhileItIsCleanedStays) {
  RegionTable table(kGiB);
  Write(&table, {12, 2});
  Flush(&table);
  EXPECT_EQ(Cleanable(table).size(), 2U);
  const uint64_t clean = table.CleanBegins();
  const uint64_t before = table.FlushBegins();
  table.AddOld({12, 1});
  EXPECT_EQ(table.old().count(), 0U);
  // Not by a flush that went out before.
  table.FlushEnds(before);
  EXPECT_EQ(Cleanable(table).size(), 1U);
  Flush(&table);
  EXPECT_EQ(Cleanable(table).size(), 2U);
  // Nor by that CLEAN, however much was flushed meanwhile (simulator, seed 702467).
  table.Cleaned({12, 2}, clean);
  EXPECT(table.IsDirty(12) && !table.IsDirty(13));
  table.Cleaned({12, 1}, table.CleanBegins());
  EXPECT_EQ(table.dirty(), 0U);
}

// Against a plain map, so that the hash and its deletions are right.
TEST(engine_region_table, IsWhatAMapWouldBe) {
  std::mt19937_64 random(test::Seed());
  RegionTable table(kVolumeBytesMax);
  std::map<uint32_t, int> pins;
  for (int step = 0; step < 200'000; ++step) {
    const auto region = static_cast<uint32_t>(random() % 6000 * 2731 % kRegionsMax);
    switch (random() % 4) {
      case 0:
      case 1:
        if (pins.size() < kDirtyRegionsMax || pins.contains(region)) {
          ASSERT(table.Pin({region, 1}, 1));
          ++pins[region];
        } else {
          ASSERT(!table.Pin({region, 1}, 1));
        }
        break;
      case 2:
        if (pins.contains(region) && pins[region] > 0) {
          table.Unpin({region, 1}, 1);
          --pins[region];
        }
        break;
      default:
        if (random() % 8 == 0) Flush(&table);
        if (table.Cleanable({region, 1})) {
          ASSERT(pins.contains(region) && pins[region] == 0);
          table.Cleaned({region, 1}, table.CleanBegins());
          pins.erase(region);
        }
        break;
    }
    ASSERT(table.open() == pins.size());
    ASSERT(table.IsDirty(region) == pins.contains(region));
  }
}

}  // namespace
}  // namespace ankole::engine
