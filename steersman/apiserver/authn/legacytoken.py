"""Tokens that are kept in Secrets: when each was last used, and whether it may be used still.

Owns the label kubernetes.io/legacy-token-last-used, the refusal of tokens whose Secret is labelled as invalid, and the
ConfigMap that says since when use is followed. Called by `serviceaccount.py` for every use, and run by `cluster`. The
controller legacy-serviceaccount-token-cleaner reads all three. Source: KEP-2799; pkg/serviceaccount/legacy.go and
pkg/controlplane/controller/legacytokentracking.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Any

from steersman.api.errors import ApiError
from steersman.api.kind import Kind
from steersman.api.resource import CONFIGMAPS, SECRETS, Object, Resource
from steersman.apiserver.bootstrap import ensure, internal_call
from steersman.apiserver.cache import Item
from steersman.apiserver.verbs.write import update_object
from steersman.lib.clock import Clock, rfc3339
from steersman.lib.tasks import Tasks
from steersman.store.interface import Event

log = logging.getLogger(__name__)

LAST_USED = "kubernetes.io/legacy-token-last-used"
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
TRACKING = "kube-apiserver-legacy-service-account-token-tracking"
_DAY = 86_400.0  # seconds
_DATE = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")
_PATIENCE = 1800.0  # seconds between two creations: servers without the feature would delete it each time


class LegacyTokens:
    """Follows the use of Secrets' tokens on one server."""

    def __init__(self, server: Any, clock: Clock, tasks: Tasks) -> None:
        self._server = server
        self._clock = clock
        self._tasks = tasks
        self._marking: set[str] = set()  # uids of Secrets that are being labelled

    def used(self, secret: Object) -> str:
        """Somebody shows the token that this Secret keeps: note the day. Returns why it is not good, or nothing."""
        meta, now = secret["metadata"], self._clock.now()
        labels = meta.get("labels") or {}
        near = (rfc3339(now)[:10], rfc3339(now + _DAY)[:10])  # tomorrow: another server's clock
        if labels.get(LAST_USED) not in near and meta["uid"] not in self._marking:
            self._marking.add(meta["uid"])
            self._tasks.spawn(self._mark(meta, near[0]), "last use of a token")
        if not labels.get(INVALID_SINCE):
            return ""
        account = (meta.get("annotations") or {}).get("kubernetes.io/service-account.name", "")
        return (
            f"the token in secret {meta['namespace']}/{meta['name']} for service account "
            f"{meta['namespace']}/{account} has been marked invalid. Use tokens from the TokenRequest API or "
            f"manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to "
            "temporarily allow use of this token"
        )

    async def _mark(self, meta: Object, day: str) -> None:
        try:
            await self._write(SECRETS, meta["namespace"], meta["name"], lambda obj: _labelled(obj, meta["uid"], day))
        except ApiError as error:
            log.info("cannot label secret %s/%s with its last use: %s", meta["namespace"], meta["name"], error)
        finally:
            self._marking.discard(meta["uid"])

    async def _write(self, resource: Resource, namespace: str, name: str, change: Any) -> None:
        item = self._find(resource, namespace, name)
        if item is not None:
            call = internal_call(self._server, resource, "patch", namespace, name)
            await update_object(call, item, change, retry=True)

    def _find(self, resource: Resource, namespace: str, name: str) -> Item | None:
        kind = self._server.registry.find(resource.group, resource.plural)
        found: Item | None = self._server.storage.find(kind, namespace, name)
        return found

    async def keep_since(self) -> None:
        """Until cancelled: keep the ConfigMap that says since when use is followed."""
        changed = asyncio.Event()

        def heard(kind: Kind, events: Sequence[Event]) -> None:
            if kind.plural == CONFIGMAPS.plural and any(each.key.endswith(f"/{TRACKING}") for each in events):
                changed.set()

        self._server.storage.on_change.append(heard)
        made = self._clock.monotonic() - _PATIENCE
        while True:
            changed.clear()
            item = self._find(CONFIGMAPS, "kube-system", TRACKING)
            try:
                if item is None:
                    await self._clock.sleep(made + _PATIENCE - self._clock.monotonic())
                    made = self._clock.monotonic()
                    meta = {"name": TRACKING, "namespace": "kube-system"}
                    await ensure(self._server, CONFIGMAPS, {"metadata": meta, "data": {"since": self._today()}})
                elif not _DATE.fullmatch(_since(item.obj())):
                    await self._write(CONFIGMAPS, "kube-system", TRACKING, self._dated)
            except ApiError as error:
                log.warning("cannot keep %s: %s", TRACKING, error)
                await self._clock.sleep(_PATIENCE)
                continue
            await changed.wait()

    def _dated(self, obj: Object) -> Object:
        return {**obj, "data": {**(obj.get("data") or {}), "since": self._today()}}

    def _today(self) -> str:
        return rfc3339(self._clock.now())[:10]


def _since(tracking: Object) -> str:
    return str((tracking.get("data") or {}).get("since"))


def _labelled(secret: Object, uid: str, day: str) -> Object:
    meta = secret["metadata"]
    if meta["uid"] != uid:
        return secret  # another of its name
    return {**secret, "metadata": {**meta, "labels": {**(meta.get("labels") or {}), LAST_USED: day}}}
