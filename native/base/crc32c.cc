#include "base/crc32c.h"

#include <array>

#include "base/bytes.h"

#if defined(__x86_64__)
#include <immintrin.h>
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

// `crc` and what it returns are not inverted.
__attribute__((target("sse4.2"))) uint32_t Sse42(uint64_t crc, const uint8_t* in, size_t bytes) {
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
  return narrow;
}

// x to that power modulo the polynomial, bits reversed.
constexpr uint64_t PowerOfX(size_t power) {
  uint32_t value = 0x80000000;
  for (; power > 0; --power) value = (value & 1) != 0 ? value >> 1 ^ kPolynomial : value >> 1;
  return value;
}

// Multiplied by these, the low and the high half of 128 bits move on by so many bits, and are 128
// bits again. One more than the product of two numbers whose bits are reversed needs, as that is
// shifted by one.
constexpr int64_t FoldLow(size_t bits) { return static_cast<int64_t>(PowerOfX(bits + 31)); }
constexpr int64_t FoldHigh(size_t bits) { return static_cast<int64_t>(PowerOfX(bits - 33)); }

#define ANKOLE_AVX512 __attribute__((target("avx512f,avx512vl,pclmul,vpclmulqdq,sse4.2")))

// `x` moved on by what `k` says, and `next` added.
ANKOLE_AVX512 inline __m512i Fold(__m512i x, __m512i k, __m512i next) {
  const __m512i low = _mm512_clmulepi64_epi128(x, k, 0x00);
  const __m512i high = _mm512_clmulepi64_epi128(x, k, 0x11);
  constexpr int kExclusiveOr = 0x96;
  return _mm512_ternarylogic_epi64(low, high, next, kExclusiveOr);
}

// Four times 64 bytes side by side, by carry-less multiplication (Gopal et al., «Fast CRC
// Computation for Generic Polynomials Using PCLMULQDQ», Intel 2009): half the time that three
// streams of the checksum's own instruction take.
constexpr size_t kFoldedBytes = 256;
ANKOLE_AVX512 uint32_t Avx512(uint32_t crc, const uint8_t* in, size_t bytes) {
  __m512i x0 = _mm512_loadu_si512(in);
  __m512i x1 = _mm512_loadu_si512(in + 64);
  __m512i x2 = _mm512_loadu_si512(in + 128);
  __m512i x3 = _mm512_loadu_si512(in + 192);
  const __m128i first = _mm_cvtsi32_si128(static_cast<int>(crc));
  x0 = _mm512_xor_si512(x0, _mm512_inserti32x4(_mm512_setzero_si512(), first, 0));
  __m512i k = _mm512_set4_epi64(FoldHigh(2048), FoldLow(2048), FoldHigh(2048), FoldLow(2048));
  for (in += kFoldedBytes, bytes -= kFoldedBytes; bytes >= kFoldedBytes;
       in += kFoldedBytes, bytes -= kFoldedBytes) {
    x0 = Fold(x0, k, _mm512_loadu_si512(in));
    x1 = Fold(x1, k, _mm512_loadu_si512(in + 64));
    x2 = Fold(x2, k, _mm512_loadu_si512(in + 128));
    x3 = Fold(x3, k, _mm512_loadu_si512(in + 192));
  }
  k = _mm512_set4_epi64(FoldHigh(512), FoldLow(512), FoldHigh(512), FoldLow(512));
  x0 = Fold(Fold(Fold(x0, k, x1), k, x2), k, x3);
  // The first three of four times 128 bits onto the last one.
  k = _mm512_set_epi64(0, 0, FoldHigh(128), FoldLow(128), FoldHigh(256), FoldLow(256),
                       FoldHigh(384), FoldLow(384));
  const __m512i last = _mm512_maskz_mov_epi64(0xc0, x0);
  x0 = Fold(x0, k, last);
  alignas(64) uint64_t words[8];
  _mm512_store_si512(words, x0);
  uint64_t rest = _mm_crc32_u64(0, words[0] ^ words[2] ^ words[4] ^ words[6]);
  rest = _mm_crc32_u64(rest, words[1] ^ words[3] ^ words[5] ^ words[7]);
  return Sse42(rest, in, bytes);
}

const bool kAccelerated = [] {
  __builtin_cpu_init();
  return __builtin_cpu_supports("sse4.2") != 0;
}();

const bool kFolds = [] {
  __builtin_cpu_init();
  return __builtin_cpu_supports("sse4.2") != 0 && __builtin_cpu_supports("pclmul") != 0 &&
         __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
         __builtin_cpu_supports("vpclmulqdq") != 0;
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
  const auto* in = static_cast<const uint8_t*>(data);
  if (kFolds && bytes >= kFoldedBytes) return ~Avx512(~before, in, bytes);
  if (kAccelerated) return ~Sse42(~before, in, bytes);
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
