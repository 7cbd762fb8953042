#include <algorithm>

#include "engine/snapshot_testing.h"

// Snapshots of real replicas: what is frozen is the same at all members, while clients write.
namespace ankole::engine::testing {
namespace {

std::string WholeFile(const std::string& path) {
  std::string content;
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return content;
  content.resize(Bench::kSizeBytes);
  content.resize(std::fread(content.data(), 1, content.size(), file));
  std::fclose(file);
  return content;
}

TEST(engine_snapshot_members, AllFreezeTheSameWhileClientsWrite) {
  Snapshots<0> snapshots;
  Bench& bench = snapshots.bench;
  std::vector<RealReplica*> members;
  for (int i = 0; i < 3; ++i) members.push_back(&bench.AddReal());
  ASSERT(bench.StartAndWait());
  Writers writers(bench, 16);
  const std::vector<std::string> names = {"one", "two", "three", "four", "five"};
  uint64_t before = 0;
  for (const std::string& name : names) {
    ASSERT(bench.Until([&] { return writers.written > before + 300; }));
    ASSERT(Good(snapshots.Take(name)));
    bench.On([&] { before = writers.written; });
  }
  ASSERT(bench.Until([&] { return writers.written > before + 300; }));
  // One between two others, and the one under the head.
  ASSERT(Good(snapshots.Delete("five")));
  writers.Stop();
  ASSERT(bench.Stop());
  std::string lower;
  for (const std::string& name : names) {
    const auto content = [&](size_t i) {
      return WholeFile(members[i]->directory() + "/volume-snap-" + name + ".img");
    };
    const std::string first = content(0);
    EXPECT_EQ(first.size(), Bench::kSizeBytes);
    EXPECT(first != lower);
    lower = first;
    // What the head has anew may have been punched out already, here and not yet there.
    if (name == "five") continue;
    for (size_t i = 1; i < members.size(); ++i) EXPECT(content(i) == first);
  }
  const std::string head = WholeFile(members[0]->directory() + "/volume-head-005.img");
  for (const RealReplica* member : members) {
    EXPECT(WholeFile(member->directory() + "/volume-head-005.img") == head);
  }
  // The next engine goes on from there.
  ASSERT(bench.StartAndWait());
  ASSERT(Good(snapshots.Take("six")));
  EXPECT_EQ(bench.Complete().newest_snapshot, "six");
}

}  // namespace
}  // namespace ankole::engine::testing
