#include "replica/replica.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <tuple>

#include "io/reactor_testing.h"
#include "replica/replica_testing.h"

namespace ankole::replica {
namespace {

constexpr uint64_t kSize = 4 * kMiB;

wire::RecordPair SomeRecord(uint64_t generation) {
  wire::RecordPair pair;
  pair.current.epoch = {.attachment = 1, .run = 1};
  pair.current.generation = generation;
  pair.current.members.Add(0xa1);
  return pair;
}

// Runs `body` with a fresh replica's directory on each back end.
void OnFreshReplica(const std::function<void(CutFiles&, io::Reactor&, const std::string&)>& body,
                    CacheMode cache = CacheMode::kBuffered, uint64_t size = kSize) {
  io::OnEachBackend([&](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    const std::string directory = test::TemporaryDirectory() + "/demo-00000000000000a1";
    ASSERT_OK(Replica::Create(files, directory, TestIdentity(cache), size));
    body(files, reactor, directory);
  });
}

TEST(replica, what_was_written_is_read_and_survives) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    std::string data(kMiB, '\0');
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 512);
    {
      Driver driver(files, reactor, directory);
      ASSERT_OK(driver.status());
      EXPECT(!driver.replica().unclean() && !driver.replica().sync_failed());
      EXPECT_EQ(driver.ReadAll(), std::string(kSize, '\0'));
      EXPECT_EQ(driver.Do(OperationKind::kWrite, 512, data.size(), data.data()), ErrorCode::kOk);
      EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kOk);
      ASSERT_OK(driver.Close(true));
    }
    Driver driver(files, reactor, directory);
    ASSERT_OK(driver.status());
    EXPECT(!driver.replica().unclean());
    const std::string all = driver.ReadAll();
    EXPECT(all.substr(512, data.size()) == data);
    EXPECT(all.substr(512 + data.size()) == std::string(kSize - 512 - data.size(), '\0'));
    const Result<ReplicaDescription> description = Replica::Describe(files, directory);
    ASSERT_OK(description);
    EXPECT_EQ(description.value().size_bytes, kSize);
    // The metadata of a small replica: 140 KiB at most, of which 72 are the target's state.
    EXPECT(description.value().allocated_bytes >= kMiB &&
           description.value().allocated_bytes < kMiB + 140 * kKiB);
    EXPECT(description.value().identity.id == 0xa1);
  });
}

TEST(replica, direct_io_takes_any_alignment) {
  OnFreshReplica(
      [](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
        std::string model(kSize, '\0');
        std::string data(kMiB + 1, '\0');
        for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 13 + i / 700);
        Driver driver(files, reactor, directory);
        ASSERT_OK(driver.status());
        for (const auto& [offset, length, durable] :
             {std::tuple<uint64_t, uint64_t, bool>{512, 512, false},
              {4096, 8192, true},
              {3584, 1024, false},
              {512, kMiB, false},
              {kSize - 512, 512, true}}) {
          EXPECT_EQ(driver.Do(OperationKind::kWrite, offset, length, data.data() + 1, durable),
                    ErrorCode::kOk);
          model.replace(offset, length, data, 1, length);
          std::string part(length, '?');
          EXPECT_EQ(driver.Do(OperationKind::kRead, offset, length, part.data()), ErrorCode::kOk);
          EXPECT(part == model.substr(offset, length));
        }
        EXPECT_EQ(driver.Do(OperationKind::kZero, 1536, 5120), ErrorCode::kOk);
        model.replace(1536, 5120, 5120, '\0');
        EXPECT(driver.Holds(model));
        EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kOk);
        ASSERT_OK(driver.Close(true));
      },
      CacheMode::kDirect);
}

TEST(replica, answers_what_is_out_of_range_or_unaligned) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    Driver driver(files, reactor, directory);
    ASSERT_OK(driver.status());
    std::string data(2 * kMiB, 'x');
    using enum OperationKind;
    for (const OperationKind kind : {kRead, kWrite, kZero, kUnmap, kStatus}) {
      EXPECT_EQ(driver.Do(kind, kSize, 512, data.data()), ErrorCode::kOutOfRange);
      EXPECT_EQ(driver.Do(kind, kSize - 512, 1024, data.data()), ErrorCode::kOutOfRange);
      EXPECT_EQ(driver.Do(kind, UINT64_MAX - 511, 1024, data.data()), ErrorCode::kOutOfRange);
      EXPECT_EQ(driver.Do(kind, 0, UINT64_MAX - 511, data.data()), ErrorCode::kOutOfRange);
      EXPECT_EQ(driver.Do(kind, 0, 0, data.data()), ErrorCode::kInvalidArgument);
      EXPECT_EQ(driver.Do(kind, 100, 512, data.data()), ErrorCode::kInvalidArgument);
      EXPECT_EQ(driver.Do(kind, 0, 100, data.data()), ErrorCode::kInvalidArgument);
    }
    EXPECT_EQ(driver.Do(kWrite, 0, kDataBytesMax + 512, data.data()), ErrorCode::kInvalidArgument);
    EXPECT_EQ(driver.Do(kStatus, 0, 512), ErrorCode::kInvalidArgument);
    EXPECT(!driver.replica().unclean());
  });
}

