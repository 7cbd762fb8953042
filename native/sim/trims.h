#pragma once

#include <cstdint>
#include <string>

#include "sim/cluster.h"

namespace ankole::sim {

// Who has the volume trimmed while all else goes on; and judges that a trim comes to its end, and
// that one that looked at everything left nothing. That no content changes by it is Load's to
// judge, as for all else.
class Trims {
 public:
  // `seed`: of a source of chance of its own, so that a run without them is what it was.
  Trims(Cluster& cluster, uint64_t seed);

  bool on() const { return on_; }
  std::string Describe() const;
  void Start();
  void Stop() { running_ = false; }
  // Begins one that goes through all of it, at full speed.
  void Last();
  // What was begun last has ended, or its engine is gone.
  bool idle() const;

 private:
  void NextLater();
  void Next();
  void Begin(EngineProcess* engine, uint64_t bytes_per_second);

  Cluster& cluster_;
  Random random_;
  bool on_ = false;
  bool running_ = false;
  uint64_t turn_ = 0;
  uint64_t pause_ns_ = 0;
  uint64_t trims_ = 0;
};

}  // namespace ankole::sim
