#include "replica/state_file.h"

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace ankole::replica {
namespace {

constexpr uint64_t kStateMagic = 0x3145'5441'5453'4b41;  // «AKSTATE1»
constexpr uint32_t kStateVersion = 1;

// The head of a slot; the rest of its 4096 bytes is zero, and the state follows.
struct StateSlotHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t checksum;  // CRC32C of the whole slot with this field zero
  uint64_t sequence;  // sequence % 2 is the slot's place
};
static_assert(offsetof(StateSlotHeader, magic) == 0);
static_assert(offsetof(StateSlotHeader, version) == 8);
static_assert(offsetof(StateSlotHeader, checksum) == 12);
static_assert(offsetof(StateSlotHeader, sequence) == 16);
static_assert(sizeof(StateSlotHeader) == 24);

using StateSlot = std::vector<std::byte>;

StateSlot EncodeStateSlot(TargetState state, uint64_t sequence) {
  StateSlot slot(kStateSlotBytes);
  const StateSlotHeader header = {kStateMagic, kStateVersion, 0, sequence};
  std::memcpy(slot.data(), &header, sizeof(header));
  std::memcpy(slot.data() + kStateSlotHeaderBytes, state.data(), state.size());
  StoreLittle(slot.data() + offsetof(StateSlotHeader, checksum), Crc32c(slot.data(), slot.size()));
  return slot;
}

// The sequence number of a slot that is whole.
Result<uint64_t> CheckStateSlot(StateSlot* slot, uint64_t place) {
  StateSlotHeader header;
  std::memcpy(&header, slot->data(), sizeof(header));
  StoreLittle<uint32_t>(slot->data() + offsetof(StateSlotHeader, checksum), 0);
  if (header.magic != kStateMagic) return Status(ErrorCode::kCorrupt, "no target state");
  if (header.checksum != Crc32c(slot->data(), slot->size())) {
    return Status(ErrorCode::kCorrupt, "checksum does not match");
  }
  if (header.version != kStateVersion) {
    return Status(ErrorCode::kUnsupported, "version " + std::to_string(header.version));
  }
  if (header.sequence % 2 != place) return Status(ErrorCode::kCorrupt, "in the other's place");
  return header.sequence;
}

struct NewestState {
  uint64_t sequence = 0;
  StateSlot slot;
};

Result<NewestState> ReadStateSlots(io::FileSystem& files, io::File file) {
  std::optional<NewestState> best;
  std::string reasons;
  for (uint64_t place = 0; place < 2; ++place) {
    StateSlot slot(kStateSlotBytes);
    const Result<size_t> got =
        files.ReadAt(file, place * kStateSlotBytes, slot.data(), slot.size());
    if (!got.ok()) return got.status();
    const Result<uint64_t> sequence = got.value() < slot.size()
                                          ? Status(ErrorCode::kCorrupt, "cut short")
                                          : CheckStateSlot(&slot, place);
    if (sequence.ok()) {
      if (!best || sequence.value() > best->sequence) best = NewestState{sequence.value(), slot};
      continue;
    }
    // A slot of a newer version may be the newer one: going on with the other would go back in
    // time.
    if (sequence.status().code() != ErrorCode::kCorrupt) return sequence.status();
    reasons += (place == 0 ? "slot 0: " : "; slot 1: ") + sequence.status().message();
  }
  if (!best) return Status(ErrorCode::kCorrupt, "neither slot is whole (" + reasons + ")");
  return *std::move(best);
}

class OpenFile {
 public:
  OpenFile(io::FileSystem& files, io::File file) : files_(files), file_(file) {}
  ~OpenFile() { files_.Close(file_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

 private:
  io::FileSystem& files_;
  io::File file_;
};

}  // namespace

Status CreateStateFile(io::FileSystem& files, const std::string& path) {
  Result<io::File> opened = files.Open(path, {.write = true, .create = true, .truncate = true});
  if (!opened.ok()) return opened.status();
  const OpenFile closes(files, opened.value());
  std::array<std::byte, kTargetStateBytes> nothing = {};
  for (uint64_t sequence = 0; sequence < 2; ++sequence) {
    const StateSlot slot = EncodeStateSlot(nothing, sequence);
    RETURN_IF_ERROR(
        files.WriteAt(opened.value(), sequence * kStateSlotBytes, slot.data(), slot.size())
            .Within(path));
  }
  return files.Sync(opened.value()).Within(path);
}

Status ReadStateFile(io::FileSystem& files, const std::string& path, TargetState to) {
  Result<io::File> opened = files.Open(path, {});
  if (!opened.ok() && opened.status().code() == ErrorCode::kNotFound) {
    std::memset(to.data(), 0, to.size());
    return Status::Ok();
  }
  if (!opened.ok()) return opened.status();
  const OpenFile closes(files, opened.value());
  const Result<NewestState> newest = ReadStateSlots(files, opened.value());
  if (!newest.ok()) return newest.status().Within(path);
  std::memcpy(to.data(), newest.value().slot.data() + kStateSlotHeaderBytes, to.size());
  return Status::Ok();
}

Status WriteStateFile(io::FileSystem& files, const std::string& path, TargetState from,
                      bool* sync_failed) {
  *sync_failed = false;
  if (const Result<io::FileInfo> info = files.Info(path); !info.ok()) {
    if (info.status().code() != ErrorCode::kNotFound) return info.status();
    RETURN_IF_ERROR(CreateStateFile(files, path));
    RETURN_IF_ERROR(files.SyncDirectory(path.substr(0, path.rfind('/'))));
  }
  Result<io::File> opened = files.Open(path, {.write = true});
  if (!opened.ok()) return opened.status();
  const OpenFile closes(files, opened.value());
  const Result<NewestState> newest = ReadStateSlots(files, opened.value());
  // Where a crash left its making half done both slots are made anew; nothing was kept in them.
  if (!newest.ok() && newest.status().code() != ErrorCode::kCorrupt) {
    return newest.status().Within(path);
  }
  const uint64_t sequence = newest.ok() ? newest.value().sequence + 1 : 0;
  const StateSlot slot = EncodeStateSlot(from, sequence);
  RETURN_IF_ERROR(
      files.WriteAt(opened.value(), sequence % 2 * kStateSlotBytes, slot.data(), slot.size())
          .Within(path));
  const Status synced = files.SyncData(opened.value());
  *sync_failed = !synced.ok();
  return synced.Within(path);
}

}  // namespace ankole::replica
