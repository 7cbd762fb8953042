#include "replica/session.h"

#include <array>
#include <deque>
#include <fstream>
#include <map>
#include <random>

#include "base/crc32c.h"
#include "replica/session_mode.h"
#include "replica/session_testing.h"
#include "wire/regions.h"

namespace ankole::replica {
namespace {

using testing::ARecord;
using testing::Client;
using testing::kEpoch;
using testing::kId;
using testing::Opcode;
using testing::Pattern;
using testing::ReceivedFrame;
using testing::RunningHost;

// --- the state machine
// -------------------------------------------------------------------------------

TEST(session, NextOverAllModesAndEvents) {
  using Mode = SessionMode;
  using Event = SessionEvent;
  const std::map<std::pair<Mode, Event>, Mode> allowed = {
      {{Mode::kNew, Event::kHello}, Mode::kChallenged},
      {{Mode::kNew, Event::kHelloRefused}, Mode::kNew},
      {{Mode::kChallenged, Event::kProofGood}, Mode::kAuthenticated},
      {{Mode::kChallenged, Event::kProofBad}, Mode::kRefused},
      {{Mode::kAuthenticated, Event::kInquire}, Mode::kAuthenticated},
      {{Mode::kAuthenticated, Event::kPing}, Mode::kAuthenticated},
      {{Mode::kAuthenticated, Event::kWelcome}, Mode::kWelcoming},
      {{Mode::kWelcoming, Event::kPing}, Mode::kWelcoming},
      {{Mode::kWelcoming, Event::kWelcomeDone}, Mode::kWelcomed},
      {{Mode::kWelcoming, Event::kWelcomeRefused}, Mode::kAuthenticated},
      {{Mode::kWelcomed, Event::kData}, Mode::kWelcomed},
      {{Mode::kWelcomed, Event::kPing}, Mode::kWelcomed},
      {{Mode::kWelcomed, Event::kInquire}, Mode::kWelcomed},
      {{Mode::kWelcomed, Event::kClose}, Mode::kLeaving},
      {{Mode::kLeaving, Event::kPing}, Mode::kLeaving},
      {{Mode::kLeaving, Event::kCloseDone}, Mode::kAuthenticated},
      {{Mode::kDraining, Event::kCloseDone}, Mode::kDraining},
  };
  for (size_t m = 0; m < kSessionModes; ++m) {
    for (size_t e = 0; e < kSessionEvents; ++e) {
      const auto mode = static_cast<Mode>(m);
      const auto event = static_cast<Event>(e);
      std::optional<Mode> expected;
      if (event == Event::kEnd) {
        expected = Mode::kEnded;
      } else if (event == Event::kStop && mode != Mode::kEnded) {
        expected = Mode::kDraining;
      } else if (const auto found = allowed.find({mode, event}); found != allowed.end()) {
        expected = found->second;
      }
      EXPECT(Next(mode, event) == expected);
      // Data is taken in one mode only (rule 3).
      EXPECT(event != Event::kData || Next(mode, event).has_value() == (mode == Mode::kWelcomed));
    }
  }
}

// --- handshake
// ---------------------------------------------------------------------------------------

TEST(session, HandshakeProvesBothSides) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client client(host.socket_path());
  const ReceivedFrame challenge = client.Hello(kId, kEpoch);
  EXPECT(challenge.status() == ErrorCode::kOk);
  const Result<wire::Challenge> decoded = wire::DecodeChallenge(challenge.payload);
  ASSERT_OK(decoded);
  wire::ChallengeBytes bytes;
  std::memcpy(bytes.data(), challenge.payload.data(), bytes.size());
  wire::Hello hello;
  hello.volume = "demo";
  hello.replica = kId;
  hello.epoch = kEpoch;
  hello.nonce.fill(7);
  EXPECT(wire::ReplicaProof(testing::TestSecret(), wire::EncodeHello(hello), bytes) ==
         decoded.value().proof);
  const Sha256Digest proof = client.Proof(challenge, testing::TestSecret());
  EXPECT(client.Call(Client::Of(Opcode::kAuth), proof.data(), proof.size()).status() ==
         ErrorCode::kOk);
  EXPECT(client.Call(Client::Of(Opcode::kPing)).status() == ErrorCode::kOk);
  const Result<wire::ReplicaState> state = client.Inquire();
  ASSERT_OK(state);
  EXPECT_EQ(state.value().size_bytes, 64 * kMiB);
  EXPECT(!state.value().unclean && !state.value().suspect);
  EXPECT(!state.value().records.current.exists());
  // Reading is for those who were welcomed.
  client.Send(Client::Of(Opcode::kRead, 0, 4096));
  EXPECT(client.WaitForEnd());
  EXPECT(host.Logged({"engine at ", "volume demo", "READ in mode authenticated"}));
}

TEST(session, WrongSecretIsRefusedAndLogged) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client client(host.socket_path());
  Secret wrong = testing::TestSecret();
  wrong[31] ^= 1;
  EXPECT(client.Authenticate(kId, kEpoch, wrong) == ErrorCode::kAuthenticationFailed);
  EXPECT(client.WaitForEnd());
  EXPECT(host.Logged({"engine at ", "volume demo", "the engine's proof is wrong"}));
}

