#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "nbd/protocol.h"

// Fixed newstyle negotiation: one option in, its replies out. Pure.
namespace ankole::nbd {

struct Export {
  std::string name;
  uint64_t size_bytes = 0;
  bool read_only = false;
};

enum class HandshakeStep : uint8_t {
  kNextOption,
  kTransmission,  // the client has its export
  kEnd,           // the client said goodbye
  kRefuse,        // cannot be answered; the connection must be closed, `cause` says why
};

// The most that AnswerOption writes for one option: the name and the description in GO, or the 124
// zeroes of EXPORT_NAME.
inline constexpr uint32_t kOptionRepliesBytesMax = 512;

// The export that an option asks for by name; empty: for none, or for the default one.
std::string_view AskedExport(Option option, std::span<const std::byte> data);

// `data` is the option's, complete; `volume` the export that it asks for, or, where that is none,
// the default one. Changes `negotiated` as the client asks.
HandshakeStep AnswerOption(Option option, std::span<const std::byte> data, const Export& volume,
                           Negotiated* negotiated, Encoder* replies, std::string* cause);

// A name that a client sent, for a log line: cut, and without control characters.
std::string Printable(std::string_view name);

}  // namespace ankole::nbd
