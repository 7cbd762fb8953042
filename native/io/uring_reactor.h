#pragma once

#include <memory>
#include <string>

#include "io/reactor.h"

namespace ankole::io {

// Tries the kernel's io_uring: the operations that are needed, and one real write, read and fsync
// of a file in `directory` (of an anonymous one, when it is empty). kUnsupported with what failed.
Status ProbeUring(const std::string& directory);
Result<std::unique_ptr<Reactor>> MakeUringReactor(BackendChoice choice, int pool_threads);

}  // namespace ankole::io
