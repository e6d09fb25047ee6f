from __future__ import annotations

from pathlib import Path

import pytest

from steersman.api import quantity
from steersman.api.resource import PODS
from steersman.kubelet import machine
from steersman.kubelet.logrotation import LogRotation
from steersman.kubelet.mounts import mounted_under

from .pods import pod
from .virtual import virtual
from .world import World


def test_this_machine_has_a_size_and_a_name(tmp_path: Path) -> None:
    found = machine.capacity(tmp_path / "not/there/yet", 7)
    assert quantity.whole(found["cpu"]) >= 1
    assert quantity.whole(found["memory"]) > 100 << 20
    assert found["pods"] == "7"
    assert machine.node_info()["kernelVersion"]
    assert machine.main_address().count(".") == 3


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('NAME="x"\nPRETTY_NAME="Debian 12"\n', "Debian 12"),
        ("PRETTY_NAME='A'", "A"),
        ("", "Linux"),
        ("=\x00=", "Linux"),
    ],
)
def test_names_of_systems(text: str, wanted: str) -> None:
    assert machine.os_image(text) == wanted


def test_mounts_are_listed_deepest_first() -> None:
    everything = mounted_under("/")
    assert everything[-1] == "/" and "/proc" in everything


@virtual
async def test_large_logs_are_put_aside_and_the_oldest_dropped(world: World) -> None:
    async with world.kubelet() as kubelet:
        world.api.put(PODS, pod())
        await world.until_phase("web", "Running")
        path = Path(kubelet.log_path("default", "web", "main"))
        path.parent.mkdir(parents=True)
        rotation = LogRotation(world.runtime, world.clock, max_bytes=10, max_files=3)
        for number in range(5):
            path.write_text(f"{number} is more than ten bytes")
            await rotation.look()
            await world.clock.sleep(1)
        path.write_text("small")
        await rotation.look()
        names = sorted(each.name for each in path.parent.iterdir())
        assert len(names) == 3 and names[0] == "0.log"
        assert [(path.parent / each).read_text()[0] for each in names] == ["s", "3", "4"]
