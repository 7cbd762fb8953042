#include "sim/snapshots.h"

#include <algorithm>
#include <utility>

#include "sim/rot.h"

namespace ankole::sim {
namespace {

constexpr uint64_t kSnapshotLookNs = 400 * kNsPerMs;
// For so long the model keeps what it needs to judge one that nobody answered for.
constexpr uint64_t kForgottenNs = 20 * kNsPerSecond;

const char* kActions[] = {"take snapshot", "delete snapshot", "list snapshots",
                          "revert to snapshot"};

}  // namespace

const char* Snapshots::Snapshot::StateName() const {
  switch (state) {
    case State::kTaking:
      return "is being taken";
    case State::kUnknown:
      return "was not answered for";
    case State::kLive:
      return "was taken";
    case State::kDeleting:
      return "is being deleted";
    case State::kMaybe:
      return "was to be deleted, without a good answer";
    case State::kDeleted:
      return "was deleted";
    case State::kGone:
      return "was at no member";
  }
  return "";
}

Snapshots::Snapshots(Cluster& cluster, Load& load, uint64_t seed)
    : cluster_(cluster),
      load_(load),
      world_(cluster.world),
      random_(seed),
      revert_random_(seed ^ 0x7265766572740000) {
  const uint64_t kind = random_.Below(6);
  if (!cluster.options.snapshots || (kind < 2 && !cluster.options.reverts)) return;
  if (revert_random_.Chance(1, 3)) reverts_in_100_ = revert_random_.Between(3, 25);
  const bool many = kind == 5;
  layers_max_ = many ? random_.Between(8, 20) : random_.Between(1, 6);
  pause_ns_ = (many ? 20 * kNsPerMs : 100 * kNsPerMs) << random_.Below(5);
  clients_.resize(random_.Between(1, 2));
  if (cluster.options.reverts) {
    reverts_in_100_ = revert_random_.Between(5, 25);
    layers_max_ = revert_random_.Between(2, 6);
    pause_ns_ = (50 * kNsPerMs) << revert_random_.Below(3);
  }
  cluster.on_engine_gone = [this, before = cluster.on_engine_gone](EngineProcess* engine) {
    before(engine);
    OnEngineGone(engine);
  };
  cluster.on_engine_ready = [this, before = cluster.on_engine_ready](EngineProcess* engine) {
    before(engine);
    OnEngineReady(engine);
  };
  load.oldest_reader = [this] { return OldestReader(); };
  LookLater();
}

std::string Snapshots::Describe() const {
  if (!on()) return "no snapshots";
  return "up to " + std::to_string(layers_max_) + " snapshots, one in " +
         std::to_string(pause_ns_ / kNsPerMs) + " ms" +
         (reverts_in_100_ == 0
              ? ""
              : ", " + std::to_string(reverts_in_100_) + " in 100 requests are reverts");
}

void Snapshots::Start() {
  settling_ = settled_ = matched_ = false;
  if (!on()) return;
  running_ = true;
  for (size_t i = 0; i < clients_.size(); ++i) NextLater(i, 0, 2 * pause_ns_);
}

void Snapshots::Settle() {
  settling_ = on();
  settled_ = !on();
  if (on()) NextLater(0, 0, kNsPerMs);
}

std::vector<std::string> Snapshots::Live() const {
  std::vector<std::string> live;
  for (const auto& [name, snapshot] : snapshots_) {
    if (snapshot.MustBe()) live.push_back(name);
  }
  return live;
}

const ViewValues* Snapshots::Seen(const std::string& name) const {
  const auto found = snapshots_.find(name);
  return found == snapshots_.end() || !found->second.MustBe() ? nullptr : found->second.view.get();
}

void Snapshots::Promise(uint64_t answer_ns) {
  promise_ns_ = answer_ns;
  promised_ns_ = world_.now_ns();
}

std::string Snapshots::Waiting() const {
  std::string text;
  for (const Client& client : clients_) {
    const Request* request = client.request;
    if (request == nullptr) continue;
    text += "; " + Name(*request) + " since " +
            std::to_string((world_.now_ns() - request->began_ns) / kNsPerMs) + " ms";
  }
  return text + (last_error_.empty() ? "" : "; the last answer was: " + last_error_);
}

// --- requests
// -------------------------------------------------------------------------------------

std::string Snapshots::Name(const Request& request) const {
  return std::string(kActions[static_cast<size_t>(request.action)]) +
         (request.name.empty() ? "" : " ") +
         (request.action == Action::kRevert ? request.base + " as " : "") + request.name;
}

void Snapshots::NextLater(size_t client, uint64_t least_ns, uint64_t most_ns) {
  const uint64_t turn = ++clients_[client].turn;
  world_.After(least_ns + random_.Below(most_ns - least_ns + 1), [this, client, turn] {
    if (clients_[client].turn == turn) Next(client);
  });
}

void Snapshots::Next(size_t client) {
  Client& self = clients_[client];
  // Only one settles: nothing is under way when that is answered.
  if (self.request != nullptr || (!running_ && (!settling_ || client > 0))) return;
  // Sometimes at one that has been left behind and does not know.
  EngineProcess* engine = cluster_.engine();
  const auto& old = cluster_.old_engines();
  if (running_ && !old.empty() && random_.Chance(1, 8)) engine = old[random_.Below(old.size())];
  if (engine == nullptr || !engine->ready() || engine->refused()) {
    NextLater(client, 10 * kNsPerMs, 200 * kNsPerMs);
    return;
  }
  auto made = std::make_unique<Request>();
  Request* const request = made.get();
  request->snapshots = this;
  request->client = client;
  request->engine = engine;
  request->done = [](engine::SnapshotRequest* done) {
    auto* self_done = static_cast<Request*>(done);
    self_done->snapshots->Done(self_done);
  };
  if (!Fill(request)) {
    NextLater(client, pause_ns_ / 4, 2 * pause_ns_);
    return;
  }
  requests_.push_back(std::move(made));
  request->began_ns = world_.now_ns();
  self.request = request;
  ++under_way_;
  if (world_.tracing()) {
    world_.Trace("operator " + std::to_string(client), Name(*request) + " tick " +
                                                           std::to_string(request->began) + " at " +
                                                           request->engine->reactor.process_name());
  }
  if (request->action != Action::kList && cluster_.on_snapshot) cluster_.on_snapshot();
  request->engine->reactor.Inside([request] {
    if (request->over) return;
    engine::Engine& asked = request->engine->engine();
    switch (request->action) {
      case Action::kTake:
        asked.TakeSnapshot(request);
        break;
      case Action::kDelete:
        asked.DeleteSnapshot(request);
        break;
      case Action::kList:
        asked.ListLayers(request);
        break;
      case Action::kRevert:
        asked.RevertTo(request);
        break;
    }
  });
}

// False: there is nothing to be done.
bool Snapshots::Fill(Request* request) {
  if (held_ && !settling_) return reverts_ && FillRevert(request);
  if (!settling_ && revert_random_.Chance(reverts_in_100_, 100) && FillRevert(request)) return true;
  std::vector<std::string> there;
  for (const auto& [name, snapshot] : snapshots_) {
    const bool sometimes = snapshot.state == State::kUnknown || snapshot.state == State::kMaybe;
    if (snapshot.MustBe() || (sometimes && random_.Chance(1, 4))) there.push_back(name);
  }
  uint64_t which = random_.Below(20);
  if (settling_) {
    which = 0;
  } else if (which < 12 && (there.size() >= layers_max_ || Depth() > 2 * layers_max_)) {
    which = 12;
  }
  request->began = world_.Tick();
  if (which < 12) {
    request->action = Action::kTake;
    request->name = "s" + std::to_string(++names_);
    if (random_.Chance(1, 8)) request->name += ".a-b_c" + std::string(random_.Below(50), 'x');
    if (random_.Chance(1, 3)) {
      request->labels = Json::Object().Set("taken", request->began).Write();
      request->user_created = true;
    }
    Snapshot& snapshot = snapshots_[request->name];
    snapshot.epoch = request->engine->epoch();
    snapshot.began = request->began;
    snapshot.began_ns = world_.now_ns();
    return true;
  }
  if (which < 18) {
    if (there.empty()) return false;
    request->action = Action::kDelete;
    request->name = there[random_.Below(there.size())];
    snapshots_[request->name].state = State::kDeleting;
    return true;
  }
  request->action = Action::kList;
  for (const auto& [name, snapshot] : snapshots_) {
    const bool told = snapshot.state == State::kLive || !snapshot.MayBe();
    if (!told) request->uncertain.push_back(name);
  }
  return true;
}

// To one of which everything is known.
bool Snapshots::FillRevert(Request* request) {
  // What rotted in a layer and was written over would show again, and who keeps account of that
  // counts it as gone.
  if (cluster_.rot->flips() > 0) return false;
  std::vector<std::string> there;
  for (const auto& [name, snapshot] : snapshots_) {
    const bool known = snapshot.MustBe() && snapshot.view != nullptr &&
                       std::find(snapshot.view->begin(), snapshot.view->end(),
                                 RegisterModel::kUnreadable) == snapshot.view->end();
    if (known) there.push_back(name);
  }
  if (there.empty()) return false;
  request->action = Action::kRevert;
  request->base = there[revert_random_.Below(there.size())];
  request->name = "r" + std::to_string(++names_);
  const uint64_t began = request->began = world_.Tick();
  Revert& revert = request->revert;
  revert.epoch = request->engine->epoch();
  revert.began = began;
  const ViewValues& view = *snapshots_[request->base].view;
  for (uint64_t sector = 0; sector < view.size(); ++sector) {
    load_.model.RevertBegins(sector, view[sector], began);
  }
  return true;
}

// What was deleted takes its time to be merged.
size_t Snapshots::Depth() const {
  size_t depth = 0;
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    const Result<LayersNow> layers = cluster_.LayersOf(i);
    if (layers.ok()) depth = std::max(depth, layers.value().chain().size());
  }
  return depth;
}

