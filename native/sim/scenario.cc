#include "sim/scenario.h"

#include <algorithm>
#include <memory>

#include "sim/cluster.h"
#include "sim/features.h"
#include "sim/load.h"
#include "sim/nemesis.h"
#include "sim/rot.h"

namespace ankole::sim {
namespace {

// Longer than a start that waits for members (30 s), a stop of the store and the back-off of links
// together: when faults have stopped, everything goes on within this time.
constexpr uint64_t kLiveNs = 60 * kNsPerSecond;
// One that flapped is held off for a minute at the most, and replicas join one after the other.
constexpr uint64_t kScrubNs = 5 * kNsPerSecond;
constexpr uint64_t kRedundantNs = 240 * kNsPerSecond;

class Scenario {
 public:
  Scenario(uint64_t seed, bool trace) : world_(seed) {
    world_.set_tracing(trace);
    Random& random = world_.random;
    static constexpr size_t kReplicas[] = {1, 2, 2, 3, 3, 3, 5};
    options_.replicas = kReplicas[random.Below(std::size(kReplicas))];
    options_.hosts = random.Between(1, 2);
    options_.size_bytes = kMiB << random.Between(1, 4);
    options_.direct = random.Chance(1, 4);
    rounds_ = random.Between(1, 3);
    // Times and bounds are shorter in some runs, for the same histories to take less of them.
    if (random.Chance(1, 2)) options_.start_wait_ns = kNsPerSecond << random.Below(4);
    // Packets that are lost make everybody late now and then.
    const bool lossy = random.Chance(1, 3);
    if (!lossy && random.Chance(1, 3)) options_.late_ns = (250 * kNsPerMs) << random.Below(2);
    if (random.Chance(1, 2)) options_.idle_ns = (20 * kNsPerMs) << random.Below(7);
    // Few of them, and more regions than that.
    if (random.Chance(1, 4)) {
      options_.dirty_regions_max = random.Between(2, 3);
      options_.size_bytes = 16 * kMiB;
    }
    options_.forks = random.Chance(1, 8);
    if (options_.forks) {
      options_.replicas = random.Chance(1, 2) ? 3 : 5;
      options_.start_wait_ns = kNsPerSecond;
    }
    cluster_ = std::make_unique<Cluster>(world_, options_);
    Network::Options& net = cluster_->network.options;
    net.delay_ns_max = (100 * kNsPerUs) << random.Below(7);
    net.room_bytes = (32 * kKiB) << random.Below(7);
    net.lost_in_1000 = lossy ? random.Between(1, 20) : 0;
    rot_ = std::make_unique<Rot>(*cluster_);
    cluster_->rot = rot_.get();
    load_ = std::make_unique<Load>(*cluster_);
    nemesis_ = std::make_unique<Nemesis>(*cluster_);
  }

  Outcome Run() {
    Outcome outcome;
    outcome.settings = std::to_string(options_.replicas) + " replicas, " +
                       std::to_string(options_.size_bytes / kMiB) + " MiB, " +
                       (options_.direct ? "direct, " : "") + std::to_string(rounds_) +
                       " rounds, faults: " + nemesis_->Describe();
    if (world_.tracing()) world_.Trace("seed", outcome.settings);
    if (cluster_->MakeReplicas()) {
      AttachAnywhere();
      for (uint64_t round = 0; round < rounds_ && !world_.failed(); ++round) Round(round);
    }
    outcome.finding = world_.finding();
    outcome.virtual_ns = world_.now_ns();
    outcome.events = world_.events();
    outcome.answered = load_->answered();
    outcome.fingerprint = world_.fingerprint();
    return outcome;
  }

 private:
  void AttachAnywhere() {
    const auto& machines = cluster_->machines();
    cluster_->Attach(*machines[world_.random.Below(machines.size())]);
  }

  // False, and a finding, when it does not come true in time.
  bool Await(const std::string& what, const std::function<bool()>& condition) {
    const uint64_t limit_ns = what == "full redundancy" ? kRedundantNs : kLiveNs;
    if (world_.RunUntil(world_.now_ns() + limit_ns, condition)) return !world_.failed();
    if (world_.failed()) return false;
    // Members whose disks failed may have been the last ones to leave.
    if (OnlyDamaged()) return false;
    world_.Finding(what + " did not happen within " + std::to_string(limit_ns / kNsPerSecond) +
                   " s after the faults had stopped: " + load_->Waiting());
    return false;
  }
  bool OnlyDamaged() const {
    for (const wire::ReplicaId id : cluster_->complete().members.all()) {
      if (!cluster_->MachineOf(id)->disk_failed) return false;
    }
    return cluster_->complete().members.count > 0;
  }

