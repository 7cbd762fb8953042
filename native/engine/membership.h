#pragma once

#include <string>
#include <vector>

#include "base/units.h"
#include "wire/hello.h"
#include "wire/record.h"

// Decisions of rules 2, 3 and 6 as pure functions of what was heard.
namespace ankole::engine {

// Rule 4: a majority that answered is this engine's for so long from when it was asked.
inline constexpr uint64_t kLeaseNs = 2 * kNsPerSecond;
// A new engine waits a little longer, as clocks do not run alike.
inline constexpr uint64_t kLeaseWaitNs = kLeaseNs + 50 * kNsPerMs;

// One replica as far as it answered.
struct Heard {
  wire::ReplicaId replica = 0;
  bool answered = false;
  wire::ReplicaState state;
  std::string why_not;  // when it did not answer
};

// What a start goes on from, besides what the replicas say.
struct StartBasis {
  // The newest complete record that is known: the store's, or the supervisor's where that is newer.
  // Run 0 is salvage's: the owner's choice of replicas, whatever they hold.
  wire::Record record;
  // The store was restored from a copy and may be behind: all members must be heard, and that it
  // knows no record says nothing.
  bool store_restored = false;
  // The clients start anew as well (another host, or one booted anew): suspect replicas will do
  // where there is no intact one.
  bool clients_anew = false;
  // Of this engine.
  uint64_t attachment = 0;
};

struct StartDecision {
  bool may_start = false;
  // All that are members of the newest record answered, and one that it starts on is of the last
  // complete one as well: waiting longer can add nobody.
  bool complete = false;
  // Of those that answered, to start on.
  wire::Members members;
  // Of these, the ones that are members for the sake of rule 2 alone. They may have lost what the
  // others hold: they get the first record after them, keep the mark of it, and leave at once.
  wire::Members leaving;
  // The newest record heard; the first record of this epoch follows it.
  wire::Record newest;
  // The newest one that is known to be complete: the store has it, a replica was told so, or all
  // its members hold it (rule 2).
  wire::Record last_complete;
  // Members were not closed clean: reads go to one of them until they are made equal.
  bool unclean = false;
  // What is lacking, for people, when it may not (or not yet completely) start.
  std::string lacking;
};

// Rule 6: at least half of the members of the newest record among the known one and those heard; on
// those that hold that very record. A replica without any record has lost what it had, and is not
// heard as a member. Every set shares a member with the complete one before it. Where the store was
// restored the members of that one must be heard as well. A volume that never had a complete record
// starts on all its replicas or not at all. Rule 7: intact replicas, and suspect ones that lost
// nothing since they were taken; others only where there is none of these, and all members were
// heard or the clients start anew.
StartDecision DecideStart(const StartBasis& basis, const std::vector<Heard>& heard);

}  // namespace ankole::engine
