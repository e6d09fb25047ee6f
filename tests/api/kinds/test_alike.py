"""What is remembered of pods of one template: only that there is nothing to say."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.kinds.podspec import alike, warnings

_CONTAINER = {"name": "c", "image": "i"}


def _spec(token: str = "abcde", **more: Any) -> dict[str, Any]:
    volume = {"name": f"kube-api-access-{token}", "projected": {"sources": []}}
    mount = {"name": f"kube-api-access-{token}", "mountPath": "/t"}
    return {"containers": [{**_CONTAINER, "volumeMounts": [mount]}], "volumes": [volume], **more}


def test_the_name_of_the_token_volume_tells_nobody_apart() -> None:
    assert alike.text(_spec("abcde")) == alike.text(_spec("fghij"))
    assert alike.text(_spec()) != alike.text(_spec(nodeName="n"))
    two = _spec()
    two["volumes"].append({"name": "kube-api-access-zzzzz", "emptyDir": {}})
    assert b"zzzzz" in (alike.text(two) or b"")


@pytest.mark.parametrize(
    "more",
    [{"resourceClaims": []}, {"volumes": [{"name": "v", "ephemeral": {}}]}, {"nodeName": "n" * 9000}],
    ids=["claims", "ephemeral", "long"],
)
def test_what_is_judged_by_more_than_the_spec_is_not_remembered(more: dict[str, Any]) -> None:
    assert alike.text({"containers": [_CONTAINER], **more}) is None


def test_warnings_are_given_every_time() -> None:
    label = "beta.kubernetes.io/os"
    said = f"spec.nodeSelector[{label}]: {warnings.NODE_LABELS[label]}"
    annotation = "scheduler.alpha.kubernetes.io/critical-pod"
    for spec, of_spec in ((_spec(), []), (_spec(nodeSelector={label: "linux"}), [said])):
        for _ in range(2):
            assert warnings.pod({}, spec) == of_spec
            with_annotation = warnings.pod({"annotations": {annotation: ""}}, spec)
            assert [text for text in with_annotation if annotation not in text] == of_spec
            assert len(with_annotation) == len(of_spec) + 1
            assert [text.removeprefix("at.") for text in warnings.pod({}, spec, "at.")] == of_spec
