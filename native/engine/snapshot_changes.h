#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/block_device.h"
#include "base/intrusive_list.h"
#include "engine/layer_reader.h"
#include "engine/resync_host.h"
#include "wire/hello.h"

namespace ankole::engine {

// Whole blocks of which a snapshot may hold something else than another one does.
struct ChangedExtent {
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
  bool zero = false;  // it takes up no space, and reads as zeros
  bool operator==(const ChangedExtent&) const = default;
};

// What is wanted. Owned by who wants it, until `done`.
struct ChangesRequest {
  // --- set by who wants it: layers, as replicas call the snapshots ---
  std::string from;  // empty: nothing, so that what `to` has allocated is told
  std::string to;
  uint64_t offset_bytes = 0;  // from there on; a multiple of kBlockBytes
  size_t extents_max = kChangedExtentsMax;
  // Never from within the call. May free the request.
  void (*done)(ChangesRequest*) = nullptr;
  void* owner = nullptr;

  // --- the outcome ---
  Status status;
  std::vector<ChangedExtent> extents;  // ascending, not adjacent where they are of one kind
  // All up to there is told; less than `size_bytes`: go on from there.
  uint64_t next_bytes = 0;
  uint64_t size_bytes = 0;       // of the volume at `to`
  uint64_t from_size_bytes = 0;  // and at `from`; what is behind that counts as zeros there

  // --- the asker's ---
  uint64_t submitted_ns = 0;
  uint8_t asked = 0;  // links that failed
  int tries = 0;
  ListNode node;
};

// What a member is asked to tell two snapshots apart.
struct ChangeView {
  std::string layer;
  std::string base;      // a layer under it; empty: down to the bottom
  bool touches = false;  // what it holds or hides may differ
  bool tells = false;    // whether a block has data or reads as zeros
  bool was = false;      // what it was: zeros that were zeros are no change
  bool operator==(const ChangeView&) const = default;
};
struct ChangePlan {
  std::vector<ChangeView> views;  // none: the two are one
  uint64_t size_bytes = 0;
  uint64_t from_size_bytes = 0;
};
inline constexpr size_t kChangeViewsMax = 4;
// kNotFound: a snapshot is not there. `layers` as LayerReader has them.
//
// Where `from` is under `to`, a block differs only if a layer above `from` holds or hides it.
// Elsewhere (after a revert) both are compared with the newest layer that is under both. What both
// have as holes has not changed, however often it was trimmed.
Result<ChangePlan> PlanChanges(std::span<const wire::LayerEntry> layers, const std::string& from,
                               const std::string& to);

// What views say of [offset, …), each from its beginning on: appended to `extents`, as far as all
// of them tell and `extents_max` allows. Returns where to go on.
uint64_t MergeChanges(std::span<const ChangeView> views,
                      std::span<const std::span<const BlockExtent>> told, uint64_t offset_bytes,
                      size_t extents_max, std::vector<ChangedExtent>* extents);

// Tells what changed between two snapshots, one request after the other: by the maps of layers that
// one member has, without reading data. Members have equal views, in layers of their own (decision
// 11), so that another member may tell more, or less, of what holds the same in both; what differs
// they all tell.
//
//   kIdle ─▶ kListing ─▶ kOpening ─▶ kWalking ─▶ kClosing ─▶ kIdle       any ─fails▶ another member
class SnapshotChanges {
 public:
  explicit SnapshotChanges(ResyncHost& host);
  ~SnapshotChanges();

  void List(ChangesRequest* request);
  // Goes on with what had to wait.
  void Pump();
  // Before anything of the link's connection ends.
  void OnLost(const Link& link);
  void Stop(const Status& why);
  bool busy() const { return request_ != nullptr || !queue_.empty(); }
  bool idle() const;

 private:
  enum class Phase : uint8_t { kIdle, kListing, kOpening, kWalking, kClosing };
  struct Ask {
    SnapshotChanges* changes = nullptr;
    Errand errand;
    ChangeView view;
    uint16_t id = 0;  // 0: it is not open
    std::array<std::byte, wire::kViewRequestBytes> payload;
    std::vector<BlockExtent> extents;  // with room for an answer while the view is open
    uint32_t extents_count = 0;
  };

  Status Valid(const ChangesRequest& request) const;
  void Begin();
  void OnListed(ErrorCode status);
  bool OpenNext();
  void Walk();
  void CloseAll();
  void OnErrand(Errand* errand);
  bool Take();
  // What is done about a fault: asked once more, asked of others, or told.
  enum class Then : uint8_t { kAgain, kOthers, kTold };
  void Fault(const Status& why, Then then);
  void Closed();
  void Go();
  void Answer(ChangesRequest* request, const Status& status);
  bool quiet() const;
  static Status TakeView(Errand* errand, std::span<const std::byte> payload);
  static Status TakeExtents(Errand* errand, std::span<const std::byte> payload);

  ResyncHost& host_;
  Phase phase_ = Phase::kIdle;
  Status stopped_;  // not kOk: nothing is begun any more
  IntrusiveList<ChangesRequest, &ChangesRequest::node> queue_;
  IntrusiveList<ChangesRequest, &ChangesRequest::node> answered_;
  ChangesRequest* request_ = nullptr;  // the one that is served; null: nobody waits any more
  Link* link_ = nullptr;               // the member that is asked
  Status fault_;                       // why it cannot tell
  Then then_ = Then::kAgain;
  bool due_ = false;  // it goes on as soon as it may
  uint64_t walk_from_ns_ = 0;
  LayerReader layers_;
  std::array<Ask, kChangeViewsMax> asks_;
  size_t views_ = 0;  // of asks_
  io::Task answer_task_;
};

}  // namespace ankole::engine
