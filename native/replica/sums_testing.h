#pragma once

#include <memory>
#include <span>
#include <string>

#include "io/reactor_testing.h"
#include "replica/replica_testing.h"

// For the tests of checksums at rest: a replica whose data and checksums can be damaged, and what
// it says of its blocks then.
namespace ankole::replica::testing {

inline constexpr char kHead[] = "/volume-head-000.img";
inline constexpr char kSumsName[] = "/volume-head-000.img.crc";

inline std::string Text(size_t bytes, char seed) {
  std::string text(bytes, seed);
  for (size_t i = 0; i < bytes; i += 61) text[i] = static_cast<char>(i / 61 + seed);
  return text;
}

inline void FlipBit(io::FileSystem& files, const std::string& path, uint64_t at) {
  Result<io::File> file = files.Open(path, {.write = true});
  ASSERT_OK(file);
  uint8_t byte = 0;
  ASSERT_OK(files.ReadAt(file.value(), at, &byte, 1));
  byte ^= 4;
  ASSERT_OK(files.WriteAt(file.value(), at, &byte, 1));
  files.Close(file.value());
}

struct Place {
  // Two regions and a block that is not whole.
  static constexpr uint64_t kSize = 8 * kMiB + 512;
  static constexpr uint64_t kRegions = (kSize + kRegionBytes - 1) / kRegionBytes;

  explicit Place(io::Reactor& reactor, CacheMode cache = CacheMode::kBuffered,
                 uint64_t size_bytes = kSize)
      : files(reactor.files()), directory(test::TemporaryDirectory() + "/r") {
    ASSERT_OK(Replica::Create(files, directory, TestIdentity(cache), size_bytes));
  }
  std::string head() const { return directory + kHead; }
  std::string sums() const { return directory + kSumsName; }
  CutFiles files;
  std::string directory;
};

// The record that regions are cleaned under.
inline void WriteRecord(Driver& driver) {
  wire::RecordPair record;
  record.current.epoch = {.attachment = 1, .run = 1};
  record.current.generation = 1;
  record.current.members.Add(0xa1);
  EXPECT_EQ(driver.WriteRecord(record, record.current.epoch), ErrorCode::kOk);
}

inline ErrorCode CleanOnce(Driver& driver, uint64_t region, uint64_t count) {
  ReplicaOperation& operation =
      driver.Add(OperationKind::kClean, region * kRegionBytes, count * kRegionBytes);
  operation.clean.epoch = {.attachment = 1, .run = 1};
  operation.clean.generation = 1;
  return driver.Run();
}

// As an engine does: each time checksums of one region more are computed.
inline ErrorCode Clean(Driver& driver, uint64_t region, uint64_t count = 1) {
  ErrorCode outcome = ErrorCode::kBusy;
  for (uint64_t i = 0; i < count && outcome == ErrorCode::kBusy; ++i) {
    outcome = CleanOnce(driver, region, count);
  }
  return outcome;
}

// Of the blocks of a range: whether SUM calls them bad.
inline std::string BadOf(Driver& driver, uint64_t at, uint32_t length) {
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

// What CLEAN does first: everything known is durable.
inline Status SettleAll(io::Reactor& reactor, Replica& replica) {
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

inline void Write(Driver& driver, uint64_t at, const std::string& data,
                  ErrorCode expected = ErrorCode::kOk) {
  std::string copy = data;
  EXPECT_EQ(driver.Do(OperationKind::kWrite, at, copy.size(), copy.data()), expected);
}

inline std::string Read(Driver& driver, uint64_t at, uint64_t length,
                        ErrorCode expected = ErrorCode::kOk) {
  std::string data(length, '?');
  EXPECT_EQ(driver.Do(OperationKind::kRead, at, length, data.data()), expected);
  return data;
}

// Writes to a fresh replica and dies: what its table of checksums knew is lost.
inline void WriteAndCrash(Place& place, io::Reactor& reactor) {
  Driver driver(place.files, reactor, place.directory);
  Write(driver, 0, Text(65536, 'a'));
  driver.Drop();
}

}  // namespace ankole::replica::testing
