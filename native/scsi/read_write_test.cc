#include "scsi/testing.h"

namespace ankole::scsi {
namespace {

TEST(ScsiReadWrite, all_sizes_of_cdb_move_the_same_blocks) {
  Bench bench;
  Bytes data(2 * 512);
  for (size_t i = 0; i < data.size(); ++i) data[i] = std::byte(i * 7 + i / 256);
  const Cdb writes[] = {MakeCdb({0x0a, 0, 0, 9, 2}), Cdb10(0x2a, 9, 2),
                        MakeCdb({0xaa, 0, 0, 0, 0, 9, 0, 0, 0, 2}), Cdb16(0x8a, 9, 2)};
  const Cdb reads[] = {MakeCdb({0x08, 0, 0, 9, 2}), Cdb10(0x28, 9, 2),
                       MakeCdb({0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 2}), Cdb16(0x88, 9, 2)};
  for (size_t i = 0; i < std::size(writes); ++i) {
    bench.Fill(8, 4, 0x11);
    EXPECT_GOOD(bench.Run(writes[i], data));
    EXPECT(bench.Medium(9, 2) == data);
    EXPECT(bench.Medium(8, 1) == Filled(512, 0x11));
    EXPECT(bench.Medium(11, 1) == Filled(512, 0x11));
    Flight& read = bench.Run(reads[i]);
    EXPECT_GOOD(read);
    EXPECT(read.data == data);
    EXPECT_EQ(read.task.wanted_bytes, 1024u);
  }
}

}  // namespace
}  // namespace ankole::scsi
