#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/limits.h"
#include "base/result.h"
#include "wire/frame.h"

// The replication protocol's frames through memory that an engine and a disk host of one machine
// share, beside their Unix socket: docs/internals/wire-protocol.md, «Shared memory».
//
// What lies there may change at any time, as the other side may be faulty: everything is copied out
// before it is checked, and every index and offset is checked before it is used.
namespace ankole::wire {

// HELLO and challenge: both sides can share memory.
inline constexpr uint32_t kFeatureSharedMemory = 1;

// The descriptors that SHARE frames bring, one each, in this order.
enum class SharedPart : uint32_t {
  kRings = 0,         // memfd: SharedRings
  kReadArea = 1,      // memfd: where READs put their data. This link's own
  kWriteArena = 2,    // memfd, read-only: the engine's buffers, WRITEs' data
  kCounters = 3,      // memfd: SharedCounters, the engine's with all its members
  kHostDoorbell = 4,  // eventfd: the disk host sleeps on it
  kEngineDoorbell = 5,
};
inline constexpr uint32_t kSharedParts = 6;
// Payload of SHARE: u32 part, u32 zero, u64 bytes of the mapping.
inline constexpr size_t kShareBytes = 16;

// Entries of a ring; a power of two. An engine has no more outstanding at one replica that way.
inline constexpr uint32_t kRingEntries = 1024;
// Room for the checksums of one WRITE.
inline constexpr size_t kSharedTableBytes = 1088;
static_assert(kSharedTableBytes >= (kDataBytesMax / kBlockBytes + 1) * 4);

// One direction: a single producer and a single consumer. Indices grow for ever and wrap around.
struct SharedRing {
  alignas(64) uint32_t tail;    // next to be produced; the producer's
  alignas(64) uint32_t head;    // next to be consumed; the consumer's
  alignas(64) uint32_t sleeps;  // 1: the consumer wants to be rung
  alignas(64) std::byte entries[kRingEntries][kHeaderBytes];
};

struct SharedRings {
  SharedRing requests;  // engine to disk host
  SharedRing replies;
  // The checksums of the WRITE in the request's entry of the same index.
  std::byte tables[kRingEntries][kSharedTableBytes];
};
static_assert(offsetof(SharedRing, entries) == 192);
static_assert(sizeof(SharedRing) == 192 + size_t{kRingEntries} * kHeaderBytes);
static_assert(offsetof(SharedRings, replies) == sizeof(SharedRing));
static_assert(offsetof(SharedRings, tables) == 2 * sizeof(SharedRing));

struct SharedCounters {
  alignas(64) uint32_t engine_sleeps;  // 1: the engine wants to be rung
  // By slot: how many members have not answered. Whoever brings it to zero, or finds it there,
  // rings.
  alignas(64) int32_t waiting[kEngineOperationsMax];
};

// A mapping of a descriptor, both released with it.
class SharedMapping {
 public:
  // A new memfd of that size, sealed against shrinking and growing.
  static Result<std::unique_ptr<SharedMapping>> Create(const char* name, size_t bytes);
  // Takes over a descriptor that a peer sent. kProtocolError when it is no memfd of that size that
  // is sealed against shrinking (a page that goes away would kill whoever touches it).
  static Result<std::unique_ptr<SharedMapping>> Adopt(int descriptor, uint64_t bytes,
                                                      bool writable);
  ~SharedMapping();
  SharedMapping(const SharedMapping&) = delete;
  SharedMapping& operator=(const SharedMapping&) = delete;

  int descriptor() const { return descriptor_; }
  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  // Where [offset, offset + length) lies; null when it is not within.
  std::byte* At(uint64_t offset_bytes, uint64_t length_bytes) const {
    const bool within = offset_bytes <= bytes_ && length_bytes <= bytes_ - offset_bytes;
    return within ? data_ + offset_bytes : nullptr;
  }

 private:
  SharedMapping(int descriptor, std::byte* data, size_t bytes)
      : descriptor_(descriptor), data_(data), bytes_(bytes) {}

  int descriptor_;
  std::byte* data_;
  size_t bytes_;
};

// A descriptor of the same memory that cannot be written through.
Result<int> ReopenReadOnly(int descriptor);

inline std::atomic_ref<uint32_t> Atomic(uint32_t& word) { return std::atomic_ref<uint32_t>(word); }

// The producer's end.
class RingProducer {
 public:
  explicit RingProducer(SharedRing& ring) : ring_(ring), tail_(Atomic(ring.tail).load()) {}
  // Whether the next Publish has room. A head that the consumer could not have counts as none.
  bool HasRoom() const {
    return tail_ - Atomic(ring_.head).load(std::memory_order_acquire) < kRingEntries;
  }
  uint32_t index() const { return tail_ % kRingEntries; }
  std::byte* entry() const { return ring_.entries[index()]; }
  // Makes the entry visible.
  void Publish() { Atomic(ring_.tail).store(++tail_, std::memory_order_release); }
  // Whether the consumer sleeps and was not rung since; then the caller rings. Both sides exchange
  // the same word: whoever comes second sees what the first one did before, so that no fence is
  // needed.
  bool TakeSleep() { return Atomic(ring_.sleeps).exchange(0, std::memory_order_acq_rel) != 0; }

 private:
  SharedRing& ring_;
  uint32_t tail_;
};

// The consumer's end.
class RingConsumer {
 public:
  explicit RingConsumer(SharedRing& ring) : ring_(ring), head_(Atomic(ring.head).load()) {}
  // Whether there is an entry. `broken` is set when the producer claims what cannot be.
  bool Ready(bool* broken) const {
    const uint32_t count = Atomic(ring_.tail).load(std::memory_order_acquire) - head_;
    if (count > kRingEntries) *broken = true;
    return count > 0 && count <= kRingEntries;
  }
  uint32_t index() const { return head_ % kRingEntries; }
  void CopyTo(std::span<std::byte, kHeaderBytes> to) const;
  void Release() { Atomic(ring_.head).store(++head_, std::memory_order_release); }
  // Asks to be rung. After it Ready must be asked once more.
  void Sleep() { Atomic(ring_.sleeps).exchange(1, std::memory_order_acq_rel); }
  void WakeUp() { Atomic(ring_.sleeps).store(0, std::memory_order_relaxed); }

 private:
  SharedRing& ring_;
  uint32_t head_;
};

}  // namespace ankole::wire
