#include <algorithm>

#include "base/crc32c.h"
#include "engine/engine.h"
#include "wire/regions.h"

// Dirty regions (rule 5), and what makes replicas equal (rule 7).
namespace ankole::engine {
namespace {

// A write that waits for a region for longer than this closes the door to all others: so what is
// under way ends, and something can be cleaned.
constexpr uint64_t kDoorNs = kNsPerSecond / 2;
// Clients count as at work until this long after their last request.
constexpr uint64_t kBusyNs = kNsPerSecond;
// A replica that does not answer what the engine asks of it for itself.
constexpr uint64_t kJoinerLateNs = 10 * kNsPerSecond;
constexpr uint64_t kSilentNs = 2 * kNsPerSecond;

// A CLEAN's payload lies in its operation's table; that for the joiner behind it.
constexpr size_t kJoinerCleanAt = RoundUp(wire::kCleanBytesMax, 64);

RegionRun RunOf(const Operation& operation) {
  return RegionsOf(operation.offset_bytes, operation.length_bytes);
}

// What a joiner syncs for, or waits for what it syncs; no client waits for it.
bool TakesItsTime(wire::Opcode opcode) {
  return opcode == wire::Opcode::kFlush || opcode == wire::Opcode::kPrepare ||
         opcode == wire::Opcode::kSwitch || opcode == wire::Opcode::kDelete ||
         opcode == wire::Opcode::kExpand;
}

// Why a joiner was let go, by the names of faults.
Fault FaultOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk:
    case ErrorCode::kCancelled:
      return Fault::kNone;
    case ErrorCode::kConnectionLost:
      return Fault::kConnectionLost;
    case ErrorCode::kTimedOut:
      return Fault::kNoAnswer;
    case ErrorCode::kNoSpace:
      return Fault::kNoSpace;
    case ErrorCode::kSuspect:
      return Fault::kSuspect;
    case ErrorCode::kInvalidArgument:
      return Fault::kWrongSize;
    case ErrorCode::kUnsupported:  // it cannot be given the snapshots
      return Fault::kOlderRecord;
    case ErrorCode::kFenced:
    case ErrorCode::kNotFound:
    case ErrorCode::kAuthenticationFailed:
      return Fault::kRefused;
    default:
      return Fault::kIoError;
  }
}

}  // namespace

// --- what resync needs of the engine
// --------------------------------------------------------------------------------------------

bool Engine::Settled() const {
  return mode_ == Mode::kServing && !proposal_.outstanding && leaving_.count == 0;
}

bool Engine::Busy() const {
  return client_ns_ != 0 && ElapsedNs(client_ns_, reactor_.NowNs()) < kBusyNs;
}

uint64_t Engine::CompleteTag() const {
  const uint64_t oldest = in_flight_.empty() ? next_tag_ + 1 : in_flight_.front()->tag;
  return std::min(oldest, copier_.OldestTag()) - 1;
}

void Engine::SendErrand(Errand* errand) { errands_.Send(errand, ++next_tag_, CompleteTag()); }

bool Engine::SubmitOwn(OwnRequest* request) {
  if (mode_ != Mode::kServing && mode_ != Mode::kChanging) return false;
  Operation* operation = pool_.Acquire();
  if (operation == nullptr) return false;
  request->submitted_ns = reactor_.NowNs();
  request->status = ErrorCode::kOk;
  operation->engine = this;
  operation->request = request;
  operation->kind = request->operation;
  operation->offset_bytes = request->offset_bytes;
  operation->length_bytes = static_cast<uint32_t>(request->length_bytes);
  operation->status = ErrorCode::kOk;
  operation->table_bytes = 0;
  operation->flush_ticket = 0;
  operation->pinned = operation->refused = operation->partly = false;
  operation->repair = operation->repaired = operation->anyway = false;
  operation->own = true;
  active_ = true;
  if (operation->kind == BlockOperation::kFlush) {
    DispatchFlush(operation);
  } else if (operation->kind == BlockOperation::kClean || IsState(operation->kind)) {
    Lock(operation);
  } else {
    Admit(operation);
  }
  return true;
}

void Engine::MemberFailed(Link& link, const Status& why) {
  whole_.Remove(link.replica());
  if (!IsStaying(link.index()) || Staying().count == 1) return;
  wire::Members leaving;
  leaving.Add(link.replica());
  Drop(leaving, why.code() == ErrorCode::kNoSpace ? Fault::kNoSpace : Fault::kIoError,
       why.message());
}

void Engine::JoinerFailed(Link& link, const Status& why) {
  if (!IsTarget(link.index())) link.Break(why);
}

