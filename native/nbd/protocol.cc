#include "nbd/protocol.h"

namespace ankole::nbd {

namespace {

// Reads forward through bytes of unknown length; once something is missing, `good` is false and
// stays so.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}
  uint16_t U16() {
    const std::byte* at = Take(2);
    return at == nullptr ? 0 : LoadBig16(at);
  }
  uint32_t U32() {
    const std::byte* at = Take(4);
    return at == nullptr ? 0 : LoadBig32(at);
  }
  std::string_view Text(uint32_t length) {
    const std::byte* at = Take(length);
    return at == nullptr ? std::string_view()
                         : std::string_view(reinterpret_cast<const char*>(at), length);
  }
  bool good() const { return good_; }
  bool exhausted() const { return good_ && bytes_.empty(); }

 private:
  const std::byte* Take(size_t count) {
    if (!good_ || bytes_.size() < count) {
      good_ = false;
      return nullptr;
    }
    const std::byte* at = bytes_.data();
    bytes_ = bytes_.subspan(count);
    return at;
  }
  std::span<const std::byte> bytes_;
  bool good_ = true;
};

}  // namespace

Error ErrorOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk:
      return Error::kNone;
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kOutOfRange:
      return Error::kInvalid;
    case ErrorCode::kNoSpace:
      return Error::kNoSpace;
    case ErrorCode::kReadOnly:
    case ErrorCode::kPermissionDenied:
      return Error::kPermission;
    case ErrorCode::kUnsupported:
      return Error::kNotSupported;
    case ErrorCode::kFenced:
    case ErrorCode::kCancelled:
    case ErrorCode::kUnavailable:
      return Error::kShutdown;
    default:
      return Error::kIo;
  }
}

std::optional<Negotiated> DecodeClientFlags(const std::byte* bytes) {
  const uint32_t flags = LoadBig32(bytes);
  if ((flags & ~uint32_t{kHandshakeFlags}) != 0) return std::nullopt;
  Negotiated negotiated;
  negotiated.no_zeroes = (flags & kHandshakeNoZeroes) != 0;
  return negotiated;
}

std::optional<OptionHeader> DecodeOptionHeader(const std::byte* bytes) {
  if (LoadBig64(bytes + offsetof(OptionHeaderBytes, magic)) != kOptionMagic) return std::nullopt;
  OptionHeader header;
  header.option = static_cast<Option>(LoadBig32(bytes + offsetof(OptionHeaderBytes, option)));
  header.length_bytes = LoadBig32(bytes + offsetof(OptionHeaderBytes, length));
  return header;
}

std::optional<InfoOption> DecodeInfoOption(std::span<const std::byte> data) {
  Cursor cursor(data);
  InfoOption info;
  info.name = cursor.Text(cursor.U32());
  const uint16_t count = cursor.U16();
  for (uint32_t i = 0; i < count && cursor.good(); ++i) {
    const auto wanted = static_cast<Info>(cursor.U16());
    if (!cursor.good()) break;
    info.wants_name |= wanted == Info::kName;
    info.wants_description |= wanted == Info::kDescription;
  }
  if (!cursor.exhausted()) return std::nullopt;
  return info;
}

std::optional<MetaContextOption> DecodeMetaContextOption(std::span<const std::byte> data) {
  Cursor cursor(data);
  MetaContextOption option;
  option.name = cursor.Text(cursor.U32());
  const uint32_t count = cursor.U32();
  // Without a query LIST means all there are, SET means none.
  option.lists_allocation = count == 0;
  for (uint32_t i = 0; i < count && cursor.good(); ++i) {
    const std::string_view query = cursor.Text(cursor.U32());
    option.lists_allocation |= query == "base:" || query == kAllocationContext;
    option.selects_allocation |= query == kAllocationContext;
  }
  if (!cursor.exhausted()) return std::nullopt;
  return option;
}

std::optional<Request> DecodeRequest(const std::byte* bytes) {
  if (LoadBig32(bytes + offsetof(RequestBytes, magic)) != kRequestMagic) return std::nullopt;
  Request request;
  request.flags = LoadBig16(bytes + offsetof(RequestBytes, flags));
  request.command = static_cast<Command>(LoadBig16(bytes + offsetof(RequestBytes, command)));
  request.cookie = LoadBig64(bytes + offsetof(RequestBytes, cookie));
  request.offset_bytes = LoadBig64(bytes + offsetof(RequestBytes, offset));
  request.length_bytes = LoadBig32(bytes + offsetof(RequestBytes, length));
  return request;
}

