"""What a KubeSchedulerConfiguration file may contain, and its strict reading.

Owns the table of fields and types of kubescheduler.config.k8s.io/v1, and the words for what does not fit: those of
the original's decoder. Called by the package. Pure. Source: k8s.io/kube-scheduler/config/v1, apimachinery's decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.api.validation import quote

_RANGES = {"int32": 2**31, "int64": 2**63}


class ConfigurationError(ValueError):
    """The configuration cannot be used; the text is the original's."""


@dataclass(frozen=True, slots=True)
class Struct:
    """A Go struct: its name and its fields' types."""

    name: str
    fields: Mapping[str, Type]
    meta: bool = False  # whether kind and apiVersion belong to it


@dataclass(frozen=True, slots=True)
class ListOf:
    """A slice."""

    of: Type


Type = str | Struct | ListOf
"""A Go type: string, int32, int64, float32, bool, v1.Duration, [](byte), any, a struct or a list."""

_PLUGIN = Struct("Plugin", {"name": "string", "weight": "int32"})
_SET = Struct("PluginSet", {"enabled": ListOf(_PLUGIN), "disabled": ListOf(_PLUGIN)})
POINTS = (
    "preFilter", "filter", "postFilter", "reserve", "preScore", "score", "preBind", "bind", "postBind", "permit",
    "preEnqueue", "queueSort", "placementGenerate", "placementScore",
)  # fmt: skip
_PLUGINS = Struct("Plugins", {**dict.fromkeys(POINTS, _SET), "multiPoint": _SET})
_PROFILE = Struct(
    "KubeSchedulerProfile",
    {
        "schedulerName": "string",
        "percentageOfNodesToScore": "int32",
        "plugins": _PLUGINS,
        "pluginConfig": ListOf(Struct("PluginConfig", {"name": "string", "args": "any"})),
    },
)
_TLS = Struct(
    "ExtenderTLSConfig",
    {
        "insecure": "bool",
        **dict.fromkeys(("serverName", "certFile", "keyFile", "caFile"), "string"),
        **dict.fromkeys(("certData", "keyData", "caData"), "string"),
    },
)
_MANAGED = Struct("ExtenderManagedResource", {"name": "string", "ignoredByScheduler": "bool"})
_EXTENDER = Struct(
    "Extender",
    {
        **dict.fromkeys(("urlPrefix", "filterVerb", "preemptVerb", "prioritizeVerb", "bindVerb"), "string"),
        **dict.fromkeys(("enableHTTPS", "nodeCacheCapable", "ignorable"), "bool"),
        "weight": "int64",
        "tlsConfig": _TLS,
        "httpTimeout": "duration",
        "managedResources": ListOf(_MANAGED),
    },
)
_ELECTION = Struct(
    "LeaderElectionConfiguration",
    {
        "leaderElect": "bool",
        **dict.fromkeys(("leaseDuration", "renewDeadline", "retryPeriod"), "duration"),
        **dict.fromkeys(("resourceLock", "resourceName", "resourceNamespace"), "string"),
    },
)
_CONNECTION = Struct(
    "ClientConnectionConfiguration",
    {
        **dict.fromkeys(("kubeconfig", "acceptContentTypes", "contentType"), "string"),
        "qps": "float32",
        "burst": "int32",
    },
)
CONFIGURATION = Struct(
    "KubeSchedulerConfiguration",
    {
        "parallelism": "int32",
        "leaderElection": _ELECTION,
        "clientConnection": _CONNECTION,
        "enableProfiling": "bool",
        "enableContentionProfiling": "bool",
        "percentageOfNodesToScore": "int32",
        "podInitialBackoffSeconds": "int64",
        "podMaxBackoffSeconds": "int64",
        "profiles": ListOf(_PROFILE),
        "extenders": ListOf(_EXTENDER),
        "delayCacheUntilActive": "bool",
    },
    meta=True,
)

_SHAPE = ListOf(Struct("UtilizationShapePoint", {"utilization": "int32", "score": "int32"}))
_RESOURCES = ListOf(Struct("ResourceSpec", {"name": "string", "weight": "int64"}))
_REQUIREMENT = Struct("NodeSelectorRequirement", {"key": "string", "operator": "string", "values": ListOf("string")})
_TERM = Struct("NodeSelectorTerm", {"matchExpressions": ListOf(_REQUIREMENT), "matchFields": ListOf(_REQUIREMENT)})
_AFFINITY = Struct(
    "NodeAffinity",
    {
        "requiredDuringSchedulingIgnoredDuringExecution": Struct("NodeSelector", {"nodeSelectorTerms": ListOf(_TERM)}),
        "preferredDuringSchedulingIgnoredDuringExecution": ListOf(
            Struct("PreferredSchedulingTerm", {"weight": "int32", "preference": _TERM})
        ),
    },
)
_CONSTRAINT = Struct(
    "TopologySpreadConstraint",
    {
        "maxSkew": "int32",
        "minDomains": "int32",
        **dict.fromkeys(("topologyKey", "whenUnsatisfiable", "nodeAffinityPolicy", "nodeTaintsPolicy"), "string"),
        "labelSelector": "any",
        "matchLabelKeys": ListOf("string"),
    },
)
_STRATEGY = Struct(
    "ScoringStrategy",
    {
        "type": "string",
        "resources": _RESOURCES,
        "requestedToCapacityRatio": Struct("RequestedToCapacityRatioParam", {"shape": _SHAPE}),
    },
)


