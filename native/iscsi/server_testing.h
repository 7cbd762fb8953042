#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "iscsi/server.h"
#include "nbd/server_testing.h"

// A target over a volume in memory, on a real reactor and real sockets, and a blocking initiator
// that speaks the protocol by hand.
namespace ankole::iscsi {

using nbd::Bytes;
using nbd::Eventually;
using nbd::RandomBytes;
using nbd::TestLog;

extern const std::string kTarget;
extern const std::string kInitiator;

class Bench {
 public:
  static constexpr uint64_t kSizeBytes = 64 * kMiB;

  explicit Bench(io::Reactor& on_reactor, std::optional<ChapSecrets> chap = {});
  ~Bench();

  // Runs `body` on the reactor's thread and waits for it.
  void On(const std::function<void()>& body);
  template <typename T>
  T Get(const std::function<T()>& body) {
    T value;
    On([&] { value = body(); });
    return value;
  }
  size_t Held();
  size_t Connections();
  size_t Sessions();
  size_t Pending();
  void Hold();
  void LetGo();

  // A hard stop.
  void Stop();
  // A soft one is begun elsewhere and has ended the loop.
  void Join();

  io::Reactor& reactor;

 private:
  std::unique_ptr<BufferPool> pool_;

 public:
  TestLog log;
  io::MemoryDevice device;
  scsi::LogicalUnit unit;
  Server server;
  io::Address bound;

 private:
  std::promise<void> listening_;
  std::thread thread_;
  size_t idle_bytes_ = 0;
  bool stopped_ = false;
};

void OnEachBench(const std::function<void(Bench&)>& body,
                 const std::optional<ChapSecrets>& chap = {});

struct Pdu {
  bool lost = false;  // the connection ended instead
  BasicHeader header;
  Bytes data;
  Opcode opcode() const { return static_cast<Opcode>(header.opcode); }
  bool Is(Opcode wanted) const { return !lost && opcode() == wanted; }
  template <typename Header>
  Header As() const {
    return iscsi::As<Header>(header);
  }
  std::string text() const { return {reinterpret_cast<const char*>(data.data()), data.size()}; }
};

// A command's end.
struct Outcome {
  bool lost = false;
  uint8_t status = 0xff;
  Bytes sense;
  Bytes data;
  uint8_t flags = 0;  // the residual's
  uint32_t residual = 0;
  int data_pdus = 0;
  int r2ts = 0;
  bool good() const { return !lost && status == 0; }
  // Sense key, code and qualifier in the fixed format.
  bool Sense(int key, int code) const;
};

std::string Texts(const std::vector<std::string>& pairs);

using Cdb = std::array<uint8_t, 16>;
Cdb ReadOrWrite16(uint8_t operation, uint64_t block, uint32_t blocks);
inline constexpr uint8_t kRead16 = 0x88;
inline constexpr uint8_t kWrite16 = 0x8a;

std::vector<std::string> UsualKeys();

struct LoginOptions {
  std::string initiator = kInitiator;
  std::string target = kTarget;
  Isid isid = {0x80, 1, 2, 3, 4, 5};
  bool discovery = false;
  std::vector<std::string> keys = UsualKeys();
  std::string user;
  std::string secret;
  std::string mutual_user;
  std::string mutual_secret;
  ChapAlgorithm algorithm = ChapAlgorithm::kMd5;
};

class Initiator {
 public:
  explicit Initiator(uint16_t port);
  explicit Initiator(const Bench& bench) : Initiator(bench.bound.port) {}
  ~Initiator();
  Initiator(const Initiator&) = delete;
  Initiator& operator=(const Initiator&) = delete;

  void Close();

  // --- bytes
  bool SendBytes(const void* from, size_t bytes);
  size_t SendSome(const Bytes& bytes);
  bool ReadBytes(void* to, size_t bytes);
  // The target has closed, maybe after some more PDUs.
  bool Ended();
  bool Quiet();

  Bytes EncodePdu(BasicHeader header, const Bytes& data) const;
  template <typename Header>
  Bytes Encode(const Header& header, const Bytes& data) const {
    return EncodePdu(As<BasicHeader>(header), data);
  }
  bool SendPdu(const BasicHeader& header, const Bytes& data);
  template <typename Header>
  bool Send(const Header& header, const Bytes& data = {}) {
    return SendPdu(As<BasicHeader>(header), data);
  }
  Pdu Read();

  // --- login
  Pdu SendLogin(uint8_t flags, const std::string& text);
  static uint16_t StatusOf(const Pdu& pdu);
  // The status of the login; 0xffff: the connection ended.
  uint16_t Login();
  uint16_t Login(const LoginOptions& options);

  // --- commands
  // Sends the command, with as much data as may come unasked. `data` goes with later R2Ts.
  uint32_t Ask(const Cdb& cdb, uint32_t expected_bytes, uint8_t direction, const Bytes& data = {});
  // A sequence of Data-Out.
  void SendData(uint32_t tag, uint32_t transfer_tag, uint32_t begin, uint32_t end,
                uint32_t pdu_bytes_max = UINT32_MAX);
  // Answers R2Ts and gathers Data-In of all commands until `tag` has ended.
  Outcome Await(uint32_t tag);
  Outcome Run(const Cdb& cdb, uint32_t expected_bytes, uint8_t direction, const Bytes& data = {});
  uint32_t AskWrite(uint64_t offset, const Bytes& data);
  uint32_t AskRead(uint64_t offset, uint32_t bytes);
  Outcome WriteAt(uint64_t offset, const Bytes& data) { return Await(AskWrite(offset, data)); }
  Outcome ReadAt(uint64_t offset, uint32_t bytes) { return Await(AskRead(offset, bytes)); }

  // Sends a request of another kind, and reads until its answer comes.
  Pdu Answer(uint32_t tag);
  uint32_t AskFunction(TaskFunction function, uint32_t referenced_tag = kNoTag,
                       bool immediate = true, const Lun& lun = {});
  // The response; 0x100: the connection ended.
  int Function(TaskFunction function, uint32_t referenced_tag = kNoTag, bool immediate = true,
               const Lun& lun = {});
  Pdu Text(const std::string& text, uint8_t flags = kFlagFinal, uint32_t transfer_tag = kNoTag);
  Pdu Ping(const Bytes& data);
  Pdu Logout(LogoutReason reason = LogoutReason::kSession, uint16_t connection = 0);

  static Bytes ToBytes(const std::string& text);

  Isid isid = {};
  uint16_t tsih = 0;
  uint32_t command_number = 1000;
  uint32_t status_number = 77;  // the next one expected
  uint32_t expected_command = 0;
  uint32_t max_command = 0;
  uint32_t next_tag = 10;
  Digests digests;
  std::map<std::string, std::string> agreed;
  uint32_t segment_bytes_max = 8192;
  uint32_t first_burst_bytes_max = 65536;
  uint32_t burst_bytes_max = 262'144;
  bool immediate_data = true;
  bool initial_r2t = true;
  Pdu login;                       // the last Login Response
  std::vector<uint32_t> finished;  // tags, in the order of their ends

 private:
  Pdu LoginWithChap(const LoginOptions& options);

  // The target's numbers, which lie at the same place in all of its PDUs.
  void Account(const Pdu& pdu);

  // Whether the PDU belongs to a SCSI command, or is a ping.
  bool TakePdu(const Pdu& pdu);
  void AnswerPing(const NopIn& ping);

  int fd_ = -1;
  std::map<uint32_t, Bytes> outgoing_;
  std::map<uint32_t, Outcome> partial_;
  std::map<uint32_t, Outcome> ended_;
};

}  // namespace ankole::iscsi
