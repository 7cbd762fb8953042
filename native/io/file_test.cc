#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "base/units.h"
#include "io/file_work.h"
#include "io/reactor_testing.h"

namespace ankole::io {
namespace {

struct Freed {
  void operator()(char* data) const { std::free(data); }
};
using Aligned = std::unique_ptr<char, Freed>;
Aligned MakeAligned(size_t bytes, char fill) {
  Aligned data(static_cast<char*>(std::aligned_alloc(4096, bytes)));
  std::memset(data.get(), fill, bytes);
  return data;
}

int64_t RunRead(Reactor& reactor, File file, uint64_t offset, void* to, size_t bytes, bool direct) {
  With<FileOperation> read;
  read.file = file;
  read.offset_bytes = offset;
  read.vectors[0] = {to, bytes};
  read.vectors_count = 1;
  read.direct = direct;
  reactor.Read(&read);
  EXPECT_EQ(read.runs, 0);
  RunAll(reactor);
  EXPECT_EQ(read.runs, 1);
  return read.result;
}

// Random operations against a copy in memory; `settle` runs between them (drops the cache, say).
void RandomOperations(Reactor& reactor, File file, bool direct, bool durable, bool cold) {
  constexpr size_t kFileBytes = 1 * kMiB;
  constexpr size_t kUnit = 4096;
  constexpr int kSlots = 8;  // each with a part of the file of its own, all in flight together
  constexpr size_t kSlotBytes = kFileBytes / kSlots;
  std::mt19937_64 random(test::Seed());
  std::vector<char> expected(kFileBytes, 0);
  ASSERT(ftruncate(file.fd, kFileBytes) == 0);
  struct Slot {
    With<FileOperation> operation;
    Aligned data = MakeAligned(kSlotBytes, 0);
    bool write = false;
    size_t offset = 0, bytes = 0;
    int left = 25;
  };
  std::deque<Slot> slots(kSlots);
  std::function<void(size_t)> next = [&](size_t index) {
    Slot& slot = slots[index];
    if (slot.left-- == 0) return;
    slot.write = random() % 2 == 0;
    const size_t unit = direct ? kUnit : 1;
    slot.offset = random() % (kSlotBytes / 2) / unit * unit;
    slot.bytes = std::max(unit, random() % (kSlotBytes / 2) / unit * unit);
    const size_t start = index * kSlotBytes + slot.offset;
    for (size_t i = 0; i < slot.bytes; ++i) {
      slot.data.get()[i] = slot.write ? static_cast<char>(random()) : '?';
    }
    // Cut into up to four vectors.
    FileOperation& operation = slot.operation;
    operation.vectors_count = 0;
    for (size_t cut = 0; cut < slot.bytes;) {
      size_t piece = slot.bytes - cut;
      if (operation.vectors_count < 3) {
        piece = std::min(piece, std::max(unit, random() % slot.bytes / unit * unit));
      }
      operation.vectors[operation.vectors_count++] = {slot.data.get() + cut, piece};
      cut += piece;
    }
    operation.file = file;
    operation.offset_bytes = start;
    operation.direct = direct;
    operation.durable = durable && slot.write;
    operation.once = random() % 4 == 0;
    slot.operation.then = [&, index, start](auto& self) {
      Slot& ran = slots[index];
      EXPECT_EQ(self.result, static_cast<int64_t>(ran.bytes));
      if (ran.write) {
        std::memcpy(expected.data() + start, ran.data.get(), ran.bytes);
      } else {
        EXPECT(std::memcmp(expected.data() + start, ran.data.get(), ran.bytes) == 0);
      }
      if (cold) {
        fdatasync(file.fd);
        posix_fadvise(file.fd, 0, 0, POSIX_FADV_DONTNEED);
      }
      next(index);
    };
    if (slot.write) {
      reactor.Write(&operation);
    } else {
      reactor.Read(&operation);
    }
  };
  for (size_t i = 0; i < kSlots; ++i) next(i);
  RunAll(reactor);
  std::vector<char> found(kFileBytes);
  auto all = MakeAligned(kFileBytes, '?');
  EXPECT_EQ(RunRead(reactor, file, 0, all.get(), kFileBytes, direct),
            static_cast<int64_t>(kFileBytes));
  EXPECT(std::memcmp(all.get(), expected.data(), kFileBytes) == 0);
}

TEST(io_file, random_buffered_operations) {
  OnEachBackend([](Reactor& reactor) {
    const std::string path = test::TemporaryDirectory() + "/file";
    for (const bool durable : {false, true}) {
      auto file = reactor.files().Open(path, {.write = true, .create = true, .random = true});
      ASSERT_OK(file);
      ASSERT_OK(reactor.files().Truncate(file.value(), 0));
      RandomOperations(reactor, file.value(), false, durable, false);
      reactor.files().Close(file.value());
    }
  });
}

TEST(io_file, random_reads_that_are_not_cached) {
  OnEachBackend([](Reactor& reactor) {
    const std::string path = test::TemporaryDirectory() + "/file";
    auto file = reactor.files().Open(path, {.write = true, .create = true, .random = true});
    ASSERT_OK(file);
    RandomOperations(reactor, file.value(), false, false, true);
    reactor.files().Close(file.value());
  });
}

TEST(io_file, random_direct_operations) {
  OnEachBackend([](Reactor& reactor) {
    const std::string path = test::TemporaryDirectory() + "/file";
    auto file = reactor.files().Open(path, {.write = true, .create = true, .direct = true});
    if (!file.ok() && file.status().code() == ErrorCode::kUnsupported) {
      return test::Skip(file.status().message());
    }
    ASSERT_OK(file);
    for (const bool durable : {false, true}) {
      ASSERT_OK(reactor.files().Truncate(file.value(), 0));
      RandomOperations(reactor, file.value(), true, durable, false);
    }
    reactor.files().Close(file.value());
  });
}

TEST(io_file, a_read_is_short_only_at_the_end) {
  OnEachBackend([](Reactor& reactor) {
    const std::string path = test::TemporaryDirectory() + "/file";
    for (const bool direct : {false, true}) {
      auto file = reactor.files().Open(path, {.write = true, .create = true, .direct = direct});
      if (!file.ok()) continue;
      ASSERT_OK(reactor.files().Truncate(file.value(), 6000));
      auto data = MakeAligned(16384, '?');
      for (const bool cold : {false, true}) {
        if (cold) posix_fadvise(file.value().fd, 0, 0, POSIX_FADV_DONTNEED);
        EXPECT_EQ(RunRead(reactor, file.value(), 0, data.get(), 16384, direct), 6000);
        EXPECT_EQ(RunRead(reactor, file.value(), 4096, data.get(), 4096, direct), 1904);
        EXPECT_EQ(RunRead(reactor, file.value(), 8192, data.get(), 4096, direct), 0);
      }
      auto whole = reactor.files().ReadAt(file.value(), 4096, data.get(), 8192);
      ASSERT_OK(whole);
      EXPECT_EQ(whole.value(), 1904u);
      reactor.files().Close(file.value());
    }
  });
}

// More than the rings of io_uring hold, begun in one turn.
TEST(io_file, thousands_of_operations_at_once) {
  OnEachBackend([](Reactor& reactor) {
    constexpr size_t kOperations = 10'000;
    const std::string path = test::TemporaryDirectory() + "/file";
    auto file = reactor.files().Open(path, {.write = true, .create = true, .direct = true});
    if (!file.ok() && file.status().code() == ErrorCode::kUnsupported) {
      return test::Skip(file.status().message());
    }
    ASSERT_OK(file);
    auto data = MakeAligned(kOperations * 4096, 'x');
    ASSERT_OK(reactor.files().WriteAt(file.value(), 0, data.get(), 4096));
    std::deque<With<FileOperation>> reads(kOperations);
    With<Message> begin;
    begin.then = [&](auto&) {
      char* to = data.get();
      for (auto& read : reads) {
        read.file = file.value();
        read.vectors[0] = {to, 4096};
        to += 4096;
        read.vectors_count = 1;
        read.direct = true;
        reactor.Read(&read);
      }
      reactor.Stop();
    };
    reactor.Post(&begin);
    reactor.Loop();
    for (auto& read : reads) {
      EXPECT_EQ(read.runs, 1);
      EXPECT_EQ(read.result, 4096);
    }
    reactor.files().Close(file.value());
  });
}

TEST(io_file, failures_come_as_errno) {
  OnEachBackend([](Reactor& reactor) {
    const std::string path = test::TemporaryDirectory() + "/file";
    auto read_only = reactor.files().Open(path, {.write = true, .create = true});
    ASSERT_OK(read_only);
    reactor.files().Close(read_only.value());
    read_only = reactor.files().Open(path, {});
    ASSERT_OK(read_only);
    char data[16] = {};
    for (const bool durable : {false, true}) {
      With<FileOperation> write;
      write.file = read_only.value();
      write.vectors[0] = {data, sizeof(data)};
      write.vectors_count = 1;
      write.durable = durable;
      reactor.Write(&write);
      RunAll(reactor);
      EXPECT_EQ(write.result, -EBADF);
    }
    EXPECT_EQ(RunRead(reactor, File{1000}, 0, data, sizeof(data), false), -EBADF);
    reactor.files().Close(read_only.value());
  });
}

// A file system of 1 MiB of its own, unmounted in the end.
struct SmallFileSystem {
  std::string path = test::TemporaryDirectory();
  bool mounted = mount("none", path.c_str(), "tmpfs", 0, "size=1m") == 0;
  ~SmallFileSystem() {
    if (mounted) umount(path.c_str());
  }
};

TEST(io_file, a_full_disk_is_enospc) {
  OnEachBackend([](Reactor& reactor) {
    const SmallFileSystem small;
    if (!small.mounted) return test::Skip("mounting a tmpfs needs root");
    auto file = reactor.files().Open(small.path + "/file", {.write = true, .create = true});
    ASSERT_OK(file);
    std::vector<char> data(2 * kMiB, 'x');
    for (const bool durable : {false, true}) {
      With<FileOperation> write;
      write.file = file.value();
      write.vectors[0] = {data.data(), data.size()};
      write.vectors_count = 1;
      write.durable = durable;
      reactor.Write(&write);
      RunAll(reactor);
      EXPECT_EQ(write.result, -ENOSPC);
    }
    FileSystem& files = reactor.files();
    EXPECT(files.WriteAt(file.value(), 0, data.data(), data.size()).code() == ErrorCode::kNoSpace);
    EXPECT(files.Allocate(file.value(), 0, 2 * kMiB).code() == ErrorCode::kNoSpace);
    auto space = files.Space(small.path);
    ASSERT_OK(space);
    EXPECT_EQ(space.value().total_bytes, 1 * kMiB);
    EXPECT_EQ(space.value().free_bytes, 0u);
    files.Close(file.value());
    // The old one stands.
    ASSERT_OK(files.Remove(small.path + "/file"));
    ASSERT_OK(ReplaceFile(files, small.path + "/document", "old"));
    EXPECT(ReplaceFile(files, small.path + "/document", std::string(2 * kMiB, 'x')).code() ==
           ErrorCode::kNoSpace);
    EXPECT_EQ(ReadWholeFile(files, small.path + "/document", 100).value(), "old");
    EXPECT_EQ(files.List(small.path).value().size(), 1u);
  });
}

TEST(io_file, documents_are_replaced_whole_and_read_within_a_bound) {
  const auto files = MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/document";
  EXPECT(ReadWholeFile(*files, path, 10).status().code() == ErrorCode::kNotFound);
  std::string content;
  for (const size_t bytes : {0, 1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 100'000}) {
    content.assign(bytes, 'a');
    ASSERT_OK(ReplaceFile(*files, path, content));
    auto read = ReadWholeFile(*files, path, bytes);
    ASSERT_OK(read);
    EXPECT(read.value() == content);
    if (bytes == 0) continue;
    read = ReadWholeFile(*files, path, bytes - 1);
    EXPECT(read.status().code() == ErrorCode::kCorrupt);
    EXPECT(read.status().message().find(path) != std::string::npos);
  }
  const Status status = ReplaceFile(*files, path + "/none", "x");
  EXPECT(!status.ok());
  EXPECT(status.message().find(path) != std::string::npos);
}

TEST(io_file, names_directories_and_information) {
  const auto files = MakePosixFileSystem();
  const std::string directory = test::TemporaryDirectory() + "/sub";
  ASSERT_OK(files->MakeDirectory(directory));
  struct stat found;
  ASSERT(stat(directory.c_str(), &found) == 0);
  EXPECT_EQ(found.st_mode & 0777, 0700u);
  EXPECT(files->MakeDirectory(directory).code() == ErrorCode::kAlreadyExists);
  EXPECT(files->List(directory).value().empty());
  auto file = files->Open(directory + "/b", {.write = true, .create = true, .exclusive = true});
  ASSERT_OK(file);
  EXPECT(fcntl(file.value().fd, F_GETFD) & FD_CLOEXEC);
  EXPECT(files->Open(directory + "/b", {.write = true, .create = true, .exclusive = true})
             .status()
             .code() == ErrorCode::kAlreadyExists);
  ASSERT_OK(files->Truncate(file.value(), 1 * kMiB));
  ASSERT_OK(ReplaceFile(*files, directory + "/a", "x"));
  EXPECT(files->List(directory).value() == (std::vector<std::string>{"a", "b"}));
  const FileInfo info = files->Info(file.value()).value();
  EXPECT_EQ(info.size_bytes, 1 * kMiB);
  EXPECT_EQ(info.allocated_bytes, 0u);
  EXPECT(!info.directory);
  EXPECT(files->Info(directory).value().directory);
  EXPECT(files->Info(directory + "/c").status().code() == ErrorCode::kNotFound);
  ASSERT_OK(files->Rename(directory + "/b", directory + "/c"));
  const Status not_empty = files->RemoveDirectory(directory);
  EXPECT(!not_empty.ok());
  EXPECT(not_empty.message().find(directory) != std::string::npos);
  ASSERT_OK(files->Remove(directory + "/a"));
  ASSERT_OK(files->Remove(directory + "/c"));
  ASSERT_OK(files->SyncDirectory(directory));
  ASSERT_OK(files->RemoveDirectory(directory));
  files->Close(file.value());
  EXPECT(files->Open(directory + "/x", {.write = true, .create = true}).status().code() ==
         ErrorCode::kNotFound);
  EXPECT_EQ(files->BootId().value().size(), 36u);
  const std::string mount = files->MountId("/").value();
  EXPECT(!mount.empty() && mount.size() <= 36 && mount == files->MountId("/").value());
  EXPECT(mount != files->MountId("/proc").value());
  EXPECT(!files->MountId(directory + "/x").ok());
  EXPECT(files->Space("/").value().total_bytes > 0);
}

TEST(io_file, data_is_found_between_holes_before_it_is_written_back) {
  const auto files = MakePosixFileSystem();
  const auto file =
      files->Open(test::TemporaryDirectory() + "/sparse", {.write = true, .create = true});
  ASSERT_OK(file);
  ASSERT_OK(files->Truncate(file.value(), kMiB));
  const auto data = [&](uint64_t from, uint64_t to) {
    const Result<FileRange> found = files->NextData(file.value(), from, to);
    EXPECT(found.ok());
    return found.ok() ? found.value() : FileRange{};
  };
  EXPECT(data(0, kMiB).empty());
  const std::string text(8192, 'x');
  ASSERT_OK(files->WriteAt(file.value(), 64 * kKiB, text.data(), text.size()));
  for (const uint64_t from : {uint64_t{0}, 64 * kKiB, 68 * kKiB}) {
    EXPECT_EQ(data(from, kMiB).begin_bytes, std::max(from, 64 * kKiB));
    EXPECT_EQ(data(from, kMiB).end_bytes, 72 * kKiB);
    // What a file system without SEEK_DATA of its own is asked.
    EXPECT_EQ(files->FileSystem::NextData(file.value(), from, kMiB).value().end_bytes, 72 * kKiB);
  }
  EXPECT_EQ(data(0, 68 * kKiB).end_bytes, 68 * kKiB);
  EXPECT(data(0, 64 * kKiB).empty() && data(72 * kKiB, kMiB).empty());
  ASSERT_OK(files->Sync(file.value()));
  ASSERT_OK(files->DropCache(file.value()));
  std::string again(8192, '\0');
  ASSERT_OK(files->ReadAt(file.value(), 64 * kKiB, again.data(), again.size()));
  EXPECT(again == text);
  files->Close(file.value());
}

TEST(io_file, a_lock_is_exclusive_within_one_process_too) {
  const auto files = MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/lock";
  auto first = files->Open(path, {.write = true, .create = true});
  auto second = files->Open(path, {});
  ASSERT_OK(first);
  ASSERT_OK(second);
  ASSERT_OK(files->TryLock(first.value()));
  const Status busy = files->TryLock(second.value());
  EXPECT(busy.code() == ErrorCode::kBusy);
  EXPECT(busy.message().find(path) != std::string::npos);
  // Closing another descriptor of the file does not drop it, as it would a POSIX lock.
  files->Close(second.value());
  second = files->Open(path, {});
  EXPECT(files->TryLock(second.value()).code() == ErrorCode::kBusy);
  files->Close(first.value());
  ASSERT_OK(files->TryLock(second.value()));
  files->Close(second.value());
}

TEST(io_file, extents_of_a_sparse_file) {
  const auto files = MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/sparse";
  auto opened = files->Open(path, {.write = true, .create = true});
  ASSERT_OK(opened);
  const File file = opened.value();
  ASSERT_OK(files->Truncate(file, 64 * kMiB));
  std::vector<FileExtent> extents;
  const Status probe = files->Extents(file, 0, 64 * kMiB, 1000, &extents);
  if (probe.code() == ErrorCode::kUnsupported) {
    files->Close(file);
    return test::Skip(probe.message());
  }
  ASSERT_OK(probe);
  EXPECT(extents.empty());
  std::vector<char> data(8192, 'x');
  ASSERT_OK(files->WriteAt(file, 1 * kMiB, data.data(), data.size()));  // not yet on the disk
  ASSERT_OK(files->Allocate(file, 4 * kMiB, 1 * kMiB));
  ASSERT_OK(files->WriteAt(file, 5 * kMiB, data.data(), data.size()));
  ASSERT_OK(files->Extents(file, 0, UINT64_MAX, 1000, &extents));
  ASSERT(extents.size() == 3);
  EXPECT_EQ(extents[0].offset_bytes, 1 * kMiB);
  EXPECT_EQ(extents[0].length_bytes, 8192u);
  EXPECT(!extents[0].unwritten);
  EXPECT_EQ(extents[1].offset_bytes, 4 * kMiB);
  EXPECT_EQ(extents[1].length_bytes, 1 * kMiB);
  EXPECT(extents[1].unwritten);
  EXPECT_EQ(extents[2].offset_bytes, 5 * kMiB);
  EXPECT(!extents[2].unwritten);
  // A part: cut to what was asked for.
  ASSERT_OK(files->Extents(file, 4 * kMiB + 4096, 8192, 1000, &extents));
  ASSERT(extents.size() == 1);
  EXPECT_EQ(extents[0].offset_bytes, 4 * kMiB + 4096);
  EXPECT_EQ(extents[0].length_bytes, 8192u);
  ASSERT_OK(files->Extents(file, 0, 64 * kMiB, 1, &extents));
  EXPECT_EQ(extents.size(), 1u);

  ASSERT_OK(files->PunchHole(file, 1 * kMiB, 4096));
  ASSERT_OK(files->Extents(file, 0, 2 * kMiB, 1000, &extents));
  ASSERT(extents.size() == 1);
  EXPECT_EQ(extents[0].offset_bytes, 1 * kMiB + 4096);
  ASSERT_OK(files->ZeroRange(file, 1 * kMiB + 4096, 4096));
  char byte = 'x';
  EXPECT_EQ(files->ReadAt(file, 1 * kMiB + 4096, &byte, 1).value(), 1u);
  EXPECT_EQ(byte, '\0');
  ASSERT_OK(files->Extents(file, 0, 2 * kMiB, 1000, &extents));
  EXPECT_EQ(extents.size(), 1u);  // still takes up its space
  EXPECT_EQ(files->Info(file).value().size_bytes, 64 * kMiB);
  files->Close(file);
}

TEST(io_file, more_extents_than_one_batch_holds) {
  const auto files = MakePosixFileSystem();
  auto opened = files->Open(test::TemporaryDirectory() + "/many", {.write = true, .create = true});
  ASSERT_OK(opened);
  const File file = opened.value();
  char data[4096] = {'x'};
  for (uint64_t i = 0; i < 700; ++i) ASSERT_OK(files->WriteAt(file, i * 12288, data, sizeof(data)));
  std::vector<FileExtent> extents;
  const Status status = files->Extents(file, 0, 700 * 12288, 1000, &extents);
  if (status.code() == ErrorCode::kUnsupported) {
    files->Close(file);
    return test::Skip(status.message());
  }
  ASSERT_OK(status);
  EXPECT_EQ(extents.size(), 700u);
  for (size_t i = 0; i < extents.size(); ++i) {
    EXPECT_EQ(extents[i].offset_bytes, i * 12288);
    EXPECT_EQ(extents[i].length_bytes, 4096u);
  }
  ASSERT_OK(files->Extents(file, 0, 700 * 12288, 300, &extents));
  EXPECT_EQ(extents.size(), 300u);
  files->Close(file);
}

// How many of the file's pages are in the page cache.
size_t PagesCached(File file, size_t bytes) {
  void* map = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.fd, 0);
  CHECK(map != MAP_FAILED);
  std::vector<unsigned char> pages(bytes / 4096);
  CHECK(mincore(map, bytes, pages.data()) == 0);
  munmap(map, bytes);
  return static_cast<size_t>(
      std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return page % 2 == 1; }));
}

