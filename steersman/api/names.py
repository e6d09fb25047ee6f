"""What names, keys, addresses and ports may look like, with apimachinery's messages.

Owns one function per rule: it takes a value and returns the complaints, none when the value is fine. Called by
`meta.py`, `labels.py` and `kinds`. Source: apimachinery's util/validation and api/validate/content.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from steersman.api.errors import FieldError
from steersman.api.validation import invalid, quote, required

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DNS1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = f"({_KEY})?"
_ENV = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_HEADER = "[-A-Za-z0-9]+"
_PERCENT = "[0-9]+%"
_C_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_WILDCARD = rf"\*\.{_SUBDOMAIN}"

_label = re.compile(_LABEL).fullmatch
_subdomain = re.compile(_SUBDOMAIN).fullmatch
_dns1035 = re.compile(_DNS1035).fullmatch
_key = re.compile(_KEY).fullmatch
_value = re.compile(_VALUE).fullmatch
_env = re.compile(_ENV).fullmatch
_config_key = re.compile(_CONFIG_KEY).fullmatch
_header = re.compile(_HEADER).fullmatch
_percent = re.compile(_PERCENT).fullmatch
_c_name = re.compile(_C_NAME).fullmatch
_http_path = re.compile(_HTTP_PATH).fullmatch
_wildcard = re.compile(_WILDCARD).fullmatch

_KEY_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
_DNS1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
    "start with an alphabetic character, and end with an alphanumeric character"
)
_WILDCARD_TEXT = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
)


def regex_error(text: str, pattern: str, *examples: str) -> str:
    """How a failed pattern is reported."""
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{text} ({'e.g. ' + shown if shown else ''}regex used for validation is '{pattern}')"


def too_long(limit: int, unit: str = "characters") -> str:
    """How a value over its length is reported."""
    return f"must be no more than {limit} {unit}"


def between(low: int, high: int) -> str:
    """How a number out of range is reported."""
    return f"must be between {low} and {high}, inclusive"


def dns_label(value: str) -> list[str]:
    """A DNS label (RFC 1123)."""
    found = [too_long(63)] if _bytes(value) > 63 else []
    if not _label(value):
        dots = _subdomain(value)
        found.append("must not contain dots" if dots else regex_error(_LABEL_TEXT, _LABEL, "my-name", "123-abc"))
    return found


def dns_subdomain(value: str) -> list[str]:
    """A DNS subdomain (RFC 1123)."""
    found = [too_long(253)] if _bytes(value) > 253 else []
    if not _subdomain(value):
        found.append(regex_error(_SUBDOMAIN_TEXT, _SUBDOMAIN, "example.com"))
    return found


def dns1035_label(value: str) -> list[str]:
    """A DNS label that starts with a letter (RFC 1035)."""
    found = [too_long(63)] if _bytes(value) > 63 else []
    if not _dns1035(value):
        found.append(regex_error(_DNS1035_TEXT, _DNS1035, "my-name", "abc-123"))
    return found


def wildcard_subdomain(value: str) -> list[str]:
    """`*.` and a DNS subdomain."""
    found = [too_long(253)] if _bytes(value) > 253 else []
    if not _wildcard(value):
        found.append(regex_error(_WILDCARD_TEXT, _WILDCARD, "*.example.com"))
    return found


@lru_cache(maxsize=4096)
def _label_key(value: str) -> tuple[str, ...]:
    prefix, slash, name = value.rpartition("/")
    if "/" in prefix:
        text = f"a valid label key {regex_error(_KEY_TEXT, _KEY, 'MyName', 'my.name', '123-abc')}"
        return (f"{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",)
    found: list[str] = []
    if slash and not prefix:
        found.append("prefix part must be non-empty")
    elif slash:
        found += [
            f"prefix part {text.replace('characters', 'bytes', 1) if text.startswith('must be no') else text}"
            for text in dns_subdomain(prefix)
        ]
    if not name:
        found.append("name part must be non-empty")
    elif _bytes(name) > 63:
        found.append(f"name part {too_long(63, 'bytes')}")
    if not _key(name):
        found.append(f"name part {regex_error(_KEY_TEXT, _KEY, 'MyName', 'my.name', '123-abc')}")
    return tuple(found)


def qualified(value: str) -> list[str]:
    """A qualified name: a label's key, an annotation's, a finalizer, a resource's name."""
    return list(_label_key(value))