void Snapshots::Done(Request* request) {
  if (request->over) {
    Finding(Name(*request) + " was answered twice, or after its engine was gone");
    return;
  }
  const uint64_t at = world_.Tick();
  world_.Mix(static_cast<uint64_t>(request->status.code()) + at);
  if (world_.tracing()) {
    world_.Trace("operator " + std::to_string(request->client),
                 Name(*request) + " tick " + std::to_string(request->began) + " answered at " +
                     std::to_string(at) + ": " +
                     (request->status.ok() ? "ok" : request->status.message()));
  }
  last_error_ = request->status.ok() ? "" : request->status.message();
  Judge(request, at);
  Ended(request);
}

void Snapshots::Ended(Request* request) {
  const uint64_t waited_ns = world_.now_ns() - std::max(request->began_ns, promised_ns_);
  if (waited_ns > promise_ns_ && request->engine == cluster_.engine()) {
    load_.on_late(Name(*request) + " was answered " + std::to_string(waited_ns / kNsPerMs) +
                  " ms after the faults had stopped, not within " +
                  std::to_string(promise_ns_ / kNsPerMs));
  }
  request->over = true;
  --under_way_;
  clients_[request->client].request = nullptr;
  if (running_ || (settling_ && request->client == 0))
    NextLater(request->client, pause_ns_ / 4, 2 * pause_ns_);
}

