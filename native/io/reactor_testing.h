#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/test.h"
#include "io/reactor.h"

// Small bindings of operations to lambdas, for tests only: production code pays for no
// std::function.
namespace ankole::io {

template <typename T>
struct With : T {
  std::function<void(With&)> then;
  With() {
    this->done = [](Operation* operation) {
      auto& self = *static_cast<With*>(static_cast<T*>(operation));
      ++self.runs;
      if (self.then) self.then(self);
    };
  }
  int runs = 0;
};

// Runs `body` on a reactor of each back end in turn; skips with the reason where io_uring is not to
// be had and the test is for it alone.
inline void OnEachBackend(const std::function<void(Reactor&)>& body) {
  for (const Backend backend : {Backend::kEpoll, Backend::kUring}) {
    auto made = MakeReactor({.backend = backend, .probe_directory = test::TemporaryDirectory()});
    if (!made.ok()) {
      if (backend == Backend::kEpoll) {
        test::Fail(__FILE__, __LINE__, made.status().message());
      } else {
        std::printf("    without io_uring: %s\n", made.status().message().c_str());
      }
      continue;
    }
    const auto reactor = made.Take();
    body(*reactor);
  }
}

// Runs the loop until `done` says so, at most 20 s.
inline bool RunUntil(Reactor& reactor, const std::function<bool()>& finished) {
  With<Timer> tick;
  bool in_time = true;
  const uint64_t end_ns = reactor.NowNs() + 20'000'000'000;
  tick.then = [&](auto&) {
    if (finished() || reactor.NowNs() > end_ns) {
      in_time = finished();
      reactor.Stop();
      return;
    }
    reactor.Arm(&tick, reactor.NowNs() + 200'000);
  };
  reactor.Arm(&tick, 0);
  reactor.Loop();
  return in_time;
}

}  // namespace ankole::io
