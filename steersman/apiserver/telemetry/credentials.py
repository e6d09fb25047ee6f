"""Metrics of what people show to be let in: client certificates, service accounts' tokens, who they want to be.

Owns the names; each figure is its owner's, read when somebody asks. Source: apiserver's authentication/request/x509,
kubernetes' pkg/serviceaccount/metrics.go, apiserver's endpoints/filters/impersonation/metrics (names, labels, bounds).
"""

from __future__ import annotations

from typing import Any

from steersman.apiserver.authn.certificate import CertificateAuthenticator
from steersman.apiserver.authn.serviceaccount import Uses
from steersman.apiserver.impersonate import ATTEMPTS
from steersman.lib.metrics import Registry

_HOUR, _DAY = 3600, 86_400
_LIFETIMES = (
    0, _HOUR / 2, _HOUR, 2 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 4 * _DAY, 7 * _DAY, 30 * _DAY, 90 * _DAY,
    180 * _DAY, 360 * _DAY,
)  # fmt: skip
_START = "apiserver_impersonation_attempts_"


class Credentials:
    """The families; `collect` fills them."""

    def __init__(self, registry: Registry, server: Any) -> None:
        self._server = server
        self._left = registry.histogram(
            "apiserver_client_certificate_expiration_seconds",
            "How long client certificates are still good, for each request when this is read.",
            bounds=_LIFETIMES,
        )
        texts = {
            "legacy_tokens_total": "Uses of Secrets' tokens.",
            "legacy_auto_token_uses_total": "Uses of tokens in Secrets that were made without being asked for.",
            "legacy_manual_token_uses_total": "Uses of tokens in Secrets that somebody made.",
            "invalid_legacy_auto_token_uses_total": "Attempts to use such tokens that are no longer good.",
            "stale_tokens_total": "Uses of pods' tokens after they should have been renewed.",
            "valid_tokens_total": "Uses of pods' tokens in time.",
        }
        counters = {name: registry.counter(f"serviceaccount_{name}", text) for name, text in texts.items()}
        self._tokens = {name: family.labels() for name, family in counters.items()}
        labels = "mode", "decision"
        self._tries = registry.counter(f"{_START}total", "Wishes to be somebody else.", labels)
        self._seconds = registry.histogram(f"{_START}duration_seconds", "Seconds they took.", labels, ATTEMPTS)
        registry.collect(self.collect)

    def collect(self) -> None:
        """Ask everybody."""
        now = self._server.services.clock.now()
        for authenticator in self._server.authenticators:
            if isinstance(authenticator, CertificateAuthenticator):
                for until, times in authenticator.taken():
                    self._left.labels().observe(until - now, times)
        bearer = self._server.services.extras.get("bearer")
        uses = getattr(bearer, "uses", None)
        if isinstance(uses, Uses):
            for name, number in uses.figures().items():
                self._tokens[name].set(number)
        for (mode, decision), seconds in self._server.impersonation.attempts.items():
            self._tries.labels(mode, decision).set(seconds.count)
            self._seconds.labels(mode, decision).load(seconds.counts, seconds.total)
