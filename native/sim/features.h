#pragma once

namespace ankole::sim {

// What the code under test promises by now: the checkers ask for no more. Each is switched on when
// it is built, and stays on.
struct Features {
  // Rule 7: after an unclean stop a read first makes its range equal on all members.
  bool read_makes_equal = true;
  // Rule 4: an engine that was replaced answers no reads.
  bool read_lease = true;
  // Rule 9: a replica knows a block whose pages the kernel dropped after they could not be written.
  bool checksums_at_rest = true;
  // Rule 7: members that left come back by themselves.
  bool resync = true;
  // Rule 8: snapshots.
  bool snapshots = true;
  // Rule 8: a replica that missed snapshots is given them, and joins.
  bool joins_by_views = true;
};
inline constexpr Features kFeatures = {};

}  // namespace ankole::sim
