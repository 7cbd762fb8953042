#include <algorithm>
#include <cstring>
#include <utility>

#include "base/crc32c.h"
#include "replica/block_sums.h"

// What the file of checksums of a head lacked when it was frozen: kept in memory until a job has
// written it, after which the layer can be sealed.
namespace ankole::replica {

const SumTable::Frozen* BlockSums::FrozenOf(uint64_t region) const {
  if (frozen_.empty()) return nullptr;
  const auto at =
      std::lower_bound(frozen_.begin(), frozen_.end(), region,
                       [](const auto& entry, uint64_t wanted) { return entry->region < wanted; });
  return at != frozen_.end() && (*at)->region == region ? at->get() : nullptr;
}

void BlockSums::DropBadRegion(uint64_t region) {
  const auto lists = [&](const std::shared_ptr<SumFile>& file) {
    return file != nullptr && file.get() != files_of_.back().get() && file->MayHoldBad(region);
  };
  if (std::none_of(files_of_.begin(), files_of_.end(), lists)) std::erase(bad_regions_, region);
}

bool BlockSums::WhenFrozen(FreezeRequest* request) {
  if (frozen_.empty()) return false;
  CHECK(freeze_request_ == nullptr);
  freeze_request_ = request;
  StartJob();
  return true;
}

void BlockSums::FillForFrozen() {
  frozen_running_ = true;
  job_file_ = files_of_[frozen_layer_].get();
  head_data_ = chain_->layer(static_cast<uint16_t>(frozen_layer_)).file;
  batch_->count = 0;
  while (frozen_next_ < frozen_.size() && batch_->count < SumTable::kCopiesMax) {
    batch_->frozen[batch_->count++] = frozen_[frozen_next_++].get();
  }
  job_last_ = frozen_next_ == frozen_.size();
}

Status BlockSums::WriteFrozen() {
  job_sync_failed_ = false;
  for (size_t i = 0; i < batch_->count; ++i) {
    const SumTable::Frozen& frozen = *batch_->frozen[i];
    RETURN_IF_ERROR(CompleteFrozen(frozen));
    const uint32_t* sums = batch_->page.sums;
    const bool bad = std::find(sums, sums + kRegionBlocks, kSumBad) != sums + kRegionBlocks;
    if (bad) {
      const Status noted = job_file_->NoteBad(files_, frozen.region, true);
      job_sync_failed_ = job_file_->sync_failed();
      RETURN_IF_ERROR(noted);
    }
    const Status written = job_file_->WritePage(files_, frozen.region, &batch_->page);
    if (!written.ok() && written.code() == ErrorCode::kNoSpace && !bad) {
      ++job_counters_.pages_dropped;
      continue;
    }
    job_sync_failed_ = job_file_->sync_failed();
    RETURN_IF_ERROR(written);
  }
  return job_last_ ? Sync() : Status::Ok();
}

// The page as it is to be: what was known, and of the rest what the file says where it is believed,
// else what is computed.
Status BlockSums::CompleteFrozen(const SumTable::Frozen& frozen) {
  const bool listed = job_file_->MayHoldBad(frozen.region);
  SumPageState state = SumPageState::kDamaged;
  const Status read = job_file_->ReadPage(files_, frozen.region, &batch_->page, &state);
  if (listed) RETURN_IF_ERROR(read);
  uint32_t* sums = batch_->page.sums;
  if (state != SumPageState::kWhole) {
    std::fill_n(sums, kRegionBlocks,
                listed && state == SumPageState::kDamaged ? kSumBad : kSumNone);
  }
  const auto known = [&](size_t at) { return (frozen.known[at / 64] >> (at % 64) & 1) != 0; };
  for (size_t at = 0; at < kRegionBlocks; ++at) {
    if (known(at)) {
      sums[at] = frozen.sums[at];
    } else if (frozen.stale && sums[at] != kSumBad) {
      sums[at] = kSumNone;
    }
  }
  if (frozen.stale) ComputeFrozen(frozen);
  return Status::Ok();
}

// Of the blocks that lie in the layer and of which nothing is known.
void BlockSums::ComputeFrozen(const SumTable::Frozen& frozen) {
  uint32_t* sums = batch_->page.sums;
  const uint64_t first = frozen.region * kRegionBlocks;
  const uint64_t end_bytes = std::min((frozen.region + 1) * kRegionBytes, size_bytes_);
  uint64_t at_bytes = frozen.region * kRegionBytes;
  while (at_bytes < end_bytes) {
    const Result<io::FileRange> data = files_.NextData(head_data_, at_bytes, end_bytes);
    // What the medium does not tell has no checksum.
    if (!data.ok() || data.value().empty()) return;
    const uint64_t data_end = DivideUp(data.value().end_bytes, kBlockBytes);
    for (uint64_t block = data.value().begin_bytes / kBlockBytes; block < data_end; ++block) {
      const size_t at = block - first;
      const bool known = (frozen.known[at / 64] >> (at % 64) & 1) != 0;
      if (known || sums[at] == kSumBad || ReadBlocks(head_data_, block, 1) == 0) continue;
      const uint64_t length = std::min<uint64_t>(kBlockBytes, size_bytes_ - block * kBlockBytes);
      sums[at] = StoredSum(Crc32c(batch_->data, length));
    }
    at_bytes = data_end * kBlockBytes;
  }
}

void BlockSums::EndFrozen() {
  const bool ended = job_last_ || !job_status_.ok();
  FreezeRequest* request = ended ? std::exchange(freeze_request_, nullptr) : nullptr;
  if (!job_status_.ok()) {
    frozen_next_ = 0;
  } else if (job_last_) {
    frozen_.clear();
    frozen_next_ = 0;
  }
  if (request != nullptr) {
    request->status = job_status_;
    request->sync_failed = job_sync_failed_;
  }
  StartJob();
  if (request != nullptr) request->done(request);
}

}  // namespace ankole::replica
