#include "engine/membership.h"

#include "base/test.h"

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

TEST(membership, ANewVolumeStartsOnAllItsReplicasOrNotAtAll) {
  const wire::Record none;
  EXPECT(DecideStart(none, {Holds(1, none), Holds(2, none)}).may_start);
  const StartDecision decision = DecideStart(none, {Holds(1, none), Silent(2)});
  EXPECT(!decision.may_start);
  EXPECT(decision.lacking.find("connection refused") != std::string::npos);
  EXPECT(!DecideStart(none, {}).may_start);
}

TEST(membership, StartsOnThoseThatHoldTheNewestRecord) {
  const wire::Record store = ARecord(4, {1, 2, 3});
  const wire::Record newer = ARecord(5, {1, 2});
  const StartDecision decision =
      DecideStart(store, {Holds(1, newer), Holds(2, newer), Holds(3, store)});
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
      DecideStart(store, {Holds(1, proposal), Holds(2, store), Holds(3, store)});
  EXPECT(decision.may_start && !decision.complete);
  EXPECT_EQ(static_cast<int>(decision.members.count), 1);
  EXPECT(decision.members.Contains(1));
}

TEST(membership, RefusesWithLessThanHalfOfTheMembersAndNamesWhatIsLacking) {
  const wire::Record record = ARecord(4, {1, 2, 3});
  const StartDecision one = DecideStart(record, {Holds(1, record), Silent(2), Silent(3)});
  EXPECT(!one.may_start);
  EXPECT(one.lacking.find("replica 0000000000000002 does not answer") != std::string::npos);
  EXPECT(one.lacking.find("at least half") != std::string::npos);
  EXPECT(DecideStart(record, {Holds(1, record), Holds(2, record), Silent(3)}).may_start);
  // Half is enough: the store cannot have moved on without one of them.
  const wire::Record two = ARecord(4, {1, 2});
  EXPECT(DecideStart(two, {Holds(1, two), Silent(2)}).may_start);
}

TEST(membership, TheStoresRecordCountsAsHeard) {
  const wire::Record store = ARecord(6, {3});
  const wire::Record older = ARecord(5, {1, 2, 3});
  const StartDecision decision = DecideStart(store, {Holds(1, older), Holds(2, older), Silent(3)});
  EXPECT(!decision.may_start);
}

TEST(membership, SuspectReplicasAreTakenOnlyWhereNoIntactOneIsLeftAndAllWereHeard) {
  const wire::Record record = ARecord(4, {1, 2});
  Heard suspect = Holds(1, record);
  suspect.state.suspect = suspect.state.unclean = true;
  Heard other = suspect;
  other.replica = 2;
  const StartDecision beside_intact = DecideStart(record, {suspect, Holds(2, record)});
  EXPECT(beside_intact.may_start && !beside_intact.members.Contains(1));
  const StartDecision both = DecideStart(record, {suspect, other});
  EXPECT(both.may_start && both.unclean);
  EXPECT_EQ(static_cast<int>(both.members.count), 2);
  EXPECT(!DecideStart(record, {suspect, Silent(2)}).may_start);
}

TEST(membership, OneUncleanMemberMakesTheStartUnclean) {
  const wire::Record record = ARecord(4, {1, 2});
  Heard unclean = Holds(1, record);
  unclean.state.unclean = true;
  EXPECT(DecideStart(record, {unclean, Holds(2, record)}).unclean);
  EXPECT(!DecideStart(record, {Holds(1, record), Holds(2, record)}).unclean);
}

}  // namespace
}  // namespace ankole::engine
