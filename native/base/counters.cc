#include "base/counters.h"

namespace ankole {

Json LatencyHistogram::ToJson() const {
  Json buckets = Json::Array();
  for (const uint64_t count : buckets_) buckets.Append(count);
  return Json::Object()
      .Set("sumSeconds", static_cast<double>(sum_ns_) / 1e9)
      .Set("buckets", std::move(buckets));
}

Json LatencyHistogram::BoundsSeconds() {
  Json bounds = Json::Array();
  for (size_t i = 0; i < kBounds; ++i) bounds.Append(static_cast<double>(1ULL << i) / 1e6);
  return bounds;
}

Json OperationCounters::ToJson() const {
  return Json::Object()
      .Set("count", count)
      .Set("bytes", bytes)
      .Set("errors", errors)
      .Set("latency", latency.ToJson());
}

Json DeviceCounters::ToJson() const {
  // In the order of BlockOperation.
  static constexpr const char* kNames[kBlockOperations] = {"read",  "write", "zero",
                                                           "unmap", "flush", "status"};
  Json json = Json::Object();
  for (size_t i = 0; i < kBlockOperations; ++i) json.Set(kNames[i], operations[i].ToJson());
  return json;
}

}  // namespace ankole
