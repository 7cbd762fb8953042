#pragma once

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
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
  explicit CutFiles(io::FileSystem& under) : under_(under) {}

  std::atomic<int> cut{0};    // 0: never
  std::atomic<int> calls{0};  // that change something
  size_t torn_bytes = 0;      // how far the write at the cut gets
  std::atomic<bool> fail_sync{false};
  std::atomic<bool> fail_whole_sync{false};  // Sync, where fail_sync is for SyncData
  std::atomic<bool> hold_sync{false};
  std::atomic<int> syncs{0};  // SyncData that did not fail
  std::atomic<int> directory_syncs{0};
  std::string boot_id;   // the machine's own while empty
  std::string mount_id;  // likewise
  std::atomic<int> dropped_caches{0};
  std::atomic<int> settled{0};     // Extents, which writes back what is dirty
  std::string full_for;            // creating files with this in their path finds no space
  std::atomic<int> fail_reads{0};  // so many of the next ones
  std::atomic<bool> full{false};   // no space can be taken ahead of its use

  bool reached() const { return cut > 0 && calls >= cut; }
  void Reset(int at) {
    cut = at;
    calls = 0;
  }

  Result<io::File> Open(const std::string& path, const io::OpenOptions& options) override {
    if (options.create) {
      RETURN_IF_ERROR(Pass());
      if (!full_for.empty() && path.find(full_for) != std::string::npos) {
        return Status(ErrorCode::kNoSpace, path + ": no space (injected)");
      }
    }
    return under_.Open(path, options);
  }
  void Close(io::File file) override { under_.Close(file); }
  Result<size_t> ReadAt(io::File file, uint64_t offset, void* to, size_t bytes) override {
    if (fail_reads > 0) {
      --fail_reads;
      return Status(ErrorCode::kIoError, "pread: injected");
    }
    return under_.ReadAt(file, offset, to, bytes);
  }
  Status WriteAt(io::File file, uint64_t offset, const void* from, size_t bytes) override {
    const bool before = reached();
    const Status status = Pass();
    if (status.ok()) return under_.WriteAt(file, offset, from, bytes);
    if (!before) (void)under_.WriteAt(file, offset, from, std::min(bytes, torn_bytes)).ok();
    return status;
  }
  Status Sync(io::File file) override {
    RETURN_IF_ERROR(Pass());
    if (fail_whole_sync) return Status(ErrorCode::kIoError, "fsync: injected");
    return under_.Sync(file);
  }
  Status SyncData(io::File file) override {
    while (hold_sync) std::this_thread::yield();
    RETURN_IF_ERROR(Pass());
    if (fail_sync) return Status(ErrorCode::kIoError, "fdatasync: injected");
    ++syncs;
    return under_.SyncData(file);
  }
  Status SyncDirectory(const std::string& path) override {
    RETURN_IF_ERROR(Pass());
    ++directory_syncs;
    return under_.SyncDirectory(path);
  }
  Status Truncate(io::File file, uint64_t size) override {
    RETURN_IF_ERROR(Pass());
    return under_.Truncate(file, size);
  }
  Status Allocate(io::File file, uint64_t offset, uint64_t length) override {
    RETURN_IF_ERROR(Pass());
    if (full) return Status(ErrorCode::kNoSpace, "fallocate: no space (injected)");
    return under_.Allocate(file, offset, length);
  }
  Status PunchHole(io::File file, uint64_t offset, uint64_t length) override {
    RETURN_IF_ERROR(Pass());
    return under_.PunchHole(file, offset, length);
  }
  Status ZeroRange(io::File file, uint64_t offset, uint64_t length) override {
    RETURN_IF_ERROR(Pass());
    return under_.ZeroRange(file, offset, length);
  }
  Status Extents(io::File file, uint64_t offset, uint64_t length, size_t extents_max,
                 std::vector<io::FileExtent>* extents) override {
    ++settled;
    return under_.Extents(file, offset, length, extents_max, extents);
  }
  Status ExtentsWritten(io::File file, uint64_t offset, uint64_t length, size_t extents_max,
                        std::vector<io::FileExtent>* extents) override {
    return under_.ExtentsWritten(file, offset, length, extents_max, extents);
  }
  Status TryLock(io::File file) override { return under_.TryLock(file); }
  Result<io::FileInfo> Info(const std::string& path) override { return under_.Info(path); }
  Result<io::FileInfo> Info(io::File file) override { return under_.Info(file); }
  Status Rename(const std::string& from, const std::string& to) override {
    RETURN_IF_ERROR(Pass());
    return under_.Rename(from, to);
  }
  Status Remove(const std::string& path) override {
    RETURN_IF_ERROR(Pass());
    return under_.Remove(path);
  }
  Status RemoveDirectory(const std::string& path) override {
    RETURN_IF_ERROR(Pass());
    return under_.RemoveDirectory(path);
  }
  Status MakeDirectory(const std::string& path) override {
    RETURN_IF_ERROR(Pass());
    return under_.MakeDirectory(path);
  }
  Result<std::vector<std::string>> List(const std::string& path) override {
    return under_.List(path);
  }
  Result<io::SpaceInfo> Space(const std::string& path) override { return under_.Space(path); }
  Result<std::string> BootId() override {
    return boot_id.empty() ? under_.BootId() : Result<std::string>(boot_id);
  }
  Result<std::string> MountId(const std::string& path) override {
    return mount_id.empty() ? under_.MountId(path) : Result<std::string>(mount_id);
  }
  Result<io::FileRange> NextData(io::File file, uint64_t offset, uint64_t end) override {
    return under_.NextData(file, offset, end);
  }
  Status DropCache(io::File file) override {
    ++dropped_caches;
    return under_.DropCache(file);
  }

 private:
  Status Pass() {
    ++calls;
    if (reached()) return Status(ErrorCode::kIoError, "injected at " + std::to_string(cut.load()));
    return Status::Ok();
  }

  io::FileSystem& under_;
};

