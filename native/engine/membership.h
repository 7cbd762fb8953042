#pragma once

#include <string>
#include <vector>

#include "wire/hello.h"
#include "wire/record.h"

// Decisions of rules 2, 3 and 6 as pure functions of what was heard.
namespace ankole::engine {

// One replica as far as it answered.
struct Heard {
  wire::ReplicaId replica = 0;
  bool answered = false;
  wire::ReplicaState state;
  std::string why_not;  // when it did not answer
};

struct StartDecision {
  bool may_start = false;
  // All that are members of the newest record hold it: waiting longer can add nobody.
  bool complete = false;
  // Of those that answered, to start on.
  wire::Members members;
  // The newest record heard; the first record of this epoch follows it.
  wire::Record newest;
  // Members were not closed clean: reads go to one of them until they are made equal.
  bool unclean = false;
  // What is lacking, for people, when it may not (or not yet completely) start.
  std::string lacking;
};

// Rule 6: at least half of the members of the newest record among the store's and those heard; on
// those that hold that very record. A volume without any record starts on all its replicas or not
// at all. Rule 7: intact replicas; suspect ones only where there is no intact one and all members
// were heard.
StartDecision DecideStart(const wire::Record& store, const std::vector<Heard>& heard);

}  // namespace ankole::engine
