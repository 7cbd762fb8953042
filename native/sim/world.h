#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"
#include "sim/random.h"

// Virtual time. All that happens in a simulated world is an event of this one queue, run by the one
// thread; nothing in it looks at the real clock, so that a seed fixes the whole run.
namespace ankole::sim {

class World {
 public:
  explicit World(uint64_t seed) : random(seed) {}
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  uint64_t now_ns() const { return now_ns_; }
  // Events of one instant run in the order in which they were asked for.
  void At(uint64_t time_ns, std::function<void()> what);
  void After(uint64_t delay_ns, std::function<void()> what) {
    At(now_ns_ + delay_ns, std::move(what));
  }
  // Until that time, or a finding.
  void RunUntil(uint64_t time_ns);
  // Until `condition` is true after an event (looked at after each), a finding, or that time. What
  // the condition then is.
  bool RunUntil(uint64_t time_ns, const std::function<bool()>& condition);

  // A line of the trace; `who` did or met `what`. Cheap when nobody reads: ask tracing() before
  // text is built for it.
  bool tracing() const { return tracing_; }
  void set_tracing(bool tracing) { tracing_ = tracing; }
  // A block of the volume that the trace is to tell of whenever what replicas have of it changes.
  std::optional<uint64_t> traced_block;
  void Trace(const std::string& who, const std::string& what);

  // Something that must not be. The run ends with the first one.
  void Finding(const std::string& what);
  bool failed() const { return !finding_.empty(); }
  const std::string& finding() const { return finding_; }

  // Grows with every event that a checker may have to order.
  uint64_t Tick() { return ++tick_; }
  uint64_t events() const { return events_; }
  // The same for two runs of one seed, or something looked at what is not simulated.
  uint64_t fingerprint() const { return fingerprint_; }
  void Mix(uint64_t value) { fingerprint_ = (fingerprint_ ^ value) * 0x100000001b3; }

  Random random;

 private:
  struct Event {
    uint64_t time_ns;
    uint64_t number;
    std::function<void()> what;
  };
  static bool Later(const Event& a, const Event& b) {
    return a.time_ns != b.time_ns ? a.time_ns > b.time_ns : a.number > b.number;
  }
  bool Step(uint64_t limit_ns);

  uint64_t now_ns_ = 0;
  uint64_t tick_ = 0;
  uint64_t events_ = 0;
  uint64_t number_ = 0;
  uint64_t fingerprint_ = 0xcbf29ce484222325;
  std::vector<Event> queue_;  // a heap
  bool tracing_ = false;
  std::string finding_;
};

}  // namespace ankole::sim
