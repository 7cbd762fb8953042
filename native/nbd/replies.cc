#include <algorithm>
#include <cstring>

#include "nbd/connection.h"

// From finished requests of the device to bytes for the client.
namespace ankole::nbd {

void Connection::OnDeviceDone(BlockRequest* request) {
  auto* operation = static_cast<Operation*>(request);
  Connection* self = operation->connection;
  --self->at_device_;
  if (self->state_.mode >= Mode::kClosing) return self->FinishIfGone();
  if (operation->head != nullptr) {
    self->FinishPiece(operation);
  } else {
    operation->error = ErrorOf(operation->status);
    if (operation->error != Error::kNone) {
      operation->reply_data_bytes = 0;
    } else if (operation->operation == BlockOperation::kStatus) {
      self->FinishBlockStatus(operation);
    }
    if (operation->reply_data_bytes == 0 && operation->chunk != nullptr) {
      self->Release(operation->chunk);
      operation->chunk = nullptr;
    }
    self->Queue(operation);
  }
  // At the end of the turn: one Send for all that became ready in it.
  self->Wake();
}

void Connection::FinishPiece(Operation* piece) {
  Operation* head = piece->head;
  const Error error = ErrorOf(piece->status);
  if (head->error == Error::kNone) head->error = error;
  --head->pieces_unfinished;
  const bool complete =
      head->pieces_unfinished == 0 && head->begun_bytes == head->request.length_bytes;
  if (head->request.command == Command::kWrite) {
    Free(piece);
    if (complete) Queue(head);
  } else if (state_.negotiated.structured_replies) {
    if (error != Error::kNone) {
      Free(piece);
    } else {
      piece->last_chunk = complete && head->error == Error::kNone;
      Queue(piece);
    }
    if (complete && head->error != Error::kNone) Queue(head);
  } else {
    piece->finished = true;
    if (head == stream_ && head->error != Error::kNone) {
      Fail("cannot be told of an I/O error in the middle of a simple reply");
    }
  }
}

// Turns the device's extents into those of the protocol, in place: they are smaller.
void Connection::FinishBlockStatus(Operation* operation) {
  static_assert(sizeof(BlockExtent) >= kExtentBytes);
  CHECK(operation->extents_count > 0 && operation->extents_count <= operation->extents_max);
  uint64_t left = operation->request.length_bytes;
  uint32_t count = 0;
  uint32_t length = 0;  // of extent number `count`, not yet written
  uint32_t flags = 0;
  for (uint32_t i = 0; i < operation->extents_count && left > 0; ++i) {
    const BlockExtent extent = operation->extents[i];
    const auto bytes = static_cast<uint32_t>(std::min(extent.length_bytes, left));
    const uint32_t kind = (extent.hole ? kStateHole : 0) | (extent.zero ? kStateZero : 0);
    left -= bytes;
    if (length > 0 && kind == flags) {
      length += bytes;
      continue;
    }
    if (length > 0) EncodeExtent(operation->data + kExtentBytes * count++, length, flags);
    length = bytes;
    flags = kind;
  }
  EncodeExtent(operation->data + kExtentBytes * count++, length, flags);
  operation->reply_data_bytes = kExtentBytes * count;
}

void Connection::Queue(Operation* operation) { ready_.PushBack(operation); }

// --- sending -------------------------------------------------------------------------------------

bool Connection::RoomToSend() const {
  return send_.vectors_count + 2 <= io::SendOperation::kVectorsMax &&
         reply_bytes_ + kReplyHeaderBytesMax <= kReplyBytes;
}

// Everything that is ready leaves in one Send; what becomes ready meanwhile in the next one.
void Connection::BuildSend() {
  if (sending_now_ || state_.mode >= Mode::kClosing) return;
  send_.vectors_count = 0;
  reply_bytes_ = 0;
  if (handshake_bytes_ > 0) {
    vectors_[static_cast<size_t>(send_.vectors_count++)] = {handshake_.data(), handshake_bytes_};
  }
  while (RoomToSend()) {
    if (stream_ != nullptr) {
      SendStream();
      if (stream_ != nullptr) break;
    } else if (!ready_.empty()) {
      EmitReply(ready_.PopFront());
    } else if (!StartStream()) {
      break;
    }
  }
  if (send_.vectors_count == 0) return;
  send_.vectors = vectors_.data();
  sending_now_ = true;
  reactor_.Send(&send_);
}

// Begins the simple reply of the oldest cut read. False when it has to wait.
bool Connection::StartStream() {
  Operation* head = streams_.front();
  if (head == nullptr) return false;
  const bool complete =
      head->pieces_unfinished == 0 && head->begun_bytes == head->request.length_bytes;
  const bool failed = head->error != Error::kNone;
  const bool early =
      head->streaming && !failed && head->first_piece != nullptr && head->first_piece->finished;
  if (!complete && !early) return false;
  streams_.Remove(head);
  if (failed) {
    for (Operation* piece = head->first_piece; piece != nullptr;) {
      Operation* next = piece->next_piece;
      Free(piece);
      piece = next;
    }
    EmitReply(head);
    return true;
  }
  EmitHeader(EncodeSimpleReply(reply_.data() + reply_bytes_, head->request.cookie, Error::kNone));
  stream_ = head;
  return true;
}

void Connection::SendStream() {
  Operation* head = stream_;
  while (RoomToSend() && head->first_piece != nullptr && head->first_piece->finished) {
    Operation* piece = head->first_piece;
    head->first_piece = piece->next_piece;
    if (head->first_piece == nullptr) head->last_piece = nullptr;
    EmitData(piece);
  }
  if (head->first_piece == nullptr && head->begun_bytes == head->request.length_bytes) {
    stream_ = nullptr;
    Free(head);
  }
}

void Connection::EmitReply(Operation* operation) {
  const Request& request =
      operation->head != nullptr ? operation->head->request : operation->request;
  std::byte* to = reply_.data() + reply_bytes_;
  const bool structured =
      state_.negotiated.structured_replies &&
      (request.command == Command::kRead || request.command == Command::kBlockStatus);
  if (!structured) {
    EmitHeader(EncodeSimpleReply(to, request.cookie, operation->error));
  } else if (operation->error != Error::kNone) {
    EmitHeader(EncodeErrorChunk(to, request.cookie, operation->error));
  } else if (request.command == Command::kBlockStatus) {
    EmitHeader(
        EncodeBlockStatusChunk(to, request.cookie, operation->reply_data_bytes / kExtentBytes));
  } else {
    Operation* head = operation->head;
    const bool done = head == nullptr || operation->last_chunk;
    EmitHeader(EncodeDataChunk(to, request.cookie, operation->offset_bytes,
                               operation->reply_data_bytes, done));
    if (head != nullptr && done) Free(head);
  }
  EmitData(operation);
}

// The header that was just written at the end of reply_. Headers without data in between are one
// vector.
void Connection::EmitHeader(uint32_t bytes) {
  std::byte* at = reply_.data() + reply_bytes_;
  reply_bytes_ += bytes;
  if (send_.vectors_count > 0) {
    iovec& last = vectors_[static_cast<size_t>(send_.vectors_count - 1)];
    if (static_cast<std::byte*>(last.iov_base) + last.iov_len == at) {
      last.iov_len += bytes;
      return;
    }
  }
  vectors_[static_cast<size_t>(send_.vectors_count++)] = {at, bytes};
}

// An operation with data is kept until it is sent; one without has said all.
void Connection::EmitData(Operation* operation) {
  if (operation->reply_data_bytes == 0) return Free(operation);
  vectors_[static_cast<size_t>(send_.vectors_count++)] = {operation->data,
                                                          operation->reply_data_bytes};
  sending_.PushBack(operation);
}

void Connection::OnSent(int64_t result) {
  sending_now_ = false;
  if (state_.mode >= Mode::kClosing) return;
  if (result < 0) return Lose(result);
  handshake_bytes_ = 0;
  while (Operation* operation = sending_.PopFront()) Free(operation);
  Turn();
}

}  // namespace ankole::nbd
