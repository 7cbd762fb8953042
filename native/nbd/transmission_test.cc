#include "nbd/server_testing.h"

namespace ankole::nbd {
namespace {

// Each in both reply modes, on each back end.
void OnEachClient(const std::function<void(Bench&, Client&)>& body) {
  OnEachBench([&](Bench& bench) {
    for (const bool structured : {false, true}) {
      Client client(bench);
      ASSERT(client.Go(structured));
      body(bench, client);
    }
  });
}

TEST(nbd, what_is_written_is_read) {
  OnEachClient([](Bench&, Client& client) {
    uint64_t offset = 512;
    // Around each threshold of the receive path, aligned and not.
    for (const uint32_t length :
         {512u, 4096u, 31u * 1024, 32u * 1024 - 512, 32u * 1024, 32u * 1024 + 512, 64u * 1024,
          65u * 1024, 256u * 1024, 264u * 1024 + 512, 1024u * 1024, 1024u * 1024 + 512,
          5u * 1024 * 1024 + 512}) {
      const Bytes data = RandomBytes(length, length);
      EXPECT_EQ(client.Write(offset, data), 0u);
      EXPECT(client.ReadAt(offset, length).data == data);
      offset += length;
    }
    EXPECT_EQ(client.Do(Command::kFlush, 0, 0).error, 0u);
  });
}

TEST(nbd, the_longest_requests) {
  OnEachClient([](Bench& bench, Client& client) {
    // Two at once, so that the quota is met in the middle of one.
    const Bytes one = RandomBytes(kRequestBytesMax, 1);
    const Bytes two = RandomBytes(kRequestBytesMax, 2);
    client.AskWrite(1, 0, one);
    client.AskWrite(2, kRequestBytesMax, two);
    EXPECT_EQ(client.Await().error + client.Await().error, 0u);
    bench.On([&] { bench.device.shuffled = true; });
    client.Ask(Command::kRead, 1, 0, kRequestBytesMax);
    client.Ask(Command::kRead, 2, kRequestBytesMax, kRequestBytesMax);
    for (int i = 0; i < 2; ++i) {
      const Answer answer = client.Await();
      EXPECT_EQ(answer.error, 0u);
      EXPECT(answer.data == (answer.cookie == 1 ? one : two));
    }
    EXPECT(bench.Get<size_t>([&] { return bench.device.pending_max; }) > 1);
  });
}

TEST(nbd, pipelined_and_out_of_order) {
  OnEachClient([](Bench& bench, Client& client) {
    bench.On([&] {
      bench.device.held = true;
      bench.device.shuffled = true;
    });
    constexpr uint32_t kDepth = kConnectionOperationsMax;
    const Bytes data = RandomBytes(kDepth * 4096, 3);
    Bytes stream;
    for (uint32_t i = 0; i < kDepth; ++i) {
      const Bytes header = Client::RequestHeader(Command::kWrite, i, i * 4096, 4096);
      stream.insert(stream.end(), header.begin(), header.end());
      stream.insert(stream.end(), data.begin() + i * 4096, data.begin() + (i + 1) * 4096);
    }
    client.Send(stream);
    EXPECT(Eventually([&] { return bench.Pending() == kDepth; }));
    bench.On([&] { bench.device.LetGo(); });
    std::vector<bool> seen(kDepth);
    bool ordered = true;
    for (uint32_t i = 0; i < kDepth; ++i) {
      const Answer answer = client.Await();
      ASSERT(!answer.lost && answer.error == 0 && answer.cookie < kDepth && !seen[answer.cookie]);
      seen[answer.cookie] = true;
      ordered &= answer.cookie == i;
    }
    EXPECT(!ordered);
    bench.On([&] { bench.device.held = true; });
    for (uint32_t i = 0; i < kDepth; ++i) client.Ask(Command::kRead, i, i * 4096, 4096);
    EXPECT(Eventually([&] { return bench.Pending() == kDepth; }));
    bench.On([&] { bench.device.LetGo(); });
    for (uint32_t i = 0; i < kDepth; ++i) {
      const Answer answer = client.Await();
      ASSERT(!answer.lost && answer.data.size() == 4096);
      EXPECT(std::memcmp(answer.data.data(), data.data() + answer.cookie * 4096, 4096) == 0);
    }
  });
}

TEST(nbd, more_than_the_queue_depth_waits) {
  OnEachClient([](Bench& bench, Client& client) {
    constexpr uint32_t kRequests = 3 * kConnectionOperationsMax;
    bench.On([&] { bench.device.held = true; });
    for (uint32_t i = 0; i < kRequests; ++i) client.Ask(Command::kRead, i, i * 512, 512);
    EXPECT(Eventually([&] { return bench.Pending() == kConnectionOperationsMax; }));
    bench.On([&] { bench.device.LetGo(); });
    for (uint32_t i = 0; i < kRequests; ++i) EXPECT_EQ(client.Await().error, 0u);
    EXPECT(bench.Get<size_t>([&] { return bench.device.pending_max; }) <= kConnectionOperationsMax);
  });
}

// Random requests of random sizes, a model beside them; the stream is cut at random places.
TEST(nbd, any_mix_in_any_slices) {
  OnEachClient([](Bench& bench, Client& client) {
    std::mt19937_64 random(test::Seed());
    const auto upto = [&](uint64_t n) { return random() % n; };
    bench.On([&] { bench.device.shuffled = true; });
    Bytes model = bench.Get<Bytes>([&] { return bench.device.bytes(); });
    for (int round = 0; round < 20; ++round) {
      Bytes stream;
      uint64_t at = 0;  // requests of one round do not overlap
      uint64_t cookie = 0;
      std::map<uint64_t, std::pair<uint64_t, uint32_t>> reads;
      while (at < 6 * kMiB) {
        at += upto(16) * 512;
        const uint32_t sizes[] = {512, 4096, 20 * 512, 70 * 512, 300 * 512, 3000 * 512};
        const auto length = static_cast<uint32_t>((1 + upto(sizes[upto(6)] / 512)) * 512);
        const auto command = std::array{Command::kRead, Command::kWrite, Command::kWrite,
                                        Command::kWriteZeroes, Command::kTrim}[upto(5)];
        if (command == Command::kRead) {
          client.Ask(Command::kRead, cookie, at, length);  // learns what to expect
          reads[cookie] = {at, length};
        } else {
          const Bytes header = Client::RequestHeader(command, cookie, at, length);
          stream.insert(stream.end(), header.begin(), header.end());
          if (command == Command::kWrite) {
            const Bytes data = RandomBytes(length, random());
            stream.insert(stream.end(), data.begin(), data.end());
            std::copy(data.begin(), data.end(), model.begin() + static_cast<ptrdiff_t>(at));
          } else {
            std::fill_n(model.begin() + static_cast<ptrdiff_t>(at), length, std::byte{0});
          }
        }
        ++cookie;
        at += length;
      }
      std::thread sender([&] {
        for (size_t sent = 0; sent < stream.size();) {
          const size_t slice = std::min(stream.size() - sent, 1 + upto(upto(2) ? 100'000 : 5000));
          if (!client.Send(stream.data() + sent, slice)) return;
          sent += slice;
        }
      });
      for (uint64_t i = 0; i < cookie; ++i) {
        const Answer answer = client.Await();
        EXPECT(!answer.lost && answer.error == 0);
        if (answer.lost) break;
        const auto read = reads.find(answer.cookie);
        if (read != reads.end()) {
          const auto [offset, length] = read->second;
          EXPECT(std::equal(answer.data.begin(), answer.data.end(),
                            model.begin() + static_cast<ptrdiff_t>(offset)));
          EXPECT_EQ(answer.data.size(), length);
        }
      }
      sender.join();
    }
    EXPECT(bench.Get<bool>([&] { return bench.device.bytes() == model; }));
    EXPECT(Eventually([&] { return bench.Held() <= BufferPool::kSmallBytes; }));
  });
}

TEST(nbd, trim_zeroes_and_block_status) {
  OnEachBench([](Bench& bench) {
    Client client(bench);
    ASSERT(client.Go(true));
    using Extents = std::vector<std::pair<uint32_t, uint32_t>>;
    constexpr uint32_t kEmpty = kStateHole | kStateZero;
    EXPECT_EQ(client.Write(8192, RandomBytes(8192, 1)), 0u);
    EXPECT_EQ(client.Write(32768, RandomBytes(8192, 1)), 0u);
    const auto status = [&](uint64_t offset, uint32_t length, uint16_t flags = 0) {
      return client.Do(Command::kBlockStatus, offset, length, flags).extents;
    };
    EXPECT(status(0, 65536) ==
           (Extents{{8192, kEmpty}, {8192, 0}, {16384, kEmpty}, {8192, 0}, {24576, kEmpty}}));
    EXPECT(status(0, 65536, kCommandReqOne) == (Extents{{4096, kEmpty}}));
    // Within what was asked, even where the run goes on.
    EXPECT(status(8704, 1024) == (Extents{{1024, 0}}));
    EXPECT(status(0, 512, kCommandReqOne) == (Extents{{512, kEmpty}}));
    EXPECT_EQ(client.Do(Command::kTrim, 8192, 4096).error, 0u);
    EXPECT_EQ(client.Do(Command::kWriteZeroes, 32768, 4096, kCommandNoHole).error, 0u);
    EXPECT_EQ(client.Do(Command::kWriteZeroes, 36864, 4096, kCommandFastZero).error, 0u);
    EXPECT(status(8192, 32768) ==
           (Extents{{4096, kEmpty}, {4096, 0}, {16384, kEmpty}, {4096, 0}, {4096, kEmpty}}));
    EXPECT(client.ReadAt(32768, 8192).data == Bytes(8192));
    // Longer than the list of extents: the client asks again for the rest.
    for (uint32_t i = 0; i < 600; ++i) {
      client.Write(kMiB + i * 8192, RandomBytes(4096, 1));
    }
    EXPECT_EQ(status(kMiB, 600 * 8192).size(), size_t{kExtentsMax});
    // As long as the volume.
    EXPECT_EQ(client.Do(Command::kWriteZeroes, 0, Bench::kSizeBytes).error, 0u);
    EXPECT(status(kMiB, 8192) == (Extents{{8192, kEmpty}}));
  });
}

TEST(nbd, force_unit_access_reaches_the_device) {
  OnEachClient([](Bench& bench, Client& client) {
    const auto durable = [&] { return bench.Get<uint64_t>([&] { return bench.device.durable; }); };
    const uint64_t before = durable();
    EXPECT_EQ(client.Write(0, RandomBytes(4096, 1), kCommandFua), 0u);
    EXPECT_EQ(client.Do(Command::kTrim, 0, 4096, kCommandFua).error, 0u);
    EXPECT_EQ(client.Do(Command::kWriteZeroes, 0, 4096, kCommandFua).error, 0u);
    EXPECT_EQ(durable(), before + 3);
    // Every piece of a long one.
    EXPECT_EQ(client.Write(0, RandomBytes(2 * kMiB, 1), kCommandFua), 0u);
    EXPECT_EQ(durable(), before + 5);
    EXPECT_EQ(client.Write(0, RandomBytes(4096, 1)), 0u);
    EXPECT_EQ(client.ReadAt(0, 4096, kCommandFua).error, 0u);
    EXPECT_EQ(client.Do(Command::kFlush, 0, 0, kCommandFua).error, 0u);
    EXPECT_EQ(durable(), before + 5);
  });
}

TEST(nbd, refused_requests_leave_the_connection_in_step) {
  OnEachClient([](Bench& bench, Client& client) {
    const uint64_t submitted = bench.Get<uint64_t>([&] { return bench.device.submitted; });
    const uint64_t end = Bench::kSizeBytes;
    EXPECT_EQ(client.Write(end, RandomBytes(512, 1)), 28u);
    EXPECT_EQ(client.Write(end - 512, RandomBytes(1024, 1)), 28u);
    EXPECT_EQ(client.Write(end - 512, RandomBytes(kRequestBytesMax, 1)), 28u);
    EXPECT_EQ(client.Write(3, RandomBytes(100'000, 1)), 22u);
    EXPECT_EQ(client.Write(0, RandomBytes(4096, 1), kCommandDf), 22u);
    EXPECT_EQ(client.Write(0, {}), 22u);
    EXPECT_EQ(client.ReadAt(end, 512).error, 22u);
    EXPECT_EQ(client.ReadAt(1, 512).error, 22u);
    EXPECT_EQ(client.ReadAt(0, kRequestBytesMax + 512).error, 22u);
    EXPECT_EQ(client.Do(Command::kTrim, end, 512).error, 22u);
    EXPECT_EQ(client.Do(Command::kWriteZeroes, end, 512).error, 28u);
    EXPECT_EQ(client.Do(static_cast<Command>(5), 0, 512).error, 22u);
    EXPECT_EQ(client.Do(static_cast<Command>(200), 0, 512).error, 22u);
    EXPECT_EQ(bench.Get<uint64_t>([&] { return bench.device.submitted; }), submitted);
    EXPECT_EQ(client.Write(0, RandomBytes(4096, 1)), 0u);
    EXPECT_EQ(bench.log.size(), 0u);
  });
}

TEST(nbd, unfragmented_reads) {
  OnEachBench([](Bench& bench) {
    Client client(bench);
    ASSERT(client.Go(true));
    const Answer answer = client.ReadAt(0, kDataBytesMax, kCommandDf);
    EXPECT_EQ(answer.error, 0u);
    EXPECT_EQ(answer.chunks, 1);
    EXPECT_EQ(client.ReadAt(0, kDataBytesMax + 512, kCommandDf).error, 75u);
  });
}

TEST(nbd, errors_of_the_device_reach_the_client) {
  OnEachClient([](Bench& bench, Client& client) {
    const auto failing = [&](ErrorCode code) {
      bench.On([&] { bench.device.fault = [code](const BlockRequest&) { return code; }; });
    };
    failing(ErrorCode::kIoError);
    EXPECT_EQ(client.ReadAt(0, 4096).error, 5u);
    EXPECT_EQ(client.Write(0, RandomBytes(4096, 1)), 5u);
    EXPECT_EQ(client.Write(0, RandomBytes(3 * kMiB, 1)), 5u);
    EXPECT_EQ(client.ReadAt(0, 3 * kMiB).error, 5u);
    EXPECT_EQ(client.Do(Command::kFlush, 0, 0).error, 5u);
    failing(ErrorCode::kNoSpace);
    EXPECT_EQ(client.Write(0, RandomBytes(4096, 1)), 28u);
    failing(ErrorCode::kUnavailable);
    EXPECT_EQ(client.Do(Command::kTrim, 0, 4096).error, 108u);
    bench.On([&] { bench.device.fault = nullptr; });
    EXPECT_EQ(client.ReadAt(0, 4096).error, 0u);
  });
}

TEST(nbd, a_long_read_that_fails_in_the_middle) {
  OnEachBench([](Bench& bench) {
    bench.On([&] {
      bench.device.shuffled = true;
      bench.device.fault = [](const BlockRequest& request) {
        return request.offset_bytes == 5 * kMiB ? ErrorCode::kIoError : ErrorCode::kOk;
      };
    });
    {
      Client client(bench);
      ASSERT(client.Go(true));
      EXPECT_EQ(client.ReadAt(0, kRequestBytesMax).error, 5u);
      // The piece that fails is the last to end, or not.
      for (int i = 0; i < 16; ++i) EXPECT_EQ(client.ReadAt(0, 8 * kMiB).error, 5u);
      EXPECT_EQ(client.ReadAt(0, 4096).error, 0u);
    }
    {
      Client client(bench);
      ASSERT(client.Go(false));
      // Short enough to wait for all of it.
      EXPECT_EQ(client.ReadAt(0, 8 * kMiB).error, 5u);
      EXPECT_EQ(client.ReadAt(0, 4096).error, 0u);
      bench.On([&] { bench.device.shuffled = false; });
      // Success was promised already when the error came.
      bench.On([&] {
        bench.device.fault = [](const BlockRequest& request) {
          return request.offset_bytes == 28 * kMiB ? ErrorCode::kIoError : ErrorCode::kOk;
        };
      });
      EXPECT(client.ReadAt(0, kRequestBytesMax).lost);
      EXPECT(Eventually([&] { return bench.log.Count("in the middle of a simple reply") == 1; }));
    }
    EXPECT(Eventually([&] { return bench.Connections() == 0; }));
  });
}

TEST(nbd, several_connections_see_one_volume) {
  OnEachBench([](Bench& bench) {
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 8; ++i) {
      clients.push_back(std::make_unique<Client>(bench));
      ASSERT(clients.back()->Go(i % 2 == 0));
    }
    EXPECT_EQ(bench.Connections(), 8u);
    for (uint64_t i = 0; i < 8; ++i) {
      const Bytes data = RandomBytes(100 * 512, i);
      EXPECT_EQ(clients[i]->Write(i * kMiB, data), 0u);
      EXPECT(clients[(i + 3) % 8]->ReadAt(i * kMiB, 100 * 512).data == data);
    }
  });
}

}  // namespace
}  // namespace ankole::nbd
