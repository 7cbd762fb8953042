#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/block_device.h"
#include "base/intrusive_list.h"
#include "base/log.h"
#include "io/reactor.h"
#include "nbd/handshake.h"
#include "nbd/protocol.h"

// One NBD client: its bytes in, its requests to the device, its replies out.
//
// Memory. A connection owns kConnectionOperationsMax operations and may hold chunks of the device's
// BufferPool up to kConnectionBufferBytesMax. Everything that a request needs comes from these two.
// When one is used up the connection stops receiving until its own requests end; nothing is dropped
// and nobody else notices. So a client that stops reading, or sends half a request and waits, pins
// at most its own quota, for as long as it stays connected; all clients together kConnectionsMax
// times that.
//
// Copies. What arrives is received into a shared chunk (the window) and parsed there; the data of a
// small write stays where it was received, its operation holding a reference. Data of a large write
// is received into a chunk of its own. Replies to reads leave from the buffer that the device
// filled. What is copied: the part of a request that straddles the window's end, and the beginning
// of a large write that came along with its header.
namespace ankole::nbd {

class Connection;

// A life in one direction. Next() is the only way from one to another.
enum class Mode : uint8_t {
  kClientFlags,   // greeted; the client's flags are awaited
  kOptions,       // option haggling
  kTransmission,  // requests
  kDraining,      // takes no more requests; closes when all that were taken are answered
  kClosing,       // the socket is being closed
  kClosed,        // no socket; goes when the device has given back all requests
};
enum class Event : uint8_t {
  kFlagsTaken,
  kExportTaken,
  kLastRequest,  // DISC, ABORT, the end of the stream, or the server shuts down
  kBroken,       // the socket failed, the client broke the protocol, time is up, or a hard shutdown
  kDrained,
  kSocketClosed,
};
inline constexpr int kModes = 6;
inline constexpr int kEvents = 6;
// An event that means nothing in a mode leaves it.
Mode Next(Mode mode, Event event);

// One request of the client, or a piece of one that is longer than kDataBytesMax. A cut request has
// a head (which the device never sees) and pieces, each an operation from the same pool.
struct Operation : BlockRequest {
  Connection* connection = nullptr;
  ListNode node;
  BufferPool::Chunk* chunk = nullptr;  // a reference, or null
  Request request;                     // not of pieces
  Error error = Error::kNone;
  uint32_t reply_data_bytes = 0;  // at `data`, sent after the reply's header
  Operation* head = nullptr;      // of pieces: the request they belong to
  Operation* next_piece = nullptr;
  bool finished = false;    // of pieces: the device is done
  bool last_chunk = false;  // of pieces: its chunk ends a structured reply
  // Of heads:
  Operation* first_piece = nullptr;  // simple read replies: pieces in order, until they are sent
  Operation* last_piece = nullptr;
  uint32_t begun_bytes = 0;  // covered by pieces so far
  uint32_t pieces_unfinished = 0;
  bool streaming = false;  // simple read replies: sent before all pieces are there
};

struct Window {
  BufferPool::Chunk* chunk = nullptr;
  // Received and not yet consumed: [begin, end) of chunk.
  uint32_t begin = 0;
  uint32_t end = 0;
  uint32_t bytes() const { return end - begin; }
  std::byte* data() const { return chunk->data + begin; }
};

// The request whose parse takes more than one step.
struct Incoming {
  enum class Kind : uint8_t {
    kNone,
    kCutRead,  // pieces of `head` are still to be submitted
    kPayload,  // data of a large write is arriving in `piece`
    kSkip,     // data of a refused write is thrown away
  };
  Kind kind = Kind::kNone;
  Operation* head = nullptr;
  // kPayload: whose buffer is being filled. `head` itself if the write is not cut; null: the next
  // piece has no buffer yet.
  Operation* piece = nullptr;
  uint32_t received_bytes = 0;  // kPayload: of the piece; kSkip: of the request
};

// All that a connection knows about its client, apart from what is in flight: what another process
// needs to go on with it once it is quiet.
struct ConnectionState {
  Mode mode = Mode::kClientFlags;
  Negotiated negotiated;
  Window window;
  Incoming incoming;
  // Requests for which only a small window is kept behind the data of a large write.
  uint8_t small_window_requests = 0;
};

class ConnectionOwner {
 public:
  // The connection may be deleted.
  virtual void OnClosed(Connection* connection) = 0;
  // The pool had nothing (its own quota is not used up): call Wake soon.
  virtual void OnStarved(Connection* connection) = 0;
  // Was paused and is now quiet.
  virtual void OnQuiet(Connection* connection) = 0;

