"""Admission plugins' settings: files of the kind AdmissionConfiguration.

Owns their reading, and that a plugin that needs settings has them; what a plugin's own part means is the plugin's.
Called by `apiserver.py`. Source: apiserver's pkg/admission/config.go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from steersman.apiserver.admission import (
    event_rate_limit,
    image_policy,
    limited,
    pod_node_selector,
    pod_tolerations,
    webhooks,
)
from steersman.apiserver.admission.podsecurity import plugin as podsecurity
from steersman.apiserver.webhookusers import Users
from steersman.cluster.configfile import read_any
from steersman.lib.clock import Clock

_VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1")
_LEGACY = {"imagePolicy": image_policy.NAME, "podNodeSelectorPluginConfig": pod_node_selector.NAME}
_WEBHOOKS = (webhooks.MUTATING, webhooks.VALIDATING)


def _plain(read: Callable[[Any], object]) -> Callable[[Any, Clock], object]:
    return lambda given, clock: read(given)


def _webhooks(given: Any, clock: Clock) -> object:
    """As whom webhooks are asked: a WebhookAdmissionConfiguration's kubeConfigFile."""
    file = (given or {}).get("kubeConfigFile")
    if not file:
        return None
    if not Path(file).is_absolute():
        raise ValueError(f'kubeConfigFile: Invalid value: "{file}": must be an absolute file path')
    return Users(Path(file))


_READERS: Mapping[str, Callable[[Any, Clock], object]] = {
    "PodSecurity": _plain(podsecurity.configuration),
    image_policy.NAME: image_policy.configuration,
    pod_node_selector.NAME: _plain(pod_node_selector.configuration),
    pod_tolerations.NAME: _plain(pod_tolerations.configuration),
    event_rate_limit.NAME: _plain(event_rate_limit.configuration),
    limited.NAME: _plain(limited.configuration),
    **dict.fromkeys(_WEBHOOKS, _webhooks),
}  # fmt: skip


def read(path: Path | None, plugins: Collection[str], clock: Clock) -> dict[str, object]:
    """The settings of `plugins`, by name; who needs some has them without a file too.

    Raises OSError, and ValueError naming what is wrong.
    """
    entries = _entries(path) if path is not None else {}
    out = {}
    for name in plugins:
        if (reader := _READERS.get(name)) is None:
            continue
        try:
            out[name] = reader(_stated(path, entries[name]) if path and name in entries else None, clock)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f'couldn\'t init admission plugin "{name}": {error}') from error
    return out


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """What a file says of each plugin that it names, whether that runs or not."""
    config = read_any(path)
    if "kind" not in config and (old := [name for key, name in _LEGACY.items() if key in config]):
        return {name: {"configuration": config} for name in old}
    if config.get("kind") != "AdmissionConfiguration":
        raise ValueError(f"{path}: not an AdmissionConfiguration")
    if config.get("apiVersion") not in _VERSIONS:
        version = config.get("apiVersion")
        raise ValueError(f'{path}: no kind "AdmissionConfiguration" is registered for version "{version}"')
    found: dict[str, dict[str, Any]] = {}
    for entry in config.get("plugins") or ():
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ValueError(f"{path}: {entry!r} is no plugin's entry")
        found.setdefault(entry["name"], entry)
    return found


def _stated(path: Path, entry: dict[str, Any]) -> Any:
    stated = entry.get("configuration")
    return read_any(path.parent / str(entry["path"])) if stated is None and entry.get("path") else stated
