#include "engine/scripted_replica_testing.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "base/crc32c.h"
#include "wire/connection.h"
#include "wire/layers.h"

namespace ankole::engine::testing {

struct ScriptedReplica::Out {
  wire::OutgoingFrame frame;
  std::vector<std::byte> table;
  std::vector<std::byte> data;
  bool then_break = false;
};

struct ScriptedReplica::Held {
  Peer* peer;
  wire::Header header;
  std::vector<std::byte> payload;
};

struct ScriptedReplica::Peer final : wire::Connection::Handler {
  explicit Peer(ScriptedReplica& of) : owner(of), connection(of.reactor_, *this) {}
  ScriptedReplica& owner;
  wire::Connection connection;
  wire::HelloBytes hello = {};
  std::map<uint16_t, std::string> views;
  wire::Hello who;
  std::vector<std::byte> large;
  std::list<std::unique_ptr<Out>> out;
  bool welcomed = false;

  bool OnFrame(const wire::Header& header, const std::byte* payload, std::byte* bytes) override {
    return owner.OnFrame(*this, header, payload, bytes);
  }
  std::byte* LargeData(const wire::Header& header) override {
    if (owner.hung_) return nullptr;
    large.resize(header.length_bytes);
    return large.data();
  }
  void OnClosed(const Status&) override {
    std::erase_if(owner.held_, [this](const Held& held) { return held.peer == this; });
    std::erase_if(owner.peers_, [this](const auto& peer) { return peer.get() == this; });
  }
};

Judge::Judge() = default;

Judge::~Judge() = default;

Judge& Judge::operator=(Function function) {
  const std::lock_guard<std::mutex> lock(mutex_);
  function_ = std::move(function);
  return *this;
}

Judge& Judge::operator=(const Judge& other) { return *this = other.function_; }

Verdict Judge::operator()(const wire::Header& header) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return function_ ? function_(header) : Verdict{};
}

ScriptedReplica::ScriptedReplica(io::Reactor& reactor, wire::ReplicaId id, std::string path,
                                 uint64_t size_bytes, Note note)
    : reactor_(reactor), id_(id), path_(std::move(path)), note_(std::move(note)) {
  state.size_bytes = size_bytes;
  data.resize(size_bytes);
  accept_.owner = close_.owner = this;
  accept_.done = [](io::Operation* operation) {
    static_cast<ScriptedReplica*>(operation->owner)->OnAccepted();
  };
  close_.done = [](io::Operation* operation) {
    static_cast<ScriptedReplica*>(operation->owner)->listening_ = false;
  };
}

ScriptedReplica::~ScriptedReplica() = default;

void ScriptedReplica::Listen() {
  io::Address bound;
  auto listener = reactor_.Listen(io::Address::Parse(address()).Take(), &bound);
  CHECK(listener.ok());
  accept_.listener = close_.socket = listener.value();
  listening_ = true;
  reactor_.Accept(&accept_);
}

void ScriptedReplica::Unlisten() {
  reactor_.Close(&close_);
  Break();
}

void ScriptedReplica::End() {
  ending_ = true;
  if (listening_) reactor_.Close(&close_);
  Break();
}

bool ScriptedReplica::ended() const { return !listening_ && !accept_.in_flight && peers_.empty(); }

size_t ScriptedReplica::connections() const { return peers_.size(); }

size_t ScriptedReplica::held() const { return held_.size(); }

int ScriptedReplica::asked(wire::Opcode opcode) { return asked_[opcode]; }

void ScriptedReplica::Break() {
  for (const auto& peer : peers_) peer->connection.Close({ErrorCode::kCancelled, "as told"});
}

void ScriptedReplica::Wake() {
  hung_ = false;
  std::vector<Peer*> all;
  for (const auto& peer : peers_) all.push_back(peer.get());
  for (Peer* peer : all) peer->connection.Resume();
}

void ScriptedReplica::Release() {
  for (Held& held : std::exchange(held_, {})) Serve(*held.peer, held.header, held.payload, {});
}

std::string ScriptedReplica::Layers() const {
  std::string text;
  for (const Layer& layer : layers) {
    text += (text.empty() ? "" : ", ") + layer.name +
            (layer.removed  ? " (removed)"
             : layer.sealed ? ""
                            : " (unsealed)");
  }
  return text;
}

void ScriptedReplica::OnAccepted() {
  if (accept_.result < 0) return;
  peers_.push_back(std::make_unique<Peer>(*this));
  peers_.back()->connection.Start(accept_.accepted);
  if (ending_ || !listening_) {
    peers_.back()->connection.Close({ErrorCode::kCancelled, "the end"});
    return;
  }
  reactor_.Accept(&accept_);
}

