"""/statusz and /flagz: what a component is, since when, and with which flags.

Owns their three forms: text for people, JSON and YAML for who names the kind. Made by `cluster` for each component that
answers over HTTP, from release 1.36 on, where both are on by default. Source: KEP-4827, KEP-4828; component-base's
zpages (forms, headers, words).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from steersman.api import errors
from steersman.lib.clock import Clock, rfc3339
from steersman.lib.http.messages import Request, Response

SINCE = (1, 36)
"""The first release that has the pages without being asked."""

_GROUP, _NEWEST, _OLDER = "config.k8s.io", "v1beta1", "v1alpha1"
_TEXT, _JSON, _YAML = "text/plain", "application/json", "application/yaml"
_WARNING = (
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is "
    "for debugging purposes only.\n"
)


@dataclass(frozen=True)
class Component:
    """Who tells: its name, the release that it serves, its flags as they were given or are in effect, its paths."""

    name: str
    release: str
    flags: Mapping[str, str]
    paths: Sequence[str]


class Pages:
    """The two pages of one component, which began when this was made."""

    def __init__(self, component: Component, clock: Clock) -> None:
        self._component = component
        self._clock = clock
        self._began = clock.now()

    def __call__(self, request: Request, user: object = None) -> Response | None:
        """A page, or None where the path is another. Raises ApiError 406."""
        kind = {"/statusz": "Statusz", "/flagz": "Flagz"}.get(request.path)
        if kind is None:
            return None
        media, version = _chosen(request.header("accept") or "", kind)
        if media == _TEXT:
            lines = self._status_lines() if kind == "Statusz" else self._flag_lines()
            text = f"\n{self._component.name} {request.path[1:]}\n{_WARNING}{''.join(lines)}"
            return Response(200, [("content-type", f"{_TEXT}; charset=utf-8")], text.encode())
        made = {"kind": kind, "apiVersion": f"{_GROUP}/{version}", "metadata": {"name": self._component.name}}
        made |= self._status() if kind == "Statusz" else {"flags": dict(sorted(self._component.flags.items()))}
        headers = [("content-type", f"{media};g={_GROUP};v={version};as={kind}")]
        if version == _OLDER:
            words = f"This version of the {request.path[1:]} endpoint is deprecated. Please use a newer version."
            headers.append(("warning", f'299 - "{words}"'))
        return Response(200, headers, _encoded(made, media))

    def _status(self) -> dict[str, Any]:
        return {
            "startTime": rfc3339(self._began),
            "uptimeSeconds": self._uptime,
            "goVersion": "",
            "binaryVersion": self._component.release,
            "emulationVersion": self._component.release,
            "paths": list(self._component.paths),
        }

    @property
    def _uptime(self) -> int:
        return int(self._clock.now() - self._began)

    def _status_lines(self) -> list[str]:
        hours, left = divmod(self._uptime, 3600)
        began = datetime.fromtimestamp(self._began, UTC).strftime("%a %b %e %H:%M:%S UTC %Y")
        shown = {
            "Started": began,
            "Up": f"{hours} hr {left // 60:02} min {left % 60:02} sec",
            "Go version": "",
            "Binary version": self._component.release,
            "Emulation version": self._component.release,
            "Paths": " ".join(self._component.paths),
        }
        return ["\n", *(f"{name}:  {value}\n" for name, value in shown.items())]

    def _flag_lines(self) -> list[str]:
        return [f"{name}={value}\n" for name, value in sorted(self._component.flags.items())]


def _chosen(accept: str, kind: str) -> tuple[str, str]:
    """The media type, and the version of the kind unless it is text. Raises ApiError 406."""
    for clause in accept.split(",") if accept else ["*/*"]:
        media, *rest = (part.strip() for part in clause.split(";"))
        wanted = dict(part.split("=", 1) for part in rest if "=" in part)
        if media in (_JSON, _YAML) and (wanted.get("g"), wanted.get("as")) == (_GROUP, kind):
            if wanted.get("v") in (_NEWEST, _OLDER):
                return media, wanted["v"]
        elif media in ("*/*", "text/*", _TEXT) and "as" not in wanted:
            return _TEXT, ""
    raise errors.not_acceptable(f"only the following media types are accepted: {_JSON}, {_YAML}, {_TEXT}")


def _encoded(made: Mapping[str, Any], media: str) -> bytes:
    if media == _JSON:
        return msgspec.json.encode(made) + b"\n"
    from steersman.api import yamlform  # here: hardly anybody asks for it

    return yamlform.dump(made)
