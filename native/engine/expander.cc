#include "engine/expander.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace ankole::engine {
namespace {

// A replica of a release that does not know the request breaks the connection each time.
constexpr int kLossesMax = 3;

}  // namespace

Expander::Expander(ResyncHost& host) : host_(host) {
  for (Errand& errand : errands_) {
    errand.owner = this;
    errand.opcode = wire::Opcode::kExpand;
    errand.done = [](Errand* done) { static_cast<Expander*>(done->owner)->OnAnswer(done); };
  }
}

void Expander::Start(uint64_t size_bytes, Done done, void* owner) {
  CHECK(!running() && size_bytes > 0);
  size_bytes_ = size_bytes;
  done_ = done;
  owner_ = owner;
  losses_.fill(0);
  Look();
}

bool Expander::idle() const {
  return std::none_of(errands_.begin(), errands_.end(),
                      [](const Errand& errand) { return errand.in_flight(); });
}

void Expander::Look() {
  if (!running()) return;
  bool all = true;
  for (const auto& link : host_.links()) {
    const size_t index = link->index();
    if (!host_.IsToGrow(index) || host_.StateOf(*link).size_bytes >= size_bytes_) continue;
    all = false;
    Errand& errand = errands_[index];
    if (errand.in_flight() || !link->up()) continue;
    // What an errand of before is still to send would change under it.
    if (idle()) payload_ = wire::EncodeExpand(size_bytes_);
    if (payload_ != wire::EncodeExpand(size_bytes_)) continue;
    errand.link = link.get();
    errand.payload = payload_.data();
    errand.payload_bytes = wire::kExpandBytes;
    asked_[index] = size_bytes_;
    host_.SendErrand(&errand);
  }
  if (all && host_.MayGrow()) End(Status::Ok());
}

void Expander::OnAnswer(Errand* errand) {
  Link& link = *errand->link;
  const size_t index = link.index();
  if (errand->status == ErrorCode::kOk) {
    losses_[index] = 0;
    host_.NoteSize(link, asked_[index]);
  } else if (running() && host_.IsToGrow(index) && asked_[index] == size_bytes_) {
    const bool lost = errand->status == ErrorCode::kConnectionLost;
    if (!lost || ++losses_[index] >= kLossesMax) {
      Status why(errand->status, "replica " + wire::ReplicaIdText(link.replica()) +
                                     " cannot become larger: " + ErrorCodeName(errand->status));
      if (errand->status == ErrorCode::kNoSpace)
        why = {why.code(), why.message() + ", its disk is full"};
      if (host_.IsMember(index)) return End(why);
      host_.JoinerCannotGrow(why);
    }
  }
  Look();
}

void Expander::End(const Status& status) {
  size_bytes_ = 0;
  std::exchange(done_, nullptr)(owner_, status);
}

std::string Expander::WaitsFor() const {
  std::string names;
  for (const auto& link : host_.links()) {
    if (!host_.IsToGrow(link->index())) continue;
    if (host_.StateOf(*link).size_bytes >= size_bytes_) continue;
    names += (names.empty() ? "replica " : ", ") + wire::ReplicaIdText(link->replica());
  }
  return names;
}

}  // namespace ankole::engine
