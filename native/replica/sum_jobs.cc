#include <algorithm>
#include <cstring>
#include <utility>

#include "base/crc32c.h"
#include "replica/block_sums.h"

// The jobs that write the file of checksums: before regions become clean (Settle), and where a
// block is or was bad (Fix). One runs at a time, on copies of what the table knows.
namespace ankole::replica {
namespace {

bool Known(const SumTable::Copy& copy, uint64_t at) {
  return (copy.known[at / 64] >> (at % 64) & 1) != 0;
}

void Learn(SumTable::Copy* copy, uint64_t at, uint32_t sum) {
  copy->sums[at] = sum;
  copy->known[at / 64] |= uint64_t{1} << (at % 64);
}

}  // namespace

void BlockSums::Settle(SettleRequest* request) {
  request->status = Status::Ok();
  request->sync_failed = request->more = false;
  request->next = request->first;
  request->computed = 0;
  settles_.PushBack(request);
  StartJob();
}

// What a job writes: by value, as the chain may get another head while it runs.
void BlockSums::AimAtHead() {
  job_file_ = files_of_.back().get();
  head_layer_ = chain_->head_index();
  head_data_ = chain_->head().file;
}

void BlockSums::StartJob() {
  if (job_running_ || held_) return;
  AimAtHead();
  batch_->count = 0;
  job_last_ = true;
  frozen_running_ = false;
  // What a client waits for goes first; a Settle of many regions is interrupted between batches.
  if ((fix_running_ = fixes_.front()) != nullptr) {
    FillForFix();
  } else if ((settle_running_ = settles_.front()) != nullptr) {
    FillForSettle();
  } else if (freeze_request_ != nullptr) {
    FillForFrozen();
  } else {
    return;
  }
  job_running_ = true;
  ++page_writes_;
  job_counters_ = {};
  reactor_.Run(&job_);
}

void BlockSums::AddCopy(uint64_t region) {
  const size_t index = batch_->count++;
  SumTable::Copy& copy = batch_->copies[index];
  table_.CopyOut(region, &copy);
  batch_->holds_bad[index] = batch_->listed_by_it[index] = false;
  const bool all_known = std::all_of(std::begin(copy.known), std::end(copy.known),
                                     [](uint64_t word) { return word == ~uint64_t{0}; });
  batch_->has_layers[index] = !chain_->head_alone() && !all_known;
  if (!batch_->has_layers[index]) return;
  const uint64_t first = region * kRegionBlocks;
  const uint64_t blocks = std::min(kRegionBlocks, DivideUp(size_bytes_, kBlockBytes) - first);
  std::fill_n(batch_->layers[index], kRegionBlocks, chain_->head_index());
  for (uint64_t at = 0; at < blocks; ++at) batch_->layers[index][at] = map_->Layer(first + at);
}

void BlockSums::FillForSettle() {
  SettleRequest* request = settle_running_;
  for (; request->next < request->end && batch_->count < SumTable::kCopiesMax; ++request->next) {
    const uint64_t region = request->next;
    // What a frozen file lacks comes first: the region has to wait.
    if (FrozenOf(region) != nullptr) request->more = true;
    if (table_.settled(region)) continue;
    if (request->wanted != nullptr && !request->wanted(request->owner, region)) continue;
    const bool computes = table_.stale(region) && !table_.AllKnown(region);
    if (computes && request->computed == request->computed_max) {
      request->more = true;
      request->next = request->end;
      break;
    }
    AddCopy(region);
    if (!computes) continue;
    ++request->computed;
    // What is computed reads the whole region: one at a time.
    ++request->next;
    break;
  }
  job_last_ = request->next >= request->end;
}

// Regions of which a block is marked, or was and is not any more.
void BlockSums::FillForFix() {
  ReplicaOperation* operation = fix_running_;
  const uint64_t begin = operation->offset_bytes;
  const uint64_t last = begin + operation->length_bytes - 1;
  const auto concerned = [&](uint64_t region) {
    return operation->kind == OperationKind::kBad || MayHoldBadRegion(region) ||
           (operation->spoils_first && begin / kRegionBytes == region) ||
           (operation->spoils_last && last / kRegionBytes == region);
  };
  for (; operation->sums_next <= last / kRegionBytes && batch_->count < SumTable::kCopiesMax;
       ++operation->sums_next) {
    const uint64_t region = operation->sums_next;
    if (!concerned(region)) continue;
    const size_t index = batch_->count;
    SumTable::Copy& copy = batch_->copies[index];
    AddCopy(region);
    const uint64_t from = std::max(begin / kBlockBytes, region * kRegionBlocks);
    const uint64_t to = std::min(last / kBlockBytes + 1, (region + 1) * kRegionBlocks);
    bool bad = false;
    for (uint64_t block = from; block < to; ++block) {
      const uint32_t sum = NewSum(*operation, block);
      bad |= sum == kSumBad;
      Learn(&copy, block % kRegionBlocks, sum);
    }
    // From now on nobody takes the region for one without bad blocks.
    if (bad && !MayHoldBadRegion(region)) {
      bad_regions_.push_back(region);
      batch_->listed_by_it[index] = true;
    }
  }
  job_last_ = operation->sums_next > last / kRegionBytes;
}

void BlockSums::JobWork(io::Job* job) {
  auto* self = static_cast<BlockSums*>(job->owner);
  self->job_sync_failed_ = false;
  self->job_status_ = Status::Ok();
  if (self->frozen_running_) {
    self->job_status_ = self->WriteFrozen();
    return;
  }
  const ReplicaOperation* fix = self->fix_running_;
  if (fix != nullptr && fix->kind != OperationKind::kBad) {
    // The data first: a block that is called good must be.
    self->job_status_ = self->files_.SyncData(self->head_data_);
    self->job_sync_failed_ = !self->job_status_.ok();
  }
  if (self->job_status_.ok()) self->job_status_ = self->WriteBatch(fix == nullptr);
  if (self->job_status_.ok() && (self->job_last_ || fix != nullptr)) {
    self->job_status_ = self->Sync();
  }
  // Listed as long as a page that says so may be the durable one.
  for (size_t i = 0; i < self->batch_->count && self->job_status_.ok(); ++i) {
    const uint64_t region = self->batch_->copies[i].region;
    if (!self->batch_->holds_bad[i] && self->job_file_->MayHoldBad(region)) {
      self->job_status_ = self->job_file_->NoteBad(self->files_, region, false);
      self->job_sync_failed_ = !self->job_status_.ok();
    }
  }
  // Marks of bad blocks are synced as they are written. Who is not told of a failure goes on with a
  // file that takes nothing any more.
  self->job_sync_failed_ |= self->job_file_->sync_failed();
}

Status BlockSums::Sync() {
  const Status status = job_file_->Sync(files_);
  job_sync_failed_ = !status.ok();
  return status;
}

Status BlockSums::WriteBatch(bool compute) {
  for (size_t i = 0; i < batch_->count; ++i) {
    SumTable::Copy& copy = batch_->copies[i];
    RETURN_IF_ERROR(CompleteCopy(i, compute));
    for (size_t at = 0; at < kRegionBlocks && !batch_->holds_bad[i]; ++at) {
      batch_->holds_bad[i] = Known(copy, at) && copy.sums[at] == kSumBad;
    }
    if (batch_->holds_bad[i]) RETURN_IF_ERROR(job_file_->NoteBad(files_, copy.region, true));
    for (size_t at = 0; at < kRegionBlocks; ++at) {
      batch_->page.sums[at] = Known(copy, at) ? copy.sums[at] : kSumNone;
    }
    const Status written = job_file_->WritePage(files_, copy.region, &batch_->page);
    if (!written.ok() && written.code() == ErrorCode::kNoSpace && !batch_->holds_bad[i]) {
      // The page is a hole, and says «none»: better than a region that cannot become clean.
      for (size_t at = 0; at < kRegionBlocks; ++at) Learn(&copy, at, kSumNone);
      ++job_counters_.pages_dropped;
      continue;
    }
    RETURN_IF_ERROR(written);
  }
  return Status::Ok();
}

// Fills in what the table does not know of the head's blocks: from the file where it is believed,
// else by reading the data, or as «none». Of blocks in lower layers it stays unknown, as their own
// files know.
Status BlockSums::CompleteCopy(size_t index, bool compute) {
  SumTable::Copy& copy = batch_->copies[index];
  if (std::all_of(std::begin(copy.known), std::end(copy.known),
                  [](uint64_t word) { return word == ~uint64_t{0}; })) {
    return Status::Ok();
  }
  const auto in_head = [&](size_t at) {
    return !batch_->has_layers[index] || batch_->layers[index][at] == head_layer_;
  };
  SumPageState state = SumPageState::kDamaged;
  // A page that cannot be read is as good as one that is not whole, but where it tells what is bad.
  const Status read = job_file_->ReadPage(files_, copy.region, &batch_->page, &state);
  const bool listed = job_file_->MayHoldBad(copy.region);
  if (listed) RETURN_IF_ERROR(read);
  if (state == SumPageState::kDamaged && !copy.stale) ++job_counters_.pages_damaged;
  const uint32_t lost = listed && state == SumPageState::kDamaged ? kSumBad : kSumNone;
  for (size_t at = 0; at < kRegionBlocks; ++at) {
    if (Known(copy, at)) continue;
    const uint32_t sum = state == SumPageState::kWhole ? batch_->page.sums[at] : lost;
    if (sum == kSumBad || (!copy.stale && in_head(at))) Learn(&copy, at, sum);
  }
  if (copy.stale && compute) Compute(index);
  for (size_t at = 0; at < kRegionBlocks; ++at) {
    if (!Known(copy, at) && in_head(at)) Learn(&copy, at, kSumNone);
  }
  if (!compute && batch_->has_layers[index]) CompleteFromLower(index);
  return Status::Ok();
}

// Where the first mark of a bad block is made all must be known: nobody else there is to be taken
// for bad meanwhile.
void BlockSums::CompleteFromLower(size_t index) {
  SumTable::Copy& copy = batch_->copies[index];
  const uint16_t* layers = batch_->layers[index];
  for (uint32_t layer = 0; layer + 1 < files_of_.size(); ++layer) {
    const SumFile* file = files_of_[layer].get();
    if (file == nullptr ||
        std::find(layers, layers + kRegionBlocks, layer) == layers + kRegionBlocks) {
      continue;
    }
    SumPageState state = SumPageState::kDamaged;
    (void)file->ReadPage(files_, copy.region, &batch_->page, &state).ok();
    const SumTable::Frozen* frozen = layer == frozen_layer_ ? FrozenOf(copy.region) : nullptr;
    for (size_t at = 0; at < kRegionBlocks; ++at) {
      if (Known(copy, at) || layers[at] != layer) continue;
      uint32_t sum = state == SumPageState::kWhole ? batch_->page.sums[at] : kSumNone;
      if (frozen != nullptr) {
        const bool known = (frozen->known[at / 64] >> (at % 64) & 1) != 0;
        if (known || frozen->stale) sum = known ? frozen->sums[at] : kSumNone;
      }
      Learn(&copy, at, sum);
    }
  }
  for (size_t at = 0; at < kRegionBlocks; ++at) {
    if (!Known(copy, at)) Learn(&copy, at, kSumNone);
  }
}

// Blocks from `block` on into the batch's memory; how many could be read.
size_t BlockSums::ReadBlocks(io::File file, uint64_t block, uint64_t blocks) {
  const uint64_t begin = block * kBlockBytes;
  const uint64_t bytes = std::min(blocks * kBlockBytes, size_bytes_ - begin);
  const Result<size_t> got = files_.ReadAt(file, begin, batch_->data, bytes);
  if (!got.ok()) return 0;
  std::memset(batch_->data + got.value(), 0, bytes - got.value());
  return blocks;
}

void BlockSums::Compute(size_t index) {
  SumTable::Copy& copy = batch_->copies[index];
  const uint64_t first = copy.region * kRegionBlocks;
  const auto wanted = [&](size_t at) {
    return at < kRegionBlocks && !Known(copy, at) &&
           (!batch_->has_layers[index] || batch_->layers[index][at] == head_layer_);
  };
  // Behind the end of the volume there is nothing yet that a checksum could be of.
  const uint64_t blocks = std::min(kRegionBlocks, DivideUp(size_bytes_, kBlockBytes) - first);
  for (size_t at = blocks; at < kRegionBlocks; ++at) Learn(&copy, at, kSumNone);
  constexpr size_t kBlocksAtATime = sizeof(batch_->data) / kBlockBytes;
  for (size_t at = 0; at < blocks;) {
    if (!wanted(at)) {
      ++at;
      continue;
    }
    size_t count = 1;
    while (count < kBlocksAtATime && wanted(at + count)) ++count;
    if (ReadBlocks(head_data_, first + at, count) == 0) {
      // Block by block around what the medium does not give: that has no checksum, and no READ gets
      // it either.
      count = 1;
      if (ReadBlocks(head_data_, first + at, 1) == 0) {
        Learn(&copy, at++, kSumNone);
        continue;
      }
    }
    for (size_t i = 0; i < count; ++i) {
      const uint64_t length =
          std::min<uint64_t>(kBlockBytes, size_bytes_ - (first + at + i) * kBlockBytes);
      Learn(&copy, at + i, StoredSum(Crc32c(batch_->data + i * kBlockBytes, length)));
    }
    at += count;
  }
}

void BlockSums::DropCopies(bool written) {
  for (size_t i = 0; i < batch_->count; ++i) {
    SumTable::Copy* copy = &batch_->copies[i];
    if (!written) {
      table_.Abandon(copy);
      continue;
    }
    (void)table_.Settle(copy);  // where it was written meanwhile, it is not settled
    if (!batch_->holds_bad[i]) DropBadRegion(copy->region);
  }
}

void BlockSums::JobDone(io::Operation* job) {
  auto* self = static_cast<BlockSums*>(job->owner);
  self->job_running_ = false;
  ++self->page_writes_;
  self->counters_.pages_damaged += self->job_counters_.pages_damaged;
  self->counters_.pages_dropped += self->job_counters_.pages_dropped;
  if (self->frozen_running_) {
    self->EndFrozen();
  } else if (self->fix_running_ != nullptr) {
    self->EndFix();
  } else {
    self->EndSettle();
  }
  if (self->held_done_ != nullptr) std::exchange(self->held_done_, nullptr)(self->held_owner_);
}

void BlockSums::Hold(void (*held)(void* owner), void* owner) {
  CHECK(!held_);
  held_ = true;
  if (!job_running_) return held(owner);
  held_done_ = held;
  held_owner_ = owner;
}

void BlockSums::Release() {
  CHECK(held_ && held_done_ == nullptr);
  held_ = false;
  StartJob();
}

Status BlockSums::GrowFiles(uint64_t regions, bool* sync_failed) {
  const uint64_t end = size_bytes_ / kBlockBytes;
  const bool odd = size_bytes_ % kBlockBytes != 0;
  for (const std::shared_ptr<SumFile>& file : files_of_) {
    if (file == nullptr || file->regions() * kRegionBlocks <= end) continue;
    // A block that the old end lies within has a checksum of another range in every layer.
    if (!odd && file != files_of_.back()) continue;
    const Status status = file->ForgetFrom(files_, end);
    *sync_failed |= file->sync_failed();
    RETURN_IF_ERROR(status);
  }
  SumFile& head = *files_of_.back();
  const Status status = head.Grow(files_, regions);
  *sync_failed |= head.sync_failed();
  return status;
}

void BlockSums::Grow(uint64_t size_bytes) {
  CHECK(size_bytes >= size_bytes_);
  size_bytes_ = size_bytes;
  files_of_.back()->Shrink(DivideUp(size_bytes, kRegionBytes));
}

void BlockSums::EndSettle() {
  SettleRequest* request = std::exchange(settle_running_, nullptr);
  DropCopies(job_status_.ok());
  const bool done = job_last_ || !job_status_.ok();
  if (done) settles_.Remove(request);
  request->status = job_status_;
  request->sync_failed = job_sync_failed_;
  StartJob();
  if (done) request->done(request);
}

// The copies hold what is known and not written, too; the table stays the one that knows.
void BlockSums::EndFix() {
  ReplicaOperation* operation = std::exchange(fix_running_, nullptr);
  for (size_t i = 0; i < batch_->count; ++i) {
    SumTable::Copy* copy = &batch_->copies[i];
    table_.Abandon(copy);
    if (job_status_.ok() && !batch_->holds_bad[i]) DropBadRegion(copy->region);
    if (!batch_->listed_by_it[i]) continue;
    if (job_status_.ok()) {
      // For those that came before there was anything to load.
      table_.Merge(copy->region, copy->sums);
    } else if (!job_file_->MayHoldBad(copy->region)) {
      DropBadRegion(copy->region);
    }
  }
  const bool done = job_last_ || !job_status_.ok();
  if (done) fixes_.Remove(operation);
  if (done && job_status_.ok()) Apply(*operation);
  if (!job_status_.ok()) {
    NoteFailed(*operation);
    operation->sync_failed = job_sync_failed_;
    operation->status =
        job_status_.code() == ErrorCode::kNoSpace ? ErrorCode::kNoSpace : ErrorCode::kIoError;
  }
  StartJob();
  if (done) operation->finish(operation);
}

Status BlockSums::Persist(bool* sync_failed) {
  *sync_failed = false;
  if (!on()) return Status::Ok();
  CHECK(!job_running_);
  Status status;
  while (!frozen_.empty() && status.ok()) {
    FillForFrozen();
    status = WriteFrozen();
    *sync_failed = job_sync_failed_;
    if (status.ok() && job_last_) frozen_.clear();
  }
  RETURN_IF_ERROR(status);
  AimAtHead();
  uint64_t region = 0;
  while (status.ok() && region < table_.regions()) {
    batch_->count = 0;
    for (; region < table_.regions() && batch_->count < SumTable::kCopiesMax; ++region) {
      if (!table_.settled(region)) AddCopy(region);
    }
    status = WriteBatch(false);
    DropCopies(status.ok());
  }
  job_sync_failed_ = false;
  if (status.ok()) status = Sync();
  *sync_failed = job_sync_failed_ || job_file_->sync_failed();
  return status;
}

}  // namespace ankole::replica
