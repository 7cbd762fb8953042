#include "engine/link.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace ankole::engine {
namespace {

// Tags of control frames have this bit, those of operations have not.
constexpr uint64_t kControlTagBit = 1ULL << 63;
constexpr uint32_t kControlSlot = UINT32_MAX;
// A disk host that is restarted is back in a tenth of a second: look often at first.
constexpr uint64_t kBackoffMinNs = 10 * kNsPerMs;
constexpr uint64_t kBackoffMaxNs = 500 * kNsPerMs;
// A connection that held for less was no better than none: the back-off goes on.
constexpr uint64_t kStableNs = kNsPerSecond;
constexpr uint64_t kHandshakeNs = 5 * kNsPerSecond;

std::string Text(const std::byte* payload, uint32_t bytes) {
  std::string text;
  for (uint32_t i = 0; i < std::min<uint32_t>(bytes, 512); ++i) {
    const char c = static_cast<char>(payload[i]);
    text.push_back(c >= 0x20 && c < 0x7f ? c : '?');
  }
  return text;
}

}  // namespace

LinkMode NextLinkMode(LinkMode mode, LinkEvent event) {
  using M = LinkMode;
  using E = LinkEvent;
  if (mode == M::kGone) return mode;
  switch (event) {
    case E::kConnect:
      return mode == M::kDown ? M::kConnecting : mode;
    case E::kConnected:
      return mode == M::kConnecting ? M::kChallenging : mode;
    case E::kChallenged:
      return mode == M::kChallenging ? M::kProving : mode;
    case E::kProved:
      return mode == M::kProving ? M::kAuthentic : mode;
    case E::kAsk:
      return mode == M::kAuthentic ? M::kAsking : mode;
    case E::kFence:
      return mode == M::kAuthentic ? M::kWelcoming : mode;
    case E::kAnswered:
      if (mode == M::kAsking) return M::kAuthentic;
      return mode == M::kWelcoming ? M::kUp : mode;
    case E::kClose:
      return mode == M::kDown || mode == M::kLeaving ? mode : M::kClosing;
    case E::kLost:
      return mode == M::kLeaving ? M::kGone : M::kDown;
    case E::kLeave:
      return mode == M::kDown ? M::kGone : M::kLeaving;
  }
  return mode;
}

const char* LinkModeName(LinkMode mode) {
  switch (mode) {
    case LinkMode::kDown:
      return "down";
    case LinkMode::kConnecting:
    case LinkMode::kChallenging:
    case LinkMode::kProving:
      return "connecting";
    case LinkMode::kAuthentic:
    case LinkMode::kAsking:
    case LinkMode::kWelcoming:
      return "connected";
    case LinkMode::kUp:
      return "up";
    case LinkMode::kClosing:
    case LinkMode::kLeaving:
      return "closing";
    case LinkMode::kGone:
      return "gone";
  }
  return "unknown";
}

Link::Link(io::Reactor& reactor, Owner& owner, LogSink& log, Options options)
    : reactor_(reactor),
      owner_(owner),
      log_(log),
      options_(std::move(options)),
      connection_(reactor, *this) {
  connect_.owner = retry_.owner = handshake_.owner = this;
  connect_.address = options_.address;
  connect_.done = [](io::Operation* operation) {
    static_cast<Link*>(operation->owner)->OnConnected();
  };
  retry_.done = [](io::Operation* operation) { static_cast<Link*>(operation->owner)->Connect(); };
  shared_flush_.owner = this;
  shared_flush_.done = [](io::Operation* operation) {
    auto* self = static_cast<Link*>(operation->owner);
    if (self->shared_ != nullptr) self->shared_->Flush();
  };
  control_.owner = this;
  control_.sent = [](wire::OutgoingFrame* frame) {
    auto* self = static_cast<Link*>(frame->owner);
    if (!self->early_reply_) return;
    self->early_reply_ = false;
    self->OnControlReply(self->early_header_, self->early_payload_.data());
  };
  handshake_.done = [](io::Operation* operation) {
    static_cast<Link*>(operation->owner)
        ->Break({ErrorCode::kTimedOut, "no answer to the handshake within 5 s"});
  };
}

bool Link::Move(LinkEvent event) {
  const LinkMode next = NextLinkMode(mode_, event);
  const bool moved = next != mode_;
  mode_ = next;
  return moved;
}

