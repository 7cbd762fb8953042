#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

// How far an engine's connection to a replica has come.
//
//   new ──hello──▶ challenged ──good proof──▶ authenticated ◀────────────┐
//    ▲│                │                       │   ▲                      │
//    └┘ refused hello  └─bad proof─▶ refused   │   │ refused              │
//                                      welcome ▼   │                      │ closed
//                                          welcoming ──done──▶ welcomed ──close──▶ leaving
//
// authenticated takes INQUIRE, WELCOME and PING; welcoming and leaving take PING; welcomed takes
// all but the handshake. From every mode: stop ──▶ draining (what was begun is finished and
// answered, nothing is taken any more), end ──▶ ended.
namespace ankole::replica {

enum class SessionMode : uint8_t {
  kNew,
  kChallenged,
  kRefused,
  kAuthenticated,
  kWelcoming,
  kWelcomed,
  kLeaving,
  kDraining,
  kEnded,
};
inline constexpr size_t kSessionModes = 9;

enum class SessionEvent : uint8_t {
  // Frames, with the verdict on them where there is one.
  kHello,         // HELLO for a replica that is here
  kHelloRefused,  // HELLO for one that is not
  kProofGood,     // AUTH
  kProofBad,
  kInquire,
  kWelcome,
  kData,  // READ, WRITE, ZERO, UNMAP, FLUSH, STATUS, RECORD, what is about regions and layers
  kClose,
  kPing,
  // How WELCOME and CLOSE ended.
  kWelcomeDone,
  kWelcomeRefused,
  kCloseDone,
  // The disk host stops; the connection ends.
  kStop,
  kEnd,
};
inline constexpr size_t kSessionEvents = 14;

// The mode that follows, or nothing when the event cannot be in that mode: a frame then is a breach
// of the protocol that ends the connection, anything else a fault of our own.
std::optional<SessionMode> Next(SessionMode mode, SessionEvent event);

const char* SessionModeName(SessionMode mode);

}  // namespace ankole::replica
