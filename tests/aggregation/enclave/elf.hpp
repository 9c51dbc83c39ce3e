#pragma once
// What an ELF file asks its loader for: enough of the System V ABI (gABI, chapter 5) to read DT_NEEDED and DT_RUNPATH.

#include <elf.h>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/bytes.hpp"

namespace cloister::tests {

struct Dynamic {
  std::vector<std::string> needed;
  std::vector<std::string> search_paths;  ///< DT_RPATH, DT_RUNPATH
};

template <class T>
T read_at(View file, std::uint64_t at) {
  if (at > file.size() || file.size() - at < sizeof(T)) throw std::runtime_error("the ELF file is cut");
  T out;
  std::copy_n(file.begin() + static_cast<std::ptrdiff_t>(at), sizeof(T), reinterpret_cast<std::uint8_t*>(&out));
  return out;
}

inline Dynamic dynamic_of(View file) {
  const auto header = read_at<Elf64_Ehdr>(file, 0);
  if (std::string_view(reinterpret_cast<const char*>(header.e_ident), 4) != ELFMAG ||
      header.e_ident[EI_CLASS] != ELFCLASS64)
    throw std::runtime_error("no 64-bit ELF file");
  std::vector<Elf64_Phdr> segments;
  for (unsigned i = 0; i < header.e_phnum; ++i)
    segments.push_back(read_at<Elf64_Phdr>(file, header.e_phoff + std::uint64_t{i} * sizeof(Elf64_Phdr)));
  const auto offset_of = [&](std::uint64_t address) {
    for (const auto& s : segments)
      if (s.p_type == PT_LOAD && address >= s.p_vaddr && address < s.p_vaddr + s.p_filesz)
        return address - s.p_vaddr + s.p_offset;
    throw std::runtime_error("an address outside every segment");
  };
  std::vector<Elf64_Dyn> entries;
  for (const auto& s : segments)
    for (std::uint64_t at = 0; s.p_type == PT_DYNAMIC && at + sizeof(Elf64_Dyn) <= s.p_filesz; at += sizeof(Elf64_Dyn))
      entries.push_back(read_at<Elf64_Dyn>(file, s.p_offset + at));
  std::uint64_t strings = 0;
  for (const auto& e : entries)
    if (e.d_tag == DT_STRTAB) strings = offset_of(e.d_un.d_ptr);
  const auto string = [&](std::uint64_t index) {
    std::string out;
    for (std::uint64_t at = strings + index;; ++at) {
      const char c = read_at<char>(file, at);
      if (c == 0) return out;
      out += c;
    }
  };
  Dynamic out;
  for (const auto& e : entries) {
    if (e.d_tag == DT_NEEDED) out.needed.push_back(string(e.d_un.d_val));
    if (e.d_tag == DT_RPATH || e.d_tag == DT_RUNPATH) out.search_paths.push_back(string(e.d_un.d_val));
  }
  return out;
}

}  // namespace cloister::tests
