#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/units.h"

// For tests only: each sector of a volume as a register that many write and read at once. Times are
// numbers that grow with each event.
namespace ankole::engine::testing {

class RegisterModel {
 public:
  static constexpr uint64_t kNever = UINT64_MAX;
  explicit RegisterModel(uint64_t size_bytes) : sectors_(size_bytes / kSectorBytes) {
    for (std::vector<Write>& writes : sectors_) writes.push_back({0, 0, 0});
  }

  uint64_t Now() { return ++now_; }
  // `value` 0: zeros.
  void WriteBegins(uint64_t offset, uint64_t length, uint32_t value, uint64_t at) {
    for (uint64_t s = offset / kSectorBytes; s < (offset + length) / kSectorBytes; ++s) {
      sectors_[s].push_back({value, at, kNever});
    }
  }
  void WriteEnds(uint64_t offset, uint64_t length, uint64_t began, uint64_t at) {
    for (uint64_t s = offset / kSectorBytes; s < (offset + length) / kSectorBytes; ++s) {
      for (Write& write : sectors_[s]) {
        if (write.begin == began && write.end > at) write.end = at;
      }
      Forget(&sectors_[s]);
    }
  }
  // Writes without an answer took effect before this, or never will.
  void Crash() {
    const uint64_t at = Now();
    for (std::vector<Write>& writes : sectors_) {
      for (Write& write : writes) {
        if (write.end == kNever) write.end = at;
        // Which of those that overlapped was the last one, nobody knows: none hides another.
        write.maybe = write.maybe || write.end == at;
      }
    }
  }
  // Empty when this may be what a read from `began` to now gives.
  std::string Check(uint64_t offset, const std::byte* data, uint64_t length, uint64_t began) {
    const uint64_t now = Now();
    for (uint64_t i = 0; i < length / kSectorBytes; ++i) {
      const uint64_t s = offset / kSectorBytes + i;
      const uint32_t value = ValueOf(data + i * kSectorBytes, s);
      if (value == kTorn) return "sector " + std::to_string(s) + " is none that was written";
      Write* seen = nullptr;
      size_t candidates = 0;
      for (Write& write : sectors_[s]) {
        if (write.value != value || Hidden(sectors_[s], write, began)) continue;
        seen = &write;
        ++candidates;
      }
      if (seen == nullptr) {
        return "sector " + std::to_string(s) + " has " + std::to_string(value) +
               ", which is not there any more or not yet";
      }
      // Whoever reads after this must not see what came before it.
      if (candidates == 1) {
        if (seen->end > now) seen->end = now;
        seen->maybe = false;
      }
    }
    return "";
  }
  static void Fill(std::byte* data, uint64_t offset, uint64_t length, uint32_t value) {
    for (uint64_t i = 0; i < length / kSectorBytes; ++i) {
      const auto sector = static_cast<uint32_t>(offset / kSectorBytes + i);
      for (size_t w = 0; w < kSectorBytes; w += 8) {
        const uint32_t words[2] = {value, sector * 2654435761U + value};
        std::memcpy(data + i * kSectorBytes + w, words, 8);
      }
    }
  }

 private:
  static constexpr uint32_t kTorn = UINT32_MAX;
  struct Write {
    uint32_t value;
    uint64_t begin;
    uint64_t end;
    bool maybe = false;  // may never have taken effect: it hides nothing
  };

  // Whether another write lies wholly between that one and the read.
  static bool Hidden(const std::vector<Write>& writes, const Write& write, uint64_t read_began) {
    for (const Write& other : writes) {
      if (!other.maybe && other.begin > write.end && other.end < read_began) return true;
    }
    return false;
  }
  // Those hidden from every read to come and every one that goes on would be forgotten; a long list
  // is cut, reads that are slower than so many writes are none of these tests.
  static void Forget(std::vector<Write>* writes) {
    if (writes->size() > 96) writes->erase(writes->begin(), writes->begin() + 32);
  }
  static uint32_t ValueOf(const std::byte* data, uint64_t s) {
    uint32_t first;
    std::memcpy(&first, data, 4);
    const auto sector = static_cast<uint32_t>(s);
    for (size_t w = 0; w < kSectorBytes; w += 8) {
      uint32_t words[2];
      std::memcpy(words, data + w, 8);
      const uint32_t expected = first == 0 ? 0 : sector * 2654435761U + first;
      if (words[0] != first || words[1] != expected) return kTorn;
    }
    return first;
  }

  uint64_t now_ = 0;
  std::vector<std::vector<Write>> sectors_;
};

}  // namespace ankole::engine::testing
