#include "wire/connection.h"

#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/crc32c.h"
#include "base/test.h"
#include "wire/scripted_reactor.h"

namespace ankole::wire {
namespace {

std::vector<std::byte> Data(size_t bytes, uint64_t seed) {
  std::vector<std::byte> data(bytes);
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(seed * 31 + i + i / 4096);
  return data;
}

Header WriteHeader(uint64_t tag, const std::vector<std::byte>& data) {
  Header header;
  header.opcode = Opcode::kWrite;
  header.tag = tag;
  header.offset_bytes = tag * kMiB + 512;
  header.length_bytes = static_cast<uint32_t>(data.size());
  header.payload_bytes = header.table_bytes() + header.length_bytes;
  return header;
}

void AppendWrite(uint64_t tag, const std::vector<std::byte>& data, std::vector<std::byte>* to) {
  Header header = WriteHeader(tag, data);
  std::vector<uint32_t> table(header.table_bytes() / 4);
  Crc32cBlocks(data.data(), header.offset_bytes, header.length_bytes, table.data());
  header.payload_crc32c = Crc32c(table.data(), header.table_bytes());
  EncodedHeader encoded;
  EncodeHeader(header, encoded);
  to->insert(to->end(), encoded, encoded + kHeaderBytes);
  const auto* bytes = reinterpret_cast<const std::byte*>(table.data());
  to->insert(to->end(), bytes, bytes + header.table_bytes());
  to->insert(to->end(), data.begin(), data.end());
}

void AppendPing(uint64_t tag, std::vector<std::byte>* to) {
  Header header;
  header.opcode = Opcode::kPing;
  header.tag = tag;
  EncodedHeader encoded;
  EncodeHeader(header, encoded);
  to->insert(to->end(), encoded, encoded + kHeaderBytes);
}

// Keeps what came; refuses as it is told to.
struct Keeper final : Connection::Handler {
  struct Frame {
    Header header;
    std::vector<std::byte> data;
    bool in_place = false;
  };
  std::vector<Frame> frames;
  std::vector<std::byte> large = std::vector<std::byte>(kDataBytesMax);
  std::function<bool()> refuses = [] { return false; };
  Status why;
  size_t closed = 0;

  bool OnFrame(const Header& header, const std::byte* payload, std::byte* data) override {
    if (refuses()) return false;
    Frame frame;
    frame.header = header;
    if (header.carries_data()) {
      EXPECT(DataMatches(header, payload, data));
      frame.data.assign(data, data + header.length_bytes);
      frame.in_place = data != large.data();
    }
    frames.push_back(std::move(frame));
    return true;
  }
  std::byte* LargeData(const Header&) override { return refuses() ? nullptr : large.data(); }
  void OnClosed(const Status& status) override {
    why = status;
    ++closed;
  }
};

void Pump(ScriptedReactor& reactor, Connection& connection, std::span<const std::byte> stream,
          const std::function<size_t()>& piece) {
  for (int idle = 0; connection.open() && idle < 100;) {
    idle = reactor.Deliver(&stream, piece()) ? 0 : idle + 1;
    connection.Resume();
    reactor.Turn();
  }
  EXPECT(!connection.open() || stream.empty());
}

void End(ScriptedReactor& reactor, Connection& connection, Keeper& keeper) {
  if (connection.open()) {
    reactor.Hangup();
    reactor.Turn();
  }
  EXPECT_EQ(keeper.closed, 1U);
}

// However the stream is cut, and whenever the handler has no room, the same frames come.
TEST(wire_connection, FramesDoNotDependOnHowTheStreamIsCut) {
  std::mt19937_64 random(test::Seed());
  const std::vector<size_t> sizes = {512,       4096,        32 * 1024, 32 * 1024 + 512, 0,
                                     64 * 1024, 1024 * 1024, 512,       128 * 1024,      0,
                                     0,         256 * 1024,  40 * 1024};
  std::vector<std::byte> stream;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) {
      AppendPing(i, &stream);
    } else {
      AppendWrite(i, Data(sizes[i], i), &stream);
    }
  }
  for (int round = 0; round < 40 / test::kShare; ++round) {
    ScriptedReactor reactor;
    Keeper keeper;
    keeper.refuses = [&] { return round % 2 == 1 && random() % 3 == 0; };
    Connection connection(reactor, keeper);
    connection.Start({0});
    Pump(reactor, connection, stream, [&]() -> size_t {
      if (round < 2) return SIZE_MAX;
      if (round < 4) return 1000 + random() % 100;
      return 1 + random() % (size_t{1} << random() % 18);
    });
    ASSERT(keeper.frames.size() == sizes.size());
    for (size_t i = 0; i < sizes.size(); ++i) {
      EXPECT_EQ(keeper.frames[i].header.tag, i);
      EXPECT(keeper.frames[i].data == Data(sizes[i], i));
      EXPECT(sizes[i] == 0 ||
             keeper.frames[i].in_place == (sizes[i] <= Connection::kInPlaceBytesMax));
    }
    End(reactor, connection, keeper);
    EXPECT(keeper.why.code() == ErrorCode::kConnectionLost);
  }
}

