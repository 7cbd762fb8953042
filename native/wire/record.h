#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string>

#include "base/limits.h"
#include "base/result.h"

// The membership record of DESIGN.md section 4, kept by every replica and by the store.
// Format: docs/internals/wire-protocol.md, «Record».
namespace ankole::wire {

// What a peer sent and cannot be: kProtocolError.
Status Malformed(const std::string& cause);

// {attachment, run}: grows each time a volume is attached (the store gives it) or its engine starts
// (the supervisor gives it). Fences off every earlier engine.
struct Epoch {
  uint64_t attachment = 0;
  uint64_t run = 0;
  auto operator<=>(const Epoch&) const = default;
};

// 16 lower hex digits in names and JSON; 0 is none.
using ReplicaId = uint64_t;
std::string ReplicaIdText(ReplicaId id);
Result<ReplicaId> ParseReplicaId(const std::string& text);

// Set of replicas, in ascending order.
struct Members {
  std::array<ReplicaId, kReplicasMax> ids = {};
  uint8_t count = 0;

  bool Contains(ReplicaId id) const;
  void Add(ReplicaId id);     // CHECKs that there is room; no effect when it is in
  void Remove(ReplicaId id);  // no effect when it is not in
  // Not of a temporary: a loop over it would outlive it.
  std::span<const ReplicaId> all() const& { return {ids.data(), count}; }
  std::span<const ReplicaId> all() const&& = delete;
  bool operator==(const Members&) const = default;
};

// Longest layer name that a record can carry; Longhorn's snapshot names are DNS labels or UUIDs.
inline constexpr size_t kSnapshotNameBytesMax = 63;

struct Record {
  Epoch epoch;
  uint64_t generation = 0;  // 0: no record
  Members members;
  std::string newest_snapshot;  // name of the newest snapshot layer, empty: none

  bool exists() const { return generation > 0; }
  bool operator==(const Record&) const = default;
};

// A record is ordered by epoch, then generation.
bool Newer(const Record& a, const Record& b);

// A record and the last complete one that it follows (rule 2).
struct RecordPair {
  Record current;
  Record complete;
  bool operator==(const RecordPair&) const = default;
};

// Fixed size, little-endian, without checksum: the carrier (frame, slot) has one.
inline constexpr size_t kEncodedRecordBytes = 160;
inline constexpr size_t kEncodedRecordPairBytes = 2 * kEncodedRecordBytes;
void EncodeRecord(const Record& record, std::span<std::byte, kEncodedRecordBytes> to);
// kCorrupt (naming the field) when the bytes are no record: too many members, unordered or zero
// ids, a name too long or not printable.
Result<Record> DecodeRecord(std::span<const std::byte, kEncodedRecordBytes> from);
void EncodeRecordPair(const RecordPair& pair, std::span<std::byte, kEncodedRecordPairBytes> to);
Result<RecordPair> DecodeRecordPair(std::span<const std::byte, kEncodedRecordPairBytes> from);

// For logs: «epoch 3.1 generation 4 members [a, b]».
std::string Describe(const Record& record);

}  // namespace ankole::wire
