#include <cstring>
#include <thread>

#include "replica/replica_testing.h"
#include "replica/session.h"
#include "replica/session_testing.h"
#include "wire/layers.h"

// What is said about layers over a connection (rule 8).
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

constexpr Opcode kAboutLayers[] = {Opcode::kLayers,    Opcode::kPrepare, Opcode::kSwitch,
                                   Opcode::kSeal,      Opcode::kDelete,  Opcode::kView,
                                   Opcode::kCloseView, Opcode::kChanged};

// A good payload of it, for a layer that there is not.
std::vector<std::byte> PayloadOf(Opcode opcode) {
  const auto copy = [](const auto& bytes) {
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  switch (opcode) {
    case Opcode::kLayers:
      return copy(wire::EncodeLayersRequest(0));
    case Opcode::kPrepare: {
      std::vector<std::byte> bytes(wire::kPrepareBytesMax);
      wire::PrepareRequest request;
      request.name = "monday";
      request.base = "sunday";  // a revert to one that there is not
      bytes.resize(wire::EncodePrepare(request, bytes.data()));
      return bytes;
    }
    case Opcode::kView:
      return copy(wire::EncodeViewRequest({"monday", ""}));
    case Opcode::kCloseView:
      return copy(wire::EncodeViewId(3));
    case Opcode::kChanged:
      return copy(wire::EncodeChangedRequest({"", "monday", 0}));
    default: {
      std::vector<std::byte> bytes(wire::kLayerNameBytes);
      wire::EncodeLayerName("monday", bytes.data());
      return bytes;
    }
  }
}

ErrorCode SendRecord(Client& engine, const wire::RecordPair& pair, uint16_t flags = 0) {
  std::array<std::byte, wire::kEncodedRecordPairBytes> bytes;
  wire::EncodeRecordPair(pair, bytes);
  return engine.Call(Client::Of(Opcode::kRecord, 0, 0, flags), bytes.data(), bytes.size()).status();
}

TEST(session, RequestsAboutLayersAreAnswered) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  EXPECT(!engine.Inquire().value().unsealed);
  for (const Opcode opcode : kAboutLayers) {
    const std::vector<std::byte> payload = PayloadOf(opcode);
    const ReceivedFrame answer = engine.Call(Client::Of(opcode), payload.data(), payload.size());
    EXPECT(answer.status() != ErrorCode::kConnectionLost);
    // Nobody has these; a text says why.
    const bool none = opcode == Opcode::kPrepare || opcode == Opcode::kSwitch ||
                      opcode == Opcode::kSeal || opcode == Opcode::kView ||
                      opcode == Opcode::kChanged;
    if (none) EXPECT(answer.status() != ErrorCode::kOk && !answer.text().empty());
  }
  EXPECT(engine.Call(Client::Of(Opcode::kPing)).status() == ErrorCode::kOk);
}

TEST(session, RequestsAboutLayersThatAreNoneEndTheConnection) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  for (const Opcode opcode : kAboutLayers) {
    const std::vector<std::byte> good = PayloadOf(opcode);
    std::vector<std::byte> wrong = good;  // as long, and its last byte is none of what it may be
    wrong.back() = std::byte{0xff};
    for (const std::vector<std::byte>& payload : {std::vector<std::byte>(), {good[0]}, wrong}) {
      Client engine(host.socket_path());
      EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
      engine.Send(Client::Of(opcode), payload.data(), payload.size());
      EXPECT(engine.WaitForEnd());
    }
    EXPECT(host.Logged({"engine at ", "volume demo", wire::OpcodeName(opcode), ": "}));
  }
  EXPECT(host.Logged({"SEAL: the layer's name goes on after its end"}));
  EXPECT(host.Logged({"VIEW has the wrong length"}));
}

TEST(session, LayersAreForThoseWhoWereWelcomed) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  for (const Opcode opcode : kAboutLayers) {
    Client engine(host.socket_path());
    EXPECT(engine.Authenticate(kId, kEpoch, testing::TestSecret()) == ErrorCode::kOk);
    const std::vector<std::byte> payload = PayloadOf(opcode);
    engine.Send(Client::Of(opcode), payload.data(), payload.size());
    EXPECT(engine.WaitForEnd());
    EXPECT(host.Logged({std::string(wire::OpcodeName(opcode)) + " in mode authenticated"}));
  }
}

