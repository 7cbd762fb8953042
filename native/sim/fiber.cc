#include "sim/fiber.h"

#include <sys/mman.h>

#include <vector>

#include "base/check.h"
#include "base/sanitizers.h"
#include "base/units.h"

#if defined(ANKOLE_ASAN)
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#if defined(ANKOLE_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace ankole::sim {
namespace {

// A job of a replica has buffers of 16 KiB on its stack, and the sanitizers multiply that.
constexpr size_t kStackBytes = 512 * kKiB;
// Below the stack: what runs over ends the process there, and not somewhere else later.
constexpr size_t kGuardBytes = 64 * kKiB;

Fiber* current = nullptr;
std::vector<std::byte*> free_stacks;

std::byte* TakeStack() {
  if (!free_stacks.empty()) {
    std::byte* stack = free_stacks.back();
    free_stacks.pop_back();
    return stack;
  }
  void* mapped = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  CHECK(mapped != MAP_FAILED && mprotect(mapped, kGuardBytes, PROT_NONE) == 0);
  std::byte* const memory = static_cast<std::byte*>(mapped) + kGuardBytes;
#if defined(ANKOLE_ASAN)
  // A job of a process that is killed is never gone on with: what its stack owns is no leak.
  __lsan_register_root_region(memory, kStackBytes);
#endif
  return memory;
}

}  // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)), stack_(TakeStack()) {
  CHECK(getcontext(&context_) == 0);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;
  makecontext(&context_, Enter, 0);
#if defined(ANKOLE_TSAN)
  tsan_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
  CHECK(current != this);
#if defined(ANKOLE_TSAN)
  __tsan_destroy_fiber(tsan_);
#endif
  free_stacks.push_back(stack_);
}

// The sanitizers follow contexts, but take a jump from stack to stack for one within a stack.
#if defined(ANKOLE_ASAN) || defined(ANKOLE_TSAN)
void Fiber::SwitchIn() { CHECK(swapcontext(&caller_, &context_) == 0); }
void Fiber::SwitchOut() { CHECK(swapcontext(&context_, &caller_) == 0); }
#else
void Fiber::SwitchIn() {
  if (_setjmp(caller_at_) != 0) return;
  if (begun_) _longjmp(context_at_, 1);
  begun_ = true;
  (void)setcontext(&context_);
  CHECK(false);  // it fails for a bad context only
}

void Fiber::SwitchOut() {
  if (_setjmp(context_at_) == 0) _longjmp(caller_at_, 1);
}
#endif

Fiber* Fiber::Current() { return current; }

void Fiber::Resume() {
  CHECK(current == nullptr && !ended_);
  current = this;
#if defined(ANKOLE_ASAN)
  __sanitizer_start_switch_fiber(&caller_fake_stack_, stack_, kStackBytes);
#endif
#if defined(ANKOLE_TSAN)
  tsan_caller_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_, 0);
#endif
  SwitchIn();
#if defined(ANKOLE_ASAN)
  __sanitizer_finish_switch_fiber(caller_fake_stack_, nullptr, nullptr);
#endif
  current = nullptr;
}

void Fiber::Leave(bool for_good) {
#if defined(ANKOLE_ASAN)
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack_, caller_stack_,
                                 caller_stack_bytes_);
#endif
  (void)for_good;
#if defined(ANKOLE_TSAN)
  __tsan_switch_to_fiber(tsan_caller_, 0);
#endif
  SwitchOut();
#if defined(ANKOLE_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack_, &caller_stack_, &caller_stack_bytes_);
#endif
}

void Fiber::Yield() {
  CHECK(current != nullptr);
  current->Leave(false);
}

void Fiber::Enter() {
  Fiber* const self = current;
#if defined(ANKOLE_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &self->caller_stack_, &self->caller_stack_bytes_);
#endif
  self->body_();
  self->ended_ = true;
  self->Leave(true);
  CHECK(false);  // an ended fiber is not gone on with
}

}  // namespace ankole::sim
