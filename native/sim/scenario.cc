#include "sim/scenario.h"

#include <algorithm>
#include <memory>

#include "sim/checks.h"
#include "sim/clones.h"
#include "sim/cluster.h"
#include "sim/expansions.h"
#include "sim/features.h"
#include "sim/load.h"
#include "sim/nemesis.h"
#include "sim/promises.h"
#include "sim/reverts.h"
#include "sim/rot.h"
#include "sim/snapshot_users.h"
#include "sim/snapshots.h"
#include "sim/trims.h"

namespace ankole::sim {
namespace {

// For what takes its time in the simulation alone: machines boot, clients think.
constexpr uint64_t kPatienceNs = 60 * kNsPerSecond;
constexpr uint64_t kScrubNs = 5 * kNsPerSecond;
// Two ticks of an idle engine (5 s each), and what it takes to flush and clean.
constexpr uint64_t kRestNs = 12 * kNsPerSecond;
constexpr uint64_t kRestLookNs = 250 * kNsPerMs;  // whether it does
// Of two such ticks: everything that an idle engine does.
constexpr uint64_t kIdleNs = 11 * kNsPerSecond;
// What the simulation itself may take meanwhile.
constexpr uint64_t kGrowthBytes = 16 * kKiB;
constexpr uint64_t kSnapshotSeed = 0x736e617073686f74;
constexpr uint64_t kSnapshotUserSeed = 0x736e617075736572;
constexpr uint64_t kExpansionSeed = 0x657870616e73696f;
constexpr uint64_t kTrimSeed = 0x7472696d2d736565;
constexpr uint64_t kRevertsSeed = 0x726576657274696e;
constexpr uint64_t kClonesSeed = 0x6c696e6b65642d63;
// What layers have for a clone they have for a minute more (native/replica/served_replica.cc).
constexpr uint64_t kSharedNs = 61 * kNsPerSecond;

class Scenario {
 public:
  Scenario(uint64_t seed, bool trace, std::optional<uint64_t> block) : world_(seed) {
    world_.set_tracing(trace);
    world_.traced_block = block;
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
    Reverts::Set(seed, &options_);
    Clones::Set(seed, &options_);
    options_.first_bytes = Expansions::FirstBytes(seed, options_.size_bytes);
    cluster_ = std::make_unique<Cluster>(world_, options_);
    Network::Options& net = cluster_->network.options;
    net.delay_ns_max = (100 * kNsPerUs) << random.Below(7);
    net.room_bytes = (32 * kKiB) << random.Below(7);
    net.lost_in_1000 = lossy ? random.Between(1, 20) : 0;
    rot_ = std::make_unique<Rot>(*cluster_);
    cluster_->rot = rot_.get();
    checks_ = std::make_unique<Checks>(*cluster_, *rot_);
    load_ = std::make_unique<Load>(*cluster_);
    load_->on_late = [this](const std::string& what) {
      if (!OnlyDamaged()) world_.Finding(what);
    };
    // Chance of its own: a run without snapshots is what it was before there were some.
    snapshots_ = std::make_unique<Snapshots>(*cluster_, *load_, seed ^ kSnapshotSeed);
    snapshot_users_ =
        std::make_unique<SnapshotUsers>(*cluster_, *snapshots_, seed ^ kSnapshotUserSeed);
    expansions_ = std::make_unique<Expansions>(*cluster_, seed ^ kExpansionSeed);
    trims_ = std::make_unique<Trims>(*cluster_, seed ^ kTrimSeed);
    promises_ = Promises::Of(options_, snapshots_->layers_max());
    nemesis_ = std::make_unique<Nemesis>(*cluster_);
    reverts_ = std::make_unique<Reverts>(*cluster_, *load_, *snapshots_, seed ^ kRevertsSeed);
    clones_ = std::make_unique<Clones>(*cluster_, *snapshots_, seed ^ kClonesSeed);
  }

