#include "search.h"

#include <algorithm>
#include <utility>

namespace model {
namespace {

// --- one number for all states that differ only in the names of replicas

// names[r] is the new name of r.
using Names = std::array<int, kReplicas>;

Set Renamed(unsigned set, const Names& names) {
  Set renamed = 0;
  for (int r = 0; r < kReplicas; ++r) {
    if (Has(static_cast<Set>(set), r)) renamed |= Just(names[r]);
  }
  return renamed;
}

class Fingerprint {
 public:
  void Add(uint64_t value, int bits) {
    if (filled_ + bits > 64) Flush();
    word_ |= value << filled_;
    filled_ += bits;
  }
  uint64_t Value() {
    Flush();
    return hash_ ^ hash_ >> 29;
  }

 private:
  void Flush() {
    hash_ = (hash_ ^ word_) * 0x9e3779b97f4a7c15;
    hash_ = (hash_ ^ hash_ >> 32) * 0xd6e8feb86659fd93;
    hash_ ^= hash_ >> 32;
    word_ = 0;
    filled_ = 0;
  }
  uint64_t hash_ = 0x243f6a8885a308d3;
  uint64_t word_ = 0;
  int filled_ = 0;
};

// Of generations only the order matters, and only within an epoch: what is taken off them here.
using Offsets = std::array<uint8_t, 16>;

template <typename Function>
void ForEachRecord(const State& state, Function function) {
  for (const Replica& replica : state.replicas) {
    function(replica.record);
    function(replica.record_coming);
  }
  for (const Engine& engine : state.engines) {
    if (engine.mode == Mode::kAbsent) continue;
    function(engine.base);
    function(engine.proposal);
    function(engine.told_base);
    for (const Record heard : engine.heard) function(heard);
  }
  function(state.store.record);
  function(state.store.backup);
}

Offsets OffsetsOf(const State& state, const Rules& rules) {
  Offsets offsets = {};
  if (!rules[Clause::kEpochFirst]) return offsets;
  offsets.fill(UINT8_MAX);
  ForEachRecord(state, [&](Record record) {
    if (!record.exists()) return;
    offsets[record.epoch] = std::min<uint8_t>(offsets[record.epoch], record.generation - 1);
  });
  return offsets;
}

struct Renaming {
  std::array<Set, kAll + 1> sets = {};
  Offsets offsets = {};
};

void AddRecord(Fingerprint& to, Record record, const Renaming& renaming) {
  const auto& sets = renaming.sets;
  to.Add(record.epoch, 4);
  to.Add(record.exists() ? record.generation - renaming.offsets[record.epoch] : 0, 4);
  to.Add(sets[record.members], 3);
  to.Add(sets[record.last], 3);
}

uint64_t FingerprintOf(const State& state, const Names& names, const Offsets& offsets) {
  Renaming renaming = {.sets = {}, .offsets = offsets};
  auto& sets = renaming.sets;
  for (unsigned set = 0; set <= kAll; ++set) sets[set] = Renamed(set, names);
  const auto family = [&](unsigned old) {
    unsigned renamed = 0;
    for (unsigned set = 1; set <= kAll; ++set) renamed |= (old >> set & 1) << sets[set];
    return renamed;
  };
  Names old = {};  // by new name
  for (int r = 0; r < kReplicas; ++r) old[names[r]] = r;

  Fingerprint to;
  for (const int r : old) {
    const Replica& replica = state.replicas[r];
    AddRecord(to, replica.record, renaming);
    AddRecord(to, replica.record_coming, renaming);
    to.Add(replica.welcomed, 4);
    to.Add(replica.value, 5);
    to.Add(replica.write_coming, 5);
    to.Add(replica.write_late, 5);
  }
  for (const Engine& engine : state.engines) {
    to.Add(static_cast<uint64_t>(engine.mode), 3);
    if (engine.mode == Mode::kAbsent) continue;
    to.Add(engine.epoch, 4);
    to.Add(engine.first, 1);
    to.Add(engine.restored, 1);
    to.Add(engine.store_id, 1);
    to.Add(engine.stored, 1);
    AddRecord(to, engine.base, renaming);
    if (engine.mode == Mode::kStarting || engine.mode == Mode::kFencing) {
      for (const int r : old) AddRecord(to, engine.heard[r], renaming);
    }
    to.Add(sets[engine.chosen], 3);
    to.Add(sets[engine.welcomed], 3);
    AddRecord(to, engine.proposal, renaming);
    to.Add(sets[engine.written], 3);
    to.Add(family(engine.since), 8);
    to.Add(family(engine.told), 8);
    AddRecord(to, engine.told_base, renaming);
    to.Add(engine.write, 5);
    to.Add(sets[engine.write_done], 3);
    to.Add(engine.write_outdated ? 1 : 0, 1);
    to.Add(engine.spent, 4);
    to.Add(engine.proposals, 3);
    to.Add(engine.writes, 3);
  }
  AddRecord(to, state.store.record, renaming);
  AddRecord(to, state.store.backup, renaming);
  to.Add(state.store.attachment, 2);
  to.Add(state.store.backup_attachment, 2);
  to.Add(state.store.id, 1);
  to.Add(state.store.confirmed, 1);
  to.Add(state.joins, 2);
  to.Add(state.restarts, 2);
  to.Add(state.restores, 2);
  to.Add(state.acknowledged, 5);
  to.Add(state.served, 4);
  return to.Value();
}

// What of a replica does not depend on names.
uint64_t Likeness(const State& state, int r) {
  Fingerprint to;
  const Replica& replica = state.replicas[r];
  to.Add(replica.record.epoch, 4);
  to.Add(replica.welcomed, 4);
  to.Add(replica.value, 5);
  to.Add(replica.write_coming, 5);
  to.Add(replica.record_coming.epoch, 4);
  to.Add(Has(state.store.record.members, r), 1);
  for (const Engine& engine : state.engines) {
    if (engine.mode == Mode::kAbsent) continue;
    to.Add(Has(engine.base.members, r), 1);
    to.Add(Has(engine.proposal.members, r), 1);
    to.Add(Has(engine.written, r), 1);
    to.Add(Has(engine.welcomed, r), 1);
    to.Add(engine.heard[r].epoch, 4);
  }
  return to.Value();
}

uint64_t Canonical(const State& state, const Rules& rules) {
  const Offsets offsets = OffsetsOf(state, rules);
  std::array<uint64_t, kReplicas> likeness = {};
  for (int r = 0; r < kReplicas; ++r) likeness[r] = Likeness(state, r);
  // Of all ways to name them that sort them by likeness, the one with the least number.
  Names old = {};
  for (int r = 0; r < kReplicas; ++r) old[r] = r;
  uint64_t least = UINT64_MAX;
  do {
    bool sorted = true;
    Names names = {};
    for (int r = 0; r < kReplicas; ++r) {
      names[old[r]] = r;
      sorted &= r == 0 || likeness[old[r - 1]] <= likeness[old[r]];
    }
    if (sorted) least = std::min(least, FingerprintOf(state, names, offsets));
  } while (std::next_permutation(old.begin(), old.end()));
  return least;
}

// --- the search

// Fingerprints in the order in which they were found, with where each came from.
class Visited {
 public:
  Visited() : table_(size_t{1} << 20, 0) {}

