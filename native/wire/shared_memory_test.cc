#include "wire/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <thread>

#include "base/test.h"

namespace ankole::wire {
namespace {

std::unique_ptr<SharedMapping> Rings() {
  return SharedMapping::Create("test-rings", sizeof(SharedRings)).Take();
}

SharedRing& Requests(const SharedMapping& mapping) {
  return reinterpret_cast<SharedRings*>(mapping.data())->requests;
}

void PutNumber(RingProducer& producer, uint64_t number) {
  std::memcpy(producer.entry(), &number, sizeof(number));
  producer.Publish();
}

uint64_t TakeNumber(RingConsumer& consumer) {
  std::array<std::byte, kHeaderBytes> bytes;
  consumer.CopyTo(bytes);
  consumer.Release();
  uint64_t number;
  std::memcpy(&number, bytes.data(), sizeof(number));
  return number;
}

TEST(shared_memory, ARingHoldsItsEntriesInOrderAndNoMore) {
  const std::unique_ptr<SharedMapping> mapping = Rings();
  RingProducer producer(Requests(*mapping));
  RingConsumer consumer(Requests(*mapping));
  bool broken = false;
  EXPECT(!consumer.Ready(&broken));
  uint64_t put = 0;
  uint64_t taken = 0;
  for (int round = 0; round < 5; ++round) {
    while (producer.HasRoom()) PutNumber(producer, put++);
    EXPECT_EQ(put - taken, uint64_t{kRingEntries});
    for (int i = 0; i < 700; ++i) EXPECT_EQ(TakeNumber(consumer), taken++);
  }
  while (consumer.Ready(&broken)) EXPECT_EQ(TakeNumber(consumer), taken++);
  EXPECT_EQ(put, taken);
  EXPECT(!broken);
}

TEST(shared_memory, IndicesThatCannotBeAreSeen) {
  const std::unique_ptr<SharedMapping> mapping = Rings();
  SharedRing& ring = Requests(*mapping);
  RingProducer producer(ring);
  RingConsumer consumer(ring);
  bool broken = false;
  ring.tail = kRingEntries + 1;
  EXPECT(!consumer.Ready(&broken));
  EXPECT(broken);
  ring.head = 5;  // ahead of what was produced
  EXPECT(!producer.HasRoom());
}

// The sleeper is rung whenever it must be: each side goes on only when the other one did.
TEST(shared_memory, NoSleeperIsForgotten) {
  const std::unique_ptr<SharedMapping> mapping = Rings();
  SharedRing& ring = Requests(*mapping);
  constexpr uint64_t kNumbers = 20'000;
  std::atomic<int> rung = 0;
  std::thread thread([&] {
    RingProducer producer(ring);
    for (uint64_t i = 0; i < kNumbers; ++i) {
      while (!producer.HasRoom()) std::this_thread::yield();
      PutNumber(producer, i);
      if (producer.TakeSleep()) rung.fetch_add(1);
    }
  });
  RingConsumer consumer(ring);
  bool broken = false;
  uint64_t expected = 0;
  while (expected < kNumbers) {
    if (consumer.Ready(&broken)) {
      EXPECT_EQ(TakeNumber(consumer), expected);
      ++expected;
      continue;
    }
    consumer.Sleep();
    if (consumer.Ready(&broken)) {
      consumer.WakeUp();
      continue;
    }
    // Asleep: only a ring can wake it, so one must come.
    while (rung.load() == 0) std::this_thread::yield();
    rung.store(0);
  }
  thread.join();
  EXPECT(!broken);
}

TEST(shared_memory, OnlySealedMemoryOfTheSaidSizeIsTaken) {
  const auto refuses = [](int descriptor, uint64_t bytes) {
    return SharedMapping::Adopt(descriptor, bytes, true).status().code() ==
           ErrorCode::kProtocolError;
  };
  const std::unique_ptr<SharedMapping> mapping = SharedMapping::Create("test", 8192).Take();
  EXPECT(refuses(dup(mapping->descriptor()), 4096));
  EXPECT(refuses(dup(mapping->descriptor()), 0));
  EXPECT(refuses(dup(mapping->descriptor()), UINT64_MAX));
  EXPECT(refuses(open("/dev/null", O_RDWR | O_CLOEXEC), 8192));
  const int unsealed = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT(ftruncate(unsealed, 8192) == 0);
  EXPECT(refuses(unsealed, 8192));
  const Result<int> read_only = ReopenReadOnly(mapping->descriptor());
  ASSERT_OK(read_only);
  EXPECT(refuses(dup(read_only.value()), 8192));  // cannot be written through
  const auto adopted = SharedMapping::Adopt(read_only.value(), 8192, false);
  ASSERT_OK(adopted);
  mapping->data()[5] = std::byte{7};
  EXPECT_EQ(static_cast<int>(adopted.value()->data()[5]), 7);
}

TEST(shared_memory, OffsetsOutsideAreNull) {
  const std::unique_ptr<SharedMapping> mapping = SharedMapping::Create("test", 8192).Take();
  EXPECT(mapping->At(0, 8192) == mapping->data());
  EXPECT(mapping->At(8192, 0) == mapping->data() + 8192);
  EXPECT(mapping->At(1, 8192) == nullptr);
  EXPECT(mapping->At(8193, 0) == nullptr);
  EXPECT(mapping->At(UINT64_MAX, 2) == nullptr);
}

TEST(shared_memory, FramesOfARingHaveNoPayloadAndOnlyDataGoesThere) {
  std::array<std::byte, kHeaderBytes> bytes;
  Header header;
  header.opcode = Opcode::kWrite;
  header.offset_bytes = 4096;
  header.length_bytes = 8192;
  header.shared = true;
  header.shared_offset_bytes = 123;
  EncodeHeader(header, bytes.data());
  const Result<Header> decoded = DecodeSharedHeader(bytes);
  ASSERT_OK(decoded);
  EXPECT_EQ(decoded.value().shared_offset_bytes, 123U);
  EXPECT(decoded.value().shared);
  // On a stream the same bytes are none: the offset is reserved there, the payload is missing.
  EXPECT(!DecodeHeader(bytes).ok());
  Header record;
  record.opcode = Opcode::kRecord;
  EncodeHeader(record, bytes.data());
  EXPECT(!DecodeSharedHeader(bytes).ok());
}

}  // namespace
}  // namespace ankole::wire