// A reactor whose file I/O fails as it is told, one at a time.
class FaultyReactor : public io::Reactor {
 public:
  explicit FaultyReactor(io::Reactor& under) : under_(under) {}
  int plain_error = 0;    // for writes that are not durable
  int durable_error = 0;  // for those that are
  int read_error = 0;
  std::function<void(const io::FileOperation&)> on_write;  // before it is issued

  void Write(io::FileOperation* operation) override {
    if (on_write) on_write(*operation);
    const int error_number = operation->durable ? durable_error : plain_error;
    if (error_number == 0) return under_.Write(operation);
    Fail(operation, error_number);
  }
  void Read(io::FileOperation* operation) override {
    if (read_error == 0) return under_.Read(operation);
    Fail(operation, read_error);
  }
  void Fail(io::FileOperation* operation, int error_number) {
    operation_ = operation;
    result_ = -error_number;
    later_.owner = this;
    later_.done = [](io::Operation* task) {
      auto* self = static_cast<FaultyReactor*>(task->owner);
      self->operation_->result = self->result_;
      self->operation_->done(self->operation_);
    };
    under_.Defer(&later_);
  }
  const io::BackendChoice& backend() const override { return under_.backend(); }
  io::FileSystem& files() override { return under_.files(); }
  uint64_t NowNs() override { return under_.NowNs(); }
  uint64_t WallClockSeconds() override { return under_.WallClockSeconds(); }
  void Random(void* to, size_t bytes) override { under_.Random(to, bytes); }
  void Arm(io::Timer* timer, uint64_t deadline_ns) override { under_.Arm(timer, deadline_ns); }
  void Cancel(io::Timer* timer) override { under_.Cancel(timer); }
  void Defer(io::Task* task) override { under_.Defer(task); }
  void Run(io::Job* job) override { under_.Run(job); }
  Result<io::Socket> Listen(const io::Address& address, io::Address* bound) override {
    return under_.Listen(address, bound);
  }
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

inline Identity TestIdentity(CacheMode cache = CacheMode::kBuffered) {
  Identity identity;
  identity.volume = "demo";
  identity.id = 0xa1;
  identity.secret.fill(7);
  identity.cache = cache;
  identity.created_seconds = 1'700'000'000;
  return identity;
}

// An open replica whose operations are waited for. Ends the process where what it needs fails, as
// no test can go on then.
class Driver {
 public:
  Driver(io::FileSystem& files, io::Reactor& reactor, const std::string& directory)
      : reactor_(reactor) {
    Result<std::unique_ptr<Replica>> opened = Replica::Open(files, reactor, directory);
    status_ = opened.status();
    if (opened.ok()) replica_ = opened.Take();
  }
  const Status& status() const { return status_; }
  Replica& replica() { return *replica_; }

