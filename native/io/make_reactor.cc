#include "io/epoll_reactor.h"
#include "io/reactor.h"
#include "io/uring_reactor.h"

namespace ankole::io {

Result<Backend> ParseBackend(const std::string& name) {
  for (const Backend backend : {Backend::kAuto, Backend::kUring, Backend::kEpoll}) {
    if (name == BackendName(backend)) return backend;
  }
  return Status(ErrorCode::kInvalidArgument,
                "I/O back end \"" + name + "\": expected auto, uring or epoll");
}

const char* BackendName(Backend backend) {
  switch (backend) {
    case Backend::kAuto:
      return "auto";
    case Backend::kUring:
      return "uring";
    case Backend::kEpoll:
      return "epoll";
  }
  return "unknown";
}

Result<std::unique_ptr<Reactor>> MakeReactor(const ReactorOptions& options) {
  if (options.backend == Backend::kEpoll) {
    return MakeEpollReactor({Backend::kEpoll, "asked for"}, options.pool_threads);
  }
  if (options.backend == Backend::kAuto && options.sockets_only) {
    return MakeEpollReactor(
        {Backend::kEpoll,
         "there are only sockets to serve, and it takes less processor time for "
         "large data on those"},
        options.pool_threads);
  }
  Status status = ProbeUring(options.probe_directory);
  if (status.ok()) {
    // Preferred, as measured by io_bench: where the page cache serves, both cost the same within
    // the noise; where the disk does, io_uring takes a quarter of the processor time an I/O.
    const bool asked = options.backend == Backend::kUring;
    auto reactor = MakeUringReactor(
        {Backend::kUring, asked ? "asked for, and its probe passed"
                                : "its probe passed, and it takes less processor time where the "
                                  "disk is read and written"},
        options.pool_threads);
    if (reactor.ok()) return reactor;
    status = reactor.status();
  }
  if (options.backend == Backend::kUring) {
    return Status(ErrorCode::kUnsupported, "io_uring cannot be used: " + status.message());
  }
  return MakeEpollReactor({Backend::kEpoll, "io_uring cannot be used: " + status.message()},
                          options.pool_threads);
}

}  // namespace ankole::io
