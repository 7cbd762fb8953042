#include "engine/view_set.h"

#include <algorithm>

namespace ankole::engine {

ViewSet::ViewSet(ResyncHost& host) : host_(host) {
  for (Ask& ask : asks_) {
    ask.set = this;
    ask.errand.owner = &ask;
    ask.errand.done = [](Errand* errand) {
      static_cast<Ask*>(errand->owner)->set->OnAnswer(errand);
    };
  }
}

void ViewSet::Open(const std::string& name) {
  CHECK(name_.empty() && !name.empty());
  name_ = name;
  labels_.clear();
  failure_ = ErrorCode::kOk;
  failed_ = 0;
  Pump();
}

void ViewSet::Pump() {
  if (name_.empty() || failure_ != ErrorCode::kOk) return;
  for (const auto& link : host_.links()) {
    const size_t index = link->index();
    Ask& ask = asks_[index];
    // One that is closed first is asked by its answer.
    if (!host_.IsStaying(index) || !link->up() || ids_[index] != 0 || ask.errand.in_flight()) {
      continue;
    }
    const auto request = wire::EncodeViewRequest({name_, ""});
    std::copy(request.begin(), request.end(), ask.payload.begin());
    ask.opens = true;
    ask.id = 0;
    ask.errand.link = link.get();
    ask.errand.opcode = wire::Opcode::kView;
    ask.errand.payload = ask.payload.data();
    ask.errand.payload_bytes = request.size();
    ask.errand.take = Take;
    host_.SendErrand(&ask.errand);
  }
}

void ViewSet::Retry() {
  failure_ = ErrorCode::kOk;
  Pump();
}

void ViewSet::Close() {
  name_.clear();
  for (size_t i = 0; i < ids_.size(); ++i) {
    if (ids_[i] != 0) SendClose(i, std::exchange(ids_[i], uint16_t{0}));
  }
}

void ViewSet::SendClose(size_t index, uint16_t id) {
  Ask& ask = asks_[index];
  const auto request = wire::EncodeViewId(id);
  std::copy(request.begin(), request.end(), ask.payload.begin());
  ask.opens = false;
  ask.errand.link = host_.links()[index].get();
  ask.errand.opcode = wire::Opcode::kCloseView;
  ask.errand.payload = ask.payload.data();
  ask.errand.payload_bytes = request.size();
  ask.errand.take = nullptr;
  host_.SendErrand(&ask.errand);
}

// A view is its connection's.
void ViewSet::OnLost(const Link& link) { ids_[link.index()] = 0; }

Status ViewSet::Take(Errand* errand, std::span<const std::byte> payload) {
  const Result<wire::ViewAnswer> answer = wire::DecodeViewAnswer(payload);
  if (!answer.ok()) return answer.status();
  auto* ask = static_cast<Ask*>(errand->owner);
  ask->id = answer.value().id;
  ask->labels = answer.value().labels;
  return Status::Ok();
}

void ViewSet::OnAnswer(Errand* errand) {
  auto* ask = static_cast<Ask*>(errand->owner);
  const size_t index = errand->link->index();
  if (!ask->opens) {
    Pump();
    if (changed != nullptr) changed(this);
    return;
  }
  if (errand->status == ErrorCode::kOk && errand->link->up()) {
    if (name_.empty()) {
      SendClose(index, ask->id);
      return;
    }
    ids_[index] = ask->id;
    labels_ = ask->labels;
  } else if (!name_.empty() && errand->status != ErrorCode::kOk &&
             errand->status != ErrorCode::kConnectionLost && failure_ == ErrorCode::kOk) {
    failure_ = errand->status;
    failed_ = errand->link->replica();
  }
  if (changed != nullptr) changed(this);
}

bool ViewSet::open() const {
  if (name_.empty()) return false;
  bool any = false;
  for (const auto& link : host_.links()) {
    if (!host_.IsStaying(link->index()) || !link->up()) continue;
    if (ids_[link->index()] == 0) return false;
    any = true;
  }
  return any;
}

bool ViewSet::idle() const {
  return std::all_of(ids_.begin(), ids_.end(), [](uint16_t id) { return id == 0; }) &&
         std::none_of(asks_.begin(), asks_.end(),
                      [](const Ask& ask) { return ask.errand.in_flight(); });
}

}  // namespace ankole::engine
