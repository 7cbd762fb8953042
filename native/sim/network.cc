#include "sim/network.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace ankole::sim {
namespace {

constexpr size_t kSegmentBytesMax = 64 * kKiB;
// Linux: 200 ms at the least, doubled with each try.
constexpr uint64_t kResendNs = 200 * kNsPerMs;
constexpr uint64_t kConnectRetryNs = kNsPerSecond;

}  // namespace

// --- one end
// --------------------------------------------------------------------------------------

int64_t Endpoint::Send(const void* from, size_t bytes) {
  if (reset_) return -ECONNRESET;
  CHECK(!closed_);
  const std::shared_ptr<Endpoint> peer = peer_.lock();
  // The other process is gone, and has said so or will.
  if (peer == nullptr || peer->closed_) {
    if (peer == nullptr) return -EPIPE;
    // What is sent now is answered by a reset.
    network_.world_.After(2 * network_.DelayNs(machine_, peer_machine_), [self = self_] {
      if (const auto end = self.lock()) end->Reset();
    });
    return static_cast<int64_t>(bytes);
  }
  const size_t room = peer->room_bytes_ - std::min(peer->room_bytes_, peer->held_bytes_);
  if (room == 0) {
    peer->peer_waits_ = true;
    return 0;
  }
  const size_t part = std::min({room, bytes, kSegmentBytesMax});
  Segment segment;
  const auto* begin = static_cast<const std::byte*>(from);
  segment.bytes.assign(begin, begin + part);
  peer->held_bytes_ += part;
  peer->Enqueue(std::move(segment));
  return static_cast<int64_t>(part);
}

// Sets when a piece arrives: after all before it.
void Endpoint::Enqueue(Segment segment) {
  segment.arrives_ns = network_.world_.now_ns() + network_.DelayNs(peer_machine_, machine_);
  if (!arriving_.empty()) {
    segment.arrives_ns = std::max(segment.arrives_ns, arriving_.back().arrives_ns);
  }
  arriving_.push_back(std::move(segment));
  ScheduleDelivery();
}

void Endpoint::ScheduleDelivery() {
  if (delivery_scheduled_ || arriving_.empty()) return;
  delivery_scheduled_ = true;
  network_.world_.At(arriving_.front().arrives_ns, [self = self_] {
    const auto end = self.lock();
    if (end == nullptr) return;
    end->delivery_scheduled_ = false;
    end->Deliver();
  });
}

void Endpoint::Deliver() {
  // Taken up again by Heal or PowerOn. What has left a machine arrives though that lost power.
  if (network_.IsCut(peer_machine_, machine_) || network_.off_.contains(machine_)) return;
  if (vanished_) {
    // The machine is up again and knows nothing of this connection.
    arriving_.clear();
    if (const auto peer = peer_.lock()) {
      network_.world_.After(network_.DelayNs(machine_, peer_machine_), [other = peer_] {
        if (const auto end = other.lock()) end->Reset();
      });
    }
    return;
  }
  bool any = false;
  while (!arriving_.empty() && arriving_.front().arrives_ns <= network_.world_.now_ns()) {
    arrived_.push_back(std::move(arriving_.front()));
    arriving_.pop_front();
    any = true;
  }
  ScheduleDelivery();
  if (any && !closed_ && wake) wake();
}

int64_t Endpoint::Receive(void* to, size_t bytes, bool* ended) {
  CHECK(!closed_);
  *ended = false;
  size_t done = 0;
  auto* out = static_cast<std::byte*>(to);
  while (done < bytes && !arrived_.empty()) {
    Segment& segment = arrived_.front();
    if (segment.end) {
      *ended = done == 0;
      break;
    }
    const size_t part = std::min(bytes - done, segment.bytes.size() - segment.taken);
    std::memcpy(out + done, segment.bytes.data() + segment.taken, part);
    segment.taken += part;
    done += part;
    if (segment.taken == segment.bytes.size()) arrived_.pop_front();
    // A read may end anywhere.
    if (network_.random_.Chance(1, 8)) break;
  }
  if (done == 0 && !*ended && reset_) return -ECONNRESET;
  held_bytes_ -= done;
  // News of room takes the way back; where that is cut, Heal sends it.
  if (done > 0 && peer_waits_ && network_.Passes(machine_, peer_machine_)) {
    peer_waits_ = false;
    network_.world_.After(network_.DelayNs(machine_, peer_machine_), [other = peer_] {
      const auto end = other.lock();
      if (end != nullptr && !end->closed_ && end->wake) end->wake();
    });
  }
  return static_cast<int64_t>(done);
}

void Endpoint::Close() {
  if (closed_) return;
  closed_ = true;
  wake = nullptr;
  const std::shared_ptr<Endpoint> peer = peer_.lock();
  if (peer == nullptr || reset_ || vanished_) return;
  // What was not read is answered by a reset, which may overtake what is on its way; else what was
  // sent still arrives, and then the end.
  if (!arrived_.empty() && !arrived_.front().end) {
    network_.world_.After(network_.DelayNs(machine_, peer_machine_), [other = peer_] {
      if (const auto end = other.lock()) end->Reset();
    });
    return;
  }
  Segment end;
  end.end = true;
  peer->Enqueue(std::move(end));
}

void Endpoint::Reset() {
  if (closed_ || reset_) return;
  if (!network_.Passes(peer_machine_, machine_)) {
    // It comes when the way is free.
    network_.world_.After(kResendNs, [self = self_] {
      if (const auto end = self.lock()) end->Reset();
    });
    return;
  }
  reset_ = true;
  arriving_.clear();
  if (wake) wake();
}

