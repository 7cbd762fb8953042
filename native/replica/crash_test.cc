#include <cstdlib>

#include "io/reactor_testing.h"
#include "replica/replica_testing.h"

// Every metadata operation cut at each of its I/Os, and full disks.
namespace ankole::replica {
namespace {

constexpr uint64_t kSize = 4 * kMiB;

// For what is about files alone.
void OnEpoll(const std::function<void(io::Reactor&)>& body) {
  auto reactor = io::MakeReactor(
      {.backend = io::Backend::kEpoll, .probe_directory = test::TemporaryDirectory()});
  ASSERT_OK(reactor);
  body(*reactor.value());
}

bool Exists(io::FileSystem& files, const std::string& path) { return files.Info(path).ok(); }

TEST(replica_crash, create_makes_all_or_nothing) {
  OnEpoll([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    for (const size_t torn_bytes : {0, 200}) {
      files.torn_bytes = torn_bytes;
      bool done = false;
      int cut = 1;
      for (; !done; cut += test::kStride) {
        const std::string replicas = test::TemporaryDirectory();
        const std::string directory = replicas + "/demo-a";
        files.Reset(cut);
        done = Replica::Create(files, directory, TestIdentity(), kSize).ok();
        EXPECT(done != files.reached());
        files.Reset(0);
        ASSERT_OK(Replica::RemoveLeftovers(files, replicas));
        const std::vector<std::string> names = files.List(replicas).Take();
        EXPECT(names.empty() || (names.size() == 1 && names[0] == "demo-a"));
        EXPECT(!done || !names.empty());
        if (names.empty()) ASSERT_OK(Replica::Create(files, directory, TestIdentity(), kSize));
        Driver driver(files, reactor, directory);
        ASSERT_OK(driver.status());
        EXPECT_EQ(driver.replica().size_bytes(), kSize);
        EXPECT(!driver.replica().unclean());
      }
      EXPECT(cut > 15);
    }
  });
}

TEST(replica_crash, destroy_leaves_a_whole_replica_or_none) {
  OnEpoll([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    bool done = false;
    int cut = 1;
    for (; !done; cut += test::kStride) {
      const std::string replicas = test::TemporaryDirectory();
      const std::string directory = replicas + "/demo-a";
      ASSERT_OK(Replica::Create(files, directory, TestIdentity(), kSize));
      files.Reset(cut);
      done = Replica::Destroy(files, directory).ok();
      files.Reset(0);
      if (Exists(files, directory)) {
        EXPECT(!done);
        Driver driver(files, reactor, directory);
        ASSERT_OK(driver.status());
        EXPECT(driver.Holds(std::string(kSize, '\0')));
      }
      ASSERT_OK(Replica::Destroy(files, directory));
      EXPECT(files.List(replicas).value().empty());
    }
    EXPECT(cut > 8);
    ASSERT_OK(Replica::Destroy(files, test::TemporaryDirectory() + "/never-was"));
  });
}

// A write that was answered, then a close that is cut: never clean without the data synced, and
// never unreadable.
TEST(replica_crash, a_close_that_is_cut_is_unclean_or_complete) {
  io::OnEachBackend([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    for (const size_t torn_bytes : {0, 200}) {
      files.torn_bytes = torn_bytes;
      bool done = false;
      int cut = 1;
      for (; !done; cut += test::kStride) {
        const std::string directory = test::TemporaryDirectory() + "/r";
        ASSERT_OK(Replica::Create(files, directory, TestIdentity(), kSize));
        std::string data(4096, 'a');
        Driver driver(files, reactor, directory);
        EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kOk);
        files.Reset(cut);
        files.syncs = 0;
        done = driver.Close(true).ok();
        const bool synced = files.syncs >= 1;  // the head's comes first
        files.Reset(0);
        Driver again(files, reactor, directory);
        ASSERT_OK(again.status());
        if (!again.replica().unclean()) EXPECT(synced);
        EXPECT(!done || !again.replica().unclean());
        EXPECT(again.ReadAll().substr(0, 4096) == data);
      }
      EXPECT(cut > 5);
    }
  });
}

// The dirty mark is durable before the first write is let in.
TEST(replica_crash, no_write_gets_in_before_the_dirty_mark) {
  io::OnEachBackend([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    for (const size_t torn_bytes : {0, 200}) {
      files.torn_bytes = torn_bytes;
      bool done = false;
      int cut = 1;
      for (; !done; cut += test::kStride) {
        const std::string directory = test::TemporaryDirectory() + "/r";
        ASSERT_OK(Replica::Create(files, directory, TestIdentity(), kSize));
        std::string data(4096, 'a');
        Driver driver(files, reactor, directory);
        files.Reset(cut);
        done = driver.Do(OperationKind::kWrite, 0, 4096, data.data()) == ErrorCode::kOk;
        driver.Drop();
        files.Reset(0);
        Driver again(files, reactor, directory);
        ASSERT_OK(again.status());
        const bool written = again.ReadAll().substr(0, 4096) == data;
        EXPECT_EQ(written, done);
        EXPECT(!written || again.replica().unclean());
      }
      EXPECT(cut > 4);
    }
  });
}

TEST(replica_crash, a_record_that_is_cut_is_the_old_or_the_new) {
  io::OnEachBackend([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    for (const size_t torn_bytes : {0, 200}) {
      files.torn_bytes = torn_bytes;
      const std::string directory = test::TemporaryDirectory() + "/r";
      ASSERT_OK(Replica::Create(files, directory, TestIdentity(), kSize));
      uint64_t generation = 0;
      bool done = false;
      for (int cut = 1; !done; cut += test::kStride) {
        // The mark of a failed sync is not what is looked at here.
        (void)files.Remove(directory + "/failed").ok();
        Driver driver(files, reactor, directory);
        wire::RecordPair record;
        record.current.generation = generation + 1;
        files.Reset(cut);
        done =
            driver.WriteRecord(record, {.attachment = generation + 1, .run = 1}) == ErrorCode::kOk;
        driver.Drop();
        files.Reset(0);
        Driver again(files, reactor, directory);
        ASSERT_OK(again.status());
        const uint64_t found = again.replica().record().current.generation;
        EXPECT(found == generation + 1 || (found == generation && !done));
        EXPECT_EQ(again.replica().welcomed().attachment, found);
        generation = found;
      }
    }
  });
}

// A small ext4 of its own, mounted until the test ends; needs root and loop devices.
class SmallDisk {
 public:
  explicit SmallDisk(int mib, int block_bytes) : image_(test::TemporaryDirectory() + "/image") {
    mount_ = test::TemporaryDirectory();
    mounted_ = Run("truncate -s " + std::to_string(mib) + "M " + image_) &&
               Run("mkfs.ext4 -q -m 0 -b " + std::to_string(block_bytes) + " " + image_) &&
               Run("mount -o loop " + image_ + " " + mount_);
  }
  ~SmallDisk() {
    if (mounted_) Run("umount " + mount_);
  }
  bool mounted() const { return mounted_; }
  const std::string& path() const { return mount_; }

