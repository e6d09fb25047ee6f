"""The arguments of the plugins: what they are when nobody says, and what they must not be.

Owns defaults and rules of every `*Args` kind, in the original's words. Called by the package. Pure. Source:
kube-scheduler's pkg/scheduler/apis/config/v1/defaults.go and validation/validation_pluginargs.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.validation import duplicate, each_invalid, forbidden, invalid, not_supported, required
from steersman.scheduler.configuration.fields import seconds

Args = Mapping[str, Any]
Rule = Callable[[str, Args], list[FieldError]]

STRATEGIES = ("LeastAllocated", "MostAllocated", "RequestedToCapacityRatio")
MOST_SCORE = 10  # of a point of a shape
_RESOURCES = ({"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1})
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_DEFAULTS: Mapping[str, Args] = {
    "DefaultPreemption": {"minCandidateNodesPercentage": 10, "minCandidateNodesAbsolute": 100},
    "DynamicResources": {"filterTimeout": "10s", "bindingTimeout": "600s"},
    "InterPodAffinity": {"hardPodAffinityWeight": 1, "ignorePreferredTermsOfExistingPods": False},
    "NodeAffinity": {},
    "NodeResourcesBalancedAllocation": {"resources": _RESOURCES},
    "NodeResourcesFit": {"scoringStrategy": {"type": "LeastAllocated", "resources": _RESOURCES}},
    "PodTopologySpread": {"defaultingType": "System"},
    "VolumeBinding": {"bindTimeoutSeconds": 600},
}


def defaulted(plugin: str, given: Args) -> Args:
    """The arguments with what was not given filled in."""
    out = {**_DEFAULTS.get(plugin, {}), **given}
    if plugin == "NodeResourcesBalancedAllocation":
        out["resources"] = _weighed(out["resources"])
    elif plugin == "NodeResourcesFit":
        strategy = out["scoringStrategy"]
        out["scoringStrategy"] = {**strategy, "resources": _weighed(strategy.get("resources"))}
    elif plugin == "PodTopologySpread":
        out["defaultingType"] = out["defaultingType"] or "System"
    return out


def _weighed(resources: Sequence[Args] | None) -> list[Args]:
    return [{**each, "weight": each.get("weight") or 1} for each in resources or _RESOURCES]


def validate(plugin: str, path: str, args: Args) -> list[FieldError]:
    """What is wrong with defaulted arguments."""
    rule = _RULES.get(plugin)
    return rule(path, args) if rule is not None else []


def at_start(plugin: str, args: Args) -> list[FieldError]:
    """What only the plugin itself finds wrong when it is made, without the path of the file."""
    return _fit(args) if plugin == "NodeResourcesFit" else []


def _preemption(path: str, args: Args) -> list[FieldError]:
    percentage, absolute = f"{path}.minCandidateNodesPercentage", f"{path}.minCandidateNodesAbsolute"
    share, number = args["minCandidateNodesPercentage"], args["minCandidateNodesAbsolute"]
    found = []
    if not 0 <= share <= 100:
        found.append(invalid(percentage, share, "not in valid range [0, 100]"))
    if number < 0:
        found.append(invalid(absolute, number, "not in valid range [0, inf)"))
    if share == 0 and number == 0:
        found.append(invalid(percentage, 0, "cannot be zero at the same time as minCandidateNodesAbsolute"))
        found.append(invalid(absolute, 0, "cannot be zero at the same time as minCandidateNodesPercentage"))
    return found


def _pod_affinity(path: str, args: Args) -> list[FieldError]:
    weight = args["hardPodAffinityWeight"]
    here = f"{path}.hardPodAffinityWeight"
    return [] if 0 <= weight <= 100 else [invalid(here, weight, "not in valid range [0, 100]")]


def _spread(path: str, args: Args) -> list[FieldError]:
    kind, constraints = args["defaultingType"], args.get("defaultConstraints") or ()
    found = []
    if kind not in ("System", "List"):
        found.append(not_supported(f"{path}.defaultingType", kind, ("System", "List")))
    elif kind == "System" and constraints:
        found.append(invalid(f"{path}.defaultingType", kind, "when .defaultConstraints are not empty"))
    seen = set()
    for at, each in enumerate(constraints):
        here = f"{path}.defaultConstraints[{at}]"
        found += _constraint(here, each)
        pair = (each.get("topologyKey", ""), each.get("whenUnsatisfiable", ""))
        if pair in seen:
            found.append(duplicate(here, f"{{{pair[0]}, {pair[1]}}}"))
        seen.add(pair)
    return found


def _constraint(path: str, given: Args) -> list[FieldError]:
    skew, key, action = given.get("maxSkew", 0), given.get("topologyKey", ""), given.get("whenUnsatisfiable", "")
    found = []
    if skew <= 0:
        found.append(invalid(f"{path}.maxSkew", skew, "not in valid range (0, inf)"))
    if not key:
        found.append(required(f"{path}.topologyKey", "can not be empty"))
    else:
        found += each_invalid(f"{path}.topologyKey", key, names.qualified(key))
    if not action:
        found.append(required(f"{path}.whenUnsatisfiable", "can not be empty"))
    elif action not in ("DoNotSchedule", "ScheduleAnyway"):
        found.append(not_supported(f"{path}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway")))
    if given.get("labelSelector") is not None:
        text = "constraint must not define a selector, as they deduced for each pod"
        found.append(forbidden(f"{path}.labelSelector", text))
    return found


def _balanced(path: str, args: Args) -> list[FieldError]:
    found, seen = [], set()
    for at, each in enumerate(args["resources"]):
        here, name = f"{path}.resources[{at}]", each.get("name", "")
        if name in seen:
            found.append(duplicate(f"{here}.name", name))
        seen.add(name)
        if each["weight"] != 1:
            found.append(invalid(f"{here}.weight", each["weight"], "must be 1"))
    return found


def _node_affinity(path: str, args: Args) -> list[FieldError]:
    added = args.get("addedAffinity") or {}
    here = f"{path}.addedAffinity"
    found = []
    for at, term in enumerate((added.get(_REQUIRED) or {}).get("nodeSelectorTerms") or ()):
        found += _term(f"{here}.{_REQUIRED}.nodeSelectorTerms[{at}]", term)
    for at, each in enumerate(added.get(_PREFERRED) or ()):
        if each.get("weight"):
            found += _term(f"{here}.{_PREFERRED}[{at}]", each.get("preference") or {})
    return found


def _term(path: str, term: Args) -> list[FieldError]:
    found = []
    for at, each in enumerate(term.get("matchExpressions") or ()):
        found += _expression(f"{path}.matchExpressions[{at}]", each)
    for at, each in enumerate(term.get("matchFields") or ()):
        here, operator = f"{path}.matchFields[{at}]", each.get("operator", "")
        if operator not in ("In", "NotIn"):
            found.append(not_supported(f"{here}.operator", operator, ("In", "NotIn")))
        elif len(each.get("values") or ()) != 1:
            found.append(invalid(f"{here}.values", each.get("values"), "must have one element"))
    return found


def _expression(path: str, given: Args) -> list[FieldError]:
    key, operator, values = given.get("key", ""), given.get("operator", ""), given.get("values") or []
    if operator not in _OPERATORS:
        return [not_supported(f"{path}.operator", operator, _OPERATORS)]
    found = each_invalid(f"{path}.key", key, names.qualified(key))
    if operator in ("In", "NotIn") and not values:
        found.append(invalid(f"{path}.values", values, "for 'in', 'notin' operators, values set can't be empty"))
    if operator in ("Exists", "DoesNotExist") and values:
        text = "values set must be empty for exists and does not exist"
        found.append(invalid(f"{path}.values", values, text))
    if operator in ("Gt", "Lt") and len(values) != 1:
        text = "for 'Gt', 'Lt' operators, exactly one value is required"
        found.append(invalid(f"{path}.values", values, text))
    for at, value in enumerate(values):
        if operator in ("Gt", "Lt") and not value.lstrip("-").isdecimal():
            text = "for 'Gt', 'Lt' operators, the value must be an integer"
            found.append(invalid(f"{path}.values[{at}]", value, text))
        else:
            found += each_invalid(f"{path}.values[{at}]", value, names.label_value(value))
    return found


def _binding(path: str, args: Args) -> list[FieldError]:
    found, wait = [], args["bindTimeoutSeconds"]
    if wait < 0:
        text = "invalid BindTimeoutSeconds, should not be a negative value"
        found.append(invalid(f"{path}.bindTimeoutSeconds", wait, text))
    if (shape := args.get("shape")) is not None:
        shown = [{"Utilization": each.get("utilization", 0), "Score": each.get("score", 0)} for each in shape]
        text = "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring"
        found.append(FieldError("FieldValueInvalid", f"{path}.shape", f"Invalid value: {_json(shown)}: {text}", shape))
    return found


def _json(points: Sequence[Mapping[str, int]]) -> str:
    return "[" + ",".join(f'{{"Utilization":{p["Utilization"]},"Score":{p["Score"]}}}' for p in points) + "]"


def _devices(path: str, args: Args) -> list[FieldError]:
    found = []
    if seconds(args["filterTimeout"]) < 0:
        found.append(invalid(f"{path}.filterTimeout", args["filterTimeout"], "must be zero or positive"))
    if seconds(args["bindingTimeout"]) < 1:
        found.append(invalid(f"{path}.bindingTimeout", args["bindingTimeout"], "must be at least 1 second"))
    return found


def _fit(args: Args) -> list[FieldError]:
    found = []
    for at, name in enumerate(args.get("ignoredResources") or ()):
        found += each_invalid(f"ignoredResources[{at}]", name, names.qualified(name))
    for at, group in enumerate(args.get("ignoredResourceGroups") or ()):
        here = f"ignoredResourceGroups[{at}]"
        if "/" in group:
            found.append(invalid(here, group, "resource group name can't contain '/'"))
        found += each_invalid(here, group, names.qualified(group))
    return found + _strategy(args["scoringStrategy"])


def _strategy(strategy: Args) -> list[FieldError]:
    kind, ratio, path = strategy.get("type", ""), strategy.get("requestedToCapacityRatio"), "scoringStrategy"
    found = [] if kind in STRATEGIES else [not_supported(f"{path}.type", kind, STRATEGIES)]
    for at, each in enumerate(strategy["resources"]):
        if not 0 < each["weight"] <= 100:
            text = f"resource weight of {each.get('name', '')} not in valid range (0, 100]"
            found.append(invalid(f"{path}.resources[{at}].weight", each["weight"], text))
    if kind != "RequestedToCapacityRatio":
        if ratio is not None:
            text = "must be nil when type is not RequestedToCapacityRatio"
            found.append(forbidden(f"{path}.requestedToCapacityRatio", text))
    elif ratio is None:
        text = "must be specified when type is RequestedToCapacityRatio"
        found.append(required(f"{path}.requestedToCapacityRatio", text))
    else:
        found += _shape(f"{path}.requestedToCapacityRatio.shape", ratio.get("shape") or ())
    return found


def _shape(path: str, shape: Sequence[Args]) -> list[FieldError]:
    if not shape:
        return [required(path, "at least one point must be specified")]
    found, used = [], [point.get("utilization", 0) for point in shape]
    for at in range(1, len(shape)):
        if used[at - 1] >= used[at]:
            found.append(invalid(f"{path}[{at}].utilization", used[at], "values must be sorted in increasing order"))
            break
    for at, point in enumerate(shape):
        if not 0 <= used[at] <= 100:
            found.append(invalid(f"{path}[{at}].utilization", used[at], "not in valid range [0, 100]"))
        if not 0 <= (score := point.get("score", 0)) <= MOST_SCORE:
            found.append(invalid(f"{path}[{at}].score", score, f"not in valid range [0, {MOST_SCORE}]"))
    return found


_RULES: Mapping[str, Rule] = {
    "DefaultPreemption": _preemption,
    "DynamicResources": _devices,
    "InterPodAffinity": _pod_affinity,
    "NodeAffinity": _node_affinity,
    "NodeResourcesBalancedAllocation": _balanced,
    "PodTopologySpread": _spread,
    "VolumeBinding": _binding,
}
