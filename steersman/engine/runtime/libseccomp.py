"""Compiles a seccomp profile to BPF with libseccomp.

Owns the ctypes binding of libseccomp.so.2. Compiling takes 20 ms, so the caller keeps the result; an OCI runtime that
compiles the same profile for every container pays it every time. Raises LibraryMissing where there is no libseccomp.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys

from steersman.engine.runtime.seccomp import Profile, Rule

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_COMPARISONS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_NO_SUCH_CALL = -1


class LibraryMissing(Exception):
    """libseccomp.so.2 cannot be loaded."""


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError as error:
        raise LibraryMissing(str(error)) from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def available() -> bool:
    """Whether libseccomp can be loaded."""
    try:
        _library()
    except LibraryMissing:
        return False
    return True


def compile_profile(profile: Profile) -> bytes:
    """The profile as an array of `struct sock_filter`. Raises ValueError for what libseccomp refuses."""
    library = _library()
    default = _action(profile.default, profile.default_errno)
    context = library.seccomp_init(default)
    if not context:
        raise ValueError(f"libseccomp does not take the default action {profile.default}")
    try:
        for name in profile.architectures:
            _add_architecture(library, context, name)
        for rule in profile.rules:
            _add_rule(library, context, rule, default)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _action(name: str, number: int | None) -> int:
    if name not in _ACTIONS:
        raise ValueError(f"unknown seccomp action {name!r}")
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return _ACTIONS[name] | (errno.EPERM if number is None else number) & 0xFFFF
    return _ACTIONS[name]


def _add_architecture(library: ctypes.CDLL, context: int, name: str) -> None:
    token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
    if token and (result := library.seccomp_arch_add(context, token)) not in (0, -errno.EEXIST, -errno.EDOM):
        raise ValueError(f"libseccomp does not take the architecture {name}: {os.strerror(-result)}")


def _add_rule(library: ctypes.CDLL, context: int, rule: Rule, default: int) -> None:
    action = _action(rule.action, rule.errno)
    if action == default:
        return  # libseccomp refuses a rule that says what the default says
    unknown = [part.op for part in rule.arguments if part.op not in _COMPARISONS]
    if unknown:
        raise ValueError(f"unknown seccomp comparison {unknown[0]!r}")
    parts = [_Comparison(part.index, _COMPARISONS[part.op], part.value, part.second) for part in rule.arguments]
    array = (_Comparison * len(parts))(*parts)
    for name in rule.names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == _NO_SUCH_CALL:
            continue  # newer than this libseccomp: the default action answers
        result = library.seccomp_rule_add_array(context, action, number, len(parts), array)
        if result not in (0, -errno.EDOM, -errno.EEXIST):
            raise ValueError(f"libseccomp does not take the rule for {name}: {os.strerror(-result)}")


def _export(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp") if sys.platform == "linux" else -1
    with os.fdopen(fd, "rb") as file:
        if (result := library.seccomp_export_bpf(context, fd)) != 0:
            raise ValueError(f"libseccomp cannot export the profile: {os.strerror(-result)}")
        file.seek(0)
        return file.read()
