#include "scsi/reservations.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"

namespace ankole::scsi {

namespace {

using Type = ReservationType;

bool IsRegistrantsOnly(Type type) {
  return type == Type::kWriteExclusiveRegistrantsOnly ||
         type == Type::kExclusiveAccessRegistrantsOnly;
}

bool IsExclusiveAccess(Type type) {
  return type == Type::kExclusiveAccess || type == Type::kExclusiveAccessRegistrantsOnly ||
         type == Type::kExclusiveAccessAllRegistrants;
}

std::optional<size_t> Find(const Reservations& reservations, std::string_view port) {
  for (size_t i = 0; i < reservations.registrations.size(); ++i) {
    if (reservations.registrations[i].port == port) return i;
  }
  return {};
}

void EndReservation(Reservations* state) {
  state->type = Type::kNone;
  state->holder.reset();
}

// Only registrations that the holder is not among, or of a reservation that has ended.
void RemoveRegistration(Reservations* state, size_t index) {
  CHECK(state->holder != index);
  state->registrations.erase(state->registrations.begin() + static_cast<ptrdiff_t>(index));
  if (state->holder && *state->holder > index) --*state->holder;
}

void TellOthers(const Reservations& state, std::string_view port, SenseCode code, Transition* to) {
  for (const Registration& registration : state.registrations) {
    if (registration.port != port) to->attentions.push_back({registration.port, code});
  }
}

// SPC-4, 5.12.11.2.2: those that had access by being registered learn of it.
void EndAndTell(std::string_view port, Transition* to) {
  const bool told = IsRegistrantsOnly(to->next.type) || IsAllRegistrants(to->next.type);
  EndReservation(&to->next);
  if (told) TellOthers(to->next, port, SenseCode::kReservationsReleased, to);
}

Transition Conflict() {
  Transition transition;
  transition.conflict = true;
  return transition;
}

Transition Refused(const Sense& sense) {
  Transition transition;
  transition.refused = sense;
  return transition;
}

// --- REGISTER (SPC-4, 5.12.7) and unregistering (5.12.11.3) --------------------------------------

void Unregister(size_t index, std::string_view port, Transition* to) {
  Reservations& next = to->next;
  const bool last = next.registrations.size() == 1;
  const bool holds = next.holder == index || (IsAllRegistrants(next.type) && last);
  if (holds) EndAndTell(port, to);
  RemoveRegistration(&next, index);
}

Transition Register(const Reservations& before, std::string_view port,
                    const PersistentOut& request) {
  const std::optional<size_t> own = Find(before, port);
  if (request.action == PersistentOutAction::kRegister) {
    const uint64_t expected = own ? before.registrations[*own].key : 0;
    if (request.key != expected) return Conflict();
  }
  Transition to;
  to.next = before;
  if (request.action_key == 0) {
    // Nothing to undo is not an error.
    if (!own) return to;
    Unregister(*own, port, &to);
  } else if (own) {
    to.next.registrations[*own].key = request.action_key;
  } else {
    if (before.registrations.size() == kRegistrationsMax) {
      return Refused(IllegalRequest(SenseCode::kInsufficientRegistrations));
    }
    to.next.registrations.push_back({request.action_key, std::string(port)});
  }
  ++to.next.generation;
  return to;
}

// --- RESERVE, RELEASE, CLEAR (SPC-4, 5.12.9, 5.12.11.2, 5.12.11.6) -------------------------------

Transition Reserve(const Reservations& before, size_t own, const PersistentOut& request) {
  const auto type = static_cast<Type>(request.type);
  Transition to;
  to.next = before;
  if (before.type == Type::kNone) {
    to.next.type = type;
    if (!IsAllRegistrants(type)) to.next.holder = own;
    return to;
  }
  const bool holds = IsAllRegistrants(before.type) || before.holder == own;
  if (!holds || before.type != type) return Conflict();
  return to;
}

Transition ReleaseHeld(const Reservations& before, size_t own, std::string_view port,
                       const PersistentOut& request) {
  Transition to;
  to.next = before;
  const bool holds = IsAllRegistrants(before.type) || before.holder == own;
  if (before.type == Type::kNone || !holds) return to;
  if (before.type != static_cast<Type>(request.type)) {
    return Refused(IllegalRequest(SenseCode::kInvalidRelease));
  }
  EndAndTell(port, &to);
  return to;
}

Transition Clear(const Reservations& before, std::string_view port) {
  Transition to;
  to.next = before;
  TellOthers(before, port, SenseCode::kReservationsPreempted, &to);
  EndReservation(&to.next);
  to.next.registrations.clear();
  ++to.next.generation;
  return to;
}

// --- PREEMPT (SPC-4, 5.12.11.4 and 5.12.11.5) ----------------------------------------------------

// Removes the registrations that `matches`, but for `kept`; false if there was none.
template <typename Matches>
bool RemoveMatching(std::string_view own_port, std::string_view kept, const Matches& matches,
                    Transition* to) {
  bool any = false;
  Reservations& next = to->next;
  for (size_t i = next.registrations.size(); i-- > 0;) {
    const Registration registration = next.registrations[i];
    if (!matches(registration)) continue;
    any = true;
    if (registration.port == kept) continue;
    RemoveRegistration(&next, i);
    to->aborted.push_back(registration.port);
    if (registration.port != own_port) {
      to->attentions.push_back({registration.port, SenseCode::kRegistrationsPreempted});
    }
  }
  return any;
}

Transition Preempt(const Reservations& before, std::string_view port,
                   const PersistentOut& request) {
  const bool all_hold = IsAllRegistrants(before.type);
  const auto type = static_cast<Type>(request.type);
  // 0 stands for «all» where all hold the reservation, and for nobody else.
  if (request.action_key == 0 && !all_hold) return Refused(InvalidFieldInParameterList(8));
  const bool takes_over =
      all_hold ? request.action_key == 0
               : before.holder && before.registrations[*before.holder].key == request.action_key;
  Transition to;
  to.next = before;
  const auto named = [&](const Registration& registration) {
    return request.action_key == 0 || registration.key == request.action_key;
  };
  if (takes_over) {
    if (!IsReservationType(request.type)) return Refused(InvalidFieldInCdb(2, 3));
    if (request.scope != 0) return Refused(InvalidFieldInCdb(2, 7));
    EndReservation(&to.next);
    RemoveMatching(port, port, named, &to);
    to.next.type = type;
    if (!IsAllRegistrants(type)) to.next.holder = Find(to.next, port);
    if (before.type != type) {
      TellOthers(to.next, port, SenseCode::kReservationsReleased, &to);
    }
  } else {
    // The own registration may be among them. Where all hold the reservation it ends with the last.
    if (!RemoveMatching(port, {}, named, &to)) return Conflict();
    if (to.next.registrations.empty()) EndReservation(&to.next);
  }
  if (request.action != PersistentOutAction::kPreemptAndAbort) to.aborted.clear();
  ++to.next.generation;
  return to;
}

}  // namespace

bool IsReservationType(uint8_t number) {
  switch (static_cast<Type>(number)) {
    case Type::kWriteExclusive:
    case Type::kExclusiveAccess:
    case Type::kWriteExclusiveRegistrantsOnly:
    case Type::kExclusiveAccessRegistrantsOnly:
    case Type::kWriteExclusiveAllRegistrants:
    case Type::kExclusiveAccessAllRegistrants:
      return true;
    case Type::kNone:
      break;
  }
  return false;
}

bool IsAllRegistrants(Type type) {
  return type == Type::kWriteExclusiveAllRegistrants ||
         type == Type::kExclusiveAccessAllRegistrants;
}

Relation RelationOf(const Reservations& reservations, std::string_view port) {
  const std::optional<size_t> index = Find(reservations, port);
  if (!index) return Relation::kStranger;
  const bool holds = IsAllRegistrants(reservations.type) || reservations.holder == index;
  return holds ? Relation::kHolder : Relation::kRegistered;
}

bool Conflicts(Type type, Relation relation, Access access) {
  if (type == Type::kNone || access == Access::kAlways || relation == Relation::kHolder) {
    return false;
  }
  if (relation == Relation::kRegistered && IsRegistrantsOnly(type)) return false;
  return access == Access::kWrites || IsExclusiveAccess(type);
}

std::optional<Sense> DecodePersistentOut(const Command& command, std::span<const std::byte> list,
                                         PersistentOut* to) {
  if (list.size() < kPersistentOutBytes)
    return IllegalRequest(SenseCode::kParameterListLengthError);
  to->action = static_cast<PersistentOutAction>(command.service_action);
  to->scope = command.scope;
  to->type = command.type;
  to->key = LoadBig64(&list[0]);
  to->action_key = LoadBig64(&list[8]);
  if ((list[20] & std::byte{0x08}) != std::byte{0}) return InvalidFieldInParameterList(20, 3);
  // Where scope and type mean something (SPC-4, table 224). PREEMPT may leave them unused.
  if (to->action == PersistentOutAction::kReserve || to->action == PersistentOutAction::kRelease) {
    if (to->scope != 0) return InvalidFieldInCdb(2, 7);
    if (!IsReservationType(to->type)) return InvalidFieldInCdb(2, 3);
  }
  return {};
}

Transition Apply(const Reservations& before, std::string_view port, const PersistentOut& request) {
  if (request.action == PersistentOutAction::kRegister ||
      request.action == PersistentOutAction::kRegisterAndIgnore) {
    return Register(before, port, request);
  }
  // All others are for those that are registered, with their own key (SPC-4, 5.12.6.1).
  const std::optional<size_t> own = Find(before, port);
  if (!own || before.registrations[*own].key != request.key) return Conflict();
  switch (request.action) {
    case PersistentOutAction::kReserve:
      return Reserve(before, *own, request);
    case PersistentOutAction::kRelease:
      return ReleaseHeld(before, *own, port, request);
    case PersistentOutAction::kClear:
      return Clear(before, port);
    case PersistentOutAction::kPreempt:
    case PersistentOutAction::kPreemptAndAbort:
      return Preempt(before, port, request);
    case PersistentOutAction::kRegister:
    case PersistentOutAction::kRegisterAndIgnore:
      break;
  }
  CHECK(!"handled above");
  return Conflict();
}

}  // namespace ankole::scsi
