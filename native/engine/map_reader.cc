#include "engine/map_reader.h"

#include <algorithm>

namespace ankole::engine {

void MapReader::Begin(Link* link, wire::Opcode opcode, Done done) {
  CHECK(!busy());
  done_ = done;
  next_ = 0;
  errand_.link = link;
  errand_.opcode = opcode;
  errand_.payload = payload_.data();
  errand_.owner = this;
  errand_.take = [](Errand* errand, std::span<const std::byte> payload) {
    return static_cast<MapReader*>(errand->owner)->Take(payload);
  };
  errand_.done = [](Errand* errand) { static_cast<MapReader*>(errand->owner)->OnAnswer(); };
}

void MapReader::ReadMap(Link* link, wire::ReplicaId id, RegionSet* into, Done done) {
  Begin(link, wire::Opcode::kMap, done);
  id_ = id;
  into_ = into;
  SendMap();
}

void MapReader::ReadRecent(Link* link, RegionSet* into, bool* known, Done done) {
  Begin(link, wire::Opcode::kRecent, done);
  into_ = into;
  known_ = known;
  Send(0);
}

void MapReader::ReadMaps(Link* link, wire::RegionMaps* into, Done done) {
  Begin(link, wire::Opcode::kMaps, done);
  maps_ = into;
  Send(0);
}

void MapReader::Mark(Link* link, const RegionSet* regions, Done done) {
  Begin(link, wire::Opcode::kMark, done);
  regions_ = regions;
  SendRuns();
}

void MapReader::BeginMissing(Link* link, const wire::MissingRequest& request,
                             const RegionSet* regions, Done done) {
  Begin(link, wire::Opcode::kMissing, done);
  missing_ = request;
  regions_ = regions;
  SendRuns();
}

void MapReader::FreeMissing(Link* link, wire::ReplicaId id, Done done) {
  Begin(link, wire::Opcode::kMissing, done);
  missing_ = {id, wire::MissingRequest::What::kFree, {}};
  next_ = RegionSet::kNone;
  Send(wire::EncodeMissing(missing_, {}, payload_.data()));
}

void MapReader::ReadChanged(Link* link, const std::string& base, const std::string& layer,
                            RegionSet* into, Done done) {
  Begin(link, wire::Opcode::kChanged, done);
  base_ = base;
  layer_ = layer;
  into_ = into;
  SendChanged();
}

void MapReader::SendChanged() {
  const auto request = wire::EncodeChangedRequest({base_, layer_, static_cast<uint32_t>(next_)});
  std::copy(request.begin(), request.end(), payload_.begin());
  Send(request.size());
}

void MapReader::SendMap() {
  const auto request = wire::EncodeMapRequest({id_, static_cast<uint32_t>(next_)});
  std::copy(request.begin(), request.end(), payload_.begin());
  Send(request.size());
}

// The next runs of `regions_`.
void MapReader::SendRuns() {
  std::array<RegionRun, wire::kRegionRunsMax> runs;
  size_t count = 0;
  uint64_t region = regions_->Next(next_);
  while (region != RegionSet::kNone && count < runs.size()) {
    uint64_t end = region + 1;
    while (end < regions_->size() && regions_->Contains(end)) ++end;
    runs[count++] = {static_cast<uint32_t>(region), static_cast<uint32_t>(end - region)};
    region = regions_->Next(end);
  }
  next_ = region;
  const std::span<const RegionRun> sent(runs.data(), count);
  Send(errand_.opcode == wire::Opcode::kMark
           ? wire::EncodeRegionRuns(sent, payload_.data())
           : wire::EncodeMissing(missing_, sent, payload_.data()));
}

void MapReader::Send(size_t payload_bytes) {
  errand_.payload_bytes = static_cast<uint32_t>(payload_bytes);
  host_.SendErrand(&errand_);
}

Status MapReader::AddRuns(const wire::RegionRuns& runs) {
  for (size_t i = 0; i < runs.size(); ++i) into_->Add(runs[i]);
  return Status::Ok();
}

Status MapReader::Take(std::span<const std::byte> payload) {
  switch (errand_.opcode) {
    case wire::Opcode::kMap:
    case wire::Opcode::kChanged: {
      Result<wire::RegionRuns> runs = wire::RegionRuns::Decode(payload);
      if (!runs.ok()) return runs.status();
      // A peer that answers the same again and again is not followed.
      const bool more = runs.value().size() == wire::kRegionRunsMax && runs.value().end() > next_;
      next_ = more ? runs.value().end() : RegionSet::kNone;
      return AddRuns(runs.value());
    }
    case wire::Opcode::kRecent: {
      Result<wire::Recent> recent = wire::DecodeRecent(payload);
      if (!recent.ok()) return recent.status();
      *known_ = recent.value().known;
      next_ = RegionSet::kNone;
      return AddRuns(recent.value().runs);
    }
    case wire::Opcode::kMaps: {
      Result<wire::RegionMaps> maps = wire::DecodeRegionMaps(payload);
      if (!maps.ok()) return maps.status();
      *maps_ = maps.value();
      next_ = RegionSet::kNone;
      return Status::Ok();
    }
    default:
      return Status::Ok();  // MARK and MISSING are answered with nothing
  }
}

void MapReader::OnAnswer() {
  const bool more = errand_.status == ErrorCode::kOk && next_ != RegionSet::kNone;
  if (!more) {
    done_(this, errand_.status);
  } else if (!errand_.link->up()) {
    done_(this, ErrorCode::kConnectionLost);
  } else if (errand_.opcode == wire::Opcode::kMap) {
    SendMap();
  } else if (errand_.opcode == wire::Opcode::kChanged) {
    SendChanged();
  } else {
    SendRuns();
  }
}

}  // namespace ankole::engine
