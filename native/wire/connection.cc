#include "wire/connection.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace ankole::wire {
namespace {

constexpr size_t kLargeWindowBytes = kHeaderBytes + (kDataBytesMax / kBlockBytes + 1) * 4;

Status LostStatus(int64_t result) {
  if (result == 0) return {ErrorCode::kConnectionLost, "the peer closed the connection"};
  return Status::FromErrno(static_cast<int>(-result), "the connection broke");
}

}  // namespace

Connection::Connection(io::Reactor& reactor, Handler& handler)
    : reactor_(reactor), handler_(handler) {
  receive_.owner = send_.owner = close_.owner = flush_.owner = this;
  receive_.done = [](io::Operation* operation) {
    static_cast<Connection*>(operation->owner)->OnReceived();
  };
  send_.done = [](io::Operation* operation) {
    static_cast<Connection*>(operation->owner)->OnSent();
  };
  close_.done = [](io::Operation* operation) {
    static_cast<Connection*>(operation->owner)->OnSocketClosed();
  };
  flush_.done = [](io::Operation* operation) {
    static_cast<Connection*>(operation->owner)->Flush();
  };
}

Connection::~Connection() {
  CHECK(state_ == State::kIdle && !flush_.scheduled);
  if (inbox_ != nullptr) munmap(inbox_, kInboxBytes);
}

void Connection::Start(io::Socket socket) {
  CHECK(state_ == State::kIdle && outgoing_.empty());
  state_ = State::kOpen;
  socket_ = receive_.socket = send_.socket = close_.socket = socket;
  why_ = Status::Ok();
  inbox_begin_ = inbox_end_ = 0;
  large_ = nullptr;
  window_bytes_ = kInboxBytes;
  paused_ = false;
  if (inbox_ == nullptr) {
    void* map =
        mmap(nullptr, kInboxBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
      Close(Status::FromErrno(errno, "no memory for a connection"));
      return;
    }
    inbox_ = static_cast<std::byte*>(map);
  }
  Receive();
}

void Connection::Receive() {
  if (receive_.in_flight || paused_ || state_ != State::kOpen) return;
  int count = 0;
  if (large_ != nullptr) {
    receive_.vectors[count++] = {large_ + large_done_bytes_,
                                 large_header_.length_bytes - large_done_bytes_};
    CHECK(inbox_end_ + kLargeWindowBytes <= kInboxBytes);
    receive_.vectors[count++] = {inbox_ + inbox_end_, kLargeWindowBytes};
  } else {
    receive_.vectors[count++] = {inbox_ + inbox_end_,
                                 std::min(window_bytes_, kInboxBytes - inbox_end_)};
  }
  receive_.vectors_count = count;
  reactor_.Receive(&receive_);
}

void Connection::KeepDescriptor(int descriptor) {
  // Nobody asked for two: the older one goes.
  if (descriptor_ >= 0) close(descriptor_);
  descriptor_ = descriptor;
}

void Connection::OnReceived() {
  if (receive_.descriptor >= 0) KeepDescriptor(std::exchange(receive_.descriptor, -1));
  if (state_ != State::kOpen) return;
  if (receive_.result <= 0) {
    Close(LostStatus(receive_.result));
    return;
  }
  auto bytes = static_cast<size_t>(receive_.result);
  if (large_ != nullptr) {
    const size_t part = std::min<size_t>(bytes, large_header_.length_bytes - large_done_bytes_);
    large_done_bytes_ += static_cast<uint32_t>(part);
    bytes -= part;
  }
  inbox_end_ += bytes;
  Parse();
}

void Connection::Parse() {
  if (parsing_) return;  // Resume from within OnFrame
  parsing_ = true;
  while (state_ == State::kOpen && !paused_ && ParseOne()) {
  }
  parsing_ = false;
  if (state_ != State::kOpen || paused_) return;
  // What is left is the start of a frame. Bring it to the front, so that the rest fits behind it.
  if (inbox_begin_ > 0) {
    std::memmove(inbox_, inbox_ + inbox_begin_, inbox_end_ - inbox_begin_);
    inbox_end_ -= inbox_begin_;
    inbox_begin_ = 0;
  }
  Receive();
}