void Engine::ProposeWith(Link& joiner) {
  wire::Members members = targets();
  members.Add(joiner.replica());
  SetMode(Mode::kChanging, "replica " + wire::ReplicaIdText(joiner.replica()) + " joins");
  Propose(members);
}

void Engine::TellReplica(const Link& link, const char* state, const Status& why) {
  observer_.OnReplica(link.replica(), state, FaultOf(why.code()), why.message());
}

// --- dirty regions
// --------------------------------------------------------------------------------------------

// Lets what changes data go on when its regions are open. A hold counts as what may be written
// within it, so that nothing within it ever waits here.
void Engine::Admit(Operation* operation) {
  if (!operation->dirties() && operation->kind != BlockOperation::kHold) {
    Proceed(operation);
    return;
  }
  const uint64_t now_ns = operation->request->submitted_ns;
  const bool nested = operation->request->hold != nullptr;
  const bool door_closed =
      !admission_.empty() && !nested && ElapsedNs(admission_.front()->queued_ns, now_ns) >= kDoorNs;
  operation->pinned =
      !door_closed && regions_.Pin(RunOf(*operation), now_ns, options_.dirty_regions_max);
  if (operation->pinned) {
    Proceed(operation);
    return;
  }
  CHECK(!nested);
  operation->queued_ns = reactor_.NowNs();
  admission_.PushBack(operation);
  cleaner_.Look(true, false, false);
}

void Engine::AdmitWaiting() {
  const bool over = mode_ != Mode::kServing && mode_ != Mode::kChanging && mode_ != Mode::kStopping;
  while (Operation* operation = admission_.front()) {
    operation->pinned =
        !over && regions_.Pin(RunOf(*operation), reactor_.NowNs(), options_.dirty_regions_max);
    if (!operation->pinned && !over) return;
    admission_.Remove(operation);
    Proceed(operation);
  }
}

void Engine::Proceed(Operation* operation) {
  if (operation->request->hold == nullptr) {
    Lock(operation);
  } else {
    Dispatch(operation);
  }
}

void Engine::Unpin(Operation* operation) {
  if (!operation->pinned) return;
  operation->pinned = false;
  regions_.Unpin(RunOf(*operation), reactor_.NowNs());
}

// The regions are locked: no write to them is under way, and none goes out until this is done.
void Engine::GrantedClean(Operation* operation) {
  const RegionRun run = RunOf(*operation);
  if (Settled() && regions_.Cleanable(run)) {
    wire::CleanRequest clean;
    clean.epoch = complete_.epoch;
    clean.generation = complete_.generation;
    const bool joiner_has = joiner_.Has(run);
    if (joiner_has) clean.ids.Add(joiner_.link()->replica());
    operation->table_bytes = static_cast<uint32_t>(wire::EncodeClean(clean, operation->table));
    operation->to_joiner = joiner_has && joiner_.CleansUnder() != nullptr;
    if (operation->to_joiner) {
      // It knows no newer record than the one that it was left at.
      const wire::Record& held = *joiner_.CleansUnder();
      wire::EncodeClean({held.epoch, held.generation, {}}, operation->table + kJoinerCleanAt);
    }
    Dispatch(operation);
    return;
  }
  // Written again meanwhile, or not the time for it.
  operation->tag = ++next_tag_;
  in_flight_.PushBack(operation);
  operation->waiting = operation->answered = operation->failed = 0;
  for (MemberPart& part : operation->parts) part.state = MemberPart::State::kUnused;
  to_judge_.PushBack(operation);
  reactor_.Defer(&answer_task_);
}

void Engine::EncodeClean(const Operation& operation, Link& link, wire::Header* header,
                         wire::OutgoingFrame* frame) {
  const bool joiner = !IsTarget(link.index());
  frame->table = operation.table + (joiner ? kJoinerCleanAt : 0);
  frame->table_bytes =
      joiner ? static_cast<uint32_t>(wire::kCleanHeadBytes) : operation.table_bytes;
  header->payload_bytes = frame->table_bytes;
  header->payload_crc32c = Crc32c(frame->table, frame->table_bytes);
}

// Whether the joiner takes part in it. Asked once for each time that it is dispatched.
bool Engine::GoesToJoiner(Operation* operation) {
  const bool up = joiner_.link() != nullptr && joiner_.link()->up();
  bool takes = joiner_.Takes(*operation);
  if (operation->kind == BlockOperation::kClean) takes = operation->to_joiner;
  takes &= up && !IsTarget(joiner_.index());
  if (operation->kind == BlockOperation::kFlush) {
    // Only a flush of all that are cleaned makes regions cleanable.
    operation->flush_ticket = takes || !joiner_.attached() ? regions_.FlushBegins() : 0;
  }
  return takes;
}

