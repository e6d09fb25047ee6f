"""KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1): a file becomes a checked `Configuration`.

Owns decoding, defaults and rules of the file as a whole; `fields` knows its types, `args` the plugins' arguments. Which
plugins there are is the business of `scheduler.profiles`. Called by `cluster`. Pure. Source: kube-scheduler's
cmd/kube-scheduler/app/options/configfile.go and pkg/scheduler/apis/config.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.schema import yaml
from steersman.api.validation import duplicate, each_invalid, invalid, quote, required
from steersman.scheduler.configuration.args import Args, defaulted, validate
from steersman.scheduler.configuration.fields import ARGS, CONFIGURATION, ConfigurationError, read, seconds

GROUP, VERSION = "kubescheduler.config.k8s.io", "kubescheduler.config.k8s.io/v1"
DEFAULT_SCHEDULER = "default-scheduler"
_HEADER = r"""struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"""
_GONE = ("AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits")
_NATIVE = "kubernetes.io/"


@dataclass(frozen=True, slots=True)
class ProfileConfig:
    """One profile as the file has it: `plugins` by extension point, `args` by plugin, defaulted."""

    name: str
    plugins: Mapping[str, Any]
    args: Mapping[str, Args]


@dataclass(frozen=True, slots=True)
class Configuration:
    """A checked configuration; back-offs in seconds. percentageOfNodesToScore is not kept: all nodes are looked at."""

    profiles: Sequence[ProfileConfig] = (ProfileConfig(DEFAULT_SCHEDULER, {}, {}),)
    initial_backoff: float = 1.0
    max_backoff: float = 10.0
    extenders: Sequence[Mapping[str, Any]] = ()


def named(name: str) -> Configuration:
    """The default configuration with one profile of this name."""
    return Configuration((ProfileConfig(name, {}, {}),))


def load(text: bytes) -> Configuration:
    """Read a configuration, YAML or JSON. Raises ConfigurationError in the original's words."""
    repeated: list[str] = []
    try:
        given = yaml.load(text, repeated)
    except yaml.YamlError as error:
        raise ConfigurationError(str(error).removeprefix("error converting YAML to JSON: ")) from None
    _check_header(given, text.decode(errors="replace"))
    settings, unknown = read(given, CONFIGURATION)
    complaints = [*repeated, *(f"unknown field {quote(path)}" for path in unknown)]
    profiles = [_profile(at, each, complaints) for at, each in enumerate(settings.get("profiles") or [{}])]
    if complaints:
        raise ConfigurationError("strict decoding error: " + ", ".join(complaints))
    if len(profiles) == 1 and "schedulerName" not in profiles[0]:
        profiles[0]["schedulerName"] = DEFAULT_SCHEDULER
    if found := _validate(settings, profiles):
        raise ConfigurationError(aggregated(found))
    return Configuration(
        tuple(ProfileConfig(each["schedulerName"], each.get("plugins") or {}, dict(each["args"])) for each in profiles),
        float(settings.get("podInitialBackoffSeconds", 1)),
        float(settings.get("podMaxBackoffSeconds", 10)),
        tuple(settings.get("extenders") or ()),
    )


def aggregated(errors: Iterable[FieldError]) -> str:
    """Several complaints as one text, each once (apimachinery's Aggregate)."""
    texts = list(dict.fromkeys(str(each) for each in errors))
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _check_header(given: Any, text: str) -> None:
    if given is None:
        given = {}
    if not isinstance(given, dict):
        kind = {bool: "bool", str: "string", list: "array"}.get(type(given), "number")
        why = f"json: cannot unmarshal {kind} into Go value of type {_HEADER}"
        raise ConfigurationError(f"couldn't get version/kind; json parse error: {why}")
    kind, version = given.get("kind"), given.get("apiVersion")
    if not kind:
        raise ConfigurationError(f"Object 'Kind' is missing in '{text}'")
    if not version:
        raise ConfigurationError(f"Object 'apiVersion' is missing in '{text}'")
    if (kind, version) != ("KubeSchedulerConfiguration", VERSION):
        scheme = 'in scheme "pkg/runtime/scheme.go:111"'
        raise ConfigurationError(f"no kind {quote(kind)} is registered for version {quote(version)} {scheme}")


