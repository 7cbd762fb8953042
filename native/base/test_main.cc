#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/test.h"

// Runs the registered native tests: `tests [SUBSTRING]…` runs those whose «suite.name» contains one
// of the words, all without any. The last line counts them.
//
// With `--claims=DIRECTORY` several processes share the tests: each test is run by the one that
// made the file of its name there. scripts/native-tests.mjs runs them so.
namespace ankole::test {
namespace {

struct Entry {
  std::string name;
  Function function;
};

std::vector<Entry>& Entries() {
  static std::vector<Entry> entries;
  return entries;
}

bool failed = false;
std::string skipped;
std::vector<std::string> directories;

}  // namespace

Registration::Registration(const char* suite, const char* name, Function function) {
  Entries().push_back({std::string(suite) + "." + name, function});
}

void Fail(const char* file, int line, std::string_view message) {
  failed = true;
  std::printf("    %s:%d: %.*s\n", file, line, static_cast<int>(message.size()), message.data());
}

std::string Shown::ToString() const {
  switch (kind_) {
    case Kind::kSigned:
      return std::to_string(static_cast<int64_t>(number_));
    case Kind::kUnsigned:
      return std::to_string(number_);
    case Kind::kCharacter:
      return {static_cast<char>(number_)};
    case Kind::kReal: {
      char text[32];
      std::snprintf(text, sizeof(text), "%g", real_);
      return text;
    }
    case Kind::kText:
      break;
  }
  return std::string(text_);
}

void NotTrue(const char* file, int line, const char* text) {
  Fail(file, line, std::string("not true: ") + text);
}

void NotEqual(const char* file, int line, const char* text, const Shown& actual,
              const Shown& expected) {
  Fail(file, line,
       std::string(text) + " is " + actual.ToString() + ", expected " + expected.ToString());
}

void NotOk(const char* file, int line, const char* text, const Status& outcome) {
  Fail(file, line, std::string(text) + ": " + outcome.message());
}

void Skip(const std::string& reason) { skipped = reason; }

std::string TemporaryDirectory() {
  const char* base = std::getenv("TMPDIR");
  std::string path =
      std::string(base != nullptr ? base : "/tmp") + "/ankole-test-" + std::string(6, 'X');
  if (mkdtemp(path.data()) == nullptr) {
    std::perror("mkdtemp");
    std::exit(2);
  }
  directories.push_back(path);
  return path;
}

unsigned long Seed() {
  static const unsigned long seed = [] {
    const char* given = std::getenv("ANKOLE_TEST_SEED");
    return given != nullptr ? std::strtoul(given, nullptr, 10)
                            : static_cast<unsigned long>(std::random_device()());
  }();
  return seed;
}

// Whether this process is the one to run the test. Without a directory it runs all.
bool Claim(const std::string& directory, const std::string& name) {
  if (directory.empty()) return true;
  const std::string path = directory + "/" + name;
  const int fd = open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) {
    if (errno == EEXIST) return false;
    std::perror(path.c_str());
    std::exit(2);
  }
  close(fd);
  return true;
}

int Main(int argc, char** argv) {
  constexpr std::string_view kClaims = "--claims=";
  std::string claims;
  if (argc > 1 && std::string_view(argv[1]).substr(0, kClaims.size()) == kClaims) {
    claims = argv[1] + kClaims.size();
    --argc;
    ++argv;
  }
  // The longest begin first: nobody is to wait for one of them in the end.
  std::stable_partition(Entries().begin(), Entries().end(), [](const Entry& entry) {
    return entry.name.find("stress") != std::string::npos;
  });
  int passed = 0;
  int failures = 0;
  int skips = 0;
  for (const Entry& entry : Entries()) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc; ++i) wanted |= entry.name.find(argv[i]) != std::string::npos;
    if (!wanted || !Claim(claims, entry.name)) continue;
    failed = false;
    skipped.clear();
    const auto start = std::chrono::steady_clock::now();
    std::fflush(stdout);
    entry.function();
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                        std::chrono::steady_clock::now() - start)
                        .count();
    for (const std::string& directory : directories) std::filesystem::remove_all(directory);
    directories.clear();
    if (failed) {
      ++failures;
      std::printf("not ok %s (%lld ms, ANKOLE_TEST_SEED=%lu)\n", entry.name.c_str(),
                  static_cast<long long>(ms), Seed());
    } else if (!skipped.empty()) {
      ++skips;
      std::printf("skip %s: %s\n", entry.name.c_str(), skipped.c_str());
    } else {
      ++passed;
      std::printf("ok %s (%lld ms)\n", entry.name.c_str(), static_cast<long long>(ms));
    }
    std::fflush(stdout);
  }
  std::printf("native: %d passed, %d failed, %d skipped\n", passed, failures, skips);
  // One of several may find that the others have taken all.
  return failures == 0 && (passed > 0 || !claims.empty()) ? 0 : 1;
}

}  // namespace ankole::test

int main(int argc, char** argv) { return ankole::test::Main(argc, argv); }
