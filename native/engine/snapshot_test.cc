#include <map>
#include <string>
#include <vector>

#include "engine/snapshot_testing.h"

// Taking snapshots (rule 8).
namespace ankole::engine {
namespace {

using testing::Asked;
using testing::Good;
using testing::Hold;
using testing::Judge;
using testing::Request;
using testing::ScriptedReplica;
using testing::Snapshots;
using testing::Verdict;
using wire::Opcode;

TEST(snapshot, ItsFramesGoInTheOrderOfTheText) {
  Snapshots<2> volume;
  ASSERT(volume.bench.StartAndWait());
  EXPECT(volume.bench.Write(4096, 4096, 7) == ErrorCode::kOk);
  std::array<std::vector<std::string>, 2> frames;
  for (size_t i = 0; i < 2; ++i) volume[i].verdict = testing::Tell(&frames[i]);
  const uint64_t before = volume.bench.Complete().generation;
  Asked* monday = volume.Begin("monday");
  ASSERT(volume.Wait(monday));
  EXPECT(Good(monday->status));
  EXPECT_EQ(monday->members, 2U);
  EXPECT(monday->pause_ns > 0);
  const std::vector<std::string> expected = {"LAYERS", "PREPARE", "FLUSH",
                                             "RECORD", "FLUSH",   "SEAL"};
  for (const auto& of_one : frames) EXPECT(of_one == expected);
  const wire::Record record = volume.bench.Complete();
  EXPECT_EQ(record.newest_snapshot, "monday");
  EXPECT_EQ(record.generation, before + 1);
  EXPECT_EQ(record.members.count, 2);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(volume.Layers(i), "monday");
  EXPECT(volume.SameViews("monday"));
  EXPECT(volume.bench.State() == "serving: ");

  // What members have is known by now.
  for (auto& of_one : frames) of_one.clear();
  EXPECT(Good(volume.Take("tuesday")));
  const std::vector<std::string> again(expected.begin() + 1, expected.end());
  for (const auto& of_one : frames) EXPECT(of_one == again);
  EXPECT_EQ(volume.Layers(1), "monday, tuesday");

  const Json counters = [&] {
    Json json;
    volume.bench.On([&] { json = volume.bench.engine->CountersJson(); });
    return json;
  }();
  const Json* snapshots = counters.Find("snapshots");
  ASSERT(snapshots != nullptr);
  EXPECT_EQ(snapshots->Find("taken")->Write(), "2");
  EXPECT_EQ(snapshots->Find("failed")->Write(), "0");
  double pauses = 0;
  for (const Json& bucket : snapshots->Find("pause")->Find("buckets")->items()) {
    pauses += std::stod(bucket.Write());
  }
  EXPECT_EQ(pauses, 2.0);
}

TEST(snapshot, LaterRecordsNameItToo) {
  Snapshots<3> volume(300);
  ASSERT(volume.bench.StartAndWait());
  EXPECT(Good(volume.Take("monday")));
  volume.bench.On([&] { volume[2].Unlisten(); });
  EXPECT(
      volume.bench.Until([&] { return volume.bench.engine->Report().record.members.count == 2; }));
  EXPECT_EQ(volume.bench.Complete().newest_snapshot, "monday");
  EXPECT(volume.bench.Stop());
  ASSERT(volume.bench.StartAndWait());
  EXPECT_EQ(volume.bench.Complete().newest_snapshot, "monday");
  EXPECT_EQ(volume.Layers(0), "monday");
  EXPECT(Good(volume.Take("tuesday")));
}

// Between the record and the last one that has switched nothing goes to any member, and the views
// are the same, whatever clients do meanwhile.
TEST(snapshot, NothingIsInFlightWhileTheMembersSwitch) {
  Snapshots<3> volume;
  ASSERT(volume.bench.StartAndWait());
  // Of the reactor's thread.
  bool barrier = false;
  std::vector<std::string> trespassers;
  size_t writes = 0;
  const auto watch = [&](size_t i) {
    return [&, i](const wire::Header& header) {
      const bool record = header.opcode == Opcode::kRecord;
      writes += header.opcode == Opcode::kWrite ? 1 : 0;
      if (barrier && !record && header.opcode != Opcode::kPing) {
        trespassers.push_back(std::string(wire::OpcodeName(header.opcode)) + " at " +
                              std::to_string(i));
      }
      if (record) barrier = true;
      // The last one takes its time.
      return Hold(record && i == 2);
    };
  };
  bool stop = false;
  size_t running = 0;
  uint64_t next = 0;
  std::function<void(Request*)> ended;
  const auto begin = [&] {
    const uint64_t n = next++;
    BlockOperation kind = BlockOperation::kWrite;
    if (n % 4 == 3) kind = n % 16 == 7 ? BlockOperation::kFlush : BlockOperation::kRead;
    const bool flush = kind == BlockOperation::kFlush;
    ++running;
    volume.bench
        .SubmitHere(kind, flush ? 0 : n * 4096 * 7 % (2 * kMiB), flush ? 0 : 4096,
                    static_cast<uint8_t>(n))
        ->then = ended;
  };
  ended = [&](Request* request) {
    if (request->chunk != nullptr) BufferPool::Release(std::exchange(request->chunk, nullptr));
    --running;
    if (!stop) begin();
  };
  volume.bench.On([&] {
    for (int i = 0; i < 16; ++i) begin();
  });
  volume.bench.Pass(50);
  volume.bench.On([&] {
    for (size_t i = 0; i < 3; ++i) volume[i].verdict = watch(i);
  });
  Asked* monday = volume.Begin("monday");
  EXPECT(volume.bench.Until([&] { return volume[2].held() == 1; }));
  // Those of the load all wait by now.
  Request* flush = volume.bench.Submit(BlockOperation::kFlush, 0, 0);
  Request* write = volume.bench.Submit(BlockOperation::kWrite, 4 * kMiB, 4096, 1);
  Request* store = volume.bench.Submit(BlockOperation::kStoreState, 0, kTargetStateBytes, 2);
  EXPECT(volume.bench.Never([&] { return flush->finished || write->finished || store->finished; },
                            150));
  size_t before = 0;
  volume.bench.On([&] {
    for (const std::string& one : trespassers) test::Fail(__FILE__, __LINE__, one);
    EXPECT(!monday->finished);
    EXPECT_EQ(volume[0].layers.size() + volume[1].layers.size(), 2U);
    EXPECT(volume[2].layers.empty());
    before = writes;
    barrier = false;
    for (size_t i = 0; i < 3; ++i) volume[i].verdict = Judge::Function();
    volume[2].Release();
  });
  ASSERT(volume.Wait(monday));
  EXPECT(Good(monday->status));
  EXPECT(monday->pause_ns >= 150 * kNsPerMs && monday->pause_ns < 5 * kNsPerSecond);
  EXPECT(before > 0);
  for (Request* request : {flush, write, store}) EXPECT(volume.bench.Wait(request));
  volume.bench.On([&] { stop = true; });
  EXPECT(volume.bench.Until([&] { return running == 0; }));
  EXPECT(volume.SameViews("monday"));
}

TEST(snapshot, OneThatCannotBePreparedChangesNothing) {
  for (const ErrorCode error : {ErrorCode::kNoSpace, ErrorCode::kIoError}) {
    Snapshots<2> volume;
    ASSERT(volume.bench.StartAndWait());
    const wire::Record before = volume.bench.Complete();
    volume[1].verdict = [error](const wire::Header& header) {
      return testing::FailWith(header.opcode == Opcode::kPrepare, error);
    };
    const Status status = volume.Take("monday");
    EXPECT(status.code() == error);
    EXPECT(status.message() == "snapshot monday: replica " + wire::ReplicaIdText(volume[1].id()) +
                                   " cannot prepare it: " + ErrorCodeName(error));
    EXPECT(volume.bench.Complete() == before);
    EXPECT_EQ(volume.Layers(0) + volume.Layers(1), "");
    EXPECT(volume.bench.Write(0, 4096, 1) == ErrorCode::kOk);
    volume[1].verdict = Judge::Function();
    EXPECT(Good(volume.Take("monday")));  // what was prepared is replaced
    EXPECT_EQ(volume.Layers(1), "monday");
  }
}

TEST(snapshot, NamesAndLabelsAreChecked) {
  Snapshots<1> volume;
  ASSERT(volume.bench.StartAndWait());
  for (const std::string& name :
       {std::string(), std::string("a/b"), std::string("a..b"), std::string(64, 'a')}) {
    EXPECT(volume.Take(name).code() == ErrorCode::kInvalidArgument);
    EXPECT(volume.Delete(name).code() == ErrorCode::kInvalidArgument);
  }
  for (const std::string& labels : {std::string("[1]"), std::string(5000, ' ')}) {
    volume.asked.push_back(std::make_unique<Asked>("monday"));
    Asked* request = volume.asked.back().get();
    request->labels = labels;
    volume.bench.On([&] { volume.bench.engine->TakeSnapshot(request); });
    ASSERT(volume.Wait(request));
    EXPECT(request->status.code() == ErrorCode::kInvalidArgument);
  }
  EXPECT(Good(volume.Take("monday")));
  const Status twice = volume.Take("monday");
  EXPECT(twice.code() == ErrorCode::kAlreadyExists);
  // Nor when it is gone: a record that names it would switch nothing.
  EXPECT(Good(volume.Delete("monday")));
  volume.bench.On([&] { volume[0].layers.clear(); });
  EXPECT(volume.Take("monday").code() == ErrorCode::kAlreadyExists);
  EXPECT(Good(volume.Take("tuesday")));
  EXPECT(volume.Take("tuesday").code() == ErrorCode::kAlreadyExists);
}

// Requests that take long are not waited for with I/O held up for longer than a second.
TEST(snapshot, GivesWayToRequestsThatTakeLong) {
  Snapshots<2> volume;
  ASSERT(volume.bench.StartAndWait());
  volume[1].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == Opcode::kWrite && header.offset_bytes == 0);
  };
  Request* slow = volume.bench.Submit(BlockOperation::kWrite, 0, 4096, 1);
  EXPECT(volume.bench.Until([&] { return volume[1].held() == 1; }));
  Asked* monday = volume.Begin("monday");
  for (int i = 0; i < 8; ++i) {
    Request* other = volume.bench.Submit(BlockOperation::kWrite, 8192, 4096, 2);
    EXPECT(volume.bench.Wait(other, 2000));
    EXPECT(volume.bench.Flush() == ErrorCode::kOk);
    volume.bench.Pass(200);
  }
  ASSERT(volume.Wait(monday));
  EXPECT(monday->status.code() == ErrorCode::kBusy);
  EXPECT(monday->status.message() == "snapshot monday: requests that are under way take too long");
  EXPECT(monday->pause_ns >= kNsPerSecond && monday->pause_ns < 6 * kNsPerSecond);
  EXPECT_EQ(volume.Layers(0), "");
  volume.bench.On([&] { volume[1].Release(); });
  EXPECT(volume.bench.Wait(slow));
  EXPECT(Good(volume.Take("tuesday")));
  EXPECT_EQ(volume.Layers(1), "tuesday");
}

