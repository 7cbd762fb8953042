#include "replica/record_file.h"

#include <array>
#include <cstring>
#include <optional>
#include <span>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/sha256.h"

namespace ankole::replica {
namespace {

constexpr uint64_t kRecordMagic = 0x3143'4552'4f4b'4e41;  // «ANKOREC1»
constexpr uint32_t kRecordVersion = 1;
constexpr uint32_t kFlagClean = 1;
constexpr uint32_t kFlagUnsealed = 2;

// A slot as docs/internals/replica-format.md has it; the rest of its 4096 bytes is zero.
struct RecordSlot {
  uint64_t magic;
  uint32_t version;
  uint32_t checksum;  // CRC32C of all 4096 bytes with this field zero
  uint64_t sequence;  // sequence % 2 is the slot's place
  uint64_t welcomed_attachment;
  uint64_t welcomed_run;
  uint32_t flags;
  uint32_t boot_id_bytes;
  char boot_id[40];
  uint32_t mount_id_bytes;
  char mount_id[36];
  std::byte record[wire::kEncodedRecordPairBytes];
  Incarnation recorded_in;
  uint32_t head;  // 0: not known
  uint32_t zero;
};
static_assert(offsetof(RecordSlot, magic) == 0);
static_assert(offsetof(RecordSlot, version) == 8);
static_assert(offsetof(RecordSlot, checksum) == 12);
static_assert(offsetof(RecordSlot, sequence) == 16);
static_assert(offsetof(RecordSlot, welcomed_attachment) == 24);
static_assert(offsetof(RecordSlot, welcomed_run) == 32);
static_assert(offsetof(RecordSlot, flags) == 40);
static_assert(offsetof(RecordSlot, boot_id_bytes) == 44);
static_assert(offsetof(RecordSlot, boot_id) == 48);
static_assert(offsetof(RecordSlot, mount_id_bytes) == 88);
static_assert(offsetof(RecordSlot, mount_id) == 92);
static_assert(offsetof(RecordSlot, record) == 128);
static_assert(offsetof(RecordSlot, recorded_in) == 448);
static_assert(offsetof(RecordSlot, head) == 464);
static_assert(sizeof(RecordSlot) == 472);
static_assert(kBootIdBytesMax <= sizeof(RecordSlot::boot_id));
static_assert(kMountIdBytesMax <= sizeof(RecordSlot::mount_id));

using SlotBytes = std::array<std::byte, kRecordSlotBytes>;

SlotBytes EncodeSlot(const RecordState& state, uint64_t sequence) {
  CHECK(state.boot_id.size() <= kBootIdBytesMax && state.mount_id.size() <= kMountIdBytesMax);
  RecordSlot slot = {};
  slot.magic = kRecordMagic;
  slot.version = kRecordVersion;
  slot.sequence = sequence;
  slot.welcomed_attachment = state.welcomed.attachment;
  slot.welcomed_run = state.welcomed.run;
  slot.flags = (state.clean ? kFlagClean : 0) | (state.unsealed ? kFlagUnsealed : 0);
  slot.head = state.head;
  slot.boot_id_bytes = static_cast<uint32_t>(state.boot_id.size());
  std::memcpy(slot.boot_id, state.boot_id.data(), state.boot_id.size());
  slot.mount_id_bytes = static_cast<uint32_t>(state.mount_id.size());
  std::memcpy(slot.mount_id, state.mount_id.data(), state.mount_id.size());
  wire::EncodeRecordPair(state.record, std::span(slot.record));
  slot.recorded_in = state.recorded_in;
  SlotBytes bytes = {};
  std::memcpy(bytes.data(), &slot, sizeof(slot));
  StoreLittle(bytes.data() + offsetof(RecordSlot, checksum), Crc32c(bytes.data(), bytes.size()));
  return bytes;
}

struct DecodedSlot {
  RecordState state;
  uint64_t sequence = 0;
};

Result<DecodedSlot> DecodeSlot(SlotBytes bytes, uint64_t place) {
  RecordSlot slot;
  std::memcpy(&slot, bytes.data(), sizeof(slot));
  StoreLittle<uint32_t>(bytes.data() + offsetof(RecordSlot, checksum), 0);
  if (slot.magic != kRecordMagic) return Status(ErrorCode::kCorrupt, "no record");
  if (slot.checksum != Crc32c(bytes.data(), bytes.size())) {
    return Status(ErrorCode::kCorrupt, "checksum does not match");
  }
  if (slot.version != kRecordVersion) {
    return Status(ErrorCode::kUnsupported, "version " + std::to_string(slot.version));
  }
  if (slot.sequence % 2 != place) return Status(ErrorCode::kCorrupt, "in the other's place");
  if (slot.boot_id_bytes > kBootIdBytesMax || slot.mount_id_bytes > kMountIdBytesMax) {
    return Status(ErrorCode::kCorrupt, "the id of a boot or mount is too long");
  }
  DecodedSlot decoded;
  Result<wire::RecordPair> record = wire::DecodeRecordPair(std::span(std::as_const(slot.record)));
  if (!record.ok()) return record.status();
  decoded.state.record = record.Take();
  decoded.state.welcomed = {slot.welcomed_attachment, slot.welcomed_run};
  decoded.state.clean = (slot.flags & kFlagClean) != 0;
  decoded.state.unsealed = (slot.flags & kFlagUnsealed) != 0;
  decoded.state.head = slot.head;
  decoded.state.boot_id.assign(slot.boot_id, slot.boot_id_bytes);
  decoded.state.mount_id.assign(slot.mount_id, slot.mount_id_bytes);
  decoded.state.recorded_in = slot.recorded_in;
  decoded.sequence = slot.sequence;
  return decoded;
}

Result<DecodedSlot> ReadSlots(io::FileSystem& files, io::File file) {
  std::optional<DecodedSlot> best;
  std::string reasons;
  ErrorCode code = ErrorCode::kCorrupt;
  for (uint64_t place = 0; place < 2; ++place) {
    SlotBytes bytes = {};
    const Result<size_t> got =
        files.ReadAt(file, place * kRecordSlotBytes, bytes.data(), bytes.size());
    Result<DecodedSlot> slot = !got.ok() ? Result<DecodedSlot>(got.status())
                               : got.value() < bytes.size()
                                   ? Status(ErrorCode::kCorrupt, "cut short")
                                   : DecodeSlot(bytes, place);
    if (slot.ok()) {
      if (!best || slot.value().sequence > best->sequence) best = slot.Take();
    } else {
      // A slot of a newer version may be the newer one: going on with the other would go back in
      // time.
      if (slot.status().code() != ErrorCode::kCorrupt) code = slot.status().code();
      reasons += (place == 0 ? "slot 0: " : "; slot 1: ") + slot.status().message();
    }
  }
  if (code != ErrorCode::kCorrupt) return Status(code, reasons);
  if (!best) return Status(code, "neither slot is whole (" + reasons + ")");
  return *std::move(best);
}

}  // namespace

Incarnation IncarnationOf(const std::string& boot_id, const std::string& mount_id) {
  Sha256 hash;
  // With its zero, so that no two pairs of texts are the same.
  hash.Update(boot_id.c_str(), boot_id.size() + 1);
  hash.Update(mount_id.data(), mount_id.size());
  const Sha256Digest digest = hash.Finish();
  Incarnation incarnation;
  std::memcpy(incarnation.data(), digest.data(), incarnation.size());
  return incarnation;
}

Status RecordFile::Create(io::FileSystem& files, const std::string& path,
                          const RecordState& state) {
  Result<io::File> opened = files.Open(path, {.write = true, .create = true, .exclusive = true});
  if (!opened.ok()) return opened.status();
  const io::File file = opened.value();
  Status status = Status::Ok();
  for (uint64_t sequence = 0; sequence < 2 && status.ok(); ++sequence) {
    const SlotBytes bytes = EncodeSlot(state, sequence);
    status = files.WriteAt(file, sequence * kRecordSlotBytes, bytes.data(), bytes.size());
  }
  if (status.ok()) status = files.Sync(file);
  files.Close(file);
  return status.Within(path);
}

Result<RecordFile> RecordFile::Open(io::FileSystem& files, const std::string& path) {
  Result<io::File> opened = files.Open(path, {.write = true});
  if (!opened.ok()) return opened.status();
  Result<DecodedSlot> slot = ReadSlots(files, opened.value());
  if (!slot.ok()) {
    files.Close(opened.value());
    return slot.status().Within(path);
  }
  RecordFile record;
  record.file_ = opened.value();
  record.state_ = slot.value().state;
  record.sequence_ = slot.value().sequence;
  return record;
}

Result<RecordState> RecordFile::Read(io::FileSystem& files, const std::string& path) {
  Result<io::File> opened = files.Open(path, {});
  if (!opened.ok()) return opened.status();
  Result<DecodedSlot> slot = ReadSlots(files, opened.value());
  files.Close(opened.value());
  if (!slot.ok()) return slot.status().Within(path);
  return slot.value().state;
}

void RecordFile::Close(io::FileSystem& files) {
  if (file_.valid()) files.Close(file_);
  file_ = {};
}

Status RecordFile::Write(io::FileSystem& files, const RecordState& state, bool* sync_failed) {
  CHECK(file_.valid());
  *sync_failed = false;
  if (failed_) return Status(ErrorCode::kIoError, "record: an earlier sync failed");
  const uint64_t sequence = sequence_ + 1;
  const SlotBytes bytes = EncodeSlot(state, sequence);
  RETURN_IF_ERROR(files.WriteAt(file_, sequence % 2 * kRecordSlotBytes, bytes.data(), bytes.size())
                      .Within("record"));
  RETURN_IF_ERROR(Sync(files, sync_failed));
  state_ = state;
  sequence_ = sequence;
  return Status::Ok();
}

Status RecordFile::Sync(io::FileSystem& files, bool* sync_failed) {
  const Status synced = files.SyncData(file_);
  *sync_failed = !synced.ok();
  if (synced.ok()) return synced;
  failed_ = true;
  return Status(ErrorCode::kIoError, "record: " + synced.message());
}

}  // namespace ankole::replica
