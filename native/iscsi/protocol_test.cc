#include <cstring>

#include "base/crc32c.h"
#include "base/test.h"
#include "iscsi/pdu.h"
#include "iscsi/text.h"

// Framing and text, without a connection.
namespace ankole::iscsi {
namespace {

std::array<std::byte, 64> Header(uint8_t opcode, uint8_t ahs_words, uint32_t data_bytes) {
  BasicHeader header;
  header.opcode = opcode;
  header.ahs_words = ahs_words;
  header.data_bytes = data_bytes;
  header.task_tag = 0x01020304;
  std::array<std::byte, 64> bytes = {};
  const auto raw = As<std::array<std::byte, kHeaderBytes>>(header);
  std::copy(raw.begin(), raw.end(), bytes.begin());
  return bytes;
}

TEST(iscsi_pdu, FieldsAreBigEndianAndWhereTheRfcHasThem) {
  const auto bytes = Header(0x41, 0, 0x010203);
  EXPECT_EQ(static_cast<int>(bytes[5]), 1);
  EXPECT_EQ(static_cast<int>(bytes[7]), 3);
  EXPECT_EQ(static_cast<int>(bytes[16]), 1);
  EXPECT_EQ(static_cast<int>(bytes[19]), 4);
  const auto frame = DecodeFrame(bytes.data(), {}, 0x010203);
  ASSERT(frame.has_value());
  EXPECT(frame->opcode() == Opcode::kScsiCommand && frame->immediate());
  EXPECT_EQ(frame->data_bytes, 0x010203u);
  EXPECT_EQ(uint32_t{frame->header.task_tag}, 0x01020304u);
}

TEST(iscsi_pdu, LengthsCountDigestsAndPadding) {
  const auto bytes = Header(0x01, 2, 5);
  const auto plain = DecodeFrame(bytes.data(), {}, 8192);
  EXPECT_EQ(plain->header_bytes, 56u);
  EXPECT_EQ(plain->trailer_bytes, 3u);
  const auto both = DecodeFrame(bytes.data(), {true, true}, 8192);
  EXPECT_EQ(both->header_bytes, 60u);
  EXPECT_EQ(both->trailer_bytes, 7u);
  EXPECT_EQ(both->bytes(), 72u);
  // No data, no data digest.
  EXPECT_EQ(DecodeFrame(Header(0x01, 0, 0).data(), {true, true}, 8192)->bytes(), 52u);
  EXPECT(DecodeFrame(Header(0x01, 0, 8192).data(), {}, 8192).has_value());
  EXPECT(!DecodeFrame(Header(0x01, 0, 8193).data(), {}, 8192).has_value());
}

TEST(iscsi_pdu, HeaderDigestsAreChecked) {
  auto bytes = Header(0x01, 0, 0);
  const uint32_t digest = Crc32c(bytes.data(), kHeaderBytes);
  std::memcpy(&bytes[kHeaderBytes], &digest, sizeof(digest));
  const Frame frame = *DecodeFrame(bytes.data(), {true, false}, 8192);
  EXPECT(HeaderDigestMatches(frame, bytes.data()));
  bytes[20] ^= std::byte{1};
  EXPECT(!HeaderDigestMatches(frame, bytes.data()));
  EXPECT(HeaderDigestMatches(*DecodeFrame(bytes.data(), {}, 8192), bytes.data()));
}

TEST(iscsi_pdu, AdditionalHeaderSegments) {
  const auto kind = [](std::initializer_list<int> segments) {
    std::vector<std::byte> bytes(kHeaderBytes);
    for (const int byte : segments) bytes.push_back(static_cast<std::byte>(byte));
    Frame frame;
    frame.header.ahs_words = static_cast<uint8_t>(segments.size() / 4);
    return DecodeAdditionalHeaders(frame, bytes.data());
  };
  EXPECT(kind({}) == AdditionalHeaders::kNone);
  EXPECT(kind({0, 5, 1, 0, 1, 2, 3, 4}) == AdditionalHeaders::kExtendedCdb);
  EXPECT(kind({0, 5, 2, 0, 1, 2, 3, 4}) == AdditionalHeaders::kBidirectional);
  EXPECT(kind({0, 1, 1, 0, 0, 5, 2, 0, 1, 2, 3, 4}) == AdditionalHeaders::kBidirectional);
  EXPECT(kind({0, 5, 3, 0, 1, 2, 3, 4}) == AdditionalHeaders::kMalformed);
  EXPECT(kind({0, 6, 1, 0, 1, 2, 3, 4}) == AdditionalHeaders::kMalformed);
  EXPECT(kind({255, 255, 1, 0}) == AdditionalHeaders::kMalformed);
  EXPECT(kind({0, 0, 1, 0}) == AdditionalHeaders::kMalformed);
}

TEST(iscsi_pdu, NumbersWrapAround) {
  EXPECT(Before(1, 2) && !Before(2, 1) && !Before(2, 2));
  EXPECT(Before(0xfffffff0, 3) && !Before(3, 0xfffffff0));
}

std::string Z(std::string text) {
  for (char& c : text) {
    if (c == '|') c = '\0';
  }
  return text;
}

TEST(iscsi_text, Pairs) {
  const std::string text = Z("A=1|b.c-d+e@f_g/h#1=x=y|empty=|");
  const auto pairs = ParseText(text);
  ASSERT(pairs.has_value());
  EXPECT_EQ(pairs->size(), 3u);
  EXPECT(Find(*pairs, "A") == "1");
  EXPECT(Find(*pairs, "b.c-d+e@f_g/h#1") == "x=y");
  EXPECT(Find(*pairs, "empty") == "");
  EXPECT(!Find(*pairs, "a"));
  std::string back;
  for (const Pair& pair : *pairs) AppendPair(&back, pair.key, pair.value);
  EXPECT(back == text);
  // Padding that was counted as data.
  EXPECT_EQ(ParseText(Z("A=1|||"))->size(), 1u);
  EXPECT_EQ(ParseText("")->size(), 0u);
  for (const char* bad : {"A", "A=1", "A|", "=1|", "|A=1|", "A b=1|", "A=1|A=2|"}) {
    if (ParseText(Z(bad))) test::Fail(__FILE__, __LINE__, std::string("taken: ") + bad);
  }
  EXPECT(ParseText(Z(std::string(63, 'k') + "=1|")).has_value());
  EXPECT(!ParseText(Z(std::string(64, 'k') + "=1|")).has_value());
  std::string many;
  for (size_t i = 0; i < kTextKeysMax; ++i) AppendPair(&many, "k" + std::to_string(i), "v");
  EXPECT(ParseText(many).has_value());
  AppendPair(&many, "more", "v");
  EXPECT(!ParseText(many).has_value());
}

TEST(iscsi_text, Numbers) {
  EXPECT(ParseNumber("0") == 0u);
  EXPECT(ParseNumber("262144") == 262144u);
  EXPECT(ParseNumber("0x10") == 16u);
  EXPECT(ParseNumber("0XfF") == 255u);
  for (const char* bad : {"", "0x", "-1", "+1", "1 ", "1a", "99999999999999999999999"}) {
    EXPECT(!ParseNumber(bad));
  }
}

TEST(iscsi_text, Names) {
  EXPECT(ParseName("iqn.2024-01.com.example:disk") == "iqn.2024-01.com.example:disk");
  EXPECT(ParseName("IQN.2024-01.Com.Example:Disk") == "iqn.2024-01.com.example:disk");
  EXPECT(ParseName("eui.02004567A425678D") == "eui.02004567a425678d");
  EXPECT(ParseName("naa.52004567BA64678D").has_value());
  EXPECT(ParseName("iqn.2024-01.example:\xc3\xa4").has_value());
  for (const char* bad :
       {"", "iqn.", "disk", "eui.123", "naa.xyz4567BA64678D", "iqn.a b", "iqn.a,b", "iqn.a\nb"}) {
    EXPECT(!ParseName(bad));
  }
  EXPECT(ParseName("iqn." + std::string(219, 'x')).has_value());
  EXPECT(!ParseName("iqn." + std::string(220, 'x')).has_value());
  EXPECT_EQ(Printable("iqn.\n\x80x"), "iqn.??x");
  EXPECT_EQ(Printable(std::string(500, 'x')).size(), 131u);
}

}  // namespace
}  // namespace ankole::iscsi
