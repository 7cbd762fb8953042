#include "replica/adopt.h"

#include "base/test.h"
#include "base/units.h"
#include "replica/longhorn_testing.h"
#include "replica/replica_testing.h"
#include "replica/snapshots_testing.h"

// Directories of Longhorn's that become replicas: what they hold, at whatever point that is cut.
namespace ankole::replica {
namespace {

using testing::ComposeLonghorn;
using testing::LonghornDirectory;
using testing::OnEpoll;

constexpr uint64_t kSize = 4 * kMiB;
constexpr char kHead[] = "volume-head-002.img";
constexpr char kA[] = "volume-snap-a.img";
constexpr char kB[] = "volume-snap-b.img";
constexpr char kOdd[] = "volume-snap-before upgrade.img";

bool All(uint64_t) { return true; }

// A disk's directory of replicas, and beside it where Longhorn's was.
struct Place {
  const std::string root = test::TemporaryDirectory();
  const std::string from = root + "/pvc-1-r-0a1b2c3d";
  const std::string replicas = root + "/replicas";
  const std::string to = replicas + "/demo-a";

  explicit Place(io::FileSystem& files) { CHECK(files.MakeDirectory(replicas).ok()); }
};

// Everything at once: each layer has data, a part that hides what is below, and parts that do not.
void MakeChain(io::FileSystem& files, const std::string& directory, const std::string& middle = kB,
               uint64_t size_bytes = kSize) {
  LonghornDirectory made(files, directory, size_bytes);
  made.Layer(kA, "").Layer(middle, kA).Layer(kHead, middle).Volume(kHead);
  made.Data(kA, 0, 64 * kKiB, 'a').Unwritten(kA, 128 * kKiB, 8192);
  made.Data(middle, 4096, 8192, 'b').Unwritten(middle, 16 * kKiB, 8192);
  made.Data(kHead, 8192, 4096, 'h').Unwritten(kHead, 32 * kKiB, 4096);
  made.Data(kHead, size_bytes / 4096 * 4096 - 4096, 4096, 'e');
  made.Text("revision.counter", std::string("5") + std::string(4095, '\0'));
  made.Meta(middle,
            "\"Parent\":\"volume-snap-a.img\",\"UserCreated\":true,"
            "\"Labels\":{\"k\":\"v\"}");
}

Status Adopt(io::FileSystem& files, const Place& place, const AdoptOptions& options = {},
             uint64_t size_bytes = kSize) {
  return AdoptReplica(files, place.from, place.to, TestIdentity(), size_bytes, options);
}

std::string Padded(std::string content) {
  content.resize(RoundUp(content.size(), 4096), '\0');
  return content;
}

TEST(replica_adopt, what_is_adopted_holds_what_longhorn_reads) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const Place place(files);
    MakeChain(files, place.from);
    const std::string expected = ComposeLonghorn(files, place.from);
    const std::string of_b = ComposeLonghorn(files, place.from, kB);
    EXPECT_EQ(expected[16 * kKiB], '\0');  // and not what a holds
    EXPECT_EQ(expected[32 * kKiB], '\0');
    ASSERT_OK(Adopt(files, place));
    EXPECT_EQ(files.Info(place.from).status().code(), ErrorCode::kNotFound);
    EXPECT_EQ(Adopt(files, place).code(), ErrorCode::kAlreadyExists);
    Driver driver(files, reactor, place.to);
    ASSERT_OK(driver.status());
    EXPECT(driver.Holds(expected));
    EXPECT(driver.replica().unclean() && !driver.replica().suspect() && !driver.replica().fresh());
    EXPECT_EQ(driver.replica().regions().dirty_regions(), 1U);
    const uint16_t view = testing::OpenView(driver, "b", "", ErrorCode::kOk);
    std::string read(64 * kKiB, '?');
    driver.Add(OperationKind::kRead, 0, read.size(), read.data()).view = view;
    EXPECT_EQ(driver.Run(), ErrorCode::kOk);
    EXPECT(read == of_b.substr(0, read.size()));
  });
}

