#include "base/service.h"

namespace ankole {

void EventSink::Log(LogLevel level, const std::string& message) {
  const char* name = level == LogLevel::kInfo   ? "info"
                     : level == LogLevel::kWarn ? "warn"
                                                : "error";
  Emit(Json::Object().Set("event", "log").Set("level", name).Set("message", message));
}

Json ReplyTo(int64_t request, Json result) {
  return Json::Object().Set("reply", request).Set("result", std::move(result));
}

Json ReplyTo(int64_t request, const Status& status) {
  return Json::Object()
      .Set("reply", request)
      .Set("error", Json::Object()
                        .Set("code", ErrorCodeName(status.code()))
                        .Set("message", status.message()));
}

}  // namespace ankole
