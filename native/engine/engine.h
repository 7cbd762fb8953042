#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/block_device.h"
#include "base/counters.h"
#include "base/log.h"
#include "engine/ballot.h"
#include "engine/cleaner.h"
#include "engine/copier.h"
#include "engine/equalizer.h"
#include "engine/errand.h"
#include "engine/expander.h"
#include "engine/fault.h"
#include "engine/joiner.h"
#include "engine/link.h"
#include "engine/membership.h"
#include "engine/operation.h"
#include "engine/range_lock.h"
#include "engine/region_table.h"
#include "engine/resync_host.h"
#include "engine/scrubber.h"
#include "engine/snapshot_changes.h"
#include "engine/snapshot_reader.h"
#include "engine/snapshotter.h"
#include "engine/trimmer.h"
#include "io/reactor.h"

namespace ankole::engine {

//   kStarting ─decided▶ kFencing ─welcomed▶ kLearning ─known▶ kRecording ─complete▶ kServing
//        ▲                  │                   │           kServing ─members change▶ kChanging
//        └──answers changed─┴───────────────────┘           kChanging ─complete▶ kServing
//                                any ─fenced▶ kRefused      any ─Stop▶ kStopping ▶ kStopped
enum class Mode : uint8_t {
  kStarting,   // asks the replicas who they are (rule 6)
  kFencing,    // takes those it starts on (rule 3)
  kLearning,   // asks them where they may differ, after an unclean stop (rule 7)
  kRecording,  // writes the first record of this epoch
  kServing,
  kChanging,  // a record is proposed and not complete: nothing new is acknowledged (rule 2)
  kStopping,
  kStopped,
  kRefused,  // fenced off by a newer engine; never comes back
};

struct EngineOptions {
  struct Replica {
    wire::ReplicaId id = 0;
    io::Address address;
  };
  std::string volume;
  // What clients are known to have seen, a multiple of kBlockBytes.
  uint64_t size_bytes = 0;
  // What it is to have, where that is more, and what the order for it is called.
  uint64_t expand_to_bytes = 0;
  std::string expansion_id;
  Secret secret = {};
  wire::Epoch epoch;
  wire::Record record;  // the newest complete one that is known; generation 0: none
  // The supervisor saw the engine before this one end and kept its membership: `record`, and what
  // was proposed since. So the first record of this run needs no store (rule 6).
  bool kept = false;
  std::vector<wire::Record> proposals;
  // No other engine can answer a read any more: all before this one are known to have ended, and
  // the first of them waited as long as it had to (rule 4).
  bool alone = false;
  bool store_restored = false;  // as in StartBasis
  bool clients_anew = false;    // as in StartBasis
  std::vector<Replica> replicas;
  uint64_t late_ns = kNsPerSecond;
  uint64_t start_wait_ns = 5 * kNsPerSecond;
  // For what is copied between replicas: bytes a second; 0: as fast as it goes.
  uint64_t resync_bandwidth = 0;
  // Regions that writes may have dirty at a time (rule 5).
  size_t dirty_regions_max = kDirtyRegionsMax;
  // A volume of which clients want nothing for as long is flushed and its regions are cleaned.
  uint64_t idle_ns = 5 * kNsPerSecond;
  // What is copied to a joiner is synced in portions of this size, and at most two of them are not
  // yet. A sync keeps the disk, and all that share its device, from what clients wait for: two of
  // these take 100 ms at a disk of 160 MB a second.
  uint64_t copied_sync_bytes = 8 * kMiB;
  // Clients may look at the volume, and change nothing.
  bool read_only = false;
  // Shares memory with disk hosts that are reached by a Unix socket.
  bool shared_memory = true;
};

// What the engine reports; the internal mode is not for others.
struct EngineReport {
  const char* state;    // starting, serving, degraded, waiting, refused, stopping, stopped
  std::string message;  // for people; why, and for what it waits
  wire::Record record;  // the last complete one
  WaitsFor waits_for = WaitsFor::kNothing;
};

// How far the order to become larger has come.
enum class ExpansionState : uint8_t { kNone, kRunning, kDone, kFailed };
struct Expansion {
  std::string id;  // as it was asked for
  uint64_t to_bytes = 0;
  ExpansionState state = ExpansionState::kNone;
  Status status;  // kFailed: why. Then the volume is as it was
};

// The controller of one attached volume: a block device that is replicated to all members and stays
// one register for each block (rules 1 to 4, 6). One thread, the reactor's.
class Engine final : public BlockDevice, Link::Owner, ResyncHost, SnapshotHost {
 public:
  class Observer {
   public:
    virtual void OnReport(const EngineReport& report) = 0;
    // `fault`: why it is no member; kNone for one that is, or that is only connecting.
    virtual void OnReplica(wire::ReplicaId replica, const char* state, Fault fault,
                           const std::string& reason) = 0;
    // Why it cannot start, and what each replica said. Again when that changed.
    virtual void OnCannotStart(const StartDecision& decision, const std::vector<Heard>& heard) = 0;
    // Before any replica gets it.
    virtual void OnPropose(const wire::Record& record) = 0;
    // The record counts. A hint for the store: nothing waits for it.
    virtual void OnComplete(const wire::Record& record) = 0;
    // The store must hold this record before the engine goes on: AnswerStore with the same number.
    virtual void OnAskStore(uint64_t question, const wire::Record& record) = 0;
    // Whether the store can be read and written: AnswerStore with the same number.
    virtual void OnProbeStore(uint64_t question) = 0;
    // A scrub ended, or went on for a while: as in the counters.
    virtual void OnScrub(const Json& /*progress*/) {}
    // Likewise a trim.
    virtual void OnTrim(const Json& /*progress*/) {}
    // Before OnReady, and when either changed. `size_bytes`: from now on requests may go up to
    // there.
    virtual void OnSize(uint64_t /*size_bytes*/, const Expansion& /*expansion*/) {}
    // From now on requests are taken.
    virtual void OnReady() = 0;
    // All replicas were closed clean, or not.
    virtual void OnStopped(bool clean) = 0;