def _args(plugin: str, fields: Mapping[str, Type]) -> tuple[str, Struct]:
    return plugin, Struct(f"{plugin}Args", fields, meta=True)


ARGS: Mapping[str, Struct] = dict(
    (
        _args("DefaultPreemption", {"minCandidateNodesPercentage": "int32", "minCandidateNodesAbsolute": "int32"}),
        _args("DynamicResources", {"filterTimeout": "duration", "bindingTimeout": "duration"}),
        _args("InterPodAffinity", {"hardPodAffinityWeight": "int32", "ignorePreferredTermsOfExistingPods": "bool"}),
        _args("NodeAffinity", {"addedAffinity": _AFFINITY}),
        _args("NodeResourcesBalancedAllocation", {"resources": _RESOURCES}),
        _args(
            "NodeResourcesFit",
            {
                "ignoredResources": ListOf("string"),
                "ignoredResourceGroups": ListOf("string"),
                "scoringStrategy": _STRATEGY,
            },
        ),
        _args("PodTopologySpread", {"defaultConstraints": ListOf(_CONSTRAINT), "defaultingType": "string"}),
        _args("VolumeBinding", {"bindTimeoutSeconds": "int64", "shape": _SHAPE}),
    )
)
"""The arguments of the plugins that have any."""


def read(value: Any, struct: Struct) -> tuple[dict[str, Any], list[str]]:
    """The object without nulls and unknown fields, and those fields by their paths.

    Raises ConfigurationError for a value of the wrong type.
    """
    unknown: list[str] = []
    return _Walk(unknown).struct(value, struct, "", ()), unknown


class _Walk:
    def __init__(self, unknown: list[str]) -> None:
        self._unknown = unknown

    def struct(self, value: Any, struct: Struct, path: str, names: tuple[str, ...]) -> dict[str, Any]:
        found = {}
        for key, item in value.items():
            of = struct.fields.get(key)
            here = f"{path}.{key}" if path else key
            if of is None:
                if not (struct.meta and key in ("kind", "apiVersion")):
                    self._unknown.append(here)
            elif item is not None:
                found[key] = self._value(item, of, here, (*names, key), struct)
        return found

    def _value(self, value: Any, of: Type, path: str, names: tuple[str, ...], within: Struct) -> Any:
        if of == "any":
            return value
        if isinstance(of, Struct):
            if value is not None and not isinstance(value, dict):
                raise _mismatch(value, of, names, within)
            return self.struct(value or {}, of, path, names)
        if isinstance(of, ListOf):
            if not isinstance(value, list):
                raise _mismatch(value, of, names, within)
            return [self._value(item, of.of, f"{path}[{at}]", names, within) for at, item in enumerate(value)]
        if value is None and of == "string":
            return ""
        if not _fits(value, of):
            raise _mismatch(value, of, names, within)
        if of == "duration":
            seconds(value)
        return value


def _fits(value: Any, of: str) -> bool:
    if of in _RANGES:
        limit = _RANGES[of]
        return isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit
    if of == "float32":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, bool if of == "bool" else str)


def _mismatch(value: Any, of: Type, names: Sequence[str], within: Struct) -> ConfigurationError:
    kind = {bool: "bool", str: "string", list: "array", dict: "object"}.get(type(value), "number")
    if kind == "number" and isinstance(of, str) and of in _RANGES:
        kind = f"number {value}"
    field = f"Go struct field {within.name}.{'.'.join(names)}"
    return ConfigurationError(f"json: cannot unmarshal {kind} into {field} of type {_spelled(of)}")


def _spelled(of: Type) -> str:
    if isinstance(of, ListOf):
        return f"[]{_spelled(of.of)}"
    return f"v1.{of.name}" if isinstance(of, Struct) else "string" if of == "duration" else of


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """A Go duration such as 1m30s. Raises ConfigurationError."""
    rest = text.lstrip("+-")
    if rest == "0":
        return 0.0
    total = 0.0
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        letters = next((at for at, letter in enumerate(rest) if letter in "0123456789."), len(rest))
        unit, rest = rest[:letters], rest[letters:]
        if not number.strip(".") or number.count(".") > 1:
            raise ConfigurationError(f"time: invalid duration {quote(text)}")
        if unit not in _UNITS:
            missing = "missing unit in" if not unit else f"unknown unit {quote(unit)} in"
            raise ConfigurationError(f"time: {missing} duration {quote(text)}")
        total += float(number) * _UNITS[unit]
    if not text.lstrip("+-"):
        raise ConfigurationError(f"time: invalid duration {quote(text)}")
    return -total if text.startswith("-") else total
