#include "iscsi/server_testing.h"

// Logins, discovery, and what ends a session.
namespace ankole::iscsi {
namespace {

const ChapSecrets kSecrets = {"user", "a secret of some length", "target",
                              "another secret, longer"};

TEST(iscsi_state, every_mode_and_event) {
  for (int m = 0; m < kModes; ++m) {
    for (int e = 0; e < kEvents; ++e) {
      const auto mode = static_cast<Mode>(m);
      const auto event = static_cast<Event>(e);
      Mode expected = mode;
      if (mode == Mode::kLogin && event == Event::kLoggedIn) expected = Mode::kFullFeature;
      if (mode < Mode::kDraining && event == Event::kLastRequest) expected = Mode::kDraining;
      if (mode < Mode::kClosing && event == Event::kBroken) expected = Mode::kClosing;
      if (mode == Mode::kDraining && event == Event::kDrained) expected = Mode::kClosing;
      if (mode == Mode::kClosing && event == Event::kSocketClosed) expected = Mode::kClosed;
      if (Next(mode, event) != expected) {
        test::Fail(__FILE__, __LINE__, "mode " + std::to_string(m) + " event " + std::to_string(e));
      }
    }
  }
}

TEST(iscsi, a_login_a_write_a_read_a_logout) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    EXPECT_EQ(initiator.Login(), 0u);
    EXPECT_EQ(bench.Sessions(), 1u);
    const Bytes data = RandomBytes(4096, 1);
    EXPECT(initiator.WriteAt(8192, data).good());
    EXPECT(initiator.ReadAt(8192, 4096).data == data);
    const Pdu pdu = initiator.Logout();
    EXPECT(pdu.Is(Opcode::kLogoutResponse));
    EXPECT_EQ(int{pdu.As<LogoutResponse>().response}, 0);
    EXPECT(initiator.Ended());
    EXPECT(Eventually([&] { return bench.Connections() == 0 && bench.Held() == 0; }));
    EXPECT_EQ(bench.log.size(), 0u);
  });
}

TEST(iscsi, chap_one_way_and_mutual) {
  OnEachBench(
      [](Bench& bench) {
        for (const auto algorithm : {ChapAlgorithm::kMd5, ChapAlgorithm::kSha256}) {
          LoginOptions options;
          options.user = "user";
          options.secret = kSecrets.secret;
          options.algorithm = algorithm;
          Initiator one_way(bench);
          EXPECT_EQ(one_way.Login(options), 0u);
          EXPECT(one_way.ReadAt(0, 512).good());
          options.mutual_user = "target";
          options.mutual_secret = kSecrets.mutual_secret;
          options.isid[5] = 6;
          Initiator mutual(bench);
          EXPECT_EQ(mutual.Login(options), 0u);
          EXPECT(mutual.ReadAt(0, 512).good());
        }
        LoginOptions wrong;
        wrong.user = "user";
        wrong.secret = "not the right secret";
        Initiator stranger(bench);
        EXPECT_EQ(stranger.Login(wrong), 0x0201u);
        EXPECT(stranger.Ended());
        Initiator without(bench);
        EXPECT_EQ(without.Login(), 0x0201u);
        EXPECT(without.Ended());
        EXPECT(Eventually([&] { return bench.log.Count("authentication failed") >= 1; }));
        EXPECT_EQ(bench.log.Count("secret of"), 0u);
      },
      kSecrets);
}

TEST(iscsi, wrong_logins_are_refused) {
  OnEachBench([](Bench& bench) {
    LoginOptions other;
    other.target = "iqn.2024-01.test:other";
    Initiator lost(bench);
    EXPECT_EQ(lost.Login(other), 0x0203u);
    EXPECT(lost.Ended());
    LoginOptions nameless;
    nameless.initiator = "nobody";
    EXPECT_EQ(Initiator(bench).Login(nameless), 0x0200u);
    Initiator second(bench);
    second.tsih = 77;
    EXPECT_EQ(second.Login(), 0x020au);
    Initiator first(bench);
    EXPECT_EQ(first.Login(), 0u);
    Initiator third(bench);
    third.tsih = first.tsih;
    EXPECT_EQ(third.Login(), 0x0206u);
  });
}

