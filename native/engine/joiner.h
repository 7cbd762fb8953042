#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/cleaner.h"
#include "engine/errand.h"
#include "engine/lack_set.h"
#include "engine/layer_plan.h"
#include "engine/layer_reader.h"
#include "engine/map_reader.h"
#include "engine/operation.h"
#include "engine/region_table.h"
#include "engine/state_copier.h"
#include "engine/view_set.h"
#include "engine/walker.h"

namespace ankole::engine {

// A joiner may take this long to flush what it was filled with: no client waits for that.
inline constexpr uint64_t kJoinerFlushNs = 120 * kNsPerSecond;

// How far a replica is on its way to become a member; for status and metrics.
struct JoinProgress {
  const char* state = "waiting";  // waiting, held-off, copying, paused, joining
  uint64_t regions_total = 0;     // that were to be compared when it began, and since
  uint64_t regions_to_go = 0;
  uint64_t copied_bytes = 0;      // since it began
  uint64_t bytes_per_second = 0;  // of late
  uint64_t snapshots_to_go = 0;   // the one that it is given now, and those after that
};

// Brings replicas that are no members up to date and back (rule 7), one after the other. The one
// that it is at:
//
//   kAsking ─▶ kWelcoming ─▶ kExpanding ─▶ kLayers ─▶ kMaps ─▶ kBulk ─▶ kSettling ─▶ kLive
//   ─▶ kFlushing ─▶ kFinal … kReady ─▶ kProposed ─▶ a member      any ─lost, late, failed▶ kNone
//
// Where its snapshots are not those of the members (rule 8), and once more from kViewMaps on for
// each that it lacks:
//
//   kLayers ─▶ kRoom ─▶ kViewMaps ─▶ kViewCopy ─▶ kViewFreeze ─▶ kViewClose ─▶ kMaps
//
// Where a snapshot is taken meanwhile that is one more:
//
//   kViewCopy ─▶ kViewPaused ─▶ kViewCopy
//   kBulk … kFinal, kLastFlush, kReady ─▶ kPaused ─▶ kViewCopy of that one; none was taken: kBulk
//
// A snapshot is given to it by making its head equal to that, and freezing it. What clients write
// meanwhile is none of that: the last one is compared with the members' heads.
//
// kBulk: what it lacks is copied, and what clients write meanwhile is added to that, in parts of
// regions; no client waits for it. kLive: what clients write goes to it as well, but for parts that
// are to be copied yet, so that these become fewer. kFinal: flushes include it.
class Joiner final : Walker::Client {
 public:
  enum class Phase : uint8_t {
    kNone,
    kAsking,      // INQUIRE
    kWelcoming,   // WELCOME
    kExpanding,   // EXPAND, where it is smaller than the volume
    kLayers,      // asks it and a member which snapshots they have
    kRoom,        // deletes those that members do not have
    kViewMaps,    // asks what of a snapshot it lacks
    kViewCopy,    // that is copied
    kViewPaused,  // not now, as a snapshot is being taken
    kViewFreeze,  // its head becomes the snapshot
    kViewClose,   // members stop to keep that open
    kMaps,        // asks it and the members what it lacks
    kPaused,      // a snapshot is being taken: what is written lacks, and nothing is copied
    kBulk,
    kSettling,  // what was copied is flushed, before anybody waits for it
    kLive,
    kFlushing,  // again, as all was copied
    kFinal,     // what was sent to it before flushes included it is waited for
    kState,     // the target state
    kMissing,   // the missing maps of others
    kLastFlush,
    kDeletes,   // what was deleted since it was asked for its snapshots goes there as well
    kReady,     // but another record is not complete yet
    kProposed,  // the record with it
  };

  Joiner(ResyncHost& host, Copier& copier, RegionTable& table, Cleaner& cleaner,
         uint64_t sync_bytes);

