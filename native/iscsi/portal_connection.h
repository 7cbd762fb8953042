#pragma once

#include <array>
#include <memory>
#include <string>

#include "base/log.h"
#include "io/reactor.h"
#include "iscsi/connection.h"
#include "iscsi/login.h"
#include "iscsi/text_exchange.h"

namespace ankole::iscsi {

class PortalConnection;

class PortalOwner {
 public:
  // The connection may be deleted.
  virtual void OnClosed(PortalConnection* connection) = 0;
  // How a login has ended.
  virtual void OnLogin(LoginStatus status) = 0;
  virtual void OnDiscovery() = 0;
  virtual uint16_t NewTsih() = 0;
  // Whether a line may be logged about a client that misbehaves.
  virtual bool MayLog() = 0;
  virtual const LoginPolicy& login_policy() const = 0;
  virtual const TargetList& targets() const = 0;

 protected:
  ~PortalOwner() = default;
};

// One initiator at the well-known portal: a login that is sent on, or a discovery session. One PDU
// at a time: the next one is taken when the answer to the last has been sent. No SCSI command comes
// here. Its life is that of Connection.
class PortalConnection {
 public:
  PortalConnection(io::Reactor& reactor, LogSink& log, PortalOwner& owner, io::Socket socket,
                   std::string peer);
  ~PortalConnection();
  PortalConnection(const PortalConnection&) = delete;
  PortalConnection& operator=(const PortalConnection&) = delete;

  void Start();
  void Abort() { To(Event::kBroken); }

  // For the owner: where the connection is kept.
  size_t index = 0;

 private:
  void To(Event event);
  void Fail(const std::string& cause);
  void Receive();
  void OnReceived(int64_t result);
  void OnSent(int64_t result);
  void Advance();
  bool TakePdu();
  void TakeLogin(const Frame& frame, std::string_view data);
  void TakeRequest(const Frame& frame, std::string_view data);
  void TakeText(const TextRequest& request, std::string_view data);
  void Reject(const Frame& frame, RejectReason reason);
  template <typename Header>
  void Reply(Header header, std::string_view data);

  // The longest PDU: all headers, data as we declare it, both digests.
  static constexpr size_t kInBytes =
      kHeaderBytes + 4 * 255 + kDefaultSegmentBytes + 2 * kDigestBytes;

  io::Reactor& reactor_;
  LogSink& log_;
  PortalOwner& owner_;
  const std::string peer_;

  Mode mode_ = Mode::kLogin;
  std::unique_ptr<Login> login_;
  Negotiation negotiation_;
  Digests digests_;
  TextExchange text_;
  bool begun_ = false;
  uint32_t expected_command_ = 0;
  uint32_t status_number_ = 0;

  io::ReceiveOperation receive_;
  io::SendOperation send_;
  io::CloseOperation close_;
  io::Timer timer_;
  bool receiving_ = false;
  bool sending_ = false;
  size_t in_begin_ = 0;
  size_t in_end_ = 0;
  std::string out_;
  iovec vector_ = {};
  std::array<std::byte, kInBytes> in_;
};

}  // namespace ankole::iscsi
