#include "nbd/handshake.h"

#include "nbd/server_testing.h"

namespace ankole::nbd {
namespace {

constexpr uint32_t kAck = 1;
constexpr uint32_t kUnsupported = 0x80000001;
constexpr uint32_t kInvalid = 0x80000003;
constexpr uint32_t kUnknown = 0x80000006;

TEST(nbd, go_by_name_and_by_default) {
  OnEachBench([](Bench& bench) {
    for (const std::string name : {"volume", ""}) {
      Client client(bench);
      ASSERT(client.Greet());
      client.SendOption(Option::kGo,
                        Client::InfoData(name, {Info::kName, Info::kDescription, Info::kBlockSize,
                                                static_cast<Info>(77)}));
      auto [type, data] = client.ReadOptionReply();
      ASSERT(type == 3 && data.size() == 12);
      EXPECT_EQ(LoadBig16(data.data()), 0);
      EXPECT_EQ(LoadBig64(data.data() + 2), Bench::kSizeBytes);
      EXPECT_EQ(LoadBig16(data.data() + 10), kFlagHasFlags | kFlagSendFlush | kFlagSendFua |
                                                 kFlagSendTrim | kFlagSendWriteZeroes |
                                                 kFlagCanMultiConn | kFlagSendFastZero);
      std::tie(type, data) = client.ReadOptionReply();
      ASSERT(type == 3 && data.size() == 14);
      EXPECT_EQ(LoadBig16(data.data()), 3);
      EXPECT_EQ(LoadBig32(data.data() + 2), 512u);
      EXPECT_EQ(LoadBig32(data.data() + 6), 4096u);
      EXPECT_EQ(LoadBig32(data.data() + 10), 32u << 20);
      std::tie(type, data) = client.ReadOptionReply();
      ASSERT(type == 3);
      EXPECT_EQ(data.substr(2), "volume");
      std::tie(type, data) = client.ReadOptionReply();
      ASSERT(type == 3);
      EXPECT_EQ(data.substr(2), "Ankole volume volume");
      EXPECT_EQ(client.ReadOptionReply().first, kAck);
      EXPECT_EQ(client.Write(0, RandomBytes(512, 1)), 0u);
    }
  });
}

TEST(nbd, tells_of_a_volume_that_is_read_only) {
  OnEachBench([](Bench& bench) {
    bench.On([&] { bench.device.write_protected = true; });
    Client client(bench);
    ASSERT(client.Greet());
    client.SendOption(Option::kGo, Client::InfoData("volume", {}));
    auto [type, data] = client.ReadOptionReply();
    ASSERT(type == 3 && data.size() == 12);
    EXPECT((LoadBig16(data.data() + 10) & kFlagReadOnly) != 0);
    Client other(bench);
    ASSERT(other.Greet());
    other.SendOption(Option::kExportName, "volume");
    std::byte reply[10];
    ASSERT(other.Read(reply, sizeof(reply)));
    EXPECT((LoadBig16(reply + 8) & kFlagReadOnly) != 0);
  });
}

TEST(nbd, export_name_with_and_without_zeroes) {
  OnEachBench([](Bench& bench) {
    for (const uint32_t flags :
         {uint32_t{kHandshakeFixedNewstyle}, uint32_t{kHandshakeFlags}, uint32_t{0}}) {
      Client client(bench);
      ASSERT(client.Greet(flags));
      client.SendOption(Option::kExportName, "volume");
      std::byte reply[134];
      ASSERT(client.Read(reply, (flags & kHandshakeNoZeroes) != 0 ? 10 : 134));
      EXPECT_EQ(LoadBig64(reply), Bench::kSizeBytes);
      EXPECT_EQ(client.ReadAt(0, 512).data.size(), 512u);
    }
  });
}

TEST(nbd, unknown_export_is_refused) {
  OnEachBench([](Bench& bench) {
    Client client(bench);
    ASSERT(client.Greet());
    for (const Option option : {Option::kInfo, Option::kGo}) {
      client.SendOption(option, Client::InfoData("another"));
      EXPECT_EQ(client.ReadOptionReply().first, kUnknown);
    }
    client.SendOption(Option::kStructuredReply);
    EXPECT_EQ(client.ReadOptionReply().first, kAck);
    client.SendOption(Option::kListMetaContext, Client::ContextData("another", {}));
    EXPECT_EQ(client.ReadOptionReply().first, kUnknown);
    EXPECT_EQ(bench.log.size(), 0u);
    // This one cannot be told.
    client.SendOption(Option::kExportName, "ano\nther");
    EXPECT(client.Ended());
    EXPECT(Eventually([&] { return bench.log.Count("asked for 'ano?ther'") == 1; }));
  });
}

// A snapshot, say: it has a size of its own, and is only read.
TEST(nbd, other_devices_are_exports_by_their_names) {
  OnEachBench([](Bench& bench) {
    const std::string name = "volume@before-upgrade";
    EXPECT_EQ(bench.Get<int>([&] { return bench.snapshot.clients + bench.device.clients; }), 0);
    {
      Client client(bench);
      ASSERT(client.Greet());
      client.SendOption(Option::kStructuredReply);
      EXPECT_EQ(client.ReadOptionReply().first, kAck);
      client.ExpectStructured();
      client.SendOption(Option::kSetMetaContext, Client::ContextData(name, {"base:allocation"}));
      EXPECT_EQ(client.ReadOptionReply().first, 4u);
      EXPECT_EQ(client.ReadOptionReply().first, kAck);
      client.SendOption(Option::kInfo, Client::InfoData(name));
      for (int i = 0; i < 2; ++i) EXPECT_EQ(client.ReadOptionReply().first, 3u);
      EXPECT_EQ(client.ReadOptionReply().first, kAck);
      EXPECT_EQ(bench.Get<int>([&] { return bench.snapshot.clients; }), 0);
      client.SendOption(Option::kGo, Client::InfoData(name));
      const auto [type, data] = client.ReadOptionReply();
      ASSERT(type == 3 && data.size() == 12);
      EXPECT_EQ(LoadBig64(data.data() + 2), Bench::kSnapshotBytes);
      EXPECT_EQ(LoadBig16(data.data() + 10),
                kFlagHasFlags | kFlagReadOnly | kFlagSendFlush | kFlagCanMultiConn | kFlagSendDf);
      EXPECT_EQ(client.ReadOptionReply().first, 3u);
      EXPECT_EQ(client.ReadOptionReply().first, kAck);
      EXPECT_EQ(bench.Get<int>([&] { return bench.snapshot.clients; }), 1);
      EXPECT(client.ReadAt(4096, 8192).data == Bytes(8192, std::byte{7}));
      EXPECT_EQ(client.ReadAt(Bench::kSnapshotBytes, 4096).error, 22u);
      constexpr uint32_t kPermission = 1;
      for (const uint32_t length : {4096u, 65536u}) {
        EXPECT_EQ(client.Write(0, RandomBytes(length, 1)), kPermission);
      }
      EXPECT_EQ(client.Do(Command::kTrim, 0, 4096).error, kPermission);
      EXPECT_EQ(client.Do(Command::kWriteZeroes, 0, 4096).error, kPermission);
      EXPECT_EQ(client.Do(Command::kFlush, 0, 0).error, 0u);
      EXPECT(client.ReadAt(0, 4096).data == Bytes(4096, std::byte{7}));
      Client other(bench);
      ASSERT(other.Go(true));
      EXPECT_EQ(other.Write(0, RandomBytes(4096, 2)), 0u);
      EXPECT_EQ(bench.Get<int>([&] { return bench.device.clients; }), 1);
    }
    EXPECT(Eventually([&] {
      return bench.Get<int>([&] { return bench.snapshot.clients + bench.device.clients; }) == 0;
    }));
    Client old(bench);
    ASSERT(old.Greet());
    old.SendOption(Option::kExportName, name);
    std::byte reply[10];
    ASSERT(old.Read(reply, sizeof(reply)));
    EXPECT_EQ(LoadBig64(reply), Bench::kSnapshotBytes);
    EXPECT(old.ReadAt(0, 512).data == Bytes(512, std::byte{7}));
  });
}

TEST(nbd, list_info_abort_and_unknown_options) {
  OnEachBench([](Bench& bench) {
    Client client(bench);
    ASSERT(client.Greet());
    client.SendOption(Option::kList);
    const auto [type, data] = client.ReadOptionReply();
    EXPECT_EQ(type, 2u);
    EXPECT_EQ(data.substr(4), "volume");
    EXPECT_EQ(client.ReadOptionReply().first, kAck);
    client.SendOption(Option::kList, "x");
    EXPECT_EQ(client.ReadOptionReply().first, kInvalid);
    client.SendOption(Option::kInfo, Client::InfoData(""));
    EXPECT_EQ(client.ReadOptionReply().first, 3u);
    EXPECT_EQ(client.ReadOptionReply().first, 3u);
    EXPECT_EQ(client.ReadOptionReply().first, kAck);
    for (const uint32_t option : {4u, 5u, 11u, 12u, 99u}) {
      client.SendOption(static_cast<Option>(option), "some data");
      EXPECT_EQ(client.ReadOptionReply().first, kUnsupported);
    }
    client.SendOption(Option::kGo, "\xff\xff\xff\xff");
    EXPECT_EQ(client.ReadOptionReply().first, kInvalid);
    client.SendOption(Option::kStructuredReply, "x");
    EXPECT_EQ(client.ReadOptionReply().first, kInvalid);
    client.SendOption(Option::kAbort);
    EXPECT_EQ(client.ReadOptionReply().first, kAck);
    EXPECT(client.Ended());
    EXPECT(Eventually([&] { return bench.Connections() == 0; }));
    EXPECT_EQ(bench.log.size(), 0u);
  });
}

TEST(nbd, meta_contexts) {
  OnEachBench([](Bench& bench) {
    Client client(bench);
    ASSERT(client.Greet());
    client.SendOption(Option::kSetMetaContext, Client::ContextData("volume", {"base:allocation"}));
    EXPECT_EQ(client.ReadOptionReply().first, kInvalid);  // structured replies come first
    client.SendOption(Option::kStructuredReply);
    EXPECT_EQ(client.ReadOptionReply().first, kAck);
    const auto replies = [&](Option option, const std::vector<std::string>& queries) {
      client.SendOption(option, Client::ContextData("volume", queries));
      int contexts = 0;
      while (client.ReadOptionReply().first == 4) ++contexts;
      return contexts;
    };
    EXPECT_EQ(replies(Option::kListMetaContext, {}), 1);
    EXPECT_EQ(replies(Option::kListMetaContext, {"base:"}), 1);
    EXPECT_EQ(replies(Option::kListMetaContext, {"base:", "base:allocation", "x-y:z"}), 1);
    EXPECT_EQ(replies(Option::kListMetaContext, {"qemu:"}), 0);
    EXPECT_EQ(replies(Option::kSetMetaContext, {"base:allocation"}), 1);
    EXPECT_EQ(replies(Option::kSetMetaContext, {"base:"}), 0);
    EXPECT_EQ(replies(Option::kSetMetaContext, {}), 0);
    client.SendOption(Option::kSetMetaContext,
                      Client::ContextData("volume", {"base:allocation"}) + "x");
    EXPECT_EQ(client.ReadOptionReply().first, kInvalid);
    // The last SET selected nothing.
    client.SendOption(Option::kExportName, "");
    std::byte reply[10];
    ASSERT(client.Read(reply, sizeof(reply)));
    EXPECT((LoadBig16(reply + 8) & kFlagSendDf) != 0);
    client.ExpectStructured();
    EXPECT_EQ(client.Do(Command::kBlockStatus, 0, 4096).error, 22u);
  });
}

TEST(nbd, options_and_requests_may_be_pipelined) {
  OnEachBench([](Bench& bench) {
    Client client(bench);
    ASSERT(client.Greet());
    // Far more than the replies that are buffered.
    constexpr int kLists = 200;
    for (int i = 0; i < kLists; ++i) client.SendOption(Option::kList);
    client.SendOption(Option::kGo, Client::InfoData("volume"));
    client.Ask(Command::kRead, 5, 0, 4096);
    for (int i = 0; i < kLists; ++i) {
      ASSERT(client.ReadOptionReply().first == 2);
      ASSERT(client.ReadOptionReply().first == kAck);
    }
    EXPECT_EQ(client.ReadOptionReply().first, 3u);
    EXPECT_EQ(client.ReadOptionReply().first, 3u);
    EXPECT_EQ(client.ReadOptionReply().first, kAck);
    EXPECT_EQ(client.Await().cookie, 5u);
  });
}

TEST(nbd, malformed_handshakes_close_that_connection) {
  OnEachBench([](Bench& bench) {
    Client witness(bench);
    ASSERT(witness.Go(true));
    size_t lines = 0;
    const auto closed = [&](Client& client, const std::string& cause) {
      EXPECT(client.Ended());
      ++lines;
      EXPECT(Eventually([&] { return bench.log.size() == lines; }));
      EXPECT(bench.log.Count(cause) >= 1);
    };
    {
      Client client(bench);
      client.Greet(1 << 5);
      closed(client, "handshake flags that were not offered");
    }
    {
      Client client(bench);
      client.Greet();
      client.Send("GET / HTTP/1.1\r\n\r\n", 18);
      closed(client, "not an NBD option");
    }
    {
      Client client(bench);
      client.Greet();
      std::byte header[kOptionHeaderBytes];
      Encoder encoder(header);
      encoder.U64(kOptionMagic);
      encoder.U32(7);
      encoder.U32(0xffffffff);
      client.Send(header, sizeof(header));
      closed(client, "an option of 4294967295 bytes");
    }
    {
      Client client(bench);
      client.Greet();
      client.Send("IHAVE", 5);
      client.FinishSending();
      closed(client, "in the middle of a request");
    }
    {
      Client client(bench);  // says nothing and goes: no news
      client.Close();
    }
    EXPECT(Eventually([&] { return bench.Connections() == 1; }));
    EXPECT_EQ(bench.log.size(), lines);
    EXPECT_EQ(witness.ReadAt(0, 4096).error, 0u);
  });
}

TEST(nbd, replies_to_one_option_fit_their_room) {
  const Export volume{std::string(kExportNameBytesMax, 'v'), kVolumeBytesMax, false};
  for (uint32_t option = 0; option < 16; ++option) {
    for (const std::string& data :
         {std::string(), volume.name, Client::InfoData("", {Info::kName, Info::kDescription}),
          Client::ContextData("", {"base:"}), Client::ContextData("", {"base:allocation"})}) {
      std::byte room[2 * kOptionRepliesBytesMax];
      Negotiated negotiated;
      negotiated.structured_replies = true;
      Encoder encoder(room);
      std::string cause;
      AnswerOption(static_cast<Option>(option),
                   {reinterpret_cast<const std::byte*>(data.data()), data.size()}, volume,
                   &negotiated, &encoder, &cause);
      EXPECT(encoder.bytes() <= kOptionRepliesBytesMax);
    }
  }
}

}  // namespace
}  // namespace ankole::nbd