TEST(replica_adopt, nothing_changes_a_layer_before_it_is_confirmed) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const Place place(files);
    MakeChain(files, place.from);
    const std::string expected = ComposeLonghorn(files, place.from);
    // A snapshot that was removed, and would be merged.
    ASSERT_OK(io::ReplaceFile(files, place.from + "/volume-snap-b.img.meta",
                              R"({"Parent":"volume-snap-a.img","Removed":true})"));
    const Result<io::File> sum =
        files.Open(place.from + "/volume-snap-a.img.checksum", {.write = true, .create = true});
    ASSERT_OK(sum);
    files.Close(sum.value());
    ASSERT_OK(Adopt(files, place));
    std::string data(4096, 'w');
    {
      Driver driver(files, reactor, place.to);
      ASSERT_OK(driver.status());
      EXPECT(!driver.replica().has_removed_layers());
      EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kReadOnly);
      EXPECT_EQ(driver.Do(OperationKind::kUnmap, 0, 4096), ErrorCode::kReadOnly);
      EXPECT_EQ(driver.Do(OperationKind::kZero, 0, 4096), ErrorCode::kReadOnly);
      EXPECT_EQ(driver.Do(OperationKind::kMerge), ErrorCode::kReadOnly);
      EXPECT_EQ(testing::Prepare(driver, "c", ""), ErrorCode::kReadOnly);
      EXPECT_EQ(testing::AboutLayer(driver, OperationKind::kDelete, "a"), ErrorCode::kReadOnly);
      EXPECT_EQ(ConfirmAdopted(files, place.to).code(), ErrorCode::kBusy);  // it is open
      // Records and checksums may come: they are ours.
      const wire::RecordPair record = testing::NextRecord(driver, "");
      EXPECT_EQ(driver.WriteRecord(record, record.current.epoch), ErrorCode::kOk);
      EXPECT_EQ(testing::CleanNow(driver, 0, 1), ErrorCode::kOk);
      ASSERT_OK(driver.Close(true));
    }
    EXPECT(ComposeLonghorn(files, place.to) == expected);
    ASSERT_OK(ConfirmAdopted(files, place.to));
    EXPECT(!IsAdopted(files, place.to));
    EXPECT(!files.Info(place.to + "/volume-snap-a.img.checksum").ok());
    Driver driver(files, reactor, place.to);
    ASSERT_OK(driver.status());
    EXPECT(driver.replica().has_removed_layers());
    EXPECT_EQ(driver.Do(OperationKind::kWrite, 0, 4096, data.data()), ErrorCode::kOk);
    std::string written = expected;
    written.replace(0, data.size(), data);
    EXPECT(driver.Holds(written));
    for (int steps = 0; steps < 20; ++steps) {
      if (driver.Do(OperationKind::kMerge) != ErrorCode::kOk) break;
    }
    EXPECT(driver.Holds(written));
  });
}

TEST(replica_adopt, a_directory_that_was_not_confirmed_is_given_back) {
  OnEpoll([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    bool done = false;
    int cut = 1;
    for (; !done; cut += test::kStride) {
      const Place place(files);
      MakeChain(files, place.from);
      const auto before = testing::ContentOf(files, place.from);
      const std::string expected = ComposeLonghorn(files, place.from);
      ASSERT_OK(Adopt(files, place));
      files.Reset(cut);
      done = Replica::Destroy(files, place.to).ok();
      files.Reset(0);
      const bool back = files.Info(place.from).ok();
      EXPECT(ComposeLonghorn(files, back ? place.from : place.to) == expected);
      EXPECT(!done || back);
      ASSERT_OK(Replica::Destroy(files, place.to));
      EXPECT(!done || testing::ContentOf(files, place.from) == before);
      EXPECT(ComposeLonghorn(files, place.from) == expected);
      // And may be adopted again, whatever was left in it.
      ASSERT_OK(Adopt(files, place));
    }
    EXPECT(cut > 8);
  });
}

