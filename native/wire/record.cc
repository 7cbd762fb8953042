#include "wire/record.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/bytes.h"
#include "base/mutant.h"

namespace ankole::wire {
namespace {

// Offsets within an encoded record.
constexpr size_t kRecordAttachmentAt = 0;
constexpr size_t kRecordRunAt = 8;
constexpr size_t kRecordGenerationAt = 16;
constexpr size_t kRecordCountAt = 24;       // u8
constexpr size_t kRecordNameLengthAt = 25;  // u8
constexpr size_t kRecordIdsAt = 32;         // kReplicasMax × u64
constexpr size_t kRecordNameAt = 96;        // kSnapshotNameBytesMax bytes, then one zero byte
static_assert(kRecordIdsAt + kReplicasMax * 8 == kRecordNameAt);
static_assert(kRecordNameAt + kSnapshotNameBytesMax + 1 == kEncodedRecordBytes);

}  // namespace

Status Malformed(const std::string& cause) { return {ErrorCode::kProtocolError, cause}; }

std::string ReplicaIdText(ReplicaId id) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(id));
  return text;
}

Result<ReplicaId> ParseReplicaId(const std::string& text) {
  ReplicaId id = 0;
  bool good = text.size() == 16;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      id = id << 4 | static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      id = id << 4 | static_cast<uint64_t>(c - 'a' + 10);
    } else {
      good = false;
    }
  }
  if (!good || id == 0) {
    return Status(ErrorCode::kInvalidArgument,
                  "'" + text.substr(0, 32) + "' is no replica id (16 lower hex digits, not all 0)");
  }
  return id;
}

bool Members::Contains(ReplicaId id) const {
  return std::find(ids.begin(), ids.begin() + count, id) != ids.begin() + count;
}

void Members::Add(ReplicaId id) {
  if (Contains(id)) return;
  CHECK(count < kReplicasMax);
  ids[count++] = id;
  std::sort(ids.begin(), ids.begin() + count);
}

void Members::Remove(ReplicaId id) {
  const auto end = std::remove(ids.begin(), ids.begin() + count, id);
  std::fill(end, ids.end(), 0);
  count = static_cast<uint8_t>(end - ids.begin());
}

bool Newer(const Record& a, const Record& b) {
  if (a.epoch != b.epoch && !Mutant("order-by-generation")) return a.epoch > b.epoch;
  return a.generation > b.generation;
}

void EncodeRecord(const Record& record, std::span<std::byte, kEncodedRecordBytes> to) {
  CHECK(record.newest_snapshot.size() <= kSnapshotNameBytesMax);
  std::byte* out = to.data();
  std::memset(out, 0, to.size());
  StoreLittle(out + kRecordAttachmentAt, record.epoch.attachment);
  StoreLittle(out + kRecordRunAt, record.epoch.run);
  StoreLittle(out + kRecordGenerationAt, record.generation);
  StoreLittle(out + kRecordCountAt, record.members.count);
  StoreLittle(out + kRecordNameLengthAt, static_cast<uint8_t>(record.newest_snapshot.size()));
  for (size_t i = 0; i < record.members.count; ++i) {
    StoreLittle(out + kRecordIdsAt + 8 * i, record.members.ids[i]);
  }
  std::memcpy(out + kRecordNameAt, record.newest_snapshot.data(), record.newest_snapshot.size());
}

Result<Record> DecodeRecord(std::span<const std::byte, kEncodedRecordBytes> from) {
  const std::byte* in = from.data();
  Record record;
  record.epoch.attachment = LoadLittle<uint64_t>(in + kRecordAttachmentAt);
  record.epoch.run = LoadLittle<uint64_t>(in + kRecordRunAt);
  record.generation = LoadLittle<uint64_t>(in + kRecordGenerationAt);
  const auto count = LoadLittle<uint8_t>(in + kRecordCountAt);
  const auto name_length = LoadLittle<uint8_t>(in + kRecordNameLengthAt);
  if (count > kReplicasMax) return Status(ErrorCode::kCorrupt, "record: too many members");
  if (name_length > kSnapshotNameBytesMax) {
    return Status(ErrorCode::kCorrupt, "record: snapshot name too long");
  }
  ReplicaId previous = 0;
  for (size_t i = 0; i < count; ++i) {
    const auto id = LoadLittle<uint64_t>(in + kRecordIdsAt + 8 * i);
    if (id <= previous) return Status(ErrorCode::kCorrupt, "record: members not in order");
    record.members.Add(id);
    previous = id;
  }
  for (size_t i = 0; i < name_length; ++i) {
    const char c = static_cast<char>(in[kRecordNameAt + i]);
    if (c < 0x21 || c > 0x7e || c == '/') {
      return Status(ErrorCode::kCorrupt, "record: snapshot name has a character that none has");
    }
    record.newest_snapshot.push_back(c);
  }
  return record;
}

void EncodeRecordPair(const RecordPair& pair, std::span<std::byte, kEncodedRecordPairBytes> to) {
  EncodeRecord(pair.current, to.first<kEncodedRecordBytes>());
  EncodeRecord(pair.complete, to.last<kEncodedRecordBytes>());
}

Result<RecordPair> DecodeRecordPair(std::span<const std::byte, kEncodedRecordPairBytes> from) {
  Result<Record> current = DecodeRecord(from.first<kEncodedRecordBytes>());
  if (!current.ok()) return current.status();
  Result<Record> complete = DecodeRecord(from.last<kEncodedRecordBytes>());
  if (!complete.ok()) return complete.status().Within("last complete");
  return RecordPair{current.Take(), complete.Take()};
}

std::string Describe(const Record& record) {
  if (!record.exists()) return "no record";
  std::string text = "epoch " + std::to_string(record.epoch.attachment) + "." +
                     std::to_string(record.epoch.run) + " generation " +
                     std::to_string(record.generation) + " members [";
  for (size_t i = 0; i < record.members.count; ++i) {
    if (i > 0) text += ", ";
    text += ReplicaIdText(record.members.ids[i]);
  }
  return text + "]";
}

}  // namespace ankole::wire
