#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/several_testing.h"

// For the tests of snapshots (rule 8): scripted replicas that keep account of what they are asked.
namespace ankole::engine::testing {

// A request about snapshots, and what became of it.
struct Asked : SnapshotRequest {
  explicit Asked(std::string of = "");
  bool finished = false;  // of the reactor's thread
};

struct SnapshotReplicas : SomeReplicas {
  using SomeReplicas::SomeReplicas;
  // Before what the requests refer to goes.
  ~SnapshotReplicas();

  Asked* Begin(const std::string& name);
  bool Wait(Asked* request, int limit_ms = 10'000);
  Status Take(const std::string& name);
  Status Delete(const std::string& name);
  // What replica `i` has, as ScriptedReplica::Layers tells.
  std::string Layers(size_t i);
  bool WaitForLayers(size_t i, const std::string& expected, int limit_ms = 10'000);
  // All that have it have the same view.
  bool SameViews(const std::string& name);
  // Before the start: a layer that there is, named by the record that they hold.
  void Give(size_t i, const std::string& name, bool sealed, bool removed = false);
  // All hold a complete record that names it.
  void HoldRecord(const std::string& newest);
  std::vector<std::unique_ptr<Asked>> asked;
};

template <size_t kCount>
struct Snapshots : SnapshotReplicas {
  explicit Snapshots(uint64_t late_ms = 20'000) : SnapshotReplicas(kCount, late_ms) {}
};

bool Good(const Status& status);

bool IsAboutSnapshots(wire::Opcode opcode);

// What a replica is asked about snapshots, in its order; of the reactor's thread.
Judge::Function Tell(std::vector<std::string>* frames);

// Writers that go on until they are told to stop, at random places.
struct Writers {
  explicit Writers(Bench& of, int depth);
  void Again(Request* request);
  void Stop();

  Bench& bench;
  bool stop = false;
  int under_way = 0;
  uint64_t written = 0;
  uint64_t random = 7;
};

}  // namespace ankole::engine::testing
