#pragma once

#include <ucontext.h>

#include <csetjmp>
#include <cstddef>
#include <functional>

#include "base/sanitizers.h"

namespace ankole::sim {

// A function with a stack of its own, which may stop in its middle and be gone on with later: so a
// blocking job takes virtual time at each of its file calls, and a crash can hit between any two.
class Fiber {
 public:
  explicit Fiber(std::function<void()> body);
  ~Fiber();  // ended, or never to be gone on with
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Not from within a fiber. Returns when it yields or ends.
  void Resume();
  bool ended() const { return ended_; }

  // The one that runs, or null.
  static Fiber* Current();
  // From within one.
  static void Yield();

 private:
  static void Enter();
  void Leave(bool for_good);
  void SwitchIn();
  void SwitchOut();

  std::function<void()> body_;
  std::byte* stack_ = nullptr;
  ucontext_t context_ = {};
#if defined(ANKOLE_ASAN) || defined(ANKOLE_TSAN)
  ucontext_t caller_ = {};
#else
  // Where they go on once both have begun: swapcontext makes two system calls each time.
  std::jmp_buf context_at_ = {};
  std::jmp_buf caller_at_ = {};
  bool begun_ = false;
#endif
  bool ended_ = false;
  // For the sanitizers, which must know whose stack it is.
  void* fake_stack_ = nullptr;
  void* caller_fake_stack_ = nullptr;
  const void* caller_stack_ = nullptr;
  size_t caller_stack_bytes_ = 0;
#if defined(ANKOLE_TSAN)
  void* tsan_ = nullptr;
  void* tsan_caller_ = nullptr;
#endif
};

}  // namespace ankole::sim
