#include "engine/snapshot_reader.h"

#include <algorithm>
#include <utility>

#include "wire/hello.h"

namespace ankole::engine {
namespace {

// For so long it waits for a member that can be asked.
constexpr uint64_t kOpeningNs = 10 * kNsPerSecond;
constexpr uint64_t kReadingNs = 30 * kNsPerSecond;
constexpr uint64_t kLogNs = kNsPerSecond;
// Nobody uses it for so long: it is closed.
constexpr uint64_t kUnusedNs = 10 * kNsPerSecond;
// A member that refused to open it, as it lacked it or had no room, is asked again.
constexpr uint64_t kRefusedAgainNs = kNsPerSecond;

uint8_t BitOf(const Link& link) { return static_cast<uint8_t>(1U << link.index()); }

}  // namespace

// --- one snapshot
// --------------------------------------------------------------------------------------------

SnapshotReader::SnapshotReader(ResyncHost& host, std::string name, std::string layer,
                               io::Task* news)
    : host_(host),
      name_(std::move(name)),
      layer_(std::move(layer)),
      news_(news),
      began_ns_(host.reactor().NowNs()),
      layers_(host),
      views_(host) {
  layers_.owner = views_.owner = answer_task_.owner = this;
  views_.changed = [](ViewSet* set) { static_cast<SnapshotReader*>(set->owner)->OnViews(); };
  answer_task_.done = [](io::Operation* operation) {
    auto* self = static_cast<SnapshotReader*>(operation->owner);
    while (BlockRequest* request = self->answers_) {
      self->answers_ = request->next;
      request->done(request);
    }
  };
  for (Read& read : reads_) {
    read.reader = this;
    read.errand.owner = &read;
    read.errand.done = [](Errand* errand) {
      auto* of = static_cast<Read*>(errand->owner);
      of->reader->OnAnswer(of);
    };
    free_.PushBack(&read);
  }
}

SnapshotReader::~SnapshotReader() { CHECK(idle()); }

bool SnapshotReader::quiet() const {
  return phase_ == Phase::kClosing && queue_ == nullptr && answers_ == nullptr &&
         !answer_task_.scheduled && free_.size() == reads_.size() && !layers_.busy() &&
         views_.idle();
}

bool SnapshotReader::in_use() const {
  if (phase_ == Phase::kClosing) return clients_ > 0;
  return clients_ > 0 || phase_ != Phase::kOpen || (!used_ && !expired());
}

bool SnapshotReader::expired() const {
  return phase_ == Phase::kOpen && clients_ == 0 && host_.reactor().NowNs() - left_ns_ >= kUnusedNs;
}

void SnapshotReader::ClientCame() {
  ++clients_;
  used_ = true;
}

void SnapshotReader::ClientLeft() {
  CHECK(clients_ > 0);
  --clients_;
  left_ns_ = host_.reactor().NowNs();
}

void SnapshotReader::Close(const Status& why) {
  if (phase_ == Phase::kClosing) return;
  phase_ = Phase::kClosing;
  status_ = why;
  host_.reactor().Defer(news_);
  views_.Close();
  while (Read* read = parked_.PopFront()) {
    AnswerLater(std::exchange(read->request, nullptr), ErrorCode::kUnavailable);
    free_.PushBack(read);
  }
  while (BlockRequest* request = queue_) {
    queue_ = request->next;
    AnswerLater(request, ErrorCode::kUnavailable);
  }
}

// --- opening

// How large it is is what its layer says: a member's view reads on, up to the volume's end.
void SnapshotReader::List() {
  for (const auto& link : host_.links()) {
    if (!host_.IsStaying(link->index()) || !link->up()) continue;
    layers_.Read(link.get(), [](LayerReader* self, ErrorCode status) {
      static_cast<SnapshotReader*>(self->owner)->OnListed(status);
    });
    return;
  }
}

void SnapshotReader::OnListed(ErrorCode status) {
  if (phase_ != Phase::kListing || status != ErrorCode::kOk) return;  // again by Pump
  const std::vector<wire::LayerEntry>& layers = layers_.layers();
  const auto found = std::find_if(layers.begin(), layers.end(),
                                  [this](const auto& layer) { return layer.name == layer_; });
  if (found == layers.end() || found->removed || !found->sealed) {
    Close({ErrorCode::kNotFound, "no snapshot " + layer_ + " is there to be read"});
    return;
  }
  // What a disk says need not be a volume's size.
  size_bytes_ = std::min(found->size_bytes / kSectorBytes * kSectorBytes, host_.size_bytes());
  phase_ = Phase::kOpening;
  Pump();
}

void SnapshotReader::OnViews() {
  if (phase_ == Phase::kOpening) {
    const ViewIds& ids = views_.ids();
    if (std::any_of(ids.begin(), ids.end(), [](uint16_t id) { return id != 0; })) {
      phase_ = Phase::kOpen;
      host_.reactor().Defer(news_);
      left_ns_ = host_.reactor().NowNs();
    }
  }
  Pump();
}

void SnapshotReader::Pump() {
  const uint64_t now_ns = host_.reactor().NowNs();
  const bool opening = phase_ == Phase::kListing || phase_ == Phase::kOpening;
  if (opening && now_ns - began_ns_ >= kOpeningNs) {
    const bool refused = views_.failure() != ErrorCode::kOk;
    Close({refused ? views_.failure() : ErrorCode::kUnavailable,
           "snapshot " + layer_ +
               (refused ? " cannot be opened at replica " + wire::ReplicaIdText(views_.failed()) +
                              ": " + ErrorCodeName(views_.failure())
                        : std::string(": no member can be asked for it"))});
  }
  if (phase_ == Phase::kClosing || host_.HoldsReads()) return;
  if (phase_ == Phase::kListing) {
    if (!layers_.busy()) List();
    return;
  }
  if (views_.name().empty()) {
    views_.Open(layer_);
  } else if (views_.failure() == ErrorCode::kOk) {
    views_.Pump();
  } else if (now_ns - retried_ns_ >= kRefusedAgainNs) {
    retried_ns_ = now_ns;
    views_.Retry();
  }
  for (size_t left = parked_.size(); left > 0; --left) Send(parked_.PopFront());
  while (queue_ != nullptr && !free_.empty()) {
    Read* read = free_.PopFront();
    read->request = queue_;
    queue_ = queue_->next;
    read->tried = 0;
    read->fault = ErrorCode::kOk;
    Send(read);
  }
}

// --- reading

void SnapshotReader::Release(BlockRequest* /*hold*/) {
  CHECK(false);  // none was granted
}

void SnapshotReader::Submit(BlockRequest* request) {
  request->status = ErrorCode::kOk;
  request->submitted_ns = host_.reactor().NowNs();
  request->next = nullptr;
  const bool reads =
      request->operation == BlockOperation::kRead || request->operation == BlockOperation::kStatus;
  if (request->operation == BlockOperation::kFlush) return AnswerLater(request, ErrorCode::kOk);
  if (!reads) return AnswerLater(request, ErrorCode::kReadOnly);
  CHECK(request->offset_bytes + request->length_bytes <= size_bytes_);
  if (phase_ == Phase::kClosing) return AnswerLater(request, ErrorCode::kUnavailable);
  (queue_ == nullptr ? queue_ : queue_end_->next) = request;
  queue_end_ = request;
  Pump();
}

void SnapshotReader::AnswerLater(BlockRequest* request, ErrorCode status) {
  request->status = status;
  request->next = answers_;
  answers_ = request;
  host_.reactor().Defer(&answer_task_);
}

// The member with the least to do that has it open and was not asked yet; null: there is none now,
// and `may_come` says whether there may be one.
Link* SnapshotReader::Pick(const Read& read, bool* may_come) const {
  Link* best = nullptr;
  *may_come = false;
  for (const auto& link : host_.links()) {
    if (!host_.IsStaying(link->index()) || (read.tried & BitOf(*link)) != 0) continue;
    *may_come = true;
    if (!link->up() || views_.ids()[link->index()] == 0) continue;
    if (best == nullptr || link->outstanding < best->outstanding) best = link.get();
  }
  return best;
}

void SnapshotReader::Send(Read* read) {
  BlockRequest& request = *read->request;
  const bool late = host_.reactor().NowNs() - request.submitted_ns >= kReadingNs;
  bool may_come = false;
  Link* link = Pick(*read, &may_come);
  if (link == nullptr && (!may_come || late)) {
    const ErrorCode fault = read->fault != ErrorCode::kOk ? read->fault : ErrorCode::kUnavailable;
    AnswerLater(std::exchange(read->request, nullptr), fault);
    free_.PushBack(read);
    return;
  }
  if (link == nullptr || host_.HoldsReads()) {
    parked_.PushBack(read);
    return;
  }
  Errand& errand = read->errand;
  const bool asks = request.operation == BlockOperation::kStatus;
  errand.link = link;
  errand.opcode = asks ? wire::Opcode::kStatus : wire::Opcode::kRead;
  errand.view = views_.ids()[link->index()];
  // From the last member also where its sync failed: there is nobody else. What is read once need
  // not stay in the page cache.
  const uint16_t anyway = host_.members().count == 1 ? wire::kFlagAnyway : uint16_t{0};
  errand.flags = asks ? uint16_t{0} : static_cast<uint16_t>(anyway | wire::kFlagDisablePageOut);
  errand.offset_bytes = request.offset_bytes;
  errand.length_bytes = static_cast<uint32_t>(request.length_bytes);
  errand.data = asks ? nullptr : request.data;
  errand.take = asks ? TakeExtents : nullptr;
  host_.SendErrand(&errand);
}

Status SnapshotReader::TakeExtents(Errand* errand, std::span<const std::byte> payload) {
  BlockRequest& request = *static_cast<Read*>(errand->owner)->request;
  const Result<uint32_t> count =
      wire::DecodeExtents(payload, errand->length_bytes, request.extents, request.extents_max);
  if (!count.ok()) return count.status();
  request.extents_count = count.value();
  return Status::Ok();
}

void SnapshotReader::OnAnswer(Read* read) {
  const Errand& errand = read->errand;
  if (errand.status == ErrorCode::kOk) {
    Finish(read, ErrorCode::kOk);
  } else if (phase_ == Phase::kClosing) {
    Finish(read, ErrorCode::kUnavailable);
  } else if (errand.status == ErrorCode::kConnectionLost) {
    Send(read);  // it may be back before long
  } else {
    read->tried |= BitOf(*errand.link);
    const uint64_t now_ns = host_.reactor().NowNs();
    if (read->fault == ErrorCode::kOk) read->fault = errand.status;
    // A layer that is damaged all over must not fill the log.
    if (logged_ns_ == 0 || now_ns - logged_ns_ >= kLogNs) {
      logged_ns_ = now_ns;
      host_.log().Log(LogLevel::kWarn, "replica " + wire::ReplicaIdText(errand.link->replica()) +
                                           " cannot read snapshot " + layer_ + " at byte " +
                                           std::to_string(errand.offset_bytes) + ": " +
                                           ErrorCodeName(errand.status) + "; another one is asked");
    }
    Send(read);
  }
}

void SnapshotReader::Finish(Read* read, ErrorCode status) {
  BlockRequest* request = std::exchange(read->request, nullptr);
  free_.PushBack(read);
  request->status = status;
  request->done(request);
  Pump();
}

// --- all of them
// --------------------------------------------------------------------------------------------

SnapshotReaders::SnapshotReaders(ResyncHost& host) : host_(host) {
  answer_task_.owner = this;
  answer_task_.done = [](io::Operation* operation) {
    static_cast<SnapshotReaders*>(operation->owner)->Answer();
  };
}

SnapshotReaders::~SnapshotReaders() { CHECK(waiting_.empty() && !answer_task_.scheduled); }

SnapshotReader* SnapshotReaders::Of(const std::string& layer) const {
  for (const auto& reader : readers_) {
    if (reader->layer() == layer && reader->phase() != SnapshotReader::Phase::kClosing) {
      return reader.get();
    }
  }
  return nullptr;
}

void SnapshotReaders::Open(ReadSnapshotRequest* request) {
  request->status = stopped_;
  if (stopped_.ok() && (!wire::IsLayerName(request->layer) || request->name.empty() ||
                        request->name.size() > kExportNameBytesMax)) {
    request->status = {ErrorCode::kInvalidArgument,
                       "'" + request->layer.substr(0, wire::kLayerNameBytes) +
                           "' is no layer, or its snapshot's name is too long"};
  } else if (stopped_.ok() && Of(request->layer) == nullptr) {
    Sweep();
    if (readers_.size() >= kSnapshotReadersMax) {
      request->status = {ErrorCode::kBusy, std::to_string(readers_.size()) +
                                               " snapshots of the volume are being read already"};
    } else {
      readers_.push_back(
          std::make_unique<SnapshotReader>(host_, request->name, request->layer, &answer_task_));
    }
  }
  waiting_.PushBack(request);
  if (stopped_.ok()) Pump();
  host_.reactor().Defer(&answer_task_);
}

// Who waits is told what has become of it.
void SnapshotReaders::Answer() {
  ReadSnapshotRequest* next = nullptr;
  for (ReadSnapshotRequest* request = waiting_.front(); request != nullptr; request = next) {
    next = waiting_.Next(request);
    if (request->status.ok()) {
      const SnapshotReader* reader = Of(request->layer);
      if (reader == nullptr) {
        const auto closed = std::find_if(readers_.rbegin(), readers_.rend(), [&](const auto& of) {
          return of->layer() == request->layer;
        });
        request->status = closed != readers_.rend() && !(*closed)->status().ok()
                              ? (*closed)->status()
                              : Status(ErrorCode::kCancelled, "it was closed again");
      } else if (reader->phase() == SnapshotReader::Phase::kOpen) {
        request->size_bytes = reader->size_bytes();
      } else {
        continue;
      }
    }
    waiting_.Remove(request);
    request->done(request);
  }
}

BlockDevice* SnapshotReaders::Find(std::string_view name) {
  for (const auto& reader : readers_) {
    const bool open = reader->phase() == SnapshotReader::Phase::kOpen;
    if (open && reader->name() == name) return reader.get();
  }
  return nullptr;
}

bool SnapshotReaders::in_use(const std::string& layer) const {
  return std::any_of(readers_.begin(), readers_.end(), [&](const auto& reader) {
    return reader->layer() == layer && reader->in_use();
  });
}

const char* SnapshotReaders::Release(const std::string& layer) {
  if (in_use(layer)) return "it is being read by a client, as for an export";
  SnapshotReader* reader = Of(layer);
  if (reader != nullptr) reader->Close({ErrorCode::kCancelled, "it is to be deleted"});
  Sweep();
  const bool closing = std::any_of(readers_.begin(), readers_.end(),
                                   [&](const auto& of) { return of->layer() == layer; });
  return closing ? "members are just closing it" : nullptr;
}

void SnapshotReaders::Pump() {
  for (const auto& reader : readers_) reader->Pump();
}

// Not while somebody waits to be told what became of it.
void SnapshotReaders::Sweep() {
  if (!waiting_.empty()) return;
  std::erase_if(readers_, [](const auto& reader) { return reader->idle(); });
}

void SnapshotReaders::Look() {
  for (const auto& reader : readers_) {
    if (reader->expired()) reader->Close(Status::Ok());
  }
  Pump();
  Sweep();
}

void SnapshotReaders::OnLost(const Link& link) {
  for (const auto& reader : readers_) reader->OnLost(link);
}

void SnapshotReaders::Stop(const Status& why) {
  if (stopped_.ok()) stopped_ = why;
  for (const auto& reader : readers_) reader->Close(why);
  if (!waiting_.empty()) host_.reactor().Defer(&answer_task_);
}

// Clients that have not gone yet are the front end's: they keep nothing under way.
bool SnapshotReaders::idle() const {
  return waiting_.empty() && !answer_task_.scheduled &&
         std::all_of(readers_.begin(), readers_.end(),
                     [](const auto& reader) { return reader->quiet(); });
}

}  // namespace ankole::engine
