#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

// The one source of chance in a run: the same seed gives the same numbers on every machine.
namespace ankole::sim {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  // SplitMix64 (Steele, Lea, Flood 2014).
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // 0 to below - 1; `below` > 0. The bias of the remainder does not matter here.
  uint64_t Below(uint64_t below) { return Next() % below; }
  // Both included.
  uint64_t Between(uint64_t least, uint64_t most) { return least + Below(most - least + 1); }
  bool Chance(uint64_t of, uint64_t in) { return Below(in) < of; }
  // Mostly near `least`, now and then up to `most`: as latencies are.
  uint64_t Skewed(uint64_t least, uint64_t most) {
    uint64_t span = most - least;
    for (int i = 0; i < 4 && Chance(1, 2); ++i) span /= 4;
    return least + Below(span + 1);
  }
  void Fill(void* to, size_t bytes) {
    auto* out = static_cast<char*>(to);
    while (bytes > 0) {
      const uint64_t word = Next();
      const size_t part = bytes < sizeof(word) ? bytes : sizeof(word);
      std::memcpy(out, &word, part);
      out += part;
      bytes -= part;
    }
  }

 private:
  uint64_t state_;
};

}  // namespace ankole::sim
