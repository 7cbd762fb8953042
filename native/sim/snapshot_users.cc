#include "sim/snapshot_users.h"

#include <algorithm>
#include <cstring>

#include "sim/register_model.h"
#include "sim/rot.h"

namespace ankole::sim {
namespace {

constexpr uint64_t kReadsMax = 8;
constexpr uint64_t kReadBytesMax = 64 * kKiB;

std::string NameOf(const engine::ChangesRequest& changes) {
  return "what changed from " + (changes.from.empty() ? "nothing" : changes.from) + " to " +
         changes.to;
}

}  // namespace

SnapshotUsers::SnapshotUsers(Cluster& cluster, Snapshots& snapshots, uint64_t seed)
    : cluster_(cluster), snapshots_(snapshots), world_(cluster.world), random_(seed) {
  on_ = snapshots.on() && random_.Chance(1, 2);
  pause_ns_ = (50 * kNsPerMs) << random_.Below(5);
  if (!on_) return;
  cluster.on_engine_gone = [this, before = cluster.on_engine_gone](EngineProcess* engine) {
    before(engine);
    if (user_ != nullptr && user_->engine == engine) Ended(user_);
  };
}

std::string SnapshotUsers::Describe() const {
  if (!on_) return "";
  return ", one read or compared in " + std::to_string(pause_ns_ / kNsPerMs) + " ms";
}

void SnapshotUsers::Start() {
  if (!on_) return;
  running_ = true;
  NextLater();
}

void SnapshotUsers::NextLater() {
  const uint64_t turn = ++turn_;
  world_.After(random_.Below(2 * pause_ns_), [this, turn] {
    if (turn_ == turn) Next();
  });
}

void SnapshotUsers::Next() {
  if (!running_ || user_ != nullptr) return;
  EngineProcess* engine = cluster_.engine();
  if (engine == nullptr || !engine->ready() || engine->refused() || snapshots_.Live().empty()) {
    NextLater();
  } else if (random_.Chance(2, 3)) {
    Compare(engine);
  } else {
    Read(engine);
  }
}

void SnapshotUsers::Ended(User* user) {
  user->over = true;
  user_ = nullptr;
  NextLater();
}

// Where all disks are sound it must be able to tell, unless one of them is deleted, or the engine
// ends.
void SnapshotUsers::JudgeError(const std::string& what, const EngineProcess& engine,
                               const Status& status) {
  switch (status.code()) {
    case ErrorCode::kBusy:
    case ErrorCode::kFenced:
    case ErrorCode::kUnavailable:
    case ErrorCode::kNotFound:
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kCancelled:
    case ErrorCode::kConnectionLost:
      return;
    default:
      break;
  }
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    const Machine& machine = cluster_.replica_machine(i);
    const bool full =
        machine.disk.capacity_pages < Disk::kCapacityPages || machine.full_tick > engine.ready_tick;
    if (machine.damaged || machine.lost_tick != 0 || full) return;
  }
  Finding(what + " failed, though every disk is sound: " + status.message());
}

// --- what changed
// -------------------------------------------------------------------------------------

void SnapshotUsers::Compare(EngineProcess* engine) {
  const std::vector<std::string> live = snapshots_.Live();
  comparisons_.push_back(std::make_unique<Comparison>());
  Comparison* const comparison = comparisons_.back().get();
  comparison->user = {this, engine, false};
  user_ = &comparison->user;
  comparison->to = live[random_.Below(live.size())];
  if (random_.Chance(4, 5)) comparison->from = live[random_.Below(live.size())];
  const uint64_t blocks = cluster_.options.size_bytes / kBlockBytes;
  if (random_.Chance(1, 4)) comparison->offset_bytes = random_.Below(blocks) * kBlockBytes;
  comparison->extents_max = random_.Chance(1, 2) ? kChangedExtentsMax : random_.Between(1, 20);
  comparison->done = [](engine::ChangesRequest* done) {
    auto* self = static_cast<Comparison*>(done);
    SnapshotUsers& users = *self->user.users;
    if (self->user.over) {
      users.Finding(NameOf(*self) + " was told twice, or by an engine that is gone");
      return;
    }
    users.JudgeChanges(*self);
    users.Ended(&self->user);
  };
  engine->reactor.Inside([comparison] {
    if (!comparison->user.over) comparison->user.engine->engine().ListChanges(comparison);
  });
}

