#include "nbd/scripted_reactor.h"
#include "nbd/server_testing.h"

namespace ankole::nbd {
namespace {

struct Script {
  std::unique_ptr<BufferPool> pool = BufferPool::Create("nbd-test", 20, 4, 4).Take();
  ScriptedReactor reactor;
  TestLog log;
  MemoryDevice device{reactor, *pool, "volume", 2 * kMiB};
  Server server{reactor, device, log};
  Script() {
    io::Address bound;
    CHECK(server.Listen({}, &bound).ok());
    reactor.Knock();
  }
  ~Script() {
    server.Shutdown([] {});
    server.Abort();
    reactor.Turn();
  }
  void Give(const Bytes& bytes) {
    reactor.Give(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
  Bytes Flags() {
    Bytes bytes(4);
    StoreBig32(bytes.data(), kHandshakeFlags);
    return bytes;
  }
  Bytes Option(nbd::Option option) {
    Bytes bytes(kOptionHeaderBytes);
    Encoder encoder(bytes.data());
    encoder.U64(kOptionMagic);
    encoder.U32(static_cast<uint32_t>(option));
    encoder.U32(0);
    return bytes;
  }
};

TEST(nbd, a_handshake_must_end_in_time) {
  for (const int steps : {0, 1, 2}) {
    Script script;
    script.reactor.Take();
    if (steps > 0) script.Give(script.Flags());
    // Reads no reply, and stays talkative.
    if (steps > 1) script.Give(script.Option(Option::kList));
    script.reactor.MoveTime(kHandshakeTimeoutNs - 1);
    EXPECT_EQ(script.server.connections(), 1u);
    script.reactor.MoveTime(1);
    EXPECT_EQ(script.server.connections(), 0u);
    EXPECT_EQ(script.log.Count("did not finish its handshake in time"), 1u);
  }
}

TEST(nbd, a_goodbye_that_is_not_taken_ends_in_time) {
  Script script;
  script.reactor.Take();
  script.Give(script.Flags());
  script.Give(script.Option(Option::kAbort));
  EXPECT_EQ(script.server.connections(), 1u);
  script.reactor.MoveTime(kHandshakeTimeoutNs);
  EXPECT_EQ(script.server.connections(), 0u);
}

TEST(nbd, a_client_may_be_idle_for_ever) {
  Script script;
  script.reactor.Take();
  script.Give(script.Flags());
  script.Give(script.Option(Option::kExportName));
  script.reactor.Take();
  script.reactor.MoveTime(1000 * kHandshakeTimeoutNs);
  EXPECT_EQ(script.server.connections(), 1u);
  EXPECT_EQ(script.log.size(), 0u);
}

// Sixteen replies that became ready in one turn leave in one Send.
TEST(nbd, replies_of_a_turn_leave_together) {
  Script script;
  script.reactor.Take();
  script.Give(script.Flags());
  script.Give(script.Option(Option::kExportName));
  script.reactor.Take();
  Bytes requests;
  for (uint64_t i = 0; i < 16; ++i) {
    const Bytes header = Client::RequestHeader(Command::kWrite, i, i * 512, 512);
    requests.insert(requests.end(), header.begin(), header.end());
    requests.resize(requests.size() + 512);
  }
  script.Give(requests);
  std::string replies;
  script.reactor.Take(&replies);
  EXPECT_EQ(replies.size(), 16 * sizeof(SimpleReplyBytes));
}

}  // namespace
}  // namespace ankole::nbd
