"""ConfigMap: keys, size, and `immutable`.

Source: ValidateConfigMap and ValidateConfigMapUpdate in pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME
from steersman.api.validation import forbidden, invalid, too_long

MAX_SIZE = 1024 * 1024
"""Bytes of all values together."""
IMMUTABLE = "field is immutable when `immutable` is set"


def size(value: str) -> int:
    """Bytes of a text."""
    return len(value) if value.isascii() else len(value.encode())


def decoded_size(value: str) -> int:
    """Bytes behind a base64 text."""
    return len(value) * 3 // 4 - value.count("=", max(len(value) - 2, 0))


def default(config: Object) -> None:
    """Maps without entries are not written."""
    for key in ("data", "binaryData"):
        if key in config and not config[key]:
            del config[key]


def validate(config: Object) -> list[FieldError]:
    """Keys are file names, none is in both maps, and all is not too large."""
    data, binary = config.get("data") or {}, config.get("binaryData") or {}
    out: list[FieldError] = []
    for key in data:
        out += [invalid(f"data[{key}]", key, text) for text in names.config_key(key)]
        if key in binary:
            out.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
    for key in binary:
        out += [invalid(f"binaryData[{key}]", key, text) for text in names.config_key(key)]
    if sum(map(size, data.values())) + sum(map(decoded_size, binary.values())) > MAX_SIZE:
        out.append(too_long("[]", MAX_SIZE))
    return out


def unchanged(new: Object, old: Object, fields: Iterable[str]) -> list[FieldError]:
    """Once `immutable` is set, it and these fields stay as they are."""
    if not old.get("immutable"):
        return []
    out = [] if new.get("immutable") else [forbidden("immutable", IMMUTABLE)]
    return out + [forbidden(key, IMMUTABLE) for key in fields if (new.get(key) or {}) != (old.get(key) or {})]


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """What `immutable` protects."""
    return unchanged(new, old, ("data", "binaryData"))


def _count(config: Object, now: float) -> int:
    return len(config.get("data") or ()) + len(config.get("binaryData") or ())


CONFIGMAP = Behavior(
    "",
    "ConfigMap",
    order="munv",
    default=default,
    validate=validate,
    validate_update=validate_update,
    columns=(NAME, Column("Data", _count, "string"), AGE),
)
