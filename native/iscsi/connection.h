#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/block_device.h"
#include "base/intrusive_list.h"
#include "base/log.h"
#include "io/reactor.h"
#include "iscsi/limits.h"
#include "iscsi/login.h"
#include "iscsi/pdu.h"
#include "iscsi/request.h"
#include "iscsi/text_exchange.h"
#include "scsi/logical_unit.h"

// One initiator's connection, and its session, as a session has one connection here (RFC 7143,
// error recovery level 0).
//
// Memory. A connection owns a fixed pool of requests, one for each command of the CmdSN window. Of
// the device's BufferPool it may hold kConnectionBufferBytesMax for what commands need, and beside
// them a reserve: one first burst for each command of the window. So data that comes unasked always
// has a place, receiving never waits for a command that itself waits for data, and commands that
// find no memory wait in line without an R2T. A client that stops reading or sends half a PDU and
// waits holds its own quota, until the ping or kStuckNs ends it.
//
// Copies. What arrives is received into a shared chunk (the window) and parsed there; immediate
// data of a small write stays where it was received, its request holding a reference. Larger data
// is received into the command's own memory, and Data-In leaves from the buffer that the device
// filled. What is copied: a PDU that straddles the window's end, the beginning of large data that
// came along with its header, and a first burst whose command had to wait for memory.
namespace ankole::iscsi {

class Connection;

// A life in one direction. Next() is the only way from one to another.
enum class Mode : uint8_t {
  kLogin,
  kFullFeature,
  kDraining,  // takes no more requests; closes when all that were taken are answered
  kClosing,   // the socket is being closed
  kClosed,    // no socket; goes when the logical unit has given back all commands
};
enum class Event : uint8_t {
  kLoggedIn,
  kLastRequest,  // logout, a refused login, the end of the stream, or the server shuts down
  kBroken,       // the socket failed, the client broke the protocol, time is up, or a hard shutdown
  kDrained,
  kSocketClosed,
};
inline constexpr int kModes = 5;
inline constexpr int kEvents = 5;
// An event that means nothing in a mode leaves it.
Mode Next(Mode mode, Event event);

struct Window {
  BufferPool::Chunk* chunk = nullptr;
  // Received and not yet consumed: [begin, end) of chunk.
  uint32_t begin = 0;
  uint32_t end = 0;
  uint32_t bytes() const { return end - begin; }
  std::byte* data() const { return chunk->data + begin; }
};

// A PDU whose data is received in more than one step.
struct Incoming {
  bool active = false;
  Request* request = nullptr;  // null: the data is thrown away
  Frame frame;
  uint32_t offset_bytes = 0;  // where the rest belongs within the command's data
  uint32_t left_bytes = 0;
  uint32_t checksum = 0;  // of what has come
};

class ConnectionOwner {
 public:
  // The connection may be deleted.
  virtual void OnClosed(Connection* connection) = 0;
  // The pool had nothing (its own quota is not used up): call Wake soon.
  virtual void OnStarved(Connection* connection) = 0;
  // A login is complete but for its last answer. Ends the session that it reinstates; as long as
  // that one has commands at the logical unit the outcome is nothing, and Wake follows when it is
  // gone. Else the new session's TSIH; 0: there are too many.
  virtual std::optional<uint16_t> OnLogin(Connection* connection) = 0;
  // The commands of all sessions are to be forgotten; with `cold` all connections end, too.
  virtual void OnReset(bool cold) = 0;
  // A login was refused; whether a line may be logged about it.
  virtual bool OnRefused() = 0;
  virtual const LoginPolicy& login_policy() const = 0;
  virtual const TargetList& targets() const = 0;

 protected:
  ~ConnectionOwner() = default;
};

class Connection {
 public:
  Connection(io::Reactor& reactor, BlockDevice& device, scsi::LogicalUnit& unit, LogSink& log,
             ConnectionOwner& owner, io::Socket socket, std::string peer);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void Start();
  // Takes no further request, answers what it has, tells the initiator, closes.
  void Drain();
  // Closes at once. Commands at the logical unit are aborted and waited for, as it writes to their
  // buffers.
  void Abort();
  // A reset by this or another session: forgets all commands, without an answer. The logical unit
  // aborts those that it has.
  void ForgetTasks();
  // Tries again what had to wait for memory.
  void Wake();

