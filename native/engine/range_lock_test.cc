#include "engine/range_lock.h"

#include <random>
#include <vector>

#include "base/test.h"

namespace ankole::engine {
namespace {

struct Actor {
  LockRequest request;
  bool held = false;
  int order = 0;
};

int order = 0;

Actor MakeActor(uint64_t begin, uint64_t end, bool exclusive) {
  Actor actor;
  actor.request.begin_block = begin;
  actor.request.end_block = end;
  actor.request.exclusive = exclusive;
  actor.request.granted = [](LockRequest* request) {
    auto* self = static_cast<Actor*>(request->owner);
    self->held = true;
    self->order = ++order;
  };
  return actor;
}

void Take(RangeLock& lock, Actor& actor) {
  actor.request.owner = &actor;
  if (lock.Acquire(&actor.request)) actor.request.granted(&actor.request);
}

TEST(range_lock, ReadersShareAndWritersAreAlone) {
  RangeLock lock(16);
  Actor a = MakeActor(0, 10, false);
  Actor b = MakeActor(5, 15, false);
  Actor writer = MakeActor(9, 10, true);
  Actor elsewhere = MakeActor(20, 21, true);
  for (Actor* actor : {&a, &b, &writer, &elsewhere}) Take(lock, *actor);
  EXPECT(a.held && b.held && !writer.held && elsewhere.held);
  lock.Release(&a.request);
  EXPECT(!writer.held);
  lock.Release(&b.request);
  EXPECT(writer.held);
}

TEST(range_lock, NobodyOvertakesAWaiterItOverlaps) {
  RangeLock lock(16);
  Actor first = MakeActor(0, 4, true);
  Actor second = MakeActor(2, 8, true);  // waits for first
  Actor third = MakeActor(6, 7, true);   // free, but stands behind second
  Actor reader = MakeActor(7, 8, false);
  for (Actor* actor : {&first, &second, &third, &reader}) Take(lock, *actor);
  EXPECT(first.held && !second.held && !third.held && !reader.held);
  lock.Release(&first.request);
  EXPECT(second.held && !third.held && !reader.held);
  lock.Release(&second.request);
  EXPECT(third.held && reader.held);
}

TEST(range_lock, IsRightForRandomHistories) {
  std::mt19937_64 random(test::Seed());
  constexpr size_t kActors = 64;
  RangeLock lock(kActors);
  std::vector<Actor> actors(kActors);
  std::vector<int> arrival(kActors, 0);
  std::vector<bool> active(kActors, false);
  int arrivals = 0;
  for (int step = 0; step < 20'000; ++step) {
    const size_t i = random() % kActors;
    if (!active[i]) {
      const uint64_t begin = random() % 60;
      actors[i] = MakeActor(begin, begin + 1 + random() % 6, random() % 2 == 0);
      active[i] = true;
      arrival[i] = ++arrivals;
      Take(lock, actors[i]);
    } else if (actors[i].held) {
      actors[i].held = false;
      active[i] = false;
      lock.Release(&actors[i].request);
    }
    for (size_t a = 0; a < kActors; ++a) {
      if (!active[a]) continue;
      bool blocked = false;
      for (size_t b = 0; b < kActors; ++b) {
        if (a == b || !active[b]) continue;
        const LockRequest& x = actors[a].request;
        const LockRequest& y = actors[b].request;
        const bool conflict = (x.exclusive || y.exclusive) && x.begin_block < y.end_block &&
                              y.begin_block < x.end_block;
        if (conflict && actors[a].held && actors[b].held) EXPECT(!"two hold what conflicts");
        blocked |= conflict && arrival[b] < arrival[a];
      }
      // Who has nobody before him in his way holds; who has, waits.
      EXPECT_EQ(actors[a].held, !blocked);
    }
  }
}

TEST(range_lock, WhoWaitsNoLongerLetsTheOthersGoOn) {
  RangeLock lock(8);
  Actor held = MakeActor(0, 4, true);
  Actor all = MakeActor(0, UINT64_MAX, true);
  Actor behind = MakeActor(8, 12, true);
  Actor reads = MakeActor(2, 3, false);
  EXPECT(lock.Acquire(&held.request));
  for (Actor* actor : {&all, &behind, &reads}) {
    actor->request.owner = actor;
    EXPECT(!lock.Acquire(&actor->request));
  }
  lock.Cancel(&all.request);
  EXPECT(!all.held && behind.held && !reads.held);
  EXPECT_EQ(lock.waiting(), 1U);
  lock.Release(&held.request);
  EXPECT(reads.held);
  // Once more, and now it is granted.
  EXPECT(!lock.Acquire(&all.request));
  lock.Release(&behind.request);
  lock.Release(&reads.request);
  EXPECT(all.held);
  lock.Release(&all.request);
  EXPECT_EQ(lock.held(), 0U);
}

}  // namespace
}  // namespace ankole::engine
