#include <algorithm>
#include <cstring>

#include "base/crc32c.h"
#include "replica/served_replica.h"
#include "replica/session.h"

// Who the engine is, and for which epoch it has the replica: HELLO, AUTH, INQUIRE, WELCOME, CLOSE.
// One at a time; docs/internals/wire-protocol.md, «Handshake».
namespace ankole::replica {

void Session::OnControl(const wire::Header& header, std::span<const std::byte> payload) {
  control_header_ = header;
  switch (header.opcode) {
    case wire::Opcode::kHello:
      OnHello(payload);
      return;
    case wire::Opcode::kAuth:
      OnAuth(payload);
      return;
    case wire::Opcode::kInquire:
      if (!Enter(SessionEvent::kInquire, "INQUIRE")) return;
      control_busy_ = true;
      replica_->Inquire(this);
      return;
    case wire::Opcode::kWelcome:
      if (!payload.empty()) {
        Breach("WELCOME has a payload");
        return;
      }
      if (!Enter(SessionEvent::kWelcome, "WELCOME")) return;
      control_busy_ = true;
      replica_->Welcome(this);
      return;
    case wire::Opcode::kShare:
      OnShare(payload);
      return;
    default:
      if (in_flight_ > 0 || !waiting_.empty()) {
        Breach("CLOSE while operations are outstanding");
        return;
      }
      if (!Enter(SessionEvent::kClose, "CLOSE")) return;
      control_busy_ = true;
      replica_->Leave(this);
  }
}

void Session::OnHello(std::span<const std::byte> payload) {
  Result<wire::Hello> hello = wire::DecodeHello(payload);
  if (!hello.ok()) {
    Close(hello.status());
    return;
  }
  Status refusal;
  ServedReplica* replica = nullptr;
  if (hello.value().version_min > wire::kVersion || hello.value().version_max < wire::kVersion) {
    refusal = {ErrorCode::kUnsupported,
               "only version " + std::to_string(wire::kVersion) + " is spoken here"};
  } else {
    Result<ServedReplica*> found = host_.FindReplica(hello.value().volume, hello.value().replica);
    if (found.ok()) {
      replica = found.value();
    } else {
      refusal = found.status();
    }
  }
  if (!Enter(refusal.ok() ? SessionEvent::kHello : SessionEvent::kHelloRefused, "HELLO")) return;
  hello_ = hello.Take();
  control_busy_ = true;
  if (!refusal.ok()) {
    AnswerControl(refusal, {});
    return;
  }
  CHECK(replica != nullptr);
  replica_ = replica;
  replica_->Attach(this);
  std::copy(payload.begin(), payload.end(), hello_bytes_.begin());
  wire::Challenge challenge;
  challenge.version = wire::kVersion;
  challenge.features = hello_.features & wire::kFeatureSharedMemory;
  connection_.AcceptDescriptors(challenge.features != 0);
  reactor_.Random(challenge.nonce.data(), challenge.nonce.size());
  challenge.proof = wire::ReplicaProof(replica_->identity().secret, hello_bytes_,
                                       wire::EncodeChallenge(challenge));
  challenge_bytes_ = wire::EncodeChallenge(challenge);
  AnswerControl(Status::Ok(), challenge_bytes_);
}

void Session::OnAuth(std::span<const std::byte> payload) {
  if (payload.size() != wire::kAuthBytes) {
    Breach("AUTH has the wrong length");
    return;
  }
  bool good = false;
  if (mode_ == SessionMode::kChallenged) {
    const Sha256Digest expected =
        wire::EngineProof(replica_->identity().secret, hello_bytes_, challenge_bytes_);
    good = EqualConstantTime(expected,
                             {reinterpret_cast<const uint8_t*>(payload.data()), payload.size()});
  }
  if (!Enter(good ? SessionEvent::kProofGood : SessionEvent::kProofBad, "AUTH")) return;
  if (!good) {
    control_busy_ = control_last_ = true;
    AnswerControl({ErrorCode::kAuthenticationFailed, "the proof is wrong"}, {});
    return;
  }
  reactor_.Cancel(&timer_);
  if (const Status reserved = operations_.Reserve(); !reserved.ok()) {
    Close(reserved);
    return;
  }
  control_busy_ = true;
  AnswerControl(Status::Ok(), {});
}

void Session::OnInquired(const Status& status, const wire::ReplicaState& state) {
  AnswerControl(status, wire::EncodeReplicaState(state));
}

void Session::OnWelcomed(const Status& status, const wire::ReplicaState& state) {
  if (status.ok() && buffers_ == nullptr) {
    Result<std::unique_ptr<BufferPool>> buffers =
        BufferPool::Create("ankole-session", kSmallBuffers, kMediumBuffers, kLargeBuffers);
    if (!buffers.ok()) {
      Close(buffers.status());
      return;
    }
    buffers_ = buffers.Take();
  }
  const bool entered =
      Enter(status.ok() ? SessionEvent::kWelcomeDone : SessionEvent::kWelcomeRefused, "WELCOME");
  CHECK(entered);
  AnswerControl(status, wire::EncodeReplicaState(state));
}

void Session::OnLeft(const Status& status) {
  const bool entered = Enter(SessionEvent::kCloseDone, "CLOSE");
  CHECK(entered);
  AnswerControl(status, {});
}

void Session::AnswerControl(const Status& status, std::span<const std::byte> payload) {
  CHECK(control_busy_);
  if (!connection_.open()) return;
  const std::string& why = status.message();
  if (!status.ok()) payload = std::as_bytes(std::span(why.data(), why.size()));
  const size_t bytes = std::min(payload.size(), control_payload_.size());
  if (bytes > 0) std::memcpy(control_payload_.data(), payload.data(), bytes);
  wire::Header header;
  header.opcode = control_header_.opcode;
  header.reply = true;
  header.status = status.code();
  header.tag = control_header_.tag;
  header.slot = control_header_.slot;
  header.payload_bytes = static_cast<uint32_t>(bytes);
  header.payload_crc32c = Crc32c(control_payload_.data(), bytes);
  wire::EncodeHeader(header, control_reply_.header);
  control_reply_.table = control_payload_.data();
  control_reply_.table_bytes = static_cast<uint32_t>(bytes);
  connection_.Push(&control_reply_);
}

}  // namespace ankole::replica
