#include "sim/cluster.h"

#include <algorithm>
#include <utility>

#include "replica/disk_directory.h"
#include "sim/features.h"
#include "sim/rot.h"

namespace ankole::sim {
namespace {

constexpr uint64_t kMakeNs = 30 * kNsPerSecond;
constexpr uint64_t kWatchNs = 250 * kNsPerMs;
constexpr uint64_t kStoreRetryNs = 500 * kNsPerMs;
constexpr uint64_t kOrderRetryNs = kNsPerSecond;

}  // namespace

Cluster::Cluster(World& simulated, const Options& given)
    : world(simulated), network(simulated), options(given) {
  world.random.Fill(secret_.data(), secret_.size());
  for (size_t i = 0; i < options.replicas; ++i) {
    machines_.push_back(std::make_unique<Machine>(world, network, "disk" + std::to_string(i)));
    Machine& machine = *machines_.back();
    machine.disk.drops_at_once = kFeatures.checksums_at_rest;
    CHECK(machine.disk.MakeDirectory("/disk") == 0);
    machine.disk.SyncDirectory(machine.disk.root().get());
    replicas_.push_back({&machine, 0x10 + i});
  }
  for (size_t i = 0; i < options.hosts; ++i) {
    machines_.push_back(std::make_unique<Machine>(world, network, "host" + std::to_string(i)));
  }
  seen_bytes_ = options.first_bytes != 0 ? options.first_bytes : options.size_bytes;
  Watch();
}

Machine* Cluster::MachineOf(wire::ReplicaId id) {
  for (const ReplicaSlot& slot : replicas_) {
    if (slot.id == id) return slot.machine;
  }
  return nullptr;
}

std::string Cluster::DirectoryOf(size_t replica) const {
  return replica::ReplicaDirectory("/disk", kVolumeName, replicas_[replica].id);
}

Result<LayersNow> Cluster::LayersOf(size_t replica, bool while_named) const {
  return LayersNow::Read(replicas_[replica].machine->disk, DirectoryOf(replica), while_named);
}

void Cluster::TraceBlock(uint64_t block, bool changes) {
  if (!world.tracing()) return;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    const Result<LayersNow> layers = LayersOf(i, true);
    std::string text = layers.ok() ? layers.value().Describe(block) : layers.status().message();
    if (changes && text == replicas_[i].block) continue;
    world.Trace(replicas_[i].machine->name(), "block " + std::to_string(block) + ": " + text);
    replicas_[i].block = std::move(text);
  }
}

// --- disk hosts
// -----------------------------------------------------------------------------------

bool Cluster::MakeReplicas() {
  for (size_t i = 0; i < replicas_.size(); ++i) StartDiskHost(i);
  const bool made = world.RunUntil(world.now_ns() + kMakeNs, [this] {
    return std::all_of(replicas_.begin(), replicas_.end(), [](const ReplicaSlot& slot) {
      return slot.process != nullptr && slot.process->ready();
    });
  });
  if (!made) world.Finding("the replicas could not be made");
  return made;
}

void Cluster::StartDiskHost(size_t replica) {
  ReplicaSlot& slot = replicas_[replica];
  if (!slot.machine->up() || slot.process != nullptr) return;
  auto process = std::make_shared<DiskHostProcess>(*slot.machine, slot.id);
  Keep(process);
  slot.process = process.get();
  process->create = !slot.made;
  process->remove = slot.remove;
  process->size_bytes = wanted_bytes();
  process->direct = options.direct;
  process->secret = secret_;
  process->on_made = [&slot] {
    slot.made = true;
    slot.remove = false;
  };
  process->on_ended = [this, replica, started = process.get()] {
    // It could not use the disk, and says so by ending: tried again, later each time.
    ReplicaSlot& ended = replicas_[replica];
    if (ended.process != started) return;
    started->reactor.Kill(nullptr);
    ended.process = nullptr;
    const uint64_t delay_ns = std::min<uint64_t>(
        5 * kNsPerSecond, (100 * kNsPerMs) << std::min<uint64_t>(6, ended.failures++));
    world.After(delay_ns, [this, replica] { StartDiskHost(replica); });
  };
  process->Start();
}

void Cluster::KillDiskHost(size_t replica, uint64_t restart_ns) {
  ReplicaSlot& slot = replicas_[replica];
  if (slot.process == nullptr || !slot.machine->up()) return;
  slot.failures = 0;
  DiskHostProcess* const process = slot.process;
  // The supervisor starts another one when this one is reaped.
  process->reactor.Kill([this, replica, process, restart_ns] {
    if (replicas_[replica].process == process) replicas_[replica].process = nullptr;
    world.After(restart_ns, [this, replica] { StartDiskHost(replica); });
  });
}

