#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "io/file_system.h"
#include "replica/metadata.h"
#include "replica/record_file.h"

// How the directory of a replica comes to be, whatever is in it.
namespace ankole::replica {

// Makes the directory whole or not at all: `fill` is given one beside it that is renamed at the
// end, and that Replica::RemoveLeftovers deletes after a crash. kAlreadyExists.
Status MakeDirectoryWhole(io::FileSystem& files, const std::string& directory,
                          const std::function<Status(const std::string& aside)>& fill);

// All that a replica has but layers under its head, which is empty and stands on `parent` (a file
// name; empty: on none). Durable when it returns, and what is in the directory already with it.
Status FillReplica(io::FileSystem& files, const std::string& directory, const Identity& identity,
                   uint64_t size_bytes, const RecordState& record, const std::string& parent);

// As a replica of that identity and size may be; else kInvalidArgument.
Status CheckIdentity(const Identity& identity, uint64_t size_bytes);

}  // namespace ankole::replica
