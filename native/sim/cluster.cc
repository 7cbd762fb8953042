#include "sim/cluster.h"

#include <algorithm>
#include <utility>

#include "replica/disk_directory.h"
#include "sim/features.h"

namespace ankole::sim {
namespace {

constexpr uint64_t kMakeNs = 30 * kNsPerSecond;
constexpr uint64_t kWatchNs = 250 * kNsPerMs;
constexpr uint64_t kStoreRetryNs = 500 * kNsPerMs;

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
    replicas_.push_back({&machine, 0x10 + i, nullptr, 0});
  }
  for (size_t i = 0; i < options.hosts; ++i) {
    machines_.push_back(std::make_unique<Machine>(world, network, "host" + std::to_string(i)));
  }
  Watch();
}

Machine* Cluster::MachineOf(wire::ReplicaId id) {
  for (const ReplicaSlot& slot : replicas_) {
    if (slot.id == id) return slot.machine;
  }
  return nullptr;
}

std::string Cluster::HeadPath(size_t replica) const {
  return replica::ReplicaDirectory("/disk", kVolumeName, replicas_[replica].id) +
         "/volume-head-000.img";
}

// --- disk hosts
// -----------------------------------------------------------------------------------

bool Cluster::MakeReplicas() {
  for (size_t i = 0; i < replicas_.size(); ++i) StartDiskHost(i, true);
  const bool made = world.RunUntil(world.now_ns() + kMakeNs, [this] {
    return std::all_of(replicas_.begin(), replicas_.end(), [](const ReplicaSlot& slot) {
      return slot.process != nullptr && slot.process->ready();
    });
  });
  if (!made) world.Finding("the replicas could not be made");
  return made;
}

void Cluster::StartDiskHost(size_t replica, bool create) {
  ReplicaSlot& slot = replicas_[replica];
  if (!slot.machine->up() || slot.process != nullptr) return;
  auto process = std::make_shared<DiskHostProcess>(*slot.machine, slot.id);
  Keep(process);
  slot.process = process.get();
  process->create = create;
  process->size_bytes = options.size_bytes;
  process->direct = options.direct;
  process->secret = secret_;
  process->on_ended = [this, replica, create, started = process.get()] {
    // It could not use the disk, and says so by ending: tried again, later each time.
    ReplicaSlot& ended = replicas_[replica];
    if (ended.process != started) return;
    started->reactor.Kill(nullptr);
    ended.process = nullptr;
    const uint64_t delay_ns = std::min<uint64_t>(
        5 * kNsPerSecond, (100 * kNsPerMs) << std::min<uint64_t>(6, ended.failures++));
    world.After(delay_ns, [this, replica, create] { StartDiskHost(replica, create); });
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
    world.After(restart_ns, [this, replica] { StartDiskHost(replica, false); });
  });
}

void Cluster::LosePower(Machine& machine, uint64_t boot_ns) {
  if (!machine.up()) return;
  machine.LosePower();
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
      world.After(world.random.Below(200 * kNsPerMs), [this, i] { StartDiskHost(i, false); });
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
  const Store::Attachment given = store.Attach(machine.name());
  attachment_ = given.number;
  known_record_ = given.record;
  run_ = 0;
  world.After(world.random.Skewed(kNsPerMs, 300 * kNsPerMs), [this, number] {
    if (number == attaching_) StartEngine();
  });
}

void Cluster::StartEngine() {
  if (engine_ != nullptr || EngineLost()) return;
  engine::EngineOptions engine_options;
  engine_options.volume = kVolumeName;
  engine_options.size_bytes = options.size_bytes;
  engine_options.secret = secret_;
  engine_options.epoch = {attachment_, ++run_};
  engine_options.record = known_record_;
  engine_options.shared_memory = false;
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
  process->on_ask_store = [this, started](uint64_t question, const wire::Record& record) {
    AskStore(started, question, record);
  };
  process->on_report = [this](const engine::EngineReport& report) {
    if (!wire::Newer(report.record, complete_)) return;
    complete_ = report.record;
    if (on_members_changed) on_members_changed();
  };
  process->on_ready = [this, started] {
    if (on_engine_ready) on_engine_ready(started);
  };
  process->Start();
}

// By way of the agent, which keeps what the store has confirmed for the next run.
void Cluster::AskStore(EngineProcess* engine, uint64_t question, const wire::Record& record) {
  Machine& machine = engine->reactor.machine();
  const uint64_t asked_ns = world.now_ns() + world.random.Skewed(200 * kNsPerUs, 50 * kNsPerMs);
  store_answer_ns_ = std::max(store_answer_ns_, asked_ns);
  world.At(store_answer_ns_, [this, engine, &machine, question, record] {
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
    const Status outcome = store.Put(record);
    if (world.tracing()) {
      world.Trace("store", wire::Describe(record) + ": " +
                               (outcome.ok() ? "recorded" : "refused: " + outcome.message()));
    }
    world.After(world.random.Skewed(200 * kNsPerUs, 50 * kNsPerMs),
                [this, engine, &machine, question, record, outcome] {
                  if (!StoreReachable(machine)) return;
                  if (outcome.ok() && record.epoch.attachment == attachment_ &&
                      wire::Newer(record, known_record_)) {
                    known_record_ = record;
                  }
                  engine->reactor.Inside([engine, question, outcome] {
                    engine->engine().AnswerStore(question, outcome);
                  });
                });
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

void Cluster::KillOldEngine(EngineProcess* engine) {
  std::erase(old_engines_, engine);
  engine->reactor.Kill(nullptr);
  if (on_engine_gone) on_engine_gone(engine);
}

void Cluster::StopEngine() {
  if (engine_ == nullptr) return;
  EngineProcess* const engine = engine_;
  engine->reactor.Inside([engine] { engine->engine().Stop(); });
}

// What agents and the supervisor see now and then: engines that are fenced off are ended.
void Cluster::Watch() {
  world.After(kWatchNs, [this] {
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
