#include "scsi/logical_unit_testing.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

namespace ankole::scsi {

Bytes Filled(size_t count, int value) { return Bytes(count, std::byte(value)); }

uint8_t At(const Bytes& bytes, size_t index) { return static_cast<uint8_t>(bytes.at(index)); }

void ListLog::Log(LogLevel, const std::string& message) { lines.push_back(message); }

Cdb MakeCdb(std::initializer_list<int> bytes) {
  Cdb cdb = {};
  size_t at = 0;
  for (const int byte : bytes) cdb[at++] = static_cast<uint8_t>(byte);
  return cdb;
}

Cdb Cdb10(int operation, uint32_t lba, uint16_t blocks, int flags) {
  Cdb cdb = MakeCdb({operation, flags});
  StoreBig32(&cdb[2], lba);
  StoreBig16(&cdb[7], blocks);
  return cdb;
}

Cdb Cdb16(int operation, uint64_t lba, uint32_t blocks, int flags) {
  Cdb cdb = MakeCdb({operation, flags});
  StoreBig64(&cdb[2], lba);
  StoreBig32(&cdb[10], blocks);
  return cdb;
}

BufferPool& TestPool() {
  static BufferPool* pool = BufferPool::Create("scsi-test", 64, 16, 64).Take().release();
  return *pool;
}

Flight::~Flight() {
  for (BufferPool::Chunk* chunk : chunks) BufferPool::Release(chunk);
}

bool Flight::Is(SenseKey key, SenseCode code) const {
  return ended && task.status == ScsiStatus::kCheckCondition && task.sense.key == key &&
         task.sense.code == code;
}

std::string Flight::Show() const {
  if (!ended) return "not ended";
  char text[100];
  std::snprintf(text, sizeof(text), "status %02x, sense %x/%04x",
                static_cast<unsigned>(task.status), static_cast<unsigned>(task.sense.key),
                static_cast<unsigned>(task.sense.code));
  return text;
}

Bench::Bench(uint64_t size_bytes) : device(reactor, TestPool(), "volume", size_bytes) { Restart(); }

Bench::~Bench() {
  Stop();
  flights_.clear();
  CHECK(TestPool().held_bytes() == 0);
}

void Bench::Restart() {
  Stop();
  unit = std::make_unique<LogicalUnit>(reactor, device, log, identity);
  started = Status(ErrorCode::kBusy, "still starting");
  unit->Start([this](const Status& status) { started = status; });
  reactor.Turn();
  if (!started.ok()) return;
  a = Join("iqn.a,i,0x000000000001");
  b = Join("iqn.b,i,0x000000000002");
}

void Bench::Stop() {
  device.LetGo();
  reactor.Turn();
  for (Nexus* nexus : nexuses_) unit->RemoveNexus(nexus);
  nexuses_.clear();
  unit.reset();
}

Nexus* Bench::Join(const std::string& port) {
  Nexus* nexus = unit->AddNexus(port);
  nexuses_.push_back(nexus);
  Run(nexus, MakeCdb({0x00}));
  return nexus;
}

void Bench::Leave(Nexus* nexus) {
  unit->RemoveNexus(nexus);
  std::erase(nexuses_, nexus);
}

Flight& Bench::Begin(Nexus* nexus, const Cdb& cdb, const How& how) {
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

Flight& Bench::Run(Nexus* nexus, const Cdb& cdb, const How& how) {
  Flight& flight = Begin(nexus, cdb, how);
  reactor.Turn();
  return flight;
}

Flight& Bench::Run(const Cdb& cdb, Bytes out) { return Run(a, cdb, {.out = std::move(out)}); }

Bytes Bench::Medium(uint64_t lba, uint64_t blocks) {
  const auto from = device.bytes().begin() + static_cast<ptrdiff_t>(lba * kLogicalBlockBytes);
  return {from, from + static_cast<ptrdiff_t>(blocks * kLogicalBlockBytes)};
}

void Bench::Fill(uint64_t lba, uint64_t blocks, int value) {
  std::fill_n(device.bytes().begin() + static_cast<ptrdiff_t>(lba * kLogicalBlockBytes),
              blocks * kLogicalBlockBytes, std::byte(value));
}

void Bench::Copy(const Segments& segments, std::byte* flat, size_t bytes, bool to_segments) {
  for (size_t at = 0; at < bytes; at += kDataBytesMax) {
    const size_t part = std::min<size_t>(bytes - at, kDataBytesMax);
    std::byte* segment = segments[at / kDataBytesMax].data;
    std::memcpy(to_segments ? segment : flat + at, to_segments ? flat + at : segment, part);
  }
}

void Bench::Provide(Flight* flight, uint32_t bytes, Segments* to) {
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

void ExpectGood(const char* file, int line, const char* text, const Flight& flight) {
  if (!flight.good()) test::Fail(file, line, std::string(text) + ": " + flight.Show());
}

}  // namespace ankole::scsi
