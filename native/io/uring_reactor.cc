#include "io/uring_reactor.h"

#ifdef ANKOLE_HAVE_LIBURING

#include <liburing.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/units.h"
#include "io/file_work.h"
#include "io/reactor_common.h"
#include "io/socket_table.h"
#include "io/uring_setup.h"

namespace ankole::io {
namespace {

// What a completion is for, in the low bits of user_data. Operations and connects are aligned.
enum Tag : uint64_t { kTagOperation = 0, kTagConnect = 1, kTagCancelSocket = 2, kTagOther = 3 };
constexpr uint64_t kTagMask = 3;
constexpr uint64_t kUserDataWake = kTagOther;         // the mailbox's eventfd
constexpr uint64_t kUserDataIgnored = 4 | kTagOther;  // nobody waits for it

struct UringSocket : TableSocket {
  // The last receive left data behind: the next one is tried at once, else the kernel waits first.
  bool more = true;
  bool cancelling = false;  // a cancel of everything on the descriptor is under way
  ReceiveOperation* receive = nullptr;
  SendOperation* send = nullptr;
  AcceptOperation* accept = nullptr;
  CloseOperation* close = nullptr;
  // A doorbell's: polled from the first Await to the end, by the operation's name.
  AwaitOperation* polled = nullptr;
  bool awaited = false;
  bool rung = false;  // while nobody awaited it
  // The kernel's while an operation is in flight.
  msghdr receive_header = {};
  msghdr send_header = {};
  ControlBuffer receive_control = {};
  ControlBuffer send_control = {};
  SocketAddress peer;
  bool busy() const {
    return receive != nullptr || send != nullptr || accept != nullptr || polled != nullptr;
  }
};

// One io_uring_enter a turn: it submits what the turn's callbacks began, and waits. Sends and
// cached file I/O are plain calls as long as they do not block: through the ring the same work
// costs as much again in requests and completions, and a completed send would wake the loop only to
// say so.
//
// Sockets are in blocking mode: for those in non-blocking mode some kernels fail a request with
// EAGAIN instead of waiting.
class UringReactor final : public CommonReactor {
 public:
  UringReactor(BackendChoice choice, int pool_threads)
      : CommonReactor(std::move(choice), pool_threads) {}
  ~UringReactor() override {
    // Loop ended with nothing in flight, or never ran and nothing was submitted: the kernel holds
    // no buffer of anybody.
    if (open_) io_uring_queue_exit(&ring_);
  }

  Status Open() {
    if (mailbox_.fd() < 0) return Status::FromErrno(errno, "eventfd");
    RETURN_IF_ERROR(SetUpRing(&ring_, &enabled_));
    open_ = true;
    return {};
  }

  Result<Socket> Listen(const Address& address, Address* bound) override {
    Result<Socket> opened = OpenListener(address, bound);
    if (!opened.ok()) return opened;
    int error;
    UringSocket* const socket = Get(opened.value().fd, &error);
    CHECK(socket != nullptr);
    if (address.unix_path) socket->unlink_path = address.host;
    return opened;
  }

  void Accept(AcceptOperation* operation) override {
    Begin(operation, kAccept);
    operation->accepted = {};
    int error;
    UringSocket* const socket = Get(operation->listener.fd, &error);
    if (socket == nullptr) return Complete(operation, error);
    CHECK(socket->accept == nullptr);
    socket->accept = operation;
    SubmitAccept(socket);
  }

  void Receive(ReceiveOperation* operation) override {
    Begin(operation, kReceive);
    CHECK(TotalBytes(operation->vectors, operation->vectors_count) > 0);
    operation->descriptor = -1;
    int error;
    UringSocket* const socket = Get(operation->socket.fd, &error);
    if (socket == nullptr) return Complete(operation, error);
    CHECK(socket->receive == nullptr);
    socket->receive = operation;
    SubmitReceive(socket);
  }

