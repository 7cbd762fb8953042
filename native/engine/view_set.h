#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "engine/resync_host.h"
#include "wire/layers.h"

namespace ankole::engine {

// What the members call a snapshot that is open for reading, by link; 0: it is not open there.
using ViewIds = std::array<uint16_t, kReplicasMax>;

// One snapshot, open for reading at all members that can be reached.
class ViewSet {
 public:
  explicit ViewSet(ResyncHost& host);

  // From now on; `changed` says that it is open at one more, or cannot be. Only where no other one
  // is wanted.
  void Open(const std::string& name);
  // Where it could not be asked for before: a member is back.
  void Pump();
  // Asks again those that refused it.
  void Retry();
  // It is closed wherever it is open, or opens yet.
  void Close();
  // Before anything of the link's connection ends.
  void OnLost(const Link& link);

  const std::string& name() const { return name_; }  // empty: none is wanted
  const ViewIds& ids() const { return ids_; }
  // It is open at all members that can be reached, and at one at least.
  bool open() const;
  // Nothing is open, and nothing under way.
  bool idle() const;
  // The snapshot's labels, a JSON object or empty; where it is open.
  const std::string& labels() const { return labels_; }
  // Why a member refused it; kOk: none did. And who.
  ErrorCode failure() const { return failure_; }
  wire::ReplicaId failed() const { return failed_; }

  void (*changed)(ViewSet*) = nullptr;
  void* owner = nullptr;

 private:
  struct Ask {
    ViewSet* set = nullptr;
    Errand errand;
    bool opens = false;  // else it closes
    std::array<std::byte, wire::kViewRequestBytes> payload;
    uint16_t id = 0;  // of the answer
    std::string labels;
  };

  void SendClose(size_t index, uint16_t id);
  static Status Take(Errand* errand, std::span<const std::byte> payload);
  void OnAnswer(Errand* errand);

  ResyncHost& host_;
  std::string name_;
  ViewIds ids_ = {};
  std::string labels_;
  ErrorCode failure_ = ErrorCode::kOk;
  wire::ReplicaId failed_ = 0;
  std::array<Ask, kReplicasMax> asks_;
};

}  // namespace ankole::engine
