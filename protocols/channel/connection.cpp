#include "protocols/channel/connection.hpp"

#include <cstring>
#include <fmt/format.h>

namespace cloister::protocols::channel {

namespace {

// What send_data cuts into: it stays in the cache while it is encrypted, and fills 16 TLS records with its header.
constexpr std::size_t data_frame = (256 << 10) - header_size;
constexpr std::size_t kept_frames_cap = 64;  // while evidence is awaited
constexpr std::size_t kept_bytes_cap = 64 << 20;
constexpr std::size_t contexts_cap = 4096;  // requests for evidence on one connection
constexpr std::chrono::milliseconds refusal_linger{2000};
constexpr std::size_t findings_cap = 64, text_cap = 2048;

struct Flag {
  bool& flag;
  explicit Flag(bool& f) : flag(f) { flag = true; }
  ~Flag() { flag = false; }
};

/// Takes off `left` what `have` has grown by in this scope.
struct Given {
  std::uint64_t& left;
  const std::size_t& have;
  const std::size_t before;
  ~Given() { left -= have - before; }
};

}  // namespace

std::string tame(const std::string& s) {
  std::string out = s.substr(0, text_cap);
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return out;
}

FramedConnection::FramedConnection(std::unique_ptr<Tls> tls, Tls::Role role, std::string owner)
    : tls_(std::move(tls)), role_(role), owner_(std::move(owner)) {}

awaitable<void> FramedConnection::write(View head, View body) {
  std::exception_ptr cut;
  try {
    co_await tls_->write(head, body);
  } catch (const Exception& e) {
    if (receiving_ || e.error().kind != Error::Kind::unavailable) throw;
    cut = std::current_exception();
  }
  if (!cut) co_return;
  // The peer went while we sent. What it said last, a refusal perhaps, is worth more than "connection reset".
  try {
    Frame last;
    for (;;) co_await with_deadline(receive_raw(last), std::chrono::steady_clock::now() + refusal_linger, name());
  } catch (const Refused&) {
    throw;
  } catch (const std::exception&) {
    std::rethrow_exception(cut);
  }
}

awaitable<void> FramedConnection::send(MessageType type, const google::protobuf::MessageLite& message) {
  // Not a coroutine: the message is serialized now, so that a temporary may go before this is awaited.
  Bytes bytes(message.ByteSizeLong());
  const std::size_t at_most = type == messages::LAUNCH_REQUEST ? launch_cap : cap(type);
  if (bytes.size() > at_most)
    throw Exception(
        base::malformed(name(), fmt::format("{} of {} bytes, at most {} go", type_text(type), bytes.size(), at_most)));
  if (!message.SerializeToArray(bytes.data(), static_cast<int>(bytes.size())))
    throw std::logic_error("a message does not serialize");
  return send_bytes(type, std::move(bytes));
}

awaitable<void> FramedConnection::send_bytes(MessageType type, Bytes payload) {
  const auto head = encode(Header{type, payload.size()});
  co_await write(head, payload);
}

awaitable<void> FramedConnection::send_data(View bytes) {
  while (!bytes.empty()) {
    const View part = bytes.first(std::min(bytes.size(), data_frame));
    const auto head = encode(Header{messages::DATA, part.size()});
    co_await write(head, part);
    bytes = bytes.subspan(part.size());
  }
}

awaitable<void> FramedConnection::fill(std::span<std::uint8_t> into, std::size_t& have, bool inside_frame) {
  try {
    co_await tls_->read(into, have, /*idle=*/!inside_frame);
  } catch (const Exception& e) {
    if (e.error().kind != Error::Kind::unavailable || (!inside_frame && have == 0)) throw;
    throw Exception(base::unavailable(e.error().where, e.error().what + ", in the middle of a frame"));
  }
}

awaitable<void> FramedConnection::receive_header() {
  if (header_) co_return;
  co_await fill(head_, head_have_, false);
  head_have_ = 0;
  auto header = decode(head_, launches_);
  if (!header) {
    close();  // the framing is lost; nothing after this means anything
    throw Exception(Error{header.error().kind, name() + ": " + header.error().where, header.error().what});
  }
  header_ = *header;
  payload_have_ = 0;
}

awaitable<void> FramedConnection::receive_raw(Frame& into) {
  if (receiving_) throw std::logic_error("two coroutines receive on one connection");
  Flag receiving(receiving_);
  co_await receive_header();
  // A header alone costs the peer nothing, so memory follows what has arrived; a stream of data frames reuses it.
  for (;;) {
    payload_.resize(
        std::min<std::size_t>(header_->length, std::max({payload_.capacity(), payload_have_ * 2, data_frame})));
    co_await fill(payload_, payload_have_, true);
    if (payload_.size() == header_->length) break;
  }
  into.type = header_->type;
  std::swap(into.payload, payload_);
  header_.reset();
  if (into.type != messages::REFUSAL) co_return;
  close();  // a refusal is the last word, on both sides
  throw refused_by_peer(into, name());
}

awaitable<void> FramedConnection::receive(Frame& into) {
  if (!kept_.empty()) {
    into = std::move(kept_.front());
    kept_.pop_front();
    kept_bytes_ -= into.payload.size();
    co_return;
  }
  for (;;) {
    co_await receive_raw(into);
    const bool handled = co_await handled_inside(into);
    if (!handled) co_return;
  }
}

/// What the channel answers itself and shows nobody: a request for evidence, and the verdict on it.
awaitable<bool> FramedConnection::handled_inside(const Frame& frame) {
  if (frame.type == messages::AUTHENTICATOR_REQUEST && identity_) {
    const Bytes request = base::copy(base::view(parse<messages::AuthenticatorRequest>(frame).request()));
    co_await answer_again(request);
    co_return true;
  }
  co_return frame.type == messages::ACCEPTED&& std::exchange(awaits_accepted_, false);
}

/// Of a data frame that was kept while something else was awaited, as much as fits.
std::size_t FramedConnection::take_kept(std::span<std::uint8_t> into) {
  Bytes& payload = kept_.front().payload;
  const std::size_t n = std::min(payload.size(), into.size());
  std::copy_n(payload.begin(), n, into.begin());
  payload.erase(payload.begin(), payload.begin() + static_cast<std::ptrdiff_t>(n));
  kept_bytes_ -= n;
  if (payload.empty()) kept_.pop_front();
  return n;
}

/// Of a data frame that a cancelled receive() has begun, as much as fits.
std::size_t FramedConnection::take_received(std::span<std::uint8_t> into) {
  const std::size_t n = std::min(payload_have_, into.size());
  std::copy_n(payload_.begin(), n, into.begin());
  payload_.erase(payload_.begin(), payload_.begin() + static_cast<std::ptrdiff_t>(n));
  payload_have_ -= n;
  header_->length -= n;
  return n;
}

awaitable<bool> FramedConnection::receive_data(std::span<std::uint8_t> into, std::size_t& have) {
  while (have < into.size()) {
    if (!kept_.empty()) {
      if (kept_.front().type != messages::DATA) co_return false;
      have += take_kept(into.subspan(have));
      continue;
    }
    if (receiving_) throw std::logic_error("two coroutines receive on one connection");
    {
      Flag receiving(receiving_);
      co_await receive_header();
      if (header_->type == messages::DATA) {
        have += take_received(into.subspan(have));
        // Counted as it arrives, whatever ends the wait: the caller's place and what is left of the frame move
        // together.
        Given given{header_->length, have, have};
        const auto part = into.first(std::min<std::size_t>(into.size(), have + header_->length));
        co_await fill(part, have, true);
      }
    }
    if (header_->type == messages::DATA) {
      if (header_->length == 0) header_.reset();
      continue;
    }
    if (header_->type != messages::AUTHENTICATOR_REQUEST && header_->type != messages::ACCEPTED &&
        header_->type != messages::REFUSAL)
      co_return false;
    Frame frame;
    co_await receive_raw(frame);
    const bool handled = co_await handled_inside(frame);
    if (handled) continue;
    keep(std::move(frame));
    co_return false;
  }
  co_return true;
}

awaitable<Frame> FramedConnection::receive() {
  Frame frame;
  co_await receive(frame);
  co_return frame;
}

void FramedConnection::keep(Frame frame) {
  kept_bytes_ += frame.payload.size();
  if (kept_.size() >= kept_frames_cap || kept_bytes_ > kept_bytes_cap)
    throw Exception(base::malformed(
        name(), "got a stream of frames while waiting for an Authenticator: evidence is renewed between rounds"));
  kept_.push_back(std::move(frame));
}

AuthenticatorKeys FramedConnection::authenticator_keys(Prover prover) const {
  return {tls_->hash(), tls_->exporter(handshake_context_label(prover), {}, tls_->hash_size()),
          tls_->exporter(finished_key_label(prover), {}, tls_->hash_size())};
}

Array<64> FramedConnection::report_data(Prover prover, bool own, const RequestContext& context) const {
  const Bytes exporter = tls_->exporter(attestation_label, context, 32);
  const auto& mine = tls_->own_key();
  const auto& theirs = tls_->peer_key();
  return channel_report_data(prover, own ? mine : theirs, own ? theirs : mine, exporter,
                             prover == Prover::server ? View(record_) : View());
}

Bytes FramedConnection::answer_request(Prover prover, View request, const attest::Attester* attester) {
  auto context = parse_request(prover, request);
  if (!context)
    throw Exception(Error{context.error().kind, name() + ": " + context.error().where, context.error().what});
  // RFC 9261 section 4: a certificate_request_context is unique within its connection.
  if (used_contexts_.size() >= contexts_cap || !used_contexts_.insert(*context).second)
    throw Exception(base::untrusted(name(), used_contexts_.size() >= contexts_cap
                                                ? "asked for evidence too often on one connection"
                                                : "used a request context twice: wanted 32 fresh random bytes"));
  const auto keys = authenticator_keys(prover);
  if (attester == nullptr) return make_empty_authenticator(keys, request, *context);
  auto evidence = (*attester)(report_data(prover, /*own=*/true, *context));
  if (!evidence)
    throw Exception(base::unavailable(name(), "no evidence to be had for this side: " + evidence.error().text()));
  if (evidence->size() > evidence_cap)
    throw Exception(
        base::malformed(name(), fmt::format("evidence of {} bytes, at most {} fit", evidence->size(), evidence_cap)));
  return make_authenticator(keys, request, *context, tls_->own_certificate(), *evidence, tls_->own_private_key());
}

awaitable<void> FramedConnection::answer_again(View request) {
  const Bytes grant = identity_->grant();
  if (grant.empty()) {
    messages::Refusal refusal = refusal_message({}, "the grant has ended and is not renewed yet", /*retry=*/true);
    co_await send(messages::REFUSAL, refusal);
    throw Exception(base::expired(name(), "asked for evidence while no grant is in force"));
  }
  messages::Hello hello;
  hello.set_version(1);
  hello.set_charter(base::text(identity_->charter));
  hello.set_record(base::text(identity_->record));
  hello.set_grant(base::text(grant));
  hello.set_software(identity_->software);
  messages::Authenticator answer;
  answer.set_authenticator(base::text(answer_request(Prover::server, request, &identity_->attester)));
  co_await send(messages::HELLO, hello);
  co_await send(messages::AUTHENTICATOR, answer);
  awaits_accepted_ = true;
}

messages::Refusal refusal_message(const attest::Decision& decision, const std::string& reason, bool retry) {
  messages::Refusal out;
  out.set_reason(reason);
  out.set_retry(retry);
  for (const auto& f : decision.refusals()) {
    auto* to = out.add_findings();
    to->set_owner(f.owner);
    to->set_requirement(f.requirement);
    to->set_wanted(f.wanted);
    to->set_found(f.found);
    to->set_remedy(f.remedy);
  }
  return out;
}

Refused refused_by_peer(const Frame& frame, const std::string& peer) {
  const auto refusal = parse<messages::Refusal>(frame);
  attest::Decision decision;
  for (const auto& f : refusal.findings()) {
    if (decision.findings.size() == findings_cap) break;
    decision.add({false, tame(f.owner()), tame(f.requirement()), tame(f.wanted()), tame(f.found()), tame(f.remedy())});
  }
  std::string what = "refused this side";
  if (!refusal.reason().empty()) what += ": " + tame(refusal.reason());
  for (const auto& f : decision.findings) what += "\n" + f.text();
  auto error = refusal.retry() ? base::unavailable(peer, what) : base::denied(peer, what);
  return Refused(std::move(error), std::move(decision), /*by_peer=*/true, refusal.retry());
}

attest::Finding unmet(std::string requirement, std::string wanted, std::string found, std::string remedy) {
  return {false, "charter", std::move(requirement), std::move(wanted), std::move(found), std::move(remedy)};
}

attest::Decision denial(attest::Finding finding) {
  attest::Decision out;
  out.add(std::move(finding));
  return out;
}

awaitable<void> refuse_and_throw(std::shared_ptr<FramedConnection> connection, attest::Decision decision,
                                 std::string reason, bool retry, std::shared_ptr<base::Log> log) {
  const std::string peer = connection->name();
  if (log) attest::log_refusals(*log, decision, peer);
  std::string what = reason.empty() ? std::string() : reason + "\n";
  what += decision.findings.empty() ? std::string() : decision.explain();
  co_await refuse(connection, decision, reason, retry);
  throw Refused(retry ? base::unavailable(peer, what) : base::denied(peer, what), std::move(decision),
                /*by_peer=*/false, retry);
}

std::string type_text(MessageType type) {
  return messages::MessageType_IsValid(type) ? messages::MessageType_Name(type) : std::to_string(type);
}

}  // namespace cloister::protocols::channel
