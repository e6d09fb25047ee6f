"""As whom an API server asks admission webhooks: the users of a kubeconfig, by where the webhook is.

Owns the choice. Made by the reader of AdmissionConfigurations, called by `webhookpost.py`. Without a file, and where no
user fits, webhooks are asked by nobody in particular. Source: apiserver's pkg/util/webhook/authentication.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steersman.apiserver.webhookclient import credentials, data_of, kubeconfig


@dataclass(frozen=True, slots=True)
class Caller:
    """Headers and, in PEM, a certificate with its key; all may be empty. `name` tells callers apart."""

    name: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    certificate: bytes = b""


NOBODY = Caller()


class Users:
    """The users of one file."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, and ValueError naming what is wrong."""
        config = kubeconfig(path)
        self._callers = {
            str(entry["name"]): _caller(f"{path}#{entry['name']}", path.parent, entry.get("user") or {})
            for entry in config.get("users") or ()
            if isinstance(entry, dict) and entry.get("name")
        }
        contexts = {
            entry.get("name"): entry.get("context") or {}
            for entry in config.get("contexts") or ()
            if isinstance(entry, dict)
        }
        self._current = str(contexts.get(config.get("current-context"), {}).get("user") or "")

    def of(self, host: str, port: int) -> Caller:
        """Who asks a webhook at `host`, or at NAME.NAMESPACE.svc."""
        found = (self._callers[name] for name in _names(host, port, self._current) if name in self._callers)
        return next(found, NOBODY)


def _names(host: str, port: int, current: str) -> Iterator[str]:
    for target in (f"{host}:{port}", *([host] if port == 443 else [])):
        yield target
        steps = target.split(".")
        yield from (f"*.{'.'.join(steps[at:])}" for at in range(1, len(steps)))
    yield "*"
    yield current


def _caller(name: str, folder: Path, user: Mapping[str, Any]) -> Caller:
    certificate = data_of(folder, user, "client-certificate")
    pair = certificate + b"\n" + data_of(folder, user, "client-key") if certificate else b""
    return Caller(name, tuple(credentials(folder, user).items()), pair)