TEST(wire_connection, EveryCutOfTwoFrames) {
  std::vector<std::byte> stream;
  AppendWrite(1, Data(512, 1), &stream);
  AppendPing(2, &stream);
  for (size_t cut = 0; cut <= stream.size(); cut += test::kStride) {
    ScriptedReactor reactor;
    Keeper keeper;
    Connection connection(reactor, keeper);
    connection.Start({0});
    size_t pieces = 0;
    Pump(reactor, connection, stream,
         [&]() -> size_t { return pieces++ == 0 && cut > 0 ? cut : SIZE_MAX; });
    EXPECT_EQ(keeper.frames.size(), 2U);
    End(reactor, connection, keeper);
  }
}

TEST(wire_connection, MalformedFrameClosesWithTheCause) {
  std::vector<std::byte> stream;
  AppendPing(1, &stream);
  AppendPing(2, &stream);
  stream[kHeaderBytes + kTagAt] ^= std::byte{1};
  ScriptedReactor reactor;
  Keeper keeper;
  Connection connection(reactor, keeper);
  connection.Start({0});
  Pump(reactor, connection, stream, [] { return SIZE_MAX; });
  EXPECT_EQ(keeper.frames.size(), 1U);
  EXPECT_EQ(keeper.closed, 1U);
  EXPECT(keeper.why.code() == ErrorCode::kProtocolError);
  EXPECT_EQ(keeper.why.message(), "replication frame: the header's checksum is wrong");
}

TEST(wire_connection, WrongTableClosesBeforeTheDataIsTaken) {
  for (const size_t bytes : {size_t{4096}, size_t{128 * 1024}}) {
    std::vector<std::byte> stream;
    AppendWrite(1, Data(bytes, 1), &stream);
    stream[kHeaderBytes] ^= std::byte{1};
    ScriptedReactor reactor;
    Keeper keeper;
    Connection connection(reactor, keeper);
    connection.Start({0});
    Pump(reactor, connection, stream, [] { return SIZE_MAX; });
    EXPECT_EQ(keeper.frames.size(), 0U);
    EXPECT_EQ(keeper.closed, 1U);
    EXPECT_EQ(keeper.why.message(), "the payload of WRITE has a wrong checksum");
  }
}

struct Outgoing {
  OutgoingFrame frame;
  std::vector<std::byte> data;
  size_t sent = 0;
};

void Prepare(Outgoing* outgoing, uint64_t tag, size_t data_bytes) {
  outgoing->data = Data(data_bytes, tag);
  Header header;
  header.opcode = Opcode::kHello;
  header.tag = tag;
  header.payload_bytes = static_cast<uint32_t>(data_bytes);
  header.payload_crc32c = Crc32c(outgoing->data.data(), data_bytes);
  EncodeHeader(header, outgoing->frame.header);
  outgoing->frame.table = outgoing->data.data();
  outgoing->frame.table_bytes = static_cast<uint32_t>(data_bytes);
  outgoing->frame.owner = outgoing;
  outgoing->frame.sent = [](OutgoingFrame* frame) { ++static_cast<Outgoing*>(frame->owner)->sent; };
}

