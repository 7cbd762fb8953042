#include "replica/longhorn_tool.h"

#include <memory>
#include <utility>

#include "replica/control_job.h"

namespace ankole::replica {
namespace {

constexpr uint64_t kTellEveryNs = kNsPerSecond;

Status Wrong(const std::string& field, const std::string& why) {
  return {ErrorCode::kInvalidArgument, "\"" + field + "\": " + why};
}

Status ParseAccept(const Json& json, LonghornAccept* accept) {
  const Json* list = json.Find("accept");
  if (list == nullptr) return Status::Ok();
  if (!list->is_array()) return Wrong("accept", "is not an array");
  for (const Json& item : list->items()) {
    const Result<std::string> what = item.AsString("accept");
    if (!what.ok()) return what.status();
    RETURN_IF_ERROR(accept->Add(what.value()));
  }
  return Status::Ok();
}

Status ParseNames(const Json& json, std::map<std::string, std::string>* names) {
  const Json* object = json.Find("names");
  if (object == nullptr) return Status::Ok();
  if (!object->is_object()) return Wrong("names", "is not an object");
  for (const auto& [layer, value] : object->members()) {
    const Result<std::string> name = value.AsString("names");
    if (!name.ok()) return name.status();
    (*names)[layer] = name.value();
  }
  return Status::Ok();
}

}  // namespace

Result<LonghornWork> LonghornWork::Parse(const Json& json) {
  if (!json.is_object()) return Status(ErrorCode::kInvalidArgument, "it is not an object");
  LonghornWork work;
  const std::pair<const char*, std::string*> texts[] = {
      {"what", &work.what},
      {"directory", &work.directory},
      {"target", &work.target},
      {"backingFile", &work.adopt.longhorn.backing_file},
      {"snapshot", &work.exported.snapshot},
  };
  for (const auto& [key, to] : texts) {
    Result<std::string> text = json.String(key, "");
    if (!text.ok()) return text.status();
    *to = text.Take();
  }
  const bool targeted = work.what == "copy" || work.what == "export";
  if (!targeted && work.what != "check" && work.what != "prepare") {
    return Wrong("what", "is neither check, copy, prepare nor export");
  }
  if (!work.directory.starts_with('/')) return Wrong("directory", "is not an absolute path");
  if (targeted && !work.target.starts_with('/')) return Wrong("target", "is not an absolute path");
  Result<bool> copied = json.Bool("copied", false);
  if (!copied.ok()) return copied.status();
  work.adopt.longhorn.copied = copied.value() || work.what == "copy";
  Result<bool> any_length = json.Bool("anyLength", false);
  if (!any_length.ok()) return any_length.status();
  work.exported.any_length = any_length.value();
  RETURN_IF_ERROR(ParseAccept(json, &work.adopt.accept));
  RETURN_IF_ERROR(ParseNames(json, &work.exported.names));
  return work;
}

LonghornTool::LonghornTool(io::Reactor& reactor, EventSink& events, LonghornWork work)
    : reactor_(reactor), events_(events), work_(std::move(work)) {
  timer_.owner = this;
  timer_.done = [](io::Operation* timer) { static_cast<LonghornTool*>(timer->owner)->Tell(); };
}

LonghornTool::~LonghornTool() { reactor_.Cancel(&timer_); }

void LonghornTool::Start() {
  reactor_.Arm(&timer_, reactor_.NowNs() + kTellEveryNs);
  auto outcome = std::make_shared<Result<Json>>(Json());
  RunControlJob(
      reactor_, [this, outcome] { *outcome = Run(); }, [this, outcome] { End(*outcome); });
}

void LonghornTool::OnMessage(const Json& message) {
  const Result<std::string> op = message.String("op", "");
  if (op.ok() && op.value() == "stop") cancelled_ = true;
}

Result<Json> LonghornTool::Run() {
  const CopyProgress progress = [this](uint64_t bytes) {
    bytes_ += bytes;
    return !cancelled_;
  };
  io::FileSystem& files = reactor_.files();
  if (work_.what == "check") {
    Result<LonghornReplica> found = ReadLonghorn(files, work_.directory, work_.adopt.longhorn);
    if (!found.ok()) return found.status();
    return found.value().ToJson();
  }
  if (work_.what == "copy") {
    RETURN_IF_ERROR(CopyLonghorn(files, work_.directory, work_.target, work_.adopt, progress));
    return Json::Object();
  }
  if (work_.what == "prepare") {
    RETURN_IF_ERROR(PrepareLonghorn(files, work_.directory, work_.adopt, progress));
    return Json::Object();
  }
  return ExportLonghorn(reactor_, work_.directory, work_.target, work_.exported, progress);
}

void LonghornTool::Tell() {
  events_.Emit(Json::Object().Set("event", "progress").Set("bytes", bytes_.load()));
  reactor_.Arm(&timer_, reactor_.NowNs() + kTellEveryNs);
}

void LonghornTool::End(const Result<Json>& outcome) {
  reactor_.Cancel(&timer_);
  if (outcome.ok()) {
    events_.Emit(Json::Object().Set("event", "done").Set("result", outcome.value()));
  } else {
    events_.Emit(Json::Object()
                     .Set("event", "failed")
                     .Set("code", ErrorCodeName(outcome.status().code()))
                     .Set("message", outcome.status().message()));
  }
  reactor_.Stop();
}

}  // namespace ankole::replica
