"""What one look at a Deployment leads to: sizes of its ReplicaSets, sets to create and to delete, its status.

Owns every decision of the controller; pure. Source: kubernetes' pkg/controller/deployment (sync, rolling, recreate).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from steersman.api.resource import Object
from steersman.controllers.deployment import status
from steersman.controllers.deployment.sets import (
    DESIRED,
    MOST,
    Sized,
    Strategy,
    annotate,
    fresh,
    next_revision,
    note_size,
    noted,
    split,
)

_UNLIMITED = 2**31 - 1


@dataclass(slots=True)
class Plan:
    """Sets as they shall be (`new` is created when it has no original), and the status that follows."""

    new: Sized | None
    old: list[Sized]
    delete: list[Object] = field(default_factory=list)
    status: Object = field(default_factory=dict)
    check_after: float = 0.0

    @property
    def every(self) -> list[Sized]:
        """All sets, the new one last."""
        return [*self.old, *([self.new] if self.new is not None else [])]


def plan(deployment: Object, found: Sequence[Object], *, old_pods: bool, now: float) -> Plan:
    """Decide. `old_pods`: whether pods that are not of the new set may still run (matters to Recreate)."""
    spec = deployment["spec"]
    strategy = Strategy.of(deployment)
    new, old = split(deployment, found)
    steps = Plan(new, old)
    rollout = False
    if deployment["metadata"].get("deletionTimestamp"):
        _adopt_revision(steps, deployment)
    elif strategy.rolling and not all(each.observed for each in steps.every):
        _adopt_revision(steps, deployment)  # nobody knows how many pods there are: their set says so soon
    elif spec.get("paused"):
        _adopt_revision(steps, deployment)
        _scale(steps, deployment, strategy)
        _clean_up(steps, deployment)
    elif _was_scaled(steps, strategy):
        _adopt_revision(steps, deployment)
        _scale(steps, deployment, strategy)
    elif strategy.rolling:
        rollout = True
        _roll(steps, deployment, strategy)
    else:
        rollout = True
        _recreate(steps, deployment, strategy, old_pods)
    steps.status = status.of(deployment, steps.every, steps.new, strategy, rollout=rollout, now=now)
    if rollout:
        steps.check_after = status.check_after(deployment, steps.status, now)
    return steps


def _adopt_revision(steps: Plan, deployment: Object) -> None:
    """The new set, where it exists, has the newest revision and the Deployment's annotations."""
    if steps.new is not None:
        annotate(steps.new, deployment, next_revision(steps.old))
        steps.new.min_ready = deployment["spec"].get("minReadySeconds") or 0


def _ensure_new(steps: Plan, deployment: Object, strategy: Strategy) -> None:
    if steps.new is None:
        steps.new = fresh(deployment, next_revision(steps.old))
        steps.new.replicas = _room_for_new(steps, strategy)
        note_size(steps.new, strategy)
    else:
        _adopt_revision(steps, deployment)


def _resize(each: Sized, replicas: int, strategy: Strategy) -> bool:
    if each.replicas == replicas:
        return False
    each.replicas = replicas
    note_size(each, strategy)
    return True


def _active(sets: Sequence[Sized]) -> list[Sized]:
    return [each for each in sets if each.replicas > 0]


def _total(sets: Sequence[Sized]) -> int:
    return sum(each.replicas for each in sets)


def _present(sets: Sequence[Sized]) -> int:
    return sum(each.present for each in sets)


def _room_for_new(steps: Plan, strategy: Strategy) -> int:
    """The size that the new set may grow to now."""
    own = steps.new.replicas if steps.new is not None else 0
    if not strategy.rolling:
        return strategy.replicas
    room = strategy.most - _present(steps.every)
    return min(own + room, strategy.replicas) if room > 0 else own


def _roll(steps: Plan, deployment: Object, strategy: Strategy) -> None:
    """Rolling update: grow the new set as far as surge allows, else shrink old ones as far as availability allows."""
    fresh_one = steps.new is None
    _ensure_new(steps, deployment, strategy)
    new = steps.new
    assert new is not None
    target = strategy.replicas if new.replicas >= strategy.replicas else _room_for_new(steps, strategy)
    if _resize(new, target, strategy) or (fresh_one and new.replicas):
        return
    if not _shrink_old(steps, new, strategy) and status.is_complete(deployment, deployment.get("status") or {}):
        _clean_up(steps, deployment)


