#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/block_device.h"
#include "base/result.h"
#include "base/sha256.h"
#include "wire/record.h"

// Payloads of the control frames: docs/internals/wire-protocol.md, «Handshake» and after it.
namespace ankole::wire {

using Nonce = std::array<uint8_t, 32>;

// HELLO: who the engine is and whom it wants.
struct Hello {
  uint16_t version_min = 1;
  uint16_t version_max = 1;
  uint32_t features = 0;  // none yet; unknown bits are ignored by the replica
  ReplicaId replica = 0;
  Epoch epoch;
  Nonce nonce = {};
  std::string volume;
};
inline constexpr size_t kHelloBytes = 128;

// The answer: the replica's nonce, and its proof that it knows the volume's secret.
struct Challenge {
  uint16_t version = 1;
  uint32_t features = 0;  // those of both
  Nonce nonce = {};
  Sha256Digest proof = {};
};
inline constexpr size_t kChallengeBytes = 72;
inline constexpr size_t kAuthBytes = 32;

// The answer to INQUIRE and WELCOME.
struct ReplicaState {
  RecordPair records;
  Epoch welcomed;
  uint64_t size_bytes = 0;
  bool unclean = false;  // was not closed clean, or has a dirty region
  bool suspect = false;  // what it holds may not be what was acknowledged (rule 7)
  // Suspect for something that happened since it wrote its record; without it the record's members
  // took it as it is.
  bool lost = false;
  bool recent_known = false;  // RECENT can tell what the engine before had not completed
  bool fresh = false;         // has no record and was never written
  bool unsealed = false;      // the layer under its head is not sealed (rule 8)
};
inline constexpr size_t kReplicaStateBytes = 352;

// EXPAND: u64, the size of the volume in bytes.
inline constexpr size_t kExpandBytes = 8;
using ExpandBytes = std::array<std::byte, kExpandBytes>;
ExpandBytes EncodeExpand(uint64_t size_bytes);
Result<uint64_t> DecodeExpand(std::span<const std::byte> from);

// One run of STATUS: u64 length, u32 flags (1 hole, 2 zero), u32 zero.
inline constexpr size_t kEncodedExtentBytes = 16;
inline constexpr uint32_t kStatusExtentsMax = kControlPayloadBytesMax / kEncodedExtentBytes;

using HelloBytes = std::array<std::byte, kHelloBytes>;
using ChallengeBytes = std::array<std::byte, kChallengeBytes>;

HelloBytes EncodeHello(const Hello& hello);
Result<Hello> DecodeHello(std::span<const std::byte> from);
ChallengeBytes EncodeChallenge(const Challenge& challenge);
Result<Challenge> DecodeChallenge(std::span<const std::byte> from);
std::array<std::byte, kReplicaStateBytes> EncodeReplicaState(const ReplicaState& state);
Result<ReplicaState> DecodeReplicaState(std::span<const std::byte> from);
void EncodeExtent(const BlockExtent& extent, std::byte* to);
// kProtocolError when they are none, or do not lie within `length_bytes`.
Result<std::vector<BlockExtent>> DecodeExtents(std::span<const std::byte> from,
                                               uint64_t length_bytes);
// The same without memory of its own: keeps the first `extents_max`, and returns how many these
// are.
Result<uint32_t> DecodeExtents(std::span<const std::byte> from, uint64_t length_bytes,
                               BlockExtent* extents, uint32_t extents_max);

// HMAC-SHA-256 by the volume's secret over a label, HELLO and the challenge less its proof; so that
// neither side's proof can be played back as the other's, or for another replica, epoch or feature.
Sha256Digest ReplicaProof(const Secret& secret, const HelloBytes& hello,
                          const ChallengeBytes& challenge);
Sha256Digest EngineProof(const Secret& secret, const HelloBytes& hello,
                         const ChallengeBytes& challenge);

// A volume's name: a DNS label (RFC 1123), as in Kubernetes.
bool IsVolumeName(const std::string& name);

}  // namespace ankole::wire
