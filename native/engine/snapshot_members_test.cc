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

// Writers that go on until they are told to stop, at random places.
struct Writers {
  explicit Writers(Bench& of, int depth) : bench(of) {
    bench.On([&] {
      for (int i = 0; i < depth; ++i) {
        ++under_way;
        Request* request =
            bench.SubmitHere(BlockOperation::kWrite, uint64_t{4096} * i, 4096, uint8_t(i));
        request->then = [this](Request* self) { Again(self); };
      }
    });
  }
  void Again(Request* request) {
    if (request->status != ErrorCode::kOk) test::Fail(__FILE__, __LINE__, "a write failed");
    ++written;
    if (stop) {
      --under_way;
      return;
    }
    random = random * 6364136223846793005 + 1442695040888963407;
    request->offset_bytes = (random >> 33) % (Bench::kSizeBytes / 4096) * 4096;
    std::memset(request->chunk->data, static_cast<int>(random >> 56), 4096);
    --request->runs;
    bench.engine->Submit(request);
  }
  void Stop() {
    bench.On([&] { stop = true; });
    EXPECT(bench.Until([&] { return under_way == 0; }));
  }

  Bench& bench;
  bool stop = false;
  int under_way = 0;
  uint64_t written = 0;
  uint64_t random = 7;
};

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
