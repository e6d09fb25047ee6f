from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from steersman.lib.clock import rfc3339_micro


@given(st.floats(0, 4e9))
@example(1.9999999)
@example(1763712345.9999995)
def test_microseconds_are_those_of_the_standard_library(unix: float) -> None:
    assert rfc3339_micro(unix) == f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
