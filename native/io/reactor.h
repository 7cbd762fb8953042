#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/intrusive_list.h"
#include "base/result.h"
#include "io/file_system.h"

// The one seam to the outside for everything that waits: files, sockets, timers, clock, randomness.
// Completion-shaped: an operation is an object that its owner keeps until `done` ran. One thread
// runs Loop() and all callbacks; only Post is for others. Nothing here allocates for an operation.
namespace ankole::io {

enum class Backend { kAuto, kUring, kEpoll };

// What every operation carries. `done` runs on the reactor's thread, exactly once for each start,
// never from within the call that started it. It may start, close and free anything, itself
// included.
struct Operation {
  void (*done)(Operation*) = nullptr;
  void* owner = nullptr;  // the starter's, untouched
  int64_t result = 0;     // bytes, or a negative errno

  // The back end's:
  ListNode node;
  uint8_t kind = 0;
  bool in_flight = false;
  Operation* next = nullptr;
};

// --- files -------------------------------------------------------------------------------------

struct FileOperation : Operation {
  File file;
  uint64_t offset_bytes = 0;
  // Invariant: valid until done. Read fills it (a short count only at the end of the file), Write
  // writes all of it or fails.
  iovec vectors[4] = {};
  int vectors_count = 0;
  bool direct = false;   // the file is open O_DIRECT: never in line
  bool durable = false;  // Write: on stable storage before done (RWF_DSYNC)
  // What it brings into the page cache goes again as soon as it is read or written back, where the
  // kernel can do that (RWF_DONTCACHE, Linux 6.14). A write is never in line, as it starts that.
  bool once = false;
  // back end's progress
  size_t finished_bytes = 0;
};

// --- work for the pool -------------------------------------------------------------------------

// A piece of blocking work: `work` runs on a pool thread (in the simulator: later, on the same
// one), then `done` on the reactor's. What it touches is its own in between.
struct Job : Operation {
  void (*work)(Job*) = nullptr;
};

// --- sockets -----------------------------------------------------------------------------------

// «unix:/path» or «tcp:host:port» (host numeric or a name; [..] around IPv6). Port 0: the kernel's
// choice.
struct Address {
  bool unix_path = false;
  std::string host;  // or the path
  uint16_t port = 0;
  static Result<Address> Parse(const std::string& text);
  std::string ToString() const;
};

struct Socket {
  int fd = -1;
  bool valid() const { return fd >= 0; }
};

struct AcceptOperation : Operation {
  Socket listener;
  Socket accepted;   // set when result >= 0
  std::string peer;  // its address, for logs
};

struct ConnectOperation : Operation {
  Address address;
  Socket socket;  // set when result >= 0
};

// Receives what is there, at least 1 byte, into the vectors in order. result 0: the peer closed.
struct ReceiveOperation : Operation {
  Socket socket;
  iovec vectors[2] = {};
  int vectors_count = 0;
  // Descriptors that came along (SCM_RIGHTS), for Unix sockets with accept_descriptors; -1 none.
  // The receiver owns it.
  bool accept_descriptor = false;
  int descriptor = -1;
};

// Sends the vectors in order, completely unless it fails. One at a time a socket.
struct SendOperation : Operation {
  static constexpr int kVectorsMax = 256;
  Socket socket;
  // The owner's. Their content, and vectors_count, are changed by the back end as it goes.
  iovec* vectors = nullptr;
  int vectors_count = 0;
  int descriptor = -1;  // goes along with the first byte (SCM_RIGHTS) if >= 0; stays the caller's
};

struct CloseOperation : Operation {
  Socket socket;
};

// Waits until the doorbell is rung; one that rang since the last time counts. Always the same
// object for one doorbell.
struct AwaitOperation : Operation {
  Socket doorbell;
};

// --- timers and tasks --------------------------------------------------------------------------

struct Timer : Operation {
  uint64_t deadline_ns = 0;
  size_t heap_index = SIZE_MAX;  // the reactor's; SIZE_MAX: not armed
  bool armed() const { return heap_index != SIZE_MAX; }
};

// Runs at the end of this turn of the loop, after all completions that were ready: where many small
// things leave as one system call.
struct Task : Operation {
  bool scheduled = false;
};

// From any thread; `done` runs on the reactor's.
struct Message : Operation {};

// -----------------------------------------------------------------------------------------------

struct BackendChoice {
  Backend backend = Backend::kEpoll;
  std::string reason;  // for people: why this one
};

class Reactor {
 public:
  virtual ~Reactor() = default;  // CHECKs that Loop is not running
  virtual const BackendChoice& backend() const = 0;
  virtual FileSystem& files() = 0;

