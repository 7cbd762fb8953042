#pragma once

namespace ankole {

// Reports a broken invariant of our own and ends the process. Never for bytes that a peer, a disk
// or a user sent: those are answered by a Status.
[[noreturn]] void CheckFailed(const char* expression, const char* file, int line);

}  // namespace ankole

// Stays on in release builds.
#define CHECK(expression)                                     \
  do {                                                        \
    if (!(expression)) [[unlikely]]                           \
      ::ankole::CheckFailed(#expression, __FILE__, __LINE__); \
  } while (0)
