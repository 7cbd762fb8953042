#pragma once

#include <string>

namespace ankole {

enum class LogLevel { kInfo, kWarn, kError };

// Where the core's rare events go: one call an event that someone must know of, never one an I/O.
// Called on the reactor's thread only.
class LogSink {
 public:
  virtual ~LogSink() = default;
  virtual void Log(LogLevel level, const std::string& message) = 0;
};

}  // namespace ankole
