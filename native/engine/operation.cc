#include "engine/operation.h"

#include <sys/mman.h>

#include <new>

namespace ankole::engine {
namespace {

// A table of the largest data, rounded so that tables share no cache line.
constexpr size_t kTableBytes = RoundUp((kDataBytesMax / kBlockBytes + 1) * 4, 64);

std::byte* ReserveSlots(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED);
  return static_cast<std::byte*>(memory);
}

}  // namespace

wire::Opcode OpcodeOf(BlockOperation kind) {
  switch (kind) {
    case BlockOperation::kRead:
      return wire::Opcode::kRead;
    case BlockOperation::kWrite:
      return wire::Opcode::kWrite;
    case BlockOperation::kZero:
      return wire::Opcode::kZero;
    case BlockOperation::kUnmap:
      return wire::Opcode::kUnmap;
    case BlockOperation::kFlush:
      return wire::Opcode::kFlush;
    case BlockOperation::kStatus:
      return wire::Opcode::kStatus;
    case BlockOperation::kLoadState:
      return wire::Opcode::kLoadState;
    case BlockOperation::kStoreState:
      return wire::Opcode::kStoreState;
    case BlockOperation::kClean:
      return wire::Opcode::kClean;
    case BlockOperation::kHold:
      break;
  }
  CHECK(false);  // a hold is nobody's but the engine's
}

OperationPool::OperationPool(size_t slots)
    : memory_(ReserveSlots(slots * sizeof(Operation))),
      tables_(ReserveSlots(slots * kTableBytes)),
      slots_(slots) {}

OperationPool::~OperationPool() {
  munmap(memory_, slots_ * sizeof(Operation));
  munmap(tables_, slots_ * kTableBytes);
}

Operation* OperationPool::Acquire() {
  Operation* operation = free_;
  if (operation != nullptr) {
    free_ = operation->next_free;
    operation->next_free = nullptr;
  } else {
    if (touched_ == slots_) return nullptr;
    operation = new (memory_ + touched_ * sizeof(Operation)) Operation();
    operation->slot = static_cast<uint32_t>(touched_);
    operation->table = tables_ + touched_ * kTableBytes;
    for (size_t i = 0; i < operation->parts.size(); ++i) {
      operation->parts[i].operation = operation;
      operation->parts[i].index = static_cast<uint8_t>(i);
    }
    ++touched_;
  }
  ++used_;
  return operation;
}

void OperationPool::Release(Operation* operation) {
  CHECK(used_ > 0 && operation->request == nullptr && !operation->locked && operation->quiet() &&
        operation->waiting == 0);
  --used_;
  operation->next_free = free_;
  free_ = operation;
}

Operation* OperationPool::At(uint32_t slot) {
  if (slot >= touched_) return nullptr;
  return std::launder(reinterpret_cast<Operation*>(memory_ + slot * sizeof(Operation)));
}

}  // namespace ankole::engine
