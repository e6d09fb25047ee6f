"""Structural schemas of custom resources: pruning, defaulting and validation of plain JSON.

Owns what a CustomResourceDefinition's `openAPIV3Schema` means for an object. Called through the `Kind` that a
definition becomes. Pure. Source: apiextensions-apiserver's pkg/apiserver/schema (pruning, defaulting) and validation;
the texts of kube-openapi's validation errors.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any

import msgspec

from steersman.api import formats
from steersman.api.cel.operators import regex
from steersman.api.cel.syntax import CelError
from steersman.api.correlation import Correlated
from steersman.api.errors import FieldError
from steersman.api.validation import duplicate, invalid, not_supported, required, show, too_long, too_many

Schema = Mapping[str, Any]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED = "x-kubernetes-embedded-resource"
_TYPES = ("", "array", "boolean", "integer", "number", "object", "string")
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


def prune(value: Any, schema: Schema, path: str = "", *, root: bool = True) -> list[str]:
    """Remove fields that the schema does not know, in place; returns their paths."""
    if isinstance(value, list):
        items = schema.get("items")
        known = isinstance(items, dict) or not schema.get(_PRESERVE)
        found: list[str] = []
        for at, item in enumerate(value if known else ()):
            found += prune(item, items if isinstance(items, dict) else {}, f"{path}[{at}]", root=False)
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
        elif extra is not None:
            found += prune(value[key], extra if isinstance(extra, dict) else {}, here, root=False)
        elif not keeps:
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
        if key in value and value[key] is None and "default" not in node and not node.get("nullable"):
            if node.get("type") or node.get(_INT_OR_STRING):
                del value[key]  # which is as if it was not there
            continue
        if "default" in node and (key not in value or (value[key] is None and not node.get("nullable"))):
            value[key] = copy.deepcopy(node["default"])
        if key in value:
            default(value[key], node)
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        for key, item in list(value.items()):
            if key in properties:
                continue
            if item is None and "default" not in extra and not extra.get("nullable"):
                del value[key]
            else:
                default(item, extra)


def validate(value: Any, schema: Schema, path: str = "", *, root: bool = True) -> list[FieldError]:
    """Complaints about a value, sets and maps at the end. The root's apiVersion, kind and metadata are passed by."""
    return check(value, schema, path, root=root) + check_lists(value, schema, path)


def check(
    value: Any, schema: Schema, path: str = "", *, root: bool = True, was: Correlated | None = None
) -> list[FieldError]:
    """What the schema says of a value: its type, what it must match, then by its kind, its choices, its fields.

    Nothing of what is as it `was`, here or below."""
    found = _check(value, schema, path, was, root=root)
    if len(found) > 1:  # what several parts of the schema say is told once
        found = list({str(error): error for error in found}.values())
    return [] if found and was is not None and was.equal else found


def _check(value: Any, schema: Schema, path: str, was: Correlated | None, *, root: bool) -> list[FieldError]:
    if _is_float(value) and isinstance(value, int):
        value = float(value)  # as Go reads what no 64 bits hold
    found = _type(value, schema, path)
    if value is None:
        return found + _choices(value, schema, path)
    found += _junctors(value, schema, path)
    if isinstance(value, str):
        found += _string(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found += _number(value, schema, path)
    elif isinstance(value, list):
        found += _array(value, schema, path, was)
    found += _choices(value, schema, path)
    return found + _object(value, schema, path, was, root=root) if isinstance(value, dict) else found


def _is_float(value: Any) -> bool:
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63
    )


def _type(value: Any, schema: Schema, path: str) -> list[FieldError]:
    wanted = ["integer", "string"] if schema.get(_INT_OR_STRING) else [schema["type"]] if schema.get("type") else []
    layout = _format(schema)
    if value is None:
        allowed = not wanted or schema.get("nullable")
        return [] if allowed else [_type_error("null", path, ",".join(wanted))]
    if not wanted and not layout:
        return []
    got, form = _kind(value)
    whole = got == "number" and "integer" in wanted and float(value).is_integer() and abs(value) < 2**53
    right = got in wanted or whole or (got == "integer" and "number" in wanted)
    if layout and got not in ("string", "array") and not right and form != layout:
        return [_type_error(form, path, layout)]
    if layout and got in ("string", "array") and not {"number", "integer"} & set(wanted):
        return []  # which the format judges
    return [] if right else [_type_error(got, path, ",".join(wanted))]


def _format(schema: Schema) -> str:
    """The format that values are held to; one that means nothing for their type is none, but where that is no type."""
    wanted, kind = schema.get("format") or "", "" if schema.get(_INT_OR_STRING) else schema.get("type") or ""
    return wanted if kind not in _TYPES or formats.known(wanted, kind) else ""


def _kind(value: Any) -> tuple[str, str]:
    """What kube-openapi takes a value for: its type and its format."""
    if isinstance(value, bool):
        return "boolean", ""
    if _is_float(value):
        return "number", "float64"
    for kind, name, form in ((int, "integer", "int64"), (str, "string", ""), (list, "array", "")):
        if isinstance(value, kind):
            return name, form
    return "object", ""


