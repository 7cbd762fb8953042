#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "iscsi/pdu.h"
#include "iscsi/text.h"

// What a session's two ends agree on (RFC 7143, sections 6 and 13). Pure.
namespace ankole::iscsi {

// Begins with the defaults of RFC 7143, 13: what holds for a key that nobody names.
struct Parameters {
  Digests digests;
  uint32_t send_segment_bytes_max = kDefaultSegmentBytes;     // the initiator's declaration
  uint32_t receive_segment_bytes_max = kDefaultSegmentBytes;  // ours
  uint32_t burst_bytes_max = 256 * kKiB;
  uint32_t first_burst_bytes_max = 64 * kKiB;
  uint32_t outstanding_r2t_max = 1;
  uint32_t time_to_wait_s = 2;
  uint32_t time_to_retain_s = 20;
  bool immediate_data = true;
  bool initial_r2t = true;
};

// The security stage of a login, where none of these keys may be negotiated; its operational stage;
// and text negotiation after the login.
enum class NegotiationScope : uint8_t { kSecurity, kOperational, kFullFeature };

// One end of the negotiation: the responder's.
class Negotiation {
 public:
  // `declared_bytes`: our own MaxRecvDataSegmentLength.
  explicit Negotiation(bool discovery = false, uint32_t declared_bytes = kReceiveSegmentBytesMax)
      : discovery_(discovery), declared_bytes_(declared_bytes) {}

  // Answers each pair into `reply`; keys that belong to the login itself (names, SessionType, CHAP)
  // must have been taken out. Declares our own MaxRecvDataSegmentLength with the first. False: a
  // key was negotiated twice, which ends the login.
  bool Answer(const std::vector<Pair>& pairs, NegotiationScope scope, std::string* reply);

  const Parameters& parameters() const { return parameters_; }

 private:
  struct Rule;
  static const Rule kRules[];

  std::string AnswerOne(const Rule& rule, std::string_view value, NegotiationScope scope);
  std::string AnswerNumber(const Rule& rule, std::string_view value);
  std::string AnswerBoolean(const Rule& rule, std::string_view value);
  std::string AnswerList(const Rule& rule, std::string_view value);

  Parameters parameters_;
  bool discovery_ = false;
  uint32_t declared_bytes_ = 0;
  bool declared_ = false;
  uint32_t negotiated_ = 0;  // one bit a rule
};

}  // namespace ankole::iscsi
