#include "iscsi/text.h"

#include <algorithm>
#include <charconv>

namespace ankole::iscsi {
namespace {

// RFC 7143, 6.1: standard-label.
bool IsKeyCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '+' || c == '@' || c == '_' || c == '/' || c == '#';
}

}  // namespace

std::optional<std::vector<Pair>> ParseText(std::string_view text) {
  std::vector<Pair> pairs;
  while (!text.empty()) {
    const size_t end = text.find('\0');
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view item = text.substr(0, end);
    text.remove_prefix(end + 1);
    // Some initiators count padding as data.
    if (item.empty() && text.find_first_not_of('\0') == std::string_view::npos) break;
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos || equals == 0 || equals > kKeyBytesMax) {
      return std::nullopt;
    }
    const Pair pair = {item.substr(0, equals), item.substr(equals + 1)};
    if (!std::all_of(pair.key.begin(), pair.key.end(), IsKeyCharacter)) return std::nullopt;
    if (pairs.size() == kTextKeysMax || Find(pairs, pair.key)) return std::nullopt;
    pairs.push_back(pair);
  }
  return pairs;
}

std::optional<std::string_view> Find(const std::vector<Pair>& pairs, std::string_view key) {
  for (const Pair& pair : pairs) {
    if (pair.key == key) return pair.value;
  }
  return std::nullopt;
}

void AppendPair(std::string* text, std::string_view key, std::string_view value) {
  text->append(key);
  text->push_back('=');
  text->append(value);
  text->push_back('\0');
}

std::optional<uint64_t> ParseNumber(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    base = 16;
    text.remove_prefix(2);
  }
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::string> ParseName(std::string_view text) {
  if (text.size() > kNameBytesMax) return std::nullopt;
  std::string name(text);
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    const auto byte = static_cast<unsigned char>(c);
    const bool good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                      c == ':' || byte >= 0x80;
    // Initiators of some vendors write an underscore, which nobody refuses.
    if (!good && c != '_') return std::nullopt;
  }
  const auto hex = [&name](size_t digits) {
    return name.size() == 4 + digits &&
           name.find_first_not_of("0123456789abcdef", 4) == std::string::npos;
  };
  if (name.starts_with("iqn.") && name.size() > 4) return name;
  if (name.starts_with("eui.") && hex(16)) return name;
  if (name.starts_with("naa.") && (hex(16) || hex(32))) return name;
  return std::nullopt;
}

std::string Printable(std::string_view text) {
  constexpr size_t kShownMax = 128;
  std::string shown(text.substr(0, kShownMax));
  for (char& c : shown) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7e) c = '?';
  }
  if (text.size() > kShownMax) shown += "...";
  return shown;
}

}  // namespace ankole::iscsi