   protected:
    ~Observer() = default;
  };

  Engine(io::Reactor& reactor, Observer& observer, LogSink& log, EngineOptions options,
         std::unique_ptr<BufferPool> buffers);
  ~Engine() override;

  void Start();
  // After the front ends ended. OnStopped follows, within 3 s.
  void Stop();
  void AnswerStore(uint64_t question, const Status& outcome);

  // BlockDevice
  const std::string& name() const override { return options_.volume; }
  uint64_t size_bytes() const override { return size_bytes_; }
  bool read_only() const override { return options_.read_only; }
  BufferPool& buffers() override { return *buffers_; }
  void Submit(BlockRequest* request) override;
  void Release(BlockRequest* hold) override;

  Mode mode() const { return mode_; }
  EngineReport Report() const;
  Json CountersJson() const;
  // From now on; as in EngineOptions.
  void SetResyncBandwidth(uint64_t bytes_per_second);
  // Compares and repairs a range in the background, once; its progress is in the counters.
  void Scrub(uint64_t offset_bytes, uint64_t length_bytes, uint64_t bytes_per_second);
  // The whole volume; as Scrubber::Start.
  void ScrubAll(const std::string& id, uint64_t bytes_per_second, const ScrubProgress& before);
  void StopScrub() { scrubber_.Stop(); }
  // Gives back what takes up space and holds nothing but zeros; as Trimmer::Start. kUnavailable,
  // kReadOnly: nothing was begun.
  Status Trim(const std::string& id, uint64_t bytes_per_second, const TrimProgress& before);
  void StopTrim() { trimmer_.Stop(); }
  Json TrimJson() const { return trimmer_.ToJson(); }
  // Makes the volume larger, while clients are at work; OnSize says what became of it. The same
  // again, also for an order of another id, joins what is under way. kInvalidArgument, kBusy,
  // kUnavailable: nothing was begun. Waits for a snapshot that is being taken, for a while.
  Status Expand(const std::string& id, uint64_t size_bytes);
  // Snapshots (rule 8), one after the other in the order of the requests.
  void TakeSnapshot(SnapshotRequest* request);
  // Also where there is none: it succeeds.
  // The volume is what the snapshot holds; what it held before is lost, if it is in no other one.
  void RevertTo(SnapshotRequest* request);
  void DeleteSnapshot(SnapshotRequest* request);
  void ListLayers(SnapshotRequest* request);
  // What changed between two of them, one after the other.
  void ListChanges(ChangesRequest* request);
  // From now on it can be read, by the name that the request gives it: `readable` finds it. While a
  // client reads it, it is not deleted.
  void ReadSnapshot(ReadSnapshotRequest* request);
  BlockDevices& readable() { return readers_; }
  bool IsRead(const std::string& layer) const { return readers_.in_use(layer); }
  Json ScrubJson() const { return scrubber_.ToJson(); }
  size_t in_flight() const { return pool_.used(); }
  // Regions that may be dirty at some member.
  uint64_t dirty_regions() const { return regions_.dirty(); }
  // When the member welcomed this engine, where `dirty_regions` counts all that it has dirty; 0: it
  // is away, or still to be asked.
  uint64_t counts_dirty_since_ns(wire::ReplicaId member) const;
  // No record is proposed, and no member is to leave.
  bool settled() const { return Settled(); }
  // For how long a replica that comes and goes is held off from now on; 0: none is.
  uint64_t held_off_ns() const { return joiner_.HeldOffNs(reactor_.NowNs()); }
  // Requests, locks and what the engine does for itself, in words; empty: there is nothing.
  std::string UnderWay() const;
  // Stopped, and nothing of it is in flight at the reactor any more: it may be destroyed, also
  // where the loop goes on.
  bool Ended() const;

