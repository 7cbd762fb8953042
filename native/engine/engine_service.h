#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/service.h"
#include "engine/engine.h"
#include "io/reactor.h"

namespace ankole::nbd {
class Server;
}
namespace ankole::iscsi {
class Server;
}
namespace ankole::scsi {
class LogicalUnit;
}

namespace ankole::engine {

// The iSCSI front end as the config has it.
struct IscsiOptions;

// An engine process's native half: an Engine, its front ends, and the control messages of all.
class EngineService final : public Service, Engine::Observer {
 public:
  // kInvalidArgument naming the field of the config that is wrong.
  static Result<EngineOptions> ParseOptions(const Json& config);
  // Null where the config has no «iscsi».
  static Result<std::unique_ptr<IscsiOptions>> ParseIscsi(const Json& config);
  static Result<std::unique_ptr<Service>> Make(io::Reactor& reactor, const Json& config,
                                               EventSink& events);
  ~EngineService() override;

  void Start() override;
  void OnMessage(const Json& message) override;

 private:
  EngineService(io::Reactor& reactor, EventSink& events);

  void OnReport(const EngineReport& report) override;
  void OnReplica(wire::ReplicaId replica, const char* state, Fault fault,
                 const std::string& reason) override;
  void OnCannotStart(const StartDecision& decision, const std::vector<Heard>& heard) override;
  void OnPropose(const wire::Record& record) override;
  void OnComplete(const wire::Record& record) override;
  void OnAskStore(uint64_t question, const wire::Record& record) override;
  void OnProbeStore(uint64_t question) override;
  void OnScrub(const Json& progress) override;
  void OnTrim(const Json& progress) override;
  void OnSize(uint64_t size_bytes, const Expansion& expansion) override;
  void OnReady() override;
  void OnStopped(bool clean) override;

  void MakeIscsi(std::unique_ptr<IscsiOptions> options);
  void StartUnit();
  void Listen();
  void Wait(const std::string& cause);
  void FrontEndStopped();
  void OnRequest(int64_t request, const std::string& name, const Json& message);
  void StartScrub(int64_t request, const Json& message);
  void StartTrim(int64_t request, const Json& message);
  Status SetSpace(const Json& space);
  void OnSet(int64_t request, const Json& message);
  void Expand(int64_t request, const Json& message);
  // A request about snapshots that the engine has not answered yet.
  struct Asked : SnapshotRequest {
    EngineService* service = nullptr;
    int64_t number = 0;  // of the control message
  };
  static Status ParseRevert(const Json& message, Asked* asked);
  void AskForSnapshot(int64_t request, const std::string& name, const Json& message);
  void Answer(Asked* asked);
  // Likewise about what changed between two, and about one that is to be read.
  struct AskedChanges : ChangesRequest {
    EngineService* service = nullptr;
    int64_t number = 0;
  };
  struct AskedReading : ReadSnapshotRequest {
    EngineService* service = nullptr;
    int64_t number = 0;
  };
  void AskForChanges(int64_t request, const Json& message);
  void AskForReading(int64_t request, const Json& message);
  void CheckUnread(int64_t request, const Json& message);
  size_t asked() const { return asked_.size() + changes_.size() + readings_.size(); }
  void OnAnswer(int64_t question, const Json& message);
  void BeginStop();
  void StopEngine();

  io::Reactor& reactor_;
  EventSink& events_;
  io::Address nbd_address_;
  io::Address nbd_bound_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<nbd::Server> nbd_;
  std::unique_ptr<IscsiOptions> iscsi_options_;  // null: only NBD is served
  io::Address iscsi_bound_;
  std::unique_ptr<scsi::LogicalUnit> unit_;
  std::unique_ptr<iscsi::Server> iscsi_;
  // Whichever front end is not there yet is tried again: the logical unit's start, and listening.
  io::Timer retry_;
  io::Timer stop_limit_;
  bool ready_ = false;
  bool unit_starting_ = false;
  bool unit_started_ = false;
  bool nbd_listening_ = false;
  bool iscsi_listening_ = false;
  bool stopping_ = false;
  int front_ends_stopping_ = 0;
  int64_t stop_request_ = -1;
  // Invariant: empty once the engine has stopped, as it answers all.
  std::vector<std::unique_ptr<Asked>> asked_;
  std::vector<std::unique_ptr<AskedChanges>> changes_;
  std::vector<std::unique_ptr<AskedReading>> readings_;
};

Json RecordToJson(const wire::Record& record);
Result<wire::Record> RecordFromJson(const Json& json);

}  // namespace ankole::engine
