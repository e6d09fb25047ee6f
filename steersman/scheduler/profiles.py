"""Profiles: which plugins one schedulerName asks, in which order, with what weights and arguments.

Owns the merging of a profile's plugin sets with the default ones. Called by the loop when it starts. Pure. Source:
kube-scheduler's apis/config/v1/default_plugins.go and framework/runtime/framework.go (expandMultiPointPlugins).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steersman.api.validation import quote
from steersman.scheduler.configuration import DEFAULT_SCHEDULER, Configuration, ProfileConfig, aggregated
from steersman.scheduler.configuration.args import Args, at_start, defaulted
from steersman.scheduler.configuration.fields import POINTS, ConfigurationError
from steersman.scheduler.framework import Plugin
from steersman.scheduler.plugins import KNOWN, Known, installed
from steersman.scheduler.preemption import Candidates

_Chosen = list[tuple[str, int]]  # name and weight, 0 for the default one
_MOST = 2**63 - 1  # the sum of all weighted scores
_BEST = 100


@dataclass(frozen=True, slots=True)
class Profile:
    """What one schedulerName asks. `candidates` None: nobody is evicted; `gates` False: no gate holds a pod."""

    name: str
    filters: tuple[Plugin, ...]
    reserves: tuple[Plugin, ...]
    scores: tuple[Plugin, ...]
    gates: bool
    candidates: Candidates | None
    holds: tuple[Plugin, ...] = ()
    rescues: tuple[Plugin, ...] = ()


Observe = Callable[[str, str, str, float], None]
"""Told of a plugin, its extension point, the outcome and the seconds it took."""


def timed(profile: Profile, observe: Observe, now: Callable[[], float]) -> Profile:
    """The same profile, every run of its plugins measured."""

    def measured(name: str, point: str, run: Callable[..., Any] | None) -> Callable[..., Any] | None:
        if run is None:
            return None

        def wrapped(*args: Any) -> Any:
            began, status = now(), "Error"
            try:
                found = run(*args)
                status = "Unschedulable" if point == "PreFilter" and found is not None else "Success"
                return found
            finally:
                observe(name, point, status, now() - began)

        return wrapped

    def of(plugin: Plugin) -> Plugin:
        return replace(
            plugin,
            admit=measured(plugin.name, "PreFilter", plugin.admit),
            filter=measured(plugin.name, "Filter", plugin.filter),
            narrow=measured(plugin.name, "Filter", plugin.narrow),
            filter_row=measured(plugin.name, "Filter", plugin.filter_row),
            score=measured(plugin.name, "Score", plugin.score),
            score_row=measured(plugin.name, "Score", plugin.score_row),
        )

    return replace(profile, filters=tuple(map(of, profile.filters)), scores=tuple(map(of, profile.scores)))


def make_all(configuration: Configuration, known: Mapping[str, Known] | None = None) -> dict[str, Profile]:
    """Every profile by its name; `known` are all plugins that are installed. Raises ConfigurationError."""
    if known is None:
        try:
            known = installed()
        except (ValueError, ImportError, AttributeError) as error:
            raise ConfigurationError(f"initializing plugins: {error}") from error
    elsewhere = [
        resource["name"]
        for extender in configuration.extenders
        for resource in extender.get("managedResources") or ()
        if resource.get("ignoredByScheduler")
    ]
    return {each.name: make(_without(each, elsewhere), known) for each in configuration.profiles}


def _without(config: ProfileConfig, resources: Sequence[str]) -> ProfileConfig:
    """The profile not looking at resources that extenders manage alone."""
    if not resources:
        return config
    args = config.args.get("NodeResourcesFit") or defaulted("NodeResourcesFit", {})
    args = {**args, "ignoredResources": [*(args.get("ignoredResources") or ()), *resources]}
    return replace(config, args={**config.args, "NodeResourcesFit": args})


def make(config: ProfileConfig, known: Mapping[str, Known] = KNOWN) -> Profile:
    """One profile. Raises ConfigurationError."""
    try:
        return _make(config, known)
    except ConfigurationError as error:
        head = f"initializing profiles: creating profile for scheduler name {config.name}"
        raise ConfigurationError(f"{head}: {error}") from None


def _make(config: ProfileConfig, known: Mapping[str, Known]) -> Profile:
    default = [(name, each.weight) for name, each in known.items() if each.default]
    multi = _merged(default, config.plugins.get("multiPoint") or {})
    sets = {point: _enabled(config.plugins.get(point)) for point in POINTS}
    names = dict.fromkeys([*(name for each in sets.values() for name, _ in each), *(name for name, _ in multi)])
    args = {name: config.args.get(name, defaulted(name, {})) for name in names}
    made = {name: _plugin(name, known[name], args[name]) for name in names if name in known}
    for point, chosen in sets.items():
        _check(point, chosen, known)
    points = {
        point: _expanded(point, chosen, _names(config.plugins.get(point), "disabled"), multi, known)
        for point, chosen in sets.items()
    }
    if (number := len(points["queueSort"])) != 1:
        one = "only one queue sort plugin required for profile with scheduler name"
        raise ConfigurationError(f"{one} {quote(config.name)}, but got {number}")
    if not points["bind"]:
        raise ConfigurationError(
            f"at least one bind plugin is needed for profile with scheduler name {quote(config.name)}"
        )
    weights = _weights([*sets["score"], *multi])
    preempts = args.get("DefaultPreemption") if "DefaultPreemption" in points["postFilter"] else None
    return Profile(
        config.name,
        tuple(
            made[name] for name in points["filter"] if made[name].filter is not None or made[name].narrow is not None
        ),
        tuple(made[name] for name in points["reserve"] if made[name].reserve is not None),
        tuple(replace(made[name], weight=weights[name]) for name in points["score"] if made[name].score is not None),
        gates="SchedulingGates" in points["preEnqueue"],
        candidates=None if preempts is None else _candidates(preempts),
        holds=tuple(made[name] for name in points["preEnqueue"] if made[name].hold is not None),
        rescues=tuple(made[name] for name in points["postFilter"] if made[name].rescue is not None),
    )


def _candidates(args: Args) -> Candidates:
    return Candidates(args["minCandidateNodesAbsolute"], args["minCandidateNodesPercentage"] / 100)


def _plugin(name: str, known: Known, args: Args) -> Plugin:
    if found := at_start(name, args):
        raise ConfigurationError(f"initializing plugin {quote(name)}: {aggregated(found)}")
    if known.make is None:
        return Plugin(name)
    try:
        return known.make(args)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"initializing plugin {quote(name)}: {error}") from error


def _enabled(chosen: Mapping[str, Any] | None) -> _Chosen:
    return [(each.get("name") or "", each.get("weight") or 0) for each in (chosen or {}).get("enabled") or ()]


def _names(chosen: Mapping[str, Any] | None, key: str) -> set[str]:
    return {each.get("name") or "" for each in (chosen or {}).get(key) or ()}


def _merged(default: _Chosen, custom: Mapping[str, Any]) -> _Chosen:
    """The default plugins without those disabled, replaced in place by those given anew; the rest follow."""
    disabled, given = _names(custom, "disabled"), _enabled(custom)
    last = {name: at for at, (name, _) in enumerate(given)}
    kept = [] if "*" in disabled else [each for each in default if each[0] not in disabled]
    replaced = {last[name] for name, _ in kept if name in last}
    out = [given[last[name]] if name in last else (name, weight) for name, weight in kept]
    return out + [each for at, each in enumerate(given) if at not in replaced]


def _kind(point: str) -> str:
    return f"{point[0].upper()}{point[1:]}Plugin"


def _check(point: str, chosen: _Chosen, known: Mapping[str, Known]) -> None:
    seen = set()
    for name, _ in chosen:
        if name not in known:
            raise ConfigurationError(f"{_kind(point)} {quote(name)} does not exist")
        if point not in known[name].points:
            raise ConfigurationError(f"plugin {quote(name)} does not extend {_kind(point)} plugin")
        if name in seen:
            raise ConfigurationError(f"plugin {quote(name)} already registered as {quote(_kind(point))}")
        seen.add(name)


def _expanded(
    point: str, chosen: _Chosen, disabled: set[str], multi: _Chosen, known: Mapping[str, Known]
) -> Sequence[str]:
    """The plugins of one extension point: overrides first, then those of multiPoint, then the others."""
    own = [name for name, _ in chosen]
    if "*" in disabled:
        return own
    everywhere: list[str] = []
    overridden = set()
    for name, _ in multi:
        if name not in known:
            raise ConfigurationError(f"{_kind(point)} {quote(name)} does not exist")
        if point not in known[name].points or name in disabled:
            continue
        if name in own:
            overridden.add(name)
        elif name in everywhere:
            raise ConfigurationError(f"plugin {quote(name)} already registered as {quote(_kind(point))}")
        else:
            everywhere.append(name)
    first = [name for name in own if name in overridden]
    return [*first, *everywhere, *(name for name in own if name not in overridden)]


def _weights(chosen: _Chosen) -> dict[str, int]:
    weights: dict[str, int] = {}
    total = 0
    for name, weight in chosen:
        if name in weights:
            continue
        weights[name] = weight or 1
        if weights[name] * _BEST > _MOST - total or weights[name] < 0:
            raise ConfigurationError("score plugins: total score of Score plugins could overflow")
        total += weights[name] * _BEST
    return weights


DEFAULT = make(ProfileConfig(DEFAULT_SCHEDULER, {}, {}))
"""The original's default profile."""