void Cluster::ReplaceDisk(size_t replica, uint64_t restart_ns) {
  ReplicaSlot& slot = replicas_[replica];
  if (slot.process == nullptr || !slot.machine->up()) return;
  DiskHostProcess* const process = slot.process;
  process->reactor.Kill([this, replica, process, restart_ns] {
    ReplicaSlot& of = replicas_[replica];
    if (of.process != process) return;  // its machine lost power
    of.process = nullptr;
    of.remove = remove_alone && remove_alone();
    if (!of.remove) of.machine->disk.Replace("disk");
    of.made = false;
    world.After(restart_ns, [this, replica] { StartDiskHost(replica); });
  });
}

void Cluster::LosePower(Machine& machine, uint64_t boot_ns) {
  if (!machine.up()) return;
  CheckSynced();
  machine.LosePower();
  memberships_.erase(&machine);  // of its supervisor
  for (ReplicaSlot& slot : replicas_) {
    if (slot.machine == &machine) slot.process = nullptr;
  }
  std::vector<EngineProcess*> gone;
  for (EngineProcess* old : old_engines_) {
    if (&old->reactor.machine() == &machine) gone.push_back(old);
  }
  std::erase_if(old_engines_,
                [&](EngineProcess* old) { return &old->reactor.machine() == &machine; });
  if (engine_ != nullptr && engine_machine_ == &machine)
    gone.push_back(std::exchange(engine_, nullptr));
  for (EngineProcess* engine : gone) {
    if (on_engine_gone) on_engine_gone(engine);
  }
  world.After(boot_ns, [this, &machine] {
    machine.Boot();
    for (size_t i = 0; i < replicas_.size(); ++i) {
      if (replicas_[i].machine != &machine) continue;
      world.After(world.random.Below(200 * kNsPerMs), [this, i] { StartDiskHost(i); });
    }
  });
}

// --- engines
// --------------------------------------------------------------------------------------

void Cluster::Attach(Machine& machine) {
  const uint64_t number = ++attaching_;
  if (world.tracing()) world.Trace("manager", "attaches the volume to " + machine.name());
  if (engine_ != nullptr) old_engines_.push_back(std::exchange(engine_, nullptr));
  engine_machine_ = &machine;
  engine_boots_ = machine.boots();
  const Store::Attachment given = store.Attach(machine.name(), machine.boot_id());
  attachment_ = given.number;
  known_record_ = given.record;
  clients_anew_ = given.clients_anew;
  run_ = 0;
  // A supervisor has one engine a volume: the one before is ended first.
  auto left = std::make_shared<size_t>(1);
  const auto start = [this, number, left] {
    if (--*left > 0) return;
    world.After(world.random.Skewed(kNsPerMs, 300 * kNsPerMs), [this, number] {
      if (number == attaching_) StartEngine();
    });
  };
  for (EngineProcess* old : std::vector<EngineProcess*>(old_engines_)) {
    if (&old->reactor.machine() != &machine) continue;
    ++*left;
    EndEngine(old, start);
  }
  start();
}

