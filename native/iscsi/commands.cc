#include <algorithm>
#include <cstring>

#include "iscsi/connection.h"

// SCSI commands and their Data-Out, on the way to the logical unit.
namespace ankole::iscsi {

namespace {

// A transfer tag names the request, and which of its R2Ts.
constexpr uint32_t kTagIndexBits = 8;
static_assert(kCommandsMax + kImmediateMax < (1 << kTagIndexBits) - 1);

scsi::Sense SenseOf(DataFault fault) {
  // RFC 7143, 11.4.7.2, and for data both ways SPC-4's «invalid field in command information unit».
  constexpr auto kUnexpectedData = static_cast<scsi::SenseCode>(0x0c0c);
  constexpr auto kNotEnoughData = static_cast<scsi::SenseCode>(0x0c0d);
  scsi::Sense sense;
  sense.key = scsi::SenseKey::kAbortedCommand;
  sense.code = fault == DataFault::kUnexpected ? kUnexpectedData : kNotEnoughData;
  if (fault == DataFault::kBidirectional) {
    sense.key = scsi::SenseKey::kIllegalRequest;
    sense.code = scsi::SenseCode::kInvalidFieldInInformationUnit;
  }
  return sense;
}

scsi::TaskAttribute AttributeOf(uint8_t flags) {
  switch (flags & kAttributeMask) {
    case 2:
      return scsi::TaskAttribute::kOrdered;
    case 3:
      return scsi::TaskAttribute::kHeadOfQueue;
    case 4:
      return scsi::TaskAttribute::kAca;
    default:
      return scsi::TaskAttribute::kSimple;
  }
}

}  // namespace

uint32_t TransferTag(const Request& request, uint32_t r2t_number) {
  return request.index | r2t_number << kTagIndexBits;
}

Connection::Progress Connection::TakeCommand(const Frame& frame, const std::byte* data,
                                             AdditionalHeaders additional) {
  const auto header = As<ScsiCommand>(frame.header);
  const Order order = Admit(frame, header.command_number);
  const auto skip = [&] {
    Consume(frame.header_bytes);
    if (data == nullptr) {
      StartPayload(frame, nullptr, 0);
    } else {
      Consume(frame.data_bytes + frame.trailer_bytes);
    }
    return Progress::kMade;
  };
  if (order == Order::kIgnored) return skip();
  if (FindRequest(header.task_tag) != nullptr || header.task_tag == kNoTag) {
    Fail("used a task tag that is in use");
    return Progress::kBlocked;
  }
  if (discovery_) {
    if (!Reject(frame, RejectReason::kNotSupported)) return Progress::kBlocked;
    if (!frame.immediate()) AdvanceCommand();
    return skip();
  }
  Request* request = NewRequest(frame, header.command_number);
  if (request == nullptr) {
    if (!Reject(frame, RejectReason::kImmediate)) return Progress::kBlocked;
    return skip();
  }
  request->state = RequestState::kGathering;
  request->nexus = nexus_;
  request->lun = header.lun;
  request->attribute = AttributeOf(header.flags);
  request->cdb = header.cdb;
  request->status = scsi::ScsiStatus::kGood;
  request->needs = unit_.Prepare(request);
  request->expected_bytes = header.expected_bytes;
  const bool writes = (header.flags & kFlagWrite) != 0;
  const bool reads = (header.flags & kFlagRead) != 0;
  request->announced_out_bytes = writes ? request->expected_bytes : 0;
  if (writes) request->want_bytes = std::min(request->needs.out_bytes, request->expected_bytes);
  if (reads) request->in_room_bytes = std::min(request->needs.in_bytes, request->expected_bytes);
  request->unsolicited = writes && (header.flags & kFlagFinal) == 0;
  const uint32_t unasked_max = std::min(parameters_.first_burst_bytes_max, request->expected_bytes);
  if ((reads && writes) || additional == AdditionalHeaders::kBidirectional) {
    request->fault = DataFault::kBidirectional;
  } else if ((frame.data_bytes > 0 && (!parameters_.immediate_data || !writes)) ||
             frame.data_bytes > unasked_max || (request->unsolicited && parameters_.initial_r2t)) {
    request->fault = DataFault::kUnexpected;
  }
  if (request->fault != DataFault::kNone) {
    request->want_bytes = request->in_room_bytes = 0;
    request->needs = {};
  }
  if (!TakePlace(request, data, frame.data_bytes)) {
    Free(request);
    return Progress::kBlocked;
  }
  if (order == Order::kEarly) {
    request->turn = false;
    ++early_;
  }
  (void)skip();
  if (data == nullptr) {
    incoming_.request = request;
  } else {
    // In place already when the reference to the window is what was taken.
    if (request->out[0].data != data) Store(request, 0, data, frame.data_bytes);
    if (small_window_pdus_ > 0) --small_window_pdus_;
    FinishData(request, frame);
  }
  if (order == Order::kNow && !frame.immediate()) AdvanceCommand();
  return Progress::kMade;
}

// Finds memory for what the command needs, or a place in the line for it. False: there is none even
// for data that comes unasked, as other clients have the pool's last chunks.
bool Connection::TakePlace(Request* request, const std::byte* data, uint32_t data_bytes) {
  request->out[0] = {};
  const uint32_t want = request->want_bytes;
  const bool small = want <= kFirstBurstBytesMax;
  if (want > 0 && data != nullptr && data_bytes >= want && !request->unsolicited) {
    BufferPool::Retain(window_.chunk);
    request->reserved = window_.chunk;
    request->out[0] = {const_cast<std::byte*>(data), want};
  } else if (want > 0 && small) {
    request->reserved = Acquire(want, Quota::kReserve);
    if (request->reserved == nullptr) return false;
    request->out[0] = {request->reserved->data, want};
  }
  const bool needs_none = small && request->in_room_bytes == 0 && request->needs.scratch_bytes == 0;
  if (needs_none) {
    request->has_memory = true;
    return true;
  }
  if (waiting_.empty() && TakeMemory(request)) return true;
  if (!small && (data_bytes > 0 || request->unsolicited)) {
    request->reserved = Acquire(kFirstBurstBytesMax, Quota::kReserve);
    if (request->reserved == nullptr) return false;
  }
  waiting_.PushBack(request);
  return true;
}

void Connection::Store(Request* request, uint32_t offset_bytes, const std::byte* data,
                       uint32_t data_bytes) {
  while (data_bytes > 0) {
    uint32_t contiguous = 0;
    std::byte* to = Destination(request, offset_bytes, &contiguous);
    if (to == nullptr) return;
    const uint32_t part = std::min(data_bytes, contiguous);
    std::memcpy(to, data, part);
    data += part;
    offset_bytes += part;
    data_bytes -= part;
  }
}

// --- Data-Out ------------------------------------------------------------------------------------

// The command that a Data-Out PDU belongs to. Null: one that is gone, aborted say.
Request* Connection::FindForData(const DataOut& header) {
  Request* request = nullptr;
  if (header.transfer_tag == kNoTag) {
    request = FindRequest(header.task_tag);
    if (request == nullptr || !request->unsolicited) return nullptr;
  } else {
    const uint32_t at = header.transfer_tag & ((1 << kTagIndexBits) - 1);
    if (at >= kRequestsMax) return nullptr;
    request = &requests_[at];
    if (tags_[at] != header.task_tag || request->r2t_answered == request->r2t_sent ||
        header.transfer_tag != TransferTag(*request, request->r2t_answered)) {
      return nullptr;
    }
  }
  return request->state == RequestState::kGathering && !request->doomed ? request : nullptr;
}

void Connection::CheckData(Request* request, const DataOut& header) {
  if (request->fault != DataFault::kNone) return;
  const uint64_t end = uint64_t{header.offset_bytes} + header.data_bytes;
  const uint32_t end_max =
      request->unsolicited ? std::min(parameters_.first_burst_bytes_max, request->expected_bytes)
                           : request->sequence_end_bytes;
  if (header.offset_bytes != request->received_bytes ||
      header.data_number != request->data_number) {
    request->fault = DataFault::kMissing;
  } else if (end > end_max) {
    request->fault = DataFault::kUnexpected;
  }
}

Connection::Progress Connection::TakeDataOut(const Frame& frame, const std::byte* data) {
  const auto header = As<DataOut>(frame.header);
  Request* request = FindForData(header);
  if (request != nullptr) CheckData(request, header);
  Consume(frame.header_bytes);
  if (data == nullptr) {
    StartPayload(frame, request, header.offset_bytes);
    return Progress::kMade;
  }
  if (request != nullptr) Store(request, header.offset_bytes, data, frame.data_bytes);
  Consume(frame.data_bytes + frame.trailer_bytes);
  if (request != nullptr) FinishData(request, frame);
  return Progress::kMade;
}

// The data of a command's PDU, or of one that followed it, is there.
void Connection::FinishData(Request* request, const Frame& frame) {
  if (request->fault == DataFault::kNone) request->received_bytes += frame.data_bytes;
  if (frame.opcode() == Opcode::kScsiCommand) return Proceed(request);
  ++request->data_number;
  if ((frame.header.flags & kFlagFinal) == 0) return;
  // The end of a sequence.
  request->data_number = 0;
  if (request->unsolicited) {
    request->unsolicited = false;
  } else if (request->received_bytes == request->sequence_end_bytes) {
    ++request->r2t_answered;
    request->sequence_end_bytes =
        std::min(request->want_bytes, request->sequence_end_bytes + parameters_.burst_bytes_max);
  } else if (request->fault == DataFault::kNone) {
    request->fault = DataFault::kMissing;
  }
  Proceed(request);
}

// --- to the logical unit
// ---------------------------------------------------------------------------

// Whatever the command was waiting for may be there.
void Connection::Proceed(Request* request) {
  if (!request->turn || request->unsolicited || request->doomed) return;
  if (incoming_.active && incoming_.request == request) return;
  if (request->fault != DataFault::kNone) {
    request->status = scsi::ScsiStatus::kCheckCondition;
    request->sense = SenseOf(request->fault);
    return Queue(request);
  }
  if (!request->has_memory) return;
  if (request->received_bytes < request->want_bytes) {
    if (request->r2t_sent == 0) {
      request->solicited_bytes = request->received_bytes;
      request->sequence_end_bytes =
          std::min(request->want_bytes, request->received_bytes + parameters_.burst_bytes_max);
    }
    if (request->solicited_bytes < request->want_bytes && !request->r2t_link.linked()) {
      r2t_.PushBack(request);
      Wake();
    }
    return;
  }
  request->out_bytes = std::min(request->received_bytes, request->want_bytes);
  request->state = RequestState::kAtUnit;
  ++at_unit_;
  unit_.Execute(request);
}

void Connection::OnUnitDone(scsi::Task* task) {
  auto* request = static_cast<Request*>(task);
  Connection* self = request->connection;
  --self->at_unit_;
  if (self->mode_ >= Mode::kClosing) return self->FinishIfGone();
  if (request->aborted || request->doomed) {
    self->Free(request);
  } else {
    self->Queue(request);
  }
  // At the end of the turn: one Send for all that became ready in it.
  self->Wake();
}

}  // namespace ankole::iscsi
