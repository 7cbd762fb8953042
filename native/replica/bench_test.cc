#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "io/reactor_testing.h"
#include "replica/replica_testing.h"

// What the dirty map costs a write: 4 KiB at random over a sparse volume of 10 GiB, at queue depth
// 32, in the steady state and where each write is the first in its region. Runs only when asked
// for: ANKOLE_BENCH=1 tests replica_bench. Figures of a shared machine: compare builds in turn, by
// CPU time. ANKOLE_BENCH_DIRECTORY says where; a disk's own sync shows in the second figure only.
namespace ankole::replica {
namespace {

constexpr uint64_t kSize = 10 * kGiB;
constexpr uint64_t kRegionsOfSize = kSize / kRegionBytes;
constexpr size_t kDepth = 32;
constexpr int kWrites = 200'000;

struct Load {
  Load(Replica& of, io::Reactor& on) : replica(of), reactor(on) {}

  Replica& replica;
  io::Reactor& reactor;
  std::mt19937_64 random{1};
  int left = 0;
  int done = 0;
  int wanted = 0;
  bool fresh_regions = false;
  uint64_t next_region = 0;
  std::array<std::byte, 4096> data = {};
  std::array<ReplicaOperation, kDepth> operations;

  void Submit(ReplicaOperation* operation) {
    --left;
    operation->kind = OperationKind::kWrite;
    operation->length_bytes = 4096;
    operation->data = data.data();
    operation->owner = this;
    // A stride that is prime to their number comes to each region once, and to no neighbour.
    operation->offset_bytes = fresh_regions ? next_region++ * 1021 % kRegionsOfSize * kRegionBytes
                                            : random() % (kSize / 4096) * 4096;
    operation->done = [](ReplicaOperation* self) {
      auto* load = static_cast<Load*>(self->owner);
      EXPECT_EQ(self->status, ErrorCode::kOk);
      if (load->left > 0) load->Submit(self);
      if (++load->done == load->wanted) load->reactor.Stop();
    };
    replica.Submit(operation);
  }
  void Run(int writes, size_t depth) {
    left = wanted = writes;
    done = 0;
    for (size_t i = 0; i < depth; ++i) Submit(&operations[i]);
    reactor.Loop();
  }
};

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

// What a write in the steady state asks the map, CPU time each.
double LookUpUs(const RegionMap& regions) {
  constexpr int kLookUps = 20'000'000;
  std::mt19937_64 random{1};
  const double before = CpuSeconds();
  uint64_t dirty = 0;
  for (int i = 0; i < kLookUps; ++i) {
    const RegionRange range = RegionsOf(random() % (kSize / 4096) * 4096, 4096);
    dirty += regions.AllDirty(range) ? 1 : 0;
  }
  const double with = CpuSeconds() - before;
  EXPECT_EQ(dirty, uint64_t{kLookUps});
  return with * 1e6 / kLookUps;
}

TEST(replica_bench, random_writes_over_a_working_set_of_ten_gib) {
  if (std::getenv("ANKOLE_BENCH") == nullptr) return test::Skip("set ANKOLE_BENCH=1 to measure");
  auto made = io::MakeReactor(
      {.backend = io::Backend::kEpoll, .probe_directory = test::TemporaryDirectory()});
  ASSERT_OK(made);
  io::Reactor& reactor = *made.value();
  const char* where = std::getenv("ANKOLE_BENCH_DIRECTORY");
  const std::string directory =
      (where == nullptr ? test::TemporaryDirectory() : std::string(where)) + "/bench-replica";
  ASSERT_OK(Replica::Destroy(reactor.files(), directory));
  ASSERT_OK(Replica::Create(reactor.files(), directory, TestIdentity(), kSize));
  {
    Driver driver(reactor.files(), reactor, directory);
    ASSERT_OK(driver.status());
    Load load(driver.replica(), reactor);
    for (const size_t depth : {size_t{1}, kDepth}) {
      const auto count = static_cast<int>(kRegionsOfSize / 2);
      load.fresh_regions = true;
      const uint64_t start_ns = reactor.NowNs();
      load.Run(count, depth);
      std::printf("first write in a region, depth %zu: %.1f us each\n", depth,
                  static_cast<double>(reactor.NowNs() - start_ns) / 1e3 / count);
    }
    load.fresh_regions = false;
    load.Run(kWrites / 10, kDepth);
    std::vector<double> cpu_us;
    std::vector<double> iops;
    for (int round = 0; round < 5; ++round) {
      const uint64_t start_ns = reactor.NowNs();
      const double cpu = CpuSeconds();
      load.Run(kWrites, kDepth);
      cpu_us.push_back((CpuSeconds() - cpu) * 1e6 / kWrites);
      iops.push_back(kWrites * 1e9 / static_cast<double>(reactor.NowNs() - start_ns));
    }
    std::sort(cpu_us.begin(), cpu_us.end());
    std::sort(iops.begin(), iops.end());
    std::printf("steady state: %.3f us of CPU a write (least %.3f), %.0f IOPS (median of 5)\n",
                cpu_us[2], cpu_us[0], iops[2]);
    const double map_us = LookUpUs(driver.replica().regions());
    std::printf("the map's part of it: %.4f us, %.2f %%\n", map_us, 100 * map_us / cpu_us[2]);
  }
  ASSERT_OK(Replica::Destroy(reactor.files(), directory));
}

}  // namespace
}  // namespace ankole::replica
