#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"

// Every bound on what comes from outside, each with its reason. A length is checked against these
// before memory is taken for it.
namespace ankole {

// 64 TiB: what an ext4 file of 4 KiB blocks and the 32-bit block index of the maps still address
// with room (16 TiB is ext4's own limit of one file, reported when a layer cannot be made).
inline constexpr uint64_t kVolumeBytesMax = 64 * kTiB;
// Smaller volumes are useless to a file system and make alignment rules awkward.
inline constexpr uint64_t kVolumeBytesMin = 1 * kMiB;
// Regions of the largest volume: a byte each in memory and on disk (rule 5), 16 MiB.
inline constexpr uint32_t kRegionsMax = static_cast<uint32_t>(kVolumeBytesMax / kRegionBytes);
// A volume's name is a DNS label (RFC 1123), as Kubernetes wants it.
inline constexpr size_t kVolumeNameBytesMax = 63;
// What is served to NBD clients: VOLUME, or VOLUME@SNAPSHOT, whose names are DNS labels both.
inline constexpr size_t kExportNameBytesMax = 2 * kVolumeNameBytesMax + 1;

// One piece of data on the replication protocol and in the engine. Larger requests of an initiator
// are cut at the front end, so that one request holds a bounded buffer.
inline constexpr uint32_t kDataBytesMax = 1 * kMiB;
// Payload of a frame: the data and one CRC32C for each block that it touches.
inline constexpr uint32_t kPayloadBytesMax =
    kDataBytesMax + (kDataBytesMax / kBlockBytes + 1) * 4 + 4;
// Payload of HELLO, records and other control frames: a record with all members fits many times.
inline constexpr uint32_t kControlPayloadBytesMax = 8 * kKiB;

// What a SCSI target keeps with the volume: 64 registrations of persistent reservations with the
// longest names of initiators (RFC 7143, 4.2.7.1: 223 bytes) are 17 KiB. It fits into a small
// buffer.
inline constexpr uint32_t kTargetStateBytes = 32 * kKiB;

// Replicas of one volume: more copies than anybody pays for, and small enough for fixed arrays.
inline constexpr size_t kReplicasMax = 8;
// Operations in flight in one engine, all front ends together. 16 connections of 128 and room.
inline constexpr size_t kEngineOperationsMax = 2048;
// Of these, kept for what goes on within a hold: all others may be waiting for it.
inline constexpr size_t kEngineNestedSlots = 32;
// What one engine may have outstanding at one replica; bounds the disk host's memory for it.
inline constexpr size_t kSessionOperationsMax = 2048;
// Regions that writes may have dirty at a time (rule 5): what is compared after a crash is at most
// 16 GiB a member, and a working set of that size never waits for a region to be cleaned.
inline constexpr size_t kDirtyRegionsMax = 4096;
// Chunks of at most kDataBytesMax that an engine copies or compares between replicas at a time:
// four for each of what goes on in the background (making equal, joining, scrubbing), and as many
// for what clients wait for. Their buffers are a reserve of their own in the engine's pool.
inline constexpr size_t kCopiesMax = 16;
// The requests that these, who asks for maps, who reads snapshots, and a trim have at replicas at a
// time.
inline constexpr size_t kErrandsMax = 328;
// Snapshots that an engine serves to be read at a time, and what each has at replicas: with 1 MiB
// each a fast disk is kept busy, and of the views that a replica keeps open most stay free.
inline constexpr size_t kSnapshotReadersMax = 4;
inline constexpr size_t kSnapshotReadsMax = 8;
// Extents in one answer about what changed between snapshots: 1 MiB as JSON.
inline constexpr size_t kChangedExtentsMax = 10'000;
// Chunks of kDataBytesMax that a trim looks at at a time, each with a buffer of a reserve of its
// own and one hold; and what it unmaps within a hold at a time, as clients wait for that.
inline constexpr size_t kTrimLanesMax = 2;
inline constexpr size_t kTrimUnmapsMax = 4;
// Operations of the engine itself: flushes, regions to be cleaned, a trim.
inline constexpr size_t kEngineOwnSlots = 8 + kTrimLanesMax * (1 + kTrimUnmapsMax);
// Connections to one disk host; each costs an inbox chunk. 8 nodes × 128 volumes.
inline constexpr size_t kDiskHostSessionsMax = 1024;
// Layers of a replica: 16-bit index of the block map, less the reserved values.
inline constexpr size_t kLayersMax = 65'000;

// Front-end connections of one engine, and what each may pin in buffers. A client that stops
// reading, or sends half a request and waits, holds at most kConnectionBufferBytesMax for as long
// as it likes and no other client's; all together kConnectionsMax × kConnectionBufferBytesMax.
inline constexpr size_t kConnectionsMax = 16;
inline constexpr size_t kConnectionBufferBytesMax = 16 * kMiB;
inline constexpr size_t kConnectionOperationsMax = 128;
// A client that does not finish its handshake in this time is closed, so that idle strangers do not
// use up kConnectionsMax.
inline constexpr uint64_t kHandshakeTimeoutNs = 10 * kNsPerSecond;

// Metadata JSON on a replica's disk; Longhorn's largest (labels) are a few KiB.
inline constexpr size_t kMetadataBytesMax = 1 * kMiB;
// Control JSON between TypeScript and the core.
inline constexpr size_t kControlJsonBytesMax = 4 * kMiB;
// Nesting of any JSON: our own documents need 5.
inline constexpr int kJsonDepthMax = 32;

}  // namespace ankole
