"""What rules may cost at worst, as apiextensions-apiserver 1.36 estimates it.

recorded_costs.jsonl has a schema, then rules with their costs (null: does not compile), some with a messageExpression
and its cost.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steersman.api import cel
from steersman.api.cel import schemas

_LINES = [json.loads(line) for line in Path(__file__).with_name("recorded_costs.jsonl").read_text().splitlines()]
_SELF = schemas.type_of(_LINES[0]["schema"], root=True)


def cost(source: str) -> int | None:
    try:
        return cel.compile(source, {"self": _SELF, "oldSelf": _SELF}).estimate(lambda _: _SELF)
    except cel.CompileError:
        return None


@pytest.mark.parametrize("line", _LINES[1:], ids=lambda line: line[0][:40])
def test_a_rule_is_priced_as_the_original_prices_it(line: list[Any]) -> None:
    rule, wanted, *message = line
    assert cost(rule) == wanted
    if message:
        assert cost(message[0]) == message[1]


def test_a_path_that_begins_in_a_value_counts_as_the_root() -> None:
    """A quirk of the original's: what a literal holds is as large as `self`."""
    list_of_five = schemas.type_of({"type": "array", "maxItems": 5, "items": {"type": "integer"}})
    program = cel.compile("[true, false].filter(x, x == true).size() == 1", {"self": list_of_five})
    assert program.estimate(lambda _: list_of_five) == program.estimate(lambda _: _SELF) + 2
