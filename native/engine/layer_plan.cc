#include "engine/layer_plan.h"

#include <algorithm>

namespace ankole::engine {
namespace {

bool IsSnapshot(const wire::LayerEntry& layer) { return !layer.name.empty() && !layer.removed; }

bool IsSame(const wire::LayerEntry& one, const wire::LayerEntry& other) {
  return one.name == other.name && (one.created_seconds == other.created_seconds ||
                                    one.created_seconds == 0 || other.created_seconds == 0);
}

// Each layer stands on the one before it.
bool IsChain(std::span<const wire::LayerEntry> layers) {
  for (size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].parent != (i == 0 ? std::string() : layers[i - 1].name)) return false;
  }
  return true;
}

// Those of the joiner that are the members' stay, up to the first one that it lacks: in `order`
// where both are chains.
Status PlanKept(std::span<const wire::LayerEntry> members,
                std::span<const wire::LayerEntry> joiners, bool order, LayerPlan* plan,
                std::vector<bool>* kept) {
  size_t next = 0;
  for (const wire::LayerEntry& layer : members) {
    if (!IsSnapshot(layer)) continue;
    if (!layer.sealed) {
      return {ErrorCode::kBusy, "snapshot " + layer.name + " is not finished at all members"};
    }
    size_t at = next;
    while (at < joiners.size() &&
           !(IsSnapshot(joiners[at]) && joiners[at].sealed && IsSame(joiners[at], layer))) {
      ++at;
    }
    if (!plan->missing.empty() || at >= joiners.size()) {
      plan->missing.push_back(layer);
      continue;
    }
    (*kept)[at] = true;
    if (order) next = at + 1;
    plan->base = layer.name;
  }
  return Status::Ok();
}

bool HasLayer(std::span<const wire::LayerEntry> layers, std::string_view name) {
  return std::any_of(layers.begin(), layers.end(),
                     [&](const wire::LayerEntry& layer) { return layer.name == name; });
}

}  // namespace

Result<LayerPlan> PlanLayers(std::span<const wire::LayerEntry> members,
                             std::span<const wire::LayerEntry> joiners, std::string_view newest) {
  LayerPlan plan;
  // One that knows of no layers has no snapshots.
  if (members.empty() || joiners.empty()) {
    const bool any = std::any_of(members.begin(), members.end(), IsSnapshot) ||
                     std::any_of(joiners.begin(), joiners.end(), IsSnapshot);
    if (!any) return plan;
    return Status(ErrorCode::kUnsupported, "it knows of no snapshots, and there are some");
  }
  // Reverts make a tree of them. What a snapshot shows is what counts, not what it stands on.
  const bool chains = IsChain(members) && IsChain(joiners);
  std::vector<bool> kept(joiners.size());
  RETURN_IF_ERROR(PlanKept(members, joiners, chains, &plan, &kept));
  // A layer of a name that it needs goes only when no more than one stands on it, which in a tree
  // may be never: then all go.
  const bool taken = !chains && std::any_of(plan.missing.begin(), plan.missing.end(),
                                            [&](const wire::LayerEntry& layer) {
                                              return HasLayer(joiners, layer.name);
                                            });
  if (taken) {
    plan = {};
    kept.assign(joiners.size(), false);
    RETURN_IF_ERROR(PlanKept(members, {}, chains, &plan, &kept));
  }
  for (size_t i = joiners.size(); i-- > 0;) {
    if (IsSnapshot(joiners[i]) && !kept[i]) plan.deletes.push_back(joiners[i].name);
  }
  // What was not kept is removed by then.
  const std::string& under = joiners.back().parent;
  plan.blocked = std::any_of(plan.missing.begin(), plan.missing.end(),
                             [&](const wire::LayerEntry& layer) { return layer.name == under; });
  if (!plan.missing.empty() && !newest.empty()) {
    const auto at = [&](std::string_view name) {
      return std::find_if(members.begin(), members.end(),
                          [&](const wire::LayerEntry& layer) { return layer.name == name; });
    };
    // Where that one has gone nobody can tell which are younger; nor in a tree.
    plan.older =
        !chains || at(newest) == members.end() || at(plan.missing.front().name) <= at(newest);
  }
  return plan;
}

}  // namespace ankole::engine
