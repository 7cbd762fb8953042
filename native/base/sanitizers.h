#pragma once

// ANKOLE_ASAN and ANKOLE_TSAN: which sanitizer this is built with, as gcc and clang say it.

#if defined(__SANITIZE_ADDRESS__)
#define ANKOLE_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define ANKOLE_TSAN 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ANKOLE_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define ANKOLE_TSAN 1
#endif
#endif
