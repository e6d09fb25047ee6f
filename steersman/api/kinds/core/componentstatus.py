"""ComponentStatus: nobody writes one; its columns.

Source: printComponentStatus.
"""

from __future__ import annotations

from steersman.api.kind import Behavior, Column
from steersman.api.resource import Object
from steersman.api.table import NAME

_WORDS = {"True": "Healthy", "False": "Unhealthy"}


def _healthy(obj: Object) -> Object:
    return next((each for each in obj.get("conditions") or () if each.get("type") == "Healthy"), {})


COMPONENTSTATUS = Behavior(
    "",
    "ComponentStatus",
    columns=(
        NAME,
        Column("Status", lambda obj, now: _WORDS.get(_healthy(obj).get("status", ""), "Unknown")),
        Column("Message", lambda obj, now: _healthy(obj).get("message", "")),
        Column("Error", lambda obj, now: _healthy(obj).get("error", "")),
    ),
)
