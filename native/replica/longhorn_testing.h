#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "io/file_system.h"

// For tests only: directories as Longhorn's v1 engine leaves them, and what it would read from one.
namespace ankole::replica::testing {

// Writes a directory file by file, in Longhorn's own words and with nothing of ours.
class LonghornDirectory {
 public:
  LonghornDirectory(io::FileSystem& files, std::string directory, uint64_t size_bytes);

  const std::string& path() const { return directory_; }
  // A layer, empty and of the given size; 0: of the volume's.
  LonghornDirectory& Layer(const std::string& file_name, const std::string& parent,
                           uint64_t size_bytes = 0);
  LonghornDirectory& Data(const std::string& file_name, uint64_t offset, uint64_t length,
                          char fill);
  // Its space is taken, and nothing is written.
  LonghornDirectory& Unwritten(const std::string& file_name, uint64_t offset, uint64_t length);
  // Fields of a layer's description, as JSON without braces, behind those that all have.
  LonghornDirectory& Meta(const std::string& file_name, const std::string& json);
  // Of volume.meta; those given stand instead of the usual ones.
  LonghornDirectory& Volume(const std::string& head, const std::string& fields = "");
  LonghornDirectory& Text(const std::string& name, const std::string& text);

 private:
  io::FileSystem& files_;
  const std::string directory_;
  const uint64_t size_bytes_;
};

// What Longhorn reads from the volume, or from what `head` names: by the layers' extents, written
// or not, each above those of its parents. An implementation of its own, that shares no code with
// what is tested. `backing` is what the lowest layer stands on.
std::string ComposeLonghorn(io::FileSystem& files, const std::string& directory,
                            const std::string& head = "", const std::string& backing = "");

// Every file with its content, for what is to be as it was.
std::map<std::string, std::string> ContentOf(io::FileSystem& files, const std::string& directory);

}  // namespace ankole::replica::testing