def _complain(value: Any, path: str, text: str) -> FieldError:
    detail = f"Invalid value: {_shown(value)}: {path} in body {text}"
    return FieldError("FieldValueInvalid", path or "<nil>", detail, value)


def _shown(value: Any) -> str:
    """A value as an error shows it; a number in Go's form."""
    return number_text(value) if isinstance(value, float) else show(value)


def number_text(value: float) -> str:
    """A number as Go's %v prints it."""
    if isinstance(value, int) or not isfinite(value):
        return str(value)
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    mantissa, mark, exponent = text.partition("e")
    return f"{mantissa}e{exponent[0]}{exponent[1:]:0>2}" if mark else text


def _type_error(got: str, path: str, wanted: str) -> FieldError:
    text = f'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"'
    return FieldError("FieldValueTypeInvalid", path or "<nil>", text, got)


def _choices(value: Any, schema: Schema, path: str) -> list[FieldError]:
    choices = schema.get("enum")
    if not choices or any(type(value) is type(choice) and value == choice for choice in choices):
        return []
    if isinstance(value, float) and value in choices:
        return []
    names = [choice if isinstance(choice, str) else show(choice) for choice in choices]
    found = not_supported(path or "<nil>", value, names)
    return [found]


def _junctors(value: Any, schema: Schema, path: str) -> list[FieldError]:
    found: list[FieldError] = []
    if (options := schema.get("anyOf")) and (wrong := _failures(value, options, path)):
        found.append(_joined(path, "must validate at least one schema (anyOf)"))
        found += _best(value, options, wrong)
    if options := schema.get("oneOf"):
        wrong = [check(value, option, path, root=False) for option in options]
        good = sum(not each for each in wrong)
        if good != 1:
            tail = "Found none valid" if not good else f"Found {good} valid alternatives"
            found.append(_joined(path, f"must validate one and only one schema (oneOf). {tail}"))
            found += [] if good else _best(value, options, wrong)
    if parts := schema.get("allOf"):
        wrong = [check(value, part, path, root=False) for part in parts]
        if any(wrong):
            tail = ". None validated" if all(wrong) else ""
            found += [error for each in wrong for error in each]
            found.append(_joined(path, f"must validate all the schemas (allOf){tail}"))
    if (never := schema.get("not")) is not None and not check(value, never, path, root=False):
        found.append(_joined(path, "must not validate the schema (not)"))
    return found


def _joined(path: str, text: str) -> FieldError:
    return FieldError("FieldValueInvalid", "<nil>", f'Invalid value: "": "{path}" {text}', "")


def _failures(value: Any, options: Sequence[Schema], path: str) -> list[list[FieldError]]:
    """What each option says against a value; nothing where one of them takes it."""
    found: list[list[FieldError]] = []
    for option in options:
        errors = check(value, option, path, root=False)
        if not errors:
            return []
        found.append(errors)
    return found


def _best(value: Any, options: Sequence[Schema], wrong: Sequence[list[FieldError]]) -> list[FieldError]:
    """What the option says in which most of the checks were made and passed; the first of several."""
    if len(options) == 1:
        return wrong[0]
    counts = [_matched(value, option) for option in options]
    return wrong[counts.index(max(counts))]


def _matched(value: Any, schema: Schema) -> int:
    """How near a value comes to a schema: kube-openapi's MatchCount.

    It grows with every validator that applies to the value, failed or not, with the type where it is right, and with
    what is counted below: in fields, items and in the options that decided."""
    typed = not _type(value, schema, "")
    if value is None:
        return int(typed)
    count = 4  # what is counted for every schema: its choices, what it is joined of (twice), itself
    if schema.get("type") or schema.get(_INT_OR_STRING) or _format(schema):
        count += 1 + typed
    if isinstance(value, str):
        count += 1 + formats.known(_format(schema), "")
    elif isinstance(value, list):
        count += 2
        if isinstance(items := schema.get("items"), dict):
            count += sum(_matched(item, items) for item in value)
    elif isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        below = ((item, properties.get(key, extra)) for key, item in value.items())
        count += 1 + sum(_matched(item, each) for item, each in below if isinstance(each, dict))
    elif not isinstance(value, bool):
        count += 2
    return count + _matched_options(value, schema)


def _matched_options(value: Any, schema: Schema) -> int:
    """What the options add: the first that takes the value or else the best, and nothing where too many take it."""
    count = sum(_matched(value, part) for part in schema.get("allOf") or ())
    if options := schema.get("anyOf"):
        taken = next((option for option in options if not check(value, option, root=False)), None)
        count += max(_matched(value, option) for option in (options if taken is None else [taken]))
    if options := schema.get("oneOf"):
        good = [option for option in options if not check(value, option, root=False)]
        count += max(_matched(value, option) for option in good or options) if len(good) < 2 else 0
    return count


