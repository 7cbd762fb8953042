#include "sim/register_model.h"

#include <algorithm>
#include <cstring>

namespace ankole::sim {
namespace {

// Past this many writes of a sector, those that are certainly over are forgotten.
constexpr size_t kWritesMax = 48;

uint32_t SecondWord(uint64_t sector, uint32_t value) {
  return static_cast<uint32_t>(sector) * 2654435761U + value;
}

std::string Number(uint64_t tick) {
  return tick == RegisterModel::kNever ? "-" : std::to_string(tick);
}

}  // namespace

RegisterModel::RegisterModel(uint64_t size_bytes)
    : sectors_(size_bytes / kSectorBytes),
      touched_(size_bytes / kSectorBytes),
      in_unflushed_(size_bytes / kSectorBytes) {}

void RegisterModel::Fill(std::byte* data, uint64_t offset_bytes, uint64_t length_bytes,
                         uint32_t value) {
  for (uint64_t i = 0; i < length_bytes / kSectorBytes; ++i) {
    const uint64_t sector = offset_bytes / kSectorBytes + i;
    const uint32_t words[2] = {value, SecondWord(sector, value)};
    for (size_t at = 0; at < kSectorBytes; at += sizeof(words)) {
      std::memcpy(data + i * kSectorBytes + at, words, sizeof(words));
    }
  }
}

uint32_t RegisterModel::ValueOf(const std::byte* data, uint64_t sector) {
  uint32_t first[2];
  std::memcpy(first, data, sizeof(first));
  // Each eight bytes as the first, and those as they must be.
  if (std::memcmp(data, data + sizeof(first), kSectorBytes - sizeof(first)) != 0) return kTorn;
  const uint32_t second = first[0] == 0 ? 0 : SecondWord(sector, first[0]);
  return first[1] == second ? first[0] : kTorn;
}

// Two writes that both took effect: the spans in which they were certainly there must not meet, and
// neither may have come and gone within the other's.
bool RegisterModel::Contradict(const Write& a, const Write& b) {
  const bool a_span = a.by < a.seen;
  const bool b_span = b.by < b.seen;
  if (a_span && b_span) return std::max(a.by, b.by) < std::min(a.seen, b.seen);
  if (a_span) return a.by < b.seen && b.by < a.seen;
  if (b_span) return b.by < a.seen && a.by < b.seen;
  return false;
}

bool RegisterModel::Fits(const Sector& sector, const Write& tried, const Write* except) {
  for (const Write& other : sector.writes) {
    if (&other == except || !other.certain) continue;
    if (Contradict(tried, other)) return false;
  }
  return true;
}

void RegisterModel::WriteBegins(uint64_t offset_bytes, uint64_t length_bytes, uint32_t value,
                                uint64_t at) {
  for (uint64_t s = offset_bytes / kSectorBytes; s < (offset_bytes + length_bytes) / kSectorBytes;
       ++s) {
    touched_[s] = true;
    RevertBegins(s, value, at);
  }
}

void RegisterModel::RevertBegins(uint64_t s, uint32_t value, uint64_t at) {
  Sector& sector = sectors_[s];
  // Zeros from the beginning of time, durable.
  if (sector.writes.empty()) {
    sector.writes.push_back({.value = 0, .by = 0, .answered = 0, .certain = true, .durable = true});
  }
  Forget(&sector);
  sector.writes.push_back({.value = value, .begin = at, .seen = at, .settled = at});
  NoteUnflushed(s);
}

void RegisterModel::NoteUnflushed(uint64_t sector) {
  if (in_unflushed_[sector]) return;
  in_unflushed_[sector] = true;
  unflushed_.push_back(static_cast<uint32_t>(sector));
}

std::string RegisterModel::WriteEnds(uint64_t offset_bytes, uint64_t length_bytes, uint64_t began,
                                     uint64_t at, bool durable) {
  for (uint64_t s = offset_bytes / kSectorBytes; s < (offset_bytes + length_bytes) / kSectorBytes;
       ++s) {
    for (Write& write : sectors_[s].writes) {
      if (write.begin != began) continue;
      write.by = std::min(write.by, at);
      write.answered = at;
      write.certain = true;
      write.durable = durable;
      if (!Fits(sectors_[s], write, &write)) {
        return Fault(s, "a write of " + std::to_string(write.value) +
                            " was answered that cannot have taken effect then");
      }
    }
  }
  return "";
}

void RegisterModel::WriteFails(uint64_t offset_bytes, uint64_t length_bytes, uint64_t began,
                               uint64_t at) {
  for (uint64_t s = offset_bytes / kSectorBytes; s < (offset_bytes + length_bytes) / kSectorBytes;
       ++s) {
    for (Write& write : sectors_[s].writes) {
      if (write.begin == began) write.by = std::min(write.by, at);
    }
  }
}

std::string RegisterModel::WriteNever(uint64_t offset_bytes, uint64_t length_bytes,
                                      uint64_t began) {
  for (uint64_t s = offset_bytes / kSectorBytes; s < (offset_bytes + length_bytes) / kSectorBytes;
       ++s) {
    for (const Write& write : sectors_[s].writes) {
      if (write.begin == began && write.certain) {
        return Fault(s, "has " + std::to_string(write.value) + ", which was refused");
      }
    }
    std::erase_if(sectors_[s].writes, [&](const Write& write) { return write.begin == began; });
  }
  return "";
}

void RegisterModel::Flushed(uint64_t began) {
  std::erase_if(unflushed_, [&](uint32_t s) {
    bool all = true;
    for (Write& write : sectors_[s].writes) {
      if (write.answered < began) write.durable = true;
      if (write.seen_by < began) write.settled = write.seen;
      all &= write.durable && write.settled == write.seen;
    }
    if (all) in_unflushed_[s] = false;
    return all;
  });
}

std::string RegisterModel::Read(uint64_t offset_bytes, const std::byte* data, uint64_t length_bytes,
                                uint64_t began, uint64_t at) {
  for (uint64_t i = 0; i < length_bytes / kSectorBytes; ++i) {
    const uint64_t s = offset_bytes / kSectorBytes + i;
    Sector& sector = sectors_[s];
    const uint32_t value = ValueOf(data + i * kSectorBytes, s);
    if (value == kTorn) {
      uint32_t words[2];
      std::memcpy(words, data + i * kSectorBytes, sizeof(words));
      return Fault(s, "gives bytes that nobody wrote there (they begin as value " +
                          std::to_string(words[0]) + ")");
    }
    if (sector.writes.empty()) {
      if (value != 0) return Fault(s, "gives " + std::to_string(value) + ", and was never written");
      continue;
    }
    Write* only = nullptr;
    size_t fitting = 0;
    for (Write& write : sector.writes) {
      if (write.value != value || write.begin >= at) continue;
      Write tried = write;
      tried.seen = std::max(tried.seen, began);
      tried.by = std::min(tried.by, at);
      if (!Fits(sector, tried, &write)) continue;
      only = &write;
      ++fitting;
    }
    if (fitting == 0) {
      return Fault(s, "gives " + std::to_string(value) + " to a read from " +
                          std::to_string(began) + " to " + std::to_string(at) +
                          ", which is not there any more or not yet");
    }
    if (fitting > 1 || only->begin < sector.loose_before) continue;
    if (only->seen < began) {
      only->seen = began;
      only->seen_by = at;
      NoteUnflushed(s);
    }
    only->by = std::min(only->by, at);
    only->certain = true;
  }
  return "";
}

// The first tick after which, and before the next, the sector can have held the value; kNever: none
// before `at`. Once that moment is fixed each sector is a register of its own.
uint64_t RegisterModel::FirstInstant(const Sector& sector, uint32_t value, uint64_t from,
                                     uint64_t at) {
  uint64_t first = kNever;
  for (const Write& write : sector.writes) {
    if (write.value != value) continue;
    if (write.begin < sector.loose_before) return from;
    uint64_t t = std::max(from, write.begin);
    while (t < std::min(first, at)) {
      Write tried = write;
      // Between the two ticks.
      tried.seen = std::max(tried.seen, t + 1);
      tried.by = std::min(tried.by, t);
      // Whatever contradicts it does so until it was last seen, or for good.
      uint64_t until = t;
      bool fits = true;
      for (const Write& other : sector.writes) {
        if (&other == &write || !other.certain || !Contradict(tried, other)) continue;
        fits = false;
        until = other.seen > t ? std::max(until, other.seen) : kNever;
        if (until == kNever) break;
      }
      if (fits) {
        first = t;
        break;
      }
      t = until;
    }
  }
  return first;
}

std::string RegisterModel::Instant(const std::vector<uint32_t>& values, uint64_t began,
                                   uint64_t at) const {
  const auto has = [&](uint64_t s) {
    return "has " + std::to_string(values[s]) + " in a snapshot taken from " +
           std::to_string(began) + " to " + std::to_string(at);
  };
  uint64_t t = began;
  uint64_t decides = 0;  // the sector by which it was no earlier
  for (bool again = true; again;) {
    again = false;
    for (uint64_t s = 0; s < values.size(); ++s) {
      const Sector& sector = sectors_[s];
      if (values[s] == kUnreadable) continue;
      if (values[s] == kTorn) return Fault(s, has(s) + ", bytes that nobody wrote there");
      if (sector.writes.empty()) {
        if (values[s] != 0) return Fault(s, has(s) + ", and was never written");
        continue;
      }
      if (lost_at_ > began) continue;
      const uint64_t next = FirstInstant(sector, values[s], t, at);
      if (next == t) continue;
      if (next == kNever) {
        if (t == began || FirstInstant(sector, values[s], began, at) == kNever) {
          return Fault(s, has(s) + ", which is not there any more or not yet");
        }
        return Fault(s, has(s) + ", and not any more at " + std::to_string(t)) +
               "; no earlier was " + Fault(decides, has(decides));
      }
      t = next;
      decides = s;
      again = true;
    }
  }
  return "";
}

void RegisterModel::Lost(uint64_t before, uint64_t now) {
  lost_at_ = now;
  for (const uint32_t s : unflushed_) {
    Sector& sector = sectors_[s];
    bool any = false;
    for (const Write& write : sector.writes) any |= !write.durable || write.settled != write.seen;
    if (!any) continue;
    // What cannot have vanished hides whatever was before it: a durable write for good, another one
    // for as long as it is not lost itself; but not what may have vanished in an earlier loss, of
    // which a flush since then tells nothing. A read that saw the older of two values has settled
    // that a write which was never answered did not take effect; that holds for good only from the
    // next flush on, as members are made equal by writes that may be lost like any other.
    const std::vector<Write> all = sector.writes;
    const auto hidden = [&](const Write& write, bool for_good) {
      for (const Write& stays : all) {
        if (stays.answered == kNever || !stays.certain || stays.begin == write.begin) continue;
        if (stays.durable && write.by < stays.settled) return true;
        const bool kept = stays.begin >= before || (stays.durable && stays.seen >= before);
        if (!for_good && kept && write.by < stays.seen) return true;
      }
      return false;
    };
    std::erase_if(sector.writes, [&](const Write& write) { return hidden(write, true); });
    if (sector.writes.size() == 1) {
      sector.writes[0].certain = true;
      continue;
    }
    // One of these is what is there from now on.
    bool loose = false;
    for (Write& write : sector.writes) {
      if (write.answered == kNever && write.by == kNever) continue;  // it is still under way
      if (hidden(write, false)) continue;
      if (write.answered != kNever && write.begin >= before) continue;
      if (write.begin < sector.loose_before) loose = true;
      write.begin = write.seen = now;
      write.seen_by = 0;
      write.by = now + 1;
      write.certain = false;
    }
    if (loose) sector.loose_before = now + 1;
  }
}

void RegisterModel::Loose(uint64_t now) {
  for (Sector& sector : sectors_) {
    for (const Write& write : sector.writes) {
      if (!write.certain) sector.loose_before = now;
    }
  }
}

void RegisterModel::Forget(Sector* sector) {
  std::vector<Write>& writes = sector->writes;
  if (writes.size() < kWritesMax) return;
  // Those that a durable one followed before the oldest read that is still under way began.
  const size_t half = writes.size() / 2;
  size_t last = SIZE_MAX;
  for (size_t i = 0; i < half; ++i) {
    const bool over = writes[i].answered != kNever && writes[i].answered < readers_since_;
    if (writes[i].durable && over) last = i;
  }
  if (last == SIZE_MAX) return;
  const Write kept = writes[last];
  std::erase_if(writes, [&](const Write& write) { return write.by < kept.begin; });
}

std::vector<uint64_t> RegisterModel::Touched() const {
  std::vector<uint64_t> touched;
  for (uint64_t s = 0; s < touched_.size(); ++s) {
    if (touched_[s]) touched.push_back(s);
  }
  return touched;
}

std::string RegisterModel::Describe(uint64_t sector) const {
  std::string text;
  for (const Write& write : sectors_[sector].writes) {
    text += " [" + std::to_string(write.value) + ": begun " + Number(write.begin) + ", by " +
            Number(write.by) + ", seen " + Number(write.seen) + ", answered " +
            Number(write.answered) + (write.certain ? ", certain" : "") +
            (write.durable ? ", durable" : "") + "]";
  }
  if (sectors_[sector].loose_before != 0) {
    text += " loose before " + std::to_string(sectors_[sector].loose_before);
  }
  return text;
}

std::string RegisterModel::Fault(uint64_t sector, const std::string& what) const {
  return "sector " + std::to_string(sector) + " " + what + ":" + Describe(sector);
}

}  // namespace ankole::sim
