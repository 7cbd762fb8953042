#include "replica/disk_directory.h"

#include <utility>

#include "replica/replica.h"
#include "wire/hello.h"

namespace ankole::replica {
namespace {

constexpr std::string_view kProbeName = ".disk-host-probe";

// What a person can do about it.
Status Advise(const Status& status, const std::string& directory, const std::string& doing) {
  const std::string what = "disk directory " + directory + ": " + doing + ": " + status.message();
  switch (status.code()) {
    case ErrorCode::kNotFound:
      return {status.code(), what + "; create the directory, or mount the disk there"};
    case ErrorCode::kPermissionDenied:
      return {status.code(), what + "; give the user of this process write permission"};
    case ErrorCode::kReadOnly:
      return {status.code(),
              what +
                  "; look into the kernel's log for why the file system is read-only, "
                  "check it, and mount it for writing"};
    case ErrorCode::kNoSpace:
      return {status.code(), what + "; free space on the file system, or make it larger"};
    case ErrorCode::kIoError:
      return {status.code(), what + "; the disk may be broken: look into the kernel's log"};
    default:
      return {status.code(), what};
  }
}

Status Probe(io::FileSystem& files, const std::string& path) {
  Result<io::File> opened = files.Open(path, {.write = true, .create = true, .truncate = true});
  if (!opened.ok()) return opened.status();
  static constexpr char kText[kBlockBytes] = "a disk host tries to write here\n";
  Status status = files.WriteAt(opened.value(), 0, kText, sizeof(kText));
  if (status.ok()) status = files.Sync(opened.value());
  files.Close(opened.value());
  const Status removed = files.Remove(path);
  return status.ok() ? removed : status;
}

// «<volume>-<id>» taken apart; false for any other name.
bool ParseDirectoryName(const std::string& name, FoundReplica* found) {
  constexpr size_t kSuffix = 17;  // dash and id
  if (name.size() <= kSuffix || name[name.size() - kSuffix] != '-') return false;
  Result<wire::ReplicaId> id = wire::ParseReplicaId(name.substr(name.size() - kSuffix + 1));
  found->volume = name.substr(0, name.size() - kSuffix);
  if (!id.ok() || !wire::IsVolumeName(found->volume)) return false;
  found->id = id.value();
  return true;
}

}  // namespace

Result<io::File> TakeDisk(io::FileSystem& files, const std::string& directory) {
  Result<io::FileInfo> info = files.Info(directory);
  if (!info.ok()) return Advise(info.status(), directory, "it cannot be looked at");
  if (!info.value().directory) {
    return Status(ErrorCode::kInvalidArgument,
                  "disk directory " + directory + " is not a directory; name another one");
  }
  Result<io::File> lock =
      files.Open(Join(directory, kDiskLockName), {.write = true, .create = true});
  if (!lock.ok()) return Advise(lock.status(), directory, "it cannot be written");
  Status status = files.TryLock(lock.value());
  if (status.code() == ErrorCode::kBusy) {
    status = {ErrorCode::kBusy, "disk directory " + directory +
                                    " is served by another disk host; stop that one first"};
  } else if (!status.ok()) {
    status = Advise(status, directory, "it cannot be locked");
  } else {
    status = files.MakeDirectory(Join(directory, kReplicasName));
    if (status.ok() || status.code() == ErrorCode::kAlreadyExists) {
      status = files.SyncDirectory(directory);
    }
    if (status.ok()) status = Probe(files, Join(Join(directory, kReplicasName), kProbeName));
    if (!status.ok()) status = Advise(status, directory, "it cannot be written");
  }
  if (!status.ok()) {
    files.Close(lock.value());
    return status;
  }
  return lock;
}

Result<std::vector<FoundReplica>> FindReplicas(io::FileSystem& files, const std::string& directory,
                                               std::vector<std::string>* strangers) {
  const std::string replicas = Join(directory, kReplicasName);
  if (const Status status = Replica::RemoveLeftovers(files, replicas); !status.ok()) {
    return Advise(status, directory, "leftovers cannot be removed");
  }
  Result<std::vector<std::string>> names = files.List(replicas);
  if (!names.ok()) return Advise(names.status(), directory, "its replicas cannot be listed");
  std::vector<FoundReplica> found;
  for (const std::string& name : names.value()) {
    FoundReplica replica;
    if (!ParseDirectoryName(name, &replica)) {
      strangers->push_back(name);
      continue;
    }
    replica.directory = Join(replicas, name);
    ReadFound(files, &replica);
    found.push_back(std::move(replica));
  }
  return found;
}

void ReadFound(io::FileSystem& files, FoundReplica* replica) {
  Result<ReplicaDescription> description = Replica::Describe(files, replica->directory);
  if (!description.ok()) {
    replica->failure = description.status();
    return;
  }
  const Identity& identity = description.value().identity;
  if (identity.volume != replica->volume || identity.id != replica->id) {
    replica->failure = {
        ErrorCode::kCorrupt,
        replica->directory + ": its " + std::string(kIdentityName) + " is that of another replica"};
    return;
  }
  replica->identity = identity;
  replica->failure = Status::Ok();
}

std::string ReplicaDirectory(const std::string& disk_directory, const std::string& volume,
                             wire::ReplicaId id) {
  return Join(Join(disk_directory, kReplicasName), ReplicaDirectoryName(volume, id));
}

}  // namespace ankole::replica
