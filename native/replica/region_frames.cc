#include <utility>

#include "replica/served_replica.h"
#include "replica/session.h"

// A session's requests about regions (rules 5 and 7). What is asked of the maps is answered from
// memory; what changes them goes the way of an operation.
namespace ankole::replica {
namespace {

// Where runs are collected in a chunk; what is sent of them comes before.
constexpr size_t kRunsAt = 16 * kKiB;
static_assert(wire::kRecentBytesMax <= kRunsAt && wire::kRegionMapsBytesMax <= kRunsAt);
static_assert(kRunsAt + wire::kRegionRunsMax * sizeof(wire::RegionRun) <= BufferPool::kSmallBytes);

wire::RegionRun* RunsIn(SessionOperation* operation) {
  return reinterpret_cast<wire::RegionRun*>(operation->chunk->data + kRunsAt);
}

}  // namespace

// The payload was copied to the operation's chunk; there is none where it is empty.
void Session::StartRegions(SessionOperation* operation) {
  const wire::Header& header = operation->header;
  ReplicaOperation& storage = operation->storage;
  std::span<const std::byte> payload;
  if (header.payload_bytes > 0) payload = {operation->chunk->data, header.payload_bytes};
  Status wrong;
  switch (header.opcode) {
    case wire::Opcode::kMark: {
      const Result<wire::RegionRuns> runs = wire::RegionRuns::Decode(payload);
      if (runs.ok()) {
        storage.runs = runs.value();
        return Submit(operation, OperationKind::kMark);
      }
      wrong = runs.status();
      break;
    }
    case wire::Opcode::kClean: {
      const Result<wire::CleanRequest> clean = wire::DecodeClean(payload);
      if (clean.ok()) {
        storage.clean = clean.value();
        return Submit(operation, OperationKind::kClean);
      }
      wrong = clean.status();
      break;
    }
    case wire::Opcode::kMissing: {
      Result<wire::DecodedMissing> missing = wire::DecodeMissing(payload);
      if (missing.ok()) {
        storage.missing = std::move(missing.value().request);
        storage.runs = missing.value().runs;
        return Submit(operation, OperationKind::kMissing);
      }
      wrong = missing.status();
      break;
    }
    default: {
      const Result<wire::MapRequest> map = wire::DecodeMapRequest(payload);
      if (map.ok()) return AnswerMap(operation, map.value());
      wrong = map.status();
    }
  }
  Release(operation);
  Breach(wrong.message());
}

void Session::AnswerMap(SessionOperation* operation, const wire::MapRequest& request) {
  const RegionMap& regions = replica_->regions();
  uint8_t bit = kDirtyBit;
  if (request.id != 0) {
    const int slot = regions.FindSlot(request.id);
    if (slot < 0) return Answer(operation, ErrorCode::kNotFound);
    bit = MissingBit(slot);
  }
  wire::RegionRun* runs = RunsIn(operation);
  const size_t count = regions.Collect(bit, request.first, runs, wire::kRegionRunsMax);
  std::byte* to = operation->chunk->data;
  const size_t bytes = wire::EncodeRegionRuns({runs, count}, to);
  Send(operation, ErrorCode::kOk, to, static_cast<uint32_t>(bytes), nullptr, 0);
}

void Session::AnswerRegions(SessionOperation* operation) {
  std::byte* to = operation->chunk->data;
  size_t bytes = 0;
  if (operation->header.opcode == wire::Opcode::kMaps) {
    wire::RegionMaps maps;
    maps.dirty_regions = replica_->regions().dirty_regions();
    for (const wire::MissingSlot& slot : replica_->regions().slots()) {
      if (slot.id != 0) maps.slots[maps.count++] = slot;
    }
    bytes = wire::EncodeRegionMaps(maps, to);
  } else {
    wire::RegionRun* runs = RunsIn(operation);
    const int count = replica_->recent().Collect(runs, wire::kRegionRunsMax);
    const size_t known = count < 0 ? 0 : static_cast<size_t>(count);
    bytes = wire::EncodeRecent(count >= 0, {runs, known}, to);
  }
  Send(operation, ErrorCode::kOk, to, static_cast<uint32_t>(bytes), nullptr, 0);
}

}  // namespace ankole::replica
