#include "iscsi/portal.h"

#include <cstring>

#include "iscsi/server.h"

namespace ankole::iscsi {
namespace {

constexpr int64_t kIntegerMax = (1LL << 53) - 1;  // what JSON's readers keep exact
constexpr uint64_t kListenRetryNs = kNsPerSecond;
// Clients that try again and again must not fill the log.
constexpr uint64_t kLogNs = kNsPerSecond;

Json EventOf(const char* name) { return Json::Object().Set("event", name); }

}  // namespace

Result<std::vector<PortalTarget>> Portal::ParseTargets(const Json& json) {
  if (!json.is_array() || json.items().size() > kPortalTargetsMax) {
    return Status(ErrorCode::kInvalidArgument,
                  "targets must be a list of at most " + std::to_string(kPortalTargetsMax));
  }
  std::vector<PortalTarget> targets;
  std::unordered_map<std::string, size_t> seen;
  for (const Json& item : json.items()) {
    Result<std::string> iqn = item.String("iqn");
    if (!iqn.ok()) return iqn.status().Within("targets");
    const std::optional<std::string> name = ParseName(iqn.value());
    if (!name) {
      return Status(ErrorCode::kInvalidArgument,
                    "targets: iqn is no iSCSI name: " + Printable(iqn.value()));
    }
    if (!seen.emplace(*name, targets.size()).second) {
      return Status(ErrorCode::kInvalidArgument, "targets: " + *name + " stands twice");
    }
    Result<std::string> address = item.String("address", "");
    if (!address.ok()) return address.status().Within("targets");
    if (!address.value().empty()) {
      const Result<io::Address> parsed = io::Address::Parse("tcp:" + address.value());
      if (!parsed.ok()) return parsed.status().Within("targets: address");
    }
    targets.push_back({*name, address.Take()});
  }
  return targets;
}

Result<PortalOptions> Portal::ParseOptions(const Json& config) {
  if (!config.is_object()) return Status(ErrorCode::kInvalidArgument, "config must be an object");
  PortalOptions options;
  const Json* listen = config.Find("listen");
  if (listen == nullptr) return Status(ErrorCode::kInvalidArgument, "listen is missing");
  Result<std::string> host = listen->String("host");
  if (!host.ok()) return host.status().Within("listen");
  Result<int64_t> port = listen->Integer("port", 0, 65'535);
  if (!port.ok()) return port.status().Within("listen");
  options.listen.host = host.Take();
  options.listen.port = static_cast<uint16_t>(port.value());
  Result<std::string> advertised = config.String("advertisedHost", "");
  if (!advertised.ok()) return advertised.status();
  options.advertised_host = advertised.Take();
  const Json* list = config.Find("targets");
  if (list == nullptr) return Status(ErrorCode::kInvalidArgument, "targets is missing");
  Result<std::vector<PortalTarget>> targets = ParseTargets(*list);
  if (!targets.ok()) return targets.status();
  options.targets = targets.Take();
  return options;
}

Portal::Portal(io::Reactor& reactor, EventSink& events, PortalOptions options)
    : reactor_(reactor),
      events_(events),
      address_(options.listen),
      advertised_host_(std::move(options.advertised_host)) {
  Adopt(std::move(options.targets));
  accept_.owner = close_listener_.owner = close_refused_.owner = listen_retry_.owner =
      accept_timer_.owner = check_.owner = this;
  accept_.done = [](io::Operation* o) { static_cast<Portal*>(o->owner)->OnAccepted(); };
  close_listener_.done = [](io::Operation* o) {
    auto* portal = static_cast<Portal*>(o->owner);
    portal->listener_open_ = false;
    portal->ScheduleCheck();
  };
  close_refused_.done = [](io::Operation* o) {
    auto* portal = static_cast<Portal*>(o->owner);
    portal->accepting_ = false;
    portal->Accept();
    portal->ScheduleCheck();
  };
  listen_retry_.done = [](io::Operation* o) { static_cast<Portal*>(o->owner)->Listen(); };
  accept_timer_.done = [](io::Operation* o) { static_cast<Portal*>(o->owner)->Accept(); };
  check_.done = [](io::Operation* o) { static_cast<Portal*>(o->owner)->Check(); };
}

Portal::~Portal() {
  CHECK(mode_ == Mode::kIdle || mode_ == Mode::kStopped);
  CHECK(!check_.scheduled);
}

void Portal::Adopt(std::vector<PortalTarget> targets) {
  targets_ = std::move(targets);
  by_name_.clear();
  for (size_t i = 0; i < targets_.size(); ++i) by_name_.emplace(targets_[i].name, i);
}

void Portal::Start() {
  const io::BackendChoice& choice = reactor_.backend();
  events_.Emit(EventOf("io-backend")
                   .Set("backend", io::BackendName(choice.backend))
                   .Set("reason", choice.reason));
  mode_ = Mode::kWaiting;
  Listen();
}

// Somebody else may have the address: said once for each cause, and tried until it is free.
void Portal::Listen() {
  io::Address bound;
  Result<io::Socket> listener = reactor_.Listen(address_, &bound);
  if (!listener.ok()) {
    if (listener.status().message() != failure_) {
      failure_ = listener.status().message();
      events_.Emit(EventOf("failed")
                       .Set("code", ErrorCodeName(listener.status().code()))
                       .Set("message", "the iSCSI portal cannot listen: " + failure_ +
                                           "; tried again every second"));
    }
    reactor_.Arm(&listen_retry_, reactor_.NowNs() + kListenRetryNs);
    return;
  }
  io::Address advertised = bound;
  if (!advertised_host_.empty()) advertised.host = advertised_host_;
  portal_ = PortalText(advertised);
  accept_.listener = close_listener_.socket = listener.value();
  listener_open_ = true;
  mode_ = Mode::kListening;
  events_.Emit(EventOf("listening").Set("addresses", Json::Array().Append(bound.ToString())));
  Accept();
}

// --- control messages ----------------------------------------------------------------------------

void Portal::OnMessage(const Json& message) {
  Result<int64_t> request = message.Integer("request", 0, kIntegerMax);
  Result<std::string> name = message.String("op");
  if (!request.ok() || !name.ok()) {
    events_.Log(LogLevel::kWarn, "a control message is not a request");
    return;
  }
  if (name.value() == "targets") {
    const Json* list = message.Find("targets");
    Result<std::vector<PortalTarget>> targets = ParseTargets(list != nullptr ? *list : Json());
    if (!targets.ok()) return events_.Emit(ReplyTo(request.value(), targets.status()));
    Adopt(targets.Take());
    events_.Emit(ReplyTo(request.value(), Json::Object()));
  } else if (name.value() == "counters") {
    events_.Emit(ReplyTo(request.value(), Json::Object()
                                              .Set("connections", static_cast<uint64_t>(count_))
                                              .Set("logins", logins_)
                                              .Set("redirects", redirects_)
                                              .Set("discoveries", discoveries_)
                                              .Set("refused", refused_)));
  } else if (name.value() == "stop") {
    BeginStop(request.value());
  } else {
    events_.Emit(
        ReplyTo(request.value(),
                Status(ErrorCode::kUnsupported, "a portal has no request '" + name.value() + "'")));
  }
}

void Portal::BeginStop(int64_t request) {
  if (mode_ == Mode::kStopping) {
    return events_.Emit(ReplyTo(request, Status(ErrorCode::kBusy, "it is stopping already")));
  }
  stop_request_ = request;
  mode_ = Mode::kStopping;
  reactor_.Cancel(&listen_retry_);
  reactor_.Cancel(&accept_timer_);
  if (listener_open_) reactor_.Close(&close_listener_);
  // Whoever is here asks again elsewhere: nothing is lost with it.
  for (auto& connection : slots_) {
    if (connection != nullptr) connection->Abort();
  }
  ScheduleCheck();
}

void Portal::Check() {
  if (mode_ != Mode::kStopping || listener_open_ || accepting_ || count_ > 0) return;
  mode_ = Mode::kStopped;
  events_.Emit(ReplyTo(stop_request_, Json::Object().Set("clean", true)));
  events_.Emit(EventOf("stopped").Set("clean", true));
  reactor_.Stop();
}

// --- connections ---------------------------------------------------------------------------------

void Portal::Accept() {
  if (mode_ != Mode::kListening || accepting_) return;
  accepting_ = true;
  reactor_.Accept(&accept_);
}

void Portal::OnAccepted() {
  accepting_ = false;
  if (accept_.result < 0) {
    if (mode_ == Mode::kListening) {
      events_.Log(LogLevel::kError, std::string("the iSCSI portal cannot accept a connection: ") +
                                        std::strerror(static_cast<int>(-accept_.result)));
      reactor_.Arm(&accept_timer_, reactor_.NowNs() + kAcceptRetryNs);
    }
    return ScheduleCheck();
  }
  if (mode_ != Mode::kListening || count_ == slots_.size()) return RefuseOne();
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i] != nullptr) continue;
    slots_[i] = std::make_unique<PortalConnection>(reactor_, events_, *this, accept_.accepted,
                                                   accept_.peer);
    slots_[i]->index = i;
    ++count_;
    slots_[i]->Start();
    break;
  }
  Accept();
}

