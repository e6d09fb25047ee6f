"""A kopf operator for `test_kopf.py`: what it is told to do to Widgets shows in their status."""

from __future__ import annotations

import os
from typing import Any

import kopf


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = True
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1",
        host="127.0.0.1",
        certfile=os.environ["WEBHOOK_CERTIFICATE"],
        pkeyfile=os.environ["WEBHOOK_KEY"],
        cafile=os.environ["WEBHOOK_CERTIFICATE"],
    )
    settings.admission.managed = "operator.example.org"


@kopf.on.create("widgets.example.org")
def made(spec: kopf.Spec, patch: kopf.Patch, body: kopf.Body, **_: Any) -> dict[str, Any]:
    kopf.event(body, type="Normal", reason="Made", message="it is there")
    patch.status["size"] = spec["size"]
    return {"colour": spec.get("colour")}


@kopf.on.field("widgets.example.org", field="spec.size")
def resized(old: Any, new: Any, patch: kopf.Patch, **_: Any) -> None:
    patch.status["resized"] = f"{old} to {new}"


@kopf.on.delete("widgets.example.org")
def ended(memo: kopf.Memo, **_: Any) -> None:
    memo.ended = True


@kopf.timer("widgets.example.org", interval=0.2)
def tick(status: kopf.Status, patch: kopf.Patch, **_: Any) -> None:
    if status.get("ticks", 0) < 3:
        patch.status["ticks"] = status.get("ticks", 0) + 1


@kopf.daemon("widgets.example.org")
async def watched(stopped: kopf.DaemonStopped, patch: kopf.Patch, **_: Any) -> None:
    patch.status["watched"] = True


@kopf.on.validate("widgets.example.org")
def small(spec: kopf.Spec, warnings: list[str], **_: Any) -> None:
    if spec["size"] > 100:
        raise kopf.AdmissionError("too large", code=418)
    if spec["size"] > 50:
        warnings.append("rather large")


@kopf.on.mutate("widgets.example.org")
def coloured(spec: kopf.Spec, patch: kopf.Patch, **_: Any) -> None:
    if "colour" not in spec:
        patch.spec["colour"] = "grey"
