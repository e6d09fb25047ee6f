"""Structural schemas of custom resources: pruning, defaulting and validation of plain JSON.

Owns what a CustomResourceDefinition's `openAPIV3Schema` means for an object. Called through the `Kind` that a
definition becomes. Pure. Source: apiextensions-apiserver's pkg/apiserver/schema (pruning, defaulting) and validation;
the texts of kube-openapi's validation errors.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from steersman.api import formats
from steersman.api.cel.operators import regex
from steersman.api.cel.syntax import CelError
from steersman.api.errors import FieldError
from steersman.api.validation import invalid, not_supported, required, show

Schema = Mapping[str, Any]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED = "x-kubernetes-embedded-resource"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_META = ("apiVersion", "kind", "metadata")
_OBJECT_META = frozenset(
    {
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


def prune(value: Any, schema: Schema, path: str = "", *, root: bool = True) -> list[str]:
    """Remove fields that the schema does not know, in place; returns their paths."""
    if isinstance(value, list):
        items = schema.get("items")
        found: list[str] = []
        for at, item in enumerate(value if isinstance(items, dict) else ()):
            found += prune(item, items or {}, f"{path}[{at}]", root=False)
        return found
    if not isinstance(value, dict):
        return []
    properties = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    keeps = bool(schema.get(_PRESERVE))
    meta = root or bool(schema.get(_EMBEDDED))
    found = []
    for key in list(value):
        here = f"{path}.{key}" if path else key
        if meta and key in _META:
            if key == "metadata" and isinstance(value[key], dict):
                strange = [name for name in value[key] if name not in _OBJECT_META]
                for name in strange:
                    del value[key][name]
                found += [f"{here}.{name}" for name in strange]
            continue
        if key in properties:
            found += prune(value[key], properties[key], here, root=False)
        elif isinstance(extra, dict):
            found += prune(value[key], extra, here, root=False)
        elif not keeps and not extra:
            del value[key]
            found.append(here)
    return found


def default(value: Any, schema: Schema) -> None:
    """Fill in defaults, in place. A null where null is not allowed is as if it was not there."""
    if isinstance(value, list):
        for item in value:
            default(item, schema.get("items") or {})
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties") or {}
    for key, node in properties.items():
        if "default" in node and (key not in value or (value[key] is None and not node.get("nullable"))):
            value[key] = copy.deepcopy(node["default"])
        if key in value:
            default(value[key], node)
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        for key, item in value.items():
            if key not in properties:
                default(item, extra)


def validate(value: Any, schema: Schema, path: str = "", *, root: bool = True) -> list[FieldError]:
    """Complaints about a value. At the root apiVersion, kind and metadata are not looked at."""
    if value is None and (schema.get("nullable") or not schema.get("type")):
        return []
    if schema.get(_INT_OR_STRING):
        if not isinstance(value, int | str) or isinstance(value, bool):
            return [_type_error(value, path, "integer,string")]
        return _common(value, schema, path)
    wanted = schema.get("type")
    if wanted and not _is(value, wanted):
        return [_type_error(value, path, wanted)]
    found = _common(value, schema, path)
    if isinstance(value, dict):
        found += _object(value, schema, path, root=root)
    elif isinstance(value, list):
        found += _array(value, schema, path)
    elif isinstance(value, str):
        found += _string(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found += _number(value, schema, path)
    return found


def ratchet(found: list[FieldError], new: Any, old: Any) -> list[FieldError]:
    """Complaints less those about what an update leaves as it was (KEP-4008); a list is left as a whole."""
    return [each for each in found if not _unchanged(each.field, new, old)]


def _unchanged(path: str, new: Any, old: Any) -> bool:
    for part in path.split("."):
        name = part.partition("[")[0]
        if not isinstance(new, dict) or not isinstance(old, dict) or name not in new or name not in old:
            return False
        new, old = new[name], old[name]
        if new == old:
            return True
        if name != part:
            return False
    return False


def _is(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(wanted, (object,)))


def _name(value: Any) -> str:
    for name in ("boolean", "integer", "number", "string", "array", "object"):
        if _is(value, name):
            return name
    return "null"


def _complain(value: Any, path: str, text: str) -> FieldError:
    shown = f'"{value}"' if isinstance(value, str) else ("null" if value is None else str(value))
    if isinstance(value, bool):
        shown = str(value).lower()
    elif isinstance(value, (dict, list)):
        shown = _compact(value)
    return FieldError("FieldValueInvalid", path or "<nil>", f"Invalid value: {shown}: {path} in body {text}", value)


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _type_error(value: Any, path: str, wanted: str) -> FieldError:
    found = _name(value)
    text = f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
    return FieldError("FieldValueTypeInvalid", path or "<nil>", text, value)


def _common(value: Any, schema: Schema, path: str) -> list[FieldError]:
    found: list[FieldError] = []
    choices = schema.get("enum")
    if choices is not None and value not in choices:
        found.append(not_supported(path, value, [str(choice) for choice in choices]))
    for part in schema.get("allOf") or ():
        found += validate(value, part, path, root=False)
    if (options := schema.get("anyOf")) and all(validate(value, option, path, root=False) for option in options):
        found.append(_complain(value, path, "must validate at least one schema (anyOf)"))
    if options := schema.get("oneOf"):
        good = sum(not validate(value, option, path, root=False) for option in options)
        if good != 1:
            tail = "Found none valid" if not good else f"Found {good} valid alternatives"
            found.append(_complain(value, path, f"must validate one and only one schema (oneOf). {tail}"))
    if (never := schema.get("not")) and not validate(value, never, path, root=False):
        found.append(_complain(value, path, "must not validate the schema (not)"))
    return found


def _object(value: dict[str, Any], schema: Schema, path: str, *, root: bool) -> list[FieldError]:
    missing = [key for key in schema.get("required") or () if key not in value]
    found = [required(f"{path}.{key}" if path else key) for key in missing]
    least, most = schema.get("minProperties"), schema.get("maxProperties")
    if least is not None and len(value) < least:
        found.append(_complain(value, path, f"should have at least {least} properties"))
    if most is not None and len(value) > most:
        text = f"Too many: {len(value)}: must have at most {most} items"
        found.append(FieldError("FieldValueTooMany", path, text, len(value)))
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    skip = _META if root or schema.get(_EMBEDDED) else ()
    for key, item in value.items():
        here = f"{path}.{key}" if path else key
        if key in skip:
            continue
        if key in properties:
            found += validate(item, properties[key], here, root=False)
        elif isinstance(extra, dict):
            found += validate(item, extra, f"{path}.{key}" if path else key, root=False)
    return found


def _array(value: Sequence[Any], schema: Schema, path: str) -> list[FieldError]:
    found: list[FieldError] = []
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is not None and len(value) < least:
        found.append(_complain(value, path, f"should have at least {least} items"))
    if most is not None and len(value) > most:
        text = f"Too many: {len(value)}: must have at most {most} items"
        found.append(FieldError("FieldValueTooMany", path, text, len(value)))
    items = schema.get("items")
    if isinstance(items, dict):
        for at, item in enumerate(value):
            found += validate(item, items, f"{path}[{at}]", root=False)
    found += _unique(value, schema, path)
    return found


def _unique(value: Sequence[Any], schema: Schema, path: str) -> list[FieldError]:
    """Sets hold an item once, maps a key once."""
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or ()
    seen: set[bytes] = set()
    found: list[FieldError] = []
    for at, item in enumerate(value if kind in ("set", "map") else ()):
        key = item if kind == "set" else {name: item.get(name) for name in keys if isinstance(item, dict)}
        told = msgspec.json.encode(key, order="deterministic")
        if told in seen:
            text = f"Duplicate value: {_compact(key)}"
            found.append(FieldError("FieldValueDuplicate", f"{path}[{at}]", text, key))
        seen.add(told)
    return found


def _string(value: str, schema: Schema, path: str) -> list[FieldError]:
    """What is wrong with the text first, and its format."""
    found: list[FieldError] = []
    least, most, pattern = schema.get("minLength"), schema.get("maxLength"), schema.get("pattern")
    if most is not None and len(value) > most:
        text = f"Too long: may not be more than {most} bytes"
        found.append(FieldError("FieldValueTooLong", path, text, value))
    elif least is not None and len(value) < least:
        found.append(_complain(value, path, f"should be at least {least} chars long"))
    elif pattern and not _pattern(pattern).search(value):
        found.append(_complain(value, path, f"should match '{pattern}'"))
    if (wanted := schema.get("format")) and not formats.has(value, wanted):
        shown = show(value)
        text = f"Invalid value: {shown}: {path} in body must be of type {wanted}: {shown}"
        found.append(FieldError("FieldValueTypeInvalid", path or "<nil>", text, value))
    return found


@lru_cache(maxsize=1024)
def _pattern(text: str) -> Any:
    """A Go (RE2) pattern, which no text can make slow; one that is stored and cannot be read matches everything."""
    try:
        return regex(text)
    except CelError:
        return regex("")


def check_patterns(schema: Schema, path: str) -> list[FieldError]:
    """Complaints about the patterns of a schema that is written."""
    found: list[FieldError] = []
    if isinstance(text := schema.get("pattern"), str):
        try:
            regex(text)
        except CelError as error:
            why = f"must be a valid regular expression, but isn't: {error}"
            found.append(invalid(f"{path}.pattern", text, why))
    for name, each in (schema.get("properties") or {}).items():
        found += check_patterns(each, f"{path}.properties[{name}]")
    for key in ("items", "additionalProperties", "not"):
        if isinstance(inner := schema.get(key), dict):
            found += check_patterns(inner, f"{path}.{key}")
    for key in ("allOf", "anyOf", "oneOf"):
        for at, each in enumerate(schema.get(key) or ()):
            found += check_patterns(each, f"{path}.{key}[{at}]")
    return found


def _number(value: float, schema: Schema, path: str) -> list[FieldError]:
    found: list[FieldError] = []
    least, most, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
    kind, wanted = schema.get("type"), schema.get("format") or ""
    if kind and not formats.fits(value, wanted):
        text = f'Invalid value: "": Checked value must be of type {kind} with format {wanted} in {path}'
        found.append(FieldError("FieldValueInvalid", "<nil>", text, ""))
    if least is not None and (value < least or (schema.get("exclusiveMinimum") and value == least)):
        equal = "" if schema.get("exclusiveMinimum") else " or equal to"
        found.append(_complain(value, path, f"should be greater than{equal} {least}"))
    if most is not None and (value > most or (schema.get("exclusiveMaximum") and value == most)):
        equal = "" if schema.get("exclusiveMaximum") else " or equal to"
        found.append(_complain(value, path, f"should be less than{equal} {most}"))
    if step and (value / step) % 1:
        found.append(_complain(value, path, f"should be a multiple of {step}"))
    return found
