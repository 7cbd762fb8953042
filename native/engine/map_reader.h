#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "engine/region_set.h"
#include "engine/resync_host.h"
#include "wire/layers.h"
#include "wire/regions.h"

namespace ankole::engine {

// One conversation with one replica about its maps: a few errands, one after the other. One at a
// time.
class MapReader {
 public:
  explicit MapReader(ResyncHost& host) : host_(host) {}

  // `done` follows with the outcome; kConnectionLost also when the link is down by then.
  using Done = void (*)(MapReader*, ErrorCode status);
  // Adds the regions of a map to `into`; id 0: the dirty map. kNotFound: there is none of that id.
  void ReadMap(Link* link, wire::ReplicaId id, RegionSet* into, Done done);
  // The regions that may not be complete, to `into`; `known` says whether the replica can tell.
  void ReadRecent(Link* link, RegionSet* into, bool* known, Done done);
  void ReadMaps(Link* link, wire::RegionMaps* into, Done done);
  // Makes all of the set's regions dirty.
  void Mark(Link* link, const RegionSet* regions, Done done);
  // Begins the missing map of a replica, and puts the set's regions into it.
  void BeginMissing(Link* link, const wire::MissingRequest& request, const RegionSet* regions,
                    Done done);
  void FreeMissing(Link* link, wire::ReplicaId id, Done done);
  // Adds the regions in which two layers may differ: names of snapshots, `base` under `layer`;
  // empty: nothing, and the head.
  void ReadChanged(Link* link, const std::string& base, const std::string& layer, RegionSet* into,
                   Done done);
  bool busy() const { return errand_.in_flight(); }

  void* owner = nullptr;
  uint32_t index = 0;  // the owner's

 private:
  void Begin(Link* link, wire::Opcode opcode, Done done);
  void SendMap();
  void SendChanged();
  void SendRuns();
  void Send(size_t payload_bytes);
  void OnAnswer();
  Status Take(std::span<const std::byte> payload);
  Status AddRuns(const wire::RegionRuns& runs);

  ResyncHost& host_;
  Errand errand_;
  Done done_ = nullptr;
  wire::ReplicaId id_ = 0;
  RegionSet* into_ = nullptr;
  bool* known_ = nullptr;
  wire::RegionMaps* maps_ = nullptr;
  const RegionSet* regions_ = nullptr;  // to be sent
  wire::MissingRequest missing_;
  std::string base_;
  std::string layer_;
  uint64_t next_ = 0;  // region; RegionSet::kNone: all were read or sent
  std::array<std::byte, kControlPayloadBytesMax> payload_;
};

}  // namespace ankole::engine
