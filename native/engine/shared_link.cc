#include "engine/shared_link.h"

#include <unistd.h>

#include <cstring>

namespace ankole::engine {
namespace {

// READs that are outstanding at one disk host at a time: all that one link can have of small ones,
// and 16 MiB of large ones. What finds none goes over the socket.
constexpr size_t kSmallReads = 256;
constexpr size_t kMediumReads = 64;
constexpr size_t kLargeReads = 16;

wire::SharedRings& RingsOf(const wire::SharedMapping& mapping) {
  return *reinterpret_cast<wire::SharedRings*>(mapping.data());
}

}  // namespace

Result<std::unique_ptr<SharedState>> SharedState::Create(io::Reactor& reactor,
                                                         const BufferPool& buffers) {
  std::unique_ptr<SharedState> state(new SharedState());
  Result<std::unique_ptr<wire::SharedMapping>> counters =
      wire::SharedMapping::Create("ankole-counters", sizeof(wire::SharedCounters));
  if (!counters.ok()) return counters.status();
  state->counters_ = counters.Take();
  Result<int> arena = wire::ReopenReadOnly(buffers.memfd());
  if (!arena.ok()) return arena.status();
  state->arena_ = arena.value();
  state->arena_bytes_ = buffers.arena_bytes();
  Result<io::Socket> doorbell = reactor.MakeDoorbell();
  if (!doorbell.ok()) return doorbell.status();
  state->doorbell_ = doorbell.value();
  return state;
}

SharedState::~SharedState() {
  if (arena_ >= 0) close(arena_);
}

wire::SharedCounters& SharedState::words() const {
  return *reinterpret_cast<wire::SharedCounters*>(counters_->data());
}

void SharedState::Expect(uint32_t slot, int32_t answers) {
  std::atomic_ref<int32_t>(words().waiting[slot]).store(answers, std::memory_order_relaxed);
}

void SharedState::Sleep() {
  wire::Atomic(words().engine_sleeps).exchange(1, std::memory_order_acq_rel);
}

Result<std::unique_ptr<SharedLink>> SharedLink::Create(io::Reactor& reactor, SharedState& state) {
  Result<std::unique_ptr<wire::SharedMapping>> rings =
      wire::SharedMapping::Create("ankole-rings", sizeof(wire::SharedRings));
  if (!rings.ok()) return rings.status();
  Result<std::unique_ptr<BufferPool>> reads =
      BufferPool::Create("ankole-reads", kSmallReads, kMediumReads, kLargeReads);
  if (!reads.ok()) return reads.status();
  Result<io::Socket> doorbell = reactor.MakeDoorbell();
  if (!doorbell.ok()) return doorbell.status();
  return std::unique_ptr<SharedLink>(
      new SharedLink(reactor, state, rings.Take(), reads.Take(), doorbell.value()));
}

SharedLink::SharedLink(io::Reactor& reactor, SharedState& state,
                       std::unique_ptr<wire::SharedMapping> rings,
                       std::unique_ptr<BufferPool> reads, io::Socket doorbell)
    : reactor_(reactor),
      state_(state),
      rings_(std::move(rings)),
      reads_(std::move(reads)),
      host_doorbell_(doorbell),
      requests_(RingsOf(*rings_).requests),
      replies_(RingsOf(*rings_).replies) {}

SharedLink::~SharedLink() { close(host_doorbell_.fd); }

int SharedLink::descriptor(wire::SharedPart part) const {
  switch (part) {
    case wire::SharedPart::kRings:
      return rings_->descriptor();
    case wire::SharedPart::kReadArea:
      return reads_->memfd();
    case wire::SharedPart::kWriteArena:
      return state_.arena();
    case wire::SharedPart::kCounters:
      return state_.counters().descriptor();
    case wire::SharedPart::kHostDoorbell:
      return host_doorbell_.fd;
    case wire::SharedPart::kEngineDoorbell:
      return state_.doorbell().fd;
  }
  CHECK(false);
}

uint64_t SharedLink::bytes(wire::SharedPart part) const {
  switch (part) {
    case wire::SharedPart::kRings:
      return rings_->bytes();
    case wire::SharedPart::kReadArea:
      return reads_->arena_bytes();
    case wire::SharedPart::kWriteArena:
      return state_.arena_bytes();
    case wire::SharedPart::kCounters:
      return state_.counters().bytes();
    case wire::SharedPart::kHostDoorbell:
    case wire::SharedPart::kEngineDoorbell:
      return 0;
  }
  CHECK(false);
}

void SharedLink::Push(const wire::Header& header, const std::byte* table) {
  wire::EncodeHeader(header, requests_.entry());
  if (header.carries_data()) {
    std::memcpy(RingsOf(*rings_).tables[requests_.index()], table, header.table_bytes());
  }
  requests_.Publish();
}

void SharedLink::Flush() {
  if (requests_.TakeSleep()) reactor_.Ring(host_doorbell_);
}

bool SharedLink::Pop(Result<wire::Header>* header) {
  bool broken = false;
  if (!replies_.Ready(&broken)) {
    if (!broken) return false;
    *header = Status(ErrorCode::kProtocolError, "the ring of replies is broken");
    return true;
  }
  std::array<std::byte, wire::kHeaderBytes> bytes;
  replies_.CopyTo(bytes);
  replies_.Release();
  *header = wire::DecodeSharedHeader(bytes);
  if (header->ok() && !header->value().reply) {
    *header = Status(ErrorCode::kProtocolError, "a request in the ring of replies");
  }
  return true;
}

}  // namespace ankole::engine
