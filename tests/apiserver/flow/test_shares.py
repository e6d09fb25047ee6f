"""Seats by shares, lending and borrowing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from steersman.api import flows
from steersman.apiserver.flow.retry import Drops
from steersman.apiserver.flow.shares import Wish, limits, shared_out


def test_the_servers_seats_by_share() -> None:
    found = limits({name: level["spec"] for name, level in flows.levels().items()}, 600)
    assert {name: one.nominal for name, one in found.items()} == {
        "system": 74,
        "node-high": 98,
        "leader-election": 25,
        "workload-high": 98,
        "workload-low": 245,
        "global-default": 49,
        "catch-all": 13,
        "exempt": 0,
    }
    assert (found["workload-low"].least, found["workload-low"].most) == (24, 845)


def test_who_may_borrow_a_part_only() -> None:
    spec = {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "borrowingLimitPercent": 50}}
    assert limits({"a": spec}, 10)["a"].most == 15


def test_a_quiet_level_lends_to_a_busy_one() -> None:
    quiet, busy = Wish(10, 10, 1000), Wish(90, 20, 1000)
    assert shared_out([quiet, busy], 100) == [10, 90]


@given(
    st.lists(
        st.tuples(st.floats(0, 1000), st.integers(0, 50), st.integers(0, 500)).map(
            lambda one: Wish(one[0], one[1], one[1] + one[2])
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 600),
)
def test_everybody_stays_within_their_bounds(wishes: list[Wish], seats: int) -> None:
    given_out = shared_out(wishes, seats)
    assert all(one.least <= got <= one.most for one, got in zip(wishes, given_out, strict=True))
    least, most = sum(one.least for one in wishes), sum(one.most for one in wishes)
    if least <= seats <= most:
        assert abs(sum(given_out) - seats) <= len(wishes)


def test_the_more_are_turned_away_the_later_they_may_come() -> None:
    drops = Drops()
    seconds = []
    for second in range(1, 80):
        for _ in range(100):
            drops.note(second)
        seconds.append(drops.seconds)
    assert seconds[0] == 1
    assert seconds[-1] == 32
    for second in range(200, 400, 50):
        drops.note(second)
    assert drops.seconds < 32