TEST(iscsi, discovery) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    LoginOptions options;
    options.discovery = true;
    ASSERT(initiator.Login(options) == 0);
    EXPECT_EQ(bench.Sessions(), 0u);
    const std::string portal = "127.0.0.1:" + std::to_string(bench.bound.port) + ",1";
    const std::string expected = Texts({"TargetName=" + kTarget, "TargetAddress=" + portal});
    EXPECT_EQ(initiator.Text(Texts({"SendTargets=All"})).text(), expected);
    EXPECT_EQ(initiator.Text(Texts({"SendTargets=" + kTarget})).text(), expected);
    EXPECT_EQ(initiator.Text(Texts({"SendTargets=iqn.2024-01.test:other"})).text(), "");
    // No command belongs here.
    initiator.Ask(Cdb{}, 0, 0);
    const Pdu pdu = initiator.Read();
    EXPECT(pdu.Is(Opcode::kReject));
    EXPECT_EQ(initiator.Function(TaskFunction::kLogicalUnitReset), 255);
    EXPECT(initiator.Ping(RandomBytes(100, 1)).data == RandomBytes(100, 1));
    initiator.Logout();
    EXPECT(initiator.Ended());
    // A normal session may ask for its own.
    Initiator normal(bench);
    ASSERT(normal.Login() == 0);
    EXPECT_EQ(normal.Text(Texts({"SendTargets="})).text(), expected);
    const Pdu refused = normal.Text("SendTargets");
    EXPECT(refused.Is(Opcode::kReject) && refused.data.size() == kHeaderBytes);
    EXPECT(normal.ReadAt(0, 512).good());
  });
}

TEST(iscsi, a_smaller_segment_may_be_declared_later) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    EXPECT_EQ(initiator.Text(Texts({"MaxRecvDataSegmentLength=4096"})).text(), "");
    const Outcome outcome = initiator.ReadAt(0, 65536);
    EXPECT(outcome.good());
    EXPECT_EQ(outcome.data_pdus, 16);
  });
}

TEST(iscsi, reinstatement_ends_the_old_session) {
  OnEachBench([](Bench& bench) {
    bench.Hold();
    Initiator old(bench);
    ASSERT(old.Login() == 0);
    old.AskWrite(0, RandomBytes(4096, 1));
    old.AskRead(0, kMiB);
    EXPECT(Eventually([&] { return bench.Pending() == 2; }));
    Initiator fresh(bench);
    // Its commands are the old session's as long as the device has them: the login waits.
    std::thread device([&] {
      EXPECT(old.Ended());
      EXPECT_EQ(bench.Sessions(), 1u);
      bench.LetGo();
    });
    const uint16_t status = fresh.Login();
    device.join();
    ASSERT(status == 0);
    EXPECT(fresh.tsih != old.tsih);
    EXPECT(Eventually([&] { return bench.Connections() == 1; }));
    EXPECT(fresh.ReadAt(0, 512).good());
    // Another initiator port is another session.
    LoginOptions other;
    other.isid[5] = 99;
    Initiator beside(bench);
    ASSERT(beside.Login(other) == 0);
    EXPECT(fresh.ReadAt(0, 512).good());
    EXPECT_EQ(bench.Sessions(), 2u);
  });
}

TEST(iscsi, sessions_beyond_the_bound_are_refused_but_may_be_reinstated) {
  OnEachBench([](Bench& bench) {
    std::vector<std::unique_ptr<Initiator>> initiators;
    LoginOptions options;
    for (size_t i = 0; i < kConnectionsMax; ++i) {
      options.isid[5] = static_cast<uint8_t>(i);
      initiators.push_back(std::make_unique<Initiator>(bench));
      ASSERT(initiators.back()->Login(options) == 0);
    }
    options.isid[5] = 200;
    Initiator further(bench);
    EXPECT_EQ(further.Login(options), 0x0302u);
    options.isid[5] = 3;
    Initiator again(bench);
    EXPECT_EQ(again.Login(options), 0u);
    EXPECT(initiators[3]->Ended());
    EXPECT(again.ReadAt(0, 512).good());
    EXPECT(initiators[15]->ReadAt(0, 512).good());
  });
}

