"""RuntimeClass.

Source: ValidateRuntimeClass, printRuntimeClass.
"""

from __future__ import annotations

from dataclasses import replace

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior
from steersman.api.kinds.podspec import defaults, resources
from steersman.api.kinds.podspec.scheduling import tolerations
from steersman.api.labels import validate_labels
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, field
from steersman.api.validation import duplicate, immutable, invalid, required, struct


def default(found: Object) -> None:
    """Amounts in canonical form."""
    defaults.resource_list((found.get("overhead") or {}).get("podFixed"))


def validate(found: Object) -> list[FieldError]:
    """Handler, overhead, where it may run."""
    handler = found.get("handler") or ""
    out = [] if handler else [required("handler")]
    if handler:
        out += [invalid("handler", handler, text) for text in names.dns_label(handler)]
    if overhead := found.get("overhead"):
        out += resources.requirements("overhead", {"limits": overhead.get("podFixed")})
    if where := found.get("scheduling"):
        out += validate_labels(where.get("nodeSelector"), "scheduling.nodeSelector")
        given = where.get("tolerations") or []
        out += tolerations("scheduling.tolerations", given)
        for i, each in enumerate(given):
            if each in given[:i]:
                shown = struct(each, Key="", Operator="", Value="", Effect="", TolerationSeconds=None)
                out.append(duplicate(f"scheduling.tolerations[{i}]", shown))
    return out


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """The handler never changes."""
    return immutable("handler", new.get("handler") or "", old.get("handler"))


RUNTIMECLASS = Behavior(
    "node.k8s.io",
    "RuntimeClass",
    order="nvmu",
    default=default,
    validate=validate,
    validate_update=validate_update,
    columns=(NAME, replace(field("Handler", "handler"), stated=True), AGE),
)
