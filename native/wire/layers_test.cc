#include "wire/layers.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/test.h"

namespace ankole::wire {
namespace {

using Payload = std::array<std::byte, kControlPayloadBytesMax>;

template <typename T>
std::string MessageOf(const Result<T>& result) {
  EXPECT(result.ok() || result.status().code() == ErrorCode::kProtocolError);
  return result.ok() ? "" : result.status().message();
}

LayerEntry AnEntry(const std::string& name, const std::string& parent) {
  LayerEntry entry;
  entry.name = name;
  entry.parent = parent;
  entry.created_seconds = 0x1122334455667788;
  entry.allocated_bytes = 3 * kMiB;
  entry.size_bytes = kGiB;
  return entry;
}

TEST(wire_layers, NamesAreThoseOfFilesInOneDirectory) {
  for (const std::string good : {"a", "0", "-", "_x", "a.b", "daily-2026.11.26_03", "A-Z.z"}) {
    EXPECT(IsLayerName(good));
  }
  EXPECT(IsLayerName(std::string(63, 'a')) && !IsLayerName(std::string(64, 'a')));
  for (const std::string bad :
       {"", ".", "..", ".a", "a..b", "a/b", "a b", "a\n", "\xc3\xa4", "a%"}) {
    EXPECT(!IsLayerName(bad));
  }
  // A dot at the end is one of a name: what is put behind it begins with another one, which is
  // within the name of a file.
  EXPECT(IsLayerName("a."));
}

TEST(wire_layers, ANameIsFilledUpWithZeros) {
  std::array<std::byte, kLayerNameBytes> bytes;
  bytes.fill(std::byte{0xee});
  EncodeLayerName("monday", bytes.data());
  EXPECT_EQ(std::memcmp(bytes.data(), "monday\0\0", 8), 0);
  EXPECT_EQ(DecodeLayerName(bytes).value(), "monday");
  EXPECT_EQ(DecodeOneLayer(bytes).value(), "monday");
  EXPECT_EQ(MessageOf(DecodeOneLayer({bytes.data(), 63})), "the layer's name has the wrong length");
  bytes[63] = std::byte{'x'};
  EXPECT_EQ(MessageOf(DecodeLayerName(bytes)), "the layer's name goes on after its end");
  bytes[63] = std::byte{0};
  bytes[2] = std::byte{'/'};
  EXPECT_EQ(MessageOf(DecodeLayerName(bytes)), "the layer's name is none");
  bytes.fill(std::byte{'a'});  // no zero at the end
  EXPECT_EQ(MessageOf(DecodeLayerName(bytes)), "the layer's name is none");
  EncodeLayerName("", bytes.data());
  EXPECT(DecodeLayerName(bytes).ok() && DecodeLayerName(bytes).value().empty());
  EXPECT_EQ(MessageOf(DecodeOneLayer(bytes)), "the layer's name is missing");
}

TEST(wire_layers, EntriesRoundTripAndAreChecked) {
  for (int flags = 0; flags < 8; ++flags) {
    LayerEntry entry = AnEntry("tuesday", flags == 0 ? "" : "monday");
    entry.removed = (flags & 1) != 0;
    entry.user_created = (flags & 2) != 0;
    entry.sealed = (flags & 4) != 0;
    std::array<std::byte, kLayerEntryBytes> bytes;
    EncodeLayer(entry, bytes.data());
    EXPECT_EQ(LoadLittle<uint32_t>(bytes.data() + 152), static_cast<uint32_t>(flags));
    const Result<LayerEntry> again = DecodeLayer(bytes);
    ASSERT_OK(again);
    EXPECT(again.value() == entry);
  }
  std::array<std::byte, kLayerEntryBytes> bytes;
  EncodeLayer(AnEntry("tuesday", "monday"), bytes.data());
  EXPECT_EQ(LoadLittle<uint64_t>(bytes.data() + 128), 0x1122334455667788U);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes.data() + 136), 3 * kMiB);
  EXPECT_EQ(LoadLittle<uint64_t>(bytes.data() + 144), kGiB);
  const auto with = [&](size_t at, uint8_t value) {
    auto other = bytes;
    other[at] = std::byte{value};
    return MessageOf(DecodeLayer(other));
  };
  EXPECT_EQ(with(152, 8), "an entry of LAYERS: a flag that there is not");
  EXPECT_EQ(with(155, 1), "an entry of LAYERS: a flag that there is not");
  EXPECT_EQ(with(156, 1), "an entry of LAYERS: reserved bytes are not zero");
  EXPECT_EQ(with(0, '/'), "an entry of LAYERS: the layer's name is none");
  EXPECT_EQ(with(64, '/'), "an entry of LAYERS: the layer's name is none");
  EXPECT_EQ(with(127, 'x'), "an entry of LAYERS: the layer's name goes on after its end");
  EncodeLayer(AnEntry("monday", "monday"), bytes.data());
  EXPECT_EQ(MessageOf(DecodeLayer(bytes)), "an entry of LAYERS: the layer lies on itself");
  EncodeLayer(AnEntry("", "monday"), bytes.data());
  EXPECT(DecodeLayer(bytes).ok());
  EXPECT_EQ(with(152, 1), "an entry of LAYERS: the head is removed or sealed");
  EXPECT_EQ(with(152, 4), "an entry of LAYERS: the head is removed or sealed");
}

