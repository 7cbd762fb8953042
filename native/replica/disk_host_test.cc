#include "replica/disk_host.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "replica/disk_host_testing.h"
#include "replica/snapshots_testing.h"

namespace ankole::replica {
namespace {

using testing::Client;
using testing::Pattern;
using testing::RunningHost;
using wire::Opcode;

constexpr wire::ReplicaId kId = 0x1111;
constexpr wire::ReplicaId kOther = 0x2222;
constexpr wire::Epoch kEpoch = {3, 1};

std::string ErrorOf(const Json& reply) {
  const Json* error = reply.Find("error");
  if (error == nullptr) return "no error: " + reply.Write();
  return error->String("code").Take() + ": " + error->String("message").Take();
}

Json OpOf(const char* op) { return Json::Object().Set("op", op); }

Json RemoveOf(wire::ReplicaId id) {
  return OpOf("remove-replica").Set("volume", "demo").Set("id", wire::ReplicaIdText(id));
}

// The row of list-replicas; null when there is none.
Json Row(RunningHost& host, wire::ReplicaId id) {
  const Json reply = host.Request(OpOf("list-replicas"));
  const Json* result = reply.Find("result");
  if (result == nullptr) return {};
  for (const Json& row : result->Find("replicas")->items()) {
    if (row.String("id").Take() == wire::ReplicaIdText(id)) return row;
  }
  return {};
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A snapshot of what is in it, made before the disk host has it; what that holds.
std::string HaveSnapshot(const std::string& directory, wire::ReplicaId id) {
  std::string content;
  testing::OnEpoll([&](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    CHECK(files.MakeDirectory(directory + "/replicas").ok());
    Identity identity = TestIdentity();
    identity.id = id;
    identity.secret = testing::TestSecret();
    const std::string replica = ReplicaDirectory(directory, "demo", id);
    CHECK(Replica::Create(files, replica, identity, 4 * kMiB).ok());
    Driver driver(files, reactor, replica);
    testing::WriteRecord(driver);
    testing::Write(driver, 0, testing::Text(65536, 's'));
    EXPECT_EQ(testing::Snapshot(driver, "monday"), ErrorCode::kOk);
    content = driver.ReadAll();
    testing::Write(driver, 0, testing::Text(65536, 't'));
    EXPECT(driver.Close(true).ok());
  });
  return content;
}

Json CloneOf(wire::ReplicaId id, const std::string& layer, wire::ReplicaId source = kId) {
  Json members = Json::Array();
  members.Append(wire::ReplicaIdText(id)).Append(wire::ReplicaIdText(0x3333));
  return OpOf("create-replica")
      .Set("volume", "copy")
      .Set("id", wire::ReplicaIdText(id))
      .Set("sizeBytes", 4 * kMiB)
      .Set("secret", testing::kSecretText)
      .Set("clone", Json::Object()
                        .Set("volume", "demo")
                        .Set("replica", wire::ReplicaIdText(source))
                        .Set("layer", layer)
                        .Set("members", std::move(members)));
}

// --- configuration and start
// -------------------------------------------------------------------------

TEST(disk_host, ConfigurationErrorsNameTheField) {
  const auto good = [] {
    return Json::Object()
        .Set("disk", "d")
        .Set("directory", "/data")
        .Set("listen", Json::Array().Append("tcp:127.0.0.1:0"));
  };
  EXPECT(DiskHostConfig::Parse(good()).ok());
  const auto refused = [](Json config, const std::string& field) {
    const Result<DiskHostConfig> parsed = DiskHostConfig::Parse(config);
    EXPECT(!parsed.ok());
    if (!parsed.ok() && !Contains(parsed.status().message(), field)) {
      test::Fail(__FILE__, __LINE__, parsed.status().message() + " does not name " + field);
    }
  };
  refused(Json::Array(), "object");
  refused(good().Set("disk", ""), "disk");
  refused(good().Set("disk", 7), "disk");
  refused(good().Set("directory", "data"), "directory");
  refused(good().Set("directory", Json()), "directory");
  refused(good().Set("listen", Json::Array()), "listen");
  refused(good().Set("listen", "unix:/a"), "listen");
  refused(good().Set("listen", Json::Array().Append(1)), "listen");
  refused(good().Set("listen", Json::Array().Append("http://a")), "listen");
  refused(good().Set("ioBackend", "magic"), "ioBackend");
}

void Fails(const std::string& directory, const std::string& code,
           const std::vector<std::string>& words,
           const RunningHost::Options& options = {.listen = {"tcp:127.0.0.1:0"}}) {
  RunningHost host(directory, options);
  const Json failed = host.WaitForEvent("failed");
  ASSERT(!failed.is_null());
  EXPECT_EQ(failed.String("code").Take(), code);
  const std::string message = failed.String("message").Take();
  for (const std::string& word : words) {
    if (!Contains(message, word)) test::Fail(__FILE__, __LINE__, message + " lacks " + word);
  }
  EXPECT(host.Join());
  for (const Json& event : host.events()) {
    EXPECT(event.Find("event") == nullptr || event.String("event").Take() != "listening");
  }
}

TEST(disk_host, DirectoryThatCannotBeUsedIsNamed) {
  const std::string directory = test::TemporaryDirectory();
  Fails(directory + "/missing", "not-found", {directory + "/missing", "create the directory"});
  std::ofstream(directory + "/file") << "x";
  Fails(directory + "/file", "invalid-argument", {directory + "/file", "not a directory"});
  std::filesystem::create_directory(directory + "/odd");
  std::ofstream(directory + "/odd/replicas") << "x";
  Fails(directory + "/odd", "not-found", {directory + "/odd", "cannot be written"});
}

TEST(disk_host, DirectoryWithoutPermissionIsNamed) {
  if (geteuid() == 0) {
    test::Skip("root may write everywhere");
    return;
  }
  const std::string directory = test::TemporaryDirectory();
  chmod(directory.c_str(), 0500);
  Fails(directory, "permission-denied", {directory, "write permission"});
  chmod(directory.c_str(), 0700);
}

TEST(disk_host, SecondDiskHostOfADirectoryIsRefused) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  Fails(host.directory(), "busy", {host.directory(), "another disk host"});
  EXPECT(host.CreateReplica(kId).Find("result") != nullptr);
}

TEST(disk_host, AddressInUseIsNamed) {
  RunningHost host(test::TemporaryDirectory());
  const Json listening = host.WaitForEvent("listening");
  const std::string tcp = listening.Find("addresses")->items()[1].AsString("address").Take();
  EXPECT(tcp.starts_with("tcp:127.0.0.1:") && tcp != "tcp:127.0.0.1:0");
  const std::string other = test::TemporaryDirectory();
  Fails(other, "address-in-use", {other, tcp}, {.listen = {"unix:" + other + "/s", tcp}});
  Fails(other, "address-in-use", {host.socket_path()}, {.listen = {"unix:" + host.socket_path()}});
}

TEST(disk_host, SaysItsBackendAndStopsClean) {
  RunningHost host(test::TemporaryDirectory(), {.backend = io::Backend::kEpoll});
  EXPECT_EQ(host.WaitForEvent("io-backend").String("backend").Take(), "epoll");
  host.WaitForEvent("listening");
  EXPECT(host.Stop());
  EXPECT(!std::filesystem::exists(host.socket_path()));
  // Answered once, before the last event.
  const std::vector<Json> events = host.events();
  ASSERT(events.size() >= 2);
  EXPECT_EQ(events[events.size() - 2].Write(), R"({"reply":1000000,"result":{}})");
  EXPECT_EQ(events.back().Write(), R"({"event":"stopped","clean":true})");
}

TEST(disk_host, StopBeforeItListens) {
  RunningHost host(test::TemporaryDirectory());
  EXPECT(host.Stop());
}

// --- requests
// ------------------------------------------------------------------------------------------

TEST(disk_host, CreateIsIdempotentAndLeavesTheSizeToTheEngine) {
  const std::string directory = test::TemporaryDirectory();
  {
    RunningHost host(directory);
    host.WaitForEvent("listening");
    const Json created = host.CreateReplica(kId, 1 * kMiB);
    ASSERT(created.Find("result") != nullptr);
    const std::string path = created.Find("result")->String("directory").Take();
    EXPECT_EQ(path, directory + "/replicas/demo-0000000000001111");
    EXPECT(std::filesystem::exists(path + "/volume.meta"));
    EXPECT_EQ(host.CreateReplica(kId, 1 * kMiB).Find("result")->String("directory").Take(), path);
    // The volume has grown since; it may have been away.
    EXPECT_EQ(host.CreateReplica(kId, 2 * kMiB).Find("result")->String("directory").Take(), path);
    const Json listed = host.Request(OpOf("list-replicas"));
    EXPECT(Contains(listed.Find("result")->Write(), "\"sizeBytes\":1048576"));
    Json other = OpOf("create-replica")
                     .Set("volume", "demo")
                     .Set("id", wire::ReplicaIdText(kId))
                     .Set("sizeBytes", uint64_t{kMiB})
                     .Set("secret", std::string(64, 'a'));
    EXPECT(Contains(ErrorOf(host.Request(other)), "another secret"));
  }
  RunningHost host(directory);
  host.WaitForEvent("listening");
  EXPECT(host.CreateReplica(kId, 1 * kMiB).Find("result") != nullptr);
  EXPECT(host.CreateReplica(kId, 2 * kMiB).Find("result") != nullptr);
}

TEST(disk_host, BadRequestsNameTheField) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  const auto good = [] {
    return OpOf("create-replica")
        .Set("volume", "demo")
        .Set("id", wire::ReplicaIdText(kId))
        .Set("sizeBytes", uint64_t{kMiB})
        .Set("secret", testing::kSecretText);
  };
  const auto refused = [&](Json request, const std::string& field) {
    const std::string error = ErrorOf(host.Request(std::move(request)));
    if (!error.starts_with("invalid-argument: ") || !Contains(error, field)) {
      test::Fail(__FILE__, __LINE__, error + " does not name " + field);
    }
  };
  refused(Json::Object(), "op");
  refused(OpOf("dance"), "dance");
  refused(good().Set("volume", "../etc"), "volume");
  refused(good().Set("volume", Json()), "volume");
  refused(good().Set("id", "12"), "id");
  refused(good().Set("sizeBytes", 0), "sizeBytes");
  refused(good().Set("sizeBytes", uint64_t{kMiB + 1}), "sizeBytes");
  refused(good().Set("sizeBytes", "big"), "sizeBytes");
  refused(good().Set("secret", "abc"), "secret");
  refused(good().Set("cache", "none"), "cache");
  refused(OpOf("remove-replica").Set("volume", "demo"), "id");
  host.Post(Json::Array());
  EXPECT(host.Logged({"control message"}));
  host.Post(OpOf("space"));
  EXPECT(host.Logged({"control message", "request"}));
  EXPECT(host.Request(good()).Find("result") != nullptr);
}

TEST(disk_host, RemoveIsIdempotentAndEndsSessions) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  host.CreateReplica(kOther);
  Client engine(host.socket_path());
  Client other(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  EXPECT(other.Join(kOther, kEpoch) == ErrorCode::kOk);
  EXPECT(engine.Write(0, Pattern(4096, 1)) == ErrorCode::kOk);
  EXPECT(host.Request(RemoveOf(kId)).Find("result") != nullptr);
  EXPECT(engine.WaitForEnd());
  EXPECT(host.Request(RemoveOf(kId)).Find("result") != nullptr);
  EXPECT(host.Request(RemoveOf(0x7777)).Find("result") != nullptr);
  EXPECT(Row(host, kId).is_null());
  EXPECT(!std::filesystem::exists(host.directory() + "/replicas/demo-0000000000001111"));
  Client again(host.socket_path());
  EXPECT(again.Hello(kId, kEpoch).status() == ErrorCode::kNotFound);
  EXPECT(other.Write(0, Pattern(4096, 1)) == ErrorCode::kOk);
  // The same id may come again, empty.
  host.CreateReplica(kId);
  EXPECT(again.Join(kId, {1, 1}) == ErrorCode::kOk);
  EXPECT(again.Read(0, 4096) == std::vector<std::byte>(4096));
}

TEST(disk_host, ListsStatesSpaceAndCounters) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId, 8 * kMiB);
  Json row = Row(host, kId);
  EXPECT_EQ(row.String("state").Take(), "closed");
  EXPECT_EQ(row.String("volume").Take(), "demo");
  EXPECT_EQ(row.Integer("sizeBytes", 0, INT64_MAX).Take(), int64_t{8 * kMiB});
  const int64_t before = row.Integer("allocatedBytes", 0, INT64_MAX).Take();
  Client engine(host.socket_path());
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  EXPECT(engine.Write(0, Pattern(kMiB, 1), wire::kFlagForceUnitAccess) == ErrorCode::kOk);
  EXPECT_EQ(engine.Read(0, 8192).size(), 8192U);
  engine.Call(Client::Of(Opcode::kRead, 8 * kMiB, 512));
  row = Row(host, kId);
  EXPECT_EQ(row.String("state").Take(), "open");
  EXPECT(row.Integer("allocatedBytes", 0, INT64_MAX).Take() >= before + int64_t{kMiB});

  const Json space = host.Request(OpOf("space"));
  const int64_t total = space.Find("result")->Integer("totalBytes", 0, INT64_MAX).Take();
  const int64_t free = space.Find("result")->Integer("freeBytes", 0, INT64_MAX).Take();
  EXPECT(total > 0 && free > 0 && free <= total);

  const Json usage = host.Request(OpOf("usage"));
  const Json& used = usage.Find("result")->Find("replicas")->items()[0];
  const Json& head = used.Find("layers")->items()[0];
  EXPECT_EQ(used.String("volume").Take(), "demo");
  EXPECT_EQ(used.Find("layers")->items().size(), size_t{1});
  EXPECT_EQ(head.String("name").Take(), "");
  EXPECT_EQ(head.Integer("allocatedBytes", 0, INT64_MAX).Take(), int64_t{kMiB});
  EXPECT(used.Integer("metadataBytes", 0, INT64_MAX).Take() > 0);
  EXPECT_EQ(usage.Find("result")->Integer("totalBytes", 0, INT64_MAX).Take(), total);

  const Json reply = host.Request(OpOf("counters"));
  const Json& counters = *reply.Find("result");
  EXPECT_EQ(counters.String("disk").Take(), "disk-1");
  const Json& operations = *counters.Find("replicas")->items()[0].Find("operations");
  const auto number = [&](const char* operation, const char* key) {
    return operations.Find(operation)->Integer(key, 0, INT64_MAX).Take();
  };
  EXPECT_EQ(number("write", "count"), 1);
  EXPECT_EQ(number("write", "bytes"), int64_t{kMiB});
  EXPECT_EQ(number("write", "errors"), 0);
  EXPECT_EQ(number("read", "count"), 2);
  EXPECT_EQ(number("read", "errors"), 1);
  EXPECT_EQ(operations.Find("read")->Find("latency")->Find("buckets")->items().size(),
            counters.Find("bucketBoundsSeconds")->items().size() + 1);
}

