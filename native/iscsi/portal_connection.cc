#include "iscsi/portal_connection.h"

#include <cstring>

#include "base/crc32c.h"

namespace ankole::iscsi {

PortalConnection::PortalConnection(io::Reactor& reactor, LogSink& log, PortalOwner& owner,
                                   io::Socket socket, std::string peer)
    : reactor_(reactor), log_(log), owner_(owner), peer_(std::move(peer)) {
  receive_.socket = send_.socket = close_.socket = socket;
  receive_.owner = send_.owner = close_.owner = timer_.owner = this;
  receive_.done = [](io::Operation* o) {
    static_cast<PortalConnection*>(o->owner)->OnReceived(o->result);
  };
  send_.done = [](io::Operation* o) {
    static_cast<PortalConnection*>(o->owner)->OnSent(o->result);
  };
  close_.done = [](io::Operation* o) {
    auto* connection = static_cast<PortalConnection*>(o->owner);
    connection->To(Event::kSocketClosed);
    connection->owner_.OnClosed(connection);
  };
  timer_.done = [](io::Operation* o) {
    // A discovery session that has nothing more to ask is not news.
    auto* connection = static_cast<PortalConnection*>(o->owner);
    if (connection->mode_ == Mode::kLogin) {
      connection->Fail("did not finish its login in time");
    } else {
      connection->Abort();
    }
  };
}

PortalConnection::~PortalConnection() { CHECK(mode_ == Mode::kClosed); }

void PortalConnection::Start() {
  reactor_.Arm(&timer_, reactor_.NowNs() + kHandshakeTimeoutNs);
  Login::Nonce nonce;
  reactor_.Random(nonce.challenge.data(), nonce.challenge.size());
  reactor_.Random(&nonce.identifier, sizeof(nonce.identifier));
  login_ = std::make_unique<Login>(owner_.login_policy(), nonce);
  Receive();
}

void PortalConnection::To(Event event) {
  const Mode before = mode_;
  mode_ = Next(before, event);
  if (mode_ == before || mode_ != Mode::kClosing) return;
  reactor_.Cancel(&timer_);
  reactor_.Close(&close_);
}

void PortalConnection::Fail(const std::string& cause) {
  if (mode_ >= Mode::kClosing) return;
  if (owner_.MayLog()) {
    log_.Log(LogLevel::kWarn,
             "iscsi initiator " + peer_ + " " + cause + "; its connection is closed");
  }
  To(Event::kBroken);
}

void PortalConnection::Receive() {
  if (receiving_ || mode_ >= Mode::kDraining) return;
  if (in_begin_ > 0) {
    std::memmove(in_.data(), in_.data() + in_begin_, in_end_ - in_begin_);
    in_end_ -= in_begin_;
    in_begin_ = 0;
  }
  receive_.vectors[0] = {in_.data() + in_end_, in_.size() - in_end_};
  receive_.vectors_count = 1;
  receiving_ = true;
  reactor_.Receive(&receive_);
}

void PortalConnection::OnReceived(int64_t result) {
  receiving_ = false;
  if (mode_ >= Mode::kClosing) return;
  if (result <= 0) return To(Event::kBroken);
  in_end_ += static_cast<size_t>(result);
  Advance();
}

void PortalConnection::OnSent(int64_t result) {
  sending_ = false;
  if (mode_ >= Mode::kClosing) return;
  if (result < 0) return To(Event::kBroken);
  out_.clear();
  if (mode_ == Mode::kDraining) return To(Event::kDrained);
  Advance();
}

void PortalConnection::Advance() {
  if (sending_ || mode_ >= Mode::kDraining) return;
  while (out_.empty() && mode_ < Mode::kDraining) {
    if (TakePdu()) continue;
    if (mode_ < Mode::kDraining) Receive();
    return;
  }
  if (out_.empty() || mode_ >= Mode::kClosing) return;
  vector_ = {out_.data(), out_.size()};
  send_.vectors = &vector_;
  send_.vectors_count = 1;
  sending_ = true;
  reactor_.Send(&send_);
}

// False: more bytes are needed, or it is over.
bool PortalConnection::TakePdu() {
  const std::byte* at = in_.data() + in_begin_;
  const size_t have = in_end_ - in_begin_;
  if (have < kHeaderBytes) return false;
  const std::optional<Frame> frame = DecodeFrame(at, digests_, kDefaultSegmentBytes);
  const bool in_login = mode_ == Mode::kLogin;
  if (!frame || (in_login && frame->opcode() != Opcode::kLoginRequest)) {
    Fail("sent something that is no request of iSCSI's");
    return false;
  }
  if (have < frame->bytes()) return false;
  const std::byte* data = at + frame->header_bytes;
  const uint32_t padded = frame->data_bytes + PadBytes(frame->data_bytes);
  if (!HeaderDigestMatches(*frame, at) ||
      (digests_.data && padded > 0 &&
       Crc32c(data, padded) != LoadLittle<uint32_t>(data + padded))) {
    Fail("sent a PDU with a wrong digest");
    return false;
  }
  in_begin_ += frame->bytes();
  const std::string_view text = {reinterpret_cast<const char*>(data), frame->data_bytes};
  if (in_login) {
    TakeLogin(*frame, text);
  } else {
    reactor_.Arm(&timer_, reactor_.NowNs() + kDiscoveryIdleNs);
    TakeRequest(*frame, text);
  }
  return true;
}

// Puts a PDU into out_, with its numbers.
template <typename Header>
void PortalConnection::Reply(Header header, std::string_view data) {
  header.status_number = status_number_++;
  header.expected_command = expected_command_;
  header.max_command = expected_command_;  // one at a time
  header.data_bytes = static_cast<uint32_t>(data.size());
  const auto append = [this](const void* from, size_t bytes) {
    out_.append(static_cast<const char*>(from), bytes);
  };
  append(&header, kHeaderBytes);
  if (digests_.header) {
    const uint32_t digest = Crc32c(&header, kHeaderBytes);
    append(&digest, sizeof(digest));
  }
  if (data.empty()) return;
  const size_t begin = out_.size();
  out_.append(data);
  out_.append(PadBytes(header.data_bytes), '\0');
  if (!digests_.data) return;
  const uint32_t digest = Crc32c(out_.data() + begin, out_.size() - begin);
  append(&digest, sizeof(digest));
}

void PortalConnection::TakeLogin(const Frame& frame, std::string_view data) {
  const auto request = As<LoginRequest>(frame.header);
  expected_command_ = request.command_number;
  if (!begun_) status_number_ = request.expected_status;
  begun_ = true;
  LoginReply reply;
  const LoginStep step = login_->Take(request, data, &reply);
  if (step == LoginStep::kFullFeature) reply.header.tsih = owner_.NewTsih();
  Reply(reply.header, reply.text);
  if (step == LoginStep::kContinue) return;
  const LoginStatus status = login_->status();
  owner_.OnLogin(status);
  if (step == LoginStep::kRefused) {
    if (status != LoginStatus::kMovedTemporarily && owner_.MayLog()) {
      const std::string& target = login_->target();
      log_.Log(LogLevel::kWarn, "iscsi initiator " + peer_ + " (" + Printable(login_->initiator()) +
                                    ") was refused" +
                                    (target.empty() ? "" : " at " + Printable(target)) + ": " +
                                    LoginStatusName(status));
    }
    return To(Event::kLastRequest);
  }
  negotiation_ = login_->negotiation();
  digests_ = negotiation_.parameters().digests;
  login_ = nullptr;
  To(Event::kLoggedIn);
  reactor_.Arm(&timer_, reactor_.NowNs() + kDiscoveryIdleNs);
}

void PortalConnection::TakeRequest(const Frame& frame, std::string_view data) {
  const auto request = As<TextRequest>(frame.header);
  const bool ours = frame.opcode() == Opcode::kTextRequest || frame.opcode() == Opcode::kNopOut ||
                    frame.opcode() == Opcode::kLogoutRequest;
  if (!ours) return Reject(frame, RejectReason::kNotSupported);
  if (!frame.immediate() && frame.header.task_tag != kNoTag) {
    if (request.command_number != expected_command_) return;  // outside of the window
    ++expected_command_;
  }
  if (frame.opcode() == Opcode::kTextRequest) return TakeText(request, data);
  if (frame.opcode() == Opcode::kNopOut) {
    if (request.task_tag == kNoTag) return;
    NopIn reply;
    reply.opcode = static_cast<uint8_t>(Opcode::kNopIn);
    reply.flags = kFlagFinal;
    reply.task_tag = request.task_tag;
    reply.transfer_tag = kNoTag;
    return Reply(reply, data.substr(0, std::min(kPingBytesMax,
                                                negotiation_.parameters().send_segment_bytes_max)));
  }
  LogoutResponse reply;
  reply.opcode = static_cast<uint8_t>(Opcode::kLogoutResponse);
  reply.flags = kFlagFinal;
  reply.task_tag = request.task_tag;
  Reply(reply, "");
  To(Event::kLastRequest);
}

void PortalConnection::TakeText(const TextRequest& request, std::string_view data) {
  TextReply reply;
  if (!text_.Take(request, data, owner_.targets(), "", &negotiation_, &reply)) {
    Frame frame;
    frame.header = As<BasicHeader>(request);
    return Reject(frame, RejectReason::kProtocolError);
  }
  // Counted with its last part.
  if ((reply.header.flags & kFlagFinal) != 0) owner_.OnDiscovery();
  Reply(reply.header, reply.text);
}

void PortalConnection::Reject(const Frame& frame, RejectReason reason) {
  TaskManagementResponse reply;
  reply.opcode = static_cast<uint8_t>(Opcode::kReject);
  reply.flags = kFlagFinal;
  reply.response = static_cast<uint8_t>(reason);
  reply.task_tag = kNoTag;
  const auto rejected = As<std::array<char, kHeaderBytes>>(frame.header);
  Reply(reply, {rejected.data(), rejected.size()});
}

}  // namespace ankole::iscsi
