"""A kopf operator works: handlers, timers, daemons, finalizers, events and admission webhooks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steersman.api.errors import ApiError
from tests.clients.python.certificate import write_certificate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer}, colour: {type: string}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""


def widget(name: str, size: int) -> dict[str, Any]:
    return {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": size}}


@pytest.fixture
def operator(cluster: Any, namespace: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The operator, once its webhooks are there."""
    cluster.client.apply(WIDGETS)
    certificate, key = write_certificate(tmp_path)
    environment = {
        **os.environ, "KUBECONFIG": str(cluster.kubeconfig),
        "WEBHOOK_CERTIFICATE": str(certificate), "WEBHOOK_KEY": str(key),
    }  # fmt: skip
    program = [sys.executable, "-m", "kopf", "run", str(Path(__file__).with_name("operator.py")), "-n", namespace]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*program, "--standalone"], env=environment, stdout=log, stderr=log)
        try:
            for kind in ("validatingwebhookconfiguration", "mutatingwebhookconfiguration"):
                cluster.client.wait(kind, "operator.example.org", lambda found: found.get("webhooks"), timeout=60)
            yield process
        finally:
            process.terminate()
            process.wait(20)


def test_an_operator(cluster: Any, namespace: str, operator: subprocess.Popen[bytes]) -> None:
    client = cluster.client
    client.create(widget("one", 3), namespace)
    found = client.wait(
        "widget",
        "one",
        lambda it: (it.get("status") or {}).get("ticks") == 3 and it["status"].get("watched"),
        namespace,
    )
    assert found["status"]["size"] == 3
    assert found["status"]["made"] == {"colour": "grey"}  # which the mutating webhook gave it
    assert found["metadata"]["finalizers"] == ["kopf.zalando.org/KopfFinalizerMarker"]
    client.patch("widget", "one", {"spec": {"size": 4}}, namespace)
    client.wait("widget", "one", lambda it: it["status"].get("resized") == "3 to 4", namespace)
    with pytest.raises(ApiError, match="too large") as refused:
        client.create(widget("two", 101), namespace)
    assert refused.value.code == 418
    assert "it is there" in [event["message"] for event in client.list("events", namespace)]
    client.delete("widget", "one", namespace)
    client.wait_gone("widget", "one", namespace)
    assert operator.poll() is None