 private:
  // --- engine.cc: requests ---
  bool HasSlot(bool nested) const;
  void Begin(Operation* operation, BlockRequest* request);
  void Lock(Operation* operation);
  void Granted(Operation* operation);
  void Ready(Operation* operation);
  void Dispatch(Operation* operation);
  void DispatchWaiting();
  bool AddPart(Operation* operation, size_t index, bool alone);
  void SendPart(Operation* operation, size_t index, bool alone);
  bool SendShared(Operation* operation, Link& link, wire::Header header, bool alone);
  void ReleaseChunk(MemberPart& part);
  bool Route(Operation* operation);
  void OnFrameSent(Operation* operation, size_t index);
  void PartAnswered(Operation* operation, size_t index, ErrorCode status);
  void AbandonParts(Operation* operation);
  void PartGone(Operation* operation, size_t index);
  void JudgeAll();
  void Judge(Operation* operation);
  void JudgeFailures(Operation* operation);
  wire::Members SpoiledAt(const Operation& operation) const;
  bool FlushesTooLittle(const Operation& operation) const;
  bool ReadsTooEarly(const Operation& operation) const;
  void Finish(Operation* operation, ErrorCode status);
  void Acknowledge(Operation* operation);
  void Recycle(Operation* operation);
  void RetryFull(uint64_t now_ns);
  bool AnyWithoutSpace() const;
  void AnswerLater(BlockRequest* request, ErrorCode status);
  void FailWaiting(ErrorCode status);
  void DetachPart(Operation* operation, size_t index);

  // --- engine_resync.cc: dirty regions, and what makes replicas equal ---
  io::Reactor& reactor() override { return reactor_; }
  LogSink& log() override { return log_; }
  RangeLock& locks() override { return locks_; }
  Errands& errands() override { return errands_; }
  std::span<const std::unique_ptr<Link>> links() const override { return links_; }
  const wire::Members& members() const override { return targets(); }
  const wire::ReplicaState& StateOf(const Link& link) const override {
    return heard_[link.index()].state;
  }
  const wire::Record& complete() const override { return complete_; }
  bool Settled() const override;
  bool AllEqual() const override { return equalizer_.AllEqual(); }
  bool Busy() const override;
  bool HoldsReads() const override { return snapshotter_.holds_flushes(); }
  bool MayJoin() const override { return snapshotter_.may_join(); }
  uint64_t NewTag() override { return ++next_tag_; }
  uint64_t CompleteTag() const override;
  void SendErrand(Errand* errand) override;
  bool SubmitOwn(OwnRequest* request) override;
  void RegionsCleaned() override { AdmitWaiting(); }
  void MemberFailed(Link& link, const Status& why) override;
  void JoinerFailed(Link& link, const Status& why) override;
  void ProposeWith(Link& joiner) override;
  void TellReplica(const Link& link, const char* state, const Status& why) override;

  void Admit(Operation* operation);
  void AdmitWaiting();
  void Proceed(Operation* operation);
  void Unpin(Operation* operation);
  void GrantedClean(Operation* operation);
  void EncodeClean(const Operation& operation, Link& link, wire::Header* header,
                   wire::OutgoingFrame* frame);
  bool GoesToJoiner(Operation* operation);
  bool RepairFirst(Operation* operation, ErrorCode error);
  void Prepared(Operation* operation);
  void LearnMaps();
  void MembersChanged();
  void LookAtResync(uint64_t now_ns);
  void CheckErrands(uint64_t now_ns);
  void ClearSuspects();
  void StopResync();
  bool ResyncIdle() const;
  Json ResyncJson(const Link& link) const;

