"""A place where one step of a build happens: the layers so far, mounted writable, and what the step wrote.

Owns the mounts (in a mount namespace that ends with its thread), copying into the image's tree, and running a command
in it through the OCI runtime. Nothing outside of the tree can be reached by what is in it: links are followed as in a
chroot. Everything here blocks and runs in a thread of its own. Called by `builder`.
"""

from __future__ import annotations

import json
import os
import posixpath
import resource
import secrets
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from steersman.engine.images.build.context import Context, Source
from steersman.engine.images.tar import BadArchive
from steersman.engine.images.unpack import decompressed, extract
from steersman.engine.interface import ContainerConfig, ImageConfig, Mount, RuntimeFailure, Security
from steersman.engine.runtime import capabilities, kernel, rootfs, spec, users
from steersman.engine.runtime.profiles import Profiles

T = TypeVar("T")

_UNIFIED = "/sys/fs/cgroup/unified"
_CGROUP = "steersman-build"
_STUBS = ("proc", "sys", "dev", "etc/resolv.conf", "etc/hosts")
_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


class StepFailed(Exception):
    """A step did not work; the text says why."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a RUN runs."""

    words: Sequence[str]
    env: Sequence[tuple[str, str]]
    cwd: str
    user: str


class Tree:
    """The mounted image. `path` is its root, `upper` what this step has written."""

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle
        self.path = bundle / "rootfs"
        self.upper = bundle / "written/upper"

    def host_path(self, path: str) -> Path | None:
        """Where a path of the image is on the host, links followed within the image; None when it is not there."""
        try:
            return Path(rootfs.inside(str(self.path), path))
        except RuntimeFailure:
            return None

    def make_directory(self, path: str, owner: tuple[int, int] = (0, 0)) -> Path:
        """A directory of the image, made with its parents where it is missing. Raises StepFailed."""
        at = self.path
        done = ""
        for part in [part for part in posixpath.normpath("/" + path).split("/") if part]:
            done += f"/{part}"
            found = self.host_path(done)
            if found is None:
                fresh = at / part
                try:
                    fresh.mkdir(0o755)
                except OSError as error:
                    raise StepFailed(f"cannot make {done!r}: {error.strerror}") from error
                os.chown(fresh, *owner)
                found = fresh
            if not found.is_dir():
                raise StepFailed(f"cannot make {path!r}: {done!r} is not a directory")
            at = found
        return at

    def identity(self, text: str) -> users.User:
        """Uid, gid and groups of `user[:group]`. Raises StepFailed."""
        passwd = rootfs.read_file(str(self.path), "/etc/passwd")
        group = rootfs.read_file(str(self.path), "/etc/group")
        try:
            return users.resolve(Security(), text, passwd, group)
        except ValueError as error:
            raise StepFailed(str(error)) from error


def in_workspace(layers: Sequence[Path], bundle: Path, work: Callable[[Tree], T]) -> T:
    """Mount `layers` (top first) below the new directory `bundle` and do `work` there. Raises what `work` raises.

    The tree's `upper` stays when this returns; the caller removes `bundle`.
    """
    bundle.mkdir(mode=0o700)
    result: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            kernel.unshare(kernel.CLONE_FS | kernel.CLONE_NEWNS)
            kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
            kernel.unmount(_UNIFIED)
            below = list(layers)
            if not below:
                (bundle / "scratch").mkdir(mode=0o755)
                below = [bundle / "scratch"]
            written = bundle / "written"
            written.mkdir()
            rootfs.mount_overlay(bundle, below, "rootfs", written)
            result.append(work(Tree(bundle)))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="build step")  # its mounts end with it
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


def mount_other(tree: Tree, layers: Sequence[Path]) -> Context:
    """Another stage's or image's tree, read-only, as something to copy from. Only within `in_workspace`."""
    rootfs.mount_overlay(tree.bundle, layers, "other")
    return Context(tree.bundle / "other")


def copy(
    tree: Tree,
    context: Context,
    sources: Sequence[Source],
    target: str,
    *,
    owner: str,
    mode: int | None,
    unpack: bool,
    into: bool,
) -> None:
    """COPY and ADD. `into`: the target is a directory; `unpack`: archives are unpacked. Raises StepFailed, OSError."""
    account = tree.identity(owner) if owner else None
    ids = (account.uid, account.gid) if account else (0, 0)
    found = tree.host_path(target)
    into = into or (found is not None and found.is_dir())
    for source in sources:
        if source.is_directory:
            _copy_tree(context, source, tree.make_directory(target, ids), ids, mode)
            continue
        if unpack and _extract(source.path, tree, target, ids):
            continue
        directory, name = (target, source.name) if into else posixpath.split(target)
        _copy_one(source.path, tree.make_directory(directory, ids) / name, ids, mode)