  void Send(SendOperation* operation) override {
    Begin(operation, kSend);
    int error;
    UringSocket* const socket = Get(operation->socket.fd, &error);
    if (socket == nullptr) return Complete(operation, error);
    CHECK(socket->send == nullptr);
    socket->send = operation;
    for (;;) {
      // The kernel is not at them: no other send is in flight on this socket.
      FillSendHeader(operation, &socket->send_control, &socket->send_header);
      const ssize_t put = sendmsg(socket->fd, &socket->send_header, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0 && errno == EAGAIN) return SubmitSend(socket);
      if (put >= 0 && !AdvanceSend(operation, static_cast<size_t>(put))) continue;
      socket->send = nullptr;
      return Complete(operation, put < 0 ? -errno : operation->result);
    }
  }

  void Await(AwaitOperation* operation) override {
    Begin(operation, kAwait);
    int error;
    UringSocket* const socket = Get(operation->doorbell.fd, &error);
    if (socket == nullptr) return Complete(operation, error);
    CHECK(!socket->awaited && (socket->polled == nullptr || socket->polled == operation));
    socket->awaited = true;
    if (socket->polled == nullptr) {
      SetNonBlocking(socket->fd, true);  // a doorbell is not a socket: to ring it must never block
      socket->polled = operation;
      PollDoorbell(socket);
    } else if (socket->rung) {
      Rung(socket);
    }
  }

  void Close(CloseOperation* operation) override {
    Begin(operation, kClose);
    int error;
    UringSocket* const socket = Get(operation->socket.fd, &error);
    CHECK(error != -ECANCELED);  // closed twice
    if (socket == nullptr || !socket->busy()) {
      if (socket != nullptr) socket->closing = true;
      return Complete(operation, 0);
    }
    socket->closing = true;
    socket->close = operation;
    CancelAll(socket);
  }

 protected:
  void FinishClose(CloseOperation* operation) override {
    const int fd = operation->socket.fd;
    if (close(fd) < 0 && errno == EBADF) operation->result = -EBADF;
    sockets_.Remove(fd);
  }

  void StartBlockingFile(FileOperation* operation) override {
    // The array of vectors has to stay as it is: what is left of several goes to the pool.
    const bool write = operation->kind == kWrite;
    // The kernel would write back at once, and wait for the device, in this thread.
    if (write && operation->once && !operation->direct) return ToPool(operation);
    if (operation->vectors_count != 1 && operation->finished_bytes > 0) return ToPool(operation);
    if (operation->vectors_count < 1) return Complete(operation, 0);
    io_uring_sqe* const sqe = Sqe();
    const int fd = operation->file.fd;
    if (operation->vectors_count == 1) {
      auto* const data = static_cast<char*>(operation->vectors[0].iov_base);
      const size_t done = operation->finished_bytes;
      const auto length = static_cast<unsigned>(operation->vectors[0].iov_len - done);
      if (write) {
        io_uring_prep_write(sqe, fd, data + done, length, operation->offset_bytes + done);
      } else {
        io_uring_prep_read(sqe, fd, data + done, length, operation->offset_bytes + done);
      }
    } else {
      const auto count = static_cast<unsigned>(operation->vectors_count);
      if (write) {
        io_uring_prep_writev(sqe, fd, operation->vectors, count, operation->offset_bytes);
      } else {
        io_uring_prep_readv(sqe, fd, operation->vectors, count, operation->offset_bytes);
      }
    }
    if (write && operation->durable) sqe->rw_flags = RWF_DSYNC;
    if (!write && operation->once && !operation->direct) sqe->rw_flags = kDontCache;
    io_uring_sqe_set_data(sqe, static_cast<Operation*>(operation));
  }

  void StartConnect(Connecting* connecting) override {
    io_uring_sqe* const sqe = Sqe();
    const SocketAddress& to = connecting->address();
    io_uring_prep_connect(sqe, connecting->fd, to.get(), to.bytes);
    io_uring_sqe_set_data64(sqe, reinterpret_cast<uint64_t>(connecting) | kTagConnect);
  }

  void StopConnect(Connecting* connecting) override {
    io_uring_sqe* const sqe = Sqe();
    io_uring_prep_cancel64(sqe, reinterpret_cast<uint64_t>(connecting) | kTagConnect, 0);
    io_uring_sqe_set_data64(sqe, kUserDataIgnored);
  }

  void LoopBegins() override {
    if (!enabled_) {
      // This thread is from now on the only one to submit.
      CHECK(io_uring_enable_rings(&ring_) == 0);
      enabled_ = true;
    }
    // Saves a look-up of the descriptor for each call. For this thread only.
    (void)io_uring_register_ring_fd(&ring_);
    if (!watching_) WatchMailbox();
  }

