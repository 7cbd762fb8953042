#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "base/intrusive_list.h"
#include "base/result.h"
#include "io/reactor.h"
#include "wire/frame.h"

namespace ankole::wire {

// A frame on its way out: its header, then the table, then the data, all from the owner's memory.
// Owned by who pushed it, and not to be touched until `sent` ran or the connection closed.
struct OutgoingFrame {
  EncodedHeader header;
  const std::byte* table = nullptr;  // or the payload of a control frame
  uint32_t table_bytes = 0;
  const std::byte* data = nullptr;
  uint32_t data_bytes = 0;
  void (*sent)(OutgoingFrame*) = nullptr;  // the kernel has all of it. Not called after a failure
  void* owner = nullptr;
  int descriptor = -1;  // goes along if >= 0 (Unix sockets); stays the owner's
  ListNode node;
  // Invariant: pending() from Push until `sent` or OnClosed.
  bool pending() const { return node.linked(); }
};

// Frames over a stream, both ways, many in one system call. Knows no opcode's meaning.
//
// Memory: one inbox of kInboxBytes, mapped when it is first used and given back by Trim. A frame
// that fits in it is handed over in place; larger data goes to where the handler says.
class Connection {
 public:
  static constexpr size_t kInboxBytes = 128 * kKiB;
  // Data of more than this is received straight into the handler's memory.
  static constexpr size_t kInPlaceBytesMax = 32 * kKiB;

  class Handler {
   public:
    // A frame whose header, payload checksum (or table) were checked, but not the data against the
    // table. `payload` is a control frame's payload or the table; `data` the data, in the inbox
    // (gone on return) or where LargeData said. False: cannot be taken now; it is offered again
    // after Resume.
    virtual bool OnFrame(const Header& header, const std::byte* payload, std::byte* data) = 0;
    // Where the data of a large frame goes; null: no room now, asked again after Resume.
    virtual std::byte* LargeData(const Header& header) = 0;
    // Once, when nothing of this connection is in flight any more. May destroy it.
    virtual void OnClosed(const Status& why) = 0;

   protected:
    ~Handler() = default;
  };

  Connection(io::Reactor& reactor, Handler& handler);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Takes over a connected socket.
  void Start(io::Socket socket);
  void Push(OutgoingFrame* frame);
  void Resume();
  // OnClosed follows, later. `why` is what it gets; the first reason stands.
  void Close(Status why);
  bool open() const { return state_ == State::kOpen; }
  // Whether descriptors that come along are taken (else the kernel drops them). From the next
  // receive on.
  void AcceptDescriptors(bool accept) { receive_.accept_descriptor = accept; }
  // The last one that came, now the caller's; -1: none.
  int TakeDescriptor() { return std::exchange(descriptor_, -1); }
  // Gives the inbox's pages back when it is empty.
  void Trim();

 private:
  enum class State { kIdle, kOpen, kClosing };

  void Receive();
  void OnReceived();
  // Hands over all whole frames. False when the handler closed or paused.
  void Parse();
  bool ParseOne();
  void Flush();
  void OnSent();
  void OnSocketClosed();
  void KeepDescriptor(int descriptor);

  io::Reactor& reactor_;
  Handler& handler_;
  State state_ = State::kIdle;
  io::Socket socket_;
  Status why_;

  std::byte* inbox_ = nullptr;
  size_t inbox_begin_ = 0;  // Invariant: begin <= end <= kInboxBytes; unread bytes lie between
  size_t inbox_end_ = 0;
  // How much is received at once: a lot while frames are small, and after a large one no more than
  // the next header and table, so that its data goes straight to its place.
  size_t window_bytes_ = kInboxBytes;
  bool paused_ = false;
  bool parsing_ = false;
  bool socket_closed_ = false;  // OnClosed waits for flush_ only

  // A large frame that is being received. Its header and table lie at inbox_begin_ until it is
  // whole.
  std::byte* large_ = nullptr;
  uint32_t large_done_bytes_ = 0;
  Header large_header_;

  io::ReceiveOperation receive_;
  io::SendOperation send_;
  io::CloseOperation close_;
  io::Task flush_;
  IntrusiveList<OutgoingFrame, &OutgoingFrame::node> outgoing_;
  int descriptor_ = -1;
  size_t sending_frames_ = 0;  // the first so many of outgoing_ are in send_
  std::array<iovec, io::SendOperation::kVectorsMax> vectors_;
};

}  // namespace ankole::wire