def _extract(path: Path, tree: Tree, target: str, ids: tuple[int, int]) -> bool:
    """Unpack a local archive; False when the file is none."""
    try:
        with path.open("rb") as file:
            first = next(decompressed(file), b"")[:512]
    except (BadArchive, OSError):
        return False
    if len(first) < 512 or first[257:262] != b"ustar":
        return False
    try:
        extract(path, tree.make_directory(target, ids))
    except BadArchive as error:
        raise StepFailed(f"cannot unpack {path.name}: {error}") from error
    return True


def _copy_tree(context: Context, source: Source, target: Path, ids: tuple[int, int], mode: int | None) -> None:
    for relative, path in context.walk(source):
        if not relative:
            continue
        at = target / relative
        if path.is_dir() and not path.is_symlink():
            _directory(path, at, ids, mode)
        else:
            at.parent.mkdir(parents=True, exist_ok=True)
            _copy_one(path, at, ids, mode)


def _directory(path: Path, at: Path, ids: tuple[int, int], mode: int | None) -> None:
    if at.is_symlink() or (at.exists() and not at.is_dir()):
        at.unlink()
    at.mkdir(parents=True, exist_ok=True)
    os.chown(at, *ids)
    at.chmod(stat.S_IMODE(path.stat().st_mode) if mode is None else mode)


def _copy_one(path: Path, at: Path, ids: tuple[int, int], mode: int | None) -> None:
    """One file, link or pipe, in place of whatever was there."""
    found = path.lstat()
    if at.is_dir() and not at.is_symlink():
        raise StepFailed(f"cannot copy to non-directory: {at.name}")
    at.unlink(missing_ok=True)
    if stat.S_ISLNK(found.st_mode):
        at.symlink_to(os.readlink(path))
        os.chown(at, *ids, follow_symlinks=False)
        return
    if stat.S_ISREG(found.st_mode):
        with path.open("rb") as source, at.open("xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    elif stat.S_ISFIFO(found.st_mode):
        os.mkfifo(at)
    else:
        return
    os.chown(at, *ids)
    at.chmod(stat.S_IMODE(found.st_mode) if mode is None else mode)
    os.utime(at, ns=(found.st_mtime_ns, found.st_mtime_ns))


def run(tree: Tree, command: Command, say: Callable[[str], None]) -> int:
    """Run a command as the only process of a container on the host's network; returns its exit code.

    Raises StepFailed when it cannot be started. Its output goes to `say`, line by line.
    """
    program = shutil.which("crun") or shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise StepFailed("RUN needs crun, which is not installed")
    id_ = f"build-{secrets.token_hex(6)}"
    document = _document(tree, command, id_, is_crun=program.endswith("crun"))
    with _stubs(tree):
        tree.make_directory(command.cwd)
        (tree.bundle / "config.json").write_text(json.dumps(document))
        words = [program, "--root", str(tree.bundle / "state"), "run", "--bundle", str(tree.bundle), id_]
        with subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                say(line.rstrip("\n"))
    with suppress(OSError):
        for controller in Path("/sys/fs/cgroup").iterdir():
            with suppress(OSError):
                (controller / _CGROUP).rmdir()
    return process.returncode


def _document(tree: Tree, command: Command, id_: str, *, is_crun: bool) -> dict[str, Any]:
    """The OCI runtime's configuration."""
    (tree.bundle / "hosts").write_text(_HOSTS)
    (tree.bundle / "shm").mkdir(mode=0o1777)
    limit = capabilities.bounding()
    granted = capabilities.granted((), (), privileged=False, limit=limit)
    seccomp, annotations = Profiles(compile_here=is_crun).filter("RuntimeDefault", granted)
    mounts = [Mount("/etc/hosts", str(tree.bundle / "hosts"))]
    if os.path.exists("/etc/resolv.conf"):
        mounts.append(Mount("/etc/resolv.conf", os.path.realpath("/etc/resolv.conf"), readonly=True))
    facts = spec.Facts(
        rootfs=str(tree.path),
        cgroup=f"{_CGROUP}/{id_}",
        hostname="buildkitsandbox",
        user=tree.identity(command.user),
        namespaces={"pid": "", "mount": "", "ipc": "", "uts": ""},
        mounts=mounts,
        capabilities=limit,
        nofile_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        seccomp=seccomp,
        annotations=annotations,
    )
    config = ContainerConfig(name=id_, image="", command=command.words, env=command.env, working_dir=command.cwd)
    return spec.build(config, ImageConfig(), facts)


@contextmanager
def _stubs(tree: Tree) -> Iterator[None]:
    """What the OCI runtime makes for its mounts must not become part of the image."""
    missing = [path for path in _STUBS if tree.host_path(path) is None]
    had_etc = tree.host_path("etc") is not None
    try:
        yield
    finally:
        for path in missing:
            left = tree.upper / path
            with suppress(OSError):
                if left.is_dir():
                    left.rmdir()
                elif left.stat().st_size == 0:
                    left.unlink()
        if not had_etc:
            with suppress(OSError):
                (tree.upper / "etc").rmdir()
