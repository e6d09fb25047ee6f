"""Objects are written again, so that each is stored in today's version and under today's key.

Owns the status of StorageVersionMigrations and, of a custom resource, the definition's condition StorageMigrating and
its storedVersions. One migration of a resource runs at a time, the oldest first. It applies nothing to each object that
is not newer than the migration: the API server then writes what it would store otherwise than it is stored.
Source: KEP-4192; kubernetes' pkg/controller/storageversionmigrator; texts are the original's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Literal

from steersman.api.errors import ApiError
from steersman.api.resource import CUSTOMRESOURCEDEFINITIONS, Object, Resource
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch, key_of
from steersman.client.discovery import Served, discover
from steersman.client.workload import condition, created_at
from steersman.lib.clock import rfc3339

MIGRATIONS = Resource(
    "storagemigration.k8s.io", "v1", "storageversionmigrations", "StorageVersionMigration", namespaced=False
)
_NAME = "storage-version-migrator-controller"
_RUNNER = "migration-runner-controller"
_NOWHERE = "fake-ns-for-svm"  # a list of it costs nothing and tells the newest revision
_VERBS = ("update", "patch", "list")
_PATIENCE = 60.0  # seconds that a new resource may take to be discovered
_AGAIN = (429, 500, 503, 504)
_PAGE = 500

Step = Literal["settle", "start", "run", ""]


class Failure(Exception):
    """The migration cannot succeed; the text is for its condition."""


def is_true(migration: Object, kind: str) -> bool:
    """Whether a condition of a migration is True."""
    found = condition((migration.get("status") or {}).get("conditions") or (), kind)
    return found is not None and found["status"] == "True"


def over(migration: Object) -> bool:
    """Whether it succeeded or failed."""
    return is_true(migration, "Succeeded") or is_true(migration, "Failed")


def group_resource(migration: Object) -> tuple[str, str]:
    """What it migrates: group and plural."""
    resource = migration["spec"].get("resource") or {}
    return resource.get("group") or "", resource.get("resource") or ""


def step(migration: Object, everyone: Iterable[Object]) -> Step:
    """What is to be done with a migration now; `everyone` may include it and those of other resources."""
    if over(migration):
        return "settle" if is_true(migration, "Running") else ""
    if is_true(migration, "Running"):
        return "run"
    rivals = [each for each in everyone if group_resource(each) == group_resource(migration)]
    waiting = [each for each in rivals if not over(each)]
    if any(is_true(each, "Running") for each in rivals):
        return ""
    first = min(waiting, key=_age, default=migration)
    return "start" if _age(first) == _age(migration) else ""


def _age(migration: Object) -> tuple[float, str]:
    return created_at(migration), migration["metadata"]["name"]


def told(migration: Object, kind: str, status: str, reason: str, message: str, now: float) -> Object:
    """The migration with a condition; one that is there already keeps its time while its status is the same."""
    conditions = list((migration.get("status") or {}).get("conditions") or ())
    old = condition(conditions, kind)
    stamp = old["lastTransitionTime"] if old is not None and old["status"] == status else rfc3339(now)
    new = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": stamp}
    conditions = [new if each["type"] == kind else each for each in conditions]
    if old is None:
        conditions.append(new)
    return {**migration, "status": {**(migration.get("status") or {}), "conditions": conditions}}


async def reconcile(context: Context, key: Key) -> Result:
    """Take one migration on, or bring it to its end."""
    informer = context.informer(MIGRATIONS)
    migration = informer.get(*key)
    if migration is None or migration["metadata"].get("deletionTimestamp"):
        return DONE
    now = context.clock.now()
    match step(migration, informer.list()):
        case "settle":
            await _finish_definition(context, migration)
            text = ("MigrationCompleted", "Migration completed")
            await _write(context, told(migration, "Running", "False", *text, now))
        case "start":
            text = ("MigrationRunning", "The migration is running")
            name = migration["metadata"]["name"]
            await _mark_definition(context, migration, "True", "MigrationRunning", f"Migration {name} is running")
            await _write(context, told(migration, "Running", "True", *text, now))
        case "run":
            return await _run(context, migration)
    return DONE


async def _write(context: Context, migration: Object) -> Object:
    return await context.client.update(MIGRATIONS, migration, subresource="status")


async def _run(context: Context, migration: Object) -> Result:
    group, plural = group_resource(migration)
    served = (await discover(context.client)).resources
    found = next((each for each in served if (each.resource.group, each.resource.plural) == (group, plural)), None)
    try:
        if found is None:
            left = created_at(migration) + _PATIENCE - context.clock.now()
            if left > 0:
                return Result(min(left, 5.0))
            raise Failure("resource does not exist in discovery")
        if not (migration.get("status") or {}).get("resourceVersion"):
            migration = await _write(context, await _measured(context, migration, found))
        await _migrate(context, found.resource, int(migration["status"]["resourceVersion"]))
    except Failure as failure:
        text = ("StorageVersionMigrationFailed", str(failure))
        await _write(context, told(migration, "Failed", "True", *text, context.clock.now()))
    else:
        text = ("StorageVersionMigrationSucceeded", "")
        await _write(context, told(migration, "Succeeded", "True", *text, context.clock.now()))
    return DONE


async def _measured(context: Context, migration: Object, found: Served) -> Object:
    """The migration with the revision up to which it looks at objects. Raises Failure, ApiError."""
    resource = found.resource
    if not found.verbs.issuperset(_VERBS):
        shown = f"{resource.group}/{resource.version}, Resource={resource.plural}"
        raise Failure(f'resource "{shown}" does not support discovery operations: [{" ".join(_VERBS)}]')
    where = _NOWHERE if resource.namespaced else ""
    page = await context.client.list(resource, where, limit=1, metadata_only=True)
    status = {**(migration.get("status") or {}), "resourceVersion": page.resource_version}
    if not page.resource_version.isdecimal():
        raise Failure(f"latest resourceVersion for {resource.plural} is not valid: {page.resource_version!r}")
    return {**migration, "status": status}


async def _migrate(context: Context, resource: Resource, newest: int) -> None:
    """Have every object written again that is not newer. Raises Failure; ApiError and OSError to be tried again."""
    async for obj in _all(context, resource):
        meta = obj["metadata"]
        if int(meta["resourceVersion"]) > newest:
            continue
        only = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": only}
        try:
            await context.client.patch(
                resource, meta["name"], meta.get("namespace", ""), body, type="apply", field_manager=_NAME
            )
        except ApiError as error:
            if error.code == 409:
                continue  # written, deleted or made anew since: in each case it is as it should be
            if error.code in _AGAIN:
                raise
            raise Failure(f"migration encountered unhandled error: {error.message}") from None


async def _all(context: Context, resource: Resource) -> AsyncIterator[Object]:
    """Metadata of all objects, read page by page."""
    begun = ""
    while True:
        page = await context.client.list(resource, limit=_PAGE, continue_=begun, metadata_only=True)
        for obj in page.items:
            yield obj
        if not (begun := page.continue_):
            return


# The definition of a custom resource --------------------------------------------------------------------------------


async def _definition(context: Context, migration: Object) -> Object | None:
    group, plural = group_resource(migration)
    try:
        return await context.client.get(CUSTOMRESOURCEDEFINITIONS, f"{plural}.{group}")
    except ApiError as error:
        if error.code != 404:
            raise
        return None


async def _mark_definition(context: Context, migration: Object, status: str, reason: str, message: str) -> None:
    if (found := await _definition(context, migration)) is not None:
        await _apply(context, found, status, reason, message, {})


async def _finish_definition(context: Context, migration: Object) -> None:
    """Objects are in one version now, unless the definition changed meanwhile."""
    if (found := await _definition(context, migration)) is None:
        return
    meta, status = found["metadata"], found.get("status") or {}
    if not is_true(migration, "Succeeded"):
        await _apply(context, found, "False", "MigrationFailed", "The migration has failed", {})
        return
    ours = condition(status.get("conditions") or (), "StorageMigrating") or {}
    if ours.get("observedGeneration") == meta.get("generation"):
        stored = [each["name"] for each in found["spec"]["versions"] if each.get("storage")]
        text, more = "and the stored versions have been updated", {"storedVersions": stored}
    else:
        text, more = "but the stored versions have not been updated due to a generation mismatch", {}
    await _apply(context, found, "False", "MigrationSucceeded", f"The migration has succeeded {text}", more)


async def _apply(context: Context, crd: Object, status: str, reason: str, message: str, more: Object) -> None:
    meta = crd["metadata"]
    said = {
        "type": "StorageMigrating",
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(context.clock.now()),
        "observedGeneration": meta.get("generation", 0),
    }
    body = {
        "apiVersion": CUSTOMRESOURCEDEFINITIONS.api_version,
        "kind": CUSTOMRESOURCEDEFINITIONS.kind,
        "metadata": {"name": meta["name"], "resourceVersion": meta["resourceVersion"]},
        "status": {"conditions": [said], **more},
    }
    await context.client.patch(
        CUSTOMRESOURCEDEFINITIONS,
        meta["name"],
        "",
        body,
        type="apply",
        subresource="status",
        field_manager=_RUNNER,
        force=True,
    )


def _with_rivals(context: Context, changed: Object) -> Iterable[Key]:
    """When one ends or goes, the next of its resource may begin."""
    yield key_of(changed)
    for each in context.informer(MIGRATIONS).list():
        if group_resource(each) == group_resource(changed):
            yield key_of(each)


CONTROLLER = Controller(_NAME, reconcile, (Watch(MIGRATIONS, _with_rivals),), workers=1, root=True)