def _profile(at: int, given: Mapping[str, Any], complaints: list[str]) -> dict[str, Any]:
    """A profile with the arguments of its plugins decoded and defaulted, in the order of the file."""
    args = []
    for i, entry in enumerate(given.get("pluginConfig") or ()):
        name = entry.get("name") or ""
        where = f"decoding .profiles[{at}].pluginConfig[{i}]"
        args.append((name, _args(name, entry.get("args"), where, complaints)))
    return {**given, "args": args}


def _args(name: str, given: Any, where: str, complaints: list[str]) -> Args:
    struct = ARGS.get(name)
    if struct is None:
        return given or {}
    decoding = f"decoding args for plugin {name}"
    if given is None:
        return defaulted(name, {})
    if not isinstance(given, dict):
        kind = {bool: "bool", str: "string", list: "array"}.get(type(given), "number")
        why = f"json: cannot unmarshal {kind} into Go value of type {_HEADER}"
        raise ConfigurationError(f"{where}: {decoding}: couldn't get version/kind; json parse error: {why}")
    if (kind := given.get("kind") or struct.name) != struct.name:
        wrong = f"were not of type {struct.name}.{GROUP}, got {kind}.{GROUP}"
        raise ConfigurationError(f"{where}: args for plugin {name} {wrong}")
    try:
        checked, unknown = read(given, struct)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {decoding}: {error}") from None
    if unknown:
        texts = ", ".join(f"unknown field {quote(path)}" for path in unknown)
        complaints.append(f"{where}: strict decoding error: {decoding}: strict decoding error: {texts}")
    return defaulted(name, checked)