// --- the network
// ----------------------------------------------------------------------------------

Network::Network(World& world) : world_(world), random_(world.random.Next()) {}

uint64_t Network::DelayNs(const std::string& from, const std::string& to) {
  if (from == to) return random_.Skewed(5 * kNsPerUs, 50 * kNsPerUs);
  uint64_t delay = random_.Skewed(options.delay_ns_min, options.delay_ns_max);
  if (options.lost_in_1000 > 0 && random_.Chance(options.lost_in_1000, 1000)) {
    delay += random_.Between(kResendNs, 3 * kResendNs);
  }
  return delay;
}

bool Network::Listen(const std::string& machine, uint16_t port, Accepted accepted) {
  return listeners_.emplace(std::make_pair(machine, port), std::move(accepted)).second;
}

void Network::StopListening(const std::string& machine, uint16_t port) {
  listeners_.erase({machine, port});
}

uint64_t Network::Connect(const std::string& from, const std::string& machine, uint16_t port,
                          Connected done) {
  const uint64_t number = ++next_connect_;
  connects_[number] = {from, machine, port, std::move(done)};
  world_.After(2 * DelayNs(from, machine), [this, number] { TryConnect(number, kConnectRetryNs); });
  return number;
}

void Network::TryConnect(uint64_t number, uint64_t retry_ns) {
  const auto found = connects_.find(number);
  if (found == connects_.end()) return;
  const Pending& pending = found->second;
  if (!Passes(pending.from, pending.machine) || !Passes(pending.machine, pending.from)) {
    world_.After(retry_ns, [this, number, retry_ns] { TryConnect(number, 2 * retry_ns); });
    return;
  }
  const Pending connect = std::move(found->second);
  connects_.erase(found);
  const auto listener = listeners_.find({connect.machine, connect.port});
  if (listener == listeners_.end()) {
    connect.done(-ECONNREFUSED, nullptr);
    return;
  }
  const std::shared_ptr<Endpoint> near(
      new Endpoint(*this, connect.from, connect.machine, options.room_bytes));
  const std::shared_ptr<Endpoint> far(
      new Endpoint(*this, connect.machine, connect.from, options.room_bytes));
  near->self_ = far->peer_ = near;
  far->self_ = near->peer_ = far;
  endpoints_.push_back(near);
  endpoints_.push_back(far);
  std::erase_if(endpoints_, [](const auto& end) { return end.expired(); });
  listener->second(far);
  connect.done(0, near);
}

void Network::Cut(const std::string& from, const std::string& to) { cuts_.insert({from, to}); }

void Network::Heal(const std::string& from, const std::string& to) {
  if (cuts_.erase({from, to}) == 0) return;
  for (const auto& weak : endpoints_) {
    const auto end = weak.lock();
    if (end == nullptr) continue;
    if (end->machine_ == from && end->peer_machine_ == to && end->peer_waits_) {
      end->peer_waits_ = false;
      world_.After(DelayNs(from, to), [other = end->peer_] {
        const auto peer = other.lock();
        if (peer != nullptr && !peer->closed_ && peer->wake) peer->wake();
      });
    }
    if (end->peer_machine_ != from || end->machine_ != to || end->arriving_.empty()) continue;
    // Sent again when the sender's clock says so.
    const uint64_t again_ns = world_.now_ns() + random_.Between(0, 3 * kResendNs);
    for (Endpoint::Segment& segment : end->arriving_) {
      segment.arrives_ns = std::max(segment.arrives_ns, again_ns);
    }
    end->ScheduleDelivery();
  }
}

void Network::PowerOff(const std::string& machine) {
  off_.insert(machine);
  std::erase_if(listeners_, [&](const auto& each) { return each.first.first == machine; });
  std::erase_if(connects_, [&](const auto& each) { return each.second.from == machine; });
  for (const auto& weak : endpoints_) {
    const auto end = weak.lock();
    if (end == nullptr || end->machine_ != machine) continue;
    end->vanished_ = true;
    end->wake = nullptr;
    // Its packets that have left arrive or do not.
    if (const auto peer = end->peer_.lock(); peer != nullptr && random_.Chance(1, 2)) {
      peer->arriving_.clear();
    }
  }
}

void Network::PowerOn(const std::string& machine) {
  off_.erase(machine);
  for (const auto& weak : endpoints_) {
    const auto end = weak.lock();
    if (end == nullptr || (end->machine_ != machine && end->peer_machine_ != machine)) continue;
    if (end->arriving_.empty()) continue;
    const uint64_t again_ns = world_.now_ns() + random_.Between(0, 3 * kResendNs);
    for (Endpoint::Segment& segment : end->arriving_) {
      segment.arrives_ns = std::max(segment.arrives_ns, again_ns);
    }
    end->ScheduleDelivery();
  }
}

void Network::Break(const std::string& one, const std::string& other) {
  for (const auto& weak : endpoints_) {
    const auto end = weak.lock();
    if (end == nullptr) continue;
    const bool between = (end->machine_ == one && end->peer_machine_ == other) ||
                         (end->machine_ == other && end->peer_machine_ == one);
    if (!between) continue;
    world_.After(DelayNs(one, other), [weak] {
      if (const auto broken = weak.lock()) broken->Reset();
    });
  }
}

}  // namespace ankole::sim
