#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/buffer_pool.h"
#include "base/intrusive_list.h"
#include "base/log.h"
#include "base/result.h"
#include "io/reactor.h"
#include "replica/session_mode.h"
#include "replica/session_operations.h"
#include "replica/shared_end.h"
#include "wire/connection.h"
#include "wire/hello.h"
#include "wire/regions.h"

namespace ankole::replica {

class ServedReplica;
class Session;

// What a session needs of the disk host.
class SessionHost {
 public:
  // The replica that HELLO wants, with its identity, or why it cannot be had.
  virtual Result<ServedReplica*> FindReplica(const std::string& volume, wire::ReplicaId id) = 0;
  // The connection is closed and nothing is in flight: the session is to be destroyed.
  virtual void OnSessionGone(Session* session) = 0;
  // An engine that did not authenticate by then is closed.
  virtual uint64_t handshake_timeout_ns() const = 0;
  virtual LogSink& log() = 0;

 protected:
  ~SessionHost() = default;
};

// One connection of an engine to one replica. docs/internals/wire-protocol.md is the text.
//
// Memory: an inbox (wire::Connection), and once welcomed kSessionOperationsMax operations and a
// pool of buffers, both faulted in by use and given back when the session was idle a while. A READ
// waits for a buffer within its operation, so that what follows it is still read; a WRITE that
// finds none stops the reading of this connection alone.
class Session final : public wire::Connection::Handler {
 public:
  // The buffers of one session, 40 MiB in all: that is what a stuck engine can hold. READs take at
  // most kReadBytesMax of them, so that WRITEs always find some.
  static constexpr size_t kSmallBuffers = 128;
  static constexpr size_t kMediumBuffers = 32;
  static constexpr size_t kLargeBuffers = 24;
  static constexpr size_t kReadBytesMax = 16 * kMiB;
  // Memory is given back when the session did nothing for as long.
  static constexpr uint64_t kIdleNs = 5 * kNsPerSecond;

  Session(io::Reactor& reactor, SessionHost& host, std::string peer);
  ~Session();

  void Start(io::Socket socket);
  // Ends the connection; what it has begun at the storage goes on, what it has not is dropped.
  void Close(const Status& why);
  // Takes nothing any more, answers what was begun, then closes.
  void Drain();

  SessionMode mode() const { return mode_; }
  const wire::Epoch& epoch() const { return hello_.epoch; }
  const std::string& peer() const { return peer_; }

  // --- answers of the replica
  // ------------------------------------------------------------------------
  void OnInquired(const Status& status, const wire::ReplicaState& state);
  void OnWelcomed(const Status& status, const wire::ReplicaState& state);
  void OnLeft(const Status& status);

  ListNode host_node;
  ListNode replica_node;

 private:
  static constexpr size_t kControlBytesMax = 512;
  static_assert(kControlBytesMax >= wire::kReplicaStateBytes);

  bool OnFrame(const wire::Header& header, const std::byte* payload, std::byte* data) override;
  std::byte* LargeData(const wire::Header& header) override;
  void OnClosed(const Status& why) override;

  // Moves the state machine, or ends the connection for a frame that has no place in the mode.
  bool Enter(SessionEvent event, const char* what);
  // A breach of the protocol: logged, and the end of this connection.
  void Breach(const std::string& cause);

  // Handshake and the other frames of which one at a time is served.
  void OnControl(const wire::Header& header, std::span<const std::byte> payload);
  void OnHello(std::span<const std::byte> payload);
  void OnAuth(std::span<const std::byte> payload);
  void AnswerControl(const Status& status, std::span<const std::byte> payload);

  // Frames through shared memory: shared_frames.cc.
  void OnShare(std::span<const std::byte> payload);
  void OnDoorbell();
  void ConsumeShared();
  bool OnShared(const wire::Header& header);
  void AnswerShared(SessionOperation* operation, ErrorCode status);
  void CloseDoorbell();

  // Frames about regions: region_frames.cc.
  void StartRegions(SessionOperation* operation);
  void AnswerRegions(SessionOperation* operation);
  void AnswerMap(SessionOperation* operation, const wire::MapRequest& request);

  // Frames about layers: layer_frames.cc.
  void StartLayers(SessionOperation* operation);
  void AnswerLayers(SessionOperation* operation);
  void CloseViews();

  // The rest.
  bool OnPing(const wire::Header& header);
  bool OnData(const wire::Header& header, const std::byte* payload, std::byte* data);
  void Begin(SessionOperation* operation, const wire::Header& header);
  bool OutOfRange(const wire::Header& header) const;
  void StartWrite(SessionOperation* operation, const std::byte* table, const std::byte* data);
  void StartRecord(SessionOperation* operation, const std::byte* payload);
  void StartExpand(SessionOperation* operation, std::span<const std::byte> payload);
  bool AcquireForRead(SessionOperation* operation);
  void KeepTable(SessionOperation* operation, const std::byte* table);
  void StartWaiting();
  void Submit(SessionOperation* operation, OperationKind kind);
  static void OnStorageDone(ReplicaOperation* storage);
  void OnDone(SessionOperation* operation);
  void Answer(SessionOperation* operation, ErrorCode status);
  void Send(SessionOperation* operation, ErrorCode status, const std::byte* table,
            uint32_t table_bytes, const std::byte* data, uint32_t data_bytes);
  void ReleaseChunk(SessionOperation* operation);
  void Release(SessionOperation* operation);
  void AfterRelease();

  void NoteActivity();
  void OnTimer();
  // Ends a draining session that has answered all. Does not destroy this.
  void FinishDraining();
  // Destroys this when nothing is left of it. True when it did.
  bool GoneIfDone();
  std::string Who() const;

  io::Reactor& reactor_;
  SessionHost& host_;
  const std::string peer_;
  SessionMode mode_ = SessionMode::kNew;
  wire::Connection connection_;
  bool closed_ = false;  // the connection has nothing in flight any more

  wire::Hello hello_;
  wire::HelloBytes hello_bytes_ = {};
  wire::ChallengeBytes challenge_bytes_ = {};
  ServedReplica* replica_ = nullptr;  // from HELLO on

  // The one control frame that is being served.
  bool control_busy_ = false;
  bool control_last_ = false;  // the connection ends when its answer has left
  wire::Header control_header_;
  wire::OutgoingFrame control_reply_;
  std::array<std::byte, kControlBytesMax> control_payload_;

  SessionOperations operations_;
  std::unique_ptr<BufferPool> buffers_;
  // READ, STATUS and what else is answered with more than a status.
  IntrusiveList<SessionOperation, &SessionOperation::waiting_node> waiting_;
  SessionOperation* large_ = nullptr;  // the WRITE whose data is coming in
  size_t read_bytes_ = 0;              // capacity of the chunks that these hold
  size_t in_flight_ = 0;               // operations at the storage

  // What the engine shares, if it does. Its memory stays as long as the storage may use it.
  std::unique_ptr<SharedEnd> shared_;
  bool consuming_ = false;
  bool doorbell_open_ = false;
  io::AwaitOperation await_;
  io::CloseOperation doorbell_close_;
  io::Task shared_flush_;

  // Until authenticated the limit of the handshake, then the watch for idleness. Armed only while
  // there is something to wait for.
  io::Timer timer_;
  bool active_ = false;  // since the timer was armed
};

}  // namespace ankole::replica