  // --- news from the engine ----------------------------------------------------------------------
  // A replica that is no member can be asked, and is no longer.
  void OnAuthentic() { Next(); }
  void OnState(Link& link, bool welcomed, const wire::ReplicaState& state);
  void OnRefused(Link& link, const Status& why);
  void OnLost(Link& link);
  // Before anything of its connection ends, whoever it is.
  void OnConnectionLost(const Link& link) { views_.OnLost(link); }
  // A member left: it may come back after a while. Returns what is to be said of that beside why it
  // left; empty: nothing.
  std::string OnLeft(const Link& link);
  // Records were completed, or proposed.
  void OnMembers();
  void Look(uint64_t now_ns);
  // Members have deleted it.
  void OnDeleted(const std::string& name);
  // All operations with this tag and below are done.
  void OnQuiet(uint64_t complete_tag);
  void Stop();
  // A snapshot is about to be taken: from now on nothing new goes to the joiner, nor to members for
  // it, until one of the two below. It is let go where it cannot wait for that.
  void Pause();
  // Nothing of it is under way any more, but what has its operations wait.
  bool still() const { return walker_.idle() && !sync_.in_flight(); }
  // All members have it: it is the newest of those that the joiner lacks.
  void OnSnapshot(const wire::LayerEntry& snapshot);
  // None was taken, and no head was switched.
  void GoOn();

  // --- what goes to it ---------------------------------------------------------------------------
  // An operation that changes data or flushes is about to go to the members: whether it goes to the
  // joiner as well, which is at this link.
  bool Takes(const Operation& operation);
  size_t index() const { return link_ != nullptr ? link_->index() : SIZE_MAX; }
  Link* link() const { return link_; }
  // Flushes that are to make regions cleanable must include it.
  bool attached() const { return phase_ >= Phase::kBulk && phase_ != Phase::kProposed; }
  // Whether a write with FUA is one there.
  bool flushes() const { return phase_ >= Phase::kFinal; }
  // It has these regions, so that they can be cleaned as missing there.
  bool Has(RegionRun run) const { return attached() && !lacks_.regions().ContainsAny(run); }
  // The record that it holds, when that is the one that it was left at; null: it does not clean.
  const wire::Record* CleansUnder() const { return descends_ ? &state_.records.current : nullptr; }
  // A write may wait for it.
  bool live() const { return phase_ >= Phase::kLive; }
  Phase phase() const { return phase_; }
  // A record that is proposed has it, and it was made equal.
  bool IsResynced(size_t index) const {
    return phase_ == Phase::kProposed && index == this->index();
  }
  // The snapshot that members keep open for it; empty: none.
  const std::string& viewed() const { return views_.name(); }
  bool views_idle() const { return views_.idle(); }
  bool copied_since_flush() const { return copied_regions_ > 0; }
  JoinProgress Progress(const Link& link) const;
  // The longest time for which a replica is held off from now on.
  uint64_t HeldOffNs(uint64_t now_ns) const;
  bool idle() const;
  // The volume became larger, and so did the replica where it was asked what it lacks already.
  void Grow();
  void SetRate(uint64_t bytes_per_second) { walker_.SetRate(bytes_per_second); }
  // Lets it go; nothing of its connection counts from now on.
  void LetGo(const Status& why);

 private:
  struct Standing {
    uint64_t hold_until_ns = 0;
    uint64_t lost_ns = 0;  // when it was last lost
    uint32_t losses = 0;   // in a row, each within a minute of the one before
  };

  void Next();
  bool Admits(const wire::ReplicaState& state);
  void Enlarge();
  void OnEnlarged();
  void AskLayers();
  void ReadLayers(Link* link);
  void OnLayers(ErrorCode status);
  // Snapshots: joiner_layers.cc.
  struct LayerStep {
    wire::Opcode opcode = wire::Opcode::kDelete;
    wire::LayerEntry layer;
    std::string labels;
  };
  void MakeRoom();
  void DeleteThere();
  void NextStep();
  void SendStep();
  void OnStep();
  void StepsDone();
  void BeginView();
  void CopyView();
  void OnViews();
  void FreezeView();
  void AfterView();
  void ReadHeadChanges();
  // The snapshot that it is given.
  const wire::LayerEntry& view() const { return plan_.missing[view_next_]; }