TEST(replica_adopt, is_given_back_as_it_was_marked) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const Place place(files);
    MakeChain(files, place.from, kB, kSize - 512);
    const std::string volume = place.from + "/volume.meta";
    ASSERT_OK(io::ReplaceFile(
        files, volume,
        "{\"Size\":4193792,\"Head\":\"volume-head-002.img\",\"Dirty\":true,\"Rebuilding\":true,"
        "\"Error\":\"e\",\"Parent\":\"volume-snap-b.img\",\"SectorSize\":512,"
        "\"BackingFilePath\":\"\"}\n"));
    const std::string before = io::ReadWholeFile(files, volume, 4096).Take();
    EXPECT_EQ(Adopt(files, place).code(), ErrorCode::kUnavailable);
    const AdoptOptions options = {.longhorn = {},
                                  .accept = {.dirty = true, .rebuilding = true, .error = true}};
    ASSERT_OK(Adopt(files, place, options));
    {
      Driver driver(files, reactor, place.to);
      ASSERT_OK(driver.status());
      EXPECT_EQ(driver.replica().size_bytes(), kSize);
      ASSERT_OK(driver.Close(true));
    }
    // Somebody is in the way, and nothing is lost of either.
    ASSERT_OK(files.MakeDirectory(place.from));
    EXPECT_EQ(Replica::Destroy(files, place.to).code(), ErrorCode::kAlreadyExists);
    ASSERT_OK(files.RemoveDirectory(place.from));
    ASSERT_OK(Replica::Destroy(files, place.to));
    EXPECT_EQ(io::ReadWholeFile(files, volume, 4096).Take(), before);
  });
}

// Wherever an adoption ends, there is Longhorn's directory, or the replica, and the next one goes
// on. With names to be mapped, sizes to be rounded and a backing file to be taken in.
TEST(replica_adopt, a_cut_leaves_the_one_or_the_other) {
  OnEpoll([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    bool done = false;
    int cut = 1;
    for (; !done; cut += test::kStride) {
      const Place place(files);
      MakeChain(files, place.from, kOdd, kSize - 512);
      const std::string backing = place.root + "/backing";
      const std::string image(96 * kKiB + 100, 'i');
      WriteText(files, backing, image);
      const std::string volume =
          "{\"Size\":4193792,\"Head\":\"volume-head-002.img\",\"Parent\":\"" + std::string(kOdd) +
          "\",\"SectorSize\":512,\"BackingFilePath\":\"" + backing + "\"}\n";
      ASSERT_OK(io::ReplaceFile(files, place.from + "/volume.meta", volume));
      const std::string expected = ComposeLonghorn(files, place.from, "", image);
      files.Reset(cut);
      done = Adopt(files, place).ok();
      EXPECT(done != files.reached());
      files.Reset(0);
      const bool adopted = files.Info(place.to).ok();
      EXPECT(adopted != files.Info(place.from).ok());
      if (!adopted) {
        // Longhorn gives the backing file by itself, until volume.meta names it no more.
        const std::string meta = io::ReadWholeFile(files, place.from + "/volume.meta", 4096).Take();
        const bool without = meta.find("\"BackingFilePath\":\"\"") != std::string::npos;
        const std::string now =
            ComposeLonghorn(files, place.from, "", without ? std::string() : image);
        EXPECT(now.substr(0, expected.size()) == expected);
        ASSERT_OK(Adopt(files, place));
      }
      Driver driver(files, reactor, place.to);
      ASSERT_OK(driver.status());
      EXPECT(driver.Holds(Padded(expected)));
    }
    EXPECT(cut > 40);
  });
}

