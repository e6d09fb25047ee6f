"""Steersman in the place of envtest's binaries: programs called `etcd` and `kube-apiserver`.

Owns their command lines, as controller-runtime's envtest gives them, and `install`, which writes the two programs into
a folder for KUBEBUILDER_ASSETS. The API server keeps its objects in memory and, unlike envtest's, comes with the two
controllers that change nothing which a suite written for envtest sees: namespaces end, owners take what they own with
them. STEER_ENVTEST_CONTROLLERS names others. `etcd` here only says that it is well. Run as
`python -m steersman.cluster.envtest PROGRAM FLAGS`. Source: controller-runtime's pkg/internal/testing/controlplane.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROGRAMS = ("etcd", "kube-apiserver")

_OWN = frozenset(
    [
        "bind-address",
        "cert-dir",
        "client-ca-file",
        "disable-admission-plugins",
        "etcd-cafile",
        "etcd-certfile",
        "etcd-compaction-interval",
        "etcd-keyfile",
        "etcd-prefix",
        "etcd-servers",
        "secure-port",
        "service-account-issuer",
        "service-account-signing-key-file",
        "service-cluster-ip-range",
        "tls-cert-file",
        "tls-private-key-file",
    ]
)  # read here, where they are not those of the store, which is memory
_CANNOT = frozenset(
    [
        "audit-log-compress",
        "audit-log-format",
        "audit-log-mode",
        "disabled-metrics",
        "egress-selector-config-file",
        "emulated-version",
        "emulation-forward-compatible",
        "encryption-provider-config",
        "encryption-provider-config-automatic-reload",
        "etcd-servers-overrides",
        "min-compatibility-version",
        "runtime-config-emulation-forward-compatible",
        "service-account-signing-endpoint",
        "strict-transport-security-directives",
        "tls-sni-cert-key",
        "tracing-config-file",
    ]
)  # a suite that gives them counts on what cannot be had; other flags without effect are taken
_OLDER = ("default-watch-cache-size", "insecure-bind-address", "insecure-port")  # of releases before 1.36
_CONTROLLERS = "namespace-controller,garbage-collector-controller"
_SETTINGS = {
    "namespace-deletion-grace": "2",  # suites that end their namespaces themselves come first
    "collect-only-seen-owners": "true",  # and name owners that never were
}


class UsageError(Exception):
    """The command line cannot be followed; the text is for the user."""


def install(folder: Path) -> list[Path]:
    """Write the programs into `folder`, and a link to kubectl when one is on PATH. Returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in PROGRAMS:
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m steersman.cluster.envtest {name} "$@"\n')
        path.chmod(0o755)
        written.append(path)
    if (kubectl := shutil.which("kubectl")) and Path(kubectl).resolve().parent != folder.resolve():
        link = folder / "kubectl"
        link.unlink(missing_ok=True)
        link.symlink_to(kubectl)
        written.append(link)
    return written


