#pragma once

#include <string>

#include "rules.h"
#include "state.h"

namespace model {

enum class Act : uint8_t {
  kRead,
  kAttach,
  kAsk,
  kWelcome,
  kAskAgain,
  kStart,
  kPropose,
  kJoin,
  kTakeBack,
  kRecordWritten,
  kStoreRecords,
  kReport,
  kComplete,
  kIssue,
  kExecute,
  kExecuteLate,
  kReconnect,
  kAcknowledge,
  kRestart,
  kResumeWelcome,
  kResume,
  kRestore,
};

// What happened between two states.
struct Step {
  Act act = Act::kAsk;
  int engine = 0;
  int replica = 0;  // or a set of replicas
  int source = 0;   // kJoin: from whom it was made equal
};

class StepSink {
 public:
  // `finding` is null, or what must never be.
  virtual void Take(const Step& step, const State& next, const char* finding) = 0;

 protected:
  ~StepSink() = default;
};

// All that may happen next. A process or a link that is slow, cut off or dead is one that does
// nothing: no step is ever forced, so partitions and crashes need no steps of their own.
void ForEachStep(const State& state, const Rules& rules, const Scope& scope, StepSink& sink);

// For people; `after` is the state that the step led to.
std::string Describe(const Step& step, const State& before, const State& after);
std::string Describe(const State& state);

}  // namespace model