  void LoopEnds() override {
    (void)io_uring_submit(&ring_);  // what nobody waits for
    (void)io_uring_unregister_ring_fd(&ring_);
  }

  void Poll(int64_t timeout_ns) override {
    int error;
    if (timeout_ns == 0) {
      error = io_uring_submit_and_get_events(&ring_);
    } else if (timeout_ns < 0) {
      error = io_uring_submit_and_wait(&ring_, 1);
    } else {
      __kernel_timespec timeout = {.tv_sec = timeout_ns / static_cast<int64_t>(kNsPerSecond),
                                   .tv_nsec = timeout_ns % static_cast<int64_t>(kNsPerSecond)};
      io_uring_cqe* first = nullptr;
      error = io_uring_submit_and_wait_timeout(&ring_, &first, 1, &timeout, nullptr);
    }
    CheckEnter(error);
    Reap();
  }

 private:
  // --- the ring ---

  // What io_uring_enter may say of the moment. Anything else, as EEXIST from the wrong thread or
  // EBADF, is our own fault.
  static void CheckEnter(int error) {
    CHECK(error >= 0 || error == -EINTR || error == -ETIME || error == -EAGAIN || error == -EBUSY ||
          error == -ENOMEM);
  }

  // Room for a request. A full queue is submitted first.
  io_uring_sqe* Sqe() {
    for (;;) {
      io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
      if (sqe != nullptr) return sqe;
      CHECK(enabled_);  // kSubmissionsMax operations were begun before Loop
      const int error = io_uring_submit(&ring_);
      CheckEnter(error);
      if (error == -EBUSY) {
        // Completions wait in the kernel for room. They only queue callbacks.
        Reap();
      } else if (error < 0) {
        sched_yield();
      }
    }
  }

  void Reap() {
    for (;;) {
      io_uring_cqe* cqe = nullptr;
      while (io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe != nullptr) {
        const uint64_t user_data = cqe->user_data;
        const int result = cqe->res;
        const unsigned flags = cqe->flags;
        io_uring_cqe_seen(&ring_, cqe);
        Handle(user_data, result, flags);
      }
      // What did not fit into the ring the kernel keeps (IORING_FEAT_NODROP) and moves when asked.
      if (!io_uring_cq_has_overflow(&ring_)) return;
      CheckEnter(io_uring_get_events(&ring_));
    }
  }

  void WatchMailbox() {
    io_uring_sqe* const sqe = Sqe();
    // By edge: each write to the eventfd is one completion, and nothing has to be read.
    io_uring_prep_poll_multishot(sqe, mailbox_.fd(), POLLIN);
    io_uring_sqe_set_data64(sqe, kUserDataWake);
    watching_ = true;
  }

  void Handle(uint64_t user_data, int result, unsigned flags) {
    switch (user_data & kTagMask) {
      case kTagOperation:
        HandleOperation(reinterpret_cast<Operation*>(user_data), result, flags);
        break;
      case kTagConnect:
        HandleConnect(reinterpret_cast<Connecting*>(user_data & ~kTagMask), result);
        break;
      case kTagCancelSocket:
        HandleCancelled(static_cast<int>(user_data >> 2), result);
        break;
      default:
        if (user_data == kUserDataWake && (flags & IORING_CQE_F_MORE) == 0) WatchMailbox();
        break;
    }
  }

  void HandleOperation(Operation* operation, int result, unsigned flags) {
    switch (operation->kind) {
      case kRead:
      case kWrite:
        return HandleFile(static_cast<FileOperation*>(operation), result);
      case kReceive:
        return HandleReceive(static_cast<ReceiveOperation*>(operation), result, flags);
      case kSend:
        return HandleSend(static_cast<SendOperation*>(operation), result);
      case kAccept:
        return HandleAccept(static_cast<AcceptOperation*>(operation), result);
      case kAwait:
        return HandleDoorbell(static_cast<AwaitOperation*>(operation), result, flags);
      default:
        CHECK(false);
    }
  }

  // --- files ---