TEST(replica, is_open_in_one_process_only) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    {
      Driver first(files, reactor, directory);
      ASSERT_OK(first.status());
      Driver second(files, reactor, directory);
      EXPECT_EQ(second.status().code(), ErrorCode::kBusy);
      EXPECT_EQ(Replica::Destroy(files, directory).code(), ErrorCode::kBusy);
      EXPECT(files.Info(directory).ok());
    }
    Driver third(files, reactor, directory);
    ASSERT_OK(third.status());
  });
}

TEST(replica, create_refuses_what_exists_and_what_makes_no_sense) {
  OnFreshReplica([](CutFiles& files, io::Reactor&, const std::string& directory) {
    EXPECT_EQ(Replica::Create(files, directory, TestIdentity(), kSize).code(),
              ErrorCode::kAlreadyExists);
    const std::string other = directory + "-other";
    Identity identity = TestIdentity();
    EXPECT_EQ(Replica::Create(files, other, identity, 1000).code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(Replica::Create(files, other, identity, 65 * kTiB).code(),
              ErrorCode::kInvalidArgument);
    identity.volume = "../demo";
    EXPECT_EQ(Replica::Create(files, other, identity, kSize).code(), ErrorCode::kInvalidArgument);
    EXPECT(!files.Info(other).ok());
    EXPECT_EQ(Replica::Create(files, directory + "/none/x", TestIdentity(), kSize).code(),
              ErrorCode::kNotFound);
    struct stat info = {};
    EXPECT(stat((directory + "/ankole.json").c_str(), &info) == 0 && (info.st_mode & 0777) == 0600);
  });
}

TEST(replica, knows_how_it_was_stopped) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    std::string data(4096, 'a');
    files.boot_id = "boot-1";
    {
      // Opened and dropped without a write: nothing can be lost.
      Driver driver(files, reactor, directory);
      ASSERT_OK(driver.status());
    }
    {
      Driver driver(files, reactor, directory);
      EXPECT(!driver.replica().unclean());
      EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kOk);
      const Result<std::string> meta =
          io::ReadWholeFile(files, directory + "/volume.meta", kMetadataBytesMax);
      ASSERT_OK(meta);
      EXPECT(meta.value().find("\"Dirty\":true") != std::string::npos);
      EXPECT(Replica::Describe(files, directory).value().unclean);
    }
    {
      Driver driver(files, reactor, directory);
      EXPECT(driver.replica().unclean() && !driver.replica().rebooted());
    }
    files.boot_id = "boot-2";
    {
      Driver driver(files, reactor, directory);
      EXPECT(driver.replica().unclean() && driver.replica().rebooted());
      EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kOk);
    }
    {
      // Writing in the new boot does not make the old one forgotten.
      Driver driver(files, reactor, directory);
      EXPECT(driver.replica().unclean() && driver.replica().rebooted());
      ASSERT_OK(driver.Close(true));
    }
    Driver driver(files, reactor, directory);
    EXPECT(!driver.replica().unclean() && !driver.replica().rebooted());
  });
}

TEST(replica, unaligned_reads_and_writes_at_the_end_of_an_odd_size) {
  constexpr uint64_t kOdd = kSize + 512;
  OnFreshReplica(
      [](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
        Driver driver(files, reactor, directory);
        ASSERT_OK(driver.status());
        std::string data(1024, 'z');
        EXPECT_EQ(driver.Do(OperationKind::kWrite, kOdd - 1024, 1024, data.data()), ErrorCode::kOk);
        EXPECT_EQ(driver.Do(OperationKind::kUnmap, kOdd - 512, 512), ErrorCode::kOk);
        const std::string all = driver.ReadAll();
        EXPECT(all.substr(kOdd - 1024) == std::string(512, 'z') + std::string(512, '\0'));
        EXPECT_EQ(files.Info(directory + "/volume-head-000.img").value().size_bytes, kOdd);
      },
      CacheMode::kBuffered, kOdd);
}

