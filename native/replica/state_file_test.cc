#include "replica/state_file.h"

#include <cstring>
#include <memory>

#include "io/reactor_testing.h"
#include "replica/replica_testing.h"

namespace ankole::replica {
namespace {

using Bytes = std::vector<std::byte>;

Bytes Filled(uint8_t fill) { return Bytes(kTargetStateBytes, static_cast<std::byte>(fill)); }
TargetState StateOf(Bytes& bytes) { return TargetState(bytes.data(), kTargetStateBytes); }

Bytes Read(io::FileSystem& files, const std::string& path) {
  Bytes bytes = Filled(0xee);
  const Status status = ReadStateFile(files, path, StateOf(bytes));
  if (!status.ok()) test::Fail(__FILE__, __LINE__, status.message());
  return bytes;
}

Status Write(io::FileSystem& files, const std::string& path, uint8_t fill) {
  Bytes bytes = Filled(fill);
  bool sync_failed = true;
  const Status status = WriteStateFile(files, path, StateOf(bytes), &sync_failed);
  if (status.ok()) EXPECT(!sync_failed);
  return status;
}

void Damage(io::FileSystem& files, const std::string& path, uint64_t offset) {
  const Result<io::File> file = files.Open(path, {.write = true});
  ASSERT_OK(file);
  char byte = 0;
  ASSERT_OK(files.ReadAt(file.value(), offset, &byte, 1));
  byte ^= 0x10;
  ASSERT_OK(files.WriteAt(file.value(), offset, &byte, 1));
  files.Close(file.value());
}

TEST(replica_state_file, what_was_written_comes_back) {
  const auto files = io::MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/target-state";
  EXPECT(Read(*files, path) == Filled(0));  // there is none yet
  for (uint8_t fill = 1; fill < 6; ++fill) {
    ASSERT_OK(Write(*files, path, fill));
    EXPECT(Read(*files, path) == Filled(fill));
  }
  EXPECT_EQ(files->Info(path).value().size_bytes, kStateFileBytes);
}

TEST(replica_state_file, a_damaged_slot_falls_back_to_the_other) {
  const auto files = io::MakePosixFileSystem();
  for (const uint64_t where : {uint64_t{0}, uint64_t{9}, uint64_t{13}, uint64_t{17}, uint64_t{4095},
                               kStateSlotHeaderBytes, kStateSlotBytes - 1}) {
    const std::string path = test::TemporaryDirectory() + "/target-state";
    ASSERT_OK(CreateStateFile(*files, path));
    ASSERT_OK(Write(*files, path, 1));  // slot 0
    ASSERT_OK(Write(*files, path, 2));  // slot 1
    Damage(*files, path, kStateSlotBytes + where);
    EXPECT(Read(*files, path) == Filled(1));
    Damage(*files, path, where);
    Bytes bytes = Filled(0);
    EXPECT_EQ(ReadStateFile(*files, path, StateOf(bytes)).code(), ErrorCode::kCorrupt);
    // Whoever stores it anew, from a member that has it, heals the file.
    ASSERT_OK(Write(*files, path, 3));
    EXPECT(Read(*files, path) == Filled(3));
  }
}

TEST(replica_state_file, every_cut_leaves_the_old_or_the_new_state) {
  const auto files = io::MakePosixFileSystem();
  CutFiles cutting(*files);
  for (const size_t torn_bytes : {size_t{0}, size_t{24}, size_t{5000}}) {
    cutting.torn_bytes = torn_bytes;
    const std::string path = test::TemporaryDirectory() + "/target-state";
    ASSERT_OK(CreateStateFile(*files, path));
    ASSERT_OK(Write(*files, path, 1));
    uint8_t fill = 1;
    bool done = false;
    for (int cut = 1; !done; ++cut) {
      cutting.Reset(cut);
      done = Write(cutting, path, static_cast<uint8_t>(fill + 1)).ok();
      cutting.Reset(0);
      const Bytes found = Read(*files, path);
      EXPECT(found == Filled(static_cast<uint8_t>(fill + 1)) || (!done && found == Filled(fill)));
      fill = static_cast<uint8_t>(found[0]);
    }
    EXPECT(fill >= 2);
  }
}

TEST(replica_state_file, a_replica_without_the_file_gets_it) {
  io::OnEachBackend([](io::Reactor& reactor) {
    io::FileSystem& files = reactor.files();
    const std::string directory = test::TemporaryDirectory() + "/r";
    ASSERT_OK(Replica::Create(files, directory, TestIdentity(), 4 * kMiB));
    EXPECT_EQ(files.Info(directory + "/target-state").value().size_bytes, kStateFileBytes);
    ASSERT_OK(files.Remove(directory + "/target-state"));
    Bytes bytes = Filled(9);
    {
      Driver driver(files, reactor, directory);
      ASSERT_OK(driver.status());
      EXPECT_EQ(driver.Do(OperationKind::kLoadState, 0, kTargetStateBytes, bytes.data()),
                ErrorCode::kOk);
      EXPECT(bytes == Filled(0));
      bytes = Filled(8);
      EXPECT_EQ(driver.Do(OperationKind::kStoreState, 0, kTargetStateBytes, bytes.data()),
                ErrorCode::kOk);
      ASSERT_OK(driver.Close(true));
    }
    Driver again(files, reactor, directory);
    bytes = Filled(0);
    EXPECT_EQ(again.Do(OperationKind::kLoadState, 0, kTargetStateBytes, bytes.data()),
              ErrorCode::kOk);
    EXPECT(bytes == Filled(8));
  });
}

// Rule 1: it is latched as for any flush.
TEST(replica_state_file, a_failed_sync_is_latched) {
  io::OnEachBackend([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    const std::string directory = test::TemporaryDirectory() + "/r";
    ASSERT_OK(Replica::Create(files, directory, TestIdentity(), 4 * kMiB));
    Bytes bytes = Filled(1);
    Driver driver(files, reactor, directory);
    files.fail_sync = true;
    EXPECT_EQ(driver.Do(OperationKind::kStoreState, 0, kTargetStateBytes, bytes.data()),
              ErrorCode::kIoError);
    files.fail_sync = false;
    EXPECT(driver.replica().sync_failed());
    EXPECT_EQ(driver.Do(OperationKind::kStoreState, 0, kTargetStateBytes, bytes.data()),
              ErrorCode::kSuspect);
    EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kSuspect);
  });
}

}  // namespace
}  // namespace ankole::replica
