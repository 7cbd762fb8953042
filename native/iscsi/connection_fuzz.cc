#include <random>

#include "io/memory_device.h"
#include "iscsi/server.h"
#include "nbd/scripted_reactor.h"

// Drives a whole server with one initiator through a reactor without a kernel. The first byte
// chooses a login that has been made already, the second the slices in which the rest arrives, when
// answers are read and how the device behaves. The rest is PDUs.
namespace ankole::iscsi {
namespace {

const std::string kTarget = "iqn.t:disk";

class NoLog final : public LogSink {
 public:
  void Log(LogLevel, const std::string&) override {}
};

BufferPool& Pool() {
  static BufferPool* pool = BufferPool::Create("iscsi-fuzz", 500, 80, 40).Take().release();
  return *pool;
}

void Append(std::vector<uint8_t>* stream, const LoginRequest& header, const std::string& text) {
  LoginRequest request = header;
  request.opcode = static_cast<uint8_t>(Opcode::kLoginRequest) | kFlagImmediate;
  request.data_bytes = static_cast<uint32_t>(text.size());
  const auto raw = As<std::array<uint8_t, kHeaderBytes>>(request);
  stream->insert(stream->end(), raw.begin(), raw.end());
  stream->insert(stream->end(), text.begin(), text.end());
  stream->resize(stream->size() + PadBytes(static_cast<uint32_t>(text.size())));
}

// None, or one of four kinds of session.
std::vector<uint8_t> LoggedIn(uint8_t choice) {
  std::vector<uint8_t> stream;
  if (choice % 5 == 0) return stream;
  std::string text;
  AppendPair(&text, "InitiatorName", "iqn.i:host");
  AppendPair(&text, "SessionType", choice % 5 == 1 ? "Discovery" : "Normal");
  AppendPair(&text, "TargetName", kTarget);
  AppendPair(&text, "MaxRecvDataSegmentLength", choice % 5 == 2 ? "512" : "65536");
  AppendPair(&text, "InitialR2T", choice % 5 == 3 ? "Yes" : "No");
  AppendPair(&text, "ImmediateData", choice % 5 == 4 ? "No" : "Yes");
  AppendPair(&text, "MaxOutstandingR2T", "4");
  AppendPair(&text, "MaxBurstLength", choice % 5 == 2 ? "2048" : "262144");
  LoginRequest request;
  request.flags = 0x87;
  request.command_number = 1;
  request.expected_status = 1;
  Append(&stream, request, text);
  return stream;
}

void Fuzz(const uint8_t* data, size_t size) {
  if (size < 2) return;
  std::vector<uint8_t> stream = LoggedIn(data[0]);
  stream.insert(stream.end(), data + 2, data + size);
  std::minstd_rand random(data[1] + 1u);
  const auto one_in = [&](unsigned n) { return random() % n == 0; };

  nbd::ScriptedReactor reactor;
  NoLog log;
  io::MemoryDevice device(reactor, Pool(), "volume", 2 * kMiB);
  bool stopped = false;
  {
    scsi::LogicalUnit unit(reactor, device, log, {kTarget, "serial"});
    bool started = false;
    unit.Start([&](const Status& status) { started = status.ok(); });
    reactor.Turn();
    CHECK(started);
    const size_t idle_bytes = Pool().held_bytes();
    device.shuffled = true;
    if (data[0] & 64) {
      device.fault = [&](const BlockRequest&) {
        return one_in(8) ? ErrorCode::kIoError : ErrorCode::kOk;
      };
    }
    Server server(reactor, device, unit, log, {kTarget, {}});
    io::Address bound;
    CHECK(server.Listen({}, &bound).ok());
    reactor.Knock();
    std::string answers;
    for (size_t at = 0; server.connections() > 0;) {
      if (one_in(4)) device.held = true;
      if (one_in(3)) device.LetGo();
      if (one_in(2)) {
        answers.clear();
        reactor.Take(&answers);
        CHECK(answers.size() % 4 == 0);
      }
      if (data[0] & 128 && one_in(30)) reactor.MoveTime(kPingNs);
      if (data[0] & 32 && one_in(200)) break;
      if (server.connections() > 0 && reactor.receiving() && one_in(2)) {
        if (at == stream.size()) break;
        const size_t slice = 1 + random() % (one_in(2) ? 60 : 70'000);
        at += reactor.Give(stream.data() + at, std::min(slice, stream.size() - at));
      }
      reactor.Turn();
      CHECK(server.held_bytes() <= kSessionBufferBytesMax);
      CHECK(server.held_bytes() + idle_bytes <= Pool().held_bytes());
    }
    if (server.connections() > 0 && reactor.receiving() && data[0] & 16) reactor.Give(nullptr, 0);
    if (data[0] & 8) reactor.BreakSend();
    server.Shutdown([&] { stopped = true; });
    device.LetGo();
    reactor.Turn();
    while (reactor.Take()) {
    }
    // A client that never gives the rest of a PDU does not hold up a shutdown.
    CHECK(stopped);
    CHECK(unit.tasks() == 0);
    CHECK(Pool().held_bytes() == idle_bytes);
  }
  CHECK(Pool().held_bytes() == 0);
}

}  // namespace
}  // namespace ankole::iscsi

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ankole::iscsi::Fuzz(data, size);
  return 0;
}
