#pragma once

#include <cstdint>

// The clauses of rules 2, 3 and 6 (and what they need of 1 and 4), each of which can be switched
// off. `main.cc` holds what each says and what is expected without it.
namespace model {

enum class Clause : uint8_t {
  // Rule 1 and the end of rule 4: what may be acknowledged.
  kAllMembersAnswer,
  // Rule 2.
  kStrictMajority,
  kEveryProposalCounts,
  kNeverTakenBack,
  kHeldWhileProposed,
  kStoreAfterMembers,
  kSharesLast,
  kJoinerEqual,
  kWritesWaitForJoiner,
  // Rule 3.
  kFence,
  kDrain,
  kSameEpochClosed,
  kAttachInOneStep,
  kStoreFences,
  kStoreRefusesOlder,
  // Rule 6.
  kAsksStore,
  kAsksReplicas,
  kHalf,
  kCountedAreFenced,
  kCheckedAgain,
  kEpochFirst,
  kFirstRecordInStore,
  kToldBefore,
  kKeptOnAll,
  kRestoredHearsAll,
  kRestoredHearsLast,
  kStoreId,
  kCount,
};

class Rules {
 public:
  bool operator[](Clause clause) const { return (off_ >> static_cast<unsigned>(clause) & 1) == 0; }
  Rules Without(Clause clause) const {
    Rules rules = *this;
    rules.off_ |= 1U << static_cast<unsigned>(clause);
    return rules;
  }

 private:
  uint32_t off_ = 0;
};

// How much is explored. All that is possible within these bounds is.
struct Scope {
  const char* name;
  int attachments;        // in all; the first is given before the beginning
  int proposals;          // of each run, the first record of a start not counted
  int joins;              // in all
  int writes;             // of each run
  int restarts;           // that the supervisor saw, in all
  int restores;           // of the store from its backup, in all
  bool dead_ends = true;  // a state from which nothing can ever start is a finding as well
};

}  // namespace model
