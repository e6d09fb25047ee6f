"""The API servers that `bench.api` measures: ours, and kube-apiserver with etcd where PEER_BIN names them.

python -m bench.apitarget FOLDER FD: ours, on a listening socket that is handed over.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from steersman.cluster import apiserver, certs
from steersman.cluster.certs import Identity
from steersman.cluster.profile import Profile
from steersman.lib.http.client import client_tls

_BENCH = Identity("bench", "bench", ["bench"])  # an ordinary user, so that RBAC has to look


@dataclass
class Target:
    """A running server."""

    port: int
    pki: Path
    processes: Sequence[subprocess.Popen[bytes]]
    started_in: float = 0.0

    def tls(self, who: str = "bench") -> ssl.SSLContext:
        """As a client of it."""
        return client_tls(
            authority=self.pki / "ca.crt", certificate=self.pki / f"{who}.crt", key=self.pki / f"{who}.key"
        )

    def cpu(self) -> float:
        """Seconds of CPU that its processes have used."""
        return sum(_cpu(process.pid) for process in self.processes)

    def memory(self) -> int:
        """KiB resident."""
        total = 0
        for process in self.processes:
            text = Path(f"/proc/{process.pid}/status").read_text()
            total += int(text.partition("VmRSS:")[2].split()[0])
        return total

    def wait(self, began: float) -> None:
        """Until /readyz says ok."""
        ask = b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        context = self.tls("admin")
        while True:
            if any(process.poll() is not None for process in self.processes):
                raise SystemExit(f"a server of {self.pki.parent} ended while it started")
            try:
                with (
                    socket.create_connection(("127.0.0.1", self.port), 30) as plain,
                    context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
                ):
                    secure.sendall(ask)
                    if secure.recv(65536).startswith(b"HTTP/1.1 200"):
                        break
            except OSError:
                pass
            time.sleep(0.01)
        self.started_in = time.monotonic() - began

    def stop(self) -> None:
        """End its processes, the store last."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _cpu(pid: int) -> float:
    """Seconds of CPU of a process with all its threads, to the nanosecond: clock_getcpuclockid(3)."""
    return time.clock_gettime(~pid << 3 | 2)


def _identities(pki: Path) -> None:
    certs.ensure(pki, [*certs.identities([], ["127.0.0.1", "10.96.0.1"], "cluster.local"), _BENCH], time.time())


def _socket() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def ours(folder: Path, tree: Path | None = None) -> Target:
    """Our API server, as a process of its own, on SQLite in `folder`; of another working tree where one is given."""
    profile = Profile("bench", folder, nodes=0)
    _identities(profile.pki)
    profile.run.mkdir(parents=True, exist_ok=True)
    listener = _socket()
    began = time.monotonic()
    argv = [sys.executable, "-m", "bench.apitarget", str(folder), str(listener.fileno())]
    with (folder / "log").open("wb") as log:
        where = {} if tree is None else {"PYTHONPATH": str(tree)}
        fds, env = [listener.fileno()], os.environ | where
        process = subprocess.Popen(argv, pass_fds=fds, stdout=log, stderr=log, cwd=tree, env=env)
    target = Target(listener.getsockname()[1], profile.pki, [process])
    listener.close()
    target.wait(began)
    return target


def peer(folder: Path) -> Target:
    """kube-apiserver and etcd from PEER_BIN, with the flags that an ordinary control plane has."""
    binaries, pki = Path(os.environ["PEER_BIN"]), folder / "pki"
    _identities(pki)
    key = serialization.load_pem_private_key((pki / "sa.key").read_bytes(), None)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (pki / "sa.pub").write_bytes(public)
    ports = []
    for _ in range(3):
        with _socket() as free:
            ports.append(free.getsockname()[1])
    client, member = f"http://127.0.0.1:{ports[1]}", f"http://127.0.0.1:{ports[2]}"
    etcd = [
        str(binaries / "etcd"), f"--data-dir={folder}/etcd", "--name=m", f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}", f"--listen-peer-urls={member}",
        f"--initial-advertise-peer-urls={member}", f"--initial-cluster=m={member}", "--log-level=warn",
    ]  # fmt: skip
    server = [
        str(binaries / "kube-apiserver"), f"--etcd-servers={client}", "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1", f"--secure-port={ports[0]}", f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key", f"--client-ca-file={pki}/ca.crt",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key", "--service-cluster-ip-range=10.96.0.0/16",
    ]  # fmt: skip
    began = time.monotonic()
    with (folder / "log").open("wb") as log:
        processes = [subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder) for argv in (etcd, server)]
    target = Target(ports[0], pki, processes)
    target.wait(began)
    return target


def main() -> None:
    """Serve until SIGTERM."""
    folder, descriptor = Path(sys.argv[1]), int(sys.argv[2])
    listener = socket.socket(fileno=descriptor)
    port = listener.getsockname()[1]
    profile = Profile("bench", folder, nodes=0, api_port=port)
    apiserver.main(profile, lambda: None, [listener])


if __name__ == "__main__":
    main()
