#pragma once

#include <string>

#include "replica/chain.h"
#include "replica/mask_file.h"
#include "replica/replica.h"
#include "replica/sum_file.h"

namespace ankole::replica {

// The head that the next switch takes: its files are there, durable, under their own names.
struct Replica::Prepared {
  // File name of what the head is called once it is frozen. Of a revert, which freezes nothing:
  // made of what the record names, and of no file.
  std::string snapshot;
  bool revert = false;
  bool stale = false;  // nothing switches to it any more
  uint64_t made_ns = 0;
  uint32_t number = 0;  // of the new head
  Layer head;
  MaskFile masks;
  SumFile sums;  // not open without checksums
  LayerMeta frozen;
};

// A removed layer that goes. Down: it gets the size of the layer above it, then what that one holds
// is written into it, then it takes that one's name; the layer above hides what is written until
// then. Punch: it lies under the head,
// and loses what the head has anew.
struct Replica::Merge {
  enum class Phase : uint8_t { kGrow, kMasks, kCopy, kSums, kNames, kSwap, kPunch, kClose };
  Phase phase = Phase::kMasks;
  std::string lower;  // file names
  std::string upper;
  std::string parent;  // of the lower one
  uint64_t at_bytes = 0;
  io::File from;
  io::File to;
  uint64_t size_bytes = 0;   // of the upper layer
  uint64_t lower_bytes = 0;  // of the lower one
  uint64_t unsaved_bytes = 0;
  bool sync_failed = false;  // of what the head has (rule 1)
  SumFile sums;
  // With the names given: what the chain goes on with.
  io::File merged;
  SumFile merged_sums;
};

}  // namespace ankole::replica
