#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "base/counters.h"
#include "base/log.h"
#include "engine/shared_link.h"
#include "io/reactor.h"
#include "wire/connection.h"
#include "wire/hello.h"

// The engine's end of the connection to one replica: connects, proves itself, asks, fences, and
// comes back when the connection breaks. Knows nothing of operations but their frames.
namespace ankole::engine {

//                       ┌──────────────── kLost (back-off) ───────────────────────────┐
//                       ▼                                                             │
//   kDown ─kConnect▶ kConnecting ─kConnected▶ kChallenging ─kChallenged▶ kProving ─kProved▶
//   kAuthentic
//                                                                          kAuthentic ─kAsk▶
//                                                                          kAsking
//      kAsking ─kAnswered▶ kAuthentic          kAuthentic ─kFence▶ kWelcoming ─kAnswered▶ kUp
//   any ─kClose▶ kClosing ─kLost▶ kDown;   any ─kLeave▶ kLeaving ─kLost▶ kGone (kDown: at once)
enum class LinkMode : uint8_t {
  kDown,
  kConnecting,
  kChallenging,
  kProving,
  kAuthentic,
  kAsking,
  kWelcoming,
  kUp,
  kClosing,
  kLeaving,
  kGone,
};
inline constexpr size_t kLinkModes = 11;

enum class LinkEvent : uint8_t {
  kConnect,
  kConnected,
  kChallenged,
  kProved,
  kAsk,
  kFence,
  kAnswered,
  kClose,
  kLost,  // nothing of the connection is left
  kLeave,
};
inline constexpr size_t kLinkEvents = 10;

// The one transition function. `mode` unchanged where the event means nothing.
LinkMode NextLinkMode(LinkMode mode, LinkEvent event);
const char* LinkModeName(LinkMode mode);

class Link final : wire::Connection::Handler {
 public:
  class Owner {
   public:
    // The replica knows the volume's secret: the owner may Ask or Fence.
    virtual void OnLinkAuthentic(Link& link) = 0;
    // The answer to Ask (welcomed: false) or Fence (true; the link is kUp).
    virtual void OnLinkState(Link& link, bool welcomed, const wire::ReplicaState& state) = 0;
    // The replica refused: fenced, unknown here, wrong secret, or it speaks nonsense. The link
    // closes.
    virtual void OnLinkRefused(Link& link, const Status& why) = 0;
    // A reply to a frame that was pushed by Send. As wire::Connection::Handler::OnFrame.
    virtual void OnLinkReply(Link& link, const wire::Header& header, const std::byte* payload,
                             std::byte* data) = 0;
    virtual std::byte* OnLinkLargeData(Link& link, const wire::Header& header) = 0;
    // The reply to SendRecord or SendClose.
    virtual void OnLinkControl(Link& link, wire::Opcode opcode, const Status& outcome) = 0;
    // The connection is gone and nothing of it in flight. It is tried again, unless it left.
    virtual void OnLinkLost(Link& link, const Status& why) = 0;
    // A PING was answered.
    virtual void OnLinkAlive(Link& link) = 0;

   protected:
    ~Owner() = default;
  };

  struct Options {
    size_t index = 0;  // in the engine's table
    wire::ReplicaId replica = 0;
    io::Address address;
    std::string volume;
    Secret secret = {};
    wire::Epoch epoch;
    // What the engine shares with disk hosts of its machine; null: nothing. Outlives the link.
    SharedState* shared = nullptr;
  };

  Link(io::Reactor& reactor, Owner& owner, LogSink& log, Options options);
  ~Link() = default;

  size_t index() const { return options_.index; }
  wire::ReplicaId replica() const { return options_.replica; }
  const io::Address& address() const { return options_.address; }
  LinkMode mode() const { return mode_; }
  // Frames can be sent. False from the moment when the connection breaks, before OnLinkLost says
  // so.
  bool up() const { return mode_ == LinkMode::kUp && connection_.open(); }
  bool gone() const { return mode_ == LinkMode::kGone; }
  // When the connection was lost, or never was; 0 from the welcome to OnLinkLost.
  uint64_t down_since_ns() const { return down_since_ns_; }
  // When the replica welcomed this engine on the connection that there is; 0: it did not.
  uint64_t welcomed_ns() const { return welcomed_ns_; }
  const std::string& why_down() const { return why_down_; }
  // It was up, and then silent: not the connection is to blame, but who should answer.
  bool was_silent() const { return was_silent_; }

