#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/result.h"

// The bytes of the NBD protocol (doc/proto.md of the NetworkBlockDevice project), as pure
// functions: what arrives is decoded and validated here and nowhere else. Everything is big-endian.
namespace ankole::nbd {

inline constexpr uint64_t kServerMagic = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr uint64_t kOptionReplyMagic = 0x0003e889045565a9;
inline constexpr uint32_t kRequestMagic = 0x25609513;
inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;

// Sizes that INFO_BLOCK_SIZE announces. A client that did not ask may send up to the same maximum.
inline constexpr uint32_t kBlockBytesMin = kSectorBytes;
inline constexpr uint32_t kBlockBytesPreferred = kBlockBytes;
inline constexpr uint32_t kRequestBytesMax = 32 * kMiB;
// A read with DF must be answered by one chunk, so by one piece of the device.
inline constexpr uint32_t kUnfragmentedBytesMax = kDataBytesMax;
// A string of the protocol has at most 4096 bytes; an export name and three queries of that length.
inline constexpr uint32_t kOptionBytesMax = 16 * kKiB;
// Extents in one reply to BLOCK_STATUS. The client asks again for the rest.
inline constexpr uint32_t kExtentsMax = 512;

inline constexpr uint16_t kHandshakeFixedNewstyle = 1 << 0;
inline constexpr uint16_t kHandshakeNoZeroes = 1 << 1;
inline constexpr uint16_t kHandshakeFlags = kHandshakeFixedNewstyle | kHandshakeNoZeroes;

enum class Option : uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kStartTls = 5,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,  // 10 and 11 in old drafts of the document
  kSetMetaContext = 10,
};

enum class OptionReply : uint32_t {
  kAck = 1,
  kServer = 2,
  kInfo = 3,
  kMetaContext = 4,
  kErrorUnsupported = 0x80000001,
  kErrorInvalid = 0x80000003,
  kErrorUnknown = 0x80000006,
};

enum class Info : uint16_t { kExport = 0, kName = 1, kDescription = 2, kBlockSize = 3 };

inline constexpr uint16_t kFlagHasFlags = 1 << 0;
inline constexpr uint16_t kFlagReadOnly = 1 << 1;
inline constexpr uint16_t kFlagSendFlush = 1 << 2;
inline constexpr uint16_t kFlagSendFua = 1 << 3;
inline constexpr uint16_t kFlagSendTrim = 1 << 5;
inline constexpr uint16_t kFlagSendWriteZeroes = 1 << 6;
inline constexpr uint16_t kFlagSendDf = 1 << 7;
inline constexpr uint16_t kFlagCanMultiConn = 1 << 8;
inline constexpr uint16_t kFlagSendFastZero = 1 << 11;

enum class Command : uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};

inline constexpr uint16_t kCommandFua = 1 << 0;
inline constexpr uint16_t kCommandNoHole = 1 << 1;
inline constexpr uint16_t kCommandDf = 1 << 2;
inline constexpr uint16_t kCommandReqOne = 1 << 3;
inline constexpr uint16_t kCommandFastZero = 1 << 4;

enum class ReplyChunk : uint16_t {
  kOffsetData = 1,
  kBlockStatus = 5,
  kError = 0x8001,
};
inline constexpr uint16_t kReplyDone = 1 << 0;

inline constexpr uint32_t kStateHole = 1 << 0;
inline constexpr uint32_t kStateZero = 1 << 1;

// The one metadata context, and the number that SET_META_CONTEXT gives it.
inline constexpr std::string_view kAllocationContext = "base:allocation";
inline constexpr uint32_t kAllocationContextId = 1;

// Error numbers of replies are fixed by the protocol, whatever errno.h says.
enum class Error : uint32_t {
  kNone = 0,
  kPermission = 1,
  kIo = 5,
  kInvalid = 22,
  kNoSpace = 28,
  kOverflow = 75,
  kNotSupported = 95,
  kShutdown = 108,
};
Error ErrorOf(ErrorCode code);

// --- formats -----------------------------------------------------------------------------------

struct [[gnu::packed]] GreetingBytes {
  uint64_t server_magic;
  uint64_t option_magic;
  uint16_t flags;
};
static_assert(sizeof(GreetingBytes) == 18);

struct [[gnu::packed]] OptionHeaderBytes {
  uint64_t magic;
  uint32_t option;
  uint32_t length;
};
static_assert(sizeof(OptionHeaderBytes) == 16);

struct [[gnu::packed]] OptionReplyBytes {
  uint64_t magic;
  uint32_t option;
  uint32_t type;
  uint32_t length;
};
static_assert(sizeof(OptionReplyBytes) == 20);

