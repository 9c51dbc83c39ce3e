// The child's side: three processes of system calls and nothing else.
//
//   node ── keeper ── first process of the new process namespace ── program
//
// The keeper makes the namespaces and waits, so that the node can kill everything by killing it; the first process
// reports how the program ended (a program that is itself the first process of a namespace could not abort).
#include <cerrno>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "participant/sandbox_plan.hpp"

namespace cloister::participant::sandbox {
namespace {

constexpr unsigned nobody = 65534;
constexpr const char* view_root = "/tmp";  // of the keeper's own mount namespace; covered, then left behind

struct Applied {
  bool user = false, mounts = false, view = false, network = false, processes = false;
};

void report(const Plan& plan, const char* layer, int error, const char* step) {
  char line[256];
  const int n = error == 0 ? ::snprintf(line, sizeof line, "%s=0\n", layer)
                           : ::snprintf(line, sizeof line, "%s=%d:%s\n", layer, error, step);
  if (n > 0 && ::write(plan.report, line, static_cast<size_t>(n)) < 0) ::_exit(127);
}

[[noreturn]] void fatal(const Plan& plan, const char* step) {
  report(plan, "fatal", errno == 0 ? EIO : errno, step);
  ::_exit(127);
}

bool write_text(const char* path, const char* text) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool ok = ::write(fd, text, ::strlen(text)) == static_cast<ssize_t>(::strlen(text));
  ::close(fd);
  return ok;
}

// Unprivileged, the other namespaces need a user namespace (user_namespaces(7)). Inside, this user is nobody: a program
// that is executed as user 0 of a namespace would regain its capabilities (capabilities(7), "user ID 0").
bool enter_user_namespace() {
  // A node that forbade dumps is root's in /proc, and its copy could not write its own maps; forbidden again below.
  ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  char users[64], groups[64];
  ::snprintf(users, sizeof users, "%u %u 1", nobody, ::geteuid());
  ::snprintf(groups, sizeof groups, "%u %u 1", nobody, ::getegid());
  return ::unshare(CLONE_NEWUSER) == 0 && write_text("/proc/self/setgroups", "deny") &&
         write_text("/proc/self/uid_map", users) && write_text("/proc/self/gid_map", groups);
}

void enter_namespaces(const Plan& plan, Applied& applied) {
  if (plan.leave_out & Layer::namespaces) return;
  applied.mounts = ::unshare(CLONE_NEWNS) == 0;
  if (!applied.mounts && errno == EPERM) {
    applied.user = enter_user_namespace();
    applied.mounts = applied.user && ::unshare(CLONE_NEWNS) == 0;
  }
  if (!applied.mounts) report(plan, "mount namespace", errno, "unshare");
  applied.network = ::unshare(CLONE_NEWNET) == 0;
  report(plan, "network namespace", applied.network ? 0 : errno, "unshare");
  applied.processes = ::unshare(CLONE_NEWPID) == 0;
  report(plan, "process namespace", applied.processes ? 0 : errno, "unshare");
  (void)::unshare(CLONE_NEWIPC);
  (void)::unshare(CLONE_NEWUTS);
}

// "/tmp" + "/lib/x/libc.so" -> makes /tmp/lib/x, leaves the whole in `out`.
bool make_parents(const char* target, char* out, size_t cap) {
  if (::snprintf(out, cap, "%s%s", view_root, target) >= static_cast<int>(cap)) {
    errno = ENAMETOOLONG;
    return false;
  }
  for (char* slash = ::strchr(out + ::strlen(view_root) + 1, '/'); slash != nullptr; slash = ::strchr(slash + 1, '/')) {
    *slash = 0;
    const bool made = ::mkdir(out, 0755) == 0 || errno == EEXIST;
    *slash = '/';
    if (!made) return false;
  }
  return true;
}

bool make_readonly(const char* path, bool device, bool recursive) {
  struct mount_attr attributes = {};
  attributes.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | (device ? 0 : MOUNT_ATTR_NODEV);
  return ::syscall(SYS_mount_setattr, AT_FDCWD, path, recursive ? AT_RECURSIVE : 0, &attributes, sizeof attributes) ==
         0;
}

bool show(const Shown& what, int source) {
  char target[4096], from[64];
  if (!make_parents(what.target.c_str(), target, sizeof target)) return false;
  if (what.folder) {
    if (::mkdir(target, 0755) != 0 && errno != EEXIST) return false;
  } else {
    const int fd = ::open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
    if (fd < 0) return false;
    ::close(fd);
  }
  ::snprintf(from, sizeof from, "/proc/self/fd/%d", source);
  return ::mount(from, target, nullptr, MS_BIND | (what.folder ? MS_REC : 0), nullptr) == 0 &&
         make_readonly(target, what.device, what.folder);
}

bool copy_program(const Plan& plan) {
  char target[4096];
  if (!make_parents(plan.program.c_str(), target, sizeof target)) return false;
  const int fd = ::open(target, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0555);
  if (fd < 0) return false;
  char piece[1 << 16];
  std::uint64_t at = 0;
  while (at < plan.program_size) {
    const ssize_t n = ::pread(plan.program_fd, piece, sizeof piece, static_cast<off_t>(at));
    if (n <= 0 || ::write(fd, piece, static_cast<size_t>(n)) != n) break;
    at += static_cast<std::uint64_t>(n);
  }
  ::fchmod(fd, 0555);  // whatever the umask
  ::close(fd);
  return at == plan.program_size;
}

// A file system of our own with only what the program needs, everything read-only; no /proc, so neither an inherited
// descriptor nor another process can be opened by path. Nothing is left behind when a step fails.
const char* build_view(const Plan& plan) {
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return "make mounts private";
  int sources[1024];
  if (plan.shown.size() > std::size(sources)) return "too many files";
  for (std::size_t i = 0; i < plan.shown.size(); ++i) {  // before the view covers them
    sources[i] = ::open(plan.shown[i].source.c_str(), O_PATH | O_CLOEXEC);
    if (sources[i] < 0 && !plan.shown[i].optional) return "open a library";
  }
  if (::mount("tmpfs", view_root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") != 0) return "mount the view";
  const char* failed = nullptr;
  for (std::size_t i = 0; i < plan.shown.size() && failed == nullptr; ++i)
    if (!(sources[i] >= 0 && show(plan.shown[i], sources[i])) && !plan.shown[i].optional) failed = "bind a library";
  for (std::size_t i = 0; i < plan.shown.size(); ++i) {
    const int error = errno;
    ::close(sources[i]);
    errno = error;
  }
  if (failed == nullptr && !copy_program(plan)) failed = "copy the program";
  if (failed == nullptr && !make_readonly(view_root, false, false)) failed = "make the view read-only";
  if (failed == nullptr && (::chdir(view_root) != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0))
    failed = "change the root";
  if (failed != nullptr) {
    const int error = errno;
    ::umount2(view_root, MNT_DETACH);
    errno = error;
    return failed;
  }
  if (::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0) fatal(plan, "leave the old root");
  return nullptr;
}

void limit(const Plan& plan, int resource, std::uint64_t value, const char* step) {
  struct rlimit inherited = {RLIM_INFINITY,
                             RLIM_INFINITY};  // a lower limit that this process lives under already stays
  (void)::getrlimit(static_cast<__rlimit_resource>(resource), &inherited);
  const rlim_t least = value < inherited.rlim_max ? value : inherited.rlim_max;
  const struct rlimit bound = {least, least};
  if (::setrlimit(static_cast<__rlimit_resource>(resource), &bound) != 0) fatal(plan, step);
}

void set_limits(const Plan& plan) {
  if (plan.limits.memory != 0) limit(plan, RLIMIT_AS, plan.limits.memory, "limit memory");
  if (plan.limits.cpu.count() != 0)
    limit(plan, RLIMIT_CPU, static_cast<std::uint64_t>(plan.limits.cpu.count()), "limit processor time");
  limit(plan, RLIMIT_FSIZE, plan.limits.file_size, "limit file size");
  limit(plan, RLIMIT_NPROC, plan.limits.processes, "limit processes");
  limit(plan, RLIMIT_NOFILE, 128, "limit descriptors");
  limit(plan, RLIMIT_CORE, 0, "forbid core dumps");  // a core dump would hold data
  report(plan, "limits", 0, "");
}

void drop_privileges(const Plan& plan, const Applied& applied) {
  if (!applied.user && ::geteuid() == 0) {
    ::prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED, 0, 0, 0);
    for (unsigned long capability = 0; ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability)
      ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    // Without the view, another user must be able to read the libraries where they are.
    const bool may = (plan.leave_out & Layer::other_user) == 0 && (applied.view || plan.others_may_read);
    const bool changed = may && ::setgroups(0, nullptr) == 0 && ::setresgid(nobody, nobody, nobody) == 0 &&
                         ::setresuid(nobody, nobody, nobody) == 0;
    report(plan, "another user",
           changed ? 0
           : may   ? errno
                   : EACCES,
           may ? "setresuid" : "its files are for this user only");
  }
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct none[2] = {};
  if (::syscall(SYS_capset, &header, none) != 0) fatal(plan, "drop capabilities");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fatal(plan, "no_new_privs");
}

// The kernel's struct of ABI 6; older kernels take a shorter one (landlock(7)).
struct LandlockRules {
  std::uint64_t files, network, scoped;
};
constexpr std::uint64_t landlock_read = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE;

bool landlock_allow(int rules, const char* path, bool folder) {
  struct landlock_path_beneath_attr beneath = {};
  beneath.allowed_access = landlock_read | (folder ? std::uint64_t{LANDLOCK_ACCESS_FS_READ_DIR} : 0);
  beneath.parent_fd = ::open(path, O_PATH | O_CLOEXEC);
  if (beneath.parent_fd < 0) return false;
  const bool ok = ::syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) == 0;
  ::close(beneath.parent_fd);
  return ok;
}

// Files by Landlock, whatever the namespaces gave: reading the shown files only, nothing written anywhere; from ABI 4
// no TCP, from ABI 6 no signal to and no abstract socket of another domain.
const char* restrict_files(const Plan& plan, const Applied& applied) {
  const long abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 1) return "this kernel has no Landlock";
  LandlockRules rules = {(1u << 13) - 1, 0, 0};
  if (abi >= 2) rules.files |= 1u << 13;  // REFER
  if (abi >= 3) rules.files |= 1u << 14;  // TRUNCATE
  if (abi >= 4) rules.network = 3;        // BIND_TCP, CONNECT_TCP
  if (abi >= 6) rules.scoped = 3;         // ABSTRACT_UNIX_SOCKET, SIGNAL
  const size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
  const int set = static_cast<int>(::syscall(SYS_landlock_create_ruleset, &rules, size, 0));
  if (set < 0) return "create the rules";
  bool ok = true;
  if (applied.view) ok = landlock_allow(set, "/", true);
  for (std::size_t i = 0; !applied.view && ok && i < plan.shown.size(); ++i)
    ok = landlock_allow(set, plan.shown[i].source.c_str(), plan.shown[i].folder) || plan.shown[i].optional;
  if (ok) ok = ::syscall(SYS_landlock_restrict_self, set, 0) == 0;
  const int error = errno;
  ::close(set);
  errno = error;
  return ok ? nullptr : "add the rules";
}