bool ScriptedReplica::OnFrame(Peer& peer, const wire::Header& header, const std::byte* payload,
                              std::byte* bytes) {
  if (hung_) return false;
  ++asked_[header.opcode];
  std::vector<std::byte> copy;
  if (header.carries_data()) {
    CHECK(wire::DataMatches(header, payload, bytes));
    copy.assign(bytes, bytes + header.length_bytes);
  } else {
    copy.assign(payload, payload + header.payload_bytes);
  }
  const Verdict what = verdict(header);
  if (what.what == Verdict::What::kHold) {
    held_.push_back({&peer, header, std::move(copy)});
    return true;
  }
  Serve(peer, header, copy, what);
  return true;
}

std::vector<std::byte> ScriptedReplica::Extents(const wire::Header& header) const {
  std::vector<BlockExtent> extents;
  const uint64_t end = header.offset_bytes + header.length_bytes;
  for (uint64_t at = header.offset_bytes; at < end; at += kBlockBytes) {
    const bool hole = tells_holes && !written.contains(at / kBlockBytes);
    if (extents.empty() || extents.back().hole != hole) extents.push_back({0, hole, hole});
    extents.back().length_bytes += std::min<uint64_t>(kBlockBytes, end - at);
  }
  extents.resize(std::min<size_t>(extents.size(), wire::kStatusExtentsMax));
  std::vector<std::byte> encoded(extents.size() * wire::kEncodedExtentBytes);
  for (size_t i = 0; i < extents.size(); ++i) {
    wire::EncodeExtent(extents[i], encoded.data() + i * wire::kEncodedExtentBytes);
  }
  return encoded;
}

