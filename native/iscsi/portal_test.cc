#include "iscsi/portal.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <future>

#include "iscsi/server_testing.h"

namespace ankole::iscsi {
namespace {

Json Target(const std::string& iqn, const std::string& address) {
  return Json::Object().Set("iqn", iqn).Set("address", address);
}
Json GoodConfig() {
  return Json::Object()
      .Set("listen", Json::Object().Set("host", "127.0.0.1").Set("port", 0))
      .Set("targets", Json::Array()
                          .Append(Target("iqn.t:attached", "127.0.0.1:4100"))
                          .Append(Target("iqn.t:detached", "")));
}

TEST(iscsi_portal, ABadConfigIsRefusedNamingTheField) {
  EXPECT(Portal::ParseOptions(GoodConfig()).ok());
  struct Bad {
    const char* field;
    Json value;
  };
  for (const Bad& bad : {
           Bad{"listen", Json()},
           Bad{"listen", Json::Object().Set("host", "127.0.0.1")},
           Bad{"listen", Json::Object().Set("host", "127.0.0.1").Set("port", 65536)},
           Bad{"targets", Json()},
           Bad{"targets", Json::Array().Append(Target("disk", ""))},
           Bad{"targets", Json::Array().Append(Target("iqn.t:a", "nowhere"))},
           Bad{"targets",
               Json::Array().Append(Target("iqn.t:a", "")).Append(Target("iqn.T:a", ""))},
           Bad{"targets", Json::Array().Append(Json::Object().Set("address", ""))},
       }) {
    const auto parsed = Portal::ParseOptions(GoodConfig().Set(bad.field, bad.value));
    EXPECT(!parsed.ok());
    if (!parsed.ok()) EXPECT(parsed.status().message().find(bad.field) != std::string::npos);
  }
}

class Events final : public EventSink {
 public:
  void Emit(const Json& event) override {
    const std::lock_guard lock(mutex_);
    texts_.push_back(event.Write());
    const Json* addresses = event.Find("addresses");
    if (addresses != nullptr) {
      const std::string address = addresses->items()[0].AsString("address").Take();
      port = io::Address::Parse(address).Take().port;
    }
  }
  size_t Count(const std::string& part) {
    const std::lock_guard lock(mutex_);
    return static_cast<size_t>(std::count_if(texts_.begin(), texts_.end(), [&](const auto& text) {
      return text.find(part) != std::string::npos;
    }));
  }
  std::atomic<uint16_t> port = 0;

 private:
  std::mutex mutex_;
  std::vector<std::string> texts_;
};

class PortalBench {
 public:
  explicit PortalBench(io::Reactor& on_reactor, const Json& config = GoodConfig())
      : reactor(on_reactor),
        portal(reactor, events, Portal::ParseOptions(config).Take()),
        thread_([this] {
          portal.Start();
          reactor.Loop();
        }) {}
  ~PortalBench() { thread_.join(); }
  void Post(const Json& message) {
    std::promise<void> done;
    io::With<io::Message> posted;
    posted.then = [&](auto&) {
      portal.OnMessage(message);
      done.set_value();
    };
    reactor.Post(&posted);
    done.get_future().wait();
  }
  static Json Request(int number, const char* op) {
    return Json::Object().Set("request", number).Set("op", op);
  }
  void Stop() { Post(Request(99, "stop")); }

  io::Reactor& reactor;
  Events events;
  Portal portal;

