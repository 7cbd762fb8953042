#include <cstring>
#include <string>
#include <vector>

#include "base/check.h"
#include "iscsi/login.h"
#include "iscsi/text_exchange.h"

// Owns the text of logins, CHAP's values and Text Requests: the first byte chooses who reads it.
namespace ankole::iscsi {
namespace {

const std::string kTarget = "iqn.t:disk";

class Target final : public LoginPolicy, public TargetList {
 public:
  explicit Target(bool chap) {
    if (chap) secrets_ = {"user", "a secret of some length", "target", "another secret, longer"};
  }
  Place Find(const std::string& target, std::string* address) const override {
    *address = "10.0.0.1:3260,1";
    if (target == kTarget) return Place::kHere;
    return target.size() % 2 == 0 ? Place::kElsewhere : Place::kUnknown;
  }
  const ChapSecrets* chap() const override { return secrets_.user.empty() ? nullptr : &secrets_; }
  bool HasSession(uint16_t tsih) const override { return tsih % 2 == 1; }
  uint32_t receive_segment_bytes_max() const override { return kReceiveSegmentBytesMax; }
  size_t count() const override { return 300; }
  const std::string& target(size_t) const override { return kTarget; }
  bool HasTarget(const std::string& name) const override { return name == kTarget; }
  const std::string& portal() const override { return portal_; }

 private:
  ChapSecrets secrets_;
  const std::string portal_ = "10.0.0.1:3260,1";
};

// Each piece: flags, length, text.
void FuzzLogin(const uint8_t* data, size_t size, bool chap) {
  const Target target(chap);
  Login login(target, {});
  while (size >= 2) {
    LoginRequest request;
    request.flags = data[0];
    const size_t length = std::min<size_t>(size - 2, data[1] * 8u);
    const std::string text(reinterpret_cast<const char*>(data + 2), length);
    data += 2 + length;
    size -= 2 + length;
    LoginReply reply;
    const LoginStep step = login.Take(request, text, &reply);
    CHECK(reply.text.size() <= kDefaultSegmentBytes);
    CHECK((step == LoginStep::kRefused) == (reply.header.status != 0));
    if (step == LoginStep::kFullFeature) {
      // Nobody guesses a secret.
      CHECK(!chap || login.discovery());
      CHECK(ParseName(login.initiator()) == login.initiator());
      const Parameters& parameters = login.negotiation().parameters();
      CHECK(parameters.first_burst_bytes_max <= kFirstBurstBytesMax);
      CHECK(parameters.first_burst_bytes_max <= parameters.burst_bytes_max);
      CHECK(parameters.burst_bytes_max >= 512 && parameters.burst_bytes_max <= kBurstBytesMax);
      CHECK(parameters.send_segment_bytes_max >= 512);
      CHECK(parameters.outstanding_r2t_max >= 1);
      CHECK(parameters.outstanding_r2t_max <= kOutstandingR2tMax);
    }
    if (step != LoginStep::kContinue) return;
  }
}

void FuzzExchange(const uint8_t* data, size_t size, bool normal) {
  const Target target(false);
  TextExchange exchange;
  Negotiation negotiation;
  uint32_t tag = kNoTag;
  while (size >= 3) {
    TextRequest request;
    request.flags = data[0] & (kFlagFinal | kFlagContinue);
    request.transfer_tag = (data[1] & 3) == 0 ? uint32_t{kNoTag} : tag;
    const size_t length = std::min<size_t>(size - 3, data[2] * 8u);
    const std::string text(reinterpret_cast<const char*>(data + 3), length);
    data += 3 + length;
    size -= 3 + length;
    TextReply reply;
    if (!exchange.Take(request, text, target, normal ? std::string_view(kTarget) : "", &negotiation,
                       &reply)) {
      continue;
    }
    CHECK(reply.text.size() <= kDefaultSegmentBytes);
    CHECK(reply.text.size() <= negotiation.parameters().send_segment_bytes_max);
    tag = reply.header.transfer_tag;
    CHECK((tag == kNoTag) == ((reply.header.flags & kFlagFinal) != 0));
  }
}

void FuzzValues(std::string_view text) {
  for (const size_t bytes_max : {1, 16, 1024}) {
    const auto bytes = ParseBinary(text, bytes_max);
    if (!bytes) continue;
    CHECK(!bytes->empty() && bytes->size() <= bytes_max);
    CHECK(ParseBinary(BinaryText(*bytes), bytes_max) == bytes);
  }
  (void)ParseNumber(text);
  const auto name = ParseName(text);
  if (name) CHECK(ParseName(*name) == name);
  CHECK(Printable(text).size() <= 131);
  const auto pairs = ParseText(text);
  if (!pairs) return;
  CHECK(pairs->size() <= kTextKeysMax);
  std::string back;
  for (const Pair& pair : *pairs) AppendPair(&back, pair.key, pair.value);
  CHECK(text.starts_with(back));
  CHECK(text.find_first_not_of('\0', back.size()) == std::string_view::npos);
}

void Fuzz(const uint8_t* data, size_t size) {
  if (size < 1) return;
  switch (data[0] % 5) {
    case 0:
    case 1:
      return FuzzLogin(data + 1, size - 1, data[0] % 5 == 1);
    case 2:
    case 3:
      return FuzzExchange(data + 1, size - 1, data[0] % 5 == 3);
    default: {
      // A copy of exactly this size, so that a read past the end is seen.
      const std::vector<char> copy(data + 1, data + size);
      return FuzzValues({copy.data(), copy.size()});
    }
  }
}

}  // namespace
}  // namespace ankole::iscsi

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ankole::iscsi::Fuzz(data, size);
  return 0;
}