  Outcome Run() {
    Outcome outcome;
    outcome.settings = std::to_string(options_.replicas) + " replicas, " +
                       std::to_string(options_.size_bytes / kMiB) + " MiB, " +
                       expansions_->Describe() + (options_.direct ? "direct, " : "") +
                       std::to_string(rounds_) + " rounds, " + snapshots_->Describe() +
                       snapshot_users_->Describe() + trims_->Describe() + reverts_->Describe() +
                       clones_->Describe() + ", faults: " + nemesis_->Describe();
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
  bool Await(const std::string& what, uint64_t limit_ns, const std::function<bool()>& condition) {
    if (world_.RunUntil(world_.now_ns() + limit_ns, condition)) return !world_.failed();
    if (world_.failed()) return false;
    // Members whose disks failed may have been the last ones to leave.
    if (OnlyDamaged()) return false;
    NotInTime(what, limit_ns);
    return false;
  }
  void NotInTime(const std::string& what, uint64_t limit_ns) {
    world_.Finding(what + " did not happen within " + std::to_string(limit_ns / kNsPerMs) +
                   " ms after the faults had stopped: " + load_->Waiting() + snapshots_->Waiting());
  }
  bool OnlyDamaged() const {
    for (const wire::ReplicaId id : cluster_->complete().members.all()) {
      if (!cluster_->MachineOf(id)->disk_failed) return false;
    }
    return cluster_->complete().members.count > 0;
  }

  bool AwaitStart() {
    return Await("a start", promises_.start_ns, [this] { return Serving(); });
  }

  // What has come and gone is held off for a while; then the replicas join one after the other.
  bool AwaitRedundancy() {
    uint64_t free_ns = world_.now_ns();  // since when nobody is held off
    const uint64_t end_ns = free_ns + promises_.held_off_ns + promises_.redundant_ns;
    const auto late = [&] {
      if (Serving() && cluster_->engine()->engine().held_off_ns() > 0) free_ns = world_.now_ns();
      return world_.now_ns() > free_ns + promises_.redundant_ns;
    };
    if (world_.RunUntil(end_ns, [&] { return Redundant() || late(); }) && Redundant()) {
      return !world_.failed();
    }
    if (world_.failed() || OnlyDamaged()) return false;
    NotInTime("full redundancy", world_.now_ns() - free_ns);
    return false;
  }

  // All that runs on the machines does, and can reach all else.
  bool Up() const {
    if (world_.now_ns() < slow_until_ns_) return false;
    for (const auto& machine : cluster_->machines()) {
      if (!machine->up()) return false;
    }
    for (size_t i = 0; i < cluster_->replica_count(); ++i) {
      const DiskHostProcess* const host = cluster_->disk_host(i);
      if (host == nullptr || !host->ready() || !host->alive() || host->reactor.frozen()) {
        return false;
      }
    }
    const EngineProcess* const engine = cluster_->engine();
    return engine != nullptr && engine->reactor.alive() && !engine->reactor.frozen();
  }

  // All replicas are members again; but for those that lack snapshots, as long as nobody gives them
  // any.
  bool Redundant() const {
    if (!Serving()) return false;
    const size_t lack = kFeatures.joins_by_views ? 0 : cluster_->engine()->lack_snapshots().count;
    return cluster_->complete().members.count + lack == options_.replicas;
  }
  bool AllMembers() const { return cluster_->complete().members.count == options_.replicas; }

  bool Serving() const { return cluster_->engine() != nullptr && cluster_->engine()->ready(); }

  void Round(uint64_t round) {
    if (!AwaitUp() || !AwaitStart()) return;
    load_->Promise(UINT64_MAX);
    snapshots_->Promise(UINT64_MAX);
    load_->Start();
    snapshots_->Start();
    snapshot_users_->Start();
    expansions_->Start();
    trims_->Start();
    nemesis_->Start();
    reverts_->Start();
    clones_->Start();
    const uint64_t least_ns = (options_.forks || options_.reverts ? 15 : 1) * kNsPerSecond;
    const uint64_t most_ns = (options_.reverts ? 40 : 20) * kNsPerSecond;
    world_.RunUntil(world_.now_ns() + world_.random.Skewed(least_ns, most_ns));
    // What a slow disk has begun takes as long as it was to.
    for (const auto& machine : cluster_->machines()) {
      slow_until_ns_ = std::max(slow_until_ns_, machine->faults.slow_until_ns);
    }
    nemesis_->Heal();
    reverts_->Stop();
    clones_->Calm();
    load_->SlowDown();
    if (world_.failed() || !AwaitUp() || !AwaitStart()) return;
    load_->Promise(promises_.answer_ns);
    snapshots_->Promise(promises_.snapshot_ns);
    // Still under load for a while: it must go on as before.
    const uint64_t before = load_->answered();
    if (!Await("an answer", kPatienceNs, [&] { return load_->answered() >= before + 20; })) return;
    load_->Stop();
    snapshots_->Stop();
    snapshot_users_->Stop();
    expansions_->Stop();
    trims_->Stop();
    if (!Await("the answer to every request", promises_.answer_ns,
               [this] { return load_->idle(); })) {
      return;
    }
    if (!Await("the answer to every request about snapshots", promises_.snapshot_ns,
               [this] { return snapshots_->idle() && snapshot_users_->idle(); })) {
      return;
    }
    if (!Await("the end of an expansion", promises_.expanded_ns,
               [this] { return expansions_->idle(); })) {
      return;
    }
    if (kFeatures.resync && !AwaitRedundancy()) return;
    snapshots_->Settle();
    if (!Await("a snapshot", promises_.snapshot_ns, [this] { return snapshots_->settled(); })) {
      return;
    }
    trims_->Last();
    if (!Await("the end of a trim", kPatienceNs, [this] { return trims_->idle(); })) return;
    load_->ReadAll();
    if (!Await("reading all back", kPatienceNs, [this] { return load_->read_all_done(); })) return;
    if (rot_->flips() > 0 && !Scrub()) return;
    if (clones_->on() && !EndClones(round + 1 == rounds_)) return;
    // In the last round only: the others shall go on from all that may be left of a clean stop.
    const bool rests = round + 1 == rounds_ && AllMembers();
    if (rests && !Rest()) return;
    // A stop before this one may have left blocks without their checksums: it computes none.
    StopAndCompare(round, rests && round == 0);
  }

  bool EndClones(bool all) {
    clones_->Stop(all);
    if (world_.RunUntil(world_.now_ns() + kPatienceNs, [this] { return clones_->idle(); })) {
      return !world_.failed();
    }
    if (!world_.failed()) world_.Finding("clones do not come to their end" + clones_->Waiting());
    return false;
  }

  // Left alone a volume comes to rest, and from then on takes no more memory.
  bool Rest() {
    const bool snapshots = snapshots_->matched();
    const uint64_t limit_ns = options_.idle_ns + kRestNs + (snapshots ? promises_.merged_ns : 0) +
                              (clones_->on() ? kSharedNs : 0);
    const uint64_t end_ns = world_.now_ns() + limit_ns;
    std::string unrest = "?";
    while (!unrest.empty() && world_.now_ns() < end_ns && !world_.failed()) {
      world_.RunUntil(world_.now_ns() + kRestLookNs);
      unrest = checks_->Unrest(snapshots);
    }
    if (world_.failed()) return false;
    if (!unrest.empty()) {
      if (OnlyDamaged()) return false;
      world_.Finding("left alone for " + std::to_string(limit_ns / kNsPerSecond) +
                     " s it did not come to rest: " + unrest);
      return false;
    }
    world_.RunUntil(world_.now_ns() + kIdleNs);
    const uint64_t bytes = checks_->AllocatedWithin(kIdleNs);
    const uint64_t after = checks_->AllocatedWithin(kIdleNs);
    if (after > bytes + kGrowthBytes) {
      world_.Finding("at rest, and " + std::to_string(after - bytes) +
                     " bytes more are allocated after " + std::to_string(kIdleNs / kNsPerSecond) +
                     " s");
    }
    if (unrest = checks_->Unrest(snapshots); !unrest.empty())
      world_.Finding("at rest, and then: " + unrest);
    return !world_.failed();
  }

  bool AwaitUp() {
    return Await("every process to run", kPatienceNs, [this] { return Up(); });
  }

  // Whatever rots and has a good copy is repaired.
  bool Scrub() {
    uint64_t began_ns = 0;
    const uint64_t limit_ns = world_.now_ns() + kPatienceNs;
    while (!rot_->Unrepaired().empty() && !world_.failed()) {
      EngineProcess* const engine = cluster_->engine();
      if (engine != nullptr && engine->ready() && world_.now_ns() >= began_ns + kScrubNs) {
        began_ns = world_.now_ns();
        engine->reactor.Inside(
            [engine] { engine->engine().Scrub(0, engine->engine().size_bytes(), 0); });
      }
      world_.RunUntil(world_.now_ns() + 10 * kNsPerMs);
      if (world_.now_ns() < limit_ns) continue;
      world_.Finding("a flipped bit was not repaired by scrubbing: " + rot_->Unrepaired());
    }
    return !world_.failed();
  }

  void StopAndCompare(uint64_t round, bool all_sums) {
    if (!AwaitStart()) return;
    EngineProcess* const engine = cluster_->engine();
    cluster_->StopEngine();
    if (!Await("a stop", promises_.stop_ns,
               [this, engine] { return engine->stopped() || cluster_->engine() != engine; })) {
      return;
    }
    if (cluster_->engine() == engine && engine->clean()) {
      const wire::Record record = engine->engine().Report().record;
      // A merge goes on whether an engine is there or not.
      if (!Await("the end of a merge", promises_.merged_ns,
                 [&] { return checks_->Readable(record.members); })) {
        return;
      }
      checks_->ClosedClean(record, all_sums);
      if (!world_.failed()) snapshots_->ClosedClean(record.members);
    }
    if (world_.failed() || round + 1 == rounds_) return;
    if (nemesis_->flips()) rot_->Strike(world_.random.Between(1, 30), world_.random.Chance(1, 8));
    cluster_->KillEngine(0);
    if (world_.random.Chance(1, 2)) AttachAnywhere();
  }

  World world_;
  Cluster::Options options_;
  Promises promises_;
  uint64_t rounds_ = 1;
  uint64_t slow_until_ns_ = 0;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Rot> rot_;
  std::unique_ptr<Checks> checks_;
  std::unique_ptr<Load> load_;
  std::unique_ptr<Snapshots> snapshots_;
  std::unique_ptr<SnapshotUsers> snapshot_users_;
  std::unique_ptr<Expansions> expansions_;
  std::unique_ptr<Trims> trims_;
  std::unique_ptr<Nemesis> nemesis_;
  std::unique_ptr<Reverts> reverts_;
  std::unique_ptr<Clones> clones_;
};

}  // namespace

Outcome RunSeed(uint64_t seed, bool trace, std::optional<uint64_t> block) {
  auto scenario = std::make_shared<Scenario>(seed, trace, block);
  // Processes that were killed refer to it.
  Keep(scenario);
  return scenario->Run();
}

}  // namespace ankole::sim