TEST(session, ReplayedProofIsRefused) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client first(host.socket_path());
  const Sha256Digest proof = first.Proof(first.Hello(kId, kEpoch), testing::TestSecret());
  EXPECT(first.Call(Client::Of(Opcode::kAuth), proof.data(), proof.size()).status() ==
         ErrorCode::kOk);
  Client second(host.socket_path());
  second.Hello(kId, kEpoch);
  EXPECT(second.Call(Client::Of(Opcode::kAuth), proof.data(), proof.size()).status() ==
         ErrorCode::kAuthenticationFailed);
}

TEST(session, UnknownReplicaIsNotFound) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client client(host.socket_path());
  const ReceivedFrame answer = client.Hello(0x2222, kEpoch);
  EXPECT(answer.status() == ErrorCode::kNotFound);
  EXPECT_EQ(answer.text(), "disk disk-1 has no replica 0000000000002222 of volume demo");
  EXPECT(client.Hello(kId, kEpoch, "other").status() == ErrorCode::kNotFound);
  // The connection may try again.
  EXPECT(client.Join(kId, kEpoch) == ErrorCode::kOk);
}

TEST(session, NothingButHelloIsAnsweredFirst) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  for (const Opcode opcode : {Opcode::kPing, Opcode::kInquire, Opcode::kWelcome, Opcode::kFlush}) {
    Client client(host.socket_path());
    client.Send(Client::Of(opcode));
    EXPECT(!client.Receive().has_value());
  }
}

// --- rule 3
// ------------------------------------------------------------------------------------------

TEST(session, LowerEpochIsFenced) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client late(host.socket_path());
  Client engine(host.socket_path());
  EXPECT(late.Authenticate(kId, {3, 0}) == ErrorCode::kOk);
  EXPECT(engine.Join(kId, {3, 1}) == ErrorCode::kOk);
  EXPECT(late.WaitForEnd());  // closed by the welcome of a later epoch
  Client again(host.socket_path());
  EXPECT(again.Authenticate(kId, {2, 9}) == ErrorCode::kOk);
  const ReceivedFrame answer = again.Call(Client::Of(Opcode::kWelcome));
  EXPECT(answer.status() == ErrorCode::kFenced);
  EXPECT(answer.text().find("3.1") != std::string::npos);
  // Asking does not harm the one who serves.
  EXPECT(engine.Write(0, Pattern(4096, 1)) == ErrorCode::kOk);
  const Result<wire::ReplicaState> state = again.Inquire();
  ASSERT_OK(state);
  EXPECT(state.value().welcomed == kEpoch);
  EXPECT(state.value().unclean);
}

TEST(session, WelcomedEpochSurvivesTheProcess) {
  const std::string directory = test::TemporaryDirectory();
  {
    RunningHost host(directory);
    host.WaitForEvent("listening");
    host.CreateReplica(kId);
    Client engine(host.socket_path());
    EXPECT(engine.Join(kId, {5, 2}) == ErrorCode::kOk);
    EXPECT(host.Stop());
  }
  RunningHost host(directory);
  host.WaitForEvent("listening");
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, {5, 1}) == ErrorCode::kFenced);
  EXPECT(engine.Call(Client::Of(Opcode::kPing)).status() == ErrorCode::kOk);
}

