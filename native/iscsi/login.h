#pragma once

#include <optional>
#include <span>
#include <string>

#include "iscsi/chap.h"
#include "iscsi/negotiation.h"
#include "iscsi/pdu.h"

// The login phase (RFC 7143, 6.3 and 11.12) as one state machine: a Login Request in, a Login
// Response out. Pure: names, secrets and randomness come from its owner.
namespace ankole::iscsi {

enum class LoginStage : uint8_t { kSecurity = 0, kOperational = 1, kFullFeature = 3 };

// RFC 7143, 11.13.5: class and detail.
enum class LoginStatus : uint16_t {
  kSuccess = 0x0000,
  kMovedTemporarily = 0x0101,
  kInitiatorError = 0x0200,
  kAuthenticationFailed = 0x0201,
  kNotFound = 0x0203,
  kUnsupportedVersion = 0x0205,
  kTooManyConnections = 0x0206,
  kMissingParameter = 0x0207,
  kUnsupportedSessionType = 0x0209,
  kNoSession = 0x020a,
  kInvalidRequest = 0x020b,
  kUnavailable = 0x0301,
  kOutOfResources = 0x0302,
};
const char* LoginStatusName(LoginStatus status);

// What a login is judged by.
class LoginPolicy {
 public:
  enum class Place : uint8_t {
    kHere,
    kElsewhere,    // at `address`
    kUnavailable,  // known, but served nowhere at this time
    kUnknown,
  };
  // `target`: a name as ParseName gives it. `address`: HOST:PORT,TAG.
  virtual Place Find(const std::string& target, std::string* address) const = 0;
  // What initiators of normal sessions have to prove, or null.
  virtual const ChapSecrets* chap() const = 0;
  virtual bool HasSession(uint16_t tsih) const = 0;
  // What is declared as MaxRecvDataSegmentLength.
  virtual uint32_t receive_segment_bytes_max() const = 0;

 protected:
  ~LoginPolicy() = default;
};

struct LoginReply {
  LoginResponse header;  // all but the numbers, and the TSIH at the end
  std::string text;      // Invariant: at most kDefaultSegmentBytes
};

enum class LoginStep : uint8_t {
  kContinue,
  kFullFeature,  // `reply` is the last one of the login
  kRefused,      // the connection is to be closed after `reply`
};

class Login {
 public:
  // Random, for one login.
  struct Nonce {
    Chap::Challenge challenge = {};
    uint8_t identifier = 0;
  };

  Login(const LoginPolicy& policy, const Nonce& nonce) : policy_(policy), nonce_(nonce) {}
  Login(const Login&) = delete;
  Login& operator=(const Login&) = delete;

  // `data`: the PDU's, at most kDefaultSegmentBytes.
  LoginStep Take(const LoginRequest& request, std::string_view data, LoginReply* reply);

  // Valid from kFullFeature on, and as far as they came before.
  const std::string& initiator() const { return initiator_; }
  const std::string& target() const { return target_; }
  bool discovery() const { return discovery_; }
  const Isid& isid() const { return isid_; }
  uint16_t connection() const { return connection_; }
  const Negotiation& negotiation() const { return negotiation_; }
  LoginStatus status() const { return status_; }

 private:
  enum class Security : uint8_t { kOpen, kChap, kDone };

  LoginStep Refuse(LoginStatus status, LoginReply* reply);
  LoginStatus TakeFirst(const LoginRequest& request);
  LoginStatus TakeNames(const std::vector<Pair>& pairs, LoginReply* reply);
  LoginStatus TakeSecurity(const std::vector<Pair>& pairs, bool transit, LoginReply* reply);
  LoginStatus ChooseMethod(std::string_view offer, LoginReply* reply);
  bool needs_proof() const { return !discovery_ && policy_.chap() != nullptr; }

  const LoginPolicy& policy_;
  const Nonce nonce_;
  bool begun_ = false;
  bool named_ = false;
  LoginStage stage_ = LoginStage::kSecurity;
  Security security_ = Security::kOpen;
  LoginStatus status_ = LoginStatus::kSuccess;
  Isid isid_ = {};
  uint16_t tsih_ = 0;
  uint16_t connection_ = 0;
  std::string text_;  // of PDUs with the C bit
  std::string initiator_;
  std::string target_;
  bool discovery_ = false;
  Negotiation negotiation_;
  std::optional<Chap> chap_;
};

}  // namespace ankole::iscsi
