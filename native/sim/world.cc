#include "sim/world.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/check.h"

namespace ankole::sim {

void World::At(uint64_t time_ns, std::function<void()> what) {
  queue_.push_back({std::max(time_ns, now_ns_), ++number_, std::move(what)});
  std::push_heap(queue_.begin(), queue_.end(), Later);
}

bool World::Step(uint64_t limit_ns) {
  if (queue_.empty() || queue_.front().time_ns > limit_ns || failed()) return false;
  std::pop_heap(queue_.begin(), queue_.end(), Later);
  const Event event = std::move(queue_.back());
  queue_.pop_back();
  now_ns_ = event.time_ns;
  ++events_;
  Mix(now_ns_);
  event.what();
  return true;
}

void World::RunUntil(uint64_t time_ns) {
  while (Step(time_ns)) {
  }
  if (!failed()) now_ns_ = std::max(now_ns_, time_ns);
}

bool World::RunUntil(uint64_t time_ns, const std::function<bool()>& condition) {
  while (!condition()) {
    if (!Step(time_ns)) {
      if (!failed()) now_ns_ = std::max(now_ns_, time_ns);
      return condition();
    }
  }
  return true;
}

void World::Trace(const std::string& who, const std::string& what) {
  if (!tracing_) return;
  std::printf("%12.6f  %-12s %s\n", static_cast<double>(now_ns_) / 1e9, who.c_str(), what.c_str());
}

void World::Finding(const std::string& what) {
  if (failed()) return;
  char time[32];
  std::snprintf(time, sizeof(time), "at %.6f s: ", static_cast<double>(now_ns_) / 1e9);
  finding_ = time + what;
  Trace("FINDING", what);
}

}  // namespace ankole::sim