def _object(
    value: dict[str, Any], schema: Schema, path: str, was: Correlated | None, *, root: bool
) -> list[FieldError]:
    found: list[FieldError] = []
    least, most = schema.get("minProperties"), schema.get("maxProperties")
    if least is not None and len(value) < least:
        found.append(FieldError("FieldValueInvalid", path or "<nil>", _few(path, len(value), least, "properties")))
    if most is not None and len(value) > most:
        found.append(too_many(path or "<nil>", len(value), most))
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    skip = _META if root or schema.get(_EMBEDDED) else ()
    if isinstance(extra, dict):
        for key, item in value.items():
            if key not in properties and key not in skip:
                below = was.key(key) if was is not None else None
                found += check(item, extra, f"{path}.{key}" if path else key, root=False, was=below)
    for key, item in value.items():
        if key in properties and key not in skip:
            below = was.key(key) if was is not None else None
            found += check(item, properties[key], f"{path}.{key}" if path else key, root=False, was=below)
    missing = [key for key in schema.get("required") or () if key not in value]
    return found + [required(f"{path}.{key}" if path else key) for key in missing]


def _few(path: str, count: int, least: int, what: str) -> str:
    return f"Invalid value: {count}: {path} in body should have at least {least} {what}"


def _array(value: Sequence[Any], schema: Schema, path: str, was: Correlated | None) -> list[FieldError]:
    found: list[FieldError] = []
    items = schema.get("items")
    if isinstance(items, dict):
        for at, item in enumerate(value):
            below = was.index(at) if was is not None else None
            found += check(item, items, f"{path}[{at}]", root=False, was=below)
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is not None and len(value) < least:
        found.append(FieldError("FieldValueInvalid", path or "<nil>", _few(path, len(value), least, "items")))
    if most is not None and len(value) > most:
        found.append(too_many(path or "<nil>", len(value), most))
    return found


def check_lists(value: Any, schema: Schema, path: str = "") -> list[FieldError]:
    """Sets hold an item once, maps a key once; at every depth, which the schema's own rules do not see."""
    found: list[FieldError] = []
    if isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, item in value.items():
            if isinstance(item, (dict, list)):
                inner = properties.get(key)
                if inner is not None:
                    found += check_lists(item, inner, f"{path}.{key}" if path else key)
                elif isinstance(extra, dict):
                    found += check_lists(item, extra, f"{path}[{key}]")
    elif isinstance(value, list):
        found += _unique(value, schema, path)
        items = schema.get("items")
        for at, item in enumerate(value if isinstance(items, dict) else ()):
            if isinstance(item, (dict, list)):
                found += check_lists(item, items or {}, f"{path}[{at}]")
    return found


def _unique(value: Sequence[Any], schema: Schema, path: str) -> list[FieldError]:
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or ()
    seen: dict[bytes, int] = {}
    found: list[FieldError] = []
    for at, item in enumerate(value if kind in ("set", "map") else ()):
        if kind == "map" and item is None:
            continue
        if kind == "map" and not isinstance(item, dict):
            found.append(invalid(f"{path}[{at}]", item, "must be an object for an array of list-type map"))
            continue
        key = item if kind == "set" else {name: item[name] for name in keys if name in item}
        told = msgspec.json.encode(key, order="deterministic")
        seen[told] = seen.get(told, 0) + 1
        if seen[told] == 2:  # a third is not told of
            found.append(duplicate(f"{path}[{at}]", key))
    return found


def _string(value: str, schema: Schema, path: str) -> list[FieldError]:
    """What is wrong with the text first, and its format."""
    found: list[FieldError] = []
    least, most, pattern = schema.get("minLength"), schema.get("maxLength"), schema.get("pattern")
    if most is not None and len(value) > most:
        found.append(too_long(path or "<nil>", most))
    elif least is not None and len(value) < least:
        found.append(_complain(value, path, f"should be at least {least} chars long"))
    elif pattern and not _pattern(pattern).search(value):
        found.append(_complain(value, path, f"should match '{pattern}'"))
    if (wanted := _format(schema)) and not formats.has(value, wanted):
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
    kind, wanted = schema.get("type") or "", _format(schema)
    if not formats.fits(value, kind, wanted):
        how = f"with format {wanted}" if wanted else "(default format)"
        text = f'Invalid value: "": Checked value must be of type {kind} {how} in {path}'
        found.append(FieldError("FieldValueInvalid", "<nil>", text, ""))
    step = int(step) if step is not None and isinstance(value, int) else step
    if step is not None and step <= 0:
        shown = number_text(step)
        text = f"Invalid value: {shown}: factor MultipleOf declared for {path} must be positive: {shown}"
        found.append(FieldError("FieldValueInvalid", path or "<nil>", text, step))
    elif step and (value / step) % 1:
        found.append(_complain(value, path, f"should be a multiple of {number_text(step)}"))
    if least is not None and (value < least or (schema.get("exclusiveMinimum") and value == least)):
        equal = "" if schema.get("exclusiveMinimum") else " or equal to"
        found.append(_complain(value, path, f"should be greater than{equal} {number_text(least)}"))
    if most is not None and (value > most or (schema.get("exclusiveMaximum") and value == most)):
        equal = "" if schema.get("exclusiveMaximum") else " or equal to"
        found.append(_complain(value, path, f"should be less than{equal} {number_text(most)}"))
    return found
