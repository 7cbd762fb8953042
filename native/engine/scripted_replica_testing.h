#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "io/reactor.h"
#include "wire/frame.h"
#include "wire/hello.h"
#include "wire/record.h"
#include "wire/regions.h"

// For tests only: a replica in memory that speaks the protocol and misbehaves as it is told.
namespace ankole::engine::testing {

inline constexpr char kVolume[] = "demo";
inline constexpr char kSecretText[] =
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

// What to do with a request.
struct Verdict {
  enum class What {
    kServe,        // as a good replica
    kFail,         // answer `error`, change nothing
    kHold,         // serve and answer when Release is called
    kTwice,        // serve, answer twice
    kDamage,       // READ: answer with data that does not match its checksums
    kWrongTag,     // answer what was not asked
    kHalfAndBreak  // send half of the answer, then break the connection
  };
  What what = What::kServe;
  ErrorCode error = ErrorCode::kIoError;
};

// What decides it. Set by the test's thread, asked by the reactor's.
class Judge {
 public:
  using Function = std::function<Verdict(const wire::Header&)>;
  Judge();
  ~Judge();
  Judge& operator=(Function function);
  Judge& operator=(const Judge& other);
  Verdict operator()(const wire::Header& header) const;

 private:
  mutable std::mutex mutex_;
  Function function_;
};

class ScriptedReplica {
 public:
  using Note = std::function<void(const std::string&)>;

  ScriptedReplica(io::Reactor& reactor, wire::ReplicaId id, std::string path, uint64_t size_bytes,
                  Note note);
  ~ScriptedReplica();

  void Listen();
  // Nobody answers at its address any more, and its connections break.
  void Unlisten();
  void End();
  bool ended() const;
  std::string address() const { return "unix:" + path_; }
  wire::ReplicaId id() const { return id_; }
  size_t connections() const;

  void Break();
  // Stops reading, as a stopped process does.
  void Hang() { hung_ = true; }
  void Wake();
  // Serves and answers what is held.
  void Release();
  size_t held() const;
  int asked(wire::Opcode opcode);

  Judge verdict;  // none: all is served
  wire::ReplicaState state;
  std::vector<std::byte> data;
  std::vector<std::byte> target_state = std::vector<std::byte>(kTargetStateBytes);
  std::optional<Status> hello_refusal;
  // The maps of rule 5.
  struct Missing {
    wire::Record record;
    std::set<uint32_t> regions;
  };
  std::set<uint32_t> dirty;
  std::set<uint32_t> ever_dirty;  // also what is clean again
  std::map<wire::ReplicaId, Missing> missing;
  std::optional<std::set<uint32_t>> recent;  // none: not known
  // Rule 8, from the bottom on.
  struct Layer {
    std::string name;
    bool sealed = false;
    bool removed = false;
    std::vector<std::byte> view = {};
    std::set<uint64_t> bad = {};  // blocks of the view
  };
  std::vector<Layer> layers;
  std::optional<std::string> prepared;
  uint16_t view_id = 0;  // the last one that was given out
  // «a, b (unsealed), c (removed)».
  std::string Layers() const;
  std::set<uint64_t> bad;      // blocks that do not match their checksums
  std::set<uint64_t> written;  // blocks; all others are holes
  bool tells_holes = false;    // by STATUS; else all counts as data
  uint64_t written_bytes = 0;  // by WRITE
  uint64_t summed_bytes = 0;

 private:
  struct Out;
  struct Peer;
  struct Held;

  void OnAccepted();

  std::vector<std::byte> Extents(const wire::Header& header) const;
  bool OnFrame(Peer& peer, const wire::Header& header, const std::byte* payload, std::byte* bytes);

  void Serve(Peer& peer, const wire::Header& header, const std::vector<std::byte>& payload,
             const Verdict& verdict_of);

  void ServeLayers(Peer& peer, const wire::Header& header, const std::vector<std::byte>& payload);

  // Null: the head is meant, or the view is not open.
  const Layer* ViewOf(const wire::Header& header) const;

  void Touch(const wire::Header& header);
  void MarkDirty(uint32_t region);
  void Leaves(const wire::RecordPair& pair, wire::ReplicaId id);
  static std::vector<wire::RegionRun> RunsOf(const std::set<uint32_t>& regions, uint32_t from);
  void ServeRegions(Peer& peer, const wire::Header& header, const std::vector<std::byte>& payload);

  void Answer(Peer& peer, const wire::Header& to, ErrorCode status, std::vector<std::byte> table,
              std::vector<std::byte> bytes, Verdict::What what = Verdict::What::kServe);

  io::Reactor& reactor_;
  const wire::ReplicaId id_;
  const std::string path_;
  const Note note_;
  io::AcceptOperation accept_;
  io::CloseOperation close_;
  bool listening_ = false;
  bool ending_ = false;
  bool hung_ = false;
  std::list<std::unique_ptr<Peer>> peers_;
  std::vector<Held> held_;
  std::map<wire::Opcode, int> asked_;
};

}  // namespace ankole::engine::testing
