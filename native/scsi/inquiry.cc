#include "scsi/inquiry.h"

#include <cstring>

#include "base/sha256.h"
#include "scsi/limits.h"
#include "scsi/resources.h"

namespace ankole::scsi {

namespace {

constexpr uint8_t kDirectAccess = 0x00;
// Peripheral qualifier 011b, device type 1Fh: no logical unit can be there.
constexpr uint8_t kNothingThere = 0x7f;
constexpr std::string_view kVendor = "ANKOLE";
constexpr std::string_view kProduct = "Volume";
constexpr std::string_view kRevision = "0001";

constexpr uint8_t kPages[] = {kPageSupported,   kPageSerialNumber,    kPageIdentification,
                              kPageBlockLimits, kPageCharacteristics, kPageProvisioning};

// --- page 83h ------------------------------------------------------------------------------------

constexpr uint8_t kProtocolIscsi = 0x5;
enum class CodeSet : uint8_t { kBinary = 1, kAscii = 2, kUtf8 = 3 };
enum class Association : uint8_t { kLogicalUnit = 0, kTargetPort = 1, kTargetDevice = 2 };
enum class DesignatorType : uint8_t { kVendorId = 1, kNaa = 3, kRelativePort = 4, kName = 8 };

// SPC-4, 7.8.6.1; a protocol is named for ports and devices only.
void BeginDesignator(CodeSet code_set, Association association, DesignatorType type, size_t bytes,
                     Answer* to) {
  const bool transport = association != Association::kLogicalUnit;
  to->U8((transport ? kProtocolIscsi << 4 : 0) | static_cast<uint8_t>(code_set));
  to->U8((transport ? 0x80 : 0) | static_cast<uint8_t>(association) << 4 |
         static_cast<uint8_t>(type));
  to->U8(0);
  to->U8(static_cast<uint8_t>(bytes));
}

// A SCSI name string ends with a zero, and is padded to a multiple of four.
void AppendName(Association association, const std::string& name, Answer* to) {
  const size_t bytes = (name.size() + 4) / 4 * 4;
  BeginDesignator(CodeSet::kUtf8, association, DesignatorType::kName, bytes, to);
  to->Bytes(name.data(), name.size());
  to->Zeroes(bytes - name.size());
}

// What fits into a designator's one byte of length, with the vendor before it.
std::string_view DesignatorSerial(const Identity& identity) {
  return std::string_view(identity.serial).substr(0, 240);
}

// NAA 3h, locally assigned: there is no IEEE company id to make another one from. 60 bits of a hash
// of the serial number.
uint64_t NaaName(const Identity& identity) {
  Sha256 hash;
  hash.Update(identity.serial.data(), identity.serial.size());
  return LoadBig64(hash.Finish().data()) >> 4 | uint64_t{3} << 60;
}

// Those of the logical unit itself.
void BuildUnitDesignators(const Identity& identity, Answer* to) {
  BeginDesignator(CodeSet::kBinary, Association::kLogicalUnit, DesignatorType::kNaa, 8, to);
  to->U64(NaaName(identity));

  const std::string_view serial = DesignatorSerial(identity);
  BeginDesignator(CodeSet::kAscii, Association::kLogicalUnit, DesignatorType::kVendorId,
                  8 + serial.size(), to);
  to->Padded(kVendor, 8);
  to->Bytes(serial.data(), serial.size());
}

void BuildIdentification(const Identity& identity, Answer* to) {
  BuildUnitDesignators(identity, to);
  BeginDesignator(CodeSet::kBinary, Association::kTargetPort, DesignatorType::kRelativePort, 4, to);
  to->U16(0);
  to->U16(kRelativeTargetPort);
  // The target port's name is made from portal group tag 1 (RFC 7143, 10.1).
  AppendName(Association::kTargetPort, identity.target + ",t,0x0001", to);
  AppendName(Association::kTargetDevice, identity.target, to);
}

// --- pages B0h to B2h ----------------------------------------------------------------------------

void BuildBlockLimits(Answer* to) {
  to->U8(0x01);  // WSNZ: WRITE SAME of 0 blocks is refused
  to->U8(kCompareBlocksMax);
  to->U16(kChecksumBlocks);  // optimal granularity of transfers
  to->U32(kTransferBlocksMax);
  to->U32(kDataBytesMax / kLogicalBlockBytes);  // optimal transfer
  to->U32(0);                                   // PRE-FETCH: no limit
  to->U32(kUnmapBlocksUnlimited);
  to->U32(kUnmapDescriptorsMax);
  to->U32(kChecksumBlocks);  // optimal granularity of UNMAP
  to->U32(0x80000000);       // UGAVALID, and its alignment: 0
  to->U64(kWriteSameBlocksMax);
  to->Zeroes(20);  // no WRITE ATOMIC
}

void BuildCharacteristics(Answer* to) {
  to->U16(1);  // does not rotate
  to->Zeroes(58);
}

void BuildProvisioning(Answer* to) {
  to->U8(kThresholdExponent);
  to->U8(0xe4);  // LBPU, LBPWS, LBPWS10; LBPRZ: what is unmapped reads as zeros
  to->U8(0x02);  // thin
  to->U8(0);
}

}  // namespace

bool NamesUnit(const Identity& identity, std::span<const std::byte, kDesignatorFieldBytes> field) {
  std::byte page[4 + 8 + 4 + 8 + 240];
  Answer designators(page);
  BuildUnitDesignators(identity, &designators);
  for (uint32_t at = 0; at < designators.bytes_in_room();) {
    const size_t bytes = 4 + static_cast<size_t>(page[at + 3]);
    // The third byte is reserved, and what follows the designator is not looked at.
    if (bytes <= field.size() && (field[0] & std::byte{0x0f}) == page[at] &&
        (field[1] & std::byte{0x3f}) == page[at + 1] &&
        std::memcmp(&field[3], &page[at + 3], bytes - 3) == 0) {
      return true;
    }
    at += static_cast<uint32_t>(bytes);
  }
  return false;
}

void BuildInquiry(bool connected, Answer* to) {
  to->U8(connected ? kDirectAccess : kNothingThere);
  to->U8(0);     // not removable
  to->U8(0x06);  // SPC-4
  to->U8(0x12);  // HISUP; response format 2
  to->U8(91);
  to->U8(0x08);  // 3PC; no SCCS, TPGS, PROTECT
  to->U8(0);
  to->U8(0x02);  // CMDQUE
  to->Padded(kVendor, 8);
  to->Padded(kProduct, 16);
  to->Padded(kRevision, 4);
  to->Zeroes(58 - 36);
  to->U16(0x00a0);  // SAM-5
  to->U16(0x0960);  // iSCSI
  to->U16(0x0460);  // SPC-4
  to->U16(0x04c0);  // SBC-3
  to->Zeroes(96 - 66);
}

std::optional<Sense> BuildVitalData(uint8_t page, bool connected, const Identity& identity,
                                    Answer* to) {
  if (!connected && page != kPageSupported) return InvalidFieldInCdb(2);
  to->U8(connected ? kDirectAccess : kNothingThere);
  to->U8(page);
  to->U16(0);
  switch (page) {
    case kPageSupported:
      if (connected) {
        to->Bytes(kPages, sizeof(kPages));
      } else {
        to->U8(kPageSupported);
      }
      break;
    case kPageSerialNumber: {
      const std::string_view serial = DesignatorSerial(identity);
      to->Bytes(serial.data(), serial.size());
      break;
    }
    case kPageIdentification:
      BuildIdentification(identity, to);
      break;
    case kPageBlockLimits:
      BuildBlockLimits(to);
      break;
    case kPageCharacteristics:
      BuildCharacteristics(to);
      break;
    case kPageProvisioning:
      BuildProvisioning(to);
      break;
    default:
      return InvalidFieldInCdb(2);
  }
  to->PatchU16(2, static_cast<uint16_t>(to->bytes() - 4));
  return {};
}

}  // namespace ankole::scsi