  void HandleFile(FileOperation* operation, int result) {
    // What the ring cannot do now or at all (EOPNOTSUPP: RWF_DSYNC, RWF_DONTCACHE), a thread does.
    if (result == -EAGAIN || result == -EINTR || result == -EOPNOTSUPP || result == -ECANCELED) {
      return ToPool(operation);
    }
    if (result < 0) return Complete(operation, result);
    const auto moved = static_cast<size_t>(result);
    const bool write = operation->kind == kWrite;
    operation->finished_bytes += moved;
    const uint64_t total = TotalBytes(operation->vectors, operation->vectors_count);
    if (operation->finished_bytes == total) {
      return Complete(operation, static_cast<int64_t>(total));
    }
    if (write && moved == 0) return Complete(operation, -EIO);
    // An O_DIRECT read that ends unaligned met the end of the file; going on there is EINVAL.
    if (!write && (moved == 0 || (operation->direct && moved % kSectorBytes != 0))) {
      return Complete(operation, static_cast<int64_t>(operation->finished_bytes));
    }
    StartBlockingFile(operation);
  }

  // --- sockets ---

  UringSocket* Get(int fd, int* error) {
    *error = -EBADF;
    if (fd < 0) return nullptr;
    UringSocket* socket = sockets_.Find(fd);
    if (socket == nullptr) {
      SetNonBlocking(fd, false);
      socket = sockets_.Add(fd);
    }
    *error = socket->closing ? -ECANCELED : 0;
    return socket->closing ? nullptr : socket;
  }

  void SubmitAccept(UringSocket* socket) {
    io_uring_sqe* const sqe = Sqe();
    socket->peer.bytes = sizeof(socket->peer.storage);
    io_uring_prep_accept(sqe, socket->fd, socket->peer.get(), &socket->peer.bytes, SOCK_CLOEXEC);
    io_uring_sqe_set_data(sqe, static_cast<Operation*>(socket->accept));
  }

  void SubmitReceive(UringSocket* socket) {
    ReceiveOperation* const operation = socket->receive;
    io_uring_sqe* const sqe = Sqe();
    if (operation->vectors_count == 1 && !operation->accept_descriptor) {
      io_uring_prep_recv(sqe, socket->fd, operation->vectors[0].iov_base,
                         operation->vectors[0].iov_len, 0);
    } else {
      FillReceiveHeader(operation, &socket->receive_control, &socket->receive_header);
      io_uring_prep_recvmsg(sqe, socket->fd, &socket->receive_header, MSG_CMSG_CLOEXEC);
    }
    if (!socket->more) sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    io_uring_sqe_set_data(sqe, static_cast<Operation*>(operation));
  }

  void SubmitSend(UringSocket* socket) {
    SendOperation* const operation = socket->send;
    io_uring_sqe* const sqe = Sqe();
    FillSendHeader(operation, &socket->send_control, &socket->send_header);
    io_uring_prep_sendmsg(sqe, socket->fd, &socket->send_header, MSG_NOSIGNAL);
    io_uring_sqe_set_data(sqe, static_cast<Operation*>(operation));
  }

  void HandleReceive(ReceiveOperation* operation, int result, unsigned flags) {
    UringSocket* const socket = sockets_.Find(operation->socket.fd);
    if (result >= 0 && operation->accept_descriptor) {
      TakeDescriptors(&socket->receive_header, operation);
    }
    if (socket->closing) {
      if (operation->descriptor >= 0) close(operation->descriptor);
      operation->descriptor = -1;
      result = -ECANCELED;
    } else if (result == -EAGAIN || result == -EINTR) {
      return SubmitReceive(socket);
    }
    // A read that ended at a descriptor says nothing of what is behind it.
    socket->more = (flags & IORING_CQE_F_SOCK_NONEMPTY) != 0 || operation->accept_descriptor;
    socket->receive = nullptr;
    Complete(operation, result);
    CloseIfFree(socket);
  }

  void HandleSend(SendOperation* operation, int result) {
    UringSocket* const socket = sockets_.Find(operation->socket.fd);
    int64_t outcome = result;
    if (socket->closing) {
      outcome = -ECANCELED;
    } else if (result == -EAGAIN || result == -EINTR) {
      return SubmitSend(socket);
    } else if (result >= 0) {
      if (!AdvanceSend(operation, static_cast<size_t>(result))) return SubmitSend(socket);
      outcome = operation->result;
    }
    socket->send = nullptr;
    Complete(operation, outcome);
    CloseIfFree(socket);
  }

