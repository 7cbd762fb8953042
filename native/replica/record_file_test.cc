#include "replica/record_file.h"

#include "replica/replica_testing.h"

namespace ankole::replica {
namespace {

RecordState State(uint64_t generation) {
  RecordState state;
  state.record.current.epoch = {.attachment = 3, .run = generation};
  state.record.current.generation = generation;
  state.record.current.members.Add(0xa1);
  state.record.current.members.Add(0xa2);
  state.record.current.newest_snapshot = "monday";
  state.record.complete = state.record.current;
  state.welcomed = {.attachment = 9, .run = generation};
  state.clean = generation % 2 == 0;
  state.boot_id = "0f1e2d3c-0000-1111-2222-333344445555";
  state.mount_id = "m00000000000000ff-00000008:00000010";
  state.recorded_in = IncarnationOf(state.boot_id, state.mount_id);
  return state;
}

void Damage(io::FileSystem& files, const std::string& path, uint64_t offset) {
  const Result<io::File> file = files.Open(path, {.write = true});
  ASSERT_OK(file);
  char byte = 0;
  ASSERT_OK(files.ReadAt(file.value(), offset, &byte, 1));
  byte ^= 0x40;
  ASSERT_OK(files.WriteAt(file.value(), offset, &byte, 1));
  files.Close(file.value());
}

TEST(replica_record_file, what_was_written_comes_back) {
  const auto files = io::MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/record";
  ASSERT_OK(RecordFile::Create(*files, path, RecordState{}));
  for (uint64_t generation = 1; generation < 6; ++generation) {
    Result<RecordFile> file = RecordFile::Open(*files, path);
    ASSERT_OK(file);
    EXPECT(file.value().state() == (generation == 1 ? RecordState{} : State(generation - 1)));
    bool sync_failed = true;
    ASSERT_OK(file.value().Write(*files, State(generation), &sync_failed));
    EXPECT(!sync_failed);
    file.value().Close(*files);
    EXPECT(RecordFile::Read(*files, path).value() == State(generation));
  }
  EXPECT_EQ(files->Info(path).value().size_bytes, kRecordFileBytes);
}

TEST(replica_record_file, a_damaged_slot_falls_back_to_the_other) {
  const auto files = io::MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/record";
  for (const uint64_t where : {0, 9, 13, 17, 30, 45, 60, 89, 100, 130, 447, 448, 4095}) {
    (void)files->Remove(path).ok();
    ASSERT_OK(RecordFile::Create(*files, path, RecordState{}));
    Result<RecordFile> file = RecordFile::Open(*files, path);
    ASSERT_OK(file);
    bool sync_failed = false;
    // Slots: generation 2 in 1, generation 1 in 0.
    ASSERT_OK(file.value().Write(*files, State(1), &sync_failed));
    ASSERT_OK(file.value().Write(*files, State(2), &sync_failed));
    file.value().Close(*files);
    Damage(*files, path, kRecordSlotBytes + where);
    EXPECT(RecordFile::Read(*files, path).value() == State(1));
    Damage(*files, path, where);
    const Result<RecordState> neither = RecordFile::Read(*files, path);
    ASSERT(!neither.ok());
    EXPECT_EQ(neither.status().code(), ErrorCode::kCorrupt);
    EXPECT(neither.status().message().find("neither slot") != std::string::npos);
  }
}

TEST(replica_record_file, every_cut_leaves_the_old_or_the_new_record) {
  const auto files = io::MakePosixFileSystem();
  CutFiles cutting(*files);
  for (const size_t torn_bytes : {0, 30, 200}) {
    cutting.torn_bytes = torn_bytes;
    const std::string path = test::TemporaryDirectory() + "/record";
    ASSERT_OK(RecordFile::Create(*files, path, State(1)));
    uint64_t generation = 1;
    bool done = false;
    for (int cut = 1; !done; ++cut) {
      cutting.Reset(cut);
      Result<RecordFile> file = RecordFile::Open(cutting, path);
      ASSERT_OK(file);
      bool sync_failed = false;
      done = file.value().Write(cutting, State(generation + 1), &sync_failed).ok();
      file.value().Close(cutting);
      const Result<RecordState> state = RecordFile::Read(*files, path);
      ASSERT_OK(state);
      EXPECT(state.value() == State(generation + 1) ||
             (!done && state.value() == State(generation)));
      generation = state.value().record.current.generation;
    }
    EXPECT(cutting.cut > 2);
  }
}

TEST(replica_record_file, a_failed_sync_is_final) {
  const auto files = io::MakePosixFileSystem();
  CutFiles failing(*files);
  const std::string path = test::TemporaryDirectory() + "/record";
  ASSERT_OK(RecordFile::Create(*files, path, State(1)));
  Result<RecordFile> file = RecordFile::Open(failing, path);
  ASSERT_OK(file);
  bool sync_failed = false;
  failing.fail_sync = true;
  EXPECT_EQ(file.value().Write(failing, State(2), &sync_failed).code(), ErrorCode::kIoError);
  EXPECT(sync_failed);
  failing.fail_sync = false;
  EXPECT(!file.value().Write(failing, State(2), &sync_failed).ok());
  EXPECT(file.value().state() == State(1));
  file.value().Close(failing);
}

TEST(replica_record_file, a_short_or_foreign_file_is_corrupt) {
  const auto files = io::MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/record";
  for (const std::string& text : {std::string(), std::string("x"), std::string(8192, '\0'),
                                  std::string(8192, 'a'), std::string(5000, 'a')}) {
    WriteText(*files, path, text);
    EXPECT_EQ(RecordFile::Read(*files, path).status().code(), ErrorCode::kCorrupt);
  }
}

}  // namespace
}  // namespace ankole::replica
