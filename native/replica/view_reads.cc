#include <utility>

#include "replica/replica.h"

// Reading snapshots: on pool threads, with files of the view's own.
namespace ankole::replica {

void Replica::StartView(ReplicaOperation* operation) {
  const auto found = views_.find(operation->view);
  if (found == views_.end() || found->second.closing) {
    return FinishLater(operation, ErrorCode::kNotFound);
  }
  const bool asks = operation->kind == OperationKind::kStatus;
  const bool reads =
      operation->kind == OperationKind::kRead || operation->kind == OperationKind::kSum;
  if ((!asks && !reads) || (reads && found->second.view->difference())) {
    return FinishLater(operation, ErrorCode::kInvalidArgument);
  }
  ++found->second.readers;
  operation->reads = found->second.view.get();
  operation->job.owner = operation;
  operation->job.work = ViewWork;
  operation->job.done = ViewDone;
  reactor_.Run(&operation->job);
}

void Replica::ViewWork(io::Job* job) {
  auto* operation = static_cast<ReplicaOperation*>(job->owner);
  // Neither the entry nor the view goes while it has readers; other entries may come and go, so
  // that the map must not be looked at here.
  const View* view = operation->reads;
  Status status;
  if (operation->kind == OperationKind::kStatus) {
    view->Extents(operation);
  } else {
    status = operation->kind == OperationKind::kRead ? view->Read(operation) : view->Sum(operation);
  }
  operation->status =
      status.ok() || status.code() == ErrorCode::kCorrupt ? status.code() : OutcomeOf(status);
}

void Replica::ViewDone(io::Operation* job) {
  auto* operation = static_cast<ReplicaOperation*>(job->owner);
  Replica* self = operation->replica;
  const auto found = self->views_.find(operation->view);
  if (--found->second.readers == 0 && found->second.closing) self->views_.erase(found);
  self->Finish(operation, operation->status);
}

void Replica::CloseView(ReplicaOperation* operation) {
  const auto found = views_.find(operation->view);
  if (found->second.holder != operation->holder) {
    return FinishLater(operation, ErrorCode::kNotFound);
  }
  found->second.closing = true;
  if (found->second.readers == 0) views_.erase(found);
  FinishLater(operation, ErrorCode::kOk);
}

void Replica::CloseViews(const void* holder) {
  for (auto at = views_.begin(); at != views_.end();) {
    at->second.closing |= at->second.holder == holder;
    at = at->second.closing && at->second.readers == 0 ? views_.erase(at) : std::next(at);
  }
}

}  // namespace ankole::replica
