"""The README's five minutes, command by command."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Steer
from tests.e2e.kubectl import binary

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]

README = Path(__file__).parents[2] / "README.md"


def test_the_tour_runs_as_written(
    make_steer: Callable[[], Steer], monkeypatch: pytest.MonkeyPatch, registry: str
) -> None:
    section = README.read_text().split("## Five minutes")[1].split("Images come from")[0]
    commands = re.findall(r"^    \./steer (.+)$", section, re.MULTILINE)
    assert len(commands) > 8
    monkeypatch.setenv("STEER_KUBECTL", str(binary("v37")))
    steer = make_steer()
    for command in commands:
        words = command.split()
        if words == ["up"]:
            words += ["--registry-mirror", f"http://{registry}"]
        steer(*[word.replace("--image=nginx", "--image=nginx:1.7.9") for word in words])
    assert not (steer.home / "profiles" / "steer").exists()