TEST(wire_layers, AnAnswerHasTheHeadLastAndIsBounded) {
  std::vector<std::byte> bytes((kLayerEntriesMax + 1) * kLayerEntryBytes);
  std::vector<LayerEntry> entries;
  for (size_t i = 0; i <= kLayerEntriesMax; ++i) {
    entries.push_back(AnEntry("s" + std::to_string(i), i == 0 ? "" : "s" + std::to_string(i - 1)));
    EncodeLayer(entries.back(), bytes.data() + i * kLayerEntryBytes);
  }
  entries.pop_back();
  const size_t most = kLayerEntriesMax * kLayerEntryBytes;
  EXPECT(most <= kControlPayloadBytesMax);
  const auto again = DecodeLayers({bytes.data(), most});
  ASSERT_OK(again);
  EXPECT(again.value() == entries);
  EXPECT(DecodeLayers({}).ok() && DecodeLayers({}).value().empty());
  EXPECT_EQ(MessageOf(DecodeLayers({bytes.data(), most + kLayerEntryBytes})),
            "LAYERS' answer has the wrong length");
  EXPECT_EQ(MessageOf(DecodeLayers({bytes.data(), most - 1})),
            "LAYERS' answer has the wrong length");
  EncodeLayer(AnEntry("", "s1"), bytes.data() + 2 * kLayerEntryBytes);
  EXPECT(DecodeLayers({bytes.data(), 3 * kLayerEntryBytes}).ok());
  EXPECT_EQ(MessageOf(DecodeLayers({bytes.data(), 4 * kLayerEntryBytes})),
            "LAYERS' answer goes on after the head");

  EXPECT_EQ(DecodeLayersRequest(EncodeLayersRequest(51)).value(), 51U);
  auto request = EncodeLayersRequest(51);
  EXPECT(!DecodeLayersRequest({request.data(), 7}).ok());
  request[4] = std::byte{1};
  EXPECT_EQ(MessageOf(DecodeLayersRequest(request)), "LAYERS: reserved bytes are not zero");
}

TEST(wire_layers, PrepareRoundTripsAndIsChecked) {
  PrepareRequest request;
  request.name = "before-upgrade";
  request.user_created = true;
  request.created_seconds = 1'780'000'000;
  std::string labels = R"({"why":")";
  labels += std::string(kLabelsBytesMax - labels.size() - 2, 'x') + R"("})";
  request.labels = labels;
  Payload bytes;
  const size_t size = EncodePrepare(request, bytes.data());
  EXPECT_EQ(size, kPrepareBytesMax);
  const Result<PrepareRequest> again = DecodePrepare({bytes.data(), size});
  ASSERT_OK(again);
  EXPECT_EQ(again.value().name, "before-upgrade");
  EXPECT(again.value().labels == labels);
  EXPECT(again.value().user_created && again.value().base.empty());
  EXPECT_EQ(again.value().created_seconds, 1'780'000'000U);

  EXPECT_EQ(MessageOf(DecodePrepare({bytes.data(), size + 1})), "PREPARE: the labels are too long");
  EXPECT_EQ(MessageOf(DecodePrepare({bytes.data(), size - 1})),
            "PREPARE: the labels are no JSON object");
  EXPECT_EQ(MessageOf(DecodePrepare({bytes.data(), 79})), "PREPARE is cut short");
  const auto with = [&](size_t at, uint8_t value) {
    Payload other = bytes;
    other[at] = std::byte{value};
    return MessageOf(DecodePrepare({other.data(), kPrepareHeadBytes}));
  };
  EXPECT_EQ(with(0, 1), "PREPARE has the wrong length");
  EXPECT_EQ(with(0, 2), "PREPARE wants what is not known");
  EXPECT_EQ(with(4, 0), "");
  EXPECT_EQ(with(4, 2), "PREPARE: a flag that there is not");
  EXPECT_EQ(with(16, '.'), "PREPARE: the layer's name is none");
  EXPECT_EQ(with(79, 'x'), "PREPARE: the layer's name goes on after its end");
  std::memset(bytes.data() + 16, 0, kLayerNameBytes);
  EXPECT_EQ(MessageOf(DecodePrepare({bytes.data(), kPrepareHeadBytes})),
            "PREPARE: the layer's name is missing");
  request.user_created = false;
  for (const std::string other : {"[]", "{", "{}{}", "1"}) {
    request.labels = other;
    EXPECT_EQ(MessageOf(DecodePrepare({bytes.data(), EncodePrepare(request, bytes.data())})),
              "PREPARE: the labels are no JSON object");
  }
  request.labels = "{}";
  const auto freeze = DecodePrepare({bytes.data(), EncodePrepare(request, bytes.data())});
  ASSERT_OK(freeze);
  EXPECT(freeze.value().base.empty() && !freeze.value().user_created);
}