  // Whether it is new.
  bool Add(uint64_t fingerprint, uint32_t parent) {
    if (2 * (found_.size() + 1) > table_.size()) Grow();
    uint32_t& slot = SlotOf(fingerprint);
    if (slot != 0) return false;
    found_.push_back(fingerprint);
    parents_.push_back(parent);
    slot = static_cast<uint32_t>(found_.size());
    return true;
  }
  size_t size() const { return found_.size(); }
  uint64_t fingerprint(uint32_t index) const { return found_[index]; }
  uint32_t parent(uint32_t index) const { return parents_[index]; }

 private:
  uint32_t& SlotOf(uint64_t fingerprint) {
    size_t at = fingerprint & (table_.size() - 1);
    while (table_[at] != 0 && found_[table_[at] - 1] != fingerprint) {
      at = (at + 1) & (table_.size() - 1);
    }
    return table_[at];
  }
  void Grow() {
    table_.assign(2 * table_.size(), 0);
    for (size_t i = 0; i < found_.size(); ++i) SlotOf(found_[i]) = static_cast<uint32_t>(i + 1);
  }

  std::vector<uint64_t> found_;
  std::vector<uint32_t> parents_;
  std::vector<uint32_t> table_;  // 1 + index in found_; 0: empty
};

constexpr uint32_t kNoParent = UINT32_MAX;

std::vector<State> Beginnings(const Scope& scope) {
  // Attachment 1 serves on some of the replicas. Those that are no members are behind in record
  // and data.
  std::vector<State> states;
  for (const Set members : {Set{0b111}, Set{0b011}, Set{0b001}}) {
    for (const bool reported : {true, false}) {
      // A minority is known to the store; and that all are members was known from the beginning.
      if (!reported && members != 0b011) continue;
      State state;
      const Record all = {.epoch = 2, .generation = 1, .members = kAll, .last = kAll};
      Record now = {.epoch = 2, .generation = 2, .members = members, .last = kAll};
      if (members == kAll) now = all;
      for (int r = 0; r < kReplicas; ++r) {
        Replica& replica = state.replicas[r];
        replica.welcomed = 2;
        replica.record = Has(members, r) ? now : all;
        replica.value = Has(members, r) ? 1 : 0;
      }
      state.acknowledged = 1;
      state.served = 2;
      Engine& engine = state.engines[0];
      engine.mode = Mode::kServing;
      engine.epoch = 2;
      engine.base = now;
      engine.base.last = members;
      if (scope.restarts > 0) engine.told_base = engine.base;
      state.store.record = reported ? now : all;
      state.store.record.last = state.store.record.members;
      state.store.attachment = 1;
      if (scope.restores > 0) {
        state.store.backup = state.store.record;
        state.store.backup_attachment = 1;
      }
      states.push_back(state);
    }
  }
  return states;
}

class Explorer final : StepSink {
 public:
  Explorer(const Rules& rules, const Scope& scope) : rules_(rules), scope_(scope) {}

