#include "engine/snapshot_changes.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "engine/snapshot_testing.h"

// What changed between two snapshots.
namespace ankole::engine::testing {
namespace {

wire::LayerEntry AnEntry(const std::string& name, const std::string& parent, bool removed = false) {
  wire::LayerEntry entry;
  entry.name = name;
  entry.parent = parent;
  entry.size_bytes = name.empty() ? 0 : kMiB * name.size();
  entry.removed = removed;
  entry.sealed = !name.empty();
  return entry;
}

// a ─ bb ─ ccc (removed) ┬ dddd
//                        └ eeeee ─ the head;     x: of no other's chain
std::vector<wire::LayerEntry> Tree() {
  return {AnEntry("a", ""),           AnEntry("x", ""),       AnEntry("bb", "a"),
          AnEntry("ccc", "bb", true), AnEntry("dddd", "ccc"), AnEntry("eeeee", "ccc"),
          AnEntry("", "eeeee")};
}

ChangePlan PlanOf(const std::string& from, const std::string& to) {
  Result<ChangePlan> plan = PlanChanges(Tree(), from, to);
  EXPECT(plan.ok());
  return plan.ok() ? plan.Take() : ChangePlan{};
}

using Views = std::vector<ChangeView>;

TEST(engine_changes, OneUnderTheOtherIsWhatTheOtherWasMadeOf) {
  const ChangePlan plan = PlanOf("a", "dddd");
  EXPECT(plan.views == Views({{"dddd", "a", true, true, false}, {"a", "", false, false, true}}));
  EXPECT_EQ(plan.size_bytes, 4 * kMiB);
  EXPECT_EQ(plan.from_size_bytes, kMiB);
  EXPECT(PlanOf("", "bb").views == Views({{"bb", "", true, true, false}}));
  EXPECT(PlanOf("bb", "bb").views.empty());
}

TEST(engine_changes, OthersAreComparedWithWhatIsUnderBoth) {
  EXPECT(PlanOf("dddd", "eeeee").views == Views({{"eeeee", "", false, true, false},
                                                 {"eeeee", "ccc", true, false, false},
                                                 {"dddd", "ccc", true, false, false},
                                                 {"dddd", "", false, false, true}}));
  EXPECT(PlanOf("dddd", "a").views == Views({{"a", "", false, true, false},
                                             {"dddd", "a", true, false, false},
                                             {"dddd", "", false, false, true}}));
  EXPECT(PlanOf("x", "bb").views ==
         Views({{"bb", "", true, true, false}, {"x", "", true, false, true}}));
}

TEST(engine_changes, WhatIsNoSnapshotIsNotThere) {
  for (const auto& [from, to] :
       {std::pair{"a", "nobody"}, {"nobody", "a"}, {"ccc", "dddd"}, {"a", "ccc"}}) {
    const Result<ChangePlan> plan = PlanChanges(Tree(), from, to);
    EXPECT(plan.status().code() == ErrorCode::kNotFound);
  }
  std::vector<wire::LayerEntry> tree = Tree();
  tree[4].sealed = false;
  EXPECT(PlanChanges(tree, "a", "dddd").status().code() == ErrorCode::kNotFound);
}

constexpr BlockExtent kData = {0, false, false};
constexpr BlockExtent kNowhere = {0, true, false};
constexpr BlockExtent kZeros = {0, true, true};

BlockExtent Of(BlockExtent kind, uint64_t blocks) {
  kind.length_bytes = blocks * kBlockBytes;
  return kind;
}

struct Merged {
  uint64_t next;
  std::vector<ChangedExtent> extents;
};

Merged Merge(const Views& views, const std::vector<std::vector<BlockExtent>>& told,
             uint64_t offset = 0, size_t extents_max = 100) {
  std::vector<std::span<const BlockExtent>> spans(told.begin(), told.end());
  Merged merged;
  merged.next = MergeChanges(views, spans, offset, extents_max, &merged.extents) / kBlockBytes;
  for (ChangedExtent& extent : merged.extents) {
    extent.offset_bytes /= kBlockBytes;
    extent.length_bytes /= kBlockBytes;
  }
  return merged;
}

using Extents = std::vector<ChangedExtent>;

TEST(engine_changes, ADifferenceTellsItAlone) {
  const Views views = {{"b", "a", true, true, false}};
  const Merged merged =
      Merge(views, {{Of(kNowhere, 2), Of(kData, 3), Of(kZeros, 1), Of(kData, 1), Of(kNowhere, 9)}},
            10 * kBlockBytes);
  EXPECT_EQ(merged.next, 26U);
  EXPECT(merged.extents == Extents({{12, 3, false}, {15, 1, true}, {16, 1, false}}));
}

TEST(engine_changes, WhatIsAllocatedIsToldOfOne) {
  const Views views = {{"b", "", true, true, false}};
  const Merged merged = Merge(views, {{Of(kZeros, 2), Of(kData, 3), Of(kZeros, 1)}});
  EXPECT(merged.extents == Extents({{2, 3, false}}));
}

// What only the older one's branch has is what the other one has there, or nothing.
TEST(engine_changes, BranchesAreToldByThree) {
  const Views views = {{"to", "", false, true, false},
                       {"to", "base", true, false, false},
                       {"from", "base", true, false, false}};
  const Merged merged =
      Merge(views, {{Of(kData, 4), Of(kZeros, 4)},
                    {Of(kData, 1), Of(kNowhere, 7)},
                    {Of(kNowhere, 3), Of(kZeros, 2), Of(kNowhere, 2), Of(kData, 1)}});
  EXPECT_EQ(merged.next, 8U);
  EXPECT(merged.extents == Extents({{0, 1, false}, {3, 1, false}, {4, 1, true}, {7, 1, true}}));
}

TEST(engine_changes, ZerosThatWereZerosAreNoChange) {
  const Views views = {{"b", "a", true, true, false}, {"a", "", false, false, true}};
  const Merged merged =
      Merge(views, {{Of(kZeros, 4), Of(kData, 2)}, {Of(kZeros, 1), Of(kData, 2), Of(kZeros, 3)}});
  EXPECT_EQ(merged.next, 6U);
  EXPECT(merged.extents == Extents({{1, 2, true}, {4, 2, false}}));
}

TEST(engine_changes, ItEndsWhereOneOfThemEnds) {
  const Views views = {{"to", "", true, true, false}, {"from", "", true, false, true}};
  const Merged merged = Merge(views, {{Of(kData, 8)}, {Of(kZeros, 2), Of(kData, 1)}});
  EXPECT_EQ(merged.next, 3U);
  EXPECT(merged.extents == Extents({{0, 3, false}}));
}

TEST(engine_changes, NoMoreAreToldThanFit) {
  const Views views = {{"b", "a", true, true, false}};
  const std::vector<std::vector<BlockExtent>> told = {
      {Of(kData, 1), Of(kNowhere, 1), Of(kData, 1), Of(kZeros, 1)}};
  const Merged merged = Merge(views, told, 0, 2);
  EXPECT_EQ(merged.next, 3U);
  EXPECT(merged.extents == Extents({{0, 1, false}, {2, 1, false}}));
}

// --- by members
// --------------------------------------------------------------------------------------------

struct Changes : ChangesRequest {
  bool finished = false;  // of the reactor's thread
};

Changes List(Bench& bench, const std::string& from, const std::string& to, uint64_t offset = 0,
             size_t extents_max = kChangedExtentsMax) {
  Changes changes;
  changes.from = from;
  changes.to = to;
  changes.offset_bytes = offset;
  changes.extents_max = extents_max;
  changes.done = [](ChangesRequest* request) { static_cast<Changes*>(request)->finished = true; };
  bench.On([&] { bench.engine->ListChanges(&changes); });
  CHECK(bench.Until([&] { return changes.finished; }, 20'000));
  return changes;
}

// Page by page.
Extents ListAll(Bench& bench, const std::string& from, const std::string& to, size_t extents_max) {
  Extents all;
  for (uint64_t offset = 0; offset < Bench::kSizeBytes;) {
    const Changes page = List(bench, from, to, offset, extents_max);
    if (!Good(page.status) || page.next_bytes <= offset) break;
    EXPECT(page.extents.size() <= extents_max);
    for (const ChangedExtent& extent : page.extents) {
      ChangedExtent* last = all.empty() ? nullptr : &all.back();
      if (last != nullptr && last->zero == extent.zero &&
          last->offset_bytes + last->length_bytes == extent.offset_bytes) {
        last->length_bytes += extent.length_bytes;
      } else {
        all.push_back(extent);
      }
    }
    offset = page.next_bytes;
  }
  return all;
}

constexpr size_t kBlocks = Bench::kSizeBytes / kBlockBytes;

// What each block holds: of one value all over, as everything here is written.
struct Instant {
  std::vector<uint8_t> blocks = std::vector<uint8_t>(kBlocks);
  // Written, zeroed or unmapped since the one before.
  std::set<size_t> touched;
  // Written, and neither zeroed nor unmapped since.
  std::set<size_t> allocated;
};

struct History {
  explicit History(size_t members) {
    for (size_t i = 0; i < members; ++i) bench.AddReal();
    CHECK(bench.StartAndWait());
  }

  void Do(BlockOperation kind, size_t block, size_t blocks, uint8_t value) {
    const auto length = static_cast<uint32_t>(blocks * kBlockBytes);
    EXPECT(bench.Do(kind, block * kBlockBytes, length, value) == ErrorCode::kOk);
    for (size_t i = block; i < block + blocks; ++i) {
      now.blocks[i] = kind == BlockOperation::kWrite ? value : uint8_t{0};
      now.touched.insert(i);
      if (kind == BlockOperation::kWrite) {
        now.allocated.insert(i);
      } else {
        now.allocated.erase(i);
      }
    }
  }

  void Some(int count) {
    for (int i = 0; i < count; ++i) {
      const size_t blocks = 1 + random() % 48;
      const size_t block = random() % (kBlocks - blocks);
      const auto value = static_cast<uint8_t>(1 + random() % 250);
      constexpr BlockOperation kKinds[] = {BlockOperation::kWrite, BlockOperation::kWrite,
                                           BlockOperation::kUnmap, BlockOperation::kZero};
      Do(kKinds[random() % 4], block, blocks, value);
    }
  }

  void Take(const std::string& name) {
    EXPECT(Good(snapshots.Take(name)));
    names.push_back(name);
    instants[name] = now;
    now.touched.clear();
  }

  // What was touched from one to the next ones, up to that; deleted snapshots count.
  std::set<size_t> Touched(const std::string& from, const std::string& to) {
    std::set<size_t> touched;
    bool above = from.empty();
    for (const std::string& name : names) {
      if (above) touched.insert(instants[name].touched.begin(), instants[name].touched.end());
      above |= name == from;
      if (name == to) break;
    }
    return touched;
  }

  // What differs is told, and nothing that was not touched.
  void Check(const std::string& from, const std::string& to, const Extents& extents) {
    const Instant none;
    const Instant& before = from.empty() ? none : instants[from];
    const Instant& after = instants[to];
    const std::set<size_t> touched = Touched(from, to);
    std::vector<char> told(kBlocks, 'u');
    uint64_t end = 0;
    for (const ChangedExtent& extent : extents) {
      EXPECT(extent.offset_bytes >= end && extent.length_bytes > 0);
      end = extent.offset_bytes + extent.length_bytes;
      for (uint64_t at = extent.offset_bytes; at < end; at += kBlockBytes) {
        told[at / kBlockBytes] = extent.zero ? 'z' : 'd';
      }
    }
    for (size_t i = 0; i < kBlocks; ++i) {
      const bool differs = before.blocks[i] != after.blocks[i];
      const std::string what = from + " to " + to + ": block " + std::to_string(i);
      if (differs && told[i] == 'u') test::Fail(__FILE__, __LINE__, what + " was missed");
      if (told[i] != 'u' && !touched.contains(i)) {
        test::Fail(__FILE__, __LINE__, what + " was not touched");
      }
      if (told[i] == 'z' && after.blocks[i] != 0) {
        test::Fail(__FILE__, __LINE__, what + " is no zeros");
      }
      if (told[i] == 'z' && before.blocks[i] == 0 && !before.allocated.contains(i)) {
        test::Fail(__FILE__, __LINE__, what + " was zeros before");
      }
    }
  }

  Snapshots<0> snapshots{1000};
  Bench& bench = snapshots.bench;
  Instant now;
  std::vector<std::string> names;  // oldest first
  std::map<std::string, Instant> instants;
  std::mt19937_64 random{test::Seed()};
};

TEST(engine_changes, WhatDiffersIsToldAndNoBlockMore) {
  History history(2);
  constexpr int kOperations = 60 / test::kShare;
  for (const char* name : {"one", "two", "three", "four"}) {
    history.Some(kOperations);
    history.Take(name);
  }
  const std::vector<std::string> all = history.names;
  for (size_t from = 0; from < all.size(); ++from) {
    for (size_t to = from + 1; to < all.size(); ++to) {
      const Extents extents = ListAll(history.bench, all[from], all[to], kChangedExtentsMax);
      history.Check(all[from], all[to], extents);
      EXPECT(ListAll(history.bench, all[from], all[to], 3) == extents);
    }
    history.Check("", all[from], ListAll(history.bench, "", all[from], kChangedExtentsMax));
  }
  EXPECT(ListAll(history.bench, "two", "two", 10).empty());
  // The other way round: from the newer one to the older.
  const Extents back = ListAll(history.bench, "three", "two", kChangedExtentsMax);
  for (const ChangedExtent& extent : back) {
    for (uint64_t at = 0; at < extent.length_bytes; at += kBlockBytes) {
      const size_t block = (extent.offset_bytes + at) / kBlockBytes;
      if (extent.zero) EXPECT_EQ(history.instants["two"].blocks[block], 0);
    }
  }
  std::set<size_t> told;
  for (const ChangedExtent& extent : back) {
    for (uint64_t at = 0; at < extent.length_bytes; at += kBlockBytes) {
      told.insert((extent.offset_bytes + at) / kBlockBytes);
    }
  }
  for (size_t i = 0; i < kBlocks; ++i) {
    const bool differs = history.instants["two"].blocks[i] != history.instants["three"].blocks[i];
    EXPECT(!differs || told.contains(i));
  }
}

// Whether what is between them is merged yet or not.
TEST(engine_changes, SnapshotsBetweenMayBeDeleted) {
  History history(2);
  constexpr int kOperations = 30 / test::kShare;
  for (const char* name : {"one", "two", "three", "four"}) {
    history.Some(kOperations);
    history.Take(name);
  }
  for (const char* name : {"two", "three"}) EXPECT(Good(history.snapshots.Delete(name)));
  history.Check("one", "four", ListAll(history.bench, "one", "four", kChangedExtentsMax));
  for (int i = 0; i < 5; ++i) {
    history.bench.Pass(20);
    history.Check("one", "four", ListAll(history.bench, "one", "four", 7));
  }
  EXPECT(List(history.bench, "two", "four").status.code() == ErrorCode::kNotFound);
}

TEST(engine_changes, WhatIsBehindTheOlderOnesEndIsToldWhereItWasWritten) {
  History history(1);
  history.Do(BlockOperation::kWrite, 0, 4, 'a');
  history.Take("small");
  history.bench.On(
      [&] { EXPECT(history.bench.engine->Expand("grow", 2 * Bench::kSizeBytes).ok()); });
  ASSERT(history.bench.Until(
      [&] { return history.bench.engine->size_bytes() == 2 * Bench::kSizeBytes; }));
  EXPECT(history.bench.Write(Bench::kSizeBytes + kMiB, 8192, 'b') == ErrorCode::kOk);
  history.Take("large");
  const Changes changes = List(history.bench, "small", "large");
  EXPECT(Good(changes.status));
  EXPECT_EQ(changes.from_size_bytes, uint64_t{Bench::kSizeBytes});
  EXPECT_EQ(changes.size_bytes, 2 * Bench::kSizeBytes);
  EXPECT_EQ(changes.next_bytes, changes.size_bytes);
  EXPECT(changes.extents == Extents({{Bench::kSizeBytes + kMiB, 8192, false}}));
}

TEST(engine_changes, ABadRequestIsRefused) {
  History history(1);
  history.Take("one");
  EXPECT(List(history.bench, "", "../etc").status.code() == ErrorCode::kInvalidArgument);
  EXPECT(List(history.bench, "", "").status.code() == ErrorCode::kInvalidArgument);
  EXPECT(List(history.bench, "no name", "one").status.code() == ErrorCode::kInvalidArgument);
  EXPECT(List(history.bench, "", "one", 512).status.code() == ErrorCode::kInvalidArgument);
  EXPECT(List(history.bench, "", "one", 0, 0).status.code() == ErrorCode::kInvalidArgument);
  EXPECT(List(history.bench, "", "nobody").status.code() == ErrorCode::kNotFound);
  const Changes behind = List(history.bench, "", "one", 4 * Bench::kSizeBytes);
  EXPECT(Good(behind.status) && behind.extents.empty());
  EXPECT_EQ(behind.next_bytes, 4 * Bench::kSizeBytes);
}

// --- by members that fail
// --------------------------------------------------------------------------------------------

TEST(engine_changes, AnotherMemberIsAskedForWhatOneCannotTell) {
  Snapshots<2> volume;
  ASSERT(volume.bench.StartAndWait());
  EXPECT(Good(volume.Take("one")));
  for (size_t failing = 0; failing < 2; ++failing) {
    for (size_t i = 0; i < 2; ++i) {
      volume[i].verdict = [=](const wire::Header& header) {
        return FailWith(i == failing && header.view != 0, ErrorCode::kIoError);
      };
    }
    const Changes changes = List(volume.bench, "", "one");
    EXPECT(Good(changes.status));
    EXPECT(changes.extents == Extents({{0, Bench::kSizeBytes, false}}));
  }
  for (size_t i = 0; i < 2; ++i) {
    volume[i].verdict = [](const wire::Header& header) {
      return FailWith(header.view != 0, ErrorCode::kIoError);
    };
  }
  EXPECT(List(volume.bench, "", "one").status.code() == ErrorCode::kIoError);
  // Nothing stays open: it can be deleted.
  EXPECT(Good(volume.Delete("one")));
}

TEST(engine_changes, ALostConnectionIsMadeAnewAndAskedAgain) {
  Snapshots<1> volume;
  ASSERT(volume.bench.StartAndWait());
  EXPECT(Good(volume.Take("one")));
  volume[0].verdict = [](const wire::Header& header) { return Hold(header.view != 0); };
  Changes changes;
  changes.to = "one";
  changes.done = [](ChangesRequest* request) { static_cast<Changes*>(request)->finished = true; };
  volume.bench.On([&] { volume.bench.engine->ListChanges(&changes); });
  ASSERT(volume.bench.Until([&] { return volume[0].held() == 1; }));
  volume[0].verdict = Judge();
  volume.bench.On([&] { volume[0].Break(); });
  ASSERT(volume.bench.Until([&] { return changes.finished; }));
  EXPECT(Good(changes.status));
  EXPECT(changes.extents == Extents({{0, Bench::kSizeBytes, false}}));
}

TEST(engine_changes, WhoWaitsIsAnsweredWhenTheEngineStops) {
  Snapshots<1> volume;
  ASSERT(volume.bench.StartAndWait());
  EXPECT(Good(volume.Take("one")));
  volume[0].verdict = [](const wire::Header& header) { return Hold(header.view != 0); };
  std::array<Changes, 2> changes;
  for (Changes& one : changes) {
    one.to = "one";
    one.done = [](ChangesRequest* request) { static_cast<Changes*>(request)->finished = true; };
    volume.bench.On([&] { volume.bench.engine->ListChanges(&one); });
  }
  ASSERT(volume.bench.Until([&] { return volume[0].held() == 1; }));
  volume.bench.Stop();
  for (const Changes& one : changes) {
    EXPECT(one.finished && one.status.code() == ErrorCode::kUnavailable);
  }
}

}  // namespace
}  // namespace ankole::engine::testing
