"""Helm, old and new, takes a chart with hooks, a test and a CRD through its life."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Steer
from tests.e2e.kubectl import binary

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]

CHART = str(Path(__file__).parent / "chart")


class Helm:
    """One helm, pointed at a cluster, in a namespace of its own."""

    def __init__(self, release: str, steer: Steer) -> None:
        self._program = binary(release, "helm")
        self._environment = {**steer.environment, "HOME": str(steer.home), "HELM_NAMESPACE": release}
        self.kubectl = steer.kubectl()
        self.namespace = release

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._program), *words],
            capture_output=True,
            text=True,
            timeout=120,
            env=self._environment,
            check=False,
        )

    def __call__(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, f"helm {' '.join(words)}: {done.stderr or done.stdout}"
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "-o", "json"))

    def look(self, kind: str, name: str, path: str) -> str:
        return self.kubectl("-n", self.namespace, "get", kind, name, "-o", f"jsonpath={path}", "--ignore-not-found")


@pytest.mark.parametrize("release", ["v24", "v37"])  # helm 3.9 and helm 4
def test_a_chart_with_hooks_and_a_definition(steer: Steer, release: str) -> None:
    helm = Helm(release, steer)
    assert "0 chart(s) failed" in helm("lint", CHART)
    assert "kind: Greeting" in helm("template", "web", CHART)

    made = helm.json("install", "web", CHART, "--create-namespace", "--wait", "--timeout", "60s")
    assert (made["info"]["status"], made["version"]) == ("deployed", 1)
    assert [(one["name"], one["last_run"]["phase"]) for one in made["hooks"] if "Job" in one["kind"]] == [
        ("web-prepare", "Succeeded")
    ]
    assert helm.look("job", "web-prepare", "{.status.succeeded}") == "1"
    assert helm.look("deployment", "web", "{.status.readyReplicas}") == "1"
    assert helm.look("greeting", "web", "{.spec.text}") == "hello"
    [listed] = helm.json("list")
    assert (listed["name"], listed["revision"], listed["status"]) == ("web", "1", "deployed")

    helm("upgrade", "web", CHART, "--set", "text=bye", "--wait", "--timeout", "60s")
    assert helm.look("greeting", "web", "{.spec.text}") == "bye"
    assert helm.json("get", "values", "web") == {"text": "bye"}
    assert "It says bye." in helm("get", "notes", "web")
    assert "value: bye" in helm("get", "manifest", "web")
    assert "web-prepare" in helm("get", "hooks", "web")
    helm("rollback", "web", "1", "--wait", "--timeout", "60s")
    assert helm.look("greeting", "web", "{.spec.text}") == "hello"
    assert helm.look("deployment", "web", "{.spec.template.spec.containers[0].env[0].value}") == "hello"

    broken = helm.run("upgrade", "web", CHART, "--set", "image=nginx:0.0.0", "--atomic", "--timeout", "6s")
    assert broken.returncode != 0
    history = [(each["revision"], each["status"]) for each in helm.json("history", "web")]
    assert history == [(1, "superseded"), (2, "superseded"), (3, "superseded"), (4, "failed"), (5, "deployed")]
    assert helm.look("deployment", "web", "{.spec.template.spec.containers[0].image}") == "nginx:1.7.9"

    tested = helm("test", "web", "--logs", "--timeout", "60s")
    assert "Phase:          Succeeded" in tested
    assert helm.json("status", "web")["info"]["status"] == "deployed"
    helm("uninstall", "web", "--wait")
    assert helm.json("list") == []
    assert helm.look("deployment", "web", "{.metadata.name}") == ""
    assert steer.kubectl()("get", "crd", "greetings.example.org", "-o", "name").strip()  # a definition outlives it
