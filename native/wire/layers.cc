#include "wire/layers.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/json.h"

namespace ankole::wire {
namespace {

// Offsets within an entry of LAYERS.
constexpr size_t kLayerParentAt = kLayerNameBytes;
constexpr size_t kLayerCreatedAt = 2 * kLayerNameBytes;
constexpr size_t kLayerAllocatedAt = kLayerCreatedAt + 8;
constexpr size_t kLayerSizeAt = kLayerAllocatedAt + 8;
constexpr size_t kLayerFlagsAt = kLayerSizeAt + 8;  // u32, then u32 zero
static_assert(kLayerFlagsAt + 8 == kLayerEntryBytes);
constexpr uint32_t kRemoved = 1;
constexpr uint32_t kUserCreated = 2;
constexpr uint32_t kSealed = 4;

// Offsets within PREPARE.
constexpr size_t kRevertAt = 0;
constexpr size_t kPrepareFlagsAt = 4;
constexpr size_t kPrepareSecondsAt = 8;
constexpr size_t kPrepareNameAt = 16;
static_assert(kPrepareNameAt + kLayerNameBytes == kPrepareHeadBytes);

// Offsets within CHANGED.
constexpr size_t kChangedFirstAt = 2 * kLayerNameBytes;  // u32, then u32 zero

std::span<const std::byte, kLayerNameBytes> NameAt(std::span<const std::byte> from, size_t at) {
  return from.subspan(at).first<kLayerNameBytes>();
}

// Two names, of which the first one may be left out, or the second.
struct TwoNames {
  std::string_view first;
  std::string_view second;
};
Result<TwoNames> DecodeTwoNames(std::span<const std::byte> from, const char* what) {
  Result<std::string_view> first = DecodeLayerName(NameAt(from, 0));
  if (!first.ok()) return first.status().Within(what);
  Result<std::string_view> second = DecodeLayerName(NameAt(from, kLayerNameBytes));
  if (!second.ok()) return second.status().Within(what);
  return TwoNames{first.value(), second.value()};
}

}  // namespace

// --- names
// --------------------------------------------------------------------------------------------

bool IsLayerName(std::string_view name) {
  if (name.empty() || name.size() > kSnapshotNameBytesMax || name.front() == '.') return false;
  char before = 0;
  for (const char c : name) {
    const bool letter_or_digit =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter_or_digit && c != '.' && c != '_' && c != '-') return false;
    if (c == '.' && before == '.') return false;
    before = c;
  }
  return true;
}

void EncodeLayerName(std::string_view name, std::byte* to) {
  CHECK(name.empty() || IsLayerName(name));
  std::memset(to, 0, kLayerNameBytes);
  if (!name.empty()) std::memcpy(to, name.data(), name.size());
}

Result<std::string_view> DecodeLayerName(std::span<const std::byte, kLayerNameBytes> from) {
  const auto end = std::find(from.begin(), from.end(), std::byte{0});
  const std::string_view name(reinterpret_cast<const char*>(from.data()),
                              static_cast<size_t>(end - from.begin()));
  if (std::any_of(end, from.end(), [](std::byte byte) { return byte != std::byte{0}; })) {
    return Malformed("the layer's name goes on after its end");
  }
  if (!name.empty() && !IsLayerName(name)) return Malformed("the layer's name is none");
  return name;
}

Result<std::string_view> DecodeOneLayer(std::span<const std::byte> from) {
  if (from.size() != kLayerNameBytes) return Malformed("the layer's name has the wrong length");
  Result<std::string_view> name = DecodeLayerName(NameAt(from, 0));
  if (name.ok() && name.value().empty()) return Malformed("the layer's name is missing");
  return name;
}

// --- LAYERS
// --------------------------------------------------------------------------------------------

std::array<std::byte, kLayersRequestBytes> EncodeLayersRequest(uint32_t first) {
  std::array<std::byte, kLayersRequestBytes> bytes = {};
  StoreLittle(bytes.data(), first);
  return bytes;
}

Result<uint32_t> DecodeLayersRequest(std::span<const std::byte> from) {
  if (from.size() != kLayersRequestBytes) return Malformed("LAYERS has the wrong length");
  if (LoadLittle<uint32_t>(from.data() + 4) != 0)
    return Malformed("LAYERS: reserved bytes are not zero");
  return LoadLittle<uint32_t>(from.data());
}

