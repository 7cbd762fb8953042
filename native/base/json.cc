#include "base/json.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "base/limits.h"

namespace ankole {
namespace {

// The length of the UTF-8 sequence at `text` (RFC 3629), 0 when it is none.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continuation = [&](size_t i) { return i < text.size() && (byte(i) & 0xc0) == 0x80; };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continuation(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    if (!continuation(1) || !continuation(2)) return 0;
    if (first == 0xe0 && byte(1) < 0xa0) return 0;  // overlong
    if (first == 0xed && byte(1) > 0x9f) return 0;  // surrogate
    return 3;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    if (!continuation(1) || !continuation(2) || !continuation(3)) return 0;
    if (first == 0xf0 && byte(1) < 0x90) return 0;
    if (first == 0xf4 && byte(1) > 0x8f) return 0;
    return 4;
  }
  return 0;
}

void AppendUtf8(uint32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out->push_back(static_cast<char>(0xc0 | code >> 6));
    out->push_back(static_cast<char>(0x80 | (code & 0x3f)));
  } else if (code < 0x10000) {
    out->push_back(static_cast<char>(0xe0 | code >> 12));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3f)));
  } else {
    out->push_back(static_cast<char>(0xf0 | code >> 18));
    out->push_back(static_cast<char>(0x80 | (code >> 12 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3f)));
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<Json> Document() {
    Json value;
    RETURN_IF_ERROR(Value(&value, 0));
    SkipSpace();
    if (at_ != text_.size()) return Bad("something follows the value");
    return value;
  }

 private:
  Status Bad(const char* cause) const {
    return {ErrorCode::kInvalidArgument,
            std::string("JSON: ") + cause + " at byte " + std::to_string(at_)};
  }
  bool More() const { return at_ < text_.size(); }
  void SkipSpace() {
    while (More() && std::strchr(" \t\r\n", text_[at_]) != nullptr && text_[at_] != '\0') ++at_;
  }
  bool Take(char c) {
    if (!More() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool TakeWord(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Status Value(Json* out, int depth) {
    if (depth > kJsonDepthMax) return Bad("nested too deeply");
    SkipSpace();
    if (!More()) return Bad("a value is missing");
    switch (text_[at_]) {
      case '{':
        return Object(out, depth);
      case '[':
        return ArrayValue(out, depth);
      case '"': {
        std::string value;
        RETURN_IF_ERROR(StringValue(&value));
        *out = Json(std::move(value));
        return Status::Ok();
      }
      case 't':
        if (!TakeWord("true")) return Bad("unknown word");
        *out = Json(true);
        return Status::Ok();
      case 'f':
        if (!TakeWord("false")) return Bad("unknown word");
        *out = Json(false);
        return Status::Ok();
      case 'n':
        if (!TakeWord("null")) return Bad("unknown word");
        *out = Json();
        return Status::Ok();
      default:
        return Number(out);
    }
  }

  Status Object(Json* out, int depth) {
    *out = Json::Object();
    ++at_;
    SkipSpace();
    if (Take('}')) return Status::Ok();
    for (;;) {
      SkipSpace();
      std::string key;
      if (!More() || text_[at_] != '"') return Bad("a key is missing");
      RETURN_IF_ERROR(StringValue(&key));
      if (out->Find(key) != nullptr) return Bad("a key stands twice");
      SkipSpace();
      if (!Take(':')) return Bad("':' is missing");
      Json value;
      RETURN_IF_ERROR(Value(&value, depth + 1));
      out->Set(std::move(key), std::move(value));
      SkipSpace();
      if (Take('}')) return Status::Ok();
      if (!Take(',')) return Bad("',' or '}' is missing");
    }
  }

  Status ArrayValue(Json* out, int depth) {
    *out = Json::Array();
    ++at_;
    SkipSpace();
    if (Take(']')) return Status::Ok();
    for (;;) {
      Json value;
      RETURN_IF_ERROR(Value(&value, depth + 1));
      out->Append(std::move(value));
      SkipSpace();
      if (Take(']')) return Status::Ok();
      if (!Take(',')) return Bad("',' or ']' is missing");
    }
  }

  Status Hex4(uint32_t* code) {
    *code = 0;
    for (int i = 0; i < 4; ++i) {
      if (!More()) return Bad("\\u needs four hex digits");
      const char c = text_[at_];
      uint32_t digit;
      if (c >= '0' && c <= '9') {
        digit = static_cast<uint32_t>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        digit = static_cast<uint32_t>(c - 'a' + 10);
      } else if (c >= 'A' && c <= 'F') {
        digit = static_cast<uint32_t>(c - 'A' + 10);
      } else {
        return Bad("\\u needs four hex digits");
      }
      *code = *code << 4 | digit;
      ++at_;
    }
    return Status::Ok();
  }

  Status Escape(std::string* out) {
    if (!More()) return Bad("a string does not end");
    const char c = text_[at_++];
    static constexpr char kFrom[] = "\"\\/bfnrt";
    static constexpr char kTo[] = "\"\\/\b\f\n\r\t";
    if (c != 'u') {
      const char* found = c == '\0' ? nullptr : std::strchr(kFrom, c);
      if (found == nullptr) return Bad("unknown escape");
      out->push_back(kTo[found - kFrom]);
      return Status::Ok();
    }
    uint32_t code;
    RETURN_IF_ERROR(Hex4(&code));
    if (code >= 0xdc00 && code <= 0xdfff) return Bad("lone surrogate");
    if (code >= 0xd800 && code <= 0xdbff) {
      uint32_t low;
      if (!TakeWord("\\u")) return Bad("lone surrogate");
      RETURN_IF_ERROR(Hex4(&low));
      if (low < 0xdc00 || low > 0xdfff) return Bad("lone surrogate");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    AppendUtf8(code, out);
    return Status::Ok();
  }

  Status StringValue(std::string* out) {
    ++at_;
    for (;;) {
      if (!More()) return Bad("a string does not end");
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return Status::Ok();
      }
      if (c == '\\') {
        ++at_;
        RETURN_IF_ERROR(Escape(out));
        continue;
      }
      if (static_cast<unsigned char>(c) < 0x20) return Bad("a control character in a string");
      const size_t length = Utf8Length(text_.substr(at_));
      if (length == 0) return Bad("bad UTF-8");
      out->append(text_.substr(at_, length));
      at_ += length;
    }
  }

  bool Digits() {
    const size_t start = at_;
    while (More() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
    return at_ > start;
  }

  Status Number(Json* out) {
    const size_t start = at_;
    Take('-');
    if (!Take('0') && !Digits()) return Bad("a value is missing");
    bool integer = true;
    if (Take('.')) {
      integer = false;
      if (!Digits()) return Bad("digits are missing");
    }
    if (Take('e') || Take('E')) {
      integer = false;
      if (!Take('+')) Take('-');
      if (!Digits()) return Bad("digits are missing");
    }
    const char* first = text_.data() + start;
    const char* last = text_.data() + at_;
    if (integer) {
      int64_t value;
      if (std::from_chars(first, last, value).ec == std::errc()) {
        *out = Json(value);
        return Status::Ok();
      }
    }
    double value;
    if (std::from_chars(first, last, value).ec != std::errc()) return Bad("number out of range");
    *out = Json(value);
    return Status::Ok();
  }

  std::string_view text_;
  size_t at_ = 0;
};

void WriteString(std::string_view value, std::string* out) {
  out->push_back('"');
  while (!value.empty()) {
    const char c = value[0];
    const size_t length = Utf8Length(value);
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\u%04x", static_cast<unsigned>(c));
      out->append(escape);
    } else if (length == 0) {
      // Not ours to pass on: a name from a disk or a peer may hold any byte.
      out->append("\\ufffd");
    } else {
      out->append(value.substr(0, length));
    }
    value.remove_prefix(length == 0 ? 1 : length);
  }
  out->push_back('"');
}

const char* TypeName(Json::Type type) {
  switch (type) {
    case Json::Type::kNull:
      return "null";
    case Json::Type::kBool:
      return "a boolean";
    case Json::Type::kNumber:
      return "a number";
    case Json::Type::kString:
      return "a string";
    case Json::Type::kArray:
      return "an array";
    case Json::Type::kObject:
      return "an object";
  }
  return "unknown";
}

Status WrongType(std::string_view what, const char* wanted, Json::Type type) {
  return {ErrorCode::kInvalidArgument,
          std::string(what) + " must be " + wanted + ", not " + TypeName(type)};
}

Status Missing(std::string_view key) {
  return {ErrorCode::kInvalidArgument, std::string(key) + " is missing"};
}

}  // namespace

Json::Json(uint64_t value) : type_(Type::kNumber), double_(static_cast<double>(value)) {
  if (value <= static_cast<uint64_t>(INT64_MAX)) {
    is_integer_ = true;
    integer_ = static_cast<int64_t>(value);
  }
}

Result<Json> Json::Parse(std::string_view text) { return Parser(text).Document(); }

std::string Json::Write(int indent) const {
  std::string out;
  WriteTo(&out, indent, 0);
  return out;
}

void Json::WriteTo(std::string* out, int indent, int depth) const {
  const auto new_line = [&](int level) {
    if (indent == 0) return;
    out->push_back('\n');
    out->append(static_cast<size_t>(indent) * static_cast<size_t>(level), ' ');
  };
  switch (type_) {
    case Type::kNull:
      out->append("null");
      return;
    case Type::kBool:
      out->append(bool_ ? "true" : "false");
      return;
    case Type::kNumber: {
      char text[32];
      const auto end = is_integer_ ? std::to_chars(text, text + sizeof(text), integer_)
                                   : std::to_chars(text, text + sizeof(text), double_);
      if (!is_integer_ && !std::isfinite(double_)) {
        out->append("null");
      } else {
        out->append(text, end.ptr);
      }
      return;
    }
    case Type::kString:
      WriteString(string_, out);
      return;
    case Type::kArray: {
      out->push_back('[');
      bool first = true;
      for (const Json& item : items_) {
        if (!first) out->push_back(',');
        first = false;
        new_line(depth + 1);
        item.WriteTo(out, indent, depth + 1);
      }
      if (!first) new_line(depth);
      out->push_back(']');
      return;
    }
    case Type::kObject: {
      out->push_back('{');
      bool first = true;
      for (const auto& [key, value] : members_) {
        if (!first) out->push_back(',');
        first = false;
        new_line(depth + 1);
        WriteString(key, out);
        out->append(indent == 0 ? ":" : ": ");
        value.WriteTo(out, indent, depth + 1);
      }
      if (!first) new_line(depth);
      out->push_back('}');
      return;
    }
  }
}

Json& Json::Set(std::string key, Json value) {
  CHECK(type_ == Type::kObject);
  for (auto& [name, old] : members_) {
    if (name == key) {
      old = std::move(value);
      return *this;
    }
  }
  members_.emplace_back(std::move(key), std::move(value));
  return *this;
}

const Json* Json::Find(std::string_view key) const {
  for (const auto& [name, value] : members_) {
    if (name == key) return &value;
  }
  return nullptr;
}

bool Json::Remove(std::string_view key) {
  return std::erase_if(members_, [&](const auto& member) { return member.first == key; }) > 0;
}

Json& Json::Append(Json value) {
  CHECK(type_ == Type::kArray);
  items_.push_back(std::move(value));
  return *this;
}

Result<std::string> Json::AsString(std::string_view what) const {
  if (type_ != Type::kString) return WrongType(what, "a string", type_);
  return string_;
}

Result<bool> Json::AsBool(std::string_view what) const {
  if (type_ != Type::kBool) return WrongType(what, "a boolean", type_);
  return bool_;
}

Result<int64_t> Json::AsInteger(std::string_view what, int64_t min, int64_t max) const {
  if (type_ != Type::kNumber) return WrongType(what, "a number", type_);
  if (!is_integer_ || integer_ < min || integer_ > max) {
    return Status(ErrorCode::kInvalidArgument, std::string(what) + " must be a whole number from " +
                                                   std::to_string(min) + " to " +
                                                   std::to_string(max));
  }
  return integer_;
}

Result<std::string> Json::String(std::string_view key) const {
  const Json* value = Find(key);
  return value == nullptr || value->is_null() ? Result<std::string>(Missing(key))
                                              : value->AsString(key);
}

Result<std::string> Json::String(std::string_view key, std::string_view fallback) const {
  const Json* value = Find(key);
  return value == nullptr || value->is_null() ? Result<std::string>(std::string(fallback))
                                              : value->AsString(key);
}

Result<bool> Json::Bool(std::string_view key, bool fallback) const {
  const Json* value = Find(key);
  return value == nullptr || value->is_null() ? Result<bool>(fallback) : value->AsBool(key);
}

Result<int64_t> Json::Integer(std::string_view key, int64_t min, int64_t max) const {
  const Json* value = Find(key);
  return value == nullptr || value->is_null() ? Result<int64_t>(Missing(key))
                                              : value->AsInteger(key, min, max);
}

Result<int64_t> Json::Integer(std::string_view key, int64_t min, int64_t max,
                              int64_t fallback) const {
  const Json* value = Find(key);
  return value == nullptr || value->is_null() ? Result<int64_t>(fallback)
                                              : value->AsInteger(key, min, max);
}

}  // namespace ankole
