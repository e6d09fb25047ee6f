"""What writers are warned of, in the words that kube-apiserver 1.36.3 answered with, and what they are not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.kinds import stage

LONG_NAME = "a DNS label is recommended: [must not contain dots]"


def warned(obj: dict[str, Any]) -> list[str]:
    kind = stage.kind_of(obj)
    assert stage.create(obj) == []
    return kind.warnings(obj) if kind.warnings is not None else []


@pytest.mark.parametrize("name", ["v1/Pod", "Deployment", "StatefulSet", "Job", "CronJob", "Service", "CSIDriver"])
def test_nothing_odd_is_no_warning(name: str) -> None:
    assert warned(stage.example(name)) == []


@pytest.mark.parametrize(
    ("path", "value", "texts"),
    [
        ("nodeSelector", {"beta.kubernetes.io/os": "linux"}, [
            'spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead'
        ]),
        ("volumes", [{"name": "a", "gitRepo": {"repository": "x"}}], [
            "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"
        ]),
        ("volumes", [{"name": "a", "configMap": {"name": "m", "items": [{"key": k, "path": "b/c"} for k in "xy"]}}], [
            'volume "a" (ConfigMap "m"): overlapping paths: "b/c" with "b/c"'
        ]),
        ("volumes", [{"name": "a", "projected": {"sources": [{}]}}], [
            'volume "a" (Projected) has no sources provided'
        ]),
        ("imagePullSecrets", [{"name": "a"}, {"name": "a"}, {}], [
            'spec.imagePullSecrets[1].name: duplicate name "a"', 'spec.imagePullSecrets[2].name: invalid empty name ""'
        ]),
        ("terminationGracePeriodSeconds", -1, [
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ]),
        ("containers/0/env", [{"name": "A", "value": "b"}, {"name": "A", "value": "c"}], [
            'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply'
        ]),
        ("containers/0/env", [{"name": "A", "value": "b"}, {"name": "A", "value": "$(A)c"}], []),
        ("containers/0/resources", {"requests": {"memory": "100m"}}, [
            'spec.containers[0].resources.requests[memory]: fractional byte value "100m" is invalid, must be an integer'
        ]),
        ("containers/0/ports", [{"containerPort": 80}, {"containerPort": 80, "hostPort": 80}], [
            "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]"
        ]),
        ("affinity", {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "z"}]}}, [
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: "
            "a null labelSelector results in matching no pod"
        ]),
    ],
)  # fmt: skip
def test_pods_and_templates_are_told_the_same(path: str, value: Any, texts: list[str]) -> None:
    of_pod = [] if path == "terminationGracePeriodSeconds" else texts  # it is 1 by then
    assert warned(stage.put(stage.example("v1/Pod"), f"spec/{path}", value)) == of_pod
    found = warned(stage.put(stage.example("ReplicaSet"), f"spec/template/spec/{path}", value))
    assert found == [text.replace("spec.", "spec.template.spec.") for text in texts]


@pytest.mark.parametrize(
    ("name", "path", "value", "texts"),
    [
        ("Deployment", "metadata/name", "a.b", [
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; "
            f"{LONG_NAME}"
        ]),
        ("StatefulSet", "spec/revisionHistoryLimit", -1, [
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
        ]),
        ("Service", "spec/trafficDistribution", "PreferClose", [
            'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'
        ]),
        ("CSIDriver", "spec/tokenRequests", [{"audience": "a"}], [
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent "
            "possible logging of tokens in volume attributes"
        ]),
        ("Secret", "type", "kubernetes.io/tls", []),
    ],
)  # fmt: skip
def test_others_are_told(name: str, path: str, value: Any, texts: list[str]) -> None:
    obj = stage.put(stage.example(name), path, value)
    if name == "Secret":
        obj["data"] = {"tls.crt": "YQ==", "tls.key": "YQ=="}
        texts = ["tls: failed to find any PEM data in certificate input"]
    assert warned(obj) == texts
