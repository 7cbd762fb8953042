#include "replica/session.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/crc32c.h"
#include "base/mutant.h"
#include "replica/served_replica.h"

namespace ankole::replica {
namespace {

// Where a STATUS keeps its extents in its chunk, and where what is sent of them.
constexpr size_t kExtentsAt = 0;
constexpr size_t kEncodedAt = 32 * kKiB;
static_assert(wire::kStatusExtentsMax * sizeof(BlockExtent) <= kEncodedAt);
static_assert(kEncodedAt + wire::kStatusExtentsMax * wire::kEncodedExtentBytes <=
              BufferPool::kSmallBytes);

// Requests about layers: their payload is kept in a chunk, and what is answered is put there too.
bool IsAboutLayers(wire::Opcode opcode) {
  return opcode >= wire::Opcode::kLayers && opcode <= wire::Opcode::kChanged;
}
static_assert(wire::Opcode::kLayers == wire::Opcode{25} &&
              wire::Opcode::kChanged == wire::Opcode{32});

const char* ExplainLayers(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "nothing of that name was prepared, or it is not above the other one";
    case ErrorCode::kNotFound:
      return "there is no such layer or view";
    case ErrorCode::kAlreadyExists:
      return "there is a layer of that name";
    case ErrorCode::kBusy:
      return "a view of the layer is open, the layer under the head is not sealed, requests that "
             "change data are in flight, or the volume is becoming larger";
    default:
      return nullptr;
  }
}

// The text of a refused operation; constant, as nothing is allocated for an I/O.
const char* Explain(wire::Opcode opcode, ErrorCode code) {
  if (IsAboutLayers(opcode)) {
    const char* text = ExplainLayers(code);
    if (text != nullptr) return text;
  }
  if (opcode == wire::Opcode::kExpand && code == ErrorCode::kInvalidArgument) {
    return "a volume has 1 MiB to 64 TiB, a multiple of 512 bytes, with cache mode 'direct' of "
           "4096";
  }
  if (opcode == wire::Opcode::kExpand && code == ErrorCode::kBusy) {
    return "the volume ends within a block of 4 KiB, and a layer is not sealed or is being merged";
  }
  if (opcode == wire::Opcode::kExpand && code == ErrorCode::kUnsupported) {
    return "the file system has no files as large as that";
  }
  switch (code) {
    case ErrorCode::kOutOfRange:
      return "the range goes beyond the end of the volume";
    case ErrorCode::kFenced:
      return "the record is of another epoch, or older than the replica's";
    case ErrorCode::kInvalidArgument:
      return "the record is none, contradicts the replica's, or names a layer that was not "
             "prepared";
    case ErrorCode::kBusy:
      return "requests that change data are in flight";
    case ErrorCode::kNoSpace:
      return "the disk is full";
    case ErrorCode::kSuspect:
      return "an earlier flush failed";
    case ErrorCode::kIoError:
      return "the disk failed";
    case ErrorCode::kCorrupt:
      return "a block does not match its checksum at rest";
    default:
      return ErrorCodeName(code);
  }
}

// Requests whose payload is kept in a chunk, and for MAP what is answered too.
bool IsAboutRegions(wire::Opcode opcode) {
  return opcode == wire::Opcode::kMark || opcode == wire::Opcode::kClean ||
         opcode == wire::Opcode::kMissing || opcode == wire::Opcode::kMap;
}

}  // namespace

