#include <map>
#include <string>

#include "engine/joiner.h"

// Whether a joiner has the snapshots that members have (rule 8).
namespace ankole::engine {
namespace {

// Those that count, and whether they are durable everywhere.
std::map<std::string, bool> SnapshotsOf(const std::vector<wire::LayerEntry>& layers) {
  std::map<std::string, bool> snapshots;
  for (const wire::LayerEntry& layer : layers) {
    if (!layer.name.empty() && !layer.removed) snapshots[layer.name] = layer.sealed;
  }
  return snapshots;
}

void AddName(std::string* text, const std::string& name) {
  *text += (text->empty() ? "" : ", ") + name;
}

// What the joiner's must become first; empty: nothing.
std::string Differences(const std::map<std::string, bool>& members,
                        const std::map<std::string, bool>& joiners) {
  std::string lacks;
  std::string unsealed;
  std::string more;
  for (const auto& [name, sealed] : members) {
    const auto found = joiners.find(name);
    if (found == joiners.end()) {
      AddName(&lacks, name);
    } else if (found->second != sealed) {
      AddName(&unsealed, name);
    }
  }
  for (const auto& [name, sealed] : joiners) {
    if (!members.contains(name)) AddName(&more, name);
  }
  std::string text;
  const auto add = [&text](const char* what, const std::string& names) {
    if (!names.empty()) text += (text.empty() ? "" : "; ") + std::string(what) + names;
  };
  add("it lacks the snapshots ", lacks);
  add("it has not finished the snapshots ", unsealed);
  add("it has snapshots that members do not have: ", more);
  return text;
}

}  // namespace

void Joiner::AskLayers() {
  phase_ = Phase::kLayers;
  Link* member = nullptr;
  for (const auto& other : host_.links()) {
    if (host_.IsStaying(other->index()) && other->up()) member = other.get();
  }
  if (member == nullptr) {
    LetGo({ErrorCode::kCancelled, "no member can be asked for its snapshots"});
    return;
  }
  ReadLayers(member);
}

void Joiner::ReadLayers(Link* link) {
  layer_reader_.Read(link, [](LayerReader* self, ErrorCode status) {
    static_cast<Joiner*>(self->owner)->OnLayers(status);
  });
}

// Rule 8: a member has every layer. One that differs must not become a member, whatever its head is
// made equal to.
void Joiner::OnLayers(ErrorCode status) {
  if (phase_ != Phase::kLayers) return Next();
  const bool own = layer_reader_.link() == link_;
  if (status != ErrorCode::kOk) {
    LetGo({own ? status : ErrorCode::kCancelled,
           std::string(own ? "it does not tell its snapshots: "
                           : "a member does not tell its snapshots: ") +
               ErrorCodeName(status)});
    return;
  }
  if (!own) {
    member_layers_ = layer_reader_.layers();
    ReadLayers(link_);
    return;
  }
  const std::string differences =
      Differences(SnapshotsOf(member_layers_), SnapshotsOf(layer_reader_.layers()));
  member_layers_.clear();
  if (!differences.empty()) {
    LetGo({ErrorCode::kUnsupported, differences});
    return;
  }
  AskMaps();
}

}  // namespace ankole::engine
