#include "steps.h"

// States and steps as people read them. Replicas are a, b, c; a record is
// «epoch/generation{members}».
namespace model {
namespace {

std::string Name(int replica) { return std::string(1, static_cast<char>('a' + replica)); }

std::string Names(int set) {
  std::string text = "{";
  for (int r = 0; r < kReplicas; ++r) {
    if (!Has(static_cast<Set>(set), r)) continue;
    if (text.size() > 1) text += ' ';
    text += Name(r);
  }
  return text + "}";
}

std::string Text(int epoch) {
  return std::to_string(epoch / 2) + "." + std::to_string(epoch % 2 + 1);
}

std::string Text(Record record) {
  if (!record.exists()) return "-";
  return Text(record.epoch) + "/" + std::to_string(record.generation) + Names(record.members);
}

}  // namespace

std::string Describe(const Step& step, const State& before, const State& after) {
  const Engine& was = before.engines[step.engine];
  const Engine& is = after.engines[step.engine];
  const std::string engine = "engine " + Text(is.epoch);
  const std::string replica = "replica " + Name(step.replica & 3);
  const Replica& held = before.replicas[step.replica % kReplicas];
  switch (step.act) {
    case Act::kRead:
      return "the record " + Text(is.base) + " is read for the next attachment";
    case Act::kAttach:
      return "attached: " + engine + " with the record " + Text(is.base);
    case Act::kAsk:
      return engine + " asks " + replica + ", which holds " + Text(held.record);
    case Act::kWelcome:
      return replica + ", which holds " + Text(held.record) + ", welcomes " + engine;
    case Act::kAskAgain:
      return engine + " asks again: the answers changed";
    case Act::kStart:
      return engine + " starts on " + Names(step.replica) + ", proposes " + Text(is.proposal);
    case Act::kPropose:
      return engine + " proposes " + Text(is.proposal);
    case Act::kJoin:
      return replica + " comes back: made equal from " + Name(step.source) + "; " + engine +
             " proposes " + Text(is.proposal);
    case Act::kTakeBack:
      return engine + " takes back " + Text(was.proposal) + ", goes on with " +
             Names(was.base.members);
    case Act::kRecordWritten:
      return replica + " writes the record " + Text(held.record_coming);
    case Act::kStoreRecords:
      return "the store records " + Text(after.store.record);
    case Act::kReport:
      return engine + " reports " + Text(after.store.record) + " to the store";
    case Act::kComplete:
      return Text(is.base) + " is complete: " + engine + " serves";
    case Act::kIssue:
      return engine + " sends write w" + std::to_string(is.write) + " to " + Names(was.targets());
    case Act::kExecute:
      return replica + " executes w" + std::to_string(held.write_coming);
    case Act::kExecuteLate:
      return replica + " executes w" + std::to_string(held.write_late) + " of an old connection";
    case Act::kReconnect:
      return replica + " is connected anew; w" + std::to_string(held.write_coming) +
             " is sent again";
    case Act::kAcknowledge:
      return engine + " acknowledges w" + std::to_string(was.write);
    case Act::kRestart:
      return "the supervisor sees the engine end: " + engine + " goes on from " + Text(is.base);
    case Act::kResumeWelcome:
      return replica + " welcomes " + engine;
    case Act::kResume:
      return engine + " goes on with " + Names(step.replica) + ", proposes " + Text(is.proposal);
    case Act::kRestore:
      return "the store is restored from its backup: " + Text(after.store.record);
  }
  return "";
}

std::string Describe(const State& state) {
  std::string text = "store " + Text(state.store.record);
  for (int r = 0; r < kReplicas; ++r) {
    text += "; " + Name(r) + " " + Text(state.replicas[r].record) + " w" +
            std::to_string(state.replicas[r].value);
  }
  return text;
}

}  // namespace model