void Link::Start() {
  down_since_ns_ = reactor_.NowNs();
  Connect();
}

void Link::Connect() {
  if (!Move(LinkEvent::kConnect)) return;
  reactor_.Arm(&handshake_, reactor_.NowNs() + kHandshakeNs);
  reactor_.Connect(&connect_);
}

void Link::OnConnected() {
  if (mode_ != LinkMode::kConnecting) {
    // Told to stop in the meantime.
    if (connect_.result >= 0) {
      connection_.Start(connect_.socket);
      connection_.Close(break_why_);
      return;
    }
    Lost(break_why_);
    return;
  }
  if (connect_.result < 0) {
    Lost(Status::FromErrno(static_cast<int>(-connect_.result),
                           "cannot connect to " + options_.address.ToString()));
    return;
  }
  Move(LinkEvent::kConnected);
  ping_sent_ns_ = 0;
  control_outstanding_ = early_reply_ = false;
  heard_ns_ = reactor_.NowNs();
  connection_.Start(connect_.socket);
  wire::Hello hello;
  hello.replica = options_.replica;
  hello.epoch = options_.epoch;
  hello.volume = options_.volume;
  if (options_.shared != nullptr) hello.features = wire::kFeatureSharedMemory;
  reactor_.Random(hello.nonce.data(), hello.nonce.size());
  hello_ = wire::EncodeHello(hello);
  SendControl(wire::Opcode::kHello, hello_.data(), hello_.size());
}

void Link::SendControl(wire::Opcode opcode, const void* payload, size_t bytes, uint16_t flags) {
  if (!connection_.open()) return;
  CHECK(!control_outstanding_ && !control_.pending() && bytes <= control_payload_.size());
  if (bytes > 0) std::memcpy(control_payload_.data(), payload, bytes);
  wire::Header header;
  header.opcode = opcode;
  header.flags = flags;
  control_outstanding_tag_ = header.tag = kControlTagBit | ++control_tag_;
  header.slot = kControlSlot;
  header.payload_bytes = static_cast<uint32_t>(bytes);
  header.payload_crc32c = Crc32c(control_payload_.data(), bytes);
  control_sent_ns_ = reactor_.NowNs();
  wire::EncodeHeader(header, control_.header);
  control_.table = control_payload_.data();
  control_.table_bytes = header.payload_bytes;
  if (opcode != wire::Opcode::kShare) control_.descriptor = -1;
  control_outstanding_ = true;
  connection_.Push(&control_);
}

void Link::Ask() {
  if (!Move(LinkEvent::kAsk)) return;
  reactor_.Arm(&handshake_, reactor_.NowNs() + kHandshakeNs);
  SendControl(wire::Opcode::kInquire, nullptr, 0);
}

void Link::Fence() {
  if (!Move(LinkEvent::kFence)) return;
  reactor_.Arm(&handshake_, reactor_.NowNs() + kHandshakeNs);
  SendControl(wire::Opcode::kWelcome, nullptr, 0);
}

void Link::SendRecord(const wire::RecordPair& pair, uint16_t flags) {
  std::array<std::byte, wire::kEncodedRecordPairBytes> bytes;
  wire::EncodeRecordPair(pair, bytes);
  sent_resynced_ = (flags & wire::kFlagResynced) != 0;
  SendControl(wire::Opcode::kRecord, bytes.data(), bytes.size(), flags);
}

void Link::SendClose() { SendControl(wire::Opcode::kClose, nullptr, 0); }

void Link::Ping() {
  if (ping_sent_ns_ != 0 || ping_.pending() || !up()) return;
  wire::Header header;
  header.opcode = wire::Opcode::kPing;
  header.tag = kControlTagBit | ++control_tag_;
  header.slot = kControlSlot;
  wire::EncodeHeader(header, ping_.header);
  ping_sent_ns_ = reactor_.NowNs();
  connection_.Push(&ping_);
}