// --- equal before it is used
// --------------------------------------------------------------------------------------------

void Engine::Prepared(Operation* operation) {
  equalizer_.Prepare(operation, [](Operation* ready) {
    auto* self = static_cast<Engine*>(ready->engine);
    const bool repaired = std::exchange(ready->repair, false);
    if (ready->prepare_status == ErrorCode::kOk || repaired || !self->Settled()) {
      self->Ready(ready);
      return;
    }
    // No member can tell what is there.
    if (ready->kind == BlockOperation::kHold) {
      self->AnswerLater(ready->request, ready->prepare_status);
      ready->request->held_by = ready;
      self->Release(ready->request);
      return;
    }
    ready->tag = ++self->next_tag_;
    ready->waiting = ready->answered = ready->failed = 0;
    for (MemberPart& part : ready->parts) part.state = MemberPart::State::kUnused;
    self->in_flight_.PushBack(ready);
    self->Finish(ready, ready->prepare_status);
  });
}

// A read that found a corrupt block at every member, or at the last one that can be asked: not all
// need have the same one, so each block is repaired from whoever has it good (rule 9).
bool Engine::RepairFirst(Operation* operation, ErrorCode error) {
  if (error != ErrorCode::kCorrupt || operation->repaired) return false;
  if (operation->kind != BlockOperation::kRead || targets().count == 1) return false;
  // Judged again when nothing of it is on its way: an answer may come before its frame counts as
  // sent.
  if (!operation->quiet()) return true;
  operation->repair = operation->repaired = true;
  in_flight_.Remove(operation);
  AbandonParts(operation);
  if (operation->request->hold != nullptr) {
    Prepared(operation);
    return true;
  }
  // Until now the lock was shared.
  operation->locked = false;
  locks_.Release(&operation->lock);
  Lock(operation);
  return true;
}

// --- starting after an unclean stop
// --------------------------------------------------------------------------------------------

void Engine::LearnMaps() {
  SetMode(Mode::kLearning, "asking the replicas where they may differ");
  std::vector<Equalizer::Member> members;
  suspects_ = {};
  for (const wire::ReplicaId id : decision_.members.all()) {
    if (decision_.leaving.Contains(id)) continue;
    Link* link = LinkOf(id);
    members.push_back({link, StateOf(*link)});
    if (StateOf(*link).suspect) suspects_.Add(id);
  }
  RegionRun also;
  // What one of them has not at all so far.
  if (unequal_from_bytes_ < size_bytes_) {
    also = RegionsOf(unequal_from_bytes_, size_bytes_ - unequal_from_bytes_);
  }
  equalizer_.Learn(
      std::move(members), also,
      [](void* owner, const Status& status) {
        auto* self = static_cast<Engine*>(owner);
        if (self->mode_ != Mode::kLearning) return;
        if (!status.ok()) {
          self->AskAgain(status.message() + "; asking again");
          return;
        }
        self->FirstRecord();
      },
      this);
}

// --- in the course of time
// --------------------------------------------------------------------------------------------

void Engine::MembersChanged() {
  copier_.Kick();
  expander_.Look();
  joiner_.OnMembers();
  equalizer_.Pump();
  snapshotter_.OnMembers();
  changes_.Pump();
  readers_.Pump();
  trimmer_.Pump();
}

void Engine::LookAtResync(uint64_t now_ns) {
  if (!forgives_) CheckErrands(now_ns);
  LookAtExpansion(now_ns);
  copier_.Kick();
  equalizer_.Pump();
  scrubber_.Pump();
  if (scrubber_.TakeNews(now_ns)) observer_.OnScrub(scrubber_.ToJson());
  trimmer_.Pump();
  if (trimmer_.TakeNews(now_ns)) observer_.OnTrim(trimmer_.ToJson());
  joiner_.OnQuiet(CompleteTag());
  snapshotter_.Look(now_ns);
  joiner_.Look(now_ns);
  changes_.Pump();
  readers_.Look();
  const bool idle = ElapsedNs(client_ns_, now_ns) >= options_.idle_ns && admission_.empty() &&
                    joiner_.link() == nullptr && equalizer_.AllEqual() && !scrubber_.running() &&
                    !trimmer_.running();
  cleaner_.Look(!admission_.empty(), idle, joiner_.copied_since_flush());
  AdmitWaiting();
  ClearSuspects();
}

