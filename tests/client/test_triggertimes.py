"""What made endpoints change, by its time."""

from __future__ import annotations

from typing import Any

from steersman.api.resource import Object
from steersman.client.triggertimes import ANNOTATION, TriggerTimes, stamped


def service(made: str = "2026-01-01T00:00:00Z") -> Object:
    return {"metadata": {"name": "web", "creationTimestamp": made}}


def pod(name: str, since: str) -> Object:
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
    return {"metadata": {"name": name}, "status": {"conditions": conditions}}


def test_the_first_of_the_changes_since_the_last_look_counts() -> None:
    times = TriggerTimes()
    one, two = pod("a", "2026-01-01T00:01:00Z"), pod("b", "2026-01-01T00:02:00Z")
    assert times.of("k", service(), [one]) == "2026-01-01T00:00:00Z", "of what is not known yet, since it was made"
    assert times.of("k", service(), [one]) == ""
    later = pod("a", "2026-01-01T00:03:00Z")
    assert times.of("k", service(), [later, two]) == "2026-01-01T00:02:00Z"
    assert times.of("k", service(), [two]) == "", "a pod that goes has no time"
    assert times.of("k", service("2026-01-02T00:00:00Z"), [two]) == "2026-01-02T00:00:00Z"
    times.forget("k")
    assert times.of("k", service(), [two]) == "2026-01-01T00:00:00Z"


def test_the_annotation_comes_and_goes() -> None:
    made: dict[str, Any] = {"metadata": {"name": "web", "annotations": {"a": "b"}}}
    with_time = stamped(made, "T")
    assert with_time["metadata"]["annotations"] == {"a": "b", ANNOTATION: "T"}
    assert stamped(with_time, "") == made
    assert "annotations" not in stamped({"metadata": {"annotations": {ANNOTATION: "T"}}}, "")["metadata"]