int64_t RunOnce(Reactor& reactor, File file, bool write, char* data, size_t bytes) {
  With<FileOperation> operation;
  operation.file = file;
  operation.vectors[0] = {data, bytes};
  operation.vectors_count = 1;
  operation.once = true;
  if (write) {
    reactor.Write(&operation);
  } else {
    reactor.Read(&operation);
  }
  RunAll(reactor);
  return operation.result;
}

// `knows`: the file system takes RWF_DONTCACHE.
void WrittenAndReadOnce(Reactor& reactor, const std::string& path, bool knows) {
  constexpr size_t kBytes = 512 * kKiB;
  FileSystem& files = reactor.files();
  auto opened = files.Open(path, {.write = true, .create = true, .truncate = true});
  ASSERT_OK(opened);
  const File file = opened.value();
  const Aligned data = MakeAligned(kBytes, 'w');
  // A page that another writeback comes upon first stays.
  size_t cached = 1;
  for (int i = 0; i < 50 && cached > 0; ++i) {
    EXPECT_EQ(RunOnce(reactor, file, true, data.get(), kBytes), static_cast<int64_t>(kBytes));
    ASSERT_OK(files.SyncData(file));
    cached = PagesCached(file, kBytes);
    ASSERT_OK(files.DropCache(file));
  }
  if (knows) EXPECT_EQ(cached, 0U);
  const Aligned back = MakeAligned(kBytes, '?');
  EXPECT_EQ(RunOnce(reactor, file, false, back.get(), kBytes), static_cast<int64_t>(kBytes));
  EXPECT(std::memcmp(back.get(), data.get(), kBytes) == 0);
  if (knows) EXPECT_EQ(PagesCached(file, kBytes), 0U);
  std::memset(back.get(), '?', kBytes);
  EXPECT_EQ(files.ReadOnce(file, 0, back.get(), kBytes).value(), kBytes);
  EXPECT(std::memcmp(back.get(), data.get(), kBytes) == 0);
  if (knows) EXPECT_EQ(PagesCached(file, kBytes), 0U);
  // What others brought there stays.
  EXPECT_EQ(files.ReadAt(file, 0, back.get(), kBytes).value(), kBytes);
  EXPECT_EQ(files.ReadOnce(file, 0, back.get(), kBytes).value(), kBytes);
  EXPECT_EQ(RunOnce(reactor, file, false, back.get(), kBytes), static_cast<int64_t>(kBytes));
  EXPECT_EQ(PagesCached(file, kBytes), kBytes / 4096);
  files.Close(file);
}

