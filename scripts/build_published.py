"""Derive `steersman/api/schema/published.txt` from the OpenAPI documents of a kube-apiserver.

Which values a field may have, and what stands for a field that is left out, are facts of the API that the schemas of
kubernetes-validate do not carry. Run when a new release is served, with a folder that holds the documents below
/openapi/v3 of a kube-apiserver started with --runtime-config=api/all=true:

    python scripts/build_published.py FOLDER

The output's format, and the rule that most defaults follow, are in `steersman/api/published.py`.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steersman.api import published, schema

OUT = Path(published.__file__).parent / "schema" / "published.txt"
HEAD = "# Made by scripts/build_published.py from kube-apiserver's OpenAPI documents; the format is published.py's.\n"


def definitions(folder: Path) -> dict[str, Any]:
    """Every definition of the documents in a folder."""
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.json")):
        found |= json.loads(file.read_bytes()).get("components", {}).get("schemas", {})
    return found


def facts(name: str, theirs: dict[str, Any], ours: schema.Schema) -> Iterator[tuple[str, str]]:
    """(what is so, where) for all that no rule says."""
    required = ours.get("required", ())
    for prop, node in theirs.get("properties", {}).items():
        yield from _of_node(f"{published.short(name)}.{prop}", node, ours["properties"][prop], prop in required)


def _of_node(
    where: str, node: dict[str, Any], ours: schema.Schema, required: bool, inner: bool = False
) -> Iterator[tuple[str, str]]:
    if "enum" in node:
        yield f"enum {json.dumps(node['enum'])}", where
    usual = published.usual(ours, inner=inner, required=required, metadata=where.endswith(".metadata"))
    if node.get("default") != usual:
        yield f"default {json.dumps(node.get('default'))}", where
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from _of_node(f"{where}/", node[key], ours[key], required=False, inner=True)


def _stability(name: str) -> tuple[bool, bool, str]:
    version = name.split(".")[-2]
    return "alpha" in version, "beta" in version, name


def main(folder: Path) -> None:
    """Write the file."""
    schemas = schema.load("1.36")
    places: dict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    theirs = definitions(folder)
    for name in sorted(theirs, key=_stability):  # what versions do not agree about is as in the stablest
        if name in schemas.definitions and published.short(name) not in seen:
            seen.add(published.short(name))
            for what, where in facts(name, theirs[name], schemas.definitions[name]):
                places[what].append(where)
    with OUT.open("w") as out:
        out.write(HEAD)
        for what in sorted(places):
            out.write(f"{what}\n")
            lines = textwrap.wrap(" ".join(sorted(places[what])), 118, break_long_words=False, break_on_hyphens=False)
            out.writelines(f" {line}\n" for line in lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
