#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/counters.h"
#include "base/intrusive_list.h"
#include "base/log.h"
#include "base/result.h"
#include "io/reactor.h"
#include "replica/clone.h"
#include "replica/recent_regions.h"
#include "replica/replica.h"
#include "replica/session.h"
#include "wire/hello.h"

namespace ankole::replica {

// One replica of a disk host: opened when an engine first asks for it, held by at most one engine
// at a time (rule 3), closed by that engine's CLOSE or the disk host's stop.
//
// What must happen next is decided in one place, Advance, from what is wanted and what is so.
class ServedReplica {
 public:
  ServedReplica(io::Reactor& reactor, LogSink& log, std::string volume, wire::ReplicaId id,
                std::string directory);
  ~ServedReplica();
  ServedReplica(const ServedReplica&) = delete;
  ServedReplica& operator=(const ServedReplica&) = delete;

  const std::string& volume() const { return volume_; }
  wire::ReplicaId id() const { return id_; }
  const std::string& directory() const { return directory_; }
  // «replica <id> of volume <name>».
  std::string Name() const;

  // Who it is, once it could be read.
  void SetIdentity(const Identity& identity) {
    identity_ = identity;
    failure_ = Status::Ok();
  }
  void SetFailure(const Status& failure);
  // Whether it is time to read its files again, where that failed. True: the caller does, and calls
  // LookedAgain.
  bool MayLookAgain();
  void LookedAgain();
  bool has_identity() const { return identity_.id != 0; }
  const Identity& identity() const { return identity_; }
  bool is_open() const { return replica_ != nullptr; }
  bool ending() const { return ended_ != nullptr; }
  // Why it could not be read or opened the last time; kOk when it could.
  const Status& failure() const { return failure_; }
  const DeviceCounters& counters() const { return counters_; }
  DeviceCounters& counters() { return counters_; }
  // Since the disk host started.
  SumCounters sum_counters() const;

  // --- for its sessions
  // ----------------------------------------------------------------------------

  void Attach(Session* session);
  // The session is gone: it wants nothing any more and has nothing in flight.
  void Detach(Session* session);
  // The connection broke: it wants nothing any more, what it began goes on.
  void Forget(Session* session);
  // Answered by Session::OnInquired.
  void Inquire(Session* session);
  // Rule 3. Answered by Session::OnWelcomed; until then the session submits nothing, and after it
  // it is the only one that does.
  void Welcome(Session* session);
  // Flush and mark clean; the session has nothing in flight. Answered by Session::OnLeft.
  void Leave(Session* session);
  bool Serves(const Session* session) const { return current_ == session; }

  // From the welcomed session only.
  void Submit(ReplicaOperation* operation);
  // One operation of a session is done (called for each that was submitted).
  struct Outcome {
    OperationKind kind;
    ErrorCode status;
    RegionRange range;  // of kClean
    bool resynced;      // of kRecord
  };
  void OnOperationDone(const Outcome& outcome);
  // The engine says that all of its tags up to this one are complete.
  void Heard(uint64_t complete_tag) { recent_.Complete(complete_tag); }
  uint64_t size_bytes() const { return replica_->size_bytes(); }
  bool has_checksums() const { return replica_->has_checksums(); }
  // Nothing was asked of it for a while.
  void Trim() { replica_->Trim(); }
  const RegionMap& regions() const { return replica_->regions(); }
  const RecentRegions& recent() const { return recent_; }
  // Something that changes data of the head is in flight.
  bool changing() const { return changing_ > 0; }
  // What the session opened; nothing of it is in flight.
  void CloseViews(const Session* session) {
    if (replica_ != nullptr) replica_->CloseViews(session);
  }
  // The newest record that was submitted, done or not.
  const wire::Record& newest_record() const { return newest_record_; }

  // --- for the disk host
  // -----------------------------------------------------------------------------

  // Ends it: waits until all sessions are gone (the caller closes or drains them), then closes the
  // replica, unclean unless it was left. Then `done`, once. Whether `done` destroys this is its
  // affair.
  void End(std::function<void(const Status&)> done);
  // Closes every session's connection.
  void CloseSessions(const Status& why);
  // Makes a linked clone of what the snapshot of that layer holds. It is opened for that where no
  // engine has it open. One at a time; then `done`, once.
  void Clone(const std::string& layer, CloneTarget target, std::function<void(const Status&)> done);

 private:
  void Advance();
  void AdvanceWelcome();
  void FinishWelcome(const Status& status);
  void StartOpen();
  void StartClose(bool clean);
  void OnWelcomeWritten();
  void Report(ErrorCode status);
  wire::ReplicaState State() const;
  void OnCleaned(RegionRange range);
  void Tidy();
  void MergeIn(uint64_t delay_ns);
  void Merge();
  void OnMerged();
  void TellShared();
  void AdvanceClone();
  void OnCloned();
  void FinishClone(const Status& status);

  io::Reactor& reactor_;
  LogSink& log_;
  const std::string volume_;
  const wire::ReplicaId id_;
  const std::string directory_;
  Identity identity_;
  Status failure_;
  bool looking_ = false;        // its files are being read again
  uint64_t look_again_ns_ = 0;  // not before then
  uint64_t look_pause_ns_ = 0;  // grows with each failure
  DeviceCounters counters_;
  SumCounters closed_sums_;  // of openings before

  std::unique_ptr<Replica> replica_;
  bool job_running_ = false;  // it is being opened or closed
  size_t in_flight_ = 0;      // operations of all sessions at the storage
  size_t changing_ = 0;       // of these, those that change data
  bool changed_ = false;      // an engine changed data since it was opened
  bool sync_failed_ = false;  // until it was made equal, marked on the disk or not
  wire::Record newest_record_;
  RecentRegions recent_;
  wire::Epoch served_;  // of the engine that was welcomed last

  // What was cleaned goes from the disk some time after.
  ReplicaOperation tidy_operation_;
  io::Timer tidy_timer_;
  bool tidying_ = false;
  // Layers whose snapshots were deleted go, a step at a time.
  ReplicaOperation merge_operation_;
  io::Timer merge_timer_;
  bool merging_ = false;
  size_t shared_told_ = 0;  // of the layers that stay as a clone has them

  struct Cloning {
    ReplicaOperation operation;
    std::string layer;
    CloneTarget target;
    std::function<void(const Status&)> done;
    bool running = false;
    bool opened = false;  // the replica, for this alone
  };
  std::unique_ptr<Cloning> cloning_;

  IntrusiveList<Session, &Session::replica_node> sessions_;
  std::vector<Session*> inquirers_;
  Session* current_ = nullptr;   // the welcomed one
  Session* welcomer_ = nullptr;  // asked to be, not answered yet
  Session* leaver_ = nullptr;    // asked to leave, not answered yet
  ReplicaOperation welcome_operation_;
  bool welcome_writing_ = false;
  std::function<void(const Status&)> ended_;  // set: it is to end
  Status end_status_;

  ErrorCode reported_ = ErrorCode::kOk;
  uint64_t reported_ns_ = 0;
};

}  // namespace ankole::replica
