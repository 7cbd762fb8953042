#include "nbd/connection.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace ankole::nbd {

namespace {

// A Receive with less room than this is not worth its system call; a fresh chunk is taken instead.
constexpr uint32_t kWindowRoomBytesMin = 16 * kKiB;
// Behind the data of a large write, and while large writes are what comes: room for some headers,
// so that little of the next write's data lands here and must be copied.
constexpr uint32_t kSmallWindowBytes = 1 * kKiB;
// Reads up to this share a chunk.
constexpr uint32_t kSharedReadBytesMax = 32 * kKiB;

static_assert(kOptionHeaderBytes + kOptionBytesMax <= BufferPool::kSmallBytes);
static_assert(kReplyHeaderBytesMax >= sizeof(SimpleReplyBytes));

}  // namespace

Mode Next(Mode mode, Event event) {
  switch (mode) {
    case Mode::kClientFlags:
    case Mode::kOptions:
    case Mode::kTransmission:
      if (event == Event::kFlagsTaken && mode == Mode::kClientFlags) return Mode::kOptions;
      if (event == Event::kExportTaken && mode == Mode::kOptions) return Mode::kTransmission;
      if (event == Event::kLastRequest) return Mode::kDraining;
      if (event == Event::kBroken) return Mode::kClosing;
      return mode;
    case Mode::kDraining:
      return event == Event::kDrained || event == Event::kBroken ? Mode::kClosing : mode;
    case Mode::kClosing:
      return event == Event::kSocketClosed ? Mode::kClosed : mode;
    case Mode::kClosed:
      return mode;
  }
  return mode;
}

Connection::Connection(io::Reactor& reactor, BlockDevice& device, BlockDevices* others,
                       LogSink& log, ConnectionOwner& owner, io::Socket socket, std::string peer)
    : reactor_(reactor),
      device_(&device),
      others_(others),
      log_(log),
      owner_(owner),
      socket_(socket),
      peer_(std::move(peer)) {
  for (Operation& operation : operations_) {
    operation.connection = this;
    operation.done = OnDeviceDone;
    free_.PushBack(&operation);
  }
  for (io::Operation* operation :
       {static_cast<io::Operation*>(&receive_), static_cast<io::Operation*>(&send_),
        static_cast<io::Operation*>(&close_), static_cast<io::Operation*>(&handshake_timer_),
        static_cast<io::Operation*>(&task_)}) {
    operation->owner = this;
  }
  receive_.socket = send_.socket = close_.socket = socket_;
  receive_.done = [](io::Operation* o) {
    static_cast<Connection*>(o->owner)->OnReceived(o->result);
  };
  send_.done = [](io::Operation* o) { static_cast<Connection*>(o->owner)->OnSent(o->result); };
  close_.done = [](io::Operation* o) {
    auto* connection = static_cast<Connection*>(o->owner);
    connection->To(Event::kSocketClosed);
    connection->FinishIfGone();
  };
  handshake_timer_.done = [](io::Operation* o) {
    static_cast<Connection*>(o->owner)->Fail("did not finish its handshake in time");
  };
  task_.done = [](io::Operation* o) { static_cast<Connection*>(o->owner)->Turn(); };
}

Connection::~Connection() {
  CHECK(state_.mode == Mode::kClosed && at_device_ == 0);
  for (Operation& operation : operations_) {
    if (operation.chunk != nullptr) Release(operation.chunk);
  }
  if (state_.window.chunk != nullptr) Release(state_.window.chunk);
  if (shared_ != nullptr) Release(shared_);
  CHECK(held_bytes_ == 0);
  if (has_export_) device_->ClientLeft();
}

void Connection::Start() {
  reactor_.Arm(&handshake_timer_, reactor_.NowNs() + kHandshakeTimeoutNs);
  Encoder encoder(handshake_.data());
  EncodeGreeting(&encoder);
  handshake_bytes_ = encoder.bytes();
  reactor_.Defer(&task_);
}

void Connection::Drain() {
  To(Event::kLastRequest);
  Wake();
}

void Connection::Abort() { To(Event::kBroken); }

void Connection::Pause() {
  paused_ = true;
  quiet_reported_ = false;
  Wake();
}

