#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "base/sha256.h"
#include "wire/record.h"

// The JSON files of a replica directory. Names and fields of volume.meta and the layers' .meta are
// those of Longhorn's v1 replica. Format: docs/internals/replica-format.md.
namespace ankole::replica {

inline constexpr std::string_view kVolumeMetaName = "volume.meta";
inline constexpr std::string_view kIdentityName = "ankole.json";
inline constexpr std::string_view kRecordName = "record";
inline constexpr std::string_view kTargetStateName = "target-state";
inline constexpr std::string_view kRegionsName = "regions";
inline constexpr std::string_view kLockName = "lock";
inline constexpr std::string_view kFailedName = "failed";
inline constexpr std::string_view kAdoptedName = "adopted";
inline constexpr std::string_view kMetaSuffix = ".meta";
inline constexpr std::string_view kMaskSuffix = ".mask";
inline constexpr std::string_view kSumSuffix = ".crc";
inline constexpr int64_t kFormatVersion = 1;

// The path of a file in a directory.
std::string Join(const std::string& directory, std::string_view name);

enum class CacheMode { kBuffered, kDirect };
Result<CacheMode> ParseCacheMode(const std::string& text);  // "buffered" | "direct"
const char* CacheModeName(CacheMode mode);

// ankole.json: who this replica is. Written once. Holds the secret: mode 0600.
struct Identity {
  std::string volume;
  wire::ReplicaId id = 0;
  Secret secret = {};
  CacheMode cache = CacheMode::kBuffered;
  bool checksums = true;         // at rest (rule 9)
  uint64_t created_seconds = 0;  // since 1970

  static Result<Identity> Parse(std::string_view text);
  std::string Write() const;
};

// volume.meta. Fields that are not known here are kept as they are when it is written again.
struct VolumeMeta {
  uint64_t size_bytes = 0;      // Size
  std::string head;             // Head: file name of the head
  bool dirty = false;           // Dirty: open, or stopped unclean
  bool rebuilding = false;      // Rebuilding
  std::string parent;           // Parent: file name of the layer under the head, or empty
  int64_t sector_bytes = 512;   // SectorSize
  std::string backing_file;     // BackingFilePath; not supported here
  Json other = Json::Object();  // everything, as it was read

  static Result<VolumeMeta> Parse(std::string_view text);
  std::string Write() const;
};

// `<layer>.meta`. Name follows the file's name, whatever the field says, as Longhorn does it.
struct LayerMeta {
  std::string name;           // Name: the layer's file name
  std::string parent;         // Parent: file name of the layer under it, or empty
  bool removed = false;       // Removed: a snapshot that is to be merged away
  bool user_created = false;  // UserCreated
  std::string created;        // Created, RFC 3339
  Json other = Json::Object();

  static Result<LayerMeta> Parse(std::string_view file_name, std::string_view text);
  std::string Write() const;
};

// What a head's .meta names that took the place of another head by a revert; empty: none.
inline constexpr std::string_view kDiscards = "Discards";
std::string DiscardedBy(const LayerMeta& head);

// DNS label (RFC 1123).
Status CheckVolumeName(std::string_view name);
// Multiple of 512, from kVolumeBytesMin to kVolumeBytesMax.
Status CheckVolumeSize(uint64_t size_bytes);
// «volume-head-NNN.img».
bool IsHeadName(std::string_view name);
// «volume-snap-NAME.img» with a NAME that is 1 to 63 characters of [A-Za-z0-9._-], none of them a
// dot first.
bool IsSnapshotName(std::string_view name);
std::string HeadName(uint32_t number);
uint32_t HeadNumber(const std::string& head_name);
// «volume-snap-NAME.img» and back.
std::string SnapshotFileName(std::string_view name);
std::string SnapshotNameOf(const std::string& file_name);
// «2024-05-06T07:08:09Z».
std::string TimeText(uint64_t seconds);
// And back, of any RFC 3339 text in UTC; 0 where it is none.
uint64_t TimeSeconds(const std::string& text);
// «<volume>-<id>»: the name of a replica's directory within the directory of replicas.
std::string ReplicaDirectoryName(const std::string& volume, wire::ReplicaId id);

// The layers from the head down to the bottom, given all that the directory holds. kCorrupt for a
// missing layer, a loop, a head that is none, more than kLayersMax.
Result<std::vector<LayerMeta>> ResolveChain(const VolumeMeta& volume,
                                            const std::vector<LayerMeta>& layers);

}  // namespace ankole::replica