TEST(disk_host, OneCorruptReplicaDoesNotStopTheOthers) {
  const std::string directory = test::TemporaryDirectory();
  {
    RunningHost host(directory);
    host.WaitForEvent("listening");
    host.CreateReplica(kId);
    host.CreateReplica(kOther);
    host.CreateReplica(0x3333);
  }
  std::ofstream(directory + "/replicas/demo-0000000000001111/ankole.json") << "{";
  std::ofstream(directory + "/replicas/demo-0000000000003333/volume.meta") << "{";
  std::filesystem::create_directory(directory + "/replicas/lost+found");
  RunningHost host(directory);
  host.WaitForEvent("listening");
  EXPECT(host.Logged({"replica 0000000000001111 of volume demo", "ankole.json"}));
  EXPECT(host.Logged({"lost+found", "left alone"}));
  for (const wire::ReplicaId id : {kId, wire::ReplicaId{0x3333}}) {
    const Json row = Row(host, id);
    EXPECT_EQ(row.String("state").Take(), "failed");
    EXPECT(!row.String("error").Take().empty());
    Client broken(host.socket_path());
    EXPECT(broken.Join(id, kEpoch) != ErrorCode::kOk);
  }
  Client good(host.socket_path());
  EXPECT(good.Join(kOther, kEpoch) == ErrorCode::kOk);
  EXPECT(good.Write(0, Pattern(4096, 1)) == ErrorCode::kOk);
  // A broken one can be removed and made anew.
  EXPECT(host.Request(RemoveOf(kId)).Find("result") != nullptr);
  EXPECT(host.CreateReplica(kId).Find("result") != nullptr);
  EXPECT_EQ(Row(host, kId).String("state").Take(), "closed");
}

