#include "participant/withdrawal.hpp"

#include <charconv>
#include <filesystem>
#include <fmt/format.h>

#include "base/encoding.hpp"
#include "base/file.hpp"

namespace cloister::participant {
namespace {

namespace fs = std::filesystem;
using protocols::round::Withdrawal;

constexpr std::size_t file_cap = 64 << 10;
constexpr std::string_view version = "cloister stored withdrawal 1";

std::string path_of(const std::string& folder, const base::Sha256& charter) {
  return (fs::path(folder) / withdrawal_file_name(charter)).string();
}

// Outlives the withdrawal itself, so that a serial is never used twice.
std::string serial_path(const std::string& folder, const base::Sha256& charter) {
  return path_of(folder, charter) + "-serial";
}

Result<std::uint64_t> last_serial(const std::string& path) {
  if (!fs::exists(path)) return std::uint64_t{0};
  const Result<Bytes> bytes = base::read_file(path, 32);
  if (!bytes) return bytes.error();
  const std::string text = base::text(*bytes);
  std::uint64_t out = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), out).ec != std::errc{})
    return base::malformed(path, "wanted a number");
  return out;
}

}  // namespace

std::string withdrawal_file_name(const base::Sha256& charter) {
  return base::hex(View(charter).first(8)) + ".withdrawal";
}

Result<Withdrawal> withdraw(const std::string& folder, const std::string& owner, const attest::Charter& charter,
                            const base::PrivateKey& witness_key, const std::string& reason, Time at) {
  if (auto made = base::make_folder(folder, 0700); !made) return made.error();
  const std::string serials = serial_path(folder, charter.digest);
  const Result<std::uint64_t> last = last_serial(serials);
  if (!last) return last.error();
  Withdrawal statement = Withdrawal::sign(owner, charter, *last + 1, at, witness_key);
  if (auto holds = statement.verify(charter); !holds) return holds.error();
  if (auto written = base::write_file(serials, base::view(std::to_string(*last + 1)), 0600); !written)
    return written.error();
  const Bytes bytes = base::Writer().field(version).field(statement.serialize()).field(reason).bytes();
  if (auto written = base::write_file(path_of(folder, charter.digest), bytes, 0600); !written) return written.error();
  return statement;
}

Result<bool> take_back(const std::string& folder, const base::Sha256& charter) {
  std::error_code failed;
  const bool removed = fs::remove(path_of(folder, charter), failed);
  if (failed) return base::unavailable(path_of(folder, charter), "cannot remove the withdrawal: " + failed.message());
  return removed;
}

Result<std::optional<StoredWithdrawal>> load_withdrawal(const std::string& folder, const attest::Charter& charter) {
  const std::string path = path_of(folder, charter.digest);
  if (!fs::exists(path)) return std::optional<StoredWithdrawal>();
  const Result<Bytes> bytes = base::read_file(path, file_cap);
  if (!bytes) return bytes.error();
  base::Reader r("withdrawal", *bytes);
  if (r.string("version", 64) != version) r.fail("version", fmt::format("wanted \"{}\"", version));
  StoredWithdrawal out;
  out.statement = base::copy(r.field("statement", file_cap));
  out.reason = r.string("reason", file_cap);
  if (auto done = r.finish(); !done) return done.error();
  const Result<Withdrawal> statement = Withdrawal::parse(out.statement);
  if (!statement) return statement.error();
  if (auto holds = statement->verify(charter); !holds) return holds.error();
  return std::optional<StoredWithdrawal>(std::move(out));
}

}  // namespace cloister::participant
