#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/block_device.h"
#include "base/check.h"
#include "io/reactor.h"

namespace ankole::io {

// A small volume in memory, for tests and the fuzzers: late, out of order and failing on request.
// It holds a front end to everything that BlockDevice asks of it.
class MemoryDevice final : public BlockDevice {
 public:
  MemoryDevice(io::Reactor& reactor, BufferPool& pool, std::string name, uint64_t size_bytes)
      : reactor_(reactor),
        pool_(pool),
        name_(std::move(name)),
        bytes_(size_bytes),
        allocated_(size_bytes / kBlockBytes) {
    task_.owner = this;
    task_.done = [](io::Operation* o) { static_cast<MemoryDevice*>(o->owner)->Finish(); };
  }

  const std::string& name() const override { return name_; }
  uint64_t size_bytes() const override { return bytes_.size(); }
  bool read_only() const override { return write_protected; }
  BufferPool& buffers() override { return pool_; }
  void Grow(uint64_t size_bytes) {
    bytes_.resize(size_bytes);
    allocated_.resize(size_bytes / kBlockBytes);
  }

  void Submit(BlockRequest* request) override {
    const bool state = request->operation == BlockOperation::kLoadState ||
                       request->operation == BlockOperation::kStoreState;
    const bool flush = request->operation == BlockOperation::kFlush;
    CHECK(flush == (request->length_bytes == 0));
    if (state) {
      CHECK(request->length_bytes == kTargetStateBytes && request->offset_bytes == 0);
      CHECK(pool_.Contains(request->data));
      CHECK(pool_.Contains(request->data + kTargetStateBytes - 1));
    }
    if (request->hold != nullptr) {
      const BlockRequest& hold = *request->hold;
      CHECK(hold.held_by == this && request->offset_bytes >= hold.offset_bytes &&
            request->offset_bytes + request->length_bytes <= hold.offset_bytes + hold.length_bytes);
    }
    CHECK(request->offset_bytes % kSectorBytes == 0 && request->length_bytes % kSectorBytes == 0);
    CHECK(request->offset_bytes <= bytes_.size());
    CHECK(state || request->length_bytes <= bytes_.size() - request->offset_bytes);
    CHECK(request->status == ErrorCode::kOk);
    if (request->operation == BlockOperation::kRead ||
        request->operation == BlockOperation::kWrite) {
      CHECK(request->length_bytes <= kDataBytesMax);
      CHECK(pool_.Contains(request->data));
      CHECK(pool_.Contains(request->data + request->length_bytes - 1));
    }
    pending_.push_back(request);
    ++submitted;
    pending_max = std::max(pending_max, pending_.size());
    if (!held) reactor_.Defer(&task_);
  }

  void Release(BlockRequest* hold) override {
    CHECK(hold->held_by == this);
    hold->held_by = nullptr;
    holds_.erase(std::find(holds_.begin(), holds_.end(), hold));
    reactor_.Defer(&task_);
  }

  void ClientCame() override { ++clients; }
  void ClientLeft() override { --clients; }

  // Finishes what is pending, and the later ones at once again.
  void LetGo() {
    held = false;
    reactor_.Defer(&task_);
  }

  size_t pending() const { return pending_.size(); }
  std::vector<std::byte>& bytes() { return bytes_; }

  size_t holds() const { return holds_.size(); }
  std::vector<std::byte>& state() { return state_; }

  bool write_protected = false;  // said to front ends, which refuse
  int clients = 0;               // that have come and not left
  bool held = false;             // requests stay pending until LetGo
  bool shuffled = false;         // requests that are pending together finish in any order
  // What a request ends with; data is not touched by one that fails. Null: kOk.
  std::function<ErrorCode(const BlockRequest&)> fault;
  uint64_t submitted = 0;
  uint64_t durable = 0;  // requests with force_unit_access
  size_t pending_max = 0;

 private:
  void Finish() {
    if (held) return;
    std::vector<BlockRequest*> now;
    now.swap(pending_);
    if (shuffled) std::shuffle(now.begin(), now.end(), random_);
    for (BlockRequest* request : now) {
      if (Waits(*request)) {
        pending_.push_back(request);
        continue;
      }
      request->status = fault ? fault(*request) : ErrorCode::kOk;
      durable += request->force_unit_access ? 1 : 0;
      if (request->status == ErrorCode::kOk) Execute(request);
      request->done(request);
    }
  }

  // Rule 4, as far as holds go: nothing else touches a range that is held.
  bool Waits(const BlockRequest& request) const {
    if (request.hold != nullptr) return false;
    for (const BlockRequest* hold : holds_) {
      if (request.offset_bytes < hold->offset_bytes + hold->length_bytes &&
          hold->offset_bytes < request.offset_bytes + request.length_bytes &&
          request.operation != BlockOperation::kLoadState &&
          request.operation != BlockOperation::kStoreState) {
        return true;
      }
    }
    return false;
  }

  void Execute(BlockRequest* request) {
    std::byte* at = bytes_.data() + request->offset_bytes;
    const uint64_t first = request->offset_bytes / kBlockBytes;
    const uint64_t end = DivideUp(request->offset_bytes + request->length_bytes, kBlockBytes);
    switch (request->operation) {
      case BlockOperation::kRead:
        std::memcpy(request->data, at, request->length_bytes);
        break;
      case BlockOperation::kWrite:
        std::memcpy(at, request->data, request->length_bytes);
        for (uint64_t i = first; i < end; ++i) allocated_[i] = true;
        break;
      case BlockOperation::kZero:
      case BlockOperation::kUnmap:
        std::memset(at, 0, request->length_bytes);
        if (!request->keep_allocated) {
          for (uint64_t i = DivideUp(request->offset_bytes, kBlockBytes);
               i < (request->offset_bytes + request->length_bytes) / kBlockBytes; ++i) {
            allocated_[i] = false;
          }
        }
        break;
      case BlockOperation::kFlush:
        break;
      case BlockOperation::kLoadState:
        std::memcpy(request->data, state_.data(), kTargetStateBytes);
        break;
      case BlockOperation::kStoreState:
        std::memcpy(state_.data(), request->data, kTargetStateBytes);
        break;
      case BlockOperation::kClean:
        break;
      case BlockOperation::kHold:
        request->held_by = this;
        holds_.push_back(request);
        break;
      case BlockOperation::kStatus:
        // One extent a block, so that joining them is left to the front end.
        for (uint64_t i = first; i < end && request->extents_count < request->extents_max; ++i) {
          const uint64_t from = std::max(i * kBlockBytes, request->offset_bytes);
          BlockExtent& extent = request->extents[request->extents_count++];
          extent = {(i + 1) * kBlockBytes - from, !allocated_[i], !allocated_[i]};
        }
        break;
    }
  }

  io::Reactor& reactor_;
  BufferPool& pool_;
  const std::string name_;
  std::vector<std::byte> bytes_;
  std::vector<bool> allocated_;
  std::vector<BlockRequest*> pending_;
  std::vector<BlockRequest*> holds_;
  std::vector<std::byte> state_ = std::vector<std::byte>(kTargetStateBytes);
  std::mt19937 random_{7};
  io::Task task_;
};

}  // namespace ankole::io