// What nobody answers any more.
void Snapshots::OnEngineGone(EngineProcess* engine) {
  for (const Client& client : clients_) {
    Request* const request = client.request;
    if (request == nullptr || request->engine != engine) continue;
    if (request->action == Action::kTake) snapshots_[request->name].state = State::kUnknown;
    if (request->action == Action::kDelete) snapshots_[request->name].state = State::kMaybe;
    if (request->action == Action::kRevert) reverts_unknown_.push_back(request->revert);
    Ended(request);
  }
}

// What an engine before it had on its way is done by now, or will never be.
void Snapshots::OnEngineReady(EngineProcess* engine) {
  const uint64_t at = world_.Tick();
  for (auto& [name, snapshot] : snapshots_) {
    if (snapshot.epoch < engine->epoch()) snapshot.until = std::min(snapshot.until, at);
  }
  std::erase_if(reverts_unknown_, [&](const Revert& revert) {
    if (revert.epoch >= engine->epoch()) return false;
    load_.model.WriteFails(0, cluster_.options.size_bytes, revert.began, at);
    return true;
  });
}

uint64_t Snapshots::OldestReader() const {
  uint64_t oldest = RegisterModel::kNever;
  for (const auto& [name, snapshot] : snapshots_) {
    const bool waits =
        snapshot.state == State::kTaking || world_.now_ns() < snapshot.began_ns + kForgottenNs;
    if (!snapshot.judged && snapshot.MayBe() && waits) oldest = std::min(oldest, snapshot.began);
  }
  return oldest;
}

