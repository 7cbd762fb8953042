#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/counters.h"
#include "base/intrusive_list.h"
#include "base/result.h"
#include "engine/errand.h"
#include "engine/layer_reader.h"
#include "engine/resync_host.h"

namespace ankole::engine {

// What is wanted of the volume's snapshots. Owned by who wants it, until `done`.
struct SnapshotRequest {
  // --- set by who wants it ---
  // Not for ListLayers. RevertTo: of the revert itself, used for nothing else ever.
  std::string name;
  std::string base;  // RevertTo: the snapshot
  // RevertTo: only where the newest record names this one, so that it takes place once, however
  // often it is asked for.
  std::optional<std::string> after;
  std::string labels;            // TakeSnapshot: a JSON object, or empty
  bool user_created = false;     // TakeSnapshot
  uint64_t created_seconds = 0;  // TakeSnapshot; 0: now
  // RevertTo: may be null. Asked right before it takes place, and before all else; what it says
  // keeps it from that, if it is not empty.
  std::string (*why_not)(const SnapshotRequest*) = nullptr;
  // Never from within the call. May free the request.
  void (*done)(SnapshotRequest*) = nullptr;
  void* owner = nullptr;

  // --- the outcome ---
  Status status;
  uint64_t pause_ns = 0;                 // TakeSnapshot, RevertTo: for how long I/O was held up
  size_t members = 0;                    // that have it, or have it no more
  std::vector<wire::LayerEntry> layers;  // ListLayers: as one member has them

  // --- the snapshotter's ---
  enum class What : uint8_t { kTake, kDelete, kList, kRevert } what = What::kTake;
  uint64_t submitted_ns = 0;
  int rounds = 0;  // begun
  ListNode node;
};

// What the snapshotter needs of the engine beside what resync does.
class SnapshotHost {
 public:
  // Why members cannot all be asked for something now, though soon they may be; null: they can.
  virtual const char* WhyUnsettled() const = 0;
  // That, or why no snapshot can be taken now.
  virtual const char* WhyNoSnapshot() const = 0;
  // Why none can be taken by this engine any more.
  virtual Status WhyNeverASnapshot() const = 0;
  // Nothing of the engine is on its way to any replica.
  virtual bool Quiet() const = 0;
  // Those that had to wait, as they have no range that could be locked.
  virtual void FlushesGoOn() = 0;
  // Whoever is being filled waits, and can be told what it is given next then; or is let go: else
  // it would get what is written after the snapshot as if that were part of it.
  virtual void PauseJoiner() = 0;
  virtual void LetJoinerGo() = 0;
  // Nothing of the one that waits is under way any more.
  virtual bool JoinerIsStill() const = 0;
  // It goes on. Null: no snapshot was taken, and no head switched.
  virtual void JoinerGoesOn(const wire::LayerEntry* snapshot) = 0;
  // Why members keep the snapshot open; null: they do not. Whoever is being filled is let go; a
  // client that reads it is not, and then it is not over `soon`.
  virtual const char* ReleaseView(const std::string& name, bool* soon) = 0;
  // All members have deleted it: whoever is being filled must not bring it back.
  virtual void OnDeleted(const std::string& name) = 0;
  // Proposes the members as they are, and this snapshot. Returns the generation.
  virtual uint64_t ProposeSnapshot(const std::string& name) = 0;
  // Sends the proposal to this member if it does not have it.
  virtual void WriteProposal(Link& link) = 0;
  // What the proposal names cannot be made at this member.
  virtual void ProposalFailed(Link& link, const Status& why) = 0;

 protected:
  ~SnapshotHost() = default;
};

// Takes, deletes and lists snapshots (rule 8), and reverts to them, one after the other; and sees
// to it that members have the same. docs/internals/snapshots.md is the text.
//
//   kIdle ─take▶ kPreparing ─▶ kFlushing ─▶ kStilling ─▶ kLocking ─▶ kQuieting ─▶ kSwitching
//                                                      ─▶ kSettling ─▶ kSealing ─▶ kIdle
//      until kQuieting: ─members change, or it takes too long▶ kIdle, and once more
//      a revert: as far as kSwitching ─▶ kSealing, where nothing is left to seal
//   kIdle ─delete▶ kDeleting ─▶ kIdle      kIdle ─list▶ kListing ─▶ kIdle
//   kIdle ─a start, a new member▶ kComparing ─▶ kMatching … ─▶ kIdle
class Snapshotter {
 public:
  enum class Phase : uint8_t {
    kIdle,
    kPreparing,  // PREPARE at all members
    kFlushing,   // so that little is left to sync while I/O is held up
    kStilling,   // whoever is being filled has come to a halt
    kLocking,    // waits for all that is under way
    kQuieting,   // has the lock; for what needs none
    kSwitching,  // the record is on its way: nothing else is
    kSettling,   // what was frozen is flushed
    kSealing,    // SEAL at all members
    kRefusing,   // DELETE at all members, as it turned out to be none
    kDeleting,   // DELETE at all members
    kListing,    // LAYERS at one
    kComparing,  // LAYERS at all
    kMatching,   // FLUSH, DELETE and SEAL, so that all have the same
  };

  Snapshotter(ResyncHost& host, SnapshotHost& engine);
  ~Snapshotter();

  void Take(SnapshotRequest* request) { Submit(request, SnapshotRequest::What::kTake); }
  void Revert(SnapshotRequest* request) { Submit(request, SnapshotRequest::What::kRevert); }
  void Delete(SnapshotRequest* request) { Submit(request, SnapshotRequest::What::kDelete); }
  void List(SnapshotRequest* request) { Submit(request, SnapshotRequest::What::kList); }