TEST(replica, flushes_share_a_sync) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    Driver driver(files, reactor, directory);
    std::string data(4096, 'a');
    files.syncs = 0;  // those of opening it
    EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kOk);
    EXPECT_EQ(files.syncs.load(), 0);  // nothing was written
    EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kOk);
    files.syncs = 0;  // the record's
    for (int i = 0; i < 100; ++i) driver.Add(OperationKind::kFlush);
    EXPECT_EQ(driver.Run(), ErrorCode::kOk);
    EXPECT(files.syncs >= 1 && files.syncs <= 2);
    files.syncs = 0;
    EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kOk);
    EXPECT_EQ(files.syncs.load(), 0);
  });
}

TEST(replica, a_flush_is_not_answered_by_one_that_ran_before_its_write) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    Driver driver(files, reactor, directory);
    std::string data(4096, 'a');
    EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kOk);
    files.syncs = 0;
    files.hold_sync = true;
    // Flush 1 is running while the write is done; flush 2 is asked for by the write's `done`.
    ReplicaOperation second;
    second.kind = OperationKind::kFlush;
    static int order;
    static int second_done;
    order = second_done = 0;
    second.owner = &reactor;
    second.done = [](ReplicaOperation* self) {
      second_done = ++order;
      static_cast<io::Reactor*>(self->owner)->Stop();
    };
    driver.Add(OperationKind::kFlush);
    driver.Add(OperationKind::kWrite, 4096, 4096, data.data());
    driver.on_done = [&](ReplicaOperation* operation) {
      if (operation->kind == OperationKind::kWrite) {
        driver.replica().Submit(&second);
        files.hold_sync = false;
      }
    };
    EXPECT_EQ(driver.Run(), ErrorCode::kOk);
    if (second_done == 0) reactor.Loop();
    EXPECT_EQ(files.syncs.load(), 2);
  });
}

TEST(replica, a_failed_flush_is_never_turned_into_success) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    std::string data(4096, 'a');
    {
      Driver driver(files, reactor, directory);
      EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kOk);
      files.fail_sync = true;
      bool marked = false;
      driver.on_done = [&](ReplicaOperation*) {
        marked = files.Info(directory + "/failed").ok();  // before it is answered
      };
      EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kIoError);
      EXPECT(marked);
      files.fail_sync = false;
      EXPECT(driver.replica().sync_failed());
      EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kSuspect);
      EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kSuspect);
      EXPECT_EQ(driver.Do(OperationKind::kUnmap, 0, 4096), ErrorCode::kSuspect);
      // Another replica is read, as long as there is one.
      EXPECT_EQ(driver.Do(OperationKind::kRead, 0, 4096, data.data()), ErrorCode::kSuspect);
      std::vector<std::byte> room(4096 + kSumScratchBytes);
      ReplicaOperation& sum = driver.Add(OperationKind::kSum, 0, 4096, room.data());
      sum.sums = room.data() + 4096;
      EXPECT_EQ(driver.Run(), ErrorCode::kSuspect);
      driver.Add(OperationKind::kRead, 0, 4096, data.data()).anyway = true;
      EXPECT_EQ(driver.Run(), ErrorCode::kOk);
      EXPECT_EQ(driver.Close(true).code(), ErrorCode::kSuspect);
    }
    Driver driver(files, reactor, directory);
    ASSERT_OK(driver.status());
    EXPECT(driver.replica().suspect() && driver.replica().unclean());
    EXPECT(driver.replica().sync_failure().find("injected") != std::string::npos);
    EXPECT(Replica::Describe(files, directory).value().sync_failed);
    // A resync must write and flush, and must not compare what the kernel only says it has. Nothing
    // of it makes the replica good again.
    EXPECT(files.dropped_caches > 0);
    EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kOk);
    EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kOk);
    EXPECT(driver.replica().suspect());
    EXPECT_EQ(driver.Close(true).code(), ErrorCode::kSuspect);
    Driver again(files, reactor, directory);
    EXPECT(again.replica().suspect() && again.replica().unclean());
  });
}

TEST(replica, a_failed_durable_write_is_like_a_failed_flush) {
  for (const CacheMode cache : {CacheMode::kBuffered, CacheMode::kDirect}) {
    for (const int error_number : {EIO, ENOSPC}) {
      OnFreshReplica(
          [&](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
            FaultyReactor failing(reactor);
            std::string data(4096, 'a');
            Driver driver(files, failing, directory);
            EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data(), true), ErrorCode::kOk);
            failing.durable_error = error_number;
            // O_DIRECT finds out that the disk is full before anything can be lost. Pages that find
            // no space when they are synced are lost.
            const bool full = cache == CacheMode::kDirect && error_number == ENOSPC;
            EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data(), true),
                      full ? ErrorCode::kNoSpace : ErrorCode::kIoError);
            EXPECT_EQ(driver.replica().sync_failed(), !full);
            EXPECT_EQ(files.Info(directory + "/failed").ok(), !full);
            failing.durable_error = 0;
            EXPECT_EQ(driver.Do(OperationKind::kFlush),
                      full ? ErrorCode::kOk : ErrorCode::kSuspect);
          },
          cache);
    }
  }
}

