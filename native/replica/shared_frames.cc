#include <unistd.h>

#include <utility>

#include "base/bytes.h"
#include "replica/served_replica.h"
#include "replica/session.h"

// A session's requests and replies through shared memory. The rules are those of the socket; what
// is saved is the copies, and most system calls.
namespace ankole::replica {

void Session::OnShare(std::span<const std::byte> payload) {
  if (!Enter(SessionEvent::kData, "SHARE")) return;
  const int descriptor = connection_.TakeDescriptor();
  if (payload.size() != wire::kShareBytes || descriptor < 0) {
    if (descriptor >= 0) ::close(descriptor);
    Breach("SHARE without a part and its descriptor");
    return;
  }
  const auto part = LoadLittle<uint32_t>(payload.data());
  const auto bytes = LoadLittle<uint64_t>(payload.data() + 8);
  if (shared_ == nullptr) shared_ = std::make_unique<SharedEnd>(reactor_);
  const Status taken = shared_->Take(descriptor, static_cast<wire::SharedPart>(part), bytes);
  if (!taken.ok()) {
    Close(taken);
    return;
  }
  control_busy_ = true;
  AnswerControl(Status::Ok(), {});
  if (static_cast<wire::SharedPart>(part) == wire::SharedPart::kHostDoorbell) {
    doorbell_open_ = true;
    await_.doorbell = doorbell_close_.socket = shared_->doorbell();
  }
  if (!shared_->complete()) return;
  connection_.AcceptDescriptors(false);
  ConsumeShared();
}

void Session::OnDoorbell() {
  if (mode_ == SessionMode::kWelcomed) ConsumeShared();
}

// Takes all requests that lie there, then sleeps until it is rung.
void Session::ConsumeShared() {
  if (shared_ == nullptr || !shared_->complete() || consuming_) return;
  consuming_ = true;
  Result<wire::Header> header = Status(ErrorCode::kInternal, "");
  while (mode_ == SessionMode::kWelcomed) {
    if (!shared_->Peek(&header)) {
      if (!shared_->Sleep()) continue;
      break;
    }
    if (!header.ok()) {
      Breach(header.status().message());
      break;
    }
    if (!OnShared(header.value())) break;  // no operation is free: goes on when one is
    shared_->Release();
  }
  consuming_ = false;
  if (mode_ == SessionMode::kWelcomed && !await_.in_flight) reactor_.Await(&await_);
}

bool Session::OnShared(const wire::Header& header) {
  SessionOperation* operation = operations_.Acquire();
  if (operation == nullptr) return false;
  NoteActivity();
  Begin(operation, header);
  if (header.length_bytes > 0 && header.view == 0 && OutOfRange(header)) {
    Answer(operation, ErrorCode::kOutOfRange);
    return true;
  }
  OperationKind kind = OperationKind::kFlush;
  switch (header.opcode) {
    case wire::Opcode::kRead:
    case wire::Opcode::kWrite:
      kind = header.opcode == wire::Opcode::kRead ? OperationKind::kRead : OperationKind::kWrite;
      operation->storage.data = shared_->DataOf(header);
      if (operation->storage.data == nullptr) {
        Release(operation);
        Breach("the data lies outside of the shared memory");
        return true;
      }
      if (kind == OperationKind::kWrite) KeepTable(operation, shared_->Table());
      break;
    case wire::Opcode::kZero:
      kind = OperationKind::kZero;
      break;
    case wire::Opcode::kUnmap:
      kind = OperationKind::kUnmap;
      break;
    default:
      break;  // FLUSH; the decoder lets nothing else through
  }
  Submit(operation, kind);
  return true;
}

void Session::AnswerShared(SessionOperation* operation, ErrorCode status) {
  wire::Header header = operation->header;
  header.reply = true;
  header.flags = 0;
  header.status = status;
  header.complete_tag = 0;
  header.shared_offset_bytes = 0;
  Release(operation);
  if (!shared_->Reply(header)) {
    Breach("more requests in shared memory than replies that are taken");
    return;
  }
  reactor_.Defer(&shared_flush_);
  AfterRelease();
}

void Session::CloseDoorbell() {
  if (doorbell_open_ && !doorbell_close_.in_flight) reactor_.Close(&doorbell_close_);
}

}  // namespace ankole::replica