TEST(io_file, what_is_moved_once_does_not_stay_in_the_page_cache) {
  const std::string path = test::TemporaryDirectory() + "/once";
  auto file = MakePosixFileSystem()->Open(path, {.write = true, .create = true});
  ASSERT_OK(file);
  char byte = 0;
  const iovec vector = {&byte, 1};
  const bool knows = preadv2(file.value().fd, &vector, 1, 0, kDontCache) >= 0;
  MakePosixFileSystem()->Close(file.value());
  if (!knows) return test::Skip("no RWF_DONTCACHE here (Linux 6.14, by file system)");
  OnEachBackend([&](Reactor& reactor) { WrittenAndReadOnce(reactor, path, true); });
}

TEST(io_file, what_is_moved_once_stays_where_the_kernel_cannot_drop_it) {
  const SmallFileSystem small;  // tmpfs does not know RWF_DONTCACHE
  if (!small.mounted) return test::Skip("mounting a tmpfs needs root");
  OnEachBackend(
      [&](Reactor& reactor) { WrittenAndReadOnce(reactor, small.path + "/once", false); });
}

TEST(io_file, zeros_are_written_where_the_file_system_cannot_zero) {
  const auto files = MakePosixFileSystem();
  const SmallFileSystem small;  // tmpfs knows holes but not FALLOC_FL_ZERO_RANGE
  if (!small.mounted) return test::Skip("mounting a tmpfs needs root");
  auto opened = files->Open(small.path + "/file", {.write = true, .create = true});
  ASSERT_OK(opened);
  const std::string data(300'000, 'x');
  ASSERT_OK(files->WriteAt(opened.value(), 0, data.data(), data.size()));
  ASSERT_OK(files->ZeroRange(opened.value(), 1000, 200'000));
  std::string back(data.size(), '?');
  EXPECT_EQ(files->ReadAt(opened.value(), 0, back.data(), back.size()).value(), data.size());
  EXPECT(back == data.substr(0, 1000) + std::string(200'000, '\0') + data.substr(201'000));
  std::vector<FileExtent> extents;
  EXPECT(files->Extents(opened.value(), 0, 1000, 10, &extents).code() == ErrorCode::kUnsupported);
  files->Close(opened.value());
}

TEST(io_file, addresses) {
  for (const char* text :
       {"unix:/run/ankole.sock", "tcp:127.0.0.1:3260", "tcp:[::1]:0", "tcp:node-1.example:65535"}) {
    auto parsed = Address::Parse(text);
    ASSERT_OK(parsed);
    EXPECT_EQ(parsed.value().ToString(), text);
  }
  const std::string deep(108, 'x');
  for (const std::string& text :
       {std::string(""), std::string("unix:"), "unix:/" + deep, std::string("tcp:"),
        std::string("tcp:host"), std::string("tcp::1"), std::string("tcp:host:"),
        std::string("tcp:host:65536"), std::string("tcp:host:-1"), std::string("tcp:host:1x"),
        std::string("tcp:::1:5"), std::string("tcp:[::1:5"), std::string("tcp:[]:5"),
        std::string("udp:host:5"), std::string("unix:a\0b", 8), std::string("tcp:host: 1")}) {
    EXPECT(Address::Parse(text).status().code() == ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace ankole::io
