#include "engine/ballot.h"

#include <algorithm>

namespace ankole::engine {

void Ballot::Begin(const wire::Members& complete, const std::vector<wire::Members>& proposals) {
  sets_.clear();
  Add(complete);
  for (const wire::Members& members : proposals) Add(members);
}

void Ballot::Propose(const wire::Members& members) { Add(members); }

void Ballot::Complete(const wire::Members& members) {
  sets_.clear();
  Add(members);
}

void Ballot::Add(const wire::Members& members) {
  if (std::find(sets_.begin(), sets_.end(), members) == sets_.end()) sets_.push_back(members);
}

bool Ballot::Carries(const wire::Members& members) const {
  return std::all_of(sets_.begin(), sets_.end(), [&](const wire::Members& set) {
    const auto ids = set.all();
    const auto common = std::count_if(ids.begin(), ids.end(),
                                      [&](wire::ReplicaId id) { return members.Contains(id); });
    return set.count == 0 || 2 * common > set.count;
  });
}

bool Ballot::single() const {
  return std::all_of(sets_.begin(), sets_.end(),
                     [](const wire::Members& set) { return set.count <= 1; });
}

}  // namespace ankole::engine
