#include <napi.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/crc32c.h"
#include "base/service.h"
#include "engine/engine_service.h"
#include "io/reactor.h"
#include "iscsi/portal.h"
#include "replica/disk_host.h"
#include "replica/longhorn_tool.h"

// The only door to JavaScript: starts an engine, a disk host, a portal or work on a directory of
// Longhorn's on a thread of its own, and passes control messages as JSON text both ways. JavaScript
// never sees a block.
namespace ankole {
namespace {

class Runner;

// All that hangs off one environment (the main thread's, or a Worker's).
struct AddonState {
  Napi::ThreadSafeFunction to_javascript;
  uint32_t next_id = 0;
  std::map<uint32_t, Runner*> runners;  // started, and not yet closed
  std::map<uint32_t, Napi::FunctionReference> listeners;
  Napi::FunctionReference handle;  // the constructor of Handle
  size_t holding = 0;              // runners that keep the process alive
};

struct Delivery {
  uint32_t id;
  bool last;  // the thread has ended
  std::string event;
};

// A service on its own thread. Made and closed on JavaScript's thread.
class Runner final : public EventSink {
 public:
  Runner(uint32_t id, Napi::ThreadSafeFunction to_javascript)
      : id_(id), to_javascript_(std::move(to_javascript)) {
    wake_.owner = this;
    wake_.done = [](io::Operation* operation) {
      static_cast<Runner*>(operation->owner)->Deliver();
    };
  }
  ~Runner() override { CHECK(!thread_.joinable()); }

  Status Start(const std::string& kind, const std::string& config_text) {
    if (config_text.size() > kControlJsonBytesMax) {
      return {ErrorCode::kInvalidArgument, "the config is too long"};
    }
    Result<Json> config = Json::Parse(config_text);
    if (!config.ok()) return config.status().Within("config");
    Result<std::string> backend_name = config.value().String("ioBackend", "auto");
    if (!backend_name.ok()) return backend_name.status();
    Result<io::Backend> backend = io::ParseBackend(backend_name.value());
    if (!backend.ok()) return backend.status();
    io::ReactorOptions options;
    options.backend = backend.value();
    // A portal has sockets only, and nothing of it lies in a directory; what looks into a directory
    // changes nothing there.
    if (kind != "portal" && kind != "longhorn") {
      Result<std::string> directory =
          config.value().String(kind == "engine" ? "dataDirectory" : "directory");
      if (!directory.ok()) return directory.status();
      options.probe_directory = directory.Take();
    }
    options.sockets_only = kind != "disk-host";
    Result<std::unique_ptr<io::Reactor>> reactor = io::MakeReactor(options);
    if (!reactor.ok()) return reactor.status();
    reactor_ = reactor.Take();
    if (kind == "engine") {
      Result<std::unique_ptr<Service>> service =
          engine::EngineService::Make(*reactor_, config.value(), *this);
      if (!service.ok()) return service.status();
      service_ = service.Take();
    } else if (kind == "disk-host") {
      Result<replica::DiskHostConfig> parsed = replica::DiskHostConfig::Parse(config.value());
      if (!parsed.ok()) return parsed.status();
      service_ = std::make_unique<replica::DiskHost>(*reactor_, *this, parsed.Take());
    } else if (kind == "portal") {
      Result<iscsi::PortalOptions> parsed = iscsi::Portal::ParseOptions(config.value());
      if (!parsed.ok()) return parsed.status();
      service_ = std::make_unique<iscsi::Portal>(*reactor_, *this, parsed.Take());
    } else if (kind == "longhorn") {
      Result<replica::LonghornWork> work = replica::LonghornWork::Parse(config.value());
      if (!work.ok()) return work.status();
      service_ = std::make_unique<replica::LonghornTool>(*reactor_, *this, work.Take());
    } else {
      return {ErrorCode::kInvalidArgument, "there is no service '" + kind + "'"};
    }
    // Signals are for the main thread.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { Run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_setname_np(thread_.native_handle(), "ankole-io");
    return Status::Ok();
  }

  // False once the thread has ended.
  bool Post(std::string message) {
    if (ended_) return false;
    bool wake = false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      wake = messages_.empty() && !waking_;
      waking_ |= wake;
      messages_.push_back(std::move(message));
    }
    if (wake) reactor_->Post(&wake_);
    return true;
  }

  // Stops it as the request «stop» does (clean, within a few seconds), and joins.
  void Close() {
    Post(R"({"request":0,"op":"stop"})");
    if (thread_.joinable()) thread_.join();
  }

  void Emit(const Json& event) override { Send(false, event.Write()); }

 private:
  void Run() {
    service_->Start();
    reactor_->Loop();
    service_.reset();
    ended_ = true;
    Send(true, "");
  }

  void Deliver() {
    std::vector<std::string> messages;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      messages.swap(messages_);
      waking_ = false;
    }
    for (const std::string& text : messages) {
      Result<Json> message = text.size() <= kControlJsonBytesMax
                                 ? Json::Parse(text)
                                 : Status(ErrorCode::kInvalidArgument, "it is too long");
      if (message.ok() && message.value().is_object()) {
        service_->OnMessage(message.value());
      } else {
        Log(LogLevel::kWarn, "a control message is no JSON object: " +
                                 (message.ok() ? std::string() : message.status().message()));
      }
    }
  }

  void Send(bool last, std::string event) {
    auto* delivery = new Delivery{id_, last, std::move(event)};
    if (to_javascript_.NonBlockingCall(delivery, CallJavaScript) != napi_ok) delete delivery;
  }