TEST(session, SecondConnectionOfTheSameEpochTakesOver) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client first(host.socket_path());
  Client second(host.socket_path());
  EXPECT(first.Join(kId, kEpoch) == ErrorCode::kOk);
  EXPECT(first.Write(0, Pattern(4096, 1)) == ErrorCode::kOk);
  EXPECT(second.Join(kId, kEpoch) == ErrorCode::kOk);
  // What the first one sends now is not executed.
  const std::vector<std::byte> data = Pattern(4096, 9);
  first.Send(Client::Of(Opcode::kWrite, 0, 4096), data.data(), data.size());
  EXPECT(first.WaitForEnd());
  EXPECT(second.Read(0, 4096) == Pattern(4096, 1));
  EXPECT(host.Logged({"took over replica 0000000000001111 of volume demo"}));
}

TEST(session, TakeOverWaitsForWhatWasBegun) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  // Many times, as it is a race: a WRITE that was pipelined before the other's WELCOME is either
  // there when the welcome is answered, or never.
  auto first = std::make_unique<Client>(host.socket_path());
  EXPECT(first->Join(kId, kEpoch) == ErrorCode::kOk);
  for (int round = 0; round < 50; ++round) {
    const std::vector<std::byte> data = Pattern(64 * kKiB, static_cast<uint8_t>(round + 1));
    auto second = std::make_unique<Client>(host.socket_path());
    EXPECT(second->Authenticate(kId, kEpoch) == ErrorCode::kOk);
    for (int i = 0; i < 8; ++i) {
      first->Send(Client::Of(Opcode::kWrite, i * data.size(), static_cast<uint32_t>(data.size()),
                             i % 2 == 0 ? wire::kFlagForceUnitAccess : 0),
                  data.data(), data.size());
    }
    EXPECT(second->Call(Client::Of(Opcode::kWelcome)).status() == ErrorCode::kOk);
    std::vector<std::vector<std::byte>> seen;
    for (int i = 0; i < 8; ++i) seen.push_back(second->Read(i * data.size(), 64 * kKiB));
    for (int i = 0; i < 8; ++i) {
      EXPECT(second->Read(i * data.size(), 64 * kKiB) == seen[static_cast<size_t>(i)]);
    }
    first = std::move(second);
  }
}

// --- data
// ----------------------------------------------------------------------------------------------

void WritesAndReads(const std::string& cache) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  const Json created = host.CreateReplica(kId, 64 * kMiB, cache);
  if (created.Find("error") != nullptr) {
    test::Skip(created.Write());
    return;
  }
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  uint64_t offset = 0;
  for (const uint32_t bytes : {512U, 4096U, 7 * 512U, 32 * 1024U, 33 * 1024U, 64 * 1024U,
                               128 * 1024U, 256 * 1024U, 1024 * 1024U}) {
    for (const uint16_t flags : {uint16_t{0}, wire::kFlagForceUnitAccess}) {
      const std::vector<std::byte> data = Pattern(bytes, static_cast<uint8_t>(bytes / 512 + flags));
      EXPECT(engine.Write(offset, data, flags) == ErrorCode::kOk);
      EXPECT(engine.Read(offset, bytes) == data);
      offset += bytes + 512;
    }
  }
  EXPECT(engine.Call(Client::Of(Opcode::kFlush)).status() == ErrorCode::kOk);
  const std::vector<std::byte> zeros(kDataBytesMax);
  EXPECT(engine.Read(48 * kMiB, kDataBytesMax) == zeros);
}

TEST(session, WritesAndReadsOfAllSizes) { WritesAndReads("buffered"); }
TEST(session, WritesAndReadsOfAllSizesDirect) { WritesAndReads("direct"); }

