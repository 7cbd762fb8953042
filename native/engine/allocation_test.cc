#include <atomic>
#include <cstdlib>
#include <new>

#include "base/sanitizers.h"
#include "engine/engine_testing.h"

// Nothing is allocated for an I/O by engine and disk hosts: every operator new of the test binary
// is counted. A block status alone has one, the buffer of FIEMAP on the pool's thread.
#if !defined(ANKOLE_ASAN) && !defined(ANKOLE_TSAN)
#define ANKOLE_COUNTS_ALLOCATIONS 1

namespace {
std::atomic<bool> counting = false;
std::atomic<long> allocations = 0;

void* Allocate(size_t bytes) {
  if (counting.load(std::memory_order_relaxed)) ++allocations;
  void* memory = std::malloc(bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
}  // namespace

void* operator new(size_t bytes) { return Allocate(bytes); }
void* operator new[](size_t bytes) { return Allocate(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
#endif

namespace ankole::engine::testing {
namespace {

TEST(engine_allocation, NothingIsAllocatedForARequest) {
#ifndef ANKOLE_COUNTS_ALLOCATIONS
  test::Skip("a sanitizer allocates on its own account");
#else
  struct Kind {
    const char* name;
    BlockOperation operation;
    uint32_t length;
  };
  Bench bench;
  for (int i = 0; i < 3; ++i) bench.AddReal();
  ASSERT(bench.StartAndWait());
  for (const Kind& kind :
       {Kind{"write 4 KiB", BlockOperation::kWrite, 4096},
        Kind{"read 4 KiB", BlockOperation::kRead, 4096},
        Kind{"write 256 KiB", BlockOperation::kWrite, 256 * 1024},
        Kind{"read 256 KiB", BlockOperation::kRead, 256 * 1024},
        Kind{"zero", BlockOperation::kZero, 65536}, Kind{"unmap", BlockOperation::kUnmap, 65536},
        Kind{"flush", BlockOperation::kFlush, 0}, Kind{"status", BlockOperation::kStatus, 65536}}) {
    const bool plain = kind.length == 4096;
    const int warm = plain ? 2000 : 100;
    const int counted = plain ? 10'000 : 300;
    int begun = 0;
    std::atomic<int> finished = 0;
    bench.On([&] {
      for (int i = 0; i < 16; ++i) {
        ++begun;
        Request* request = bench.SubmitHere(kind.operation, kind.length * static_cast<uint64_t>(i),
                                            kind.length, 1);
        request->then = [&](Request* self) {
          if (self->status != ErrorCode::kOk) test::Fail(__FILE__, __LINE__, "it failed");
          if (++finished == warm) {
            allocations = 0;
            counting = true;
          }
          if (finished == warm + counted) counting = false;
          if (begun == warm + counted) return;
          ++begun;
          --self->runs;
          bench.engine->Submit(self);
        };
      }
    });
    // Without looking in: that allocates.
    for (int i = 0; i < 1000 && finished < warm + counted; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      if (!counting && finished >= warm + counted) break;
    }
    ASSERT(bench.Until([&] { return finished == begun; }));
    const long allowed = kind.operation == BlockOperation::kStatus ? counted : 0;
    if (allocations > allowed) {
      test::Fail(__FILE__, __LINE__,
                 std::string(kind.name) + ": " + std::to_string(allocations) + " allocations in " +
                     std::to_string(counted) + " requests");
    }
  }
#endif
}

// Whoever looks for late members at each tick comes by all that waits.
TEST(engine_allocation, NothingIsAllocatedWhileAMemberIsWaitedFor) {
#ifndef ANKOLE_COUNTS_ALLOCATIONS
  test::Skip("a sanitizer allocates on its own account");
#else
  Bench bench;
  for (int i = 0; i < 2; ++i) bench.AddScripted();
  ScriptedReplica& slow = bench.AddScripted();
  ASSERT(bench.StartAndWait());
  slow.verdict = [](const wire::Header& header) {
    const bool holds = header.opcode == wire::Opcode::kWrite;
    return Verdict{holds ? Verdict::What::kHold : Verdict::What::kServe, ErrorCode::kOk};
  };
  std::vector<Request*> writes;
  for (uint64_t i = 0; i < 8; ++i) {
    writes.push_back(bench.Submit(BlockOperation::kWrite, i * 4096, 4096, 1));
  }
  ASSERT(bench.Until([&] { return slow.held() == writes.size(); }));
  int ticks = 0;
  const bool ticked = bench.Until([&] {
    // From the first look on, as Until itself allocates.
    if (!counting) {
      ticks = bench.engine_reactor->arms + 4;
      allocations = 0;
      counting = true;
    }
    if (bench.engine_reactor->arms < ticks) return false;
    counting = false;
    return true;
  });
  counting = false;
  EXPECT(ticked);
  EXPECT_EQ(allocations.load(), 0);
  bench.On([&] { slow.Release(); });
  for (Request* write : writes) EXPECT(bench.Wait(write) && write->status == ErrorCode::kOk);
#endif
}

}  // namespace
}  // namespace ankole::engine::testing
