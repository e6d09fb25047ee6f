"""The Linux calls that Python 3.11 has no function for: namespaces, mounts, paths confined to a root.

Owns the ctypes declarations; every function raises OSError with the call's errno. Used by the whole runtime, in
a worker thread (see `workers.py`) where it changes the thread's own namespaces or working directory.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import re

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000

_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_SYS_OPENAT2 = 437  # numbers from 424 on are the same on every architecture
_SYS_FSCONFIG = 431
_SYS_FSPICK = 433
_FSPICK_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_RECONFIGURE = 0, 1, 7
_AT_FDCWD = -100
_RESOLVE_IN_ROOT = 0x10
_RESOLVE_NO_MAGICLINKS = 0x02


_OCTAL = re.compile(r"\\([0-7]{3})")


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str, path: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}", path)
    return result


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces (CLONE_*)."""
    _check(_libc().unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace open at `fd`; `kind` is its CLONE_NEW* flag."""
    _check(_libc().setns(fd, kind), "setns")


def sethostname(name: str) -> None:
    """Set the host name of the calling thread's UTS namespace."""
    data = name.encode()
    _check(_libc().sethostname(data, len(data)), "sethostname")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2) in the calling thread's mount namespace."""
    _check(
        _libc().mount(
            source.encode() or None,
            os.fsencode(target),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            data.encode() or None,
        ),
        "mount",
        target,
    )


def unmount(target: str, *, missing_ok: bool = True) -> bool:
    """Detach what is mounted at `target`; returns whether something was."""
    if _libc().umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        return True
    number = ctypes.get_errno()
    if missing_ok and number in (errno.EINVAL, errno.ENOENT):
        return False
    raise OSError(number, f"umount: {os.strerror(number)}", target)


def reconfigure(path: str, options: list[str]) -> None:
    """Give the file system mounted at `path` exactly these options; the mount's own flags stay."""
    libc = _libc()
    fd = _check(libc.syscall(_SYS_FSPICK, _AT_FDCWD, os.fsencode(path), _FSPICK_CLOEXEC), "fspick", path)
    try:
        for option in options:
            name, _, value = option.partition("=")
            kind, text = (_FSCONFIG_SET_STRING, value.encode()) if value else (_FSCONFIG_SET_FLAG, None)
            _check(libc.syscall(_SYS_FSCONFIG, fd, kind, name.encode(), text, 0), f"fsconfig {option}", path)
        _check(libc.syscall(_SYS_FSCONFIG, fd, _FSCONFIG_RECONFIGURE, None, None, 0), "fsconfig", path)
    finally:
        os.close(fd)


def open_in_root(root: str, path: str, flags: int = os.O_RDONLY) -> int:
    """Open `path` as a process whose root directory is `root` would: links cannot lead out. Returns the descriptor."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        relative = os.fsencode(path.lstrip("/") or ".")
        result = _libc().syscall(_SYS_OPENAT2, root_fd, relative, ctypes.byref(how), ctypes.sizeof(how))
        return _check(result, "openat2", path)
    finally:
        os.close(root_fd)


def process_start(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid it names a process for good; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def boot_id() -> str:
    """A value that changes at every boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def mount_points() -> list[str]:
    """Where something is mounted in the calling thread's mount namespace, oldest first."""
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        # the kernel writes blanks and backslashes as three octal digits
        return [_OCTAL.sub(lambda match: chr(int(match[1], 8)), line.split(" ", 5)[4]) for line in file]
