#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
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

Bytes Filled(size_t count, int value);
uint8_t At(const Bytes& bytes, size_t index);

class ListLog final : public LogSink {
 public:
  void Log(LogLevel, const std::string& message) override;
  std::vector<std::string> lines;
};

// A CDB by its first bytes; the rest is zero.
Cdb MakeCdb(std::initializer_list<int> bytes);
// READ(10), WRITE(10) and their kin.
Cdb Cdb10(int operation, uint32_t lba, uint16_t blocks, int flags = 0);
Cdb Cdb16(int operation, uint64_t lba, uint32_t blocks, int flags = 0);

BufferPool& TestPool();

// A command that is on its way. Owns what the transport owns.
struct Flight {
  Task task;
  Needs needs;
  bool ended = false;
  Bytes data;  // Data-In, when it has ended
  std::vector<BufferPool::Chunk*> chunks;

  ~Flight();

  ScsiStatus status() const { return task.status; }
  bool good() const { return ended && !task.aborted && task.status == ScsiStatus::kGood; }
  bool Is(SenseKey key, SenseCode code) const;
  bool Illegal(SenseCode code) const { return Is(SenseKey::kIllegalRequest, code); }
  // What is wrong, for people.
  std::string Show() const;
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

  explicit Bench(uint64_t size_bytes = kSizeBytes);
  ~Bench();

  // Another engine comes, on the same volume.
  void Restart();
  void Stop();
  // A nexus that knows already of its power on.
  Nexus* Join(const std::string& port);
  void Leave(Nexus* nexus);

  // Begins it. What is left of `out` after the command's need is dropped.
  Flight& Begin(Nexus* nexus, const Cdb& cdb, const How& how = {});
  Flight& Run(Nexus* nexus, const Cdb& cdb, const How& how = {});
  Flight& Run(const Cdb& cdb, Bytes out = {});

  Bytes Medium(uint64_t lba, uint64_t blocks);
  void Fill(uint64_t lba, uint64_t blocks, int value);

  nbd::ScriptedReactor reactor;
  ListLog log;
  io::MemoryDevice device;
  Identity identity = {"iqn.2024-01.test:volume", "serial-1"};  // from the next Restart on
  std::unique_ptr<LogicalUnit> unit;
  Status started = Status(ErrorCode::kBusy, "not started");
  Nexus* a = nullptr;
  Nexus* b = nullptr;

 private:
  static void Copy(const Segments& segments, std::byte* flat, size_t bytes, bool to_segments);
  static void Provide(Flight* flight, uint32_t bytes, Segments* to);

  std::vector<Nexus*> nexuses_;
  std::deque<Flight> flights_;
};

// What EXPECT_GOOD does: the command's text is for people.
void ExpectGood(const char* file, int line, const char* text, const Flight& flight);
#define EXPECT_GOOD(flight) ::ankole::scsi::ExpectGood(__FILE__, __LINE__, #flight, (flight))

}  // namespace ankole::scsi
