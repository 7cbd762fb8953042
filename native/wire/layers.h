#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/result.h"
#include "wire/record.h"

// Payloads about layers (rule 8): docs/internals/wire-protocol.md, «Layers». Decoders answer
// kProtocolError.
namespace ankole::wire {

// A layer's name without prefix and suffix, as a record has it: at most kSnapshotNameBytesMax
// characters, then zeros. Empty where a request allows it.
inline constexpr size_t kLayerNameBytes = 64;
static_assert(kSnapshotNameBytesMax < kLayerNameBytes);
// 1 to 63 characters of A-Za-z0-9._-, no dot first and no two in a row: files are called so, and
// with prefixes and suffixes of Longhorn's it never leaves its directory.
bool IsLayerName(std::string_view name);
// CHECKs that it is a name, or empty.
void EncodeLayerName(std::string_view name, std::byte* to);
// A view of the payload; empty where that is all zeros.
Result<std::string_view> DecodeLayerName(std::span<const std::byte, kLayerNameBytes> from);
// The payload of SWITCH, SEAL and DELETE: one name, not empty.
Result<std::string_view> DecodeOneLayer(std::span<const std::byte> from);

// One entry of the answer to LAYERS: parents before children, the head last.
struct LayerEntry {
  std::string name;              // empty: the head
  std::string parent;            // empty: it is at the bottom
  uint64_t created_seconds = 0;  // since 1970; 0: not known
  uint64_t allocated_bytes = 0;  // what its file takes up
  uint64_t size_bytes = 0;       // of the volume when it was frozen
  bool removed = false;          // its snapshot was deleted
  bool user_created = false;
  bool sealed = false;  // of the head: false
  bool operator==(const LayerEntry&) const = default;
};
inline constexpr size_t kLayerEntryBytes = 2 * kLayerNameBytes + 32;
inline constexpr size_t kLayersRequestBytes = 8;  // u32 first entry, u32 zero
// In one answer. Fewer: that was all.
inline constexpr size_t kLayerEntriesMax = kControlPayloadBytesMax / kLayerEntryBytes;
std::array<std::byte, kLayersRequestBytes> EncodeLayersRequest(uint32_t first);
Result<uint32_t> DecodeLayersRequest(std::span<const std::byte> from);
void EncodeLayer(const LayerEntry& entry, std::byte* to);
Result<LayerEntry> DecodeLayer(std::span<const std::byte, kLayerEntryBytes> from);
// A whole answer: at most one head, and nothing behind it.
Result<std::vector<LayerEntry>> DecodeLayers(std::span<const std::byte> from);

// PREPARE: u32 0 or 1 (revert), u32 flags (1: user-created), u64 seconds, the name, then the
// labels, or with a revert the name of the layer that the new head is to stand on.
struct PrepareRequest {
  std::string_view name;    // not empty
  std::string_view labels;  // a JSON object, or empty
  std::string_view base;    // of a revert, not empty; else empty
  bool user_created = false;
  uint64_t created_seconds = 0;
};
inline constexpr size_t kPrepareHeadBytes = 16 + kLayerNameBytes;
inline constexpr size_t kPrepareRevertBytes = kPrepareHeadBytes + kLayerNameBytes;
inline constexpr size_t kLabelsBytesMax = 4096;
inline constexpr size_t kPrepareBytesMax = kPrepareHeadBytes + kLabelsBytesMax;
static_assert(kPrepareBytesMax <= kControlPayloadBytesMax);
// `to` has kPrepareBytesMax. Returns the bytes that it wrote.
size_t EncodePrepare(const PrepareRequest& request, std::byte* to);
// Views of the payload.
Result<PrepareRequest> DecodePrepare(std::span<const std::byte> from);

// VIEW: the name, and the base or zeros. CLOSE VIEW: u32 id (not 0; it fits a header's field), u32
// zero; VIEW's answer is the same, and then the layer's labels as PREPARE has them.
struct ViewRequest {
  std::string_view layer;  // not empty
  std::string_view base;
};
inline constexpr size_t kViewRequestBytes = 2 * kLayerNameBytes;
inline constexpr size_t kViewIdBytes = 8;
inline constexpr size_t kViewAnswerBytesMax = kViewIdBytes + kLabelsBytesMax;
static_assert(kViewAnswerBytesMax <= kControlPayloadBytesMax);
std::array<std::byte, kViewRequestBytes> EncodeViewRequest(const ViewRequest& request);
// Views of the payload.
Result<ViewRequest> DecodeViewRequest(std::span<const std::byte> from);
std::array<std::byte, kViewIdBytes> EncodeViewId(uint16_t id);
Result<uint16_t> DecodeViewId(std::span<const std::byte> from);
struct ViewAnswer {
  uint16_t id = 0;
  std::string_view labels;  // a JSON object, or empty
};
// `to` has kViewAnswerBytesMax, and may hold the labels where they go. Returns the bytes that it
// wrote.
size_t EncodeViewAnswer(const ViewAnswer& answer, std::byte* to);
// A view of the payload.
Result<ViewAnswer> DecodeViewAnswer(std::span<const std::byte> from);
// CHANGED: the base or zeros, the name or zeros (the head), u32 first region, u32 zero. The answer
// is region runs; fewer than kRegionRunsMax: that was all.
struct ChangedRequest {
  std::string_view base;
  std::string_view layer;
  uint32_t first = 0;
};
inline constexpr size_t kChangedRequestBytes = 2 * kLayerNameBytes + 8;
std::array<std::byte, kChangedRequestBytes> EncodeChangedRequest(const ChangedRequest& request);
// Views of the payload.
Result<ChangedRequest> DecodeChangedRequest(std::span<const std::byte> from);

}  // namespace ankole::wire
