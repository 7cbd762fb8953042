#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>

#include "base/bytes.h"

namespace ankole::scsi {

// Builds Data-In that is cut to the room that there is: SPC-4, 4.2.5.6 has every response counted
// whole, and sent as far as the allocation length goes.
class Answer {
 public:
  explicit Answer(std::span<std::byte> room) : room_(room) {}

  // How long the whole is, and how much of it is in the room.
  uint32_t bytes() const { return bytes_; }
  uint32_t bytes_in_room() const {
    return static_cast<uint32_t>(std::min<size_t>(bytes_, room_.size()));
  }

  void U8(uint8_t value) { Append(&value, sizeof(value)); }
  void U16(uint16_t value) {
    std::byte bytes[2];
    StoreBig16(bytes, value);
    Append(bytes, sizeof(bytes));
  }
  void U32(uint32_t value) {
    std::byte bytes[4];
    StoreBig32(bytes, value);
    Append(bytes, sizeof(bytes));
  }
  void U64(uint64_t value) {
    std::byte bytes[8];
    StoreBig64(bytes, value);
    Append(bytes, sizeof(bytes));
  }
  void Bytes(const void* from, size_t count) { Append(from, count); }
  // `text`, then spaces up to `count`; cut at `count`.
  void Padded(std::string_view text, size_t count) {
    text = text.substr(0, count);
    Append(text.data(), text.size());
    for (size_t i = text.size(); i < count; ++i) U8(' ');
  }
  void Zeroes(size_t count) {
    if (bytes_ < room_.size()) {
      std::memset(room_.data() + bytes_, 0, std::min(count, room_.size() - bytes_));
    }
    bytes_ += static_cast<uint32_t>(count);
  }

  // Overwrites what was appended before, as far as it is in the room.
  void PatchU8(uint32_t at, uint8_t value) { Patch(at, &value, sizeof(value)); }
  void PatchU16(uint32_t at, uint16_t value) {
    std::byte bytes[2];
    StoreBig16(bytes, value);
    Patch(at, bytes, sizeof(bytes));
  }
  void PatchU32(uint32_t at, uint32_t value) {
    std::byte bytes[4];
    StoreBig32(bytes, value);
    Patch(at, bytes, sizeof(bytes));
  }

 private:
  void Append(const void* from, size_t count) {
    if (bytes_ < room_.size() && count > 0) {
      std::memcpy(room_.data() + bytes_, from, std::min(count, room_.size() - bytes_));
    }
    bytes_ += static_cast<uint32_t>(count);
  }
  void Patch(uint32_t at, const void* from, size_t count) {
    if (at < room_.size()) {
      std::memcpy(room_.data() + at, from, std::min(count, room_.size() - at));
    }
  }

  std::span<std::byte> room_;
  uint32_t bytes_ = 0;
};

}  // namespace ankole::scsi