void Portal::RefuseOne() {
  if (mode_ == Mode::kListening) {
    ++refused_;
    if (MayLog()) {
      events_.Log(LogLevel::kWarn, "iscsi initiator " + accept_.peer + " refused: there are " +
                                       std::to_string(slots_.size()) + " connections already");
    }
  }
  accepting_ = true;  // until it is closed
  close_refused_.socket = accept_.accepted;
  reactor_.Close(&close_refused_);
}

void Portal::OnClosed(PortalConnection* connection) {
  CHECK(slots_[connection->index].get() == connection);
  slots_[connection->index] = nullptr;
  --count_;
  ScheduleCheck();
}

void Portal::OnLogin(LoginStatus status) {
  if (status == LoginStatus::kSuccess) {
    ++logins_;
  } else if (status == LoginStatus::kMovedTemporarily) {
    ++redirects_;
  } else {
    ++refused_;
  }
}

uint16_t Portal::NewTsih() {
  if (++last_tsih_ == 0) last_tsih_ = 1;
  return last_tsih_;
}

bool Portal::MayLog() {
  const uint64_t now_ns = reactor_.NowNs();
  if (logged_ns_ != 0 && now_ns - logged_ns_ < kLogNs) return false;
  logged_ns_ = now_ns;
  return true;
}

LoginPolicy::Place Portal::Find(const std::string& target, std::string* address) const {
  const auto found = by_name_.find(target);
  if (found == by_name_.end()) return Place::kUnknown;
  const PortalTarget& known = targets_[found->second];
  if (known.address.empty()) return Place::kUnavailable;
  *address = known.address + ",1";
  return Place::kElsewhere;
}

}  // namespace ankole::iscsi
