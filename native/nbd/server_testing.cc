#include "nbd/server_testing.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <future>
#include <random>

namespace ankole::nbd {

Bytes RandomBytes(size_t count, uint64_t seed) {
  Bytes bytes(count);
  std::mt19937_64 random(seed);
  for (size_t at = 0; at < count; at += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, std::min<size_t>(8, count - at));
  }
  return bytes;
}

void TestLog::Log(LogLevel, const std::string& message) {
  const std::lock_guard lock(mutex_);
  lines_.push_back(message);
}

size_t TestLog::Count(const std::string& part) {
  const std::lock_guard lock(mutex_);
  return static_cast<size_t>(std::count_if(lines_.begin(), lines_.end(), [&](const auto& line) {
    return line.find(part) != std::string::npos;
  }));
}

size_t TestLog::size() {
  const std::lock_guard lock(mutex_);
  return lines_.size();
}

bool Eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

Bench::Bench(io::Reactor& on_reactor)
    : reactor(on_reactor),
      pool_(BufferPool::Create("nbd-test", 600, 40, 40).Take()),
      device(reactor, *pool_, "volume", kSizeBytes),
      snapshot(reactor, *pool_, "volume@before-upgrade", kSnapshotBytes),
      server(reactor, device, log, this) {
  snapshot.write_protected = true;
  std::fill(snapshot.bytes().begin(), snapshot.bytes().end(), std::byte{7});
  const Status listening = server.Listen({false, "127.0.0.1", 0}, &bound);
  CHECK(listening.ok());
  thread_ = std::thread([this] { reactor.Loop(); });
}

Bench::~Bench() {
  if (!stopped_) Stop();
  CHECK(pool_->held_bytes() == 0);
}

void Bench::On(const std::function<void()>& body) {
  std::promise<void> done;
  io::With<io::Message> message;
  message.then = [&](auto&) {
    body();
    done.set_value();
  };
  reactor.Post(&message);
  done.get_future().wait();
}

size_t Bench::Held() {
  return Get<size_t>([&] { return server.held_bytes(); });
}

size_t Bench::Connections() {
  return Get<size_t>([&] { return server.connections(); });
}

size_t Bench::Pending() {
  return Get<size_t>([&] { return device.pending(); });
}

void Bench::Stop() {
  stopped_ = true;
  On([&] {
    server.Shutdown([this] { reactor.Stop(); });
    server.Abort();
    device.LetGo();
  });
  thread_.join();
}

void Bench::Join() {
  stopped_ = true;
  thread_.join();
}

void OnEachBench(const std::function<void(Bench&)>& body) {
  io::OnEachBackend([&](io::Reactor& reactor) {
    Bench bench(reactor);
    body(bench);
  });
}

Client::Client(const Bench& bench) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience = {20, 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  const int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(bench.bound.port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
}

Client::~Client() { Close(); }

void Client::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

void Client::FinishSending() { shutdown(fd_, SHUT_WR); }

bool Client::Send(const void* from, size_t bytes) {
  const auto* at = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t put = test::Uninterrupted([&] { return send(fd_, at, bytes, MSG_NOSIGNAL); });
    if (put <= 0) return false;
    at += put;
    bytes -= static_cast<size_t>(put);
  }
  return true;
}

size_t Client::SendSome(const Bytes& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t put =
        send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put <= 0) break;
    sent += static_cast<size_t>(put);
  }
  return sent;
}

