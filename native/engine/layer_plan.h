#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "wire/layers.h"

namespace ankole::engine {

// What makes a joiner's snapshots those that the members have (rule 8).
struct LayerPlan {
  // At the joiner, in this order: what members do not have, what is not finished there, and all
  // that stands above the first one that it lacks.
  std::vector<std::string> deletes;
  // What it lacks then: oldest first, and the snapshot of each that must be made before the next.
  std::vector<wire::LayerEntry> missing;
  // The newest one that it has then; empty: none. The first of `missing` stands on it.
  std::string base;
  // A layer of a name that it needs lies right under its head. It goes only when something stands
  // on it.
  bool blocked = false;
  // What it lacks may be from before it was left: what it misses since then does not tell where its
  // head differs from that.
  bool older = false;

  bool nothing() const { return deletes.empty() && missing.empty(); }
};

// From what LAYERS says at a member and at the joiner. Two snapshots of a name are the same one
// when they were taken in the same second, where both know it. kUnsupported: one of the two knows
// of no layers, and the other has snapshots. kBusy: one is not finished. `newest`: that the
// joiner's record names; empty: none.
Result<LayerPlan> PlanLayers(std::span<const wire::LayerEntry> members,
                             std::span<const wire::LayerEntry> joiners, std::string_view newest);

}  // namespace ankole::engine