void Connection::Resume() {
  paused_ = false;
  Wake();
}

void Connection::Wake() {
  if (state_.mode < Mode::kClosing) reactor_.Defer(&task_);
}

bool Connection::quiet() const {
  return at_device_ == 0 && ready_.empty() && streams_.empty() && stream_ == nullptr &&
         !sending_now_ && handshake_bytes_ == 0 && state_.incoming.kind != Incoming::Kind::kCutRead;
}

void Connection::To(Event event) {
  const Mode before = state_.mode;
  state_.mode = Next(before, event);
  if (state_.mode == before) return;
  // Not when draining begins: a client that says goodbye in the handshake has no longer than
  // others.
  if (state_.mode == Mode::kTransmission) reactor_.Cancel(&handshake_timer_);
  if (state_.mode == Mode::kClosing) {
    reactor_.Cancel(&handshake_timer_);
    reactor_.Close(&close_);
  }
}

void Connection::Fail(const std::string& cause) {
  if (state_.mode >= Mode::kClosing) return;
  log_.Log(LogLevel::kWarn, "nbd client " + peer_ + " " + cause + "; its connection is closed");
  To(Event::kBroken);
}

// `result` of an operation on the socket. One that only knocked (a port scan, a probe) is not news.
void Connection::Lose(int64_t result) {
  if (state_.mode == Mode::kClientFlags) return To(Event::kBroken);
  Fail(std::string("was lost: ") + std::strerror(static_cast<int>(-result)));
}

// The last thing that a callback does, as the connection may be gone after it.
void Connection::FinishIfGone() {
  if (state_.mode == Mode::kClosed && at_device_ == 0 && !task_.scheduled) owner_.OnClosed(this);
}

void Connection::FinishIfDrained() {
  if (!quiet()) return;
  if (state_.mode == Mode::kDraining) {
    To(Event::kDrained);
  } else if (paused_ && !quiet_reported_) {
    quiet_reported_ = true;
    owner_.OnQuiet(this);
  }
}

void Connection::Turn() {
  if (state_.mode >= Mode::kClosing) return FinishIfGone();
  Advance();
  BuildSend();
  // With nothing in flight the buffer of small reads goes back, so that an idle client holds its
  // window only.
  if (shared_ != nullptr && shared_->references == 1 && at_device_ == 0) {
    Release(shared_);
    shared_ = nullptr;
  }
  FinishIfDrained();
}

// --- receiving -----------------------------------------------------------------------------------

bool Connection::reading() const { return state_.mode <= Mode::kTransmission && !paused_; }

// Takes from the window all that can be taken, then asks for more bytes if that is what is missing.
void Connection::Advance() {
  Progress progress = Progress::kMade;
  while (progress == Progress::kMade && state_.mode < Mode::kClosing) progress = ParseSome();
  if (progress == Progress::kNeedsBytes && reading()) Receive();
}

Connection::Progress Connection::ParseSome() {
  // A read that was begun is completed in any mode; nothing else is once reading has ended.
  if (state_.incoming.kind == Incoming::Kind::kCutRead) return SubmitReadPiece();
  if (!reading()) return Progress::kBlocked;
  switch (state_.mode) {
    case Mode::kClientFlags:
      return ParseClientFlags();
    case Mode::kOptions:
      return ParseOption();
    default:
      break;
  }
  if (state_.incoming.kind == Incoming::Kind::kPayload) return TakePayload();
  if (state_.incoming.kind == Incoming::Kind::kSkip) return SkipPayload();
  return ParseRequest();
}

Connection::Progress Connection::ParseClientFlags() {
  if (state_.window.bytes() < kClientFlagsBytes) {
    needed_bytes_ = kClientFlagsBytes;
    return Progress::kNeedsBytes;
  }
  const std::optional<Negotiated> negotiated = DecodeClientFlags(state_.window.data());
  if (!negotiated) {
    Fail("sent handshake flags that were not offered");
    return Progress::kBlocked;
  }
  state_.negotiated = *negotiated;
  Consume(kClientFlagsBytes);
  To(Event::kFlagsTaken);
  return Progress::kMade;
}

