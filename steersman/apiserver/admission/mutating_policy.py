"""MutatingAdmissionPolicy: changes in CEL, bound to what they are made to.

Owns the order of the changes, who is asked again, and what happens when one cannot be made. Called by the admission
chain. Source: KEP-3962 and apiserver's pkg/admission/plugin/policy/mutating.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from functools import partial

import msgspec

from steersman.api import cel, errors, mutations, policies
from steersman.api.errors import ApiError
from steersman.api.mutations import MutationError
from steersman.api.patch.types import Type
from steersman.api.resource import Object
from steersman.apiserver import managed
from steersman.apiserver.admission import asking, bindings, matching, rights
from steersman.apiserver.admission.bindings import Bound
from steersman.apiserver.call import Call


@dataclass(frozen=True, slots=True)
class _Invocation:
    """One policy, one binding, one parameter."""

    bound: Bound
    version: str
    params: Object | None

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from the others of a request."""
        metadata = (self.params or {}).get("metadata") or {}
        return (*self.bound.names, metadata.get("namespace") or "", metadata.get("name") or "")


def mutate(call: Call, obj: Object | None, old: Object | None) -> Awaitable[None] | None:
    """Run every policy that concerns the request. Raises ApiError when one could not, and may not be ignored."""
    if obj is None or call.kind.group == matching.GROUP:
        return None
    found = list(bindings.bound(call, "mutatingadmissionpolicies"))
    return _mutate(call, found, obj, old) if found else None


async def _mutate(call: Call, found: list[Bound], obj: Object, old: Object | None) -> None:
    rounds, asked = call.rounds, call.rounds.asked("MutatingAdmissionPolicy")
    failed: list[tuple[Bound, str, str]] = []
    todo = list(_invocations(call, found, obj, old, failed))
    if rounds.second:
        asked.resume(obj)
    for each in todo:
        if not await _meant(call, each, obj, old, failed) or (rounds.second and not asked.due(each.key)):
            continue
        if await _mutations(call, each, obj, old, failed):
            asked.changed()
            rounds.wanted = True
        if each.bound.policy["spec"].get("reinvocationPolicy") == "IfNeeded":
            asked.willing(each.key)
    asked.leave(obj)
    if strict := [each for each in failed if each[0].strict]:
        raise _refused(call, matching.name_of(call, obj), strict)


def _invocations(
    call: Call, found: list[Bound], obj: Object, old: Object | None, failed: list[tuple[Bound, str, str]]
) -> Iterator[_Invocation]:
    for each in found:
        version = bindings.version_for(call, each, obj, old)
        if not version:
            continue
        try:
            chosen = bindings.params(call, each)
        except bindings.Misconfigured as error:
            failed.append((each, "", f"failed to configure binding: {error}"))
            continue
        for params in chosen:
            yield _Invocation(each, version, params)


def _run(call: Call, each: _Invocation, obj: Object, old: Object | None, budget: int) -> policies.Run:
    spec = each.bound.policy["spec"]
    given = asking.values(call, obj, old, each.version)
    if spec.get("paramKind"):
        given["params"] = each.params
    return policies.Run(given, policies.variables_of(spec), budget)


async def _meant(
    call: Call, each: _Invocation, obj: Object, old: Object | None, failed: list[tuple[Bound, str, str]]
) -> bool:
    """Whether the match conditions hold."""
    wanted = each.bound.policy["spec"].get("matchConditions")
    if not wanted:
        return True
    holds, wrong = await rights.settled(
        call, lambda: policies.conditions(wanted, _run(call, each, obj, old, policies.CONDITIONS_BUDGET))
    )
    if wrong:
        failed.append((each.bound, "Invalid", wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]"))
    return holds


async def _mutations(
    call: Call, each: _Invocation, obj: Object, old: Object | None, failed: list[tuple[Bound, str, str]]
) -> bool:
    """Make one invocation's changes, one after the other. True when anything changed."""
    before = msgspec.json.encode(obj, order="deterministic")
    for mutation in each.bound.policy["spec"].get("mutations") or ():
        try:
            changed = await rights.settled(call, partial(_mutated, call, each, mutation, obj, old))
        except (MutationError, cel.CelError) as error:
            failed.append((each.bound, "Invalid", str(error)))
            continue
        if changed is not None:
            matching.replace(call, obj, changed)
    return msgspec.json.encode(obj, order="deterministic") != before


def _mutated(call: Call, each: _Invocation, mutation: Object, obj: Object, old: Object | None) -> Object | None:
    """What one mutation makes of the object, in the policy's version; None: what it was."""
    run = _run(call, each, obj, old, policies.BUDGET)
    shown = matching.in_version(call, obj, each.version)
    if shown is None:
        return None
    if mutation.get("patchType") == "ApplyConfiguration":
        source = (mutation.get("applyConfiguration") or {}).get("expression") or ""
        value = run.value(source.strip(), (policies.APPLIED,), structs=True)
        merged = mutations.applied(shown, value, _type_of(call, shown, each.version))
        return matching.typed(call, merged, each.version, strict=False)
    source = (mutation.get("jsonPatch") or {}).get("expression") or ""
    patched = mutations.patched(shown, run.value(source.strip(), (policies.PATCHES,), structs=True))
    return None if patched is None else matching.typed(call, patched, each.version, strict=True)


def _type_of(call: Call, obj: Object, version: str) -> Type:
    """The type of what is changed. Raises MutationError for a subresource's own object: the original knows none."""
    if call.apart:
        version = str(obj.get("apiVersion"))
        named = version if "/" in version else f"/{version}"
        raise MutationError(
            "error applying patch: failed to convert patch object to typed object: no corresponding type for "
            f"{named}, Kind={obj.get('kind')}"
        )
    return managed.type_of(call, version)


def _refused(call: Call, name: str, failed: list[tuple[Bound, str, str]]) -> ApiError:
    """403, with a cause for each failure and the first one's words and reason."""
    texts = ["policy '{}' with binding '{}' denied request: {}".format(*bound.names, why) for bound, _, why in failed]
    error = errors.forbidden(call.kind.group, call.kind.plural, name, "")
    causes = {**error.details, "causes": [{"message": text} for text in texts]}
    return ApiError(403, failed[0][1] or "Forbidden", texts[0], causes)
