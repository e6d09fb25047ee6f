"""Start, stop and delete a cluster, as the CLI asks.

Owns the order of things at a start (addresses, certificates, sockets, processes) and the wait until it is ready.
What each process does is in `apiserver.py`, `control.py` and `node.py` beside it. Called by `cli`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from steersman.cluster import kubeconfig
from steersman.cluster.link import Link
from steersman.cluster.profile import Profile, ProfileError, change, claim
from steersman.cluster.supervisor import Supervisor, alive, log_to, name_process, processes

if TYPE_CHECKING:  # imported when certificates are made
    from steersman.cluster.certs import Identity

_READY_TIMEOUT = 60.0  # seconds
_STOP_TIMEOUT = 40.0
_FIRST_PORT = 6443
_FREE_SPACE = 50 * 1024 * 1024  # bytes: less than this cannot end well
_IP_FREEBIND = 15

Report = Callable[[str, float], None]
"""Told of each milestone (such as "API server") and the seconds since the start."""


def server_url(profile: Profile) -> str:
    """Where this machine's user finds the API server."""
    return f"https://127.0.0.1:{profile.api_port}"


def start(profile: Profile, report: Report) -> Profile:
    """Start the cluster and wait until it is ready; does nothing when it runs. Raises ProfileError."""
    if processes(profile.run):
        return profile
    began = time.monotonic()  # noqa: TID251
    _check_space(profile)
    claim(profile)
    profile, sockets = _listen(profile)
    reader, writer = os.pipe()
    go, say_go = os.pipe()
    supervisor = _spawn(profile, sockets, Link(writer), go)
    for descriptor in (writer, go):
        os.close(descriptor)
    for listener in sockets:
        listener.close()
    try:
        with open(say_go, "wb", buffering=0) as gate:
            _identities(profile)  # while the supervisor imports
            with contextlib.suppress(BrokenPipeError):  # it has ended, and said why
                gate.write(b"!")
        _administrator(profile)
        _await(profile, reader, supervisor, lambda name: report(name, time.monotonic() - began))  # noqa: TID251
    except ProfileError:
        stop(profile)
        raise
    finally:
        os.close(reader)
    return profile


def _check_space(profile: Profile) -> None:
    try:
        profile.directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(profile.directory).free
    except OSError as error:
        raise ProfileError(f"cannot use {profile.directory}: {error.strerror}") from error
    if free < _FREE_SPACE:
        raise ProfileError(
            f"cannot start: {profile.directory} has {free >> 20} MiB left on its disk, {_FREE_SPACE >> 20} are needed"
        )


def _listen(profile: Profile) -> tuple[Profile, list[socket.socket]]:
    """Bind the API server's port on loopback and, for pods, on the first node's address."""
    addresses = ["127.0.0.1"] + ([profile.node_address(0)] if profile.nodes else [])
    candidates = [profile.api_port] if profile.api_port else [_FIRST_PORT, 0]
    for port in candidates:
        sockets: list[socket.socket] = []
        try:
            for address in addresses:
                sockets.append(_bind(address, sockets[0].getsockname()[1] if sockets else port))
        except OSError as error:
            for listener in sockets:
                listener.close()
            if port == candidates[-1]:
                raise ProfileError(
                    f"cannot listen on port {port} for the API server: {error.strerror}; "
                    "stop what uses it or choose another with --apiserver-port"
                ) from error
            continue
        chosen = sockets[0].getsockname()[1]
        return (profile if profile.api_port == chosen else change(profile, api_port=chosen)), sockets
    raise AssertionError("unreachable: the last candidate either worked or raised")


def _bind(address: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)  # the node's address may come later
        listener.bind((address, port))
        listener.listen(1024)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _identities(profile: Profile) -> None:
    """Certificates: made at the first start, completed when nodes were added."""
    from steersman.cluster import certs

    nodes = [(profile.node_name(n), profile.node_address(n)) for n in range(profile.nodes)]
    addresses = ["127.0.0.1", profile.api_service_address, profile.node_address(0)]
    everybody = certs.identities(nodes, addresses, "cluster.local")
    _ensure(profile, [identity for identity in everybody if identity != certs.ADMINISTRATOR])


def _administrator(profile: Profile) -> None:
    """The administrator's, with his kubeconfig: an RSA key takes a while, in which the processes start."""
    from steersman.cluster import certs

    _ensure(profile, [replace(certs.ADMINISTRATOR, rsa=True)])
    admin = kubeconfig.entry(profile.name, server_url(profile), profile.pki, "admin")
    kubeconfig.write(profile.admin_kubeconfig, admin)


def _ensure(profile: Profile, everybody: Sequence[Identity]) -> None:
    from steersman.cluster import certs

    try:
        certs.ensure(profile.pki, everybody, time.time())  # noqa: TID251
    except (OSError, ValueError) as error:
        raise ProfileError(f"cannot use the certificates in {profile.pki}: {error}; nothing was changed") from error


def _spawn(profile: Profile, sockets: list[socket.socket], link: Link, go: int) -> int:
    """Fork the supervisor into a session of its own; returns its process id.

    It starts nothing before there is a byte to read from `go`, and ends when that is closed without one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _close_all_but({link.descriptor, go, *(listener.fileno() for listener in sockets)})
        name_process("steer")
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        log_to(profile.logs / "supervisor.log")
        os.chdir("/")
        from steersman.cluster import components

        children = components.children(profile, sockets, link)
        told = os.read(go, 1)
        os.close(go)
        if told:
            Supervisor(profile.run, profile.logs, children).main()
    except BaseException as error:
        link.say("failed", "supervisor", repr(error))
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _close_all_but(kept: set[int]) -> None:
    """Let go of what the command had open: its locks above all."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _await(profile: Profile, reader: int, supervisor: int, ready: Callable[[str], None]) -> None:
    """Read what the children say until all are ready. Raises ProfileError."""
    waiting = {"apiserver"} | {f"node-{number}" for number in range(profile.nodes)}
    deadline, buffer = time.monotonic() + _READY_TIMEOUT, b""  # noqa: TID251
    while waiting:
        left = deadline - time.monotonic()  # noqa: TID251
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            raise ProfileError(
                f"not ready after {_READY_TIMEOUT:.0f} s, still waiting for {', '.join(sorted(waiting))}; "
                f"see 'steer logs -p {profile.name}'"
            )
        chunk = os.read(reader, 65536)
        if not chunk:
            raise ProfileError(f"the cluster's processes ended at once; see {profile.logs}")
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            what, name, text = json.loads(line)
            if what == "failed":
                raise ProfileError(f"{name}: {text}")
            if name in waiting:
                waiting.discard(name)
                ready(name)


def stop(profile: Profile) -> bool:
    """Stop the cluster's processes; containers stop with the node. False when nothing ran."""
    running = processes(profile.run)
    if not running:
        return False
    supervisor = running["supervisor"]
    os.kill(supervisor, signal.SIGTERM)
    _wait_gone(supervisor)
    return True


def _wait_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([descriptor], [], [], _STOP_TIMEOUT)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(descriptor)
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def kill_leftovers(profile: Profile) -> None:
    """End processes of this profile whose supervisor is gone (killed, power cut)."""
    try:
        state = json.loads((profile.run / "processes.json").read_text())
        pids = [int(pid) for pid in state["children"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    for pid in pids:
        if pid and alive(pid):
            os.kill(pid, signal.SIGKILL)
            _wait_gone(pid)
