#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

// Integers to and from bytes that are not aligned and not ours. By memcpy only: a cast of a byte
// pointer is undefined and has given wrong checksums at -O2.
namespace ankole {

static_assert(std::endian::native == std::endian::little, "big-endian machines need byte swaps");

template <typename T>
T LoadLittle(const void* from) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <typename T>
void StoreLittle(void* to, T value) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(to, &value, sizeof(T));
}

inline uint16_t LoadBig16(const void* from) {
  return __builtin_bswap16(LoadLittle<uint16_t>(from));
}
inline uint32_t LoadBig32(const void* from) {
  return __builtin_bswap32(LoadLittle<uint32_t>(from));
}
inline uint64_t LoadBig64(const void* from) {
  return __builtin_bswap64(LoadLittle<uint64_t>(from));
}
inline void StoreBig16(void* to, uint16_t value) { StoreLittle(to, __builtin_bswap16(value)); }
inline void StoreBig32(void* to, uint32_t value) { StoreLittle(to, __builtin_bswap32(value)); }
inline void StoreBig64(void* to, uint64_t value) { StoreLittle(to, __builtin_bswap64(value)); }

}  // namespace ankole
