#pragma once

#include <cerrno>
#include <cstring>
#include <sstream>
#include <string>
#include <type_traits>

// The native tests' own small harness: TEST registers, EXPECT goes on, ASSERT ends the test.
namespace ankole::test {

using Function = void (*)();
struct Registration {
  Registration(const char* suite, const char* name, Function function);
};
void Fail(const char* file, int line, const std::string& message);
// Ends the running test as skipped, with the reason printed. Followed by `return` at the caller.
void Skip(const std::string& reason);
// A fresh empty directory, removed when the test ends.
std::string TemporaryDirectory();
// A number that is fixed for a run and printed on failure (ANKOLE_TEST_SEED sets it).
unsigned long Seed();

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

template <typename T>
std::string Show(const T& value) {
  if constexpr (std::is_enum_v<T>) {
    return std::to_string(static_cast<long long>(value));
  } else {
    std::ostringstream out;
    out << value;
    return out.str();
  }
}

}  // namespace ankole::test

#define TEST(suite, name)                                                                         \
  static void Test_##suite##_##name();                                                            \
  static const ::ankole::test::Registration registration_##suite##_##name(#suite, #name,          \
                                                                          Test_##suite##_##name); \
  static void Test_##suite##_##name()

#define EXPECT(condition)                                                                \
  do {                                                                                   \
    if (!(condition)) ::ankole::test::Fail(__FILE__, __LINE__, "not true: " #condition); \
  } while (0)

#define ASSERT(condition)                                                \
  do {                                                                   \
    if (!(condition)) {                                                  \
      ::ankole::test::Fail(__FILE__, __LINE__, "not true: " #condition); \
      return;                                                            \
    }                                                                    \
  } while (0)

#define EXPECT_EQ(actual, expected)                                                           \
  do {                                                                                        \
    const auto actual_value = (actual);                                                       \
    const auto expected_value = (expected);                                                   \
    if (!(actual_value == expected_value))                                                    \
      ::ankole::test::Fail(__FILE__, __LINE__,                                                \
                           std::string(#actual " is ") + ::ankole::test::Show(actual_value) + \
                               ", expected " + ::ankole::test::Show(expected_value));         \
  } while (0)

// For Status and Result: prints the message.
#define ASSERT_OK(expression)                                                                 \
  do {                                                                                        \
    const auto& outcome = (expression);                                                       \
    if (!outcome.ok()) {                                                                      \
      ::ankole::test::Fail(__FILE__, __LINE__,                                                \
                           std::string(#expression ": ") + ::ankole::test::Message(outcome)); \
      return;                                                                                 \
    }                                                                                         \
  } while (0)

namespace ankole::test {
template <typename T>
std::string Message(const T& outcome) {
  if constexpr (requires { outcome.message(); }) {
    return outcome.message();
  } else {
    return outcome.status().message();
  }
}
}  // namespace ankole::test
