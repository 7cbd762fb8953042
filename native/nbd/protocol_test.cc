#include "nbd/protocol.h"

#include "nbd/connection.h"
#include "nbd/server_testing.h"

namespace ankole::nbd {
namespace {

constexpr uint64_t kSize = 1 * kMiB;
constexpr Negotiated kAll = {true, true, true};

Request A(Command command, uint64_t offset, uint32_t length, uint16_t flags = 0) {
  return {7, offset, length, flags, command};
}

TEST(nbd_protocol, requests_are_validated) {
  const auto check = [](const Request& request) { return Validate(request, kAll, kSize, false); };
  for (const Command command : {Command::kRead, Command::kWrite, Command::kTrim,
                                Command::kWriteZeroes, Command::kBlockStatus}) {
    const Error beyond = command == Command::kWrite || command == Command::kWriteZeroes
                             ? Error::kNoSpace
                             : Error::kInvalid;
    EXPECT_EQ(check(A(command, 0, 512)), Error::kNone);
    EXPECT_EQ(check(A(command, kSize - 512, 512)), Error::kNone);
    EXPECT_EQ(check(A(command, 0, 512, kCommandFua)), Error::kNone);
    EXPECT_EQ(check(A(command, 0, kSize)), Error::kNone);
    EXPECT_EQ(check(A(command, kSize, 512)), beyond);
    EXPECT_EQ(check(A(command, kSize - 512, 1024)), beyond);
    EXPECT_EQ(check(A(command, UINT64_MAX - 511, 512)), beyond);
    EXPECT_EQ(check(A(command, 0, 0)), Error::kInvalid);
    EXPECT_EQ(check(A(command, 1, 512)), Error::kInvalid);
    EXPECT_EQ(check(A(command, 512, 513)), Error::kInvalid);
    EXPECT_EQ(check(A(command, 0, 512, 1 << 9)), Error::kInvalid);
  }
  // Each flag on the one command that has it.
  const auto allowed = [&](uint16_t flag, Command on) {
    for (const Command command : {Command::kRead, Command::kWrite, Command::kTrim,
                                  Command::kWriteZeroes, Command::kBlockStatus}) {
      EXPECT_EQ(check(A(command, 0, 512, flag)), command == on ? Error::kNone : Error::kInvalid);
    }
    EXPECT_EQ(check(A(Command::kFlush, 0, 0, flag)), Error::kInvalid);
  };
  allowed(kCommandDf, Command::kRead);
  allowed(kCommandNoHole, Command::kWriteZeroes);
  allowed(kCommandFastZero, Command::kWriteZeroes);
  allowed(kCommandReqOne, Command::kBlockStatus);
  EXPECT_EQ(check(A(Command::kFlush, 0, 0)), Error::kNone);
  EXPECT_EQ(check(A(Command::kFlush, 0, 0, kCommandFua)), Error::kNone);
  EXPECT_EQ(check(A(Command::kFlush, 512, 0)), Error::kInvalid);
  EXPECT_EQ(check(A(Command::kFlush, 0, 512)), Error::kInvalid);
  for (const int command : {5, 8, 99, 0xffff}) {
    EXPECT_EQ(check(A(static_cast<Command>(command), 0, 512)), Error::kInvalid);
  }
}

TEST(nbd_protocol, validation_follows_the_handshake) {
  const Negotiated simple = {};
  EXPECT_EQ(Validate(A(Command::kRead, 0, 512, kCommandDf), simple, kSize, false), Error::kInvalid);
  EXPECT_EQ(Validate(A(Command::kBlockStatus, 0, 512), simple, kSize, false), Error::kInvalid);
  const uint64_t large = 1 * kGiB;
  const Request longest = A(Command::kRead, 0, kRequestBytesMax);
  EXPECT_EQ(Validate(longest, simple, large, false), Error::kNone);
  EXPECT_EQ(Validate(A(Command::kRead, 0, kRequestBytesMax + 512), simple, large, false),
            Error::kInvalid);
  EXPECT_EQ(Validate(A(Command::kRead, 0, kUnfragmentedBytesMax, kCommandDf), kAll, large, false),
            Error::kNone);
  EXPECT_EQ(
      Validate(A(Command::kRead, 0, kUnfragmentedBytesMax + 512, kCommandDf), kAll, large, false),
      Error::kOverflow);
  // What carries no data may be as long as the volume.
  EXPECT_EQ(Validate(A(Command::kTrim, 0, 512 * kMiB), kAll, large, false), Error::kNone);
  EXPECT_EQ(Validate(A(Command::kWriteZeroes, 0, 512 * kMiB), kAll, large, false), Error::kNone);
}

TEST(nbd_protocol, requests_decode) {
  const Bytes bytes =
      Client::RequestHeader(Command::kTrim, 0x1122334455667788, 0x99aabbcc00, 0x10000, 0x0102);
  const std::optional<Request> request = DecodeRequest(bytes.data());
  ASSERT(request.has_value());
  EXPECT_EQ(request->command, Command::kTrim);
  EXPECT_EQ(request->cookie, 0x1122334455667788u);
  EXPECT_EQ(request->offset_bytes, 0x99aabbcc00u);
  EXPECT_EQ(request->length_bytes, 0x10000u);
  EXPECT_EQ(request->flags, 0x0102);
  Bytes broken = bytes;
  broken[3] ^= std::byte{1};
  EXPECT(!DecodeRequest(broken.data()).has_value());
}

TEST(nbd_protocol, option_lengths_that_contradict_each_other) {
  const auto span = [](const std::string& data) {
    return std::span<const std::byte>(reinterpret_cast<const std::byte*>(data.data()), data.size());
  };
  const std::string info = Client::InfoData("volume", {Info::kName, Info::kBlockSize});
  ASSERT(DecodeInfoOption(span(info)).has_value());
  EXPECT(DecodeInfoOption(span(info))->wants_name);
  EXPECT(!DecodeInfoOption(span(info))->wants_description);
  const std::string contexts = Client::ContextData("volume", {"base:", "base:allocation"});
  ASSERT(DecodeMetaContextOption(span(contexts)).has_value());
  EXPECT(DecodeMetaContextOption(span(contexts))->selects_allocation);
  // Cut anywhere, or with something left over.
  for (size_t length = 0; length < info.size(); ++length) {
    EXPECT(!DecodeInfoOption(span(info.substr(0, length))).has_value());
  }
  for (size_t length = 0; length < contexts.size(); ++length) {
    EXPECT(!DecodeMetaContextOption(span(contexts.substr(0, length))).has_value());
  }
  EXPECT(!DecodeInfoOption(span(info + "x")).has_value());
  EXPECT(!DecodeMetaContextOption(span(contexts + "x")).has_value());
  EXPECT(!DecodeInfoOption(span("\xff\xff\xff\xff")).has_value());
}

TEST(nbd_protocol, errors_of_the_device) {
  EXPECT_EQ(ErrorOf(ErrorCode::kOk), Error::kNone);
  EXPECT_EQ(ErrorOf(ErrorCode::kNoSpace), Error::kNoSpace);
  EXPECT_EQ(ErrorOf(ErrorCode::kIoError), Error::kIo);
  EXPECT_EQ(ErrorOf(ErrorCode::kCorrupt), Error::kIo);
  EXPECT_EQ(ErrorOf(ErrorCode::kReadOnly), Error::kPermission);
  EXPECT_EQ(ErrorOf(ErrorCode::kUnavailable), Error::kShutdown);
  EXPECT_EQ(ErrorOf(ErrorCode::kFenced), Error::kShutdown);
  // Whatever code comes, a failure stays one.
  for (uint16_t code = 1; code < 64; ++code) {
    EXPECT(ErrorOf(static_cast<ErrorCode>(code)) != Error::kNone);
  }
}

TEST(nbd_protocol, a_connection_goes_one_way) {
  const std::map<std::pair<Mode, Event>, Mode> table = {
      {{Mode::kClientFlags, Event::kFlagsTaken}, Mode::kOptions},
      {{Mode::kClientFlags, Event::kLastRequest}, Mode::kDraining},
      {{Mode::kClientFlags, Event::kBroken}, Mode::kClosing},
      {{Mode::kOptions, Event::kExportTaken}, Mode::kTransmission},
      {{Mode::kOptions, Event::kLastRequest}, Mode::kDraining},
      {{Mode::kOptions, Event::kBroken}, Mode::kClosing},
      {{Mode::kTransmission, Event::kLastRequest}, Mode::kDraining},
      {{Mode::kTransmission, Event::kBroken}, Mode::kClosing},
      {{Mode::kDraining, Event::kDrained}, Mode::kClosing},
      {{Mode::kDraining, Event::kBroken}, Mode::kClosing},
      {{Mode::kClosing, Event::kSocketClosed}, Mode::kClosed},
  };
  for (int m = 0; m < kModes; ++m) {
    for (int e = 0; e < kEvents; ++e) {
      const auto mode = static_cast<Mode>(m);
      const auto event = static_cast<Event>(e);
      const auto row = table.find({mode, event});
      EXPECT_EQ(Next(mode, event), row == table.end() ? mode : row->second);
      EXPECT(Next(mode, event) >= mode);
    }
  }
}

}  // namespace
}  // namespace ankole::nbd
