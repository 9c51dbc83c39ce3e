// `cloister keygen`, `cloister reference sign`: an owner's keys, and what it says that a build measures.

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <unistd.h>

#include "attest/charter.hpp"
#include "base/file.hpp"
#include "cli/command.hpp"
#include "cli/owner.hpp"

namespace cloister::cli {
namespace {

// A key that is there may be in use: O_EXCL, so that no race overwrites it either.
void create(const std::string& path, const std::string& content, mode_t mode) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0)
    throw Exception(base::unavailable(path, errno == EEXIST
                                                ? std::string("is there already, and a key is never overwritten")
                                                : fmt::format("cannot create: {}", std::strerror(errno))));
  const bool written =
      ::write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()) && ::fsync(fd) == 0;
  ::close(fd);
  if (!written) throw Exception(base::unavailable(path, fmt::format("cannot write: {}", std::strerror(errno))));
}

}  // namespace

int run_keygen(const KeygenOptions& o, bool json) {
  for (const std::string& name : o.names)
    if (name.empty() || name.front() == '.' ||
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.") != std::string::npos)
      throw Exception(base::malformed(name, "wanted a name of a-z, 0-9, -, _ and ."));
  base::make_folder(o.folder, 0700).value();
  std::string list;
  for (const std::string& name : o.names) {
    const base::PrivateKey key = base::PrivateKey::generate();
    const std::string path = (std::filesystem::path(o.folder) / name).string();
    if (std::filesystem::exists(path + ".pub"))
      throw Exception(base::unavailable(path + ".pub", "is there already, and a key is never overwritten"));
    create(path + ".key", key.pem(), 0600);
    create(path + ".pub", key.public_key().text() + "\n", 0644);
    list += fmt::format(R"({}{{"name": {}, "key": {}, "public_key": "{}"}})", list.empty() ? "" : ", ",
                        base::json_escape(name), base::json_escape(path + ".key"), key.public_key().text());
    if (!json) fmt::print("{}.key  {}\n", path, key.public_key().text());
  }
  if (json) fmt::print("[{}]\n", list);
  return done;
}

int run_reference_sign(const ReferenceSignOptions& o, bool json) {
  Bytes measurement = base::from_hex(o.measurement, "--measurement").value();
  const base::PrivateKey key = base::PrivateKey::load(o.key).value();
  const attest::Reference reference = attest::sign_reference(o.name, std::move(measurement), key);
  attest::verify(reference).value();
  base::write_file(o.out, base::view(reference.toml())).value();
  if (json)
    fmt::print("{{\"name\": {}, \"measurement\": \"{}\", \"signer\": \"{}\", \"file\": {}}}\n",
               base::json_escape(o.name), base::hex(reference.measurement), reference.signer.text(),
               base::json_escape(o.out));
  else
    fmt::print("{}: \"{}\" is {}, says {}\n", o.out, o.name, base::hex(reference.measurement), reference.signer.text());
  return done;
}

void setup_keygen(CLI::App& app, Context& context) {
  auto o = std::make_shared<KeygenOptions>();
  CLI::App* c = app.add_subcommand("keygen", "make Ed25519 keys");
  c->add_option("NAME", o->names, "what the keys are for: tls, witness, dpo …")->required();
  c->add_option("--out", o->folder, "folder for NAME.key and NAME.pub")->capture_default_str();
  c->callback([o, &context] { context.chosen = [o, &context] { return run_keygen(*o, context.json); }; });
}

void setup_reference(CLI::App& app, Context& context) {
  CLI::App* c = app.add_subcommand("reference", "reference values: what a build measures")->require_subcommand(1);
  auto o = std::make_shared<ReferenceSignOptions>();
  CLI::App* sign = c->add_subcommand("sign", "sign that NAME measures MEASUREMENT");
  sign->add_option("--name", o->name, "as policies write it, \"cloister-aggregator 1.2\"")->required();
  sign->add_option("--measurement", o->measurement, "96 hex digits")->required();
  sign->add_option("--key", o->key, "the signer's private key")->required();
  sign->add_option("--out", o->out, "file to write")->required();
  sign->callback([o, &context] { context.chosen = [o, &context] { return run_reference_sign(*o, context.json); }; });
}

}  // namespace cloister::cli
