#pragma once

#include <array>
#include <memory>

#include "base/buffer_pool.h"
#include "io/reactor.h"
#include "wire/shared_memory.h"

namespace ankole::engine {

// What an engine shares with all disk hosts of its machine: its buffers (read-only for them), and
// the counters by which the last member to answer wakes it.
class SharedState {
 public:
  static Result<std::unique_ptr<SharedState>> Create(io::Reactor& reactor,
                                                     const BufferPool& buffers);
  // After the doorbell was closed by CloseDoorbell.
  ~SharedState();

  io::Socket doorbell() const { return doorbell_; }
  int arena() const { return arena_; }
  uint64_t arena_bytes() const { return arena_bytes_; }
  const wire::SharedMapping& counters() const { return *counters_; }

  // How many answers are waited for, before the request is sent. 1 makes every answer ring.
  void Expect(uint32_t slot, int32_t answers);
  // Asks to be rung. After it the rings must be looked at once more.
  void Sleep();

 private:
  SharedState() = default;
  wire::SharedCounters& words() const;

  int arena_ = -1;
  uint64_t arena_bytes_ = 0;
  std::unique_ptr<wire::SharedMapping> counters_;
  io::Socket doorbell_;
};

// The engine's end of what it shares with one disk host over one connection. Made anew for each
// connection: a disk host that was given up may still write to what it had.
class SharedLink {
 public:
  static Result<std::unique_ptr<SharedLink>> Create(io::Reactor& reactor, SharedState& state);
  // Nothing is waited for any more.
  ~SharedLink();

  // What the next SHARE frame brings: 0 to kSharedParts - 1.
  int descriptor(wire::SharedPart part) const;
  uint64_t bytes(wire::SharedPart part) const;

  bool HasRoom() const { return requests_.HasRoom(); }
  // Puts a request in; HasRoom was true. `table` goes with a WRITE.
  void Push(const wire::Header& header, const std::byte* table);
  // Wakes the disk host if it sleeps. At the end of a turn.
  void Flush();

  // The next reply; false when there is none. kProtocolError when what lies there is no reply.
  bool Pop(Result<wire::Header>* header);
  bool Ready(bool* broken) const { return replies_.Ready(broken); }

  // Where READs put their data. Null when all is taken.
  BufferPool::Chunk* AcquireRead(uint32_t bytes) { return reads_->Acquire(bytes); }
  uint64_t OffsetOf(const BufferPool::Chunk* chunk) const {
    return static_cast<uint64_t>(chunk->data - reads_->arena());
  }
  BufferPool& reads() { return *reads_; }

 private:
  SharedLink(io::Reactor& reactor, SharedState& state, std::unique_ptr<wire::SharedMapping> rings,
             std::unique_ptr<BufferPool> reads, io::Socket doorbell);

  io::Reactor& reactor_;
  SharedState& state_;
  std::unique_ptr<wire::SharedMapping> rings_;
  std::unique_ptr<BufferPool> reads_;
  io::Socket host_doorbell_;  // rung here, awaited there
  wire::RingProducer requests_;
  wire::RingConsumer replies_;
};

}  // namespace ankole::engine
