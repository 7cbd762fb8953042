#include "io/reactor_testing.h"

#include <dirent.h>

#include <cstdio>

namespace ankole::io {

int OpenDescriptors() {
  DIR* const directory = opendir("/proc/self/fd");
  int count = 0;
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

void OnEachBackend(const std::function<void(Reactor&)>& body) {
  const std::string directory = test::TemporaryDirectory();
  for (const Backend backend : {Backend::kEpoll, Backend::kUring}) {
    const int before = OpenDescriptors();
    auto made = MakeReactor({.backend = backend, .probe_directory = directory});
    if (!made.ok()) {
      if (backend == Backend::kEpoll) test::Fail(__FILE__, __LINE__, made.status().message());
      std::printf("    left out: %s\n", made.status().message().c_str());
      continue;
    }
    auto reactor = made.Take();
    body(*reactor);
    reactor.reset();
    if (OpenDescriptors() != before) {
      test::Fail(__FILE__, __LINE__,
                 std::string("descriptors leaked with ") + BackendName(backend));
    }
  }
}

void RunAll(Reactor& reactor) {
  reactor.Stop();
  reactor.Loop();
}

void CloseAll(Reactor& reactor, std::initializer_list<Socket> sockets) {
  With<CloseOperation> operations[8];
  size_t count = 0;
  for (const Socket& socket : sockets) {
    operations[count].socket = socket;
    reactor.Close(&operations[count++]);
  }
  RunAll(reactor);
}

Address ParseAddress(const std::string& text) { return Address::Parse(text).Take(); }

Pair MakePair(Reactor& reactor, bool unix_path) {
  const std::string path = test::TemporaryDirectory() + "/socket";
  Address bound;
  auto listener =
      reactor.Listen(ParseAddress(unix_path ? "unix:" + path : "tcp:127.0.0.1:0"), &bound);
  CHECK(listener.ok());
  With<AcceptOperation> accept;
  accept.listener = listener.value();
  With<ConnectOperation> connect;
  connect.address = bound;
  reactor.Accept(&accept);
  reactor.Connect(&connect);
  RunAll(reactor);
  CHECK(accept.result == 0 && connect.result == 0);
  CloseAll(reactor, {listener.value()});
  return {connect.socket, accept.accepted};
}

void OnEachPair(const std::function<void(Reactor&, Pair)>& body) {
  OnEachBackend([&](Reactor& reactor) {
    for (const bool unix_path : {false, true}) body(reactor, MakePair(reactor, unix_path));
  });
}

}  // namespace ankole::io
