#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "io/file_system.h"
#include "replica/metadata.h"

// The directory of a disk: `<disk>/replicas/` and the lock that makes one disk host its only one.
// All blocking.
namespace ankole::replica {

inline constexpr std::string_view kReplicasName = "replicas";
inline constexpr std::string_view kDiskLockName = "disk-host.lock";

// One that was found, or that is there and cannot be read.
struct FoundReplica {
  std::string volume;
  wire::ReplicaId id = 0;
  std::string directory;
  Identity identity;  // when `failure` is kOk
  Status failure;
};

// Checks that the disk can be used: it is a directory, is no other disk host's, and takes a durable
// write. Makes `replicas/` where it is missing. The lock is the caller's to close. The failure
// names the directory, and what to do.
Result<io::File> TakeDisk(io::FileSystem& files, const std::string& directory);

// Cleans up what was cut short, then lists what is there. A replica that cannot be read does not
// hide the others; entries that are none are named in `strangers`.
Result<std::vector<FoundReplica>> FindReplicas(io::FileSystem& files, const std::string& directory,
                                               std::vector<std::string>* strangers);

// Who it is, by its files: fills in `identity`, or `failure`.
void ReadFound(io::FileSystem& files, FoundReplica* replica);

std::string ReplicaDirectory(const std::string& disk_directory, const std::string& volume,
                             wire::ReplicaId id);

}  // namespace ankole::replica
