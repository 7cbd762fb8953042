#include <algorithm>

#include "replica/served_replica.h"
#include "replica/session.h"
#include "wire/layers.h"

// A session's requests about layers (rule 8): docs/internals/snapshots.md.
namespace ankole::replica {
namespace {

// Where the answer lies in a chunk; the request, whose names the storage refers to, lies before.
constexpr size_t kAnswerAt = 8 * kKiB;
static_assert(wire::kPrepareBytesMax <= kAnswerAt);
static_assert(kAnswerAt + kControlPayloadBytesMax <= BufferPool::kSmallBytes);

OperationKind KindOf(wire::Opcode opcode) {
  switch (opcode) {
    case wire::Opcode::kSwitch:
      return OperationKind::kSwitch;
    case wire::Opcode::kSeal:
      return OperationKind::kSeal;
    default:
      return OperationKind::kDelete;
  }
}

}  // namespace

// The payload was copied to the operation's chunk; there is none where it is empty.
void Session::StartLayers(SessionOperation* operation) {
  const wire::Header& header = operation->header;
  ReplicaOperation& storage = operation->storage;
  std::span<const std::byte> payload;
  if (header.payload_bytes > 0) {
    payload = {operation->chunk->data, header.payload_bytes};
    storage.data = operation->chunk->data + kAnswerAt;
  }
  Status wrong;
  switch (header.opcode) {
    case wire::Opcode::kLayers: {
      const Result<uint32_t> first = wire::DecodeLayersRequest(payload);
      if (first.ok()) {
        storage.first = first.value();
        return Submit(operation, OperationKind::kLayers);
      }
      wrong = first.status();
      break;
    }
    case wire::Opcode::kPrepare: {
      const Result<wire::PrepareRequest> prepare = wire::DecodePrepare(payload);
      if (prepare.ok()) {
        storage.layer = prepare.value().name;
        storage.labels = prepare.value().labels;
        storage.base = prepare.value().base;
        storage.user_created = prepare.value().user_created;
        storage.created_seconds = prepare.value().created_seconds;
        return Submit(operation, OperationKind::kPrepare);
      }
      wrong = prepare.status();
      break;
    }
    case wire::Opcode::kView: {
      const Result<wire::ViewRequest> view = wire::DecodeViewRequest(payload);
      if (view.ok()) {
        storage.layer = view.value().layer;
        storage.base = view.value().base;
        return Submit(operation, OperationKind::kOpenView);
      }
      wrong = view.status();
      break;
    }
    case wire::Opcode::kCloseView: {
      const Result<uint16_t> view = wire::DecodeViewId(payload);
      if (view.ok()) {
        storage.view = view.value();
        return Submit(operation, OperationKind::kCloseView);
      }
      wrong = view.status();
      break;
    }
    case wire::Opcode::kChanged: {
      const Result<wire::ChangedRequest> changed = wire::DecodeChangedRequest(payload);
      if (changed.ok()) {
        storage.base = changed.value().base;
        storage.layer = changed.value().layer;
        storage.first = changed.value().first;
        return Submit(operation, OperationKind::kChanged);
      }
      wrong = changed.status();
      break;
    }
    default: {
      const Result<std::string_view> layer = wire::DecodeOneLayer(payload);
      if (layer.ok()) {
        if (header.opcode == wire::Opcode::kSwitch && replica_->changing()) {
          return Answer(operation, ErrorCode::kBusy);
        }
        storage.layer = layer.value();
        return Submit(operation, KindOf(header.opcode));
      }
      wrong = layer.status();
    }
  }
  Release(operation);
  Breach(std::string(wire::OpcodeName(header.opcode)) + ": " + wrong.message());
}

// Of a good outcome.
void Session::AnswerLayers(SessionOperation* operation) {
  const ReplicaOperation& storage = operation->storage;
  const std::byte* answer = operation->chunk->data + kAnswerAt;
  switch (operation->header.opcode) {
    case wire::Opcode::kLayers:
    case wire::Opcode::kChanged:
      CHECK(storage.answer_bytes <= kControlPayloadBytesMax);
      Send(operation, ErrorCode::kOk, answer, storage.answer_bytes, nullptr, 0);
      return;
    case wire::Opcode::kView: {
      // The labels lie where the answer has them.
      const std::string_view labels(reinterpret_cast<const char*>(answer) + wire::kViewIdBytes,
                                    storage.answer_bytes);
      const size_t bytes =
          wire::EncodeViewAnswer({storage.view, labels}, operation->chunk->data + kAnswerAt);
      Send(operation, ErrorCode::kOk, answer, bytes, nullptr, 0);
      return;
    }
    default:
      ReleaseChunk(operation);
      Send(operation, ErrorCode::kOk, nullptr, 0, nullptr, 0);
  }
}

// Its views end with the connection, when nothing reads from them any more; also one that was
// opened when the connection was gone already.
void Session::CloseViews() {
  if (mode_ != SessionMode::kEnded || in_flight_ > 0 || replica_ == nullptr) return;
  replica_->CloseViews(this);
}

}  // namespace ankole::replica
