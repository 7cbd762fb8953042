#include "replica/mask_file.h"

#include <random>

#include "replica/replica_testing.h"

namespace ankole::replica {
namespace {

TEST(replica_mask_file, agrees_with_a_plain_array_and_comes_back) {
  const auto files = io::MakePosixFileSystem();
  const std::string directory = test::TemporaryDirectory();
  const std::string path = directory + "/m";
  std::mt19937_64 random(test::Seed());
  constexpr uint64_t kBlocks = 3 * kMaskSectorBlocks + 100;
  std::vector<bool> model(kBlocks);
  Result<MaskFile> created = MaskFile::Create(*files, directory, "m", kBlocks);
  ASSERT_OK(created);
  created.value().Close(*files);
  EXPECT_EQ(files->Info(path).value().allocated_bytes, 4096U);
  for (int round = 0; round < 30; ++round) {
    Result<MaskFile> masks = MaskFile::Open(*files, path, kBlocks);
    ASSERT_OK(masks);
    std::vector<bool> found(kBlocks);
    masks.value().ForEachRun([&](uint64_t block, uint64_t blocks) {
      while (blocks-- > 0) found[block++] = true;
    });
    ASSERT(found == model);
    for (int i = 0; i < 10; ++i) {
      const uint64_t block = random() % kBlocks;
      const uint64_t blocks =
          1 + random() % std::min<uint64_t>(kBlocks - block, i == 0 ? 5000 : 30);
      ASSERT_OK(masks.value().Set(*files, block, blocks));
      std::fill_n(model.begin() + static_cast<ptrdiff_t>(block), blocks, true);
      EXPECT_EQ(masks.value().Get(block + blocks - 1), true);
    }
    ASSERT_OK(masks.value().Sync(*files));
    masks.value().Close(*files);
  }
}

TEST(replica_mask_file, a_damaged_sector_is_corrupt) {
  const auto files = io::MakePosixFileSystem();
  const std::string directory = test::TemporaryDirectory();
  Result<MaskFile> masks = MaskFile::Create(*files, directory, "m", 10'000);
  ASSERT_OK(masks);
  ASSERT_OK(masks.value().Set(*files, 5000, 10));
  masks.value().Close(*files);
  const Result<io::File> file = files->Open(directory + "/m", {.write = true});
  ASSERT_OK(file);
  // One bit more, in a sector that has bits.
  ASSERT_OK(files->WriteAt(file.value(), kMaskSectorBytes + 3, "\1", 1));
  files->Close(file.value());
  EXPECT_EQ(MaskFile::Open(*files, directory + "/m", 10'000).status().code(), ErrorCode::kCorrupt);
  EXPECT_EQ(MaskFile::Open(*files, directory + "/n", 10'000).status().code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace ankole::replica
