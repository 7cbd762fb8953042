#include <cstring>
#include <vector>

#include "base/check.h"
#include "iscsi/pdu.h"

// Owns the framing: the first byte chooses digests, the rest is a PDU.
namespace ankole::iscsi {
namespace {

void Fuzz(const uint8_t* data, size_t size) {
  if (size < 1 + kHeaderBytes) return;
  // A copy of exactly this size, so that a read past the end is seen.
  std::vector<std::byte> bytes(size - 1);
  std::memcpy(bytes.data(), data + 1, size - 1);
  const Digests digests = {(data[0] & 1) != 0, (data[0] & 2) != 0};
  const uint32_t segment_bytes_max = (data[0] & 4) != 0 ? 8192 : 1 << 24;
  const std::optional<Frame> frame = DecodeFrame(bytes.data(), digests, segment_bytes_max);
  if (!frame) return;
  CHECK(frame->data_bytes <= segment_bytes_max);
  CHECK(frame->header_bytes >= kHeaderBytes && frame->header_bytes <= kHeaderBytes + 1020 + 4);
  CHECK((frame->data_bytes + frame->trailer_bytes) % 4 == 0);
  CHECK(frame->data_bytes > 0 || frame->trailer_bytes == 0);
  if (bytes.size() < frame->header_bytes) return;
  (void)HeaderDigestMatches(*frame, bytes.data());
  const AdditionalHeaders additional = DecodeAdditionalHeaders(*frame, bytes.data());
  CHECK((additional == AdditionalHeaders::kNone) == (frame->header.ahs_words == 0));
}

}  // namespace
}  // namespace ankole::iscsi

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ankole::iscsi::Fuzz(data, size);
  return 0;
}
