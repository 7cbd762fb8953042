#pragma once

#include <array>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/service.h"
#include "io/reactor.h"
#include "iscsi/portal_connection.h"

namespace ankole::iscsi {

struct PortalTarget {
  std::string name;     // as ParseName gives it
  std::string address;  // HOST:PORT of the engine that serves it; empty: none does
};

struct PortalOptions {
  io::Address listen;
  // What discovery says instead of the host of `listen`, where that is every address; empty: that.
  std::string advertised_host;
  std::vector<PortalTarget> targets;
};

// The well-known portal of a node: tells all targets, and sends logins on to the engine that serves
// the target (RFC 7143, 11.13.5: target moved temporarily). A process of its own, so that nothing
// that happens here touches a volume.
class Portal final : public Service, public PortalOwner, LoginPolicy, TargetList {
 public:
  // {"listen": {"host", "port"}, "targets": [{"iqn", "address"}]}. kInvalidArgument naming the
  // field that is wrong.
  static Result<PortalOptions> ParseOptions(const Json& config);

  Portal(io::Reactor& reactor, EventSink& events, PortalOptions options);
  ~Portal() override;

  void Start() override;
  void OnMessage(const Json& message) override;

 private:
  static Result<std::vector<PortalTarget>> ParseTargets(const Json& json);

  void OnClosed(PortalConnection* connection) override;
  void OnLogin(LoginStatus status) override;
  void OnDiscovery() override { ++discoveries_; }
  uint16_t NewTsih() override;
  bool MayLog() override;
  const LoginPolicy& login_policy() const override { return *this; }
  const TargetList& targets() const override { return *this; }

  Place Find(const std::string& target, std::string* address) const override;
  const ChapSecrets* chap() const override { return nullptr; }
  bool HasSession(uint16_t) const override { return false; }
  uint32_t receive_segment_bytes_max() const override { return kDefaultSegmentBytes; }

  size_t count() const override { return targets_.size(); }
  const std::string& target(size_t index) const override { return targets_[index].name; }
  bool HasTarget(const std::string& name) const override { return by_name_.count(name) > 0; }
  const std::string& portal() const override { return portal_; }

  void Adopt(std::vector<PortalTarget> targets);
  void Listen();
  void Accept();
  void OnAccepted();
  void RefuseOne();
  void BeginStop(int64_t request);
  void Check();
  void ScheduleCheck() { reactor_.Defer(&check_); }

  enum class Mode : uint8_t { kIdle, kWaiting, kListening, kStopping, kStopped };

  io::Reactor& reactor_;
  EventSink& events_;
  const io::Address address_;
  const std::string advertised_host_;
  std::string portal_;
  std::vector<PortalTarget> targets_;
  std::unordered_map<std::string, size_t> by_name_;

  Mode mode_ = Mode::kIdle;
  bool listener_open_ = false;
  bool accepting_ = false;
  int64_t stop_request_ = -1;
  std::string failure_;  // the last one that was reported
  uint16_t last_tsih_ = 0;
  uint64_t logged_ns_ = 0;
  size_t count_ = 0;
  std::array<std::unique_ptr<PortalConnection>, kPortalConnectionsMax> slots_;
  // Since the start, for «counters».
  uint64_t logins_ = 0;
  uint64_t redirects_ = 0;
  uint64_t discoveries_ = 0;
  uint64_t refused_ = 0;

  io::AcceptOperation accept_;
  io::CloseOperation close_listener_;
  io::CloseOperation close_refused_;
  io::Timer listen_retry_;
  io::Timer accept_timer_;  // after a failed accept
  io::Task check_;
};

}  // namespace ankole::iscsi
