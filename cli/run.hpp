#pragma once
// What a submitter does: options and run_ functions, free of the command line's parser, so that tests call them. Each
// prints to standard output, as JSON when asked, and gives the exit code (cli::Exit); what fails or is denied throws
// Exception.

#include <map>
#include <string>
#include <vector>

namespace cloister::cli {

/// Which coordinator, and who asks. Coordinator and server key are the charter's unless they are given.
struct RemoteOptions {
  std::string charter;      ///< file
  std::string coordinator;  ///< HOST:PORT
  std::string server_key;   ///< ed25519:…
  std::string key;          ///< file of the submitter's private key
  std::string proxy;        ///< HOST:PORT of an HTTP CONNECT proxy
  std::string study;        ///< name or charter digest, when the coordinator keeps several
};

struct SubmitOptions {
  RemoteOptions remote;
  std::vector<std::string> set;  ///< NAME=VALUE
  std::string note;
  bool watch = false;
};
/// Signs here and submits; with `watch` goes on like run_watch.
int run_submit(const SubmitOptions& options, bool json);

struct RunOptions {
  RemoteOptions remote;
  std::uint64_t run = 0;
};
int run_list(const RemoteOptions& options, bool json);
int run_show(const RunOptions& options, bool json);
/// Follows the run to its end: done when it is, failed otherwise. A coordinator that restarts is dialled again.
int run_watch(const RunOptions& options, bool json);

struct CancelOptions : RunOptions {
  std::string reason;
};
int run_cancel(const CancelOptions& options, bool json);

struct FetchOptions : RunOptions {
  std::string kind, out;
  std::uint32_t round = 0;  ///< 0: the last
};
/// Writes a published result's bytes, after checking them against their digest.
int run_fetch(const FetchOptions& options, bool json);

struct ReceiptsOptions : RunOptions {
  bool verify = false;  ///< needs the charter
  std::string at;       ///< when the instance lived; empty: when the run was submitted
  std::string out;      ///< folder for the signed bytes, or empty
};
int run_receipts(const ReceiptsOptions& options, bool json);

}  // namespace cloister::cli
