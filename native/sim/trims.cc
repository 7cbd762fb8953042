#include "sim/trims.h"

namespace ankole::sim {

Trims::Trims(Cluster& cluster, uint64_t seed) : cluster_(cluster), random_(seed) {
  // They write, where clients are not to.
  on_ = random_.Chance(1, 2) && !cluster.options.reverts;
  pause_ns_ = (50 * kNsPerMs) << random_.Below(6);
}

std::string Trims::Describe() const {
  if (!on_) return "";
  return ", one trim in " + std::to_string(pause_ns_ / kNsPerMs) + " ms";
}

void Trims::Start() {
  if (!on_) return;
  running_ = true;
  NextLater();
}

void Trims::NextLater() {
  const uint64_t turn = ++turn_;
  cluster_.world.After(random_.Below(2 * pause_ns_), [this, turn] {
    if (turn == turn_ && running_) Next();
  });
}

void Trims::Next() {
  EngineProcess* const engine = cluster_.engine();
  if (engine != nullptr && engine->ready() && !engine->refused()) {
    if (random_.Chance(1, 6)) {
      engine->reactor.Inside([engine] { engine->engine().StopTrim(); });
    } else {
      // Most at full speed, some so slow that much else happens in the middle of one.
      Begin(engine, random_.Chance(2, 3) ? 0 : (256 * kKiB) << random_.Below(6));
    }
  }
  NextLater();
}

// One that is under way ends by it, and goes on by it where it has the same name.
void Trims::Begin(EngineProcess* engine, uint64_t bytes_per_second) {
  if (trims_ == 0 || random_.Chance(2, 3)) ++trims_;
  const std::string id = "trim-" + std::to_string(trims_);
  if (cluster_.world.tracing()) {
    cluster_.world.Trace("operator",
                         id + " at " + std::to_string(bytes_per_second / kKiB) + " KiB/s");
  }
  engine->reactor.Inside([engine, id, bytes_per_second] {
    (void)engine->engine().Trim(id, bytes_per_second, {}).ok();
  });
}

void Trims::Last() {
  EngineProcess* const engine = cluster_.engine();
  if (!on_ || engine == nullptr || !engine->ready()) return;
  ++trims_;
  Begin(engine, 0);
}

bool Trims::idle() const {
  const EngineProcess* const engine = cluster_.engine();
  if (!on_ || engine == nullptr || !engine->ready()) return true;
  return !engine->engine().TrimJson().Bool("running", false).Take();
}

}  // namespace ankole::sim
