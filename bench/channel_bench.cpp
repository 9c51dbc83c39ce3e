// The attested channel beside plain OpenSSL on the same loopback in the same run: one stream in each direction,
// connections a second, and the memory of an idle connection at its server.
//
//   cloister-bench-channel [MiB per stream] [connections] [idle connections]
//
// One JSON object on stdout (bench/README.md, "channel"). The two sides take turns, and of each the best of five rounds
// counts: in the others it waited for somebody else. GB/s counts payload bytes by 10^9.

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fmt/format.h>
#include <functional>
#include <sys/resource.h>
#include <vector>

#include "bench/channel_sides.hpp"

namespace {

using namespace cloister::bench;

constexpr int rounds = 5;
constexpr std::size_t idle_limit = 32 << 10;

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Measured {
  double plain = 1e30, attested = 1e30;  // seconds
  std::vector<double> ratios;            // of each round
  double median() {
    std::sort(ratios.begin(), ratios.end());
    return ratios[ratios.size() / 2];
  }
};

Measured measure(Side& plain, Side& attested, const std::function<void(Side&)>& work) {
  Measured out;
  for (int i = 0; i < rounds; ++i) {
    const double p = seconds([&] { work(plain); }), a = seconds([&] { work(attested); });
    out.plain = std::min(out.plain, p);
    out.attested = std::min(out.attested, a);
    out.ratios.push_back(p / a);
  }
  return out;
}

/// `amount` in `unit` is what one round does. ratio_to_tls: our seconds over plain's, as in all benches; speed_to_tls:
/// the other way round, 1 is as fast as plain TLS.
std::string entry(const char* name, Measured m, double amount, const char* unit) {
  return fmt::format(
      R"("{}":{{"ratio_to_tls":{:.3f},"speed_to_tls":{:.3f},"median_speed_to_tls":{:.3f},"seconds":{:.4f},)"
      R"("plain_seconds":{:.4f},"{}":{:.3f},"plain_{}":{:.3f}}})",
      name, m.attested / m.plain, m.plain / m.attested, m.median(), m.attested, m.plain, unit, amount / m.attested,
      unit, amount / m.plain);
}

std::size_t peak_rss() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  return static_cast<std::size_t>(used.ru_maxrss) * 1024;
}

}  // namespace

void cloister::bench::must(bool ok, const char* what) {
  if (ok) return;
  fmt::print(stderr, "{} failed\n", what);
  std::exit(1);
}

int main(int argc, char** argv) {
  const auto number = [&](int at, std::size_t otherwise) {
    return argc > at ? static_cast<std::size_t>(std::strtoull(argv[at], nullptr, 10)) : otherwise;
  };
  const std::size_t chunks = number(1, 1024), count = number(2, 200), idle = number(3, 2000);
  if (chunks == 0 || count == 0 || idle < 2)
    return fmt::print(stderr, "wanted MiB and connections above 0, idle connections above 1\n"), 2;
  std::vector<std::string> cases;
  const std::size_t bytes = idle_memory(idle);  // first: it forks, and measures a process that did nothing else yet
  const auto plain = plain_tls(), ours = attested();
  const double gigabytes = static_cast<double>(chunks * chunk) * 1e-9, n = static_cast<double>(count);
  cases.push_back(
      entry("stream_up", measure(*plain, *ours, [&](Side& s) { s.stream(Way::up, chunks); }), gigabytes, "gb_per_s"));
  cases.push_back(entry("stream_down", measure(*plain, *ours, [&](Side& s) { s.stream(Way::down, chunks); }), gigabytes,
                        "gb_per_s"));
  for (const std::size_t at_once : {1, 8})
    cases.push_back(entry(at_once == 1 ? "handshakes" : "handshakes_8_at_once",
                          measure(*plain, *ours, [&](Side& s) { s.connections(count, at_once); }), n, "per_s"));
  cases.push_back(
      fmt::format(R"("idle":{{"connections":{},"bytes_per_connection":{},"at_most":{}}})", idle, bytes, idle_limit));
  fmt::print("{{\"mib\":{},\"connections\":{},\"peak_rss_bytes\":{},\"cases\":{{{}}}}}\n", chunks, count, peak_rss(),
             fmt::join(cases, ","));
}
