#pragma once

#include <memory>
#include <string>
#include <vector>

#include "iscsi/server_testing.h"
#include "nbd/scripted_reactor.h"

// A target over a volume in memory, on a reactor without a kernel: what it receives, what it has
// sent, and the time are moved by the test alone.
namespace ankole::iscsi {

class ListLog final : public LogSink {
 public:
  void Log(LogLevel, const std::string& message) override { lines.push_back(message); }
  std::vector<std::string> lines;
};

struct ScriptedBench {
  ScriptedBench()
      : pool(BufferPool::Create("iscsi-time", 400, 10, 10).Take()),
        device(reactor, *pool, "volume", kMiB),
        unit(reactor, device, log, {kTarget, "serial"}),
        server(reactor, device, unit, log, {kTarget, {}}) {
    unit.Start([](const Status& status) { CHECK(status.ok()); });
    reactor.Turn();
    io::Address bound;
    CHECK(server.Listen({}, &bound).ok());
    reactor.Knock();
  }
  ~ScriptedBench() {
    bool stopped = false;
    server.Shutdown([&] { stopped = true; });
    server.Abort();
    reactor.Turn();
    CHECK(stopped);
  }
  template <typename Header>
  void Give(Header header, const std::string& data = "") {
    header.data_bytes = static_cast<uint32_t>(data.size());
    const auto raw = As<std::array<uint8_t, kHeaderBytes>>(header);
    reactor.Give(raw.data(), raw.size());
    std::string padded = data;
    padded.resize(data.size() + PadBytes(header.data_bytes));
    if (!padded.empty()) {
      reactor.Give(reinterpret_cast<const uint8_t*>(padded.data()), padded.size());
    }
  }
  void LogIn() {
    LoginRequest request;
    request.opcode = static_cast<uint8_t>(Opcode::kLoginRequest) | kFlagImmediate;
    request.flags = 0x87;
    Give(request, Texts({"InitiatorName=" + kInitiator, "TargetName=" + kTarget}));
    CHECK(reactor.Take());
    CHECK(server.sessions() == 1);
  }
  // What the target has sent, or nothing.
  std::string Taken() {
    std::string bytes;
    reactor.Take(&bytes);
    return bytes;
  }

  nbd::ScriptedReactor reactor;
  std::unique_ptr<BufferPool> pool;
  ListLog log;
  io::MemoryDevice device;
  scsi::LogicalUnit unit;
  Server server;
};

}  // namespace ankole::iscsi
