#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/crc32c.h"
#include "iscsi/connection.h"

// From the initiator's bytes to requests.
namespace ankole::iscsi {

namespace {

// From this length on a PDU's data is received where it belongs; up to it, in the window.
constexpr uint32_t kLargePayloadBytes = 32 * kKiB;
// How many PDUs without much data, after large data, until the window is opened again.
constexpr uint8_t kSmallWindowPdus = 16;
constexpr uint32_t kHeadersBytesMax = kHeaderBytes + 4 * 255 + kDigestBytes;

static_assert(kHeadersBytesMax + kLargePayloadBytes + 2 * kDigestBytes <= BufferPool::kSmallBytes);

}  // namespace

// --- login ---------------------------------------------------------------------------------------

Connection::Progress Connection::ParseLogin() {
  // One answer at a time, so that one that does not read is not listened to.
  if (sending_now_ || !login_reply_.empty()) return Progress::kBlocked;
  if (login_step_) return FinishLogin();
  needed_bytes_ = kHeaderBytes;
  if (window_.bytes() < needed_bytes_) return Progress::kNeedsBytes;
  const std::optional<Frame> frame = DecodeFrame(window_.data(), {}, kDefaultSegmentBytes);
  if (!frame || frame->opcode() != Opcode::kLoginRequest) {
    Fail("sent something that is not an iSCSI login");
    return Progress::kBlocked;
  }
  needed_bytes_ = static_cast<uint32_t>(frame->bytes());
  if (window_.bytes() < needed_bytes_) return Progress::kNeedsBytes;
  const auto request = As<LoginRequest>(frame->header);
  const auto* text = reinterpret_cast<const char*>(window_.data() + frame->header_bytes);
  // The initiator's numbers are taken over: the first command has that of the login.
  expected_command_ = request.command_number;
  if (!numbered_) status_number_ = request.expected_status;
  numbered_ = true;
  login_step_ = login_->Take(request, {text, frame->data_bytes}, &login_answer_);
  initiator_ = login_->initiator();
  Consume(needed_bytes_);
  return FinishLogin();
}

Connection::Progress Connection::FinishLogin() {
  LoginStep step = *login_step_;
  LoginReply* reply = &login_answer_;
  LoginStatus status = login_->status();
  if (step == LoginStep::kFullFeature) {
    isid_ = login_->isid();
    connection_id_ = login_->connection();
    discovery_ = login_->discovery();
    negotiation_ = login_->negotiation();
    const std::optional<uint16_t> tsih = owner_.OnLogin(this);
    if (!tsih) return Progress::kBlocked;
    tsih_ = *tsih;
    if (tsih_ == 0) {
      status = LoginStatus::kOutOfResources;
      reply->header.status = static_cast<uint16_t>(status);
      reply->text.clear();
      step = LoginStep::kRefused;
    } else {
      reply->header.tsih = tsih_;
    }
  }
  login_step_.reset();
  LoginResponse& header = reply->header;
  header.status_number = status_number_++;
  header.expected_command = expected_command_;
  header.max_command = max_command();
  header.data_bytes = static_cast<uint32_t>(reply->text.size());
  login_reply_.assign(reinterpret_cast<const char*>(&header), kHeaderBytes);
  login_reply_.append(reply->text);
  login_reply_.append(PadBytes(header.data_bytes), '\0');
  switch (step) {
    case LoginStep::kContinue:
      return Progress::kMade;
    case LoginStep::kRefused:
      if (status != LoginStatus::kMovedTemporarily && owner_.OnRefused()) {
        log_.Log(LogLevel::kWarn, "iscsi initiator " + peer_ + " (" + Printable(initiator_) +
                                      ") was refused: " + LoginStatusName(status));
      }
      To(Event::kLastRequest);
      return Progress::kMade;
    case LoginStep::kFullFeature:
      break;
  }
  if (!discovery_) {
    char port[32];
    std::snprintf(port, sizeof(port), ",i,0x%02x%02x%02x%02x%02x%02x", isid_[0], isid_[1], isid_[2],
                  isid_[3], isid_[4], isid_[5]);
    nexus_ = unit_.AddNexus(initiator_ + port);
  }
  parameters_ = negotiation_.parameters();
  To(Event::kLoggedIn);
  return Progress::kMade;
}

// --- full feature phase --------------------------------------------------------------------------

bool Connection::DataDigestMatches(const Frame& frame, const std::byte* data) const {
  if (!parameters_.digests.data || frame.data_bytes == 0) return true;
  const uint32_t covered = frame.data_bytes + PadBytes(frame.data_bytes);
  return Crc32c(data, covered) == LoadLittle<uint32_t>(data + covered);
}

Connection::Progress Connection::ParsePdu() {
  needed_bytes_ = kHeaderBytes;
  if (window_.bytes() < needed_bytes_) return Progress::kNeedsBytes;
  const std::optional<Frame> frame =
      DecodeFrame(window_.data(), parameters_.digests, parameters_.receive_segment_bytes_max);
  if (!frame) {
    Fail("sent a PDU with more data than was agreed on");
    return Progress::kBlocked;
  }
  needed_bytes_ = frame->header_bytes;
  if (window_.bytes() < needed_bytes_) return Progress::kNeedsBytes;
  if (!HeaderDigestMatches(*frame, window_.data())) {
    Fail("sent a header with a wrong digest");
    return Progress::kBlocked;
  }
  AdditionalHeaders additional = AdditionalHeaders::kNone;
  if (frame->header.ahs_words > 0) {
    additional = DecodeAdditionalHeaders(*frame, window_.data());
    if (additional == AdditionalHeaders::kMalformed || frame->opcode() != Opcode::kScsiCommand) {
      Fail("sent additional header segments that make no sense");
      return Progress::kBlocked;
    }
  }
  const std::byte* data = nullptr;
  if (frame->data_bytes < kLargePayloadBytes) {
    needed_bytes_ = static_cast<uint32_t>(frame->bytes());
    if (window_.bytes() < needed_bytes_) return Progress::kNeedsBytes;
    data = window_.data() + frame->header_bytes;
    if (!DataDigestMatches(*frame, data)) {
      Fail("sent data with a wrong digest");
      return Progress::kBlocked;
    }
  }
  Progress progress = Progress::kMade;
  switch (frame->opcode()) {
    case Opcode::kScsiCommand:
      progress = TakeCommand(*frame, data, additional);
      break;
    case Opcode::kDataOut:
      progress = TakeDataOut(*frame, data);
      break;
    default:
      progress = TakeOther(*frame, data);
      break;
  }
  if (progress == Progress::kMade) pdu_ticks_ = 0;
  return progress;
}

// The PDU's headers have been consumed; its data goes to `request`, or nowhere.
void Connection::StartPayload(const Frame& frame, Request* request, uint32_t offset_bytes) {
  incoming_.active = true;
  incoming_.request = request;
  incoming_.frame = frame;
  incoming_.offset_bytes = offset_bytes;
  incoming_.left_bytes = frame.data_bytes;
  incoming_.checksum = 0;
  small_window_pdus_ = kSmallWindowPdus;
}

Connection::Progress Connection::TakePayload() {
  while (incoming_.left_bytes > 0) {
    uint32_t part = std::min(window_.bytes(), incoming_.left_bytes);
    if (part == 0) return Progress::kNeedsBytes;
    uint32_t contiguous = 0;
    std::byte* to = incoming_.request == nullptr
                        ? nullptr
                        : Destination(incoming_.request, incoming_.offset_bytes, &contiguous);
    if (to != nullptr) {
      part = std::min(part, contiguous);
      std::memcpy(to, window_.data(), part);
    }
    if (parameters_.digests.data) {
      incoming_.checksum = Crc32c(window_.data(), part, incoming_.checksum);
    }
    Consume(part);
    incoming_.offset_bytes += part;
    incoming_.left_bytes -= part;
  }
  const Frame frame = incoming_.frame;
  if (window_.bytes() < frame.trailer_bytes) return Progress::kNeedsBytes;
  if (parameters_.digests.data) {
    const uint32_t padding = PadBytes(frame.data_bytes);
    const uint32_t checksum = Crc32c(window_.data(), padding, incoming_.checksum);
    if (checksum != LoadLittle<uint32_t>(window_.data() + padding)) {
      Fail("sent data with a wrong digest");
      return Progress::kBlocked;
    }
  }
  Consume(frame.trailer_bytes);
  Request* request = incoming_.request;
  incoming_ = {};
  pdu_ticks_ = 0;
  if (request == nullptr) return Progress::kMade;
  if (request->doomed && request->turn) {
    Free(request);
  } else {
    FinishData(request, frame);
  }
  return Progress::kMade;
}

// --- numbers -------------------------------------------------------------------------------------

// MaxCmdSN: so far the window reaches that there is a request for each number in it. Never goes
// back, as a number that comes takes a request and moves the window by one.
uint32_t Connection::max_command() const {
  return expected_command_ + (kCommandsMax - window_used_) + early_ - 1;
}

Connection::Order Connection::Admit(const Frame& frame, uint32_t command_number) const {
  if (frame.immediate() || command_number == expected_command_) return Order::kNow;
  if (Before(command_number, expected_command_) || Before(max_command(), command_number)) {
    return Order::kIgnored;
  }
  for (const Request& request : requests_) {
    if (request.state != RequestState::kFree && !request.turn &&
        request.command_number == command_number) {
      return Order::kIgnored;
    }
  }
  return Order::kEarly;
}

// A command's turn has come and is over; maybe that of one that came early.
void Connection::AdvanceCommand() {
  ++expected_command_;
  while (early_ > 0) {
    const auto next = std::find_if(requests_.begin(), requests_.end(), [this](const Request& r) {
      return r.state != RequestState::kFree && !r.turn && r.command_number == expected_command_;
    });
    if (next == requests_.end()) return;
    next->turn = true;
    --early_;
    ++expected_command_;
    if (next->doomed) {
      if (!incoming_.active || incoming_.request != &*next) Free(&*next);
    } else if (next->state == RequestState::kHeld) {
      Carry(&*next);
    } else {
      Proceed(&*next);
    }
  }
}

// Null: this many are there already. For those of the window there is always one.
Request* Connection::NewRequest(const Frame& frame, uint32_t command_number) {
  const bool immediate = frame.immediate();
  if (immediate && immediate_used_ == kImmediateMax) return nullptr;
  if (!immediate && window_used_ == kCommandsMax) return nullptr;
  Request* request = free_.PopFront();
  CHECK(request != nullptr);
  ++(immediate ? immediate_used_ : window_used_);
  request->immediate = immediate;
  request->turn = true;
  request->doomed = false;
  request->command_number = command_number;
  request->header = frame.header;
  request->fault = DataFault::kNone;
  request->expected_bytes = request->want_bytes = request->received_bytes = 0;
  request->unsolicited = false;
  request->data_number = request->solicited_bytes = request->sequence_end_bytes = 0;
  request->r2t_sent = request->r2t_answered = 0;
  request->needs = {};
  request->has_memory = false;
  request->response = 0;
  request->sent_bytes = request->data_in_number = 0;
  request->data = nullptr;
  request->data_bytes = 0;
  request->in_bytes = request->in_room_bytes = request->out_bytes = request->wanted_bytes = 0;
  tags_[request->index] = frame.header.task_tag;
  return request;
}

Request* Connection::FindRequest(uint32_t tag) {
  if (tag == kNoTag) return nullptr;
  const auto found = std::find(tags_.begin(), tags_.end(), tag);
  if (found == tags_.end()) return nullptr;
  return &requests_[static_cast<size_t>(found - tags_.begin())];
}

void Connection::Free(Request* request) {
  if (request->link.linked()) {
    CHECK(request->state == RequestState::kGathering);
    waiting_.Remove(request);
  }
  if (request->r2t_link.linked()) r2t_.Remove(request);
  GiveBackMemory(request);
  tags_[request->index] = kNoTag;
  request->state = RequestState::kFree;
  --(request->immediate ? immediate_used_ : window_used_);
  // The one that was used last is warm.
  free_.PushFront(request);
}

// False: as many are waiting to be sent already as there is room for.
bool Connection::Reject(const Frame& frame, RejectReason reason) {
  if (rejects_count_ == kRejectsMax) return false;
  rejects_[rejects_count_++] = {frame.header, reason};
  return true;
}

// Everything that is neither a SCSI command nor its data. `data` null: it is large, and thrown
// away.
Connection::Progress Connection::TakeOther(const Frame& frame, const std::byte* data) {
  const Opcode opcode = frame.opcode();
  const auto skip = [&] {
    Consume(frame.header_bytes);
    if (data != nullptr) {
      Consume(frame.data_bytes + frame.trailer_bytes);
    } else {
      StartPayload(frame, nullptr, 0);
    }
    return Progress::kMade;
  };
  if (opcode == Opcode::kNopOut && frame.header.task_tag == kNoTag) return skip();
  const auto header = As<TextRequest>(frame.header);
  RejectReason reason = RejectReason::kNotSupported;
  switch (opcode) {
    case Opcode::kNopOut:
    case Opcode::kTaskManagementRequest:
    case Opcode::kTextRequest:
    case Opcode::kLogoutRequest: {
      const Order order = Admit(frame, header.command_number);
      if (order == Order::kIgnored) return skip();
      if (FindRequest(header.task_tag) != nullptr || header.task_tag == kNoTag) {
        Fail("used a task tag that is in use");
        return Progress::kBlocked;
      }
      Request* request = NewRequest(frame, header.command_number);
      if (request == nullptr) {
        reason = RejectReason::kImmediate;
        break;
      }
      request->state = RequestState::kHeld;
      if (data != nullptr && frame.data_bytes > 0) {
        BufferPool::Retain(window_.chunk);
        request->reserved = window_.chunk;
        request->data = data;
        request->data_bytes = frame.data_bytes;
      }
      (void)skip();
      if (order == Order::kEarly) {
        request->turn = false;
        ++early_;
        return Progress::kMade;
      }
      Carry(request);
      if (!frame.immediate()) AdvanceCommand();
      return Progress::kMade;
    }
    case Opcode::kSnack:
      reason = RejectReason::kSnack;
      break;
    case Opcode::kLoginRequest:
      reason = RejectReason::kProtocolError;
      break;
    default:
      break;
  }
  if (!Reject(frame, reason)) return Progress::kBlocked;
  return skip();
}

}  // namespace ankole::iscsi