TEST(snapshot, SnapshotsAreTakenOneAfterTheOther) {
  Snapshots<2> volume;
  ASSERT(volume.bench.StartAndWait());
  std::vector<Asked*> all;
  for (const char* name : {"a", "b", "c"}) all.push_back(volume.Begin(name));
  for (Asked* one : all) {
    ASSERT(volume.Wait(one));
    EXPECT(Good(one->status));
  }
  EXPECT_EQ(volume.Layers(0), "a, b, c");
  EXPECT_EQ(volume.Layers(1), "a, b, c");
}

TEST(snapshot, DeletingIsDoneAtAllMembersAndMayBeRepeated) {
  Snapshots<2> volume;
  ASSERT(volume.bench.StartAndWait());
  EXPECT(Good(volume.Take("monday")));
  volume[1].verdict = [](const wire::Header& header) {
    return testing::FailWith(header.opcode == Opcode::kDelete, ErrorCode::kBusy);
  };
  const Status busy = volume.Delete("monday");
  EXPECT(busy.code() == ErrorCode::kBusy);
  EXPECT(busy.message() == "snapshot monday: replica " + wire::ReplicaIdText(volume[1].id()) +
                               " cannot delete it: it is being read");
  EXPECT_EQ(volume.Layers(1), "monday");
  volume[1].verdict = Judge::Function();
  EXPECT(Good(volume.Delete("monday")));
  EXPECT(Good(volume.Delete("monday")));
  EXPECT(Good(volume.Delete("nothing")));
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(volume.Layers(i), "monday (removed)");
}

