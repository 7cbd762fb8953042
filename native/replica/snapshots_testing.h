#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "replica/sums_testing.h"
#include "wire/layers.h"

// For the tests of snapshots: what an engine would do to one replica.
namespace ankole::replica::testing {

// For what is about files alone.
void OnEpoll(const std::function<void(io::Reactor&)>& body);

ErrorCode Prepare(Driver& driver, const std::string& name, const std::string& labels = "");

// The next switch to `name` takes the volume back to the snapshot `base`.
ErrorCode PrepareRevert(Driver& driver, const std::string& name, const std::string& base);

wire::RecordPair NextRecord(const Driver& driver, const std::string& newest);

ErrorCode Switch(Driver& driver, const std::string& name);

ErrorCode AboutLayer(Driver& driver, OperationKind kind, const std::string& name);

// As rule 8 has it.
ErrorCode Snapshot(Driver& driver, const std::string& name);

// Under the record that holds.
ErrorCode CleanNow(Driver& driver, uint64_t region, uint64_t count);

// A snapshot, open; 0: it cannot be.
uint16_t OpenView(Driver& driver, const std::string& name, const std::string& base = "",
                  ErrorCode expected = ErrorCode::kOk);

std::string ReadView(Driver& driver, uint16_t view, uint64_t at, uint64_t length,
                     ErrorCode expected = ErrorCode::kOk);

std::string ReadSnapshot(Driver& driver, const std::string& name);
// Zeros behind its end may be left out.
bool SnapshotHolds(Driver& driver, const std::string& name, std::string_view content);

std::vector<wire::LayerEntry> LayersOf(Driver& driver);

std::vector<wire::RegionRun> ChangedOf(Driver& driver, const std::string& upper,
                                       const std::string& base);

ErrorCode Expand(Driver& driver, uint64_t size_bytes);

// What a snapshot of then reads as in a volume that became larger.
std::string Padded(std::string content, uint64_t size_bytes);

// Removed layers go as far as they can; how many steps that took, 0: it failed.
int MergeAll(Driver& driver);

// Three snapshots («one», «two», «three»), each with data, a hole and zeros of its own over the
// others', and a head that has some as well.
struct History {
  std::map<std::string, std::string> snapshots;
  std::string head;
};

History MakeHistory(Driver& driver);

// That is what it holds, without a checksum that does not match.
void ExpectSame(Driver& driver, const History& history);

}  // namespace ankole::replica::testing
