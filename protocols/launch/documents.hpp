#pragma once
// What a launch leaves behind, as bytes that are hashed and signed (docs/formats.md, "Instance record, host data,
// grant").
//
//   coordinator          launcher                         TEE and instance
//     LaunchRequest  ->  judges it by its policy
//                        launch document, host data   ->  started, measured
//                        <- Instance: record, evidence    makes its keys
//                        judges the evidence
//     LaunchStatus   <-  Grant                        ->  offers work
//                        Grant again, before it ends  ->
//     LaunchEnd      <-  the process is gone

#include <chrono>
#include <string>

#include "base/crypto.hpp"
#include "base/time.hpp"

namespace cloister::protocols::launch {

inline constexpr std::size_t charter_cap = 64 << 20;  ///< bytes of a founded charter
inline constexpr std::size_t record_cap = 1024;
inline constexpr std::size_t grant_cap = 1024;

/// What the launcher hands to a new instance. Its digest, with the charter's, is the instance's host data.
struct LaunchDocument {
  Bytes charter;                         ///< founded, serialized
  Array<32> nonce{};                     ///< fresh: a record that carries it is no older than this launch
  std::uint64_t memory = 0;              ///< bytes that the instance may use
  std::uint32_t connections = 0;         ///< that it may hold open
  std::chrono::milliseconds duration{};  ///< after which it is ended
  Bytes measurement;                     ///< of the build that the charter names
  std::string host;                      ///< where it listens
  std::uint16_t port = 0;

  Bytes serialize() const;
  static Result<LaunchDocument> parse(View bytes);
};

/// One start of the aggregator: which charter, which keys, which launch.
struct Record {
  base::Sha256 charter{};     ///< digest
  base::Sha256 tls_digest{};  ///< SHA-256 of the TLS key's SubjectPublicKeyInfo
  base::PublicKey tls;
  base::PublicKey receipt;
  Array<32> nonce{};  ///< the launch document's

  static Record make(const base::Sha256& charter, const base::PublicKey& tls, const base::PublicKey& receipt,
                     const Array<32>& nonce);
  Bytes serialize() const;
  /// Errors: malformed; untrusted when tls_digest is not the digest of tls.
  static Result<Record> parse(View bytes);
};

/// What instance evidence carries: SHA-512(field("cloister instance 1") || field(record)).
Array<64> instance_report_data(View record);

/// The compute owner's word that it started this instance on this platform, until not_after.
struct Grant {
  base::Sha256 record{};  ///< SHA-256 of the record
  std::string platform;   ///< as policies list it: "simulated:4f2a…"
  Array<32> host_data{};  ///< what the instance's evidence must carry
  Time not_before{};
  Time not_after{};
  base::Signature signature{};  ///< by the charter's grant key, context "cloister grant v1", over signed_bytes()

  Bytes signed_bytes() const;
  /// field(signed_bytes()) || raw signature
  Bytes serialize() const;
  static Result<Grant> parse(View bytes);
};
Grant sign_grant(Grant grant, const base::PrivateKey& grant_key);

}  // namespace cloister::protocols::launch
