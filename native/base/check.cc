#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace ankole {

void CheckFailed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "ankole: invariant broken: %s (%s:%d)\n", expression, file, line);
  std::abort();
}

}  // namespace ankole
