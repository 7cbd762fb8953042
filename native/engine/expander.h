#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "engine/errand.h"
#include "engine/resync_host.h"
#include "wire/hello.h"

namespace ankole::engine {

// Makes replicas larger: all members, and the one that is being filled, as it may be a member soon.
// When each of them is so durably, and no change of members is under way, the volume itself can be:
// from then on every member of every record is at least as large.
class Expander {
 public:
  explicit Expander(ResyncHost& host);

  // `done` in the very turn in which all are, or why they cannot be: then some are larger, which is
  // no harm. May be called from within. One at a time.
  using Done = void (*)(void* owner, const Status& status);
  void Start(uint64_t size_bytes, Done done, void* owner);
  bool running() const { return size_bytes_ != 0; }
  uint64_t size_bytes() const { return size_bytes_; }
  // Members, connections or the time have changed.
  void Look();
  // Without `done`.
  void Cancel() { size_bytes_ = 0; }
  bool idle() const;
  // For people: on which replica it waits.
  std::string WaitsFor() const;

 private:
  void OnAnswer(Errand* errand);
  void End(const Status& status);

  ResyncHost& host_;
  uint64_t size_bytes_ = 0;  // 0: none is under way
  wire::ExpandBytes payload_ = {};
  Done done_ = nullptr;
  void* owner_ = nullptr;
  std::array<Errand, kReplicasMax> errands_;       // by link
  std::array<uint64_t, kReplicasMax> asked_ = {};  // for this size, by the errand
  std::array<int, kReplicasMax> losses_ = {};      // of the connection while it was asked, in a row
};

}  // namespace ankole::engine
