#include "nbd/server.h"

#include <cstring>

namespace ankole::nbd {

namespace {

// The pool has no list of those who wait; its chunks come back within a few I/O times.
constexpr uint64_t kStarvedRetryNs = kNsPerMs;
// Out of descriptors, say. Trying at once would spin.
constexpr uint64_t kAcceptRetryNs = 100 * kNsPerMs;
// Clients that try again and again must not fill the log.
constexpr uint64_t kRefusedLogNs = kNsPerSecond;

}  // namespace

Server::Server(io::Reactor& reactor, BlockDevice& device, LogSink& log, BlockDevices* others)
    : reactor_(reactor), device_(device), others_(others), log_(log) {
  CHECK(device.size_bytes() % kSectorBytes == 0);
  CHECK(device.name().size() <= kVolumeNameBytesMax);
  accept_.owner = close_listener_.owner = close_refused_.owner = accept_timer_.owner =
      starved_timer_.owner = check_.owner = this;
  accept_.done = [](io::Operation* o) { static_cast<Server*>(o->owner)->OnAccepted(); };
  close_listener_.done = [](io::Operation* o) {
    auto* server = static_cast<Server*>(o->owner);
    server->listener_open_ = false;
    server->ScheduleCheck();
  };
  close_refused_.done = [](io::Operation* o) {
    auto* server = static_cast<Server*>(o->owner);
    server->accepting_ = false;
    server->Accept();
    server->ScheduleCheck();
  };
  accept_timer_.done = [](io::Operation* o) { static_cast<Server*>(o->owner)->Accept(); };
  starved_timer_.done = [](io::Operation* o) {
    for (auto& connection : static_cast<Server*>(o->owner)->slots_) {
      if (connection == nullptr || !connection->starved) continue;
      connection->starved = false;
      connection->Wake();
    }
  };
  check_.done = [](io::Operation* o) { static_cast<Server*>(o->owner)->Check(); };
}

Server::~Server() {
  CHECK(mode_ == Mode::kIdle || mode_ == Mode::kStopped);
  CHECK(!check_.scheduled);
  reactor_.Cancel(&starved_timer_);
}

Status Server::Listen(const io::Address& address, io::Address* bound) {
  CHECK(mode_ == Mode::kIdle);
  Result<io::Socket> listener = reactor_.Listen(address, bound);
  if (!listener.ok()) {
    return listener.status().Within("NBD server of volume " + device_.name());
  }
  accept_.listener = close_listener_.socket = listener.value();
  listener_open_ = true;
  mode_ = Mode::kListening;
  Accept();
  return Status::Ok();
}

void Server::Shutdown(std::function<void()> done) {
  CHECK(mode_ == Mode::kIdle || mode_ == Mode::kListening);
  mode_ = Mode::kStopping;
  paused_ = false;
  shutdown_done_ = std::move(done);
  reactor_.Cancel(&accept_timer_);
  if (listener_open_) reactor_.Close(&close_listener_);
  for (auto& connection : slots_) {
    if (connection == nullptr) continue;
    connection->Resume();
    connection->Drain();
  }
  ScheduleCheck();
}

void Server::Abort() {
  for (auto& connection : slots_) {
    if (connection != nullptr) connection->Abort();
  }
}

void Server::Pause(std::function<void()> quiet) {
  CHECK(!paused_);
  paused_ = true;
  quiet_ = std::move(quiet);
  for (auto& connection : slots_) {
    if (connection != nullptr) connection->Pause();
  }
  ScheduleCheck();
}

void Server::Resume() {
  paused_ = false;
  quiet_ = nullptr;
  for (auto& connection : slots_) {
    if (connection != nullptr) connection->Resume();
  }
}

size_t Server::held_bytes() const {
  size_t bytes = 0;
  for (const auto& connection : slots_) {
    if (connection != nullptr) bytes += connection->held_bytes();
  }
  return bytes;
}

void Server::Accept() {
  if (mode_ != Mode::kListening || accepting_) return;
  accepting_ = true;
  reactor_.Accept(&accept_);
}

void Server::OnAccepted() {
  accepting_ = false;
  if (accept_.result < 0) {
    if (mode_ == Mode::kListening) {
      log_.Log(LogLevel::kError, "nbd server of volume " + device_.name() +
                                     " cannot accept a connection: " +
                                     std::strerror(static_cast<int>(-accept_.result)));
      reactor_.Arm(&accept_timer_, reactor_.NowNs() + kAcceptRetryNs);
    }
    return ScheduleCheck();
  }
  if (mode_ != Mode::kListening || count_ == kConnectionsMax) return RefuseOne();
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i] != nullptr) continue;
    slots_[i] = std::make_unique<Connection>(reactor_, device_, others_, log_, *this,
                                             accept_.accepted, accept_.peer);
    slots_[i]->index = i;
    ++count_;
    if (paused_) slots_[i]->Pause();
    slots_[i]->Start();
    break;
  }
  Accept();
}

void Server::RefuseOne() {
  const uint64_t now_ns = reactor_.NowNs();
  if (mode_ == Mode::kListening &&
      (refused_logged_ns_ == 0 || now_ns - refused_logged_ns_ >= kRefusedLogNs)) {
    refused_logged_ns_ = now_ns;
    log_.Log(LogLevel::kWarn, "nbd client " + accept_.peer + " of volume " + device_.name() +
                                  " refused: there are " + std::to_string(kConnectionsMax) +
                                  " connections already");
  }
  accepting_ = true;  // until it is closed
  close_refused_.socket = accept_.accepted;
  reactor_.Close(&close_refused_);
}

void Server::OnClosed(Connection* connection) {
  CHECK(slots_[connection->index].get() == connection);
  slots_[connection->index] = nullptr;
  --count_;
  ScheduleCheck();
}

void Server::OnStarved(Connection* connection) {
  connection->starved = true;
  if (!starved_timer_.armed()) reactor_.Arm(&starved_timer_, reactor_.NowNs() + kStarvedRetryNs);
}

void Server::OnQuiet(Connection*) { ScheduleCheck(); }

// Whatever Shutdown or Pause wait for may be there.
void Server::Check() {
  if (mode_ == Mode::kStopping && !listener_open_ && !accepting_ && count_ == 0) {
    mode_ = Mode::kStopped;
    // The server may be deleted by it.
    const std::function<void()> done = std::move(shutdown_done_);
    return done();
  }
  if (!paused_ || quiet_ == nullptr) return;
  for (const auto& connection : slots_) {
    if (connection != nullptr && !connection->quiet()) return;
  }
  const std::function<void()> quiet = std::move(quiet_);
  quiet_ = nullptr;
  quiet();
}

}  // namespace ankole::nbd
