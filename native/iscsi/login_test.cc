#include "iscsi/login.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>

#include "base/test.h"

// The login as a conversation, recorded in testdata/login.trace: what the initiator says is written
// here, what the target answers is checked there. UPDATE=1 rewrites it.
namespace ankole::iscsi {
namespace {

class Policy final : public LoginPolicy {
 public:
  Place Find(const std::string& target, std::string* address) const override {
    if (target == "iqn.t:elsewhere") {
      *address = "10.0.0.7:41000,1";
      return Place::kElsewhere;
    }
    if (target == "iqn.t:detached") return Place::kUnavailable;
    return target == "iqn.t:disk" ? Place::kHere : Place::kUnknown;
  }
  const ChapSecrets* chap() const override { return secrets.user.empty() ? nullptr : &secrets; }
  bool HasSession(uint16_t tsih) const override { return tsih == 7; }
  uint32_t receive_segment_bytes_max() const override { return kReceiveSegmentBytesMax; }
  ChapSecrets secrets;
};

const ChapSecrets kMutual = {"user", "a secret of some length", "target", "another secret, longer"};

std::string Of(std::string words) {
  for (char& c : words) {
    if (c == ' ') c = '\0';
  }
  return words.empty() ? words : words + '\0';
}
std::string Words(std::string text) {
  if (text.empty()) return text;
  text.pop_back();
  for (char& c : text) {
    if (c == '\0') c = ' ';
  }
  return " " + text;
}

const char* StageName(int stage) {
  constexpr const char* kNames[] = {"security", "operational", "2", "full-feature"};
  return kNames[stage];
}
std::string FlagText(uint8_t flags) {
  std::string text = StageName(flags >> 2 & 3);
  if ((flags & kFlagTransit) != 0) text += std::string("->") + StageName(flags & 3);
  if ((flags & kFlagContinue) != 0) text += " more";
  return text;
}

class Conversation {
 public:
  Conversation(std::string title, std::string* trace, ChapSecrets secrets = {}) : trace_(trace) {
    policy_.secrets = std::move(secrets);
    for (size_t i = 0; i < nonce_.challenge.size(); ++i) {
      nonce_.challenge[i] = static_cast<uint8_t>(i + 1);
    }
    nonce_.identifier = 42;
    login_.emplace(policy_, nonce_);
    *trace_ += "# " + title + "\n";
  }
  ~Conversation() { *trace_ += "\n"; }

  LoginStep Say(uint8_t flags, const std::string& words, uint16_t tsih = 0, uint8_t version_min = 0,
                bool raw = false) {
    LoginRequest request;
    request.flags = flags;
    request.version_min = version_min;
    request.isid = isid;
    request.tsih = tsih;
    request.task_tag = 1;
    std::string shown = words;
    for (char& c : shown) {
      if (c == '\0') c = ' ';
    }
    *trace_ += "initiator > " + FlagText(flags) + (shown.empty() ? "" : " " + shown) + "\n";
    LoginReply reply;
    const LoginStep step = login_->Take(request, raw ? words : Of(words), &reply);
    CHECK(reply.header.isid == isid && reply.header.task_tag == 1);
    CHECK(reply.text.size() <= kDefaultSegmentBytes);
    const auto status = static_cast<LoginStatus>(uint16_t{reply.header.status});
    CHECK((step == LoginStep::kRefused) == (status != LoginStatus::kSuccess));
    *trace_ += "target > ";
    if (step == LoginStep::kRefused) {
      char number[16];
      std::snprintf(number, sizeof(number), "%04x", static_cast<unsigned>(status));
      *trace_ += std::string("refused ") + number + " # " + LoginStatusName(status);
    } else {
      *trace_ += FlagText(reply.header.flags);
      if (step == LoginStep::kFullFeature) *trace_ += " logged in";
    }
    *trace_ += Words(reply.text) + "\n";
    return step;
  }
  Login& login() { return *login_; }
  std::string Proof(const std::string& secret,
                    ChapAlgorithm algorithm = ChapAlgorithm::kMd5) const {
    return BinaryText(ChapResponse(algorithm, 42, secret, nonce_.challenge));
  }

  Isid isid = {0x40, 1, 2, 3, 4, 5};

