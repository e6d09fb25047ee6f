"""Encryption at rest while the API server runs.

Owns the rules in force, the care for KMS plugins (they are asked every minute how they are and which key they use) and
the reading of the file anew. Called by `apiserver.py`. It never reads or writes values.
Source: apiserver's pkg/server/options/encryptionconfig, with its controller.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from steersman.cluster import encryption
from steersman.cluster.encryption import Rules
from steersman.cluster.process import StartFailure
from steersman.lib.clock import Clock
from steersman.lib.tasks import Tasks
from steersman.store.interface import Store
from steersman.store.kmsmetrics import KmsMetrics
from steersman.store.sealed import SealedStore

log = logging.getLogger(__name__)

CHECK = "kms-providers"  # the name of the health check
_WELL, _ILL = 60.0, 10.0  # seconds until a plugin is asked again
_LOOK = 60.0  # seconds between looks at the file
_TRY = 0.1  # seconds between checks of a new file's plugins
_PATIENCE = 10.0  # seconds at least that they have to be well


class Sealing:
    """What `--encryption-provider-config` asks for. Make it with `begin`."""

    def __init__(self, rules: Rules, clock: Clock, metrics: KmsMetrics, *, reloads: bool) -> None:
        self._clock = clock
        self.metrics = metrics
        self._reloads = reloads
        self._use(rules)
        self._stores: list[SealedStore] = []

    @classmethod
    async def begin(cls, flags: Mapping[str, str], clock: Clock, tasks: Tasks) -> Sealing | None:
        """Read the file and ask its plugins; those that do not answer are asked on. Raises StartFailure."""
        path = flags.get("encryption-provider-config")
        reloads = flags.get("encryption-provider-config-automatic-reload", "false").lower() in ("true", "1", "t")
        if not path:
            if reloads:
                raise StartFailure(
                    "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config"
                )
            return None
        metrics = KmsMetrics(f"apiserver-{socket.gethostname()}")
        made = cls(encryption.read(Path(path), clock, metrics, reloads=reloads), clock, metrics, reloads=reloads)
        await made._check(made._rules)
        tasks.spawn(made._care(), "KMS plugins")
        if reloads:
            tasks.spawn(made._follow(Path(path), tasks), "encryption configuration")
        return made

    def seal(self, store: Store) -> Store:
        """The store, its values encrypted."""
        made = SealedStore(store, lambda key: self._of(key))
        self._stores.append(made)
        return made

    def _use(self, rules: Rules) -> None:
        self._rules = rules
        self._of = encryption.by_key(rules.transformers)
        self.metrics.in_use(rules.digest)

    @property
    def checked(self) -> bool:
        """Whether there is something to check, now or after the file has changed."""
        return bool(self._rules.plugins) or self._reloads

    async def check(self) -> str:
        """What is wrong with the plugins; nothing when all are well."""
        return await self._check(self._rules)

    async def _check(self, rules: Rules) -> str:
        found = await asyncio.gather(*(plugin.check() for plugin in rules.plugins))
        problems = [f"kms-provider-{at}: {wrong}" for at, wrong in enumerate(found) if wrong]
        for problem in problems:
            log.warning("%s", problem)
        return problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]" if problems else ""

    async def _care(self) -> None:
        """Keep seeds in use, and open what a plugin that is well again can open."""
        while True:
            wrong = await self.check()
            if not wrong:
                await self._reopen()
            await self._clock.sleep(_ILL if wrong else _WELL)

    async def _reopen(self) -> None:
        for store in self._stores:
            await store.reopen()

    async def _follow(self, path: Path, tasks: Tasks) -> None:
        """Read the file anew when it is another one; what cannot be used changes nothing."""
        while True:
            await self._clock.sleep(_LOOK)
            try:
                if encryption.digest(path) == self._rules.digest:
                    continue
                rules = encryption.read(path, self._clock, self.metrics, reloads=True)
                await self._ready(rules)
            except (StartFailure, ValueError) as error:
                log.error("error processing encryption config file %s: %s", path, error)
                self.metrics.reloaded(self._clock.now(), well=False)
                continue
            old, grace = self._rules, 2 * sum(plugin.timeout for plugin in self._rules.plugins)
            self._use(rules)
            self.metrics.reloaded(self._clock.now(), well=True)
            log.info("encryption configuration %s is in use", path)
            await self._reopen()
            tasks.spawn(self._close(old, grace), "old KMS plugins")

    async def _ready(self, rules: Rules) -> None:
        """Wait until new plugins are well. Raises ValueError when they do not become so."""
        wrong = ""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(_PATIENCE, 2 * sum(plugin.timeout for plugin in rules.plugins))):
                while wrong := await self._check(rules):
                    await self._clock.sleep(_TRY)
        if wrong:
            await self._close(rules, 0)
            raise ValueError(f"health check for new transformers failed: {wrong}")

    async def _close(self, rules: Rules, grace: float) -> None:
        if grace:
            await self._clock.sleep(grace)
        for plugin in rules.plugins:
            plugin.close()
