"""CustomResourceDefinitions at work: names accepted, kinds served, objects cleaned up at the end.

Owns the life of custom kinds in the registry and the conditions of their definitions. Hears of definitions from the
storage; called by `cluster`. What a custom object may be is `api.structural`'s. Source: apiextensions-apiserver's
naming, establish and finalizer controllers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from steersman.api import customparts, definitions, errors, jsonpath, meta, rules, structural, table
from steersman.api.correlation import Correlated
from steersman.api.errors import ApiError, FieldError
from steersman.api.kind import Behavior, Kind, ScalePaths, Subresource, Update, Version, keep_status, only_status
from steersman.api.registry import behave, version_priority
from steersman.api.resource import CUSTOMRESOURCEDEFINITIONS, Object
from steersman.apiserver.admission import matching
from steersman.apiserver.bootstrap import internal_call
from steersman.apiserver.cache import Item
from steersman.apiserver.conversion import Converter
from steersman.apiserver.verbs.delete import delete_item
from steersman.apiserver.verbs.write import update_object
from steersman.lib.backoff import Backoff
from steersman.lib.clock import rfc3339
from steersman.lib.tasks import Tasks
from steersman.store.interface import Event

log = logging.getLogger(__name__)

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")  # in this order
_READ_WRITE = ("get", "patch", "update")


class CustomResources:
    """Keeps the registry in step with the definitions that are stored."""

    def __init__(self, server: Any, tasks: Tasks) -> None:
        self._server = server
        self._tasks = tasks
        self._served: dict[str, tuple[str, str]] = {}  # definition -> (group, plural)
        self._wanted: dict[str, None] = {}
        self._resting: set[str] = set()  # what failed, until it is tried again
        self._backoff: Backoff[str] = Backoff(0.005, 1000.0)
        self._wake = asyncio.Event()

    async def start(self) -> None:
        """Serve what is defined already, then follow changes."""
        server = self._server
        kind = server.registry.find("apiextensions.k8s.io", "customresourcedefinitions")
        if kind is None:
            return
        server.services.extras.setdefault("before_delete", {})[kind.group, kind.kind] = self._begin_end
        server.storage.on_change.append(self._changed)
        for _, item in list(server.storage.cache(kind).items(server.storage.prefix(kind))):
            await self._sync(item.name)
        self._tasks.spawn(self._follow(), "custom resources")

    def _changed(self, kind: Kind, events: Sequence[Event]) -> None:
        if (kind.group, kind.plural) == ("apiextensions.k8s.io", "customresourcedefinitions"):
            for event in events:
                self._want(event.key.rpartition("/")[2])

    def _want(self, name: str) -> None:
        if name not in self._resting:
            self._wanted[name] = None
            self._wake.set()

    async def _follow(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._wanted:
                name = next(iter(self._wanted))
                del self._wanted[name]
                try:
                    await self._sync(name)
                    self._backoff.forget(name)
                except ApiError as error:
                    log.warning("cannot serve %s: %s", name, error)
                    self._rest(name)
                except Exception:
                    log.exception("cannot serve %s", name)
                    self._rest(name)

    def _rest(self, name: str) -> None:
        """Try again later, and not sooner for what happens meanwhile: our own writes are some of it."""

        async def again(seconds: float) -> None:
            await self._server.services.clock.sleep(seconds)
            self._resting.discard(name)
            self._want(name)

        self._resting.add(name)
        self._tasks.spawn(again(self._backoff.next(name)), f"custom resource {name}, again")

    async def _sync(self, name: str) -> None:
        server = self._server
        kind = server.registry.find("apiextensions.k8s.io", "customresourcedefinitions")
        item = server.storage.find(kind, "", name)
        if item is None:
            self._withdraw(name)
            self._reconsider(name, name.partition(".")[2])
            return
        obj = item.obj()
        if obj["metadata"].get("deletionTimestamp"):
            await self._finish(item, obj)
            return
        names, accepted = definitions.accept(obj, self._others(name))
        if accepted["status"] != "True" and definitions.condition(obj, "Established") != "True":
            await self._status(item, names, accepted)
            return
        kind = kind_of({**obj, "spec": {**obj["spec"], "names": names}})
        if (obj["spec"].get("conversion") or {}).get("strategy") == "Webhook":
            webhook = obj["spec"]["conversion"].get("webhook") or {}
            kind = replace(kind, convert=Converter(server.services, kind, webhook))
        taken = server.registry.find(kind.group, kind.plural)
        if taken is not None and self._served.get(name) != (kind.group, kind.plural):
            return
        server.registry.add(kind)
        self._rule(kind, obj)
        await server.storage.open(kind)
        self._served[name] = (kind.group, kind.plural)
        await self._status(item, names, accepted)

    def _others(self, name: str) -> list[Object]:
        server = self._server
        kind = server.registry.find("apiextensions.k8s.io", "customresourcedefinitions")
        items = [item for _, item in list(server.storage.cache(kind).items(server.storage.prefix(kind)))]
        return [item.obj() for item in items if item.name != name]

    def _reconsider(self, name: str, group: str) -> None:
        """Names were let go of: others in the group may have been waiting for them."""
        for each in self._others(name):
            if each["spec"]["group"] == group and definitions.condition(each, "NamesAccepted") == "False":
                self._want(each["metadata"]["name"])

    def _withdraw(self, name: str) -> None:
        where = self._served.pop(name, None)
        if where is not None:
            kind = self._server.registry.find(*where)
            self._server.registry.remove(*where)
            self._rule(kind, None)
            if kind is not None:
                self._server.storage.close_kind(kind)

    def _rule(self, kind: Kind | None, definition: Object | None) -> None:
        """Let the rules in a version's schema (x-kubernetes-validations) judge every write in it, or no longer."""
        hooks = self._server.services.extras
        where = (kind.group, kind.kind) if kind is not None else ("", "")
        for when in ("before_create", "before_update"):
            hooks.setdefault(when, {}).pop(where, None)
        levels: dict[str, tuple[Mapping[str, Any], rules.Level]] = {}
        for version in definition["spec"]["versions"] if definition else ():
            schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
            level, _ = rules.compile_rules(schema)
            levels[version["name"]] = (schema, level)
        if kind is None or not any(level for _, level in levels.values()):
            return

        async def judge(call: Any, obj: Object, old: Object | None = None) -> None:
            schema, level = levels.get(call.version) or levels[kind.storage_version.name]
            if not level:
                return
            below, now = call.info.subresource == "status", matching.in_version(call, obj, call.version) or obj
            before = matching.in_version(call, old, call.version)
            was = Correlated(now, before, schema) if before is not None else None
            found = _status_complaints(now, before or {}, schema) if below else structural.check(now, schema, was=was)
            found += customparts.scale(now, _scale_of(kind, call.version), status_only=below)
            lists = structural.check_lists(now, schema)
            found += [] if below else customparts.embedded(now, schema)
            found += [] if before is not None and structural.check_lists(before, schema) else lists
            said = customparts.unchecked(found)
            if not said:
                said, warnings = rules.check_object(level, now, before, was)
                call.warnings += warnings
            if said:
                fresh = before is None
                own = meta.validate(obj, namespaced=kind.namespaced) if fresh else _metadata(kind, obj, old or {})
                name = obj["metadata"].get("name", "")
                raise errors.invalid(kind.group, kind.kind, name, [*own, *found, *said])

        hooks["before_create"][where] = [judge]
        hooks["before_update"][where] = [judge]

    async def _update(self, item: Item, change: Callable[[Object], Object]) -> None:
        """By the status endpoint, as the original: policies and webhooks for definitions are not asked."""
        call = internal_call(self._server, CUSTOMRESOURCEDEFINITIONS, "update", "", item.name)
        call.info.subresource = "status"
        call.options["merged"] = True
        await update_object(call, item, change, retry=True)

    async def _status(self, item: Item, names: Object, accepted: Object) -> None:
        """Write what is decided about a definition."""
        now = rfc3339(self._server.services.clock.now())

        def change(obj: Object) -> Object:
            status = obj.setdefault("status", {})
            definitions.set_condition(status, accepted, now)
            if definitions.condition(obj, "Established") != "True":
                definitions.set_condition(status, definitions.established(accepted), now)
            if (approval := definitions.approval(obj)) is not None:
                definitions.set_condition(status, approval, now)
            status["acceptedNames"] = names
            storage = next(version["name"] for version in obj["spec"]["versions"] if version.get("storage"))
            stored = status.get("storedVersions") or []
            status["storedVersions"] = stored if storage in stored else [*stored, storage]
            return obj

        before = (item.obj().get("status") or {}).get("acceptedNames") or {}
        await self._update(item, change)
        if before.get("plural") and before != names:
            self._reconsider(item.name, item.obj()["spec"]["group"])

    def _begin_end(self, obj: Object) -> None:
        """What a definition says from the moment that it is deleted: it goes when its objects have gone."""
        if obj["metadata"].get("deletionTimestamp"):
            return
        finalizers = obj["metadata"].setdefault("finalizers", [])
        if CLEANUP not in finalizers:
            finalizers.append(CLEANUP)
        now = rfc3339(self._server.services.clock.now())
        definitions.set_condition(obj.setdefault("status", {}), definitions.PENDING, now)

    async def _finish(self, item: Item, obj: Object) -> None:
        """Delete every custom object, then let the definition go."""
        if CLEANUP not in (obj["metadata"].get("finalizers") or ()):
            return
        where = self._served.get(item.name)
        kind = self._server.registry.find(*where) if where is not None else None
        await self._tell(item, definitions.TERMINATING)
        if kind is not None:
            await self._delete_all(kind)
        self._withdraw(item.name)
        await self._tell(item, definitions.ended(obj))

        def change(found: Object) -> Object:
            kept = [name for name in found["metadata"].get("finalizers") or () if name != CLEANUP]
            found["metadata"]["finalizers"] = kept
            if not kept:
                del found["metadata"]["finalizers"]
            return found

        await self._update(item, change)

    async def _tell(self, item: Item, condition: Object) -> None:
        now = rfc3339(self._server.services.clock.now())

        def change(found: Object) -> Object:
            definitions.set_condition(found.setdefault("status", {}), condition, now)
            return found

        await self._update(item, change)

    async def _delete_all(self, kind: Kind) -> None:
        storage = self._server.storage
        for _, item in list(storage.cache(kind).items(storage.prefix(kind))):
            call = internal_call(
                self._server, kind.resource(kind.storage_version.name), "delete", item.namespace, item.name
            )
            try:
                await delete_item(call, item, {})
            except ApiError as error:
                if error.code != 404:
                    raise


