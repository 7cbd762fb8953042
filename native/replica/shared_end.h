#pragma once

#include <array>
#include <memory>
#include <optional>

#include "io/reactor.h"
#include "wire/shared_memory.h"

namespace ankole::replica {

// The disk host's end of what an engine on its machine shares with it. Everything in there may be
// anything at any time: a faulty engine harms its own volume only.
class SharedEnd {
 public:
  explicit SharedEnd(io::Reactor& reactor) : reactor_(reactor) {}
  // After the doorbell was closed.
  ~SharedEnd();
  SharedEnd(const SharedEnd&) = delete;
  SharedEnd& operator=(const SharedEnd&) = delete;

  // Takes the next part over, in the order of wire::SharedPart. kProtocolError when it is none.
  Status Take(int descriptor, wire::SharedPart part, uint64_t bytes);
  bool complete() const { return parts_ == wire::kSharedParts; }
  // To be awaited and closed by the owner.
  io::Socket doorbell() const { return host_doorbell_; }

  // The next request: false when there is none. kProtocolError when what lies there is none.
  bool Peek(Result<wire::Header>* header);
  void Release() { requests_->Release(); }
  // Sleeps unless a request came in the meantime.
  bool Sleep();
  void WakeUp() { requests_->WakeUp(); }

  // Where the data of a READ goes, or that of a WRITE lies; null when the engine says what cannot
  // be.
  std::byte* DataOf(const wire::Header& request) const;

  // The checksums that came with the WRITE that is next. They may change until Release, so they are
  // to be copied, once.
  const std::byte* Table() const { return rings().tables[requests_->index()]; }

  // False when the engine does not take replies any more.
  bool Reply(const wire::Header& header);
  // Wakes the engine if one of the replies since the last call was the last one that it waits for
  // and it sleeps. At the end of a turn.
  void Flush();

 private:
  wire::SharedRings& rings() const;
  wire::SharedCounters& counters() const;

  io::Reactor& reactor_;
  uint32_t parts_ = 0;
  std::unique_ptr<wire::SharedMapping> rings_;
  std::unique_ptr<wire::SharedMapping> read_area_;
  std::unique_ptr<wire::SharedMapping> write_arena_;
  std::unique_ptr<wire::SharedMapping> counters_;
  io::Socket host_doorbell_;
  io::Socket engine_doorbell_;
  std::optional<wire::RingConsumer> requests_;
  std::optional<wire::RingProducer> replies_;
  bool announce_ = false;
};

}  // namespace ankole::replica
