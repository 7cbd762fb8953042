#pragma once

#include <string>

#include "base/result.h"
#include "io/file_system.h"
#include "replica/longhorn.h"
#include "replica/metadata.h"

// A way in: a directory of Longhorn's becomes a replica here. What is done in which order, and what
// a crash leaves: docs/operating/longhorn.md.
//
// The file `adopted` is there from the beginning of an adoption until somebody confirms that the
// volume may be written to. As long as it is, nothing changes what a layer holds.
namespace ankole::replica {

struct AdoptOptions {
  LonghornOptions longhorn;
  LonghornAccept accept;
};

// Copies Longhorn's files of a directory into another one on any file system, which is made, or
// emptied where it is what an earlier copy left. Its volume.meta is written last.
Status CopyLonghorn(io::FileSystem& files, const std::string& from, const std::string& to,
                    const AdoptOptions& options, const CopyProgress& progress);

// Makes all of a directory such as a replica here may have it: names, whole blocks, the backing
// file a layer. It stays a directory that Longhorn opens, and holds the same. Done again, it goes
// on where it was; done already, it does nothing.
Status PrepareLonghorn(io::FileSystem& files, const std::string& directory,
                       const AdoptOptions& options, const CopyProgress& progress);

// Makes the directory `from` the replica `directory`, by renaming it as the last step: a crash
// leaves either the one, with files in it that Longhorn ignores, or the other. kAlreadyExists where
// `directory` is there. The volume's size is the one that the directory has then.
Status AdoptReplica(io::FileSystem& files, const std::string& from, const std::string& directory,
                    const Identity& identity, uint64_t size_bytes, const AdoptOptions& options);

// Held while a directory is changed, so that two adoptions of it do not meet.
class DirectoryLock {
 public:
  DirectoryLock(io::FileSystem& files, const std::string& directory) : files_(files) {
    Result<io::File> opened =
        files.Open(Join(directory, kLockName), {.write = true, .create = true});
    status_ = opened.status();
    if (!status_.ok()) return;
    file_ = opened.value();
    status_ = files.TryLock(file_);
    if (status_.code() == ErrorCode::kBusy) {
      status_ = {ErrorCode::kBusy, directory + ": another process is at work on it"};
    }
  }
  ~DirectoryLock() {
    if (file_.valid()) files_.Close(file_);
  }
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;
  const Status& status() const { return status_; }

 private:
  io::FileSystem& files_;
  io::File file_;
  Status status_;
};

bool IsAdopted(io::FileSystem& files, const std::string& directory);

// From now on it is written to. kBusy while it is open.
Status ConfirmAdopted(io::FileSystem& files, const std::string& directory);

// Gives a directory that was not confirmed back to where it was, as Longhorn left it but for names
// that were none here. Its lock is held by the caller. kUnsupported for one that was copied: it may
// be deleted.
Status ReleaseAdopted(io::FileSystem& files, const std::string& directory);

}  // namespace ankole::replica
