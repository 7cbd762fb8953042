#include "replica/export.h"

#include "base/test.h"
#include "base/units.h"
#include "replica/adopt.h"
#include "replica/longhorn_testing.h"
#include "replica/replica_testing.h"
#include "replica/snapshots_testing.h"

// Replicas that become directories of Longhorn's. What Longhorn would read from one is composed by
// longhorn_testing.cc, which knows nothing of masks.
namespace ankole::replica {
namespace {

using testing::ComposeLonghorn;
using testing::OnEpoll;

constexpr uint64_t kSize = 4 * kMiB;

bool All(uint64_t) { return true; }

void Write(Driver& driver, uint64_t offset, uint64_t length, char fill) {
  std::string data(length, fill);
  EXPECT_EQ(driver.Do(OperationKind::kWrite, offset, length, data.data()), ErrorCode::kOk);
}

// Two snapshots, each with something that hides what is below. Returns what they and the volume
// hold: of a, of b, now.
std::vector<std::string> Fill(io::FileSystem& files, io::Reactor& reactor,
                              const std::string& directory) {
  std::vector<std::string> contents;
  CHECK(Replica::Create(files, directory, TestIdentity(), kSize).ok());
  Driver driver(files, reactor, directory);
  CHECK(driver.status().ok());
  Write(driver, 0, 256 * kKiB, 'a');
  contents.push_back(driver.ReadAll());
  CHECK(testing::Snapshot(driver, "a") == ErrorCode::kOk);
  Write(driver, 8192, 8192, 'b');
  EXPECT_EQ(driver.Do(OperationKind::kUnmap, 32 * kKiB, 16 * kKiB), ErrorCode::kOk);
  contents.push_back(driver.ReadAll());
  CHECK(testing::Snapshot(driver, "b") == ErrorCode::kOk);
  EXPECT_EQ(driver.Do(OperationKind::kUnmap, 0, 12 * kKiB), ErrorCode::kOk);
  Write(driver, 4096, 4096, 'h');
  Write(driver, kSize - 4096, 4096, 'e');
  contents.push_back(driver.ReadAll());
  CHECK(testing::CleanNow(driver, 0, 1) == ErrorCode::kOk);
  CHECK(driver.Close(true).ok());
  return contents;
}

Result<Json> Export(io::Reactor& reactor, const std::string& directory, const std::string& target,
                    const ExportOptions& options = {}) {
  return ExportLonghorn(reactor, directory, target, options, All);
}

ExportOptions OfSnapshot(const std::string& snapshot) {
  return {.snapshot = snapshot, .names = {}, .any_length = false};
}

TEST(replica_export, longhorn_reads_what_the_volume_and_its_snapshots_held) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string root = test::TemporaryDirectory();
    const std::vector<std::string> contents = Fill(files, reactor, root + "/r");
    const auto before = testing::ContentOf(files, root + "/r");
    const Result<Json> exported = Export(reactor, root + "/r", root + "/out");
    ASSERT_OK(exported);
    EXPECT(testing::ContentOf(files, root + "/r") == before);
    EXPECT(ComposeLonghorn(files, root + "/out") == contents[2]);
    EXPECT(ComposeLonghorn(files, root + "/out", "volume-snap-b.img") == contents[1]);
    EXPECT(ComposeLonghorn(files, root + "/out", "volume-snap-a.img") == contents[0]);
    // 16 KiB in b; in the head 12 KiB but for the block that was written again.
    EXPECT_EQ(exported.value().Integer("maskedBytes", 0, INT64_MAX).value(),
              static_cast<int64_t>(24 * kKiB));
    EXPECT_EQ(exported.value().Integer("chain", 0, INT64_MAX).value(), 3);
    const std::vector<std::string> names = files.List(root + "/out").Take();
    const std::vector<std::string> expected = {"volume-head-000.img", "volume-head-000.img.meta",
                                               "volume-snap-a.img",   "volume-snap-a.img.meta",
                                               "volume-snap-b.img",   "volume-snap-b.img.meta",
                                               "volume.meta"};
    EXPECT(names == expected);
    const std::string meta = io::ReadWholeFile(files, root + "/out/volume.meta", 4096).Take();
    EXPECT_EQ(meta,
              std::string("{\"Size\":4194304,\"Head\":\"volume-head-000.img\",\"Dirty\":false,"
                          "\"Rebuilding\":false,\"Error\":\"\",\"Parent\":\"volume-snap-b.img\","
                          "\"SectorSize\":512,\"BackingFilePath\":\"\"}\n"));
    // And it can come back.
    ASSERT_OK(AdoptReplica(files, root + "/out", root + "/again", TestIdentity(), kSize, {}));
    Driver driver(files, reactor, root + "/again");
    ASSERT_OK(driver.status());
    EXPECT(driver.Holds(contents[2]));
  });
}

TEST(replica_export, of_a_snapshot_it_has_an_empty_head) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string root = test::TemporaryDirectory();
    const std::vector<std::string> contents = Fill(files, reactor, root + "/r");
    ASSERT_OK(Export(reactor, root + "/r", root + "/b", OfSnapshot("b")));
    EXPECT(ComposeLonghorn(files, root + "/b") == contents[1]);
    EXPECT_EQ(files.Info(root + "/b/volume-head-000.img").value().allocated_bytes, 0U);
    ASSERT_OK(Export(reactor, root + "/r", root + "/a", OfSnapshot("a")));
    EXPECT(ComposeLonghorn(files, root + "/a") == contents[0]);
    EXPECT(!files.Info(root + "/a/volume-snap-b.img").ok());
    EXPECT_EQ(Export(reactor, root + "/r", root + "/c", OfSnapshot("c")).status().code(),
              ErrorCode::kNotFound);
  });
}

