#include "replica/block_sums.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/crc32c.h"

namespace ankole::replica {
namespace {

struct BlockSpan {
  uint64_t first;
  uint64_t end;
};
BlockSpan BlocksOf(uint64_t offset_bytes, uint64_t length_bytes) {
  return {offset_bytes / kBlockBytes, DivideUp(offset_bytes + length_bytes, kBlockBytes)};
}

bool IsZeroing(OperationKind kind) {
  return kind == OperationKind::kZero || kind == OperationKind::kUnmap;
}

}  // namespace

BlockSums::BlockSums(io::FileSystem& files, io::Reactor& reactor)
    : files_(files), reactor_(reactor) {
  job_.owner = this;
  job_.work = JobWork;
  job_.done = JobDone;
}

BlockSums::~BlockSums() {
  CHECK(loads_busy_ == 0 && !job_running_ && files_of_.empty());
  if (batch_ != nullptr) munmap(batch_, sizeof(Batch));
}

Status BlockSums::Open(const std::string& directory, Chain* chain, const BlockMap* map,
                       bool sync_failed, std::string* notes) {
  CHECK(files_of_.empty());
  chain_ = chain;
  map_ = map;
  size_bytes_ = chain->size_bytes();
  const uint64_t regions = DivideUp(size_bytes_, kRegionBytes);
  const std::string name = chain->head().meta.name + std::string(kSumSuffix);
  const std::string path = directory + "/" + name;
  Result<SumFile> file = SumFile::Open(files_, path, regions);
  if (!file.ok() && (file.status().code() == ErrorCode::kNotFound ||
                     file.status().code() == ErrorCode::kCorrupt)) {
    if (file.status().code() == ErrorCode::kCorrupt) {
      *notes = file.status().message() + "; it is replaced, the blocks have no checksums now";
    }
    file = SumFile::Create(files_, directory, name, regions);
    if (!file.ok() && file.status().code() == ErrorCode::kNoSpace) {
      *notes = "no space for checksums at rest: " + file.status().message();
      return Status::Ok();
    }
  }
  if (!file.ok()) return file.status();
  on_ = true;
  // Of a lower layer nothing is made: one without checksums, or with what is not whole, has none.
  for (uint32_t layer = 0; layer < chain->head_index(); ++layer) {
    const std::string& layer_name = chain->layer(static_cast<uint16_t>(layer)).meta.name;
    // It fits the volume as it was when the layer was frozen.
    const uint64_t layer_bytes = chain->layer(static_cast<uint16_t>(layer)).size_bytes;
    Result<SumFile> lower =
        SumFile::Open(files_, directory + "/" + layer_name + std::string(kSumSuffix),
                      DivideUp(layer_bytes, kRegionBytes));
    const ErrorCode code = lower.status().code();
    if (!lower.ok() && code != ErrorCode::kNotFound && code != ErrorCode::kCorrupt) {
      file.value().Close(files_);
      return lower.status();
    }
    if (!lower.ok() && code == ErrorCode::kCorrupt) {
      *notes = lower.status().message() + "; the layer's blocks have no checksums";
    }
    files_of_.push_back(lower.ok() ? std::make_shared<SumFile>(lower.Take()) : nullptr);
  }
  files_of_.push_back(std::make_shared<SumFile>(file.Take()));
  bad_regions_.reserve(kBadRegionsMax + 2 * SumTable::kCopiesMax);
  for (const std::shared_ptr<SumFile>& of : files_of_) {
    if (of == nullptr) continue;
    if (sync_failed) {
      (void)files_.SyncData(of->file()).ok();
      RETURN_IF_ERROR(files_.DropCache(of->file()));
    }
    for (const uint64_t region : of->bad_regions()) {
      if (!MayHoldBadRegion(region)) bad_regions_.push_back(region);
    }
  }
  loads_ = std::make_unique<Load[]>(kLoads);
  void* memory = mmap(nullptr, sizeof(Batch), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return Status::FromErrno(errno, "no memory for the checksums");
  batch_ = static_cast<Batch*>(memory);
  return table_.Reserve(regions);
}

void BlockSums::Close() {
  CHECK(!job_running_);
  for (const std::shared_ptr<SumFile>& of : files_of_) {
    if (of != nullptr) of->Close(files_);
  }
  files_of_.clear();
  on_ = false;
}

bool BlockSums::HeadLacks(uint64_t region) {
  const auto head = static_cast<uint32_t>(files_of_.size() - 1);
  if (!on() || head == 0 || HoldsBlocks(head, region)) return false;
  SumPageState state = SumPageState::kDamaged;
  const Status read = files_of_[head]->ReadPage(files_, region, &batch_->page, &state);
  return read.ok() && state == SumPageState::kEmpty;
}

Status BlockSums::Forget(uint16_t layer, const std::vector<uint64_t>& regions) {
  if (!on() || files_of_[layer] == nullptr || regions.empty()) return Status::Ok();
  SumFile& file = *files_of_[layer];
  for (const uint64_t region : regions) {
    SumPageState state = SumPageState::kDamaged;
    const Status read = file.ReadPage(files_, region, &batch_->page, &state);
    if (read.ok() && state == SumPageState::kEmpty) continue;
    // What says which blocks are bad is believed whatever happened.
    const bool listed = file.MayHoldBad(region);
    if (listed && (!read.ok() || state == SumPageState::kDamaged)) continue;
    for (uint32_t& sum : batch_->page.sums) {
      if (!listed || sum != kSumBad) sum = kSumNone;
    }
    RETURN_IF_ERROR(file.WritePage(files_, region, &batch_->page));
  }
  return file.Sync(files_);
}

void BlockSums::MergeLayers(uint32_t lower, uint32_t upper, SumFile merged) {
  CHECK(on_ && loads_busy_ == 0 && upper + 1 < files_of_.size());
  const std::shared_ptr<SumFile> both = std::make_shared<SumFile>(std::move(merged));
  const std::shared_ptr<SumFile> before[] = {files_of_[lower], files_of_[upper]};
  files_of_[lower] = files_of_[upper] = both;
  for (const std::shared_ptr<SumFile>& old : before) {
    if (old == nullptr) continue;
    CHECK(!job_running_ || job_file_ != old.get());
    old->Close(files_);
    // With those that were merged into either of them before.
    std::replace(files_of_.begin(), files_of_.end(), old, both);
  }
}

void BlockSums::SwitchHead(SumFile file) {
  CHECK(on_ && frozen_.empty() && loads_busy_ == 0);
  files_of_.push_back(std::make_shared<SumFile>(std::move(file)));
  frozen_layer_ = static_cast<uint32_t>(files_of_.size() - 2);
  frozen_next_ = 0;
  table_.Freeze(&frozen_);
}

void BlockSums::Trim() {
  if (!on() || loads_busy_ > 0 || job_running_) return;
  table_.Trim();
  madvise(batch_, sizeof(Batch), MADV_DONTNEED);
}

bool BlockSums::MayHoldBadRegion(uint64_t region) const {
  return !bad_regions_.empty() &&
         std::find(bad_regions_.begin(), bad_regions_.end(), region) != bad_regions_.end();
}

bool BlockSums::MayHoldBad(uint64_t offset_bytes, uint64_t length_bytes) const {
  const uint64_t first = offset_bytes / kRegionBytes;
  const uint64_t last = (offset_bytes + length_bytes - 1) / kRegionBytes;
  return std::any_of(bad_regions_.begin(), bad_regions_.end(),
                     [&](uint64_t region) { return region >= first && region <= last; });
}

// --- pages from the file
// ---------------------------------------------------------------------------

// What is zeroed as a whole needs no look at what was there, unless it may be bad.
bool BlockSums::NeedsLoad(const ReplicaOperation& operation, uint64_t region) const {
  const bool bad = MayHoldBadRegion(region);
  if (table_.Available(region, bad)) return false;
  if (bad || !IsZeroing(operation.kind)) return true;
  const uint64_t begin = operation.offset_bytes;
  const uint64_t end = begin + operation.length_bytes;
  return (begin % kBlockBytes != 0 && begin / kRegionBytes == region) ||
         (end % kBlockBytes != 0 && (end - 1) / kRegionBytes == region);
}

void BlockSums::With(ReplicaOperation* operation, void (*proceed)(ReplicaOperation*)) {
  if (operation->sums_next == 0) operation->sums_next = operation->offset_bytes / kRegionBytes;
  const uint64_t end = DivideUp(operation->offset_bytes + operation->length_bytes, kRegionBytes);
  for (; on() && operation->sums_next < end; ++operation->sums_next) {
    const uint64_t region = operation->sums_next;
    if (!NeedsLoad(*operation, region)) continue;
    operation->proceed = proceed;
    Load* free = nullptr;
    for (size_t i = 0; i < kLoads; ++i) {
      if (loads_[i].busy && loads_[i].region == region) {
        ++operation->sums_next;
        loads_[i].waiters.PushBack(operation);
        return;
      }
      if (!loads_[i].busy) free = &loads_[i];
    }
    if (free == nullptr) {
      load_waiters_.PushBack(operation);
      return;
    }
    // Once a region: where there is no room for the page, it does without.
    ++operation->sums_next;
    free->waiters.PushBack(operation);
    StartLoad(free, region);
    return;
  }
  proceed(operation);
}

void BlockSums::StartLoad(Load* load, uint64_t region) {
  if (!load->busy) ++loads_busy_;
  load->busy = true;
  load->region = region;
  load->blind = false;
  load->layer = static_cast<uint32_t>(files_of_.size());
  std::fill_n(load->sums, kRegionBlocks, kSumNone);
  // There is always one: the head's is read in any case, so that the end comes later.
  const bool found = LoadNext(load);
  CHECK(found);
}

bool BlockSums::HoldsBlocks(uint32_t layer, uint64_t region) const {
  uint64_t block = region * kRegionBlocks;
  const uint64_t end = std::min(block + kRegionBlocks, DivideUp(size_bytes_, kBlockBytes));
  while (block < end) {
    const BlockMap::Run run = map_->Find(block, end - block);
    if (run.layer == layer) return true;
    block += run.blocks;
  }
  return false;
}

// Reads the page of the next lower layer that has something to say of the region. False: there is
// none.
bool BlockSums::LoadNext(Load* load) {
  const auto head = static_cast<uint32_t>(files_of_.size() - 1);
  while (load->layer > 0) {
    const uint32_t layer = --load->layer;
    const SumFile* file = files_of_[layer].get();
    if (file == nullptr) continue;
    if (layer != head && (load->region >= file->regions() ||
                          (!HoldsBlocks(layer, load->region) && !file->MayHoldBad(load->region)))) {
      continue;
    }
    ReadLoad(load);
    return true;
  }
  return false;
}

void BlockSums::ReadLoad(Load* load) {
  load->page_writes = page_writes_;
  load->owner = this;
  load->done = LoadDone;
  load->file = files_of_[load->layer]->file();
  load->offset_bytes = SumPageOffset(load->region);
  load->vectors[0] = {&load->page, sizeof(load->page)};
  load->vectors_count = 1;
  load->direct = load->durable = load->once = false;
  reactor_.Read(load);
}

void BlockSums::LoadDone(io::Operation* operation) {
  auto* load = static_cast<Load*>(operation);
  auto* self = static_cast<BlockSums*>(load->owner);
  SumPageState state = SumPageState::kDamaged;
  if (load->result >= 0) {
    const auto got = static_cast<size_t>(load->result);
    if (got < sizeof(SumPage)) {
      std::memset(reinterpret_cast<std::byte*>(&load->page) + got, 0, sizeof(SumPage) - got);
    }
    state = CheckSumPage(load->page, load->region);
    if (state == SumPageState::kDamaged &&
        (load->page_writes != self->page_writes_ || self->job_running_)) {
      // A job was writing it, or one beside it.
      return self->ReadLoad(load);
    }
  }
  self->TakePage(load, state);
  if (!self->LoadNext(load)) self->EndLoad(load);
}

// What the page says of the blocks that lie in its layer, and of those that are bad whatever lies
// below: a block is marked in the head's page although it lies deeper.
void BlockSums::TakePage(Load* load, SumPageState state) {
  const bool head = load->layer + 1 == files_of_.size();
  const bool listed = files_of_[load->layer]->MayHoldBad(load->region);
  // A page that was torn by a crash belongs to a stale region.
  if (state == SumPageState::kDamaged && !(head && table_.stale(load->region))) {
    ++counters_.pages_damaged;
  }
  // Which blocks are bad nobody knows then: tried again by the next one who asks.
  load->blind |= head && state == SumPageState::kDamaged && MayHoldBadRegion(load->region);
  const SumTable::Frozen* frozen = load->layer == frozen_layer_ ? FrozenOf(load->region) : nullptr;
  const uint32_t lost = listed && state == SumPageState::kDamaged ? kSumBad : kSumNone;
  const uint64_t first = load->region * kRegionBlocks;
  const uint64_t blocks = std::min(kRegionBlocks, DivideUp(size_bytes_, kBlockBytes) - first);
  for (uint64_t at = 0; at < blocks; ++at) {
    uint32_t sum = state == SumPageState::kWhole ? load->page.sums[at] : lost;
    if (frozen != nullptr && (frozen->known[at / 64] >> (at % 64) & 1) != 0) {
      sum = frozen->sums[at];
    } else if (frozen != nullptr && frozen->stale && sum != kSumBad) {
      sum = kSumNone;
    }
    const uint16_t lies_in = map_->Layer(first + at);
    if (lies_in == load->layer ? load->sums[at] != kSumBad
                               : sum == kSumBad && lies_in < load->layer) {
      load->sums[at] = sum;
    }
  }
}

void BlockSums::EndLoad(Load* load) {
  if (!load->blind) table_.Merge(load->region, load->sums);
  load->busy = false;
  --loads_busy_;
  List waiters;
  while (ReplicaOperation* waiter = load->waiters.PopFront()) waiters.PushBack(waiter);
  // Those that found no free load go before what these may ask for next.
  for (size_t count = load_waiters_.size(); count > 0 && loads_busy_ < kLoads; --count) {
    ReplicaOperation* waiter = load_waiters_.PopFront();
    With(waiter, waiter->proceed);
  }
  // The last one may close the replica: nothing here is touched after it.
  while (ReplicaOperation* waiter = waiters.PopFront()) With(waiter, waiter->proceed);
}

// --- verification
// ----------------------------------------------------------------------------------

bool BlockSums::Blind(uint64_t block) const {
  const uint64_t region = block / kRegionBlocks;
  return MayHoldBadRegion(region) && !IsBeingListed(region) && !table_.Available(region, true) &&
         table_.Get(block).knowledge != SumTable::Knowledge::kKnown;
}

// Whether the first mark of the region is being made: nothing else there is bad, and who looked
// before needed no page.
bool BlockSums::IsBeingListed(uint64_t region) const {
  for (size_t i = 0; fix_running_ != nullptr && i < batch_->count; ++i) {
    if (batch_->copies[i].region == region && batch_->listed_by_it[i]) return true;
  }
  return false;
}

bool BlockSums::Mismatches(uint64_t block, uint32_t crc32c) {
  const uint32_t sum = SumOf(block);
  // kSumBad equals no checksum.
  if (sum == kSumNone || sum == StoredSum(crc32c)) return false;
  ++counters_.errors;
  return true;
}

bool BlockSums::Mismatches(uint64_t block, const std::byte* data) {
  const uint32_t sum = SumOf(block);
  if (sum == kSumNone) return false;
  const uint64_t length = std::min<uint64_t>(kBlockBytes, size_bytes_ - block * kBlockBytes);
  return Mismatches(block, Crc32c(data, length));
}

void BlockSums::Keep(uint64_t block, uint32_t crc32c) {
  const uint64_t region = block / kRegionBlocks;
  if (!table_.stale(region) || MayHoldBadRegion(region)) return;
  if (table_.Get(block).knowledge != SumTable::Knowledge::kUnknown) return;
  // Of what lies lower the layer's own file knows.
  if (map_->Layer(block) != chain_->head_index()) return;
  table_.Set(block, StoredSum(crc32c));
}

uint32_t BlockSums::SumOf(uint64_t block) const {
  const SumTable::Entry entry = table_.Get(block);
  if (entry.knowledge == SumTable::Knowledge::kKnown) return entry.sum;
  return Blind(block) ? kSumBad : kSumNone;
}

bool BlockSums::Verify(ReplicaOperation* operation) {
  const uint64_t begin = operation->offset_bytes;
  const uint64_t end = begin + operation->length_bytes;
  const BlockSpan span = BlocksOf(begin, operation->length_bytes);
  bool good = true;
  for (uint64_t block = span.first; block < span.end; ++block) {
    const uint64_t block_begin = block * kBlockBytes;
    const uint64_t block_end = std::min(block_begin + kBlockBytes, size_bytes_);
    const std::byte* data = operation->buffer + (block_begin - operation->buffer_offset_bytes);
    const bool whole = block_begin >= begin && block_end <= end;
    if (operation->checksums == nullptr || !whole) {
      good &= !Mismatches(block, data);
      if (operation->checksums == nullptr) continue;
      const uint64_t from = std::max(begin, block_begin);
      const uint64_t to = std::min(end, block_end);
      operation->checksums[block - span.first] = Crc32c(data + (from - block_begin), to - from);
      continue;
    }
    // One computation serves the disk and the wire.
    const uint32_t crc32c = Crc32c(data, block_end - block_begin);
    operation->checksums[block - span.first] = crc32c;
    good &= !Mismatches(block, crc32c);
  }
  operation->checksums_filled = operation->checksums != nullptr;
  return good;
}

// --- after a change
// --------------------------------------------------------------------------------

// Of a block that the operation changed, as it is now. A write's buffer has the block as a whole.
uint32_t BlockSums::NewSum(const ReplicaOperation& operation, uint64_t block) const {
  const uint64_t begin = operation.offset_bytes;
  const uint64_t end = begin + operation.length_bytes;
  const uint64_t block_begin = block * kBlockBytes;
  const uint64_t block_end = std::min(block_begin + kBlockBytes, size_bytes_);
  const bool first = block == begin / kBlockBytes;
  const bool last = block == (end - 1) / kBlockBytes;
  const bool whole = block_begin >= begin && block_end <= end;
  if (operation.kind == OperationKind::kBad) return kSumBad;
  if (!whole && ((first && operation.spoils_first) || (last && operation.spoils_last))) {
    return kSumBad;
  }
  if (operation.kind == OperationKind::kWrite) {
    if (whole && operation.checksums != nullptr) {
      return StoredSum(operation.checksums[block - begin / kBlockBytes]);
    }
    const std::byte* data = operation.buffer + (block_begin - operation.buffer_offset_bytes);
    return StoredSum(Crc32c(data, block_end - block_begin));
  }
  if (!whole) return operation.edge_sums[first ? 0 : 1];
  if (operation.kind == OperationKind::kUnmap || !operation.keep_allocated) return kSumNone;
  static const std::byte kZeros[kBlockBytes] = {};
  static const uint32_t kZeroSum = StoredSum(Crc32c(kZeros, kBlockBytes));
  return block_end - block_begin == kBlockBytes
             ? kZeroSum
             : StoredSum(Crc32c(kZeros, block_end - block_begin));
}

void BlockSums::Apply(const ReplicaOperation& operation) {
  const BlockSpan span = BlocksOf(operation.offset_bytes, operation.length_bytes);
  if (!IsZeroing(operation.kind)) {
    for (uint64_t block = span.first; block < span.end; ++block) {
      table_.Set(block, NewSum(operation, block));
    }
    return;
  }
  // Long ranges of the same: the ends aside.
  table_.Set(span.first, NewSum(operation, span.first));
  if (span.end - span.first == 1) return;
  table_.Set(span.end - 1, NewSum(operation, span.end - 1));
  if (span.end - span.first == 2) return;
  table_.SetRun(span.first + 1, span.end - span.first - 2, NewSum(operation, span.first + 1));
}

// Whether a block that is bad becomes good.
bool BlockSums::ClearsBad(const ReplicaOperation& operation) const {
  const BlockSpan span = BlocksOf(operation.offset_bytes, operation.length_bytes);
  for (const uint64_t region : bad_regions_) {
    const uint64_t from = std::max(span.first, region * kRegionBlocks);
    const uint64_t to = std::min(span.end, (region + 1) * kRegionBlocks);
    // Where there was no room to look, it may be.
    if (from < to && !table_.Available(region, true)) return true;
    for (uint64_t block = from; block < to; ++block) {
      if (SumOf(block) == kSumBad) return true;
    }
  }
  return false;
}

void BlockSums::Note(ReplicaOperation* operation, void (*finish)(ReplicaOperation*)) {
  if (on() && (operation->spoils_first || operation->spoils_last || ClearsBad(*operation))) {
    return MarkBad(operation, finish);
  }
  if (on()) Apply(*operation);
  finish(operation);
}

void BlockSums::NoteFailed(const ReplicaOperation& operation) {
  if (!on()) return;
  const BlockSpan span = BlocksOf(operation.offset_bytes, operation.length_bytes);
  table_.Forget(span.first, span.end - span.first);
}

void BlockSums::MarkBad(ReplicaOperation* operation, void (*finish)(ReplicaOperation*)) {
  operation->finish = finish;
  operation->sums_next = operation->offset_bytes / kRegionBytes;
  fixes_.PushBack(operation);
  StartJob();
}

}  // namespace ankole::replica
