#include "aggregation/evaluate.hpp"
#include "aggregation/model.hpp"
#include "aggregation/schema.hpp"
#include "aggregation/statistics.hpp"
#include "base/encoding.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

template <class Document>
void canonical(cloister::View bytes) {
  if (auto parsed = Document::parse(bytes); parsed && !cloister::base::equal(parsed->serialize(), bytes)) std::abort();
}

}  // namespace

// Schemas, model files, published statistics and evaluations.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cloister::aggregation;
  const cloister::View bytes(data, size);
  canonical<Schema>(bytes);
  (void)parse_model(bytes);
  if (auto s = Statistics::parse(bytes)) (void)s->json();
  canonical<Statistics>(bytes);
  canonical<Evaluation>(bytes);
  return 0;
}

std::vector<cloister::Bytes> cloister::fuzz::seeds() {
  using namespace aggregation;
  const Schema schema = Schema::make({{"weight", {2, 3}, Dtype::float32}, {"bias", {1}, Dtype::float32}}).value();
  Statistics statistics;
  statistics.at_least = 3;
  statistics.columns.push_back({"age", Column::Kind::number, false, 4, 900, 53.0, 80.5, {}});
  statistics.columns.push_back(
      {"sex", Column::Kind::category, false, 4, 900, {}, {}, {{"0", false, 4, 400, 0.4}, {"1", true, 0, 0, 0}}});
  Evaluation evaluation;
  std::vector<Bytes> out{schema.serialize(), statistics.serialize(), evaluation.serialize()};
  Bytes model = base::copy(base::view("cloister model 1\n"));
  base::Writer w;
  w.field(schema.serialize());
  model.insert(model.end(), w.bytes().begin(), w.bytes().end());
  model.resize(model.size() + 7 * 4);
  out.push_back(model);
  return out;
}
