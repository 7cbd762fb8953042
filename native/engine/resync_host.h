#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/block_device.h"
#include "base/log.h"
#include "engine/errand.h"
#include "engine/link.h"
#include "engine/range_lock.h"
#include "io/reactor.h"
#include "wire/record.h"

namespace ankole::engine {

// A request that the engine submits to itself.
struct OwnRequest : BlockRequest {
  void* owner = nullptr;
};

// What cleaning, copying and joining need of the engine.
class ResyncHost {
 public:
  virtual io::Reactor& reactor() = 0;
  virtual LogSink& log() = 0;
  virtual BufferPool& buffers() = 0;
  virtual RangeLock& locks() = 0;
  virtual Errands& errands() = 0;
  virtual uint64_t size_bytes() const = 0;
  virtual std::span<const std::unique_ptr<Link>> links() const = 0;
  // The members that I/O goes to: those of the newest record, complete or not.
  virtual const wire::Members& members() const = 0;
  // A member that may be copied from. One that must leave may lack what was acknowledged: it was
  // found to be suspect, and stays a member only until the store lets it go.
  virtual bool IsStaying(size_t index) const = 0;
  // What the replica said when it was welcomed last.
  virtual const wire::ReplicaState& StateOf(const Link& link) const = 0;
  // The replica is that large now, durably.
  virtual void NoteSize(const Link& link, uint64_t size_bytes) = 0;
  // A member, or one that is being filled to become one: it must be as large as the volume.
  virtual bool IsToGrow(size_t index) const = 0;
  // All of them are; nobody who is not may become or still be a member.
  virtual bool MayGrow() const = 0;
  virtual void JoinerCannotGrow(const Status& why) = 0;
  // The last complete record.
  virtual const wire::Record& complete() const = 0;
  // Serving, and no record is proposed.
  virtual bool Settled() const = 0;
  // Members are the same wherever nobody writes: what may have differed since the start was made
  // equal.
  virtual bool AllEqual() const = 0;
  // A replica may be filled and become a member; not while a snapshot is taken.
  virtual bool MayJoin() const = 0;
  // Operations of clients are under way.
  virtual bool Busy() const = 0;
  // All that is under way is to end, as a snapshot is taken: what can wait must not be sent. It is
  // over before long; whoever waits is told.
  virtual bool HoldsReads() const = 0;

  // Of one sequence with those of the operations.
  virtual uint64_t NewTag() = 0;
  // All with this tag and below are done.
  virtual uint64_t CompleteTag() const = 0;
  virtual void SendErrand(Errand* errand) = 0;
  // A request of the engine's own, of any kind but kWrite, kZero and kStatus. It is counted as no
  // client's. False: no slot is free, or the engine does not serve.
  virtual bool SubmitOwn(OwnRequest* request) = 0;
  // As BlockDevice::Release, of an own kHold.
  virtual void Release(BlockRequest* hold) = 0;
  // Regions were cleaned: writes that waited for that may go on.
  virtual void RegionsCleaned() = 0;
  // A member failed at something that the engine asked of it; it leaves unless it is the last one.
  virtual void MemberFailed(Link& link, const Status& why) = 0;
  // The joiner is no part of anything any more; its connection breaks.
  virtual void JoinerFailed(Link& link, const Status& why) = 0;
  // Proposes the members and this one.
  virtual void ProposeWith(Link& joiner) = 0;
  // News for whoever watches the replica. `why`: its message is told, and its code as the fault.
  virtual void TellReplica(const Link& link, const char* state, const Status& why) = 0;

  Link* LinkOf(wire::ReplicaId id) const {
    for (const std::unique_ptr<Link>& link : links()) {
      if (link->replica() == id) return link.get();
    }
    return nullptr;
  }
  bool IsMember(size_t index) const { return members().Contains(links()[index]->replica()); }

 protected:
  ~ResyncHost() = default;
};

}  // namespace ankole::engine