// --- what they are told
// ---------------------------------------------------------------------------

void Snapshots::Judge(Request* request, uint64_t at) {
  const bool ok = request->status.ok();
  if (ok && request->action != Action::kList &&
      !load_.Acknowledges(*request->engine, Name(*request), request->began, at)) {
    return;
  }
  switch (request->action) {
    case Action::kTake: {
      Snapshot& snapshot = snapshots_[request->name];
      snapshot.state = ok ? State::kLive : State::kUnknown;
      if (!ok) break;
      ++taken_;
      snapshot.until = std::min(snapshot.until, at);
      // Whatever it has is on stable storage, under the head.
      load_.model.Flushed(request->began);
      const wire::Members members = request->engine->engine().Report().record.members;
      for (size_t i = 0; i < cluster_.replica_count() && !world_.failed(); ++i) {
        if (!members.Contains(cluster_.replica_id(i)) || !IsOpen(i)) continue;
        const Result<LayersNow> layers = cluster_.LayersOf(i);
        if (!layers.ok()) continue;
        if (!HasLive(layers.value(), request->name)) {
          Finding("snapshot " + request->name + " is answered for, and " +
                  cluster_.replica_machine(i).name() + " does not have it");
          return;
        }
        EachLayer(layers.value(), [&](const LayersNow& of, size_t at_layer) {
          if (of.chain()[at_layer].snapshot() != request->name) return true;
          See(i, of, at_layer, &snapshot);
          return false;
        });
      }
      matched_ |= settling_;
      break;
    }
    case Action::kDelete:
      snapshots_[request->name].state = ok ? State::kDeleted : State::kMaybe;
      if (ok) snapshots_[request->name].view.reset();
      snapshots_[request->name].ended = at;
      if (ok && cluster_.on_snapshot) cluster_.on_snapshot();
      break;
    case Action::kList:
      if (ok) JudgeList(*request);
      break;
    case Action::kRevert:
      JudgeRevert(request, at);
      break;
  }
  if (!ok) JudgeError(*request);
  if (settling_ && (ok || request->status.code() != ErrorCode::kBusy)) {
    settling_ = false;
    settled_ = true;
  }
}

// One that is refused has not begun.
void Snapshots::JudgeRevert(Request* request, uint64_t at) {
  const ErrorCode code = request->status.code();
  const bool refused =
      code == ErrorCode::kBusy || code == ErrorCode::kNotFound || code == ErrorCode::kNoSpace;
  const uint64_t all = cluster_.options.size_bytes;
  std::string fault;
  if (request->status.ok()) fault = load_.model.WriteEnds(0, all, request->began, at, true);
  if (refused) fault = load_.model.WriteNever(0, all, request->began);
  if (!fault.empty()) Finding(Name(*request) + ": " + fault);
  if (request->status.ok()) {
    ++reverted_;
  } else if (!refused) {
    reverts_unknown_.push_back(request->revert);
  }
}

void Snapshots::JudgeError(const Request& request) {
  const ErrorCode code = request.status.code();
  if (code == ErrorCode::kBusy) return;
  // It was deleted meanwhile.
  if (code == ErrorCode::kNotFound && request.action == Action::kRevert &&
      !snapshots_[request.base].MustBe()) {
    return;
  }
  if (code == ErrorCode::kFenced || code == ErrorCode::kUnavailable) {
    // Its engine ends, or nobody can be asked.
    return;
  }
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    const Machine& machine = cluster_.replica_machine(i);
    const bool full = machine.disk.capacity_pages < Disk::kCapacityPages ||
                      machine.full_tick > request.engine->ready_tick;
    if (machine.damaged || machine.lost_tick != 0 || full) return;
  }
  if (load_.FlushMayFail(*request.engine)) return;
  Finding(Name(request) + " failed, though every disk is sound: " + request.status.message());
}

