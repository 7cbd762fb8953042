#include "sim/disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <set>
#include <utility>

#include "base/check.h"

namespace ankole::sim {
namespace {

std::unique_ptr<std::byte[]> NewPage() { return std::make_unique<std::byte[]>(kBlockBytes); }

std::unique_ptr<std::byte[]> CopyPage(const std::byte* from) {
  std::unique_ptr<std::byte[]> page(new std::byte[kBlockBytes]);
  std::memcpy(page.get(), from, kBlockBytes);
  return page;
}

}  // namespace

Disk::Disk(uint64_t seed) : random_(seed), root_(std::make_shared<Inode>()) {
  root_->number = next_inode_++;
  root_->directory = true;
}

// --- names
// ----------------------------------------------------------------------------------------

int Disk::Lookup(const std::string& path, InodePtr* found) {
  InodePtr at = root_;
  for (size_t begin = 0; begin < path.size();) {
    size_t end = path.find('/', begin);
    if (end == std::string::npos) end = path.size();
    if (end > begin) {
      if (!at->directory) return -ENOTDIR;
      const auto next = at->entries.find(path.substr(begin, end - begin));
      if (next == at->entries.end()) return -ENOENT;
      at = next->second;
    }
    begin = end + 1;
  }
  *found = at;
  return 0;
}

InodePtr Disk::Parent(const std::string& path, std::string* name) {
  const size_t slash = path.rfind('/');
  InodePtr parent;
  if (slash == std::string::npos || Lookup(path.substr(0, slash), &parent) < 0 ||
      !parent->directory) {
    return nullptr;
  }
  *name = path.substr(slash + 1);
  return parent;
}

int Disk::Create(const std::string& path, bool exclusive, InodePtr* found) {
  std::string name;
  const InodePtr parent = Parent(path, &name);
  if (parent == nullptr) return -ENOENT;
  const auto there = parent->entries.find(name);
  if (there != parent->entries.end()) {
    if (exclusive) return -EEXIST;
    if (there->second->directory) return -EISDIR;
    *found = there->second;
    return 0;
  }
  if (used_pages_ >= capacity_pages) return -ENOSPC;
  auto inode = std::make_shared<Inode>();
  inode->number = next_inode_++;
  parent->entries[name] = inode;
  parent->changes.push_back({name, inode, ""});
  *found = inode;
  return 0;
}

int Disk::MakeDirectory(const std::string& path) {
  std::string name;
  const InodePtr parent = Parent(path, &name);
  if (parent == nullptr) return -ENOENT;
  if (parent->entries.contains(name)) return -EEXIST;
  if (used_pages_ >= capacity_pages) return -ENOSPC;
  auto inode = std::make_shared<Inode>();
  inode->number = next_inode_++;
  inode->directory = true;
  parent->entries[name] = inode;
  parent->changes.push_back({name, inode, ""});
  return 0;
}

int Disk::Remove(const std::string& path, bool directory) {
  std::string name;
  const InodePtr parent = Parent(path, &name);
  if (parent == nullptr) return -ENOENT;
  const auto there = parent->entries.find(name);
  if (there == parent->entries.end()) return -ENOENT;
  if (there->second->directory != directory) return directory ? -ENOTDIR : -EISDIR;
  if (directory && !there->second->entries.empty()) return -ENOTEMPTY;
  Unlink(there->second.get());
  parent->entries.erase(there);
  parent->changes.push_back({name, nullptr, ""});
  return 0;
}

int Disk::Rename(const std::string& from, const std::string& to) {
  std::string from_name;
  std::string to_name;
  const InodePtr source = Parent(from, &from_name);
  const InodePtr target = Parent(to, &to_name);
  if (source == nullptr || target == nullptr) return -ENOENT;
  // All that is renamed here stays in its directory; more would need a journal of the whole disk.
  CHECK(source == target);
  const auto there = source->entries.find(from_name);
  if (there == source->entries.end()) return -ENOENT;
  const auto over = source->entries.find(to_name);
  if (over != source->entries.end()) {
    if (over->second->directory && !over->second->entries.empty()) return -ENOTEMPTY;
    // Two names of one file: nothing is done (POSIX).
    if (over->second == there->second) return 0;
    Unlink(over->second.get());
  }
  const InodePtr inode = there->second;
  source->entries.erase(from_name);
  source->entries[to_name] = inode;
  source->changes.push_back({to_name, inode, from_name});
  return 0;
}

int Disk::Link(const std::string& from, const std::string& to) {
  InodePtr inode;
  std::string name;
  const InodePtr parent = Parent(to, &name);
  if (parent == nullptr || Lookup(from, &inode) < 0) return -ENOENT;
  if (inode->directory) return -EPERM;
  if (parent->entries.contains(name)) return -EEXIST;
  if (used_pages_ >= capacity_pages) return -ENOSPC;
  ++inode->links;
  parent->entries[name] = inode;
  parent->changes.push_back({name, inode, ""});
  return 0;
}

// One name less. What has none takes up no space.
void Disk::Unlink(Inode* inode) {
  if (--inode->links > 0) return;
  for (const auto& [number, page] : inode->pages) {
    if (page.kind != PageKind::kHole) --used_pages_;
  }
}

void Disk::Replace(const std::string& name) {
  const std::function<void(const Inode&)> drop = [&](const Inode& inode) {
    for (const auto& [child_name, child] : inode.entries) {
      drop(*child);
      Unlink(child.get());
    }
  };
  InodePtr& place = root_->entries.at(name);
  drop(*place);
  place = std::make_shared<Inode>();
  place->number = next_inode_++;
  place->directory = true;
  root_->durable_entries[name] = place;
}

// --- data
// -----------------------------------------------------------------------------------------

int64_t Disk::Read(const Inode& file, uint64_t offset_bytes, void* to, size_t bytes) const {
  if (file.directory) return -EISDIR;
  if (offset_bytes >= file.size_bytes) return 0;
  const uint64_t end = std::min<uint64_t>(file.size_bytes, offset_bytes + bytes);
  auto* out = static_cast<std::byte*>(to);
  auto page = file.pages.lower_bound(offset_bytes / kBlockBytes);
  for (uint64_t at = offset_bytes; at < end;) {
    const uint64_t number = at / kBlockBytes;
    const uint64_t part = std::min(end, (number + 1) * kBlockBytes) - at;
    while (page != file.pages.end() && page->first < number) ++page;
    if (page != file.pages.end() && page->first == number && page->second.kind == PageKind::kData) {
      std::memcpy(out, page->second.data.get() + at % kBlockBytes, part);
    } else {
      std::memset(out, 0, part);
    }
    out += part;
    at += part;
  }
  return static_cast<int64_t>(end - offset_bytes);
}

// What is there now becomes what a power loss leaves.
void Disk::Persist(Page* page) {
  page->differs = page->dirty = false;
  page->durable_data.reset();
}

// Before a page changes. `whole`: all of it is given anew.
void Disk::Touch(Page* page, bool whole) {
  if (!page->differs) {
    page->differs = true;
    page->durable_kind = page->kind;
    if (page->kind == PageKind::kData) {
      page->durable_data = std::move(page->data);
      page->data = whole ? NewPage() : CopyPage(page->durable_data.get());
    }
  }
  page->dirty = true;
}

void Disk::Set(Page* page, PageKind kind) {
  if (page->kind == PageKind::kHole && kind != PageKind::kHole) ++used_pages_;
  if (page->kind != PageKind::kHole && kind == PageKind::kHole) --used_pages_;
  page->kind = kind;
  if (kind != PageKind::kData) {
    page->data.reset();
  } else if (page->data == nullptr) {
    page->data = NewPage();
  }
}

// Whether the holes among these pages still fit on the disk.
int Disk::Grow(Inode* file, uint64_t first, uint64_t end) {
  uint64_t wanted = end - first;
  for (auto page = file->pages.lower_bound(first); page != file->pages.end() && page->first < end;
       ++page) {
    if (page->second.kind != PageKind::kHole) --wanted;
  }
  return wanted > 0 && used_pages_ + wanted > capacity_pages ? -ENOSPC : 0;
}

int Disk::Write(Inode* file, uint64_t offset_bytes, const void* from, size_t bytes) {
  if (bytes == 0) return 0;
  const uint64_t end = offset_bytes + bytes;
  if (const int error = Grow(file, offset_bytes / kBlockBytes, DivideUp(end, kBlockBytes));
      error < 0) {
    return error;
  }
  const auto* in = static_cast<const std::byte*>(from);
  auto hint = file->pages.lower_bound(offset_bytes / kBlockBytes);
  for (uint64_t at = offset_bytes; at < end;) {
    const uint64_t number = at / kBlockBytes;
    const uint64_t part = std::min(end, (number + 1) * kBlockBytes) - at;
    hint = file->pages.try_emplace(hint, number);
    Page& page = hint->second;
    // The kernel writes back what is dirty when it likes.
    if (page.dirty && random_.Chance(1, 8)) Persist(&page);
    Touch(&page, part == kBlockBytes);
    Set(&page, PageKind::kData);
    std::memcpy(page.data.get() + at % kBlockBytes, in, part);
    ++hint;
    in += part;
    at += part;
  }
  file->size_bytes = std::max(file->size_bytes, end);
  return 0;
}

void Disk::ZeroPart(Inode* file, uint64_t begin_bytes, uint64_t end_bytes) {
  const auto page = file->pages.find(begin_bytes / kBlockBytes);
  if (begin_bytes >= end_bytes || page == file->pages.end()) return;
  if (page->second.kind != PageKind::kData) return;
  Touch(&page->second, false);
  std::memset(page->second.data.get() + begin_bytes % kBlockBytes, 0, end_bytes - begin_bytes);
}

int Disk::Truncate(Inode* file, uint64_t size_bytes) {
  if (size_bytes < file->size_bytes) {
    PunchHole(file, size_bytes, RoundUp(file->size_bytes, kBlockBytes) - size_bytes);
  }
  file->size_bytes = size_bytes;
  return 0;
}

int Disk::Allocate(Inode* file, uint64_t offset_bytes, uint64_t length_bytes) {
  const uint64_t first = offset_bytes / kBlockBytes;
  const uint64_t end = DivideUp(offset_bytes + length_bytes, kBlockBytes);
  if (const int error = Grow(file, first, end); error < 0) return error;
  for (uint64_t number = first; number < end; ++number) {
    Page& page = file->pages[number];
    if (page.kind != PageKind::kHole) continue;
    Touch(&page, true);
    Set(&page, PageKind::kUnwritten);
  }
  file->size_bytes = std::max(file->size_bytes, offset_bytes + length_bytes);
  return 0;
}

void Disk::PunchHole(Inode* file, uint64_t offset_bytes, uint64_t length_bytes) {
  const uint64_t end = offset_bytes + length_bytes;
  const uint64_t first_whole = DivideUp(offset_bytes, kBlockBytes);
  const uint64_t end_whole = end / kBlockBytes;
  if (first_whole > end_whole) {
    ZeroPart(file, offset_bytes, end);
    return;
  }
  ZeroPart(file, offset_bytes, first_whole * kBlockBytes);
  for (auto page = file->pages.lower_bound(first_whole);
       page != file->pages.end() && page->first < end_whole; ++page) {
    if (page->second.kind == PageKind::kHole) continue;
    Touch(&page->second, true);
    Set(&page->second, PageKind::kHole);
  }
  ZeroPart(file, end_whole * kBlockBytes, end);
}

int Disk::ZeroRange(Inode* file, uint64_t offset_bytes, uint64_t length_bytes) {
  const uint64_t end = offset_bytes + length_bytes;
  const uint64_t first_whole = DivideUp(offset_bytes, kBlockBytes);
  const uint64_t end_whole = end / kBlockBytes;
  if (const int error = Grow(file, offset_bytes / kBlockBytes, DivideUp(end, kBlockBytes));
      error < 0) {
    return error;
  }
  if (first_whole > end_whole) {
    ZeroPart(file, offset_bytes, end);
  } else {
    ZeroPart(file, offset_bytes, first_whole * kBlockBytes);
    for (uint64_t number = first_whole; number < end_whole; ++number) {
      Page& page = file->pages[number];
      Touch(&page, true);
      Set(&page, PageKind::kUnwritten);
    }
    ZeroPart(file, end_whole * kBlockBytes, end);
  }
  file->size_bytes = std::max(file->size_bytes, end);
  return 0;
}

void Disk::Extents(const Inode& file, uint64_t offset_bytes, uint64_t length_bytes,
                   size_t extents_max, std::vector<io::FileExtent>* extents) const {
  extents->clear();
  const uint64_t end =
      length_bytes > UINT64_MAX - offset_bytes ? UINT64_MAX : offset_bytes + length_bytes;
  for (auto page = file.pages.lower_bound(offset_bytes / kBlockBytes);
       page != file.pages.end() && page->first * kBlockBytes < end; ++page) {
    if (page->second.kind == PageKind::kHole) continue;
    const bool unwritten = page->second.kind == PageKind::kUnwritten;
    const uint64_t from = std::max(page->first * kBlockBytes, offset_bytes);
    const uint64_t to = std::min((page->first + 1) * kBlockBytes, end);
    if (!extents->empty() && extents->back().unwritten == unwritten &&
        extents->back().offset_bytes + extents->back().length_bytes == from) {
      extents->back().length_bytes += to - from;
      continue;
    }
    if (extents->size() == extents_max) return;
    extents->push_back({from, to - from, unwritten});
  }
}

io::FileRange Disk::NextData(const Inode& file, uint64_t offset_bytes, uint64_t end_bytes) const {
  const uint64_t end = std::min(end_bytes, file.size_bytes);
  for (auto page = file.pages.lower_bound(offset_bytes / kBlockBytes);
       page != file.pages.end() && page->first * kBlockBytes < end; ++page) {
    if (page->second.kind != PageKind::kData) continue;
    io::FileRange range = {std::max(offset_bytes, page->first * kBlockBytes), 0};
    uint64_t next = page->first;
    while (page != file.pages.end() && page->first == next &&
           page->second.kind == PageKind::kData) {
      ++page;
      ++next;
    }
    range.end_bytes = std::min(end, next * kBlockBytes);
    return range;
  }
  return {};
}

void Disk::DropCache(Inode* file) {
  for (auto& [number, page] : file->pages) {
    if (page.differs && !page.dirty) Settle(&page, false);
  }
}

uint64_t Disk::allocated_bytes(const Inode& file) const {
  uint64_t pages = 0;
  for (const auto& [number, page] : file.pages) pages += page.kind != PageKind::kHole ? 1 : 0;
  return pages * kBlockBytes;
}

// --- what lasts
// -----------------------------------------------------------------------------------

bool Disk::NeedsSync(const Inode& file) {
  if (file.size_bytes != file.durable_size_bytes) return true;
  for (const auto& [number, page] : file.pages) {
    if (page.dirty) return true;
  }
  return false;
}

// Each page is written either as it is now or as it is at the end: what comes meanwhile is covered
// by chance only, and nobody may count on it.
std::vector<uint64_t> Disk::SyncBegins(Inode* file) {
  std::vector<uint64_t> later;
  for (auto& [number, page] : file->pages) {
    if (!page.dirty) continue;
    if (random_.Chance(1, 2)) {
      Persist(&page);
    } else {
      later.push_back(number);
    }
  }
  return later;
}

void Disk::SyncEnds(Inode* file, const std::vector<uint64_t>& pages) {
  for (const uint64_t number : pages) {
    const auto page = file->pages.find(number);
    if (page != file->pages.end() && page->second.dirty) Persist(&page->second);
  }
  file->durable_size_bytes = file->size_bytes;
}

void Disk::SyncRange(Inode* file, uint64_t offset_bytes, uint64_t length_bytes) {
  const uint64_t end = offset_bytes + length_bytes;
  for (auto page = file->pages.lower_bound(offset_bytes / kBlockBytes);
       page != file->pages.end() && page->first * kBlockBytes < end; ++page) {
    if (page->second.dirty) Persist(&page->second);
  }
  file->durable_size_bytes = file->size_bytes;
}

void Disk::SyncFails(Inode* file) {
  for (auto& [number, page] : file->pages) {
    if (!page.dirty) continue;
    switch (random_.Below(3)) {
      case 0:
        Persist(&page);
        break;
      case 1:
        if (drops_at_once) {
          Settle(&page, false);
          break;
        }
        [[fallthrough]];
      default:
        page.dirty = false;
        break;
    }
  }
  file->durable_size_bytes = file->size_bytes;
}

void Disk::SyncDirectory(Inode* directory) {
  directory->durable_entries = directory->entries;
  directory->changes.clear();
}

// Ends the difference: what is there becomes what the disk has, or what it may have written of it.
void Disk::Settle(Page* page, bool take_new) {
  if (!page->differs) return;
  if (take_new) {
    if (page->kind == PageKind::kData && page->durable_kind != PageKind::kData) {
      // A block has its place before its data, and shows that when all of it is written.
      if (random_.Chance(1, 2)) Set(page, PageKind::kUnwritten);
    } else if (page->kind == PageKind::kData) {
      // By sectors, as the device writes them.
      const bool all = random_.Chance(1, 2);
      for (uint32_t at = 0; at < kBlockBytes && !all; at += kSectorBytes) {
        if (random_.Chance(1, 2)) continue;
        std::memcpy(page->data.get() + at, page->durable_data.get() + at, kSectorBytes);
      }
    }
  } else {
    const PageKind kind = page->durable_kind;
    if (kind == PageKind::kData) page->data = std::move(page->durable_data);
    Set(page, kind);
  }
  page->differs = page->dirty = false;
  page->durable_data.reset();
}

void Disk::LoseFile(Inode* file) {
  // Whether most of it was written back or nothing differs from file to file.
  const uint64_t written_in_4 = random_.Below(5);
  for (auto& [number, page] : file->pages) {
    Settle(&page, page.dirty && random_.Chance(written_in_4, 4));
  }
  if (file->size_bytes != file->durable_size_bytes) {
    const uint64_t size = random_.Chance(1, 2) ? file->size_bytes : file->durable_size_bytes;
    (void)Truncate(file, size);
    file->durable_size_bytes = size;
    for (auto& [number, page] : file->pages) Persist(&page);
  }
  file->locked_by = 0;
}

void Disk::LoseDirectory(Inode* directory) {
  const size_t kept = random_.Below(directory->changes.size() + 1);
  Inode::Entries entries = directory->durable_entries;
  for (size_t i = 0; i < kept; ++i) {
    const Inode::Change& change = directory->changes[i];
    if (!change.other.empty()) entries.erase(change.other);
    if (change.inode != nullptr) {
      entries[change.name] = change.inode;
    } else {
      entries.erase(change.name);
    }
  }
  directory->entries = entries;
  directory->durable_entries = std::move(entries);
  directory->changes.clear();
  for (auto& [name, inode] : directory->entries) {
    if (inode->directory) {
      LoseDirectory(inode.get());
    } else {
      LoseFile(inode.get());
    }
  }
}

void Disk::LosePower() {
  LoseDirectory(root_.get());
  used_pages_ = 0;
  std::vector<Inode*> left = {root_.get()};
  std::set<const Inode*> seen;
  while (!left.empty()) {
    Inode* const inode = left.back();
    left.pop_back();
    for (const auto& [name, child] : inode->entries) {
      const bool first = seen.insert(child.get()).second;
      child->links = first ? 1 : child->links + 1;
      if (first) left.push_back(child.get());
    }
    for (const auto& [number, page] : inode->pages) {
      if (page.kind != PageKind::kHole) ++used_pages_;
    }
  }
}

bool Disk::FlipBit(Inode* file, uint64_t page, uint64_t bit) {
  const auto found = file->pages.find(page);
  if (found == file->pages.end()) return false;
  Page& at = found->second;
  const auto flip = [bit](std::byte* bytes) {
    bytes[bit / 8 % kBlockBytes] ^= static_cast<std::byte>(1U << bit % 8);
  };
  if (at.differs) {
    if (at.durable_kind != PageKind::kData) return false;
    flip(at.durable_data.get());
    return true;
  }
  if (at.kind != PageKind::kData) return false;
  flip(at.data.get());
  return true;
}

}  // namespace ankole::sim
