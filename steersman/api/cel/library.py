"""Every function of the language: the table that the checker, the estimate and the evaluator look names up in."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from steersman.api.cel import authz, collections, networks, operators, quantities, strings, texts
from steersman.api.cel.functions import Overload


@cache
def all_overloads() -> dict[tuple[str, bool], list[Overload]]:
    """Every overload by name and whether it is a method."""
    found: dict[tuple[str, bool], list[Overload]] = {}
    tables: Iterable[list[Overload]] = (
        operators.TABLE,
        collections.TABLE,
        strings.TABLE,
        texts.TABLE,
        networks.TABLE,
        quantities.TABLE,
        authz.TABLE,
    )
    for table in tables:
        for each in table:
            found.setdefault((each.name, each.signature.member), []).append(each)
    return found
