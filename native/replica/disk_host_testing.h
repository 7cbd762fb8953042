#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/test.h"
#include "io/reactor.h"
#include "replica/disk_host.h"
#include "wire/hello.h"

// For tests only: a disk host on a reactor and a thread of its own, and a client that speaks the
// protocol by hand over a blocking socket.
namespace ankole::replica::testing {

inline constexpr char kSecretText[] =
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
Secret TestSecret();

class RunningHost final : public EventSink {
 public:
  struct Options {
    io::Backend backend = io::Backend::kAuto;
    std::vector<std::string> listen = {};  // else a Unix socket in the directory and a TCP port
    uint64_t handshake_timeout_ns = kHandshakeTimeoutNs;
    // Makes the reactor that the disk host sees of the real one.
    std::function<std::unique_ptr<io::Reactor>(io::Reactor&)> around = nullptr;
  };
  explicit RunningHost(std::string directory);
  RunningHost(std::string directory, const Options& options);
  ~RunningHost() override;

  std::string socket_path() const { return directory_ + "/disk.sock"; }
  const std::string& directory() const { return directory_; }

  // Waits for an event that fulfils `wanted`; null when it does not come.
  Json WaitFor(const std::function<bool(const Json&)>& wanted, int limit_ms = 10'000);
  Json WaitForEvent(const std::string& name);
  // A line of the log that contains all the words.
  bool Logged(const std::vector<std::string>& words, int limit_ms = 10'000);

  // The whole reply.
  Json Request(Json message);
  Json CreateReplica(wire::ReplicaId id, uint64_t size_bytes = 64 * kMiB,
                     const std::string& cache = "buffered", const std::string& volume = "demo");
  void Post(Json message);
  // False when it did not stop clean.
  bool Stop();
  bool Join();
  std::vector<Json> events();

 private:
  void Emit(const Json& event) override;

  const std::string directory_;
  std::unique_ptr<io::Reactor> reactor_;
  std::unique_ptr<io::Reactor> around_;
  std::unique_ptr<DiskHost> host_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Json> events_;
  int64_t requests_ = 0;
};

struct ReceivedFrame {
  wire::Header header;
  std::vector<std::byte> payload;

  ErrorCode status() const { return header.status; }
  const std::byte* data() const { return payload.data() + header.table_bytes(); }
  std::string text() const;
};

class Client {
 public:
  explicit Client(const std::string& socket_path);
  explicit Client(uint16_t tcp_port);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void Disconnect();

  // Sends a request with the next tag, and returns the tag. Payload CRC and table are filled in.
  uint64_t Send(wire::Header header, const void* payload = nullptr, size_t bytes = 0);
  void SendBytes(const void* bytes, size_t count);
  // The next frame, or nothing when the peer closed (or is silent for `limit_ms`).
  std::optional<ReceivedFrame> Receive(int limit_ms = 10'000);
  // Sends and waits for the answer to it (nothing else is outstanding). An answer that does not
  // come is one with kConnectionLost.
  ReceivedFrame Call(const wire::Header& header, const void* payload = nullptr, size_t bytes = 0);
  // True when the peer closes within the limit, whatever it sends before.
  bool WaitForEnd(int limit_ms = 10'000);

  // --- the protocol ---
  static wire::Header Of(wire::Opcode opcode, uint64_t offset = 0, uint32_t length = 0,
                         uint16_t flags = 0);
  ReceivedFrame Hello(wire::ReplicaId id, wire::Epoch epoch, const std::string& volume = "demo");
  Sha256Digest Proof(const ReceivedFrame& challenge, const Secret& secret);
  // HELLO and AUTH.
  ErrorCode Authenticate(wire::ReplicaId id, wire::Epoch epoch, const Secret& secret = TestSecret(),
                         const std::string& volume = "demo");
  ErrorCode Join(wire::ReplicaId id, wire::Epoch epoch, const std::string& volume = "demo");
  Result<wire::ReplicaState> Inquire();
  ErrorCode Write(uint64_t offset, const std::vector<std::byte>& data, uint16_t flags = 0);
  std::vector<std::byte> Read(uint64_t offset, uint32_t length);
  ReceivedFrame Record(const wire::RecordPair& pair);

 private:
  // A host that stops reading fails a test instead of holding it up.
  void BoundSends() const;
  bool ReceiveBytes(std::byte* to, size_t bytes, int limit_ms);

  int fd_ = -1;
  uint64_t next_tag_ = 1;
  wire::HelloBytes hello_bytes_ = {};
};

std::vector<std::byte> Pattern(size_t bytes, uint8_t seed);

}  // namespace ankole::replica::testing
