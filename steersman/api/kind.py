"""A kind as data: the record that every verb, document and table is driven by.

Owns `Kind` and the small records it is made of, and the behaviour a kind has when it has none of its own. Built-in
kinds are put together by `registry.py` from the resource table (`schema/resources.py`: facts) and `kinds.ALL`
(`Behavior` records: functions); a CustomResourceDefinition becomes the same `Kind` at run time. Called by the API
server's verbs, discovery, OpenAPI and tables. Never does I/O, never asks the time. Functions get objects as decoded
JSON in the version that they were written against, and may change the object they are told to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steersman.api.errors import FieldError
from steersman.api.resource import Object, Resource

Default = Callable[[Object], None]
"""Fills in what the author left out, in place. Must be idempotent."""
Validate = Callable[[Object], list[FieldError]]
"""Complaints about an object that is decoded, typed and defaulted; types need no checking here."""
ValidateUpdate = Callable[[Object, Object], list[FieldError]]
"""Complaints about a change, given (new, old); `validate` of the new object is not part of it."""
Prepare = Callable[[Object], None]
"""Resets what a client may not set when it creates (status above all), in place."""
PrepareUpdate = Callable[[Object, Object], None]
"""Puts back into `new` what this endpoint may not change, given (new, old), in place."""
NameRule = Callable[[str, bool], list[str]]
"""Complaints about a name; the flag says that it is a generateName prefix."""
Cell = Callable[[Object, float], Any]
"""One Table cell, given the object and the time now in Unix seconds."""
Convert = Callable[[Object, str], Object]
"""The object in another apiVersion (the second argument). May return its argument, changed."""


@dataclass(frozen=True, slots=True)
class Column:
    """One printer column. Priority 0 shows always, 1 only with `-o wide`.

    `stated`: somebody has said what its description is, though it be nothing."""

    name: str
    cell: Cell
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0
    stated: bool = False


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where an object has what its scale shows: wanted replicas, present ones and perhaps the selector's text."""

    spec: tuple[str, ...] = ("spec", "replicas")
    status: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subresource:
    """`…/NAME/<name>`. `group`, `version` and `kind` are those of the body; all empty: the parent's own kind.

    `scale` says where a custom resource has what its scale shows; built-in kinds all have it in the same places.
    """

    name: str
    verbs: tuple[str, ...]
    kind: str = ""
    group: str = ""
    version: str = ""
    scale: ScalePaths | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a kind.

    `schema` is a definition's name in the release's schemas, or a custom resource's OpenAPI v3 schema.
    `columns` and `subresources` replace the kind's own when they are not None (custom resources have them per version).
    `deprecation` is the text of the Warning header, empty when the version is not deprecated.
    """

    name: str
    schema: str | Mapping[str, Any] = ""
    served: bool = True
    storage: bool = False
    deprecation: str = ""
    columns: tuple[Column, ...] | None = None
    subresources: tuple[Subresource, ...] | None = None
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """What an update through one subresource may change, and what is checked there, in the order of `order`: m the
    metadata as a change, n the metadata as if it were new, v the kind's rules, u `validate`."""

    prepare: PrepareUpdate
    validate: ValidateUpdate | None = None
    order: str = "mu"


def do_nothing(obj: Object) -> None:
    """The default defaulter."""


def accept(obj: Object) -> list[FieldError]:
    """The default validator."""
    return []


def accept_update(new: Object, old: Object) -> list[FieldError]:
    """The default validator of changes."""
    return []


def leave_as_is(new: Object, old: Object) -> None:
    """The default preparation of an update."""


