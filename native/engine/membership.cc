#include "engine/membership.h"

#include "base/mutant.h"

namespace ankole::engine {
namespace {

void AddReason(std::string* text, const std::string& reason) {
  if (!text->empty()) *text += "; ";
  *text += reason;
}

StartDecision StartNew(const std::vector<Heard>& heard) {
  StartDecision decision;
  for (const Heard& replica : heard) {
    if (!replica.answered) {
      AddReason(&decision.lacking, "new replica " + wire::ReplicaIdText(replica.replica) +
                                       " does not answer (" + replica.why_not + ")");
      continue;
    }
    decision.members.Add(replica.replica);
  }
  decision.complete = decision.may_start = !heard.empty() && decision.lacking.empty();
  return decision;
}

}  // namespace

StartDecision DecideStart(const wire::Record& store, const std::vector<Heard>& heard) {
  wire::Record newest = Mutant("majority-alone-start") ? wire::Record{} : store;
  for (const Heard& replica : heard) {
    if (replica.answered && Newer(replica.state.records.current, newest)) {
      newest = replica.state.records.current;
    }
  }
  if (!newest.exists()) return StartNew(heard);

  StartDecision decision;
  decision.newest = newest;
  size_t members_heard = 0;
  wire::Members suspects;
  bool intact_unclean = false;
  bool suspect_unclean = false;
  for (const wire::ReplicaId member : newest.members.all()) {
    const std::string name = "replica " + wire::ReplicaIdText(member);
    const Heard* found = nullptr;
    for (const Heard& replica : heard) {
      if (replica.replica == member) found = &replica;
    }
    if (found == nullptr || !found->answered) {
      AddReason(&decision.lacking,
                name + (found == nullptr ? " is not among the volume's replicas"
                                         : " does not answer (" + found->why_not + ")"));
      continue;
    }
    ++members_heard;
    if (found->state.records.current != newest) {
      AddReason(&decision.lacking,
                name + " holds an older record (" + Describe(found->state.records.current) + ")");
      continue;
    }
    if (found->state.suspect) {
      suspects.Add(member);
      suspect_unclean = true;
    } else {
      decision.members.Add(member);
      intact_unclean |= found->state.unclean;
    }
  }
  const bool half = 2 * members_heard >= newest.members.count && members_heard > 0;
  decision.unclean = intact_unclean;
  if (decision.members.count == 0 && suspects.count > 0 && members_heard == newest.members.count) {
    decision.members = suspects;
    decision.unclean = suspect_unclean;
    suspects = {};
  }
  for (const wire::ReplicaId suspect : suspects.all()) {
    AddReason(&decision.lacking, "replica " + wire::ReplicaIdText(suspect) +
                                     " may have lost what it had acknowledged");
  }
  decision.may_start = half && decision.members.count > 0;
  decision.complete = decision.members.count == newest.members.count;
  if (!half) {
    AddReason(&decision.lacking, "at least half of the members of " + Describe(newest) +
                                     " must answer, " + std::to_string(members_heard) + " did");
  }
  return decision;
}

}  // namespace ankole::engine
