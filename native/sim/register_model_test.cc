#include "sim/register_model.h"

#include <array>

#include "base/check.h"
#include "base/test.h"

namespace ankole::sim {
namespace {

// One sector; values and times as the test says them.
struct Sector {
  RegisterModel model{kSectorBytes};
  void Begin(uint32_t value, uint64_t at) { model.WriteBegins(0, kSectorBytes, value, at); }
  bool End(uint64_t began, uint64_t at, bool durable = false) {
    return model.WriteEnds(0, kSectorBytes, began, at, durable).empty();
  }
  bool Write(uint32_t value, uint64_t from, uint64_t to) {
    Begin(value, from);
    return End(from, to);
  }
  void Fails(uint64_t began, uint64_t at) { model.WriteFails(0, kSectorBytes, began, at); }
  bool Read(uint32_t value, uint64_t from, uint64_t to) {
    std::array<std::byte, kSectorBytes> data;
    RegisterModel::Fill(data.data(), 0, kSectorBytes, value);
    if (value == 0) data = {};
    return model.Read(0, data.data(), kSectorBytes, from, to).empty();
  }
};

TEST(sim_register, AReadGivesTheLastWriteOrOneThatOverlapsIt) {
  Sector sector;
  EXPECT(sector.Read(0, 1, 2));
  EXPECT(sector.Write(7, 10, 20));
  EXPECT(sector.Read(7, 30, 31));
  sector.Begin(8, 40);
  EXPECT(sector.Read(7, 41, 42));
  EXPECT(sector.Read(8, 43, 44));
  EXPECT(sector.End(40, 50));
  Sector stale = sector;
  EXPECT(!stale.Read(7, 51, 52));
  EXPECT(!sector.Read(9, 51, 52));
}

TEST(sim_register, WhatWasReadIsNotUnread) {
  Sector sector;
  EXPECT(sector.Write(1, 10, 11));
  sector.Begin(2, 20);
  EXPECT(sector.Read(2, 21, 22));
  EXPECT(!sector.Read(1, 23, 24));
  // The other way round: what was not there and did not fail later cannot come back.
  Sector other;
  EXPECT(other.Write(1, 10, 11));
  other.Begin(2, 20);
  other.Fails(20, 30);
  EXPECT(other.Read(1, 40, 41));
  EXPECT(!other.Read(2, 42, 43));
}

TEST(sim_register, WhatAReadUnderWayMayGiveIsNotForgotten) {
  Sector sector;
  EXPECT(sector.Write(1, 10, 11));
  sector.model.ReadersSince(12);
  for (uint32_t value = 2; value < 200; ++value) {
    EXPECT(sector.Write(value, value * 10, value * 10 + 1));
    sector.model.Flushed(value * 10 + 2);
  }
  EXPECT(sector.Read(1, 12, 3000));
  // Nor is what is long over given to a read that began since.
  EXPECT(!sector.Read(1, 22, 3000));
}

TEST(sim_register, OverlappingWritesMayComeInAnyOrderButOne) {
  Sector sector;
  sector.Begin(1, 10);
  sector.Begin(2, 11);
  EXPECT(sector.End(10, 20));
  EXPECT(sector.End(11, 21));
  EXPECT(sector.Read(1, 30, 31));
  EXPECT(!sector.Read(2, 32, 33));
}

TEST(sim_register, ATornSectorIsNobodys) {
  RegisterModel model(2 * kSectorBytes);
  model.WriteBegins(0, kSectorBytes, 1, 10);
  std::array<std::byte, kSectorBytes> data;
  RegisterModel::Fill(data.data(), 0, kSectorBytes, 1);
  EXPECT(model.Read(0, data.data(), kSectorBytes, 11, 12).empty());
  data[300] ^= std::byte{1};
  EXPECT(!model.Read(0, data.data(), kSectorBytes, 13, 14).empty());
  // The right value at the wrong place.
  RegisterModel::Fill(data.data(), 0, kSectorBytes, 1);
  EXPECT(!model.Read(kSectorBytes, data.data(), kSectorBytes, 15, 16).empty());
}

TEST(sim_register, OnlyWhatWasNotFlushedMayBeLostAndThenStaysSo) {
  Sector sector;
  EXPECT(sector.Write(1, 10, 11));
  sector.model.Flushed(12);
  EXPECT(sector.Write(2, 20, 21));
  EXPECT(sector.Write(3, 22, 23));
  Sector before = sector;
  EXPECT(!before.Read(2, 30, 31));
  sector.model.Lost(40, 41);
  Sector first = sector;
  EXPECT(first.Read(1, 50, 51));
  EXPECT(!first.Read(3, 52, 53));
  Sector second = sector;
  EXPECT(second.Read(2, 50, 51));
  EXPECT(second.Read(2, 52, 53));
  EXPECT(!second.Read(1, 54, 55));
  Sector zero = sector;
  EXPECT(!zero.Read(0, 50, 51));
}

TEST(sim_register, WhatCameAfterTheLossIsNotCoveredByIt) {
  Sector sector;
  EXPECT(sector.Write(1, 10, 11));
  EXPECT(sector.Write(2, 20, 21));
  sector.model.Lost(15, 30);
  Sector lost = sector;
  EXPECT(!lost.Read(1, 40, 41));
  EXPECT(!lost.Read(0, 40, 41));
  EXPECT(sector.Read(2, 40, 41));
}

// Seeds 11477 and 11987: what one member kept of it hid the rest, and then that member lost it too.
TEST(sim_register, WhatALossLeavesMayBeLostByTheNextOne) {
  Sector sector;
  EXPECT(sector.Write(1, 10, 11));
  sector.model.Flushed(12);
  EXPECT(sector.Write(2, 20, 21));
  EXPECT(sector.Write(3, 22, 23));
  sector.model.Lost(15, 30);
  Sector kept = sector;
  EXPECT(!kept.Read(1, 32, 33));
  sector.model.Lost(40, 41);
  for (const uint32_t value : {1, 2, 3}) {
    Sector after = sector;
    EXPECT(after.Read(value, 50, 51));
  }
  EXPECT(!sector.Read(0, 50, 51));
}

// Seed 11086: the read makes its range equal by writing the old value where the new one was.
TEST(sim_register, WhatAReadSettledIsForGoodFromTheNextFlushOn) {
  Sector sector;
  EXPECT(sector.Write(1, 10, 11));
  sector.model.Flushed(12);
  sector.Begin(2, 20);
  sector.Fails(20, 25);
  EXPECT(sector.Read(1, 30, 31));
  Sector denied = sector;
  EXPECT(!denied.Read(2, 32, 33));
  Sector flushed = sector;
  flushed.model.Flushed(35);
  flushed.model.Lost(40, 41);
  EXPECT(!flushed.Read(2, 50, 51));
  sector.model.Lost(40, 41);
  Sector old = sector;
  EXPECT(old.Read(1, 50, 51));
  EXPECT(!old.Read(2, 52, 53));
  EXPECT(sector.Read(2, 50, 51));
}

// Seed 601912: a flush makes durable what a loss left, and does not tell what that is.
TEST(sim_register, WhatMayHaveVanishedHidesNothingAfterAFlush) {
  Sector sector;
  EXPECT(sector.Write(1, 8, 9));
  sector.Begin(2, 10);
  sector.model.Lost(12, 13);
  EXPECT(sector.Read(1, 14, 15));
  EXPECT(sector.End(10, 16, false));
  sector.model.Lost(12, 20);
  sector.model.Flushed(25);
  EXPECT(sector.Read(1, 30, 31));
  sector.model.Lost(40, 41);
  EXPECT(sector.Read(1, 50, 51));
}

TEST(sim_register, ForceUnitAccessIsAFlushOfItself) {
  Sector sector;
  sector.Begin(1, 10);
  EXPECT(sector.End(10, 11, true));
  sector.model.Lost(20, 20);
  EXPECT(!sector.Read(0, 30, 31));
}

TEST(sim_register, LooseSectorsMayDifferUntilTheyAreWrittenOver) {
  Sector sector;
  EXPECT(sector.Write(1, 10, 11));
  sector.Begin(2, 20);
  sector.Fails(20, 25);
  sector.model.Loose(26);
  EXPECT(sector.Read(2, 30, 31));
  EXPECT(sector.Read(1, 32, 33));
  EXPECT(sector.Read(2, 34, 35));
  EXPECT(sector.Write(3, 40, 41));
  EXPECT(!sector.Read(2, 42, 43));
}

// Two sectors, written apart.
struct Pair {
  RegisterModel model{2 * kSectorBytes};
  void Begin(uint64_t sector, uint32_t value, uint64_t at) {
    model.WriteBegins(sector * kSectorBytes, kSectorBytes, value, at);
  }
  void End(uint64_t sector, uint64_t began, uint64_t at) {
    CHECK(model.WriteEnds(sector * kSectorBytes, kSectorBytes, began, at, false).empty());
  }
  bool Snapshot(uint32_t first, uint32_t second, uint64_t from, uint64_t to) const {
    return model.Instant({first, second}, from, to).empty();
  }
};

TEST(sim_register, ASnapshotHasWhatWasAnsweredBeforeAndNothingThatBeganAfter) {
  Pair pair;
  pair.Begin(0, 1, 10);
  pair.End(0, 10, 20);
  EXPECT(pair.Snapshot(1, 0, 30, 40));
  EXPECT(!pair.Snapshot(0, 0, 30, 40));
  EXPECT(pair.Snapshot(0, 0, 15, 40));
  pair.Begin(1, 2, 50);
  pair.End(1, 50, 60);
  EXPECT(!pair.Snapshot(1, 2, 30, 50));
  EXPECT(pair.Snapshot(1, 2, 30, 51));
  EXPECT(!pair.Snapshot(1, 3, 30, 60));
  // What is not known is not asked for; what nobody wrote is known.
  EXPECT(pair.Snapshot(RegisterModel::kUnreadable, 0, 30, 40));
  EXPECT(!pair.Snapshot(1, RegisterModel::kTorn, 30, 40));
}

TEST(sim_register, ASnapshotHasNoWriteWithoutThoseThatWereAnsweredBeforeItBegan) {
  Pair pair;
  pair.Begin(0, 1, 10);
  pair.End(0, 10, 20);
  pair.Begin(1, 2, 30);
  pair.End(1, 30, 40);
  // All of it within the time of the snapshot, in which each alone may be there or not.
  EXPECT(pair.Snapshot(0, 0, 5, 50));
  EXPECT(pair.Snapshot(1, 0, 5, 50));
  EXPECT(pair.Snapshot(1, 2, 5, 50));
  EXPECT(!pair.Snapshot(0, 2, 5, 50));
  // Those that overlap may come in either order.
  Pair overlap;
  overlap.Begin(0, 1, 10);
  overlap.Begin(1, 2, 15);
  overlap.End(0, 10, 20);
  overlap.End(1, 15, 40);
  EXPECT(overlap.Snapshot(0, 2, 5, 50));
  EXPECT(overlap.Snapshot(1, 0, 5, 50));
}

TEST(sim_register, ASnapshotAgreesWithWhatWasRead) {
  Sector sector;
  sector.Begin(1, 10);
  sector.Begin(2, 11);
  EXPECT(sector.Read(1, 20, 21));
  EXPECT(sector.Read(2, 30, 31));
  EXPECT(sector.model.Instant({1}, 12, 30).empty());
  EXPECT(!sector.model.Instant({1}, 31, 40).empty());
  // Not while the other one was seen, but before.
  EXPECT(sector.Read(2, 50, 51));
  EXPECT(!sector.model.Instant({1}, 35, 45).empty());
  EXPECT(sector.model.Instant({0}, 12, 40).empty());
  EXPECT(!sector.model.Instant({0}, 22, 40).empty());
}

TEST(sim_register, ASnapshotKeepsWhatTheVolumeMayHaveLostSince) {
  Pair pair;
  pair.Begin(0, 1, 10);
  pair.End(0, 10, 20);
  pair.model.Lost(40, 41);
  EXPECT(pair.Snapshot(0, 0, 30, 50));
  EXPECT(pair.Snapshot(1, 0, 30, 50));
  EXPECT(!pair.Snapshot(1, 7, 30, 50));
}

}  // namespace
}  // namespace ankole::sim