Session::Session(io::Reactor& reactor, SessionHost& host, std::string peer)
    : reactor_(reactor), host_(host), peer_(std::move(peer)), connection_(reactor, *this) {
  control_reply_.owner = this;
  control_reply_.sent = [](wire::OutgoingFrame* frame) {
    auto* self = static_cast<Session*>(frame->owner);
    self->control_busy_ = false;
    if (self->control_last_) {
      self->Close({ErrorCode::kAuthenticationFailed, "the engine's proof is wrong"});
    } else {
      self->AfterRelease();
    }
  };
  await_.owner = doorbell_close_.owner = shared_flush_.owner = this;
  await_.done = [](io::Operation* operation) {
    if (operation->result >= 0) static_cast<Session*>(operation->owner)->OnDoorbell();
  };
  doorbell_close_.done = [](io::Operation* operation) {
    auto* self = static_cast<Session*>(operation->owner);
    self->doorbell_open_ = false;
    self->GoneIfDone();
  };
  shared_flush_.done = [](io::Operation* operation) {
    auto* self = static_cast<Session*>(operation->owner);
    if (!self->GoneIfDone()) self->shared_->Flush();
  };
  timer_.owner = this;
  timer_.done = [](io::Operation* timer) { static_cast<Session*>(timer->owner)->OnTimer(); };
}

Session::~Session() {
  CHECK(in_flight_ == 0 && !connection_.open());
  reactor_.Cancel(&timer_);
}

void Session::Start(io::Socket socket) {
  reactor_.Arm(&timer_, reactor_.NowNs() + host_.handshake_timeout_ns());
  connection_.Start(socket);
}

std::string Session::Who() const {
  std::string who = "engine at " + peer_;
  if (!hello_.volume.empty()) {
    who += " for replica " + wire::ReplicaIdText(hello_.replica) + " of volume " + hello_.volume;
  }
  return who;
}

bool Session::Enter(SessionEvent event, const char* what) {
  const std::optional<SessionMode> next = Next(mode_, event);
  if (!next.has_value()) {
    Breach(std::string(what) + " in mode " + SessionModeName(mode_));
    return false;
  }
  mode_ = *next;
  return true;
}

void Session::Breach(const std::string& cause) { Close({ErrorCode::kProtocolError, cause}); }

void Session::Close(const Status& why) {
  if (mode_ == SessionMode::kEnded) return;
  mode_ = SessionMode::kEnded;
  if (replica_ != nullptr) replica_->Forget(this);
  CloseViews();
  connection_.Close(why);
}

void Session::OnClosed(const Status& why) {
  const bool was_welcomed = replica_ != nullptr && replica_->Serves(this);
  mode_ = SessionMode::kEnded;
  closed_ = true;
  if (replica_ != nullptr) replica_->Forget(this);
  CloseViews();
  switch (why.code()) {
    case ErrorCode::kConnectionLost:
      if (was_welcomed) {
        host_.log().Log(LogLevel::kWarn, Who() + ": " + why.message() + " without CLOSE");
      }
      break;
    case ErrorCode::kUnavailable:  // the disk host's own doing
      break;
    default:
      host_.log().Log(LogLevel::kWarn, Who() + ": connection closed: " + why.message());
  }
  // Answers that did not leave are dropped with what they hold.
  while (waiting_.PopFront() != nullptr) {
  }
  CloseDoorbell();
  GoneIfDone();
}

bool Session::GoneIfDone() {
  if (!closed_ || in_flight_ > 0 || doorbell_open_ || shared_flush_.scheduled) return false;
  if (ServedReplica* replica = std::exchange(replica_, nullptr)) replica->Detach(this);
  host_.OnSessionGone(this);
  return true;
}

void Session::Drain() {
  if (mode_ == SessionMode::kEnded || mode_ == SessionMode::kDraining) return;
  const bool answers = mode_ == SessionMode::kWelcomed || mode_ == SessionMode::kLeaving;
  const bool entered = Enter(SessionEvent::kStop, "stop");
  CHECK(entered);
  if (answers) {
    FinishDraining();
  } else {
    Close({ErrorCode::kUnavailable, "the disk host stops"});
  }
}

void Session::FinishDraining() {
  // A WRITE whose data is still coming was not begun.
  const size_t coming = large_ != nullptr ? 1 : 0;
  if (mode_ == SessionMode::kDraining && !control_busy_ && operations_.used() == coming) {
    Close({ErrorCode::kUnavailable, "the disk host stops"});
  }
}

// --- frames
// ----------------------------------------------------------------------------------------