// Whether a view is in range only the replica knows: a snapshot may have another size.
TEST(session, AViewThatNobodyOpenedReadsNothing) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  for (const Opcode opcode : {Opcode::kRead, Opcode::kSum, Opcode::kStatus}) {
    wire::Header header = Client::Of(opcode, 1024 * kGiB, 4096);
    header.view = 5;
    const ReceivedFrame answer = engine.Call(header);
    EXPECT(answer.status() != ErrorCode::kOk && answer.status() != ErrorCode::kConnectionLost);
  }
}

// Rule 8: between what is sent before the record and after it the sender has nothing in flight.
TEST(session, ARecordThatNamesALayerIsNotTakenAmongWrites) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  EXPECT(SendRecord(engine, ARecord(kEpoch, 1)) == ErrorCode::kOk);
  const auto beside_a_write = [&](uint64_t region, const wire::RecordPair& pair, uint16_t flags) {
    // The first write to a region waits for a sync of the dirty map.
    const std::vector<std::byte> data = Pattern(4096, 1);
    engine.Send(Client::Of(Opcode::kWrite, region * kRegionBytes, 4096), data.data(), data.size());
    std::array<std::byte, wire::kEncodedRecordPairBytes> bytes;
    wire::EncodeRecordPair(pair, bytes);
    engine.Send(Client::Of(Opcode::kRecord, 0, 0, flags), bytes.data(), bytes.size());
    ErrorCode status = ErrorCode::kConnectionLost;
    for (int i = 0; i < 2; ++i) {
      const std::optional<ReceivedFrame> answer = engine.Receive();
      if (!answer.has_value()) return ErrorCode::kConnectionLost;
      if (answer->header.opcode == Opcode::kRecord) status = answer->status();
    }
    return status;
  };
  wire::RecordPair named = ARecord(kEpoch, 2);
  named.current.newest_snapshot = "monday";
  EXPECT(beside_a_write(0, named, 0) == ErrorCode::kBusy);
  EXPECT(engine.Inquire().value().records.current == ARecord(kEpoch, 1).current);
  // One that names no other is, and so is one of a replica that was made equal.
  EXPECT(beside_a_write(1, ARecord(kEpoch, 2), 0) == ErrorCode::kOk);
  named.current.generation = 3;
  EXPECT(beside_a_write(2, named, wire::kFlagResynced) == ErrorCode::kOk);
  EXPECT_EQ(engine.Inquire().value().records.current.newest_snapshot, "monday");
}

ErrorCode Prepare(Client& engine, const std::string& name, const std::string& base) {
  std::vector<std::byte> bytes(wire::kPrepareBytesMax);
  wire::PrepareRequest request;
  request.name = name;
  request.base = base;
  const size_t size = wire::EncodePrepare(request, bytes.data());
  return engine.Call(Client::Of(Opcode::kPrepare), bytes.data(), size).status();
}

ErrorCode SendName(Client& engine, Opcode opcode, const std::string& name) {
  std::vector<std::byte> bytes(wire::kLayerNameBytes);
  wire::EncodeLayerName(name, bytes.data());
  return engine.Call(Client::Of(opcode), bytes.data(), bytes.size()).status();
}

// Names `newest` by the next record, and waits for no answer.
void SendNext(Client& engine, const std::string& newest, wire::RecordPair* pair) {
  ++pair->current.generation;
  pair->current.newest_snapshot = newest;
  std::array<std::byte, wire::kEncodedRecordPairBytes> bytes;
  wire::EncodeRecordPair(*pair, bytes);
  engine.Send(Client::Of(Opcode::kRecord), bytes.data(), bytes.size());
}

void TakeSnapshot(Client& engine, const std::string& name, wire::RecordPair* pair) {
  EXPECT(Prepare(engine, name, "") == ErrorCode::kOk);
  SendNext(engine, name, pair);
  const std::optional<ReceivedFrame> switched = engine.Receive();
  EXPECT(switched && switched->status() == ErrorCode::kOk);
  EXPECT(engine.Call(Client::Of(Opcode::kFlush)).status() == ErrorCode::kOk);
  EXPECT(SendName(engine, Opcode::kSeal, name) == ErrorCode::kOk);
}