struct [[gnu::packed]] RequestBytes {
  uint32_t magic;
  uint16_t flags;
  uint16_t command;
  uint64_t cookie;
  uint64_t offset;
  uint32_t length;
};
static_assert(sizeof(RequestBytes) == 28);
static_assert(offsetof(RequestBytes, cookie) == 8);
static_assert(offsetof(RequestBytes, offset) == 16);
static_assert(offsetof(RequestBytes, length) == 24);

struct [[gnu::packed]] SimpleReplyBytes {
  uint32_t magic;
  uint32_t error;
  uint64_t cookie;
};
static_assert(sizeof(SimpleReplyBytes) == 16);

struct [[gnu::packed]] StructuredReplyBytes {
  uint32_t magic;
  uint16_t flags;
  uint16_t type;
  uint64_t cookie;
  uint32_t length;
};
static_assert(sizeof(StructuredReplyBytes) == 20);

inline constexpr uint32_t kRequestHeaderBytes = sizeof(RequestBytes);
inline constexpr uint32_t kOptionHeaderBytes = sizeof(OptionHeaderBytes);
inline constexpr uint32_t kClientFlagsBytes = 4;
// No reply's header (all of it but data and extents) is longer.
inline constexpr uint32_t kReplyHeaderBytesMax = sizeof(StructuredReplyBytes) + 8;

// --- decoding ------------------------------------------------------------------------------------

struct Request {
  uint64_t cookie = 0;
  uint64_t offset_bytes = 0;
  uint32_t length_bytes = 0;
  uint16_t flags = 0;
  Command command = Command::kRead;
};

// What the handshake agreed on.
struct Negotiated {
  bool no_zeroes = false;
  bool structured_replies = false;
  bool block_status = false;  // Invariant: only with structured_replies
};

struct OptionHeader {
  Option option = Option::kAbort;
  uint32_t length_bytes = 0;
};

struct InfoOption {
  std::string_view name;
  bool wants_name = false;
  bool wants_description = false;
};

struct MetaContextOption {
  std::string_view name;
  bool lists_allocation = false;    // a query of LIST_META_CONTEXT matches it
  bool selects_allocation = false;  // a query of SET_META_CONTEXT names it
};

// nullopt: flags that this server did not offer.
std::optional<Negotiated> DecodeClientFlags(const std::byte* bytes);
// nullopt: not an option.
std::optional<OptionHeader> DecodeOptionHeader(const std::byte* bytes);
// nullopt: lengths that contradict each other.
std::optional<InfoOption> DecodeInfoOption(std::span<const std::byte> data);
std::optional<MetaContextOption> DecodeMetaContextOption(std::span<const std::byte> data);
// nullopt: the magic is wrong, so that nothing that follows can be understood.
std::optional<Request> DecodeRequest(const std::byte* bytes);
// What a well-framed request is answered with at once, or kNone if the device may see it. Not for
// kDisconnect, which has no answer.
Error Validate(const Request& request, const Negotiated& negotiated, uint64_t size_bytes,
               bool read_only);

// --- encoding ------------------------------------------------------------------------------------

// Appends to memory that the caller has made large enough.
class Encoder {
 public:
  explicit Encoder(std::byte* to) : start_(to), at_(to) {}
  void U16(uint16_t value) { StoreBig16(Advance(2), value); }
  void U32(uint32_t value) { StoreBig32(Advance(4), value); }
  void U64(uint64_t value) { StoreBig64(Advance(8), value); }
  void Text(std::string_view text) { std::memcpy(Advance(text.size()), text.data(), text.size()); }
  void Zeroes(size_t bytes) { std::memset(Advance(bytes), 0, bytes); }
  uint32_t bytes() const { return static_cast<uint32_t>(at_ - start_); }

 private:
  std::byte* Advance(size_t bytes) {
    std::byte* at = at_;
    at_ += bytes;
    return at;
  }
  std::byte* start_;
  std::byte* at_;
};

uint16_t TransmissionFlags(const Negotiated& negotiated, bool read_only);
void EncodeGreeting(Encoder* to);
void EncodeOptionReply(Encoder* to, Option option, OptionReply type, uint32_t data_bytes);
// Each writes the header and returns its length; the data follows from elsewhere.
uint32_t EncodeSimpleReply(std::byte* to, uint64_t cookie, Error error);
uint32_t EncodeDataChunk(std::byte* to, uint64_t cookie, uint64_t offset_bytes, uint32_t data_bytes,
                         bool done);
uint32_t EncodeErrorChunk(std::byte* to, uint64_t cookie, Error error);
uint32_t EncodeBlockStatusChunk(std::byte* to, uint64_t cookie, uint32_t extents);
// One extent: 8 bytes.
void EncodeExtent(std::byte* to, uint32_t length_bytes, uint32_t flags);
inline constexpr uint32_t kExtentBytes = 8;

}  // namespace ankole::nbd
