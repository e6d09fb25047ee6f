"""Kubernetes' protobuf: exact bytes, round trips over every message, and hostile input."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.api import durations, protobuf, schema
from steersman.api.errors import ApiError
from steersman.api.protobuf.decode import Decoder
from steersman.api.protobuf.encode import Encoder, parse_duration
from steersman.api.protobuf.table import Field, Message, table
from steersman.api.schema.body import PROTOBUF, STRICT, GroupVersionKind, read
from steersman.api.schema.decode import Decoders

CONFIG_MAP = (
    b"k8s\0"
    b"\x0a\x0f\x0a\x02v1\x12\x09ConfigMap"  # typeMeta: apiVersion, kind
    b"\x12\x24"  # raw
    b"\x0a\x1a\x0a\x01c\x12\x00\x1a\x01n\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00\x5a\x06\x0a\x01k\x12\x01v"  # metadata
    b"\x12\x06\x0a\x01a\x12\x01b"  # data
    b"\x1a\x00\x22\x00"  # contentEncoding, contentType
)
"""What a typed Go client sends: zero values are written."""


def test_the_body_of_a_go_client() -> None:
    (api_version, kind), obj = protobuf.decode(CONFIG_MAP)
    assert (api_version, kind) == ("v1", "ConfigMap")
    assert obj == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "n", "labels": {"k": "v"}},
        "data": {"a": "b"},
    }


def test_encoding_is_canonical() -> None:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"b": "2", "a": "1"}}
    assert protobuf.encode(obj) == (
        b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x15"
        b"\x0a\x03\x0a\x01c\x12\x06\x0a\x01a\x12\x011\x12\x06\x0a\x01b\x12\x012\x1a\x00\x22\x00"
    )


POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "p",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {"f:nodeName": {}}}}],
    },
    "spec": {
        "containers": [
            {
                "name": "c",
                "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 5},
                "readinessProbe": {"tcpSocket": {"port": 80}},
            }
        ],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "c", "defaultMode": 420}}],
        "ephemeralContainers": [{"name": "e", "image": "i", "targetContainerName": "c", "resources": {}}],
        "terminationGracePeriodSeconds": 0,
        "priority": -5,
    },
    "status": {"conditions": [], "containerStatuses": [{"name": "c", "ready": False, "restartCount": 0}]},
}


def test_a_pod_comes_back_as_it_was() -> None:
    obj = protobuf.decode(protobuf.encode(POD))[1]
    assert obj["metadata"] == POD["metadata"]
    assert obj["spec"] == POD["spec"]


def test_zero_is_kept_where_go_keeps_it_and_dropped_where_go_omits_it() -> None:
    spec = {"replicas": 0, "paused": False, "minReadySeconds": 0, "template": {}}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}, "spec": spec}
    assert protobuf.decode(protobuf.encode(deployment))[1]["spec"] == {"replicas": 0, "template": {}}
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {}, "involvedObject": {}, "count": 0, "source": {}}
    assert "count" not in protobuf.decode(protobuf.encode(event))[1]


def test_custom_resource_definitions_keep_their_schemas() -> None:
    props = {
        "type": "object",
        "$ref": "#/x",
        "x-kubernetes-preserve-unknown-fields": True,
        "default": {"a": [1, None, "x"]},
        "enum": ["a", 1],
        "items": {"type": "string"},
        "additionalProperties": False,
        "additionalItems": {"type": "string"},
        "dependencies": {"a": ["b", "c"], "d": {"type": "object"}},
        "properties": {"p": {"type": "number", "minimum": 0.5, "maximum": 3}},
    }
    version = {"name": "v1", "served": True, "storage": False, "schema": {"openAPIV3Schema": props}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "x"},
        "spec": {"group": "g", "names": {"plural": "xs", "kind": "X"}, "scope": "Namespaced", "versions": [version]},
    }
    assert protobuf.decode(protobuf.encode(crd))[1]["spec"] == crd["spec"]


def test_named_lists_are_lists() -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": "u", "extra": {"scopes": ["a", "b"]}},
    }
    assert protobuf.decode(protobuf.encode(review))[1]["spec"] == review["spec"]


@pytest.mark.parametrize("kind", ["Status", "DeleteOptions", "CreateOptions", "PatchOptions"])
def test_meta_kinds_exist_in_every_version(kind: str) -> None:
    assert protobuf.knows("apps/v1", kind)
    assert protobuf.decode(protobuf.encode({"apiVersion": "v1", "kind": kind}))[0] == ("v1", kind)


def test_what_has_no_message_is_said() -> None:
    assert not protobuf.knows("example.com/v1", "Widget")
    assert not protobuf.knows("meta.k8s.io/v1", "Table")
    with pytest.raises(protobuf.ProtobufError):
        protobuf.encode({"apiVersion": "example.com/v1", "kind": "Widget"})


def test_a_value_that_does_not_fit_is_an_error() -> None:
    for spec in ({"nodeName": 5}, {"containers": "x"}, {"containers": [5]}, {"activeDeadlineSeconds": "x"}):
        with pytest.raises(protobuf.ProtobufError):
            protobuf.encode({"apiVersion": "v1", "kind": "Pod", "spec": spec})


def test_a_watch_frame_has_its_length_in_front() -> None:
    assert protobuf.watch_frame("ADDED", b"k8s\0") == b"\0\0\0\x0f\x0a\x05ADDED\x12\x06\x0a\x04k8s\0"


def test_every_served_kind_has_a_message_whose_fields_the_schema_has() -> None:
    schemas = schema.load()
    checked = 0
    for name, definition in schemas.definitions.items():
        for gvk in definition.get("x-kubernetes-group-version-kind", ()):
            api_version = f"{gvk['group']}/{gvk['version']}".lstrip("/")
            message = table().find(api_version, gvk["kind"]) if "alpha" not in api_version else None
            if message is None or len(definition["x-kubernetes-group-version-kind"]) > 1:
                continue
            names = {field.name for field in message.fields if not field.inline}
            assert names <= definition["properties"].keys(), name
            checked += 1
    assert checked > 120


def _strategy(field: Field, depth: int) -> st.SearchStrategy[Any]:
    """Values whose zero is not ambiguous, for one field."""
    simple: dict[str, st.SearchStrategy[Any]] = {
        "s": st.text(min_size=1, max_size=5),
        "b": st.just(True),
        "i": st.integers(-(2**31), 2**31 - 1).filter(bool),
        "x": st.sampled_from(["YQ==", "YWI=", "YWJj"]),
        "d": st.sampled_from([0.5, 3, -1e9]),
        "T": st.sampled_from(["2026-01-02T03:04:05Z", "1969-12-31T23:59:59Z", "0300-01-01T00:00:00Z"]),
        "U": st.sampled_from(["2026-01-02T03:04:05.000001Z", "1960-01-02T03:04:05.999999Z"]),
        "D": st.sampled_from(["1m30s", "5ms", "1h0m0s", "-1.5s"]),
        "Q": st.sampled_from(["100m", "1Gi", "0"]),
        "O": st.sampled_from(["http", "25%", 80, 0, -1]),
        "R": st.sampled_from([{"a": None}, [1], "x", 5, {"f:spec": {"f:x": {}}}]),
        "A": st.sampled_from([{"type": "string"}, [{"type": "string"}]]),
        "B": st.sampled_from([True, False, {"type": "string"}]),
        "C": st.sampled_from([["a"], {"type": "string"}]),
    }
    if field.type != "@":
        one = simple[field.type]
    elif field.message.endswith(("Verbs", "ExtraValue", "AttestationValue")):
        one = st.lists(st.text(max_size=3), max_size=2)
    else:
        one = _objects(table().message(field.message), depth + 1)
    if field.many == "*":
        return st.lists(one, min_size=1, max_size=2)
    return st.dictionaries(st.text(max_size=3), one, min_size=1, max_size=2) if field.many else one


def _objects(message: Message, depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    @st.composite
    def draw_object(draw: st.DrawFn) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for field in message.fields:
            if depth < 3 and draw(st.integers(0, 2 + depth)) == 0:
                value = draw(_strategy(field, depth))
                out.update(value) if field.inline else out.__setitem__(field.name, value)
        return out

    return draw_object()


KINDS = [
    ("v1", "Pod"),
    ("v1", "ServiceList"),
    ("v1", "Node"),
    ("v1", "Secret"),
    ("v1", "Event"),
    ("v1", "PersistentVolume"),
    ("apps/v1", "Deployment"),
    ("batch/v1", "CronJob"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "Ingress"),
    ("coordination.k8s.io/v1", "Lease"),
    ("resource.k8s.io/v1", "ResourceClaim"),
    ("authorization.k8s.io/v1", "SubjectAccessReview"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("metrics.k8s.io/v1beta1", "PodMetrics"),
]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS).flatmap(lambda gvk: st.tuples(st.just(gvk), _objects(_message(gvk)))))
def test_objects_come_back_as_they_were(case: tuple[tuple[str, str], dict[str, Any]]) -> None:
    message = _message(case[0])
    data = Encoder(table()).encode(case[1], message)
    again = Decoder(table()).decode(data, message)
    assert Encoder(table()).encode(again, message) == data
    assert again == case[1]


def _message(gvk: tuple[str, str]) -> Message:
    found = table().find(*gvk)
    assert found is not None
    return found


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for body in (data, protobuf.MAGIC + data):
        try:
            protobuf.decode(body, "v1", "Pod")
        except protobuf.ProtobufError:
            continue


@given(st.data())
def test_a_damaged_body_is_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(protobuf.encode(POD))
    body[data.draw(st.integers(4, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        protobuf.decode(bytes(body[: data.draw(st.integers(0, len(body)))]))
    except protobuf.ProtobufError:
        pass
    else:
        assert body.startswith(protobuf.MAGIC)


def test_a_schema_that_nests_without_end_is_refused() -> None:
    data = b""
    for _ in range(400):
        data = b"\xe2\x01" + _size(data) + data  # JSONSchemaProps.not
    with pytest.raises(protobuf.ProtobufError, match="depth"):
        Decoder(table()).decode(data, table().message("apiextensions.k8s.io/v1:JSONSchemaProps"))


def _size(data: bytes) -> bytes:
    low, high = len(data) & 0x7F, len(data) >> 7
    return (
        bytes((low | 0x80, high & 0x7F)) if len(data) < 1 << 14 else bytes((low | 0x80, high & 0x7F | 0x80, high >> 7))
    )


@pytest.mark.parametrize("text", ["1m30s", "5ms", "1h0m0s", "-1.5s", "0s", "1.5ms", "2h3m4.5s", "100ns", "7µs"])
def test_durations_come_back_as_they_were(text: str) -> None:
    assert durations.show(parse_duration(text)) == text


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "1m 2s", "--1s"])
def test_a_bad_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_a_request_body_may_be_protobuf() -> None:
    decoders = Decoders(schema.load())
    wanted = GroupVersionKind("", "v1", "ConfigMap")
    assert read(decoders, wanted, CONFIG_MAP, PROTOBUF, STRICT).obj["data"] == {"a": "b"}
    with pytest.raises(ApiError, match="cannot be handled as a Pod"):
        read(decoders, GroupVersionKind("", "v1", "Pod"), CONFIG_MAP, PROTOBUF, STRICT)
    with pytest.raises(ApiError, match="unrecognized"):
        read(decoders, wanted, b'{"kind":"ConfigMap"}', PROTOBUF, STRICT)


def test_raw_json_is_escaped_as_go_does() -> None:
    body = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "a"}, "revision": 1}
    encoded = protobuf.encode({**body, "data": {"command": "a < b && c > d \u2028"}})
    assert rb'{"command":"a \u003c b \u0026\u0026 c \u003e d \u2028"}' in encoded
    assert protobuf.decode(encoded)[1]["data"] == {"command": "a < b && c > d \u2028"}