  const std::string& peer() const { return peer_; }
  size_t held_bytes() const { return reserve_bytes_ + general_bytes_; }
  Mode mode() const { return mode_; }
  // A session of SCSI commands; not a login, not a discovery.
  bool in_session() const { return nexus_ != nullptr; }
  uint16_t tsih() const { return tsih_; }
  const Isid& isid() const { return isid_; }
  const std::string& initiator() const { return initiator_; }

  // For the owner's fixed array: where the connection is kept, and whether OnStarved was called.
  size_t index = 0;
  bool starved = false;
  // OnLogin had to wait.
  bool reinstating = false;

 private:
  enum class Progress : uint8_t {
    kMade,
    kNeedsBytes,  // of the client; needed_bytes_ of them from the window's begin
    kBlocked,     // until a request, memory or the socket's send side is free
  };
  enum class Quota : uint8_t { kReserve, kGeneral };
  enum class Order : uint8_t { kNow, kEarly, kIgnored };
  using RequestList = IntrusiveList<Request, &Request::link>;
  using R2tList = IntrusiveList<Request, &Request::r2t_link>;

  // connection.cc: life, receiving, time
  void DropGathering();
  void To(Event event);
  void Fail(const std::string& cause);
  void Lose(int64_t result);
  void FinishIfGone();
  bool quiet() const;
  void FinishIfDrained();
  void Turn();
  void Advance();
  Progress ParseSome();
  void Receive();
  void OnReceived(int64_t result);
  bool PrepareWindow();
  void Consume(uint32_t bytes) { window_.begin += bytes; }
  void OnTick();

  // memory.cc
  BufferPool::Chunk* Acquire(uint32_t bytes, Quota quota);
  void Release(BufferPool::Chunk* chunk, Quota quota);
  bool TakeMemory(Request* request);
  bool TakeSegments(Request* request, uint32_t bytes, scsi::Segments* segments);
  bool TakeSmall(Request* request, uint32_t bytes, scsi::Segments* segments);
  void GiveBackMemory(Request* request);
  void ServeWaiting();
  std::byte* Destination(Request* request, uint32_t offset_bytes, uint32_t* contiguous_bytes);

  // requests.cc: from bytes to requests
  Progress ParseLogin();
  Progress FinishLogin();
  Progress ParsePdu();
  Progress TakePayload();
  void StartPayload(const Frame& frame, Request* request, uint32_t offset_bytes);
  bool DataDigestMatches(const Frame& frame, const std::byte* data) const;
  Progress TakeOther(const Frame& frame, const std::byte* data);
  Order Admit(const Frame& frame, uint32_t command_number) const;
  void AdvanceCommand();
  Request* NewRequest(const Frame& frame, uint32_t command_number);
  Request* FindRequest(uint32_t tag);
  void Free(Request* request);
  bool Reject(const Frame& frame, RejectReason reason);
  uint32_t max_command() const;

  // commands.cc: SCSI commands and their Data-Out
  Progress TakeCommand(const Frame& frame, const std::byte* data, AdditionalHeaders additional);
  Progress TakeDataOut(const Frame& frame, const std::byte* data);
  bool TakePlace(Request* request, const std::byte* data, uint32_t data_bytes);
  void Store(Request* request, uint32_t offset_bytes, const std::byte* data, uint32_t data_bytes);
  Request* FindForData(const DataOut& header);
  void CheckData(Request* request, const DataOut& header);
  void FinishData(Request* request, const Frame& frame);
  void Proceed(Request* request);
  static void OnUnitDone(scsi::Task* task);

  // management.cc: everything that is no SCSI command
  void Carry(Request* request);
  void CarryTaskManagement(Request* request);
  TaskFunctionResponse Manage(const TaskManagementRequest& header);
  TaskFunctionResponse AbortTask(uint32_t tag);
  void AbortOwnTasks();
  void CarryText(Request* request);
  void CarryLogout(Request* request);

  // replies.cc: from requests to bytes
  void Queue(Request* request);
  void BuildSend();
  bool RoomToSend() const;
  template <typename Header>
  void Number(Header* header, bool counts);
  template <typename Header>
  void EmitHeader(Header* header, uint32_t data_bytes);
  void EmitHere(const void* bytes, uint32_t count);
  void EmitData(const std::byte* data, uint32_t bytes, bool copy);
  void EmitR2ts();
  bool EmitReply(Request* request);
  bool EmitCommand(Request* request);
  bool EmitDataIn(Request* request, bool with_status);
  void EmitResponse(Request* request);
  void EmitOther(Request* request);
  void EmitRejects();
  void EmitPing();
  void EmitGoodbye();
  void Finish(Request* request);
  void OnSent(int64_t result);

