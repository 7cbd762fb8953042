#include "replica/block_map.h"

#include <random>
#include <vector>

#include "base/test.h"

namespace ankole::replica {
namespace {

TEST(replica_block_map, agrees_with_a_plain_array_under_random_operations) {
  std::mt19937_64 random(test::Seed());
  constexpr uint64_t kBlocks = 20 * BlockMap::kChunkBlocks + 17;
  constexpr uint16_t kLayers[] = {0, 1, 2, 64'999, BlockMap::kZero};
  BlockMap map;
  ASSERT_OK(map.Reserve(kBlocks));
  std::vector<uint16_t> model(kBlocks, 0);
  for (int step = 0; step < 20'000; ++step) {
    const uint64_t block = random() % kBlocks;
    const uint64_t longest = step % 10 == 0 ? 3 * BlockMap::kChunkBlocks : 40;
    const uint64_t blocks = 1 + random() % std::min(longest, kBlocks - block);
    switch (random() % 3) {
      case 0: {
        const uint16_t layer = kLayers[random() % std::size(kLayers)];
        map.Set(block, blocks, layer);
        std::fill_n(model.begin() + static_cast<ptrdiff_t>(block), blocks, layer);
        break;
      }
      case 1: {
        const BlockMap::Run run = map.Find(block, blocks);
        uint64_t same = 0;
        while (same < blocks && model[block + same] == model[block]) ++same;
        ASSERT(run.layer == model[block] && run.blocks == same);
        break;
      }
      default:
        ASSERT(map.Layer(block) == model[block]);
    }
    if (step % 1000 == 999) map.Compact();
  }
  for (uint64_t block = 0; block < kBlocks; ++block) ASSERT(map.Layer(block) == model[block]);
}

TEST(replica_block_map, one_layer_needs_no_memory) {
  const BlockMap map;
  EXPECT_EQ(map.Layer(123), 0);
  const BlockMap::Run run = map.Find(5, 1'000'000);
  EXPECT(run.layer == 0 && run.blocks == 1'000'000);
}

TEST(replica_block_map, chunks_in_one_layer_need_no_leaf) {
  BlockMap map;
  ASSERT_OK(map.Reserve(64 * kTiB / kBlockBytes));
  EXPECT_EQ(map.CountLeaves(), 0U);
  map.Set(0, 10 * BlockMap::kChunkBlocks, 3);
  EXPECT_EQ(map.CountLeaves(), 0U);
  map.Set(5, 1, 4);
  EXPECT_EQ(map.CountLeaves(), 1U);
  map.Set(5, 1, 3);
  map.Compact();
  EXPECT_EQ(map.CountLeaves(), 0U);
  EXPECT_EQ(map.Layer(5), 3);
}

}  // namespace
}  // namespace ankole::replica
