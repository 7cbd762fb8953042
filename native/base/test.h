#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/sanitizers.h"

namespace ankole {
class Status;
}

// The native tests' own small harness: TEST registers, EXPECT goes on, ASSERT ends the test.
namespace ankole::test {

using Function = void (*)();
struct Registration {
  Registration(const char* suite, const char* name, Function function);
};
[[gnu::cold]] void Fail(const char* file, int line, std::string_view message);
// Ends the running test as skipped, with the reason printed. Followed by `return` at the caller.
void Skip(const std::string& reason);
// A fresh empty directory, removed when the test ends.
std::string TemporaryDirectory();
// A number that is fixed for a run and printed on failure (ANKOLE_TEST_SEED sets it).
unsigned long Seed();

// Of the points at which something is cut each kStride-th is done (a prime number, so that odd and
// even ones are), of the steps of random histories one part of kShare. All of them as built for
// release; AddressSanitizer sees the same code at a part of them, and ThreadSanitizer, which is
// after how threads meet and takes thirty times as long, at fewer.
#if defined(ANKOLE_TSAN)
inline constexpr int kStride = 31;
inline constexpr int kShare = 7;
#elif defined(ANKOLE_ASAN)
inline constexpr int kStride = 5;
inline constexpr int kShare = 3;
#else
inline constexpr int kStride = 1;
inline constexpr int kShare = 1;
#endif

// Repeats a system call that was interrupted. A blocking one on a socket with a timeout is, also
// where no signal is handled: when a worker that io_uring started for the thread ends after its
// 5 s of rest, the kernel says so to the thread.
template <typename Call>
auto Uninterrupted(const Call& call) {
  while (true) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

// A value as a failure shows it. Refers to the text that it is made of.
class Shown {
 public:
  template <typename T>
  Shown(const T& value) {  // NOLINT: implicit
    if constexpr (std::is_enum_v<T>) {
      kind_ = Kind::kSigned;
      number_ = static_cast<uint64_t>(value);
    } else if constexpr (std::is_integral_v<T>) {
      kind_ = sizeof(T) == 1 && !std::is_same_v<T, bool> ? Kind::kCharacter
              : std::is_signed_v<T>                      ? Kind::kSigned
                                                         : Kind::kUnsigned;
      number_ = static_cast<uint64_t>(value);
    } else if constexpr (std::is_floating_point_v<T>) {
      kind_ = Kind::kReal;
      real_ = static_cast<double>(value);
    } else {
      kind_ = Kind::kText;
      text_ = value;
    }
  }
  std::string ToString() const;

 private:
  enum class Kind : uint8_t { kSigned, kUnsigned, kCharacter, kReal, kText };
  Kind kind_;
  uint64_t number_ = 0;
  double real_ = 0;
  std::string_view text_;
};

// What the macros do with what is wrong, out of line: they stand at thousands of places.
[[gnu::cold]] void NotTrue(const char* file, int line, const char* text);
[[gnu::cold]] void NotEqual(const char* file, int line, const char* text, const Shown& actual,
                            const Shown& expected);
[[gnu::cold]] void NotOk(const char* file, int line, const char* text, const Status& outcome);
template <typename T>
void NotOk(const char* file, int line, const char* text, const T& result) {
  NotOk(file, line, text, result.status());
}

}  // namespace ankole::test

#define TEST(suite, name)                                                                         \
  static void Test_##suite##_##name();                                                            \
  static const ::ankole::test::Registration registration_##suite##_##name(#suite, #name,          \
                                                                          Test_##suite##_##name); \
  static void Test_##suite##_##name()

#define EXPECT(condition)                                                      \
  do {                                                                         \
    if (!(condition)) ::ankole::test::NotTrue(__FILE__, __LINE__, #condition); \
  } while (0)

#define ASSERT(condition)                                      \
  do {                                                         \
    if (!(condition)) {                                        \
      ::ankole::test::NotTrue(__FILE__, __LINE__, #condition); \
      return;                                                  \
    }                                                          \
  } while (0)

#define EXPECT_EQ(actual, expected)                                                        \
  do {                                                                                     \
    const auto actual_value = (actual);                                                    \
    const auto expected_value = (expected);                                                \
    if (!(actual_value == expected_value))                                                 \
      ::ankole::test::NotEqual(__FILE__, __LINE__, #actual, actual_value, expected_value); \
  } while (0)

// For Status and Result: prints the message.
#define ASSERT_OK(expression)                                          \
  do {                                                                 \
    const auto& outcome = (expression);                                \
    if (!outcome.ok()) {                                               \
      ::ankole::test::NotOk(__FILE__, __LINE__, #expression, outcome); \
      return;                                                          \
    }                                                                  \
  } while (0)
