#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/resync_host.h"
#include "wire/layers.h"

namespace ankole::engine {

// Asks one replica for all of its layers. One conversation at a time.
//
// A replica merges layers by itself, so that entries may move between two pages: each page begins
// with the last entry of the one before it, and where that is another one by now all is read anew.
// What is handed out is a whole tree: nothing may be taken for gone that was only passed over.
class LayerReader {
 public:
  explicit LayerReader(ResyncHost& host);

  // `done` follows with the outcome; kConnectionLost also when the link is down by then, kBusy when
  // the layers never stood still. A replica that knows of no layers has none.
  using Done = void (*)(LayerReader*, ErrorCode status);
  void Read(Link* link, Done done);
  // Of the last Read that ended with kOk: parents before children, the head last.
  const std::vector<wire::LayerEntry>& layers() const { return layers_; }
  Link* link() const { return errand_.link; }
  bool busy() const { return errand_.in_flight(); }

  void* owner = nullptr;

 private:
  static constexpr int kTriesMax = 5;

  void Send();
  Status Take(std::span<const std::byte> payload);
  void OnAnswer();

  ResyncHost& host_;
  Errand errand_;
  Done done_ = nullptr;
  std::array<std::byte, wire::kLayersRequestBytes> request_;
  std::vector<wire::LayerEntry> layers_;
  bool moved_ = false;  // layers were merged meanwhile
  bool whole_ = false;
  int tries_ = 0;
};

// Each layer's parent stands before it, no name stands twice, and the head is the last one.
bool IsTree(std::span<const wire::LayerEntry> layers);

}  // namespace ankole::engine
