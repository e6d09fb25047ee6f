"""Rules that kube-apiserver 1.36.3 takes or refuses, and its words for those: syntax, types, costs.

`recorded_rules.jsonl` holds a schema in its first line; every other line is a rule on it and the complaints, none where
the rule was taken. A complaint about the whole schema keeps its path.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api import rules

HEAD, *LINES = (Path(__file__).parent / "recorded_rules.jsonl").read_text().splitlines()
SCHEMA = json.loads(HEAD)["schema"]
CASES = [json.loads(line) for line in LINES]
TOP = "spec.validation.openAPIV3Schema"
_SHOWN = re.compile(r"^Invalid value: \{\"Rule.*?\"OptionalOldSelf\":\w+\}: ", re.DOTALL)


def complaints(rule: str) -> list[str]:
    """What is said of one rule."""
    spec = {**SCHEMA, rules.RULES: [{"rule": rule}]}
    _, found = rules.compile_rules({"type": "object", "properties": {"spec": spec}}, TOP)
    place = f"{TOP}.properties[spec].{rules.RULES}[0].rule"
    return [("" if each.field == place else f"{each.field} ") + _SHOWN.sub("", each.detail) for each in found]


@pytest.mark.parametrize("at", range(0, len(CASES), 20))
def test_the_same_is_said(at: int) -> None:
    wrong = [(rule, found, said) for rule, said in CASES[at : at + 20] if (found := complaints(rule)) != said]
    assert wrong == []


def test_there_are_good_and_bad_ones() -> None:
    assert sum(said == [] for _, said in CASES) > 100
    assert sum(said != [] for _, said in CASES) > 150
