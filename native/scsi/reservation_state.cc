#include <algorithm>
#include <cstddef>
#include <cstring>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "scsi/reservations.h"

// The state kept with a volume, as bytes.
namespace ankole::scsi {

namespace {

constexpr char kMagic[8] = {'A', 'N', 'K', 'S', 'C', 'S', 'I', '\n'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kNoHolder = UINT32_MAX;

struct [[gnu::packed]] StateHeader {
  char magic[8];
  uint32_t version;
  uint32_t checksum;    // CRC32C of what follows it, up to bytes_used
  uint32_t bytes_used;  // of all, this header included
  uint32_t holder;      // index, or kNoHolder
  uint16_t registrations;
  uint8_t type;
  uint8_t reserved[5];
};
static_assert(sizeof(StateHeader) == 32);
static_assert(offsetof(StateHeader, checksum) == 12);
static_assert(offsetof(StateHeader, registrations) == 24);
constexpr size_t kCheckedFrom = offsetof(StateHeader, bytes_used);

struct [[gnu::packed]] RegistrationHeader {
  uint64_t key;
  uint16_t name_bytes;
};
static_assert(sizeof(RegistrationHeader) == 10);
static_assert(sizeof(StateHeader) +
                  kRegistrationsMax * (sizeof(RegistrationHeader) + kPortNameBytesMax) <=
              kTargetStateBytes);

Status Corrupt(const char* cause) { return {ErrorCode::kCorrupt, cause}; }

}  // namespace

void EncodeState(const Reservations& reservations, std::span<std::byte> to) {
  CHECK(to.size() == kTargetStateBytes);
  std::memset(to.data(), 0, to.size());
  size_t at = sizeof(StateHeader);
  for (const Registration& registration : reservations.registrations) {
    const RegistrationHeader header = {registration.key,
                                       static_cast<uint16_t>(registration.port.size())};
    std::memcpy(&to[at], &header, sizeof(header));
    at += sizeof(header);
    std::memcpy(&to[at], registration.port.data(), registration.port.size());
    at += registration.port.size();
  }
  StateHeader header = {};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.bytes_used = static_cast<uint32_t>(at);
  header.holder = reservations.holder ? static_cast<uint32_t>(*reservations.holder) : kNoHolder;
  header.registrations = static_cast<uint16_t>(reservations.registrations.size());
  header.type = static_cast<uint8_t>(reservations.type);
  std::memcpy(to.data(), &header, sizeof(header));
  header.checksum = Crc32c(&to[kCheckedFrom], at - kCheckedFrom);
  std::memcpy(to.data(), &header, sizeof(header));
}

Result<Reservations> DecodeState(std::span<const std::byte> from) {
  if (from.size() != kTargetStateBytes) return Corrupt("is not as long as it has to be");
  StateHeader header;
  std::memcpy(&header, from.data(), sizeof(header));
  if (std::all_of(from.begin(), from.end(), [](std::byte byte) { return byte == std::byte{0}; })) {
    return Reservations{};
  }
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) return Corrupt("has no magic number");
  if (header.version != kVersion) {
    return Status(ErrorCode::kUnsupported, "is of version " + std::to_string(header.version) +
                                               ", which this engine does not know");
  }
  if (header.bytes_used < sizeof(header) || header.bytes_used > from.size()) {
    return Corrupt("has a length that cannot be");
  }
  if (Crc32c(&from[kCheckedFrom], header.bytes_used - kCheckedFrom) != header.checksum) {
    return Corrupt("has a wrong checksum");
  }
  if (header.registrations > kRegistrationsMax) return Corrupt("has too many registrations");
  if (header.type != 0 && !IsReservationType(header.type)) {
    return Corrupt("has an unknown type of reservation");
  }
  Reservations state;
  state.type = static_cast<ReservationType>(header.type);
  size_t at = sizeof(header);
  for (size_t i = 0; i < header.registrations; ++i) {
    RegistrationHeader registration;
    if (header.bytes_used - at < sizeof(registration)) return Corrupt("ends too early");
    std::memcpy(&registration, &from[at], sizeof(registration));
    at += sizeof(registration);
    if (registration.name_bytes == 0 || registration.name_bytes > kPortNameBytesMax ||
        header.bytes_used - at < registration.name_bytes) {
      return Corrupt("has a name of a wrong length");
    }
    if (registration.key == 0) return Corrupt("has a registration without a key");
    std::string port(reinterpret_cast<const char*>(&from[at]), registration.name_bytes);
    at += registration.name_bytes;
    if (RelationOf(state, port) != Relation::kStranger) {
      return Corrupt("has two registrations of one name");
    }
    state.registrations.push_back({registration.key, std::move(port)});
  }
  if (at != header.bytes_used) return Corrupt("has something behind its registrations");
  const bool one_holds = state.type != ReservationType::kNone && !IsAllRegistrants(state.type);
  if (one_holds != (header.holder != kNoHolder) ||
      (one_holds && header.holder >= state.registrations.size())) {
    return Corrupt("names a holder that cannot be");
  }
  if (state.type != ReservationType::kNone && state.registrations.empty()) {
    return Corrupt("has a reservation that nobody holds");
  }
  if (one_holds) state.holder = size_t{header.holder};
  return state;
}

}  // namespace ankole::scsi