bool Session::OnFrame(const wire::Header& header, const std::byte* payload, std::byte* data) {
  if (mode_ == SessionMode::kDraining) return false;
  if (header.reply) {
    Breach("an answer where a request belongs");
    return true;
  }
  switch (header.opcode) {
    case wire::Opcode::kHello:
    case wire::Opcode::kAuth:
    case wire::Opcode::kInquire:
    case wire::Opcode::kWelcome:
    case wire::Opcode::kClose:
    case wire::Opcode::kShare:
      if (control_busy_) return false;
      OnControl(header, {payload, header.payload_bytes});
      return true;
    case wire::Opcode::kPing:
      return OnPing(header);
    case wire::Opcode::kRecord:
    case wire::Opcode::kRead:
    case wire::Opcode::kWrite:
    case wire::Opcode::kZero:
    case wire::Opcode::kUnmap:
    case wire::Opcode::kFlush:
    case wire::Opcode::kBad:
    case wire::Opcode::kStatus:
    case wire::Opcode::kLoadState:
    case wire::Opcode::kStoreState:
    case wire::Opcode::kMark:
    case wire::Opcode::kClean:
    case wire::Opcode::kSum:
    case wire::Opcode::kMaps:
    case wire::Opcode::kMap:
    case wire::Opcode::kMissing:
    case wire::Opcode::kRecent:
    case wire::Opcode::kLayers:
    case wire::Opcode::kPrepare:
    case wire::Opcode::kSwitch:
    case wire::Opcode::kSeal:
    case wire::Opcode::kDelete:
    case wire::Opcode::kView:
    case wire::Opcode::kCloseView:
    case wire::Opcode::kChanged:
    case wire::Opcode::kExpand:
      return OnData(header, payload, data);
  }
  CHECK(false);  // the decoder knows no other
}

bool Session::OnPing(const wire::Header& header) {
  if (!Enter(SessionEvent::kPing, "PING")) return true;
  SessionOperation* operation = operations_.Acquire();
  if (operation == nullptr) return false;
  operation->session = this;
  operation->header = header;
  Send(operation, ErrorCode::kOk, nullptr, 0, nullptr, 0);
  return true;
}

// --- data
// ------------------------------------------------------------------------------------------

std::byte* Session::LargeData(const wire::Header& header) {
  if (mode_ == SessionMode::kDraining) return nullptr;
  if (header.reply) {
    Breach("an answer where a request belongs");
    return nullptr;
  }
  if (!Enter(SessionEvent::kData, wire::OpcodeName(header.opcode))) return nullptr;
  CHECK(large_ == nullptr);
  SessionOperation* operation = operations_.Acquire();
  if (operation == nullptr) return nullptr;
  operation->chunk = buffers_->Acquire(header.length_bytes);
  if (operation->chunk == nullptr) {
    operations_.Release(operation);
    return nullptr;
  }
  NoteActivity();
  large_ = operation;
  return operation->chunk->data;
}

bool Session::OutOfRange(const wire::Header& header) const {
  const uint64_t size_bytes = replica_->size_bytes();
  return header.offset_bytes > size_bytes || header.length_bytes > size_bytes - header.offset_bytes;
}

void Session::Begin(SessionOperation* operation, const wire::Header& header) {
  operation->session = this;
  operation->header = header;
  operation->shared = header.shared;
  operation->started_ns = reactor_.NowNs();
  ReplicaOperation& storage = operation->storage;
  storage.durable = (header.flags & wire::kFlagForceUnitAccess) != 0;
  storage.keep_allocated = (header.flags & wire::kFlagKeepAllocated) != 0;
  storage.anyway = (header.flags & wire::kFlagAnyway) != 0;
  storage.once = (header.flags & wire::kFlagDisablePageOut) != 0;
  storage.offset_bytes = header.offset_bytes;
  storage.length_bytes = header.length_bytes;
  storage.data = nullptr;
  storage.checksums = nullptr;
  storage.checksums_filled = false;
  storage.extents_count = 0;
  storage.resynced = storage.still_lost = false;
  storage.runs = {};
  storage.layer = storage.base = storage.labels = {};
  storage.view = header.view;
  storage.holder = this;
  storage.tag = header.tag;
  replica_->Heard(header.complete_tag);
}

