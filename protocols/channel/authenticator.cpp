#include "protocols/channel/authenticator.hpp"

#include "base/encoding.hpp"

namespace cloister::protocols::channel {

using base::Reader;
using base::Writer;

namespace {

// RFC 8446 section 4 and RFC 9261 section 4.
enum Handshake : std::uint8_t {
  certificate_message = 11,
  certificate_request = 13,
  certificate_verify = 15,
  client_certificate_request = 17,
  finished_message = 20,
};
constexpr std::uint16_t signature_algorithms = 13;  // RFC 8446 section 4.2

constexpr std::uint8_t request_type(Prover prover) {
  return prover == Prover::server ? client_certificate_request : certificate_request;
}

Writer& u24(Writer& w, std::size_t n) {
  return w.u8(static_cast<std::uint8_t>(n >> 16)).u16(static_cast<std::uint16_t>(n));
}

Bytes handshake_message(std::uint8_t type, View body) {
  Writer w;
  u24(w.u8(type), body.size()).raw(body);
  return std::move(w).bytes();
}

Bytes vector16(View body) {
  return Writer().u16(static_cast<std::uint16_t>(body.size())).raw(body).bytes();
}

Bytes join(View a, View b) {
  Bytes out = base::copy(a);
  out.insert(out.end(), b.begin(), b.end());
  return out;
}

/// A handshake message of `type`: its body. `whole` gets header and body, as transcripts need them.
View message(Reader& r, std::uint8_t type, std::string_view name, View all, View* whole) {
  const auto start = all.size() - r.left();
  const auto found = r.u8(name);
  if (r.ok() && found != type)
    r.fail(name, "wanted handshake type " + std::to_string(type) + ", found " + std::to_string(found));
  const View body = r.vector24(name);
  if (whole != nullptr && r.ok()) *whole = all.subspan(start, body.size() + 4);
  return body;
}

/// RFC 9261 section 5.2.2: 64 spaces, the context string, a zero byte, the transcript's hash.
Bytes to_be_signed(View hash) {
  Writer w;
  for (int i = 0; i < 64; ++i) w.u8(0x20);
  return w.raw(base::view("Exported Authenticator")).u8(0).raw(hash).bytes();
}

Bytes finished_value(const AuthenticatorKeys& keys, View request, View messages) {
  return base::hmac(keys.hash, keys.finished_key, transcript_hash(keys, request, messages));
}

std::size_t hash_size(const AuthenticatorKeys& keys) {
  return std::string_view(keys.hash) == "SHA384" ? 48 : 32;
}

Bytes empty_certificate(View context) {
  return handshake_message(certificate_message,
                           Writer().u8(static_cast<std::uint8_t>(context.size())).raw(context).u8(0).u16(0).bytes());
}

/// The extensions of a CertificateEntry: cmw_attestation with evidence, and nothing that was not asked for.
Result<Bytes> entry_evidence(View extensions) {
  Reader r("authenticator.extensions", extensions);
  std::optional<Bytes> evidence;
  while (r.ok() && r.left() > 0) {
    const auto type = r.u16("type");
    const View data = r.vector16("data");
    if (!r.ok()) break;
    // RFC 9261 section 5.2.1: only extensions that the request carried.
    if (type != cmw_attestation)
      return base::malformed("authenticator.extensions", "extension " + std::to_string(type) + " was not asked for");
    if (evidence) return base::malformed("authenticator.extensions", "cmw_attestation stands twice");
    Reader inner("authenticator.cmw_attestation", data);
    const View cmw = inner.vector16("cmw_data");
    if (auto end = inner.finish(); !end) return end.error();
    auto unwrapped = unwrap_evidence(cmw);
    if (!unwrapped) return unwrapped.error();
    evidence = std::move(*unwrapped);
  }
  if (auto end = r.finish(); !end) return end.error();
  if (!evidence || evidence->empty())
    return base::malformed("authenticator.extensions", "wanted cmw_attestation with evidence, found none");
  return *evidence;
}

struct Entry {
  View certificate;
  View extensions;
};

Result<Entry> parse_certificate_message(View body, const RequestContext& context) {
  Reader r("authenticator.certificate", body);
  const View found = r.vector8("certificate_request_context");
  const View list = r.vector24("certificate_list");
  if (auto end = r.finish(); !end) return end.error();
  if (!base::equal(found, context))
    return base::untrusted("authenticator.certificate", "answers another request than the one that was sent");
  Reader entries("authenticator.certificate_list", list);
  Entry out{entries.vector24("cert_data"), entries.vector16("extensions")};
  if (auto end = entries.finish(); !end) return end.error();  // a self-made certificate stands alone
  return out;
}

}  // namespace

std::string_view handshake_context_label(Prover prover) {
  return prover == Prover::server ? "EXPORTER-server authenticator handshake context"
                                  : "EXPORTER-client authenticator handshake context";
}

std::string_view finished_key_label(Prover prover) {
  return prover == Prover::server ? "EXPORTER-server authenticator finished key"
                                  : "EXPORTER-client authenticator finished key";
}

Bytes transcript_hash(const AuthenticatorKeys& keys, View request, View messages) {
  const Bytes all = Writer().raw(keys.handshake_context).raw(request).raw(messages).bytes();
  if (hash_size(keys) == 48) {
    const auto h = base::sha384(all);
    return {h.begin(), h.end()};
  }
  const auto h = base::sha256(all);
  return {h.begin(), h.end()};
}

Bytes make_request(Prover prover, const RequestContext& context) {
  const Bytes extensions =
      Writer().u16(signature_algorithms).u16(4).u16(2).u16(ed25519_scheme).u16(cmw_attestation).u16(0).bytes();
  return handshake_message(request_type(prover), Writer().u8(32).raw(context).raw(vector16(extensions)).bytes());
}

Result<RequestContext> parse_request(Prover prover, View request) {
  const char* name = "authenticator_request";
  if (request.size() > request_cap) return base::malformed(name, "over " + std::to_string(request_cap) + " bytes");
  Reader r(name, request);
  const View body = message(r, request_type(prover), "type", request, nullptr);
  if (auto end = r.finish(); !end) return end.error();
  Reader fields(name, body);
  const View context = fields.vector8("certificate_request_context");
  const View extensions = fields.vector16("extensions");
  if (auto end = fields.finish(); !end) return end.error();
  if (context.size() != 32)
    return base::malformed(name, "wanted a context of 32 bytes, found " + std::to_string(context.size()));
  bool takes_ed25519 = false, takes_cmw = false;
  std::vector<std::uint16_t> seen;
  Reader list(name, extensions);
  while (list.ok() && list.left() > 0) {
    const auto type = list.u16("extension");
    const View data = list.vector16("extension");
    if (!list.ok()) break;
    if (std::find(seen.begin(), seen.end(), type) != seen.end())
      return base::malformed(name, "extension " + std::to_string(type) + " stands twice");
    seen.push_back(type);
    if (type == cmw_attestation) takes_cmw = data.empty();
    if (type != signature_algorithms) continue;
    Reader schemes("authenticator_request.signature_algorithms", data);
    Reader each("authenticator_request.signature_algorithms", schemes.vector16("list"));
    if (auto end = schemes.finish(); !end) return end.error();
    while (each.ok() && each.left() > 0) takes_ed25519 |= each.u16("scheme") == ed25519_scheme && each.ok();
    if (auto end = each.finish(); !end) return end.error();
  }
  if (auto end = list.finish(); !end) return end.error();
  if (!takes_ed25519)
    return base::unsupported(name, "wanted ed25519 among its signature_algorithms (RFC 9261 section 4)");
  if (!takes_cmw) return base::unsupported(name, "wanted an empty cmw_attestation: it asks for no evidence");
  return base::array<32>(context);
}

Bytes make_authenticator(const AuthenticatorKeys& keys, View request, const RequestContext& context, View certificate,
                         View evidence, const base::PrivateKey& key) {
  const Bytes cmw = vector16(wrap_evidence(evidence));
  const Bytes extensions = Writer().u16(cmw_attestation).raw(vector16(cmw)).bytes();
  Writer entry;
  u24(entry, certificate.size()).raw(certificate).raw(vector16(extensions));
  Writer body;
  u24(body.u8(32).raw(context), entry.bytes().size()).raw(entry.bytes());
  Bytes out = handshake_message(certificate_message, body.bytes());
  const auto signature = key.sign_raw(to_be_signed(transcript_hash(keys, request, out)));
  out = join(out, handshake_message(certificate_verify, Writer().u16(ed25519_scheme).u16(64).raw(signature).bytes()));
  return join(out, handshake_message(finished_message, finished_value(keys, request, out)));
}

Bytes make_empty_authenticator(const AuthenticatorKeys& keys, View request, View context) {
  return handshake_message(finished_message, finished_value(keys, request, empty_certificate(context)));
}

Result<Authenticated> read_authenticator(const AuthenticatorKeys& keys, View request, const RequestContext& context,
                                         View authenticator, const base::PublicKey& peer,
                                         const base::Sha256* verified) {
  if (authenticator.size() > authenticator_cap)
    return base::malformed("authenticator", "over " + std::to_string(authenticator_cap) + " bytes");
  if (!authenticator.empty() && authenticator[0] == finished_message) {
    if (!base::equal(authenticator, make_empty_authenticator(keys, request, context)))
      return base::untrusted("authenticator.finished", "an empty authenticator that was not made on this connection");
    return Authenticated{peer, {}};
  }
  Reader r("authenticator", authenticator);
  View whole_certificate, whole_verify;
  const View certificate = message(r, certificate_message, "certificate", authenticator, &whole_certificate);
  const View verify = message(r, certificate_verify, "certificate_verify", authenticator, &whole_verify);
  const View finished = message(r, finished_message, "finished", authenticator, nullptr);
  if (auto end = r.finish(); !end) return end.error();
  // The cheapest check first, and in constant time: whatever was made on another connection ends here.
  const View covered = authenticator.first(whole_certificate.size() + whole_verify.size());
  if (!base::equal(finished, finished_value(keys, request, covered)))
    return base::untrusted("authenticator.finished",
                           "was not made on this connection for this request: replayed or relayed");
  auto entry = parse_certificate_message(certificate, context);
  if (!entry) return entry.error();
  if (verified == nullptr || base::sha256(entry->certificate) != *verified) {
    auto own = read_certificate(entry->certificate, "authenticator.certificate");
    if (!own) return own.error();
    if (own->key != peer)
      return base::untrusted("authenticator.certificate",
                             "wanted the key of the TLS connection, " + peer.text() + ", found " + own->key.text());
  }
  Reader v("authenticator.certificate_verify", verify);
  const auto scheme = v.u16("algorithm");
  const View signature = v.vector16("signature");
  if (auto end = v.finish(); !end) return end.error();
  if (scheme != ed25519_scheme || signature.size() != 64)
    return base::malformed("authenticator.certificate_verify",
                           "wanted an Ed25519 signature, found scheme " + std::to_string(scheme));
  if (!peer.verifies_raw(to_be_signed(transcript_hash(keys, request, whole_certificate)), signature))
    return base::untrusted("authenticator.certificate_verify", "the signature does not hold");
  auto evidence = entry_evidence(entry->extensions);
  if (!evidence) return evidence.error();
  return Authenticated{peer, std::move(*evidence)};
}

Array<64> channel_report_data(Prover prover, const base::PublicKey& own, const base::PublicKey& peer, View exporter,
                              View record) {
  const auto record_digest = base::sha256(record);
  return base::sha512(Writer()
                          .field("cloister channel 1")
                          .field(prover == Prover::server ? "server" : "client")
                          .field(base::sha256(own.spki()))
                          .field(base::sha256(peer.spki()))
                          .field(exporter)
                          .field(record.empty() ? View() : View(record_digest))
                          .bytes());
}

// --- CMW: CBOR (RFC 8949) with definite lengths in their shortest form
// ------------------------------------------------

namespace {

constexpr std::uint8_t cbor_text = 3, cbor_bytes = 2;
constexpr std::uint8_t evidence_indicator = 4;  // draft-ietf-rats-msg-wrap, cm-type: bit 2 is evidence

void cbor_head(Writer& w, std::uint8_t major, std::size_t n) {
  const auto top = static_cast<std::uint8_t>(major << 5);
  if (n < 24)
    w.u8(static_cast<std::uint8_t>(top | n));
  else if (n < 256)
    w.u8(top | 24).u8(static_cast<std::uint8_t>(n));
  else
    w.u8(top | 25).u16(static_cast<std::uint16_t>(n));
}

View cbor_string(Reader& r, std::uint8_t major, std::string_view name) {
  const auto first = r.u8(name);
  if (r.ok() && first >> 5 != major)
    r.fail(name, "wanted CBOR major type " + std::to_string(major) + ", found " + std::to_string(first >> 5));
  const auto info = first & 31;
  std::size_t n = static_cast<std::size_t>(info);
  if (info == 24) n = r.u8(name);
  if (info == 25) n = r.u16(name);
  if (r.ok() && (info > 25 || (info == 24 && n < 24) || (info == 25 && n < 256)))
    r.fail(name, "its length is not in the shortest form");
  return r.raw(name, n);
}

}  // namespace

Bytes wrap_evidence(View evidence) {
  Writer w;
  w.u8(0x83);
  cbor_head(w, cbor_text, evidence_media_type.size());
  w.raw(base::view(evidence_media_type));
  cbor_head(w, cbor_bytes, evidence.size());
  return w.raw(evidence).u8(evidence_indicator).bytes();
}

Result<Bytes> unwrap_evidence(View cmw) {
  Reader r("cmw", cmw);
  const auto head = r.u8("record");
  if (r.ok() && head != 0x83) r.fail("record", "wanted a CBOR array of three");
  const View type = cbor_string(r, cbor_text, "type");
  const View value = cbor_string(r, cbor_bytes, "value");
  const auto indicator = r.u8("ind");
  if (auto end = r.finish(); !end) return end.error();
  if (base::text(type) != evidence_media_type)
    return base::unsupported("cmw.type", "wanted " + std::string(evidence_media_type) + ", found another media type");
  if (indicator != evidence_indicator)
    return base::unsupported("cmw.ind", "wanted evidence (4), found " + std::to_string(indicator));
  if (value.size() > evidence_cap)
    return base::malformed("cmw.value", "over " + std::to_string(evidence_cap) + " bytes");
  return base::copy(value);
}

}  // namespace cloister::protocols::channel
