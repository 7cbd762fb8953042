#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "base/units.h"
#include "io/reactor_testing.h"

// Compares the back ends at what a disk host does: requests of 40 bytes come pipelined over a
// socket, each is a 4 KiB read or write of a cached file, the answers of a turn leave as one send.
// Runs only when asked for: ANKOLE_BENCH=1 tests io_bench. Figures of a shared machine: compare
// within one run.
namespace ankole::io {
namespace {

constexpr size_t kRequestBytes = 40;
constexpr size_t kAnswerBytes = kRequestBytes + 4096;
constexpr size_t kFileBytes = 64 * kMiB;
constexpr size_t kDepthMax = 128;
// A client has its answer, and asks again, before the send of that answer is done here.
constexpr size_t kSlots = 2 * kDepthMax;

struct Client {
  int fd;
  int depth;
  int operations;
  uint64_t took_ns = 0;
  static void* Run(void* argument);
};

uint64_t MonotonicNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

// Keeps `depth` requests outstanding, with plain blocking calls, the same for both back ends.
void* Client::Run(void* argument) {
  auto* const self = static_cast<Client*>(argument);
  std::vector<char> requests(kDepthMax * kRequestBytes), in(1 * kMiB);
  const uint64_t start_ns = MonotonicNs();
  int sent = 0, answered = 0;
  size_t partial = 0;
  while (answered < self->operations) {
    const int more = std::min(self->depth - (sent - answered), self->operations - sent);
    if (more > 0) {
      const auto bytes = static_cast<ssize_t>(static_cast<size_t>(more) * kRequestBytes);
      if (send(self->fd, requests.data(), static_cast<size_t>(bytes), 0) != bytes) break;
      sent += more;
    }
    const ssize_t got = recv(self->fd, in.data(), in.size(), 0);
    if (got <= 0) break;
    partial += static_cast<size_t>(got);
    answered += static_cast<int>(partial / kAnswerBytes);
    partial %= kAnswerBytes;
  }
  self->took_ns = MonotonicNs() - start_ns;
  close(self->fd);
  return nullptr;
}

class Server {
 public:
  Server(Reactor& reactor, Socket socket, File file, bool writes, bool direct)
      : reactor_(reactor), file_(file), writes_(writes) {
    receive_.socket = send_.socket = close_.socket = socket;
    receive_.then = [this](auto&) { Received(); };
    send_.then = [this](auto&) {
      sending_ = false;
      for (const size_t slot : leaving_) free_.push_back(slot);
      leaving_.clear();
      if (!answers_.empty()) reactor_.Defer(&flush_);
    };
    flush_.then = [this](auto&) { Flush(); };
    data_ = static_cast<char*>(std::aligned_alloc(4096, kSlots * 4096));
    std::memset(data_, 0, kSlots * 4096);
    for (size_t i = 0; i < kSlots; ++i) {
      free_.push_back(i);
      operations_[i].file = file_;
      operations_[i].direct = direct;
      operations_[i].vectors[0] = {data_ + i * 4096, 4096};
      operations_[i].vectors_count = 1;
      operations_[i].then = [this, i](auto&) {
        answers_.push_back(i);
        reactor_.Defer(&flush_);
      };
    }
    leaving_.reserve(kSlots);
    answers_.reserve(kSlots);
    ReceiveNext();
  }
  ~Server() { std::free(data_); }

 private:
  void ReceiveNext() {
    receive_.vectors[0] = {in_.data() + filled_, in_.size() - filled_};
    receive_.vectors_count = 1;
    reactor_.Receive(&receive_);
  }

  void Received() {
    if (receive_.result <= 0) {
      reactor_.Close(&close_);
      reactor_.Stop();
      return;
    }
    filled_ += static_cast<size_t>(receive_.result);
    const size_t count = filled_ / kRequestBytes;
    for (size_t i = 0; i < count; ++i) {
      const size_t slot = free_.back();
      free_.pop_back();
      random_ = random_ * 6364136223846793005u + 1442695040888963407u;
      operations_[slot].offset_bytes = (random_ >> 33) % (kFileBytes / 4096) * 4096;
      if (writes_) {
        reactor_.Write(&operations_[slot]);
      } else {
        reactor_.Read(&operations_[slot]);
      }
    }
    filled_ %= kRequestBytes;
    ReceiveNext();
  }

