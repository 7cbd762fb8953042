#include <algorithm>

#include "iscsi/connection.h"

// What is no SCSI command: pings, task management, text, logout.
namespace ankole::iscsi {

namespace {

// LUN 0 in the peripheral and in the flat addressing method (SAM-5, 4.7).
bool IsLunZero(const Lun& lun) {
  if ((lun[0] & 0x80) != 0 || (lun[0] & 0x3f) != 0) return false;
  return std::all_of(lun.begin() + 1, lun.end(), [](uint8_t byte) { return byte == 0; });
}

}  // namespace

// Its turn has come.
void Connection::Carry(Request* request) {
  switch (static_cast<Opcode>(request->header.opcode & kOpcodeMask)) {
    case Opcode::kTaskManagementRequest:
      return CarryTaskManagement(request);
    case Opcode::kTextRequest:
      return CarryText(request);
    case Opcode::kLogoutRequest:
      return CarryLogout(request);
    default:
      break;
  }
  // A ping.
  request->data_bytes =
      std::min({request->data_bytes, kPingBytesMax, parameters_.send_segment_bytes_max});
  Queue(request);
}

// --- task management -----------------------------------------------------------------------------

void Connection::CarryTaskManagement(Request* request) {
  const auto header = As<TaskManagementRequest>(request->header);
  request->response =
      static_cast<uint8_t>(discovery_ ? TaskFunctionResponse::kRejected : Manage(header));
  Queue(request);
}

// What is at the logical unit is aborted there and answered no more; it keeps the range lock of
// what it has begun, so no later command can be overtaken by it, and the answer need not wait.
TaskFunctionResponse Connection::Manage(const TaskManagementRequest& header) {
  const auto function = static_cast<TaskFunction>(header.flags & 0x7f);
  const bool of_unit =
      function == TaskFunction::kAbortTask || function == TaskFunction::kAbortTaskSet ||
      function == TaskFunction::kClearTaskSet || function == TaskFunction::kLogicalUnitReset;
  if (of_unit && !IsLunZero(header.lun)) return TaskFunctionResponse::kNoLun;
  switch (function) {
    case TaskFunction::kAbortTask:
      return AbortTask(header.referenced_tag);
    case TaskFunction::kAbortTaskSet:
      ForgetTasks();
      unit_.Manage(scsi::TaskManagement::kAbortTaskSet, nexus_);
      return TaskFunctionResponse::kComplete;
    case TaskFunction::kClearTaskSet:
      owner_.OnReset(false);
      unit_.Manage(scsi::TaskManagement::kClearTaskSet, nexus_);
      return TaskFunctionResponse::kComplete;
    case TaskFunction::kLogicalUnitReset:
      owner_.OnReset(false);
      unit_.Manage(scsi::TaskManagement::kLogicalUnitReset, nexus_);
      return TaskFunctionResponse::kComplete;
    case TaskFunction::kTargetWarmReset:
    case TaskFunction::kTargetColdReset:
      // RFC 7143, 11.5.1: a cold reset ends all sessions, this one when it has the answer.
      unit_.Manage(scsi::TaskManagement::kTargetReset, nexus_);
      owner_.OnReset(function == TaskFunction::kTargetColdReset);
      return TaskFunctionResponse::kComplete;
    case TaskFunction::kTaskReassign:
      return TaskFunctionResponse::kNoReassign;
    case TaskFunction::kClearAca:
      break;
  }
  return TaskFunctionResponse::kNotSupported;
}

TaskFunctionResponse Connection::AbortTask(uint32_t tag) {
  Request* request = FindRequest(tag);
  if (request == nullptr) return TaskFunctionResponse::kNoTask;
  switch (request->state) {
    case RequestState::kGathering:
      if (request->turn) {
        Free(request);
      } else {
        request->doomed = true;
      }
      return TaskFunctionResponse::kComplete;
    case RequestState::kAtUnit:
      request->doomed = true;
      tags_[request->index] = kNoTag;
      unit_.Abort(request);
      return TaskFunctionResponse::kComplete;
    // It has ended, and its answer goes out before that of this function: after «complete» none may
    // have come.
    case RequestState::kReady:
    case RequestState::kHeld:
    case RequestState::kFree:
      break;
  }
  return TaskFunctionResponse::kNoTask;
}

// --- text ----------------------------------------------------------------------------------------

void Connection::CarryText(Request* request) {
  const auto header = As<TextRequest>(request->header);
  const std::string_view data = {reinterpret_cast<const char*>(request->data), request->data_bytes};
  const std::string_view own = discovery_ ? std::string_view() : owner_.targets().target(0);
  // One that was not waited for is answered by nothing.
  const bool taken =
      !text_busy_ && text_.Take(header, data, owner_.targets(), own, &negotiation_, &text_reply_);
  parameters_.send_segment_bytes_max = negotiation_.parameters().send_segment_bytes_max;
  request->response = taken ? 0 : static_cast<uint8_t>(RejectReason::kProtocolError);
  if (taken) text_busy_ = true;
  Queue(request);
}

// --- logout --------------------------------------------------------------------------------------

void Connection::AbortOwnTasks() {
  DropGathering();
  for (Request& request : requests_) {
    if (request.state != RequestState::kAtUnit || request.doomed) continue;
    request.doomed = true;
    unit_.Abort(&request);
  }
}

void Connection::CarryLogout(Request* request) {
  const auto header = As<LogoutRequest>(request->header);
  const auto reason = static_cast<LogoutReason>(header.flags & 0x7f);
  LogoutResponseCode code = LogoutResponseCode::kClosed;
  if (reason == LogoutReason::kConnection && header.connection != connection_id_) {
    code = LogoutResponseCode::kNoConnection;
  } else if (reason != LogoutReason::kSession && reason != LogoutReason::kConnection) {
    code = LogoutResponseCode::kNoRecovery;
  }
  request->response = static_cast<uint8_t>(code);
  Queue(request);
  if (code != LogoutResponseCode::kClosed) return;
  AbortOwnTasks();
  To(Event::kLastRequest);
  Wake();
}

}  // namespace ankole::iscsi
