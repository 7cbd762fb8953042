#pragma once

#include <array>
#include <vector>

#include "engine/errand.h"
#include "engine/resync_host.h"

namespace ankole::engine {

// Gives some replicas the target state that another one has. Who starts it sees to it that nobody
// stores another state meanwhile.
class StateCopier {
 public:
  explicit StateCopier(ResyncHost& host);

  using Done = void (*)(void* owner, ErrorCode status);
  // `done` follows.
  void Start(Link* source, std::vector<Link*> targets, Done done, void* owner);
  bool busy() const { return busy_; }

 private:
  void Load(Link* from, std::byte* to);
  void Next();
  void OnAnswer();
  void End(ErrorCode status);

  ResyncHost& host_;
  Errand errand_;
  std::vector<Link*> targets_;
  Done done_ = nullptr;
  void* owner_ = nullptr;
  bool busy_ = false;
  bool compared_ = false;  // the target at the end of targets_ has told what it has
  std::vector<std::byte> state_;
  std::vector<std::byte> other_;
  std::array<uint32_t, kTargetStateBytes / kBlockBytes> table_;
};

}  // namespace ankole::engine
