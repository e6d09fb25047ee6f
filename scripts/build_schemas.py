"""Compile the schemas of every served release into `steersman/api/schema/data/`.

Owns the step from kubernetes-validate's JSON files (a build dependency, read and never imported) to the compact files
that the package ships: per release `<release>.bin` (structure) and `<release>.doc.bin` (descriptions, needed only by
`kubectl explain`), both zlib-compressed JSON. It undoes what that package changed: nullable types, enums on
apiVersion and kind, Quantity and IntOrString written as `oneOf`.

Runs as hatchling's build hook, as a script (`python scripts/build_schemas.py [RELEASE…]`), and from
`steersman.api.schema` when a source checkout has no data yet. Needs the standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = "kubernetes-validate"
DATA = Path(__file__).resolve().parent.parent / "steersman" / "api" / "schema" / "data"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
RESTORED = {
    QUANTITY: {"type": "string", "description": "A number with an optional suffix: 100m, 1.5, 128Mi, 1e3."},
    INT_OR_STRING: {"type": "string", "format": "int-or-string", "description": "A whole number, or a string."},
}


def sources() -> dict[str, Path]:
    """The JSON file of each release (`1.37`) in the installed kubernetes-validate. Raises PackageNotFoundError."""
    found = {}
    for file in metadata.files(PACKAGE) or ():
        if file.name == "_definitions.json" and file.parent.name.endswith("-local"):
            major, minor = file.parent.name.removeprefix("v").split(".")[:2]
            found[f"{major}.{minor}"] = Path(str(file.locate()))
    return found


def restore(node: dict[str, Any], name: str = "") -> dict[str, Any]:
    """The schema as Kubernetes publishes it; `$ref` is shortened to the bare name of the definition."""
    if name in RESTORED:
        return dict(RESTORED[name])
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key == "type" and isinstance(value, list):
            out[key] = next(item for item in value if item != "null")
        elif key == "$ref":
            out[key] = value.removeprefix("#/$defs/")
        elif key == "properties":
            out[key] = {prop: restore(schema) for prop, schema in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            out[key] = restore(value)
        else:
            out[key] = value
    if "x-kubernetes-group-version-kind" in out:
        for prop in ("apiVersion", "kind"):
            out.get("properties", {}).get(prop, {}).pop("enum", None)
    return out


def split(schema: dict[str, Any]) -> dict[str, str]:
    """Take the descriptions out of a definition, in place; returns them by property, the definition's own under ""."""
    texts = {"": schema.pop("description", "")}
    for prop, node in schema.get("properties", {}).items():
        texts[prop] = node.pop("description", "")
    return {prop: text for prop, text in texts.items() if text}


def compile_release(source: Path) -> tuple[bytes, bytes]:
    """(structure, descriptions) of one release, as written to disk."""
    definitions = json.loads(source.read_bytes())["$defs"]
    structure = {name: restore(schema, name) for name, schema in definitions.items()}
    texts = {name: split(schema) for name, schema in structure.items()}
    packed = [zlib.compress(json.dumps(part, separators=(",", ":")).encode(), 9) for part in (structure, texts)]
    return packed[0], packed[1]


def build(releases: Iterable[str] = ()) -> list[Path]:
    """Write the data files of `releases` (default: all there are). Raises LookupError when there is no source."""
    try:
        found = sources()
    except metadata.PackageNotFoundError:
        raise LookupError(f"{PACKAGE} is not installed: it holds the schemas that are compiled here") from None
    written = []
    DATA.mkdir(parents=True, exist_ok=True)
    for release in releases or found:
        if release not in found:
            raise LookupError(f"{PACKAGE} has no schemas for release {release}; it has {', '.join(sorted(found))}")
        structure, texts = compile_release(found[release])
        for name, content in ((f"{release}.doc.bin", texts), (f"{release}.bin", structure)):
            scratch = DATA / f".{name}.{os.getpid()}"
            scratch.write_bytes(content)
            written.append(scratch.replace(DATA / name))
    return written


if __name__ == "__main__":
    for path in build(sys.argv[1:]):
        print(path, path.stat().st_size)
else:
    try:
        from hatchling.builders.hooks.plugin.interface import BuildHookInterface
    except ImportError:
        pass
    else:

        class SchemaHook(BuildHookInterface):  # pyrefly: ignore
            """Hatchling's custom hook: the data files are there before the wheel is packed."""

            PLUGIN_NAME = "custom"

            def initialize(self, version: str, build_data: dict[str, Any]) -> None:
                """Compile everything. Called by hatchling."""
                build()