void ScriptedReplica::Serve(Peer& peer, const wire::Header& header,
                            const std::vector<std::byte>& payload, const Verdict& verdict_of) {
  using What = Verdict::What;
  if (verdict_of.what == What::kFail) {
    Answer(peer, header, verdict_of.error, {}, {});
    return;
  }
  const std::string name = wire::ReplicaIdText(id_).substr(14);
  switch (header.opcode) {
    case wire::Opcode::kHello: {
      if (hello_refusal.has_value()) {
        Answer(peer, header, hello_refusal->code(), {}, {});
        return;
      }
      auto hello = wire::DecodeHello(payload);
      CHECK(hello.ok());
      peer.who = hello.value();
      std::memcpy(peer.hello.data(), payload.data(), peer.hello.size());
      wire::Challenge challenge;
      reactor_.Random(challenge.nonce.data(), challenge.nonce.size());
      challenge.proof = wire::ReplicaProof(ParseSecret(kSecretText).Take(), peer.hello,
                                           wire::EncodeChallenge(challenge));
      const wire::ChallengeBytes encoded = wire::EncodeChallenge(challenge);
      Answer(peer, header, ErrorCode::kOk, {encoded.begin(), encoded.end()}, {});
      return;
    }
    case wire::Opcode::kInquire:
    case wire::Opcode::kWelcome: {
      if (header.opcode == wire::Opcode::kWelcome) {
        if (peer.who.epoch < state.welcomed) {
          Answer(peer, header, ErrorCode::kFenced, {}, {});
          return;
        }
        state.welcomed = peer.who.epoch;
        for (const auto& other : peers_) {
          if (other.get() == &peer || !other->welcomed) continue;
          other->connection.Close({ErrorCode::kFenced, "fenced"});
        }
        peer.welcomed = true;
        note_("welcome " + name);
      }
      const auto encoded = wire::EncodeReplicaState(state);
      Answer(peer, header, ErrorCode::kOk, {encoded.begin(), encoded.end()}, {});
      return;
    }
    case wire::Opcode::kRecord: {
      auto pair = wire::DecodeRecordPair(std::span<const std::byte, wire::kEncodedRecordPairBytes>(
          payload.data(), payload.size()));
      CHECK(pair.ok());
      const std::string& named = pair.value().current.newest_snapshot;
      const bool resynced = (header.flags & wire::kFlagResynced) != 0;
      if (named != state.records.current.newest_snapshot && !resynced) {
        if (prepared != named) {
          note_("not prepared at " + name);
          Answer(peer, header, ErrorCode::kInvalidArgument, {}, {});
          return;
        }
        prepared.reset();
        layers.push_back({named, false, false, data});
        state.unsealed = true;
        note_("switch at " + name);
      }
      for (const wire::ReplicaId id : state.records.current.members.all()) Leaves(pair.value(), id);
      for (const wire::ReplicaId id : pair.value().complete.members.all()) {
        Leaves(pair.value(), id);
      }
      for (const wire::ReplicaId id : pair.value().current.members.all()) missing.erase(id);
      if ((header.flags & wire::kFlagResynced) != 0) state.suspect = state.lost = false;
      if (state.records.current != pair.value().current &&
          (header.flags & wire::kFlagStillLost) == 0) {
        state.lost = false;
      }
      state.records = pair.value();
      note_("record " + std::to_string(state.records.current.generation) + " at " + name);
      break;
    }
    case wire::Opcode::kWrite:
      std::memcpy(data.data() + header.offset_bytes, payload.data(), payload.size());
      Touch(header);
      written_bytes += payload.size();
      note_("write " + std::to_string(header.offset_bytes) + " at " + name);
      break;
    case wire::Opcode::kZero:
    case wire::Opcode::kUnmap:
      std::memset(data.data() + header.offset_bytes, 0, header.length_bytes);
      Touch(header);
      if (header.opcode == wire::Opcode::kUnmap) {
        for (uint64_t b = DivideUp(header.offset_bytes, kBlockBytes);
             b < (header.offset_bytes + header.length_bytes) / kBlockBytes; ++b) {
          written.erase(b);
        }
      }
      break;
    case wire::Opcode::kStatus: {
      Answer(peer, header, ErrorCode::kOk, Extents(header), {});
      return;
    }
    case wire::Opcode::kStoreState:
      target_state = payload;
      note_("store state at " + name);
      break;
    case wire::Opcode::kLoadState:
    case wire::Opcode::kRead: {
      const Layer* of = ViewOf(header);
      if (of == nullptr && header.view != 0) {
        Answer(peer, header, ErrorCode::kNotFound, {}, {});
        return;
      }
      const std::vector<std::byte>& source = of != nullptr ? of->view : data;
      const std::byte* from = header.opcode == wire::Opcode::kRead
                                  ? source.data() + header.offset_bytes
                                  : target_state.data();
      std::vector<std::byte> bytes(from, from + header.length_bytes);
      std::vector<std::byte> table(BlocksTouched(header.offset_bytes, header.length_bytes) * 4);
      Crc32cBlocks(bytes.data(), header.offset_bytes, header.length_bytes,
                   reinterpret_cast<uint32_t*>(table.data()));
      if (verdict_of.what == What::kDamage) bytes[bytes.size() / 2] ^= std::byte{1};
      note_("read " + std::to_string(header.offset_bytes) + " at " + name);
      Answer(peer, header, ErrorCode::kOk, std::move(table), std::move(bytes), verdict_of.what);
      return;
    }
    case wire::Opcode::kBad:
      for (uint64_t b = header.offset_bytes / kBlockBytes;
           b * kBlockBytes < header.offset_bytes + header.length_bytes; ++b) {
        bad.insert(b);
      }
      break;
    case wire::Opcode::kExpand:
      if (wire::DecodeExpand(payload).value() > state.size_bytes) prepared.reset();
      state.size_bytes = std::max(state.size_bytes, wire::DecodeExpand(payload).value());
      data.resize(state.size_bytes);
      note_("expand " + std::to_string(state.size_bytes) + " at " + name);
      break;
    case wire::Opcode::kMark:
    case wire::Opcode::kClean:
    case wire::Opcode::kSum:
    case wire::Opcode::kMaps:
    case wire::Opcode::kMap:
    case wire::Opcode::kMissing:
    case wire::Opcode::kRecent:
      ServeRegions(peer, header, payload);
      return;
    case wire::Opcode::kLayers:
    case wire::Opcode::kPrepare:
    case wire::Opcode::kSeal:
    case wire::Opcode::kDelete:
    case wire::Opcode::kSwitch:
    case wire::Opcode::kView:
    case wire::Opcode::kCloseView:
    case wire::Opcode::kChanged:
      ServeLayers(peer, header, payload);
      return;
    case wire::Opcode::kClose:
      state.unclean = false;
      dirty.clear();
      note_("close " + name);
      break;
    default:
      break;
  }
  Answer(peer, header, ErrorCode::kOk, {}, {}, verdict_of.what);
  if (verdict_of.what == What::kTwice) Answer(peer, header, ErrorCode::kOk, {}, {});
}

