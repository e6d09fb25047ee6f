"""Expressions of admission policies that kube-apiserver 1.36.3 takes or refuses, and its words for those.

A line of `recorded_policies.jsonl` is an expression, and what was said of it at each place where policies have one,
none where it was taken: V of a validation, VP its message, VA an audit annotation, VV a variable, VM a match condition,
MA what a mutation applies, MJ its patches.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api import policies

LINES = (Path(__file__).parent / "recorded_policies.jsonl").read_text().splitlines()
CASES = [
    (place, source, said)
    for source, answers in map(json.loads, LINES)
    for places, said in answers.items()
    for place in places.split()
]
_SHOWN = re.compile(r'^Invalid value: "(?:[^"\\]|\\.)*": ')
_PARAMETERS = {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}


def complaints(place: str, source: str) -> list[str]:
    """What is said of an expression at a place."""
    made = {
        "V": {"validations": [{"expression": source}]},
        "VP": {**_PARAMETERS, "validations": [{"expression": "true", "messageExpression": source}]},
        "VA": {"auditAnnotations": [{"key": "a", "valueExpression": source}]},
        "VV": {"validations": [{"expression": "true"}], "variables": [{"name": "v", "expression": source}]},
        "VM": {"validations": [{"expression": "true"}], "matchConditions": [{"name": "v", "expression": source}]},
        "MA": {"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": source}}]},
        "MJ": {"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": source}}]},
    }
    spec: dict[str, Any] = {"variables": [{"name": "foo", "expression": "1"}]}
    if place[0] == "V":
        spec["variables"].append({"name": "bad", "expression": "object.x"})
    check = policies.check_policy if place[0] == "V" else policies.check_mutations
    found = check({"metadata": {"name": "cel"}, "spec": spec | made[place]})
    return [_SHOWN.sub("", each.detail) for each in found]


@pytest.mark.parametrize("at", range(0, len(CASES), 100))
def test_the_same_is_said(at: int) -> None:
    cases = CASES[at : at + 100]
    wrong = [(*case, found, said) for *case, said in cases if (found := complaints(*case)) != said]
    assert wrong == []


def test_there_are_good_and_bad_ones() -> None:
    assert sum(said == [] for *_, said in CASES) > 500
    assert sum(said != [] for *_, said in CASES) > 1500
