#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/block_device.h"
#include "base/intrusive_list.h"
#include "scsi/answer.h"
#include "scsi/logical_unit.h"
#include "scsi/mode.h"
#include "scsi/nexus.h"
#include "scsi/reservations.h"

namespace ankole::scsi {

// LUN 0 by peripheral device or flat space addressing (SAM-5, 4.7.7).
bool IsThisUnit(const std::array<uint8_t, 8>& lun);

// The insides of LogicalUnit.
//
// A task goes Execute → (dormant, while earlier ones are to end first) → Begin → Dispatch. There it
// is either answered, or has requests at the device; when the last of them has ended its `proceed`
// goes on. Finish ends it on every way.
//
// `done` runs from the reactor if the task ends within a call of the transport, else at once.
class LogicalUnit::Body {
 public:
  Body(io::Reactor& reactor, BlockDevice& device, LogSink& log, Identity identity);
  ~Body();

  void Start(std::function<void(const Status&)> ready);
  Nexus* AddNexus(const std::string& initiator_port);
  void RemoveNexus(Nexus* nexus);
  void CapacityChanged();
  void SetResources(const Resources& resources);
  Needs Prepare(Task* task);
  void Execute(Task* task);
  void Abort(Task* task);
  void Manage(TaskManagement function, Nexus* nexus);
  size_t tasks() const { return tasks_.size() + finished_.size(); }

 private:
  using TaskList = IntrusiveList<Task, &Task::node>;

  // While a call of the transport is on the stack no `done` runs.
  class Entry {
   public:
    explicit Entry(Body* body) : body_(body) { ++body_->entries_; }
    ~Entry() { --body_->entries_; }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    Body* body_;
  };

  // While many tasks are aborted none begins in place of one, only to be aborted next.
  class Pause {
   public:
    explicit Pause(Body* body) : entry_(body), body_(body) {
      before_ = std::exchange(body_->waking_, true);
    }
    ~Pause() {
      body_->waking_ = before_;
      body_->Wake();
    }
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    const Entry entry_;
    Body* body_;
    bool before_;
  };

  // logical_unit.cc: the life of a task
  Task* NextToWake() const;
  void Wake();
  void Begin(Task* task);
  std::optional<Sense> CheckMedium(const Command& command) const;
  void Dispatch(Task* task);
  static void OnRequestDone(BlockRequest* request);
  void Continue(Task* task);
  void FinishFault(Task* task);
  void Finish(Task* task);
  void Refuse(Task* task, const Sense& sense);
  void End(Task* task, ScsiStatus status);
  // Data-In that was built in the task's room.
  void Deliver(Task* task, const Answer& answer);
  static std::span<std::byte> Room(const Task& task);
  bool AbortAll(const Nexus& nexus, const Task* except = nullptr);
  void RaiseAll(SenseCode code, const Nexus* except);
  void RunFinished();
  void EndWithout(Task* task);

  template <void (Body::*kStep)(Task*)>
  static void Step(Task* task) {
    (task->nexus->body.*kStep)(task);
  }

  // A request of the task that is ready to be sent. Submit sends the first `count`, then `proceed`
  // goes on.
  TaskRequest* Request(Task* task, size_t index, BlockOperation operation, uint64_t offset_bytes,
                       uint64_t length_bytes, std::byte* data = nullptr);
  void Submit(Task* task, size_t count, void (*proceed)(Task*));
  void Hold(Task* task, void (*proceed)(Task*));

  // medium.cc: data of the medium
  void Read(Task* task);
  void SubmitReads(Task* task);
  void FinishRead(Task* task);
  void Write(Task* task);
  void WriteAndVerify(Task* task);
  void Verify(Task* task);
  void VerifyPiece(Task* task);
  void ComparePiece(Task* task);
  void CompareAndWrite(Task* task);
  void ReadToCompare(Task* task);
  void WriteIfEqual(Task* task);
  void OrWrite(Task* task);
  void OrPiece(Task* task);
  void WriteMerged(Task* task);
  void Miscompare(Task* task, uint64_t offset_bytes);

  // provisioning.cc: caches, and blocks without data
  void SynchronizeCache(Task* task);
  void Unmap(Task* task);
  void UnmapPieces(Task* task);
  void WriteSame(Task* task);
  void ZeroPieces(Task* task);
  void PatternPieces(Task* task);
  void GetLbaStatus(Task* task);
  void FinishLbaStatus(Task* task);
  void StartStopUnit(Task* task);
  void SetPower(Task* task);

  // extended_copy.cc: copies within the medium
  void ExtendedCopy(Task* task);
  void CopyPiece(Task* task);
  void WriteCopied(Task* task);
  void FinishCopied(Task* task);

  // parameters.cc: commands that are answered at once
  void Parameters(Task* task);
  void BuildRequestSense(Task* task, bool connected, Answer* to);
  void ModeSelect(Task* task);

  // persistent.cc: reservations
  bool Conflict(const Task& task) const;
  void Reserve(Task* task);
  void Release(Task* task);
  void PersistentIn(Task* task);
  void PersistentOutArrived(Task* task);
  void BeginPersistentOut(Task* task);
  void Store(const Reservations& state, void (*stored)(Task*));
  void FinishPersistentOut(Task* task);
  void FinishFailedPersistentOut(Task* task);
  void BeginNextPersistentOut();
  void Adopt(Transition transition, Task* by);
  void SendState(BlockOperation operation);
  void OnState();
  void Ready(const Status& status);

  io::Reactor& reactor_;
  BlockDevice& device_;
  LogSink& log_;
  const Identity identity_;
  uint64_t capacity_blocks_;  // grows only

  TaskList tasks_;     // in the order of coming; dormant, queued and running
  TaskList finished_;  // for the reactor's task
  io::Task finish_task_;
  int entries_ = 0;      // calls of the transport on the stack
  size_t ordered_ = 0;   // of tasks_, with the attribute ORDERED
  size_t dormant_ = 0;   // of tasks_
  bool waking_ = false;  // no dormant task begins from elsewhere

  std::vector<std::unique_ptr<Nexus>> nexuses_;
  ModeState mode_;
  Resources resources_;
  bool stopped_ = false;          // START STOP UNIT
  Nexus* reserved_by_ = nullptr;  // RESERVE (SPC-2)

  Reservations reservations_;
  // A store and the one that was to undo it have failed: what the members hold is not known.
  bool unsure_ = false;
  Task* storing_ = nullptr;  // the PERSISTENT RESERVE OUT whose outcome is being stored
  Transition transition_;    // its outcome
  BufferPool::Chunk* state_chunk_ = nullptr;  // for the blob, from Start on
  struct StateRequest : BlockRequest {
    Body* body = nullptr;
  } state_request_;
  io::Task no_memory_task_;
  std::function<void(const Status&)> ready_;
  bool started_ = false;
};

}  // namespace ankole::scsi
