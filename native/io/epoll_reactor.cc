#include "io/epoll_reactor.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/units.h"
#include "io/file_work.h"
#include "io/reactor_common.h"
#include "io/socket_table.h"

namespace ankole::io {
namespace {

constexpr int kEventsMax = 256;
constexpr uint32_t kBroken = EPOLLERR | EPOLLHUP | EPOLLRDHUP;

// A socket is registered once, by edge, for reading; for writing only once its buffer was full, as
// a Unix socket reports room each time that the peer takes something. Sockets may be in blocking
// mode: each call says MSG_DONTWAIT.
struct EpollSocket : TableSocket {
  // Whether the next attempt may give something: set by events, cleared by EAGAIN or a short read.
  bool readable = false;
  bool writable = true;
  // The peer has closed, wholly or in part, or the socket has failed: no more edges come.
  bool broken = false;
  bool watches_room = false;
  ReceiveOperation* receive = nullptr;
  SendOperation* send = nullptr;
  AcceptOperation* accept = nullptr;
  AwaitOperation* await = nullptr;
  bool rung = false;  // while nobody awaited it
  CommonReactor::Connecting* connecting = nullptr;
};

class EpollReactor final : public CommonReactor {
 public:
  EpollReactor(BackendChoice choice, int pool_threads)
      : CommonReactor(std::move(choice), pool_threads) {}
  ~EpollReactor() override {
    if (epoll_fd_ >= 0) close(epoll_fd_);
  }

