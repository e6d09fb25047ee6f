"""The pytest plugin: `cluster`, a real control plane for tests, and `namespace`, a fresh one for each test.

Owns the fixtures and the `steersman_*` settings. It is loaded in every pytest run of an environment that has Steersman,
so it imports nothing before a fixture is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from steersman.cluster.plane import ControlPlane
    from steersman.testing.client import LoopThread, SyncClient

_SCOPES = ("function", "class", "module", "package", "session")


class Cluster:
    """A running control plane: `client` for the test itself, `kubeconfig` (a file) and `url` for everybody else."""

    def __init__(self, thread: LoopThread, plane: ControlPlane, kubeconfig: Path) -> None:
        from steersman.testing.client import SyncClient

        self.client: SyncClient = SyncClient(thread, plane.client)
        self.kubeconfig = kubeconfig
        self.url = plane.url


def pytest_addoption(parser: pytest.Parser) -> None:
    """The plugin's settings."""
    parser.addini(
        "steersman_scope", f"how long `cluster` lives: {', '.join(_SCOPES)} (default session)", default="session"
    )
    parser.addini("steersman_release", "the Kubernetes release that clusters serve, such as 1.33 (default: the newest)")
    parser.addini("steersman_scheduler", "whether clusters run a scheduler (default no)", type="bool", default=False)


def _scope(fixture_name: str, config: pytest.Config) -> Any:
    scope = config.getini("steersman_scope")
    if scope not in _SCOPES:
        raise pytest.UsageError(f"steersman_scope: {scope!r} is none of {', '.join(_SCOPES)}")
    return scope


@pytest.fixture(scope="session")
def make_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Cluster]]:
    """Make a cluster: `make_cluster(release="1.33", scheduler=True, controllers=["*"])`. All end with the session."""
    from contextlib import ExitStack

    from steersman.cluster.kubeconfig import write
    from steersman.cluster.plane import ControlPlane
    from steersman.testing.client import LoopThread

    folder = tmp_path_factory.mktemp("steersman")
    config = request.config
    settings: dict[str, Any] = {"scheduler": config.getini("steersman_scheduler")}
    if release := config.getini("steersman_release"):
        settings["release"] = release
    thread, session, made = LoopThread(), ExitStack(), 0

    def make(stack: ExitStack = session, **options: Any) -> Cluster:
        nonlocal made
        made += 1
        plane = ControlPlane(folder, **(settings | options))
        thread.call(plane.__aenter__())
        stack.callback(lambda: thread.call(plane.__aexit__(None, None, None)))
        path = folder / f"kubeconfig-{made}"
        write(path, plane.kubeconfig())
        return Cluster(thread, plane, path)

    with session:
        yield make
    thread.close()


@pytest.fixture(scope=_scope)
def cluster(make_cluster: Callable[..., Cluster]) -> Iterator[Cluster]:
    """A real Kubernetes API server with its controllers, empty but for what every cluster has."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield make_cluster(stack)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own in `cluster`; it is deleted afterwards, and everything in it."""
    prefix = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40].strip("-") or "test"
    made = cluster.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": f"{prefix}-"}})
    name: str = made["metadata"]["name"]
    yield name
    cluster.client.delete("Namespace", name)
