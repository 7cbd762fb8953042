#include "sim/clone_volume.h"

#include <algorithm>
#include <utility>

#include "replica/clone.h"
#include "replica/disk_directory.h"
#include "sim/rot.h"

// The disk host's part: it is made, looked at, and deleted. clone_use.cc has the rest.
namespace ankole::sim {
namespace {

constexpr wire::ReplicaId kFirstId = 0x1000;
constexpr uint64_t kAgainNs = 200 * kNsPerMs;
constexpr uint64_t kFailuresMax = 20;

wire::Members MembersOf(wire::ReplicaId id) {
  wire::Members members;
  members.Add(id);
  return members;
}

uint64_t NumberOfDisk(Machine& machine) {
  InodePtr inode;
  return machine.disk.Lookup("/disk", &inode) < 0 ? 0 : inode->number;
}

}  // namespace

CloneVolume::CloneVolume(Cluster& cluster, uint64_t number, Source source, uint64_t seed)
    : cluster_(cluster),
      world_(cluster.world),
      random_(seed),
      name_("clone-" + std::to_string(number)),
      id_(kFirstId + number),
      directory_(replica::ReplicaDirectory("/disk", name_, id_)),
      source_(std::move(source)),
      size_bytes_(random_.Chance(1, 2) ? cluster.options.size_bytes : cluster.wanted_bytes()),
      direct_(random_.Chance(1, 4)),
      model_(std::make_unique<RegisterModel>(cluster.options.size_bytes)) {
  random_.Fill(secret_.data(), secret_.size());
  disk_number_ = NumberOfDisk(machine());
  const uint64_t began = world_.Tick();
  for (uint64_t sector = 0; sector < source_.values.size(); ++sector) {
    if (source_.values[sector] == 0) continue;
    held_.push_back(sector);
    model_->RevertBegins(sector, source_.values[sector], began);
  }
  (void)model_->WriteEnds(0, cluster.options.size_bytes, began, world_.Tick(), /*durable=*/true);
  CHECK(store_.Put(replica::FirstRecordOfClone(MembersOf(id_))).ok());
  Trace("of snapshot " + source_.snapshot + " at " + machine().name());
}

std::string CloneVolume::Describe() const {
  static constexpr const char* kStates[] = {"to be made", "being made", "made", "being deleted",
                                            "gone"};
  std::string text = name_ + " at " + machine().name() + " is " +
                     kStates[static_cast<size_t>(state_)] + " (" + std::to_string(failures_) +
                     " failures)";
  if (engine_ != nullptr) {
    const engine::EngineReport report = engine_->engine().Report();
    text += std::string(", its engine ") + report.state + ": " + report.message;
  }
  return text;
}

void CloneVolume::Finding(const std::string& what) {
  world_.Finding(name_ + " of snapshot " + source_.snapshot + " at " + machine().name() + ": " +
                 what);
}

void CloneVolume::Trace(const std::string& what) const {
  if (world_.tracing()) world_.Trace(name_, what);
}

DiskHostProcess* CloneVolume::Host() {
  DiskHostProcess* const host = cluster_.disk_host(source_.replica);
  return host != nullptr && host->alive() && host->ready() && machine().up() ? host : nullptr;
}

// What it was asked nobody answers any more.
bool CloneVolume::HostLost() { return asked_ != Host(); }

bool CloneVolume::IsThere() {
  InodePtr inode;
  return machine().disk.Lookup(directory_, &inode) == 0;
}

bool CloneVolume::DiskReplaced() { return NumberOfDisk(machine()) != disk_number_; }

void CloneVolume::Go(State state) {
  state_ = state;
  asked_ = nullptr;
}

void CloneVolume::Step() {
  if (state_ == State::kGone) {
    if (IsThere() && !DiskReplaced() && Trusted()) Finding("it was deleted, and is there again");
    return;
  }
  if (engine_ != nullptr && !engine_->reactor.alive()) EngineGone();
  const DiskHostProcess* const host = cluster_.disk_host(source_.replica);
  crashed_ |= last_host_ != nullptr && host != last_host_;
  last_host_ = host;
  if (DiskReplaced() || !Trusted()) {
    closing_ = true;
    if (engine_ != nullptr) EndEngine();
    if (reaping_ && machine().boots() == boots_) return;
    if (DiskReplaced()) return Go(State::kGone);
    if (state_ != State::kRemoving) Go(State::kRemoving);
  }
  if (state_ == State::kMade && !IsThere()) {
    return Finding("it was made, and is not there any more");
  }
  if (world_.now_ns() < wait_until_ns_) return;
  switch (state_) {
    case State::kUnsure:
      if (Host() == nullptr || paused_) return;
      CheckWhole();
      if (world_.failed()) return;
      if (closing_ || failures_ > kFailuresMax) return Go(State::kRemoving);
      return Make();
    case State::kMaking:
      if (HostLost()) Go(State::kUnsure);
      return;
    case State::kMade:
      return StepMade();
    case State::kRemoving:
      if (asked_ != nullptr && HostLost()) asked_ = nullptr;
      if (asked_ == nullptr && Host() != nullptr) Remove();
      return;
    case State::kGone:
      return;
  }
}

void CloneVolume::Make() {
  Trace("is to be made");
  Go(State::kMaking);
  asked_ = Host();
  Json message =
      Json::Object()
          .Set("op", "create-replica")
          .Set("volume", name_)
          .Set("id", wire::ReplicaIdText(id_))
          .Set("sizeBytes", size_bytes_)
          .Set("secret", SecretText(secret_))
          .Set("cache", direct_ ? "direct" : "buffered")
          .Set("clone",
               Json::Object()
                   .Set("volume", kVolumeName)
                   .Set("replica", wire::ReplicaIdText(cluster_.replica_id(source_.replica)))
                   .Set("layer", source_.snapshot)
                   .Set("members", Json::Array().Append(wire::ReplicaIdText(id_))));
  const uint64_t ask = ++asks_;
  asked_->Ask(std::move(message), [this, ask](const Status& status) {
    if (ask == asks_ && state_ == State::kMaking) Made(status);
  });
}

void CloneVolume::Made(const Status& status) {
  Trace(status.ok() ? "is made" : "is not made: " + status.message());
  world_.Mix(static_cast<uint64_t>(status.code()));
  if (!status.ok()) return Refused(status);
  Go(State::kMade);
  failures_ = 0;
  wait_until_ns_ = world_.now_ns() + random_.Skewed(0, kNsPerSecond);
  CheckWhole();
}

void CloneVolume::Refused(const Status& status) {
  Go(State::kUnsure);
  ++failures_;
  wait_until_ns_ = world_.now_ns() + kAgainNs;
  if (status.code() == ErrorCode::kNotFound || status.code() == ErrorCode::kInvalidArgument) {
    const wire::ReplicaId id = cluster_.replica_id(source_.replica);
    const bool member = cluster_.complete().members.Contains(id) && cluster_.targets().Contains(id);
    // It was deleted by then, was not there, or is of a volume that has grown since; what is there
    // by an attempt before goes.
    closing_ = true;
    if (status.code() == ErrorCode::kInvalidArgument ? size_bytes_ < cluster_.options.size_bytes
                                                     : !member || !source_.lives()) {
      return;
    }
  }
  const bool passes = status.code() == ErrorCode::kBusy || status.code() == ErrorCode::kSuspect ||
                      status.code() == ErrorCode::kUnavailable ||
                      (status.code() == ErrorCode::kNoSpace && machine().was_full);
  if (!passes && Trusted()) Finding("it cannot be made: " + status.message());
}

// As long as nobody has had it open.
void CloneVolume::CheckWhole() {
  if (attached_ || !Trusted() || !IsThere()) return;
  const Result<LayersNow> layers = LayersNow::Read(machine().disk, directory_, false);
  if (!layers.ok()) return Finding("it is there in part: " + layers.status().message());
  const Result<ViewValues> values =
      ReadView(cluster_, machine().disk, directory_, layers.value(), 0);
  if (!values.ok()) return Finding("it cannot be read: " + values.status().message());
  const std::string difference = Difference(source_.values, values.value());
  if (!difference.empty()) Finding("it is not what the snapshot is: " + difference);
}

void CloneVolume::Remove() {
  Trace("is to be deleted");
  asked_ = Host();
  const uint64_t ask = ++asks_;
  asked_->Ask(Json::Object()
                  .Set("op", "remove-replica")
                  .Set("volume", name_)
                  .Set("id", wire::ReplicaIdText(id_)),
              [this, ask](const Status& status) {
                if (ask == asks_ && state_ == State::kRemoving) Removed(status);
              });
}

void CloneVolume::Removed(const Status& status) {
  Trace(status.ok() ? "is deleted" : "is not deleted: " + status.message());
  if (!status.ok()) {
    asked_ = nullptr;
    wait_until_ns_ = world_.now_ns() + kAgainNs;
    return;
  }
  if (IsThere()) return Finding("it was deleted, and is there");
  Go(State::kGone);
  model_.reset();
  requests_.clear();
}

}  // namespace ankole::sim
