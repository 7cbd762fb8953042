#include "nbd/server_testing.h"

// What clients can do to the server and to each other, and how it stops.
namespace ankole::nbd {
namespace {

// A chunk more than the quota cannot be held, and an idle client holds one.
constexpr size_t kQuota = kConnectionBufferBytesMax;
constexpr size_t kIdle = BufferPool::kSmallBytes;

void ExpectServed(Bench& bench) {
  Client other(bench);
  ASSERT(other.Go(true));
  const Bytes data = RandomBytes(2 * kMiB, 9);
  EXPECT_EQ(other.Write(32 * kMiB, data), 0u);
  EXPECT(other.ReadAt(32 * kMiB, 2 * kMiB).data == data);
}

TEST(nbd, a_client_that_reads_no_replies_pins_its_quota_only) {
  OnEachBench([](Bench& bench) {
    for (const bool structured : {false, true}) {
      Client client(bench);
      ASSERT(client.Go(structured));
      Bytes stream;
      for (uint64_t i = 0; i < 2000; ++i) {
        const uint32_t length = i % 3 == 0 ? 4096 : i % 3 == 1 ? 128 * 1024 : 3 * 1024 * 1024;
        const Bytes header = Client::RequestHeader(Command::kRead, i, i * 512, length);
        stream.insert(stream.end(), header.begin(), header.end());
      }
      client.SendSome(stream);
      EXPECT(Eventually([&] { return bench.Held() > kQuota / 2; }));
      for (int i = 0; i < 20; ++i) EXPECT(bench.Held() <= kQuota);
      ExpectServed(bench);
      client.Close();
      EXPECT(Eventually([&] { return bench.Connections() == 0 && bench.Held() == 0; }));
    }
  });
}

TEST(nbd, a_client_that_sends_half_a_request_pins_its_quota_only) {
  OnEachBench([](Bench& bench) {
    Client half_header(bench);
    Client half_small(bench);
    Client half_large(bench);
    Client half_longest(bench);
    for (Client* client : {&half_header, &half_small, &half_large, &half_longest}) {
      ASSERT(client->Go(true));
    }
    const auto begin = [](Client& client, uint32_t length, size_t bytes) {
      const Bytes header = Client::RequestHeader(Command::kWrite, 1, 0, length);
      client.Send(header.data(), std::min(header.size(), bytes));
      if (bytes > header.size()) client.Send(Bytes(bytes - header.size()));
    };
    begin(half_header, 4096, 13);
    begin(half_small, 4096, 1000);
    begin(half_large, 256 * 1024, 100'000);
    begin(half_longest, kRequestBytesMax, 20'000'000);
    // 20 MB less the last piece have gone to the device.
    EXPECT(Eventually(
        [&] { return bench.Get<uint64_t>([&] { return bench.device.submitted; }) == 19; }));
    EXPECT(Eventually([&] {
      return bench.Held() <= 4 * kIdle + BufferPool::kMediumBytes + BufferPool::kLargeBytes;
    }));
    ExpectServed(bench);
    for (Client* client : {&half_header, &half_small, &half_large, &half_longest}) client->Close();
    EXPECT(Eventually([&] { return bench.Connections() == 0 && bench.Held() == 0; }));
    EXPECT_EQ(bench.log.Count("in the middle of a request"), 4u);
  });
}

TEST(nbd, writes_wait_when_the_device_is_slow) {
  OnEachBench([](Bench& bench) {
    bench.On([&] { bench.device.held = true; });
    Client client(bench);
    ASSERT(client.Go(true));
    const Bytes data = RandomBytes(16 * kMiB, 4);
    std::thread sender([&] {
      for (uint64_t i = 0; i < 48; ++i) {
        const Bytes part(data.begin() + static_cast<ptrdiff_t>(i % 16 * kMiB),
                         data.begin() + static_cast<ptrdiff_t>((i % 16 + 1) * kMiB));
        if (!client.AskWrite(i, i * kMiB, part)) return;
      }
    });
    EXPECT(Eventually([&] { return bench.Pending() >= 14; }));
    for (int i = 0; i < 20; ++i) EXPECT(bench.Held() <= kQuota);
    EXPECT(bench.Pending() < 16);
    bench.On([&] { bench.device.LetGo(); });
    for (uint64_t i = 0; i < 48; ++i) EXPECT_EQ(client.Await().error, 0u);
    sender.join();
    EXPECT(client.ReadAt(40 * kMiB, 4096).data ==
           Bytes(data.begin() + 8 * kMiB, data.begin() + 8 * kMiB + 4096));
  });
}

TEST(nbd, an_empty_pool_is_waited_for) {
  OnEachBench([](Bench& bench) {
    Client client(bench);
    ASSERT(client.Go(false));
    std::vector<BufferPool::Chunk*> taken;
    bench.On([&] {
      while (BufferPool::Chunk* chunk = bench.device.buffers().Acquire(1)) taken.push_back(chunk);
    });
    client.Ask(Command::kRead, 1, 0, 4096);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(bench.Get<uint64_t>([&] { return bench.device.submitted; }), 0u);
    // One piece at a time has room: the reply must not wait for the whole.
    bench.On([&] {
      for (BufferPool::Chunk*& chunk : taken) {
        if (chunk->capacity_bytes != BufferPool::kLargeBytes) continue;
        BufferPool::Release(chunk);
        chunk = nullptr;
        break;
      }
    });
    EXPECT_EQ(client.Await().error, 0u);
    EXPECT_EQ(client.ReadAt(0, 8 * kMiB).data.size(), 8 * kMiB);
    bench.On([&] {
      for (BufferPool::Chunk* chunk : taken) {
        if (chunk != nullptr) BufferPool::Release(chunk);
      }
    });
  });
}

TEST(nbd, clients_that_go_with_requests_in_flight) {
  OnEachBench([](Bench& bench) {
    for (int round = 0; round < 3; ++round) {
      bench.On([&] { bench.device.held = true; });
      Client client(bench);
      ASSERT(client.Go(round == 1));
      for (uint64_t i = 0; i < 64; ++i) {
        client.AskWrite(i, i * 4096, RandomBytes(4096, i));
        client.Ask(Command::kRead, 100 + i, i * kMiB / 2, 200 * 1024);
      }
      client.Ask(Command::kRead, 999, 0, kRequestBytesMax);
      EXPECT(Eventually([&] { return bench.Pending() > 60; }));
      if (round == 2) {
        client.FinishSending();  // half closed: answers are still wanted
      } else {
        client.Close();
      }
      bench.On([&] { bench.device.LetGo(); });
      if (round == 2) {
        for (int i = 0; i < 129; ++i) EXPECT_EQ(client.Await().error, 0u);
        EXPECT(client.Ended());
      }
      EXPECT(Eventually([&] { return bench.Connections() == 0 && bench.Held() == 0; }));
    }
  });
}

TEST(nbd, disconnect_is_answered_by_the_end_after_all_else) {
  OnEachBench([](Bench& bench) {
    bench.On([&] { bench.device.held = true; });
    Client client(bench);
    ASSERT(client.Go(true));
    for (uint64_t i = 0; i < 10; ++i) client.AskWrite(i, i * 4096, RandomBytes(4096, i));
    client.Ask(Command::kDisconnect, 0, 0, 0);
    client.Ask(Command::kRead, 77, 0, 4096);  // must not be listened to
    EXPECT(Eventually([&] { return bench.Pending() == 10; }));
    bench.On([&] { bench.device.LetGo(); });
    for (int i = 0; i < 10; ++i) EXPECT_EQ(client.Await().error, 0u);
    EXPECT(client.Ended());
    EXPECT_EQ(bench.log.size(), 0u);
  });
}

TEST(nbd, malformed_requests_close_that_connection) {
  OnEachBench([](Bench& bench) {
    Client witness(bench);
    ASSERT(witness.Go(true));
    size_t lines = 0;
    const auto closes = [&](const Bytes& bytes, const std::string& cause) {
      Client client(bench);
      ASSERT(client.Go(true));
      client.Send(bytes);
      EXPECT(client.Ended());
      EXPECT(Eventually([&] { return bench.log.Count(cause) == 1; }));
      EXPECT_EQ(bench.log.size(), ++lines);
      EXPECT_EQ(bench.log.Count("nbd client tcp:127.0.0.1:"), lines);
    };
    closes(Bytes(kRequestHeaderBytes, std::byte{'x'}), "not an NBD request");
    closes(Client::RequestHeader(Command::kWrite, 1, 0, kRequestBytesMax + 512),
           "a write of 33554944 bytes");
    closes(Client::RequestHeader(Command::kWrite, 1, 1, 0xffffffff), "a write of 4294967295 bytes");
    EXPECT_EQ(witness.ReadAt(0, 4096).error, 0u);
  });
}

TEST(nbd, connections_beyond_the_bound_are_refused) {
  OnEachBench([](Bench& bench) {
    std::vector<std::unique_ptr<Client>> clients;
    for (size_t i = 0; i < kConnectionsMax; ++i) {
      clients.push_back(std::make_unique<Client>(bench));
      ASSERT(clients.back()->Go(false));
    }
    for (int i = 0; i < 3; ++i) {
      Client further(bench);
      EXPECT(further.Ended());
    }
    EXPECT_EQ(bench.log.Count("refused: there are 16 connections already"), 1u);
    clients.pop_back();
    EXPECT(Eventually([&] { return bench.Connections() == kConnectionsMax - 1; }));
    Client again(bench);
    EXPECT(again.Go(true));
    for (auto& client : clients) EXPECT_EQ(client->ReadAt(0, 512).error, 0u);
  });
}

TEST(nbd, pause_and_resume) {
  OnEachBench([](Bench& bench) {
    Client client(bench);
    ASSERT(client.Go(true));
    bench.On([&] { bench.device.held = true; });
    client.Ask(Command::kRead, 1, 0, 3 * kMiB);
    client.AskWrite(2, 0, RandomBytes(4096, 2));
    EXPECT(Eventually([&] { return bench.Pending() == 4; }));
    bool quiet = false;
    bench.On([&] { bench.server.Pause([&] { quiet = true; }); });
    client.AskWrite(3, 8192, RandomBytes(4096, 3));
    client.AskWrite(4, kMiB, RandomBytes(kMiB, 4));
    Client late(bench);
    EXPECT(!bench.Get<bool>([&] { return quiet; }));
    bench.On([&] { bench.device.LetGo(); });
    EXPECT_EQ(client.Await().error, 0u);
    EXPECT_EQ(client.Await().error, 0u);
    EXPECT(Eventually([&] { return bench.Get<bool>([&] { return quiet; }); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(bench.Get<uint64_t>([&] { return bench.device.submitted; }), 4u);
    bench.On([&] { bench.server.Resume(); });
    EXPECT_EQ(client.Await().error, 0u);
    EXPECT_EQ(client.Await().error, 0u);
    EXPECT(client.ReadAt(kMiB, kMiB).data == RandomBytes(kMiB, 4));
    EXPECT(late.Go(true));
  });
}

TEST(nbd, shutdown_answers_what_was_taken) {
  OnEachBench([](Bench& bench) {
    bench.On([&] { bench.device.held = true; });
    Client busy(bench);
    Client idle(bench);
    Client greeted(bench);
    ASSERT(busy.Go(false) && idle.Go(true) && greeted.Greet());
    for (uint64_t i = 0; i < 20; ++i) busy.AskWrite(i, i * 4096, RandomBytes(4096, i));
    busy.Ask(Command::kRead, 50, 0, kRequestBytesMax);
    EXPECT(Eventually([&] { return bench.Pending() > 30; }));
    bench.On([&] { bench.server.Shutdown([&] { bench.reactor.Stop(); }); });
    EXPECT(idle.Ended());
    EXPECT(greeted.Ended());
    EXPECT_EQ(bench.Connections(), 1u);
    bench.On([&] { bench.device.LetGo(); });
    for (uint64_t i = 0; i < 21; ++i) EXPECT_EQ(busy.Await().error, 0u);
    EXPECT(busy.Ended());
    bench.Join();
    EXPECT_EQ(bench.server.connections(), 0u);
    EXPECT_EQ(bench.log.size(), 0u);
  });
}

TEST(nbd, a_hard_shutdown_waits_for_the_device_only) {
  OnEachBench([](Bench& bench) {
    bench.On([&] { bench.device.held = true; });
    Client client(bench);
    ASSERT(client.Go(true));
    for (uint64_t i = 0; i < 100; ++i) client.Ask(Command::kRead, i, 0, 65536);
    EXPECT(Eventually([&] { return bench.Pending() == 100; }));
    bool stopped = false;
    bench.On([&] {
      bench.server.Shutdown([&] {
        stopped = true;
        bench.reactor.Stop();
      });
      bench.server.Abort();
    });
    EXPECT(client.Ended());
    EXPECT(!bench.Get<bool>([&] { return stopped; }));
    bench.On([&] { bench.device.LetGo(); });
    bench.Join();
    EXPECT(stopped);
  });
}

TEST(nbd, an_address_in_use_is_reported) {
  OnEachBench([](Bench& bench) {
    bench.On([&] {
      Server second(bench.reactor, bench.device, bench.log);
      io::Address bound;
      const Status status = second.Listen(bench.bound, &bound);
      EXPECT_EQ(status.code(), ErrorCode::kAddressInUse);
      EXPECT(status.message().find("NBD server of volume volume") != std::string::npos);
    });
  });
}

}  // namespace
}  // namespace ankole::nbd
