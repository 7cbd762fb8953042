#include "replica/snapshots_testing.h"

#include <cstddef>
#include <span>

namespace ankole::replica::testing {

void OnEpoll(const std::function<void(io::Reactor&)>& body) {
  auto reactor = io::MakeReactor(
      {.backend = io::Backend::kEpoll, .probe_directory = test::TemporaryDirectory()});
  ASSERT_OK(reactor);
  body(*reactor.value());
}

ErrorCode Prepare(Driver& driver, const std::string& name, const std::string& labels) {
  ReplicaOperation& operation = driver.Add(OperationKind::kPrepare);
  operation.layer = name;
  operation.labels = labels;
  operation.user_created = true;
  operation.created_seconds = 1'700'000'100;
  return driver.Run();
}

ErrorCode PrepareRevert(Driver& driver, const std::string& name, const std::string& base) {
  ReplicaOperation& operation = driver.Add(OperationKind::kPrepare);
  operation.layer = name;
  operation.base = base;
  operation.created_seconds = 1'700'000'200;
  return driver.Run();
}

wire::RecordPair NextRecord(const Driver& driver, const std::string& newest) {
  wire::RecordPair record = const_cast<Driver&>(driver).replica().record();
  if (record.current.exists()) record.complete = record.current;
  record.current.epoch = {.attachment = 1, .run = 1};
  ++record.current.generation;
  record.current.members = {};
  record.current.members.Add(0xa1);
  record.current.newest_snapshot = newest;
  return record;
}

ErrorCode Switch(Driver& driver, const std::string& name) {
  const wire::RecordPair record = NextRecord(driver, name);
  return driver.WriteRecord(record, record.current.epoch);
}

ErrorCode AboutLayer(Driver& driver, OperationKind kind, const std::string& name) {
  driver.Add(kind).layer = name;
  return driver.Run();
}

ErrorCode Snapshot(Driver& driver, const std::string& name) {
  for (const auto& step :
       {+[](Driver&d, const std::string&n) { return Prepare(d, n); },
        +[](Driver&d, const std::string&n) { return Switch(d, n); },
        +[](Driver&d, const std::string&) { return d.Do(OperationKind::kFlush); },
        +[](Driver&d, const std::string&n) { return AboutLayer(d, OperationKind::kSeal, n); }}) {
    const ErrorCode outcome = step(driver, name);
    if (outcome != ErrorCode::kOk) return outcome;
  }
  return ErrorCode::kOk;
}

ErrorCode CleanNow(Driver& driver, uint64_t region, uint64_t count) {
  ErrorCode outcome = ErrorCode::kBusy;
  for (uint64_t i = 0; i < count && outcome == ErrorCode::kBusy; ++i) {
    ReplicaOperation& operation =
        driver.Add(OperationKind::kClean, region * kRegionBytes, count * kRegionBytes);
    operation.clean.epoch = driver.replica().record().current.epoch;
    operation.clean.generation = driver.replica().record().current.generation;
    outcome = driver.Run();
  }
  return outcome;
}

uint16_t OpenView(Driver& driver, const std::string& name, const std::string& base,
                  ErrorCode expected) {
  uint16_t view = 0;
  ReplicaOperation& operation = driver.Add(OperationKind::kOpenView);
  operation.layer = name;
  operation.base = base;
  operation.holder = &driver;
  driver.on_done = [&view](ReplicaOperation* self) { view = self->view; };
  EXPECT_EQ(driver.Run(), expected);
  return view;
}

std::string ReadView(Driver& driver, uint16_t view, uint64_t at, uint64_t length,
                     ErrorCode expected) {
  std::string data(length, '?');
  for (uint64_t from = 0; from < length; from += kDataBytesMax) {
    const uint64_t bytes = std::min<uint64_t>(kDataBytesMax, length - from);
    driver.Add(OperationKind::kRead, at + from, bytes, data.data() + from).view = view;
    EXPECT_EQ(driver.Run(), expected);
  }
  return data;
}

std::string ReadSnapshot(Driver& driver, const std::string& name) {
  const uint16_t view = OpenView(driver, name);
  if (view == 0) return "";
  std::string all = ReadView(driver, view, 0, driver.replica().size_bytes());
  driver.replica().CloseViews(&driver);
  return all;
}

bool SnapshotHolds(Driver& driver, const std::string& name, std::string_view content) {
  const uint16_t view = OpenView(driver, name);
  if (view == 0) return false;
  const bool holds = driver.Holds(content, view);
  driver.replica().CloseViews(&driver);
  return holds;
}

std::vector<wire::LayerEntry> LayersOf(Driver& driver) {
  std::vector<wire::LayerEntry> layers;
  for (;;) {
    std::vector<std::byte> answer(kControlPayloadBytesMax);
    uint32_t bytes = 0;
    ReplicaOperation& operation = driver.Add(OperationKind::kLayers, 0, 0, answer.data());
    operation.first = static_cast<uint32_t>(layers.size());
    driver.on_done = [&bytes](ReplicaOperation* self) { bytes = self->answer_bytes; };
    EXPECT_EQ(driver.Run(), ErrorCode::kOk);
    const size_t count = bytes / wire::kLayerEntryBytes;
    for (size_t i = 0; i < count; ++i) {
      Result<wire::LayerEntry> entry = wire::DecodeLayer(
          std::span(answer).subspan(i * wire::kLayerEntryBytes).first<wire::kLayerEntryBytes>());
      EXPECT(entry.ok());
      if (entry.ok()) layers.push_back(entry.Take());
    }
    if (count < wire::kLayerEntriesMax) return layers;
  }
}

std::vector<wire::RegionRun> ChangedOf(Driver& driver, const std::string& upper,
                                       const std::string& base) {
  std::vector<std::byte> answer(kControlPayloadBytesMax);
  uint32_t bytes = 0;
  ReplicaOperation& operation = driver.Add(OperationKind::kChanged, 0, 0, answer.data());
  operation.layer = upper;
  operation.base = base;
  driver.on_done = [&bytes](ReplicaOperation* self) { bytes = self->answer_bytes; };
  EXPECT_EQ(driver.Run(), ErrorCode::kOk);
  Result<wire::RegionRuns> runs =
      wire::RegionRuns::Decode(std::span<const std::byte>(answer).first(bytes));
  EXPECT(runs.ok());
  return runs.ok() ? runs.value().ToVector() : std::vector<wire::RegionRun>();
}

ErrorCode Expand(Driver& driver, uint64_t size_bytes) {
  driver.Add(OperationKind::kExpand).size_bytes = size_bytes;
  return driver.Run();
}

std::string Padded(std::string content, uint64_t size_bytes) {
  content.resize(size_bytes, '\0');
  return content;
}

int MergeAll(Driver& driver) {
  for (int steps = 1;; ++steps) {
    driver.Add(OperationKind::kMerge);
    bool more = false;
    driver.on_done = [&more](ReplicaOperation* self) { more = self->more; };
    if (driver.Run() != ErrorCode::kOk) return 0;
    if (!more) return steps;
  }
}

History MakeHistory(Driver& driver) {
  History history;
  WriteRecord(driver);
  char seed = 'a';
  for (const std::string name : {"one", "two", "three"}) {
    const uint64_t at = static_cast<uint64_t>(seed - 'a') * 65536;
    Write(driver, at, Text(3 * 65536, seed));
    Write(driver, 5 * kMiB + at + 512, Text(1024, seed));
    EXPECT_EQ(driver.Do(OperationKind::kUnmap, at + 8192, 12288), ErrorCode::kOk);
    ReplicaOperation& zero = driver.Add(OperationKind::kZero, at + 32768, 8192);
    zero.keep_allocated = true;
    EXPECT_EQ(driver.Run(), ErrorCode::kOk);
    EXPECT_EQ(Snapshot(driver, name), ErrorCode::kOk);
    history.snapshots[name] = driver.ReadAll();
    ++seed;
  }
  Write(driver, 65536 + 4096, Text(8192, 'x'));
  EXPECT_EQ(driver.Do(OperationKind::kUnmap, 0, 8192), ErrorCode::kOk);
  history.head = driver.ReadAll();
  return history;
}

void ExpectSame(Driver& driver, const History& history) {
  EXPECT(driver.Holds(history.head));
  for (const auto& [name, content] : history.snapshots) {
    EXPECT(SnapshotHolds(driver, name, content));
  }
  EXPECT_EQ(driver.replica().sum_counters().errors, uint64_t{0});
}

}  // namespace ankole::replica::testing