def _shrink_old(steps: Plan, new: Sized, strategy: Strategy) -> bool:
    """Take away old pods: first those that are not available, then as many as may be missed."""
    old = _active(steps.old)
    if not old:
        return False
    spare = _total(steps.every) - strategy.least - (new.replicas - new.available)
    if spare <= 0:
        return False
    shrunk = False
    for each in old:
        sick = min(each.replicas - each.available, spare)
        if sick > 0:
            shrunk |= _resize(each, each.replicas - sick, strategy)
            spare -= sick
    spare = sum(each.available for each in [*old, new]) - strategy.least
    for each in old:
        if spare <= 0:
            break
        fewer = min(each.replicas, spare)
        shrunk |= _resize(each, each.replicas - fewer, strategy)
        spare -= fewer
    return shrunk


def _recreate(steps: Plan, deployment: Object, strategy: Strategy, old_pods: bool) -> None:
    """Recreate: nothing new before everything old is gone."""
    _adopt_revision(steps, deployment)
    active = _active(steps.old)
    for each in active:
        _resize(each, 0, strategy)
    if active:
        return
    if old_pods or any(each.count("replicas") for each in steps.old):
        return
    _ensure_new(steps, deployment, strategy)
    assert steps.new is not None
    _resize(steps.new, strategy.replicas, strategy)
    if status.is_complete(deployment, deployment.get("status") or {}):
        _clean_up(steps, deployment)


def _was_scaled(steps: Plan, strategy: Strategy) -> bool:
    """Whether the Deployment's size is not the one that its sets were made for."""
    sizes = (noted(each.annotations, DESIRED) for each in _active(steps.every))
    return any(size is not None and size != strategy.replicas for size in sizes)


def _scale(steps: Plan, deployment: Object, strategy: Strategy) -> None:
    """A change of size in the middle of a rollout is shared out in proportion, so that it does not hasten it."""
    active = _active(steps.every)
    if len(active) <= 1:
        only = active[0] if active else (steps.new or (steps.old[-1] if steps.old else None))
        if only is not None:
            leaving = _present(steps.every) - only.present if strategy.rolling else 0
            _resize(only, max(min(strategy.replicas, strategy.most - leaving), 0), strategy)
        return
    if _saturated(steps.new, strategy):
        for each in _active(steps.old):
            _resize(each, 0, strategy)
        return
    if strategy.rolling:
        _share_out(active, deployment, strategy)


def _saturated(new: Sized | None, strategy: Strategy) -> bool:
    return (
        new is not None
        and new.replicas == strategy.replicas == new.count("availableReplicas")
        and noted(new.annotations, DESIRED) == strategy.replicas
    )


def _share_out(active: list[Sized], deployment: Object, strategy: Strategy) -> None:
    allowed = strategy.most if strategy.replicas > 0 else 0
    change = allowed - _total(active)
    if change > 0:
        change = max(allowed - _present(active), 0)
    newest_first = change > 0
    order = list(reversed(active)) if newest_first else list(active)
    order.sort(key=lambda each: -each.replicas)
    given = 0
    sizes: list[int] = []
    for each in order:
        share = 0
        if change and change != given:
            left = change - given
            fraction = _fraction(each, deployment, strategy)
            share = min(fraction, left) if change > 0 else max(fraction, left)
        sizes.append(each.replicas + share)
        given += share
    if change:
        sizes[0] = max(sizes[0] + change - given, 0)
    for each, size in zip(order, sizes, strict=True):
        each.replicas = size
        note_size(each, strategy)


def _fraction(each: Sized, deployment: Object, strategy: Strategy) -> int:
    """How many more (or fewer) pods this set gets, by its share before the change."""
    if strategy.replicas == 0:
        return -each.replicas
    before = noted(each.annotations, MOST) or int((deployment.get("status") or {}).get("replicas") or 0)
    if not before:
        return 0
    size = each.replicas * strategy.most / before
    return int(size + 0.5) - each.replicas


def _clean_up(steps: Plan, deployment: Object) -> None:
    """Old sets without pods go when there are more than the history's limit."""
    limit = deployment["spec"].get("revisionHistoryLimit")
    if limit is None or limit == _UNLIMITED:
        return
    kept = [each for each in steps.old if not each.body["metadata"].get("deletionTimestamp")]
    kept.sort(key=lambda each: each.revision)
    for each in kept[: max(len(kept) - limit, 0)]:
        behind = each.body["metadata"].get("generation", 0) > each.count("observedGeneration")
        if not each.replicas and not each.count("replicas") and not behind:
            steps.delete.append(each.body)
