#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/crc32c.h"
#include "base/test.h"
#include "io/reactor.h"
#include "replica/disk_host.h"
#include "wire/hello.h"

// For tests only: a disk host on a reactor and a thread of its own, and a client that speaks the
// protocol by hand over a blocking socket.
namespace ankole::replica::testing {

inline constexpr char kSecretText[] =
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
inline Secret TestSecret() { return ParseSecret(kSecretText).Take(); }

class RunningHost final : public EventSink {
 public:
  struct Options {
    io::Backend backend = io::Backend::kAuto;
    std::vector<std::string> listen = {};  // else a Unix socket in the directory and a TCP port
    uint64_t handshake_timeout_ns = kHandshakeTimeoutNs;
  };
  explicit RunningHost(std::string directory) : RunningHost(std::move(directory), Options()) {}
  RunningHost(std::string directory, const Options& options) : directory_(std::move(directory)) {
    auto made = io::MakeReactor(
        {.backend = options.backend, .probe_directory = test::TemporaryDirectory()});
    CHECK(made.ok());
    reactor_ = made.Take();
    Json listen = Json::Array();
    for (const std::string& address : options.listen) listen.Append(address);
    if (options.listen.empty()) listen.Append("unix:" + socket_path()).Append("tcp:127.0.0.1:0");
    const Json config = Json::Object()
                            .Set("disk", "disk-1")
                            .Set("directory", directory_)
                            .Set("listen", std::move(listen));
    Result<DiskHostConfig> parsed = DiskHostConfig::Parse(config);
    CHECK(parsed.ok());
    parsed.value().handshake_timeout_ns = options.handshake_timeout_ns;
    host_ = std::make_unique<DiskHost>(*reactor_, *this, parsed.Take());
    thread_ = std::thread([this] {
      host_->Start();
      reactor_->Loop();
    });
  }
  ~RunningHost() override {
    if (thread_.joinable()) Stop();
  }

  std::string socket_path() const { return directory_ + "/disk.sock"; }
  const std::string& directory() const { return directory_; }

  // Waits for an event that fulfils `wanted`; null when it does not come.
  Json WaitFor(const std::function<bool(const Json&)>& wanted, int limit_ms = 10'000) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(limit_ms);
    size_t seen = 0;
    while (true) {
      for (; seen < events_.size(); ++seen) {
        if (wanted(events_[seen])) return events_[seen];
      }
      if (changed_.wait_until(lock, end) == std::cv_status::timeout) return {};
    }
  }
  Json WaitForEvent(const std::string& name) {
    return WaitFor([&](const Json& event) {
      return event.Find("event") != nullptr && event.String("event").Take() == name;
    });
  }
  // A line of the log that contains all the words.
  bool Logged(const std::vector<std::string>& words, int limit_ms = 10'000) {
    return !WaitFor(
                [&](const Json& event) {
                  if (event.Find("message") == nullptr) return false;
                  const std::string message = event.String("message").Take();
                  for (const std::string& word : words) {
                    if (message.find(word) == std::string::npos) return false;
                  }
                  return true;
                },
                limit_ms)
                .is_null();
  }

  // The whole reply.
  Json Request(Json message) {
    const int64_t number = ++requests_;
    message.Set("request", number);
    Post(std::move(message));
    return WaitFor([&](const Json& event) {
      return event.Find("reply") != nullptr && event.Integer("reply", 0, 1 << 30).Take() == number;
    });
  }
  Json CreateReplica(wire::ReplicaId id, uint64_t size_bytes = 64 * kMiB,
                     const std::string& cache = "buffered", const std::string& volume = "demo") {
    return Request(Json::Object()
                       .Set("op", "create-replica")
                       .Set("volume", volume)
                       .Set("id", wire::ReplicaIdText(id))
                       .Set("sizeBytes", size_bytes)
                       .Set("secret", kSecretText)
                       .Set("cache", cache));
  }
  void Post(Json message) {
    struct Posted : io::Message {
      Json json;
    };
    auto* posted = new Posted();
    posted->json = std::move(message);
    posted->owner = host_.get();
    posted->done = [](io::Operation* operation) {
      const std::unique_ptr<Posted> owned(static_cast<Posted*>(operation));
      static_cast<DiskHost*>(owned->owner)->OnMessage(owned->json);
    };
    reactor_->Post(posted);
  }
  // False when it did not stop clean.
  bool Stop() {
    Post(Json::Object().Set("op", "stop").Set("request", 1'000'000));
    return Join();
  }
  bool Join() {
    const Json stopped = WaitForEvent("stopped");
    if (stopped.is_null()) test::Fail(__FILE__, __LINE__, "the disk host did not stop");
    thread_.join();
    return !stopped.is_null() && stopped.Bool("clean", false).Take();
  }
  std::vector<Json> events() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return events_;
  }