TEST(replica_adopt, names_are_mapped_and_kept) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const Place place(files);
    MakeChain(files, place.from, kOdd);
    // Two stand on it, as after a revert.
    const Result<io::File> branch =
        files.Open(place.from + "/volume-snap-c.img", {.write = true, .create = true});
    ASSERT_OK(branch);
    files.Close(branch.value());
    ASSERT_OK(io::ReplaceFile(files, place.from + "/volume-snap-c.img.meta",
                              "{\"Parent\":\"" + std::string(kOdd) + "\"}"));
    const std::string expected = ComposeLonghorn(files, place.from);
    ASSERT_OK(Adopt(files, place));
    EXPECT(!files.Info(place.to + "/" + kOdd).ok());
    EXPECT(!files.Info(place.to + "/" + kOdd + ".meta").ok());
    const std::string mapped = MapLayerName(kOdd);
    const std::string meta =
        io::ReadWholeFile(files, place.to + "/" + mapped + ".meta", 4096).Take();
    EXPECT(meta.find("\"ankole.longhorn-name\":\"before upgrade\"") != std::string::npos);
    EXPECT(meta.find("\"k\":\"v\"") != std::string::npos);
    const std::string child =
        io::ReadWholeFile(files, place.to + "/volume-snap-c.img.meta", 4096).Take();
    EXPECT(child.find("\"Parent\":\"" + mapped + "\"") != std::string::npos);
    EXPECT(ComposeLonghorn(files, place.to) == expected);
    Driver driver(files, reactor, place.to);
    ASSERT_OK(driver.status());
    EXPECT(driver.Holds(expected));
  });
}

TEST(replica_adopt, layers_of_different_sizes) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const Place place(files);
    LonghornDirectory made(files, place.from, kSize);
    // Expanded from a size that ends within a block.
    made.Layer(kA, "", kMiB + 512).Layer(kB, kA, 2 * kMiB).Layer(kHead, kB).Volume(kHead);
    made.Data(kA, 0, kMiB + 512, 'a').Data(kB, kMiB - 4096, 4096, 'b');
    made.Unwritten(kB, 2 * kMiB - 4096, 4096).Data(kHead, 3 * kMiB, 8192, 'h');
    const std::string expected = ComposeLonghorn(files, place.from);
    ASSERT_OK(Adopt(files, place));
    Driver driver(files, reactor, place.to);
    ASSERT_OK(driver.status());
    EXPECT(driver.Holds(expected));
  });
}

TEST(replica_adopt, a_copy_is_the_same_and_leaves_the_other_as_it_is) {
  OnEpoll([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    const AdoptOptions options = {.longhorn = {.backing_file = "", .copied = true}, .accept = {}};
    bool done = false;
    int cut = 1;
    for (; !done; cut += test::kStride) {
      Place place(files);
      MakeChain(files, place.from);
      const auto before = testing::ContentOf(files, place.from);
      const std::string expected = ComposeLonghorn(files, place.from);
      const std::string copy = place.root + "/copy";
      files.Reset(cut);
      done = CopyLonghorn(files, place.from, copy, options, All).ok();
      files.Reset(0);
      EXPECT(testing::ContentOf(files, place.from) == before);
      if (!done) ASSERT_OK(CopyLonghorn(files, place.from, copy, options, All));
      EXPECT(ComposeLonghorn(files, copy) == expected);
      if (!done) continue;
      ASSERT_OK(AdoptReplica(files, copy, place.to, TestIdentity(), kSize, options));
      {
        Driver driver(files, reactor, place.to);
        ASSERT_OK(driver.status());
        EXPECT(driver.Holds(expected));
      }
      // A copy is nobody's but ours.
      ASSERT_OK(Replica::Destroy(files, place.to));
      EXPECT(!files.Info(copy).ok() && !files.Info(place.to).ok());
    }
    EXPECT(cut > 8);
  });
}

TEST(replica_adopt, a_copy_that_is_cancelled_ends) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const Place place(files);
    MakeChain(files, place.from);
    const Status status =
        CopyLonghorn(files, place.from, place.root + "/copy", {}, [](uint64_t) { return false; });
    EXPECT_EQ(status.code(), ErrorCode::kCancelled);
    EXPECT(!files.Info(place.root + "/copy/volume.meta").ok());
  });
}

TEST(replica_adopt, refuses_another_size_and_a_missing_backing_file) {
  OnEpoll([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const Place place(files);
    MakeChain(files, place.from);
    EXPECT_EQ(Adopt(files, place, {}, 2 * kSize).code(), ErrorCode::kInvalidArgument);
    const AdoptOptions options = {.longhorn = {.backing_file = "/none"}, .accept = {}};
    EXPECT_EQ(Adopt(files, place, options).code(), ErrorCode::kCorrupt);
    ASSERT_OK(Adopt(files, place));
  });
}

}  // namespace
}  // namespace ankole::replica
