"""Field numbers of the Kubernetes protobuf messages, as data.

Owns the reading of `fields.txt`, which `scripts/build_protobuf_table.py` derives: a line `[apps/v1]` starts a section
(an apiVersion, or `meta` for metav1), any other line is a message and its fields. A field is
`<JSON name>=<number><type>[;<flags>]`.

    types   s string, b bool, i integer, d float64, x bytes, T Time, U MicroTime, D Duration, Q Quantity,
            O IntOrString, R JSON text in `raw`, A B C JSONSchemaPropsOr{Array,Bool,StringArray},
            @Name a message (of the same section) or @section:Name, *type a list, %type a map with text keys
    name ^  an inlined message: its fields stand in the parent's JSON object
    flags   ? pointer, ~ omitempty, 0 omitzero (of the Go field)

Messages are parsed when first asked for. Source of the facts: Kubernetes' API types (Apache-2.0).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

_FIELD = re.compile(r"(?P<name>[^=]+)=(?P<number>\d+)(?P<many>[*%]?)(?P<type>[a-zA-Z]|@[^;]+)(?:;(?P<flags>.*))?")


class Field(NamedTuple):
    """One field. `type` is one letter, `@` for a message, whose name is `message` (section:Name)."""

    name: str
    number: int
    type: str
    message: str
    many: str
    inline: bool
    drop_zero: bool
    omitted: bool = False
    pointer: bool = False


class Message(NamedTuple):
    """One message: its fields by number, in order of number, and in the order that Go declares them in."""

    name: str
    by_number: dict[int, Field]
    fields: tuple[Field, ...]
    declared: tuple[Field, ...]


class Table:
    """All messages, by `section:Name`."""

    def __init__(self, text: str) -> None:
        self._lines: dict[str, str] = {}
        self._messages: dict[str, Message] = {}
        section = ""
        for line in text.splitlines():
            if line.startswith("["):
                section = line[1:-1]
            else:
                name, _, fields = line.partition(" ")
                self._lines[f"{section}:{name}"] = fields

    def find(self, api_version: str, kind: str) -> Message | None:
        """The message of a kind; those of metav1 (Status, DeleteOptions…) exist in every apiVersion."""
        for name in (f"{api_version}:{kind}", f"meta:{kind}"):
            if name in self._lines:
                return self.message(name)
        return None

    def message(self, name: str) -> Message:
        """The message of that full name. Raises KeyError."""
        found = self._messages.get(name)
        if found is None:
            section = name.partition(":")[0]
            declared = tuple(_field(section, text) for text in self._lines[name].split())
            fields = tuple(sorted(declared, key=lambda field: field.number))
            found = self._messages[name] = Message(name, {field.number: field for field in fields}, fields, declared)
        return found


def _field(section: str, text: str) -> Field:
    match = _FIELD.fullmatch(text)
    if match is None:
        raise ValueError(f"bad field in the protobuf table: {text}")
    kind, flags = match["type"], match["flags"] or ""
    message = kind[1:] if ":" in kind else f"{section}:{kind[1:]}" if kind[0] == "@" else ""
    drop_zero = "?" not in flags and ("0" in flags or ("~" in flags and kind[0] not in "@QRO"))  # as Go: not structs
    inline, omitted = match["name"] == "^", "~" in flags
    number, many = int(match["number"]), match["many"]
    return Field(match["name"], number, kind[0], message, many, inline, drop_zero, omitted, "?" in flags)


@cache
def table() -> Table:
    """The table that comes with the package."""
    return Table((Path(__file__).parent / "fields.txt").read_text())