  Outcome Run(uint64_t states_max) {
    for (const State& state : Beginnings(scope_)) {
      if (visited_.Add(Canonical(state, rules_), kNoParent)) next_.push_back(state);
    }
    uint32_t first = 0;  // of this level, in visited_
    while (!next_.empty() && visited_.size() <= states_max && outcome_.finding == nullptr) {
      const std::vector<State> level = std::exchange(next_, {});
      for (size_t i = 0; i < level.size() && outcome_.finding == nullptr; ++i) {
        parent_ = first + static_cast<uint32_t>(i);
        ForEachStep(level[i], rules_, scope_, *this);
      }
      first += static_cast<uint32_t>(level.size());
      if (!next_.empty()) ++outcome_.depth;
    }
    outcome_.states = visited_.size();
    if (outcome_.finding != nullptr) Trace();
    return std::move(outcome_);
  }

 private:
  void Take(const Step&, const State& next, const char* finding) override {
    if (outcome_.finding != nullptr) return;
    if (!visited_.Add(Canonical(next, rules_), parent_)) return;
    next_.push_back(next);
    outcome_.finding = finding;
  }

  // Goes the way again, from its beginning, looking for the state with the next fingerprint: so the
  // names of the replicas stay the same all along.
  void Trace() {
    std::vector<uint64_t> way;
    for (auto i = static_cast<uint32_t>(visited_.size() - 1); i != kNoParent;
         i = visited_.parent(i)) {
      way.push_back(visited_.fingerprint(i));
    }
    std::reverse(way.begin(), way.end());
    State at;
    for (const State& state : Beginnings(scope_)) {
      if (Canonical(state, rules_) == way.front()) at = state;
    }
    outcome_.trace.push_back("engine 1.1 serves; " + Describe(at));
    for (size_t i = 1; i < way.size(); ++i) {
      Finder finder(at, way[i], rules_);
      ForEachStep(at, rules_, scope_, finder);
      outcome_.trace.push_back(finder.text);
      at = finder.found;
    }
  }

  struct Finder final : StepSink {
    Finder(const State& from, uint64_t wanted, const Rules& rules)
        : before(from), fingerprint(wanted), rules_(rules) {}
    void Take(const Step& step, const State& next, const char*) override {
      if (!text.empty() || Canonical(next, rules_) != fingerprint) return;
      found = next;
      text = Describe(step, before, next);
    }
    const State& before;
    uint64_t fingerprint;
    const Rules& rules_;
    State found;
    std::string text;
  };

  const Rules rules_;
  const Scope scope_;
  Visited visited_;
  std::vector<State> next_;
  uint32_t parent_ = kNoParent;
  Outcome outcome_;
};

}  // namespace

Outcome Search(const Rules& rules, const Scope& scope, uint64_t states_max) {
  return Explorer(rules, scope).Run(states_max);
}

}  // namespace model
