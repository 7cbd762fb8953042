#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/units.h"

// Whether what clients saw of a volume can be: each sector is one register that many read and write
// at once (linearizable), and what is lost in a crash is no more than section 4 allows.
//
// The method is that of Gibbons and Korach («Testing Shared Memories», 1997) for values that are
// written once: all that is known of one write and its reads is the earliest moment by which it had
// taken effect and the latest at which it was still there. Two such spans must not overlap, and one
// write must not lie within the span of another. It is exact: no history that can be is refused.
// Zeros are written many times, and so is what a revert brings back; a read of them counts only
// where it can be one write's.
namespace ankole::sim {

class RegisterModel {
 public:
  static constexpr uint64_t kNever = UINT64_MAX;
  explicit RegisterModel(uint64_t size_bytes);

  // Times are World::Tick. `value` is new with each write, or is written once more by a revert; 0:
  // zeros.
  void WriteBegins(uint64_t offset_bytes, uint64_t length_bytes, uint32_t value, uint64_t at);
  // A revert does, of that sector, whether it was ever written or not.
  void RevertBegins(uint64_t sector, uint32_t value, uint64_t at);
  // Answered GOOD. `durable`: with FUA. A finding, or "".
  std::string WriteEnds(uint64_t offset_bytes, uint64_t length_bytes, uint64_t began, uint64_t at,
                        bool durable);
  // It will not be answered any more, or was with an error: by `at` it took effect or never will
  // (kNever: who knows).
  void WriteFails(uint64_t offset_bytes, uint64_t length_bytes, uint64_t began, uint64_t at);
  // It was refused, and has never taken effect. A finding, or "".
  std::string WriteNever(uint64_t offset_bytes, uint64_t length_bytes, uint64_t began);
  // A flush that was begun then was answered GOOD: what had been answered before it is durable.
  void Flushed(uint64_t began);
  // Reads that are under way were begun at that time or later; kNever: there are none. What they
  // may give is not forgotten.
  void ReadersSince(uint64_t began) { readers_since_ = began; }
  // What a read gave. A finding, or "".
  std::string Read(uint64_t offset_bytes, const std::byte* data, uint64_t length_bytes,
                   uint64_t began, uint64_t at);
  // What a snapshot holds, a value a sector of the volume, must be what all sectors held at one
  // instant between the two: what was answered before is in it, what began later is not, and where
  // it has a write it lacks none that had been answered before that one began. kUnreadable: not
  // known. A finding, or "". Not known either after a loss since `began`, which may take from the
  // volume what the snapshot keeps.
  std::string Instant(const std::vector<uint32_t>& values, uint64_t began, uint64_t at) const;
  // Of what was begun before `before` (a tick) and not flushed, any part may have vanished: also
  // what was answered after, as an answer may be on its way when the power goes;
  // `now` and `now + 1` are ticks of this event alone.
  void Lost(uint64_t before, uint64_t now);
  // Writes that are not known to have taken effect may be on some members and not on others, and
  // reads may give either until they are written over: for as long as rule 7's «a read first makes
  // its range equal» is not built.
  void Loose(uint64_t now);

  // Fills a write's memory so that every sector says whose it is.
  static void Fill(std::byte* data, uint64_t offset_bytes, uint64_t length_bytes, uint32_t value);
  // And back: which write's the sector is; 0: zeros, kTorn: nobody's.
  static uint32_t ValueOf(const std::byte* data, uint64_t sector);
  static constexpr uint32_t kTorn = UINT32_MAX;
  static constexpr uint32_t kUnreadable = UINT32_MAX - 1;
  // Sectors that were ever written.
  std::vector<uint64_t> Touched() const;
  // For findings: what is known of the sector.
  std::string Describe(uint64_t sector) const;

 private:
  struct Write {
    uint32_t value = 0;
    uint64_t begin = 0;
    // It had taken effect by then, if it has at all. Invariant: >= begin.
    uint64_t by = kNever;
    // It was there at that time, at the earliest its begin.
    uint64_t seen = 0;
    uint64_t seen_by = 0;  // when the read that saw it then was answered
    // As `seen`, as far as a flush covers it: what was written before that and is not there then
    // cannot come back after a loss of power.
    uint64_t settled = 0;
    uint64_t answered = kNever;
    bool certain = false;  // it has taken effect: answered, or read
    bool durable = false;
  };
  struct Sector {
    std::vector<Write> writes;
    // Reads of what was begun before tell nothing.
    uint64_t loose_before = 0;
  };
  static bool Contradict(const Write& a, const Write& b);
  static bool Fits(const Sector& sector, const Write& tried, const Write* except);
  static uint64_t FirstInstant(const Sector& sector, uint32_t value, uint64_t from, uint64_t at);
  void Forget(Sector* sector);
  void NoteUnflushed(uint64_t sector);
  std::string Fault(uint64_t sector, const std::string& what) const;

  std::vector<Sector> sectors_;
  uint64_t readers_since_ = kNever;
  std::vector<bool> touched_;
  // Sectors that have something that is not durable, and perhaps others: what a flush looks at.
  std::vector<uint32_t> unflushed_;
  std::vector<bool> in_unflushed_;
  uint64_t lost_at_ = 0;  // when something was last lost
};

}  // namespace ankole::sim
