#pragma once
// Node and trainer in a TEE of their own: what the simulated TEE is started with, and how the guest inside reads it
// back. The guest's arguments are fixed and measured ("participant guest"); everything else comes in the launch
// document.

#include <string>

#include "base/bytes.hpp"
#include "base/crypto.hpp"

namespace cloister::participant {

struct GuestDocument {
  std::string config_file;  ///< absolute; its text is part of the document, so what was measured is what runs
  std::string config;
  std::uint32_t runs = 0;
  bool once = false;

  Bytes serialize() const;
  static Result<GuestDocument> parse(View bytes);
};

/// Becomes the simulated TEE (exec), with this program as its guest. Returns only on failure.
Error become_tee(const std::string& tee_program, const std::string& platform, const std::string& own_program,
                 const base::Sha256& charter, const GuestDocument& document);

}  // namespace cloister::participant