TEST(session, ZeroUnmapAndStatus) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  EXPECT(engine.Write(0, Pattern(256 * kKiB, 3)) == ErrorCode::kOk);
  EXPECT(engine.Call(Client::Of(Opcode::kUnmap, 64 * kKiB, 64 * kKiB)).status() == ErrorCode::kOk);
  EXPECT(engine
             .Call(Client::Of(Opcode::kZero, 128 * kKiB, 4096,
                              wire::kFlagForceUnitAccess | wire::kFlagKeepAllocated))
             .status() == ErrorCode::kOk);
  const std::vector<std::byte> zeros(64 * kKiB);
  EXPECT(engine.Read(64 * kKiB, 64 * kKiB) == zeros);
  EXPECT(engine.Read(128 * kKiB, 4096) == std::vector<std::byte>(4096));
  const ReceivedFrame status = engine.Call(Client::Of(Opcode::kStatus, 0, 1 * kMiB));
  EXPECT(status.status() == ErrorCode::kOk);
  const Result<std::vector<BlockExtent>> extents = wire::DecodeExtents(status.payload, 1 * kMiB);
  ASSERT_OK(extents);
  ASSERT(extents.value().size() >= 3);
  EXPECT_EQ(extents.value()[0].length_bytes, 64 * kKiB);
  EXPECT(!extents.value()[0].hole && !extents.value()[0].zero);
  EXPECT(extents.value()[1].hole && extents.value()[1].zero);
  EXPECT_EQ(extents.value()[1].length_bytes, 64 * kKiB);
  EXPECT(extents.value().back().hole && extents.value().back().zero);
}

TEST(session, RangesBeyondTheEndAreRefused) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId, 1 * kMiB);
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  EXPECT(engine.Write(1 * kMiB - 512, Pattern(1024, 1)) == ErrorCode::kOutOfRange);
  EXPECT(engine.Write(1 * kMiB - 512, Pattern(64 * kKiB, 1)) == ErrorCode::kOutOfRange);
  EXPECT(engine.Write(1 * kMiB - 512, Pattern(512, 1)) == ErrorCode::kOk);
  for (const Opcode opcode : {Opcode::kRead, Opcode::kZero, Opcode::kUnmap, Opcode::kStatus}) {
    const ReceivedFrame answer = engine.Call(Client::Of(opcode, 1 * kMiB, 512));
    EXPECT(answer.status() == ErrorCode::kOutOfRange);
    EXPECT_EQ(answer.text(), "the range goes beyond the end of the volume");
  }
  EXPECT(engine.Call(Client::Of(Opcode::kRead, 64 * kTiB, 512)).status() == ErrorCode::kOutOfRange);
}

TEST(session, DataThatDoesNotMatchNeverReachesTheDisk) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  for (const uint32_t bytes : {8192U, 128 * 1024U}) {
    Client engine(host.socket_path());
    EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
    const std::vector<std::byte> good = Pattern(bytes, 1);
    EXPECT(engine.Write(0, good) == ErrorCode::kOk);
    std::vector<std::byte> data = Pattern(bytes, 2);
    wire::Header header = Client::Of(Opcode::kWrite, 0, bytes);
    header.payload_bytes = header.table_bytes() + bytes;
    std::vector<uint32_t> table(header.table_bytes() / 4);
    Crc32cBlocks(data.data(), 0, bytes, table.data());
    header.payload_crc32c = Crc32c(table.data(), header.table_bytes());
    wire::EncodedHeader encoded;
    wire::EncodeHeader(header, encoded);
    data[bytes - 1] ^= std::byte{1};
    engine.SendBytes(encoded, sizeof(encoded));
    engine.SendBytes(table.data(), header.table_bytes());
    engine.SendBytes(data.data(), data.size());
    EXPECT(!engine.Receive().has_value());
    EXPECT(
        host.Logged({"volume demo", "of " + std::to_string(bytes) + " bytes at 0 does not match"}));
    Client again(host.socket_path());
    EXPECT(again.Join(kId, kEpoch) == ErrorCode::kOk);
    EXPECT(again.Read(0, bytes) == good);
  }
}

// --- records
// -------------------------------------------------------------------------------------------

