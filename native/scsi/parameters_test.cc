#include "scsi/logical_unit_testing.h"

namespace ankole::scsi {
namespace {

const std::array<uint8_t, 8> kOtherLun = {0, 1};

std::string Text(const Bytes& bytes, size_t at, size_t count) {
  return {reinterpret_cast<const char*>(&bytes.at(at)), count};
}
Cdb VitalData(uint8_t page, uint16_t bytes = 255) {
  Cdb cdb = MakeCdb({0x12, 1, page});
  StoreBig16(&cdb[3], bytes);
  return cdb;
}

TEST(scsi_parameters, standard_inquiry_data) {
  Bench bench;
  Flight& inquiry = bench.Run(MakeCdb({0x12, 0, 0, 0, 255}));
  EXPECT_GOOD(inquiry);
  ASSERT(inquiry.data.size() == 96);
  EXPECT_EQ(At(inquiry.data, 0), 0);
  EXPECT_EQ(At(inquiry.data, 2), 6);
  EXPECT_EQ(At(inquiry.data, 4), 91);
  EXPECT_EQ(At(inquiry.data, 5), 0x08);
  EXPECT(Text(inquiry.data, 8, 8) == "ANKOLE  ");
  // Cut at the allocation length, and counted so.
  Flight& cut = bench.Run(MakeCdb({0x12, 0, 0, 0, 36}));
  EXPECT_EQ(cut.data.size(), 36u);
  EXPECT_EQ(cut.task.wanted_bytes, 36u);
  EXPECT_GOOD(bench.Run(MakeCdb({0x12, 0, 0, 0, 0})));
}

TEST(scsi_parameters, vital_product_data) {
  Bench bench;
  Flight& pages = bench.Run(VitalData(0x00));
  ASSERT(pages.data.size() == 10);
  EXPECT_EQ(LoadBig16(&pages.data[2]), 6);
  for (size_t i = 4; i < 10; ++i) {
    Flight& page = bench.Run(VitalData(At(pages.data, i)));
    EXPECT_GOOD(page);
    EXPECT_EQ(At(page.data, 1), At(pages.data, i));
    EXPECT_EQ(LoadBig16(&page.data[2]) + 4u, page.data.size());
  }
  EXPECT(bench.Run(VitalData(0x81)).Illegal(SenseCode::kInvalidFieldInCdb));
  EXPECT(Text(bench.Run(VitalData(0x80)).data, 4, 8) == "serial-1");
  const Bytes limits = bench.Run(VitalData(0xb0)).data;
  ASSERT(limits.size() == 64);
  EXPECT_EQ(At(limits, 4), 1);
  EXPECT_EQ(At(limits, 5), kCompareBlocksMax);
  EXPECT_EQ(LoadBig32(&limits[8]), kTransferBlocksMax);
  EXPECT_EQ(LoadBig32(&limits[24]), kUnmapDescriptorsMax);
  const Bytes provisioning = bench.Run(VitalData(0xb2)).data;
  EXPECT_EQ(At(provisioning, 5), 0xe4);
  EXPECT_EQ(At(provisioning, 6), 2);
}

TEST(scsi_parameters, designators_are_of_the_serial_number) {
  Bench bench;
  const Bytes first = bench.Run(VitalData(0x83, 1000)).data;
  // NAA 3h, of 8 bytes.
  EXPECT_EQ(At(first, 5), 0x03);
  EXPECT_EQ(At(first, 7), 8);
  EXPECT_EQ(At(first, 8) >> 4, 3);
  EXPECT(Text(first, 20, 16) == "ANKOLE  serial-1");
  const std::string names(reinterpret_cast<const char*>(first.data()), first.size());
  EXPECT(names.find("iqn.2024-01.test:volume,t,0x0001") != std::string::npos);
  EXPECT_EQ(first.size() % 4, 0u);
  bench.Restart();
  EXPECT(bench.Run(VitalData(0x83, 1000)).data == first);
}

TEST(scsi_parameters, capacity) {
  Bench bench;
  Flight& ten = bench.Run(MakeCdb({0x25}));
  ASSERT(ten.data.size() == 8);
  EXPECT_EQ(LoadBig32(&ten.data[0]), Bench::kBlocks - 1);
  EXPECT_EQ(LoadBig32(&ten.data[4]), 512u);
  Flight& sixteen = bench.Run(Cdb16(0x9e, 0, 255, 0x10));
  ASSERT(sixteen.data.size() == 32);
  EXPECT_EQ(LoadBig64(&sixteen.data[0]), Bench::kBlocks - 1);
  EXPECT_EQ(At(sixteen.data, 13), 3);
  EXPECT_EQ(At(sixteen.data, 14), 0xc0);
}

TEST(scsi_parameters, a_physical_block_may_be_one_logical_block) {
  Bench bench;
  const Cdb capacity = Cdb16(0x9e, 0, 255, 0x10);
  const Bytes of_4096 = bench.Run(capacity).data;
  const Bytes limits_of_4096 = bench.Run(VitalData(0xb0)).data;
  bench.identity.physical_block_bytes = 512;
  bench.Restart();
  Bytes of_512 = bench.Run(capacity).data;
  ASSERT(of_512.size() == 32);
  EXPECT_EQ(At(of_512, 13), 0);
  // Nothing else differs: neither block length and alignment, nor the hints what is best.
  of_512[13] = std::byte{3};
  EXPECT(of_512 == of_4096);
  const Bytes limits = bench.Run(VitalData(0xb0)).data;
  EXPECT(limits == limits_of_4096);
  ASSERT(limits.size() == 64);
  EXPECT_EQ(LoadBig16(&limits[6]), 8);
  EXPECT_EQ(LoadBig32(&limits[28]), 8u);
}

TEST(scsi_parameters, another_lun_is_not_there) {
  Bench bench;
  const How elsewhere = {.lun = kOtherLun};
  Flight& inquiry = bench.Run(bench.a, MakeCdb({0x12, 0, 0, 0, 96}), elsewhere);
  EXPECT_GOOD(inquiry);
  EXPECT_EQ(At(inquiry.data, 0), 0x7f);
  Flight& luns = bench.Run(bench.a, MakeCdb({0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16}), elsewhere);
  EXPECT_GOOD(luns);
  EXPECT_EQ(LoadBig32(&luns.data[0]), 8u);
  Flight& sense = bench.Run(bench.a, MakeCdb({0x03, 0, 0, 0, 18}), elsewhere);
  EXPECT_GOOD(sense);
  EXPECT_EQ(LoadBig16(&sense.data[12]), 0x2500);
  for (const Cdb& cdb : {MakeCdb({0x00}), Cdb10(0x28, 0, 1), MakeCdb({0xff})}) {
    EXPECT(bench.Run(bench.a, cdb, elsewhere).Illegal(SenseCode::kLogicalUnitNotSupported));
  }
  // LUN 0 by flat space addressing is this one.
  EXPECT_GOOD(bench.Run(bench.a, MakeCdb({0x00}), {.lun = {0x40, 0}}));
  EXPECT(bench.Run(bench.a, MakeCdb({0x00}), {.lun = {0xc1, 1}})
             .Illegal(SenseCode::kLogicalUnitNotSupported));
}

// --- mode pages ----------------------------------------------------------------------------------

TEST(scsi_parameters, mode_sense) {
  Bench bench;
  const Bytes six = bench.Run(MakeCdb({0x1a, 0, 0x3f, 0, 255})).data;
  ASSERT(six.size() == 4 + 8 + 12 + 20 + 12);
  EXPECT_EQ(At(six, 0), six.size() - 1);
  EXPECT_EQ(At(six, 2), 0x10);
  EXPECT_EQ(LoadBig32(&six[4]), Bench::kBlocks);
  EXPECT_EQ(At(six, 12), 0x01);
  EXPECT_EQ(At(six, 19), 0x80);  // LBPERE
  EXPECT_EQ(At(six, 24), 0x08);
  EXPECT_EQ(At(six, 26), 0x04);
  EXPECT_EQ(At(six, 44), 0x0a);
  const Bytes ten = bench.Run(MakeCdb({0x5a, 0x18, 0x0a, 0, 0, 0, 0, 0, 255})).data;
  ASSERT(ten.size() == 8 + 12);
  EXPECT_EQ(LoadBig16(&ten[0]), ten.size() - 2);
  const Bytes long_form = bench.Run(MakeCdb({0x5a, 0x10, 0x08, 0, 0, 0, 0, 0, 255})).data;
  ASSERT(long_form.size() == 8 + 16 + 20);
  EXPECT_EQ(LoadBig64(&long_form[8]), Bench::kBlocks);
  // What can be changed: D_SENSE and SWP.
  const Bytes changeable = bench.Run(MakeCdb({0x1a, 0x08, 0x7f, 0, 255})).data;
  EXPECT_EQ(At(changeable, 18), 0x00);
  EXPECT_EQ(At(changeable, 38), 0x04);
  EXPECT_EQ(At(changeable, 39), 0x00);
  EXPECT_EQ(At(changeable, 40), 0x08);
  EXPECT(bench.Run(MakeCdb({0x1a, 0, 0xff, 0, 255})).Illegal(SenseCode::kSavingNotSupported));
  EXPECT(bench.Run(MakeCdb({0x1a, 0, 0x02, 0, 255})).Illegal(SenseCode::kInvalidFieldInCdb));
  EXPECT(bench.Run(MakeCdb({0x1a, 0, 0x0a, 1, 255})).Illegal(SenseCode::kInvalidFieldInCdb));
}

// The control page as it is, for MODE SELECT (6), without block descriptors.
Bytes ControlList(Bench& bench) {
  Bytes list = bench.Run(MakeCdb({0x1a, 0x08, 0x0a, 0, 255})).data;
  list[0] = list[2] = std::byte{0};
  return list;
}
Flight& Select(Bench& bench, const Bytes& list) {
  return bench.Run(MakeCdb({0x15, 0x10, 0, 0, static_cast<int>(list.size())}), list);
}

TEST(scsi_parameters, software_write_protection) {
  Bench bench;
  Bytes list = ControlList(bench);
  list[8] |= std::byte{0x08};
  EXPECT_GOOD(Select(bench, list));
  const auto protects = [&](const Cdb& cdb) {
    return bench.Run(bench.a, cdb, {.out = Filled(2048, 0)})
        .Is(SenseKey::kDataProtect, SenseCode::kSoftwareWriteProtected);
  };
  EXPECT(protects(Cdb10(0x2a, 0, 1)));
  EXPECT(protects(Cdb10(0x41, 0, 1)));
  EXPECT(protects(Cdb16(0x8b, 0, 1)));
  EXPECT(protects(MakeCdb({0x83})));
  EXPECT(protects(MakeCdb({0x42, 0, 0, 0, 0, 0, 0, 0, 24})));
  EXPECT_GOOD(bench.Run(Cdb10(0x28, 0, 1)));
  EXPECT_EQ(At(bench.Run(MakeCdb({0x1a, 0, 0x0a, 0, 255})).data, 2), 0x90);
  list[8] = std::byte{0};
  EXPECT(bench.Run(bench.b, MakeCdb({0x00}))
             .Is(SenseKey::kUnitAttention, SenseCode::kModeParametersChanged));
  EXPECT_GOOD(Select(bench, list));
  EXPECT_GOOD(bench.Run(Cdb10(0x2a, 0, 1), Filled(512, 1)));
}

TEST(scsi_parameters, a_medium_that_is_write_protected) {
  Bench bench;
  bench.device.write_protected = true;
  const auto protects = [&](const Cdb& cdb) {
    return bench.Run(bench.a, cdb, {.out = Filled(2048, 0)})
        .Is(SenseKey::kDataProtect, SenseCode::kWriteProtected);
  };
  EXPECT(protects(Cdb10(0x2a, 0, 1)));
  EXPECT(protects(Cdb10(0x41, 0, 1)));
  EXPECT(protects(MakeCdb({0x42, 0, 0, 0, 0, 0, 0, 0, 24})));
  EXPECT_GOOD(bench.Run(Cdb10(0x28, 0, 1)));
  EXPECT_EQ(At(bench.Run(MakeCdb({0x1a, 0, 0x0a, 0, 255})).data, 2), 0x90);
  // SWP is another thing: it is as it was, and lets nobody write.
  Bytes list = ControlList(bench);
  list[8] = std::byte{0};
  EXPECT_GOOD(Select(bench, list));
  EXPECT(protects(Cdb10(0x2a, 0, 1)));
}

TEST(scsi_parameters, descriptor_sense) {
  Bench bench;
  EXPECT(!bench.Run(MakeCdb({0xff})).task.sense.descriptor);
  Bytes list = ControlList(bench);
  list[6] |= std::byte{0x04};
  EXPECT_GOOD(Select(bench, list));
  EXPECT(bench.Run(MakeCdb({0xff})).task.sense.descriptor);
  EXPECT(bench.Run(bench.b, MakeCdb({0x00})).task.sense.descriptor);
  // Nothing has changed, so nobody is told.
  EXPECT_GOOD(Select(bench, list));
  EXPECT_GOOD(bench.Run(bench.b, MakeCdb({0x00})));
}

TEST(scsi_parameters, mode_select_takes_all_of_a_list_or_nothing) {
  Bench bench;
  const Bytes good = ControlList(bench);
  struct Row {
    size_t at;
    int value;
    SenseCode code;
    uint16_t field;
  };
  const Row rows[] = {
      {3, 7, SenseCode::kInvalidFieldInParameterList, 3},  // length of the block descriptor
      {4, 0x0c, SenseCode::kInvalidFieldInParameterList, 4},
      {4, 0x4a, SenseCode::kInvalidFieldInParameterList, 4},  // SPF
      {5, 0x0b, SenseCode::kInvalidFieldInParameterList, 5},
      {7, 0x00, SenseCode::kInvalidFieldInParameterList, 7},  // QUEUE ALGORITHM MODIFIER
      {9, 0x40, SenseCode::kInvalidFieldInParameterList, 9},  // TAS
  };
  for (const Row& row : rows) {
    Bytes bad = good;
    bad[6] |= std::byte{0x04};
    bad[row.at] = std::byte(row.value);
    Flight& select = Select(bench, bad);
    EXPECT(select.Illegal(row.code));
    ASSERT(select.task.sense.field.has_value());
    EXPECT_EQ(select.task.sense.field->byte, row.field);
  }
  Bytes half = good;
  half[6] |= std::byte{0x04};
  half.resize(10);
  EXPECT(Select(bench, half).Illegal(SenseCode::kParameterListLengthError));
  EXPECT(Select(bench, Filled(3, 0)).Illegal(SenseCode::kParameterListLengthError));
  EXPECT(bench.Run(MakeCdb({0x15, 0x10, 0, 0, 16}), Filled(4, 0))
             .Illegal(SenseCode::kParameterListLengthError));
  EXPECT_GOOD(bench.Run(MakeCdb({0x15, 0x10, 0, 0, 0})));
  EXPECT(!bench.Run(MakeCdb({0xff})).task.sense.descriptor);
  // The write cache stays what it is.
  Bytes caching = bench.Run(MakeCdb({0x1a, 0x08, 0x08, 0, 255})).data;
  caching[0] = caching[2] = std::byte{0};
  EXPECT_GOOD(Select(bench, caching));
  caching[6] = std::byte{0};
  EXPECT(Select(bench, caching).Illegal(SenseCode::kInvalidFieldInParameterList));
}

TEST(scsi_parameters, mode_select_takes_the_block_descriptor_that_there_is) {
  Bench bench;
  Bytes list = bench.Run(MakeCdb({0x1a, 0, 0x0a, 0, 255})).data;
  list[0] = list[2] = std::byte{0};
  EXPECT_GOOD(Select(bench, list));
  for (const uint32_t blocks : {0u, UINT32_MAX}) {
    StoreBig32(&list[4], blocks);
    EXPECT_GOOD(Select(bench, list));
  }
  StoreBig32(&list[4], 1234);
  EXPECT(Select(bench, list).Illegal(SenseCode::kInvalidFieldInParameterList));
  StoreBig32(&list[4], 0);
  StoreBig32(&list[8], 4096);
  EXPECT(Select(bench, list).Illegal(SenseCode::kInvalidFieldInParameterList));
}

// --- reports -------------------------------------------------------------------------------------

TEST(scsi_parameters, supported_operation_codes) {
  Bench bench;
  const Bytes all = bench.Run(MakeCdb({0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0xff, 0xff})).data;
  ASSERT(all.size() == 4 + SupportedCommands().size() * 8);
  EXPECT_EQ(LoadBig32(all.data()), all.size() - 4);
  const Bytes timed = bench.Run(MakeCdb({0xa3, 0x0c, 0x80, 0, 0, 0, 0, 0, 0xff, 0xff})).data;
  ASSERT(timed.size() == 4 + SupportedCommands().size() * 20);
  EXPECT_EQ(At(timed, 9), 0x02);
  EXPECT_EQ(LoadBig16(&timed[12]), 10);

  const auto one = [&](int options, int operation, int action) {
    return &bench.Run(MakeCdb({0xa3, 0x0c, options, operation, 0, action, 0, 0, 0xff, 0xff}));
  };
  const Flight* read = one(1, 0x28, 0);
  ASSERT(read->good() && read->data.size() == 4 + 10);
  EXPECT_EQ(At(read->data, 1), 0x03);
  EXPECT_EQ(At(read->data, 4), 0x28);
  EXPECT_EQ(At(read->data, 5) & 0x18, 0x18);
  const Flight* capacity = one(0x82, 0x9e, 0x10);
  ASSERT(capacity->good() && capacity->data.size() == 4 + 16 + 12);
  EXPECT_EQ(At(capacity->data, 1), 0x83);
  EXPECT(one(1, 0x9e, 0x10)->Illegal(SenseCode::kInvalidFieldInCdb));
  EXPECT(one(2, 0x28, 0)->Illegal(SenseCode::kInvalidFieldInCdb));
  for (const Flight* none : {one(1, 0x85, 0), one(2, 0x9e, 0x13), one(3, 0x83, 1)}) {
    ASSERT(none->good() && none->data.size() == 4);
    EXPECT_EQ(At(none->data, 1), 0x01);
  }
  // EXTENDED COPY; of RECEIVE COPY RESULTS two service actions.
  EXPECT(one(2, 0x83, 0)->data.size() == 20);
  for (const int action : {0, 1, 3, 4}) {
    EXPECT_EQ(At(one(2, 0x84, action)->data, 1), action == 0 || action == 3 ? 0x03 : 0x01);
  }
  EXPECT(one(3, 0x28, 0)->data.size() == 14);
  EXPECT(one(3, 0x9e, 0x12)->data.size() == 20);
}

TEST(scsi_parameters, supported_task_management) {
  Bench bench;
  const Bytes brief = bench.Run(MakeCdb({0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 255})).data;
  ASSERT(brief.size() == 4);
  EXPECT_EQ(At(brief, 0), 0xda);
  EXPECT_EQ(bench.Run(MakeCdb({0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 255})).data.size(), 16u);
}

TEST(scsi_parameters, there_are_no_defects) {
  Bench bench;
  const Bytes ten = bench.Run(MakeCdb({0x37, 0, 0x1d, 0, 0, 0, 0, 0, 255})).data;
  ASSERT(ten.size() == 4);
  EXPECT_EQ(At(ten, 1), 0x1d);
  EXPECT_EQ(LoadBig16(&ten[2]), 0);
  EXPECT_EQ(bench.Run(MakeCdb({0xb7, 0x0d, 0, 0, 0, 0, 0, 0, 0, 255})).data.size(), 8u);
}

}  // namespace
}  // namespace ankole::scsi
