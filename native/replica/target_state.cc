#include <span>

#include "replica/replica.h"
#include "replica/state_file.h"

// The target state of a replica: loaded and stored by one job at a time, in order.
namespace ankole::replica {

void Replica::StartState() {
  if (state_operation_ != nullptr || state_waiters_.empty()) return;
  ReplicaOperation* operation = state_waiters_.PopFront();
  if (operation->kind == OperationKind::kStoreState && sync_failed_) {
    FinishLater(operation, ErrorCode::kSuspect);
    return StartState();
  }
  state_operation_ = operation;
  reactor_.Run(&state_job_);
}

void Replica::StateWork(io::Job* job) {
  auto* self = static_cast<Replica*>(job->owner);
  const ReplicaOperation& operation = *self->state_operation_;
  const TargetState data(operation.data, kTargetStateBytes);
  const std::string path = self->directory_ + "/" + std::string(kTargetStateName);
  self->state_sync_failed_ = false;
  if (operation.kind == OperationKind::kLoadState) {
    self->state_outcome_ = ReadStateFile(self->files_, path, data);
    return;
  }
  self->state_outcome_ = WriteStateFile(self->files_, path, data, &self->state_sync_failed_);
  if (self->state_sync_failed_) {
    (void)self->WriteFailedMarker(self->state_outcome_.message()).ok();
  }
}

void Replica::StateDone(io::Operation* job) {
  auto* self = static_cast<Replica*>(job->owner);
  const Status& outcome = self->state_outcome_;
  if (self->state_sync_failed_) self->Latch(outcome.message());
  const ErrorCode code = outcome.ok()                            ? ErrorCode::kOk
                         : outcome.code() == ErrorCode::kNoSpace ? ErrorCode::kNoSpace
                         : outcome.code() == ErrorCode::kCorrupt ? ErrorCode::kCorrupt
                                                                 : ErrorCode::kIoError;
  ReplicaOperation* operation = self->state_operation_;
  self->state_operation_ = nullptr;
  self->StartState();
  self->Finish(operation, code);
}

}  // namespace ankole::replica
