"""What the mutations of a MutatingAdmissionPolicy make of an object, from the values that their expressions gave.

Owns the way from a CEL value to JSON, the merge of an apply configuration and the JSON patch of a policy. Called by the
admission plugin. Pure. Source: KEP-3962 and apiserver's pkg/admission/plugin/policy/mutating/patch.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Sequence
from typing import Any

from steersman.api.cel.evaluate import Struct
from steersman.api.cel.values import Duration, Opaque, Optional, Timestamp, TypeValue, Uint, type_name
from steersman.api.patch import apply, json, types
from steersman.api.patch.types import Type
from steersman.api.resource import Object


class MutationError(Exception):
    """A mutation that cannot be done; the text is what a denial shows."""


def applied(obj: Object, value: Any, type: Type) -> Object:
    """`obj` with what an expression made (`Object{...}`) merged in; neither is changed. Raises MutationError."""
    if not isinstance(value, Struct):
        raise MutationError(f"unsupported return type from ApplyConfiguration expression: {type_name(value)}")
    _check_names(value)
    config = {**_json(value), "apiVersion": obj["apiVersion"], "kind": obj["kind"]}
    try:
        apply.check_fields(config, type, "")
    except ValueError as error:
        text = f"failed to convert patch object to typed object: {error}"
        raise MutationError(f"error applying patch: {text}") from None
    if atomic := list(_atomic(config, type, "")):
        text = f"may not mutate atomic arrays, maps or structs: {', '.join(atomic)}"
        raise MutationError(f"error applying patch: invalid ApplyConfiguration: {text}")
    merged: Object = apply.merge(obj, config, type)
    return merged


def _atomic(value: Any, type: Type, path: str) -> list[str]:
    """The paths of what may be replaced only as a whole."""
    found = [path] if type.kind == types.ATOMIC and value.__class__ in (dict, list) else []
    if isinstance(value, dict):
        for key, each in value.items():
            if type.named(key):
                found += _atomic(each, type.field(key), f"{path}.{key}")
    elif isinstance(value, list):
        for at, each in enumerate(value):
            found += _atomic(each, type.element, f"{path}[{at}]")
    return found


def patched(obj: Object, value: Any) -> Object | None:
    """`obj`, copied, after the operations that an expression made (`[JSONPatch{...}]`). Raises MutationError.

    None when a test among them failed: then nothing of the patch holds.
    """
    if not isinstance(value, list):
        raise MutationError("type mismatch: JSONPatchType.expression should evaluate to array")
    operations = [_operation(each) for each in value]
    try:
        changed: Object = json.perform(copy.deepcopy(obj), operations)
    except json.TestFailed:
        return None
    except json.Refused as error:
        raise MutationError(f"JSON Patch: {error}") from None
    return changed


def _operation(value: Any) -> Object:
    if not isinstance(value, Struct) or value.name != "JSONPatch":
        text = "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch"
        raise MutationError(f"{text}, got element of {type_name(value)}")
    found: Object = {"op": "", "path": ""}
    for key, each in value.items():
        if key == "value":
            _check_names(each)
            found["value"] = _json(each)
        elif not isinstance(each, str):
            raise MutationError(f"unexpected type {type_name(each)} for JSONPatchType '{key}' field")
        elif key != "from" or each:
            found[key] = each
    return found


def _check_names(value: Any) -> None:
    if isinstance(value, Struct) and (wrong := _misnamed(value, value.name)):
        raise MutationError("type mismatch: " + "\n".join(wrong))


def _misnamed(value: Any, wanted: str) -> list[str]:
    """Objects whose type's name is not the path at which they are."""
    if isinstance(value, Struct):
        found = []
        if value.name != wanted:
            text = "which matches field name path from root Object type"
            found.append(f'unexpected type name "{value.name}", expected "{wanted}", {text}')
        return found + [each for key, inner in value.items() for each in _misnamed(inner, f"{wanted}.{key}")]
    inner_values: Sequence[Any] = ()
    if isinstance(value, dict):
        inner_values = list(value.values())
    elif isinstance(value, list):
        inner_values = value
    return [each for inner in inner_values for each in _misnamed(inner, wanted)]


def _json(value: Any) -> Any:
    """A CEL value as JSON. Raises MutationError for what has no such form."""
    if isinstance(value, dict):
        if strange := next((key for key in value if not isinstance(key, str)), None):
            raise MutationError(f'map key "{strange}" is of type {type_name(strange)}, not string')
        return {key: _json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_json(each) for each in value]
    if isinstance(value, Uint):
        return int(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Timestamp | Duration):
        return str(value)
    if isinstance(value, Optional | Opaque | TypeValue):
        text = "JSONPath valueExpression evaluated to a type that could not marshal to JSON"
        raise MutationError(f"{text}: {type_name(value)}")
    return value