void SnapshotUsers::JudgeChanges(const Comparison& comparison) {
  const Status& status = comparison.status;
  world_.Mix(static_cast<uint64_t>(status.code()) + comparison.extents.size());
  if (world_.tracing()) {
    world_.Trace("comparer",
                 NameOf(comparison) + ": " +
                     (status.ok() ? std::to_string(comparison.extents.size()) + " extents"
                                  : status.message()));
  }
  if (!status.ok()) return JudgeError(NameOf(comparison), *comparison.user.engine, status);
  if (comparison.next_bytes <= comparison.offset_bytes &&
      comparison.offset_bytes < comparison.size_bytes) {
    return Finding(NameOf(comparison) + " is not gone on with");
  }
  uint64_t at = comparison.offset_bytes;
  for (const engine::ChangedExtent& extent : comparison.extents) {
    const bool blocks = (extent.offset_bytes | extent.length_bytes) % kBlockBytes == 0;
    if (extent.offset_bytes < at || extent.length_bytes == 0 || !blocks) {
      return Finding(NameOf(comparison) + " is told out of order, or not in blocks");
    }
    JudgeSame(comparison, at, extent.offset_bytes);
    JudgeZeros(comparison, extent);
    at = extent.offset_bytes + extent.length_bytes;
  }
  if (at > comparison.next_bytes) {
    return Finding(NameOf(comparison) + " is told beyond where to go on");
  }
  JudgeSame(comparison, at, std::min(comparison.next_bytes, cluster_.options.size_bytes));
}

// What is not told must be the same in both.
void SnapshotUsers::JudgeSame(const Comparison& comparison, uint64_t begin_bytes,
                              uint64_t end_bytes) {
  const ViewValues* to = snapshots_.Seen(comparison.to);
  const ViewValues* from = snapshots_.Seen(comparison.from);
  if (to == nullptr || (from == nullptr && !comparison.from.empty())) return;
  for (uint64_t s = begin_bytes / kSectorBytes; s < end_bytes / kSectorBytes; ++s) {
    const uint32_t is = (*to)[s];
    const uint32_t was = from != nullptr ? (*from)[s] : 0;
    if (is == was || is == RegisterModel::kUnreadable || was == RegisterModel::kUnreadable) {
      continue;
    }
    return Finding(NameOf(comparison) + " lacks sector " + std::to_string(s) + " that was " +
                   std::to_string(was) + " and is " + std::to_string(is));
  }
}

void SnapshotUsers::JudgeZeros(const Comparison& comparison, const engine::ChangedExtent& extent) {
  const ViewValues* to = snapshots_.Seen(comparison.to);
  if (to == nullptr || !extent.zero) return;
  const uint64_t first = extent.offset_bytes / kSectorBytes;
  for (uint64_t s = first; s < first + extent.length_bytes / kSectorBytes; ++s) {
    if ((*to)[s] == 0 || (*to)[s] == RegisterModel::kUnreadable) continue;
    return Finding(NameOf(comparison) + ": sector " + std::to_string(s) +
                   " is told to be zeros, and is " + std::to_string((*to)[s]));
  }
}

// --- reading
// -------------------------------------------------------------------------------------

void SnapshotUsers::Read(EngineProcess* engine) {
  const std::vector<std::string> live = snapshots_.Live();
  readings_.push_back(std::make_unique<Reading>());
  Reading* const reading = readings_.back().get();
  reading->user = {this, engine, false};
  user_ = &reading->user;
  reading->layer = live[random_.Below(live.size())];
  reading->name = "volume@" + reading->layer;
  reading->reads_left = random_.Between(1, kReadsMax);
  reading->done = [](engine::ReadSnapshotRequest* done) {
    auto* self = static_cast<Reading*>(done);
    self->user.users->Opened(self);
  };
  engine->reactor.Inside([reading] {
    if (!reading->user.over) reading->user.engine->engine().ReadSnapshot(reading);
  });
}

