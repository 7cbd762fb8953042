#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "wire/connection.h"
#include "wire/hello.h"
#include "wire/layers.h"
#include "wire/regions.h"
#include "wire/scripted_reactor.h"

using namespace ankole;
using namespace ankole::wire;

// The input is how the stream is cut and taken (4 bytes), then the stream of one peer. It goes
// through the real Connection, and what that accepts through the decoders of the payloads.
namespace {

// Puts right what chance never hits: magic, version and checksums, frame by frame, as far as the
// headers are good otherwise. What the last frame lacks of its payload is zeros.
void Repair(std::vector<std::byte>* stream) {
  size_t at = 0;
  while (stream->size() - at >= kHeaderBytes) {
    std::byte* head = stream->data() + at;
    StoreLittle(head + kMagicAt, kMagic);
    StoreLittle(head + kVersionAt, kVersion);
    StoreLittle(head + kHeaderCrcAt, Crc32c(head, kHeaderCrcAt));
    const std::span<const std::byte, kHeaderBytes> bytes(head, kHeaderBytes);
    // The same bytes as an entry of a ring in shared memory: what is taken there can be sent again.
    if (const Result<Header> entry = DecodeSharedHeader(bytes); entry.ok()) {
      std::byte again[kHeaderBytes];
      EncodeHeader(entry.value(), again);
      CHECK(DecodeSharedHeader(again).ok());
    }
    Result<Header> header = DecodeHeader(bytes);
    if (!header.ok()) return;
    const size_t end = at + kHeaderBytes + header.value().payload_bytes;
    if (stream->size() < end) stream->resize(end);
    head = stream->data() + at;
    const uint32_t covered =
        header.value().carries_data() ? header.value().table_bytes() : header.value().payload_bytes;
    StoreLittle(head + kPayloadCrcAt, Crc32c(head + kHeaderBytes, covered));
    StoreLittle(head + kHeaderCrcAt, Crc32c(head, kHeaderCrcAt));
    at = end;
  }
}

class Taker final : public Connection::Handler {
 public:
  explicit Taker(uint8_t patience) : patience_(patience) {}

  bool OnFrame(const Header& header, const std::byte* payload, std::byte* data) override {
    if (Refuses()) return false;
    // A header that was accepted encodes to one that is accepted.
    EncodedHeader encoded;
    EncodeHeader(header, encoded);
    CHECK(DecodeHeader(encoded).ok());
    CHECK(header.payload_bytes <= kPayloadBytesMax);
    if (header.carries_data()) {
      CHECK(header.payload_bytes == header.table_bytes() + header.length_bytes);
      sum_ += DataMatches(header, payload, data) ? 1 : 0;
    } else {
      Decode(header, {payload, header.payload_bytes});
    }
    ++frames;
    return true;
  }
  std::byte* LargeData(const Header& header) override {
    CHECK(header.length_bytes > Connection::kInPlaceBytesMax &&
          header.length_bytes <= kDataBytesMax);
    static std::vector<std::byte> large(kDataBytesMax);
    return Refuses() ? nullptr : large.data();
  }
  void OnClosed(const Status& why) override {
    CHECK(!why.ok() && !closed);
    closed = true;
  }

  size_t frames = 0;
  bool closed = false;

 private:
  bool Refuses() { return patience_ != 0 && ++asked_ % (patience_ + 1) == 0; }

  void Decode(const Header& header, std::span<const std::byte> payload) {
    if (const Result<Hello> hello = DecodeHello(payload); hello.ok()) {
      CHECK(IsVolumeName(hello.value().volume));
      CHECK(DecodeHello(EncodeHello(hello.value())).ok());
    }
    if (const Result<Challenge> challenge = DecodeChallenge(payload); challenge.ok()) {
      CHECK(DecodeChallenge(EncodeChallenge(challenge.value())).ok());
    }
    if (const Result<ReplicaState> state = DecodeReplicaState(payload); state.ok()) {
      CHECK(DecodeReplicaState(EncodeReplicaState(state.value())).ok());
    }
    if (const Result<uint64_t> size = DecodeExpand(payload); size.ok()) {
      CHECK(std::memcmp(EncodeExpand(size.value()).data(), payload.data(), kExpandBytes) == 0);
    }
    if (payload.size() == kEncodedRecordPairBytes) {
      const Result<RecordPair> pair = DecodeRecordPair(payload.first<kEncodedRecordPairBytes>());
      if (pair.ok()) {
        std::array<std::byte, kEncodedRecordPairBytes> again;
        EncodeRecordPair(pair.value(), again);
        CHECK(DecodeRecordPair(again).value() == pair.value());
        sum_ += Describe(pair.value().current).size();
      }
    }
    const Result<std::vector<BlockExtent>> extents = DecodeExtents(payload, header.length_bytes);
    if (extents.ok()) {
      uint64_t total = 0;
      for (const BlockExtent& extent : extents.value()) total += extent.length_bytes;
      CHECK(total <= header.length_bytes);
    }
    DecodeRegions(header, payload);
    DecodeAboutLayers(payload);
  }

