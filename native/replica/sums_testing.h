#pragma once

#include <cstdint>
#include <string>

#include "io/reactor_testing.h"
#include "replica/replica_testing.h"

// For the tests of checksums at rest: a replica whose data and checksums can be damaged, and what
// it says of its blocks then.
namespace ankole::replica::testing {

inline constexpr char kHead[] = "/volume-head-000.img";
inline constexpr char kSumsName[] = "/volume-head-000.img.crc";

std::string Text(size_t bytes, char seed);

void FlipBit(io::FileSystem& files, const std::string& path, uint64_t at);

struct Place {
  // Two regions and a block that is not whole.
  static constexpr uint64_t kSize = 8 * kMiB + 512;
  static constexpr uint64_t kRegions = (kSize + kRegionBytes - 1) / kRegionBytes;

  explicit Place(io::Reactor& reactor, CacheMode cache = CacheMode::kBuffered,
                 uint64_t size_bytes = kSize);
  ~Place();
  std::string head() const;
  std::string sums() const;
  CutFiles files;
  std::string directory;
};

// The record that regions are cleaned under.
void WriteRecord(Driver& driver);

ErrorCode CleanOnce(Driver& driver, uint64_t region, uint64_t count);

// As an engine does: each time checksums of one region more are computed.
ErrorCode Clean(Driver& driver, uint64_t region, uint64_t count = 1);

// Of the blocks of a range: whether SUM calls them bad.
std::string BadOf(Driver& driver, uint64_t at, uint32_t length);

// What CLEAN does first: everything known is durable.
Status SettleAll(io::Reactor& reactor, Replica& replica);

void Write(Driver& driver, uint64_t at, const std::string& data,
           ErrorCode expected = ErrorCode::kOk);

std::string Read(Driver& driver, uint64_t at, uint64_t length, ErrorCode expected = ErrorCode::kOk);

// Writes to a fresh replica and dies: what its table of checksums knew is lost.
void WriteAndCrash(Place& place, io::Reactor& reactor);

}  // namespace ankole::replica::testing
