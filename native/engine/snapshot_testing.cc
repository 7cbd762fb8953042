#include "engine/snapshot_testing.h"

#include <cstring>
#include <utility>

namespace ankole::engine::testing {

Asked::Asked(std::string of) {
  name = std::move(of);
  created_seconds = 1'780'000'000;
  done = [](SnapshotRequest* request) { static_cast<Asked*>(request)->finished = true; };
}

SnapshotReplicas::~SnapshotReplicas() { bench.Finish(); }

Asked* SnapshotReplicas::Begin(const std::string& name) {
  asked.push_back(std::make_unique<Asked>(name));
  Asked* request = asked.back().get();
  bench.On([&] { bench.engine->TakeSnapshot(request); });
  return request;
}

bool SnapshotReplicas::Wait(Asked* request, int limit_ms) {
  const bool finished = bench.Until([&] { return request->finished; }, limit_ms);
  if (!finished) test::Fail(__FILE__, __LINE__, "no answer; the engine: " + bench.State());
  return finished;
}

Status SnapshotReplicas::Take(const std::string& name) {
  Asked* request = Begin(name);
  Wait(request);
  return request->status;
}

Status SnapshotReplicas::Delete(const std::string& name) {
  asked.push_back(std::make_unique<Asked>(name));
  Asked* request = asked.back().get();
  bench.On([&] { bench.engine->DeleteSnapshot(request); });
  Wait(request);
  return request->status;
}

std::string SnapshotReplicas::Layers(size_t i) {
  std::string text;
  bench.On([&] { text = replicas[i]->Layers(); });
  return text;
}

bool SnapshotReplicas::WaitForLayers(size_t i, const std::string& expected, int limit_ms) {
  const bool met = bench.Until([&] { return replicas[i]->Layers() == expected; }, limit_ms);
  if (!met) test::Fail(__FILE__, __LINE__, "replica has: " + Layers(i));
  return met;
}

bool SnapshotReplicas::SameViews(const std::string& name) {
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

void SnapshotReplicas::Give(size_t i, const std::string& name, bool sealed, bool removed) {
  replicas[i]->layers.push_back({name, sealed, removed, {}});
  replicas[i]->state.unsealed = !sealed;
}

void SnapshotReplicas::HoldRecord(const std::string& newest) {
  bench.options.epoch.attachment = 2;
  wire::Record record;
  record.epoch = {1, 3};
  record.generation = 5;
  for (ScriptedReplica* replica : replicas) record.members.Add(replica->id());
  record.newest_snapshot = newest;
  for (ScriptedReplica* replica : replicas) replica->state.records = {record, record};
  bench.stored = record;
}

bool Good(const Status& status) {
  if (!status.ok()) {
    test::Fail(__FILE__, __LINE__,
               std::string(ErrorCodeName(status.code())) + ": " + status.message());
  }
  return status.ok();
}

bool IsAboutSnapshots(wire::Opcode opcode) {
  return opcode == wire::Opcode::kLayers || opcode == wire::Opcode::kPrepare ||
         opcode == wire::Opcode::kFlush || opcode == wire::Opcode::kRecord ||
         opcode == wire::Opcode::kSeal || opcode == wire::Opcode::kDelete;
}

Judge::Function Tell(std::vector<std::string>* frames) {
  return [frames](const wire::Header& header) {
    if (IsAboutSnapshots(header.opcode)) frames->push_back(wire::OpcodeName(header.opcode));
    return Verdict{};
  };
}

Writers::Writers(Bench& of, int depth) : bench(of) {
  bench.On([&] {
    for (int i = 0; i < depth; ++i) {
      ++under_way;
      Request* request =
          bench.SubmitHere(BlockOperation::kWrite, uint64_t{4096} * i, 4096, uint8_t(i));
      request->then = [this](Request* self) { Again(self); };
    }
  });
}

void Writers::Again(Request* request) {
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

void Writers::Stop() {
  bench.On([&] { stop = true; });
  EXPECT(bench.Until([&] { return under_way == 0; }));
}

}  // namespace ankole::engine::testing
