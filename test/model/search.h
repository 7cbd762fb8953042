#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "steps.h"

namespace model {

struct Outcome {
  uint64_t states = 0;  // different ones, up to renaming replicas
  int depth = 0;        // steps of the longest of the shortest ways to a state
  const char* finding = nullptr;
  std::vector<std::string> trace;  // a shortest way to the finding, one line a step
};

// Looks at every state that can be reached, the near ones first; stops at the first finding.
// `states_max` is for a search that got out of hand: then `states` exceeds it.
Outcome Search(const Rules& rules, const Scope& scope, uint64_t states_max);

}  // namespace model
