#include "aggregation/sum.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <functional>
#include <system_error>
#include <thread>

namespace cloister::aggregation {
namespace {

/// Calls work(from, to) over [0, n) in as many parts as threads, of at least 64 Ki elements. A part for which there is
/// no thread is done here: half an addition would be worse than a slow one.
void in_parts(std::uint64_t n, unsigned threads, const std::function<void(std::uint64_t, std::uint64_t)>& work) {
  const std::uint64_t parts = std::clamp<std::uint64_t>(n >> 16, 1, std::max(threads, 1u));
  std::vector<std::jthread> others;
  others.reserve(parts);
  for (std::uint64_t p = 1; p < parts; ++p) {
    const auto part = [&work, from = n * p / parts, to = n * (p + 1) / parts] { work(from, to); };
    try {
      others.emplace_back(part);
    } catch (const std::system_error&) {
      part();
    }
  }
  work(0, n / parts);
}

template <class T>
T load(View values, std::uint64_t i) {
  T v;
  std::memcpy(&v, values.data() + i * sizeof(T), sizeof v);
  return v;
}

constexpr std::uint64_t run_of_words = 64 << 10;  // stays in the cache

}  // namespace

Result<Sum> Sum::make(std::shared_ptr<const UpdateFormat> format, const Bounds& bounds, Kernels kernels,
                      std::shared_ptr<Pages> pages) {
  auto grid = Grid::make(*format, bounds);
  if (!grid) return grid.error();
  Sum sum;
  sum.format_ = std::move(format);
  sum.bounds_ = bounds;
  sum.grid_ = std::move(*grid);
  sum.kernels_ = kernels;
  sum.pages_ = std::move(pages);
  return sum;
}

Result<void> Sum::check(const CompleteUpdate& update, std::uint64_t weight) const {
  if (spoiled_) return base::unavailable("sum", "an update could not be read again half-way");
  if (weight < 1 || weight > bounds_.weight_at_most)
    return base::denied("update.weight", fmt::format("wanted 1 to {}, found {}", bounds_.weight_at_most, weight));
  if (contributors_ >= bounds_.contributors_at_most)
    return base::denied("round.contributors", fmt::format("wanted at most {}, found one more", contributors_));
  // What was checked at staging must be what this sum's grid was made for.
  if (update.format() != format_ && *update.format() != *format_)
    return base::denied("update.format", fmt::format("wanted an update staged for schema {} and its ranges, found {}",
                                                     base::digest_text(format_->schema.digest()),
                                                     base::digest_text(update.format()->schema.digest())));
  return {};
}

Result<void> Sum::add(CompleteUpdate update, std::uint64_t weight, unsigned threads) {
  if (auto ok = check(update, weight); !ok) return ok;
  std::vector<Term> terms;
  const bool first = contributors_ == 0 && update.in_memory();
  if (only_) terms.push_back(std::move(*only_));
  only_.reset();
  if (first) {
    only_ = std::make_unique<Term>(Term{std::move(update), weight});
  } else {
    terms.push_back({std::move(update), weight});
    if (auto added = into_words(std::move(terms), threads); !added) {
      spoiled_ = true;
      return added;
    }
  }
  ++contributors_;
  weight_ += weight;
  return {};
}

/// Calls work(span) for runs of at most `elements`, tensor by tensor, until it fails.
template <class Work>
Result<void> Sum::in_spans(std::uint64_t elements, Work work) const {
  const auto& tensors = format_->schema.tensors();
  std::uint64_t word = 0;
  for (std::size_t t = 0; t < tensors.size(); ++t)
    for (std::uint64_t from = 0, n = 0; from < tensors[t].elements(); from += n, word += n) {
      n = std::min(elements, tensors[t].elements() - from);
      if (auto done = work(Span{t, from, from + n, word}); !done) return done;
    }
  return {};
}

// Block by block: what a term gives back holds the next words.
Result<void> Sum::into_words(std::vector<Term> terms, unsigned threads) {
  const bool fresh = !words_;
  if (fresh) words_ = Memory(elements() * sizeof(std::uint64_t), pages_);
  return in_spans(threads > 1 ? elements() : run_of_words, [&](const Span& span) -> Result<void> {
    std::uint64_t* at = words() + span.word;
    if (fresh) {
      words_.reach((span.word + span.to - span.from) * sizeof(std::uint64_t));
      std::fill_n(at, span.to - span.from, 0);
    }
    for (Term& term : terms)
      if (auto added = add_span(span, term, at, threads); !added) return added;
    return {};
  });
}

Result<void> Sum::add_span(const Span& span, Term& term, std::uint64_t* words, unsigned threads) {
  const Tensor& t = format_->schema.tensors()[span.tensor];
  const std::uint64_t end = format_->schema.offset(span.tensor) + span.to * size(t.dtype);
  if (auto brought = term.update.bring(end); !brought) return brought;
  const std::uint8_t* values = term.update.at(format_->schema.offset(span.tensor) + span.from * size(t.dtype));
  const int f = grid_.tensors[span.tensor].fraction_bits;
  const std::uint64_t weight = term.weight;
  in_parts(span.to - span.from, threads, [&](std::uint64_t from, std::uint64_t to) {
    const View part(values, (span.to - span.from) * size(t.dtype));
    switch (t.dtype) {
      case Dtype::float32:
        kernels_.accumulate({words + from, to - from}, {reinterpret_cast<const float*>(values) + from, to - from}, f,
                            weight);
        break;
      case Dtype::float64: {
        const double scale = std::ldexp(1.0, f);
        for (; from < to; ++from)
          words[from] += weight * static_cast<std::uint64_t>(std::llrint(load<double>(part, from) * scale));
        break;
      }
      case Dtype::int64:
        for (; from < to; ++from) words[from] += weight * load<std::uint64_t>(part, from);
        break;
    }
  });
  term.update.give_back(end);
  return {};
}

Result<void> Sum::merge(Sum&& other) {
  if (other.format_ != format_ && *other.format_ != *format_)
    return base::denied("sum.format", "wanted a sum of the same round, found another");
  if (other.grid_ != grid_) return base::denied("sum.grid", "wanted a sum on the same grid, found other bounds");
  if (other.contributors_ > bounds_.contributors_at_most - contributors_)
    return base::denied("round.contributors", fmt::format("wanted at most {}, found {}", bounds_.contributors_at_most,
                                                          contributors_ + other.contributors_));
  if (spoiled_ || other.spoiled_) return base::unavailable("sum", "an update could not be read again half-way");
  settle();
  other.settle();
  kernels_.add({words(), elements()}, {other.words(), elements()});
  contributors_ += std::exchange(other.contributors_, 0);
  weight_ += std::exchange(other.weight_, 0);
  other.words_ = Memory();
  return {};
}

// Only a term in memory waits, so this cannot fail.
void Sum::settle() {
  std::vector<Term> terms;
  if (only_) terms.push_back(std::move(*only_));
  only_.reset();
  if (!words_ || !terms.empty()) into_words(std::move(terms), 1).value();
}

Result<void> Sum::reportable() const {
  if (spoiled_) return base::unavailable("sum", "an update could not be read again half-way");
  if (can_report()) return {};
  return base::denied("round.contributors",
                      fmt::format("wanted at least {}, found {}", bounds_.contributors_at_least, contributors_));
}

Result<Report> Sum::report() && {
  if (auto may = reportable(); !may) return may.error();
  settle();
  Report out;
  out.format_ = std::move(format_);
  out.grid_ = std::move(grid_);
  out.contributors_ = contributors_;
  out.weight_ = weight_;
  // A word of Z_2^64 read as two's complement: the true sum, since the grid keeps it inside (-2^63, 2^63).
  out.integers_ = std::move(words_);
  return out;
}

Result<void> Sum::consume(const std::function<void(const SumFacts&)>& facts, const Run& each) && {
  if (auto may = reportable(); !may) return may.error();
  facts({grid_, contributors_, weight_});
  if (!only_ && !words_) settle();
  std::vector<std::uint64_t> run(only_ ? std::min(run_of_words, elements()) : 0);
  return in_spans(run_of_words, [&](const Span& span) -> Result<void> {
    const std::uint64_t n = span.to - span.from;
    const std::uint64_t* at = words() + span.word;
    if (only_) {
      std::fill_n(run.data(), n, 0);
      if (auto added = add_span(span, *only_, run.data(), 1); !added) return added;
      at = run.data();
    }
    auto done = each(span.tensor, span.from, {reinterpret_cast<const std::int64_t*>(at), n});
    if (!only_) words_.give_back((span.word + n) * sizeof(std::uint64_t));
    return done;
  });
}

base::Sha256 Sum::digest() {
  settle();
  return base::sha256({words_.data(), words_.size()});
}

std::span<const std::int64_t> Report::integers(std::size_t tensor) const {
  std::uint64_t before = 0;
  for (std::size_t t = 0; t < tensor; ++t) before += schema().tensors()[t].elements();
  return {reinterpret_cast<const std::int64_t*>(integers_.data()) + before, schema().tensors()[tensor].elements()};
}

std::vector<double> Report::totals(std::size_t tensor) const {
  const double scale = std::ldexp(1.0, grid_.tensors[tensor].fraction_bits);
  std::vector<double> out;
  for (const std::int64_t v : integers(tensor)) out.push_back(static_cast<double>(v) / scale);  // exact: a power of two
  return out;
}

std::vector<double> Report::mean(std::size_t tensor) const {
  // weight < 2^63 / ceil(R * 2^f): times a power of two it stays one rounding away from exact, at worst.
  const double divisor = std::ldexp(static_cast<double>(weight_), grid_.tensors[tensor].fraction_bits);
  const auto sums = integers(tensor);
  std::vector<double> out(sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) out[i] = static_cast<double>(sums[i]) / divisor;
  return out;
}

base::Sha256 Report::digest() const {
  return base::sha256({integers_.data(), integers_.size()});
}

}  // namespace cloister::aggregation
