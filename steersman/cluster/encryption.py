"""Encryption at rest by --encryption-provider-config.

Owns the reading of EncryptionConfiguration (apiserver.config.k8s.io/v1) and which rule a resource falls under. Called
by `apiserver.py`. Every mistake is a StartFailure in the original's words, and none of them shows a secret. KMS
providers are refused: they are not here yet. Source: apiserver's pkg/server/options/encryptionconfig.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from steersman.cluster.process import StartFailure
from steersman.store.interface import Store
from steersman.store.sealed import Identity, Prefixed, SealedStore, Transformer

_VERSION = "apiserver.config.k8s.io/v1"
_NOT_REST = {"apiserveripinfo", "serviceipallocations", "servicenodeportallocations"}
_ANY = ("*", "*")
_NO_PROVIDER = "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"


class _Key(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    secret: str = ""


class _Keys(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[_Key] | None = None


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Provider(msgspec.Struct, forbid_unknown_fields=True):
    aesgcm: _Keys | None = None
    aescbc: _Keys | None = None
    secretbox: _Keys | None = None
    identity: _Nothing | None = None
    kms: dict[str, Any] | None = None

    def given(self) -> list[str]:
        """Which providers the element has."""
        return [name for name in self.__struct_fields__ if getattr(self, name) is not None]


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    resources: list[str] | None = None
    providers: list[_Provider] | None = None


class _Configuration(msgspec.Struct, forbid_unknown_fields=True):
    apiVersion: str = ""
    kind: str = ""
    resources: list[_Rule] | None = None


def sealed(store: Store, flags: Mapping[str, str]) -> Store:
    """The store, its values encrypted as the flags say; without them the store itself. Raises StartFailure."""
    path = flags.get("encryption-provider-config")
    if not path:
        return store
    return SealedStore(store, _by_key(read(Path(path))))


def _by_key(rules: Mapping[tuple[str, str], Transformer]) -> Callable[[str], Transformer | None]:
    """Keys are /GROUP/RESOURCE/..., with "core" for the group without a name."""
    known: dict[str, Transformer | None] = {}

    def of(key: str) -> Transformer | None:
        _, group, resource, *_ = key.split("/", 3)
        where = f"{group}/{resource}"
        if where not in known:
            group = "" if group == "core" else group
            known[where] = rules.get((group, resource)) or rules.get((group, "*")) or rules.get(_ANY)
        return known[where]

    return of


def read(path: Path) -> dict[tuple[str, str], Transformer]:
    """The transformer for each resource (group, plural) that the file names. Raises StartFailure."""
    try:
        rules = _decode(path).resources or []
        problems = list(dict.fromkeys(_problems(rules)))
        if problems:
            raise ValueError(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    except ValueError as error:
        raise StartFailure(f"--encryption-provider-config: error while parsing file: {error}") from None
    try:
        return _transformers(rules)
    except ValueError as error:
        raise StartFailure(f"--encryption-provider-config: error while building transformers: {error}") from None


def _decode(path: Path) -> _Configuration:
    loading = "error while loading file: "
    try:
        text = path.read_bytes()
    except OSError as error:
        why = f"open {path}: {(error.strerror or '').lower()}"
        raise ValueError(f'{loading}error reading encryption provider configuration file "{path}": {why}') from None
    if not text:
        raise ValueError(f'{loading}encryption provider configuration file "{path}" is empty')
    where = f'error decoding encryption provider configuration file "{path}": '
    try:
        given = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        # only the place: what is quoted may be a secret
        mark = getattr(error, "problem_mark", None)
        at = f" on line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"{where}yaml: cannot be read{at}") from None
    if not isinstance(given, dict) or not given.get("kind"):
        raise ValueError(f"{where}Object 'Kind' is missing")
    if (given.get("apiVersion"), given["kind"]) != (_VERSION, "EncryptionConfiguration"):
        raise ValueError(f'{where}no kind "{given["kind"]}" is registered for version "{given.get("apiVersion", "")}"')
    try:
        return msgspec.convert(given, _Configuration)
    except msgspec.ValidationError as error:
        raise ValueError(where + _strict(str(error))) from None
    except RecursionError:
        raise ValueError(f"{where}it is too deep") from None


def _strict(text: str) -> str:
    """msgspec's words in the original's, where there are such."""
    unknown = re.fullmatch(r"Object contains unknown field `(.*?)`(?: - at `\$\.?(.*)`)?", text, re.DOTALL)
    if unknown is None:
        return text
    name, place = unknown.groups()
    return f'strict decoding error: unknown field "{f"{place}." if place else ""}{name}"'


# What the original refuses ------------------------------------------------------------------------------------


def _problems(rules: list[_Rule]) -> list[str]:
    if not rules:
        return [_required("resources", "at least one resources is required")]
    out = []
    for at, rule in enumerate(rules):
        where = f"resources[{at}]"
        if not rule.resources:
            out.append(_required(f"{where}.resources", f"at least one {where}.resources is required"))
        out += _overlaps(rule.resources or [], f"{where}.resources")
        for number, name in enumerate(rule.resources or []):
            if wrong := _wrong_name(name):
                out.append(_invalid(f"{where}.resources[{number}]", name, wrong))
        if not rule.providers:
            out.append(_required(f"{where}.providers", f"at least one {where}.providers is required"))
        for number, provider in enumerate(rule.providers or []):
            out += _wrong_provider(provider, f"{where}.providers[{number}]")
    return out


def _required(where: str, why: str) -> str:
    return f"{where}: Required value: {why}"


def _invalid(where: str, value: object, why: str) -> str:
    return f"{where}: Invalid value: {msgspec.json.encode(value).decode()}: {why}"


def _parsed(resource: str) -> tuple[str, str]:
    """(group, plural) of `plural.group`."""
    plural, _, group = resource.partition(".")
    return group, plural


def _overlaps(resources: list[str], where: str) -> list[str]:
    names = [_parsed(resource) for resource in resources]
    out = []
    if len(set(names)) < len(names):
        out.append(_invalid(where, resources, "the same resource cannot be specified multiple times"))
    different = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if a != b]
    if any(_ANY in pair or (pair[0][0] == pair[1][0] and "*" in (pair[0][1], pair[1][1])) for pair in different):
        why = (
            "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed "
            "as they will be masked"
        )
        out.append(_invalid(where, resources, why))
    return out


def _wrong_name(name: str) -> str:
    group, plural = _parsed(name)
    if name != name.lower():
        return "resource name should not contain capital letters"
    if name == "*":
        return "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
    if name in _NOT_REST:
        return "resources which do not have REST API/s cannot be encrypted"
    if group == "events.k8s.io":
        stored = "'*.events.k8s.io' objects are stored using the 'events' API group in etcd."
        return f"{stored} Use 'events' instead in the config file"
    if group == "extensions":
        return "'extensions' group has been removed and cannot be used for encryption"
    if group == "*" and plural != "*":
        return "encrypting the same resource across groups is not supported"
    return ""


def _wrong_provider(provider: _Provider, where: str) -> list[str]:
    given = provider.given()
    if not given:
        return [f"{where}: Invalid value: {{}}: {_NO_PROVIDER}"]
    if len(given) > 1:
        why = "more than one provider specified in a single element, should split into different list elements"
        return [_invalid(where, given, why)]
    keys = getattr(provider, given[0])
    if not isinstance(keys, _Keys):
        return []
    where = f"{where}.{given[0]}.keys"
    if not keys.keys:
        return [_required(where, "at least one keys is required")]
    sizes = (32,) if given[0] == "secretbox" else (16, 24, 32)
    return [problem for at, key in enumerate(keys.keys) for problem in _wrong_key(key, f"{where}[{at}]", sizes)]


def _wrong_key(key: _Key, where: str, sizes: tuple[int, ...]) -> list[str]:
    out = [] if key.name else [_required(f"{where}.name", "name is a mandatory field for a key")]
    where += ".secret"
    if not key.secret:
        return [*out, _required(where, "secret is a mandatory field for a key")]
    try:
        size = len(_secret(key))
    except ValueError:
        return [*out, _invalid(where, "REDACTED", "secrets must be base64 encoded")]
    if size not in sizes:
        shown = " ".join(map(str, sizes))
        why = f"secret is not of the expected length, got {size}, expected one of [{shown}]"
        out.append(_invalid(where, "REDACTED", why))
    return out


def _secret(key: _Key) -> bytes:
    """Raises ValueError."""
    try:
        return base64.b64decode(key.secret.replace("\n", "").replace("\r", ""), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


# What is made of it ----------------------------------------------------------------------------------------------


def _transformers(rules: list[_Rule]) -> dict[tuple[str, str], Transformer]:
    found: dict[tuple[str, str], list[tuple[bytes, Transformer]]] = {}
    for rule in rules:
        choices = [_choice(provider) for provider in rule.providers or []]
        for name in rule.resources or []:
            group, plural = _parsed(name)
            for mask in ((group, "*"), _ANY):
                if mask in found:
                    raise ValueError(f'resource "{_shown(group, plural)}" is masked by earlier rule "{_shown(*mask)}"')
            found.setdefault((group, plural), []).extend(choices)
    return {resource: Prefixed(choices, "no matching prefix found") for resource, choices in found.items()}


def _shown(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group or plural == "*" else plural


def _choice(provider: _Provider) -> tuple[bytes, Transformer]:
    """A provider, and the prefix of its values. Raises ValueError for KMS."""
    from steersman.store.ciphers import AesCbc, AesGcm, Secretbox

    [name] = provider.given()
    if name == "identity":
        return b"", Identity()
    if name == "kms":
        raise ValueError("KMS providers are not supported here, only aescbc, aesgcm, secretbox and identity")
    make, family = {"aescbc": (AesCbc, "AES"), "aesgcm": (AesGcm, "AES"), "secretbox": (Secretbox, "Secretbox")}[name]
    keys = getattr(provider, name).keys
    named: list[tuple[bytes, Transformer]] = [(f"{key.name}:".encode(), make(_secret(key), os.urandom)) for key in keys]
    unmatched = f"no matching key was found for the provided {family} transformer"
    return f"k8s:enc:{name}:v1:".encode(), Prefixed(named, unmatched)
