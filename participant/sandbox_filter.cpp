// The seccomp filter: system calls that a program which reads its descriptors and computes has no use for.
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <memory>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include "participant/sandbox_plan.hpp"

namespace cloister::participant::sandbox {
namespace {

// No sockets of any family, so no network and no other local service. On the socket pair that it was given it may read
// and write; sendmsg could pass descriptors.
constexpr const char* sockets[] = {"socket", "socketpair", "connect", "bind",     "listen",
                                   "accept", "accept4",    "sendmsg", "sendmmsg", "socketcall"};
// No look into, and no signal to, other processes: the sandbox's own waiting processes hold a copy of the node's
// memory.
constexpr const char* processes[] = {"ptrace",      "process_vm_readv", "process_vm_writev", "process_madvise",
                                     "kcmp",        "pidfd_open",       "pidfd_getfd",       "pidfd_send_signal",
                                     "kill",        "rt_sigqueueinfo",  "rt_tgsigqueueinfo", "perf_event_open",
                                     "setpriority", "setsid",           "setpgid",           "sched_setscheduler"};
// No way out of the view, and none of the kernel's larger surfaces.
constexpr const char* system_calls[] = {"mount",
                                        "umount2",
                                        "pivot_root",
                                        "chroot",
                                        "move_mount",
                                        "open_tree",
                                        "fsopen",
                                        "fsconfig",
                                        "fsmount",
                                        "fspick",
                                        "mount_setattr",
                                        "setns",
                                        "unshare",
                                        "open_by_handle_at",
                                        "name_to_handle_at",
                                        "bpf",
                                        "userfaultfd",
                                        "io_uring_setup",
                                        "io_uring_enter",
                                        "io_uring_register",
                                        "keyctl",
                                        "add_key",
                                        "request_key",
                                        "init_module",
                                        "finit_module",
                                        "delete_module",
                                        "kexec_load",
                                        "kexec_file_load",
                                        "reboot",
                                        "swapon",
                                        "swapoff",
                                        "acct",
                                        "settimeofday",
                                        "clock_settime",
                                        "clock_adjtime",
                                        "adjtimex",
                                        "syslog",
                                        "quotactl",
                                        "fanotify_init",
                                        "personality",
                                        "iopl",
                                        "ioperm",
                                        "lookup_dcookie",
                                        "vhangup",
                                        "sethostname",
                                        "setdomainname",
                                        "modify_ldt",
                                        "mbind",
                                        "migrate_pages",
                                        "move_pages",
                                        "ioprio_set",
                                        "mq_open",
                                        "shmget",
                                        "msgget",
                                        "semget"};
// Nothing in a file system is changed (opening for writing is below).
constexpr const char* changes[] = {"creat",       "truncate",     "unlink",      "unlinkat", "rename",    "renameat",
                                   "renameat2",   "mkdir",        "mkdirat",     "rmdir",    "link",      "linkat",
                                   "symlink",     "symlinkat",    "mknod",       "mknodat",  "chmod",     "fchmod",
                                   "fchmodat",    "chown",        "fchown",      "lchown",   "fchownat",  "utime",
                                   "utimes",      "utimensat",    "futimesat",   "setxattr", "lsetxattr", "fsetxattr",
                                   "removexattr", "lremovexattr", "fremovexattr"};

struct Filter {
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_ALLOW);
  int worst = 0;

  ~Filter() { seccomp_release(context); }
  void deny(const char* call, int error) {
    const int number = seccomp_syscall_resolve_name(call);
    if (number == __NR_SCMP_ERROR || number < 0) return;  // this architecture does not have it
    note(seccomp_rule_add(context, SCMP_ACT_ERRNO(static_cast<std::uint32_t>(error)), number, 0));
  }
  void deny_flag(const char* call, unsigned argument, std::uint64_t flag, int error) {
    const int number = seccomp_syscall_resolve_name(call);
    if (number == __NR_SCMP_ERROR || number < 0) return;
    const scmp_arg_cmp compare{argument, SCMP_CMP_MASKED_EQ, flag, flag};
    note(seccomp_rule_add_array(context, SCMP_ACT_ERRNO(static_cast<std::uint32_t>(error)), number, 1, &compare));
  }
  void note(int result) {
    if (result != 0 && worst == 0) worst = result;
  }
};

void deny_all(Filter& filter) {
  for (const char* call : sockets) filter.deny(call, EPERM);
  for (const char* call : processes) filter.deny(call, EPERM);
  for (const char* call : system_calls) filter.deny(call, EPERM);
  for (const char* call : changes) filter.deny(call, EACCES);
  // Opening for writing: an inherited read-only descriptor cannot be opened again as a writable one.
  for (const std::uint64_t flag : {O_WRONLY, O_RDWR, O_CREAT, O_TRUNC}) {
    filter.deny_flag("open", 1, flag, EACCES);
    filter.deny_flag("openat", 2, flag, EACCES);
  }
  // Their flags lie in memory, where a filter cannot look; the C library falls back to openat and clone.
  filter.deny("openat2", ENOSYS);
  filter.deny("clone3", ENOSYS);
  for (const std::uint64_t flag :
       {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP})
    filter.deny_flag("clone", 0, flag, EPERM);
}

}  // namespace

Result<std::vector<sock_filter>> make_filter() {
  Filter filter;
  if (filter.context == nullptr) return base::unavailable("seccomp", "cannot make a filter");
  deny_all(filter);
  const auto failed = [](int error) {
    return base::unavailable("seccomp", fmt::format("cannot make the filter: {}", std::strerror(error)));
  };
  if (filter.worst != 0) return failed(-filter.worst);
  const int fd = ::memfd_create("filter", MFD_CLOEXEC);
  if (fd < 0) return failed(errno);
  std::vector<sock_filter> program;
  const int exported = seccomp_export_bpf(filter.context, fd);
  const off_t size = ::lseek(fd, 0, SEEK_END);
  if (exported == 0 && size > 0) {
    program.resize(static_cast<std::size_t>(size) / sizeof(sock_filter));
    if (::pread(fd, program.data(), static_cast<std::size_t>(size), 0) != size) program.clear();
  }
  ::close(fd);
  if (program.empty()) return failed(exported != 0 ? -exported : EIO);
  return program;
}

}  // namespace cloister::participant::sandbox
