#include <algorithm>
#include <cstring>

#include "base/crc32c.h"
#include "iscsi/connection.h"

// From finished requests to bytes for the initiator.
namespace ankole::iscsi {

uint32_t TransferTag(const Request& request, uint32_t r2t_number);

void Connection::Queue(Request* request) {
  if (request->link.linked()) waiting_.Remove(request);
  if (request->r2t_link.linked()) r2t_.Remove(request);
  request->state = RequestState::kReady;
  ready_.PushBack(request);
  Wake();
}

// --- putting a Send together
// -----------------------------------------------------------------------

// For one more PDU: header, data, padding with digest.
bool Connection::RoomToSend() const {
  return send_.vectors_count + 4 <= io::SendOperation::kVectorsMax &&
         reply_bytes_ + kPduBytesMax <= kReplyBytes;
}

// Everything that is ready leaves in one Send; what becomes ready meanwhile in the next one.
void Connection::BuildSend() {
  if (sending_now_ || mode_ >= Mode::kClosing) return;
  send_.vectors_count = 0;
  reply_bytes_ = 0;
  if (!login_reply_.empty()) {
    vectors_[static_cast<size_t>(send_.vectors_count++)] = {login_reply_.data(),
                                                            login_reply_.size()};
  } else if (mode_ > Mode::kLogin) {
    EmitR2ts();
    EmitRejects();
    while (Request* request = ready_.front()) {
      if (!EmitReply(request)) break;
    }
    if (ping_due_) EmitPing();
    if (goodbye_due_ && at_unit_ == 0 && ready_.empty()) EmitGoodbye();
  }
  if (send_.vectors_count == 0) return;
  send_.vectors = vectors_.data();
  sending_now_ = true;
  send_ticks_ = 0;
  reactor_.Send(&send_);
}

void Connection::OnSent(int64_t result) {
  sending_now_ = false;
  if (mode_ >= Mode::kClosing) return;
  if (result < 0) return Lose(result);
  login_reply_.clear();
  if (text_sending_) text_sending_ = text_busy_ = false;
  while (sending_count_ > 0) Release(sending_[--sending_count_], Quota::kGeneral);
  while (sending_reserved_count_ > 0) {
    Release(sending_reserved_[--sending_reserved_count_], Quota::kReserve);
  }
  Turn();
}

// Bytes that were just written at the end of reply_. Those without data in between are one vector.
void Connection::EmitHere(const void* bytes, uint32_t count) {
  std::byte* at = reply_.data() + reply_bytes_;
  std::memcpy(at, bytes, count);
  reply_bytes_ += count;
  if (send_.vectors_count > 0) {
    iovec& last = vectors_[static_cast<size_t>(send_.vectors_count - 1)];
    if (static_cast<std::byte*>(last.iov_base) + last.iov_len == at) {
      last.iov_len += count;
      return;
    }
  }
  vectors_[static_cast<size_t>(send_.vectors_count++)] = {at, count};
}

// StatSN, ExpCmdSN and MaxCmdSN. `counts`: the PDU takes a StatSN for itself.
template <typename Header>
void Connection::Number(Header* header, bool counts) {
  header->status_number = status_number_;
  if (counts) ++status_number_;
  header->expected_command = expected_command_;
  header->max_command = max_command();
}

template <typename Header>
void Connection::EmitHeader(Header* header, uint32_t data_bytes) {
  static_assert(sizeof(Header) == kHeaderBytes);
  header->data_bytes = data_bytes;
  EmitHere(header, kHeaderBytes);
  if (!parameters_.digests.header) return;
  const uint32_t digest = Crc32c(header, kHeaderBytes);
  EmitHere(&digest, sizeof(digest));
}

// Data with its padding and digest. `copy`: what it points at does not last.
void Connection::EmitData(const std::byte* data, uint32_t bytes, bool copy) {
  if (bytes == 0) return;
  if (copy) {
    EmitHere(data, bytes);
  } else {
    vectors_[static_cast<size_t>(send_.vectors_count++)] = {const_cast<std::byte*>(data), bytes};
  }
  constexpr uint32_t kZeroes = 0;
  const uint32_t padding = PadBytes(bytes);
  if (padding > 0) EmitHere(&kZeroes, padding);
  if (!parameters_.digests.data) return;
  const uint32_t digest = Crc32c(&kZeroes, padding, Crc32c(data, bytes));
  EmitHere(&digest, sizeof(digest));
}

// The request has said all. Its data stays until it is sent.
void Connection::Finish(Request* request) {
  ready_.Remove(request);
  while (request->chunks_count > 0) {
    sending_[sending_count_++] = request->chunks[--request->chunks_count];
  }
  if (request->reserved != nullptr)
    sending_reserved_[sending_reserved_count_++] = request->reserved;
  request->reserved = nullptr;
  Free(request);
}

// --- PDUs ----------------------------------------------------------------------------------------

void Connection::EmitR2ts() {
  while (Request* request = r2t_.front()) {
    while (request->solicited_bytes < request->want_bytes &&
           request->r2t_sent - request->r2t_answered < parameters_.outstanding_r2t_max) {
      if (!RoomToSend()) return;
      ReadyToTransfer header;
      header.opcode = static_cast<uint8_t>(Opcode::kReadyToTransfer);
      header.flags = kFlagFinal;
      header.lun = request->lun;
      header.task_tag = request->header.task_tag;
      header.transfer_tag = TransferTag(*request, request->r2t_sent);
      header.number = request->r2t_sent++;
      header.offset_bytes = request->solicited_bytes;
      const uint32_t bytes =
          std::min(request->want_bytes - request->solicited_bytes, parameters_.burst_bytes_max);
      header.desired_bytes = bytes;
      request->solicited_bytes += bytes;
      Number(&header, false);
      EmitHeader(&header, 0);
    }
    r2t_.Remove(request);
  }
}

// False: there is no room for all of it in this Send.
bool Connection::EmitReply(Request* request) {
  if (sending_count_ + request->chunks.size() > sending_.size() ||
      sending_reserved_count_ == sending_reserved_.size()) {
    return false;
  }
  const auto opcode = static_cast<Opcode>(request->header.opcode & kOpcodeMask);
  if (opcode == Opcode::kScsiCommand) return EmitCommand(request);
  if (!RoomToSend()) return false;
  EmitOther(request);
  return true;
}

bool Connection::EmitCommand(Request* request) {
  const bool with_sense = request->status == scsi::ScsiStatus::kCheckCondition;
  while (request->sent_bytes < request->in_bytes) {
    if (!RoomToSend()) return false;
    if (EmitDataIn(request, !with_sense)) return true;
  }
  if (!RoomToSend()) return false;
  EmitResponse(request);
  return true;
}

namespace {

// RFC 7143, 11.4.5: how far what moved, or would have, is from what the initiator expected.
template <typename Header>
void SetResidual(const Request& request, Header* header) {
  const bool reads = (request.header.flags & kFlagRead) != 0;
  const uint32_t expected = request.expected_bytes;
  const uint32_t moved = reads ? request.in_bytes : request.want_bytes;
  if (request.wanted_bytes > expected) {
    header->flags |= kFlagOverflow;
    header->residual = request.wanted_bytes - expected;
  } else if (moved < expected) {
    header->flags |= kFlagUnderflow;
    header->residual = expected - moved;
  }
}

}  // namespace

// The next PDU of Data-In. The last one also brings the status, where that is all there is to say;
// true: it did, and the request is finished.
bool Connection::EmitDataIn(Request* request, bool with_status) {
  const uint32_t at = request->sent_bytes;
  const uint32_t in_segment = at % kDataBytesMax;
  const std::byte* data = request->in[at / kDataBytesMax].data + in_segment;
  const uint32_t burst_left = parameters_.burst_bytes_max - at % parameters_.burst_bytes_max;
  const uint32_t bytes = std::min({request->in_bytes - at, kDataBytesMax - in_segment, burst_left,
                                   parameters_.send_segment_bytes_max});
  request->sent_bytes += bytes;
  const bool last = request->sent_bytes == request->in_bytes;
  DataIn header;
  header.opcode = static_cast<uint8_t>(Opcode::kDataIn);
  header.task_tag = request->header.task_tag;
  header.transfer_tag = kNoTag;
  header.data_number = request->data_in_number++;
  header.offset_bytes = at;
  if (last || bytes == burst_left) header.flags |= kFlagFinal;
  const bool finished = last && with_status;
  if (finished) {
    header.flags |= kFlagStatus;
    header.status = static_cast<uint8_t>(request->status);
    SetResidual(*request, &header);
    Finish(request);
  }
  Number(&header, finished);
  EmitHeader(&header, bytes);
  EmitData(data, bytes, false);
  return finished;
}

void Connection::EmitResponse(Request* request) {
  ScsiResponse header;
  header.opcode = static_cast<uint8_t>(Opcode::kScsiResponse);
  header.flags = kFlagFinal;
  header.status = static_cast<uint8_t>(request->status);
  header.task_tag = request->header.task_tag;
  header.expected_data = request->data_in_number + request->r2t_sent;
  std::byte sense[2 + scsi::kSenseBytesMax];
  uint32_t sense_bytes = 0;
  if (request->status == scsi::ScsiStatus::kCheckCondition) {
    sense_bytes = static_cast<uint32_t>(scsi::EncodeSense(request->sense, sense + 2));
    StoreBig16(sense, static_cast<uint16_t>(sense_bytes));
    sense_bytes += 2;
  }
  SetResidual(*request, &header);
  Finish(request);
  Number(&header, true);
  EmitHeader(&header, sense_bytes);
  EmitData(sense, sense_bytes, true);
}

void Connection::EmitOther(Request* request) {
  const BasicHeader asked = request->header;
  const std::byte* data = request->data;
  const uint32_t data_bytes = request->data_bytes;
  const uint8_t response = request->response;
  Finish(request);
  switch (static_cast<Opcode>(asked.opcode & kOpcodeMask)) {
    case Opcode::kTextRequest: {
      if (response != 0) {
        rejects_[rejects_count_++] = {asked, static_cast<RejectReason>(response)};
        return EmitRejects();
      }
      text_sending_ = true;
      Number(&text_reply_.header, true);
      EmitHeader(&text_reply_.header, static_cast<uint32_t>(text_reply_.text.size()));
      return EmitData(reinterpret_cast<const std::byte*>(text_reply_.text.data()),
                      static_cast<uint32_t>(text_reply_.text.size()), false);
    }
    case Opcode::kNopOut: {
      NopIn header;
      header.opcode = static_cast<uint8_t>(Opcode::kNopIn);
      header.flags = kFlagFinal;
      header.lun = asked.lun;
      header.task_tag = asked.task_tag;
      header.transfer_tag = kNoTag;
      Number(&header, true);
      EmitHeader(&header, data_bytes);
      return EmitData(data, data_bytes, false);
    }
    case Opcode::kLogoutRequest: {
      LogoutResponse header;
      header.opcode = static_cast<uint8_t>(Opcode::kLogoutResponse);
      header.flags = kFlagFinal;
      header.response = response;
      header.task_tag = asked.task_tag;
      header.time_to_wait = static_cast<uint16_t>(parameters_.time_to_wait_s);
      header.time_to_retain = static_cast<uint16_t>(parameters_.time_to_retain_s);
      Number(&header, true);
      return EmitHeader(&header, 0);
    }
    default: {
      TaskManagementResponse header;
      header.opcode = static_cast<uint8_t>(Opcode::kTaskManagementResponse);
      header.flags = kFlagFinal;
      header.response = response;
      header.task_tag = asked.task_tag;
      Number(&header, true);
      return EmitHeader(&header, 0);
    }
  }
}

void Connection::EmitRejects() {
  size_t sent = 0;
  for (; sent < rejects_count_ && RoomToSend(); ++sent) {
    TaskManagementResponse header;
    header.opcode = static_cast<uint8_t>(Opcode::kReject);
    header.flags = kFlagFinal;
    header.response = static_cast<uint8_t>(rejects_[sent].reason);
    header.task_tag = kNoTag;
    Number(&header, true);
    EmitHeader(&header, kHeaderBytes);
    EmitData(reinterpret_cast<const std::byte*>(&rejects_[sent].header), kHeaderBytes, true);
  }
  std::copy(rejects_.begin() + static_cast<ptrdiff_t>(sent),
            rejects_.begin() + static_cast<ptrdiff_t>(rejects_count_), rejects_.begin());
  rejects_count_ -= sent;
}

// RFC 7143, 11.19: a NOP-In that asks for a NOP-Out.
void Connection::EmitPing() {
  if (!RoomToSend()) return;
  ping_due_ = false;
  if (++ping_tag_ == kNoTag) ping_tag_ = 1;
  NopIn header;
  header.opcode = static_cast<uint8_t>(Opcode::kNopIn);
  header.flags = kFlagFinal;
  header.task_tag = kNoTag;
  header.transfer_tag = ping_tag_;
  Number(&header, false);
  EmitHeader(&header, 0);
}

// RFC 7143, 11.9: we end, and the initiator may come back soon.
void Connection::EmitGoodbye() {
  if (!RoomToSend()) return;
  goodbye_due_ = false;
  AsyncMessage header;
  header.opcode = static_cast<uint8_t>(Opcode::kAsyncMessage);
  header.flags = kFlagFinal;
  header.task_tag = kNoTag;
  header.event = static_cast<uint8_t>(AsyncEvent::kDropsAllConnections);
  header.parameter2 = static_cast<uint16_t>(parameters_.time_to_wait_s);
  header.parameter3 = static_cast<uint16_t>(parameters_.time_to_retain_s);
  Number(&header, true);
  EmitHeader(&header, 0);
}

}  // namespace ankole::iscsi
