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

}  // namespace
}  // namespace ankole::engine::testing
