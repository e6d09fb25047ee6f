"""Items as bytes in whatever format was negotiated: objects, lists, watch events.

Owns the step from cached bytes to a body. Called by get, list, watch and every verb's answer. Encodings that many
watchers share are kept by the caller (`watch.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from steersman.api import table
from steersman.api.columntexts import ColumnTexts
from steersman.api.kind import Kind
from steersman.api.resource import Object
from steersman.apiserver.cache import Item, encode, prefix_of, stored_api_version
from steersman.apiserver.negotiate import JSON, META_GROUP, PROTOBUF, Format
from steersman.apiserver.unconverted import Unconverted

Objects = list[Object]


class Encoder:
    """Encodes objects of one kind, served in one version, in one format."""

    def __init__(
        self,
        kind: Kind,
        version: str,
        format: Format,
        *,
        include: str = "",
        now: float = 0.0,
        texts: ColumnTexts | None = None,
    ) -> None:
        """`include`: a Table's includeObject; `now`: Unix seconds, for ages; `texts`: words for columns."""
        self._texts = texts
        self._kind = kind
        self._api_version = kind.api_version(version)
        self._version = version
        self._format = format
        self._include = include or "Metadata"
        self._now = now
        self._stored = stored_api_version(kind) == self._api_version
        self._prefix = prefix_of(kind.kind, self._api_version)

    @property
    def raw(self) -> bool:
        """Whether an item's bytes are the answer as they are."""
        return self._stored and self._format.plain and not (self._kind.custom and self._kind.convert is not None)

    def object(self, item: Item) -> bytes:
        """One object."""
        if self.raw:
            return b"%b%b\n" % (self._prefix, item.tail)
        if self._format.transform == "Table":
            return self._whole(self._table([self.convert(item.obj())], {"resourceVersion": str(item.revision)}))
        return self._whole(self._shape(self.convert(item.obj())))

    def convert(self, obj: Object) -> Object:
        """The object in the served version."""
        if self._stored and (not self._kind.custom or obj["apiVersion"] == self._api_version):
            return obj
        if self._kind.convert is not None:
            obj = self._kind.convert(obj, self._api_version)
        obj["apiVersion"], obj["kind"] = self._api_version, self._kind.kind
        return obj

    def _shape(self, obj: Object) -> Object:
        if self._format.transform == "PartialObjectMetadata":
            version = f"{META_GROUP}/{self._format.version}"
            return {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": obj["metadata"]}
        return obj

    def _whole(self, obj: Object) -> bytes:
        """Any complete document in the negotiated medium."""
        return in_medium(obj, self._format)

    def _table(self, objects: Sequence[Object], meta: Object, *, headers: bool = True, blank: bool = False) -> Object:
        shown = table.columns(self._kind, self._version)
        if blank:
            shown = table.blank(shown)
        texts = self._texts.of("" if self._kind.custom else self._kind.plural) if self._texts and headers else {}
        return table.table(
            shown,
            objects,
            self._now,
            include=self._include,
            headers=headers,
            list_meta=meta,
            version=self._format.version or "v1",
            texts=texts,
        )

    @property
    def parted(self) -> bool:
        """Whether a list can be put together of `part`s."""
        return self._format.media in (JSON, PROTOBUF) and not self._format.indent

    def list(self, items: Sequence[Item], meta: Object) -> bytes | Sequence[bytes]:
        """A whole list."""
        if not items and self._format.transform == "Table" and table.generic(self._kind, self._version):
            return self._whole(self._table([], meta) | {"rows": None})  # the original's, for kinds without columns
        if not items and self._format.transform == "PartialObjectMetadata" and self._format.media != PROTOBUF:
            return self._whole(self._empty(meta) | {"items": None})
        if not self.parted:
            if self._format.transform == "Table":
                return self._whole(self._table(self._all(items), meta))
            return self._whole(self._empty(meta) | {"items": self._elements(items)})
        part = self.part(items)
        head, tail = self.around(meta, len(part))
        return [head, part, tail]

    def part(self, items: Sequence[Item]) -> bytes:
        """Some elements of a list, as they stand in it; `between` goes between two parts."""
        if self.raw:
            opening = self._prefix if self._kind.custom else b"{"
            tails = [item.tail for item in items]
            tails[:1] = [opening + tail for tail in tails[:1]]
            return (b"," + opening).join(tails)
        if self._protobuf:
            from steersman.api import protobuf

            return protobuf.elements(self._elements(items), *self._list_type)
        if self._format.transform == "Table":
            return encode(self._table(self._all(items), {})["rows"])[1:-1]
        return encode(self._elements(items))[1:-1]

    @property
    def between(self) -> bytes:
        """What separates two parts of a list."""
        return b"" if self._protobuf else b","

    def around(self, meta: Object, size: int) -> tuple[bytes, bytes]:
        """What comes before and after the parts of a list, which are `size` bytes together."""
        if self._protobuf:
            from steersman.api import protobuf

            return protobuf.around(self._empty(meta), size)
        whole = self._table([], meta) if self._format.transform == "Table" else self._empty(meta) | {"items": []}
        return encode(whole)[:-2], b"]}\n"

    @property
    def _protobuf(self) -> bool:
        """Whether a list is spoken about in protobuf: not every one has a message."""
        if self._format.media != PROTOBUF:
            return False
        from steersman.api import protobuf

        return protobuf.knows(*self._list_type)

    @property
    def _list_type(self) -> tuple[str, str]:
        if self._format.transform:
            return f"{META_GROUP}/{self._format.version}", "PartialObjectMetadataList"
        return self._api_version, self._kind.list_kind

    def _empty(self, meta: Object) -> Object:
        api_version, kind = self._list_type
        return {"kind": kind, "apiVersion": api_version, "metadata": meta}

    def _elements(self, items: Sequence[Item]) -> Objects:
        """A list's items as they stand in it: built-in kinds without their type."""
        objects = self._all(items)
        if self._format.transform:
            return [self._shape(obj) for obj in objects]
        if not self._kind.custom:
            for obj in objects:
                obj.pop("kind", None)
                obj.pop("apiVersion", None)
        return objects

    def _all(self, items: Sequence[Item]) -> Objects:
        """Every object in the served version. Raises Unconverted once, for all that are missing."""
        objects: Objects = []
        missing: Unconverted | None = None
        for item in items:
            try:
                objects.append(self.convert(item.obj()))
            except Unconverted as need:
                if missing is None:
                    missing = need
                else:
                    missing.objects += need.objects
        if missing is not None:
            raise missing
        return objects

    async def prepare(self, items: Sequence[Item]) -> None:
        """Fetch what is needed to encode these. Raises ApiError."""
        try:
            self._all(items)
        except Unconverted as need:
            await need.converter.fetch(need.objects, need.wanted)

    def event(self, type: str, item: Item, *, first: bool = False) -> bytes:
        """One watch event, unframed. `first`: the first of its watch."""
        if self.raw:
            return b'{"type":"%b","object":%b%b}\n' % (type.encode(), self._prefix, item.tail)
        return self.event_of(type, self.convert(item.obj()), first=first)

    def event_of(self, type: str, obj: Object, *, first: bool = False) -> bytes:
        """A watch event with an object that is not an item: bookmarks and errors."""
        if type != "ERROR":
            if self._format.transform == "Table":
                meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
                obj = self._table([obj], meta, headers=first, blank=type == "BOOKMARK")
            else:
                obj = self._shape(obj)
        if self._format.media == PROTOBUF:
            from steersman.api import protobuf

            return protobuf.watch_frame(type, protobuf.encode(obj))
        return b'{"type":"%b","object":%b}\n' % (type.encode(), encode(obj))


def headed(document: Object) -> Object:
    """The same with its type first, as the original writes it."""
    return {**{key: document[key] for key in ("kind", "apiVersion") if key in document}, **document}


def in_medium(document: Any, format: Format) -> bytes:
    """Any document as JSON, YAML or protobuf; without a protobuf form it is JSON, which every client reads.

    JSON ends with a line's end unless it is indented, as in the original.
    """
    if format.media == PROTOBUF:
        from steersman.api import protobuf

        if protobuf.knows(document.get("apiVersion", ""), document.get("kind", "")):
            return protobuf.encode(document)
    elif format.media != JSON:
        from steersman.api import yamlform

        return yamlform.dump(document)
    return msgspec.json.format(encode(document), indent=2) if format.indent else encode(document) + b"\n"


def content_type(document_kind: str, api_version: str, format: Format) -> str:
    """The Content-Type that `in_medium` gives a document."""
    if format.media == PROTOBUF:
        from steersman.api import protobuf

        return PROTOBUF if protobuf.knows(api_version, document_kind) else JSON
    return format.media
