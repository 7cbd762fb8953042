#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <random>

#include "base/test.h"
#include "engine/region_table.h"

// What the table of dirty regions costs a write at the engine: 4 KiB at random over 10 GiB, which
// are 2560 regions, in the steady state. Runs only when asked for: ANKOLE_BENCH=1 tests
// region_bench. That of the replicas' maps: replica/bench_test.cc.
namespace ankole::engine {
namespace {

constexpr uint64_t kSize = 10 * kGiB;
constexpr int kWrites = 20'000'000;

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

TEST(region_bench, random_writes_over_a_working_set_of_ten_gib) {
  if (std::getenv("ANKOLE_BENCH") == nullptr) return test::Skip("set ANKOLE_BENCH=1 to measure");
  RegionTable table(kSize);
  std::mt19937_64 random{1};
  const auto write = [&](uint64_t now_ns) {
    const RegionRun run = RegionsOf(random() % (kSize / 4096) * 4096, 4096);
    EXPECT(table.Pin(run, now_ns));
    table.Unpin(run, now_ns);
  };
  for (uint64_t i = 0; i < 100'000; ++i) write(i);
  const double before = CpuSeconds();
  for (uint64_t i = 0; i < kWrites; ++i) write(i);
  std::printf("pin and unpin: %.4f us of CPU a write\n", (CpuSeconds() - before) * 1e6 / kWrites);
}

}  // namespace
}  // namespace ankole::engine
