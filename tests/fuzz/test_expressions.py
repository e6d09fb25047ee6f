"""Any CEL expression compiles or says why not, and evaluates or says why not, for no more than it may cost."""

from __future__ import annotations

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]
from hypothesis import given
from hypothesis import strategies as st

from steersman.api import cel
from steersman.api.cel.types import DYN, INT, STRING, list_of, map_of, object_of
from tests.fuzz.expressions import EXPRESSIONS, SOUP
from tests.fuzz.test_requests import FUZZ

pytestmark = pytest.mark.slow
_FIELDS = {"x": INT, "s": STRING, "l": list_of(INT), "m": map_of(STRING, INT)}
_TYPES = {"self": object_of("object", _FIELDS.get), "o": DYN}
_VALUES = {"self": {"x": 3, "s": "hi", "l": [1, 2, 3], "m": {"a": 1}}, "o": {"a": {"b": [1, "x"]}, "n": None}}
_LIMIT = 10_000


@FUZZ
@given(st.one_of(EXPRESSIONS, EXPRESSIONS, SOUP, st.text(max_size=30)))
def test_any_expression_has_a_value_or_a_reason(source: str) -> None:
    try:
        program = cel.compile(source, _TYPES)
    except cel.CompileError as error:
        assert str(error)
        return
    assert program.estimate(_TYPES.get) >= 0
    try:
        _, cost = program.evaluate(_VALUES, limit=_LIMIT)
    except cel.CelError as error:
        assert str(error)
    else:
        assert cost <= _LIMIT
