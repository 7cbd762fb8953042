#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"

namespace ankole {

// CRC32C (Castagnoli, RFC 3720 appendix B.4), of `bytes` after a prefix whose checksum is `before`.
// By AVX-512 with VPCLMULQDQ or by SSE4.2 where the processor has it.
uint32_t Crc32c(const void* data, size_t bytes, uint32_t before = 0);

// One checksum for each 4 KiB block of the volume that [offset, offset + length) touches, over the
// part of the block that is within. `checksums` has room for BlocksTouched(offset, length).
void Crc32cBlocks(const void* data, uint64_t offset_bytes, uint32_t length_bytes,
                  uint32_t* checksums);

// Whether the processor's own instruction is used (for the API and the benchmarks).
bool Crc32cAccelerated();
// The portable one, for tests and other processors.
uint32_t Crc32cPortable(const void* data, size_t bytes, uint32_t before = 0);

}  // namespace ankole
