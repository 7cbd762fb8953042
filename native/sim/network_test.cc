#include "sim/network.h"

#include <cstring>
#include <memory>
#include <string>

#include "base/test.h"

namespace ankole::sim {
namespace {

struct Pair {
  explicit Pair(uint64_t seed = 1) : world(seed), network(world) {
    network.Listen("b", 1, [this](std::shared_ptr<Endpoint> end) { far = std::move(end); });
  }
  bool Connect() {
    network.Connect("a", "b", 1, [this](int result, std::shared_ptr<Endpoint> end) {
      outcome = result;
      near = std::move(end);
    });
    return world.RunUntil(world.now_ns() + kNsPerSecond, [this] { return near != nullptr; });
  }
  void Pass(uint64_t ns) { world.RunUntil(world.now_ns() + ns); }
  // All that has arrived at an end.
  static std::string Take(Endpoint* end, bool* ended, int64_t* error) {
    std::string text;
    char buffer[100];
    while (true) {
      const int64_t got = end->Receive(buffer, sizeof(buffer), ended);
      *error = got < 0 ? got : 0;
      if (got <= 0) return text;
      text.append(buffer, static_cast<size_t>(got));
    }
  }
  std::string Take(Endpoint* end) {
    bool ended = false;
    int64_t error = 0;
    return Take(end, &ended, &error);
  }
  World world;
  Network network;
  std::shared_ptr<Endpoint> near;
  std::shared_ptr<Endpoint> far;
  int outcome = 1;
};

TEST(sim_network, BytesArriveInOrderAndLate) {
  Pair pair;
  ASSERT(pair.Connect());
  EXPECT_EQ(pair.near->Send("one", 3), 3);
  EXPECT_EQ(pair.near->Send("two", 3), 3);
  EXPECT_EQ(pair.Take(pair.far.get()), std::string());
  pair.Pass(kNsPerSecond);
  EXPECT_EQ(pair.Take(pair.far.get()), std::string("onetwo"));
}

TEST(sim_network, ConnectionsOvertakeEachOther) {
  bool overtaken = false;
  for (uint64_t seed = 1; seed <= 50 && !overtaken; ++seed) {
    Pair pair(seed);
    ASSERT(pair.Connect());
    const auto old_near = pair.near;
    const auto old_far = pair.far;
    pair.near = nullptr;
    ASSERT(pair.Connect());
    EXPECT_EQ(old_near->Send("old", 3), 3);
    EXPECT_EQ(pair.near->Send("new", 3), 3);
    std::string order;
    old_far->wake = [&] { order += 'o'; };
    pair.far->wake = [&] { order += 'n'; };
    pair.Pass(kNsPerSecond);
    overtaken = order == "no";
  }
  EXPECT(overtaken);
}

TEST(sim_network, ACutHoldsBytesBackOneWayAndHealLetsThemThrough) {
  Pair pair;
  ASSERT(pair.Connect());
  pair.network.Cut("a", "b");
  EXPECT_EQ(pair.near->Send("x", 1), 1);
  EXPECT_EQ(pair.far->Send("y", 1), 1);
  pair.Pass(10 * kNsPerSecond);
  EXPECT_EQ(pair.Take(pair.far.get()), std::string());
  EXPECT_EQ(pair.Take(pair.near.get()), std::string("y"));
  pair.network.Heal("a", "b");
  pair.Pass(2 * kNsPerSecond);
  EXPECT_EQ(pair.Take(pair.far.get()), std::string("x"));
}

TEST(sim_network, ASenderIsHeldUpWhenNobodyReads) {
  Pair pair;
  pair.network.options.room_bytes = 100;
  ASSERT(pair.Connect());
  const std::string much(150, 'x');
  EXPECT_EQ(pair.near->Send(much.data(), much.size()), 100);
  EXPECT_EQ(pair.near->Send(much.data(), 50), 0);
  bool woken = false;
  pair.near->wake = [&] { woken = true; };
  pair.Pass(kNsPerSecond);
  EXPECT(!woken);
  EXPECT_EQ(pair.Take(pair.far.get()).size(), 100U);
  pair.Pass(kNsPerSecond);
  EXPECT(woken);
}

TEST(sim_network, AnEndFollowsTheBytesAndAResetOvertakesThem) {
  Pair pair;
  ASSERT(pair.Connect());
  EXPECT_EQ(pair.near->Send("last", 4), 4);
  pair.near->Close();
  pair.Pass(kNsPerSecond);
  bool ended = false;
  int64_t error = 0;
  EXPECT_EQ(Pair::Take(pair.far.get(), &ended, &error), std::string("last"));
  EXPECT(ended && error == 0);

  Pair other;
  ASSERT(other.Connect());
  EXPECT_EQ(other.far->Send("unread", 6), 6);
  other.Pass(kNsPerSecond);
  other.near->Close();
  other.Pass(kNsPerSecond);
  (void)Pair::Take(other.far.get(), &ended, &error);
  EXPECT(error < 0);
}

TEST(sim_network, AMachineWithoutPowerIsSilentAndThenKnowsNothing) {
  Pair pair;
  ASSERT(pair.Connect());
  pair.network.PowerOff("b");
  EXPECT_EQ(pair.near->Send("x", 1), 1);
  bool ended = false;
  int64_t error = 0;
  pair.Pass(60 * kNsPerSecond);
  (void)Pair::Take(pair.near.get(), &ended, &error);
  EXPECT(!ended && error == 0);
  pair.network.PowerOn("b");
  pair.Pass(10 * kNsPerSecond);
  (void)Pair::Take(pair.near.get(), &ended, &error);
  EXPECT(error < 0);
}

TEST(sim_network, NobodyListensOrNothingGetsThrough) {
  Pair pair;
  pair.network.StopListening("b", 1);
  EXPECT(!pair.Connect());
  EXPECT(pair.outcome < 0);
  pair.outcome = 1;
  pair.network.Cut("b", "a");
  EXPECT(!pair.Connect());
  EXPECT_EQ(pair.outcome, 1);
  pair.Pass(60 * kNsPerSecond);
  EXPECT_EQ(pair.outcome, 1);
}

}  // namespace
}  // namespace ankole::sim
