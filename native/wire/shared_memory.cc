#include "wire/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace ankole::wire {

Result<std::unique_ptr<SharedMapping>> SharedMapping::Create(const char* name, size_t bytes) {
  const int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return Status::FromErrno(errno, "cannot create shared memory");
  void* memory = MAP_FAILED;
  if (ftruncate(fd, static_cast<off_t>(bytes)) == 0 &&
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
    memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  }
  if (memory == MAP_FAILED) {
    const int error = errno;
    close(fd);
    return Status::FromErrno(error, "cannot map shared memory");
  }
  return std::unique_ptr<SharedMapping>(
      new SharedMapping(fd, static_cast<std::byte*>(memory), bytes));
}

Result<std::unique_ptr<SharedMapping>> SharedMapping::Adopt(int descriptor, uint64_t bytes,
                                                            bool writable) {
  const auto refuse = [&](const std::string& cause) {
    close(descriptor);
    return Status(ErrorCode::kProtocolError, "SHARE: " + cause);
  };
  struct stat info;
  const int seals = fcntl(descriptor, F_GET_SEALS);
  if (seals < 0 || fstat(descriptor, &info) < 0) return refuse("the descriptor is no memfd");
  if ((seals & F_SEAL_SHRINK) == 0) return refuse("the memory is not sealed against shrinking");
  if (bytes == 0 || static_cast<uint64_t>(info.st_size) != bytes) {
    return refuse("the memory does not have the size that was said");
  }
  void* memory = mmap(nullptr, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                      MAP_SHARED | MAP_NORESERVE, descriptor, 0);
  if (memory == MAP_FAILED) return refuse(std::string("cannot map it: ") + std::strerror(errno));
  return std::unique_ptr<SharedMapping>(
      new SharedMapping(descriptor, static_cast<std::byte*>(memory), bytes));
}

SharedMapping::~SharedMapping() {
  munmap(data_, bytes_);
  close(descriptor_);
}

Result<int> ReopenReadOnly(int descriptor) {
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Status::FromErrno(errno, "cannot open shared memory for reading only");
  return fd;
}

void RingConsumer::CopyTo(std::span<std::byte, kHeaderBytes> to) const {
  std::memcpy(to.data(), ring_.entries[index()], kHeaderBytes);
}

}  // namespace ankole::wire