  void Start();
  void Ask();
  void Fence();
  // One of these at a time.
  // `resynced`: it was made equal (rule 7).
  // `flags`: kFlagResynced, kFlagStillLost.
  void SendRecord(const wire::RecordPair& pair, uint16_t flags = 0);
  // The last record was sent so.
  bool sent_resynced() const { return sent_resynced_; }
  void SendClose();
  bool control_outstanding() const { return control_outstanding_; }
  // Only while up.
  void Send(wire::OutgoingFrame* frame) { connection_.Push(frame); }
  // The way through shared memory, where there is one; only while up.
  SharedLink* shared() { return up() ? shared_.get() : nullptr; }
  // At the end of this turn the disk host is woken for what was pushed to shared().
  void FlushShared() { reactor_.Defer(&shared_flush_); }
  // Sends a PING unless one is outstanding.
  void Ping();
  // Since when a PING has no answer; 0: none is outstanding.
  uint64_t ping_sent_ns() const { return ping_sent_ns_; }
  uint64_t heard_ns() const { return heard_ns_; }
  void NoteHeard() { heard_ns_ = reactor_.NowNs(); }
  // When the latest question was sent that the welcomed replica has answered; 0: none. It was this
  // engine's until then (rule 4).
  uint64_t proved_ns() const { return proved_ns_; }
  void NoteProved(uint64_t sent_ns) { proved_ns_ = std::max(proved_ns_, sent_ns); }
  // Breaks the connection; it is made anew.
  void Break(Status why);
  // Breaks it for good.
  void Leave(const std::string& why);
  void Trim();

  DeviceCounters counters;
  uint32_t outstanding = 0;  // the engine's: operations that wait for an answer

 private:
  bool OnFrame(const wire::Header& header, const std::byte* payload, std::byte* data) override;
  std::byte* LargeData(const wire::Header& header) override;
  void OnClosed(const Status& why) override;

  bool Move(LinkEvent event);
  void Connect();
  void OnConnected();
  void SendControl(wire::Opcode opcode, const void* payload, size_t bytes, uint16_t flags = 0);
  void OnControlReply(const wire::Header& header, const std::byte* payload);
  void SendShare();
  void EndWelcome();
  void Refuse(const Status& why);
  void Lost(const Status& why);

  io::Reactor& reactor_;
  Owner& owner_;
  LogSink& log_;
  const Options options_;
  wire::Connection connection_;
  LinkMode mode_ = LinkMode::kDown;
  uint64_t down_since_ns_ = 0;
  std::string why_down_ = "not connected yet";
  uint64_t backoff_ns_ = 0;
  uint64_t welcomed_ns_ = 0;
  Status break_why_;  // why a connection was given up that did not stand yet
  uint64_t heard_ns_ = 0;
  uint64_t ping_sent_ns_ = 0;
  uint64_t control_sent_ns_ = 0;
  uint64_t proved_ns_ = 0;
  bool was_silent_ = false;
  uint64_t control_tag_ = 0;  // of the last control frame; PINGs count
  uint64_t control_outstanding_tag_ = 0;
  bool control_outstanding_ = false;
  bool sent_resynced_ = false;

  io::ConnectOperation connect_;
  io::Timer retry_;
  io::Timer handshake_;
  wire::OutgoingFrame control_;
  std::array<std::byte, wire::kReplicaStateBytes> control_payload_;
  // A reply that came while its request, already received, was part of a system call still going
  // on.
  bool early_reply_ = false;
  wire::Header early_header_;
  std::array<std::byte, kControlPayloadBytesMax> early_payload_;
  wire::OutgoingFrame ping_;
  wire::HelloBytes hello_ = {};
  bool may_share_ = false;  // the disk host can, too
  uint32_t next_part_ = 0;  // of shared_, to be sent
  std::unique_ptr<SharedLink> shared_;
  wire::ReplicaState welcome_state_;
  io::Task shared_flush_;
};

}  // namespace ankole::engine
