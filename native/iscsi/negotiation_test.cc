#include "iscsi/negotiation.h"

#include <algorithm>

#include "base/test.h"
#include "iscsi/text_exchange.h"

namespace ankole::iscsi {
namespace {

// Pairs between spaces, for people; and back.
std::string Of(std::string words) {
  if (words.empty()) return words;
  for (char& c : words) {
    if (c == ' ') c = '\0';
  }
  return words + '\0';
}
std::string Words(std::string text) {
  if (!text.empty()) text.pop_back();
  for (char& c : text) {
    if (c == '\0') c = ' ';
  }
  return text;
}

struct Row {
  const char* offer;
  const char* answer;
};

// Takes what every first answer ends with.
constexpr const char* kOurs = "MaxRecvDataSegmentLength=262144";

TEST(iscsi_negotiation, EveryKeyIsAnsweredAsItsKindWants) {
  for (const Row& row : {
           // Lists: the first of the offer that is known.
           Row{"HeaderDigest=CRC32C,None", "HeaderDigest=CRC32C"},
           {"HeaderDigest=None,CRC32C", "HeaderDigest=None"},
           {"HeaderDigest=X-other,CRC32C", "HeaderDigest=CRC32C"},
           {"HeaderDigest=X-other", "HeaderDigest=Reject"},
           {"HeaderDigest=", "HeaderDigest=Reject"},
           {"HeaderDigest=crc32c", "HeaderDigest=Reject"},
           {"HeaderDigest=,,None", "HeaderDigest=None"},
           {"DataDigest=CRC32C", "DataDigest=CRC32C"},
           {"TaskReporting=FastAbort,RFC3720", "TaskReporting=RFC3720"},
           {"TaskReporting=FastAbort", "TaskReporting=Reject"},
           // Booleans: ImmediateData by AND, the others by OR.
           {"ImmediateData=Yes", "ImmediateData=Yes"},
           {"ImmediateData=No", "ImmediateData=No"},
           {"ImmediateData=yes", "ImmediateData=Reject"},
           {"InitialR2T=No", "InitialR2T=No"},
           {"InitialR2T=Yes", "InitialR2T=Yes"},
           {"DataPDUInOrder=No", "DataPDUInOrder=Yes"},
           {"DataPDUInOrder=Yes", "DataPDUInOrder=Yes"},
           {"DataSequenceInOrder=No", "DataSequenceInOrder=Yes"},
           // Numbers: the lower one, or the higher.
           {"MaxConnections=8", "MaxConnections=1"},
           {"MaxConnections=0", "MaxConnections=Reject"},
           {"MaxConnections=65536", "MaxConnections=Reject"},
           {"MaxBurstLength=262144", "MaxBurstLength=262144"},
           {"MaxBurstLength=0x40000", "MaxBurstLength=262144"},
           {"MaxBurstLength=16776192", "MaxBurstLength=8388608"},
           {"MaxBurstLength=511", "MaxBurstLength=Reject"},
           {"MaxBurstLength=16777216", "MaxBurstLength=Reject"},
           {"MaxBurstLength=lots", "MaxBurstLength=Reject"},
           {"FirstBurstLength=262144", "FirstBurstLength=65536"},
           {"FirstBurstLength=4096", "FirstBurstLength=4096"},
           {"FirstBurstLength=65536 MaxBurstLength=8192",
            "MaxBurstLength=8192 "
            "FirstBurstLength=8192"},
           {"MaxOutstandingR2T=16", "MaxOutstandingR2T=4"},
           {"MaxOutstandingR2T=1", "MaxOutstandingR2T=1"},
           {"DefaultTime2Wait=0", "DefaultTime2Wait=2"},
           {"DefaultTime2Wait=60", "DefaultTime2Wait=60"},
           {"DefaultTime2Wait=3601", "DefaultTime2Wait=Reject"},
           {"DefaultTime2Retain=20", "DefaultTime2Retain=0"},
           {"ErrorRecoveryLevel=2", "ErrorRecoveryLevel=0"},
           {"ErrorRecoveryLevel=3", "ErrorRecoveryLevel=Reject"},
           {"iSCSIProtocolLevel=2", "iSCSIProtocolLevel=1"},
           {"iSCSIProtocolLevel=0", "iSCSIProtocolLevel=0"},
           // Declared: no answer, but to what makes no sense.
           {"MaxRecvDataSegmentLength=65536", ""},
           {"MaxRecvDataSegmentLength=511", "MaxRecvDataSegmentLength=Reject"},
           // Not to be negotiated here.
           {"IFMarker=No", "IFMarker=Reject"},
           {"OFMarkInt=1~65535", "OFMarkInt=Reject"},
           {"AuthMethod=None", "AuthMethod=Reject"},
           {"SendTargets=All", "SendTargets=Reject"},
           {"TargetAlias=x", "TargetAlias=Reject"},
           {"X-org.example.colour=red", "X-org.example.colour=NotUnderstood"},
           {"Colour=red", "Colour=NotUnderstood"},
           // Answers are not answered.
           {"Colour=NotUnderstood MaxBurstLength=Reject", ""},
       }) {
    Negotiation negotiation;
    std::string reply;
    const std::string text = Of(row.offer);
    EXPECT(negotiation.Answer(*ParseText(text), NegotiationScope::kOperational, &reply));
    const std::string expected = *row.answer == 0 ? kOurs : std::string(row.answer) + " " + kOurs;
    if (Words(reply) != expected) {
      test::Fail(__FILE__, __LINE__,
                 std::string(row.offer) + " was answered " + Words(reply) + ", not " + expected);
    }
  }
}

Parameters After(const std::string& offer, bool discovery = false, std::string* reply = nullptr) {
  Negotiation negotiation(discovery);
  std::string own;
  const std::string text = Of(offer);
  CHECK(negotiation.Answer(*ParseText(text), NegotiationScope::kOperational,
                           reply != nullptr ? reply : &own));
  return negotiation.parameters();
}

TEST(iscsi_negotiation, WhatWasAgreedOnHolds) {
  const Parameters defaults;
  EXPECT(defaults.initial_r2t && defaults.immediate_data && !defaults.digests.header);
  EXPECT_EQ(defaults.send_segment_bytes_max, 8192u);
  const Parameters some = After(
      "InitialR2T=No ImmediateData=No HeaderDigest=CRC32C MaxRecvDataSegmentLength=4096 "
      "MaxBurstLength=32768 FirstBurstLength=16384 MaxOutstandingR2T=2 DefaultTime2Wait=5");
  EXPECT(!some.initial_r2t && !some.immediate_data && some.digests.header && !some.digests.data);
  EXPECT_EQ(some.send_segment_bytes_max, 4096u);
  EXPECT_EQ(some.receive_segment_bytes_max, kReceiveSegmentBytesMax);
  EXPECT_EQ(some.burst_bytes_max, 32768u);
  EXPECT_EQ(some.first_burst_bytes_max, 16384u);
  EXPECT_EQ(some.outstanding_r2t_max, 2u);
  EXPECT_EQ(some.time_to_wait_s, 5u);
  // Nothing said, or rejected: the defaults.
  const Parameters none = After("MaxBurstLength=1 InitialR2T=maybe");
  EXPECT_EQ(none.burst_bytes_max, 262144u);
  EXPECT(none.initial_r2t);
  // A first burst is never longer than a burst, whoever named which.
  EXPECT_EQ(After("MaxBurstLength=1024").first_burst_bytes_max, 1024u);
}

TEST(iscsi_negotiation, DiscoveryHasNoDataToSpeakOf) {
  std::string reply;
  After("MaxConnections=1 InitialR2T=No MaxBurstLength=512 HeaderDigest=None ErrorRecoveryLevel=0",
        true, &reply);
  EXPECT_EQ(Words(reply),
            "MaxConnections=Irrelevant InitialR2T=Irrelevant MaxBurstLength=Irrelevant "
            "HeaderDigest=None ErrorRecoveryLevel=0 MaxRecvDataSegmentLength=262144");
}

TEST(iscsi_negotiation, TwiceIsAnError) {
  Negotiation negotiation;
  std::string reply;
  EXPECT(negotiation.Answer({{"MaxBurstLength", "512"}}, NegotiationScope::kOperational, &reply));
  EXPECT(negotiation.Answer({{"ImmediateData", "No"}}, NegotiationScope::kOperational, &reply));
  EXPECT_EQ(Words(reply), "MaxBurstLength=512 MaxRecvDataSegmentLength=262144 ImmediateData=No");
  EXPECT(!negotiation.Answer({{"MaxBurstLength", "512"}}, NegotiationScope::kOperational, &reply));
}

TEST(iscsi_negotiation, AfterTheLoginOnlyDeclarationsChange) {
  Negotiation negotiation;
  std::string reply;
  EXPECT(negotiation.Answer(
      {{"MaxRecvDataSegmentLength", "1024"}, {"MaxBurstLength", "512"}, {"X-a", "b"}},
      NegotiationScope::kFullFeature, &reply));
  EXPECT_EQ(Words(reply), "MaxBurstLength=Reject X-a=NotUnderstood");
  EXPECT_EQ(negotiation.parameters().send_segment_bytes_max, 1024u);
  EXPECT_EQ(negotiation.parameters().burst_bytes_max, 262144u);
}

// --- text after the login
// --------------------------------------------------------------------------

class List final : public TargetList {
 public:
  size_t count() const override { return names.size(); }
  const std::string& target(size_t index) const override { return names[index]; }
  bool HasTarget(const std::string& name) const override {
    return std::find(names.begin(), names.end(), name) != names.end();
  }
  const std::string& portal() const override { return address; }
  std::vector<std::string> names = {"iqn.t:a", "iqn.t:b"};
  std::string address = "10.0.0.1:3260,1";
};

struct Exchange {
  List list;
  TextExchange text;
  Negotiation negotiation;
  TextReply reply;
  // The answer's text; "refused".
  std::string Ask(const std::string& offer, std::string_view own = "",
                  uint32_t transfer_tag = kNoTag, uint8_t flags = kFlagFinal) {
    TextRequest request;
    request.flags = flags;
    request.task_tag = 5;
    request.transfer_tag = transfer_tag;
    if (!text.Take(request, Of(offer), list, own, &negotiation, &reply)) return "refused";
    CHECK(reply.header.task_tag == 5);
    const bool final = (reply.header.flags & kFlagFinal) != 0;
    CHECK(final == (reply.header.transfer_tag == kNoTag));
    return Words(reply.text);
  }
};

TEST(iscsi_text_exchange, SendTargets) {
  Exchange x;
  const std::string a = "TargetName=iqn.t:a TargetAddress=10.0.0.1:3260,1";
  const std::string b = "TargetName=iqn.t:b TargetAddress=10.0.0.1:3260,1";
  EXPECT_EQ(x.Ask("SendTargets=All"), a + " " + b);
  EXPECT_EQ(x.Ask("SendTargets=iqn.t:b"), b);
  EXPECT_EQ(x.Ask("SendTargets=IQN.T:b"), b);
  EXPECT_EQ(x.Ask("SendTargets=iqn.t:c"), "");
  EXPECT_EQ(x.Ask("SendTargets="), "SendTargets=Reject");
  EXPECT_EQ(x.Ask("SendTargets=nonsense"), "SendTargets=Reject");
  // In a normal session: its own target only.
  EXPECT_EQ(x.Ask("SendTargets=", "iqn.t:a"), a);
  EXPECT_EQ(x.Ask("SendTargets=iqn.t:a", "iqn.t:a"), a);
  EXPECT_EQ(x.Ask("SendTargets=iqn.t:b", "iqn.t:a"), "");
  EXPECT_EQ(x.Ask("SendTargets=All", "iqn.t:a"), "SendTargets=Reject");
  x.list.address = "";
  EXPECT_EQ(x.Ask("SendTargets=iqn.t:a"), "TargetName=iqn.t:a");
  x.list.names.clear();
  EXPECT_EQ(x.Ask("SendTargets=All"), "");
}

TEST(iscsi_text_exchange, LongAnswersComeInParts) {
  Exchange x;
  x.list.names.clear();
  for (int i = 0; i < 1000; ++i) x.list.names.push_back("iqn.t:volume-" + std::to_string(i));
  std::string all;
  (void)x.Ask("SendTargets=All");
  int parts = 1;
  while ((x.reply.header.flags & kFlagContinue) != 0) {
    all += x.reply.text;
    EXPECT_EQ(x.reply.text.size(), 8192u);
    EXPECT(x.Ask("", "", x.reply.header.transfer_tag) != "refused");
    ++parts;
    ASSERT(parts < 100);
  }
  all += x.reply.text;
  EXPECT_EQ(ParseText(all.substr(0, 63)).has_value(), false);
  size_t names = 0;
  for (size_t at = 0; (at = all.find("TargetName=", at)) != std::string::npos; ++at) ++names;
  EXPECT_EQ(names, 1000u);
  EXPECT(all.ends_with(Of("TargetName=iqn.t:volume-999 TargetAddress=10.0.0.1:3260,1")));
  // The list shrinks in the middle of an answer.
  (void)x.Ask("SendTargets=All");
  const uint32_t tag = x.reply.header.transfer_tag;
  x.list.names.clear();
  (void)x.Ask("", "", tag);
  EXPECT((x.reply.header.flags & kFlagFinal) != 0);
}

TEST(iscsi_text_exchange, RequestsInPartsAndWrongOnes) {
  Exchange x;
  EXPECT_EQ(x.Ask("", "", 77), "refused");
  // «SendTargets=All» in two PDUs.
  TextRequest request;
  request.flags = kFlagContinue;
  request.task_tag = 1;
  request.transfer_tag = kNoTag;
  EXPECT(x.text.Take(request, "SendTar", x.list, "", &x.negotiation, &x.reply));
  EXPECT(x.reply.text.empty() && (x.reply.header.flags & kFlagFinal) == 0);
  const uint32_t tag = x.reply.header.transfer_tag;
  EXPECT_EQ(x.Ask("gets=iqn.t:a", "", tag), "TargetName=iqn.t:a TargetAddress=10.0.0.1:3260,1");
  EXPECT_EQ(x.Ask("more=1", "", tag), "refused");
  // Too long.
  request.transfer_tag = kNoTag;
  const std::string part(8192, 'a');
  EXPECT(x.text.Take(request, part, x.list, "", &x.negotiation, &x.reply));
  request.transfer_tag = x.reply.header.transfer_tag;
  EXPECT(x.text.Take(request, part, x.list, "", &x.negotiation, &x.reply));
  request.transfer_tag = x.reply.header.transfer_tag;
  EXPECT(!x.text.Take(request, "b", x.list, "", &x.negotiation, &x.reply));
  // Not the last word of the initiator's, so not of ours.
  EXPECT_EQ(x.Ask("X-a=b", "", kNoTag, 0), "X-a=NotUnderstood");
  EXPECT((x.reply.header.flags & kFlagFinal) == 0);
  EXPECT_EQ(x.Ask("", "", x.reply.header.transfer_tag), "");
  EXPECT((x.reply.header.flags & kFlagFinal) != 0);
}

}  // namespace
}  // namespace ankole::iscsi
