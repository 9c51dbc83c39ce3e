#include "protocols/launch/documents.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

template <class Document>
void canonical(cloister::View bytes) {
  if (auto parsed = Document::parse(bytes); parsed && !cloister::base::equal(parsed->serialize(), bytes)) std::abort();
}

}  // namespace

// Launch documents, instance records, grants: what parses is canonical.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cloister::protocols::launch;
  canonical<LaunchDocument>({data, size});
  canonical<Record>({data, size});
  canonical<Grant>({data, size});
  return 0;
}

std::vector<cloister::Bytes> cloister::fuzz::seeds() {
  using namespace protocols::launch;
  LaunchDocument document;
  document.charter = Bytes(100, 7);
  document.measurement = Bytes(48, 9);
  document.host = "127.0.0.1";
  document.port = 7443;
  const auto tls = fuzz::key(1).public_key(), receipt = fuzz::key(2).public_key();
  Grant grant;
  grant.platform = "simulated:" + std::string(64, 'a');
  return {document.serialize(), Record::make({}, tls, receipt, {}).serialize(),
          sign_grant(grant, fuzz::key(3)).serialize()};
}
