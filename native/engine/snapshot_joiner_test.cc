#include <algorithm>
#include <filesystem>
#include <map>

#include "engine/snapshot_testing.h"
#include "replica/view.h"

// Replicas that were away while snapshots were taken and deleted: they get what they lack (rule 8).
namespace ankole::engine::testing {
namespace {

using replica::LayerMeta;

std::string TextOf(const std::string& path) {
  auto files = io::MakePosixFileSystem();
  Result<std::string> text = io::ReadWholeFile(*files, path, 64 * kKiB);
  CHECK(text.ok());
  return text.Take();
}

// What a replica that is stopped has of each snapshot, and in its head (under the name "").
struct Held {
  std::map<std::string, std::string> views;
  std::map<std::string, LayerMeta> metas;
  bool operator==(const Held& other) const { return views == other.views; }
};

Held ReadHeld(const std::string& directory) {
  Held held;
  std::map<std::string, LayerMeta> layers;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string file = entry.path().filename();
    if (!file.ends_with(".img.meta")) continue;
    const std::string name = file.substr(0, file.size() - 5);
    layers[name] = LayerMeta::Parse(file, TextOf(entry.path())).Take();
  }
  auto files = io::MakePosixFileSystem();
  for (const auto& [name, meta] : layers) {
    if (meta.removed) continue;
    std::vector<LayerMeta> chain;
    for (std::string at = name; !at.empty(); at = layers.at(at).parent) {
      chain.push_back(layers.at(at));
    }
    auto view =
        replica::View::Open(*files, directory, chain, Bench::kSizeBytes, true, false).Take();
    std::string content(Bench::kSizeBytes, '\0');
    for (uint64_t at = 0; at < content.size(); at += kMiB) {
      replica::ReplicaOperation operation;
      operation.kind = replica::OperationKind::kRead;
      operation.offset_bytes = at;
      operation.length_bytes = kMiB;
      operation.data = reinterpret_cast<std::byte*>(content.data()) + at;
      const Status status = view->Read(&operation);
      if (!status.ok()) test::Fail(__FILE__, __LINE__, directory + ": " + status.message());
    }
    const std::string of = replica::IsHeadName(name) ? "" : replica::SnapshotNameOf(name);
    held.views[of] = std::move(content);
    held.metas[of] = meta;
  }
  return held;
}

struct Volume {
  explicit Volume(uint64_t idle_ns = 0) {
    if (idle_ns != 0) bench.options.idle_ns = idle_ns;
    for (int i = 0; i < 3; ++i) members.push_back(&bench.AddReal());
    CHECK(bench.StartAndWait());
  }
  // Real replicas bring their records with them.
  bool Away(size_t i) {
    bench.StopHost(*members[i]);
    // Whom nobody waits for need not leave.
    if (!Write(Bench::kSizeBytes - 4 * kKiB, 4 * kKiB, 'z')) return false;
    return bench.Until([&] { return bench.engine->Report().record.members.count < 3; });
  }
  bool Back(size_t i, int limit_ms = 60'000) {
    bench.StartHost(*members[i]);
    const bool whole =
        bench.Until([&] { return bench.engine->Report().record.members.count == 3; }, limit_ms);
    if (!whole) test::Fail(__FILE__, __LINE__, "it does not join: " + bench.State());
    return whole;
  }
  bool Take(const std::string& name, const std::string& labels = "", uint64_t seconds = 0) {
    auto asked = std::make_unique<Asked>(name);
    asked->labels = labels;
    asked->user_created = !labels.empty();
    if (seconds != 0) asked->created_seconds = seconds;
    Asked* request = asked.get();
    snapshots.asked.push_back(std::move(asked));
    bench.On([&] { bench.engine->TakeSnapshot(request); });
    snapshots.Wait(request);
    if (!Good(request->status)) return false;
    return true;
  }
  bool Write(uint64_t offset, uint64_t length, char value) {
    for (uint64_t at = 0; at < length; at += 256 * kKiB) {
      const auto piece = static_cast<uint32_t>(std::min<uint64_t>(length - at, 256 * kKiB));
      const ErrorCode outcome =
          bench.Do(BlockOperation::kWrite, offset + at, piece, static_cast<uint8_t>(value));
      if (outcome != ErrorCode::kOk) return false;
    }
    return true;
  }
  bool Unmap(uint64_t offset, uint64_t length) {
    return bench.Do(BlockOperation::kUnmap, offset, length) == ErrorCode::kOk;
  }
  // All hold the same, and just these.
  Held Stopped(const std::vector<std::string>& names) {
    if (!bench.Stop()) test::Fail(__FILE__, __LINE__, "not closed clean");
    for (RealReplica* member : members) bench.StopHost(*member);
    Held first = ReadHeld(members[0]->directory());
    for (size_t i = 1; i < members.size(); ++i) {
      const Held other = ReadHeld(members[i]->directory());
      for (const auto& [name, content] : first.views) {
        const auto found = other.views.find(name);
        if (found == other.views.end()) {
          test::Fail(__FILE__, __LINE__, "replica " + std::to_string(i) + " lacks " + name);
        } else if (found->second != content) {
          const auto differs = std::mismatch(content.begin(), content.end(), found->second.begin());
          test::Fail(__FILE__, __LINE__,
                     "replica " + std::to_string(i) + " has another " + name + " from byte " +
                         std::to_string(differs.first - content.begin()) + " on");
        }
        if (found != other.views.end() && !name.empty()) {
          const LayerMeta& meta = first.metas.at(name);
          const LayerMeta& of = other.metas.at(name);
          EXPECT_EQ(of.created, meta.created);
          EXPECT_EQ(of.user_created, meta.user_created);
          EXPECT_EQ(of.other.Find("Labels")->Write(), meta.other.Find("Labels")->Write());
        }
      }
      EXPECT_EQ(other.views.size(), first.views.size());
    }
    EXPECT_EQ(first.views.size(), names.size() + 1);
    for (const std::string& name : names) EXPECT(first.views.contains(name));
    return first;
  }

