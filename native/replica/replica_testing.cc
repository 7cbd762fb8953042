#include "replica/replica_testing.h"

#include <algorithm>
#include <thread>
#include <utility>

namespace ankole::replica {

CutFiles::CutFiles(io::FileSystem& under) : under_(under) {}

CutFiles::~CutFiles() = default;

bool CutFiles::reached() const { return cut > 0 && calls >= cut; }

void CutFiles::Reset(int at) {
  cut = at;
  calls = 0;
}

Result<io::File> CutFiles::Open(const std::string& path, const io::OpenOptions& options) {
  if (options.create) {
    RETURN_IF_ERROR(Pass());
    if (!full_for.empty() && path.find(full_for) != std::string::npos) {
      return Status(ErrorCode::kNoSpace, path + ": no space (injected)");
    }
  }
  return under_.Open(path, options);
}

Result<size_t> CutFiles::ReadAt(io::File file, uint64_t offset, void* to, size_t bytes) {
  if (fail_reads > 0) {
    --fail_reads;
    return Status(ErrorCode::kIoError, "pread: injected");
  }
  return under_.ReadAt(file, offset, to, bytes);
}

Status CutFiles::WriteAt(io::File file, uint64_t offset, const void* from, size_t bytes) {
  const bool before = reached();
  const Status status = Pass();
  if (status.ok()) return under_.WriteAt(file, offset, from, bytes);
  if (!before) (void)under_.WriteAt(file, offset, from, std::min(bytes, torn_bytes)).ok();
  return status;
}

Status CutFiles::Sync(io::File file) {
  RETURN_IF_ERROR(Pass());
  if (fail_whole_sync) return Status(ErrorCode::kIoError, "fsync: injected");
  return under_.Sync(file);
}

Status CutFiles::SyncData(io::File file) {
  while (hold_sync) std::this_thread::yield();
  RETURN_IF_ERROR(Pass());
  if (fail_sync) return Status(ErrorCode::kIoError, "fdatasync: injected");
  ++syncs;
  return under_.SyncData(file);
}

Status CutFiles::SyncDirectory(const std::string& path) {
  if (hold_directory_sync) {
    ++held;
    while (hold_directory_sync) std::this_thread::yield();
  }
  RETURN_IF_ERROR(Pass());
  ++directory_syncs;
  return under_.SyncDirectory(path);
}

Status CutFiles::Truncate(io::File file, uint64_t size) {
  RETURN_IF_ERROR(Pass());
  return under_.Truncate(file, size);
}

Status CutFiles::Allocate(io::File file, uint64_t offset, uint64_t length) {
  RETURN_IF_ERROR(Pass());
  if (full) return Status(ErrorCode::kNoSpace, "fallocate: no space (injected)");
  return under_.Allocate(file, offset, length);
}

Status CutFiles::PunchHole(io::File file, uint64_t offset, uint64_t length) {
  RETURN_IF_ERROR(Pass());
  return under_.PunchHole(file, offset, length);
}

Status CutFiles::ZeroRange(io::File file, uint64_t offset, uint64_t length) {
  RETURN_IF_ERROR(Pass());
  return under_.ZeroRange(file, offset, length);
}

Status CutFiles::Extents(io::File file, uint64_t offset, uint64_t length, size_t extents_max,
                         std::vector<io::FileExtent>* extents) {
  ++settled;
  return under_.Extents(file, offset, length, extents_max, extents);
}

Status CutFiles::ExtentsWritten(io::File file, uint64_t offset, uint64_t length, size_t extents_max,
                                std::vector<io::FileExtent>* extents) {
  return under_.ExtentsWritten(file, offset, length, extents_max, extents);
}

Status CutFiles::Link(const std::string& from, const std::string& to) {
  RETURN_IF_ERROR(Pass());
  return under_.Link(from, to);
}

Status CutFiles::Rename(const std::string& from, const std::string& to) {
  RETURN_IF_ERROR(Pass());
  return under_.Rename(from, to);
}

Status CutFiles::Remove(const std::string& path) {
  RETURN_IF_ERROR(Pass());
  return under_.Remove(path);
}

Status CutFiles::RemoveDirectory(const std::string& path) {
  RETURN_IF_ERROR(Pass());
  return under_.RemoveDirectory(path);
}

Status CutFiles::MakeDirectory(const std::string& path) {
  RETURN_IF_ERROR(Pass());
  return under_.MakeDirectory(path);
}

Result<std::vector<std::string>> CutFiles::List(const std::string& path) {
  return under_.List(path);
}

Result<std::string> CutFiles::BootId() {
  return boot_id.empty() ? under_.BootId() : Result<std::string>(boot_id);
}

Result<std::string> CutFiles::MountId(const std::string& path) {
  return mount_id.empty() ? under_.MountId(path) : Result<std::string>(mount_id);
}

Result<io::FileRange> CutFiles::NextData(io::File file, uint64_t offset, uint64_t end) {
  return under_.NextData(file, offset, end);
}

Status CutFiles::DropCache(io::File file) {
  ++dropped_caches;
  return under_.DropCache(file);
}

Status CutFiles::Pass() {
  ++calls;
  if (reached()) return Status(ErrorCode::kIoError, "injected at " + std::to_string(cut.load()));
  return Status::Ok();
}

FaultyReactor::FaultyReactor(io::Reactor& under) : under_(under) {}

FaultyReactor::~FaultyReactor() = default;

void FaultyReactor::Write(io::FileOperation* operation) {
  if (on_write) on_write(*operation);
  const int error_number = operation->durable ? durable_error : plain_error;
  if (error_number == 0) return under_.Write(operation);
  Fail(operation, error_number);
}

void FaultyReactor::Read(io::FileOperation* operation) {
  if (read_error == 0) return under_.Read(operation);
  Fail(operation, read_error);
}

void FaultyReactor::Fail(io::FileOperation* operation, int error_number) {
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

Result<io::Socket> FaultyReactor::Listen(const io::Address& address, io::Address* bound) {
  return under_.Listen(address, bound);
}

Identity TestIdentity(CacheMode cache) {
  Identity identity;
  identity.volume = "demo";
  identity.id = 0xa1;
  identity.secret.fill(7);
  identity.cache = cache;
  identity.created_seconds = 1'700'000'000;
  return identity;
}

Driver::Driver(io::FileSystem& files, io::Reactor& reactor, const std::string& directory)
    : reactor_(reactor) {
  Result<std::unique_ptr<Replica>> opened = Replica::Open(files, reactor, directory);
  status_ = opened.status();
  if (opened.ok()) replica_ = opened.Take();
}

Driver::~Driver() = default;

ReplicaOperation& Driver::Add(OperationKind kind, uint64_t offset, uint64_t length, void* data) {
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

ErrorCode Driver::Run() {
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

ErrorCode Driver::Do(OperationKind kind, uint64_t offset, uint64_t length, void* data,
                     bool durable) {
  Add(kind, offset, length, data).durable = durable;
  return Run();
}

ErrorCode Driver::WriteRecord(const wire::RecordPair& record, wire::Epoch welcomed) {
  ReplicaOperation& operation = Add(OperationKind::kRecord);
  operation.record = record;
  operation.welcomed = welcomed;
  return Run();
}

std::string Driver::ReadAll() {
  std::string all(replica_->size_bytes(), '?');
  for (uint64_t at = 0; at < all.size(); at += kDataBytesMax) {
    const uint64_t length = std::min<uint64_t>(kDataBytesMax, all.size() - at);
    Add(OperationKind::kRead, at, length, all.data() + at).anyway = true;
    EXPECT_EQ(Run(), ErrorCode::kOk);
  }
  return all;
}

bool Driver::Holds(std::string_view content, uint16_t view) {
  static std::string buffer(kDataBytesMax, '\0');
  static const std::string zeros(kDataBytesMax, '\0');
  const uint64_t size_bytes = replica_->size_bytes();
  if (content.size() > size_bytes || (view == 0 && content.size() < size_bytes)) return false;
  for (uint64_t at = 0; at < size_bytes; at += kDataBytesMax) {
    const uint64_t length = std::min<uint64_t>(kDataBytesMax, size_bytes - at);
    const std::string_view expected =
        content.substr(std::min<uint64_t>(at, content.size()), length);
    std::fill_n(buffer.begin(), length, '?');
    ReplicaOperation& read = Add(OperationKind::kRead, at, length, buffer.data());
    read.anyway = view == 0;
    read.view = view;
    if (Run() != ErrorCode::kOk) return false;
    const std::string_view found(buffer.data(), length);
    if (found.substr(0, expected.size()) != expected) return false;
    const std::string_view rest = found.substr(expected.size());
    if (rest != std::string_view(zeros).substr(0, rest.size())) return false;
  }
  return true;
}

Status Driver::Close(bool clean) { return Replica::Close(std::move(replica_), clean); }

void Driver::Drop() { replica_.reset(); }

void WriteText(io::FileSystem& files, const std::string& path, const std::string& text) {
  EXPECT(io::ReplaceFile(files, path, text).ok());
}

}  // namespace ankole::replica