void EncodeLayer(const LayerEntry& entry, std::byte* to) {
  EncodeLayerName(entry.name, to);
  EncodeLayerName(entry.parent, to + kLayerParentAt);
  StoreLittle(to + kLayerCreatedAt, entry.created_seconds);
  StoreLittle(to + kLayerAllocatedAt, entry.allocated_bytes);
  StoreLittle(to + kLayerSizeAt, entry.size_bytes);
  StoreLittle(to + kLayerFlagsAt, (entry.removed ? kRemoved : 0U) |
                                      (entry.user_created ? kUserCreated : 0U) |
                                      (entry.sealed ? kSealed : 0U));
  StoreLittle(to + kLayerFlagsAt + 4, uint32_t{0});
}

Result<LayerEntry> DecodeLayer(std::span<const std::byte, kLayerEntryBytes> from) {
  Result<TwoNames> names = DecodeTwoNames(from, "an entry of LAYERS");
  if (!names.ok()) return names.status();
  const std::byte* in = from.data();
  LayerEntry entry;
  entry.name = names.value().first;
  entry.parent = names.value().second;
  if (!entry.name.empty() && entry.name == entry.parent) {
    return Malformed("an entry of LAYERS: the layer lies on itself");
  }
  entry.created_seconds = LoadLittle<uint64_t>(in + kLayerCreatedAt);
  entry.allocated_bytes = LoadLittle<uint64_t>(in + kLayerAllocatedAt);
  entry.size_bytes = LoadLittle<uint64_t>(in + kLayerSizeAt);
  const auto flags = LoadLittle<uint32_t>(in + kLayerFlagsAt);
  if ((flags & ~(kRemoved | kUserCreated | kSealed)) != 0) {
    return Malformed("an entry of LAYERS: a flag that there is not");
  }
  if (LoadLittle<uint32_t>(in + kLayerFlagsAt + 4) != 0) {
    return Malformed("an entry of LAYERS: reserved bytes are not zero");
  }
  entry.removed = (flags & kRemoved) != 0;
  entry.user_created = (flags & kUserCreated) != 0;
  entry.sealed = (flags & kSealed) != 0;
  if (entry.name.empty() && (entry.removed || entry.sealed)) {
    return Malformed("an entry of LAYERS: the head is removed or sealed");
  }
  return entry;
}

Result<std::vector<LayerEntry>> DecodeLayers(std::span<const std::byte> from) {
  if (from.size() % kLayerEntryBytes != 0 || from.size() / kLayerEntryBytes > kLayerEntriesMax) {
    return Malformed("LAYERS' answer has the wrong length");
  }
  std::vector<LayerEntry> entries;
  entries.reserve(from.size() / kLayerEntryBytes);
  for (size_t at = 0; at < from.size(); at += kLayerEntryBytes) {
    if (!entries.empty() && entries.back().name.empty()) {
      return Malformed("LAYERS' answer goes on after the head");
    }
    Result<LayerEntry> entry = DecodeLayer(from.subspan(at).first<kLayerEntryBytes>());
    if (!entry.ok()) return entry.status();
    entries.push_back(entry.Take());
  }
  return entries;
}

// --- PREPARE
// --------------------------------------------------------------------------------------------

size_t EncodePrepare(const PrepareRequest& request, std::byte* to) {
  CHECK(!request.name.empty() && request.labels.size() <= kLabelsBytesMax);
  const bool revert = !request.base.empty();
  CHECK(!revert || request.labels.empty());
  StoreLittle(to + kRevertAt, revert ? uint32_t{1} : uint32_t{0});
  StoreLittle(to + kPrepareFlagsAt, request.user_created ? uint32_t{1} : uint32_t{0});
  StoreLittle(to + kPrepareSecondsAt, request.created_seconds);
  EncodeLayerName(request.name, to + kPrepareNameAt);
  if (revert) {
    EncodeLayerName(request.base, to + kPrepareHeadBytes);
    return kPrepareRevertBytes;
  }
  if (!request.labels.empty()) {
    std::memcpy(to + kPrepareHeadBytes, request.labels.data(), request.labels.size());
  }
  return kPrepareHeadBytes + request.labels.size();
}

Result<PrepareRequest> DecodePrepare(std::span<const std::byte> from) {
  if (from.size() < kPrepareHeadBytes) return Malformed("PREPARE is cut short");
  if (from.size() > kPrepareBytesMax) return Malformed("PREPARE: the labels are too long");
  const auto revert = LoadLittle<uint32_t>(from.data() + kRevertAt);
  const auto flags = LoadLittle<uint32_t>(from.data() + kPrepareFlagsAt);
  if (revert > 1) return Malformed("PREPARE wants what is not known");
  if (flags > 1) return Malformed("PREPARE: a flag that there is not");
  PrepareRequest request;
  request.user_created = flags == 1;
  request.created_seconds = LoadLittle<uint64_t>(from.data() + kPrepareSecondsAt);
  Result<std::string_view> name = DecodeOneLayer(from.subspan<kPrepareNameAt, kLayerNameBytes>());
  if (!name.ok()) return name.status().Within("PREPARE");
  request.name = name.value();
  if (revert == 1) {
    if (from.size() != kPrepareRevertBytes) return Malformed("PREPARE has the wrong length");
    Result<std::string_view> base = DecodeOneLayer(from.subspan(kPrepareHeadBytes));
    if (!base.ok()) return base.status().Within("PREPARE");
    request.base = base.value();
    return request;
  }
  request.labels = {reinterpret_cast<const char*>(from.data()) + kPrepareHeadBytes,
                    from.size() - kPrepareHeadBytes};
  if (!request.labels.empty()) {
    const Result<Json> labels = Json::Parse(request.labels);
    if (!labels.ok() || !labels.value().is_object()) {
      return Malformed("PREPARE: the labels are no JSON object");
    }
  }
  return request;
}

