#include "engine/link.h"

#include <set>

#include "base/test.h"

namespace ankole::engine {
namespace {

// All modes × events: what must hold whatever the table says.
TEST(link, EveryTransitionKeepsThePromises) {
  for (size_t m = 0; m < kLinkModes; ++m) {
    for (size_t e = 0; e < kLinkEvents; ++e) {
      const auto mode = static_cast<LinkMode>(m);
      const auto event = static_cast<LinkEvent>(e);
      const LinkMode next = NextLinkMode(mode, event);
      // Gone is for ever, and only leaving leads there.
      if (mode == LinkMode::kGone) EXPECT_EQ(next, LinkMode::kGone);
      if (next == LinkMode::kGone && mode != LinkMode::kGone) {
        EXPECT((mode == LinkMode::kDown && event == LinkEvent::kLeave) ||
               (mode == LinkMode::kLeaving && event == LinkEvent::kLost));
      }
      // Up only by an answered welcome.
      if (next == LinkMode::kUp && mode != LinkMode::kUp) {
        EXPECT(mode == LinkMode::kWelcoming && event == LinkEvent::kAnswered);
      }
      // What is closing hears nothing more but its end, or that it shall not come back.
      if (mode == LinkMode::kClosing && next != mode) {
        EXPECT(event == LinkEvent::kLost || event == LinkEvent::kLeave);
      }
      if (mode == LinkMode::kLeaving && next != mode) EXPECT(event == LinkEvent::kLost);
      // A proof comes before everything that asks something of the replica.
      if (next == LinkMode::kAsking || next == LinkMode::kWelcoming) {
        EXPECT(next == mode || mode == LinkMode::kAuthentic);
      }
    }
  }
}

TEST(link, TheWayUpIsTheHandshake) {
  LinkMode mode = LinkMode::kDown;
  for (const LinkEvent event :
       {LinkEvent::kConnect, LinkEvent::kConnected, LinkEvent::kChallenged, LinkEvent::kProved,
        LinkEvent::kAsk, LinkEvent::kAnswered, LinkEvent::kFence, LinkEvent::kAnswered}) {
    mode = NextLinkMode(mode, event);
  }
  EXPECT_EQ(mode, LinkMode::kUp);
  EXPECT_EQ(NextLinkMode(mode, LinkEvent::kLost), LinkMode::kDown);
}

}  // namespace
}  // namespace ankole::engine
