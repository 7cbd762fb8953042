#include "scsi/sense.h"

#include <cstring>

#include "base/bytes.h"

namespace ankole::scsi {

namespace {

constexpr uint8_t kFixedCurrent = 0x70;
constexpr uint8_t kDescriptorCurrent = 0x72;
constexpr uint8_t kValid = 0x80;
constexpr size_t kFixedBytes = 18;
constexpr uint8_t kInformationDescriptor = 0x00;
constexpr uint8_t kKeySpecificDescriptor = 0x02;

// SPC-4, table 32: SKSV, C/D, BPV, BIT POINTER, then FIELD POINTER.
void StoreField(const FieldPointer& field, std::byte* to) {
  to[0] = std::byte(0x80 | (field.in_cdb ? 0x40 : 0) | 0x08 | (field.bit & 7));
  StoreBig16(to + 1, field.byte);
}

size_t EncodeFixed(const Sense& sense, std::byte* to) {
  std::memset(to, 0, kFixedBytes);
  const bool valid = sense.information && *sense.information <= UINT32_MAX;
  to[0] = std::byte(kFixedCurrent | (valid ? kValid : 0));
  to[2] = std::byte(sense.key);
  if (valid) StoreBig32(to + 3, static_cast<uint32_t>(*sense.information));
  to[7] = std::byte(kFixedBytes - 8);
  StoreBig16(to + 12, static_cast<uint16_t>(sense.code));
  if (sense.field) StoreField(*sense.field, to + 15);
  return kFixedBytes;
}

size_t EncodeDescriptors(const Sense& sense, std::byte* to) {
  std::memset(to, 0, kSenseBytesMax);
  to[0] = std::byte(kDescriptorCurrent);
  to[1] = std::byte(sense.key);
  StoreBig16(to + 2, static_cast<uint16_t>(sense.code));
  size_t bytes = 8;
  if (sense.information) {
    to[bytes] = std::byte(kInformationDescriptor);
    to[bytes + 1] = std::byte(0x0a);
    to[bytes + 2] = std::byte(kValid);
    StoreBig64(to + bytes + 4, *sense.information);
    bytes += 12;
  }
  if (sense.field) {
    to[bytes] = std::byte(kKeySpecificDescriptor);
    to[bytes + 1] = std::byte(0x06);
    StoreField(*sense.field, to + bytes + 4);
    bytes += 8;
  }
  to[7] = std::byte(bytes - 8);
  return bytes;
}

}  // namespace

Sense InvalidFieldInCdb(uint16_t byte, uint8_t bit) {
  Sense sense = IllegalRequest(SenseCode::kInvalidFieldInCdb);
  sense.field = FieldPointer{true, byte, bit};
  return sense;
}

Sense InvalidFieldInParameterList(uint16_t byte, uint8_t bit) {
  Sense sense = IllegalRequest(SenseCode::kInvalidFieldInParameterList);
  sense.field = FieldPointer{false, byte, bit};
  return sense;
}

size_t EncodeSense(const Sense& sense, std::byte* to) {
  return sense.descriptor ? EncodeDescriptors(sense, to) : EncodeFixed(sense, to);
}

}  // namespace ankole::scsi
