#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "sim/features.h"
#include "sim/layers_now.h"
#include "sim/machine.h"
#include "sim/network.h"
#include "sim/processes.h"
#include "sim/store.h"
#include "sim/world.h"

namespace ankole::sim {

// The machines, the store, and what starts and restarts processes: the part of supervisor, agent
// and manager, as far as data depends on it.
class Rot;

class Cluster {
 public:
  struct Options {
    size_t replicas = 3;
    size_t hosts = 2;                 // machines without a disk host, for engines
    uint64_t size_bytes = 16 * kMiB;  // at most: it may be smaller at first
    uint64_t first_bytes = 0;         // what it has then; 0: size_bytes
    bool direct = false;              // O_DIRECT
    bool forks = false;               // the faults are those of Nemesis::Fork
    bool reverts = false;             // a replica misses reverts: Reverts
    bool clones = false;              // there are linked clones of snapshots: Clones
    bool snapshots = kFeatures.snapshots;
    // As in EngineOptions.
    uint64_t late_ns = kNsPerSecond;
    uint64_t start_wait_ns = 5 * kNsPerSecond;
    uint64_t idle_ns = 5 * kNsPerSecond;
    size_t dirty_regions_max = kDirtyRegionsMax;
  };
  Cluster(World& world, const Options& options);

  // Makes the replicas and waits for the disk hosts. False (and a finding) when they do not come.
  bool MakeReplicas();
  // The store gives the volume to that machine, and an engine starts there, when the store answers.
  void Attach(Machine& machine);
  // The newest attachment's engine, or null between two runs.
  EngineProcess* engine() { return engine_; }
  // Engines of earlier attachments that nobody has ended yet.
  const std::vector<EngineProcess*>& old_engines() const { return old_engines_; }
  // Its machine lost power since the volume was attached to it.
  bool EngineLost() const {
    return engine_machine_ != nullptr &&
           (!engine_machine_->up() || engine_machine_->boots() != engine_boots_);
  }
  // The newest attachment's machine; null before the first.
  Machine* engine_machine() { return engine_machine_; }

  // The disk of a replica that nobody counts on is replaced: it is made anew, and empty. Or, where
  // remove_alone says so, the replica is removed, and what else is on that disk stays.
  void ReplaceDisk(size_t replica, uint64_t restart_ns);
  // kill -9; the supervisor starts it again after `restart_ns`.
  void KillDiskHost(size_t replica, uint64_t restart_ns);
  void KillEngine(uint64_t restart_ns);
  void KillOldEngine(EngineProcess* engine) { EndEngine(engine, nullptr); }
  // Power is gone; it boots after `boot_ns`, and its disk host starts. An engine that ran there is
  // attached anew, there or elsewhere.
  void LosePower(Machine& machine, uint64_t boot_ns);
  // Stops the newest engine in good order.
  void StopEngine();
  // The store notes that the volume is to become so large, and its engine hears of that. One order
  // at a time; it is over when the engine has said so and the store knows.
  void Expand(uint64_t to_bytes);
  bool expanding() const { return expansion_.to_bytes != 0; }
  // As the store has it: what clients are known to have seen, and with what is ordered.
  uint64_t seen_bytes() const { return seen_bytes_; }
  uint64_t wanted_bytes() const { return std::max(seen_bytes_, expansion_.to_bytes); }

  void CutStore(const Machine& machine) { store_cuts_.insert(&machine); }
  void HealStore() { store_cuts_.clear(); }
  bool StoreReachable(const Machine& machine) const { return !store_cuts_.contains(&machine); }

  DiskHostProcess* disk_host(size_t replica) { return replicas_[replica].process; }
  Machine& replica_machine(size_t replica) { return *replicas_[replica].machine; }
  wire::ReplicaId replica_id(size_t replica) const { return replicas_[replica].id; }
  // Null: no replica of that id.
  Machine* MachineOf(wire::ReplicaId id);
  size_t replica_count() const { return replicas_.size(); }
  const std::vector<std::unique_ptr<Machine>>& machines() const { return machines_; }
  std::string DirectoryOf(size_t replica) const;
  // As its files are now.
  Result<LayersNow> LayersOf(size_t replica, bool while_named = false) const;
  // For traces: what each replica has of the block, in which layer.
  void TraceBlock(uint64_t block) { TraceBlock(block, false); }