TEST(replica_export, snapshots_are_called_as_is_wished) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string root = test::TemporaryDirectory();
    const std::vector<std::string> contents = Fill(files, reactor, root + "/r");
    // The second would be the name of another layer, the third is none.
    const ExportOptions options = {
        .snapshot = "", .names = {{"a", "first"}, {"b", "a"}, {"c", "../c"}}, .any_length = false};
    ASSERT_OK(Export(reactor, root + "/r", root + "/out", options));
    EXPECT(files.Info(root + "/out/volume-snap-first.img").ok());
    EXPECT(files.Info(root + "/out/volume-snap-b.img").ok());
    EXPECT(ComposeLonghorn(files, root + "/out") == contents[2]);
  });
}

TEST(replica_export, refuses_a_damaged_block) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string root = test::TemporaryDirectory();
    (void)Fill(files, reactor, root + "/r");
    const Result<io::File> layer = files.Open(root + "/r/volume-snap-b.img", {.write = true});
    ASSERT_OK(layer);
    ASSERT_OK(files.WriteAt(layer.value(), 8192, "x", 1));
    files.Close(layer.value());
    const Status status = Export(reactor, root + "/r", root + "/out").status();
    EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
    EXPECT(status.message().find("the block at 8192") != std::string::npos);
    EXPECT(!files.Info(root + "/out").ok() && !files.Info(root + "/out.exporting").ok());
  });
}

TEST(replica_export, refuses_one_that_is_open_or_was_not_stopped_clean) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string root = test::TemporaryDirectory();
    (void)Fill(files, reactor, root + "/r");
    {
      Driver driver(files, reactor, root + "/r");
      ASSERT_OK(driver.status());
      EXPECT_EQ(Export(reactor, root + "/r", root + "/out").status().code(), ErrorCode::kBusy);
      Write(driver, 0, 4096, 'w');
      driver.Drop();
    }
    EXPECT_EQ(Export(reactor, root + "/r", root + "/out").status().code(), ErrorCode::kUnavailable);
    EXPECT_EQ(Export(reactor, root + "/r", root).status().code(), ErrorCode::kAlreadyExists);
  });
}

TEST(replica_export, says_where_a_chain_is_too_long) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string root = test::TemporaryDirectory();
    ASSERT_OK(Replica::Create(files, root + "/r", TestIdentity(), kSize));
    std::string expected;
    {
      Driver driver(files, reactor, root + "/r");
      ASSERT_OK(driver.status());
      Write(driver, 0, 4096, 'a');
      expected = driver.ReadAll();
      ASSERT_OK(driver.Close(true));
    }
    // By hand, as 250 snapshots would take a while.
    std::string parent;
    ASSERT_OK(files.Rename(root + "/r/volume-head-000.img", root + "/r/volume-snap-s0.img"));
    ASSERT_OK(files.Remove(root + "/r/volume-head-000.img.crc"));
    for (size_t i = 0; i < 251; ++i) {
      const std::string name =
          i == 250 ? "volume-head-000.img" : "volume-snap-s" + std::to_string(i) + ".img";
      if (i > 0) ASSERT_OK(CreateLayerFile(files, root + "/r/" + name, kSize));
      ASSERT_OK(
          io::ReplaceFile(files, root + "/r/" + name + ".meta", "{\"Parent\":\"" + parent + "\"}"));
      parent = name;
    }
    const Status status = Export(reactor, root + "/r", root + "/out").status();
    EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
    EXPECT(status.message().find("251 layers, and Longhorn opens 250: from s0 down") !=
           std::string::npos);
    const Result<Json> exported = Export(reactor, root + "/r", root + "/out",
                                         {.snapshot = "", .names = {}, .any_length = true});
    ASSERT_OK(exported);
    EXPECT(exported.value().Write().find("251 layers") != std::string::npos);
    EXPECT(ComposeLonghorn(files, root + "/out") == expected);
  });
}

TEST(replica_export, what_was_cut_short_is_begun_anew) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string root = test::TemporaryDirectory();
    const std::vector<std::string> contents = Fill(files, reactor, root + "/r");
    ASSERT_OK(files.MakeDirectory(root + "/out.exporting"));
    WriteText(files, root + "/out.exporting/volume-snap-z.img", "half");
    const auto stop = [](uint64_t) { return false; };
    EXPECT_EQ(ExportLonghorn(reactor, root + "/r", root + "/out", {}, stop).status().code(),
              ErrorCode::kCancelled);
    EXPECT(!files.Info(root + "/out").ok());
    ASSERT_OK(Export(reactor, root + "/r", root + "/out"));
    EXPECT(!files.Info(root + "/out/volume-snap-z.img").ok());
    EXPECT(ComposeLonghorn(files, root + "/out") == contents[2]);
  });
}

TEST(replica_export, what_is_adopted_and_not_confirmed_may_go_again) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string root = test::TemporaryDirectory();
    testing::LonghornDirectory made(files, root + "/in", kSize);
    made.Layer("volume-snap-a.img", "").Layer("volume-head-001.img", "volume-snap-a.img");
    made.Data("volume-snap-a.img", 0, 16384, 'a').Unwritten("volume-head-001.img", 4096, 4096);
    made.Volume("volume-head-001.img");
    const std::string expected = ComposeLonghorn(files, root + "/in");
    ASSERT_OK(AdoptReplica(files, root + "/in", root + "/r", TestIdentity(), kSize, {}));
    ASSERT_OK(Export(reactor, root + "/r", root + "/out"));
    EXPECT(ComposeLonghorn(files, root + "/out") == expected);
  });
}

}  // namespace
}  // namespace ankole::replica
