#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/several_testing.h"

// For the tests of snapshots (rule 8): scripted replicas that keep account of what they are asked.
namespace ankole::engine::testing {

// A request about snapshots, and what became of it.
struct Asked : SnapshotRequest {
  explicit Asked(std::string of = "") {
    name = std::move(of);
    created_seconds = 1'780'000'000;
    done = [](SnapshotRequest* request) { static_cast<Asked*>(request)->finished = true; };
  }
  bool finished = false;  // of the reactor's thread
};

template <size_t kCount>
struct Snapshots : Several<kCount> {
  using Several<kCount>::bench;
  using Several<kCount>::replicas;
  explicit Snapshots(uint64_t late_ms = 20'000) : Several<kCount>(late_ms) {}
  // Before what the requests refer to goes.
  ~Snapshots() { bench.Finish(); }

  Asked* Begin(const std::string& name) {
    asked.push_back(std::make_unique<Asked>(name));
    Asked* request = asked.back().get();
    bench.On([&] { bench.engine->TakeSnapshot(request); });
    return request;
  }
  bool Wait(Asked* request, int limit_ms = 10'000) {
    const bool finished = bench.Until([&] { return request->finished; }, limit_ms);
    if (!finished) test::Fail(__FILE__, __LINE__, "no answer; the engine: " + bench.State());
    return finished;
  }
  Status Take(const std::string& name) {
    Asked* request = Begin(name);
    Wait(request);
    return request->status;
  }
  Status Delete(const std::string& name) {
    asked.push_back(std::make_unique<Asked>(name));
    Asked* request = asked.back().get();
    bench.On([&] { bench.engine->DeleteSnapshot(request); });
    Wait(request);
    return request->status;
  }
  // What replica `i` has, as ScriptedReplica::Layers tells.
  std::string Layers(size_t i) {
    std::string text;
    bench.On([&] { text = replicas[i]->Layers(); });
    return text;
  }
  bool WaitForLayers(size_t i, const std::string& expected, int limit_ms = 10'000) {
    const bool met = bench.Until([&] { return replicas[i]->Layers() == expected; }, limit_ms);
    if (!met) test::Fail(__FILE__, __LINE__, "replica has: " + Layers(i));
    return met;
  }
  // All that have it have the same view.
  bool SameViews(const std::string& name) {
    bool same = true;
    bench.On([&] {
      const std::vector<std::byte>* first = nullptr;
      for (ScriptedReplica* replica : replicas) {
        for (const ScriptedReplica::Layer& layer : replica->layers) {
          if (layer.name != name) continue;
          if (first == nullptr) first = &layer.view;
          same &= layer.view == *first;
        }
      }
      same &= first != nullptr;
    });
    return same;
  }
  // Before the start: a layer that there is, named by the record that they hold.
  void Give(size_t i, const std::string& name, bool sealed, bool removed = false) {
    replicas[i]->layers.push_back({name, sealed, removed, {}});
    replicas[i]->state.unsealed = !sealed;
  }
  // All hold a complete record that names it.
  void HoldRecord(const std::string& newest) {
    bench.options.epoch.attachment = 2;
    wire::Record record;
    record.epoch = {1, 3};
    record.generation = 5;
    for (ScriptedReplica* replica : replicas) record.members.Add(replica->id());
    record.newest_snapshot = newest;
    for (ScriptedReplica* replica : replicas) replica->state.records = {record, record};
    bench.stored = record;
  }
  std::vector<std::unique_ptr<Asked>> asked;
};

inline bool Good(const Status& status) {
  if (!status.ok()) {
    test::Fail(__FILE__, __LINE__,
               std::string(ErrorCodeName(status.code())) + ": " + status.message());
  }
  return status.ok();
}

inline bool IsAboutSnapshots(wire::Opcode opcode) {
  return opcode == wire::Opcode::kLayers || opcode == wire::Opcode::kPrepare ||
         opcode == wire::Opcode::kFlush || opcode == wire::Opcode::kRecord ||
         opcode == wire::Opcode::kSeal || opcode == wire::Opcode::kDelete;
}

// What a replica is asked about snapshots, in its order; of the reactor's thread.
inline Judge::Function Tell(std::vector<std::string>* frames) {
  return [frames](const wire::Header& header) {
    if (IsAboutSnapshots(header.opcode)) frames->push_back(wire::OpcodeName(header.opcode));
    return Verdict{};
  };
}

// Writers that go on until they are told to stop, at random places.
struct Writers {
  explicit Writers(Bench& of, int depth) : bench(of) {
    bench.On([&] {
      for (int i = 0; i < depth; ++i) {
        ++under_way;
        Request* request =
            bench.SubmitHere(BlockOperation::kWrite, uint64_t{4096} * i, 4096, uint8_t(i));
        request->then = [this](Request* self) { Again(self); };
      }
    });
  }
  void Again(Request* request) {
    if (request->status != ErrorCode::kOk) test::Fail(__FILE__, __LINE__, "a write failed");
    ++written;
    if (stop) {
      --under_way;
      return;
    }
    random = random * 6364136223846793005 + 1442695040888963407;
    request->offset_bytes = (random >> 33) % (Bench::kSizeBytes / 4096) * 4096;
    std::memset(request->chunk->data, static_cast<int>(random >> 56), 4096);
    --request->runs;
    bench.engine->Submit(request);
  }
  void Stop() {
    bench.On([&] { stop = true; });
    EXPECT(bench.Until([&] { return under_way == 0; }));
  }

  Bench& bench;
  bool stop = false;
  int under_way = 0;
  uint64_t written = 0;
  uint64_t random = 7;
};

}  // namespace ankole::engine::testing
