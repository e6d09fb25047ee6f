"""Regular expressions, URLs, named formats, semantic versions. Source: apiserver's pkg/cel/library."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from steersman.api import names
from steersman.api.cel.functions import Overload, define, matching, scan
from steersman.api.cel.operators import regex
from steersman.api.cel.syntax import CelError
from steersman.api.cel.values import NONE, Opaque, Optional, timestamp

URL, FORMAT, SEMVER = "kubernetes.URL", "kubernetes.NamedFormat", "kubernetes.Semver"
_VERSION = re.compile(
    r"(0|[1-9]\d{0,18})\.(0|[1-9]\d{0,18})\.(0|[1-9]\d{0,18})(?:-([0-9A-Za-z.-]+))?(?:\+([0-9A-Za-z.-]+))?", re.ASCII
)


def _find(value: str, pattern: str) -> str:
    found = regex(pattern).search(value)
    return str(found.group()) if found else ""


def _find_all(value: str, pattern: str, most: int = -1) -> list[str]:
    found = [str(each.group()) for each in regex(pattern).finditer(value)]
    return found if most < 0 else found[:most]


def _url(text: str) -> Opaque:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise CelError(f"URL parse error during conversion from string: {error}") from error
    if not (parts.scheme or text.startswith("/")) or any(ord(each) < 33 for each in text):
        raise CelError(f'URL parse error during conversion from string: parse "{text[:200]}": invalid URI for request')
    return Opaque(URL, parts, text)


def _is(make: Callable[..., Any]) -> Callable[..., bool]:
    def run(*args: Any) -> bool:
        try:
            make(*args)
        except CelError:
            return False
        return True

    return run


def _host(url: Opaque) -> str:
    return str(url.value.netloc.rpartition("@")[2])


def _hostname(url: Opaque) -> str:
    host = _host(url)
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _query(url: Opaque) -> dict[str, list[str]]:
    return parse_qs(url.value.query, keep_blank_values=True)


def _uuid(text: str) -> list[str]:
    good = re.fullmatch(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", text)
    return [] if good else ["does not match the UUID format"]


def _by(make: Callable[[str], Any], complaint: str) -> Callable[[str], list[str]]:
    def run(text: str) -> list[str]:
        try:
            make(text)
        except (CelError, ValueError):
            return [complaint]
        return []

    return run


def _byte(text: str) -> list[str]:
    good = re.fullmatch(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", text)
    return [] if good else ["invalid base64"]


_FORMATS: dict[str, Callable[[str], list[str]]] = {
    "dns1123Label": names.dns_label,
    "dns1123Subdomain": names.dns_subdomain,
    "dns1035Label": names.dns1035_label,
    "qualifiedName": names.qualified,
    "dns1123LabelPrefix": lambda text: names.label_name(text, True),
    "dns1123SubdomainPrefix": lambda text: names.subdomain_name(text, True),
    "dns1035LabelPrefix": lambda text: names.dns1035_name(text, True),
    "labelValue": names.label_value,
    "uri": _by(_url, "invalid URI"),
    "uuid": _uuid,
    "byte": _byte,
    "date": _by(lambda text: timestamp(f"{text}T00:00:00Z"), "invalid date"),
    "datetime": _by(timestamp, "invalid datetime"),
}


def _named(name: str) -> Optional:
    found = _FORMATS.get(name)
    return Optional(True, Opaque(FORMAT, found, name)) if found else NONE


def _validate(form: Opaque, text: str) -> Optional:
    found = form.value(text)
    return Optional(True, found) if found else NONE


def _identifier(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if text.isdigit() else (1, 0, text)


def semver(text: str, normalize: bool = False) -> Opaque:
    """A semantic version, with `normalize` from what is nearly one. Raises CelError."""
    if normalize:
        text = _normalized(text)
    found = _VERSION.fullmatch(text)
    pre = (found[4] or "").split(".") if found and found[4] else []
    if found is None or any(not each or (each.isdigit() and len(each) > 1 and each[0] == "0") for each in pre):
        raise CelError("No Major.Minor.Patch elements found" if text.count(".") < 2 else f"Invalid version: {text}")
    core = (int(found[1]), int(found[2]), int(found[3]))
    return Opaque(SEMVER, core, (core, not pre, [_identifier(each) for each in pre]))


def _normalized(text: str) -> str:
    text = text.removeprefix("v")
    core, mark, rest = re.fullmatch(r"([^-+]*)([-+]?)(.*)", text, re.S).groups()  # type: ignore[union-attr]
    parts = [each.lstrip("0") or "0" for each in core.split(".")]
    return ".".join([*parts, "0", "0"][: max(3, len(parts))]) + mark + rest


def _versus(a: Opaque, b: Opaque) -> int:
    return int(a.key > b.key) - int(a.key < b.key)


TABLE: list[Overload] = [
    *define(_find, "string.find(string) string", price=matching),
    *define(_find_all, "string.findAll(string) list(string)", "string.findAll(string, int) list(string)",
            price=matching),
    *define(_url, f"url(string) {URL}", price=scan(0)),
    *define(_is(_url), "isURL(string) bool", price=scan(0)),
    *define(lambda url: url.value.scheme, f"{URL}.getScheme() string"),
    *define(_host, f"{URL}.getHost() string"),
    *define(_hostname, f"{URL}.getHostname() string"),
    *define(lambda url: str(url.value.port or ""), f"{URL}.getPort() string"),
    *define(lambda url: url.value.path, f"{URL}.getEscapedPath() string"),
    *define(_query, f"{URL}.getQuery() map(string, list(string))"),
    *[
        each
        for name in _FORMATS
        for each in define(lambda name=name: Opaque(FORMAT, _FORMATS[name], name), f"~format.{name}() {FORMAT}")
    ],
    *define(_named, f"~format.named(string) optional_type({FORMAT})"),
    *define(_validate, f"{FORMAT}.validate(string) optional_type(list(string))", price=scan(1)),
    *define(semver, f"semver(string) {SEMVER}", f"semver(string, bool) {SEMVER}", price=scan(0)),
    *define(_is(semver), "isSemver(string) bool", "isSemver(string, bool) bool", price=scan(0)),
    *define(lambda a: a.value[0], f"{SEMVER}.major() int"),
    *define(lambda a: a.value[1], f"{SEMVER}.minor() int"),
    *define(lambda a: a.value[2], f"{SEMVER}.patch() int"),
    *define(_versus, f"{SEMVER}.compareTo({SEMVER}) int"),
    *define(lambda a, b: _versus(a, b) > 0, f"{SEMVER}.isGreaterThan({SEMVER}) bool"),
    *define(lambda a, b: _versus(a, b) < 0, f"{SEMVER}.isLessThan({SEMVER}) bool"),
]  # fmt: skip