 private:
  void Emit(const Json& event) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    events_.push_back(event);
    changed_.notify_all();
  }

  const std::string directory_;
  std::unique_ptr<io::Reactor> reactor_;
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
  std::string text() const {
    return {reinterpret_cast<const char*>(payload.data()), payload.size()};
  }
};

class Client {
 public:
  explicit Client(const std::string& socket_path) {
    fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, socket_path.c_str(), sizeof(address.sun_path) - 1);
    const int connected = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
    BoundSends();
    if (connected != 0) test::Fail(__FILE__, __LINE__, "cannot connect to " + socket_path);
  }
  explicit Client(uint16_t tcp_port) {
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(tcp_port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int connected = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
    BoundSends();
    if (connected != 0) test::Fail(__FILE__, __LINE__, "cannot connect");
  }
  ~Client() { Disconnect(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void Disconnect() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

  // Sends a request with the next tag, and returns the tag. Payload CRC and table are filled in.
  uint64_t Send(wire::Header header, const void* payload = nullptr, size_t bytes = 0) {
    header.tag = next_tag_++;
    std::vector<std::byte> frame(wire::kHeaderBytes + header.table_bytes() + bytes);
    std::byte* body = frame.data() + wire::kHeaderBytes;
    if (bytes > 0) std::memcpy(body + header.table_bytes(), payload, bytes);
    if (header.carries_data()) {
      std::vector<uint32_t> table(header.table_bytes() / 4);
      Crc32cBlocks(payload, header.offset_bytes, header.length_bytes, table.data());
      std::memcpy(body, table.data(), header.table_bytes());
    }
    header.payload_bytes = static_cast<uint32_t>(header.table_bytes() + bytes);
    header.payload_crc32c =
        Crc32c(body, header.carries_data() ? header.table_bytes() : header.payload_bytes);
    wire::EncodeHeader(header, frame.data());
    SendBytes(frame.data(), frame.size());
    return header.tag;
  }
  void SendBytes(const void* bytes, size_t count) {
    const auto* at = static_cast<const char*>(bytes);
    while (count > 0) {
      const ssize_t sent = test::Uninterrupted([&] { return send(fd_, at, count, MSG_NOSIGNAL); });
      if (sent <= 0) return;  // closed: the next Receive says so
      at += sent;
      count -= static_cast<size_t>(sent);
    }
  }
  // The next frame, or nothing when the peer closed (or is silent for `limit_ms`).
  std::optional<ReceivedFrame> Receive(int limit_ms = 10'000) {
    std::byte head[wire::kHeaderBytes];
    if (!ReceiveBytes(head, sizeof(head), limit_ms)) return std::nullopt;
    Result<wire::Header> header = wire::DecodeHeader(head);
    if (!header.ok()) {
      test::Fail(__FILE__, __LINE__, header.status().message());
      return std::nullopt;
    }
    ReceivedFrame frame;
    frame.header = header.value();
    frame.payload.resize(frame.header.payload_bytes);
    if (!ReceiveBytes(frame.payload.data(), frame.payload.size(), limit_ms)) return std::nullopt;
    if (!wire::PayloadMatches(frame.header, frame.payload.data())) {
      test::Fail(__FILE__, __LINE__, "the payload's checksum is wrong");
    }
    if (frame.header.carries_data() &&
        !wire::DataMatches(frame.header, frame.payload.data(), frame.data())) {
      test::Fail(__FILE__, __LINE__, "the data does not match its table");
    }
    return frame;
  }
  // Sends and waits for the answer to it (nothing else is outstanding). An answer that does not
  // come is one with kConnectionLost.
  ReceivedFrame Call(const wire::Header& header, const void* payload = nullptr, size_t bytes = 0) {
    const uint64_t tag = Send(header, payload, bytes);
    std::optional<ReceivedFrame> frame = Receive();
    ReceivedFrame lost;
    lost.header.status = ErrorCode::kConnectionLost;
    if (!frame.has_value()) return lost;
    if (!frame->header.reply || frame->header.tag != tag || frame->header.opcode != header.opcode) {
      test::Fail(__FILE__, __LINE__, "the answer is not to the request");
    }
    return *frame;
  }
  // True when the peer closes within the limit, whatever it sends before.
  bool WaitForEnd(int limit_ms = 10'000) {
    char byte;
    while (true) {
      pollfd wait = {fd_, POLLIN, 0};
      if (test::Uninterrupted([&] { return poll(&wait, 1, limit_ms); }) <= 0) return false;
      if (test::Uninterrupted([&] { return recv(fd_, &byte, 1, 0); }) <= 0) return true;
    }
  }

  // --- the protocol ---
  static wire::Header Of(wire::Opcode opcode, uint64_t offset = 0, uint32_t length = 0,
                         uint16_t flags = 0) {
    wire::Header header;
    header.opcode = opcode;
    header.offset_bytes = offset;
    header.length_bytes = length;
    header.flags = flags;
    return header;
  }
  ReceivedFrame Hello(wire::ReplicaId id, wire::Epoch epoch, const std::string& volume = "demo") {
    wire::Hello hello;
    hello.volume = volume;
    hello.replica = id;
    hello.epoch = epoch;
    hello.nonce.fill(7);
    hello_bytes_ = wire::EncodeHello(hello);
    return Call(Of(wire::Opcode::kHello), hello_bytes_.data(), hello_bytes_.size());
  }
  Sha256Digest Proof(const ReceivedFrame& challenge, const Secret& secret) {
    wire::ChallengeBytes bytes = {};
    if (challenge.payload.size() == bytes.size()) {
      std::memcpy(bytes.data(), challenge.payload.data(), bytes.size());
    }
    return wire::EngineProof(secret, hello_bytes_, bytes);
  }
  // HELLO and AUTH.
  ErrorCode Authenticate(wire::ReplicaId id, wire::Epoch epoch, const Secret& secret = TestSecret(),
                         const std::string& volume = "demo") {
    const ReceivedFrame challenge = Hello(id, epoch, volume);
    if (challenge.status() != ErrorCode::kOk) return challenge.status();
    const Sha256Digest proof = Proof(challenge, secret);
    return Call(Of(wire::Opcode::kAuth), proof.data(), proof.size()).status();
  }
  ErrorCode Join(wire::ReplicaId id, wire::Epoch epoch, const std::string& volume = "demo") {
    const ErrorCode status = Authenticate(id, epoch, TestSecret(), volume);
    if (status != ErrorCode::kOk) return status;
    return Call(Of(wire::Opcode::kWelcome)).status();
  }
  Result<wire::ReplicaState> Inquire() {
    const ReceivedFrame frame = Call(Of(wire::Opcode::kInquire));
    if (frame.status() != ErrorCode::kOk) return Status(frame.status(), frame.text());
    return wire::DecodeReplicaState(frame.payload);
  }
  ErrorCode Write(uint64_t offset, const std::vector<std::byte>& data, uint16_t flags = 0) {
    return Call(Of(wire::Opcode::kWrite, offset, static_cast<uint32_t>(data.size()), flags),
                data.data(), data.size())
        .status();
  }
  std::vector<std::byte> Read(uint64_t offset, uint32_t length) {
    const ReceivedFrame frame = Call(Of(wire::Opcode::kRead, offset, length));
    if (frame.status() != ErrorCode::kOk) return {};
    return {frame.data(), frame.data() + length};
  }
  ReceivedFrame Record(const wire::RecordPair& pair) {
    std::array<std::byte, wire::kEncodedRecordPairBytes> bytes;
    wire::EncodeRecordPair(pair, bytes);
    return Call(Of(wire::Opcode::kRecord), bytes.data(), bytes.size());
  }

 private:
  // A host that stops reading fails a test instead of holding it up.
  void BoundSends() const {
    const timeval limit = {.tv_sec = 10, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  }
  bool ReceiveBytes(std::byte* to, size_t bytes, int limit_ms) {
    while (bytes > 0) {
      pollfd wait = {fd_, POLLIN, 0};
      if (test::Uninterrupted([&] { return poll(&wait, 1, limit_ms); }) <= 0) return false;
      const ssize_t received = test::Uninterrupted([&] { return recv(fd_, to, bytes, 0); });
      if (received <= 0) return false;
      to += received;
      bytes -= static_cast<size_t>(received);
    }
    return true;
  }

  int fd_ = -1;
  uint64_t next_tag_ = 1;
  wire::HelloBytes hello_bytes_ = {};
};

inline std::vector<std::byte> Pattern(size_t bytes, uint8_t seed) {
  std::vector<std::byte> data(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    data[i] = static_cast<std::byte>(seed + i / kSectorBytes * 7 + i);
  }
  return data;
}

}  // namespace ankole::replica::testing