TEST(session, RecordsAreOfTheEpochAndNeverGoBack) {
  const std::string directory = test::TemporaryDirectory();
  {
    RunningHost host(directory);
    host.WaitForEvent("listening");
    host.CreateReplica(kId);
    Client engine(host.socket_path());
    EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
    EXPECT(engine.Record(ARecord({2, 1}, 4)).status() == ErrorCode::kFenced);
    EXPECT(engine.Record(ARecord({4, 1}, 4)).status() == ErrorCode::kFenced);
    EXPECT(engine.Record(ARecord(kEpoch, 4)).status() == ErrorCode::kOk);
    EXPECT(engine.Record(ARecord(kEpoch, 4)).status() == ErrorCode::kOk);
    EXPECT(engine.Record(ARecord(kEpoch, 3)).status() == ErrorCode::kFenced);
    wire::RecordPair other = ARecord(kEpoch, 4);
    other.current.members.Add(0x99);
    EXPECT(engine.Record(other).status() == ErrorCode::kInvalidArgument);
    wire::RecordPair backwards = ARecord(kEpoch, 5);
    backwards.complete.generation = 6;
    EXPECT(engine.Record(backwards).status() == ErrorCode::kInvalidArgument);
    EXPECT(engine.Record(ARecord(kEpoch, 0)).status() == ErrorCode::kFenced);
    // Pipelined ones are held against what was submitted before them.
    std::array<std::byte, wire::kEncodedRecordPairBytes> bytes;
    for (const uint64_t generation : {8, 7}) {
      wire::EncodeRecordPair(ARecord(kEpoch, generation), bytes);
      engine.Send(Client::Of(Opcode::kRecord), bytes.data(), bytes.size());
    }
    std::map<uint64_t, ErrorCode> outcomes;
    for (int i = 0; i < 2; ++i) {
      const auto answer = engine.Receive();
      ASSERT(answer.has_value());
      outcomes[answer->header.tag] = answer->status();
    }
    EXPECT(outcomes.begin()->second == ErrorCode::kOk);
    EXPECT(outcomes.rbegin()->second == ErrorCode::kFenced);
  }
  RunningHost host(directory);
  host.WaitForEvent("listening");
  Client engine(host.socket_path());
  EXPECT(engine.Authenticate(kId, kEpoch) == ErrorCode::kOk);
  const Result<wire::ReplicaState> state = engine.Inquire();
  ASSERT_OK(state);
  EXPECT(state.value().records == ARecord(kEpoch, 8));
}

// --- stop and CLOSE
// --------------------------------------------------------------------------------

TEST(session, CleanAfterCloseAndUncleanWithout) {
  const std::string directory = test::TemporaryDirectory();
  const auto unclean = [&] {
    RunningHost host(directory);
    host.WaitForEvent("listening");
    Client engine(host.socket_path());
    EXPECT(engine.Authenticate(kId, kEpoch) == ErrorCode::kOk);
    const Result<wire::ReplicaState> state = engine.Inquire();
    return state.ok() && state.value().unclean;
  };
  {
    RunningHost host(directory);
    host.WaitForEvent("listening");
    host.CreateReplica(kId);
    Client engine(host.socket_path());
    EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
    EXPECT(engine.Write(0, Pattern(4096, 1)) == ErrorCode::kOk);
    engine.Disconnect();
    EXPECT(host.Logged({"volume demo", "without CLOSE"}));
  }
  EXPECT(unclean());
  {
    RunningHost host(directory);
    host.WaitForEvent("listening");
    Client engine(host.socket_path());
    EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
    EXPECT(engine.Write(0, Pattern(4096, 2)) == ErrorCode::kOk);
    EXPECT(engine.Call(Client::Of(Opcode::kClose)).status() == ErrorCode::kOk);
    // It takes nothing but a new WELCOME, on the same connection too.
    const Result<wire::ReplicaState> state = engine.Inquire();
    ASSERT_OK(state);
    EXPECT(!state.value().unclean);
    EXPECT(engine.Call(Client::Of(Opcode::kWelcome)).status() == ErrorCode::kOk);
    EXPECT(engine.Read(0, 4096) == Pattern(4096, 2));
    EXPECT(engine.Call(Client::Of(Opcode::kClose)).status() == ErrorCode::kOk);
    const std::vector<std::byte> data = Pattern(4096, 3);
    engine.Send(Client::Of(Opcode::kWrite, 0, 4096), data.data(), data.size());
    EXPECT(!engine.Receive().has_value());
  }
  EXPECT(!unclean());
}

TEST(session, StopAnswersWhatIsInFlight) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  const std::vector<std::byte> data = Pattern(4096, 1);
  for (uint64_t i = 0; i < 64; ++i) {
    engine.Send(Client::Of(Opcode::kWrite, i * 4096, 4096, wire::kFlagForceUnitAccess), data.data(),
                data.size());
  }
  EXPECT(engine.Receive().has_value());
  EXPECT(host.Stop());
  size_t answers = 1;
  while (const auto answer = engine.Receive()) {
    EXPECT(answer->status() == ErrorCode::kOk);
    ++answers;
  }
  EXPECT(answers <= 64);
}

