#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "scsi/command.h"
#include "scsi/limits.h"
#include "scsi/sense.h"

// Persistent reservations (SPC-4, 5.12): who is registered, who holds the reservation, and what
// follows from a PERSISTENT RESERVE OUT. Pure; the logical unit stores what comes out of it.
namespace ankole::scsi {

// SPC-4, table 211. «RegistrantsOnly»: all that are registered have access; «AllRegistrants»: they
// all hold the reservation, too.
enum class ReservationType : uint8_t {
  kNone = 0,
  kWriteExclusive = 1,
  kExclusiveAccess = 3,
  kWriteExclusiveRegistrantsOnly = 5,
  kExclusiveAccessRegistrantsOnly = 6,
  kWriteExclusiveAllRegistrants = 7,
  kExclusiveAccessAllRegistrants = 8,
};
// kNone is none.
bool IsReservationType(uint8_t number);
bool IsAllRegistrants(ReservationType type);

// A nexus is known by its initiator port's name, as there is one target port.
struct Registration {
  uint64_t key = 0;  // Invariant: not 0
  std::string port;  // Invariant: 1 to kPortNameBytesMax bytes, of no other registration
  bool operator==(const Registration&) const = default;
};

struct Reservations {
  std::vector<Registration> registrations;  // Invariant: at most kRegistrationsMax
  ReservationType type = ReservationType::kNone;
  // Index of who holds it. Invariant: set for a type that one holds, and only then; of a type that
  // all registrants hold there is at least one.
  std::optional<size_t> holder;
  // PRGENERATION: counts changes of registrations since the engine started (SPC-4, 5.12.6.3). Not
  // stored.
  uint32_t generation = 0;
  bool operator==(const Reservations&) const = default;
};

// A nexus's relation to the reservations.
enum class Relation : uint8_t { kStranger, kRegistered, kHolder };
Relation RelationOf(const Reservations& reservations, std::string_view port);

// Whether a command is answered RESERVATION CONFLICT (SPC-4, table 66).
bool Conflicts(ReservationType type, Relation relation, Access access);

// --- PERSISTENT RESERVE OUT ----------------------------------------------------------------------

// SPC-4, table 224. REGISTER AND MOVE is not supported.
enum class PersistentOutAction : uint8_t {
  kRegister = 0,
  kReserve = 1,
  kRelease = 2,
  kClear = 3,
  kPreempt = 4,
  kPreemptAndAbort = 5,
  kRegisterAndIgnore = 6,
};

struct PersistentOut {
  PersistentOutAction action = PersistentOutAction::kRegister;
  uint8_t scope = 0;
  uint8_t type = 0;
  uint64_t key = 0;
  uint64_t action_key = 0;
};
inline constexpr uint32_t kPersistentOutBytes = 24;
// The parameter list (SPC-4, 6.16.3), of kPersistentOutBytes. APTPL is taken for granted, as all
// state is kept; SPEC_I_PT is refused; ALL_TG_PT changes nothing where there is one target port.
std::optional<Sense> DecodePersistentOut(const Command& command, std::span<const std::byte> list,
                                         PersistentOut* to);

struct Attention {
  std::string port;
  SenseCode code = SenseCode::kNone;
};

// What a PERSISTENT RESERVE OUT leads to.
struct Transition {
  bool conflict = false;         // answered RESERVATION CONFLICT; else
  std::optional<Sense> refused;  // CHECK CONDITION; else GOOD, and
  Reservations next;
  std::vector<Attention> attentions;  // for others
  std::vector<std::string> aborted;   // PREEMPT AND ABORT: whose tasks are
};
Transition Apply(const Reservations& before, std::string_view port, const PersistentOut& request);

// --- the state that is kept with the volume ------------------------------------------------------

// Fills kTargetStateBytes. The layout: docs/reference/scsi.md, «The state kept with a volume».
void EncodeState(const Reservations& reservations, std::span<std::byte> to);
// Bytes that are all zero are those of a new volume. kCorrupt: the cause in the message.
Result<Reservations> DecodeState(std::span<const std::byte> from);

}  // namespace ankole::scsi
