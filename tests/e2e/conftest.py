"""A real cluster on this machine: `steer up` as a user runs it, a real registry, real kubectl binaries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.kubectl import RELEASES, Kubectl, binary
from tests.e2e.registry import push_nginx, serving


@dataclass(frozen=True)
class Steer:
    """The steer command with a home of its own."""

    home: Path

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "STEER_HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)}

    def run(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "steersman.cli", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment,
            check=False,
        )

    def __call__(self, *words: str, timeout: float = 120) -> str:
        done = self.run(*words, timeout=timeout)
        assert done.returncode == 0, f"steer {' '.join(words)}: {done.stderr}{done.stdout}"
        return done.stdout + done.stderr

    def kubectl(self, release: str = "v37") -> Kubectl:
        return Kubectl(binary(release), self.kubeconfig)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("registry")
    with serving(folder) as address:
        push_nginx(folder, address, "1.7.9", "1.14.2")
        yield address


@pytest.fixture(scope="session")
def make_steer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Steer]]:
    """Homes for clusters; what is left in them is deleted at the end."""
    made: list[Steer] = []

    def make() -> Steer:
        made.append(Steer(tmp_path_factory.mktemp("steer")))
        return made[-1]

    yield make
    for steer in made:
        steer.run("delete", "--all")


@pytest.fixture(scope="module")
def steer(make_steer: Callable[[], Steer], registry: str) -> Iterator[Steer]:
    """A running cluster with one node, its docker.io being the local registry."""
    cluster = make_steer()
    cluster("up", "--registry-mirror", f"http://{registry}")
    yield cluster
    cluster("delete")


@pytest.fixture(params=RELEASES)
def kubectl(request: pytest.FixtureRequest, steer: Steer) -> Kubectl:
    return steer.kubectl(request.param)