bool Session::OnData(const wire::Header& header, const std::byte* payload, std::byte* data) {
  if (!Enter(SessionEvent::kData, wire::OpcodeName(header.opcode))) return true;
  CHECK(replica_->Serves(this) || Mutant("old-connection-let-through"));
  SessionOperation* operation = std::exchange(large_, nullptr);
  if (operation == nullptr) {
    operation = operations_.Acquire();
    if (operation == nullptr) return false;
    // What comes with it is kept until it is done.
    const bool keeps = IsAboutRegions(header.opcode) || IsAboutLayers(header.opcode);
    const uint32_t kept_bytes = header.carries_data() ? header.length_bytes
                                : keeps               ? header.payload_bytes
                                                      : 0;
    if (kept_bytes > 0) {
      operation->chunk = buffers_->Acquire(kept_bytes);
      if (operation->chunk == nullptr) {
        operations_.Release(operation);
        return false;
      }
    }
  }
  NoteActivity();
  Begin(operation, header);
  // A snapshot may be of another size: the replica knows.
  const bool of_volume = header.opcode != wire::Opcode::kLoadState &&
                         header.opcode != wire::Opcode::kStoreState &&
                         header.opcode != wire::Opcode::kClean && header.view == 0;
  if (of_volume && header.length_bytes > 0 && OutOfRange(header)) {
    Answer(operation, ErrorCode::kOutOfRange);
    return true;
  }
  switch (header.opcode) {
    case wire::Opcode::kWrite:
    case wire::Opcode::kStoreState:
      StartWrite(operation, payload, data);
      break;
    case wire::Opcode::kRead:
    case wire::Opcode::kStatus:
    case wire::Opcode::kLoadState:
    case wire::Opcode::kSum:
    case wire::Opcode::kMaps:
    case wire::Opcode::kRecent:
      waiting_.PushBack(operation);
      StartWaiting();
      break;
    case wire::Opcode::kMark:
    case wire::Opcode::kClean:
    case wire::Opcode::kMissing:
    case wire::Opcode::kMap:
      if (header.payload_bytes > 0) {
        std::memcpy(operation->chunk->data, payload, header.payload_bytes);
      }
      StartRegions(operation);
      break;
    case wire::Opcode::kLayers:
    case wire::Opcode::kPrepare:
    case wire::Opcode::kSwitch:
    case wire::Opcode::kSeal:
    case wire::Opcode::kDelete:
    case wire::Opcode::kView:
    case wire::Opcode::kCloseView:
    case wire::Opcode::kChanged:
      if (header.payload_bytes > 0) {
        std::memcpy(operation->chunk->data, payload, header.payload_bytes);
      }
      StartLayers(operation);
      break;
    case wire::Opcode::kZero:
      Submit(operation, OperationKind::kZero);
      break;
    case wire::Opcode::kUnmap:
      Submit(operation, OperationKind::kUnmap);
      break;
    case wire::Opcode::kBad:
      Submit(operation, OperationKind::kBad);
      break;
    case wire::Opcode::kFlush:
      Submit(operation, OperationKind::kFlush);
      break;
    case wire::Opcode::kExpand:
      StartExpand(operation, {payload, header.payload_bytes});
      break;
    default:
      StartRecord(operation, payload);
  }
  return true;
}

void Session::StartWrite(SessionOperation* operation, const std::byte* table,
                         const std::byte* data) {
  const wire::Header& header = operation->header;
  if (!wire::DataMatches(header, table, data)) {
    Release(operation);
    Breach(std::string("the data of a ") + wire::OpcodeName(header.opcode) + " of " +
           std::to_string(header.length_bytes) + " bytes at " +
           std::to_string(header.offset_bytes) + " does not match its checksums");
    return;
  }
  std::byte* kept = operation->chunk->data;
  // What came in place is gone when the frame is: the storage may need it for longer.
  if (data != kept) std::memcpy(kept, data, header.length_bytes);
  operation->storage.data = kept;
  if (header.opcode == wire::Opcode::kWrite) KeepTable(operation, table);
  Submit(operation, header.opcode == wire::Opcode::kWrite ? OperationKind::kWrite
                                                          : OperationKind::kStoreState);
}

