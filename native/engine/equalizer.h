#pragma once

#include <array>
#include <string>
#include <vector>

#include "engine/map_reader.h"
#include "engine/operation.h"
#include "engine/region_table.h"
#include "engine/state_copier.h"
#include "engine/walker.h"

namespace ankole::engine {

// After an unclean stop members may differ where the engine before was at work (rule 7). This
// learns where that is, before any I/O, and makes it equal in the background; and at once what a
// client wants to read.
class Equalizer final : Walker::Client {
 public:
  Equalizer(ResyncHost& host, Copier& copier, RegionTable& table);

  // --- before the first record -------------------------------------------------------------------
  // Asks all members for their maps, and marks the union of the dirty ones on each of them. `done`
  // follows; not kOk when a connection broke, or a member could not answer. `also` counts as dirty,
  // whatever the maps say.
  struct Member {
    Link* link = nullptr;
    wire::ReplicaState state;
  };
  void Learn(std::vector<Member> members, RegionRun also,
             void (*done)(void* owner, const Status& status), void* owner);

  // --- serving -----------------------------------------------------------------------------------
  // The volume became larger: the table of regions did.
  void Grow();
  // Where members may differ.
  const RegionSet& unequal() const { return unequal_; }
  // Whether the operation must not go to the members before its range is equal.
  bool Concerns(const Operation& operation) const;
  // Makes it equal; the operation has its range locked for itself. `ready` follows.
  void Prepare(Operation* operation, void (*ready)(Operation*));
  // Operations that wait in Prepare.
  bool preparing() const { return preparing_ > 0; }
  // A member is new, or back after its connection broke. It may have more dirty regions than were
  // written: a process that was started anew goes by what its disk says. They are cleaned as all
  // others, so that their checksums count again.
  void Returned(const Link& link);
  // That is still to come, or under way.
  bool Asks(const Link& link) const {
    return returned_[link.index()] || (returned_reader_.busy() && asked_ == link.index());
  }
  // A read found this range corrupt at a member: it is written anew there from another one.
  void Repair(uint64_t offset_bytes, uint64_t length_bytes);

  void Pump();
  bool AllEqual() const { return unequal_.empty() && walker_.idle(); }
  uint64_t repaired_blocks() const { return repaired_blocks_; }
  uint64_t copied_bytes() const { return copied_bytes_; }
  bool idle() const {
    return walker_.idle() && preparing_ == 0 && repairing_ == 0 && !learning() &&
           !returned_reader_.busy();
  }
  void SetRate(uint64_t bytes_per_second) { walker_.SetRate(bytes_per_second); }
  void Stop();

 private:
  struct Range {
    uint64_t offset_bytes;
    uint64_t length_bytes;
  };
  static constexpr size_t kRepairs = 64;

  bool learning() const { return learning_ > 0 || state_copier_.busy(); }
  void AskNext(size_t index);
  void OnMap(size_t index, ErrorCode status);
  void MarkAll();
  void CopyState();
  void EndLearning();
  bool NextRegion(Walker::Region* region) override;
  void RegionDone(const Walker::Region& region, ErrorCode status,
                  const Walker::Totals& totals) override;
  void OpenOld();
  void PrepareNext(Operation* operation);
  void PumpPrepare();
  void PumpRepairs();
  void PumpReturned();

  ResyncHost& host_;
  Copier& copier_;
  RegionTable& table_;
  Walker walker_;
  RegionSet unequal_;
  RegionSet taken_;                     // of these, those that are being made equal
  uint64_t wanted_ = RegionSet::kNone;  // a client reads it: it is next

  // Learning.
  std::vector<Member> members_;
  std::vector<std::unique_ptr<MapReader>> readers_;
  std::array<bool, kReplicasMax> known_ = {};
  size_t learning_ = 0;  // replicas that have not answered yet
  bool marking_ = false;
  bool all_known_ = false;
  Status learned_;
  StateCopier state_copier_;
  RegionSet dirty_;
  RegionSet recent_;
  void (*learned_done_)(void* owner, const Status& status) = nullptr;
  void* learned_owner_ = nullptr;

  size_t preparing_ = 0;
  IntrusiveList<Operation, &Operation::queue_node> waiting_;  // for a copy
  std::array<Range, kRepairs> repairs_;
  size_t repairs_count_ = 0;
  size_t repairing_ = 0;

  // Members that are new or back, by link, whose dirty regions are still to be asked for.
  std::array<bool, kReplicasMax> returned_ = {};
  MapReader returned_reader_;
  size_t asked_ = 0;  // by it
  RegionSet returned_dirty_;
  bool stopped_ = false;
  uint64_t repaired_blocks_ = 0;
  uint64_t copied_bytes_ = 0;
};

}  // namespace ankole::engine
