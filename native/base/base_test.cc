#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/buffer_pool.h"
#include "base/counters.h"
#include "base/crc32c.h"
#include "base/intrusive_list.h"
#include "base/json.h"
#include "base/mapping.h"
#include "base/sha256.h"
#include "base/test.h"

namespace ankole {
namespace {

template <typename Bytes>
std::string Hex(const Bytes& bytes) {
  std::string text;
  for (const uint8_t byte : bytes) {
    char digits[3];
    std::snprintf(digits, sizeof(digits), "%02x", byte);
    text += digits;
  }
  return text;
}

std::span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// RFC 3720 appendix B.4.
TEST(base, Crc32cGivesTheVectorsOfTheRfc) {
  std::vector<uint8_t> data(32, 0);
  EXPECT_EQ(Crc32c(data.data(), 32), 0x8a9136aaU);
  data.assign(32, 0xff);
  EXPECT_EQ(Crc32c(data.data(), 32), 0x62a8ab43U);
  for (size_t i = 0; i < 32; ++i) data[i] = static_cast<uint8_t>(i);
  EXPECT_EQ(Crc32c(data.data(), 32), 0x46dd794eU);
  EXPECT_EQ(Crc32cPortable(data.data(), 32), 0x46dd794eU);
}

TEST(base, Crc32cIsTheSameByInstructionAndByTableAtAnyLengthAlignmentAndSplit) {
  std::mt19937_64 random(test::Seed());
  std::vector<uint8_t> data(70'000);
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
  for (int i = 0; i < 500; ++i) {
    const size_t start = random() % 64;
    const size_t length = random() % (data.size() - start);
    const size_t split = length == 0 ? 0 : random() % length;
    const uint32_t whole = Crc32c(&data[start], length);
    EXPECT_EQ(whole, Crc32cPortable(&data[start], length));
    EXPECT_EQ(Crc32c(&data[start + split], length - split, Crc32c(&data[start], split)), whole);
  }
}

TEST(base, BlockChecksumsCoverPartsOfBlocks) {
  std::vector<uint8_t> data(3 * kBlockBytes, 7);
  uint32_t sums[4];
  EXPECT_EQ(BlocksTouched(512, 2 * kBlockBytes), 3U);
  Crc32cBlocks(data.data(), 512, 2 * kBlockBytes, sums);
  EXPECT_EQ(sums[0], Crc32c(data.data(), kBlockBytes - 512));
  EXPECT_EQ(sums[1], Crc32c(data.data(), kBlockBytes));
  EXPECT_EQ(sums[2], Crc32c(data.data(), 512));
}

// FIPS 180-4 examples, RFC 4231 test cases 1, 2 and 6.
TEST(base, Sha256AndHmacGiveThePublishedVectors) {
  Sha256 abc;
  abc.Update("abc", 3);
  EXPECT_EQ(Hex(abc.Finish()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  Sha256 blocks;
  for (const char c : two) blocks.Update(&c, 1);
  EXPECT_EQ(Hex(blocks.Finish()),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Hex(HmacSha256(Bytes(std::string(20, '\x0b')), Bytes("Hi There"))),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(Hex(HmacSha256(Bytes("Jefe"), Bytes("what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(Hex(HmacSha256(Bytes(std::string(131, '\xaa')),
                           Bytes("Test Using Larger Than Block-Size Key - Hash Key First"))),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(base, SecretsParseOnlyWhenTheyAreWhole) {
  const std::string hex(64, 'a');
  const Result<Secret> secret = ParseSecret(hex);
  ASSERT_OK(secret);
  EXPECT_EQ(SecretText(secret.value()), hex);
  EXPECT(!ParseSecret(std::string(63, 'a')).ok());
  EXPECT(!ParseSecret(std::string(64, 'G')).ok());
}

TEST(base, JsonRoundTrips) {
  const std::string text =
      R"({"a":[1,-2,3.5,true,false,null],"b":{"c":"quote \" tab \t é 😀"},"big":9007199254740993})";
  const Result<Json> json = Json::Parse(text);
  ASSERT_OK(json);
  const Result<Json> again = Json::Parse(json.value().Write(2));
  ASSERT_OK(again);
  EXPECT_EQ(again.value().Write(), json.value().Write());
  EXPECT_EQ(json.value().Integer("big", 0, INT64_MAX).Take(), 9007199254740993);
  const Result<Json> escaped = Json::Parse(R"("😀\u0000")");
  ASSERT_OK(escaped);
  EXPECT_EQ(escaped.value().AsString("x").Take(), std::string("😀\0", 5));
}

TEST(base, JsonRefusesWhatIsNotJson) {
  for (const char* text : {"",
                           "{",
                           "[1,]",
                           "{\"a\":1,}",
                           "01",
                           "1.",
                           "+1",
                           "nul",
                           "\"\\x\"",
                           "\"\t\"",
                           "\"\xff\"",
                           "1 2",
                           "{\"a\":1,\"a\":2}",
                           "\"\\ud800\"",
                           "\"\\udc00\"",
                           "[1 2]",
                           "{1:2}",
                           "\"abc",
                           "1e999",
                           "-"}) {
    if (Json::Parse(text).ok()) test::Fail(__FILE__, __LINE__, std::string("parsed: ") + text);
  }
  EXPECT(!Json::Parse(std::string(10'000, '[')).ok());
}

TEST(base, JsonErrorsNameTheFieldAndItsBounds) {
  const Json json = Json::Parse(R"({"size":"x","count":1e3,"n":5})").Take();
  EXPECT_EQ(json.Integer("size", 0, 9).status().message(), "size must be a number, not a string");
  EXPECT_EQ(json.Integer("n", 0, 4).status().message(), "n must be a whole number from 0 to 4");
  EXPECT(!json.Integer("count", 0, 10'000).ok());
  EXPECT_EQ(json.String("name").status().message(), "name is missing");
}

TEST(base, BytesThatAreNotUtf8AreWrittenAsReplacementCharacters) {
  EXPECT_EQ(Json(std::string("a\xff") + "b").Write(), "\"a\\ufffdb\"");
}

TEST(base, BufferPoolHandsOutItsClassesAndRunsDry) {
  Result<std::unique_ptr<BufferPool>> made = BufferPool::Create("test", 2, 1, 1);
  ASSERT_OK(made);
  BufferPool& pool = *made.value();
  BufferPool::Chunk* a = pool.Acquire(100);
  BufferPool::Chunk* b = pool.Acquire(BufferPool::kSmallBytes);
  BufferPool::Chunk* c = pool.Acquire(1);  // no small one is left
  BufferPool::Chunk* d = pool.Acquire(kDataBytesMax);
  ASSERT(a != nullptr && b != nullptr && c != nullptr && d != nullptr);
  EXPECT_EQ(c->capacity_bytes, BufferPool::kMediumBytes);
  EXPECT(pool.Acquire(1) == nullptr);
  EXPECT(pool.Contains(d->data) && !pool.Contains(&pool));
  EXPECT_EQ(pool.held_bytes(), pool.arena_bytes());
  BufferPool::Retain(a);
  BufferPool::Release(a);
  EXPECT(pool.Acquire(1) == nullptr);
  BufferPool::Release(a);
  a = pool.Acquire(1);
  EXPECT(a != nullptr);
  for (BufferPool::Chunk* chunk : {a, b, c, d}) {
    std::memset(chunk->data, 1, chunk->capacity_bytes);
    BufferPool::Release(chunk);
  }
  EXPECT_EQ(pool.held_bytes(), 0U);
  pool.Trim();
  d = pool.Acquire(kDataBytesMax);
  EXPECT_EQ(static_cast<int>(d->data[5]), 0);
  BufferPool::Release(d);
}

TEST(base, HistogramPutsALatencyIntoTheBucketThatBoundsIt) {
  LatencyHistogram histogram;
  histogram.Add(1);                // <= 1 µs
  histogram.Add(1'001);            // <= 2 µs
  histogram.Add(2'000);            // <= 2 µs
  histogram.Add(100'000'000'000);  // over all
  const Json json = histogram.ToJson();
  const std::vector<Json>& buckets = json.Find("buckets")->items();
  EXPECT_EQ(buckets.size(), LatencyHistogram::kBounds + 1);
  EXPECT_EQ(buckets[0].Write(), "1");
  EXPECT_EQ(buckets[1].Write(), "2");
  EXPECT_EQ(buckets.back().Write(), "1");
  EXPECT_EQ(LatencyHistogram::BoundsSeconds().items()[1].Write(), "2e-06");
}

struct Item {
  int value;
  ListNode node;
};

TEST(base, IntrusiveListKeepsOrder) {
  IntrusiveList<Item, &Item::node> list;
  Item items[3] = {{1, {}}, {2, {}}, {3, {}}};
  for (Item& item : items) list.PushBack(&item);
  list.Remove(&items[1]);
  list.PushFront(&items[1]);
  std::string order;
  for (Item* item = list.front(); item != nullptr; item = list.Next(item)) {
    order += std::to_string(item->value);
  }
  EXPECT_EQ(order, "213");
  while (list.PopFront() != nullptr) {
  }
  EXPECT(list.empty() && !items[0].node.linked());
}

TEST(base, MappingKeepsItsBytesAsItGrowsOutOfTheHeap) {
  constexpr size_t kHeap = Mapping::kHeapBytesMax;
  Mapping mapping;
  EXPECT(!mapping.exists());
  size_t before = 0;
  for (const size_t bytes : {size_t{8}, kHeap - 8, kHeap, kHeap + 8, 4 * kHeap}) {
    ASSERT_OK(mapping.Grow(bytes, "a test"));
    ASSERT(mapping.exists() && mapping.bytes() == bytes);
    for (size_t i = 0; i < bytes; ++i) ASSERT(mapping.as<uint8_t>()[i] == (i < before ? 7 : 0));
    std::memset(mapping.as<uint8_t>(), 7, bytes);
    before = bytes;
    ASSERT_OK(mapping.Grow(1, "a test"));
    EXPECT_EQ(mapping.bytes(), bytes);
  }
  mapping.Clear();
  for (size_t i = 0; i < before; ++i) ASSERT(mapping.as<uint8_t>()[i] == 0);
  Mapping small;
  ASSERT_OK(small.Grow(16, "a test"));
  small.as<uint8_t>()[3] = 1;
  small.Clear();
  EXPECT_EQ(int{small.as<uint8_t>()[3]}, 0);
  small = std::move(mapping);
  EXPECT(!mapping.exists() && small.bytes() == before);
  EXPECT(!small.Grow(SIZE_MAX / 2, "a test").ok());
  EXPECT_EQ(small.bytes(), before);
}

}  // namespace
}  // namespace ankole