  struct RejectEntry {
    BasicHeader header;
    RejectReason reason = RejectReason::kProtocolError;
  };
  static constexpr size_t kRejectsMax = 8;
  static constexpr size_t kRequestsMax = kCommandsMax + kImmediateMax;
  // Headers and sense data of one Send, and what one PDU may need of them.
  static constexpr uint32_t kReplyBytes = 16 * kKiB;
  static constexpr uint32_t kPduBytesMax = kHeaderBytes + 128 + 3 * kDigestBytes;
  // Chunks whose data is in the Send in flight.
  static constexpr size_t kSendingChunksMax = 512;

  io::Reactor& reactor_;
  BlockDevice& device_;
  scsi::LogicalUnit& unit_;
  LogSink& log_;
  ConnectionOwner& owner_;
  const io::Socket socket_;
  const std::string peer_;

  Mode mode_ = Mode::kLogin;
  std::unique_ptr<Login> login_;  // until it is complete
  // The answer to the last Login Request, until it is put together.
  std::optional<LoginStep> login_step_;
  LoginReply login_answer_;
  std::string login_reply_;  // the PDU to be sent
  std::string initiator_;
  Isid isid_ = {};
  uint16_t tsih_ = 0;
  uint16_t connection_id_ = 0;
  bool discovery_ = false;
  Negotiation negotiation_;
  Parameters parameters_;
  scsi::Nexus* nexus_ = nullptr;

  Window window_;
  Incoming incoming_;
  uint32_t needed_bytes_ = 0;  // what the parser waits for, see Progress
  // PDUs for which only a small window is kept behind large data.
  uint8_t small_window_pdus_ = 0;

  // ExpCmdSN and StatSN.
  uint32_t expected_command_ = 0;
  uint32_t status_number_ = 0;
  bool numbered_ = false;     // by the first Login Request
  uint32_t window_used_ = 0;  // requests that are not immediate
  uint32_t immediate_used_ = 0;
  uint32_t early_ = 0;  // requests whose turn has not come
  uint32_t at_unit_ = 0;

  std::array<Request, kRequestsMax> requests_;
  // Initiator Task Tags by index, apart, as every PDU looks through them; kNoTag: free.
  std::array<uint32_t, kRequestsMax> tags_;
  RequestList free_;
  RequestList waiting_;  // gathering, and without memory, in the order in which they get it
  RequestList ready_;
  R2tList r2t_;

  size_t reserve_bytes_ = 0;
  size_t general_bytes_ = 0;
  // Small reads take their buffers from it, one after the other.
  BufferPool::Chunk* shared_ = nullptr;
  uint32_t shared_used_bytes_ = 0;

  io::ReceiveOperation receive_;
  io::SendOperation send_;
  io::CloseOperation close_;
  io::Timer timer_;  // the login's end, then the ping
  io::Task task_;
  bool receiving_ = false;
  bool sending_now_ = false;
  bool aborting_ = false;              // within Abort
  uint32_t payload_vector_bytes_ = 0;  // how much of the Receive in flight belongs to the payload

  // Since the last tick.
  bool heard_ = false;
  bool pinged_ = false;
  bool ping_due_ = false;
  uint8_t pdu_ticks_ = 0;     // that a PDU has been incomplete
  uint8_t send_ticks_ = 0;    // that a Send has been in flight
  bool goodbye_due_ = false;  // an Async Message before closing
  uint32_t ping_tag_ = 0;

  // One text at a time (RFC 7143, 11.10.4): the one whose answer waits to be sent.
  TextExchange text_;
  TextReply text_reply_;
  bool text_busy_ = false;
  bool text_sending_ = false;

  std::array<RejectEntry, kRejectsMax> rejects_;
  size_t rejects_count_ = 0;
  uint32_t reply_bytes_ = 0;
  std::array<std::byte, kReplyBytes> reply_;
  std::array<iovec, io::SendOperation::kVectorsMax> vectors_;
  std::array<BufferPool::Chunk*, kSendingChunksMax> sending_;
  size_t sending_count_ = 0;
  // Answers that are sent from the reserve: ping data.
  std::array<BufferPool::Chunk*, kRequestsMax> sending_reserved_;
  size_t sending_reserved_count_ = 0;
};

}  // namespace ankole::iscsi