  // --- engine_snapshots.cc ---
  const char* WhyUnsettled() const override;
  const char* WhyNoSnapshot() const override;
  Status WhyNeverASnapshot() const override;
  bool Quiet() const override;
  void FlushesGoOn() override;
  void PauseJoiner() override { joiner_.Pause(); }
  void LetJoinerGo() override;
  bool JoinerIsStill() const override;
  void JoinerGoesOn(const wire::LayerEntry* snapshot) override;
  const char* ReleaseView(const std::string& name, bool* soon) override;
  void OnDeleted(const std::string& name) override { joiner_.OnDeleted(name); }
  uint64_t ProposeSnapshot(const std::string& name) override;
  void WriteProposal(Link& link) override;
  void ProposalFailed(Link& link, const Status& why) override;
  void DispatchFlush(Operation* operation);
  bool HasSnapshots() const;

  // --- engine_replies.cc: what comes from the links ---
  void OnLinkAuthentic(Link& link) override;
  void OnLinkState(Link& link, bool welcomed, const wire::ReplicaState& state) override;
  void OnLinkRefused(Link& link, const Status& why) override;
  void OnLinkReply(Link& link, const wire::Header& header, const std::byte* payload,
                   std::byte* data) override;
  std::byte* OnLinkLargeData(Link& link, const wire::Header& header) override;
  void OnLinkControl(Link& link, wire::Opcode opcode, const Status& outcome) override;
  void OnLinkLost(Link& link, const Status& why) override;
  void OnLinkAlive(Link& link) override;
  Operation* OperationOf(Link& link, const wire::Header& header);
  Status TakeAnswer(Operation* operation, const Link& link, const wire::Header& header,
                    const std::byte* payload, const std::byte* data);
  Operation* QuietLeftOver();
  void ReRoute(Link& link);
  void OnDoorbell();
  bool DrainShared();
  void ReturnedMember(Link& link);
  struct Departure {
    Fault fault = Fault::kNone;
    std::string reason;
  };
  bool KnowsRecord(const wire::Record& holds) const;
  Departure WhyNotBack(const Link& link) const;
  void SendUnanswered(Link& link);
  void MemberGone(Link& link);

  // --- engine_start.cc: starting (rule 6) ---
  void Evaluate();
  StartDecision Decide(const std::vector<Heard>& heard) const;
  bool EveryoneHad(uint64_t time_ns) const;
  void Fence(const StartDecision& decision);
  void AskAgain(const std::string& why);
  void FencedMember();
  void GoOnStarting();
  void FirstRecord();

  // --- engine_expand.cc: a volume that becomes larger ---
  bool GrowBeforeStart();
  void Grow(uint64_t size_bytes);
  void OnExpanded(const Status& status);
  void ServeFromNowOn();
  void BecomeReady();
  void LookAtExpansion(uint64_t now_ns);
  // Ordered, and neither carried out nor refused.
  bool expanding() const { return expand_due_ns_ != 0 || expander_.running(); }
  void BeginExpansion();
  void NoteSize(const Link& link, uint64_t size_bytes) override;
  bool IsToGrow(size_t index) const override;
  bool MayGrow() const override { return Settled() || mode_ == Mode::kFencing; }
  void JoinerCannotGrow(const Status& why) override { joiner_.LetGo(why); }

  // --- engine_membership.cc: changing members (rule 2) ---
  void ServeWhenAlone();
  void Propose(const wire::Members& members);
  void WriteRecord(Link& link);
  void RecordWritten(Link& link);
  void AskStore();
  void ProbeStore(uint64_t now_ns);
  void Complete();
  void AcknowledgeHeld();
  // These members must leave, whatever they do from now on; CHECKs that one stays. They do at once
  // where rule 2 needs no store, else when the store answers.
  void Drop(const wire::Members& leaving, Fault fault, const std::string& reason);
  void MustLeave(const wire::Members& leaving, Fault fault, const std::string& reason);
  // Those that must leave, and those that are late and may still be back, as far as rule 2 lets
  // them now.
  void LetLeave(const wire::Members& late);
  void PartWith(Link& link);
  void Refuse(const std::string& reason);
  void GiveUpBuffers();
  void AskAgainForRecord(uint64_t now_ns);