 private:
  std::thread thread_;
};

void OnEachPortal(const std::function<void(PortalBench&)>& body) {
  io::OnEachBackend([&](io::Reactor& reactor) {
    PortalBench bench(reactor);
    EXPECT(Eventually([&] { return bench.events.port != 0; }));
    body(bench);
    bench.Stop();
    EXPECT(
        Eventually([&] { return bench.events.Count(R"("event":"stopped","clean":true)") == 1; }));
    EXPECT_EQ(bench.events.Count(R"("reply":99)"), 1u);
  });
}

std::string RedirectedTo(const Pdu& pdu) { return pdu.text(); }

TEST(iscsi_portal, LoginsAreSentOn) {
  OnEachPortal([](PortalBench& bench) {
    LoginOptions options;
    options.target = "iqn.t:attached";
    Initiator initiator(bench.events.port);
    EXPECT_EQ(initiator.Login(options), 0x0101u);
    EXPECT_EQ(RedirectedTo(initiator.login), Texts({"TargetAddress=127.0.0.1:4100,1"}));
    EXPECT(initiator.Ended());
    options.target = "iqn.t:detached";
    EXPECT_EQ(Initiator(bench.events.port).Login(options), 0x0301u);
    options.target = "iqn.t:unknown";
    EXPECT_EQ(Initiator(bench.events.port).Login(options), 0x0203u);
    // The list is replaced.
    bench.Post(PortalBench::Request(1, "targets")
                   .Set("targets", Json::Array().Append(Target("iqn.t:detached", "10.1.1.1:9"))));
    EXPECT_EQ(bench.events.Count(R"({"reply":1,"result":{}})"), 1u);
    options.target = "iqn.t:detached";
    Initiator moved(bench.events.port);
    EXPECT_EQ(moved.Login(options), 0x0101u);
    EXPECT_EQ(RedirectedTo(moved.login), Texts({"TargetAddress=10.1.1.1:9,1"}));
    options.target = "iqn.t:attached";
    EXPECT_EQ(Initiator(bench.events.port).Login(options), 0x0203u);
    // A bad one is refused, and changes nothing.
    bench.Post(PortalBench::Request(2, "targets").Set("targets", 7));
    EXPECT_EQ(bench.events.Count(R"({"reply":2,"error":)"), 1u);
    options.target = "iqn.t:detached";
    EXPECT_EQ(Initiator(bench.events.port).Login(options), 0x0101u);
    bench.Post(PortalBench::Request(3, "counters"));
    EXPECT_EQ(bench.events.Count(R"("logins":0,"redirects":3,"discoveries":0,"refused":3)"), 1u);
    bench.Post(PortalBench::Request(4, "dance"));
    EXPECT_EQ(bench.events.Count(R"({"reply":4,"error":{"code":"unsupported")"), 1u);
  });
}

TEST(iscsi_portal, DiscoveryTellsTheAdvertisedHostWhereItListensOnEveryAddress) {
  io::OnEachBackend([](io::Reactor& reactor) {
    Json config = GoodConfig();
    config.Set("listen", Json::Object().Set("host", "0.0.0.0").Set("port", 0));
    config.Set("advertisedHost", "10.4.5.6");
    PortalBench bench(reactor, config);
    ASSERT(Eventually([&] { return bench.events.port != 0; }));
    LoginOptions options;
    options.discovery = true;
    Initiator initiator(bench.events.port);
    ASSERT(initiator.Login(options) == 0);
    EXPECT_EQ(initiator.Text(Texts({"SendTargets=iqn.t:detached"})).text(),
              Texts({"TargetName=iqn.t:detached",
                     "TargetAddress=10.4.5.6:" + std::to_string(bench.events.port) + ",1"}));
    initiator.Logout();
    bench.Stop();
  });
}

TEST(iscsi_portal, DiscoveryTellsAllTargetsAtThisAddress) {
  OnEachPortal([](PortalBench& bench) {
    for (const char* digest : {"None", "CRC32C"}) {
      LoginOptions options;
      options.discovery = true;
      options.keys = {std::string("HeaderDigest=") + digest, std::string("DataDigest=") + digest};
      Initiator initiator(bench.events.port);
      ASSERT(initiator.Login(options) == 0);
      const std::string here =
          "TargetAddress=127.0.0.1:" + std::to_string(bench.events.port) + ",1";
      EXPECT_EQ(initiator.Text(Texts({"SendTargets=All"})).text(),
                Texts({"TargetName=iqn.t:attached", here, "TargetName=iqn.t:detached", here}));
      EXPECT_EQ(initiator.Text(Texts({"SendTargets=iqn.t:detached"})).text(),
                Texts({"TargetName=iqn.t:detached", here}));
      EXPECT(initiator.Ping(RandomBytes(10, 1)).data == RandomBytes(10, 1));
      // Commands belong elsewhere.
      initiator.Ask(Cdb{}, 0, 0);
      EXPECT(initiator.Read().Is(Opcode::kReject));
      EXPECT(initiator.Text("x").Is(Opcode::kReject));
      EXPECT(initiator.Logout().Is(Opcode::kLogoutResponse));
      EXPECT(initiator.Ended());
    }
    bench.Post(PortalBench::Request(3, "counters"));
    EXPECT_EQ(bench.events.Count(R"("logins":2,"redirects":0,"discoveries":4,"refused":0)"), 1u);
  });
}

TEST(iscsi_portal, AThousandTargetsComeInParts) {
  OnEachPortal([](PortalBench& bench) {
    Json targets = Json::Array();
    for (int i = 0; i < 1000; ++i) targets.Append(Target("iqn.t:v" + std::to_string(i), ""));
    bench.Post(PortalBench::Request(1, "targets").Set("targets", targets));
    LoginOptions options;
    options.discovery = true;
    options.keys = {"MaxRecvDataSegmentLength=4096"};
    Initiator initiator(bench.events.port);
    ASSERT(initiator.Login(options) == 0);
    Pdu pdu = initiator.Text(Texts({"SendTargets=All"}));
    std::string all = pdu.text();
    while ((pdu.header.flags & kFlagContinue) != 0) {
      pdu = initiator.Text("", kFlagFinal, pdu.As<TextResponse>().transfer_tag);
      ASSERT(pdu.Is(Opcode::kTextResponse));
      EXPECT(pdu.data.size() <= 4096);
      all += pdu.text();
    }
    size_t names = 0;
    for (size_t at = 0; (at = all.find("TargetName=", at)) != std::string::npos; ++at) ++names;
    EXPECT_EQ(names, 1000u);
  });
}

TEST(iscsi_portal, WhatIsNotIscsiIsClosed) {
  OnEachPortal([](PortalBench& bench) {
    Initiator stranger(bench.events.port);
    const std::string request = "GET / HTTP/1.1\r\nHost: somewhere.example\r\nAccept: */*\r\n\r\n";
    stranger.SendBytes(request.data(), request.size());
    EXPECT(stranger.Ended());
    EXPECT(Eventually([&] { return bench.events.Count("no request of iSCSI") == 1; }));
    Initiator silent(bench.events.port);
    silent.SendBytes("C", 1);
  });
}

TEST(iscsi_portal, ATakenAddressIsReportedOnceAndWaitedFor) {
  io::OnEachBackend([](io::Reactor& reactor) {
    const int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t bytes = sizeof(address);
    CHECK(bind(other, reinterpret_cast<sockaddr*>(&address), bytes) == 0 && listen(other, 1) == 0);
    CHECK(getsockname(other, reinterpret_cast<sockaddr*>(&address), &bytes) == 0);
    Json config = GoodConfig();
    config.Set(
        "listen",
        Json::Object().Set("host", "127.0.0.1").Set("port", int64_t{ntohs(address.sin_port)}));
    PortalBench bench(reactor, config);
    EXPECT(Eventually(
        [&] { return bench.events.Count(R"("event":"failed","code":"address-in-use")") == 1; }));
    close(other);
    EXPECT(Eventually([&] { return bench.events.Count(R"("event":"listening")") == 1; }));
    EXPECT_EQ(bench.events.Count(R"("event":"failed")"), 1u);
    bench.Stop();
  });
}

}  // namespace
}  // namespace ankole::iscsi
