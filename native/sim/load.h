#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sim/cluster.h"
#include "sim/register_model.h"

namespace ankole::sim {

// Clients of the volume, and the judge of what they are told. Each has one request under way, at
// the engine that it found last; the machine that a volume has moved away from may have clients,
// too, which do not know.
class Load {
 public:
  explicit Load(Cluster& cluster);

  void Start();
  // From now on the clients take their time.
  void SlowDown() { eager_left_ = 0; }
  // They change nothing, and ask for no flush.
  void set_reads_only(bool reads_only) { reads_only_ = reads_only; }
  // No new requests; those under way go on.
  void Stop() { running_ = false; }
  bool idle() const { return under_way_ == 0; }
  uint64_t answered() const { return answered_; }
  // Reads all that was ever written, and flushes; `done` is true at the end. After Stop and idle.
  void ReadAll();
  bool read_all_done() const { return reading_all_ && sweep_.empty() && idle(); }
  // From now on each request is answered within that time, those that are under way included.
  void Promise(uint64_t answer_ns) {
    promise_ns_ = answer_ns;
    promised_ns_ = world_.now_ns();
  }
  std::function<void(const std::string& what)> on_late;
  // Of others than these clients, when the oldest that may be judged by the model was begun.
  std::function<uint64_t()> oldest_reader;
  // An answer for somebody, of success: no older engine than the one that has answered since may
  // give it. False, and a finding, where one does.
  bool Acknowledges(const EngineProcess& engine, const std::string& what, uint64_t began,
                    uint64_t at);
  // All of this engine's members are suspect, or were: it tells of that with every flush.
  bool FlushMayFail(const EngineProcess& engine) const {
    return lost_before_ > engine.ready_tick || engine.epoch() <= suspects_epoch_;
  }
  // What the requests that are under way wait for, for a finding.
  std::string Waiting() const;

  RegisterModel model;

 private:
  struct Request : BlockRequest {
    Load* load = nullptr;
    size_t client = 0;
    EngineProcess* engine = nullptr;
    uint64_t began = 0;
    uint64_t began_ns = 0;
    uint32_t value = 0;
    BufferPool::Chunk* chunk = nullptr;
    std::vector<BlockExtent> room;
    // Its engine is gone, or never was asked.
    bool over = false;
    bool changes() const {
      return operation == BlockOperation::kWrite || operation == BlockOperation::kZero ||
             operation == BlockOperation::kUnmap;
    }
  };
  struct Client {
    EngineProcess* engine = nullptr;
    Request* request = nullptr;
    uint64_t turn = 0;  // the next request's: it may be brought forward
  };
  void Next(size_t client);
  void NextLater(size_t client, uint64_t least_ns, uint64_t most_ns);
  void Fill(Request* request);
  void Submit(Request* request);
  void Done(Request* request);
  void Judge(Request* request, uint64_t at);
  void JudgeError(Request* request, uint64_t at);
  void Ended(Request* request);
  void OnEngineGone(EngineProcess* engine);
  void OnEngineReady(EngineProcess* engine);
  void OnMembersChanged();
  void CheckLoss();
  bool Superseded(const Request& request) const;

  Cluster& cluster_;
  World& world_;
  Random random_;
  bool running_ = false;
  bool reads_only_ = false;
  bool reading_all_ = false;
  std::vector<std::pair<uint64_t, uint64_t>> sweep_;  // ranges to be read
  bool sweep_flush_ = false;
  std::vector<Client> clients_;
  std::vector<std::unique_ptr<Request>> requests_;
  // Changes that nobody will answer: they took effect before a newer engine was ready, or never.
  struct Unknown {
    wire::Epoch epoch;
    uint64_t offset_bytes;
    uint64_t length_bytes;
    uint64_t began;
  };
  std::vector<Unknown> unknown_;
  uint64_t under_way_ = 0;
  uint64_t answered_ = 0;
  uint64_t promise_ns_ = UINT64_MAX;
  uint64_t promised_ns_ = 0;  // when it was
  uint64_t eager_left_ = 0;   // requests until the clients slow down, for the run to come to an end
  uint32_t values_ = 0;
  // How this run's load is made.
  uint64_t hot_begin_ = 0;
  uint64_t hot_bytes_ = 0;
  uint64_t length_shift_max_ = 0;
  uint64_t think_ns_max_ = 0;
  uint64_t writes_in_100_ = 0;
  uint64_t flushes_in_1000_ = 0;
  uint64_t fua_in_100_ = 0;
  bool whole_blocks_ = false;

  wire::Epoch ready_epoch_;          // of the newest engine that was ready
  wire::Epoch acknowledging_epoch_;  // of the newest engine that acknowledged something
  uint64_t acknowledged_tick_ = 0;   // its first
  uint64_t ready_attachment_ = 0;
  // An engine that worked with suspect members alone: its flushes may fail.
  wire::Epoch suspects_epoch_;
  uint64_t lost_before_ = 0;  // what was answered before may have vanished, and the model knows
  wire::Members members_;
};

}  // namespace ankole::sim
