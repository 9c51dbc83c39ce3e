#pragma once
// Exported authenticators (RFC 9261) with evidence in the extension cmw_attestation (draft-fossati-seat-expat). Pure
// functions over exporter values and bytes: no socket, no clock, no state.
//
//   peer who asks                                              peer who proves itself
//     request = [Client]CertificateRequest  ----------------->
//     <-----------------  authenticator = Certificate || CertificateVerify || Finished    (each with its handshake
//     header)

#include <string_view>

#include "base/bytes.hpp"
#include "base/crypto.hpp"
#include "protocols/channel/certificate.hpp"

namespace cloister::protocols::channel {

/// Which end of the TLS connection an authenticator proves. It names the labels, the type of the request (a client asks
/// with ClientCertificateRequest, a server with CertificateRequest; RFC 9261 section 4) and the direction in the report
/// data.
enum class Prover { client, server };

inline constexpr std::uint16_t cmw_attestation = 0xFFA7;  ///< private code point (docs/formats.md)
inline constexpr std::uint16_t ed25519_scheme = 0x0807;   ///< RFC 8446 section 4.2.3
inline constexpr std::size_t request_cap = 1 << 10;
inline constexpr std::size_t evidence_cap = 65'000;  ///< serialized; a TLS extension holds less than 64 KiB
inline constexpr std::size_t authenticator_cap = certificate_cap + 66'000 + 512;

/// RFC 9261 section 5.1. The exporters take an empty context and give as many bytes as the suite's hash.
std::string_view handshake_context_label(Prover prover);
std::string_view finished_key_label(Prover prover);

/// Exporter values of one connection, for one prover.
struct AuthenticatorKeys {
  const char* hash = "SHA256";  ///< of the cipher suite, as OpenSSL names it
  Bytes handshake_context;
  Bytes finished_key;
};

using RequestContext = Array<32>;

/// A request for evidence: context, signature_algorithms = ed25519, an empty cmw_attestation.
Bytes make_request(Prover prover, const RequestContext& context);
/// Errors: malformed (another message, a context that is not 32 bytes, an extension twice), unsupported (a request that
/// takes no Ed25519 or no cmw_attestation). Unknown extensions are ignored (RFC 8446 section 4.3.2).
Result<RequestContext> parse_request(Prover prover, View request);

/// Answers `request` with `certificate` (DER, of `key`) and `evidence` (serialized Evidence, at most evidence_cap
/// bytes).
Bytes make_authenticator(const AuthenticatorKeys& keys, View request, const RequestContext& context, View certificate,
                         View evidence, const base::PrivateKey& key);
/// The refusal to prove anything (RFC 9261 section 5.2.4): a Finished over an empty Certificate.
Bytes make_empty_authenticator(const AuthenticatorKeys& keys, View request, View context);

struct Authenticated {
  base::PublicKey key;  ///< of the certificate; the caller's `peer`
  Bytes evidence;       ///< serialized Evidence; empty when the peer declined to prove itself
};
/// Parses and verifies an answer to `request`. `peer`: the key that the TLS handshake proved, which the certificate
/// must hold. Errors: malformed (bytes, sizes, order, an extension that was not asked for), untrusted (another
/// connection's or request's authenticator, a signature, another key). `verified`: SHA-256 of the DER of the
/// certificate that this connection's handshake has verified as the peer's, if at hand: the same bytes are not verified
/// twice.
Result<Authenticated> read_authenticator(const AuthenticatorKeys& keys, View request, const RequestContext& context,
                                         View authenticator, const base::PublicKey& peer,
                                         const base::Sha256* verified = nullptr);

/// Hash(handshake context || request || messages), the transcript of RFC 9261 section 5.2.
Bytes transcript_hash(const AuthenticatorKeys& keys, View request, View messages);

/// What the evidence must carry (docs/formats.md, "Channel"). `exporter`: TLS-Exporter("Attestation", request context,
/// 32). `record`: serialized instance record when the enclave proves itself, empty for a participant.
inline constexpr std::string_view attestation_label = "Attestation";
Array<64> channel_report_data(Prover prover, const base::PublicKey& own, const base::PublicKey& peer, View exporter,
                              View record);
/// A conceptual message wrapper (draft-ietf-rats-msg-wrap), CBOR record [media type, bytes, indicator]: evidence only.
inline constexpr std::string_view evidence_media_type = "application/vnd.cloister.evidence";
Bytes wrap_evidence(View evidence);
/// Errors: malformed, unsupported (another media type or conceptual message).
Result<Bytes> unwrap_evidence(View cmw);

}  // namespace cloister::protocols::channel
