#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "base/test.h"
#include "base/units.h"
#include "io/reactor.h"
#include "io/reactor_testing.h"

namespace ankole::io {
namespace {

TEST(io_doorbell, RingsWhileAwaitedAndBefore) {
  OnEachBackend([](Reactor& reactor) {
    const Result<Socket> made = reactor.MakeDoorbell();
    ASSERT_OK(made);
    struct Bell : AwaitOperation {
      Reactor* reactor = nullptr;
      int rung = 0;
      CloseOperation close;
      Timer later;
    } bell;
    bell.reactor = &reactor;
    bell.doorbell = bell.close.socket = made.value();
    bell.done = [](Operation* operation) {
      auto* self = static_cast<Bell*>(operation);
      if (operation->result < 0) {
        EXPECT_EQ(operation->result, -ECANCELED);
        return;
      }
      if (++self->rung == 1) {
        // Rung while nobody awaits it, and twice: the next Await has it at once, once.
        self->reactor->Ring(self->doorbell);
        self->reactor->Ring(self->doorbell);
        self->later.owner = self;
        self->later.done = [](Operation* timer) {
          auto* owner = static_cast<Bell*>(timer->owner);
          owner->reactor->Await(owner);
        };
        self->reactor->Arm(&self->later, self->reactor->NowNs() + kNsPerMs);
        return;
      }
      self->later.done = [](Operation* timer) {
        auto* owner = static_cast<Bell*>(timer->owner);
        owner->reactor->Close(&owner->close);
      };
      self->reactor->Await(self);
      self->reactor->Arm(&self->later, self->reactor->NowNs() + 5 * kNsPerMs);
    };
    bell.close.owner = &bell;
    bell.close.done = [](Operation* operation) {
      static_cast<Bell*>(operation->owner)->reactor->Stop();
    };
    reactor.Await(&bell);
    reactor.Ring(bell.doorbell);
    reactor.Loop();
    EXPECT_EQ(bell.rung, 2);
    EXPECT(!bell.in_flight);
  });
}

TEST(io_doorbell, NoRingOfAnotherThreadIsLost) {
  OnEachBackend([](Reactor& reactor) {
    const Result<Socket> made = reactor.MakeDoorbell();
    ASSERT_OK(made);
    struct Bell : AwaitOperation {
      Reactor* reactor = nullptr;
      std::atomic<int> turn = 0;
      CloseOperation close;
    } bell;
    constexpr int kTurns = 2000;
    bell.reactor = &reactor;
    bell.doorbell = bell.close.socket = made.value();
    bell.done = [](Operation* operation) {
      auto* self = static_cast<Bell*>(operation);
      if (operation->result < 0) return;
      self->reactor->Await(self);
      if (self->turn.fetch_add(1) + 1 == kTurns) self->reactor->Close(&self->close);
    };
    bell.close.owner = &bell;
    bell.close.done = [](Operation* operation) {
      static_cast<Bell*>(operation->owner)->reactor->Stop();
    };
    reactor.Await(&bell);
    // Each ring only once the one before was heard: one that is lost hangs the test.
    // Through a descriptor of its own, as another process has.
    const int own_fd = dup(made.value().fd);
    ASSERT(own_fd >= 0);
    std::thread ringer([&] {
      for (int i = 0; i < kTurns; ++i) {
        const uint64_t one = 1;
        if (write(own_fd, &one, sizeof(one)) < 0) break;
        while (bell.turn.load() <= i) std::this_thread::yield();
      }
      close(own_fd);
    });
    reactor.Loop();
    ringer.join();
    EXPECT_EQ(bell.turn.load(), kTurns);
  });
}

}  // namespace
}  // namespace ankole::io
