#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sim/cluster.h"
#include "sim/register_model.h"
#include "sim/views.h"

namespace ankole::sim {

// A linked clone of a snapshot, of one replica, and its life: it is made by the disk host, attached
// by an engine of its own at that machine, written to and read, left and attached again, and
// deleted. And the judge of it:
//
// - It is made whole or not at all. Once that was answered it stays.
// - It holds what the snapshot did, and what was written to it since, whatever becomes of the
//   volume that it was made of: a flushed write for good, another until the machine loses power.
//
// That the volume's snapshots stay as they are Snapshots judges, whoever has clones of them.
class CloneVolume {
 public:
  struct Source {
    size_t replica = 0;
    std::string snapshot;
    ViewValues values;            // what it holds
    std::function<bool()> lives;  // whether it was taken and not deleted
  };
  CloneVolume(Cluster& cluster, uint64_t number, Source source, uint64_t seed);

  const std::string& name() const { return name_; }
  size_t replica() const { return source_.replica; }
  // Does what is next, if anything is. From time to time.
  void Step();
  // Its engine is stopped and no other one is started, until Resume.
  void Pause() { paused_ = true; }
  void Resume() { paused_ = false; }
  bool paused() const { return paused_ && engine_ == nullptr && state_ != State::kMaking; }
  // It is read as a whole once more, and deleted.
  void Close() { closing_ = true; }
  bool closing() const { return closing_; }
  bool gone() const { return state_ == State::kGone; }
  // The disk host was asked to make it, and nobody knows yet whether it did.
  bool making() const { return state_ == State::kMaking; }
  // Under its name, whole or not.
  bool IsThere();
  // Its machine lost what was not synced.
  void OnLost();
  // For findings.
  std::string Describe() const;

 private:
  enum class State : uint8_t {
    kUnsure,    // it is there, or not: to be made
    kMaking,    // asked for
    kMade,      // answered
    kRemoving,  // to be deleted, or asked for that
    kGone,
  };
  struct Request : BlockRequest {
    CloneVolume* clone = nullptr;
    uint64_t began = 0;
    uint32_t value = 0;
    BufferPool::Chunk* chunk = nullptr;
    bool changes() const {
      return operation != BlockOperation::kRead && operation != BlockOperation::kFlush;
    }
  };
  struct SnapshotRequest : engine::SnapshotRequest {
    CloneVolume* clone = nullptr;
    bool takes = false;
  };

  Machine& machine() { return cluster_.replica_machine(source_.replica); }
  const Machine& machine() const { return cluster_.replica_machine(source_.replica); }
  DiskHostProcess* Host();
  bool HostLost();
  bool DiskReplaced();
  bool Trusted() const { return !machine().damaged; }
  void Go(State state);
  void Make();
  void Made(const Status& status);
  void Refused(const Status& status);
  void CheckWhole();
  void Remove();
  void Removed(const Status& status);

  void StepMade();
  void Attach();
  void AnswerStore(EngineProcess* engine, uint64_t question, const Status& outcome);
  void OnReady();
  void EndEngine();
  void EngineGone();
  bool Use();
  void Submit(std::unique_ptr<Request> made);
  void Fill(Request* request);
  void FillChange(Request* request);
  void FillSweep();
  void TakeOrDelete();
  void Done(Request* request);
  std::string Judge(const Request& request, uint64_t at);
  std::string JudgeRead(const Request& request, uint64_t at);
  std::string JudgeError(const Request& request, uint64_t at);
  bool Unknown(uint64_t offset_bytes, uint64_t length_bytes) const;
  bool Rotted(const Request& request) const;
  void Finding(const std::string& what);
  void Trace(const std::string& what) const;

  Cluster& cluster_;
  World& world_;
  Random random_;
  const std::string name_;
  const wire::ReplicaId id_;
  const std::string directory_;
  const Source source_;
  const uint64_t size_bytes_;
  const bool direct_;
  Secret secret_ = {};
  uint64_t disk_number_ = 0;    // of the directory of the disk that it is on
  std::vector<uint64_t> held_;  // sectors that the snapshot has something of
  std::unique_ptr<RegisterModel> model_;

  State state_ = State::kUnsure;
  uint64_t wait_until_ns_ = 0;
  uint64_t failures_ = 0;  // to make it, one after the other
  bool closing_ = false;
  bool paused_ = false;
  bool attached_ = false;  // it was, once
  bool swept_ = false;     // all was read since it is to be closed
  DiskHostProcess* asked_ = nullptr;
  uint64_t asks_ = 0;

  Store store_;
  EngineProcess* engine_ = nullptr;
  bool stopping_ = false;
  // One that was killed: until it is reaped, or its machine lost power since.
  bool reaping_ = false;
  uint64_t boots_ = 0;
  Request* request_ = nullptr;
  SnapshotRequest* snapshot_request_ = nullptr;
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<std::unique_ptr<SnapshotRequest>> snapshot_requests_;
  std::vector<std::pair<uint64_t, uint64_t>> sweep_;  // ranges to be read
  struct Unanswered {
    uint64_t offset_bytes;
    uint64_t length_bytes;
    uint64_t began;
  };
  std::vector<Unanswered> unknown_;  // changes that nobody answered, until the next engine is ready
  std::set<uint64_t> dirtied_;       // regions that were changed
  const DiskHostProcess* last_host_ = nullptr;
  bool crashed_ = false;          // the disk host ended since it was made
  std::vector<std::string> own_;  // its own snapshots
  uint64_t names_ = 0;
  uint32_t values_ = 0x40000000;  // none of the volume's clients gets so far
};

}  // namespace ankole::sim