void SnapshotUsers::Opened(Reading* reading) {
  const std::string what = "snapshot " + reading->layer;
  if (reading->user.over) {
    Finding(what + " was opened twice, or by an engine that is gone");
    return;
  }
  if (world_.tracing()) {
    world_.Trace("reader",
                 what + (reading->status.ok() ? " is open" : ": " + reading->status.message()));
  }
  if (!reading->status.ok()) {
    JudgeError(what, *reading->user.engine, reading->status);
    return Ended(&reading->user);
  }
  reading->device = reading->user.engine->engine().readable().Find(reading->name);
  if (reading->device == nullptr) {
    Finding(what + " is told to be open, and is not found");
    return Ended(&reading->user);
  }
  reading->device->ClientCame();
  ReadMore(reading);
}

// On the engine's turn.
void SnapshotUsers::ReadMore(Reading* reading) {
  const uint64_t sectors = reading->device->size_bytes() / kSectorBytes;
  if (reading->reads_left == 0 || sectors == 0) {
    reading->device->ClientLeft();
    return Ended(&reading->user);
  }
  --reading->reads_left;
  const uint64_t count = std::min(random_.Between(1, kReadBytesMax / kSectorBytes), sectors);
  Reading::Request& request = reading->request;
  request.reading = reading;
  request.operation = BlockOperation::kRead;
  request.offset_bytes = random_.Below(sectors - count + 1) * kSectorBytes;
  request.length_bytes = count * kSectorBytes;
  reading->chunk = reading->device->buffers().Acquire(request.length_bytes);
  CHECK(reading->chunk != nullptr);
  request.data = reading->chunk->data;
  std::memset(request.data, 0xee, request.length_bytes);
  request.status = ErrorCode::kOk;
  request.done = [](BlockRequest* done) {
    Reading* self = static_cast<Reading::Request*>(done)->reading;
    SnapshotUsers& users = *self->user.users;
    if (self->user.over) return;
    users.JudgeRead(*self);
    BufferPool::Release(self->chunk);
    users.ReadMore(self);
  };
  reading->device->Submit(&request);
}

void SnapshotUsers::JudgeRead(const Reading& reading) {
  const BlockRequest& request = reading.request;
  const uint64_t end = request.offset_bytes + request.length_bytes;
  const std::string what =
      "reading snapshot " + reading.layer + " at byte " + std::to_string(request.offset_bytes);
  world_.Mix(static_cast<uint64_t>(request.status) + request.offset_bytes);
  if (request.status != ErrorCode::kOk) {
    // A block that was flipped may be bad at all of them.
    for (uint64_t block = request.offset_bytes / kBlockBytes; block * kBlockBytes < end; ++block) {
      if (request.status == ErrorCode::kCorrupt && cluster_.rot->WasFlipped(block)) return;
    }
    JudgeError(what, *reading.user.engine, {request.status, ErrorCodeName(request.status)});
    return;
  }
  const ViewValues* values = snapshots_.Seen(reading.layer);
  if (values == nullptr) return;
  for (uint64_t at = request.offset_bytes; at < end; at += kSectorBytes) {
    const uint64_t sector = at / kSectorBytes;
    const uint32_t value =
        RegisterModel::ValueOf(request.data + (at - request.offset_bytes), sector);
    const uint32_t expected = (*values)[sector];
    if (value == expected || expected == RegisterModel::kUnreadable) continue;
    return Finding(what + " gives sector " + std::to_string(sector) + " as " +
                   std::to_string(value) + ", and it is " + std::to_string(expected));
  }
}

}  // namespace ankole::sim
