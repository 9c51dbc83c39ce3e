#pragma once
// Contract 1 between a node and its trainer child (README.md, "Contract 1"): JSON lines on a stream socket, records and
// model read from descriptors that the node opened, updates written to shared memory.

namespace cloister::participant::trainer {

/// The descriptors that the node passes.
struct ChildDescriptors {
  int lines = 3;   ///< stream socket, both ways
  int data = 4;    ///< the CSV file, open for reading
  int model = 5;   ///< shared memory, read-only
  int update = 6;  ///< shared memory of a fixed size
};

/// Serves tasks until the node closes its end. Gives the exit code: 0, or 1 when the first line could not be served.
int serve(const ChildDescriptors& descriptors);

}  // namespace cloister::participant::trainer
