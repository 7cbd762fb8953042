#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "wire/record.h"

namespace ankole::engine {

// What rule 2 counts: the members of the last complete record, and those of every proposal since.
// A record that is written by all its members is complete by them alone when they are more than
// half of each of these sets: whoever else went on from one of the sets, or does later, meets one
// of them.
class Ballot {
 public:
  // As a start finds it. `proposals` may name the same members several times.
  void Begin(const wire::Members& complete, const std::vector<wire::Members>& proposals);
  void Propose(const wire::Members& members);
  void Complete(const wire::Members& members);

  // Whether `members` are a strict majority of every set. An empty set asks for nothing.
  bool Carries(const wire::Members& members) const;

  // No set has a second member: whoever answers is all there is.
  bool single() const;

  // The latest time that a strict majority of every set has reached, where At(id) is that of one
  // member; UINT64_MAX where nothing is counted.
  template <typename TimeOf>
  uint64_t ReachedBy(const TimeOf& at) const {
    uint64_t reached = UINT64_MAX;
    for (const wire::Members& set : sets_) {
      if (set.count == 0) continue;
      std::array<uint64_t, kReplicasMax> times;
      for (size_t i = 0; i < set.count; ++i) times[i] = at(set.ids[i]);
      // Of n members the n/2+1 with the latest times are the majority: its earliest counts.
      const size_t nth = set.count / 2;
      for (size_t i = 0; i <= nth; ++i) {
        for (size_t j = i + 1; j < set.count; ++j) {
          if (times[j] > times[i]) std::swap(times[i], times[j]);
        }
      }
      reached = std::min(reached, times[nth]);
    }
    return reached;
  }

 private:
  void Add(const wire::Members& members);
  // The complete one first; each set once. Bounded: members leave one way until one is complete.
  std::vector<wire::Members> sets_;
};

}  // namespace ankole::engine
