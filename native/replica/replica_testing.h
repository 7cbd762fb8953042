#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/test.h"
#include "io/file_system.h"
#include "io/reactor.h"
#include "replica/replica.h"

// For tests only: files that fail at a chosen point, and a replica driven operation by operation.
namespace ankole::replica {

// Passes everything on, but stops doing so at the I/O number `cut`, as if the process had died
// there: that one and all that follow fail. Data I/O of the reactor does not pass here.
class CutFiles final : public io::FileSystem {
 public:
  explicit CutFiles(io::FileSystem& under);
  ~CutFiles() override;

  std::atomic<int> cut{0};    // 0: never
  std::atomic<int> calls{0};  // that change something
  size_t torn_bytes = 0;      // how far the write at the cut gets
  std::atomic<bool> fail_sync{false};
  std::atomic<bool> fail_whole_sync{false};  // Sync, where fail_sync is for SyncData
  std::atomic<bool> hold_sync{false};
  std::atomic<bool> hold_directory_sync{false};
  std::atomic<int> held{0};   // calls that came to wait for the latter
  std::atomic<int> syncs{0};  // SyncData that did not fail
  std::atomic<int> directory_syncs{0};
  std::string boot_id;   // the machine's own while empty
  std::string mount_id;  // likewise
  std::atomic<int> dropped_caches{0};
  std::atomic<int> settled{0};     // Extents, which writes back what is dirty
  std::string full_for;            // creating files with this in their path finds no space
  std::atomic<int> fail_reads{0};  // so many of the next ones
  std::atomic<bool> full{false};   // no space can be taken ahead of its use

  bool reached() const;
  void Reset(int at);

  Result<io::File> Open(const std::string& path, const io::OpenOptions& options) override;
  void Close(io::File file) override { under_.Close(file); }
  Result<size_t> ReadAt(io::File file, uint64_t offset, void* to, size_t bytes) override;
  Status WriteAt(io::File file, uint64_t offset, const void* from, size_t bytes) override;
  Status Sync(io::File file) override;
  Status SyncData(io::File file) override;
  Status SyncDirectory(const std::string& path) override;
  Status Truncate(io::File file, uint64_t size) override;
  Status Allocate(io::File file, uint64_t offset, uint64_t length) override;
  Status PunchHole(io::File file, uint64_t offset, uint64_t length) override;
  Status ZeroRange(io::File file, uint64_t offset, uint64_t length) override;
  Status Extents(io::File file, uint64_t offset, uint64_t length, size_t extents_max,
                 std::vector<io::FileExtent>* extents) override;
  Status ExtentsWritten(io::File file, uint64_t offset, uint64_t length, size_t extents_max,
                        std::vector<io::FileExtent>* extents) override;
  Status TryLock(io::File file) override { return under_.TryLock(file); }
  Result<io::FileInfo> Info(const std::string& path) override { return under_.Info(path); }
  Result<io::FileInfo> Info(io::File file) override { return under_.Info(file); }
  Status Rename(const std::string& from, const std::string& to) override;
  Status Link(const std::string& from, const std::string& to) override;
  Status Remove(const std::string& path) override;
  Status RemoveDirectory(const std::string& path) override;
  Status MakeDirectory(const std::string& path) override;
  Result<std::vector<std::string>> List(const std::string& path) override;
  Result<io::SpaceInfo> Space(const std::string& path) override { return under_.Space(path); }
  Result<std::string> BootId() override;
  Result<std::string> MountId(const std::string& path) override;
  Result<io::FileRange> NextData(io::File file, uint64_t offset, uint64_t end) override;
  Status DropCache(io::File file) override;

 private:
  Status Pass();

  io::FileSystem& under_;
};

// A reactor whose file I/O fails as it is told, one at a time.
class FaultyReactor : public io::Reactor {
 public:
  explicit FaultyReactor(io::Reactor& under);
  ~FaultyReactor() override;
  int plain_error = 0;    // for writes that are not durable
  int durable_error = 0;  // for those that are
  int read_error = 0;
  std::function<void(const io::FileOperation&)> on_write;  // before it is issued

  void Write(io::FileOperation* operation) override;
  void Read(io::FileOperation* operation) override;
  void Fail(io::FileOperation* operation, int error_number);
  const io::BackendChoice& backend() const override { return under_.backend(); }
  io::FileSystem& files() override { return under_.files(); }
  uint64_t NowNs() override { return under_.NowNs(); }
  uint64_t WallClockSeconds() override { return under_.WallClockSeconds(); }
  void Random(void* to, size_t bytes) override { under_.Random(to, bytes); }
  void Arm(io::Timer* timer, uint64_t deadline_ns) override { under_.Arm(timer, deadline_ns); }
  void Cancel(io::Timer* timer) override { under_.Cancel(timer); }
  void Defer(io::Task* task) override { under_.Defer(task); }
  void Run(io::Job* job) override { under_.Run(job); }
  Result<io::Socket> Listen(const io::Address& address, io::Address* bound) override;
  void Accept(io::AcceptOperation* operation) override { under_.Accept(operation); }
  void Connect(io::ConnectOperation* operation) override { under_.Connect(operation); }
  void Receive(io::ReceiveOperation* operation) override { under_.Receive(operation); }
  void Send(io::SendOperation* operation) override { under_.Send(operation); }
  void Close(io::CloseOperation* operation) override { under_.Close(operation); }
  void CancelConnect(io::ConnectOperation* operation) override { under_.CancelConnect(operation); }
  Result<io::Socket> MakeDoorbell() override { return under_.MakeDoorbell(); }
  void Ring(io::Socket doorbell) override { under_.Ring(doorbell); }
  void Await(io::AwaitOperation* operation) override { under_.Await(operation); }
  void Post(io::Message* message) override { under_.Post(message); }
  void Loop() override { under_.Loop(); }
  void Stop() override { under_.Stop(); }

 private:
  io::Reactor& under_;
  io::Task later_;
  io::FileOperation* operation_ = nullptr;
  int64_t result_ = 0;
};

Identity TestIdentity(CacheMode cache = CacheMode::kBuffered);

// An open replica whose operations are waited for. Ends the process where what it needs fails, as
// no test can go on then.
class Driver {
 public:
  Driver(io::FileSystem& files, io::Reactor& reactor, const std::string& directory);
  ~Driver();
  const Status& status() const { return status_; }
  Replica& replica() { return *replica_; }

  // Adds to what the next Run submits at once.
  ReplicaOperation& Add(OperationKind kind, uint64_t offset = 0, uint64_t length = 0,
                        void* data = nullptr);
  // Runs all that were added; the outcome of the first that failed.
  ErrorCode Run();
  ErrorCode Do(OperationKind kind, uint64_t offset = 0, uint64_t length = 0, void* data = nullptr,
               bool durable = false);
  ErrorCode WriteRecord(const wire::RecordPair& record, wire::Epoch welcomed);
  // What it holds, also where a sync failed.
  std::string ReadAll();
  // Whether it, or a view of it, holds that: of a view zeros behind its end may be left out. Read
  // through one buffer: a sanitizer takes more for fresh memory than for all else.
  bool Holds(std::string_view content, uint16_t view = 0);
  Status Close(bool clean);
  // As if the process had been killed.
  void Drop();

  std::function<void(ReplicaOperation*)> on_done;

 private:
  io::Reactor& reactor_;
  Status status_;
  std::unique_ptr<Replica> replica_;
  std::vector<std::unique_ptr<ReplicaOperation>> operations_;
  size_t waiting_ = 0;
};

void WriteText(io::FileSystem& files, const std::string& path, const std::string& text);

}  // namespace ankole::replica
