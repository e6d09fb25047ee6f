"""Outside issuers of tokens: the oidc flags, and files of the kind AuthenticationConfiguration.

Owns their reading and checking. Called by `identity.py`. CEL expressions in a file are refused. Every mistake is a
ValueError that names the flag or the field. Source: KEP-3331; apiserver's pkg/apis/apiserver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from steersman.api.resource import Object
from steersman.apiserver.authn.jwt import ALGORITHMS
from steersman.apiserver.authn.oidc import Issuer

_VERSIONS = tuple(f"apiserver.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))


@dataclass(frozen=True)
class Anonymous:
    """Whether nobody may ask, and (empty: for every path) for which paths."""

    enabled: bool
    paths: Sequence[str] = ()


def of_flags(flags: Mapping[str, str]) -> list[Issuer]:
    """The issuer that the oidc flags describe, if any. Raises OSError, ValueError."""
    given = {name.removeprefix("oidc-"): value for name, value in flags.items() if name.startswith("oidc-")}
    if not given:
        return []
    url, client = given.get("issuer-url", ""), given.get("client-id", "")
    if not url or not client:
        raise ValueError("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set")
    username, prefix = given.get("username-claim", "sub"), given.get("username-prefix", "")
    if prefix == "-":
        prefix = ""
    elif not prefix and username != "email":
        prefix = f"{url}#"
    algorithms = [each.strip() for each in given.get("signing-algs", "RS256").split(",")]
    if wrong := [each for each in algorithms if each not in ALGORITHMS]:
        raise ValueError(f"oidc-signing-algs: unsupported signing alg: {wrong[0]!r}")
    required = {}
    for pair in filter(None, given.get("required-claim", "").split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"oidc-required-claim: {pair!r} is not of the form key=value")
        required[key] = value
    _check_url("oidc-issuer-url", url)
    return [
        Issuer(
            url,
            [client],
            authority=Path(given["ca-file"]).read_text() if given.get("ca-file") else "",
            algorithms=algorithms,
            username=username,
            username_prefix=prefix,
            groups=given.get("groups-claim", ""),
            groups_prefix=given.get("groups-prefix", ""),
            required=required,
        )
    ]


def _check_url(where: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{where}: Invalid value: {url!r}: {error}") from None
    for wrong, text in (
        (parts.scheme != "https", "URL scheme must be https"),
        (not parts.hostname, "URL must have a host"),
        (bool(parts.username or parts.password), "URL must not contain a username or password"),
        (bool(parts.query), "URL must not contain a query"),
        (bool(parts.fragment), "URL must not contain a fragment"),
    ):
        if wrong:
            raise ValueError(f"{where}: Invalid value: {url!r}: {text}")


def of_file(path: Path) -> tuple[list[Issuer], Anonymous | None]:
    """What an AuthenticationConfiguration says. Raises OSError, ValueError."""
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(config, dict) or config.get("kind") != "AuthenticationConfiguration":
        raise ValueError(f"{path}: not an AuthenticationConfiguration")
    if config.get("apiVersion") not in _VERSIONS:
        raise ValueError(f"{path}: apiVersion {config.get('apiVersion')!r} is not one of {', '.join(_VERSIONS)}")
    _only(config, "", "apiVersion", "kind", "jwt", "anonymous")
    issuers = [_issuer(entry, f"jwt[{at}]") for at, entry in enumerate(_list(config, "jwt", ""))]
    seen: set[str] = set()
    for at, issuer in enumerate(issuers):
        if issuer.url in seen:
            raise ValueError(f"jwt[{at}].issuer.url: Duplicate value: {issuer.url!r}")
        seen.add(issuer.url)
    return issuers, _anonymous(config.get("anonymous"))


def _issuer(entry: Any, where: str) -> Issuer:
    _only(entry, where, "issuer", "claimValidationRules", "claimMappings", "userValidationRules")
    if entry.get("userValidationRules"):
        raise ValueError(f"{where}.userValidationRules: CEL expressions are not evaluated here")
    issuer = entry.get("issuer") or {}
    known = ("url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy")
    _only(issuer, f"{where}.issuer", *known)
    url, audiences = issuer.get("url") or "", _list(issuer, "audiences", f"{where}.issuer")
    if not url:
        raise ValueError(f"{where}.issuer.url: Required value: URL is required")
    _check_url(f"{where}.issuer.url", url)
    if issuer.get("discoveryURL"):
        _check_url(f"{where}.issuer.discoveryURL", issuer["discoveryURL"])
    if not audiences:
        raise ValueError(f"{where}.issuer.audiences: Required value: at least one {where}.issuer.audiences is required")
    if len(audiences) > 1 and issuer.get("audienceMatchPolicy") != "MatchAny":
        text = "audienceMatchPolicy must be MatchAny for multiple audiences"
        raise ValueError(f"{where}.issuer.audienceMatchPolicy: Invalid value: {text}")
    required = {}
    for at, rule in enumerate(_list(entry, "claimValidationRules", where)):
        if "expression" in rule:
            raise ValueError(f"{where}.claimValidationRules[{at}].expression: CEL is not evaluated here")
        required[str(rule.get("claim", ""))] = str(rule.get("requiredValue", ""))
    mappings = entry.get("claimMappings") or {}
    _only(mappings, f"{where}.claimMappings", "username", "groups", "uid", "extra")
    if mappings.get("extra"):
        raise ValueError(f"{where}.claimMappings.extra: CEL is not evaluated here")
    username, username_prefix = _mapping(mappings, "username", where)
    groups, groups_prefix = _mapping(mappings, "groups", where)
    uid, _ = _mapping(mappings, "uid", where, prefixed=False)
    if not username:
        raise ValueError(f"{where}.claimMappings.username: Required value: claim or expression is required")
    return Issuer(
        url,
        audiences,
        issuer.get("certificateAuthority") or "",
        issuer.get("discoveryURL") or "",
        ALGORITHMS,
        username,
        username_prefix,
        groups,
        groups_prefix,
        uid,
        required,
    )


def _mapping(mappings: Object, name: str, where: str, *, prefixed: bool = True) -> tuple[str, str]:
    given = mappings.get(name) or {}
    place = f"{where}.claimMappings.{name}"
    _only(given, place, "claim", "prefix", "expression")
    if given.get("expression"):
        raise ValueError(f"{place}.expression: CEL is not evaluated here")
    if prefixed and given.get("claim") and given.get("prefix") is None:
        raise ValueError(f"{place}.prefix: Required value: prefix is required when claim is set. It can be set to an "
                         "empty string to disable prefixing")  # fmt: skip
    return given.get("claim") or "", given.get("prefix") or ""


def _anonymous(given: Any) -> Anonymous | None:
    if given is None:
        return None
    _only(given, "anonymous", "enabled", "conditions")
    paths = [str(each.get("path", "")) for each in _list(given, "conditions", "anonymous")]
    if paths and not given.get("enabled"):
        raise ValueError(
            "anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined"
        )
    return Anonymous(bool(given.get("enabled")), paths)


def _list(given: Object, key: str, where: str) -> list[Any]:
    found = given.get(key) or []
    if not isinstance(found, list):
        raise ValueError(f"{where}.{key}: not a list".lstrip("."))
    return found


def _only(given: Any, where: str, *known: str) -> None:
    if not isinstance(given, dict):
        raise ValueError(f"{where}: not an object")
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f'strict decoding error: unknown field "{f"{where}.".lstrip(".")}{unknown[0]}"')
