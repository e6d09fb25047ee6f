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
_BYTE = r"\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*"
_RGB = re.compile(rf"rgb\({_BYTE},{_BYTE},{_BYTE}\)", re.ASCII)
_SPACES = re.compile(r"[\s-]+", re.ASCII)
_ISBN10, _ISBN13 = re.compile("[0-9]{9}[0-9X]"), re.compile("[0-9]{13}")
_CARD = re.compile(
    r"4\d{12}(\d{3})?|5[1-5]\d{14}|6(011|5\d\d)\d{12}|3[47]\d{13}|3(0[0-5]|[68]\d)\d{11}|(2131|1800|35\d{3})\d{11}",
    re.ASCII,
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"(\d\d:\d\d:\d\d)(?:.\d+)?(?:z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_NUMBERED = re.compile(r"(\d+)\s*([A-Za-zµ]+)", re.ASCII)
_UNITS: tuple[tuple[int | str, ...], ...] = (
    (1, "ns", "nano"),
    (10**3, "us", "µs", "micro"),
    (10**6, "ms", "milli"),
    (10**9, "s", "sec"),
    (60 * 10**9, "m", "min"),
    (3600 * 10**9, "h", "hr", "hour"),
    (86400 * 10**9, "d", "day"),
    (7 * 86400 * 10**9, "w", "wk", "week"),
)
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


def go_duration(text: str) -> str:
    """A duration in words, such as `2 days`, in Go's notation; what is none of these as it is."""
    try:
        durations.seconds(text)
    except ValueError:
        pass
    else:
        return text
    total = 0
    known = False
    for number, word in _NUMBERED.findall(text):
        for factor, *variants in _UNITS:
            unit = word.lower()
            if unit in variants or unit.startswith(str(variants[-1])):
                known, total = True, total + int(number) * int(factor)
    return f"{total}ns" if known and total < 2**63 else text


def _duration(text: str) -> bool:
    try:
        durations.seconds(go_duration(text))
    except ValueError:
        return False
    return True


def _uri(text: str) -> bool:
    return bool(_SCHEME.fullmatch(text)) and not _PERCENT.search(text)


def _isbn10(text: str) -> bool:
    digits = _SPACES.sub("", text)
    if not _ISBN10.fullmatch(digits):
        return False
    return sum(at * (10 if digit == "X" else int(digit)) for at, digit in enumerate(digits, 1)) % 11 == 0


def _isbn13(text: str) -> bool:
    digits = _SPACES.sub("", text)
    return (
        bool(_ISBN13.fullmatch(digits))
        and sum(int(digit) * (1, 3)[at % 2] for at, digit in enumerate(digits)) % 10 == 0
    )


def _credit_card(text: str) -> bool:
    """A number of a card of some issuer whose last digit is right (Luhn)."""
    digits = re.sub("[^0-9]+", "", text)
    if not _CARD.fullmatch(digits):
        return False
    doubled = (int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits)))
    return sum(each - 9 if each > 9 else each for each in doubled) % 10 == 0


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
    "isbn": lambda text: _isbn10(text) or _isbn13(text),
    "isbn10": lambda text: _isbn10(text),
    "isbn13": lambda text: _isbn13(text),
    "creditcard": lambda text: _credit_card(text),
    "rgbcolor": lambda text: bool(_RGB.fullmatch(text)),
    "k8sshortname": lambda text: not names.dns_label(text),
    "k8slongname": lambda text: not names.dns_subdomain(text),
}


def has(text: str, wanted: str) -> bool:
    """Whether a text has a format; any has one that is not known."""
    check = _KNOWN.get(wanted.replace("-", ""))
    return check is None or check(text)


def fits(value: float, kind: str, wanted: str) -> bool:
    """Whether a number is of a type (integer or any) in a format of numbers: int32, int64, float."""
    if kind == "integer":
        if not (isinstance(value, int) or value.is_integer()):
            return False
        bits = 31 if wanted == "int32" else 63
        return -(2**bits) <= value < 2**bits
    if wanted in ("float", "float32"):
        return abs(value) <= 3.4028235677973366e38
    return True


def known(wanted: str, kind: str) -> bool:
    """Whether a format means something for values of a type."""
    if kind in ("", "string"):
        return wanted.replace("-", "") in _KNOWN or wanted == "password"
    return wanted in {"integer": ("int32", "int64"), "number": ("float", "double")}.get(kind, ())