  Snapshots<0> snapshots{1000};
  Bench& bench = snapshots.bench;
  std::vector<RealReplica*> members;
};

char At(const Held& held, const std::string& name, uint64_t offset) {
  return held.views.at(name)[offset];
}

TEST(engine_snapshot_joiner, OneThatWasAwayIsGivenWhatItMissed) {
  Volume volume;
  ASSERT(volume.Write(0, 64 * kKiB, 'a'));
  ASSERT(volume.Write(8 * kMiB, 64 * kKiB, 'a'));
  ASSERT(volume.Take("one"));
  ASSERT(volume.Write(4 * kKiB, 4 * kKiB, 'b'));
  ASSERT(volume.Away(2));
  ASSERT(volume.Write(8 * kKiB, 4 * kKiB, 'c'));
  ASSERT(volume.Take("two", R"({"by":"hand"})"));
  ASSERT(volume.Write(8 * kKiB, 4 * kKiB, 'd'));
  ASSERT(volume.Unmap(8 * kMiB, 64 * kKiB));
  ASSERT(volume.Take("three"));
  ASSERT(volume.Write(12 * kKiB, 4 * kKiB, 'e'));
  ASSERT(volume.Write(8 * kMiB + 4 * kKiB, 4 * kKiB, 'f'));
  ASSERT(volume.Back(2));
  ASSERT(volume.Write(16 * kKiB, 4 * kKiB, 'g'));
  const Held held = volume.Stopped({"one", "two", "three"});
  EXPECT_EQ(At(held, "one", 4 * kKiB), 'a');
  EXPECT_EQ(At(held, "two", 4 * kKiB), 'b');
  EXPECT_EQ(At(held, "two", 8 * kKiB), 'c');
  EXPECT_EQ(At(held, "two", 8 * kMiB), 'a');
  EXPECT_EQ(At(held, "three", 8 * kKiB), 'd');
  EXPECT_EQ(At(held, "three", 8 * kMiB), '\0');
  EXPECT_EQ(At(held, "", 8 * kMiB + 4 * kKiB), 'f');
  EXPECT_EQ(At(held, "", 16 * kKiB), 'g');
  EXPECT_EQ(held.metas.at("two").other.Find("Labels")->Write(), R"({"by":"hand"})");
}

TEST(engine_snapshot_joiner, WhatWasDeletedMeanwhileGoesThereAsWell) {
  Volume volume;
  ASSERT(volume.Write(0, 64 * kKiB, 'a'));
  ASSERT(volume.Take("one"));
  ASSERT(volume.Write(0, 4 * kKiB, 'b'));
  ASSERT(volume.Take("two"));
  ASSERT(volume.Write(4 * kKiB, 4 * kKiB, 'c'));
  ASSERT(volume.Away(1));
  ASSERT(Good(volume.snapshots.Delete("two")));
  ASSERT(volume.Write(8 * kKiB, 4 * kKiB, 'd'));
  ASSERT(volume.Take("three"));
  ASSERT(volume.Take("four"));
  ASSERT(Good(volume.snapshots.Delete("three")));
  ASSERT(volume.Write(12 * kKiB, 4 * kKiB, 'e'));
  ASSERT(volume.Back(1));
  const Held held = volume.Stopped({"one", "four"});
  EXPECT_EQ(At(held, "four", 8 * kKiB), 'd');
  EXPECT_EQ(At(held, "four", 12 * kKiB), 'a');
}

// Only too many: nothing is compared but what it misses.
TEST(engine_snapshot_joiner, OneThatOnlyHasTooManyJoins) {
  Volume volume;
  ASSERT(volume.Write(0, 64 * kKiB, 'a'));
  ASSERT(volume.Take("one"));
  ASSERT(volume.Away(2));
  ASSERT(volume.Write(0, 4 * kKiB, 'b'));
  ASSERT(Good(volume.snapshots.Delete("one")));
  ASSERT(volume.Back(2));
  const Held held = volume.Stopped({});
  EXPECT_EQ(At(held, "", 0), 'b');
  EXPECT_EQ(At(held, "", 4 * kKiB), 'a');
}

TEST(engine_snapshot_joiner, ANewOneIsGivenAll) {
  Volume volume;
  ASSERT(volume.Write(0, 3 * kMiB, 'a'));
  ASSERT(volume.Take("one"));
  ASSERT(volume.Write(kMiB, kMiB, 'b'));
  ASSERT(volume.Take("two"));
  ASSERT(volume.Unmap(0, kMiB));
  ASSERT(volume.Take("three"));
  ASSERT(volume.Write(2 * kMiB, 4 * kKiB, 'c'));
  ASSERT(volume.Away(0));
  std::filesystem::remove_all(volume.members[0]->directory());
  ASSERT(volume.Back(0));
  const Held held = volume.Stopped({"one", "two", "three"});
  EXPECT_EQ(At(held, "one", kMiB), 'a');
  EXPECT_EQ(At(held, "two", kMiB), 'b');
  EXPECT_EQ(At(held, "three", 0), '\0');
}

// A member could not delete what it did, and left it at that: then it is younger than what it
// lacks.
TEST(engine_snapshot_joiner, OneThatWasThereIsComparedEverywhere) {
  Volume volume(100 * kNsPerMs);
  ASSERT(volume.Write(0, 64 * kKiB, 'a'));
  ASSERT(volume.Take("one"));
  ASSERT(volume.Write(0, 4 * kKiB, 'b'));
  ASSERT(volume.Take("two"));
  ASSERT(volume.bench.Until([&] { return volume.bench.engine->dirty_regions() == 0; }));
  ASSERT(volume.Away(2));
  const std::string path = volume.members[2]->directory() + "/volume-snap-one.img.meta";
  LayerMeta meta = LayerMeta::Parse("volume-snap-one.img.meta", TextOf(path)).Take();
  meta.removed = true;
  ASSERT(io::ReplaceFile(*io::MakePosixFileSystem(), path, meta.Write()).ok());
  ASSERT(volume.Back(2));
  const Held held = volume.Stopped({"one", "two"});
  EXPECT_EQ(At(held, "one", 0), 'a');
  EXPECT_EQ(At(held, "two", 0), 'b');
}

// Its name is there, under its head, for something else.
TEST(engine_snapshot_joiner, OneOfTheSameNameIsNotTakenForIt) {
  Volume volume;
  ASSERT(volume.Write(0, 64 * kKiB, 'a'));
  ASSERT(volume.Take("one", "", 1'780'000'001));
  ASSERT(volume.Write(0, 4 * kKiB, 'b'));
  ASSERT(volume.Away(2));
  ASSERT(volume.Write(4 * kKiB, 4 * kKiB, 'c'));
  ASSERT(volume.Take("two"));
  ASSERT(Good(volume.snapshots.Delete("one")));
  ASSERT(volume.bench.Until([&] {
    return !std::filesystem::exists(volume.members[0]->directory() + "/volume-snap-one.img") &&
           !std::filesystem::exists(volume.members[1]->directory() + "/volume-snap-one.img");
  }));
  ASSERT(volume.Take("one", "", 1'780'000'002));
  ASSERT(volume.Write(8 * kKiB, 4 * kKiB, 'd'));
  ASSERT(volume.Back(2));
  const Held held = volume.Stopped({"one", "two"});
  EXPECT_EQ(At(held, "one", 0), 'b');
  EXPECT_EQ(At(held, "one", 4 * kKiB), 'c');
  EXPECT_EQ(At(held, "one", 8 * kKiB), 'a');
}

// --- scripted ones
// --------------------------------------------------------------------------------------------

using wire::Opcode;

struct Script : Snapshots<3> {
  Script() : Snapshots<3>(300) { CHECK(bench.StartAndWait()); }
  bool Count(size_t count, int limit_ms = 20'000) {
    const bool met =
        bench.Until([&] { return bench.engine->Report().record.members.count == count; }, limit_ms);
    if (!met) test::Fail(__FILE__, __LINE__, bench.State());
    return met;
  }
  bool Away() {
    bench.On([&] { replicas[2]->Unlisten(); });
    return bench.Write(0, 4096, 9) == ErrorCode::kOk && Count(2);
  }
  void Back() {
    bench.On([&] { replicas[2]->Listen(); });
  }
  std::string LayersAt(size_t i) { return Layers(i); }
};

// Right under its head lies a layer of that name which it never sealed.
TEST(engine_snapshot_joiner, OneThatNeverSealedASnapshotIsGivenThat) {
  Script script;
  EXPECT(Good(script.Take("sunday")));
  ASSERT(script.Away());
  EXPECT(Good(script.Take("monday")));
  EXPECT(script.bench.Write(4096, 4096, 8) == ErrorCode::kOk);
  script.bench.On([&] {
    script[2].layers.push_back({"monday", false, false, script[2].data});
    script[2].state.unsealed = true;
  });
  script.Back();
  ASSERT(script.Count(3));
  // The one that was put on it is removed, and waits.
  EXPECT(script.LayersAt(2).starts_with("sunday"));
  EXPECT(script.LayersAt(2).ends_with("monday"));
  EXPECT(script.SameViews("sunday") && script.SameViews("monday"));
  EXPECT(script.bench.At("delete monday at 12") < script.bench.At("switch to monday at 12"));
  EXPECT(script.bench.At("close view at 10") != SIZE_MAX);
  EXPECT(script.bench.At("close view at 11") != SIZE_MAX);
  EXPECT(Good(script.Take("tuesday")));
  EXPECT(script.LayersAt(2).ends_with("monday, tuesday"));
}

// It is not shown as if it were another's.
TEST(engine_snapshot_joiner, ABlockThatIsCorruptInOneViewIsReadFromAnother) {
  Script script;
  ASSERT(script.Away());
  EXPECT(script.bench.Write(0, 8192, 3) == ErrorCode::kOk);
  EXPECT(Good(script.Take("monday")));
  script.bench.On([&] {
    for (size_t i = 0; i < 2; ++i) script[i].layers[0].bad = {i};  // 0 here, 1 there
    // Whoever has it bad has other bytes there.
    for (size_t i = 0; i < 2; ++i) script[i].layers[0].view[i * 4096] = std::byte{0x77};
  });
  script.Back();
  ASSERT(script.Count(3));
  script.bench.On([&] {
    const ScriptedReplica::Layer& given = script[2].layers[0];
    EXPECT(given.view[0] == std::byte{3} && given.view[4096] == std::byte{3});
    EXPECT(given.bad.empty());
  });
}

TEST(engine_snapshot_joiner, ABlockThatIsCorruptInAllViewsIsMarked) {
  Script script;
  ASSERT(script.Away());
  EXPECT(script.bench.Write(0, 8192, 3) == ErrorCode::kOk);
  EXPECT(Good(script.Take("monday")));
  script.bench.On([&] {
    for (size_t i = 0; i < 2; ++i) script[i].layers[0].bad = {1};
  });
  script.Back();
  ASSERT(script.Count(3));
  script.bench.On([&] { EXPECT(script[2].layers[0].bad == std::set<uint64_t>{1}); });
}

TEST(engine_snapshot_joiner, WhatIsBeingGivenCanBeDeleted) {
  Script script;
  ASSERT(script.Away());
  EXPECT(script.bench.Write(0, 8192, 3) == ErrorCode::kOk);
  EXPECT(Good(script.Take("monday")));
  script[2].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == Opcode::kWrite);
  };
  script.Back();
  ASSERT(script.bench.Until([&] { return script[2].held() > 0; }));
  EXPECT(script.bench.At("view monday at 10") != SIZE_MAX);
  EXPECT(Good(script.Delete("monday")));
  script[2].verdict = Judge::Function();
  ASSERT(script.Count(3));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT(script.LayersAt(i).empty() || script.LayersAt(i) == "monday (removed)");
  }
  EXPECT(script.bench.Write(0, 4096, 5) == ErrorCode::kOk);
}

// Its layers were looked at before.
TEST(engine_snapshot_joiner, WhatIsDeletedWhileItIsFilledGoesThereAsWell) {
  Script script;
  EXPECT(Good(script.Take("monday")));
  EXPECT(Good(script.Take("tuesday")));
  ASSERT(script.Away());
  script[2].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == Opcode::kWrite);
  };
  script.Back();
  ASSERT(script.bench.Until([&] { return script[2].held() > 0; }));
  EXPECT(Good(script.Delete("monday")));
  EXPECT_EQ(script.LayersAt(2), "monday, tuesday");
  script.bench.On([&] {
    script[2].verdict = Judge::Function();
    script[2].Release();
  });
  ASSERT(script.Count(3));
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(script.LayersAt(i), "monday (removed), tuesday");
  // Before it is one: nobody may start on it and find the snapshot again.
  uint64_t generation = 0;
  script.bench.On([&] { generation = script.bench.engine->Report().record.generation; });
  EXPECT(script.bench.At("delete monday at 12") <
         script.bench.At("record " + std::to_string(generation) + " at 12"));
}

