#pragma once

#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

namespace ankole::io {

// What both back ends know of a socket.
struct TableSocket {
  int fd = -1;
  bool closing = false;
  bool listener = false;
  std::string unlink_path;  // a listener's Unix socket file, removed with it
};

// Sockets by descriptor. Memory is taken when a socket comes, never for an operation.
template <typename T>
class SocketTable {
 public:
  T* Find(int fd) const {
    const auto index = static_cast<size_t>(fd);
    return index < sockets_.size() ? sockets_[index].get() : nullptr;
  }
  T* Add(int fd) {
    const auto index = static_cast<size_t>(fd);
    if (index >= sockets_.size()) sockets_.resize(index + 1);
    sockets_[index] = std::make_unique<T>();
    sockets_[index]->fd = fd;
    return sockets_[index].get();
  }
  void Remove(int fd) {
    T* const socket = Find(fd);
    if (socket == nullptr) return;
    if (!socket->unlink_path.empty()) (void)unlink(socket->unlink_path.c_str());
    sockets_[static_cast<size_t>(fd)].reset();
  }

 private:
  std::vector<std::unique_ptr<T>> sockets_;
};

}  // namespace ankole::io
