#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

// SHA-256 (FIPS 180-4) and HMAC-SHA-256 (RFC 2104), for the replication protocol's HELLO. Own code,
// as the core must build on a machine without OpenSSL's headers; a few hundred bytes a connection.
namespace ankole {

using Sha256Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  void Update(const void* data, size_t bytes);
  Sha256Digest Finish();

 private:
  void Block(const uint8_t* block);
  std::array<uint32_t, 8> state_;
  std::array<uint8_t, 64> buffer_;
  size_t buffered_ = 0;
  uint64_t total_bytes_ = 0;
};

Sha256Digest HmacSha256(std::span<const uint8_t> key, std::span<const uint8_t> message);
// Takes the same time wherever they differ.
bool EqualConstantTime(std::span<const uint8_t> a, std::span<const uint8_t> b);

// A volume's secret: 32 bytes, 64 hex digits in JSON.
using Secret = std::array<uint8_t, 32>;
Result<Secret> ParseSecret(const std::string& hex);
std::string SecretText(const Secret& secret);

}  // namespace ankole