  // Nothing in these is ignored: what is taken encodes to the same bytes.
  void DecodeAboutLayers(std::span<const std::byte> payload) {
    std::array<std::byte, kControlPayloadBytesMax> again;
    const auto same = [&](const auto& bytes) {
      CHECK(bytes.size() == payload.size() &&
            std::memcmp(bytes.data(), payload.data(), payload.size()) == 0);
    };
    if (const auto name = DecodeOneLayer(payload); name.ok()) {
      CHECK(IsLayerName(name.value()));
      EncodeLayerName(name.value(), again.data());
      same(std::span(again.data(), kLayerNameBytes));
    }
    if (const auto entries = DecodeLayers(payload); entries.ok()) {
      std::byte* to = again.data();
      for (const LayerEntry& entry : entries.value()) {
        EncodeLayer(entry, to);
        to += kLayerEntryBytes;
      }
      if (!payload.empty()) same(std::span(again.data(), to));
    }
    if (const auto prepare = DecodePrepare(payload); prepare.ok()) {
      CHECK(IsLayerName(prepare.value().name));
      same(std::span(again.data(), EncodePrepare(prepare.value(), again.data())));
    }
    if (const auto first = DecodeLayersRequest(payload); first.ok()) {
      same(EncodeLayersRequest(first.value()));
    }
    if (const auto view = DecodeViewRequest(payload); view.ok()) {
      same(EncodeViewRequest(view.value()));
    }
    if (const auto id = DecodeViewId(payload); id.ok()) same(EncodeViewId(id.value()));
    if (const auto answer = DecodeViewAnswer(payload); answer.ok()) {
      same(std::span(again.data(), EncodeViewAnswer(answer.value(), again.data())));
    }
    if (const auto changed = DecodeChangedRequest(payload); changed.ok()) {
      same(EncodeChangedRequest(changed.value()));
    }
  }

  // What is taken encodes to the same bytes, reserved ones aside.
  void DecodeRegions(const Header& header, std::span<const std::byte> payload) {
    std::array<std::byte, kControlPayloadBytesMax> again;
    if (const Result<RegionRuns> runs = RegionRuns::Decode(payload); runs.ok()) {
      const std::vector<RegionRun> all = runs.value().ToVector();
      CHECK(EncodeRegionRuns(all, again.data()) == payload.size());
      CHECK(payload.empty() || std::memcmp(again.data(), payload.data(), payload.size()) == 0);
      CHECK(runs.value().end() <= kRegionsMax);
    }
    if (const Result<RegionMaps> maps = DecodeRegionMaps(payload); maps.ok()) {
      CHECK(EncodeRegionMaps(maps.value(), again.data()) == payload.size());
      CHECK(DecodeRegionMaps({again.data(), payload.size()}).ok());
    }
    if (const Result<MapRequest> request = DecodeMapRequest(payload); request.ok()) {
      CHECK(DecodeMapRequest(EncodeMapRequest(request.value())).value() == request.value());
    }
    if (const Result<DecodedMissing> missing = DecodeMissing(payload); missing.ok()) {
      const std::vector<RegionRun> runs = missing.value().runs.ToVector();
      CHECK(EncodeMissing(missing.value().request, runs, again.data()) == payload.size());
      CHECK(DecodeMissing({again.data(), payload.size()}).ok());
    }
    if (const Result<CleanRequest> clean = DecodeClean(payload); clean.ok()) {
      CHECK(EncodeClean(clean.value(), again.data()) == payload.size());
      CHECK(std::memcmp(again.data(), payload.data(), payload.size()) == 0);
    }
    if (const Result<Recent> recent = DecodeRecent(payload); recent.ok()) {
      const std::vector<RegionRun> runs = recent.value().runs.ToVector();
      CHECK(EncodeRecent(recent.value().known, runs, again.data()) == payload.size());
    }
    if (header.length_bytes <= kDataBytesMax) {
      const Result<Sums> sums = Sums::Decode(payload, header.length_bytes);
      if (!sums.ok()) return;
      SumsEncoder encoder(again.data(), sums.value().blocks());
      for (uint32_t i = 0; i < sums.value().blocks(); ++i) {
        encoder.Set(i, sums.value().crc32c(i), sums.value().hole(i), sums.value().bad(i));
      }
      CHECK(std::memcmp(again.data(), payload.data(), size_t{4} * sums.value().blocks()) == 0);
    }
  }

  const uint8_t patience_;
  uint32_t asked_ = 0;
  size_t sum_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4) return 0;
  const bool repair = (data[0] & 1) != 0;
  const size_t piece_bytes = data[1] == 0 ? SIZE_MAX : size_t{1} << (data[1] % 20);
  const uint8_t patience = data[2] % 8;
  std::vector<std::byte> stream(size - 4);
  if (size > 4) std::memcpy(stream.data(), data + 4, size - 4);
  if (repair) Repair(&stream);

  ScriptedReactor reactor;
  Taker taker(patience);
  Connection connection(reactor, taker);
  connection.Start(io::Socket{0});
  std::span<const std::byte> incoming = stream;
  // Small pieces of a long stream take too long.
  size_t cuts = 4096;
  while (connection.open()) {
    const size_t before = taker.frames;
    const bool delivered = reactor.Deliver(&incoming, cuts > 0 ? piece_bytes : SIZE_MAX);
    if (cuts > 0) --cuts;
    reactor.Turn();
    if (delivered) continue;
    if (!reactor.receiving()) {
      connection.Resume();
      continue;
    }
    CHECK(taker.frames == before);
    reactor.Hangup();
    reactor.Turn();
  }
  reactor.Turn();
  CHECK(taker.closed);
  return 0;
}
