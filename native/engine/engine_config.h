#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "base/limits.h"
#include "base/result.h"
#include "io/reactor.h"
#include "iscsi/server.h"
#include "wire/record.h"

// An engine's config and records, as they stand in control messages.
namespace ankole::engine {

// What JSON's readers keep exact.
inline constexpr int64_t kIntegerMax = (1LL << 53) - 1;

struct IscsiOptions {
  io::Address address;
  iscsi::ServerOptions server;
  std::string serial;
  uint32_t physical_block_bytes = kBlockBytes;
};

Result<io::Address> ListenAddress(const Json& json);
Json EpochToJson(const wire::Epoch& epoch);

}  // namespace ankole::engine
