#include "engine/engine.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "base/crc32c.h"
#include "base/mutant.h"

namespace ankole::engine {

Engine::Engine(io::Reactor& reactor, Observer& observer, LogSink& log, EngineOptions options,
               std::unique_ptr<BufferPool> buffers)
    : reactor_(reactor),
      observer_(observer),
      log_(log),
      options_(std::move(options)),
      buffers_(std::move(buffers)),
      pool_(kEngineOperationsMax),
      // And one each for the joiner and a snapshot.
      locks_(kEngineOperationsMax + kCopiesMax + 2),
      size_bytes_(options_.size_bytes),
      errands_(reactor),
      regions_(size_bytes_),
      copier_(*this, kCopiesMax),
      cleaner_(*this, regions_),
      equalizer_(*this, copier_, regions_),
      joiner_(*this, copier_, regions_, cleaner_, options.copied_sync_bytes),
      scrubber_(*this, copier_, regions_, equalizer_.unequal()),
      expander_(*this),
      snapshotter_(*this, *this),
      changes_(*this),
      readers_(*this),
      trimmer_(*this),
      complete_(options_.record) {
  CHECK(options_.replicas.size() <= kReplicasMax);
  tick_.owner = tick_task_.owner = answer_task_.owner = this;
  tick_.done = [](io::Operation* operation) { static_cast<Engine*>(operation->owner)->Tick(); };
  tick_task_.done = [](io::Operation* operation) {
    static_cast<Engine*>(operation->owner)->TickHeldUp();
  };
  answer_task_.done = [](io::Operation* operation) {
    auto* self = static_cast<Engine*>(operation->owner);
    while (!self->answers_.empty()) {
      BlockRequest* request = self->answers_.Pop();
      request->done(request);
    }
    self->JudgeAll();
  };
  bool local = false;
  for (const EngineOptions::Replica& replica : options_.replicas) {
    local |= replica.address.unix_path;
  }
  if (local && options_.shared_memory) {
    Result<std::unique_ptr<SharedState>> shared = SharedState::Create(reactor_, *buffers_);
    if (shared.ok()) {
      shared_ = shared.Take();
      doorbell_.owner = this;
      doorbell_.doorbell = doorbell_close_.socket = shared_->doorbell();
      doorbell_.done = [](io::Operation* operation) {
        if (operation->result >= 0) static_cast<Engine*>(operation->owner)->OnDoorbell();
      };
      doorbell_close_.done = [](io::Operation*) {};
    } else {
      log_.Log(LogLevel::kWarn,
               "no memory is shared with disk hosts: " + shared.status().message());
    }
  }
  for (size_t i = 0; i < options_.replicas.size(); ++i) {
    const EngineOptions::Replica& replica = options_.replicas[i];
    Link::Options link;
    link.index = i;
    link.replica = replica.id;
    link.address = replica.address;
    link.volume = options_.volume;
    link.secret = options_.secret;
    link.epoch = options_.epoch;
    if (replica.address.unix_path) link.shared = shared_.get();
    links_.push_back(std::unique_ptr<Link>(new Link(reactor_, *this, log_, std::move(link))));
    heard_.push_back({replica.id, false, {}, "not connected yet"});
  }
  SetResyncBandwidth(options_.resync_bandwidth);
}

Engine::~Engine() {
  if (scratch_ != nullptr) munmap(scratch_, kDataBytesMax);
}

void Engine::RequestQueue::Push(BlockRequest* request) {
  request->next = nullptr;
  (tail == nullptr ? head : tail->next) = request;
  tail = request;
}

BlockRequest* Engine::RequestQueue::Pop() {
  BlockRequest* const request = head;
  head = request->next;
  if (head == nullptr) tail = nullptr;
  return request;
}

static bool ChangesContent(BlockOperation operation) {
  return operation == BlockOperation::kWrite || operation == BlockOperation::kZero ||
         operation == BlockOperation::kUnmap;
}

void Engine::Submit(BlockRequest* request) {
  const bool ranged = request->operation != BlockOperation::kFlush;
  CHECK(request->offset_bytes % kSectorBytes == 0 && request->length_bytes % kSectorBytes == 0 &&
        request->length_bytes <= UINT32_MAX && ranged == (request->length_bytes > 0));
  if (IsState(request->operation)) {
    CHECK(request->offset_bytes == 0 && request->length_bytes == kTargetStateBytes);
  } else {
    CHECK(request->offset_bytes + request->length_bytes <= size_bytes_);
  }
  request->submitted_ns = reactor_.NowNs();
  if (options_.read_only && ChangesContent(request->operation)) {
    AnswerLater(request, ErrorCode::kReadOnly);
    return;
  }
  if (mode_ != Mode::kServing && mode_ != Mode::kChanging) {
    AnswerLater(request, ErrorCode::kUnavailable);
    return;
  }
  active_ = true;
  client_ns_ = request->submitted_ns;
  if (!tick_fast_) ArmTick(true);
  const bool nested = request->hold != nullptr;
  RequestQueue& queue = nested ? nested_ : queue_;
  if (queue.empty() && HasSlot(nested)) {
    Begin(pool_.Acquire(), request);
  } else {
    queue.Push(request);
  }
}

bool Engine::HasSlot(bool nested) const {
  constexpr size_t kOthers = kEngineOperationsMax - kEngineOwnSlots;
  return pool_.used() < (nested ? kOthers : kOthers - kEngineNestedSlots);
}

void Engine::AnswerLater(BlockRequest* request, ErrorCode status) {
  request->status = status;
  answers_.Push(request);
  reactor_.Defer(&answer_task_);
}

void Engine::Begin(Operation* operation, BlockRequest* request) {
  operation->engine = this;
  operation->request = request;
  operation->kind = request->operation;
  operation->offset_bytes = request->offset_bytes;
  operation->length_bytes = static_cast<uint32_t>(request->length_bytes);
  operation->status = ErrorCode::kOk;
  operation->table_bytes = 0;
  operation->flush_ticket = 0;
  operation->pinned = operation->own = operation->refused = operation->partly = false;
  operation->repair = operation->repaired = operation->anyway = false;
  if (operation->kind == BlockOperation::kFlush) {
    DispatchFlush(operation);
    return;
  }
  if (operation->carries_data()) {
    CHECK(operation->length_bytes <= kDataBytesMax);
    auto* table = reinterpret_cast<uint32_t*>(operation->table);
    Crc32cBlocks(request->data, operation->offset_bytes, operation->length_bytes, table);
    operation->table_bytes = BlocksTouched(operation->offset_bytes, operation->length_bytes) * 4;
    operation->table_crc32c = Crc32c(table, operation->table_bytes);
  }
  if (request->hold != nullptr) {
    const auto* holder = static_cast<Operation*>(request->hold->held_by);
    CHECK(holder != nullptr && operation->offset_bytes >= holder->offset_bytes &&
          operation->offset_bytes + operation->length_bytes <=
              holder->offset_bytes + holder->length_bytes);
  }
  Admit(operation);
}

void Engine::Lock(Operation* operation) {
  LockRequest& lock = operation->lock;
  lock.begin_block = operation->offset_bytes / kBlockBytes;
  lock.end_block = DivideUp(operation->offset_bytes + operation->length_bytes, kBlockBytes);
  if (IsState(operation->kind)) {
    lock.begin_block = kStateBlock;
    lock.end_block = kStateBlock + 1;
  }
  lock.exclusive = operation->is_write() || operation->kind == BlockOperation::kHold ||
                   equalizer_.Concerns(*operation);
  lock.owner = operation;
  lock.granted = [](LockRequest* granted) {
    auto* waiter = static_cast<Operation*>(granted->owner);
    static_cast<Engine*>(waiter->engine)->Granted(waiter);
  };
  if (locks_.Acquire(&lock)) Granted(operation);
}

void Engine::Granted(Operation* operation) {
  operation->locked = true;
  if (operation->kind == BlockOperation::kClean) {
    GrantedClean(operation);
  } else if (equalizer_.Concerns(*operation)) {
    Prepared(operation);
  } else {
    Ready(operation);
  }
}

// Nobody else is at its range, and the members have the same there.
void Engine::Ready(Operation* operation) {
  if (operation->kind != BlockOperation::kHold) {
    Dispatch(operation);
    return;
  }
  operation->request->held_by = operation;
  AnswerLater(operation->request, ErrorCode::kOk);
}

void Engine::Release(BlockRequest* hold) {
  auto* operation = static_cast<Operation*>(std::exchange(hold->held_by, nullptr));
  CHECK(operation != nullptr && operation->request == hold && operation->locked);
  operation->request = nullptr;
  operation->locked = false;
  Unpin(operation);
  locks_.Release(&operation->lock);
  pool_.Release(operation);
  DispatchWaiting();
  CloseWhenIdle();
}

// Its turn has come: to all members, or to one.
void Engine::Dispatch(Operation* operation) {
  operation->tag = ++next_tag_;
  operation->last_answer_ns = reactor_.NowNs();
  operation->waiting = operation->answered = operation->failed = 0;
  for (size_t i = 0; i < links_.size(); ++i) {
    operation->parts[i].state = MemberPart::State::kUnused;
  }
  in_flight_.PushBack(operation);
  if (mode_ == Mode::kRefused || mode_ == Mode::kStopped) {
    // It waited for a slot or a lock, and there is nobody to ask any more.
    to_judge_.PushBack(operation);
    reactor_.Defer(&answer_task_);
    return;
  }
  if (!operation->fans_out()) {
    CHECK(Route(operation));
    // Beside the read, so that it costs no round trip of its own.
    if (!HasLease(operation->last_answer_ns)) AskForLease();
    return;
  }
  const bool to_joiner = GoesToJoiner(operation);
  const auto takes = [this, to_joiner](size_t index) {
    return IsTarget(index) || (to_joiner && index == joiner_.index());
  };
  if (shared_ != nullptr) {
    int32_t answers = 0;
    for (const auto& link : links_) {
      answers += takes(link->index()) && link->shared() != nullptr ? 1 : 0;
    }
    shared_->Expect(operation->slot, answers);
  }
  for (size_t i = 0; i < links_.size(); ++i) {
    if (takes(i)) AddPart(operation, i, false);
  }
  CHECK(operation->waiting > 0);
}

// Makes the operation wait for this member, and sends it if the link is up.
bool Engine::AddPart(Operation* operation, size_t index, bool alone) {
  MemberPart& part = operation->parts[index];
  part.state = MemberPart::State::kWaiting;
  ++operation->waiting;
  if (!links_[index]->up()) return false;
  SendPart(operation, index, alone);
  return true;
}

// `alone`: its answer is waited for by itself, not as one of a round to all members.
void Engine::SendPart(Operation* operation, size_t index, bool alone) {
  MemberPart& part = operation->parts[index];
  Link& link = *links_[index];
  CHECK(part.state == MemberPart::State::kWaiting && !part.answer_due && !part.frame_out);
  const BlockRequest& request = *operation->request;
  wire::Header header;
  header.opcode = OpcodeOf(operation->kind);
  // A joiner is flushed before it counts: until then it need not be quick for nothing.
  if (operation->is_write() && request.force_unit_access && !IsState(operation->kind) &&
      (IsTarget(index) || joiner_.flushes())) {
    header.flags |= wire::kFlagForceUnitAccess;
  }
  if (operation->kind == BlockOperation::kZero && request.keep_allocated) {
    header.flags |= wire::kFlagKeepAllocated;
  }
  // Of the last one that can be asked, what it still has; of one that leaves, nothing that may be
  // lost.
  const bool last = targets().count - leaving_.count == 1 && whole_.count == 0;
  if (operation->kind == BlockOperation::kRead && IsStaying(index) && (operation->anyway || last)) {
    header.flags |= wire::kFlagAnyway;
  }
  // What is read for this is not to stay in the page cache.
  if (operation->own && operation->kind == BlockOperation::kRead) {
    header.flags |= wire::kFlagDisablePageOut;
  }
  header.tag = operation->tag;
  header.slot = operation->slot;
  header.offset_bytes = operation->offset_bytes;
  header.length_bytes = operation->length_bytes;
  header.complete_tag = CompleteTag();
  part.receiving = false;
  part.sent_ns = reactor_.NowNs();
  if (link.shared() != nullptr && SendShared(operation, link, header, alone)) return;
  part.frame.table = nullptr;
  part.frame.table_bytes = part.frame.data_bytes = 0;
  if (operation->carries_data()) {
    header.payload_bytes = operation->table_bytes + operation->length_bytes;
    header.payload_crc32c = operation->table_crc32c;
    part.frame.table = operation->table;
    part.frame.table_bytes = operation->table_bytes;
    part.frame.data = request.data;
    part.frame.data_bytes = operation->length_bytes;
  } else if (operation->kind == BlockOperation::kClean) {
    EncodeClean(*operation, link, &header, &part.frame);
  }
  wire::EncodeHeader(header, part.frame.header);
  part.frame.owner = &part;
  part.frame.sent = [](wire::OutgoingFrame* frame) {
    auto* sent = static_cast<MemberPart*>(frame->owner);
    static_cast<Engine*>(sent->operation->engine)->OnFrameSent(sent->operation, sent->index);
  };
  part.frame_out = part.answer_due = true;
  ++operation->frames_out;
  ++operation->answers_due;
  ++link.outstanding;
  link.Send(&part.frame);
}

// Through shared memory, unless there is no room or what is asked does not go that way.
bool Engine::SendShared(Operation* operation, Link& link, wire::Header header, bool alone) {
  SharedLink& shared = *link.shared();
  if (!shared.HasRoom() || operation->kind == BlockOperation::kStatus ||
      operation->kind == BlockOperation::kClean || IsState(operation->kind)) {
    return false;
  }
  MemberPart& part = operation->parts[link.index()];
  header.shared = true;
  if (operation->kind == BlockOperation::kWrite) {
    if (!buffers_->Contains(operation->request->data)) return false;
    header.shared_offset_bytes =
        static_cast<uint64_t>(operation->request->data - buffers_->arena());
  } else if (operation->kind == BlockOperation::kRead) {
    CHECK(part.chunk == nullptr);
    part.chunk = shared.AcquireRead(operation->length_bytes);
    if (part.chunk == nullptr) return false;
    header.shared_offset_bytes = shared.OffsetOf(part.chunk);
  }
  if (alone) shared_->Expect(operation->slot, 1);
  shared.Push(header, operation->table);
  link.FlushShared();
  part.answer_due = true;
  ++operation->answers_due;
  ++link.outstanding;
  return true;
}

void Engine::ReleaseChunk(MemberPart& part) {
  if (part.chunk != nullptr) BufferPool::Release(std::exchange(part.chunk, nullptr));
}

void Engine::OnFrameSent(Operation* operation, size_t index) {
  MemberPart& part = operation->parts[index];
  CHECK(part.frame_out);
  part.frame_out = false;
  --operation->frames_out;
  if (operation->request == nullptr) {
    Recycle(operation);
  } else if (!operation->fans_out() && operation->waiting == 0 && operation->failed > 0 &&
             operation->quiet() && !operation->queue_node.linked()) {
    // A read that is to be repaired first.
    to_judge_.PushBack(operation);
    reactor_.Defer(&answer_task_);
  }
}

// Sends a read (or a status) to the best member that has not been tried: the one with the least
// outstanding, and among equals the one whose turn this part of the volume is, as its page cache
// has it. False when all were tried.
bool Engine::Route(Operation* operation) {
  size_t best = SIZE_MAX;
  bool best_up = false;
  uint32_t best_outstanding = 0;
  const size_t count = links_.size();
  const size_t first = operation->offset_bytes / kRegionBytes % count;
  for (size_t n = 0; n < count; ++n) {
    const size_t i = (first + n) % count;
    const MemberPart& part = operation->parts[i];
    const Link& link = *links_[i];
    const bool tried =
        part.state == MemberPart::State::kWaiting || part.state == MemberPart::State::kFailed;
    // What was abandoned can be asked again, once its late answer has come.
    if (tried || part.answer_due || part.frame_out || !IsStaying(i) || link.gone()) continue;
    // One that a record is about to make a member serves when nobody else can.
    if (joiner_.IsResynced(i) && Staying().count > 1) continue;
    const bool better = best == SIZE_MAX || (link.up() && !best_up) ||
                        (link.up() == best_up && link.outstanding < best_outstanding);
    if (!better) continue;
    best = i;
    best_up = link.up();
    best_outstanding = link.outstanding;
  }
  if (best == SIZE_MAX) return false;
  AddPart(operation, best, true);
  return true;
}

void Engine::PartAnswered(Operation* operation, size_t index, ErrorCode status) {
  MemberPart& part = operation->parts[index];
  CHECK(part.state == MemberPart::State::kWaiting);
  --operation->waiting;
  operation->last_answer_ns = reactor_.NowNs();
  if (operation->kind == BlockOperation::kClean && status == ErrorCode::kInvalidArgument) {
    // Another record was written there meanwhile: the regions stay dirty, which is no fault.
    operation->refused |= IsTarget(index);
    status = ErrorCode::kOk;
  }
  if (operation->kind == BlockOperation::kClean && status == ErrorCode::kBusy) {
    operation->partly |= IsTarget(index);
    status = ErrorCode::kOk;
  }
  if (status == ErrorCode::kOk) {
    part.state = MemberPart::State::kAnswered;
    ++operation->answered;
    // A read that was sent to two members needs one answer.
    if (!operation->fans_out()) AbandonParts(operation);
  } else {
    part.state = MemberPart::State::kFailed;
    part.error = status;
    ++operation->failed;
    if (index == joiner_.index() && !IsTarget(index)) {
      // Its part ends with its connection.
      joiner_.LetGo({status, std::string("I/O failed: ") + ErrorCodeName(status)});
    }
  }
  Judge(operation);
}

void Engine::AbandonParts(Operation* operation) {
  for (MemberPart& part : operation->parts) {
    if (part.state != MemberPart::State::kWaiting) continue;
    part.state = MemberPart::State::kGone;
    --operation->waiting;
  }
}

// The member left, and nothing of its connection is in flight: nobody waits for its answer any
// more. What that decides is decided by JudgeAll.
void Engine::PartGone(Operation* operation, size_t index) {
  MemberPart& part = operation->parts[index];
  switch (part.state) {
    case MemberPart::State::kWaiting:
      --operation->waiting;
      break;
    case MemberPart::State::kFailed:
      --operation->failed;
      break;
    case MemberPart::State::kAnswered:
      --operation->answered;
      break;
    case MemberPart::State::kUnused:
    case MemberPart::State::kGone:
      // A read may wait for nothing but to ask this one again.
      if (operation->fans_out() || operation->waiting > 0) return;
      break;
  }
  part.state = MemberPart::State::kGone;
  if (!operation->queue_node.linked()) to_judge_.PushBack(operation);
}

// The outcome is known. While a record is proposed nothing that changed data is acknowledged.
void Engine::Finish(Operation* operation, ErrorCode status) {
  operation->status = status;
  // The engine's own flushes promise nothing to a client: resync goes on.
  if (lost_writes_ && operation->kind == BlockOperation::kFlush && !operation->own &&
      status == ErrorCode::kOk) {
    operation->status = ErrorCode::kIoError;
  }
  if ((proposal_.outstanding && operation->fans_out()) || FlushesTooLittle(*operation) ||
      ReadsTooEarly(*operation)) {
    held_.PushBack(operation);
    return;
  }
  // What a member answered was current when it did if no other engine can have acknowledged
  // anything since.
  if (!operation->fans_out() && status == ErrorCode::kOk && !HasLease(operation->last_answer_ns)) {
    if (unproved_.empty()) unproved_since_ns_ = operation->last_answer_ns;
    unproved_.PushBack(operation);
    AskForLease();
    return;
  }
  Acknowledge(operation);
}

void Engine::Acknowledge(Operation* operation) {
  BlockRequest* request = operation->request;
  in_flight_.Remove(operation);
  left_over_.PushBack(operation);
  operation->request = nullptr;
  Unpin(operation);
  if (operation->flush_ticket != 0 && operation->status == ErrorCode::kOk) {
    regions_.FlushEnds(operation->flush_ticket);
  }
  if (operation->status == ErrorCode::kOk) {
    if (operation->partly) operation->status = ErrorCode::kBusy;
    if (operation->refused) operation->status = ErrorCode::kCancelled;
  }
  const bool own = operation->own;
  if (operation->locked) {
    operation->locked = false;
    locks_.Release(&operation->lock);
  }
  for (MemberPart& part : operation->parts) part.state = MemberPart::State::kUnused;
  operation->waiting = operation->answered = operation->failed = 0;
  operation->retry_ns = 0;
  Recycle(operation);
  request->status = operation->status;
  if (joiner_.phase() == Joiner::Phase::kFinal) joiner_.OnQuiet(CompleteTag());
  if (!IsState(request->operation) && !own) {
    counters_.Add(request->operation, request->length_bytes, request->status != ErrorCode::kOk,
                  reactor_.NowNs() - request->submitted_ns);
  }
  request->done(request);
}

void Engine::Recycle(Operation* operation) {
  if (!operation->quiet()) return;
  left_over_.Remove(operation);
  pool_.Release(operation);
  snapshotter_.OnQuieter();
  DispatchWaiting();
}

void Engine::DispatchWaiting() {
  const bool nested = !nested_.empty();
  RequestQueue& queue = nested ? nested_ : queue_;
  if (queue.empty() || !HasSlot(nested)) return;
  Begin(pool_.Acquire(), queue.Pop());
}

void Engine::RetryFull(uint64_t now_ns) {
  while (!full_.empty() && full_.front()->retry_ns <= now_ns) {
    Operation* operation = full_.front();
    if (!operation->quiet()) return;
    full_.Remove(operation);
    in_flight_.Remove(operation);
    AbandonParts(operation);
    Dispatch(operation);
  }
  if (out_of_space_ns_ != 0 && now_ns - out_of_space_ns_ >= 2 * kFullRetryNs &&
      !AnyWithoutSpace()) {
    out_of_space_ns_ = 0;
    GoesOn();
  }
}

// One that is tried again has no outcome yet: that it takes long does not say that there is space.
bool Engine::AnyWithoutSpace() const {
  Operation* operation = in_flight_.front();
  while (operation != nullptr && operation->retry_ns == 0) operation = in_flight_.Next(operation);
  return operation != nullptr;
}

// Those that are in nobody's hands but ours: held acknowledgements, reads and retries.
void Engine::FailWaiting(ErrorCode status) {
  for (auto* list : {&held_, &unproved_, &full_}) {
    while (Operation* operation = list->PopFront()) {
      operation->status = status;
      Acknowledge(operation);
    }
  }
}

// The connection is gone and with it the frames and the answers.
void Engine::DetachPart(Operation* operation, size_t index) {
  MemberPart& part = operation->parts[index];
  if (Mutant("lock-released") && part.answer_due && operation->locked &&
      operation->kind != BlockOperation::kHold) {
    operation->locked = false;
    locks_.Release(&operation->lock);
  }
  if (part.frame_out) {
    part.frame_out = false;
    --operation->frames_out;
  }
  if (part.answer_due) {
    part.answer_due = part.receiving = false;
    part.chunk = nullptr;  // goes with the connection's shared memory
    --operation->answers_due;
    --links_[index]->outstanding;
  }
}

}  // namespace ankole::engine
