#pragma once

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <span>
#include <vector>

#include "base/check.h"
#include "io/reactor.h"

// For tests and the fuzzer only.
namespace ankole::wire {

// A reactor with one socket, whose other end is the test: what arrives comes in pieces as the test
// cuts them, and what is sent is kept.
class ScriptedReactor final : public io::Reactor {
 public:
  // --- the other end ---
  // Hands over at most `piece_bytes` of what is still to come. False when nobody receives.
  bool Deliver(std::span<const std::byte>* incoming, size_t piece_bytes) {
    if (receive_ == nullptr || incoming->empty()) return false;
    size_t room = std::min(piece_bytes, incoming->size());
    size_t copied = 0;
    for (int i = 0; i < receive_->vectors_count && room > 0; ++i) {
      const size_t part = std::min(room, receive_->vectors[i].iov_len);
      std::memcpy(receive_->vectors[i].iov_base, incoming->data() + copied, part);
      copied += part;
      room -= part;
    }
    CHECK(copied > 0);  // a receive without room would wait for ever
    *incoming = incoming->subspan(copied);
    Finish(&receive_, static_cast<int64_t>(copied));
    return true;
  }
  void Hangup() {
    if (receive_ != nullptr) Finish(&receive_, 0);
  }
  // Lets what was started go on until nothing is left to do. With `stuck`, sends are not taken.
  void Turn(bool stuck = false) {
    while (!tasks_.empty() || (!stuck && send_ != nullptr) || close_ != nullptr) {
      if (!tasks_.empty()) {
        io::Task* task = tasks_.front();
        tasks_.pop_front();
        task->scheduled = false;
        task->done(task);
      } else if (close_ != nullptr) {
        if (receive_ != nullptr) Finish(&receive_, -ECANCELED);
        if (send_ != nullptr) Finish(&send_, -ECANCELED);
        Finish(&close_, 0);
      } else {
        ++sends;
        for (int i = 0; i < send_->vectors_count; ++i) {
          const auto* from = static_cast<const std::byte*>(send_->vectors[i].iov_base);
          sent.insert(sent.end(), from, from + send_->vectors[i].iov_len);
        }
        Finish(&send_, 0);
      }
    }
  }
  std::vector<std::byte> sent;
  size_t sends = 0;
  bool receiving() const { return receive_ != nullptr; }

  // --- io::Reactor ---
  void Receive(io::ReceiveOperation* operation) override { Begin(&receive_, operation); }
  void Send(io::SendOperation* operation) override { Begin(&send_, operation); }
  void Close(io::CloseOperation* operation) override { Begin(&close_, operation); }
  void Defer(io::Task* task) override {
    if (task->scheduled) return;
    task->scheduled = true;
    tasks_.push_back(task);
  }
  const io::BackendChoice& backend() const override { return backend_; }
  uint64_t NowNs() override { return 0; }
  uint64_t WallClockSeconds() override { return 0; }
  void Random(void* to, size_t bytes) override { std::memset(to, 0, bytes); }
  io::FileSystem& files() override { Unused(); }
  void Arm(io::Timer*, uint64_t) override { Unused(); }
  void Cancel(io::Timer*) override { Unused(); }
  void Run(io::Job*) override { Unused(); }
  void Read(io::FileOperation*) override { Unused(); }
  void Write(io::FileOperation*) override { Unused(); }
  Result<io::Socket> Listen(const io::Address&, io::Address*) override { Unused(); }
  void Accept(io::AcceptOperation*) override { Unused(); }
  void Connect(io::ConnectOperation*) override { Unused(); }
  void CancelConnect(io::ConnectOperation*) override { Unused(); }
  void Post(io::Message*) override { Unused(); }
  Result<io::Socket> MakeDoorbell() override { Unused(); }
  void Ring(io::Socket) override { Unused(); }
  void Await(io::AwaitOperation*) override { Unused(); }
  void Loop() override { Unused(); }
  void Stop() override { Unused(); }

 private:
  [[noreturn]] static void Unused() {
    CHECK(false);
    __builtin_unreachable();
  }
  template <typename T>
  static void Begin(T** slot, T* operation) {
    CHECK(*slot == nullptr && !operation->in_flight);
    operation->in_flight = true;
    *slot = operation;
  }
  template <typename T>
  static void Finish(T** slot, int64_t result) {
    T* operation = *slot;
    *slot = nullptr;
    operation->in_flight = false;
    operation->result = result;
    operation->done(operation);
  }

  io::BackendChoice backend_;
  io::ReceiveOperation* receive_ = nullptr;
  io::SendOperation* send_ = nullptr;
  io::CloseOperation* close_ = nullptr;
  std::deque<io::Task*> tasks_;
};

}  // namespace ankole::wire
