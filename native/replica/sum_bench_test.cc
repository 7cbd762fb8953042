#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "base/crc32c.h"
#include "io/reactor_testing.h"
#include "replica/replica_testing.h"

// What checksums at rest cost a replica, with them and without in turn: CPU time of each kind of
// I/O on data in the page cache, at queue depth 32. The replica is a part of the way only, so the
// ratios are upper bounds of what a client sees. Runs only when asked for: ANKOLE_BENCH=1 tests
// sum_bench. ANKOLE_BENCH_DIRECTORY says where.
namespace ankole::replica {
namespace {

constexpr uint64_t kSize = 1 * kGiB;
constexpr size_t kDepth = 32;
constexpr int kRounds = 7;

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

struct Kind {
  const char* name;
  OperationKind kind;
  uint32_t bytes;
  bool random;
  int count;
  bool table;  // writes: the checksums come along, as from an engine
};

class Load {
 public:
  Load(io::Reactor& reactor, const std::string& directory, bool checksums) : reactor_(reactor) {
    Identity identity = TestIdentity();
    identity.checksums = checksums;
    EXPECT(Replica::Destroy(reactor.files(), directory).ok());
    EXPECT(Replica::Create(reactor.files(), directory, identity, kSize).ok());
    replica_ = Replica::Open(reactor.files(), reactor, directory).Take();
    for (size_t i = 0; i < kDepth; ++i) {
      data_[i].resize(kDataBytesMax, static_cast<char>(i));
      tables_[i].resize(kDataBytesMax / kBlockBytes);
      Crc32cBlocks(data_[i].data(), 0, kDataBytesMax, tables_[i].data());
    }
  }

  // Microseconds of CPU for each.
  double Run(const Kind& kind) {
    kind_ = kind;
    left_ = kind.count;
    done_ = 0;
    next_ = 0;
    const double before = CpuSeconds();
    for (size_t i = 0; i < kDepth; ++i) Submit(i);
    reactor_.Loop();
    return (CpuSeconds() - before) * 1e6 / kind.count;
  }

 private:
  void Submit(size_t i) {
    --left_;
    ReplicaOperation& operation = operations_[i];
    operation.kind = kind_.kind;
    operation.length_bytes = kind_.bytes;
    const uint64_t places = kSize / kind_.bytes;
    operation.offset_bytes = (kind_.random ? random_() : next_++) % places * kind_.bytes;
    operation.data = reinterpret_cast<std::byte*>(data_[i].data());
    operation.checksums = kind_.table ? tables_[i].data() : nullptr;
    operation.owner = this;
    operation.done = [](ReplicaOperation* self) {
      auto* load = static_cast<Load*>(self->owner);
      EXPECT_EQ(self->status, ErrorCode::kOk);
      const auto index = static_cast<size_t>(self - load->operations_.data());
      if (load->left_ > 0) load->Submit(index);
      if (++load->done_ == load->kind_.count) load->reactor_.Stop();
    };
    replica_->Submit(&operation);
  }

  io::Reactor& reactor_;
  std::unique_ptr<Replica> replica_;
  Kind kind_ = {};
  int left_ = 0;
  int done_ = 0;
  uint64_t next_ = 0;
  std::mt19937_64 random_{1};
  std::array<std::string, kDepth> data_;
  std::array<std::vector<uint32_t>, kDepth> tables_;
  std::array<ReplicaOperation, kDepth> operations_;
};

TEST(sum_bench, with_and_without_checksums) {
  if (std::getenv("ANKOLE_BENCH") == nullptr) return test::Skip("set ANKOLE_BENCH=1 to measure");
  auto made = io::MakeReactor(
      {.backend = io::Backend::kEpoll, .probe_directory = test::TemporaryDirectory()});
  ASSERT_OK(made);
  io::Reactor& reactor = *made.value();
  const char* given = std::getenv("ANKOLE_BENCH_DIRECTORY");
  const std::string where = given == nullptr ? test::TemporaryDirectory() : std::string(given);
  Load with(reactor, where + "/with", true);
  Load without(reactor, where + "/without", false);
  constexpr Kind kKinds[] = {
      {"sequential write 1 MiB", OperationKind::kWrite, kDataBytesMax, false, 1024, true},
      {"random write 4 KiB", OperationKind::kWrite, 4096, true, 100'000, true},
      {"random read 4 KiB", OperationKind::kRead, 4096, true, 100'000, false},
      {"random read 64 KiB", OperationKind::kRead, 65536, true, 20'000, false},
      {"sequential read 1 MiB", OperationKind::kRead, kDataBytesMax, false, 1024, false},
  };
  for (const Kind& kind : kKinds) {
    std::vector<double> ratios;
    std::vector<double> costs;
    for (int round = 0; round < kRounds; ++round) {
      const double off = without.Run(kind);
      const double on = with.Run(kind);
      ratios.push_back(on / off);
      costs.push_back(on - off);
    }
    std::sort(ratios.begin(), ratios.end());
    std::sort(costs.begin(), costs.end());
    std::printf("%-24s CPU with/without: %.3f (%.3f to %.3f), %+.2f us each\n", kind.name,
                ratios[kRounds / 2], ratios.front(), ratios.back(), costs[kRounds / 2]);
  }
}

}  // namespace
}  // namespace ankole::replica