TEST(disk_host, ReplicaThatCannotBeOpenedIsReportedAndTriedAgain) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  const std::string record = host.directory() + "/replicas/demo-0000000000001111/record";
  std::filesystem::rename(record, record + ".away");
  Client engine(host.socket_path());
  EXPECT(engine.Authenticate(kId, kEpoch) == ErrorCode::kOk);
  const Result<wire::ReplicaState> state = engine.Inquire();
  EXPECT(!state.ok() && Contains(state.status().message(), "record"));
  EXPECT(engine.Call(Client::Of(Opcode::kWelcome)).status() != ErrorCode::kOk);
  EXPECT_EQ(Row(host, kId).String("state").Take(), "failed");
  std::filesystem::rename(record + ".away", record);
  EXPECT(engine.Call(Client::Of(Opcode::kWelcome)).status() == ErrorCode::kOk);
  EXPECT(engine.Write(0, Pattern(4096, 1)) == ErrorCode::kOk);
  EXPECT_EQ(Row(host, kId).String("state").Take(), "open");
}

// An error of the disk while it started must not last until it is started again.
TEST(disk_host, ReplicaThatCouldNotBeReadAtTheStartIsTriedAgainWhenAskedFor) {
  const std::string directory = test::TemporaryDirectory();
  {
    RunningHost host(directory);
    host.WaitForEvent("listening");
    host.CreateReplica(kId);
  }
  const std::string identity = directory + "/replicas/demo-0000000000001111/ankole.json";
  std::filesystem::rename(identity, identity + ".away");
  RunningHost host(directory);
  host.WaitForEvent("listening");
  EXPECT(Client(host.socket_path()).Join(kId, kEpoch) != ErrorCode::kOk);
  EXPECT_EQ(Row(host, kId).String("state").Take(), "failed");
  std::filesystem::rename(identity + ".away", identity);
  ErrorCode joined = ErrorCode::kInternal;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (joined != ErrorCode::kOk && std::chrono::steady_clock::now() < end) {
    joined = Client(host.socket_path()).Join(kId, kEpoch);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(joined, ErrorCode::kOk);
  EXPECT(host.Logged({"replica 0000000000001111 of volume demo can be read again"}));
  EXPECT(Row(host, kId).String("state").Take() != "failed");
}

// --- strangers and bounds
// ------------------------------------------------------------------------------

TEST(disk_host, MisbehavingClientTouchesNoOther) {
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  host.CreateReplica(kOther);
  Client good(host.socket_path());
  EXPECT(good.Join(kOther, kEpoch) == ErrorCode::kOk);
  std::mt19937_64 random(test::Seed());
  for (int round = 0; round < 30; ++round) {
    const std::vector<std::byte> data = Pattern(16 * kKiB, static_cast<uint8_t>(round));
    EXPECT(good.Write(0, data) == ErrorCode::kOk);
    Client bad(host.socket_path());
    if (round % 3 != 0) {
      EXPECT(bad.Join(kId, {3, static_cast<uint64_t>(round)}) == ErrorCode::kOk);
    }
    switch (round % 3) {
      case 0: {  // noise
        std::vector<char> noise(1 + random() % 5000);
        for (char& byte : noise) byte = static_cast<char>(random());
        bad.SendBytes(noise.data(), noise.size());
        break;
      }
      case 1: {  // a frame that breaks off
        wire::Header header = Client::Of(Opcode::kWrite, 0, kMiB);
        header.payload_bytes = header.table_bytes() + header.length_bytes;
        wire::EncodedHeader encoded;
        wire::EncodeHeader(header, encoded);
        bad.SendBytes(encoded, sizeof(encoded));
        bad.SendBytes(data.data(), random() % data.size());
        break;
      }
      default: {  // requests whose answers it never takes, then goes
        for (int i = 0; i < 20; ++i) bad.Send(Client::Of(Opcode::kRead, i * kMiB, kMiB));
      }
    }
    EXPECT(good.Read(0, 16 * kKiB) == data);
    if (round % 3 == 0) EXPECT(round == 0 || good.Write(0, data) == ErrorCode::kOk);
  }
  EXPECT(host.Logged({"engine at ", "replication frame: "}));
  EXPECT(good.Call(Client::Of(Opcode::kFlush)).status() == ErrorCode::kOk);
}

TEST(disk_host, SilentStrangersAreClosed) {
  RunningHost host(test::TemporaryDirectory(), {.handshake_timeout_ns = 200 * kNsPerMs});
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  Client silent(host.socket_path());
  Client halfway(host.socket_path());
  Client engine(host.socket_path());
  EXPECT(halfway.Hello(kId, kEpoch).status() == ErrorCode::kOk);
  EXPECT(engine.Authenticate(kId, kEpoch) == ErrorCode::kOk);
  EXPECT(silent.WaitForEnd(5000));
  EXPECT(halfway.WaitForEnd(5000));
  EXPECT(host.Logged({"volume demo", "did not authenticate in time"}));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT(engine.Call(Client::Of(Opcode::kWelcome)).status() == ErrorCode::kOk);
}

TEST(disk_host, SessionsAreBounded) {
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit before = limit;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 8192);
  setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < 3 * kDiskHostSessionsMax) {
    test::Skip("too few file descriptors");
    return;
  }
  RunningHost host(test::TemporaryDirectory());
  host.WaitForEvent("listening");
  host.CreateReplica(kId);
  std::vector<std::unique_ptr<Client>> clients;
  for (size_t i = 0; i < kDiskHostSessionsMax; ++i) {
    clients.push_back(std::make_unique<Client>(host.socket_path()));
  }
  // All are taken before one more comes.
  EXPECT(clients.back()->Join(kId, kEpoch) == ErrorCode::kOk);
  Client more(host.socket_path());
  EXPECT(more.WaitForEnd());
  EXPECT(host.Logged({"refused", "1024"}));
  EXPECT(clients.back()->Write(0, Pattern(4096, 1)) == ErrorCode::kOk);
  clients[0]->Disconnect();
  bool again = false;
  for (int i = 0; i < 50 && !again; ++i) {
    Client next(host.socket_path());
    next.Send(Client::Of(Opcode::kPing));
    again = host.Logged({"PING in mode new"}, 100);
  }
  EXPECT(again);
  EXPECT(host.Stop());
  clients.clear();
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST(disk_host, ServesOverTcp) {
  RunningHost host(test::TemporaryDirectory());
  const Json listening = host.WaitForEvent("listening");
  host.CreateReplica(kId);
  const std::string tcp = listening.Find("addresses")->items()[1].AsString("address").Take();
  const auto port = static_cast<uint16_t>(std::stoi(tcp.substr(tcp.rfind(':') + 1)));
  Client engine(port);
  EXPECT(engine.Join(kId, kEpoch) == ErrorCode::kOk);
  EXPECT(engine.Write(4096, Pattern(256 * kKiB, 4)) == ErrorCode::kOk);
  EXPECT(engine.Read(4096, 256 * kKiB) == Pattern(256 * kKiB, 4));
}

