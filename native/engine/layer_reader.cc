#include "engine/layer_reader.h"

#include <algorithm>
#include <set>
#include <string_view>

namespace ankole::engine {

bool IsTree(std::span<const wire::LayerEntry> layers) {
  std::set<std::string_view> names;
  for (size_t i = 0; i < layers.size(); ++i) {
    const wire::LayerEntry& layer = layers[i];
    const bool head = layer.name.empty();
    if (head != (i + 1 == layers.size())) return false;
    if (!layer.parent.empty() && !names.contains(layer.parent)) return false;
    if (!head && !names.insert(layer.name).second) return false;
  }
  return !layers.empty();
}

LayerReader::LayerReader(ResyncHost& host) : host_(host) {
  errand_.opcode = wire::Opcode::kLayers;
  errand_.payload = request_.data();
  errand_.payload_bytes = static_cast<uint32_t>(request_.size());
  errand_.owner = this;
  errand_.take = [](Errand* errand, std::span<const std::byte> payload) {
    return static_cast<LayerReader*>(errand->owner)->Take(payload);
  };
  errand_.done = [](Errand* errand) { static_cast<LayerReader*>(errand->owner)->OnAnswer(); };
}

void LayerReader::Read(Link* link, Done done) {
  CHECK(!busy());
  done_ = done;
  errand_.link = link;
  layers_.clear();
  tries_ = 1;
  Send();
}

void LayerReader::Send() {
  const size_t first = layers_.empty() ? 0 : layers_.size() - 1;
  request_ = wire::EncodeLayersRequest(static_cast<uint32_t>(first));
  moved_ = whole_ = false;
  host_.SendErrand(&errand_);
}

Status LayerReader::Take(std::span<const std::byte> payload) {
  Result<std::vector<wire::LayerEntry>> page = wire::DecodeLayers(payload);
  if (!page.ok()) return page.status();
  const std::vector<wire::LayerEntry>& entries = page.value();
  size_t overlap = 0;
  if (!layers_.empty()) {
    // What a file takes up may change at any time.
    moved_ = entries.empty() || entries[0].name != layers_.back().name ||
             entries[0].parent != layers_.back().parent;
    if (moved_) return Status::Ok();
    overlap = 1;
  }
  if (layers_.size() + entries.size() > kLayersMax + 1) {
    return {ErrorCode::kProtocolError, "more layers than a replica may have"};
  }
  layers_.insert(layers_.end(), entries.begin() + static_cast<ptrdiff_t>(overlap), entries.end());
  whole_ = entries.size() < wire::kLayerEntriesMax;
  moved_ = whole_ && !IsTree(layers_);
  return Status::Ok();
}

void LayerReader::OnAnswer() {
  ErrorCode status = errand_.status;
  if (status == ErrorCode::kUnsupported) {
    layers_.clear();
    done_(this, ErrorCode::kOk);
    return;
  }
  if (status == ErrorCode::kOk && moved_) {
    layers_.clear();
    if (++tries_ > kTriesMax) status = ErrorCode::kBusy;
  } else if (status == ErrorCode::kOk && whole_) {
    done_(this, ErrorCode::kOk);
    return;
  }
  if (status == ErrorCode::kOk && !errand_.link->up()) status = ErrorCode::kConnectionLost;
  if (status != ErrorCode::kOk) {
    done_(this, status);
    return;
  }
  Send();
}

}  // namespace ankole::engine
