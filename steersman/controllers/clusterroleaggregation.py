"""Aggregated ClusterRoles: their rules are those of the roles that their selectors choose.

Owns the rules of ClusterRoles with an aggregationRule. Source: kubernetes'
pkg/controller/clusterroleaggregation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from steersman.api import labels
from steersman.api.resource import CLUSTERROLES, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch, key_of


def rules_of(role: Object, every: Sequence[Object]) -> list[Object]:
    """The rules of all chosen roles, by name, each once."""
    out: list[Object] = []
    for chosen in role["aggregationRule"].get("clusterRoleSelectors") or ():
        selector = labels.from_object(chosen)
        for other in sorted(every, key=lambda each: str(each["metadata"]["name"])):
            if other["metadata"]["name"] == role["metadata"]["name"]:
                continue
            if selector.matches(other["metadata"].get("labels")):
                out += [rule for rule in other.get("rules") or () if rule not in out]
    return out


async def reconcile(context: Context, key: Key) -> Result:
    """Write one role's rules."""
    informer = context.informer(CLUSTERROLES)
    role = informer.get(*key)
    if role is None or not role.get("aggregationRule"):
        return DONE
    rules = rules_of(role, informer.list())
    if rules != (role.get("rules") or []):
        await context.client.update(CLUSTERROLES, {**role, "rules": rules})
    return DONE


def _aggregated(context: Context, _: Object) -> Iterable[Key]:
    for role in context.informer(CLUSTERROLES).list():
        if role.get("aggregationRule"):
            yield key_of(role)


CONTROLLER = Controller(
    "clusterrole-aggregation-controller", reconcile, (For(CLUSTERROLES), Watch(CLUSTERROLES, _aggregated)), workers=1
)