// True when there may be another whole frame.
bool Connection::ParseOne() {
  if (large_ != nullptr) {
    if (large_done_bytes_ < large_header_.length_bytes) return false;
    const std::byte* table = inbox_ + inbox_begin_ + kHeaderBytes;
    if (!handler_.OnFrame(large_header_, table, large_)) {
      paused_ = true;
      return false;
    }
    inbox_begin_ += kHeaderBytes + large_header_.table_bytes();
    large_ = nullptr;
    window_bytes_ = kLargeWindowBytes;
    return true;
  }
  const size_t unread = inbox_end_ - inbox_begin_;
  if (unread < kHeaderBytes) return false;
  const std::byte* start = inbox_ + inbox_begin_;
  Result<Header> decoded =
      DecodeHeader(std::span<const std::byte, kHeaderBytes>(start, kHeaderBytes));
  if (!decoded.ok()) {
    Close(decoded.status());
    return false;
  }
  const Header& header = decoded.value();
  const bool large = header.carries_data() && header.length_bytes > kInPlaceBytesMax;
  const uint32_t first_bytes = large ? header.table_bytes() : header.payload_bytes;
  if (unread < kHeaderBytes + first_bytes) {
    if (!large) window_bytes_ = kInboxBytes;
    return false;
  }
  std::byte* payload = inbox_ + inbox_begin_ + kHeaderBytes;
  if (!PayloadMatches(header, payload)) {
    Close({ErrorCode::kProtocolError,
           std::string("the payload of ") + OpcodeName(header.opcode) + " has a wrong checksum"});
    return false;
  }
  if (!large) {
    if (!handler_.OnFrame(header, payload, payload + header.table_bytes())) {
      paused_ = true;
      return false;
    }
    inbox_begin_ += kHeaderBytes + header.payload_bytes;
    window_bytes_ = kInboxBytes;
    return true;
  }
  std::byte* data = handler_.LargeData(header);
  if (data == nullptr) {
    paused_ = state_ == State::kOpen;
    return false;
  }
  // The data that has come already is copied; header and table stay, and what came behind the data
  // moves up to them.
  const size_t head_end = inbox_begin_ + kHeaderBytes + first_bytes;
  const size_t part = std::min<size_t>(inbox_end_ - head_end, header.length_bytes);
  std::memcpy(data, inbox_ + head_end, part);
  std::memmove(inbox_ + head_end, inbox_ + head_end + part, inbox_end_ - head_end - part);
  inbox_end_ -= part;
  large_ = data;
  large_done_bytes_ = static_cast<uint32_t>(part);
  large_header_ = header;
  return part == header.length_bytes;
}

void Connection::Resume() {
  if (!paused_ || state_ != State::kOpen) return;
  paused_ = false;
  Parse();
}

void Connection::Push(OutgoingFrame* frame) {
  CHECK(state_ == State::kOpen);
  outgoing_.PushBack(frame);
  if (sending_frames_ == 0) reactor_.Defer(&flush_);
}

void Connection::Flush() {
  if (socket_closed_) {
    OnSocketClosed();
    return;
  }
  if (state_ != State::kOpen || sending_frames_ > 0 || outgoing_.empty()) return;
  size_t count = 0;
  send_.descriptor = outgoing_.front()->descriptor;
  for (OutgoingFrame* frame = outgoing_.front(); frame != nullptr && count + 3 <= vectors_.size();
       frame = outgoing_.Next(frame)) {
    vectors_[count++] = {frame->header, kHeaderBytes};
    if (frame->table_bytes > 0) {
      vectors_[count++] = {const_cast<std::byte*>(frame->table), frame->table_bytes};
    }
    if (frame->data_bytes > 0) {
      vectors_[count++] = {const_cast<std::byte*>(frame->data), frame->data_bytes};
    }
    ++sending_frames_;
    // One with a descriptor leaves alone.
    const OutgoingFrame* next = outgoing_.Next(frame);
    if (send_.descriptor >= 0 || (next != nullptr && next->descriptor >= 0)) break;
  }
  send_.vectors = vectors_.data();
  send_.vectors_count = static_cast<int>(count);
  reactor_.Send(&send_);
}

void Connection::OnSent() {
  if (state_ != State::kOpen) return;
  if (send_.result < 0) {
    Close(LostStatus(send_.result));
    return;
  }
  for (size_t frames = sending_frames_; frames > 0; --frames) {
    OutgoingFrame* frame = outgoing_.PopFront();
    --sending_frames_;
    if (frame->sent != nullptr) frame->sent(frame);
  }
  if (state_ == State::kOpen && !outgoing_.empty()) reactor_.Defer(&flush_);
}

void Connection::Close(Status why) {
  if (state_ != State::kOpen) return;
  CHECK(!why.ok());
  state_ = State::kClosing;
  why_ = std::move(why);
  reactor_.Close(&close_);
}

void Connection::OnSocketClosed() {
  // A task cannot be taken back, and OnClosed may destroy this.
  socket_closed_ = flush_.scheduled;
  if (socket_closed_) return;
  while (outgoing_.PopFront() != nullptr) {
  }
  sending_frames_ = 0;
  KeepDescriptor(-1);
  receive_.accept_descriptor = false;
  state_ = State::kIdle;
  handler_.OnClosed(why_);
}

void Connection::Trim() {
  if (inbox_ != nullptr && inbox_begin_ == inbox_end_) {
    madvise(inbox_, kInboxBytes, MADV_DONTNEED);
  }
}

}  // namespace ankole::wire
