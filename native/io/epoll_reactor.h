#pragma once

#include <memory>

#include "io/reactor.h"

namespace ankole::io {

Result<std::unique_ptr<Reactor>> MakeEpollReactor(BackendChoice choice, int pool_threads);

}  // namespace ankole::io