void Cluster::StartEngine() {
  if (engine_ != nullptr || EngineLost()) return;
  engine::EngineOptions engine_options;
  engine_options.volume = kVolumeName;
  engine_options.size_bytes = seen_bytes_;
  engine_options.expand_to_bytes = expansion_.to_bytes;
  engine_options.expansion_id = expansion_.id;
  engine_options.secret = secret_;
  engine_options.epoch = {attachment_, ++run_};
  engine_options.record = known_record_;
  engine_options.clients_anew = clients_anew_;
  engine_options.shared_memory = false;
  engine_options.late_ns = options.late_ns;
  engine_options.start_wait_ns = options.start_wait_ns;
  engine_options.idle_ns = options.idle_ns;
  engine_options.dirty_regions_max = options.dirty_regions_max;
  // src/supervisor/memberships.ts
  Membership& membership = memberships_[engine_machine_];
  const Membership before = membership;
  membership.attachment = attachment_;
  if (before.attachment != attachment_) membership.kept = false;
  const bool follows = before.attachment != 0 && attachment_ - before.attachment <= 1;
  membership.alone = (attachment_ == 1 && run_ == 1) || (follows && before.alone);
  engine_options.alone = membership.alone;
  // The volumes are small: each region that is copied is a portion.
  engine_options.copied_sync_bytes = kRegionBytes;
  engine_options.kept = membership.kept;
  if (membership.kept) {
    if (NewerRecord(membership.complete, engine_options.record)) {
      engine_options.record = membership.complete;
    }
    engine_options.proposals = membership.proposals;
  }
  for (const ReplicaSlot& slot : replicas_) {
    io::Address address;
    address.host = slot.machine->name();
    address.port = kDiskHostPort;
    engine_options.replicas.push_back({slot.id, address});
  }
  auto process = std::make_shared<EngineProcess>(*engine_machine_, std::move(engine_options));
  Keep(process);
  engine_ = process.get();
  EngineProcess* const started = engine_;
  const Machine* const machine = engine_machine_;
  process->on_ask_store = [this, started](uint64_t question, const wire::Record& record) {
    Tell(started, [this, started, question, record] { AskStore(started, question, &record); });
  };
  process->on_probe_store = [this, started](uint64_t question) {
    Tell(started, [this, started, question] { AskStore(started, question, nullptr); });
  };
  process->on_propose = [this, started, machine](const wire::Record& record) {
    if (NewerRecord(record, proposed_)) proposed_ = record;
    for (const wire::ReplicaId id : record.members.all()) {
      if (!started->ready() || complete_.members.Contains(id)) continue;
      Machine& joiner = *MachineOf(id);
      joiner.lost_before_join = joiner.lost_tick;
    }
    if (on_record) on_record();
    Tell(started, [this, machine, record] {
      Membership& of = memberships_[machine];
      if (of.kept && of.attachment == record.epoch.attachment) of.proposals.push_back(record);
    });
  };
  process->on_complete = [this, started, machine](const wire::Record& record) {
    Completed(record);
    Tell(started, [this, started, machine, record] {
      Membership& of = memberships_[machine];
      if (of.attachment == record.epoch.attachment) {
        of.kept = true;
        of.complete = record;
        of.proposals.clear();
      }
      GiveHint(started, record);
    });
  };
  process->on_ready = [this, started, machine] {
    Tell(started, [this, started, machine] {
      Membership& of = memberships_[machine];
      if (of.attachment == started->epoch().attachment) of.alone = true;
    });
    if (on_engine_ready) on_engine_ready(started);
  };
  process->on_size = [this, started](uint64_t size_bytes, const engine::Expansion& expansion) {
    if (on_size) on_size(started, size_bytes);
    // Chance of its own: a run in which nothing grows is what it was before anything could.
    if (size_bytes == seen_bytes_ && !expanding()) return;
    Tell(started,
         [this, started, size_bytes, expansion] { Expanded(started, size_bytes, expansion); });
  };
  process->Start();
}

// src/manager/expansion.ts
void Cluster::Expand(uint64_t to_bytes) {
  CHECK(!expanding() && to_bytes > seen_bytes_ && to_bytes <= options.size_bytes);
  expansion_ = {"expand-" + std::to_string(++expansions_), to_bytes};
  OrderExpansion();
}

// What runs is told; what starts later was started with it.
void Cluster::OrderExpansion() {
  EngineProcess* const engine = engine_;
  if (engine == nullptr || !expanding()) return;
  const uint64_t delay_ns = world.random.Skewed(20 * kNsPerUs, 5 * kNsPerMs);
  world.After(delay_ns, [this, engine, order = expansion_] {
    if (order.id != expansion_.id || engine != engine_) return;
    if (!engine->ready() || engine->stopped()) return OrderExpansion();
    // One that is frozen hears of it when it goes on.
    engine->reactor.Inside([this, engine, order] {
      if (engine->engine().Expand(order.id, order.to_bytes).ok()) return;
      // It is closing, or still at another order.
      world.After(kOrderRetryNs, [this] { OrderExpansion(); });
    });
  });
}

void Cluster::Expanded(EngineProcess* engine, uint64_t size_bytes,
                       const engine::Expansion& expansion) {
  seen_bytes_ = std::max(seen_bytes_, size_bytes);
  if (!expanding()) return;
  const bool failed = expansion.state == engine::ExpansionState::kFailed && engine == engine_ &&
                      expansion.id == expansion_.id;
  if (failed || seen_bytes_ >= expansion_.to_bytes) expansion_ = {};
}

void Cluster::Completed(const wire::Record& record) {
  if (!NewerRecord(record, complete_)) return;
  complete_ = record;
  if (on_members_changed) on_members_changed();
  if (on_record) on_record();
}

void Cluster::Tell(EngineProcess* engine, std::function<void()> what) {
  Channel& channel = channels_[engine];
  channel.last_ns =
      std::max(channel.last_ns, world.now_ns() + world.random.Skewed(20 * kNsPerUs, 5 * kNsPerMs));
  const uint64_t boots = engine->reactor.machine().boots();
  world.At(channel.last_ns, [this, engine, boots, what = std::move(what)] {
    const Machine& machine = engine->reactor.machine();
    // The supervisor is on the same machine.
    if (!machine.up() || machine.boots() != boots) return;
    Channel& told = channels_[engine];
    told.silent |= !engine->reactor.alive() && world.random.Chance(1, 2);
    if (!told.silent) what();
  });
}

