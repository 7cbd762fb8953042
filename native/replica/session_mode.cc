#include "replica/session_mode.h"

#include "base/check.h"

namespace ankole::replica {

std::optional<SessionMode> Next(SessionMode mode, SessionEvent event) {
  using Mode = SessionMode;
  using Event = SessionEvent;
  if (event == Event::kEnd) return Mode::kEnded;
  if (mode == Mode::kEnded) return std::nullopt;
  if (event == Event::kStop) return Mode::kDraining;
  switch (mode) {
    case Mode::kNew:
      if (event == Event::kHello) return Mode::kChallenged;
      if (event == Event::kHelloRefused) return Mode::kNew;
      return std::nullopt;
    case Mode::kChallenged:
      if (event == Event::kProofGood) return Mode::kAuthenticated;
      if (event == Event::kProofBad) return Mode::kRefused;
      return std::nullopt;
    case Mode::kRefused:
      return std::nullopt;
    case Mode::kAuthenticated:
      if (event == Event::kInquire || event == Event::kPing) return mode;
      if (event == Event::kWelcome) return Mode::kWelcoming;
      return std::nullopt;
    case Mode::kWelcoming:
      if (event == Event::kPing) return mode;
      if (event == Event::kWelcomeDone) return Mode::kWelcomed;
      if (event == Event::kWelcomeRefused) return Mode::kAuthenticated;
      return std::nullopt;
    case Mode::kWelcomed:
      if (event == Event::kData || event == Event::kPing || event == Event::kInquire) return mode;
      if (event == Event::kClose) return Mode::kLeaving;
      return std::nullopt;
    case Mode::kLeaving:
      if (event == Event::kPing) return mode;
      if (event == Event::kCloseDone) return Mode::kAuthenticated;
      return std::nullopt;
    case Mode::kDraining:
      // What was begun before the stop still ends.
      if (event == Event::kCloseDone) return mode;
      return std::nullopt;
    case Mode::kEnded:
      return std::nullopt;
  }
  CHECK(false);
}

const char* SessionModeName(SessionMode mode) {
  static constexpr std::array<const char*, kSessionModes> kNames = {
      "new",      "challenged", "refused",  "authenticated", "welcoming",
      "welcomed", "leaving",    "draining", "ended"};
  return kNames[static_cast<size_t>(mode)];
}

}  // namespace ankole::replica