// The half of a deletion is not left: where one member has deleted it the others do, too.
TEST(snapshot, ADeletionThatFailedAtOneMemberIsFinishedLater) {
  Snapshots<2> volume;
  ASSERT(volume.bench.StartAndWait());
  EXPECT(Good(volume.Take("monday")));
  volume[1].verdict = [](const wire::Header& header) {
    return testing::FailWith(header.opcode == Opcode::kDelete, ErrorCode::kBusy);
  };
  EXPECT(volume.Delete("monday").code() == ErrorCode::kBusy);
  volume[1].verdict = Judge::Function();
  EXPECT_EQ(volume.Layers(0), "monday (removed)");
  EXPECT(volume.WaitForLayers(1, "monday (removed)", 8000));
}

TEST(snapshot, LayersAreListedPageByPage) {
  Snapshots<1> volume;
  ASSERT(volume.bench.StartAndWait());
  volume.bench.On([&] {
    for (int i = 0; i < 130; ++i) volume.Give(0, "s" + std::to_string(i), true);
  });
  const auto list = [&] {
    volume.asked.push_back(std::make_unique<Asked>());
    Asked* request = volume.asked.back().get();
    volume.bench.On([&] { volume.bench.engine->ListLayers(request); });
    volume.Wait(request);
    return request;
  };
  Asked* all = list();
  EXPECT(Good(all->status));
  ASSERT(all->layers.size() == 131);
  EXPECT_EQ(all->layers[77].name, "s77");
  EXPECT_EQ(all->layers[77].parent, "s76");
  EXPECT_EQ(all->layers[130].name, "");
  EXPECT_EQ(volume[0].asked(Opcode::kLayers), 3);

  // One is merged between two pages: nothing is passed over.
  int pages = 0;
  volume[0].verdict = [&](const wire::Header& header) {
    if (header.opcode == Opcode::kLayers && ++pages == 2) {
      volume[0].layers.erase(volume[0].layers.begin() + 3);
    }
    return Verdict{};
  };
  all = list();
  EXPECT(Good(all->status));
  ASSERT(all->layers.size() == 130);
  EXPECT_EQ(all->layers[3].name, "s4");
  EXPECT_EQ(all->layers[50].name, "s51");
  EXPECT_EQ(pages, 5);
  // They never stand still.
  volume[0].verdict = [&](const wire::Header& header) {
    if (header.opcode == Opcode::kLayers) volume[0].layers.erase(volume[0].layers.begin());
    return Verdict{};
  };
  EXPECT(list()->status.code() == ErrorCode::kBusy);
}

}  // namespace
}  // namespace ankole::engine