def flags(words: Sequence[str]) -> dict[str, str]:
    """`--name=value` and `--name value`, the last of a name counting; a name alone is "true". Raises UsageError."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word.strip("-") == "":
            raise UsageError(f'unknown command "{word}"')
        name, equals, value = word.lstrip("-").partition("=")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("-") else "true"
        found[name] = value
    return found


def _until_told() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _etcd(given: Mapping[str, str]) -> None:
    from steersman.lib.clock import SystemClock
    from steersman.lib.http.messages import Answer, Request, Response
    from steersman.lib.http.server import Server

    def answer(request: Request) -> Answer:
        if request.path != "/health":
            return Response(404, [], b"404 page not found\n")
        return Response(200, [("content-type", "application/json")], b'{"health":"true","reason":""}')

    address = urlsplit(given.get("listen-client-urls", "http://127.0.0.1:2379").split(",")[0])
    stop = _until_told()
    async with Server(answer, SystemClock()) as server:
        await server.listen(address.hostname or "127.0.0.1", address.port or 2379)
        await stop.wait()


async def _kube_apiserver(given: Mapping[str, str]) -> None:
    from steersman.cluster.apiserver import Options
    from steersman.cluster.plane import ControlPlane, Endpoint
    from steersman.cluster.process import StartFailure

    certificates = Path(given.get("cert-dir", "/var/run/kubernetes"))
    host, port = given.get("bind-address", "127.0.0.1"), int(given.get("secure-port", "6443"))
    endpoint = Endpoint(
        "127.0.0.1" if host == "0.0.0.0" else host,
        port,
        _file(given.get("tls-cert-file"), certificates / "apiserver.crt"),
        _file(given.get("tls-private-key-file"), certificates / "apiserver.key"),
        [Path(given[name]) for name in ("client-ca-file", "requestheader-client-ca-file") if given.get(name)],
    )
    options = Options(
        issuer=given.get("service-account-issuer", Options.issuer),
        service_network=_network(given.get("service-cluster-ip-range", "10.0.0.0/24")),
        disabled_plugins=frozenset(given.get("disable-admission-plugins", "").split(",")) - {""},
    )
    controllers = _controllers(os.environ.get("STEER_ENVTEST_CONTROLLERS", _CONTROLLERS))
    stop = _until_told()
    with tempfile.TemporaryDirectory(prefix="steer-envtest-") as folder:
        if "service-account-signing-key-file" in given:
            _adopt_key(Path(given["service-account-signing-key-file"]), Path(folder, "profiles", "test", "pki"))
        plane = ControlPlane(
            Path(folder),
            listen=endpoint,
            options=options,
            controllers=controllers,
            settings=_SETTINGS,
            flags=_heeded(given),
        )
        try:
            async with plane:
                await stop.wait()
        except StartFailure as error:
            raise UsageError(str(error)) from error


def _controllers(given: str) -> list[str]:
    """A list as --controllers takes it. Raises UsageError."""
    from steersman.controllers import select

    try:
        return select(given.split(","))
    except ValueError as error:
        raise UsageError(f"STEER_ENVTEST_CONTROLLERS: {error}") from error


def _file(named: str | None, otherwise: Path) -> Path | None:
    return Path(named) if named else (otherwise if otherwise.exists() else None)


def _adopt_key(path: Path, pki: Path) -> None:
    """Tokens are signed with the key in `path`. Raises UsageError, OSError."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"service-account-signing-key-file {path} holds no key in PEM: {error}") from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise UsageError(f"service-account-signing-key-file {path}: only elliptic-curve keys are served here")
    pki.mkdir(parents=True, mode=0o700)
    shutil.copy(path, pki / "sa.key")


def _network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text.split(",")[0])
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise UsageError(f'invalid argument "{text}" for "--service-cluster-ip-range" flag: {error}') from error


def _check(given: Mapping[str, str]) -> None:
    from steersman.cluster import apiserverflags

    for name in given:
        reason = apiserverflags.why_not(name)
        if name in _CANNOT:
            raise UsageError(f"--{name} means nothing here: {reason or 'objects are kept in memory'}")
        if reason is None and name not in (*apiserverflags.EFFECTIVE, *_OLDER):
            raise UsageError(f"unknown flag: --{name}")
    if not given.get("secure-port", "6443").isdecimal():
        raise UsageError(f'invalid argument "{given["secure-port"]}" for "--secure-port" flag')


def _heeded(given: Mapping[str, str]) -> dict[str, str]:
    """What the server itself reads; privileged containers have to be allowed, as in the original."""
    from steersman.cluster import apiserverflags

    found = {name: value for name, value in given.items() if name in apiserverflags.EFFECTIVE - _OWN}
    return {"allow-privileged": "false", **found}


def main(argv: Sequence[str]) -> int:
    """Run one of the programs until SIGTERM; returns its exit code."""
    programs: dict[str, Callable[[Mapping[str, str]], Coroutine[Any, Any, None]]] = {
        "etcd": _etcd,
        "kube-apiserver": _kube_apiserver,
    }
    if not argv or argv[0] not in programs:
        print(f"usage: python -m steersman.cluster.envtest {{{','.join(programs)}}} FLAGS", file=sys.stderr)
        return 2
    name, words = argv[0], argv[1:]
    if "--help" in words or "-h" in words:
        from steersman.cluster import apiserverflags as flagged

        every = {*flagged.EFFECTIVE, *flagged.NOTHING, *flagged.REFUSED} - _CANNOT
        known = sorted(every) if name == "kube-apiserver" else ["listen-client-urls"]
        print(f"Usage:\n  {name} [flags]\n\nFlags:\n" + "".join(f"      --{flag} string\n" for flag in known), end="")
        return 0
    try:
        given = flags(words)
        if name == "kube-apiserver":
            _check(given)
        import uvloop

        uvloop.run(programs[name](given))
    except (UsageError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
