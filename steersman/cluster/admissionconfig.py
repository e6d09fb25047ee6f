"""Admission plugins' settings: files of the kind AdmissionConfiguration.

Owns their reading; what a plugin's own part means is the plugin's. Called by `apiserver.py`. Source: apiserver's
pkg/admission/config.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from steersman.apiserver.admission.podsecurity import plugin as podsecurity

_READERS: Mapping[str, Callable[[Any], object]] = {"PodSecurity": podsecurity.configuration}


def read(path: Path) -> dict[str, object]:
    """The settings by plugin. Raises OSError, and ValueError naming what is wrong."""
    config = _yaml(path)
    if config.get("kind") != "AdmissionConfiguration":
        raise ValueError(f"{path}: not an AdmissionConfiguration")
    out = {}
    for entry in config.get("plugins") or ():
        if not isinstance(entry, dict) or entry.get("name") not in _READERS:
            name = entry.get("name") if isinstance(entry, dict) else entry
            raise ValueError(f"{path}: the plugin {name!r} takes no settings here, only {', '.join(_READERS)}")
        given = entry.get("configuration")
        if given is None:
            given = _yaml(path.parent / str(entry.get("path", "")))
        try:
            out[entry["name"]] = _READERS[entry["name"]](given)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: {entry['name']}: {error}") from error
    return out


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not an object")
    return found
