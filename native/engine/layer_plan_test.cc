#include "engine/layer_plan.h"

#include "base/test.h"

namespace ankole::engine {
namespace {

// «name» or «name@seconds», then ! for one that is not sealed, - for one that is removed; each
// stands on the one before it, and the head on the last.
std::vector<wire::LayerEntry> Chain(const std::vector<std::string>& texts) {
  std::vector<wire::LayerEntry> layers;
  std::string under;
  for (std::string text : texts) {
    wire::LayerEntry layer;
    layer.sealed = true;
    while (text.ends_with('!') || text.ends_with('-')) {
      (text.back() == '!' ? layer.sealed : layer.removed) = text.back() == '-';
      text.pop_back();
    }
    const size_t at = text.find('@');
    layer.name = text.substr(0, at);
    layer.created_seconds = at == std::string::npos ? 1 : std::stoull(text.substr(at + 1));
    layer.parent = under;
    under = layer.name;
    layers.push_back(layer);
  }
  layers.push_back({});
  layers.back().parent = under;
  return layers;
}

std::string Plan(const std::vector<std::string>& members, const std::vector<std::string>& joiners,
                 const std::string& newest = "") {
  const Result<LayerPlan> plan = PlanLayers(Chain(members), Chain(joiners), newest);
  if (!plan.ok()) return std::string(ErrorCodeName(plan.status().code()));
  std::string text;
  for (const std::string& name : plan.value().deletes) text += "-" + name + " ";
  if (!plan.value().base.empty()) text += "on " + plan.value().base + " ";
  for (const wire::LayerEntry& layer : plan.value().missing) text += "+" + layer.name + " ";
  if (plan.value().blocked) text += "blocked ";
  if (plan.value().older) text += "older ";
  return text.empty() ? text : text.substr(0, text.size() - 1);
}

TEST(engine_layer_plan, WhatIsTheSameStays) {
  EXPECT_EQ(Plan({}, {}), "");
  EXPECT_EQ(Plan({"a", "b"}, {"a", "b"}), "on b");
  EXPECT_EQ(Plan({"a", "x-", "b"}, {"a", "b"}), "on b");
  EXPECT_EQ(Plan({"a@0"}, {"a@7"}), "on a");
}

TEST(engine_layer_plan, WhatIsLackingIsGiven) {
  EXPECT_EQ(Plan({"a", "b", "c"}, {"a"}), "on a +b +c");
  EXPECT_EQ(Plan({"a", "b"}, {}), "+a +b");
  // A layer that waits to be merged is no snapshot.
  EXPECT_EQ(Plan({"a", "b-", "c"}, {"a"}), "on a +c");
}

TEST(engine_layer_plan, WhatIsTooMuchIsDeleted) {
  EXPECT_EQ(Plan({"a"}, {"a", "b", "c"}), "-c -b on a");
  EXPECT_EQ(Plan({"b"}, {"a", "b"}), "-a on b");
  EXPECT_EQ(Plan({}, {"a", "b-"}), "-a");
}

TEST(engine_layer_plan, WhatStandsAboveOneThatIsLackingIsGivenAnew) {
  EXPECT_EQ(Plan({"a", "b", "c"}, {"a", "c"}), "-c on a +b +c blocked");
  EXPECT_EQ(Plan({"a", "b", "c"}, {"a", "c", "d"}), "-d -c on a +b +c");
  EXPECT_EQ(Plan({"a", "b"}, {"b", "a"}), "-b on a +b");
}

// Then the head may differ where nothing was missed.
TEST(engine_layer_plan, WhatWasThereBeforeItWasLeftIsOlder) {
  EXPECT_EQ(Plan({"a", "b", "c"}, {"a"}, "a"), "on a +b +c");
  EXPECT_EQ(Plan({"a", "b-", "c"}, {"a"}, "b"), "on a +c");
  EXPECT_EQ(Plan({"a", "b", "c"}, {"a"}, "b"), "on a +b +c older");
  EXPECT_EQ(Plan({"a", "b", "c"}, {"a", "c"}, "c"), "-c on a +b +c blocked older");
  EXPECT_EQ(Plan({"a", "b"}, {"a-"}, "a"), "+a +b blocked older");
  EXPECT_EQ(Plan({"a", "b"}, {"a"}, "gone"), "on a +b older");
  EXPECT_EQ(Plan({"a"}, {"a"}, "gone"), "on a");
}

TEST(engine_layer_plan, WhatIsNotFinishedIsMadeAnew) {
  EXPECT_EQ(Plan({"a", "b"}, {"a", "b!"}), "-b on a +b blocked");
  EXPECT_EQ(Plan({"a", "b"}, {"a", "b-"}), "on a +b blocked");
  EXPECT_EQ(Plan({"a@2"}, {"a@1"}), "-a +a blocked");
  EXPECT_EQ(Plan({"a!"}, {}), "busy");
}

TEST(engine_layer_plan, OneWithoutLayersHasNoSnapshots) {
  EXPECT_EQ(PlanLayers({}, {}, "").value().missing.size(), 0U);
  EXPECT(PlanLayers({}, Chain({"a"}), "").status().code() == ErrorCode::kUnsupported);
  EXPECT(PlanLayers(Chain({"a"}), {}, "").status().code() == ErrorCode::kUnsupported);
  EXPECT(PlanLayers({}, Chain({}), "").ok());
}

// Reverts make branches: «b» and «c» both stand on «a».
std::vector<wire::LayerEntry> Tree(const std::vector<std::string>& names) {
  std::vector<wire::LayerEntry> layers = Chain(names);
  for (size_t i = 1; i < layers.size(); ++i) layers[i].parent = layers[0].name;
  return layers;
}

std::string PlanOf(const std::vector<wire::LayerEntry>& members,
                   const std::vector<wire::LayerEntry>& joiners, const std::string& newest) {
  const Result<LayerPlan> plan = PlanLayers(members, joiners, newest);
  if (!plan.ok()) return std::string(ErrorCodeName(plan.status().code()));
  std::string text;
  for (const std::string& name : plan.value().deletes) text += "-" + name + " ";
  for (const wire::LayerEntry& layer : plan.value().missing) text += "+" + layer.name + " ";
  text += plan.value().blocked ? "blocked " : "";
  return text + (plan.value().older ? "older" : "");
}

TEST(engine_layer_plan, BranchesAreGivenAfterOneAnother) {
  EXPECT_EQ(PlanOf(Tree({"a", "b", "c"}), Chain({"a"}), "a"), "+b +c older");
  EXPECT_EQ(PlanOf(Tree({"a", "b", "c"}), Chain({"a", "b"}), "b"), "+c older");
  // It has them all, whatever they stand on.
  EXPECT_EQ(PlanOf(Tree({"a", "b", "c"}), Chain({"a", "c", "b"}), "b"), "");
  EXPECT_EQ(PlanOf(Chain({"a", "b", "c"}), Tree({"a", "c", "b"}), "c"), "");
  EXPECT_EQ(PlanOf(Chain({"a"}), Tree({"a", "b", "c"}), "c"), "-c -b ");
}

TEST(engine_layer_plan, ANameThatIsTakenInATreeIsMadeFree) {
  // Two stand on «a», which was deleted there.
  EXPECT_EQ(PlanOf(Chain({"b", "a", "c"}), Tree({"a-", "b", "c"}), "c"),
            "-c -b +b +a +c blocked older");
  EXPECT_EQ(PlanOf(Tree({"a", "b", "c"}), Tree({"a", "b!", "c"}), "c"),
            "-c -b -a +a +b +c blocked older");
}

}  // namespace
}  // namespace ankole::engine
