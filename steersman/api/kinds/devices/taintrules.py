"""DeviceTaintRule: taints on devices that an administrator selects (KEP-5055, from 1.37 on).

Source: pkg/apis/resource/validation, the strategy in pkg/registry/resource/devicetaintrule.
"""

from __future__ import annotations

from steersman.api.kind import Behavior, Update, accept_update
from steersman.api.kinds import strategy
from steersman.api.kinds.devices.rules import Complaints, label, pool_name, taint
from steersman.api.kinds.podspec.volumes import driver_name
from steersman.api.resource import Object


def validate(rule: Object) -> Complaints:
    """What is selected could be a device, and the taint could be one."""
    spec = rule.get("spec") or {}
    chosen, path = spec.get("deviceSelector") or {}, "spec.deviceSelector"
    out: Complaints = []
    for key, check in (("driver", driver_name), ("pool", pool_name), ("device", label)):
        if chosen.get(key) is not None:
            out += check(f"{path}.{key}", chosen[key])
    return out + taint("spec.taint", spec.get("taint") or {})


_begin = strategy.begin({}, generations=True)


def _prepare_create(new: Object) -> None:
    """The taint begins with the rule."""
    _begin(new)
    found = new.setdefault("spec", {}).setdefault("taint", {})
    found.setdefault("timeAdded", new["metadata"]["creationTimestamp"])


def _prepare_update(new: Object, old: Object) -> None:
    """The status stays. Another effect begins when it is first seen, unless the writer says when."""
    strategy.copy_field("status", new, old)
    now, before = (each.get("spec", {}).get("taint") or {} for each in (new, old))
    if now.get("effect") != before.get("effect") and now.get("timeAdded") == before.get("timeAdded"):
        now.pop("timeAdded", None)
    strategy.count(new, old, changed=strategy.differs(new.get("spec"), old.get("spec")))


TAINT_RULE = Behavior(
    "resource.k8s.io",
    "DeviceTaintRule",
    validate=validate,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    updates={"status": Update(strategy.keep("spec"), accept_update)},
)
