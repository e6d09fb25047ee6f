"""Every kind that is served, found by path or by name.

Owns `Registry`: built once for a release from the resource table, the schemas and `kinds.ALL`, then changed only by
custom resource definitions that come and go. Called on every request, and by discovery and OpenAPI, which cache by
`revision`. Runs on one event loop; does no I/O beyond the first load of the schemas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from steersman.api import kind as generic
from steersman.api import schema
from steersman.api.columntexts import ColumnTexts
from steersman.api.kind import Behavior, Kind, Subresource, Update, Version
from steersman.api.schema import Schemas
from steersman.api.schema.decode import Decoders
from steersman.api.schema.resources import GROUPS, RESOURCES, SINCE, Row

_KUBE_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


class Registry:
    """The served kinds, with their schemas and decoders. `revision` grows with every change."""

    def __init__(self, release: str = schema.NEWEST, behaviors: Iterable[Behavior] | None = None) -> None:
        """`behaviors` defaults to `kinds.ALL`. Raises schema.UnknownRelease."""
        self.schemas: Schemas = schema.load(release)
        self.column_texts = ColumnTexts(self.schemas)
        self.decoders = Decoders(self.schemas)
        self.revision = 0
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._by_resource: dict[tuple[str, str, str], Kind] = {}
        self._by_kind: dict[tuple[str, str, str], Kind] = {}
        special = {(behavior.group, behavior.kind): behavior for behavior in _all(behaviors)}
        for group in GROUPS:
            for row in RESOURCES[group]:
                kind = built_in(group, row, self.schemas, special.get((group, row.kind)))
                if kind is not None:
                    self.add(kind)

    @property
    def release(self) -> str:
        """The Kubernetes release that is served, such as "1.37"."""
        return self.schemas.release

    def by_resource(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind at `/apis/<group>/<version>/<plural>`; None when it is not served."""
        return self._by_resource.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Kind | None:
        """The kind of an object with this apiVersion and kind; None when it is not served."""
        return self._by_kind.get((group, version, kind))

    def find(self, group: str, plural: str) -> Kind | None:
        """The kind with this plural, whatever its versions."""
        return self._kinds.get((group, plural))

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def groups(self) -> list[str]:
        """Groups in order of discovery: built-in ones, then custom ones by name."""
        served = {group for group, _ in self._kinds}
        return [group for group in GROUPS if group in served] + sorted(served.difference(GROUPS))

    def versions(self, group: str) -> list[str]:
        """The group's served versions, the preferred one first."""
        names = {version.name for kind in self.of_group(group) for version in kind.versions if version.served}
        return sorted(names, key=version_priority)

    def of_group(self, group: str, version: str = "") -> list[Kind]:
        """The group's kinds by plural, all or those served in `version`."""
        found = [kind for (owner, _), kind in self._kinds.items() if owner == group]
        return sorted((kind for kind in found if not version or kind.version(version)), key=lambda kind: kind.plural)

    def add(self, kind: Kind) -> None:
        """Serve a kind; one with the same group and plural is replaced."""
        self.remove(kind.group, kind.plural)
        self._kinds[kind.group, kind.plural] = kind
        for version in kind.versions:
            if version.served:
                self._by_resource[kind.group, version.name, kind.plural] = kind
                self._by_kind[kind.group, version.name, kind.kind] = kind
        self.revision += 1

    def remove(self, group: str, plural: str) -> None:
        """Serve a kind no longer; nothing happens when it is not there."""
        kind = self._kinds.pop((group, plural), None)
        if kind is None:
            return
        for version in kind.versions:
            self._by_resource.pop((group, version.name, plural), None)
            self._by_kind.pop((group, version.name, kind.kind), None)
        self.revision += 1