// Its view ends with it; the other one's goes on.
TEST(engine_snapshot_joiner, AMemberThatIsLostMeanwhileIsDoneWithout) {
  Script script;
  ASSERT(script.Away());
  EXPECT(script.bench.Write(0, 8192, 3) == ErrorCode::kOk);
  EXPECT(Good(script.Take("monday")));
  for (size_t i = 0; i < 2; ++i) {
    script[i].verdict = [](const wire::Header& header) {
      return Hold(header.opcode == Opcode::kRead && header.view != 0);
    };
  }
  script.Back();
  ASSERT(script.bench.Until([&] { return script[0].held() + script[1].held() > 0; }));
  size_t source = 0;
  script.bench.On([&] {
    source = script[0].held() > 0 ? 0 : 1;
    script[1 - source].verdict = Judge::Function();
    script[source].Unlisten();
  });
  EXPECT(script.bench.Write(8192, 4096, 4) == ErrorCode::kOk);
  ASSERT(script.bench.Until(
      [&] { return script.bench.engine->Report().record.members.Contains(script[2].id()); },
      20'000));
  script.bench.On([&] {
    EXPECT(script[2].layers.size() == 1 &&
           script[2].layers[0].view == script[1 - source].layers[0].view);
    EXPECT(script[2].data == script[1 - source].data);
  });
}

// What is on its way to the joiner is held when a snapshot is asked for.
struct Meanwhile : Script {
  // What `of` it is sent first of all is held.
  bool Filled(Opcode of) {
    (*this)[2].verdict = [of](const wire::Header& header) { return Hold(header.opcode == of); };
    Back();
    const bool held = bench.Until([&] { return (*this)[2].held() > 0; });
    if (!held) test::Fail(__FILE__, __LINE__, bench.State());
    welcomes = (*this)[2].asked(Opcode::kWelcome);
    return held;
  }
  // The joiner's state; of the reactor's thread.
  bool Is(const std::string& state) {
    const std::string counters = bench.engine->CountersJson().Write();
    return counters.find(R"("state":")" + state + '"') != std::string::npos;
  }
  // Members have prepared it, and nothing new goes to the joiner.
  Asked* Prepared(const std::string& name) {
    Asked* request = Begin(name);
    const bool prepared = bench.Until([&] { return Is("paused"); });
    if (!prepared) test::Fail(__FILE__, __LINE__, bench.State());
    return request;
  }
  void LetOn() {
    bench.On([&] {
      (*this)[2].verdict = Judge::Function();
      (*this)[2].Release();
    });
  }
  // It was not let go.
  bool Joined(const std::string& layers) {
    if (!Count(3)) return false;
    EXPECT_EQ(LayersAt(2), layers);
    EXPECT_EQ((*this)[2].asked(Opcode::kWelcome), welcomes);
    bench.On([&] { EXPECT((*this)[2].data == (*this)[0].data); });
    return true;
  }
  int welcomes = 0;  // of the joiner, when it began
};

TEST(engine_snapshot_joiner, ASnapshotWhileItIsFilledIsOneMore) {
  Meanwhile script;
  ASSERT(script.Away());
  EXPECT(script.bench.Write(0, 8192, 3) == ErrorCode::kOk);
  EXPECT(script.bench.Write(kRegionBytes, 4096, 4) == ErrorCode::kOk);
  ASSERT(script.Filled(Opcode::kWrite));
  Asked* monday = script.Prepared("monday");
  EXPECT(script.bench.Write(Bench::kSizeBytes - 4096, 4096, 5) == ErrorCode::kOk);
  script.LetOn();
  ASSERT(script.Wait(monday) && Good(monday->status));
  EXPECT(script.bench.Write(16384, 4096, 6) == ErrorCode::kOk);
  ASSERT(script.Joined("monday"));
  EXPECT(script.SameViews("monday"));
}

// All was copied, and clients' writes go there as well. What it was asked to flush for that is no
// flush of what it gets then.
TEST(engine_snapshot_joiner, ASnapshotBeforeItBecomesAMemberIsOneMore) {
  Meanwhile script;
  ASSERT(script.Away());
  EXPECT(script.bench.Write(0, 8192, 3) == ErrorCode::kOk);
  ASSERT(script.Filled(Opcode::kFlush));
  Asked* monday = script.Prepared("monday");
  EXPECT(script.bench.Write(4096, 4096, 5) == ErrorCode::kOk);
  script.LetOn();
  ASSERT(script.Wait(monday) && Good(monday->status));
  EXPECT(script.bench.Write(0, 4096, 6) == ErrorCode::kOk);
  ASSERT(script.Joined("monday"));
  EXPECT(script.SameViews("monday"));
}

TEST(engine_snapshot_joiner, ASnapshotWhileItIsGivenOneComesAfterThat) {
  Meanwhile script;
  ASSERT(script.Away());
  EXPECT(script.bench.Write(0, 8192, 3) == ErrorCode::kOk);
  EXPECT(Good(script.Take("monday")));
  EXPECT(script.bench.Write(4096, 8192, 4) == ErrorCode::kOk);
  ASSERT(script.Filled(Opcode::kWrite));
  Asked* tuesday = script.Prepared("tuesday");
  EXPECT(script.bench.Write(8192, 4096, 5) == ErrorCode::kOk);
  script.LetOn();
  ASSERT(script.Wait(tuesday) && Good(tuesday->status));
  EXPECT(script.bench.Write(0, 4096, 6) == ErrorCode::kOk);
  ASSERT(script.Joined("monday, tuesday"));
  EXPECT(script.SameViews("monday"));
  EXPECT(script.SameViews("tuesday"));
}

// The connection of a member is lost before the lock: it is begun anew.
TEST(engine_snapshot_joiner, ASnapshotThatIsBegunAnewDoesNotLetItGo) {
  Meanwhile script;
  ASSERT(script.Away());
  EXPECT(script.bench.Write(0, 8192, 3) == ErrorCode::kOk);
  ASSERT(script.Filled(Opcode::kWrite));
  Asked* monday = script.Prepared("monday");
  script[1].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == Opcode::kPrepare);
  };
  script.bench.On([&] { script[1].Break(); });
  ASSERT(script.bench.Until([&] { return script[1].held() > 0 && script.Is("copying"); }));
  script.bench.On([&] {
    script[1].verdict = Judge::Function();
    script[1].Release();
  });
  script.LetOn();
  ASSERT(script.Wait(monday) && Good(monday->status));
  ASSERT(script.Joined("monday"));
  EXPECT(script.SameViews("monday"));
}

// Clients are not to wait for it.
TEST(engine_snapshot_joiner, OneThatDoesNotAnswerIsLetGoForASnapshot) {
  Meanwhile script;
  ASSERT(script.Away());
  EXPECT(script.bench.Write(0, 8192, 3) == ErrorCode::kOk);
  ASSERT(script.Filled(Opcode::kWrite));
  EXPECT(Good(script.Take("monday")));
  script.LetOn();
  ASSERT(script.Count(3));
  EXPECT_EQ(script.LayersAt(2), "monday");
  EXPECT_EQ(script[2].asked(Opcode::kWelcome), script.welcomes + 1);
  EXPECT(script.SameViews("monday"));
}

}  // namespace
}  // namespace ankole::engine::testing
