"""Good objects of most kinds, each broken in one place after another, and what kube-apiserver 1.36.3 said of each.

`recorded/objects.yaml` holds the objects; a line of `recorded/complaints.jsonl` is a case: which object, which path,
the value put there (`gone`, `is`, or `long`: so many letters, `<long>` in the answer), and the causes of the answer in
their order, none for an object that was accepted. A text that often ends the same is in two: its head and the number of
a detail, which the first line lists. Recorded by sending each with dryRun to that server. `recorded/updates.jsonl` has
such lines, without the first, of objects that were stored whole before and broken by an update.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from steersman.api.schema.body import GroupVersionKind, read
from tests.api.kinds import stage

HERE = Path(__file__).parent / "recorded"
OBJECTS: list[dict[str, Any]] = list(yaml.load_all((HERE / "objects.yaml").read_text(), yaml.CSafeLoader))
LINES = (HERE / "complaints.jsonl").read_text().splitlines()
LONG = 260
DETAILS = json.loads(LINES[0])["details"]


def complaints(obj: dict[str, Any], path: str, value: dict[str, Any]) -> list[str]:
    """What is said of `obj` with this value there."""
    return stage.create(_read(obj, path, value))


def changed(obj: dict[str, Any], path: str, value: dict[str, Any]) -> list[str]:
    """What is said of an update of `obj` to this value there."""
    old = stage.stored(_read(obj))
    return stage.repeated(_read(old, path, value), old)


def _read(obj: dict[str, Any], path: str = "", value: dict[str, Any] | None = None) -> dict[str, Any]:
    obj = copy.deepcopy(obj)
    if path:
        _put(obj, path.split("/"), value or {})
    metadata = obj.setdefault("metadata", {})
    if stage.kind_of(obj).namespaced:
        metadata.setdefault("namespace", "ns")  # which the path says
    group, _, version = obj["apiVersion"].rpartition("/")
    wanted = GroupVersionKind(group, version, obj["kind"])
    return read(stage.registry().decoders, wanted, msgspec.json.encode(obj)).obj


def _put(at: Any, path: list[str], value: dict[str, Any]) -> None:
    *above, last = path
    for part in above:
        at = at[int(part) if isinstance(at, list) else part]
    key = int(last) if isinstance(at, list) else last
    if "gone" in value:
        del at[key]
    else:
        at[key] = value["is"] if "is" in value else "a" * value["long"]


def _cases(lines: list[str]) -> dict[int, list[tuple[str, dict[str, Any], list[str]]]]:
    cases: dict[int, list[tuple[str, dict[str, Any], list[str]]]] = {}
    for line in lines:
        which, path, value, texts = json.loads(line)
        said = [text if isinstance(text, str) else f"{text[0]}: {DETAILS[text[1]]}" for text in texts]
        said = [text.replace("<long>", "a" * LONG) for text in said]
        cases.setdefault(which, []).append((path, value, said))
    return cases


CASES = _cases(LINES[1:])
UPDATES = _cases((HERE / "updates.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    "which", list(CASES), ids=[f"{OBJECTS[i]['kind']}-{OBJECTS[i]['metadata'].get('name')}" for i in CASES]
)
def test_the_same_is_said(which: int) -> None:
    wrong = [
        (path, value, found, said)
        for path, value, said in CASES[which]
        if (found := complaints(OBJECTS[which], path, value)) != said
    ]
    assert wrong == []


@pytest.mark.parametrize("which", list(UPDATES), ids=lambda i: f"{OBJECTS[i]['kind']}-{OBJECTS[i]['metadata']['name']}")
def test_the_same_is_said_of_updates(which: int) -> None:
    wrong = [
        (path, value, found, said)
        for path, value, said in UPDATES[which]
        if (found := changed(OBJECTS[which], path, value)) != said
    ]
    assert wrong == []


def test_there_are_good_and_bad_ones() -> None:
    assert sum(said == [] for cases in CASES.values() for _, _, said in cases) >= 40
    assert sum(said != [] for cases in CASES.values() for _, _, said in cases) >= 1000
