#include "replica/metadata.h"

#include <cstdio>
#include <ctime>
#include <map>
#include <set>

#include "base/limits.h"
#include "base/units.h"

namespace ankole::replica {
namespace {

constexpr std::string_view kHeadPrefix = "volume-head-";
constexpr std::string_view kSnapshotPrefix = "volume-snap-";
constexpr std::string_view kImageSuffix = ".img";
// Digits of a head's number; Longhorn writes three, and more from 1000 on.
constexpr size_t kHeadDigitsMax = 9;
// What a message quotes of a name that came from a file.
constexpr size_t kQuotedBytesMax = 80;

std::string Quote(std::string_view name) {
  return "'" + std::string(name.substr(0, kQuotedBytesMax)) + "'";
}

// The middle of `name`, or empty when it does not have both ends.
std::string_view Between(std::string_view name, std::string_view prefix, std::string_view suffix) {
  if (name.size() <= prefix.size() + suffix.size() || !name.starts_with(prefix) ||
      !name.ends_with(suffix)) {
    return {};
  }
  return name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
}

Result<Json> ParseObject(std::string_view text) {
  Result<Json> parsed = Json::Parse(text);
  if (!parsed.ok()) return Status(ErrorCode::kCorrupt, parsed.status().message());
  if (!parsed.value().is_object()) return Status(ErrorCode::kCorrupt, "not a JSON object");
  return parsed;
}

// Copies a member out of `json`; a member of the wrong type or range makes the file corrupt.
template <typename T>
Status Take(Result<T> member, T* to) {
  if (!member.ok()) return Status(ErrorCode::kCorrupt, member.status().message());
  *to = member.Take();
  return Status::Ok();
}

}  // namespace

std::string Join(const std::string& directory, std::string_view name) {
  return directory + "/" + std::string(name);
}

Result<CacheMode> ParseCacheMode(const std::string& text) {
  if (text == "buffered") return CacheMode::kBuffered;
  if (text == "direct") return CacheMode::kDirect;
  return Status(ErrorCode::kInvalidArgument,
                "cache mode " + Quote(text) + " is neither 'buffered' nor 'direct'");
}

const char* CacheModeName(CacheMode mode) {
  return mode == CacheMode::kDirect ? "direct" : "buffered";
}

Status CheckVolumeName(std::string_view name) {
  bool good = !name.empty() && name.size() <= kVolumeNameBytesMax && name.front() != '-' &&
              name.back() != '-';
  for (const char c : name) good &= (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  if (good) return Status::Ok();
  return Status(ErrorCode::kInvalidArgument,
                "volume name " + Quote(name) +
                    " must be 1 to 63 of a-z, 0-9 and '-', and not begin or end with '-'");
}

Status CheckVolumeSize(uint64_t size_bytes) {
  if (size_bytes >= kVolumeBytesMin && size_bytes <= kVolumeBytesMax &&
      size_bytes % kSectorBytes == 0) {
    return Status::Ok();
  }
  return Status(ErrorCode::kInvalidArgument,
                "volume size " + std::to_string(size_bytes) +
                    " must be a multiple of 512 bytes from 1 MiB to 64 TiB");
}

bool IsHeadName(std::string_view name) {
  const std::string_view digits = Between(name, kHeadPrefix, kImageSuffix);
  if (digits.size() < 3 || digits.size() > kHeadDigitsMax) return false;
  for (const char c : digits) {
    if (c < '0' || c > '9') return false;
  }
  return true;
}

bool IsSnapshotName(std::string_view name) {
  const std::string_view middle = Between(name, kSnapshotPrefix, kImageSuffix);
  if (middle.empty() || middle.size() > wire::kSnapshotNameBytesMax || middle.front() == '.') {
    return false;
  }
  for (const char c : middle) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '_' || c == '.';
    if (!good) return false;
  }
  return middle.find("..") == std::string_view::npos;
}

std::string HeadName(uint32_t number) {
  char name[40];
  std::snprintf(name, sizeof(name), "volume-head-%03u.img", number);
  return name;
}

uint32_t HeadNumber(const std::string& head_name) {
  CHECK(IsHeadName(head_name));
  return static_cast<uint32_t>(std::stoul(head_name.substr(kHeadPrefix.size())));
}

std::string SnapshotFileName(std::string_view name) {
  return std::string(kSnapshotPrefix) + std::string(name) + std::string(kImageSuffix);
}

std::string SnapshotNameOf(const std::string& file_name) {
  return std::string(Between(file_name, kSnapshotPrefix, kImageSuffix));
}

std::string TimeText(uint64_t seconds) {
  const auto time = static_cast<time_t>(seconds);
  tm parts = {};
  gmtime_r(&time, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

uint64_t TimeSeconds(const std::string& text) {
  tm parts = {};
  const char* end = strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (end == nullptr) return 0;
  const time_t seconds = timegm(&parts);
  return seconds < 0 ? 0 : static_cast<uint64_t>(seconds);
}

std::string ReplicaDirectoryName(const std::string& volume, wire::ReplicaId id) {
  return volume + "-" + wire::ReplicaIdText(id);
}

Result<Identity> Identity::Parse(std::string_view text) {
  Result<Json> parsed = ParseObject(text);
  if (!parsed.ok()) return parsed.status();
  const Json& json = parsed.value();
  int64_t version = 0;
  RETURN_IF_ERROR(Take(json.Integer("formatVersion", 1, INT64_MAX), &version));
  if (version != kFormatVersion) {
    return Status(ErrorCode::kUnsupported, "format version " + std::to_string(version) +
                                               " is newer than this program's " +
                                               std::to_string(kFormatVersion));
  }
  Identity identity;
  std::string id;
  std::string secret;
  std::string cache;
  int64_t sector_bytes = 0;
  int64_t block_bytes = 0;
  int64_t created_seconds = 0;
  RETURN_IF_ERROR(Take(json.String("volume"), &identity.volume));
  RETURN_IF_ERROR(Take(json.String("replica"), &id));
  RETURN_IF_ERROR(Take(json.String("secret"), &secret));
  RETURN_IF_ERROR(Take(json.String("cache"), &cache));
  RETURN_IF_ERROR(Take(json.Integer("sectorBytes", kSectorBytes, kSectorBytes), &sector_bytes));
  RETURN_IF_ERROR(Take(json.Integer("blockBytes", kBlockBytes, kBlockBytes), &block_bytes));
  RETURN_IF_ERROR(Take(json.Integer("createdSeconds", 0, INT64_MAX), &created_seconds));
  RETURN_IF_ERROR(Take(json.Bool("checksums", true), &identity.checksums));
  if (const Status status = CheckVolumeName(identity.volume); !status.ok()) {
    return Status(ErrorCode::kCorrupt, status.message());
  }
  RETURN_IF_ERROR(Take(wire::ParseReplicaId(id), &identity.id));
  RETURN_IF_ERROR(Take(ParseCacheMode(cache), &identity.cache));
  Result<Secret> bytes = ParseSecret(secret);
  // The message must not quote what may be most of a secret.
  if (!bytes.ok()) return Status(ErrorCode::kCorrupt, "secret: not 64 hex digits");
  identity.secret = bytes.Take();
  identity.created_seconds = static_cast<uint64_t>(created_seconds);
  return identity;
}

std::string Identity::Write() const {
  Json json = Json::Object();
  json.Set("formatVersion", kFormatVersion);
  json.Set("volume", volume);
  json.Set("replica", wire::ReplicaIdText(id));
  json.Set("secret", SecretText(secret));
  json.Set("cache", CacheModeName(cache));
  json.Set("sectorBytes", kSectorBytes);
  json.Set("blockBytes", kBlockBytes);
  json.Set("checksums", checksums);
  json.Set("createdSeconds", created_seconds);
  return json.Write(2) + "\n";
}

Result<VolumeMeta> VolumeMeta::Parse(std::string_view text) {
  Result<Json> parsed = ParseObject(text);
  if (!parsed.ok()) return parsed.status();
  VolumeMeta meta;
  meta.other = parsed.Take();
  const Json& json = meta.other;
  int64_t size_bytes = 0;
  RETURN_IF_ERROR(Take(json.Integer("Size", 0, INT64_MAX), &size_bytes));
  RETURN_IF_ERROR(Take(json.String("Head"), &meta.head));
  RETURN_IF_ERROR(Take(json.Bool("Dirty", false), &meta.dirty));
  RETURN_IF_ERROR(Take(json.Bool("Rebuilding", false), &meta.rebuilding));
  RETURN_IF_ERROR(Take(json.String("Parent", ""), &meta.parent));
  RETURN_IF_ERROR(Take(json.Integer("SectorSize", 0, INT64_MAX, kSectorBytes), &meta.sector_bytes));
  RETURN_IF_ERROR(Take(json.String("BackingFilePath", ""), &meta.backing_file));
  meta.size_bytes = static_cast<uint64_t>(size_bytes);
  if (const Status status = CheckVolumeSize(meta.size_bytes); !status.ok()) {
    return Status(ErrorCode::kCorrupt, "Size: " + status.message());
  }
  if (!IsHeadName(meta.head)) {
    return Status(ErrorCode::kCorrupt, "Head " + Quote(meta.head) + " is no name of a head");
  }
  if (!meta.parent.empty() && !IsSnapshotName(meta.parent)) {
    return Status(ErrorCode::kCorrupt,
                  "Parent " + Quote(meta.parent) + " is no name of a snapshot");
  }
  if (meta.sector_bytes != kSectorBytes && meta.sector_bytes != kBlockBytes) {
    return Status(ErrorCode::kCorrupt,
                  "SectorSize " + std::to_string(meta.sector_bytes) + " is neither 512 nor 4096");
  }
  return meta;
}

std::string VolumeMeta::Write() const {
  Json json = other;
  json.Set("Size", size_bytes);
  json.Set("Head", head);
  json.Set("Dirty", dirty);
  json.Set("Rebuilding", rebuilding);
  if (json.Find("Error") == nullptr) json.Set("Error", "");
  json.Set("Parent", parent);
  json.Set("SectorSize", sector_bytes);
  json.Set("BackingFilePath", backing_file);
  return json.Write() + "\n";
}

Result<LayerMeta> LayerMeta::Parse(std::string_view file_name, std::string_view text) {
  LayerMeta meta;
  if (!file_name.ends_with(kMetaSuffix)) {
    return Status(ErrorCode::kInvalidArgument, Quote(file_name) + " does not end with .meta");
  }
  meta.name = file_name.substr(0, file_name.size() - kMetaSuffix.size());
  if (!IsHeadName(meta.name) && !IsSnapshotName(meta.name)) {
    return Status(ErrorCode::kCorrupt, Quote(meta.name) + " is no name of a layer");
  }
  Result<Json> parsed = ParseObject(text);
  if (!parsed.ok()) return parsed.status();
  meta.other = parsed.Take();
  const Json& json = meta.other;
  RETURN_IF_ERROR(Take(json.String("Parent", ""), &meta.parent));
  RETURN_IF_ERROR(Take(json.Bool("Removed", false), &meta.removed));
  RETURN_IF_ERROR(Take(json.Bool("UserCreated", false), &meta.user_created));
  RETURN_IF_ERROR(Take(json.String("Created", ""), &meta.created));
  if (!meta.parent.empty() && !IsSnapshotName(meta.parent)) {
    return Status(ErrorCode::kCorrupt,
                  "Parent " + Quote(meta.parent) + " is no name of a snapshot");
  }
  return meta;
}

std::string LayerMeta::Write() const {
  Json json = other;
  json.Set("Name", name);
  json.Set("Parent", parent);
  json.Set("Removed", removed);
  json.Set("UserCreated", user_created);
  json.Set("Created", created);
  if (json.Find("Labels") == nullptr) json.Set("Labels", Json());
  return json.Write() + "\n";
}

std::string DiscardedBy(const LayerMeta& head) {
  const Result<std::string> name = head.other.String(kDiscards, "");
  return name.ok() && IsHeadName(name.value()) ? name.value() : std::string();
}

Result<std::vector<LayerMeta>> ResolveChain(const VolumeMeta& volume,
                                            const std::vector<LayerMeta>& layers) {
  std::map<std::string_view, const LayerMeta*> by_name;
  for (const LayerMeta& layer : layers) by_name[layer.name] = &layer;
  std::vector<LayerMeta> chain;
  std::set<std::string_view> seen;
  std::string_view above = kVolumeMetaName;
  std::string_view name = volume.head;
  while (!name.empty()) {
    const auto found = by_name.find(name);
    if (found == by_name.end()) {
      return Status(ErrorCode::kCorrupt,
                    "layer " + Quote(name) + " that " + Quote(above) + " names is missing");
    }
    if (!seen.insert(found->first).second) {
      return Status(ErrorCode::kCorrupt, "the chain of layers has a loop at " + Quote(name));
    }
    if (chain.size() == kLayersMax) {
      return Status(ErrorCode::kCorrupt,
                    "the chain has more than " + std::to_string(kLayersMax) + " layers");
    }
    chain.push_back(*found->second);
    above = found->first;
    name = found->second->parent;
  }
  return chain;
}

}  // namespace ankole::replica
