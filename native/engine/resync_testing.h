#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/several_testing.h"

// For the tests of what makes replicas equal: an engine with scripted replicas that
// go away and come back.
namespace ankole::engine::testing {

inline constexpr uint32_t kMiB32 = static_cast<uint32_t>(kMiB);

struct ReturningReplicas : SomeReplicas {
  explicit ReturningReplicas(size_t count) : SomeReplicas(count, 300) {}
  bool WaitForMembers(size_t count, int limit_ms = 10'000);
  void Leave(size_t i);
  void Return(size_t i);
  bool Same();
};

template <size_t kCount>
struct Scripted : ReturningReplicas {
  Scripted() : ReturningReplicas(kCount) {}
};

}  // namespace ankole::engine::testing
