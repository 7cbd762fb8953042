#include "replica/recent_regions.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "base/test.h"

namespace ankole::replica {
namespace {

std::set<uint32_t> RegionsIn(const RecentRegions& recent) {
  std::vector<wire::RegionRun> runs(RecentRegions::kRegionsMax);
  const int count = recent.Collect(runs.data(), runs.size());
  EXPECT(count >= 0);
  std::set<uint32_t> regions;
  uint32_t end = 0;
  for (int i = 0; i < count; ++i) {
    EXPECT(i == 0 || runs[i].first > end);  // joined
    end = runs[i].first + runs[i].count;
    for (uint32_t region = runs[i].first; region < end; ++region) regions.insert(region);
  }
  return regions;
}

// Maps of so many regions, of which the first are dirty.
void Reset(RecentRegions* recent, uint32_t dirty) {
  RegionMap map;
  ASSERT_OK(map.Reserve(20'000));
  const std::vector<uint8_t> bytes(dirty, kDirtyBit);
  map.Load(0, bytes.data(), dirty);
  map.SetSlots({});
  recent->Reset(map);
}

TEST(replica_recent_regions, what_is_complete_is_not_told) {
  RecentRegions recent;
  Reset(&recent, 0);
  EXPECT(RegionsIn(recent).empty());
  recent.Add({4, 6}, 10);
  recent.Add({9, 10}, 11);
  recent.Add({4, 5}, 12);
  EXPECT(RegionsIn(recent) == (std::set<uint32_t>{4, 5, 9}));
  recent.Complete(11);
  EXPECT(RegionsIn(recent) == (std::set<uint32_t>{4}));
  recent.Complete(9);  // an older frame
  EXPECT(RegionsIn(recent) == (std::set<uint32_t>{4}));
  recent.Complete(12);
  EXPECT(RegionsIn(recent).empty());
}

TEST(replica_recent_regions, what_an_engine_left_stays_until_it_is_cleaned) {
  RecentRegions recent;
  Reset(&recent, 0);
  recent.Add({1, 4}, 100);
  recent.Add({7, 8}, 90);
  recent.Complete(95);
  recent.NextEngine();
  EXPECT(RegionsIn(recent) == (std::set<uint32_t>{1, 2, 3}));
  // Its own tags begin anew, and say nothing of the other's.
  recent.Add({3, 4}, 1);
  recent.Add({5, 6}, 2);
  recent.Complete(2);
  EXPECT(RegionsIn(recent) == (std::set<uint32_t>{1, 2, 3}));
  recent.Add({6, 7}, 3);
  recent.NextEngine();
  EXPECT(RegionsIn(recent) == (std::set<uint32_t>{1, 2, 3, 6}));
  recent.Remove({2, 5});
  EXPECT(RegionsIn(recent) == (std::set<uint32_t>{1, 6}));
}

TEST(replica_recent_regions, what_was_dirty_at_the_opening_may_be_incomplete) {
  RecentRegions recent;
  Reset(&recent, 3);
  EXPECT(recent.Tellable());
  recent.Add({0, 1}, 5);
  recent.Complete(5);
  recent.NextEngine();
  EXPECT(RegionsIn(recent) == (std::set<uint32_t>{0, 1, 2}));
  recent.Remove({1, 2});
  EXPECT(RegionsIn(recent) == (std::set<uint32_t>{0, 2}));
}

TEST(replica_recent_regions, more_than_fit_are_not_known) {
  RecentRegions recent;
  Reset(&recent, 0);
  for (uint32_t i = 0; i < RecentRegions::kRegionsMax; ++i) recent.Add({2 * i, 2 * i + 1}, i + 1);
  EXPECT(recent.known());
  EXPECT_EQ(RegionsIn(recent).size(), RecentRegions::kRegionsMax);
  wire::RegionRun few[10];
  EXPECT(recent.Collect(few, 10) < 0);
  // What is complete makes room.
  recent.Complete(1);
  recent.Add({1, 2}, 1'000'000);
  EXPECT(recent.known());
  recent.Add({3, 4}, 1'000'001);
  EXPECT(!recent.known());
  EXPECT(recent.Collect(few, 10) < 0);
  recent.Add({3, 4}, 1'000'002);
  EXPECT(!recent.known());
  Reset(&recent, 0);
  EXPECT(recent.known() && RegionsIn(recent).empty());
  Reset(&recent, RecentRegions::kRegionsMax + 1);
  EXPECT(!recent.known() && !recent.Tellable());
}

TEST(replica_recent_regions, agree_with_a_model) {
  std::mt19937_64 random(test::Seed());
  RecentRegions recent;
  Reset(&recent, 0);
  std::map<uint32_t, uint64_t> model;
  uint64_t tag = 0;
  uint64_t complete = 0;
  for (int step = 0; step < 20'000; ++step) {
    // Strides that fall together under many a hash.
    const auto region = static_cast<uint32_t>(random() % 64 * (uint64_t{1} << random() % 18));
    switch (random() % 16) {
      case 0: {
        recent.Remove({region, region + 2});
        model.erase(region);
        model.erase(region + 1);
        break;
      }
      case 1:
        complete = std::max(complete, tag - std::min<uint64_t>(tag, random() % 50));
        recent.Complete(complete);
        break;
      case 2:
        if (random() % 100 != 0) break;
        std::erase_if(model, [&](const auto& entry) { return entry.second <= complete; });
        for (auto& [key, value] : model) value = UINT64_MAX;
        recent.NextEngine();
        tag = complete = 0;
        break;
      default:
        ++tag;
        recent.Add({region, region + 1}, tag);
        model[region] = std::max(model[region], tag);
    }
    if (step % 500 != 0) continue;
    std::set<uint32_t> expected;
    for (const auto& [key, value] : model) {
      if (value > complete) expected.insert(key);
    }
    ASSERT(RegionsIn(recent) == expected);
  }
}

}  // namespace
}  // namespace ankole::replica
