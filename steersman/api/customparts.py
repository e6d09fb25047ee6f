"""What is asked of parts of custom resources besides their schema: replicas for a scale, resources inside them.

Owns the complaints that apiextensions-apiserver has about where a scale reads its numbers, about embedded resources,
and the warnings about finalizers. Called for custom objects that are written. Pure. Source: apiextensions-apiserver's
pkg/registry/customresource/validator.go and pkg/apiserver/schema/objectmeta.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api import meta, names
from steersman.api.errors import FieldError
from steersman.api.kind import ScalePaths
from steersman.api.validation import invalid, required

_EMBEDDED = "x-kubernetes-embedded-resource"
_MOST = 2**31 - 1
BLOCKING = frozenset(
    ("FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid")
)
_GO = ((bool, "bool"), (int, "int64"), (float, "float64"), (str, "string"), (list, "[]interface {}"))


def unchecked(found: Sequence[FieldError]) -> list[FieldError]:
    """The note that rules were not asked, when a complaint is of a kind that they could not cope with."""
    if not any(each.kind in BLOCKING for each in found):
        return []
    text = "some validation rules were not checked because the object was invalid; "
    return [invalid("<nil>", None, f"{text}correct the existing errors to complete validation")]


def scale(obj: Mapping[str, Any], paths: ScalePaths | None, *, status_only: bool = False) -> list[FieldError]:
    """The numbers and the selector that a scale is made of."""
    if paths is None:
        return []
    found = [] if status_only else _replicas(obj, paths.spec)
    found += _replicas(obj, paths.status)
    if paths.selector:
        _, wrong = _nested(obj, paths.selector, str, "string")
        found += [invalid(f".{'.'.join(paths.selector)}", "", wrong)] if wrong else []
    return found


def _replicas(obj: Mapping[str, Any], path: Sequence[str]) -> list[FieldError]:
    where = f".{'.'.join(path)}"
    count, wrong = _nested(obj, path, int, "int64")
    if wrong:
        return [invalid(where, 0, wrong)]
    if count is not None and count < 0:
        return [invalid(where, count, "should be a non-negative integer")]
    too_many = count is not None and count > _MOST
    return [invalid(where, count, f"should be less than or equal to {_MOST}")] if too_many else []


def _nested(obj: Mapping[str, Any], path: Sequence[str], kind: type, name: str) -> tuple[Any, str]:
    """The value at a path, None where there is none, and Go's complaint when something else is in the way."""
    found: Any = obj
    for step in path:
        if not isinstance(found, dict):
            if found is None:
                return None, ""
            whole = f".{'.'.join(path)}"
            wanted = "map[string]interface{}"
            return None, f"{whole} accessor error: {_go(found)} is of the type {_go_type(found)}, expected {wanted}"
        if step not in found:
            return None, ""
        found = found[step]
    if isinstance(found, kind) and not isinstance(found, bool):
        return found, ""
    return None, f".{'.'.join(path)} accessor error: {_go(found)} is of the type {_go_type(found)}, expected {name}"


def _go_type(value: Any) -> str:
    if value is None:
        return "<nil>"
    return next((name for kind, name in _GO if isinstance(value, kind)), "map[string]interface {}")


def _go(value: Any) -> str:
    """A value as Go's %v prints it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{' '.join(map(_go, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_go(value[key])}' for key in sorted(value))}]"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def embedded(value: Any, schema: Mapping[str, Any], path: str = "") -> list[FieldError]:
    """Resources inside the object say what they are, and have metadata as any other."""
    found: list[FieldError] = []
    if isinstance(value, dict):
        found += _embedded(value, path) if schema.get(_EMBEDDED) else []
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, item in value.items():
            if key in properties:
                found += embedded(item, properties[key], f"{path}.{key}" if path else key)
            elif isinstance(extra, dict):
                found += embedded(item, extra, f"{path}[{key}]")
    elif isinstance(value, list):
        for at, item in enumerate(value):
            found += embedded(item, schema.get("items") or {}, f"{path}[{at}]")
    return found


def _embedded(value: Mapping[str, Any], path: str) -> list[FieldError]:
    found = [required(f"{path}.{key}") for key in ("apiVersion", "kind") if key not in value]
    for key in ("apiVersion", "kind"):
        text, here = value.get(key), f"{path}.{key}"
        if key not in value:
            continue
        if not isinstance(text, str):
            found.append(invalid(here, text, "must be a string"))
        elif not text:
            found.append(invalid(here, text, "must not be empty"))
        elif key == "apiVersion" and text.count("/") > 1:
            found.append(invalid(here, text, f"unexpected GroupVersion string: {text}"))
        elif key == "kind" and (wrong := names.dns1035_label(text.lower())):
            told = f"may have mixed case, but should otherwise match: {','.join(wrong)}"
            found.append(invalid(here, text, told))
    inner = value.get("metadata")
    if isinstance(inner, dict) and (odd := _mistyped(inner)):
        found.append(invalid(f"{path}.metadata", inner, odd))
    elif isinstance(inner, dict):
        given = {"name": "fakename", **{key: item for key, item in inner.items() if item}}
        own = meta.validate({"metadata": given}, namespaced=bool(given.get("namespace")), rule=names.path_segment)
        found += [FieldError(each.kind, f"{path}.{each.field}", each.detail, each.value) for each in own]
    return found


def _mistyped(metadata: Mapping[str, Any]) -> str:
    """Go's complaint about the first field of metadata that has another type than it should."""
    for key, item in metadata.items():
        inside = list(item.values()) if key in ("labels", "annotations") and isinstance(item, dict) else [item]
        for each in inside if key in _TEXTS else ():
            if not isinstance(each, str):
                kind = next((name for kind, name in _JSON if isinstance(each, kind)), "object")
                return f"json: cannot unmarshal {kind} into Go struct field ObjectMeta.{key} of type {_TEXTS[key]}"
    return ""


_KEYS = ("name", "generateName", "namespace", "uid", "resourceVersion", "labels", "annotations")
_TEXTS = dict.fromkeys(_KEYS, "string")
_JSON = ((bool, "bool"), ((int, float), "number"), (list, "array"))


def finalizer_warnings(obj: Mapping[str, Any]) -> list[str]:
    """Finalizers that others may have, too."""
    told: list[str] = []
    for name in (obj.get("metadata") or {}).get("finalizers") or ():
        if "/" not in name and meta.unqualified_finalizer("", name):
            path = " including a path (/)" if "." in name else ""
            told.append(
                f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name{path} to avoid accidental '
                "conflicts with other finalizer writers"
            )
    return told
