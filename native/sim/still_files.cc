#include "sim/still_files.h"

#include <cerrno>

namespace ankole::sim {

Result<io::File> StillFiles::Open(const std::string& path, const io::OpenOptions& options) {
  if (options.create || options.truncate) return Refused();
  InodePtr inode;
  if (const int found = disk_.Lookup(path, &inode); found < 0) {
    return Status::FromErrno(-found, path + ": open");
  }
  if (inode->directory) return Status::FromErrno(EISDIR, path + ": open");
  open_[next_fd_] = inode;
  return io::File{next_fd_++};
}

Result<size_t> StillFiles::ReadAt(io::File file, uint64_t offset_bytes, void* to, size_t bytes) {
  return static_cast<size_t>(disk_.Read(*open_.at(file.fd), offset_bytes, to, bytes));
}

Status StillFiles::Extents(io::File file, uint64_t offset_bytes, uint64_t length_bytes,
                           size_t extents_max, std::vector<io::FileExtent>* extents) {
  disk_.Extents(*open_.at(file.fd), offset_bytes, length_bytes, extents_max, extents);
  return Status::Ok();
}

Result<io::FileInfo> StillFiles::Info(const std::string& path) {
  InodePtr inode;
  if (const int found = disk_.Lookup(path, &inode); found < 0) {
    return Status::FromErrno(-found, path + ": stat");
  }
  return io::FileInfo{inode->size_bytes, disk_.allocated_bytes(*inode), inode->directory};
}

Result<io::FileInfo> StillFiles::Info(io::File file) {
  const Inode& inode = *open_.at(file.fd);
  return io::FileInfo{inode.size_bytes, disk_.allocated_bytes(inode), inode.directory};
}

Result<std::vector<std::string>> StillFiles::List(const std::string& path) {
  InodePtr inode;
  if (const int found = disk_.Lookup(path, &inode); found < 0) {
    return Status::FromErrno(-found, path + ": open directory");
  }
  std::vector<std::string> names;
  for (const auto& [name, entry] : inode->entries) names.push_back(name);
  return names;
}

}  // namespace ankole::sim
