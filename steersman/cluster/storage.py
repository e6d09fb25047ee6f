"""Which store a profile has, and the compaction of its history.

Owns the reading of `--store` and of the API server's etcd flags. Called by `apiserver.py`. It never looks into a store.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Mapping
from pathlib import Path

from steersman.cluster.process import StartFailure
from steersman.cluster.profile import Profile
from steersman.lib.clock import Clock
from steersman.store.interface import Compacted, KeyExists, RevisionConflict, Store, StoreUnavailable
from steersman.store.memory import MemoryStore
from steersman.store.sqlite import SqliteStore

log = logging.getLogger(__name__)

ETCD = "etcd="
_MARK = "/meta/compactions/last"  # of no kind; its value is the revision before which history was forgotten
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(flags: Mapping[str, str], name: str, default: str) -> float:
    """A flag's duration, such as "5m0s" or "90s". Raises StartFailure."""
    text = flags.get(name, default)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if text == "0":
        return 0.0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise StartFailure(f"invalid value for {name}: {text!r} is no duration such as 5m0s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


async def open_store(profile: Profile, clock: Clock) -> Store:
    """The profile's store. Raises StartFailure."""
    flags = profile.options("apiserver")
    urls = flags.get("etcd-servers") or (profile.store.removeprefix(ETCD) if profile.store.startswith(ETCD) else "")
    try:
        if urls:
            return await _open_etcd(urls.split(","), flags, clock)
        if profile.store == "memory":
            return MemoryStore()
        return await SqliteStore.open(profile.directory / "store.db")
    except StoreUnavailable as error:
        raise StartFailure(str(error)) from error


async def _open_etcd(urls: list[str], flags: Mapping[str, str], clock: Clock) -> Store:
    from steersman.store.etcd.link import Servers
    from steersman.store.etcd.store import PREFIX, EtcdStore

    files = [
        Path(flags[name]) if flags.get(name) else None for name in ("etcd-cafile", "etcd-certfile", "etcd-keyfile")
    ]
    try:
        return await EtcdStore.open(Servers(urls, *files), clock, flags.get("etcd-prefix") or PREFIX)
    except ValueError as error:
        raise StartFailure(f"invalid value for etcd-servers: {error}") from error
    except (OSError, ssl.SSLError) as error:
        raise StartFailure(f"cannot use etcd's TLS files: {error}") from error


async def compact(store: Store, clock: Clock, interval: float) -> None:
    """Every interval forget what is older than the interval before: a reader has at least that long.

    Of several servers on one store one does it: who writes the mark first. The mark is a write, so that the revision
    moves on an idle cluster too: what can be read is always newer than what was forgotten. Source: etcd3's compactor.
    """
    previous, last = store.revision, await _mark(store)
    while interval:
        await clock.sleep(interval)
        try:
            value = b"%d" % previous
            newest = await (store.update(_MARK, value, last) if last else store.create(_MARK, value))
            await store.compact(previous)
            previous = last = newest
        except (KeyExists, RevisionConflict, Compacted):  # it was another server's turn
            previous, last = store.revision, await _mark(store)
        except StoreUnavailable as error:
            log.warning("cannot compact: %s", error)


async def _mark(store: Store) -> int:
    """The revision of the mark; 0 when there is none, or nobody to ask."""
    try:
        entry = await store.get(_MARK)
    except StoreUnavailable:
        return 0
    return entry.revision if entry is not None else 0


async def end_when_lost(store: Store, stop: asyncio.Event) -> None:
    """A server that missed events of a shared store cannot go on: it ends, and its successor reads everything anew."""
    if not store.shared:
        return
    from steersman.store.etcd.store import EtcdStore

    if isinstance(store, EtcdStore):
        await store.lost.wait()
        log.error("events of etcd are lost to compaction; starting anew")
        stop.set()
