"""Who a container's first process is."""

from __future__ import annotations

import pytest

from steersman.engine.interface import Security
from steersman.engine.runtime.users import User, resolve

PASSWD = """root:x:0:0:root:/root:/bin/sh
# a comment
broken line
web:x:1000:1001:Web:/srv:/bin/false
bad:x:notanumber:0::/:
"""
GROUP = "root:x:0:\nweb:x:1001:\nextra:x:50000:other,web\nshort:x\nops:x:77:web\n"


@pytest.mark.parametrize(
    ("security", "image", "expected"),
    [
        (Security(), "", User(0, 0, (0,), "/root")),
        (Security(), "web", User(1000, 1001, (1001, 50000, 77), "/srv")),
        (Security(), "web:ops", User(1000, 77, (77, 50000), "/srv")),
        (Security(), "1000:5", User(1000, 5, (5, 50000, 77), "/srv")),
        (Security(), "4242", User(4242, 0, (0,), "/")),
        (Security(run_as_user=4242), "web:ops", User(4242, 0, (0,), "/")),
        (Security(run_as_user=1000, run_as_group=9), "", User(1000, 9, (9, 50000, 77), "/srv")),
        (Security(username="web"), "root", User(1000, 1001, (1001, 50000, 77), "/srv")),
        (Security(supplemental_groups=(60, 50000)), "web", User(1000, 1001, (1001, 50000, 77, 60), "/srv")),
        (
            Security(supplemental_groups=(60,), supplemental_groups_policy="Strict"),
            "web",
            User(1000, 1001, (1001, 60), "/srv"),
        ),
    ],
)
def test_identity(security: Security, image: str, expected: User) -> None:
    assert resolve(security, image, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    ("security", "image", "message"),
    [
        (Security(), "nobody", "unable to find user nobody"),
        (Security(), "web:nogroup", "unable to find group nogroup"),
        (Security(run_as_user=2**32), "", "out of range"),
        (Security(run_as_group=-1), "", "out of range"),
        (Security(username="bad"), "", "unable to find user bad"),
    ],
)
def test_impossible_identities(security: Security, image: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(security, image, PASSWD, GROUP)
