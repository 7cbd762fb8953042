#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sim/world.h"

// Connections between simulated machines: streams of bytes that are late, stop for as long as the
// way is cut, and break. Within a connection nothing is lost or reordered, as TCP has it; across
// connections everything is. Packets that are lost show as delays.
namespace ankole::sim {

class Network;

// One end of a connection. Its process reads and writes here; what it is told, it is told by
// `wake`.
class Endpoint {
 public:
  // Takes as many bytes as there is room for. 0: none now, `wake` when there is. < 0: it broke.
  int64_t Send(const void* from, size_t bytes);
  // Gives as many as have arrived. 0: none now. < 0: it broke. *ended: no more will come.
  int64_t Receive(void* to, size_t bytes, bool* ended);
  // The process closes it, or ended.
  void Close();
  const std::string& machine() const { return machine_; }
  const std::string& peer_machine() const { return peer_machine_; }

  // Something changed: there are bytes, or room, or it broke. Not from within Send and Receive.
  std::function<void()> wake;

 private:
  friend class Network;
  struct Segment {
    uint64_t arrives_ns = 0;
    std::vector<std::byte> bytes;
    size_t taken = 0;
    bool end = false;  // FIN
  };
  Endpoint(Network& network, std::string machine, std::string peer_machine, size_t room_bytes)
      : network_(network),
        machine_(std::move(machine)),
        peer_machine_(std::move(peer_machine)),
        room_bytes_(room_bytes) {}
  void Enqueue(Segment segment);
  void Deliver();
  void ScheduleDelivery();
  void Reset();

  Network& network_;
  const std::string machine_;
  const std::string peer_machine_;
  std::weak_ptr<Endpoint> peer_;
  std::weak_ptr<Endpoint> self_;
  const size_t room_bytes_;       // what may be on the way to this end and not read by it
  size_t held_bytes_ = 0;         // of these, in use
  std::deque<Segment> arriving_;  // on the way to this end
  std::deque<Segment> arrived_;
  bool closed_ = false;    // by its own process
  bool vanished_ = false;  // its machine lost power: it answers nothing
  bool reset_ = false;     // by the peer
  bool delivery_scheduled_ = false;
  bool peer_waits_ = false;  // for room
};

class Network {
 public:
  explicit Network(World& world);

  struct Options {
    uint64_t delay_ns_min = 30 * kNsPerUs;
    uint64_t delay_ns_max = 300 * kNsPerUs;
    size_t room_bytes = 2 * kMiB;
    // In 1000 pieces: one that must be sent again, 200 ms and more later.
    uint64_t lost_in_1000 = 0;
  };
  Options options;

  // A process accepts connections at that port of its machine.
  using Accepted = std::function<void(std::shared_ptr<Endpoint>)>;
  bool Listen(const std::string& machine, uint16_t port, Accepted accepted);
  void StopListening(const std::string& machine, uint16_t port);
  // `done` once: an endpoint, or a negative errno. It never comes while nothing gets through.
  // Returns a number for Cancel.
  using Connected = std::function<void(int, std::shared_ptr<Endpoint>)>;
  uint64_t Connect(const std::string& from, const std::string& machine, uint16_t port,
                   Connected done);
  void Cancel(uint64_t connect) { connects_.erase(connect); }

  // Nothing goes from `from` to `to` until Heal.
  void Cut(const std::string& from, const std::string& to);
  void Heal(const std::string& from, const std::string& to);
  bool IsCut(const std::string& from, const std::string& to) const {
    return cuts_.contains({from, to});
  }
  // A machine lost power: its ends answer nothing; whoever sends to it after PowerOn is told so.
  void PowerOff(const std::string& machine);
  void PowerOn(const std::string& machine);
  // Breaks all connections between the two.
  void Break(const std::string& one, const std::string& other);

 private:
  friend class Endpoint;
  struct Pending {
    std::string from;
    std::string machine;
    uint16_t port;
    Connected done;
  };
  uint64_t DelayNs(const std::string& from, const std::string& to);
  bool Passes(const std::string& from, const std::string& to) const {
    return !cuts_.contains({from, to}) && !off_.contains(from) && !off_.contains(to);
  }
  void TryConnect(uint64_t number, uint64_t retry_ns);

  World& world_;
  Random random_;
  std::map<std::pair<std::string, uint16_t>, Accepted> listeners_;
  std::map<uint64_t, Pending> connects_;
  uint64_t next_connect_ = 0;
  std::set<std::pair<std::string, std::string>> cuts_;
  std::set<std::string> off_;
  std::vector<std::weak_ptr<Endpoint>> endpoints_;
};

}  // namespace ankole::sim
