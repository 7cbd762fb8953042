#include <algorithm>
#include <array>
#include <cstring>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/units.h"
#include "replica/replica.h"

// Checksums of blocks, for a resync that does not send what is equal (rule 7). Holes are not read.
namespace ankole::replica {
namespace {

uint32_t ZeroSum(size_t bytes) {
  static constexpr std::array<std::byte, kBlockBytes> kZeros = {};
  static const uint32_t whole = Crc32c(kZeros.data(), kZeros.size());
  return bytes == kBlockBytes ? whole : Crc32c(kZeros.data(), bytes);
}

// Where the blocks' layers are kept: behind the answer.
std::byte* LayersAt(const ReplicaOperation& operation) {
  return operation.sums + wire::SumsBytes(wire::kSumBlocksMax);
}

}  // namespace

void Replica::StartSum(ReplicaOperation* operation) {
  // The job must not look at the map, which is this thread's.
  const uint64_t first = operation->offset_bytes / kBlockBytes;
  const auto blocks = static_cast<uint32_t>(DivideUp(operation->length_bytes, kBlockBytes));
  for (uint32_t block = 0; block < blocks; ++block) {
    const uint16_t layer = chain_.head_alone() ? chain_.head_index() : map_.Layer(first + block);
    StoreLittle(LayersAt(*operation) + size_t{2} * block, layer);
  }
  operation->job.owner = operation;
  operation->job.work = SumWork;
  operation->job.done = SumDone;
  reactor_.Run(&operation->job);
}

Status Replica::Sum(ReplicaOperation* operation) {
  const auto blocks = static_cast<uint32_t>(DivideUp(operation->length_bytes, kBlockBytes));
  const uint64_t begin = operation->offset_bytes;
  const uint64_t end = begin + operation->length_bytes;
  const auto layer_of = [&](uint32_t block) {
    return LoadLittle<uint16_t>(LayersAt(*operation) + size_t{2} * block);
  };
  const auto begin_of = [&](uint32_t block) { return begin + uint64_t{block} * kBlockBytes; };
  const auto bytes_of = [&](uint32_t block) {
    return std::min<uint64_t>(kBlockBytes, end - begin_of(block));
  };
  wire::SumsEncoder sums(operation->sums, blocks);
  for (uint32_t block = 0; block < blocks;) {
    const uint16_t layer = layer_of(block);
    uint32_t next = block;
    while (next < blocks && layer_of(next) == layer) ++next;
    // The run's data, part by part; what lies between is holes.
    const uint64_t run_end = std::min(end, begin_of(next));
    while (block < next) {
      io::FileRange data = {run_end, run_end};
      if (layer != BlockMap::kZero) {
        const Result<io::FileRange> found =
            files_.NextData(chain_.layer(layer).file, begin_of(block), run_end);
        if (!found.ok()) return found.status();
        data = found.value();
      }
      const uint64_t data_begin = data.empty() ? run_end : RoundDown(data.begin_bytes, kBlockBytes);
      for (; block < next && begin_of(block) < data_begin; ++block) {
        sums.Set(block, ZeroSum(bytes_of(block)), true, false);
      }
      if (data.empty()) break;
      const uint64_t data_end = std::min(run_end, RoundUp(data.end_bytes, kBlockBytes));
      std::byte* bytes = operation->data + (data_begin - begin);
      const io::File file = chain_.layer(layer).file;
      const uint64_t length = data_end - data_begin;
      const Result<size_t> got = operation->once ? files_.ReadOnce(file, data_begin, bytes, length)
                                                 : files_.ReadAt(file, data_begin, bytes, length);
      if (!got.ok()) return got.status();
      // Past the end of a layer that is shorter than the volume.
      std::memset(bytes + got.value(), 0, data_end - data_begin - got.value());
      for (; block < next && begin_of(block) < data_end; ++block) {
        const std::byte* from = operation->data + (begin_of(block) - begin);
        sums.Set(block, Crc32c(from, bytes_of(block)), false, false);
      }
    }
  }
  return Status::Ok();
}

void Replica::SumWork(io::Job* job) {
  auto* operation = static_cast<ReplicaOperation*>(job->owner);
  operation->status = OutcomeOf(operation->replica->Sum(operation));
}

void Replica::SumDone(io::Operation* job) {
  auto* operation = static_cast<ReplicaOperation*>(job->owner);
  Replica* self = operation->replica;
  if (self->Spoiled(*operation)) operation->status = ErrorCode::kSuspect;
  if (operation->status == ErrorCode::kOk) self->FindBad(operation);
  self->Finish(operation, operation->status);
}

// What was computed, against the checksums at rest (rule 9). A hole has one when it should not be
// one.
void Replica::FindBad(ReplicaOperation* operation) {
  const auto blocks = static_cast<uint32_t>(DivideUp(operation->length_bytes, kBlockBytes));
  const uint64_t first = operation->offset_bytes / kBlockBytes;
  const uint64_t end = operation->offset_bytes + operation->length_bytes;
  const bool whole = end % kBlockBytes == 0 || end == size_bytes();
  for (uint32_t block = 0; sums_.on() && block < blocks - (whole ? 0 : 1); ++block) {
    const auto crc32c = LoadLittle<uint32_t>(operation->sums + size_t{4} * block);
    if (sums_.Mismatches(first + block, crc32c)) {
      wire::MarkBad(operation->sums, blocks, block);
    } else {
      // The engine holds the range's lock: nobody writes here.
      sums_.Keep(first + block, crc32c);
    }
  }
}

}  // namespace ankole::replica
