#include <sys/un.h>

#include <charconv>
#include <string_view>

#include "io/reactor.h"

namespace ankole::io {
namespace {

Status Bad(const std::string& text, const std::string& why) {
  return {ErrorCode::kInvalidArgument, "address \"" + text + "\": " + why};
}

}  // namespace

Result<Address> Address::Parse(const std::string& text) {
  if (text.find('\0') != std::string::npos) return Bad("...", "holds a NUL");
  Address address;
  if (text.starts_with("unix:")) {
    address.unix_path = true;
    address.host = text.substr(5);
    if (address.host.empty()) return Bad(text, "the path is empty");
    if (address.host.size() >= sizeof(sockaddr_un::sun_path)) {
      return Bad(text, "the path is longer than the " +
                           std::to_string(sizeof(sockaddr_un::sun_path) - 1) +
                           " bytes that a Unix socket can have");
    }
    return address;
  }
  if (!text.starts_with("tcp:")) return Bad(text, "expected unix:PATH or tcp:HOST:PORT");
  const std::string_view rest = std::string_view(text).substr(4);
  const size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) return Bad(text, "the port is missing");
  std::string_view host = rest.substr(0, colon);
  const std::string_view port = rest.substr(colon + 1);
  if (host.starts_with('[')) {
    if (!host.ends_with(']')) return Bad(text, "\"[\" without \"]\"");
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return Bad(text, "an IPv6 address needs [..] around it");
  }
  if (host.empty()) return Bad(text, "the host is empty");
  const auto [end, error] =
      std::from_chars(port.data(), port.data() + port.size(), address.port, 10);
  if (error != std::errc() || end != port.data() + port.size()) {
    return Bad(text, "the port is not a number from 0 to 65535");
  }
  address.host = host;
  return address;
}

std::string Address::ToString() const {
  if (unix_path) return "unix:" + host;
  const bool brackets = host.find(':') != std::string::npos;
  return "tcp:" + (brackets ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

}  // namespace ankole::io
