#include "engine/snapshot_reader.h"

#include <cstring>

#include "engine/snapshot_testing.h"

// Snapshots that are read while clients write to the volume.
namespace ankole::engine::testing {
namespace {

struct Reading : ReadSnapshotRequest {
  bool finished = false;  // of the reactor's thread
};

// A snapshot, open, and one client that uses it.
struct Reader {
  explicit Reader(Bench& of) : bench(of) {}
  ~Reader() {
    if (device != nullptr) bench.On([&] { device->ClientLeft(); });
  }

  Status Open(const std::string& layer, const std::string& name) {
    Reading reading;
    reading.layer = layer;
    reading.name = name;
    reading.done = [](ReadSnapshotRequest* of) { static_cast<Reading*>(of)->finished = true; };
    bench.On([&] { bench.engine->ReadSnapshot(&reading); });
    CHECK(bench.Until([&] { return reading.finished; }, 20'000));
    size_bytes = reading.size_bytes;
    return reading.status;
  }
  void Use(const std::string& name) {
    bench.On([&] {
      device = bench.engine->readable().Find(name);
      CHECK(device != nullptr);
      device->ClientCame();
    });
  }
  // Submitted, and not waited for.
  Request* Begin(BlockOperation operation, uint64_t offset, uint32_t length) {
    requests.push_back(std::make_unique<Request>());
    Request* request = requests.back().get();
    bench.On([&] {
      request->operation = operation;
      request->offset_bytes = offset;
      request->length_bytes = length;
      request->done = [](BlockRequest* of) { static_cast<Request*>(of)->finished = true; };
      if (operation == BlockOperation::kRead || operation == BlockOperation::kWrite) {
        request->chunk = bench.engine->buffers().Acquire(length);
        CHECK(request->chunk != nullptr);
        request->data = request->chunk->data;
      }
      if (operation == BlockOperation::kStatus) {
        request->room.resize(16);
        request->extents = request->room.data();
        request->extents_max = 16;
      }
      device->Submit(request);
      CHECK(!request->finished);
    });
    return request;
  }
  bool Wait(Request* request) {
    const bool finished = bench.Until([&] { return request->finished; }, 20'000);
    if (request->chunk != nullptr) bench.On([&] { BufferPool::Release(request->chunk); });
    return finished;
  }
  ErrorCode Do(BlockOperation operation, uint64_t offset, uint32_t length) {
    Request* request = Begin(operation, offset, length);
    return Wait(request) ? request->status : ErrorCode::kTimedOut;
  }
  bool Reads(uint64_t offset, uint32_t length, uint8_t value) {
    Request* request = Begin(BlockOperation::kRead, offset, length);
    if (!bench.Until([&] { return request->finished; }, 20'000)) return false;
    const bool same = request->status == ErrorCode::kOk &&
                      std::all_of(request->data, request->data + length,
                                  [&](std::byte byte) { return byte == std::byte{value}; });
    bench.On([&] { BufferPool::Release(request->chunk); });
    return same;
  }

  Bench& bench;
  BlockDevice* device = nullptr;
  uint64_t size_bytes = 0;
  std::vector<std::unique_ptr<Request>> requests;
};

// A volume of sevens, and its snapshot «one».
template <typename Volume>
bool StartWithOne(Volume& volume) {
  return volume.bench.StartAndWait() && volume.bench.Write(0, 16384, 7) == ErrorCode::kOk &&
         Good(volume.Take("one"));
}

TEST(engine_snapshot_reader, ItHoldsWhatTheVolumeDidThen) {
  Snapshots<0> volume{1000};
  Bench& bench = volume.bench;
  for (int i = 0; i < 2; ++i) bench.AddReal();
  ASSERT(bench.StartAndWait());
  EXPECT(bench.Write(0, 64 * kKiB, 'a') == ErrorCode::kOk);
  EXPECT(Good(volume.Take("one")));
  EXPECT(bench.Write(4096, 8192, 'b') == ErrorCode::kOk);
  EXPECT(bench.Write(8 * kMiB, 4096, 'b') == ErrorCode::kOk);
  bench.On([&] { EXPECT(bench.engine->Expand("grow", 2 * Bench::kSizeBytes).ok()); });
  ASSERT(bench.Until([&] { return bench.engine->size_bytes() == 2 * Bench::kSizeBytes; }));

  Reader reader(bench);
  EXPECT(Good(reader.Open("one", "demo@first")));
  EXPECT_EQ(reader.size_bytes, uint64_t{Bench::kSizeBytes});
  reader.Use("demo@first");
  EXPECT(reader.device->read_only());
  EXPECT_EQ(reader.device->name(), "demo@first");
  EXPECT_EQ(reader.device->size_bytes(), uint64_t{Bench::kSizeBytes});
  EXPECT(reader.Reads(0, 64 * kKiB, 'a'));
  EXPECT(reader.Reads(4608, 512, 'a'));
  EXPECT(reader.Reads(8 * kMiB, kMiB, 0));
  Request* status = reader.Begin(BlockOperation::kStatus, 0, kMiB);
  EXPECT(reader.Wait(status));
  ASSERT(status->status == ErrorCode::kOk && status->extents_count == 2);
  EXPECT_EQ(status->extents[0].length_bytes, 64 * kKiB);
  EXPECT(!status->extents[0].hole && status->extents[1].hole && status->extents[1].zero);
  for (const BlockOperation changes :
       {BlockOperation::kWrite, BlockOperation::kZero, BlockOperation::kUnmap}) {
    EXPECT(reader.Do(changes, 0, 4096) == ErrorCode::kReadOnly);
  }
  EXPECT(reader.Do(BlockOperation::kFlush, 0, 0) == ErrorCode::kOk);
  EXPECT(bench.Reads(4096, 8192, 'b'));
}

TEST(engine_snapshot_reader, WhatIsNotThereCannotBeRead) {
  Snapshots<2> volume;
  ASSERT(volume.bench.StartAndWait());
  EXPECT(Good(volume.Take("one")));
  Reader reader(volume.bench);
  EXPECT(reader.Open("two", "demo@two").code() == ErrorCode::kNotFound);
  EXPECT(reader.Open("../etc", "demo@two").code() == ErrorCode::kInvalidArgument);
  EXPECT(reader.Open("one", "").code() == ErrorCode::kInvalidArgument);
  EXPECT(reader.Open("one", std::string(200, 'x')).code() == ErrorCode::kInvalidArgument);
  volume.bench.On([&] {
    for (const char* name : {"demo@two", "demo@one", "demo", ""}) {
      EXPECT(volume.bench.engine->readable().Find(name) == nullptr);
    }
  });
}

TEST(engine_snapshot_reader, NoMoreAreOpenThanMayBe) {
  Snapshots<1> volume;
  ASSERT(volume.bench.StartAndWait());
  for (size_t i = 0; i <= kSnapshotReadersMax; ++i) {
    EXPECT(Good(volume.Take("s" + std::to_string(i))));
  }
  Reader reader(volume.bench);
  for (size_t i = 0; i < kSnapshotReadersMax; ++i) {
    const std::string name = "s" + std::to_string(i);
    EXPECT(Good(reader.Open(name, "demo@" + name)));
    EXPECT(Good(reader.Open(name, "demo@" + name)));  // it is open
  }
  const std::string last = "s" + std::to_string(kSnapshotReadersMax);
  EXPECT(reader.Open(last, "demo@" + last).code() == ErrorCode::kBusy);
}

// One is corrupt here, another one there; and what no member has good is an error, no data.
TEST(engine_snapshot_reader, WhatOneMemberCannotReadAnotherOneDoes) {
  Snapshots<2> volume;
  ASSERT(StartWithOne(volume));
  Reader reader(volume.bench);
  EXPECT(Good(reader.Open("one", "demo@one")));
  reader.Use("demo@one");
  for (size_t failing = 0; failing < 2; ++failing) {
    for (size_t i = 0; i < 2; ++i) {
      volume[i].verdict = [=](const wire::Header& header) {
        const bool fails = header.view != 0 && (i == failing || header.offset_bytes == 8192);
        return FailWith(fails, ErrorCode::kCorrupt);
      };
    }
    for (int i = 0; i < 8; ++i) EXPECT(reader.Reads(0, 4096, 7));
    EXPECT(reader.Do(BlockOperation::kRead, 8192, 4096) == ErrorCode::kCorrupt);
  }
}

TEST(engine_snapshot_reader, AMemberThatIsLostIsDoneWithout) {
  Snapshots<2> volume(300);
  ASSERT(StartWithOne(volume));
  Reader reader(volume.bench);
  EXPECT(Good(reader.Open("one", "demo@one")));
  reader.Use("demo@one");
  volume.bench.Until([&] { return volume[0].view_id == 1 && volume[1].view_id == 1; });
  for (size_t i = 0; i < 2; ++i) {
    volume[i].verdict = [](const wire::Header& header) { return Hold(header.view != 0); };
  }
  Request* request = reader.Begin(BlockOperation::kRead, 0, 4096);
  ASSERT(volume.bench.Until([&] { return volume[0].held() + volume[1].held() == 1; }));
  const size_t asked = volume[0].held() == 1 ? 0 : 1;
  for (size_t i = 0; i < 2; ++i) volume[i].verdict = Judge();
  volume.bench.On([&] { volume[asked].Unlisten(); });
  EXPECT(reader.Wait(request));
  EXPECT(request->status == ErrorCode::kOk);
  EXPECT(reader.Reads(4096, 4096, 7));
}

// The last one's connection breaks, and comes back with views of another number.
TEST(engine_snapshot_reader, ItIsOpenedAnewWhereAConnectionWasLost) {
  Snapshots<1> volume;
  ASSERT(StartWithOne(volume));
  Reader reader(volume.bench);
  EXPECT(Good(reader.Open("one", "demo@one")));
  reader.Use("demo@one");
  EXPECT(reader.Reads(0, 4096, 7));
  for (int i = 0; i < 3; ++i) {
    volume.bench.On([&] { volume[0].Break(); });
    EXPECT(reader.Reads(0, 4096, 7));
  }
  EXPECT(volume[0].view_id == 4);
}

TEST(engine_snapshot_reader, WhatIsReadIsNotDeleted) {
  Snapshots<2> volume;
  ASSERT(StartWithOne(volume));
  {
    Reader reader(volume.bench);
    EXPECT(Good(reader.Open("one", "demo@one")));
    // Its client is about to come.
    const Status early = volume.Delete("one");
    EXPECT(early.code() == ErrorCode::kBusy);
    reader.Use("demo@one");
    const Status status = volume.Delete("one");
    EXPECT(status.code() == ErrorCode::kBusy);
    EXPECT(status.message().find("it is being read by a client") != std::string::npos);
    volume.bench.On([&] { EXPECT(volume.bench.engine->IsRead("one")); });
    EXPECT(reader.Reads(0, 4096, 7));
    // Another one is taken and deleted meanwhile.
    EXPECT(Good(volume.Take("two")));
    EXPECT(Good(volume.Delete("two")));
  }
  volume.bench.On([&] { EXPECT(!volume.bench.engine->IsRead("one")); });
  EXPECT(Good(volume.Delete("one")));
  EXPECT_EQ(volume.Layers(0).substr(0, 13), "one (removed)");
  volume.bench.On([&] { EXPECT(volume.bench.engine->readable().Find("demo@one") == nullptr); });
}

// Reads go on while snapshots are taken, and hold none of them up for long.
TEST(engine_snapshot_reader, SnapshotsAreTakenWhileOneIsRead) {
  Snapshots<2> volume;
  ASSERT(StartWithOne(volume));
  Reader reader(volume.bench);
  EXPECT(Good(reader.Open("one", "demo@one")));
  reader.Use("demo@one");
  bool stop = false;
  size_t running = 0;
  size_t reads = 0;
  std::array<Request, 16> requests;
  const auto again = [&](Request* request) {
    ++reads;
    EXPECT(request->status == ErrorCode::kOk && request->data[0] == std::byte{7});
    if (stop) {
      BufferPool::Release(request->chunk);
      --running;
      return;
    }
    reader.device->Submit(request);
  };
  volume.bench.On([&] {
    for (Request& request : requests) {
      request.chunk = volume.bench.engine->buffers().Acquire(4096);
      request.data = request.chunk->data;
      request.length_bytes = 4096;
      request.then = again;
      request.done = [](BlockRequest* of) {
        auto* self = static_cast<Request*>(of);
        self->then(self);
      };
      ++running;
      reader.device->Submit(&request);
    }
  });
  for (int i = 0; i < 5; ++i) EXPECT(Good(volume.Take("while-" + std::to_string(i))));
  volume.bench.On([&] { stop = true; });
  EXPECT(volume.bench.Until([&] { return running == 0; }));
  EXPECT(reads > 100);
}

TEST(engine_snapshot_reader, WhatWaitsIsAnsweredWhenTheEngineStops) {
  Snapshots<1> volume;
  ASSERT(volume.bench.StartAndWait());
  EXPECT(Good(volume.Take("one")));
  EXPECT(Good(volume.Take("two")));
  Reader reader(volume.bench);
  EXPECT(Good(reader.Open("one", "demo@one")));
  reader.Use("demo@one");
  volume[0].verdict = [](const wire::Header& header) {
    return Hold(header.view != 0 || header.opcode == wire::Opcode::kView);
  };
  std::vector<Request*> requests;
  for (size_t i = 0; i < 2 * kSnapshotReadsMax; ++i) {
    requests.push_back(reader.Begin(BlockOperation::kRead, 0, 4096));
  }
  Reading two;
  two.layer = "two";
  two.name = "demo@two";
  two.done = [](ReadSnapshotRequest* of) { static_cast<Reading*>(of)->finished = true; };
  volume.bench.On([&] { volume.bench.engine->ReadSnapshot(&two); });
  ASSERT(volume.bench.Until([&] { return volume[0].held() == kSnapshotReadsMax + 1; }));
  volume.bench.On([&] { volume.bench.engine->Stop(); });
  for (Request* request : requests) {
    EXPECT(reader.Wait(request));
    EXPECT(request->status == ErrorCode::kUnavailable);
  }
  EXPECT(volume.bench.Until([&] { return two.finished; }));
  EXPECT(two.status.code() == ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace ankole::engine::testing
