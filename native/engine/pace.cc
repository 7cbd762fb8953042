#include "engine/pace.h"

#include <algorithm>

#include "base/units.h"

namespace ankole::engine {
namespace {

// What a walk that was held up may make up for at once.
constexpr uint64_t kBurstNs = 250 * kNsPerMs;

}  // namespace

void Pace::Set(uint64_t bytes_per_second, uint64_t now_ns) {
  rate_ = bytes_per_second;
  budget_bytes_ = 0;
  budget_ns_ = now_ns;
}

uint64_t Pace::WaitNs(uint64_t now_ns) {
  if (rate_ == 0) return 0;
  const double earned =
      static_cast<double>(now_ns - budget_ns_) / kNsPerSecond * static_cast<double>(rate_);
  if (earned >= 1) {
    const double burst = std::max(static_cast<double>(rate_) * kBurstNs / kNsPerSecond, 1.0);
    budget_bytes_ =
        static_cast<int64_t>(std::min(static_cast<double>(budget_bytes_) + earned, burst));
    budget_ns_ = now_ns;
  }
  if (budget_bytes_ > 0) return 0;
  const double lacking = static_cast<double>(1 - budget_bytes_) / static_cast<double>(rate_);
  return std::max<uint64_t>(static_cast<uint64_t>(lacking * kNsPerSecond), kNsPerMs);
}

void Pace::Spend(uint64_t bytes) {
  if (rate_ != 0) budget_bytes_ -= static_cast<int64_t>(bytes);
}

}  // namespace ankole::engine
