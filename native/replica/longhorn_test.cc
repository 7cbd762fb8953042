#include "replica/longhorn.h"

#include <algorithm>

#include "base/test.h"
#include "base/units.h"
#include "io/file_system.h"
#include "replica/longhorn_testing.h"

// What is read of Longhorn's directories, and what is refused, changing nothing.
namespace ankole::replica {
namespace {

using testing::LonghornDirectory;

constexpr uint64_t kSize = 4 * kMiB;
constexpr char kHead[] = "volume-head-002.img";
constexpr char kA[] = "volume-snap-a.img";
constexpr char kB[] = "volume-snap-b.img";

std::string NewDirectory() { return test::TemporaryDirectory() + "/pvc-1-r-0a1b2c3d"; }

// A head on b on a.
LonghornDirectory Chain(io::FileSystem& files, uint64_t size_bytes = kSize) {
  LonghornDirectory made(files, NewDirectory(), size_bytes);
  made.Layer(kA, "").Layer(kB, kA).Layer(kHead, kB).Volume(kHead);
  return made;
}

LonghornReplica Read(io::FileSystem& files, const std::string& directory,
                     const LonghornOptions& options = {}) {
  Result<LonghornReplica> found = ReadLonghorn(files, directory, options);
  CHECK(found.ok());
  return found.Take();
}

bool Mentions(const std::vector<std::string>& texts, const std::string& part) {
  return std::any_of(texts.begin(), texts.end(),
                     [&](const auto& text) { return text.find(part) != std::string::npos; });
}

// What stands against it is that alone.
void ExpectRefused(const LonghornReplica& found, const std::string& part) {
  ASSERT(found.problems.size() == 1);
  EXPECT(found.problems[0].kind.empty());
  EXPECT(found.problems[0].message.find(part) != std::string::npos);
  const Status status = found.Obstacle({.dirty = true, .rebuilding = true, .error = true});
  EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
}

TEST(replica_longhorn, reads_a_chain_and_changes_nothing) {
  const auto files = io::MakePosixFileSystem();
  LonghornDirectory made = Chain(*files);
  made.Data(kA, 0, 8192, 'a').Unwritten(kB, 4096, 4096).Data(kHead, 0, 4096, 'h');
  made.Meta(kB,
            "\"Parent\":\"volume-snap-a.img\",\"UserCreated\":true,\"Removed\":true,"
            "\"Labels\":{\"k\":\"v\"}");
  made.Text("revision.counter", std::string("17") + std::string(4094, '\0'));
  const auto before = testing::ContentOf(*files, made.path());
  const LonghornReplica found = Read(*files, made.path());
  EXPECT(before == testing::ContentOf(*files, made.path()));
  ASSERT_OK(found.Obstacle({}));
  ASSERT(found.layers.size() == 3);
  EXPECT_EQ(found.chain, 3U);
  EXPECT_EQ(found.layers[0].meta.name, std::string(kHead));
  EXPECT_EQ(found.layers[1].meta.name, std::string(kB));
  EXPECT(found.layers[1].meta.removed && found.layers[1].meta.user_created);
  EXPECT_EQ(found.layers[1].unwritten_bytes, 4096U);
  EXPECT_EQ(found.layers[2].meta.name, std::string(kA));
  EXPECT_EQ(found.layers[2].size_bytes, kSize);
  EXPECT_EQ(found.volume_bytes, kSize);
  EXPECT(found.revision == std::optional<uint64_t>(17));
  const std::string json = found.ToJson().Write();
  EXPECT(json.find("\"labels\":{\"k\":\"v\"}") != std::string::npos);
  EXPECT(json.find("\"layer\":\"b\"") != std::string::npos);
}

TEST(replica_longhorn, needs_no_revision_counter) {
  const auto files = io::MakePosixFileSystem();
  LonghornDirectory made = Chain(*files);
  EXPECT(!Read(*files, made.path()).revision.has_value());
  for (const char* text : {"seventeen", "17 or so", ""}) {
    made.Text("revision.counter", text);
    const LonghornReplica found = Read(*files, made.path());
    EXPECT(!found.revision.has_value());
    EXPECT(Mentions(found.notes, "revision.counter holds no number"));
    ASSERT_OK(found.Obstacle({}));
  }
}

TEST(replica_longhorn, an_unwritten_extent_with_nothing_below_hides_nothing) {
  const auto files = io::MakePosixFileSystem();
  LonghornDirectory made = Chain(*files);
  made.Unwritten(kA, 0, 8192);
  EXPECT_EQ(Read(*files, made.path()).layers[2].unwritten_bytes, 0U);
  EXPECT(!Mentions(Read(*files, made.path()).notes, "never written"));
  made.Unwritten(kHead, 0, 8192);
  EXPECT(Mentions(Read(*files, made.path()).notes, "8192 bytes are allocated and were never"));
}

TEST(replica_longhorn, believes_the_file_name_and_not_the_name_field) {
  const auto files = io::MakePosixFileSystem();
  LonghornDirectory made = Chain(*files);
  made.Meta(kA, "\"Name\":\"volume-head-000.img\",\"Parent\":\"\"");
  const LonghornReplica found = Read(*files, made.path());
  ASSERT_OK(found.Obstacle({}));
  EXPECT_EQ(found.layers[2].meta.name, std::string(kA));
  EXPECT(Mentions(found.notes, "says Name 'volume-head-000.img': the file's name counts"));
}

TEST(replica_longhorn, finds_other_branches_by_their_parents) {
  const auto files = io::MakePosixFileSystem();
  LonghornDirectory made = Chain(*files);
  // After a revert to a: c stood on b. d stands on what is not there.
  made.Layer("volume-snap-c.img", kB).Layer("volume-snap-d.img", "volume-snap-gone.img");
  made.Meta(kHead, "\"Parent\":\"volume-snap-a.img\"").Volume(kHead);
  const LonghornReplica found = Read(*files, made.path());
  ASSERT_OK(found.Obstacle({}));
  EXPECT_EQ(found.chain, 2U);
  ASSERT(found.layers.size() == 4);
  EXPECT_EQ(found.layers[2].meta.name, std::string(kB));
  EXPECT_EQ(found.layers[3].meta.name, std::string("volume-snap-c.img"));
  EXPECT(Mentions(found.notes, "'volume-snap-d.img' stands on a layer that is not there"));
}

TEST(replica_longhorn, refuses_chains_that_lack_a_layer_or_have_a_loop) {
  const auto files = io::MakePosixFileSystem();
  LonghornDirectory lacking = Chain(*files);
  ASSERT_OK(files->Remove(lacking.path() + "/" + kA));
  ExpectRefused(Read(*files, lacking.path()), "needs the layer 'volume-snap-a.img'");
  LonghornDirectory looping = Chain(*files);
  looping.Meta(kA, "\"Parent\":\"volume-snap-b.img\"");
  ExpectRefused(Read(*files, looping.path()), "has a loop at 'volume-snap-b.img'");
  LonghornDirectory unreadable = Chain(*files);
  unreadable.Text("volume-snap-a.img.meta", "{");
  ExpectRefused(Read(*files, unreadable.path()), "'volume-snap-a.img.meta'");
  LonghornDirectory headless = Chain(*files);
  headless.Volume(kHead, "\"Head\":\"volume-snap-a.img\"");
  const LonghornReplica found = Read(*files, headless.path());
  ASSERT(!found.problems.empty());
  EXPECT(found.problems[0].message.find("is no name of a head") != std::string::npos);
}

TEST(replica_longhorn, what_no_layer_needs_is_passed_over) {
  const auto files = io::MakePosixFileSystem();
  LonghornDirectory made = Chain(*files);
  made.Layer("volume-head-001.img", kA)
      .Text("volume-snap-e.img", "")
      .Text("volume-snap-f.img.meta", "{}");
  made.Text("volume-snap-a.img.checksum", "{}").Text("volume.meta.tmp", "{");
  const LonghornReplica found = Read(*files, made.path());
  ASSERT_OK(found.Obstacle({}));
  EXPECT_EQ(found.layers.size(), 3U);
  EXPECT(Mentions(found.notes, "'volume-head-001.img' is a head that Longhorn does not use"));
  EXPECT(Mentions(found.notes, "'volume-snap-e.img' has no .meta"));
  EXPECT(Mentions(found.notes, "'volume-snap-f.img.meta' is of a layer that is not there"));
}

TEST(replica_longhorn, takes_what_was_not_closed_only_when_told) {
  const auto files = io::MakePosixFileSystem();
  const std::pair<const char*, LonghornAccept> cases[] = {
      {"\"Dirty\":true", {.dirty = true}},
      {"\"Rebuilding\":true", {.rebuilding = true}},
      {"\"Error\":\"disk on fire\"", {.error = true}},
  };
  for (const auto& [fields, accept] : cases) {
    LonghornDirectory made = Chain(*files);
    made.Volume(kHead, fields);
    const LonghornReplica found = Read(*files, made.path());
    EXPECT_EQ(found.Obstacle({}).code(), ErrorCode::kUnavailable);
    ASSERT_OK(found.Obstacle(accept));
    LonghornAccept others = {.dirty = true, .rebuilding = true, .error = true};
    if (accept.dirty) others.dirty = false;
    if (accept.rebuilding) others.rebuilding = false;
    if (accept.error) others.error = false;
    EXPECT_EQ(found.Obstacle(others).code(), ErrorCode::kUnavailable);
  }
  LonghornAccept accept;
  ASSERT_OK(accept.Add("dirty"));
  EXPECT(accept.dirty && !accept.rebuilding && !accept.error);
  EXPECT_EQ(accept.Add("all").code(), ErrorCode::kInvalidArgument);
}

TEST(replica_longhorn, refuses_one_that_is_locked) {
  const auto files = io::MakePosixFileSystem();
  LonghornDirectory made = Chain(*files);
  made.Text("journal.lock", "").Text("journal.log", "x");
  ASSERT_OK(Read(*files, made.path()).Obstacle({}));
  EXPECT(Mentions(Read(*files, made.path()).notes, "journal.log"));
  const Result<io::File> lock = files->Open(made.path() + "/journal.lock", {.write = true});
  ASSERT_OK(lock);
  ASSERT_OK(files->TryLock(lock.value()));
  ExpectRefused(Read(*files, made.path()), "'journal.lock' locked");
  files->Close(lock.value());
}

TEST(replica_longhorn, refuses_a_backing_file_that_is_missing_or_no_raw_image) {
  const auto files = io::MakePosixFileSystem();
  LonghornDirectory made = Chain(*files);
  const std::string backing = test::TemporaryDirectory() + "/backing";
  made.Volume(kHead, "\"BackingFilePath\":\"" + backing + "\"");
  ExpectRefused(Read(*files, made.path()), "stands on the backing file '" + backing + "'");
  LonghornDirectory other(*files, test::TemporaryDirectory() + "/images", kSize);
  other.Text("raw", std::string(512, 'r')).Text("qcow2", "QFI\xfb and more");
  const LonghornOptions raw = {.backing_file = other.path() + "/raw"};
  ASSERT_OK(Read(*files, made.path(), raw).Obstacle({}));
  const LonghornOptions qcow2 = {.backing_file = other.path() + "/qcow2"};
  ExpectRefused(Read(*files, made.path(), qcow2), "is a qcow2 image");
  made.Volume(kHead);
  ExpectRefused(Read(*files, made.path(), raw), "a backing file is given, and the volume has none");
}

TEST(replica_longhorn, takes_sizes_as_longhorn_does) {
  const auto files = io::MakePosixFileSystem();
  LonghornDirectory odd = Chain(*files, kMiB + 512);
  EXPECT_EQ(Read(*files, odd.path()).volume_bytes, kMiB + 4096);
  EXPECT(Mentions(Read(*files, odd.path()).notes, "no multiple of 4096"));
  LonghornDirectory expanded(*files, NewDirectory(), kSize);
  expanded.Layer(kA, "", kMiB).Layer(kHead, kA).Volume(kHead);
  ASSERT_OK(Read(*files, expanded.path()).Obstacle({}));
  EXPECT(Mentions(Read(*files, expanded.path()).notes, "the volume was expanded"));
  LonghornDirectory longer(*files, NewDirectory(), kSize);
  longer.Layer(kA, "", 2 * kSize).Layer(kHead, kA).Volume(kHead);
  ExpectRefused(Read(*files, longer.path()), "more than the volume's");
  LonghornDirectory tiny(*files, NewDirectory(), kMiB / 2);
  tiny.Layer(kHead, "").Volume(kHead);
  ExpectRefused(Read(*files, tiny.path()), "1 MiB to 64 TiB");
}

TEST(replica_longhorn, refuses_what_ankole_wrote) {
  const auto files = io::MakePosixFileSystem();
  LonghornDirectory made = Chain(*files);
  made.Text("volume-snap-b.img.mask", "");
  ExpectRefused(Read(*files, made.path()), "was written by Ankole");
  LonghornDirectory whole = Chain(*files);
  whole.Text("ankole.json", "{}");
  ExpectRefused(Read(*files, whole.path()), "holds 'ankole.json'");
  // Of an adoption that was begun it is what that left.
  made.Text("adopted", "{}");
  ASSERT_OK(Read(*files, made.path()).Obstacle({}));
}

TEST(replica_longhorn, refuses_layers_that_have_another_name) {
  const auto files = io::MakePosixFileSystem();
  LonghornDirectory made = Chain(*files);
  ASSERT_OK(files->Link(made.path() + "/" + kHead, made.path() + "/volume-snap-c.img"));
  ExpectRefused(Read(*files, made.path()), "'volume-head-002.img' has another name");
  ASSERT_OK(Read(*files, made.path(), {.backing_file = "", .copied = true}).Obstacle({}));
}

TEST(replica_longhorn, refuses_what_is_no_replica_directory) {
  const auto files = io::MakePosixFileSystem();
  const std::string directory = test::TemporaryDirectory();
  const Status none = ReadLonghorn(*files, directory, {}).status();
  EXPECT_EQ(none.code(), ErrorCode::kNotFound);
  EXPECT(none.message().find("has no volume.meta") != std::string::npos);
  EXPECT_EQ(ReadLonghorn(*files, directory + "/none", {}).status().code(), ErrorCode::kNotFound);
  LonghornDirectory made = Chain(*files);
  made.Text("volume.meta", "");
  EXPECT_EQ(ReadLonghorn(*files, made.path(), {}).status().code(), ErrorCode::kCorrupt);
  LonghornDirectory nested = Chain(*files);
  ASSERT_OK(files->MakeDirectory(nested.path() + "/more"));
  ExpectRefused(Read(*files, nested.path()), "holds the directory 'more'");
}

TEST(replica_longhorn, maps_names_that_are_none_here) {
  EXPECT_EQ(MapLayerName(kA), std::string(kA));
  EXPECT_EQ(MapLayerName(kHead), std::string(kHead));
  const std::string odd = MapLayerName("volume-snap-before upgrade:1.img");
  EXPECT(IsSnapshotName(odd));
  EXPECT(odd.starts_with("volume-snap-before-upgrade-1-"));
  EXPECT_EQ(MapLayerName(odd), odd);
  const std::string long_name(120, 'x');
  const std::string other = long_name.substr(1) + "y";
  EXPECT(IsSnapshotName(MapLayerName("volume-snap-" + long_name + ".img")));
  EXPECT(MapLayerName("volume-snap-" + long_name + ".img") !=
         MapLayerName("volume-snap-" + other + ".img"));
}

}  // namespace
}  // namespace ankole::replica