// The checksums serve the disk as well as the wire (rule 9).
void Session::KeepTable(SessionOperation* operation, const std::byte* table) {
  if (!replica_->has_checksums()) return;
  const wire::Header& header = operation->header;
  std::memcpy(operation->table, table,
              BlocksTouched(header.offset_bytes, header.length_bytes) * sizeof(uint32_t));
  operation->storage.checksums = operation->table;
}

// Rules 2 and 3: a record of this session's epoch, and none that goes back.
void Session::StartRecord(SessionOperation* operation, const std::byte* payload) {
  const wire::Header& header = operation->header;
  if (header.payload_bytes != wire::kEncodedRecordPairBytes) {
    Release(operation);
    Breach("RECORD has the wrong length");
    return;
  }
  Result<wire::RecordPair> pair =
      wire::DecodeRecordPair(std::span<const std::byte, wire::kEncodedRecordPairBytes>(
          payload, wire::kEncodedRecordPairBytes));
  if (!pair.ok()) {
    Release(operation);
    Breach(pair.status().message());
    return;
  }
  const wire::Record& current = pair.value().current;
  const wire::Record& newest = replica_->newest_record();
  if (current.epoch != hello_.epoch || wire::Newer(newest, current)) {
    Answer(operation, ErrorCode::kFenced);
    return;
  }
  const bool contradicts = !wire::Newer(current, newest) && current != newest;
  if (!current.exists() || contradicts || wire::Newer(pair.value().complete, current)) {
    Answer(operation, ErrorCode::kInvalidArgument);
    return;
  }
  // It may switch the head: what is sent before and after it must not mix (rule 8). One that was
  // made equal has the layers already.
  const bool resynced = (header.flags & wire::kFlagResynced) != 0;
  if (current.newest_snapshot != newest.newest_snapshot && !resynced && replica_->changing()) {
    Answer(operation, ErrorCode::kBusy);
    return;
  }
  operation->storage.record = pair.Take();
  operation->storage.welcomed = hello_.epoch;
  operation->storage.resynced = resynced;
  operation->storage.still_lost = (header.flags & wire::kFlagStillLost) != 0;
  Submit(operation, OperationKind::kRecord);
}

void Session::StartExpand(SessionOperation* operation, std::span<const std::byte> payload) {
  Result<uint64_t> size_bytes = wire::DecodeExpand(payload);
  if (!size_bytes.ok()) {
    Release(operation);
    Breach(size_bytes.status().message());
    return;
  }
  operation->storage.size_bytes = size_bytes.value();
  Submit(operation, OperationKind::kExpand);
}

bool Session::AcquireForRead(SessionOperation* operation) {
  const wire::Header& header = operation->header;
  const size_t bytes =
      header.opcode == wire::Opcode::kSum ? header.length_bytes + kSumScratchBytes
      : header.opcode == wire::Opcode::kRead || header.opcode == wire::Opcode::kLoadState
          ? header.length_bytes + BlocksTouched(header.offset_bytes, header.length_bytes) * 4
          : BufferPool::kSmallBytes;
  if (read_bytes_ + bytes > kReadBytesMax) return false;
  operation->chunk = buffers_->Acquire(bytes);
  if (operation->chunk == nullptr) return false;
  read_bytes_ += operation->chunk->capacity_bytes;
  return true;
}

