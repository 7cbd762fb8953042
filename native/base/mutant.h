#pragma once

#include <string_view>

// Parts that can be broken on purpose, to prove that the simulator sees it (test/mutants/). Without
// the build flag ANKOLE_MUTANTS nothing is left of them.
namespace ankole {

#ifdef ANKOLE_MUTANTS
// Which one is broken in this process; empty: none.
inline std::string_view mutant;
inline bool Mutant(std::string_view name) { return mutant == name; }
#else
constexpr bool Mutant(std::string_view) { return false; }
#endif

}  // namespace ankole
