#include "sim/load.h"

#include <algorithm>
#include <utility>

#include "sim/features.h"
#include "sim/rot.h"

namespace ankole::sim {
namespace {

const char* Name(BlockOperation operation) {
  switch (operation) {
    case BlockOperation::kRead:
      return "read";
    case BlockOperation::kWrite:
      return "write";
    case BlockOperation::kZero:
      return "zero";
    case BlockOperation::kUnmap:
      return "unmap";
    case BlockOperation::kFlush:
      return "flush";
    default:
      return "status";
  }
}

// In a round, at full speed.
constexpr uint64_t kEagerRequests = 1000;

std::string Range(const BlockRequest& request) {
  return std::string(Name(request.operation)) + (request.force_unit_access ? "+fua" : "") + " " +
         std::to_string(request.offset_bytes / kSectorBytes) + "+" +
         std::to_string(request.length_bytes / kSectorBytes);
}

}  // namespace

Load::Load(Cluster& cluster)
    : model(cluster.options.size_bytes),
      cluster_(cluster),
      world_(cluster.world),
      random_(cluster.world.random.Next()) {
  clients_.resize(random_.Between(1, 12));
  hot_bytes_ = std::min(cluster.options.size_bytes, (32 * kKiB) << random_.Below(8));
  hot_begin_ = RoundDown(random_.Below(cluster.options.size_bytes - hot_bytes_ + 1), kSectorBytes);
  length_shift_max_ = random_.Between(1, 11);
  think_ns_max_ = random_.Chance(1, 2) ? 100 * kNsPerMs : 5 * kNsPerMs;
  writes_in_100_ = random_.Between(30, 70);
  flushes_in_1000_ = random_.Chance(1, 3) ? random_.Between(2, 10) : random_.Between(10, 100);
  fua_in_100_ = 10;
  // Some never ask for anything durable: what is lost at one member then has no copy on its disk.
  if (random_.Chance(1, 4)) flushes_in_1000_ = fua_in_100_ = 0;
  whole_blocks_ = random_.Chance(1, 3);
  cluster_.on_engine_gone = [this](EngineProcess* engine) { OnEngineGone(engine); };
  cluster_.on_engine_ready = [this](EngineProcess* engine) { OnEngineReady(engine); };
  cluster_.on_members_changed = [this] { OnMembersChanged(); };
  for (const auto& machine : cluster_.machines()) {
    machine->on_lost = [this] { CheckLoss(); };
  }
}

void Load::Start() {
  running_ = true;
  eager_left_ = random_.Between(kEagerRequests / 10, kEagerRequests);
  for (size_t i = 0; i < clients_.size(); ++i) NextLater(i, 0, 10 * kNsPerMs);
}

void Load::ReadAll() {
  reading_all_ = true;
  sweep_flush_ = true;
  for (const uint64_t sector : model.Touched()) {
    const uint64_t at = sector * kSectorBytes;
    if (!sweep_.empty() && sweep_.back().first + sweep_.back().second == at &&
        sweep_.back().second < 256 * kKiB) {
      sweep_.back().second += kSectorBytes;
    } else {
      sweep_.emplace_back(at, kSectorBytes);
    }
  }
  std::reverse(sweep_.begin(), sweep_.end());
  for (size_t i = 0; i < clients_.size(); ++i) {
    if (clients_[i].request == nullptr) NextLater(i, 0, kNsPerMs);
  }
}

std::string Load::Waiting() const {
  std::string text;
  for (size_t i = 0; i < clients_.size(); ++i) {
    const Request* request = clients_[i].request;
    if (request == nullptr) continue;
    text += "; client " + std::to_string(i) + " for " + Range(*request) + " since " +
            std::to_string((world_.now_ns() - request->began_ns) / kNsPerMs) + " ms";
  }
  EngineProcess* engine = cluster_.engine();
  if (engine == nullptr) return "no engine runs" + text;
  const engine::EngineReport report = engine->engine().Report();
  return std::string("engine is ") + report.state + ": " + report.message + text;
}

void Load::NextLater(size_t client, uint64_t least_ns, uint64_t most_ns) {
  const uint64_t turn = ++clients_[client].turn;
  world_.After(random_.Skewed(least_ns, most_ns), [this, client, turn] {
    if (clients_[client].turn == turn) Next(client);
  });
}

void Load::Next(size_t client) {
  Client& self = clients_[client];
  if (self.request != nullptr) return;
  if (!running_ && (!reading_all_ || (sweep_.empty() && !sweep_flush_))) return;
  EngineProcess* const newest = cluster_.engine();
  const bool usable = self.engine != nullptr && self.engine->ready() && !self.engine->refused();
  // An initiator that was left behind goes on with the engine that it knows, for as long as that
  // answers.
  if (!usable || (self.engine != newest && (!running_ || random_.Chance(1, 10)))) {
    self.engine = newest;
  }
  if (self.engine == nullptr || !self.engine->ready()) {
    self.engine = nullptr;
    NextLater(client, 10 * kNsPerMs, 200 * kNsPerMs);
    return;
  }
  requests_.push_back(std::make_unique<Request>());
  Request* const request = requests_.back().get();
  request->load = this;
  request->client = client;
  request->engine = self.engine;
  request->done = [](BlockRequest* done) {
    auto* self_done = static_cast<Request*>(done);
    self_done->load->Done(self_done);
  };
  Fill(request);
  request->began = world_.Tick();
  request->began_ns = world_.now_ns();
  self.request = request;
  ++under_way_;
  if (request->changes()) {
    uint64_t oldest = RegisterModel::kNever;
    for (const Client& each : clients_) {
      if (each.request != nullptr) oldest = std::min(oldest, each.request->began);
    }
    if (oldest_reader) oldest = std::min(oldest, oldest_reader());
    model.ReadersSince(oldest);
    model.WriteBegins(request->offset_bytes, request->length_bytes, request->value, request->began);
    cluster_.rot->Changes(request->offset_bytes, request->length_bytes);
  }
  if (world_.tracing()) {
    world_.Trace("client " + std::to_string(client), Range(*request) + " value " +
                                                         std::to_string(request->value) + " tick " +
                                                         std::to_string(request->began) + " at " +
                                                         request->engine->reactor.process_name());
  }
  request->engine->reactor.Inside([this, request] { Submit(request); });
}

void Load::Fill(Request* request) {
  if (!running_) {
    if (sweep_.empty()) {
      sweep_flush_ = false;
      request->operation = BlockOperation::kFlush;
      return;
    }
    request->operation = BlockOperation::kRead;
    request->offset_bytes = sweep_.back().first;
    request->length_bytes = sweep_.back().second;
    sweep_.pop_back();
    return;
  }
  if (!reads_only_ && random_.Below(1000) < flushes_in_1000_) {
    request->operation = BlockOperation::kFlush;
    return;
  }
  const uint64_t unit = whole_blocks_ ? kBlockBytes : kSectorBytes;
  uint64_t length = kSectorBytes << random_.Below(length_shift_max_ + 1);
  length = std::min<uint64_t>(RoundUp(length + random_.Below(length), unit), hot_bytes_);
  length = std::min<uint64_t>(length, kDataBytesMax);
  const bool hot = random_.Chance(7, 8);
  // It may not be as large yet as where it is hot.
  const uint64_t size_bytes = request->engine->engine().size_bytes();
  length = std::min(length, size_bytes);
  const uint64_t begin = hot ? std::min(hot_begin_, size_bytes - length) : 0;
  const uint64_t bytes = std::min(hot ? hot_bytes_ : size_bytes, size_bytes - begin);
  request->offset_bytes = RoundDown(begin + random_.Below(bytes - length + 1), unit);
  request->length_bytes = length;
  if (!reads_only_ && random_.Below(100) < writes_in_100_) {
    const uint64_t which = random_.Below(10);
    request->operation = which < 8    ? BlockOperation::kWrite
                         : which == 8 ? BlockOperation::kZero
                                      : BlockOperation::kUnmap;
    request->force_unit_access = random_.Chance(fua_in_100_, 100);
    request->keep_allocated = request->operation == BlockOperation::kZero && random_.Chance(1, 3);
    if (request->operation == BlockOperation::kWrite) request->value = ++values_;
    return;
  }
  request->operation = random_.Chance(1, 20) ? BlockOperation::kStatus : BlockOperation::kRead;
  if (request->operation == BlockOperation::kStatus) {
    request->room.resize(32);
    request->extents = request->room.data();
    request->extents_max = 32;
  }
}

// On the engine's turn.
void Load::Submit(Request* request) {
  if (request->over) return;
  engine::Engine& engine = request->engine->engine();
  if (request->operation == BlockOperation::kRead || request->operation == BlockOperation::kWrite) {
    request->chunk = engine.buffers().Acquire(request->length_bytes);
    CHECK(request->chunk != nullptr);
    request->data = request->chunk->data;
    if (request->operation == BlockOperation::kWrite) {
      RegisterModel::Fill(request->data, request->offset_bytes, request->length_bytes,
                          request->value);
    } else {
      std::memset(request->data, 0xee, request->length_bytes);
    }
  }
  engine.Submit(request);
}

void Load::Done(Request* request) {
  if (request->over) {
    world_.Finding(Range(*request) + " was answered twice, or after its engine was gone");
    return;
  }
  const uint64_t at = world_.Tick();
  world_.Mix(static_cast<uint64_t>(request->status) + at);
  if (world_.tracing()) {
    world_.Trace("client " + std::to_string(request->client),
                 Range(*request) + " tick " + std::to_string(request->began) + " answered at " +
                     std::to_string(at) + ": " + ErrorCodeName(request->status));
  }
  ++answered_;
  Judge(request, at);
  Ended(request);
}

void Load::Ended(Request* request) {
  const uint64_t waited_ns = world_.now_ns() - std::max(request->began_ns, promised_ns_);
  if (waited_ns > promise_ns_) {
    on_late(Range(*request) + " of client " + std::to_string(request->client) + " was answered " +
            std::to_string(waited_ns / kNsPerMs) + " ms after the faults had stopped, not within " +
            std::to_string(promise_ns_ / kNsPerMs));
  }
  request->over = true;
  if (request->chunk != nullptr) {
    // What comes into this memory now is seen as nobody's.
    std::memset(request->data, 0x5a, request->length_bytes);
    BufferPool::Release(std::exchange(request->chunk, nullptr));
  }
  --under_way_;
  clients_[request->client].request = nullptr;
  if (eager_left_ > 0) --eager_left_;
  const bool eager = eager_left_ > 0 || !running_;
  NextLater(request->client, eager ? 0 : 10 * kNsPerMs, eager ? think_ns_max_ : kNsPerSecond);
}

bool Load::Superseded(const Request& request) const {
  return request.engine->epoch() < ready_epoch_;
}

// What was begun after a newer engine had answered somebody cannot be answered by an older one.
bool Load::Acknowledges(const EngineProcess& engine, const std::string& what, uint64_t began,
                        uint64_t at) {
  const wire::Epoch& epoch = engine.epoch();
  if (epoch > acknowledging_epoch_) {
    acknowledging_epoch_ = epoch;
    acknowledged_tick_ = at;
  }
  if (epoch == acknowledging_epoch_ || began <= acknowledged_tick_) return true;
  world_.Finding("two epochs acknowledge: " + what + " was answered by epoch " +
                 std::to_string(epoch.attachment) + "." + std::to_string(epoch.run) +
                 ", begun after epoch " + std::to_string(acknowledging_epoch_.attachment) + "." +
                 std::to_string(acknowledging_epoch_.run) + " had answered");
  return false;
}

void Load::Judge(Request* request, uint64_t at) {
  if (request->status != ErrorCode::kOk) {
    JudgeError(request, at);
    return;
  }
  const wire::Epoch epoch = request->engine->epoch();
  const bool reads = !request->changes() && request->operation != BlockOperation::kFlush;
  if (reads && Superseded(*request) && !kFeatures.read_lease) return;
  if (request->operation != BlockOperation::kStatus &&
      !Acknowledges(*request->engine, Range(*request), request->began, at)) {
    return;
  }
  std::string fault;
  if (request->changes()) {
    fault = model.WriteEnds(request->offset_bytes, request->length_bytes, request->began, at,
                            request->force_unit_access);
    cluster_.rot->Overwritten(request->offset_bytes, request->length_bytes);
  } else if (request->operation == BlockOperation::kFlush) {
    model.Flushed(request->began);
  } else if (request->operation == BlockOperation::kRead) {
    fault =
        model.Read(request->offset_bytes, request->data, request->length_bytes, request->began, at);
  }
  if (!fault.empty()) {
    const uint64_t end_bytes = request->offset_bytes + request->length_bytes;
    for (uint64_t block = request->offset_bytes / kBlockBytes; block * kBlockBytes < end_bytes;
         ++block) {
      cluster_.TraceBlock(block);
    }
    world_.Finding(Range(*request) + " of client " + std::to_string(request->client) +
                   " at epoch " + std::to_string(epoch.attachment) + "." +
                   std::to_string(epoch.run) + ": " + fault);
  }
}

void Load::JudgeError(Request* request, uint64_t at) {
  const bool ends =
      request->status == ErrorCode::kFenced || request->status == ErrorCode::kUnavailable;
  if (request->changes()) {
    if (ends && !Superseded(*request)) {
      unknown_.push_back(
          {request->engine->epoch(), request->offset_bytes, request->length_bytes, request->began});
    } else {
      model.WriteFails(request->offset_bytes, request->length_bytes, request->began, at);
    }
  }
  if (ends) {
    if (request->engine->ready() && request->engine->engine().mode() == engine::Mode::kServing) {
      world_.Finding(Range(*request) +
                     " was refused by an engine that serves: " + ErrorCodeName(request->status));
    }
    clients_[request->client].engine = nullptr;
    return;
  }
  // An error of the medium is for the client only where every member's disk failed, or lost what it
  // had not synced.
  if (request->operation == BlockOperation::kFlush && FlushMayFail(*request->engine)) return;
  // Who had a good copy may just have left, by a record that is proposed.
  cluster_.rot->Look();
  // The read may end at a disk that fails, after one where the block rotted.
  const bool read =
      request->status == ErrorCode::kCorrupt || request->status == ErrorCode::kIoError;
  if (read && request->operation != BlockOperation::kFlush &&
      cluster_.rot->Excuses(request->offset_bytes, request->length_bytes)) {
    return;
  }
  // One that was held up answers by the members that it had, when another engine has others (seed
  // 9041628).
  const bool superseded = request->engine->epoch() < cluster_.targets_epoch();
  const wire::Members members =
      superseded ? request->engine->engine().Report().record.members : cluster_.targets();
  bool sound = false;
  for (const wire::ReplicaId id : members.all()) {
    const Machine& machine = *cluster_.MachineOf(id);
    // One that is full may have to leave, also when there is room again, and is not asked then
    // while its connection is broken, or before the members are known to be equal.
    const bool full = machine.disk.capacity_pages < Disk::kCapacityPages ||
                      machine.full_tick > request->engine->ready_tick;
    sound |= !machine.damaged && !full && machine.lost_tick == 0;
  }
  if (sound) {
    world_.Finding(Range(*request) +
                   " failed, though a member has a sound disk: " + ErrorCodeName(request->status));
  }
}

void Load::OnEngineGone(EngineProcess* engine) {
  for (Client& client : clients_) {
    Request* const request = client.request;
    if (client.engine == engine) client.engine = nullptr;
    if (request == nullptr || request->engine != engine) continue;
    if (request->changes() && !Superseded(*request)) {
      unknown_.push_back(
          {engine->epoch(), request->offset_bytes, request->length_bytes, request->began});
    }
    if (request->operation == BlockOperation::kRead && reading_all_) {
      sweep_.emplace_back(request->offset_bytes, request->length_bytes);
    }
    if (request->operation == BlockOperation::kFlush && reading_all_) sweep_flush_ = true;
    // Its memory went with the process.
    request->chunk = nullptr;
    Ended(request);
  }
}

void Load::OnEngineReady(EngineProcess* engine) {
  if (engine->epoch() < ready_epoch_) return;
  ready_epoch_ = engine->epoch();
  const uint64_t at = world_.Tick();
  for (const Unknown& change : unknown_) {
    model.WriteFails(change.offset_bytes, change.length_bytes, change.began, at);
  }
  unknown_.clear();
  for (const Client& client : clients_) {
    const Request* request = client.request;
    if (request == nullptr || !request->changes() || !(request->engine->epoch() < ready_epoch_)) {
      continue;
    }
    model.WriteFails(request->offset_bytes, request->length_bytes, request->began, at);
  }
  // A new attachment to another host, or one booted anew, may have had to start on members that
  // lost what was not flushed (rule 7).
  if (ready_epoch_.attachment != ready_attachment_) {
    ready_attachment_ = ready_epoch_.attachment;
    uint64_t before = 0;
    for (const wire::ReplicaId id : members_.all()) {
      before = std::max(before, cluster_.MachineOf(id)->lost_tick);
    }
    if (before > lost_before_) {
      lost_before_ = before;
      model.Lost(before, world_.Tick());
      (void)world_.Tick();
    }
  }
  if (!kFeatures.read_makes_equal) model.Loose(world_.Tick());
  // Some have waited for it, with requests at hand.
  for (size_t i = 0; i < clients_.size(); ++i) {
    if (clients_[i].request == nullptr && random_.Chance(1, 2)) NextLater(i, 0, 2 * kNsPerMs);
  }
}

void Load::OnMembersChanged() {
  const wire::Members before = std::exchange(members_, cluster_.complete().members);
  // Whoever joins was made equal, and has flushed that; but it may have lost power since it was
  // proposed, if it is a start that completes its record (seed 1207590).
  for (const wire::ReplicaId id : members_.all()) {
    Machine& machine = *cluster_.MachineOf(id);
    const bool since = machine.lost_tick != machine.lost_before_join && before.count > 0;
    if (!before.Contains(id) && !since) machine.lost_tick = 0;
  }
  cluster_.rot->Look();
  CheckLoss();
}

// What every member has lost since it was answered, and nobody flushed, may be gone.
void Load::CheckLoss() {
  cluster_.rot->Look();
  if (members_.count == 0) return;
  uint64_t before = UINT64_MAX;
  for (const wire::ReplicaId id : members_.all()) {
    const Machine& machine = *cluster_.MachineOf(id);
    // Once suspect a replica stays so until it is resynchronized: it leaves when its connection
    // breaks, however little it has lost since.
    const bool suspect = machine.lost_tick != 0 && !kFeatures.resync;
    before = std::min(before, suspect ? world_.Tick() : machine.lost_tick);
  }
  if (before > 0) suspects_epoch_ = std::max(suspects_epoch_, cluster_.complete().epoch);
  if (before <= lost_before_) return;
  lost_before_ = before;
  if (world_.tracing()) {
    world_.Trace("checker", "what was answered before tick " + std::to_string(before) +
                                " and not flushed may be lost");
  }
  model.Lost(before, world_.Tick());
  (void)world_.Tick();
}

}  // namespace ankole::sim
