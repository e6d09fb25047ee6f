"""Names, addresses and ports: values that pass, and messages for those that do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from steersman.api import names

DNS1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)


@pytest.mark.parametrize(
    ("rule", "good", "bad", "errors"),
    [
        (names.dns_label, "a-1", "a.b", ["must not contain dots"]),
        (names.dns_label, "1", "a" * 64, ["must be no more than 63 characters"]),
        (names.dns1035_label, "a1", "1a", [DNS1035]),
        (names.qualified, "example.com/a", "a/b/c", None),
        (names.qualified, "a_b", "x" * 64, ["name part must be no more than 63 bytes"]),
        (names.label_value, "", "v" * 64, ["must be no more than 63 bytes"]),
        (names.path_segment, "a:b", "..", ["may not be '..'"]),
        (names.env_name, "a b", "a=b", None),
        (names.config_key, "a.b_c", "..data", ["must not start with '..'"]),
        (names.config_key, "A", "a b", None),
        (names.header, "X-A", "a b", None),
        (names.percent, "25%", "25", None),
        (names.port, 80, 0, ["must be between 1 and 65535, inclusive"]),
        (names.port_name, "http", "80", ["must contain at least one letter (a-z)"]),
        (names.port_name, "a-b", "a--b", ["must not contain consecutive hyphens"]),
        (names.port_name, "a", "-a", ["must not begin or end with a hyphen"]),
        (names.user_id, 0, -1, ["must be between 0 and 2147483647, inclusive"]),
        (names.wildcard_subdomain, "*.a.b", "a.b", None),
        (names.c_identifier, "A_1", "1", None),
    ],
)
def test_rules(rule: Callable[[object], list[str]], good: object, bad: object, errors: list[str] | None) -> None:
    assert rule(good) == []
    assert rule(bad)
    if errors is not None:
        assert rule(bad) == errors


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("10.0.0.1", None),
        ("2001:db8::1", None),
        ("010.0.0.1", "must not have leading 0s"),
        ("2001:DB8::1", 'must be in canonical form ("2001:db8::1")'),
        ("::ffff:10.0.0.1", "must not be an IPv4-mapped IPv6 address"),
        ("10.0.0", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        ("fe80::1%eth0", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
    ],
)
def test_addresses(value: str, error: str | None) -> None:
    assert [e.detail for e in names.ip("x", value)] == ([f'Invalid value: "{value}": {error}'] if error else [])


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("10.0.0.0/8", None),
        ("2001:db8::/64", None),
        ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
        ("10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        ("10.0.0.0", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
    ],
)
def test_networks(value: str, error: str | None) -> None:
    assert [e.detail for e in names.cidr("x", value)] == ([f'Invalid value: "{value}": {error}'] if error else [])


def test_prefixes_may_end_in_a_dash() -> None:
    assert names.subdomain_name("web-", True) == []
    assert names.subdomain_name("web-", False)
