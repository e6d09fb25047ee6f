"""The programs for envtest, driven with the flags that controller-runtime gives them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from steersman.cluster import certs
from steersman.cluster.envtest import flags, install
from steersman.lib.clock import SystemClock
from steersman.lib.http.client import Address, HttpClient, client_tls
from tests.e2e.registry import free_port


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """Certificates as envtest makes them: a serving one, a CA for clients, a key for tokens."""
    folder = tmp_path / "certs"
    certs.ensure(folder, certs.identities([], ["127.0.0.1"], "cluster.local"), SystemClock().now())
    return folder


@asynccontextmanager
async def running(*words: str) -> AsyncIterator[subprocess.Popen[str]]:
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(process.wait, 20)  # connections that end need the loop
            assert code == 0, process.stdout.read() if process.stdout else ""


def until_answered(url: str, process: subprocess.Popen[str]) -> bytes:
    deadline = time.monotonic() + 20  # noqa: TID251
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                return answer.read()  # type: ignore[no-any-return]
        except (urllib.error.URLError, OSError):
            assert process.poll() is None and time.monotonic() < deadline  # noqa: TID251
            subprocess.run(["sleep", "0.05"], check=True)


@pytest.mark.slow
async def test_a_test_environment_with_controllers(tmp_path: Path, pki: Path) -> None:
    etcd, server, *_ = install(tmp_path / "assets")
    assert (
        "--insecure-port" not in subprocess.run([server, "--help"], capture_output=True, text=True, check=True).stdout
    )
    etcd_url, port = f"http://127.0.0.1:{free_port()}", free_port()
    words = [
        "--allow-privileged=true", "--authorization-mode=RBAC", "--bind-address=127.0.0.1", f"--cert-dir={pki}",
        f"--client-ca-file={pki / 'ca.crt'}", "--disable-admission-plugins=ServiceAccount",
        f"--etcd-servers={etcd_url}",
        f"--secure-port={port}", f"--service-account-issuer=https://127.0.0.1:{port}/",
        f"--service-account-key-file={pki / 'sa.key'}", f"--service-account-signing-key-file={pki / 'sa.key'}",
        "--service-cluster-ip-range=10.0.0.0/24",
    ]  # fmt: skip
    data = f"--data-dir={tmp_path}"
    async with (
        running(str(etcd), f"--listen-client-urls={etcd_url}", f"--advertise-client-urls={etcd_url}", data) as store,
        running(str(server), *words) as process,
    ):
        assert json.loads(until_answered(f"{etcd_url}/health", store)) == {"health": "true", "reason": ""}
        tls = client_tls(authority=pki / "ca.crt", certificate=pki / "admin.crt", key=pki / "admin.key")
        client = HttpClient(Address("127.0.0.1", port, tls))
        deadline = time.monotonic() + 20  # noqa: TID251
        while True:
            try:
                if (await client.request("GET", "/healthz")).status == 200:
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline  # noqa: TID251
                subprocess.run(["sleep", "0.05"], check=True)

        async def call(method: str, path: str, body: object = None) -> dict[str, object]:
            data = b"" if body is None else json.dumps(body).encode()
            answer = await client.request(method, path, [("content-type", "application/json")], data)
            return json.loads(await answer.read())  # type: ignore[no-any-return]

        service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
        made = await call("POST", "/api/v1/namespaces/default/services", service)
        assert str(made["spec"]["clusterIP"]).startswith("10.0.0.")  # type: ignore[index]
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        made = await call("POST", "/api/v1/namespaces/default/pods", pod)
        assert "volumes" not in made["spec"]  # type: ignore[operator]  # no token: ServiceAccount is off
        labels = {"app": "a"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        replicas = {"metadata": {"name": "r"}, "spec": {"selector": {"matchLabels": labels}, "template": template}}
        await call("POST", "/apis/apps/v1/namespaces/default/replicasets", replicas)
        await call("POST", "/api/v1/namespaces", {"metadata": {"name": "short-lived"}})
        await call("DELETE", "/api/v1/namespaces/short-lived")
        while (await call("GET", "/api/v1/namespaces/short-lived")).get("code") != 404:
            assert time.monotonic() < deadline  # noqa: TID251
            subprocess.run(["sleep", "0.05"], check=True)
        made = await call("GET", "/apis/apps/v1/namespaces/default/replicasets/r")
        assert made["status"] == {"replicas": 0}  # nobody works on it: envtest's users do so themselves
        await client.close()


def test_controllers_named_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEER_ENVTEST_CONTROLLERS", "deployment-controller,nobody")
    done = subprocess.run([install(tmp_path)[1]], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == 'Error: STEER_ENVTEST_CONTROLLERS: "nobody" is not in the list of known controllers\n'


def test_flags_in_both_spellings() -> None:
    assert flags(["--a=b", "--c", "d", "--e", "--f=", "-v=3"]) == {"a": "b", "c": "d", "e": "true", "f": "", "v": "3"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--no-such-flag=1"], "unknown flag: --no-such-flag"),
        (["serve"], 'unknown command "serve"'),
        (["--secure-port=many"], 'invalid argument "many" for "--secure-port" flag'),
        (["--service-cluster-ip-range=10.0.0.1/24"], 'invalid argument "10.0.0.1/24"'),
        (["--secure-port=0", "--authorization-mode=Nobody"], '--authorization-mode: "Nobody" is not a valid mode'),
        (["--emulated-version=1.30"], "--emulated-version means nothing here: the release that a cluster serves"),
        (["--encryption-provider-config=/x"], "--encryption-provider-config means nothing here: objects are kept in"),
        (["--service-account-signing-key-file=/dev/null"], "holds no key in PEM"),
    ],
)
def test_wrong_usage_is_said(tmp_path: Path, words: list[str], complaint: str) -> None:
    server = install(tmp_path)[1]
    done = subprocess.run([server, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and complaint in done.stderr
