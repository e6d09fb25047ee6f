"""The APIService objects of what this API server serves itself: built-in groups, and those of custom resources.

Owns which there have to be. Built-in ones are made at the start and then left to the administrator; custom ones follow
their definitions. Called by the aggregator. Source: kube-aggregator's pkg/controllers/autoregister, kubernetes'
pkg/controlplane/controller/crdregistration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from steersman.api.errors import ApiError
from steersman.api.priorities import BUILT_IN, CUSTOM, Priority
from steersman.api.resource import APISERVICES, CUSTOMRESOURCEDEFINITIONS, Object
from steersman.apiserver.bootstrap import ensure, internal_call
from steersman.apiserver.cache import Item
from steersman.apiserver.verbs.delete import delete_item
from steersman.apiserver.verbs.write import update_object

LABEL = "kube-aggregator.kubernetes.io/automanaged"
ON_START, ALWAYS = "onstart", "true"
OWN = "apiregistration.k8s.io"  # has no APIService: it is what they are made of

GroupVersion = tuple[str, str]


class Automanaged:
    """Keeps the objects that this server makes. `definitions` maps a definition's name to what it serves."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._definitions: dict[str, set[GroupVersion]] = {}

    async def start(self, residents: Mapping[GroupVersion, Priority]) -> None:
        """Make what is missing; delete what an earlier start made and is served no longer.

        The objects of residents are made and never changed back: an administrator may give them to another server.
        """
        server = self._server
        wanted: dict[str, Object] = {}
        for group in server.registry.groups():
            if group != OWN:
                for version in server.registry.versions(group):
                    if priority := BUILT_IN.get((group, version)):
                        wanted[f"{version}.{group}"] = _object(group, version, priority, ON_START)
        kind = server.registry.find(CUSTOMRESOURCEDEFINITIONS.group, CUSTOMRESOURCEDEFINITIONS.plural)
        if kind is not None:
            for _, item in server.storage.cache(kind).items(server.storage.prefix(kind)):
                self._definitions[item.name] = _served(item.obj())
        for group, version in set().union(*self._definitions.values()):
            wanted.setdefault(f"{version}.{group}", _object(group, version, CUSTOM, ALWAYS))
        for (group, version), priority in residents.items():
            wanted[f"{version}.{group}"] = _object(group, version, priority, "")
        await asyncio.gather(*(self._keep(name, obj) for name, obj in wanted.items()))
        services = server.registry.find(APISERVICES.group, APISERVICES.plural)
        for _, item in list(server.storage.cache(services).items(server.storage.prefix(services))):
            if item.name not in wanted and LABEL in item.labels:
                await self._delete(item)

    async def defined(self, name: str) -> None:
        """A CustomResourceDefinition came, changed or went: what it serves now has objects, what it served has not."""
        server = self._server
        kind = server.registry.find(CUSTOMRESOURCEDEFINITIONS.group, CUSTOMRESOURCEDEFINITIONS.plural)
        item = server.storage.find(kind, "", name)
        before = self._definitions.pop(name, set())
        if item is not None:
            self._definitions[name] = _served(item.obj())
        for group, version in before | self._definitions.get(name, set()):
            await self.settle(f"{version}.{group}")

    async def settle(self, name: str) -> None:
        """Make one object as it has to be, when it is ours to keep always."""
        version, _, group = name.partition(".")
        if any((group, version) in served for served in self._definitions.values()):
            await self._keep(name, _object(group, version, CUSTOM, ALWAYS))
            return
        item = self._found(name)
        if item is not None and item.labels.get(LABEL) == ALWAYS:
            await self._delete(item)

    def _found(self, name: str) -> Item | None:
        kind = self._server.registry.find(APISERVICES.group, APISERVICES.plural)
        return self._server.storage.find(kind, "", name)

    async def _keep(self, name: str, wanted: Object) -> None:
        item = self._found(name)
        if item is None:
            await ensure(self._server, APISERVICES, wanted)
            return
        if LABEL not in item.labels or item.obj()["spec"] == wanted["spec"]:
            return
        call = internal_call(self._server, APISERVICES, "update", "", name)
        try:
            await update_object(call, item, lambda obj: {**obj, "spec": wanted["spec"]}, retry=True)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    async def _delete(self, item: Item) -> None:
        call = internal_call(self._server, APISERVICES, "delete", "", item.name)
        try:
            await delete_item(call, item, {})
        except ApiError as error:
            if error.code not in (404, 409):
                raise


def _served(definition: Object) -> set[GroupVersion]:
    spec = definition["spec"]
    return {(spec["group"], each["name"]) for each in spec["versions"] if each.get("served")}


def _object(group: str, version: str, priority: Priority, label: str) -> Object:
    spec: Object = {"groupPriorityMinimum": priority[0], "version": version, "versionPriority": priority[1]}
    if group:
        spec["group"] = group
    labels = {"labels": {LABEL: label}} if label else {}
    return {"metadata": {"name": f"{version}.{group}", **labels}, "spec": spec}
