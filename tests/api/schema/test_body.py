"""Request bodies: what is read, what is refused, and in which words (recorded from kube-apiserver's sources)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.api import schema
from steersman.api.errors import ApiError
from steersman.api.schema.body import IGNORE, JSON, STRICT, WARN, YAML, Body, GroupVersionKind, read
from steersman.api.schema.decode import Decoders

DECODERS = Decoders(schema.load())
DEPLOYMENT = GroupVersionKind("apps", "v1", "Deployment")
POD = GroupVersionKind("", "v1", "Pod")
SECRET = GroupVersionKind("", "v1", "Secret")
UNRECOGNIZED = "the object provided is unrecognized (must be of type Deployment): "
HANDLED = 'Deployment in version "v1" cannot be handled as a Deployment: '


def parse(
    body: bytes | str | dict[str, Any],
    wanted: GroupVersionKind = DEPLOYMENT,
    media: str = JSON,
    validation: str = STRICT,
) -> Body:
    if isinstance(body, dict):
        body = json.dumps(body)
    return read(DECODERS, wanted, body.encode() if isinstance(body, str) else body, media, validation)


def refused(body: bytes | str | dict[str, Any], wanted: GroupVersionKind = DEPLOYMENT, media: str = JSON) -> str:
    with pytest.raises(ApiError) as caught:
        parse(body, wanted, media)
    assert caught.value.code == 400
    return caught.value.message


def test_missing_api_version_and_kind_are_those_of_the_url() -> None:
    assert parse("{}").obj == {"apiVersion": "apps/v1", "kind": "Deployment"}


def test_null_is_absent() -> None:
    body = {"metadata": {"creationTimestamp": None, "labels": {"a": None}, "finalizers": [None]}, "status": None}
    assert parse(body).obj["metadata"] == {"labels": {"a": ""}, "finalizers": [""]}
    assert "status" not in parse(body).obj


def test_null_stays_inside_what_is_not_typed() -> None:
    wanted = GroupVersionKind("apps", "v1", "ControllerRevision")
    for data in ({"spec": None}, [1, None], None, [{"a": [None]}]):
        stored = parse({"data": data, "revision": 1, "metadata": None}, wanted).obj
        assert stored.get("data") == data and "metadata" not in stored


def test_null_stays_inside_the_values_of_a_custom_schema() -> None:
    wanted = GroupVersionKind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    props = {"enum": [None, [1, None], {"a": None}], "not": {"default": {"x": None}, "format": None}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": props}}
    stored = parse({"spec": {"versions": [version]}}, wanted).obj["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert stored == {"enum": props["enum"], "not": {"default": {"x": None}}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            '{"spec":{"replicas":"x"}}',
            "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        ('{"spec":"x"}', "cannot unmarshal string into Go struct field Deployment.spec of type v1.DeploymentSpec"),
        (
            '{"spec":{"template":{"spec":{"containers":[{"image":5}]}}}}',
            "cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type string",
        ),
        (
            '{"spec":{"replicas":1.5}}',
            "cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            '{"spec":{"replicas":3000000000}}',
            "cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            '{"metadata":{"labels":{"a":1}}}',
            "cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            '{"metadata":{"labels":[]}}',
            "cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            '{"spec":{"template":{"spec":{"containers":{}}}}}',
            "cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            '{"spec":{"paused":"yes"}}',
            "cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
    ],
)
def test_a_wrong_type_is_explained_as_go_does(body: str, message: str) -> None:
    assert refused(body) == f"{HANDLED}json: {message}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"),
        ('{"a":', 'couldn\'t get version/kind; json parse error: unexpected end of JSON input ({"a":)'),
        (
            "nope",
            "couldn't get version/kind; json parse error: invalid character 'n' looking for beginning of value"
            " (6e6f7065)",
        ),
        (
            '{"a":1} x',
            "couldn't get version/kind; json parse error: invalid character 'x' after top-level value ({\"a\":1} x)",
        ),
    ],
)
def test_what_is_not_json_is_unrecognized(body: str, message: str) -> None:
    assert refused(body) == UNRECOGNIZED + message


def test_another_kind_is_refused() -> None:
    assert refused({"kind": "Pod", "apiVersion": "v1"}).endswith(
        "converting (v1.Pod) to (apps.Deployment): unknown conversion"
    )
    assert 'no kind "Nope" is registered for version "apps/v1"' in refused({"kind": "Nope"})


def test_another_version_is_refused() -> None:
    message = "the API version in the data (apps/v1beta1) does not match the expected API version (apps/v1)"
    assert refused({"apiVersion": "apps/v1beta1"}) == message


def test_strict_names_every_unknown_and_repeated_field() -> None:
    body = (
        '{"spec":{"foo":1,"replicas":1,"replicas":2,"template":{"metadata":{"labels":{"a":"1","a":"2"}},'
        '"spec":{"containers":[{"image":"x"},{"bar":{"deep":1}}]}}},"x":{}}'
    )
    assert refused(body) == (
        HANDLED + 'strict decoding error: unknown field "spec.foo", duplicate field "spec.replicas", '
        'duplicate field "spec.template.metadata.labels.a", '
        'unknown field "spec.template.spec.containers[1].bar", unknown field "x"'
    )


def test_warn_warns_and_ignore_is_silent() -> None:
    body = {"spec": {"foo": 1, "replicas": 1}}
    assert parse(body, validation=WARN) == ({**parse("{}").obj, "spec": {"replicas": 1}}, ['unknown field "spec.foo"'])
    assert parse(body, validation=IGNORE).warnings == []


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_white_space_and_escapes_are_no_problem(indent: int | None) -> None:
    labels = {"a": "x y\t\n", "b": "ü< >", "c": '": , '}
    body = json.dumps({"metadata": {"labels": labels}, "spec": {"replicas": 1}}, indent=indent)
    assert parse(body).obj["metadata"]["labels"] == labels


def test_quantities_may_be_numbers() -> None:
    limits = {"cpu": 2, "memory": "128Mi", "x.io/y": 0.5, "z": "1000m"}
    obj = parse({"spec": {"containers": [{"name": "a", "resources": {"limits": limits}}]}}, POD).obj
    stored = obj["spec"]["containers"][0]["resources"]["limits"]
    assert stored == {"cpu": "2", "memory": "128Mi", "x.io/y": "500m", "z": "1"}


@pytest.mark.parametrize("bad", ["abc", "", "1.2.3", "5 Mi", True, [], "1KB", "--1", "0x10"])
def test_a_bad_quantity_is_refused(bad: Any) -> None:
    message = refused({"spec": {"containers": [{"resources": {"limits": {"cpu": bad}}}]}}, POD)
    assert message.endswith(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )


def test_int_or_string_keeps_which_it_is() -> None:
    for value in (1, "25%"):
        obj = parse({"spec": {"strategy": {"rollingUpdate": {"maxSurge": value}}}}).obj
        assert obj["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == value


@pytest.mark.parametrize(
    ("given_time", "stored"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
    ],
)
def test_times_are_stored_in_utc_seconds(given_time: str, stored: str) -> None:
    assert parse({"metadata": {"creationTimestamp": given_time}}).obj["metadata"]["creationTimestamp"] == stored


def test_micro_times_keep_microseconds() -> None:
    wanted = GroupVersionKind("coordination.k8s.io", "v1", "Lease")
    obj = parse({"spec": {"renewTime": "2026-01-02T03:04:05.500000+00:00"}}, wanted).obj
    assert obj["spec"]["renewTime"] == "2026-01-02T03:04:05.500000Z"
    for bad, rest, layout in (("", "Z", ".000000"), (".5", ".5Z", ".000000"), (".1234567", "7Z", "Z07:00")):
        text = refused({"spec": {"renewTime": f"2026-01-02T03:04:05{bad}Z"}}, wanted)
        assert text.endswith(f'cannot parse "{rest}" as "{layout}"')


def test_what_go_would_not_write_is_not_kept() -> None:
    wanted = GroupVersionKind("apps", "v1", "Deployment")
    pod = {"hostNetwork": False, "hostname": "", "volumes": [], "nodeSelector": {}, "enableServiceLinks": False}
    obj = parse({"spec": {"replicas": 0, "paused": False, "template": {"spec": pod}}}, wanted).obj
    assert obj["spec"] == {"replicas": 0, "template": {"spec": {"enableServiceLinks": False}}}
    hpa = GroupVersionKind("autoscaling", "v2", "HorizontalPodAutoscaler")
    rules = {"spec": {"behavior": {"scaleUp": {"policies": []}}}}
    assert parse(rules, hpa).obj["spec"] == rules["spec"]  # which is no policy, not the usual ones


@pytest.mark.parametrize("bad", ["yesterday", "2026-01-02", "2026-13-02T03:04:05Z", "20260102T030405Z"])
def test_a_bad_time_is_refused(bad: str) -> None:
    assert f'parsing time "{bad}" as "2006-01-02T15:04:05Z07:00"' in refused({"metadata": {"creationTimestamp": bad}})


def test_bad_base64_is_refused() -> None:
    assert parse({"data": {"a": "YWJj"}}, SECRET).obj["data"] == {"a": "YWJj"}
    assert refused({"data": {"a": "YWJ!"}}, SECRET).endswith("illegal base64 data at input byte 3")
    assert "illegal base64" in refused({"data": {"a": "YWJ"}}, SECRET)


def test_yaml_is_read_as_kubernetes_reads_it() -> None:
    text = """
        metadata:
          name: on-x
          creationTimestamp: 2020-01-01T00:00:00Z
          annotations: {"a": "yes", b: 2020-01-01, c: !!str 5}
        spec: {replicas: 3, paused: yes}
    """
    obj = parse(text, media="application/yaml; charset=utf-8").obj
    assert obj["spec"] == {"replicas": 3, "paused": True}
    assert obj["metadata"]["annotations"] == {"a": "yes", "b": "2020-01-01", "c": "5"}


def test_a_repeated_yaml_key_is_a_strict_error() -> None:
    text = "metadata: {}\nmetadata: {}"
    assert 'line 2: key "metadata" already set in map' in refused(text, media=YAML)
    assert len(parse(text, media=YAML, validation=WARN).warnings) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: b: c", "yaml: mapping values are not allowed in this context (613a20623a2063)"),
        ("kind: [", "yaml: line 1: did not find expected node content (6b696e643a205b)"),
        ("a: 1\nb: c: d", "yaml: line 2: mapping values are not allowed in this context ("),
        ("%", "yaml: could not find expected directive name (25)"),
        ("- a", "(2d2061)"),
    ],
)
def test_yaml_is_refused_in_the_words_of_go(text: str, why: str) -> None:
    assert why in refused(text, media=YAML)


def test_repeated_yaml_keys_are_one_problem_and_a_warning_each() -> None:
    text = "metadata: {}\nmetadata: {}\nmetadata: {}"
    lines = [f'line {line}: key "metadata" already set in map' for line in (2, 3)]
    assert parse(text, media=YAML, validation=WARN).warnings == lines
    joined = "\n  ".join(lines)
    assert f"strict decoding error: yaml: unmarshal errors:\n  {joined}" in refused(text, media=YAML)


def test_json_is_yaml_too() -> None:
    assert parse('{"spec":{"replicas":1}}', media=YAML).obj["spec"] == {"replicas": 1}
    assert refused('{"metadata":{"labels":{"a":"1","a":"2"}}}', media=YAML).endswith(
        'duplicate field "metadata.labels.a"'
    )


def test_an_unknown_content_type_is_415() -> None:
    with pytest.raises(ApiError) as caught:
        parse("{}", media="text/plain")
    assert (caught.value.code, caught.value.reason) == (415, "UnsupportedMediaType")


BOMB = b'a: &a ["lol","lol"]\n' + b"".join(
    b"%c: &%c [%s]\n" % (i + 1, i + 1, b",".join([b"*%c" % i] * 9)) for i in range(97, 112)
)
BIG_ALIAS = b"a: &a " + b"x" * 100_000 + b"\nb: [" + b"*a," * 1000 + b"]"


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        BIG_ALIAS,
        b"a: &a [*a]",
        b"a: *nobody",
        b"[" * 100_000,
        b"- " * 100_000,
        b"a: .nan",
        b"a: [1",
        b"{[1]: 2}",
        b"\xff\xfe\x00",
        b"a: \x00",
        b"<<: 5",
        b"%YAML 9.9\n---\na: 1",
    ],
)
def test_hostile_yaml_is_refused(body: bytes) -> None:
    assert refused(body, media=YAML).startswith(UNRECOGNIZED)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' * 100_000,
        b"[" * 1_000_000,
        b'{"kind":{}}',
        b"5",
        b'"x"',
        b"\x00" * 99,
    ],
)
def test_hostile_json_is_refused(body: bytes) -> None:
    assert refused(body).startswith(UNRECOGNIZED)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"data":{"a":NaN}}', "invalid character 'N' looking for beginning of value"),
        (b"\xff\xfe", "invalid character '\xff' looking for beginning of value"),
        (b'{"a":' * 100_000, "invalid character '{' exceeded max depth"),
        (b'{"kind":1}', "json: cannot unmarshal number into Go struct field .kind of type string"),
    ],
)
def test_why_json_is_refused(body: bytes, why: str) -> None:
    assert f"json parse error: {why} (" in refused(body)


def test_null_is_an_object_with_nothing_in_it() -> None:
    assert parse(b"null").obj == {"apiVersion": "apps/v1", "kind": "Deployment"}


def test_text_that_is_not_utf8_is_replaced_as_go_does() -> None:
    assert parse(b'{"metadata":{"name":"a\xffb"}}').obj["metadata"]["name"] == "a\ufffdb"


def test_deep_nesting_where_anything_goes_is_refused() -> None:
    wanted = GroupVersionKind("apps", "v1", "ControllerRevision")
    with pytest.raises(ApiError):
        parse(b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", wanted)


@given(st.binary(max_size=200), st.sampled_from([JSON, YAML]))
def test_any_bytes_are_read_or_refused(body: bytes, media: str) -> None:
    try:
        assert isinstance(parse(body, media=media).obj, dict)
    except ApiError as error:
        assert error.code == 400


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["spec", "metadata", "labels", "a"]), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["spec", "metadata", "status", "x"]), JSONS))
def test_any_json_is_read_or_refused_and_reads_back_the_same(body: dict[str, Any]) -> None:
    try:
        obj = parse(body, validation=IGNORE).obj
    except ApiError as error:
        assert error.code == 400
    else:
        assert parse(obj).obj == obj


def test_a_version_that_never_was_is_not_registered() -> None:
    words = 'no kind "Deployment" is registered for version "apps/v9" in scheme "pkg/runtime/scheme.go:111"'
    assert refused('{"apiVersion":"apps/v9","kind":"Deployment"}').endswith(words)
    assert "does not match the expected API version" in refused('{"apiVersion":"apps/v1beta1","kind":"Deployment"}')
    assert parse('{"apiVersion":"apps/v1","kind":"Deployment"}').obj["kind"] == "Deployment"
