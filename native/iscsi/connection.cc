#include "iscsi/connection.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/crc32c.h"

namespace ankole::iscsi {

namespace {

// A Receive with less room than this is not worth its system call; a fresh chunk is taken instead.
constexpr uint32_t kWindowRoomBytesMin = 16 * kKiB;
// Behind large data, and while large data is what comes: room for some headers, so that little of
// the next PDU's data lands here and must be copied.
constexpr uint32_t kSmallWindowBytes = 1 * kKiB;

static_assert(kHeaderBytes + kDefaultSegmentBytes + 2048 <= BufferPool::kSmallBytes);

}  // namespace

Mode Next(Mode mode, Event event) {
  switch (mode) {
    case Mode::kLogin:
    case Mode::kFullFeature:
      if (event == Event::kLoggedIn && mode == Mode::kLogin) return Mode::kFullFeature;
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

Connection::Connection(io::Reactor& reactor, BlockDevice& device, scsi::LogicalUnit& unit,
                       LogSink& log, ConnectionOwner& owner, io::Socket socket, std::string peer)
    : reactor_(reactor),
      device_(device),
      unit_(unit),
      log_(log),
      owner_(owner),
      socket_(socket),
      peer_(std::move(peer)) {
  for (uint32_t i = 0; i < kRequestsMax; ++i) {
    Request& request = requests_[i];
    request.connection = this;
    request.index = i;
    request.done = OnUnitDone;
    free_.PushBack(&request);
  }
  tags_.fill(kNoTag);
  for (io::Operation* operation :
       {static_cast<io::Operation*>(&receive_), static_cast<io::Operation*>(&send_),
        static_cast<io::Operation*>(&close_), static_cast<io::Operation*>(&timer_),
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
  timer_.done = [](io::Operation* o) { static_cast<Connection*>(o->owner)->OnTick(); };
  task_.done = [](io::Operation* o) { static_cast<Connection*>(o->owner)->Turn(); };
}

Connection::~Connection() {
  CHECK(mode_ == Mode::kClosed && at_unit_ == 0);
  for (Request& request : requests_) GiveBackMemory(&request);
  for (size_t i = 0; i < sending_count_; ++i) Release(sending_[i], Quota::kGeneral);
  for (size_t i = 0; i < sending_reserved_count_; ++i) {
    Release(sending_reserved_[i], Quota::kReserve);
  }
  if (window_.chunk != nullptr) Release(window_.chunk, Quota::kReserve);
  if (shared_ != nullptr) Release(shared_, Quota::kGeneral);
  CHECK(held_bytes() == 0);
  if (nexus_ != nullptr) unit_.RemoveNexus(nexus_);
}

void Connection::Start() {
  reactor_.Arm(&timer_, reactor_.NowNs() + kHandshakeTimeoutNs);
  Login::Nonce nonce;
  reactor_.Random(nonce.challenge.data(), nonce.challenge.size());
  reactor_.Random(&nonce.identifier, sizeof(nonce.identifier));
  login_ = std::make_unique<Login>(owner_.login_policy(), nonce);
  reactor_.Defer(&task_);
}

void Connection::Drain() {
  if (mode_ == Mode::kFullFeature) goodbye_due_ = true;
  To(Event::kLastRequest);
  Wake();
}

void Connection::Abort() {
  To(Event::kBroken);
  // The logical unit may give commands back from within.
  aborting_ = true;
  for (Request& request : requests_) {
    if (request.state != RequestState::kAtUnit || request.doomed) continue;
    request.doomed = true;
    unit_.Abort(&request);
  }
  aborting_ = false;
  if (mode_ == Mode::kClosed) reactor_.Defer(&task_);
}

void Connection::ForgetTasks() {
  DropGathering();
  for (Request& request : requests_) {
    if (request.state != RequestState::kAtUnit) continue;
    request.doomed = true;
    // The initiator may use the tag again, however long the device takes.
    tags_[request.index] = kNoTag;
  }
}

// Drops the commands that the logical unit does not have yet.
void Connection::DropGathering() {
  for (Request& request : requests_) {
    if (request.state != RequestState::kGathering && request.state != RequestState::kHeld) continue;
    // Of one whose turn has not come the number is still to be counted; to another one's memory a
    // Receive may be writing.
    if (!request.turn || (incoming_.active && incoming_.request == &request)) {
      request.doomed = true;
    } else {
      Free(&request);
    }
  }
}

void Connection::Wake() {
  if (mode_ < Mode::kClosing) reactor_.Defer(&task_);
}

void Connection::To(Event event) {
  const Mode before = mode_;
  mode_ = Next(before, event);
  if (mode_ == before) return;
  if (mode_ == Mode::kFullFeature) {
    login_ = nullptr;
    reactor_.Arm(&timer_, reactor_.NowNs() + kPingNs);
  }
  // What waits for its data will not get it any more.
  if (mode_ == Mode::kDraining) DropGathering();
  if (mode_ == Mode::kClosing) {
    reactor_.Cancel(&timer_);
    reactor_.Close(&close_);
    Abort();
  }
}

void Connection::Fail(const std::string& cause) {
  if (mode_ >= Mode::kClosing) return;
  log_.Log(LogLevel::kWarn, "iscsi initiator " + peer_ +
                                (initiator_.empty() ? "" : " (" + Printable(initiator_) + ")") +
                                " " + cause + "; its connection is closed");
  To(Event::kBroken);
}

// `result` of an operation on the socket. One that only knocked (a port scan, a probe) is not news.
void Connection::Lose(int64_t result) {
  if (mode_ != Mode::kFullFeature) return To(Event::kBroken);
  Fail(std::string("was lost: ") + std::strerror(static_cast<int>(-result)));
}

// The last thing that a callback does, as the connection may be gone after it.
void Connection::FinishIfGone() {
  if (mode_ == Mode::kClosed && at_unit_ == 0 && !task_.scheduled && !aborting_) {
    owner_.OnClosed(this);
  }
}

bool Connection::quiet() const {
  return at_unit_ == 0 && ready_.empty() && !sending_now_ && login_reply_.empty() &&
         rejects_count_ == 0 && !goodbye_due_;
}

void Connection::FinishIfDrained() {
  if (mode_ == Mode::kDraining && quiet()) To(Event::kDrained);
}

void Connection::Turn() {
  if (mode_ >= Mode::kClosing) return FinishIfGone();
  ServeWaiting();
  Advance();
  BuildSend();
  // With nothing in flight the buffer of small reads goes back, so that an idle client holds its
  // window only.
  if (shared_ != nullptr && shared_->references == 1 && at_unit_ == 0) {
    Release(shared_, Quota::kGeneral);
    shared_ = nullptr;
  }
  FinishIfDrained();
}

// The login has its time. After it: an initiator that says nothing is asked for a sign of life.
void Connection::OnTick() {
  if (mode_ == Mode::kLogin) {
    return Fail(login_step_ ? "waits for commands of its last session, which the volume still has"
                            : "did not finish its login in time");
  }
  if (mode_ == Mode::kClosing) return;
  reactor_.Arm(&timer_, reactor_.NowNs() + kPingNs);
  constexpr uint8_t kStuckTicks = kStuckNs / kPingNs;
  if (sending_now_ && ++send_ticks_ >= kStuckTicks) return Fail("does not read its answers");
  const bool unfinished = incoming_.active || window_.bytes() > 0;
  if (unfinished && mode_ == Mode::kFullFeature && ++pdu_ticks_ >= kStuckTicks) {
    return Fail("did not finish a PDU");
  }
  if (!unfinished) pdu_ticks_ = 0;
  if (heard_ || mode_ != Mode::kFullFeature) {
    heard_ = false;
  } else if (pinged_) {
    Fail("does not answer");
  } else {
    pinged_ = true;
    ping_due_ = true;
    Wake();
  }
}

// --- receiving -----------------------------------------------------------------------------------

// Takes from the window all that can be taken, then asks for more bytes if that is what is missing.
void Connection::Advance() {
  Progress progress = Progress::kMade;
  while (progress == Progress::kMade && mode_ < Mode::kDraining) progress = ParseSome();
  if (progress == Progress::kNeedsBytes && mode_ < Mode::kDraining) Receive();
}

Connection::Progress Connection::ParseSome() {
  if (mode_ == Mode::kLogin) return ParseLogin();
  return incoming_.active ? TakePayload() : ParsePdu();
}

// Makes room for needed_bytes_ from the window's begin, and enough more to be worth a Receive.
// False when there is no memory for it.
bool Connection::PrepareWindow() {
  if (window_.chunk == nullptr) {
    window_.chunk = Acquire(BufferPool::kSmallBytes, Quota::kReserve);
    window_.begin = window_.end = 0;
    return window_.chunk != nullptr;
  }
  const uint32_t have = window_.bytes();
  const uint32_t wanted = std::max(needed_bytes_, have + kWindowRoomBytesMin);
  const bool alone = window_.chunk->references == 1;
  if (alone && have == 0) window_.begin = window_.end = 0;
  if (window_.chunk->capacity_bytes - window_.begin >= wanted) return true;
  if (alone) {
    std::memmove(window_.chunk->data, window_.data(), have);
  } else {
    BufferPool::Chunk* fresh = Acquire(BufferPool::kSmallBytes, Quota::kReserve);
    if (fresh == nullptr) {
      return window_.chunk->capacity_bytes - window_.begin >= needed_bytes_ &&
             window_.chunk->capacity_bytes > window_.end;
    }
    std::memcpy(fresh->data, window_.data(), have);
    Release(window_.chunk, Quota::kReserve);
    window_.chunk = fresh;
  }
  window_.begin = 0;
  window_.end = have;
  return true;
}

void Connection::Receive() {
  if (receiving_) return;
  if (incoming_.active) needed_bytes_ = 1;
  if (!PrepareWindow()) return;
  receive_.vectors_count = 0;
  payload_vector_bytes_ = 0;
  uint32_t window_bytes = window_.chunk->capacity_bytes - window_.end;
  if (incoming_.active && incoming_.request != nullptr && incoming_.left_bytes > 0) {
    // All that the window had went to the command, so the window is what comes after its data.
    uint32_t contiguous = 0;
    std::byte* to = Destination(incoming_.request, incoming_.offset_bytes, &contiguous);
    if (to != nullptr) {
      payload_vector_bytes_ = std::min(contiguous, incoming_.left_bytes);
      receive_.vectors[receive_.vectors_count++] = {to, payload_vector_bytes_};
      const bool last = payload_vector_bytes_ == incoming_.left_bytes;
      window_bytes = last ? std::min(window_bytes, kSmallWindowBytes) : 0;
    }
  } else if (small_window_pdus_ > 0) {
    const uint32_t missing = needed_bytes_ > window_.bytes() ? needed_bytes_ - window_.bytes() : 1;
    window_bytes = std::min(window_bytes, std::max(missing, kSmallWindowBytes));
  }
  if (window_bytes > 0) {
    receive_.vectors[receive_.vectors_count++] = {window_.chunk->data + window_.end, window_bytes};
  }
  receiving_ = true;
  reactor_.Receive(&receive_);
}

void Connection::OnReceived(int64_t result) {
  receiving_ = false;
  if (mode_ >= Mode::kDraining) {
    if (result < 0) To(Event::kBroken);
    return;
  }
  if (result < 0) return Lose(result);
  if (result == 0) {
    if (window_.bytes() > 0 || incoming_.active) return Fail("went away in the middle of a PDU");
    To(Event::kLastRequest);
    return Wake();
  }
  heard_ = true;
  pinged_ = false;
  const auto bytes = static_cast<uint32_t>(result);
  const uint32_t payload = std::min(bytes, payload_vector_bytes_);
  if (payload > 0) {
    if (parameters_.digests.data) {
      incoming_.checksum = Crc32c(receive_.vectors[0].iov_base, payload, incoming_.checksum);
    }
    incoming_.offset_bytes += payload;
    incoming_.left_bytes -= payload;
  }
  window_.end += bytes - payload;
  Advance();
  if (!ready_.empty() || !r2t_.empty() || !login_reply_.empty() || rejects_count_ > 0 ||
      mode_ == Mode::kDraining) {
    Wake();
  }
}

}  // namespace ankole::iscsi
