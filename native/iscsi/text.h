#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "iscsi/limits.h"

// Text of Login and Text PDUs: key=value pairs, each ended by a zero byte (RFC 7143, 6.1).
namespace ankole::iscsi {

struct Pair {
  std::string_view key;
  std::string_view value;
};

// The pairs of a whole text, which they point into. nullopt: no text (a pair without «=» or end, an
// empty or overlong key, more than kTextKeysMax pairs, a key twice).
std::optional<std::vector<Pair>> ParseText(std::string_view text);
std::optional<std::string_view> Find(const std::vector<Pair>& pairs, std::string_view key);
void AppendPair(std::string* text, std::string_view key, std::string_view value);

// A number as RFC 7143, 6.1 writes it: decimal, or hexadecimal after 0x.
std::optional<uint64_t> ParseNumber(std::string_view text);

// A name of the kind iqn., eui. or naa. (RFC 7143, 4.2.7), of at most kNameBytesMax bytes, with
// upper-case letters made lower-case as its preparation wants. nullopt: it is none. Of characters
// outside of ASCII only the length is checked.
std::optional<std::string> ParseName(std::string_view text);

// What an initiator sent, for a log line: cut, and without control characters.
std::string Printable(std::string_view text);

}  // namespace ankole::iscsi
