#include "io/sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace ankole::io {
namespace {

constexpr int kBacklog = 1024;
// A peer whose machine vanished is noticed after 10 + 3 × 5 s, where no request says so earlier.
constexpr int kKeepIdleSeconds = 10;
constexpr int kKeepIntervalSeconds = 5;
constexpr int kKeepProbes = 3;

Status Failed(int error_number, const Address& address, const char* operation) {
  return Status::FromErrno(error_number, address.ToString() + ": " + operation);
}

// Whether a Unix socket file is one that nobody answers on.
bool IsStale(const SocketAddress& address, const std::string& path) {
  struct stat found;
  if (lstat(path.c_str(), &found) < 0 || !S_ISSOCK(found.st_mode)) return false;
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  const bool refused = connect(fd, address.get(), address.bytes) < 0 && errno == ECONNREFUSED;
  close(fd);
  return refused;
}

}  // namespace

bool NumericAddress(const Address& address, SocketAddress* out) {
  *out = {};
  if (address.unix_path) {
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    if (address.host.size() >= sizeof(name.sun_path)) return false;
    std::memcpy(name.sun_path, address.host.data(), address.host.size());
    std::memcpy(&out->storage, &name, sizeof(name));
    out->bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.host.size() + 1);
    return true;
  }
  sockaddr_in four = {};
  four.sin_family = AF_INET;
  four.sin_port = htons(address.port);
  if (inet_pton(AF_INET, address.host.c_str(), &four.sin_addr) == 1) {
    std::memcpy(&out->storage, &four, sizeof(four));
    out->bytes = sizeof(four);
    return true;
  }
  sockaddr_in6 six = {};
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(address.port);
  if (inet_pton(AF_INET6, address.host.c_str(), &six.sin6_addr) == 1) {
    std::memcpy(&out->storage, &six, sizeof(six));
    out->bytes = sizeof(six);
    return true;
  }
  return false;
}

int ResolveAddress(const Address& address, std::vector<SocketAddress>* out) {
  out->clear();
  SocketAddress numeric;
  if (NumericAddress(address, &numeric)) {
    out->push_back(numeric);
    return 0;
  }
  if (address.unix_path) return -ENAMETOOLONG;
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (error == EAI_SYSTEM) return errno != 0 ? -errno : -EIO;
  if (error == EAI_MEMORY) return -ENOMEM;
  if (error != 0) return -EHOSTUNREACH;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    if (each->ai_addrlen > sizeof(sockaddr_storage)) continue;
    SocketAddress next;
    std::memcpy(&next.storage, each->ai_addr, each->ai_addrlen);
    next.bytes = each->ai_addrlen;
    out->push_back(next);
  }
  freeaddrinfo(found);
  return out->empty() ? -EHOSTUNREACH : 0;
}

Result<Socket> OpenListener(const Address& address, Address* bound) {
  std::vector<SocketAddress> addresses;
  const int resolved = ResolveAddress(address, &addresses);
  if (resolved < 0) return Failed(-resolved, address, "resolve");
  const SocketAddress& to = addresses.front();

  const int fd = socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return Failed(errno, address, "socket");
  const auto fail = [&](const char* operation) {
    const Status status = Failed(errno, address, operation);
    close(fd);
    return status;
  };
  if (address.unix_path) {
    // Linux takes the new file's mode from the socket's own; umask belongs to the whole process.
    if (fchmod(fd, 0600) < 0) return fail("set mode");
  } else {
    const int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0) return fail("SO_REUSEADDR");
  }
  if (bind(fd, to.get(), to.bytes) < 0) {
    if (errno != EADDRINUSE || !address.unix_path) return fail("bind");
    if (!IsStale(to, address.host)) {
      errno = EADDRINUSE;
      return fail("bind");
    }
    if (unlink(address.host.c_str()) < 0) return fail("remove the old socket file");
    if (bind(fd, to.get(), to.bytes) < 0) return fail("bind");
  }
  if (listen(fd, kBacklog) < 0) return fail("listen");
  if (bound != nullptr) {
    *bound = address;
    if (!address.unix_path) {
      SocketAddress real;
      real.bytes = sizeof(real.storage);
      if (getsockname(fd, real.get(), &real.bytes) < 0) return fail("getsockname");
      // The port is at the same place for both families.
      sockaddr_in name;
      std::memcpy(&name, &real.storage, sizeof(name));
      bound->port = ntohs(name.sin_port);
    }
  }
  return Socket{fd};
}