TEST(session, StopDoesNotWaitForAStuckEngine) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  // Reads whose answers nobody takes: more than the socket and the session's buffers hold.
  for (uint64_t i = 0; i < 60; ++i) engine.Send(Client::Of(Opcode::kRead, i * kMiB, 1 * kMiB));
  const auto start = std::chrono::steady_clock::now();
  EXPECT(host.Stop());
  EXPECT(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
}

// --- load
// ------------------------------------------------------------------------------------------

// Mixed operations, pipelined, held against a model. As the engine would, none overlaps another
// that is outstanding.
void Pipelines(io::Backend backend, const std::string& cache) {
  RunningHost host(test::TemporaryDirectory(), {.backend = backend});
  host.WaitForEvent("listening");
  constexpr uint64_t kSlots = 64;
  constexpr uint64_t kSlotBytes = 512 * kKiB;
  const Json created = host.CreateReplica(kId, kSlots * kSlotBytes, cache);
  if (created.Find("error") != nullptr) {
    test::Skip(created.Write());
    return;
  }
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  std::mt19937_64 random(test::Seed());
  std::vector<std::vector<std::byte>> model(kSlots, std::vector<std::byte>(kSlotBytes));
  struct Outstanding {
    Opcode opcode;
    uint64_t slot;
    uint64_t at;
    uint32_t length;
  };
  std::map<uint64_t, Outstanding> outstanding;
  std::vector<bool> busy(kSlots);
  const auto take = [&] {
    const auto answer = engine.Receive();
    if (!answer.has_value()) {
      test::Fail(__FILE__, __LINE__, "the connection ended");
      return false;
    }
    const auto found = outstanding.find(answer->header.tag);
    if (found == outstanding.end() || answer->status() != ErrorCode::kOk) {
      test::Fail(__FILE__, __LINE__, "a wrong answer");
      return false;
    }
    const Outstanding request = found->second;
    outstanding.erase(found);
    if (request.slot < kSlots) busy[request.slot] = false;
    if (request.opcode == Opcode::kRead &&
        std::memcmp(answer->data(), model[request.slot].data() + request.at, request.length) != 0) {
      test::Fail(__FILE__, __LINE__, "a read differs from the model");
      return false;
    }
    return true;
  };
  for (int i = 0; i < 500; ++i) {
    while (outstanding.size() >= 48) {
      if (!take()) return;
    }
    const uint64_t slot = random() % kSlots;
    const uint64_t kind = random() % 16;
    if (kind == 0) {
      outstanding[engine.Send(Client::Of(Opcode::kFlush))] = {Opcode::kFlush, kSlots, 0, 0};
      continue;
    }
    if (kind == 1) {
      outstanding[engine.Send(Client::Of(Opcode::kPing))] = {Opcode::kPing, kSlots, 0, 0};
      continue;
    }
    while (busy[slot]) {
      if (!take()) return;
    }
    const uint64_t sectors = kSlotBytes / kSectorBytes;
    const uint64_t at = random() % sectors;
    uint64_t length = 1 + random() % (random() % 4 == 0 ? sectors : 64);
    length = std::min(length, sectors - at);
    Outstanding request = {Opcode::kRead, slot, at * kSectorBytes,
                           static_cast<uint32_t>(length * kSectorBytes)};
    const uint64_t offset = slot * kSlotBytes + request.at;
    std::byte* expected = model[slot].data() + request.at;
    uint64_t tag = 0;
    if (kind < 8) {
      request.opcode = Opcode::kWrite;
      const std::vector<std::byte> data = Pattern(request.length, static_cast<uint8_t>(random()));
      std::memcpy(expected, data.data(), data.size());
      tag = engine.Send(Client::Of(Opcode::kWrite, offset, request.length,
                                   random() % 8 == 0 ? wire::kFlagForceUnitAccess : 0),
                        data.data(), data.size());
    } else if (kind == 8 || kind == 9) {
      request.opcode = kind == 8 ? Opcode::kZero : Opcode::kUnmap;
      std::memset(expected, 0, request.length);
      tag = engine.Send(Client::Of(request.opcode, offset, request.length));
    } else if (kind == 10) {
      request.opcode = Opcode::kStatus;
      tag = engine.Send(Client::Of(Opcode::kStatus, offset, request.length));
    } else {
      tag = engine.Send(Client::Of(Opcode::kRead, offset, request.length));
    }
    busy[slot] = true;
    outstanding[tag] = request;
  }
  while (!outstanding.empty()) {
    if (!take()) return;
  }
  for (uint64_t slot = 0; slot < kSlots; ++slot) {
    EXPECT(engine.Read(slot * kSlotBytes, kSlotBytes) == model[slot]);
  }
}