  // --- engine_late.cc: what time brings about ---
  void Tick();
  void TickHeldUp();
  void LookAround(uint64_t now_ns, bool forgive);
  void ArmTick(bool fast);
  // Who is late: `first` after the time of a minority, `second` after that of a drop that needs
  // the store.
  struct Late {
    wire::Members first;
    wire::Members second;
    wire::Members silent;              // those of `first` that do not even say that they work
    uint64_t next_in_ns = UINT64_MAX;  // when the next of them will be
  };
  wire::ReplicaId LastHeard(const wire::Members& members) const;
  bool AnyAlive(const wire::Members& members);
  bool IsSilent(const Link& link, uint64_t now_ns) const;
  bool IsWaitedFor(const Link& link) const;
  void CheckMembers(uint64_t now_ns);
  void CheckSilence(Link& link, uint64_t now_ns);
  void CheckLinks(uint64_t now_ns, Late* late);
  void CheckOperations(uint64_t now_ns, Late* late);
  void CheckProposal(uint64_t now_ns, Late* late);
  void NoteLate(Late* late, const Link& link, uint64_t waited_ns, uint64_t limit_ns, Fault fault,
                std::string_view reason);
  void LeaveLate(Late late);

  // --- engine_whole.cc: members that leave with all that was acknowledged ---
  void NoteWhole(const Operation& operation);
  void NoteWhole(const Link& link);
  bool RouteToWhole(Operation* operation);
  bool KeepWhole(const Operation& operation);
  void KeepWhole(const wire::Members& whole);

  // --- engine_stop.cc: stopping ---
  void CloseWhenIdle();
  void CloseOf(Link& link, bool clean);
  void Closed(bool in_time);

  // --- engine_report.cc: what it says of itself ---
  void SetMode(Mode mode, const std::string& message);
  void SetMessage(const std::string& message, WaitsFor waits_for = WaitsFor::kNothing);
  // What held I/O up is over.
  void GoesOn();
  std::string WhoLeft() const;

  // --- lease.cc: reads (rule 4) ---
  bool HasLease(uint64_t now_ns) { return now_ns <= lease_until_ns_ || RenewLease(now_ns); }
  bool RenewLease(uint64_t now_ns);
  void AskForLease();
  void AnswerHeldReads();
  void CheckLease(uint64_t now_ns);

  const wire::Members& targets() const { return proposal_.record.members; }
  // Without those that must leave.
  wire::Members Staying() const;
  bool HeldByStaying() const;
  bool NeededForRecord(wire::ReplicaId id) const;
  bool SharesMember(const wire::Members& members) const;
  bool IsStaying(size_t index) const override {
    return IsTarget(index) && !leaving_.Contains(links_[index]->replica());
  }
  bool IsTarget(size_t index) const { return targets().Contains(links_[index]->replica()); }
  io::Reactor& reactor_;
  Observer& observer_;
  LogSink& log_;
  const EngineOptions options_;
  std::unique_ptr<BufferPool> buffers_;
  std::unique_ptr<SharedState> shared_;  // null: no disk host can share memory
  io::AwaitOperation doorbell_;
  io::CloseOperation doorbell_close_;
  std::vector<std::unique_ptr<Link>> links_;
  Mode mode_ = Mode::kStarting;
  std::string message_;

  // Requests.
  OperationPool pool_;
  RangeLock locks_;
  uint64_t next_tag_ = 0;
  IntrusiveList<Operation, &Operation::node> in_flight_;  // dispatched, in the order of tags
  IntrusiveList<Operation, &Operation::node> left_over_;  // answered, but not quiet
  IntrusiveList<Operation, &Operation::queue_node> to_judge_;
  bool judging_ = false;
  IntrusiveList<Operation, &Operation::queue_node> held_;      // done; until a record is complete
  IntrusiveList<Operation, &Operation::queue_node> full_;      // no member has space
  IntrusiveList<Operation, &Operation::queue_node> unproved_;  // reads that wait for the lease
  uint64_t unproved_since_ns_ = 0;
  // A write that found no space at any member is tried again after so long.
  static constexpr uint64_t kFullRetryNs = kNsPerSecond;
  static constexpr const char* kOutOfSpaceText =
      "all members are out of space: writes wait until there is room on their disks";
  uint64_t out_of_space_ns_ = 0;  // when a write last found no space anywhere; 0: there is some
  struct RequestQueue {
    BlockRequest* head = nullptr;
    BlockRequest* tail = nullptr;
    bool empty() const { return head == nullptr; }
    void Push(BlockRequest* request);
    BlockRequest* Pop();
  };
  // Waiting for a slot. Those within a hold have a queue and a reserve of slots of their own, as
  // all other slots may wait for that hold.
  RequestQueue queue_;
  RequestQueue nested_;
  RequestQueue answers_;  // to be answered at the end of this turn: refused ones, holds
  io::Task answer_task_;
  std::byte* scratch_ = nullptr;  // where answers go that nobody wants any more
  // The last member came back from a reboot: what was not flushed may be gone, so no flush can
  // succeed any more (rule 1).
  bool lost_writes_ = false;
  DeviceCounters counters_;