  Status Open() {
    if (mailbox_.fd() < 0) return Status::FromErrno(errno, "eventfd");
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd_ < 0) return Status::FromErrno(errno, "epoll_create1");
    epoll_event event = {.events = EPOLLIN | EPOLLET, .data = {.ptr = nullptr}};
    if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, mailbox_.fd(), &event) < 0) {
      return Status::FromErrno(errno, "epoll_ctl");
    }
    return {};
  }

  Result<Socket> Listen(const Address& address, Address* bound) override {
    Result<Socket> opened = OpenListener(address, bound);
    if (!opened.ok()) return opened;
    int error;
    EpollSocket* const socket = Get(opened.value().fd, &error);
    if (socket == nullptr) {
      close(opened.value().fd);
      return Status::FromErrno(-error, address.ToString() + ": listen");
    }
    if (address.unix_path) socket->unlink_path = address.host;
    return opened;
  }

  void Accept(AcceptOperation* operation) override {
    Begin(operation, kAccept);
    operation->accepted = {};
    int error;
    EpollSocket* const socket = Get(operation->listener.fd, &error);
    if (socket == nullptr) return Complete(operation, error);
    CHECK(socket->accept == nullptr);
    // Else the call blocks when the one who knocked has gone again.
    if (!socket->listener) SetNonBlocking(socket->fd, true);
    socket->listener = true;
    socket->accept = operation;
    if (socket->readable) TryAccept(socket);
  }

  void Receive(ReceiveOperation* operation) override {
    Begin(operation, kReceive);
    CHECK(TotalBytes(operation->vectors, operation->vectors_count) > 0);
    operation->descriptor = -1;
    int error;
    EpollSocket* const socket = Get(operation->socket.fd, &error);
    if (socket == nullptr) return Complete(operation, error);
    CHECK(socket->receive == nullptr);
    socket->receive = operation;
    if (socket->readable) TryReceive(socket);
  }

  void Send(SendOperation* operation) override {
    Begin(operation, kSend);
    int error;
    EpollSocket* const socket = Get(operation->socket.fd, &error);
    if (socket == nullptr) return Complete(operation, error);
    CHECK(socket->send == nullptr);
    socket->send = operation;
    if (socket->writable) TrySend(socket);
  }

  void Await(AwaitOperation* operation) override {
    Begin(operation, kAwait);
    int error;
    EpollSocket* const socket = Get(operation->doorbell.fd, &error);
    if (socket == nullptr) return Complete(operation, error);
    CHECK(socket->await == nullptr);
    socket->await = operation;
    if (socket->rung) Rung(socket);
  }

  void Close(CloseOperation* operation) override {
    Begin(operation, kClose);
    int error;
    EpollSocket* const socket = Get(operation->socket.fd, &error);
    CHECK(error != -ECANCELED);  // closed twice
    if (socket != nullptr) {
      socket->closing = true;
      CompleteAnd(&socket->accept, -ECANCELED);
      CompleteAnd(&socket->await, -ECANCELED);
      CompleteAnd(&socket->receive, -ECANCELED);
      CompleteAnd(&socket->send, -ECANCELED);
    }
    Complete(operation, 0);
  }

 protected:
  void FinishClose(CloseOperation* operation) override {
    const int fd = operation->socket.fd;
    // Taken out by name: another process may hold the socket too, and then closing does not.
    (void)epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
    if (close(fd) < 0 && errno == EBADF) operation->result = -EBADF;
    sockets_.Remove(fd);
  }

  void StartBlockingFile(FileOperation* operation) override { ToPool(operation); }

  void StartConnect(Connecting* connecting) override {
    SetNonBlocking(connecting->fd, true);
    const SocketAddress& to = connecting->address();
    if (connect(connecting->fd, to.get(), to.bytes) == 0) return ConnectFinished(connecting, 0);
    if (errno != EINPROGRESS && errno != EINTR) return ConnectFinished(connecting, -errno);
    int error;
    EpollSocket* const socket = Get(connecting->fd, &error);
    if (socket == nullptr) return ConnectFinished(connecting, error);
    socket->connecting = connecting;
    socket->writable = false;
    WatchRoom(socket, true);
  }

  void StopConnect(Connecting* connecting) override {
    DropConnect(connecting->fd);
    ConnectFinished(connecting, -ECANCELED);
  }

  void Poll(int64_t timeout_ns) override {
    epoll_event events[kEventsMax];
    const int count = Wait(events, timeout_ns);
    // No callback runs in here, so that nothing in `events` can be closed meanwhile.
    for (int i = 0; i < count; ++i) {
      auto* const socket = static_cast<EpollSocket*>(events[i].data.ptr);
      if (socket != nullptr) Handle(socket, events[i].events);
    }
  }

 private:
  // The socket's entry, made and registered at its first use. Null with a negative errno when it is
  // being closed or cannot be watched.
  EpollSocket* Get(int fd, int* error) {
    *error = -EBADF;
    if (fd < 0) return nullptr;
    EpollSocket* socket = sockets_.Find(fd);
    if (socket != nullptr) {
      *error = socket->closing ? -ECANCELED : 0;
      return socket->closing ? nullptr : socket;
    }
    socket = sockets_.Add(fd);
    epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data = {.ptr = socket}};
    if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) < 0) {
      *error = -errno;
      sockets_.Remove(fd);
      return nullptr;
    }
    *error = 0;
    return socket;
  }

  template <typename T>
  void CompleteAnd(T** operation, int64_t result) {
    if (*operation == nullptr) return;
    T* const completed = *operation;
    *operation = nullptr;
    Complete(completed, result);
  }

  int Wait(epoll_event* events, int64_t timeout_ns) {
    if (timeout_ns > 0 && exact_timeouts_) {
      const timespec timeout = {.tv_sec = timeout_ns / static_cast<int64_t>(kNsPerSecond),
                                .tv_nsec = timeout_ns % static_cast<int64_t>(kNsPerSecond)};
      const long count =
          syscall(SYS_epoll_pwait2, epoll_fd_, events, kEventsMax, &timeout, nullptr, size_t{0});
      if (count >= 0 || errno == EINTR) return static_cast<int>(count);
      exact_timeouts_ = false;  // before Linux 5.11, or not allowed here
    }
    const int timeout_ms =
        timeout_ns <= 0 ? static_cast<int>(timeout_ns)
                        : static_cast<int>(DivideUp(static_cast<uint64_t>(timeout_ns), kNsPerMs));
    const int count = epoll_wait(epoll_fd_, events, kEventsMax, timeout_ms);
    CHECK(count >= 0 || errno == EINTR);
    return count;
  }

  void Handle(EpollSocket* socket, uint32_t events) {
    if (socket->connecting != nullptr) {
      if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) FinishConnect(socket);
      return;
    }
    if (events & kBroken) socket->broken = true;
    if (events & (EPOLLIN | kBroken)) {
      socket->readable = true;
      if (socket->receive != nullptr) TryReceive(socket);
      if (socket->accept != nullptr) TryAccept(socket);
      // By edge: each ring is an event, and the counter is never read.
      socket->rung = true;
      if (socket->await != nullptr) Rung(socket);
    }
    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
      socket->writable = true;
      if (socket->send != nullptr) {
        TrySend(socket);
      } else if (socket->watches_room) {
        WatchRoom(socket, false);
      }
    }
  }

  void Rung(EpollSocket* socket) {
    socket->rung = false;
    CompleteAnd(&socket->await, 0);
  }

  // Sets whether events tell of room to write. Setting it reports room that is there already.
  void WatchRoom(EpollSocket* socket, bool watch) {
    epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET | (watch ? EPOLLOUT : 0u),
                         .data = {.ptr = socket}};
    CHECK(epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, socket->fd, &event) == 0);
    socket->watches_room = watch;
  }

  void TryReceive(EpollSocket* socket) {
    ReceiveOperation* const operation = socket->receive;
    ssize_t got;
    do {
      if (operation->vectors_count == 1 && !operation->accept_descriptor) {
        got = recv(socket->fd, operation->vectors[0].iov_base, operation->vectors[0].iov_len,
                   MSG_DONTWAIT);
      } else {
        ControlBuffer control;
        msghdr header;
        FillReceiveHeader(operation, &control, &header);
        got = recvmsg(socket->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got >= 0) TakeDescriptors(&header, operation);
      }
    } while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN) {
      socket->readable = false;
      return;
    }
    const int64_t result = got < 0 ? -errno : got;
    // A short read has emptied the buffer and the next byte is a new edge. Not so where the peer's
    // end is behind the data, as that edge is spent, nor where the read ended at a descriptor.
    if (got > 0 && !socket->broken && !operation->accept_descriptor &&
        static_cast<uint64_t>(got) < TotalBytes(operation->vectors, operation->vectors_count)) {
      socket->readable = false;
    }
    CompleteAnd(&socket->receive, result);
  }

  void TrySend(EpollSocket* socket) {
    SendOperation* const operation = socket->send;
    for (;;) {
      ControlBuffer control;
      msghdr header;
      FillSendHeader(operation, &control, &header);
      const ssize_t put = sendmsg(socket->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0 && errno == EAGAIN) {
        socket->writable = false;
        // Room that came since is an edge already, or is reported by this.
        if (!socket->watches_room) WatchRoom(socket, true);
        return;
      }
      if (put < 0) return CompleteAnd(&socket->send, -errno);
      if (AdvanceSend(operation, static_cast<size_t>(put))) {
        return CompleteAnd(&socket->send, operation->result);
      }
    }
  }

  void TryAccept(EpollSocket* socket) {
    AcceptOperation* const operation = socket->accept;
    for (;;) {
      SocketAddress peer;
      peer.bytes = sizeof(peer.storage);
      const int fd = accept4(socket->fd, peer.get(), &peer.bytes, SOCK_CLOEXEC);
      if (fd >= 0) {
        SetStreamOptions(fd, peer.storage.ss_family);
        operation->accepted.fd = fd;
        operation->peer = PeerName(fd, peer);
        return CompleteAnd(&socket->accept, 0);
      }
      if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
      if (errno != EAGAIN) return CompleteAnd(&socket->accept, -errno);
      socket->readable = false;
      return;
    }
  }

  void DropConnect(int fd) {
    (void)epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
    sockets_.Remove(fd);
  }

  void FinishConnect(EpollSocket* socket) {
    Connecting* const connecting = socket->connecting;
    int error = 0;
    socklen_t bytes = sizeof(error);
    if (getsockopt(socket->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0) error = errno;
    // What follows registers anew, and hears of data that is there already.
    DropConnect(socket->fd);
    ConnectFinished(connecting, -error);
  }

  int epoll_fd_ = -1;
  bool exact_timeouts_ = true;
  SocketTable<EpollSocket> sockets_;
};

}  // namespace

Result<std::unique_ptr<Reactor>> MakeEpollReactor(BackendChoice choice, int pool_threads) {
  auto reactor = std::make_unique<EpollReactor>(std::move(choice), pool_threads);
  RETURN_IF_ERROR(reactor->Open());
  return std::unique_ptr<Reactor>(std::move(reactor));
}

}  // namespace ankole::io
