#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/block_device.h"
#include "base/log.h"
#include "base/result.h"
#include "io/reactor.h"
#include "scsi/inquiry.h"
#include "scsi/resources.h"
#include "scsi/task.h"

namespace ankole::scsi {

// One initiator port's relation to the logical unit (SAM-5: I_T nexus), for as long as its session
// lives. Owned by the logical unit.
class Nexus;

// Task management functions that act on the logical unit (SAM-5, 7).
enum class TaskManagement : uint8_t {
  kAbortTaskSet,
  kClearTaskSet,
  kLogicalUnitReset,
  kTargetReset,
};

// LUN 0: a direct-access block device (SBC-3, SPC-4) on a BlockDevice. The transport brings tasks
// and the memory that they need. One thread, the reactor's; nothing is allocated for a command that
// moves data.
class LogicalUnit {
 public:
  // The reactor carries `done` of what is answered at once.
  LogicalUnit(io::Reactor& reactor, BlockDevice& device, LogSink& log, Identity identity);
  // Invariant: no nexus and no task is left.
  ~LogicalUnit();
  LogicalUnit(const LogicalUnit&) = delete;
  LogicalUnit& operator=(const LogicalUnit&) = delete;

  // Loads the reservations from the volume, and stores them again, so that all members agree on
  // what was being stored when the last engine ended. `ready` runs once, later; on a failure Start
  // may be called again. Before it was kOk no nexus may be made.
  void Start(std::function<void(const Status&)> ready);

  // `initiator_port`: «iqn…,i,0x<ISID>» (RFC 7143, 10.1: the initiator port's name), at most
  // kPortNameBytesMax bytes, which the login has seen to; of no other nexus there is. A new nexus
  // has the unit attention «power on, reset, or bus device reset occurred» pending.
  Nexus* AddNexus(const std::string& initiator_port);
  // The session has ended. It has no task any more. Its registration of a persistent reservation
  // stays.
  void RemoveNexus(Nexus* nexus);

  // The device has become larger: commands from now on may go up to there, and each nexus is told
  // by a unit attention (SBC-3, 4.11: capacity data has changed).
  void CapacityChanged();

  // What is free where the members lie. Each time that it becomes low each nexus is told by a unit
  // attention (SBC-4, 4.7.3.7.6: thin provisioning soft threshold reached).
  void SetResources(const Resources& resources);

  // Decodes the CDB. What cannot be executed (unknown, malformed, out of range, for another LUN) is
  // noted, needs nothing, and is answered by Execute all the same. Pure but for the task.
  Needs Prepare(Task* task);
  // Takes the task. Checks unit attention and reservations, then carries it out; `done` follows.
  void Execute(Task* task);

  // The task that is being executed will be `done` with `aborted` set, and touches nothing more
  // than it has begun (what is in flight holds its range lock to the end, so that it cannot
  // overtake a later command).
  void Abort(Task* task);
  // The same for many, with the unit attentions that the function demands for other nexuses.
  void Manage(TaskManagement function, Nexus* nexus);

  // Given to Execute, and `done` has not run yet.
  size_t tasks() const;

  class Body;

 private:
  std::unique_ptr<Body> body_;
};

}  // namespace ankole::scsi
