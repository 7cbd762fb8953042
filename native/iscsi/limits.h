#pragma once

#include <cstddef>
#include <cstdint>

#include "base/limits.h"
#include "scsi/task.h"

// What an initiator may ask of this target. A length that came from outside is checked against
// these, or against what the negotiation made of them, before memory is taken for it.
namespace ankole::iscsi {

// Commands in flight in one session: the width of the CmdSN window.
inline constexpr uint32_t kCommandsMax = kConnectionOperationsMax;
// Immediate commands are outside of the window (RFC 7143, 4.2.2.1). Further ones are rejected.
inline constexpr uint32_t kImmediateMax = 8;

// The data segment of a PDU before anything else was declared (RFC 7143, 13.12), and during login.
inline constexpr uint32_t kDefaultSegmentBytes = 8 * kKiB;
// What we declare. One PDU of it arrives in one or two system calls; more saves nothing.
inline constexpr uint32_t kReceiveSegmentBytesMax = 256 * kKiB;
// Data that may come before it was asked for. Each command of the window may bring as much, so this
// many bytes times kCommandsMax are kept free. It is one small chunk.
inline constexpr uint32_t kFirstBurstBytesMax = 64 * kKiB;
static_assert(kFirstBurstBytesMax <= BufferPool::kSmallBytes);
// One R2T may ask for the whole of the longest command: its memory is there before it is sent.
inline constexpr uint32_t kBurstBytesMax = scsi::kTransferBytesMax;
// R2Ts of one command in flight.
inline constexpr uint32_t kOutstandingR2tMax = 4;

// Keys in one text, and its bytes over all PDUs of it (C bit). Real initiators send 30 keys in 1
// KiB; two CHAP values of the longest kind are 2 × 2 KiB.
inline constexpr size_t kTextKeysMax = 64;
inline constexpr size_t kTextBytesMax = 16 * kKiB;
inline constexpr size_t kKeyBytesMax = 63;    // RFC 7143, 6.1
inline constexpr size_t kNameBytesMax = 223;  // RFC 7143, 4.2.7.1
// Ping data that is echoed; RFC 7143, 11.18 leaves the limit to us.
inline constexpr uint32_t kPingBytesMax = 4 * kKiB;

// Secrets of CHAP: at least 96 bits, as RFC 7143, 9.2.1 asks without IPsec; a block of MD5 at most.
inline constexpr size_t kChapSecretBytesMin = 12;
inline constexpr size_t kChapSecretBytesMax = 64;
inline constexpr size_t kChapNameBytesMax = 223;
// The longest binary value (RFC 7143, 12.1.3: 1024 bytes for CHAP_C).
inline constexpr size_t kChapBytesMax = 1024;

// What the commands of one session may pin: a first burst each, and what else they need.
inline constexpr size_t kReserveBytesMax =
    (kCommandsMax + kImmediateMax + 2) * BufferPool::kSmallBytes;
inline constexpr size_t kSessionBufferBytesMax = kReserveBytesMax + kConnectionBufferBytesMax;

// Connections that are logging in, beyond kConnectionsMax sessions, so that a session can be
// reinstated while all are taken.
inline constexpr size_t kLoginsMax = 4;

// An initiator that sent nothing for so long is pinged, and closed when it answers nothing for as
// long again.
inline constexpr uint64_t kPingNs = 10 * kNsPerSecond;
// The longest that one PDU may take to arrive, or one send to leave.
inline constexpr uint64_t kStuckNs = 30 * kNsPerSecond;
// Between two tries to accept where one failed: out of descriptors, say. At once it would spin.
inline constexpr uint64_t kAcceptRetryNs = 100 * kNsPerMs;

// The well-known portal: initiators that ask for targets or are sent on. All nodes of a large
// cluster may come at once; each is there for a few round trips, with two small buffers.
inline constexpr size_t kPortalConnectionsMax = 256;
// A discovery session that asks for nothing is closed after so long.
inline constexpr uint64_t kDiscoveryIdleNs = 60 * kNsPerSecond;
// Volumes of a cluster.
inline constexpr size_t kPortalTargetsMax = 100'000;

}  // namespace ankole::iscsi
