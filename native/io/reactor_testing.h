#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>

#include "base/test.h"
#include "io/reactor.h"

// Bindings of operations to lambdas, for tests only: production code pays for no std::function.
namespace ankole::io {

template <typename T>
struct With : T {
  std::function<void(With&)> then;
  int runs = 0;
  With() {
    this->done = [](Operation* operation) {
      auto& self = *static_cast<With*>(operation);
      ++self.runs;
      if (self.then) self.then(self);
    };
  }
};

int OpenDescriptors();

// Runs `body` on a reactor of each back end in turn and sees that no descriptor leaks. Says so
// where io_uring is not to be had.
void OnEachBackend(const std::function<void(Reactor&)>& body);

// Runs the loop until nothing that was started is in flight.
void RunAll(Reactor& reactor);

void CloseAll(Reactor& reactor, std::initializer_list<Socket> sockets);

Address ParseAddress(const std::string& text);

// Two ends of a connection that went through Listen, Accept and Connect.
struct Pair {
  Socket client;
  Socket server;
};
Pair MakePair(Reactor& reactor, bool unix_path);

// `body` on each back end, over TCP and over a Unix socket.
void OnEachPair(const std::function<void(Reactor&, Pair)>& body);

}  // namespace ankole::io
