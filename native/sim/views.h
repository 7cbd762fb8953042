#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "sim/cluster.h"
#include "sim/layers_now.h"

namespace ankole::sim {

// A snapshot's content: of each sector whose write is in it, as RegisterModel::Instant wants it.
using ViewValues = std::vector<uint32_t>;

// What a replica's files give for the layer, read with the replica's own code. Where a bit of the
// block was flipped once it may be kUnreadable.
Result<ViewValues> ReadView(Cluster& cluster, Disk& disk, const std::string& directory,
                            const LayersNow& layers, size_t at);

// Where the two differ; empty: nowhere. What one of them cannot tell the other one may.
std::string Difference(const ViewValues& one, const ViewValues& other);
// What is unreadable in `to` is taken from the other one.
void Complete(ViewValues* to, const ViewValues& from);

}  // namespace ankole::sim