@lru_cache(maxsize=4096)
def _label_value(value: str) -> tuple[str, ...]:
    found = [too_long(63, "bytes")] if _bytes(value) > 63 else []
    if not _value(value):
        text = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character"
        )
        found.append(regex_error(text, _VALUE, "MyValue", "my_value", "12345"))
    return tuple(found)


def label_value(value: str) -> list[str]:
    """A label's value."""
    return list(_label_value(value))


def path_segment(value: str, prefix: bool = False) -> list[str]:
    """A name that fits into a URL's path. This is the rule of RBAC's names, and of every name at least."""
    if not prefix and value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{part}'" for part in ("/", "%") if part in value]


def env_name(value: str) -> list[str]:
    """An environment variable: printable ASCII without `=` (KEP-4369)."""
    found = [] if value else ["environment variable name must be non-empty"]
    if any(not " " <= char <= "~" or char == "=" for char in value):
        found.append("a valid environment variable name must consist only of printable ASCII characters other than '='")
    return found


def strict_env_name(value: str) -> list[str]:
    """An environment variable before KEP-4369."""
    text = (
        "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', "
        "and must not start with a digit"
    )
    found = [] if _env(value) else [regex_error(text, _ENV, "my.env-name", "MY_ENV.NAME", "MyEnvName1")]
    return found + _no_parent(value)