Connection::Progress Connection::ParseOption() {
  Window& window = state_.window;
  needed_bytes_ = kOptionHeaderBytes;
  if (window.bytes() < needed_bytes_) return Progress::kNeedsBytes;
  const std::optional<OptionHeader> header = DecodeOptionHeader(window.data());
  if (!header || header->length_bytes > kOptionBytesMax) {
    Fail(header ? "sent an option of " + std::to_string(header->length_bytes) + " bytes"
                : "sent something that is not an NBD option");
    return Progress::kBlocked;
  }
  needed_bytes_ += header->length_bytes;
  if (window.bytes() < needed_bytes_) return Progress::kNeedsBytes;
  // The replies of one option are in handshake_ until they are sent; a client that does not read
  // them is not listened to.
  if (sending_now_ || handshake_bytes_ + kOptionRepliesBytesMax > kHandshakeBytes) {
    return Progress::kBlocked;
  }
  Encoder encoder(handshake_.data() + handshake_bytes_);
  std::string cause;
  const std::span<const std::byte> data(window.data() + kOptionHeaderBytes, header->length_bytes);
  BlockDevice* asked =
      others_ != nullptr ? others_->Find(AskedExport(header->option, data)) : nullptr;
  if (asked == nullptr) asked = device_;
  const HandshakeStep step = AnswerOption(
      header->option, data, Export{asked->name(), asked->size_bytes(), asked->read_only()},
      &state_.negotiated, &encoder, &cause);
  handshake_bytes_ += encoder.bytes();
  Consume(needed_bytes_);
  switch (step) {
    case HandshakeStep::kNextOption:
      break;
    case HandshakeStep::kTransmission:
      device_ = asked;
      device_->ClientCame();
      has_export_ = true;
      To(Event::kExportTaken);
      break;
    case HandshakeStep::kEnd:
      To(Event::kLastRequest);
      break;
    case HandshakeStep::kRefuse:
      Fail(cause);
      break;
  }
  return Progress::kMade;
}

// Makes room for needed_bytes_ from the window's begin, and enough more to be worth a Receive.
// False when there is no memory for it.
bool Connection::PrepareWindow() {
  Window& window = state_.window;
  if (window.chunk == nullptr) {
    window.chunk = Acquire(BufferPool::kSmallBytes);
    window.begin = window.end = 0;
    return window.chunk != nullptr;
  }
  const uint32_t have = window.bytes();
  const uint32_t wanted = std::max(needed_bytes_, have + kWindowRoomBytesMin);
  const bool alone = window.chunk->references == 1;
  if (alone && have == 0) window.begin = window.end = 0;
  if (window.chunk->capacity_bytes - window.begin >= wanted) return true;
  if (alone) {
    std::memmove(window.chunk->data, window.data(), have);
  } else {
    BufferPool::Chunk* fresh = Acquire(BufferPool::kSmallBytes);
    if (fresh == nullptr) {
      return window.chunk->capacity_bytes - window.begin >= needed_bytes_ &&
             window.chunk->capacity_bytes > window.end;
    }
    std::memcpy(fresh->data, window.data(), have);
    Release(window.chunk);
    window.chunk = fresh;
  }
  window.begin = 0;
  window.end = have;
  return true;
}

void Connection::Receive() {
  if (receiving_) return;
  const Incoming& incoming = state_.incoming;
  Window& window = state_.window;
  if (incoming.kind != Incoming::Kind::kNone) needed_bytes_ = 1;
  if (!PrepareWindow()) return;
  receive_.vectors_count = 0;
  payload_vector_bytes_ = 0;
  uint32_t window_bytes = window.chunk->capacity_bytes - window.end;
  if (incoming.kind == Incoming::Kind::kPayload) {
    // All that the window had went to the piece, so the window is what comes after it.
    Operation* piece = incoming.piece;
    payload_vector_bytes_ = static_cast<uint32_t>(piece->length_bytes) - incoming.received_bytes;
    receive_.vectors[receive_.vectors_count++] = {piece->data + incoming.received_bytes,
                                                  payload_vector_bytes_};
    const Operation* head = incoming.head;
    const bool last = head == piece || head->begun_bytes == head->request.length_bytes;
    window_bytes = last ? std::min(window_bytes, kSmallWindowBytes) : 0;
  } else if (state_.small_window_requests > 0) {
    const uint32_t missing = needed_bytes_ > window.bytes() ? needed_bytes_ - window.bytes() : 1;
    window_bytes = std::min(window_bytes, std::max(missing, kSmallWindowBytes));
  }
  if (window_bytes > 0) {
    receive_.vectors[receive_.vectors_count++] = {window.chunk->data + window.end, window_bytes};
  }
  receiving_ = true;
  reactor_.Receive(&receive_);
}

