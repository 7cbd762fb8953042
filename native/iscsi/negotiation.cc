#include "iscsi/negotiation.h"

#include <algorithm>

namespace ankole::iscsi {
namespace {

constexpr uint32_t kSegmentBytesMin = 512;
constexpr uint32_t kSegmentBytesMax = (1 << 24) - 1;

constexpr std::string_view kReject = "Reject";
constexpr std::string_view kIrrelevant = "Irrelevant";
constexpr std::string_view kNotUnderstood = "NotUnderstood";

enum class Kind : uint8_t {
  kAnd,  // booleans
  kOr,
  kMinimum,  // numbers
  kMaximum,
  kDeclaredNumber,  // no answer
  kList,            // the first of the offer that we know
  kRejected,        // known, but not to be negotiated here
};

}  // namespace

struct Negotiation::Rule {
  std::string_view key;
  Kind kind = Kind::kRejected;
  bool normal_only = false;   // «Irrelevant when: SessionType=Discovery»
  bool full_feature = false;  // may be declared again after the login
  uint32_t min = 0;
  uint32_t max = 0;
  uint32_t ours = 0;              // numbers; of booleans 0 or 1
  std::string_view choices = {};  // lists: what we take, between commas
  uint32_t Parameters::*number = nullptr;
  bool Parameters::*flag = nullptr;
  bool Digests::*digest = nullptr;
};

// RFC 7143, 13. Answers to keys without a place in Parameters are fixed by our own value.
const Negotiation::Rule Negotiation::kRules[] = {
    {.key = "HeaderDigest",
     .kind = Kind::kList,
     .choices = ",CRC32C,None,",
     .digest = &Digests::header},
    {.key = "DataDigest",
     .kind = Kind::kList,
     .choices = ",CRC32C,None,",
     .digest = &Digests::data},
    {.key = "MaxConnections",
     .kind = Kind::kMinimum,
     .normal_only = true,
     .min = 1,
     .max = 65'535,
     .ours = 1},
    {.key = "InitialR2T",
     .kind = Kind::kOr,
     .normal_only = true,
     .ours = 0,
     .flag = &Parameters::initial_r2t},
    {.key = "ImmediateData",
     .kind = Kind::kAnd,
     .normal_only = true,
     .ours = 1,
     .flag = &Parameters::immediate_data},
    {.key = "MaxRecvDataSegmentLength",
     .kind = Kind::kDeclaredNumber,
     .full_feature = true,
     .min = kSegmentBytesMin,
     .max = kSegmentBytesMax,
     .number = &Parameters::send_segment_bytes_max},
    {.key = "MaxBurstLength",
     .kind = Kind::kMinimum,
     .normal_only = true,
     .min = kSegmentBytesMin,
     .max = kSegmentBytesMax,
     .ours = kBurstBytesMax,
     .number = &Parameters::burst_bytes_max},
    {.key = "FirstBurstLength",
     .kind = Kind::kMinimum,
     .normal_only = true,
     .min = kSegmentBytesMin,
     .max = kSegmentBytesMax,
     .ours = kFirstBurstBytesMax,
     .number = &Parameters::first_burst_bytes_max},
    {.key = "DefaultTime2Wait",
     .kind = Kind::kMaximum,
     .max = 3600,
     .ours = 2,
     .number = &Parameters::time_to_wait_s},
    // Nothing of a session outlives its connection at error recovery level 0.
    {.key = "DefaultTime2Retain",
     .kind = Kind::kMinimum,
     .max = 3600,
     .ours = 0,
     .number = &Parameters::time_to_retain_s},
    {.key = "MaxOutstandingR2T",
     .kind = Kind::kMinimum,
     .normal_only = true,
     .min = 1,
     .max = 65'535,
     .ours = kOutstandingR2tMax,
     .number = &Parameters::outstanding_r2t_max},
    {.key = "DataPDUInOrder", .kind = Kind::kOr, .normal_only = true, .ours = 1},
    {.key = "DataSequenceInOrder", .kind = Kind::kOr, .normal_only = true, .ours = 1},
    {.key = "ErrorRecoveryLevel", .kind = Kind::kMinimum, .max = 2, .ours = 0},
    {.key = "TaskReporting", .kind = Kind::kList, .normal_only = true, .choices = ",RFC3720,"},
    {.key = "iSCSIProtocolLevel", .kind = Kind::kMinimum, .max = 31, .ours = 1},
    // Markers are obsolete (RFC 7143, 13.25).
    {.key = "IFMarker"},
    {.key = "OFMarker"},
    {.key = "IFMarkInt"},
    {.key = "OFMarkInt"},
    // Of other stages, or only a target's to say.
    {.key = "AuthMethod"},
    {.key = "SendTargets"},
    {.key = "TargetAddress"},
    {.key = "TargetAlias"},
    {.key = "TargetPortalGroupTag"},
    {.key = "InitiatorName"},
    {.key = "InitiatorAlias"},
    {.key = "TargetName"},
    {.key = "SessionType"},
};

std::string Negotiation::AnswerNumber(const Rule& rule, std::string_view value) {
  const std::optional<uint64_t> number = ParseNumber(value);
  if (!number || *number < rule.min || *number > rule.max) return std::string(kReject);
  const auto theirs = static_cast<uint32_t>(*number);
  uint32_t result = theirs;
  if (rule.kind == Kind::kMinimum) result = std::min(theirs, rule.ours);
  if (rule.kind == Kind::kMaximum) result = std::max(theirs, rule.ours);
  if (rule.number != nullptr) parameters_.*rule.number = result;
  return rule.kind == Kind::kDeclaredNumber ? std::string() : std::to_string(result);
}

std::string Negotiation::AnswerBoolean(const Rule& rule, std::string_view value) {
  if (value != "Yes" && value != "No") return std::string(kReject);
  const bool theirs = value == "Yes";
  const bool ours = rule.ours != 0;
  const bool result = rule.kind == Kind::kAnd ? theirs && ours : theirs || ours;
  if (rule.flag != nullptr) parameters_.*rule.flag = result;
  return result ? "Yes" : "No";
}

std::string Negotiation::AnswerList(const Rule& rule, std::string_view value) {
  while (!value.empty()) {
    const size_t comma = std::min(value.find(','), value.size());
    const std::string item(value.substr(0, comma));
    value.remove_prefix(std::min(comma + 1, value.size()));
    if (item.empty() || rule.choices.find("," + item + ",") == std::string_view::npos) continue;
    if (rule.digest != nullptr) parameters_.digests.*rule.digest = item == "CRC32C";
    return item;
  }
  return std::string(kReject);
}

// Empty: the key has no answer.
std::string Negotiation::AnswerOne(const Rule& rule, std::string_view value,
                                   NegotiationScope scope) {
  if (scope == NegotiationScope::kSecurity) return std::string(kReject);
  if (scope == NegotiationScope::kFullFeature && !rule.full_feature) return std::string(kReject);
  if (rule.normal_only && discovery_) return std::string(kIrrelevant);
  switch (rule.kind) {
    case Kind::kAnd:
    case Kind::kOr:
      return AnswerBoolean(rule, value);
    case Kind::kMinimum:
    case Kind::kMaximum:
    case Kind::kDeclaredNumber:
      return AnswerNumber(rule, value);
    case Kind::kList:
      return AnswerList(rule, value);
    case Kind::kRejected:
      break;
  }
  return std::string(kReject);
}

bool Negotiation::Answer(const std::vector<Pair>& pairs, NegotiationScope scope,
                         std::string* reply) {
  std::string first_burst;
  for (const Pair& pair : pairs) {
    // Answers to what we never asked need none.
    if (pair.value == kReject || pair.value == kIrrelevant || pair.value == kNotUnderstood) {
      continue;
    }
    const auto* rule = std::find_if(std::begin(kRules), std::end(kRules),
                                    [&](const Rule& each) { return each.key == pair.key; });
    if (rule == std::end(kRules)) {
      AppendPair(reply, pair.key, kNotUnderstood);
      continue;
    }
    if (scope == NegotiationScope::kOperational) {
      const uint32_t bit = 1u << (rule - std::begin(kRules));
      if ((negotiated_ & bit) != 0) return false;
      negotiated_ |= bit;
    }
    const std::string answer = AnswerOne(*rule, pair.value, scope);
    if (rule->number == &Parameters::first_burst_bytes_max) {
      first_burst = answer;
    } else if (!answer.empty()) {
      AppendPair(reply, pair.key, answer);
    }
  }
  // RFC 7143, 13.14: FirstBurstLength must not exceed MaxBurstLength, in whichever order they came.
  uint32_t& first = parameters_.first_burst_bytes_max;
  const bool cut = first > parameters_.burst_bytes_max;
  first = std::min(first, parameters_.burst_bytes_max);
  if (!first_burst.empty()) {
    const bool number = first_burst[0] >= '0' && first_burst[0] <= '9';
    AppendPair(reply, "FirstBurstLength", cut && number ? std::to_string(first) : first_burst);
  }
  if (scope == NegotiationScope::kOperational && !declared_) {
    declared_ = true;
    parameters_.receive_segment_bytes_max = declared_bytes_;
    AppendPair(reply, "MaxRecvDataSegmentLength", std::to_string(declared_bytes_));
  }
  return true;
}

}  // namespace ankole::iscsi
