"""What a request asks for: verb, resource, name, and the parameters every verb shares.

Owns the reading of paths and queries. Called once per request by the pipeline. Pure.
Source: apiserver's pkg/endpoints/request/requestinfo.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from steersman.api import durations, fields
from steersman.api.errors import bad_request, quoted

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
LONG_RUNNING = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_OLD = ("watch", "proxy")  # verbs that stood in the path: /api/v1/watch/...; of proxy nothing is left
_UNREADABLE = re.compile("%(?![0-9a-fA-F]{2})|;")
_NUMBER = re.compile("[+-]?[0-9]{1,4000}", re.ASCII)
_SLASH = re.compile("%2f", re.IGNORECASE)
_NAMESPACE_SUBRESOURCES = ("status", "finalize")


@dataclass(slots=True)
class RequestInfo:
    """A request's target. For a path that is no resource only `verb` (the method, lower case) and `path` are set."""

    path: str
    verb: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    rest: str = ""  # `proxy`: what follows it, still encoded
    asked: str = ""  # list, watch and deletecollection: the one name that the field selector asks
    old: bool = False  # whether the verb stands in the path; where nothing follows it, it is no resource
    seconds: float = 0.0  # that the client gives it (`timeout`); 0: as long as anything may take
    selectors: tuple[str, str] = ("", "")  # field and label selectors of list, watch and deletecollection (KEP-4601)

    @property
    def api_version(self) -> str:
        """`v1`, or `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def about(self) -> str:
        """The one object that it is about, as authorizers see it."""
        return self.name or self.asked

    @property
    def long_running(self) -> bool:
        """Whether it is meant to last: it has no deadline, and is not counted among what is in flight."""
        return self.verb in _OLD or self.subresource in LONG_RUNNING


class Query:
    """Query parameters; of several with one name the first counts, as in Go's url.Values.Get."""

    def __init__(self, text: str) -> None:
        if "%" in text or ";" in text:  # what Go cannot read, it leaves out
            text = "&".join(each for each in text.split("&") if not _UNREADABLE.search(each))
        self._pairs = parse_qsl(text, keep_blank_values=True) if text else []

    def get(self, name: str) -> str:
        """The first value, "" when absent."""
        return next((value for key, value in self._pairs if key == name), "")

    def all(self, name: str) -> list[str]:
        """Every value."""
        return [value for key, value in self._pairs if key == name]

    def has(self, name: str) -> bool:
        """Whether the parameter was given at all."""
        return any(key == name for key, _ in self._pairs)

    def flag(self, name: str) -> bool:
        """A boolean: anything but `0` and `false` is true, even no value, as in the original's conversion."""
        return self.has(name) and self.get(name).lower() not in ("0", "false")

    def number(self, name: str) -> int | None:
        """A whole number, None when absent. Raises ApiError 400."""
        if not self.has(name):
            return None
        value = self.get(name)
        if not _NUMBER.fullmatch(value):
            raise bad_request(f"strconv.ParseInt: parsing {quoted(value)}: invalid syntax")
        if not -(1 << 63) <= int(value) < 1 << 63:
            raise bad_request(f"strconv.ParseInt: parsing {quoted(value)}: value out of range")
        return int(value)


def resolve(method: str, path: str, query: Query) -> RequestInfo:
    """What `method` on `path` (percent-encoded) asks for."""
    head, proxied, tail = path.partition("/proxy/")
    parts = (_SLASH.sub("/", head) + proxied + tail if "%2" in head else path).split("/")  # as Go splits it, decoded
    if len(parts) > 1 and parts[-1] == "":
        parts.pop()
    decoded = parts if "%" not in path else [unquote(part) for part in parts]
    if len(decoded) > 3 and decoded[1] == "api":
        group, version, rest, raw = "", decoded[2], decoded[3:], parts[3:]
    elif len(decoded) > 4 and decoded[1] == "apis":
        group, version, rest, raw = decoded[2], decoded[3], decoded[4:], parts[4:]
    else:
        return RequestInfo(path, method.lower(), seconds=_timeout(query))
    info = RequestInfo(path, _VERBS.get(method, ""), True, group, version)
    if rest[0] in _OLD:
        if len(rest) == 1:
            return RequestInfo(path, rest[0], old=True)
        info.verb, info.old, rest, raw = rest[0], True, rest[1:], raw[1:]
    if rest[0] == "namespaces" and len(rest) > 1:
        info.namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
            rest, raw = rest[2:], raw[2:]
    info.resource = rest[0]
    info.name = rest[1] if len(rest) > 1 else ""
    info.subresource = rest[2] if len(rest) > 2 else ""
    info.rest = "/".join(raw[3:])
    if info.subresource == "proxy" and path.endswith("/") and info.rest:
        info.rest += "/"
    _settle_verb(info, query)
    if not info.long_running:
        info.seconds = _timeout(query)
    return info


def _timeout(query: Query) -> float:
    """Source: apiserver's pkg/endpoints/filters/request_deadline.go. Raises ApiError 400."""
    text = query.get("timeout")
    try:
        return max(0.0, durations.seconds(text)) if text else 0.0
    except ValueError as error:
        raise bad_request(f"invalid timeout specified in the request URL - {error}") from None


def _settle_verb(info: RequestInfo, query: Query) -> None:
    """get of a collection is list, or watch; delete of one is deletecollection."""
    if info.verb == "get" and not info.name:
        info.verb = "watch" if query.flag("watch") else "list"
    elif info.verb == "delete" and not info.name:
        info.verb = "deletecollection"
    if info.verb in ("list", "watch", "deletecollection"):
        info.selectors = (query.get("fieldSelector"), query.get("labelSelector"))
        if not info.name and "metadata.name" in info.selectors[0]:
            info.asked = fields.exact_name(info.selectors[0])
