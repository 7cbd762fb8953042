#include "wire/hello.h"

#include <cstring>

#include "base/bytes.h"
#include "base/test.h"

namespace ankole::wire {
namespace {

Hello AHello() {
  Hello hello;
  hello.replica = 0xabcdef;
  hello.epoch = {7, 3};
  for (size_t i = 0; i < hello.nonce.size(); ++i) hello.nonce[i] = static_cast<uint8_t>(i);
  hello.volume = "demo";
  return hello;
}

TEST(wire_hello, HelloRoundTrips) {
  const HelloBytes bytes = EncodeHello(AHello());
  const Result<Hello> again = DecodeHello(bytes);
  ASSERT_OK(again);
  EXPECT_EQ(again.value().volume, "demo");
  EXPECT_EQ(again.value().replica, 0xabcdefU);
  EXPECT(again.value().epoch == (Epoch{7, 3}));
  EXPECT(again.value().nonce == AHello().nonce);
  Hello longest = AHello();
  longest.volume = std::string(kVolumeNameBytesMax, 'a');
  EXPECT(DecodeHello(EncodeHello(longest)).value().volume == longest.volume);
}

TEST(wire_hello, RefusesWhatIsNone) {
  const HelloBytes good = EncodeHello(AHello());
  EXPECT(!DecodeHello({good.data(), kHelloBytes - 1}).ok());
  EXPECT(!DecodeHello({}).ok());
  const auto with = [&](size_t at, uint8_t value) {
    HelloBytes bytes = good;
    bytes[at] = std::byte{value};
    return DecodeHello(bytes).ok();
  };
  EXPECT(!with(64, 0));   // no name
  EXPECT(!with(64, 64));  // beyond the frame
  EXPECT(!with(64, 255));
  EXPECT(!with(65, '/'));
  EXPECT(!with(65, '-'));
  EXPECT(!with(66, 0));
  EXPECT(!with(66, 'E'));
  EXPECT(with(66, 'x'));
}

TEST(wire_hello, ProofsBindEverythingAndTheirDirection) {
  Secret secret = {};
  secret[0] = 1;
  const HelloBytes hello = EncodeHello(AHello());
  Challenge challenge;
  challenge.nonce.fill(9);
  const ChallengeBytes bytes = EncodeChallenge(challenge);
  const Sha256Digest engine = EngineProof(secret, hello, bytes);
  EXPECT(engine != ReplicaProof(secret, hello, bytes));
  for (size_t at = 0; at < kHelloBytes; ++at) {
    HelloBytes other = hello;
    other[at] ^= std::byte{1};
    EXPECT(EngineProof(secret, other, bytes) != engine);
  }
  for (size_t at = 0; at < 40; ++at) {
    ChallengeBytes other = bytes;
    other[at] ^= std::byte{1};
    EXPECT(EngineProof(secret, hello, other) != engine);
  }
  // The replica's proof within the challenge is not part of what is proved.
  challenge.proof.fill(1);
  EXPECT(EngineProof(secret, hello, EncodeChallenge(challenge)) == engine);
  secret[31] ^= 1;
  EXPECT(EngineProof(secret, hello, bytes) != engine);
}

// The numbers of docs/internals/wire-protocol.md, «Handshake»: HMACs by another implementation
// (python3's hmac and hashlib).
TEST(wire_hello, ProofsAreTheDocumentedOnes) {
  Secret secret;
  for (size_t i = 0; i < secret.size(); ++i) secret[i] = static_cast<uint8_t>(i);
  const HelloBytes hello = EncodeHello(AHello());
  Challenge challenge;
  challenge.nonce.fill(9);
  const ChallengeBytes bytes = EncodeChallenge(challenge);
  EXPECT_EQ(SecretText(ReplicaProof(secret, hello, bytes)),
            "a0c8098798e1466f9a29d9c05f64b58555f1d5994bc2bdc686112dfc34df587c");
  EXPECT_EQ(SecretText(EngineProof(secret, hello, bytes)),
            "a1457e7c0cad5392c2b73f4ee7f17261bb643c773a3a70d4b3587a493bfd9681");
}

TEST(wire_hello, ChallengeAndStateRoundTrip) {
  Challenge challenge;
  challenge.features = 5;
  challenge.nonce.fill(3);
  challenge.proof.fill(4);
  const Result<Challenge> again = DecodeChallenge(EncodeChallenge(challenge));
  ASSERT_OK(again);
  EXPECT(again.value().nonce == challenge.nonce && again.value().proof == challenge.proof);
  EXPECT_EQ(again.value().features, 5U);
  EXPECT(!DecodeChallenge({}).ok());

  ReplicaState state;
  state.records.current.epoch = {4, 2};
  state.records.current.generation = 8;
  state.records.current.members.Add(3);
  state.welcomed = {5, 1};
  state.size_bytes = kGiB;
  for (int flags = 0; flags < 64; ++flags) {
    state.unclean = (flags & 1) != 0;
    state.suspect = (flags & 2) != 0;
    state.recent_known = (flags & 4) != 0;
    state.fresh = (flags & 8) != 0;
    state.lost = (flags & 16) != 0;
    state.unsealed = (flags & 32) != 0;
    const Result<ReplicaState> decoded = DecodeReplicaState(EncodeReplicaState(state));
    ASSERT_OK(decoded);
    EXPECT(decoded.value().records == state.records);
    EXPECT(decoded.value().welcomed == state.welcomed);
    EXPECT_EQ(decoded.value().size_bytes, kGiB);
    EXPECT(decoded.value().unclean == state.unclean && decoded.value().suspect == state.suspect);
    EXPECT_EQ(decoded.value().recent_known, state.recent_known);
    EXPECT_EQ(decoded.value().fresh, state.fresh);
    EXPECT_EQ(decoded.value().lost, state.lost);
    EXPECT_EQ(decoded.value().unsealed, state.unsealed);
  }
  auto bytes = EncodeReplicaState(state);
  bytes[24] = std::byte{99};  // that many members
  EXPECT(DecodeReplicaState(bytes).status().code() == ErrorCode::kProtocolError);
}

TEST(wire_hello, ExtentsLieWithinTheirRange) {
  std::vector<std::byte> bytes(2 * kEncodedExtentBytes);
  EncodeExtent({.length_bytes = 4096, .hole = true, .zero = true}, bytes.data());
  EncodeExtent({.length_bytes = 8192}, bytes.data() + kEncodedExtentBytes);
  const auto extents = DecodeExtents(bytes, 12'288);
  ASSERT_OK(extents);
  ASSERT(extents.value().size() == 2);
  EXPECT(extents.value()[0].hole && extents.value()[0].zero);
  EXPECT(!extents.value()[1].hole && !extents.value()[1].zero);
  EXPECT(!DecodeExtents(bytes, 12'287).ok());
  EXPECT(!DecodeExtents({}, 4096).ok());
  EXPECT(!DecodeExtents({bytes.data(), 17}, 12'288).ok());
  StoreLittle(bytes.data() + kEncodedExtentBytes, UINT64_MAX - 4095);  // the sum would wrap
  EXPECT(!DecodeExtents(bytes, 12'288).ok());
  StoreLittle(bytes.data(), uint64_t{0});
  EXPECT(!DecodeExtents(bytes, 12'288).ok());
}

TEST(wire_hello, VolumeNamesAreDnsLabels) {
  for (const char* name : {"a", "demo", "pvc-0123", "0"}) EXPECT(IsVolumeName(name));
  for (const char* name : {"", "-a", "a-", "A", "a.b", "a/b", "a b", "é"}) {
    EXPECT(!IsVolumeName(name));
  }
  EXPECT(IsVolumeName(std::string(63, 'a')) && !IsVolumeName(std::string(64, 'a')));
}

}  // namespace
}  // namespace ankole::wire
