#include "sim/layer_checks.h"

#include <algorithm>
#include <cstring>

#include "base/crc32c.h"
#include "replica/region_file.h"
#include "replica/sum_file.h"

namespace ankole::sim {
namespace {

constexpr std::string_view kSuffixes[] = {"", replica::kMetaSuffix, replica::kSumSuffix,
                                          replica::kMaskSuffix};
constexpr std::string_view kFiles[] = {replica::kVolumeMetaName, replica::kIdentityName,
                                       replica::kRecordName,     replica::kTargetStateName,
                                       replica::kRegionsName,    replica::kLockName,
                                       replica::kFailedName};

}  // namespace

void LayerChecks::Finding(size_t replica, const std::string& what) {
  cluster_.world.Finding(cluster_.replica_machine(replica).name() + ": " + what);
}

bool LayerChecks::IsKnownFile(const LayersNow& layers, const std::string& name) const {
  if (std::find(std::begin(kFiles), std::end(kFiles), name) != std::end(kFiles)) return true;
  for (const std::vector<LayersNow::Layer>* of : {&layers.chain(), &layers.branches()}) {
    for (const LayersNow::Layer& layer : *of) {
      for (const std::string_view suffix : kSuffixes) {
        if (name == layer.meta.name + std::string(suffix)) return true;
      }
    }
  }
  // Of a snapshot that was prepared and not taken, by a disk host that ended: it goes when the
  // replica is opened, but not as long as its head was never another one.
  return name.starts_with("volume-snap-") &&
         (name.ends_with(replica::kMetaSuffix) || name.ends_with(".meta.tmp"));
}

std::string LayerChecks::Unrest() const {
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    if (!cluster_.complete().members.Contains(cluster_.replica_id(i))) continue;
    Machine& machine = cluster_.replica_machine(i);
    const Result<LayersNow> layers = cluster_.LayersOf(i);
    if (!layers.ok()) return layers.status().message();
    if (!layers.value().named()) return machine.name() + ": its head has no name yet";
    const std::vector<LayersNow::Layer>& chain = layers.value().chain();
    // Under the head it stays, without what the head has anew; and under two.
    const auto goes = [&](const LayersNow::Layer& layer) {
      return layer.meta.removed && layers.value().Children(layer) <= 1;
    };
    std::vector<const LayersNow::Layer*> lasting;
    for (size_t at = 2; at < chain.size(); ++at) lasting.push_back(&chain[at]);
    for (const LayersNow::Layer& layer : layers.value().branches()) lasting.push_back(&layer);
    for (const LayersNow::Layer* layer : lasting) {
      if (goes(*layer)) {
        return machine.name() + ": " + layer->meta.name + " was deleted and is still there";
      }
    }
    InodePtr directory;
    if (machine.disk.Lookup(cluster_.DirectoryOf(i), &directory) < 0) continue;
    for (const auto& [name, file] : directory->entries) {
      if (!IsKnownFile(layers.value(), name)) {
        return machine.name() + ": file " + name + " is nobody's";
      }
    }
  }
  return "";
}

bool LayerChecks::Readable(const wire::Members& members) const {
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    if (!members.Contains(cluster_.replica_id(i))) continue;
    if (cluster_.LayersOf(i).status().code() == ErrorCode::kBusy) return false;
  }
  return true;
}

void LayerChecks::Equal(const wire::Members& members) {
  std::optional<LayersNow> first;
  std::string first_name;
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    if (!members.Contains(cluster_.replica_id(i))) continue;
    const std::string& name = cluster_.replica_machine(i).name();
    Result<LayersNow> layers = cluster_.LayersOf(i);
    if (!layers.ok()) {
      Finding(i, "it was closed clean and cannot be read: " + layers.status().message());
      return;
    }
    if (Disk::NeedsSync(*layers.value().chain()[0].data)) {
      Finding(i, "the head was closed clean and is not synced");
      return;
    }
    if (!first) {
      first = layers.Take();
      first_name = name;
      continue;
    }
    for (const LayersNow* blocks_of : {&*first, &layers.value()}) {
      for (const uint64_t block : blocks_of->Blocks(0)) {
        if (std::memcmp(first->DataOf(block, 0), layers.value().DataOf(block, 0), kBlockBytes) ==
                0 ||
            rot_.IsLost(block)) {
          continue;
        }
        cluster_.world.Finding("closed clean, and " + first_name + " and " + name +
                               " differ in block " + std::to_string(block) + " (" +
                               first->Describe(block) + "; " + layers.value().Describe(block) +
                               ")");
        return;
      }
    }
  }
}