// By way of the agent, which keeps what the store has confirmed. No record: it is only asked
// whether it answers.
void Cluster::AskStore(EngineProcess* engine, uint64_t question, const wire::Record* record) {
  Machine& machine = engine->reactor.machine();
  const uint64_t asked_ns = world.now_ns() + world.random.Skewed(200 * kNsPerUs, 50 * kNsPerMs);
  store_answer_ns_ = std::max(store_answer_ns_, asked_ns);
  const bool probe = record == nullptr;
  const wire::Record asked = probe ? wire::Record{} : *record;
  world.At(store_answer_ns_, [this, engine, &machine, question, asked, probe] {
    if (!StoreReachable(machine) || !machine.up()) {
      // Sometimes the agent can tell, sometimes nothing comes.
      if (world.random.Chance(1, 2)) return;
      world.After(kStoreRetryNs, [engine, question] {
        engine->reactor.Inside([engine, question] {
          engine->engine().AnswerStore(question,
                                       {ErrorCode::kUnavailable, "the store does not answer"});
        });
      });
      return;
    }
    const Status outcome = probe ? store.Probe(engine->epoch().attachment) : store.Put(asked);
    if (world.tracing() && !probe) {
      world.Trace("store", wire::Describe(asked) + ": " +
                               (outcome.ok() ? "recorded" : "refused: " + outcome.message()));
    }
    world.After(world.random.Skewed(200 * kNsPerUs, 50 * kNsPerMs),
                [this, engine, &machine, question, asked, outcome] {
                  if (!StoreReachable(machine)) return;
                  if (outcome.ok() && asked.epoch.attachment == attachment_ &&
                      NewerRecord(asked, known_record_)) {
                    known_record_ = asked;
                  }
                  engine->reactor.Inside([engine, question, outcome] {
                    engine->engine().AnswerStore(question, outcome);
                  });
                });
  });
}

// A complete record comes to the store when it can: nobody waits for it.
void Cluster::GiveHint(EngineProcess* engine, const wire::Record& record) {
  const Machine& machine = engine->reactor.machine();
  const uint64_t boots = machine.boots();
  world.After(world.random.Skewed(kNsPerMs, kNsPerSecond), [this, engine, &machine, boots, record] {
    if (!machine.up() || machine.boots() != boots) return;
    if (!StoreReachable(machine)) {
      GiveHint(engine, record);
      return;
    }
    if (store.Put(record).ok() && record.epoch.attachment == attachment_ &&
        NewerRecord(record, known_record_)) {
      known_record_ = record;
    }
  });
}

void Cluster::KillEngine(uint64_t restart_ns) {
  if (engine_ == nullptr) return;
  EngineProcess* const engine = std::exchange(engine_, nullptr);
  const uint64_t number = attaching_;
  engine->reactor.Kill([this, number, restart_ns] {
    world.After(restart_ns, [this, number] {
      if (number == attaching_) StartEngine();
    });
  });
  if (on_engine_gone) on_engine_gone(engine);
}

void Cluster::EndEngine(EngineProcess* engine, std::function<void()> reaped) {
  std::erase(old_engines_, engine);
  engine->reactor.Kill(std::move(reaped));
  if (on_engine_gone) on_engine_gone(engine);
}

void Cluster::StopEngine() {
  if (engine_ == nullptr) return;
  EngineProcess* const engine = engine_;
  engine->reactor.Inside([engine] { engine->engine().Stop(); });
}

void Cluster::CheckSynced() {
  const std::string wrong = rot == nullptr ? "" : rot->CleanUnsynced();
  if (!wrong.empty()) world.Finding(wrong);
}

// What agents and the supervisor see now and then: engines that are fenced off are ended.
void Cluster::Watch() {
  if (world.traced_block) TraceBlock(*world.traced_block, true);
  world.After(kWatchNs, [this] {
    CheckSynced();
    for (EngineProcess* old : std::vector<EngineProcess*>(old_engines_)) {
      if (old->refused() && world.random.Chance(1, 2)) KillOldEngine(old);
    }
    if (engine_ != nullptr && engine_->refused()) {
      world.Finding("the newest engine, epoch " + std::to_string(engine_->epoch().attachment) +
                    "." + std::to_string(engine_->epoch().run) + ", was fenced off");
    }
    Watch();
  });
}

}  // namespace ankole::sim