  // Adds to what the next Run submits at once.
  ReplicaOperation& Add(OperationKind kind, uint64_t offset = 0, uint64_t length = 0,
                        void* data = nullptr) {
    auto& operation = *operations_.emplace_back(std::make_unique<ReplicaOperation>());
    operation.kind = kind;
    operation.offset_bytes = offset;
    operation.length_bytes = length;
    operation.data = static_cast<std::byte*>(data);
    operation.owner = this;
    operation.done = [](ReplicaOperation* self) {
      auto* driver = static_cast<Driver*>(self->owner);
      if (driver->on_done) driver->on_done(self);
      if (--driver->waiting_ == 0) driver->reactor_.Stop();
    };
    return operation;
  }
  // Runs all that were added; the outcome of the first that failed.
  ErrorCode Run() {
    waiting_ = operations_.size();
    bool returned = false;
    const auto keep = std::move(on_done);
    on_done = [&](ReplicaOperation* operation) {
      EXPECT(returned);  // never from within Submit
      if (keep) keep(operation);
    };
    for (size_t i = 0; i < operations_.size(); ++i) replica_->Submit(operations_[i].get());
    returned = true;
    reactor_.Loop();
    on_done = nullptr;
    ErrorCode first = ErrorCode::kOk;
    for (const auto& operation : operations_) {
      if (first == ErrorCode::kOk) first = operation->status;
    }
    operations_.clear();
    return first;
  }
  ErrorCode Do(OperationKind kind, uint64_t offset = 0, uint64_t length = 0, void* data = nullptr,
               bool durable = false) {
    Add(kind, offset, length, data).durable = durable;
    return Run();
  }
  ErrorCode WriteRecord(const wire::RecordPair& record, wire::Epoch welcomed) {
    ReplicaOperation& operation = Add(OperationKind::kRecord);
    operation.record = record;
    operation.welcomed = welcomed;
    return Run();
  }
  // What it holds, also where a sync failed.
  std::string ReadAll() {
    std::string all(replica_->size_bytes(), '?');
    for (uint64_t at = 0; at < all.size(); at += kDataBytesMax) {
      const uint64_t length = std::min<uint64_t>(kDataBytesMax, all.size() - at);
      Add(OperationKind::kRead, at, length, all.data() + at).anyway = true;
      EXPECT_EQ(Run(), ErrorCode::kOk);
    }
    return all;
  }
  Status Close(bool clean) { return Replica::Close(std::move(replica_), clean); }
  // As if the process had been killed.
  void Drop() { replica_.reset(); }

  std::function<void(ReplicaOperation*)> on_done;

 private:
  io::Reactor& reactor_;
  Status status_;
  std::unique_ptr<Replica> replica_;
  std::vector<std::unique_ptr<ReplicaOperation>> operations_;
  size_t waiting_ = 0;
};

inline void WriteText(io::FileSystem& files, const std::string& path, const std::string& text) {
  EXPECT(io::ReplaceFile(files, path, text).ok());
}

}  // namespace ankole::replica
