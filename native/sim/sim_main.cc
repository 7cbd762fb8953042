#include <malloc.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "base/mutant.h"
#include "sim/scenario.h"

// sim --seeds N [--from S] [--jobs J]   runs seeds S to S + N - 1, each in a process of its own
// sim --seed S [--block B]              runs one, with a trace, in which is what replicas have of B
// … --mutant NAME                       with that part broken (a build with ANKOLE_MUTANTS)
namespace {

// A run is a fraction of a second; one that goes round in circles is a finding.
constexpr unsigned kSecondsMax = 60;

struct Arguments {
  uint64_t seeds = 0;
  uint64_t from = 1;
  uint64_t seed = 0;
  bool one = false;
  std::optional<uint64_t> block;
  unsigned long jobs = 1;
  bool first = false;  // stop at the first finding
};

bool ParseNumber(const char* text, uint64_t* number) {
  char* end = nullptr;
  errno = 0;
  *number = std::strtoull(text, &end, 10);
  return errno == 0 && end != text && *end == '\0' && text[0] != '-';
}

bool Parse(int argc, char** argv, Arguments* arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--first") {
      arguments->first = true;
      continue;
    }
#ifdef ANKOLE_MUTANTS
    if (name == "--mutant" && i + 1 < argc) {
      ankole::mutant = argv[++i];
      continue;
    }
#endif
    uint64_t number = 0;
    if (i + 1 == argc || !ParseNumber(argv[i + 1], &number)) return false;
    ++i;
    if (name == "--seeds") {
      arguments->seeds = number;
    } else if (name == "--from") {
      arguments->from = number;
    } else if (name == "--jobs" && number > 0 && number <= 256) {
      arguments->jobs = number;
    } else if (name == "--block") {
      arguments->block = number;
    } else if (name == "--seed") {
      arguments->seed = number;
      arguments->one = true;
    } else {
      return false;
    }
  }
  return arguments->one != (arguments->seeds > 0);
}

struct Worker {
  pid_t process = -1;
  int output = -1;
  uint64_t seed = 0;
  std::string text;
};

// What a child tells its parent: counts, and the finding.
struct Counts {
  uint64_t virtual_ns = 0;
  uint64_t events = 0;
  uint64_t answered = 0;
};

Worker Begin(uint64_t seed) {
  int ends[2];
  if (pipe(ends) != 0) {
    std::perror("sim: pipe");
    std::exit(2);
  }
  Worker worker;
  worker.seed = seed;
  std::fflush(stdout);
  worker.process = fork();
  if (worker.process < 0) {
    std::perror("sim: fork");
    std::exit(2);
  }
  if (worker.process == 0) {
    close(ends[0]);
    // What a CHECK has to say is part of the finding.
    dup2(ends[1], STDERR_FILENO);
    const rlimit limit = {kSecondsMax, kSecondsMax + 1};
    (void)setrlimit(RLIMIT_CPU, &limit);
    const ankole::sim::Outcome outcome = ankole::sim::RunSeed(seed, false);
    char line[128];
    std::snprintf(line, sizeof(line), "%llu %llu %llu\n",
                  static_cast<unsigned long long>(outcome.virtual_ns),
                  static_cast<unsigned long long>(outcome.events),
                  static_cast<unsigned long long>(outcome.answered));
    std::string text = line;
    if (!outcome.finding.empty()) text += outcome.finding + "\n  (" + outcome.settings + ")";
    for (size_t done = 0; done < text.size();) {
      const ssize_t put = write(ends[1], text.data() + done, text.size() - done);
      if (put <= 0) break;
      done += static_cast<size_t>(put);
    }
    _exit(outcome.finding.empty() ? 0 : 1);
  }
  close(ends[1]);
  worker.output = ends[0];
  return worker;
}

