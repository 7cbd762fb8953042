#include "iscsi/login.h"

#include <algorithm>

namespace ankole::iscsi {
namespace {

constexpr uint8_t kStageMask = 3;
constexpr int kCurrentStageShift = 2;
// One group of portals: the engine's own.
constexpr std::string_view kPortalGroup = "1";

bool Offers(std::string_view list, std::string_view method) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == method) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

// Keys that the login itself takes, in whichever stage they come.
bool IsLoginKey(std::string_view key) {
  return key == "InitiatorName" || key == "InitiatorAlias" || key == "TargetName" ||
         key == "SessionType";
}
bool IsSecurityKey(std::string_view key) {
  return key == "AuthMethod" || key == "CHAP_A" || key == "CHAP_I" || key == "CHAP_C" ||
         key == "CHAP_N" || key == "CHAP_R";
}

}  // namespace

const char* LoginStatusName(LoginStatus status) {
  switch (status) {
    case LoginStatus::kSuccess:
      return "success";
    case LoginStatus::kMovedTemporarily:
      return "the target is at another address";
    case LoginStatus::kInitiatorError:
      return "the login is malformed";
    case LoginStatus::kAuthenticationFailed:
      return "authentication failed";
    case LoginStatus::kNotFound:
      return "there is no such target";
    case LoginStatus::kUnsupportedVersion:
      return "unsupported version";
    case LoginStatus::kTooManyConnections:
      return "a session has one connection";
    case LoginStatus::kMissingParameter:
      return "a name is missing";
    case LoginStatus::kUnsupportedSessionType:
      return "unsupported session type";
    case LoginStatus::kNoSession:
      return "there is no such session";
    case LoginStatus::kInvalidRequest:
      return "out of order";
    case LoginStatus::kUnavailable:
      return "the target is not attached";
    case LoginStatus::kOutOfResources:
      return "there are too many sessions";
  }
  return "refused";
}

LoginStep Login::Refuse(LoginStatus status, LoginReply* reply) {
  status_ = status;
  reply->header.status = static_cast<uint16_t>(status);
  reply->header.flags &= static_cast<uint8_t>(~kFlagTransit);
  if (status != LoginStatus::kMovedTemporarily) reply->text.clear();
  return LoginStep::kRefused;
}

LoginStep Login::Take(const LoginRequest& request, std::string_view data, LoginReply* reply) {
  const auto stage = static_cast<LoginStage>(request.flags >> kCurrentStageShift & kStageMask);
  const auto next = static_cast<LoginStage>(request.flags & kStageMask);
  const bool transit = (request.flags & kFlagTransit) != 0;
  const bool more = (request.flags & kFlagContinue) != 0;
  reply->text.clear();
  reply->header = {};
  reply->header.opcode = static_cast<uint8_t>(Opcode::kLoginResponse);
  reply->header.flags = static_cast<uint8_t>(request.flags & kStageMask << kCurrentStageShift);
  reply->header.isid = request.isid;
  reply->header.tsih = request.tsih;
  reply->header.task_tag = request.task_tag;

  if (!begun_) {
    const LoginStatus first = TakeFirst(request);
    if (first != LoginStatus::kSuccess) return Refuse(first, reply);
    // A login may begin with the operational stage.
    if (stage == LoginStage::kOperational) stage_ = LoginStage::kOperational;
  }
  if (request.isid != isid_ || request.tsih != tsih_ || request.connection != connection_ ||
      stage != stage_) {
    return Refuse(LoginStatus::kInvalidRequest, reply);
  }
  const bool forward = next == LoginStage::kFullFeature ||
                       (next == LoginStage::kOperational && stage == LoginStage::kSecurity);
  if (transit && (more || !forward)) return Refuse(LoginStatus::kInitiatorError, reply);

  if (text_.size() + data.size() > kTextBytesMax) {
    return Refuse(LoginStatus::kInitiatorError, reply);
  }
  text_.append(data);
  if (more) return LoginStep::kContinue;
  const std::string text = std::move(text_);
  text_.clear();
  const std::optional<std::vector<Pair>> pairs = ParseText(text);
  if (!pairs) return Refuse(LoginStatus::kInitiatorError, reply);

  if (!named_) {
    const LoginStatus named = TakeNames(*pairs, reply);
    if (named != LoginStatus::kSuccess) return Refuse(named, reply);
  }
  std::vector<Pair> others;
  for (const Pair& pair : *pairs) {
    const bool taken =
        IsLoginKey(pair.key) || (stage == LoginStage::kSecurity && IsSecurityKey(pair.key));
    if (!taken) others.push_back(pair);
  }
  if (stage == LoginStage::kSecurity) {
    const LoginStatus secured = TakeSecurity(*pairs, transit, reply);
    if (secured != LoginStatus::kSuccess) return Refuse(secured, reply);
    negotiation_.Answer(others, NegotiationScope::kSecurity, &reply->text);
    if (!transit || security_ != Security::kDone) return LoginStep::kContinue;
  } else {
    if (security_ != Security::kDone && needs_proof()) {
      return Refuse(LoginStatus::kAuthenticationFailed, reply);
    }
    if (!negotiation_.Answer(others, NegotiationScope::kOperational, &reply->text)) {
      return Refuse(LoginStatus::kInitiatorError, reply);
    }
    if (!transit) return LoginStep::kContinue;
  }
  stage_ = next;
  reply->header.flags |= static_cast<uint8_t>(kFlagTransit | static_cast<uint8_t>(next));
  return next == LoginStage::kFullFeature ? LoginStep::kFullFeature : LoginStep::kContinue;
}

