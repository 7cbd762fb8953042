#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <set>
#include <string>
#include <vector>

#include "io/reactor_testing.h"
#include "replica/replica_testing.h"

// A replica that is asked about its regions.
namespace ankole::replica::testing {

// Four sectors of the maps' file, the last one short.
inline constexpr uint64_t kSize = 6 * kGiB + 20 * kMiB + 512;
inline constexpr uint32_t kRegions = 1542;
inline constexpr wire::ReplicaId kMe = 0xa1;  // TestIdentity's

using enum OperationKind;

wire::Record ARecord(uint64_t generation, std::initializer_list<wire::ReplicaId> members);

inline uint64_t At(uint32_t region) { return region * kRegionBytes; }

class Maps : public Driver {
 public:
  using Driver::Driver;

  ErrorCode Write(uint32_t region, char fill = 'w');
  bool Has(uint32_t region, char fill = 'w');
  ErrorCode Clean(uint32_t region, const wire::Record& record,
                  std::initializer_list<wire::ReplicaId> ids = {}, uint32_t count = 1);
  ErrorCode Propose(const wire::Record& current, const wire::Record& complete,
                    bool resynced = false, bool still_lost = false);
  ErrorCode Mark(const std::vector<wire::RegionRun>& runs, OperationKind kind = kMark,
                 const wire::MissingRequest& missing = {});
  ErrorCode SetMissing(wire::ReplicaId id, const wire::Record& record,
                       const std::vector<wire::RegionRun>& runs);
  ErrorCode FreeMissing(wire::ReplicaId id);

  std::set<uint32_t> Dirty();
  // Of a replica that is away; it has a map.
  std::set<uint32_t> Missing(wire::ReplicaId id);
  bool HasMap(wire::ReplicaId id);
  wire::Record NameOf(wire::ReplicaId id);

 private:
  static constexpr size_t kData = 4096;
  std::set<uint32_t> Collect(uint8_t bit);
  std::string data_ = std::string(kData, '\0');
};

void OnFreshReplica(const std::function<void(CutFiles&, io::Reactor&, const std::string&)>& body);

bool Covers(const std::set<uint32_t>& all, const std::set<uint32_t>& some);

}  // namespace ankole::replica::testing
