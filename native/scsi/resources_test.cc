#include "scsi/logical_unit_testing.h"

// Thresholds of thin provisioning: what is free where the members lie, and who is told.
namespace ankole::scsi {
namespace {

Resources Of(uint64_t free_bytes, bool low) { return {100 * kGiB, free_bytes, 20 * kGiB, low}; }

bool IsReached(const Flight& flight) {
  return flight.Is(SenseKey::kUnitAttention, SenseCode::kThinProvisioningSoftThreshold);
}

TEST(scsi_resources, every_initiator_is_told_once_each_time_that_space_becomes_low) {
  Bench bench;
  bench.unit->SetResources(Of(50 * kGiB, false));
  EXPECT_GOOD(bench.Run(bench.a, MakeCdb({0x00})));
  bench.unit->SetResources(Of(19 * kGiB, true));
  bench.unit->SetResources(Of(18 * kGiB, true));
  EXPECT(IsReached(bench.Run(bench.a, MakeCdb({0x00}))));
  EXPECT_GOOD(bench.Run(bench.a, MakeCdb({0x00})));
  // As data of REQUEST SENSE, too.
  const Bytes sense = bench.Run(bench.b, MakeCdb({0x03, 0, 0, 0, 252})).data;
  EXPECT_EQ(At(sense, 2), 0x06);
  EXPECT_EQ(LoadBig16(&sense[12]), 0x3807);
  EXPECT_GOOD(bench.Run(bench.b, MakeCdb({0x00})));
  bench.unit->SetResources(Of(50 * kGiB, false));
  EXPECT_GOOD(bench.Run(bench.a, MakeCdb({0x00})));
  bench.unit->SetResources(Of(10 * kGiB, true));
  EXPECT(IsReached(bench.Run(bench.a, MakeCdb({0x00}))));
  EXPECT(IsReached(bench.Run(bench.b, MakeCdb({0x00}))));
}

TEST(scsi_resources, the_vital_data_page_tells_the_size_of_a_threshold_set) {
  Bench bench;
  const Bytes page = bench.Run(MakeCdb({0x12, 1, 0xb2, 0, 255})).data;
  EXPECT_EQ(At(page, 4), 11);
}

TEST(scsi_resources, the_mode_page_tells_where_the_threshold_lies) {
  Bench bench;
  const auto page = [&](int control) {
    return bench.Run(MakeCdb({0x1a, 0x08, control << 6 | 0x1c, 2, 255})).data;
  };
  const Bytes unknown = page(0);
  ASSERT(unknown.size() == 4 + 24);
  EXPECT_EQ(At(unknown, 4), 0x5c);
  EXPECT_EQ(At(unknown, 5), 0x02);
  EXPECT_EQ(LoadBig16(&unknown[6]), 20);
  EXPECT_EQ(At(unknown, 20), 0x00);  // not enabled
  bench.unit->SetResources(Of(50 * kGiB, false));
  const Bytes known = page(0);
  EXPECT_EQ(At(known, 8), 0x00);   // SITUA
  EXPECT_EQ(At(known, 20), 0x80);  // ENABLED, soft, by a decrease
  EXPECT_EQ(At(known, 21), 0x01);
  EXPECT_EQ(LoadBig32(&known[24]), 20U * 1024);  // MiB
  for (size_t i = 8; i < 28; ++i) EXPECT_EQ(At(page(1), i), 0);
  // Among all with their subpages, and not among those without.
  const Bytes all = bench.Run(MakeCdb({0x5a, 0x08, 0x3f, 0xff, 0, 0, 0, 0, 255})).data;
  ASSERT(all.size() == 8 + 12 + 20 + 12 + 24);
  EXPECT_EQ(At(all, 8 + 44), 0x5c);
  EXPECT_EQ(bench.Run(MakeCdb({0x1a, 0x08, 0x1c, 0xff, 255})).data.size(), size_t{4 + 24});
  EXPECT(bench.Run(MakeCdb({0x1a, 0, 0x1c, 0, 255})).Illegal(SenseCode::kInvalidFieldInCdb));
  EXPECT(bench.Run(MakeCdb({0x1a, 0, 0x3f, 2, 255})).Illegal(SenseCode::kInvalidFieldInCdb));
  // What it says may be said back, and nothing else.
  Bytes list = known;
  list[0] = list[2] = std::byte{0};
  const auto select = [&] { return MakeCdb({0x15, 0x10, 0, 0, static_cast<int>(list.size())}); };
  EXPECT_GOOD(bench.Run(select(), list));
  list[24] = std::byte{1};
  EXPECT(bench.Run(select(), list).Illegal(SenseCode::kInvalidFieldInParameterList));
}

TEST(scsi_resources, the_log_page_tells_what_is_free_and_taken) {
  Bench bench;
  const auto sense = [&](int page, int subpage = 0) -> Flight& {
    return bench.Run(MakeCdb({0x4d, 0, 0x40 | page, subpage, 0, 0, 0, 0, 255}));
  };
  const Bytes pages = sense(0).data;
  ASSERT(pages.size() == 6);
  EXPECT_EQ(LoadBig16(&pages[2]), 2);
  EXPECT_EQ(At(pages, 5), 0x0c);
  EXPECT_EQ(sense(0x0c).data.size(), size_t{4});
  bench.unit->SetResources(Of(50 * kGiB, false));
  const Bytes page = sense(0x0c).data;
  ASSERT(page.size() == 4 + 2 * 12);
  EXPECT_EQ(At(page, 0), 0x0c);
  EXPECT_EQ(LoadBig16(&page[2]), 24);
  EXPECT_EQ(LoadBig16(&page[4]), 1);
  EXPECT_EQ(At(page, 7), 8);
  EXPECT_EQ(LoadBig32(&page[8]), 50U * 1024);
  EXPECT_EQ(At(page, 12), 2);
  EXPECT_EQ(LoadBig16(&page[16]), 2);
  EXPECT_EQ(LoadBig32(&page[20]), 50U * 1024);
  EXPECT_EQ(bench.Run(MakeCdb({0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 4})).data.size(), size_t{4});
  EXPECT(sense(0x0d).Illegal(SenseCode::kInvalidFieldInCdb));
  EXPECT(sense(0x0c, 1).Illegal(SenseCode::kInvalidFieldInCdb));
  EXPECT(bench.Run(MakeCdb({0x4d, 0, 0x0c, 0, 0, 0, 0, 0, 255}))
             .Illegal(SenseCode::kInvalidFieldInCdb));
  EXPECT(bench.Run(MakeCdb({0x4d, 1, 0x4c, 0, 0, 0, 0, 0, 255}))
             .Illegal(SenseCode::kInvalidFieldInCdb));
}

}  // namespace
}  // namespace ankole::scsi