_FLOW = "flowcontrol.apiserver.k8s.io"
_DEPRECATED = {
    ("v1", "ComponentStatus"): ((1, 19), "", ""),
    ("v1", "Endpoints"): ((1, 33), "", "discovery.k8s.io/v1 EndpointSlice"),
    ("autoscaling/v2beta2", "HorizontalPodAutoscaler"): ((1, 23), "1.26", "autoscaling/v2 HorizontalPodAutoscaler"),
    ("storage.k8s.io/v1beta1", "CSIStorageCapacity"): ((1, 24), "1.27", "storage.k8s.io/v1 CSIStorageCapacity"),
    **{
        (f"{_FLOW}/{version}", kind): (since, removed, f"{_FLOW}/{instead} {kind}")
        for kind in ("FlowSchema", "PriorityLevelConfiguration")
        for version, since, removed, instead in (
            ("v1beta1", (1, 23), "1.26", "v1beta2"),
            ("v1beta2", (1, 26), "1.29", "v1beta3"),
            ("v1beta3", (1, 29), "1.32", "v1"),
        )
    },
}
"""What is served and should not be used: since which release, when it goes, and what to use instead."""


def built_in(group: str, row: Row, schemas: Schemas, behavior: Behavior | None = None) -> Kind | None:
    """The kind of one row in one release; None when that release does not have it."""
    names = [(version, schemas.name(group, version, row.kind)) for version in row.versions.split()]
    present = [(version, name) for version, name in names if name]
    if not present:
        return None
    versions = tuple(
        Version(version, name, storage=not i, deprecation=_deprecation(group, version, row.kind, schemas.release))
        for i, (version, name) in enumerate(present)
    )
    subresources = tuple(sub for sub in row.subresources if _since(group, row.plural, sub, schemas.release))
    kind = Kind(
        group=group,
        kind=row.kind,
        plural=row.plural,
        singular=row.kind.lower(),
        versions=versions,
        namespaced=row.namespaced,
        short_names=tuple(row.short.split()),
        categories=tuple(row.categories.split()),
        verbs=row.verbs,
        subresources=subresources,
        list_kind=f"{row.kind}List",
        stored_as=row.stored_as,
        create_on_update=row.create_on_update,
        generations=row.generations,
        returns_deleted=row.returns_deleted,
    )
    return behave(kind, behavior or Behavior(group, row.kind))


def behave(kind: Kind, behavior: Behavior) -> Kind:
    """`kind` with its special behaviour, and the generic one for whatever is not special."""
    updates = dict(behavior.updates)
    if kind.subresource("status"):
        updates.setdefault("status", Update(generic.only_status))
    return replace(
        kind,
        default=behavior.default or generic.do_nothing,
        validate=behavior.validate or generic.accept,
        validate_update=behavior.validate_update or generic.accept_update,
        prepare_create=behavior.prepare_create or generic.reset_status(kind),
        prepare_update=behavior.prepare_update or generic.keep_status(kind),
        updates=updates,
        columns=behavior.columns,
        fields=behavior.fields,
        name_rule=behavior.name_rule,
        convert=behavior.convert,
        warnings=behavior.warnings,
        kept=behavior.kept,
        order=behavior.order,
    )


def version_priority(name: str) -> tuple[int, int, int, str]:
    """Sorts versions as Kubernetes prefers them: v2, v1, v1beta2, v1alpha1, then others by name.

    Source: apimachinery's version.CompareKubeAwareVersionStrings.
    """
    match = _KUBE_VERSION.fullmatch(name)
    if match is None:
        return (3, 0, 0, name)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0), name)


def _all(behaviors: Iterable[Behavior] | None) -> Iterable[Behavior]:
    if behaviors is not None:
        return behaviors
    from steersman.api import kinds  # here, so that a tool that needs no behaviour does not load it

    return kinds.ALL


def _deprecation(group: str, version: str, kind: str, release: str) -> str:
    """The text of the Warning header for a deprecated version that is still served."""
    api_version = f"{group}/{version}" if group else version
    found = _DEPRECATED.get((api_version, kind))
    if found is None or schema.number(release) < found[0]:
        return ""
    (major, minor), removed, instead = found
    text = f"{api_version} {kind} is deprecated in v{major}.{minor}+"
    text += f", unavailable in v{removed}+" if removed else ""
    return f"{text}; use {instead}" if instead else text


def _since(group: str, plural: str, subresource: Subresource, release: str) -> bool:
    first = SINCE.get((group, plural, subresource.name))
    return first is None or schema.number(release) >= first
