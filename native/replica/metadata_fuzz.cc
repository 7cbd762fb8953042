#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "replica/longhorn.h"
#include "replica/metadata.h"
#include "replica/sum_file.h"

using namespace ankole;
using namespace ankole::replica;

// A slot of the header of checksums: with the right checksum, which chance never hits, and without.
void TrySumHeader(const uint8_t* data, size_t size) {
  constexpr uint64_t kRegions = 1000;
  std::array<std::byte, kSumSlotBytes> slot = {};
  std::memcpy(slot.data(), data, std::min(size, slot.size()));
  CHECK(!SumHeader::Decode(slot, kRegions).ok() || size >= 64);
  const SumHeader empty;
  std::array<std::byte, kSumSlotBytes> good;
  empty.Encode(good);
  std::memcpy(slot.data(), good.data(), 8);  // the magic
  StoreLittle(slot.data() + 12, uint32_t{0});
  StoreLittle(slot.data() + 12, Crc32c(slot.data(), slot.size()));
  const Result<SumHeader> header = SumHeader::Decode(slot, kRegions);
  if (!header.ok()) return;
  header.value().Encode(good);
  const Result<SumHeader> again = SumHeader::Decode(good, kRegions);
  CHECK(again.ok() && again.value().sequence == header.value().sequence &&
        again.value().bad_regions == header.value().bad_regions);
}

// The input is up to eight documents with zero bytes between them: volume.meta, ankole.json, and
// the rest the .meta of layers, each with its file name in the first line. What is accepted must
// survive being written and read again. It is tried as a header of checksums, too.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) TrySumHeader(data, size);
  std::vector<std::string_view> documents;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  while (documents.size() < 8) {
    const size_t end = rest.find('\0');
    documents.push_back(rest.substr(0, end));
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  if (documents.size() > 1) {
    if (const Result<Identity> identity = Identity::Parse(documents[1]); identity.ok()) {
      const Result<Identity> again = Identity::Parse(identity.value().Write());
      CHECK(again.ok() && again.value().Write() == identity.value().Write());
    }
  }
  std::vector<LayerMeta> layers;
  for (size_t i = 2; i < documents.size(); ++i) {
    const size_t line = documents[i].find('\n');
    if (line == std::string_view::npos) continue;
    const std::string_view name = documents[i].substr(0, line);
    const std::string mapped = MapLayerName(std::string(name));
    CHECK(mapped == name || (IsSnapshotName(mapped) && MapLayerName(mapped) == mapped));
    Result<LayerMeta> layer = LayerMeta::Parse(name, documents[i].substr(line + 1));
    if (!layer.ok()) continue;
    CHECK(layer.value().name.find('/') == std::string::npos);
    CHECK(layer.value().parent.find('/') == std::string::npos);
    const Result<LayerMeta> again = LayerMeta::Parse(name, layer.value().Write());
    CHECK(again.ok() && again.value().Write() == layer.value().Write());
    layers.push_back(layer.Take());
  }
  const Result<VolumeMeta> volume = VolumeMeta::Parse(documents[0]);
  if (!volume.ok()) return 0;
  const Result<VolumeMeta> again = VolumeMeta::Parse(volume.value().Write());
  CHECK(again.ok() && again.value().Write() == volume.value().Write());
  if (const auto chain = ResolveChain(volume.value(), layers); chain.ok()) {
    CHECK(chain.value().size() <= layers.size());
    CHECK(chain.value().front().name == volume.value().head);
    CHECK(chain.value().back().parent.empty());
  }
  return 0;
}
