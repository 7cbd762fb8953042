#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

// JSON (RFC 8259) for metadata files and control messages. Never for an I/O.
namespace ankole {

class Json {
 public:
  enum class Type { kNull, kBool, kNumber, kString, kArray, kObject };

  Json() = default;
  Json(bool value) : type_(Type::kBool), bool_(value) {}  // NOLINT: implicit
  Json(int value) : Json(static_cast<int64_t>(value)) {}  // NOLINT: implicit
  Json(int64_t value)
      : type_(Type::kNumber),
        is_integer_(true),
        integer_(value),
        double_(static_cast<double>(value)) {}                                  // NOLINT: implicit
  Json(uint64_t value);                                                         // NOLINT: implicit
  Json(uint32_t value) : Json(static_cast<int64_t>(value)) {}                   // NOLINT: implicit
  Json(double value) : type_(Type::kNumber), double_(value) {}                  // NOLINT: implicit
  Json(std::string value) : type_(Type::kString), string_(std::move(value)) {}  // NOLINT: implicit
  Json(std::string_view value) : Json(std::string(value)) {}                    // NOLINT: implicit
  Json(const char* value) : Json(std::string(value)) {}                         // NOLINT: implicit
  static Json Array() { return Json(Type::kArray); }
  static Json Object() { return Json(Type::kObject); }

  // kInvalidArgument with the byte offset for anything but one JSON value: bad UTF-8, duplicate
  // keys, nesting over kJsonDepthMax, trailing bytes.
  static Result<Json> Parse(std::string_view text);
  // Compact; with indent > 0, on several lines.
  std::string Write(int indent = 0) const;

  Type type() const { return type_; }
  bool is_object() const { return type_ == Type::kObject; }
  bool is_array() const { return type_ == Type::kArray; }
  bool is_null() const { return type_ == Type::kNull; }

  // Objects keep the order of their members. Set replaces; Find gives null where there is none.
  Json& Set(std::string key, Json value);
  const Json* Find(std::string_view key) const;
  bool Remove(std::string_view key);
  const std::vector<std::pair<std::string, Json>>& members() const { return members_; }
  // Arrays.
  Json& Append(Json value);
  const std::vector<Json>& items() const { return items_; }

  // The value as a type, or kInvalidArgument that names what it is. `what` names it in the message.
  Result<std::string> AsString(std::string_view what) const;
  Result<bool> AsBool(std::string_view what) const;
  Result<int64_t> AsInteger(std::string_view what, int64_t min, int64_t max) const;
  // Members of an object by key; without `fallback` a missing one is an error. null counts as
  // missing.
  Result<std::string> String(std::string_view key) const;
  Result<std::string> String(std::string_view key, std::string_view fallback) const;
  Result<bool> Bool(std::string_view key, bool fallback) const;
  Result<int64_t> Integer(std::string_view key, int64_t min, int64_t max) const;
  Result<int64_t> Integer(std::string_view key, int64_t min, int64_t max, int64_t fallback) const;

 private:
  explicit Json(Type type) : type_(type) {}
  void WriteTo(std::string* out, int indent, int depth) const;

  Type type_ = Type::kNull;
  bool bool_ = false;
  bool is_integer_ = false;
  int64_t integer_ = 0;
  double double_ = 0;
  std::string string_;
  std::vector<Json> items_;
  std::vector<std::pair<std::string, Json>> members_;
};

}  // namespace ankole