// One that is left behind may tell what was.
void Snapshots::JudgeList(const Request& request) {
  if (request.engine != cluster_.engine()) return;
  std::map<std::string, const wire::LayerEntry*> listed;
  for (const wire::LayerEntry& layer : request.layers) {
    if (!layer.name.empty() && !layer.removed) listed[layer.name] = &layer;
  }
  const auto uncertain = [&](const std::string& name) {
    return std::find(request.uncertain.begin(), request.uncertain.end(), name) !=
           request.uncertain.end();
  };
  for (const auto& [name, snapshot] : snapshots_) {
    const auto found = listed.find(name);
    const bool began = snapshot.began > request.began;
    if (snapshot.MustBe() && !began && !uncertain(name) &&
        (found == listed.end() || !found->second->sealed)) {
      Finding("snapshot " + name + " was taken and is not listed");
    }
    if (!snapshot.MayBe() && !uncertain(name) && !began && found != listed.end()) {
      // Its deletion may have begun since.
      if (snapshot.ended < request.began) {
        Finding("snapshot " + name + " " + snapshot.StateName() + " and is listed");
      }
    }
  }
  for (const auto& [name, entry] : listed) {
    if (!snapshots_.contains(name)) Finding("snapshot " + name + " is listed, and nobody's");
  }
}

// --- what lies on the disks
// -----------------------------------------------------------------------

bool Snapshots::IsOpen(size_t replica) const {
  const DiskHostProcess* const host = cluster_.disk_host(replica);
  const Machine& machine = cluster_.replica_machine(replica);
  return machine.up() && host != nullptr && host->alive() && host->ready() && !machine.damaged;
}

void Snapshots::LookLater() {
  world_.After(kSnapshotLookNs, [this] {
    for (size_t i = 0; i < cluster_.replica_count() && !world_.failed(); ++i) {
      if (IsOpen(i)) LookAt(i);
    }
    LookLater();
  });
}

void Snapshots::LookAt(size_t replica) {
  const Result<LayersNow> read = cluster_.LayersOf(replica);
  if (!read.ok()) return;
  const LayersNow& layers = read.value();
  const std::string& machine = cluster_.replica_machine(replica).name();
  const bool member = cluster_.complete().members.Contains(cluster_.replica_id(replica)) &&
                      cluster_.targets().Contains(cluster_.replica_id(replica));
  EachLayer(layers, [&](const LayersNow& of, size_t at) {
    const LayersNow::Layer& layer = of.chain()[at];
    const auto found = snapshots_.find(layer.snapshot());
    // What an engine puts on a layer of a joiner for it to go (native/engine/joiner_layers.cc).
    const bool resync = layer.snapshot().starts_with("resync-");
    if (resync && (!member || !layer.live())) return true;
    // One that a clone keeps, whose name was needed (native/replica/clone.cc).
    if (layer.snapshot().starts_with("shared-") && layer.meta.removed) return true;
    if (found == snapshots_.end()) {
      Finding(machine + " has snapshot " + layer.snapshot() + ", which is nobody's");
      return false;
    }
    Snapshot& snapshot = found->second;
    if (!layer.live()) return true;
    if (!snapshot.MayBe()) {
      if (member)
        Finding(machine + " has snapshot " + found->first + ", which " + snapshot.StateName());
      return true;
    }
    if (!snapshot.view || random_.Chance(1, 2 * layers.chain().size())) {
      See(replica, of, at, &snapshot);
    }
    return !world_.failed();
  });
  if (!member) return;
  for (const auto& [name, snapshot] : snapshots_) {
    if (!snapshot.MustBe() || HasLive(layers, name)) continue;
    Finding(machine + ", a member, does not have snapshot " + name + ", which " +
            snapshot.StateName());
    return;
  }
}

