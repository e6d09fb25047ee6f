"""Outside issuers of tokens: the oidc flags, and files of the kind AuthenticationConfiguration.

Owns their reading and checking. Called by `identity.py`. What a user is made of in CEL is `authn.claims`'s. Every
mistake is a ValueError that names the flag or the field. Source: KEP-3331; apiserver's pkg/apis/apiserver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from steersman.api import cel, names
from steersman.api.resource import Object
from steersman.api.validation import duplicate, invalid, quote
from steersman.api.validation import required as required_value
from steersman.apiserver.authn.claims import Expressions, Rule, names_claim, of_claims, of_user
from steersman.apiserver.authn.jwt import ALGORITHMS
from steersman.apiserver.authn.oidc import Issuer
from steersman.cluster.configfile import only, read


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
        raise ValueError(f"{where}: Invalid value: {quote(url)}: {error}") from None
    for wrong, text in (
        (parts.scheme != "https", "URL scheme must be https"),
        (not parts.hostname, "URL must have a host"),
        (bool(parts.username or parts.password), "URL must not contain a username or password"),
        (bool(parts.query), "URL must not contain a query"),
        (bool(parts.fragment), "URL must not contain a fragment"),
    ):
        if wrong:
            raise ValueError(f"{where}: Invalid value: {quote(url)}: {text}")


def of_file(path: Path) -> tuple[list[Issuer], Anonymous | None]:
    """What an AuthenticationConfiguration says. Raises OSError, ValueError."""
    config = read(path, "AuthenticationConfiguration")
    only(config, "", "apiVersion", "kind", "jwt", "anonymous")
    issuers = [_issuer(entry, f"jwt[{at}]") for at, entry in enumerate(_list(config, "jwt", ""))]
    seen: set[str] = set()
    for at, issuer in enumerate(issuers):
        if issuer.url in seen:
            raise ValueError(f"jwt[{at}].issuer.url: Duplicate value: {quote(issuer.url)}")
        seen.add(issuer.url)
    return issuers, _anonymous(config.get("anonymous"))


def _check_audiences(audiences: Sequence[Any], policy: str, where: str) -> None:
    for at, audience in enumerate(audiences):
        if not audience:
            raise ValueError(f"{where}.audiences[{at}]: Required value")
        if audience in audiences[:at]:
            raise ValueError(f"{where}.audiences[{at}]: Duplicate value: {quote(audience)}")
    wrong = ""
    if len(audiences) > 1 and policy != "MatchAny":
        wrong = "audienceMatchPolicy must be MatchAny for multiple audiences"
    elif policy not in ("", "MatchAny"):
        wrong = "audienceMatchPolicy must be empty or MatchAny for single audience"
    if wrong:
        raise ValueError(f"{where}.audienceMatchPolicy: Invalid value: {quote(policy)}: {wrong}")


def _issuer(entry: Any, where: str) -> Issuer:
    only(entry, where, "issuer", "claimValidationRules", "claimMappings", "userValidationRules")
    issuer = entry.get("issuer") or {}
    known = ("url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy")
    only(issuer, f"{where}.issuer", *known)
    url, audiences = issuer.get("url") or "", _list(issuer, "audiences", f"{where}.issuer")
    if not url:
        raise ValueError(f"{where}.issuer.url: Required value: URL is required")
    _check_url(f"{where}.issuer.url", url)
    if issuer.get("discoveryURL"):
        _check_url(f"{where}.issuer.discoveryURL", issuer["discoveryURL"])
        if issuer["discoveryURL"].rstrip("/") == url.rstrip("/"):
            text = f"Invalid value: {quote(issuer['discoveryURL'])}: discoveryURL must be different from URL"
            raise ValueError(f"{where}.issuer.discoveryURL: {text}")
    if not audiences:
        raise ValueError(f"{where}.issuer.audiences: Required value: at least one {where}.issuer.audiences is required")
    _check_audiences(audiences, issuer.get("audienceMatchPolicy") or "", f"{where}.issuer")
    required, claim_rules = _claim_rules(entry, f"{where}.claimValidationRules")
    mappings = entry.get("claimMappings") or {}
    place = f"{where}.claimMappings"
    only(mappings, place, "username", "groups", "uid", "extra")
    username, username_prefix, name_program = _mapping(mappings, "username", place)
    groups, groups_prefix, group_program = _mapping(mappings, "groups", place)
    uid, _, uid_program = _mapping(mappings, "uid", place, prefixed=False)
    if not username and name_program is None:
        raise ValueError(f"{place}.username: Required value: claim or expression is required")
    expressions = Expressions(
        name_program, group_program, uid_program, _extra(mappings, f"{place}.extra"), claim_rules,
        _user_rules(entry, f"{where}.userValidationRules"),
    )  # fmt: skip
    _check_email(expressions, f"{place}.username.expression")
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
        expressions,
    )


def _program(where: str, source: str, make: Callable[[str], cel.Program]) -> cel.Program:
    try:
        return make(source)
    except ValueError as error:
        raise ValueError(str(invalid(where, source, str(error)))) from None


def _claim_rules(entry: Object, where: str) -> tuple[dict[str, str], list[Rule]]:
    """The claims that must have one value, and the rules in CEL."""
    required: dict[str, str] = {}
    rules: list[Rule] = []
    for at, rule in enumerate(_list(entry, "claimValidationRules", where.rpartition(".")[0])):
        here = f"{where}[{at}]"
        only(rule, here, "claim", "requiredValue", "expression", "message")
        claim, source = rule.get("claim") or "", rule.get("expression") or ""
        if claim and source:
            raise ValueError(str(invalid(here, claim, "claim and expression can't both be set")))
        if not claim and not source:
            raise ValueError(f"{here}: Required value: claim or expression is required")
        other, only_for = ("message", "claim") if claim else ("requiredValue", "expression")
        if rule.get(other):
            raise ValueError(
                str(invalid(f"{here}.{other}", rule[other], f"may not be specified when {only_for} is set"))
            )
        if claim in required or source in [each.program.source for each in rules]:
            raise ValueError(str(duplicate(f"{here}.{only_for}", claim or source)))
        if claim:
            required[claim] = str(rule.get("requiredValue", ""))
        else:
            program = _program(f"{here}.expression", source, lambda text: of_claims(text, rule=True))
            rules.append(Rule(program, rule.get("message") or ""))
    return required, rules


def _user_rules(entry: Object, where: str) -> list[Rule]:
    rules: list[Rule] = []
    for at, rule in enumerate(_list(entry, "userValidationRules", where.rpartition(".")[0])):
        here = f"{where}[{at}].expression"
        only(rule, f"{where}[{at}]", "expression", "message")
        source = rule.get("expression") or ""
        if not source:
            raise ValueError(f"{here}: Required value")
        if source in [each.program.source for each in rules]:
            raise ValueError(str(duplicate(here, source)))
        rules.append(Rule(_program(here, source, of_user), rule.get("message") or ""))
    return rules


def _extra(mappings: Object, where: str) -> list[tuple[str, cel.Program]]:
    found: list[tuple[str, cel.Program]] = []
    for at, each in enumerate(_list(mappings, "extra", where.rpartition(".")[0])):
        here = f"{where}[{at}]"
        only(each, here, "key", "valueExpression")
        key, source = each.get("key") or "", each.get("valueExpression") or ""
        problems = names.domain_path(f"{here}.key", key)
        if key != key.lower():
            problems.append(invalid(f"{here}.key", key, "must be lowercase"))
        if f".{key.partition('/')[0]}".endswith((".k8s.io", ".kubernetes.io")):
            text = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"
            problems.append(invalid(f"{here}.key", key, text))
        if key in dict(found):
            problems.append(duplicate(f"{here}.key", key))
        if not source:
            problems.append(required_value(f"{here}.valueExpression"))
        if problems:
            raise ValueError(", ".join(map(str, problems)))
        found.append((key, _program(f"{here}.valueExpression", source, of_claims)))
    return found


def _check_email(given: Expressions, where: str) -> None:
    """Whoever goes by the mail address has to look whether it was verified."""
    if given.username is None or not names_claim(given.username, "email"):
        return
    others = [given.username, *(program for _, program in given.extra), *(rule.program for rule in given.claim_rules)]
    if not any(names_claim(each, "email_verified") for each in others):
        text = (
            "claims.email_verified must be used in claimMappings.username.expression or "
            "claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in "
            "claimMappings.username.expression"
        )
        raise ValueError(str(invalid(where, given.username.source, text)))


def _mapping(mappings: Object, name: str, where: str, *, prefixed: bool = True) -> tuple[str, str, cel.Program | None]:
    """A claim, a prefix, and an expression: one of the first and the last."""
    given = mappings.get(name) or {}
    place = f"{where}.{name}"
    only(given, place, "claim", "prefix", "expression")
    if source := given.get("expression"):
        if given.get("claim"):
            raise ValueError(str(invalid(place, "", "claim and expression can't both be set")))
        if given.get("prefix") is not None:
            text = "may not be specified when expression is set"
            raise ValueError(str(invalid(f"{place}.prefix", given["prefix"], text)))
        return "", "", _program(f"{place}.expression", source, of_claims)
    if prefixed and given.get("claim") and given.get("prefix") is None:
        raise ValueError(f"{place}.prefix: Required value: prefix is required when claim is set. It can be set to an "
                         "empty string to disable prefixing")  # fmt: skip
    return given.get("claim") or "", given.get("prefix") or "", None


def _anonymous(given: Any) -> Anonymous | None:
    if given is None:
        return None
    only(given, "anonymous", "enabled", "conditions")
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