// --- VIEW, CHANGED
// --------------------------------------------------------------------------------------------

std::array<std::byte, kViewRequestBytes> EncodeViewRequest(const ViewRequest& request) {
  CHECK(!request.layer.empty());
  std::array<std::byte, kViewRequestBytes> bytes;
  EncodeLayerName(request.layer, bytes.data());
  EncodeLayerName(request.base, bytes.data() + kLayerNameBytes);
  return bytes;
}

Result<ViewRequest> DecodeViewRequest(std::span<const std::byte> from) {
  if (from.size() != kViewRequestBytes) return Malformed("VIEW has the wrong length");
  Result<TwoNames> names = DecodeTwoNames(from, "VIEW");
  if (!names.ok()) return names.status();
  if (names.value().first.empty()) return Malformed("VIEW: the layer's name is missing");
  return ViewRequest{names.value().first, names.value().second};
}

std::array<std::byte, kViewIdBytes> EncodeViewId(uint16_t id) {
  CHECK(id != 0);
  std::array<std::byte, kViewIdBytes> bytes = {};
  StoreLittle(bytes.data(), uint32_t{id});
  return bytes;
}

Result<uint16_t> DecodeViewId(std::span<const std::byte> from) {
  if (from.size() != kViewIdBytes) return Malformed("a view's number has the wrong length");
  const auto id = LoadLittle<uint32_t>(from.data());
  if (id == 0 || id > UINT16_MAX) return Malformed("a view's number is out of bounds");
  if (LoadLittle<uint32_t>(from.data() + 4) != 0) {
    return Malformed("a view's number: reserved bytes are not zero");
  }
  return static_cast<uint16_t>(id);
}

size_t EncodeViewAnswer(const ViewAnswer& answer, std::byte* to) {
  CHECK(answer.labels.size() <= kLabelsBytesMax);
  const auto id = EncodeViewId(answer.id);
  std::copy(id.begin(), id.end(), to);
  std::memmove(to + kViewIdBytes, answer.labels.data(), answer.labels.size());
  return kViewIdBytes + answer.labels.size();
}

Result<ViewAnswer> DecodeViewAnswer(std::span<const std::byte> from) {
  if (from.size() < kViewIdBytes || from.size() > kViewAnswerBytesMax) {
    return Malformed("VIEW is answered with the wrong length");
  }
  const Result<uint16_t> id = DecodeViewId(from.first(kViewIdBytes));
  if (!id.ok()) return id.status();
  return ViewAnswer{
      id.value(),
      {reinterpret_cast<const char*>(from.data()) + kViewIdBytes, from.size() - kViewIdBytes}};
}

std::array<std::byte, kChangedRequestBytes> EncodeChangedRequest(const ChangedRequest& request) {
  std::array<std::byte, kChangedRequestBytes> bytes = {};
  EncodeLayerName(request.base, bytes.data());
  EncodeLayerName(request.layer, bytes.data() + kLayerNameBytes);
  StoreLittle(bytes.data() + kChangedFirstAt, request.first);
  return bytes;
}

Result<ChangedRequest> DecodeChangedRequest(std::span<const std::byte> from) {
  if (from.size() != kChangedRequestBytes) return Malformed("CHANGED has the wrong length");
  Result<TwoNames> names = DecodeTwoNames(from, "CHANGED");
  if (!names.ok()) return names.status();
  ChangedRequest request;
  request.base = names.value().first;
  request.layer = names.value().second;
  request.first = LoadLittle<uint32_t>(from.data() + kChangedFirstAt);
  if (request.first > kRegionsMax) return Malformed("CHANGED: the region is out of bounds");
  if (LoadLittle<uint32_t>(from.data() + kChangedFirstAt + 4) != 0) {
    return Malformed("CHANGED: reserved bytes are not zero");
  }
  return request;
}

}  // namespace ankole::wire
