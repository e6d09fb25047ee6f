"""What extension API servers document: their parts of /openapi/v2, and where their v3 documents are.

Owns the last good document of each. Called by the aggregator, which says when to ask, and by `api.openapi`. A server
that has no v3 gets one made from its v2. Source: kube-aggregator's pkg/controllers/openapi and openapiv3.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec

from steersman.api import openapi_protobuf
from steersman.api.discovery import Document, GroupVersion
from steersman.api.openapi_merge import part_of, to_v3
from steersman.apiserver.aggregation.backend import Backend
from steersman.apiserver.call import User
from steersman.apiserver.serviceref import Unroutable

log = logging.getLogger(__name__)

_TROUBLE = (Unroutable, OSError, TimeoutError, ValueError, RecursionError)
_WHO = User("system:aggregator")
_PREFIX = "/openapi/v3/"


class _Place(msgspec.Struct, rename="camel"):
    server_relative_url: str = msgspec.field(default="", name="serverRelativeURL")


class _Root(msgspec.Struct):
    paths: dict[str, _Place] = {}


_root = msgspec.json.Decoder(_Root)


@dataclass(frozen=True, slots=True)
class _Known:
    part: bytes = b""
    etag: str = ""
    url: str = ""
    own_v3: bool = False


class Documents:
    """Implements `api.openapi.Others`."""

    def __init__(self) -> None:
        self.revision = 0
        self._known: dict[GroupVersion, _Known] = {}

    def parts(self) -> Iterable[Document]:
        """Parts of the v2 document."""
        return [msgspec.json.decode(known.part) for known in self._known.values() if known.part]

    def places(self) -> Mapping[str, str]:
        """Where v3 documents are."""
        return {_place(where): known.url for where, known in self._known.items() if known.url}

    def converted(self, place: str) -> Document | None:
        """The part of a server that has no v3."""
        for where, known in self._known.items():
            if _place(where) == place and not known.own_v3 and known.part:
                part: Document = msgspec.json.decode(known.part)
                return part
        return None

    def has_v3(self, where: GroupVersion) -> bool:
        """Whether the server itself has to be asked for its v3 document."""
        known = self._known.get(where)
        return known is not None and known.own_v3

    def know(self, where: GroupVersion, part: Document) -> None:
        """The part of a server that is in this process."""
        self._settle(where, _Known(msgspec.json.encode(part)))

    def forget(self, where: GroupVersion) -> None:
        """A server that is no more."""
        if self._known.pop(where, None) is not None:
            self.revision += 1

    async def refresh(self, where: GroupVersion, backend: Backend) -> None:
        """Ask for both. What cannot be had, or read, leaves what was known."""
        before = self._known.get(where, _Known())
        url, own, part, etag = before.url, before.own_v3, before.part, before.etag
        try:
            url = await self._v3(where, backend)
            own = bool(url)
        except _TROUBLE as error:
            _tell(where, error)
        try:
            part, etag = await self._v2(where, backend, before)
        except _TROUBLE as error:
            _tell(where, error)
        self._settle(where, _Known(part, etag, url, own))

    def _settle(self, where: GroupVersion, known: _Known) -> None:
        if not known.own_v3:
            digest = hashlib.sha256(known.part).hexdigest().upper()
            known = replace(known, url=f"{_PREFIX}{_place(where)}?hash={digest}" if known.part else "")
        if known != self._known.get(where, _Known()):
            self._known[where] = known
            self.revision += 1

    async def _v3(self, where: GroupVersion, backend: Backend) -> str:
        answer = await backend.fetch("/openapi/v3", _WHO, "application/json", document=True)
        if answer.status != 200:
            return ""
        try:
            found = _root.decode(answer.body).paths.get(_place(where))
        except msgspec.MsgspecError as error:
            raise ValueError(f"no list of documents: {error}") from None
        if found is None:
            return ""
        mine = _PREFIX + _place(where)
        url = found.server_relative_url
        return url if url.partition("?")[0] == mine else mine

    async def _v2(self, where: GroupVersion, backend: Backend, before: _Known) -> tuple[bytes, str]:
        answer = await backend.fetch("/openapi/v2", _WHO, "application/json", etag=before.etag, document=True)
        if answer.status == 304:
            return before.part, before.etag
        if answer.status != 200:
            return b"", ""
        try:
            part = part_of(msgspec.json.decode(answer.body), f"/{_place(where)}/")
            openapi_protobuf.encode({**_HEAD, **part})  # what this cannot write would spoil the whole document
            to_v3(part, {})
        except (msgspec.MsgspecError, TypeError, AttributeError, LookupError) as error:
            raise ValueError(f"no OpenAPI document: {error}") from None
        return msgspec.json.encode(part), answer.etag


def _tell(where: GroupVersion, error: Exception) -> None:
    log.warning("cannot read the OpenAPI documents of %s: %s", _place(where), error or type(error).__name__)


_HEAD = {"swagger": "2.0", "info": {"title": "", "version": ""}}


def _place(where: GroupVersion) -> str:
    return f"apis/{where[0]}/{where[1]}" if where[0] else f"api/{where[1]}"