void ScriptedReplica::ServeLayers(Peer& peer, const wire::Header& header,
                                  const std::vector<std::byte>& payload) {
  const std::string name = wire::ReplicaIdText(id_).substr(14);
  std::vector<std::byte> answer;
  ErrorCode status = ErrorCode::kOk;
  if (header.opcode == wire::Opcode::kLayers) {
    auto first = wire::DecodeLayersRequest(payload);
    CHECK(first.ok());
    for (size_t i = first.value(); i <= layers.size(); ++i) {
      if (answer.size() == wire::kLayerEntriesMax * wire::kLayerEntryBytes) break;
      wire::LayerEntry entry;
      if (i > 0) entry.parent = layers[i - 1].name;
      if (i < layers.size()) {
        entry.name = layers[i].name;
        entry.sealed = layers[i].sealed;
        entry.size_bytes = state.size_bytes;
        entry.removed = layers[i].removed;
      }
      answer.resize(answer.size() + wire::kLayerEntryBytes);
      wire::EncodeLayer(entry, answer.data() + answer.size() - wire::kLayerEntryBytes);
    }
  } else if (header.opcode == wire::Opcode::kPrepare) {
    auto prepare = wire::DecodePrepare(payload);
    CHECK(prepare.ok());
    const std::string wanted(prepare.value().name);
    const bool exists = std::any_of(layers.begin(), layers.end(),
                                    [&](const Layer& layer) { return layer.name == wanted; });
    if (exists) status = ErrorCode::kAlreadyExists;
    if (!layers.empty() && !layers.back().sealed && !layers.back().removed) {
      status = ErrorCode::kBusy;
    }
    if (status == ErrorCode::kOk) prepared = wanted;
    note_("prepare " + wanted + " at " + name);
  } else if (header.opcode == wire::Opcode::kView) {
    auto view = wire::DecodeViewRequest(payload);
    CHECK(view.ok());
    status = ErrorCode::kNotFound;
    for (size_t i = 0; i < layers.size(); ++i) {
      if (layers[i].name != view.value().layer || layers[i].removed) continue;
      status = ErrorCode::kOk;
      peer.views[++view_id] = layers[i].name;
      answer.resize(wire::kViewAnswerBytesMax);
      answer.resize(wire::EncodeViewAnswer({view_id, R"({"k":"v"})"}, answer.data()));
      note_("view " + layers[i].name + " at " + name);
    }
  } else if (header.opcode == wire::Opcode::kCloseView) {
    auto id = wire::DecodeViewId(payload);
    CHECK(id.ok());
    status = peer.views.erase(id.value()) == 1 ? ErrorCode::kOk : ErrorCode::kNotFound;
    note_("close view at " + name);
  } else if (header.opcode == wire::Opcode::kChanged) {
    auto changed = wire::DecodeChangedRequest(payload);
    CHECK(changed.ok());
    const auto view_of = [&](std::string_view of) -> const std::vector<std::byte>* {
      for (const Layer& layer : layers) {
        if (layer.name == of) return &layer.view;
      }
      return nullptr;
    };
    const std::vector<std::byte>* base = view_of(changed.value().base);
    const std::vector<std::byte>* upper =
        changed.value().layer.empty() ? &data : view_of(changed.value().layer);
    if (base == nullptr || upper == nullptr) {
      status = ErrorCode::kNotFound;
    } else {
      std::set<uint32_t> regions;
      for (size_t at = 0; at < data.size(); ++at) {
        if ((*base)[at] != (*upper)[at]) regions.insert(static_cast<uint32_t>(at / kRegionBytes));
      }
      answer.resize(kControlPayloadBytesMax);
      answer.resize(wire::EncodeRegionRuns(RunsOf(regions, changed.value().first), answer.data()));
    }
    note_("changed at " + name);
  } else if (header.opcode == wire::Opcode::kSwitch) {
    auto one = wire::DecodeOneLayer(payload);
    CHECK(one.ok());
    if (prepared != std::string(one.value())) {
      status = ErrorCode::kNotFound;
    } else {
      prepared.reset();
      // What was removed is merged with what stands on it now.
      std::erase_if(layers, [](const Layer& layer) { return layer.removed; });
      layers.push_back({std::string(one.value()), true, false, data, bad});
    }
    note_("switch to " + std::string(one.value()) + " at " + name);
  } else {
    auto one = wire::DecodeOneLayer(payload);
    CHECK(one.ok());
    const bool seal = header.opcode == wire::Opcode::kSeal;
    status = seal ? ErrorCode::kNotFound : ErrorCode::kOk;
    for (Layer& layer : layers) {
      if (layer.name != one.value()) continue;
      const bool viewed = std::any_of(peers_.begin(), peers_.end(), [&](const auto& of) {
        return std::any_of(of->views.begin(), of->views.end(),
                           [&](const auto& entry) { return entry.second == layer.name; });
      });
      if (viewed && !seal) {
        status = ErrorCode::kBusy;
        continue;
      }
      (seal ? layer.sealed : layer.removed) = true;
      status = ErrorCode::kOk;
    }
    state.unsealed = !layers.empty() && !layers.back().sealed && !layers.back().removed;
    note_((seal ? "seal " : "delete ") + std::string(one.value()) + " at " + name);
  }
  Answer(peer, header, status, std::move(answer), {});
}

