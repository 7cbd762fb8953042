#include "wire/hello.h"

#include <cstring>

#include "base/bytes.h"

namespace ankole::wire {
namespace {

// Offsets within HELLO.
constexpr size_t kVersionMinAt = 0;
constexpr size_t kVersionMaxAt = 2;
constexpr size_t kFeaturesAt = 4;
constexpr size_t kReplicaAt = 8;
constexpr size_t kHelloAttachmentAt = 16;
constexpr size_t kHelloRunAt = 24;
constexpr size_t kNonceAt = 32;
constexpr size_t kHelloNameLengthAt = 64;  // u8
constexpr size_t kHelloNameAt = 65;
static_assert(kHelloNameAt + kVolumeNameBytesMax == kHelloBytes);

// Offsets within the challenge.
constexpr size_t kChallengeVersionAt = 0;  // u16, then u16 zero
constexpr size_t kChallengeFeaturesAt = 4;
constexpr size_t kChallengeNonceAt = 8;
constexpr size_t kProofAt = 40;
static_assert(kProofAt + 32 == kChallengeBytes);

// Offsets within the state.
constexpr size_t kWelcomedAt = kEncodedRecordPairBytes;
constexpr size_t kSizeAt = kWelcomedAt + 16;
constexpr size_t kStateFlagsAt = kSizeAt + 8;  // u32, then u32 zero
static_assert(kStateFlagsAt + 8 == kReplicaStateBytes);
constexpr uint32_t kUnclean = 1;
constexpr uint32_t kSuspectFlag = 2;
constexpr uint32_t kRecentKnown = 4;
constexpr uint32_t kFresh = 8;
constexpr uint32_t kLost = 16;
constexpr uint32_t kUnsealed = 32;

constexpr uint32_t kHole = 1;
constexpr uint32_t kZero = 2;

Sha256Digest Proof(const char* label, const Secret& secret, const HelloBytes& hello,
                   const ChallengeBytes& challenge) {
  const size_t label_bytes = std::strlen(label);
  std::vector<uint8_t> message(label_bytes + kHelloBytes + kProofAt);
  std::memcpy(message.data(), label, label_bytes);
  std::memcpy(message.data() + label_bytes, hello.data(), kHelloBytes);
  std::memcpy(message.data() + label_bytes + kHelloBytes, challenge.data(), kProofAt);
  return HmacSha256(secret, message);
}

}  // namespace

bool IsVolumeName(const std::string& name) {
  if (name.empty() || name.size() > kVolumeNameBytesMax) return false;
  for (const char c : name) {
    const bool letter_or_digit = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (!letter_or_digit && c != '-') return false;
  }
  return name.front() != '-' && name.back() != '-';
}

HelloBytes EncodeHello(const Hello& hello) {
  CHECK(hello.volume.size() <= kVolumeNameBytesMax);
  HelloBytes bytes = {};
  std::byte* out = bytes.data();
  StoreLittle(out + kVersionMinAt, hello.version_min);
  StoreLittle(out + kVersionMaxAt, hello.version_max);
  StoreLittle(out + kFeaturesAt, hello.features);
  StoreLittle(out + kReplicaAt, hello.replica);
  StoreLittle(out + kHelloAttachmentAt, hello.epoch.attachment);
  StoreLittle(out + kHelloRunAt, hello.epoch.run);
  std::memcpy(out + kNonceAt, hello.nonce.data(), hello.nonce.size());
  StoreLittle(out + kHelloNameLengthAt, static_cast<uint8_t>(hello.volume.size()));
  std::memcpy(out + kHelloNameAt, hello.volume.data(), hello.volume.size());
  return bytes;
}

Result<Hello> DecodeHello(std::span<const std::byte> from) {
  if (from.size() != kHelloBytes) return Malformed("HELLO has the wrong length");
  const std::byte* in = from.data();
  Hello hello;
  hello.version_min = LoadLittle<uint16_t>(in + kVersionMinAt);
  hello.version_max = LoadLittle<uint16_t>(in + kVersionMaxAt);
  hello.features = LoadLittle<uint32_t>(in + kFeaturesAt);
  hello.replica = LoadLittle<uint64_t>(in + kReplicaAt);
  hello.epoch.attachment = LoadLittle<uint64_t>(in + kHelloAttachmentAt);
  hello.epoch.run = LoadLittle<uint64_t>(in + kHelloRunAt);
  std::memcpy(hello.nonce.data(), in + kNonceAt, hello.nonce.size());
  const auto length = LoadLittle<uint8_t>(in + kHelloNameLengthAt);
  if (length > kVolumeNameBytesMax) return Malformed("HELLO: the volume's name is too long");
  hello.volume.assign(reinterpret_cast<const char*>(in + kHelloNameAt), length);
  if (!IsVolumeName(hello.volume)) return Malformed("HELLO: the volume's name is none");
  return hello;
}

ChallengeBytes EncodeChallenge(const Challenge& challenge) {
  ChallengeBytes bytes = {};
  std::byte* out = bytes.data();
  StoreLittle(out + kChallengeVersionAt, challenge.version);
  StoreLittle(out + kChallengeFeaturesAt, challenge.features);
  std::memcpy(out + kChallengeNonceAt, challenge.nonce.data(), challenge.nonce.size());
  std::memcpy(out + kProofAt, challenge.proof.data(), challenge.proof.size());
  return bytes;
}

Result<Challenge> DecodeChallenge(std::span<const std::byte> from) {
  if (from.size() != kChallengeBytes) return Malformed("the challenge has the wrong length");
  const std::byte* in = from.data();
  Challenge challenge;
  challenge.version = LoadLittle<uint16_t>(in + kChallengeVersionAt);
  challenge.features = LoadLittle<uint32_t>(in + kChallengeFeaturesAt);
  std::memcpy(challenge.nonce.data(), in + kChallengeNonceAt, challenge.nonce.size());
  std::memcpy(challenge.proof.data(), in + kProofAt, challenge.proof.size());
  return challenge;
}

std::array<std::byte, kReplicaStateBytes> EncodeReplicaState(const ReplicaState& state) {
  std::array<std::byte, kReplicaStateBytes> bytes = {};
  std::byte* out = bytes.data();
  EncodeRecordPair(state.records,
                   std::span<std::byte, kEncodedRecordPairBytes>(out, kEncodedRecordPairBytes));
  StoreLittle(out + kWelcomedAt, state.welcomed.attachment);
  StoreLittle(out + kWelcomedAt + 8, state.welcomed.run);
  StoreLittle(out + kSizeAt, state.size_bytes);
  StoreLittle(out + kStateFlagsAt,
              (state.unclean ? kUnclean : 0U) | (state.suspect ? kSuspectFlag : 0U) |
                  (state.recent_known ? kRecentKnown : 0U) | (state.fresh ? kFresh : 0U) |
                  (state.lost ? kLost : 0U) | (state.unsealed ? kUnsealed : 0U));
  return bytes;
}

Result<ReplicaState> DecodeReplicaState(std::span<const std::byte> from) {
  if (from.size() != kReplicaStateBytes)
    return Malformed("the replica's state has the wrong length");
  Result<RecordPair> records = DecodeRecordPair(from.first<kEncodedRecordPairBytes>());
  if (!records.ok()) return Malformed("the replica's record is none");
  const std::byte* in = from.data();
  ReplicaState state;
  state.records = records.Take();
  state.welcomed.attachment = LoadLittle<uint64_t>(in + kWelcomedAt);
  state.welcomed.run = LoadLittle<uint64_t>(in + kWelcomedAt + 8);
  state.size_bytes = LoadLittle<uint64_t>(in + kSizeAt);
  const auto flags = LoadLittle<uint32_t>(in + kStateFlagsAt);
  state.unclean = (flags & kUnclean) != 0;
  state.suspect = (flags & kSuspectFlag) != 0;
  state.recent_known = (flags & kRecentKnown) != 0;
  state.fresh = (flags & kFresh) != 0;
  state.lost = (flags & kLost) != 0;
  state.unsealed = (flags & kUnsealed) != 0;
  return state;
}

ExpandBytes EncodeExpand(uint64_t size_bytes) {
  ExpandBytes bytes;
  StoreLittle(bytes.data(), size_bytes);
  return bytes;
}

Result<uint64_t> DecodeExpand(std::span<const std::byte> from) {
  if (from.size() != kExpandBytes) return Malformed("EXPAND has the wrong length");
  return LoadLittle<uint64_t>(from.data());
}

void EncodeExtent(const BlockExtent& extent, std::byte* to) {
  StoreLittle(to, extent.length_bytes);
  StoreLittle(to + 8, (extent.hole ? kHole : 0U) | (extent.zero ? kZero : 0U));
  StoreLittle(to + 12, uint32_t{0});
}

Result<uint32_t> DecodeExtents(std::span<const std::byte> from, uint64_t length_bytes,
                               BlockExtent* extents, uint32_t extents_max) {
  if (from.empty() || from.size() % kEncodedExtentBytes != 0) {
    return Malformed("the block status has the wrong length");
  }
  uint64_t total = 0;
  uint32_t count = 0;
  for (size_t at = 0; at < from.size(); at += kEncodedExtentBytes) {
    BlockExtent extent;
    extent.length_bytes = LoadLittle<uint64_t>(from.data() + at);
    const auto flags = LoadLittle<uint32_t>(from.data() + at + 8);
    if (extent.length_bytes == 0 || extent.length_bytes > length_bytes - total) {
      return Malformed("the block status goes beyond its range");
    }
    total += extent.length_bytes;
    extent.hole = (flags & kHole) != 0;
    extent.zero = (flags & kZero) != 0;
    if (count < extents_max) extents[count++] = extent;
  }
  return count;
}

Result<std::vector<BlockExtent>> DecodeExtents(std::span<const std::byte> from,
                                               uint64_t length_bytes) {
  std::vector<BlockExtent> extents(from.size() / kEncodedExtentBytes);
  Result<uint32_t> count =
      DecodeExtents(from, length_bytes, extents.data(), static_cast<uint32_t>(extents.size()));
  if (!count.ok()) return count.status();
  return extents;
}

Sha256Digest ReplicaProof(const Secret& secret, const HelloBytes& hello,
                          const ChallengeBytes& challenge) {
  return Proof("ankole-replica-1", secret, hello, challenge);
}

Sha256Digest EngineProof(const Secret& secret, const HelloBytes& hello,
                         const ChallengeBytes& challenge) {
  return Proof("ankole-engine-1", secret, hello, challenge);
}

}  // namespace ankole::wire
