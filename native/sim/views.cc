#include "sim/views.h"

#include <algorithm>

#include "replica/view.h"
#include "sim/register_model.h"
#include "sim/rot.h"
#include "sim/still_files.h"

namespace ankole::sim {
namespace {

constexpr uint64_t kBlockSectors = kBlockBytes / kSectorBytes;
constexpr uint64_t kAtATimeBlocks = 64;

}  // namespace

Result<ViewValues> ReadView(Cluster& cluster, Disk& disk, const std::string& directory,
                            const LayersNow& layers, size_t at) {
  StillFiles files(disk);
  const uint64_t size_bytes = layers.size_bytes();
  Result<std::unique_ptr<replica::View>> view =
      replica::View::Open(files, directory, layers.Metas(at), size_bytes,
                          /*checksums=*/true, /*difference=*/false);
  if (!view.ok()) return view.status();
  // Behind its end there are zeros.
  ViewValues values(cluster.options.size_bytes / kSectorBytes);
  std::vector<std::byte> data(kAtATimeBlocks * kBlockBytes);
  const auto read = [&](uint64_t first, uint64_t count) {
    replica::ReplicaOperation operation;
    operation.offset_bytes = first * kBlockBytes;
    operation.length_bytes = count * kBlockBytes;
    operation.data = data.data();
    const Status status = view.value()->Read(&operation);
    if (!status.ok()) return status;
    for (uint64_t i = 0; i < count * kBlockSectors; ++i) {
      const uint64_t sector = first * kBlockSectors + i;
      values[sector] = RegisterModel::ValueOf(data.data() + i * kSectorBytes, sector);
    }
    return status;
  };
  // A block that is bad everywhere may be marked where no layer has it.
  std::vector<uint64_t> blocks = layers.Blocks(at);
  const size_t there = blocks.size();
  blocks.insert(blocks.end(), cluster.rot->flipped().begin(), cluster.rot->flipped().end());
  std::inplace_merge(blocks.begin(), blocks.begin() + static_cast<ptrdiff_t>(there), blocks.end());
  blocks.erase(std::unique(blocks.begin(), blocks.end()), blocks.end());
  for (size_t i = 0; i < blocks.size();) {
    uint64_t count = 1;
    while (i + count < blocks.size() && blocks[i + count] == blocks[i] + count &&
           count < kAtATimeBlocks) {
      ++count;
    }
    Status status = read(blocks[i], count);
    // One by one, for the bad ones.
    for (uint64_t each = 0; !status.ok() && each < count; ++each) {
      const uint64_t block = blocks[i] + each;
      const Status one = read(block, 1);
      if (one.ok()) continue;
      if (one.code() != ErrorCode::kCorrupt || !cluster.rot->WasFlipped(block)) return one;
      std::fill_n(values.begin() + static_cast<ptrdiff_t>(block * kBlockSectors), kBlockSectors,
                  RegisterModel::kUnreadable);
    }
    i += count;
  }
  return values;
}

std::string Difference(const ViewValues& one, const ViewValues& other) {
  for (size_t s = 0; s < one.size(); ++s) {
    if (one[s] == other[s] || one[s] == RegisterModel::kUnreadable ||
        other[s] == RegisterModel::kUnreadable) {
      continue;
    }
    return "sector " + std::to_string(s) + " is " + std::to_string(one[s]) + " and " +
           std::to_string(other[s]);
  }
  return "";
}

void Complete(ViewValues* to, const ViewValues& from) {
  for (size_t s = 0; s < to->size(); ++s) {
    if ((*to)[s] == RegisterModel::kUnreadable) (*to)[s] = from[s];
  }
}

}  // namespace ankole::sim
