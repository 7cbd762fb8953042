#include "nbd/scripted_reactor.h"
#include "nbd/server_testing.h"

namespace ankole::nbd {
namespace {

struct Script {
  std::unique_ptr<BufferPool> pool = BufferPool::Create("nbd-test", 20, 4, 4).Take();
  ScriptedReactor reactor;
  TestLog log;
  io::MemoryDevice device{reactor, *pool, "volume", 2 * kMiB};
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

Bytes Hex(const std::string& text) {
  Bytes bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

// As libnbd 1.14 speaks, recorded: what our own constants cannot get wrong on both sides.
TEST(nbd, a_recorded_conversation) {
  const std::pair<const char*, const char*> exchanges[] = {
      // flags, STRUCTURED_REPLY
      {"0000000349484156454f50540000000800000000", "0003e889045565a9000000080000000100000000"},
      // SET_META_CONTEXT of base:allocation
      {"49484156454f50540000000a0000001b00000000000000010000000f626173653a616c6c6f636174696f6e",
       "0003e889045565a90000000a000000040000001300000001626173653a616c6c6f636174696f6e"
       "0003e889045565a90000000a0000000100000000"},
      // GO, which wants BLOCK_SIZE
      {"49484156454f5054000000070000000800000000"
       "00010003",
       "0003e889045565a900000007000000030000000c0000000000000020000009ed"
       "0003e889045565a900000007000000030000000e0003000002000000100002000000"
       "0003e889045565a9000000070000000100000000"},
      // BLOCK_STATUS
      {"25609513000000070000000000000001000000000000000000100000",
       "668e33ef0001000500000000000000010000000c000000010010000000000003"},
      // WRITE_ZEROES, NO_HOLE and FUA
      {"25609513000300060000000000000002000000000000000000001000",
       "67446698000000000000000000000002"},
      // READ
      {"25609513000000000000000000000003000000000000000000000200",
       "668e33ef000100010000000000000003000002080000000000000000"},
      // FLUSH
      {"25609513000000030000000000000004000000000000000000000000",
       "67446698000000000000000000000004"},
  };
  Script script;
  std::string replies;
  script.reactor.Take(&replies);
  EXPECT(replies == std::string("NBDMAGICIHAVEOPT\0\3", 18));
  for (const auto& [said, expected] : exchanges) {
    script.Give(Hex(said));
    replies.clear();
    EXPECT(script.reactor.Take(&replies));
    Bytes wanted = Hex(expected);
    if (wanted.size() == 28) wanted.resize(28 + 512);  // the data of READ
    EXPECT(replies.size() == wanted.size() &&
           std::memcmp(replies.data(), wanted.data(), wanted.size()) == 0);
  }
  script.Give(Hex("25609513000000020000000000000005000000000000000000000000"));  // DISC
  EXPECT_EQ(script.server.connections(), 0u);
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
