#include "engine/engine_service.h"

#include <arpa/inet.h>
#include <unistd.h>

#include <map>

#include "base/bytes.h"
#include "engine/several_testing.h"
#include "iscsi/server_testing.h"

namespace ankole::engine::testing {
namespace {

Json GoodConfig(const std::string& address) {
  return Json::Object()
      .Set("volume", kVolume)
      .Set("sizeBytes", Bench::kSizeBytes)
      .Set("secret", kSecretText)
      .Set("epoch", Json::Object().Set("attachment", 1).Set("run", 1))
      .Set("record", RecordToJson({}))
      .Set("replicas", Json::Array().Append(
                           Json::Object().Set("id", "0000000000000010").Set("address", address)))
      .Set("nbd", Json::Object().Set("host", "127.0.0.1").Set("port", 0));
}

TEST(engine_service, ABadConfigIsRefusedNamingTheField) {
  EXPECT(EngineService::ParseOptions(GoodConfig("unix:/tmp/a")).ok());
  struct Bad {
    const char* field;
    Json value;
  };
  const Json replica = Json::Object().Set("id", "0000000000000010").Set("address", "unix:/tmp/a");
  for (const Bad& bad : {
           Bad{"volume", "No_Name"},
           Bad{"volume", ""},
           Bad{"sizeBytes", 4096},
           Bad{"sizeBytes", Bench::kSizeBytes + 512},
           Bad{"secret", "00ff"},
           Bad{"epoch", Json::Object().Set("attachment", -1).Set("run", 1)},
           Bad{"epoch", 7},
           Bad{"record", Json::Object()},
           Bad{"replicas", Json::Array()},
           Bad{"replicas", Json::Array().Append(Json::Object().Set("id", "x").Set("address", "y"))},
           Bad{"replicas", Json::Array().Append(replica).Append(replica)},
           Bad{"lateMs", 1},
       }) {
    Json config = GoodConfig("unix:/tmp/a");
    config.Set(bad.field, bad.value);
    const Result<EngineOptions> options = EngineService::ParseOptions(config);
    EXPECT(!options.ok());
    if (options.ok()) continue;
    if (options.status().message().find(bad.field) == std::string::npos) {
      test::Fail(__FILE__, __LINE__, options.status().message() + " does not name " + bad.field);
    }
  }
}

Json GoodIscsi() {
  return Json::Object()
      .Set("host", "127.0.0.1")
      .Set("port", 0)
      .Set("target", "iqn.2024-01.test:demo")
      .Set("serial", "0123456789abcdef");
}

TEST(engine_service, ABadIscsiConfigIsRefusedNamingTheField) {
  Bench bench;
  HostReactor reactor(bench.reactor());
  struct NoEvents final : EventSink {
    void Emit(const Json&) override {}
  } events;
  const Json chap = Json::Object().Set("user", "user").Set("secret", "hush");
  struct Bad {
    const char* field;
    Json value;
  };
  bench.On([&] {
    const auto make = [&](const Json& iscsi) {
      return EngineService::Make(reactor, GoodConfig("unix:/tmp/a").Set("iscsi", iscsi), events);
    };
    EXPECT(make(GoodIscsi()).ok());
    EXPECT(make(GoodIscsi().Set("physicalBlockBytes", 512)).ok());
    for (const Bad& bad : {
             Bad{"host", Json()},
             Bad{"port", 65536},
             Bad{"target", "disk"},
             Bad{"serial", ""},
             Bad{"serial", "a b"},
             Bad{"serial", std::string(65, 's')},
             Bad{"physicalBlockBytes", 1024},
             Bad{"physicalBlockBytes", 8192},
             Bad{"physicalBlockBytes", "512"},
             Bad{"chap", chap},
             Bad{"chap", "user:secret"},
         }) {
      const auto made = make(GoodIscsi().Set(bad.field, bad.value));
      EXPECT(!made.ok());
      if (made.ok()) continue;
      const std::string& message = made.status().message();
      EXPECT(message.find("iscsi") != std::string::npos);
      EXPECT(message.find(bad.field) != std::string::npos);
      EXPECT(message.find("hush") == std::string::npos);
    }
  });
}

TEST(engine_service, ARecordSurvivesJson) {
  wire::Record record;
  record.epoch = {3, 4};
  record.generation = 17;
  record.members.Add(9);
  record.members.Add(0x10);
  record.newest_snapshot = "before-upgrade";
  const Result<wire::Record> back = RecordFromJson(RecordToJson(record));
  ASSERT_OK(back);
  EXPECT(back.value() == record);
}

struct Events final : EventSink {
  explicit Events(Bench& bench_of) : bench(bench_of) {}
  Bench& bench;
  Service* service = nullptr;
  uint16_t port = 0;
  uint16_t iscsi_port = 0;
  int64_t iscsi_sessions = -1;
  std::string waiting;  // why, if it does
  bool stopped = false;
  void Emit(const Json& event) override {
    if (event.Find("reply") != nullptr && event.Find("result") != nullptr) {
      iscsi_sessions = event.Find("result")->Integer("iscsiSessions", 0, 100, -1).Take();
    }
    if (event.Find("reply") != nullptr) {
      replies[event.Integer("reply", 0, 1000).Take()] = event;
    }
    if (event.Find("event") == nullptr) return;
    const std::string name = event.String("event").Take();
    if (name == "record") {
      service->OnMessage(
          Json::Object().Set("answer", event.Integer("question", 0, 1000).Take()).Set("ok", true));
    }
    if (name == "serving") {
      port = static_cast<uint16_t>(event.Find("nbd")->Integer("port", 0, 65535).Take());
      const Json* iscsi = event.Find("iscsi");
      if (iscsi != nullptr) {
        iscsi_port = static_cast<uint16_t>(iscsi->Integer("port", 0, 65535).Take());
      }
    }
    if (name == "state" && event.String("state").Take() == "waiting") {
      waiting = event.String("message").Take();
    }
    if (name == "scrub") scrubs.push_back(*event.Find("progress"));
    if (name == "stopped") stopped = true;
  }
  std::map<int64_t, Json> replies;
  std::vector<Json> scrubs;
};

// An NBD client that has sent one write.
int WriteOverNbd(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return -1;
  std::vector<uint8_t> in(18);
  std::vector<uint8_t> out = {0, 0, 0, 3, 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T',
                              0, 0, 0, 1, 0,   0,   0,   4,   'd', 'e', 'm', 'o'};
  if (recv(fd, in.data(), 18, MSG_WAITALL) != 18) return -1;
  if (send(fd, out.data(), out.size(), 0) < 0) return -1;
  if (recv(fd, in.data(), 10, MSG_WAITALL) != 10) return -1;
  out.assign(28 + 4096, 0);
  const uint8_t head[8] = {0x25, 0x60, 0x95, 0x13, 0, 0, 0, 1};
  std::memcpy(out.data(), head, sizeof(head));
  out[26] = 0x10;  // 4096 bytes at 0
  if (send(fd, out.data(), out.size(), 0) < 0) return -1;
  return fd;
}

TEST(engine_service, StopsInTimeWhileRequestsOfItsClientsWait) {
  Bench bench;
  ScriptedReplica& replica = bench.AddScripted();
  Events events(bench);
  HostReactor reactor(bench.reactor());
  std::unique_ptr<Service> service;
  bench.On([&] {
    auto made = EngineService::Make(reactor, GoodConfig(replica.address()), events);
    CHECK(made.ok());
    service = made.Take();
    events.service = service.get();
    service->Start();
  });
  ASSERT(bench.Until([&] { return events.port != 0; }));
  bench.On([&] { replica.Hang(); });
  const int client = WriteOverNbd(events.port);
  ASSERT(client >= 0);
  bench.Pass(100);
  bench.On([&] { service->OnMessage(Json::Object().Set("request", 1).Set("op", "stop")); });
  EXPECT(bench.Until([&] { return events.stopped; }, 4700));
  bench.On([&] { replica.Wake(); });
  EXPECT(bench.Until([&] { return replica.connections() == 0; }));
  bench.Pass(300);
  bench.On([&] { service.reset(); });
  close(client);
}

// An engine with both front ends over a replica that answers.
struct ServiceBench {
  explicit ServiceBench(const Json& iscsi) : reactor(bench.reactor()), events(bench) {
    Start(GoodConfig(bench.AddReal().address()).Set("iscsi", iscsi));
  }
  // Over a replica that does as the test says.
  ServiceBench() : reactor(bench.reactor()), events(bench) {
    replica = &bench.AddScripted();
    Start(GoodConfig(replica->address()));
  }
  void Start(const Json& config) {
    bench.On([&] {
      auto made = EngineService::Make(reactor, config, events);
      CHECK(made.ok());
      service = made.Take();
      events.service = service.get();
      service->Start();
    });
  }
  ~ServiceBench() {
    Post("stop", 1);
    EXPECT(bench.Until([&] { return events.stopped; }, 4700));
    bench.Pass(300);
    bench.On([&] { service.reset(); });
  }
  void Post(const char* op, int number, Json message = Json::Object()) {
    bench.On([&] { service->OnMessage(message.Set("request", number).Set("op", op)); });
  }
  // What it answered; null: an error.
  Json Ask(const char* op, int number, const Json& message) {
    Post(op, number, message);
    EXPECT(bench.Until([&] { return events.replies.count(number) != 0; }));
    const Json* result = events.replies[number].Find("result");
    return result != nullptr ? *result : Json();
  }

