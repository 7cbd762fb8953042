#include "engine/shared_link.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/test.h"
#include "io/reactor_testing.h"
#include "replica/shared_end.h"

// Both ends of shared memory, the engine's played by hand where it has to be faulty.
namespace ankole::engine {
namespace {

using replica::SharedEnd;
using wire::SharedPart;

struct Ends {
  explicit Ends(io::Reactor& reactor_of_both)
      : reactor(reactor_of_both),
        buffers(BufferPool::Create("test", 4, 1, 1).Take()),
        state(SharedState::Create(reactor, *buffers).Take()),
        link(SharedLink::Create(reactor, *state).Take()),
        end(std::make_unique<SharedEnd>(reactor)) {}
  ~Ends() {
    const io::Socket rung = end->complete() ? end->doorbell() : io::Socket{};
    end.reset();
    if (rung.valid()) close(rung.fd);
    link.reset();
    close(state->doorbell().fd);
  }

  Status Take(SharedPart part) {
    return end->Take(dup(link->descriptor(part)), part, link->bytes(part));
  }
  bool TakeAll() {
    for (uint32_t part = 0; part < wire::kSharedParts; ++part) {
      if (!Take(static_cast<SharedPart>(part)).ok()) return false;
    }
    return end->complete();
  }

  io::Reactor& reactor;
  std::unique_ptr<BufferPool> buffers;
  std::unique_ptr<SharedState> state;
  std::unique_ptr<SharedLink> link;
  std::unique_ptr<SharedEnd> end;
};

void OnEnds(const std::function<void(Ends&)>& body) {
  io::ReactorOptions options;
  options.backend = io::Backend::kEpoll;
  auto reactor = io::MakeReactor(options);
  ASSERT_OK(reactor);
  Ends ends(*reactor.value());
  body(ends);
}

wire::Header Request(wire::Opcode opcode, uint64_t shared_offset_bytes) {
  wire::Header header;
  header.opcode = opcode;
  header.tag = 9;
  header.slot = 3;
  header.length_bytes = 4096;
  header.shared = true;
  header.shared_offset_bytes = shared_offset_bytes;
  return header;
}

TEST(shared_link, DataOfAWriteIsSeenAndThatOfAReadComesBack) {
  OnEnds([](Ends& ends) {
    ASSERT(ends.TakeAll());
    BufferPool::Chunk* chunk = ends.buffers->Acquire(4096);
    chunk->data[7] = std::byte{42};
    const std::byte table[4] = {};
    ends.link->Push(
        Request(wire::Opcode::kWrite, static_cast<uint64_t>(chunk->data - ends.buffers->arena())),
        table);
    BufferPool::Chunk* read = ends.link->AcquireRead(4096);
    ends.link->Push(Request(wire::Opcode::kRead, ends.link->OffsetOf(read)), nullptr);

    Result<wire::Header> request = Status(ErrorCode::kInternal, "");
    ASSERT(ends.end->Peek(&request));
    ASSERT_OK(request);
    EXPECT_EQ(static_cast<int>(ends.end->DataOf(request.value())[7]), 42);
    ends.end->Release();
    ASSERT(ends.end->Peek(&request));
    ASSERT_OK(request);
    ends.end->DataOf(request.value())[5] = std::byte{24};
    ends.end->Release();
    EXPECT(!ends.end->Peek(&request));
    EXPECT_EQ(static_cast<int>(read->data[5]), 24);

    wire::Header reply = request.value();
    reply.reply = true;
    reply.shared_offset_bytes = 0;
    ASSERT(ends.end->Reply(reply));
    Result<wire::Header> answer = Status(ErrorCode::kInternal, "");
    ASSERT(ends.link->Pop(&answer));
    ASSERT_OK(answer);
    EXPECT_EQ(answer.value().tag, 9U);
    BufferPool::Release(chunk);
    BufferPool::Release(read);
  });
}

TEST(shared_link, TheEngineIsRungByTheLastMemberOnlyAndOnlyAsleep) {
  OnEnds([](Ends& ends) {
    ASSERT(ends.TakeAll());
    const auto rings = [&] {
      uint64_t count = 0;
      return read(ends.state->doorbell().fd, &count, sizeof(count)) == sizeof(count)
                 ? static_cast<int>(count)
                 : 0;
    };
    wire::Header reply = Request(wire::Opcode::kWrite, 0);
    reply.reply = true;
    ends.state->Expect(reply.slot, 2);
    ends.state->Sleep();
    ASSERT(ends.end->Reply(reply));
    ends.end->Flush();
    EXPECT_EQ(rings(), 0);
    ASSERT(ends.end->Reply(reply));
    ends.end->Flush();
    EXPECT_EQ(rings(), 1);
    // Awake now: whoever answers last says nothing.
    ends.state->Expect(reply.slot, 1);
    ASSERT(ends.end->Reply(reply));
    ends.end->Flush();
    EXPECT_EQ(rings(), 0);
    // An answer more than was expected rings as well, rather than be forgotten.
    ends.state->Sleep();
    ASSERT(ends.end->Reply(reply));
    ends.end->Flush();
    EXPECT_EQ(rings(), 1);
  });
}

TEST(shared_link, PartsComeInTheirOrderAndAreWhatTheyMustBe) {
  OnEnds([](Ends& ends) {
    EXPECT_EQ(ends.Take(SharedPart::kReadArea).code(), ErrorCode::kProtocolError);
    ASSERT_OK(ends.Take(SharedPart::kRings));
    // A descriptor that is no memory, and memory of another size than is said.
    EXPECT_EQ(
        ends.end->Take(open("/dev/zero", O_RDWR | O_CLOEXEC), SharedPart::kReadArea, 4096).code(),
        ErrorCode::kProtocolError);
    EXPECT_EQ(ends.end
                  ->Take(dup(ends.link->descriptor(SharedPart::kReadArea)), SharedPart::kReadArea,
                         ends.link->bytes(SharedPart::kReadArea) + 4096)
                  .code(),
              ErrorCode::kProtocolError);
    ASSERT_OK(ends.Take(SharedPart::kReadArea));
    ASSERT_OK(ends.Take(SharedPart::kWriteArena));
    ASSERT_OK(ends.Take(SharedPart::kCounters));
    // A doorbell that could block whoever rings it.
    EXPECT_EQ(ends.end->Take(eventfd(0, EFD_CLOEXEC), SharedPart::kHostDoorbell, 0).code(),
              ErrorCode::kProtocolError);
    EXPECT(!ends.end->complete());
  });
}

TEST(shared_link, WhatAFaultyEngineWritesIsRefused) {
  OnEnds([](Ends& ends) {
    ASSERT(ends.TakeAll());
    const std::unique_ptr<wire::SharedMapping> mapping =
        wire::SharedMapping::Adopt(dup(ends.link->descriptor(SharedPart::kRings)),
                                   ends.link->bytes(SharedPart::kRings), true)
            .Take();
    auto& rings = *reinterpret_cast<wire::SharedRings*>(mapping->data());
    // Data outside of what is shared.
    EXPECT(ends.end->DataOf(Request(wire::Opcode::kRead,
                                    ends.link->bytes(SharedPart::kReadArea) - 2048)) == nullptr);
    EXPECT(ends.end->DataOf(Request(wire::Opcode::kWrite, UINT64_MAX - 100)) == nullptr);
    // Bytes that are no frame.
    Result<wire::Header> request = Status(ErrorCode::kInternal, "");
    rings.requests.entries[0][5] = std::byte{0xff};
    rings.requests.tail = 1;
    ASSERT(ends.end->Peek(&request));
    EXPECT_EQ(request.status().code(), ErrorCode::kProtocolError);
    // An index that cannot be.
    rings.requests.tail = wire::kRingEntries * 2 + 5;
    ASSERT(ends.end->Peek(&request));
    EXPECT_EQ(request.status().code(), ErrorCode::kProtocolError);
    // Replies that are never taken: the disk host does not wait for room.
    wire::Header reply = Request(wire::Opcode::kWrite, 0);
    reply.reply = true;
    for (uint32_t i = 0; i < wire::kRingEntries; ++i) ASSERT(ends.end->Reply(reply));
    EXPECT(!ends.end->Reply(reply));
  });
}

}  // namespace
}  // namespace ankole::engine
