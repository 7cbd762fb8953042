#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/block_device.h"
#include "base/limits.h"
#include "base/log.h"
#include "io/reactor.h"
#include "iscsi/connection.h"

namespace ankole::iscsi {

struct ServerOptions {
  std::string target;  // an iSCSI name, as ParseName gives it
  std::optional<ChapSecrets> chap;
};

// HOST:PORT,TAG as TargetAddress has it; empty for an address that is none to connect to (a
// wildcard).
std::string PortalText(const io::Address& address);

// Serves one target with one logical unit to iSCSI initiators. All of it lives on the reactor's
// thread.
class Server final : public ConnectionOwner, LoginPolicy, TargetList {
 public:
  // `unit` has been started, and is the only one's of this server.
  Server(io::Reactor& reactor, BlockDevice& device, scsi::LogicalUnit& unit, LogSink& log,
         ServerOptions options);
  // Invariant: never listened, or Shutdown's `done` has run.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Again after a failure. `bound` gets the real address.
  Status Listen(const io::Address& address, io::Address* bound);

  // Stops accepting, answers the requests that were taken and closes all connections; then `done`,
  // never from within. A client that does not read its replies holds it up until Abort.
  void Shutdown(std::function<void()> done);
  // Closes all connections at once. What is at the device is still waited for, as it writes to
  // their buffers. Within or instead of Shutdown's patience; connections that come later are not
  // affected.
  void Abort();

  size_t connections() const { return count_; }
  // Sessions of SCSI commands.
  size_t sessions() const;
  // Memory of the buffer pool held by clients.
  size_t held_bytes() const;

 private:
  void OnClosed(Connection* connection) override;
  void OnStarved(Connection* connection) override;
  std::optional<uint16_t> OnLogin(Connection* connection) override;
  void OnReset(bool cold) override;
  bool OnRefused() override { return MayLog(); }
  const LoginPolicy& login_policy() const override { return *this; }
  const TargetList& targets() const override { return *this; }

  Place Find(const std::string& target, std::string* address) const override;
  const ChapSecrets* chap() const override;
  bool HasSession(uint16_t tsih) const override;
  uint32_t receive_segment_bytes_max() const override { return kReceiveSegmentBytesMax; }

  size_t count() const override { return 1; }
  const std::string& target(size_t) const override { return options_.target; }
  bool HasTarget(const std::string& name) const override { return name == options_.target; }
  const std::string& portal() const override { return portal_; }

  void Accept();
  void OnAccepted();
  void RefuseOne();
  bool MayLog();
  void Check();
  void ScheduleCheck() { reactor_.Defer(&check_); }

  enum class Mode : uint8_t { kIdle, kListening, kStopping, kStopped };
  static constexpr size_t kSlots = kConnectionsMax + kLoginsMax;

  io::Reactor& reactor_;
  BlockDevice& device_;
  scsi::LogicalUnit& unit_;
  LogSink& log_;
  const ServerOptions options_;
  std::string portal_;
  Mode mode_ = Mode::kIdle;
  bool listener_open_ = false;
  bool accepting_ = false;
  uint16_t last_tsih_ = 0;
  uint64_t refused_logged_ns_ = 0;
  size_t count_ = 0;
  std::array<std::unique_ptr<Connection>, kSlots> slots_;
  std::function<void()> shutdown_done_;
  io::AcceptOperation accept_;
  io::CloseOperation close_listener_;
  io::CloseOperation close_refused_;
  io::Timer accept_timer_;   // after a failed accept
  io::Timer starved_timer_;  // while some connection found the pool empty
  io::Task check_;
};

}  // namespace ankole::iscsi
