#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

// MD5 (RFC 1321). Only for CHAP, whose algorithm 5 every initiator has; it protects nothing else.
namespace ankole::iscsi {

using Md5Digest = std::array<uint8_t, 16>;

class Md5 {
 public:
  void Update(const void* data, size_t bytes);
  Md5Digest Finish();

 private:
  void Block(const uint8_t* block);
  std::array<uint32_t, 4> state_ = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
  std::array<uint8_t, 64> buffer_;
  size_t buffered_ = 0;
  uint64_t total_bytes_ = 0;
};

}  // namespace ankole::iscsi