// True when there was no finding.
bool Ended(Worker* worker, Counts* total) {
  int status = 0;
  while (waitpid(worker->process, &status, 0) < 0 && errno == EINTR) {
  }
  close(worker->output);
  unsigned long long counts[3] = {};
  const bool counted = std::sscanf(worker->text.c_str(), "%llu %llu %llu\n", &counts[0], &counts[1],
                                   &counts[2]) == 3;
  total->virtual_ns += counts[0];
  total->events += counts[1];
  total->answered += counts[2];
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
  std::string why = worker->text;
  if (counted) why = why.substr(std::min(why.size(), why.find('\n') + 1));
  if (WIFSIGNALED(status)) {
    why +=
        WTERMSIG(status) == SIGXCPU
            ? "it did not end within " + std::to_string(kSecondsMax) + " s of the processor's time"
            : std::string("it was ended by the signal ") + strsignal(WTERMSIG(status));
  }
  std::printf("seed %llu: %s\n", static_cast<unsigned long long>(worker->seed), why.c_str());
  std::fflush(stdout);
  return false;
}

int RunMany(const Arguments& arguments) {
  const auto began = std::chrono::steady_clock::now();
  std::vector<Worker> workers;
  uint64_t next = arguments.from;
  uint64_t ran = 0;
  uint64_t findings = 0;
  Counts total;
  bool enough = false;
  while (true) {
    while (!enough && workers.size() < arguments.jobs && next - arguments.from < arguments.seeds) {
      workers.push_back(Begin(next++));
    }
    if (workers.empty()) break;
    std::vector<pollfd> waits;
    waits.reserve(workers.size());
    for (const Worker& worker : workers) waits.push_back({worker.output, POLLIN, 0});
    if (poll(waits.data(), waits.size(), -1) < 0) continue;
    for (size_t i = workers.size(); i-- > 0;) {
      if (waits[i].revents == 0) continue;
      char buffer[4096];
      const ssize_t got = read(workers[i].output, buffer, sizeof(buffer));
      if (got > 0) {
        workers[i].text.append(buffer, static_cast<size_t>(got));
        continue;
      }
      ++ran;
      if (!Ended(&workers[i], &total)) ++findings;
      workers.erase(workers.begin() + static_cast<ptrdiff_t>(i));
    }
    enough = arguments.first && findings > 0;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::printf(
      "%llu seeds, %llu findings, %.0f s of virtual time, %llu requests answered, %llu events, "
      "%.1f seeds/s\n",
      static_cast<unsigned long long>(ran), static_cast<unsigned long long>(findings),
      static_cast<double>(total.virtual_ns) / 1e9, static_cast<unsigned long long>(total.answered),
      static_cast<unsigned long long>(total.events), static_cast<double>(ran) / seconds);
  return findings == 0 ? 0 : 1;
}

// A third of a run's time went into page faults: the heap does not go back to the kernel and is
// made of large pages where there are some. glibc looks at its tunables before main.
void ReserveHeap(char** argv) {
  constexpr int kReserveBytes = 64 << 20;
  (void)mallopt(M_MMAP_THRESHOLD, 1 << 30);
  (void)mallopt(M_TRIM_THRESHOLD, INT_MAX);
  (void)mallopt(M_TOP_PAD, kReserveBytes);
  if (getenv("GLIBC_TUNABLES") != nullptr) return;
  setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", 1);
  (void)execv("/proc/self/exe", argv);
}

int RunOne(uint64_t seed, std::optional<uint64_t> block) {
  const ankole::sim::Outcome outcome = ankole::sim::RunSeed(seed, true, block);
  if (!outcome.finding.empty())
    std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), outcome.finding.c_str());
  std::printf(
      "1 seeds, %d findings, %.3f s of virtual time, %llu requests answered, "
      "fingerprint %016llx\n",
      outcome.finding.empty() ? 0 : 1, static_cast<double>(outcome.virtual_ns) / 1e9,
      static_cast<unsigned long long>(outcome.answered),
      static_cast<unsigned long long>(outcome.fingerprint));
  std::fflush(stdout);
  // What was killed in the run is not destroyed.
  _exit(outcome.finding.empty() ? 0 : 1);
}

}  // namespace

int main(int argc, char** argv) {
  ReserveHeap(argv);
  Arguments arguments;
  if (!Parse(argc, argv, &arguments)) {
    std::fprintf(stderr,
                 "usage: sim --seeds N [--from S] [--jobs J] [--first]   many seeds\n"
                 "       sim --seed S [--block B]                        one, with a trace\n");
    return 2;
  }
  return arguments.one ? RunOne(arguments.seed, arguments.block) : RunMany(arguments);
}