def _validate(settings: Mapping[str, Any], profiles: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    found = _connections(settings)
    if (parallelism := settings.get("parallelism", 16)) <= 0:
        found.append(invalid("parallelism", parallelism, "should be an integer value greater than zero"))
    seen: set[str] = set()
    for at, profile in enumerate(profiles):
        found += _validate_profile(f"profiles[{at}]", profile)
        name = profile.get("schedulerName", "")
        if name in seen:
            found.append(duplicate(f"profiles[{at}].schedulerName", {}))  # the original shows a path, which has no JSON
        seen.add(name)
    found += _same_order(profiles)
    found += _percentage("percentageOfNodesToScore", settings)
    first, most = settings.get("podInitialBackoffSeconds", 1), settings.get("podMaxBackoffSeconds", 10)
    if first <= 0:
        found.append(invalid("podInitialBackoffSeconds", first, "must be greater than 0"))
    if most < first:
        text = "must be greater than or equal to PodInitialBackoffSeconds"
        found.append(invalid("podMaxBackoffSeconds", most, text))
    return found + _extenders(settings.get("extenders") or ())


def _connections(settings: Mapping[str, Any]) -> list[FieldError]:
    found = []
    if (burst := (settings.get("clientConnection") or {}).get("burst") or 0) < 0:
        found.append(invalid("clientConnection.burst", burst, "must be non-negative"))
    given = settings.get("leaderElection") or {}
    if not given.get("leaderElect", True):
        return found
    usual = {"leaseDuration": "15s", "renewDeadline": "10s", "retryPeriod": "2s"}
    times = {key: given.get(key) or value for key, value in usual.items()}
    for key, text in times.items():
        if seconds(text) <= 0:
            found.append(invalid(f"leaderElection.{key}", text, "must be greater than zero"))
    if seconds(times["leaseDuration"]) <= seconds(times["renewDeadline"]):
        text = "must be greater than `RenewDeadline`"
        found.append(invalid("leaderElection.leaseDuration", times["renewDeadline"], text))
    if (lock := given.get("resourceLock") or "leases") != "leases":
        found.append(invalid("leaderElection.resourceLock", lock, 'resourceLock value must be "leases"'))
    return found


def _percentage(path: str, given: Mapping[str, Any]) -> list[FieldError]:
    share = given.get("percentageOfNodesToScore") or 0
    return [] if 0 <= share <= 100 else [invalid(path, share, "not in valid range [0-100]")]


def _validate_profile(path: str, profile: Mapping[str, Any]) -> list[FieldError]:
    found = [] if profile.get("schedulerName") else [required(f"{path}.schedulerName")]
    found += _percentage(f"{path}.percentageOfNodesToScore", profile)
    gone = f'was invalid in version "v1" (KubeSchedulerConfiguration is version "{VERSION}")'
    for point, chosen in (profile.get("plugins") or {}).items():
        for i, each in enumerate((chosen or {}).get("enabled") or ()):
            if each.get("name") in _GONE and point != "multiPoint":
                found.append(invalid(f"{path}.plugins.{point}.enabled[{i}]", each["name"], gone))
    seen: set[str] = set()
    for i, (name, args) in enumerate(profile["args"]):
        here = f"{path}.pluginConfig[{i}]"
        if name in seen:
            found.append(duplicate(here, name))
        seen.add(name)
        found += [invalid(here, name, gone)] if name in _GONE else validate(name, f"{here}.args", args)
    return found


def _same_order(profiles: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    """All profiles share one queue, so they sort alike."""
    found = []
    sorts = [(profile.get("plugins") or {}).get("queueSort") or {} for profile in profiles]
    if (number := len(sorts[0].get("enabled") or ())) > 1:
        text = "only one queue sort plugin can be enabled"
        found.append(invalid("profiles[0].plugins.queueSort.Enabled", number, text))
    for at, sort in enumerate(sorts):
        if _plain(sort) != _plain(sorts[0]):
            text = f"Invalid value: {_plain(sort)}: must be the same for all profiles"
            found.append(FieldError("FieldValueInvalid", f"profiles[{at}].plugins.queueSort", text))
    return found


def _plain(chosen: Mapping[str, Any]) -> str:
    """A plugin set as Go prints the internal type in JSON."""

    def listed(plugins: Sequence[Mapping[str, Any]] | None) -> str:
        if not plugins:
            return "null"
        each = (f'{{"Name":{quote(p.get("name", ""))},"Weight":{p.get("weight") or 0}}}' for p in plugins)
        return f"[{','.join(each)}]"

    return f'{{"Enabled":{listed(chosen.get("enabled"))},"Disabled":{listed(chosen.get("disabled"))}}}'


def _extenders(extenders: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    found, managed = [], set()
    for at, each in enumerate(extenders):
        path = f"extenders[{at}]"
        if each.get("prioritizeVerb") and (each.get("weight") or 0) <= 0:
            text = "must have a positive weight applied to it"
            found.append(invalid(f"{path}.weight", each.get("weight") or 0, text))
        for i, resource in enumerate(each.get("managedResources") or ()):
            here, name = f"{path}.managedResources[{i}].name", resource.get("name", "")
            complaints = each_invalid(here, name, names.qualified(name))
            if not complaints and not extended(name):
                complaints = [invalid(here, name, "is an invalid extended resource name")]
            found += complaints
            if name in managed:
                found.append(invalid(here, name, "duplicate extender managed resource name"))
            managed.add(name)
    if (binders := sum(bool(each.get("bindVerb")) for each in extenders)) > 1:
        text = f"found {binders} extenders implementing bind"
        found.append(invalid("extenders", text, "only one extender can implement bind"))
    return found


def extended(resource: str) -> bool:
    """Whether a resource is neither Kubernetes' own nor a quota's (core helper IsExtendedResourceName)."""
    return "/" in resource and _NATIVE not in resource and not resource.startswith("requests.")


__all__ = ["Configuration", "ConfigurationError", "ProfileConfig", "extended", "load", "named"]
