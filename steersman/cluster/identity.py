"""Who may talk to the API server, by kube-apiserver's flags.

Owns the reading of the flags for authentication and authorization, and builds what they ask for. Called by
`apiserver.py`. Every mistake is a StartFailure with the flag's name. Source: pkg/kubeapiserver/options.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from steersman.api.registry import Registry
from steersman.apiserver.app import Authenticator, Authorizer
from steersman.apiserver.authn import tokenfile
from steersman.apiserver.authn.bearer import Bearer, Source, own_sources
from steersman.apiserver.authn.certificate import Authorities, CertificateAuthenticator
from steersman.apiserver.authn.oidc import Issuer, Oidc, Outsiders
from steersman.apiserver.authn.requestheader import Headers, RequestHeader
from steersman.apiserver.authn.serviceaccount import Tokens, Used, Uses
from steersman.apiserver.authn.tokenwebhook import TokenWebhook
from steersman.apiserver.authz import abac
from steersman.apiserver.authz.rbac import Rbac
from steersman.apiserver.authz.union import Decide, Union, always_allow, always_deny
from steersman.apiserver.authz.webhook import WebhookAuthorizer
from steersman.apiserver.storage import Storage
from steersman.apiserver.webhookclient import from_kubeconfig
from steersman.cluster import authorizers, issuers
from steersman.cluster.authorizers import Entry, WebhookSettings
from steersman.cluster.issuers import Anonymous
from steersman.cluster.process import StartFailure
from steersman.lib.clock import Clock

MODES = ("AlwaysAllow", "AlwaysDeny", "ABAC", "Webhook", "RBAC", "Node")
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PATIENCE = 60.0  # seconds for new issuers to answer
_Read = TypeVar("_Read")


class Identity:
    """What the flags ask for. Checked when made; raises StartFailure."""

    def __init__(self, flags: Mapping[str, str], clock: Clock, client_ca: Path) -> None:
        self._flags = flags
        self._clock = clock
        self._client_ca = client_ca
        self._members: dict[str, Decide] = {}  # those that stay when the AuthorizationConfiguration changes
        self._webhooks: list[WebhookAuthorizer] = []
        self._authorities: list[Authorities] = []
        self._outsiders = Outsiders()
        self._issuers, self._stated = self._outside()
        self.authorizer = self._authorizer()
        self.front_proxy_ca = self._path("requestheader-client-ca-file")

    # Authentication --------------------------------------------------------------------------------------------------

    def anonymous(self, path: str) -> bool:
        """Whether a request for this path may come from nobody."""
        if "AlwaysAllow" in _list(self._flags.get("authorization-mode", "")):
            return False  # as the original: who may do everything has to say who he is
        return self._anonymous.enabled and (not self._anonymous.paths or path in self._anonymous.paths)

    @property
    def _anonymous(self) -> Anonymous:
        return self._stated or Anonymous(self._flag("anonymous-auth", otherwise=True))

    def _outside(self) -> tuple[list[Issuer], Anonymous | None]:
        flags, config = self._flags, self._path("authentication-config")
        self._flag("anonymous-auth", otherwise=True)
        if config is None:
            return self._try("oidc-issuer-url", lambda: issuers.of_flags(flags)), None
        if any(name.startswith("oidc-") for name in flags):
            raise StartFailure("authentication-config file and oidc-* flags are mutually exclusive")
        found, stated = self._try("authentication-config", lambda: issuers.of_file(config))
        if stated is not None and "anonymous-auth" in flags:
            text = (
                "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration"
            )
            raise StartFailure(f"{text} file")
        return found, stated

    async def reload_authentication(self, patience: float = _PATIENCE) -> None:
        """Believe those whom the file names now, once all of them have told their keys, in `patience` seconds.

        Raises OSError and ValueError; then it stays as it was.
        """
        path = self._path("authentication-config")
        assert path is not None
        found, stated = issuers.of_file(path)
        if stated != self._stated:
            raise ValueError("anonymous: Forbidden: changed from initial configuration file")
        made = [Oidc(each, self._clock, self._outsiders.audiences) for each in found]
        until = self._clock.monotonic() + patience
        for each in made:
            while problem := await each.begin():
                if self._clock.monotonic() >= until:
                    raise ValueError(problem)
                await self._clock.sleep(1.0)
        self._outsiders.believe(made)

    def reload_authorities(self) -> None:
        """Read anew who signs clients' certificates. Raises OSError and ValueError."""
        for each in self._authorities:
            each.reload()

    def audiences(self, issuer: str) -> list[str]:
        """The API server's own audiences."""
        return _list(self._flags.get("api-audiences", "")) or [issuer]

    def by_connection(self) -> list[Authenticator]:
        """Authenticators that need no objects: front proxies, then client certificates."""
        if self.front_proxy_ca is None:
            return [CertificateAuthenticator()]
        headers = Headers(
            self._names("requestheader-username-headers", "X-Remote-User"),
            self._names("requestheader-uid-headers", ""),
            self._names("requestheader-group-headers", "X-Remote-Group"),
            self._names("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
            _list(self._flags.get("requestheader-allowed-names", "")),
        )
        path = self.front_proxy_ca
        proxies = self._try("requestheader-client-ca-file", lambda: Authorities(path))
        users = self._try("client-ca-file", lambda: Authorities(self._client_ca))
        self._authorities = [proxies, users]
        return [RequestHeader(proxies, headers), CertificateAuthenticator(users)]

    def for_extensions(self, front_proxy_ca: Path) -> dict[str, str]:
        """What extension API servers read of whom to believe; `front_proxy_ca` signed our own front proxy.

        Source: kubernetes' pkg/controlplane/controller/clusterauthenticationtrust.
        """
        headers = {
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-uid-headers": "X-Remote-Uid",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "requestheader-allowed-names": "front-proxy-client",
        }
        data = {}
        for name, own in headers.items():
            given = _list(self._flags.get(name, own))
            data[name] = json.dumps(given if own in given or not given else [*given, own])
        read = self._try
        data["client-ca-file"] = read("client-ca-file", self._client_ca.read_text)
        data["requestheader-client-ca-file"] = front_proxy_ca.read_text()
        if self.front_proxy_ca is not None:
            data["requestheader-client-ca-file"] += read("requestheader-client-ca-file", self.front_proxy_ca.read_text)
        return data

    def by_token(self, tokens: Tokens, storage: Storage, registry: Registry, used: Used = lambda _: "") -> Bearer:
        """The authenticator of bearer tokens, sources in the original's order; `used` as `AccountTokens` has it."""
        sources: list[Source] = []
        if path := self._path("token-auth-file"):
            sources.append(tokenfile.TokenFile(self._try("token-auth-file", lambda: tokenfile.read(path)),
                                               tokens.audiences))  # fmt: skip
        uses = Uses()
        sources += own_sources(tokens, storage, registry, self._clock, used, uses)
        self._outsiders.audiences = tokens.audiences
        given = self._issuers
        made = self._try("oidc-ca-file", lambda: [Oidc(each, self._clock, tokens.audiences) for each in given])
        self._outsiders.believe(made)
        sources.append(self._outsiders)
        if path := self._path("authentication-token-webhook-config-file"):
            webhook = self._try("authentication-token-webhook-config-file", lambda: from_kubeconfig(path, self._clock))
            version = self._version("authentication-token-webhook-version")
            kept = self._seconds("authentication-token-webhook-cache-ttl", 120.0)
            sources.append(TokenWebhook(webhook, self._clock, tokens.audiences, version=version, kept=kept))
        return Bearer(sources, tokens.audiences, uses)

    # Authorization ---------------------------------------------------------------------------------------------------

    def _authorizer(self) -> Authorizer:
        if (path := self._path("authorization-config")) is not None:
            return self._configured(path)
        modes = _list(self._flags.get("authorization-mode", "Node,RBAC"))
        for mode in modes:
            if mode not in MODES:
                raise StartFailure(f'--authorization-mode: "{mode}" is not a valid mode')
            if modes.count(mode) > 1:
                raise StartFailure(f'--authorization-mode: "{mode}" has mode specified more than once')
        if not modes:
            raise StartFailure("--authorization-mode: at least one authorization-mode must be passed")
        self._pairs(modes)
        return _united([self._member(mode, modes) for mode in modes if mode != "Node" or not _beside(modes)])

    def _configured(self, path: Path) -> Authorizer:
        if "authorization-mode" in self._flags or any(
            name.startswith("authorization-webhook-") for name in self._flags
        ):
            raise StartFailure("--authorization-config can not be specified when --authorization-mode or "
                               "--authorization-webhook-* flags are defined")  # fmt: skip
        entries = self._try("authorization-config", lambda: authorizers.of_file(path))
        modes = [entry.type for entry in entries]
        if "ABAC" in modes and not self._flags.get("authorization-policy-file"):
            raise StartFailure("--authorization-config: mode ABAC needs --authorization-policy-file")
        return Union(self._ordered(entries))

    def _ordered(self, entries: Sequence[Entry]) -> list[Decide]:
        """Who is asked, in order: webhooks anew, the others as they are."""
        modes, found = [entry.type for entry in entries], list[Decide]()
        self._webhooks = []
        for entry in entries:
            if entry.webhook is not None:
                self._webhooks.append(self._webhook(entry.webhook))
                found.append(self._webhooks[-1])
            elif entry.type != "Node" or not _beside(modes):
                if entry.type not in self._members:
                    self._members[entry.type] = self._member(entry.type, modes)
                found.append(self._members[entry.type])
        return found

    async def reload_authorization(self) -> None:
        """Ask those whom the file names now. Raises OSError and ValueError; then it stays as it was."""
        path, union = self._path("authorization-config"), self.authorizer
        assert path is not None and isinstance(union, Union)
        entries, before = authorizers.of_file(path), self._webhooks
        modes = {entry.type for entry in entries}
        wanted = [mode for mode in self._members if mode not in modes]
        if wanted or (modes - self._members.keys() - {"Webhook", "Node"}):
            raise ValueError("authorizers: modes besides Webhook may not come or go while the server runs")
        try:
            union.members[:] = self._ordered(entries)
        except StartFailure as error:
            self._webhooks = before
            raise ValueError(str(error)) from error
        for each in before:
            await each.close()

    def _webhook(self, given: WebhookSettings) -> WebhookAuthorizer:
        file, timeout = given.kubeconfig, given.timeout
        webhook = self._try("authorization-config", lambda: from_kubeconfig(file, self._clock, timeout))
        return WebhookAuthorizer(
            webhook,
            self._clock,
            version=given.version,
            allowed_for=given.allowed_for,
            denied_for=given.denied_for,
            deny_on_error=given.deny_on_error,
            conditions=given.conditions,
        )

    def _pairs(self, modes: Sequence[str]) -> None:
        for mode, flag in (("ABAC", "authorization-policy-file"), ("Webhook", "authorization-webhook-config-file")):
            if mode in modes and not self._flags.get(flag):
                raise StartFailure(f"--authorization-mode: mode {mode} needs --{flag}")
            if mode not in modes and self._flags.get(flag):
                raise StartFailure(f"--{flag}: cannot be specified without mode {mode}")

    def _member(self, mode: str, modes: Sequence[str]) -> Decide:
        match mode:
            case "AlwaysAllow":
                return always_allow
            case "AlwaysDeny":
                return always_deny
            case "ABAC":
                policies = Path(self._flags["authorization-policy-file"])
                return abac.Abac(self._try("authorization-policy-file", lambda: abac.read(policies)))
            case "Webhook":
                config = Path(self._flags["authorization-webhook-config-file"])
                webhook = self._try("authorization-webhook-config-file", lambda: from_kubeconfig(config, self._clock))
                return WebhookAuthorizer(
                    webhook,
                    self._clock,
                    version=self._version("authorization-webhook-version"),
                    allowed_for=self._seconds("authorization-webhook-cache-authorized-ttl", 300.0),
                    denied_for=self._seconds("authorization-webhook-cache-unauthorized-ttl", 30.0),
                )
            case "Node":
                return Rbac(roles=False)
        return Rbac(nodes=_beside(modes))

    def attach(self, storage: Storage, registry: Registry) -> None:
        """Authorizers that read objects read these."""
        members = self.authorizer.members if isinstance(self.authorizer, Union) else [self.authorizer]
        for member in members:
            if isinstance(member, Rbac):
                member.attach(storage, registry)

    # Values ----------------------------------------------------------------------------------------------------------

    def _flag(self, name: str, *, otherwise: bool) -> bool:
        text = self._flags.get(name, str(otherwise)).lower()
        if text not in ("true", "false", "1", "0", "t", "f"):
            raise StartFailure(f'invalid argument "{text}" for "--{name}" flag: strconv.ParseBool: invalid syntax')
        return text in ("true", "1", "t")

    def _seconds(self, name: str, otherwise: float) -> float:
        text = self._flags.get(name)
        if text is None or text == "0":
            return otherwise if text is None else 0.0
        if not re.fullmatch(r"([0-9.]+(ns|us|ms|s|m|h))+", text):
            raise StartFailure(f'invalid argument "{text}" for "--{name}" flag: time: invalid duration "{text}"')
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)(ns|us|ms|s|m|h)", text))

    def _version(self, name: str) -> str:
        version = self._flags.get(name, "v1beta1")
        if version not in ("v1", "v1beta1"):
            raise StartFailure(f'--{name}: unsupported version "{version}", only v1 and v1beta1 are supported')
        return version

    def _path(self, name: str) -> Path | None:
        return Path(self._flags[name]) if self._flags.get(name) else None

    def _names(self, name: str, otherwise: str) -> list[str]:
        return [each.lower() for each in _list(self._flags.get(name, otherwise))]

    def _try(self, flag: str, read: Callable[[], _Read]) -> _Read:
        try:
            return read()
        except (OSError, ValueError) as error:
            raise StartFailure(f"--{flag}: {error}") from error


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _united(members: Sequence[Decide]) -> Authorizer:
    only = members[0]
    return only if len(members) == 1 and isinstance(only, Rbac) else Union(members)


def _beside(modes: Sequence[str]) -> bool:
    """Whether Node comes just before RBAC: then one authorizer does both."""
    return any(pair == ("Node", "RBAC") for pair in pairwise(modes))