// --- linked clones
// --------------------------------------------------------------------------------

// Also of a replica that an engine has open.
TEST(disk_host, MakesLinkedClonesOfSnapshots) {
  for (const bool open : {false, true}) {
    const std::string directory = test::TemporaryDirectory();
    const std::string content = HaveSnapshot(directory, kId);
    RunningHost host(directory);
    ASSERT(!host.WaitForEvent("listening").is_null());
    std::unique_ptr<Client> engine;
    if (open) {
      engine = std::make_unique<Client>(host.socket_path());
      ASSERT(engine->Join(kId, kEpoch) == ErrorCode::kOk);
    }
    const Json made = host.Request(CloneOf(kOther, "monday"));
    if (made.Find("result") == nullptr) test::Fail(__FILE__, __LINE__, ErrorOf(made));
    EXPECT(host.Request(CloneOf(kOther, "monday")).Find("result") != nullptr);
    // Who needed it only for that has it as it was.
    EXPECT_EQ(Row(host, kId).String("state").Take(), open ? "open" : "closed");
    Client asking(host.socket_path());
    ASSERT(asking.Authenticate(kOther, kEpoch, testing::TestSecret(), "copy") == ErrorCode::kOk);
    const Result<wire::ReplicaState> state = asking.Inquire();
    ASSERT_OK(state);
    EXPECT_EQ(wire::Describe(state.value().records.complete),
              "epoch 0.1 generation 1 members [0000000000002222, 0000000000003333]");
    EXPECT(!state.value().fresh && !state.value().unclean && !state.value().unsealed);
    Client client(host.socket_path());
    ASSERT(client.Join(kOther, kEpoch, "copy") == ErrorCode::kOk);
    const std::vector<std::byte> read = client.Read(0, 65536);
    EXPECT(std::memcmp(read.data(), content.data(), read.size()) == 0);
    if (open) EXPECT(engine->Write(0, Pattern(4096, 1)) == ErrorCode::kOk);
    // The volume goes, and the clone stays.
    engine = nullptr;
    EXPECT(host.Request(RemoveOf(kId)).Find("result") != nullptr);
    EXPECT(client.Read(0, 65536) == read);
    // There is nothing to be made of any more, and no need of it.
    EXPECT(host.Request(CloneOf(kOther, "monday")).Find("result") != nullptr);
    EXPECT(host.Stop());
  }
}