def kind_of(definition: Object) -> Kind:
    """The kind that a definition defines."""
    spec = definition["spec"]
    names = spec["names"]
    versions = [_version(each, spec) for each in spec["versions"]]
    storage = next(each for each in spec["versions"] if each.get("storage"))
    schemas = {f"{spec['group']}/{each['name']}": _schema(each) for each in spec["versions"]}
    preserves = bool(spec.get("preserveUnknownFields"))
    kind = Kind(
        group=spec["group"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        versions=tuple(sorted(versions, key=lambda version: not version.served)),
        namespaced=spec["scope"] == "Namespaced",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        verbs=_VERBS,
        subresources=_subresources(storage),
        list_kind=names.get("listKind") or f"{names['kind']}List",
        generations=True,
        custom=True,
    )
    return behave(kind, _behavior(kind, schemas, preserves))


def _schema(version: Object) -> Mapping[str, Any]:
    return (version.get("schema") or {}).get("openAPIV3Schema") or {}


def _converter(schemas: Mapping[str, Mapping[str, Any]], preserves: bool) -> Callable[[Object, str], Object]:
    """The strategy None: another version's name, and only what its schema knows."""

    def convert(obj: Object, wanted: str) -> Object:
        obj["apiVersion"] = wanted
        if not preserves:
            structural.prune(obj, schemas[wanted])
        return obj

    return convert


def _behavior(kind: Kind, schemas: Mapping[str, Mapping[str, Any]], preserves: bool) -> Behavior:
    """`schemas` by apiVersion: an object is held to that of its own."""
    stored = schemas[kind.api_version(kind.storage_version.name)]

    def schema_of(obj: Object) -> Mapping[str, Any]:
        return schemas.get(obj.get("apiVersion", ""), stored)

    def default(obj: Object) -> None:
        schema = schema_of(obj)
        if not preserves:
            structural.prune(obj, schema)
        structural.default(obj, schema)

    def paths(obj: Object) -> ScalePaths | None:
        return _scale_of(kind, obj["apiVersion"].rpartition("/")[2])

    def validate(obj: Object) -> list[FieldError]:
        schema = schema_of(obj)
        found = structural.check(obj, schema) + customparts.scale(obj, paths(obj))
        return found + customparts.embedded(obj, schema) + structural.check_lists(obj, schema)

    def validate_update(new: Object, old: Object) -> list[FieldError]:
        schema = schema_of(new)
        found = structural.check(new, schema, was=Correlated(new, old, schema)) + customparts.scale(new, paths(new))
        found += customparts.embedded(new, schema)
        return found + ([] if structural.check_lists(old, schema) else structural.check_lists(new, schema))

    def validate_status(new: Object, old: Object) -> list[FieldError]:
        schema = schema_of(new)
        found = _status_complaints(new, old, schema) + customparts.scale(new, paths(new), status_only=True)
        return found + ([] if structural.check_lists(old, schema) else structural.check_lists(new, schema))

    updates = {"": Update(keep_status(kind), validate_update)}
    if kind.subresource("status"):
        updates["status"] = Update(only_status, validate_status)
    fields = {path: _field(f".{path}") for each in kind.versions for path in each.fields}
    return Behavior(
        kind.group,
        kind.kind,
        default=default,
        validate=validate,
        updates=updates,
        fields=fields,
        warnings=customparts.finalizer_warnings,
        convert=_converter(schemas, preserves) if any(each != stored for each in schemas.values()) else None,
    )


def _metadata(kind: Kind, new: Object, old: Object) -> list[FieldError]:
    """What is wrong with changed metadata, as often as it is told."""
    common = meta.validate_common(new, old, namespaced=kind.namespaced)
    return common + meta.validate_update(new, old) if common else []


def _status_complaints(new: Object, old: Object, schema: Mapping[str, Any]) -> list[FieldError]:
    """As the original: the schema of status is told of fields by their names below it."""
    below = (schema.get("properties") or {}).get("status")
    if below is None or "status" not in new:
        return []
    was = Correlated(new, old, schema).key("status")
    found = structural.check(new["status"], below, root=False, was=was)
    return [replace(each, field=_in_status(each.field)) for each in found]


def _scale_of(kind: Kind, version: str) -> ScalePaths | None:
    found = kind.subresource("scale", version)
    return found.scale if found is not None else None


def _in_status(field: str) -> str:
    return "status" if field in ("", "<nil>") else f"status.{field}"


def _selectable(version: Object) -> tuple[str, ...]:
    """The fields of a version that selectors may name (KEP-4358)."""
    return tuple(each["jsonPath"].removeprefix(".") for each in version.get("selectableFields") or ())


def _field(path: str) -> Callable[[Object], str]:
    find = jsonpath.compile(path)

    def value(obj: Object) -> str:
        found = find(obj)
        return jsonpath.text(found[0]) if found and found[0] is not None else ""

    return value


def _subresources(version: Object) -> tuple[Subresource, ...]:
    given = version.get("subresources") or {}
    made = []
    if "scale" in given:
        made.append(Subresource("scale", _READ_WRITE, "Scale", "autoscaling", "v1", _scale_paths(given["scale"])))
    if "status" in given:
        made.append(Subresource("status", _READ_WRITE))
    return tuple(made)


def _scale_paths(given: Object) -> ScalePaths:
    keys = ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")
    return ScalePaths(*(tuple(each for each in given.get(key, "").split(".") if each) for key in keys))


def _deprecated(name: str, spec: Object) -> str:
    """What users of a version are told, with the best of those that the original prefers to it."""
    kind = spec["names"]["kind"]
    fresh = [each["name"] for each in spec["versions"] if each.get("served") and not each.get("deprecated")]
    better = sorted((each for each in fresh if version_priority(each) < version_priority(name)), key=version_priority)
    use = f"; use {spec['group']}/{better[0]} {kind}" if better else ""
    return f"{spec['group']}/{name} {kind} is deprecated{use}"


def _version(version: Object, spec: Object) -> Version:
    schema = ((version.get("schema") or {}).get("openAPIV3Schema")) or {}
    deprecation = ""
    if version.get("deprecated"):
        deprecation = version.get("deprecationWarning") or _deprecated(version["name"], spec)
    return Version(
        version["name"],
        schema,
        served=bool(version.get("served")),
        storage=bool(version.get("storage")),
        deprecation=deprecation,
        columns=table.custom_columns(version.get("additionalPrinterColumns")),
        subresources=_subresources(version),
        fields=_selectable(version),
    )
