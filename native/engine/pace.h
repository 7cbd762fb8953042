#pragma once

#include <cstdint>

namespace ankole::engine {

// How much of what goes on in the background may be begun now, so that it keeps to a rate. What was
// held up makes up for at most 250 ms at once. In nanoseconds of the reactor's clock.
class Pace {
 public:
  // 0: as fast as it goes.
  void Set(uint64_t bytes_per_second, uint64_t now_ns);
  // 0: something may be begun now; else for how long nothing may.
  uint64_t WaitNs(uint64_t now_ns);
  // Of what was begun, or done; once it is known.
  void Spend(uint64_t bytes);

 private:
  uint64_t rate_ = 0;
  int64_t budget_bytes_ = 0;  // what may be spent now; below 0: it has to wait
  uint64_t budget_ns_ = 0;    // when it was filled up last
};

}  // namespace ankole::engine