  static void CallJavaScript(Napi::Env env, Napi::Function, Delivery* delivery);

  const uint32_t id_;
  Napi::ThreadSafeFunction to_javascript_;
  std::unique_ptr<io::Reactor> reactor_;
  std::unique_ptr<Service> service_;
  std::thread thread_;
  std::atomic<bool> ended_ = false;

  std::mutex mutex_;  // control messages only, never on the way of an I/O
  std::vector<std::string> messages_;
  bool waking_ = false;
  io::Message wake_;
};

void Runner::CallJavaScript(Napi::Env env, Napi::Function, Delivery* delivery) {
  const std::unique_ptr<Delivery> owned(delivery);
  if (static_cast<napi_env>(env) == nullptr) return;  // the environment is closing
  auto* state = env.GetInstanceData<AddonState>();
  const auto listener = state->listeners.find(owned->id);
  if (listener == state->listeners.end()) return;
  const Napi::HandleScope scope(env);
  if (owned->last) {
    state->listeners.erase(listener);
    if (--state->holding == 0) state->to_javascript.Unref(env);
    return;
  }
  listener->second.Call({Napi::String::New(env, owned->event)});
}

Napi::Value Throw(Napi::Env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.message());
  error.Set("code", Napi::String::New(env, ErrorCodeName(status.code())));
  error.ThrowAsJavaScriptException();
  return env.Undefined();
}

// What start() returns: {post(json), close()}.
class Handle : public Napi::ObjectWrap<Handle> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(
        env, "Handle",
        {InstanceMethod("post", &Handle::Post), InstanceMethod("close", &Handle::Close)});
  }

  explicit Handle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Handle>(info) {
    const Napi::Env env = info.Env();
    if (info.Length() != 3 || !info[0].IsString() || !info[1].IsString() || !info[2].IsFunction()) {
      Throw(env, {ErrorCode::kInvalidArgument, "start wants (kind, config, onEvent)"});
      return;
    }
    auto* state = env.GetInstanceData<AddonState>();
    id_ = ++state->next_id;
    auto runner = std::make_unique<Runner>(id_, state->to_javascript);
    const Status started = runner->Start(info[0].As<Napi::String>().Utf8Value(),
                                         info[1].As<Napi::String>().Utf8Value());
    if (!started.ok()) {
      Throw(env, started);
      return;
    }
    // Events are delivered by the event loop, so none can have come yet.
    state->listeners.emplace(id_, Napi::Persistent(info[2].As<Napi::Function>()));
    if (state->holding++ == 0) state->to_javascript.Ref(env);
    state->runners[id_] = runner.get();
    runner_ = runner.release();
    state_ = state;
  }

  ~Handle() override { CloseNow(); }

 private:
  Napi::Value Post(const Napi::CallbackInfo& info) {
    if (info.Length() != 1 || !info[0].IsString()) {
      return Throw(info.Env(), {ErrorCode::kInvalidArgument, "post wants one JSON text"});
    }
    if (runner_ == nullptr || state_->runners.count(id_) == 0 ||
        !runner_->Post(info[0].As<Napi::String>().Utf8Value())) {
      return Throw(info.Env(), {ErrorCode::kUnavailable, "it has stopped"});
    }
    return info.Env().Undefined();
  }

  Napi::Value Close(const Napi::CallbackInfo& info) {
    CloseNow();
    return info.Env().Undefined();
  }

  void CloseNow() {
    if (runner_ == nullptr) return;
    // The clean-up hook may have closed it before.
    if (state_->runners.erase(id_) > 0) {
      runner_->Close();
      delete runner_;
    }
    runner_ = nullptr;
  }

  uint32_t id_ = 0;
  Runner* runner_ = nullptr;
  AddonState* state_ = nullptr;
};

Napi::Value Start(const Napi::CallbackInfo& info) {
  std::vector<napi_value> arguments;
  for (size_t i = 0; i < info.Length(); ++i) arguments.push_back(info[i]);
  return info.Env().GetInstanceData<AddonState>()->handle.New(arguments);
}

Napi::Value Crc32cOf(const Napi::CallbackInfo& info) {
  if (info.Length() != 1 || !info[0].IsTypedArray()) {
    return Throw(info.Env(), {ErrorCode::kInvalidArgument, "crc32c wants bytes"});
  }
  const auto bytes = info[0].As<Napi::Uint8Array>();
  return Napi::Number::New(info.Env(), Crc32c(bytes.Data(), bytes.ByteLength()));
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto* state = new AddonState();
  env.SetInstanceData(state);
  state->to_javascript = Napi::ThreadSafeFunction::New(
      env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "ankole", 0, 1);
  state->to_javascript.Unref(env);
  // Hooks run before finalizers: the threads end while all that they refer to still stands.
  env.AddCleanupHook(
      [](AddonState* closing) {
        for (const auto& [id, runner] : closing->runners) {
          runner->Close();
          delete runner;
        }
        closing->runners.clear();
      },
      state);
  state->handle = Napi::Persistent(Handle::Define(env));
  exports.Set("start", Napi::Function::New(env, Start));
  exports.Set("version", Napi::String::New(env, ANKOLE_VERSION));
  exports.Set("crc32c", Napi::Function::New(env, Crc32cOf));
  return exports;
}

}  // namespace
}  // namespace ankole

static Napi::Object InitAddon(Napi::Env env, Napi::Object exports) {
  return ankole::Init(env, exports);
}

NODE_API_MODULE(ankole, InitAddon)
