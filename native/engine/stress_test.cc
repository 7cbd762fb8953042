#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

#include "engine/engine_testing.h"
#include "engine/register_model.h"

// Random requests of many clients on three real disk hosts whose connections break, hang and end,
// and which leave and come back: each sector is one register, and in the end all are members and
// the same bytes.
namespace ankole::engine::testing {
namespace {

std::vector<char> Contents(const RealReplica& replica) {
  std::ifstream file(replica.head(), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Storm {
 public:
  static constexpr uint64_t kRangeBytes = 6 * kMiB;  // where all of them meet
  static constexpr int kClients = 8;

  explicit Storm(uint64_t seed) : seed_(seed), random_(seed), model_(kRangeBytes) {}

  void Run() {
    lose_ = seed_ % 4 == 1;
    const bool crash = seed_ % 4 == 2;
    bench_.options.late_ns = lose_ ? kNsPerSecond : 60 * kNsPerSecond;
    for (RealReplica*& replica : replicas_) replica = &bench_.AddReal();
    if (!bench_.StartAndWait()) return;
    Round(crash ? 150 : 300, !crash);
    if (crash) {
      bench_.On([this] {
        fenced_ = true;
        for (RealReplica* replica : replicas_) replica->reactor.Wake();
      });
      if (!bench_.TakeOver()) return;
      bench_.On([this] {
        model_.Crash();
        fenced_ = false;
        given_back_.clear();
      });
      Round(150, true);
    }
    if (!bench_.Until([this] { return Whole(); }, 60'000)) {
      Fault("redundancy does not return: " + bench_.State());
    }
    if (!bench_.Stop()) Fault("not closed clean");
    bench_.Finish();
    std::vector<char> first;
    for (const RealReplica* replica : replicas_) {
      const std::vector<char> contents = Contents(*replica);
      if (contents.size() != Bench::kSizeBytes) Fault("a head of another size");
      if (first.empty()) first = contents;
      if (contents != first) Fault("the replicas differ");
    }
  }
  bool failed() const { return failed_; }

 private:
  void Fault(const std::string& what) {
    if (failed_) return;
    failed_ = true;
    test::Fail(__FILE__, __LINE__, "seed " + std::to_string(seed_) + ": " + what);
  }
  uint64_t Pick(uint64_t below) { return random_() % below; }

  void Round(int operations, bool to_the_end) {
    left_ = operations;
    running_ = 0;
    bench_.On([this] {
      for (int i = 0; i < kClients; ++i) Next();
    });
    const bool ended = bench_.Until(
        [this, to_the_end] {
          Disturb();
          return running_ == 0 || (!to_the_end && left_ == 0);
        },
        60'000);
    if (!ended) Fault("stuck: " + bench_.State());
    bench_.On([this] {
      for (RealReplica* replica : replicas_) replica->reactor.Wake();
      lost_ = nullptr;
    });
  }
  // All are members, and none differs from another any more.
  bool Whole() {
    const Json counters = bench_.engine->CountersJson();
    return bench_.engine->Report().record.members.count == 3 &&
           counters.Integer("unequalRegions", 0, 1000).Take() == 0;
  }

  // Once a millisecond.
  void Disturb() {
    if (lost_ != nullptr) {
      // It has left, and is back after a while, in the middle of all that goes on.
      if (bench_.engine->Report().record.members.count == 2 && Pick(100) == 0) {
        std::exchange(lost_, nullptr)->reactor.Wake();
      }
      return;
    }
    RealReplica* replica = replicas_[Pick(3)];
    switch (Pick(40)) {
      case 0:
        replica->reactor.BreakConnections();
        break;
      case 1:
        replica->reactor.Hang();
        break;
      case 2:
      case 3:
      case 4:
        replica->reactor.Wake();
        break;
      case 5:
        // One is lost, and until it is back all else must hold: no more than the promise.
        if (lose_ && bench_.engine->Report().record.members.count == 3) {
          for (RealReplica* other : replicas_) other->reactor.Wake();
          lost_ = replica;
          lost_->reactor.Hang();
        }
        break;
      default:
        break;
    }
  }

  void Next() {
    if (left_ == 0 || failed_) return;
    --left_;
    ++running_;
    uint64_t length = kSectorBytes << Pick(12);
    length = std::min<uint64_t>(RoundUp(length + Pick(length), kSectorBytes), kDataBytesMax);
    const uint64_t offset = RoundDown(Pick(kRangeBytes - length + 1), kSectorBytes);
    const uint64_t kind = Pick(100);
    BlockOperation operation = BlockOperation::kStatus;
    if (kind < 45) {
      operation = BlockOperation::kWrite;
    } else if (kind < 80) {
      operation = BlockOperation::kRead;
    } else if (kind < 87) {
      operation = BlockOperation::kZero;
    } else if (kind < 93) {
      operation = BlockOperation::kUnmap;
    } else if (kind < 98) {
      operation = BlockOperation::kFlush;
    }
    const bool flush = operation == BlockOperation::kFlush;
    const bool changes = operation == BlockOperation::kWrite ||
                         operation == BlockOperation::kZero || operation == BlockOperation::kUnmap;
    const uint64_t began = model_.Now();
    const uint32_t value = operation == BlockOperation::kWrite ? ++values_ : 0;
    if (changes) model_.WriteBegins(offset, length, value, began);
    auto then = [this, offset, length, began, changes](Request* request) {
      --running_;
      Finished(request, offset, length, began, changes);
      if (request->chunk != nullptr) {
        // What comes now is somebody else's.
        std::memset(request->data, 0x5a, request->length_bytes);
        if (given_back_.size() < 16) given_back_.push_back(request);
        for (const Request* old : given_back_) {
          if (!Untouched(old)) Fault("a buffer was written after it was given back");
        }
        if (given_back_.size() == 16) given_back_.erase(given_back_.begin());
      }
      Next();
    };
    Request* request =
        bench_.SubmitHere(operation, flush ? 0 : offset, flush ? 0 : static_cast<uint32_t>(length),
                          0, [&](Request* made) {
                            made->force_unit_access = changes && Pick(10) == 0;
                            if (operation == BlockOperation::kWrite) {
                              RegisterModel::Fill(made->data, offset, length, value);
                            }
                          });
    request->then = then;
  }
  static bool Untouched(const Request* request) {
    for (uint64_t i = 0; i < request->length_bytes; i += 509) {
      if (request->data[i] != std::byte{0x5a}) return false;
    }
    return true;
  }

  void Finished(Request* request, uint64_t offset, uint64_t length, uint64_t began, bool changes) {
    if (fenced_ && request->status == ErrorCode::kFenced) return;
    if (request->status != ErrorCode::kOk) {
      Fault(std::string("a request failed: ") + ErrorCodeName(request->status));
      return;
    }
    if (changes) model_.WriteEnds(offset, length, began, model_.Now());
    if (request->operation != BlockOperation::kRead) return;
    const std::string fault = model_.Check(offset, request->data, length, began);
    if (!fault.empty()) Fault(fault);
  }

  const uint64_t seed_;
  std::mt19937_64 random_;
  RegisterModel model_;
  Bench bench_;
  std::array<RealReplica*, 3> replicas_ = {};
  RealReplica* lost_ = nullptr;
  bool lose_ = false;
  bool fenced_ = false;
  bool failed_ = false;
  int left_ = 0;
  int running_ = 0;
  uint32_t values_ = 0;
  std::vector<Request*> given_back_;
};

// ANKOLE_TEST_SEEDS: how many (20, with a sanitizer fewer); ANKOLE_TEST_FIRST_SEED: from which on
// (1).
TEST(engine_stress, EachSectorIsOneRegisterAndTheReplicasAreEqual) {
  const char* count = std::getenv("ANKOLE_TEST_SEEDS");
  const char* first = std::getenv("ANKOLE_TEST_FIRST_SEED");
  const uint64_t from = first != nullptr ? std::strtoull(first, nullptr, 10) : 1;
  const uint64_t seeds = count != nullptr ? std::strtoull(count, nullptr, 10)
                                          : (test::kShare == 1 ? 20 : 14 / test::kShare + 4);
  for (uint64_t seed = from; seed < from + seeds; ++seed) {
    Storm storm(seed);
    storm.Run();
    if (storm.failed()) return;
  }
}

}  // namespace
}  // namespace ankole::engine::testing