  // The newest complete record that an engine told of, and the newest that one has proposed.
  const wire::Record& complete() const { return complete_; }
  const wire::Record& proposed() const { return proposed_; }

  // Those whom the newest engine works with: of its proposal, where that is not complete.
  const wire::Members& targets() const {
    return NewerRecord(proposed_, complete_) ? proposed_.members : complete_.members;
  }

  // The epoch of that engine.
  const wire::Epoch& targets_epoch() const {
    return NewerRecord(proposed_, complete_) ? proposed_.epoch : complete_.epoch;
  }

  World& world;
  Network network;
  Store store;
  const Options options;
  Rot* rot = nullptr;  // set before anything runs

  // It is no member, nor may it be one of a record that is on its way.
  bool IsAway(wire::ReplicaId id) const {
    return !NewerRecord(proposed_, complete_) && complete_.exists() &&
           !complete_.members.Contains(id);
  }

  // An engine's requests end with it: the process is gone, or says that it will answer none.
  std::function<void(EngineProcess*)> on_engine_gone;
  std::function<void(EngineProcess*)> on_engine_ready;
  std::function<void()> on_members_changed;
  // A record is proposed, or complete: things are on their way.
  std::function<void()> on_record;
  std::function<bool()> remove_alone;
  // A snapshot is about to be taken or deleted, or what was deleted is about to be merged.
  std::function<void()> on_snapshot;
  // As the engine tells, before the store knows.
  std::function<void(EngineProcess*, uint64_t size_bytes)> on_size;

 private:
  struct ReplicaSlot {
    Machine* machine = nullptr;
    wire::ReplicaId id = 0;
    DiskHostProcess* process = nullptr;
    uint64_t failures = 0;   // starts that failed one after the other
    bool made = false;       // its replica was made, on the disk that is there
    bool remove = false;     // what is there of it goes first
    std::string block = {};  // what was last told of a block
  };
  void StartDiskHost(size_t replica);
  void StartEngine();
  void EndEngine(EngineProcess* engine, std::function<void()> reaped);
  // What an engine tells its supervisor comes in order and late; the last words of one that is
  // killed may be lost.
  void Tell(EngineProcess* engine, std::function<void()> what);
  void AskStore(EngineProcess* engine, uint64_t question, const wire::Record* record);
  void Expanded(EngineProcess* engine, uint64_t size_bytes, const engine::Expansion& expansion);
  void OrderExpansion();
  void GiveHint(EngineProcess* engine, const wire::Record& record);
  void Completed(const wire::Record& record);
  void TraceBlock(uint64_t block, bool changes);
  void CheckSynced();
  void Watch();

  std::vector<std::unique_ptr<Machine>> machines_;
  std::vector<ReplicaSlot> replicas_;
  Secret secret_ = {};
  std::set<const Machine*> store_cuts_;
  // The attachment: what the agent of its machine knows.
  Machine* engine_machine_ = nullptr;
  uint64_t engine_boots_ = 0;
  uint64_t attachment_ = 0;
  uint64_t attaching_ = 0;  // counts calls of Attach
  uint64_t run_ = 0;
  bool clients_anew_ = false;
  uint64_t seen_bytes_ = 0;
  struct Order {
    std::string id;
    uint64_t to_bytes = 0;  // 0: there is none
  };
  Order expansion_;
  uint64_t expansions_ = 0;
  wire::Record known_record_;
  // The machines' supervisors: what each keeps of the engines that ran there (rule 6).
  struct Membership {
    uint64_t attachment = 0;
    bool kept = false;
    wire::Record complete;
    std::vector<wire::Record> proposals;
    bool alone = false;
  };
  std::map<const Machine*, Membership> memberships_;
  struct Channel {
    uint64_t last_ns = 0;
    bool silent = false;
  };
  std::map<const EngineProcess*, Channel> channels_;
  uint64_t store_answer_ns_ = 0;  // answers come in the order of the questions
  EngineProcess* engine_ = nullptr;
  std::vector<EngineProcess*> old_engines_;
  wire::Record complete_;
  wire::Record proposed_;
};

}  // namespace ankole::sim
