#include "iscsi/pdu.h"

#include <cstring>

#include "base/crc32c.h"

namespace ankole::iscsi {

std::optional<Frame> DecodeFrame(const std::byte* bytes, Digests digests,
                                 uint32_t segment_bytes_max) {
  std::array<std::byte, kHeaderBytes> raw;
  std::memcpy(raw.data(), bytes, kHeaderBytes);
  Frame frame;
  frame.header = As<BasicHeader>(raw);
  frame.data_bytes = frame.header.data_bytes;
  if (frame.data_bytes > segment_bytes_max) return std::nullopt;
  frame.header_bytes =
      kHeaderBytes + 4u * frame.header.ahs_words + (digests.header ? kDigestBytes : 0);
  if (frame.data_bytes > 0) {
    frame.trailer_bytes = PadBytes(frame.data_bytes) + (digests.data ? kDigestBytes : 0);
  }
  return frame;
}

bool HeaderDigestMatches(const Frame& frame, const std::byte* bytes) {
  const uint32_t covered = kHeaderBytes + 4u * frame.header.ahs_words;
  if (frame.header_bytes == covered) return true;
  // The digest is sent with its least significant byte first (RFC 7143, 13.1 and appendix A.4 of
  // RFC 3720).
  return Crc32c(bytes, covered) == LoadLittle<uint32_t>(bytes + covered);
}

AdditionalHeaders DecodeAdditionalHeaders(const Frame& frame, const std::byte* bytes) {
  constexpr uint32_t kSegmentHeaderBytes = 3;  // AHSLength, which counts what follows, and AHSType
  constexpr uint8_t kExtendedCdbType = 1;
  constexpr uint8_t kBidirectionalType = 2;
  AdditionalHeaders found = AdditionalHeaders::kNone;
  uint32_t left = 4u * frame.header.ahs_words;
  const std::byte* at = bytes + kHeaderBytes;
  while (left > 0) {
    const uint32_t length = LoadBig16(at);
    const uint32_t whole = kSegmentHeaderBytes + length;
    const uint32_t padded = whole + PadBytes(whole);
    if (length == 0 || padded > left) return AdditionalHeaders::kMalformed;
    const auto type = static_cast<uint8_t>(static_cast<uint8_t>(at[2]) & 0x3f);
    if (type == kBidirectionalType) {
      found = AdditionalHeaders::kBidirectional;
    } else if (type != kExtendedCdbType) {
      return AdditionalHeaders::kMalformed;
    } else if (found == AdditionalHeaders::kNone) {
      found = AdditionalHeaders::kExtendedCdb;
    }
    at += padded;
    left -= padded;
  }
  return found;
}

}  // namespace ankole::iscsi