void Connection::OnReceived(int64_t result) {
  receiving_ = false;
  if (state_.mode >= Mode::kDraining) {
    if (result < 0) To(Event::kBroken);
    return;
  }
  if (result < 0) return Lose(result);
  if (result == 0) {
    if (state_.window.bytes() > 0 || state_.incoming.kind != Incoming::Kind::kNone) {
      return Fail("went away in the middle of a request");
    }
    return Drain();
  }
  const auto bytes = static_cast<uint32_t>(result);
  const uint32_t payload = std::min(bytes, payload_vector_bytes_);
  state_.incoming.received_bytes += payload;
  state_.window.end += bytes - payload;
  Advance();
  if (!ready_.empty() || handshake_bytes_ > 0 || state_.mode == Mode::kDraining) Wake();
}

// --- memory --------------------------------------------------------------------------------------

BufferPool::Chunk* Connection::Acquire(uint32_t bytes) {
  // At the quota some request is in flight or waits to be sent, and its end wakes this up.
  if (held_bytes_ + bytes > kConnectionBufferBytesMax) return nullptr;
  BufferPool::Chunk* chunk = device_->buffers().Acquire(bytes);
  if (chunk != nullptr && held_bytes_ + chunk->capacity_bytes > kConnectionBufferBytesMax) {
    BufferPool::Release(chunk);
    return nullptr;
  }
  if (chunk == nullptr) {
    owner_.OnStarved(this);
    return nullptr;
  }
  held_bytes_ += chunk->capacity_bytes;
  return chunk;
}

void Connection::Release(BufferPool::Chunk* chunk) {
  if (chunk->references == 1) held_bytes_ -= chunk->capacity_bytes;
  BufferPool::Release(chunk);
}

// A buffer that the device fills: a part of the shared chunk, or a chunk.
bool Connection::TakeBuffer(Operation* operation, uint32_t bytes) {
  if (bytes > kSharedReadBytesMax) {
    operation->chunk = Acquire(bytes);
    if (operation->chunk == nullptr) return false;
    operation->data = operation->chunk->data;
    return true;
  }
  if (shared_ != nullptr && shared_->references == 1) shared_used_bytes_ = 0;
  if (shared_ == nullptr || shared_->capacity_bytes - shared_used_bytes_ < bytes) {
    BufferPool::Chunk* fresh = Acquire(BufferPool::kSmallBytes);
    if (fresh == nullptr) return false;
    if (shared_ != nullptr) Release(shared_);
    shared_ = fresh;
    shared_used_bytes_ = 0;
  }
  BufferPool::Retain(shared_);
  operation->chunk = shared_;
  operation->data = shared_->data + shared_used_bytes_;
  shared_used_bytes_ += static_cast<uint32_t>(RoundUp(bytes, kBlockBytes));
  shared_used_bytes_ = std::min(shared_used_bytes_, shared_->capacity_bytes);
  return true;
}

Operation* Connection::NewOperation() {
  Operation* operation = free_.PopFront();
  if (operation == nullptr) return nullptr;
  operation->error = Error::kNone;
  operation->reply_data_bytes = 0;
  operation->head = operation->next_piece = nullptr;
  operation->first_piece = operation->last_piece = nullptr;
  operation->finished = operation->last_chunk = operation->streaming = false;
  operation->begun_bytes = 0;
  operation->pieces_unfinished = 0;
  return operation;
}

void Connection::Free(Operation* operation) {
  if (operation->chunk != nullptr) Release(operation->chunk);
  operation->chunk = nullptr;
  // The one that was used last is warm.
  free_.PushFront(operation);
}

}  // namespace ankole::nbd
