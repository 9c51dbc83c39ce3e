// A trainer that follows the contract, or breaks it in the way that its argument names. It trains nothing: an update's
// bytes are small and valid for the manifest's formats.
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attest/manifest.hpp"
#include "participant/formats.hpp"

namespace {

using nlohmann::json;
namespace participant = cloister::participant;

std::string read_line() {
  std::string line;
  for (char c = 0; ::read(3, &c, 1) == 1;) {
    if (c == '\n') return line;
    line += c;
  }
  std::_Exit(0);  // the node closed its end
}

void say(const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t n = ::write(3, text.data() + at, text.size() - at);
    if (n <= 0) std::_Exit(0);
    at += static_cast<std::size_t>(n);
  }
}

unsigned char* map(int fd, int protection) {
  struct stat s = {};
  if (::fstat(fd, &s) != 0) return nullptr;
  void* at = ::mmap(nullptr, static_cast<std::size_t>(s.st_size), protection, MAP_SHARED, fd, 0);
  return at == MAP_FAILED ? nullptr : static_cast<unsigned char*>(at);
}

// Zeros are valid for every format; a train task adds a hundredth everywhere.
std::size_t write_update(const participant::Formats& formats, const std::string& task, unsigned char* out) {
  const auto& format = formats.at(task);
  std::memset(out, 0, format.schema.bytes());
  if (task != "train") return format.schema.bytes();
  const float delta = 0.01f;
  for (std::size_t i = 0; i < format.schema.elements(); ++i) std::memcpy(out + 4 * i, &delta, sizeof delta);
  return format.schema.bytes();
}

[[noreturn]] void misbehave(const std::string& how) {
  if (how == "garbage") say("this is not JSON\n");
  if (how == "array") say("[1,2]\n");
  if (how == "error") say("{\"ok\":false,\"error\":\"column cp is not in the file\"}\n");
  if (how == "long") say(std::string(200000, 'x') + "\n");
  if (how == "two") say("{\"ok\":true,\"bytes\":4,\"weight\":1}\n{\"ok\":true,\"bytes\":4,\"weight\":1}\n");
  if (how == "many") say("{\"ok\":true,\"bytes\":99999999,\"weight\":1}\n");
  if (how == "weight") say("{\"ok\":true,\"bytes\":4,\"weight\":1000}\n");
  if (how == "negative") say("{\"ok\":true,\"bytes\":-4,\"weight\":1}\n");
  if (how == "exit") std::_Exit(3);
  if (how == "abort") std::abort();
  for (;;) ::pause();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string when = argc > 1 ? argv[1] : "", how = argc > 2 ? argv[2] : "";
  const json first = json::parse(read_line());
  if (when == "start") misbehave(how);
  const auto manifest = cloister::attest::parse_manifest(first["manifest"].get<std::string>(), "manifest");
  const auto formats = participant::update_formats(*manifest);
  const int contract = when == "contract" ? 2 : 1;
  say(json{{"ok", true}, {"contract", contract}, {"records", 30}, {"train_records", 20}, {"test_records", 10}}.dump() +
      "\n");
  unsigned char* update = map(6, PROT_READ | PROT_WRITE);
  const unsigned char* model = map(5, PROT_READ);
  for (;;) {
    const json task = json::parse(read_line());
    if (when == "task") misbehave(how);
    if (when == "model") {
      update[0] = model[0];
      // writing to the model must be impossible
      const bool written = map(5, PROT_READ | PROT_WRITE) != nullptr || ::pwrite(5, "x", 1, 0) == 1;
      say(written ? "{\"ok\":false,\"error\":\"the model was written\"}\n"
                  : "{\"ok\":true,\"bytes\":1,\"weight\":20}\n");
      continue;
    }
    const std::string kind = task["task"];
    const std::size_t bytes = write_update(*formats, kind, update);
    say(json{{"ok", true}, {"bytes", bytes}, {"weight", kind == "train" ? 20 : 1}}.dump() + "\n");
  }
}
