#include <vector>

#include "nbd/handshake.h"

// Owns the decoders: the first byte chooses one, the rest is its input.
namespace ankole::nbd {
namespace {

void Fuzz(const uint8_t* data, size_t size) {
  if (size == 0) return;
  // A copy of exactly this size, so that a read past the end is seen.
  std::vector<std::byte> bytes(size - 1);
  if (size > 1) std::memcpy(bytes.data(), data + 1, size - 1);
  const uint8_t choice = data[0];
  if (choice < 64) {
    const Export volume{"volume", 64 * kMiB, false};
    Negotiated negotiated = {(choice & 16) != 0, (choice & 32) != 0, false};
    std::vector<std::byte> room(kOptionRepliesBytesMax);
    Encoder replies(room.data());
    std::string cause;
    const HandshakeStep step = AnswerOption(static_cast<Option>(choice % 16), bytes, volume,
                                            &negotiated, &replies, &cause);
    CHECK(replies.bytes() <= kOptionRepliesBytesMax);
    CHECK((step == HandshakeStep::kRefuse) == (replies.bytes() == 0));
    CHECK((step == HandshakeStep::kRefuse) == !cause.empty());
    CHECK(!negotiated.block_status || negotiated.structured_replies);
  } else if (bytes.size() >= kRequestHeaderBytes) {
    const std::optional<Request> request = DecodeRequest(bytes.data());
    if (!request || request->command == Command::kDisconnect) return;
    const Negotiated negotiated = {false, (choice & 1) != 0,
                                   (choice & 1) != 0 && (choice & 2) != 0};
    if (Validate(*request, negotiated, 64 * kMiB, false) != Error::kNone) return;
    if (request->command == Command::kFlush) return;
    CHECK(request->length_bytes > 0);
    CHECK(request->offset_bytes + request->length_bytes <= 64 * kMiB);
    CHECK((request->offset_bytes | request->length_bytes) % kSectorBytes == 0);
  } else {
    if (bytes.size() >= kOptionHeaderBytes) (void)DecodeOptionHeader(bytes.data());
    if (bytes.size() >= kClientFlagsBytes) (void)DecodeClientFlags(bytes.data());
  }
}

}  // namespace
}  // namespace ankole::nbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ankole::nbd::Fuzz(data, size);
  return 0;
}
