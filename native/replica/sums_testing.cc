#include "replica/sums_testing.h"

#include <span>

namespace ankole::replica::testing {

std::string Text(size_t bytes, char seed) {
  std::string text(bytes, seed);
  for (size_t i = 0; i < bytes; i += 61) text[i] = static_cast<char>(i / 61 + seed);
  return text;
}

void FlipBit(io::FileSystem& files, const std::string& path, uint64_t at) {
  Result<io::File> file = files.Open(path, {.write = true});
  ASSERT_OK(file);
  uint8_t byte = 0;
  ASSERT_OK(files.ReadAt(file.value(), at, &byte, 1));
  byte ^= 4;
  ASSERT_OK(files.WriteAt(file.value(), at, &byte, 1));
  files.Close(file.value());
}

Place::Place(io::Reactor& reactor, CacheMode cache, uint64_t size_bytes)
    : files(reactor.files()), directory(test::TemporaryDirectory() + "/r") {
  ASSERT_OK(Replica::Create(files, directory, TestIdentity(cache), size_bytes));
}

Place::~Place() = default;

std::string Place::head() const { return directory + kHead; }

std::string Place::sums() const { return directory + kSumsName; }

void WriteRecord(Driver& driver) {
  wire::RecordPair record;
  record.current.epoch = {.attachment = 1, .run = 1};
  record.current.generation = 1;
  record.current.members.Add(0xa1);
  EXPECT_EQ(driver.WriteRecord(record, record.current.epoch), ErrorCode::kOk);
}

ErrorCode CleanOnce(Driver& driver, uint64_t region, uint64_t count) {
  ReplicaOperation& operation =
      driver.Add(OperationKind::kClean, region * kRegionBytes, count * kRegionBytes);
  operation.clean.epoch = {.attachment = 1, .run = 1};
  operation.clean.generation = 1;
  return driver.Run();
}

ErrorCode Clean(Driver& driver, uint64_t region, uint64_t count) {
  ErrorCode outcome = ErrorCode::kBusy;
  for (uint64_t i = 0; i < count && outcome == ErrorCode::kBusy; ++i) {
    outcome = CleanOnce(driver, region, count);
  }
  return outcome;
}

std::string BadOf(Driver& driver, uint64_t at, uint32_t length) {
  std::string data(length + kSumScratchBytes, '?');
  ReplicaOperation& operation = driver.Add(OperationKind::kSum, at, length, data.data());
  operation.sums = reinterpret_cast<std::byte*>(data.data()) + length;
  EXPECT_EQ(driver.Run(), ErrorCode::kOk);
  const uint32_t blocks = BlocksTouched(at, length);
  Result<wire::Sums> sums = wire::Sums::Decode(
      std::as_bytes(std::span(data)).subspan(length, wire::SumsBytes(blocks)), length);
  EXPECT(sums.ok());
  if (!sums.ok()) return "";
  std::string bad;
  for (uint32_t i = 0; i < blocks; ++i) bad += sums.value().bad(i) ? 'x' : '.';
  return bad;
}

Status SettleAll(io::Reactor& reactor, Replica& replica) {
  BlockSums::SettleRequest request;
  request.end = DivideUp(replica.size_bytes(), kRegionBytes);
  request.owner = &reactor;
  request.done = [](BlockSums::SettleRequest* self) {
    static_cast<io::Reactor*>(self->owner)->Stop();
  };
  replica.sums().Settle(&request);
  reactor.Loop();
  return request.status;
}

void Write(Driver& driver, uint64_t at, const std::string& data, ErrorCode expected) {
  std::string copy = data;
  EXPECT_EQ(driver.Do(OperationKind::kWrite, at, copy.size(), copy.data()), expected);
}

std::string Read(Driver& driver, uint64_t at, uint64_t length, ErrorCode expected) {
  std::string data(length, '?');
  EXPECT_EQ(driver.Do(OperationKind::kRead, at, length, data.data()), expected);
  return data;
}

void WriteAndCrash(Place& place, io::Reactor& reactor) {
  Driver driver(place.files, reactor, place.directory);
  Write(driver, 0, Text(65536, 'a'));
  driver.Drop();
}

}  // namespace ankole::replica::testing
