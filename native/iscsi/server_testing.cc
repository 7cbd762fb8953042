#include "iscsi/server_testing.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/crc32c.h"

namespace ankole::iscsi {

const std::string kTarget = "iqn.2024-01.test:volume";
const std::string kInitiator = "iqn.2024-01.test:initiator";

Bench::Bench(io::Reactor& on_reactor, std::optional<ChapSecrets> chap)
    : reactor(on_reactor),
      pool_(BufferPool::Create("iscsi-test", 800, 60, 60).Take()),
      device(reactor, *pool_, "volume", kSizeBytes),
      unit(reactor, device, log, {kTarget, "serial-1"}),
      server(reactor, device, unit, log, {kTarget, std::move(chap)}) {
  unit.Start([this](const Status& status) {
    CHECK(status.ok());
    CHECK(server.Listen({false, "127.0.0.1", 0}, &bound).ok());
    listening_.set_value();
  });
  thread_ = std::thread([this] { reactor.Loop(); });
  listening_.get_future().wait();
  // What the logical unit keeps for itself.
  idle_bytes_ = Get<size_t>([this] { return pool_->held_bytes(); });
}

Bench::~Bench() {
  if (!stopped_) Stop();
  CHECK(pool_->held_bytes() == idle_bytes_);
}

void Bench::On(const std::function<void()>& body) {
  std::promise<void> done;
  io::With<io::Message> message;
  message.then = [&](auto&) {
    body();
    done.set_value();
  };
  reactor.Post(&message);
  done.get_future().wait();
}

size_t Bench::Held() {
  return Get<size_t>([&] { return server.held_bytes(); });
}

size_t Bench::Connections() {
  return Get<size_t>([&] { return server.connections(); });
}

size_t Bench::Sessions() {
  return Get<size_t>([&] { return server.sessions(); });
}

size_t Bench::Pending() {
  return Get<size_t>([&] { return device.pending(); });
}

void Bench::Hold() {
  On([&] { device.held = true; });
}

void Bench::LetGo() {
  On([&] { device.LetGo(); });
}

void Bench::Stop() {
  stopped_ = true;
  On([&] {
    server.Shutdown([this] { reactor.Stop(); });
    server.Abort();
    device.LetGo();
  });
  thread_.join();
}

void Bench::Join() {
  stopped_ = true;
  thread_.join();
}

void OnEachBench(const std::function<void(Bench&)>& body, const std::optional<ChapSecrets>& chap) {
  io::OnEachBackend([&](io::Reactor& reactor) {
    Bench bench(reactor, chap);
    body(bench);
  });
}

bool Outcome::Sense(int key, int code) const {
  return status == 2 && sense.size() >= 14 && (static_cast<int>(sense[2]) & 15) == key &&
         static_cast<int>(sense[12]) << 8 == (code & 0xff00) &&
         static_cast<int>(sense[13]) == (code & 0xff);
}

std::string Texts(const std::vector<std::string>& pairs) {
  std::string text;
  for (const std::string& pair : pairs) text += pair + '\0';
  return text;
}

Cdb ReadOrWrite16(uint8_t operation, uint64_t block, uint32_t blocks) {
  Cdb cdb = {};
  cdb[0] = operation;
  StoreBig64(&cdb[2], block);
  StoreBig32(&cdb[10], blocks);
  return cdb;
}

std::vector<std::string> UsualKeys() {
  return {"InitialR2T=No",          "ImmediateData=Yes",      "MaxRecvDataSegmentLength=262144",
          "MaxBurstLength=1048576", "FirstBurstLength=65536", "MaxOutstandingR2T=1"};
}

Initiator::Initiator(uint16_t port) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience = {30, 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  const int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(test::Uninterrupted([&] {
          return connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
        }) == 0);
}

Initiator::~Initiator() { Close(); }

void Initiator::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

bool Initiator::SendBytes(const void* from, size_t bytes) {
  const auto* at = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t put = test::Uninterrupted([&] { return send(fd_, at, bytes, MSG_NOSIGNAL); });
    if (put <= 0) return false;
    at += put;
    bytes -= static_cast<size_t>(put);
  }
  return true;
}

