from __future__ import annotations

from steersman.proxy.conntrack import Flow, changed, stale, targets
from steersman.proxy.model import ANY, Backend, Frontend, Masquerade

VIP, NODE = ("10.96.0.7", 53), (ANY, 30053)
ONE, TWO = ("10.244.0.5", 53), ("10.244.0.6", 53)


def test_targets_are_those_of_udp() -> None:
    backends = (Backend(*ONE), Backend(*TWO))
    found = targets(
        [
            Frontend(*(VIP[0], "udp", VIP[1]), backends, Masquerade.CLUSTER),
            Frontend(*(VIP[0], "tcp", 80), backends, Masquerade.CLUSTER),
            Frontend(ANY, "udp", 30053, backends[:1], Masquerade.CLUSTER),
            Frontend(ANY, "udp", 30053, backends[1:], Masquerade.NEVER, outside=True),
        ]
    )
    assert found == {VIP: {ONE, TWO}, NODE: {ONE, TWO}}


def test_only_what_lost_an_endpoint_or_has_its_first_is_looked_at() -> None:
    one, both, none = frozenset({ONE}), frozenset({ONE, TWO}), frozenset[tuple[str, int]]()
    assert changed({}, {VIP: one}) == {VIP: one}
    assert changed({VIP: none}, {VIP: one}) == {VIP: one}
    assert changed({VIP: one}, {VIP: both}) == {}
    assert changed({VIP: both}, {VIP: one}) == {VIP: one}
    assert changed({VIP: one}, {}) == {VIP: none}


def test_stale_flows() -> None:
    flows = [
        Flow(VIP, ONE, b"gone"),
        Flow(VIP, TWO, b"right"),
        Flow(VIP, VIP, b"not translated"),
        Flow(("192.0.2.1", 30053), ONE, b"node port"),
        Flow(("192.0.2.9", 30053), ("192.0.2.9", 30053), b"a stranger's port"),
        Flow(("192.0.2.9", 53), ONE, b"another's"),
    ]
    now = {VIP: frozenset({TWO}), NODE: frozenset({TWO})}
    assert [flow.handle for flow in stale(flows, now)] == [b"gone", b"not translated", b"node port"]