def config_key(value: str) -> list[str]:
    """A key of a ConfigMap or Secret."""
    found = [too_long(253)] if _bytes(value) > 253 else []
    if not _config_key(value):
        text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        found.append(regex_error(text, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    return found + _no_parent(value)


def _no_parent(value: str) -> list[str]:
    if value in (".", ".."):
        return [f"must not be '{value}'"]
    return ["must not start with '..'"] if value.startswith("..") else []


def header(value: str) -> list[str]:
    """An HTTP header's name."""
    text = "a valid HTTP header must consist of alphanumeric characters or '-'"
    return [] if _header(value) else [regex_error(text, _HEADER, "X-Header-Name")]


def percent(value: str) -> list[str]:
    """`25%`."""
    text = "a valid percent string must be a numeric string followed by an ending '%'"
    return [] if _percent(value) else [regex_error(text, _PERCENT, "1%", "93%")]


def c_identifier(value: str) -> list[str]:
    """A name in C."""
    text = (
        "a valid C identifier must start with alphabetic character or '_', "
        "followed by a string of alphanumeric characters or '_'"
    )
    return [] if _c_name(value) else [regex_error(text, _C_NAME, "my_name", "MY_NAME", "MyName")]


def port(value: int) -> list[str]:
    """A port number."""
    return [] if 1 <= value <= 65535 else [between(1, 65535)]


def port_name(value: str) -> list[str]:
    """A port's name (RFC 6335, lower case)."""
    found = [too_long(15)] if _bytes(value) > 15 else []
    if not value or not all(char in "-abcdefghijklmnopqrstuvwxyz0123456789" for char in value):
        found.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= char <= "z" for char in value):
        found.append("must contain at least one letter (a-z)")
    if "--" in value:
        found.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        found.append("must not begin or end with a hyphen")
    return found


def user_id(value: int) -> list[str]:
    """A Unix user or group number."""
    return [] if 0 <= value <= 2**31 - 1 else [between(0, 2**31 - 1)]


def fully_qualified(path: str, value: str) -> list[FieldError]:
    """A domain of at least three segments."""
    if not value:
        return [required(path)]
    if found := dns_subdomain(value):
        return [invalid(path, value, ",".join(found))]
    if value.count(".") < 2:
        return [invalid(path, value, "should be a domain with at least three segments separated by dots")]
    return []


def domain_path(path: str, value: str) -> list[FieldError]:
    """`example.com/path`: a domain, a slash, a path."""
    if not value:
        return [required(path)]
    host, _, rest = value.partition("/")
    if not host or not rest:
        return [invalid(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    found = [invalid(path, host, text) for text in dns_subdomain(host)]
    if not _http_path(rest):
        found.append(invalid(path, rest, regex_error("Invalid path", _HTTP_PATH)))
    return found


def parse_ip(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, None when it is none. Leading zeros in IPv4 are read as decimal, as the original does."""
    try:
        if "." in value and ":" not in value:
            value = ".".join(part.lstrip("0") or "0" if part.isdigit() else part for part in value.split("."))
        return None if "%" in value else ipaddress.ip_address(value)
    except ValueError:
        return None


def ip(path: str, value: str) -> list[FieldError]:
    """An IP address in canonical form."""
    address = parse_ip(value)
    if address is None:
        return [invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
    found = _strict_ip(path, value, address)
    if not found and value != str(address):
        found.append(invalid(path, value, f"must be in canonical form ({quote(address)})"))
    return found


def legacy_ip(path: str, value: str, *, strict: bool = True) -> list[FieldError]:
    """An IP address in a field that is older than the strict rules; the form need not be canonical."""
    address = parse_ip(value)
    if address is None:
        return [invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
    return _strict_ip(path, value, address) if strict else []


def _strict_ip(path: str, value: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[FieldError]:
    found = []
    if address.version == 4 and str(address) != value:
        found.append(invalid(path, value, "must not have leading 0s"))
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        found.append(invalid(path, value, "must not be an IPv4-mapped IPv6 address"))
    return found


def cidr(path: str, value: str, *, strict: bool = True) -> list[FieldError]:
    """A network such as 10.0.0.0/8."""
    host, slash, bits = value.partition("/")
    address = parse_ip(host)
    size = 0 if address is None else address.max_prefixlen
    if address is None or not slash or not bits.isdigit() or int(bits) > size:
        return [invalid(path, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")]
    if not strict:
        return []
    if (address.version == 4 and str(address) != host) or str(int(bits)) != bits:
        return [invalid(path, value, "must not have leading 0s in IP or prefix length")]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return [invalid(path, value, "must not have an IPv4-mapped IPv6 address")]
    if int(address) & ((1 << (size - int(bits))) - 1):
        return [invalid(path, value, "must not have bits set beyond the prefix length")]
    return []


# Names of objects: (name, prefix) -> complaints. With a prefix the name is a generateName, to which more is added.


def interface_address(path: str, value: str) -> list[FieldError]:
    """An address with the length of its network's prefix, such as 10.9.8.7/24, in its one form."""
    address, _, length = value.partition("/")
    found = parse_ip(address)
    most = 32 if found is not None and found.version == 4 else 128
    if found is None or not re.fullmatch("0|[1-9][0-9]{0,2}", length) or int(length) > most:
        return [invalid(path, value, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)")]
    plain = f"{found}/{length}"
    return [] if value == plain else [invalid(path, value, f'must be in canonical form ("{plain}")')]


def subdomain_name(name: str, prefix: bool = False) -> list[str]:
    """The rule of most kinds."""
    return dns_subdomain(_masked(name) if prefix else name)


def label_name(name: str, prefix: bool = False) -> list[str]:
    """The rule of namespaces."""
    return dns_label(_masked(name) if prefix else name)


def dns1035_name(name: str, prefix: bool = False) -> list[str]:
    """The rule of services before 1.36."""
    return dns1035_label(_masked(name) if prefix else name)


def _masked(name: str) -> str:
    return f"{name[:-2]}a" if len(name) > 1 and name.endswith("-") else name


def _bytes(value: str) -> int:
    return len(value) if value.isascii() else len(value.encode())