TEST(session, PipelinedOperationsMatchAModelEpoll) { Pipelines(io::Backend::kEpoll, "buffered"); }
TEST(session, PipelinedOperationsMatchAModelAuto) { Pipelines(io::Backend::kAuto, "buffered"); }
TEST(session, PipelinedOperationsMatchAModelDirect) { Pipelines(io::Backend::kAuto, "direct"); }

TEST(session, PingIsAnsweredWhileReadsWaitForBuffers) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  // Far more than Session::kReadBytesMax, in one go; the answers come in full all the same.
  std::map<uint64_t, Opcode> outstanding;
  for (int i = 0; i < 200; ++i) {
    outstanding[engine.Send(Client::Of(Opcode::kRead, (i % 64) * kMiB, 1 * kMiB))] = Opcode::kRead;
  }
  const uint64_t ping = engine.Send(Client::Of(Opcode::kPing));
  outstanding[ping] = Opcode::kPing;
  size_t before_ping = 0;
  bool pinged = false;
  while (!outstanding.empty()) {
    const auto answer = engine.Receive();
    ASSERT(answer.has_value());
    EXPECT_EQ(outstanding.erase(answer->header.tag), 1U);
    pinged = pinged || answer->header.tag == ping;
    if (!pinged) ++before_ping;
  }
  // It passed reads that waited.
  EXPECT(before_ping < 200);
}

// Answers that the engine does not take hold READ's share of the buffers, and no more.
TEST(session, ReadsThatNobodyTakesDoNotHoldUpWrites) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  for (uint64_t i = 0; i < 60; ++i) engine.Send(Client::Of(Opcode::kRead, i * kMiB, 1 * kMiB));
  const std::vector<std::byte> data = Pattern(1 * kMiB, 5);
  engine.Send(Client::Of(Opcode::kWrite, 63 * kMiB, 1 * kMiB), data.data(), data.size());
  bool written = false;
  for (int i = 0; i < 200 && !written; ++i) {
    const Json counters = host.Request(Json::Object().Set("op", "counters"));
    const Json& replica = counters.Find("result")->Find("replicas")->items()[0];
    written = replica.Find("operations")->Find("write")->Integer("count", 0, 1 << 30).Take() == 1;
    if (!written) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT(written);
  for (int i = 0; i < 61; ++i) EXPECT(engine.Receive().has_value());
}

TEST(session, MoreThanTheBoundOfOperationsIsServedInTurn) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  constexpr size_t kRequests = kSessionOperationsMax + 500;
  std::thread sender([&] {
    for (size_t i = 0; i < kRequests; ++i) {
      engine.Send(Client::Of(Opcode::kRead, i % 1000 * 4096, 4096));
    }
  });
  size_t answers = 0;
  while (answers < kRequests && engine.Receive().has_value()) ++answers;
  EXPECT_EQ(answers, kRequests);
  sender.join();
}

// --- golden trace
// --------------------------------------------------------------------------------------

// One line a frame. What differs from run to run (nonces, proofs) is left out.
std::string Line(const char* direction, const wire::Header& header, const std::string& note) {
  std::string line = std::string(direction) + " " + wire::OpcodeName(header.opcode) + " tag " +
                     std::to_string(header.tag);
  if (header.length_bytes > 0) {
    line += " [" + std::to_string(header.offset_bytes) + ", +" +
            std::to_string(header.length_bytes) + ")";
  }
  if (header.flags != 0) line += " flags " + std::to_string(header.flags);
  if (header.reply) line += std::string(" ") + ErrorCodeName(header.status);
  if (header.payload_bytes > 0) line += " payload " + std::to_string(header.payload_bytes);
  return line + (note.empty() ? "" : "  # " + note) + "\n";
}

