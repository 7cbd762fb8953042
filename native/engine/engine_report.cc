#include "engine/engine.h"

// What the engine says of itself.
namespace ankole::engine {

void Engine::SetMode(Mode mode, const std::string& message) {
  mode_ = mode;
  message_ = message;
  waits_for_ = WaitsFor::kNothing;
  observer_.OnReport(Report());
}

void Engine::SetMessage(const std::string& message, WaitsFor waits_for) {
  if (message == message_ && waits_for == waits_for_) return;
  message_ = message;
  waits_for_ = waits_for;
  if (!message.empty()) log_.Log(LogLevel::kWarn, message);
  observer_.OnReport(Report());
}

std::string Engine::WhoLeft() const {
  const size_t left = links_.size() - complete_.members.count;
  if (left == 0) return "";
  return std::to_string(left) + " of " + std::to_string(links_.size()) +
         (left == 1 ? " replicas is away" : " replicas are away");
}

void Engine::GoesOn() {
  if (mode_ == Mode::kServing) message_ = WhoLeft();
  if (mode_ == Mode::kChanging) message_ = "the members change";
  waits_for_ = WaitsFor::kNothing;
  observer_.OnReport(Report());
}

std::string Engine::UnderWay() const {
  std::string text;
  const auto add = [&text](size_t count, const char* what) {
    if (count > 0) text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + what;
  };
  add(pool_.used(), "operations");
  add(locks_.held(), "locks held");
  add(locks_.waiting(), "locks waited for");
  add(errands_.in_flight(), "errands");
  add(queue_.empty() && nested_.empty() ? 0 : 1, "queue of requests");
  add(answers_.empty() ? 0 : 1, "queue of answers");
  add(snapshotter_.phase() != Snapshotter::Phase::kIdle ? 1 : 0, "snapshot");
  add(ResyncIdle() ? 0 : 1, "resync");
  return text;
}

uint64_t Engine::counts_dirty_since_ns(wire::ReplicaId member) const {
  const Link* const link = LinkOf(member);
  return link != nullptr && link->up() && !equalizer_.Asks(*link) ? link->welcomed_ns() : 0;
}

EngineReport Engine::Report() const {
  const bool degraded = complete_.members.count < links_.size();
  WaitsFor waits_for = waits_for_;
  std::string message = message_;
  // Whatever else has happened since: what I/O waits for is what the reader wants to know.
  const bool works = mode_ == Mode::kServing || mode_ == Mode::kChanging;
  if (works && waits_for == WaitsFor::kNothing && out_of_space_ns_ != 0) {
    waits_for = WaitsFor::kSpace;
    message = kOutOfSpaceText;
  }
  const bool waits = waits_for != WaitsFor::kNothing;
  const char* state = "";
  switch (mode_) {
    case Mode::kStarting:
    case Mode::kFencing:
    case Mode::kLearning:
    case Mode::kRecording:
      state = "starting";
      break;
    case Mode::kServing:
      state = waits ? "waiting" : degraded ? "degraded" : "serving";
      break;
    case Mode::kChanging: {
      // A snapshot is a record with the same members.
      const bool same = targets() == complete_.members && !degraded;
      state = waits ? "waiting" : same ? "serving" : "degraded";
      break;
    }
    case Mode::kStopping:
      state = "stopping";
      break;
    case Mode::kStopped:
      state = "stopped";
      break;
    case Mode::kRefused:
      state = "refused";
      break;
  }
  return {state, message, complete_, waits_for};
}

Json Engine::CountersJson() const {
  Json replicas = Json::Array();
  Json faults = Json::Object();
  for (uint8_t i = 1; i < kFaults; ++i) faults.Set(FaultCode(static_cast<Fault>(i)), faults_[i]);
  for (const auto& link : links_) {
    const bool member = targets().Contains(link->replica());
    const bool joins = joiner_.link() == link.get();
    replicas.Append(Json::Object()
                        .Set("id", wire::ReplicaIdText(link->replica()))
                        .Set("state", !member      ? joins ? "resyncing" : "left"
                                      : link->up() ? "member"
                                                   : "connecting")
                        .Set("inFlight", link->outstanding)
                        .Set("resync", ResyncJson(*link))
                        .Set("operations", link->counters.ToJson()));
  }
  return Json::Object()
      .Set("volume", options_.volume)
      .Set("ioBackend", io::BackendName(reactor_.backend().backend))
      .Set("inFlight", static_cast<uint64_t>(in_flight_.size()))
      .Set("waitsFor", WaitsForCode(Report().waits_for))
      .Set("faults", std::move(faults))
      .Set("heldBytes", static_cast<uint64_t>(buffers_->held_bytes()))
      .Set("dirtyRegions", regions_.dirty())
      .Set("unequalRegions", equalizer_.unequal().count())
      .Set("resyncedBytes", copier_.copied_bytes())
      .Set("repairedBlocks", equalizer_.repaired_blocks() + scrubber_.repaired_blocks())
      .Set("scrub", scrubber_.ToJson())
      .Set("trim", trimmer_.ToJson())
      .Set("trimmedBytes", trimmer_.unmapped_bytes())
      .Set("snapshots", snapshotter_.CountersJson())
      .Set("bucketBoundsSeconds", LatencyHistogram::BoundsSeconds())
      .Set("operations", counters_.ToJson())
      .Set("replicas", std::move(replicas));
}

}  // namespace ankole::engine
