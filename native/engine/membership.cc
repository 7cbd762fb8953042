#include "engine/membership.h"

#include <algorithm>

#include "base/mutant.h"

namespace ankole::engine {
namespace {

void AddReason(std::string* text, const std::string& reason) {
  if (!text->empty()) *text += "; ";
  *text += reason;
}

std::string NameOf(wire::ReplicaId id) { return "replica " + wire::ReplicaIdText(id); }

const Heard* Find(const std::vector<Heard>& heard, wire::ReplicaId id) {
  for (const Heard& replica : heard) {
    if (replica.replica == id) return &replica;
  }
  return nullptr;
}

std::string WhySilent(const Heard* replica, wire::ReplicaId id) {
  if (replica == nullptr) return NameOf(id) + " is not among the volume's replicas";
  return NameOf(id) + " does not answer (" + replica->why_not + ")";
}

// No record was ever complete, so nothing was ever written: what a first start proposed before it
// ended does not count.
StartDecision StartNew(const std::vector<Heard>& heard, const wire::Record& newest) {
  StartDecision decision;
  decision.newest = newest;
  for (const Heard& replica : heard) {
    if (!replica.answered) {
      AddReason(&decision.lacking, "new replica " + wire::ReplicaIdText(replica.replica) +
                                       " does not answer (" + replica.why_not + ")");
      continue;
    }
    decision.members.Add(replica.replica);
    decision.unclean |= replica.state.unclean;
  }
  decision.complete = decision.may_start = !heard.empty() && decision.lacking.empty();
  return decision;
}

// The owner chose the replicas: all of them are needed, as the choice was made knowing what each
// holds. It starts on those with the newest record among them; the others are made equal later.
StartDecision StartSalvaged(const wire::Record& chosen, const std::vector<Heard>& heard) {
  StartDecision decision;
  decision.newest = decision.last_complete = chosen;
  wire::Record newest;
  for (const wire::ReplicaId id : chosen.members.all()) {
    const Heard* replica = Find(heard, id);
    if (replica == nullptr || !replica->answered) {
      AddReason(&decision.lacking, WhySilent(replica, id) + ", and salvage chose it");
      continue;
    }
    const wire::Record& holds = replica->state.records.current;
    if (decision.members.count > 0 && Newer(newest, holds)) continue;
    if (holds != newest) decision.members = {};
    newest = holds;
    decision.members.Add(id);
  }
  decision.unclean = true;
  decision.complete = decision.may_start = decision.lacking.empty() && decision.members.count > 0;
  return decision;
}

bool Share(const wire::Members& one, const wire::Members& other) {
  const auto ids = one.all();
  return std::any_of(ids.begin(), ids.end(),
                     [&](wire::ReplicaId id) { return other.Contains(id); });
}

// Rule 2: the record that its run proposed next after a complete one is complete, too, when all its
// members hold it and they are a majority of those of that one. Its engine may not have told so.
bool CompleteByHolders(const wire::Record& record, const wire::Record& before,
                       const wire::Members& holders, const std::vector<Heard>& heard) {
  if (record.epoch != before.epoch || record.generation != before.generation + 1) return false;
  // It was proposed after that one was complete, not only after it was proposed.
  const bool follows = std::all_of(heard.begin(), heard.end(), [&](const Heard& one) {
    return !holders.Contains(one.replica) || one.state.records.complete == before;
  });
  if (!follows) return false;
  size_t of_before = 0;
  for (const wire::ReplicaId id : before.members.all()) {
    of_before += record.members.Contains(id) ? 1 : 0;
  }
  return holders == record.members && 2 * of_before > before.members.count;
}

// Whether all members of `record` were heard, and hold something.
bool AllHeard(const wire::Record& record, const std::vector<Heard>& heard, std::string* lacking) {
  bool all = true;
  for (const wire::ReplicaId id : record.members.all()) {
    const Heard* found = Find(heard, id);
    if (found != nullptr && found->answered && found->state.records.current.exists()) continue;
    AddReason(lacking, NameOf(id) + " of the record before it is needed as well");
    all = false;
  }
  return all;
}

// Every set shares a member with the complete one before it (rule 2). Where none of those that it
// starts on is one, the newest record is not complete as long as a member of both lacks it: nothing
// was acknowledged since, and that member is as good. `suspects`: those that it starts on are
// suspect as well. Where none is as good, one that may have lost what the intact ones hold must
// write the next record all the same: alone it can then never again be taken for the volume.
void TakeOfTheCompleteOne(const wire::Record& complete, const std::vector<Heard>& heard,
                          bool suspects, StartDecision* decision) {
  for (const wire::ReplicaId id : complete.members.all()) {
    const Heard* found = Find(heard, id);
    if (found == nullptr || !found->answered || (found->state.lost && !suspects) ||
        !found->state.records.current.exists() || !decision->newest.members.Contains(id)) {
      continue;
    }
    decision->members.Add(id);
    decision->unclean = true;
  }
  if (Share(decision->members, complete.members)) return;
  for (const wire::ReplicaId id : complete.members.all()) {
    const Heard* found = Find(heard, id);
    if (found == nullptr || !found->answered || !found->state.records.current.exists() ||
        !decision->newest.members.Contains(id)) {
      continue;
    }
    decision->members.Add(id);
    decision->leaving.Add(id);
  }
  if (decision->leaving.count > 0) return;
  decision->members = {};
  AddReason(&decision->lacking, "a member of the last complete record is needed (" +
                                    Describe(complete) + "), and none can be taken");
}

bool IsSalvage(const wire::Record& record) { return record.exists() && record.epoch.run == 0; }

}  // namespace

StartDecision DecideStart(const StartBasis& basis, const std::vector<Heard>& heard) {
  const bool alone = Mutant("majority-alone-start");
  wire::Record newest = alone ? wire::Record{} : basis.record;
  wire::Record complete = newest;
  for (const Heard& replica : heard) {
    if (!replica.answered) continue;
    if (Mutant("store-alone-start") && basis.record.exists()) continue;
    const wire::RecordPair& records = replica.state.records;
    if (Newer(records.current, newest)) newest = records.current;
    if (Newer(records.complete, complete)) complete = records.complete;
  }
  if (!newest.exists()) return StartNew(heard, newest);
  // Rule 2: the first record of a run is in the store before any I/O, so one that knows none has
  // seen no I/O.
  if (!complete.exists() && !basis.store_restored) return StartNew(heard, newest);
  if (IsSalvage(basis.record) && newest == basis.record) return StartSalvaged(newest, heard);

  StartDecision decision;
  decision.newest = newest;
  size_t members_heard = 0;
  bool all_answered = true;
  wire::Members holders;
  wire::Members suspects;
  bool intact_unclean = false;
  bool suspect_unclean = false;
  for (const wire::ReplicaId member : newest.members.all()) {
    const Heard* found = Find(heard, member);
    if (found == nullptr || !found->answered) {
      AddReason(&decision.lacking, WhySilent(found, member));
      all_answered = false;
      continue;
    }
    const wire::Record& holds = found->state.records.current;
    if (!holds.exists()) {
      AddReason(&decision.lacking, NameOf(member) + " holds nothing: its files were made anew");
      continue;
    }
    ++members_heard;
    if (holds != newest) {
      AddReason(&decision.lacking,
                NameOf(member) + " holds an older record (" + Describe(holds) + ")");
      continue;
    }
    holders.Add(member);
    if (found->state.lost) {
      suspects.Add(member);
      suspect_unclean |= found->state.unclean;
    } else {
      decision.members.Add(member);
      intact_unclean |= found->state.unclean;
    }
  }
  // A restored store may be behind, and what it has matters.
  if (!basis.store_restored && CompleteByHolders(newest, complete, holders, heard)) {
    complete = newest;
  }
  decision.last_complete = complete;
  bool all = members_heard == newest.members.count;
  // A restored store may have recorded what nobody can tell any more: it matters who could.
  if (basis.store_restored && all) all = AllHeard(complete, heard, &decision.lacking);
  const bool enough =
      basis.store_restored ? all : 2 * members_heard >= newest.members.count && members_heard > 0;
  decision.unclean = intact_unclean;
  // This attachment has served nobody yet.
  const bool anew = basis.clients_anew && newest.epoch.attachment < basis.attachment;
  bool on_suspects = false;
  if (decision.members.count == 0 && suspects.count > 0 && (all || anew)) {
    decision.members = suspects;
    decision.unclean = suspect_unclean;
    suspects = {};
    on_suspects = true;
  }
  // Also where a suspect one of them holds the newest record: the first record must follow on the
  // complete one by its members, as the next start may know of no other.
  if (decision.members.count > 0 && complete.exists() &&
      !Share(decision.members, complete.members)) {
    TakeOfTheCompleteOne(complete, heard, on_suspects, &decision);
  }
  for (const wire::ReplicaId suspect : suspects.all()) {
    AddReason(&decision.lacking, NameOf(suspect) + " may have lost what it had acknowledged");
  }
  decision.may_start = enough && decision.members.count > 0;
  decision.complete = all_answered && Share(decision.members, complete.members);
  if (!enough) {
    const std::string heard_text = std::to_string(members_heard) + " did";
    AddReason(&decision.lacking, basis.store_restored
                                     ? "the store was restored, so all members of " +
                                           Describe(newest) + " must answer, " + heard_text
                                     : "at least half of the members of " + Describe(newest) +
                                           " must answer, " + heard_text);
  }
  return decision;
}

}  // namespace ankole::engine
