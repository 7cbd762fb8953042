#include <algorithm>
#include <random>

#include "io/reactor_testing.h"
#include "replica/replica_testing.h"

// Replicas of several layers, in directories as Longhorn leaves them, against a plain array.
namespace ankole::replica {
namespace {

constexpr uint64_t kSize = 6 * kMiB;
constexpr uint64_t kLowerSize = 5 * kMiB;  // the bottom is from before the volume was expanded
constexpr char kBottom[] = "volume-snap-a.img";
constexpr char kMiddle[] = "volume-snap-b.img";
constexpr char kHead[] = "volume-head-002.img";

std::string LayerText(const std::string& name, const std::string& parent) {
  LayerMeta meta;
  meta.name = name;
  meta.parent = parent;
  meta.created = TimeText(0);
  return meta.Write();
}

void Fill(io::FileSystem& files, io::File file, std::string* model, uint64_t offset,
          uint64_t length, char with) {
  const std::string data(length, with);
  EXPECT(files.WriteAt(file, offset, data.data(), length).ok());
  model->replace(offset, length, data);
}

// A chain of three, with data, holes and unwritten extents in every layer; the model is what it
// reads.
std::string MakeChain(io::FileSystem& files, const std::string& directory,
                      CacheMode cache = CacheMode::kBuffered, uint64_t size = kSize) {
  EXPECT(Replica::Create(files, directory, TestIdentity(cache), size).ok());
  EXPECT(files.Remove(directory + "/volume-head-000.img").ok());
  EXPECT(files.Remove(directory + "/volume-head-000.img.meta").ok());
  std::string model(size, '\0');
  std::mt19937_64 random(test::Seed());
  std::string parent;
  char letter = 'A';
  for (const std::string name : {kBottom, kMiddle, kHead}) {
    const std::string below = model;
    const uint64_t layer_size = name == kBottom ? kLowerSize : size;
    EXPECT(CreateLayerFile(files, directory + "/" + name, layer_size).ok());
    WriteText(files, directory + "/" + name + ".meta", LayerText(name, parent));
    const io::File file = files.Open(directory + "/" + name, {.write = true}).Take();
    for (int i = 0; i < 60; ++i) {
      const uint64_t block = random() % (layer_size / kBlockBytes);
      const uint64_t blocks =
          std::min(layer_size / kBlockBytes - block, 1 + random() % (i % 10 == 0 ? 200 : 12));
      if (i % 4 == 3) {
        // Allocated and unwritten: what is under it shows.
        EXPECT(files.ZeroRange(file, block * kBlockBytes, blocks * kBlockBytes).ok());
        model.replace(block * kBlockBytes, blocks * kBlockBytes, below, block * kBlockBytes,
                      blocks * kBlockBytes);
      } else {
        Fill(files, file, &model, block * kBlockBytes, blocks * kBlockBytes,
             static_cast<char>(letter + i % 8));
      }
    }
    files.Close(file);
    parent = name;
    letter = static_cast<char>(letter + 8);
  }
  VolumeMeta volume;
  volume.size_bytes = size;
  volume.head = kHead;
  volume.parent = kMiddle;
  WriteText(files, directory + "/volume.meta", volume.Write());
  return model;
}

TEST(replica_layers, three_layers_read_as_one) {
  io::OnEachBackend([](io::Reactor& reactor) {
    const std::string directory = test::TemporaryDirectory() + "/r";
    const std::string model = MakeChain(reactor.files(), directory);
    Driver driver(reactor.files(), reactor, directory);
    ASSERT_OK(driver.status());
    EXPECT(driver.Holds(model));
  });
}

// A power loss may leave it where a write was on its way: the block had its place, and nothing in
// it.
TEST(replica_layers, an_unwritten_extent_shows_the_layer_below) {
  io::OnEachBackend([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string directory = test::TemporaryDirectory() + "/r";
    std::string model = MakeChain(files, directory);
    const io::File bottom = files.Open(directory + "/" + kBottom, {.write = true}).Take();
    Fill(files, bottom, &model, 0, kMiB, 'x');
    files.Close(bottom);
    for (const std::string layer : {kMiddle, kHead}) {
      const io::File file = files.Open(directory + "/" + layer, {.write = true}).Take();
      ASSERT_OK(files.PunchHole(file, 0, kMiB));
      ASSERT_OK(files.Allocate(file, 4096, 8192));
      files.Close(file);
    }
    auto driver = std::make_unique<Driver>(files, reactor, directory);
    ASSERT_OK(driver->status());
    EXPECT(driver->ReadAll().substr(0, kMiB) == std::string(kMiB, 'x'));
    // Zeros that keep their space look the same in the file, and have a mask.
    driver->Add(OperationKind::kZero, 4096, 8192).keep_allocated = true;
    ASSERT(driver->Run() == ErrorCode::kOk);
    model = driver->ReadAll();
    EXPECT(model.substr(4096, 8192) == std::string(8192, '\0'));
    driver = nullptr;
    driver = std::make_unique<Driver>(files, reactor, directory);
    EXPECT(driver->Holds(model));
  });
}

// Random operations, several at a time on different blocks, against the model; the replica is
// killed and opened anew now and then, which must change nothing that the page cache has.
void RandomOperations(io::Reactor& reactor, CacheMode cache, uint64_t size, int steps) {
  std::mt19937_64 random(test::Seed() + 1);
  const std::string directory = test::TemporaryDirectory() + "/r";
  std::string model = MakeChain(reactor.files(), directory, cache, size);
  auto driver = std::make_unique<Driver>(reactor.files(), reactor, directory);
  ASSERT_OK(driver->status());
  uint64_t unmapped_blocks = 0;
  for (int step = 0; step < steps / test::kShare; ++step) {
    if (step % 40 == 39) {
      driver = nullptr;
      driver = std::make_unique<Driver>(reactor.files(), reactor, directory);
      ASSERT_OK(driver->status());
      EXPECT(driver->replica().unclean());
      const std::string all = driver->ReadAll();
      ASSERT(all == model);
    }
    struct Read {
      uint64_t offset;
      std::string data;
    };
    std::vector<std::unique_ptr<Read>> reads;
    std::vector<std::unique_ptr<std::string>> writes;
    std::vector<bool> taken(DivideUp(size, kBlockBytes));
    for (int i = 0; i < 12; ++i) {
      const uint64_t sector = random() % (size / kSectorBytes);
      uint64_t sectors = 1 + random() % (i == 0 ? 1000 : 40);
      if (random() % 8 == 0) sectors = size / kSectorBytes;  // to the end
      sectors =
          std::min<uint64_t>({sectors, size / kSectorBytes - sector, kDataBytesMax / kSectorBytes});
      const uint64_t offset = sector * kSectorBytes;
      const uint64_t length = sectors * kSectorBytes;
      bool free = true;
      for (uint64_t block = offset / kBlockBytes; block * kBlockBytes < offset + length; ++block) {
        free &= !taken[block];
      }
      if (!free) continue;
      for (uint64_t block = offset / kBlockBytes; block * kBlockBytes < offset + length; ++block) {
        taken[block] = true;
      }
      switch (random() % 6) {
        case 0:
        case 1: {
          auto& read = *reads.emplace_back(std::make_unique<Read>());
          read.offset = offset;
          read.data.assign(length, '?');
          driver->Add(OperationKind::kRead, offset, length, read.data.data());
          break;
        }
        case 2:
        case 3: {
          auto& data = *writes.emplace_back(std::make_unique<std::string>(length, '\0'));
          for (char& c : data) c = static_cast<char>('a' + random() % 26);
          model.replace(offset, length, data);
          driver->Add(OperationKind::kWrite, offset, length, data.data()).durable =
              random() % 8 == 0;
          break;
        }
        default: {
          ReplicaOperation& zero = driver->Add(
              random() % 2 == 0 ? OperationKind::kUnmap : OperationKind::kZero, offset, length);
          zero.keep_allocated = random() % 3 == 0;
          zero.durable = random() % 8 == 0;
          model.replace(offset, length, length, '\0');
          unmapped_blocks += length / kBlockBytes;
        }
      }
    }
    if (random() % 4 == 0) driver->Add(OperationKind::kFlush);
    EXPECT_EQ(driver->Run(), ErrorCode::kOk);
    for (const auto& read : reads) {
      ASSERT(read->data == model.substr(read->offset, read->data.size()));
    }
  }
  EXPECT(unmapped_blocks > 0);
  ASSERT_OK(driver->Close(true));
}

TEST(replica_layers, random_operations_agree_with_a_plain_array) {
  io::OnEachBackend(
      [](io::Reactor& reactor) { RandomOperations(reactor, CacheMode::kBuffered, kSize, 200); });
}

TEST(replica_layers, random_operations_with_direct_io) {
  io::OnEachBackend(
      [](io::Reactor& reactor) { RandomOperations(reactor, CacheMode::kDirect, kSize, 120); });
}

TEST(replica_layers, random_operations_on_a_size_of_odd_sectors) {
  io::OnEachBackend([](io::Reactor& reactor) {
    RandomOperations(reactor, CacheMode::kBuffered, kSize + 3 * kSectorBytes, 120);
  });
}

// Write A, snapshot, write B, trim: never A again. (Longhorn 1.12 gives A after a restart.)
TEST(replica_layers, trimmed_blocks_over_a_snapshot_stay_zero_and_take_no_space) {
  io::OnEachBackend([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string directory = test::TemporaryDirectory() + "/r";
    std::string model = MakeChain(files, directory);
    {
      Driver driver(files, reactor, directory);
      ASSERT_OK(driver.status());
      std::string data(kMiB, 'B');
      for (uint64_t at = 0; at < kSize; at += kMiB) {
        EXPECT_EQ(driver.Do(OperationKind::kWrite, at, kMiB, data.data()), ErrorCode::kOk);
      }
      EXPECT_EQ(driver.Do(OperationKind::kUnmap, 0, kSize, nullptr, true), ErrorCode::kOk);
      EXPECT(driver.Holds(std::string(kSize, '\0')));
      EXPECT(files.Info(directory + "/" + kHead).value().allocated_bytes < 64 * kKiB);
    }
    Driver driver(files, reactor, directory);
    ASSERT_OK(driver.status());
    EXPECT(driver.Holds(std::string(kSize, '\0')));
    // And what is written afterwards stands above the mask.
    std::string data(512, 'C');
    EXPECT_EQ(driver.Do(OperationKind::kWrite, 512, 512, data.data()), ErrorCode::kOk);
    driver.Drop();
    Driver again(files, reactor, directory);
    ASSERT_OK(again.status());
    EXPECT(again.ReadAll().substr(0, 4096) ==
           std::string(512, '\0') + data + std::string(3072, '\0'));
  });
}

// At whatever point the process dies in an UNMAP, no block shows what lies under the head.
TEST(replica_layers, an_unmap_that_is_cut_short_never_shows_the_layer_below) {
  io::OnEachBackend([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    bool done = false;
    int cut = 1;
    for (; !done; cut += test::kStride) {
      const std::string directory = test::TemporaryDirectory() + "/r";
      MakeChain(reactor.files(), directory);
      std::string data(kMiB, 'B');
      Driver driver(files, reactor, directory);
      ASSERT_OK(driver.status());
      for (uint64_t at = 0; at < kSize; at += kMiB) {
        EXPECT_EQ(driver.Do(OperationKind::kWrite, at, kMiB, data.data()), ErrorCode::kOk);
      }
      files.Reset(cut);
      done = driver.Do(OperationKind::kUnmap, 512, 3 * kMiB) == ErrorCode::kOk;
      driver.Drop();
      files.Reset(0);
      Driver again(files, reactor, directory);
      ASSERT_OK(again.status());
      const std::string all = again.ReadAll();
      for (size_t i = 0; i < all.size(); i += kSectorBytes) {
        const bool within = i >= 512 && i < 512 + 3 * kMiB;
        ASSERT(all[i] == 'B' ? !within || !done : within && all[i] == '\0');
      }
    }
    EXPECT(cut > 4);
  });
}

// The masks are on stable storage before a block is punched: if they cannot be, none is.
TEST(replica_layers, nothing_is_punched_before_the_masks_are_synced) {
  io::OnEachBackend([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    const std::string directory = test::TemporaryDirectory() + "/r";
    MakeChain(reactor.files(), directory);
    Driver driver(files, reactor, directory);
    ASSERT_OK(driver.status());
    std::string data(kMiB, 'B');
    EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, kMiB, data.data()), ErrorCode::kOk);
    files.fail_sync = true;
    EXPECT_EQ(driver.Do(OperationKind::kUnmap, 0, kMiB), ErrorCode::kIoError);
    EXPECT(driver.ReadAll().substr(0, kMiB) == data);
    EXPECT(driver.replica().sync_failed());
    EXPECT(files.Info(directory + "/failed").ok());
  });
}

