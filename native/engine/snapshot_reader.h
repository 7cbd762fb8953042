#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/block_device.h"
#include "engine/layer_reader.h"
#include "engine/resync_host.h"
#include "engine/view_set.h"

namespace ankole::engine {

// A snapshot as a device that is only read, while clients write to the volume. A request goes to
// one member; what that cannot read another one is asked for, so that it fails only when no member
// can (rule 9: what a member answers matches its checksums at rest). A snapshot never changes, so
// that nothing is locked, and no lease is needed.
//
//   kListing ─its size is known▶ kOpening ─a member has it open▶ kOpen ─Close▶ kClosing
//       └────────────────────────────┴── fails ▶ kClosing
class SnapshotReader final : public BlockDevice {
 public:
  enum class Phase : uint8_t { kListing, kOpening, kOpen, kClosing };

  // `layer`: what replicas call it. `news` runs when it is open, or is no more.
  SnapshotReader(ResyncHost& host, std::string name, std::string layer, io::Task* news);
  ~SnapshotReader() override;

  // BlockDevice
  const std::string& name() const override { return name_; }
  uint64_t size_bytes() const override { return size_bytes_; }
  BufferPool& buffers() override { return host_.buffers(); }
  void Submit(BlockRequest* request) override;
  void Release(BlockRequest* hold) override;
  bool read_only() const override { return true; }
  void ClientCame() override;
  void ClientLeft() override;

  const std::string& layer() const { return layer_; }
  Phase phase() const { return phase_; }
  // Why it could not be opened; kOk before and otherwise.
  const Status& status() const { return status_; }
  // A client uses it, or is just about to.
  bool in_use() const;
  // Of no use to anybody for a while.
  bool expired() const;

  // Goes on with what had to wait.
  void Pump();
  // Before anything of the link's connection ends.
  void OnLost(const Link& link) { views_.OnLost(link); }
  // Requests from now on are answered with an error; `why` is told who waits for it to be open.
  void Close(const Status& why);
  // Closed, and nothing of it is under way.
  bool quiet() const;
  // And nobody has it: it may go.
  bool idle() const { return quiet() && clients_ == 0; }

 private:
  struct Read {
    SnapshotReader* reader = nullptr;
    BlockRequest* request = nullptr;
    Errand errand;
    uint8_t tried = 0;                 // links
    ErrorCode fault = ErrorCode::kOk;  // of the first that was tried
    ListNode node;
  };
  using Reads = IntrusiveList<Read, &Read::node>;

  void List();
  void OnListed(ErrorCode status);
  void OnViews();
  void Send(Read* read);
  Link* Pick(const Read& read, bool* may_come) const;
  void OnAnswer(Read* read);
  void Finish(Read* read, ErrorCode status);
  void AnswerLater(BlockRequest* request, ErrorCode status);
  static Status TakeExtents(Errand* errand, std::span<const std::byte> payload);

  ResyncHost& host_;
  const std::string name_;
  const std::string layer_;
  io::Task* const news_;
  Phase phase_ = Phase::kListing;
  Status status_;
  uint64_t size_bytes_ = 0;
  uint64_t began_ns_;
  uint64_t left_ns_ = 0;  // when it was opened, or its last client left
  uint64_t retried_ns_ = 0;
  uint64_t logged_ns_ = 0;  // when a fault of a member was logged last; 0: none was
  size_t clients_ = 0;
  bool used_ = false;  // by any client so far
  LayerReader layers_;
  ViewSet views_;
  std::array<Read, kSnapshotReadsMax> reads_;
  Reads free_;
  Reads parked_;  // no member can be asked now
  // Waiting for one of reads_; answered at the end of this turn.
  BlockRequest* queue_ = nullptr;
  BlockRequest* queue_end_ = nullptr;
  BlockRequest* answers_ = nullptr;
  io::Task answer_task_;
};

// What is wanted: a snapshot that can be read. Owned by who wants it, until `done`.
struct ReadSnapshotRequest {
  std::string name;   // what the device is to be called, with the volume's name
  std::string layer;  // what replicas call the snapshot
  // Never from within the call. May free the request.
  void (*done)(ReadSnapshotRequest*) = nullptr;
  void* owner = nullptr;
  Status status;
  uint64_t size_bytes = 0;
  ListNode node;
};

// The snapshots that can be read at present. One that nobody has used for 10 s is closed.
class SnapshotReaders final : public BlockDevices {
 public:
  explicit SnapshotReaders(ResyncHost& host);
  ~SnapshotReaders();

  // The same again joins what there is.
  void Open(ReadSnapshotRequest* request);
  BlockDevice* Find(std::string_view name) override;
  // Where the layer is read by nobody it is closed. Null: it is; else why it is not, or not yet.
  const char* Release(const std::string& layer);
  bool in_use(const std::string& layer) const;

  void Look();
  void Pump();
  void OnLost(const Link& link);
  void Stop(const Status& why);
  bool empty() const { return readers_.empty(); }
  bool idle() const;

 private:
  SnapshotReader* Of(const std::string& layer) const;
  void Answer();
  void Sweep();

  ResyncHost& host_;
  Status stopped_;  // not kOk: nothing is opened any more
  std::vector<std::unique_ptr<SnapshotReader>> readers_;
  IntrusiveList<ReadSnapshotRequest, &ReadSnapshotRequest::node> waiting_;
  io::Task answer_task_;
};

}  // namespace ankole::engine
