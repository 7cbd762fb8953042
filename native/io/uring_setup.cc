#include "io/uring_setup.h"

#include "io/uring_reactor.h"

#ifdef ANKOLE_HAVE_LIBURING

#include <fcntl.h>
#include <liburing.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace ankole::io {
namespace {

// What the back end uses, and cannot do without.
constexpr int kOperations[] = {IORING_OP_READ,    IORING_OP_WRITE,    IORING_OP_READV,
                               IORING_OP_WRITEV,  IORING_OP_RECV,     IORING_OP_RECVMSG,
                               IORING_OP_SENDMSG, IORING_OP_ACCEPT,   IORING_OP_CONNECT,
                               IORING_OP_FSYNC,   IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL};
// NODROP: completions are never lost. EXT_ARG: one call submits and waits with a timeout.
// FAST_POLL: sockets wait without a thread. SUBMIT_STABLE: headers may change once submitted.
constexpr unsigned kFeatures =
    IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_FAST_POLL | IORING_FEAT_SUBMIT_STABLE;

Status Failed(int error, const char* what) {
  Status status = Status::FromErrno(-error, what);
  return {ErrorCode::kUnsupported, status.message()};
}

// Submits what is prepared and gives the result of the one completion.
int RunOne(io_uring* ring) {
  int error = io_uring_submit_and_wait(ring, 1);
  if (error < 0) return error;
  io_uring_cqe* cqe = nullptr;
  error = io_uring_wait_cqe(ring, &cqe);
  if (error < 0) return error;
  const int result = cqe->res;
  io_uring_cqe_seen(ring, cqe);
  return result;
}

Status TryFile(io_uring* ring, int fd) {
  constexpr char kText[] = "is io_uring of use here?";
  char back[sizeof(kText)] = {};
  io_uring_prep_write(io_uring_get_sqe(ring), fd, kText, sizeof(kText), 0);
  int result = RunOne(ring);
  if (result < 0) return Failed(result, "a write failed");
  io_uring_prep_fsync(io_uring_get_sqe(ring), fd, 0);
  result = RunOne(ring);
  if (result < 0) return Failed(result, "an fsync failed");
  io_uring_prep_read(io_uring_get_sqe(ring), fd, back, sizeof(back), 0);
  result = RunOne(ring);
  if (result < 0) return Failed(result, "a read failed");
  if (result != sizeof(kText) || std::memcmp(back, kText, sizeof(kText)) != 0) {
    return {ErrorCode::kUnsupported, "a read did not give what was written"};
  }
  return {};
}

Status TryRing(io_uring* ring, const std::string& directory) {
  if ((ring->features & kFeatures) != kFeatures) {
    return {ErrorCode::kUnsupported, "the kernel is too old (features)"};
  }
  io_uring_probe* const probe = io_uring_get_probe_ring(ring);
  if (probe == nullptr) return {ErrorCode::kUnsupported, "the kernel is too old (no probe)"};
  bool all = true;
  for (const int operation : kOperations) all &= io_uring_opcode_supported(probe, operation) != 0;
  io_uring_free_probe(probe);
  if (!all) return {ErrorCode::kUnsupported, "the kernel is too old (operations)"};

  int fd;
  if (directory.empty()) {
    fd = memfd_create("ankole-probe", MFD_CLOEXEC);
    if (fd < 0) return Failed(-errno, "memfd_create");
  } else {
    std::string path = directory + "/.ankole-probe-" + std::string(6, 'X');
    fd = mkostemp(path.data(), O_CLOEXEC);
    if (fd < 0) return Failed(-errno, (path + ": create").c_str());
    (void)unlink(path.c_str());
  }
  const Status status = TryFile(ring, fd);
  close(fd);
  return directory.empty() ? status : status.Within(directory);
}

}  // namespace

Status ProbeUring(const std::string& directory) {
  io_uring ring = {};
  const int error = io_uring_queue_init(8, &ring, 0);
  if (error < 0) return Failed(error, "io_uring_setup");
  const Status status = TryRing(&ring, directory);
  io_uring_queue_exit(&ring);
  return status;
}

Status SetUpRing(io_uring* ring, bool* enabled) {
  // Completions are worked off when this thread asks, not by interrupting it. Best first; kernels
  // before 6.1, 6.0 and 5.19 lack some.
  constexpr unsigned kOneThread =
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL;
  constexpr unsigned kSets[] = {kOneThread | IORING_SETUP_DEFER_TASKRUN,
                                kOneThread | IORING_SETUP_COOP_TASKRUN,
                                IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL, 0};
  int error = -EINVAL;
  for (const unsigned flags : kSets) {
    io_uring_params parameters = {};
    parameters.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    parameters.cq_entries = kCompletionsMax;
    error = io_uring_queue_init_params(kSubmissionsMax, ring, &parameters);
    if (error == -EINVAL) continue;
    if (error < 0) break;
    *enabled = (flags & IORING_SETUP_R_DISABLED) == 0;
    return {};
  }
  return Failed(error, "io_uring_setup");
}

}  // namespace ankole::io

#else

namespace ankole::io {

Status ProbeUring(const std::string&) {
  return {ErrorCode::kUnsupported, "built without liburing"};
}

}  // namespace ankole::io

#endif