Error Validate(const Request& request, const Negotiated& negotiated, uint64_t size_bytes,
               bool read_only) {
  const bool changes = request.command == Command::kWrite || request.command == Command::kTrim ||
                       request.command == Command::kWriteZeroes;
  if (read_only && changes) return Error::kPermission;
  // FUA is allowed on every command, as existing clients set it on any.
  uint16_t flags_allowed = kCommandFua;
  Error beyond_the_end = Error::kInvalid;
  switch (request.command) {
    case Command::kFlush:
      return (request.flags & ~kCommandFua) == 0 && request.offset_bytes == 0 &&
                     request.length_bytes == 0
                 ? Error::kNone
                 : Error::kInvalid;
    case Command::kRead:
      if (negotiated.structured_replies) flags_allowed |= kCommandDf;
      break;
    case Command::kWrite:
      beyond_the_end = Error::kNoSpace;
      break;
    case Command::kWriteZeroes:
      flags_allowed |= kCommandNoHole | kCommandFastZero;
      beyond_the_end = Error::kNoSpace;
      break;
    case Command::kTrim:
      break;
    case Command::kBlockStatus:
      if (!negotiated.block_status) return Error::kInvalid;
      flags_allowed |= kCommandReqOne;
      break;
    default:
      return Error::kInvalid;
  }
  if ((request.flags & ~flags_allowed) != 0) return Error::kInvalid;
  if (request.length_bytes == 0) return Error::kInvalid;
  if ((request.offset_bytes | request.length_bytes) % kBlockBytesMin != 0) return Error::kInvalid;
  if (request.offset_bytes > size_bytes ||
      request.length_bytes > size_bytes - request.offset_bytes) {
    return beyond_the_end;
  }
  if (request.command == Command::kRead) {
    if (request.length_bytes > kRequestBytesMax) return Error::kInvalid;
    if ((request.flags & kCommandDf) != 0 && request.length_bytes > kUnfragmentedBytesMax) {
      return Error::kOverflow;
    }
  }
  return Error::kNone;
}

uint16_t TransmissionFlags(const Negotiated& negotiated, bool read_only) {
  uint16_t flags = kFlagHasFlags | kFlagSendFlush | kFlagCanMultiConn;
  flags |= read_only ? kFlagReadOnly
                     : kFlagSendFua | kFlagSendTrim | kFlagSendWriteZeroes | kFlagSendFastZero;
  if (negotiated.structured_replies) flags |= kFlagSendDf;
  return flags;
}

void EncodeGreeting(Encoder* to) {
  to->U64(kServerMagic);
  to->U64(kOptionMagic);
  to->U16(kHandshakeFlags);
}

void EncodeOptionReply(Encoder* to, Option option, OptionReply type, uint32_t data_bytes) {
  to->U64(kOptionReplyMagic);
  to->U32(static_cast<uint32_t>(option));
  to->U32(static_cast<uint32_t>(type));
  to->U32(data_bytes);
}

uint32_t EncodeSimpleReply(std::byte* to, uint64_t cookie, Error error) {
  Encoder encoder(to);
  encoder.U32(kSimpleReplyMagic);
  encoder.U32(static_cast<uint32_t>(error));
  encoder.U64(cookie);
  return encoder.bytes();
}

namespace {
void EncodeChunkHeader(Encoder* to, uint64_t cookie, ReplyChunk type, bool done,
                       uint32_t length_bytes) {
  to->U32(kStructuredReplyMagic);
  to->U16(done ? kReplyDone : 0);
  to->U16(static_cast<uint16_t>(type));
  to->U64(cookie);
  to->U32(length_bytes);
}
}  // namespace

uint32_t EncodeDataChunk(std::byte* to, uint64_t cookie, uint64_t offset_bytes, uint32_t data_bytes,
                         bool done) {
  Encoder encoder(to);
  EncodeChunkHeader(&encoder, cookie, ReplyChunk::kOffsetData, done, 8 + data_bytes);
  encoder.U64(offset_bytes);
  return encoder.bytes();
}

uint32_t EncodeErrorChunk(std::byte* to, uint64_t cookie, Error error) {
  Encoder encoder(to);
  EncodeChunkHeader(&encoder, cookie, ReplyChunk::kError, true, 6);
  encoder.U32(static_cast<uint32_t>(error));
  encoder.U16(0);
  return encoder.bytes();
}

uint32_t EncodeBlockStatusChunk(std::byte* to, uint64_t cookie, uint32_t extents) {
  Encoder encoder(to);
  EncodeChunkHeader(&encoder, cookie, ReplyChunk::kBlockStatus, true, 4 + extents * kExtentBytes);
  encoder.U32(kAllocationContextId);
  return encoder.bytes();
}

void EncodeExtent(std::byte* to, uint32_t length_bytes, uint32_t flags) {
  StoreBig32(to, length_bytes);
  StoreBig32(to + 4, flags);
}

}  // namespace ankole::nbd
