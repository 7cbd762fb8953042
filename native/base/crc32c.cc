#include "base/crc32c.h"

#include <array>

#include "base/bytes.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace ankole {
namespace {

// The Castagnoli polynomial, bits reversed.
constexpr uint32_t kPolynomial = 0x82f63b78;

constexpr std::array<std::array<uint32_t, 256>, 8> MakeTables() {
  std::array<std::array<uint32_t, 256>, 8> tables = {};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? crc >> 1 ^ kPolynomial : crc >> 1;
    tables[0][i] = crc;
  }
  for (uint32_t i = 0; i < 256; ++i) {
    for (size_t t = 1; t < 8; ++t) {
      tables[t][i] = tables[t - 1][i] >> 8 ^ tables[0][tables[t - 1][i] & 0xff];
    }
  }
  return tables;
}

constexpr auto kTables = MakeTables();

#if defined(__x86_64__)

// The instruction takes 3 cycles and can start one each cycle, so three streams run side by side. A
// stream is this long; three of them and 16 bytes are a block of 4 KiB.
constexpr size_t kStreamBytes = 1360;

// What kStreamBytes of zeros do to a checksum, a table for each of its four bytes: that is how the
// streams are put together.
std::array<std::array<uint32_t, 256>, 4> MakeShift() {
  std::array<std::array<uint32_t, 256>, 4> shift = {};
  for (size_t byte = 0; byte < 4; ++byte) {
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i << (8 * byte);
      for (size_t n = 0; n < kStreamBytes; ++n) crc = crc >> 8 ^ kTables[0][crc & 0xff];
      shift[byte][i] = crc;
    }
  }
  return shift;
}

const auto kShift = MakeShift();

uint32_t Shift(uint32_t crc) {
  return kShift[0][crc & 0xff] ^ kShift[1][crc >> 8 & 0xff] ^ kShift[2][crc >> 16 & 0xff] ^
         kShift[3][crc >> 24];
}

__attribute__((target("sse4.2"))) uint32_t Crc32cSse42(const void* data, size_t bytes,
                                                       uint32_t before) {
  const auto* in = static_cast<const uint8_t*>(data);
  uint64_t crc = ~before;
  while (bytes >= 3 * kStreamBytes) {
    uint64_t second = 0;
    uint64_t third = 0;
    for (size_t i = 0; i < kStreamBytes; i += 8) {
      crc = _mm_crc32_u64(crc, LoadLittle<uint64_t>(in + i));
      second = _mm_crc32_u64(second, LoadLittle<uint64_t>(in + kStreamBytes + i));
      third = _mm_crc32_u64(third, LoadLittle<uint64_t>(in + 2 * kStreamBytes + i));
    }
    crc = Shift(Shift(static_cast<uint32_t>(crc)) ^ static_cast<uint32_t>(second)) ^ third;
    in += 3 * kStreamBytes;
    bytes -= 3 * kStreamBytes;
  }
  for (; bytes >= 8; in += 8, bytes -= 8) crc = _mm_crc32_u64(crc, LoadLittle<uint64_t>(in));
  auto narrow = static_cast<uint32_t>(crc);
  for (; bytes > 0; ++in, --bytes) narrow = _mm_crc32_u8(narrow, *in);
  return ~narrow;
}

const bool kAccelerated = [] {
  __builtin_cpu_init();
  return __builtin_cpu_supports("sse4.2") != 0;
}();

#else

constexpr bool kAccelerated = false;

#endif

}  // namespace

uint32_t Crc32cPortable(const void* data, size_t bytes, uint32_t before) {
  const auto* in = static_cast<const uint8_t*>(data);
  uint32_t crc = ~before;
  for (; bytes >= 8; in += 8, bytes -= 8) {
    const uint64_t word = LoadLittle<uint64_t>(in) ^ crc;
    crc = 0;
    for (size_t i = 0; i < 8; ++i) crc ^= kTables[7 - i][word >> (8 * i) & 0xff];
  }
  for (; bytes > 0; ++in, --bytes) crc = crc >> 8 ^ kTables[0][(crc ^ *in) & 0xff];
  return ~crc;
}

uint32_t Crc32c(const void* data, size_t bytes, uint32_t before) {
#if defined(__x86_64__)
  if (kAccelerated) return Crc32cSse42(data, bytes, before);
#endif
  return Crc32cPortable(data, bytes, before);
}

void Crc32cBlocks(const void* data, uint64_t offset_bytes, uint32_t length_bytes,
                  uint32_t* checksums) {
  const auto* in = static_cast<const uint8_t*>(data);
  while (length_bytes > 0) {
    const auto room = static_cast<uint32_t>(kBlockBytes - offset_bytes % kBlockBytes);
    const uint32_t part = room < length_bytes ? room : length_bytes;
    *checksums++ = Crc32c(in, part);
    in += part;
    offset_bytes += part;
    length_bytes -= part;
  }
}

bool Crc32cAccelerated() { return kAccelerated; }

}  // namespace ankole
