#include "protocols/round/members.hpp"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>

namespace cloister::protocols::round {

using base::Reader;
using base::Writer;

namespace {

// Caps before anything is parsed: above what a charter can name.
constexpr std::size_t owners_cap = 100'000;
constexpr std::size_t reason_cap = 1024;

/// Few places stand one by one, many as a bitmap: whichever is shorter, so that there is one encoding.
bool as_list(std::size_t count, std::uint32_t owners) {
  return count * 32 <= owners;
}

void write_places(Writer& w, const Members::Places& places, std::uint32_t owners) {
  w.u32(static_cast<std::uint32_t>(places.size()));
  if (as_list(places.size(), owners)) {
    for (const std::uint32_t place : places) w.u32(place);
    return;
  }
  Bytes bits((owners + 7) / 8);
  for (const std::uint32_t place : places)
    bits[place / 8] = static_cast<std::uint8_t>(bits[place / 8] | 1 << place % 8);
  w.raw(bits);
}

Members::Places read_places(Reader& r, std::uint32_t owners) {
  const std::uint32_t count = r.u32("members.places");
  Members::Places out;
  if (!r.ok() || count == 0 || count > owners) {
    r.fail("members.places", fmt::format("wanted 1 to {} places, found {}", owners, count));
    return out;
  }
  if (as_list(count, owners)) {
    for (std::uint32_t i = 0; i < count && r.ok(); ++i) {
      const std::uint32_t place = r.u32("members.place");
      if (r.ok() && (place >= owners || (!out.empty() && out.back() >= place)))
        r.fail("members.place", "wanted ascending places of data owners");
      out.push_back(place);
    }
    return out;
  }
  const View bits = r.raw("members.bits", (owners + 7) / 8);
  for (std::uint32_t at = 0; at < bits.size() * 8; ++at)
    if ((bits[at / 8] >> at % 8 & 1) != 0) out.push_back(at);
  if (r.ok() && (out.size() != count || out.back() >= owners))
    r.fail("members.bits", fmt::format("wanted {} of {} bits set, found {}", count, owners, out.size()));
  return out;
}

}  // namespace

std::string_view name(MemberState state) {
  switch (state) {
    case MemberState::contributed:
      return "contributed";
    case MemberState::absent:
      return "absent";
    case MemberState::declined:
      return "declined";
    case MemberState::refused:
      return "refused";
    case MemberState::late:
      return "late";
    case MemberState::withdrawn:
      return "withdrawn";
  }
  return "unknown";
}

std::uint32_t Members::contributors() const {
  std::size_t others = 0;
  for (const auto& [what, places] : others_) others += places.size();
  return owners_ - static_cast<std::uint32_t>(others);
}

std::uint32_t Members::contributors_before(std::uint32_t place) const {
  std::ptrdiff_t others = 0;
  for (const auto& [what, places] : others_) others += std::ranges::lower_bound(places, place) - places.begin();
  return place - static_cast<std::uint32_t>(others);
}

ReceiptMember Members::operator[](std::uint32_t place) const {
  if (place >= owners_) std::abort();
  for (const auto& [what, places] : others_)
    if (std::ranges::binary_search(places, place)) return {what.first, what.second};
  return {MemberState::contributed, ""};
}

void Members::set(std::uint32_t place, MemberState state, std::string reason) {
  if (place >= owners_) std::abort();
  for (auto group = others_.begin(); group != others_.end(); ++group) {
    const auto at = std::ranges::lower_bound(group->second, place);
    if (at == group->second.end() || *at != place) continue;
    group->second.erase(at);
    if (group->second.empty()) others_.erase(group);
    break;
  }
  if (state == MemberState::contributed) return;
  Places& places = others_[{state, std::move(reason)}];
  places.insert(std::ranges::lower_bound(places, place), place);
}

Members::Places Members::withdrawn() const {
  Places out;
  for (const auto& [what, places] : others_)
    if (what.first == MemberState::withdrawn) out.insert(out.end(), places.begin(), places.end());
  std::ranges::sort(out);
  return out;
}

void Members::write(Writer& w) const {
  w.u32(owners_).u32(static_cast<std::uint32_t>(others_.size()));
  for (const auto& [what, places] : others_) {
    w.u8(static_cast<std::uint8_t>(what.first)).field(what.second);
    write_places(w, places, owners_);
  }
}

Members Members::read(Reader& r) {
  const std::uint32_t owners = r.u32("members");
  if (owners > owners_cap) r.fail("members", fmt::format("at most {}, found {}", owners_cap, owners));
  const std::uint32_t groups = r.u32("members.groups");
  if (groups > groups_at_most) r.fail("members.groups", fmt::format("at most {}, found {}", groups_at_most, groups));
  if (!r.ok()) return Members();
  Members out(owners);
  std::vector<bool> seen(owners);
  for (std::uint32_t i = 0; i < groups && r.ok(); ++i) {
    const std::uint8_t state = r.u8("members.state");
    if (r.ok() && (state < 2 || state > 6)) r.fail("members.state", fmt::format("wanted 2 to 6, found {}", state));
    std::pair what{static_cast<MemberState>(state), r.string("members.reason", reason_cap)};
    if (r.ok() && !out.others_.empty() && out.others_.rbegin()->first >= what)
      r.fail("members.state", "wanted ascending states and reasons");
    Places places = read_places(r, owners);
    for (const std::uint32_t place : places) {
      if (!r.ok()) break;
      if (seen[place]) r.fail("members.place", fmt::format("{} stands twice", place));
      seen[place] = true;
    }
    if (r.ok()) out.others_.emplace(std::move(what), std::move(places));
  }
  return out;
}

}  // namespace cloister::protocols::round
