"""NodeAffinity: nodeSelector and node affinity, by label columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steersman.client import nodefit
from steersman.scheduler.columns import ABSENT, Columns, Mask
from steersman.scheduler.framework import Event, Hint, Kind, Plugin, Rejection, Scores, always, normalized
from steersman.scheduler.podinfo import PodInfo

_ENFORCED = "node(s) didn't match scheduler-enforced node affinity"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_REASON = "node(s) didn't match Pod's node affinity/selector"


def expression(columns: Columns, requirement: Mapping[str, Any]) -> Mask:
    """Nodes that satisfy one requirement: In, NotIn, Exists, DoesNotExist, Gt, Lt (core/v1 NodeSelectorRequirement)."""
    column = columns.label(requirement["key"])
    operator, values = requirement.get("operator"), requirement.get("values") or []
    present = column.codes != ABSENT
    if operator == "Exists":
        return present
    if operator == "DoesNotExist":
        return ~present
    if operator in ("In", "NotIn"):
        wanted = np.array([column.values[value] for value in values if value in column.values], np.int32)
        inside = np.isin(column.codes, wanted)
        return inside if operator == "In" else ~inside
    if operator in ("Gt", "Lt") and len(values) == 1:
        return _ordered(column.values, column.codes, operator, values[0])
    return np.zeros(len(present), np.bool_)


def _ordered(values: Mapping[str, int], codes: np.ndarray[Any, Any], operator: str, bound: str) -> Mask:
    """Numeric comparison, made once per distinct value."""
    try:
        limit = int(bound)
    except ValueError:
        return np.zeros(len(codes), np.bool_)
    good = []
    for text, code in values.items():
        try:
            number = int(text)
        except ValueError:
            continue
        if number > limit if operator == "Gt" else number < limit:
            good.append(code)
    return np.isin(codes, np.array(good, np.int32))


def term(columns: Columns, selector: Mapping[str, Any]) -> Mask:
    """Nodes that satisfy every requirement of one term; an empty term matches none."""
    expressions = selector.get("matchExpressions") or []
    fields = selector.get("matchFields") or []
    if not expressions and not fields:
        return np.zeros(len(columns.live), np.bool_)
    mask = np.ones(len(columns.live), np.bool_)
    for requirement in (*expressions, *fields):
        mask &= expression(columns, requirement)
    return mask


def matching(columns: Columns, pod: PodInfo) -> Mask | None:
    """Nodes that suit the pod's selector and required affinity; None when it has neither."""
    if not pod.node_selector and pod.required_terms is None:
        return None
    mask = np.ones(len(columns.live), np.bool_)
    for key, value in pod.node_selector.items():
        mask &= expression(columns, {"key": key, "operator": "In", "values": [value]})
    if pod.required_terms is not None:
        mask &= any_of(columns, pod.required_terms)
    return mask


def any_of(columns: Columns, terms: Sequence[Mapping[str, Any]]) -> Mask:
    """Nodes that one of the terms of a NodeSelector means."""
    mask = np.zeros(len(columns.live), np.bool_)
    for selector in terms:
        mask |= term(columns, selector)
    return mask


def make(args: Mapping[str, Any]) -> Plugin:
    """With the affinity that the profile adds to every pod's."""
    added = args.get("addedAffinity") or {}
    required, preferred = added.get(_REQUIRED), added.get(_PREFERRED) or ()
    if required is None and not preferred:
        return Plugin("NodeAffinity", filter=filter, score=score, hints=_HINTS)

    def enforced(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
        if required is None:
            return filter(columns, pod)
        mask = any_of(columns, required.get("nodeSelectorTerms") or ())
        return [Rejection(~mask, _ENFORCED, resolvable=False), *filter(columns, pod)]

    return Plugin(
        "NodeAffinity",
        filter=enforced,
        score=lambda columns, pod, feasible: score(columns, pod, feasible, preferred),
        hints={"node added": always, "node labels": always} if required is not None else _HINTS,
    )


def _suits(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A node is what the pod asks for, and was not."""
    spec = pod.pod["spec"]
    now = event.new is not None and nodefit.matches(spec, event.new)
    return now and (event.old is None or not nodefit.matches(spec, event.old))


_HINTS: Mapping[Kind, Hint] = {"node added": _suits, "node labels": _suits}


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse nodes that do not match."""
    mask = matching(columns, pod)
    return () if mask is None else (Rejection(~mask, _REASON, resolvable=False),)


def score(columns: Columns, pod: PodInfo, feasible: Mask, added: Sequence[Mapping[str, Any]] = ()) -> Scores | None:
    """The sum of the weights of the preferred terms that match, the pod's and those added by the profile."""
    if not pod.preferred_terms and not added:
        return None
    total = np.zeros(len(feasible), np.float64)
    for preference in (*pod.preferred_terms, *added):
        selector = preference.get("preference") or {}
        empty = not selector.get("matchExpressions") and not selector.get("matchFields")
        total += preference["weight"] * (1 if empty else term(columns, selector))
    return normalized(total, feasible)
