#include "sim/expansions.h"

#include <algorithm>

namespace ankole::sim {
namespace {

constexpr uint64_t kFirstSeed = 0x66697273742d7369;

}  // namespace

uint64_t Expansions::FirstBytes(uint64_t seed, uint64_t size_bytes) {
  Random random(seed ^ kFirstSeed);
  if (!random.Chance(1, 3)) return size_bytes;
  // Within a region, or where one ends.
  const uint64_t unit = random.Chance(1, 2) ? kBlockBytes : kMiB;
  return std::max(RoundDown(size_bytes * random.Between(1, 3) / 4, unit), kMiB);
}

Expansions::Expansions(Cluster& cluster, uint64_t seed) : cluster_(cluster), random_(seed) {
  if (!on()) return;
  pause_ns_ = (50 * kNsPerMs) << random_.Below(6);
  cluster.on_size = [this](EngineProcess* engine, uint64_t size_bytes) {
    OnSize(*engine, size_bytes);
  };
  cluster.on_engine_ready = [this, before = cluster.on_engine_ready](EngineProcess* engine) {
    before(engine);
    OnEngineReady(engine);
  };
}

std::string Expansions::Describe() const {
  if (!on()) return "";
  return "of " + std::to_string(cluster_.options.first_bytes / kKiB) + " KiB at first, ";
}

void Expansions::Start() {
  if (!on()) return;
  running_ = true;
  NextLater();
}

void Expansions::NextLater() {
  const uint64_t turn = ++turn_;
  cluster_.world.After(random_.Below(2 * pause_ns_), [this, turn] {
    if (turn == turn_ && running_) Next();
  });
}

void Expansions::Next() {
  // Whether it is attached or not.
  if (!cluster_.expanding() && cluster_.seen_bytes() < cluster_.options.size_bytes) {
    const uint64_t to_bytes = NextBytes();
    if (cluster_.world.tracing()) {
      cluster_.world.Trace("operator", "the volume is to have " + std::to_string(to_bytes) +
                                           " bytes instead of " +
                                           std::to_string(cluster_.seen_bytes()));
    }
    cluster_.Expand(to_bytes);
  }
  NextLater();
}

uint64_t Expansions::NextBytes() {
  const uint64_t from = cluster_.seen_bytes();
  const uint64_t blocks = (cluster_.options.size_bytes - from) / kBlockBytes;
  switch (random_.Below(4)) {
    case 0:
      return cluster_.options.size_bytes;
    case 1:
      return from + kBlockBytes;
    default:
      return from + random_.Between(1, blocks) * kBlockBytes;
  }
}

void Expansions::OnSize(const EngineProcess& engine, uint64_t size_bytes) {
  // Before it is ready clients see nothing.
  if (!engine.ready() || size_bytes <= seen_bytes_) return;
  seen_bytes_ = size_bytes;
  seen_epoch_ = engine.epoch();
}

// Clients that come to it must find all that those of an older one had.
void Expansions::OnEngineReady(EngineProcess* engine) {
  const uint64_t size_bytes = engine->engine().size_bytes();
  if (size_bytes >= seen_bytes_) return OnSize(*engine, size_bytes);
  if (engine->epoch() < seen_epoch_) return;
  cluster_.world.Finding(
      "epoch " + std::to_string(engine->epoch().attachment) + "." +
      std::to_string(engine->epoch().run) + " serves " + std::to_string(size_bytes) +
      " bytes, and clients have seen " + std::to_string(seen_bytes_) + " in epoch " +
      std::to_string(seen_epoch_.attachment) + "." + std::to_string(seen_epoch_.run));
}

}  // namespace ankole::sim