TEST(replica, out_of_space_is_not_corruption) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    FaultyReactor failing(reactor);
    std::string data(4096, 'a');
    Driver driver(files, failing, directory);
    failing.plain_error = ENOSPC;
    EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kNoSpace);
    EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data(), true), ErrorCode::kNoSpace);
    EXPECT(!driver.replica().sync_failed());
    EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kOk);
    failing.plain_error = EIO;
    EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kIoError);
    failing.plain_error = 0;
    EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kOk);
    ASSERT_OK(driver.Close(true));
  });
}

TEST(replica, a_read_that_the_medium_fails_is_an_error_and_nothing_more) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    FaultyReactor failing(reactor);
    std::string data(4096, 'a');
    Driver driver(files, failing, directory);
    failing.read_error = EIO;
    EXPECT_EQ(driver.Do(OperationKind::kRead, 0, 4096, data.data()), ErrorCode::kIoError);
    failing.read_error = 0;
    EXPECT_EQ(driver.Do(OperationKind::kRead, 0, 4096, data.data()), ErrorCode::kOk);
    EXPECT(!driver.replica().sync_failed());
  });
}

TEST(replica, first_write_goes_on_where_volume_meta_finds_no_space) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    files.full_for = "volume.meta";
    {
      Driver driver(files, reactor, directory);
      EXPECT_EQ(driver.Do(OperationKind::kUnmap, 0, 4096), ErrorCode::kOk);
    }
    files.full_for.clear();
    Driver driver(files, reactor, directory);
    EXPECT(driver.replica().unclean());
  });
}

TEST(replica, records_are_durable_in_order_and_by_themselves) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    {
      Driver driver(files, reactor, directory);
      ASSERT_OK(driver.status());
      for (uint64_t generation = 1; generation < 20; ++generation) {
        ReplicaOperation& operation = driver.Add(OperationKind::kRecord);
        operation.record = SomeRecord(generation);
        operation.welcomed = {.attachment = 2, .run = generation};
      }
      EXPECT_EQ(driver.Run(), ErrorCode::kOk);
      EXPECT(driver.replica().record() == SomeRecord(19));
    }
    {
      Driver driver(files, reactor, directory);
      EXPECT(driver.replica().record() == SomeRecord(19));
      EXPECT(driver.replica().welcomed() == (wire::Epoch{.attachment = 2, .run = 19}));
      EXPECT(!driver.replica().unclean());  // a record is no write
      files.fail_sync = true;
      EXPECT_EQ(driver.WriteRecord(SomeRecord(20), {}), ErrorCode::kIoError);
      files.fail_sync = false;
      EXPECT(driver.replica().record() == SomeRecord(19));
      EXPECT(driver.replica().sync_failed());
      EXPECT_EQ(driver.WriteRecord(SomeRecord(20), {}), ErrorCode::kIoError);
    }
  });
}

TEST(replica, status_tells_data_from_holes_and_zeros) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    Driver driver(files, reactor, directory);
    std::string data(kMiB, 'a');
    EXPECT_EQ(driver.Do(OperationKind::kWrite, kMiB, kMiB, data.data()), ErrorCode::kOk);
    ReplicaOperation& zero = driver.Add(OperationKind::kZero, 3 * kMiB, 64 * kKiB);
    zero.keep_allocated = true;
    EXPECT_EQ(driver.Run(), ErrorCode::kOk);
    EXPECT_EQ(driver.Do(OperationKind::kUnmap, kMiB + 64 * kKiB, 64 * kKiB), ErrorCode::kOk);
    const auto status = [&](uint64_t offset, uint64_t length, uint32_t room) {
      static BlockExtent extents[16];
      std::string text;
      ReplicaOperation& operation = driver.Add(OperationKind::kStatus, offset, length);
      operation.extents = extents;
      operation.extents_max = room;
      driver.on_done = [&](ReplicaOperation* done) {
        for (uint32_t i = 0; i < done->extents_count; ++i) {
          text += std::to_string(extents[i].length_bytes / 1024) + (extents[i].hole ? "h" : "") +
                  (extents[i].zero ? "z" : "") + " ";
        }
      };
      EXPECT_EQ(driver.Run(), ErrorCode::kOk);
      return text;
    };
    EXPECT_EQ(status(0, kSize, 16), "1024hz 64 64hz 896 1024hz 64z 960hz ");
    EXPECT_EQ(status(0, kSize, 2), "1024hz 64 ");
    EXPECT_EQ(status(kMiB + 32 * kKiB, 64 * kKiB, 16), "32 32hz ");
  });
}

