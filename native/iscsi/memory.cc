#include <algorithm>
#include <cstring>

#include "iscsi/connection.h"

// The memory that a connection's commands need, within its quotas.
namespace ankole::iscsi {

namespace {

// Reads up to this share a chunk.
constexpr uint32_t kSharedReadBytesMax = 32 * kKiB;

// The longest transfer with what it is compared to fits, whatever else is held.
static_assert((scsi::kSegmentsMax + 1) * BufferPool::kLargeBytes <= kConnectionBufferBytesMax);

}  // namespace

BufferPool::Chunk* Connection::Acquire(uint32_t bytes, Quota quota) {
  const bool reserve = quota == Quota::kReserve;
  size_t& held = reserve ? reserve_bytes_ : general_bytes_;
  const size_t held_max = reserve ? kReserveBytesMax : kConnectionBufferBytesMax;
  // At the quota some command is in flight or waits to be sent, and its end wakes this up.
  if (held + bytes > held_max) return nullptr;
  BufferPool::Chunk* chunk = device_.buffers().Acquire(bytes);
  if (chunk != nullptr && held + chunk->capacity_bytes > held_max) {
    BufferPool::Release(chunk);
    return nullptr;
  }
  if (chunk == nullptr) {
    owner_.OnStarved(this);
    return nullptr;
  }
  held += chunk->capacity_bytes;
  return chunk;
}

void Connection::Release(BufferPool::Chunk* chunk, Quota quota) {
  if (chunk->references == 1) {
    (quota == Quota::kReserve ? reserve_bytes_ : general_bytes_) -= chunk->capacity_bytes;
  }
  BufferPool::Release(chunk);
}

// A part of the shared chunk.
bool Connection::TakeSmall(Request* request, uint32_t bytes, scsi::Segments* segments) {
  if (shared_ != nullptr && shared_->references == 1) shared_used_bytes_ = 0;
  if (shared_ == nullptr || shared_->capacity_bytes - shared_used_bytes_ < bytes) {
    BufferPool::Chunk* fresh = Acquire(BufferPool::kSmallBytes, Quota::kGeneral);
    if (fresh == nullptr) return false;
    if (shared_ != nullptr) Release(shared_, Quota::kGeneral);
    shared_ = fresh;
    shared_used_bytes_ = 0;
  }
  BufferPool::Retain(shared_);
  request->chunks[request->chunks_count++] = shared_;
  (*segments)[0] = {shared_->data + shared_used_bytes_, bytes};
  shared_used_bytes_ += static_cast<uint32_t>(RoundUp(bytes, kBlockBytes));
  shared_used_bytes_ = std::min(shared_used_bytes_, shared_->capacity_bytes);
  return true;
}

bool Connection::TakeSegments(Request* request, uint32_t bytes, scsi::Segments* segments) {
  if (bytes == 0) return true;
  if (bytes <= kSharedReadBytesMax) return TakeSmall(request, bytes, segments);
  for (size_t i = 0; bytes > 0; ++i) {
    const uint32_t part = std::min(bytes, kDataBytesMax);
    BufferPool::Chunk* chunk =
        Acquire(static_cast<uint32_t>(RoundUp(part, kSectorBytes)), Quota::kGeneral);
    if (chunk == nullptr) return false;
    request->chunks[request->chunks_count++] = chunk;
    (*segments)[i] = {chunk->data, part};
    bytes -= part;
  }
  return true;
}

// All that the command needs beyond the reserve, or nothing: a command that waits holds nothing
// that another one waits for.
bool Connection::TakeMemory(Request* request) {
  const bool reserved_is_all = request->want_bytes <= kFirstBurstBytesMax;
  const uint32_t out_bytes = reserved_is_all ? 0 : request->want_bytes;
  scsi::Segments out;
  if (TakeSegments(request, out_bytes, &out) &&
      TakeSegments(request, request->in_room_bytes, &request->in) &&
      TakeSegments(request, request->needs.scratch_bytes, &request->scratch)) {
    if (out_bytes > 0) request->out = out;
    return request->has_memory = true;
  }
  while (request->chunks_count > 0) {
    Release(request->chunks[--request->chunks_count], Quota::kGeneral);
  }
  return false;
}

void Connection::GiveBackMemory(Request* request) {
  if (request->reserved != nullptr) Release(request->reserved, Quota::kReserve);
  request->reserved = nullptr;
  while (request->chunks_count > 0) {
    Release(request->chunks[--request->chunks_count], Quota::kGeneral);
  }
}

void Connection::ServeWaiting() {
  while (Request* request = waiting_.front()) {
    // A Receive may be writing to its first burst.
    if (incoming_.active && incoming_.request == request) return;
    if (!TakeMemory(request)) return;
    waiting_.Remove(request);
    if (request->want_bytes > kFirstBurstBytesMax && request->reserved != nullptr) {
      std::memcpy(request->out[0].data, request->reserved->data,
                  std::min(request->received_bytes, request->want_bytes));
      Release(request->reserved, Quota::kReserve);
      request->reserved = nullptr;
    }
    Proceed(request);
  }
}

// Where byte `offset_bytes` of the command's data belongs, and for how many it is so. Null: it is
// not wanted.
std::byte* Connection::Destination(Request* request, uint32_t offset_bytes,
                                   uint32_t* contiguous_bytes) {
  if (request->fault != DataFault::kNone || offset_bytes >= request->want_bytes) return nullptr;
  if (!request->has_memory || request->want_bytes <= kFirstBurstBytesMax) {
    CHECK(request->reserved != nullptr && offset_bytes < kFirstBurstBytesMax);
    *contiguous_bytes = std::min(request->want_bytes, kFirstBurstBytesMax) - offset_bytes;
    return request->reserved->data + offset_bytes;
  }
  const scsi::Segment& segment = request->out[offset_bytes / kDataBytesMax];
  *contiguous_bytes = segment.bytes - offset_bytes % kDataBytesMax;
  return segment.data + offset_bytes % kDataBytesMax;
}

}  // namespace ankole::iscsi