  // --- news from the engine ----------------------------------------------------------------------
  // A record is complete or proposed, or a member is back.
  void OnMembers();
  // Nothing is known of what members have: at the start, and when one joined. `soon`: there is
  // something to look at.
  void OnNewMember(bool soon);
  // The member has durably written a record of this generation.
  void OnRecordWritten(const Link& link, uint64_t generation);
  void OnLost(const Link& link);
  // Whether the head that the proposal names must be made there before it can be written; then it
  // is on its way, and WriteProposal follows.
  bool PreparesFirst(Link& link);
  // Something of the engine ended while it waits for that.
  void OnQuieter() {
    if (phase_ == Phase::kQuieting || phase_ == Phase::kStilling) {
      host_.reactor().Defer(&quiet_task_);
    }
  }
  void Look(uint64_t now_ns);
  // Nothing is begun any more, and who waits is told. `final`: nothing goes to any replica either.
  void Stop(const Status& why, bool final);

  // --- what the engine may do meanwhile ----------------------------------------------------------
  bool holds_flushes() const { return phase_ >= Phase::kLocking && phase_ <= Phase::kSwitching; }
  // A replica may become a member, or be filled in order to.
  bool may_join() const {
    return (phase_ == Phase::kIdle || phase_ == Phase::kListing) && !due_ && queue_.empty();
  }
  // From the preparation to the seal: what is frozen, and how large that is, is not settled.
  bool taking() const { return phase_ >= Phase::kPreparing && phase_ <= Phase::kSealing; }
  Phase phase() const { return phase_; }
  bool busy() const { return phase_ != Phase::kIdle || due_ || !queue_.empty(); }
  bool idle() const;
  Json CountersJson() const;

 private:
  // One request that some members must answer with success.
  struct Round {
    bool active = false;
    wire::Opcode opcode = wire::Opcode::kPrepare;
    std::vector<std::byte> payload;
    wire::Members of;        // whom it is for; of these, who is a member
    wire::Members answered;  // with success
    ErrorCode failure = ErrorCode::kOk;
    wire::ReplicaId failed = 0;  // who answered that
  };
  // What makes members have the same.
  struct Step {
    wire::Opcode opcode;  // kDelete or kSeal
    std::string name;
    wire::Members at;
  };

  void Submit(SnapshotRequest* request, SnapshotRequest::What what);
  void Answer(SnapshotRequest* request, const Status& status);
  void Finish(const Status& status);
  void Next();
  bool Begin(SnapshotRequest* request);
  bool Expired(const SnapshotRequest& request) const;
  Status Valid(const SnapshotRequest& request) const;
  bool Refused();

  void BeginRound(wire::Opcode opcode, std::vector<std::byte> payload, const wire::Members& of);
  void BeginRound(wire::Opcode opcode, const std::string& name, const wire::Members& of);
  void PumpRound();
  void SendTo(Link& link);
  void OnErrand(Errand* errand);
  bool RoundEnded() const;
  bool ErrandsIdle() const;
  void RoundDone();
  Status RoundOutcome() const;
  size_t StayingCount() const;

  // Taking one: snapshotter.cc.
  void Prepare();
  void Flush();
  void OnFlushed();
  void TryLock();
  void EndPause(const SnapshotRequest& request, bool taken, Phase phase);
  void Lock();
  void TryPropose();
  void CheckStill();
  void Again(const std::string& why);
  void Unlock();
  void CheckSwitched();
  void Sealed();
  void Abandon(const Status& why);

  // The others: snapshot_matcher.cc.
  void Deleted();
  bool ListAtOne();
  void OnListed(ErrorCode status);
  void Compare();
  void CompareNext();
  void OnCompared(ErrorCode status);
  void Plan();
  void Match();
  void EndMatching(const Status& status);

  ResyncHost& host_;
  SnapshotHost& engine_;
  Phase phase_ = Phase::kIdle;
  Status refused_;  // of kRefusing
  Status stopped_;  // not kOk: why nothing is begun any more
  IntrusiveList<SnapshotRequest, &SnapshotRequest::node> queue_;
  SnapshotRequest* request_ = nullptr;  // the one that is served; null: nobody waits any more
  IntrusiveList<SnapshotRequest, &SnapshotRequest::node> answered_;
  io::Task answer_task_;

  Round round_;
  std::array<Errand, kReplicasMax> errands_;  // by link
  std::array<std::vector<std::byte>, kReplicasMax> payloads_;
  OwnRequest flush_;
  bool flush_due_ = false;  // no slot was free
  bool flushing_ = false;

  // Taking one.
  std::string name_;
  wire::Members prepared_;  // and their connection stands since
  bool reverts_ = false;
  uint64_t created_seconds_ = 0;
  LockRequest lock_;
  enum class LockState : uint8_t { kFree, kWaited, kHeld } lock_state_ = LockState::kFree;
  uint64_t still_ns_ = 0;    // until then it waits for whoever is being filled
  uint64_t locked_ns_ = 0;   // when the lock was asked for
  uint64_t generation_ = 0;  // of the record that names it
  wire::Members switched_;
  // What was done in this turn is acknowledged in it: nothing is once the record is proposed.
  io::Task quiet_task_;

  // What members have.
  LayerReader reader_;
  bool matched_ = false;         // all have the same, as far as is known
  bool due_ = false;             // to be looked at before anything else is done
  uint64_t match_again_ns_ = 0;  // it failed: not before then
  size_t compared_ = 0;          // the link that is asked
  std::map<wire::ReplicaId, std::vector<wire::LayerEntry>> found_;
  std::vector<Step> steps_;
  bool flush_first_ = false;

  uint64_t taken_ = 0;
  uint64_t failed_ = 0;
  LatencyHistogram pauses_;
};

}  // namespace ankole::engine
