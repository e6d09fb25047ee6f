"""The formats of strings in the schemas of custom resources.

Owns which text has which format; a format that is not known here is no format, as in the original. Called for every
such string of a custom object. Pure. Source: apiextensions-apiserver's pkg/apiserver/validation/formats.go and
kube-openapi's pkg/validation/strfmt.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import date, time
from ipaddress import ip_interface

from steersman.api import durations, names

_UUID = "^[0-9a-f]{8}-?[0-9a-f]{4}-?%s[0-9a-f]{3}-?%s[0-9a-f]{3}-?[0-9a-f]{12}$"
_HEX = "[0-9a-f]"
_PATTERNS = {
    "uuid": _UUID % (_HEX, _HEX),
    "uuid3": _UUID % ("3", _HEX),
    "uuid4": _UUID % ("4", "[89ab]"),
    "uuid5": _UUID % ("5", "[89ab]"),
    "hexcolor": "^#?([0-9a-f]{3}|[0-9a-f]{6})$",
    "bsonobjectid": "^[0-9a-f]{24}$",
    "ssn": r"^\d{3}[- ]?\d{2}[- ]?\d{4}$",
    "mac": "^([0-9a-f]{2}([:-][0-9a-f]{2}){5}(([:-][0-9a-f]{2}){2})?|[0-9a-f]{4}(\\.[0-9a-f]{4}){2,3})$",
}
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"(\d\d:\d\d:\d\d)(?:.\d+)?(?:z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_WORDS = re.compile(r"\d+\s*(n|u|µ|mi?|s|h|d|w)", re.ASCII | re.IGNORECASE)  # 22 ns, 1 day
_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.-]*:|/)[^\s\x00-\x1f\x7f]*", re.ASCII | re.IGNORECASE)
_PERCENT = re.compile(r"%(?![0-9a-f]{2})", re.IGNORECASE)
_MAIL = re.compile(r"[^\s@<>,;:]+@[^\s@<>,;:]+|[^<>@]*<[^\s@<>]+@[^\s@<>]+>")


_LABEL = r"[^\W_](?:(?:[^\W_]|-){0,61}[^\W_])?"
_HOST = re.compile(rf"[^\W_]-?[^\W_]{{0,62}}|(?:{_LABEL}\.)+[^\W\d_]{{2,63}}")


def _host(text: str) -> bool:
    return bool(_HOST.fullmatch(text)) and len(text) <= 255


def _date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return text.startswith("0000-")  # a year that Go has
    return True


def _moment(text: str) -> bool:
    day, _, clock = text.replace("t", "T").partition("T")
    found = _TIME.fullmatch(clock)
    if not found or not _date(day):
        return False
    try:
        time.fromisoformat(found[1])
    except ValueError:
        return False
    return True


def _address(text: str, mark: str) -> bool:
    """An address with a dot or a colon in it; Go's reader here takes zeros at the start of a number."""
    if mark not in text or "/" in text or "%" in text:
        return False
    return _network(text)


def _network(text: str) -> bool:
    plain = re.sub(r"(?<![0-9a-fA-F:])0+(?=\d+\.)|(?<=\.)0+(?=\d)", "", text) if "." in text else text
    try:
        ip_interface(plain)
    except ValueError:
        return False
    return True


def _cidr(text: str) -> bool:
    _, slash, bits = text.partition("/")
    return bool(slash) and bits.isdecimal() and _network(text)


def _bytes(text: str) -> bool:
    try:
        base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _duration(text: str) -> bool:
    try:
        durations.seconds(text)
    except ValueError:
        return bool(_WORDS.search(text))
    return True


def _uri(text: str) -> bool:
    return bool(_SCHEME.fullmatch(text)) and not _PERCENT.search(text)


def _pattern(text: str) -> Callable[[str], bool]:
    compiled = re.compile(text, re.ASCII | re.IGNORECASE)
    return lambda value: bool(compiled.match(value)) and not value.endswith("\n")


_KNOWN: Mapping[str, Callable[[str], bool]] = {
    **{name: _pattern(text) for name, text in _PATTERNS.items()},
    "date": _date,
    "datetime": _moment,
    "ipv4": lambda text: _address(text, ".") and ":" not in text,
    "ipv6": lambda text: _address(text, ":"),
    "cidr": _cidr,
    "byte": _bytes,
    "duration": _duration,
    "uri": _uri,
    "hostname": _host,
    "email": lambda text: bool(_MAIL.fullmatch(text)),
    "k8sshortname": lambda text: not names.dns_label(text),
    "k8slongname": lambda text: not names.dns_subdomain(text),
}


def has(text: str, wanted: str) -> bool:
    """Whether a text has a format; any has one that is not known."""
    check = _KNOWN.get(wanted.replace("-", ""))
    return check is None or check(text)


def fits(value: float, wanted: str) -> bool:
    """Whether a number has the format of a number: int32, int64, float."""
    if wanted == "int32":
        return -(2**31) <= value < 2**31
    if wanted == "float":
        return abs(value) <= 3.4028234663852886e38
    return True
