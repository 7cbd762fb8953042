#include <random>

#include "io/memory_device.h"
#include "nbd/scripted_reactor.h"
#include "nbd/server.h"

// Drives a whole server with one client through a reactor without a kernel. The first byte chooses
// a handshake that has been made already, the second the slices in which the rest arrives, when
// replies are read and how the device behaves.
namespace ankole::nbd {
namespace {

class NoLog final : public LogSink {
 public:
  void Log(LogLevel, const std::string&) override {}
};

BufferPool& Pool() {
  static BufferPool* pool = BufferPool::Create("nbd-fuzz", 300, 20, 20).Take().release();
  return *pool;
}

std::vector<uint8_t> Handshake(uint8_t choice) {
  std::vector<std::byte> bytes(256);
  Encoder encoder(bytes.data());
  const auto option = [&](Option type, uint32_t length) {
    encoder.U64(kOptionMagic);
    encoder.U32(static_cast<uint32_t>(type));
    encoder.U32(length);
  };
  if (choice % 4 > 0) encoder.U32(kHandshakeFlags);
  if (choice % 4 > 1) option(Option::kStructuredReply, 0);
  if (choice % 4 > 2) {
    option(Option::kSetMetaContext, 4 + 4 + 4 + 15);
    encoder.U32(0);
    encoder.U32(1);
    encoder.U32(15);
    encoder.Text(kAllocationContext);
  }
  if (choice % 4 > 0) option(Option::kExportName, 0);
  const auto* start = reinterpret_cast<const uint8_t*>(bytes.data());
  return {start, start + encoder.bytes()};
}

void Fuzz(const uint8_t* data, size_t size) {
  if (size < 2) return;
  std::vector<uint8_t> stream = Handshake(data[0]);
  stream.insert(stream.end(), data + 2, data + size);
  std::minstd_rand random(data[1] + 1u);
  const auto one_in = [&](unsigned n) { return random() % n == 0; };

  ScriptedReactor reactor;
  NoLog log;
  io::MemoryDevice device(reactor, Pool(), "volume", 2 * kMiB);
  device.shuffled = true;
  if (data[0] & 64) {
    device.fault = [&](const BlockRequest&) {
      return one_in(8) ? ErrorCode::kIoError : ErrorCode::kOk;
    };
  }
  bool stopped = false;
  {
    Server server(reactor, device, log);
    io::Address bound;
    CHECK(server.Listen({}, &bound).ok());
    reactor.Knock();
    std::string replies;
    for (size_t at = 0; server.connections() > 0;) {
      if (one_in(4)) device.held = true;
      if (one_in(3)) device.LetGo();
      if (one_in(2)) {
        replies.clear();
        reactor.Take(&replies);
      }
      if (data[0] & 32 && one_in(200)) break;
      if (reactor.receiving() && one_in(2)) {
        if (at == stream.size()) break;
        const size_t slice = 1 + random() % (one_in(2) ? 40 : 70'000);
        at += reactor.Give(stream.data() + at, std::min(slice, stream.size() - at));
      }
      reactor.Turn();
      CHECK(server.held_bytes() <= kConnectionBufferBytesMax);
      CHECK(server.held_bytes() == Pool().held_bytes());
    }
    if (server.connections() > 0 && reactor.receiving() && data[0] & 16) reactor.Give(nullptr, 0);
    if (data[0] & 8) reactor.BreakSend();
    server.Shutdown([&] { stopped = true; });
    device.LetGo();
    reactor.Turn();
    while (reactor.Take()) {
    }
    // A client that never gives the rest of a request does not hold up a shutdown.
    CHECK(stopped);
  }
  CHECK(Pool().held_bytes() == 0);
}

}  // namespace
}  // namespace ankole::nbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ankole::nbd::Fuzz(data, size);
  return 0;
}
