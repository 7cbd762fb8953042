#pragma once

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "io/reactor.h"

namespace ankole::nbd {

// A reactor without a kernel: one listener, whose connections' bytes are given and taken by the
// test, and a clock that stands still until it is moved. For the fuzzer, and for tests of time.
class ScriptedReactor final : public io::Reactor {
 public:
  const io::BackendChoice& backend() const override { return choice_; }
  io::FileSystem& files() override {
    CHECK(!"no files here");
    __builtin_unreachable();
  }
  uint64_t NowNs() override { return now_ns; }
  uint64_t WallClockSeconds() override { return 0; }
  void Random(void* to, size_t bytes) override { std::memset(to, 0, bytes); }

  void Arm(io::Timer* timer, uint64_t deadline_ns) override {
    Cancel(timer);
    timer->deadline_ns = deadline_ns;
    timer->heap_index = 0;
    timers_.push_back(timer);
  }
  void Cancel(io::Timer* timer) override {
    timer->heap_index = SIZE_MAX;
    std::erase(timers_, timer);
  }
  void Defer(io::Task* task) override {
    if (task->scheduled) return;
    task->scheduled = true;
    tasks_.push_back(task);
  }
  void Run(io::Job*) override { CHECK(!"no jobs here"); }
  void Read(io::FileOperation*) override { CHECK(!"no files here"); }
  void Write(io::FileOperation*) override { CHECK(!"no files here"); }
  Result<io::Socket> Listen(const io::Address& address, io::Address* bound) override {
    *bound = address;
    return io::Socket{kListener};
  }
  void Accept(io::AcceptOperation* operation) override { Begin(operation, &accept_); }
  void Connect(io::ConnectOperation*) override { CHECK(!"no connecting here"); }
  void CancelConnect(io::ConnectOperation*) override { CHECK(!"no connecting here"); }
  void Receive(io::ReceiveOperation* operation) override {
    CHECK(operation->vectors_count > 0 && operation->vectors[0].iov_len > 0);
    Begin(operation, &receive_);
  }
  void Send(io::SendOperation* operation) override {
    CHECK(operation->vectors_count > 0);
    CHECK(operation->vectors_count <= io::SendOperation::kVectorsMax);
    Begin(operation, &send_);
  }
  Result<io::Socket> MakeDoorbell() override {
    return Status(ErrorCode::kUnsupported, "no doorbells here");
  }
  void Ring(io::Socket) override { CHECK(!"no doorbells here"); }
  void Await(io::AwaitOperation*) override { CHECK(!"no doorbells here"); }
  void Close(io::CloseOperation* operation) override {
    if (operation->socket.fd == kListener) {
      Finish(&accept_, -ECANCELED);
    } else {
      Finish(&receive_, -ECANCELED);
      Finish(&send_, -ECANCELED);
    }
    ready_.push_back(operation);
  }
  void Post(io::Message*) override { CHECK(!"no messages here"); }
  void Loop() override { CHECK(!"driven by Turn"); }
  void Stop() override {}

  // --- the script's side
  // Runs what is ready, until nothing is.
  void Turn() {
    while (true) {
      if (!ready_.empty()) {
        io::Operation* operation = ready_.front();
        ready_.pop_front();
        operation->in_flight = false;
        operation->done(operation);
      } else if (!tasks_.empty()) {
        io::Task* task = tasks_.front();
        tasks_.pop_front();
        task->scheduled = false;
        task->done(task);
      } else {
        return;
      }
    }
  }
  void MoveTime(uint64_t by_ns) {
    now_ns += by_ns;
    while (true) {
      const auto due = std::find_if(timers_.begin(), timers_.end(), [this](const io::Timer* timer) {
        return timer->deadline_ns <= now_ns;
      });
      if (due == timers_.end()) break;
      io::Timer* timer = *due;
      Cancel(timer);
      timer->done(timer);
      Turn();
    }
  }
  // A client comes. One at a time.
  void Knock() {
    CHECK(accept_ != nullptr);
    auto* accept = static_cast<io::AcceptOperation*>(accept_);
    accept->accepted.fd = kClient;
    accept->peer = "script";
    Finish(&accept_, 0);
    Turn();
  }
  bool receiving() const { return receive_ != nullptr; }
  // The client sends some of `bytes`; how many were received. 0 bytes: its end.
  size_t Give(const uint8_t* bytes, size_t count) {
    auto* receive = static_cast<io::ReceiveOperation*>(receive_);
    size_t given = 0;
    for (int i = 0; i < receive->vectors_count && given < count; ++i) {
      const size_t part = std::min(count - given, receive->vectors[i].iov_len);
      std::memcpy(receive->vectors[i].iov_base, bytes + given, part);
      given += part;
    }
    Finish(&receive_, static_cast<int64_t>(given));
    Turn();
    return given;
  }
  // The client reads what was sent to it, all of it.
  bool Take(std::string* to = nullptr) {
    if (send_ == nullptr) return false;
    auto* send = static_cast<io::SendOperation*>(send_);
    int64_t bytes = 0;
    for (int i = 0; i < send->vectors_count; ++i) {
      const iovec& vector = send->vectors[i];
      // Reads every byte, so that a sanitizer sees whether it is there.
      if (to != nullptr) to->append(static_cast<const char*>(vector.iov_base), vector.iov_len);
      bytes += static_cast<int64_t>(vector.iov_len);
    }
    Finish(&send_, bytes);
    Turn();
    return true;
  }
  void BreakSend() {
    Finish(&send_, -EPIPE);
    Turn();
  }

  uint64_t now_ns = 1;

 private:
  static constexpr int kListener = 1000;
  static constexpr int kClient = 1001;

  void Begin(io::Operation* operation, io::Operation** slot) {
    CHECK(*slot == nullptr && !operation->in_flight);
    operation->in_flight = true;
    *slot = operation;
  }
  void Finish(io::Operation** slot, int64_t result) {
    if (*slot == nullptr) return;
    (*slot)->result = result;
    ready_.push_back(*slot);
    *slot = nullptr;
  }

  io::BackendChoice choice_;
  std::deque<io::Operation*> ready_;
  std::deque<io::Task*> tasks_;
  std::vector<io::Timer*> timers_;
  io::Operation* accept_ = nullptr;
  io::Operation* receive_ = nullptr;
  io::Operation* send_ = nullptr;
};

}  // namespace ankole::nbd