  void HandleAccept(AcceptOperation* operation, int result) {
    UringSocket* const socket = sockets_.Find(operation->listener.fd);
    if (socket->closing) {
      if (result >= 0) close(result);
      result = -ECANCELED;
    } else if (result == -EAGAIN || result == -EINTR || result == -ECONNABORTED ||
               result == -EPROTO) {
      return SubmitAccept(socket);
    } else if (result >= 0) {
      SetStreamOptions(result, socket->peer.storage.ss_family);
      operation->accepted.fd = result;
      operation->peer = PeerName(result, socket->peer);
      result = 0;
    }
    socket->accept = nullptr;
    Complete(operation, result);
    CloseIfFree(socket);
  }

  // By edge, as for the mailbox: each ring is one completion, and the counter is never read.
  void PollDoorbell(UringSocket* socket) {
    io_uring_sqe* const sqe = Sqe();
    io_uring_prep_poll_multishot(sqe, socket->fd, POLLIN);
    io_uring_sqe_set_data(sqe, static_cast<Operation*>(socket->polled));
  }

  void Rung(UringSocket* socket) {
    socket->rung = socket->awaited = false;
    Complete(socket->polled, 0);
  }

  void HandleDoorbell(AwaitOperation* operation, int result, unsigned flags) {
    UringSocket* const socket = sockets_.Find(operation->doorbell.fd);
    const bool more = (flags & IORING_CQE_F_MORE) != 0;
    if (socket->closing) {
      if (more) return;
      socket->polled = nullptr;
      if (socket->awaited) Complete(operation, -ECANCELED);
      socket->awaited = false;
      CloseIfFree(socket);
      return;
    }
    if (result < 0) {
      // It cannot be watched: said once, not tried for ever.
      if (!more) socket->polled = nullptr;
      if (socket->awaited) Complete(operation, result);
      socket->awaited = false;
      return;
    }
    if (!more) PollDoorbell(socket);
    socket->rung = true;
    if (socket->awaited) Rung(socket);
  }

  void HandleConnect(Connecting* connecting, int result) { ConnectFinished(connecting, result); }

  // --- closing ---

  // One cancel for each operation, by its own name, as kernels before 5.19 know no other way.
  void CancelAll(UringSocket* socket) {
    socket->cancelling = true;
    Operation* const operations[] = {socket->receive, socket->send, socket->accept, socket->polled};
    for (Operation* const operation : operations) {
      if (operation == nullptr) continue;
      io_uring_sqe* const sqe = Sqe();
      io_uring_prep_cancel64(sqe, reinterpret_cast<uint64_t>(operation), 0);
      io_uring_sqe_set_data64(sqe, static_cast<uint64_t>(socket->fd) << 2 | kTagCancelSocket);
    }
  }

  // A request that was on its way between two states is not found by its cancel: asked again.
  void HandleCancelled(int fd, int result) {
    UringSocket* const socket = sockets_.Find(fd);
    if (socket == nullptr || socket->close == nullptr || result >= 0) return;
    CancelAll(socket);
  }

  void CloseIfFree(UringSocket* socket) {
    if (socket->close == nullptr || socket->busy()) return;
    CloseOperation* const operation = socket->close;
    socket->close = nullptr;
    Complete(operation, 0);
  }

  io_uring ring_ = {};
  bool open_ = false;
  bool enabled_ = false;
  bool watching_ = false;
  SocketTable<UringSocket> sockets_;
};

}  // namespace

Result<std::unique_ptr<Reactor>> MakeUringReactor(BackendChoice choice, int pool_threads) {
  auto reactor = std::make_unique<UringReactor>(std::move(choice), pool_threads);
  RETURN_IF_ERROR(reactor->Open());
  return std::unique_ptr<Reactor>(std::move(reactor));
}

}  // namespace ankole::io

#else

namespace ankole::io {

Result<std::unique_ptr<Reactor>> MakeUringReactor(BackendChoice, int) { return ProbeUring(""); }

}  // namespace ankole::io

#endif
