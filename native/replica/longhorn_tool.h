#pragma once

#include <atomic>
#include <string>

#include "base/service.h"
#include "io/reactor.h"
#include "replica/adopt.h"
#include "replica/export.h"

namespace ankole::replica {

// One piece of work on directories of Longhorn's, for a command that runs it in its own process:
// looks into one («check»), copies one to another file system («copy»), makes one ready to be
// adopted («prepare»), or writes a replica out as one («export»).
//
// Ends with {"event": "done", "result"} or {"event": "failed", "code", "message"}; before that
// {"event": "progress", "bytes"} each second. The request «stop» cancels it.
struct LonghornWork {
  std::string what;
  std::string directory;
  std::string target;  // copy, export
  AdoptOptions adopt;
  ExportOptions exported;

  static Result<LonghornWork> Parse(const Json& json);
};

class LonghornTool final : public Service {
 public:
  LonghornTool(io::Reactor& reactor, EventSink& events, LonghornWork work);
  ~LonghornTool() override;

  void Start() override;
  void OnMessage(const Json& message) override;

 private:
  Result<Json> Run();
  void Tell();
  void End(const Result<Json>& outcome);

  io::Reactor& reactor_;
  EventSink& events_;
  const LonghornWork work_;
  io::Timer timer_;
  std::atomic<uint64_t> bytes_ = 0;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace ankole::replica
