#include "replica/metadata.h"

#include "base/limits.h"
#include "base/test.h"

namespace ankole::replica {
namespace {

constexpr char kLonghornVolume[] =
    "{\"Size\":2147483648,\"Head\":\"volume-head-002.img\",\"Dirty\":true,\"Rebuilding\":false,"
    "\"Error\":\"\",\"Parent\":\"volume-snap-b.img\",\"SectorSize\":512,\"BackingFilePath\":\"\","
    "\"Future\":{\"a\":[1,2]}}\n";

LayerMeta Layer(const std::string& name, const std::string& parent) {
  LayerMeta layer;
  layer.name = name;
  layer.parent = parent;
  return layer;
}

TEST(replica_metadata, keeps_what_longhorn_wrote) {
  Result<VolumeMeta> volume = VolumeMeta::Parse(kLonghornVolume);
  ASSERT_OK(volume);
  EXPECT_EQ(volume.value().size_bytes, 2147483648U);
  EXPECT_EQ(volume.value().head, "volume-head-002.img");
  EXPECT_EQ(volume.value().parent, "volume-snap-b.img");
  EXPECT(volume.value().dirty);
  EXPECT_EQ(volume.value().Write(), kLonghornVolume);

  const std::string text =
      "{\"Name\":\"volume-snap-b.img\",\"Parent\":\"volume-snap-a.img\",\"Removed\":true,"
      "\"UserCreated\":true,\"Created\":\"2024-05-06T07:08:09Z\",\"Labels\":{\"k\":\"v\"}}\n";
  Result<LayerMeta> layer = LayerMeta::Parse("volume-snap-b.img.meta", text);
  ASSERT_OK(layer);
  EXPECT(layer.value().removed && layer.value().user_created);
  EXPECT_EQ(layer.value().Write(), text);
}

TEST(replica_metadata, writes_longhorns_fields) {
  VolumeMeta volume;
  volume.size_bytes = 1048576;
  volume.head = HeadName(0);
  EXPECT_EQ(volume.Write(),
            "{\"Size\":1048576,\"Head\":\"volume-head-000.img\",\"Dirty\":false,"
            "\"Rebuilding\":false,\"Error\":\"\",\"Parent\":\"\",\"SectorSize\":512,"
            "\"BackingFilePath\":\"\"}\n");
  LayerMeta layer = Layer(HeadName(0), "");
  layer.created = TimeText(1'700'000'000);
  EXPECT_EQ(layer.Write(),
            "{\"Name\":\"volume-head-000.img\",\"Parent\":\"\",\"Removed\":false,"
            "\"UserCreated\":false,\"Created\":\"2023-11-14T22:13:20Z\",\"Labels\":null}\n");
}

TEST(replica_metadata, the_file_name_stands_above_the_name_field) {
  Result<LayerMeta> layer = LayerMeta::Parse("volume-snap-b.img.meta", "{\"Name\":\"other\"}");
  ASSERT_OK(layer);
  EXPECT_EQ(layer.value().name, "volume-snap-b.img");
}

TEST(replica_metadata, refuses_what_it_cannot_trust) {
  const auto replaced = [](const std::string& from, const std::string& to) {
    std::string text = kLonghornVolume;
    const size_t at = text.find(from);
    CHECK(at != std::string::npos);
    return text.replace(at, from.size(), to);
  };
  for (const std::string& text : {
           std::string(),
           std::string("{"),
           std::string("[]"),
           std::string("null"),
           std::string(kLonghornVolume, 40),
           std::string(kLonghornVolume) + "x",
           replaced("2147483648", "2147483647"),
           replaced("2147483648", "-512"),
           replaced("2147483648", "512"),
           replaced("2147483648", "9223372036854775296"),
           replaced("2147483648", "1e300"),
           replaced("2147483648", "\"2147483648\""),
           replaced("volume-head-002", "volume-head-"),
           replaced("volume-head-002", "../head-002"),
           replaced("volume-head-002", "volume-snap-002"),
           replaced("volume-head-002", "volume-head-0x2"),
           replaced("volume-snap-b", "volume-snap-"),
           replaced("volume-snap-b", "/etc/passwd"),
           replaced("volume-snap-b", "volume-snap-a/../b"),
           replaced("volume-snap-b", "volume-snap-..b"),
           replaced("volume-snap-b", "volume-snap-" + std::string(64, 'a')),
           replaced("volume-snap-b", "volume-snap-a\\u0000b"),
           replaced(":512", ":520"),
           replaced("true", "1"),
       }) {
    const Result<VolumeMeta> volume = VolumeMeta::Parse(text);
    EXPECT(!volume.ok());
    if (volume.ok()) std::printf("    accepted: %s\n", text.c_str());
    if (!volume.ok()) EXPECT_EQ(volume.status().code(), ErrorCode::kCorrupt);
  }
  EXPECT(!LayerMeta::Parse("volume-snap-a.img.meta", "{\"Parent\":\"volume-head-000.img\"}").ok());
  EXPECT(!LayerMeta::Parse("volume-snap-a.img.meta", "{\"Removed\":3}").ok());
  EXPECT(!LayerMeta::Parse("..meta", "{}").ok());
}

TEST(replica_metadata, resolves_the_chain_from_the_head_down) {
  VolumeMeta volume;
  volume.head = HeadName(2);
  const std::vector<LayerMeta> layers = {Layer("volume-snap-a.img", ""),
                                         Layer("volume-snap-b.img", "volume-snap-a.img"),
                                         Layer("volume-snap-branch.img", "volume-snap-a.img"),
                                         Layer(HeadName(2), "volume-snap-b.img")};
  const Result<std::vector<LayerMeta>> chain = ResolveChain(volume, layers);
  ASSERT_OK(chain);
  ASSERT(chain.value().size() == 3);
  EXPECT_EQ(chain.value()[0].name, HeadName(2));
  EXPECT_EQ(chain.value()[2].name, "volume-snap-a.img");
}

TEST(replica_metadata, refuses_chains_that_are_broken) {
  VolumeMeta volume;
  volume.head = HeadName(2);
  const auto refused = [&](const std::vector<LayerMeta>& layers, const std::string& why) {
    const Result<std::vector<LayerMeta>> chain = ResolveChain(volume, layers);
    EXPECT(!chain.ok() && chain.status().code() == ErrorCode::kCorrupt);
    if (!chain.ok()) EXPECT(chain.status().message().find(why) != std::string::npos);
  };
  refused({}, "missing");
  refused({Layer(HeadName(2), "volume-snap-a.img")},
          "'volume-snap-a.img' that 'volume-head-002.img'");
  refused({Layer(HeadName(2), "volume-snap-a.img"), Layer("volume-snap-a.img", "volume-snap-b.img"),
           Layer("volume-snap-b.img", "volume-snap-a.img")},
          "loop");
  std::vector<LayerMeta> many = {Layer(HeadName(2), "volume-snap-0.img")};
  for (size_t i = 0; i < kLayersMax; ++i) {
    many.push_back(Layer("volume-snap-" + std::to_string(i) + ".img",
                         "volume-snap-" + std::to_string(i + 1) + ".img"));
  }
  many.back().parent.clear();
  refused(many, "more than 65000");
  many.pop_back();
  many.back().parent.clear();
  EXPECT(ResolveChain(volume, many).ok());
}

TEST(replica_metadata, identity_comes_back_and_never_shows_its_secret) {
  Identity identity;
  identity.volume = "demo";
  identity.id = 0xabc;
  identity.secret.fill(0x5a);
  identity.cache = CacheMode::kDirect;
  identity.created_seconds = 12;
  const std::string text = identity.Write();
  const Result<Identity> again = Identity::Parse(text);
  ASSERT_OK(again);
  EXPECT_EQ(again.value().id, 0xabcU);
  EXPECT(again.value().secret == identity.secret);
  EXPECT(again.value().cache == CacheMode::kDirect);
  EXPECT_EQ(again.value().created_seconds, 12U);

  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    return Identity::Parse(changed.replace(changed.find(from), from.size(), to)).status();
  };
  EXPECT_EQ(with("\"formatVersion\": 1", "\"formatVersion\": 2").code(), ErrorCode::kUnsupported);
  EXPECT_EQ(with("demo", "Demo").code(), ErrorCode::kCorrupt);
  EXPECT_EQ(with("0000000000000abc", "0000000000000000").code(), ErrorCode::kCorrupt);
  EXPECT_EQ(with("direct", "fast").code(), ErrorCode::kCorrupt);
  EXPECT_EQ(with("4096", "512").code(), ErrorCode::kCorrupt);
  const Status secret = with("5a5a5a", "5a5a5");
  EXPECT_EQ(secret.code(), ErrorCode::kCorrupt);
  EXPECT(secret.message().find("5a5a") == std::string::npos);
}

}  // namespace
}  // namespace ankole::replica