bool Client::Read(void* to, size_t bytes) {
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = test::Uninterrupted([&] { return recv(fd_, at, bytes, 0); });
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

bool Client::Ended() {
  char byte;
  const ssize_t got = test::Uninterrupted([&] { return recv(fd_, &byte, 1, 0); });
  return got == 0 || (got < 0 && errno == ECONNRESET);
}

bool Client::Greet(uint32_t flags) {
  std::byte greeting[sizeof(GreetingBytes)];
  if (!Read(greeting, sizeof(greeting))) return false;
  CHECK(LoadBig64(greeting) == kServerMagic && LoadBig64(greeting + 8) == kOptionMagic);
  CHECK(LoadBig16(greeting + 16) == kHandshakeFlags);
  std::byte bytes[4];
  StoreBig32(bytes, flags);
  return Send(bytes, 4);
}

bool Client::SendOption(Option option, const std::string& data) {
  Bytes bytes(kOptionHeaderBytes + data.size());
  Encoder encoder(bytes.data());
  encoder.U64(kOptionMagic);
  encoder.U32(static_cast<uint32_t>(option));
  encoder.U32(static_cast<uint32_t>(data.size()));
  encoder.Text(data);
  return Send(bytes);
}

std::pair<uint32_t, std::string> Client::ReadOptionReply() {
  std::byte header[sizeof(OptionReplyBytes)];
  if (!Read(header, sizeof(header))) return {0, ""};
  CHECK(LoadBig64(header) == kOptionReplyMagic);
  std::string data(LoadBig32(header + 16), 0);
  if (!Read(data.data(), data.size())) return {0, ""};
  return {LoadBig32(header + 12), data};
}

std::string Client::Name(const std::string& name) {
  std::string data(4, 0);
  StoreBig32(data.data(), static_cast<uint32_t>(name.size()));
  return data + name;
}

std::string Client::InfoData(const std::string& name, const std::vector<Info>& infos) {
  std::string data = Name(name) + std::string(2 + 2 * infos.size(), 0);
  char* at = data.data() + 4 + name.size();
  StoreBig16(at, static_cast<uint16_t>(infos.size()));
  for (size_t i = 0; i < infos.size(); ++i) {
    StoreBig16(at + 2 + 2 * i, static_cast<uint16_t>(infos[i]));
  }
  return data;
}

std::string Client::ContextData(const std::string& name, const std::vector<std::string>& queries) {
  std::string data = Name(name) + std::string(4, 0);
  StoreBig32(data.data() + 4 + name.size(), static_cast<uint32_t>(queries.size()));
  for (const auto& query : queries) data += Name(query);
  return data;
}

bool Client::Go(bool structured) {
  if (!Greet()) return false;
  structured_ = structured;
  if (structured) {
    SendOption(Option::kStructuredReply);
    if (ReadOptionReply().first != 1) return false;
    SendOption(Option::kSetMetaContext, ContextData("volume", {"base:allocation"}));
    if (ReadOptionReply().first != 4 || ReadOptionReply().first != 1) return false;
  }
  SendOption(Option::kGo, InfoData("volume"));
  while (true) {
    const auto [type, data] = ReadOptionReply();
    if (type == 1) return true;
    if (type != 3) return false;
  }
}

Bytes Client::RequestHeader(Command command, uint64_t cookie, uint64_t offset, uint32_t length,
                            uint16_t flags) {
  Bytes bytes(kRequestHeaderBytes);
  Encoder encoder(bytes.data());
  encoder.U32(kRequestMagic);
  encoder.U16(flags);
  encoder.U16(static_cast<uint16_t>(command));
  encoder.U64(cookie);
  encoder.U64(offset);
  encoder.U32(length);
  return bytes;
}

bool Client::Ask(Command command, uint64_t cookie, uint64_t offset, uint32_t length,
                 uint16_t flags) {
  if (command == Command::kRead) reads_[cookie] = {offset, length};
  return Send(RequestHeader(command, cookie, offset, length, flags));
}

bool Client::AskWrite(uint64_t cookie, uint64_t offset, const Bytes& data, uint16_t flags) {
  Bytes bytes =
      RequestHeader(Command::kWrite, cookie, offset, static_cast<uint32_t>(data.size()), flags);
  bytes.insert(bytes.end(), data.begin(), data.end());
  return Send(bytes);
}

Answer Client::Await() {
  Answer lost;
  lost.lost = true;
  while (true) {
    std::byte header[sizeof(StructuredReplyBytes)];
    if (!Read(header, 4)) return lost;
    const uint32_t magic = LoadBig32(header);
    if (magic == kSimpleReplyMagic) {
      if (!Read(header + 4, sizeof(SimpleReplyBytes) - 4)) return lost;
      Answer answer;
      answer.error = LoadBig32(header + 4);
      answer.cookie = LoadBig64(header + 8);
      const auto read = reads_.find(answer.cookie);
      if (read != reads_.end()) {
        CHECK(!structured_);
        if (answer.error == 0) {
          answer.data.resize(read->second.second);
          if (!Read(answer.data.data(), answer.data.size())) return lost;
        }
        reads_.erase(read);
      }
      return answer;
    }
    CHECK(magic == kStructuredReplyMagic && structured_);
    if (!Read(header + 4, sizeof(header) - 4)) return lost;
    const uint16_t flags = LoadBig16(header + 4);
    const uint64_t cookie = LoadBig64(header + 8);
    Bytes payload(LoadBig32(header + 16));
    if (!Read(payload.data(), payload.size())) return lost;
    Answer& answer = partial_[cookie];
    answer.cookie = cookie;
    ++answer.chunks;
    switch (static_cast<ReplyChunk>(LoadBig16(header + 6))) {
      case ReplyChunk::kOffsetData: {
        const auto [offset, length] = reads_.at(cookie);
        answer.data.resize(length);
        const uint64_t at = LoadBig64(payload.data()) - offset;
        CHECK(at + payload.size() - 8 <= length);
        std::memcpy(answer.data.data() + at, payload.data() + 8, payload.size() - 8);
        break;
      }
      case ReplyChunk::kBlockStatus:
        CHECK(LoadBig32(payload.data()) == kAllocationContextId);
        for (size_t i = 4; i < payload.size(); i += 8) {
          answer.extents.emplace_back(LoadBig32(&payload[i]), LoadBig32(&payload[i + 4]));
        }
        break;
      case ReplyChunk::kError:
        answer.error = LoadBig32(payload.data());
        break;
    }
    if ((flags & kReplyDone) == 0) continue;
    Answer whole = std::move(answer);
    partial_.erase(cookie);
    reads_.erase(cookie);
    return whole;
  }
}

uint32_t Client::Write(uint64_t offset, const Bytes& data, uint16_t flags) {
  AskWrite(1, offset, data, flags);
  return Await().error;
}

Answer Client::ReadAt(uint64_t offset, uint32_t length, uint16_t flags) {
  Ask(Command::kRead, 2, offset, length, flags);
  return Await();
}

Answer Client::Do(Command command, uint64_t offset, uint32_t length, uint16_t flags) {
  Ask(command, 3, offset, length, flags);
  return Await();
}

}  // namespace ankole::nbd
