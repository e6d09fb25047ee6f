"""Aggregated ClusterRoles: their rules are those of the roles that their selectors choose.

Owns the rules of ClusterRoles with an aggregationRule, which it applies under its own name, so that `managedFields`
tell whose they are. Source: kubernetes' pkg/controller/clusterroleaggregation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from steersman.api import labels
from steersman.api.resource import CLUSTERROLES, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch, key_of
from steersman.client.selecting import BY_LABEL, file_by_label, selected

_US = "clusterrole-aggregation-controller"
_CHOOSERS = "selected label"


def rules_of(role: Object, chosen: Sequence[Sequence[Object]]) -> list[Object]:
    """The rules of all chosen roles, for each selector by name, each rule once."""
    out: list[Object] = []
    for found in chosen:
        for other in sorted(found, key=lambda each: str(each["metadata"]["name"])):
            if other["metadata"]["name"] != role["metadata"]["name"]:
                out += [rule for rule in other.get("rules") or () if rule not in out]
    return out


async def reconcile(context: Context, key: Key) -> Result:
    """Write one role's rules. Raises ApiError."""
    informer = context.informer(CLUSTERROLES)
    role = informer.get(*key)
    if role is None or not role.get("aggregationRule"):
        return DONE
    choices = role["aggregationRule"].get("clusterRoleSelectors") or ()
    rules = rules_of(role, [selected(informer, "", labels.from_object(each)) for each in choices])
    if rules != (role.get("rules") or []):
        applied: Object = {"apiVersion": CLUSTERROLES.api_version, "kind": CLUSTERROLES.kind}
        applied |= {"metadata": {"name": key.name}, "rules": rules}
        await context.client.patch(CLUSTERROLES, key.name, "", applied, type="apply", field_manager=_US, force=True)
    return DONE


def _file_chooser(role: Object) -> Iterable[str]:
    """One label that each selector insists on, or none: who changes looks only under its own labels."""
    for each in (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ():
        try:
            selector = labels.from_object(each)
        except ValueError:
            continue
        if selector.requirements is not None:
            yield next(selector.equal, "")


def _choosers(context: Context, role: Object) -> Iterable[Key]:
    """The aggregated roles that may choose this one."""
    marks = role["metadata"].get("labels") or {}
    for mark in ("", *(f"{name}={value}" for name, value in marks.items())):
        yield from map(key_of, context.informer(CLUSTERROLES).by_index(_CHOOSERS, mark))


CONTROLLER = Controller(
    _US,
    reconcile,
    (For(CLUSTERROLES), Watch(CLUSTERROLES, _choosers)),
    indexes={CLUSTERROLES: {BY_LABEL: file_by_label, _CHOOSERS: _file_chooser}},
)
