#include "replica/shared_end.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/limits.h"

namespace ankole::replica {

SharedEnd::~SharedEnd() {
  if (engine_doorbell_.valid()) close(engine_doorbell_.fd);
}

wire::SharedRings& SharedEnd::rings() const {
  return *reinterpret_cast<wire::SharedRings*>(rings_->data());
}

wire::SharedCounters& SharedEnd::counters() const {
  return *reinterpret_cast<wire::SharedCounters*>(counters_->data());
}

Status SharedEnd::Take(int descriptor, wire::SharedPart part, uint64_t bytes) {
  if (complete() || static_cast<uint32_t>(part) != parts_) {
    close(descriptor);
    return {ErrorCode::kProtocolError, "SHARE: a part out of its order"};
  }
  const auto adopt = [&](std::unique_ptr<wire::SharedMapping>* to, uint64_t bytes_min,
                         bool writable) -> Status {
    if (bytes < bytes_min) {
      close(descriptor);
      return {ErrorCode::kProtocolError, "SHARE: the memory is too small"};
    }
    Result<std::unique_ptr<wire::SharedMapping>> mapping =
        wire::SharedMapping::Adopt(descriptor, bytes, writable);
    if (!mapping.ok()) return mapping.status();
    *to = mapping.Take();
    return Status::Ok();
  };
  const auto doorbell = [&](io::Socket* to) -> Status {
    // One that blocks could hold the whole disk host up.
    if ((fcntl(descriptor, F_GETFL) & O_NONBLOCK) == 0) {
      close(descriptor);
      return {ErrorCode::kProtocolError, "SHARE: a doorbell that blocks"};
    }
    to->fd = descriptor;
    return Status::Ok();
  };
  switch (part) {
    case wire::SharedPart::kRings:
      RETURN_IF_ERROR(adopt(&rings_, sizeof(wire::SharedRings), true));
      requests_.emplace(rings().requests);
      replies_.emplace(rings().replies);
      break;
    case wire::SharedPart::kReadArea:
      RETURN_IF_ERROR(adopt(&read_area_, 1, true));
      break;
    case wire::SharedPart::kWriteArena:
      RETURN_IF_ERROR(adopt(&write_arena_, 1, false));
      break;
    case wire::SharedPart::kCounters:
      RETURN_IF_ERROR(adopt(&counters_, sizeof(wire::SharedCounters), true));
      break;
    case wire::SharedPart::kHostDoorbell:
      RETURN_IF_ERROR(doorbell(&host_doorbell_));
      break;
    case wire::SharedPart::kEngineDoorbell:
      RETURN_IF_ERROR(doorbell(&engine_doorbell_));
      break;
  }
  ++parts_;
  return Status::Ok();
}

bool SharedEnd::Peek(Result<wire::Header>* header) {
  bool broken = false;
  if (!requests_->Ready(&broken)) {
    if (!broken) return false;
    *header = Status(ErrorCode::kProtocolError, "the ring of requests is broken");
    return true;
  }
  std::array<std::byte, wire::kHeaderBytes> bytes;
  requests_->CopyTo(bytes);
  *header = wire::DecodeSharedHeader(bytes);
  if (header->ok() && header->value().reply) {
    *header = Status(ErrorCode::kProtocolError, "a reply in the ring of requests");
  }
  return true;
}

bool SharedEnd::Sleep() {
  requests_->Sleep();
  bool broken = false;
  if (!requests_->Ready(&broken) && !broken) return true;
  requests_->WakeUp();
  return false;
}

std::byte* SharedEnd::DataOf(const wire::Header& request) const {
  const wire::SharedMapping& memory =
      request.opcode == wire::Opcode::kRead ? *read_area_ : *write_arena_;
  return memory.At(request.shared_offset_bytes, request.length_bytes);
}

bool SharedEnd::Reply(const wire::Header& header) {
  if (!replies_->HasRoom()) return false;
  wire::EncodeHeader(header, replies_->entry());
  replies_->Publish();
  if (header.slot < kEngineOperationsMax) {
    std::atomic_ref<int32_t> waiting(counters().waiting[header.slot]);
    // Zero or less: the last one, or the engine wants to hear of every one.
    announce_ |= waiting.fetch_sub(1, std::memory_order_acq_rel) <= 1;
  }
  return true;
}

void SharedEnd::Flush() {
  if (!announce_) return;
  announce_ = false;
  if (wire::Atomic(counters().engine_sleeps).exchange(0, std::memory_order_acq_rel) != 0) {
    reactor_.Ring(engine_doorbell_);
  }
}

}  // namespace ankole::replica
