"""The built-in kinds' schemas, release by release, as data.

Owns `Schemas`: the definitions of one Kubernetes release in OpenAPI v2's shape (with every `x-kubernetes-*` key), as
`scripts/build_schemas.py` compiled them. A `$ref` holds the bare name of another definition; `resolve` follows it.
Called by decoders, patches and OpenAPI documents. Reads the package's data files and nothing else; definitions are
shared, so callers must not change them.
"""

from __future__ import annotations

import functools
import importlib.util
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

Schema = Mapping[str, Any]

NEWEST = "1.37"
_DATA = Path(__file__).parent / "data"
_SCRIPT = Path(__file__).parents[3] / "scripts" / "build_schemas.py"


class UnknownRelease(LookupError):
    """There are no schemas for that release."""


class Schemas:
    """The definitions of one release, such as "1.37"."""

    def __init__(self, release: str, definitions: Mapping[str, Schema]) -> None:
        self.release = release
        self.definitions = definitions
        self._names = {
            (gvk["group"], gvk["version"], gvk["kind"]): name
            for name, schema in definitions.items()
            for gvk in schema.get("x-kubernetes-group-version-kind", ())
        }
        self._texts: Mapping[str, Mapping[str, str]] | None = None

    def name(self, group: str, version: str, kind: str) -> str | None:
        """The definition's name of a kind, None when this release has no such kind."""
        return self._names.get((group, version, kind))

    def of(self, group: str, version: str, kind: str) -> Schema:
        """The definition of a kind. Raises KeyError when this release has no such kind."""
        return self.definitions[self._names[group, version, kind]]

    def resolve(self, node: Schema) -> Schema:
        """`node`, or the definition that it refers to."""
        while "$ref" in node:
            node = self.definitions[node["$ref"]]
        return node

    def descriptions(self, name: str) -> Mapping[str, str]:
        """Texts of one definition by property; its own is under "". Loaded on first use (about 1.5 MB)."""
        if self._texts is None:
            self._texts = _read(f"{self.release}.doc.bin")
        return self._texts.get(name, {})

    def forget_descriptions(self) -> None:
        """Give the descriptions' memory back."""
        self._texts = None


@functools.lru_cache(maxsize=4)
def load(release: str = NEWEST) -> Schemas:
    """The schemas of a release; a source checkout compiles them on first use. Raises UnknownRelease."""
    if not release.replace(".", "").isdigit():
        raise UnknownRelease(f"{release!r} is not a Kubernetes release such as {NEWEST}")
    if not (_DATA / f"{release}.bin").exists():
        _compile(release)
    return Schemas(release, _read(f"{release}.bin"))


def releases() -> list[str]:
    """Every release that there are schemas for, oldest first."""
    if not any(_DATA.glob("*.bin")):
        _compile()
    found = {path.name.removesuffix(".bin") for path in _DATA.glob("*.bin") if ".doc" not in path.name}
    return sorted(found, key=number)


def number(release: str) -> tuple[int, int]:
    """A release as it can be compared: "1.36" is (1, 36)."""
    major, minor = release.split(".")
    return int(major), int(minor)


def _read(name: str) -> Any:
    return msgspec.json.decode(zlib.decompress((_DATA / name).read_bytes()))


def _compile(*chosen: str) -> None:
    """Run the build script of a source checkout."""
    spec = importlib.util.spec_from_file_location("build_schemas", _SCRIPT) if _SCRIPT.exists() else None
    if spec is None or spec.loader is None:
        have = ", ".join(releases()) if any(_DATA.glob("*.bin")) else "none"
        raise UnknownRelease(f"no schemas for Kubernetes {', '.join(chosen)}; this installation has {have}")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    try:
        script.build(chosen)
    except LookupError as error:
        raise UnknownRelease(str(error)) from None