 protected:
  ~ConnectionOwner() = default;
};

class Connection {
 public:
  // `device` is the default export; `others` (or null) has those that are asked for by name.
  Connection(io::Reactor& reactor, BlockDevice& device, BlockDevices* others, LogSink& log,
             ConnectionOwner& owner, io::Socket socket, std::string peer);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Greets the client.
  void Start();
  // Takes no further request, answers what it has, closes.
  void Drain();
  // Closes at once. Requests at the device are waited for, as it writes to their buffers.
  void Abort();
  // Stops taking requests; OnQuiet when all that were taken are answered. Bytes that arrive
  // meanwhile wait in the window.
  void Pause();
  void Resume();
  // Tries again what had to wait for memory.
  void Wake();

  const std::string& peer() const { return peer_; }
  size_t held_bytes() const { return held_bytes_; }
  Mode mode() const { return state_.mode; }
  // Nothing is in flight: neither at the device nor on its way to the client.
  bool quiet() const;

  // For the owner's fixed array: where the connection is kept, and whether OnStarved was called.
  size_t index = 0;
  bool starved = false;

 private:
  enum class Progress : uint8_t {
    kMade,
    kNeedsBytes,  // of the client; needed_bytes_ of them from the window's begin
    kBlocked,     // until an operation, memory or the socket's send side is free
  };

  // connection.cc: life, receiving, memory
  void To(Event event);
  void Fail(const std::string& cause);
  void Lose(int64_t result);
  void FinishIfGone();
  void FinishIfDrained();
  void Turn();
  void Advance();
  bool reading() const;
  Progress ParseSome();
  Progress ParseClientFlags();
  Progress ParseOption();
  void Receive();
  void OnReceived(int64_t result);
  bool PrepareWindow();
  void Consume(uint32_t bytes) { state_.window.begin += bytes; }
  BufferPool::Chunk* Acquire(uint32_t bytes);
  void Release(BufferPool::Chunk* chunk);
  bool TakeBuffer(Operation* operation, uint32_t bytes);
  Operation* NewOperation();
  void Free(Operation* operation);

  // requests.cc: from bytes to the device
  Progress ParseRequest();
  Progress ParseWrite(const Request& request, Error error);
  Progress TakeRead(const Request& request);
  Progress SubmitReadPiece();
  Progress TakePayload();
  Progress SkipPayload();
  void Submit(Operation* operation, BlockOperation kind, const Request& request,
              uint64_t offset_bytes, uint64_t length_bytes);

  // replies.cc: from the device to bytes
  static void OnDeviceDone(BlockRequest* request);
  void FinishPiece(Operation* piece);
  void FinishBlockStatus(Operation* operation);
  void Queue(Operation* operation);
  void BuildSend();
  bool RoomToSend() const;
  bool StartStream();
  void SendStream();
  void EmitReply(Operation* operation);
  void EmitHeader(uint32_t bytes);
  void EmitData(Operation* operation);
  void OnSent(int64_t result);

  using OperationList = IntrusiveList<Operation, &Operation::node>;
  // Headers of the replies of one Send. Invariant: room for those of all operations.
  static constexpr uint32_t kReplyBytes = kConnectionOperationsMax * kReplyHeaderBytesMax;
  static constexpr uint32_t kHandshakeBytes = 2 * kOptionRepliesBytesMax;

  io::Reactor& reactor_;
  BlockDevice* device_;  // the client's export, once it has one
  BlockDevices* const others_;
  bool has_export_ = false;
  LogSink& log_;
  ConnectionOwner& owner_;
  const io::Socket socket_;
  const std::string peer_;

  ConnectionState state_;
  bool paused_ = false;
  bool quiet_reported_ = false;  // since Pause
  uint32_t needed_bytes_ = 0;    // what the parser waits for, see Progress

  std::array<Operation, kConnectionOperationsMax> operations_;
  OperationList free_;
  OperationList ready_;          // finished, the reply is to be sent
  OperationList sending_;        // their data is in the Send in flight
  OperationList streams_;        // heads of cut reads with simple replies, in order of arrival
  Operation* stream_ = nullptr;  // whose data is being sent: nothing else may be until its end
  uint32_t at_device_ = 0;

  size_t held_bytes_ = 0;
  BufferPool::Chunk* shared_ =
      nullptr;  // small reads take their buffers from it, one after the other
  uint32_t shared_used_bytes_ = 0;

  io::ReceiveOperation receive_;
  io::SendOperation send_;
  io::CloseOperation close_;
  io::Timer handshake_timer_;
  io::Task task_;
  bool receiving_ = false;
  bool sending_now_ = false;
  uint32_t payload_vector_bytes_ = 0;  // how much of the Receive in flight belongs to the payload
  uint32_t handshake_bytes_ = 0;       // replies to options, not yet sent
  uint32_t reply_bytes_ = 0;
  std::array<std::byte, kHandshakeBytes> handshake_;
  std::array<std::byte, kReplyBytes> reply_;
  std::array<iovec, io::SendOperation::kVectorsMax> vectors_;
};

}  // namespace ankole::nbd
