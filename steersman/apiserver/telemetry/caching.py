"""Metrics of the watch caches: what they hold, what they heard, what they told, what was listed from them.

Owns the names; the figures are plain numbers that caches and watches keep, read when somebody asks. Source: apiserver's
pkg/storage/cacher/metrics and pkg/endpoints/metrics (names, labels, bounds).
"""

from __future__ import annotations

from typing import Any

from steersman.apiserver.cache import KEPT, WATCH_LISTS, Told
from steersman.lib.metrics import Registry

_UNTIL_TOLD = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2, 4, 6, 8, 10, 15, 20, 30, 45, 60)
_WHAT = ("group", "resource")
_SIZES = tuple(1024 << step for step in range(8))
_LEAST = 10  # binary digits of the first of them


class Caching:
    """The families; `collect` fills them."""

    def __init__(self, registry: Registry, server: Any) -> None:
        self._server = server
        counter, gauge = registry.counter, registry.gauge
        name = "apiserver_watch_cache_"
        self._received = [
            counter(f"{name}events_received_total", "Events that a cache heard of.", _WHAT),
            counter("apiserver_storage_events_received_total", "Events that the store told.", _WHAT),
        ]
        self._dispatched = counter(f"{name}events_dispatched_total", "Events told to watchers.", _WHAT)
        self._made = counter(f"{name}initializations_total", "How often a cache was filled.", _WHAT)
        self._revision = gauge(f"{name}resource_version", "The newest revision that a cache knows.", _WHAT)
        self._capacity = gauge("watch_cache_capacity", "Events that a cache keeps.", _WHAT)
        name = "apiserver_cache_list_"
        self._lists = counter(f"{name}total", "Lists from a cache.", (*_WHAT, "index"))
        self._fetched = counter(f"{name}fetched_objects_total", "Objects looked at for them.", (*_WHAT, "index"))
        self._returned = counter(f"{name}returned_objects_total", "Objects given out for them.", _WHAT)
        self._newest = counter(
            "apiserver_watch_cache_consistent_read_total", "Lists of what is newest.", (*_WHAT, "success", "fallback")
        )
        self._initial = counter("apiserver_init_events_total", "Events of what was there when a watch began.", _WHAT)
        self._ended = counter("apiserver_terminated_watchers_total", "Watches that were ended.", _WHAT)
        watched = ("group", "version", "resource")
        self._events = counter("apiserver_watch_events_total", "Events told to watchers.", watched)
        self._sizes = registry.histogram(
            "apiserver_watch_events_sizes", "Bytes of events told to watchers.", watched, _SIZES
        )
        server.services.extras[WATCH_LISTS] = registry.histogram(
            "apiserver_watch_list_duration_seconds", "Seconds until a watch had told what there was.",
            (*watched, "scope"), _UNTIL_TOLD,
        )  # fmt: skip
        stored = gauge("apiserver_storage_objects", "Objects of a resource.", ("resource",))
        counted = gauge("apiserver_resource_objects", "Objects of a resource.", _WHAT)
        sizes = gauge("apiserver_resource_size_estimate_bytes", "Bytes of a resource's objects.", _WHAT)
        self._objects = stored, counted, sizes
        registry.collect(self.collect)

    def collect(self) -> None:
        """Ask every cache."""
        stored, counted, sizes = self._objects
        storage = self._server.storage
        for kind in self._server.registry:
            if kind.stored_as is not None or (cache := storage.found(kind)) is None:
                continue
            where = kind.group, kind.plural
            stored.labels(f"{kind.plural}.{kind.group}" if kind.group else kind.plural).set(len(cache))
            counted.labels(*where).set(len(cache))
            sizes.labels(*where).set(cache.size)
            for family in self._received:
                if cache.heard:
                    family.labels(*where).set(cache.heard)
            if cache.told:
                self._dispatched.labels(*where).set(cache.told)
            self._made.labels(*where).set(1)
            self._revision.labels(*where).set(storage.revision)
            self._capacity.labels(*where).set(KEPT)
            if cache.lists:
                self._lists.labels(*where, "").set(cache.lists)
                self._fetched.labels(*where, "").set(cache.fetched)
                self._returned.labels(*where).set(cache.returned)
            if cache.newest:
                self._newest.labels(*where, "true", "false").set(cache.newest)
            if cache.initial:
                self._initial.labels(*where).set(cache.initial)
            if cache.broken:
                self._ended.labels(*where).set(cache.broken)
            for version, told in cache.by_version.items():
                self._version((kind.group, version, kind.plural), told)

    def _version(self, where: tuple[str, str, str], told: Told) -> None:
        self._events.labels(*where).set(sum(told.counts))
        first, *between = told.counts[_LEAST : _LEAST + len(_SIZES)]
        small, large = sum(told.counts[:_LEAST]), sum(told.counts[_LEAST + len(_SIZES) :])
        self._sizes.labels(*where).load([small + first, *between, large], told.bytes)
