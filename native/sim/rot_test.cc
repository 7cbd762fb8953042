#include "sim/rot.h"

#include <cstring>
#include <memory>

#include "base/test.h"
#include "sim/cluster.h"

// Which copies of a block count as good.
namespace ankole::sim {
namespace {

// Replicas and an engine, which the test starts and stops. Kept, as processes that were killed
// refer to it.
struct Bench {
  Bench(uint64_t seed, size_t replicas)
      : world(seed), cluster(world, Options(replicas)), rot(cluster) {
    cluster.rot = &rot;
    CHECK(cluster.MakeReplicas());
    cluster.Attach(*cluster.machines().back());
    Await([this] { return Serving(); });
  }
  static Cluster::Options Options(size_t replicas) {
    Cluster::Options options;
    options.replicas = replicas;
    options.hosts = 1;
    options.size_bytes = kMiB;
    return options;
  }
  bool Serving() { return cluster.engine() != nullptr && cluster.engine()->ready(); }
  template <typename Condition>
  void Await(Condition condition) {
    CHECK(world.RunUntil(world.now_ns() + 60 * kNsPerSecond, condition));
  }

  void Write(uint64_t offset_bytes, uint64_t length_bytes, uint8_t fill = 'w') {
    struct Request : BlockRequest {
      bool over = false;
    };
    auto request = std::make_shared<Request>();
    Keep(request);
    request->operation = BlockOperation::kWrite;
    request->force_unit_access = true;
    request->offset_bytes = offset_bytes;
    request->length_bytes = length_bytes;
    request->done = [](BlockRequest* done) { static_cast<Request*>(done)->over = true; };
    EngineProcess* const engine = cluster.engine();
    rot.Changes(offset_bytes, length_bytes);
    engine->reactor.Inside([engine, request, fill] {
      request->data = engine->engine().buffers().Acquire(request->length_bytes)->data;
      std::memset(request->data, fill, request->length_bytes);
      engine->engine().Submit(request.get());
    });
    Await([&] { return request->over; });
    EXPECT(request->status == ErrorCode::kOk);
    rot.Overwritten(offset_bytes, length_bytes);
  }

  // Stopped clean, all regions are clean and have checksums. Then bits flip, as long as that leaves
  // a good copy or of all copies; and the engine starts again.
  void FlipStopped(bool everywhere = false) {
    EngineProcess* const engine = cluster.engine();
    cluster.StopEngine();
    Await([engine] { return engine->stopped(); });
    EXPECT(engine->clean());
    for (int i = 0; i < 30; ++i) rot.Strike(1, everywhere);
    cluster.KillEngine(0);
    Await([this] { return Serving(); });
  }

  World world;
  Cluster cluster;
  Rot rot;
};

TEST(sim_rot, ACopyThatWasChangedInPartStaysBadUntilItIsWrittenAsAWhole) {
  auto bench = std::make_shared<Bench>(1, 2);
  Keep(bench);
  bench->Write(0, kBlockBytes);
  bench->FlipStopped();
  EXPECT_EQ(bench->rot.flips(), 1U);
  // Wherever it was, the flipped bit is written over; the replica cannot know that it was that.
  bench->Write(0, kBlockBytes / 2);
  bench->Write(kBlockBytes / 2, kBlockBytes / 2);
  bench->FlipStopped();
  EXPECT_EQ(bench->rot.flips(), 1U);
  EXPECT(!bench->rot.IsLost(0));
  bench->Write(0, kBlockBytes);
  bench->FlipStopped();
  EXPECT_EQ(bench->rot.flips(), 2U);
}

TEST(sim_rot, WhatIsWrittenOverABlockIsNoFlipWhateverItIs) {
  auto bench = std::make_shared<Bench>(1, 1);
  Keep(bench);
  bench->Write(0, kBlockBytes);
  bench->FlipStopped(true);
  EXPECT_EQ(bench->rot.flips(), 1U);
  EXPECT(bench->rot.IsLost(0));
  // One of these is the value of the byte that flipped.
  for (int fill = 0; fill < 256; ++fill) {
    bench->Write(0, kBlockBytes, static_cast<uint8_t>(fill));
    EXPECT_EQ(bench->rot.Unrepaired(), std::string());
  }
}

}  // namespace
}  // namespace ankole::sim
