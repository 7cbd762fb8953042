#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string>

#include "search.h"

// Explores the rules as they are, and again without each of their clauses.
//
//   model                  all of it: no finding with all clauses, one without any of them
//   model --list           the clauses
//   model --without NAME   the shortest way to what happens without that clause
namespace model {
namespace {

// A search that passes this is too large for the time that CI has.
constexpr uint64_t kStatesMax = 20'000'000;

// The columns are those of Scope.
constexpr Scope kConnections = {"connections", 1, 2, 2, 2, 0, 0};
constexpr Scope kTakeover = {"takeover", 2, 2, 1, 1, 0, 0};
constexpr Scope kThree = {"three-attachments", 3, 1, 1, 1, 0, 0};
constexpr Scope kThreeLong = {"three-attachments-long", 3, 2, 0, 1, 0, 0};
constexpr Scope kRestart = {"restart", 2, 1, 1, 1, 1, 0};
constexpr Scope kRestored = {"restored-store", 3, 1, 0, 1, 0, 1};
constexpr Scope kRestoredJoin = {"restored-store-with-joiner", 2, 2, 1, 1, 0, 1};

// With all clauses: more states than these, or the model has become smaller than it was.
struct Whole {
  Scope scope;
  uint64_t states_min;
};
constexpr Whole kWhole[] = {
    {kConnections, 10'000}, {kTakeover, 1'000'000}, {kThree, 10'000'000},
    {kRestart, 1'000'000},  {kRestored, 3'000'000}, {kRestoredJoin, 3'000'000},
};

struct Mutant {
  Clause clause;
  const char* name;
  const char* without;  // what is done instead
  Scope scope;          // where that is found
};
constexpr Mutant kMutants[] = {
    {Clause::kAllMembersAnswer, "all-members-answer",
     "rule 1: a write is acknowledged when a majority of the members has it", kTakeover},
    {Clause::kStrictMajority, "strict-majority",
     "rule 2: half of the last complete members is enough to complete a record", kTakeover},
    {Clause::kEveryProposalCounts, "every-proposal-counts",
     "rule 2: a majority of the last complete members is enough, whatever was proposed since",
     kTakeover},
    {Clause::kNeverTakenBack, "never-taken-back",
     "rule 2: a proposal that does not get complete is forgotten, and I/O goes on as before",
     kTakeover},
    {Clause::kHeldWhileProposed, "held-while-proposed",
     "rule 2: what the proposed members have is acknowledged before the record is complete",
     kTakeover},
    {Clause::kStoreAfterMembers, "store-after-members",
     "rule 2: the store records a proposal before its members do", kTakeover},
    {Clause::kSharesLast, "shares-last",
     "rule 2: a set need not share a member with the last complete one", kRestoredJoin},
    {Clause::kJoinerEqual, "joiner-equal", "rule 7: a joiner is proposed before it is equal",
     kTakeover},
    {Clause::kWritesWaitForJoiner, "writes-wait-for-joiner",
     "rule 7: a write in flight when a joiner is proposed is not sent to it", kTakeover},
    {Clause::kFence, "fence", "rule 3: a replica that welcomed an epoch goes on serving older ones",
     kTakeover},
    {Clause::kDrain, "drain",
     "rule 3: «welcome» does not wait for what older connections have begun", kTakeover},
    {Clause::kSameEpochClosed, "same-epoch-closed",
     "rule 3: «welcome» does not wait for older connections of the same epoch", kConnections},
    {Clause::kAttachInOneStep, "attach-in-one-step",
     "rule 3: the store's record is read before the attachment is given", kTakeover},
    {Clause::kStoreFences, "store-fences", "rule 3: the store takes records of lower attachments",
     kTakeover},
    {Clause::kStoreRefusesOlder, "store-refuses-older",
     "rule 3: the store takes records that are older than its own", kTakeover},
    {Clause::kAsksStore, "asks-store",
     "rule 6: a start goes by the replicas alone («majority-alone start»)", kTakeover},
    {Clause::kAsksReplicas, "asks-replicas",
     "rule 6: a start goes by the store's record alone («store-alone start»)", kTakeover},
    {Clause::kHalf, "half", "rule 6: one member of the newest record that was heard is enough",
     kTakeover},
    {Clause::kCountedAreFenced, "counted-are-fenced",
     "rule 6: members that were heard count for the half without being fenced", kTakeover},
    {Clause::kCheckedAgain, "checked-again",
     "rule 6: what was heard before the fence is not checked after it", kTakeover},
    {Clause::kEpochFirst, "epoch-first", "rule 4: records are ordered by generation alone",
     kThreeLong},
    {Clause::kFirstRecordInStore, "first-record-in-store",
     "rule 6: the first record of a start is complete by a majority", kThree},
    {Clause::kToldBefore, "told-before",
     "rule 6: the supervisor is told of a record when it is complete, not before it is proposed",
     kRestart},
    {Clause::kKeptOnAll, "kept-on-all",
     "rule 6: a restart goes on with members that a later proposal had dropped", kRestart},
    {Clause::kRestoredHearsAll, "restored-hears-all",
     "rule 6: with a restored store half of the members is enough", kRestored},
    {Clause::kRestoredHearsLast, "restored-hears-last",
     "rule 6: with a restored store the members of the newest record are enough, not those of the "
     "complete one that it names",
     kRestored},
    {Clause::kStoreId, "store-id",
     "rule 3: a restored store takes records of engines that were attached before", kRestored},
};

int Explore(const Whole& whole) {
  const Outcome outcome = Search(Rules(), whole.scope, kStatesMax);
  const bool good = outcome.finding == nullptr && outcome.states <= kStatesMax &&
                    outcome.states >= whole.states_min;
  for (const std::string& line : outcome.trace) std::printf("  %s\n", line.c_str());
  if (outcome.finding != nullptr) std::printf("  %s\n", outcome.finding);
  if (outcome.states > kStatesMax) std::printf("  more than %" PRIu64 " states\n", kStatesMax);
  if (outcome.states < whole.states_min) {
    std::printf("  at least %" PRIu64 " states were expected\n", whole.states_min);
  }
  std::printf("%s %s: %" PRIu64 " states, up to %d steps\n", good ? "ok" : "not ok",
              whole.scope.name, outcome.states, outcome.depth);
  std::fflush(stdout);
  return good ? 0 : 1;
}

int Mutate(const Mutant& mutant, bool show) {
  Scope scope = mutant.scope;
  scope.dead_ends = mutant.clause == Clause::kStoreAfterMembers;
  const Outcome outcome = Search(Rules().Without(mutant.clause), scope, kStatesMax);
  const bool good = outcome.finding != nullptr;
  if (show) {
    std::printf("Without %s (%s):\n\n", mutant.name, mutant.without);
    for (size_t i = 0; i < outcome.trace.size(); ++i) {
      std::printf("  %2zu  %s\n", i, outcome.trace[i].c_str());
    }
    std::printf("\n%s\n", good ? outcome.finding : "nothing was found");
  } else {
    std::printf("%s without-%s: %s, %zu steps, %" PRIu64 " states\n", good ? "ok" : "not ok",
                mutant.name, good ? outcome.finding : "nothing was found",
                good ? outcome.trace.size() - 1 : 0, outcome.states);
    std::fflush(stdout);
  }
  return good ? 0 : 1;
}

int Main(int count, char** arguments) {
  const std::string command = count > 1 ? arguments[1] : "";
  if (command == "--list") {
    for (const Mutant& mutant : kMutants) std::printf("%-24s %s\n", mutant.name, mutant.without);
    return 0;
  }
  if (command == "--without" && count == 3) {
    for (const Mutant& mutant : kMutants) {
      if (std::strcmp(mutant.name, arguments[2]) == 0) return Mutate(mutant, true);
    }
    std::fprintf(stderr, "model: no clause is named %s; --list shows them\n", arguments[2]);
    return 2;
  }
  if (count > 1) {
    std::fprintf(stderr, "usage: model [--list | --without NAME]\n");
    return 2;
  }
  int failed = 0;
  int passed = 0;
  for (const Whole& whole : kWhole) (Explore(whole) == 0 ? passed : failed) += 1;
  for (const Mutant& mutant : kMutants) (Mutate(mutant, false) == 0 ? passed : failed) += 1;
  std::printf("model: %d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace model

int main(int count, char** arguments) { return model::Main(count, arguments); }
