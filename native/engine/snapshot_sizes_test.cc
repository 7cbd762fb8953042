#include <algorithm>
#include <string>
#include <vector>

#include "engine/snapshot_testing.h"

// A volume does not become larger while a snapshot is taken, nor the other way round: the one waits
// for the other, for a while.
namespace ankole::engine::testing {
namespace {

using wire::Opcode;

constexpr uint64_t kSize = Bench::kSizeBytes;
constexpr uint64_t kLarger = 2 * kSize + 8192;

Judge::Function HoldAll(Opcode opcode) {
  return [opcode](const wire::Header& header) { return Hold(header.opcode == opcode); };
}

template <size_t kCount>
struct Sizes : Snapshots<kCount> {
  using Snapshots<kCount>::bench;
  using Snapshots<kCount>::replicas;

  explicit Sizes(uint64_t late_ms = 20'000) : Snapshots<kCount>(late_ms) {}
  Status Expand(uint64_t size_bytes = kLarger, const std::string& id = "one") {
    Status status;
    bench.On([&] { status = bench.engine->Expand(id, size_bytes); });
    return status;
  }
  bool WaitFor(ExpansionState state) {
    const bool met = bench.Until([&] { return bench.expansion.state == state; });
    if (!met) test::Fail(__FILE__, __LINE__, "the expansion: " + Said());
    return met;
  }
  std::string Said() {
    std::string said;
    bench.On([&] {
      said = std::string(ErrorCodeName(bench.expansion.status.code())) + ": " +
             bench.expansion.status.message();
    });
    return said;
  }
  uint64_t Size() {
    uint64_t size_bytes = 0;
    bench.On([&] { size_bytes = bench.engine->size_bytes(); });
    return size_bytes;
  }
  bool WaitForAsked(size_t i, Opcode opcode, int count = 1) {
    return bench.Until([&] { return replicas[i]->asked(opcode) >= count; });
  }
  bool WaitForMembers(size_t count) {
    return bench.Until([&] { return bench.engine->Report().record.members.count == count; });
  }
  void Go(size_t i) {
    bench.On([&] {
      replicas[i]->verdict = nullptr;
      replicas[i]->Release();
    });
  }
};

TEST(snapshot_sizes, AnExpansionWaitsForTheSnapshotThatIsTaken) {
  for (const Opcode held : {Opcode::kPrepare, Opcode::kRecord, Opcode::kSeal}) {
    Sizes<2> volume;
    ASSERT(volume.bench.StartAndWait());
    volume[1].verdict = HoldAll(held);
    Asked* monday = volume.Begin("monday");
    ASSERT(volume.WaitForAsked(1, held, held == Opcode::kRecord ? 2 : 1));
    ASSERT_OK(volume.Expand());
    EXPECT(volume.bench.Never([&] { return volume[0].asked(Opcode::kExpand) > 0; }, 300));
    EXPECT_EQ(volume.Said(), "busy: a snapshot is being taken");
    // The same again joins it, another size does not.
    ASSERT_OK(volume.Expand(kLarger, "two"));
    EXPECT(volume.Expand(kLarger + 4096, "three").code() == ErrorCode::kBusy);
    volume.Go(1);
    ASSERT(volume.Wait(monday));
    EXPECT(Good(monday->status));
    ASSERT(volume.WaitFor(ExpansionState::kDone));
    EXPECT(volume.bench.expansion.id == "two");
    EXPECT_EQ(volume.Size(), kLarger);
    EXPECT(volume.bench.At("seal monday at 11") <
           volume.bench.At("expand " + std::to_string(kLarger) + " at 10"));
    EXPECT_EQ(volume.Layers(0), "monday");
    EXPECT(Good(volume.Take("tuesday")));
  }
}

TEST(snapshot_sizes, AnExpansionDoesNotWaitForEver) {
  Sizes<2> volume;
  ASSERT(volume.bench.StartAndWait());
  volume[1].verdict = HoldAll(Opcode::kSeal);
  Asked* monday = volume.Begin("monday");
  ASSERT(volume.WaitForAsked(1, Opcode::kSeal));
  ASSERT_OK(volume.Expand());
  ASSERT(volume.WaitFor(ExpansionState::kFailed));
  EXPECT_EQ(volume.Said(), "busy: a snapshot is being taken");
  volume.bench.On([&] { EXPECT_EQ(volume[0].asked(Opcode::kExpand), 0); });
  EXPECT_EQ(volume.Size(), kSize);
  volume.Go(1);
  ASSERT(volume.Wait(monday));
  EXPECT(Good(monday->status));
  ASSERT_OK(volume.Expand(kLarger, "two"));
  ASSERT(volume.WaitFor(ExpansionState::kDone));
  EXPECT_EQ(volume.Size(), kLarger);
}

TEST(snapshot_sizes, ASnapshotWaitsForTheExpansion) {
  Sizes<2> volume;
  ASSERT(volume.bench.StartAndWait());
  volume[1].verdict = HoldAll(Opcode::kExpand);
  ASSERT_OK(volume.Expand());
  ASSERT(volume.WaitForAsked(1, Opcode::kExpand));
  Asked* monday = volume.Begin("monday");
  EXPECT(volume.bench.Never([&] { return volume[0].asked(Opcode::kPrepare) > 0; }, 300));
  volume.Go(1);
  ASSERT(volume.Wait(monday));
  EXPECT(Good(monday->status));
  EXPECT_EQ(volume.Size(), kLarger);
  EXPECT(volume.bench.At("size " + std::to_string(kLarger) + " done") <
         volume.bench.At("prepare monday at 10"));
  EXPECT(volume.SameViews("monday"));
}

TEST(snapshot_sizes, ASnapshotDoesNotWaitForEver) {
  Sizes<2> volume;
  ASSERT(volume.bench.StartAndWait());
  volume[1].verdict = HoldAll(Opcode::kExpand);
  ASSERT_OK(volume.Expand());
  ASSERT(volume.WaitForAsked(1, Opcode::kExpand));
  const Status status = volume.Take("monday");
  EXPECT(status.code() == ErrorCode::kBusy);
  EXPECT_EQ(status.message(), "snapshot monday: the volume is becoming larger");
  volume.Go(1);
  ASSERT(volume.WaitFor(ExpansionState::kDone));
  EXPECT(Good(volume.Take("monday")));
  EXPECT_EQ(volume.Layers(1), "monday");
}

// Snapshots that are asked for one after the other keep no expansion from being carried out.
TEST(snapshot_sizes, AnExpansionThatWaitsGoesBeforeTheNextSnapshot) {
  Sizes<2> volume;
  ASSERT(volume.bench.StartAndWait());
  volume[1].verdict = HoldAll(Opcode::kSeal);
  Asked* monday = volume.Begin("monday");
  Asked* tuesday = volume.Begin("tuesday");
  ASSERT(volume.WaitForAsked(1, Opcode::kSeal));
  ASSERT_OK(volume.Expand());
  volume.Go(1);
  ASSERT(volume.Wait(monday) && volume.Wait(tuesday));
  EXPECT(Good(monday->status) && Good(tuesday->status));
  const size_t expanded = volume.bench.At("expand " + std::to_string(kLarger) + " at 10");
  EXPECT(volume.bench.At("seal monday at 10") < expanded);
  EXPECT(expanded < volume.bench.At("prepare tuesday at 10"));
}

// One member has refused, another one may still be at it: what is prepared there would be dropped.
TEST(snapshot_sizes, AnExpansionThatFailedIsOverWhenAllHaveAnswered) {
  Sizes<2> volume;
  ASSERT(volume.bench.StartAndWait());
  volume[0].verdict = HoldAll(Opcode::kExpand);
  volume[1].verdict = [](const wire::Header& header) {
    return FailWith(header.opcode == Opcode::kExpand, ErrorCode::kNoSpace);
  };
  ASSERT_OK(volume.Expand());
  ASSERT(volume.WaitFor(ExpansionState::kFailed));
  Asked* monday = volume.Begin("monday");
  EXPECT(volume.bench.Never([&] { return volume[0].asked(Opcode::kPrepare) > 0; }, 300));
  volume.Go(0);
  ASSERT(volume.Wait(monday));
  EXPECT(Good(monday->status));
  EXPECT_EQ(volume.Size(), kSize);
}

// A snapshot that failed may leave a prepared head: it is of the size before.
TEST(snapshot_sizes, WhatAFailedSnapshotPreparedIsNotUsed) {
  Sizes<2> volume;
  ASSERT(volume.bench.StartAndWait());
  volume[1].verdict = [](const wire::Header& header) {
    return FailWith(header.opcode == Opcode::kPrepare, ErrorCode::kNoSpace);
  };
  EXPECT(volume.Take("monday").code() == ErrorCode::kNoSpace);
  volume.Go(1);
  ASSERT_OK(volume.Expand());
  ASSERT(volume.WaitFor(ExpansionState::kDone));
  volume.bench.On([&] { EXPECT(!volume[0].prepared.has_value()); });
  EXPECT(Good(volume.Take("monday")));
  EXPECT_EQ(volume.Layers(0), "monday");
}

// --- a replica that was away
// --------------------------------------------------------------------------------------------

TEST(snapshot_sizes, AJoinerGrowsBeforeItsSnapshotsAreCompared) {
  std::vector<Opcode> frames;  // of the reactor's thread
  Sizes<3> volume(300);
  ASSERT(volume.bench.StartAndWait());
  EXPECT(Good(volume.Take("monday")));
  volume.bench.On([&] { volume[2].Unlisten(); });
  ASSERT(volume.WaitForMembers(2));
  ASSERT_OK(volume.Expand());
  ASSERT(volume.WaitFor(ExpansionState::kDone));
  ASSERT(volume.bench.Write(kLarger - 8192, 8192, 3) == ErrorCode::kOk);
  volume[2].verdict = [&](const wire::Header& header) {
    frames.push_back(header.opcode);
    return Verdict{};
  };
  volume.bench.On([&] { volume[2].Listen(); });
  ASSERT(volume.WaitForMembers(3));
  volume.bench.On([&] {
    const auto expand = std::find(frames.begin(), frames.end(), Opcode::kExpand);
    const auto layers = std::find(frames.begin(), frames.end(), Opcode::kLayers);
    const auto maps = std::find(frames.begin(), frames.end(), Opcode::kMap);
    EXPECT(expand < layers && layers < maps && maps != frames.end());
    EXPECT(volume[2].data == volume[0].data);
    volume[2].verdict = nullptr;
  });
  EXPECT(Good(volume.Take("tuesday")));
  EXPECT_EQ(volume.Layers(2), "monday, tuesday");
}

// While it is asked for its snapshots it is none of those that have just been made larger.
TEST(snapshot_sizes, AJoinerGrowsWhileItsSnapshotsAreCompared) {
  Sizes<3> volume(300);
  ASSERT(volume.bench.StartAndWait());
  EXPECT(Good(volume.Take("monday")));
  volume.bench.On([&] { volume[2].Unlisten(); });
  ASSERT(volume.WaitForMembers(2));
  int layers_before = 0;
  volume.bench.On([&] {
    layers_before = volume[2].asked(Opcode::kLayers);
    volume[2].verdict = HoldAll(Opcode::kLayers);
    volume[2].Listen();
  });
  ASSERT(volume.WaitForAsked(2, Opcode::kLayers, layers_before + 1));
  ASSERT_OK(volume.Expand());
  ASSERT(volume.WaitFor(ExpansionState::kDone));
  volume.bench.On([&] { EXPECT_EQ(volume[2].state.size_bytes, kLarger); });
  volume.Go(2);
  ASSERT(volume.WaitForMembers(3));
  ASSERT(volume.bench.Write(kLarger - 8192, 8192, 3) == ErrorCode::kOk);
  volume.bench.On([&] { EXPECT(volume[2].data == volume[0].data); });
}

// --- real replicas
// --------------------------------------------------------------------------------------------

TEST(snapshot_sizes, RealReplicasHaveSnapshotsOfBothSizes) {
  Sizes<0> volume;
  Bench& bench = volume.bench;
  std::vector<RealReplica*> members = {&bench.AddReal(), &bench.AddReal()};
  ASSERT(bench.StartAndWait());
  ASSERT(bench.Write(kSize - 8192, 8192, 1) == ErrorCode::kOk);
  ASSERT(Good(volume.Take("small")));
  std::vector<Request*> writes;
  for (int i = 0; i < 32; ++i) {
    writes.push_back(bench.Submit(BlockOperation::kWrite, kSize - 65536 * (2 + i % 8), 65536, 7));
    if (i == 8) ASSERT_OK(volume.Expand());
    // Waits for that.
    if (i == 16) volume.Begin("large");
  }
  for (Request* write : writes) {
    ASSERT(bench.Wait(write));
    EXPECT(write->status == ErrorCode::kOk);
  }
  ASSERT(volume.Wait(volume.asked.back().get()));
  ASSERT(Good(volume.asked.back()->status));
  ASSERT(volume.WaitFor(ExpansionState::kDone));
  ASSERT(bench.Write(kLarger - 8192, 8192, 9) == ErrorCode::kOk);
  ASSERT(Good(volume.Delete("small")));
  // «small» is merged into «large».
  const auto bytes_of = [&](size_t i, const std::string& name) {
    const Result<io::FileInfo> info =
        members[i]->reactor.files().Info(members[i]->directory() + "/volume-snap-" + name + ".img");
    return info.ok() ? info.value().size_bytes : 0;
  };
  ASSERT(bench.Until([&] { return bytes_of(0, "small") + bytes_of(1, "small") == 0; }));
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(bytes_of(i, "large"), kLarger);
  const auto reads = [&] {
    return bench.Reads(kSize - 8192, 8192, 1) && bench.Reads(kSize - 131072, 65536, 7) &&
           bench.Reads(kSize, kMiB, 0) && bench.Reads(kLarger - 8192, 8192, 9);
  };
  EXPECT(reads());
  EXPECT(bench.Stop());
  bench.options.size_bytes = kLarger;
  ASSERT(bench.StartAndWait());
  EXPECT(reads());
  EXPECT(Good(volume.Take("last")));
  EXPECT(bench.Stop());
}

}  // namespace
}  // namespace ankole::engine::testing