  uint64_t size_bytes_;  // grows only
  // At a start one of its members was as small as this.
  uint64_t unequal_from_bytes_ = UINT64_MAX;

  // What makes replicas equal, and keeps account of where they may not be (rules 5 and 7).
  Errands errands_;
  RegionTable regions_;
  Copier copier_;
  Cleaner cleaner_;
  Equalizer equalizer_;
  Joiner joiner_;
  Scrubber scrubber_;
  Expander expander_;
  Expansion expansion_;
  uint64_t expand_due_ns_ = 0;  // since then it waits for a snapshot; 0: it does not
  bool ready_due_ = false;      // OnReady waits for the first expansion
  uint64_t ready_limit_ns_ = 0;
  Snapshotter snapshotter_;
  SnapshotChanges changes_;
  SnapshotReaders readers_;
  Trimmer trimmer_;
  // They wait until all members have switched to the next head.
  IntrusiveList<Operation, &Operation::queue_node> flushes_;
  IntrusiveList<Operation, &Operation::queue_node> admission_;  // they wait for regions
  uint64_t client_ns_ = 0;  // when a client last asked for something
  wire::Members suspects_;  // started on, and not made equal yet

  // Membership.
  std::vector<Heard> heard_;  // by link
  StartDecision decision_;
  std::string lacking_;  // as it was told last
  uint64_t start_deadline_ns_ = 0;
  // An engine before this one may still answer reads until then.
  uint64_t serve_from_ns_ = 0;
  wire::Record complete_;  // the last complete record
  Ballot ballot_;          // what a record must carry to be complete without the store
  // Until then reads may be answered without asking anybody; 0: not known.
  uint64_t lease_until_ns_ = 0;
  struct Proposal {
    wire::Record record;
    wire::Members written;     // by these members, durably
    bool outstanding = false;  // not complete
    uint64_t since_ns = 0;     // when its last step was begun
    // To the store; 0: not asked. An answer to any of them is one to this record.
    uint64_t first_question = 0;
    uint64_t question = 0;
    bool store_refused = false;  // asked again after a while
  } proposal_;
  std::array<uint64_t, kReplicasMax> record_sent_ = {};  // generation, by link
  wire::Members leaving_;  // must leave, and are members of the proposal still
  wire::Members whole_;    // of these: they hold all that was acknowledged (engine_whole.cc)
  std::array<Departure, kReplicasMax> departures_;  // of those that leave or are late, by link
  std::array<uint32_t, kFaults> faults_ = {};       // departures since the start
  struct Probe {
    uint64_t question = 0;     // of the last one; 0: none
    uint64_t asked_ns = 0;     // when it was
    bool open = false;         // has no answer yet
    uint64_t answered_ns = 0;  // when the store last said that it works; 0: never
    bool wanted = false;       // somebody can only leave when it does
  } probe_;
  WaitsFor waits_for_ = WaitsFor::kNothing;
  uint64_t next_question_ = 0;
  io::Timer tick_;
  io::Task tick_task_;  // where ticks were held up
  bool tick_fast_ = false;
  uint64_t late_in_ns_ = UINT64_MAX;  // when somebody will be late, as the last tick saw it
  bool tick_was_late_ = false;
  bool forgives_ = false;            // nobody is called late before the next tick
  uint64_t reachable_since_ns_ = 0;  // since when some member is; 0: none is
  bool alive_wanted_ = false;        // somebody can only leave when a PING is answered
  uint64_t alive_since_ns_ = 0;      // that was sent since then; 0: nobody must leave
  bool active_ = false;              // something happened since the last tick
  bool trimmed_ = true;

  bool closing_ = false;
  wire::Members closes_due_;
  bool closes_clean_ = true;
  uint64_t stop_deadline_ns_ = 0;
};

}  // namespace ankole::engine
