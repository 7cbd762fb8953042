#include <algorithm>
#include <cstring>
#include <utility>

#include "sim/clone_volume.h"
#include "sim/rot.h"

// The part of a clone's life in which it is a volume as any other.
namespace ankole::sim {
namespace {

constexpr uint64_t kSweepBytes = 256 * kKiB;
// What lies between two ranges is read with them.
constexpr uint64_t kGapBytes = 64 * kKiB;
constexpr size_t kSnapshotsMax = 3;

std::string RangeOf(const BlockRequest& request) {
  static constexpr const char* kNames[] = {"read", "write", "zero", "unmap", "flush"};
  return std::string(kNames[static_cast<size_t>(request.operation)]) +
         (request.force_unit_access ? "+fua" : "") + " " +
         std::to_string(request.offset_bytes / kSectorBytes) + "+" +
         std::to_string(request.length_bytes / kSectorBytes);
}

}  // namespace

// --- its engine
// -----------------------------------------------------------------------------------

void CloneVolume::StepMade() {
  if (engine_ == nullptr) {
    if (reaping_ && machine().boots() == boots_) return;
    reaping_ = false;
    if (closing_ && swept_) return Go(State::kRemoving);
    if (!paused_ && Host() != nullptr) {
      CheckWhole();
      if (!world_.failed()) Attach();
    }
    return;
  }
  if (engine_->stopped()) return EndEngine();
  if (stopping_ || !engine_->ready() || request_ != nullptr) return;
  if (Use()) return;
  stopping_ = true;
  Trace("is left");
  engine_->reactor.Inside([engine = engine_] { engine->engine().Stop(); });
}

void CloneVolume::Attach() {
  attached_ = true;
  stopping_ = false;
  boots_ = machine().boots();
  const Store::Attachment given = store_.Attach(machine().name(), machine().boot_id());
  engine::EngineOptions options;
  options.volume = name_;
  options.size_bytes = size_bytes_;
  options.secret = secret_;
  options.epoch = {given.number, 1};
  options.record = given.record;
  options.clients_anew = given.clients_anew;
  // The one before was seen to end.
  options.alone = true;
  options.shared_memory = false;
  options.idle_ns = cluster_.options.idle_ns;
  options.start_wait_ns = cluster_.options.start_wait_ns;
  io::Address address;
  address.host = machine().name();
  address.port = kDiskHostPort;
  options.replicas.push_back({id_, address});
  auto process = std::make_shared<EngineProcess>(machine(), std::move(options));
  Keep(process);
  engine_ = process.get();
  EngineProcess* const started = engine_;
  process->on_ask_store = [this, started](uint64_t question, const wire::Record& record) {
    AnswerStore(started, question, store_.Put(record));
  };
  process->on_probe_store = [this, started](uint64_t question) {
    AnswerStore(started, question, store_.Probe(started->epoch().attachment));
  };
  process->on_complete = [this](const wire::Record& record) { (void)store_.Put(record).ok(); };
  process->on_ready = [this, started] {
    if (started == engine_) OnReady();
  };
  Trace("is attached");
  process->Start();
}

void CloneVolume::AnswerStore(EngineProcess* engine, uint64_t question, const Status& outcome) {
  world_.After(random_.Skewed(200 * kNsPerUs, 20 * kNsPerMs), [engine, question, outcome] {
    engine->reactor.Inside(
        [engine, question, outcome] { engine->engine().AnswerStore(question, outcome); });
  });
}

// What engines before had on their way is done by now, or will never be.
void CloneVolume::OnReady() {
  const uint64_t at = world_.Tick();
  for (const Unanswered& change : std::exchange(unknown_, {})) {
    model_->WriteFails(change.offset_bytes, change.length_bytes, change.began, at);
  }
  sweep_.clear();
  if (closing_ || random_.Chance(1, 2)) FillSweep();
}

void CloneVolume::EndEngine() {
  EngineProcess* const engine = engine_;
  reaping_ = true;
  boots_ = machine().boots();
  EngineGone();
  engine->reactor.Kill([this] { reaping_ = false; });
  wait_until_ns_ = world_.now_ns() + (random_.Chance(1, 2) ? 0 : random_.Below(kNsPerSecond));
}

// Its memory went with it.
void CloneVolume::EngineGone() {
  Trace("has no engine any more");
  if (request_ != nullptr && request_->changes()) {
    unknown_.push_back({request_->offset_bytes, request_->length_bytes, request_->began});
  }
  engine_ = nullptr;
  request_ = nullptr;
  snapshot_request_ = nullptr;
  sweep_.clear();
}

void CloneVolume::OnLost() {
  if (gone() || DiskReplaced()) return;
  model_->Lost(machine().lost_tick, world_.Tick());
  (void)world_.Tick();
}

// --- its clients
// ----------------------------------------------------------------------------------

// False: it is to be left.
bool CloneVolume::Use() {
  if (paused_ && !closing_) return false;
  if (closing_ && sweep_.empty()) {
    if (swept_) return false;
    swept_ = true;
    FillSweep();
    if (sweep_.empty()) return false;
  }
  if (!closing_ && random_.Chance(1, 80)) {
    if (random_.Chance(1, 2)) return false;
    Trace("its engine is killed");
    EndEngine();
    return true;
  }
  if (!closing_ && snapshot_request_ == nullptr && random_.Chance(1, 25)) TakeOrDelete();
  auto made = std::make_unique<Request>();
  Fill(made.get());
  Submit(std::move(made));
  return true;
}

// What clients of a clone want is what the snapshot has, and what is around it.
void CloneVolume::Fill(Request* request) {
  if (!sweep_.empty()) {
    request->offset_bytes = sweep_.back().first;
    request->length_bytes = sweep_.back().second;
    sweep_.pop_back();
    return;
  }
  if (random_.Chance(1, 10)) {
    request->operation = BlockOperation::kFlush;
    return;
  }
  uint64_t sector = random_.Below(size_bytes_ / kSectorBytes);
  if (!held_.empty() && random_.Chance(7, 8)) {
    sector = std::min(held_[random_.Below(held_.size())], size_bytes_ / kSectorBytes - 1);
  }
  const uint64_t length = kSectorBytes << random_.Below(9);
  request->offset_bytes = sector * kSectorBytes;
  if (random_.Chance(1, 2)) request->offset_bytes = RoundDown(request->offset_bytes, kBlockBytes);
  request->length_bytes = std::min(length, size_bytes_ - request->offset_bytes);
  if (random_.Chance(1, 2)) FillChange(request);
}

void CloneVolume::FillChange(Request* request) {
  const uint64_t which = random_.Below(8);
  request->operation = which < 5    ? BlockOperation::kWrite
                       : which == 5 ? BlockOperation::kZero
                                    : BlockOperation::kUnmap;
  request->force_unit_access = random_.Chance(1, 10);
  if (request->operation == BlockOperation::kWrite) request->value = ++values_;
}

void CloneVolume::FillSweep() {
  std::set<uint64_t> sectors(held_.begin(), held_.end());
  const std::vector<uint64_t> touched = model_->Touched();
  sectors.insert(touched.begin(), touched.end());
  for (const uint64_t sector : sectors) {
    const uint64_t at = sector * kSectorBytes;
    if (at >= size_bytes_) break;
    const bool near = !sweep_.empty() &&
                      at <= sweep_.back().first + sweep_.back().second + kGapBytes &&
                      at < sweep_.back().first + kSweepBytes;
    if (near) {
      sweep_.back().second = at + kSectorBytes - sweep_.back().first;
    } else {
      sweep_.emplace_back(at, kSectorBytes);
    }
  }
}

void CloneVolume::Submit(std::unique_ptr<Request> made) {
  Request* const request = made.get();
  requests_.push_back(std::move(made));
  request_ = request;
  request->clone = this;
  request->done = [](BlockRequest* done) {
    auto* self = static_cast<Request*>(done);
    self->clone->Done(self);
  };
  request->began = world_.Tick();
  if (request->changes()) {
    model_->WriteBegins(request->offset_bytes, request->length_bytes, request->value,
                        request->began);
    const uint64_t end = DivideUp(request->offset_bytes + request->length_bytes, kRegionBytes);
    for (uint64_t region = request->offset_bytes / kRegionBytes; region < end; ++region) {
      dirtied_.insert(region);
    }
  }
  Trace(RangeOf(*request) + " value " + std::to_string(request->value) + " tick " +
        std::to_string(request->began));
  engine_->reactor.Inside([this, request, engine = engine_] {
    if (request != request_) return;
    engine::Engine& asked = engine->engine();
    if (request->operation == BlockOperation::kRead ||
        request->operation == BlockOperation::kWrite) {
      request->chunk = asked.buffers().Acquire(request->length_bytes);
      CHECK(request->chunk != nullptr);
      request->data = request->chunk->data;
      std::memset(request->data, 0xee, request->length_bytes);
    }
    if (request->operation == BlockOperation::kWrite) {
      RegisterModel::Fill(request->data, request->offset_bytes, request->length_bytes,
                          request->value);
    }
    asked.Submit(request);
  });
}

void CloneVolume::TakeOrDelete() {
  snapshot_requests_.push_back(std::make_unique<SnapshotRequest>());
  SnapshotRequest* const request = snapshot_requests_.back().get();
  snapshot_request_ = request;
  request->clone = this;
  request->takes = own_.empty() || (own_.size() < kSnapshotsMax && random_.Chance(1, 2));
  request->name = request->takes ? "own" + std::to_string(++names_) : own_.front();
  request->done = [](engine::SnapshotRequest* done) {
    auto* self = static_cast<SnapshotRequest*>(done);
    CloneVolume* const clone = self->clone;
    clone->Trace((self->takes ? "has snapshot " : "has deleted snapshot ") + self->name + ": " +
                 ErrorCodeName(self->status.code()));
    if (clone->snapshot_request_ == self) clone->snapshot_request_ = nullptr;
    if (self->takes && self->status.ok()) clone->own_.push_back(self->name);
    if (!self->takes) std::erase(clone->own_, self->name);
  };
  engine_->reactor.Inside([this, request, engine = engine_] {
    if (request != snapshot_request_) return;
    request->takes ? engine->engine().TakeSnapshot(request)
                   : engine->engine().DeleteSnapshot(request);
  });
}

// --- what they are told
// ---------------------------------------------------------------------------

void CloneVolume::Done(Request* request) {
  if (request != request_) return Finding(RangeOf(*request) + " was answered twice, or too late");
  request_ = nullptr;
  const uint64_t at = world_.Tick();
  world_.Mix(static_cast<uint64_t>(request->status) + at);
  Trace(RangeOf(*request) + " tick " + std::to_string(request->began) + " answered at " +
        std::to_string(at) + ": " + ErrorCodeName(request->status));
  const std::string fault =
      request->status == ErrorCode::kOk ? Judge(*request, at) : JudgeError(*request, at);
  if (!fault.empty()) Finding(RangeOf(*request) + ": " + fault);
  if (request->chunk != nullptr) {
    std::memset(request->data, 0x5a, request->length_bytes);
    BufferPool::Release(std::exchange(request->chunk, nullptr));
  }
}

std::string CloneVolume::Judge(const Request& request, uint64_t at) {
  if (request.operation == BlockOperation::kRead) return JudgeRead(request, at);
  if (request.operation == BlockOperation::kFlush) {
    model_->Flushed(request.began);
    return "";
  }
  return model_->WriteEnds(request.offset_bytes, request.length_bytes, request.began, at,
                           request.force_unit_access);
}

// Of a block that rotted once, where it was not known of the snapshot either; and in a dirty region
// a crash makes it data, as in the volume (rot.h).
bool CloneVolume::Unknown(uint64_t offset_bytes, uint64_t length_bytes) const {
  if (!cluster_.rot->WasFlipped(offset_bytes / kBlockBytes)) return false;
  if (crashed_ && dirtied_.contains(offset_bytes / kRegionBytes)) return true;
  const auto known = source_.values.begin() + static_cast<ptrdiff_t>(offset_bytes / kSectorBytes);
  return std::count(known, known + static_cast<ptrdiff_t>(length_bytes / kSectorBytes),
                    RegisterModel::kUnreadable) > 0;
}

std::string CloneVolume::JudgeRead(const Request& request, uint64_t at) {
  const uint64_t end_bytes = request.offset_bytes + request.length_bytes;
  for (uint64_t begin = request.offset_bytes; begin < end_bytes;) {
    const uint64_t until = std::min(RoundDown(begin, kBlockBytes) + kBlockBytes, end_bytes);
    std::string fault;
    if (!Unknown(begin, until - begin)) {
      fault = model_->Read(begin, request.data + (begin - request.offset_bytes), until - begin,
                           request.began, at);
    }
    if (!fault.empty()) return fault;
    begin = until;
  }
  return "";
}

bool CloneVolume::Rotted(const Request& request) const {
  const auto& flipped = cluster_.rot->flipped();
  const auto block = flipped.lower_bound(request.offset_bytes / kBlockBytes);
  return block != flipped.end() &&
         *block < DivideUp(request.offset_bytes + request.length_bytes, kBlockBytes);
}

std::string CloneVolume::JudgeError(const Request& request, uint64_t at) {
  const bool ends =
      request.status == ErrorCode::kFenced || request.status == ErrorCode::kUnavailable;
  if (request.changes()) {
    if (ends) {
      unknown_.push_back({request.offset_bytes, request.length_bytes, request.began});
    } else {
      model_->WriteFails(request.offset_bytes, request.length_bytes, request.began, at);
    }
  }
  if (ends || !Trusted()) return "";
  if (request.operation != BlockOperation::kFlush && Rotted(request)) return "";
  return std::string("it failed: ") + ErrorCodeName(request.status);
}

}  // namespace ankole::sim
