#include <cstring>
#include <deque>
#include <random>
#include <vector>

#include "io/memory_device.h"
#include "nbd/scripted_reactor.h"
#include "scsi/logical_unit.h"

// Owns Decode, and drives a logical unit with two initiators on a volume in memory. Byte 0 chooses
// how the device behaves, byte 1 when it goes on; then come commands: how it is sent, how many
// bytes of Data-Out there are, the CDB, the Data-Out.
namespace ankole::scsi {
namespace {

constexpr uint64_t kVolumeBytes = 2 * kMiB;
constexpr size_t kCommandsMax = 24;

class NoLog final : public LogSink {
 public:
  void Log(LogLevel, const std::string&) override {}
};

BufferPool& Pool() {
  static BufferPool* pool = BufferPool::Create("scsi-fuzz", 80, 8, 64).Take().release();
  return *pool;
}

// What the transport would hold for a command.
struct Flight {
  Task task;
  bool ended = false;
  std::vector<BufferPool::Chunk*> chunks;
};

bool Provide(uint32_t bytes, Flight* to, Segments* segments) {
  *segments = {};
  for (uint32_t at = 0; at < bytes; at += kDataBytesMax) {
    const auto part = static_cast<uint32_t>(std::min<uint64_t>(bytes - at, kDataBytesMax));
    BufferPool::Chunk* chunk = Pool().Acquire(part);
    if (chunk == nullptr) return false;
    to->chunks.push_back(chunk);
    (*segments)[at / kDataBytesMax] = {chunk->data, part};
  }
  return true;
}

void CheckEnd(Task* task) {
  auto* command = static_cast<Flight*>(task->owner);
  CHECK(!command->ended);
  command->ended = true;
  CHECK(task->in_bytes <= task->in_room_bytes);
  if (task->aborted) return;
  CHECK(task->in_bytes <= task->wanted_bytes);
  // All of it is there, for a sanitizer to see.
  uint8_t sum = 0;
  for (uint32_t at = 0; at < task->in_bytes; ++at) {
    sum = static_cast<uint8_t>(
        sum + static_cast<uint8_t>(task->in[at / kDataBytesMax].data[at % kDataBytesMax]));
  }
  volatile uint8_t seen = sum;
  (void)seen;
  std::byte sense[kSenseBytesMax];
  const size_t sense_bytes = EncodeSense(task->sense, sense);
  CHECK(sense_bytes >= 8 && sense_bytes <= sizeof(sense));
  CHECK(static_cast<size_t>(sense[7]) + 8 == sense_bytes);
  CHECK((task->status == ScsiStatus::kCheckCondition) == (task->sense.key != SenseKey::kNoSense));
}

void FuzzDecode(const Cdb& cdb) {
  for (const uint64_t capacity : {kVolumeBytes / kLogicalBlockBytes, UINT64_MAX / 512}) {
    scsi::Command command;
    if (Decode(cdb, capacity, &command)) continue;
    CHECK(command.lba <= capacity && command.blocks <= capacity - command.lba);
    const Needs needs = NeedsOf(command);
    CHECK(needs.out_bytes <= kTransferBytesMax && needs.in_bytes <= kTransferBytesMax);
    CHECK(needs.scratch_bytes <= kScratchBytesMax);
  }
}

void Fuzz(const uint8_t* data, size_t size) {
  if (size < 2) return;
  const uint8_t behaviour = data[0];
  std::minstd_rand random(data[1] + 1u);
  const auto one_in = [&](unsigned n) { return random() % n == 0; };
  const uint8_t* at = data + 2;
  const uint8_t* const end = data + size;

  nbd::ScriptedReactor reactor;
  NoLog log;
  io::MemoryDevice device(reactor, Pool(), "volume", kVolumeBytes);
  device.shuffled = true;
  {
    LogicalUnit unit(reactor, device, log, {"iqn.2024-01.fuzz:volume", "serial"});
    bool started = false;
    unit.Start([&](const Status& status) { started = status.ok(); });
    reactor.Turn();
    CHECK(started);
    Nexus* nexuses[2] = {unit.AddNexus("iqn.a,i,0x000000000001"),
                         unit.AddNexus("iqn.b,i,0x000000000002")};
    if (behaviour & 1) {
      device.fault = [&](const BlockRequest&) {
        return one_in(8) ? static_cast<ErrorCode>(random() % 23) : ErrorCode::kOk;
      };
    }
    std::deque<Flight> commands;
    while (end - at >= 19 && commands.size() < kCommandsMax) {
      const uint8_t how = at[0];
      const auto given = static_cast<size_t>(LoadBig16(at + 1));
      Cdb cdb;
      std::memcpy(cdb.data(), at + 3, cdb.size());
      at += 19;
      FuzzDecode(cdb);
      Flight& command = commands.emplace_back();
      Task& task = command.task;
      task.nexus = nexuses[how & 1];
      // Most commands meet no unit attention.
      if ((how & 2) == 0) {
        task.cdb = {0x03};
        task.done = [](Task*) {};
        (void)unit.Prepare(&task);
        unit.Execute(&task);
        reactor.Turn();
        if (unit.tasks() > 0) {
          device.LetGo();
          reactor.Turn();
        }
      }
      task.cdb = cdb;
      task.owner = &command;
      task.done = &CheckEnd;
      task.attribute = static_cast<TaskAttribute>(how >> 2 & 3);
      if ((how & 0xf0) == 0xf0) task.lun[1] = 1;
      const Needs needs = unit.Prepare(&task);
      const auto there = static_cast<size_t>(end - at);
      const size_t out_bytes = std::min<size_t>({needs.out_bytes, given, size_t{1} << 16});
      task.announced_out_bytes = static_cast<uint32_t>(given);
      task.out_bytes = static_cast<uint32_t>(out_bytes);
      task.in_room_bytes = (how & 0x70) == 0x70 ? needs.in_bytes / 3 : needs.in_bytes;
      if (!Provide(task.out_bytes, &command, &task.out) ||
          !Provide(static_cast<uint32_t>(RoundUp(task.in_room_bytes, kLogicalBlockBytes)), &command,
                   &task.in) ||
          !Provide(needs.scratch_bytes, &command, &task.scratch)) {
        for (BufferPool::Chunk* chunk : command.chunks) BufferPool::Release(chunk);
        commands.pop_back();
        break;
      }
      if (out_bytes > 0) {
        std::memset(task.out[0].data, 0, out_bytes);
        std::memcpy(task.out[0].data, at, std::min(out_bytes, there));
      }
      at += std::min(out_bytes, there);
      unit.Execute(&task);
      CHECK(!command.ended);
      if (one_in(4)) device.held = true;
      if (one_in(3)) device.LetGo();
      if (one_in(2)) reactor.Turn();
      if ((behaviour & 2) && one_in(5) && !command.ended) unit.Abort(&task);
      if ((behaviour & 4) && one_in(8)) {
        unit.Manage(static_cast<TaskManagement>(random() % 4), nexuses[random() % 2]);
      }
    }
    device.LetGo();
    reactor.Turn();
    CHECK(unit.tasks() == 0 && device.pending() == 0 && device.holds() == 0);
    for (Flight& command : commands) {
      CHECK(command.ended);
      for (BufferPool::Chunk* chunk : command.chunks) BufferPool::Release(chunk);
    }
    for (Nexus* nexus : nexuses) unit.RemoveNexus(nexus);
    // Another engine can go on with what is kept, unless a fault was left in it.
  }
  if (!(behaviour & 1)) {
    LogicalUnit next(reactor, device, log, {"iqn.2024-01.fuzz:volume", "serial"});
    bool started = false;
    next.Start([&](const Status& status) { started = status.ok(); });
    reactor.Turn();
    CHECK(started);
  }
  CHECK(Pool().held_bytes() == 0);
}

}  // namespace
}  // namespace ankole::scsi

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ankole::scsi::Fuzz(data, size);
  return 0;
}
