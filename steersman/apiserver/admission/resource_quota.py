"""ResourceQuota: nothing is made that a namespace's quotas do not allow; what is made is counted at once.

Source: apiserver's pkg/admission/plugin/resourcequota. The counting rules are `client.quota`'s, shared with the
controller, which corrects what went another way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any

from steersman.api import errors, quantity
from steersman.api.errors import ApiError
from steersman.api.quantity import ZERO, Quantity
from steersman.api.resource import Object
from steersman.apiserver.admission import limited
from steersman.apiserver.cache import Item
from steersman.apiserver.call import Call, User
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.verbs.write import update_object
from steersman.client import quota

_TRIES = 3
_SYSTEM = User("system:apiserver", ("system:masters",))


def validate(call: Call, obj: Object | None, old: Object | None) -> Awaitable[None] | None:
    """Refuse what exceeds a quota. Raises ApiError."""
    if obj is None or call.operation not in ("CREATE", "UPDATE") or not call.kind.namespaced:
        return None
    if not quota.may_change(call.kind.group, call.kind.plural, call.info.subresource, obj, old):
        return None
    kind = call.services.registry.find("", "resourcequotas")
    if kind is None or call.kind is kind:
        return None
    items = call.storage.objects(kind, call.info.namespace)
    if rules := call.services.extras.get(limited.NAME):
        _check_limited(call, rules, [item.obj() for item in items], obj, old)
    return _charge_all(call, items, obj, old) if items else None


async def _charge_all(call: Call, items: Sequence[Item], obj: Object, old: Object | None) -> None:
    for item in items:
        await _charge(call, item, obj, old)


def _check_limited(
    call: Call, rules: Sequence[limited.Limited], quotas: list[Object], obj: Object, old: Object | None
) -> None:
    resource, now = call.kind.resource(call.kind.storage_version.name), call.services.clock.now()
    used = quota.usage(resource, obj, now)
    before = quota.usage(resource, old, now) if old is not None else {}
    if any(amount > before.get(name, ZERO) for name, amount in used.items()):
        limited.check(rules, quotas, resource, obj, used)


async def _charge(call: Call, item: Item, obj: Object, old: Object | None) -> None:
    budget, resource = item.obj(), call.kind.resource(call.kind.storage_version.name)
    if not quota.concerns(budget, resource, obj):
        return
    hard = budget["spec"].get("hard") or {}
    now = call.services.clock.now()
    wanted = {name: amount for name, amount in quota.usage(resource, obj, now).items() if name in hard}
    if old is not None and quota.concerns(budget, resource, old):
        before = quota.usage(resource, old, now)
        wanted = {name: amount - before.get(name, ZERO) for name, amount in wanted.items()}
        wanted = {name: amount for name, amount in wanted.items() if amount > ZERO}
    _check_specified(call, budget, obj, hard)
    bounded = call.info.subresource != "status"  # what has happened already is counted, never refused
    if not wanted or call.dry_run:
        if bounded:
            _fits(call, budget, obj, wanted)
        return

    def spend(current: Object) -> Object:
        if bounded:
            _fits(call, current, obj, wanted)
        status = current.setdefault("status", {})
        used = dict(status.get("used") or {})
        for name, amount in wanted.items():
            used[name] = str(quantity.parse(used.get(name, "0")) + amount)
        status["used"] = used
        status.setdefault("hard", dict(hard))
        return current

    charge = _call_for(call, item)
    for _ in range(_TRIES):
        try:
            await update_object(charge, item, spend, retry=True)
            return
        except ApiError as error:
            if error.reason != "Conflict":
                raise


def _call_for(call: Call, item: Item) -> Call:
    """A call of the API server to itself: the quota's status."""
    info = RequestInfo("", "update", True, "", "v1", "resourcequotas", "status", item.namespace, item.name)
    options: Object = {"merged": True}
    return replace(
        call, info=info, kind=item.kind.kind, version="v1", user=_SYSTEM, operation="", warnings=[], options=options
    )


def _check_specified(call: Call, budget: Object, obj: Object, hard: Object) -> None:
    """A quota on a compute resource makes every container say how much it wants."""
    if (call.kind.group, call.kind.kind) != ("", "Pod"):
        return
    missing: dict[str, list[str]] = {}
    for container in [*obj["spec"]["containers"], *(obj["spec"].get("initContainers") or [])]:
        resources = container.get("resources") or {}
        for name in hard:
            key, _, short = name.rpartition(".")
            if short not in ("cpu", "memory") or key not in ("", "requests", "limits"):
                continue
            given = resources.get("limits" if key == "limits" else "requests") or {}
            if short not in given:
                missing.setdefault(container["name"], []).append(name)
    if missing:
        parts: dict[str, list[str]] = {}
        for container_name, names in missing.items():
            parts.setdefault(",".join(sorted(names)), []).append(container_name)
        text = "; ".join(f"must specify {names} for: {','.join(sorted(who))}" for names, who in sorted(parts.items()))
        name = budget["metadata"]["name"]
        raise errors.forbidden("", "pods", obj["metadata"].get("name", ""), f"failed quota: {name}: {text}")


def _fits(call: Call, budget: Object, obj: Object, wanted: dict[str, Quantity]) -> None:
    """Raises ApiError when the usage with `wanted` is more than is allowed."""
    hard = budget["spec"].get("hard") or {}
    used = (budget.get("status") or {}).get("used") or {}
    over = [
        name
        for name, amount in sorted(wanted.items())
        if quantity.parse(hard[name]) < quantity.parse(used.get(name, "0")) + amount
    ]
    if not over:
        return

    def shown(values: dict[str, Any]) -> str:
        return ",".join(f"{name}={values.get(name, '0')}" for name in over)

    text = (
        f"exceeded quota: {budget['metadata']['name']}, requested: {shown(dict(wanted))}, "
        f"used: {shown(used)}, limited: {shown(hard)}"
    )
    name = obj["metadata"].get("name", "")
    raise errors.forbidden(call.kind.group, call.kind.plural, name, text)
