#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/test.h"
#include "sim/machine.h"
#include "sim/processes.h"
#include "sim/reactor.h"

// Time, processes and files of a simulated world.
namespace ankole::sim {
namespace {

struct Bench {
  explicit Bench(uint64_t seed = 1) : world(seed), network(world), machine(world, network, "m") {
    CHECK(machine.disk.MakeDirectory("/d") == 0);
    machine.disk.SyncDirectory(machine.disk.root().get());
  }
  // A process that is not destroyed before the world is.
  SimReactor& Process(const std::string& name) {
    auto process = std::make_shared<SimReactor>(machine, name);
    Keep(process);
    return *process;
  }
  World world;
  Network network;
  Machine machine;
};

// Kept, as the late calls of a killed process refer to it.
struct FunctionJob : io::Job {
  std::function<void()> call;
  bool finished = false;
};

std::shared_ptr<FunctionJob> RunJob(SimReactor& process, std::function<void()> call) {
  auto job = std::make_shared<FunctionJob>();
  Keep(job);
  job->call = std::move(call);
  job->work = [](io::Job* self) { static_cast<FunctionJob*>(self)->call(); };
  job->done = [](io::Operation* self) { static_cast<FunctionJob*>(self)->finished = true; };
  process.Inside([&process, job] { process.Run(job.get()); });
  return job;
}

TEST(sim_world, EventsRunInTheOrderOfTimeThenOfAsking) {
  World world(1);
  std::string order;
  world.At(20, [&] { order += 'c'; });
  world.At(10, [&] {
    order += 'a';
    world.At(10, [&] { order += 'b'; });
  });
  world.At(20, [&] { order += 'd'; });
  world.RunUntil(15);
  EXPECT_EQ(order, std::string("ab"));
  world.RunUntil(100);
  EXPECT_EQ(order, std::string("abcd"));
  EXPECT_EQ(world.now_ns(), 100U);
}

TEST(sim_world, TimersFireNoEarlierByTheClockOfTheirMachine) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Bench bench(seed);
    SimReactor& process = bench.Process("p");
    struct Fired : io::Timer {
      SimReactor* reactor;
      uint64_t at_ns = 0;
    };
    auto timer = std::make_shared<Fired>();
    Keep(timer);
    timer->reactor = &process;
    timer->done = [](io::Operation* self) {
      static_cast<Fired*>(self)->at_ns = static_cast<Fired*>(self)->reactor->NowNs();
    };
    const uint64_t due_ns = process.NowNs() + 7 * kNsPerSecond;
    process.Inside([&] { process.Arm(timer.get(), due_ns); });
    bench.world.RunUntil(8 * kNsPerSecond);
    EXPECT(timer->at_ns >= due_ns && timer->at_ns < due_ns + 10 * kNsPerMs);
  }
}

TEST(sim_world, AFrozenProcessRunsNothingAndGoesOnAfterwards) {
  Bench bench;
  SimReactor& process = bench.Process("p");
  bool ran = false;
  process.FreezeUntil(kNsPerSecond);
  process.Inside([&] { ran = true; });
  const auto job = RunJob(process, [] {});
  bench.world.RunUntil(kNsPerSecond - 1);
  EXPECT(!ran && !job->finished);
  bench.world.RunUntil(2 * kNsPerSecond);
  EXPECT(ran && job->finished);
}

TEST(sim_world, JobsTakeTimeAtTheirFileCallsAndOthersRunMeanwhile) {
  Bench bench;
  SimReactor& process = bench.Process("p");
  std::string order;
  std::vector<std::shared_ptr<FunctionJob>> jobs;
  for (const char name : {'a', 'b'}) {
    jobs.push_back(RunJob(process, [&process, &order, name] {
      Result<io::File> file =
          process.files().Open(std::string("/d/") + name, {.write = true, .create = true});
      CHECK(file.ok());
      order += name;
      CHECK(process.files().WriteAt(file.value(), 0, "x", 1).ok());
      CHECK(process.files().Sync(file.value()).ok());
      order += name;
      process.files().Close(file.value());
    }));
  }
  bench.world.RunUntil(kNsPerSecond);
  EXPECT(jobs[0]->finished && jobs[1]->finished);
  // Both had begun before either ended.
  EXPECT(order[0] != order[1]);
}

