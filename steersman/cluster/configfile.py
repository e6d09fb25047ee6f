"""Files that an API server is configured by: YAML of a kind of apiserver.config.k8s.io, without unknown fields.

Owns their reading as far as it is the same for every kind. Called by `authorizers.py`, `issuers.py` and
`admissionconfig.py`. What the fields mean is theirs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steersman.api.resource import Object

_VERSIONS = tuple(f"apiserver.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))


def read(path: Path, kind: str) -> Object:
    """The object of that kind, in a version that is known. Raises OSError, and ValueError naming what is wrong."""
    config = _loaded(path)
    if config is None and kind == "AuthorizationConfiguration":
        return {}  # an empty file says nothing, which is not enough
    if config is None:
        raise ValueError("empty config data")
    if not isinstance(config, dict):
        raise ValueError(f"{path}: not an {kind}")
    given, version = config.get("kind"), config.get("apiVersion")
    if given != kind or version not in _VERSIONS:
        where = 'in scheme "pkg/runtime/scheme.go:111"'
        raise ValueError(f'no kind "{given or ""}" is registered for version "{version or ""}" {where}')
    return config


def read_any(path: Path) -> Object:
    """The object, of whatever kind. Raises OSError, ValueError."""
    found = _loaded(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not an object")
    return found


def only(given: Any, where: str, *known: str) -> None:
    """Refuse what is no object, or has a field that is not known. Raises ValueError naming the field."""
    if not isinstance(given, dict):
        raise ValueError(f"{where}: not an object")
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f'strict decoding error: unknown field "{f"{where}.".lstrip(".")}{unknown[0]}"')


def _loaded(path: Path) -> Any:
    import yaml  # here: it costs a start milliseconds

    try:
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