void SetStreamOptions(int fd, int family) {
  if (family != AF_INET && family != AF_INET6) return;
  const int on = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &kKeepIdleSeconds, sizeof(kKeepIdleSeconds));
  (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &kKeepIntervalSeconds,
                   sizeof(kKeepIntervalSeconds));
  (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &kKeepProbes, sizeof(kKeepProbes));
}

void SetNonBlocking(int fd, bool on) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return;
  const int wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  if (wanted != flags) (void)fcntl(fd, F_SETFL, wanted);
}

std::string PeerName(int fd, const SocketAddress& address) {
  char text[INET6_ADDRSTRLEN] = "?";
  if (address.storage.ss_family == AF_INET) {
    sockaddr_in name;
    std::memcpy(&name, &address.storage, sizeof(name));
    inet_ntop(AF_INET, &name.sin_addr, text, sizeof(text));
    return "tcp:" + std::string(text) + ":" + std::to_string(ntohs(name.sin_port));
  }
  if (address.storage.ss_family == AF_INET6) {
    sockaddr_in6 name;
    std::memcpy(&name, &address.storage, sizeof(name));
    inet_ntop(AF_INET6, &name.sin6_addr, text, sizeof(text));
    return "tcp:[" + std::string(text) + "]:" + std::to_string(ntohs(name.sin6_port));
  }
  ucred peer = {};
  socklen_t bytes = sizeof(peer);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0) {
    return "unix:process " + std::to_string(peer.pid);
  }
  return "unix";
}

void FillReceiveHeader(ReceiveOperation* operation, ControlBuffer* control, msghdr* header) {
  *header = {};
  header->msg_iov = operation->vectors;
  header->msg_iovlen = static_cast<size_t>(operation->vectors_count);
  if (operation->accept_descriptor) {
    header->msg_control = control->bytes;
    header->msg_controllen = sizeof(control->bytes);
  }
}

void FillSendHeader(SendOperation* operation, ControlBuffer* control, msghdr* header) {
  *header = {};
  header->msg_iov = operation->vectors;
  header->msg_iovlen = static_cast<size_t>(operation->vectors_count);
  if (operation->descriptor < 0 || operation->result > 0) return;
  *control = {};
  header->msg_control = control->bytes;
  header->msg_controllen = CMSG_SPACE(sizeof(int));
  cmsghdr* const message = CMSG_FIRSTHDR(header);
  message->cmsg_level = SOL_SOCKET;
  message->cmsg_type = SCM_RIGHTS;
  message->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(message), &operation->descriptor, sizeof(int));
}

void TakeDescriptors(msghdr* header, ReceiveOperation* operation) {
  for (cmsghdr* message = CMSG_FIRSTHDR(header); message != nullptr;
       message = CMSG_NXTHDR(header, message)) {
    if (message->cmsg_level != SOL_SOCKET || message->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (message->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int descriptor;
      std::memcpy(&descriptor, CMSG_DATA(message) + i * sizeof(int), sizeof(int));
      if (operation->descriptor < 0) {
        operation->descriptor = descriptor;
      } else {
        close(descriptor);
      }
    }
  }
}

bool AdvanceSend(SendOperation* operation, size_t bytes) {
  operation->result += static_cast<int64_t>(bytes);
  int skip = 0;
  while (skip < operation->vectors_count && bytes >= operation->vectors[skip].iov_len) {
    bytes -= operation->vectors[skip].iov_len;
    ++skip;
  }
  if (skip == operation->vectors_count) return true;
  // The pointer is the owner's and stays; a partial send is rare.
  operation->vectors_count -= skip;
  std::memmove(operation->vectors, operation->vectors + skip,
               static_cast<size_t>(operation->vectors_count) * sizeof(iovec));
  operation->vectors->iov_base = static_cast<char*>(operation->vectors->iov_base) + bytes;
  operation->vectors->iov_len -= bytes;
  return false;
}

}  // namespace ankole::io