void Session::StartWaiting() {
  while (SessionOperation* operation = waiting_.front()) {
    if (!AcquireForRead(operation)) return;
    waiting_.PopFront();
    ReplicaOperation& storage = operation->storage;
    storage.data = operation->chunk->data;
    switch (operation->header.opcode) {
      case wire::Opcode::kRead:
        // What is computed to verify the data goes with it; aligned, as lengths are multiples of
        // 512.
        storage.checksums = reinterpret_cast<uint32_t*>(storage.data + storage.length_bytes);
        Submit(operation, OperationKind::kRead);
        break;
      case wire::Opcode::kLoadState:
        Submit(operation, OperationKind::kLoadState);
        break;
      case wire::Opcode::kSum:
        // The answer lies behind the data that it is about.
        storage.sums = storage.data + storage.length_bytes;
        Submit(operation, OperationKind::kSum);
        break;
      case wire::Opcode::kMaps:
      case wire::Opcode::kRecent:
        AnswerRegions(operation);
        break;
      default:
        storage.extents = reinterpret_cast<BlockExtent*>(operation->chunk->data + kExtentsAt);
        storage.extents_max = wire::kStatusExtentsMax;
        Submit(operation, OperationKind::kStatus);
    }
  }
}

void Session::Submit(SessionOperation* operation, OperationKind kind) {
  ReplicaOperation& storage = operation->storage;
  storage.kind = kind;
  storage.owner = operation;
  storage.done = &Session::OnStorageDone;
  ++in_flight_;
  replica_->Submit(&storage);
}

void Session::OnStorageDone(ReplicaOperation* storage) {
  auto* operation = static_cast<SessionOperation*>(storage->owner);
  operation->session->OnDone(operation);
}

void Session::OnDone(SessionOperation* operation) {
  --in_flight_;
  ServedReplica& replica = *replica_;
  const ReplicaOperation& storage = operation->storage;
  const ServedReplica::Outcome outcome = {storage.kind, storage.status,
                                          RegionsOf(storage.offset_bytes, storage.length_bytes),
                                          storage.resynced};
  Answer(operation, outcome.status);
  CloseViews();
  replica.OnOperationDone(outcome);
  GoneIfDone();
}

void Session::Answer(SessionOperation* operation, ErrorCode status) {
  const wire::Header& header = operation->header;
  std::optional<BlockOperation> counted;
  switch (header.opcode) {
    case wire::Opcode::kRead:
      counted = BlockOperation::kRead;
      break;
    case wire::Opcode::kWrite:
      counted = BlockOperation::kWrite;
      break;
    case wire::Opcode::kZero:
      counted = BlockOperation::kZero;
      break;
    case wire::Opcode::kUnmap:
      counted = BlockOperation::kUnmap;
      break;
    case wire::Opcode::kFlush:
      counted = BlockOperation::kFlush;
      break;
    case wire::Opcode::kStatus:
      counted = BlockOperation::kStatus;
      break;
    default:
      break;
  }
  if (counted) {
    replica_->counters().Add(*counted, header.length_bytes, status != ErrorCode::kOk,
                             reactor_.NowNs() - operation->started_ns);
  }
  if (!connection_.open()) {
    Release(operation);
    return;
  }
  if (operation->shared) {
    AnswerShared(operation, status);
    return;
  }
  if (status != ErrorCode::kOk) {
    ReleaseChunk(operation);
    const char* text = Explain(header.opcode, status);
    Send(operation, status, reinterpret_cast<const std::byte*>(text),
         static_cast<uint32_t>(std::strlen(text)), nullptr, 0);
    return;
  }
  if (header.opcode == wire::Opcode::kRead || header.opcode == wire::Opcode::kLoadState) {
    std::byte* data = operation->chunk->data;
    std::byte* table = data + header.length_bytes;  // aligned: lengths are multiples of 512
    if (!operation->storage.checksums_filled) {
      Crc32cBlocks(data, header.offset_bytes, header.length_bytes,
                   reinterpret_cast<uint32_t*>(table));
    }
    Send(operation, status, table, BlocksTouched(header.offset_bytes, header.length_bytes) * 4,
         data, header.length_bytes);
    return;
  }
  if (header.opcode == wire::Opcode::kStatus) {
    std::byte* encoded = operation->chunk->data + kEncodedAt;
    const uint32_t count = operation->storage.extents_count;
    for (uint32_t i = 0; i < count; ++i) {
      wire::EncodeExtent(operation->storage.extents[i], encoded + i * wire::kEncodedExtentBytes);
    }
    Send(operation, status, encoded, count * static_cast<uint32_t>(wire::kEncodedExtentBytes),
         nullptr, 0);
    return;
  }
  if (header.opcode == wire::Opcode::kSum) {
    const auto blocks = static_cast<uint32_t>(DivideUp(header.length_bytes, kBlockBytes));
    Send(operation, status, operation->storage.sums, static_cast<uint32_t>(wire::SumsBytes(blocks)),
         nullptr, 0);
    return;
  }
  if (IsAboutLayers(header.opcode)) {
    AnswerLayers(operation);
    return;
  }
  ReleaseChunk(operation);
  Send(operation, status, nullptr, 0, nullptr, 0);
}