TEST(iscsi, shutdown_answers_what_was_taken_and_says_goodbye) {
  OnEachBench([](Bench& bench) {
    Initiator busy(bench);
    ASSERT(busy.Login() == 0);
    LoginOptions other;
    other.isid[5] = 9;
    Initiator idle(bench);
    ASSERT(idle.Login(other) == 0);
    Initiator strange(bench);
    bench.Hold();
    std::vector<uint32_t> tags;
    for (int i = 0; i < 20; ++i) {
      tags.push_back(busy.AskWrite(static_cast<uint64_t>(i) * 4096, RandomBytes(4096, 1)));
    }
    EXPECT(Eventually([&] { return bench.Pending() == 20; }));
    bench.On([&] { bench.server.Shutdown([&] { bench.reactor.Stop(); }); });
    const Pdu goodbye = idle.Read();
    EXPECT(goodbye.Is(Opcode::kAsyncMessage));
    EXPECT_EQ(int{goodbye.As<AsyncMessage>().event}, 3);
    EXPECT(idle.Ended());
    EXPECT(strange.Ended());
    bench.LetGo();
    for (const uint32_t tag : tags) EXPECT(busy.Await(tag).good());
    EXPECT(busy.Read().Is(Opcode::kAsyncMessage));
    EXPECT(busy.Ended());
    bench.Join();
    EXPECT_EQ(bench.log.size(), 0u);
  });
}

TEST(iscsi, a_hard_shutdown_waits_for_the_device_only) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    bench.Hold();
    for (int i = 0; i < 50; ++i) initiator.AskRead(0, 65536);
    EXPECT(Eventually([&] { return bench.Pending() == 50; }));
    bool stopped = false;
    bench.On([&] {
      bench.server.Shutdown([&] {
        stopped = true;
        bench.reactor.Stop();
      });
      bench.server.Abort();
    });
    EXPECT(initiator.Ended());
    EXPECT(!bench.Get<bool>([&] { return stopped; }));
    bench.LetGo();
    bench.Join();
    EXPECT(stopped);
  });
}

TEST(iscsi, pings_are_echoed) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    for (const size_t bytes : {0, 1, 3, 100, 4096}) {
      const Pdu pdu = initiator.Ping(RandomBytes(bytes, bytes));
      EXPECT(pdu.Is(Opcode::kNopIn));
      EXPECT(pdu.data == RandomBytes(bytes, bytes));
      EXPECT_EQ(uint32_t{pdu.As<NopIn>().transfer_tag}, kNoTag);
    }
    // More than is echoed.
    EXPECT_EQ(initiator.Ping(RandomBytes(30'000, 1)).data.size(), size_t{kPingBytesMax});
    EXPECT(initiator.Ping(RandomBytes(100'000, 1)).Is(Opcode::kNopIn));
    EXPECT(initiator.ReadAt(0, 512).good());
  });
}

TEST(iscsi, logout_of_what_is_not_there) {
  OnEachBench([](Bench& bench) {
    Initiator initiator(bench);
    ASSERT(initiator.Login() == 0);
    EXPECT_EQ(int{initiator.Logout(LogoutReason::kConnection, 5).As<LogoutResponse>().response}, 1);
    EXPECT_EQ(int{initiator.Logout(LogoutReason::kRecovery).As<LogoutResponse>().response}, 2);
    EXPECT(initiator.ReadAt(0, 512).good());
    EXPECT_EQ(int{initiator.Logout(LogoutReason::kConnection, 0).As<LogoutResponse>().response}, 0);
    EXPECT(initiator.Ended());
  });
}

TEST(iscsi, an_address_in_use_is_reported) {
  OnEachBench([](Bench& bench) {
    bench.On([&] {
      Server second(bench.reactor, bench.device, bench.unit, bench.log, {kTarget, {}});
      io::Address bound;
      const Status status = second.Listen(bench.bound, &bound);
      EXPECT_EQ(status.code(), ErrorCode::kAddressInUse);
      EXPECT(status.message().find("iSCSI server of volume volume") != std::string::npos);
    });
  });
}

}  // namespace
}  // namespace ankole::iscsi