const ScriptedReplica::Layer* ScriptedReplica::ViewOf(const wire::Header& header) const {
  for (const auto& peer : peers_) {
    const auto open = peer->views.find(header.view);
    if (open == peer->views.end()) continue;
    for (const Layer& layer : layers) {
      if (layer.name == open->second) return &layer;
    }
  }
  return nullptr;
}

void ScriptedReplica::Touch(const wire::Header& header) {
  state.unclean = true;
  state.fresh = false;
  const uint64_t end = header.offset_bytes + header.length_bytes;
  for (uint64_t r = header.offset_bytes / kRegionBytes; r < DivideUp(end, kRegionBytes); ++r) {
    MarkDirty(static_cast<uint32_t>(r));
  }
  for (uint64_t b = header.offset_bytes / kBlockBytes; b < DivideUp(end, kBlockBytes); ++b) {
    bad.erase(b);
    written.insert(b);
  }
}

void ScriptedReplica::MarkDirty(uint32_t region) {
  dirty.insert(region);
  ever_dirty.insert(region);
  for (auto& [id, map] : missing) map.regions.insert(region);
}

void ScriptedReplica::Leaves(const wire::RecordPair& pair, wire::ReplicaId id) {
  if (id == id_ || pair.current.members.Contains(id) || missing.contains(id)) return;
  missing[id] = {pair.complete, dirty};
}

std::vector<wire::RegionRun> ScriptedReplica::RunsOf(const std::set<uint32_t>& regions,
                                                     uint32_t from) {
  std::vector<wire::RegionRun> runs;
  for (auto at = regions.lower_bound(from); at != regions.end(); ++at) {
    if (!runs.empty() && runs.back().first + runs.back().count == *at) {
      ++runs.back().count;
    } else if (runs.size() == wire::kRegionRunsMax) {
      break;
    } else {
      runs.push_back({*at, 1});
    }
  }
  return runs;
}

