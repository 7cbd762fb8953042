#pragma once

#include <pthread.h>

#include <vector>

#include "io/mailbox.h"
#include "io/operation_queue.h"

namespace ankole::io {

// Threads for what blocks, started one by one as there is work and none is free. What they finish
// goes back through the mailbox. A mutex is right here: who uses it waits for a disk anyway.
class JobPool {
 public:
  using RunFunction = void (*)(Operation*);
  JobPool(int threads_max, RunFunction run, Mailbox* finished);
  // Waits for what is being worked on; what was not begun stays undone.
  ~JobPool();
  JobPool(const JobPool&) = delete;
  JobPool& operator=(const JobPool&) = delete;

  // False when there is no thread and none could be started: the caller has to run it.
  bool Submit(Operation* operation);
  void RunHere(Operation* operation) { run_(operation); }
  size_t threads() const { return threads_.size(); }

 private:
  bool StartThread();
  void Work();

  const size_t threads_max_;
  const RunFunction run_;
  Mailbox* const finished_;
  std::vector<pthread_t> threads_;  // the loop's thread only

  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake_ = PTHREAD_COND_INITIALIZER;
  // Under the mutex:
  OperationQueue queue_;
  size_t queued_ = 0;
  size_t idle_ = 0;
  bool ending_ = false;
};

}  // namespace ankole::io
