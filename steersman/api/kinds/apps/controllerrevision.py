"""ControllerRevision: data that never changes.

Source: ValidateControllerRevision, printControllerRevision.
"""

from __future__ import annotations

from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, field
from steersman.api.validation import immutable, not_negative, required


def default(revision: Object) -> None:
    """The number is always there."""
    revision.setdefault("revision", 0)


def validate(revision: Object) -> list[FieldError]:
    """Data is an object, the number is not negative."""
    out = not_negative("revision", revision.get("revision"))
    data = revision.get("data")
    if not data and not isinstance(data, dict):
        out.append(required("data", "data is mandatory"))
    elif not isinstance(data, dict):
        out.append(required("data", "data must be a valid JSON object"))
    return out


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """Data never changes."""
    return immutable("data", new.get("data"), old.get("data"))


def _controller(revision: Object, now: float) -> str:
    for owner in revision["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            group = owner.get("apiVersion", "").rpartition("/")[0]
            kind = f"{owner.get('kind', '')}.{group}" if group else owner.get("kind", "")
            return f"{kind.lower()}/{owner.get('name', '')}"
    return NONE


CONTROLLERREVISION = Behavior(
    "apps",
    "ControllerRevision",
    order="mnvu",
    default=default,
    validate=validate,
    validate_update=validate_update,
    columns=(NAME, Column("Controller", _controller), field("Revision", "revision", empty=0), AGE),
)