void Snapshots::EachLayer(const LayersNow& layers,
                          const std::function<bool(const LayersNow& of, size_t at)>& each) {
  for (size_t i = 1; i < layers.chain().size(); ++i) {
    if (!each(layers, i)) return;
  }
  for (const LayersNow::Layer& layer : layers.branches()) {
    const Result<LayersNow> branch = layers.Branch(layer);
    if (branch.ok() && !each(branch.value(), 0)) return;
  }
}

bool Snapshots::HasLive(const LayersNow& layers, const std::string& name) {
  bool has = false;
  EachLayer(layers, [&](const LayersNow& of, size_t at) {
    has = of.chain()[at].snapshot() == name && of.chain()[at].live();
    return !has;
  });
  return has;
}

void Snapshots::See(size_t replica, const LayersNow& layers, size_t at, Snapshot* snapshot) {
  if (!layers.named()) return;
  const std::string who = "snapshot " + layers.chain()[at].snapshot() + " at " +
                          cluster_.replica_machine(replica).name();
  Result<ViewValues> values = ReadView(cluster_, cluster_.replica_machine(replica).disk,
                                       cluster_.DirectoryOf(replica), layers, at);
  if (!values.ok()) {
    // A torn page of checksums is written again when the replica is opened.
    if (values.status().code() != ErrorCode::kUnsupported) {
      Finding(who + " cannot be read: " + values.status().message());
    }
    return;
  }
  if (!snapshot->view) {
    snapshot->view = std::make_unique<ViewValues>(values.value());
    const bool judge = !snapshot->judged && OldestReader() <= snapshot->began;
    snapshot->judged = true;
    if (world_.tracing()) {
      world_.Trace("checker", who + " is seen" + (judge ? "" : ", too late to be judged"));
    }
    if (!judge) return;
    const std::string fault = load_.model.Instant(*snapshot->view, snapshot->began,
                                                  std::min(snapshot->until, world_.Tick()));
    if (!fault.empty()) Finding(who + " is no instant: " + fault);
    return;
  }
  const std::string difference = Difference(*snapshot->view, values.value());
  if (!difference.empty()) {
    Finding(who + " is not what it was, there or elsewhere: " + difference);
  }
  Complete(snapshot->view.get(), values.value());
}

void Snapshots::ClosedClean(const wire::Members& members) {
  if (!on()) return;
  std::map<std::string, wire::Members> have;
  for (size_t i = 0; i < cluster_.replica_count() && !world_.failed(); ++i) {
    const wire::ReplicaId id = cluster_.replica_id(i);
    if (!members.Contains(id)) continue;
    const std::string& machine = cluster_.replica_machine(i).name();
    const Result<LayersNow> layers = cluster_.LayersOf(i);
    if (!layers.ok()) {
      Finding(machine +
              " was closed clean, and its layers cannot be read: " + layers.status().message());
      return;
    }
    EachLayer(layers.value(), [&](const LayersNow& of, size_t at) {
      const LayersNow::Layer& layer = of.chain()[at];
      if (!layer.sealed && !layer.meta.removed && matched_) {
        Finding(machine + " has snapshot " + layer.snapshot() + " in part");
      }
      const auto found = snapshots_.find(layer.snapshot());
      if (!layer.live() || found == snapshots_.end()) return true;
      have[found->first].Add(id);
      See(i, of, at, &found->second);
      return true;
    });
  }
  for (auto& [name, snapshot] : snapshots_) {
    const size_t count = have[name].count;
    const bool all = count == members.count;
    if (snapshot.MustBe() ? !all : count > 0 && !snapshot.MayBe()) {
      Finding("snapshot " + name + " " + snapshot.StateName() + ", and " + std::to_string(count) +
              " of " + std::to_string(members.count) + " members have it");
    }
    if (!matched_) continue;
    if (count > 0 && !all) {
      Finding("snapshot " + name + " " + snapshot.StateName() + ", and only " +
              std::to_string(count) + " of " + std::to_string(members.count) + " members have it");
    }
    if (snapshot.state == State::kUnknown || snapshot.state == State::kMaybe) {
      snapshot.state = all ? State::kLive : State::kGone;
      snapshot.ended = world_.Tick();
    }
    if (!snapshot.MayBe()) snapshot.view.reset();
  }
}

}  // namespace ankole::sim
