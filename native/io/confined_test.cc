#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "io/reactor_testing.h"

// What the I/O seam does in a container that forbids part of it, tried in child processes.
namespace ankole::io {
namespace {

// From here on this process's `calls` fail with `error`. For the life of the process.
bool Forbid(std::initializer_list<int> calls, int error) {
  std::vector<sock_filter> program;
  program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
  for (const int call : calls) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0, 1));
    program.push_back(
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (static_cast<unsigned>(error) & 0xffff)));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter = {.len = static_cast<unsigned short>(program.size()),
                             .filter = program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// Exit codes of a child.
constexpr int kPassed = 0;
constexpr int kFailed = 1;
constexpr int kNoSeccomp = 77;

int InChild(const std::function<int()>& body) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child < 0) return kFailed;
  if (child == 0) _exit(body());
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(io_confined, all_tests_pass_where_io_uring_is_forbidden) {
  if (std::getenv("ANKOLE_TEST_CONFINED") != nullptr) return test::Skip("is the confined one");
  const int code = InChild([] {
    if (!Forbid({SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register}, EPERM)) {
      return kNoSeccomp;
    }
    setenv("ANKOLE_TEST_CONFINED", "1", 1);
    // Its output is of interest only when it fails.
    const std::string path = test::TemporaryDirectory() + "/out";
    dup2(open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600), STDOUT_FILENO);
    const int result = InChild([] {
      execl("/proc/self/exe", "tests", "io_reactor", "io_socket", "io_file", nullptr);
      return kFailed;
    });
    if (result != kPassed) (void)!system(("cat " + path + " >&2").c_str());
    (void)!system(("rm -r " + path.substr(0, path.rfind('/'))).c_str());
    return result;
  });
  if (code == kNoSeccomp) return test::Skip("no seccomp filter can be set here");
  EXPECT_EQ(code, kPassed);
}

TEST(io_confined, auto_takes_epoll_where_io_uring_is_forbidden_and_says_why) {
  const std::string directory = test::TemporaryDirectory();
  const int code = InChild([&] {
    if (!Forbid({SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register}, EPERM)) {
      return kNoSeccomp;
    }
    auto made = MakeReactor({.backend = Backend::kAuto, .probe_directory = directory});
    if (!made.ok() || made.value()->backend().backend != Backend::kEpoll) return kFailed;
    const std::string& reason = made.value()->backend().reason;
    std::printf("    %s\n", reason.c_str());
    std::fflush(stdout);
#ifdef ANKOLE_HAVE_LIBURING
    if (reason.find("not permitted") == std::string::npos) return kFailed;
#endif
    auto asked = MakeReactor({.backend = Backend::kUring, .probe_directory = directory});
    if (asked.ok() || asked.status().code() != ErrorCode::kUnsupported) return kFailed;
    return kPassed;
  });
  if (code == kNoSeccomp) return test::Skip("no seccomp filter can be set here");
  EXPECT_EQ(code, kPassed);
}

// Runs a few jobs and a timer on an epoll reactor. Whether all went well.
bool JobsAndTimerWork(bool on_this_thread) {
  auto made = MakeReactor({.backend = Backend::kEpoll, .probe_directory = ""});
  if (!made.ok()) return false;
  Reactor& reactor = *made.value();
  static bool here;
  here = true;
  static pthread_t loop;
  loop = pthread_self();
  With<Job> job;
  job.work = [](Job* self) {
    here = here && pthread_equal(pthread_self(), loop);
    self->result += 1;
  };
  With<Timer> timer;
  job.then = [&](auto& self) {
    if (self.runs < 3) return reactor.Run(&self);
    reactor.Arm(&timer, reactor.NowNs() + 1'500'000);
  };
  bool early = false;
  timer.then = [&](auto& self) {
    early = reactor.NowNs() < self.deadline_ns;
    reactor.Stop();
  };
  reactor.Run(&job);
  if (job.runs != 0) return false;  // from within the call
  reactor.Loop();
  return job.runs == 3 && timer.runs == 1 && !early && here == on_this_thread;
}

TEST(io_confined, jobs_run_on_the_loop_where_no_thread_can_be_started) {
#if defined(__SANITIZE_THREAD__)
  return test::Skip("ThreadSanitizer needs a thread of its own");
#endif
  const int code = InChild([] {
    if (!Forbid({SYS_clone, SYS_clone3}, EAGAIN)) return kNoSeccomp;
    return JobsAndTimerWork(true) ? kPassed : kFailed;
  });
  if (code == kNoSeccomp) return test::Skip("no seccomp filter can be set here");
  EXPECT_EQ(code, kPassed);
}

TEST(io_confined, timers_work_without_epoll_pwait2) {
  const int code = InChild([] {
    if (!Forbid({SYS_epoll_pwait2}, ENOSYS)) return kNoSeccomp;
    return JobsAndTimerWork(false) ? kPassed : kFailed;
  });
  if (code == kNoSeccomp) return test::Skip("no seccomp filter can be set here");
  EXPECT_EQ(code, kPassed);
}

// Old file systems and kernels: each read and each durable write takes the long way.
TEST(io_confined, files_work_without_preadv2_and_pwritev2) {
  const std::string path = test::TemporaryDirectory() + "/file";
  const int code = InChild([&] {
    if (!Forbid({SYS_preadv2, SYS_pwritev2}, EOPNOTSUPP)) return kNoSeccomp;
    auto made = MakeReactor({.backend = Backend::kEpoll, .probe_directory = ""});
    if (!made.ok()) return kFailed;
    Reactor& reactor = *made.value();
    auto file = reactor.files().Open(path, {.write = true, .create = true});
    if (!file.ok()) return kFailed;
    char out[] = "data";
    for (const bool once : {false, true}) {
      char in[sizeof(out)] = {};
      With<FileOperation> operation;
      operation.file = file.value();
      operation.vectors[0] = {out, sizeof(out)};
      operation.vectors_count = 1;
      operation.durable = true;
      operation.once = once;
      reactor.Write(&operation);
      RunAll(reactor);
      if (operation.result != sizeof(out)) return kFailed;
      operation.vectors[0] = {in, sizeof(in)};
      reactor.Read(&operation);
      RunAll(reactor);
      if (operation.result != sizeof(in) || std::string(in) != "data") return kFailed;
      std::memset(in, 0, sizeof(in));
      const Result<size_t> got = reactor.files().ReadOnce(file.value(), 0, in, sizeof(in));
      if (!got.ok() || got.value() != sizeof(in) || std::string(in) != "data") return kFailed;
    }
    reactor.files().Close(file.value());
    return kPassed;
  });
  if (code == kNoSeccomp) return test::Skip("no seccomp filter can be set here");
  EXPECT_EQ(code, kPassed);
}

}  // namespace
}  // namespace ankole::io
