"""Seccomp profiles: the default one as data, profiles from files, and both as the OCI runtime or libseccomp want them.

Pure. The default allows what ordinary programs need and refuses what reaches the host or an unfinished corner of the
kernel; some calls come with a capability. It has the effect of the default profile of Docker and containerd.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

_EPERM, _ENOSYS = 1, 38
_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET

_FILES = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat
getcwd getdents getdents64 getxattr getxattrat ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat
llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat
open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64
statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime
utimensat utimensat_time64 utimes vmsplice write writev listmount statmount file_getattr file_setattr
"""
_WAITING = """
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
io_pgetevents io_pgetevents_time64 io_setup io_submit mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink _newselect poll ppoll ppoll_time64 pselect6
pselect6_time64 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
timerfd_settime64
"""
_MEMORY = """
brk cachestat get_mempolicy_home_node madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2
mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
remap_file_pages
"""
_PROCESSES = """
alarm arch_prctl capget capset clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv
futex_wake get_robust_list get_thread_area getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
getgroups32 getitimer getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32
getrlimit getrusage getsid gettid gettimeofday getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule
landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules lsm_set_self_attr modify_ldt nanosleep
pause pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease restart_syscall rseq rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid
setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sigaltstack sigprocmask sigreturn sysinfo tgkill time
timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 times tkill
ugetrlimit uname uretprobe vfork wait4 waitid waitpid process_vm_readv process_vm_writev ptrace pidfd_getfd kcmp
"""
_COMMUNICATION = """
accept accept4 bind connect getpeername getsockname getsockopt ipc listen msgctl msgget msgrcv msgsnd recv recvfrom
recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop semtimedop_time64 send sendmmsg sendmsg sendto
setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair
"""
_WITH_CAPABILITY = {
    "DAC_READ_SEARCH": "open_by_handle_at",
    "SYS_ADMIN": """bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr
        move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2
        unshare""",
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module finit_module init_module",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "process_madvise",
    "SYS_RAWIO": "iopl ioperm",
    "SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "SYS_TTY_CONFIG": "vhangup",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYSLOG": "syslog",
    "BPF": "bpf",
    "PERFMON": "perf_event_open",
}
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_VSOCK = 40


@dataclass(frozen=True, slots=True)
class Argument:
    """A condition on an argument; `op` is an SCMP_CMP_* name; `second` is used by SCMP_CMP_MASKED_EQ."""

    index: int
    op: str
    value: int
    second: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """An action (SCMP_ACT_*) for some system calls, when every argument condition holds."""

    names: tuple[str, ...]
    action: str = "SCMP_ACT_ALLOW"
    errno: int | None = None
    arguments: tuple[Argument, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A whole filter. `architectures` are SCMP_ARCH_* names beside the native one."""

    default: str
    default_errno: int | None
    rules: tuple[Rule, ...]
    architectures: tuple[str, ...] = ()


def default_profile(capabilities: Collection[str], machine: str) -> Profile:
    """The default profile for a container with these capabilities on `machine` (uname's word)."""
    names = [name for group in (_FILES, _WAITING, _MEMORY, _PROCESSES, _COMMUNICATION) for name in group.split()]
    for capability, calls in _WITH_CAPABILITY.items():
        if capability in capabilities:
            names += calls.split()
    rules = [Rule(tuple(dict.fromkeys(names)))]
    rules += [Rule(("personality",), arguments=(Argument(0, "SCMP_CMP_EQ", value),)) for value in _PERSONALITIES]
    rules.append(Rule(("socket",), arguments=(Argument(0, "SCMP_CMP_NE", _AF_VSOCK),)))
    if "SYS_ADMIN" not in capabilities:
        rules.append(Rule(("clone",), arguments=(Argument(0, "SCMP_CMP_MASKED_EQ", _NAMESPACE_FLAGS, 0),)))
        # its flags lie in memory, where a filter cannot look; ENOSYS makes the C library fall back to clone
        rules.append(Rule(("clone3",), "SCMP_ACT_ERRNO", _ENOSYS))
    return Profile("SCMP_ACT_ERRNO", _EPERM, tuple(rules), _ARCHITECTURES.get(machine, ()))


_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_ARM",),
}


def variant(capabilities: Collection[str]) -> str:
    """Names the default profile's variant for these capabilities; equal names, equal profiles."""
    return "-".join(sorted(name.lower() for name in _WITH_CAPABILITY if name in capabilities)) or "none"


def parse(document: Any, capabilities: Collection[str]) -> Profile:
    """Read a profile in Docker's JSON form. Raises ValueError saying what is wrong with it."""
    try:
        rules = [
            Rule(
                tuple(str(name) for name in ([item["name"]] if item.get("name") else item["names"])),
                str(item["action"]),
                item.get("errnoRet"),
                tuple(_argument(argument) for argument in item.get("args") or ()),
            )
            for item in document.get("syscalls") or ()
            if _applies(item, capabilities)
        ]
        architectures = [str(name) for name in document.get("architectures") or ()]
        for entry in document.get("archMap") or ():
            architectures += [str(entry["architecture"]), *map(str, entry.get("subArchitectures") or ())]
        errno = document.get("defaultErrnoRet")
        return Profile(str(document["defaultAction"]), errno, tuple(rules), tuple(architectures))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a seccomp profile: {type(error).__name__}: {error}") from error


def _argument(item: Any) -> Argument:
    return Argument(int(item["index"]), str(item["op"]), int(item["value"]), int(item.get("valueTwo") or 0))


def _applies(item: Any, capabilities: Collection[str]) -> bool:
    def named(where: str) -> Iterable[str]:
        return [str(name).removeprefix("CAP_") for name in (item.get(where) or {}).get("caps") or ()]

    return all(name in capabilities for name in named("includes")) and not any(
        name in capabilities for name in named("excludes")
    )


def oci(profile: Profile) -> dict[str, Any]:
    """The profile as `linux.seccomp` of an OCI runtime configuration."""
    syscalls: list[dict[str, Any]] = []
    for rule in profile.rules:
        item: dict[str, Any] = {"names": list(rule.names), "action": rule.action}
        if rule.errno is not None:
            item["errnoRet"] = rule.errno
        if rule.arguments:
            item["args"] = [
                {"index": part.index, "op": part.op, "value": part.value, "valueTwo": part.second}
                for part in rule.arguments
            ]
        syscalls.append(item)
    answer: dict[str, Any] = {"defaultAction": profile.default, "syscalls": syscalls}
    if profile.default_errno is not None:
        answer["defaultErrnoRet"] = profile.default_errno
    if profile.architectures:
        answer["architectures"] = list(profile.architectures)
    return answer