TEST(wire_connection, ManyFramesLeaveInOneSend) {
  ScriptedReactor reactor;
  Keeper keeper;
  Connection connection(reactor, keeper);
  connection.Start({0});
  std::vector<Outgoing> frames(50);
  std::vector<std::byte> expected;
  for (size_t i = 0; i < frames.size(); ++i) {
    Prepare(&frames[i], i, 100 * (i % 3));
    expected.insert(expected.end(), frames[i].frame.header, frames[i].frame.header + kHeaderBytes);
    expected.insert(expected.end(), frames[i].data.begin(), frames[i].data.end());
    connection.Push(&frames[i].frame);
  }
  reactor.Turn();
  EXPECT_EQ(reactor.sends, 1U);
  EXPECT(reactor.sent == expected);
  for (const Outgoing& frame : frames) EXPECT(frame.sent == 1 && !frame.frame.pending());
  End(reactor, connection, keeper);
}

TEST(wire_connection, MoreFramesThanOneSendTakesGoOutInOrder) {
  ScriptedReactor reactor;
  Keeper keeper;
  Connection connection(reactor, keeper);
  connection.Start({0});
  std::vector<Outgoing> frames(1000);
  std::vector<std::byte> expected;
  for (size_t i = 0; i < frames.size(); ++i) {
    Prepare(&frames[i], i, 10);
    expected.insert(expected.end(), frames[i].frame.header, frames[i].frame.header + kHeaderBytes);
    expected.insert(expected.end(), frames[i].data.begin(), frames[i].data.end());
    connection.Push(&frames[i].frame);
  }
  reactor.Turn();
  EXPECT(reactor.sends <= 10);
  EXPECT(reactor.sent == expected);
  End(reactor, connection, keeper);
}

TEST(wire_connection, CloseGivesBackFramesThatWereNotSent) {
  ScriptedReactor reactor;
  Keeper keeper;
  Connection connection(reactor, keeper);
  connection.Start({0});
  std::vector<Outgoing> frames(4);
  for (size_t i = 0; i < frames.size(); ++i) {
    Prepare(&frames[i], i, 10);
    connection.Push(&frames[i].frame);
  }
  reactor.Turn(true);  // the send is in flight, and stuck
  connection.Close({ErrorCode::kCancelled, "enough"});
  connection.Close({ErrorCode::kInternal, "the first reason stands"});
  reactor.Turn(true);
  EXPECT_EQ(keeper.closed, 1U);
  EXPECT_EQ(keeper.why.message(), "enough");
  for (const Outgoing& frame : frames) EXPECT(frame.sent == 0 && !frame.frame.pending());
  // It can be started again.
  connection.Start({0});
  std::vector<std::byte> stream;
  AppendPing(3, &stream);
  Pump(reactor, connection, stream, [] { return SIZE_MAX; });
  EXPECT_EQ(keeper.frames.size(), 1U);
  connection.Close({ErrorCode::kCancelled, "enough"});
  reactor.Turn();
  EXPECT_EQ(keeper.closed, 2U);
}

// A frame that was pushed in the turn of the close: the flush that was deferred for it comes first.
TEST(wire_connection, CloseAfterPushInOneTurn) {
  ScriptedReactor reactor;
  Keeper keeper;
  Connection connection(reactor, keeper);
  connection.Start({0});
  Outgoing frame;
  Prepare(&frame, 1, 10);
  connection.Push(&frame.frame);
  connection.Close({ErrorCode::kCancelled, "enough"});
  reactor.Turn();
  EXPECT_EQ(keeper.closed, 1U);
  EXPECT(!frame.frame.pending() && frame.sent == 0);
}

TEST(wire_connection, TrimBetweenFramesLosesNothing) {
  ScriptedReactor reactor;
  Keeper keeper;
  Connection connection(reactor, keeper);
  connection.Start({0});
  std::vector<std::byte> stream;
  AppendWrite(1, Data(4096, 1), &stream);
  for (size_t round = 1; round <= 3; ++round) {
    std::span<const std::byte> incoming = stream;
    reactor.Deliver(&incoming, 100);
    connection.Trim();  // in the middle of a frame: keeps it
    Pump(reactor, connection, incoming, [] { return SIZE_MAX; });
    connection.Trim();
    EXPECT_EQ(keeper.frames.size(), round);
    EXPECT(keeper.frames.back().data == Data(4096, 1));
  }
  End(reactor, connection, keeper);
}

}  // namespace
}  // namespace ankole::wire
