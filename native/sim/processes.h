#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "replica/disk_host.h"
#include "sim/machine.h"
#include "sim/reactor.h"

// The processes of the system under test: the real DiskHost and the real Engine, each on a
// simulated reactor. One that was killed or lost power stays in memory, untouched, to the end of
// the run: nothing of it may be destroyed while it has work in flight.
namespace ankole::sim {

inline constexpr uint16_t kDiskHostPort = 7000;
inline constexpr char kVolumeName[] = "simulated";

class DiskHostProcess final : private EventSink {
 public:
  DiskHostProcess(Machine& machine, wire::ReplicaId replica);
  void Start();
  // Makes the replica, or finds it made. It serves when ready() is true.
  bool ready() const { return ready_; }
  bool alive() const { return reactor.alive() && !ended_; }
  wire::ReplicaId replica() const { return replica_; }
  // What it answers when asked for its counters; it serves.
  Json Counters();
  // Asks it for something else. `done` never runs where it ends before it has answered.
  void Ask(Json message, std::function<void(const Status&)> done);

  SimReactor reactor;
  uint64_t started_ns = 0;
  // To be set before Start.
  bool create = false;
  bool remove = false;  // before that, what is there of the replica
  uint64_t size_bytes = 0;
  bool direct = false;
  Secret secret = {};
  // The replica was made, or found.
  std::function<void()> on_made;
  // It stopped by itself, as it could not use its disk.
  std::function<void()> on_ended;

 private:
  void Emit(const Json& event) override;
  void Create();
  void Remove();
  void Answered(int64_t request, const Json* error);

  const wire::ReplicaId replica_;
  bool ready_ = false;
  bool ended_ = false;
  Json counters_;
  std::map<int64_t, std::function<void(const Status&)>> asked_;
  int64_t requests_ = 0;
  std::unique_ptr<replica::DiskHost> host_;
};

class EngineProcess final : private engine::Engine::Observer, private LogSink {
 public:
  EngineProcess(Machine& machine, engine::EngineOptions options);
  void Start();

  const wire::Epoch& epoch() const { return options_.epoch; }
  engine::Engine& engine() { return *engine_; }
  const engine::Engine& engine() const { return *engine_; }
  bool ready() const { return ready_ && reactor.alive(); }
  bool refused() const { return engine_->mode() == engine::Mode::kRefused; }
  bool stopped() const { return stopped_; }
  bool clean() const { return clean_; }
  // Whatever it has dirtied was for clients: it began with equal members, and no replica joined.
  bool only_clients() const { return only_clients_; }
  // It holds these back, as they lack snapshots.
  const wire::Members& lack_snapshots() const { return lack_snapshots_; }

  SimReactor reactor;
  uint64_t started_ns = 0;
  uint64_t ready_tick = 0;
  // On its turn.
  std::function<void(uint64_t question, const wire::Record& record)> on_ask_store;
  std::function<void(uint64_t question)> on_probe_store;
  std::function<void(const wire::Record& record)> on_propose;
  std::function<void(const wire::Record& record)> on_complete;
  std::function<void()> on_ready;
  std::function<void(uint64_t size_bytes, const engine::Expansion& expansion)> on_size;

 private:
  void OnReport(const engine::EngineReport& report) override;
  void OnReplica(wire::ReplicaId replica, const char* state, engine::Fault fault,
                 const std::string& reason) override;
  void OnCannotStart(const engine::StartDecision& decision,
                     const std::vector<engine::Heard>& heard) override;
  void OnPropose(const wire::Record& record) override;
  void OnComplete(const wire::Record& record) override;
  void OnProbeStore(uint64_t question) override;
  void OnAskStore(uint64_t question, const wire::Record& record) override;
  void OnSize(uint64_t size_bytes, const engine::Expansion& expansion) override;
  void OnReady() override;
  void OnStopped(bool clean) override;
  void Log(LogLevel level, const std::string& message) override;

  const engine::EngineOptions options_;
  std::unique_ptr<engine::Engine> engine_;
  bool ready_ = false;
  bool stopped_ = false;
  bool clean_ = false;
  bool only_clients_ = true;
  wire::Members lack_snapshots_;
};

// Keeps what must not be destroyed, where leak checkers find it.
void Keep(std::shared_ptr<void> what);

}  // namespace ankole::sim