TEST(disk_host, LinkedClonesThatCannotBeMadeAreRefusedWithTheReason) {
  const std::string directory = test::TemporaryDirectory();
  HaveSnapshot(directory, kId);
  RunningHost host(directory);
  ASSERT(!host.WaitForEvent("listening").is_null());
  const auto refused = [&](const Json& request, const std::string& code, const std::string& word) {
    const std::string error = ErrorOf(host.Request(request));
    if (!error.starts_with(code) || !Contains(error, word)) {
      test::Fail(__FILE__, __LINE__, error + " is not " + code + " with " + word);
    }
  };
  refused(CloneOf(kOther, "tuesday"), "not-found", "tuesday cannot be cloned: it has no such");
  refused(CloneOf(kOther, "monday", 0x4444), "not-found", "has no replica 0000000000004444");
  refused(CloneOf(kOther, "monday").Set("sizeBytes", 2 * kMiB), "invalid-argument", "not hold");
  refused(CloneOf(kOther, "../monday"), "invalid-argument", "\"layer\"");
  refused(CloneOf(kOther, "monday").Set("id", wire::ReplicaIdText(kId)), "invalid-argument",
          "\"members\"");
  refused(CloneOf(kOther, "monday").Set("clone", 7), "invalid-argument", "\"clone\"");
  EXPECT(Row(host, kOther).is_null());
  EXPECT(host.Stop());
}

}  // namespace
}  // namespace ankole::replica
