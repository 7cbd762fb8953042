#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "replica/metadata.h"

using namespace ankole;
using namespace ankole::replica;

// The input is up to eight documents with zero bytes between them: volume.meta, ankole.json, and
// the rest the .meta of layers, each with its file name in the first line. What is accepted must
// survive being written and read again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
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