TEST(wire_layers, PrepareOfARevertNamesWhatTheHeadIsToStandOn) {
  PrepareRequest request;
  request.name = "revert-1";
  request.base = "monday";
  request.created_seconds = 7;
  Payload bytes;
  const size_t size = EncodePrepare(request, bytes.data());
  EXPECT_EQ(size, kPrepareRevertBytes);
  const Result<PrepareRequest> again = DecodePrepare({bytes.data(), size});
  ASSERT_OK(again);
  EXPECT_EQ(again.value().name, "revert-1");
  EXPECT_EQ(again.value().base, "monday");
  EXPECT(again.value().labels.empty() && again.value().created_seconds == 7);
  EXPECT_EQ(MessageOf(DecodePrepare({bytes.data(), size - 1})), "PREPARE has the wrong length");
  EXPECT_EQ(MessageOf(DecodePrepare({bytes.data(), size + 1})), "PREPARE has the wrong length");
  std::memset(bytes.data() + kPrepareHeadBytes, 0, kLayerNameBytes);
  EXPECT_EQ(MessageOf(DecodePrepare({bytes.data(), size})), "PREPARE: the layer's name is missing");
}

TEST(wire_layers, ViewsHaveALayerAndANumberThatIsNotZero) {
  auto bytes = EncodeViewRequest({"tuesday", "monday"});
  EXPECT_EQ(DecodeViewRequest(bytes).value().layer, "tuesday");
  EXPECT_EQ(DecodeViewRequest(bytes).value().base, "monday");
  EXPECT_EQ(MessageOf(DecodeViewRequest({bytes.data(), 127})), "VIEW has the wrong length");
  bytes[64] = std::byte{'.'};
  EXPECT_EQ(MessageOf(DecodeViewRequest(bytes)), "VIEW: the layer's name is none");
  bytes = EncodeViewRequest({"tuesday", ""});
  EXPECT(DecodeViewRequest(bytes).ok() && DecodeViewRequest(bytes).value().base.empty());
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  EXPECT_EQ(MessageOf(DecodeViewRequest(bytes)), "VIEW: the layer's name is missing");

  EXPECT_EQ(DecodeViewId(EncodeViewId(1)).value(), 1U);
  EXPECT_EQ(DecodeViewId(EncodeViewId(UINT16_MAX)).value(), UINT16_MAX);
  auto id = EncodeViewId(UINT16_MAX);
  EXPECT_EQ(MessageOf(DecodeViewId({id.data(), 4})), "a view's number has the wrong length");
  id[4] = std::byte{1};
  EXPECT_EQ(MessageOf(DecodeViewId(id)), "a view's number: reserved bytes are not zero");
  id[4] = std::byte{0};
  id[2] = std::byte{1};  // 65536 more
  EXPECT_EQ(MessageOf(DecodeViewId(id)), "a view's number is out of bounds");
  std::fill(id.begin(), id.end(), std::byte{0});
  EXPECT_EQ(MessageOf(DecodeViewId(id)), "a view's number is out of bounds");
}

TEST(wire_layers, ChangedRoundTripsAndIsChecked) {
  auto bytes = EncodeChangedRequest({"monday", "tuesday", 77});
  const Result<ChangedRequest> again = DecodeChangedRequest(bytes);
  ASSERT_OK(again);
  EXPECT_EQ(again.value().base, "monday");
  EXPECT_EQ(again.value().layer, "tuesday");
  EXPECT_EQ(again.value().first, 77U);
  EXPECT(DecodeChangedRequest(EncodeChangedRequest({"", "", kRegionsMax})).ok());
  EXPECT_EQ(MessageOf(DecodeChangedRequest(EncodeChangedRequest({"", "", kRegionsMax + 1}))),
            "CHANGED: the region is out of bounds");
  EXPECT_EQ(MessageOf(DecodeChangedRequest({bytes.data(), 135})), "CHANGED has the wrong length");
  bytes[132] = std::byte{1};
  EXPECT_EQ(MessageOf(DecodeChangedRequest(bytes)), "CHANGED: reserved bytes are not zero");
  bytes[0] = std::byte{'.'};
  EXPECT_EQ(MessageOf(DecodeChangedRequest(bytes)), "CHANGED: the layer's name is none");
}

}  // namespace
}  // namespace ankole::wire
