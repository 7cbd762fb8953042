#include <algorithm>
#include <cstring>

#include "scsi/body.h"
#include "scsi/fault.h"

// Reservations: both kinds, and their state that is kept with the volume.
namespace ankole::scsi {

namespace {

// Commands that a reservation of RESERVE leaves to others (SPC-2, table 9; SBC-2, table 5).
bool PassesReserve(Kind kind) {
  switch (kind) {
    case Kind::kInquiry:
    case Kind::kReportLuns:
    case Kind::kRequestSense:
    case Kind::kRelease:
    case Kind::kReadCapacity10:
    case Kind::kReadCapacity16:
      return true;
    default:
      return false;
  }
}

bool IsPersistent(Kind kind) { return kind == Kind::kPersistentIn || kind == Kind::kPersistentOut; }

}  // namespace

bool LogicalUnit::Body::Conflict(const Task& task) const {
  const Command& command = task.command;
  if (!IsThisUnit(task.lun)) return false;
  if (reserved_by_ != nullptr) {
    // The two kinds of reservations do not mix, also for one initiator (SPC-2, 5.5.1).
    if (IsPersistent(command.kind)) return true;
    if (reserved_by_ != task.nexus && !PassesReserve(command.kind)) return true;
  }
  return Conflicts(reservations_.type, task.nexus->relation, command.access);
}

// --- RESERVE, RELEASE (SPC-2, 7.21 and 7.16) -----------------------------------------------------

namespace {

// SPC-4, 5.12.3, as REPORT CAPABILITIES promises by CRH = 1: for who has access by a persistent
// reservation RESERVE and RELEASE are done without doing anything.
bool HasPersistentAccess(const Reservations& reservations, Relation relation) {
  if (reservations.type == ReservationType::kNone) return false;
  return relation == Relation::kHolder ||
         (relation == Relation::kRegistered &&
          !Conflicts(reservations.type, relation, Access::kWrites));
}

}  // namespace

void LogicalUnit::Body::Reserve(Task* task) {
  if (!reservations_.registrations.empty()) {
    return End(task, HasPersistentAccess(reservations_, task->nexus->relation)
                         ? ScsiStatus::kGood
                         : ScsiStatus::kReservationConflict);
  }
  reserved_by_ = task->nexus;
  Finish(task);
}

void LogicalUnit::Body::Release(Task* task) {
  if (!reservations_.registrations.empty()) {
    return End(task, HasPersistentAccess(reservations_, task->nexus->relation)
                         ? ScsiStatus::kGood
                         : ScsiStatus::kReservationConflict);
  }
  if (reserved_by_ == task->nexus) reserved_by_ = nullptr;
  Finish(task);
}

// --- PERSISTENT RESERVE IN (SPC-4, 6.15) ---------------------------------------------------------

namespace {

enum class PersistentInAction : uint8_t {
  kReadKeys = 0,
  kReadReservation = 1,
  kReportCapabilities = 2,
  kReadFullStatus = 3,
};

void BuildReadKeys(const Reservations& reservations, Answer* to) {
  to->U32(reservations.generation);
  to->U32(static_cast<uint32_t>(reservations.registrations.size() * 8));
  for (const Registration& registration : reservations.registrations) to->U64(registration.key);
}

void BuildReadReservation(const Reservations& reservations, Answer* to) {
  const bool reserved = reservations.type != ReservationType::kNone;
  to->U32(reservations.generation);
  to->U32(reserved ? 16 : 0);
  if (!reserved) return;
  // The holder's key; 0 where all that are registered hold it.
  to->U64(reservations.holder ? reservations.registrations[*reservations.holder].key : 0);
  to->U32(0);
  to->U8(0);
  to->U8(static_cast<uint8_t>(reservations.type));  // scope 0, the logical unit
  to->U16(0);
}

void BuildReportCapabilities(Answer* to) {
  to->U16(8);
  // CRH; ATP_C, as all target ports are one; PTPL_C. No SIP_C: nobody registers another one.
  to->U8(0x15);
  // TMV; ALLOW COMMANDS 011b: TEST UNIT READY passes all types, MODE SENSE and the reports pass
  // write exclusive ones; PTPL_A, as all is kept.
  to->U8(0x80 | 0x30 | 0x01);
  to->U16(0xea01);  // the six types
  to->U16(0);
}

void BuildReadFullStatus(const Reservations& reservations, Answer* to) {
  constexpr uint8_t kAllTargetPorts = 0x02;
  constexpr uint8_t kHolds = 0x01;
  to->U32(reservations.generation);
  to->U32(0);
  for (const Registration& registration : reservations.registrations) {
    const bool holds = RelationOf(reservations, registration.port) == Relation::kHolder;
    to->U64(registration.key);
    to->U32(0);
    to->U8(kAllTargetPorts | (holds ? kHolds : 0));
    to->U8(holds ? static_cast<uint8_t>(reservations.type) : 0);
    to->U32(0);
    to->U16(kRelativeTargetPort);
    // TransportID of an iSCSI initiator port (SPC-4, 7.6.4.6): the name, a zero, and padding.
    const size_t name_bytes = std::max<size_t>((registration.port.size() + 4) / 4 * 4, 20);
    to->U32(static_cast<uint32_t>(4 + name_bytes));
    to->U8(0x45);
    to->U8(0);
    to->U16(static_cast<uint16_t>(name_bytes));
    to->Bytes(registration.port.data(), registration.port.size());
    to->Zeroes(name_bytes - registration.port.size());
  }
  to->PatchU32(4, to->bytes() - 8);
}

}  // namespace

void LogicalUnit::Body::PersistentIn(Task* task) {
  Answer answer(Room(*task));
  switch (static_cast<PersistentInAction>(task->command.service_action)) {
    case PersistentInAction::kReadKeys:
      BuildReadKeys(reservations_, &answer);
      break;
    case PersistentInAction::kReadReservation:
      BuildReadReservation(reservations_, &answer);
      break;
    case PersistentInAction::kReportCapabilities:
      BuildReportCapabilities(&answer);
      break;
    case PersistentInAction::kReadFullStatus:
      BuildReadFullStatus(reservations_, &answer);
      break;
  }
  Deliver(task, answer);
}

// --- PERSISTENT RESERVE OUT ----------------------------------------------------------------------

// One at a time: each goes on from what the one before has stored.
void LogicalUnit::Body::PersistentOutArrived(Task* task) {
  task->wanted_bytes = task->command.parameter_bytes;
  if (storing_ != nullptr) {
    task->stage = Stage::kQueued;
    return;
  }
  BeginPersistentOut(task);
}

void LogicalUnit::Body::BeginPersistentOut(Task* task) {
  task->stage = Stage::kRunning;
  PersistentOut request;
  const std::span<const std::byte> list(task->out[0].data,
                                        std::min(task->out_bytes, kPersistentOutBytes));
  if (const std::optional<Sense> refused = DecodePersistentOut(task->command, list, &request)) {
    return Refuse(task, *refused);
  }
  transition_ = Apply(reservations_, task->nexus->initiator_port, request);
  if (transition_.conflict) return End(task, ScsiStatus::kReservationConflict);
  if (transition_.refused) return Refuse(task, *transition_.refused);
  if (transition_.next == reservations_ && !unsure_) return Finish(task);
  storing_ = task;
  Store(transition_.next, &Step<&Body::FinishPersistentOut>);
}

void LogicalUnit::Body::Store(const Reservations& state, void (*stored)(Task*)) {
  EncodeState(state, {state_chunk_->data, kTargetStateBytes});
  TaskRequest* store =
      Request(storing_, 0, BlockOperation::kStoreState, 0, kTargetStateBytes, state_chunk_->data);
  // Not by way of Continue: an aborted task, too, goes on to where one state is known to hold.
  store->done = [](BlockRequest* request) {
    Task* task = static_cast<TaskRequest*>(request)->task;
    task->requests_busy = 0;
    task->proceed(task);
  };
  storing_->proceed = stored;
  storing_->requests_busy = 1;
  device_.Submit(store);
}

void LogicalUnit::Body::FinishPersistentOut(Task* task) {
  if (task->requests[0].status != ErrorCode::kOk) {
    // Some members may hold the new state. It is made the old one again, so that no later engine
    // comes up with what was answered with an error.
    task->fault = task->requests[0].status;
    task->fault_of_write = true;
    return Store(reservations_, &Step<&Body::FinishFailedPersistentOut>);
  }
  unsure_ = false;
  storing_ = nullptr;
  Adopt(std::exchange(transition_, {}), task);
  BeginNextPersistentOut();
  Finish(task);
}

void LogicalUnit::Body::FinishFailedPersistentOut(Task* task) {
  unsure_ = task->requests[0].status != ErrorCode::kOk;
  if (unsure_) {
    log_.Log(LogLevel::kError,
             identity_.target + ": persistent reservations could not be stored (" +
                 ErrorCodeName(task->requests[0].status) +
                 "); until that works, replicas may hold what was answered with an error");
  }
  storing_ = nullptr;
  BeginNextPersistentOut();
  FinishFault(task);
}

void LogicalUnit::Body::BeginNextPersistentOut() {
  const Entry entry(this);
  for (Task* task = tasks_.front(); task != nullptr && storing_ == nullptr;) {
    if (task->stage != Stage::kQueued) {
      task = tasks_.Next(task);
      continue;
    }
    BeginPersistentOut(task);
    task = tasks_.front();
  }
}

// From here on the new state holds for every command that begins: for all nexuses, before a task
// that is aborted makes room for another one.
void LogicalUnit::Body::Adopt(Transition transition, Task* by) {
  const Pause pause(this);
  reservations_ = std::move(transition.next);
  for (const auto& nexus : nexuses_) {
    nexus->relation = RelationOf(reservations_, nexus->initiator_port);
    for (const Attention& attention : transition.attentions) {
      if (attention.port == nexus->initiator_port) nexus->attentions.Raise(attention.code);
    }
    for (const std::string& port : transition.aborted) {
      if (port == nexus->initiator_port) AbortAll(*nexus, by);
    }
  }
}

// --- the state that is kept with the volume ------------------------------------------------------

void LogicalUnit::Body::Start(std::function<void(const Status&)> ready) {
  CHECK(!started_ && !ready_ && ready);
  ready_ = std::move(ready);
  if (state_chunk_ == nullptr) state_chunk_ = device_.buffers().Acquire(kTargetStateBytes);
  if (state_chunk_ == nullptr) return reactor_.Defer(&no_memory_task_);
  SendState(BlockOperation::kLoadState);
}

void LogicalUnit::Body::SendState(BlockOperation operation) {
  static_cast<BlockRequest&>(state_request_) = {};
  state_request_.done = [](BlockRequest* request) {
    static_cast<StateRequest*>(request)->body->OnState();
  };
  state_request_.operation = operation;
  state_request_.length_bytes = kTargetStateBytes;
  state_request_.data = state_chunk_->data;
  device_.Submit(&state_request_);
}

void LogicalUnit::Body::OnState() {
  const bool loading = state_request_.operation == BlockOperation::kLoadState;
  const ErrorCode failed = state_request_.status;
  if (failed != ErrorCode::kOk && failed != ErrorCode::kCorrupt) {
    return Ready({failed, std::string("the state of persistent reservations could not be ") +
                              (loading ? "read from" : "written to") +
                              " the replicas: " + ErrorCodeName(failed) + "; try again"});
  }
  if (!loading && failed == ErrorCode::kOk) return Ready(Status::Ok());
  Result<Reservations> loaded =
      failed == ErrorCode::kOk ? DecodeState({state_chunk_->data, kTargetStateBytes})
                               : Result<Reservations>(Status(failed, "is corrupt in its file"));
  if (!loaded.ok()) {
    return Ready({loaded.status().code(),
                  "the state of persistent reservations, as the replicas hold it, " +
                      loaded.status().message() +
                      "; nobody is served, as without it a host that was fenced off could write. "
                      "See «The state kept with a volume» in docs/reference/scsi.md"});
  }
  reservations_ = loaded.Take();
  EncodeState(reservations_, {state_chunk_->data, kTargetStateBytes});
  SendState(BlockOperation::kStoreState);
}

void LogicalUnit::Body::Ready(const Status& status) {
  started_ = status.ok();
  if (!status.ok()) log_.Log(LogLevel::kError, identity_.target + ": " + status.message());
  std::exchange(ready_, nullptr)(status);
}

}  // namespace ankole::scsi