// Replicas that hold up what the engine does for itself. That a member hangs is noticed by its
// PINGs; this is about one whose disk does.
void Engine::CheckErrands(uint64_t now_ns) {
  for (const auto& link : links_) {
    if (!link->up()) continue;
    const Errand* oldest = errands_.OldestAt(*link);
    const uint64_t waited_ns = oldest != nullptr ? ElapsedNs(oldest->sent_ns, now_ns) : 0;
    if (IsTarget(link->index())) {
      const bool expands = oldest != nullptr && oldest->opcode == wire::Opcode::kExpand;
      const uint64_t late_ns = expands ? kJoinerFlushNs : kJoinerLateNs;
      if (waited_ns >= std::max(options_.late_ns * 5 / 2, late_ns)) {
        MemberFailed(*link, {ErrorCode::kTimedOut, "it answered too late"});
      }
      continue;
    }
    if (ElapsedNs(link->heard_ns(), now_ns) >= kSilentNs) link->Ping();
    const bool silent =
        link->ping_sent_ns() != 0 && ElapsedNs(link->ping_sent_ns(), now_ns) >= kSilentNs;
    const bool syncs = oldest != nullptr && TakesItsTime(oldest->opcode);
    if (!silent && waited_ns < (syncs ? kJoinerFlushNs : kJoinerLateNs)) continue;
    const Status why(ErrorCode::kTimedOut, silent ? "it does not answer" : "it answered too late");
    if (joiner_.link() == link.get()) {
      joiner_.LetGo(why);
    } else {
      link->Break(why);
    }
  }
}

// Members that were suspect when the engine started on them are not, once all are equal (rule 7).
void Engine::ClearSuspects() {
  if (suspects_.count == 0 || !Settled() || !equalizer_.AllEqual()) return;
  for (const wire::ReplicaId id : suspects_.all()) {
    Link& link = *LinkOf(id);
    if (!IsTarget(link.index())) {
      suspects_.Remove(id);  // it comes back by way of joining
      return;
    }
    if (link.up() && !link.control_outstanding()) {
      link.SendRecord({proposal_.record, complete_}, wire::kFlagResynced);
    }
  }
}

void Engine::StopResync() {
  expander_.Cancel();
  expand_due_ns_ = 0;
  joiner_.Stop();
  equalizer_.Stop();
  scrubber_.Stop();
  trimmer_.Stop();
  const bool fenced = mode_ == Mode::kRefused;
  const Status why(fenced ? ErrorCode::kFenced : ErrorCode::kUnavailable,
                   fenced ? "a newer engine took the volume over" : "the engine stops");
  snapshotter_.Stop(why, mode_ != Mode::kStopping);
  changes_.Stop(why);
  readers_.Stop(why);
  copier_.CancelAll();
  AdmitWaiting();
}

bool Engine::ResyncIdle() const {
  return errands_.in_flight() == 0 && copier_.idle() && joiner_.idle() && equalizer_.idle() &&
         cleaner_.idle() && scrubber_.idle() && expander_.idle() && snapshotter_.idle() &&
         changes_.idle() && readers_.idle() && trimmer_.idle();
}

void Engine::SetResyncBandwidth(uint64_t bytes_per_second) {
  joiner_.SetRate(bytes_per_second);
  equalizer_.SetRate(bytes_per_second);
}

void Engine::Scrub(uint64_t offset_bytes, uint64_t length_bytes, uint64_t bytes_per_second) {
  CHECK(length_bytes > 0 && offset_bytes + length_bytes <= size_bytes_);
  scrubber_.Start("", RegionsOf(offset_bytes, length_bytes), bytes_per_second, {});
}

void Engine::ScrubAll(const std::string& id, uint64_t bytes_per_second,
                      const ScrubProgress& before) {
  scrubber_.Start(id, RegionsOf(0, size_bytes_), bytes_per_second, before);
}

Status Engine::Trim(const std::string& id, uint64_t bytes_per_second, const TrimProgress& before) {
  if (mode_ != Mode::kServing && mode_ != Mode::kChanging) {
    return {ErrorCode::kUnavailable, "the engine does not serve"};
  }
  if (options_.read_only) return {ErrorCode::kReadOnly, "the volume is read-only"};
  ArmTick(true);
  trimmer_.Start(id, bytes_per_second, before);
  return Status::Ok();
}

Json Engine::ResyncJson(const Link& link) const {
  if (IsTarget(link.index())) return {};
  const JoinProgress progress = joiner_.Progress(link);
  return Json::Object()
      .Set("state", progress.state)
      .Set("regions", progress.regions_total)
      .Set("regionsToGo", progress.regions_to_go)
      .Set("snapshotsToGo", progress.snapshots_to_go)
      .Set("copiedBytes", progress.copied_bytes)
      .Set("bytesPerSecond", progress.bytes_per_second);
}

}  // namespace ankole::engine
