"""Stored objects, each changed in one or two places, and what kube-apiserver 1.36.3 made of each update.

A line of `recorded/stored.jsonl` is an object as that server had stored it; one of `recorded/changes.jsonl` is a case:
which object, through which subresource, the changes (a path and a value, as in `test_recorded.py`), and either the
causes of the refusal in their order and as often as they were given, or what of the stored object was different then.
A text is in parts where parts of it are frequent: its head, the number of a detail in the first line, and the lines
after that. Recorded by sending each with dryRun to that server; all admission that changes objects was off.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from steersman.api.schema.body import GroupVersionKind, read
from tests.api.kinds import stage

HERE = Path(__file__).parent / "recorded"
STORED: list[dict[str, Any]] = [json.loads(line) for line in (HERE / "stored.jsonl").read_text().splitlines()]
LINES = (HERE / "changes.jsonl").read_text().splitlines()
DETAILS = json.loads(LINES[0])["details"]

Change = tuple[str, dict[str, Any]]
Case = tuple[str, list[Change], Any]


def _put(at: Any, path: list[str], value: dict[str, Any]) -> None:
    *above, last = path
    for part in above:
        at = at[int(part) if isinstance(at, list) else part]
    key = int(last) if isinstance(at, list) else last
    if "gone" in value:
        del at[key]
    else:
        at[key] = copy.deepcopy(value["is"])


def _text(packed: Any) -> str:
    if isinstance(packed, str):
        return packed
    head, number, *more = packed
    return "\n".join([f"{head}: {DETAILS[number]}", *more])


def outcome(stored: dict[str, Any], subresource: str, changes: list[Change]) -> tuple[list[str], dict[str, Any]]:
    """The causes, and the object as it would be stored."""
    old = copy.deepcopy(stored)
    body = copy.deepcopy(stored)
    for path, value in changes:
        _put(body, path.split("/"), value)
    group, _, version = old["apiVersion"].rpartition("/")
    wanted = GroupVersionKind(group, version, old["kind"])
    new = read(stage.registry().decoders, wanted, msgspec.json.encode(body)).obj
    if "namespace" in old["metadata"]:
        new["metadata"]["namespace"] = old["metadata"]["namespace"]  # which the path says
    causes = stage.repeated(new, old, subresource)
    return causes, msgspec.json.decode(msgspec.json.encode(new))


def _expected(stored: dict[str, Any], differences: list[tuple[list[str], dict[str, Any]]]) -> dict[str, Any]:
    wanted = copy.deepcopy(stored)
    for path, value in differences:
        _put(wanted, path, value)
    return wanted


def _bare(obj: dict[str, Any]) -> dict[str, Any]:
    unlike = ("uid", "resourceVersion", "creationTimestamp", "managedFields")
    metadata = {key: value for key, value in obj["metadata"].items() if key not in unlike}
    return {**obj, "metadata": metadata}


def _cases() -> dict[int, list[Case]]:
    cases: dict[int, list[Case]] = {}
    for line in LINES[1:]:
        which, subresource, changes, found = json.loads(line)
        cases.setdefault(which, []).append((subresource, changes, found))
    return cases


CASES = _cases()


@pytest.mark.parametrize(
    "which", list(CASES), ids=[f"{STORED[i]['kind']}-{STORED[i]['metadata']['name']}" for i in CASES]
)
def test_updates_end_the_same(which: int) -> None:
    stored = STORED[which]
    wrong: list[Any] = []
    for subresource, changes, found in CASES[which]:
        causes, obj = outcome(stored, subresource, changes)
        if isinstance(found, list):
            said = [_text(each) for each in found]
            wrong += [] if causes == said else [(subresource, changes, causes, said)]
        elif causes or _bare(obj) != _bare(_expected(stored, found["stored"])):
            wrong.append((subresource, changes, causes, obj, found))
    assert wrong == []


def test_there_are_good_and_bad_ones() -> None:
    accepted = sum(isinstance(found, dict) for cases in CASES.values() for _, _, found in cases)
    assert accepted >= 500
    assert sum(map(len, CASES.values())) - accepted >= 1000