TEST(session, ConversationMatchesTheGoldenTrace) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId, 1 * kMiB);
  Client engine(host.socket_path());
  std::string trace;
  uint64_t tag = 0;
  const auto call = [&](wire::Header header, const void* payload = nullptr, size_t bytes = 0) {
    header.tag = ++tag;
    wire::Header shown = header;
    shown.payload_bytes = static_cast<uint32_t>(header.table_bytes() + bytes);
    trace += Line("engine >", shown, "");
    ReceivedFrame answer = engine.Call(header, payload, bytes);
    std::string note;
    if (answer.status() != ErrorCode::kOk) {
      note = answer.text();
    } else if (answer.header.opcode == Opcode::kInquire ||
               answer.header.opcode == Opcode::kWelcome) {
      const Result<wire::ReplicaState> state = wire::DecodeReplicaState(answer.payload);
      if (state.ok()) {
        note = "welcomed " + std::to_string(state.value().welcomed.attachment) + "." +
               std::to_string(state.value().welcomed.run) + ", " +
               wire::Describe(state.value().records.current) + ", " +
               std::to_string(state.value().size_bytes) + " bytes" +
               (state.value().unclean ? ", unclean" : "") +
               (state.value().suspect ? ", suspect" : "");
      }
    } else if (answer.header.opcode == Opcode::kStatus) {
      const auto extents = wire::DecodeExtents(answer.payload, header.length_bytes);
      if (extents.ok()) {
        for (const BlockExtent& extent : extents.value()) {
          note += (note.empty() ? "" : " ") + std::to_string(extent.length_bytes) +
                  (extent.hole ? " hole" : " data") + (extent.zero ? " zero" : "");
        }
      }
    }
    if (answer.status() == ErrorCode::kConnectionLost) {
      trace += "replica > (closed)\n";
    } else {
      trace += Line("replica >", answer.header, note);
    }
    return answer;
  };
  wire::Hello hello;
  hello.volume = "demo";
  hello.epoch = kEpoch;
  hello.replica = 0x2222;
  wire::HelloBytes bytes = wire::EncodeHello(hello);
  call(Client::Of(Opcode::kHello), bytes.data(), bytes.size());
  hello.replica = kId;
  bytes = wire::EncodeHello(hello);
  const ReceivedFrame challenge = call(Client::Of(Opcode::kHello), bytes.data(), bytes.size());
  wire::ChallengeBytes challenged = {};
  ASSERT(challenge.payload.size() == challenged.size());
  std::memcpy(challenged.data(), challenge.payload.data(), challenged.size());
  const Sha256Digest proof = wire::EngineProof(testing::TestSecret(), bytes, challenged);
  call(Client::Of(Opcode::kAuth), proof.data(), proof.size());
  call(Client::Of(Opcode::kInquire));
  call(Client::Of(Opcode::kWelcome));
  std::array<std::byte, wire::kEncodedRecordPairBytes> record;
  wire::EncodeRecordPair(ARecord(kEpoch, 1), record);
  call(Client::Of(Opcode::kRecord), record.data(), record.size());
  wire::EncodeRecordPair(ARecord({2, 1}, 9), record);
  call(Client::Of(Opcode::kRecord), record.data(), record.size());
  const std::vector<std::byte> data = Pattern(16 * kKiB, 1);
  call(Client::Of(Opcode::kWrite, 4096, 4096, wire::kFlagForceUnitAccess), data.data(), 4096);
  call(Client::Of(Opcode::kWrite, 65536, 16384), data.data(), 16384);
  call(Client::Of(Opcode::kWrite, 1 * kMiB, 512), data.data(), 512);
  call(Client::Of(Opcode::kRead, 3584, 1024));
  call(Client::Of(Opcode::kZero, 4096, 4096, wire::kFlagKeepAllocated));
  call(Client::Of(Opcode::kUnmap, 65536, 8192));
  call(Client::Of(Opcode::kStatus, 49152, 49152));
  call(Client::Of(Opcode::kFlush));
  call(Client::Of(Opcode::kPing));
  call(Client::Of(Opcode::kInquire));
  call(Client::Of(Opcode::kClose));
  call(Client::Of(Opcode::kInquire));
  call(Client::Of(Opcode::kFlush));

  const std::string path = std::string(__FILE__).substr(0, std::string(__FILE__).rfind('/')) +
                           "/testdata/conversation.trace";
  if (std::getenv("UPDATE") != nullptr) {
    std::ofstream(path) << trace;
    return;
  }
  std::ifstream file(path);
  const std::string expected((std::istreambuf_iterator<char>(file)), {});
  EXPECT_EQ(trace, expected);
}

}  // namespace
}  // namespace ankole::replica
