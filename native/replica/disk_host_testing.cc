#include "replica/disk_host_testing.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/crc32c.h"

namespace ankole::replica::testing {

Secret TestSecret() { return ParseSecret(kSecretText).Take(); }

RunningHost::RunningHost(std::string directory) : RunningHost(std::move(directory), Options()) {}

RunningHost::RunningHost(std::string directory, const Options& options)
    : directory_(std::move(directory)) {
  auto made =
      io::MakeReactor({.backend = options.backend, .probe_directory = test::TemporaryDirectory()});
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
  if (options.around) around_ = options.around(*reactor_);
  host_ = std::make_unique<DiskHost>(around_ ? *around_ : *reactor_, *this, parsed.Take());
  thread_ = std::thread([this] {
    host_->Start();
    reactor_->Loop();
  });
}

RunningHost::~RunningHost() {
  if (thread_.joinable()) Stop();
}

Json RunningHost::WaitFor(const std::function<bool(const Json&)>& wanted, int limit_ms) {
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

Json RunningHost::WaitForEvent(const std::string& name) {
  return WaitFor([&](const Json& event) {
    return event.Find("event") != nullptr && event.String("event").Take() == name;
  });
}

bool RunningHost::Logged(const std::vector<std::string>& words, int limit_ms) {
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

Json RunningHost::Request(Json message) {
  const int64_t number = ++requests_;
  message.Set("request", number);
  Post(std::move(message));
  return WaitFor([&](const Json& event) {
    return event.Find("reply") != nullptr && event.Integer("reply", 0, 1 << 30).Take() == number;
  });
}

Json RunningHost::CreateReplica(wire::ReplicaId id, uint64_t size_bytes, const std::string& cache,
                                const std::string& volume) {
  return Request(Json::Object()
                     .Set("op", "create-replica")
                     .Set("volume", volume)
                     .Set("id", wire::ReplicaIdText(id))
                     .Set("sizeBytes", size_bytes)
                     .Set("secret", kSecretText)
                     .Set("cache", cache));
}

void RunningHost::Post(Json message) {
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

bool RunningHost::Stop() {
  Post(Json::Object().Set("op", "stop").Set("request", 1'000'000));
  return Join();
}

bool RunningHost::Join() {
  const Json stopped = WaitForEvent("stopped");
  if (stopped.is_null()) test::Fail(__FILE__, __LINE__, "the disk host did not stop");
  thread_.join();
  return !stopped.is_null() && stopped.Bool("clean", false).Take();
}

std::vector<Json> RunningHost::events() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return events_;
}

void RunningHost::Emit(const Json& event) {
  const std::lock_guard<std::mutex> lock(mutex_);
  events_.push_back(event);
  changed_.notify_all();
}

std::string ReceivedFrame::text() const {
  return {reinterpret_cast<const char*>(payload.data()), payload.size()};
}

Client::Client(const std::string& socket_path) {
  fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket_path.c_str(), sizeof(address.sun_path) - 1);
  const int connected = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  BoundSends();
  if (connected != 0) test::Fail(__FILE__, __LINE__, "cannot connect to " + socket_path);
}

Client::Client(uint16_t tcp_port) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(tcp_port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int connected = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  BoundSends();
  if (connected != 0) test::Fail(__FILE__, __LINE__, "cannot connect");
}

Client::~Client() { Disconnect(); }

void Client::Disconnect() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

uint64_t Client::Send(wire::Header header, const void* payload, size_t bytes) {
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

void Client::SendBytes(const void* bytes, size_t count) {
  const auto* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t sent = test::Uninterrupted([&] { return send(fd_, at, count, MSG_NOSIGNAL); });
    if (sent <= 0) return;  // closed: the next Receive says so
    at += sent;
    count -= static_cast<size_t>(sent);
  }
}

std::optional<ReceivedFrame> Client::Receive(int limit_ms) {
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

ReceivedFrame Client::Call(const wire::Header& header, const void* payload, size_t bytes) {
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

bool Client::WaitForEnd(int limit_ms) {
  char byte;
  while (true) {
    pollfd wait = {fd_, POLLIN, 0};
    if (test::Uninterrupted([&] { return poll(&wait, 1, limit_ms); }) <= 0) return false;
    if (test::Uninterrupted([&] { return recv(fd_, &byte, 1, 0); }) <= 0) return true;
  }
}

wire::Header Client::Of(wire::Opcode opcode, uint64_t offset, uint32_t length, uint16_t flags) {
  wire::Header header;
  header.opcode = opcode;
  header.offset_bytes = offset;
  header.length_bytes = length;
  header.flags = flags;
  return header;
}

ReceivedFrame Client::Hello(wire::ReplicaId id, wire::Epoch epoch, const std::string& volume) {
  wire::Hello hello;
  hello.volume = volume;
  hello.replica = id;
  hello.epoch = epoch;
  hello.nonce.fill(7);
  hello_bytes_ = wire::EncodeHello(hello);
  return Call(Of(wire::Opcode::kHello), hello_bytes_.data(), hello_bytes_.size());
}

Sha256Digest Client::Proof(const ReceivedFrame& challenge, const Secret& secret) {
  wire::ChallengeBytes bytes = {};
  if (challenge.payload.size() == bytes.size()) {
    std::memcpy(bytes.data(), challenge.payload.data(), bytes.size());
  }
  return wire::EngineProof(secret, hello_bytes_, bytes);
}

ErrorCode Client::Authenticate(wire::ReplicaId id, wire::Epoch epoch, const Secret& secret,
                               const std::string& volume) {
  const ReceivedFrame challenge = Hello(id, epoch, volume);
  if (challenge.status() != ErrorCode::kOk) return challenge.status();
  const Sha256Digest proof = Proof(challenge, secret);
  return Call(Of(wire::Opcode::kAuth), proof.data(), proof.size()).status();
}

ErrorCode Client::Join(wire::ReplicaId id, wire::Epoch epoch, const std::string& volume) {
  const ErrorCode status = Authenticate(id, epoch, TestSecret(), volume);
  if (status != ErrorCode::kOk) return status;
  return Call(Of(wire::Opcode::kWelcome)).status();
}

Result<wire::ReplicaState> Client::Inquire() {
  const ReceivedFrame frame = Call(Of(wire::Opcode::kInquire));
  if (frame.status() != ErrorCode::kOk) return Status(frame.status(), frame.text());
  return wire::DecodeReplicaState(frame.payload);
}

ErrorCode Client::Write(uint64_t offset, const std::vector<std::byte>& data, uint16_t flags) {
  return Call(Of(wire::Opcode::kWrite, offset, static_cast<uint32_t>(data.size()), flags),
              data.data(), data.size())
      .status();
}

std::vector<std::byte> Client::Read(uint64_t offset, uint32_t length) {
  const ReceivedFrame frame = Call(Of(wire::Opcode::kRead, offset, length));
  if (frame.status() != ErrorCode::kOk) return {};
  return {frame.data(), frame.data() + length};
}

ReceivedFrame Client::Record(const wire::RecordPair& pair) {
  std::array<std::byte, wire::kEncodedRecordPairBytes> bytes;
  wire::EncodeRecordPair(pair, bytes);
  return Call(Of(wire::Opcode::kRecord), bytes.data(), bytes.size());
}

void Client::BoundSends() const {
  const timeval limit = {.tv_sec = 10, .tv_usec = 0};
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

bool Client::ReceiveBytes(std::byte* to, size_t bytes, int limit_ms) {
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

std::vector<std::byte> Pattern(size_t bytes, uint8_t seed) {
  std::vector<std::byte> data(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    data[i] = static_cast<std::byte>(seed + i / kSectorBytes * 7 + i);
  }
  return data;
}

}  // namespace ankole::replica::testing
