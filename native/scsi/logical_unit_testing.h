#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/test.h"
#include "io/memory_device.h"
#include "nbd/scripted_reactor.h"
#include "scsi/logical_unit.h"

// A logical unit on a volume in memory, without a kernel, and a transport that does what a task
// says.
namespace ankole::scsi {

using Bytes = std::vector<std::byte>;

inline Bytes Filled(size_t count, int value) { return Bytes(count, std::byte(value)); }
inline uint8_t At(const Bytes& bytes, size_t index) {
  return static_cast<uint8_t>(bytes.at(index));
}

class ListLog final : public LogSink {
 public:
  void Log(LogLevel, const std::string& message) override { lines.push_back(message); }
  std::vector<std::string> lines;
};

// A CDB by its first bytes; the rest is zero.
inline Cdb MakeCdb(std::initializer_list<int> bytes) {
  Cdb cdb = {};
  size_t at = 0;
  for (const int byte : bytes) cdb[at++] = static_cast<uint8_t>(byte);
  return cdb;
}
// READ(10), WRITE(10) and their kin.
inline Cdb Cdb10(int operation, uint32_t lba, uint16_t blocks, int flags = 0) {
  Cdb cdb = MakeCdb({operation, flags});
  StoreBig32(&cdb[2], lba);
  StoreBig16(&cdb[7], blocks);
  return cdb;
}
inline Cdb Cdb16(int operation, uint64_t lba, uint32_t blocks, int flags = 0) {
  Cdb cdb = MakeCdb({operation, flags});
  StoreBig64(&cdb[2], lba);
  StoreBig32(&cdb[10], blocks);
  return cdb;
}

inline BufferPool& TestPool() {
  static BufferPool* pool = BufferPool::Create("scsi-test", 64, 16, 64).Take().release();
  return *pool;
}

// A command that is on its way. Owns what the transport owns.
struct Flight {
  Task task;
  Needs needs;
  bool ended = false;
  Bytes data;  // Data-In, when it has ended
  std::vector<BufferPool::Chunk*> chunks;

  ~Flight() {
    for (BufferPool::Chunk* chunk : chunks) BufferPool::Release(chunk);
  }

  ScsiStatus status() const { return task.status; }
  bool good() const { return ended && !task.aborted && task.status == ScsiStatus::kGood; }
  bool Is(SenseKey key, SenseCode code) const {
    return ended && task.status == ScsiStatus::kCheckCondition && task.sense.key == key &&
           task.sense.code == code;
  }
  bool Illegal(SenseCode code) const { return Is(SenseKey::kIllegalRequest, code); }
  // What is wrong, for people.
  std::string Show() const {
    if (!ended) return "not ended";
    char text[100];
    std::snprintf(text, sizeof(text), "status %02x, sense %x/%04x",
                  static_cast<unsigned>(task.status), static_cast<unsigned>(task.sense.key),
                  static_cast<unsigned>(task.sense.code));
    return text;
  }
};

// How a command is sent.
struct How {
  Bytes out = {};
  // Less than the command wants; SIZE_MAX: all.
  size_t in_room_bytes = SIZE_MAX;
  TaskAttribute attribute = TaskAttribute::kSimple;
  std::array<uint8_t, 8> lun = {};
  uint32_t announced = 0;
};

class Bench {
 public:
  static constexpr uint64_t kSizeBytes = 16 * kMiB;
  static constexpr uint64_t kBlocks = kSizeBytes / kLogicalBlockBytes;

  explicit Bench(uint64_t size_bytes = kSizeBytes)
      : device(reactor, TestPool(), "volume", size_bytes) {
    Restart();
  }
  ~Bench() {
    Stop();
    flights_.clear();
    CHECK(TestPool().held_bytes() == 0);
  }

  // Another engine comes, on the same volume.
  void Restart() {
    Stop();
    unit = std::make_unique<LogicalUnit>(reactor, device, log, identity);
    started = Status(ErrorCode::kBusy, "still starting");
    unit->Start([this](const Status& status) { started = status; });
    reactor.Turn();
    if (!started.ok()) return;
    a = Join("iqn.a,i,0x000000000001");
    b = Join("iqn.b,i,0x000000000002");
  }
  void Stop() {
    device.LetGo();
    reactor.Turn();
    for (Nexus* nexus : nexuses_) unit->RemoveNexus(nexus);
    nexuses_.clear();
    unit.reset();
  }
  // A nexus that knows already of its power on.
  Nexus* Join(const std::string& port) {
    Nexus* nexus = unit->AddNexus(port);
    nexuses_.push_back(nexus);
    Run(nexus, MakeCdb({0x00}));
    return nexus;
  }
  void Leave(Nexus* nexus) {
    unit->RemoveNexus(nexus);
    std::erase(nexuses_, nexus);
  }