  // CLOCK_BOOTTIME: it goes on while the machine sleeps.
  virtual uint64_t NowNs() = 0;
  // Seconds since 1970, for metadata that people read.
  virtual uint64_t WallClockSeconds() = 0;
  // From the kernel's generator (getrandom).
  virtual void Random(void* to, size_t bytes) = 0;

  // Fires once, no earlier than `deadline_ns`. Re-arming an armed one moves it.
  virtual void Arm(Timer* timer, uint64_t deadline_ns) = 0;
  // No effect when not armed. `done` will not run.
  virtual void Cancel(Timer* timer) = 0;
  // Once a turn however often it is called.
  virtual void Defer(Task* task) = 0;
  virtual void Run(Job* job) = 0;

  // Buffered reads that the page cache has are done in line; others on the pool or the ring.
  // Buffered writes that need not be durable, and may stay cached, are plain pwritev calls in line.
  virtual void Read(FileOperation* operation) = 0;
  virtual void Write(FileOperation* operation) = 0;

  // Listens; an old Unix socket file at the path is replaced when nobody answers on it, else
  // kAddressInUse. `bound` gets the real address (the port). Unix sockets are made with mode 0600.
  virtual Result<Socket> Listen(const Address& address, Address* bound) = 0;
  // One at a time a listener. On -EMFILE and the like: try again after a while, not at once.
  virtual void Accept(AcceptOperation* operation) = 0;
  virtual void Connect(ConnectOperation* operation) = 0;
  // One Receive and one Send may be in flight on a socket at a time. TCP sockets have TCP_NODELAY
  // and keep-alive.
  virtual void Receive(ReceiveOperation* operation) = 0;
  virtual void Send(SendOperation* operation) = 0;
  // A wake-up between processes of one machine that carries nothing (an eventfd): whoever has the
  // descriptor may ring, one awaits. Ringing never blocks, and many rings may be one. Closed by
  // Close.
  virtual Result<Socket> MakeDoorbell() = 0;
  virtual void Ring(Socket doorbell) = 0;
  virtual void Await(AwaitOperation* operation) = 0;
  // Ends all in flight on the socket with -ECANCELED (their `done` first), then closes it, then
  // runs this one's `done`. For connected sockets and listeners (whose Unix path is removed).
  virtual void Close(CloseOperation* operation) = 0;
  // Ends a Connect that is in flight: its done runs with -ECANCELED (or its result, if it had one).
  virtual void CancelConnect(ConnectOperation* operation) = 0;

  // Thread-safe, and wakes the loop. The one entry for other threads.
  virtual void Post(Message* message) = 0;
  // Runs until Stop was called (from its thread) and no operation that was started is in flight but
  // timers.
  virtual void Loop() = 0;
  virtual void Stop() = 0;
};

struct ReactorOptions {
  Backend backend = Backend::kAuto;
  // Where io_uring is tried with one real write, read and fsync before it is chosen.
  std::string probe_directory;
  // Threads for what blocks. Started by first use.
  int pool_threads = 4;
  // There is no file I/O to do: kAuto then takes epoll, which costs less for large data on sockets.
  bool sockets_only = false;
};

// kUring where it is asked for and does not work: kUnsupported with the reason.
Result<std::unique_ptr<Reactor>> MakeReactor(const ReactorOptions& options);
Result<Backend> ParseBackend(const std::string& name);
const char* BackendName(Backend backend);

}  // namespace ankole::io