// FIEMAP that tells all has the whole file written back first, which clients would wait for.
TEST(replica, status_writes_nothing_back_where_it_need_not) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    Driver driver(files, reactor, directory);
    std::string data(kMiB, 'a');
    EXPECT_EQ(driver.Do(OperationKind::kWrite, kMiB, kMiB, data.data()), ErrorCode::kOk);
    driver.Add(OperationKind::kZero, 2 * kMiB, kMiB).keep_allocated = true;
    EXPECT_EQ(driver.Run(), ErrorCode::kOk);
    const auto is_right = [&] {
      BlockExtent extents[16];
      ReplicaOperation& operation = driver.Add(OperationKind::kStatus, kMiB, 3 * kMiB);
      operation.extents = extents;
      operation.extents_max = 16;
      uint32_t count = 0;
      driver.on_done = [&](ReplicaOperation* done) { count = done->extents_count; };
      EXPECT_EQ(driver.Run(), ErrorCode::kOk);
      return count == 3 && !extents[0].zero && !extents[1].hole && extents[1].zero &&
             extents[2].hole && extents[1].length_bytes == kMiB;
    };
    files.settled = 0;
    EXPECT(is_right());
    EXPECT_EQ(files.settled.load(), 0);
    // Space that was read looks in the page cache as what was written does.
    EXPECT_EQ(driver.Do(OperationKind::kRead, 2 * kMiB, kMiB, data.data()), ErrorCode::kOk);
    EXPECT(is_right());
  });
}

TEST(replica, refuses_a_directory_that_is_broken_and_says_why) {
  OnFreshReplica([](CutFiles& files, io::Reactor& reactor, const std::string& directory) {
    const auto refused = [&](const std::string& file, const std::string& content,
                             const std::string& why, ErrorCode code = ErrorCode::kCorrupt) {
      const std::string path = directory + "/" + file;
      const std::string before = io::ReadWholeFile(files, path, kMetadataBytesMax).Take();
      WriteText(files, path, content);
      const Status status = Driver(files, reactor, directory).status();
      EXPECT_EQ(status.code(), code);
      if (status.message().find(why) == std::string::npos) {
        test::Fail(__FILE__, __LINE__, file + ": " + status.message());
      }
      EXPECT(status.message().find(directory) != std::string::npos);
      WriteText(files, path, before);
    };
    const std::string head = "volume-head-000.img.meta";
    refused("volume.meta", "", "volume.meta");
    refused("volume.meta", "{\"Size\":4194304,\"Head\":\"volume-head-001.img\"}", "missing");
    refused("volume.meta", "{\"Size\":8388608,\"Head\":\"volume-head-000.img\"}", "is of 4194304");
    refused("volume.meta",
            "{\"Size\":4194304,\"Head\":\"volume-head-000.img\",\"Rebuilding\":true}", "rebuild");
    refused("volume.meta",
            "{\"Size\":4194304,\"Head\":\"volume-head-000.img\",\"BackingFilePath\":\"/x\"}",
            "backing file", ErrorCode::kUnsupported);
    refused(head, "{\"Parent\":\"volume-snap-a.img\"}", "missing");
    refused(head, "{", head);
    refused("ankole.json", "{}", "formatVersion");
    refused("record", "short", "neither slot");
    refused("volume.meta", std::string(kMetadataBytesMax + 1, ' '), "larger");
    Driver driver(files, reactor, directory);
    ASSERT_OK(driver.status());
  });
}

TEST(replica, needs_fiemap) {
  struct stat info = {};
  if (stat("/dev/shm", &info) != 0)
    return test::Skip("no /dev/shm to find a file system without FIEMAP");
  const auto files = io::MakePosixFileSystem();
  const std::string directory = "/dev/shm/ankole-test-" + std::to_string(getpid());
  ASSERT_OK(files->MakeDirectory(directory));
  const Status status = Replica::Create(*files, directory + "/r", TestIdentity(), kSize);
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT(status.message().find("FIEMAP") != std::string::npos);
  EXPECT(files->List(directory).value().empty());
  (void)files->RemoveDirectory(directory).ok();
}

}  // namespace
}  // namespace ankole::replica
