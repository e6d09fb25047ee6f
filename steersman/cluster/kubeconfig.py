"""kubeconfig files: the administrator's own, and the entry in the user's.

Owns the context that `steer up` adds and `steer delete` takes away; everything else in a user's file is kept as it is.
Source: the kubeconfig format of client-go (clientcmd/api/v1).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class KubeconfigError(Exception):
    """The user's file cannot be read or written; it was left as it is."""


def user_file() -> Path:
    """The first file that KUBECONFIG names, else ~/.kube/config."""
    named = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(named[0]) if named else Path.home() / ".kube" / "config"


def entry(name: str, server: str, pki: Path, identity: str) -> dict[str, Any]:
    """A whole kubeconfig with one cluster, user and context, all called `name`; certificates are embedded."""

    def embedded(file: str) -> str:
        return base64.b64encode((pki / file).read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": embedded("ca.crt")}
    user = {
        "client-certificate-data": embedded(f"{identity}.crt"),
        "client-key-data": embedded(f"{identity}.key"),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
        "current-context": name,
    }


def write(path: Path, config: dict[str, Any]) -> None:
    """Write a file that only its owner can read, atomically."""
    import yaml  # here: it costs a start milliseconds

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.dump(config, file, Dumper=yaml.CSafeDumper, sort_keys=False)
    temporary.replace(path.resolve() if path.is_symlink() else path)


def _read(path: Path) -> dict[str, Any]:
    import yaml  # here: it costs a start milliseconds

    try:
        config = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    except FileNotFoundError:
        return {"apiVersion": "v1", "kind": "Config"}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise KubeconfigError(f"cannot read {path}: {str(error).splitlines()[0]}; it was left as it is") from error
    if config is None:
        return {"apiVersion": "v1", "kind": "Config"}
    if not isinstance(config, dict) or any(
        not isinstance(config.get(part) or [], list) for part in ("clusters", "users", "contexts")
    ):
        raise KubeconfigError(f"cannot read {path}: it is not a kubeconfig; it was left as it is")
    return config


def _without(items: list[dict[str, Any]] | None, name: str) -> list[dict[str, Any]]:
    return [item for item in items or [] if not (isinstance(item, dict) and item.get("name") == name)]


def merge(path: Path, new: dict[str, Any], *, current: bool = True) -> None:
    """Put `new`'s entries into the file at `path`, and make its context current or not. Raises KubeconfigError."""
    with _locked(path):
        config = _read(path)
        for part in ("clusters", "users", "contexts"):
            config[part] = _without(config.get(part), new["current-context"]) + new[part]
        if current:
            config["current-context"] = new["current-context"]
        write(path, config)


def remove(path: Path, name: str) -> None:
    """Take the entries called `name` out of the file at `path`. Raises KubeconfigError."""
    if not path.exists():
        return
    with _locked(path):
        config = _read(path)
        before = {part: config.get(part) or [] for part in ("clusters", "users", "contexts")}
        after = {part: _without(items, name) for part, items in before.items()}
        if before == after:
            return
        config |= after
        if config.get("current-context") == name:
            config["current-context"] = ""
        write(path, config)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time. The lock is on the folder, so that nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def has(path: Path, name: str) -> bool:
    """Whether the file at `path` has a context called `name`. Raises KubeconfigError."""
    return any(isinstance(item, dict) and item.get("name") == name for item in _read(path).get("contexts") or [])