@dataclass(frozen=True, slots=True)
class Behavior:
    """What is special about one built-in kind; `kinds.ALL` holds one per kind that has something special.

    Everything left None is generic: status is reset on create and kept on update, generation counts changes of spec
    where the kind has generations, `status` takes nothing but status. `updates` maps a subresource to its own rules,
    and nothing to those of the object itself where they have an order of their own: `validate` is not asked then.
    `fields` maps a field selector's path to its value, besides metadata.name and metadata.namespace.
    `warnings` gives texts for Warning headers on create and update. `kept` says why an object may not be deleted by
    its name, or nothing. `order` is that of an update's checks, as in `Update`.
    """

    group: str
    kind: str
    default: Default | None = None
    validate: Validate | None = None
    validate_update: ValidateUpdate | None = None
    prepare_create: Prepare | None = None
    prepare_update: PrepareUpdate | None = None
    updates: Mapping[str, Update] = field(default_factory=dict)
    columns: tuple[Column, ...] | None = None
    fields: Mapping[str, Callable[[Object], str]] = field(default_factory=dict)
    name_rule: NameRule | None = None
    convert: Convert | None = None
    warnings: Callable[[Object], list[str]] | None = None
    kept: Callable[[Object], str] | None = None
    order: str = "mvu"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind as served. `versions` is in order of preference; exactly one has `storage`.

    `stored_as` names the (group, plural) that holds its objects when that is not its own: events.k8s.io is a view of
    core Events. `create_on_update` says that PUT of a missing object creates it; `generations` that
    metadata.generation counts changes of spec; `returns_deleted` that DELETE answers with the object, not a Status.
    `custom` is True for a CustomResourceDefinition's kind.
    """

    group: str
    kind: str
    plural: str
    singular: str
    versions: tuple[Version, ...]
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    list_kind: str = ""
    stored_as: tuple[str, str] | None = None
    create_on_update: bool = False
    generations: bool = False
    returns_deleted: bool = False
    custom: bool = False
    default: Default = do_nothing
    validate: Validate = accept
    validate_update: ValidateUpdate = accept_update
    prepare_create: Prepare = do_nothing
    prepare_update: PrepareUpdate = leave_as_is
    updates: Mapping[str, Update] = field(default_factory=dict)
    columns: tuple[Column, ...] | None = None
    fields: Mapping[str, Callable[[Object], str]] = field(default_factory=dict)
    name_rule: NameRule | None = None
    convert: Convert | None = None
    warnings: Callable[[Object], list[str]] | None = None
    kept: Callable[[Object], str] | None = None
    order: str = "mvu"
    storage_location: tuple[str, str] = field(init=False, repr=False, compare=False)
    """(group, plural) under which objects are stored. It is asked for a dozen times in a request."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "storage_location", self.stored_as or (self.group, self.plural))

    @property
    def storage_version(self) -> Version:
        """The version that objects are stored in."""
        return next(version for version in self.versions if version.storage)

    def version(self, name: str) -> Version | None:
        """The served version of that name."""
        for version in self.versions:
            if version.name == name and version.served:
                return version
        return None

    def subresource(self, name: str, version: str = "") -> Subresource | None:
        """The subresource of that name, in `version` (default: any)."""
        return next((sub for sub in self.subresources_of(version) if sub.name == name), None)

    def subresources_of(self, version: str) -> tuple[Subresource, ...]:
        """All subresources in `version`."""
        found = self.version(version)
        return self.subresources if found is None or found.subresources is None else found.subresources

    def columns_of(self, version: str) -> tuple[Column, ...] | None:
        """The printer columns in `version`; None: name and age only."""
        found = self.version(version)
        return self.columns if found is None or found.columns is None else found.columns

    def resource(self, version: str = "") -> Resource:
        """Where it lives, in `version` (default: the preferred one)."""
        return Resource(self.group, version or self.versions[0].name, self.plural, self.kind, self.namespaced)

    def api_version(self, version: str) -> str:
        """`v1`, or `group/version`."""
        return f"{self.group}/{version}" if self.group else version


def reset_status(kind: Kind) -> Prepare:
    """Generic preparation of a new object: no status where it has its own endpoint, generation 1 where it counts."""
    has_status = any(sub.name == "status" for sub in kind.subresources)

    def prepare(obj: Object) -> None:
        if has_status:
            obj.pop("status", None)
        if kind.generations:
            obj["metadata"]["generation"] = 1
        else:
            obj["metadata"].pop("generation", None)

    return prepare


def keep_status(kind: Kind) -> PrepareUpdate:
    """Generic preparation of an update: status stays as it is, generation moves when anything but metadata changed.

    Source: the registry strategies' PrepareForUpdate; custom resources' is in apiextensions-apiserver.
    """
    has_status = any(sub.name == "status" for sub in kind.subresources)

    def prepare(new: Object, old: Object) -> None:
        if has_status:
            _copy_key("status", new, old)
        count_generation(kind, new, old)

    return prepare


def count_generation(kind: Kind, new: Object, old: Object) -> None:
    """Set `new`'s generation: the old one, plus one when something other than metadata and status changed."""
    generation = old["metadata"].get("generation")
    if kind.generations:
        changed = any(
            new.get(key) != old.get(key)
            for key in new.keys() | old.keys()
            if key not in ("metadata", "status", "apiVersion", "kind")
        )
        generation = (generation or 0) + changed or None  # a kind that begins without one shows none
    if generation is None:
        new["metadata"].pop("generation", None)
    else:
        new["metadata"]["generation"] = generation


def only_status(new: Object, old: Object) -> None:
    """Generic rule of the `status` endpoint: everything but status and metadata is put back."""
    for key in new.keys() | old.keys():
        if key not in ("metadata", "status", "apiVersion", "kind"):
            _copy_key(key, new, old)
    generation = old["metadata"].get("generation")
    if generation is None:
        new["metadata"].pop("generation", None)
    else:
        new["metadata"]["generation"] = generation


def _copy_key(key: str, new: Object, old: Object) -> None:
    if key in old:
        new[key] = old[key]
    else:
        new.pop(key, None)
