#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

// What the world looks like at an instant. Everything is a small number, so that millions of states
// can be looked at; the order of fields follows DESIGN.md section 4.
namespace model {

constexpr int kReplicas = 3;
constexpr int kEngines = 3;

// A set of replicas, one bit each.
using Set = uint8_t;
constexpr Set kAll = (1 << kReplicas) - 1;
constexpr bool Has(Set set, int replica) { return (set >> replica & 1) != 0; }
constexpr Set Just(int replica) { return static_cast<Set>(1 << replica); }
constexpr int Count(Set set) { return std::popcount(set); }

// {attachment, run} as one number that orders them: twice the attachment, plus one after a restart.
using Epoch = uint8_t;

// The number of a write; ordered by the epoch of who issued it. What a replica holds is the last
// write that it executed.
using Write = uint8_t;

// Invariant: two records with the same epoch and generation have the same members.
struct Record {
  uint16_t epoch : 4 = 0;
  uint16_t generation : 4 = 0;  // 0: no record
  uint16_t members : 3 = 0;
  // Members of the last complete record that it names; equal to `members` where it is known that
  // the record itself was completed.
  uint16_t last : 3 = 0;

  bool exists() const { return generation != 0; }
  // «That very record».
  bool Is(Record other) const { return epoch == other.epoch && generation == other.generation; }
};

struct Replica {
  Record record;
  Epoch welcomed = 0;  // serves the connection of this epoch, and no other
  Write value = 0;
  // What that connection has brought and was not executed yet.
  Record record_coming;
  Write write_coming = 0;
  // Without draining: what an older connection brought, and nobody waited for.
  Write write_late = 0;
};

enum class Mode : uint8_t {
  kAbsent,
  kRead,       // has read the record, and has no attachment yet: without kAttachInOneStep only
  kStarting,   // asks
  kFencing,    // welcomes those it starts on
  kResuming,   // a restart with the kept membership: welcomes whom it can
  kRecording,  // its first record is not complete
  kServing,
};

struct Engine {
  Mode mode = Mode::kAbsent;
  Epoch epoch = 0;
  uint8_t first : 1 = 0;     // its proposal is the first after a start, which the store must record
  uint8_t restored : 1 = 0;  // attached by a restored store under whose id no record was confirmed
  uint8_t store_id : 1 = 0;  // of the store that attached it
  uint8_t stored : 1 = 0;    // the store has recorded the proposal, and answers that some time
  Record base;               // starting: the store's record; then the last complete one
  std::array<Record, kReplicas> heard;  // starting
  Set chosen = 0;                       // fencing: whom to fence
  Set welcomed = 0;                     // fencing, resuming: who has welcomed it
  Record proposal;                      // exists: proposed, and not complete
  Set written = 0;                      // by whom
  uint8_t since = 0;  // bit s: a record with the members s was proposed since the last complete one
  uint8_t told = 0;   // the same, as far as the supervisor knows
  Record told_base;   // the last complete record, as far as the supervisor knows
  Write write = 0;    // the one in flight
  Set write_done = 0;  // by whom
  // For the checks only: it was issued when a newer engine had begun to serve.
  bool write_outdated = false;
  uint8_t spent = 0;  // without kNeverTakenBack: the generation of what was taken back
  uint8_t proposals = 0;
  uint8_t writes = 0;

  Set targets() const { return proposal.exists() ? proposal.members : base.members; }
};

struct Store {
  Record record;
  uint8_t attachment = 0;
  uint8_t id : 1 = 0;
  uint8_t confirmed : 1 = 1;  // a record was recorded under this id
  Record backup;
  uint8_t backup_attachment = 0;
};

struct State {
  std::array<Replica, kReplicas> replicas;
  std::array<Engine, kEngines> engines;
  Store store;
  uint8_t joins = 0;
  uint8_t restarts = 0;
  uint8_t restores = 0;
  // For the checks only.
  Write acknowledged = 0;  // the last write that was
  Epoch served = 0;        // the newest epoch that began to serve
};

}  // namespace model