 private:
  std::string* trace_;
  Policy policy_;
  Login::Nonce nonce_;
  std::optional<Login> login_;
};

constexpr uint8_t kSecurity = 0x00;
constexpr uint8_t kSecurityToOperational = 0x81;
constexpr uint8_t kSecurityToFull = 0x83;
constexpr uint8_t kOperational = 0x04;
constexpr uint8_t kOperationalToFull = 0x87;
const std::string kNames = "InitiatorName=iqn.i:host TargetName=iqn.t:disk";

void Plain(std::string* trace) {
  {
    Conversation c("the usual way", trace);
    c.Say(kSecurityToOperational, kNames + " SessionType=Normal AuthMethod=None");
    c.Say(kOperationalToFull,
          "HeaderDigest=None,CRC32C DataDigest=None InitialR2T=No ImmediateData=Yes "
          "MaxRecvDataSegmentLength=262144 MaxBurstLength=16776192 FirstBurstLength=262144 "
          "DefaultTime2Wait=2 DefaultTime2Retain=0 MaxOutstandingR2T=1 MaxConnections=1 "
          "DataPDUInOrder=Yes DataSequenceInOrder=Yes ErrorRecoveryLevel=0 IFMarker=No X-a=b");
    EXPECT_EQ(c.login().initiator(), "iqn.i:host");
    EXPECT_EQ(c.login().target(), "iqn.t:disk");
    EXPECT(!c.login().discovery());
    EXPECT(!c.login().negotiation().parameters().initial_r2t);
  }
  {
    Conversation c("operational at once, in several steps", trace);
    c.Say(kOperational, kNames + " ImmediateData=No");
    c.Say(kOperational, "MaxBurstLength=65536");
    c.Say(kOperationalToFull, "");
  }
  {
    Conversation c("security only: all else stays at its default", trace);
    c.Say(kSecurityToFull, kNames + " AuthMethod=CHAP,None");
    EXPECT_EQ(c.login().negotiation().parameters().receive_segment_bytes_max, 8192u);
  }
  {
    Conversation c("nothing said about security", trace);
    c.Say(kSecurity, kNames);
    c.Say(kSecurityToOperational, "MaxBurstLength=65536");
    c.Say(kOperationalToFull, "");
  }
  {
    Conversation c("discovery", trace);
    c.Say(kSecurityToOperational, "InitiatorName=iqn.i:host SessionType=Discovery AuthMethod=None");
    c.Say(kOperationalToFull, "InitialR2T=No MaxRecvDataSegmentLength=32768 HeaderDigest=None");
    EXPECT(c.login().discovery());
  }
  {
    Conversation c("a text in several PDUs", trace);
    c.Say(0x40, Of("InitiatorName=iqn.i:host") + "TargetNa", 0, 0, true);
    c.Say(kSecurityToOperational, Of("me=iqn.t:disk") + Of("AuthMethod=None"), 0, 0, true);
  }
}

void Redirected(std::string* trace) {
  {
    Conversation c("sent on", trace);
    c.Say(kSecurityToOperational, "InitiatorName=iqn.i:host TargetName=iqn.t:elsewhere");
  }
  {
    Conversation c("known, not attached", trace);
    c.Say(kSecurityToOperational, "InitiatorName=iqn.i:host TargetName=iqn.t:detached");
  }
  {
    Conversation c("unknown", trace);
    c.Say(kSecurityToOperational, "InitiatorName=iqn.i:host TargetName=iqn.t:nowhere");
  }
}

void WithChap(std::string* trace) {
  const ChapSecrets one_way = {"user", "a secret of some length", "", ""};
  {
    Conversation c("CHAP", trace, one_way);
    c.Say(kSecurityToOperational, kNames + " AuthMethod=CHAP,None");
    c.Say(kSecurity, "CHAP_A=5");
    c.Say(kSecurityToOperational, "CHAP_N=user CHAP_R=" + c.Proof(one_way.secret));
    c.Say(kOperationalToFull, "");
  }
  {
    Conversation c("CHAP with SHA-256, mutual", trace, kMutual);
    c.Say(kSecurity, kNames + " AuthMethod=CHAP");
    c.Say(kSecurity, "CHAP_A=7,5");
    c.Say(kSecurityToFull, "CHAP_N=user CHAP_R=" + c.Proof(kMutual.secret, ChapAlgorithm::kSha256) +
                               " CHAP_I=3 CHAP_C=0x000102030405060708090a0b0c0d0e0f");
  }
  {
    Conversation c("a wrong secret", trace, one_way);
    c.Say(kSecurity, kNames + " AuthMethod=CHAP,None");
    c.Say(kSecurity, "CHAP_A=5");
    c.Say(kSecurityToOperational, "CHAP_N=user CHAP_R=" + c.Proof("not the secret of it"));
  }
  {
    Conversation c("our challenge sent back", trace, kMutual);
    c.Say(kSecurity, kNames + " AuthMethod=CHAP");
    c.Say(kSecurity, "CHAP_A=5");
    c.Say(
        kSecurityToOperational,
        "CHAP_N=user CHAP_R=" + c.Proof(kMutual.secret) +
            " CHAP_I=42 CHAP_C=0x0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20");
  }
  {
    Conversation c("no way around it: None", trace, one_way);
    c.Say(kSecurityToOperational, kNames + " AuthMethod=None");
  }
  {
    Conversation c("no way around it: no method", trace, one_way);
    c.Say(kSecurityToOperational, kNames);
  }
  {
    Conversation c("no way around it: the operational stage at once", trace, one_way);
    c.Say(kOperationalToFull, kNames);
  }
  {
    Conversation c("no way around it: transit in the middle", trace, one_way);
    c.Say(kSecurity, kNames + " AuthMethod=CHAP");
    c.Say(kSecurityToFull, "CHAP_A=5");
    c.Say(kOperationalToFull, "");
  }
  {
    Conversation c("no way around it: another method in the middle", trace, one_way);
    c.Say(kSecurity, kNames + " AuthMethod=CHAP");
    c.Say(kSecurityToFull, "AuthMethod=None");
  }
  {
    Conversation c("discovery needs no proof", trace, one_way);
    c.Say(kSecurityToFull, "InitiatorName=iqn.i:host SessionType=Discovery AuthMethod=CHAP,None");
  }
}

void Malformed(std::string* trace) {
  const auto first = [trace](const std::string& title, const std::string& words,
                             uint8_t flags = kSecurityToOperational, uint16_t tsih = 0,
                             uint8_t version_min = 0) {
    Conversation c(title, trace);
    EXPECT(c.Say(flags, words, tsih, version_min) == LoginStep::kRefused);
  };
  first("no initiator", "TargetName=iqn.t:disk");
  first("no target", "InitiatorName=iqn.i:host");
  first("not a name", "InitiatorName=host TargetName=iqn.t:disk");
  first("another session type", kNames + " SessionType=Strange");
  first("a newer version only", kNames, kSecurityToOperational, 0, 1);
  first("a connection for a session that is there", kNames, kSecurityToOperational, 7);
  first("a connection for a session that is not", kNames, kSecurityToOperational, 8);
  first("not a text", "InitiatorName");
  first("a key twice", kNames + " X-a=1 X-a=2");
  first("the full feature phase at once", kNames, 0x8f);
  first("to a stage that does not exist", kNames, 0x82);
  first("backwards", kNames, 0x84);
  first("transit in the middle of a text", kNames, 0xc1);
  {
    Conversation c("a key negotiated twice", trace);
    c.Say(kOperational, kNames + " MaxBurstLength=512");
    EXPECT(c.Say(kOperational, "MaxBurstLength=1024") == LoginStep::kRefused);
  }
  {
    Conversation c("another initiator port in the middle", trace);
    c.Say(kOperational, kNames);
    c.isid[5] = 99;
    EXPECT(c.Say(kOperational, "") == LoginStep::kRefused);
  }
  {
    Conversation c("a stage back", trace);
    c.Say(kSecurityToOperational, kNames + " AuthMethod=None");
    EXPECT(c.Say(kSecurity, "") == LoginStep::kRefused);
  }
}

TEST(iscsi_login, Conversations) {
  std::string trace;
  Plain(&trace);
  Redirected(&trace);
  WithChap(&trace);
  Malformed(&trace);
  const std::string path =
      std::string(__FILE__).substr(0, std::string(__FILE__).rfind('/')) + "/testdata/login.trace";
  if (std::getenv("UPDATE") != nullptr) {
    std::ofstream(path) << trace;
    return;
  }
  std::ifstream file(path);
  const std::string expected((std::istreambuf_iterator<char>(file)), {});
  EXPECT_EQ(trace, expected);
}

TEST(iscsi_login, TextOverAllPdusIsBounded) {
  std::string trace;
  Conversation c("too much", &trace);
  const std::string part(kDefaultSegmentBytes, 'x');
  EXPECT(c.Say(0x40, part, 0, 0, true) == LoginStep::kContinue);
  EXPECT(c.Say(0x40, part, 0, 0, true) == LoginStep::kContinue);
  EXPECT(c.Say(0x40, "x", 0, 0, true) == LoginStep::kRefused);
}

TEST(iscsi_login, TheLongestAnswerFitsIntoAPdu) {
  std::string trace;
  Conversation c("many keys", &trace);
  std::string words = kNames;
  for (size_t i = 2; i < kTextKeysMax; ++i) {
    words += " " + std::string(kKeyBytesMax - 2, 'k') + std::to_string(10 + i) + "=v";
  }
  EXPECT(c.Say(kOperationalToFull, words) == LoginStep::kFullFeature);
}

}  // namespace
}  // namespace ankole::iscsi
