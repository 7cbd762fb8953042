#include "iscsi/server.h"

#include <cstring>

namespace ankole::iscsi {

namespace {

// The pool has no list of those who wait; its chunks come back within a few I/O times.
constexpr uint64_t kStarvedRetryNs = kNsPerMs;
// Clients that try again and again must not fill the log.
constexpr uint64_t kRefusedLogNs = kNsPerSecond;

}  // namespace

std::string PortalText(const io::Address& address) {
  if (address.host == "0.0.0.0" || address.host == "::") return "";
  const std::string text = address.ToString();  // tcp:HOST:PORT
  return text.substr(text.find(':') + 1) + ",1";
}

Server::Server(io::Reactor& reactor, BlockDevice& device, scsi::LogicalUnit& unit, LogSink& log,
               ServerOptions options)
    : reactor_(reactor), device_(device), unit_(unit), log_(log), options_(std::move(options)) {
  CHECK(ParseName(options_.target) == options_.target);
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
    return listener.status().Within("iSCSI server of volume " + device_.name());
  }
  portal_ = PortalText(*bound);
  accept_.listener = close_listener_.socket = listener.value();
  listener_open_ = true;
  mode_ = Mode::kListening;
  Accept();
  return Status::Ok();
}

void Server::Shutdown(std::function<void()> done) {
  CHECK(mode_ == Mode::kIdle || mode_ == Mode::kListening);
  mode_ = Mode::kStopping;
  shutdown_done_ = std::move(done);
  reactor_.Cancel(&accept_timer_);
  if (listener_open_) reactor_.Close(&close_listener_);
  for (auto& connection : slots_) {
    if (connection != nullptr) connection->Drain();
  }
  ScheduleCheck();
}

void Server::Abort() {
  for (auto& connection : slots_) {
    if (connection != nullptr) connection->Abort();
  }
}

size_t Server::sessions() const {
  size_t sessions = 0;
  for (const auto& connection : slots_) {
    if (connection != nullptr && connection->in_session()) ++sessions;
  }
  return sessions;
}

size_t Server::held_bytes() const {
  size_t bytes = 0;
  for (const auto& connection : slots_) {
    if (connection != nullptr) bytes += connection->held_bytes();
  }
  return bytes;
}

// --- connections ---------------------------------------------------------------------------------

void Server::Accept() {
  if (mode_ != Mode::kListening || accepting_) return;
  accepting_ = true;
  reactor_.Accept(&accept_);
}

void Server::OnAccepted() {
  accepting_ = false;
  if (accept_.result < 0) {
    if (mode_ == Mode::kListening) {
      log_.Log(LogLevel::kError, "iscsi server of volume " + device_.name() +
                                     " cannot accept a connection: " +
                                     std::strerror(static_cast<int>(-accept_.result)));
      reactor_.Arm(&accept_timer_, reactor_.NowNs() + kAcceptRetryNs);
    }
    return ScheduleCheck();
  }
  if (mode_ != Mode::kListening || count_ == kSlots) return RefuseOne();
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i] != nullptr) continue;
    slots_[i] = std::make_unique<Connection>(reactor_, device_, unit_, log_, *this,
                                             accept_.accepted, accept_.peer);
    slots_[i]->index = i;
    ++count_;
    slots_[i]->Start();
    break;
  }
  Accept();
}

bool Server::MayLog() {
  const uint64_t now_ns = reactor_.NowNs();
  if (refused_logged_ns_ != 0 && now_ns - refused_logged_ns_ < kRefusedLogNs) return false;
  refused_logged_ns_ = now_ns;
  return true;
}

void Server::RefuseOne() {
  if (mode_ == Mode::kListening && MayLog()) {
    log_.Log(LogLevel::kWarn, "iscsi initiator " + accept_.peer + " of volume " + device_.name() +
                                  " refused: there are " + std::to_string(kSlots) +
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
  for (auto& other : slots_) {
    if (other != nullptr && other->reinstating) other->Wake();
  }
  ScheduleCheck();
}

void Server::OnStarved(Connection* connection) {
  connection->starved = true;
  if (!starved_timer_.armed()) reactor_.Arm(&starved_timer_, reactor_.NowNs() + kStarvedRetryNs);
}

// Whatever Shutdown waits for may be there.
void Server::Check() {
  if (mode_ != Mode::kStopping || listener_open_ || accepting_ || count_ > 0) return;
  mode_ = Mode::kStopped;
  // The server may be deleted by it.
  const std::function<void()> done = std::move(shutdown_done_);
  done();
}

// --- sessions ------------------------------------------------------------------------------------

std::optional<uint16_t> Server::OnLogin(Connection* connection) {
  // RFC 7143, 6.3.5: the same initiator port again, without a TSIH, reinstates its session. The
  // logical unit knows a port once only, so that the old session must be gone.
  size_t others = 0;
  connection->reinstating = false;
  for (auto& slot : slots_) {
    Connection* other = slot.get();
    if (other == nullptr || other == connection || other->tsih() == 0) continue;
    if (other->isid() == connection->isid() && other->initiator() == connection->initiator()) {
      connection->reinstating = true;
      if (other->mode() < iscsi::Mode::kClosing) other->Abort();
    } else if (other->mode() < iscsi::Mode::kClosing) {
      ++others;
    }
  }
  if (connection->reinstating) return std::nullopt;
  if (others >= kConnectionsMax) return 0;
  do {
    ++last_tsih_;
  } while (last_tsih_ == 0 || HasSession(last_tsih_));
  return last_tsih_;
}

void Server::OnReset(bool cold) {
  for (auto& connection : slots_) {
    if (connection == nullptr || !connection->in_session()) continue;
    connection->ForgetTasks();
    if (cold) connection->Drain();
  }
}

LoginPolicy::Place Server::Find(const std::string& target, std::string*) const {
  return target == options_.target ? Place::kHere : Place::kUnknown;
}

const ChapSecrets* Server::chap() const { return options_.chap ? &*options_.chap : nullptr; }

bool Server::HasSession(uint16_t tsih) const {
  for (const auto& connection : slots_) {
    if (connection != nullptr && connection->tsih() == tsih) return true;
  }
  return false;
}

}  // namespace ankole::iscsi
