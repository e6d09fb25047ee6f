"""Encryption at rest by --encryption-provider-config.

Owns the reading of EncryptionConfiguration (apiserver.config.k8s.io/v1) and which rule a resource falls under. Called
by `sealing.py`. Every mistake is a StartFailure in the original's words, and none of them shows a secret. KMS v1 is
refused, as it is by the original unless a feature gate asks for it.
Source: apiserver's pkg/server/options/encryptionconfig and pkg/apis/apiserver/validation.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from steersman.api.durations import seconds
from steersman.cluster.process import StartFailure
from steersman.lib.clock import Clock
from steersman.store.kmsmetrics import KmsMetrics
from steersman.store.sealed import Identity, Prefixed, Transformer

if TYPE_CHECKING:  # imported where there is a plugin: it takes time
    from steersman.store.kms import Kms

_VERSION = "apiserver.config.k8s.io/v1"
_NOT_REST = {"apiserveripinfo", "serviceipallocations", "servicenodeportallocations"}
_ANY = ("*", "*")
_NO_PROVIDER = "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"


class _Key(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    secret: str = ""


class _Keys(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[_Key] | None = None


class _Kms(msgspec.Struct, forbid_unknown_fields=True):
    apiVersion: str = ""
    name: str = ""
    endpoint: str = ""
    cachesize: int | None = None
    timeout: str | None = None

    @property
    def version(self) -> str:
        """With its default."""
        return self.apiVersion or "v1"

    def seconds(self) -> float:
        """The time-out. Raises ValueError."""
        return 3.0 if self.timeout is None else seconds(self.timeout)


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Provider(msgspec.Struct, forbid_unknown_fields=True):
    aesgcm: _Keys | None = None
    aescbc: _Keys | None = None
    secretbox: _Keys | None = None
    identity: _Nothing | None = None
    kms: _Kms | None = None

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


@dataclass(frozen=True)
class Rules:
    """What a file says: the transformer of each resource, by group and plural, and the plugins among them."""

    transformers: Mapping[tuple[str, str], Transformer]
    plugins: Sequence[Kms]
    digest: str  # of the file


def by_key(rules: Mapping[tuple[str, str], Transformer]) -> Callable[[str], Transformer | None]:
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


def digest(path: Path) -> str:
    """Tells one content of the file from another. Raises ValueError when it cannot be read."""
    return f"sha256:{hashlib.sha256(_content(path)).hexdigest()}"


def read(path: Path, clock: Clock, metrics: KmsMetrics | None = None, *, reloads: bool = False) -> Rules:
    """What the file says; `metrics` count plugins' work; `reloads`: it may be read again later. Raises StartFailure."""
    try:
        text = _content(path)
        rules = _decode(path, text).resources or []
        problems = list(dict.fromkeys(_problems(rules, reloads=reloads)))
        if problems:
            raise ValueError(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    except ValueError as error:
        raise StartFailure(f"--encryption-provider-config: error while parsing file: {error}") from None
    plugins: list[Kms] = []
    try:
        found = _transformers(rules, lambda provider: _plugin(provider, clock, metrics, plugins))
    except ValueError as error:
        raise StartFailure(f"--encryption-provider-config: error while building transformers: {error}") from None
    return Rules(found, plugins, f"sha256:{hashlib.sha256(text).hexdigest()}")


def _content(path: Path) -> bytes:
    loading = "error while loading file: "
    try:
        text = path.read_bytes()
    except OSError as error:
        why = f"open {path}: {(error.strerror or '').lower()}"
        raise ValueError(f'{loading}error reading encryption provider configuration file "{path}": {why}') from None
    if not text:
        raise ValueError(f'{loading}encryption provider configuration file "{path}" is empty')
    return text


def _decode(path: Path, text: bytes) -> _Configuration:
    where = f'error decoding encryption provider configuration file "{path}": '
    import yaml  # here: it costs a start milliseconds

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


def _problems(rules: list[_Rule], *, reloads: bool) -> list[str]:
    if not rules:
        return [_required("resources", "at least one resources is required")]
    out = []
    names: set[str] = set()  # of plugins
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
            if provider.kms is not None and provider.given() == ["kms"]:
                known = names if reloads or provider.kms.version != "v1" else set[str]()
                out += _wrong_plugin(provider.kms, f"{where}.providers[{number}].kms", known)
                names.add(provider.kms.name)
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


def _wrong_plugin(plugin: _Kms, where: str, names: set[str]) -> list[str]:
    out = [] if plugin.name else [_required(f"{where}.name", "name is a mandatory field for a provider")]
    if plugin.version != "v1" and ":" in plugin.name:
        why = f"invalid KMS provider name {plugin.name}, must not contain ':'"
        out.append(_invalid(f"{where}.name", plugin.name, why))
    if plugin.name in names:
        why = f"duplicate KMS provider name {plugin.name}, names must be unique"
        out.append(_invalid(f"{where}.name", plugin.name, why))
    try:
        if plugin.seconds() <= 0:
            out.append(_invalid(f"{where}.timeout", plugin.timeout, "timeout should be a positive value"))
    except ValueError as error:
        out.append(_invalid(f"{where}.timeout", plugin.timeout, str(error)))
    out += _wrong_endpoint(plugin.endpoint, f"{where}.endpoint")
    if plugin.version != "v1" and plugin.cachesize is not None:
        out.append(_invalid(f"{where}.cachesize", plugin.cachesize, "cachesize is not supported in v2"))
    if plugin.version == "v1" and plugin.cachesize == 0:
        why = "cachesize should be a positive value, or negative to disable"
        out.append(_invalid(f"{where}.cachesize", plugin.cachesize, why))
    if plugin.version not in ("v1", "v2"):
        why = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported"  # the original's slip
        out.append(_invalid(f"{where}.apiVersion", plugin.version, why))
    return out


def _wrong_endpoint(endpoint: str, where: str) -> list[str]:
    if not endpoint:
        return [_invalid(where, "", "endpoint is a mandatory field for a kms")]
    try:
        scheme = urlsplit(endpoint).scheme
    except ValueError as error:
        return [_invalid(where, endpoint, f"invalid endpoint for kms provider, error: {error}")]
    if scheme != "unix":
        why = f'unsupported scheme "{scheme}" for KMS provider, only unix is supported'
        return [_invalid(where, endpoint, why)]
    return []


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


Choice = tuple[bytes, Transformer]


def _transformers(rules: list[_Rule], plugin: Callable[[_Kms], Choice]) -> dict[tuple[str, str], Transformer]:
    found: dict[tuple[str, str], list[Choice]] = {}
    for rule in rules:
        choices = [_choice(provider, plugin) for provider in rule.providers or []]
        for name in rule.resources or []:
            group, plural = _parsed(name)
            for mask in ((group, "*"), _ANY):
                if mask in found:
                    raise ValueError(f'resource "{_shown(group, plural)}" is masked by earlier rule "{_shown(*mask)}"')
            found.setdefault((group, plural), []).extend(choices)
    return {resource: Prefixed(choices, "no matching prefix found") for resource, choices in found.items()}


def _shown(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group or plural == "*" else plural


def _plugin(found: _Kms, clock: Clock, metrics: KmsMetrics | None, plugins: list[Kms]) -> Choice:
    """A KMS provider, noted in `plugins`, and the prefix of its values. Raises ValueError for v1."""
    from steersman.store.kms import Kms
    from steersman.store.kmsplugin import Plugin

    if found.version == "v1":
        raise ValueError(
            "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  "
            "Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature."
        )
    plugin = Plugin(found.name, found.endpoint, found.seconds(), clock, metrics)
    plugins.append(made := Kms(plugin, clock, os.urandom))
    return f"k8s:enc:kms:v2:{found.name}:".encode(), made


def _choice(provider: _Provider, plugin: Callable[[_Kms], Choice]) -> Choice:
    """A provider, and the prefix of its values. Raises ValueError for KMS v1."""
    from steersman.store.ciphers import AesCbc, AesGcm, Secretbox

    [name] = provider.given()
    if name == "identity":
        return b"", Identity()
    if provider.kms is not None:
        return plugin(provider.kms)
    make, family = {"aescbc": (AesCbc, "AES"), "aesgcm": (AesGcm, "AES"), "secretbox": (Secretbox, "Secretbox")}[name]
    keys = getattr(provider, name).keys
    named: list[Choice] = [(f"{key.name}:".encode(), make(_secret(key), os.urandom)) for key in keys]
    unmatched = f"no matching key was found for the provided {family} transformer"
    return f"k8s:enc:{name}:v1:".encode(), Prefixed(named, unmatched)