  void Flush() {
    if (sending_ || answers_.empty()) return;
    const size_t taken = std::min(answers_.size(), kDepthMax);
    leaving_.assign(answers_.begin(), answers_.begin() + static_cast<ptrdiff_t>(taken));
    answers_.erase(answers_.begin(), answers_.begin() + static_cast<ptrdiff_t>(taken));
    int count = 0;
    for (const size_t slot : leaving_) {
      vectors_[count++] = {header_.data(), header_.size()};
      vectors_[count++] = {data_ + slot * 4096, 4096};
    }
    send_.vectors = vectors_.data();
    send_.vectors_count = count;
    sending_ = true;
    reactor_.Send(&send_);
  }

  Reactor& reactor_;
  const File file_;
  const bool writes_;
  char* data_;
  std::array<char, kRequestBytes> header_ = {};
  std::array<char, kDepthMax* kRequestBytes> in_ = {};
  size_t filled_ = 0;
  uint64_t random_ = 1;
  bool sending_ = false;
  std::vector<size_t> free_, answers_, leaving_;
  std::array<With<FileOperation>, kSlots> operations_;
  std::array<iovec, SendOperation::kVectorsMax> vectors_ = {};
  With<ReceiveOperation> receive_;
  With<SendOperation> send_;
  With<CloseOperation> close_;
  With<Task> flush_;
};

struct Figures {
  std::vector<double> iops, cpu_us;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

TEST(io_bench, pipelined_requests_on_a_cached_file) {
  if (std::getenv("ANKOLE_BENCH") == nullptr) return test::Skip("set ANKOLE_BENCH=1 to measure");
  const std::string directory = test::TemporaryDirectory();
  const auto files = MakePosixFileSystem();
  auto opened = files->Open(directory + "/data", {.write = true, .create = true, .random = true});
  ASSERT_OK(opened);
  const std::vector<char> zeros(4096);
  for (size_t at = 0; at < kFileBytes; at += 4096) {
    ASSERT_OK(files->WriteAt(opened.value(), at, zeros.data(), zeros.size()));
  }
  ASSERT_OK(files->Sync(opened.value()));
  auto direct = files->Open(directory + "/data", {.write = true, .direct = true});
  std::printf("    %-22s %10s %12s %12s\n", "", "back end", "IOPS", "CPU us/I/O");
  enum Mode { kCachedRead, kBufferedWrite, kDirectRead, kModes };
  const char* const names[] = {"cached read", "buffered write", "direct read"};
  for (int mode = 0; mode < kModes; ++mode) {
    for (const bool tcp : {false, true}) {
      for (const int depth : {1, 32, 128}) {
        Figures figures[2];
        for (int round = 0; round < 5; ++round) {
          for (const Backend backend : {Backend::kEpoll, Backend::kUring}) {
            auto made = MakeReactor({.backend = backend, .probe_directory = directory});
            if (!made.ok()) continue;
            Reactor& reactor = *made.value();
            Pair pair = MakePair(reactor, !tcp);
            const bool is_direct = mode == kDirectRead;
            Client client{pair.client.fd, depth,
                          (depth == 1 ? 10'000 : 60'000) / (is_direct ? 4 : 1)};
            fcntl(client.fd, F_SETFL, 0);
            rusage before, after;
            getrusage(RUSAGE_SELF, &before);
            Server server(reactor, pair.server, is_direct ? direct.value() : opened.value(),
                          mode == kBufferedWrite, is_direct);
            pthread_t thread;
            pthread_create(&thread, nullptr, Client::Run, &client);
            reactor.Loop();
            pthread_join(thread, nullptr);
            getrusage(RUSAGE_SELF, &after);
            const auto us = [](const timeval& time) {
              return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_usec);
            };
            const double cpu =
                us(after.ru_utime) + us(after.ru_stime) - us(before.ru_utime) - us(before.ru_stime);
            Figures& mine = figures[backend == Backend::kUring ? 1 : 0];
            mine.iops.push_back(client.operations * 1e9 / static_cast<double>(client.took_ns));
            mine.cpu_us.push_back(cpu / client.operations);
          }
        }
        for (int i = 0; i < 2; ++i) {
          if (figures[i].iops.empty()) continue;
          std::printf("    %-14s %4s %3d %10s %12.0f %12.2f\n", names[mode], tcp ? "tcp" : "unix",
                      depth, i == 0 ? "epoll" : "uring", Median(figures[i].iops),
                      Median(figures[i].cpu_us));
          std::fflush(stdout);
        }
      }
    }
  }
  files->Close(opened.value());
  files->Close(direct.value());
}

}  // namespace
}  // namespace ankole::io
