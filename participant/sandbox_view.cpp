// What a program needs to see: its interpreter and libraries, as the dynamic loader itself lists them.
#include <cerrno>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <optional>
#include <set>
#include <spawn.h>
#include <sstream>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.hpp"
#include "participant/sandbox_plan.hpp"

namespace cloister::participant::sandbox {
namespace {

namespace fs = std::filesystem;

template <class T>
std::optional<T> at(View bytes, std::uint64_t offset) {
  T out;
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return std::nullopt;
  std::memcpy(&out, bytes.data() + offset, sizeof(T));
  return out;
}

// The dynamic loader that the program names (System V ABI, "Program Interpreter"); empty for a static program.
Result<std::string> loader_of(const std::string& program, View bytes) {
  const auto header = at<Elf64_Ehdr>(bytes, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS64)
    return base::unsupported(program, "wanted a 64-bit ELF program or a script that starts with #!, found neither");
  for (unsigned i = 0; i < header->e_phnum; ++i) {
    const auto segment = at<Elf64_Phdr>(bytes, header->e_phoff + std::uint64_t{i} * header->e_phentsize);
    if (!segment) return base::malformed(program, "its ELF program headers end early");
    if (segment->p_type != PT_INTERP) continue;
    if (segment->p_filesz == 0 || segment->p_filesz > 4096 || segment->p_offset > bytes.size() ||
        bytes.size() - segment->p_offset < segment->p_filesz)
      return base::malformed(program, "its ELF interpreter lies outside the file");
    const std::string name = base::text(bytes.subspan(segment->p_offset, segment->p_filesz));
    return std::string(name.c_str());
  }
  return std::string();
}

// What `loader --list program` prints: it maps the program's libraries and runs nothing of them.
Result<std::string> loader_list(const std::string& loader, const std::string& program) {
  int out[2];
  if (::pipe2(out, O_CLOEXEC) != 0)
    return base::unavailable(program, fmt::format("cannot list its libraries: {}", std::strerror(errno)));
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  ::posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  std::string words[] = {loader, "--list", program};
  char* const arguments[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  char* const environment[] = {nullptr};
  pid_t pid = -1;
  const int spawned = ::posix_spawn(&pid, loader.c_str(), &actions, nullptr, arguments, environment);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(out[1]);
  std::string text;
  char piece[4096];
  for (ssize_t n = 0; spawned == 0 && ((n = ::read(out[0], piece, sizeof piece)) > 0 || (n < 0 && errno == EINTR));)
    if (n > 0) text.append(piece, static_cast<std::size_t>(n));
  ::close(out[0]);
  int status = 0;
  if (spawned == 0) ::waitpid(pid, &status, 0);
  if (spawned != 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return base::unavailable(program, fmt::format("its libraries cannot be found: `{} --list` fails{}", loader,
                                                  spawned != 0 ? std::string(": ") + std::strerror(spawned) : ""));
  return text;
}

// Adds each library under the name that the program asks for, beside the C library: the loader looks there whatever the
// program's RUNPATH says, also when that is relative to the program ($ORIGIN needs /proc, which the view does not
// have).
Result<void> add_libraries(const std::string& loader, const std::string& program, std::vector<Shown>& shown) {
  const Result<std::string> listed = loader_list(loader, program);
  if (!listed) return listed.error();
  std::vector<std::pair<std::string, std::string>> libraries;
  std::string home = "/lib";
  std::istringstream lines(*listed);
  for (std::string line; std::getline(lines, line);) {
    const auto arrow = line.find(" => ");
    if (arrow == std::string::npos) continue;
    const std::string name = line.substr(line.find_first_not_of(" \t"), arrow - line.find_first_not_of(" \t"));
    const std::string path = line.substr(arrow + 4, line.rfind(" (") - arrow - 4);
    if (!path.starts_with('/'))
      return base::unavailable(program, fmt::format("its library {} is not found on this machine", name));
    if (name == "libc.so.6") home = fs::path(path).parent_path().string();
    libraries.emplace_back(name, path);
  }
  shown.push_back({loader, loader});
  for (const auto& [name, path] : libraries) {
    if (name.find('/') == std::string::npos) shown.push_back({path, home + "/" + name});
    shown.push_back({path, path});  // by the path as well: a library may open its siblings by it
  }
  return {};
}

Result<void> add_program(const std::string& program, View bytes, std::vector<Shown>& shown) {
  const Result<std::string> loader = loader_of(program, bytes);
  if (!loader) return loader.error();
  return loader->empty() ? Result<void>() : add_libraries(*loader, program, shown);
}

// "#!/usr/bin/python3 -I": the interpreter is a program of its own.
Result<void> add_interpreter(const std::string& script, View bytes, std::vector<Shown>& shown) {
  std::istringstream first(base::text(bytes.subspan(2, std::min<std::size_t>(bytes.size() - 2, 4096))));
  std::string interpreter;
  first >> interpreter;
  if (!interpreter.starts_with('/')) return base::malformed(script, "wanted an absolute path after #!, found none");
  const Result<Bytes> program = base::read_file(interpreter, std::size_t{1} << 30);
  if (!program) return program.error();
  shown.push_back({interpreter, interpreter});
  return add_program(interpreter, *program, shown);
}

}  // namespace

Result<std::vector<Shown>> files_for(const std::string& program, View bytes, const std::vector<std::string>& readable) {
  std::vector<Shown> shown;
  const bool script = bytes.size() > 2 && bytes[0] == '#' && bytes[1] == '!';
  if (auto r = script ? add_interpreter(program, bytes, shown) : add_program(program, bytes, shown); !r)
    return r.error();
  for (const std::string& path : readable) {
    std::error_code missing;
    const bool folder = fs::is_directory(path, missing);
    if (missing || !fs::exists(path, missing))
      return base::unavailable(path, "named as readable for the trainer, but it is not there");
    shown.push_back({path, fs::path(path).lexically_normal().string(), folder});
  }
  for (const char* device : {"/dev/null", "/dev/zero", "/dev/urandom"}) shown.push_back({device, device, false, true});
  // What libraries ask about the processor: libtorch chooses its kernels by it.
  shown.push_back({"/proc/cpuinfo", "/proc/cpuinfo", false, false, true});
  shown.push_back({"/sys/devices/system/cpu", "/sys/devices/system/cpu", true, false, true});
  std::set<std::string> targets;
  std::erase_if(shown, [&](const Shown& s) { return s.target == program || !targets.insert(s.target).second; });
  return shown;
}

}  // namespace cloister::participant::sandbox
