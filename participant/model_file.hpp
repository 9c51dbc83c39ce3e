#pragma once
// The model of the present task, or what has arrived of it: one file in the node's folder, which the trainer maps for
// reading. Bytes go into it as they come, so that nothing holds a second copy and a download that was cut, also by the
// node's end, goes on where it was. Not fsynced: the digest over the whole decides, and what a power cut took is
// fetched again.

#include <optional>
#include <string>

#include "base/crypto.hpp"

namespace cloister::participant {

/// Not thread-safe. One process per folder (the ledger's lock sees to it).
class ModelFile {
 public:
  /// Makes `folder` (mode 0700) and the file of `capacity` bytes in it, with its room on the disk; takes up what a node
  /// before this one has left there. Error unavailable: no room, or the folder cannot be written.
  static Result<ModelFile> open(const std::string& folder, std::uint64_t capacity);
  ModelFile(ModelFile&& other) noexcept;
  ModelFile& operator=(ModelFile&& other) noexcept;
  ~ModelFile();

  /// Another model than `digest` is forgotten, and its place taken. `length` is at most the capacity.
  Result<void> want(const base::Sha256& digest, std::uint64_t length);
  /// The next bytes of the model that is wanted; asserts that they fit.
  Result<void> append(View bytes);
  /// Starts the wanted model from nothing.
  Result<void> restart();

  const base::Sha256& digest() const { return digest_; }  ///< of the model that is wanted
  std::uint64_t length() const { return length_; }
  std::uint64_t received() const { return received_; }
  /// Every byte is there and the digest holds.
  bool holds() const { return holds_; }

  const std::string& path() const { return path_; }

 private:
  ModelFile(std::string path, int file, int state) : path_(std::move(path)), file_(file), state_(state) {}
  Result<void> note() const;
  Result<void> take_up();
  void add(View bytes);

  std::string path_;
  int file_ = -1, state_ = -1;
  base::Sha256 digest_{};
  std::uint64_t length_ = 0, received_ = 0;
  std::optional<base::Hasher> hasher_{std::in_place};  ///< over what was received
  bool holds_ = false;
};

}  // namespace cloister::participant
