"""What hostile requests are made of: sound objects with something wrong in them, and parameters of every sort."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

from steersman.api import protobuf
from steersman.api.kind import Kind
from steersman.api.resource import Object
from steersman.lib.http.messages import Request
from tests.api.kinds import stage

ODD: list[Any] = [
    None, True, 0, -1, 2**31, 2**63, -(2**63) - 1, 1.5, 1e308, "", "a", "A b", "x" * 300, "\0", "é", "-1", "1Gi",
    "1e400", "9" * 20, "2020-99-01", "*", "/", "//", "..", [], {}, [None], [[]], [{}], {"": ""}, {"a": None},
    {"a": {"b": [1]}}, [1, "a", None, {}], "10.0.0.0/8", "::1", "300.1.1.1", "system:", "a=b", "(",
    "self.x", "50%", "-5%",
]  # fmt: skip
PARAMETERS = [
    "fieldManager=",
    "fieldManager=%00",
    "dryRun=All",
    "dryRun=x",
    "fieldValidation=Strict",
    "fieldValidation=Ignore",
    "fieldValidation=z",
    "force=true",
    "force=z",
    "limit=1",
    "limit=-1",
    "limit=99999999999999999999",
    "limit=x",
    "continue=x",
    "continue=eyJ",
    "continue=%FF",
    "resourceVersion=0",
    "resourceVersion=1",
    "resourceVersionMatch=Exact",
    "resourceVersionMatch=NotOlderThan",
    "resourceVersionMatch=x",
    "labelSelector=a%3Db",
    "labelSelector=(",
    "labelSelector=a%20in%20(",
    "labelSelector=!",
    "labelSelector=%00",
    "fieldSelector=metadata.name%3Da",
    "fieldSelector=%3D",
    "fieldSelector=x%3Dy",
    "fieldSelector=a%5C",
    "pretty=true",
    "timeout=1s",
    "timeout=z",
    "timeoutSeconds=-1",
    "timeoutSeconds=x",
    "timeoutSeconds=99999999999999999999999",
    "allowWatchBookmarks=x",
    "sendInitialEvents=true",
    "sendInitialEvents=x",
    "propagationPolicy=Orphan",
    "propagationPolicy=x",
    "gracePeriodSeconds=-1",
    "gracePeriodSeconds=x",
    "gracePeriodSeconds=99999999999999999999",
    "orphanDependents=true",
    "orphanDependents=z",
    "includeObject=Object",
    "includeObject=q",
    "a",
    "%",
    "=",
    "&&",
    "%ff=%fe",
    "watch=true&timeoutSeconds=1",
]
MEDIA = ["application/json"] * 6 + ["application/yaml", "application/vnd.kubernetes.protobuf", "text/plain", "a/b/c"]
PATCHES = ["merge-patch+json", "strategic-merge-patch+json", "json-patch+json", "apply-patch+yaml", "apply-patch+cbor"]
ACCEPTED = ["application/json"] * 8 + [
    "application/json;as=Table;v=v1;g=meta.k8s.io", "application/vnd.kubernetes.protobuf", "application/yaml",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "text/html", "*/*;q=x", ";;;",
]  # fmt: skip
SUBRESOURCES = [
    "status",
    "scale",
    "x",
    "binding",
    "eviction",
    "ephemeralcontainers",
    "resize",
    "token",
    "approval",
    "finalize",
]
_POINTERS = [
    "", "/", "/metadata", "/metadata/name", "/metadata/labels/a", "/metadata/labels", "/spec", "/spec/containers/0",
    "/spec/containers/-", "/spec/containers/01", "/spec/containers/-1", "/a~2", "/~1~0", "x", "/metadata/managedFields",
    "/metadata/uid", "/spec/replicas", 1, None,
]  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


@st.composite
def spoiled(draw: st.DrawFn, obj: Object) -> Any:
    """The object, with odd values in some places, or without them."""
    obj = copy.deepcopy(obj)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(_places(obj)))
        if not place:
            continue
        parent: Any = obj
        for key in place[:-1]:
            parent = parent[key]
        match draw(st.integers(0, 4)):
            case 0:
                del parent[place[-1]]
            case 1:
                parent[place[-1]] = [parent[place[-1]]]
            case 2 if isinstance(parent, dict):
                parent[draw(st.sampled_from(["a", "", "x/y", "metadata", "$patch", "$setElementOrder/containers"]))] = 1
            case _:
                parent[place[-1]] = copy.deepcopy(draw(st.sampled_from(ODD)))
    return obj


_OPERATION = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "x", 1, None])},
    optional={
        "path": st.sampled_from(_POINTERS),
        "from": st.sampled_from(["", "/metadata", "/spec", "/x", 1]),
        "value": st.sampled_from(ODD),
    },
)


@st.composite
def torn(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes, a few of which are lost, changed or too many."""
    if not data or draw(st.integers(0, 7)) != 0:
        return data
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + draw(st.binary(max_size=4)) + data[at + draw(st.integers(0, 8)) :]


@st.composite
def requests(draw: st.DrawFn, kinds: list[Kind]) -> Request:
    """A request for a built-in kind, by an administrator."""
    kind = draw(st.sampled_from(kinds))
    version = draw(st.sampled_from([one.name for one in kind.versions]))
    obj = {**stage.example(kind.kind)} if kind.kind in stage.example_names() else {"metadata": {"name": "a"}}
    obj |= {"apiVersion": kind.api_version(version), "kind": kind.kind}
    root = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
    path = f"{root}/namespaces/default/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
    if kind.namespaced:
        obj["metadata"] = {**obj["metadata"], "namespace": "default"}
    method = draw(st.sampled_from(["POST", "POST", "PUT", "PATCH", "PATCH", "GET", "DELETE"]))
    if method in ("PUT", "PATCH") or draw(st.booleans()):
        path += f"/{obj['metadata'].get('name', 'a')}"
        if draw(st.integers(0, 9)) == 0:
            path += f"/{draw(st.sampled_from(SUBRESOURCES))}"
    elif method == "POST":
        path = path.removesuffix("/")
    media = f"application/{draw(st.sampled_from(PATCHES))}" if method == "PATCH" else draw(st.sampled_from(MEDIA))
    body: Any = draw(spoiled(obj))
    if "json-patch" in media:
        body = draw(st.one_of(st.lists(_OPERATION, max_size=4), st.sampled_from(ODD)))
    elif method == "DELETE":
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "preconditions": {}}
        body = draw(spoiled(options))
    data = b"" if method == "GET" else draw(torn(_encoded(body, media)))
    query = "&".join(draw(st.lists(st.sampled_from(PARAMETERS), max_size=2)))
    headers = [("content-type", media), ("accept", draw(st.sampled_from(ACCEPTED)))]
    return Request(method, path, query, headers, data)


def _encoded(body: Any, media: str) -> bytes:
    if "protobuf" in media:
        try:
            return protobuf.encode(body)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            pass  # what is wrong with it cannot be said in protobuf
    return json.dumps(body).encode()
