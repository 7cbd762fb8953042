#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "iscsi/text.h"

// CHAP (RFC 1994, RFC 7143, 12.1.3), one way and mutual. Pure: randomness comes from outside.
namespace ankole::iscsi {

struct ChapSecrets {
  // What the initiator proves to us.
  std::string user;
  std::string secret;
  // What we prove to it, if it asks. Empty: it may not ask.
  std::string mutual_user;
  std::string mutual_secret;

  // {"user", "secret", "mutualUser"?, "mutualSecret"?}. kInvalidArgument names the field; a message
  // never holds a secret.
  static Result<ChapSecrets> Parse(const Json& json);
};

enum class ChapAlgorithm : uint8_t { kMd5 = 5, kSha256 = 7 };

// The digest of identifier, secret and challenge (RFC 1994, 4.1).
std::vector<uint8_t> ChapResponse(ChapAlgorithm algorithm, uint8_t identifier,
                                  std::string_view secret, std::span<const uint8_t> challenge);

// A binary value in hexadecimal (0x…) or Base64 (0b…), of 1 to `bytes_max` bytes (RFC 7143, 6.1).
std::optional<std::vector<uint8_t>> ParseBinary(std::string_view text, size_t bytes_max);
std::string BinaryText(std::span<const uint8_t> bytes);

inline constexpr size_t kChapChallengeBytes = 32;

// The authenticator's side of one login.
class Chap {
 public:
  using Challenge = std::array<uint8_t, kChapChallengeBytes>;
  enum class Step : uint8_t {
    kAgain,    // `reply` asks for more
    kProven,   // both have proven what they had to; `reply` may hold our own proof
    kRefused,  // wrong secret or name, reflection, or not CHAP at all
  };

  // Invariant: `secrets` lives longer. `challenge` and `identifier` are random and used once.
  Chap(const ChapSecrets& secrets, const Challenge& challenge, uint8_t identifier)
      : secrets_(secrets), challenge_(challenge), identifier_(identifier) {}

  // The next text of the initiator's after it chose CHAP.
  Step Take(const std::vector<Pair>& pairs, std::string* reply);

 private:
  enum class Awaits : uint8_t { kAlgorithm, kResponse, kNothing };

  Step TakeAlgorithm(const std::vector<Pair>& pairs, std::string* reply);
  Step TakeResponse(const std::vector<Pair>& pairs, std::string* reply);
  bool Prove(const std::vector<Pair>& pairs, std::string* reply) const;

  const ChapSecrets& secrets_;
  const Challenge challenge_;
  const uint8_t identifier_;
  Awaits awaits_ = Awaits::kAlgorithm;
  ChapAlgorithm algorithm_ = ChapAlgorithm::kMd5;
};

}  // namespace ankole::iscsi