// A full disk takes some blocks and not others, and masks come before what they are for.
TEST(replica_layers, what_failed_in_part_reads_the_same_when_it_is_opened_anew) {
  io::OnEachBackend([](io::Reactor& reactor) {
    bool parts = false;
    for (int kind = 0; kind < 3; ++kind) {
      bool done = false;
      for (int cut = 1; !done; cut += test::kStride) {
        CutFiles files(reactor.files());
        const std::string directory = test::TemporaryDirectory() + "/r";
        const std::string model = MakeChain(reactor.files(), directory);
        auto driver = std::make_unique<Driver>(files, reactor, directory);
        ASSERT_OK(driver->status());
        std::string byte(512, 'q');
        ASSERT(driver->Do(OperationKind::kWrite, kMiB, 512, byte.data()) == ErrorCode::kOk);
        const std::string before = driver->ReadAll();
        // There must be something that it takes away.
        const uint64_t at = model.find_first_not_of('\0') / kBlockBytes * kBlockBytes + 2048;
        driver->Add(kind == 0 ? OperationKind::kUnmap : OperationKind::kZero, at, 32 * 4096)
            .keep_allocated = kind == 2;
        files.Reset(cut);
        done = driver->Run() == ErrorCode::kOk;
        files.Reset(0);
        // Then it is not to be believed, whatever it says.
        if (driver->replica().sync_failed()) continue;
        const std::string all = driver->ReadAll();
        parts |= !done && all != before;
        driver = nullptr;
        driver = std::make_unique<Driver>(files, reactor, directory);
        EXPECT(driver->Holds(all));
      }
    }
    EXPECT(parts || test::kStride > 1);
  });
}

