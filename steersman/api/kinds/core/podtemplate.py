"""PodTemplate.

Source: ValidatePodTemplate, printPodTemplate.
"""

from __future__ import annotations

from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column
from steersman.api.kinds import workload
from steersman.api.kinds.podspec import defaults
from steersman.api.kinds.podspec import validate as rules
from steersman.api.resource import Object
from steersman.api.table import NAME, dig, label_text, of_template


def validate(template: Object) -> list[FieldError]:
    """The template's rules."""
    return rules.template("template", template.get("template") or {})


PODTEMPLATE = Behavior(
    "",
    "PodTemplate",
    order="mv",
    default=defaults.template,
    warnings=workload.warnings("template"),
    validate=validate,
    columns=(
        NAME,
        *(Column(column.name, column.cell) for column in of_template("template")),
        Column("Pod Labels", lambda obj, now: label_text(dig(obj, "template", "metadata", "labels"))),
    ),
)
