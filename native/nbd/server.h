#pragma once

#include <array>
#include <functional>
#include <memory>

#include "base/block_device.h"
#include "base/limits.h"
#include "base/log.h"
#include "io/reactor.h"
#include "nbd/connection.h"

namespace ankole::nbd {

// Serves one volume to NBD clients, under its name and as the default export, and other devices to
// those that ask for them by name. All of it lives on the reactor's thread.
class Server final : public ConnectionOwner {
 public:
  // `others` may be null. Their buffers are those of `device`, their names have at most
  // kExportNameBytesMax bytes.
  Server(io::Reactor& reactor, BlockDevice& device, LogSink& log, BlockDevices* others = nullptr);
  // Invariant: never listened, or Shutdown's `done` has run.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Once. `bound` gets the real address.
  Status Listen(const io::Address& address, io::Address* bound);

  // Stops accepting, answers the requests that were taken and closes all connections; then `done`,
  // never from within. A client that does not read its replies holds it up until Abort.
  void Shutdown(std::function<void()> done);
  // Closes all connections at once. What is at the device is still waited for, as it writes to
  // their buffers. Within or instead of Shutdown's patience; connections that come later are not
  // affected.
  void Abort();

  // Stops taking requests from all clients, those who come meanwhile too; `quiet` when everything
  // taken is answered, never from within. Bytes that arrive wait in the windows.
  void Pause(std::function<void()> quiet);
  void Resume();

  size_t connections() const { return count_; }
  // Memory of the buffer pool held by clients.
  size_t held_bytes() const;

 private:
  void OnClosed(Connection* connection) override;
  void OnStarved(Connection* connection) override;
  void OnQuiet(Connection* connection) override;

  void Accept();
  void OnAccepted();
  void RefuseOne();
  void Check();
  void ScheduleCheck() { reactor_.Defer(&check_); }

  enum class Mode : uint8_t { kIdle, kListening, kStopping, kStopped };

  io::Reactor& reactor_;
  BlockDevice& device_;
  BlockDevices* const others_;
  LogSink& log_;
  Mode mode_ = Mode::kIdle;
  bool paused_ = false;
  bool listener_open_ = false;
  bool accepting_ = false;
  uint64_t refused_logged_ns_ = 0;
  size_t count_ = 0;
  std::array<std::unique_ptr<Connection>, kConnectionsMax> slots_;
  std::function<void()> shutdown_done_;
  std::function<void()> quiet_;
  io::AcceptOperation accept_;
  io::CloseOperation close_listener_;
  io::CloseOperation close_refused_;
  io::Timer accept_timer_;   // after a failed accept
  io::Timer starved_timer_;  // while some connection found the pool empty
  io::Task check_;
};

}  // namespace ankole::nbd
