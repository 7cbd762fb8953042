#pragma once

#include <cstdint>
#include <string>

#include "sim/cluster.h"

namespace ankole::sim {

// Makes the volume larger while its clients write, and judges what becomes of it: what clients have
// seen of its size no later engine takes back, and an order comes to an end. That the new part
// reads as zeros until it is written is Load's to judge, as for all else.
class Expansions {
 public:
  // What the volume has at first, of at most `size_bytes`; the same: nothing grows. `seed`: of a
  // source of chance of its own, so that such a run is what it was.
  static uint64_t FirstBytes(uint64_t seed, uint64_t size_bytes);

  Expansions(Cluster& cluster, uint64_t seed);

  bool on() const { return cluster_.options.first_bytes < cluster_.options.size_bytes; }
  std::string Describe() const;
  void Start();
  void Stop() { running_ = false; }
  // None is under way.
  bool idle() const { return !cluster_.expanding(); }

 private:
  void NextLater();
  void Next();
  uint64_t NextBytes();
  void OnSize(const EngineProcess& engine, uint64_t size_bytes);
  void OnEngineReady(EngineProcess* engine);

  Cluster& cluster_;
  Random random_;
  bool running_ = false;
  uint64_t turn_ = 0;
  uint64_t pause_ns_ = 0;
  // The largest that clients have seen, and the first epoch in which they did.
  uint64_t seen_bytes_ = 0;
  wire::Epoch seen_epoch_;
};

}  // namespace ankole::sim