  Link* StayingMember() const;
  bool asks_maps() const { return phase_ == Phase::kMaps || phase_ == Phase::kViewMaps; }
  bool copies() const {
    return phase_ == Phase::kBulk || phase_ == Phase::kLive || phase_ == Phase::kViewCopy;
  }
  void AskMaps(Phase phase);
  void NextMap();
  void OnMap(ErrorCode status);
  void TakeMap();
  void MapsDone();
  void BeginBulk();
  bool MayCopy() override { return reads_ahead_ || held_since_ns_ == 0; }
  void ChunkDone(uint64_t copied_bytes) override;
  bool NextRegion(Walker::Region* region) override;
  void RegionDone(const Walker::Region& region, ErrorCode status,
                  const Walker::Totals& totals) override;
  void AfterRegions();
  void SyncCopied();
  void HoldWrites(bool hold);
  void OnCopiedSynced();
  bool paused() const { return phase_ == Phase::kPaused || phase_ == Phase::kViewPaused; }
  void ResumeView();
  void ResumeBulk();
  void Flush(Phase phase);
  void OnFlushed(bool ok);
  void BeginFinal();
  void LockState();
  void CopyState();
  void OnStateCopied(ErrorCode status);
  void NextMissing();
  void OnMissing(ErrorCode status);
  void Propose();
  std::string HoldOff(const Link& link);
  void Reset();
  void Tell(uint64_t now_ns);

  ResyncHost& host_;
  RegionTable& table_;
  Cleaner& cleaner_;
  Copier& copier_;
  Walker walker_;
  std::array<Standing, kReplicasMax> standing_;

  Phase phase_ = Phase::kNone;
  bool stopped_ = false;
  Link* link_ = nullptr;
  wire::ReplicaState state_;
  LackSet lacks_;     // and nothing of it is being copied
  RegionSet virgin_;  // it has nothing but holes there
  bool descends_ = false;
  size_t copying_ = 0;           // regions
  uint64_t bulk_next_ = 0;       // kBulk goes through the volume once: from here on
  uint64_t copied_regions_ = 0;  // since the last flush
  const uint64_t sync_bytes_;
  uint64_t unsynced_bytes_ = 0;  // copied since the last one of `sync_`
  Errand sync_;
  Errand expand_;
  wire::ExpandBytes expand_payload_ = {};
  uint64_t expand_to_bytes_ = 0;  // what it was asked for
  uint64_t was_bytes_ = 0;        // how large it was before; 0: it is as it was
  uint64_t held_since_ns_ = 0;    // 0: what was read may be written
  bool reads_ahead_ = true;       // while what was copied is synced
  uint64_t barrier_tag_ = 0;
  uint64_t generation_ = 0;  // of the members that kMissing began with

  LayerReader layer_reader_;
  std::vector<wire::LayerEntry> member_layers_;
  LayerPlan plan_;
  size_t view_next_ = 0;  // of plan_.missing
  ViewSet views_;
  std::vector<LayerStep> steps_;      // to be done at it, the next one last
  std::vector<std::string> deleted_;  // since it was asked for its snapshots
  Errand step_;
  std::vector<std::byte> step_payload_;
  bool step_due_ = false;  // it must wait until a layer is merged away

  // Conversations about maps: with one link after the other.
  MapReader reader_;
  wire::RegionMaps maps_;
  size_t map_link_ = 0;
  bool map_found_ = false;  // a member has its map, and it holds the record that this names
  RegionSet map_;
  wire::RegionMaps other_maps_;  // of a member: those that the joiner must have as well
  size_t other_ = 0;
  enum class MissingStep : uint8_t { kList, kBegin, kRead, kSend };
  MissingStep missing_step_ = MissingStep::kList;
  StateCopier state_copier_;
  LockRequest state_lock_;
  bool state_locked_ = false;  // held, or waited for
  bool flush_due_ = false;     // another one was under way
  bool flushing_ = false;
  bool flush_stale_ = false;  // it was begun for what is of no account any more

  // Progress.
  uint64_t total_ = 0;
  uint64_t copied_bytes_ = 0;
  uint64_t told_bytes_ = 0;
  uint64_t told_ns_ = 0;
  uint64_t rate_ = 0;
};

}  // namespace ankole::engine