// Only 0 to 2 and the given ones stay open over the exec; high numbers first, so that none is overwritten before it
// moved.
void give_descriptors(Plan& plan, int& program_fd) {
  int moved[16];
  if (plan.descriptors.size() > std::size(moved)) fatal(plan, "too many descriptors");
  for (std::size_t i = 0; i < plan.descriptors.size(); ++i) {
    moved[i] = ::fcntl(plan.descriptors[i].fd, F_DUPFD_CLOEXEC, 64);
    if (moved[i] < 0) fatal(plan, "duplicate a descriptor");
  }
  const int null_fd = ::fcntl(plan.null_fd, F_DUPFD_CLOEXEC, 64);
  const int error_fd = ::fcntl(plan.error_fd, F_DUPFD_CLOEXEC, 64);
  program_fd = ::fcntl(plan.program_fd, F_DUPFD_CLOEXEC, 64);
  const int report_fd = ::fcntl(plan.report, F_DUPFD_CLOEXEC, 64);
  if (null_fd < 0 || error_fd < 0 || program_fd < 0 || report_fd < 0) fatal(plan, "duplicate a descriptor");
  plan.report = report_fd;
  if (::syscall(SYS_close_range, 3u, ~0u, 1u << 2 /* CLOSE_RANGE_CLOEXEC */) != 0)
    for (int fd = 3; fd < 65536; ++fd) (void)::fcntl(fd, F_SETFD, FD_CLOEXEC);
  if (::dup2(null_fd, 0) < 0 || ::dup2(null_fd, 1) < 0 || ::dup2(error_fd, 2) < 0) fatal(plan, "standard descriptors");
  for (std::size_t i = 0; i < plan.descriptors.size(); ++i)
    if (::dup2(moved[i], plan.descriptors[i].as) < 0) fatal(plan, "give a descriptor");
}

