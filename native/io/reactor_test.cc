#include "io/reactor.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstring>
#include <deque>
#include <random>
#include <vector>

#include "base/units.h"
#include "io/reactor_common.h"
#include "io/reactor_testing.h"

namespace ankole::io {
namespace {

TEST(io_reactor, timers_fire_in_order_and_never_early) {
  OnEachBackend([](Reactor& reactor) {
    std::mt19937_64 random(test::Seed());
    std::deque<With<Timer>> timers(200);
    uint64_t last_ns = 0;
    int fired = 0;
    const uint64_t start_ns = reactor.NowNs();
    for (auto& timer : timers) {
      timer.then = [&](auto& self) {
        EXPECT(reactor.NowNs() >= self.deadline_ns);
        EXPECT(self.deadline_ns >= last_ns);
        EXPECT(!self.armed());
        last_ns = self.deadline_ns;
        if (++fired == 200) reactor.Stop();
      };
      reactor.Arm(&timer, start_ns + random() % (20 * kNsPerMs));
    }
    // Moved, some twice.
    for (int i = 0; i < 100; ++i) {
      reactor.Arm(&timers[random() % 200], start_ns + random() % (20 * kNsPerMs));
    }
    reactor.Loop();
    EXPECT_EQ(fired, 200);
  });
}

TEST(io_reactor, cancelled_timers_do_not_fire) {
  OnEachBackend([](Reactor& reactor) {
    With<Timer> first, second, last;
    second.then = [](auto&) { EXPECT(!"cancelled in the turn that it was due"); };
    first.then = [&](auto&) { reactor.Cancel(&second); };
    const uint64_t now_ns = reactor.NowNs();
    reactor.Arm(&first, now_ns - 2);
    reactor.Arm(&second, now_ns - 1);
    last.then = [&](auto& self) {
      if (self.runs == 3) {
        reactor.Stop();
        return;
      }
      reactor.Arm(&self, reactor.NowNs() + kNsPerMs);
    };
    reactor.Arm(&last, now_ns);
    reactor.Cancel(&last);
    reactor.Cancel(&last);
    reactor.Arm(&last, now_ns + kNsPerMs);
    reactor.Loop();
    EXPECT_EQ(first.runs, 1);
    EXPECT_EQ(second.runs, 0);
    EXPECT_EQ(last.runs, 3);
  });
}

TEST(io_reactor, a_timer_is_exact) {
  OnEachBackend([](Reactor& reactor) {
    uint64_t best_ns = UINT64_MAX;
    With<Timer> timer;
    timer.then = [&](auto& self) {
      best_ns = std::min(best_ns, reactor.NowNs() - self.deadline_ns);
      if (self.runs == 20) return reactor.Stop();
      reactor.Arm(&self, reactor.NowNs() + 300 * kNsPerUs);
    };
    reactor.Arm(&timer, 0);
    reactor.Arm(&timer, reactor.NowNs() + 300 * kNsPerUs);
    reactor.Loop();
    // A timeout rounded up to milliseconds would be 700 µs late.
    EXPECT(best_ns < 500 * kNsPerUs);
  });
}

TEST(io_reactor, a_task_runs_once_a_turn_after_what_is_ready) {
  OnEachBackend([](Reactor& reactor) {
    With<Task> task;
    std::deque<With<Message>> messages(50);
    int messages_run = 0;
    for (auto& message : messages) {
      message.then = [&](auto&) {
        ++messages_run;
        reactor.Defer(&task);
        reactor.Defer(&task);
      };
      reactor.Post(&message);
    }
    task.then = [&](auto& self) {
      EXPECT_EQ(messages_run, 50);
      EXPECT(!self.scheduled);
      if (self.runs == 1) reactor.Defer(&task);  // again, in the next round
      reactor.Stop();
    };
    reactor.Loop();
    EXPECT_EQ(task.runs, 2);
  });
}

TEST(io_reactor, tasks_that_go_on_for_ever_do_not_starve_timers) {
  OnEachBackend([](Reactor& reactor) {
    With<Task> task;
    bool go_on = true;
    task.then = [&](auto& self) {
      if (go_on) reactor.Defer(&self);
    };
    With<Timer> timer;
    timer.then = [&](auto&) {
      go_on = false;
      reactor.Stop();
    };
    reactor.Defer(&task);
    reactor.Arm(&timer, reactor.NowNs() + 5 * kNsPerMs);
    reactor.Loop();
    EXPECT_EQ(timer.runs, 1);
  });
}

struct Poster {
  Reactor* reactor;
  std::deque<With<Message>> messages;
  pthread_t thread;
};

TEST(io_reactor, messages_from_many_threads_all_come_in_the_order_of_each) {
  constexpr int kThreads = 4;
  constexpr int kMessages = 20'000;
  OnEachBackend([](Reactor& reactor) {
    std::deque<Poster> posters(kThreads);
    int left = kThreads * kMessages;
    std::vector<int> expected(kThreads, 0);
    With<Timer> idle;  // so that the loop also sleeps in between
    for (int i = 0; i < kThreads; ++i) {
      posters[i].reactor = &reactor;
      posters[i].messages.resize(kMessages);
      for (int j = 0; j < kMessages; ++j) {
        posters[i].messages[j].then = [&, i, j](auto&) {
          EXPECT_EQ(expected[i], j);
          expected[i] = j + 1;
          if (--left == 0) reactor.Stop();
        };
      }
      pthread_create(
          &posters[i].thread, nullptr,
          [](void* argument) -> void* {
            auto* const poster = static_cast<Poster*>(argument);
            for (size_t j = 0; j < poster->messages.size(); ++j) {
              if (j % 1000 == 0) usleep(500);
              poster->reactor->Post(&poster->messages[j]);
            }
            return nullptr;
          },
          &posters[i]);
    }
    reactor.Loop();
    for (Poster& poster : posters) pthread_join(poster.thread, nullptr);
    EXPECT_EQ(left, 0);
  });
}

// Each message comes just as the loop goes to sleep; a wake-up that is lost hangs the test.
TEST(io_reactor, no_wake_up_is_lost) {
  OnEachBackend([](Reactor& reactor) {
    constexpr int kRounds = 20'000;
    struct Pinger {
      Reactor* reactor;
      std::atomic<int> seen = 0;
      With<Message> message;
    } pinger{&reactor, 0, {}};
    pinger.message.then = [&](auto& self) {
      pinger.seen.store(self.runs, std::memory_order_release);
      // Long enough, at times, for the next one to come between this turn's mail and the sleep: the
      // other thread is still on its way back from waking this one.
      for (int pause = 0; pause < self.runs % 64 * 1000; ++pause) asm volatile("");
      if (self.runs == kRounds) reactor.Stop();
    };
    pthread_t thread;
    pthread_create(
        &thread, nullptr,
        [](void* argument) -> void* {
          auto* const self = static_cast<Pinger*>(argument);
          for (int i = 0; i < kRounds; ++i) {
            while (self->seen.load(std::memory_order_acquire) != i) {
            }
            for (int pause = 0; pause < i % 61 * 100; ++pause) asm volatile("");
            self->reactor->Post(&self->message);
          }
          return nullptr;
        },
        &pinger);
    reactor.Loop();
    pthread_join(thread, nullptr);
    EXPECT_EQ(pinger.message.runs, kRounds);
  });
}

TEST(io_reactor, jobs_run_elsewhere_and_finish_here) {
  OnEachBackend([](Reactor& reactor) {
    static std::atomic<int> worked;
    worked = 0;
    const pthread_t here = pthread_self();
    static pthread_t loop;
    loop = here;
    std::deque<With<Job>> jobs(500);
    int finished = 0;
    for (auto& job : jobs) {
      job.work = [](Job*) {
        EXPECT(!pthread_equal(pthread_self(), loop));
        ++worked;
      };
      job.then = [&](auto& self) {
        EXPECT(pthread_equal(pthread_self(), here));
        EXPECT(!self.in_flight);
        if (self.runs < 3) return reactor.Run(&self);
        if (++finished == 500) reactor.Stop();
      };
      reactor.Run(&job);
      EXPECT_EQ(job.runs, 0);
    }
    reactor.Loop();
    EXPECT_EQ(worked.load(), 1500);
  });
}

TEST(io_reactor, stop_waits_for_what_is_in_flight_but_not_for_timers) {
  OnEachBackend([](Reactor& reactor) {
    With<Job> job;
    job.work = [](Job*) { usleep(20'000); };
    With<Timer> timer;
    reactor.Run(&job);
    reactor.Arm(&timer, reactor.NowNs() + 3600 * kNsPerSecond);
    reactor.Stop();
    reactor.Loop();
    EXPECT_EQ(job.runs, 1);
    EXPECT_EQ(timer.runs, 0);
    reactor.Cancel(&timer);
  });
}

TEST(io_reactor, an_idle_reactor_sleeps) {
  OnEachBackend([](Reactor& reactor) {
    auto& common = static_cast<CommonReactor&>(reactor);
    // All that an idle process has: a listener, the wake-up of a pool thread, a far timer.
    auto listener = reactor.Listen(Address::Parse("tcp:127.0.0.1:0").Take(), nullptr);
    ASSERT_OK(listener);
    With<AcceptOperation> accept;
    accept.listener = listener.value();
    reactor.Accept(&accept);
    With<Job> job;
    job.work = [](Job*) {};
    With<Timer> far;
    reactor.Arm(&far, reactor.NowNs() + 3600 * kNsPerSecond);

    // A busy machine lets a thread be late, and the reactor see a message before its wake-up: the
    // best of several times counts. Who polls is awake in each.
    constexpr int kTimes = 3;
    int times = 0;
    uint64_t waits_before = 0;
    uint64_t waits_min = UINT64_MAX;
    rusage before = {};
    long switches_min = LONG_MAX;
    struct Ender {
      Reactor* reactor;
      With<Message> begin[kTimes], end[kTimes];
    } ender{&reactor, {}, {}};
    const auto begin = [&](auto&) {
      waits_before = common.waits();
      getrusage(RUSAGE_THREAD, &before);
    };
    With<CloseOperation> close;
    close.socket = listener.value();
    const auto end = [&](auto&) {
      rusage after;
      getrusage(RUSAGE_THREAD, &after);
      waits_min = std::min(waits_min, common.waits() - waits_before);
      switches_min = std::min(switches_min, after.ru_nvcsw - before.ru_nvcsw);
      if (++times < kTimes) return;
      // The sleep after the first message, and none before the second.
      EXPECT(waits_min <= 2);
      EXPECT(switches_min <= 2);
      reactor.Close(&close);
      reactor.Stop();
    };
    for (With<Message>& message : ender.begin) message.then = begin;
    for (With<Message>& message : ender.end) message.then = end;
    pthread_t thread;
    const auto messages = [](void* argument) -> void* {
      auto* const self = static_cast<Ender*>(argument);
      for (int i = 0; i < kTimes; ++i) {
        usleep(50'000);
        self->reactor->Post(&self->begin[i]);
        usleep(300'000);
        self->reactor->Post(&self->end[i]);
      }
      return nullptr;
    };
    // The job's end is one more thing to wake up for, and comes late where threads do.
    job.then = [&](auto&) { pthread_create(&thread, nullptr, messages, &ender); };
    reactor.Run(&job);
    reactor.Loop();
    pthread_join(thread, nullptr);
    reactor.Cancel(&far);
    EXPECT_EQ(accept.result, -ECANCELED);
  });
}

TEST(io_reactor, clocks_and_randomness) {
  OnEachBackend([](Reactor& reactor) {
    const uint64_t before_ns = reactor.NowNs();
    usleep(1000);
    EXPECT(reactor.NowNs() - before_ns >= 1000 * kNsPerUs);
    EXPECT(reactor.WallClockSeconds() > 1'700'000'000);
    char one[64] = {}, two[64] = {};
    reactor.Random(one, sizeof(one));
    reactor.Random(two, sizeof(two));
    EXPECT(std::memcmp(one, two, sizeof(one)) != 0);
  });
}

TEST(io_reactor, names_of_back_ends) {
  EXPECT(ParseBackend("auto").value() == Backend::kAuto);
  EXPECT(ParseBackend("uring").value() == Backend::kUring);
  EXPECT(ParseBackend("epoll").value() == Backend::kEpoll);
  EXPECT(ParseBackend("Epoll").status().code() == ErrorCode::kInvalidArgument);
}

TEST(io_reactor, a_probe_directory_that_cannot_be_written) {
  const std::string missing = test::TemporaryDirectory() + "/none";
  EXPECT(!MakeReactor({.backend = Backend::kUring, .probe_directory = missing}).ok());
  auto made = MakeReactor({.backend = Backend::kAuto, .probe_directory = missing});
  ASSERT_OK(made);
  EXPECT(made.value()->backend().backend == Backend::kEpoll);
  EXPECT(!made.value()->backend().reason.empty());
}

TEST(io_reactor, AutoTakesEpollWhereThereAreOnlySockets) {
  ReactorOptions options;
  options.probe_directory = test::TemporaryDirectory();
  options.sockets_only = true;
  const auto chosen = MakeReactor(options);
  ASSERT_OK(chosen);
  EXPECT_EQ(chosen.value()->backend().backend, Backend::kEpoll);
  EXPECT(chosen.value()->backend().reason.find("only sockets") != std::string::npos);
}

}  // namespace
}  // namespace ankole::io
