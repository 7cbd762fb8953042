#include "replica/longhorn_testing.h"

#include <vector>

#include "base/check.h"
#include "base/json.h"

namespace ankole::replica::testing {
namespace {

constexpr size_t kWholeFileMax = 64 << 20;

std::string Path(const std::string& directory, const std::string& name) {
  return directory + "/" + name;
}

Json ReadJson(io::FileSystem& files, const std::string& path) {
  const Result<std::string> text = io::ReadWholeFile(files, path, kWholeFileMax);
  CHECK(text.ok());
  Result<Json> json = Json::Parse(text.value());
  CHECK(json.ok());
  return json.Take();
}

}  // namespace

LonghornDirectory::LonghornDirectory(io::FileSystem& files, std::string directory,
                                     uint64_t size_bytes)
    : files_(files), directory_(std::move(directory)), size_bytes_(size_bytes) {
  CHECK(files_.MakeDirectory(directory_).ok());
}

LonghornDirectory& LonghornDirectory::Layer(const std::string& file_name, const std::string& parent,
                                            uint64_t size_bytes) {
  const Result<io::File> file =
      files_.Open(Path(directory_, file_name), {.write = true, .create = true});
  CHECK(file.ok());
  CHECK(files_.Truncate(file.value(), size_bytes == 0 ? size_bytes_ : size_bytes).ok());
  files_.Close(file.value());
  return Meta(file_name, "\"Parent\":\"" + parent + "\"");
}

LonghornDirectory& LonghornDirectory::Data(const std::string& file_name, uint64_t offset,
                                           uint64_t length, char fill) {
  const Result<io::File> file = files_.Open(Path(directory_, file_name), {.write = true});
  CHECK(file.ok());
  const std::string data(length, fill);
  CHECK(files_.WriteAt(file.value(), offset, data.data(), data.size()).ok());
  files_.Close(file.value());
  return *this;
}

LonghornDirectory& LonghornDirectory::Unwritten(const std::string& file_name, uint64_t offset,
                                                uint64_t length) {
  const Result<io::File> file = files_.Open(Path(directory_, file_name), {.write = true});
  CHECK(file.ok());
  CHECK(files_.Allocate(file.value(), offset, length).ok());
  files_.Close(file.value());
  return *this;
}

LonghornDirectory& LonghornDirectory::Meta(const std::string& file_name, const std::string& json) {
  return Text(file_name + ".meta", "{\"Created\":\"2024-05-06T07:08:09Z\"," + json + "}\n");
}

LonghornDirectory& LonghornDirectory::Volume(const std::string& head, const std::string& fields) {
  const Json meta = ReadJson(files_, Path(directory_, head + ".meta"));
  Json volume = Json::Object()
                    .Set("Size", size_bytes_)
                    .Set("Head", head)
                    .Set("Dirty", false)
                    .Set("Rebuilding", false)
                    .Set("Error", "")
                    .Set("Parent", meta.String("Parent").value())
                    .Set("SectorSize", 512)
                    .Set("BackingFilePath", "");
  const Result<Json> more = Json::Parse("{" + fields + "}");
  CHECK(more.ok());
  for (const auto& [key, value] : more.value().members()) volume.Set(key, value);
  return Text("volume.meta", volume.Write() + "\n");
}

LonghornDirectory& LonghornDirectory::Text(const std::string& name, const std::string& text) {
  const Result<io::File> file =
      files_.Open(Path(directory_, name), {.write = true, .create = true, .truncate = true});
  CHECK(file.ok());
  CHECK(files_.WriteAt(file.value(), 0, text.data(), text.size()).ok());
  files_.Close(file.value());
  return *this;
}

std::string ComposeLonghorn(io::FileSystem& files, const std::string& directory,
                            const std::string& head, const std::string& backing) {
  const Json volume = ReadJson(files, Path(directory, "volume.meta"));
  const auto size = static_cast<uint64_t>(volume.Integer("Size", 1, INT64_MAX).value());
  std::vector<std::string> chain;
  std::string name = head.empty() ? volume.String("Head").value() : head;
  while (!name.empty()) {
    chain.push_back(name);
    name = ReadJson(files, Path(directory, name + ".meta")).String("Parent", "").value();
  }
  std::string content(size, '\0');
  content.replace(0, std::min<size_t>(size, backing.size()), backing, 0, size);
  for (size_t i = chain.size(); i > 0; --i) {
    const std::string path = Path(directory, chain[i - 1]);
    const Result<io::File> file = files.Open(path, {});
    CHECK(file.ok());
    std::vector<io::FileExtent> extents;
    CHECK(files.Extents(file.value(), 0, size, 1 << 16, &extents).ok());
    for (const io::FileExtent& extent : extents) {
      // Whatever an extent covers is the layer's, and beyond the end of its file that is zeros.
      if (extent.offset_bytes >= size) continue;
      std::string part(std::min(extent.length_bytes, size - extent.offset_bytes), '\0');
      CHECK(files.ReadAt(file.value(), extent.offset_bytes, part.data(), part.size()).ok());
      content.replace(extent.offset_bytes, part.size(), part);
    }
    files.Close(file.value());
  }
  return content;
}

std::map<std::string, std::string> ContentOf(io::FileSystem& files, const std::string& directory) {
  std::map<std::string, std::string> content;
  const Result<std::vector<std::string>> names = files.List(directory);
  CHECK(names.ok());
  for (const std::string& name : names.value()) {
    const Result<std::string> text = io::ReadWholeFile(files, Path(directory, name), kWholeFileMax);
    CHECK(text.ok());
    content[name] = text.value();
  }
  return content;
}

}  // namespace ankole::replica::testing
