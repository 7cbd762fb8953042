#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace ankole::sim {

struct Outcome {
  std::string finding;   // empty: none
  std::string settings;  // what the seed chose, in a line
  uint64_t virtual_ns = 0;
  uint64_t events = 0;
  uint64_t answered = 0;     // requests of clients
  uint64_t fingerprint = 0;  // the same each time
};

// One run: a cluster, its load and its faults, all by the seed. `block`: the trace tells what
// becomes of that block of the volume.
Outcome RunSeed(uint64_t seed, bool trace, std::optional<uint64_t> block = std::nullopt);

}  // namespace ankole::sim
