#include "scsi/reservations.h"

#include <random>

#include "base/crc32c.h"
#include "scsi/logical_unit_testing.h"

namespace ankole::scsi {
namespace {

using Type = ReservationType;
using Action = PersistentOutAction;
constexpr Type kTypes[] = {Type::kWriteExclusive,
                           Type::kExclusiveAccess,
                           Type::kWriteExclusiveRegistrantsOnly,
                           Type::kExclusiveAccessRegistrantsOnly,
                           Type::kWriteExclusiveAllRegistrants,
                           Type::kExclusiveAccessAllRegistrants};

// What somebody may do whose name is not the holder's: of SPC-4, table 66, the columns for who is
// not registered and for who is.
TEST(scsi_reservations, conflicts_of_all_types_relations_and_accesses) {
  struct Row {
    Type type;
    // Reads and writes of a stranger, then of somebody registered.
    bool stranger_reads, stranger_writes, registered_reads, registered_writes;
  };
  const Row rows[] = {
      {Type::kNone, true, true, true, true},
      {Type::kWriteExclusive, true, false, true, false},
      {Type::kExclusiveAccess, false, false, false, false},
      {Type::kWriteExclusiveRegistrantsOnly, true, false, true, true},
      {Type::kExclusiveAccessRegistrantsOnly, false, false, true, true},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(!Conflicts(row.type, Relation::kStranger, Access::kReads), row.stranger_reads);
    EXPECT_EQ(!Conflicts(row.type, Relation::kStranger, Access::kWrites), row.stranger_writes);
    EXPECT_EQ(!Conflicts(row.type, Relation::kRegistered, Access::kReads), row.registered_reads);
    EXPECT_EQ(!Conflicts(row.type, Relation::kRegistered, Access::kWrites), row.registered_writes);
  }
  // Where all that are registered hold it there is nobody in between.
  EXPECT(!Conflicts(Type::kWriteExclusiveAllRegistrants, Relation::kStranger, Access::kReads));
  EXPECT(Conflicts(Type::kWriteExclusiveAllRegistrants, Relation::kStranger, Access::kWrites));
  EXPECT(Conflicts(Type::kExclusiveAccessAllRegistrants, Relation::kStranger, Access::kReads));
  EXPECT(Conflicts(Type::kExclusiveAccessAllRegistrants, Relation::kStranger, Access::kWrites));
  for (const Type type : kTypes) {
    for (const Access access : {Access::kReads, Access::kWrites}) {
      EXPECT(!Conflicts(type, Relation::kHolder, access));
    }
    EXPECT(!Conflicts(type, Relation::kStranger, Access::kAlways));
  }
}

PersistentOut Out(Action action, uint64_t key, uint64_t action_key, Type type = Type::kNone) {
  return {action, 0, static_cast<uint8_t>(type), key, action_key};
}
// Goes on to where `action` leads, which is GOOD.
Transition Go(Reservations* state, const char* port, const PersistentOut& request) {
  Transition transition = Apply(*state, port, request);
  if (transition.conflict || transition.refused) {
    test::Fail(__FILE__, __LINE__,
               std::string("refused to ") + port + ": action " +
                   std::to_string(static_cast<int>(request.action)));
  } else {
    *state = transition.next;
  }
  return transition;
}
bool Conflicted(const Reservations& state, const char* port, const PersistentOut& request) {
  return Apply(state, port, request).conflict;
}
// «a:2a04 b:2a05», sorted by port.
std::string Told(Transition transition) {
  std::sort(transition.attentions.begin(), transition.attentions.end(),
            [](const Attention& x, const Attention& y) { return x.port < y.port; });
  std::string text;
  for (const Attention& attention : transition.attentions) {
    char one[16];
    std::snprintf(one, sizeof(one), ":%04x", static_cast<unsigned>(attention.code));
    text += (text.empty() ? "" : " ") + attention.port + one;
  }
  return text;
}
Reservations Registered(std::initializer_list<std::pair<const char*, uint64_t>> who) {
  Reservations state;
  for (const auto& [port, key] : who) Go(&state, port, Out(Action::kRegister, 0, key));
  return state;
}

TEST(scsi_reservations, registering) {
  Reservations state;
  // Nothing to undo.
  EXPECT(Go(&state, "a", Out(Action::kRegister, 0, 0)).next == Reservations{});
  EXPECT(Conflicted(state, "a", Out(Action::kRegister, 5, 1)));
  Go(&state, "a", Out(Action::kRegister, 0, 1));
  EXPECT_EQ(state.generation, 1u);
  EXPECT(Conflicted(state, "a", Out(Action::kRegister, 0, 2)));
  Go(&state, "a", Out(Action::kRegister, 1, 2));
  Go(&state, "a", Out(Action::kRegisterAndIgnore, 77, 3));
  Go(&state, "b", Out(Action::kRegisterAndIgnore, 0, 3));
  EXPECT(state.registrations == (std::vector<Registration>{{3, "a"}, {3, "b"}}));
  EXPECT_EQ(state.generation, 4u);
  Go(&state, "a", Out(Action::kRegister, 3, 0));
  EXPECT(state.registrations == (std::vector<Registration>{{3, "b"}}));
  Go(&state, "b", Out(Action::kRegisterAndIgnore, 0, 0));
  EXPECT(state.registrations.empty());
}

TEST(scsi_reservations, there_is_room_for_so_many) {
  Reservations state;
  for (size_t i = 0; i < kRegistrationsMax; ++i) {
    Go(&state, ("port-" + std::to_string(i)).c_str(), Out(Action::kRegister, 0, i + 1));
  }
  const Transition refused = Apply(state, "one more", Out(Action::kRegister, 0, 9));
  ASSERT(refused.refused);
  EXPECT(refused.refused->code == SenseCode::kInsufficientRegistrations);
  Go(&state, "port-3", Out(Action::kRegister, 4, 99));
}

TEST(scsi_reservations, only_who_is_registered_with_that_key_goes_on) {
  for (const Action action : {Action::kReserve, Action::kRelease, Action::kClear, Action::kPreempt,
                              Action::kPreemptAndAbort}) {
    const Reservations state = Registered({{"a", 1}, {"b", 2}});
    EXPECT(Conflicted(state, "c", Out(action, 0, 2, Type::kWriteExclusive)));
    EXPECT(Conflicted(state, "a", Out(action, 2, 2, Type::kWriteExclusive)));
    EXPECT(!Conflicted(state, "a", Out(action, 1, 2, Type::kWriteExclusive)));
  }
}

TEST(scsi_reservations, reserving_and_releasing_each_type) {
  for (const Type type : kTypes) {
    const bool all = IsAllRegistrants(type);
    const bool shared = all || type == Type::kWriteExclusiveRegistrantsOnly ||
                        type == Type::kExclusiveAccessRegistrantsOnly;
    Reservations state = Registered({{"a", 1}, {"b", 2}, {"c", 3}});
    const uint32_t generation = state.generation;
    Go(&state, "a", Out(Action::kReserve, 1, 0, type));
    EXPECT(RelationOf(state, "a") == Relation::kHolder);
    EXPECT(RelationOf(state, "b") == (all ? Relation::kHolder : Relation::kRegistered));
    EXPECT(RelationOf(state, "x") == Relation::kStranger);
    // Once more is nothing new; another type, or by another one, conflicts.
    EXPECT(Go(&state, "a", Out(Action::kReserve, 1, 0, type)).next == state);
    const Type other =
        type == Type::kWriteExclusive ? Type::kExclusiveAccess : Type::kWriteExclusive;
    EXPECT(Conflicted(state, "a", Out(Action::kReserve, 1, 0, other)));
    EXPECT_EQ(Conflicted(state, "b", Out(Action::kReserve, 2, 0, type)), !all);
    // Who does not hold it releases nothing.
    if (!all) EXPECT(Go(&state, "b", Out(Action::kRelease, 2, 0, type)).next == state);
    const Transition wrong = Apply(state, "a", Out(Action::kRelease, 1, 0, other));
    ASSERT(wrong.refused);
    EXPECT(wrong.refused->code == SenseCode::kInvalidRelease);
    const Transition released = Go(&state, "a", Out(Action::kRelease, 1, 0, type));
    EXPECT(state.type == Type::kNone && !state.holder);
    EXPECT_EQ(Told(released), shared ? "b:2a04 c:2a04" : "");
    EXPECT_EQ(state.generation, generation);
  }
}

TEST(scsi_reservations, unregistering_ends_the_own_reservation) {
  for (const Type type : kTypes) {
    Reservations state = Registered({{"a", 1}, {"b", 2}, {"c", 3}});
    Go(&state, "b", Out(Action::kReserve, 2, 0, type));
    Transition gone = Go(&state, "a", Out(Action::kRegister, 1, 0));
    EXPECT(state.type == type);
    EXPECT_EQ(Told(gone), "");
    EXPECT(RelationOf(state, "b") == Relation::kHolder);
    gone = Go(&state, "b", Out(Action::kRegister, 2, 0));
    if (IsAllRegistrants(type)) {
      // With the last one that is registered.
      EXPECT(state.type == type && RelationOf(state, "c") == Relation::kHolder);
      Go(&state, "c", Out(Action::kRegister, 3, 0));
      EXPECT(state.type == Type::kNone);
    } else {
      EXPECT(state.type == Type::kNone && !state.holder);
      const bool shared = type == Type::kWriteExclusiveRegistrantsOnly ||
                          type == Type::kExclusiveAccessRegistrantsOnly;
      EXPECT_EQ(Told(gone), shared ? "c:2a04" : "");
    }
  }
}

TEST(scsi_reservations, clearing) {
  Reservations state = Registered({{"a", 1}, {"b", 2}, {"c", 3}});
  Go(&state, "a", Out(Action::kReserve, 1, 0, Type::kExclusiveAccess));
  const Transition cleared = Go(&state, "b", Out(Action::kClear, 2, 0));
  EXPECT(state.registrations.empty() && state.type == Type::kNone && !state.holder);
  EXPECT_EQ(Told(cleared), "a:2a03 c:2a03");
  EXPECT_EQ(state.generation, 4u);
}

TEST(scsi_reservations, preempting_the_holder_takes_its_place) {
  Reservations state = Registered({{"a", 1}, {"b", 2}, {"c", 1}, {"d", 4}});
  Go(&state, "a", Out(Action::kReserve, 1, 0, Type::kWriteExclusive));
  const Transition taken =
      Go(&state, "b", Out(Action::kPreemptAndAbort, 2, 1, Type::kExclusiveAccess));
  EXPECT(state.registrations == (std::vector<Registration>{{2, "b"}, {4, "d"}}));
  EXPECT(state.type == Type::kExclusiveAccess && RelationOf(state, "b") == Relation::kHolder);
  EXPECT_EQ(Told(taken), "a:2a05 c:2a05 d:2a04");
  EXPECT(taken.aborted == (std::vector<std::string>{"c", "a"}));
  EXPECT_EQ(state.generation, 5u);
  // Of the same type nobody's access changes. Without ABORT no task ends.
  const Transition again = Go(&state, "d", Out(Action::kPreempt, 4, 2, Type::kExclusiveAccess));
  EXPECT_EQ(Told(again), "b:2a05");
  EXPECT(again.aborted.empty());
  EXPECT(RelationOf(state, "d") == Relation::kHolder);
}

TEST(scsi_reservations, preempting_oneself_changes_the_type) {
  Reservations state = Registered({{"a", 1}, {"b", 1}});
  Go(&state, "a", Out(Action::kReserve, 1, 0, Type::kWriteExclusive));
  const Transition changed =
      Go(&state, "a", Out(Action::kPreempt, 1, 1, Type::kWriteExclusiveRegistrantsOnly));
  EXPECT(state.registrations == (std::vector<Registration>{{1, "a"}}));
  EXPECT(state.type == Type::kWriteExclusiveRegistrantsOnly);
  EXPECT_EQ(Told(changed), "b:2a05");
}

TEST(scsi_reservations, preempting_others_removes_registrations_only) {
  Reservations state = Registered({{"a", 1}, {"b", 2}, {"c", 3}, {"d", 3}});
  Go(&state, "b", Out(Action::kReserve, 2, 0, Type::kWriteExclusive));
  EXPECT(Conflicted(state, "a", Out(Action::kPreempt, 1, 99, Type::kWriteExclusive)));
  const Transition removed = Go(&state, "a", Out(Action::kPreempt, 1, 3, Type::kExclusiveAccess));
  EXPECT(state.registrations == (std::vector<Registration>{{1, "a"}, {2, "b"}}));
  EXPECT(state.type == Type::kWriteExclusive && RelationOf(state, "b") == Relation::kHolder);
  EXPECT_EQ(Told(removed), "c:2a05 d:2a05");
  // The key 0 is nobody's.
  const Transition zero = Apply(state, "a", Out(Action::kPreempt, 1, 0, Type::kWriteExclusive));
  ASSERT(zero.refused);
  EXPECT(zero.refused->code == SenseCode::kInvalidFieldInParameterList);
}

TEST(scsi_reservations, preempting_where_all_hold_it) {
  Reservations state = Registered({{"a", 1}, {"b", 2}, {"c", 3}});
  Go(&state, "a", Out(Action::kReserve, 1, 0, Type::kWriteExclusiveAllRegistrants));
  // A key names who is to go.
  Go(&state, "b", Out(Action::kPreempt, 2, 1, Type::kExclusiveAccess));
  EXPECT(state.registrations == (std::vector<Registration>{{2, "b"}, {3, "c"}}));
  EXPECT(state.type == Type::kWriteExclusiveAllRegistrants);
  // 0 means all the others, and a new reservation.
  const Transition taken = Go(&state, "b", Out(Action::kPreempt, 2, 0, Type::kExclusiveAccess));
  EXPECT(state.registrations == (std::vector<Registration>{{2, "b"}}));
  EXPECT(state.type == Type::kExclusiveAccess && RelationOf(state, "b") == Relation::kHolder);
  EXPECT_EQ(Told(taken), "c:2a05");
}

TEST(scsi_reservations, a_preemption_to_no_type_is_refused) {
  Reservations state = Registered({{"a", 1}, {"b", 2}});
  Go(&state, "a", Out(Action::kReserve, 1, 0, Type::kWriteExclusive));
  for (const uint8_t type : {0, 2, 4, 9, 15}) {
    const Transition refused = Apply(state, "b", {Action::kPreempt, 0, type, 2, 1});
    EXPECT(refused.refused && refused.refused->code == SenseCode::kInvalidFieldInCdb);
  }
}

// --- the state as bytes --------------------------------------------------------------------------

Bytes Encoded(const Reservations& state) {
  Bytes bytes(kTargetStateBytes, std::byte{0xff});
  EncodeState(state, bytes);
  return bytes;
}

TEST(scsi_reservation_state, comes_back_as_it_was) {
  const Result<Reservations> fresh = DecodeState(Bytes(kTargetStateBytes));
  ASSERT_OK(fresh);
  EXPECT(fresh.value() == Reservations{});
  Reservations full;
  for (size_t i = 0; i < kRegistrationsMax; ++i) {
    const std::string port = std::to_string(i) + std::string(kPortNameBytesMax - 2, 'x');
    full.registrations.push_back({~i, port.substr(0, kPortNameBytesMax)});
  }
  full.type = Type::kExclusiveAccess;
  full.holder = 63;
  Reservations all = Registered({{"a", 1}});
  all.type = Type::kWriteExclusiveAllRegistrants;
  all.generation = 0;
  for (const Reservations& state : {Reservations{}, full, all}) {
    const Result<Reservations> decoded = DecodeState(Encoded(state));
    ASSERT_OK(decoded);
    EXPECT(decoded.value() == state);
  }
}

TEST(scsi_reservation_state, a_changed_bit_is_seen) {
  Reservations state = Registered({{"iqn.a,i,0x1", 1}, {"iqn.b,i,0x2", 2}});
  Go(&state, "iqn.a,i,0x1", Out(Action::kReserve, 1, 0, Type::kWriteExclusive));
  const Bytes good = Encoded(state);
  const uint32_t used = LoadLittle<uint32_t>(&good[16]);
  for (size_t bit = 0; bit < used * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= std::byte(1u << (bit % 8));
    EXPECT(!DecodeState(bad).ok());
  }
}

// A good checksum makes nobody believe what cannot be.
TEST(scsi_reservation_state, what_contradicts_itself_is_refused) {
  Reservations state = Registered({{"a", 1}, {"b", 2}});
  Go(&state, "a", Out(Action::kReserve, 1, 0, Type::kWriteExclusive));
  const Bytes good = Encoded(state);
  const auto refused = [&](size_t at, int value) {
    Bytes bad = good;
    bad[at] = std::byte(value);
    const uint32_t used = LoadLittle<uint32_t>(&bad[16]);
    if (used >= 16 && used <= bad.size()) StoreLittle(&bad[12], Crc32c(&bad[16], used - 16));
    return !DecodeState(bad).ok();
  };
  EXPECT(!refused(20, 1));  // the other one holds it: that could be
  EXPECT(refused(20, 2));   // nobody there
  EXPECT(refused(16, 20));  // shorter than its header
  EXPECT(refused(16, 60));
  EXPECT(refused(24, 1));
  EXPECT(refused(24, 3));
  EXPECT(refused(25, 0xff));
  EXPECT(refused(26, 2));    // no such type
  EXPECT(refused(26, 0));    // a holder of nothing
  EXPECT(refused(26, 7));    // a holder where all hold it
  EXPECT(refused(32, 0));    // key 0
  EXPECT(refused(40, 0));    // an empty name
  EXPECT(refused(40, 200));  // a name that ends elsewhere
  EXPECT(refused(42, 'b'));  // twice the same name
  EXPECT(refused(8, 2));     // another version
}

}  // namespace
}  // namespace ankole::scsi