TEST(replica_layers, a_write_that_failed_in_part_reads_the_same_when_it_is_opened_anew) {
  io::OnEachBackend([](io::Reactor& reactor) {
    const std::string directory = test::TemporaryDirectory() + "/r";
    const std::string model = MakeChain(reactor.files(), directory);
    FaultyReactor failing(reactor);
    auto driver = std::make_unique<Driver>(reactor.files(), failing, directory);
    ASSERT_OK(driver->status());
    failing.plain_error = ENOSPC;
    failing.on_write = [&](const io::FileOperation& write) {
      EXPECT(reactor.files()
                 .WriteAt(write.file, write.offset_bytes, write.vectors[0].iov_base, 8192)
                 .ok());
    };
    std::string data(65536, 'q');
    EXPECT_EQ(driver->Do(OperationKind::kWrite, kMiB, 65536, data.data()), ErrorCode::kNoSpace);
    const std::string all = driver->ReadAll();
    EXPECT(all.substr(kMiB, 8192) == data.substr(0, 8192));
    EXPECT(all.substr(kMiB + 8192) == model.substr(kMiB + 8192));
    driver = nullptr;
    driver = std::make_unique<Driver>(reactor.files(), reactor, directory);
    EXPECT(driver->Holds(all));
  });
}

TEST(replica_layers, status_over_layers_agrees_with_what_is_read) {
  io::OnEachBackend([](io::Reactor& reactor) {
    const std::string directory = test::TemporaryDirectory() + "/r";
    MakeChain(reactor.files(), directory);
    Driver driver(reactor.files(), reactor, directory);
    ASSERT_OK(driver.status());
    EXPECT_EQ(driver.Do(OperationKind::kUnmap, kMiB, kMiB), ErrorCode::kOk);
    const std::string all = driver.ReadAll();
    std::vector<BlockExtent> extents(7);
    uint64_t at = 0;
    uint64_t data_bytes = 0;
    while (at < kSize) {
      ReplicaOperation& operation = driver.Add(OperationKind::kStatus, at, kSize - at);
      operation.extents = extents.data();
      operation.extents_max = static_cast<uint32_t>(extents.size());
      uint32_t count = 0;
      driver.on_done = [&](ReplicaOperation* self) { count = self->extents_count; };
      EXPECT_EQ(driver.Run(), ErrorCode::kOk);
      ASSERT(count > 0);
      for (uint32_t i = 0; i < count; ++i) {
        ASSERT(extents[i].length_bytes > 0 && at + extents[i].length_bytes <= kSize);
        if (extents[i].zero) {
          ASSERT(all.substr(at, extents[i].length_bytes) ==
                 std::string(extents[i].length_bytes, '\0'));
        } else {
          data_bytes += extents[i].length_bytes;
        }
        EXPECT(extents[i].zero || !extents[i].hole);
        at += extents[i].length_bytes;
      }
    }
    EXPECT_EQ(data_bytes, kSize - static_cast<uint64_t>(std::count(all.begin(), all.end(), '\0')));
  });
}

