#include "iscsi/chap.h"

#include <algorithm>

#include "base/sha256.h"
#include "iscsi/md5.h"

namespace ankole::iscsi {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

int Base64Digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  if (c == '/') return 63;
  return -1;
}

std::optional<std::vector<uint8_t>> ParseHex(std::string_view digits) {
  std::vector<uint8_t> bytes;
  bytes.reserve(digits.size() / 2 + 1);
  // An odd number of digits stands for a number with a leading zero.
  uint8_t high = 0;
  bool half = digits.size() % 2 == 1;
  for (const char c : digits) {
    const int digit = HexDigit(c);
    if (digit < 0) return std::nullopt;
    if (half) {
      bytes.push_back(static_cast<uint8_t>(high << 4 | digit));
      high = 0;
    } else {
      high = static_cast<uint8_t>(digit);
    }
    half = !half;
  }
  return bytes;
}

std::optional<std::vector<uint8_t>> ParseBase64(std::string_view digits) {
  if (digits.size() % 4 != 0) return std::nullopt;
  size_t padding = 0;
  while (padding < 2 && !digits.empty() && digits.back() == '=') {
    digits.remove_suffix(1);
    ++padding;
  }
  std::vector<uint8_t> bytes;
  bytes.reserve(digits.size());
  uint32_t bits = 0;
  int count = 0;
  for (const char c : digits) {
    const int digit = Base64Digit(c);
    if (digit < 0) return std::nullopt;
    bits = (bits << 6 | static_cast<uint32_t>(digit)) & 0xffffff;
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes.push_back(static_cast<uint8_t>(bits >> count));
    }
  }
  return bytes;
}

Status Bad(const std::string& why) { return {ErrorCode::kInvalidArgument, "chap: " + why}; }

Status CheckSecret(const std::string& field, const std::string& secret) {
  if (secret.size() >= kChapSecretBytesMin && secret.size() <= kChapSecretBytesMax) return {};
  return Bad(field + " must have " + std::to_string(kChapSecretBytesMin) + " to " +
             std::to_string(kChapSecretBytesMax) + " bytes");
}

Status CheckUser(const std::string& field, const std::string& user) {
  const bool good = !user.empty() && user.size() <= kChapNameBytesMax &&
                    std::all_of(user.begin(), user.end(),
                                [](char c) { return static_cast<unsigned char>(c) >= 0x20; });
  if (good) return {};
  return Bad(field + " must have 1 to " + std::to_string(kChapNameBytesMax) +
             " bytes and no control characters");
}

}  // namespace

Result<ChapSecrets> ChapSecrets::Parse(const Json& json) {
  if (!json.is_object()) return Bad("must be an object");
  ChapSecrets secrets;
  Result<std::string> user = json.String("user");
  if (!user.ok()) return user.status().Within("chap");
  secrets.user = user.Take();
  RETURN_IF_ERROR(CheckUser("user", secrets.user));
  Result<std::string> secret = json.String("secret");
  // Its own message would hold what stands there.
  if (!secret.ok()) return Bad("secret must be a text");
  secrets.secret = secret.Take();
  RETURN_IF_ERROR(CheckSecret("secret", secrets.secret));
  Result<std::string> mutual_user = json.String("mutualUser", "");
  if (!mutual_user.ok()) return mutual_user.status().Within("chap");
  secrets.mutual_user = mutual_user.Take();
  Result<std::string> mutual_secret = json.String("mutualSecret", "");
  if (!mutual_secret.ok()) return Bad("mutualSecret must be a text");
  secrets.mutual_secret = mutual_secret.Take();
  if (secrets.mutual_user.empty() != secrets.mutual_secret.empty()) {
    return Bad("mutualUser and mutualSecret go together");
  }
  if (secrets.mutual_user.empty()) return secrets;
  RETURN_IF_ERROR(CheckUser("mutualUser", secrets.mutual_user));
  RETURN_IF_ERROR(CheckSecret("mutualSecret", secrets.mutual_secret));
  // RFC 7143, 9.2.1: else a proof of one direction could be used in the other.
  if (secrets.mutual_secret == secrets.secret) return Bad("mutualSecret must differ from secret");
  return secrets;
}

