#include "iscsi/chap.h"

#include "base/test.h"
#include "iscsi/md5.h"

namespace ankole::iscsi {
namespace {

std::string Md5Of(const std::string& text) {
  Md5 hash;
  hash.Update(text.data(), text.size());
  return BinaryText(hash.Finish()).substr(2);
}

// RFC 1321, A.5.
TEST(iscsi_chap, Md5) {
  EXPECT_EQ(Md5Of(""), "d41d8cd98f00b204e9800998ecf8427e");
  EXPECT_EQ(Md5Of("abc"), "900150983cd24fb0d6963f7d28e17f72");
  EXPECT_EQ(Md5Of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"),
            "d174ab98d277d9f5a5611c2c9f419d9f");
  EXPECT_EQ(Md5Of("1234567890123456789012345678901234567890123456789012345678901234567890123456"
                  "7890"),
            "57edf4a22be3c955ac49da2e2107b67a");
  // In pieces, over block borders.
  for (size_t length : {55u, 56u, 63u, 64u, 65u, 127u, 128u, 1000u}) {
    const std::string text(length, 'x');
    Md5 hash;
    for (size_t at = 0; at < length; at += 7)
      hash.Update(&text[at], std::min<size_t>(7, length - at));
    EXPECT_EQ(BinaryText(hash.Finish()).substr(2), Md5Of(text));
  }
}

TEST(iscsi_chap, BinaryValues) {
  using V = std::vector<uint8_t>;
  EXPECT(ParseBinary("0x0102fF", 16) == (V{1, 2, 255}));
  EXPECT(ParseBinary("0X102", 16) == (V{1, 2}));
  EXPECT(ParseBinary("0bAQL/", 16) == (V{1, 2, 255}));
  EXPECT(ParseBinary("0BAQI=", 16) == (V{1, 2}));
  EXPECT(ParseBinary("0bAQ==", 16) == (V{1}));
  EXPECT_EQ(BinaryText(V{0, 15, 255}), "0x000fff");
  for (const char* bad : {"", "0x", "0b", "12", "0xg1", "0bAQ=", "0bA===", "0bA*==", "0b====",
                          "0c12", "0x01020304050607080910111213141516171819"}) {
    if (ParseBinary(bad, 16)) test::Fail(__FILE__, __LINE__, std::string("taken: ") + bad);
  }
  EXPECT(ParseBinary("0x" + std::string(2048, 'a'), 1024).has_value());
  EXPECT(!ParseBinary("0x" + std::string(2050, 'a'), 1024).has_value());
}

const ChapSecrets kOneWay = {"user", "a secret of some length", "", ""};
const ChapSecrets kMutual = {"user", "a secret of some length", "target", "another secret, longer"};
const Chap::Challenge kChallenge = {1, 2, 3, 4, 5, 6, 7, 8};
constexpr uint8_t kIdentifier = 42;

struct Dialogue {
  explicit Dialogue(const ChapSecrets& secrets) : chap(secrets, kChallenge, kIdentifier) {}
  Chap chap;
  std::string text;
  Chap::Step Take(const std::vector<Pair>& pairs) {
    text.clear();
    return chap.Take(pairs, &text);
  }
};

std::string Proof(ChapAlgorithm algorithm, const std::string& secret) {
  return BinaryText(ChapResponse(algorithm, kIdentifier, secret, kChallenge));
}

TEST(iscsi_chap, TheRightSecretProvesBothAlgorithms) {
  for (const auto algorithm : {ChapAlgorithm::kMd5, ChapAlgorithm::kSha256}) {
    Dialogue dialogue(kOneWay);
    const std::string number = std::to_string(static_cast<int>(algorithm));
    EXPECT(dialogue.Take({{"CHAP_A", "99," + number + ",5"}}) == Chap::Step::kAgain);
    const auto pairs = ParseText(dialogue.text);
    EXPECT(Find(*pairs, "CHAP_A") == number);
    EXPECT(Find(*pairs, "CHAP_I") == "42");
    EXPECT(Find(*pairs, "CHAP_C") == BinaryText(kChallenge));
    const std::string proof = Proof(algorithm, kOneWay.secret);
    EXPECT_EQ(proof.size(), algorithm == ChapAlgorithm::kMd5 ? 34u : 66u);
    EXPECT(dialogue.Take({{"CHAP_N", "user"}, {"CHAP_R", proof}}) == Chap::Step::kProven);
    EXPECT(dialogue.text.empty());
    EXPECT(dialogue.Take({{"CHAP_N", "user"}, {"CHAP_R", proof}}) == Chap::Step::kRefused);
  }
}

TEST(iscsi_chap, AnythingElseIsRefused) {
  const std::string good = Proof(ChapAlgorithm::kMd5, kOneWay.secret);
  const std::string wrong = Proof(ChapAlgorithm::kMd5, "another secret, wrong");
  const std::vector<std::vector<Pair>> cases = {
      {{"CHAP_N", "user"}, {"CHAP_R", wrong}},
      {{"CHAP_N", "other"}, {"CHAP_R", good}},
      {{"CHAP_N", ""}, {"CHAP_R", good}},
      {{"CHAP_R", good}},
      {{"CHAP_N", "user"}},
      {{"CHAP_N", "user"}, {"CHAP_R", "0x00"}},
      {{"CHAP_N", "user"}, {"CHAP_R", "nothing"}},
      // A proof of ours was not agreed on.
      {{"CHAP_N", "user"}, {"CHAP_R", good}, {"CHAP_I", "1"}, {"CHAP_C", "0x1234"}},
      {},
  };
  for (const auto& pairs : cases) {
    Dialogue dialogue(kOneWay);
    EXPECT(dialogue.Take({{"CHAP_A", "5"}}) == Chap::Step::kAgain);
    EXPECT(dialogue.Take(pairs) == Chap::Step::kRefused);
    EXPECT(dialogue.text.empty());
  }
  for (const char* algorithms : {"", "6", "5x", "a,b", ",,"}) {
    Dialogue dialogue(kOneWay);
    EXPECT(dialogue.Take({{"CHAP_A", algorithms}}) == Chap::Step::kRefused);
  }
}

TEST(iscsi_chap, MutualProofAndReflection) {
  const std::string good = Proof(ChapAlgorithm::kMd5, kMutual.secret);
  const std::vector<uint8_t> theirs = {9, 8, 7, 6};
  {
    Dialogue dialogue(kMutual);
    (void)dialogue.Take({{"CHAP_A", "5"}});
    EXPECT(dialogue.Take({{"CHAP_N", "user"},
                          {"CHAP_R", good},
                          {"CHAP_I", "7"},
                          {"CHAP_C", BinaryText(theirs)}}) == Chap::Step::kProven);
    const auto pairs = ParseText(dialogue.text);
    EXPECT(Find(*pairs, "CHAP_N") == "target");
    EXPECT(Find(*pairs, "CHAP_R") ==
           BinaryText(ChapResponse(ChapAlgorithm::kMd5, 7, kMutual.mutual_secret, theirs)));
  }
  const std::string reflected = BinaryText(kChallenge);
  const std::vector<std::vector<Pair>> bad = {
      {{"CHAP_N", "user"}, {"CHAP_R", good}, {"CHAP_I", "42"}, {"CHAP_C", reflected}},
      {{"CHAP_N", "user"}, {"CHAP_R", good}, {"CHAP_I", "256"}, {"CHAP_C", "0x12"}},
      {{"CHAP_N", "user"}, {"CHAP_R", good}, {"CHAP_I", "1"}},
      {{"CHAP_N", "user"}, {"CHAP_R", good}, {"CHAP_C", "0x12"}},
      // Without the initiator's own proof there is none of ours.
      {{"CHAP_N", "user"}, {"CHAP_R", "0x12"}, {"CHAP_I", "1"}, {"CHAP_C", "0x12"}},
  };
  for (const auto& pairs : bad) {
    Dialogue dialogue(kMutual);
    (void)dialogue.Take({{"CHAP_A", "5"}});
    EXPECT(dialogue.Take(pairs) == Chap::Step::kRefused);
    EXPECT(dialogue.text.empty());
  }
}

TEST(iscsi_chap, BadSecretsAreRefusedNamingTheFieldAndNothingElse) {
  const auto good = [] {
    return Json::Object()
        .Set("user", "user")
        .Set("secret", "123456789012")
        .Set("mutualUser", "target")
        .Set("mutualSecret", "abcdefghijkl");
  };
  EXPECT(ChapSecrets::Parse(good()).ok());
  struct Bad {
    const char* field;
    Json value;
  };
  for (const Bad& bad :
       {Bad{"user", ""}, Bad{"user", "a\nb"}, Bad{"user", std::string(224, 'u')},
        Bad{"secret", "hush-hush"}, Bad{"secret", std::string(65, 's')}, Bad{"secret", 123456789},
        Bad{"mutualUser", ""}, Bad{"mutualSecret", "hush-hush"},
        Bad{"mutualSecret", "123456789012"}, Bad{"mutualSecret", Json()}}) {
    const Result<ChapSecrets> parsed = ChapSecrets::Parse(good().Set(bad.field, bad.value));
    EXPECT(!parsed.ok());
    if (parsed.ok()) continue;
    const std::string& message = parsed.status().message();
    EXPECT(message.find(bad.field) != std::string::npos);
    EXPECT(message.find("hush") == std::string::npos);
    EXPECT(message.find("1234567") == std::string::npos);
  }
  EXPECT(!ChapSecrets::Parse(Json("secret")).ok());
}

}  // namespace
}  // namespace ankole::iscsi