void default_signals() {
  struct sigaction plain = {};
  plain.sa_handler = SIG_DFL;
  for (int signal = 1; signal < 65; ++signal) (void)::sigaction(signal, &plain, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

void install_filter(const Plan& plan) {
  if (plan.leave_out & Layer::seccomp) return;
  const struct sock_fprog program = {static_cast<unsigned short>(plan.filter.size()),
                                     const_cast<sock_filter*>(plan.filter.data())};
  const bool ok = !plan.filter.empty() && ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
  report(plan, "seccomp", ok ? 0 : plan.filter.empty() ? ENOSYS : errno, "install the filter");
}

[[noreturn]] void become_program(Plan& plan, const Applied& applied, pid_t parent) {
  default_signals();
  if (applied.view && ::chdir("/") != 0) fatal(plan, "change the folder");
  const char* program = plan.program.c_str();
  char* arguments[64] = {};
  for (std::size_t i = 0; i < plan.arguments.size() && i + 1 < std::size(arguments); ++i)
    arguments[i] = const_cast<char*>(plan.arguments[i].c_str());
  char* const environment[] = {nullptr};
  set_limits(plan);
  drop_privileges(plan, applied);
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
    fatal(plan, "die with the parent");  // after setresuid, which clears it
  if (!applied.processes && ::getppid() != parent) ::_exit(127);
  if ((plan.leave_out & Layer::landlock) == 0) {
    errno = 0;
    const char* failed = restrict_files(plan, applied);
    report(plan, "landlock", failed == nullptr ? 0 : errno == 0 ? ENOSYS : errno, failed == nullptr ? "" : failed);
  }
  const int gate = ::fcntl(plan.gate, F_DUPFD_CLOEXEC, 64);
  int program_fd = -1;
  give_descriptors(plan, program_fd);
  install_filter(plan);
  report(plan, "ready", 0, "");
  char go = 0;
  if (::read(gate, &go, 1) != 1 || go != 'g') ::_exit(127);  // the node says no, or is gone
  if (applied.view) {
    ::execve(program, arguments, environment);
  } else {
    ::syscall(SYS_execveat, program_fd, "", arguments, environment, AT_EMPTY_PATH);
  }
  fatal(plan, "execute the program");
}

// Keeps one descriptor, so that nothing of the node (locks, sockets) stays open by this process. Gives its new number.
int keep_only(int fd) {
  constexpr int kept = 200;
  (void)::dup2(fd, kept);
  (void)::syscall(SYS_close_range, 0u, static_cast<unsigned>(kept - 1), 0u);
  (void)::syscall(SYS_close_range, static_cast<unsigned>(kept + 1), ~0u, 0u);
  return kept;
}

[[noreturn]] void run_first(Plan& plan, const Applied& applied, int alive) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  struct pollfd parent = {alive, 0, 0};  // hung up: the keeper died before the line above
  if (::poll(&parent, 1, 0) != 0) ::_exit(127);
  const pid_t self = ::getpid();
  const pid_t program = ::fork();
  if (program < 0) fatal(plan, "fork the program");
  if (program == 0) become_program(plan, applied, self);
  const int status_fd = keep_only(plan.status);
  for (;;) {
    int status = 0;
    const pid_t ended = ::waitpid(-1, &status, 0);  // orphans of the program come here too
    if (ended < 0 && errno == EINTR) continue;
    if (ended != program && ended > 0) continue;
    if (ended < 0) ::_exit(127);
    (void)!::write(status_fd, &status, sizeof status);
    ::_exit(0);
  }
}

}  // namespace

void run_child(Plan& plan) noexcept {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (::getppid() != plan.parent) ::_exit(127);
  default_signals();
  ::setsid();
  Applied applied;
  enter_namespaces(plan, applied);
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // not earlier: it takes /proc/self/uid_map away from us
  if (applied.mounts) {
    const char* failed = build_view(plan);
    applied.view = failed == nullptr;
    report(plan, "private view", applied.view ? 0 : errno == 0 ? EIO : errno, applied.view ? "" : failed);
  }
  if (plan.script && !applied.view) {
    errno = ENOEXEC;
    fatal(plan, "a script needs the private view, which this kernel or container refuses");
  }
  int alive[2];
  if (::pipe2(alive, O_CLOEXEC) != 0) fatal(plan, "make a pipe");
  const pid_t first = ::fork();
  if (first < 0) fatal(plan, "fork");
  if (first == 0) {
    ::close(alive[1]);
    run_first(plan, applied, alive[0]);
  }
  keep_only(alive[1]);
  for (int status = 0; ::waitpid(first, &status, 0) < 0 && errno == EINTR;) {
  }
  ::_exit(0);
}

}  // namespace cloister::participant::sandbox
