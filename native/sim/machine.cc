#include "sim/machine.h"

#include <utility>

#include "base/check.h"
#include "sim/reactor.h"

namespace ankole::sim {

Machine::Machine(World& simulated, Network& net, std::string name)
    : world(simulated), network(net), disk(simulated.random.Next()), name_(std::move(name)) {
  up_ = false;
  Boot();
}

Machine::~Machine() = default;

uint64_t Machine::ClockNs() const {
  const auto since = static_cast<int64_t>(world.now_ns() - boot_world_ns_);
  return boot_clock_ns_ + static_cast<uint64_t>(since + since / 1'000'000 * drift_ppm_);
}

uint64_t Machine::WorldNs(uint64_t clock_ns) const {
  const uint64_t now_ns = ClockNs();
  if (clock_ns <= now_ns) return world.now_ns();
  // «Never» must not overflow. A clock that is fast or slow shows it a little off: the timer is
  // then armed again.
  const uint64_t ahead_ns = std::min(clock_ns - now_ns, 3600 * kNsPerSecond);
  return world.now_ns() + std::max<uint64_t>(1, ahead_ns - ahead_ns / 5000);
}

void Machine::LosePower() {
  if (!up_) return;
  if (world.tracing()) world.Trace(name_, "loses power");
  up_ = false;
  for (SimReactor* process : std::exchange(processes_, {})) process->LosePower();
  network.PowerOff(name_);
  open_.clear();
  disk.LosePower();
  NoteLost();
}

uint64_t Machine::SlowNs(Random& random) const {
  if (faults.slow_until_ns <= world.now_ns()) return 0;
  const uint64_t left_ns = faults.slow_until_ns - world.now_ns();
  if (!faults.uneven) return left_ns;
  return random.Chance(1, 2) ? random.Below(left_ns) : 0;
}

void Machine::NoteLost() {
  lost_tick = world.Tick();
  if (on_lost) on_lost();
}

void Machine::SyncFails(Inode* inode) {
  --faults.sync_errors;
  disk.SyncFails(inode);
  NoteLost();
  if (on_sync_failed) on_sync_failed();
}

void Machine::Boot() {
  if (up_) return;
  up_ = true;
  ++boots_;
  boot_world_ns_ = world.now_ns();
  boot_clock_ns_ = world.random.Between(kNsPerSecond, 1000 * kNsPerSecond);
  drift_ppm_ = static_cast<int64_t>(world.random.Below(200)) - 100;
  boot_id_ = "boot-" + name_ + "-" + std::to_string(boots_);
  network.PowerOn(name_);
  if (world.tracing()) world.Trace(name_, "is up");
}

int Machine::Open(OpenFile file) {
  const int fd = next_fd_++;
  open_[fd] = std::move(file);
  return fd;
}

Machine::OpenFile* Machine::Find(int fd) {
  const auto found = open_.find(fd);
  return found == open_.end() ? nullptr : &found->second;
}

void Machine::Close(int fd) {
  const auto found = open_.find(fd);
  if (found == open_.end()) return;
  if (found->second.inode->locked_by == static_cast<uint64_t>(fd)) {
    found->second.inode->locked_by = 0;
  }
  open_.erase(found);
}

void Machine::CloseAllOf(const SimReactor* owner) {
  for (auto each = open_.begin(); each != open_.end();) {
    const int fd = each->first;
    const bool its = each->second.owner == owner;
    ++each;
    if (its) Close(fd);
  }
}

}  // namespace ankole::sim
