#pragma once

#include <sys/socket.h>

#include <string>
#include <vector>

#include "io/reactor.h"

// The parts of socket handling that are the same for both back ends.
namespace ankole::io {

struct SocketAddress {
  sockaddr_storage storage = {};
  socklen_t bytes = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// Without asking anybody: false when the host is a name.
bool NumericAddress(const Address& address, SocketAddress* out);
// Asks the resolver: may block for seconds. 0 or a negative errno.
int ResolveAddress(const Address& address, std::vector<SocketAddress>* out);

// Reactor::Listen, with the socket in blocking mode.
Result<Socket> OpenListener(const Address& address, Address* bound);

// TCP_NODELAY and keep-alive where it is TCP. Best effort: a peer may be gone already.
void SetStreamOptions(int fd, int family);
void SetNonBlocking(int fd, bool on);
// For logs.
std::string PeerName(int fd, const SocketAddress& address);

// Room for descriptors that came along; more than one is refused by closing the others.
inline constexpr size_t kDescriptorsMax = 4;
struct ControlBuffer {
  alignas(cmsghdr) char bytes[CMSG_SPACE(kDescriptorsMax * sizeof(int))];
};
// The header of a receive or send of one operation; `control` must stay as long as `header` is
// used.
void FillReceiveHeader(ReceiveOperation* operation, ControlBuffer* control, msghdr* header);
void FillSendHeader(SendOperation* operation, ControlBuffer* control, msghdr* header);
// Takes the descriptors that came with `header`: the first into `operation`, others are closed.
void TakeDescriptors(msghdr* header, ReceiveOperation* operation);
// Counts `bytes` as sent, in `result`, and takes them off the front of the vectors. True when all
// is sent; vectors and vectors_count are then as they were.
bool AdvanceSend(SendOperation* operation, size_t bytes);

}  // namespace ankole::io
