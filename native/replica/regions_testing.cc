#include "replica/regions_testing.h"

#include <algorithm>

namespace ankole::replica::testing {

wire::Record ARecord(uint64_t generation, std::initializer_list<wire::ReplicaId> members) {
  wire::Record record;
  record.epoch = {1, 1};
  record.generation = generation;
  for (const wire::ReplicaId id : members) record.members.Add(id);
  return record;
}

ErrorCode Maps::Write(uint32_t region, char fill) {
  std::fill(data_.begin(), data_.end(), fill);
  return Do(kWrite, At(region) + 8192, 4096, data_.data());
}

bool Maps::Has(uint32_t region, char fill) {
  std::string got(4096, '?');
  EXPECT_EQ(Do(kRead, At(region) + 8192, 4096, got.data()), ErrorCode::kOk);
  return got == std::string(4096, fill);
}

ErrorCode Maps::Clean(uint32_t region, const wire::Record& record,
                      std::initializer_list<wire::ReplicaId> ids, uint32_t count) {
  // Again, as an engine does: each time checksums of one region more are computed.
  ErrorCode outcome = ErrorCode::kBusy;
  for (uint32_t i = 0; i < count && outcome == ErrorCode::kBusy; ++i) {
    ReplicaOperation& operation = Add(kClean, At(region), count * kRegionBytes);
    operation.clean.epoch = record.epoch;
    operation.clean.generation = record.generation;
    for (const wire::ReplicaId id : ids) operation.clean.ids.Add(id);
    outcome = Run();
  }
  return outcome;
}

ErrorCode Maps::Propose(const wire::Record& current, const wire::Record& complete, bool resynced,
                        bool still_lost) {
  ReplicaOperation& operation = Add(kRecord);
  operation.record = {current, complete};
  operation.welcomed = current.epoch;
  operation.resynced = resynced;
  operation.still_lost = still_lost;
  return Run();
}

ErrorCode Maps::Mark(const std::vector<wire::RegionRun>& runs, OperationKind kind,
                     const wire::MissingRequest& missing) {
  std::byte bytes[kControlPayloadBytesMax];
  const size_t size = wire::EncodeRegionRuns(runs, bytes);
  ReplicaOperation& operation = Add(kind);
  operation.runs = wire::RegionRuns::Decode({bytes, size}).Take();
  operation.missing = missing;
  return Run();
}

ErrorCode Maps::SetMissing(wire::ReplicaId id, const wire::Record& record,
                           const std::vector<wire::RegionRun>& runs) {
  return Mark(runs, kMissing, {id, wire::MissingRequest::What::kSet, record});
}

ErrorCode Maps::FreeMissing(wire::ReplicaId id) {
  return Mark({}, kMissing, {id, wire::MissingRequest::What::kFree, {}});
}

std::set<uint32_t> Maps::Dirty() { return Collect(kDirtyBit); }

std::set<uint32_t> Maps::Missing(wire::ReplicaId id) {
  const int slot = replica().regions().FindSlot(id);
  EXPECT(slot >= 0);
  return slot < 0 ? std::set<uint32_t>{} : Collect(MissingBit(slot));
}

bool Maps::HasMap(wire::ReplicaId id) { return replica().regions().FindSlot(id) >= 0; }

wire::Record Maps::NameOf(wire::ReplicaId id) {
  const int slot = replica().regions().FindSlot(id);
  return slot < 0 ? wire::Record{} : replica().regions().slots()[slot].record;
}

std::set<uint32_t> Maps::Collect(uint8_t bit) {
  std::vector<wire::RegionRun> runs(kRegions);
  runs.resize(replica().regions().Collect(bit, 0, runs.data(), runs.size()));
  std::set<uint32_t> regions;
  for (const wire::RegionRun& run : runs) {
    for (uint32_t i = 0; i < run.count; ++i) regions.insert(run.first + i);
  }
  EXPECT_EQ(regions.size(), replica().regions().Count(bit));
  return regions;
}

void OnFreshReplica(const std::function<void(CutFiles&, io::Reactor&, const std::string&)>& body) {
  io::OnEachBackend([&](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    const std::string directory = test::TemporaryDirectory() + "/demo-00000000000000a1";
    ASSERT_OK(Replica::Create(files, directory, TestIdentity(), kSize));
    body(files, reactor, directory);
  });
}

bool Covers(const std::set<uint32_t>& all, const std::set<uint32_t>& some) {
  return std::includes(all.begin(), all.end(), some.begin(), some.end());
}

}  // namespace ankole::replica::testing
