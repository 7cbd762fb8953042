#include "scsi/logical_unit.h"

#include <algorithm>

#include "scsi/body.h"
#include "scsi/fault.h"

// The life of a task: order, what is checked before it, and its end.
namespace ankole::scsi {

namespace {

// SAM-5, 5.14.1: these neither report a unit attention by CHECK CONDITION nor clear one so.
bool PassesAttention(Kind kind) {
  return kind == Kind::kInquiry || kind == Kind::kReportLuns || kind == Kind::kRequestSense;
}

bool ChangesMedium(Kind kind) {
  switch (kind) {
    case Kind::kWrite:
    case Kind::kWriteAndVerify:
    case Kind::kCompareAndWrite:
    case Kind::kOrWrite:
    case Kind::kUnmap:
    case Kind::kWriteSame:
    case Kind::kExtendedCopy:
      return true;
    default:
      return false;
  }
}

// What a stopped logical unit refuses (SBC-3, 4.20.4).
bool NeedsMedium(Kind kind) {
  switch (kind) {
    case Kind::kTestUnitReady:
    case Kind::kReadCapacity10:
    case Kind::kReadCapacity16:
    case Kind::kReadDefectData:
    case Kind::kGetLbaStatus:
    case Kind::kRead:
    case Kind::kVerify:
    case Kind::kPreFetch:
    case Kind::kSynchronizeCache:
      return true;
    default:
      return ChangesMedium(kind);
  }
}

}  // namespace

bool IsThisUnit(const std::array<uint8_t, 8>& lun) {
  if ((lun[0] & 0xc0) != 0x00 && (lun[0] & 0xc0) != 0x40) return false;
  return (lun[0] & 0x3f) == 0 &&
         std::all_of(lun.begin() + 1, lun.end(), [](uint8_t byte) { return byte == 0; });
}

// --- the face ------------------------------------------------------------------------------------

LogicalUnit::LogicalUnit(io::Reactor& reactor, BlockDevice& device, LogSink& log, Identity identity)
    : body_(std::make_unique<Body>(reactor, device, log, std::move(identity))) {}
LogicalUnit::~LogicalUnit() = default;
void LogicalUnit::Start(std::function<void(const Status&)> ready) {
  body_->Start(std::move(ready));
}
Nexus* LogicalUnit::AddNexus(const std::string& initiator_port) {
  return body_->AddNexus(initiator_port);
}
void LogicalUnit::RemoveNexus(Nexus* nexus) { body_->RemoveNexus(nexus); }
void LogicalUnit::CapacityChanged() { body_->CapacityChanged(); }
void LogicalUnit::SetResources(const Resources& resources) { body_->SetResources(resources); }
Needs LogicalUnit::Prepare(Task* task) { return body_->Prepare(task); }
void LogicalUnit::Execute(Task* task) { body_->Execute(task); }
void LogicalUnit::Abort(Task* task) { body_->Abort(task); }
void LogicalUnit::Manage(TaskManagement function, Nexus* nexus) { body_->Manage(function, nexus); }
size_t LogicalUnit::tasks() const { return body_->tasks(); }

// --- nexuses -------------------------------------------------------------------------------------

LogicalUnit::Body::Body(io::Reactor& reactor, BlockDevice& device, LogSink& log, Identity identity)
    : reactor_(reactor),
      device_(device),
      log_(log),
      identity_(std::move(identity)),
      capacity_blocks_(device.size_bytes() / kLogicalBlockBytes) {
  CHECK(IsPhysicalBlock(identity_.physical_block_bytes));
  finish_task_.owner = this;
  finish_task_.done = [](io::Operation* o) { static_cast<Body*>(o->owner)->RunFinished(); };
  no_memory_task_.owner = this;
  no_memory_task_.done = [](io::Operation* o) {
    static_cast<Body*>(o->owner)->Ready(
        {ErrorCode::kBusy, "no buffer is free for the state of persistent reservations"});
  };
  state_request_.body = this;
}

LogicalUnit::Body::~Body() {
  CHECK(tasks() == 0 && nexuses_.empty() && !finish_task_.scheduled && !ready_);
  if (state_chunk_ != nullptr) BufferPool::Release(state_chunk_);
}

Nexus* LogicalUnit::Body::AddNexus(const std::string& initiator_port) {
  CHECK(started_ && !initiator_port.empty() && initiator_port.size() <= kPortNameBytesMax);
  Nexus* nexus = nexuses_.emplace_back(std::make_unique<Nexus>(*this, initiator_port)).get();
  nexus->relation = RelationOf(reservations_, initiator_port);
  nexus->attentions.Raise(SenseCode::kPowerOn);
  return nexus;
}

void LogicalUnit::Body::RemoveNexus(Nexus* nexus) {
  for (TaskList* list : {&tasks_, &finished_}) {
    for (Task* task = list->front(); task != nullptr; task = list->Next(task)) {
      CHECK(task->nexus != nexus);
    }
  }
  // SPC-2, 7.21: a loss of the nexus ends its reservation.
  if (reserved_by_ == nexus) reserved_by_ = nullptr;
  std::erase_if(nexuses_, [&](const auto& candidate) { return candidate.get() == nexus; });
}

// What was decoded before lies below the old end.
void LogicalUnit::Body::CapacityChanged() {
  const uint64_t blocks = device_.size_bytes() / kLogicalBlockBytes;
  CHECK(blocks >= capacity_blocks_);
  if (blocks == capacity_blocks_) return;
  capacity_blocks_ = blocks;
  RaiseAll(SenseCode::kCapacityDataHasChanged, nullptr);
}

void LogicalUnit::Body::SetResources(const Resources& resources) {
  const bool reached = resources.low && !resources_.low;
  resources_ = resources;
  if (reached) RaiseAll(SenseCode::kThinProvisioningSoftThreshold, nullptr);
}

void LogicalUnit::Body::RaiseAll(SenseCode code, const Nexus* except) {
  for (const auto& nexus : nexuses_) {
    if (nexus.get() != except) nexus->attentions.Raise(code);
  }
}

// --- order ---------------------------------------------------------------------------------------

Needs LogicalUnit::Body::Prepare(Task* task) {
  CHECK(task->stage == Stage::kIdle);
  task->prepared = true;
  task->refused = task->aborted = task->holding = false;
  task->status = ScsiStatus::kGood;
  task->sense = {};
  task->in_bytes = task->wanted_bytes = 0;
  task->proceed = nullptr;
  task->next_bytes = 0;
  task->next_segment = task->copied_bytes = 0;
  task->fault = ErrorCode::kOk;
  task->fault_of_write = false;

  std::optional<Sense> refused = Decode(task->cdb, capacity_blocks_, &task->command);
  if (!IsThisUnit(task->lun) && (refused || !PassesAttention(task->command.kind))) {
    refused = IllegalRequest(SenseCode::kLogicalUnitNotSupported);
  } else if (task->attribute == TaskAttribute::kAca) {
    // There is no ACA condition that it could belong to (SAM-5, 8.6.5).
    refused = IllegalRequest(SenseCode::kInvalidFieldInInformationUnit);
  }
  if (refused) {
    task->refused = true;
    task->status = ScsiStatus::kCheckCondition;
    task->sense = *refused;
    return {};
  }
  return NeedsOf(task->command);
}

void LogicalUnit::Body::Execute(Task* task) {
  CHECK(task->prepared && task->stage == Stage::kIdle);
  const Entry entry(this);
  const bool alone = tasks_.empty();
  bool waits = false;
  if (task->attribute == TaskAttribute::kOrdered) {
    waits = !alone;
    ++ordered_;
  } else if (task->attribute == TaskAttribute::kSimple) {
    waits = ordered_ > 0;
  }
  tasks_.PushBack(task);
  if (waits) {
    task->stage = Stage::kDormant;
    ++dormant_;
  } else {
    Begin(task);
  }
}

// The first dormant task that need not wait any more: nothing but heads of the queue passes an
// ordered one, and that waits for all before it.
Task* LogicalUnit::Body::NextToWake() const {
  for (Task* task = tasks_.front(); task != nullptr; task = tasks_.Next(task)) {
    const bool ordered = task->attribute == TaskAttribute::kOrdered;
    if (task->stage == Stage::kDormant && (!ordered || task == tasks_.front())) return task;
    if (ordered) return nullptr;
  }
  return nullptr;
}

// Begins the tasks that waited for one that has ended. From the front again after each, as it may
// have ended at once, and others with it.
void LogicalUnit::Body::Wake() {
  if (waking_ || dormant_ == 0) return;
  const Entry entry(this);
  waking_ = true;
  while (Task* task = NextToWake()) {
    --dormant_;
    Begin(task);
  }
  waking_ = false;
}

void LogicalUnit::Body::Begin(Task* task) {
  task->stage = Stage::kRunning;
  Nexus& nexus = *task->nexus;
  if (!nexus.attentions.empty() && IsThisUnit(task->lun) && !PassesAttention(task->command.kind)) {
    return Refuse(task, nexus.attentions.Take());
  }
  if (task->refused) return Finish(task);
  if (Conflict(*task)) return End(task, ScsiStatus::kReservationConflict);
  if (const std::optional<Sense> refused = CheckMedium(task->command)) {
    return Refuse(task, *refused);
  }
  Dispatch(task);
}

std::optional<Sense> LogicalUnit::Body::CheckMedium(const Command& command) const {
  if (stopped_ && NeedsMedium(command.kind)) {
    return Sense{SenseKey::kNotReady, SenseCode::kInitializingCommandRequired, {}, {}, {}};
  }
  if (device_.read_only() && ChangesMedium(command.kind)) {
    return Sense{SenseKey::kDataProtect, SenseCode::kWriteProtected, {}, {}, {}};
  }
  if (mode_.software_write_protect && ChangesMedium(command.kind)) {
    return Sense{SenseKey::kDataProtect, SenseCode::kSoftwareWriteProtected, {}, {}, {}};
  }
  return {};
}

void LogicalUnit::Body::Dispatch(Task* task) {
  switch (task->command.kind) {
    case Kind::kRead:
      return Read(task);
    case Kind::kWrite:
      return Write(task);
    case Kind::kWriteAndVerify:
      return WriteAndVerify(task);
    case Kind::kVerify:
      return Verify(task);
    case Kind::kCompareAndWrite:
      return CompareAndWrite(task);
    case Kind::kOrWrite:
      return OrWrite(task);
    case Kind::kSynchronizeCache:
      return SynchronizeCache(task);
    case Kind::kUnmap:
      return Unmap(task);
    case Kind::kWriteSame:
      return WriteSame(task);
    case Kind::kExtendedCopy:
      return ExtendedCopy(task);
    case Kind::kGetLbaStatus:
      return GetLbaStatus(task);
    case Kind::kStartStopUnit:
      return StartStopUnit(task);
    case Kind::kReserve:
      return Reserve(task);
    case Kind::kRelease:
      return Release(task);
    case Kind::kPersistentIn:
      return PersistentIn(task);
    case Kind::kPersistentOut:
      return PersistentOutArrived(task);
    default:
      return Parameters(task);
  }
}

// --- requests of the device ----------------------------------------------------------------------

TaskRequest* LogicalUnit::Body::Request(Task* task, size_t index, BlockOperation operation,
                                        uint64_t offset_bytes, uint64_t length_bytes,
                                        std::byte* data) {
  TaskRequest& request = task->requests[index];
  request = {};
  request.task = task;
  request.done = &OnRequestDone;
  request.operation = operation;
  request.offset_bytes = offset_bytes;
  request.length_bytes = length_bytes;
  request.data = data;
  if (task->holding && operation != BlockOperation::kFlush) request.hold = &task->hold;
  return &request;
}

void LogicalUnit::Body::Submit(Task* task, size_t count, void (*proceed)(Task*)) {
  task->proceed = proceed;
  task->requests_busy = static_cast<uint32_t>(count);
  for (size_t i = 0; i < count; ++i) device_.Submit(&task->requests[i]);
}

void LogicalUnit::Body::Hold(Task* task, void (*proceed)(Task*)) {
  task->hold = {};
  task->hold.task = task;
  task->hold.done = &OnRequestDone;
  task->hold.operation = BlockOperation::kHold;
  task->hold.offset_bytes = task->command.lba * kLogicalBlockBytes;
  task->hold.length_bytes = task->command.blocks * kLogicalBlockBytes;
  task->proceed = proceed;
  task->requests_busy = 1;
  device_.Submit(&task->hold);
}

void LogicalUnit::Body::OnRequestDone(BlockRequest* block_request) {
  auto* request = static_cast<TaskRequest*>(block_request);
  Task* task = request->task;
  if (request->status != ErrorCode::kOk) {
    if (task->fault == ErrorCode::kOk) {
      task->fault = request->status;
      task->fault_of_write = request->operation != BlockOperation::kRead &&
                             request->operation != BlockOperation::kStatus &&
                             request->operation != BlockOperation::kHold;
    }
  } else if (request == &task->hold) {
    task->holding = true;
  }
  if (--task->requests_busy == 0) task->nexus->body.Continue(task);
}

void LogicalUnit::Body::Continue(Task* task) {
  if (task->aborted) return Finish(task);
  if (task->fault != ErrorCode::kOk) return FinishFault(task);
  void (*proceed)(Task*) = std::exchange(task->proceed, nullptr);
  if (proceed == nullptr) return Finish(task);
  proceed(task);
}

// --- the end -------------------------------------------------------------------------------------

void LogicalUnit::Body::FinishFault(Task* task) {
  Outcome outcome = OutcomeOf(task->fault, task->fault_of_write);
  // Whether the write has come to pass is not known, and once more it would compare with itself.
  if (outcome.status == ScsiStatus::kBusy && task->fault_of_write &&
      task->command.kind == Kind::kCompareAndWrite) {
    outcome = OutcomeOf(ErrorCode::kInternal, true);
  }
  // Once more it might copy what it has written itself, in place of what was there.
  if (outcome.status == ScsiStatus::kBusy && task->command.kind == Kind::kExtendedCopy &&
      (task->fault_of_write || task->copied_bytes > 0)) {
    outcome = {ScsiStatus::kCheckCondition,
               {SenseKey::kCopyAborted, SenseCode::kThirdPartyDeviceFailure, {}, {}, {}}};
  }
  task->status = outcome.status;
  task->sense = outcome.sense;
  task->in_bytes = 0;
  Finish(task);
}

void LogicalUnit::Body::Refuse(Task* task, const Sense& sense) {
  task->status = ScsiStatus::kCheckCondition;
  task->sense = sense;
  Finish(task);
}

void LogicalUnit::Body::End(Task* task, ScsiStatus status) {
  task->status = status;
  Finish(task);
}

std::span<std::byte> LogicalUnit::Body::Room(const Task& task) {
  return {task.in[0].data, std::min(task.in_room_bytes, kDataBytesMax)};
}

void LogicalUnit::Body::Deliver(Task* task, const Answer& answer) {
  const uint32_t allowed =
      task->command.kind == Kind::kReadCapacity10 ? answer.bytes() : task->command.allocation_bytes;
  task->wanted_bytes = std::min(answer.bytes(), allowed);
  task->in_bytes = std::min(task->wanted_bytes, answer.bytes_in_room());
  Finish(task);
}

void LogicalUnit::Body::Finish(Task* task) {
  tasks_.Remove(task);
  if (task->command.kind == Kind::kExtendedCopy) task->nexus->copies.End(*task);
  if (task->attribute == TaskAttribute::kOrdered) --ordered_;
  task->stage = Stage::kFinished;
  task->sense.descriptor = mode_.descriptor_sense;
  Wake();
  if (task->holding) {
    task->holding = false;
    // What waited for it may end, and its transport call here, before this returns.
    device_.Release(&task->hold);
  }
  if (entries_ > 0) {
    finished_.PushBack(task);
    reactor_.Defer(&finish_task_);
    return;
  }
  EndWithout(task);
}

void LogicalUnit::Body::EndWithout(Task* task) {
  task->stage = Stage::kIdle;
  task->prepared = false;
  task->done(task);
}

void LogicalUnit::Body::RunFinished() {
  while (Task* task = finished_.PopFront()) EndWithout(task);
}

// --- task management -----------------------------------------------------------------------------

void LogicalUnit::Body::Abort(Task* task) {
  const Entry entry(this);
  CHECK(task->stage != Stage::kIdle);
  task->aborted = true;
  if (task->stage == Stage::kDormant) --dormant_;
  // What is running ends when its requests have; it begins no others.
  if (task->stage == Stage::kDormant || task->stage == Stage::kQueued) Finish(task);
}

// Whether there was one.
bool LogicalUnit::Body::AbortAll(const Nexus& nexus, const Task* except) {
  const Pause pause(this);
  bool any = false;
  Task* next = nullptr;
  for (Task* task = tasks_.front(); task != nullptr; task = next) {
    next = tasks_.Next(task);
    if (task->nexus != &nexus || task == except) continue;
    any = true;
    Abort(task);
  }
  return any;
}

void LogicalUnit::Body::Manage(TaskManagement function, Nexus* nexus) {
  const Pause pause(this);
  const bool reset =
      function == TaskManagement::kLogicalUnitReset || function == TaskManagement::kTargetReset;
  for (const auto& each : nexuses_) {
    const bool own = each.get() == nexus;
    if (function == TaskManagement::kAbortTaskSet && !own) continue;
    // TAS = 0: the others learn of it so (SAM-5, 5.14.4).
    if (AbortAll(*each) && !own && !reset) each->attentions.Raise(SenseCode::kCommandsCleared);
  }
  if (reset) {
    reserved_by_ = nullptr;
    mode_ = {};
    stopped_ = false;
    for (const auto& each : nexuses_) each->copies.Forget();
    RaiseAll(SenseCode::kBusDeviceReset, nullptr);
  }
}

}  // namespace ankole::scsi
