#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/test.h"
#include "io/memory_device.h"
#include "io/reactor_testing.h"
#include "nbd/server.h"

// A server over a volume in memory, on a real reactor and real sockets, and a blocking client that
// speaks the protocol by hand.
namespace ankole::nbd {

using Bytes = std::vector<std::byte>;

Bytes RandomBytes(size_t count, uint64_t seed);

class TestLog final : public LogSink {
 public:
  void Log(LogLevel, const std::string& message) override;
  size_t Count(const std::string& part);
  size_t size();

 private:
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

// Waits for what another thread is about to make true; 10 s at most.
bool Eventually(const std::function<bool()>& condition);

class Bench final : BlockDevices {
 public:
  static constexpr uint64_t kSizeBytes = 64 * kMiB;
  static constexpr uint64_t kSnapshotBytes = 4 * kMiB;

  explicit Bench(io::Reactor& on_reactor);
  ~Bench();

  // Runs `body` on the reactor's thread and waits for it.
  void On(const std::function<void()>& body);
  template <typename T>
  T Get(const std::function<T()>& body) {
    T value;
    On([&] { value = body(); });
    return value;
  }
  size_t Held();
  size_t Connections();
  size_t Pending();

  // A hard stop.
  void Stop();
  // A soft one is begun elsewhere and has ended the loop.
  void Join();

  io::Reactor& reactor;

 private:
  BlockDevice* Find(std::string_view name) override {
    return name == snapshot.name() ? &snapshot : nullptr;
  }
  std::unique_ptr<BufferPool> pool_;

 public:
  TestLog log;
  io::MemoryDevice device;
  // Beside the volume, by its name.
  io::MemoryDevice snapshot;
  Server server;
  io::Address bound;

 private:
  std::thread thread_;
  bool stopped_ = false;
};

void OnEachBench(const std::function<void(Bench&)>& body);

struct Answer {
  uint64_t cookie = 0;
  uint32_t error = 0;
  Bytes data;  // of a read
  int chunks = 0;
  std::vector<std::pair<uint32_t, uint32_t>> extents;
  bool lost = false;  // the connection ended instead
};

class Client {
 public:
  explicit Client(const Bench& bench);
  ~Client();
  Client(const Client&) = delete;

  void Close();
  void FinishSending();

  bool Send(const void* from, size_t bytes);
  bool Send(const Bytes& bytes) { return Send(bytes.data(), bytes.size()); }
  // Sends what the socket takes at once.
  size_t SendSome(const Bytes& bytes);
  bool Read(void* to, size_t bytes);
  // The server has closed, and nothing more came.
  bool Ended();

  // --- handshake
  bool Greet(uint32_t flags = kHandshakeFlags);
  bool SendOption(Option option, const std::string& data = "");
  // {reply type, data}; type 0 when the connection ended.
  std::pair<uint32_t, std::string> ReadOptionReply();
  static std::string Name(const std::string& name);
  static std::string InfoData(const std::string& name, const std::vector<Info>& infos = {});
  static std::string ContextData(const std::string& name, const std::vector<std::string>& queries);
  // For those who negotiate by hand.
  void ExpectStructured() { structured_ = true; }
  // The way that a modern client takes (structured), or an old one.
  bool Go(bool structured);

  // --- transmission
  static Bytes RequestHeader(Command command, uint64_t cookie, uint64_t offset, uint32_t length,
                             uint16_t flags = 0);
  bool Ask(Command command, uint64_t cookie, uint64_t offset, uint32_t length, uint16_t flags = 0);
  bool AskWrite(uint64_t cookie, uint64_t offset, const Bytes& data, uint16_t flags = 0);
  Answer Await();
  uint32_t Write(uint64_t offset, const Bytes& data, uint16_t flags = 0);
  Answer ReadAt(uint64_t offset, uint32_t length, uint16_t flags = 0);
  Answer Do(Command command, uint64_t offset, uint32_t length, uint16_t flags = 0);

 private:
  int fd_ = -1;
  bool structured_ = false;
  std::map<uint64_t, std::pair<uint64_t, uint32_t>> reads_;
  std::map<uint64_t, Answer> partial_;
};

}  // namespace ankole::nbd
