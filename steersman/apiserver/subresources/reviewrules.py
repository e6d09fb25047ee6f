"""What an access review must hold.

Source: pkg/apis/authorization/validation; apimachinery's metav1/validation for the requirements of selectors.
"""

from __future__ import annotations

from collections.abc import Iterator

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.resource import Object
from steersman.api.validation import each_invalid, forbidden, invalid, required, struct

_ALONE = "cannot be specified in combination with resourceAttributes"
_ONE = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
_TWICE = "may not specified at the same time as requirements"


def complaints(review: Object, *, nobody: bool, namespace: str) -> list[FieldError]:
    """What is wrong with a review; `nobody`: it must say who; `namespace`: that it is about, if about one."""
    spec = review.get("spec") or {}
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    out = []
    shown = struct(path, Path="", Verb="")
    if resource is not None and path is not None:
        out.append(invalid("spec.nonResourceAttributes", shown, _ALONE))
    if resource is None and path is None:
        out.append(invalid("spec.resourceAttributes", None, _ONE))
    if nobody and not spec.get("user") and not spec.get("groups"):
        out.append(invalid("spec.user", "", "at least one of user or group must be specified"))
    for key in ("fieldSelector", "labelSelector"):
        if resource is not None and resource.get(key) is not None:
            out += _selector(f"spec.resourceAttributes.{key}", resource[key])
    metadata = {key: value for key, value in (review.get("metadata") or {}).items() if value and key != "managedFields"}
    if set(metadata) - ({"namespace"} if namespace else set()):
        out.append(invalid("metadata", metadata, f"must be empty{' except for namespace' if namespace else ''}"))
    if namespace and resource is not None and (resource.get("namespace") or "") != namespace:
        there = resource.get("namespace") or ""
        out.append(invalid("spec.resourceAttributes.namespace", there, "must match metadata.namespace"))
    if namespace and path is not None:
        out.append(invalid("spec.nonResourceAttributes", shown, "disallowed on this kind of request"))
    return out


def _selector(here: str, selector: Object) -> Iterator[FieldError]:
    raw, requirements = selector.get("rawSelector"), selector.get("requirements") or ()
    if raw and requirements:
        yield invalid(f"{here}.rawSelector", raw, _TWICE)
    if not raw and not requirements:
        yield required(f"{here}.requirements", f"when {here} is specified, requirements or rawSelector is required")
    labels = here.endswith("labelSelector")
    for index, each in enumerate(requirements):
        yield from _requirement(f"{here}.requirements[{index}]", each, labels=labels)


def _requirement(here: str, each: Object, *, labels: bool) -> Iterator[FieldError]:
    key, values, operator = each.get("key") or "", each.get("values") or (), each.get("operator")
    if not labels and not key:
        yield required(f"{here}.key", "must be specified")
    if operator in ("In", "NotIn") and not values:
        yield required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    if operator in ("Exists", "DoesNotExist") and values:
        yield forbidden(f"{here}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    if labels:
        yield from each_invalid(f"{here}.key", key, names.qualified(key))
        for index, value in enumerate(values):
            yield from each_invalid(f"{here}.values[{index}]", value, names.label_value(value))
