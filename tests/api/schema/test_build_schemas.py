"""The build script: what it writes is what the package reads, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import json
import zlib
from pathlib import Path
from types import ModuleType

import pytest

from steersman.api import schema


@pytest.fixture
def script(tmp_path: Path) -> ModuleType:
    path = Path(__file__).parents[3] / "scripts" / "build_schemas.py"
    spec = importlib.util.spec_from_file_location("build_schemas_under_test", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.DATA = tmp_path / "data"  # pyrefly: ignore
    return module


def test_what_is_written_is_what_is_read(script: ModuleType) -> None:
    written = script.build(["1.30"])
    assert [path.name for path in written] == ["1.30.doc.bin", "1.30.bin"]
    assert sorted(path.name for path in script.DATA.iterdir()) == ["1.30.bin", "1.30.doc.bin"]
    assert json.loads(zlib.decompress(written[1].read_bytes())) == schema.load("1.30").definitions


def test_a_release_that_is_not_there_is_named(script: ModuleType) -> None:
    with pytest.raises(LookupError, match=r"no schemas for release 9\.9; it has 1\.25"):
        script.build(["9.9"])


def test_a_missing_source_is_named(script: ModuleType) -> None:
    script.PACKAGE = "no-such-package-anywhere"  # pyrefly: ignore
    with pytest.raises(LookupError, match="no-such-package-anywhere is not installed"):
        script.build()


def test_nullable_types_and_oneof_are_undone(script: ModuleType) -> None:
    node = {"type": ["array", "null"], "items": {"$ref": "#/$defs/a.b", "type": ["string", "null"]}}
    assert script.restore(node) == {"type": "array", "items": {"$ref": "a.b", "type": "string"}}
    assert script.restore({"oneOf": []}, script.INT_OR_STRING)["format"] == "int-or-string"