// Its files can be held up.
class HeldReactor final : public FaultyReactor {
 public:
  explicit HeldReactor(io::Reactor& under) : FaultyReactor(under), held_(under.files()) {}
  io::FileSystem& files() override { return held_; }
  CutFiles& held() { return held_; }

 private:
  CutFiles held_;
};

// What the disk host has open is of the head before: it ends the connection, and opens it anew.
TEST(session, ARevertEndsTheConnectionAndTheNextOneReadsTheSnapshot) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  const std::vector<std::byte> old_data = Pattern(4096, 1);
  const std::vector<std::byte> new_data = Pattern(4096, 2);
  wire::RecordPair pair = ARecord(kEpoch, 1);
  {
    Client engine(host.socket_path());
    EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
    EXPECT(SendRecord(engine, pair) == ErrorCode::kOk);
    EXPECT(engine.Write(0, old_data) == ErrorCode::kOk);
    TakeSnapshot(engine, "monday", &pair);
    EXPECT(engine.Write(0, new_data) == ErrorCode::kOk);
    EXPECT(Prepare(engine, "back", "monday") == ErrorCode::kOk);
    SendNext(engine, "back", &pair);
    EXPECT(engine.WaitForEnd());
  }
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  EXPECT_EQ(engine.Inquire().value().records.current.newest_snapshot, "back");
  // The engine sends it once more where it heard no answer.
  EXPECT(SendRecord(engine, pair) == ErrorCode::kOk);
  const ReceivedFrame read = engine.Call(Client::Of(Opcode::kRead, 0, 4096));
  EXPECT(read.status() == ErrorCode::kOk);
  EXPECT(std::memcmp(read.data(), old_data.data(), old_data.size()) == 0);
}

// It ends at once, though a merge may take long: until then nothing could be done that is asked
// for.
TEST(session, ARevertEndsTheConnectionWhileAMergeWaitsForTheDisk) {
  CutFiles* files = nullptr;
  RunningHost::Options options;
  options.around = [&](io::Reactor& reactor) {
    auto around = std::make_unique<HeldReactor>(reactor);
    files = &around->held();
    return around;
  };
  RunningHost host(test::TemporaryDirectory(), options);
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  const std::vector<std::byte> old_data = Pattern(4096, 1);
  wire::RecordPair pair = ARecord(kEpoch, 1);
  {
    Client engine(host.socket_path());
    EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
    EXPECT(SendRecord(engine, pair) == ErrorCode::kOk);
    EXPECT(engine.Write(4096, old_data) == ErrorCode::kOk);
    TakeSnapshot(engine, "monday", &pair);
    EXPECT(engine.Write(0, old_data) == ErrorCode::kOk);
    TakeSnapshot(engine, "tuesday", &pair);
    EXPECT(engine.Write(0, Pattern(4096, 2)) == ErrorCode::kOk);
    EXPECT(Prepare(engine, "back", "tuesday") == ErrorCode::kOk);
    EXPECT(SendName(engine, Opcode::kDelete, "monday") == ErrorCode::kOk);
    files->hold_directory_sync = true;
    while (files->held == 0) std::this_thread::yield();
    SendNext(engine, "back", &pair);
    std::optional<ReceivedFrame> told = engine.Receive();
    // With an answer to the record or without.
    if (told && told->header.opcode == Opcode::kRecord) told = engine.Receive();
    EXPECT(!told && engine.WaitForEnd());
    EXPECT(files->held == 1);
    files->hold_directory_sync = false;
  }
  // Until the step is over whoever comes is sent away as well.
  std::unique_ptr<Client> next;
  ErrorCode joined = ErrorCode::kConnectionLost;
  for (int tries = 0; tries < 10'000 && joined == ErrorCode::kConnectionLost; ++tries) {
    next = std::make_unique<Client>(host.socket_path());
    joined = next->Join(kId, kEpoch);
  }
  ASSERT(joined == ErrorCode::kOk);
  Client& engine = *next;
  EXPECT_EQ(engine.Inquire().value().records.current.newest_snapshot, "back");
  EXPECT(engine.Read(0, 4096) == old_data && engine.Read(4096, 4096) == old_data);
}

}  // namespace
}  // namespace ankole::replica
