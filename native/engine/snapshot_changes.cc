#include "engine/snapshot_changes.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "base/mutant.h"
#include "base/units.h"

namespace ankole::engine {
namespace {

// For so long it waits for a member that can be asked.
constexpr uint64_t kAskingNs = 5 * kNsPerSecond;
// What was found until then is answered: views that are open keep snapshots from being deleted.
constexpr uint64_t kWalkingNs = 2 * kNsPerSecond;
// Of one STATUS, whose range is less than 4 GiB.
constexpr uint64_t kWindowBytes = 2 * kGiB;
constexpr int kTriesMax = 2 * static_cast<int>(kReplicasMax);

const wire::LayerEntry* EntryOf(std::span<const wire::LayerEntry> layers, std::string_view name) {
  const auto found = std::find_if(layers.begin(), layers.end(),
                                  [name](const auto& layer) { return layer.name == name; });
  return found == layers.end() || name.empty() ? nullptr : &*found;
}

Status NotThere(const std::string& layer) {
  return {ErrorCode::kNotFound, "there is no snapshot " + layer};
}

// From the layer itself down to the bottom.
std::vector<std::string_view> ChainOf(std::span<const wire::LayerEntry> layers,
                                      std::string_view name) {
  std::vector<std::string_view> names;
  for (const auto* at = EntryOf(layers, name); at != nullptr; at = EntryOf(layers, at->parent)) {
    names.push_back(at->name);
  }
  return names;
}

}  // namespace

Result<ChangePlan> PlanChanges(std::span<const wire::LayerEntry> layers, const std::string& from,
                               const std::string& to) {
  ChangePlan plan;
  for (const auto& [name, size] :
       {std::pair{&to, &plan.size_bytes}, std::pair{&from, &plan.from_size_bytes}}) {
    if (name->empty()) continue;
    const wire::LayerEntry* entry = EntryOf(layers, *name);
    if (entry == nullptr || entry->removed || !entry->sealed) return NotThere(*name);
    *size = entry->size_bytes;
  }
  if (from == to) return plan;
  const std::vector<std::string_view> under_to = ChainOf(layers, to);
  const std::vector<std::string_view> under_from = ChainOf(layers, from);
  const std::set<std::string_view> of_to(under_to.begin(), under_to.end());
  const auto shared = std::find_if(under_from.begin(), under_from.end(),
                                   [&](std::string_view name) { return of_to.contains(name); });
  const std::string base(shared == under_from.end() ? std::string_view() : *shared);
  if (base == from) {
    plan.views.push_back({to, base, true, true, false});
  } else {
    plan.views.push_back({to, "", base.empty(), true, false});
    if (!base.empty() && base != to) plan.views.push_back({to, base, true, false, false});
    plan.views.push_back({from, base, true, false, base.empty()});
  }
  if (!base.empty()) plan.views.push_back({from, "", false, false, true});
  return plan;
}

uint64_t MergeChanges(std::span<const ChangeView> views,
                      std::span<const std::span<const BlockExtent>> told, uint64_t offset_bytes,
                      size_t extents_max, std::vector<ChangedExtent>* extents) {
  struct At {
    size_t extent = 0;
    uint64_t left_bytes = 0;
  };
  std::array<At, kChangeViewsMax> at;
  for (size_t i = 0; i < views.size(); ++i) {
    if (!told[i].empty()) at[i].left_bytes = told[i][0].length_bytes;
  }
  uint64_t offset = offset_bytes;
  for (;;) {
    uint64_t length = UINT64_MAX;
    bool touched = false;
    bool zero = false;
    bool was_zero = false;
    for (size_t i = 0; i < views.size(); ++i) {
      if (at[i].extent == told[i].size()) return offset;
      length = std::min(length, at[i].left_bytes);
      const BlockExtent& extent = told[i][at[i].extent];
      // Of a difference, what is in none of its layers is a hole that does not read as zeros.
      const bool hides = !views[i].base.empty() && extent.zero && !Mutant("changes-without-trims");
      touched |= views[i].touches && (!extent.hole || hides);
      if (views[i].tells) zero = extent.hole && extent.zero;
      if (views[i].was) was_zero = extent.hole && extent.zero;
    }
    if (touched && !(zero && was_zero)) {
      ChangedExtent* last = extents->empty() ? nullptr : &extents->back();
      if (last != nullptr && last->zero == zero &&
          last->offset_bytes + last->length_bytes == offset) {
        last->length_bytes += length;
      } else {
        if (extents->size() >= extents_max) return offset;
        extents->push_back({offset, length, zero});
      }
    }
    offset += length;
    for (size_t i = 0; i < views.size(); ++i) {
      at[i].left_bytes -= length;
      if (at[i].left_bytes > 0) continue;
      if (++at[i].extent < told[i].size()) at[i].left_bytes = told[i][at[i].extent].length_bytes;
    }
  }
}

// --- requests
// --------------------------------------------------------------------------------------------

SnapshotChanges::SnapshotChanges(ResyncHost& host) : host_(host), layers_(host) {
  layers_.owner = answer_task_.owner = this;
  answer_task_.done = [](io::Operation* operation) {
    auto* self = static_cast<SnapshotChanges*>(operation->owner);
    while (ChangesRequest* request = self->answered_.PopFront()) request->done(request);
  };
  for (Ask& ask : asks_) {
    ask.changes = this;
    ask.errand.owner = &ask;
    ask.errand.done = [](Errand* errand) {
      static_cast<Ask*>(errand->owner)->changes->OnErrand(errand);
    };
  }
}

SnapshotChanges::~SnapshotChanges() { CHECK(idle()); }

bool SnapshotChanges::quiet() const {
  return !layers_.busy() && std::none_of(asks_.begin(), asks_.end(),
                                         [](const Ask& ask) { return ask.errand.in_flight(); });
}

bool SnapshotChanges::idle() const {
  return phase_ == Phase::kIdle && quiet() && queue_.empty() && answered_.empty() &&
         !answer_task_.scheduled;
}

Status SnapshotChanges::Valid(const ChangesRequest& request) const {
  if (!stopped_.ok()) return stopped_;
  for (const std::string* name : {&request.from, &request.to}) {
    if (wire::IsLayerName(*name) || (name == &request.from && name->empty())) continue;
    return {ErrorCode::kInvalidArgument,
            "'" + name->substr(0, wire::kLayerNameBytes) + "' is no layer of a snapshot"};
  }
  if (request.offset_bytes % kBlockBytes != 0) {
    return {ErrorCode::kInvalidArgument, "changes are told from a multiple of 4096 bytes on"};
  }
  if (request.extents_max == 0 || request.extents_max > kChangedExtentsMax) {
    return {ErrorCode::kInvalidArgument,
            "1 to " + std::to_string(kChangedExtentsMax) + " extents are told at a time"};
  }
  return Status::Ok();
}

void SnapshotChanges::List(ChangesRequest* request) {
  request->submitted_ns = host_.reactor().NowNs();
  request->asked = 0;
  request->tries = 0;
  request->extents.clear();
  request->next_bytes = request->offset_bytes;
  request->size_bytes = request->from_size_bytes = 0;
  const Status valid = Valid(*request);
  if (!valid.ok()) {
    Answer(request, valid);
    return;
  }
  queue_.PushBack(request);
  Pump();
}

void SnapshotChanges::Answer(ChangesRequest* request, const Status& status) {
  request->status = status;
  answered_.PushBack(request);
  host_.reactor().Defer(&answer_task_);
}

void SnapshotChanges::Stop(const Status& why) {
  if (stopped_.ok()) stopped_ = why;
  if (request_ != nullptr) Answer(std::exchange(request_, nullptr), stopped_);
  while (ChangesRequest* request = queue_.PopFront()) Answer(request, stopped_);
  if (due_) Go();
}

void SnapshotChanges::Pump() {
  if (host_.HoldsReads() || !quiet()) return;
  if (phase_ == Phase::kIdle) return Begin();
  // It was held up.
  if (!due_) return;
  due_ = false;
  Go();
}

// --- one request, at one member
// --------------------------------------------------------------------------------------------

void SnapshotChanges::Begin() {
  if (request_ == nullptr) request_ = queue_.PopFront();
  if (request_ == nullptr || !stopped_.ok()) return;
  link_ = nullptr;
  for (const auto& link : host_.links()) {
    const bool failed = (request_->asked >> link->index() & 1) != 0;
    if (!host_.IsStaying(link->index()) || !link->up() || failed) continue;
    if (link_ == nullptr || link->outstanding < link_->outstanding) link_ = link.get();
  }
  const bool given_up = request_->tries == kTriesMax;
  if (link_ == nullptr || given_up) {
    // One that is away may be back before long.
    const bool late = host_.reactor().NowNs() - request_->submitted_ns >= kAskingNs;
    if (!late && !given_up && fault_.ok()) return;
    const Status why = fault_.ok() ? Status(ErrorCode::kUnavailable, "no member can be asked")
                                   : std::exchange(fault_, Status::Ok());
    Answer(std::exchange(request_, nullptr), why);
    return Begin();
  }
  ++request_->tries;
  fault_ = Status::Ok();
  phase_ = Phase::kListing;
  layers_.Read(link_, [](LayerReader* self, ErrorCode status) {
    static_cast<SnapshotChanges*>(self->owner)->OnListed(status);
  });
}

void SnapshotChanges::OnListed(ErrorCode status) {
  views_ = 0;
  if (request_ == nullptr) {
    phase_ = Phase::kIdle;
    return Pump();
  }
  if (status != ErrorCode::kOk) {
    return Fault({status, "replica " + wire::ReplicaIdText(link_->replica()) +
                              " does not tell its snapshots: " + ErrorCodeName(status)},
                 status == ErrorCode::kConnectionLost ? Then::kAgain : Then::kOthers);
  }
  Result<ChangePlan> plan = PlanChanges(layers_.layers(), request_->from, request_->to);
  // All members have the same.
  if (!plan.ok()) return Fault(plan.status(), Then::kTold);
  request_->size_bytes = plan.value().size_bytes;
  request_->from_size_bytes = plan.value().from_size_bytes;
  if (plan.value().views.empty() || request_->next_bytes >= request_->size_bytes) {
    request_->next_bytes = std::max(request_->size_bytes, request_->offset_bytes);
    phase_ = Phase::kClosing;
    return Go();
  }
  for (ChangeView& view : plan.value().views) {
    asks_[views_].view = std::move(view);
    asks_[views_++].id = 0;
  }
  phase_ = Phase::kOpening;
  Go();
}

// False: all are open.
bool SnapshotChanges::OpenNext() {
  for (size_t i = 0; i < views_; ++i) {
    Ask& ask = asks_[i];
    if (ask.id != 0) continue;
    ask.payload = wire::EncodeViewRequest({ask.view.layer, ask.view.base});
    ask.extents.resize(wire::kStatusExtentsMax);
    ask.errand.opcode = wire::Opcode::kView;
    ask.errand.view = 0;
    ask.errand.offset_bytes = ask.errand.length_bytes = 0;
    ask.errand.payload = ask.payload.data();
    ask.errand.payload_bytes = wire::kViewRequestBytes;
    ask.errand.take = TakeView;
    ask.errand.link = link_;
    host_.SendErrand(&ask.errand);
    return true;
  }
  return false;
}

Status SnapshotChanges::TakeView(Errand* errand, std::span<const std::byte> payload) {
  const Result<wire::ViewAnswer> answer = wire::DecodeViewAnswer(payload);
  if (!answer.ok()) return answer.status();
  static_cast<Ask*>(errand->owner)->id = answer.value().id;
  return Status::Ok();
}

void SnapshotChanges::Walk() {
  const uint64_t at = request_->next_bytes;
  for (size_t i = 0; i < views_; ++i) {
    Ask& ask = asks_[i];
    ask.errand.opcode = wire::Opcode::kStatus;
    ask.errand.view = ask.id;
    ask.errand.offset_bytes = at;
    ask.errand.length_bytes =
        static_cast<uint32_t>(std::min(kWindowBytes, request_->size_bytes - at));
    ask.errand.payload_bytes = 0;
    ask.errand.take = TakeExtents;
    ask.errand.link = link_;
    host_.SendErrand(&ask.errand);
  }
}

Status SnapshotChanges::TakeExtents(Errand* errand, std::span<const std::byte> payload) {
  auto* ask = static_cast<Ask*>(errand->owner);
  const Result<uint32_t> count =
      wire::DecodeExtents(payload, errand->length_bytes, ask->extents.data(), ask->extents.size());
  if (!count.ok()) return count.status();
  ask->extents_count = count.value();
  return Status::Ok();
}

void SnapshotChanges::CloseAll() {
  phase_ = Phase::kClosing;
  for (size_t i = 0; i < views_; ++i) {
    Ask& ask = asks_[i];
    if (ask.id == 0) continue;
    const auto request = wire::EncodeViewId(std::exchange(ask.id, uint16_t{0}));
    std::copy(request.begin(), request.end(), ask.payload.begin());
    ask.errand.opcode = wire::Opcode::kCloseView;
    ask.errand.view = 0;
    ask.errand.offset_bytes = ask.errand.length_bytes = 0;
    ask.errand.payload = ask.payload.data();
    ask.errand.payload_bytes = request.size();
    ask.errand.take = nullptr;
    ask.errand.link = link_;
    host_.SendErrand(&ask.errand);
  }
}

void SnapshotChanges::OnLost(const Link& link) {
  if (phase_ == Phase::kIdle || &link != link_) return;
  for (Ask& ask : asks_) ask.id = 0;
  if (phase_ == Phase::kClosing || !fault_.ok()) return;
  fault_ = {ErrorCode::kConnectionLost,
            "the connection to replica " + wire::ReplicaIdText(link.replica()) + " was lost"};
  then_ = Then::kAgain;
}

void SnapshotChanges::OnErrand(Errand* errand) {
  const ErrorCode status = errand->status;
  if (status != ErrorCode::kOk && phase_ != Phase::kClosing && fault_.ok()) {
    // A layer may have been merged away since it was listed, and a connection may be back.
    const bool passes = status == ErrorCode::kNotFound || status == ErrorCode::kInvalidArgument ||
                        status == ErrorCode::kConnectionLost;
    fault_ = {status, "replica " + wire::ReplicaIdText(link_->replica()) +
                          " cannot tell what changed: " + ErrorCodeName(status)};
    then_ = passes ? Then::kAgain : Then::kOthers;
  }
  if (quiet()) Go();
}

void SnapshotChanges::Fault(const Status& why, Then then) {
  fault_ = why;
  then_ = then;
  Go();
}

// Nothing of it is under way: what comes next.
void SnapshotChanges::Go() {
  if (phase_ != Phase::kClosing && (request_ == nullptr || !fault_.ok())) CloseAll();
  if (!quiet()) return;
  if (phase_ == Phase::kClosing) return Closed();
  if (host_.HoldsReads()) {
    due_ = true;
    return;
  }
  if (phase_ == Phase::kOpening) {
    if (OpenNext()) return;
    phase_ = Phase::kWalking;
    walk_from_ns_ = host_.reactor().NowNs();
    return Walk();
  }
  if (Take()) return Walk();
  CloseAll();
  if (quiet()) Closed();
}

// What was told is taken. True: more is to be asked for.
bool SnapshotChanges::Take() {
  std::array<std::span<const BlockExtent>, kChangeViewsMax> told;
  std::array<ChangeView, kChangeViewsMax> views;
  uint64_t covered_bytes = UINT64_MAX;
  for (size_t i = 0; i < views_; ++i) {
    told[i] = {asks_[i].extents.data(), asks_[i].extents_count};
    views[i] = asks_[i].view;
    uint64_t bytes = 0;
    for (const BlockExtent& extent : told[i]) bytes += extent.length_bytes;
    covered_bytes = std::min(covered_bytes, bytes);
  }
  const uint64_t before = request_->next_bytes;
  request_->next_bytes = MergeChanges({views.data(), views_}, {told.data(), views_}, before,
                                      request_->extents_max, &request_->extents);
  const bool full = request_->next_bytes - before < covered_bytes;
  return !full && request_->next_bytes < request_->size_bytes &&
         host_.reactor().NowNs() - walk_from_ns_ < kWalkingNs;
}

// Its views are closed: it is answered, or asked of another member.
void SnapshotChanges::Closed() {
  for (Ask& ask : asks_) std::vector<BlockExtent>().swap(ask.extents);
  phase_ = Phase::kIdle;
  due_ = false;
  if (request_ != nullptr && (fault_.ok() || then_ == Then::kTold)) {
    Answer(std::exchange(request_, nullptr), std::exchange(fault_, Status::Ok()));
  } else if (request_ != nullptr && then_ == Then::kOthers) {
    request_->asked |= static_cast<uint8_t>(1U << link_->index());
  } else {
    fault_ = Status::Ok();
  }
  Pump();
}

}  // namespace ankole::engine