void ScriptedReplica::ServeRegions(Peer& peer, const wire::Header& header,
                                   const std::vector<std::byte>& payload) {
  std::vector<std::byte> answer(kControlPayloadBytesMax);
  size_t bytes = 0;
  switch (header.opcode) {
    case wire::Opcode::kMark: {
      auto runs = wire::RegionRuns::Decode(payload);
      CHECK(runs.ok());
      for (const wire::RegionRun& run : runs.value().ToVector()) {
        for (uint32_t i = 0; i < run.count; ++i) MarkDirty(run.first + i);
      }
      state.unclean = true;
      note_("mark at " + wire::ReplicaIdText(id_).substr(14));
      break;
    }
    case wire::Opcode::kClean: {
      auto clean = wire::DecodeClean(payload);
      CHECK(clean.ok());
      if (clean.value().epoch != state.records.current.epoch ||
          clean.value().generation != state.records.current.generation) {
        Answer(peer, header, ErrorCode::kInvalidArgument, {}, {});
        return;
      }
      state.records.complete = state.records.current;
      for (uint64_t i = 0; i < header.length_bytes / kRegionBytes; ++i) {
        const auto region = static_cast<uint32_t>(header.offset_bytes / kRegionBytes + i);
        dirty.erase(region);
        for (const wire::ReplicaId id : clean.value().ids.all()) {
          if (missing.contains(id)) missing[id].regions.erase(region);
        }
      }
      note_("clean " + std::to_string(header.offset_bytes / kRegionBytes) + " at " +
            wire::ReplicaIdText(id_).substr(14));
      break;
    }
    case wire::Opcode::kSum: {
      const Layer* of = ViewOf(header);
      if (of == nullptr && header.view != 0) {
        Answer(peer, header, ErrorCode::kNotFound, {}, {});
        return;
      }
      const std::vector<std::byte>& source = of != nullptr ? of->view : data;
      const std::set<uint64_t>& bad_blocks = of != nullptr ? of->bad : bad;
      const auto blocks = static_cast<uint32_t>(DivideUp(header.length_bytes, kBlockBytes));
      wire::SumsEncoder encoder(answer.data(), blocks);
      const uint64_t first = header.offset_bytes / kBlockBytes;
      for (uint32_t i = 0; i < blocks; ++i) {
        const uint64_t at = (first + i) * kBlockBytes;
        encoder.Set(i,
                    Crc32c(source.data() + at, std::min<uint64_t>(kBlockBytes, data.size() - at)),
                    of == nullptr && !written.contains(first + i), bad_blocks.contains(first + i));
      }
      summed_bytes += header.length_bytes;
      bytes = wire::SumsBytes(blocks);
      break;
    }
    case wire::Opcode::kMaps: {
      wire::RegionMaps maps;
      maps.dirty_regions = dirty.size();
      for (const auto& [id, map] : missing) maps.slots[maps.count++] = {id, map.record};
      bytes = wire::EncodeRegionMaps(maps, answer.data());
      break;
    }
    case wire::Opcode::kMap: {
      auto request = wire::DecodeMapRequest(payload);
      CHECK(request.ok());
      if (request.value().id != 0 && !missing.contains(request.value().id)) {
        Answer(peer, header, ErrorCode::kNotFound, {}, {});
        return;
      }
      const auto& regions = request.value().id == 0 ? dirty : missing[request.value().id].regions;
      bytes = wire::EncodeRegionRuns(RunsOf(regions, request.value().first), answer.data());
      break;
    }
    case wire::Opcode::kMissing: {
      auto asked = wire::DecodeMissing(payload);
      CHECK(asked.ok());
      const wire::MissingRequest& request = asked.value().request;
      if (request.what == wire::MissingRequest::What::kFree) {
        missing.erase(request.id);
        break;
      }
      if (!missing.contains(request.id)) missing[request.id].regions = dirty;
      missing[request.id].record = request.record;
      for (const wire::RegionRun& run : asked.value().runs.ToVector()) {
        for (uint32_t i = 0; i < run.count; ++i) missing[request.id].regions.insert(run.first + i);
      }
      break;
    }
    default: {
      const auto runs = recent ? RunsOf(*recent, 0) : std::vector<wire::RegionRun>();
      bytes = wire::EncodeRecent(recent.has_value(), runs, answer.data());
      break;
    }
  }
  answer.resize(bytes);
  Answer(peer, header, ErrorCode::kOk, std::move(answer), {});
}

void ScriptedReplica::Answer(Peer& peer, const wire::Header& to, ErrorCode status,
                             std::vector<std::byte> table, std::vector<std::byte> bytes,
                             Verdict::What what) {
  if (!peer.connection.open()) return;
  auto out = std::make_unique<Out>();
  out->table = std::move(table);
  out->data = std::move(bytes);
  wire::Header header;
  header.opcode = to.opcode;
  header.reply = true;
  header.status = status;
  header.tag = what == Verdict::What::kWrongTag ? to.tag + 1'000'000 : to.tag;
  header.slot = to.slot;
  header.offset_bytes = to.offset_bytes;
  header.length_bytes = to.length_bytes;
  header.payload_bytes = static_cast<uint32_t>(out->table.size() + out->data.size());
  header.payload_crc32c = Crc32c(out->table.data(), out->table.size());
  wire::EncodeHeader(header, out->frame.header);
  out->frame.table = out->table.data();
  out->frame.table_bytes = static_cast<uint32_t>(out->table.size());
  out->frame.data = out->data.data();
  out->frame.data_bytes = static_cast<uint32_t>(out->data.size());
  if (what == Verdict::What::kHalfAndBreak) {
    out->then_break = true;
    out->frame.data_bytes /= 2;
  }
  out->frame.owner = &peer;
  out->frame.sent = [](wire::OutgoingFrame* frame) {
    auto* self = static_cast<Peer*>(frame->owner);
    const auto found = std::find_if(self->out.begin(), self->out.end(),
                                    [&](const auto& one) { return &one->frame == frame; });
    if ((*found)->then_break) self->connection.Close({ErrorCode::kCancelled, "as told"});
    self->out.erase(found);
  };
  wire::OutgoingFrame* frame = &out->frame;
  peer.out.push_back(std::move(out));
  peer.connection.Push(frame);
}

}  // namespace ankole::engine::testing