std::vector<uint8_t> ChapResponse(ChapAlgorithm algorithm, uint8_t identifier,
                                  std::string_view secret, std::span<const uint8_t> challenge) {
  const auto digest = [&](auto hash) {
    hash.Update(&identifier, 1);
    hash.Update(secret.data(), secret.size());
    hash.Update(challenge.data(), challenge.size());
    const auto bytes = hash.Finish();
    return std::vector<uint8_t>(bytes.begin(), bytes.end());
  };
  return algorithm == ChapAlgorithm::kMd5 ? digest(Md5()) : digest(Sha256());
}

std::optional<std::vector<uint8_t>> ParseBinary(std::string_view text, size_t bytes_max) {
  if (text.size() < 3 || text[0] != '0' || text.size() > 2 + 2 * bytes_max) return std::nullopt;
  const std::string_view digits = text.substr(2);
  std::optional<std::vector<uint8_t>> bytes;
  if (text[1] == 'x' || text[1] == 'X') bytes = ParseHex(digits);
  if (text[1] == 'b' || text[1] == 'B') bytes = ParseBase64(digits);
  if (!bytes || bytes->empty() || bytes->size() > bytes_max) return std::nullopt;
  return bytes;
}

std::string BinaryText(std::span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "0x";
  for (const uint8_t byte : bytes) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

Chap::Step Chap::Take(const std::vector<Pair>& pairs, std::string* reply) {
  switch (awaits_) {
    case Awaits::kAlgorithm:
      return TakeAlgorithm(pairs, reply);
    case Awaits::kResponse:
      return TakeResponse(pairs, reply);
    case Awaits::kNothing:
      break;
  }
  return Step::kRefused;
}

// CHAP_A: a list, what the initiator likes best first.
Chap::Step Chap::TakeAlgorithm(const std::vector<Pair>& pairs, std::string* reply) {
  std::string_view list = Find(pairs, "CHAP_A").value_or("");
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    const std::optional<uint64_t> number = ParseNumber(list.substr(0, comma));
    list.remove_prefix(std::min(comma + 1, list.size()));
    if (number != static_cast<uint64_t>(ChapAlgorithm::kMd5) &&
        number != static_cast<uint64_t>(ChapAlgorithm::kSha256)) {
      continue;
    }
    algorithm_ = static_cast<ChapAlgorithm>(*number);
    awaits_ = Awaits::kResponse;
    AppendPair(reply, "CHAP_A", std::to_string(*number));
    AppendPair(reply, "CHAP_I", std::to_string(identifier_));
    AppendPair(reply, "CHAP_C", BinaryText(challenge_));
    return Step::kAgain;
  }
  return Step::kRefused;
}

Chap::Step Chap::TakeResponse(const std::vector<Pair>& pairs, std::string* reply) {
  awaits_ = Awaits::kNothing;
  const std::string_view name = Find(pairs, "CHAP_N").value_or("");
  const auto given = ParseBinary(Find(pairs, "CHAP_R").value_or(""), kChapBytesMax);
  const std::vector<uint8_t> expected =
      ChapResponse(algorithm_, identifier_, secrets_.secret, challenge_);
  // The response is looked at whatever the name is, so that time tells nothing about either.
  const bool proven = given.has_value() && EqualConstantTime(*given, expected);
  if (name != secrets_.user || !proven) return Step::kRefused;
  const bool asked = Find(pairs, "CHAP_I").has_value() || Find(pairs, "CHAP_C").has_value();
  if (asked && !Prove(pairs, reply)) return Step::kRefused;
  return Step::kProven;
}

bool Chap::Prove(const std::vector<Pair>& pairs, std::string* reply) const {
  if (secrets_.mutual_secret.empty()) return false;
  const std::optional<uint64_t> identifier = ParseNumber(Find(pairs, "CHAP_I").value_or(""));
  const auto challenge = ParseBinary(Find(pairs, "CHAP_C").value_or(""), kChapBytesMax);
  if (!identifier || *identifier > 255 || !challenge) return false;
  // Our own challenge sent back, to have us answer it (RFC 7143, 12.1.3).
  if (std::equal(challenge->begin(), challenge->end(), challenge_.begin(), challenge_.end())) {
    return false;
  }
  AppendPair(reply, "CHAP_N", secrets_.mutual_user);
  AppendPair(reply, "CHAP_R",
             BinaryText(ChapResponse(algorithm_, static_cast<uint8_t>(*identifier),
                                     secrets_.mutual_secret, *challenge)));
  return true;
}

}  // namespace ankole::iscsi
