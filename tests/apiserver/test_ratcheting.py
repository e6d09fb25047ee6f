"""Changes to custom objects that were wrong when their schema was narrowed, as kube-apiserver 1.36.3 answered them.

`recorded_ratcheting.jsonl` holds the schema, the specs as they were stored and all texts in its first line; every other
line is a case: which spec, the path of what changes, the value put there (or that it is gone), and by their numbers the
causes and the warnings, sorted.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api import customparts, rules, structural
from steersman.api.correlation import Correlated

HEAD, *LINES = (Path(__file__).parent / "recorded_ratcheting.jsonl").read_text().splitlines()
GIVEN = json.loads(HEAD)
CASES = [json.loads(line) for line in LINES]
LEVEL = rules.compile_rules(GIVEN["schema"])[0]


def _object(spec: Any) -> dict[str, Any]:
    return {"apiVersion": "r.example.com/v1", "kind": "Rat", "metadata": {"name": "a"}, "spec": copy.deepcopy(spec)}


def _changed(spec: Any, path: str, value: dict[str, Any]) -> Any:
    spec = copy.deepcopy(spec)
    if not path:
        return spec
    *above, last = path.split("/")
    at: Any = spec
    for part in above:
        at = at[int(part) if isinstance(at, list) else part]
    key = int(last) if isinstance(at, list) else last
    if "gone" in value:
        del at[key]
    else:
        at[key] = copy.deepcopy(value["is"])
    return spec


def said(new: dict[str, Any], old: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Complaints and warnings about a change, as the server puts them together."""
    schema = GIVEN["schema"]
    warnings = [f'unknown field "{path}"' for path in structural.prune(new, schema)]
    structural.default(new, schema)
    was = Correlated(new, old, schema)
    found = structural.check(new, schema, was=was)
    found += [] if structural.check_lists(old, schema) else structural.check_lists(new, schema)
    more = customparts.unchecked(found)
    if not more:
        more, noted = rules.check_object(LEVEL, new, old, was)
        warnings += noted
    return sorted(map(str, [*found, *more])), sorted(warnings)


@pytest.mark.parametrize("which", sorted(GIVEN["before"]))
def test_the_same_is_said(which: str) -> None:
    texts, before = GIVEN["texts"], GIVEN["before"][which]
    wrong = []
    for name, path, value, causes, warnings in CASES:
        if name != which:
            continue
        found = said(_object(_changed(before, path, value)), _object(before))
        wanted = (sorted(texts[at] for at in causes), sorted(texts[at] for at in warnings))
        if found != wanted:
            wrong.append((path, value, found, wanted))
    assert wrong == []


def test_there_are_good_and_bad_ones() -> None:
    assert sum(not causes for *_, causes, _ in CASES) > 40
    assert sum(bool(causes) for *_, causes, _ in CASES) > 100
    assert sum(bool(warnings) for *_, warnings in CASES) > 50
