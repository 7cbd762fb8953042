#include <optional>

#include "base/test.h"
#include "replica/disk_directory.h"
#include "sim/cluster.h"
#include "sim/rot.h"

// Linked clones by way of a disk host, where a moment must be met that whole runs seldom meet.
namespace ankole::sim {
namespace {

constexpr wire::ReplicaId kCloneId = 0xc1;

// A volume of one replica, with snapshots.
class CloneWorld {
 public:
  explicit CloneWorld(uint64_t seed)
      : world_(seed), cluster_(world_, {.replicas = 1, .hosts = 1, .size_bytes = kMiB}) {
    rot_.emplace(cluster_);
    cluster_.rot = &*rot_;
    CHECK(cluster_.MakeReplicas());
    cluster_.Attach(*cluster_.machines()[1]);
    CHECK(Until([this] { return cluster_.engine() != nullptr && cluster_.engine()->ready(); }));
  }

  bool Until(const std::function<bool()>& condition) {
    return world_.RunUntil(world_.now_ns() + 30 * kNsPerSecond, condition);
  }
  void Pass(uint64_t time_ns) { world_.RunUntil(world_.now_ns() + time_ns); }

  Status Snapshot(const std::string& name, bool takes = true) {
    engine::SnapshotRequest request;
    std::optional<Status> status;
    request.name = name;
    request.owner = &status;
    request.done = [](engine::SnapshotRequest* done) {
      static_cast<std::optional<Status>*>(done->owner)->emplace(done->status);
    };
    EngineProcess* const engine = cluster_.engine();
    engine->reactor.Inside([&request, engine, takes] {
      takes ? engine->engine().TakeSnapshot(&request) : engine->engine().DeleteSnapshot(&request);
    });
    CHECK(Until([&] { return status.has_value(); }));
    return *status;
  }

  void AskForClone(const std::string& layer) {
    asked_.reset();
    host().Ask(
        Json::Object()
            .Set("op", "create-replica")
            .Set("volume", "copy")
            .Set("id", wire::ReplicaIdText(kCloneId))
            .Set("sizeBytes", kMiB)
            .Set("secret", SecretText(Secret{}))
            .Set("clone", Json::Object()
                              .Set("volume", kVolumeName)
                              .Set("replica", wire::ReplicaIdText(cluster_.replica_id(0)))
                              .Set("layer", layer)
                              .Set("members", Json::Array().Append(wire::ReplicaIdText(kCloneId)))),
        [this](const Status& status) { asked_ = status; });
  }
  bool answered() const { return asked_.has_value(); }
  Status Answer() {
    CHECK(Until([this] { return answered(); }));
    return *asked_;
  }
  bool CloneIsThere() {
    InodePtr inode;
    return machine().disk.Lookup(replica::ReplicaDirectory("/disk", "copy", kCloneId), &inode) == 0;
  }
  size_t Layers() {
    const Result<LayersNow> layers = cluster_.LayersOf(0);
    return layers.ok() ? layers.value().chain().size() : 0;
  }

  void KillDiskHost() {
    const DiskHostProcess* const killed = &host();
    cluster_.KillDiskHost(0, 0);
    CHECK(Until([&] {
      DiskHostProcess* const now = cluster_.disk_host(0);
      return now != nullptr && now != killed && now->ready();
    }));
  }
  void LosePower() {
    cluster_.LosePower(machine(), kNsPerMs);
    CHECK(Until([this] { return machine().up(); }));
  }

 private:
  DiskHostProcess& host() { return *cluster_.disk_host(0); }
  Machine& machine() { return cluster_.replica_machine(0); }

  World world_;
  Cluster cluster_;
  std::optional<Rot> rot_;
  std::optional<Status> asked_;
};

// The disk host ends when the clone has its name, and before that is durable. Whoever asks again is
// told that it is there: from then on it must stay.
TEST(sim_clones, one_that_is_found_made_is_durable_when_that_is_answered) {
  int met = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    // What was killed in a run is not destroyed.
    auto world = std::make_shared<CloneWorld>(seed);
    Keep(world);
    ASSERT_OK(world->Snapshot("monday"));
    world->AskForClone("monday");
    ASSERT(world->Until([&] { return world->CloneIsThere() || world->answered(); }));
    if (!world->answered()) ++met;
    world->KillDiskHost();
    world->AskForClone("monday");
    ASSERT_OK(world->Answer());
    world->LosePower();
    EXPECT(world->CloneIsThere());
  }
  EXPECT(met > 0);
}

// The disk host looks after a minute whether what a clone has is still shared.
TEST(sim_clones, a_layer_that_a_clone_has_keeps_no_other_from_being_merged) {
  auto world = std::make_shared<CloneWorld>(1);
  Keep(world);
  for (const char* name : {"one", "two", "three", "four"}) ASSERT_OK(world->Snapshot(name));
  world->AskForClone("two");
  ASSERT_OK(world->Answer());
  ASSERT_OK(world->Snapshot("one", false));
  world->Pass(5 * kNsPerSecond);
  EXPECT_EQ(world->Layers(), 5U);
  ASSERT_OK(world->Snapshot("three", false));
  world->Pass(5 * kNsPerSecond);
  EXPECT_EQ(world->Layers(), 4U);
}

}  // namespace
}  // namespace ankole::sim
