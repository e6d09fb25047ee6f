"""docs/compatibility.md says only what tests show, and README only what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from steersman.cli import COMMANDS

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "compatibility.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| Feature", "| Client"))
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_row_names_tests_that_exist_or_says_absent(row: list[str]) -> None:
    named = re.findall(r"`(tests/[^`]+)`", row[2])
    if named:
        assert all((ROOT / path).exists() for path in named)
    else:
        assert re.search(r"absent|partial|nothing queues", row[1])


def test_the_conformance_count_is_stated() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text()
    found = re.search(r"\*\*(\d+) of 446\*\*", text)
    assert found is not None
    assert 0 < int(found[1]) <= 446


def test_readme_shows_commands_that_exist() -> None:
    words = re.findall(r"\./steer ([a-z]+)", (ROOT / "README.md").read_text())
    known = {name for names in ((name, *aliases) for name, aliases, _ in COMMANDS) for name in names} | {"test"}
    assert set(words) <= known


def test_architecture_is_short() -> None:
    assert (ROOT / "docs" / "ARCHITECTURE.md").read_text().count("\n") < 200


def test_nothing_names_this_machine() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("steersman/**/*.py")]:
        assert f"{ROOT}/" not in path.read_text(), path
