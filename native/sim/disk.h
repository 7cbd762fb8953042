#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "io/file_system.h"
#include "sim/random.h"

// The file system of a simulated machine: what its programs see (the page cache), and what would be
// there after a power loss. It takes no time; SimFileSystem adds that.
//
// Data vanishes in any subset of what was not synced, by 512 bytes; of a block that was a hole all
// or nothing, and it may stay allocated and unwritten: ext4 and XFS give it its place first. Names
// vanish in the order in which they were made, a directory at a time: the file systems that have
// FIEMAP journal them.
namespace ankole::sim {

enum class PageKind : uint8_t { kHole, kUnwritten, kData };

struct Page {
  PageKind kind = PageKind::kHole;
  PageKind durable_kind = PageKind::kHole;  // only where `differs`
  // What a power loss leaves is not what programs see.
  bool differs = false;
  // The next sync writes it. Invariant: dirty implies differs. One that differs and is not dirty
  // was dropped by a sync that failed: it is in memory for now, and will never be on the disk.
  bool dirty = false;
  std::unique_ptr<std::byte[]> data;          // kind kData
  std::unique_ptr<std::byte[]> durable_data;  // differs, durable_kind kData
};

struct Inode {
  uint64_t number = 0;
  bool directory = false;
  // A file's.
  uint64_t size_bytes = 0;
  uint64_t durable_size_bytes = 0;
  std::map<uint64_t, Page> pages;
  uint64_t links = 1;      // its names
  uint64_t locked_by = 0;  // the open file; 0: nobody
  // A directory's.
  using Entries = std::map<std::string, std::shared_ptr<Inode>>;
  Entries entries;
  Entries durable_entries;
  struct Change {
    std::string name;
    std::shared_ptr<Inode> inode;  // null: the name goes
    std::string other;             // a rename within the directory: the name that goes
  };
  std::vector<Change> changes;  // not synced, in their order
};
using InodePtr = std::shared_ptr<Inode>;

class Disk {
 public:
  explicit Disk(uint64_t seed);

  // Negative errno, or as said.
  int Lookup(const std::string& path, InodePtr* found);
  int Create(const std::string& path, bool exclusive, InodePtr* found);
  int MakeDirectory(const std::string& path);
  int Remove(const std::string& path, bool directory);
  int Rename(const std::string& from, const std::string& to);
  // Another name of a file. Either may vanish without the other.
  int Link(const std::string& from, const std::string& to);
  // An empty directory in the place of one at the root, as if another disk were mounted there.
  void Replace(const std::string& name);

  // Bytes read: fewer only at the end of the file.
  int64_t Read(const Inode& file, uint64_t offset_bytes, void* to, size_t bytes) const;
  int Write(Inode* file, uint64_t offset_bytes, const void* from, size_t bytes);
  int Truncate(Inode* file, uint64_t size_bytes);
  int Allocate(Inode* file, uint64_t offset_bytes, uint64_t length_bytes);
  void PunchHole(Inode* file, uint64_t offset_bytes, uint64_t length_bytes);
  int ZeroRange(Inode* file, uint64_t offset_bytes, uint64_t length_bytes);
  void Extents(const Inode& file, uint64_t offset_bytes, uint64_t length_bytes, size_t extents_max,
               std::vector<io::FileExtent>* extents) const;

  // The first data, dirty or written, from the one to the other; empty where there is none.
  io::FileRange NextData(const Inode& file, uint64_t offset_bytes, uint64_t end_bytes) const;
  // What is read next is what the disk has, but for what waits to be written.
  void DropCache(Inode* file);

  // A sync begins: part of what is dirty is written now, the pages returned when it ends.
  std::vector<uint64_t> SyncBegins(Inode* file);
  void SyncEnds(Inode* file, const std::vector<uint64_t>& pages);
  // Those pages of the range, now (RWF_DSYNC).
  void SyncRange(Inode* file, uint64_t offset_bytes, uint64_t length_bytes);
  // It failed: some pages were written, some are dropped from memory too, and some stay there as if
  // nothing were wrong until they are evicted; the next sync has nothing to say about any of them.
  void SyncFails(Inode* file);
  void SyncDirectory(Inode* directory);
  // Whether a sync would write anything.
  static bool NeedsSync(const Inode& file);

  // What was not synced vanishes, in part.
  void LosePower();
  // A bit of what the disk holds of that page changes, in memory too unless it is being rewritten.
  // False where there is none.
  bool FlipBit(Inode* file, uint64_t page, uint64_t bit);

  uint64_t allocated_bytes(const Inode& file) const;
  uint64_t used_pages() const { return used_pages_; }
  static constexpr uint64_t kCapacityPages = 1 << 20;
  uint64_t capacity_pages = kCapacityPages;
  // What a failed sync drops may be gone from memory at once; else only when the machine boots.
  bool drops_at_once = false;

  const InodePtr& root() const { return root_; }

 private:
  InodePtr Parent(const std::string& path, std::string* name);
  static void Touch(Page* page, bool whole);
  void Persist(Page* page);
  void Set(Page* page, PageKind kind);
  int Grow(Inode* file, uint64_t first, uint64_t end);
  void ZeroPart(Inode* file, uint64_t begin_bytes, uint64_t end_bytes);
  void Unlink(Inode* inode);
  void LoseFile(Inode* file);
  void LoseDirectory(Inode* directory);
  void Settle(Page* page, bool take_new);

  Random random_;
  uint64_t next_inode_ = 1;
  uint64_t used_pages_ = 0;
  InodePtr root_;
};

}  // namespace ankole::sim
