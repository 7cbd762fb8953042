#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sim/cluster.h"
#include "sim/layers_now.h"
#include "sim/load.h"
#include "sim/views.h"

namespace ankole::sim {

// Those who take, delete and list snapshots of the volume while its clients write, and revert to
// them, and the judge of what becomes of that (rule 8):
//
// - One that was answered is one instant between its request and its answer, the same at all
//   members, and stays as it is whatever loses power, until it is deleted.
// - One that was not answered, or with an error, is none, or is all of that from when it is seen.
// - One whose deletion was answered never comes back.
// - A revert is, to whoever reads, a write of all that the snapshot holds, durable with its answer.
class Snapshots {
 public:
  // `seed`: of a source of chance of its own, so that a run without snapshots is what it was.
  Snapshots(Cluster& cluster, Load& load, uint64_t seed);

  bool on() const { return layers_max_ > 0; }
  std::string Describe() const;
  void Start();
  void Stop() { running_ = false; }
  bool idle() const { return under_way_ == 0; }
  // Nothing is asked for but reverts, and these where `reverts` says so.
  void Hold(bool held, bool reverts) {
    held_ = held;
    reverts_ = reverts;
  }
  uint64_t taken() const { return taken_; }
  uint64_t reverted() const { return reverted_; }
  // Takes one, again and again until one is answered: from then on members have the same, as far as
  // clients know. After Stop and idle.
  void Settle();
  bool settled() const { return settled_; }
  // By that one: where nothing could be had but an error, they may not.
  bool matched() const { return matched_; }
  // Those that were taken; and what one holds, null: it is none, or nobody has seen it yet.
  std::vector<std::string> Live() const;
  const ViewValues* Seen(const std::string& name) const;
  // That a replica has, the deleted ones included.
  size_t layers_max() const { return on() ? 2 * layers_max_ + 2 : 0; }
  // From now on each request to the newest engine is answered within that time.
  void Promise(uint64_t answer_ns);
  std::string Waiting() const;
  // The engine closed these members clean, and nothing happened since Settle: each has the
  // snapshots that there must be, and no others.
  void ClosedClean(const wire::Members& members);

 private:
  enum class Action : uint8_t { kTake, kDelete, kList, kRevert };
  struct Revert {
    wire::Epoch epoch;
    uint64_t began = 0;
  };
  struct Request : engine::SnapshotRequest {
    Snapshots* snapshots = nullptr;
    Action action = Action::kTake;
    size_t client = 0;
    EngineProcess* engine = nullptr;
    uint64_t began = 0;
    uint64_t began_ns = 0;
    bool over = false;
    // Of kList: what could not be told then.
    std::vector<std::string> uncertain;
    Revert revert;
  };
  enum class State : uint8_t {
    kTaking,
    kUnknown,  // no answer, or an error: it may be there
    kLive,     // answered
    kDeleting,
    kMaybe,    // its deletion had no answer, or an error
    kDeleted,  // answered
    kGone,     // kUnknown, kMaybe: it is at no member
  };
  struct Snapshot {
    State state = State::kTaking;
    wire::Epoch epoch;  // of the engine that was to take it
    // Its instant is between the two.
    uint64_t began = 0;
    uint64_t until = RegisterModel::kNever;
    uint64_t began_ns = 0;
    uint64_t ended = 0;  // kDeleted, kGone: since when
    // Unless nobody looked in time: what the model knows of then is forgotten.
    bool judged = false;
    std::unique_ptr<ViewValues> view;  // null: nobody has seen it
    const char* StateName() const;
    bool MustBe() const { return state == State::kLive; }
    bool MayBe() const { return state != State::kDeleted && state != State::kGone; }
  };

  void Next(size_t client);
  void NextLater(size_t client, uint64_t least_ns, uint64_t most_ns);
  bool Fill(Request* request);
  bool FillRevert(Request* request);
  void JudgeRevert(Request* request, uint64_t at);
  size_t Depth() const;
  void Done(Request* request);
  void Ended(Request* request);
  void Judge(Request* request, uint64_t at);
  void JudgeError(const Request& request);
  void JudgeList(const Request& request);
  void OnEngineGone(EngineProcess* engine);
  void OnEngineReady(EngineProcess* engine);
  uint64_t OldestReader() const;
  void LookLater();
  void LookAt(size_t replica);
  // Each frozen layer, with what it stands on, and at which place it is of that; until it says
  // false.
  static void EachLayer(const LayersNow& layers,
                        const std::function<bool(const LayersNow& of, size_t at)>& each);
  static bool HasLive(const LayersNow& layers, const std::string& name);
  void See(size_t replica, const LayersNow& layers, size_t at, Snapshot* snapshot);
  bool IsOpen(size_t replica) const;
  std::string Name(const Request& request) const;
  void Finding(const std::string& what) { world_.Finding(what); }

  Cluster& cluster_;
  Load& load_;
  World& world_;
  Random random_;
  // Of its own, so that a run without reverts is what it was.
  Random revert_random_;
  uint64_t reverts_in_100_ = 0;
  bool held_ = false;
  bool reverts_ = false;
  std::vector<Revert> reverts_unknown_;  // nobody answered for them
  uint64_t reverted_ = 0;
  // How this run's snapshots are made.
  size_t layers_max_ = 0;  // 0: none
  uint64_t pause_ns_ = 0;
  bool running_ = false;
  bool settling_ = false;
  bool settled_ = false;
  bool matched_ = false;  // by the one that Settle took: members have the same
  std::string last_error_;
  struct Client {
    Request* request = nullptr;
    uint64_t turn = 0;
  };
  std::vector<Client> clients_;
  std::vector<std::unique_ptr<Request>> requests_;
  std::map<std::string, Snapshot> snapshots_;
  uint64_t names_ = 0;
  uint64_t under_way_ = 0;
  uint64_t taken_ = 0;
  uint64_t promise_ns_ = UINT64_MAX;
  uint64_t promised_ns_ = 0;
};

}  // namespace ankole::sim