  // All replicas are members again.
  bool Redundant() const {
    return Serving() && cluster_->complete().members.count == options_.replicas;
  }

  bool Serving() const { return cluster_->engine() != nullptr && cluster_->engine()->ready(); }

  void Round(uint64_t round) {
    if (!Await("a start", [this] { return Serving(); })) return;
    load_->Start();
    nemesis_->Start();
    const uint64_t least_ns = (options_.forks ? 15 : 1) * kNsPerSecond;
    world_.RunUntil(world_.now_ns() + world_.random.Skewed(least_ns, 20 * kNsPerSecond));
    nemesis_->Heal();
    if (world_.failed()) return;
    // Still under load for a while: it must go on as before.
    const uint64_t before = load_->answered();
    if (!Await("an answer", [&] { return load_->answered() >= before + 20; })) return;
    load_->Stop();
    if (!Await("the answer to every request", [this] { return load_->idle(); })) return;
    if (kFeatures.resync && !Await("full redundancy", [this] { return Redundant(); })) return;
    load_->ReadAll();
    if (!Await("reading all back", [this] { return load_->read_all_done(); })) return;
    if (rot_->flips() > 0 && !Scrub()) return;
    StopAndCompare(round);
  }

  // Whatever rots and has a good copy is repaired.
  bool Scrub() {
    uint64_t began_ns = 0;
    const uint64_t limit_ns = world_.now_ns() + kLiveNs;
    while (!rot_->Unrepaired().empty() && !world_.failed()) {
      EngineProcess* const engine = cluster_->engine();
      if (engine != nullptr && engine->ready() && world_.now_ns() >= began_ns + kScrubNs) {
        began_ns = world_.now_ns();
        engine->reactor.Inside(
            [this, engine] { engine->engine().Scrub(0, options_.size_bytes, 0); });
      }
      world_.RunUntil(world_.now_ns() + 10 * kNsPerMs);
      if (world_.now_ns() < limit_ns) continue;
      world_.Finding("a flipped bit was not repaired by scrubbing: " + rot_->Unrepaired());
    }
    return !world_.failed();
  }

  void StopAndCompare(uint64_t round) {
    if (!Await("a start", [this] { return Serving(); })) return;
    EngineProcess* const engine = cluster_->engine();
    cluster_->StopEngine();
    if (!Await("a stop",
               [this, engine] { return engine->stopped() || cluster_->engine() != engine; })) {
      return;
    }
    if (cluster_->engine() == engine && engine->clean()) Compare(engine->engine().Report().record);
    if (world_.failed() || round + 1 == rounds_) return;
    if (nemesis_->flips()) rot_->Strike(world_.random.Between(1, 30), world_.random.Chance(1, 8));
    cluster_->KillEngine(0);
    if (world_.random.Chance(1, 2)) AttachAnywhere();
  }

  // The members were closed as equal: they must be, byte by byte.
  void Compare(const wire::Record& record) {
    const Inode* first = nullptr;
    std::string first_name;
    for (size_t i = 0; i < cluster_->replica_count(); ++i) {
      if (!record.members.Contains(0x10 + i)) continue;
      Machine& machine = cluster_->replica_machine(i);
      InodePtr head;
      if (machine.disk.Lookup(cluster_->HeadPath(i), &head) < 0) {
        world_.Finding("the head of " + machine.name() + " is gone");
        return;
      }
      if (Disk::NeedsSync(*head)) {
        world_.Finding("the head of " + machine.name() + " was closed clean and is not synced");
        return;
      }
      Keep(head);
      if (first == nullptr) {
        first = head.get();
        first_name = machine.name();
        continue;
      }
      std::byte one[kBlockBytes];
      std::byte other[kBlockBytes];
      for (uint64_t at = 0; at < options_.size_bytes; at += kBlockBytes) {
        (void)machine.disk.Read(*first, at, one, sizeof(one));
        (void)machine.disk.Read(*head, at, other, sizeof(other));
        if (std::memcmp(one, other, sizeof(one)) == 0) continue;
        if (rot_->IsLost(at / kBlockBytes)) continue;
        world_.Finding("closed clean, and " + first_name + " and " + machine.name() +
                       " differ in block " + std::to_string(at / kBlockBytes));
        return;
      }
    }
  }

  World world_;
  Cluster::Options options_;
  uint64_t rounds_ = 1;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Rot> rot_;
  std::unique_ptr<Load> load_;
  std::unique_ptr<Nemesis> nemesis_;
};

}  // namespace

Outcome RunSeed(uint64_t seed, bool trace) {
  auto scenario = std::make_shared<Scenario>(seed, trace);
  // Processes that were killed refer to it.
  Keep(scenario);
  return scenario->Run();
}

}  // namespace ankole::sim
