#include "sim/clones.h"

#include <algorithm>

#include "sim/rot.h"

namespace ankole::sim {
namespace {

constexpr uint64_t kCloneSeed = 0x6c696e6b636c6f6e;
constexpr uint64_t kStepNs = 20 * kNsPerMs;
constexpr uint64_t kGoneNs = 500 * kNsPerMs;
// How long it takes until one is made, mostly.
constexpr uint64_t kMakingNs = 4 * kNsPerMs;
constexpr uint64_t kLookNs = 20 * kNsPerUs;

}  // namespace

void Clones::Set(uint64_t seed, Cluster::Options* options) {
  options->clones = Random(seed ^ kCloneSeed).Chance(1, 6) && !options->forks;
}

Clones::Clones(Cluster& cluster, Snapshots& snapshots, uint64_t seed)
    : cluster_(cluster),
      snapshots_(snapshots),
      world_(cluster.world),
      random_(seed),
      on_(cluster.options.clones && snapshots.on()) {
  pause_ns_ = (100 * kNsPerMs) << random_.Below(4);
  life_ns_ = (500 * kNsPerMs) << random_.Below(5);
  most_ = random_.Between(1, 3);
  if (!on_) return;
  cluster.remove_alone = [this] { return random_.Chance(3, 4); };
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    Machine& machine = cluster_.replica_machine(i);
    machine.on_lost = [this, i, before = machine.on_lost] {
      before();
      for (const auto& clone : clones_) {
        if (clone->replica() == i) clone->OnLost();
      }
    };
  }
}

std::string Clones::Describe() const {
  if (!on_) return "";
  return ", up to " + std::to_string(most_) + " clones, one in " +
         std::to_string(pause_ns_ / kNsPerMs) + " ms";
}

void Clones::Start() {
  if (!on_) return;
  running_ = true;
  breaks_ = !cluster_.options.reverts && random_.Chance(2, 3);
  for (const auto& clone : clones_) clone->Resume();
  NextLater();
}

void Clones::Stop(bool all) {
  running_ = false;
  for (const auto& clone : clones_) {
    clone->Resume();
    if (all || random_.Chance(1, 2)) {
      clone->Close();
    } else {
      clone->Pause();
    }
  }
}

bool Clones::idle() const {
  return std::all_of(clones_.begin(), clones_.end(),
                     [](const auto& clone) { return clone->gone() || clone->paused(); });
}

std::string Clones::Waiting() const {
  std::string text;
  for (const auto& clone : clones_) {
    if (!clone->gone()) text += "; " + clone->Describe();
  }
  return text;
}

size_t Clones::Alive() const {
  return static_cast<size_t>(std::count_if(clones_.begin(), clones_.end(),
                                           [](const auto& clone) { return !clone->gone(); }));
}

void Clones::NextLater() {
  const uint64_t turn = ++turn_;
  world_.After(random_.Below(2 * pause_ns_), [this, turn] {
    if (!running_ || turn != turn_) return;
    Next();
    NextLater();
  });
}

// Of a snapshot that everything is known of.
void Clones::Next() {
  if (Alive() >= most_) return;
  std::vector<std::string> known;
  for (const std::string& name : snapshots_.Live()) {
    if (snapshots_.Seen(name) != nullptr) known.push_back(name);
  }
  const size_t replica = random_.Below(cluster_.replica_count());
  if (known.empty() || cluster_.replica_machine(replica).damaged) return;
  const std::string& name = known[random_.Below(known.size())];
  clones_.push_back(std::make_unique<CloneVolume>(
      cluster_, clones_.size() + 1,
      CloneVolume::Source{replica, name, *snapshots_.Seen(name),
                          [this, name] { return snapshots_.Seen(name) != nullptr; }},
      random_.Next()));
  CloneVolume* const clone = clones_.back().get();
  clone->Step();
  StepLater(clone);
  if (cluster_.on_snapshot) cluster_.on_snapshot();
  if (breaks_ && random_.Chance(1, 2)) {
    const bool named = random_.Chance(1, 3);
    world_.After(named ? 0 : random_.Below(kMakingNs),
                 [this, clone, named] { Break(clone, named); });
  }
  world_.After(random_.Skewed(life_ns_ / 4, 2 * life_ns_), [this, clone] {
    if (running_) clone->Close();
  });
}

void Clones::StepLater(CloneVolume* clone) {
  world_.After(clone->gone() ? kGoneNs : random_.Below(kStepNs), [this, clone] {
    if (world_.failed()) return;
    clone->Step();
    StepLater(clone);
  });
}

// Within the moments in which it is made, or right when it has its name, which is not durable then.
// Nothing else fails while a disk begins to: Nemesis.
void Clones::Break(CloneVolume* clone, bool named) {
  if (!breaks_ || !running_ || !clone->making()) return;
  if (named && !clone->IsThere()) {
    world_.After(kLookNs, [this, clone] { Break(clone, true); });
    return;
  }
  if (random_.Chance(1, 2)) {
    LosePower(*clone);
    return;
  }
  if (!MayCrash(*clone)) return;
  cluster_.KillDiskHost(clone->replica(), random_.Below(100 * kNsPerMs));
  // What is asked for again, and is there, must be as durable as what is made.
  if (random_.Chance(1, 2)) return;
  world_.After(random_.Below(2 * kNsPerSecond), [this, clone] {
    if (breaks_ && running_) LosePower(*clone);
  });
}

bool Clones::MayCrash(const CloneVolume& clone) const {
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    if (cluster_.replica_machine(i).damaged) return false;
  }
  return cluster_.rot->MayCrash(cluster_.replica_machine(clone.replica()));
}

void Clones::LosePower(const CloneVolume& clone) {
  if (!MayCrash(clone)) return;
  cluster_.LosePower(cluster_.replica_machine(clone.replica()),
                     random_.Skewed(kNsPerMs, kNsPerSecond));
}

}  // namespace ankole::sim
