#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/intrusive_list.h"
#include "base/limits.h"
#include "base/service.h"
#include "io/reactor.h"
#include "replica/adopt.h"
#include "replica/disk_directory.h"
#include "replica/served_replica.h"
#include "replica/session.h"

namespace ankole::replica {

struct DiskHostConfig {
  std::string disk;
  std::string directory;
  std::vector<io::Address> listen;
  io::Backend io_backend = io::Backend::kAuto;
  uint64_t handshake_timeout_ns = kHandshakeTimeoutNs;

  // kInvalidArgument that names the field.
  static Result<DiskHostConfig> Parse(const Json& json);
};

// The server of all replicas of one disk. Speaks the replication protocol on its listeners
// (docs/internals/wire-protocol.md) and takes control requests as JSON.
//
// starting ──▶ serving ──▶ stopping ──▶ stopped, and from starting also straight to stopping where
// the disk or an address cannot be used (event «failed»).
class DiskHost final : public Service, private SessionHost {
 public:
  DiskHost(io::Reactor& reactor, EventSink& events, DiskHostConfig config);
  ~DiskHost() override;

  void Start() override;
  void OnMessage(const Json& message) override;

 private:
  enum class Mode { kStarting, kServing, kStopping, kStopped };
  struct Listener {
    DiskHost* host = nullptr;
    io::AcceptOperation accept;
    io::CloseOperation close;
    io::Timer retry;  // after a failure that time may mend
    io::Address bound;
    bool closed = false;
  };
  // A create or remove; these run one after the other.
  struct Change {
    int64_t request = 0;
    bool create = false;
    Identity identity;
    uint64_t size_bytes = 0;
    // Where it is made of a directory of Longhorn's.
    std::string adopt_from;
    AdoptOptions adopt;
    bool read_only = false;
    // Where it is made of a snapshot of another volume's replica on this disk.
    std::string clone_layer;  // empty: it is not
    std::pair<std::string, wire::ReplicaId> clone_source;
    wire::Members clone_members;
  };
  using Key = std::pair<std::string, wire::ReplicaId>;

  Result<ServedReplica*> FindReplica(const std::string& volume, wire::ReplicaId id) override;
  void OnSessionGone(Session* session) override;
  uint64_t handshake_timeout_ns() const override { return config_.handshake_timeout_ns; }
  LogSink& log() override { return events_; }

  void LookAgain(ServedReplica* served);
  void OnDiskTaken(const Result<std::vector<FoundReplica>>& found,
                   const std::vector<std::string>& strangers);
  void Fail(const Status& why);
  Status Listen();
  void Accept(Listener* listener);
  void OnAccepted(Listener* listener);

  Status OnRequest(int64_t request, const std::string& op, const Json& message);
  Result<Change> ParseChange(int64_t request, bool create, const Json& message) const;
  static Status ParseAdopt(const Json& json, Change* change);
  static Status ParseClone(const Json& json, Change* change);
  void NextChange();
  void Create(const Change& change);
  void Clone(const Change& change);
  void FinishCreate(const Change& change, const Result<ReplicaDescription>& outcome);
  void Confirm(const Change& change);
  void Remove(const Change& change);
  void FinishChange(int64_t request, const Status& status, Json result);
  void ListReplicas(int64_t request);
  void AnswerSpace(int64_t request);
  void AnswerUsage(int64_t request);  // usage.cc
  Json CountersJson() const;
  // A job that the stop waits for.
  void RunJob(std::function<void()> work, std::function<void()> then);

  void Stop();
  void StopWhenDone();

  io::Reactor& reactor_;
  EventSink& events_;
  const DiskHostConfig config_;
  Mode mode_ = Mode::kStarting;
  io::File disk_lock_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  IntrusiveList<Session, &Session::host_node> sessions_;
  std::map<Key, std::unique_ptr<ServedReplica>> replicas_;
  std::deque<Change> changes_;
  bool changing_ = false;
  size_t jobs_ = 0;
  size_t replicas_ending_ = 0;
  bool clean_ = true;
  std::vector<int64_t> stop_requests_;
  // Ends what the engines' slowness would keep from ending.
  io::Timer stop_limit_;
  uint64_t refused_logged_ns_ = 0;
};

}  // namespace ankole::replica
