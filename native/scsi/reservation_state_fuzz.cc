#include <cstring>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "scsi/reservations.h"

// Owns DecodeState. The first byte chooses whether the checksum is made right; the rest begins the
// blob. What is decoded is then changed by a request that the last bytes describe, so that what
// Apply makes of any state can be stored again.
namespace ankole::scsi {
namespace {

void CheckInvariants(const Reservations& state) {
  CHECK(state.registrations.size() <= kRegistrationsMax);
  for (const Registration& registration : state.registrations) {
    CHECK(registration.key != 0 && !registration.port.empty());
  }
  const bool one_holds = state.type != ReservationType::kNone && !IsAllRegistrants(state.type);
  CHECK(state.holder.has_value() == one_holds);
  CHECK(!state.holder || *state.holder < state.registrations.size());
  CHECK(state.type == ReservationType::kNone || !state.registrations.empty());
  std::vector<std::byte> bytes(kTargetStateBytes);
  EncodeState(state, bytes);
  Result<Reservations> again = DecodeState(bytes);
  CHECK(again.ok());
  again.value().generation = state.generation;
  CHECK(again.value() == state);
}

void Fuzz(const uint8_t* data, size_t size) {
  if (size < 20) return;
  std::vector<std::byte> bytes(kTargetStateBytes);
  std::memcpy(bytes.data(), data + 1, std::min<size_t>(size - 1, bytes.size()));
  if ((data[0] & 1) != 0) {
    const uint32_t used = LoadLittle<uint32_t>(&bytes[16]);
    if (used > 16 && used <= bytes.size()) StoreLittle(&bytes[12], Crc32c(&bytes[16], used - 16));
  }
  const Result<Reservations> decoded = DecodeState(bytes);
  if (!decoded.ok()) {
    CHECK(!decoded.status().message().empty());
    return;
  }
  CheckInvariants(decoded.value());
  const uint8_t* tail = data + size - 16;
  const auto& registrations = decoded.value().registrations;
  const size_t own = registrations.empty() ? 0 : tail[0] % registrations.size();
  PersistentOut request;
  request.action = static_cast<PersistentOutAction>(tail[1] % 7);
  request.type = tail[2] & 0x0f;
  request.scope = tail[2] >> 7;
  if (!IsReservationType(request.type) && (request.action == PersistentOutAction::kReserve ||
                                           request.action == PersistentOutAction::kRelease)) {
    return;  // DecodePersistentOut lets no such through
  }
  request.key = registrations.empty() || tail[3] == 0 ? 0 : registrations[own].key;
  request.action_key =
      tail[4] < 64 && tail[4] < registrations.size() ? registrations[tail[4]].key : tail[5];
  const std::string stranger = "iqn.stranger,i,0x000000000000";
  const bool strange = registrations.empty() || (tail[6] & 1) != 0;
  const Transition transition =
      Apply(decoded.value(), strange ? stranger : registrations[own].port, request);
  if (transition.conflict || transition.refused) return;
  CheckInvariants(transition.next);
}

}  // namespace
}  // namespace ankole::scsi

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ankole::scsi::Fuzz(data, size);
  return 0;
}
