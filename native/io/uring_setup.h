#pragma once

#include "base/result.h"

struct io_uring;

namespace ankole::io {

// Operations that can be begun before Loop, and in one system call.
inline constexpr unsigned kSubmissionsMax = 512;
inline constexpr unsigned kCompletionsMax = 4096;

// Makes a ring for one thread with the flags that this kernel takes. `enabled`: false when
// io_uring_enable_rings has to be called, by the thread that will use it.
Status SetUpRing(io_uring* ring, bool* enabled);

}  // namespace ankole::io
