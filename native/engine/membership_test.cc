#include "engine/membership.h"

#include <bit>

#include "base/test.h"
#include "engine/ballot.h"

namespace ankole::engine {
namespace {

wire::Record ARecord(uint64_t generation, std::initializer_list<wire::ReplicaId> members) {
  wire::Record record;
  record.epoch = {1, 1};
  record.generation = generation;
  for (const wire::ReplicaId id : members) record.members.Add(id);
  return record;
}

Heard Holds(wire::ReplicaId id, const wire::Record& record) {
  Heard heard;
  heard.replica = id;
  heard.answered = true;
  heard.state.records.current = record;
  return heard;
}

Heard Silent(wire::ReplicaId id) {
  Heard heard;
  heard.replica = id;
  heard.why_not = "connection refused";
  return heard;
}

StartBasis Of(const wire::Record& record) {
  StartBasis basis;
  basis.record = record;
  basis.attachment = 1;
  return basis;
}

TEST(membership, ANewVolumeStartsOnAllItsReplicasOrNotAtAll) {
  const wire::Record none;
  EXPECT(DecideStart(Of(none), {Holds(1, none), Holds(2, none)}).may_start);
  const StartDecision decision = DecideStart(Of(none), {Holds(1, none), Silent(2)});
  EXPECT(!decision.may_start);
  EXPECT(decision.lacking.find("connection refused") != std::string::npos);
  EXPECT(!DecideStart(Of(none), {}).may_start);
}

TEST(membership, StartsOnThoseThatHoldTheNewestRecord) {
  const wire::Record store = ARecord(4, {1, 2, 3});
  const wire::Record newer = ARecord(5, {1, 2});
  const StartDecision decision =
      DecideStart(Of(store), {Holds(1, newer), Holds(2, newer), Holds(3, store)});
  EXPECT(decision.may_start && decision.complete);
  EXPECT_EQ(static_cast<int>(decision.members.count), 2);
  EXPECT(!decision.members.Contains(3));
  EXPECT_EQ(decision.newest.generation, 5U);
}

TEST(membership, AnOlderReplicaIsNotTakenThoughTheStoreKnowsItAsMember) {
  // Proposed on 1 and never completed: the proposal stands, 2 and 3 hold what it replaces.
  const wire::Record store = ARecord(4, {1, 2, 3});
  const wire::Record proposal = ARecord(5, {1, 2});
  const StartDecision decision =
      DecideStart(Of(store), {Holds(1, proposal), Holds(2, store), Holds(3, store)});
  EXPECT(decision.may_start && decision.complete);
  EXPECT_EQ(static_cast<int>(decision.members.count), 1);
  EXPECT(decision.members.Contains(1));
}

// Whoever answered says the same again when it is asked again: only silence is waited for.
TEST(membership, AStartWaitsForThoseThatDoNotAnswerAndForNobodyElse) {
  const wire::Record older = ARecord(4, {1, 2, 3});
  const wire::Record newest = ARecord(5, {1, 2, 3});
  Heard suspect = Holds(2, newest);
  suspect.state.suspect = suspect.state.lost = true;
  for (const Heard& other : {Holds(2, newest), suspect, Holds(2, older), Holds(2, {})}) {
    const StartDecision heard =
        DecideStart(Of(newest), {Holds(1, newest), other, Holds(3, newest)});
    EXPECT(heard.may_start && heard.complete);
    const StartDecision silent = DecideStart(Of(newest), {Holds(1, newest), other, Silent(3)});
    EXPECT(!silent.complete);
  }
  // One that is in no complete record, as far as is known, does not start alone (simulator, seed
  // 1203178): the next start could follow on nobody.
  const wire::Record joined = ARecord(6, {1, 2});
  Heard joiner = Holds(1, joined);
  joiner.state.records.complete = ARecord(4, {2});
  suspect.state.records = {joined, ARecord(4, {2})};
  const StartDecision alone = DecideStart(Of(ARecord(4, {2})), {joiner, suspect});
  EXPECT(alone.may_start && alone.complete && alone.members.count == 2);
  EXPECT(alone.leaving.count == 1 && alone.leaving.Contains(2));
  // One that is no member any more may stay away.
  const wire::Record two = ARecord(6, {1, 2});
  EXPECT(DecideStart(Of(two), {Holds(1, two), Holds(2, two), Silent(3)}).complete);
}

TEST(membership, RefusesWithLessThanHalfOfTheMembersAndNamesWhatIsLacking) {
  const wire::Record record = ARecord(4, {1, 2, 3});
  const StartDecision one = DecideStart(Of(record), {Holds(1, record), Silent(2), Silent(3)});
  EXPECT(!one.may_start);
  EXPECT(one.lacking.find("replica 0000000000000002 does not answer") != std::string::npos);
  EXPECT(one.lacking.find("at least half") != std::string::npos);
  EXPECT(DecideStart(Of(record), {Holds(1, record), Holds(2, record), Silent(3)}).may_start);
  // Half is enough: the store cannot have moved on without one of them.
  const wire::Record two = ARecord(4, {1, 2});
  EXPECT(DecideStart(Of(two), {Holds(1, two), Silent(2)}).may_start);
}

TEST(membership, TheStoresRecordCountsAsHeard) {
  const wire::Record store = ARecord(6, {3});
  const wire::Record older = ARecord(5, {1, 2, 3});
  const StartDecision decision =
      DecideStart(Of(store), {Holds(1, older), Holds(2, older), Silent(3)});
  EXPECT(!decision.may_start);
}

TEST(membership, SuspectReplicasAreTakenOnlyWhereNoIntactOneIsLeftAndAllWereHeard) {
  const wire::Record record = ARecord(4, {1, 2});
  Heard suspect = Holds(1, record);
  suspect.state.suspect = suspect.state.lost = suspect.state.unclean = true;
  Heard other = suspect;
  other.replica = 2;
  const StartDecision beside_intact = DecideStart(Of(record), {suspect, Holds(2, record)});
  EXPECT(beside_intact.may_start && !beside_intact.members.Contains(1));
  const StartDecision both = DecideStart(Of(record), {suspect, other});
  EXPECT(both.may_start && both.unclean);
  EXPECT_EQ(static_cast<int>(both.members.count), 2);
  EXPECT(!DecideStart(Of(record), {suspect, Silent(2)}).may_start);
}

// A start on suspect replicas alone takes them as they are; what one of them loses after that it
// lost while the others did not.
TEST(membership, OfSuspectReplicasThoseThatLostNothingSinceTheirRecordAreTaken) {
  const wire::Record record = ARecord(4, {1, 2, 3});
  Heard kept = Holds(1, record);
  kept.state.suspect = kept.state.unclean = true;
  Heard lost = kept;
  lost.replica = 2;
  lost.state.lost = true;
  const StartDecision beside = DecideStart(Of(record), {kept, lost, Silent(3)});
  EXPECT(beside.may_start && beside.unclean);
  EXPECT(beside.members.count == 1 && beside.members.Contains(1));
  // It is as good as an intact one, which counts beside it.
  const StartDecision with_intact = DecideStart(Of(record), {kept, lost, Holds(3, record)});
  EXPECT(with_intact.members.count == 2 && !with_intact.members.Contains(2));
}

TEST(membership, OneUncleanMemberMakesTheStartUnclean) {
  const wire::Record record = ARecord(4, {1, 2});
  Heard unclean = Holds(1, record);
  unclean.state.unclean = true;
  EXPECT(DecideStart(Of(record), {unclean, Holds(2, record)}).unclean);
  EXPECT(!DecideStart(Of(record), {Holds(1, record), Holds(2, record)}).unclean);
}

TEST(membership, AReplicaWhoseFilesWereMadeAnewIsNotHeardAsAMember) {
  // 1 and 2 went on without 3, and the store has not heard of it; then the disk of 1 was replaced.
  const wire::Record record = ARecord(4, {1, 2, 3});
  const StartDecision decision =
      DecideStart(Of(record), {Holds(1, {}), Silent(2), Holds(3, record)});
  EXPECT(!decision.may_start);
  EXPECT(decision.lacking.find("replica 0000000000000001 holds nothing") != std::string::npos);
}

TEST(membership, WhatAFirstStartLeftBehindDoesNotCount) {
  // Written by 1 alone when the engine ended: nothing was ever acknowledged.
  const wire::Record first = ARecord(1, {1, 2, 3});
  const StartDecision all = DecideStart(Of({}), {Holds(1, first), Holds(2, {}), Holds(3, {})});
  EXPECT(all.may_start && all.complete);
  EXPECT_EQ(static_cast<int>(all.members.count), 3);
  EXPECT_EQ(all.newest.generation, 1U);
  EXPECT(!DecideStart(Of({}), {Holds(1, first), Silent(2), Holds(3, {})}).may_start);
  // A restored store may just not know.
  StartBasis restored = Of({});
  restored.store_restored = true;
  EXPECT(!DecideStart(restored, {Holds(1, first), Holds(2, {}), Holds(3, {})}).may_start);
}

TEST(membership, ARestoredStoreNeedsAllMembersOfTheNewestRecord) {
  const wire::Record record = ARecord(4, {1, 2, 3});
  StartBasis basis = Of(record);
  basis.store_restored = true;
  const StartDecision two = DecideStart(basis, {Holds(1, record), Holds(2, record), Silent(3)});
  EXPECT(!two.may_start);
  EXPECT(two.lacking.find("the store was restored") != std::string::npos);
  EXPECT(DecideStart(basis, {Holds(1, record), Holds(2, record), Holds(3, record)}).may_start);
  // Of the newest record, not of the one that the store knows.
  const wire::Record newer = ARecord(5, {1, 2});
  EXPECT(!DecideStart(basis, {Holds(1, newer), Holds(2, newer), Silent(3)}).may_start);
  Heard told = Holds(1, newer);
  told.state.records.complete = newer;
  EXPECT(DecideStart(basis, {told, Holds(2, newer), Silent(3)}).may_start);
}

TEST(membership, SuspectReplicasWillDoWhereTheClientsStartAnewAsWell) {
  const wire::Record record = ARecord(4, {1, 2});
  Heard suspect = Holds(1, record);
  suspect.state.suspect = suspect.state.lost = true;
  StartBasis basis = Of(record);
  basis.clients_anew = true;
  basis.attachment = 2;
  EXPECT(DecideStart(basis, {suspect, Silent(2)}).may_start);
  // Its own earlier run has served since: that one's clients have not started anew.
  basis.attachment = 1;
  EXPECT(!DecideStart(basis, {suspect, Silent(2)}).may_start);
}

TEST(membership, SalvageStartsOnTheNewestOfTheChosen) {
  wire::Record chosen = ARecord(9, {2, 3});
  chosen.epoch = {7, 0};
  const wire::Record older = ARecord(4, {1, 2, 3});
  const wire::Record newer = ARecord(5, {1, 3});
  Heard suspect = Holds(3, newer);
  suspect.state.suspect = suspect.state.lost = true;
  StartBasis basis = Of(chosen);
  basis.attachment = 7;
  const StartDecision decision = DecideStart(basis, {Silent(1), Holds(2, older), suspect});
  EXPECT(decision.may_start && decision.unclean);
  EXPECT(decision.members.count == 1 && decision.members.Contains(3));
  EXPECT(decision.newest == chosen);
  // All that were chosen are needed.
  EXPECT(!DecideStart(basis, {Holds(1, newer), Silent(2), suspect}).may_start);
  // Once a run of it has written its own record the rules hold again.
  wire::Record first = ARecord(10, {3});
  first.epoch = {7, 1};
  const StartDecision next = DecideStart(basis, {Silent(1), Holds(2, older), Holds(3, first)});
  EXPECT(next.may_start && next.newest == first);
}

TEST(membership, TheLastCompleteRecordIsKnownFromThoseThatFollowIt) {
  const wire::Record complete = ARecord(4, {1, 2, 3});
  const wire::Record proposal = ARecord(5, {1, 2});
  Heard one = Holds(1, proposal);
  one.state.records.complete = complete;
  Heard two = Holds(2, complete);
  // 2 does not hold it, so it was never complete.
  EXPECT(DecideStart(Of(complete), {one, two, Silent(3)}).last_complete == complete);
  two = one;
  two.replica = 2;
  two.state.records.complete = proposal;
  EXPECT(DecideStart(Of(complete), {one, two, Silent(3)}).last_complete == proposal);
}

Heard Follows(wire::ReplicaId id, const wire::Record& record, const wire::Record& complete) {
  Heard heard = Holds(id, record);
  heard.state.records.complete = complete;
  return heard;
}

// Its engine ended before it told anybody that the record counts.
TEST(membership, WhatAllItsMembersHoldAndAMajorityOfThoseBeforeIsComplete) {
  const wire::Record complete = ARecord(4, {1, 2, 3});
  const wire::Record proposal = ARecord(5, {1, 2});
  const auto last = [&](const wire::Record& before, const std::vector<Heard>& heard,
                        bool restored) {
    StartBasis basis = Of(before);
    basis.store_restored = restored;
    return DecideStart(basis, heard).last_complete;
  };
  const Heard one = Follows(1, proposal, complete);
  const Heard two = Follows(2, proposal, complete);
  EXPECT(last(complete, {one, two, Silent(3)}, false) == proposal);
  EXPECT(last(complete, {one, two, Silent(3)}, true) == complete);
  EXPECT(last(complete, {one, Silent(2), Silent(3)}, false) == complete);
  EXPECT(last(complete, {one, Follows(2, complete, complete), Silent(3)}, false) == complete);
  // No majority: the store must record it.
  const wire::Record alone = ARecord(5, {1});
  EXPECT(last(complete, {Follows(1, alone, complete), Silent(2)}, false) == complete);
  const wire::Record half = ARecord(4, {1, 2});
  EXPECT(last(half, {Follows(1, alone, half), Silent(2)}, false) == half);
  // Something was proposed in between, or the first record of a run, which the store must have.
  const wire::Record later = ARecord(6, {1, 2});
  EXPECT(last(complete, {Follows(1, later, complete), Follows(2, later, complete)}, false) ==
         complete);
  wire::Record first = proposal;
  first.epoch.run = 2;
  EXPECT(last(complete, {Follows(1, first, complete), Follows(2, first, complete)}, false) ==
         complete);
  // It was proposed while the one before was not complete yet, for all that its engine knew.
  const wire::Record before = ARecord(3, {1, 2, 3});
  EXPECT(last(complete, {Follows(1, proposal, before), Follows(2, proposal, before)}, false) ==
         complete);
}

// The store never heard that 1 joined; then 2 lost power, and the start that left it behind ended
// before the store knew its record.
TEST(membership, AStartOnAJoinerAloneCanBeFollowed) {
  const wire::Record complete = ARecord(4, {2});
  const wire::Record joined = ARecord(5, {1, 2});
  Heard suspect = Follows(2, joined, complete);
  suspect.state.suspect = suspect.state.lost = true;
  const StartDecision start = DecideStart(Of(complete), {Follows(1, joined, complete), suspect});
  EXPECT(start.may_start && start.complete && start.members.count == 1);
  EXPECT(start.last_complete == joined);
  wire::Record first = ARecord(6, {1});
  first.epoch.run = 2;
  const StartDecision next =
      DecideStart(Of(complete), {Follows(1, first, start.last_complete), suspect});
  EXPECT(next.may_start && next.members.Contains(1));
}

TEST(membership, ARestoredStoreNeedsTheMembersOfTheCompleteRecordAsWell) {
  // 1 proposed to go on alone; the store gave the volume to another that went on with 2, and was
  // then restored.
  const wire::Record complete = ARecord(4, {1, 2});
  Heard one = Holds(1, ARecord(5, {1}));
  one.state.records.complete = complete;
  StartBasis basis = Of(complete);
  basis.store_restored = true;
  const StartDecision decision = DecideStart(basis, {one, Silent(2)});
  EXPECT(!decision.may_start);
  EXPECT(decision.lacking.find("replica 0000000000000002 of the record before") !=
         std::string::npos);
  EXPECT(DecideStart(basis, {one, Holds(2, complete)}).may_start);
}

TEST(membership, EverySetSharesAMemberWithTheCompleteOneBeforeIt) {
  // 2 was to join 1, and only 2 has written that.
  const wire::Record complete = ARecord(4, {1});
  Heard two = Holds(2, ARecord(5, {1, 2}));
  two.state.records.complete = complete;
  EXPECT(!DecideStart(Of(complete), {Silent(1), two}).may_start);
  const StartDecision both = DecideStart(Of(complete), {Holds(1, complete), two});
  EXPECT(both.may_start && both.unclean);
  EXPECT_EQ(static_cast<int>(both.members.count), 2);
  // A suspect one that has written it is not started on, and still binds what follows.
  Heard suspect = two;
  suspect.replica = 1;
  suspect.state.suspect = suspect.state.lost = true;
  const StartDecision beside = DecideStart(Of(complete), {suspect, two});
  EXPECT(beside.may_start && beside.members.count == 1 && beside.members.Contains(2));
  // One that has not written it is started on as well, if only to write the next one and to leave.
  Heard without = Holds(1, complete);
  without.state.suspect = without.state.lost = true;
  const StartDecision again = DecideStart(Of(complete), {without, two});
  EXPECT(again.may_start && again.members.count == 2);
  EXPECT(again.leaving.count == 1 && again.leaving.Contains(1));
  EXPECT(beside.leaving.count == 0 && both.leaving.count == 0);
  // Where all have lost something, 1 is as good as 2.
  Heard older = Holds(1, complete);
  Heard newer = two;
  older.state.suspect = older.state.lost = newer.state.suspect = newer.state.lost = true;
  const StartDecision lost = DecideStart(Of(complete), {older, newer});
  EXPECT(lost.may_start && lost.members.count == 2 && lost.leaving.count == 0);
  // Known to be complete, 2 is enough.
  EXPECT(DecideStart(Of(ARecord(5, {1, 2})), {Silent(1), two}).may_start);
}

// What each of up to four replicas may say, in all combinations, against the sentences of rule 6.
TEST(membership, EveryStartKeepsTheRules) {
  enum Says { kSilent, kNothing, kOlder, kNewest, kSuspect };
  const wire::Record older = ARecord(4, {1, 2, 3, 4});
  size_t starts = 0;
  for (uint32_t in = 1; in < 16; ++in) {
    wire::Record newest = ARecord(5, {});
    for (uint32_t i = 0; i < 4; ++i) {
      if ((in & (1U << i)) != 0) newest.members.Add(i + 1);
    }
    for (uint32_t n = 0; n < 5 * 5 * 5 * 5 * 4; ++n) {
      std::vector<Heard> heard;
      uint32_t rest = n / 4;
      wire::Members answered;
      wire::Members holders;
      wire::Members intact;
      wire::Members with_record;
      for (wire::ReplicaId id = 1; id <= 4; ++id, rest /= 5) {
        const auto says = static_cast<Says>(rest % 5);
        Heard one = says == kSilent ? Silent(id)
                                    : Holds(id, says == kNothing ? wire::Record{}
                                                : says == kOlder ? older
                                                                 : newest);
        one.state.suspect = one.state.lost = says == kSuspect;
        heard.push_back(one);
        if (!newest.members.Contains(id)) continue;
        if (says != kSilent) answered.Add(id);
        if (says >= kOlder) with_record.Add(id);
        if (says >= kNewest) holders.Add(id);
        if (says == kNewest) intact.Add(id);
      }
      StartBasis basis = Of(newest);
      basis.attachment = 2;
      basis.store_restored = (n & 1) != 0;
      basis.clients_anew = (n & 2) != 0;
      const StartDecision decision = DecideStart(basis, heard);
      const bool all = with_record == newest.members;
      const bool enough = basis.store_restored ? all
                                               : with_record.count > 0 &&
                                                     2 * with_record.count >= newest.members.count;
      const bool suspects = intact.count == 0 && (all || basis.clients_anew);
      const wire::Members& on = suspects ? holders : intact;
      EXPECT_EQ(decision.may_start, enough && on.count > 0);
      if (decision.may_start) EXPECT(decision.members == on);
      EXPECT_EQ(decision.complete, answered == newest.members && on.count > 0);
      if (!decision.complete) EXPECT(!decision.lacking.empty());
      starts += decision.may_start ? 1 : 0;
    }
  }
  EXPECT(starts > 1000);
}

wire::Members SetOf(uint32_t bits) {
  wire::Members members;
  for (uint32_t i = 0; i < 5; ++i) {
    if ((bits & (1U << i)) != 0) members.Add(i + 1);
  }
  return members;
}

// Whoever starts from one of the sets, with half of it, meets a record that was complete without
// the store; and two such records meet.
TEST(ballot, WhatIsCompleteWithoutTheStoreIsMetByEveryStart) {
  for (uint32_t set = 1; set < 32; ++set) {
    Ballot ballot;
    ballot.Begin(SetOf(set), {});
    for (uint32_t record = 1; record < 32; ++record) {
      const auto common = static_cast<uint32_t>(std::popcount(set & record));
      const auto size = static_cast<uint32_t>(std::popcount(set));
      EXPECT_EQ(ballot.Carries(SetOf(record)), 2 * common > size);
      if (!ballot.Carries(SetOf(record))) continue;
      for (uint32_t heard = 1; heard < 32; ++heard) {
        const auto half = static_cast<uint32_t>(std::popcount(set & heard));
        if (2 * half >= size) EXPECT((heard & record) != 0);
      }
    }
  }
}

TEST(ballot, CountsOverEveryProposalSinceTheLastCompleteOne) {
  Ballot ballot;
  ballot.Begin(SetOf(0b00111), {SetOf(0b00001)});
  EXPECT(!ballot.Carries(SetOf(0b00110)));  // a majority of the complete one, not of the proposal
  EXPECT(ballot.Carries(SetOf(0b00011)));
  ballot.Propose(SetOf(0b00011));
  EXPECT(!ballot.Carries(SetOf(0b00101)));
  ballot.Complete(SetOf(0b00011));
  EXPECT(!ballot.Carries(SetOf(0b00101)));
  EXPECT(ballot.Carries(SetOf(0b10011)));
  EXPECT(!ballot.single());
  ballot.Complete(SetOf(0b00001));
  EXPECT(ballot.single());
}

TEST(ballot, AMajorityIsHeardFromWhenItsLastOneIs) {
  Ballot ballot;
  const std::array<uint64_t, 6> times = {0, 50, 40, 30, 20, 10};
  const auto at = [&](wire::ReplicaId id) { return times[id]; };
  ballot.Begin(SetOf(0b00111), {});
  EXPECT_EQ(ballot.ReachedBy(at), 40U);
  ballot.Begin(SetOf(0b00011), {});
  EXPECT_EQ(ballot.ReachedBy(at), 40U);
  ballot.Begin(SetOf(0b11111), {SetOf(0b11000)});
  EXPECT_EQ(ballot.ReachedBy(at), 10U);
  ballot.Begin(SetOf(0b10001), {SetOf(0b11111)});
  EXPECT_EQ(ballot.ReachedBy(at), 10U);
}

}  // namespace
}  // namespace ankole::engine
