#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <deque>
#include <random>
#include <vector>

#include "base/units.h"
#include "io/reactor_testing.h"

namespace ankole::io {
namespace {

// The byte at a place of the stream that all tests send.
char StreamByte(uint64_t at) { return static_cast<char>((at * 2654435761u) >> 13); }

// Not the receiver's: a TCP window below the loopback's 64 KiB segments only waits for its own
// timers.
void ShrinkSendBuffer(int fd) {
  const int bytes = 8 * 1024;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

// Sends `total` bytes of the stream in random pieces of random vectors.
struct StreamSender {
  Reactor& reactor;
  std::mt19937_64& random;
  uint64_t total;
  uint64_t at = 0;
  std::vector<char> data = std::vector<char>(512 * 1024);
  std::array<iovec, SendOperation::kVectorsMax> vectors = {};
  With<SendOperation> send = {};
  uint64_t piece = 0;

  void Next() {
    if (at == total) return;
    piece = std::min<uint64_t>(total - at, 1 + random() % data.size());
    if (random() % 2 == 0) piece = std::min<uint64_t>(piece, 1 + random() % 100);
    for (uint64_t i = 0; i < piece; ++i) data[i] = StreamByte(at + i);
    const int count = 1 + static_cast<int>(random() % vectors.size());
    uint64_t cut = 0;
    for (int i = 0; i < count; ++i) {
      const uint64_t bytes = i == count - 1
                                 ? piece - cut
                                 : std::min<uint64_t>(piece - cut, random() % (piece + 1) / 4);
      vectors[i] = {data.data() + cut, bytes};
      cut += bytes;
    }
    send.vectors = vectors.data();
    send.vectors_count = count;
    send.then = [this](auto&) {
      EXPECT_EQ(send.result, static_cast<int64_t>(piece));
      at += piece;
      Next();
    };
    const int runs = send.runs;
    reactor.Send(&send);
    EXPECT_EQ(send.runs, runs);
  }
};

TEST(io_socket, echo_of_random_sizes_with_partial_sends_to_a_slow_reader) {
  OnEachPair([](Reactor& reactor, Pair pair) {
    std::mt19937_64 random(test::Seed());
    ShrinkSendBuffer(pair.client.fd);
    ShrinkSendBuffer(pair.server.fd);
    constexpr uint64_t kTotal = 4 * kMiB;
    StreamSender sender{.reactor = reactor, .random = random, .total = kTotal};
    sender.send.socket = pair.client;
    sender.Next();

    // Echoes what it got before it reads on.
    std::array<char, 30'000> one, two;
    With<ReceiveOperation> receive;
    With<SendOperation> back;
    std::array<iovec, 2> back_vectors;
    uint64_t echoed = 0;
    receive.socket = back.socket = pair.server;
    const auto receive_next = [&] {
      receive.vectors[0] = {one.data(), 1 + random() % one.size()};
      receive.vectors[1] = {two.data(), 1 + random() % two.size()};
      receive.vectors_count = 1 + static_cast<int>(random() % 2);
      reactor.Receive(&receive);
    };
    receive.then = [&](auto& self) {
      ASSERT(self.result > 0);
      const auto got = static_cast<size_t>(self.result);
      const size_t first = std::min(got, self.vectors[0].iov_len);
      back_vectors = {iovec{one.data(), first}, iovec{two.data(), got - first}};
      back.vectors = back_vectors.data();
      back.vectors_count = 2;
      reactor.Send(&back);
    };
    back.then = [&](auto& self) {
      EXPECT_EQ(self.result, receive.result);
      EXPECT(self.vectors == back_vectors.data());
      echoed += static_cast<uint64_t>(self.result);
      if (echoed < kTotal) receive_next();
    };
    receive_next();

    // Takes a nap now and then.
    std::array<char, 50'000> in;
    With<ReceiveOperation> last;
    last.socket = pair.client;
    uint64_t came = 0;
    With<Timer> nap;
    const auto last_next = [&] {
      last.vectors[0] = {in.data(), 1 + random() % in.size()};
      last.vectors_count = 1;
      reactor.Receive(&last);
    };
    nap.then = [&](auto&) { last_next(); };
    last.then = [&](auto& self) {
      ASSERT(self.result > 0);
      for (int64_t i = 0; i < self.result; ++i) {
        if (in[i] != StreamByte(came + i)) {
          EXPECT(!"the stream is as it was sent");
          break;
        }
      }
      came += static_cast<uint64_t>(self.result);
      if (came == kTotal) return reactor.Stop();
      if (random() % 8 == 0) return reactor.Arm(&nap, reactor.NowNs() + 200 * kNsPerUs);
      last_next();
    };
    last_next();
    reactor.Loop();
    EXPECT_EQ(came, kTotal);
    CloseAll(reactor, {pair.client, pair.server});
  });
}

TEST(io_socket, data_and_the_end_that_come_together_are_both_seen) {
  OnEachPair([](Reactor& reactor, Pair pair) {
    // Everything is there before the first Receive, and the one edge is spent on it.
    ASSERT(write(pair.client.fd, "bye", 3) == 3);
    shutdown(pair.client.fd, SHUT_WR);
    With<Timer> later;
    With<ReceiveOperation> receive;
    std::array<char, 100> in;
    receive.socket = pair.server;
    receive.vectors[0] = {in.data(), in.size()};
    receive.vectors_count = 1;
    std::vector<int64_t> results;
    receive.then = [&](auto& self) {
      results.push_back(self.result);
      if (self.result > 0) return reactor.Arm(&later, reactor.NowNs() + kNsPerMs);
      reactor.Stop();
    };
    later.then = [&](auto&) { reactor.Receive(&receive); };
    reactor.Arm(&later, reactor.NowNs() + kNsPerMs);
    reactor.Loop();
    ASSERT(results.size() == 2);
    EXPECT_EQ(results[0], 3);
    EXPECT_EQ(results[1], 0);
    CloseAll(reactor, {pair.client, pair.server});
  });
}

TEST(io_socket, close_ends_what_is_in_flight_first) {
  OnEachPair([](Reactor& reactor, Pair pair) {
    std::vector<std::string> order;
    std::array<char, 100> in;
    With<ReceiveOperation> receive;
    receive.socket = pair.server;
    receive.vectors[0] = {in.data(), in.size()};
    receive.vectors_count = 1;
    With<SendOperation> send;  // more than fits
    std::vector<char> out(32 * kMiB);
    iovec vector = {out.data(), out.size()};
    send.socket = pair.server;
    send.vectors = &vector;
    send.vectors_count = 1;
    With<CloseOperation> close;
    close.socket = pair.server;
    With<ReceiveOperation> after;
    receive.then = [&](auto& self) {
      EXPECT_EQ(self.result, -ECANCELED);
      order.push_back("receive");
      // On a socket that is being closed.
      after.socket = pair.server;
      after.vectors[0] = {in.data(), in.size()};
      after.vectors_count = 1;
      after.then = [](auto& late) { EXPECT(late.result == -ECANCELED || late.result == -EBADF); };
      reactor.Receive(&after);
    };
    send.then = [&](auto& self) {
      EXPECT_EQ(self.result, -ECANCELED);
      order.push_back("send");
    };
    close.then = [&](auto& self) {
      EXPECT_EQ(self.result, 0);
      EXPECT(fcntl(pair.server.fd, F_GETFD) < 0);
      order.push_back("close");
      reactor.Stop();
    };
    reactor.Receive(&receive);
    reactor.Send(&send);
    With<Timer> timer;
    timer.then = [&](auto&) {
      reactor.Close(&close);
      EXPECT(order.empty());
    };
    reactor.Arm(&timer, reactor.NowNs() + 5 * kNsPerMs);
    reactor.Loop();
    ASSERT(order.size() == 3);
    EXPECT_EQ(order[2], "close");
    EXPECT_EQ(receive.runs + send.runs + close.runs + after.runs, 4);
    CloseAll(reactor, {pair.client});
  });
}

TEST(io_socket, close_in_the_turn_that_began_the_operation) {
  OnEachPair([](Reactor& reactor, Pair pair) {
    std::array<char, 100> in;
    With<ReceiveOperation> receive;
    receive.socket = pair.server;
    receive.vectors[0] = {in.data(), in.size()};
    receive.vectors_count = 1;
    reactor.Receive(&receive);
    CloseAll(reactor, {pair.server, pair.client});
    EXPECT_EQ(receive.result, -ECANCELED);
    EXPECT_EQ(receive.runs, 1);
  });
}

TEST(io_socket, a_reset_connection_is_an_error_and_no_signal) {
  OnEachBackend([](Reactor& reactor) {
    const Pair pair = MakePair(reactor, false);
    const linger hard = {.l_onoff = 1, .l_linger = 0};
    setsockopt(pair.client.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    std::array<char, 100> in;
    With<ReceiveOperation> receive;
    receive.socket = pair.server;
    receive.vectors[0] = {in.data(), in.size()};
    receive.vectors_count = 1;
    reactor.Receive(&receive);
    CloseAll(reactor, {pair.client});
    EXPECT_EQ(receive.result, -ECONNRESET);
    With<SendOperation> send;
    iovec vector = {in.data(), in.size()};
    send.socket = pair.server;
    send.vectors = &vector;
    send.vectors_count = 1;
    reactor.Send(&send);
    RunAll(reactor);
    EXPECT(send.result == -EPIPE || send.result == -ECONNRESET);
    CloseAll(reactor, {pair.server});
  });
}

TEST(io_socket, a_descriptor_goes_along_once) {
  OnEachBackend([](Reactor& reactor) {
    const Pair pair = MakePair(reactor, true);
    ShrinkSendBuffer(pair.client.fd);
    int pipe_fds[2];
    ASSERT(pipe2(pipe_fds, O_CLOEXEC) == 0);
    // Large, so that it is sent in parts.
    std::vector<char> out(1 * kMiB, 'x');
    iovec vector = {out.data(), out.size()};
    With<SendOperation> send;
    send.socket = pair.client;
    send.vectors = &vector;
    send.vectors_count = 1;
    send.descriptor = pipe_fds[1];
    std::vector<char> in(64 * 1024);
    With<ReceiveOperation> receive;
    receive.socket = pair.server;
    receive.vectors[0] = {in.data(), in.size()};
    receive.vectors_count = 1;
    receive.accept_descriptor = true;
    size_t came = 0;
    std::vector<int> descriptors;
    receive.then = [&](auto& self) {
      ASSERT(self.result > 0);
      came += static_cast<size_t>(self.result);
      if (self.descriptor >= 0) descriptors.push_back(self.descriptor);
      if (came == out.size()) return reactor.Stop();
      reactor.Receive(&self);
    };
    reactor.Send(&send);
    reactor.Receive(&receive);
    reactor.Loop();
    EXPECT_EQ(send.descriptor, pipe_fds[1]);
    ASSERT(descriptors.size() == 1);
    EXPECT(fcntl(descriptors[0], F_GETFD) & FD_CLOEXEC);
    EXPECT_EQ(write(descriptors[0], "!", 1), 1);
    char byte = 0;
    EXPECT_EQ(read(pipe_fds[0], &byte, 1), 1);
    for (const int fd : {descriptors[0], pipe_fds[0], pipe_fds[1]}) close(fd);
    CloseAll(reactor, {pair.client, pair.server});
  });
}

TEST(io_socket, descriptors_that_nobody_asked_for_are_dropped) {
  OnEachBackend([](Reactor& reactor) {
    for (const bool accept : {false, true}) {
      const Pair pair = MakePair(reactor, true);
      int pipe_fds[2];
      ASSERT(pipe2(pipe_fds, O_CLOEXEC) == 0);
      const int before = OpenDescriptors();
      // Three at once, from a peer that has its own idea of the protocol.
      char control[CMSG_SPACE(3 * sizeof(int))] = {};
      char byte = 'x';
      iovec vector = {&byte, 1};
      msghdr header = {};
      header.msg_iov = &vector;
      header.msg_iovlen = 1;
      header.msg_control = control;
      header.msg_controllen = sizeof(control);
      cmsghdr* const message = CMSG_FIRSTHDR(&header);
      message->cmsg_level = SOL_SOCKET;
      message->cmsg_type = SCM_RIGHTS;
      message->cmsg_len = CMSG_LEN(3 * sizeof(int));
      const int three[] = {pipe_fds[0], pipe_fds[1], pipe_fds[0]};
      std::memcpy(CMSG_DATA(message), three, sizeof(three));
      ASSERT(sendmsg(pair.client.fd, &header, 0) == 1);
      std::array<char, 100> in;
      With<ReceiveOperation> receive;
      receive.socket = pair.server;
      receive.vectors[0] = {in.data(), in.size()};
      receive.vectors_count = 1;
      receive.accept_descriptor = accept;
      reactor.Receive(&receive);
      RunAll(reactor);
      EXPECT_EQ(receive.result, 1);
      EXPECT_EQ(OpenDescriptors(), before + (accept ? 1 : 0));
      EXPECT_EQ(receive.descriptor >= 0, accept);
      if (receive.descriptor >= 0) close(receive.descriptor);
      close(pipe_fds[0]);
      close(pipe_fds[1]);
      CloseAll(reactor, {pair.client, pair.server});
    }
  });
}

TEST(io_socket, many_connections_come_through_one_listener) {
  OnEachBackend([](Reactor& reactor) {
    Address bound;
    auto listener = reactor.Listen(ParseAddress("tcp:127.0.0.1:0"), &bound);
    ASSERT_OK(listener);
    EXPECT(bound.port != 0);
    constexpr int kConnections = 100;
    std::vector<Socket> accepted;
    std::deque<With<ConnectOperation>> connects(kConnections);
    int connected = 0;
    With<AcceptOperation> accept;
    accept.listener = listener.value();
    accept.then = [&](auto& self) {
      ASSERT(self.result == 0);
      EXPECT(self.peer.starts_with("tcp:127.0.0.1:"));
      int on = 0;
      socklen_t bytes = sizeof(on);
      getsockopt(self.accepted.fd, IPPROTO_TCP, TCP_NODELAY, &on, &bytes);
      EXPECT(on != 0);
      getsockopt(self.accepted.fd, SOL_SOCKET, SO_KEEPALIVE, &on, &bytes);
      EXPECT(on != 0);
      EXPECT(fcntl(self.accepted.fd, F_GETFD) & FD_CLOEXEC);
      accepted.push_back(self.accepted);
      if (accepted.size() < kConnections) return reactor.Accept(&self);
      if (connected == kConnections) reactor.Stop();
    };
    reactor.Accept(&accept);
    for (auto& connect : connects) {
      connect.address = bound;
      connect.then = [&](auto& self) {
        EXPECT_EQ(self.result, 0);
        if (++connected == kConnections && accepted.size() == kConnections) reactor.Stop();
      };
      reactor.Connect(&connect);
    }
    reactor.Loop();
    for (int i = 0; i < kConnections; ++i) CloseAll(reactor, {accepted[i], connects[i].socket});
    CloseAll(reactor, {listener.value()});
  });
}

TEST(io_socket, connecting_fails_as_the_world_does) {
  OnEachBackend([](Reactor& reactor) {
    const std::string directory = test::TemporaryDirectory();
    // A port that nobody listens on any more.
    Address bound;
    auto listener = reactor.Listen(ParseAddress("tcp:127.0.0.1:0"), &bound);
    ASSERT_OK(listener);
    CloseAll(reactor, {listener.value()});
    const std::pair<Address, int64_t> cases[] = {
        {bound, -ECONNREFUSED},
        {ParseAddress("unix:" + directory + "/none"), -ENOENT},
        {ParseAddress("tcp:no-such-host.invalid:1"), -EHOSTUNREACH},
    };
    for (const auto& [address, error] : cases) {
      With<ConnectOperation> connect;
      connect.address = address;
      reactor.Connect(&connect);
      EXPECT_EQ(connect.runs, 0);
      RunAll(reactor);
      EXPECT_EQ(connect.runs, 1);
      EXPECT_EQ(connect.result, error);
      EXPECT(!connect.socket.valid());
    }
  });
}

TEST(io_socket, a_host_may_be_a_name) {
  OnEachBackend([](Reactor& reactor) {
    Address bound;
    auto listener = reactor.Listen(ParseAddress("tcp:127.0.0.1:0"), &bound);
    ASSERT_OK(listener);
    With<ConnectOperation> connect, cancelled;
    connect.address = cancelled.address = bound;
    connect.address.host = cancelled.address.host = "localhost";
    reactor.Connect(&connect);
    reactor.Connect(&cancelled);
    reactor.CancelConnect(&cancelled);  // while the name is looked up
    RunAll(reactor);
    EXPECT_EQ(connect.result, 0);
    EXPECT_EQ(cancelled.result, -ECANCELED);
    EXPECT_EQ(cancelled.runs, 1);
    CloseAll(reactor, {listener.value(), connect.socket});
  });
}

TEST(io_socket, a_connect_that_hangs_can_be_cancelled) {
  OnEachBackend([](Reactor& reactor) {
    for (const bool unix_path : {false, true}) {
      // Nobody accepts, and the backlog is full.
      const std::string path = test::TemporaryDirectory() + "/full";
      Address bound;
      auto listener =
          reactor.Listen(ParseAddress(unix_path ? "unix:" + path : "tcp:127.0.0.1:0"), &bound);
      ASSERT_OK(listener);
      ASSERT(listen(listener.value().fd, 0) == 0);
      std::deque<With<ConnectOperation>> connects(6);
      int left = 6;
      With<Timer> timer;
      for (auto& connect : connects) {
        connect.address = bound;
        connect.then = [&](auto& self) {
          EXPECT(self.result == 0 || self.result == -ECANCELED);
          reactor.CancelConnect(&self);  // no effect by now
          if (--left == 0) reactor.Stop();
        };
        reactor.Connect(&connect);
      }
      timer.then = [&](auto&) {
        for (auto& connect : connects) reactor.CancelConnect(&connect);
      };
      reactor.Arm(&timer, reactor.NowNs() + 30 * kNsPerMs);
      reactor.Loop();
      EXPECT_EQ(connects.back().result, -ECANCELED);
      for (auto& connect : connects) {
        EXPECT_EQ(connect.runs, 1);
        if (connect.result == 0) CloseAll(reactor, {connect.socket});
      }
      CloseAll(reactor, {listener.value()});
    }
  });
}

TEST(io_socket, a_full_backlog_is_waited_for) {
  OnEachBackend([](Reactor& reactor) {
    Address bound;
    auto listener =
        reactor.Listen(ParseAddress("unix:" + test::TemporaryDirectory() + "/full"), &bound);
    ASSERT_OK(listener);
    ASSERT(listen(listener.value().fd, 0) == 0);
    std::deque<With<ConnectOperation>> connects(4);
    std::vector<Socket> sockets;
    for (auto& connect : connects) {
      connect.address = bound;
      connect.then = [&](auto& self) {
        EXPECT_EQ(self.result, 0);
        sockets.push_back(self.socket);
      };
      reactor.Connect(&connect);
    }
    With<AcceptOperation> accept;
    accept.listener = listener.value();
    accept.then = [&](auto& self) {
      EXPECT_EQ(self.result, 0);
      sockets.push_back(self.accepted);
      if (self.runs < 4) reactor.Accept(&self);
    };
    With<Timer> timer;
    timer.then = [&](auto&) {
      reactor.Accept(&accept);
      reactor.Stop();
    };
    reactor.Arm(&timer, reactor.NowNs() + 20 * kNsPerMs);
    reactor.Loop();
    EXPECT_EQ(sockets.size(), 8u);
    for (const Socket& socket : sockets) CloseAll(reactor, {socket});
    CloseAll(reactor, {listener.value()});
  });
}

TEST(io_socket, listening_where_another_does) {
  OnEachBackend([](Reactor& reactor) {
    const std::string path = test::TemporaryDirectory() + "/socket";
    Address bound;
    auto tcp = reactor.Listen(ParseAddress("tcp:127.0.0.1:0"), &bound);
    ASSERT_OK(tcp);
    const auto again = reactor.Listen(bound, nullptr);
    EXPECT(again.status().code() == ErrorCode::kAddressInUse);
    EXPECT(again.status().message().find(bound.ToString()) != std::string::npos);

    const Address address = ParseAddress("unix:" + path);
    auto first = reactor.Listen(address, &bound);
    ASSERT_OK(first);
    EXPECT_EQ(bound.ToString(), address.ToString());
    struct stat found;
    ASSERT(stat(path.c_str(), &found) == 0);
    EXPECT_EQ(found.st_mode & 0777, 0600u);
    EXPECT(reactor.Listen(address, nullptr).status().code() == ErrorCode::kAddressInUse);
    // As after a crash: the file is there and nobody answers.
    const std::string kept = path + "-kept";
    ASSERT(link(path.c_str(), kept.c_str()) == 0);
    CloseAll(reactor, {tcp.value(), first.value()});
    EXPECT(access(path.c_str(), F_OK) != 0);
    auto second = reactor.Listen(ParseAddress("unix:" + kept), nullptr);
    ASSERT_OK(second);
    With<ConnectOperation> connect;
    connect.address = ParseAddress("unix:" + kept);
    reactor.Connect(&connect);
    RunAll(reactor);
    EXPECT_EQ(connect.result, 0);
    CloseAll(reactor, {second.value(), connect.socket});
    // What is no socket is left alone.
    close(open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    EXPECT(reactor.Listen(address, nullptr).status().code() == ErrorCode::kAddressInUse);
    EXPECT(access(path.c_str(), F_OK) == 0);
    EXPECT(!reactor.Listen(ParseAddress("unix:" + path + "/none/x"), nullptr).ok());
  });
}

TEST(io_socket, an_accept_ends_when_its_listener_is_closed) {
  OnEachBackend([](Reactor& reactor) {
    for (const char* text : {"tcp:127.0.0.1:0", "tcp:[::1]:0"}) {
      auto listener = reactor.Listen(ParseAddress(text), nullptr);
      if (!listener.ok()) continue;  // no IPv6
      With<AcceptOperation> accept;
      accept.listener = listener.value();
      reactor.Accept(&accept);
      CloseAll(reactor, {listener.value()});
      EXPECT_EQ(accept.result, -ECANCELED);
      EXPECT_EQ(accept.runs, 1);
    }
  });
}

TEST(io_socket, operations_on_no_socket_fail) {
  OnEachBackend([](Reactor& reactor) {
    std::array<char, 10> in;
    for (const int fd : {-1, 1000}) {
      With<ReceiveOperation> receive;
      receive.socket.fd = fd;
      receive.vectors[0] = {in.data(), in.size()};
      receive.vectors_count = 1;
      reactor.Receive(&receive);
      RunAll(reactor);
      EXPECT_EQ(receive.result, -EBADF);
    }
  });
}

// One end of a socketpair that a thread keeps full.
struct Flood {
  int fd;
  static void* Run(void* argument) {
    auto* const flood = static_cast<Flood*>(argument);
    std::vector<char> data(256 * 1024);
    while (send(flood->fd, data.data(), data.size(), MSG_NOSIGNAL) > 0) {
    }
    return nullptr;
  }
};

TEST(io_socket, a_busy_socket_starves_neither_timers_nor_others) {
  OnEachBackend([](Reactor& reactor) {
    // Handed over by somebody else, as from another process.
    int busy[2], quiet[2];
    ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, busy) == 0);
    ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, quiet) == 0);
    Flood flood{busy[0]};
    pthread_t thread;
    pthread_create(&thread, nullptr, Flood::Run, &flood);
    std::array<char, 16> in, in_quiet;
    With<ReceiveOperation> receive, other;
    receive.socket.fd = busy[1];
    receive.vectors[0] = {in.data(), in.size()};  // small, so that there is always more
    receive.vectors_count = 1;
    With<CloseOperation> closes[2];
    closes[0].socket.fd = busy[1];
    closes[1].socket.fd = quiet[1];
    bool ending = false;
    const auto end = [&] {
      ending = true;
      reactor.Close(&closes[0]);
      reactor.Close(&closes[1]);
      reactor.Stop();
    };
    receive.then = [&](auto& self) {
      if (ending || self.result <= 0) return;
      // Ten timers of 1 ms and a byte take some ten thousand receives, not millions, however busy
      // the machine is.
      if (self.runs == 4'000'000) return end();
      reactor.Receive(&self);
    };
    other.socket.fd = quiet[1];
    other.vectors[0] = {in_quiet.data(), in_quiet.size()};
    other.vectors_count = 1;
    bool quiet_was_heard = false;
    other.then = [&](auto& self) {
      quiet_was_heard = self.result == 1;
      if (!ending) end();
    };
    With<Timer> timer;
    timer.then = [&](auto& self) {
      if (ending) return;
      if (self.runs < 10 || receive.runs <= 1000)
        return reactor.Arm(&self, reactor.NowNs() + kNsPerMs);
      EXPECT_EQ(write(quiet[0], "x", 1), 1);
    };
    reactor.Receive(&receive);
    reactor.Receive(&other);
    reactor.Arm(&timer, reactor.NowNs() + kNsPerMs);
    reactor.Loop();
    EXPECT(timer.runs >= 10);
    EXPECT(quiet_was_heard);
    pthread_join(thread, nullptr);
    close(busy[0]);
    close(quiet[0]);
  });
}

}  // namespace
}  // namespace ankole::io