LoginStatus Login::TakeFirst(const LoginRequest& request) {
  begun_ = true;
  isid_ = request.isid;
  tsih_ = request.tsih;
  connection_ = request.connection;
  // The only version there is has the number 0.
  return request.version_min > 0 ? LoginStatus::kUnsupportedVersion : LoginStatus::kSuccess;
}

LoginStatus Login::TakeNames(const std::vector<Pair>& pairs, LoginReply* reply) {
  const auto initiator = Find(pairs, "InitiatorName");
  if (!initiator) return LoginStatus::kMissingParameter;
  const std::optional<std::string> initiator_name = ParseName(*initiator);
  if (!initiator_name) return LoginStatus::kInitiatorError;
  initiator_ = *initiator_name;
  const std::string_view type = Find(pairs, "SessionType").value_or("Normal");
  if (type != "Normal" && type != "Discovery") return LoginStatus::kUnsupportedSessionType;
  discovery_ = type == "Discovery";
  negotiation_ = Negotiation(discovery_, policy_.receive_segment_bytes_max());
  named_ = true;
  const auto target = Find(pairs, "TargetName");
  if (target) {
    const std::optional<std::string> target_name = ParseName(*target);
    if (!target_name) return LoginStatus::kNotFound;
    target_ = *target_name;
  }
  if (!discovery_) {
    if (!target) return LoginStatus::kMissingParameter;
    std::string address;
    switch (policy_.Find(target_, &address)) {
      case LoginPolicy::Place::kHere:
        AppendPair(&reply->text, "TargetPortalGroupTag", kPortalGroup);
        break;
      case LoginPolicy::Place::kElsewhere:
        AppendPair(&reply->text, "TargetAddress", address);
        return LoginStatus::kMovedTemporarily;
      case LoginPolicy::Place::kUnavailable:
        return LoginStatus::kUnavailable;
      case LoginPolicy::Place::kUnknown:
        return LoginStatus::kNotFound;
    }
  }
  // A number means: one more connection of a session that is there.
  if (tsih_ == 0) return LoginStatus::kSuccess;
  return policy_.HasSession(tsih_) ? LoginStatus::kTooManyConnections : LoginStatus::kNoSession;
}

LoginStatus Login::TakeSecurity(const std::vector<Pair>& pairs, bool transit, LoginReply* reply) {
  const auto offer = Find(pairs, "AuthMethod");
  if (offer) {
    // Chosen once and for all.
    if (security_ != Security::kOpen) return LoginStatus::kInitiatorError;
    return ChooseMethod(*offer, reply);
  }
  if (security_ == Security::kChap) {
    switch (chap_->Take(pairs, &reply->text)) {
      case Chap::Step::kAgain:
        return LoginStatus::kSuccess;
      case Chap::Step::kProven:
        security_ = Security::kDone;
        return LoginStatus::kSuccess;
      case Chap::Step::kRefused:
        return LoginStatus::kAuthenticationFailed;
    }
  }
  if (security_ == Security::kOpen && transit) {
    if (needs_proof()) return LoginStatus::kAuthenticationFailed;
    security_ = Security::kDone;
  }
  return LoginStatus::kSuccess;
}

LoginStatus Login::ChooseMethod(std::string_view offer, LoginReply* reply) {
  const bool none = Offers(offer, "None");
  const bool chap = Offers(offer, "CHAP") && policy_.chap() != nullptr;
  if (chap && (needs_proof() || !none)) {
    security_ = Security::kChap;
    chap_.emplace(*policy_.chap(), nonce_.challenge, nonce_.identifier);
    AppendPair(&reply->text, "AuthMethod", "CHAP");
    return LoginStatus::kSuccess;
  }
  if (!none || needs_proof()) return LoginStatus::kAuthenticationFailed;
  security_ = Security::kDone;
  AppendPair(&reply->text, "AuthMethod", "None");
  return LoginStatus::kSuccess;
}

}  // namespace ankole::iscsi
