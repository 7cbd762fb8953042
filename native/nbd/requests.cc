#include <algorithm>
#include <cstring>

#include "nbd/connection.h"

// From the client's bytes to requests of the device.
namespace ankole::nbd {

namespace {

// From this length on a write's data is received into a chunk of its own.
constexpr uint32_t kLargePayloadBytes = 32 * kKiB;
// How many requests without much data, after a large write, until the window is opened again.
constexpr uint8_t kSmallWindowRequests = 16;
// A longer read is answered, with simple replies, before all of it is there. Its header has then
// promised success, and an error can only be told by closing the connection.
constexpr uint32_t kWholeReadBytesMax = 8 * kMiB;

static_assert(kRequestHeaderBytes + kLargePayloadBytes <= BufferPool::kSmallBytes);
// A whole read, its predecessor's last pieces and the windows fit into the quota.
static_assert(kWholeReadBytesMax + 2 * BufferPool::kLargeBytes <= kConnectionBufferBytesMax);

// The next piece of a cut request. After an odd start pieces begin on a block, so that no two of
// them share one.
uint32_t PieceBytes(const Operation& head) {
  const uint64_t offset = head.request.offset_bytes + head.begun_bytes;
  const uint32_t left = head.request.length_bytes - head.begun_bytes;
  return std::min(left, static_cast<uint32_t>(kDataBytesMax - offset % kBlockBytes));
}

}  // namespace

Connection::Progress Connection::ParseRequest() {
  Window& window = state_.window;
  needed_bytes_ = kRequestHeaderBytes;
  if (window.bytes() < needed_bytes_) return Progress::kNeedsBytes;
  const std::optional<Request> request = DecodeRequest(window.data());
  if (!request) {
    Fail("sent something that is not an NBD request");
    return Progress::kBlocked;
  }
  if (request->command == Command::kDisconnect) {
    Consume(kRequestHeaderBytes);
    To(Event::kLastRequest);
    return Progress::kMade;
  }
  const Error error =
      Validate(*request, state_.negotiated, device_->size_bytes(), device_->read_only());
  if (request->command == Command::kWrite) return ParseWrite(*request, error);
  if (error == Error::kNone && request->command == Command::kRead) return TakeRead(*request);

  Operation* operation = NewOperation();
  if (operation == nullptr) return Progress::kBlocked;
  operation->request = *request;
  const uint64_t offset = request->offset_bytes;
  const uint32_t length = request->length_bytes;
  if (error != Error::kNone) {
    operation->error = error;
    Queue(operation);
  } else if (request->command == Command::kFlush) {
    Submit(operation, BlockOperation::kFlush, *request, 0, 0);
  } else if (request->command == Command::kTrim) {
    Submit(operation, BlockOperation::kUnmap, *request, offset, length);
  } else if (request->command == Command::kWriteZeroes) {
    // FAST_ZERO needs nothing: zeroing is never slower than writing here.
    Submit(operation, BlockOperation::kZero, *request, offset, length);
  } else {
    CHECK(request->command == Command::kBlockStatus);
    operation->extents_max = (request->flags & kCommandReqOne) != 0 ? 1 : kExtentsMax;
    const auto bytes = static_cast<uint32_t>(operation->extents_max * sizeof(BlockExtent));
    if (!TakeBuffer(operation, bytes)) {
      Free(operation);
      return Progress::kBlocked;
    }
    operation->extents = reinterpret_cast<BlockExtent*>(operation->data);
    operation->extents_count = 0;
    Submit(operation, BlockOperation::kStatus, *request, offset, length);
  }
  Consume(kRequestHeaderBytes);
  if (state_.small_window_requests > 0) --state_.small_window_requests;
  return Progress::kMade;
}

// --- reads ---------------------------------------------------------------------------------------

Connection::Progress Connection::TakeRead(const Request& request) {
  Operation* operation = NewOperation();
  if (operation == nullptr) return Progress::kBlocked;
  operation->request = request;
  if (request.length_bytes <= kDataBytesMax) {
    if (!TakeBuffer(operation, request.length_bytes)) {
      Free(operation);
      return Progress::kBlocked;
    }
    operation->reply_data_bytes = request.length_bytes;
    Submit(operation, BlockOperation::kRead, request, request.offset_bytes, request.length_bytes);
  } else {
    state_.incoming = {Incoming::Kind::kCutRead, operation, nullptr, 0};
    if (!state_.negotiated.structured_replies) {
      operation->streaming = request.length_bytes > kWholeReadBytesMax;
      streams_.PushBack(operation);
    }
  }
  Consume(kRequestHeaderBytes);
  if (state_.small_window_requests > 0) --state_.small_window_requests;
  return Progress::kMade;
}

Connection::Progress Connection::SubmitReadPiece() {
  Operation* head = state_.incoming.head;
  if (head->error != Error::kNone) {
    // A piece has failed, so the rest is of no use.
    head->begun_bytes = head->request.length_bytes;
    state_.incoming = {};
    if (head->pieces_unfinished == 0 && state_.negotiated.structured_replies) Queue(head);
    return Progress::kMade;
  }
  Operation* piece = NewOperation();
  if (piece == nullptr) return Progress::kBlocked;
  const uint32_t length = PieceBytes(*head);
  if (!TakeBuffer(piece, length)) {
    // Two connections that both wait for the whole of a read must not share out the last chunks.
    if (starved) head->streaming = true;
    Free(piece);
    return Progress::kBlocked;
  }
  piece->head = head;
  piece->reply_data_bytes = length;
  if (!state_.negotiated.structured_replies) {
    (head->last_piece == nullptr ? head->first_piece : head->last_piece->next_piece) = piece;
    head->last_piece = piece;
  }
  const uint64_t offset = head->request.offset_bytes + head->begun_bytes;
  head->begun_bytes += length;
  ++head->pieces_unfinished;
  if (head->begun_bytes == head->request.length_bytes) state_.incoming = {};
  Submit(piece, BlockOperation::kRead, head->request, offset, length);
  return Progress::kMade;
}

// --- writes --------------------------------------------------------------------------------------

Connection::Progress Connection::ParseWrite(const Request& request, Error error) {
  Window& window = state_.window;
  const uint32_t length = request.length_bytes;
  if (length > kRequestBytesMax) {
    Fail("sent a write of " + std::to_string(length) + " bytes");
    return Progress::kBlocked;
  }
  const bool small = error == Error::kNone && length < kLargePayloadBytes;
  if (small && window.bytes() < kRequestHeaderBytes + length) {
    needed_bytes_ = kRequestHeaderBytes + length;
    return Progress::kNeedsBytes;
  }
  Operation* operation = NewOperation();
  if (operation == nullptr) return Progress::kBlocked;
  operation->request = request;
  if (error != Error::kNone) {
    operation->error = error;
    state_.incoming = {Incoming::Kind::kSkip, operation, nullptr, 0};
    Consume(kRequestHeaderBytes);
    return Progress::kMade;
  }
  if (small) {
    BufferPool::Retain(window.chunk);
    operation->chunk = window.chunk;
    operation->data = window.data() + kRequestHeaderBytes;
    Consume(kRequestHeaderBytes + length);
    state_.small_window_requests = 0;
    Submit(operation, BlockOperation::kWrite, request, request.offset_bytes, length);
    return Progress::kMade;
  }
  Operation* piece = nullptr;
  if (length <= kDataBytesMax) {
    if (!TakeBuffer(operation, length)) {
      Free(operation);
      return Progress::kBlocked;
    }
    operation->offset_bytes = request.offset_bytes;
    operation->length_bytes = length;
    piece = operation;
  }
  Consume(kRequestHeaderBytes);
  state_.incoming = {Incoming::Kind::kPayload, operation, piece, 0};
  state_.small_window_requests = kSmallWindowRequests;
  return Progress::kMade;
}

Connection::Progress Connection::TakePayload() {
  Incoming& incoming = state_.incoming;
  Operation* head = incoming.head;
  if (incoming.piece == nullptr) {
    Operation* piece = NewOperation();
    if (piece == nullptr) return Progress::kBlocked;
    const uint32_t length = PieceBytes(*head);
    if (!TakeBuffer(piece, length)) {
      Free(piece);
      return Progress::kBlocked;
    }
    piece->head = head;
    piece->offset_bytes = head->request.offset_bytes + head->begun_bytes;
    piece->length_bytes = length;
    head->begun_bytes += length;
    ++head->pieces_unfinished;
    incoming.piece = piece;
    incoming.received_bytes = 0;
  }
  Operation* piece = incoming.piece;
  const auto length = static_cast<uint32_t>(piece->length_bytes);
  const uint32_t bytes = std::min(state_.window.bytes(), length - incoming.received_bytes);
  if (bytes > 0) {
    std::memcpy(piece->data + incoming.received_bytes, state_.window.data(), bytes);
    Consume(bytes);
    incoming.received_bytes += bytes;
  }
  if (incoming.received_bytes < length) return Progress::kNeedsBytes;
  incoming.piece = nullptr;
  if (piece == head || head->begun_bytes == head->request.length_bytes) incoming = {};
  Submit(piece, BlockOperation::kWrite, head->request, piece->offset_bytes, length);
  return Progress::kMade;
}

Connection::Progress Connection::SkipPayload() {
  Incoming& incoming = state_.incoming;
  const uint32_t bytes = std::min(state_.window.bytes(),
                                  incoming.head->request.length_bytes - incoming.received_bytes);
  Consume(bytes);
  incoming.received_bytes += bytes;
  if (incoming.received_bytes < incoming.head->request.length_bytes) return Progress::kNeedsBytes;
  Queue(incoming.head);
  incoming = {};
  return Progress::kMade;
}

void Connection::Submit(Operation* operation, BlockOperation kind, const Request& request,
                        uint64_t offset_bytes, uint64_t length_bytes) {
  operation->operation = kind;
  // Clients may set FUA on any command.
  operation->force_unit_access = (request.flags & kCommandFua) != 0 &&
                                 (kind == BlockOperation::kWrite || kind == BlockOperation::kZero ||
                                  kind == BlockOperation::kUnmap);
  operation->keep_allocated = (request.flags & kCommandNoHole) != 0;
  operation->offset_bytes = offset_bytes;
  operation->length_bytes = length_bytes;
  operation->status = ErrorCode::kOk;
  ++at_device_;
  device_->Submit(operation);
}

}  // namespace ankole::nbd
