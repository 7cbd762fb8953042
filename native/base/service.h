#pragma once

#include "base/json.h"
#include "base/log.h"
#include "base/result.h"

namespace ankole {

// Where a service's events go. Called on the reactor's thread.
class EventSink : public LogSink {
 public:
  // An event for TypeScript: {"event": …}, or {"reply": n, …}.
  virtual void Emit(const Json& event) = 0;
  // As the event "log".
  void Log(LogLevel level, const std::string& message) override;
};

// A process's native half: an engine or a disk host. Driven by control messages, lives on one
// reactor, whose loop it stops when it has stopped.
class Service {
 public:
  virtual ~Service() = default;  // after the loop has ended
  // Begins; once, before the loop. What goes wrong later comes as events.
  virtual void Start() = 0;
  // A control message: a request or an answer. Malformed ones are answered or logged.
  virtual void OnMessage(const Json& message) = 0;
};

// {"reply": request, "result": result}
Json ReplyTo(int64_t request, Json result);
// {"reply": request, "error": {"code", "message"}}
Json ReplyTo(int64_t request, const Status& status);

}  // namespace ankole
