#include "wire/frame.h"

#include <cstring>
#include <string>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "wire/layers.h"

namespace ankole::wire {
namespace {

// The bounds of an opcode's request and reply.
struct Rule {
  Opcode opcode;
  const char* name;
  uint16_t flags;             // allowed in the request
  bool range;                 // offset and length are used, in both directions
  uint32_t length_bytes_max;  // of the range
  uint32_t request_payload_bytes_max;
  uint32_t reply_payload_bytes_max;
  bool shared = false;  // may go through shared memory
  bool view = false;    // may be about a snapshot
};

constexpr uint32_t kAnyLength = UINT32_MAX;
constexpr uint32_t kControl = kControlPayloadBytesMax;

constexpr Rule kRules[] = {
    {Opcode::kHello, "HELLO", 0, false, 0, kControl, kControl},
    {Opcode::kAuth, "AUTH", 0, false, 0, kControl, kControl},
    {Opcode::kInquire, "INQUIRE", 0, false, 0, 0, kControl},
    {Opcode::kWelcome, "WELCOME", 0, false, 0, kControl, kControl},
    {Opcode::kRecord, "RECORD", kFlagResynced | kFlagStillLost, false, 0, kControl, 0},
    {Opcode::kRead, "READ", kFlagAnyway | kFlagDisablePageOut, true, kDataBytesMax, 0,
     kPayloadBytesMax, true, true},
    {Opcode::kWrite, "WRITE", kFlagForceUnitAccess | kFlagDisablePageOut, true, kDataBytesMax,
     kPayloadBytesMax, 0, true},
    {Opcode::kZero, "ZERO", kFlagForceUnitAccess | kFlagKeepAllocated, true, kAnyLength, 0, 0,
     true},
    {Opcode::kUnmap, "UNMAP", kFlagForceUnitAccess, true, kAnyLength, 0, 0, true},
    {Opcode::kFlush, "FLUSH", 0, false, 0, 0, 0, true},
    {Opcode::kStatus, "STATUS", 0, true, kAnyLength, 0, kControl, false, true},
    {Opcode::kPing, "PING", 0, false, 0, 0, 0},
    {Opcode::kClose, "CLOSE", 0, false, 0, 0, 0},
    {Opcode::kShare, "SHARE", 0, false, 0, kControl, 0},
    {Opcode::kLoadState, "LOAD STATE", 0, true, kTargetStateBytes, 0, kPayloadBytesMax},
    {Opcode::kStoreState, "STORE STATE", 0, true, kTargetStateBytes, kPayloadBytesMax, 0},
    {Opcode::kMark, "MARK", 0, false, 0, kControl, 0},
    {Opcode::kClean, "CLEAN", 0, true, kAnyLength, kControl, 0},
    {Opcode::kSum, "SUM", kFlagAnyway | kFlagDisablePageOut, true, kDataBytesMax, 0, kControl,
     false, true},
    {Opcode::kMaps, "MAPS", 0, false, 0, 0, kControl},
    {Opcode::kMap, "MAP", 0, false, 0, kControl, kControl},
    {Opcode::kMissing, "MISSING", 0, false, 0, kControl, 0},
    {Opcode::kRecent, "RECENT", 0, false, 0, 0, kControl},
    {Opcode::kBad, "BAD", 0, true, kDataBytesMax, 0, 0},
    {Opcode::kLayers, "LAYERS", 0, false, 0, kLayersRequestBytes, kControl},
    {Opcode::kPrepare, "PREPARE", 0, false, 0, kPrepareBytesMax, 0},
    {Opcode::kSwitch, "SWITCH", 0, false, 0, kLayerNameBytes, 0},
    {Opcode::kSeal, "SEAL", 0, false, 0, kLayerNameBytes, 0},
    {Opcode::kDelete, "DELETE", 0, false, 0, kLayerNameBytes, 0},
    {Opcode::kView, "VIEW", 0, false, 0, kViewRequestBytes, kViewAnswerBytesMax},
    {Opcode::kCloseView, "CLOSE VIEW", 0, false, 0, kViewIdBytes, 0},
    {Opcode::kChanged, "CHANGED", 0, false, 0, kChangedRequestBytes, kControl},
    {Opcode::kExpand, "EXPAND", 0, false, 0, kControl, 0},
};

const Rule* FindRule(uint8_t opcode) {
  for (const Rule& rule : kRules) {
    if (static_cast<uint8_t>(rule.opcode) == opcode) return &rule;
  }
  return nullptr;
}

// Null when the header is good, else the cause.
const char* Fault(const Header& header, const Rule& rule) {
  if (header.reply ? header.flags != 0 : (header.flags & ~rule.flags) != 0) {
    return "a flag that this opcode does not have";
  }
  if (!header.reply && header.status != ErrorCode::kOk) return "a request with a status";
  if (header.view != 0 && (header.reply || !rule.view)) return "a view where there is none";
  if (rule.range) {
    if (header.length_bytes == 0 || header.length_bytes > rule.length_bytes_max) {
      return "the length is out of bounds";
    }
    if (header.offset_bytes % kSectorBytes != 0 || header.length_bytes % kSectorBytes != 0) {
      return "offset or length is no multiple of 512";
    }
    if (header.offset_bytes > kVolumeBytesMax) return "the offset is out of bounds";
    const bool state = rule.opcode == Opcode::kLoadState || rule.opcode == Opcode::kStoreState;
    if (state && (header.offset_bytes != 0 || header.length_bytes != kTargetStateBytes)) {
      return "a part of the target state";
    }
    if (rule.opcode == Opcode::kClean &&
        (header.offset_bytes % kRegionBytes != 0 || header.length_bytes % kRegionBytes != 0)) {
      return "a part of a region";
    }
    const bool of_blocks = rule.opcode == Opcode::kSum || rule.opcode == Opcode::kBad;
    if (of_blocks && header.offset_bytes % kBlockBytes != 0) {
      return "the range begins within a block";
    }
  } else if (header.offset_bytes != 0 || header.length_bytes != 0) {
    return "a range where there is none";
  }
  if (header.shared) {
    if (!rule.shared) return "an opcode that does not go through shared memory";
    if (header.payload_bytes != 0) return "a payload in shared memory";
  } else if (header.carries_data()) {
    if (header.payload_bytes != header.table_bytes() + header.length_bytes) {
      return "payload and length do not fit";
    }
  } else {
    const uint32_t max = !header.reply                     ? rule.request_payload_bytes_max
                         : header.status == ErrorCode::kOk ? rule.reply_payload_bytes_max
                                                           : kControl;  // an error's text
    if (header.payload_bytes > max) return "the payload is too long";
  }
  return nullptr;
}

Status BadFrame(const std::string& cause) {
  return {ErrorCode::kProtocolError, "replication frame: " + cause};
}

}  // namespace

void EncodeHeader(const Header& header, std::byte* to) {
  const Rule* rule = FindRule(static_cast<uint8_t>(header.opcode));
  CHECK(rule != nullptr && Fault(header, *rule) == nullptr);
  std::memset(to, 0, kHeaderBytes);
  StoreLittle(to + kMagicAt, kMagic);
  StoreLittle(to + kVersionAt, kVersion);
  StoreLittle(to + kOpcodeAt, static_cast<uint8_t>(static_cast<uint8_t>(header.opcode) |
                                                   (header.reply ? kReplyBit : 0)));
  StoreLittle(to + kFlagsAt, header.flags);
  StoreLittle(to + kTagAt, header.tag);
  StoreLittle(to + kOffsetAt, header.offset_bytes);
  StoreLittle(to + kLengthAt, header.length_bytes);
  StoreLittle(to + kStatusAt, static_cast<uint16_t>(header.status));
  StoreLittle(to + kViewAt, header.view);
  StoreLittle(to + kCompleteTagAt, header.complete_tag);
  StoreLittle(to + kSlotAt, header.slot);
  StoreLittle(to + kPayloadBytesAt, header.payload_bytes);
  StoreLittle(to + kPayloadCrcAt, header.payload_crc32c);
  StoreLittle(to + kSharedOffsetAt, header.shared_offset_bytes);
  StoreLittle(to + kHeaderCrcAt, Crc32c(to, kHeaderCrcAt));
}

namespace {

Result<Header> Decode(std::span<const std::byte, kHeaderBytes> from, bool shared) {
  const std::byte* in = from.data();
  if (LoadLittle<uint32_t>(in + kMagicAt) != kMagic) return BadFrame("wrong magic number");
  if (LoadLittle<uint32_t>(in + kHeaderCrcAt) != Crc32c(in, kHeaderCrcAt)) {
    return BadFrame("the header's checksum is wrong");
  }
  const auto version = LoadLittle<uint8_t>(in + kVersionAt);
  if (version != kVersion) return BadFrame("version " + std::to_string(version) + " is not known");
  const auto opcode = LoadLittle<uint8_t>(in + kOpcodeAt);
  const Rule* rule = FindRule(opcode & ~kReplyBit);
  if (rule == nullptr) return BadFrame("opcode " + std::to_string(opcode) + " is not known");
  const auto status = LoadLittle<uint16_t>(in + kStatusAt);
  if (!IsErrorCode(status)) return BadFrame("status " + std::to_string(status) + " is not known");
  Header header;
  header.shared = shared;
  header.shared_offset_bytes = LoadLittle<uint64_t>(in + kSharedOffsetAt);
  if (!shared && header.shared_offset_bytes != 0) return BadFrame("reserved bytes are not zero");
  header.opcode = rule->opcode;
  header.reply = (opcode & kReplyBit) != 0;
  header.flags = LoadLittle<uint16_t>(in + kFlagsAt);
  header.status = static_cast<ErrorCode>(status);
  header.view = LoadLittle<uint16_t>(in + kViewAt);
  header.tag = LoadLittle<uint64_t>(in + kTagAt);
  header.slot = LoadLittle<uint32_t>(in + kSlotAt);
  header.offset_bytes = LoadLittle<uint64_t>(in + kOffsetAt);
  header.length_bytes = LoadLittle<uint32_t>(in + kLengthAt);
  header.complete_tag = LoadLittle<uint64_t>(in + kCompleteTagAt);
  header.payload_bytes = LoadLittle<uint32_t>(in + kPayloadBytesAt);
  header.payload_crc32c = LoadLittle<uint32_t>(in + kPayloadCrcAt);
  if (const char* fault = Fault(header, *rule)) {
    return BadFrame(std::string(rule->name) + (header.reply ? " reply: " : ": ") + fault);
  }
  return header;
}

}  // namespace

Result<Header> DecodeHeader(std::span<const std::byte, kHeaderBytes> from) {
  return Decode(from, false);
}

Result<Header> DecodeSharedHeader(std::span<const std::byte, kHeaderBytes> from) {
  return Decode(from, true);
}

bool PayloadMatches(const Header& header, const std::byte* payload_or_table) {
  const uint32_t bytes = header.carries_data() ? header.table_bytes() : header.payload_bytes;
  return Crc32c(payload_or_table, bytes) == header.payload_crc32c;
}

bool DataMatches(const Header& header, const std::byte* table, const std::byte* data) {
  uint64_t offset_bytes = header.offset_bytes;
  uint32_t left_bytes = header.length_bytes;
  while (left_bytes > 0) {
    const auto room = static_cast<uint32_t>(kBlockBytes - offset_bytes % kBlockBytes);
    const uint32_t part = room < left_bytes ? room : left_bytes;
    if (Crc32c(data, part) != LoadLittle<uint32_t>(table)) return false;
    table += 4;
    data += part;
    offset_bytes += part;
    left_bytes -= part;
  }
  return true;
}

const char* OpcodeName(Opcode opcode) {
  const Rule* rule = FindRule(static_cast<uint8_t>(opcode));
  CHECK(rule != nullptr);
  return rule->name;
}

}  // namespace ankole::wire
