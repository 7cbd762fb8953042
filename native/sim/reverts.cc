#include "sim/reverts.h"

#include <algorithm>

namespace ankole::sim {
namespace {

constexpr uint64_t kRevertSeed = 0x7265766572747322;
constexpr uint64_t kLookNs = 20 * kNsPerMs;
// What it takes until idle members are flushed and clean, beside what options say.
constexpr uint64_t kCleanNs = 400 * kNsPerMs;
// Until one that does not answer has left, also where that needs the store, with time for a tick.
constexpr uint64_t kLeaveNs = 5 * kNsPerSecond;
constexpr uint64_t kRevertNs = 3 * kNsPerSecond;
constexpr uint64_t kMoveNs = 8 * kNsPerSecond;
constexpr uint64_t kBackNs = 10 * kNsPerSecond;

}  // namespace

bool Reverts::Of(uint64_t seed) { return Random(seed ^ kRevertSeed).Chance(1, 12); }

void Reverts::Set(uint64_t seed, Cluster::Options* options) {
  if (!Of(seed)) return;
  Random random(~seed ^ kRevertSeed);
  options->reverts = true;
  options->forks = false;
  options->replicas = random.Between(2, 3);
  // More regions than clients write to at once, and clean as soon as they are left alone.
  options->size_bytes = 16 * kMiB;
  options->dirty_regions_max = kDirtyRegionsMax;
  options->idle_ns = (20 * kNsPerMs) << random.Below(4);
  options->start_wait_ns = kNsPerSecond;
}

Reverts::Reverts(Cluster& cluster, Load& load, Snapshots& snapshots, uint64_t seed)
    : cluster_(cluster),
      load_(load),
      snapshots_(snapshots),
      world_(cluster.world),
      random_(seed),
      on_(cluster.options.reverts) {
  if (!on_) return;
  cluster.on_record = [this, before = cluster.on_record] {
    before();
    OnRecord();
  };
}

void Reverts::Start() {
  if (!on_) return;
  running_ = true;
  Go(Step::kWriting, random_.Between(300, 1500) * kNsPerMs);
  LookLater();
}

void Reverts::Stop() {
  if (!running_) return;
  running_ = false;
  load_.set_reads_only(false);
  snapshots_.Hold(false, false);
  Heal();
}

void Reverts::LookLater() {
  const uint64_t turn = ++turn_;
  world_.After(kLookNs, [this, turn] {
    if (!running_ || turn != turn_) return;
    Look();
    LookLater();
  });
}

void Reverts::Go(Step step, uint64_t limit_ns) {
  step_ = step;
  until_ns_ = world_.now_ns() + limit_ns;
  reverted_ = snapshots_.reverted();
  load_.set_reads_only(step != Step::kWriting);
  const bool reverts = step == Step::kReverting || step == Step::kAlone;
  snapshots_.Hold(step != Step::kWriting, reverts);
}

bool Reverts::Ready() const {
  return cluster_.engine() != nullptr && cluster_.engine()->ready() && !cluster_.EngineLost();
}

void Reverts::Look() {
  const bool over = world_.now_ns() >= until_ns_;
  const wire::Members& members = cluster_.complete().members;
  switch (step_) {
    case Step::kWriting:
      if (!over || !Ready() || snapshots_.Live().empty()) return;
      Go(Step::kCleaning, cluster_.options.idle_ns + kCleanNs);
      return;
    case Step::kCleaning:
      if (!over) return;
      replica_ = random_.Below(cluster_.replica_count());
      alone_ = random_.Chance(1, 2);
      if (!Ready() || members.count < 2 || !members.Contains(cluster_.replica_id(replica_))) {
        return Go(Step::kWriting, kNsPerSecond);
      }
      newest_ = cluster_.complete().newest_snapshot;
      if (alone_) return Go(Step::kAlone, kRevertNs);
      if (&cluster_.replica_machine(replica_) == cluster_.engine_machine() ||
          random_.Chance(1, 2)) {
        cluster_.KillDiskHost(replica_, kLeaveNs + random_.Below(kRevertNs));
      } else {
        CutOff(*cluster_.engine_machine());
      }
      return Go(Step::kLeaving, kLeaveNs);
    case Step::kLeaving:
      if (cluster_.IsAway(cluster_.replica_id(replica_)) && Ready()) {
        return Go(Step::kReverting, kRevertNs);
      }
      if (over) break;
      return;
    case Step::kReverting:
      if (over || snapshots_.reverted() > reverted_) break;
      return;
    case Step::kAlone:
      if (over) break;
      return;
    case Step::kMoving:
      if (over || (Ready() && cluster_.engine() != left_ &&
                   cluster_.IsAway(cluster_.replica_id(replica_)))) {
        break;
      }
      return;
    case Step::kBack:
      if (!over && members.count < cluster_.replica_count()) return;
      return Go(Step::kWriting, random_.Between(300, 1500) * kNsPerMs);
  }
  Heal();
  Go(Step::kBack, kBackNs);
}

void Reverts::CutOff(const Machine& machine) {
  const Machine& replica = cluster_.replica_machine(replica_);
  if (&machine == &replica) return;
  cluster_.network.Cut(machine.name(), replica.name());
  cluster_.network.Cut(replica.name(), machine.name());
}

void Reverts::Heal() {
  for (const auto& from : cluster_.machines()) {
    for (const auto& to : cluster_.machines()) cluster_.network.Heal(from->name(), to->name());
  }
}

// A revert is proposed, and nobody has its record yet: one replica alone will.
void Reverts::OnRecord() {
  if (!running_ || step_ != Step::kAlone || !Ready()) return;
  const wire::Record& proposed = cluster_.proposed();
  if (!NewerRecord(proposed, cluster_.complete()) || proposed.newest_snapshot == newest_) return;
  const Machine& engine = *cluster_.engine_machine();
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    const Machine& other = cluster_.replica_machine(i);
    if (i == replica_ || &other == &engine) continue;
    cluster_.network.Cut(engine.name(), other.name());
    cluster_.network.Cut(other.name(), engine.name());
  }
  cluster_.CutStore(engine);
  left_ = cluster_.engine();
  Go(Step::kMoving, kMoveNs);
  world_.After(random_.Between(20, 300) * kNsPerMs, [this, left = left_] {
    if (running_ && step_ == Step::kMoving && left == left_) Move();
  });
}

// Nobody knows of the revert but that one, which is not heard.
void Reverts::Move() {
  Heal();
  for (const auto& machine : cluster_.machines()) CutOff(*machine);
  const Machine* const from = cluster_.engine_machine();
  for (const auto& machine : cluster_.machines()) {
    if (machine.get() == from || !machine->up() ||
        machine.get() == &cluster_.replica_machine(replica_)) {
      continue;
    }
    cluster_.Attach(*machine);
    break;
  }
  world_.After(random_.Below(kNsPerSecond), [this, left = left_] {
    const auto& old = cluster_.old_engines();
    if (std::find(old.begin(), old.end(), left) != old.end()) cluster_.KillOldEngine(left);
  });
}

}  // namespace ankole::sim
