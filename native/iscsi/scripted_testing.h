#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "iscsi/server_testing.h"
#include "nbd/scripted_reactor.h"

// A target over a volume in memory, on a reactor without a kernel: what it receives, what it has
// sent, and the time are moved by the test alone.
namespace ankole::iscsi {

class ListLog final : public LogSink {
 public:
  void Log(LogLevel, const std::string& message) override { lines.push_back(message); }
  std::vector<std::string> lines;
};

struct ScriptedBench {
  ScriptedBench();
  ~ScriptedBench();
  void GivePdu(BasicHeader header, const std::string& data);
  template <typename Header>
  void Give(const Header& header, const std::string& data = "") {
    GivePdu(As<BasicHeader>(header), data);
  }
  void LogIn();
  // What the target has sent, or nothing.
  std::string Taken();

  nbd::ScriptedReactor reactor;
  std::unique_ptr<BufferPool> pool;
  ListLog log;
  io::MemoryDevice device;
  scsi::LogicalUnit unit;
  Server server;
};

}  // namespace ankole::iscsi