  // The code of the error that it answered.
  std::string Refused(int number) {
    EXPECT(bench.Until([&] { return events.replies.count(number) != 0; }));
    const Json* error = events.replies[number].Find("error");
    return error != nullptr ? error->String("code", "").Take() : "none";
  }

  Bench bench;
  HostReactor reactor;
  Events events;
  std::unique_ptr<Service> service;
  ScriptedReplica* replica = nullptr;
};

TEST(engine_service, ServesIscsiBesideNbd) {
  ServiceBench x(GoodIscsi());
  ASSERT(x.bench.Until([&] { return x.events.iscsi_port != 0; }));
  EXPECT(x.events.port != 0 && x.events.port != x.events.iscsi_port);
  x.Post("counters", 7);
  ASSERT(x.bench.Until([&] { return x.events.iscsi_sessions >= 0; }));
  EXPECT_EQ(x.events.iscsi_sessions, int64_t{0});
  iscsi::Initiator initiator(x.events.iscsi_port);
  iscsi::LoginOptions options;
  options.target = "iqn.2024-01.test:demo";
  ASSERT(initiator.Login(options) == 0);
  const iscsi::Bytes data = iscsi::RandomBytes(65536, 3);
  EXPECT(initiator.WriteAt(4096, data).good());
  EXPECT(initiator.ReadAt(4096, 65536).data == data);
  x.events.iscsi_sessions = -1;
  x.Post("counters", 8);
  ASSERT(x.bench.Until([&] { return x.events.iscsi_sessions >= 0; }));
  EXPECT_EQ(x.events.iscsi_sessions, int64_t{1});
}

TEST(engine_service, SettingsAndScrubsAreAskedForWhileItRuns) {
  ServiceBench x(GoodIscsi());
  ASSERT(x.bench.Until([&] { return x.events.iscsi_port != 0; }));
  EXPECT(x.Ask("set", 2, Json::Object().Set("resyncBandwidth", 1 << 20)).is_object());
  EXPECT(x.Ask("set", 3, Json::Object()).is_object());
  EXPECT(!x.Ask("set", 4, Json::Object().Set("resyncBandwidth", -2)).is_object());
  const auto space = [](int64_t free) {
    return Json::Object().Set(
        "space", Json::Object().Set("totalBytes", 100).Set("freeBytes", free).Set("softBytes", 20));
  };
  EXPECT(x.Ask("set", 9, space(50)).is_object());
  EXPECT(!x.Ask("set", 10, space(101)).is_object());
  EXPECT(!x.Ask("scrub", 5, Json::Object().Set("id", "a")).is_object());  // no rate
  const Json slow = Json::Object().Set("id", "a").Set("bytesPerSecond", 1000);
  EXPECT(x.Ask("scrub", 6, slow).Bool("running", false).Take());
  const Json stopped = x.Ask("stop-scrub", 7, Json::Object());
  EXPECT(!stopped.Bool("running", true).Take() && !stopped.Bool("finished", true).Take());
  const Json fast = Json::Object()
                        .Set("id", "b")
                        .Set("bytesPerSecond", 0)
                        .Set("regionsDone", 1)
                        .Set("corruptBlocks", 3);
  EXPECT(x.Ask("scrub", 8, fast).is_object());
  ASSERT(x.bench.Until([&] {
    return !x.events.scrubs.empty() && x.events.scrubs.back().Bool("finished", false).Take();
  }));
  x.bench.On([&] {
    const Json& ended = x.events.scrubs.back();
    EXPECT_EQ(ended.String("id", "").Take(), "b");
    EXPECT_EQ(ended.Integer("corruptBlocks", 0, 100).Take(), 3);
    EXPECT_EQ(ended.Integer("regionsDone", 0, 100).Take(),
              int64_t{Bench::kSizeBytes / kRegionBytes});
  });
}

TEST(engine_service, SnapshotsAreTakenListedAndDeleted) {
  ServiceBench x;
  ASSERT(x.bench.Until([&] { return x.events.port != 0; }));
  const Json wanted = Json::Object()
                          .Set("layer", "monday-0011aabb")
                          .Set("labels", Json::Object().Set("app", "db"))
                          .Set("userCreated", true)
                          .Set("createdSeconds", 1'780'000'000);
  const Json taken = x.Ask("take-snapshot", 2, wanted);
  EXPECT_EQ(taken.Integer("members", 0, 8, -1).Take(), 1);
  EXPECT(taken.Integer("pauseNs", 0, 1'000'000'000'000, -1).Take() > 0);
  x.Post("take-snapshot", 3, wanted);
  EXPECT_EQ(x.Refused(3), "already-exists");
  const Json listed = x.Ask("list-layers", 4, Json::Object());
  const Json* layers = listed.Find("layers");
  ASSERT(layers != nullptr && layers->items().size() == 2);
  const Json& monday = layers->items()[0];
  EXPECT_EQ(monday.String("name", "").Take(), "monday-0011aabb");
  EXPECT_EQ(monday.String("parent", "none").Take(), "");
  EXPECT(monday.Bool("sealed", false).Take() && !monday.Bool("removed", true).Take());
  EXPECT_EQ(layers->items()[1].String("name", "none").Take(), "");
  EXPECT_EQ(layers->items()[1].String("parent", "").Take(), "monday-0011aabb");
  const Json deleted = x.Ask("delete-snapshot", 5, Json::Object().Set("layer", "monday-0011aabb"));
  EXPECT_EQ(deleted.Integer("members", 0, 8, -1).Take(), 1);
  EXPECT(deleted.Find("pauseNs") == nullptr);
}

TEST(engine_service, SnapshotsAreComparedAndRead) {
  ServiceBench x;
  ASSERT(x.bench.Until([&] { return x.events.port != 0; }));
  for (const char* name : {"monday", "tuesday"}) {
    const Json wanted = Json::Object().Set("layer", name).Set("labels", Json::Object());
    EXPECT_EQ(x.Ask("take-snapshot", name[0], wanted).Integer("members", 0, 8, -1).Take(), 1);
  }
  constexpr auto kSize = static_cast<int64_t>(Bench::kSizeBytes);
  const auto number = [](const Json& json, const char* name) {
    return json.Integer(name, 0, kSize, -1).Take();
  };
  // A scripted replica says that all of it is data.
  const Json told =
      x.Ask("snapshot-changes", 2,
            Json::Object().Set("layer", "tuesday").Set("offset", 4096).Set("limit", 1));
  EXPECT_EQ(number(told, "sizeBytes"), kSize);
  EXPECT_EQ(number(told, "fromSizeBytes"), 0);
  EXPECT_EQ(number(told, "nextOffset"), kSize);
  ASSERT(told.Find("extents")->items().size() == 1);
  const Json& extent = told.Find("extents")->items()[0];
  EXPECT_EQ(number(extent, "offset"), 4096);
  EXPECT_EQ(number(extent, "length"), kSize - 4096);
  EXPECT(!extent.Bool("zero", true).Take());
  const Json both =
      x.Ask("snapshot-changes", 3, Json::Object().Set("layer", "tuesday").Set("from", "monday"));
  EXPECT_EQ(number(both, "fromSizeBytes"), kSize);
  int next = 10;
  for (const Json& bad : {
           Json::Object(),
           Json::Object().Set("layer", ""),
           Json::Object().Set("layer", "tuesday").Set("from", 7),
           Json::Object().Set("layer", "tuesday").Set("offset", 100),
           Json::Object().Set("layer", "tuesday").Set("offset", -4096),
           Json::Object().Set("layer", "tuesday").Set("limit", 0),
       }) {
    x.Post("snapshot-changes", ++next, bad);
    EXPECT(x.Refused(next) == "invalid-argument" || x.Refused(next) == "out-of-range");
  }
  x.Post("snapshot-changes", 4, Json::Object().Set("layer", "wednesday"));
  EXPECT_EQ(x.Refused(4), "not-found");

  const Json monday = Json::Object().Set("layer", "monday").Set("snapshot", "first");
  const Json read = x.Ask("read-snapshot", 5, monday);
  EXPECT_EQ(read.String("export", "").Take(), "demo@first");
  EXPECT_EQ(number(read, "sizeBytes"), kSize);
  x.Post("check-unread", 6, monday);
  EXPECT_EQ(x.Refused(6), "busy");
  x.Post("delete-snapshot", 7, monday);
  EXPECT_EQ(x.Refused(7), "busy");
  x.Ask("check-unread", 8, Json::Object().Set("layer", "tuesday"));
  x.Post("read-snapshot", 9, Json::Object().Set("layer", "monday"));
  EXPECT_EQ(x.Refused(9), "invalid-argument");
  x.Post("check-unread", 10, Json::Object());
  EXPECT_EQ(x.Refused(10), "invalid-argument");
}

TEST(engine_service, ABadRequestAboutSnapshotsIsRefused) {
  ServiceBench x;
  ASSERT(x.bench.Until([&] { return x.events.port != 0; }));
  const Json good = Json::Object().Set("layer", "monday");
  int number = 10;
  for (const Json& bad : {
           Json::Object(),
           Json::Object().Set("layer", 7),
           Json::Object().Set("layer", "../etc"),
           Json(good).Set("labels", "app=db"),
           Json(good).Set("labels", Json::Array()),
           Json(good).Set("labels", Json::Object().Set("a", std::string(5000, 'x'))),
           Json(good).Set("userCreated", "yes"),
           Json(good).Set("createdSeconds", -1),
       }) {
    x.Post("take-snapshot", ++number, bad);
    EXPECT_EQ(x.Refused(number), "invalid-argument");
  }
  x.Post("delete-snapshot", 8, Json::Object());
  EXPECT_EQ(x.Refused(8), "invalid-argument");
}

// The replica does not answer: whoever asked is told all the same, before the engine is gone.
TEST(engine_service, RequestsAboutSnapshotsThatWaitAreAnsweredWhenItStops) {
  ServiceBench x;
  ASSERT(x.bench.Until([&] { return x.events.port != 0; }));
  x.bench.On([&] {
    x.replica->verdict = [](const wire::Header& header) {
      return Hold(header.opcode == wire::Opcode::kPrepare);
    };
  });
  for (int number = 100; number < 165; ++number) {
    const Json message = Json::Object().Set("layer", "layer-" + std::to_string(number));
    x.Post("take-snapshot", number, message);
  }
  EXPECT_EQ(x.Refused(164), "busy");
  x.Post("stop", 1);
  for (int number = 100; number < 164; ++number) EXPECT(x.Refused(number) != "none");
  EXPECT(x.bench.Until([&] { return x.events.stopped; }, 4700));
}

TEST(engine_service, APortOfIscsiThatIsTakenIsReportedAndWaitedFor) {
  const int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof(address);
  ASSERT(bind(other, reinterpret_cast<sockaddr*>(&address), bytes) == 0 && listen(other, 1) == 0);
  ASSERT(getsockname(other, reinterpret_cast<sockaddr*>(&address), &bytes) == 0);
  ServiceBench x(GoodIscsi().Set("port", int64_t{ntohs(address.sin_port)}));
  ASSERT(x.bench.Until([&] { return !x.events.waiting.empty(); }));
  x.bench.On([&] {
    EXPECT(x.events.waiting.find("iSCSI cannot listen on tcp:127.0.0.1:") != std::string::npos);
    EXPECT_EQ(x.events.port, 0);  // both, or not yet
  });
  close(other);
  EXPECT(x.bench.Until([&] { return x.events.iscsi_port != 0; }));
}

}  // namespace
}  // namespace ankole::engine::testing
