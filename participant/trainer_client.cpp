#include "participant/trainer_client.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/deadline.hpp"

namespace cloister::participant {
namespace {

namespace asio = boost::asio;
using nlohmann::json;

constexpr int contract = 1;
constexpr std::chrono::milliseconds end_patience{500};  // from the closed socket to the exit status

Exception failure(std::string what) {
  return Exception(base::unavailable("trainer", std::move(what)));
}

struct Opened {
  int fd = -1;
  ~Opened() { close(); }
  void close() {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
};

json parse_answer(const std::string& line, std::string_view to) {
  json answer = json::parse(line, nullptr, false);
  if (!answer.is_object() || !answer.contains("ok") || !answer["ok"].is_boolean())
    throw failure(fmt::format("answered {} with something else than a line of JSON with \"ok\"", to));
  if (answer["ok"].get<bool>()) return answer;
  const bool says = answer.contains("error") && answer["error"].is_string();
  throw failure(fmt::format("{} failed: {}", to, says ? answer["error"].get<std::string>() : "it does not say why"));
}

std::uint64_t number(const json& answer, const char* name) {
  if (!answer.contains(name) || !answer[name].is_number_unsigned())
    throw failure(fmt::format("its answer has no whole number \"{}\"", name));
  return answer[name].get<std::uint64_t>();
}

std::string first_line(const TrainerOptions& o) {
  return json{{"contract", contract}, {"owner", o.owner}, {"manifest", o.manifest}, {"settings", o.settings}}.dump(
             -1, ' ', false, json::error_handler_t::replace) +
         "\n";
}

std::string task_line(const TaskRequest& request) {
  json line{{"task", request.task}, {"round", request.round}, {"model_bytes", request.model_bytes}};
  if (!request.statistics.empty()) line["statistics"] = base::base64(request.statistics);
  return line.dump() + "\n";
}

}  // namespace

Trainer::Trainer(Socket socket, SandboxedChild child, std::uint64_t model_capacity, SharedMemory update)
    : socket_(std::move(socket)),
      child_(std::move(child)),
      model_capacity_(model_capacity),
      update_(std::move(update)) {}

asio::awaitable<std::shared_ptr<Trainer>> Trainer::start(TrainerOptions options, Deadline deadline,
                                                         std::shared_ptr<base::Log> log) {
  const Opened data{::open(options.data_file.c_str(), O_RDONLY | O_CLOEXEC)};
  if (data.fd < 0)
    throw Exception(
        base::unavailable(options.data_file, fmt::format("cannot open the data: {}", std::strerror(errno))));
  // Open for reading: whoever gets this descriptor can neither write the file nor map it for writing.
  const Opened model{::open(options.model_file.c_str(), O_RDONLY | O_CLOEXEC)};
  struct stat model_info {};
  if (model.fd < 0 || ::fstat(model.fd, &model_info) != 0)
    throw Exception(
        base::unavailable(options.model_file, fmt::format("cannot open the model: {}", std::strerror(errno))));
  Result<SharedMemory> update = SharedMemory::make(std::max<std::size_t>(options.update_capacity, 1));
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
    throw failure(fmt::format("no socket pair: {}", std::strerror(errno)));
  Socket socket(co_await asio::this_coro::executor, asio::local::stream_protocol(), pair[0]);
  Opened theirs{pair[1]};
  options.sandbox.descriptors = {{theirs.fd, 3}, {data.fd, 4}, {model.fd, 5}, {update.value().fd(), 6}};
  options.sandbox.limits.file_size = std::max<std::uint64_t>(options.sandbox.limits.file_size, options.update_capacity);
  Result<SandboxedChild> child = SandboxedChild::start(options.sandbox);
  if (!child) throw Exception(child.error());
  theirs.close();  // else the child's end would outlive it, and its death look like silence
  log->event("sandbox", "the trainer runs in its sandbox: " + summary(child->guarantees()),
             {{"program", options.sandbox.program}, {"guarantees", summary(child->guarantees())}});
  std::shared_ptr<Trainer> trainer(new Trainer(std::move(socket), std::move(*child),
                                               static_cast<std::uint64_t>(model_info.st_size), std::move(*update)));
  const json answer =
      parse_answer(co_await trainer->ask(first_line(options), deadline, "its first line"), "its first line");
  if (number(answer, "contract") != contract)
    throw failure(fmt::format("wanted contract {}, found {}; install a trainer that speaks it", contract,
                              number(answer, "contract")));
  trainer->records_ = {number(answer, "records"), number(answer, "train_records"), number(answer, "test_records")};
  co_return trainer;
}

asio::awaitable<std::string> Trainer::exchange(std::string line) {
  if (socket_.available() > 0) throw failure("it spoke without being asked");
  co_await asio::async_write(socket_, asio::buffer(line), asio::use_awaitable);
  const std::size_t n = co_await asio::async_read_until(socket_, asio::dynamic_buffer(unread_, trainer_line_cap), '\n',
                                                        asio::use_awaitable);
  std::string answer = unread_.substr(0, n);
  unread_.erase(0, n);
  co_return answer;
}

// Whatever goes wrong, the child is not asked again: its next line would answer an earlier question.
asio::awaitable<std::string> Trainer::ask(std::string line, Deadline deadline, std::string what) {
  std::string reason;
  try {
    std::string name = "trainer: " + what;
    std::string answer = co_await with_deadline(exchange(std::move(line)), deadline, std::move(name));
    if (!unread_.empty()) throw failure("it said more than one line in answer to " + what);
    co_return answer;
  } catch (const boost::system::system_error& e) {
    if (e.code() == asio::error::not_found) {
      reason = fmt::format("its answer to {} is longer than {} bytes", what, trainer_line_cap);
    } else {
      died_ = true;
      reason = fmt::format("it {} instead of answering {}", child_.wait(end_patience), what);
    }
  } catch (const Exception&) {
    stop();
    throw;
  }
  stop();
  throw failure(reason);
}

asio::awaitable<TaskAnswer> Trainer::run(TaskRequest request, Deadline deadline) {
  if (request.model_bytes > model_capacity_)
    throw failure(fmt::format("a model of {} bytes; the charter's has {}", request.model_bytes, model_capacity_));
  std::string line = task_line(request);
  const std::string what = fmt::format("the {} task of round {}", request.task, request.round);
  const std::string said = co_await ask(std::move(line), deadline, what);
  const json answer = parse_answer(said, what);
  const std::uint64_t bytes = number(answer, "bytes");
  const std::uint64_t weight = number(answer, "weight");
  if (bytes == 0 || bytes > update_.capacity())
    throw failure(fmt::format("{}: it says {} bytes, at most {} are possible", what, bytes, update_.capacity()));
  // The weight is what the gate judged; nobody's claim may grow afterwards.
  const std::uint64_t wanted = request.task == "train" ? records_.train : 1;
  if (weight != wanted)
    throw failure(fmt::format("{}: wanted the weight that it announced at its start, found another", what));
  co_return TaskAnswer{View(update_.data(), bytes), weight};
}

void Trainer::stop() noexcept {
  boost::system::error_code ignored;
  socket_.close(ignored);
  child_.kill();
}

}  // namespace cloister::participant