size_t Initiator::SendSome(const Bytes& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t put =
        send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put <= 0) break;
    sent += static_cast<size_t>(put);
  }
  return sent;
}

bool Initiator::ReadBytes(void* to, size_t bytes) {
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = test::Uninterrupted([&] { return recv(fd_, at, bytes, 0); });
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

bool Initiator::Ended() {
  while (true) {
    const Pdu pdu = Read();
    if (pdu.lost) return true;
  }
}

bool Initiator::Quiet() {
  char byte;
  return recv(fd_, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

Bytes Initiator::EncodePdu(BasicHeader header, const Bytes& data) const {
  header.data_bytes = static_cast<uint32_t>(data.size());
  Bytes bytes(kHeaderBytes);
  std::memcpy(bytes.data(), &header, kHeaderBytes);
  const auto append = [&bytes](uint32_t word) {
    const auto* raw = reinterpret_cast<const std::byte*>(&word);
    bytes.insert(bytes.end(), raw, raw + 4);
  };
  if (digests.header) append(Crc32c(bytes.data(), kHeaderBytes));
  const size_t at = bytes.size();
  bytes.insert(bytes.end(), data.begin(), data.end());
  bytes.resize(bytes.size() + PadBytes(static_cast<uint32_t>(data.size())));
  if (digests.data && !data.empty()) append(Crc32c(bytes.data() + at, bytes.size() - at));
  return bytes;
}

bool Initiator::SendPdu(const BasicHeader& header, const Bytes& data) {
  const Bytes bytes = EncodePdu(header, data);
  return SendBytes(bytes.data(), bytes.size());
}

Pdu Initiator::Read() {
  Pdu pdu;
  pdu.lost = true;
  std::byte raw[kHeaderBytes];
  if (!ReadBytes(raw, sizeof(raw))) return pdu;
  const Frame frame = *DecodeFrame(raw, digests, 1 << 24);
  uint32_t digest = 0;
  if (digests.header) {
    if (!ReadBytes(&digest, 4)) return pdu;
    CHECK(digest == Crc32c(raw, kHeaderBytes));
  }
  Bytes data(frame.data_bytes + frame.trailer_bytes);
  if (!ReadBytes(data.data(), data.size())) return pdu;
  if (digests.data && !data.empty()) {
    CHECK(LoadLittle<uint32_t>(&data[data.size() - 4]) == Crc32c(data.data(), data.size() - 4));
  }
  data.resize(frame.data_bytes);
  pdu.header = frame.header;
  pdu.data = std::move(data);
  pdu.lost = false;
  Account(pdu);
  return pdu;
}

Pdu Initiator::SendLogin(uint8_t flags, const std::string& text) {
  LoginRequest request;
  request.opcode = static_cast<uint8_t>(Opcode::kLoginRequest) | kFlagImmediate;
  request.flags = flags;
  request.isid = isid;
  request.tsih = tsih;
  request.task_tag = 1;
  request.command_number = command_number;
  request.expected_status = status_number;
  Send(request, ToBytes(text));
  return Read();
}

uint16_t Initiator::StatusOf(const Pdu& pdu) {
  return pdu.Is(Opcode::kLoginResponse) ? uint16_t{pdu.As<LoginResponse>().status} : 0xffff;
}

uint16_t Initiator::Login() { return Login(LoginOptions()); }

uint16_t Initiator::Login(const LoginOptions& options) {
  isid = options.isid;
  std::vector<std::string> first = {"InitiatorName=" + options.initiator};
  if (options.discovery) {
    first.push_back("SessionType=Discovery");
  } else {
    first.push_back("TargetName=" + options.target);
  }
  if (options.user.empty()) {
    first.push_back("AuthMethod=None");
    login = SendLogin(0x81, Texts(first));
  } else {
    first.push_back("AuthMethod=CHAP,None");
    login = SendLogin(0x00, Texts(first));
    if (StatusOf(login) == 0) login = LoginWithChap(options);
  }
  if (StatusOf(login) != 0 || (login.header.flags & 0x83) != 0x81) return StatusOf(login);
  login = SendLogin(0x87, Texts(options.keys));
  if (StatusOf(login) != 0) return StatusOf(login);
  const std::string text = login.text();
  const auto pairs = ParseText(text);
  CHECK(pairs.has_value());
  for (const Pair& pair : *pairs) agreed[std::string(pair.key)] = pair.value;
  const auto number = [this](const char* key, uint32_t fallback) {
    return agreed.count(key) > 0 ? static_cast<uint32_t>(*ParseNumber(agreed[key])) : fallback;
  };
  segment_bytes_max = number("MaxRecvDataSegmentLength", 8192);
  first_burst_bytes_max = number("FirstBurstLength", 65536);
  burst_bytes_max = number("MaxBurstLength", 262'144);
  immediate_data = agreed["ImmediateData"] != "No";
  initial_r2t = agreed["InitialR2T"] != "No";
  digests.header = agreed["HeaderDigest"] == "CRC32C";
  digests.data = agreed["DataDigest"] == "CRC32C";
  tsih = login.As<LoginResponse>().tsih;
  CHECK(tsih != 0);
  if (!options.discovery) {
    // The unit attention of a new nexus.
    const Outcome outcome = Run(Cdb{}, 0, 0);
    CHECK(outcome.lost || outcome.Sense(6, 0x2900));
  }
  return 0;
}

uint32_t Initiator::Ask(const Cdb& cdb, uint32_t expected_bytes, uint8_t direction,
                        const Bytes& data) {
  const uint32_t tag = next_tag++;
  ScsiCommand command;
  command.opcode = static_cast<uint8_t>(Opcode::kScsiCommand);
  command.flags = static_cast<uint8_t>(kFlagFinal | direction | 1);
  command.task_tag = tag;
  command.expected_bytes = expected_bytes;
  command.command_number = command_number++;
  command.expected_status = status_number;
  command.cdb = cdb;
  const auto total = static_cast<uint32_t>(data.size());
  const uint32_t unasked = std::min(total, first_burst_bytes_max);
  const uint32_t now = immediate_data ? std::min(unasked, segment_bytes_max) : 0;
  const bool more = !initial_r2t && now < unasked;
  if (more) command.flags &= static_cast<uint8_t>(~kFlagFinal);
  outgoing_[tag] = data;
  Send(command, Bytes(data.begin(), data.begin() + now));
  if (more) SendData(tag, kNoTag, now, unasked);
  return tag;
}

void Initiator::SendData(uint32_t tag, uint32_t transfer_tag, uint32_t begin, uint32_t end,
                         uint32_t pdu_bytes_max) {
  const Bytes& data = outgoing_[tag];
  uint32_t number = 0;
  for (uint32_t at = begin; at < end;) {
    const uint32_t bytes = std::min({end - at, segment_bytes_max, pdu_bytes_max});
    DataOut header;
    header.opcode = static_cast<uint8_t>(Opcode::kDataOut);
    if (at + bytes == end) header.flags = kFlagFinal;
    header.task_tag = tag;
    header.transfer_tag = transfer_tag;
    header.expected_status = status_number;
    header.data_number = number++;
    header.offset_bytes = at;
    Send(header, Bytes(data.begin() + at, data.begin() + at + bytes));
    at += bytes;
  }
}

Outcome Initiator::Await(uint32_t tag) {
  while (true) {
    const auto done = ended_.find(tag);
    if (done != ended_.end()) {
      Outcome outcome = std::move(done->second);
      ended_.erase(done);
      return outcome;
    }
    const Pdu pdu = Read();
    if (pdu.lost) {
      Outcome outcome;
      outcome.lost = true;
      return outcome;
    }
    TakePdu(pdu);
  }
}

Outcome Initiator::Run(const Cdb& cdb, uint32_t expected_bytes, uint8_t direction,
                       const Bytes& data) {
  return Await(Ask(cdb, expected_bytes, direction, data));
}

uint32_t Initiator::AskWrite(uint64_t offset, const Bytes& data) {
  const auto bytes = static_cast<uint32_t>(data.size());
  return Ask(ReadOrWrite16(kWrite16, offset / 512, bytes / 512), bytes, kFlagWrite, data);
}

uint32_t Initiator::AskRead(uint64_t offset, uint32_t bytes) {
  return Ask(ReadOrWrite16(kRead16, offset / 512, bytes / 512), bytes, kFlagRead);
}

Pdu Initiator::Answer(uint32_t tag) {
  while (true) {
    Pdu pdu = Read();
    if (pdu.lost || (pdu.header.task_tag == tag && !TakePdu(pdu))) return pdu;
  }
}

uint32_t Initiator::AskFunction(TaskFunction function, uint32_t referenced_tag, bool immediate,
                                const Lun& lun) {
  TaskManagementRequest request;
  request.opcode = static_cast<uint8_t>(static_cast<uint8_t>(Opcode::kTaskManagementRequest) |
                                        (immediate ? kFlagImmediate : 0));
  request.flags = static_cast<uint8_t>(kFlagFinal | static_cast<uint8_t>(function));
  request.lun = lun;
  request.task_tag = next_tag++;
  request.referenced_tag = referenced_tag;
  request.command_number = immediate ? command_number : command_number++;
  request.expected_status = status_number;
  Send(request);
  return request.task_tag;
}

int Initiator::Function(TaskFunction function, uint32_t referenced_tag, bool immediate,
                        const Lun& lun) {
  const Pdu pdu = Answer(AskFunction(function, referenced_tag, immediate, lun));
  return pdu.Is(Opcode::kTaskManagementResponse) ? pdu.As<TaskManagementResponse>().response
                                                 : 0x100;
}

Pdu Initiator::Text(const std::string& text, uint8_t flags, uint32_t transfer_tag) {
  TextRequest request;
  request.opcode = static_cast<uint8_t>(Opcode::kTextRequest) | kFlagImmediate;
  request.flags = flags;
  request.task_tag = next_tag++;
  request.transfer_tag = transfer_tag;
  request.command_number = command_number;
  request.expected_status = status_number;
  Send(request, ToBytes(text));
  return Read();
}

Pdu Initiator::Ping(const Bytes& data) {
  NopOut request;
  request.opcode = static_cast<uint8_t>(Opcode::kNopOut) | kFlagImmediate;
  request.flags = kFlagFinal;
  request.task_tag = next_tag++;
  request.transfer_tag = kNoTag;
  request.command_number = command_number;
  request.expected_status = status_number;
  Send(request, data);
  return Answer(request.task_tag);
}

Pdu Initiator::Logout(LogoutReason reason, uint16_t connection) {
  LogoutRequest request;
  request.opcode = static_cast<uint8_t>(Opcode::kLogoutRequest) | kFlagImmediate;
  request.flags = static_cast<uint8_t>(kFlagFinal | static_cast<uint8_t>(reason));
  request.task_tag = next_tag++;
  request.connection = connection;
  request.command_number = command_number;
  request.expected_status = status_number;
  Send(request);
  return Answer(request.task_tag);
}

Bytes Initiator::ToBytes(const std::string& text) {
  const auto* raw = reinterpret_cast<const std::byte*>(text.data());
  return {raw, raw + text.size()};
}

Pdu Initiator::LoginWithChap(const LoginOptions& options) {
  const std::string algorithm = std::to_string(static_cast<int>(options.algorithm));
  Pdu pdu = SendLogin(0x00, Texts({"CHAP_A=" + algorithm}));
  if (StatusOf(pdu) != 0) return pdu;
  const std::string text = pdu.text();
  const auto pairs = ParseText(text);
  const auto challenge = ParseBinary(*Find(*pairs, "CHAP_C"), 1024);
  const auto identifier = static_cast<uint8_t>(*ParseNumber(*Find(*pairs, "CHAP_I")));
  std::vector<std::string> proof = {
      "CHAP_N=" + options.user, "CHAP_R=" + BinaryText(ChapResponse(options.algorithm, identifier,
                                                                    options.secret, *challenge))};
  const std::vector<uint8_t> ours = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  if (!options.mutual_user.empty()) {
    proof.push_back("CHAP_I=9");
    proof.push_back("CHAP_C=" + BinaryText(ours));
  }
  pdu = SendLogin(0x81, Texts(proof));
  if (StatusOf(pdu) != 0 || options.mutual_user.empty()) return pdu;
  const std::string answer = pdu.text();
  const auto answered = ParseText(answer);
  CHECK(Find(*answered, "CHAP_N") == options.mutual_user);
  CHECK(Find(*answered, "CHAP_R") ==
        BinaryText(ChapResponse(options.algorithm, 9, options.mutual_secret, ours)));
  return pdu;
}

void Initiator::Account(const Pdu& pdu) {
  const auto numbers = pdu.As<TextResponse>();
  const bool counts = !pdu.Is(Opcode::kReadyToTransfer) &&
                      !(pdu.Is(Opcode::kDataIn) && (pdu.header.flags & kFlagStatus) == 0) &&
                      !(pdu.Is(Opcode::kNopIn) && pdu.header.task_tag == kNoTag);
  if (counts) {
    CHECK(numbers.status_number == status_number);
    ++status_number;
  }
  if (pdu.Is(Opcode::kDataIn) && !counts) return;
  expected_command = numbers.expected_command;
  CHECK(max_command == 0 || !Before(numbers.max_command, max_command));
  max_command = numbers.max_command;
}

bool Initiator::TakePdu(const Pdu& pdu) {
  const uint32_t tag = pdu.header.task_tag;
  Outcome& outcome = partial_[tag];
  switch (pdu.opcode()) {
    case Opcode::kReadyToTransfer: {
      const auto header = pdu.As<ReadyToTransfer>();
      ++outcome.r2ts;
      CHECK(header.desired_bytes <= burst_bytes_max);
      SendData(tag, header.transfer_tag, header.offset_bytes,
               header.offset_bytes + header.desired_bytes);
      return true;
    }
    case Opcode::kDataIn: {
      const auto header = pdu.As<DataIn>();
      CHECK(header.offset_bytes == outcome.data.size());
      CHECK(header.data_number == static_cast<uint32_t>(outcome.data_pdus));
      ++outcome.data_pdus;
      outcome.data.insert(outcome.data.end(), pdu.data.begin(), pdu.data.end());
      if ((header.flags & kFlagStatus) == 0) return true;
      outcome.status = header.status;
      outcome.flags = header.flags & (kFlagOverflow | kFlagUnderflow);
      outcome.residual = header.residual;
      break;
    }
    case Opcode::kScsiResponse: {
      const auto header = pdu.As<ScsiResponse>();
      CHECK(header.response == 0);
      outcome.status = header.status;
      outcome.flags = header.flags & (kFlagOverflow | kFlagUnderflow);
      outcome.residual = header.residual;
      if (pdu.data.size() > 2) outcome.sense.assign(pdu.data.begin() + 2, pdu.data.end());
      break;
    }
    case Opcode::kNopIn:
      if (tag != kNoTag) return false;
      AnswerPing(pdu.As<NopIn>());
      return true;
    default:
      return false;
  }
  ended_[tag] = std::move(outcome);
  partial_.erase(tag);
  outgoing_.erase(tag);
  finished.push_back(tag);
  return true;
}

void Initiator::AnswerPing(const NopIn& ping) {
  NopOut answer;
  answer.opcode = static_cast<uint8_t>(Opcode::kNopOut) | kFlagImmediate;
  answer.flags = kFlagFinal;
  answer.task_tag = kNoTag;
  answer.transfer_tag = ping.transfer_tag;
  answer.command_number = command_number;
  answer.expected_status = status_number;
  Send(answer);
}

}  // namespace ankole::iscsi