TEST(replica_layers, a_damaged_mask_is_refused) {
  io::OnEachBackend([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string directory = test::TemporaryDirectory() + "/r";
    MakeChain(files, directory);
    {
      Driver driver(files, reactor, directory);
      EXPECT_EQ(driver.Do(OperationKind::kUnmap, 0, kMiB), ErrorCode::kOk);
    }
    const io::File mask = files.Open(directory + "/" + kHead + ".mask", {.write = true}).Take();
    ASSERT_OK(files.WriteAt(mask, 100, "x", 1));
    files.Close(mask);
    Driver driver(files, reactor, directory);
    EXPECT_EQ(driver.status().code(), ErrorCode::kCorrupt);
    EXPECT(driver.status().message().find(".mask") != std::string::npos);
  });
}

TEST(replica_layers, a_layer_that_is_missing_or_too_long_is_refused) {
  io::OnEachBackend([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string directory = test::TemporaryDirectory() + "/r";
    MakeChain(files, directory);
    const std::string middle = directory + "/" + kMiddle;
    const io::File file = files.Open(middle, {.write = true}).Take();
    ASSERT_OK(files.Truncate(file, kSize + 4096));
    files.Close(file);
    EXPECT_EQ(Driver(files, reactor, directory).status().code(), ErrorCode::kCorrupt);
    ASSERT_OK(files.Rename(middle, middle + ".gone"));
    EXPECT_EQ(Driver(files, reactor, directory).status().code(), ErrorCode::kNotFound);
  });
}

}  // namespace
}  // namespace ankole::replica
