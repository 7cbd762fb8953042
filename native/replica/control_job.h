#pragma once

#include <functional>

#include "io/reactor.h"

namespace ankole::replica {

// Runs `work` on a pool thread, then `then` on the reactor's. For the rare things: it allocates.
void RunControlJob(io::Reactor& reactor, std::function<void()> work, std::function<void()> then);

}  // namespace ankole::replica
