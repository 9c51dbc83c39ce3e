// Contract 1 with the real program, over real descriptors.

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "aggregation/evaluate.hpp"
#include "tests/participant/trainer/study.hpp"
#include "tests/participant/trainer/support.hpp"

extern char** environ;

namespace cloister::participant::trainer {
namespace {

using ::testing::HasSubstr;
using testing::study;
using testing::study_records;
using Json = nlohmann::json;

int memory(std::size_t size) {
  const int fd = ::memfd_create("cloister", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(size)) != 0) std::abort();
  return fd;
}

void write_at_start(int fd, View bytes) {
  if (::pwrite(fd, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) std::abort();
}

/// The node's end of a child.
class Child {
 public:
  explicit Child(const std::string& csv, std::size_t update_capacity = 1 << 20)
      : data_(memory(csv.size())), model_(memory(1 << 20)), update_(memory(update_capacity)) {
    write_at_start(data_, base::view(csv));
    ::lseek(data_, 0, SEEK_SET);
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
    lines_ = ends[0];
    pid_ = ::fork();
    if (pid_ == 0) become_child(ends[1]);
    ::close(ends[1]);
  }
  ~Child() {
    for (const int fd : {lines_, data_, model_, update_}) ::close(fd);
    if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;

  Json ask(const Json& line) { return ask_raw(line.dump()); }
  Json ask_raw(const std::string& line) {
    const std::string bytes = line + "\n";
    if (::write(lines_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) return "cannot write";
    std::string answer;
    for (char c = 0; ::read(lines_, &c, 1) == 1 && c != '\n';) answer += c;
    return Json::parse(answer, nullptr, false);
  }
  void show_model(const Bytes& file) { write_at_start(model_, file); }
  Bytes update(std::size_t n) {
    Bytes out(n);
    if (::pread(update_, out.data(), n, 0) != static_cast<ssize_t>(n)) std::abort();
    return out;
  }
  /// Closes the node's end; the child's exit code.
  int end() {
    ::shutdown(lines_, SHUT_WR);
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  [[noreturn]] void become_child(int lines) {
    // From high numbers down to 3..6, so that no descriptor is overwritten before it was copied.
    const int from[] = {lines, data_, model_, update_};
    int high[4];
    for (int i = 0; i < 4; ++i) high[i] = ::fcntl(from[i], F_DUPFD_CLOEXEC, 100);
    for (int i = 0; i < 4; ++i) ::dup2(high[i], 3 + i);
    const int nothing = ::open("/dev/null", O_RDWR);
    for (const int fd : {0, 1, 2}) ::dup2(nothing, fd);
    char program[] = CLOISTER_TRAINER;
    char* argv[] = {program, nullptr};
    ::execve(program, argv, environ);
    ::_exit(127);
  }
  int data_, model_, update_, lines_ = -1;
  pid_t pid_ = -1;
};

Json hello(Json settings = Json::object()) {
  return {{"contract", 1}, {"manifest", study().manifest}, {"settings", std::move(settings)}, {"owner", "charite"}};
}

aggregation::Statistics statistics() {
  aggregation::Statistics s;
  s.columns.push_back({.name = "age", .suppressed = false, .contributors = 3, .count = 9, .mean = 55, .variance = 200});
  for (const char* name : {"sex", "cp"})
    s.columns.push_back({.name = name,
                         .kind = aggregation::Column::Kind::category,
                         .suppressed = false,
                         .contributors = 3,
                         .count = 9});
  return s;
}

TEST(Child, ServesAWholeRun) {
  Child child(study_records(120));
  const Json first = child.ask(hello({{"split", 3}}));
  ASSERT_TRUE(first.at("ok")) << first.dump();
  EXPECT_EQ(first.at("contract"), 1);
  EXPECT_EQ(first.at("records"), 120);
  EXPECT_EQ(first.at("test_records"), data::split_records(120, 3).test.size());

  const Json counted = child.ask({{"task", "statistics"}, {"model_bytes", 0}});
  ASSERT_TRUE(counted.at("ok")) << counted.dump();
  EXPECT_EQ(counted.at("weight"), 1);

  const attest::Manifest manifest = attest::parse_manifest(study().manifest, "m").value();
  const aggregation::Model model = testing::initial(manifest);
  child.show_model(model.serialize());
  const std::string statistics_text = base::base64(statistics().serialize());
  const Json trained = child.ask(
      {{"task", "train"}, {"round", 1}, {"model_bytes", model.serialize().size()}, {"statistics", statistics_text}});
  ASSERT_TRUE(trained.at("ok")) << trained.dump();
  EXPECT_EQ(trained.at("bytes"), model.schema.bytes());
  EXPECT_EQ(trained.at("weight"), first.at("train_records"));
  const Bytes update = child.update(model.schema.bytes());
  EXPECT_GT(testing::floats(update)[0], 0);  // age

  aggregation::Model next = model;
  const auto delta = testing::floats(update);
  for (std::size_t i = 0; i < delta.size(); ++i) next.values[i] += delta[i];
  child.show_model(next.serialize());
  const Json evaluated = child.ask(
      {{"task", "evaluate"}, {"round", 2}, {"model_bytes", next.serialize().size()}, {"statistics", statistics_text}});
  ASSERT_TRUE(evaluated.at("ok")) << evaluated.dump();
  EXPECT_EQ(evaluated.at("bytes"), 8 * (1 + 2 * 1000));
  EXPECT_EQ(child.end(), 0);
}

TEST(Child, AnswersABadTaskAndGoesOn) {
  Child child(study_records(60));
  ASSERT_TRUE(child.ask(hello()).at("ok"));
  EXPECT_THAT(child.ask({{"task", "export"}, {"model_bytes", 0}}).at("error"),
              HasSubstr("wanted statistics, train or evaluate"));
  EXPECT_THAT(child.ask({{"task", "train"}, {"round", 1}, {"model_bytes", 1 << 30}}).at("error"),
              HasSubstr("model: wanted shared memory of 1073741824 bytes"));
  EXPECT_THAT(child.ask_raw("{\"task\":").at("error"), HasSubstr("not what contract 1 says"));
  EXPECT_THAT(child.ask({{"round", 1}}).at("error"), HasSubstr("not what contract 1 says"));
  EXPECT_TRUE(child.ask({{"task", "statistics"}, {"model_bytes", 0}}).at("ok"));
  EXPECT_EQ(child.end(), 0);
}

TEST(Child, NeverQuotesTheDataInAnError) {
  Child child("63,1,secret,0\n");
  const Json answer = child.ask(hello());
  EXPECT_FALSE(answer.at("ok"));
  EXPECT_EQ(answer.at("error"), "data:1: cp: wanted one of the 4 declared categories or a marker of a missing value");
  EXPECT_EQ(child.end(), 1);
}

TEST(Child, RefusesAnotherContract) {
  Child child(study_records(10));
  Json line = hello();
  line["contract"] = 2;
  EXPECT_EQ(child.ask(line).at("error"), "contract: this trainer speaks contract 1, not 2");
  EXPECT_EQ(child.end(), 1);
}

TEST(Child, RefusesASettingOutsideItsRange) {
  Child child(study_records(10));
  EXPECT_THAT(child.ask(hello({{"learning_rate", 7}})).at("error"),
              HasSubstr("learning_rate: wanted a number from 0.001 to 1"));
}

TEST(Child, AnUpdateThatDoesNotFitItsMemoryIsAnErrorAndNoCrash) {
  Child child(study_records(60), 16);
  ASSERT_TRUE(child.ask(hello()).at("ok"));
  EXPECT_THAT(child.ask({{"task", "statistics"}, {"model_bytes", 0}}).at("error"),
              HasSubstr("update: wanted shared memory of"));
}

TEST(Child, EndsWhenTheNodeIsGone) {
  Child child(study_records(10));
  EXPECT_EQ(child.end(), 1);
}

}  // namespace
}  // namespace cloister::participant::trainer