  // Begins it. What is left of `out` after the command's need is dropped.
  Flight& Begin(Nexus* nexus, const Cdb& cdb, const How& how = {}) {
    Flight& flight = flights_.emplace_back();
    flight.task.nexus = nexus;
    flight.task.cdb = cdb;
    flight.task.attribute = how.attribute;
    flight.task.lun = how.lun;
    flight.task.announced_out_bytes = how.announced;
    flight.task.owner = &flight;
    flight.task.done = [](Task* task) {
      auto* ended = static_cast<Flight*>(task->owner);
      CHECK(!ended->ended);
      CHECK(task->in_bytes <= task->in_room_bytes && task->in_bytes <= task->wanted_bytes);
      ended->ended = true;
      ended->data.resize(task->in_bytes);
      Copy(task->in, ended->data.data(), ended->data.size(), false);
    };
    flight.needs = unit->Prepare(&flight.task);
    flight.task.out_bytes =
        static_cast<uint32_t>(std::min<size_t>(flight.needs.out_bytes, how.out.size()));
    flight.task.in_room_bytes =
        static_cast<uint32_t>(std::min<size_t>(flight.needs.in_bytes, how.in_room_bytes));
    Provide(&flight, flight.task.out_bytes, &flight.task.out);
    Copy(flight.task.out, const_cast<std::byte*>(how.out.data()), flight.task.out_bytes, true);
    Provide(&flight, static_cast<uint32_t>(RoundUp(flight.task.in_room_bytes, kSectorBytes)),
            &flight.task.in);
    Provide(&flight, flight.needs.scratch_bytes, &flight.task.scratch);
    unit->Execute(&flight.task);
    CHECK(!flight.ended);
    return flight;
  }
  Flight& Run(Nexus* nexus, const Cdb& cdb, const How& how = {}) {
    Flight& flight = Begin(nexus, cdb, how);
    reactor.Turn();
    return flight;
  }
  Flight& Run(const Cdb& cdb, Bytes out = {}) { return Run(a, cdb, {.out = std::move(out)}); }

  Bytes Medium(uint64_t lba, uint64_t blocks) {
    const auto from = device.bytes().begin() + static_cast<ptrdiff_t>(lba * kLogicalBlockBytes);
    return {from, from + static_cast<ptrdiff_t>(blocks * kLogicalBlockBytes)};
  }
  void Fill(uint64_t lba, uint64_t blocks, int value) {
    std::fill_n(device.bytes().begin() + static_cast<ptrdiff_t>(lba * kLogicalBlockBytes),
                blocks * kLogicalBlockBytes, std::byte(value));
  }

  nbd::ScriptedReactor reactor;
  ListLog log;
  io::MemoryDevice device;
  Identity identity = {"iqn.2024-01.test:volume", "serial-1"};  // from the next Restart on
  std::unique_ptr<LogicalUnit> unit;
  Status started = Status(ErrorCode::kBusy, "not started");
  Nexus* a = nullptr;
  Nexus* b = nullptr;

 private:
  static void Copy(const Segments& segments, std::byte* flat, size_t bytes, bool to_segments) {
    for (size_t at = 0; at < bytes; at += kDataBytesMax) {
      const size_t part = std::min<size_t>(bytes - at, kDataBytesMax);
      std::byte* segment = segments[at / kDataBytesMax].data;
      std::memcpy(to_segments ? segment : flat + at, to_segments ? flat + at : segment, part);
    }
  }
  static void Provide(Flight* flight, uint32_t bytes, Segments* to) {
    *to = {};
    for (uint32_t at = 0; at < bytes; at += kDataBytesMax) {
      const auto part = static_cast<uint32_t>(std::min<uint64_t>(bytes - at, kDataBytesMax));
      BufferPool::Chunk* chunk = TestPool().Acquire(part);
      CHECK(chunk != nullptr);
      // What was not written by the command is not mistaken for its answer.
      std::memset(chunk->data, 0xee, part);
      flight->chunks.push_back(chunk);
      (*to)[at / kDataBytesMax] = {chunk->data, part};
    }
  }

  std::vector<Nexus*> nexuses_;
  std::deque<Flight> flights_;
};

#define EXPECT_GOOD(flight)                                                                   \
  do {                                                                                        \
    const auto& of_flight = (flight);                                                         \
    if (!of_flight.good())                                                                    \
      ::ankole::test::Fail(__FILE__, __LINE__, std::string(#flight ": ") + of_flight.Show()); \
  } while (0)

}  // namespace ankole::scsi
