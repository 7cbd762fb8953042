#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/intrusive_list.h"
#include "engine/link.h"
#include "io/reactor.h"
#include "wire/frame.h"

namespace ankole::engine {

class Errands;

// One request of the engine's own to one replica: what copies, compares and asks for maps is made
// of these. Owned by who sends it, and in flight from Send until `done`.
struct Errand {
  // --- set by the sender ---
  Link* link = nullptr;
  wire::Opcode opcode = wire::Opcode::kSum;
  uint16_t flags = 0;
  uint16_t view = 0;  // READ, SUM and STATUS: of a snapshot; what VIEW answered
  uint64_t offset_bytes = 0;
  uint32_t length_bytes = 0;
  const std::byte* payload = nullptr;  // or the table of a WRITE
  uint32_t payload_bytes = 0;
  std::byte* data = nullptr;  // WRITE: source; READ: destination of length_bytes
  // The payload of a good answer (of a READ its table, the data is in place), gone on return. Not
  // called for others. An error breaks the connection: the replica speaks nonsense.
  Status (*take)(Errand*, std::span<const std::byte> payload) = nullptr;
  // Never from within Send.
  void (*done)(Errand*) = nullptr;
  void* owner = nullptr;
  uint32_t index = 0;  // the owner's
  // --- the outcome ---
  ErrorCode status = ErrorCode::kOk;  // kConnectionLost: it may have happened or not

  // --- the table's ---
  Errands* errands = nullptr;
  uint64_t tag = 0;
  uint32_t slot = 0;
  uint64_t sent_ns = 0;
  bool answer_due = false;
  wire::OutgoingFrame frame;
  ListNode node;
  bool in_flight() const { return node.linked(); }
};

// All errands of an engine that are in flight. Their slots on the wire follow those of the
// operations, and their tags are of the same sequence.
class Errands {
 public:
  static constexpr uint32_t kFirstSlot = kEngineOperationsMax;

  explicit Errands(io::Reactor& reactor);

  // `tag` is new, `complete_tag` as in wire::Header. Ends with kConnectionLost when the link is
  // down.
  void Send(Errand* errand, uint64_t tag, uint64_t complete_tag);

  // What comes from the link, for slots from kFirstSlot on. False (null): nobody asked for that.
  bool OnReply(Link& link, const wire::Header& header, const std::byte* payload, std::byte* data);
  std::byte* OnLargeData(const Link& link, const wire::Header& header);
  // Nothing of its connection is in flight any more: its errands end.
  void OnLost(const Link& link);
  // The one that is under way at this link for longest; null: none.
  const Errand* OldestAt(const Link& link) const;
  size_t in_flight() const { return in_flight_.size() + unsent_.size(); }

 private:
  Errand* Of(const Link& link, const wire::Header& header) const;
  void Answered(Errand* errand, ErrorCode status);
  void End(Errand* errand);

  io::Reactor& reactor_;
  std::array<Errand*, kErrandsMax> slots_ = {};
  uint32_t next_slot_ = 0;
  IntrusiveList<Errand, &Errand::node> in_flight_;  // in the order of their sending
  IntrusiveList<Errand, &Errand::node> unsent_;     // their link was down
  io::Task unsent_task_;
};

}  // namespace ankole::engine