 private:
  static bool Run(const std::string& command) {
    return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
  }
  std::string image_;
  std::string mount_;
  bool mounted_ = false;
};

TEST(replica_crash, a_full_disk_loses_nothing_and_keeps_what_must_go_on) {
  SmallDisk disk(24, 4096);
  if (!disk.mounted()) return test::Skip("a loop mount of ext4 needs root and loop devices");
  io::OnEachBackend([&](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string directory = disk.path() + "/r";
    ASSERT_OK(Replica::Create(files, directory, TestIdentity(), 64 * kMiB));
    std::string data(64 * kKiB, 'd');
    uint64_t written = 0;
    {
      Driver driver(files, reactor, directory);
      ErrorCode code = ErrorCode::kOk;
      while (written < 64 * kMiB) {
        code = driver.Do(OperationKind::kWrite, written, data.size(), data.data());
        if (code != ErrorCode::kOk) break;
        written += data.size();
      }
      EXPECT_EQ(code, ErrorCode::kNoSpace);
      EXPECT(written > 8 * kMiB);
      // To the last block, so that metadata finds none either.
      for (uint64_t at = written;
           driver.Do(OperationKind::kWrite, at, 4096, data.data()) == ErrorCode::kOk; at += 4096) {
      }
      EXPECT_EQ(driver.Do(OperationKind::kWrite, 63 * kMiB, 4096, data.data(), true),
                ErrorCode::kNoSpace);
      EXPECT(!driver.replica().sync_failed());
      EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kOk);
      wire::RecordPair record;
      record.current.generation = 7;
      EXPECT_EQ(driver.WriteRecord(record, {}), ErrorCode::kOk);
    }
    {
      Driver driver(files, reactor, directory);
      ASSERT_OK(driver.status());
      EXPECT_EQ(driver.replica().record().current.generation, 7U);
      // What is written already can be written again.
      EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, data.size(), data.data()), ErrorCode::kOk);
      std::string all = driver.ReadAll();
      EXPECT(all.substr(0, written) == std::string(written, 'd'));
      EXPECT_EQ(driver.Do(OperationKind::kUnmap, 0, 4 * kMiB), ErrorCode::kOk);
      EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kOk);
      EXPECT_EQ(driver.Do(OperationKind::kWrite, 60 * kMiB, data.size(), data.data()),
                ErrorCode::kOk);
      ASSERT_OK(driver.Close(true));
    }
    Driver driver(files, reactor, directory);
    EXPECT(!driver.replica().unclean());
    ASSERT_OK(driver.Close(true));
    ASSERT_OK(Replica::Destroy(files, directory));
  });
}

TEST(replica_crash, a_file_system_of_other_blocks_is_refused) {
  SmallDisk disk(24, 1024);
  if (!disk.mounted()) return test::Skip("a loop mount of ext4 needs root and loop devices");
  const auto files = io::MakePosixFileSystem();
  const Status status = Replica::Create(*files, disk.path() + "/r", TestIdentity(), kSize);
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT(status.message().find("1024 bytes") != std::string::npos);
  EXPECT(!Exists(*files, disk.path() + "/r"));
}

}  // namespace
}  // namespace ankole::replica
