#include "engine/errand.h"

#include <cstring>

#include "base/crc32c.h"

namespace ankole::engine {

Errands::Errands(io::Reactor& reactor) : reactor_(reactor) {
  unsent_task_.owner = this;
  unsent_task_.done = [](io::Operation* operation) {
    auto* self = static_cast<Errands*>(operation->owner);
    while (Errand* errand = self->unsent_.PopFront()) errand->done(errand);
  };
}

void Errands::Send(Errand* errand, uint64_t tag, uint64_t complete_tag) {
  CHECK(!errand->in_flight() && in_flight_.size() < kErrandsMax);
  if (!errand->link->up()) {
    errand->status = ErrorCode::kConnectionLost;
    unsent_.PushBack(errand);
    reactor_.Defer(&unsent_task_);
    return;
  }
  while (slots_[next_slot_] != nullptr) next_slot_ = (next_slot_ + 1) % kErrandsMax;
  errand->slot = next_slot_;
  slots_[errand->slot] = errand;
  errand->tag = tag;
  errand->status = ErrorCode::kOk;
  errand->sent_ns = reactor_.NowNs();
  errand->answer_due = true;
  errand->errands = this;
  in_flight_.PushBack(errand);
  ++errand->link->outstanding;

  wire::Header header;
  header.opcode = errand->opcode;
  header.flags = errand->flags;
  header.view = errand->view;
  header.tag = tag;
  header.slot = kFirstSlot + errand->slot;
  header.offset_bytes = errand->offset_bytes;
  header.length_bytes = errand->length_bytes;
  header.complete_tag = complete_tag;
  wire::OutgoingFrame& frame = errand->frame;
  frame.table = errand->payload;
  frame.table_bytes = errand->payload_bytes;
  frame.data_bytes = 0;
  if (header.carries_data()) {
    frame.data = errand->data;
    frame.data_bytes = errand->length_bytes;
  }
  header.payload_bytes = frame.table_bytes + frame.data_bytes;
  header.payload_crc32c = Crc32c(frame.table, frame.table_bytes);
  wire::EncodeHeader(header, frame.header);
  frame.owner = errand;
  // The answer may come while the frame counts as on its way: many leave in one system call.
  frame.sent = [](wire::OutgoingFrame* sent) {
    auto* of = static_cast<Errand*>(sent->owner);
    if (!of->answer_due) of->errands->End(of);
  };
  errand->link->Send(&frame);
}

Errand* Errands::Of(const Link& link, const wire::Header& header) const {
  const uint32_t slot = header.slot - kFirstSlot;
  Errand* errand = slot < kErrandsMax ? slots_[slot] : nullptr;
  const bool good = errand != nullptr && errand->link == &link && errand->tag == header.tag &&
                    errand->opcode == header.opcode &&
                    errand->offset_bytes == header.offset_bytes &&
                    errand->length_bytes == header.length_bytes;
  return good ? errand : nullptr;
}

std::byte* Errands::OnLargeData(const Link& link, const wire::Header& header) {
  const Errand* errand = Of(link, header);
  return errand != nullptr ? errand->data : nullptr;
}

bool Errands::OnReply(Link& link, const wire::Header& header, const std::byte* payload,
                      std::byte* data) {
  Errand* errand = Of(link, header);
  if (errand == nullptr) return false;
  ErrorCode status = header.status;
  if (status == ErrorCode::kOk && header.carries_data()) {
    if (!wire::DataMatches(header, payload, data)) {
      link.Break({ErrorCode::kCorrupt, "data read does not match its checksum"});
      return true;
    }
    if (data != errand->data) std::memcpy(errand->data, data, errand->length_bytes);
  }
  if (status == ErrorCode::kOk && errand->take != nullptr) {
    const size_t bytes = header.carries_data() ? header.table_bytes() : header.payload_bytes;
    const Status taken = errand->take(errand, {payload, bytes});
    if (!taken.ok()) {
      link.Break(taken.Within(std::string("the answer to ") + wire::OpcodeName(header.opcode)));
      return true;
    }
  }
  Answered(errand, status);
  if (!errand->frame.pending()) End(errand);
  return true;
}

void Errands::Answered(Errand* errand, ErrorCode status) {
  errand->status = status;
  errand->answer_due = false;
  slots_[errand->slot] = nullptr;
  --errand->link->outstanding;
}

void Errands::End(Errand* errand) {
  in_flight_.Remove(errand);
  errand->done(errand);
}

void Errands::OnLost(const Link& link) {
  // `done` may send others, but not to a link that is down.
  while (true) {
    Errand* errand = in_flight_.front();
    while (errand != nullptr && errand->link != &link) errand = in_flight_.Next(errand);
    if (errand == nullptr) return;
    if (errand->answer_due) Answered(errand, ErrorCode::kConnectionLost);
    End(errand);
  }
}

const Errand* Errands::OldestAt(const Link& link) const {
  for (Errand* errand = in_flight_.front(); errand != nullptr; errand = in_flight_.Next(errand)) {
    if (errand->link == &link) return errand;
  }
  return nullptr;
}

}  // namespace ankole::engine