void LayerChecks::CheckSums(size_t replica, const std::vector<uint8_t>& regions, bool known) {
  const Result<LayersNow> layers = cluster_.LayersOf(replica);
  if (!layers.ok()) return;  // told by Equal
  for (size_t at = 0; at < layers.value().chain().size(); ++at) {
    const std::string wrong = CheckSums(layers.value(), at, replica, regions, known && at == 0);
    if (wrong.empty()) continue;
    Finding(replica, layers.value().chain()[at].meta.name + ": " + wrong);
    return;
  }
  for (const LayersNow::Layer& layer : layers.value().branches()) {
    const Result<LayersNow> branch = layers.value().Branch(layer);
    if (!branch.ok() || !layer.live()) continue;
    const std::string wrong = CheckSums(branch.value(), 0, replica, regions, false);
    if (!wrong.empty()) return Finding(replica, layer.meta.name + ": " + wrong);
  }
}

// Rule 9. In a dirty region a block of a layer that is not sealed may be anything; and one that no
// snapshot and no head shows.
std::string LayerChecks::CheckSums(const LayersNow& layers, size_t at, size_t replica,
                                   const std::vector<uint8_t>& regions, bool known) const {
  const std::vector<LayersNow::Layer>& chain = layers.chain();
  const LayersNow::Layer& layer = chain[at];
  if (layer.sums == nullptr) return "";
  size_t live = 0;
  for (size_t i = 1; i <= at; ++i) live = chain[i].live() ? i : live;
  const Disk& disk = cluster_.replica_machine(replica).disk;
  const bool bottom = at + 1 == chain.size();
  const uint64_t end = layer.size_bytes / kBlockBytes;
  for (uint64_t region = 0; region < regions.size(); ++region) {
    const uint64_t first = region * replica::kRegionBlocks;
    if (first >= end) break;
    if ((regions[region] & replica::kDirtyBit) != 0 && !layer.sealed) continue;
    replica::SumPage sums = {};
    (void)disk.Read(*layer.sums, replica::SumPageOffset(region), &sums, sizeof(sums));
    if (replica::CheckSumPage(sums, region) == replica::SumPageState::kDamaged) {
      if (at > 0 && !layer.live()) continue;
      return "the checksums of region " + std::to_string(region) + " are not whole";
    }
    const uint64_t blocks = std::min<uint64_t>(replica::kRegionBlocks, end - first);
    auto page = layer.data->pages.lower_bound(first);
    for (uint64_t i = 0; i < blocks; ++i) {
      while (page != layer.data->pages.end() && page->first < first + i) ++page;
      const bool there = page != layer.data->pages.end() && page->first == first + i &&
                         page->second.kind == PageKind::kData;
      if (!there && !bottom) continue;
      const std::string wrong =
          WrongSum(first + i, sums.sums[i], there ? page->second.data.get() : nullptr, known);
      // What rotted in a layer that is not the head stays there: it is repaired in the head.
      const bool frozen = at > 0 || layer.sealed;
      if (wrong.empty() || (frozen && rot_.WasFlipped(first + i))) continue;
      if (!Rot::IsShown(layers, first + i, 0, at) &&
          (live == 0 || !Rot::IsShown(layers, first + i, live, at))) {
        continue;
      }
      return "block " + std::to_string(first + i) + " " + wrong + " (" +
             layers.Describe(first + i) + ")";
    }
  }
  return "";
}

std::string LayerChecks::WrongSum(uint64_t block, uint32_t stored, const std::byte* data,
                                  bool known) const {
  if (stored == replica::kSumNone) {
    return data != nullptr && known ? "has no checksum" : "";
  }
  if (rot_.IsLost(block)) return "";
  // A block that rotted and was written over in part is bad for its replica until it is repaired.
  if (stored == replica::kSumBad) {
    return rot_.flips() == 0 ? "is marked bad, and no bit was flipped" : "";
  }
  static constexpr std::byte kZeros[kBlockBytes] = {};
  static const uint32_t kZeroSum = replica::StoredSum(Crc32c(kZeros, sizeof(kZeros)));
  const uint32_t is = data == nullptr ? kZeroSum : replica::StoredSum(Crc32c(data, kBlockBytes));
  return is == stored ? "" : "does not match its checksum";
}

}  // namespace ankole::sim