TEST(sim_world, KillHitsBetweenAnyTwoFileCalls) {
  std::array<bool, 6> seen = {};
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Bench bench(seed);
    SimReactor& process = bench.Process("p");
    (void)RunJob(process, [&process] {
      for (char name = '0'; name < '5'; ++name) {
        CHECK(process.files().MakeDirectory(std::string("/d/") + name).ok());
      }
    });
    bench.world.RunUntil(bench.world.random.Below(150 * kNsPerUs));
    process.Kill(nullptr);
    bench.world.RunUntil(kNsPerSecond);
    size_t made = 0;
    InodePtr found;
    while (bench.machine.disk.Lookup("/d/" + std::to_string(made), &found) == 0) ++made;
    seen[made] = true;
  }
  for (const bool each : seen) EXPECT(each);
}

TEST(sim_world, ALockOutlivesTheLateWritesOfAKilledProcess) {
  bool late = false;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    Bench bench(seed);
    SimReactor& first = bench.Process("first");
    struct Write : io::FileOperation {
      char byte = 'x';
    };
    auto write = std::make_shared<Write>();
    Keep(write);
    write->done = [](io::Operation*) {};
    const auto locked = RunJob(first, [&first, write] {
      Result<io::File> lock = first.files().Open("/d/lock", {.write = true, .create = true});
      CHECK(lock.ok() && first.files().TryLock(lock.value()).ok());
      Result<io::File> data = first.files().Open("/d/data", {.write = true, .create = true});
      CHECK(data.ok());
      write->file = data.value();
    });
    CHECK(bench.world.RunUntil(kNsPerSecond, [&] { return locked->finished; }));
    bench.machine.faults.slow_until_ns = bench.world.now_ns() + 3 * kNsPerSecond;
    first.Inside([&first, write] {
      write->vectors[0] = {&write->byte, 1};
      write->vectors_count = 1;
      write->durable = true;
      first.Write(write.get());
    });
    bench.world.RunUntil(bench.world.now_ns() + kNsPerMs);
    const uint64_t killed_ns = bench.world.now_ns();
    bool reaped = false;
    first.Kill([&reaped] { reaped = true; });
    // Somebody else tries to get the lock, again and again.
    SimReactor& second = bench.Process("second");
    uint64_t got_ns = 0;
    (void)RunJob(second, [&] {
      Result<io::File> lock = second.files().Open("/d/lock", {.write = true});
      CHECK(lock.ok());
      while (!second.files().TryLock(lock.value()).ok()) {
        second.Blocking(kNsPerMs, 0, [] {});
      }
      got_ns = bench.world.now_ns();
    });
    const auto written = [&] {
      InodePtr data;
      return bench.machine.disk.Lookup("/d/data", &data) == 0 && data->size_bytes > 0;
    };
    CHECK(bench.world.RunUntil(killed_ns + 10 * kNsPerSecond, [&] { return got_ns != 0; }));
    EXPECT(reaped);
    const bool before = written();
    late |= before && got_ns > killed_ns + kNsPerSecond;
    bench.world.RunUntil(killed_ns + 20 * kNsPerSecond);
    // Nothing lands once the lock was to be had.
    EXPECT_EQ(written(), before);
  }
  EXPECT(late);
}

TEST(sim_world, APowerLossEndsProcessesAndChangesTheBootId) {
  Bench bench;
  SimReactor& process = bench.Process("p");
  const std::string boot_id = bench.machine.boot_id();
  bool ran = false;
  const auto job = RunJob(process, [&process] {
    for (int i = 0; i < 1000; ++i) CHECK(process.files().Info("/d").ok());
  });
  bench.world.RunUntil(kNsPerMs);
  bench.machine.LosePower();
  process.Inside([&] { ran = true; });
  bench.world.RunUntil(kNsPerSecond);
  bench.machine.Boot();
  bench.world.RunUntil(2 * kNsPerSecond);
  EXPECT(!ran && !job->finished && !process.alive());
  EXPECT(bench.machine.boot_id() != boot_id);
}

}  // namespace
}  // namespace ankole::sim