void Session::Send(SessionOperation* operation, ErrorCode status, const std::byte* table,
                   uint32_t table_bytes, const std::byte* data, uint32_t data_bytes) {
  wire::Header header;
  header.opcode = operation->header.opcode;
  header.reply = true;
  header.status = status;
  header.tag = operation->header.tag;
  header.slot = operation->header.slot;
  header.offset_bytes = operation->header.offset_bytes;
  header.length_bytes = operation->header.length_bytes;
  header.payload_bytes = table_bytes + data_bytes;
  header.payload_crc32c = Crc32c(table, table_bytes);
  wire::OutgoingFrame& reply = operation->reply;
  wire::EncodeHeader(header, reply.header);
  reply.table = table;
  reply.table_bytes = table_bytes;
  reply.data = data;
  reply.data_bytes = data_bytes;
  reply.owner = operation;
  reply.sent = [](wire::OutgoingFrame* frame) {
    auto* sent = static_cast<SessionOperation*>(frame->owner);
    Session* session = sent->session;
    session->Release(sent);
    session->AfterRelease();
  };
  connection_.Push(&reply);
}

void Session::ReleaseChunk(SessionOperation* operation) {
  BufferPool::Chunk* chunk = std::exchange(operation->chunk, nullptr);
  if (chunk == nullptr) return;
  const wire::Opcode opcode = operation->header.opcode;
  if (opcode == wire::Opcode::kRead || opcode == wire::Opcode::kStatus ||
      opcode == wire::Opcode::kLoadState || opcode == wire::Opcode::kSum ||
      opcode == wire::Opcode::kMaps || opcode == wire::Opcode::kRecent) {
    read_bytes_ -= chunk->capacity_bytes;
  }
  BufferPool::Release(chunk);
}

void Session::Release(SessionOperation* operation) {
  ReleaseChunk(operation);
  operations_.Release(operation);
}

// Whoever waits for an operation or a buffer goes on.
void Session::AfterRelease() {
  if (!connection_.open()) return;
  if (!waiting_.empty()) StartWaiting();
  if (mode_ == SessionMode::kDraining) {
    FinishDraining();
  } else {
    connection_.Resume();
    ConsumeShared();
  }
}

// --- idleness
// --------------------------------------------------------------------------------------

void Session::NoteActivity() {
  active_ = true;
  if (!timer_.armed()) reactor_.Arm(&timer_, reactor_.NowNs() + kIdleNs);
}

void Session::OnTimer() {
  if (mode_ == SessionMode::kEnded) return;
  if (mode_ == SessionMode::kNew || mode_ == SessionMode::kChallenged ||
      mode_ == SessionMode::kRefused) {
    Close({ErrorCode::kTimedOut, "it did not authenticate in time"});
    return;
  }
  // Armed by an operation. Once nothing happened for a whole interval all is given back, and the
  // timer rests until the next one.
  if (active_ || operations_.used() > 0) {
    active_ = false;
    reactor_.Arm(&timer_, reactor_.NowNs() + kIdleNs);
    return;
  }
  operations_.Trim();
  if (replica_ != nullptr && replica_->Serves(this)) replica_->Trim();
  if (buffers_ != nullptr) buffers_->Trim();
  connection_.Trim();
}

}  // namespace ankole::replica