bool Link::OnFrame(const wire::Header& header, const std::byte* payload, std::byte* data) {
  heard_ns_ = reactor_.NowNs();
  if (!header.reply) {
    Refuse({ErrorCode::kProtocolError,
            std::string("a replica sent the request ") + wire::OpcodeName(header.opcode)});
    return true;
  }
  if ((header.tag & kControlTagBit) == 0) {
    if (mode_ == LinkMode::kUp) {
      owner_.OnLinkReply(*this, header, payload, data);
    } else if (mode_ != LinkMode::kClosing && mode_ != LinkMode::kLeaving) {
      Refuse({ErrorCode::kProtocolError, "a reply before the welcome"});
    }
    return true;
  }
  if (header.opcode == wire::Opcode::kPing) {
    if (mode_ == LinkMode::kUp && ping_sent_ns_ != 0) {
      NoteProved(std::exchange(ping_sent_ns_, 0));
      owner_.OnLinkAlive(*this);
    }
    return true;
  }
  OnControlReply(header, payload);
  return true;
}

std::byte* Link::LargeData(const wire::Header& header) {
  if (mode_ != LinkMode::kUp || !header.reply || (header.tag & kControlTagBit) != 0) {
    Refuse({ErrorCode::kProtocolError, "data that nobody asked for"});
    return nullptr;
  }
  return owner_.OnLinkLargeData(*this, header);
}

void Link::OnControlReply(const wire::Header& header, const std::byte* payload) {
  if (!control_outstanding_ || header.tag != control_outstanding_tag_) {
    Refuse({ErrorCode::kProtocolError, "a reply to nothing that was asked"});
    return;
  }
  if (header.carries_data()) {
    Refuse({ErrorCode::kProtocolError, "data that nobody asked for"});
    return;
  }
  if (control_.pending()) {
    early_reply_ = true;
    early_header_ = header;
    std::memcpy(early_payload_.data(), payload, header.payload_bytes);
    return;
  }
  control_outstanding_ = false;
  const std::span<const std::byte> bytes(payload, header.payload_bytes);
  if (mode_ == LinkMode::kUp && header.status != ErrorCode::kFenced) NoteProved(control_sent_ns_);
  if (header.status != ErrorCode::kOk) {
    const Status refused(header.status, Text(payload, header.payload_bytes));
    if (mode_ == LinkMode::kUp) {
      owner_.OnLinkControl(*this, header.opcode, refused);
    } else {
      Refuse(refused);
    }
    return;
  }
  switch (header.opcode) {
    case wire::Opcode::kHello: {
      Result<wire::Challenge> challenge = wire::DecodeChallenge(bytes);
      if (!challenge.ok() || mode_ != LinkMode::kChallenging) {
        Refuse({ErrorCode::kProtocolError, "the answer to HELLO is no challenge"});
        return;
      }
      wire::ChallengeBytes challenge_bytes;
      std::memcpy(challenge_bytes.data(), bytes.data(), challenge_bytes.size());
      if (challenge.value().version != wire::kVersion ||
          !EqualConstantTime(challenge.value().proof,
                             wire::ReplicaProof(options_.secret, hello_, challenge_bytes))) {
        Refuse({ErrorCode::kAuthenticationFailed,
                "the replica could not prove that it knows the volume's secret"});
        return;
      }
      may_share_ = options_.shared != nullptr &&
                   (challenge.value().features & wire::kFeatureSharedMemory) != 0;
      Move(LinkEvent::kChallenged);
      const Sha256Digest proof = wire::EngineProof(options_.secret, hello_, challenge_bytes);
      SendControl(wire::Opcode::kAuth, proof.data(), proof.size());
      return;
    }
    case wire::Opcode::kAuth:
      if (!Move(LinkEvent::kProved)) break;
      reactor_.Cancel(&handshake_);
      owner_.OnLinkAuthentic(*this);
      return;
    case wire::Opcode::kInquire:
    case wire::Opcode::kWelcome: {
      const bool welcome = header.opcode == wire::Opcode::kWelcome;
      if (mode_ != (welcome ? LinkMode::kWelcoming : LinkMode::kAsking)) break;
      Result<wire::ReplicaState> state = wire::DecodeReplicaState(bytes);
      if (!state.ok()) {
        Refuse(state.status());
        return;
      }
      if (welcome) {
        welcome_state_ = state.Take();
        SendShare();
        return;
      }
      Move(LinkEvent::kAnswered);
      reactor_.Cancel(&handshake_);
      owner_.OnLinkState(*this, false, state.value());
      return;
    }
    case wire::Opcode::kShare:
      if (mode_ != LinkMode::kWelcoming || shared_ == nullptr) break;
      SendShare();
      return;
    case wire::Opcode::kRecord:
    case wire::Opcode::kClose:
      if (mode_ != LinkMode::kUp) break;
      owner_.OnLinkControl(*this, header.opcode, Status::Ok());
      return;
    default:
      break;
  }
  Refuse({ErrorCode::kProtocolError,
          std::string("a reply to ") + wire::OpcodeName(header.opcode) + " that nobody waits for"});
}

