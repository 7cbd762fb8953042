#include "io/job_pool.h"

#include <csignal>

#include "base/units.h"

namespace ankole::io {
namespace {

// Address space, not memory. File work and name look-ups need far less.
constexpr size_t kStackBytes = 1 * kMiB;

}  // namespace

JobPool::JobPool(int threads_max, RunFunction run, Mailbox* finished)
    : threads_max_(threads_max < 1 ? 1 : static_cast<size_t>(threads_max)),
      run_(run),
      finished_(finished) {
  threads_.reserve(threads_max_);
}

JobPool::~JobPool() {
  pthread_mutex_lock(&mutex_);
  ending_ = true;
  pthread_cond_broadcast(&wake_);
  pthread_mutex_unlock(&mutex_);
  for (const pthread_t thread : threads_) pthread_join(thread, nullptr);
  pthread_cond_destroy(&wake_);
  pthread_mutex_destroy(&mutex_);
}

bool JobPool::Submit(Operation* operation) {
  pthread_mutex_lock(&mutex_);
  const bool busy = queued_ >= idle_;
  pthread_mutex_unlock(&mutex_);
  // One that cannot be started is tried again with the next piece of work.
  if (busy && threads_.size() < threads_max_ && !StartThread() && threads_.empty()) return false;
  pthread_mutex_lock(&mutex_);
  queue_.Push(operation);
  ++queued_;
  if (idle_ > 0) pthread_cond_signal(&wake_);
  pthread_mutex_unlock(&mutex_);
  return true;
}

// pthread_create, as std::thread can only report a failure by an exception.
bool JobPool::StartThread() {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setstacksize(&attributes, kStackBytes);
  // Signals are for the process's own threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error_number = pthread_create(
      &thread, &attributes,
      [](void* pool) -> void* {
        static_cast<JobPool*>(pool)->Work();
        return nullptr;
      },
      this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (error_number != 0) return false;
  (void)pthread_setname_np(thread, "ankole-pool");
  threads_.push_back(thread);
  return true;
}

void JobPool::Work() {
  pthread_mutex_lock(&mutex_);
  for (;;) {
    while (queue_.empty() && !ending_) {
      ++idle_;
      pthread_cond_wait(&wake_, &mutex_);
      --idle_;
    }
    if (ending_) break;
    Operation* const operation = queue_.Pop();
    --queued_;
    pthread_mutex_unlock(&mutex_);
    run_(operation);
    finished_->Push(operation);
    pthread_mutex_lock(&mutex_);
  }
  pthread_mutex_unlock(&mutex_);
}

}  // namespace ankole::io
