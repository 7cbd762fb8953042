#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sim/cluster.h"
#include "sim/snapshots.h"

namespace ankole::sim {

// Somebody who asks what changed between two snapshots, or reads one, while all else goes on; and
// the judge of what they are told:
//
// - A block that differs is told to have changed, and one that is told to be zeros is.
// - What is read is what the snapshot holds.
class SnapshotUsers {
 public:
  // `seed`: of a source of chance of its own, so that a run without them is what it was.
  SnapshotUsers(Cluster& cluster, Snapshots& snapshots, uint64_t seed);

  std::string Describe() const;
  void Start();
  void Stop() { running_ = false; }
  bool idle() const { return user_ == nullptr; }

 private:
  // Over when it is answered, or its engine is gone.
  struct User {
    SnapshotUsers* users = nullptr;
    EngineProcess* engine = nullptr;
    bool over = false;
  };
  struct Comparison : engine::ChangesRequest {
    User user;
  };
  // Opens one, and reads of it some times.
  struct Reading : engine::ReadSnapshotRequest {
    struct Request : BlockRequest {
      Reading* reading = nullptr;
    };
    User user;
    Request request;
    BlockDevice* device = nullptr;
    BufferPool::Chunk* chunk = nullptr;
    uint64_t reads_left = 0;
  };

  void Next();
  void NextLater();
  void Compare(EngineProcess* engine);
  void Read(EngineProcess* engine);
  void Opened(Reading* reading);
  void ReadMore(Reading* reading);
  void Ended(User* user);
  void JudgeChanges(const Comparison& comparison);
  void JudgeSame(const Comparison& comparison, uint64_t begin_bytes, uint64_t end_bytes);
  void JudgeZeros(const Comparison& comparison, const engine::ChangedExtent& extent);
  void JudgeRead(const Reading& reading);
  void JudgeError(const std::string& what, const EngineProcess& engine, const Status& status);
  void Finding(const std::string& what) { world_.Finding(what); }

  Cluster& cluster_;
  Snapshots& snapshots_;
  World& world_;
  Random random_;
  bool on_ = false;
  bool running_ = false;
  uint64_t pause_ns_ = 0;
  uint64_t turn_ = 0;
  User* user_ = nullptr;  // who is at work; null: nobody is
  std::vector<std::unique_ptr<Comparison>> comparisons_;
  std::vector<std::unique_ptr<Reading>> readings_;
};

}  // namespace ankole::sim