// Hands over the next part of what is shared; after the last one the way through memory is open.
// Where that cannot be made the socket serves as well.
void Link::SendShare() {
  if (may_share_ && shared_ == nullptr) {
    Result<std::unique_ptr<SharedLink>> made = SharedLink::Create(reactor_, *options_.shared);
    if (!made.ok()) {
      log_.Log(LogLevel::kWarn, "replica " + wire::ReplicaIdText(options_.replica) +
                                    " is served over its socket alone: " + made.status().message());
      may_share_ = false;
    } else {
      shared_ = made.Take();
      next_part_ = 0;
    }
  }
  if (!may_share_ || next_part_ == wire::kSharedParts) {
    EndWelcome();
    return;
  }
  const auto part = static_cast<wire::SharedPart>(next_part_++);
  std::array<std::byte, wire::kShareBytes> payload = {};
  StoreLittle(payload.data(), static_cast<uint32_t>(part));
  StoreLittle(payload.data() + 8, shared_->bytes(part));
  control_.descriptor = shared_->descriptor(part);
  SendControl(wire::Opcode::kShare, payload.data(), payload.size());
}

void Link::EndWelcome() {
  Move(LinkEvent::kAnswered);
  reactor_.Cancel(&handshake_);
  down_since_ns_ = 0;
  was_silent_ = false;
  welcomed_ns_ = reactor_.NowNs();
  owner_.OnLinkState(*this, true, welcome_state_);
}

void Link::Refuse(const Status& why) {
  Break(why);
  owner_.OnLinkRefused(*this, why);
}

void Link::Break(Status why) {
  if (mode_ == LinkMode::kClosing || mode_ == LinkMode::kLeaving) return;
  const LinkMode before = mode_;
  if (!Move(LinkEvent::kClose)) return;
  if (before == LinkMode::kConnecting) {
    break_why_ = std::move(why);
    reactor_.CancelConnect(&connect_);
  } else {
    connection_.Close(std::move(why));
  }
}

void Link::Leave(const std::string& why) {
  if (mode_ == LinkMode::kGone || mode_ == LinkMode::kLeaving) return;
  const LinkMode before = mode_;
  Move(LinkEvent::kLeave);
  reactor_.Cancel(&retry_);
  reactor_.Cancel(&handshake_);
  if (down_since_ns_ == 0) down_since_ns_ = reactor_.NowNs();
  why_down_ = why;
  if (before == LinkMode::kConnecting) {
    break_why_ = {ErrorCode::kCancelled, why};
    reactor_.CancelConnect(&connect_);
  } else if (before != LinkMode::kDown && before != LinkMode::kClosing) {
    connection_.Close({ErrorCode::kCancelled, why});
  }
}

void Link::OnClosed(const Status& why) { Lost(why); }

void Link::Lost(const Status& why) {
  reactor_.Cancel(&handshake_);
  const bool leaving = mode_ == LinkMode::kLeaving;
  Move(LinkEvent::kLost);
  ping_sent_ns_ = 0;
  control_outstanding_ = false;
  const uint64_t now_ns = reactor_.NowNs();
  if (down_since_ns_ == 0) down_since_ns_ = now_ns;
  if (welcomed_ns_ != 0 && now_ns - welcomed_ns_ >= kStableNs) backoff_ns_ = 0;
  welcomed_ns_ = 0;
  if (!leaving) {
    why_down_ = why.message();
    was_silent_ |= why.code() == ErrorCode::kTimedOut;
    reactor_.Arm(&retry_, now_ns + backoff_ns_);
    backoff_ns_ = std::clamp(2 * backoff_ns_, kBackoffMinNs, kBackoffMaxNs);
  }
  owner_.OnLinkLost(*this, why);
  // The disk host may still write to it, and nobody else ever gets this memory.
  shared_.reset();
}

void Link::Trim() {
  connection_.Trim();
  if (shared_ != nullptr) shared_->reads().Trim();
}

}  // namespace ankole::engine
