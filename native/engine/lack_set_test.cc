#include "engine/lack_set.h"

#include <bitset>
#include <random>

#include "base/test.h"

namespace ankole::engine {
namespace {

constexpr uint64_t kPart = LackSet::kPartBytes;

TEST(engine_lack_set, WholeAndInPart) {
  LackSet set(5);
  EXPECT(set.empty());
  set.AddRange(kRegionBytes + kPart - 512, 1024);  // the second part in its last bytes, too
  EXPECT_EQ(set.count(), 1U);
  EXPECT(set.ContainsRange(kRegionBytes, 2 * kPart));
  EXPECT(!set.ContainsRange(kRegionBytes, 2 * kPart + 512));
  EXPECT(!set.ContainsRange(kRegionBytes - 512, 1024));
  set.AddRange(2 * kRegionBytes - kPart, kPart + 512);  // of two regions
  EXPECT_EQ(set.count(), 2U);
  EXPECT_EQ(set.Take(1), uint64_t{3} | uint64_t{1} << 63);
  EXPECT_EQ(set.Take(2), 1U);
  EXPECT(set.empty() && !set.ContainsRange(kRegionBytes, 512));
  set.Add({3, 9});  // beyond the end
  EXPECT_EQ(set.count(), 2U);
  set.AddRange(3 * kRegionBytes, 512);  // nothing new
  EXPECT_EQ(set.Take(3), LackSet::kWhole);
  set.AddRange(3 * kRegionBytes, 512);
  set.Add({3, 1});
  EXPECT_EQ(set.Take(3), LackSet::kWhole);
  // What was whole is not in part the next time.
  set.AddRange(3 * kRegionBytes, 512);
  EXPECT_EQ(set.Take(3), 1U);
  set.AddRange(kRegionBytes, 512);
  set.Clear();
  EXPECT(set.empty());
  // Nor what was in part when all was forgotten.
  set.Add({1, 1});
  EXPECT_EQ(set.Take(1), LackSet::kWhole);
  set.AddRange(0, kRegionBytes);
  EXPECT_EQ(set.Take(0), LackSet::kWhole);
}

TEST(engine_lack_set, AgainstAModel) {
  constexpr uint64_t kRegions = 8;
  constexpr uint64_t kParts = kRegions * 64;
  LackSet set(kRegions);
  std::bitset<kParts> model;
  std::mt19937 random(1);
  for (int step = 0; step < 20'000; ++step) {
    const uint64_t first = random() % kParts;
    const uint64_t most = random() % 4 == 0 ? kParts : 4;
    const uint64_t count = 1 + random() % std::min(kParts - first, most);
    const uint64_t region = random() % kRegions;
    const auto mask = [&] {
      return (model >> (region * 64) & std::bitset<kParts>(LackSet::kWhole)).to_ullong();
    };
    switch (random() % 5) {
      case 0:
      case 1:
        set.AddRange(first * kPart + 512, count * kPart - 512);
        for (uint64_t part = first; part < first + count; ++part) model[part] = true;
        break;
      case 2:
        if (random() % 8 != 0) break;
        set.Add({static_cast<uint32_t>(region), 1});
        for (uint64_t part = region * 64; part < region * 64 + 64; ++part) model[part] = true;
        break;
      case 3: {
        bool all = true;
        for (uint64_t part = first; part < first + count; ++part) all &= model[part];
        EXPECT_EQ(set.ContainsRange(first * kPart, count * kPart), all);
        break;
      }
      default:
        EXPECT_EQ(set.regions().Contains(region), mask() != 0);
        if (mask() == 0) break;
        EXPECT_EQ(set.Take(region), mask());
        for (uint64_t part = region * 64; part < region * 64 + 64; ++part) model[part] = false;
    }
    uint64_t regions = 0;
    for (uint64_t i = 0; i < kRegions; ++i) {
      regions += (model >> (i * 64) & std::bitset<kParts>(LackSet::kWhole)).any() ? 1 : 0;
    }
    EXPECT_EQ(set.count(), regions);
  }
}

}  // namespace
}  // namespace ankole::engine
