#include "iscsi/scripted_testing.h"

namespace ankole::iscsi {

ScriptedBench::ScriptedBench()
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

ScriptedBench::~ScriptedBench() {
  bool stopped = false;
  server.Shutdown([&] { stopped = true; });
  server.Abort();
  reactor.Turn();
  CHECK(stopped);
}

void ScriptedBench::GivePdu(BasicHeader header, const std::string& data) {
  header.data_bytes = static_cast<uint32_t>(data.size());
  const auto raw = As<std::array<uint8_t, kHeaderBytes>>(header);
  reactor.Give(raw.data(), raw.size());
  std::string padded = data;
  padded.resize(data.size() + PadBytes(header.data_bytes));
  if (!padded.empty()) {
    reactor.Give(reinterpret_cast<const uint8_t*>(padded.data()), padded.size());
  }
}

void ScriptedBench::LogIn() {
  LoginRequest request;
  request.opcode = static_cast<uint8_t>(Opcode::kLoginRequest) | kFlagImmediate;
  request.flags = 0x87;
  Give(request, Texts({"InitiatorName=" + kInitiator, "TargetName=" + kTarget}));
  CHECK(reactor.Take());
  CHECK(server.sessions() == 1);
}

std::string ScriptedBench::Taken() {
  std::string bytes;
  reactor.Take(&bytes);
  return bytes;
}

}  // namespace ankole::iscsi
